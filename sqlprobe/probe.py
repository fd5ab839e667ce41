"""
Probes: attach one to an engine, or to all of them, and ask it for reports.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time
from collections import deque
from contextlib import contextmanager
from datetime import datetime, timedelta
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from sqlalchemy import Engine

from sqlprobe import autoscope, capture, detectors, faults, fingerprint, ignores, scopes, sites
from sqlprobe.ledger import Ledger
from sqlprobe.model import SqlprobeError
from sqlprobe.mute import check_label
from sqlprobe.recording import Recording
from sqlprobe.report import Process, Report
from sqlprobe.scopes import Digest
from sqlprobe.settings import Settings, resolve
from sqlprobe.stats import Tally, merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from sqlalchemy import URL
    from sqlalchemy.engine.interfaces import Dialect
    from sqlalchemy.ext.asyncio import AsyncEngine

    from sqlprobe.capture import Table
    from sqlprobe.ledger import ScopeTally
    from sqlprobe.model import Fault, Finding, ScopeStats, StatementStats, Timeline
    from sqlprobe.plans.worker import Planner
    from sqlprobe.pool import PoolCounts, Transaction, Wait
    from sqlprobe.scopes import Record, Scope, Window

EXPORTERS_GROUP: Final = "sqlprobe.exporters"
_DRIVERS: Final = ("asyncpg", "psycopg", "psycopg2", "pg8000", "aiosqlite", "pymysql", "oracledb")

MAX_GONE: Final = 64  # engines that are gone and not summed up yet

_lock = threading.RLock()  # around who observes what: attach, detach, pause, the ends of recordings
_recordings: tuple[Recording, ...] = ()


class AttachError(SqlprobeError, ValueError):
    """What was to be attached is no engine, or an option of attach() cannot be."""


class AlreadyAttached(SqlprobeError):  # noqa: N818 - a state, as FileExists is
    """The engine has a probe already."""


class Follower(Protocol):
    """
    An exporter, as the probe sees it. What it raises is counted and reaches nobody.

    One with `wants()` and `take(record, scope)` is asked after each statement of any probe whether it wants it, and
    gets it: in the application's thread, as a tuple in the form of `scopes.Record`; see `Probe.url_of`.
    """

    def judged(self, scope: Scope, window: Window, findings: list[Finding]) -> None:
        """A scope has ended, or a window of one that stays open, and *findings* are what the detectors say of it."""

    def found(self, findings: list[Finding]) -> None:
        """What was found elsewhere: of a slow statement outside any scope, of a pool, of a transaction."""

    def forget(self) -> None:
        """The process has forked, and this is the child: the parent tells of what was seen so far."""


class Probe:
    """
    What observes an engine, or every engine: made by `attach()`. Safe to use from any thread; a context manager.
    """

    def __init__(
        self,
        dialect: Dialect | None,
        name: str,
        settings: Settings,
        on_finding: Callable[[Finding], object] | None,
    ) -> None:
        self.settings = settings
        self.sources: Mapping[str, str] = {}  # where each setting that is not the default comes from
        self.name = name  # of the engine, "" for all of them
        self.started = time.time()
        self.attached = False
        self._dialect = dialect
        self._paused = False
        self._ledger = Ledger(settings.finding_ttl_seconds, on_finding)
        # Reports sum up what is slow outside any scope when they are made; the callback is told at once.
        self._told_outside = Ledger(settings.finding_ttl_seconds, on_finding) if on_finding is not None else None
        self._outside = Digest("", settings.slow_ns)
        self._slow: deque[Record] = deque()  # not in `_outside` yet
        self._gone: deque[dict[int, Table]] = deque()  # not in `_kept` yet
        self._kept: dict[tuple[str, str], Tally] = {}
        self._reading = threading.Lock()  # around what readers sum up: `_outside` and `_kept`
        self._exporters: list[Any] = []
        self._followers: tuple[Follower, ...] = ()
        self.watches_pools = settings.watch_pools
        self._planner: Planner | None = None

    def __repr__(self) -> str:
        state = "paused" if self._paused else "attached" if self.attached else "detached"
        return f"<sqlprobe.Probe of {self.name or 'every engine'}, {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def report(self, since: float | datetime | timedelta | Report | None = None) -> Report:
        """
        What was seen so far.

        *since*, a Unix time, a datetime or a timedelta back from now, leaves out findings and statements that were not
        seen again after it; their counts stay those since attach. An earlier `Report` of this probe leaves what came
        after it: counts, seconds and histograms are differences.

        Raises:
            SqlprobeError: *since* is none of these.
        """
        now = time.time()
        earlier = since if isinstance(since, Report) else None
        after = _unix_time(since, now) if since is not None and earlier is None else 0.0
        aside = Ledger(self.settings.finding_ttl_seconds)
        aside.add(self._ledger.findings(now))
        for scope in scopes.open_scopes():
            with scope.digested() as digest:
                aside.add(self._mine(detectors.judge(digest, self.settings)))
        with self._reading:
            self._add_slow(len(self._slow))
            aside.add(detectors.judge(self._outside, self.settings))
        if self._planner is not None:
            aside.add(self._planner.findings())
        report = report_of(
            findings=tuple(finding for finding in aside.findings(now) if finding.last_seen >= after),
            statements=tuple(item for item in self._statements() if item.last_seen >= after),
            scopes=self._ledger.scopes(),
            settings=self.settings,
            started=self.started,
            ended=now,
            notes=self._notes(),
            timelines=self._ledger.timelines(),
        )
        return report if earlier is None else report.since(earlier)

    def explain(self, *, analyze: bool = False, most: int | None = None) -> tuple[Finding, ...]:
        """
        Ask PostgreSQL for the plans of the statements seen so far, now, and judge them; reports have the findings too.

        Of *most* statements, those that took most time in all; of all without it. *analyze* runs SELECTs that can do
        no harm. It waits for the answers: in async code call it by `asyncio.to_thread`.

        Raises:
            SqlprobeError: no samples are kept; attach with `Settings(explain=True)`. With `explain_stats`, its file or
                a lab cannot be had.
        """
        if self._planner is None:
            raise SqlprobeError(
                "explain() was asked for, found a probe that keeps no samples; attach with Settings(explain=True)"
            )
        answers = self._planner.explain(analyze=analyze, most=most)
        return tuple(finding for answer in answers for finding in answer.findings)

    def pause(self) -> None:
        """Observe nothing until `resume()`; what was seen stays."""
        with _lock:
            self._paused = True
            _configure()

    def resume(self) -> None:
        with _lock:
            self._paused = False
            _configure()

    def detach(self) -> None:
        """
        Observe no more; reports of what was seen stay possible. The last probe takes sqlprobe's handler off SQLAlchemy,
        which belongs to shutdown: a statement of another thread may fail in that very moment. Twice does nothing.
        """
        with _lock:
            if not self.attached:
                return
            self.attached = False
        for exporter in self._exporters:  # which tell once more, of pools that are still watched
            try:
                exporter.stop()
            except Exception as error:  # noqa: BLE001 - an exporter's, at shutdown
                faults.count("exporter", error)
        with _lock:
            capture.owners = tuple(owner for owner in capture.owners if owner is not self)
            _configure()
            if not capture.owners and not _recordings:
                capture.uninstall()
        if self._planner is not None:
            self._planner.stop()

    # --- what exporters read ---------------------------------------------------------------------------------------

    def counts(self) -> list[Tally]:
        """
        What was counted by statement and engine since attach: copies, summed over threads, cheaper than a report.

        Times are integer nanoseconds; `Tally.buckets` has one count per bound of `stats.BOUNDS_NS`, and a last one.
        """
        return [tally for tally in self._merged().values() if any(tally.buckets)]

    def scope_counts(self) -> list[ScopeTally]:
        """What was counted by scope name and kind. The counters are the live ones: read, do not write."""
        return list(self._ledger._scopes.copy().values())  # noqa: SLF001 - a ledger is a part of its probe

    def findings(self) -> tuple[Finding, ...]:
        """Every finding of scopes that have ended and of statements outside any, without looking into open scopes."""
        now = time.time()
        aside = Ledger(self.settings.finding_ttl_seconds)
        aside.add(self._ledger.findings(now))
        with self._reading:
            self._add_slow(len(self._slow))
            aside.add(detectors.judge(self._outside, self.settings))
        if self._planner is not None:
            aside.add(self._planner.findings())
        return aside.findings(now)

    def faults(self) -> tuple[Fault, ...]:
        """What failed of sqlprobe in this process, exporters included, while the application went on."""
        return faults.told()

    def fault(self, where: str, error: BaseException) -> None:
        """Count *error*, which an exporter met in *where*: reports, metrics and `doctor` tell. Never raises."""
        faults.count(where, error)

    def follow(self, follower: Follower) -> Callable[[], None]:
        """
        Tell *follower* of what happens from now on; the function that comes back ends it. See `Follower`.
        """
        with _lock:
            self._followers = (*self._followers, follower)
            _configure()

        def unfollow() -> None:
            with _lock:
                self._followers = tuple(other for other in self._followers if other is not follower)
                _configure()

        return unfollow

    def url_of(self, tally: Tally) -> URL | None:
        """
        The URL, without user and password, of the engine whose statements *tally* counts; None if not of this probe.
        """
        for watched in capture.watched_by(self):
            for table in watched.tables.copy().values():
                if table.by_fingerprint.get(tally.shape.fingerprint) is tally and watched.url is not None:
                    return watched.url._replace(username=None, password=None)
        return None

    def watch_pools(self) -> None:
        """Watch the pools and transactions of the engines from now on, whatever the settings say."""
        with _lock:
            self.watches_pools = True
            _configure()

    def pools(self) -> list[PoolCounts]:
        """The pools of the engines, as of now; none while nobody watches them."""
        module = sys.modules.get("sqlprobe.pool")
        return [] if module is None else list(module.counts_of(self))

    def _begin_plans(self) -> None:
        from sqlprobe.plans.worker import Planner

        told = self._told_outside or Ledger(self.settings.finding_ttl_seconds)

        def tell(findings: list[Finding]) -> None:
            told.add(findings)
            for follower in self._followers:
                follower.found(findings)

        self._planner = Planner(self.settings, self._statements, self.covers, tell)

    def tell_found(self, findings: list[Finding]) -> None:
        """Tell the followers of *findings* that are of no scope's window."""
        for follower in self._followers if findings else ():
            try:
                follower.found(findings)
            except Exception as error:  # noqa: BLE001 - an exporter's, and never the application's
                faults.count("exporter", error)

    def _tell(self, scope: Scope, window: Window, findings: list[Finding]) -> None:
        for follower in self._followers:
            try:
                follower.judged(scope, window, findings)
            except Exception as error:  # noqa: BLE001 - an exporter's, and never the application's
                faults.count("exporter", error)

    # --- what capture and the scopes call --------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        return self._paused

    def covers(self, dialect: Dialect) -> bool:
        return self._dialect is None or dialect is self._dialect

    def take(self, record: Record) -> None:
        """A slow statement outside any scope."""
        if self._followers or self._told_outside is not None:
            alone = Digest("", self.settings.slow_ns)
            alone.add(record)
            findings = detectors.judge(alone, self.settings)
            if self._told_outside is not None:
                self._told_outside.add(findings)
            self.tell_found(findings)
        self._slow.append(record)
        if len(self._slow) >= scopes.BATCH and self._reading.acquire(blocking=False):
            try:
                self._add_slow(len(self._slow))
            finally:
                self._reading.release()

    def judge(self, scope: Scope, window: Window) -> None:
        """A scope has ended, or a window of it."""
        findings = self._mine(detectors.judge(window.digest, self.settings))
        self._ledger.add(findings)
        tally = self._ledger.scope(scope.name, scope.kind)
        tally.add(window)
        self._ledger.draw(scope, window, self.name)
        self._tell(scope, window, findings)
        if tally.came_late not in scope.on_late:
            scope.on_late = (*scope.on_late, tally.came_late)

    def pass_by(self, name: str, kind: str) -> None:
        """Count a unit of work that was not sampled: its statements were counted as they ran."""
        self._ledger.scope(name, kind).unsampled += 1

    def _mine(self, findings: list[Finding]) -> list[Finding]:
        """Without those of other engines, whose statements ran in the same scope."""
        return [finding for finding in findings if self.name in {"", finding.engine} or not finding.engine]

    def pool_event(self, event: Wait | Transaction, scope: Scope | None) -> None:
        """A caller waited long for a connection, or a transaction took long."""
        findings = detectors.judge_pool(event, "" if scope is None else scope.name, self.settings)
        self._ledger.add(findings)
        self.tell_found(findings)

    def retire(self, tables: dict[int, Table]) -> None:
        """An engine is gone, or no longer ours. Called at any moment, by the garbage collector too."""
        self._gone.append(tables)
        if len(self._gone) >= MAX_GONE and self._reading.acquire(blocking=False):
            try:
                self._keep(len(self._gone))
            finally:
                self._reading.release()

    def forget(self) -> None:
        """After a fork: the parent process tells of what was seen so far."""
        self.started = time.time()
        self._ledger.forget()
        self._reading = threading.Lock()
        self._slow = deque()
        self._outside = Digest("", self.settings.slow_ns)
        self._gone = deque()
        self._kept = {}
        if self._planner is not None:
            self._planner.forget()
        for follower in self._followers:
            try:
                follower.forget()
            except Exception as error:  # noqa: BLE001 - an exporter's, in the middle of a fork
                faults.count("exporter", error)

    def _statements(self) -> list[StatementStats]:
        return [tally.stats() for tally in self._merged().values() if tally.calls]

    def _merged(self) -> dict[tuple[str, str], Tally]:
        with self._reading:
            live = [watched.tables for watched in capture.watched_by(self)]
            # What was retired just now may be among both; what is retired from here on stays for the next reader.
            gone = list(self._gone)
            live = [tables for tables in live if all(tables is not other for other in gone)]
            self._keep(len(gone))
            counted = (tally for tables in live for tally in capture.tallies_of(tables))
            return merged([*self._kept.values(), *counted])

    def _keep(self, count: int) -> None:
        """Sum up the *count* engines that have been gone for longest. Called under `_reading`."""
        for _ in range(count):
            for tally in capture.tallies_of(self._gone.popleft()):
                key = (tally.shape.fingerprint, tally.engine)
                mine = self._kept.get(key)
                if mine is None:
                    mine = tally.fresh()
                    if len(self._kept) >= capture.MAX_TALLIES:
                        rest = Tally(capture.OVERFLOW, "", tally.first_ns)
                        mine = self._kept.get((capture.OVERFLOW.fingerprint, ""), rest)
                    self._kept[mine.shape.fingerprint, mine.engine] = mine
                mine.merge(tally)

    def _add_slow(self, count: int) -> None:
        """Digest the first *count* slow statements that ran outside any scope. Called under `_reading`."""
        for _ in range(count):
            self._outside.add(self._slow.popleft())

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if self._ledger.dropped:
            notes.append(f"{self._ledger.dropped:,} further findings were over the bound and are not told")
        if self.attached and not capture.hooked():
            notes.append(capture.UNHOOKED)
        planned = self._planner.notes() if self._planner is not None else ()
        return (*notes, *planned, *ignores.unmatched(self.settings.ignores))


