"""
Event-loop lag: how long a loop could not run, so that a statement is not blamed for the time its answer lay waiting.

While statements run on an async engine a timer of ours ticks on their loop; a tick that comes late is a stretch in
which the loop was blocked. A loop that runs no statements is not ticked.
"""

from __future__ import annotations

import weakref
from collections import deque
from heapq import nlargest
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

TICK_SECONDS: Final = 0.01  # a tenth of the shortest wait that is called slow by default; 100 wake-ups a second
_TICK_NS: Final = round(TICK_SECONDS * 1e9)
_LATE_NS: Final = 5_000_000  # an idle loop's timers come 1 to 2 ms late
_IDLE_NS: Final = 2_000_000_000  # after this long without a statement the timer stops
_KEPT: Final = 512  # blocked stretches: 7 s and more of a loop that is blocked all the time
_TRIPS: Final = 4  # of one execute() to the server and back: BEGIN, prepare, types or cursor, execute


class LoopWatch:
    """The timer of one event loop. Made and used in the loop's thread only."""

    __slots__ = ("_blocked", "_due_ns", "_loop", "_ticking", "used_ns")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._blocked: deque[tuple[int, int]] = deque(maxlen=_KEPT)
        self._ticking = False
        self._due_ns = 0
        self.used_ns = 0

    def covers(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether this is *loop*'s timer, and it ticks."""
        return self._ticking and self._loop() is loop

    def start(self) -> None:
        if not self._ticking:
            self._ticking = True
            self._arm()

    def blocked_ns(self, started_ns: int, ended_ns: int) -> int:
        """
        Nanoseconds of *started_ns* to *ended_ns* that a statement waited for the loop: short by up to a tick for each
        stretch that it was blocked.

        Each answer of the server waits for the end of one stretch at most: on a loop that is always busy the longest
        few count, and not all of the time.
        """
        # The tick that is due may stand behind the very statement that asks.
        stretches = [*self._blocked, (self._due_ns, ended_ns)] if self._ticking else self._blocked
        return sum(nlargest(_TRIPS, (max(0, min(to, ended_ns) - max(since, started_ns)) for since, to in stretches)))

    def _arm(self) -> None:
        loop = self._loop()
        if loop is None or loop.is_closed():
            self._ticking = False
            return
        self._due_ns = perf_counter_ns() + _TICK_NS
        loop.call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        now = perf_counter_ns()
        if now - self._due_ns > _LATE_NS:
            self._blocked.append((self._due_ns, now))
        if now - self.used_ns > _IDLE_NS:
            self._ticking = False
        else:
            self._arm()


_watches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopWatch] = weakref.WeakKeyDictionary()


def watch(loop: asyncio.AbstractEventLoop, now_ns: int) -> LoopWatch:
    """The timer of *loop*, ticking. Call it in the loop's thread."""
    known = _watches.get(loop)
    if known is None:
        known = _watches[loop] = LoopWatch(loop)
    known.used_ns = now_ns
    known.start()
    return known
