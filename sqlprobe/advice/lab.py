"""
The lab: a throwaway PostgreSQL with the definitions, statistics and sizes of another database, and none of its rows.

The planner takes a table's size from its file and everything else from the catalogs. So the tables are made empty,
their statistics are put back with `pg_restore_relation_stats()` and `pg_restore_attribute_stats()` (PostgreSQL 18), and
their files are extended with holes that take no disk. What is planned here is planned as there; what is run finds
nothing. Candidates are created while a table's file is cut to nothing, and switched on and off in `pg_index`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from sqlprobe.advice import server as servers
from sqlprobe.advice.candidates import quoted
from sqlprobe.model import SqlprobeError
from sqlprobe.plans import explain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlalchemy import Engine

    from sqlprobe.advice.candidates import Candidate
    from sqlprobe.advice.server import Server
    from sqlprobe.advice.snapshot import Column, IndexFile, Snapshot, Statistic, Table
    from sqlprobe.plans.plan import Plan
    from sqlprobe.plans.sampling import Sample

T = TypeVar("T")

PAGE: Final = 8192
SEGMENT_PAGES: Final = 131_072  # of one file: 1 GB
FILL: Final = 0.9  # of a B-tree's page
DATABASE: Final = "lab"
LIMITS: Final = explain.Limits(lock_seconds=5.0, statement_seconds=10.0, idle_seconds=60.0)


class LabError(SqlprobeError):
    """A lab that cannot be had; the message says what was found and what to do."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What the planner makes of a statement where only some candidates exist; None where it refused."""

    plan: Plan | None
    used: frozenset[str]  # names of candidates
    refused: str = ""

    @property
    def cost(self) -> float:
        return self.plan.root.total_cost if self.plan is not None else math.inf


