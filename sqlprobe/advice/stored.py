"""
What a lab writes in PostgreSQL's own formats, since no statement makes it: the height of B-trees, and the counts of
CREATE STATISTICS.

Of PostgreSQL 18, which is the lab's: nbtree.h, bufpage.h, mvdistinct.c, dependencies.c.
"""

from __future__ import annotations

import functools
import json
import operator
import struct
from typing import Final

from sqlprobe.plans.catalog import PAGE_BYTES

FILL: Final = 0.9  # of a B-tree's page
_HEADER_BYTES: Final = 24
_SPECIAL_BYTES: Final = 16
_LEAF, _ROOT, _META = 1, 2, 8
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


@functools.cache
def tree(height: int, *, checksums: bool = False) -> bytes:
    """
    The first pages of an index of that height: the metapage, a root, a page on each level, and an empty leaf.

    PostgreSQL looks in the last leaf for the greatest value, and takes the statistics where there is none.
    """
    pages = [_metapage(height), *(_tree_page(number, height + 1 - number) for number in range(1, height + 2))]
    if checksums:
        pages = [page[:8] + struct.pack("<H", _checksum(page, number)) + page[10:] for number, page in enumerate(pages)]
    return b"".join(pages)


def _metapage(height: int) -> bytes:
    """The root and the page to begin at are the first behind it; entries of equal keys may be shared."""
    data = struct.pack("<7I4xdB7x", 0x053162, 4, 1, height, 1, height, 0, -1.0, 1)
    return _page(data, b"", struct.pack("<IIIHH", 0, 0, 0, _META, 0))


def _tree_page(number: int, level: int) -> bytes:
    """The only page on *level*: with a link to the page behind it, or an empty leaf. As in PostgreSQL's nbtree.h."""
    leaf, special = level == 0, PAGE_BYTES - _SPECIAL_BYTES
    # One entry of 8 bytes without a key, which is below every other: a line pointer, and the number of the next page.
    pointer = b"" if leaf else struct.pack("<I", special - 8 | 1 << 15 | 8 << 17)
    entry = b"" if leaf else struct.pack("<HHHH", 0, number + 1, 0, 8 | 0x2000)
    flags = (_LEAF if leaf else 0) | (_ROOT if number == 1 else 0)
    return _page(pointer, entry, struct.pack("<IIIHH", 0, 0, level, flags, 0))


def _page(head: bytes, entry: bytes, special: bytes) -> bytes:
    """As in PostgreSQL's bufpage.h."""
    lower, upper = _HEADER_BYTES + len(head), PAGE_BYTES - len(special) - len(entry)
    header = struct.pack("<QHHHHHHI", 0, 0, 0, lower, upper, PAGE_BYTES - len(special), PAGE_BYTES | 4, 0)
    return (header + head).ljust(upper, b"\0") + entry + special


def _checksum(page: bytes, number: int) -> int:
    """Of a page whose own is 0: checksum_impl.h. Thirty-two sums side by side, each of every 32nd word."""
    words = struct.unpack(f"<{PAGE_BYTES // 4}I", page)
    sums = list(_CHECKSUM_BASES)
    for start in range(0, len(words) + 64, 32):  # and two rounds of nothing
        for lane in range(32):
            mixed = sums[lane] ^ (words[start + lane] if start < len(words) else 0)
            sums[lane] = (mixed * 16_777_619 & 0xFFFF_FFFF) ^ (mixed >> 17)
    return (functools.reduce(operator.xor, sums) ^ number) % 65_535 + 1


_CHECKSUM_BASES: Final = (
    0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
    0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
    0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
    0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
)  # fmt: skip


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
