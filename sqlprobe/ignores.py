"""
Ignores: what is meant to be as it is, with the reason, and whether there still is anything for it to ignore.

    [[ignore]]
    rule = "n-plus-one"
    label = "Order.items"
    site = "shop/admin/*"
    reason = "two rows at most"
"""

from __future__ import annotations

import difflib
import os
from contextvars import ContextVar
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlprobe.model import RULES, SqlprobeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlprobe.model import Finding, Site

TABLE: Final = "ignore"
MAX_IGNORES: Final = 1_000  # different ones that are counted
_FIELDS: Final = ("rule", "label", "site", "reason")


class IgnoreError(SqlprobeError, ValueError):
    """An ignore that cannot be: an unknown rule or label, or no reason. The message says which and what would do."""


@dataclass(frozen=True, slots=True)
class Ignore:
    """
    Findings that are not to be told: those of *rule* whose label is *label* and whose site's file matches *site*.

    *label* and *site* may hold `*` and `?`; empty they fit everything. *site* is a file, with `:` and a function's name
    after it if need be ("shop/views.py:list_*"); a finding with several lines (site, caller, origin) fits by any.

    Raises:
        IgnoreError: no rule is called *rule*, or *reason* is empty.
    """

    rule: str
    label: str = ""
    site: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        for name in _FIELDS:
            if not isinstance(getattr(self, name), str):
                raise IgnoreError(f"ignore({name}={getattr(self, name)!r}): a string is needed")
        if self.rule not in RULES:
            near = difflib.get_close_matches(self.rule, RULES, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"rules are {', '.join(RULES)}"
            raise IgnoreError(f"ignore(rule={self.rule!r}): no rule is called that; {hint}")
        if not self.reason.strip():
            raise IgnoreError(f"ignore({self.rule!r}): a reason is needed: say why it is meant, reason='...'")

    def __str__(self) -> str:
        where = "".join(f", {name}={value!r}" for name, value in (("label", self.label), ("site", self.site)) if value)
        return f"ignore({self.rule!r}{where}, reason={self.reason!r})"

    def fits_label(self, label: str) -> bool:
        """Whether *label* is meant; of labels that name several things (`"orders items"`), one is enough."""
        if not self.label or fnmatchcase(label, self.label):
            return True
        return any(fnmatchcase(part, self.label) for part in label.split())

    def fits_site(self, *sites: Site | None) -> bool:
        """Whether one of *sites*, or what called it, is meant."""
        if not self.site:
            return True
        file, _, function = self.site.partition(":")
        for site in sites:
            while site is not None:
                if fnmatchcase(site.file, file) and (not function or fnmatchcase(site.function, function)):
                    return True
                site = site.caller  # noqa: PLW2901 - up the stack
        return False

    def fits(self, finding: Finding) -> bool:
        """Whether *finding* is not to be told."""
        return (
            finding.rule == self.rule
            and self.fits_label(finding.label)
            and self.fits_site(finding.site, finding.origin)
        )


current: ContextVar[tuple[Ignore, ...]] = ContextVar("sqlprobe.ignores", default=())  # of `with sqlprobe.ignore(...)`
_entered: dict[Ignore, int] = {}
_matched: dict[Ignore, int] = {}


def entered(ignore: Ignore) -> None:
    """Count that the program came to *ignore*."""
    if ignore in _entered or len(_entered) < MAX_IGNORES:
        _entered[ignore] = _entered.get(ignore, 0) + 1


def matched(ignore: Ignore) -> None:
    """Count that *ignore* had something to ignore."""
    if ignore in _matched or len(_matched) < MAX_IGNORES:
        _matched[ignore] = _matched.get(ignore, 0) + 1


def told(findings: Iterable[Finding], ignores: tuple[Ignore, ...]) -> list[Finding]:
    """*findings* without those that *ignores* fit."""
    kept = []
    for finding in findings:
        fitting = [ignore for ignore in ignores if ignore.fits(finding)]
        for ignore in fitting:
            matched(ignore)
        if not fitting:
            kept.append(finding)
    return kept


def unmatched(ignores: Iterable[Ignore]) -> list[str]:
    """A sentence for each of *ignores*, and of those that the program came to, that had nothing to ignore so far."""
    every = dict.fromkeys([*ignores, *_entered.copy()])
    return [f"{ignore} has matched nothing" for ignore in every if ignore not in _matched]


def forget() -> None:
    """Count anew: after a fork, and between tests."""
    _entered.clear()
    _matched.clear()


def check_ignores(ignores: object) -> tuple[Ignore, ...]:
    """
    *ignores* as a tuple of `Ignore`: mappings of its fields do as well.

    Raises:
        IgnoreError: one of them cannot be.
    """
    if not isinstance(ignores, (tuple, list)):
        raise IgnoreError(f"a tuple of ignores is needed, found {type(ignores).__name__}")
    return tuple(each if isinstance(each, Ignore) else _ignore(each, "ignores") for each in ignores)


def load_ignores(path: str | os.PathLike[str]) -> tuple[Ignore, ...]:
    """
    The tables `[[ignore]]` of the TOML file *path*, which may hold `[budgets]` too.

    Raises:
        IgnoreError: the file cannot be read, is no TOML, or an ignore in it cannot be.
    """
    import tomllib

    name = os.fspath(path)
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise IgnoreError(f"ignores {name}: cannot be read: {reason}; name a TOML file with [[{TABLE}]]") from error
    tables = document.get(TABLE, [])
    if not isinstance(tables, list):
        raise IgnoreError(f"ignores {name}: found [{TABLE}]; write [[{TABLE}]], one for each")
    return tuple(_ignore(table, name) for table in tables)


def _ignore(table: Any, name: str) -> Ignore:
    fields: Mapping[str, Any] = table if isinstance(table, dict) else {}
    unknown = next((field for field in fields if field not in _FIELDS), None)
    if not isinstance(table, dict) or unknown is not None or "rule" not in fields:
        found = f"the field {unknown!r}" if unknown is not None else repr(table)
        raise IgnoreError(f"{name}: found {found}; an ignore has {', '.join(_FIELDS)}")
    return Ignore(**fields)
