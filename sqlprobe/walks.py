"""
Walks: the pages of one query, or chunks of one long list, told from the same query asked for each of many rows.

A walk repeats a statement because that is how it is done: `OFFSET` pages, pages that begin where the last ended, lists
cut into `IN` chunks. What proves it is how the parameters go on; without proof it is a loop.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

CHUNK: Final = 50  # values of one list; a shorter one is what belongs to one row
MAX_ELEMENTS: Final = 10_000  # values remembered of all chunks of one walk
MIN_PAGE: Final = 2  # a page of one row is a row
MAX_OVERLAP: Final = 0.1  # of a chunk: its other parameters are the same each time

_limits: Final = re.compile(r"\b(?:LIMIT|OFFSET|FETCH\s+(?:FIRST|NEXT))\b", re.IGNORECASE).search
_lists: Final = re.compile(r"\bIN\s*\(\?\)|\bANY\s*\(\?\)", re.IGNORECASE).search
_before: Final = re.compile(r"(\bLIMIT|\bOFFSET|<=|>=|<>|!=|<|>|=|\(|,)?\s*\?", re.IGNORECASE).findall


class Walk:
    """How the parameters of one statement went on from call to call. `proven` from the second whole page on."""

    __slots__ = (
        "_direction", "_elements", "_first", "_largest", "_last", "_lists", "_operators", "_short", "broken", "steps",
    )  # fmt: skip

    def __init__(self, operators: tuple[str, ...], *, lists: bool) -> None:
        self.broken = False
        self.steps = 0
        self._operators = operators
        self._lists = lists
        self._first: Sequence[Any] | None = None
        self._last: Sequence[Any] | None = None
        self._direction = 0
        self._elements: set[Any] = set()
        self._largest = 0
        self._short = False

    @property
    def proven(self) -> bool:
        return self.steps > 0 and not self.broken

    def add(self, values: Sequence[Any]) -> None:
        """Take the parameters of the next call, in the order of the text."""
        try:
            last, self._last = self._last, values
            chunk = self._lists and max(self._largest, len(values)) >= CHUNK
            if last is None:
                self._first = values
            elif chunk or len(last) != len(values):
                self.broken = not chunk or not self._is_next_chunk(values)
            elif values == self._first:
                self._short = False
            elif values != last:
                self.broken = not self._is_next_page(last, values)
            if chunk:
                self._largest = max(self._largest, len(values))
                if len(self._elements) < MAX_ELEMENTS:
                    self._elements.update(values)
            self.steps += last is not None and not self._short
        except Exception:  # noqa: BLE001 - values that cannot be compared or hashed: nobody can tell
            self.broken = True

    def go_on(self, other: Walk) -> None:
        """Take what *other* saw as what came next: one step of this walk, or several of the same."""
        if other.broken or other._first is None:
            self.broken = True
        else:
            self.add(other._first)
            self._last = other._last

    def _is_next_chunk(self, values: Sequence[Any]) -> bool:
        known = sum(value in self._elements for value in values)
        return len(values) <= self._largest and known <= max(MAX_OVERLAP * len(values), len(self._operators) - 1)

    def _is_next_page(self, last: Sequence[Any], values: Sequence[Any]) -> bool:
        moved = [at for at, (old, new) in enumerate(zip(last, values, strict=True)) if old != new]
        operators = self._operators
        if len(operators) != len(values):  # literals in the text, or names that are used twice
            at = moved[0]
            return len(moved) == 1 and self._goes_on(last[at], values[at], MIN_PAGE, offset="OFFSET" in operators)
        limits = [value for operator, value in zip(operators, values, strict=True) if operator == "LIMIT"]
        size = limits[0] if limits else MIN_PAGE
        if not isinstance(size, int) or size < MIN_PAGE:
            return False
        cursors = [at for at in moved if operators[at] in {"OFFSET", "<", ">", "<=", ">=", "(", ","}]
        # ... OR (a = ? AND id > ?): the first of a composite cursor stands beside an = once more.
        others = [at for at in moved if at not in cursors]
        if not cursors or any(values[at] not in [values[cursor] for cursor in cursors] for at in others):
            return False
        at = cursors[0]
        return self._goes_on(last[at], values[at], 1 if len(cursors) > 1 else size, offset=operators[at] == "OFFSET")

    def _goes_on(self, old: Any, new: Any, size: int, *, offset: bool) -> bool:
        """Whether a cursor moved from *old* to *new* by a page of *size*, in the direction that it always did."""
        if old == new:
            return True
        direction = 1 if new > old else -1
        if self._direction not in (0, direction) or (offset and direction < 0):
            return False
        self._direction = direction
        # A page of n rows has n keys: a whole-number key that moved by less was taken from some other row, or from the
        # last page, which few fill.
        short, self._short = self._short, isinstance(new, int) and abs(new - old) < size
        return not short and not (offset and self._short)


def walk_of(text: str) -> Walk | None:
    """What to follow the parameters of a statement with, None where it has no pages and no lists."""
    form = _form_of(text)
    return None if form is None else Walk(form[0], lists=form[1])


@functools.lru_cache(maxsize=1024)  # texts that capture keeps too; a program has some hundred
def _form_of(text: str) -> tuple[tuple[str, ...], bool] | None:
    """What stands before each placeholder of *text*, and whether one is a list; None if nobody can walk along it."""
    lists = _lists(text) is not None
    if not lists and not _limits(text):
        return None
    return tuple(operator.upper() for operator in _before(text)), lists
