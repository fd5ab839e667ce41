"""
Words and measures that several rules share.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Final

from sqlprobe import loops

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlprobe.fingerprint import Shape
    from sqlprobe.model import Severity, Site
    from sqlprobe.scopes import ShapeCalls, Spot
    from sqlprobe.settings import Settings
    from sqlprobe.sites import Place

_compared: Final = re.compile(r'("[^"]+"|\w+) (?:[=<>!~]+|IN|LIKE|ILIKE) \(?\?').findall
_turned: Final = re.compile(r'\? = (?:\w+\.)*("[^"]+"|\w+)').findall  # as a relationship's criterion has it
WARNING_FROM: Final = 5  # statements of one loop in one scope
ERROR_FROM: Final = 50
SAME_LINE: Final = 5  # calls of one line on one connection that prove a loop of which neither line is a part
NO_LINE: Final = 10  # calls that nobody knows the line of, or few on each of several connections


def severity(calls: int) -> Severity:
    """Of *calls* statements where one would do."""
    return "error" if calls >= ERROR_FROM else "warning" if calls >= WARNING_FROM else "info"


def at(site: Site | None) -> str:
    """The site in a title."""
    return f" at {site.file}:{site.line}" if site else ""


def what(shape: Shape) -> str:
    """A statement in a title."""
    return shape.summary or shape.operation or "statement"


def key(rule: str, shape: Shape, scope: str, site: Site | None) -> str:
    """
    The identity of a finding about a statement: no column list, alias or line number is in it. What it compares with
    values is: one function may look up a table by several columns.
    """
    return f"{rule}|{_does(shape)}|{scope}|{site.function if site else shape.fingerprint}"


@functools.lru_cache(maxsize=1024)  # shapes that capture keeps too
def _does(shape: Shape) -> str:
    condition = shape.text.partition(" WHERE ")[2]
    by = sorted({name.strip('"') for name in (*_compared(condition), *_turned(condition))})
    return f"{shape.operation} {' '.join(shape.tables)}{' by ' if by else ''}{', '.join(by)}"


class Loop:
    """Calls of one statement that one loop made."""

    __slots__ = ("calls", "distinct", "place", "spots")

    def __init__(self, spots: list[Spot], place: Place | None) -> None:
        self.spots = spots
        self.place = place
        self.calls = sum(spot.calls for spot in spots)
        self.distinct = sum(spot.distinct for spot in spots)

    @property
    def ns(self) -> int:
        return sum(spot.ns for spot in self.spots)

    @property
    def first_ns(self) -> int:
        return min(spot.first_ns for spot in self.spots)

    @property
    def last_ns(self) -> int:
        return max(spot.last_ns for spot in self.spots)


def loops_of(statement: ShapeCalls, settings: Settings, *, strict: bool = False) -> list[Loop]:
    """
    The loops that ran *statement*; with *strict* only where the line, or its caller's, is in one.

    Two calls are enough where the bytecode has the loop. A line that ran often may have been called by one further up:
    that takes more calls to believe, and more still if each connection had few of them, as several requests would.
    """
    found = []
    spots = {place: spot for place, spot in statement.spots.items() if spot.counts and spot.calls}
    rest = spots.pop(None, None)
    if rest is not None and len(spots) == 1:
        # Only the first call was looked up; the others are most likely its line's.
        ((place, spot),) = spots.items()
        loop = Loop([spot, rest], place)
        enough = spot.calls >= settings.loop_threshold or loop.calls >= max(SAME_LINE, settings.loop_threshold)
        if enough and place is not None and loops.in_loop(place):
            return [loop]
        spots = {place: spot}
    if rest is not None and not strict and rest.calls >= max(NO_LINE, settings.loop_threshold):
        found.append(Loop([rest], None))
    for same in _by_line(spots.values()):
        loop = Loop(same, same[0].place)
        if loop.calls < settings.loop_threshold:
            continue
        connections = len({each for spot in same for each in spot.connections})
        requests = connections > 1 and loop.calls < connections * SAME_LINE
        if any(spot.place is not None and loops.in_loop(spot.place) for spot in same) or (
            not strict and loop.calls >= (NO_LINE if requests else SAME_LINE)
        ):
            found.append(loop)
    return found


def _by_line(spots: Collection[Spot]) -> list[list[Spot]]:
    if len(spots) < 2:  # noqa: PLR2004
        return [[spot] for spot in spots]
    groups: dict[object, list[Spot]] = {}
    for spot in spots:
        groups.setdefault(None if spot.place is None else loops.line_of(spot.place), []).append(spot)
    return list(groups.values())