def attach(
    engine: Engine | AsyncEngine | None = None,
    *,
    settings: Settings | None = None,
    exporters: Iterable[str | Callable[[Probe], Any]] = (),
    on_finding: Callable[[Finding], object] | None = None,
) -> Probe:
    """
    Observe *engine*, or with None every engine of the process, made before or after.

    *settings* default to `Settings()`; `[tool.sqlprobe]` in pyproject.toml fills in what they leave at its default, and
    `SQLPROBE_…` variables of the environment come on top. *exporters* are names of
    the entry-point group `sqlprobe.exporters`, or exporters made with options. *on_finding* is called with each finding
    that is new, on the thread whose scope has ended; what it raises is counted, not raised.

    Raises:
        AttachError: *engine* is no engine, or an exporter is not installed.
        AlreadyAttached: the engine has a probe. A recording is none, and works beside it.
        SettingsError: a `SQLPROBE_…` variable or an entry of pyproject.toml does not fit.

    Example:
        >>> import sqlalchemy as sa, sqlprobe
        >>> engine = sa.create_engine("sqlite://")
        >>> with sqlprobe.attach(engine) as probe, engine.connect() as connection:
        ...     _ = connection.execute(sa.text("select 1"))
        ...     [(statement.text, statement.calls) for statement in probe.report().statements]
        [('select ?', 1)]
    """
    if settings is not None and not isinstance(settings, Settings):
        msg = f"attach(settings={settings!r}): a sqlprobe.Settings is needed, such as Settings(slow_seconds=0.2)"
        raise AttachError(msg)
    if on_finding is not None and not callable(on_finding):
        msg = f"attach(on_finding={on_finding!r}): a callable that takes a Finding is needed"
        raise AttachError(msg)
    chosen, sources = resolve(settings)
    for ignore in chosen.ignores:
        check_label(ignore)
    sync = _sync_engine(engine)
    given = [exporters] if isinstance(exporters, str) or callable(exporters) else exporters
    found = [_exporter(each) for each in given]
    dialect = None if sync is None else sync.dialect
    probe = Probe(dialect, "" if sync is None else capture.engine_name(sync), chosen, on_finding)
    probe.sources = sources
    if not chosen.enabled:
        return probe
    with _lock:
        for owner in capture.owners:
            if isinstance(owner, Probe) and (dialect is None or owner.covers(dialect)):
                raise AlreadyAttached(_already(sync, owner))
        capture.install(repair=True)
        fingerprint.long_texts()  # not when somebody's first long statement waits for it
        capture.owners = (*capture.owners, probe)
        probe.attached = True
        if chosen.explain:
            probe._begin_plans()  # noqa: SLF001 - the probe under construction
        sites.configure(chosen.packages, chosen.path_map)
        _configure()
    try:
        for start in found:
            probe._exporters.append(start(probe))  # noqa: SLF001 - the probe under construction
    except BaseException:
        probe.detach()
        raise
    return probe


