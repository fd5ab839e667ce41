"""
Capture: the one hook that runs inside a user's statement.

SQLAlchemy asks the dialect's `do_execute` handlers before it calls the driver. Ours calls the driver itself, between
two readings of the clock, and counts. Nothing of ours can change what the statement returns or raises: what fails here
is counted in `faults`. The handler is installed once for the process and then only switched by flags, since adding a
listener while another thread executes breaks that thread's statement.

To follow a statement: `_on_execute` -> the driver -> `_count` -> the thread's `Tally`, the current `Scope`, the open
recordings.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import weakref
from _thread import get_ident
from bisect import bisect_left
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, Protocol

from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import ExecuteStyle

from sqlprobe import faults, ignores, orm, scopes, sites
from sqlprobe.fingerprint import Shape, shape_of
from sqlprobe.stats import BOUNDS_NS, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

    from sqlalchemy import URL
    from sqlalchemy.engine.interfaces import Dialect

    from sqlprobe.lag import LoopWatch
    from sqlprobe.scopes import Scope
    from sqlprobe.settings import CallSites

MAX_TALLIES: Final = 16_384  # of all engines and threads; 0.9 kB each, so 15 MB
MAX_SHAPE_BYTES: Final = 8_000_000  # of normalised texts, which all threads share
MAX_TEXT_BYTES: Final = 4_000_000  # of statement texts that one thread looks up as they are
MIN_TEXT_BYTES: Final = 256_000  # ... however many threads there are
MAX_GIVEN: Final = 1_000  # parameters of a SELECT that are kept until its scope digests it
MAX_TEXT: Final = 16_384  # a longer text is normalised each time

OVERFLOW: Final = Shape("0" * 16, "(other statements)", "other", "", ())
UNHOOKED: Final = "sqlprobe's handler was taken off SQLAlchemy by other code: statements since then are missing"
_NO_ROWS: Final = -1
_current_scope: Final = scopes.current.get
_current_ignores: Final = ignores.current.get
_orm_kinds: Final = orm.kinds
_LIGHT: Final = scopes.LIGHT
_BATCH: Final = scopes.BATCH
_SCHEMA: Final = re.compile(r"__\[SCHEMA_(?:_none\]\.|([^\]]*)\])")
_PAGES: Final = "_sqlprobe_pages"
_ref: Final = weakref.ref
_ENTRY_BYTES: Final = 120  # a dict entry and a string's head


class Recorder(Protocol):
    """A recording, as capture sees it: it takes every statement of the process."""

    def take(self, record: tuple[Any, ...], scope: Scope | None) -> None: ...

    def forget(self) -> None: ...


class Tracer(Protocol):
    """An exporter of a probe that tells single statements, as capture sees it."""

    def wants(self) -> bool:
        """Whether to make a record of the statement that has just run in this context: asked for each, so be quick."""

    def take(self, record: tuple[Any, ...], scope: Scope | None) -> None: ...


class Owner(Protocol):
    """A probe, as capture sees it."""

    def covers(self, dialect: Dialect) -> bool: ...

    def take(self, record: scopes.Record) -> None:
        """Take a slow statement that ran outside any scope."""

    def retire(self, tables: dict[int, Table]) -> None:
        """Keep the counts of an engine that is gone or is no longer yours. Called at any moment: wait for no lock."""

    def forget(self) -> None: ...


class Sampler(Protocol):
    """What keeps executions with their values for plans, as capture sees it: `Tally.sample_ns` says which it wants."""

    def take(
        self, tally: Tally, statement: str, parameters: Any, context: Any, started_ns: int, elapsed_ns: int
    ) -> None: ...


class Table:
    """What one thread knows of one engine's statements."""

    __slots__ = ("bytes", "by_fingerprint", "texts")

    def __init__(self) -> None:
        self.texts: dict[str, Tally] = {}
        self.by_fingerprint: dict[str, Tally] = {}
        self.bytes = 0


