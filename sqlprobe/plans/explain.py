"""
The explainer: asks PostgreSQL for the plan of a statement, with its values, and can do no harm by it.

It never touches a connection of the application. `on_connection()` makes one in the application's own way (creator,
`do_connect` handlers, connect listeners, `connect_args`), from a loop of its own for an async driver, and closes it
after the batch. Each question runs in a READ ONLY transaction of its own that ends with ROLLBACK, with limits on waits
for locks, on its time and on idleness; through the driver's cursor, so that no event of SQLAlchemy fires and nothing
of it is counted. Nothing stays behind: no setting (all are LOCAL), no prepared statement, no temporary object.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from sqlalchemy.pool import StaticPool

from sqlprobe.capture import error_name
from sqlprobe.fingerprint import shape_of
from sqlprobe.model import SqlprobeError
from sqlprobe.plans import conditions
from sqlprobe.plans import plan as plans
from sqlprobe.plans.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Engine

    from sqlprobe.plans.plan import Plan
    from sqlprobe.plans.sampling import Sample

T = TypeVar("T")

Reason = Literal[
    "not explainable", "locked", "timeout", "forbidden", "not visible", "unavailable", "busy", "costly", "volatile",
    "unsupported", "failed",
]  # fmt: skip

MAX_STATEMENT: Final = 1_000_000  # characters: a longer one costs the server more to read than its plan tells
_FRESH_SECONDS: Final = 1.0  # a connection that is older than our asking for it is somebody else's
GRACE_SECONDS: Final = 5.0  # beyond the server's own limits: an answer that takes longer does not come
_GENERIC_FROM: Final = 160_000
_SERVER_FROM: Final = 120_000  # EXPLAIN (SETTINGS); older servers are out of support

# What the planner reads and a statement can be explained by; everything else is a utility statement.
_EXPLAINABLE: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH"})

VECTOR_SETTINGS: Final = ("hnsw.ef_search", "hnsw.iterative_scan", "ivfflat.probes", "ivfflat.iterative_scan")

# Volatile, and without any effect that outlives the statement.
HARMLESS_FUNCTIONS: Final = frozenset({
    "bernoulli", "clock_timestamp", "gen_random_bytes", "gen_random_uuid", "random", "random_normal",
    "statement_timestamp", "system", "timeofday", "uuid_generate_v1", "uuid_generate_v1mc", "uuid_generate_v4",
    "uuidv4", "uuidv7",
})  # fmt: skip

_REASONS: Final[dict[str, Reason]] = {
    "55P03": "locked",
    "40P01": "locked",
    "57014": "timeout",
    "42501": "forbidden",
    "42P01": "not visible",
    "3F000": "not visible",
    "42703": "not visible",
    "42883": "not visible",
    "42704": "not visible",
    "08P01": "failed",  # a message that did not fit, such as too few values: the connection is there
    "53300": "unavailable",
    "57P01": "unavailable",
    "57P02": "unavailable",
    "57P03": "unavailable",
    "25P03": "unavailable",
    "25P04": "unavailable",
}
_is_state: Final = re.compile(r"[0-9A-Z]{5}").fullmatch
_CONNECTION_CLASSES: Final = ("08", "28", "3D")  # SQLSTATE classes: connection, authorisation, no such database

SAID: Final[dict[Reason, str]] = {
    "not explainable": "EXPLAIN takes one SELECT, INSERT, UPDATE, DELETE, MERGE or WITH",
    "locked": "a table is locked, and sqlprobe does not wait; ask again later",
    "timeout": "planning took longer than the limit; a function that planning runs may be slow",
    "forbidden": "the role may not use what the statement uses; connect as the application's role",
    "not visible": "something that it names is not there for this connection: check the search path, or whether the "
    "table lives in a transaction that is not committed",
    "unavailable": "the server cannot be reached, or has closed the connection",
    "busy": "the server is slow to answer; sqlprobe leaves it alone",
    "costly": "its cost is above the ceiling for running it; EXPLAIN without ANALYZE tells its plan",
    "volatile": "it calls functions that may write or send, which READ ONLY does not stop",
    "unsupported": "plans are read from PostgreSQL 12 and newer",
    "failed": "the server refused it",
}


class Refused(SqlprobeError):  # noqa: N818 - a state, as FileExists is
    """
    A plan that cannot be had: `reason` is one of `Reason`, `sqlstate` the server's code or the driver's exception.

    The message holds no text of the server's: those quote values.
    """

    def __init__(self, reason: Reason, *, found: str = "", sqlstate: str = "") -> None:
        self.reason = reason
        self.sqlstate = sqlstate
        code = f"SQLSTATE {sqlstate}" if _is_state(sqlstate) else sqlstate
        told = found or code or reason
        super().__init__(f"EXPLAIN was asked for, found: {told}; {SAID[reason]}")


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What one question may take, in seconds. `cost` is the planner's, above which nothing is run for ANALYZE.

    `idle_seconds` ends our transaction in the server should this process stall in the middle of it.
    """

    lock_seconds: float = 0.1
    statement_seconds: float = 1.0
    analyze_seconds: float = 5.0
    idle_seconds: float = 2.0
    cost: float = 1e6


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What decided a plan besides the statement: who asked, where names were looked up, and the server."""

    role: str
    search_path: str = field(repr=False)
    server_version: int
    in_recovery: bool
    seconds: float  # that the server needed for this very question: how busy it is


@dataclass(frozen=True, slots=True)
class Explained:
    """A plan, and what has to be known with it: `notes` are sentences for the reader of a finding."""

    plan: Plan
    surroundings: Surroundings
    notes: tuple[str, ...] = ()
    secured: frozenset[tuple[str, str]] | None = None  # relations under row security, None: as for the connection


def on_connection(engine: Engine, work: Callable[[Session], T], limits: Limits | None = None) -> T:
    """
    What *work* returns for a session on a new connection of *engine*'s own making, which is closed when it has ended.

    Async drivers run in a thread and a loop of their own; the caller waits. *work* is called in that thread.

    Raises:
        Refused: no connection can be had.
    """
    if engine.dialect.name != "postgresql":
        raise Refused("unsupported", found=f"the database is {engine.dialect.name}")
    limits = limits or Limits()
    if not engine.dialect.is_async:
        return _with_session(engine, work, limits)
    return in_own_loop(lambda: _with_session(engine, work, limits), "sqlprobe-explain")


def in_own_loop(work: Callable[[], T], name: str) -> T:
    """What *work* returns, called where an async driver may wait: in a thread called *name*, and a loop, of its own."""
    outcome: list[tuple[T | None, BaseException | None]] = []

    def run() -> None:
        import asyncio
        import socket

        from sqlalchemy.util import greenlet_spawn

        async def main() -> T:
            return await greenlet_spawn(work)

        async def resolve(*args: Any, **options: Any) -> Any:
            return socket.getaddrinfo(*args, **options)

        def make_loop() -> asyncio.AbstractEventLoop:
            loop = asyncio.SelectorEventLoop()
            # The usual one asks a pool of threads, which has no more of them when the process ends.
            loop.getaddrinfo = resolve  # type: ignore[method-assign]
            return loop

        try:
            with asyncio.Runner(loop_factory=make_loop) as runner:
                outcome.append((runner.run(main()), None))
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            outcome.append((None, error))

    thread = threading.Thread(target=run, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the process ends: no thread starts any more, and no loop runs here
        run()
    else:
        thread.join()
    value, error = outcome[0]
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


def _with_session(engine: Engine, work: Callable[[Session], T], limits: Limits) -> T:
    # recreate() shares the listeners with the application's pool, and none of its connections.
    pool = engine.pool.recreate()
    pool.sqlprobe_own = True  # type: ignore[attr-defined] # see sqlprobe.pool: its connections are nobody's
    began = time.monotonic()
    try:
        try:
            fairy = pool.connect()
        except Exception as error:  # noqa: BLE001 - of a driver, or of the application's creator
            raise _refused(error, reaching=True) from None
        try:
            session = Session(engine, fairy, limits, began)
        except Refused as refused:
            if refused.reason == "not explainable":  # not our connection: leave it as it is
                fairy.detach()
                raise
            fairy.close()
            raise
        try:
            return work(session)
        finally:
            session.end()
            with contextlib.suppress(Exception):  # it is thrown away with the pool
                fairy.close()
    finally:
        with contextlib.suppress(Exception):  # a connection that is broken cannot be closed better
            pool.dispose()


class Session:
    """
    A connection of our own, for one batch of questions. Not for two threads.
    """

    def __init__(self, engine: Engine, fairy: Any, limits: Limits, began: float) -> None:
        self.engine = engine
        self.limits = limits
        self._dialect = engine.dialect
        self._connection = fairy.dbapi_connection
        self._driver = fairy.driver_connection
        self._is_asyncpg = engine.dialect.driver == "asyncpg"
        self._is_psycopg = engine.dialect.driver == "psycopg"
        self._open = False
        self._watchdog: Watchdog | contextlib.nullcontext[None] = contextlib.nullcontext()
        try:
            self._take_over(engine, began)
        except Refused:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            raise _refused(error, reaching=True) from None
        # Now it is ours for certain.
        longest = max(limits.lock_seconds, limits.statement_seconds, limits.analyze_seconds)
        self._watchdog = Watchdog(self._driver, longest + GRACE_SECONDS)

    def explain(self, sample: Sample, *, analyze: bool = False, settings: Sequence[tuple[str, str]] = ()) -> Explained:
        """
        The plan of *sample*, made with its values. *analyze* runs it, if it can do no harm; *settings* are the
        planner's, for this question only.

        Raises:
            Refused: there is no plan to be had; the connection stays usable unless the reason is "unavailable".
        """
        found = why_not(sample.text)
        if found:
            raise Refused("not explainable", found=found)
        notes: list[str] = []
        surroundings = self._begin(sample, notes, settings)
        try:
            if sample.generic:
                plan = self._generic_plan(sample, surroundings.server_version)
                notes.append("planned without values: estimates are averages, partial and JSON indexes are not seen")
            else:
                plan = self._plan("EXPLAIN (FORMAT JSON, VERBOSE, SETTINGS) ", sample)
            called = self._functions(_called(sample.text) | called_in(plan))
            run_by_planning = sorted(name for name, volatility, ours in called if ours and volatility in "is")
            if run_by_planning:
                notes.append(f"planning runs {', '.join(run_by_planning)}, with whatever they do")
            if any("Order By" in node.fields for node in plan.nodes):
                plan = replace(plan, settings={**plan.settings, **self._vector_settings()})
            secured = self._secured(plan) if sample.settings else None
            if analyze and not sample.generic:
                self._check_analyze(sample, plan, {name for name, volatility, _ in called if volatility == "v"})
                self._run(_local("statement_timeout", self.limits.analyze_seconds))
                plan = self._plan("EXPLAIN (ANALYZE, FORMAT JSON, VERBOSE, SETTINGS, BUFFERS) ", sample)
        finally:
            self._rollback()
        return Explained(plan, surroundings, tuple(notes), secured)

    def explain_each(
        self, sample: Sample, switches: Sequence[str], settings: Sequence[tuple[str, str]] = ()
    ) -> list[Plan | Refused]:
        """
        The plan of *sample* after each of *switches*, statements of ours, all in one transaction that is undone.

        For a database of our own: the transaction may write, and nothing is asked beside the plans.

        Raises:
            Refused: the connection is gone.
        """
        found: list[Plan | Refused] = []
        limits = self.limits
        given = [*settings, ("lock_timeout", _ms(limits.lock_seconds)),
                 ("statement_timeout", _ms(limits.statement_seconds))]  # fmt: skip
        configured = ", ".join(f"set_config({_quoted(name)}, {_quoted(value)}, true)" for name, value in given)
        try:
            for switch in switches:
                try:
                    if not self._open:
                        self._run("BEGIN", utility=True)
                        self._open = True
                        for statement, parameters in sample.settings:
                            self._run(statement, parameters)
                        self._run(f"SELECT {configured}")
                    self._run(switch)
                    if sample.generic:
                        found.append(self._generic_plan(sample, _GENERIC_FROM))
                    else:
                        found.append(self._plan("EXPLAIN (FORMAT JSON, VERBOSE) ", sample))
                except Refused as refused:
                    if refused.reason == "unavailable":
                        raise
                    self._rollback()  # the transaction is lost with it
                    found.append(refused)
        finally:
            if self._open:
                self._rollback()
        return found

    def read(self, *questions: str) -> list[list[tuple[Any, ...]]]:
        """
        The rows of each of *questions*, SELECTs of ours without parameters, in one transaction under the same limits.

        Raises:
            Refused: the server did not answer.
        """
        self._begin(None, [], ())
        try:
            return [self._run(question) for question in questions]
        finally:
            self._rollback()

    def end(self) -> None:
        """Leave nothing open."""
        if self._open:
            self._rollback()
        if isinstance(self._watchdog, Watchdog):
            self._watchdog.end()

    # --- one transaction ---------------------------------------------------------------------------------------------

    def _begin(self, sample: Sample | None, notes: list[str], settings: Sequence[tuple[str, str]]) -> Surroundings:
        self._start()
        if sample is not None:
            for statement, parameters in sample.settings:
                try:
                    self._run(statement, parameters)
                except Refused as refused:
                    if refused.reason == "unavailable":
                        raise
                    # The transaction is lost with it.
                    self._rollback()
                    self._start()
                    notes.append(
                        "settings not reproduced: the connection that asks may not set what the application's has"
                    )
                    break
            if sample.settings_unknown:
                notes.append("settings not reproduced: the application set some in a way that cannot be followed")
        # After what the application sets: a statement_timeout of its own must not undo these.
        limits = self.limits
        for name, value in settings:
            self._run(f"SELECT set_config({_quoted(name)}, {_quoted(value)}, true)")
        asked = time.perf_counter()
        ((*_, role, path, version, recovery, read_only, strict),) = self._run(
            f"""SELECT {_config("transaction_read_only", "on")}, {_config("lock_timeout", _ms(limits.lock_seconds))},
                {_config("statement_timeout", _ms(limits.statement_seconds))},
                {_config("idle_in_transaction_session_timeout", _ms(limits.idle_seconds))},
                {_config("application_name", "sqlprobe")},
                current_user::text, current_setting('search_path'), current_setting('server_version_num')::int,
                pg_is_in_recovery(), current_setting('transaction_read_only'),
                current_setting('standard_conforming_strings')"""
        )
        seconds = time.perf_counter() - asked
        # A second question, for a LOCAL setting outside a transaction would be gone by now.
        ((still,),) = self._run("SELECT current_setting('lock_timeout')")
        if read_only != "on" or still in {"0", ""}:
            self._rollback()
            raise Refused("unsupported", found="a connection on which no READ ONLY transaction can be opened")
        if strict != "on":
            self._rollback()
            raise Refused("unsupported", found="a server with standard_conforming_strings off")
        if version < _SERVER_FROM:
            self._rollback()
            raise Refused("unsupported", found=f"server version {version}")
        return Surroundings(str(role), str(path), int(version), bool(recovery), seconds)

    def _start(self) -> None:
        self._run("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY", utility=True)
        self._open = True

    def _rollback(self) -> None:
        self._open = False
        with contextlib.suppress(Refused):  # the connection is gone, and the transaction with it
            self._run("ROLLBACK", utility=True)

    def _plan(self, prefix: str, sample: Sample) -> Plan:
        rows = self._run(prefix + sample.text, sample.parameters)
        try:
            return plans.parse(rows[0][0])
        except (plans.PlanError, IndexError, KeyError):
            raise Refused("failed", found="an answer that is no plan") from None

    def _secured(self, plan: Plan) -> frozenset[tuple[str, str]]:
        """The relations whose policies apply to the role that the statement has set."""
        names = {(node.schema, node.relation) for node in plan.nodes if node.relation and node.schema}
        if not names:
            return frozenset()
        wanted = ", ".join(f"({_quoted(schema)}, {_quoted(name)})" for schema, name in sorted(names))
        rows = self._run(
            f"""SELECT n.nspname::text, c.relname::text
                FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                WHERE (n.nspname, c.relname) IN ({wanted}) AND pg_catalog.row_security_active(c.oid)"""  # noqa: S608 - quoted
        )
        return frozenset((str(schema), str(name)) for schema, name in rows)

    def _vector_settings(self) -> dict[str, str]:
        """pgvector's, as this statement has them: they decide how many rows an approximate scan can find."""
        asked = ", ".join(f"current_setting({_quoted(name)}, true)" for name in VECTOR_SETTINGS)
        (values,) = self._run(f"SELECT {asked}")
        return {
            name: str(value) for name, value in zip(VECTOR_SETTINGS, values, strict=True) if value not in {None, ""}
        }

    def _generic_plan(self, sample: Sample, version: int) -> Plan:
        """For a statement whose values are not known, of a saved report: no evidence, but better than nothing."""
        if version < _GENERIC_FROM:
            raise Refused("unsupported", found="a statement without its values, for which PostgreSQL 16 is needed")
        if self._is_asyncpg:
            raise Refused("unsupported", found="a statement without its values, for which psycopg is needed")
        rows = self._run(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON, VERBOSE, SETTINGS) {sample.text}", utility=True)
        try:
            return plans.parse(rows[0][0])
        except (plans.PlanError, IndexError, KeyError):
            raise Refused("failed", found="an answer that is no plan") from None

    def _check_analyze(self, sample: Sample, plan: Plan, volatile: set[str]) -> None:
        operation = shape_of(sample.text).operation
        if operation != "SELECT":
            raise Refused("not explainable", found=f"{operation or 'a statement'} with ANALYZE, which would run it")
        foreign = [node.kind for node in plan.nodes if node.kind in {"Foreign Scan", "Custom Scan"}]
        writing = [node.kind for node in plan.nodes if node.is_write or node.kind == "LockRows"]
        if writing:
            raise Refused("not explainable", found="a SELECT that writes or locks, with ANALYZE, which would run it")
        harmful = sorted(volatile - HARMLESS_FUNCTIONS)
        if harmful or foreign:
            raise Refused("volatile", found=f"calls of {', '.join(harmful) or 'a foreign server'}")
        if plan.root.total_cost > self.limits.cost:
            raise Refused("costly", found=f"a cost of {plan.root.total_cost:,.0f}, ceiling {self.limits.cost:,.0f}")

    def _functions(self, names: Iterable[str]) -> list[tuple[str, str, bool]]:
        """Name, volatility ("i", "s" or "v") and whether planning may run it, of every function of these names."""
        wanted = sorted(names)
        if not wanted:
            return []
        rows = self._run(
            f"""SELECT DISTINCT p.proname::text, p.provolatile::text,
                    l.lanname NOT IN ('internal', 'c') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
                    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::regclass
                        AND d.objid = p.oid AND d.deptype = 'e')
                FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
                    JOIN pg_catalog.pg_language l ON l.oid = p.prolang
                WHERE p.proname IN ({", ".join(map(_quoted, wanted))})"""  # noqa: S608 - quoted, of our own making
        )
        return [(str(name), str(volatility), bool(ours)) for name, volatility, ours in rows]

    # --- the driver --------------------------------------------------------------------------------------------------

    def _take_over(self, engine: Engine, began: float) -> None:
        """Bring the new connection to where explicit transactions work, if it is a new one."""
        pool = engine.pool
        shared = pool.__dict__.get("connection") if isinstance(pool, StaticPool) else None
        if shared is not None and shared.dbapi_connection is self._connection:
            raise Refused("not explainable", found="a pool whose creator hands out one connection again and again")
        if self._in_transaction():
            ((age,),) = self._run(
                "SELECT extract(epoch FROM clock_timestamp() - backend_start)::float FROM pg_stat_activity"
                " WHERE pid = pg_backend_pid()"
            )
            if age is None or age > time.monotonic() - began + _FRESH_SECONDS:
                raise Refused("not explainable", found="a creator that hands out a connection which is in use")
            self._connection.commit()  # what connect listeners have set: the application's first commit does the same
        if not self._is_asyncpg:
            self._dialect.set_isolation_level(self._connection, "AUTOCOMMIT")
            if self._is_psycopg and hasattr(self._driver, "prepare_threshold"):
                self._driver.prepare_threshold = None

    def _in_transaction(self) -> bool:
        if self._is_asyncpg:
            return bool(self._driver.is_in_transaction())
        info = getattr(self._driver, "info", None)
        status = getattr(info, "transaction_status", None)  # psycopg and psycopg2; pg8000 sets no session up by itself
        return status is not None and int(status) != 0

    def _run(self, statement: str, parameters: Any = None, *, utility: bool = False) -> list[tuple[Any, ...]]:
        try:
            with self._watchdog:
                if self._is_asyncpg:
                    return self._run_asyncpg(statement, parameters, utility=utility)
                if self._is_psycopg and self._dialect.is_async:
                    return self._run_async_psycopg(statement, parameters, utility=utility)
                return self._run_cursor(statement, parameters, utility=utility)
        except Exception as error:  # noqa: BLE001 - of whichever driver
            raise _refused(error) from None

    def _run_asyncpg(self, statement: str, parameters: Any, *, utility: bool) -> list[tuple[Any, ...]]:
        from sqlalchemy.util import await_only

        if utility:
            await_only(self._driver.execute(statement))
            return []
        # Without a name the server keeps no prepared statement: behind pgbouncer it would outlive us.
        prepared = await_only(self._driver.prepare(statement, name=""))
        rows = await_only(prepared.fetch(*(parameters or ())))
        return [tuple(row) for row in rows]

    def _run_async_psycopg(self, statement: str, parameters: Any, *, utility: bool) -> list[tuple[Any, ...]]:
        from sqlalchemy.util import await_only

        cursor = await_only(self._driver.execute(statement, parameters, binary=not utility))
        return [] if cursor.description is None else [tuple(row) for row in await_only(cursor.fetchall())]

    def _run_cursor(self, statement: str, parameters: Any, *, utility: bool) -> list[tuple[Any, ...]]:
        cursor = self._connection.cursor()
        try:
            if self._is_psycopg and not utility:
                # "binary" makes psycopg use the protocol that takes one statement only.
                cursor.execute(statement, parameters, binary=True)
            elif parameters is None:
                self._dialect.do_execute_no_params(cursor, statement)
            else:
                self._dialect.do_execute(cursor, statement, parameters)
            return [] if cursor.description is None else [tuple(row) for row in cursor.fetchall()]
        finally:
            cursor.close()


