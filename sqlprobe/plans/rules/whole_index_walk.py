"""
# whole-index-walk: an index is read from end to end

The plan says `Index Scan`, and looks fine; but nothing tells the index where to begin. It is walked for its order,
and a filter looks at every row on the way; or only its second column is asked for.

## What is proof
An index scan on a table that matters, expected to look at 1,000 rows and more and to keep at most a tenth, which has

* no index condition, and a filter that an index could answer: `WHERE tenant = ? ORDER BY created_at LIMIT 20` walks
  the index on `created_at` until twenty rows of the tenant have come by;
* or a condition that leaves out the index's first column. From PostgreSQL 18 on such an index is *skipped through*,
  which is fine where the first column has few values: there it is told only from 1,000 values on.

## What to do
An index that begins with what is compared for equality, and goes on with what is sorted by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlprobe.plans import conditions, scans
from sqlprobe.plans.rules import Smell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.plans.catalog import Catalog, Relation
    from sqlprobe.plans.plan import Node, Plan
    from sqlprobe.settings import Settings

RULE: Final = "whole-index-walk"
_MANY: Final = 1_000  # rows: as filter-discards-rows
_FEW: Final = 0.1
_SKIP_SCAN_FROM: Final = 180_000
_MANY_VALUES: Final = 1_000  # searches of a skip scan: some milliseconds


def check(plan: Plan, catalog: Catalog, settings: Settings) -> Iterable[Smell]:  # noqa: ARG001 - as every rule's
    """One smell for each index scan."""
    for node in plan.nodes:
        if node.kind not in {"Index Scan", "Index Only Scan"} or "Order By" in node.fields:
            continue
        relation = catalog.of(node)
        if relation is None or not scans.matters(relation):
            continue
        tests = [predicate for predicate in scans.tests(node) if scans.is_servable(predicate)]
        if "Index Cond" not in node.fields:
            if tests:
                yield from _walk(plan, node, relation, tests)
        elif _leaves_out_first(node, relation, catalog.server_version):
            yield _trailing(plan, node, relation)


def _walk(plan: Plan, node: Node, relation: Relation, tests: list[conditions.Predicate]) -> Iterable[Smell]:
    read = scans.rows_looked_at(plan, node, relation)
    kept = scans.kept_rows(plan, node) * scans.fetched_share(plan, node)
    if read < _MANY or kept > read * _FEW:
        return
    keys = list(dict.fromkeys(scans.shown_key(relation, node, each.key) for each in tests))
    index = relation.index(node.index)
    order = ", ".join(key.column or conditions.masked(key.expression) for key in index.keys) if index else ""
    yield Smell(
        rule=RULE,
        nodes=(node,),
        title=f"{node.index} is walked past {read:,.0f} rows of {relation.label} to find {max(kept, 1):,.0f}",
        advice=f"index {', '.join(keys)} first, then what it is sorted by{f' ({order})' if order else ''}",
        label=relation.label,
        detail=",".join(sorted({column.name for each in tests for column in each.key.columns})),
        evidence={
            "index": node.index,
            "condition": conditions.masked(node.text_of("Filter")),
            "rows_read": round(read),
            "rows_kept": round(kept),
            "share_of_plan": round(plan.share(node), 4),
        },
    )


def _leaves_out_first(node: Node, relation: Relation, version: int) -> bool:
    index = relation.index(node.index)
    if index is None or index.method != "btree" or len(index.keys) == 1 or not node.tests("Index Cond"):
        return False
    first = index.keys[0]
    for test in node.tests("Index Cond"):
        predicate = conditions.predicate_of(test, scans.names_of(node))
        if predicate is None or not predicate.key.is_known:
            return False
        key = predicate.key.parts[0] if predicate.key.kind == "row" and predicate.key.parts else predicate.key
        if scans.is_key(node, key, first):
            return False
    if version < _SKIP_SCAN_FROM:
        return True
    column = relation.column(first.column) if first.column else None
    return column is not None and (column.distinct or 0) >= _MANY_VALUES


def _trailing(plan: Plan, node: Node, relation: Relation) -> Smell:
    index = relation.index(node.index)
    assert index is not None
    columns = sorted({column.name for test in node.tests("Index Cond") for column in test.columns})
    first = index.keys[0].column or conditions.masked(index.keys[0].expression)
    return Smell(
        rule=RULE,
        nodes=(node,),
        title=f"{node.index} begins with {first}, which is not asked for: it is searched from end to end",
        advice=f"an index on {relation.label} that begins with {', '.join(columns)}",
        label=relation.label,
        detail=",".join(columns),
        evidence={
            "index": node.index,
            "condition": conditions.masked(node.text_of("Index Cond")),
            "rows_kept": round(node.rows),
            "share_of_plan": round(plan.share(node), 4),
        },
    )
