"""
Candidates: the indexes that a plan's conditions ask for, to be tried in a lab. None of them is advice by itself.

Each is made of the plan's own texts, so that PostgreSQL finds its expression again. No value that was bound is ever in
one: only columns, and expressions whose constants name things of the schema (JSON keys, text search configurations).
"""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from sqlprobe import orm
from sqlprobe.plans import conditions, scans, vectors
from sqlprobe.plans.conditions import SortKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlprobe.plans.catalog import Catalog, Column, Index, IndexKey, Relation
    from sqlprobe.plans.conditions import Expression, Predicate
    from sqlprobe.plans.plan import Node, Plan
    from sqlprobe.plans.vectors import Distance

MAX_OF_SCAN: Final = 24  # candidates: 1 to 2 ms each in the lab
MAX_KEYS: Final = 4
MAX_NAME: Final = 63  # bytes that PostgreSQL keeps of one
MIN_PATTERN: Final = 3  # letters in a row: a trigram index reads all of its entries for fewer
MAX_DIMENSIONS: Final = vectors.MAX_DIMENSIONS
MAX_VALUES: Final = 20  # different ones of a column: a status, a kind; more may be persons
MAX_INCLUDED: Final = 4  # columns, and
MAX_INCLUDED_BYTES: Final = 64  # of them a row: a covering index should not become a second table
LEAST_PAGES: Final = 16  # of a table: a lookup in an index touches four or so
LEAST_COST: Final = 100.0  # units of a statement, some 0.25 ms: one that is called often enough is worth an index still
_LINK: Final = 2  # columns of a table that only links others
SAMPLES: Final = 3  # with different values, of which each has the constant: fewer prove nothing

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

    @property
    def is_ordered(self) -> bool:
        """In another way than PostgreSQL's own."""
        return self.descending or self.nulls_first

    @property
    def ordered(self) -> str:
        """What stands behind a column in SQLAlchemy."""
        nulls = "" if self.nulls_first == self.descending else ".nulls_first()" if self.nulls_first else ".nulls_last()"
        return f"{'.desc()' if self.descending else ''}{nulls}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """
    An index that might help; `predicate` is its WHERE without that word, `rule` the finding it would belong to.

    `include` are the columns it carries beside its keys, `options` what stands in WITH, as pairs. `has_value` says that
    the predicate names a value that all calls have had.
    """

    schema: str
    table: str
    keys: tuple[Key, ...]
    method: str = "btree"
    predicate: str = ""
    rule: str = "missing-index"
    include: tuple[str, ...] = ()
    options: tuple[tuple[str, int], ...] = ()
    has_value: bool = False

    @property
    def name(self) -> str:
        """`ix_orders_tenant_created_at`, the same for the same index."""
        words = [key.column or "_".join(re.findall(r"[a-z]\w*", key.expression.lower())) for key in self.keys]
        plain = re.sub(r"\W+", "_", "_".join(["ix", self.table, *words]))
        suffix = "" if self.method == "btree" else f"_{self.method}"
        suffix += "_pattern" if any(key.operator_class.endswith("_pattern_ops") for key in self.keys) else ""
        suffix += "_partial" if self.predicate else ""
        suffix += "_covering" if self.include else ""
        digest = hashlib.blake2b(self.target.encode(), digest_size=4).hexdigest()
        if self.predicate or self.include or any(key.is_expression for key in self.keys):
            suffix += f"_{digest[:4]}"  # what the words do not tell apart
        if len((plain + suffix).encode()) > MAX_NAME:
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
        include = f" INCLUDE ({', '.join(map(quoted, self.include))})" if self.include else ""
        options = f" WITH ({', '.join(f'{name} = {value}' for name, value in self.options)})" if self.options else ""
        return f"ON {quoted(self.schema)}.{quoted(self.table)}{using} ({keys}){include}{options}{where}"

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(key.column or key.expression for key in self.keys)

    def ddl(self, name: str = "", *, concurrently: bool = True) -> str:
        """The statement that makes it."""
        return f"CREATE INDEX {'CONCURRENTLY ' if concurrently else ''}{quoted(name or self.name)} {self.target}"

    def alembic(self) -> str:
        """The operation of a migration, in a block of its own: CONCURRENTLY runs in no transaction."""
        keys = ", ".join(self._alembic_key(key, "sa.text") for key in self.keys)  # what a migration imports
        options = [repr(self.name), repr(self.table), f"[{keys}]"]
        if self.schema not in {"", "public"}:
            options.append(f"schema={self.schema!r}")
        options += self._options("sa.text")
        options.append("postgresql_concurrently=True")
        return f"with op.get_context().autocommit_block():\n    op.create_index({', '.join(options)})"

    def sqlalchemy(self) -> str:
        """The `Index`: below its class, with the class's attributes, where that is known; or a table's argument."""
        mapper = orm.mapper_of(self.schema, self.table)
        names = {} if mapper is None else {str(column.name): str(key) for key, column in mapper.columns.items()}
        columns = [key for key in self.keys if key.column]
        if not columns or any(key.column not in names or (key.operator_class and key.is_ordered) for key in columns):
            options = [repr(self.name), *(self._alembic_key(key) for key in self.keys), *self._options()]
            text = f"Index({', '.join(options)})"
            return text if mapper is None else f"{text}  # in __table_args__ of class {orm.name_of(mapper)}"
        model = orm.name_of(mapper)
        keys = [
            f"{model}.{names[key.column]}{key.ordered}" if key.column else self._alembic_key(key) for key in self.keys
        ]
        return f"Index({', '.join([repr(self.name), *keys, *self._options()])})  # below class {model}"

    def _alembic_key(self, key: Key, text: str = "text") -> str:
        # `postgresql_ops` goes by the column's name: what has none, or an order too, carries its class in its text.
        return repr(key.column) if key.column and not key.is_ordered else f"{text}({key.text!r})"

    def _options(self, text: str = "text") -> Iterator[str]:
        if self.method != "btree":
            yield f"postgresql_using={self.method!r}"
        named = (key for key in self.keys if key.operator_class and key.column and not key.is_ordered)
        classes = {key.column: key.operator_class for key in named}
        if classes:
            yield f"postgresql_ops={classes!r}"
        if self.include:
            yield f"postgresql_include={list(self.include)!r}"
        if self.options:
            yield f"postgresql_with={dict(self.options)!r}"
        if self.predicate:
            yield f"postgresql_where={text}({self.predicate!r})"


def quoted(name: str) -> str:
    """*name* as an identifier of SQL."""
    return name if _is_plain(name) and name not in _RESERVED else '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """*value* as a string of SQL."""
    return "'" + value.replace("\x00", "").replace("'", "''") + "'"


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


def of_plan(plan: Plan, catalog: Catalog, seen: Seen | None = None) -> list[Candidate]:
    """The candidates of every scan of *plan* that reads much, each once, likely ones first."""
    seen = seen or Seen()
    found: dict[str, Candidate] = {}
    for node in plan.scans:
        relation = catalog.of(node)
        if relation is None or relation.kind not in {"r", "m"} or relation.temporary or relation.root is not None:
            continue
        if not _matters(plan, relation):
            continue
        mine = [each for each in _of_scan(plan, catalog, node, relation, seen) if not _is_there(relation, each)]
        for candidate in list(dict.fromkeys(mine))[:MAX_OF_SCAN]:
            found.setdefault(candidate.target, candidate)
    return list(found.values())


def _matters(plan: Plan, relation: Relation) -> bool:
    """As `scans.matters()`, or small and read by a statement that costs something: the lab tells whether it is that."""
    return scans.matters(relation) or (
        relation.pages >= LEAST_PAGES
        and plan.root.total_cost >= LEAST_COST
        and scans.matters(replace(relation, rows=scans.MATTERS_ROWS, pages=scans.MATTERS_PAGES))
    )


def together(plan: Plan, catalog: Catalog, candidates: Sequence[Candidate]) -> list[tuple[Candidate, ...]]:
    """Those of *candidates* that help only side by side: one for each arm of an OR."""
    found: list[tuple[Candidate, ...]] = []
    for node in plan.scans:
        relation = catalog.of(node)
        if relation is None:
            continue
        for test in node.tests("Filter"):
            if test.kind != "or":
                continue
            arms = [list(_named(conditions.conjuncts(part), node)) for part in test.parts]
            chosen = [_best_of_arm(relation, node, arm, candidates) for arm in arms]
            first = tuple(dict.fromkeys(each for each in chosen if each is not None))
            if len(first) > 1:
                found.append(first)
    return found


def _best_of_arm(
    relation: Relation, node: Node, arm: Sequence[Predicate], candidates: Sequence[Candidate]
) -> Candidate | None:
    keys = [key for test in arm if (key := _key_of(relation, node, test.key)) is not None]
    for each in candidates:
        if (each.schema, each.table) != (relation.schema, relation.name) or each.predicate or each.include:
            continue
        if len(each.keys) == 1 and each.keys[0] in keys:
            return each
    plain = {test.key.bare().name for test in arm}
    return next(
        (
            each
            for each in candidates
            if (each.schema, each.table) == (relation.schema, relation.name)
            and len(each.keys) == 1
            and each.method == "gin"
            and each.keys[0].column in plain
        ),
        None,
    )


Steady = tuple[str, str, str]  # schema, relation, and the test as an index's predicate would hold it


@dataclass(frozen=True, slots=True)
class Seen:
    """
    What the samples of a statement tell: `steady` are the tests that have had one value in all of them.

    A value is named in a partial index only where the schema names it too (an enum's label, the list of a CHECK), or,
    with `few`, where the column has few different ones.
    """

    steady: frozenset[Steady] = frozenset()
    few: bool = False
    keys: frozenset[Steady] = frozenset()  # what is compared, where it holds constants that all samples have

    @classmethod
    def of(cls, plans: Sequence[Plan], *, few: bool = False) -> Seen:
        """
        From the *plans* of one statement's samples. Nothing is steady where fewer than `SAMPLES` are known, or all have
        the same values: nothing then tells a constant of the code from a value that came twice by accident.
        """
        every = [frozenset(_tests_of(plan)) for plan in plans]
        if len(every) < SAMPLES or len(set(every)) == 1:
            return cls(few=few)
        keys = [frozenset(_keys_of(plan)) for plan in plans]
        return cls(frozenset.intersection(*every), few, frozenset.intersection(*keys))


def _tests_of(plan: Plan) -> Iterator[Steady]:
    for node in plan.nodes:
        if not node.relation:
            continue
        for name in ("Filter", "Index Cond", "Recheck Cond"):
            for test in node.tests(name):
                yield node.schema, node.relation, scans.definition_text(node, test)


def _keys_of(plan: Plan) -> Iterator[Steady]:
    for node in plan.nodes:
        if node.relation:
            for test in scans.tests(node, "Filter", "Index Cond", "Recheck Cond"):
                yield node.schema, node.relation, scans.definition_text(node, test.key)


def _of_scan(plan: Plan, catalog: Catalog, node: Node, relation: Relation, seen: Seen) -> Iterator[Candidate]:
    tests = scans.tests(node, "Filter", "Index Cond", "Recheck Cond")
    if node.kind == "Bitmap Heap Scan":
        tests += [
            each for child in node.walk() if child is not node for each in _named(child.tests("Index Cond"), node)
        ]
    order = _order(plan, node, relation)
    joined = _joined(plan, node)
    every = [*tests, *joined]
    by_key = list(_ordered(relation, every, order, node, seen))
    yield from by_key[:_FIRST]
    wheres = list(_partial(relation, node, tests, seen))
    for where, source, has_value in wheres:
        rest = [test for test in every if test.source is not source]
        yield from _where(_ordered(relation, rest, order, node, seen), relation, where, has_value=has_value)
    for test in [*tests, *(each for arm in _arms(node) for each in arm)]:
        yield from _special(catalog, relation, node, test)
    yield from _nearest(plan, node, relation)
    for arm in _arms(node):
        yield from _ordered(relation, arm, [], node, seen)
    yield from _covering(plan, relation, node, by_key)
    yield from by_key[_FIRST:]


_FIRST: Final = 10  # shapes of a scan that are likely; partial, special and covering ones come before the rest


def _where(shapes: Iterable[Candidate], relation: Relation, where: str, *, has_value: bool) -> Iterator[Candidate]:
    """The likeliest of *shapes* for the rows of *where* only; the primary key where nothing else is asked."""
    likely = list(itertools.islice(shapes, 3))
    if not likely:
        primary = next((each for each in relation.usable_indexes if each.primary and "" not in each.columns), None)
        if primary is None or len(primary.columns) != 1:
            return
        likely = [Candidate(relation.schema, relation.name, (Key(primary.columns[0]),))]
    for each in likely:
        yield replace(each, predicate=where, rule="missing-partial-index", has_value=has_value)


def _covering(plan: Plan, relation: Relation, node: Node, shapes: Sequence[Candidate]) -> Iterator[Candidate]:
    """The likeliest shapes with everything that the statement needs of the table, where that is little."""
    needed = _needed(plan, node, relation)
    if needed is None or len(needed) == len(relation.columns) > _LINK:
        return  # whole rows would be a second table, until there is one column more
    for each in shapes[:2]:
        if any(key.is_expression for key in each.keys):
            continue
        rest = tuple(name for name in needed if name not in {key.column for key in each.keys})
        columns = [relation.columns[name] for name in rest]
        width = sum(column.width if column.width is not None else 1_000 for column in columns)
        if rest and len(rest) <= MAX_INCLUDED and width <= MAX_INCLUDED_BYTES:
            yield replace(each, include=rest)


def _needed(plan: Plan, node: Node, relation: Relation) -> list[str] | None:
    """The columns that the statement needs of *node*'s relation; None where that cannot be told."""
    above = list(plan.above(node))
    # A scan below a grouping may hand on whole rows, whatever of them is used: those above know better.
    sources = [node, *above] if not above or above[0].kind in {"Limit", "Sort", "Gather", "Gather Merge"} else above
    found: dict[str, None] = {}
    for each in sources:
        outputs = each.fields.get("Output")
        if not isinstance(outputs, list):
            return None
        texts = [str(text) for text in outputs] if each is not node or sources[0] is node else []
        texts += [str(text) for text in each.fields.get("Group Key") or ()]
        texts += [str(each.fields[name]) for name in ("Hash Cond", "Merge Cond", "Join Filter") if name in each.fields]
        expressions = [conditions.parse(text) for text in texts]
        if not all(expression.is_known for expression in expressions):
            return None
        for expression in expressions:
            for column in expression.columns:
                if column.qualifier in scans.names_of(node):
                    found[column.name] = None
    for test in (each for name in ("Filter", "Index Cond", "Recheck Cond") for each in node.tests(name)):
        if not test.is_known:
            return None
        found.update(dict.fromkeys(column.name for column in test.columns if column.qualifier in scans.names_of(node)))
    return list(found) if found and all(name in relation.columns for name in found) else None


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


def _order(plan: Plan, node: Node, relation: Relation) -> list[SortKey]:
    """The sort above the node, if all its keys are the node's own; what its index sorts it by, below a LIMIT."""
    for above in plan.above(node):
        if above.kind in {"Sort", "Incremental Sort"}:
            keys = list(above.sort_keys())
            own = scans.names_of(node)
            if keys and all(
                key.expression.columns and all(c.qualifier in own for c in key.expression.columns) for key in keys
            ):
                return keys
            return []
        if above.kind == "Limit":
            return _walked(node, relation)
        if above.kind == "Aggregate":
            return _extreme(above, node)
        if above.kind not in _STREAMING:
            return []
    return []


def _walked(node: Node, relation: Relation) -> list[SortKey]:
    """The order in which *node* walks an index that nothing is looked up in."""
    index = relation.index(node.index) if node.index and "Index Cond" not in node.fields else None
    if index is None or index.method != "btree":
        return []
    backward = node.fields.get("Scan Direction") == "Backward"
    return [
        SortKey(
            conditions.parse(quoted(key.column) if key.column else key.expression),
            key.descending != backward,
            key.nulls_first != backward,
        )
        for key in index.keys
    ]


def _extreme(aggregate: Node, node: Node) -> list[SortKey]:
    """What `max()` or `min()`, if the statement asks for nothing else, reads from the end of an index."""
    outputs = aggregate.fields.get("Output")
    if aggregate.fields.get("Group Key") or not isinstance(outputs, list) or len(outputs) != 1:
        return []
    call = conditions.parse(str(outputs[0]))
    while call.kind == "call" and call.name in {"max", "min"} and call.parts and call.parts[0].kind == "call":
        call = call.parts[0]  # of a parallel plan: max((PARTIAL max(x)))
    if call.kind != "call" or call.name not in {"max", "min"} or len(call.parts) != 1:
        return []
    key = call.parts[0]
    own = key.columns and all(column.qualifier in scans.names_of(node) for column in key.columns)
    return [SortKey(key, call.name == "max", call.name == "max")] if own else []


def _key_of(relation: Relation, node: Node, expression: Expression, seen: Seen | None = None) -> Key | None:
    """
    The key that holds *expression*, None where an index may not or should not: where it holds a value, unless *seen*
    says that it is the same in all calls, and may be named.
    """
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
        or inner.kind not in {"call", "cast", "operator", "subscript", "collate", "test"}
    ):
        return None
    text = scans.definition_text(node, inner)
    if conditions.masked(inner.text) != inner.text and not (
        seen is not None and seen.few and (relation.schema, relation.name, text) in seen.keys
    ):
        return None
    if inner.kind == "cast" and inner.bare().kind == "column":
        return None  # the parameter's type asks for it: the statement has to change, see unusable-predicate
    return Key("", text if text.startswith("(") and _encloses(text) else f"({text})")


