"""
Scopes: one logical unit of work, what ran inside it, and what is left of that when its detail is gone.

Statements are appended to a scope as records and digested in batches, so a scope of any length takes bounded memory and
a fault after 200,000 statements is seen like one at the start. Records are digested exactly once: totals are exact.
"""

# ruff: noqa: SLF001 - a scope looks into those around it

from __future__ import annotations

import functools
import inspect
import os
import threading
from collections import deque
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from time import perf_counter_ns
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, ParamSpec, Protocol, Self, TypeVar
from uuid import UUID

from sqlprobe import faults, ignores, loops, orm, walks
from sqlprobe.model import SqlprobeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from sqlprobe.fingerprint import Shape
    from sqlprobe.ignores import Ignore
    from sqlprobe.sites import Place
    from sqlprobe.stats import Tally
    from sqlprobe.walks import Walk

P = ParamSpec("P")
R = TypeVar("R")

BATCH: Final = 512  # records digested at a time: 0.4 ms
MAX_SHAPES: Final = 5_000  # of one scope; a few MB, and no request has more
MAX_LOADS: Final = 20_000  # relationship and parent-query pairs followed at a time in one scope
MAX_ORIGINS: Final = 20_000  # queries that later lazy loads may turn out to come from
MAX_SPOTS: Final = 64  # lines of one statement in one scope
LONG: Final = 1_000  # characters or bytes of a parameter that waits to be digested; of a longer one its hash does
FEW: Final = 16  # parameters: a batch of such statements holds 8,000
MAX_VALUES: Final = 10_000  # parameters that wait, of statements with more: 10 MB if all are as long as may be
MAX_GIVEN: Final = 2_000  # different parameters remembered of one statement in one scope
MAX_STEPS: Final = 12  # of lazy loads that hang from one another, looked at for the query at their root
MAX_NAME: Final = 200
NO_LIMIT: Final = 1 << 62
PART: Final = "scope"  # the kind of scopes that nobody says more of
NEW: Final = -1  # no result's number: objects that no query has loaded


class Extra(NamedTuple):
    """What few statements have. `more` marks a further page of the insertmanyvalues execution before it."""

    error: str | None = None
    sets: int = 1
    more: bool = False
    blocked_ns: int = 0
    pages: int = 1
    before_ns: int = 0  # of the pages before
    many: bool = False  # an executemany, which insertmanyvalues is not


class Record(NamedTuple):
    """
    One statement that ran, as capture hands it over (as a plain tuple of this form: naming it costs 0.2 us).

    `given` tells calls of a SELECT apart: the driver's parameters, or where these are none the text; None for others.
    It is dropped when the record is digested. `ignores` are those that the statement ran inside.
    """

    tally: Tally
    started_ns: int
    elapsed_ns: int
    rows: int
    load: tuple[Any, ...] | None
    place: Place | None
    extra: Extra | None
    given: Any = None
    ignores: tuple[Ignore, ...] = ()


LIGHT: Final = frozenset(
    {NoneType, bool, int, float, Decimal, date, datetime, time, timedelta, UUID}
)  # types whose values are short, whatever they are


def slim(record: tuple[Any, ...]) -> tuple[Any, ...]:
    """
    *record* as it may wait until it is digested: in its `given` each long value is its hash only.

    Most values are of types that tell that they are short: their length is not looked at.
    """
    given = record[7]
    kind = type(given)
    if kind is dict:
        given = given.values()
    elif kind is not tuple:
        return record if kind is not str or len(given) <= LONG else (*record[:7], hash(given), *record[8:])
    if LIGHT.issuperset(map(type, given)):
        return record
    short = []
    changed = False
    for value in given:
        if type(value) in LIGHT or (type(value) in {str, bytes} and len(value) <= LONG):
            short.append(value)
            continue
        try:
            short.append(hash(value))
            changed = True
        except TypeError:  # a list: it tells nothing, and may be of any size
            return (*record[:7], None, *record[8:])
    return (*record[:7], tuple(short), *record[8:]) if changed else record


NEITHER: Final = 0
READS: Final = 1
WRITES: Final = 2
# What is neither (SET, CALL, a SELECT of a function alone, as set_config is) may change what the next SELECT returns.
_KINDS: Final = {"SELECT": READS, "INSERT": WRITES, "UPDATE": WRITES, "DELETE": WRITES, "MERGE": WRITES}


class Spot:
    """
    The calls of one statement from one line, `place` (None: all that no line was looked up for), one set of parameters
    each. Lazy loads, refreshes and eager loads are told elsewhere: where `counts` is False, these were eager ones.

    `distinct` of them had parameters that the statement had not had before, `after_writes` repeated known ones after a
    write of the scope. `state` is an ORM query's compile state,
    `connections` (weak references by id) those it ran on, as far as the ORM told.
    """

    __slots__ = (
        "after_writes", "calls", "claimed", "connection", "connections", "counts", "distinct", "first_ns", "last_ns",
        "ns", "place", "rows", "state", "walk",
    )  # fmt: skip

    def __init__(self, place: Place | None, state: Any, started: int, walk: Walk | None, *, counts: bool) -> None:
        self.place = place
        self.state = state
        self.walk = walk
        self.counts = counts
        self.calls = 0
        self.ns = 0
        self.rows = 0
        self.distinct = 0
        self.after_writes = 0
        self.connection: object = None  # the last one
        self.connections: dict[int, object] = {}
        self.first_ns = started
        self.last_ns = started
        self.claimed = False


