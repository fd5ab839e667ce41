"""
Snapshots: what the planner knows of a database, and no row of it. Read through the catalogs, kept as a JSON file.

A snapshot holds definitions (tables, indexes, constraints, views, functions, policies, roles), sizes, the planner's
settings and its statistics. **Statistics contain values**: the most common ones of each column and the bounds of its
histogram. `drop_values` keeps their counts and loses the values; `leave_out` loses the column's statistics whole.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import gzip
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlprobe.advice import ends
from sqlprobe.model import SqlprobeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlprobe.plans.explain import Session

FORMAT: Final = "sqlprobe-snapshot/1"
MAX_ROLES: Final = 1_000  # more are people, and no policy names them one by one
WHOLE_VALUES: Final = frozenset(
    {"vector", "halfvec", "sparsevec", "bit"}
)  # their statistics are never of use, and large


class SnapshotError(SqlprobeError, ValueError):
    """A snapshot that cannot be read or written; the message says what was found and what to do."""


@dataclass(frozen=True, slots=True)
class Table:
    """
    A table, partition, partitioned table, view or materialised view, by `kind` as in pg_class.

    `pages` is the present size in pages of 8 kB, `known_pages` and `known_rows` what ANALYZE has seen (-1: nothing).
    `definition` is a view's query; `partition_of` the parents, `bound` a partition's, `partition_key` a root's.
    """

    oid: int
    schema: str
    name: str
    kind: str
    persistence: str
    owner: str
    known_rows: float
    known_pages: int
    visible_pages: int
    pages: int
    row_security: bool
    forced: bool
    partition_key: str
    bound: str
    parents: tuple[int, ...]
    options: str
    definition: str
    # Rows inserted, or updated in a way that indexes have to follow, as if the counters were a day old at least: they
    # outlive restarts, and a table that has just been filled is not one that is written to all the time.
    writes_per_second: float = 0.0

    @property
    def label(self) -> tuple[str, str]:
        return self.schema, self.name


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. `generated` is the expression, of the kind "s" (stored) or "v" (virtual)."""

    table: int
    number: int
    name: str
    type: str
    not_null: bool
    collation: str
    generated_kind: str
    generated: str
    inherited: bool


@dataclass(frozen=True, slots=True)
class IndexFile:
    """An index: `definition` as PostgreSQL prints it, sizes as in `Table`; `constraint` is the one that it enforces."""

    oid: int
    table: int
    schema: str
    name: str
    method: str
    definition: str
    constraint: str
    constraint_definition: str
    valid: bool
    clustered: bool
    known_rows: float
    known_pages: int
    pages: int
    parent: int


@dataclass(frozen=True, slots=True)
class Statistic:
    """
    What ANALYZE has seen of a column, or of an index's expression. Names are those of `pg_stats`; values are texts.
    """

    schema: str
    relation: str
    column: str
    inherited: bool
    null_frac: float
    avg_width: int
    n_distinct: float
    most_common_vals: str | None = field(default=None, repr=False)
    most_common_freqs: str | None = None
    histogram_bounds: str | None = field(default=None, repr=False)
    correlation: float | None = None
    most_common_elems: str | None = field(default=None, repr=False)
    most_common_elem_freqs: str | None = None
    elem_count_histogram: str | None = None
    range_length_histogram: str | None = field(default=None, repr=False)
    range_empty_frac: float | None = None
    range_bounds_histogram: str | None = field(default=None, repr=False)

    def without_values(self) -> Statistic:
        """The same, of which no value of a row can be read."""
        return dataclasses.replace(
            self,
            most_common_vals=None,
            most_common_freqs=None,
            histogram_bounds=None,
            most_common_elems=None,
            most_common_elem_freqs=None,
            range_length_histogram=None,
            range_bounds_histogram=None,
        )


