"""
# vector-overfiltering: an approximate search finds fewer rows than are asked for

An HNSW index gives its `hnsw.ef_search` (40) nearest rows, an IVFFlat index those of the lists it probes, and a filter
is applied *afterwards*. `WHERE tenant = ? ORDER BY e <=> q LIMIT 10` then returns two rows for a tenant with 4 % of
the table, and none for most with 0.1 %: without an error, and fast. So does `LIMIT 100`, or an OFFSET, beyond
`ef_search`.

## What is proof
The plan orders by a vector index, and what it can be expected to find (`ef_search`, or the probed share of the rows,
times the share of the rows that the filter keeps) is less than the rows that are asked for, or than the table has.
Iterative scans (`hnsw.iterative_scan`, pgvector 0.8) go on searching: with them on there is no finding.

## What to do
`SET hnsw.iterative_scan = 'relaxed_order'`; or raise `hnsw.ef_search`; or a B-tree on the filter's column where it
keeps less than one row in a hundred (the exact answer is then faster than the approximate one); or a partial index for
each of few large values, or partitions for many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlprobe.model import Fix
from sqlprobe.plans import conditions, scans, vectors
from sqlprobe.plans.rules import Smell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.plans.catalog import Catalog, Index, Relation
    from sqlprobe.plans.plan import Node, Plan
    from sqlprobe.settings import Settings

RULE: Final = "vector-overfiltering"
_EF_SEARCH: Final = 40.0  # pgvector's default
_MISSING: Final = 0.9  # of what is asked for: fewer is told; the estimate is one
_RARE: Final = 0.01  # of the rows: an exact search of them is the faster one


def check(plan: Plan, catalog: Catalog, settings: Settings) -> Iterable[Smell]:  # noqa: ARG001 - as every rule's
    """One smell for each scan."""
    for node in plan.nodes:
        relation = catalog.of(node)
        index = relation.index(node.index) if relation is not None else None
        if relation is None or index is None or index.method not in vectors.METHODS_OF_ACCESS:
            continue
        if "Order By" not in node.fields or not relation.rows:
            continue
        if plan.settings.get(f"{index.method}.iterative_scan", "off") != "off":
            continue
        limit = next((above for above in plan.above(node) if above.kind == "Limit"), None)
        if limit is None:
            continue
        skipped, wanted = scans.offset_and_limit(limit)
        asked = skipped + wanted
        found, how = _found(plan, relation, index)
        kept = min(1.0, node.rows / relation.rows) if node.fields.get("Filter") else 1.0
        if index.predicate:
            kept = 1.0 if not node.fields.get("Filter") else kept
        expected = found * kept
        there = relation.rows * kept
        if expected >= min(asked, there) * _MISSING:
            continue
        yield _smell(node, relation, index, asked, expected, kept, how)


def _found(plan: Plan, relation: Relation, index: Index) -> tuple[float, str]:
    """Rows that the index gives before the filter, and what decides that."""
    if index.method == "hnsw":
        ef_search = _number(plan.settings.get("hnsw.ef_search"), _EF_SEARCH)
        return ef_search, f"hnsw.ef_search = {ef_search:.0f}"
    probes = _number(plan.settings.get("ivfflat.probes"), 1.0)
    lists = _number(index.options.get("lists"), 100.0)
    return (relation.rows or 0.0) * min(1.0, probes / lists), f"ivfflat.probes = {probes:.0f} of {lists:.0f} lists"


def _number(text: str | None, default: float) -> float:
    try:
        return float(text) if text else default
    except ValueError:
        return default


def _smell(node: Node, relation: Relation, index: Index, asked: float, expected: float, kept: float, how: str) -> Smell:
    tests = scans.tests(node)
    columns = list(
        dict.fromkeys(
            column.name
            for each in tests
            if each.operator != "IS NOT NULL"
            for column in each.key.columns
            if vectors.is_vector(relation, column.name) is None
        )
    )
    filtered = bool(node.fields.get("Filter"))
    iterative = f"SET LOCAL {index.method}.iterative_scan = 'relaxed_order'"
    if filtered:
        title = (
            f"{index.name} is expected to find {expected:.1f} of the {asked:,.0f} rows asked for: its filter keeps "
            f"{kept:.1%}".replace("%", " %")
            + f" of what {how} finds"
        )
        advice = f"switch {index.method}.iterative_scan on"
        if kept < _RARE and columns:
            advice += f", or index {', '.join(columns)}: that few rows are compared exactly in no time"
        elif columns:
            advice += f", or make a vector index for each large value of {columns[0]} (partial), or partitions"
    else:
        title = f"{index.name} gives at most {expected:.0f} rows, and {asked:,.0f} are asked for: {how}"
        advice = f"raise it for this statement to LIMIT + OFFSET or above, or switch {index.method}.iterative_scan on"
    raised = f"SET LOCAL hnsw.ef_search = {max(40, min(1000, round(asked * 1.2 / max(kept, 0.001))))}"
    return Smell(
        rule=RULE,
        nodes=(node,),
        title=title,
        advice=advice,
        label=f"{relation.label}.{index.keys[0].column or index.keys[0].expression}",
        detail=",".join(columns) or "limit",
        evidence={
            "index": index.name,
            "rows_asked_for": round(asked),
            "rows_expected": round(expected, 1),
            "filter_keeps": round(kept, 5),
            "condition": conditions.masked(node.text_of("Filter")),
            "search": how,
        },
        fixes=(
            Fix(kind="setting", code=iterative),
            *((Fix(kind="setting", code=raised),) if index.method == "hnsw" else ()),
        ),
        severity="warning",
        by_time=False,
    )
