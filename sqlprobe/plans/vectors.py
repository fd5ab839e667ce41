"""
Vectors: pgvector's operators, functions and index methods, and the searches in a plan that are made with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlprobe.plans import scans

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.plans.catalog import Catalog, Column, Index, Relation
    from sqlprobe.plans.conditions import Expression
    from sqlprobe.plans.plan import Node, Plan

MANY: Final = 5_000  # rows: an index pays from 2,000 on, the planner says so from there, and 5,000 take a few ms
TYPES: Final = frozenset({"vector", "halfvec", "sparsevec", "bit"})
# Dimensions that an index may hold, by type: pgvector's own limits (of sparsevec, elements that are not 0).
LIMITS: Final = {"vector": 2_000, "halfvec": 4_000, "bit": 64_000, "sparsevec": 1_000_000_000}
MAX_DIMENSIONS: Final = LIMITS["vector"]
METHODS_OF_ACCESS: Final = frozenset({"hnsw", "ivfflat"})

# Operator -> the method of pgvector.sqlalchemy that renders it.
METHODS: Final = {
    "<=>": "cosine_distance",
    "<->": "l2_distance",
    "<#>": "max_inner_product",
    "<+>": "l1_distance",
    "<~>": "hamming_distance",
    "<%>": "jaccard_distance",
}
_CLASSES: Final = {"<=>": "cosine", "<->": "l2", "<#>": "ip", "<+>": "l1", "<~>": "hamming", "<%>": "jaccard"}
# Function -> the method that renders the operator of the same distance.
METHOD_OF_FUNCTION: Final = {
    "cosine_distance": "cosine_distance",
    "l2_distance": "l2_distance",
    "inner_product": "max_inner_product",
    "vector_negative_inner_product": "max_inner_product",
    "l1_distance": "l1_distance",
    "hamming_distance": "hamming_distance",
    "jaccard_distance": "jaccard_distance",
}


class Distance(NamedTuple):
    """A distance in an expression: the operator or function, and the column's name and alias."""

    operator: str
    column: str
    qualifier: str
    is_function: bool


@dataclass(frozen=True, slots=True)
class Search:
    """The nearest rows, found without an index: a sort by a distance, below a LIMIT of `limit` rows."""

    sort: Node
    scan: Node
    relation: Relation
    column: str
    operator: str
    key: Expression
    rows: float
    limit: float


def operator_class(operator: str, base_type: str) -> str:
    """`vector_cosine_ops` for `<=>` on a vector."""
    kind = base_type.rpartition(".")[2]
    return f"{kind if kind in TYPES else 'vector'}_{_CLASSES.get(operator, 'l2')}_ops"


def is_too_long(column: Column) -> bool:
    """Whether pgvector refuses an index on *column* as it is: it has more dimensions than its type's index may hold."""
    kind = column.base_type.rpartition(".")[2]
    length = column.type.rpartition("(")[2].removesuffix(")")
    return length.isdecimal() and int(length) > LIMITS.get(kind, MAX_DIMENSIONS)


def is_vector(relation: Relation, column: str) -> str | None:
    """The vector type of *column*, None if it is of another type."""
    known = relation.column(column)
    kind = known.base_type.rpartition(".")[2] if known is not None else ""
    return kind if kind in TYPES else None


def distance_in(expression: Expression) -> Distance | None:
    """The first distance of a column from something in *expression*."""
    for each in expression.walk():
        if each.kind == "operator" and each.name in METHODS and len(each.parts) == 2:  # noqa: PLR2004 - two operands
            columns = [column for part in each.parts for column in part.columns]
        elif each.kind == "call" and each.name in METHOD_OF_FUNCTION:
            columns = list(each.columns)
        else:
            continue
        if len(columns) == 1:
            return Distance(each.name, columns[0].name, columns[0].qualifier, each.kind == "call")
    return None


def is_bare(expression: Expression) -> bool:
    """Whether *expression* is the distance by operator and nothing else: what an index can order by."""
    return expression.kind == "operator" and expression.name in METHODS


def scan_of(plan: Plan, node: Node, distance: Distance) -> Node | None:
    """The scan at or below *node* that the distance's column comes from."""
    found = [
        each
        for each in node.walk()
        if each.is_scan and each.relation and distance.qualifier in {each.alias, each.relation, ""}
    ]
    return found[0] if found and plan is not None else None


def exact_searches(plan: Plan, catalog: Catalog, many: float = MANY) -> Iterable[Search]:
    """Every sort by a bare distance below a LIMIT, over *many* rows or more."""
    for sort in plan.nodes:
        if sort.kind not in {"Sort", "Incremental Sort"}:
            continue
        keys = sort.sort_keys()
        if not keys or keys[0].descending or not is_bare(keys[0].expression):
            continue
        distance = distance_in(keys[0].expression)
        limit = next((above for above in plan.above(sort) if above.kind == "Limit"), None)
        scan = scan_of(plan, sort, distance) if distance is not None else None
        relation = catalog.of(scan) if scan is not None else None
        if distance is None or limit is None or scan is None or relation is None:
            continue
        rows = scans.kept_rows(plan, scan)
        if rows < many or is_vector(relation, distance.column) is None:
            continue
        yield Search(sort, scan, relation, distance.column, distance.operator, keys[0].expression, rows, limit.rows)


def is_on(node: Node, index: Index, column: str) -> bool:
    """Whether *index* is a vector index on *column*, or on an expression of it."""
    if index.method not in METHODS_OF_ACCESS or not index.keys or node is None:
        return False
    key = index.keys[0]
    return key.column == column or any(each.name == column for each in key.parsed.columns)


def serves(node: Node, index: Index, search: Search) -> bool:
    """Whether *index* could order by what *search* asks for: the planner may have had a reason not to use it."""
    key = index.keys[0]
    left = next((part for part in search.key.parts if part.columns), None)
    return search.operator in key.orders and left is not None and scans.is_key(node, left, key)
