"""
# deep-offset: rows are read to be skipped

`OFFSET 45000 LIMIT 50` reads, and mostly sorts, 45,050 rows to return 50. Page 900 costs nine hundred times what page
1 does, and rows that are added meanwhile shift the pages.

## What is proof
A LIMIT node that skips at least 1,000 rows and ten times as many as it returns. Plans do not print the offset: it is
worked out from the costs, as the planner did, and may be off by some rows.

## What to do
Remember the last row of the page and ask for what comes after it (keyset paging), in the order of a unique index:

```python
select(Asset).where(tuple_(Asset.name, Asset.id) > (last.name, last.id)).order_by(Asset.name, Asset.id).limit(50)
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlprobe.model import Fix
from sqlprobe.plans import scans
from sqlprobe.plans.rules import Smell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.plans.catalog import Catalog, Relation
    from sqlprobe.plans.plan import Node, Plan
    from sqlprobe.settings import Settings

RULE: Final = "deep-offset"
_DEEP: Final = 1_000  # rows: a few milliseconds, and the next page takes more
_TIMES: Final = 10
_MAX_KEYS: Final = 3  # columns of a code that is shown
_ADVICE: Final = "page by the last row seen instead of by number: WHERE (sort columns) > (those of the last row)"


def check(plan: Plan, catalog: Catalog, settings: Settings) -> Iterable[Smell]:  # noqa: ARG001 - as every rule's
    """One smell for each LIMIT."""
    for node in plan.nodes:
        if node.kind != "Limit" or not node.children:
            continue
        skipped, returned = scans.offset_and_limit(node)
        if skipped < _DEEP or skipped < _TIMES * returned:
            continue
        below = next((each for each in node.walk() if each.is_scan and each.relation), None)
        relation = catalog.of(below) if below is not None else None
        label = relation.label if relation is not None else (below.relation if below is not None else "")
        keys = _sorted_by(node, below, relation)
        yield Smell(
            rule=RULE,
            nodes=(node, *(each for each in node.walk() if each.kind in {"Sort", "Incremental Sort"})),
            title=f"about {skipped:,.0f} rows{f' of {label}' if label else ''} are read to be skipped by OFFSET",
            advice=f"{_ADVICE}; nothing sorts the rows, so pages may overlap" if keys is None else _ADVICE,
            label=label,
            detail=",".join(name for name, _ in keys or ()),
            evidence={"rows_skipped": round(skipped), "rows_returned": round(returned)},
            fixes=tuple(Fix(kind="rewrite", code=code) for code in _codes(relation, keys or [])),
            seconds_share=1.0,
        )


def _sorted_by(limit: Node, scan: Node | None, relation: Relation | None) -> list[tuple[str, bool]] | None:
    """
    The columns that the rows come sorted by, as the Sort or the index says, and whether the last come first.

    Empty where they are not plain columns of the one table that is read, or too many; None where nothing sorts.
    """
    if relation is None or scan is None or sum(each.is_scan for each in limit.walk()) > 1:
        return []
    sort = next((each for each in limit.walk() if each.kind in {"Sort", "Incremental Sort"}), None)
    if sort is not None:
        sorts = [(key.expression.bare(), key.descending) for key in sort.sort_keys()]
        keys = [(column.name if column.kind == "column" else "", descending) for column, descending in sorts]
    else:
        index = relation.index(scan.index)
        if index is None or index.method != "btree":
            return None
        backward = str(scan.fields.get("Scan Direction")) == "Backward"
        keys = [(key.column, key.descending != backward) for key in index.keys]
    return keys if len(keys) <= _MAX_KEYS and all(name for name, _ in keys) else []


def _codes(relation: Relation | None, keys: list[tuple[str, bool]]) -> list[str]:
    """
    The rewrite. None where columns are sorted in different directions, which no comparison of two rows follows, where
    nothing tells two rows with equal ones apart, and where one of them may be NULL: such a row compares with nothing.
    """
    if relation is None or len({descending for _, descending in keys}) != 1:
        return []
    names = [name for name, _ in keys]
    if not relation.is_unique(names):
        primary = next((index.columns for index in relation.usable_indexes if index.primary), None)
        if primary is None:
            return []
        names += [name for name in primary if name not in names]
    for column in map(relation.column, names):
        if column is None or not (column.not_null or column.null_share == 0):
            return []
    columns = [f"{relation.name}.c.{name}" for name in names]
    last = ", ".join(f"last.{name}" for name in names)
    descending = keys[0][1]
    order = ", ".join(f"{column}.desc()" if descending else column for column in columns)
    sign = "<" if descending else ">"
    return [f".where(tuple_({', '.join(columns)}) {sign} tuple_({last})).order_by({order}).limit(size)"]
