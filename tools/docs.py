"""
Write the pages of `docs/` that come from the code: one a rule, and the table of settings. `--check` only compares.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
from pathlib import Path

from sqlprobe.detectors import DETECTORS
from sqlprobe.settings import PREFIX, Settings

DOCS = Path(__file__).resolve().parent.parent / "docs"


def pages() -> dict[str, str]:
    """Every generated page by its path below docs/."""
    made = {f"rules/{rule}.md": f"{_rule(rule)}\n" for rule in DETECTORS}
    made["settings.md"] = _settings()
    return made


def _rule(rule: str) -> str:
    module = importlib.import_module(f"sqlprobe.detectors.{rule.replace('-', '_')}")
    return inspect.cleandoc(module.__doc__ or "")


def _settings() -> str:
    text = inspect.cleandoc(Settings.__doc__ or "")
    told = dict(re.findall(r"^    (\w+): (.*(?:\n        .*)*)", text, re.MULTILINE))
    lines = [
        "# Settings",
        "",
        "Given to `Settings(...)` and `attach(settings=...)`, or in the environment, which wins. Lists are comma",
        "separated there, maps are `key=value` pairs. A value that cannot be is an error at attach, and so is a",
        "variable that names no setting.",
        "",
        "| field | environment | default | meaning |",
        "|---|---|---|---|",
    ]
    for field in dataclasses.fields(Settings):
        default = getattr(Settings(), field.name)
        meaning = re.sub(r"\s+", " ", told[field.name]).replace("|", "\\|")
        lines.append(f"| `{field.name}` | `{PREFIX}{field.name.upper()}` | `{default!r}` | {meaning} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write or check; 1 where the check failed."""
    stale = [path for path, text in pages().items() if not _same(DOCS / path, text)]
    if "--check" in sys.argv:
        for path in stale:
            sys.stderr.write(f"docs/{path} is not what the code says: run python tools/docs.py\n")
        return 1 if stale else 0
    for path in stale:
        (DOCS / path).parent.mkdir(parents=True, exist_ok=True)
        (DOCS / path).write_text(pages()[path], encoding="utf-8")
    return 0


def _same(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
