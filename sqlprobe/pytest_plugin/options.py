"""
What was asked of the plugin, on the command line and in the ini file. Wrong use ends the run before its first test.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import pytest

from sqlprobe.baseline import Baseline
from sqlprobe.budgets import load_budgets
from sqlprobe.model import RULES, SqlprobeError
from sqlprobe.report import Report, ReportError, suffix_of
from sqlprobe.settings import PREFIX, Settings, resolve

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sqlprobe.advice.snapshot import Snapshot
    from sqlprobe.model import Finding

Mode = Literal["off", "report", "warn", "fail"]

ANY: Final = "any"
TOP: Final = 5
# What a gate may rest on: the same code on the same data has the same findings, however busy the machine is.
STEADY: Final = (
    "n-plus-one", "repeated-statement", "duplicate-statement", "column-load", "write-loop", "row-explosion",
    "query-budget",
)  # fmt: skip
# Found by --sqlprobe-explain, and by nothing else in tests: steady too, for they do not depend on rows.
OF_PLANS: Final = (
    "missing-vector-index", "rls-hides-index", "seq-scan", "unusable-predicate", "vector-operator-mismatch",
    "vector-unusable-form", "whole-index-walk",
)  # fmt: skip
# Found with --sqlprobe-stats too: by what the planner expects, which is the same for the same values.
OF_PRODUCTION: Final = (
    "deep-offset", "filter-discards-rows", "missing-index", "missing-jsonb-index", "missing-partial-index",
    "missing-text-index", "nested-loop", "partition-pruning-lost", "sort-spill", "stale-statistics",
    "unbounded-result", "vector-index-parameters", "vector-overfiltering",
)  # fmt: skip

_SETTINGS: Final = tuple(item.name for item in dataclasses.fields(Settings))


@dataclass(frozen=True, slots=True)
class Allowance:
    """Findings that are not told: of a rule ("" is each), of labels that fit a glob."""

    rule: str
    label: str
    text: str

    def covers(self, finding: Finding) -> bool:
        return self.rule in {"", finding.rule} and (self.label in {"", "*"} or fnmatchcase(finding.label, self.label))


@dataclass(frozen=True, slots=True)
class Options:
    """What the plugin does. `asked` is whether a mode was asked for: without, one line is told at most."""

    mode: Mode
    asked: bool
    fail_on: frozenset[str]
    fixtures: bool
    max_queries: int | None
    ignore: tuple[Allowance, ...]
    baseline: Path | None
    known: Baseline
    update_baseline: bool
    budgets: Path | None
    write_budgets: bool
    budgets_from: tuple[Report, ...]
    reports: tuple[Path, ...]
    top: int
    github: bool
    explain: bool
    stats: Snapshot | None
    settings: Settings

    def fails(self, finding: Finding) -> bool:
        """Whether *finding* is of those that fail a test in mode fail."""
        return finding.severity != "info" and (ANY in self.fail_on or finding.rule in self.fail_on)

    @classmethod
    def of(cls, config: pytest.Config) -> Options:
        """
        The options of the run.

        Raises:
            UsageError: one cannot be; the message names it and what would do.
        """
        try:
            return _options(_Given(config))
        except SqlprobeError as error:
            raise pytest.UsageError(f"sqlprobe: {error}") from None


class _Given:
    """What the command line says, else the ini file. Paths are relative to where each was written."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def value(self, name: str) -> Any:
        given = self.config.getoption(f"sqlprobe_{name}", None)
        return given if given is not None else self._ini(name)

    def text(self, name: str) -> str:
        return str(self.value(name) or "").strip()

    def flag(self, name: str) -> bool:
        return bool(self.value(name))

    def words(self, name: str) -> list[str]:
        return [word.strip() for line in self.value(name) or () for word in line.split(",") if word.strip()]

    def lines(self, name: str) -> list[str]:
        return [line.strip() for line in self.value(name) or () if line.strip()]

    def paths(self, name: str) -> tuple[Path, ...]:
        on_command = self.config.getoption(f"sqlprobe_{name}", None) is not None
        folder = self.config.invocation_params.dir if on_command else self.config.rootpath
        given = self.value(name) or ()
        return tuple(folder / path for path in ([given] if isinstance(given, str) else given) if path)

    def _ini(self, name: str) -> Any:
        try:
            return self.config.getini(f"sqlprobe_{name}")
        except (KeyError, ValueError):  # it is the command line's only
            return None


def allowance(text: object, where: str) -> Allowance:
    """
    The allowance that *text*, found in *where*, stands for: `rule`, `rule:label` or a label with a dot or a star.

    Raises:
        UsageError: it names a rule that there is not.
    """
    if not isinstance(text, str) or not text.strip():
        raise pytest.UsageError(f"{where}: {text!r} allows nothing; use a rule, rule:label or a label: {_EXAMPLE}")
    rule, separator, label = (part.strip() for part in text.partition(":"))
    if separator:
        return Allowance(check_rule(rule, where) if rule not in {"*", ANY} else "", label, text)
    if rule in RULES:
        return Allowance(rule, "", text)
    if "." in rule or "*" in rule:
        return Allowance("", rule, text)
    return Allowance(check_rule(rule, where), "", text)


_EXAMPLE: Final = "'n-plus-one', 'n-plus-one:Order.items' or 'Order.*'"


