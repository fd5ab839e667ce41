"""
The catalog: what PostgreSQL knows of the relations in a plan, in sizes, statistics, indexes, constraints and policies.

Read through a `Session` (see `explain`), under its limits, and kept until the relation changes: a stamp made of the
catalog's own row versions tells, in one short question, what DDL or ANALYZE has touched since. No value of a row is
read: of the statistics only counts and widths, never most common values or histograms.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from sqlprobe.plans import conditions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlprobe.plans.conditions import Expression
    from sqlprobe.plans.explain import Session
    from sqlprobe.plans.plan import Node, Plan

PAGE_BYTES: Final = 8192
MAX_RELATIONS: Final = 200  # of one plan: a thousand partitions are told by some of them
_DESCENDING: Final = 1  # bits of pg_index.indoption
_NULLS_FIRST: Final = 2

Name = tuple[str, str]  # schema and relation


@dataclass(frozen=True, slots=True)
class Column:
    """
    A column. `type` is PostgreSQL's full name of it (`character varying(20)`); `base_type` has no length.

    `distinct` is the number of different values, as far as ANALYZE has seen; `null_share` is 0 to 1; `width` is bytes
    of a value in the table (18 for one that is stored apart). All are None before the first ANALYZE, or where the role
    may not see statistics. `storage` is "p" (plain), "m", "e" or "x" (stored apart where it is long).
    """

    name: str
    type: str
    base_type: str
    not_null: bool
    storage: str
    distinct: float | None = None
    null_share: float | None = None
    width: int | None = None
    is_enum: bool = False


@dataclass(frozen=True, slots=True)
class IndexKey:
    """
    One key of an index: `column`, or "" and the `expression` as PostgreSQL prints it.

    `operators` are those it can search by, `orders` those it can sort by a distance with. `collation` is "" where the
    type has none.
    """

    column: str
    expression: str
    operator_class: str
    operators: frozenset[str]
    orders: frozenset[str]
    descending: bool = False
    nulls_first: bool = False
    collation: str = ""

    @property
    def parsed(self) -> Expression:
        return conditions.parse(self.expression)


@dataclass(frozen=True, slots=True)
class Index:
    """
    An index. `usable` is False while it is built, or after a build that failed. `predicate` is the text of its WHERE.

    `options` are its WITH parameters; `scans` how often it has been used since statistics were last reset.
    """

    name: str
    schema: str
    method: str
    keys: tuple[IndexKey, ...]
    include: tuple[str, ...]
    unique: bool
    primary: bool
    usable: bool
    predicate: str
    definition: str
    bytes: int
    options: Mapping[str, str]
    scans: int | None

    @property
    def columns(self) -> tuple[str, ...]:
        """The keys that are columns, in order, "" for an expression."""
        return tuple(key.column for key in self.keys)


@dataclass(frozen=True, slots=True)
class Constraint:
    """`kind` is PostgreSQL's: "p" primary key, "u" unique, "f" foreign key, "c" check, "x" exclusion, "n" not null."""

    name: str
    kind: str
    columns: tuple[str, ...]
    definition: str


@dataclass(frozen=True, slots=True)
class Policy:
    """A row security policy. `condition` is its USING, with its constants: masked before it is shown."""

    name: str
    command: str
    condition: str = field(repr=False)


@dataclass(frozen=True)
class Relation:
    """
    A table, partition, materialised view or foreign table.

    `rows` is what the planner counts with, scaled to the present size; None where it was never analysed. `pages` and
    `bytes` are of the table itself, `toast_bytes` of what is stored apart. `modified` counts rows changed since the
    last ANALYZE, `analyzed` is a Unix time; `known_pages` are those that the planner's numbers come from.
    `row_security` says that policies apply to the role that asked.
    `root` is the partitioned table it belongs to, `partition_key` (of a partitioned table, or of the root) its
    definition.
    """

    oid: int
    schema: str
    name: str
    kind: str
    rows: float | None
    pages: int
    bytes: int
    toast_bytes: int
    columns: Mapping[str, Column]
    indexes: tuple[Index, ...]
    constraints: tuple[Constraint, ...]
    policies: tuple[Policy, ...]
    row_security: bool
    temporary: bool
    modified: int | None
    analyzed: float | None
    known_pages: int
    root: Name | None = None
    partition_key: str = ""
    partitions: int = 0  # of the root, leaves and branches

    @property
    def label(self) -> str:
        """What a person calls it: a partition by its root."""
        schema, name = self.root or (self.schema, self.name)
        return name if schema in {"public", ""} else f"{schema}.{name}"

    @cached_property
    def usable_indexes(self) -> tuple[Index, ...]:
        return tuple(index for index in self.indexes if index.usable)

    def index(self, name: str) -> Index | None:
        return next((index for index in self.indexes if index.name == name), None)

    def column(self, name: str) -> Column | None:
        return self.columns.get(name)

    def is_unique(self, columns: Iterable[str]) -> bool:
        """Whether these columns, or some of them, identify a row."""
        given = set(columns)
        return any(
            index.unique and not index.predicate and "" not in index.columns and given.issuperset(index.columns)
            for index in self.usable_indexes
        )