class Pages:
    """An insertmanyvalues execution under way, whose pages come one by one: kept on its context."""

    __slots__ = ("ns", "tally")

    def __init__(self, ns: int) -> None:
        self.ns = ns
        self.tally: Tally | None = None  # where the first page was counted


class Watched:
    """
    One engine (dialect) that has executed: who observes it, and its counts by thread.

    A thread's identifier is reused when the thread has ended, and its table with it: threads that come and go leave
    nothing behind, and nothing of theirs is lost.
    """

    __slots__ = (
        "class_handlers", "counted", "dialect", "handlers", "loop_watch", "name", "on", "owner", "tables", "tells_lag",
        "url", "vague",
    )  # fmt: skip

    def __init__(self, dialect: Dialect, name: str) -> None:
        self.dialect = weakref.ref(dialect)
        self.name = name
        self.url: URL | None = None  # with its password: never shown whole
        self.owner: Owner | None = None
        self.on = False  # observed by anyone
        self.counted = False  # observed by a probe that is not paused
        self.tables: dict[int, Table] = {}
        self.tells_lag = bool(getattr(dialect, "is_async", False))
        self.loop_watch: LoopWatch | None = None
        self.vague = dialect.name == "sqlite"  # its rowcount of INSERT ... RETURNING is 0 until the rows are fetched
        # Where nobody listens on this engine alone, those of all engines are counted without a call. The attribute is
        # SQLAlchemy's own; without it len() tells the same.
        self.handlers: object = None
        self.class_handlers: Sized = ()
        handlers = dialect.dispatch.do_execute
        if not getattr(handlers, "listeners", True) and hasattr(handlers, "parent_listeners"):
            self.handlers = handlers
            self.class_handlers = handlers.parent_listeners


def tallies_of(tables: dict[int, Table]) -> list[Tally]:
    """Every tally, for a reader: other threads may be writing them."""
    return [tally for table in tables.copy().values() for tally in table.by_fingerprint.copy().values()]


installed = False
owners: tuple[Owner, ...] = ()  # probes; replaced whole, as the next two
paused: frozenset[Owner] = frozenset()
recorders: tuple[Recorder, ...] = ()
tracers: tuple[Tracer, ...] = ()  # of probes that are not paused
auto_scope: Callable[[], Scope | None] | None = None
sampler: Sampler | None = None
muting = False  # whether the program has ever come to a `with sqlprobe.ignore(...)`

_on = False
_slow_ns = scopes.NO_LIMIT
_sites: CallSites = "first"
_assigning = threading.RLock()  # around who observes an engine: at its first statement, and when that changes
_watched: dict[int, Watched] = {}  # by the dialect's id; a dead dialect takes its entry with it
_shapes: dict[str, Shape] = {}
_shape_bytes = 0
_shapes_stale = False  # whether tables were dropped since the shapes were last looked through


def install(*, repair: bool = False) -> None:
    """
    Put our handlers on every engine of the process, made before or after. Once, see the module's docstring; to
    *repair*, again where other code has taken them off since.
    """
    global installed, get_ident
    if installed and not (repair and not hooked()):
        return
    if "gevent.monkey" in sys.modules:
        # Greenlets of one thread share its tables: none of our writes spans a switch.
        get_ident = sys.modules["gevent.monkey"].get_original("_thread", "get_ident")
    for name, handler in _handlers().items():
        if not event.contains(Engine, name, handler):
            event.listen(Engine, name, handler)
    installed = True


def uninstall() -> None:
    """Take our handlers off again. At shutdown only: a statement of another thread may fail in that moment."""
    global installed
    if not installed:
        return
    for name, handler in _handlers().items():
        if event.contains(Engine, name, handler):
            event.remove(Engine, name, handler)
    installed = False


def hooked() -> bool:
    """Whether our handlers are where we put them: other code may have taken them off."""
    return all(event.contains(Engine, name, handler) for name, handler in _handlers().items())


def _handlers() -> dict[str, Callable[..., bool | None]]:
    return {
        "do_execute": _on_execute,
        "do_executemany": _on_executemany,
        "do_execute_no_params": _on_execute_no_params,
    }


