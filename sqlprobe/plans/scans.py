"""
Scans: how much of a relation a node of a plan reads, how much of that it keeps, and what an index could answer.

The planner's estimates, corrected by what is known better: rows that were measured (ANALYZE), rows that the statement
has really returned, the part of a scan that a LIMIT above it fetches, workers that share it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlprobe.plans import conditions

if TYPE_CHECKING:
    from sqlprobe.plans.catalog import Catalog, Index, IndexKey, Relation
    from sqlprobe.plans.conditions import Expression, Predicate
    from sqlprobe.plans.plan import Node, Plan

MATTERS_ROWS: Final = 10_000  # a smaller table is read in a few ms whichever way
MATTERS_PAGES: Final = 100  # 0.8 MB
SELECTIVE: Final = 0.05  # of a table's rows: more of them are found faster without an index, or nearly so

_OF_SYSTEM: Final = frozenset({"pg_catalog", "information_schema", "pg_toast"})

# What hands rows on as they come: a LIMIT above it stops what is below.
_STREAMING: Final = frozenset({
    "Limit", "Result", "Subquery Scan", "LockRows", "Append", "Merge Append", "Gather", "Gather Merge", "ProjectSet",
    "Materialize", "Memoize",
})  # fmt: skip
_LEADER_LOSS: Final = 0.3  # of the leader's time goes to each worker: the planner's own constant

_OF_TEXT: Final = ("text_", "varchar_", "gin_trgm_", "gist_trgm_")  # operator classes that varchar columns have
# What a B-tree answers. Others are asked of the catalog, by an index's operator class.
_BTREE: Final = frozenset(
    {"=", "<", "<=", ">", ">=", "= ANY", "IS NULL", "IS NOT NULL", "IS TRUE", "IS FALSE", "TRUE", "FALSE"}
)
# What some sort of index answers: GIN, GiST, trigram.
_OTHER_INDEXES: Final = frozenset({"@>", "<@", "&&", "?", "?|", "?&", "@@", "@?", "~~", "~~*", "~", "~*", "%"})


def matters(relation: Relation | None) -> bool:
    """Whether it is large enough for a plan to make a difference, and a table that its user can index."""
    return (
        relation is not None
        and (relation.rows or 0) >= MATTERS_ROWS
        and relation.pages >= MATTERS_PAGES
        and relation.schema not in _OF_SYSTEM
    )


def names_of(node: Node) -> frozenset[str]:
    """By which its conditions call the relation; "" where the plan reads no other."""
    return frozenset({node.alias, node.relation, ""})


def tests(node: Node, *fields: str) -> list[Predicate]:
    """The single tests in the conditions *fields* ("Filter" by default) that are about *node*'s own relation."""
    own = names_of(node)
    found = (conditions.predicate_of(each, own) for field in fields or ("Filter",) for each in node.tests(field))
    return [predicate for predicate in found if predicate is not None]


def is_servable(predicate: Predicate) -> bool:
    """Whether an index of some sort could answer *predicate* by itself."""
    if not predicate.key.is_known or not predicate.key.columns:
        return False
    return predicate.operator in _BTREE or predicate.operator in _OTHER_INDEXES


def kept_rows(plan: Plan, node: Node) -> float:
    """Rows that one run of *node* gives, of all its workers together."""
    rows = node.rows if node.actual_rows is None else node.actual_rows
    if node.actual_rows is None and node.fields.get("Parallel Aware"):
        rows *= _divisor(plan, node)
    if node.actual_rows is None:
        returned = returned_rows(plan)
        if returned is not None and _is_all_that_is_read(plan, node):
            rows = min(rows, max(returned, 1.0))
    return rows


def _divisor(plan: Plan, node: Node) -> float:
    gather = next((above for above in plan.above(node) if above.kind in {"Gather", "Gather Merge"}), None)
    workers = gather.number_of("Workers Planned") if gather is not None else 0.0
    return workers + max(0.0, 1.0 - _LEADER_LOSS * workers) if workers else 1.0


def returned_rows(plan: Plan) -> float | None:
    """Rows that one call of the statement has returned on average, None where the driver did not say."""
    statement = plan.statement
    if statement is None or statement.rows is None or not statement.calls:
        return None
    return statement.rows / statement.calls


def _is_all_that_is_read(plan: Plan, node: Node) -> bool:
    """Whether what *node* gives is what the statement returns: nothing joins, groups or cuts it."""
    if any(above.kind not in {"Sort", "Gather", "Gather Merge", "Incremental Sort"} for above in plan.above(node)):
        return False
    return sum(each.is_scan for each in plan.nodes) == 1


def fetched_share(plan: Plan, node: Node) -> float:
    """Which part (0 to 1) of *node*'s rows is fetched before a LIMIT above it is satisfied."""
    share = 1.0
    below = node
    for above in plan.above(node):
        if above.kind == "Limit":
            whole = below.total_cost - below.startup_cost
            if whole > 0:
                share = min(share, max(0.0, above.total_cost - below.startup_cost) / whole)
        elif above.kind not in _STREAMING and not (above.kind == "Nested Loop" and above.children[0] is below):
            break
        below = above
    return share


