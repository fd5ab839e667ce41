"""
# vector-index-parameters: a vector index made for a table of another size

An IVFFlat index cuts the table into `lists` and looks into `ivfflat.probes` of them. Too many lists for the rows:
each holds few, and the nearest rows lie in lists that are not looked into. Too few: each is long to read. pgvector's
guidance is rows / 1,000 lists up to a million rows and the square root of the rows above, and the square root of the
lists as probes.

## What is proof
An IVFFlat index that a plan uses, with more than three times the lists that the guidance says, or less than a third,
on 10,000 rows and more; or probes below half of the square root of the lists.

[`sqlprobe audit`](../audit.md) tells it of indexes that no plan was seen to use too, and of HNSW indexes: `m` below 5
on 10,000 rows and more (of 20,000 vectors in 400 groups such an index found 26 % of the ten nearest with m = 2, 90 %
with 4, and 99 % with 6 and more), and indexes that are bigger than `effective_cache_size`, which each search reads
from disk.

## What to do
Rebuild it with the number of lists that fits, after the rows are there; set `ivfflat.probes`. HNSW needs neither, and
finds more at the same speed; pgvector's default of `m`, 16, does for most. An index on `halfvec` takes half the memory.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from sqlprobe.model import Fix
from sqlprobe.plans import scans
from sqlprobe.plans.rules import Smell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.plans.catalog import Catalog
    from sqlprobe.plans.plan import Plan
    from sqlprobe.settings import Settings

RULE: Final = "vector-index-parameters"
_FACTOR: Final = 3
_MILLION: Final = 1_000_000
_LEAST_LISTS: Final = 10


def check(plan: Plan, catalog: Catalog, settings: Settings) -> Iterable[Smell]:  # noqa: ARG001 - as every rule's
    """One smell for each index."""
    told = set()
    for node in plan.nodes:
        relation = catalog.of(node)
        index = relation.index(node.index) if relation is not None else None
        if relation is None or index is None or index.method != "ivfflat" or index.name in told:
            continue
        rows = relation.rows or 0.0
        if rows < scans.MATTERS_ROWS or "Order By" not in node.fields:
            continue
        told.add(index.name)
        lists = int(index.options.get("lists", "100"))
        advised = max(_LEAST_LISTS, round(rows / 1000 if rows <= _MILLION else math.sqrt(rows)))
        probes = int(plan.settings.get("ivfflat.probes", "1") or 1)
        good_probes = round(math.sqrt(lists))
        fits = advised / _FACTOR <= lists <= advised * _FACTOR
        if fits and probes >= good_probes / 2:
            continue
        code = f"SET LOCAL ivfflat.probes = {good_probes}"
        if not fits:
            name = f"{index.schema}.{index.name}"
            code = f"ALTER INDEX {name} SET (lists = {advised}); REINDEX INDEX CONCURRENTLY {name}"
        yield Smell(
            rule=RULE,
            nodes=(node,),
            title=f"{index.name} has {lists} lists for {rows:,.0f} rows, and looks into {probes} of them",
            advice=f"{f'rebuild it with {advised} lists and ' if not fits else ''}set ivfflat.probes to "
            f"{round(math.sqrt(lists if fits else advised))}, or use HNSW",
            label=index.name,
            evidence={"lists": lists, "lists_advised": advised, "probes": probes, "rows": round(rows)},
            fixes=(Fix(kind="setting", code=code),),
            severity="info",
            by_time=False,
        )