@dataclass(frozen=True)
class Catalog:
    """
    The relations that a plan reads, by schema and name. `of()` may answer None: a rule that gets none says nothing.

    `extensions` are the installed ones with their versions. `work_mem` is in bytes.
    """

    relations: Mapping[Name, Relation] = field(default_factory=dict)
    extensions: Mapping[str, str] = field(default_factory=dict)
    server_version: int = 0
    work_mem: int = 4 << 20

    def of(self, node: Node) -> Relation | None:
        """The relation that *node* reads or writes."""
        return self.relations.get((node.schema, node.relation)) if node.relation else None


class Reader:
    """Reads catalogs for one database, and keeps what has not changed. Not for two threads."""

    def __init__(self) -> None:
        self._known: dict[Name, tuple[str, Relation]] = {}

    def read(self, session: Session, plan: Plan, secured: frozenset[Name] | None = None) -> Catalog:
        """
        The catalog for *plan*. *secured* are the relations under row security, where the role that planned was another
        than this connection's.

        Raises:
            Refused: the server did not answer, for instance because a relation is locked.
        """
        wanted = list(dict.fromkeys((node.schema, node.relation) for node in plan.nodes if node.relation))
        wanted = wanted[:MAX_RELATIONS]
        if not wanted:
            return Catalog()
        names = ", ".join(f"({_quoted(schema)}, {_quoted(name)})" for schema, name in wanted)
        ((version, work_mem),), stamps, extensions = session.read(
            "SELECT current_setting('server_version_num')::int,"
            " pg_catalog.pg_size_bytes(current_setting('work_mem'))::bigint",
            _STAMPS.format(names=names),
            "SELECT extname::text, extversion FROM pg_catalog.pg_extension",
        )
        current = {(str(schema), str(name)): (int(oid), str(stamp)) for schema, name, oid, stamp in stamps}
        stale = {
            name: oid
            for name, (oid, stamp) in current.items()
            if name not in self._known or self._known[name][0] != stamp
        }
        if stale:
            for relation in _read(session, list(stale.values())):
                name = (relation.schema, relation.name)
                self._known[name] = (current[name][1], relation)
        for name in [name for name in wanted if name not in current]:
            self._known.pop(name, None)
        relations = {name: self._known[name][1] for name in wanted if name in current and name in self._known}
        if secured is not None:
            relations = {name: replace(each, row_security=name in secured) for name, each in relations.items()}
        return Catalog(
            relations=relations,
            extensions={str(name): str(each) for name, each in extensions},
            server_version=int(version),
            work_mem=int(work_mem),
        )


def _quoted(text: str) -> str:
    return "'" + text.replace("\x00", "").replace("'", "''") + "'"


_STAMPS: Final = """
SELECT n.nspname::text, c.relname::text, c.oid::bigint, pg_catalog.md5(pg_catalog.concat_ws(',',
    c.oid, c.xmin, c.relfilenode, c.relpages, c.reltuples, pg_catalog.row_security_active(c.oid),
    pg_catalog.round(10 * pg_catalog.log(1 + coalesce(pg_catalog.pg_relation_size(c.oid), 0)::numeric)),
    pg_catalog.pg_stat_get_last_analyze_time(c.oid), pg_catalog.pg_stat_get_last_autoanalyze_time(c.oid),
    (SELECT pg_catalog.string_agg(i.indexrelid || ':' || i.xmin || ':' || x.xmin || ':' || x.relpages, ','
        ORDER BY i.indexrelid)
        FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = c.oid),
    (SELECT pg_catalog.string_agg(p.xmin::text, ',' ORDER BY p.oid) FROM pg_catalog.pg_policy p
        WHERE p.polrelid = c.oid),
    (SELECT pg_catalog.string_agg(a.xmin::text, ',' ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0),
    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_inherits h WHERE h.inhparent = pg_catalog.pg_partition_root(c.oid))
))
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE (n.nspname, c.relname) IN ({names}) AND c.relkind IN ('r', 'p', 'm', 'f')
"""

