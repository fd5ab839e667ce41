"""
# stale-statistics: the planner counts with a table as it was

PostgreSQL plans by what ANALYZE has last seen. A table that was filled, emptied or rewritten since is planned as if it
had its old rows: the plan may be right for those, and hours too slow for these.

## What is proof
The table matters, and was never analysed; or at least half as many rows as it has were changed since the last ANALYZE,
10,000 at least, and its size is another by a fifth. (The server's count of changed rows alone may lag behind: it would
accuse a table that was loaded and analysed by one script.)

## What to do
`ANALYZE` it after a bulk load. Autovacuum does it by itself where a table changes slowly; where it does not keep up,
lower `autovacuum_analyze_scale_factor` of that table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlprobe.model import Fix
from sqlprobe.plans import scans
from sqlprobe.plans.rules import Smell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.plans.catalog import Catalog
    from sqlprobe.plans.plan import Plan
    from sqlprobe.settings import Settings

RULE: Final = "stale-statistics"
_SHARE: Final = 0.5
_ROWS: Final = 10_000
_GROWN: Final = 0.2


def check(plan: Plan, catalog: Catalog, settings: Settings) -> Iterable[Smell]:  # noqa: ARG001 - as every rule's
    """One smell for each relation."""
    told = set()
    for node in plan.scans:
        relation = catalog.of(node)
        if relation is None or relation.oid in told or relation.kind not in {"r", "m"} or relation.temporary:
            continue
        never = relation.rows is None
        modified = relation.modified or 0
        grown = abs(relation.pages - relation.known_pages) >= _GROWN * max(relation.pages, relation.known_pages)
        stale = grown and modified >= _ROWS and modified >= (relation.rows or 0) * _SHARE
        if relation.pages < scans.MATTERS_PAGES or not (never or stale):
            continue
        told.add(relation.oid)
        table = f"{relation.schema}.{relation.name}"
        since = "it was never analysed" if never else f"{modified:,.0f} rows have changed since it was analysed"
        yield Smell(
            rule=RULE,
            nodes=(node,),
            title=f"{relation.label} ({scans.size(relation.bytes)}) is planned blindly: {since}",
            advice=f"ANALYZE {table} after a load of rows",
            label=relation.label,
            evidence={"rows_changed": modified, "rows_known": round(relation.rows or 0)},
            fixes=(Fix(kind="setting", code=f"ANALYZE {table}"),),
            severity="info",
            most="warning",
        )