class ShapeCalls:
    """
    The calls of one statement in one scope.

    `again` of them repeated a query with the same parameters on the same connection, and the scope wrote nothing in
    between; `again_ns` is what these took.
    """

    __slots__ = ("_given", "again", "again_ns", "calls", "engine", "kind", "ns", "place", "rows", "shape", "spots")

    def __init__(self, shape: Shape, engine: str) -> None:
        self.shape = shape
        self.engine = engine
        self.kind = _KINDS.get(shape.operation, NEITHER)
        if self.kind == READS and not shape.tables and "(" in shape.text:
            self.kind = NEITHER
        self.calls = 0
        self.ns = 0
        self.rows = 0
        self.place: Place | None = None
        self.spots: dict[Place | None, Spot] = {}
        self.again = 0
        self.again_ns = 0
        self._given: dict[
            int, tuple[object, int]
        ] = {}  # by hash: the connection and the writes so far, at the last call

    def add(self, spot: Spot, elapsed: int, connection: object, key: int | None, writes: int) -> None:
        """Take a read of *spot* with the parameters that `_key_of` gave; the scope made *writes* so far."""
        if connection is not spot.connection:
            spot.connection = connection
            if len(spot.connections) < MAX_SPOTS:
                spot.connections[id(connection)] = connection
        if key is None:
            spot.distinct += 1
            return
        known = self._given
        last = known.get(key)
        if last is None:
            spot.distinct += 1
            if len(known) < MAX_GIVEN:
                known[key] = (connection, writes)
            return
        if last[1] != writes:
            spot.after_writes += 1
        elif last[0] is connection:
            if connection is not None:
                self.again += 1
                self.again_ns += elapsed
            return
        known[key] = (connection, writes)

    def take_over(self, other: ShapeCalls, writes: int, *, wrote: bool) -> None:
        """
        Take the calls of a nested scope, which *wrote* or not, that a loop may have made. *writes* are those before it.
        """
        fresh = sum(spot.distinct for spot in other.spots.values()) - len(other._given)  # what nothing tells apart
        for key, (connection, written) in other._given.items():
            if key not in self._given:
                fresh += 1
                if len(self._given) < MAX_GIVEN:
                    self._given[key] = (connection, writes + written)
        for place, spot in other.spots.items():
            if place is None or spot.claimed or not spot.counts or not loops.in_loop(place):
                continue
            mine = self.spots.get(place)
            if mine is None:
                if len(self.spots) >= MAX_SPOTS:
                    continue
                mine = self.spots[place] = Spot(place, spot.state, spot.first_ns, spot.walk, counts=True)
            elif mine.walk is not None and spot.walk is not None:
                mine.walk.go_on(spot.walk)
            distinct = min(spot.distinct, fresh)
            fresh -= distinct
            mine.calls += spot.calls
            mine.ns += spot.ns
            mine.rows += spot.rows
            mine.distinct += distinct
            mine.after_writes += spot.calls - distinct if wrote else spot.after_writes
            mine.first_ns = min(mine.first_ns, spot.first_ns)
            mine.last_ns = max(mine.last_ns, spot.last_ns)
            if len(mine.connections) < MAX_SPOTS:
                mine.connections.update(spot.connections)

    def spot(self, started: int, load: tuple[Any, ...] | None, place: Place | None) -> Spot:
        """The calls from *place*, which none has come from before."""
        if len(self.spots) >= MAX_SPOTS and None in self.spots:
            return self.spots[None]
        if len(self.spots) >= MAX_SPOTS:
            place = None
        state = None if load is None else load[1]
        walk = walks.walk_of(self.shape.text) if self.kind == READS else None
        spot = Spot(place, state, started, walk, counts=state is None or not orm.is_eager(state))
        self.spots[place] = spot
        return spot


def _key_of(given: Any, spot: Spot) -> int | None:
    """What tells the parameters of a call from others; None where nothing does, and they count as others each time."""
    if given is None:
        return None
    values = tuple(given.values()) if type(given) is dict else given
    try:
        key = hash(values)
    except TypeError:  # a list among them
        return None
    walk = spot.walk
    if walk is not None and not walk.broken and type(values) is tuple:
        walk.add(values)
    return key


class Reloads:
    """
    Statements that loaded columns of objects one by one, for one `cause` (of `orm.refresh_of`).

    `parents` are hashes of the objects' identities. `bare` of the calls followed no write of the scope: a refresh after
    a write reads what the database made of it. `origin` is the query that loaded the objects, if it ran in the scope.
    """

    __slots__ = (
        "bare", "calls", "cause", "claimed", "first_ns", "last_ns", "load", "mapper", "ns", "origin", "parents",
        "place", "props", "tally", "writes",
    )  # fmt: skip

    def __init__(self, load: orm.Load, tally: Tally, origin: Record | None, first_ns: int) -> None:
        self.cause, self.mapper, self.props = orm.refresh_of(load.compile_state)
        self.load = load
        self.tally = tally
        self.origin = origin
        self.calls = 0
        self.bare = 0
        self.ns = 0
        self.parents: set[int] = set()
        self.place: Place | None = None
        self.first_ns = first_ns
        self.last_ns = first_ns
        self.writes = -1
        self.claimed = False

    def merge(self, other: Reloads) -> None:
        self.calls += other.calls
        self.bare += other.bare
        self.ns += other.ns
        self.parents |= other.parents
        self.place = self.place or other.place
        self.origin = self.origin or other.origin
        self.first_ns = min(self.first_ns, other.first_ns)
        self.last_ns = max(self.last_ns, other.last_ns)