_RELATIONS: Final = """
SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text, c.reltuples::float, c.relpages::bigint,
    CASE WHEN c.relkind IN ('r', 'm') THEN pg_catalog.pg_relation_size(c.oid) ELSE 0 END,
    CASE WHEN c.reltoastrelid <> 0 THEN pg_catalog.pg_relation_size(c.reltoastrelid) ELSE 0 END,
    pg_catalog.row_security_active(c.oid), c.relpersistence = 't', s.n_mod_since_analyze,
    extract(epoch FROM greatest(s.last_analyze, s.last_autoanalyze))::float,
    r.nspname::text, r.relname::text, pg_catalog.pg_get_partkeydef(coalesce(r.oid, c.oid)),
    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_partition_tree(coalesce(r.oid, c.oid)) t WHERE t.isleaf)
FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid
    LEFT JOIN (SELECT x.oid, x.relname, y.nspname FROM pg_catalog.pg_class x
        JOIN pg_catalog.pg_namespace y ON y.oid = x.relnamespace) r
        ON r.oid = pg_catalog.pg_partition_root(c.oid) AND r.oid <> c.oid
WHERE c.oid IN ({oids})
"""

_COLUMNS: Final = """
SELECT a.attrelid::bigint, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod),
    pg_catalog.format_type(a.atttypid, NULL), a.attnotnull, a.attstorage::text,
    s.n_distinct::float, s.null_frac::float, s.avg_width,
    EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid AND t.typtype = 'e')
FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname
        AND s.attname = a.attname AND s.inherited = (c.relkind = 'p')
WHERE a.attrelid IN ({oids}) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
"""

_INDEXES: Final = """
SELECT i.indrelid::bigint, i.indexrelid::bigint, x.relname::text, n.nspname::text, m.amname::text, i.indnkeyatts::int,
    i.indisunique, i.indisprimary, i.indisvalid AND i.indisready AND i.indislive,
    coalesce(pg_catalog.pg_get_expr(i.indpred, i.indrelid), ''), pg_catalog.pg_get_indexdef(i.indexrelid),
    CASE WHEN x.relkind = 'i' THEN pg_catalog.pg_relation_size(i.indexrelid) ELSE 0 END,
    coalesce(pg_catalog.array_to_string(x.reloptions, ','), ''), s.idx_scan
FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace
    JOIN pg_catalog.pg_am m ON m.oid = x.relam
    LEFT JOIN pg_catalog.pg_stat_all_indexes s ON s.indexrelid = i.indexrelid
WHERE i.indrelid IN ({oids})
ORDER BY i.indrelid, x.relname
"""

_KEYS: Final = """
SELECT i.indexrelid::bigint, k.n::int, coalesce(a.attname::text, ''),
    pg_catalog.pg_get_indexdef(i.indexrelid, k.n::int, false), coalesce(o.opcname::text, ''), o.opcfamily::bigint,
    o.opcintype::bigint, CASE WHEN k.n <= i.indnkeyatts THEN i.indoption[k.n - 1] ELSE 0 END::int,
    coalesce(l.collname::text, '')
FROM pg_catalog.pg_index i
    CROSS JOIN LATERAL pg_catalog.generate_series(1, i.indnatts) k(n)
    LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k.n - 1]
        AND i.indkey[k.n - 1] <> 0
    LEFT JOIN pg_catalog.pg_opclass o ON k.n <= i.indnkeyatts AND o.oid = i.indclass[k.n - 1]
    LEFT JOIN pg_catalog.pg_collation l ON k.n <= i.indnkeyatts AND l.oid = i.indcollation[k.n - 1]
WHERE i.indrelid IN ({oids})
ORDER BY i.indexrelid, k.n
"""

_OPERATORS: Final = """
SELECT DISTINCT f.amopfamily::bigint, p.oprname::text, f.amoppurpose::text
FROM pg_catalog.pg_amop f JOIN pg_catalog.pg_operator p ON p.oid = f.amopopr
WHERE f.amopfamily IN (SELECT o.opcfamily FROM pg_catalog.pg_index i, pg_catalog.pg_opclass o
    WHERE i.indrelid IN ({oids}) AND o.oid = ANY (i.indclass::oid[]))
"""

_CONSTRAINTS: Final = """
SELECT c.conrelid::bigint, c.conname::text, c.contype::text,
    coalesce((SELECT pg_catalog.string_agg(a.attname::text, ',' ORDER BY k.n)
        FROM pg_catalog.unnest(c.conkey) WITH ORDINALITY k(attnum, n)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.attnum), ''),
    pg_catalog.pg_get_constraintdef(c.oid)
FROM pg_catalog.pg_constraint c
WHERE c.conrelid IN ({oids}) AND c.contype IN ('p', 'u', 'f', 'c', 'x')
ORDER BY c.conrelid, c.conname
"""

