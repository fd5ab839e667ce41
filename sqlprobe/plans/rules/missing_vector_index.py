"""
# missing-vector-index: the nearest rows are found by measuring the distance to all

`ORDER BY embedding <=> ? LIMIT 10` without an index computes a distance for every row and sorts them. No filter is in
the plan, so nothing looks like a missing index; it is the sort key that tells.

## What is proof
A sort below a LIMIT whose first key is the distance of one vector column from a value, over at least 5,000 rows, of a
table on which no usable vector index is. Where a filter leaves fewer rows than that, the exact answer is the right one
and there is no finding.

## What to do
An HNSW index with the operator class of the operator that is used. **It makes answers approximate**: rows that pass a
filter may be missing from them (see `vector-overfiltering`), and `hnsw.ef_search` (40) must not be below LIMIT +
OFFSET.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlprobe.model import Fix
from sqlprobe.plans import vectors
from sqlprobe.plans.rules import Smell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.plans.catalog import Catalog
    from sqlprobe.plans.plan import Plan
    from sqlprobe.settings import Settings

RULE: Final = "missing-vector-index"


def check(plan: Plan, catalog: Catalog, settings: Settings) -> Iterable[Smell]:  # noqa: ARG001 - as every rule's
    """One smell for each sort by a distance."""
    for search in vectors.exact_searches(plan, catalog):
        relation, node = search.relation, search.scan
        if any(vectors.is_on(node, index, search.column) for index in relation.usable_indexes):
            continue
        name = f"ix_{relation.name}_{search.column}_hnsw"
        opclass = vectors.operator_class(search.operator, relation.columns[search.column].base_type)
        table = f"{relation.schema}.{relation.name}"
        code = f"CREATE INDEX CONCURRENTLY {name} ON {table} USING hnsw ({search.column} {opclass})"
        too_long = vectors.is_too_long(relation.columns[search.column])
        yield Smell(
            rule=RULE,
            nodes=(search.sort, node),
            title=f"the distance {search.operator} of {relation.label}.{search.column} is computed for "
            f"{search.rows:,.0f} rows to find the nearest",
            advice="the column has more dimensions than an index of pgvector holds: index it as halfvec (up to 4,000), "
            "ORDER BY (column::halfvec(n)) and the same expression in the index, or store shorter vectors"
            if too_long
            else f"an HNSW index with {opclass}; answers become approximate: keep hnsw.ef_search at LIMIT + OFFSET "
            "or above, and switch hnsw.iterative_scan on where a filter stands beside it",
            label=f"{relation.label}.{search.column}",
            detail=search.operator,
            evidence={
                "operator": search.operator,
                "rows_measured": round(search.rows),
                "limit": round(search.limit),
                "share_of_plan": round(plan.share(search.sort) + plan.share(node), 4),
            },
            fixes=()
            if too_long
            else (
                Fix(
                    kind="create-index",
                    code=code,
                    sqlalchemy=f'Index("{name}", {relation.name}.c.{search.column}, postgresql_using="hnsw", '
                    f'postgresql_ops={{"{search.column}": "{opclass}"}})',
                ),
            ),
            seconds_share=1.0,
        )