def _encloses(text: str) -> bool:
    depth = 0
    for token in conditions.tokens(text):
        depth += (token.text == "(") - (token.text == ")")
        if depth == 0:
            return token.end == len(text)
    return False


def _columns(
    relation: Relation, node: Node, tests: Iterable[Predicate], seen: Seen
) -> tuple[list[Key], list[Key], list[Key]]:
    """The keys that are compared with one value, with several, and with a range; the most selective first."""
    equal: dict[Key, float] = {}
    many: dict[Key, float] = {}
    ranges: dict[Key, float] = {}
    for test in tests:
        if test.operator not in _BTREE or (test.operator == "IS NOT NULL" and test.key.kind == "column"):
            continue
        if test.value is not None and test.value.kind == "subplan" and test.operator != "=":
            continue
        key = _key_of(relation, node, test.key, seen)
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
    relation: Relation, tests: Iterable[Predicate], order: Sequence[SortKey], node: Node, seen: Seen
) -> Iterator[Candidate]:
    """B-trees: what is equal first, then the order or the range; each prefix that might do as well."""
    equal, many, ranges = _columns(relation, node, tests, seen)
    sorted_by: list[Key] = []
    for each in order:
        key = _key_of(relation, node, each.expression, seen)
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
        # The first page of an order, by what filters little, or by the order alone.
        _beside(many, sorted_by),
        *[[*equal[:1], *_beside(equal[:1], sorted_by)] for _ in equal[1:2]],
    ]  # fmt: skip
    for shape in shapes:
        keys = tuple(dict.fromkeys(shape))[:MAX_KEYS]
        if keys:
            yield Candidate(relation.schema, relation.name, keys, rule=_rule(relation, keys))


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


