"""
# filter-discards-rows: an index finds many rows, and a filter throws nearly all away

The index that is used knows only a part of what is asked: each row that it finds is fetched from the table, looked at
and dropped. An index with the other column too would find the right ones at once.

## What is proof
An index or bitmap scan on a table that matters whose index finds at least 1,000 rows, of which the filter keeps at
most a tenth. With ANALYZE both numbers are measured; without, they are the planner's, from the index itself (bitmap
scans) or from the number of different values of the columns (index scans by equality).

## What to do
Add the column of the filter to the index, behind those that are compared for equality.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlprobe.plans import conditions, scans
from sqlprobe.plans.rules import Smell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.plans.catalog import Catalog
    from sqlprobe.plans.plan import Node, Plan
    from sqlprobe.settings import Settings

RULE: Final = "filter-discards-rows"
_MANY: Final = 1_000  # rows: some milliseconds of looking at them
_FEW: Final = 0.1


def check(plan: Plan, catalog: Catalog, settings: Settings) -> Iterable[Smell]:  # noqa: ARG001 - as every rule's
    """One smell for each scan."""
    for node in plan.scans:
        relation = catalog.of(node)
        if node.kind not in {"Index Scan", "Index Only Scan", "Bitmap Heap Scan"} or not scans.matters(relation):
            continue
        if relation is None or (node.kind != "Bitmap Heap Scan" and "Index Cond" not in node.fields):
            continue
        tests = [predicate for predicate in scans.tests(node) if scans.is_servable(predicate)]
        loops = plan.loops(node)
        found = scans.rows_looked_at(plan, node, relation)
        kept = scans.kept_rows(plan, node) * scans.fetched_share(plan, node)
        if not tests or found * loops < _MANY or kept > found * _FEW:
            continue
        keys = list(dict.fromkeys(scans.shown_key(relation, node, each.key) for each in tests))
        index = node.index or _bitmap_index(node)
        yield Smell(
            rule=RULE,
            nodes=(node,),
            title=f"{index or 'an index'} finds {found * loops:,.0f} rows of {relation.label}, and a filter keeps "
            f"{max(kept * loops, 1):,.0f} of them",
            advice=f"give the index what the filter tests: {', '.join(keys)}",
            label=relation.label,
            detail=",".join(sorted({column.name for each in tests for column in each.key.columns})),
            evidence={
                "index": index,
                "condition": conditions.masked(node.text_of("Filter")),
                "rows_read": round(found * loops),
                "rows_kept": round(kept * loops),
                "share_of_plan": round(plan.share(node), 4),
            },
        )


def _bitmap_index(node: Node) -> str:
    return ", ".join(dict.fromkeys(below.index for below in node.walk() if below.index))