@dataclass(frozen=True, slots=True)
class Extended:
    """CREATE STATISTICS: its definition, and its counts as texts ("" where there are none)."""

    table: int
    schema: str
    name: str
    definition: str
    ndistinct: str
    dependencies: str


@dataclass(frozen=True, slots=True)
class Policy:
    """A row security policy; `roles` are names, "public" for all."""

    table: int
    name: str
    permissive: bool
    command: str
    roles: tuple[str, ...]
    condition: str = field(repr=False)
    check: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Role:
    """A role, without password or login."""

    name: str
    superuser: bool
    bypasses: bool
    inherits: bool
    member_of: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    A database as the planner sees it. `taken` is a Unix time, `server_version` as in 150018 (15.18).

    `preliminaries` are DDL statements (types, functions) in no order that would always do; `constraints` pairs of a
    table's oid and what stands behind ALTER TABLE; `notes` are sentences about what could not be read.
    """

    taken: float
    server_version: int
    database: str
    role: str
    search_path: str
    is_c_collation: bool
    system: str = ""  # of the server: what tells it and its replicas from others
    settings: Mapping[str, str] = field(default_factory=dict)
    extensions: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # name -> schema, version
    schemas: tuple[str, ...] = ()
    roles: tuple[Role, ...] = ()
    preliminaries: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    columns: tuple[Column, ...] = ()
    indexes: tuple[IndexFile, ...] = ()
    constraints: tuple[tuple[int, str], ...] = ()
    policies: tuple[Policy, ...] = ()
    statistics: tuple[Statistic, ...] = ()
    extended: tuple[Extended, ...] = ()
    notes: tuple[str, ...] = ()

    def is_parent(self, oid: int) -> bool:
        """Whether other tables are its partitions."""
        return any(table.oid == oid and table.kind == "p" for table in self.tables)

    def table(self, schema: str, name: str) -> Table | None:
        return next((table for table in self.tables if table.label == (schema, name)), None)

    @property
    def version(self) -> str:
        """`18.6`."""
        return f"{self.server_version // 10_000}.{self.server_version % 10_000}"

    @property
    def date(self) -> str:
        """When it was taken, as 2026-11-22."""
        return time.strftime("%Y-%m-%d", time.gmtime(self.taken))

    def private(self, drop_values: Iterable[str] = (), leave_out: Iterable[str] = ()) -> Snapshot:
        """
        A copy without the values (*drop_values*) or the statistics (*leave_out*) of columns, each given as
        `table.column` or `schema.table.column`, with `*` for any part of a name.

        Raises:
            SnapshotError: a pattern fits no column.
        """
        dropped, left = list(drop_values), list(leave_out)
        names = {(table.schema, table.name) for table in self.tables}
        owners = {(each.schema, each.name): self._label_of(each.table) for each in self.indexes}
        all_columns = [
            (table.schema, table.name, column.name)
            for table in self.tables
            for column in self.columns
            if column.table == table.oid
        ]
        for pattern in (*dropped, *left):
            if not any(_fits(pattern, *each) for each in all_columns):
                raise SnapshotError(
                    f"columns {pattern!r}: no column of the {len(names)} tables fits; write table.column or "
                    "schema.table.column, with * for any part"
                )
        kept = []
        for each in self.statistics:
            names_of = [(each.schema, each.relation, each.column)]
            if (each.schema, each.relation) in owners:
                # An expression: of which columns is not known here, so any of the table's counts.
                schema, table = owners[each.schema, each.relation]
                names_of = [name for name in all_columns if name[:2] == (schema, table)]
            if any(_fits(pattern, *name) for pattern in left for name in names_of):
                continue
            if any(_fits(pattern, *name) for pattern in dropped for name in names_of):
                each = each.without_values()  # noqa: PLW2901 - the same one, poorer
            kept.append(each)
        return dataclasses.replace(self, statistics=tuple(kept))

    def _label_of(self, oid: int) -> tuple[str, str]:
        return next((table.label for table in self.tables if table.oid == oid), ("", ""))

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Snapshot:
        """
        Raises:
            SnapshotError: *text* is no snapshot of this format.
        """
        try:
            found = json.loads(text)
            if not isinstance(found, dict) or found.pop("format", None) != FORMAT:
                raise SnapshotError(  # noqa: TRY301 - one error, whatever is wrong with the file
                    f"a snapshot was expected, found another kind of file; its format is {FORMAT!r}"
                )
            made: dict[str, Any] = dict(found)
            for name, kind in _PARTS.items():
                made[name] = tuple(kind(**{key: _tuple(value) for key, value in each.items()}) for each in found[name])
            for name in ("schemas", "preliminaries", "notes"):
                made[name] = tuple(found[name])
            made["constraints"] = tuple((int(oid), str(text)) for oid, text in found["constraints"])
            made["extensions"] = {name: tuple(pair) for name, pair in found["extensions"].items()}
            return cls(**made)
        except SnapshotError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError):
            raise SnapshotError(
                "a snapshot was expected, found a file that is none or is damaged; take it again: sqlprobe snapshot"
            ) from None

    def write(self, file: str | Path) -> None:
        """
        Write it, readable by its owner only (0600), compressed where the name ends with .gz.

        Raises:
            SnapshotError: it cannot be written.
        """
        target = Path(file)
        data = self.to_json().encode()
        if target.suffix == ".gz":
            data = gzip.compress(data, mtime=0)
        staging = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
            staging.replace(target)
        except OSError as error:
            staging.unlink(missing_ok=True)
            raise SnapshotError(
                f"{file}: the snapshot cannot be written ({error.strerror}); name another file"
            ) from None

    @classmethod
    def load(cls, file: str | Path) -> Snapshot:
        """
        Raises:
            SnapshotError: there is no such file, or it is no snapshot.
        """
        try:
            data = Path(file).read_bytes()
            if data[:2] == b"\x1f\x8b":
                data = gzip.decompress(data)
            return cls.from_json(data.decode())
        except SnapshotError as error:
            raise SnapshotError(f"{file}: {error}") from None
        except (OSError, EOFError, UnicodeDecodeError) as error:
            said = getattr(error, "strerror", None) or type(error).__name__
            raise SnapshotError(f"{file}: the snapshot cannot be read ({said}); make one: sqlprobe snapshot") from None


_PARTS: Final[Mapping[str, Any]] = {
    "roles": Role,
    "tables": Table,
    "columns": Column,
    "indexes": IndexFile,
    "policies": Policy,
    "statistics": Statistic,
    "extended": Extended,
}


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _fits(pattern: str, schema: str, table: str, column: str) -> bool:
    return fnmatch.fnmatchcase(f"{schema}.{table}.{column}", pattern) or fnmatch.fnmatchcase(
        f"{table}.{column}", pattern
    )


# --- reading ----------------------------------------------------------------------------------------------------------


def read(session: Session) -> Snapshot:
    """
    The snapshot of the database that *session* is connected to, as its role may see it: SELECTs on catalogs, and two
    look-ups in an index for each column that leads one, see `ends`.

    Raises:
        Refused: the server did not answer.
    """
    (((version, database, role, path, system, is_c),),) = session.read(_SURROUNDINGS)
    version = int(version)
    settings, extensions, schemas, roles, members = session.read(_SETTINGS, _EXTENSIONS, _SCHEMAS, _ROLES, _MEMBERS)
    types, functions = session.read(_TYPES, _FUNCTIONS)
    tables, columns = session.read(_TABLES, _COLUMNS)
    indexes, constraints, policies = session.read(_INDEXES, _CONSTRAINTS, _POLICIES)
    ranges = (
        "range_length_histogram::text, range_empty_frac::float8, range_bounds_histogram::text"
        if version >= 170_000  # noqa: PLR2004 - the first that shows them
        else "NULL, NULL, NULL"
    )
    (statistics,) = session.read(_STATISTICS.format(ranges=ranges))
    (extended,) = session.read(_EXTENDED)
    notes = []
    analyzed = {(str(row[0]), str(row[1])) for row in statistics}
    made = tuple(_table(row) for row in tables)
    blind = [t for t in made if t.kind in {"r", "m"} and t.known_rows > 0 and t.label not in analyzed]
    if blind:
        shown = ", ".join(f"{table.schema}.{table.name}" for table in blind[:5])
        notes.append(
            f"statistics of {len(blind)} tables are not visible to {role} ({shown}): row security hides them, or it "
            "may not read the table; take the snapshot as a role that may"
        )
    return Snapshot(
        taken=time.time(),
        server_version=version,
        database=str(database),
        role=str(role),
        search_path=str(path),
        is_c_collation=bool(is_c),
        system=str(system),
        settings={str(name): str(value) for name, value in settings},
        extensions={str(name): (str(schema), str(each)) for name, schema, each in extensions},
        schemas=tuple(str(row[0]) for row in schemas),
        roles=tuple(
            Role(str(name), bool(su), bool(by), bool(inh), tuple(str(g) for m, g in members if m == name))
            for name, su, by, inh in roles
        ),
        preliminaries=(*(str(row[0]) for row in types), *(str(row[0]) for row in functions)),
        tables=made,
        columns=tuple(
            Column(int(a), int(b), str(c), str(d), bool(e), str(f), str(g), str(h), bool(i))
            for a, b, c, d, e, f, g, h, i in columns
        ),
        indexes=tuple(_index(row) for row in indexes),
        constraints=tuple((int(oid), str(text)) for oid, text in constraints),
        policies=tuple(
            Policy(int(a), str(b), bool(c), str(d), tuple(json.loads(e)), str(f), str(g))
            for a, b, c, d, e, f, g in policies
        ),
        statistics=tuple(ends.brought_up_to_date(session, [_statistic(row, columns, made) for row in statistics])),
        extended=tuple(Extended(int(a), str(b), str(c), str(d), str(e), str(f)) for a, b, c, d, e, f in extended),
        notes=tuple(notes),
    )


def _table(row: Sequence[Any]) -> Table:
    (oid, schema, name, kind, persistence, owner, rows, pages, visible, size, secured, forced, key, bound, parents,
     options, definition, writes) = row  # fmt: skip
    return Table(
        oid=int(oid),
        schema=str(schema),
        name=str(name),
        kind=str(kind),
        persistence=str(persistence),
        owner=str(owner),
        known_rows=float(rows),
        known_pages=int(pages),
        visible_pages=int(visible),
        pages=int(size),
        row_security=bool(secured),
        forced=bool(forced),
        partition_key=str(key),
        bound=str(bound),
        parents=tuple(int(each) for each in json.loads(parents)),
        options=str(options),
        definition=str(definition),
        writes_per_second=float(writes or 0.0),
    )


def _index(row: Sequence[Any]) -> IndexFile:
    oid, table, schema, name, method, definition, constraint, text, valid, clustered, rows, pages, size, parent = row
    return IndexFile(
        oid=int(oid),
        table=int(table),
        schema=str(schema),
        name=str(name),
        method=str(method),
        definition=str(definition),
        constraint=str(constraint),
        constraint_definition=str(text),
        valid=bool(valid),
        clustered=bool(clustered),
        known_rows=float(rows),
        known_pages=int(pages),
        pages=int(size),
        parent=int(parent),
    )


def _statistic(row: Sequence[Any], columns: Sequence[Sequence[Any]], tables: Sequence[Table]) -> Statistic:
    (schema, relation, column, inherited, nulls, width, distinct, values, freqs, bounds, correlation, elems, elem_freqs,
     counts, lengths, empty, range_bounds) = row  # fmt: skip
    found = Statistic(
        schema=str(schema),
        relation=str(relation),
        column=str(column),
        inherited=bool(inherited),
        null_frac=float(nulls),
        avg_width=int(width),
        n_distinct=float(distinct),
        most_common_vals=values,
        most_common_freqs=freqs,
        histogram_bounds=bounds,
        correlation=None if correlation is None else float(correlation),
        most_common_elems=elems,
        most_common_elem_freqs=elem_freqs,
        elem_count_histogram=counts,
        range_length_histogram=lengths,
        range_empty_frac=None if empty is None else float(empty),
        range_bounds_histogram=range_bounds,
    )
    oid = next((table.oid for table in tables if table.label == (schema, relation)), None)
    kind = next((str(each[3]) for each in columns if each[0] == oid and each[2] == column), "")
    return found.without_values() if kind.rpartition(".")[2].partition("(")[0] in WHOLE_VALUES else found


_OURS: Final = """n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'"""


