"""
Plans as trees to draw, read from the text that findings and fixes hold: `plans.render()`'s, or EXPLAIN's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

MAX_LINES: Final = 2_000  # of a plan that is drawn; a longer one is shown as text
MAX_DEPTH: Final = 60  # as wide as a page; and each level is drawn by a call within the one above

# `Seq Scan on orders  (45 %, cost 1,234, rows 10, really 5 x 3)`
_OURS: Final = re.compile(
    r"\s*\((?P<share>[\d.]+) ?%, cost (?P<cost>[\d.,]+), rows (?P<rows>[\d.,]+)"
    r"(?:, really (?P<actual>[\d.,]+)(?: x (?P<loops>[\d.,]+))?)?\)\s*$"
)
# `Seq Scan on orders  (cost=0.00..12.30 rows=10 width=4) (actual time=0.01..0.02 rows=5 loops=3)`
_POSTGRESQL: Final = re.compile(
    r"\s*\(cost=[\d.]+\.\.(?P<cost>[\d.]+) rows=(?P<rows>[\d.]+) width=\d+\)"
    r"(?:\s*\((?:actual (?:time=[\d.]+\.\.(?P<time>[\d.]+) )?rows=(?P<actual>[\d.]+) loops=(?P<loops>[\d.]+)"
    r"|never executed)\))?\s*$"
)
_INDENTED: Final = re.compile(r"(\s*)(->\s*)?(.*)")


@dataclass(slots=True)
class Step:
    """
    One node of a plan. `share` (0 to 1) is of the plan's cost or time that is its own; None where it is not known.

    `rows` are what the planner expected of one loop, `actual` what came. `details` are the lines below the node.
    """

    title: str
    cost: float
    rows: float
    share: float | None = None
    actual: float | None = None
    loops: float | None = None
    details: list[str] = field(default_factory=list)
    children: list[Step] = field(default_factory=list)

    @property
    def heat(self) -> int:
        """0 to 4, for a colour."""
        share = self.share or 0.0
        return sum(share >= bound for bound in (0.05, 0.2, 0.4, 0.7))

    @property
    def off(self) -> float | None:
        """How many times more, or less, rows came than were expected; None where nobody counted or it is near."""
        if self.actual is None:
            return None
        expected, came = max(self.rows, 1.0), max(self.actual, 1.0)
        ratio = max(expected / came, came / expected)
        return ratio if ratio >= 10 else None  # noqa: PLR2004 - below that, plans seldom change


@dataclass(frozen=True, slots=True)
class Tree:
    """A plan to draw: its root, and lines that belong to no node."""

    root: Step
    remarks: tuple[str, ...]


def draw_plan(text: object) -> Tree | None:
    """The plan that *text* is, or None: then it is to be shown as it is."""
    if not isinstance(text, str) or len(lines := text.splitlines()) > MAX_LINES:
        return None
    root: Step | None = None
    above: list[tuple[int, Step]] = []  # the way to the last node: their columns
    remarks: list[str] = []
    for line in lines:
        if not line.strip():
            continue
        step = _step(line)
        indent = _INDENTED.match(line)
        assert indent is not None
        column = len(indent[1]) + (0 if indent[2] is None else 1)
        if step is None:
            if above and len(indent[1]) > 0:
                above[-1][1].details.append(line.strip())
            else:
                remarks.append(line.strip())
            continue
        while above and above[-1][0] >= column:
            above.pop()
        if len(above) >= MAX_DEPTH:
            return None
        if above:
            above[-1][1].children.append(step)
        elif root is None:
            root = step
        else:
            return None
        above.append((column, step))
    if root is None:
        return None
    if root.share is None and root.cost:
        _share(root)
    return Tree(root, tuple(remarks))


def _step(line: str) -> Step | None:
    found = _OURS.search(line) or _POSTGRESQL.search(line)
    if found is None:
        return None
    indent = _INDENTED.match(line[: found.start()])
    assert indent is not None
    if not indent[3].strip():
        return None
    said = found.groupdict()
    share = said.get("share")
    return Step(
        title=indent[3].strip(),
        cost=_number(found["cost"]) or 0.0,
        rows=_number(found["rows"]) or 0.0,
        share=None if share is None else (_number(share) or 0.0) / 100,
        actual=_number(found["actual"]),
        loops=_number(found["loops"]),
    )


def _share(root: Step) -> None:
    """EXPLAIN's costs are sums over the subtree; what a LIMIT does not fetch makes a child dearer than its parent."""
    waiting = [root]
    while waiting:
        step = waiting.pop()
        below = sum(child.cost * max(child.loops or 1.0, 1.0) for child in step.children)
        step.share = max(0.0, min(1.0, (step.cost * max(step.loops or 1.0, 1.0) - below) / root.cost))
        waiting += step.children


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text.replace(",", ""))
    except ValueError:
        return None
