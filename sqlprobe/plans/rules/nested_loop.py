"""
# nested-loop: a table is read again for each row of another

For every row on one side of a join, or of a correlated subquery, the whole of another table is read. A hundred rows
and a thousand rows are a hundred thousand looked at; both sides grow.

## What is proof
The inner side of a nested loop, or a subquery that runs once a row, is a sequential scan of at least 1,000 rows, and
all loops together look at a million rows and more (measured with ANALYZE, else the planner's).

## What to do
Index the column that the inner side is joined by, so that each loop looks up its rows; or join instead of asking in a
subquery.
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

RULE: Final = "nested-loop"
_LOOPS: Final = 10
_ROWS: Final = 1_000  # of the inner table: a smaller one is cheaper to read than to look up
_TOGETHER: Final = 1e6  # rows looked at: 50 ms and more


def check(plan: Plan, catalog: Catalog, settings: Settings) -> Iterable[Smell]:  # noqa: ARG001 - as every rule's
    """One smell for each scan that is repeated."""
    for node in plan.scans:
        relation = catalog.of(node)
        if node.kind != "Seq Scan" or relation is None or (relation.rows or 0) < _ROWS:
            continue
        loops = plan.loops(node)
        looked_at = scans.rows_looked_at(plan, node, relation)
        if _kept_in_memory(plan, node):
            continue
        if loops < _LOOPS or loops * looked_at < _TOGETHER:
            continue
        joined = [each for each in scans.tests(node) if scans.is_servable(each)]
        above = next((each for each in plan.above(node) if each.kind == "Nested Loop"), None)
        if above is not None:
            own = scans.names_of(node) - {""}
            found = (conditions.predicate_of(test, own) for test in above.tests("Join Filter"))
            joined += [each for each in found if each is not None and scans.is_servable(each)]
        keys = list(dict.fromkeys(scans.shown_key(relation, node, each.key) for each in joined))
        advice = f"index {relation.label} by {', '.join(keys)}" if keys else "join by an equality that can be indexed"
        yield Smell(
            rule=RULE,
            nodes=(node,),
            title=f"all of {scans.describe(catalog, node)} is read {loops:,.0f} times, once for each row of the other "
            "side",
            advice=advice,
            label=relation.label,
            detail=",".join(sorted({column.name for each in joined for column in each.key.columns})),
            evidence={
                "loops": round(loops),
                "rows_read": round(loops * looked_at),
                "share_of_plan": round(plan.share(node), 4),
            },
        )


def _kept_in_memory(plan: Plan, node: Node) -> bool:
    """Whether the rows are read once and kept for the other loops."""
    above = plan.parent(node)
    return above is not None and above.kind in {"Materialize", "Memoize", "Hash"}
