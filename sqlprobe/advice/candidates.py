"""
Candidates: the indexes that a plan's conditions ask for, to be tried in a lab. None of them is advice by itself.

Each is made of the plan's own texts, so that PostgreSQL finds its expression again. No value that was bound is ever in
one: only columns, and expressions whose constants name things of the schema (JSON keys, text search configurations).
"""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlprobe.plans import conditions, scans, vectors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlprobe.plans.catalog import Catalog, Index, Relation
    from sqlprobe.plans.conditions import Expression, Predicate, SortKey
    from sqlprobe.plans.plan import Node, Plan

MAX_OF_SCAN: Final = 24  # candidates: 1 to 2 ms each in the lab
MAX_KEYS: Final = 4
MAX_NAME: Final = 63  # bytes that PostgreSQL keeps of one
MIN_PATTERN: Final = 3  # letters in a row: a trigram index reads all of its entries for fewer
MAX_DIMENSIONS: Final = 2_000  # of a vector in an HNSW index

# Without an order, or with one that nobody searches by.
_NOT_ORDERED: Final = frozenset({"json", "jsonb", "xml", "point", "box", "line", "polygon", "path", "circle", "lseg"})
_TEXTS: Final = frozenset({"text", "character varying", "citext"})
_BTREE: Final = frozenset({"=", "<", "<=", ">", ">=", "= ANY", "IS NULL", "IS NOT NULL", "TRUE", "FALSE"})
_NULLABLE: Final = frozenset({"IS NULL", "IS NOT NULL"})
_STREAMING: Final = frozenset(
    {"Gather", "Gather Merge", "Sort", "Incremental Sort", "Nested Loop", "LockRows", "Result", "Subquery Scan"}
)
_is_plain: Final = re.compile(r"[a-z_][a-z0-9_$]*").fullmatch


@dataclass(frozen=True, slots=True)
class Key:
    """
    One key of an index: `column`, or "" and an `expression` in parentheses; `operator_class` "" is the type's own.

    `nulls_first` is what is wanted; PostgreSQL's own is last, and first where descending.
    """

    column: str
    expression: str = ""
    operator_class: str = ""
    descending: bool = False
    nulls_first: bool = False

    @property
    def text(self) -> str:
        """As it stands in CREATE INDEX."""
        words = [quoted(self.column) if self.column else self.expression]
        if self.operator_class:
            words.append(self.operator_class)
        if self.descending:
            words.append("DESC")
        if self.nulls_first != self.descending:
            words.append("NULLS FIRST" if self.nulls_first else "NULLS LAST")
        return " ".join(words)

    @property
    def is_expression(self) -> bool:
        return not self.column


