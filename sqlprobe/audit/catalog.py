"""
The catalog: what a review finds by reading a database's indexes, keys, statistics and policies, and writing nothing.

A check is a generator of findings, and its docstring the rule's page unless `mapping` has that rule too.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlprobe.audit import bloat, code, mapping
from sqlprobe.audit.mapping import finding
from sqlprobe.audit.seen import cost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlprobe.audit.mapping import Models
    from sqlprobe.audit.options import Options
    from sqlprobe.audit.seen import Seen
    from sqlprobe.audit.stock import Reference, Standing, Stock, Use
    from sqlprobe.model import Finding, Fix, Severity, Site
    from sqlprobe.plans.catalog import Index, IndexKey, Relation

USED: Final = 100  # scans of a table, before what is not used there says anything
LEAST_DAYS: Final = 1.0  # of counting, before an unused half of a table's indexes says anything
BIG: Final = 100 << 20  # bytes of an index without use that are a warning
ENORMOUS: Final = 1e9  # deletes times rows to scan: an error
SEQUENCE_WARNING: Final = 0.7
SEQUENCE_ERROR: Final = 0.9
UNANALYZED_PAGES: Final = 128  # a megabyte
BLOAT_BYTES: Final = 32 << 20
BLOAT_SHARE: Final = 0.5
LISTS_FACTOR: Final = 3.0
LISTS_ROWS: Final = 10_000
DEFAULT_LISTS: Final = 100  # pgvector's
LEAST_LISTS: Final = 10
# Of 20,000 vectors in 400 groups, HNSW found 26 % of the ten nearest with m = 2, 90 % with 4, 99 % with 6 and more.
LEAST_LINKS: Final = 5
DEFAULT_LINKS: Final = 16  # pgvector's m
_MILLION: Final = 1_000_000

_MOST: Final = {"smallint": 2**15 - 1, "integer": 2**31 - 1, "bigint": 2**63 - 1}


@dataclass(frozen=True, slots=True)
class Matter:
    """What a check looks at."""

    stock: Stock
    models: Models
    seen: Seen
    options: Options

    def tables(self) -> Iterator[tuple[Relation, Use]]:
        """Every relation that is not a part of another."""
        for oid, relation in sorted(self.stock.relations.items(), key=lambda item: (item[1].schema, item[1].name)):
            use = self.stock.uses[oid]
            if not use.is_partition and not relation.temporary:
                yield relation, use

    def site_of(self, relation: Relation, column: str = "") -> Site | None:
        """Where the models declare it."""
        table = self.models.table(relation.schema, relation.name, self.stock.default_schema)
        if table is None:
            return None
        there = table.columns.get(column)
        return self.models.site_of(table if there is None else there)

    def site_of_index(self, relation: Relation, index: Index) -> Site | None:
        table = self.models.table(relation.schema, relation.name, self.stock.default_schema)
        return self.models.site_of_index(table, index.name) if table is not None else None

    def standing(self, index: Index) -> Standing | None:
        return self.stock.standings.get((index.schema, index.name))

    def may_drop(self, index: Index) -> bool:
        """Whether nothing but queries needs it."""
        standing = self.standing(index)
        return (
            index.usable
            and not index.unique
            and not index.primary
            and standing is not None
            and not (standing.holds_constraint or standing.is_identity or standing.is_part or standing.is_partitioned)
        )


def check(matter: Matter) -> list[Finding]:
    """What every rule for catalogs says."""
    found: list[Finding] = []
    for rule, each in CHECKS.items():
        if matter.options.wants(rule):
            found.extend(each(matter))
    return found


def notes(matter: Matter) -> list[str]:
    """What the reader has to know of the statistics."""
    stock = matter.stock
    said = [f"catalog: {len(stock.relations)} relations; its counters are {stock.days:.1f} days old"]
    if stock.in_recovery:
        said.append("catalog: this is a standby, which counts its own scans only: unused indexes are not told")
    elif stock.standbys:
        said.append(
            f"catalog: {stock.standbys} standbys read from this server; what they use is not counted here: look there "
            "before an index is dropped"
        )
    if stock.days < matter.options.unused_days and not stock.in_recovery:
        said.append(
            f"catalog: unused indexes are told from {matter.options.unused_days:g} days of counting on (--unused-days)"
        )
    return said


def check_unused(matter: Matter) -> Iterator[Finding]:
    """
    An index that nothing has used since statistics began.

    It is written by each INSERT and most UPDATEs, and read by nobody. Told from 30 days of counting on
    (`--unused-days`), for indexes of a megabyte and more, on tables that are read.

    Never named: primary keys, unique indexes and those that hold constraints (they refuse rows even if nothing reads
    them), replica identities, parts of partitioned indexes, and the only index of a foreign key. PostgreSQL does not
    record when an index was made: look whether it is new. On a standby nothing is told; where standbys are attached,
    look at their counters too.

    What to do: `DROP INDEX CONCURRENTLY`; the statement that makes it again is shown with it.
    """
    stock, options = matter.stock, matter.options
    if stock.in_recovery or stock.days < options.unused_days:
        return
    keys = _references_of(stock)
    for relation, use in matter.tables():
        if use.scans < USED:
            continue
        gone: set[str] = set()  # two indexes of one foreign key are not both to go
        for index in relation.indexes:
            if index.scans != 0 or index.bytes < options.unused_bytes or not matter.may_drop(index):
                continue
            if any(_only_index(relation, index, each, gone) for each in keys.get(relation.oid, ())):
                continue
            gone.add(index.name)
            writes = use.inserted + use.updated - use.heap_only
            standby = "; standbys may use it: look there first" if stock.standbys else ""
            yield finding(
                "unused-index",
                "warning" if index.bytes >= BIG else "info",
                _qualified(index.schema, index.name),
                f"{index.name} on {relation.label} has not been used for {stock.days:.0f} days; "
                f"it takes {_bytes(index.bytes)}",
                f"drop it, unless it is new or for a yearly job{standby}",
                site=matter.site_of_index(relation, index),
                evidence={
                    "bytes": index.bytes,
                    "writes": writes,
                    "table_scans": use.scans,
                    "days": round(stock.days, 1),
                    "table": relation.label,
                },
                fixes=(code.drop_index(index.schema, relation.name, index.name, index.definition),),
            )


def check_redundant(matter: Matter) -> Iterator[Finding]:
    """As `mapping.check_redundant`, by the indexes that there are."""
    for relation, use in matter.tables():
        for index in relation.indexes:
            if not matter.may_drop(index):
                continue
            for other in relation.indexes:
                if other is index or not other.usable or not _covers(other, index):
                    continue
                same = len(other.keys) == len(index.keys)
                if same and matter.may_drop(other) and other.include == index.include and other.name >= index.name:
                    continue  # of two equal ones, the first stays
                yield mapping.redundant(
                    index.schema,
                    relation.name,
                    index.name,
                    _told_keys(index),
                    other.name,
                    _told_keys(other),
                    site=matter.site_of_index(relation, index),
                    definition=index.definition,
                    bytes=index.bytes,
                    scans=-1 if index.scans is None else index.scans,
                    writes=use.inserted + use.updated - use.heap_only,
                )
                break


def _covers(other: Index, index: Index) -> bool:
    """Whether *other* can do all that *index* can: the same beginning, over the same rows."""
    if other.method != index.method or other.predicate != index.predicate or len(other.keys) < len(index.keys):
        return False
    if len(other.keys) > len(index.keys) and index.method != "btree":
        return False
    if not all(_same_key(one, two) for one, two in zip(index.keys, other.keys, strict=False)):
        return False
    if index.method != "btree" and index.options != other.options:
        return False
    return set(index.include) <= {*other.include, *other.columns}


def _same_key(one: IndexKey, other: IndexKey) -> bool:
    return (
        (one.column, one.operator_class, one.collation, one.descending, one.nulls_first)
        == (other.column, other.operator_class, other.collation, other.descending, other.nulls_first)
    ) and (bool(one.column) or one.expression == other.expression)


def _told_keys(index: Index) -> list[str]:
    return [key.column or key.expression for key in index.keys]


def check_invalid(matter: Matter) -> Iterator[Finding]:
    """
    An index that failed to build: it is written, and no query may use it.

    `CREATE INDEX CONCURRENTLY` that is cancelled, meets a deadlock or a duplicate leaves one behind; so does `REINDEX
    CONCURRENTLY` (with `_ccnew` or `_ccold` at its end).

    What to do: drop a leftover; build the others anew with `REINDEX INDEX CONCURRENTLY`.

    Silent: while it is being built, and for partitioned indexes, which are invalid until every part is attached.
    """
    for relation, _ in matter.tables():
        for index in relation.indexes:
            standing = matter.standing(index)
            if index.usable or standing is None or standing.is_building or standing.is_partitioned:
                continue
            name = code.relation(index.schema, index.name)
            leftover = re.search(r"_cc(?:new|old)\d*$", index.name) is not None
            fix = (
                code.drop_index(index.schema, relation.name, index.name, "")
                if leftover
                else code.rewrite(f"REINDEX INDEX CONCURRENTLY {name}")
            )
            yield finding(
                "invalid-index",
                "warning",
                _qualified(index.schema, index.name),
                f"{index.name} on {relation.label} is invalid: each write pays for it, no query may use it",
                "drop it: a REINDEX left it behind" if leftover else "build it anew, or drop it",
                site=matter.site_of_index(relation, index),
                evidence={"bytes": index.bytes, "table": relation.label},
                fixes=(fix,),
            )


def check_over_indexed(matter: Matter) -> Iterator[Finding]:
    """As `mapping.check_over_indexed`, by the counters."""
    stock = matter.stock
    for relation, use in matter.tables():
        indexes = [each for each in relation.indexes if matter.may_drop(each)]
        size = sum(each.bytes for each in indexes)
        writes = use.inserted + use.updated - use.heap_only
        unused = [each for each in indexes if each.scans == 0]
        if len(indexes) < mapping.MANY_INDEXES or size <= relation.bytes or writes < matter.options.few_rows:
            continue
        if stock.in_recovery or stock.days < LEAST_DAYS or len(unused) * 2 < len(indexes) or use.scans < USED:
            continue
        yield finding(
            "over-indexed-table",
            "warning" if stock.days >= matter.options.unused_days else "info",
            relation.label,
            f"{relation.label} has {len(indexes)} indexes besides its keys, {_bytes(size)} for a table of "
            f"{_bytes(relation.bytes)}; {len(unused)} were not used in {stock.days:.0f} days",
            "drop those that are not used; let composite indexes replace the others",
            site=matter.site_of(relation),
            evidence={
                "indexes": len(indexes),
                "unused": len(unused),
                "index_bytes": size,
                "table_bytes": relation.bytes,
                "index_writes": writes * len(indexes),
                "writes_a_day": round(writes / stock.days),
                "heap_only_share": round(use.heap_only / use.updated, 2) if use.updated else 0.0,
            },
        )


def check_unindexed(matter: Matter) -> Iterator[Finding]:
    """As `mapping.check_unindexed`, by sizes and by what was deleted."""
    stock = matter.stock
    for reference in stock.references:
        child = stock.relations.get(reference.relation)
        parent = stock.relations.get(reference.target)
        if child is None or parent is None or stock.uses[child.oid].is_partition:
            continue
        if (child.rows or 0) < matter.options.few_rows or any(_serves(each, reference) for each in child.indexes):
            continue
        deletes = stock.uses[parent.oid].deleted
        count, seconds = cost(matter.seen.statements(parent.name, parent.schema, "DELETE"))
        rows = child.rows or 0.0
        severity: Severity = "info"
        why = "a DELETE of a parent, or a load by it, scans the table"
        if deletes or count:
            severity = "error" if max(deletes, count) * rows >= ENORMOUS else "warning"
            why = f"each of {max(deletes, count):,} deleted rows of {parent.label} scanned {rows:,.0f} rows"
        yield mapping.unindexed(
            child.schema,
            child.name,
            reference.columns,
            parent.name,
            severity,
            why,
            site=matter.site_of(child, reference.columns[0]),
            count=count,
            seconds=seconds,
            rows=round(rows),
            deletes=deletes,
            constraint=reference.name,
        )


def _references_of(stock: Stock) -> dict[int, list[Reference]]:
    found: dict[int, list[Reference]] = {}
    for reference in stock.references:
        found.setdefault(reference.relation, []).append(reference)
    return found


def _serves(index: Index, reference: Reference) -> bool:
    """Whether the children of a parent can be found by *index*."""
    if not index.usable or index.method not in {"btree", "hash"}:
        return False
    lead = index.columns[: len(reference.columns)]
    if set(lead) != set(reference.columns):
        return False
    # What looks for children never looks for NULL.
    return not index.predicate or bool(
        len(reference.columns) == 1
        and re.fullmatch(rf"\(*\"?{re.escape(reference.columns[0])}\"? IS NOT NULL\)*", index.predicate)
    )


def _only_index(relation: Relation, index: Index, reference: Reference, gone: set[str]) -> bool:
    others = (other for other in relation.indexes if other is not index and other.name not in gone)
    return _serves(index, reference) and not any(_serves(other, reference) for other in others)


def check_sequences(matter: Matter) -> Iterator[Finding]:
    """
    A sequence, or the column that it fills, is running out of numbers.

    When it ends, every INSERT fails. A `bigint` sequence that fills an `integer` column ends with the column, at
    2,147,483,647. A warning from 70 % on, an error from 90 %.

    What to do: make the column `bigint` (a rewrite of the table under lock: do it in steps, by a new column, a
    trigger and a copy), and the sequence with it.

    Silent: sequences that cycle, and those that nobody has drawn from.
    """
    for sequence in matter.stock.sequences:
        if sequence.last is None or sequence.cycles or sequence.step <= 0:
            continue
        most = min(sequence.most, _MOST.get(sequence.column_type, sequence.most))
        share = (sequence.last - sequence.least) / max(1, most - sequence.least)
        if share < SEQUENCE_WARNING:
            continue
        target = f"{sequence.table}.{sequence.column}" if sequence.table else sequence.name
        left = max(0, (most - sequence.last) // sequence.step)
        table = matter.stock.by_name.get((sequence.schema, sequence.table))
        wider = []
        if table is not None and sequence.column_type in {"smallint", "integer"}:
            wider.append(
                code.rewrite(
                    f"{sequence.column}: Mapped[int] = mapped_column(BigInteger, ...)",
                    f"op.alter_column({code.literal(table.name)}, {code.literal(sequence.column)}, "
                    f"type_=sa.BigInteger(){code.schema_argument(table.schema)})  # rewrites the table under lock",
                )
            )
        yield finding(
            "sequence-exhaustion",
            "error" if share >= SEQUENCE_ERROR else "warning",
            _qualified(sequence.schema, sequence.name),
            f"{sequence.name} has used {share:.0%} of what {target} can hold: {left:,} numbers are left",
            f"make {target} bigint" if sequence.column_type != "bigint" else "raise the sequence's MAXVALUE",
            site=matter.site_of(table, sequence.column) if table is not None else None,
            evidence={"last": sequence.last, "most": most, "left": left, "share": round(share, 4)},
            fixes=tuple(wider),
        )


def check_unanalyzed(matter: Matter) -> Iterator[Finding]:
    """
    A table that was never analysed: the planner guesses.

    It has a megabyte and more, and no column of it has statistics. Without them every condition keeps a fixed share of
    the rows, and joins are chosen by chance. Autovacuum analyses tables by itself, except those that are switched off,
    partitioned ones (their parts it does), and after `pg_restore` or `pg_upgrade` not at once.

    What to do: `ANALYZE`; for partitioned tables in a job, after each big load.

    Silent: where the role that asks may not see statistics.
    """
    for relation, use in matter.tables():
        if not use.readable or not relation.columns:
            continue
        pages = relation.pages
        if relation.kind == "p":
            pages = sum(each.pages for each in matter.stock.relations.values() if each.root == _name(relation))
        if pages < UNANALYZED_PAGES or any(column.null_share is not None for column in relation.columns.values()):
            continue
        yield finding(
            "never-analyzed",
            "info" if relation.kind == "p" else "warning",
            relation.label,
            f"{relation.label} ({_bytes(pages * 8192)}) was never analysed"
            + (": autovacuum leaves partitioned tables alone" if relation.kind == "p" else ""),
            "analyse it",
            site=matter.site_of(relation),
            evidence={"pages": pages, "modified": relation.modified or 0},
            fixes=(code.rewrite(f"ANALYZE {code.relation(relation.schema, relation.name)}"),),
        )


def check_bloat(matter: Matter) -> Iterator[Finding]:
    """
    Half of a table or more is air, by estimate.

    Rows times their average width need far fewer pages than there are. Scans read the rest for nothing. Told from
    32 MB and 50 % on, as information: the estimate is made of averages.

    What to do: find what keeps VACUUM away (long transactions, forgotten replication slots, autovacuum settings). What
    is there goes away with pg_repack, or `VACUUM FULL` in a maintenance window: it locks the table.

    Silent: tables without statistics, or of which a fifth has changed since; those with a `fillfactor` are measured by
    it.
    """
    for relation, use in matter.tables():
        found = bloat.wasted(relation, use)
        if found is None or found[0] < BLOAT_BYTES or found[1] < BLOAT_SHARE:
            continue
        size, share = found
        yield finding(
            "table-bloat",
            "info",
            relation.label,
            f"about {share:.0%} of {relation.label} is empty: {_bytes(size)} of {_bytes(relation.bytes)}",
            "look what keeps VACUUM away; rewrite the table with pg_repack",
            site=matter.site_of(relation),
            evidence={"bytes": relation.bytes, "wasted_bytes": size, "share": round(share, 2)},
        )


def check_vector_indexes(matter: Matter) -> Iterator[Finding]:
    """As the plan rule of that name, for indexes that no plan was seen to use too."""
    for relation, _ in matter.tables():
        rows = relation.rows or 0.0
        for index in relation.indexes:
            if rows < LISTS_ROWS or not index.usable:
                continue
            if index.method == "ivfflat":
                yield from _lists(matter, relation, index, rows)
            elif index.method == "hnsw":
                yield from _links(matter, relation, index, rows)


def _lists(matter: Matter, relation: Relation, index: Index, rows: float) -> Iterator[Finding]:
    lists = int(index.options.get("lists", DEFAULT_LISTS))
    advised = advised_lists(rows)
    if advised / LISTS_FACTOR <= lists <= advised * LISTS_FACTOR:
        return
    name = code.relation(index.schema, index.name)
    hnsw = _create_hnsw(relation, index, code.made_name(index.name, "hnsw"))
    yield finding(
        "vector-index-parameters",
        "info",
        index.name,
        f"{index.name} has {lists} lists for {rows:,.0f} rows; pgvector's guidance is {advised}",
        f"rebuild it with {advised} lists, or use HNSW, which needs no such number",
        site=matter.site_of_index(relation, index),
        evidence={"lists": lists, "lists_advised": advised, "rows": round(rows)},
        fixes=(
            code.rewrite(
                f"ALTER INDEX {name} SET (lists = {advised});\nREINDEX INDEX CONCURRENTLY {name};\n"
                f"-- and for searches: SET ivfflat.probes = {round(math.sqrt(advised))};"
            ),
            code.rewrite(f"{hnsw};\nDROP INDEX CONCURRENTLY {name};"),
        ),
    )


def _links(matter: Matter, relation: Relation, index: Index, rows: float) -> Iterator[Finding]:
    links = int(index.options.get("m", DEFAULT_LINKS))
    name = code.relation(index.schema, index.name)
    if links < LEAST_LINKS:
        yield finding(
            "vector-index-parameters",
            "info",
            index.name,
            f"{index.name} links each of {rows:,.0f} rows to {links} others (m = {links}): searches miss near rows",
            f"rebuild it with m = {DEFAULT_LINKS}, pgvector's default",
            detail="m",
            site=matter.site_of_index(relation, index),
            evidence={"m": links, "m_advised": DEFAULT_LINKS, "rows": round(rows)},
            fixes=(
                code.rewrite(
                    f"ALTER INDEX {name} SET (m = {DEFAULT_LINKS}, ef_construction = 64);\n"
                    f"REINDEX INDEX CONCURRENTLY {name};"
                ),
            ),
        )
    cache = matter.stock.cache_bytes
    key = index.keys[0]
    if cache and index.bytes > cache:
        there = relation.column(key.column)
        match = re.fullmatch(r"(?:\w+\.)?vector\((\d+)\)", there.type) if there is not None else None
        operators = key.operator_class.rpartition(".")[2]
        fixes: tuple[Fix, ...] = ()
        if match is not None and operators.startswith("vector_"):
            half = f"({code.quoted(key.column)}::halfvec({match[1]})) {operators.replace('vector_', 'halfvec_', 1)}"
            fixes = (
                code.rewrite(
                    f"{_create_hnsw(relation, index, code.made_name(index.name, 'half'), half)};\n"
                    f"-- queries have to order by the same expression: {key.column}::halfvec({match[1]})"
                ),
            )
        yield finding(
            "vector-index-parameters",
            "info",
            index.name,
            f"{index.name} takes {_bytes(index.bytes)}, more than the server expects to have cached "
            f"({_bytes(cache)}): each search reads from disk",
            "index it as halfvec, which takes half; raise effective_cache_size if the server has more memory than that",
            detail="memory",
            site=matter.site_of_index(relation, index),
            evidence={"bytes": index.bytes, "effective_cache_size": cache, "m": links, "rows": round(rows)},
            fixes=fixes,
        )


def _create_hnsw(relation: Relation, index: Index, name: str, key: str = "") -> str:
    """An HNSW index with default parameters, on what *index* is on or on *key*."""
    first = index.keys[0]
    key = key or f"{first.column or first.expression} {first.operator_class}"
    return (
        f"CREATE INDEX CONCURRENTLY {code.quoted(name)} ON {code.relation(relation.schema, relation.name)} "
        f"USING hnsw ({key})" + (f" WHERE {index.predicate}" if index.predicate else "")
    )


def advised_lists(rows: float) -> int:
    """Lists of an IVFFlat index, by pgvector's guidance: rows / 1,000 up to a million rows, their square root above."""
    return max(LEAST_LISTS, round(rows / 1000 if rows <= _MILLION else math.sqrt(rows)))


