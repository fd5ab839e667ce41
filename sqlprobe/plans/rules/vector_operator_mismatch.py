"""
# vector-operator-mismatch: there is a vector index, for another distance

Each operator class of pgvector serves one operator: `vector_cosine_ops` serves `<=>`, `vector_l2_ops` `<->`,
`vector_ip_ops` `<#>`. A query with another operator measures every row, beside an index that costs memory and writes.

## What is proof
As `missing-vector-index`, with a usable vector index on the column (or on the column cast, as `halfvec`) that cannot
order by the operator or expression that is asked for.

## What to do
Ask with the distance that the index is made for, if that is the one the embeddings were trained for; or make the index
for the distance that is asked.
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

RULE: Final = "vector-operator-mismatch"


def check(plan: Plan, catalog: Catalog, settings: Settings) -> Iterable[Smell]:  # noqa: ARG001 - as every rule's
    """One smell for each sort by a distance."""
    for search in vectors.exact_searches(plan, catalog):
        relation, node = search.relation, search.scan
        there = [index for index in relation.usable_indexes if vectors.is_on(node, index, search.column)]
        if not there or any(vectors.serves(node, index, search) for index in there):
            continue
        index = there[0]
        has = sorted(index.keys[0].orders)
        opclass = vectors.operator_class(search.operator, relation.columns[search.column].base_type)
        spelled = search.operator not in index.keys[0].orders
        if spelled:
            title = f"{index.name} is made for {' '.join(has)}, and the query asks for {search.operator}"
            method = vectors.METHODS.get(has[0] if has else "", "")
            advice = f"ask with .{method}(), or make the index with {opclass}" if method else f"make it with {opclass}"
            code = f"{relation.name}.c.{search.column}.{method}(value)" if method else ""
        else:
            title = f"{index.name} is on {index.keys[0].expression}, and the query asks for {search.column} itself"
            advice = f"order by the expression of the index, {index.keys[0].expression} {search.operator} value"
            code = f"{relation.name}.c.{search.column}"
        name = f"ix_{relation.name}_{search.column}_hnsw"
        fixes = [Fix(kind="rewrite", code=code)] if code and spelled else []
        fixes.append(
            Fix(
                kind="create-index",
                code=f"CREATE INDEX CONCURRENTLY {name} ON {relation.schema}.{relation.name} USING hnsw "
                f"({search.column} {opclass})",
            )
        )
        yield Smell(
            rule=RULE,
            nodes=(search.sort, node),
            title=title,
            advice=advice,
            label=f"{relation.label}.{search.column}",
            detail=f"{index.name} {search.operator}",
            evidence={
                "index": index.name,
                "operator_class": index.keys[0].operator_class,
                "operator": search.operator,
                "rows_measured": round(search.rows),
            },
            fixes=tuple(fixes),
            seconds_share=1.0,
        )