def configure(*, slow_ns: int, call_sites: CallSites) -> None:
    """Take the thresholds that the probes and recordings agreed on, and look anew at who observes which engine."""
    global _on, _slow_ns, _sites
    _slow_ns = slow_ns
    _sites = call_sites
    for watched in list(_watched.values()):
        _assign(watched)
    _on = bool(recorders) or any(owner not in paused for owner in owners)


def sample_with(wanted: Sampler | None) -> None:
    """Hand executions to *wanted* from now on, or to nobody."""
    global sampler
    if wanted is sampler:
        return
    sampler = wanted
    for watched in list(_watched.values()):
        for tally in tallies_of(watched.tables):
            tally.sample_ns = scopes.NO_LIMIT if wanted is None else -1


def watched_by(owner: Owner) -> list[Watched]:
    """The engines of *owner* that have executed and still exist."""
    return [watched for watched in list(_watched.values()) if watched.owner is owner]


def _assign(watched: Watched) -> None:
    global _shapes_stale
    dialect = watched.dialect()
    with _assigning:
        owner = next((owner for owner in owners if dialect is not None and owner.covers(dialect)), None)
        if owner is not watched.owner:
            if watched.owner is not None:
                watched.owner.retire(watched.tables)
            watched.tables = {}
            watched.owner = owner
            _shapes_stale = True
        watched.counted = owner is not None and owner not in paused
        watched.on = watched.counted or bool(recorders)


# --- inside a statement -----------------------------------------------------------------------------------------------


def _on_execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool | None:
    if not _on:
        return None
    try:
        dialect = context.dialect
        watched = _watched.get(id(dialect))
        if watched is None:
            watched = _adopt(dialect, context)
        if watched is None or not watched.on:
            return None
        handlers = dialect.dispatch.do_execute
        alone = len(watched.class_handlers) == 1 if handlers is watched.handlers else len(handlers) == 1
        started = perf_counter_ns()
        if watched.tells_lag:
            _watch_loop(watched, started)
    except Exception as fault:  # noqa: BLE001 - ours: the statement runs unobserved
        faults.count("capture", fault)
        return None
    try:
        if alone or not _others(handlers, _on_execute, (cursor, statement, parameters, context)):
            dialect.do_execute(cursor, statement, parameters, context)
    except BaseException as error:
        _count(watched, cursor, statement, parameters, context, started, perf_counter_ns() - started, 1, error)
        raise
    _count(watched, cursor, statement, parameters, context, started, perf_counter_ns() - started)
    return True


def _on_executemany(cursor: Any, statement: str, parameters: Any, context: Any) -> bool | None:
    watched = _observed(context)
    if watched is None:
        return None
    dialect = context.dialect
    handlers = dialect.dispatch.do_executemany
    sets = len(parameters)
    started = perf_counter_ns()
    try:
        if len(handlers) == 1 or not _others(handlers, _on_executemany, (cursor, statement, parameters, context)):
            dialect.do_executemany(cursor, statement, parameters, context)
    except BaseException as error:
        _count(watched, cursor, statement, None, context, started, perf_counter_ns() - started, sets, error)
        raise
    _count(watched, cursor, statement, None, context, started, perf_counter_ns() - started, sets)
    return True


def _on_execute_no_params(cursor: Any, statement: str, context: Any) -> bool | None:
    watched = _observed(context)
    if watched is None:
        return None
    dialect = context.dialect
    handlers = dialect.dispatch.do_execute_no_params
    started = perf_counter_ns()
    try:
        if len(handlers) == 1 or not _others(handlers, _on_execute_no_params, (cursor, statement, context)):
            dialect.do_execute_no_params(cursor, statement, context)
    except BaseException as error:
        _count(watched, cursor, statement, (), context, started, perf_counter_ns() - started, 1, error)
        raise
    _count(watched, cursor, statement, (), context, started, perf_counter_ns() - started)
    return True


