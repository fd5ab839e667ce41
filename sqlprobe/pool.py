"""
Pools and transactions: who holds connections, who waits for one, how long transactions stay open.

SQLAlchemy has no event for a caller that waits, and those for transactions slow every statement. So this module, and
it alone, wraps the methods by which pools hand out and take back connections, and the dialect's begin, commit and
rollback. It does so while somebody asks for it (`Settings.watch_pools`, an exporter), for the engines they observe. A
connection that is taken, used in a transaction and given back then costs some 10 us more, a third of them to look up
the line (`bench/exporters.py`); a statement costs nothing more. What fails here is counted in `faults`; the wrapped
method is always called once, and its outcome is the caller's.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import weakref
from bisect import bisect_left
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, Protocol

from sqlalchemy import exc
from sqlalchemy import pool as sa_pool
from sqlalchemy.engine import Dialect
from sqlalchemy.pool import base as sa_pool_base

from sqlprobe import capture, faults, scopes, sites
from sqlprobe.stats import BOUNDS_NS, BUCKETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from sqlprobe.scopes import Scope
    from sqlprobe.sites import Place

_DRAIN_AT: Final = 256  # counted values that wait to be summed; 0.1 ms
_RETURNED: Final = 64  # connections that came back while somebody waited: whose were held for how long
_MAX_HOLDERS: Final = 5  # lines told of one wait
_END_DEPTH: Final = 6  # calls between a transaction's end and the dialect's rollback: 4 in 2.0 and 2.1
_OURS: Final = "_sqlprobe_wrapper"
_CONNECT: Final = "_ConnectionRecord__connect"  # a private method of SQLAlchemy's, under its mangled name


class Owner(Protocol):
    """A probe or a recording, as this module sees it."""

    def covers(self, dialect: Dialect) -> bool: ...

    def pool_event(self, event: Wait | Transaction, scope: Scope | None) -> None:
        """Something took long. Called in the application's thread; what it raises is counted."""


@dataclass(frozen=True, slots=True)
class Wait:
    """
    A caller waited long for a connection, or in vain. Nanoseconds.

    `holders` are the lines whose connections were out meanwhile, and for how long, longest first.
    """

    engine: str
    ended_ns: int
    waited_ns: int
    timed_out: bool
    place: Place | None
    holders: tuple[tuple[Place, int], ...]
    used: int
    maximum: int | None


@dataclass(frozen=True, slots=True)
class Transaction:
    """
    A transaction stayed open for long. Nanoseconds.

    `place` took the connection, `end_place` ended the transaction. `calls` and `db_ns` are of its statements, where its
    scope could still tell, else None; `gap_ns` is the longest stretch without a statement, which began after
    `gap_place`.
    """

    engine: str
    ended_ns: int
    took_ns: int
    outcome: str
    place: Place | None
    end_place: Place | None
    calls: int | None
    db_ns: int | None
    gap_ns: int
    gap_place: Place | None


class Counted:
    """A histogram over `stats.BOUNDS_NS`."""

    __slots__ = ("buckets", "total_ns")

    def __init__(self) -> None:
        self.buckets = [0] * BUCKETS
        self.total_ns = 0

    def add(self, ns: int) -> None:
        self.buckets[bisect_left(BOUNDS_NS, ns)] += 1
        self.total_ns += ns

    def copy(self) -> Counted:
        other = Counted()
        other.buckets = self.buckets.copy()
        other.total_ns = self.total_ns
        return other


@dataclass(frozen=True, slots=True)
class PoolCounts:
    """
    One engine's pool, as of now.

    `used` connections are checked out, `idle` are open and are not, `overflow` are beyond the pool's `size`; `maximum`
    is size and overflow together; both are None where there is no limit. `pending` callers wait for a connection.
    `wait`, `use` and `create` are times to get one, to have one, and to open one; `transactions` by outcome: "commit",
    "rollback", and "close" where a session or a connection was closed with neither, as after reading. The time to open
    a new connection is in the time to get it, too.
    """

    engine: str
    used: int
    idle: int
    overflow: int
    maximum: int | None
    size: int | None
    pending: int
    timeouts: int
    wait: Counted
    use: Counted
    create: Counted
    transactions: dict[str, Counted]