def check_rule(rule: str, where: str) -> str:
    """
    *rule*, in small letters.

    Raises:
        UsageError: there is no such rule.
    """
    small = rule.strip().lower()
    if small in {*RULES, ANY}:
        return small
    raise pytest.UsageError(f"{where}: no rule is called {rule!r}{near(small, (*RULES, ANY))}")


def check_mode(text: object, where: str) -> Mode:
    """
    The mode that *text* names.

    Raises:
        UsageError: there is no such mode.
    """
    small = str(text).strip().lower()
    for mode in get_args(Mode):
        if small == mode:
            found: Mode = mode
            return found
    raise pytest.UsageError(f"{where}: no mode is called {text!r}{near(small, get_args(Mode))}")


def near(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'n-plus-one'?`, or all that there is."""
    names = list(known)
    close = difflib.get_close_matches(word, names, 1, 0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(names)}"


def _options(given: _Given) -> Options:
    fail_on = frozenset(check_rule(rule, "sqlprobe_fail_on") for rule in given.words("fail_on"))
    text = given.text("mode")
    # Whoever names the rules that fail a test wants them to.
    mode: Mode = check_mode(text, "--sqlprobe") if text else "fail" if fail_on else "report"
    baseline = next(iter(given.paths("baseline")), None)
    update = given.flag("update_baseline")
    if update and baseline is None:
        raise pytest.UsageError("--sqlprobe-update-baseline: which file? add --sqlprobe-baseline=FILE")
    known = Baseline() if baseline is None or (update and not baseline.exists()) else Baseline.read(baseline)
    budgets = next(iter(given.paths("budgets")), None)
    write = given.flag("write_budgets")
    sources = given.paths("budgets_from")
    if (write or sources) and budgets is None:
        raise pytest.UsageError("--sqlprobe-write-budgets: which file? add --sqlprobe-budgets=FILE")
    if sources and not write:
        raise pytest.UsageError("--sqlprobe-budgets-from: its budgets are for a file; add --sqlprobe-write-budgets")
    limits = {} if budgets is None or (write and not budgets.exists()) else load_budgets(budgets)
    reports = given.paths("report")
    for path in reports:
        _check_output(path)
    stats = _stats(next(iter(given.paths("stats")), None))
    explain = given.flag("explain") or stats is not None
    asked = bool(text or fail_on or explain)
    github = given.text("github").lower() or "auto"
    if github not in {"auto", "on", "off"}:
        raise pytest.UsageError(f"sqlprobe_github: {github!r} cannot be{near(github, ('auto', 'on', 'off'))}")
    in_actions = os.environ.get("GITHUB_ACTIONS") == "true"
    return Options(
        mode=mode,
        asked=asked,
        fail_on=fail_on or frozenset((*STEADY, *OF_PLANS, *(OF_PRODUCTION if stats is not None else ()))),
        fixtures=given.flag("fixtures"),
        max_queries=_number(given.text("max_queries"), "sqlprobe_max_queries"),
        ignore=tuple(allowance(text, "sqlprobe_ignore") for text in given.words("ignore")),
        baseline=baseline,
        known=known,
        update_baseline=update,
        budgets=budgets,
        write_budgets=write,
        budgets_from=tuple(Report.read(path) for path in sources),
        reports=reports,
        top=_number(given.text("top"), "sqlprobe_top", TOP if asked else 0) or 0,
        github=github == "on" or (github == "auto" and in_actions and mode in {"warn", "fail"}),
        explain=explain,
        stats=stats,
        settings=_settings(given.lines("settings"), limits),
    )


def _stats(path: Path | None) -> Snapshot | None:
    if path is None:
        return None
    from sqlprobe.advice import lab
    from sqlprobe.advice.snapshot import Snapshot

    if not lab.is_installed():
        raise pytest.UsageError(
            "--sqlprobe-stats: production's plans are made by a PostgreSQL of sqlprobe's own, which is not installed; "
            'pip install "sqlprobe[lab]"'
        )
    return Snapshot.load(path)


def _settings(lines: list[str], budgets: dict[str, int]) -> Settings:
    environment = {}
    for line in lines:
        name, separator, value = line.partition("=")
        if not separator:
            raise pytest.UsageError(f"sqlprobe_settings: {line!r} is no setting; write it as slow_seconds=0.5")
        if name.strip() not in _SETTINGS:
            raise pytest.UsageError(f"sqlprobe_settings: no setting is called {name!r}{near(name, _SETTINGS)}")
        environment[PREFIX + name.strip().upper()] = value.strip()
    # The line of each statement is wanted; the environment and the ini file may say otherwise.
    given = {**environment, **os.environ}
    return resolve(Settings(budgets=budgets), base=Settings(call_sites="all"), environ=given).settings


def _number(text: str, name: str, default: int | None = None) -> int | None:
    if not text:
        return default
    if not text.isdecimal():
        raise pytest.UsageError(f"{name}: a whole number is needed, found {text!r}")
    return int(text)


def _check_output(path: Path) -> None:
    suffix_of(path)
    if path.is_dir() or not path.resolve().parent.is_dir():
        found = "is a folder" if path.is_dir() else "is in no folder that exists"
        raise ReportError(f"--sqlprobe-report={path}: {found}; name a file in a folder that is there")