def _partial(
    relation: Relation, node: Node, tests: Iterable[Predicate], seen: Seen
) -> Iterator[tuple[str, Expression, bool]]:
    """
    Predicates, the test each comes from, and whether it holds a value: NULL or not, true or false, the presence of a
    JSON key, and a comparison that has had one value in all samples seen.
    """
    found = 0
    for test in tests:
        if found == MAX_PARTIAL or test.key.kind in {"call", "other"} or not test.key.is_known:
            continue
        text = scans.definition_text(node, test.source)
        column = relation.column(test.key.bare().name) if test.key.bare().kind == "column" else None
        if test.operator in _NULLABLE | {"TRUE", "FALSE", "IS TRUE", "IS FALSE"}:
            if conditions.masked(text) != text:
                continue
            if column is not None and test.operator == "IS NOT NULL" and (column.null_share or 0.0) < scans.SELECTIVE:
                continue
            found += 1
            yield text, test.source, False
        elif test.operator in {"?", "?|", "?&"}:
            # The key is a value: one that a program asks for in every call, or a user's.
            if conditions.masked(text) == text and (relation.schema, relation.name, text) in seen.steady:
                found += 1
                yield text, test.source, True
        elif (
            column is not None
            and test.operator in {"=", "= ANY", "<>", "<> ALL"}
            and test.value is not None
            and test.value.is_constant
            and (relation.schema, relation.name, text) in seen.steady
            and (may_name_values(relation, column, text) or (seen.few and is_of_few(relation, column)))
        ):
            found += 1
            yield text, test.source, True