_POLICIES: Final = """
SELECT p.polrelid::bigint, p.polname::text, p.polcmd::text,
    coalesce(pg_catalog.pg_get_expr(p.polqual, p.polrelid), '')
FROM pg_catalog.pg_policy p WHERE p.polrelid IN ({oids}) ORDER BY p.polrelid, p.polname
"""


def _read(session: Session, oids: list[int]) -> list[Relation]:
    given = ", ".join(str(int(oid)) for oid in oids)
    questions = (_RELATIONS, _COLUMNS, _INDEXES, _KEYS, _OPERATORS, _CONSTRAINTS, _POLICIES)
    relations, columns, indexes, keys, operators, constraints, policies = session.read(
        *(question.format(oids=given) for question in questions)
    )
    searches: dict[int, set[str]] = {}
    orders: dict[int, set[str]] = {}
    for family, operator, purpose in operators:
        (orders if purpose == "o" else searches).setdefault(int(family), set()).add(str(operator))
    keys_of: dict[int, list[tuple[Any, ...]]] = {}
    for key in keys:
        keys_of.setdefault(int(key[0]), []).append(key)
    found = []
    for (
        oid,
        schema,
        name,
        kind,
        tuples,
        relpages,
        size,
        toast,
        secured,
        temporary,
        modified,
        analyzed,
        *rest,
    ) in relations:
        root_schema, root_name, partition_key, leaves = rest
        pages = int(size) // PAGE_BYTES
        mine = {str(each[1]): _column(each, tuples) for each in columns if each[0] == oid}
        found.append(
            Relation(
                oid=int(oid),
                schema=str(schema),
                name=str(name),
                kind=str(kind),
                rows=_rows(tuples, relpages, pages, str(kind)),
                pages=pages,
                bytes=int(size),
                toast_bytes=int(toast),
                columns=mine,
                indexes=tuple(
                    _index(each, keys_of.get(int(each[1]), []), searches, orders) for each in indexes if each[0] == oid
                ),
                constraints=tuple(
                    Constraint(str(each[1]), str(each[2]), tuple(each[3].split(",")) if each[3] else (), str(each[4]))
                    for each in constraints
                    if each[0] == oid
                ),
                policies=tuple(Policy(str(e[1]), str(e[2]), str(e[3])) for e in policies if e[0] == oid),
                row_security=bool(secured),
                temporary=bool(temporary),
                modified=None if modified is None else int(modified),
                analyzed=None if analyzed is None else float(analyzed),
                known_pages=int(relpages),
                root=(str(root_schema), str(root_name)) if root_name is not None else None,
                partition_key=str(partition_key or ""),
                partitions=int(leaves or 0) if partition_key else 0,
            )
        )
    return found


def _rows(tuples: float, relpages: int, pages: int, kind: str) -> float | None:
    """As the planner counts: the density that ANALYZE or VACUUM has seen, times the present size."""
    if tuples < 0:
        return None
    if kind in {"r", "m"} and relpages > 0:
        return float(tuples) * pages / relpages
    return float(tuples)


def _column(row: tuple[Any, ...], tuples: float) -> Column:
    _, name, full, base, not_null, storage, distinct, nulls, width, is_enum = row
    if distinct is not None and distinct < 0:  # a share of the rows
        distinct = -distinct * max(float(tuples), 1.0)
    return Column(
        name=str(name),
        type=str(full),
        base_type=str(base),
        not_null=bool(not_null),
        storage=str(storage),
        distinct=None if distinct is None else float(distinct),
        null_share=None if nulls is None else float(nulls),
        width=None if width is None else int(width),
        is_enum=bool(is_enum),
    )


def _index(
    row: tuple[Any, ...],
    keys: list[tuple[Any, ...]],
    searches: Mapping[int, set[str]],
    orders: Mapping[int, set[str]],
) -> Index:
    _, _, name, schema, method, count, unique, primary, usable, predicate, definition, size, options, scans = row
    made = tuple(
        IndexKey(
            column=str(column),
            expression=str(text),
            operator_class=str(opclass),
            operators=frozenset(searches.get(int(family or 0), ())),
            orders=frozenset(orders.get(int(family or 0), ())),
            descending=bool(option & _DESCENDING),
            nulls_first=bool(option & _NULLS_FIRST),
            collation=str(collation),
        )
        for _, number, column, text, opclass, family, _, option, collation in keys
        if number <= count
    )
    return Index(
        name=str(name),
        schema=str(schema),
        method=str(method),
        keys=made,
        include=tuple(str(key[2]) for key in keys if key[1] > count),
        unique=bool(unique),
        primary=bool(primary),
        usable=bool(usable),
        predicate=str(predicate),
        definition=str(definition),
        bytes=int(size),
        options=dict(pair.partition("=")[::2] for pair in str(options).split(",") if pair),
        scans=None if scans is None else int(scans),
    )