class LazyLoads:
    """
    Lazy loads of one relationship for objects that one query, `origin`, loaded (None: not in this scope).

    The objects were reached on one path (`Order.billing`, not also `Order.shipping`), which one loader option mends.
    `parents` are hashes of their identities; `expired` of them had been read anew, since a commit made them stale.
    """

    __slots__ = (
        "calls", "claimed", "expired", "first_ns", "last_ns", "load", "ns", "origin", "parents", "place", "tally",
    )  # fmt: skip

    def __init__(self, load: orm.Load, tally: Tally, origin: Record | None, first_ns: int) -> None:
        self.load = load
        self.tally = tally
        self.origin = origin
        self.calls = 0
        self.ns = 0
        self.expired = 0
        self.parents: set[int] = set()
        self.place: Place | None = None
        self.first_ns = first_ns
        self.last_ns = first_ns
        self.claimed = False

    def merge(self, other: LazyLoads) -> None:
        self.calls += other.calls
        self.expired += other.expired
        self.ns += other.ns
        self.parents |= other.parents
        self.place = self.place or other.place
        self.origin = self.origin or other.origin
        self.first_ns = min(self.first_ns, other.first_ns)
        self.last_ns = max(self.last_ns, other.last_ns)


class SlowCalls:
    """
    The calls of one statement that took long; `lagged` ones only because their event loop was blocked.

    `max_ns` is the slowest call, `own_ns` the most that one took apart from the time its loop was blocked, and
    `blocked_ns` what all of them waited for it.
    """

    __slots__ = (
        "blocked_ns", "calls", "engine", "first_ns", "lagged", "last_ns", "max_ns", "ns", "own_ns", "place", "shape",
    )  # fmt: skip

    def __init__(self, shape: Shape, engine: str, first_ns: int, *, lagged: bool) -> None:
        self.shape = shape
        self.engine = engine
        self.lagged = lagged
        self.calls = 0
        self.ns = 0
        self.blocked_ns = 0
        self.max_ns = 0
        self.own_ns = 0
        self.place: Place | None = None
        self.first_ns = first_ns
        self.last_ns = first_ns


_LAZY_RULE: Final = "n-plus-one"
_RELOAD_RULE: Final = "column-load"


def _labels_of(load: tuple[Any, ...]) -> list[str]:
    """What an ignore may call a lazy load or a refresh."""
    if load[0] == orm.LAZY:
        return [orm.label_of(orm.relationship_in(load[1]))]
    _, mapper, props = orm.refresh_of(load[1])
    return [orm.name_of(mapper), *map(orm.label_of, props)]


def _leads_to(query: tuple[Any, ...], load: tuple[Any, ...]) -> bool:
    """Whether the eager *load* belongs to *query*, the last one: then its objects come from the line of that."""
    if query[6] is not load[6]:
        return False
    entity = orm.entity_of(query[1])
    return entity is not None and bool(entity.common_parent(orm.first_of(load[1])))


