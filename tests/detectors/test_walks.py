from __future__ import annotations

import pytest

from sqlprobe.walks import walk_of

OFFSET = "SELECT id FROM orders WHERE a = ? ORDER BY id LIMIT ? OFFSET ?"
UP = "SELECT id FROM orders WHERE id > ? ORDER BY id LIMIT ?"
CHUNKS = "SELECT id FROM orders WHERE id IN (?)"

WALKS = {
    "offset pages": (OFFSET, [(1, 10, 0), (1, 10, 10), (1, 10, 20)]),
    "the same pages again": (OFFSET, [(1, 10, 0), (1, 10, 10), (1, 10, 0), (1, 10, 10)]),
    "keys up": (UP, [(0, 10), (10, 10), (25, 10)]),
    "keys up to a short page": (UP, [(0, 10), (10, 10), (13, 10)]),
    "keys down": ("SELECT id FROM orders WHERE id < ? LIMIT ?", [(100, 10), (90, 10), (70, 10)]),
    "texts": ("SELECT n FROM c WHERE n > ? LIMIT ?", [("", 10), ("b", 10), ("k", 10)]),
    "literal limit": ("SELECT id FROM orders LIMIT ? OFFSET ?", [(0,), (10,), (20,)]),
    "composite": ("SELECT 1 FROM t WHERE a > ? OR a = ? AND id > ? LIMIT ?", [(1, 1, 5, 9), (3, 3, 9, 9)]),
    "chunks": (CHUNKS, [tuple(range(60)), tuple(range(60, 120)), (120, 121)]),
    "chunks with a tenant": ("SELECT 1 FROM t WHERE x = ? AND id IN (?)", [(7, *range(100, 160)), (7, *range(160, 220))]),
}  # fmt: skip
LOOPS = {
    "offset of one": (OFFSET, [(1, 1, 0), (1, 1, 1), (1, 1, 2)]),
    "first page of each": (OFFSET, [(1, 10, 0), (2, 10, 0), (3, 10, 0)]),
    "backwards": (OFFSET, [(1, 10, 20), (1, 10, 10)]),
    "keys of rows": (UP, [(1, 10), (2, 10), (3, 10)]),
    "two keys of rows": (UP, [(1, 10), (2, 10)]),
    "there and back": (UP, [(1, 10), (50, 10), (20, 10)]),
    "another column": ("SELECT 1 FROM t WHERE a = ? LIMIT ?", [(1, 10), (20, 10), (40, 10)]),
    "short lists": (CHUNKS, [(1, 2, 3), (4, 5, 6)]),
    "short lists of two lengths": (CHUNKS, [(1, 2, 3), (4, 5)]),
    "overlapping chunks": (CHUNKS, [tuple(range(60)), tuple(range(10, 70))]),
    "the same": (UP, [(1, 10), (1, 10)][:1]),
    "kinds that have no order": (UP, [(1, 10), ("a", 10)]),
    "what has no hash": (CHUNKS, [tuple([i] for i in range(60)), tuple([i] for i in range(60))]),
}  # fmt: skip


def proven(text, calls):
    walk = walk_of(text)
    for values in calls:
        walk.add(values)
    return walk.proven


@pytest.mark.parametrize("case", WALKS)
def test_walk_is_known(case):
    assert proven(*WALKS[case])


@pytest.mark.parametrize("case", LOOPS)
def test_loop_is_no_walk(case):
    assert not proven(*LOOPS[case])


def test_statement_without_pages_and_lists_is_not_followed():
    assert walk_of("SELECT id FROM orders WHERE id = ?") is None
