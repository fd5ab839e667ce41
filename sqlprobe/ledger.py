"""
The ledger of a reader (a probe, a recording): findings and scopes that have been judged, summed by what they are.
"""

from __future__ import annotations

import dataclasses
import threading
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from sqlprobe import faults
from sqlprobe.stats import BOUNDS_NS, BUCKETS, CALL_BOUNDS, scope_stats
from sqlprobe.timeline import timeline_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlprobe.model import Finding, ScopeStats, Timeline
    from sqlprobe.scopes import Scope, Window

MAX_FINDINGS: Final = 2_000  # different faults; a report of more is read by nobody
MAX_SCOPES: Final = 2_000  # names: a route table is shorter, and a name with an id in it must not fill the memory
MAX_TIMELINES: Final = 50  # 15 kB each; the slowest scopes are read about
OTHER: Final = "other"


class ScopeTally:
    """Every scope of one name and kind, judged so far."""

    __slots__ = ("calls", "calls_buckets", "distinct", "errors", "kind", "late", "name", "ns", "ns_buckets", "rows",
                 "unsampled", "wall_ns")  # fmt: skip

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind
        self.calls = 0
        self.distinct = 0
        self.rows = 0
        self.errors = 0
        self.late = 0
        self.unsampled = 0
        self.ns = 0
        self.wall_ns = 0
        self.calls_buckets = [0] * (len(CALL_BOUNDS) + 1)
        self.ns_buckets = [0] * BUCKETS

    def add(self, window: Window) -> None:
        distinct = window.digest.distinct  # no sum below has a call on its right side: threads add to one tally
        self.calls += window.calls
        self.distinct += distinct
        self.rows += window.rows
        self.errors += window.errors
        self.ns += window.ns
        self.wall_ns += window.wall_ns
        self.calls_buckets[bisect_left(CALL_BOUNDS, window.calls)] += 1
        self.ns_buckets[bisect_left(BOUNDS_NS, window.ns)] += 1

    def came_late(self) -> None:
        self.late += 1

    def stats(self) -> ScopeStats:
        return scope_stats(
            name=self.name,
            kind=self.kind,
            calls=self.calls,
            distinct=self.distinct,
            rows=self.rows,
            seconds=self.ns / 1e9,
            wall_seconds=self.wall_ns / 1e9,
            late=self.late,
            errors=self.errors,
            calls_histogram=tuple(self.calls_buckets),
            seconds_histogram=tuple(self.ns_buckets),
            unsampled=self.unsampled,
        )


class Sum:
    """Every finding of one key so far: told by the one that cost most."""

    __slots__ = ("count", "first_seen", "last_seen", "occurrences", "seconds", "worst")

    def __init__(self, finding: Finding) -> None:
        self.worst = finding
        self.count = finding.count
        self.seconds = finding.seconds
        self.occurrences = finding.occurrences
        self.first_seen = finding.first_seen
        self.last_seen = finding.last_seen

    def add(self, more: Finding) -> None:
        if more.seconds >= self.worst.seconds:
            self.worst = more
        self.count += more.count
        self.seconds += more.seconds
        self.occurrences += more.occurrences
        self.first_seen = min(self.first_seen, more.first_seen)
        self.last_seen = max(self.last_seen, more.last_seen)

    def finding(self) -> Finding:
        return dataclasses.replace(
            self.worst,
            count=self.count,
            seconds=self.seconds,
            occurrences=self.occurrences,
            first_seen=self.first_seen,
            last_seen=self.last_seen,
        )


class Ledger:
    """
    Findings by key and scopes by name, both bounded: what is over the bound is counted under "other" or in `dropped`.

    *on_finding* is called with each finding that is new, or comes back after *ttl* seconds; what it raises is counted.
    """

    def __init__(self, ttl: float, on_finding: Callable[[Finding], object] | None = None) -> None:
        self._ttl = ttl
        self._on_finding = on_finding
        self._lock = threading.Lock()
        self._findings: dict[str, Sum] = {}
        self._expires = 0.0  # before that Unix time, a full ledger has nothing to let go
        self._scopes: dict[tuple[str, str], ScopeTally] = {}
        self._timelines: dict[tuple[str, str], Timeline] = {}
        self.dropped = 0

    def add(self, findings: Iterable[Finding]) -> None:
        fresh = []
        with self._lock:
            for finding in findings:
                known = self._findings.get(finding.key)
                if known is None or finding.first_seen - known.last_seen > self._ttl:
                    if known is None and self._is_full(finding.last_seen):
                        self.dropped += 1
                        continue
                    fresh.append(finding)
                    self._findings[finding.key] = Sum(finding)
                else:
                    known.add(finding)
        if self._on_finding is not None:
            for finding in fresh:
                try:
                    self._on_finding(finding)
                except Exception as error:  # noqa: BLE001 - the callback's, and not the application's
                    faults.count("on_finding", error)

    def scope(self, name: str, kind: str) -> ScopeTally:
        """The tally of that name, made when it is first asked for."""
        with self._lock:
            tally = self._scopes.get((name, kind))
            if tally is None:
                if len(self._scopes) >= MAX_SCOPES:
                    name = OTHER
                tally = self._scopes.setdefault((name, kind), ScopeTally(name, kind))
            return tally

    def draw(self, scope: Scope, window: Window, engine: str = "") -> None:
        """Keep the timeline of a scope that is the slowest of its name so far, on *engine* or all."""
        key = (scope.name, scope.kind)
        with self._lock:
            known = self._timelines.get(key)
            if not window.kept or (known is not None and window.wall_ns / 1e9 <= known.wall_seconds):
                return
            if known is None and len(self._timelines) >= MAX_TIMELINES:
                fastest = min(self._timelines, key=lambda each: self._timelines[each].wall_seconds)
                if window.wall_ns / 1e9 <= self._timelines[fastest].wall_seconds:
                    return
                del self._timelines[fastest]
            try:
                self._timelines[key] = timeline_of(*key, window, engine)
            except Exception as error:  # noqa: BLE001 - ours: the scope is told without its timeline
                faults.count("timeline", error)

    def timelines(self) -> tuple[Timeline, ...]:
        with self._lock:
            return tuple(self._timelines.values())

    def findings(self, now: float) -> tuple[Finding, ...]:
        """Every finding seen in the last *ttl* seconds before *now* (Unix time)."""
        with self._lock:
            self._expire(now)
            return tuple(found.finding() for found in self._findings.values())

    def scopes(self) -> tuple[ScopeStats, ...]:
        with self._lock:
            tallies = list(self._scopes.values())
        return tuple(tally.stats() for tally in tallies if tally.unsampled or any(tally.calls_buckets))

    def _is_full(self, now: float) -> bool:
        if len(self._findings) >= MAX_FINDINGS and now > self._expires:
            self._expire(now)
            self._expires = min((finding.last_seen for finding in self._findings.values()), default=now) + self._ttl
        return len(self._findings) >= MAX_FINDINGS

    def _expire(self, now: float) -> None:
        self._findings = {key: item for key, item in self._findings.items() if now - item.last_seen <= self._ttl}

    def forget(self) -> None:
        """Drop everything: after a fork the parent process tells of it."""
        self._lock = threading.Lock()
        self._findings = {}
        self._scopes = {}
        self._timelines = {}
        self.dropped = 0