class Digest:
    """
    What the detectors see of a scope: its totals, its statements, its lazy loads by parent query, its slow calls.

    Written by one thread at a time. `dropped` counts what was over a bound and is in the totals only.
    """

    __slots__ = (
        "_by_tally", "_loads", "_query", "calls", "dropped", "errors", "first_ns", "last_ns", "loads", "name", "ns",
        "origins", "reloads", "rows", "shapes", "silenced", "slow", "slow_ns", "writes",
    )  # fmt: skip

    def __init__(self, name: str, slow_ns: int) -> None:
        self.name = name
        self.slow_ns = slow_ns
        self.calls = 0
        self.ns = 0
        self.rows = 0
        self.errors = 0
        self.dropped = 0
        self.shapes: dict[tuple[str, str], ShapeCalls] = {}
        self.loads: dict[tuple[Any, ...], LazyLoads] = {}  # by relationship, parent query, and the way in between
        self.origins: dict[int, tuple[Any, ...]] = {}  # the records of ORM statements, by their markers
        self._query: tuple[Any, ...] | None = None  # the last record, if an ORM query's: eager loads may follow
        self._by_tally: dict[Tally, ShapeCalls] = {}  # the same as `shapes`
        self._loads: dict[tuple[Any, ...], tuple[LazyLoads | None, Any]] = {}  # where loads like the last ones went
        self.reloads: dict[tuple[Any, ...], Reloads] = {}  # by compile state, and for deferred columns parent query
        self.writes = 0  # statements that changed rows
        self.silenced: set[str] = set()  # rules that an ignore takes from the whole scope
        self.first_ns = 0
        self.last_ns = 0
        self.slow: dict[tuple[str, str, bool], SlowCalls] = {}

    @property
    def distinct(self) -> int:
        return len(self.shapes)

    def add(self, record: Record | tuple[Any, ...]) -> None:
        """Take one record in."""
        self.drain(deque([record]))

    def drain(self, records: deque[Any]) -> None:
        """
        Take *records* in and out of the deque, to which other threads may append. One that fails is counted.

        Most often a record is like the one before, from the same loop: then only what differs is looked at, and what
        such a run adds up to is put down at its end.
        """
        by_tally, origins, slow_ns = self._by_tally, self.origins, self.slow_ns
        take = records.popleft
        total_calls = total_ns = total_rows = 0
        started = 0
        first = records[0][1] if records else 0
        queried, eager = None, False  # the last query's compile state, and whether it was an eager load's
        state = runid = path = None  # of the last lazy load: most often the next is like it
        loads: Any = None
        alike = where = None  # the tally and the place of the run, and what they lead to
        calls: Any = None
        spot: Any = None
        lazy = reads = plain = False
        run = run_ns = run_rows = run_last = 0
        last_given: int | None = None
        key: int | None
        try:
            for _ in range(len(records)):
                record = take()
                try:
                    tally, started, elapsed, rows, load, place, extra, given, muting = record
                    total_ns += elapsed
                    if tally is alike and extra is None and elapsed < slow_ns and not muting:
                        if load is None:
                            if place is where and not lazy:
                                run += 1
                                run_ns += elapsed
                                run_last = started
                                if rows > 0:
                                    run_rows += rows
                                if reads:
                                    try:  # as _key_of() has it, which costs as much as all else here
                                        if plain and type(given) is tuple:
                                            key = hash(given)
                                        elif plain and type(given) is dict:
                                            key = hash(tuple(given.values()))
                                        else:
                                            key = _key_of(given, spot)
                                    except TypeError:
                                        key = None
                                    if key is None or key != last_given:
                                        last_given = key
                                        calls.add(spot, elapsed, None, key, self.writes)
                                continue
                        elif (
                            lazy
                            and load[1] is state
                            and load[3] == runid
                            and load[4] is path
                            and (place is None or place is where)
                        ):
                            run += 1
                            run_ns += elapsed
                            run_last = started
                            if rows > 0:
                                run_rows += rows
                            loads.parents.add(load[5])
                            origins[load[2]] = record if given is None else record[:7]
                            continue
                    if run:
                        total_calls += run
                        total_rows += run_rows
                        self._end_run(calls, None if lazy else spot, loads, run, run_ns, run_rows, run_last)
                        run = run_ns = run_rows = 0
                    alike = None
                    calls = by_tally.get(tally)
                    if calls is None:
                        calls = self._calls_of(tally)
                    calls.ns += elapsed
                    if rows > 0:
                        total_rows += rows
                        calls.rows += rows
                    if place is not None and calls.place is None:
                        calls.place = place
                    if extra is None or not extra.more:
                        total_calls += 1
                        calls.calls += 1
                        if extra is not None and extra.error is not None:
                            self.errors += 1
                    if muting:
                        muted = self._muted(record)
                        if muted:
                            self.writes += calls.kind != READS
                            if load is not None:
                                origins[load[2]] = record[:7]
                            if elapsed >= slow_ns and "slow-statement" not in muted:
                                self._judge_time(record)
                            if muted != {"slow-statement"}:
                                continue
                            elapsed = 0  # it is slow to nobody
                    kind = calls.kind
                    if kind != 1:  # READS
                        self.writes += 1
                    if (
                        kind
                        and (load is None or load[0] == 3)  # noqa: PLR2004 - orm.OTHER
                        and (extra is None or (extra.sets == 1 and extra.error is None))
                    ):
                        spot = calls.spots.get(place)
                        if spot is None:
                            spot = calls.spot(started, load, place)
                        if spot.counts:
                            spot.calls += 1
                            spot.ns += elapsed
                            spot.last_ns = started
                            if rows > 0:
                                spot.rows += rows
                            reads = kind == 1
                            if reads:
                                connection = None if load is None else load[6]
                                last_given = _key_of(given, spot)
                                plain = spot.walk is None or spot.walk.broken
                                calls.add(spot, elapsed, connection, last_given, self.writes)
                            if load is None:
                                alike, where, lazy = tally, place, False
                    if load is not None:
                        if len(origins) >= MAX_ORIGINS:
                            self._bound_origins()
                        head = origins[load[2]] = record[:7]  # without the parameters
                        if load[0] == 3:  # noqa: PLR2004 - orm.OTHER
                            if load[1] is not queried:
                                queried, eager = load[1], orm.is_eager(load[1])
                            if not eager:
                                self._query = head
                            elif (query := self._query) is not None and _leads_to(query[4], load):
                                origins[load[2]] = query
                            else:
                                self._query = None
                        elif load[0] == 1:  # orm.LAZY
                            self._query = None
                            if load[1] is not state or load[3] != runid or load[4] is not path:
                                state, runid, path = load[1], load[3], load[4]
                                # Not the statement: Order.billing and Order.shipping are loaded by the same one.
                                like = (id(state), runid, id(path))
                                known = self._loads.get(like)
                                loads = known[0] if known else self._lazy_loads(like, record)
                            if loads is not None:
                                loads.calls += 1
                                loads.ns += elapsed
                                loads.parents.add(load[5])
                                loads.last_ns = started
                                if loads.place is None:
                                    loads.place = place
                                alike, where, lazy = tally, loads.place, True
                        else:
                            self._query = None
                            self._add_reload(record)
                    if elapsed >= slow_ns:
                        self._judge_time(record)
                except Exception as error:  # noqa: BLE001 - ours: its call is counted, its part in a pattern is lost
                    faults.count("digest", error)
                    alike = state = loads = None
        finally:
            if run:
                total_calls += run
                total_rows += run_rows
                self._end_run(calls, None if lazy else spot, loads, run, run_ns, run_rows, run_last)
            if started:
                self.first_ns = self.first_ns or first or started
                self.last_ns = started
            self.calls += total_calls
            self.ns += total_ns
            self.rows += total_rows

    def _end_run(
        self, calls: ShapeCalls, spot: Spot | None, loads: LazyLoads | None, run: int, ns: int, rows: int, last_ns: int
    ) -> None:
        """Put down what *run* records like the one before them add up to, of *spot* or else of the lazy *loads*."""
        calls.calls += run
        calls.ns += ns
        calls.rows += rows
        if spot is not None:
            if calls.kind == WRITES:
                self.writes += run
            spot.calls += run
            spot.ns += ns
            spot.rows += rows
            spot.last_ns = last_ns
        elif loads is not None:
            loads.calls += run
            loads.ns += ns
            loads.last_ns = last_ns
            if len(self.origins) >= MAX_ORIGINS:
                self._bound_origins()

    def merge(self, child: Digest, *, repeats: bool = False) -> None:
        """
        Take over what a nested scope saw, without what a detector claimed.

        With *repeats* also the calls whose line, or its caller's, is in a loop: it may be around the nested scopes.
        What each of several requests of one test ran once is no loop: see `Scope.is_part`.
        """
        self.calls += child.calls
        self.ns += child.ns
        self.rows += child.rows
        self.errors += child.errors
        self.dropped += child.dropped
        self.first_ns = min(self.first_ns or child.first_ns, child.first_ns or self.first_ns)
        self.last_ns = max(self.last_ns, child.last_ns)
        for key, calls in child.shapes.items():
            mine = self.shapes.get(key)
            if mine is None:
                if len(self.shapes) >= MAX_SHAPES:
                    self.dropped += calls.calls
                    continue
                mine = self.shapes[key] = ShapeCalls(calls.shape, calls.engine)
            mine.calls += calls.calls
            mine.ns += calls.ns
            mine.rows += calls.rows
            mine.place = mine.place or calls.place
            if repeats and calls.spots:
                mine.take_over(calls, self.writes, wrote=child.writes > 0)
        self.writes += child.writes
        for key, reloads in child.reloads.items():
            if not reloads.claimed:
                mine_too = self.reloads.get(key)
                if mine_too is not None:
                    mine_too.merge(reloads)
                elif len(self.reloads) < MAX_SHAPES:
                    self.reloads[key] = reloads
        self.origins.update(child.origins)
        if len(self.origins) >= MAX_ORIGINS:
            self._bound_origins()
        for group, loads in child.loads.items():
            if loads.claimed:
                continue
            relationship, runid, *way = group
            if loads.origin is None:
                # The query may have run out here.
                runid, loads.origin, steps, _ = self.origin_of(
                    orm.relationship_of(loads.load), runid, loads.tally.thread, loads.load.connection
                )
                group = (relationship, runid, *way, *steps)  # noqa: PLW2901
            known = self.loads.get(group)
            if known is None:
                self._bound_loads()
                self.loads[group] = loads
            else:
                known.merge(loads)

    def origin_of(
        self, relationship: object, runid: int, thread: int, connection: object
    ) -> tuple[int, Record | None, tuple[int, ...], bool]:
        """
        The number by which objects of result *runid* are siblings where *relationship* is read, the query they hang
        from, the lazily loaded relationships (their ids) in between, and whether the objects had expired.

        What a refresh read anew is what an earlier query had loaded. The number is `NEW` for objects that the session
        made, and that had expired: no query had loaded these.

        Objects that lazy loads brought in are siblings if their parents are: what counts is the query at the root. Not
        where *relationship* itself brought them in: each step of a walk up `node.parent.parent` hangs from the last.
        """
        siblings = None
        steps: tuple[int, ...] = ()
        expired = False
        record = self.query_of(runid, thread, connection)
        for _ in range(MAX_STEPS):
            if record is None:
                break
            above = record[4]
            if above[0] == orm.REFRESH:
                if orm.refresh_of(above[1])[0] == orm.EXPIRED:
                    expired = expired or not steps
                elif above[3] is None:
                    break
                if above[3] is None:
                    return NEW, None, steps, expired
                runid = above[3]
                record = self.query_of(runid, record[0].thread, above[6])
                continue
            if above[0] != orm.LAZY or above[3] is None:
                break
            if siblings is None:
                step = orm.relationship_in(above[1])
                if step is relationship:
                    siblings = runid
                else:
                    steps = (*steps, id(step))
            runid = above[3]
            record = self.query_of(runid, record[0].thread, above[6])
        else:
            record = None
        if record is not None and record[4][0] != orm.OTHER:
            record = None
        return siblings or runid, None if record is None else Record(*record), steps, expired

    def way_to(self, loads: LazyLoads) -> tuple[Any, tuple[Any, ...]]:
        """The mapper that the query at the root selected, and the relationships from it down to the one of *loads*."""
        load, thread = loads.load, loads.tally.thread
        way: tuple[Any, ...] = (orm.relationship_of(load),)
        for _ in range(MAX_STEPS):
            record = None if load.runid is None else self.query_of(load.runid, thread, load.connection)
            if record is None or record[4][0] == orm.OTHER:
                break
            above = orm.Load(*record[4])
            if above.kind == orm.REFRESH:
                # What the object knows of its way, it knows from before.
                load, thread = above._replace(compile_state=load.compile_state), record[0].thread
                continue
            way = (*orm.way_between(above, load), *way)
            load, thread = above, record[0].thread
        return orm.root_of(load), (*orm.way_from_root(load), *way)

    def is_direct(self, load: orm.Load, thread: int) -> bool:
        """Whether the object of *load* came from a query itself, as far as is known, and not from another lazy load."""
        record = None if load.runid is None else self.query_of(load.runid, thread, load.connection)
        return record is None or bool(record[4][0] == orm.OTHER)

    def query_of(self, runid: int, thread: int, connection: object) -> tuple[Any, ...] | None:
        """
        The record of the query that gave its result the number *runid*, if it ran in *thread* or on *connection*.

        Between our draw and SQLAlchemy's another thread may draw, and its query would seem to be this one. The objects
        of a session stay with its connection, and nearly always with its thread; a foreign query has neither.
        """
        record = self.origins.get(runid - 1)
        if record is None or (record[0].thread != thread and record[4][6] != connection):
            return None
        return record

    def _calls_of(self, tally: Tally) -> ShapeCalls:
        shape = tally.shape
        key = (shape.fingerprint, tally.engine)
        calls = self.shapes.get(key)
        if calls is None:
            if len(self.shapes) >= MAX_SHAPES:
                self.dropped += 1
                return self.shapes.setdefault(("", ""), ShapeCalls(shape, ""))
            calls = self.shapes[key] = ShapeCalls(shape, tally.engine)
        if len(self._by_tally) < 2 * MAX_SHAPES:  # a shape has a tally in each thread
            self._by_tally[tally] = calls
        return calls

    def _lazy_loads(self, like: tuple[Any, ...], record: tuple[Any, ...]) -> LazyLoads | None:
        """The group that a lazy load belongs to, None for an object that no query loaded."""
        tally, started, load, place = record[0], record[1], record[4], record[5]
        named = orm.Load(*load)
        loads = None
        if named.runid is not None:
            relationship = orm.relationship_of(named)
            runid, origin, steps, expired = self.origin_of(relationship, named.runid, tally.thread, named.connection)
            path = orm.path_of(named)
            if runid == NEW:
                path = (place,)  # what they have in common is the line that reads them
            # The group holds the load, and so the relationship.
            key = (id(relationship), runid, path, *steps)
            loads = self.loads.get(key)
            if loads is None:
                self._bound_loads()
                loads = self.loads[key] = LazyLoads(named, tally, origin, started)
            loads.expired += expired
        if len(self._loads) >= MAX_SHAPES:
            self._loads.clear()
        self._loads[like] = (loads, load)  # the load holds what *like* has the ids of
        return loads

    def _add_reload(self, record: tuple[Any, ...]) -> None:
        """Take in a statement that loaded columns of one object."""
        tally, started, elapsed, _, load, place = record[:6]
        runid, origin = 0, None
        cause = orm.refresh_of(load[1])[0]
        if cause == orm.DEFERRED and load[3] is not None:
            runid, origin, _, _ = self.origin_of(None, load[3], tally.thread, load[6])
        key = (id(load[1]), runid)  # the group holds the compile state
        reloads = self.reloads.get(key)
        if reloads is None:
            if len(self.reloads) >= MAX_SHAPES:
                self.dropped += 1
                return
            reloads = self.reloads[key] = Reloads(orm.Load(*load), tally, origin, started)
        reloads.calls += 1
        reloads.ns += elapsed
        reloads.parents.add(load[5])
        reloads.last_ns = started
        if reloads.place is None:
            reloads.place = place
        if reloads.writes != self.writes and (reloads.writes >= 0 or self.writes):
            reloads.writes = self.writes
        else:
            reloads.bare += 1
            reloads.writes = self.writes

    def _judge_time(self, record: tuple[Any, ...]) -> None:
        """Take in a statement that took long."""
        tally, started, elapsed, _, _, place, extra = record[:7]
        key = (tally.shape.fingerprint, tally.engine)
        blocked = extra.blocked_ns if extra else 0
        own = elapsed - blocked
        lagged = own < self.slow_ns
        slow = self.slow.get((*key, lagged))
        if slow is None:
            if len(self.slow) >= MAX_SHAPES:
                self.dropped += 1
                return
            slow = self.slow[*key, lagged] = SlowCalls(tally.shape, tally.engine, started, lagged=lagged)
        slow.calls += 1
        slow.ns += elapsed
        slow.blocked_ns += blocked
        slow.own_ns = max(slow.own_ns, own)
        if elapsed > slow.max_ns:
            slow.max_ns = elapsed
            slow.place = place or slow.place
        slow.last_ns = started

    def unclaim(self) -> None:
        """Let it be judged anew: by another reader, or after more statements."""
        for loads in self.loads.values():
            loads.claimed = False
        for reloads in self.reloads.values():
            reloads.claimed = False
        for calls in self.shapes.values():
            for spot in calls.spots.values():
                spot.claimed = False

    def _muted(self, record: tuple[Any, ...]) -> set[str]:
        """The rules that must not hear of *record*, by the ignores that it ran inside."""
        tally, load, place = record[0], record[4], record[5]
        rules = set()
        for ignore in record[8]:
            rule = ignore.rule
            if rule == "query-budget":
                if ignore.fits_label(self.name):
                    ignores.matched(ignore)
                    self.silenced.add(rule)
                continue
            if load is not None and load[0] != orm.OTHER:
                if rule != (_LAZY_RULE if load[0] == orm.LAZY else _RELOAD_RULE):
                    continue
                labels = _labels_of(load)
            elif rule in {_LAZY_RULE, _RELOAD_RULE}:
                continue
            else:
                labels = [" ".join(tally.shape.tables)]
            # Where no line was looked up, the block that the ignore encloses is line enough.
            if any(map(ignore.fits_label, labels)) and (place is None or ignore.fits_site(place.site())):
                ignores.matched(ignore)
                rules.add(rule)
        return rules

    def _bound_origins(self) -> None:
        """Forget the oldest. Many at once: to find a dict's first key takes longer with each that was deleted."""
        for marker in list(islice(self.origins, len(self.origins) - MAX_ORIGINS * 3 // 4)):
            del self.origins[marker]

    def _bound_loads(self) -> None:
        if len(self.loads) < MAX_LOADS:
            return
        # What was loaded for one object only, and longest ago, is the least likely to become an N+1.
        alone = [key for key, loads in self.loads.items() if len(loads.parents) == 1] or list(self.loads)
        for key in alone[: MAX_LOADS // 2]:
            del self.loads[key]
            self.dropped += 1
        self._loads.clear()


class Window(NamedTuple):
    """A scope, or a stretch of one that stays open, as it is judged: the sums include nested scopes."""

    digest: Digest
    calls: int
    ns: int
    rows: int
    errors: int
    wall_ns: int
    began_ns: int = 0
    kept: list[tuple[Any, ...]] = []  # noqa: RUF012 - never changed: the records of its beginning, for its timeline


class Sink(Protocol):
    """Whoever is told that a scope, or a window of one that stays open, has ended."""

    def judge(self, scope: Scope, window: Window) -> None:
        """Take what *window* says. Faults are the caller's to count."""


current: ContextVar[Scope | None] = ContextVar("sqlprobe.scope", default=None)
sinks: tuple[Sink, ...] = ()  # replaced whole, never changed
slow_ns: int = NO_LIMIT  # the lowest threshold of all sinks
window_ns: int = NO_LIMIT
share: float = 1.0  # of units of work that the integrations open a scope for: the most that a sink asks for
keep: int = 0  # records of a scope's beginning that its timeline is made of
_open: set[Scope] = set()


def open_scopes() -> list[Scope]:
    """Every scope that is open now, in whatever context."""
    return list(_open.copy())


class Scope:
    """
    One logical unit of work: a context manager for sync and async code, and a decorator for functions of both.

    Nests: a parent's totals include its children's. Follows the context (tasks, greenlets, `asyncio.to_thread`); a
    thread that was started bare has no scope. Leaving it never raises, in whatever context. Without an attached probe
    or a recording it counts nothing.

    Example:
        >>> import sqlprobe
        >>> with sqlprobe.scope("nightly import", kind="task") as scope:
        ...     pass
        >>> scope.calls
        0
    """

    __slots__ = (
        "_below", "_depth", "_judged", "_judged_ns", "_kept", "_lock", "_values", "closed", "digest", "due_ns", "kind",
        "last_lazy", "late", "name", "on_late", "opened_ns", "parent", "records", "seen", "totals", "__weakref__",
    )  # fmt: skip

    def __init__(self, name: str, *, kind: str = PART) -> None:
        self.name = str(name)[:MAX_NAME]
        self.kind = str(kind)[:MAX_NAME]
        self.parent: Scope | None = None
        self.closed = False
        self.late = 0
        self.on_late: tuple[Callable[[], None], ...] = ()
        self.opened_ns = 0
        self.totals = (0, 0, 0, 0)  # calls, nanoseconds, rows, errors; nested scopes included
        self.digest = Digest(self.name, slow_ns)
        self.seen: set[Any] = set()  # what capture has looked up the line of
        self.last_lazy: tuple[Any, ...] | None = None  # the lazy load of which it has asked last whether it is there
        self.records: deque[Any] = deque()  # that wait to be digested
        self._values = 0  # parameters among these, of statements with many
        self._lock = threading.RLock()
        self.due_ns = NO_LIMIT
        self._kept: list[tuple[Any, ...]] = []
        self._judged = self.totals
        self._judged_ns = 0
        self._depth = 0
        self._below: set[Scope] = set()

    @property
    def is_part(self) -> bool:
        """
        Whether it is a part of what the scope around it does: a loop around it is that one's.

        A scope of another kind than "scope" (a request, a task) is a unit of its own, whoever runs several.
        """
        return self.kind == PART and _nearest_open(self.parent) is not None

    @property
    def calls(self) -> int:
        """Statements so far, nested scopes included; an executemany is one."""
        self.digest_now()
        return self.totals[0]

    @property
    def seconds(self) -> float:
        """What they took so far, in seconds."""
        self.digest_now()
        return self.totals[1] / 1e9

    @property
    def rows(self) -> int:
        """Rows so far, where the driver told them."""
        self.digest_now()
        return self.totals[2]

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<sqlprobe.scope {self.name!r} ({self.kind}), {state}, {self.totals[0]} statements>"

    def __enter__(self) -> Self:
        self._depth += 1
        if self._depth == 1:
            self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth <= 0:
            self._depth = 0
            self.close()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """
        Decorate *function*, sync, async or a generator, to run in a scope of this name and kind, a fresh one each time.

        Raises:
            SqlprobeError: *function* is an async generator function, into which no wrapper could pass what is thrown.
        """
        name, kind = self.name, self.kind
        if inspect.isasyncgenfunction(function):
            raise SqlprobeError(
                f"sqlprobe.scope({name!r}) decorates {function.__qualname__}, an async generator function, which no "
                f"decorator can enclose; write `with sqlprobe.scope({name!r}):` inside it"
            )
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def run_generator(*args: P.args, **kwargs: P.kwargs) -> Any:
                with Scope(name, kind=kind):
                    return (yield from function(*args, **kwargs))

            return run_generator
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                with Scope(name, kind=kind):
                    return await function(*args, **kwargs)

            return run_async  # type: ignore[return-value]

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with Scope(name, kind=kind):
                return function(*args, **kwargs)

        return run

    def open(self) -> None:
        """Begin it, anew if it has been closed: nested in the current scope, and current from now on. Never raises."""
        try:
            if self.opened_ns:
                self._lock = threading.RLock()
                self.closed = False
                self.late = 0
                self.on_late = ()
                self.totals = self._judged = (0, 0, 0, 0)
                self.digest = Digest(self.name, slow_ns)
            self.digest.slow_ns = slow_ns  # may have changed since it was made
            parent = self.parent = _nearest_open(current.get())
            if parent is not None:
                self._lock = parent._lock
                parent._below.add(self)
            self.opened_ns = self._judged_ns = perf_counter_ns()
            self.due_ns = self.opened_ns + window_ns
            current.set(self)
            _open.add(self)
        except Exception as error:  # noqa: BLE001 - ours: the application goes on without this scope
            faults.count("scope", error)

    def close(self) -> None:
        """End it: judge it, free its detail. Never raises; twice, or where it was not opened, it does nothing."""
        if self.closed or not self.opened_ns:
            return
        self.closed = True
        _open.discard(self)
        # Whatever other context still has it (it was left out of order or in another task, or tasks outlive it) finds
        # it closed, and goes on to the scopes around it.
        try:
            if current.get() is self:
                current.set(_nearest_open(self.parent))
            now_ns = perf_counter_ns()
            with self._lock:
                self.digest_now()
                window = self._turn(now_ns)
            self._tell(window)
            if self.parent is None and not self._below:
                return
            with self._lock:
                parent = _nearest_open(self.parent)
                for below in self._below:
                    below.parent = parent
                if parent is not None:
                    parent._below.discard(self)
                    parent._below |= self._below
                self.parent = parent
                self._below = set()
            self._hand_up(window, now_ns)
        except Exception as error:  # noqa: BLE001 - ours, and never the application's
            faults.count("scope", error)

    def rename(self, name: str) -> None:
        """Give it the name it is judged by: a router knows the route only after the request has come in."""
        self.name = self.digest.name = str(name)[:MAX_NAME]

    def take(self, record: tuple[Any, ...]) -> None:
        """Append a `Record`. Called by capture, in whatever thread."""
        if self.closed:
            self._take_late(record)
            return
        given = record[7]
        if given is not None:
            record = slim(record)
            if type(given) is not int and len(given) > FEW:
                self._values += len(given)
        self.records.append(record)
        if len(self.records) >= BATCH or record[1] > self.due_ns or self._values > MAX_VALUES:
            self.work_off(record[1])

    def work_off(self, now_ns: int) -> None:
        """Digest what waits, and have the window judged if it has been open for long enough."""
        # Another thread that holds the lock is digesting; what is left to do waits for the next statement.
        if not self._lock.acquire(blocking=False):
            return
        window = None
        try:
            self._drain()
            if now_ns > self.due_ns:
                window = self._turn(now_ns)
        finally:
            self._lock.release()
        if window is not None:
            self._tell(window)
            self._hand_up(window, now_ns)

    @contextmanager
    def digested(self) -> Iterator[Digest]:
        """The digest of what ran so far, which nothing changes while it is looked at."""
        with self._lock:
            self._drain()
            yield self.digest

    def digest_now(self) -> None:
        """Digest what is pending, here and in open scopes below: readers call it."""
        with self._lock:
            if self._below:
                for below in list(self._below):
                    below.digest_now()
            self._drain()

    def forget(self) -> None:
        """Drop everything: after a fork the parent process tells of it."""
        self._lock = threading.RLock()
        self.records = deque()
        self._below = set()
        self.totals = self._judged = (0, 0, 0, 0)
        self.digest = Digest(self.name, slow_ns)
        self._kept = []
        self.seen = set()
        self.last_lazy = None
        if self.parent is not None:
            self.parent.forget()
            self._lock = self.parent._lock
            self.parent._below.add(self)

    def _take_late(self, record: tuple[Any, ...]) -> None:
        """A statement of a context that outlives the scope: it counts in the scopes around it only."""
        self.late += 1
        for tell in self.on_late:
            tell()
        if len(self.seen) > BATCH:
            self.seen = set()  # capture goes on to fill it
            self.last_lazy = None
        around = _nearest_open(self.parent)
        if around is not None:
            around.take(record)

    def _drain(self) -> None:
        if not self.records:
            return
        digest = self.digest
        calls, ns, rows, errors = digest.calls, digest.ns, digest.rows, digest.errors
        room = keep - len(self._kept)
        if room > 0:
            with suppress(RuntimeError):  # another thread appends: they are digested all the same
                # Without parameters: of most there are none, and a copy is not free.
                self._kept.extend([
                    record if record[7] is None else record[:7] for record in islice(self.records, room)
                ])  # fmt: skip
        self._values = 0
        while self.records:
            digest.drain(self.records)
        if len(self.seen) > MAX_SHAPES:
            self.seen = set()
            self.last_lazy = None
        calls, ns = digest.calls - calls, digest.ns - ns
        rows, errors = digest.rows - rows, digest.errors - errors
        scope: Scope | None = self
        while scope is not None:
            before = scope.totals
            scope.totals = (before[0] + calls, before[1] + ns, before[2] + rows, before[3] + errors)
            scope = scope.parent

    def _turn(self, now_ns: int) -> Window:
        """Cut off the window that ends now, and begin the next."""
        now, then, began_ns = self.totals, self._judged, self._judged_ns
        calls, ns, rows, errors = now[0] - then[0], now[1] - then[1], now[2] - then[2], now[3] - then[3]
        window = Window(self.digest, calls, ns, rows, errors, now_ns - began_ns, began_ns, self._kept)
        self._kept = []
        self.digest = Digest(self.name, slow_ns)
        self.seen = set()
        self.last_lazy = None
        self._judged = self.totals
        self._judged_ns = now_ns
        self.due_ns = now_ns + window_ns
        return window

    def _tell(self, window: Window) -> None:
        """Have *window* judged. Without the lock: a callback may ask for a report, which waits for other scopes'."""
        for sink in sinks:
            try:
                sink.judge(self, window)
            except Exception as error:  # noqa: BLE001 - ours, and never the application's
                faults.count("judge", error)

    def _hand_up(self, window: Window, now_ns: int) -> None:
        """Give the scope around this one what no detector has claimed; it may run no statement itself, and be due."""
        with self._lock:
            parent = _nearest_open(self.parent)
            if parent is None:
                return
            parent._drain()
            parent.digest.merge(window.digest, repeats=self.is_part)
            if len(parent._kept) < keep:
                parent._kept += window.kept[: keep - len(parent._kept)]
            if now_ns <= parent.due_ns:
                return
            parent.digest_now()
            above = parent._turn(now_ns)
        parent._tell(above)
        parent._hand_up(above, now_ns)


def _nearest_open(scope: Scope | None) -> Scope | None:
    while scope is not None and scope.closed:
        scope = scope.parent
    return scope


def _after_fork() -> None:
    """The child has only the thread, and so the scopes, that forked; of what ran so far the parent process tells."""
    mine = _nearest_open(current.get())
    others = _open.copy()
    if mine is not None:
        mine.forget()
    scope = mine
    while scope is not None:
        others.discard(scope)
        scope = scope.parent
    for other in others:
        other.closed = True  # whoever still has it leaves it without a word
    _open.difference_update(others)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
