"""
What a lab writes in PostgreSQL's own formats, since no statement makes it: the height of B-trees, and the counts of
CREATE STATISTICS.

Of PostgreSQL 18, which is the lab's: nbtree.h, bufpage.h, mvdistinct.c, dependencies.c.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Final

from sqlprobe.plans.catalog import PAGE_BYTES

if TYPE_CHECKING:
    from pathlib import Path

FILL: Final = 0.9  # of a B-tree's page
_METAPAGE_ROOT: Final = 24 + 8  # bytes: behind the page's header, a magic number and a version
_PIVOT_BYTES: Final = 20  # of an entry above the leaves, at least: with its line pointer
_PIVOT_FILL: Final = 0.7  # of the pages above the leaves


def tree_height(pages: int, rows: float) -> int:
    """Levels above the leaves of a B-tree of *pages* with *rows* entries: 0 where its root is its only leaf."""
    leaves = pages - 1
    pivot = max(_PIVOT_BYTES, PAGE_BYTES * FILL * leaves / max(rows, 1.0))
    height, fits = 0, 1.0
    while leaves > fits:
        height += 1
        fits *= max(2.0, PAGE_BYTES * _PIVOT_FILL / pivot)
    return height


def write_tree(path: Path, height: int) -> None:
    """
    Make the index whose first file is *path* one of that height: a root, a page on each level, and an empty leaf.

    PostgreSQL looks in the last leaf for the greatest value, and takes the statistics where there is none.
    """
    with path.open("r+b") as file:
        file.seek(_METAPAGE_ROOT)
        file.write(struct.pack("<4I", 1, height, 1, height))
        for number in range(1, height + 2):
            file.seek(number * PAGE_BYTES)
            file.write(_tree_page(number, height + 1 - number))


def _tree_page(number: int, level: int) -> bytes:
    """The only page on *level*: with a link to the page behind it, or an empty leaf. As in PostgreSQL's nbtree.h."""
    leaf, special = level == 0, PAGE_BYTES - 16
    upper = special if leaf else special - 8
    header = struct.pack("<QHHHHHHI", 0, 0, 0, 24 if leaf else 28, upper, special, PAGE_BYTES | 4, 0)
    # One entry of 8 bytes without a key, which is below every other: a line pointer, and the number of the next page.
    pointer = b"" if leaf else struct.pack("<I", upper | 1 << 15 | 8 << 17)
    entry = b"" if leaf else struct.pack("<HHHH", 0, number + 1, 0, 8 | 0x2000)
    flags = (1 if leaf else 0) | (2 if number == 1 else 0)
    return (header + pointer).ljust(upper, b"\0") + entry + struct.pack("<IIIHH", 0, 0, level, flags, 0)


_NDISTINCT: Final = struct.Struct("<III")  # magic, type, number of items
_MAGIC_NDISTINCT: Final = 0xA352BFA4
_MAGIC_DEPENDENCIES: Final = 0xB4549A2C


def packed_ndistinct(text: str, renumbered: dict[int, int]) -> bytes | None:
    """`pg_ndistinct` as it is stored, from its *text*, with the columns *renumbered*; None where none is left."""
    items = _pairs(text, ",", renumbered)
    if not items:
        return None
    body = b"".join(struct.pack(f"<di{len(keys)}h", value, len(keys), *keys) for keys, value in items)
    return _NDISTINCT.pack(_MAGIC_NDISTINCT, 1, len(items)) + body


def packed_dependencies(text: str, renumbered: dict[int, int]) -> bytes | None:
    """`pg_dependencies`, as `packed_ndistinct()`."""
    items = _pairs(text.replace("=>", ","), ",", renumbered)
    if not items:
        return None
    body = b"".join(struct.pack(f"<d{len(keys) + 1}h", value, len(keys), *keys) for keys, value in items)
    return _NDISTINCT.pack(_MAGIC_DEPENDENCIES, 1, len(items)) + body


def _pairs(text: str, separator: str, renumbered: dict[int, int]) -> list[tuple[list[int], float]]:
    """Of `{"1, 2": 300, ...}`: the numbers of columns, and the value. Negative numbers are expressions."""
    found = []
    for name, value in (json.loads(text) if text else {}).items():
        keys = [int(part) for part in name.split(separator)]
        if all(key < 0 or key in renumbered for key in keys):
            found.append(([renumbered.get(key, key) for key in keys], float(value)))
    return found