@dataclass(frozen=True, slots=True)
class Candidate:
    """An index that might help; `predicate` is its WHERE without that word, `rule` the finding it would belong to."""

    schema: str
    table: str
    keys: tuple[Key, ...]
    method: str = "btree"
    predicate: str = ""
    rule: str = "missing-index"

    @property
    def name(self) -> str:
        """`ix_orders_tenant_created_at`, the same for the same index."""
        words = [key.column or "_".join(re.findall(r"[a-z]\w*", key.expression.lower())) for key in self.keys]
        plain = re.sub(r"\W+", "_", "_".join(["ix", self.table, *words]))
        suffix = "" if self.method == "btree" else f"_{self.method}"
        suffix += "_partial" if self.predicate else ""
        if len((plain + suffix).encode()) > MAX_NAME:
            digest = hashlib.blake2b(self.target.encode(), digest_size=4).hexdigest()
            plain = f"{plain.encode()[: MAX_NAME - len(suffix) - 9].decode(errors='ignore')}_{digest}"
        return plain + suffix

    @property
    def label(self) -> str:
        return self.table if self.schema in {"public", ""} else f"{self.schema}.{self.table}"

    @property
    def target(self) -> str:
        """What stands behind CREATE INDEX and its name."""
        using = "" if self.method == "btree" else f" USING {self.method}"
        where = f" WHERE {self.predicate}" if self.predicate else ""
        keys = ", ".join(key.text for key in self.keys)
        return f"ON {quoted(self.schema)}.{quoted(self.table)}{using} ({keys}){where}"

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(key.column or key.expression for key in self.keys)

    def ddl(self, name: str = "", *, concurrently: bool = True) -> str:
        """The statement that makes it."""
        return f"CREATE INDEX {'CONCURRENTLY ' if concurrently else ''}{quoted(name or self.name)} {self.target}"

    def alembic(self) -> str:
        """The operation of a migration, in a block of its own: CONCURRENTLY runs in no transaction."""
        options = [repr(self.name), repr(self.table), f"[{', '.join(self._alembic_key(key) for key in self.keys)}]"]
        if self.schema not in {"", "public"}:
            options.append(f"schema={self.schema!r}")
        options += self._options()
        options.append("postgresql_concurrently=True")
        return f"with op.get_context().autocommit_block():\n    op.create_index({', '.join(options)})"

    def sqlalchemy(self) -> str:
        """The `Index` of a table's arguments."""
        options = [repr(self.name), *(self._alembic_key(key) for key in self.keys), *self._options()]
        return f"Index({', '.join(options)})"

    def _alembic_key(self, key: Key) -> str:
        plain = Key(key.column, key.expression, "", key.descending, key.nulls_first)
        if key.column and not key.descending and not key.nulls_first:
            return repr(key.column)
        return f"text({plain.text!r})"

    def _options(self) -> Iterator[str]:
        if self.method != "btree":
            yield f"postgresql_using={self.method!r}"
        classes = {key.column: key.operator_class for key in self.keys if key.operator_class and key.column}
        if classes:
            yield f"postgresql_ops={classes!r}"
        if self.predicate:
            yield f"postgresql_where=text({self.predicate!r})"


def quoted(name: str) -> str:
    """*name* as an identifier of SQL."""
    return name if _is_plain(name) and name not in _RESERVED else '"' + name.replace('"', '""') + '"'


_RESERVED: Final = frozenset({
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "both", "case", "cast",
    "check", "collate", "column", "constraint", "create", "default", "deferrable", "desc", "distinct", "do",
    "else", "end", "except", "false", "fetch", "for", "foreign", "from", "grant", "group", "having", "in",
    "initially", "intersect", "into", "lateral", "leading", "limit", "not", "null", "offset", "on", "only",
    "or", "order", "placing", "primary", "references", "returning", "select", "some", "symmetric", "table",
    "then", "to", "trailing", "true", "union", "unique", "user", "using", "variadic", "when", "where", "window",
    "with", "authorization", "binary", "collation", "concurrently", "cross", "current_date", "freeze", "full",
    "ilike", "inner", "is", "isnull", "join", "left", "like", "natural", "notnull", "outer", "overlaps",
    "right", "similar", "tablesample", "verbose",
})  # fmt: skip


def of_plan(plan: Plan, catalog: Catalog) -> list[Candidate]:
    """The candidates of every scan of *plan* that reads much, each once, likely ones first."""
    found: dict[str, Candidate] = {}
    for node in plan.scans:
        relation = catalog.of(node)
        if relation is None or relation.kind not in {"r", "m"} or relation.temporary or relation.root is not None:
            continue
        if not scans.matters(relation):
            continue
        for candidate in itertools.islice(_of_scan(plan, catalog, node, relation), MAX_OF_SCAN):
            if not _is_there(relation, candidate):
                found.setdefault(candidate.target, candidate)
    return list(found.values())


def _of_scan(plan: Plan, catalog: Catalog, node: Node, relation: Relation) -> Iterator[Candidate]:
    tests = scans.tests(node, "Filter", "Index Cond", "Recheck Cond")
    if node.kind == "Bitmap Heap Scan":
        tests += [
            each for child in node.walk() if child is not node for each in _named(child.tests("Index Cond"), node)
        ]
    order = _order(plan, node)
    joined = _joined(plan, node)
    equal, many, ranges = _columns(relation, node, [*tests, *joined])
    yield from _ordered(relation, equal, many, ranges, order, tests, node)
    for arm in _arms(node):
        equal, many, ranges = _columns(relation, node, arm)
        yield from _ordered(relation, equal, many, ranges, [], arm, node)
    for test in [*tests, *(each for arm in _arms(node) for each in arm)]:
        yield from _special(catalog, relation, node, test)
    yield from _nearest(plan, node, relation)


