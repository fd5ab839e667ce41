"""
# unbounded-result: a statement returns thousands of rows

Each row is sent, decoded and made an object of; the list grows with the table, and nobody reads it to its end. The
database's part is often the smaller one.

## What is proof
A SELECT without LIMIT that has returned 5,000 rows and more a call on average; where it was not observed, one that is
expected to return 50,000.

## What to do
Give the list a LIMIT and page it; count, sum and filter in the database; stream what really is wanted whole
(`yield_per`).
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

RULE: Final = "unbounded-result"
_SEEN: Final = 5_000
_EXPECTED: Final = 50_000


def check(plan: Plan, catalog: Catalog, settings: Settings) -> Iterable[Smell]:  # noqa: ARG001 - as every rule's
    """At most one smell, of the root."""
    if plan.root.is_write or plan.root.kind == "Limit":
        return
    if any(node.kind == "Limit" and node.relationship != "SubPlan" for node in plan.nodes[:3]):
        return
    returned = scans.returned_rows(plan)
    rows = plan.root.rows if returned is None else returned
    if rows < (_EXPECTED if returned is None else _SEEN):
        return
    first = next((node for node in plan.scans), None)
    relation = catalog.of(first) if first is not None else None
    label = relation.label if relation is not None else (first.relation if first is not None else "")
    verb = "is expected to return" if returned is None else "returns"
    yield Smell(
        rule=RULE,
        nodes=(plan.root,),
        title=f"a call {verb} {rows:,.0f} rows{f' of {label}' if label else ''}: it has no LIMIT",
        advice="page it with LIMIT, let the database do what is done with the rows, or stream them with yield_per",
        label=label,
        evidence={"rows_a_call": round(rows)},
        fixes=(Fix(kind="rewrite", code=".limit(100)"),),
        severity="info",
        most="warning",
        seconds_share=1.0,
    )