def _not_of_extension(catalog: str, oid: str) -> str:
    return f"""NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid = 'pg_catalog.{catalog}'::pg_catalog.regclass AND d.objid = {oid} AND d.deptype = 'e')"""


_SURROUNDINGS: Final = """
SELECT current_setting('server_version_num')::int, current_database()::text, current_user::text,
    current_setting('search_path'), (SELECT system_identifier::text FROM pg_catalog.pg_control_system()),
    d.datcollate IN ('C', 'POSIX') OR to_jsonb(d)->>'datlocprovider' = 'b'
FROM pg_catalog.pg_database d WHERE d.datname = current_database()
"""
_SETTINGS: Final = """
SELECT name::text, setting || coalesce(CASE WHEN unit IN ('8kB') THEN '' ELSE unit END, '')
FROM pg_catalog.pg_settings
WHERE (category LIKE 'Query Tuning%' OR name IN ('work_mem', 'hash_mem_multiplier', 'max_parallel_workers_per_gather',
    'max_parallel_workers', 'effective_io_concurrency', 'DateStyle', 'IntervalStyle', 'TimeZone',
    'default_text_search_config', 'parallel_leader_participation'))
    AND context NOT IN ('internal', 'postmaster') AND setting IS DISTINCT FROM boot_val
"""
_EXTENSIONS: Final = """
SELECT e.extname::text, n.nspname::text, e.extversion FROM pg_catalog.pg_extension e
    JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname <> 'plpgsql' ORDER BY e.oid
"""
_SCHEMAS: Final = f"SELECT n.nspname::text FROM pg_catalog.pg_namespace n WHERE {_OURS} ORDER BY 1"  # noqa: S608 - constant
_ROLES: Final = f"""
SELECT rolname::text, rolsuper, rolbypassrls, rolinherit FROM pg_catalog.pg_roles WHERE rolname !~ '^pg_'
ORDER BY rolname LIMIT {MAX_ROLES}
"""  # noqa: S608 - constant
_MEMBERS: Final = """
SELECT m.rolname::text, g.rolname::text FROM pg_catalog.pg_auth_members a
    JOIN pg_catalog.pg_roles m ON m.oid = a.member JOIN pg_catalog.pg_roles g ON g.oid = a.roleid
"""
_TYPES: Final = f"""
SELECT CASE t.typtype
    WHEN 'e' THEN format('CREATE TYPE %I.%I AS ENUM (%s)', n.nspname, t.typname,
        (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum e
            WHERE e.enumtypid = t.oid))
    WHEN 'd' THEN format('CREATE DOMAIN %I.%I AS %s%s%s', n.nspname, t.typname, format_type(t.typbasetype, t.typtypmod),
        CASE WHEN t.typnotnull THEN ' NOT NULL' ELSE '' END,
        coalesce((SELECT string_agg(' ' || pg_catalog.pg_get_constraintdef(c.oid), '') FROM pg_catalog.pg_constraint c
            WHERE c.contypid = t.oid AND c.contype = 'c'), ''))
    WHEN 'r' THEN format('CREATE TYPE %I.%I AS RANGE (SUBTYPE = %s)', n.nspname, t.typname,
        (SELECT format_type(r.rngsubtype, NULL) FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid))
    ELSE format('CREATE TYPE %I.%I AS (%s)', n.nspname, t.typname,
        (SELECT string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
            FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped))
    END
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
    LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
WHERE {_OURS} AND (t.typtype IN ('e', 'd', 'r') OR (t.typtype = 'c' AND c.relkind = 'c'))
    AND {_not_of_extension("pg_type", "t.oid")}
ORDER BY t.oid
"""  # noqa: S608 - constants
_FUNCTIONS: Final = f"""
SELECT pg_catalog.pg_get_functiondef(p.oid) FROM pg_catalog.pg_proc p
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE {_OURS} AND p.prokind = 'f' AND l.lanname IN ('sql', 'plpgsql')
    AND p.prorettype NOT IN ('pg_catalog.trigger'::pg_catalog.regtype, 'pg_catalog.event_trigger'::pg_catalog.regtype)
    AND {_not_of_extension("pg_proc", "p.oid")}
ORDER BY p.oid
"""  # noqa: S608 - constants
_TABLES: Final = f"""
SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text,
    pg_catalog.pg_get_userbyid(c.relowner)::text, c.reltuples::float8, c.relpages::int, c.relallvisible::int,
    CASE WHEN c.relkind IN ('r', 'm') THEN (coalesce(pg_catalog.pg_relation_size(c.oid), 0) / 8192)::bigint
        ELSE 0 END,
    c.relrowsecurity, c.relforcerowsecurity,
    CASE WHEN c.relkind = 'p' THEN coalesce(pg_catalog.pg_get_partkeydef(c.oid), '') ELSE '' END,
    CASE WHEN c.relispartition THEN coalesce(pg_catalog.pg_get_expr(c.relpartbound, c.oid), '') ELSE '' END,
    coalesce((SELECT json_agg(h.inhparent::bigint ORDER BY h.inhseqno) FROM pg_catalog.pg_inherits h
        WHERE h.inhrelid = c.oid), '[]')::text,
    coalesce(array_to_string(c.reloptions, ', '), ''),
    CASE WHEN c.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(c.oid) ELSE '' END,
    (pg_catalog.pg_stat_get_tuples_inserted(c.oid) + pg_catalog.pg_stat_get_tuples_updated(c.oid)
        - pg_catalog.pg_stat_get_tuples_hot_updated(c.oid))
    / (SELECT greatest(86400.0, extract(epoch FROM now() - coalesce(b.stats_reset, pg_postmaster_start_time())))::float8
        FROM pg_catalog.pg_stat_database b WHERE b.datname = current_database())
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE {_OURS} AND c.relkind IN ('r', 'p', 'm', 'v', 'f') AND c.relpersistence <> 't'
    AND {_not_of_extension("pg_class", "c.oid")}
ORDER BY c.oid
"""  # noqa: S608 - constants
_COLUMNS: Final = f"""
SELECT a.attrelid::bigint, a.attnum::int, a.attname::text,
    pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull,
    CASE WHEN a.attcollation <> t.typcollation THEN coalesce((SELECT format('%I.%I', cn.nspname, o.collname)
        FROM pg_catalog.pg_collation o JOIN pg_catalog.pg_namespace cn ON cn.oid = o.collnamespace
        WHERE o.oid = a.attcollation), '') ELSE '' END,
    a.attgenerated::text,
    CASE WHEN a.attgenerated <> '' THEN coalesce(pg_catalog.pg_get_expr(f.adbin, f.adrelid), '') ELSE '' END,
    a.attinhcount > 0 AND NOT a.attislocal
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
WHERE {_OURS} AND c.relkind IN ('r', 'p', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped
    AND c.relpersistence <> 't' AND {_not_of_extension("pg_class", "c.oid")}
ORDER BY a.attrelid, a.attnum
"""  # noqa: S608 - constants
_INDEXES: Final = f"""
SELECT x.oid::bigint, i.indrelid::bigint, n.nspname::text, x.relname::text, m.amname::text,
    pg_catalog.pg_get_indexdef(x.oid), coalesce(k.conname::text, ''),
    coalesce(pg_catalog.pg_get_constraintdef(k.oid), ''),
    i.indisvalid AND i.indisready AND i.indislive, i.indisclustered, x.reltuples::float8, x.relpages::int,
    CASE WHEN x.relkind = 'i' THEN (coalesce(pg_catalog.pg_relation_size(x.oid), 0) / 8192)::bigint ELSE 0 END,
    coalesce((SELECT h.inhparent::bigint FROM pg_catalog.pg_inherits h WHERE h.inhrelid = x.oid), 0)
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
    JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_am m ON m.oid = x.relam
    LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = x.oid AND k.conrelid = i.indrelid
        AND k.contype IN ('p', 'u', 'x')
WHERE {_OURS} AND c.relpersistence <> 't' AND {_not_of_extension("pg_class", "c.oid")}
ORDER BY x.relkind DESC, x.oid
"""  # noqa: S608 - constants
_CONSTRAINTS: Final = f"""
SELECT k.conrelid::bigint, format('ADD CONSTRAINT %I %s', k.conname, pg_catalog.pg_get_constraintdef(k.oid))
FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE {_OURS} AND k.contype IN ('c', 'f') AND k.conparentid = 0 AND (k.contype = 'f' OR k.coninhcount = 0)
    AND {_not_of_extension("pg_class", "c.oid")}
ORDER BY k.contype, k.oid
"""  # noqa: S608 - constants
_POLICIES: Final = f"""
SELECT p.polrelid::bigint, p.polname::text, p.polpermissive,
    CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE'
        ELSE 'ALL' END,
    (SELECT json_agg(CASE WHEN r.oid = 0 THEN 'public' ELSE pg_catalog.pg_get_userbyid(r.oid)::text END)
        FROM pg_catalog.unnest(p.polroles) r(oid))::text,
    coalesce(pg_catalog.pg_get_expr(p.polqual, p.polrelid), ''),
    coalesce(pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid), '')
FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE {_OURS}
"""  # noqa: S608 - constants
_STATISTICS: Final = f"""
SELECT s.schemaname::text, s.tablename::text, s.attname::text, s.inherited, s.null_frac::float8, s.avg_width,
    s.n_distinct::float8, s.most_common_vals::text, s.most_common_freqs::text, s.histogram_bounds::text,
    s.correlation::float8, s.most_common_elems::text, s.most_common_elem_freqs::text, s.elem_count_histogram::text,
    {{ranges}}
FROM pg_catalog.pg_stats s JOIN pg_catalog.pg_namespace n ON n.nspname = s.schemaname
WHERE {_OURS}
"""  # noqa: S608 - constants
_EXTENDED: Final = f"""
SELECT e.stxrelid::bigint, n.nspname::text, e.stxname::text, pg_catalog.pg_get_statisticsobjdef(e.oid),
    coalesce((SELECT max(s.n_distinct::text) FROM pg_catalog.pg_stats_ext s
        WHERE s.statistics_schemaname = n.nspname AND s.statistics_name = e.stxname), ''),
    coalesce((SELECT max(s.dependencies::text) FROM pg_catalog.pg_stats_ext s
        WHERE s.statistics_schemaname = n.nspname AND s.statistics_name = e.stxname), '')
FROM pg_catalog.pg_statistic_ext e JOIN pg_catalog.pg_namespace n ON n.oid = e.stxnamespace
WHERE {_OURS}
"""  # noqa: S608 - constants