def _named(tests: Iterable[Expression], node: Node) -> Iterator[Predicate]:
    for test in tests:
        predicate = conditions.predicate_of(test, scans.names_of(node))
        if predicate is not None:
            yield predicate


def _arms(node: Node) -> list[list[Predicate]]:
    """The tests of each arm of the node's ORs."""
    return [
        list(_named(conditions.conjuncts(part), node))
        for test in node.tests("Filter")
        if test.kind == "or"
        for part in test.parts
    ]


def _joined(plan: Plan, node: Node) -> list[Predicate]:
    """What other relations compare the node's columns with."""
    found: list[Predicate] = []
    for above in plan.above(node):
        for name in ("Hash Cond", "Merge Cond", "Join Filter"):
            found += (each for each in _named(above.tests(name), node) if each.operator == "=")
    return found


def _order(plan: Plan, node: Node) -> list[SortKey]:
    """The sort above the node, if all its keys are the node's own and it has not been sorted already."""
    for above in plan.above(node):
        if above.kind in {"Sort", "Incremental Sort"}:
            keys = list(above.sort_keys())
            own = scans.names_of(node)
            if keys and all(
                key.expression.columns and all(c.qualifier in own for c in key.expression.columns) for key in keys
            ):
                return keys
            return []
        if above.kind not in _STREAMING:
            return []
    return []


def _key_of(relation: Relation, node: Node, expression: Expression) -> Key | None:
    """The key that holds *expression*, None where an index may not or should not."""
    inner = expression
    if scans.is_relabelled(expression):
        column = relation.column(expression.bare().name)
        if column is not None and column.base_type in {"character varying", "text"}:
            inner = expression.bare()
    if inner.kind == "column":
        column = relation.column(inner.name)
        if column is None or column.base_type in _NOT_ORDERED | vectors.TYPES or column.type.endswith("[]"):
            return None
        return Key(inner.name)
    if (
        not inner.is_known
        or not inner.columns
        or inner.kind not in {"call", "cast", "operator", "subscript", "collate"}
    ):
        return None
    if conditions.masked(inner.text) != inner.text:  # it holds a value
        return None
    if inner.kind == "cast" and inner.parts[0].kind == "column":
        return None  # the parameter's type asks for it: the statement has to change, see unusable-predicate
    text = scans.definition_text(node, inner)
    return Key("", text if text.startswith("(") and _encloses(text) else f"({text})")


def _encloses(text: str) -> bool:
    depth = 0
    for token in conditions.tokens(text):
        depth += (token.text == "(") - (token.text == ")")
        if depth == 0:
            return token.end == len(text)
    return False


def _columns(relation: Relation, node: Node, tests: Iterable[Predicate]) -> tuple[list[Key], list[Key], list[Key]]:
    """The keys that are compared with one value, with several, and with a range; the most selective first."""
    equal: dict[Key, float] = {}
    many: dict[Key, float] = {}
    ranges: dict[Key, float] = {}
    for test in tests:
        if test.operator not in _BTREE or test.operator == "IS NOT NULL":
            continue
        if test.value is not None and test.value.kind == "subplan" and test.operator != "=":
            continue
        key = _key_of(relation, node, test.key)
        if key is None:
            continue
        column = relation.column(key.column) if key.column else None
        distinct = (column.distinct if column is not None else None) or 200.0
        into = many if test.operator == "= ANY" else equal if test.is_equality else ranges
        into[key] = distinct
    for found in (many, ranges):
        for key in equal:
            found.pop(key, None)
    for key in many:
        ranges.pop(key, None)
    return (
        sorted(equal, key=lambda key: -equal[key]),
        sorted(many, key=lambda key: -many[key]),
        sorted(ranges, key=lambda key: -ranges[key]),
    )


