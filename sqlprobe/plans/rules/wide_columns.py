"""
# wide-columns: large values are fetched from their own storage for every row

A text, JSON or vector of more than 2 kB is stored apart (TOAST) and put together again, piece by piece, for each row
that returns it. The planner does not count that: the plan looks cheap, and sending a hundred embeddings of 1,536
numbers takes longer than finding them.

## What is proof
The statement returns the column, as the plan's output says; the table keeps at least 10 MB apart, and what one call
returns of it is at least 1 MB, by the rows it has returned on average (or the plan's) and the bytes a row.

## What to do
Load what is shown: `defer(Model.embedding)` or `load_only(...)` on the query, or `deferred()` in the mapping. Compute
in the database what would be computed from the column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlprobe.model import Fix
from sqlprobe.plans import conditions, scans
from sqlprobe.plans.rules import Smell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.plans.catalog import Catalog, Relation
    from sqlprobe.plans.plan import Plan
    from sqlprobe.settings import Settings

RULE: Final = "wide-columns"
_TOAST: Final = 10 << 20
_CALL: Final = 1 << 20
_POINTER: Final = 20  # bytes, about, of a value that is stored apart: what ANALYZE sees of it


def check(plan: Plan, catalog: Catalog, settings: Settings) -> Iterable[Smell]:  # noqa: ARG001 - as every rule's
    """One smell for each relation."""
    if plan.root.is_write:
        return
    returned = scans.returned_rows(plan)
    rows = plan.root.rows if returned is None else returned
    output = plan.root.fields.get("Output")
    shown = [conditions.parse(str(each)) for each in output] if isinstance(output, list) else []
    for node in plan.scans:
        relation = catalog.of(node)
        if relation is None or relation.toast_bytes < _TOAST or not relation.rows:
            continue
        wide = _wide(relation)
        one = any(each.relation and each.relation != node.relation for each in plan.scans)
        names = {node.alias, node.relation} if one else scans.names_of(node)
        fetched = [
            each.name for each in shown if each.kind == "column" and each.name in wide and each.qualifier in names
        ]
        each_row = relation.toast_bytes / relation.rows
        if not fetched or rows * each_row < _CALL:
            continue
        columns = ", ".join(fetched)
        table = f"{relation.name}.c"
        yield Smell(
            rule=RULE,
            nodes=(plan.root,) if plan.root is not node else (node,),
            title=f"{scans.size(rows * each_row)} of {columns} are fetched in each call, {rows:,.0f} rows of "
            f"{scans.size(each_row)}",
            advice=f"leave {columns} out where it is not shown: defer() it on the query, or deferred() in the mapping",
            label=relation.label,
            detail=",".join(fetched),
            evidence={"bytes_a_call": round(rows * each_row), "rows": round(rows), "toast_bytes": relation.toast_bytes},
            fixes=(
                Fix(kind="loader-option", code=f".options({', '.join(f'defer(Model.{name})' for name in fetched)})"),
                Fix(kind="rewrite", code=f"select({table}.id)"),
            ),
            severity="info",
            most="warning",
            seconds_share=1.0,
        )


def _wide(relation: Relation) -> frozenset[str]:
    """The columns whose values are stored apart: long by their type, short by what is left in the row."""
    return frozenset(
        column.name
        for column in relation.columns.values()
        if column.storage in {"x", "e", "m"}
        and column.width is not None
        and _may_be_apart(column.width, column.storage)
    )


def _may_be_apart(width: int, storage: str) -> bool:
    return (width <= _POINTER * 2 and storage == "e") or width >= 1000 or width == 18  # noqa: PLR2004 - a pointer's size