def _observed(context: Any) -> Watched | None:
    """The engine of *context*, if anybody observes it."""
    if not _on:
        return None
    try:
        watched = _watched.get(id(context.dialect))
        if watched is None:
            watched = _adopt(context.dialect, context)
        if watched is None or not watched.on:
            return None
        if watched.tells_lag:
            _watch_loop(watched, perf_counter_ns())
    except Exception as fault:  # noqa: BLE001 - ours: the statement runs unobserved
        faults.count("capture", fault)
        return None
    return watched


def _count(
    watched: Watched,
    cursor: Any,
    statement: str,
    parameters: Any,
    context: Any,
    started: int,
    elapsed: int,
    sets: int = 1,
    error: BaseException | None = None,
) -> None:
    """Count a call that has come back, or failed with *error*; *parameters* are None for many sets of them."""
    try:
        compiled = context.compiled
        # SQLAlchemy's compiled statement is one string object each time; what is sent may be made anew (IN, pages).
        text = statement if compiled is None else compiled.string
        if text is not statement and not _comes_from(statement, context):
            compiled = None
            text = statement
        table = watched.tables.get(get_ident())
        tally = None if table is None else table.texts.get(text)
        if tally is None:
            tally = _tally_of(watched, text, context, started)
            if tally is None:
                return
        place = extra = None
        rows = _NO_ROWS
        if error is None:
            try:
                rows = cursor.rowcount
                if not rows and (rows is None or (watched.vague and cursor.description is not None)):
                    rows = _NO_ROWS
            except Exception as fault:  # noqa: BLE001 - the driver's; the call still counts
                faults.count("rowcount", fault)
            if sets != 1 or (
                compiled is not None and context.isinsert and context.execute_style is ExecuteStyle.INSERTMANYVALUES
            ):
                extra = _extra(context, sets, elapsed, None)
        else:
            extra = _extra(context if compiled is not None else None, sets, elapsed, error_name(error))
        slow = elapsed >= _slow_ns
        if slow and watched.loop_watch is not None:
            blocked = watched.loop_watch.blocked_ns(started, started + elapsed)
            extra = (extra or scopes.Extra())._replace(blocked_ns=blocked)

        if watched.counted:
            slowest = (elapsed if extra is None else extra.before_ns + elapsed) > tally.max_ns
            if (slow or slowest) and _sites != "off":
                place = sites.place_of(sys._getframe(2))  # noqa: SLF001
                if place is not None:
                    tally.seen_at(place)
            if extra is None or not _count_extra(tally, extra, context, elapsed, rows, place):
                tally.total_ns += elapsed
                tally.buckets[bisect_left(BOUNDS_NS, elapsed)] += 1
                tally.last_ns = started
                if rows >= 0:
                    tally.rows = rows if tally.rows < 0 else tally.rows + rows
                if slowest:
                    tally.max_ns = elapsed
                    tally.slowest = place
                if elapsed < tally.min_ns:
                    tally.min_ns = elapsed

        if elapsed > tally.sample_ns and error is None and sampler is not None:
            sampler.take(tally, statement, parameters, context, started, elapsed)
        scope = _current_scope()
        if auto_scope is not None and (scope is None or scope.closed):
            scope = auto_scope()
        wanted: tuple[Tracer, ...] = ()
        if tracers:
            for tracer in tracers:  # a comprehension is a call: it costs 0.15 us
                try:
                    if tracer.wants():
                        wanted = (*wanted, tracer)
                except Exception as fault:  # noqa: BLE001 - an exporter's; the scope and the others get the record
                    faults.count("exporter", fault)
        if scope is not None or recorders or wanted:
            load = given = options = None
            light = True
            if compiled is not None and error is None:
                state = compiled.compile_state
                by_orm = state is not None and _orm_kinds.get(type(state))
                if by_orm or (by_orm is None and orm.is_orm(state)):
                    options = context.execution_options.get("_sa_orm_load_options")
                    parent = None if options is None else options._lazy_loaded_from  # noqa: SLF001
                    if parent is None:
                        load = orm.load_of(state, options, _ref(context.root_connection))
                    else:  # what load_of() would say, without the call
                        marker = (orm.draw or orm.find_counter())()
                        key = hash(parent.key)
                        connection = _ref(context.root_connection)
                        load = (1, state, marker, parent.runid, parent.load_path, key, connection)  # orm.LAZY
            if (
                parameters is not None
                and (load is None or load[0] == 3)  # noqa: PLR2004 - orm.OTHER: the object tells the others apart
                and tally.selects
            ):
                if (
                    compiled is not None
                    and parameters
                    and (text is statement or "schema_translate_map" not in context.execution_options)
                ):
                    given = parameters if len(parameters) <= MAX_GIVEN else len(parameters)
                else:
                    given = _given(statement, parameters)
                # One short value, as most queries have, is as it may wait in a scope.
                if type(given) is tuple:
                    light = len(given) == 1 and type(given[0]) in _LIGHT
                elif type(given) is dict and len(given) == 1:
                    (value,) = given.values()
                    light = type(value) in _LIGHT
                else:
                    light = False
            known = False  # most often the line has been looked up, and no call need be made to ask
            if scope is not None and _sites == "first":
                if load is None:
                    known = tally in scope.seen
                elif (last := scope.last_lazy) is not None:
                    known = last[1] is load[1] and last[3] == load[3] and last[4] is load[4]
            if place is None and not known and _sites != "off" and (_sites == "all" or _first_in(scope, tally, load)):
                if compiled is None:
                    place = sites.place_of(sys._getframe(2))  # noqa: SLF001
                else:
                    place = sites.place_above_statement(by_session=options is not None, by_orm=load is not None)
                if place is not None and watched.counted:
                    tally.seen_at(place)
            muted = _current_ignores() if muting else ()
            record = (tally, started, elapsed, rows, load, place, extra, given, muted)
            if scope is not None:
                if light and not scope.closed:  # what take() does, whose call would be a tenth of all that is done here
                    records = scope.records
                    records.append(record)
                    if len(records) >= _BATCH or started > scope.due_ns:
                        scope.work_off(started)
                else:
                    scope.take(record)
            for recorder in recorders:
                recorder.take(record, scope)
            for tracer in wanted:
                tracer.take(record, scope)
        if slow and scope is None and watched.counted and watched.owner is not None:
            watched.owner.take(scopes.Record(tally, started, elapsed, rows, None, place, extra))
    except Exception as fault:  # noqa: BLE001 - ours: the user's statement has run, and its result stands
        faults.count("capture", fault)