MAX_PARTIAL: Final = 2  # predicates of one scan


def may_name_values(relation: Relation, column: Column, text: str) -> bool:
    """
    Whether the values in *text*, a predicate on *column*, stand in the schema anyway: labels of an enum, TRUE and
    FALSE, the list of a CHECK constraint.
    """
    values = [token.text for token in conditions.tokens(text) if token.kind == "string"]
    listed = " ".join(each.definition for each in relation.constraints if each.kind == "c")
    words = [word for value in values for word in re.split(r"[{},\"]+", value.strip("'")) if word]
    return (
        column.enumerated
        or column.base_type == "boolean"
        or (bool(words) and all(f"'{word}'" in listed for word in words))
    )


def is_of_few(relation: Relation, column: Column) -> bool:
    """Whether *column* has so few values that one of them tells of nobody: no key, and at most `MAX_VALUES`."""
    keys = {name for each in relation.constraints if each.kind in {"p", "u", "f"} for name in each.columns}
    return column.name not in keys and column.distinct is not None and column.distinct <= MAX_VALUES


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
    elif base.endswith("range") and operator in {"@>", "&&", "<@"}:
        yield from made("gist", "", "missing-index")
    elif base == "tsvector" or (key.kind == "call" and key.name == "to_tsvector" and operator == "@@"):
        yield from made("gin", "", "missing-text-index")
    elif operator in {"?", "?|", "?&"}:
        yield from made("gin", "", "missing-jsonb-index")
    elif operator in {"@>", "@?", "@@"} and (base == "jsonb" or (column is None and operator == "@>")):
        yield from made("gin", "jsonb_path_ops", "missing-jsonb-index")
        yield from made("gin", "", "missing-jsonb-index")  # larger, and serves `?` too
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
    """HNSW for a sort by distance, and IVFFlat, with the operator class of the operator."""
    for above in plan.above(node):
        if above.kind not in {"Sort", "Incremental Sort"}:
            continue
        keys = above.sort_keys()
        if not keys or keys[0].descending or not vectors.is_bare(keys[0].expression):
            return
        distance = vectors.distance_in(keys[0].expression)
        if distance is None or distance.qualifier not in scans.names_of(node):
            return
        if not any(each.kind == "Limit" for each in plan.above(above)) or (relation.rows or 0) < vectors.MANY:
            return
        key = _vector_key(relation, node, keys[0].expression, distance)
        if key is None:
            return
        base = Candidate(relation.schema, relation.name, (key,), "hnsw", "", "missing-vector-index")
        yield base
        if not key.operator_class.startswith("sparsevec") and not key.operator_class.endswith(
            ("l1_ops", "jaccard_ops")
        ):
            rows = relation.rows or 0.0
            lists = max(10, round(min(rows / 1000, max(rows, 1e6) ** 0.5)))  # as pgvector's documentation says
            yield replace(base, method="ivfflat", options=(("lists", lists),))
        return


