"""
What the planner leaves out of an index that a nested loop searches again and again.

The pages that the searches share are fetched once, so the planner prices each search by the number of them all. For
that it takes the rows of the table that the values come from (`get_loop_count()` in costsize.c), also where joins with
others leave a few of them: of suppliers of one nation, it prices thirteen searches as if they were among 333.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlprobe.plans.plan import Node, Plan


def forgotten(
    plan: Plan, pages_of: Callable[[Node], float], scatter_of: Callable[[Node], float], page_cost: float
) -> float:
    """
    Units of cost that the searches of indexes in *plan* will take beyond what it says, at least.

    *pages_of* gives the pages of a node's table, 0 for an index that is not to be reckoned; *scatter_of* the share, 0
    to 1, of its rows that lie in no order of the index; *page_cost* is `random_page_cost`.
    """
    found = 0.0
    for node, loops in _searches(plan.root, 1.0):
        pages = pages_of(node)
        rows = loops * node.rows  # that pass its filter: more are fetched
        if loops <= 1 or not pages or not rows:
            continue
        # Mackert and Lohman's, as the planner has it, for a table that memory holds.
        fetched = min(pages, 2 * pages * rows / (2 * pages + rows))
        found += max(0.0, fetched * page_cost * scatter_of(node) - loops * node.total_cost)
    return found


def _searches(node: Node, loops: float) -> Iterator[tuple[Node, float]]:
    """The index scans below *node*, and how often each is expected to run."""
    if node.kind == "Index Scan":
        yield node, loops
    for number, child in enumerate(node.children):
        repeated = node.kind == "Nested Loop" and number == 1
        yield from _searches(child, loops * max(1.0, node.children[0].rows) if repeated else loops)