class Hold:
    """A connection that is checked out."""

    __slots__ = ("begun_ns", "place", "since_ns")

    def __init__(self, since_ns: int, place: Place | None) -> None:
        self.since_ns = since_ns
        self.place = place
        self.begun_ns = 0  # of the transaction under way; 0 without one


class Watch:
    """What is known of one dialect's pool. An engine that is disposed of makes a new pool, and keeps its dialect."""

    __slots__ = (
        "_lock", "_pending", "create", "dialect", "fallback", "held", "owners", "pool", "returned", "timeouts",
        "transactions", "use", "wait", "waiting",
    )  # fmt: skip

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = weakref.ref(dialect)
        self.fallback = f"{dialect.name}+{getattr(dialect, 'driver', '')}://"  # a mock has none
        self.owners: tuple[Owner, ...] = ()
        self.pool: weakref.ref[sa_pool.Pool] | None = None
        self.forget()

    def forget(self) -> None:
        self._lock = threading.Lock()
        self._pending: deque[tuple[Counted, int]] = deque()
        self.waiting: dict[int, int] = {}  # since when, by ticket
        self.held: dict[int, Hold] = {}  # by the id of the connection's record
        self.returned: deque[tuple[Place | None, int, int]] = deque(maxlen=_RETURNED)
        self.timeouts = 0
        self.wait, self.use, self.create = Counted(), Counted(), Counted()
        self.transactions = {"commit": Counted(), "rollback": Counted(), "close": Counted()}

    @property
    def name(self) -> str:
        dialect = self.dialect()
        watched = None if dialect is None else capture._watched.get(id(dialect))  # noqa: SLF001 - its reader
        return self.fallback if watched is None else watched.name

    def count(self, counted: Counted, ns: int) -> None:
        """Add to *counted*: other threads do too, so the values queue up and one thread at a time sums them."""
        self._pending.append((counted, ns))
        if len(self._pending) >= _DRAIN_AT and self._lock.acquire(blocking=False):
            try:
                self._drain()
            finally:
                self._lock.release()

    def _drain(self) -> None:
        for _ in range(len(self._pending)):
            counted, ns = self._pending.popleft()
            counted.add(ns)

    def limits(self) -> tuple[int, int, int, int | None]:
        """Connections used, idle, in overflow, and the most that there may be."""
        pool = self.pool() if self.pool is not None else None
        if isinstance(pool, sa_pool.QueuePool):
            size, spare = pool.size(), pool._max_overflow  # noqa: SLF001 - no public name
            maximum = size + spare if size and spare >= 0 else None
            return max(pool.checkedout(), 0), pool.checkedin(), max(pool.overflow(), 0), maximum
        return len(self.held), 0, 0, None

    def counts(self) -> PoolCounts:
        used, idle, overflow, maximum = self.limits()
        pool = self.pool() if self.pool is not None else None
        with self._lock:
            self._drain()
            return PoolCounts(
                engine=self.name,
                used=used,
                idle=idle,
                overflow=overflow,
                maximum=maximum,
                size=pool.size() or None if isinstance(pool, sa_pool.QueuePool) else None,
                pending=len(self.waiting),
                timeouts=self.timeouts,
                wait=self.wait.copy(),
                use=self.use.copy(),
                create=self.create.copy(),
                transactions={outcome: counted.copy() for outcome, counted in self.transactions.items()},
            )


_owners: tuple[Owner, ...] = ()
_watches: dict[int, Watch | None] = {}  # by the dialect's id; None for one that nobody observes
_wrapped: list[tuple[Any, str, Any, Any]] = []  # class, name, what was there, what we put there
_changing = threading.RLock()
_tickets = count()
_getting: ContextVar[tuple[Watch, int] | None] = ContextVar("sqlprobe.pool", default=None)
_wait_ns = scopes.NO_LIMIT
_transaction_ns = scopes.NO_LIMIT
_places = True