def _vector_key(relation: Relation, node: Node, distance: Expression, found: Distance) -> Key | None:
    """The column, or the halfvec or bits that the statement makes of it; None where an index may not hold it."""
    column = relation.column(found.column)
    if column is None or vectors.is_vector(relation, found.column) is None:
        return None
    inner = next((part for part in distance.parts if part.columns), None)
    if inner is None:
        return None
    kind, _, length = (column.type if inner.kind == "column" else inner.name).rpartition(".")[2].partition("(")
    if inner.kind not in {"column", "cast"} or not length:
        return None
    if kind not in vectors.TYPES or int(length.rstrip(")")) > vectors.LIMITS[kind]:
        return None
    opclass = vectors.operator_class(found.operator, kind)
    if inner.kind == "column":
        return Key(column.name, "", opclass)
    text = scans.definition_text(node, inner)
    if conditions.masked(text) != text:
        return None
    return Key("", text if text.startswith("(") and _encloses(text) else f"({text})", opclass)


@dataclass(frozen=True, slots=True)
class Near:
    """An index that is there and all but does: `why` it does not, in words that follow its name."""

    index: Index
    why: str

    @property
    def is_broken(self) -> bool:
        """Whether it would do if it were valid."""
        return not self.index.usable


def near(relation: Relation, candidate: Candidate) -> Near | None:
    """The index that differs from *candidate* in one thing only, if there is one."""
    for index in relation.indexes:
        if not index.usable and covers(index, candidate):
            return Near(index, "is invalid: a CREATE INDEX CONCURRENTLY that failed, or one under way, left it so")
    for index in relation.usable_indexes:
        why = _difference(relation, index, candidate)
        if why:
            return Near(index, why)
    return None


