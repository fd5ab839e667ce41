"""
Baselines: the findings that a code base had when it adopted the gate, and that do not fail it.

A file lists findings by `Finding.key`, which holds no line number, column list or alias: code that moves, and a table
that gains a column, keep it valid. It is JSON with one finding a line, sorted, so that its changes can be reviewed.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlprobe.model import SqlprobeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlprobe.model import Finding

NAME: Final = "sqlprobe-baseline"
VERSION: Final = 1


class BaselineError(SqlprobeError, ValueError):
    """A baseline that cannot be read or written: the message says what was found and what to do."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """Findings that are known, by key: `entries` say for people what each is (rule, label, scope, function)."""

    entries: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __contains__(self, finding: Finding) -> bool:
        return finding.key in self.entries

    @classmethod
    def of(cls, findings: Iterable[Finding]) -> Baseline:
        return cls({finding.key: _entry(finding) for finding in findings})

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Baseline:
        """
        The baseline in the file *path*.

        Raises:
            BaselineError: it cannot be read, is no baseline, or one of a newer format.
        """
        name = os.fspath(path)
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BaselineError(
                f"baseline {name}: there is no such file; write it once: pytest --sqlprobe-update-baseline"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or error
            raise BaselineError(f"baseline {name}: cannot be read: {reason}; {_ANEW}") from None
        kind = document.get("format") if isinstance(document, dict) else None
        title, _, version = kind.partition("/") if isinstance(kind, str) else ("", "", "")
        if title != NAME or not version.isdecimal():
            raise BaselineError(f'baseline {name}: no baseline: "format" is {kind!r}; {_ANEW}')
        if int(version) > VERSION:
            raise BaselineError(
                f"baseline {name}: its format is {kind}, this version reads up to {NAME}/{VERSION}; update sqlprobe"
            )
        findings = document.get("findings")
        if not isinstance(findings, list) or not all(_is_entry(each) for each in findings):
            raise BaselineError(
                f'baseline {name}: "findings" is no list of objects that have a "key", all texts; {_ANEW}'
            )
        return cls({each["key"]: {k: v for k, v in each.items() if k != "key"} for each in findings})

    def write(self, path: str | os.PathLike[str]) -> None:
        """
        Write it to the file *path*, whole or not at all.

        Raises:
            BaselineError: it cannot be written. What was there before is still there.
        """
        name = os.fspath(path)
        rows = [json.dumps({**entry, "key": key}) for key, entry in sorted(self.entries.items(), key=_order)]
        body = ",\n".join(f"    {row}" for row in rows)
        findings = f"[\n{body}\n  ]" if rows else "[]"
        text = f'{{\n  "format": "{NAME}/{VERSION}",\n  "findings": {findings}\n}}\n'
        temporary = Path(f"{name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(name)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise BaselineError(
                f"baseline {name}: cannot be written: {error.strerror or error}; name a file in a folder that exists "
                "and is yours to write"
            ) from error


_ANEW: Final = "mend it, or delete it and write it anew: pytest --sqlprobe-update-baseline"


def _is_entry(each: Any) -> bool:
    return isinstance(each, dict) and bool(each.get("key")) and all(isinstance(value, str) for value in each.values())


def _entry(finding: Finding) -> dict[str, str]:
    site = finding.site or finding.origin
    return {
        "rule": finding.rule,
        "label": finding.label,
        "scope": finding.scope,
        "where": f"{site.file} {site.function}" if site else "",
    }


def _order(item: tuple[str, Mapping[str, str]]) -> tuple[str, ...]:
    key, entry = item
    return (*(entry.get(name, "") for name in ("rule", "label", "scope")), key)