def configure(owners: tuple[Owner, ...], *, wait_ns: int, transaction_ns: int, places: bool) -> None:
    """
    Watch the pools of the engines that *owners* cover, and no others; none at all without owners.

    What takes at least *wait_ns* and *transaction_ns* is told to them; *places* says whether lines are looked up.
    """
    global _owners, _wait_ns, _transaction_ns, _places
    with _changing:
        _owners = owners
        _wait_ns, _transaction_ns, _places = wait_ns, transaction_ns, places
        if owners:
            _install()
        for key, watch in list(_watches.items()):
            dialect = None if watch is None else watch.dialect()
            covering = () if dialect is None else tuple(owner for owner in owners if owner.covers(dialect))
            if watch is not None and covering:
                watch.owners = covering
            else:
                _watches.pop(key, None)
                if dialect is not None:
                    _unwrap_dialect(dialect)
        if not owners:
            _uninstall()


def counts_of(owner: Owner) -> list[PoolCounts]:
    """The pools of *owner*'s engines that have handed out a connection since they are watched."""
    return [watch.counts() for watch in list(_watches.values()) if watch is not None and owner in watch.owners]


def installed() -> bool:
    """Whether pools are watched in this process."""
    return bool(_wrapped)


# --- what is wrapped --------------------------------------------------------------------------------------------------


def _install() -> None:
    if _wrapped:
        return
    for kind in _kinds(sa_pool.Pool):
        for name, wrap in (("_do_get", _wrap_get), ("_do_return_conn", _wrap_return)):
            if name in vars(kind) and kind is not sa_pool.Pool:
                _replace(kind, name, wrap)
    record = sa_pool_base._ConnectionRecord  # noqa: SLF001 - guarded: without it only the time to connect is missing
    if hasattr(record, _CONNECT):
        _replace(record, _CONNECT, _wrap_connect)


def _uninstall() -> None:
    while _wrapped:
        kind, name, before, ours = _wrapped.pop()
        if vars(kind).get(name) is ours:  # else another library has wrapped ours: it stays, and passes through
            setattr(kind, name, before)