def check_row_security(matter: Matter) -> Iterator[Finding]:
    """
    Tables of tenants without row-level security, where others have it.

    - A table has policies, and row security is off: PostgreSQL applies none of them. An error.
    - Policies of other tables compare a column (`client_account_id`) with a setting; this table has a column of that
      name and type, and no policy: a query that forgets its WHERE reads every tenant's rows. A warning.

    What to do: the same policy as its neighbours have. `FORCE ROW LEVEL SECURITY` where the application's role owns the
    tables; `SET LOCAL` of the setting in each transaction. Conditions that are not leakproof (JSONB, LIKE, full text)
    lose their indexes under a policy.

    Silent: a database without policies, parts of partitioned tables (the root's policies apply), and the tables that
    the column refers to.
    """
    stock = matter.stock
    by_column: dict[tuple[str, str], list[Relation]] = {}
    for relation, use in matter.tables():
        if relation.policies and not use.secured:
            name = code.relation(relation.schema, relation.name)
            yield finding(
                "missing-row-security",
                "error",
                relation.label,
                f"{relation.label} has {len(relation.policies)} policies that do not apply: row security is off",
                "turn it on",
                detail="off",
                site=matter.site_of(relation),
                evidence={"policies": len(relation.policies)},
                fixes=(code.rewrite(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY", _execute_enable(name)),),
            )
        if not use.secured:
            continue
        for column in relation.columns.values():
            word = rf"(?<![\w'.]){re.escape(column.name)}(?![\w'(])"
            if any(
                "current_setting" in each.condition and re.search(word, each.condition) for each in relation.policies
            ):
                by_column.setdefault((column.name, column.base_type), []).append(relation)
    roots = {
        (stock.relations[each.relation].columns[each.columns[0]].name, each.target)
        for each in stock.references
        if len(each.columns) == 1 and each.relation in stock.relations
    }
    for (column_name, kind), secured in sorted(by_column.items()):
        for relation, use in matter.tables():
            here = relation.column(column_name)
            if use.secured or relation.policies or here is None or here.base_type != kind or relation.kind == "m":
                continue
            if (column_name, relation.oid) in roots:
                continue
            name = code.relation(relation.schema, relation.name)
            like = secured[0].policies[0]
            policy = code.quoted(code.made_name(relation.name, "tenant"))
            statements = (
                f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY;\n"
                f"CREATE POLICY {policy} ON {name} USING ({like.condition});"
            )
            yield finding(
                "missing-row-security",
                "warning",
                relation.label,
                f"{relation.label} has {column_name} and no row security, which {len(secured)} other "
                f"{'table has' if len(secured) == 1 else 'tables have'}",
                f"give it the policy that {secured[0].label} has",
                detail=column_name,
                site=matter.site_of(relation, column_name),
                evidence={"column": column_name, "secured": len(secured), "like": secured[0].label},
                fixes=(
                    code.rewrite(
                        statements,
                        "\n".join(f"op.execute({code.literal(each.rstrip(';'))})" for each in statements.split("\n")),
                    ),
                )
                if _is_plain(like.condition)
                else (),
            )


def _is_plain(condition: str) -> bool:
    """Whether a policy's condition may be shown: it compares with a setting, and with no value."""
    without = re.sub(r"current_setting\('[\w.]+'::text(?:, \w+)?\)", "", condition)
    return "'" not in without and not re.search(r"\d", without)


def _execute_enable(name: str) -> str:
    return f"op.execute({code.literal(f'ALTER TABLE {name} ENABLE ROW LEVEL SECURITY')})"


def check_dimensions(matter: Matter) -> Iterator[Finding]:
    """As `mapping.check_vector_dimensions`, between the models, the database, and what failed."""
    for table in matter.models.tables:
        relation = _relation_of(matter, table)
        if relation is None:
            continue
        for column in table.columns:
            kind = mapping.vector_kind(column.type)
            dimensions = getattr(column.type, "dim", None)
            there = relation.column(column.name)
            match = re.fullmatch(r"(?:\w+\.)?(\w+)\((\d+)\)", there.type) if there is not None else None
            if kind is None or not isinstance(dimensions, int) or match is None or int(match[2]) == dimensions:
                continue
            yield finding(
                "vector-dimensions",
                "error",
                f"{relation.label}.{column.name}",
                f"{relation.label}.{column.name} has {match[2]} dimensions in the database, {dimensions} in the model",
                "migrate the column and make its vectors anew, or correct the model: each INSERT fails",
                detail="database",
                site=matter.models.site_of(column),
                evidence={"database": int(match[2]), "model": dimensions},
                fixes=(
                    code.rewrite(
                        f"Vector({match[2]})  # or, with new vectors: see the migration",
                        f'op.execute("UPDATE {code.relation(relation.schema, relation.name)} '  # noqa: S608 - code to read
                        f'SET {code.quoted(column.name)} = NULL")\n'
                        f"op.alter_column({code.literal(relation.name)}, {code.literal(column.name)}, "
                        f"type_=Vector({dimensions}){code.schema_argument(relation.schema)})",
                    ),
                ),
            )
    for other, _ in matter.tables():
        if matter.models.table(other.schema, other.name, matter.stock.default_schema) is None:
            yield from mapping.refused(matter.seen, other.schema, other.name, _vectors_of(other), {})


def _vectors_of(relation: Relation) -> dict[str, int | None]:
    """The columns that pgvector's types have, with their dimensions."""
    found = {}
    for column in relation.columns.values():
        match = re.fullmatch(r"(?:\w+\.)?(?:vector|halfvec|sparsevec)(?:\((\d+)\))?", column.type)
        if match is not None:
            found[column.name] = int(match[1]) if match[1] else None
    return found


def check_undeferred(matter: Matter) -> Iterator[Finding]:
    """As `mapping.check_undeferred`, by the sizes that there are."""
    for mapper in matter.models.mappers:
        relation = _relation_of(matter, mapper.local_table)
        if relation is None or not relation.rows:
            continue
        for prop in mapper.column_attrs:
            column = prop.columns[0]
            there = relation.column(getattr(column, "name", ""))
            if prop.parent is not mapper or prop.deferred or there is None or mapping._known_size(column) is not None:  # noqa: SLF001 - told from the type already
                continue
            size = there.width or 0
            if there.storage in {"x", "e"} and there.width is not None and relation.toast_bytes:
                # A value that is stored apart has the width of its pointer: the widest by type gets what is there.
                apart = [
                    each
                    for each in relation.columns.values()
                    if each.storage in {"x", "e"} and each.width == there.width
                ]
                pointer = there.width <= _POINTER and len(apart) == 1
                size = max(size, round(relation.toast_bytes / relation.rows) if pointer else 0)
            if size >= mapping.WIDE:
                yield mapping.undeferred(matter.models, matter.seen, mapper, prop, column, size)


_POINTER: Final = 20  # bytes: 18, and what alignment adds


def _relation_of(matter: Matter, table: Any) -> Relation | None:
    schema = getattr(table, "schema", None) or matter.stock.default_schema
    return matter.stock.by_name.get((schema, getattr(table, "name", "")))


def _name(relation: Relation) -> tuple[str, str]:
    return relation.schema, relation.name


def _qualified(schema: str, name: str) -> str:
    return name if schema in {"public", ""} else f"{schema}.{name}"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1024:  # noqa: PLR2004 - as PostgreSQL counts
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"


CHECKS: Final[dict[str, Callable[[Matter], Iterable[Finding]]]] = {
    "unused-index": check_unused,
    "redundant-index": check_redundant,
    "invalid-index": check_invalid,
    "over-indexed-table": check_over_indexed,
    "unindexed-foreign-key": check_unindexed,
    "sequence-exhaustion": check_sequences,
    "never-analyzed": check_unanalyzed,
    "table-bloat": check_bloat,
    "vector-index-parameters": check_vector_indexes,
    "vector-dimensions": check_dimensions,
    "undeferred-column": check_undeferred,
    "missing-row-security": check_row_security,
}