def probe_of(engine: Engine | AsyncEngine) -> Probe | None:
    """The probe that observes *engine*, if one does."""
    sync = _sync_engine(engine)
    owners = [owner for owner in capture.owners if isinstance(owner, Probe)]
    return next((owner for owner in owners if sync is not None and owner.covers(sync.dialect)), None)


def record(*, settings: Settings | None = None) -> Recording:
    """
    A recording of everything that the process runs inside it: `with sqlprobe.record() as recording: …`.

    By default the line of every statement is looked up. The handler that it installs stays afterwards, passing
    statements through.
    """
    return Recording(settings or Settings(call_sites="all"))


def begin(recording: Recording) -> None:
    """Let *recording* take statements."""
    global _recordings
    with _lock:
        capture.install()
        _recordings = (*_recordings, recording)
        _configure()


def end(recording: Recording) -> None:
    """Let *recording* take no more."""
    global _recordings
    with _lock:
        _recordings = tuple(other for other in _recordings if other is not recording)
        _configure()


@contextmanager
def trial(engine: Engine) -> Iterator[Recording]:
    """
    A recording beside which no probe counts what runs on *engine*, one of ours that is only there to be tried.

    It sees other engines too, as every recording.
    """
    shield = Probe(engine.dialect, "", Settings(), None)
    with _lock:
        capture.owners = (shield, *capture.owners)
    try:
        with record() as recording:
            yield recording
    finally:
        with _lock:
            capture.owners = tuple(owner for owner in capture.owners if owner is not shield)
            capture._forget_engine(id(engine.dialect))  # noqa: SLF001 - before anybody else gets it
            _configure()


