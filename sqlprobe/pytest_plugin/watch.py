"""
Following the statements of a suite, test by test.

One recording is open for the whole run and hands each statement to the test that runs: nothing is installed or
configured per test. Between tests it is switched off by one flag, unless somebody else records too.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from sqlprobe import capture, detectors, faults, orm, scopes
from sqlprobe.ledger import Ledger, ScopeTally
from sqlprobe.orm import OTHER
from sqlprobe.recording import Recording
from sqlprobe.scopes import LIGHT, Digest, Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlprobe.model import Finding, ScopeStats
    from sqlprobe.scopes import Scope
    from sqlprobe.settings import Settings

MAX_KEPT: Final = 2_000  # statements of a test that a failure can list
SCOPE: Final = "tests"  # the scope of findings of what ran in a test and in no scope
FIXTURES: Final = "fixtures"
NO_SCOPES: Final = frozenset({"test", "thread", "task"})  # kinds that are no unit of work of the application


class Run:
    """
    What one test's call (or setup, or teardown) ran. Digested as a scope is, with the first statements kept as they
    came, so that what is asked of few tests costs the others nothing.
    """

    __slots__ = (
        "_digests", "_ledger", "_lock", "_pending", "_settings", "_sums", "calls", "distinct", "errors", "findings",
        "kept", "name", "ns", "opened_ns", "plans", "rows", "scope_calls", "scopes", "wall_ns",
    )  # fmt: skip

    def __init__(self, settings: Settings, name: str, sums: Watch | None = None) -> None:
        self.name = name
        self.calls = 0
        self.ns = 0
        self.rows = 0
        self.errors = 0
        self.distinct = 0
        self.wall_ns = 0
        self.findings: tuple[Finding, ...] = ()
        self.kept: list[tuple[tuple[Any, ...], Scope | None]] = []
        self.scope_calls: dict[tuple[str, str], int] = {}  # the most that a scope of that name and kind ran
        self.scopes: dict[tuple[str, str], ScopeTally] = {}
        self._ledger: Ledger | None = None
        self.plans: dict[str, Any] = {}  # what became of them, where they were asked for
        self.opened_ns = perf_counter_ns()
        self._settings = settings
        self._sums = sums  # who adds up the statements of all tests
        self._pending: deque[tuple[tuple[Any, ...], Scope | None]] = deque()
        self._digests: dict[Scope | None, Digest] = {}
        self._lock = threading.RLock()

    @property
    def ledger(self) -> Ledger:
        """What was found so far. Most tests need none."""
        if self._ledger is None:
            self._ledger = Ledger(float("inf"))
        return self._ledger

    def take(self, record: tuple[Any, ...], scope: Scope | None) -> None:
        """Append a `Record`. Called by capture, in whatever thread."""
        given = record[7]
        if given is not None:
            if type(given) is tuple:
                for value in given:  # mostly one or two
                    if type(value) not in LIGHT:
                        record = scopes.slim(record)
                        break
            else:
                record = scopes.slim(record)
        pending = self._pending
        pending.append((record, scope))
        if len(pending) >= scopes.BATCH and self._lock.acquire(blocking=False):
            try:
                self.drain()
            finally:
                self._lock.release()

    def judge(self, scope: Scope, window: Window) -> None:
        """A scope has ended: judge what ran of it in this test."""
        with self._lock:
            # Closed already: without a digest of its own, what is pending would go to its parent's.
            self._digests.setdefault(scope, Digest(scope.name, self._settings.slow_ns))
            self.drain()
            digest = self._digests.pop(scope)
            digest.name = scope.name
            if digest.calls:
                self.ledger.add(detectors.judge(digest, self._settings))
                self._digest_of(scope.parent).merge(digest, repeats=scope.is_part)
            key = (scope.name, scope.kind)
            self.scope_calls[key] = max(self.scope_calls.get(key, 0), window.calls)
            if window.calls:
                tally = self.scopes.setdefault(key, ScopeTally(*key))
                tally.add(window)

    def drain(self) -> None:
        """Digest what is pending. Called under the lock, or by the only one who looks."""
        pending = self._pending
        taken = [pending.popleft() for _ in range(len(pending))]  # other threads may go on appending
        self.kept += taken[: max(0, MAX_KEPT - len(self.kept))]
        self._add_up(taken)
        batches: dict[Scope | None, deque[tuple[Any, ...]]] = {}
        for record, scope in taken:
            batch = batches.get(scope)
            if batch is None:
                batch = batches[scope] = deque()
            batch.append(record)
        for scope, batch in batches.items():
            self._digest_of(scope).drain(batch)

    def finish(self) -> None:
        """The test has ended: judge what has not been."""
        self.wall_ns = perf_counter_ns() - self.opened_ns
        with self._lock:
            if not self._digests and self._ledger is None and self._is_plain():
                return
            self.drain()
            root = self._digest_of(None)
            for scope, digest in self._digests.items():
                if scope is not None and digest.calls:  # one that a fixture keeps open
                    self.ledger.add(detectors.judge(digest, self._settings))
                    root.merge(digest)
            self._digests = {}
            self.calls, self.ns, self.rows, self.errors = root.calls, root.ns, root.rows, root.errors
            self.distinct = root.distinct
            found = detectors.judge(root, self._settings)
            if found:
                self.ledger.add(found)
            self.findings = self.ledger.findings(time.time())

    def _is_plain(self) -> bool:
        """
        Whether no rule can find anything in what is pending, and its sums are all that there is to tell.

        Most tests are so, and to see it takes a tenth of what digesting takes. Every rule looks for statements that
        repeat, for lazy loads and reloads, for slow ones, or at what an ORM query joins.
        """
        pending = list(self._pending)
        if self._settings.budgets:
            return not pending
        shapes = set()
        slow_ns, joins = self._settings.slow_ns, orm.JOINS
        ns = all_rows = errors = 0
        for record, scope in pending:
            tally, _, elapsed, rows, load, _, extra, _, ignores = record
            if (
                scope is not None
                or elapsed >= slow_ns
                or ignores
                or (load is not None and (load[0] != OTHER or getattr(load[1], joins, False)))
            ):
                return False
            shapes.add(tally.shape.fingerprint)
            ns += elapsed
            if rows > 0:
                all_rows += rows
            if extra is not None and extra.error is not None:
                errors += 1
        if len(shapes) != len(pending):
            return False
        self.calls, self.ns, self.rows, self.errors, self.distinct = len(pending), ns, all_rows, errors, len(shapes)
        self.kept = pending[:MAX_KEPT]
        self._add_up(pending)
        return True

    def _add_up(self, records: Iterable[tuple[tuple[Any, ...], Scope | None]]) -> None:
        """Count *records* in the sums of all tests, if there are such."""
        if self._sums is None:
            return
        for record, _ in records:
            try:
                self._sums._count(record)  # noqa: SLF001 - a recording of ours
            except Exception as error:  # noqa: BLE001 - ours; it is missing in the sums, and that is counted
                faults.count("pytest plugin", error)

    @property
    def unknown_rows(self) -> int:
        """Statements whose driver did not say how many rows there were, of those that were kept."""
        return sum(1 for record, _ in self.kept if record[3] < 0)

    def totals(self) -> list[int]:
        """What `stats_of()` makes a scope of: plain numbers, since each test has them."""
        return [self.calls, self.ns, self.rows, self.errors, self.distinct, self.wall_ns]

    def recording(self) -> Recording:
        """A recording of the statements that were kept, for those who want them one by one."""
        recording = Recording(self._settings)
        for record, scope in self.kept:
            recording.take(record, scope)
        return recording

    def _digest_of(self, scope: Scope | None) -> Digest:
        while scope is not None and scope.closed and scope not in self._digests:
            scope = scope.parent
        digest = self._digests.get(scope)
        if digest is None:
            name = self.name if scope is None else scope.name
            digest = self._digests[scope] = Digest(name, self._settings.slow_ns)
        return digest


class Watch(Recording):
    """The recording of the whole suite: it hands on to the run that is under way. Runs may add up statements in it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.run: Run | None = None
        self.opened = False
        self._alone = (self,)

    def open(self) -> None:
        if not self.opened:
            self.__enter__()
            self.opened = True

    def close(self) -> None:
        if self.opened:
            self.opened = False
            self.__exit__(None, None, None)

    def begin(self, run: Run) -> None:
        """From now on statements are *run*'s."""
        self.run = run
        self.take = run.take  # type: ignore[method-assign]  # called for each statement: one call less
        capture._on = True  # noqa: SLF001 - the flag that every statement looks at

    def end(self) -> None:
        """From now on statements are nobody's."""
        run, self.run = self.run, None
        self.__dict__.pop("take", None)
        if capture.recorders == self._alone and not capture.owners:
            capture._on = False  # noqa: SLF001 - who attaches or records puts it back
        if run is not None:
            run.finish()

    def take(self, record: tuple[Any, ...], scope: Scope | None) -> None:
        """Between runs: nobody's. Each run puts its own in place of this."""

    def judge(self, scope: Scope, window: Window) -> None:
        run = self.run
        if run is not None:
            run.judge(scope, window)

    def pool_event(self, event: Any, scope: Scope | None) -> None:
        run = self.run
        if run is not None:
            run.ledger.add(detectors.judge_pool(event, run.name if scope is None else scope.name, self.settings))

    def forget(self) -> None:
        super().forget()
        self.run = None
        self.__dict__.pop("take", None)


def stats_of(nodeid: str, totals: Sequence[int]) -> ScopeStats:
    """A test as a scope: its `Run.totals()`."""
    calls, ns, rows, errors, distinct, wall_ns = totals
    tally = ScopeTally(nodeid, "test")
    tally.add(Window(Digest(nodeid, scopes.NO_LIMIT), calls, ns, rows, errors, wall_ns))
    tally.distinct = distinct
    return tally.stats()


def joined(runs: Iterable[Run], name: str, settings: Settings) -> Run:
    """One run of many, of the examples of one test: its numbers are those of the largest."""
    largest = Run(settings, name)
    ledger = Ledger(float("inf"))
    for run in runs:
        ledger.add(run.findings)
        if run.calls >= largest.calls:
            largest = run
    largest.findings = ledger.findings(time.time())
    return largest
