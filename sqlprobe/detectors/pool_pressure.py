"""
# pool-pressure: callers waited for a connection

A caller waited `pool_wait_seconds` (0.1 s by default) or more until the pool had a connection for it, or got none at
all. The statement that then ran was quick, so no slow-query log shows it: the time was lost before it.

The finding tells the line that waited (`site`) and the line whose connections were out meanwhile for longest
(`origin`): most often it holds a connection while it does something else, such as calling another service.

## What to do
Give the connection back before slow work that needs none: end the `Session` or the `with engine.connect()` block, or
read first and call the service afterwards. If every holder is busy in the database, its statements are what to mend.
Only then raise `pool_size` and `max_overflow`, up to what the server's `max_connections` allows all processes together.

## Limits
Pools are watched while somebody asks: `Settings(watch_pools=True)`, or the Prometheus or OpenTelemetry exporter. The
time to open a new connection is a part of the wait. A pool class of your own is watched if it calls its parent's
`_do_get`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlprobe.model import Finding
from sqlprobe.stats import wall

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.model import Severity
    from sqlprobe.pool import Wait
    from sqlprobe.settings import Settings

RULE: Final = "pool-pressure"


def check(wait: Wait, scope: str, settings: Settings) -> Iterable[Finding]:
    """One finding for a *wait* that took long, met in the scope of that name."""
    if not wait.timed_out and wait.waited_ns < round(settings.pool_wait_seconds * 1e9):
        return
    site = wait.place.site() if wait.place else None
    holder, held_ns = wait.holders[0] if wait.holders else (None, 0)
    origin = holder.site() if holder else None
    severity: Severity = "error" if wait.timed_out else "warning"
    seconds = wait.waited_ns / 1e9
    where = f" at {site.file}:{site.line}" if site else ""
    got = "got no connection in" if wait.timed_out else "waited for a connection for"
    advice = "give connections back before slow work that needs none, or raise pool_size and max_overflow"
    if origin is not None:
        advice = (
            f"look at {origin.file}:{origin.line} in {origin.function}, which held connections meanwhile: " + advice
        )
    evidence: dict[str, float | int | str] = {
        "waited_seconds": round(seconds, 6),
        "threshold_seconds": settings.pool_wait_seconds,
        "connections_used": wait.used,
    }
    if wait.maximum is not None:
        evidence["connections_max"] = wait.maximum
    for number, (place, ns) in enumerate(wait.holders, 1):
        evidence[f"holder_{number}"] = f"{place.site()}, {ns / 1e9:.3f} s"
    if holder is not None:
        evidence["held_seconds"] = round(held_ns / 1e9, 6)
    yield Finding(
        rule=RULE,
        severity=severity,
        title=f"a caller {got} {seconds:.2f} s{where}",
        advice=advice,
        key=f"{RULE}|{wait.engine}|{scope}|{site.function if site else ''}",
        label=wait.engine,
        scope=scope,
        count=1,
        seconds=seconds,
        engine=wait.engine,
        site=site,
        origin=origin,
        evidence=evidence,
        first_seen=wall(wait.ended_ns - wait.waited_ns),
        last_seen=wall(wait.ended_ns),
    )
