"""
# slow-statement: the application waited long for one statement

A statement for which the application waited `slow_seconds` (0.1 s by default) or more, with the line of its slowest
call. What is measured is the driver's execute: network and server time, and what the driver fetches at once; not the
rows that are fetched later.

## The event loop's share
In an async program the answer may be there and the program not: while another task keeps the event loop busy, nobody
reads it. sqlprobe samples the loop's lag. A call that would have been below the threshold without it is told as
`info`, with the lag, and accuses no statement: the blocking task is what to look for.

## What to do
Look at the plan (`EXPLAIN (ANALYZE, BUFFERS)`), at the number of rows, and at what else held the database then. Where
the statement is slow by design, raise `slow_seconds`, or run it outside the request.

## Limits
Lag is sampled every 10 ms: of each stretch that the loop was blocked, up to 10 ms are not seen. Where a statement ran
while its loop was blocked, how long the database alone would have taken cannot be told: such a call accuses nobody.
With a driver that blocks the thread there is no loop, and the wait for a lock, a slow network or a busy machine counts
in full.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlprobe.model import Finding
from sqlprobe.stats import wall

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.model import Severity
    from sqlprobe.scopes import Digest, SlowCalls
    from sqlprobe.settings import Settings

RULE: Final = "slow-statement"
_SECOND_NS: Final = 1_000_000_000
_ERROR_FACTOR: Final = 10  # times the threshold


def check(digest: Digest, settings: Settings) -> Iterable[Finding]:
    """One finding for each statement, and another for its calls that only waited for the event loop."""
    for slow in digest.slow.values():
        if slow.max_ns >= settings.slow_ns:
            yield _finding(digest.name, slow, settings)


def _finding(scope: str, slow: SlowCalls, settings: Settings) -> Finding:
    shape = slow.shape
    what = shape.summary or shape.operation or "statement"
    site = slow.place.site() if slow.place else None
    where = f" at {site.file}:{site.line}" if site else ""
    times = "" if slow.calls == 1 else f" ({slow.calls} slow calls)"
    # This reader's threshold may be higher than the one that the scope was digested with.
    lagged = slow.lagged or slow.own_ns < settings.slow_ns
    severity: Severity
    if lagged:
        severity = "info"
        title = f"{what} waited {_time(slow.max_ns)} for a blocked event loop{where}{times}"
        advice = "find the task that keeps the event loop busy: move its work to a thread, or make it await"
    else:
        severity = "error" if slow.own_ns >= _ERROR_FACTOR * settings.slow_ns else "warning"
        title = f"{what} took {_time(slow.max_ns)}{where}{times}"
        advice = "look at its plan with EXPLAIN (ANALYZE, BUFFERS), and at how many rows it reads and returns"
    evidence: dict[str, float | int | str] = {
        "slowest_seconds": round(slow.max_ns / 1e9, 6),
        "threshold_seconds": settings.slow_seconds,
    }
    if slow.blocked_ns:
        evidence["event_loop_blocked_seconds"] = round(slow.blocked_ns / 1e9, 6)
    return Finding(
        rule=RULE,
        severity=severity,
        title=title,
        advice=advice,
        key=f"{RULE}|{shape.operation} {' '.join(shape.tables)}|{scope}|{site.function if site else shape.fingerprint}"
        + ("|lag" if lagged else ""),
        label=" ".join(shape.tables),
        scope=scope,
        count=slow.calls,
        seconds=slow.ns / 1e9,
        fingerprint=shape.fingerprint,
        engine=slow.engine,
        site=site,
        evidence=evidence,
        first_seen=wall(slow.first_ns),
        last_seen=wall(slow.last_ns),
    )


def _time(ns: int) -> str:
    return f"{ns / 1e9:.2f} s" if ns >= _SECOND_NS else f"{ns / 1e6:.0f} ms"
