"""
# sort-spill: a sort or a hash does not fit into memory

What is larger than `work_mem` is written to disk in pieces and read again.

## What is proof
With ANALYZE, a sort on disk, a hash in several batches, or an aggregate that wrote to disk. Without, a sort of more
than twice `work_mem` by the planner's rows and widths; a sort below a LIMIT keeps only what the LIMIT wants, and is
silent.

## What to do
Sort fewer rows or columns: an index in that order needs no sort, and `load_only()` leaves out what is not shown. Where
the sort is wanted, `SET LOCAL work_mem` for that statement alone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sqlprobe.model import Fix
from sqlprobe.plans import scans
from sqlprobe.plans.rules import Smell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.plans.catalog import Catalog
    from sqlprobe.plans.plan import Node, Plan
    from sqlprobe.settings import Settings

RULE: Final = "sort-spill"
_ROW_OVERHEAD: Final = 24  # bytes of a row in memory beside its columns
_FOR_SURE: Final = 2  # times work_mem: the planner's widths are averages
_UNITS: Final = {"kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40, "B": 1}


def check(plan: Plan, catalog: Catalog, settings: Settings) -> Iterable[Smell]:  # noqa: ARG001 - as every rule's
    """One smell for each node that spills."""
    work_mem = _work_mem(plan, catalog)
    for node in plan.nodes:
        spilled = _spilled(plan, node, work_mem)
        if spilled is None:
            continue
        measured, count = spilled
        keys = [key.expression.masked for key in node.sort_keys()]
        below = next((each for each in node.walk() if each.is_scan and each.relation), None)
        relation = catalog.of(below) if below is not None else None
        label = relation.label if relation is not None else node.kind
        columns = [column.name for key in node.sort_keys() for column in key.expression.columns]
        tables = {column.qualifier for key in node.sort_keys() for column in key.expression.columns}
        by_index = f", by an index in the order of {', '.join(keys)}" if keys and len(tables) == 1 else ""
        wanted = 1 << max(23, int(count * 2.5).bit_length())
        verb = "writes" if measured else "is expected to write"
        yield Smell(
            rule=RULE,
            nodes=(node,),
            title=f"a {node.kind.lower()} of {node.rows:,.0f} rows of {label} {verb} {scans.size(count)} to disk",
            advice=f"sort fewer rows or columns{by_index}, or give this statement more work_mem than "
            f"{scans.size(work_mem)}",
            label=label,
            detail=f"{node.kind}:{','.join(columns)}",
            evidence={"bytes": round(count), "work_mem_bytes": work_mem, "measured": int(measured)},
            fixes=(Fix(kind="setting", code=f"SET LOCAL work_mem = '{wanted >> 20}MB'"),),
            most="warning",
        )


def _spilled(plan: Plan, node: Node, work_mem: int) -> tuple[bool, float] | None:
    """Whether it was measured, and how many bytes go to disk; None if none do."""
    fields = node.fields
    if plan.analyzed:
        if fields.get("Sort Space Type") == "Disk":
            return True, node.number_of("Sort Space Used") * 1024
        if node.kind == "Hash" and node.number_of("Hash Batches") > max(1.0, node.number_of("Original Hash Batches")):
            return True, node.number_of("Peak Memory Usage") * 1024 * node.number_of("Hash Batches")
        if node.kind == "Aggregate" and node.number_of("Disk Usage"):
            return True, node.number_of("Disk Usage") * 1024
        return None
    if node.kind != "Sort" or scans.fetched_share(plan, node) < 1:
        return None
    above = plan.parent(node)
    if above is not None and above.kind == "Limit":
        return None
    count = node.rows * (node.width + _ROW_OVERHEAD)
    return (False, count) if count > _FOR_SURE * work_mem else None


def _work_mem(plan: Plan, catalog: Catalog) -> int:
    said = re.fullmatch(r"(\d+)\s*([kMGT]?B)?", plan.settings.get("work_mem", ""))
    return int(said[1]) * _UNITS[said[2] or "kB"] if said else catalog.work_mem