def _ordered(
    relation: Relation,
    equal: list[Key],
    many: list[Key],
    ranges: list[Key],
    order: list[SortKey],
    tests: list[Predicate],
    node: Node,
) -> Iterator[Candidate]:
    """B-trees: what is equal first, then the order or the range; each prefix that might do as well."""
    sorted_by: list[Key] = []
    for each in order:
        key = _key_of(relation, node, each.expression)
        if key is None:
            sorted_by = []
            break
        sorted_by.append(Key(key.column, key.expression, "", each.descending, each.nulls_first))
    if sorted_by and all(key.descending for key in sorted_by) and all(key.nulls_first for key in sorted_by):
        sorted_by = [Key(key.column, key.expression) for key in sorted_by]  # read backwards: the plainer index
    shapes: list[list[Key]] = [
        equal + _beside(equal, sorted_by),
        equal + many + ranges[:1],
        equal + many + _beside(equal + many, sorted_by),
        equal + ranges[:1],
        *[[key] for key in (*equal, *many, *ranges)],
        *[[*equal[:1], key] for key in (*many, *ranges)],
        *[list(pair) for pair in itertools.permutations(equal[:3], 2)],
    ]  # fmt: skip
    wheres = ["", *_partial(relation, node, tests)]
    for shape in shapes:
        keys = tuple(shape[:MAX_KEYS])
        if not keys:
            continue
        for where in wheres:
            named = {key.column for key in keys if key.column}
            if where and any(quoted(name) == where.split(" ")[0].strip("()") for name in named) and len(keys) > 1:
                continue
            rule = "missing-partial-index" if where else _rule(relation, keys)
            yield Candidate(relation.schema, relation.name, keys, predicate=where, rule=rule)


def _beside(keys: Sequence[Key], more: Sequence[Key]) -> list[Key]:
    """*more* without what is equal already."""
    known = {(key.column, key.expression) for key in keys}
    return [key for key in more if (key.column, key.expression) not in known]


def _rule(relation: Relation, keys: Sequence[Key]) -> str:
    for key in keys:
        if key.is_expression and any(
            (column := relation.column(each.name)) is not None and column.base_type == "jsonb"
            for each in conditions.parse(key.expression).columns
        ):
            return "missing-jsonb-index"
    return "missing-index"


def _partial(relation: Relation, node: Node, tests: Iterable[Predicate]) -> list[str]:
    """Predicates that hold no value: NULL or not, true or false, and the presence of a JSON key."""
    found = []
    for test in tests:
        if test.operator not in _NULLABLE | {"TRUE", "FALSE", "?"} or test.key.kind in {"call", "other"}:
            continue
        text = scans.definition_text(node, test.source)
        if conditions.masked(text) != text or not test.key.is_known:
            continue
        column = relation.column(test.column) if test.column else None
        if column is not None and test.operator == "IS NOT NULL" and (column.null_share or 0.0) < scans.SELECTIVE:
            continue
        found.append(text)
    return found[:1]


def _special(catalog: Catalog, relation: Relation, node: Node, test: Predicate) -> Iterator[Candidate]:
    """What a B-tree of the type's own order cannot answer: containment, keys, words, patterns."""
    key = test.key.bare() if scans.is_relabelled(test.key) else test.key
    column = relation.column(key.name) if key.kind == "column" else None
    operator = test.operator

    def made(method: str, opclass: str, rule: str) -> Iterator[Candidate]:
        if column is not None:
            yield Candidate(relation.schema, relation.name, (Key(column.name, "", opclass),), method, "", rule)
        elif key.is_known and key.columns and conditions.masked(key.text) == key.text:
            text = scans.definition_text(node, key)
            expression = text if text.startswith("(") and _encloses(text) else f"({text})"
            yield Candidate(relation.schema, relation.name, (Key("", expression, opclass),), method, "", rule)

    is_array = column is not None and column.type.endswith("[]")
    base = column.base_type if column is not None else ""
    if is_array and operator in {"@>", "&&", "<@"}:
        yield from made("gin", "", "missing-index")
    elif base == "tsvector" or (key.kind == "call" and key.name == "to_tsvector" and operator == "@@"):
        yield from made("gin", "", "missing-text-index")
    elif operator in {"?", "?|", "?&"}:
        yield from made("gin", "", "missing-jsonb-index")
        yield from _present(relation, node, test)
    elif operator in {"@>", "@?", "@@"} and (base == "jsonb" or (column is None and operator == "@>")):
        yield from made("gin", "jsonb_path_ops", "missing-jsonb-index")
    elif operator in {"~~", "~~*", "~", "~*"} and (base in _TEXTS or column is None):
        pattern = test.value.text if test.value is not None and test.value.kind == "constant" else ""
        body = pattern.partition("::")[0].strip("()'")
        if operator == "~~" and body[:1] not in {"%", "_", ""}:
            opclass = "varchar_pattern_ops" if base == "character varying" else "text_pattern_ops"
            yield from made("btree", opclass, "missing-text-index")
        longest = max((len(part) for part in re.split(r"[%_\W]+", body)), default=0)
        if "pg_trgm" in catalog.extensions and longest >= MIN_PATTERN:
            yield from made("gin", "gin_trgm_ops", "missing-text-index")
    elif operator == "IS NOT NULL" and column is None:
        yield from _present(relation, node, test)