def _given(statement: str, parameters: Any) -> Any:
    """What tells calls of a text of the user's apart: literals in it, and a copy of what the caller may change."""
    if not parameters or len(parameters) > MAX_GIVEN:
        return statement
    return (*(parameters.values() if isinstance(parameters, dict) else parameters), statement)


def _first_in(scope: Scope | None, tally: Tally, load: tuple[Any, ...] | None) -> bool:
    """Whether the line of this statement is to be looked up: see `Settings.call_sites`."""
    if scope is None or scope.closed:  # a closed one forgets nothing more
        return tally.places is None
    key: object = tally
    if load is not None:
        if load[0] == orm.OTHER:
            return True
        if load[0] == orm.LAZY:
            scope.last_lazy = load
            key = (load[1], load[3], load[4])
    if key in scope.seen:
        return False
    scope.seen.add(key)
    return True


# --- outside the common path ------------------------------------------------------------------------------------------


def _others(handlers: Any, mine: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """
    Call the `do_execute` handlers that follow *mine*, as SQLAlchemy would have: True where one has run the statement.
    """
    while True:
        try:
            known = list(handlers)
            break
        except RuntimeError:  # another thread adds a listener: the deque changed under the copy
            continue
    following = known[known.index(mine) + 1 :] if mine in known else []
    return any(handler(*args) for handler in following if handler is not mine)  # which other code may add once more


def _comes_from(statement: str, context: Any) -> bool:
    """
    Whether *statement* is what *context* compiled: expanded, with a comment, or a page of it.

    A sequence, or a default that needs SQL, runs in the context of its INSERT, most often while that is being prepared.
    """
    prepared = getattr(context, "statement", None)
    if prepared is None or statement is prepared:
        return prepared is not None
    return (context.isinsert and context.execute_style is ExecuteStyle.INSERTMANYVALUES) or prepared in statement


def _extra(context: Any, sets: int, elapsed: int, error: str | None) -> scopes.Extra:
    if context is None or not context.isinsert or context.execute_style is not ExecuteStyle.INSERTMANYVALUES:
        return scopes.Extra(error=error, sets=sets, many=sets != 1)
    # One execution, whose pages come here one by one, is one call: the first page stands for all parameter sets.
    pages = getattr(context, _PAGES, None)
    if pages is None:
        setattr(context, _PAGES, Pages(elapsed))
        return scopes.Extra(error=error, sets=len(context.parameters))
    before = pages.ns
    pages.ns += elapsed
    return scopes.Extra(error=error, sets=0, more=True, before_ns=before)


def _count_extra(
    tally: Tally,
    extra: scopes.Extra,
    context: Any,
    elapsed: int,
    rows: int,
    place: sites.Place | None,
) -> bool:
    """Count what is special of a call; True where nothing is left to count: a further page of one that was."""
    if extra.error is not None:
        tally.failed(extra.error)
    pages = getattr(context, _PAGES, None)
    if not extra.more:
        tally.sets += extra.sets - 1
        tally.was_min_ns = tally.min_ns
        if pages is not None:
            pages.tally = tally
        return False
    if pages is None or pages.tally is not tally:
        return False  # whoever counted the first page is not who counts now
    tally.add_page(elapsed, extra.before_ns, rows, place)
    return True


def error_name(error: BaseException) -> str:
    """SQLSTATE where the driver gives one, else the exception's class: never its text, which may hold rows."""
    for name in ("sqlstate", "pgcode"):
        state = getattr(error, name, None)
        if _is_sqlstate(state):
            return str(state)
    # pg8000 keeps the server's fields in a dict.
    fields = error.args[0] if error.args else None
    if isinstance(fields, dict) and _is_sqlstate(fields.get("C")):
        return str(fields["C"])
    return type(error).__name__


def _is_sqlstate(value: object) -> bool:
    return isinstance(value, str) and len(value) == 5 and value.isalnum()  # noqa: PLR2004


def _watch_loop(watched: Watched, now_ns: int) -> None:
    """Keep the running loop's timer going while statements run on it."""
    try:
        watch = watched.loop_watch
        loop = sys.modules["asyncio"]._get_running_loop()  # noqa: SLF001 - documented for frameworks
        if loop is None:
            watched.loop_watch = None
        elif watch is None or not watch.covers(loop):
            from sqlprobe import lag

            watched.loop_watch = lag.watch(loop, now_ns)
        else:
            watch.used_ns = now_ns
    except Exception as fault:  # noqa: BLE001 - ours
        faults.count("event-loop lag", fault)


def _adopt(dialect: Dialect, context: Any) -> Watched | None:
    """Get to know an engine at its first statement."""
    try:
        key = id(dialect)
        engine = context.root_connection.engine
        watched = Watched(dialect, engine_name(engine))
        watched.url = engine.url
        weakref.finalize(dialect, _forget_engine, key).atexit = False
        seen = (owners, paused, recorders)
        _assign(watched)  # before other threads find it
        watched = _watched.setdefault(key, watched)
        while seen != (now := (owners, paused, recorders)):  # another thread attaches just now, and did not find it
            seen = now
            _assign(watched)
    except Exception as fault:  # noqa: BLE001 - ours
        faults.count("adopting an engine", fault)
        return None
    return watched


def _forget_engine(key: int) -> None:
    global _shapes_stale
    watched = _watched.get(key)
    if watched is None:
        return
    try:
        if watched.owner is not None:
            watched.owner.retire(watched.tables)
    except Exception as fault:  # noqa: BLE001 - ours, in a finalizer
        faults.count("engine that is gone", fault)
    _watched.pop(key, None)
    _shapes_stale = True


def engine_name(engine: Engine) -> str:
    """Driver, host and database of *engine*: never a user, a password or a query."""
    url = engine.url
    place = f"{url.host or ''}{f':{url.port}' if url.port else ''}"
    return f"{url.drivername}://{place}/{url.database or ''}"


def _tally_of(watched: Watched, text: str, context: Any, started: int) -> Tally | None:
    """
    The thread's tally of *text*, made if need be; None for the statements of the dialect's first connect, which are
    SQLAlchemy's own.
    """
    if not context.root_connection._allow_autobegin:  # noqa: SLF001
        return None
    ident = get_ident()
    table = watched.tables.get(ident)
    if table is None:
        table = watched.tables[ident] = Table()
    failed = False
    try:
        # One statement for all schemas that schema_translate_map puts there: by the name that the code gives.
        shape = shape_of(_SCHEMA.sub(r"\1", text) if "__[SCHEMA_" in text else text)
    except Exception as fault:  # noqa: BLE001 - ours; the call still counts
        faults.count("fingerprint", fault)
        shape = OVERFLOW
        failed = True
    tally = table.by_fingerprint.get(shape.fingerprint)
    if tally is None:
        shape = OVERFLOW if _is_full(shape) else _shared(shape)
        tally = table.by_fingerprint.get(shape.fingerprint)
        if tally is None:
            tally = table.by_fingerprint[shape.fingerprint] = Tally(shape, watched.name, started, ident)
            if sampler is not None:
                tally.sample_ns = -1
    if len(text) <= MAX_TEXT and not failed:
        budget = max(MIN_TEXT_BYTES, MAX_TEXT_BYTES // (1 + len(watched.tables)))
        if table.bytes > budget:
            # Literals in the text: each is new. What is compiled comes back at the price of one look each.
            table.texts.clear()
            table.bytes = 0
        table.texts[text] = tally
        table.bytes += len(text) + _ENTRY_BYTES
    return tally


def _is_full(shape: Shape) -> bool:
    """Whether a tally of *shape* would be one too many."""
    if _shape_bytes > MAX_SHAPE_BYTES and shape.fingerprint not in _shapes:
        _forget_shapes()
        if _shape_bytes > MAX_SHAPE_BYTES:
            return True
    tables = [table for watched in list(_watched.values()) for table in watched.tables.copy().values()]
    return sum(len(table.by_fingerprint) for table in tables) >= MAX_TALLIES


def _forget_shapes() -> None:
    """Let go of the shapes whose engines are gone or are counted anew, if there are any such engines."""
    global _shapes, _shape_bytes, _shapes_stale
    if not _shapes_stale:
        return
    _shapes_stale = False
    live = {tally.shape for watched in list(_watched.values()) for tally in tallies_of(watched.tables)}
    _shapes = {shape.fingerprint: shape for shape in live}
    _shape_bytes = sum(map(_bytes_of, live))


def _bytes_of(shape: Shape) -> int:
    return len(shape.text) + len(shape.summary) + 6 * _ENTRY_BYTES


def _shared(shape: Shape) -> Shape:
    """The one object of that shape in the process."""
    global _shape_bytes
    known = _shapes.setdefault(shape.fingerprint, shape)
    if known is shape:
        _shape_bytes += _bytes_of(shape)
    return known


def _after_fork() -> None:
    """The parent process tells of what it saw; the child begins at zero."""
    global _assigning
    _assigning = threading.RLock()
    faults.forget()
    for watched in list(_watched.values()):
        watched.tables = {}
        watched.loop_watch = None
    for owner in owners:
        owner.forget()
    for recorder in recorders:
        recorder.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