def _replace(kind: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    before = vars(kind)[name]
    ours = functools.wraps(before)(wrap(before))
    setattr(kind, name, ours)
    _wrapped.append((kind, name, before, ours))


def _kinds(kind: type) -> Iterator[type]:
    yield kind
    below: type
    for below in kind.__subclasses__():
        yield from _kinds(below)


def _wrap_get(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def _do_get(self: Any) -> Any:
        # SQLAlchemy's own may call itself, and a subclass's its parent's: that is one wait.
        begun = _enter(self) if _owners and _getting.get() is None else None
        if begun is None:
            return original(self)
        watch, ticket, token, started = begun
        try:
            record = original(self)
        except BaseException as error:
            _leave(watch, ticket, token)
            _failed(watch, started, error)
            raise
        _leave(watch, ticket, token)
        _got(watch, record, started)
        return record

    return _do_get


def _wrap_return(original: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def _do_return_conn(self: Any, record: Any) -> Any:
        if _owners:
            _returned(self, record)
        return original(self, record)

    return _do_return_conn


def _wrap_connect(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def __connect(self: Any) -> Any:
        if not _owners:
            return original(self)
        getting = _getting.get()
        if getting is not None:
            getting[0].waiting.pop(getting[1], None)  # it has its turn, and waits for no other caller
        started = perf_counter_ns()
        result = original(self)
        try:
            watch = getting[0] if getting is not None else _watch_of(self._ConnectionRecord__pool)
            if watch is not None:
                watch.count(watch.create, perf_counter_ns() - started)
        except Exception as error:  # noqa: BLE001 - ours
            faults.count("pool", error)
        return result

    return __connect


def _watch_of(pool: Any) -> Watch | None:
    if hasattr(pool, "sqlprobe_own"):  # the explainer's, made from the application's
        return None
    dialect = pool._dialect  # noqa: SLF001 - set by create_engine()
    key = id(dialect)
    try:
        watch = _watches[key]
    except KeyError:
        watch = _adopt(dialect)
    if watch is not None and (watch.pool is None or watch.pool() is not pool):
        watch.pool = weakref.ref(pool)
    return watch


def _adopt(dialect: Any) -> Watch | None:
    with _changing:
        if id(dialect) in _watches:
            return _watches[id(dialect)]
        owners = tuple(owner for owner in _owners if isinstance(dialect, Dialect) and owner.covers(dialect))
        watch = None
        if owners:
            watch = Watch(dialect)
            watch.owners = owners
            _wrap_dialect(dialect, watch)
        if isinstance(dialect, Dialect):  # a pool without an engine has a class's own, which is never gone
            weakref.finalize(dialect, _watches.pop, id(dialect), None).atexit = False
        _watches[id(dialect)] = watch
        return watch


def _wrap_dialect(dialect: Any, watch: Watch) -> None:
    """On the instance: other engines' dialects stay as they are."""
    begin, commit, rollback = dialect.do_begin, dialect.do_commit, dialect.do_rollback

    @functools.wraps(begin)
    def do_begin(connection: Any) -> Any:
        result = begin(connection)
        _began(watch, connection)
        return result

    @functools.wraps(commit)
    def do_commit(connection: Any) -> Any:
        result = commit(connection)  # one that fails is followed by a rollback
        _ended(watch, connection, "commit")
        return result

    @functools.wraps(rollback)
    def do_rollback(connection: Any) -> Any:
        try:
            return rollback(connection)
        finally:
            _ended(watch, connection, None)

    for name, ours in (("do_begin", do_begin), ("do_commit", do_commit), ("do_rollback", do_rollback)):
        setattr(ours, _OURS, True)
        setattr(dialect, name, ours)


def _unwrap_dialect(dialect: Any) -> None:
    for name in ("do_begin", "do_commit", "do_rollback"):
        if getattr(vars(dialect).get(name), _OURS, False):
            delattr(dialect, name)


# --- what they tell ---------------------------------------------------------------------------------------------------


def _enter(pool: Any) -> tuple[Watch, int, Any, int] | None:
    """Somebody asks *pool* for a connection: its watch, the ticket and token of the wait, and when it began."""
    try:
        watch = _watch_of(pool)
        if watch is None:
            return None
        ticket = next(_tickets)
        token = _getting.set((watch, ticket))
        watch.waiting[ticket] = started = perf_counter_ns()
    except Exception as error:  # noqa: BLE001 - ours
        faults.count("pool", error)
        return None
    return watch, ticket, token, started


def _leave(watch: Watch, ticket: int, token: Any) -> None:
    try:
        watch.waiting.pop(ticket, None)
        _getting.reset(token)
    except Exception as error:  # noqa: BLE001 - ours
        faults.count("pool", error)


def _got(watch: Watch, record: Any, started: int) -> None:
    try:
        now = perf_counter_ns()
        place = sites.place_of(sys._getframe(2)) if _places else None  # noqa: SLF001
        watch.held[id(record)] = Hold(now, place)
        watch.count(watch.wait, now - started)
        if now - started >= _wait_ns:
            _tell_wait(watch, started, now, place, timed_out=False)
    except Exception as error:  # noqa: BLE001 - ours
        faults.count("pool", error)


def _failed(watch: Watch, started: int, error: BaseException) -> None:
    try:
        now = perf_counter_ns()
        watch.count(watch.wait, now - started)
        if isinstance(error, exc.TimeoutError):
            with watch._lock:  # noqa: SLF001 - rare, and somebody has waited for seconds
                watch.timeouts += 1
            place = sites.place_of(sys._getframe(2)) if _places else None  # noqa: SLF001
            _tell_wait(watch, started, now, place, timed_out=True)
    except Exception as fault:  # noqa: BLE001 - ours
        faults.count("pool", fault)


def _returned(pool: Any, record: Any) -> None:
    try:
        watch = _watches.get(id(pool._dialect))  # noqa: SLF001
        if watch is None:
            return
        hold = watch.held.pop(id(record), None)
        if hold is None:
            return
        now = perf_counter_ns()
        watch.count(watch.use, now - hold.since_ns)
        if hold.begun_ns:  # nobody ended it: the connection was lost, and the server rolls back
            watch.count(watch.transactions["rollback"], now - hold.begun_ns)
        if watch.waiting:
            watch.returned.append((hold.place, hold.since_ns, now))
    except Exception as error:  # noqa: BLE001 - ours
        faults.count("pool", error)


def _began(watch: Watch, connection: Any) -> None:
    try:
        hold = watch.held.get(id(connection._connection_record))  # noqa: SLF001 - a proxy of the pool's
        if hold is not None:
            hold.begun_ns = perf_counter_ns()
    except Exception as error:  # noqa: BLE001 - ours
        faults.count("pool", error)


def _end_of(frame: FrameType | None) -> str:
    """Whether somebody asked for the rollback that comes from *frame*, or SQLAlchemy closes what nobody ended."""
    for _ in range(_END_DEPTH):
        if frame is None:
            break
        name = frame.f_code.co_name
        if name == "_do_close":  # of RootTransaction; where it has another name, every end is a rollback
            return "close"
        if name == "_do_rollback":
            break
        frame = frame.f_back
    return "rollback"


def _ended(watch: Watch, connection: Any, outcome: str | None) -> None:
    """A transaction has ended: how, or None for a rollback, which may be a close. Called by what calls the dialect."""
    try:
        hold = watch.held.get(id(connection._connection_record))  # noqa: SLF001 - as above
        if hold is None or not hold.begun_ns:
            return  # the pool resets what comes back, with or without a transaction
        if outcome is None:
            outcome = _end_of(sys._getframe(2))  # noqa: SLF001
        now = perf_counter_ns()
        took, hold.begun_ns = now - hold.begun_ns, 0
        watch.count(watch.transactions[outcome], took)
        if took >= _transaction_ns:
            _tell_transaction(watch, hold, now, took, outcome)
    except Exception as error:  # noqa: BLE001 - ours
        faults.count("pool", error)


def _tell_wait(watch: Watch, started: int, now: int, place: Place | None, *, timed_out: bool) -> None:
    held: dict[Place, int] = {}
    out = [(hold.place, hold.since_ns, now) for hold in watch.held.copy().values()]
    for line, since, until in [*watch.returned.copy(), *out]:
        overlap = min(until, now) - max(since, started)
        if line is not None and overlap > 0:
            held[line] = held.get(line, 0) + overlap
    holders = tuple(sorted(held.items(), key=lambda item: -item[1])[:_MAX_HOLDERS])
    used, _, _, maximum = watch.limits()
    wait = Wait(watch.name, now, now - started, timed_out, place, holders, used, maximum)
    _tell(watch, wait)


def _tell_transaction(watch: Watch, hold: Hold, now: int, took: int, outcome: str) -> None:
    begun = now - took
    calls: int | None = None
    db_ns: int | None = None
    gap_ns, gap_place = took, hold.place
    scope = scopes.current.get()
    if scope is not None and not scope.closed:
        # What has been digested meanwhile is in sums only: then the scope cannot tell what ran when.
        records = [record for record in list(scope.records) if record[1] >= begun]
        if records and len(records) < scopes.BATCH:
            calls = len(records)
            db_ns = sum(record[2] for record in records)
            gap_ns, at, line = 0, begun, hold.place
            for record in sorted(records, key=lambda record: record[1]):
                if record[1] - at > gap_ns:
                    gap_ns, gap_place = record[1] - at, line
                at, line = record[1] + record[2], record[5] or line
            if now - at > gap_ns:
                gap_ns, gap_place = now - at, line
    end_place = sites.place_of(sys._getframe(3)) if _places else None  # noqa: SLF001
    _tell(
        watch,
        Transaction(watch.name, now, took, outcome, hold.place, end_place, calls, db_ns, gap_ns, gap_place),
    )


def _tell(watch: Watch, event: Wait | Transaction) -> None:
    scope = scopes.current.get()
    for owner in watch.owners:
        try:
            owner.pool_event(event, scope)
        except Exception as error:  # noqa: BLE001 - ours, or an exporter's
            faults.count("pool", error)


def _after_fork() -> None:
    """The parent process tells of what it saw; the child begins at zero."""
    global _changing
    _changing = threading.RLock()
    for watch in list(_watches.values()):
        if watch is not None:
            watch.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