def _refused(error: BaseException, *, reaching: bool = False) -> Refused:
    """*error* of the driver as one of ours; its text stays behind."""
    names = [error_name(each) for each in (error, *_causes(error))]
    state = next((name for name in names if _is_state(name)), names[0])
    reason = _REASONS.get(state)
    if reason is None:
        # A driver that has no code from the server has lost it.
        ours = isinstance(error, TypeError | ValueError | LookupError | AttributeError)  # a value that cannot be sent
        lost = reaching or state[:2] in _CONNECTION_CLASSES or not (ours or _is_state(state))
        reason = "unavailable" if lost else "failed"
    return Refused(reason, sqlstate=state)


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    inner = getattr(error, "orig", None) or error.__cause__ or error.__context__
    while inner is not None and len(found) < 5:  # noqa: PLR2004 - wrapped by SQLAlchemy and by its adapter
        found.append(inner)
        inner = getattr(inner, "orig", None) or inner.__cause__ or inner.__context__
    return found


def _ms(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"


def _config(name: str, value: str) -> str:
    return f"set_config({_quoted(name)}, {_quoted(value)}, true)"


def _local(name: str, seconds: float) -> str:
    return f"SELECT {_config(name, _ms(seconds))}"


def _quoted(text: str) -> str:
    """*text* as a constant; standard_conforming_strings is on, or nothing is asked."""
    return "'" + text.replace("\x00", "").replace("'", "''") + "'"


# --- what a statement is ----------------------------------------------------------------------------------------------

_LEXEME: Final = re.compile(
    r"""(?P<blank>\s++|--[^\n]*+)
      | (?P<comment>/\*)
      | (?P<string>[eE]'(?:[^'\\]|\\.|'')*+'|'(?:[^']|'')*+'|"(?:[^"]|"")*+")
      | (?P<dollar>\$(?:[^\W\d]\w*+)?\$)
      | (?P<semicolon>;)
      | (?P<open>\()
      | (?P<word>[^\W\d][\w$]*+)
      | (?P<broken>['"])
      | (?P<other>\$?\d[\w.]*+|.)""",
    re.VERBOSE | re.DOTALL,
)


def why_not(statement: str) -> str:
    """Why EXPLAIN must not be sent with *statement*, "" if it may: it is one statement, and one that has a plan."""
    if len(statement) > MAX_STATEMENT:
        return f"a statement of {len(statement):,} characters"
    verb = ""
    ended = False
    at = 0
    while at < len(statement):
        match = _LEXEME.match(statement, at)
        if match is None:
            return "a text that cannot be read"
        kind, at = match.lastgroup, match.end()
        if kind == "blank":
            continue
        if kind == "comment":
            at = _end_of_comment(statement, at)
            if at < 0:
                return "a comment without an end"
            continue
        if kind == "broken":
            return "a quotation mark without its other half"
        if ended:
            return "several statements in one text"
        if kind == "dollar":
            end = statement.find(match[0], at)
            if end < 0:
                return "a quotation mark without its other half"
            at = end + len(match[0])
        if kind == "semicolon":
            ended = True
        elif not verb and kind != "open":
            verb = match[0].upper()
    if verb not in _EXPLAINABLE:
        return f"{verb if verb.isalpha() else 'something else'}, which has no plan" if verb else "no statement"
    return ""


def split(script: str) -> list[str]:
    """The statements of *script*, without the semicolons between them; empty ones are left out."""
    found = []
    start = at = 0
    filled = False
    while at < len(script):
        match = _LEXEME.match(script, at)
        if match is None:
            break
        kind, at = match.lastgroup, match.end()
        if kind == "comment":
            at = max(_end_of_comment(script, at), at)
        elif kind == "dollar":
            end = script.find(match[0], at)
            at = len(script) if end < 0 else end + len(match[0])
            filled = True
        elif kind == "semicolon":
            if filled:
                found.append(script[start : match.start()].strip())
            start, filled = at, False
        elif kind != "blank":
            filled = True
    if filled:
        found.append(script[start:].strip())
    return found


def _end_of_comment(text: str, at: int) -> int:
    """Where the comment that has been opened before *at* ends, -1 if it does not. Comments nest."""
    depth = 1
    while depth:
        close = text.find("*/", at)
        if close < 0:
            return -1
        opened = text.find("/*", at, close)
        depth, at = (depth + 1, opened + 2) if opened >= 0 else (depth - 1, close + 2)
    return at


_CALL: Final = re.compile(r'([^\W\d][\w$]*|"(?:[^"]|"")+")\s*\(')
_NO_FUNCTIONS: Final = frozenset(
    [
        "and",
        "any",
        "all",
        "array",
        "as",
        "between",
        "by",
        "case",
        "cast",
        "coalesce",
        "exists",
        "extract",
        "filter",
        "from",
        "grouping",
        "having",
        "in",
        "insert",
        "into",
        "interval",
        "is",
        "join",
        "lateral",
        "limit",
        "not",
        "nullif",
        "on",
        "or",
        "over",
        "partition",
        "returning",
        "row",
        "select",
        "set",
        "sets",
        "some",
        "then",
        "union",
        "using",
        "values",
        "when",
        "where",
        "with",
        "within",
    ]
)
MAX_NAMES: Final = 200  # functions of one statement that are looked up


def _called(text: str) -> frozenset[str]:
    """What may be the names of functions in *text*."""
    names = {match[1].strip('"') if match[1][0] == '"' else match[1].lower() for match in _CALL.finditer(text)}
    return frozenset(sorted(names - _NO_FUNCTIONS)[:MAX_NAMES])


def called_in(plan: Plan) -> frozenset[str]:
    """The functions that the conditions and outputs of *plan* call, those of views and policies among them."""
    names: set[str] = set()
    for node in plan.nodes:
        for value in node.fields.values():
            for text in value if isinstance(value, list) else (value,):
                if isinstance(text, str) and "(" in text:
                    found = conditions.tokens(text)
                    names.update(
                        token.text.strip('"')
                        for token, after in itertools.pairwise(found)
                        if token.kind == "word" and after.text == "("
                    )
    return frozenset(sorted(names - _NO_FUNCTIONS)[:MAX_NAMES])