class Lab:
    """
    A database that plans as another one does. Not for two threads.

    `notes` say what of the snapshot could not be made; a statement that needs it is refused.
    """

    def __init__(self, server: Server, snapshot: Snapshot, driver: str, *, is_async: bool = False) -> None:
        self.snapshot = snapshot
        self.notes: list[str] = []
        self.server_version = 0
        self._server = server
        self._driver = driver
        self._is_async = is_async
        self._made: dict[str, str] = {}  # target -> name of the index, "" where it cannot be made
        self._pages: dict[str, int] = {}
        self._tables = {table.label: table for table in snapshot.tables}
        self._columns: dict[int, list[Column]] = {}
        for column in snapshot.columns:
            self._columns.setdefault(column.table, []).append(column)
        self._statistics = {(s.schema, s.relation, s.column): s for s in snapshot.statistics}

    @property
    def method(self) -> str:
        """How what it finds has been verified: `lab, PostgreSQL 18.6, statistics of 18.6 as of 2026-11-22`."""
        mine = f"{self.server_version // 10_000}.{self.server_version % 10_000}"
        return f"lab, PostgreSQL {mine}, statistics of PostgreSQL {self.snapshot.version} as of {self.snapshot.date}"

    # --- making it ---------------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Make everything that the snapshot holds."""
        snapshot = self.snapshot
        locale = "builtin" if snapshot.is_c_collation else "libc"

        def make_database(run: _Run) -> None:
            run(f"CREATE DATABASE {DATABASE} TEMPLATE template0 LOCALE_PROVIDER {locale} LOCALE 'C.UTF-8'"
                + (" BUILTIN_LOCALE 'C.UTF-8'" if locale == "builtin" else ""))  # fmt: skip
            known = {str(name) for (name,) in run("SELECT rolname::text FROM pg_roles")}
            for role in snapshot.roles:
                if role.name not in known:
                    run(
                        f"CREATE ROLE {quoted(role.name)} {'' if role.superuser else 'NO'}SUPERUSER "
                        f"{'' if role.bypasses else 'NO'}BYPASSRLS {'' if role.inherits else 'NO'}INHERIT"
                    )
            for role in snapshot.roles:
                for group in role.member_of:
                    with contextlib.suppress(Exception):  # of a predefined role that this version lacks
                        run(f"GRANT {quoted(group)} TO {quoted(role.name)}")
            ((version,),) = run("SELECT current_setting('server_version_num')::int")
            self.server_version = int(version)

        self._control(make_database, "postgres")
        self._control(self._define)
        self._control(self._measure)

    def _define(self, run: _Run) -> None:
        """Types, tables, indexes, views and policies, in as many rounds as it takes until no more can be made."""
        snapshot = self.snapshot
        run("SET check_function_bodies = off")
        waiting: list[str] = [f"CREATE SCHEMA IF NOT EXISTS {quoted(name)}" for name in snapshot.schemas]
        waiting += [
            f"CREATE EXTENSION IF NOT EXISTS {quoted(name)} SCHEMA {quoted(schema)} CASCADE"
            for name, (schema, _) in snapshot.extensions.items()
        ]
        waiting += snapshot.preliminaries
        names = {table.oid: f"{quoted(table.schema)}.{quoted(table.name)}" for table in snapshot.tables}
        waiting += [each for table in snapshot.tables for each in self._table_ddl(table, names)]
        indexes = {index.oid: index for index in snapshot.indexes}
        for index in snapshot.indexes:
            if index.valid and index.table in names:
                waiting += _index_ddl(index, names, indexes)
        waiting += [f"ALTER TABLE {names[oid]} {text}" for oid, text in snapshot.constraints if oid in names]
        for policy in snapshot.policies:
            if policy.table not in names:
                continue
            roles = ", ".join("PUBLIC" if role == "public" else quoted(role) for role in policy.roles)
            waiting.append(
                f"CREATE POLICY {quoted(policy.name)} ON {names[policy.table]} "
                f"AS {'PERMISSIVE' if policy.permissive else 'RESTRICTIVE'} FOR {policy.command} TO {roles}"
                + (f" USING ({policy.condition})" if policy.condition else "")
                + (f" WITH CHECK ({policy.check})" if policy.check else "")
            )
        waiting += [each.definition for each in snapshot.extended]
        left = _in_rounds(run, waiting)
        for table in snapshot.tables:
            with contextlib.suppress(Exception):
                kind = "VIEW" if table.kind == "v" else "TABLE"
                run(f"ALTER {kind} {names[table.oid]} OWNER TO {quoted(table.owner)}")
        for name in snapshot.schemas:
            with contextlib.suppress(Exception):
                run(f"GRANT USAGE ON SCHEMA {quoted(name)} TO PUBLIC")
                run(f"GRANT ALL ON ALL TABLES IN SCHEMA {quoted(name)} TO PUBLIC")
        if left:
            kinds = sorted({" ".join(statement.split()[:2]).lower() for statement in left})
            self.notes.append(f"{len(left)} definitions could not be made in the lab: {', '.join(kinds)}")

    def _table_ddl(self, table: Table, names: dict[int, str]) -> Iterator[str]:
        name = names[table.oid]
        if table.kind == "v":
            yield f"CREATE VIEW {name} AS {table.definition}"
            return
        parents = [names[parent] for parent in table.parents if parent in names]
        unlogged = "UNLOGGED " if table.persistence == "u" else ""
        if table.bound and parents:
            yield f"CREATE {unlogged}TABLE {name} PARTITION OF {parents[0]} {table.bound}" + (
                f" PARTITION BY {table.partition_key}" if table.partition_key else ""
            )
        else:
            columns = [_column_ddl(column) for column in self._columns.get(table.oid, ()) if not column.inherited]
            yield (
                f"CREATE {unlogged}TABLE {name} ({', '.join(columns)})"
                + (f" INHERITS ({', '.join(parents)})" if parents else "")
                + (f" PARTITION BY {table.partition_key}" if table.partition_key else "")
            )
        if table.row_security:
            yield f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY"
        if table.forced:
            yield f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY"

    def _measure(self, run: _Run) -> None:
        """Put sizes and statistics back."""
        snapshot = self.snapshot
        failed = 0
        for table in snapshot.tables:
            if table.kind in {"r", "m", "p"} and table.known_rows >= 0:
                failed += not _try(run, _relation_stats(table, table.known_pages, table.visible_pages))
        for index in snapshot.indexes:
            if index.valid and index.known_rows >= 0 and index.known_pages:
                failed += not _try(run, _relation_stats(index, index.known_pages, 0))
        numbers = {
            (str(schema), str(relation), str(column)): int(number)
            for schema, relation, column, number in run(
                """SELECT n.nspname::text, c.relname::text, a.attname::text, a.attnum::int FROM pg_attribute a
                JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE c.relkind IN ('i', 'I') AND a.attnum > 0"""
            )
        }
        for statistic in snapshot.statistics:
            number = numbers.get((statistic.schema, statistic.relation, statistic.column))
            failed += not _try(run, _attribute_stats(statistic, statistic.relation, number))
        if failed:
            self.notes.append(f"statistics of {failed} relations or columns could not be put back")
        run("CHECKPOINT")
        paths = self._paths(run)
        for table in snapshot.tables:
            if table.kind in {"r", "m"} and table.label in paths:
                self._extend(paths[table.label], table.pages)
        for index in snapshot.indexes:
            if index.valid and (index.schema, index.name) in paths:
                self._extend(paths[index.schema, index.name], index.pages)

    def _paths(self, run: _Run) -> dict[tuple[str, str], str]:
        return {
            (str(schema), str(name)): str(path)
            for schema, name, path in run(
                """SELECT n.nspname::text, c.relname::text, pg_relation_filepath(c.oid)::text FROM pg_class c
                JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm', 'i')
                AND n.nspname NOT IN ('pg_catalog', 'information_schema')"""
            )
            if path
        }

    def _extend(self, path: str, pages: int) -> None:
        """Make the relation *pages* long, with holes; never shorter than it is."""
        first = self._server.data / path
        segment = 0
        while pages > 0 or segment == 0:
            file = first if not segment else first.with_name(f"{first.name}.{segment}")
            length = min(pages, SEGMENT_PAGES) * PAGE
            if not file.exists():
                file.touch(mode=0o600)
                owner = first.stat()
                if os.geteuid() == 0:
                    os.chown(file, owner.st_uid, owner.st_gid)
            if file.stat().st_size < length:
                os.truncate(file, length)
            pages -= SEGMENT_PAGES
            segment += 1

    def _cut(self, path: str) -> None:
        """Make the relation empty, so that an index on it is made at once."""
        first = self._server.data / path
        for file in first.parent.glob(f"{first.name}.*"):
            if file.suffix[1:].isdecimal():
                file.unlink()
        os.truncate(first, 0)

    # --- using it ----------------------------------------------------------------------------------------------------

    def add(self, candidates: Iterable[Candidate], sampled: dict[str, Statistic] | None = None) -> None:
        """
        Create those that are not there yet, switched off. *sampled* are statistics of their expressions, by text.

        One that PostgreSQL refuses (an expression that is not immutable, a type without the operator class) is left
        out: `is_possible()` tells.
        """
        new = [each for each in dict.fromkeys(candidates) if each.target not in self._made]
        if not new:
            return
        tables = {(each.schema, each.table) for each in new if (each.schema, each.table) in self._tables}

        def make(run: _Run) -> None:
            paths = self._paths(run)
            for label in tables & paths.keys():
                self._cut(paths[label])
            for each in new:
                name = f"sqlprobe_candidate_{len(self._made)}"
                done = (each.schema, each.table) in tables and _try(run, each.ddl(name, concurrently=False))
                self._made[each.target] = name if done else ""

        # On a connection of its own: one that has seen the files longer remembers how many segments they have.
        self._control(make)
        self._control(lambda run: self._size(run, new, sampled or {}))

    def is_possible(self, candidate: Candidate) -> bool:
        return bool(self._made.get(candidate.target))

    def name_of(self, candidate: Candidate) -> str:
        """Its name in the lab, "" where it could not be made."""
        return self._made.get(candidate.target, "")

    def pages_of(self, candidate: Candidate) -> int:
        """Estimated, of 8 kB."""
        return self._pages.get(candidate.target, 0)

    def _size(self, run: _Run, new: Sequence[Candidate], sampled: dict[str, Statistic]) -> None:
        paths = self._paths(run)
        for label in {(each.schema, each.table) for each in new} & paths.keys():
            self._extend(paths[label], self._tables[label].pages)
        for each in new:
            name = self._made[each.target]
            if not name:
                continue
            table = self._tables[each.schema, each.table]
            pages, rows = self._estimate(table, each, sampled)
            self._pages[each.target] = pages
            run(
                f"SELECT pg_restore_relation_stats('schemaname', {_text(each.schema)}, 'relname', {_text(name)}, "
                f"'relpages', {pages}::int, 'reltuples', {rows}::real, 'relallvisible', 0)"
            )
            for number, key in enumerate(each.keys, 1):
                if key.is_expression and key.expression in sampled:
                    _try(run, _attribute_stats(sampled[key.expression], name, number, each.schema))
            self._extend(paths[each.schema, name], pages)
        made = ", ".join(_text(name) for name in self._made.values() if name)
        if made:
            run(
                "UPDATE pg_index SET indisvalid = false FROM pg_class c "  # noqa: S608 - names of our own
                f"WHERE c.oid = indexrelid AND c.relname IN ({made})"
            )

    def _estimate(self, table: Table, candidate: Candidate, sampled: dict[str, Statistic]) -> tuple[int, float]:
        """Pages and rows of an index that is not there: from the widths and numbers of different values."""
        rows = _rows(table)
        width, distinct = 0.0, 1.0
        for key in candidate.keys:
            known = (
                self._statistics.get((table.schema, table.name, key.column))
                if key.column
                else sampled.get(key.expression)
            )
            width += _aligned(known.avg_width if known is not None else 16)
            share = known.n_distinct if known is not None else -1.0
            distinct *= max(1.0, -share * rows if share < 0 else share)
        distinct = min(distinct, max(rows, 1.0))
        if candidate.method == "hnsw":
            width = next(iter(self._dimensions(table, candidate)), 0) * 4 + 72 + 8 + 4 + 2 * 16 * 6
            per_page = max(1, int((PAGE - 50) // (width + 4)))
            return max(2, math.ceil(rows / per_page)), rows
        if candidate.method == "gin":
            return max(2, math.ceil(rows * max(8.0, width) / (PAGE * FILL))), rows
        entries = min(rows, distinct)
        # Equal keys share an entry with a list of 6 bytes a row, of at most 812 bytes.
        plain = rows * (width + 8 + 4)
        shared = entries * (width + 8 + 4) + rows * 6 + rows / 130 * (width + 12)
        return max(2, math.ceil(min(plain, shared) / ((PAGE - 40) * FILL)) + 1), rows

    def _dimensions(self, table: Table, candidate: Candidate) -> Iterator[int]:
        for column in self._columns.get(table.oid, ()):
            if column.name == candidate.keys[0].column and "(" in column.type:
                yield int(column.type.partition("(")[2].rstrip(")"))

    def try_out(
        self,
        sample: Sample,
        sets: Sequence[Iterable[Candidate]],
        settings: Sequence[tuple[str, str]] = (),
    ) -> list[Trial]:
        """What the planner makes of *sample* with each of *sets* of candidates; none is the database as it is."""
        return self.try_all([(sample, sets, settings)])[0]

    def try_all(
        self, questions: Sequence[tuple[Sample, Sequence[Iterable[Candidate]], Sequence[tuple[str, str]]]]
    ) -> list[list[Trial]]:
        """As `try_out()`, for many statements on one connection."""

        def work(session: explain.Session) -> list[list[Trial]]:
            with self._driver_connection(DATABASE) as run:
                found = [
                    [self._trial(session, run, sample, each, settings) for each in sets]
                    for sample, sets, settings in questions
                ]
                self._switch(run, frozenset())
            return found

        try:
            return explain.on_connection(self._engine(DATABASE), work, LIMITS)
        except explain.Refused as refused:
            raise LabError(f"a plan in the lab was asked for, found: {refused.reason}; report this, please") from None

    def _trial(
        self,
        session: explain.Session,
        run: _Run,
        sample: Sample,
        candidates: Iterable[Candidate],
        settings: Sequence[tuple[str, str]],
    ) -> Trial:
        names = frozenset(filter(None, map(self.name_of, candidates)))
        self._switch(run, names)
        try:
            plan = session.explain(sample, settings=settings).plan
        except explain.Refused as refused:
            if refused.reason == "unavailable":
                raise
            return Trial(None, frozenset(), refused.reason)
        return Trial(plan, frozenset(node.index for node in plan.nodes if node.index in names))

    def _switch(self, run: _Run, names: frozenset[str]) -> None:
        every = [name for name in self._made.values() if name]
        if not every:
            return
        on = ", ".join(map(_text, names)) or "NULL"
        run(
            f"UPDATE pg_index SET indisvalid = (c.relname IN ({on})) IS TRUE "  # noqa: S608 - names of our own
            f"FROM pg_class c WHERE c.oid = indexrelid "
            f"AND c.relname IN ({', '.join(map(_text, every))}) AND indisvalid <> ((c.relname IN ({on})) IS TRUE)"
        )

    # --- connections -------------------------------------------------------------------------------------------------

    def _engine(self, database: str) -> Engine:
        url = self._server.url_for(self._driver, database)
        if self._is_async:
            from sqlalchemy.ext.asyncio import create_async_engine

            return create_async_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT").sync_engine
        return create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")

    @contextlib.contextmanager
    def _driver_connection(self, database: str) -> Iterator[_Run]:
        """By the driver's cursor: no event of SQLAlchemy fires, and nothing of it is counted."""
        connection = self._engine(database).raw_connection()
        try:

            def run(statement: str) -> list[tuple[Any, ...]]:
                cursor = connection.cursor()
                try:
                    cursor.execute(statement)
                    return [] if cursor.description is None else [tuple(row) for row in cursor.fetchall()]
                finally:
                    cursor.close()

            yield run
        finally:
            connection.close()

    def _control(self, work: Callable[[_Run], T], database: str = DATABASE) -> T:
        def inside() -> T:
            with self._driver_connection(database) as run:
                return work(run)

        if not self._is_async:
            return inside()
        return _in_thread(inside)


_Run = Any  # Callable[[str], list[tuple]]: what a statement returns


@contextlib.contextmanager
def open_lab(snapshot: Snapshot, driver: str = "psycopg", *, is_async: bool = False) -> Iterator[Lab]:
    """
    A lab for the block, on a server of its own that ends with it, however this process ends.

    *driver* is the application's (psycopg, asyncpg, psycopg2, pg8000): its parameters are written for it.

    Raises:
        LabError: PostgreSQL is not installed, or does not start.
    """
    try:
        with servers.serve(settings={"shared_buffers": "32MB", "max_connections": "20"}) as server:
            lab = Lab(server, snapshot, driver, is_async=is_async)
            lab.build()
            yield lab
    except servers.ServerError as error:
        raise LabError(str(error)) from None


def _in_thread(work: Callable[[], T]) -> T:
    """What *work* returns, where an async driver may wait."""
    from sqlalchemy.util import greenlet_spawn

    outcome: list[tuple[T | None, BaseException | None]] = []

    def run() -> None:
        async def main() -> T:
            return await greenlet_spawn(work)

        try:
            outcome.append((asyncio.run(main()), None))
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            outcome.append((None, error))

    thread = threading.Thread(target=run, name="sqlprobe-lab", daemon=True)
    thread.start()
    thread.join()
    value, error = outcome[0]
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


def _in_rounds(run: _Run, waiting: list[str]) -> list[str]:
    """Run all of *waiting*, those that failed again once others have been made. Those that never could."""
    while waiting:
        left = [statement for statement in waiting if not _try(run, statement)]
        if len(left) == len(waiting):
            return left
        waiting = left
    return []


def _try(run: _Run, statement: str) -> bool:
    try:
        run(statement)
    except Exception:  # noqa: BLE001 - of whichever driver; what is missing is told by those that need it
        return False
    return True


def _column_ddl(column: Column) -> str:
    words = [quoted(column.name), column.type]
    if column.collation:
        words.append(f"COLLATE {column.collation}")
    if column.generated:
        words.append(
            f"GENERATED ALWAYS AS ({column.generated}) {'VIRTUAL' if column.generated_kind == 'v' else 'STORED'}"
        )
    if column.not_null:
        words.append("NOT NULL")
    return " ".join(words)


def _index_ddl(index: IndexFile, names: dict[int, str], indexes: dict[int, IndexFile]) -> Iterator[str]:
    if index.constraint:
        # ONLY: a partition's own constraint has its own name, and is attached to this one.
        text = f"ADD CONSTRAINT {quoted(index.constraint)} {index.constraint_definition}"
        yield f"ALTER TABLE ONLY {names[index.table]} {text}"
    else:
        yield index.definition
    parent = indexes.get(index.parent)
    if parent is not None:
        mine, above = (f"{quoted(each.schema)}.{quoted(each.name)}" for each in (index, parent))
        yield f"ALTER INDEX {above} ATTACH PARTITION {mine}"


def _text(value: str) -> str:
    return "'" + value.replace("\x00", "").replace("'", "''") + "'"


def _relation_stats(relation: Table | IndexFile, pages: int, visible: int) -> str:
    return (
        f"SELECT pg_restore_relation_stats('schemaname', {_text(relation.schema)}, 'relname', {_text(relation.name)}, "
        f"'relpages', {pages}::int, 'reltuples', {relation.known_rows}::real, 'relallvisible', {visible}::int)"
    )


_KINDS: Final = {
    "null_frac": "real",
    "avg_width": "integer",
    "n_distinct": "real",
    "most_common_vals": "text",
    "most_common_freqs": "real[]",
    "histogram_bounds": "text",
    "correlation": "real",
    "most_common_elems": "text",
    "most_common_elem_freqs": "real[]",
    "elem_count_histogram": "real[]",
    "range_length_histogram": "text",
    "range_empty_frac": "real",
    "range_bounds_histogram": "text",
}


def _attribute_stats(statistic: Statistic, relation: str, number: int | None = None, schema: str = "") -> str:
    words = [f"'schemaname', {_text(schema or statistic.schema)}", f"'relname', {_text(relation)}"]
    words.append(f"'attnum', {number}::smallint" if number is not None else f"'attname', {_text(statistic.column)}")
    words.append(f"'inherited', {statistic.inherited}")
    for name, kind in _KINDS.items():
        value = getattr(statistic, name)
        if value is not None:
            words.append(f"'{name}', {_text(str(value))}::{kind}")
    return f"SELECT pg_restore_attribute_stats({', '.join(words)})"


def _rows(table: Table) -> float:
    """As the planner counts: the density that ANALYZE has seen, times the present size."""
    if table.known_rows < 0:
        return 0.0
    return table.known_rows * table.pages / table.known_pages if table.known_pages else table.known_rows


def _aligned(width: float) -> float:
    return math.ceil(width / 8) * 8
