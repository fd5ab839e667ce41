"""
Recordings: everything that the process runs between two points, for tests and scripts.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import deque
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, Self

from sqlprobe import capture, detectors, faults, ignores, orm, scopes
from sqlprobe.ledger import Ledger
from sqlprobe.model import Execution, SqlprobeError
from sqlprobe.scopes import Digest, Record, Window
from sqlprobe.stats import BOUNDS_NS, Tally, wall

if TYPE_CHECKING:
    from types import TracebackType

    from sqlprobe.model import Finding, StatementStats
    from sqlprobe.plans.worker import Planner
    from sqlprobe.pool import Transaction, Wait
    from sqlprobe.report import Report
    from sqlprobe.scopes import Scope
    from sqlprobe.settings import Settings

MAX_EXECUTIONS: Final = 10_000  # kept one by one, the first of them; 4 MB
MAX_BETWEEN: Final = 100  # statements of other tasks between two pages of one execution
MAX_STATEMENTS: Final = 20_000  # different ones
NAME: Final = "(recording)"  # of what ran in no scope


class Recording:
    """
    Every statement of every engine, in every thread and task, from `__enter__` to `__exit__`; no `attach()` is needed.

    It observes the process: in a web server it would see other requests too; use a scope there. Readable while it is
    open and after. Statements are judged by the scope they ran in; those in none are judged together.

    Example:
        >>> import sqlalchemy as sa, sqlprobe
        >>> engine = sa.create_engine("sqlite://")
        >>> with sqlprobe.record() as recording, engine.connect() as connection:
        ...     _ = connection.execute(sa.text("select 1"))
        >>> recording.calls
        1
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.started = 0.0
        self.ended: float | None = None
        self.dropped_executions = 0
        self._records: deque[tuple[tuple[Any, ...], Scope | None]] = deque()
        self._lock = threading.RLock()
        self._opened_ns = 0
        self._digests: dict[Scope | None, Digest] = {}
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._executions: list[tuple[tuple[Any, ...], str]] = []
        self._ledger = Ledger(float("inf"))
        self._unhooked = False
        self._planner: Planner | None = None

    @property
    def watches_pools(self) -> bool:
        return self.settings.watch_pools

    def covers(self, _dialect: object) -> bool:
        """As a probe's: a recording observes every engine."""
        return True

    def pool_event(self, event: Wait | Transaction, scope: Scope | None) -> None:
        """A caller waited long for a connection, or a transaction took long."""
        findings = detectors.judge_pool(event, NAME if scope is None else scope.name, self.settings)
        with self._lock:
            self._ledger.add(findings)

    def __enter__(self) -> Self:
        from sqlprobe import probe

        self.started = time.time()
        self._opened_ns = perf_counter_ns()
        if self.settings.explain:
            from sqlprobe.plans.worker import Planner

            self._planner = Planner(self.settings, lambda: self.statements, lambda _: True)
        probe.begin(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from sqlprobe import probe

        self._unhooked = not capture.hooked()
        if self._planner is not None:
            self._planner.hold()
        probe.end(self)
        self.ended = time.time()
        self._digest_now()

    @property
    def calls(self) -> int:
        """Statements so far; an executemany is one."""
        with self._lock:
            self._drain()
            return sum(tally.calls for tally in self._tallies.values())

    @property
    def seconds(self) -> float:
        """What they took, in seconds."""
        with self._lock:
            self._drain()
            return sum(tally.total_ns for tally in self._tallies.values()) / 1e9

    @property
    def statements(self) -> tuple[StatementStats, ...]:
        """By statement and engine, most time first."""
        with self._lock:
            self._drain()
            stats = [tally.stats() for tally in self._tallies.values()]
        return tuple(sorted(stats, key=lambda item: (-item.seconds, item.fingerprint)))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the detectors say of everything so far, open scopes included."""
        return self.report().findings

    @property
    def executions(self) -> tuple[Execution, ...]:
        """Each statement in the order it came back; past `MAX_EXECUTIONS` they are counted in `dropped_executions`."""
        self._digest_now()
        return tuple(_execution(record, scope) for record, scope in self._executions)

    def explain(self, *, analyze: bool = False, most: int | None = None) -> tuple[Finding, ...]:
        """
        Ask PostgreSQL for the plans of the statements so far, now, and judge them; reports have these findings too.

        As `Probe.explain`; here nothing is asked in the background.

        Raises:
            SqlprobeError: no samples are kept; record with `Settings(explain=True)`. With `explain_stats`, its file or
                a lab cannot be had.
        """
        if self._planner is None:
            raise SqlprobeError(
                "explain() was asked for, found a recording that keeps no samples; "
                "record with Settings(explain=True), and open it first"
            )
        answers = self._planner.explain(analyze=analyze, most=most)
        return tuple(finding for answer in answers for finding in answer.findings)

    def report(self) -> Report:
        """Everything so far, as a `Report`."""
        from sqlprobe import probe

        self._digest_now()
        # What is still open is judged on the side: the ledger keeps what has ended.
        now = Ledger(float("inf"))
        with self._lock:
            now.add(self._ledger.findings(time.time()))
            for digest in self._digests.values():
                now.add(detectors.judge(digest, self.settings))
        if self._planner is not None:
            now.add(self._planner.findings())
        return probe.report_of(
            findings=now.findings(time.time()),
            statements=self.statements,
            scopes=self._ledger.scopes(),
            settings=self.settings,
            started=self.started,
            ended=self.ended or time.time(),
            notes=self._notes(),
            timelines=self._ledger.timelines(),
        )

    def take(self, record: tuple[Any, ...], scope: Scope | None) -> None:
        """Append a `Record`. Called by capture, in whatever thread."""
        records = self._records
        records.append((record if record[7] is None else scopes.slim(record), scope))
        if len(records) >= scopes.BATCH and self._lock.acquire(blocking=False):
            try:
                self._drain()
            finally:
                self._lock.release()

    def judge(self, scope: Scope, window: Window) -> None:
        """A scope has ended: judge what this recording saw of it."""
        with self._lock:
            # The scope is closed already: without a digest of its own, what is pending would go to its parent's.
            self._digests.setdefault(scope, Digest(scope.name, self.settings.slow_ns))
            self._drain()
            digest = self._digests.pop(scope)
            if digest.calls:
                digest.name = scope.name
                self._ledger.add(detectors.judge(digest, self.settings))
                self._digest_of(scope.parent).merge(digest, repeats=scope.is_part)
        if window.digest.calls or window.calls:
            tally = self._ledger.scope(scope.name, scope.kind)
            tally.add(window)
            self._ledger.draw(scope, window)
            if tally.came_late not in scope.on_late:
                scope.on_late = (*scope.on_late, tally.came_late)

    def forget(self) -> None:
        """After a fork: the parent process tells of what was seen so far."""
        self._lock = threading.RLock()
        self._records = deque()
        self._digests = {}
        self._tallies = {}
        self._executions = []
        self._ledger.forget()
        self.dropped_executions = 0

    def _digest_now(self) -> None:
        with self._lock:
            self._drain()

    def _drain(self) -> None:
        records = self._records
        for _ in range(len(records)):  # what is there now: while others go on appending, this thread has an end
            record, scope = records.popleft()
            try:
                self._add(record, scope)
            except Exception as error:  # noqa: BLE001 - ours; the record is lost, and that is counted
                faults.count("recording", error)

    def _add(self, record: tuple[Any, ...], scope: Scope | None) -> None:
        self._count(record)
        extra = record[6]
        if extra is not None and extra.more:
            self._extend_execution(Record(*record), extra)
        elif len(self._executions) < MAX_EXECUTIONS:
            self._executions.append((record[:7], scope.name if scope else ""))  # without the parameters
        else:
            self.dropped_executions += 1
        self._digest_of(scope).add(record)

    def _count(self, record: tuple[Any, ...]) -> None:
        tally, started, elapsed, rows, _, place, extra = record[:7]
        key = (tally.shape.fingerprint, tally.engine)
        mine = self._tallies.get(key)
        if mine is None:
            if len(self._tallies) >= MAX_STATEMENTS:
                key = (capture.OVERFLOW.fingerprint, tally.engine)
                mine = self._tallies.setdefault(key, Tally(capture.OVERFLOW, tally.engine, started))
            else:
                mine = self._tallies[key] = Tally(tally.shape, tally.engine, started)
        if extra is not None and extra.more and mine.buckets[bisect_left(BOUNDS_NS, extra.before_ns)]:
            mine.add_page(elapsed, extra.before_ns, rows, place)
        else:
            if elapsed > mine.max_ns:
                mine.slowest = place
            mine.was_min_ns = mine.min_ns
            mine.add(elapsed, started, rows)
            if extra is not None:
                mine.sets += extra.sets - 1
        if extra is not None and extra.error is not None:
            mine.failed(extra.error)
        if place is not None:
            mine.seen_at(place)

    def _extend_execution(self, page: Record, more: scopes.Extra) -> None:
        """A further page: of the last execution of its statement whose pages so far took as long."""
        last = len(self._executions) - 1
        for index in range(last, max(last - MAX_BETWEEN, -1), -1):
            kept, name = self._executions[index]
            if kept[0] is page.tally and kept[2] == more.before_ns:
                whole = Record(*kept)
                extra = whole.extra or scopes.Extra()
                whole = whole._replace(
                    elapsed_ns=whole.elapsed_ns + page.elapsed_ns,
                    rows=whole.rows + page.rows if page.rows >= 0 and whole.rows >= 0 else whole.rows,
                    extra=extra._replace(pages=extra.pages + 1, error=more.error),
                )
                self._executions[index] = (whole, name)
                return

    def _digest_of(self, scope: Scope | None) -> Digest:
        while scope is not None and scope.closed and scope not in self._digests:
            scope = scope.parent
        digest = self._digests.get(scope)
        if digest is None:
            digest = self._digests[scope] = Digest(scope.name if scope else NAME, self.settings.slow_ns)
        return digest

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if self._unhooked if self.ended else not capture.hooked():
            notes.append(capture.UNHOOKED)
        if self.dropped_executions:
            notes.append(f"{self.dropped_executions:,} executions past the first {MAX_EXECUTIONS:,} were only counted")
        planned = self._planner.notes() if self._planner is not None else ()
        return (*notes, *planned, *ignores.unmatched(self.settings.ignores))


def _execution(record: tuple[Any, ...], scope: str) -> Execution:
    tally, started, elapsed, rows, load, place, extra = record[:7]
    lazy = load is not None and load[0] == orm.LAZY
    return Execution(
        fingerprint=tally.shape.fingerprint,
        text=tally.shape.text,
        engine=tally.engine,
        scope=scope,
        started=wall(started),
        seconds=elapsed / 1e9,
        rows=rows if rows >= 0 else None,
        site=place.site() if place else None,
        error=extra.error if extra else None,
        relationship=orm.label_of(orm.relationship_of(orm.Load(*load))) if lazy else None,
        batch_size=max(extra.sets, 1) if extra else 1,
        pages=extra.pages if extra else 1,
    )
