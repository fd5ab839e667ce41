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

from sqlprobe import advice, audit
from sqlprobe.detectors import DETECTORS, POOL_DETECTORS
from sqlprobe.plans.judge import CHECKS
from sqlprobe.settings import PREFIX, Settings
from sqlprobe_exporters.metrics import METRICS

DOCS = Path(__file__).resolve().parent.parent / "docs"


def pages() -> dict[str, str]:
    """Every generated page by its path below docs/."""
    made = {f"rules/{rule}.md": f"{_rule(rule)}\n" for rule in [*DETECTORS, *POOL_DETECTORS]}
    made |= {f"rules/{rule}.md": f"{_rule(rule, 'plans.rules')}\n" for rule in [*CHECKS, "plan-regression"]}
    made |= {f"rules/{rule}.md": _audited(rule) for rule in audit.PAGES}
    made |= {f"rules/{rule}.md": text for rule, text in advice.PAGES.items()}
    made["settings.md"] = _settings()
    made["metrics.md"] = _metrics()
    return made


def _rule(rule: str, package: str = "detectors") -> str:
    module = importlib.import_module(f"sqlprobe.{package}.{rule.replace('-', '_')}")
    return inspect.cleandoc(module.__doc__ or "")


def _audited(rule: str) -> str:
    """The page of a rule of the audit, whose check has it as its docstring."""
    text = inspect.cleandoc(audit.PAGES[rule].__doc__ or "")
    return (
        f"# {rule}\n\n{text.partition(f'{chr(10)}{chr(10)}Raises:')[0]}\n\nTold by [`sqlprobe audit`](../audit.md).\n"
    )


def _settings() -> str:
    text = inspect.cleandoc(Settings.__doc__ or "")
    told = dict(re.findall(r"^    (\w+): (.*(?:\n        .*)*)", text, re.MULTILINE))
    lines = [
        "# Settings",
        "",
        "Given to `Settings(...)` and `attach(settings=...)`, in the environment, or in the table `[tool.sqlprobe]`",
        "of pyproject.toml. The environment wins over the code, the code over the file: a field that the code leaves",
        "at its default is the file's. Lists are comma separated in the environment, maps are `key=value` pairs. A",
        "value that cannot be is an error at attach, and so is a name that is no setting; `sqlprobe doctor` prints",
        "what holds, each setting with where it comes from.",
        "",
        "```toml",
        "[tool.sqlprobe]",
        "slow_seconds = 0.25",
        'packages = ["shop"]',
        'budgets = "budgets.toml"        # a path from this file\'s folder, or a table',
        'path_map = { "/srv/app/" = "" }',
        "```",
        "",
        "The file is the pyproject.toml of the current folder or the nearest above it, up to the folder with `.git`;",
        "`SQLPROBE_CONFIG` names another, or, empty, none. The command line and pytest read it as `attach()` does.",
        "",
        "| field | environment | default | meaning |",
        "|---|---|---|---|",
    ]
    for field in dataclasses.fields(Settings):
        default = getattr(Settings(), field.name)
        meaning = re.sub(r"\s+", " ", told[field.name]).replace("|", "\\|")
        lines.append(f"| `{field.name}` | `{PREFIX}{field.name.upper()}` | `{default!r}` | {meaning} |")
    return "\n".join(lines) + "\n"


def _metrics() -> str:
    lines = [
        "# Metrics",
        "",
        "What the [Prometheus exporter](prometheus.md) tells. A counter's name ends with `_total`, a histogram has",
        "`_bucket`, `_sum` and `_count`. `route` is the name of a scope: a request's method and route template, a",
        "job's name. Of processes of one service, gauges of pools add up and the other gauges are the largest.",
        "",
        "| metric | kind | labels | meaning |",
        "|---|---|---|---|",
    ]
    for metric in METRICS:
        name = f"{metric.name}_total" if metric.kind == "counter" else metric.name
        bounds = f" Bounds: {', '.join(f'{bound:g}' for bound in metric.bounds)}." if metric.bounds else ""
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{name}` | {metric.kind} | {labels} | {metric.help}{bounds} |")
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
