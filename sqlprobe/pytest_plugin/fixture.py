"""
What a test gets that asks for the fixture `sqlprobe`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from sqlprobe.growth import assert_constant
from sqlprobe.pytest_plugin.limits import Limits, Seen, accusation, verdict
from sqlprobe.pytest_plugin.options import Allowance, check_rule
from sqlprobe.recording import Recording
from sqlprobe.settings import Settings, resolve
from sqlprobe.verdict import CheckError

if TYPE_CHECKING:
    from types import TracebackType

    from sqlprobe.model import Execution, Finding, StatementStats
    from sqlprobe.pytest_plugin.session import Session
    from sqlprobe.report import Report

KEY: Final = pytest.StashKey["Watcher"]()
N_PLUS_ONE: Final = "n-plus-one"


class Watcher:
    """
    The statements of the test's own call, every engine and thread of it, so far; and checks of a part of it.

    Works in every mode, `--sqlprobe=off` too: what a test asserts is the test's.
    """

    def __init__(self, session: Session | None, item: Any) -> None:
        self.settings = session.options.settings if session else resolve(base=Settings(call_sites="all")).settings
        self.recording = Recording(self.settings)
        self._allowed: tuple[Allowance, ...] = ()
        self._began = False
        if not isinstance(item, pytest.Item):
            raise pytest.UsageError("the fixture sqlprobe belongs to one test: request it in a function's scope")
        item.stash[KEY] = self
        if session is None:
            self.begin()
            item.addfinalizer(self.end)
        else:
            self._allowed = (*session.options.ignore, *session.limits_of(item).allow)
            if session.calling is item:  # asked for by request.getfixturevalue(), in the middle of the test
                self.begin()

    def begin(self) -> None:
        if not self._began:
            self._began = True
            self.recording.__enter__()

    def end(self) -> None:
        if self._began:
            self._began = False
            self.recording.__exit__(None, None, None)

    @property
    def calls(self) -> int:
        """Statements so far; an executemany is one."""
        return self.recording.calls

    @property
    def seconds(self) -> float:
        """What they took in the database, in seconds."""
        return self.recording.seconds

    @property
    def statements(self) -> tuple[StatementStats, ...]:
        """By statement and engine, most time first."""
        return self.recording.statements

    @property
    def executions(self) -> tuple[Execution, ...]:
        """Each statement in the order it came back."""
        return self.recording.executions

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the detectors say of them."""
        return self.recording.findings

    def report(self) -> Report:
        return self.recording.report()

    def max_queries(self, limit: int, *, zero_ok: bool = False) -> Check:
        """`with sqlprobe.max_queries(3):` fails where more statements ran inside; or none, unless *zero_ok*."""
        return Check(self, "the block", Limits(max_queries=_whole(limit, "max_queries"), zero_ok=zero_ok))

    def exactly(self, number: int) -> Check:
        """`with sqlprobe.exactly(2):` fails where more or fewer statements ran inside."""
        return Check(self, "the block", Limits(exactly=_whole(number, "exactly")))

    def max_seconds(self, limit: float, *, zero_ok: bool = False) -> Check:
        """`with sqlprobe.max_seconds(0.1):` fails where the statements inside took longer in the database."""
        return Check(self, "the block", Limits(max_seconds=limit, zero_ok=zero_ok))

    def max_rows(self, limit: int, *, zero_ok: bool = False) -> Check:
        """`with sqlprobe.max_rows(50):` fails where the statements inside gave or changed more rows."""
        return Check(self, "the block", Limits(max_rows=_whole(limit, "max_rows"), zero_ok=zero_ok))

    def no_n_plus_one(self, *, zero_ok: bool = False) -> Check:
        """`with sqlprobe.no_n_plus_one():` fails where there was one inside; or no statement, unless *zero_ok*."""
        return self.no_findings(N_PLUS_ONE, zero_ok=zero_ok)

    def no_findings(self, *rules: str, zero_ok: bool = False) -> Check:
        """`with sqlprobe.no_findings("write-loop"):` fails where there was one of *rules*, or of any, inside."""
        checked = frozenset(check_rule(rule, f"no_findings({rule!r})") for rule in rules) or frozenset({"any"})
        return Check(self, "the block", Limits(zero_ok=zero_ok), checked)

    assert_constant = staticmethod(assert_constant)

    def told(self, findings: tuple[Finding, ...], rules: frozenset[str]) -> list[Finding]:
        """Those of *findings* that are of *rules*, and that nothing allows."""
        return [
            finding
            for finding in findings
            if (finding.rule in rules or "any" in rules)
            and finding.severity != "info"
            and not any(allowed.covers(finding) for allowed in self._allowed)
        ]


class Check:
    """A block of a test that has limits: a context manager, for `with` and `async with`. Its recording is its value."""

    def __init__(self, watcher: Watcher, name: str, limits: Limits, rules: frozenset[str] = frozenset()) -> None:
        self.recording = Recording(watcher.settings)
        self._watcher = watcher
        self._name = name
        self._limits = limits
        self._rules = rules

    def __enter__(self) -> Recording:
        self.recording.__enter__()
        return self.recording

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        recording = self.recording
        recording.__exit__(kind, error, trace)
        if kind is not None:
            return
        findings = recording.findings
        if self._rules:
            if not recording.calls and not self._limits.zero_ok:
                raise CheckError(
                    f"{self._name} ran no statement, so nothing was checked.\n"
                    "  Check that it reaches the database through SQLAlchemy; zero_ok=True says that none is meant."
                )
            told = self._watcher.told(findings, self._rules)
            if told:
                raise CheckError(accusation(self._name, told))
            return
        said = verdict(self._name, self._limits, seen_of(recording, self._watcher.told(findings, frozenset({"any"}))))
        if said is not None:
            raise CheckError(said)

    async def __aenter__(self) -> Recording:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        self.__exit__(kind, error, trace)


def seen_of(recording: Recording, findings: list[Finding]) -> Seen:
    """What limits are held against, of *recording*."""
    executions = recording.executions
    return Seen(
        calls=recording.calls,
        seconds=recording.seconds,
        rows=sum(each.rows for each in executions if each.rows is not None),
        unknown_rows=sum(1 for each in executions if each.rows is None),
        recording=lambda: recording,
        findings=findings,
    )


def _whole(number: object, name: str) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise pytest.UsageError(f"sqlprobe.{name}({number!r}): a whole number from 0 on is needed")
    return number