def _difference(relation: Relation, index: Index, candidate: Candidate) -> str:
    """What keeps *index* from doing what *candidate* does, if that is one thing; else ""."""
    first, wanted = index.keys[0], candidate.keys[0]
    plain = {key.column for key in candidate.keys if key.column and not key.operator_class}
    if index.predicate and index.predicate != candidate.predicate and index.method == candidate.method:
        return f"has only the rows of {conditions.masked(index.predicate)}" if plain.issuperset(index.columns) else ""
    same_columns = _columns_of(first) == _columns_of(wanted)
    if not same_columns or not _columns_of(wanted):
        return ""
    if first.column or wanted.column:  # the catalog gives a column's own name as its expression too
        same_text = first.column == wanted.column
    else:
        same_text = _plain(first.expression) == _plain(wanted.expression)
    if not same_text:
        if index.method != candidate.method or (first.column and not wanted.column and "->" in wanted.expression):
            return ""
        mine, other = first.column or first.expression, wanted.column or wanted.expression
        return f"holds {mine}, and the statement asks for {other}: PostgreSQL takes them for two different expressions"
    if index.method == "brin":
        return "is of the method brin, which leaves out pages where rows lie in its order, and finds no single row"
    if index.method != candidate.method:
        return f"is of the method {index.method}, which does not answer this operator"
    if wanted.operator_class and wanted.operator_class != first.operator_class:
        return f"has the operator class {first.operator_class}, and {wanted.operator_class} is needed"
    if not wanted.operator_class and first.operator_class.endswith(("_pattern_ops", "_path_ops")):
        return f"has the operator class {first.operator_class}, which does not answer this operator"
    columns, wants = ([key.column for key in each.keys] for each in (index, candidate))
    if columns == wants:
        pairs = list(zip(index.keys, candidate.keys, strict=True))
        if index.predicate != candidate.predicate:
            return ""
        if any(a.descending == b.descending and a.nulls_first != b.nulls_first for a, b in pairs):
            return "has its NULLs at the other end than the ORDER BY"
        if any(a.descending != b.descending for a, b in pairs):
            return "has its directions in another combination than the ORDER BY"
        column = relation.column(wanted.column) if wanted.column else None
        if first.collation and column is not None and first.collation not in {"default", ""}:
            return f"has the collation {first.collation}"
    return ""


def _columns_of(key: Key | IndexKey) -> frozenset[str]:
    if key.column:
        return frozenset({key.column})
    return frozenset(column.name for column in conditions.parse(key.expression).columns)


def _is_there(relation: Relation, candidate: Candidate) -> bool:
    """Whether a usable index begins with the candidate's keys already, and covers its rows."""
    return any(covers(index, candidate) for index in relation.usable_indexes)


_SPECIAL: Final = ("_pattern_ops", "_path_ops", "_trgm_ops")  # classes that answer less than their type's own, or other


def covers(index: Index, candidate: Candidate) -> bool:
    """Whether *index* can do whatever *candidate* could."""
    if index.method != candidate.method or _plain(index.predicate) != _plain(candidate.predicate):
        return False
    if len(index.keys) < len(candidate.keys):
        return False
    if not {*candidate.include} <= {*index.include, *index.columns}:
        return False
    pairs = list(zip(index.keys, candidate.keys, strict=False))
    same = all(
        (mine.column == wanted.column if wanted.column else _plain(mine.expression) == _plain(wanted.expression))
        and (not wanted.operator_class or wanted.operator_class == mine.operator_class)
        and (bool(wanted.operator_class) or not mine.operator_class.endswith(_SPECIAL))
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