def _after_fork() -> None:
    """Another thread may have held the lock; it is not in the child."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _configure() -> None:
    """Tell capture and the scopes who observes, after any change of it."""
    probes = [owner for owner in capture.owners if isinstance(owner, Probe)]
    active = [probe for probe in probes if not probe.paused]
    every: list[Probe | Recording] = [*active, *_recordings]
    settings = [observer.settings for observer in every]
    scopes.sinks = tuple(every)
    scopes.slow_ns = min((item.slow_ns for item in settings), default=scopes.NO_LIMIT)
    scopes.share = max((item.sample for item in settings), default=1.0)
    scopes.keep = max((item.timeline_statements for item in settings), default=0)
    scopes.window_ns = min((round(item.scope_window_seconds * 1e9) for item in settings), default=scopes.NO_LIMIT)
    followers: list[Any] = [follower for probe in active for follower in probe._followers]  # noqa: SLF001 - ours
    capture.recorders = _recordings
    capture.tracers = tuple(follower for follower in followers if hasattr(follower, "take"))
    capture.paused = frozenset(probe for probe in probes if probe.paused)
    capture.auto_scope = autoscope.open_scope if any(item.auto_scope for item in settings) else None
    sites_wanted = {item.call_sites for item in settings}
    explaining = [observer for observer in every if observer.settings.explain]
    if explaining or "sqlprobe.plans.worker" in sys.modules:
        from sqlprobe.plans import worker

        planners = [probe._planner for probe in active if probe._planner is not None]  # noqa: SLF001 - ours
        worker.sample(wanted=bool(explaining), planners=planners)
    watching = [observer for observer in every if observer.watches_pools]
    if watching or "sqlprobe.pool" in sys.modules:
        from sqlprobe import pool

        pool.configure(
            tuple(watching),
            wait_ns=min((round(item.settings.pool_wait_seconds * 1e9) for item in watching), default=scopes.NO_LIMIT),
            transaction_ns=min(
                (round(item.settings.long_transaction_seconds * 1e9) for item in watching), default=scopes.NO_LIMIT
            ),
            places=any(item.settings.call_sites != "off" for item in watching),
        )
    capture.configure(
        slow_ns=scopes.slow_ns,
        call_sites="all" if "all" in sites_wanted else "first" if "first" in sites_wanted else "off",
    )


def report_of(
    *,
    findings: tuple[Finding, ...],
    statements: Iterable[StatementStats],
    scopes: tuple[ScopeStats, ...],
    settings: Settings,
    started: float,
    ended: float,
    notes: tuple[str, ...],
    timelines: tuple[Timeline, ...] = (),
) -> Report:
    """A report of this process."""
    statements = tuple(statements)
    overflow = sum(item.calls for item in statements if item.fingerprint == capture.OVERFLOW.fingerprint)
    if overflow:
        notes = (*notes, f"{overflow:,} calls of statements past the bound on different ones are summed in one entry")
    command = sys.argv[0] if sys.argv else "python"
    if settings.redact == "text":
        statements = tuple(dataclasses.replace(item, text="") for item in statements)
    return Report(
        findings=findings,
        statements=statements,
        scopes=scopes,
        settings=settings.as_json(),
        started=started,
        ended=ended,
        processes=(Process(pid=os.getpid(), command=command, started=started, ended=ended),),
        versions=versions(),
        release=settings.release,
        faults=faults.told(),
        notes=notes,
        timelines=timelines,
    )


def versions() -> dict[str, str]:
    """Of Python, SQLAlchemy, sqlprobe and the drivers that are loaded."""
    import platform

    import sqlalchemy

    found = {"python": platform.python_version(), "sqlalchemy": sqlalchemy.__version__}
    for name in ("sqlprobe", *(driver for driver in _DRIVERS if driver in sys.modules)):
        version = getattr(sys.modules.get(name), "__version__", None)
        try:
            found[name] = str(version) if isinstance(version, str) else metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def _sync_engine(engine: Any) -> Engine | None:
    if engine is None or isinstance(engine, Engine):
        return engine
    sync = getattr(engine, "sync_engine", None)
    if isinstance(sync, Engine):
        return sync
    raise AttachError(
        f"attach({type(engine).__name__} object): an Engine or AsyncEngine is needed, or None for every engine of the "
        "process; of a Session pass session.get_bind(), of a URL what create_engine() returns"
    )


def _already(engine: Engine | None, probe: Probe) -> str:
    if engine is None:
        return (
            f"attach() to every engine: {probe!r} is attached already; detach it first, or use it: a probe of "
            "every engine and one of a single engine would count its statements twice"
        )
    return (
        f"engine {capture.engine_name(engine)} already has a probe; detach it first, or use that one: "
        "sqlprobe.probe_of(engine)"
    )


def _exporter(name: str | Callable[[Probe], Any]) -> Callable[[Probe], Any]:
    if not isinstance(name, str):
        if not callable(name):
            raise AttachError(f"attach(exporters={name!r}): a name is needed, or an exporter with options of its own")
        return name
    known = {entry.name: entry for entry in metadata.entry_points(group=EXPORTERS_GROUP)}
    if name not in known:
        there = f"installed are: {', '.join(sorted(known))}" if known else "none is installed"
        raise AttachError(f"attach(exporters={name!r}): no exporter of that name in {EXPORTERS_GROUP!r}; {there}")
    try:
        start: Callable[[Probe], Any] = known[name].load()
    except ImportError as error:
        raise AttachError(
            f"attach(exporters={name!r}): its package is missing ({error}); install it: pip install 'sqlprobe[{name}]'"
        ) from error
    return start


def _unix_time(since: object, now: float) -> float:
    if isinstance(since, datetime):
        return since.timestamp()
    if isinstance(since, timedelta):
        return now - since.total_seconds()
    if isinstance(since, int | float) and not isinstance(since, bool):
        return float(since)
    raise SqlprobeError(
        f"report(since={since!r}): a Unix time, a datetime, a timedelta back from now or an earlier Report is needed"
    )
