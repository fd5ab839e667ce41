"""
# seq-scan: a whole table is read to find a few of its rows

PostgreSQL reads every row of the table and throws nearly all away, because no index answers what is asked. The cost
grows with the table: what takes 5 ms today takes a second when it is two hundred times as large.

## What is proof
A `Seq Scan` with a filter that keeps at most 5 % of the rows, on a table of at least 10,000 rows and 100 pages, and
not stopped early by a LIMIT. What the filter keeps is the planner's estimate, or less where the statement is known to
return fewer rows: a key in a JSON column, of which PostgreSQL keeps no statistics, looks as if all rows had it.

## What to do
Index what the filter tests; the finding names it. Where the statement really wants most of the table, there is no
finding.

## Limits
A filter that no index could answer (`<>`, NOT IN) is silent, as is a table that is small today.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlprobe.plans import conditions, scans
from sqlprobe.plans.rules import Smell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.plans.catalog import Catalog
    from sqlprobe.plans.plan import Plan
    from sqlprobe.settings import Settings

RULE: Final = "seq-scan"


def check(plan: Plan, catalog: Catalog, settings: Settings) -> Iterable[Smell]:  # noqa: ARG001 - as every rule's
    """One smell for each scan."""
    for node in plan.scans:
        relation = catalog.of(node)
        if node.kind != "Seq Scan" or relation is None or not scans.matters(relation):
            continue
        tests = [predicate for predicate in scans.tests(node) if scans.is_servable(predicate)]
        ors = [test for test in node.tests("Filter") if test.kind == "or" and _is_indexable_or(test, node.alias)]
        total = relation.rows or 0.0
        read = scans.rows_looked_at(plan, node, relation)
        kept = scans.kept_rows(plan, node)
        if not (tests or ors) or read < scans.MATTERS_ROWS / 2 or kept > total * scans.SELECTIVE:
            continue
        keys = list(dict.fromkeys(scans.shown_key(relation, node, each.key) for each in tests))
        keys += [scans.shown_key(relation, node, each) for each in ors]
        loops = plan.loops(node)
        times = f", {loops:,.0f} times over" if loops > 1 else ""
        yield Smell(
            rule=RULE,
            nodes=(node,),
            title=f"all of {scans.describe(catalog, node)} is read to find {max(kept, 1):,.0f} rows{times}",
            advice=f"index what it filters by: {', '.join(keys)}",
            label=relation.label,
            detail=",".join(sorted({column.name for each in (*tests,) for column in each.key.columns})),
            evidence={
                "condition": conditions.masked(node.text_of("Filter")),
                "rows_read": round(read),
                "rows_kept": round(kept),
                "table_bytes": relation.bytes,
                "share_of_plan": round(plan.share(node), 4),
                "loops": round(loops),
            },
        )


def _is_indexable_or(test: conditions.Expression, alias: str) -> bool:
    """Whether each arm of an OR could be answered by an index."""
    for part in test.parts:
        found = [conditions.predicate_of(each, {alias, ""}) for each in conditions.conjuncts(part)]
        if not any(predicate is not None and scans.is_servable(predicate) for predicate in found):
            return False
    return True