def offset_and_limit(limit: Node) -> tuple[float, float]:
    """
    About how many rows a Limit node skips, and how many it lets through; both at most what its child is expected to
    give. Worked out from the costs, which is how the planner counts them.
    """
    child = limit.children[0]
    run = child.total_cost - child.startup_cost
    if run <= 0 or child.rows <= 0:
        return 0.0, limit.rows
    skipped = child.rows * (limit.startup_cost - child.startup_cost) / run
    return max(0.0, min(skipped, child.rows)), limit.rows


def rows_looked_at(plan: Plan, node: Node, relation: Relation) -> float:
    """Rows that one run of *node* looks at to find those it gives, as far as the plan tells; at least `kept_rows`."""
    kept = kept_rows(plan, node)
    removed = node.fields.get("Rows Removed by Filter")
    if node.actual_rows is not None:
        return kept + (float(removed) if isinstance(removed, int | float) else 0.0)
    total = relation.rows or 0.0
    share = fetched_share(plan, node)
    if node.kind in {"Seq Scan", "Sample Scan"}:
        return max(kept * share, total * share)
    if node.kind == "Bitmap Heap Scan":
        found = bitmap_rows(node)
        return max(kept * share, found * share) if found is not None else kept * share
    if "Index Cond" not in node.fields:
        return max(kept * share, total * share)
    found = indexed_rows(node, relation)
    return kept * share if found is None else max(kept, found) * share


def bitmap_rows(node: Node) -> float | None:
    """Rows that the indexes below a Bitmap Heap Scan point to."""
    if not node.children:
        return None
    top = node.children[0]
    if top.kind == "BitmapAnd":
        return min((child.rows for child in top.children), default=None)
    if top.kind == "BitmapOr":
        return sum(child.rows for child in top.children)
    return top.rows


def indexed_rows(node: Node, relation: Relation) -> float | None:
    """
    Rows that an Index Scan's own condition finds, before its filter: from the number of different values. None where
    it holds more than equalities, or nothing is known of a column.
    """
    rows = relation.rows
    if rows is None:
        return None
    share = 1.0
    found = tests(node, "Index Cond")
    if len(found) != len(node.tests("Index Cond")):
        return None
    for predicate in found:
        column = relation.column(predicate.key.bare().name) if predicate.key.bare().kind == "column" else None
        if predicate.operator != "=" or column is None or not column.distinct:
            return None
        share /= max(1.0, column.distinct)
    return max(1.0, rows * share)


def definition_text(node: Node, expression: Expression) -> str:
    """*expression* as an index on *node*'s relation would hold it, without the alias. It may hold constants."""
    return conditions.without_qualifiers(expression.text, {node.alias, node.relation})


def shown_key(relation: Relation, node: Node, expression: Expression) -> str:
    """*expression* as a person calls it: without alias, constants, and the cast of a varchar that is none."""
    inner = expression
    if is_relabelled(expression):
        column = relation.column(expression.bare().name)
        if column is not None and column.base_type == "character varying":
            inner = expression.bare()
    return inner.name if inner.kind == "column" else conditions.masked(definition_text(node, inner))


def _stripped(text: str) -> str:
    """Without blanks and the parentheses around it: two printings of one expression are then equal."""
    text = "".join(text.split())
    while text.startswith("(") and text.endswith(")") and _closes_at_end(text):
        text = text[1:-1]
    return text


def _closes_at_end(text: str) -> bool:
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return position == len(text) - 1
    return False


def is_key(node: Node, expression: Expression, key: IndexKey) -> bool:
    """Whether *key* holds just *expression*: PostgreSQL compares trees, and prints equal ones alike."""
    if key.column:
        relabelled = is_relabelled(expression) and key.operator_class.startswith(_OF_TEXT)
        inner = expression.bare() if relabelled else expression
        return inner.kind == "column" and inner.name == key.column
    return _stripped(definition_text(node, expression)) == _stripped(key.expression)


def is_relabelled(expression: Expression) -> bool:
    """Whether it is printed as `(column)::text`: of a column of character varying that is no cast at all."""
    return expression.kind == "cast" and expression.name == "text" and expression.parts[0].kind == "column"


def index_on(node: Node, relation: Relation, expression: Expression) -> Index | None:
    """A usable index whose first key is *expression*."""
    return next((index for index in relation.usable_indexes if is_key(node, expression, index.keys[0])), None)


def describe(catalog: Catalog, node: Node) -> str:
    """`migration.assets (50,000 rows, 12 MB)`."""
    relation = catalog.of(node)
    if relation is None:
        return node.relation
    rows = f"{relation.rows:,.0f} rows, " if relation.rows is not None else ""
    return f"{relation.label} ({rows}{size(relation.bytes)})"


def size(count: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1024 or unit == "GB":  # noqa: PLR2004 - a kilobyte, as PostgreSQL counts
            return f"{count:,.0f} {unit}"
        count /= 1024
    return ""  # pragma: no cover - the last unit takes everything