def _present(relation: Relation, node: Node, test: Predicate) -> Iterator[Candidate]:
    """A partial index of the rows that have something: small, and read without looking into them."""
    text = scans.definition_text(node, test.source)
    primary = next((index for index in relation.usable_indexes if index.primary and "" not in index.columns), None)
    if primary is None or conditions.masked(text) != text or len(primary.columns) != 1:
        return
    yield Candidate(
        relation.schema, relation.name, (Key(primary.columns[0]),), predicate=text, rule="missing-partial-index"
    )


def _nearest(plan: Plan, node: Node, relation: Relation) -> Iterator[Candidate]:
    """HNSW for a sort by distance, with the operator class of the operator."""
    for above in plan.above(node):
        if above.kind not in {"Sort", "Incremental Sort"}:
            continue
        keys = above.sort_keys()
        if not keys or keys[0].descending or not vectors.is_bare(keys[0].expression):
            return
        distance = vectors.distance_in(keys[0].expression)
        if distance is None or distance.qualifier not in scans.names_of(node):
            return
        column = relation.column(distance.column)
        kind = vectors.is_vector(relation, distance.column)
        if column is None or kind is None or not any(each.kind == "Limit" for each in plan.above(above)):
            return
        length = re.search(r"\((\d+)\)", column.type)
        if length is None or (relation.rows or 0) < vectors.MANY:
            return
        rule = "missing-vector-index"
        if kind == "vector" and int(length[1]) > MAX_DIMENSIONS:
            return
        opclass = vectors.operator_class(distance.operator, column.base_type)
        yield Candidate(relation.schema, relation.name, (Key(column.name, "", opclass),), "hnsw", "", rule)
        return


def _is_there(relation: Relation, candidate: Candidate) -> bool:
    """Whether a usable index begins with the candidate's keys already, and covers its rows."""
    return any(covers(index, candidate) for index in relation.usable_indexes)


def covers(index: Index, candidate: Candidate) -> bool:
    """Whether *index* can do whatever *candidate* could."""
    if index.method != candidate.method or _plain(index.predicate) != _plain(candidate.predicate):
        return False
    if len(index.keys) < len(candidate.keys):
        return False
    pairs = list(zip(index.keys, candidate.keys, strict=False))
    same = all(
        (mine.column == wanted.column if wanted.column else _plain(mine.expression) == _plain(wanted.expression))
        and (not wanted.operator_class or wanted.operator_class == mine.operator_class)
        and (bool(wanted.operator_class) or not mine.operator_class.endswith("_pattern_ops"))
        for mine, wanted in pairs
    )
    if not same or candidate.method != "btree":
        return same
    turned = {(mine.descending != wanted.descending, mine.nulls_first != wanted.nulls_first) for mine, wanted in pairs}
    return (
        turned <= {(False, False)}
        or turned <= {(True, True)}
        or (len(candidate.keys) == 1 and not pairs[0][1].descending)
    )


def _plain(text: str) -> str:
    return re.sub(r"[\s()]", "", text)
