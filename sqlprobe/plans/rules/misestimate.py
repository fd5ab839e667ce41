"""
# misestimate: the planner expects a hundred times more rows, or fewer, than there are

Joins, sorts and parallel workers are chosen by how many rows are expected. Where that is wrong a hundredfold, so may
be the rest of the plan, and it changes from one day to the next.

## What is proof
With ANALYZE, a scan whose estimate and measured rows differ a hundredfold and by 1,000 rows; one that was stopped early
(by a LIMIT, EXISTS or merge join) has not been measured and is silent. Without, a statement of one table whose plan
expects a hundred times the rows that it has returned on average.

## What to do
`ANALYZE` the table where it has not been for long. Where a condition is an expression (a JSON key, `lower(x)`), or
several columns depend on one another, PostgreSQL has no statistics until they are asked for: `CREATE STATISTICS`. An
index on the expression has them too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlprobe.model import Fix
from sqlprobe.plans import conditions, scans
from sqlprobe.plans.rules import Smell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.plans.catalog import Catalog, Relation
    from sqlprobe.plans.plan import Node, Plan
    from sqlprobe.settings import Settings

RULE: Final = "misestimate"
_TIMES: Final = 100
_ROWS: Final = 1_000
_CALLS: Final = 3  # of which an average may be said


def check(plan: Plan, catalog: Catalog, settings: Settings) -> Iterable[Smell]:  # noqa: ARG001 - as every rule's
    """The scan that is furthest off."""
    worst: tuple[float, Node, float, float] | None = None
    for node in plan.scans:
        if not node.tests("Filter") and not node.tests("Index Cond") and not node.tests("Recheck Cond"):
            continue
        expected, real = node.rows, _real_rows(plan, node)
        if real is None or abs(expected - real) < _ROWS or (real < expected and _may_be_stopped(plan, node)):
            continue
        factor = max(expected, 1.0) / max(real, 1.0)
        factor = max(factor, 1 / factor)
        if factor >= _TIMES and (worst is None or factor > worst[0]):
            worst = (factor, node, expected, real)
    if worst is None:
        return
    factor, node, expected, real = worst
    relation = catalog.of(node)
    if relation is None:
        return
    tests = [each for name in ("Index Cond", "Recheck Cond", "Filter") for each in scans.tests(node, name)]
    code, advice = _mend(node, relation, tests)
    yield Smell(
        rule=RULE,
        nodes=(node,),
        title=f"{expected:,.0f} rows of {relation.label} are expected, and there are {real:,.0f}",
        advice=advice,
        label=relation.label,
        detail=",".join(sorted({column.name for each in tests for column in each.key.columns})),
        evidence={"rows_expected": round(expected), "rows_real": round(real), "factor": round(factor)},
        fixes=(Fix(kind="setting", code=code),),
        severity="info",
        most="warning",
    )


def _may_be_stopped(plan: Plan, node: Node) -> bool:
    """Whether something above may have had enough before *node* had given all that it has."""
    below = node
    for above in plan.above(node):
        if above.kind in {"Sort", "Hash"} or (above.kind == "Aggregate" and above.fields.get("Strategy") != "Sorted"):
            return False  # these take all there is before they give anything
        if above.kind in {"Limit", "Merge Join", "Memoize"}:
            return True
        inner = len(above.children) > 1 and above.children[1] is below and above.kind == "Nested Loop"
        if inner and (above.fields.get("Inner Unique") or above.fields.get("Join Type") in {"Semi", "Anti"}):
            return True
        if below.fields.get("Parent Relationship") in {"SubPlan", "InitPlan"}:  # EXISTS wants one row
            return True
        below = above
    return False


def _real_rows(plan: Plan, node: Node) -> float | None:
    if node.actual_rows is not None:
        return node.actual_rows if node.actual_loops else None
    statement = plan.statement
    if statement is None or statement.calls < _CALLS or node.fields.get("Parallel Aware"):
        return None
    if any(above.kind not in {"Sort", "Incremental Sort"} for above in plan.above(node)):
        return None
    return scans.returned_rows(plan) if sum(each.is_scan for each in plan.nodes) == 1 else None


def _mend(node: Node, relation: Relation, tests: list[conditions.Predicate]) -> tuple[str, str]:
    table = f"{relation.schema}.{relation.name}"
    expressions = [each for each in tests if each.key.bare().kind != "column" and each.key.is_known]
    columns = list(dict.fromkeys(each.key.bare().name for each in tests if each.key.bare().kind == "column"))
    for each in expressions:
        text = scans.definition_text(node, each.key)
        if conditions.masked(text) == text:  # no constant of a parameter in it
            return (
                f"CREATE STATISTICS ON ({text}) FROM {table}; ANALYZE {table}",
                f"PostgreSQL keeps no statistics of {text}: create them, or index it",
            )
    if len(columns) > 1:
        names = ", ".join(columns)
        return (
            f"CREATE STATISTICS ON {names} FROM {table}; ANALYZE {table}",
            f"tell PostgreSQL that {names} depend on one another: CREATE STATISTICS, then ANALYZE",
        )
    return f"ANALYZE {table}", f"ANALYZE {table}; where that does not help, raise the statistics target of its columns"
