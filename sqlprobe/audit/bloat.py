"""
Bloat: how much of a table is air, estimated from the widths that ANALYZE has seen. Nothing of the table is read.

As check_postgres and PgHero do: rows times their average width, packed into pages as PostgreSQL packs them, against
the pages that are there. Good to some ten percent where columns are of similar width in every row.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from sqlprobe.plans.catalog import PAGE_BYTES

if TYPE_CHECKING:
    from sqlprobe.audit.stock import Use
    from sqlprobe.plans.catalog import Relation

_PAGE_HEADER: Final = 24
_ITEM: Final = 4  # bytes of a line pointer
_TUPLE_HEADER: Final = 23
_ALIGN: Final = 8
_SETTLED: Final = 0.2  # share of rows changed since ANALYZE, from which on its widths are old


def expected_pages(relation: Relation, rows: float, fill_factor: int = 100) -> float | None:
    """Pages that *rows* of *relation* need; None where widths are not known for every column."""
    width = 0.0
    nulls = False
    for column in relation.columns.values():
        if column.width is None or column.null_share is None:
            return None
        width += column.width * (1 - column.null_share)
        nulls = nulls or column.null_share > 0
    header = _TUPLE_HEADER + (math.ceil(len(relation.columns) / 8) if nulls else 0)
    # Columns are aligned by their types, which costs some bytes a row that are not known here.
    tuple_bytes = _aligned(header) + _aligned(width) + _ITEM
    room = (PAGE_BYTES - _PAGE_HEADER) * fill_factor / 100
    each = math.floor(room / tuple_bytes)
    return math.ceil(rows / each) if each > 0 else None


def wasted(relation: Relation, use: Use) -> tuple[int, float] | None:
    """
    Bytes of *relation* that hold no row, and their share (0 to 1); None where that cannot be told.

    The number of pages is that of the last ANALYZE or VACUUM, as the number of rows is.
    """
    if relation.kind not in {"r", "m"} or relation.rows is None or relation.known_pages <= 0 or relation.pages <= 0:
        return None
    rows = relation.rows * relation.known_pages / relation.pages  # as counted, not scaled to the present size
    if relation.modified is not None and relation.modified > _SETTLED * max(rows, 1.0):
        return None
    pages = expected_pages(relation, rows, use.fill_factor)
    if pages is None or pages >= relation.known_pages:
        return None
    share = 1 - pages / relation.known_pages
    return round(share * relation.bytes), share


def _aligned(size: float) -> int:
    return math.ceil(size / _ALIGN) * _ALIGN
