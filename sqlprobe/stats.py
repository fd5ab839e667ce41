"""
Counting: what one thread adds per statement, and how a reader sums it up.

A `Tally` belongs to one statement, one engine and one thread; only that thread writes it, with no lock, and no write
spans a driver call. A reader may sum it at any moment: the number of calls *is* the sum of the buckets, so a racing
reader sees a state that once was true, give or take the last call's time.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from operator import add
from typing import TYPE_CHECKING, Final

from sqlprobe.model import ScopeStats, SiteCalls, StatementStats

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlprobe.fingerprint import Shape
    from sqlprobe.model import Site
    from sqlprobe.sites import Place

# 1-2.5-5 from 10 us to 60 s: every bound that OpenTelemetry advises for db.client.operation.duration is among them.
BOUNDS: Final[tuple[float, ...]] = (
    10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3,
    1.0, 2.5, 5.0, 10.0, 25.0, 60.0,
)  # fmt: skip
BOUNDS_NS: Final = [round(bound * 1e9) for bound in BOUNDS]
BUCKETS: Final = len(BOUNDS) + 1

# Statements per scope: exact to 12, then within 30 %; budgets are small numbers.
CALL_BOUNDS: Final[tuple[int, ...]] = (
    *range(13), 15, 20, 25, 30, 40, 50, 60, 80, 100, 125, 150, 200, 250, 300, 400, 500, 650, 800, 1000,
    1500, 2000, 2500, 3000, 4000, 5000, 7500, 10_000, 20_000, 50_000, 100_000, 1_000_000,
)  # fmt: skip

MAX_SITES: Final = 5  # of one statement in a report: the lines that call it most

# The wall clock may step; one reading of both clocks dates every perf_counter value of this process.
_WALL_ANCHOR: Final = time.time() - time.perf_counter_ns() / 1e9


def wall(perf_ns: int) -> float:
    """Unix time of a `time.perf_counter_ns()` reading of this process."""
    return _WALL_ANCHOR + perf_ns / 1e9


class Tally:
    """What one thread counted for one statement on one engine. Nanoseconds throughout; `rows` is -1 where unknown."""

    __slots__ = (
        "buckets",
        "engine",
        "errors",
        "first_ns",
        "last_ns",
        "max_ns",
        "min_ns",
        "pages",
        "places",
        "rows",
        "sample_ns",
        "selects",
        "sets",
        "shape",
        "slowest",
        "thread",
        "total_ns",
        "was_min_ns",
    )

    def __init__(self, shape: Shape, engine: str, first_ns: int = 0, thread: int = 0) -> None:
        self.shape = shape
        self.selects = shape.operation == "SELECT"
        self.engine = engine
        self.thread = thread  # the one that writes it
        self.buckets = [0] * BUCKETS
        self.total_ns = 0
        self.min_ns = self.was_min_ns = 1 << 62  # now, and before the last execution that may come in pages
        self.max_ns = -1
        self.rows = -1
        self.sets = 0  # parameter sets beyond one a call
        self.pages = 0  # insertmanyvalues pages beyond one a call
        self.first_ns = first_ns
        self.last_ns = first_ns
        self.errors: dict[str, int] | None = None
        self.places: dict[Place, int] | None = None
        self.slowest: Place | None = None
        self.sample_ns = 1 << 62  # a call that took longer is handed to the sampler of plans, if there is one

    @property
    def calls(self) -> int:
        return sum(self.buckets)

    def add(self, elapsed_ns: int, started_ns: int, rows: int) -> None:
        """Count one call. The hot path has this inlined; everything colder calls it."""
        self.total_ns += elapsed_ns
        self.buckets[bisect_left(BOUNDS_NS, elapsed_ns)] += 1
        self.max_ns = max(self.max_ns, elapsed_ns)
        self.min_ns = min(self.min_ns, elapsed_ns)
        if rows >= 0:
            self.rows = rows if self.rows < 0 else self.rows + rows
        self.last_ns = started_ns

    def add_page(self, elapsed_ns: int, before_ns: int, rows: int, place: Place | None) -> None:
        """Count a further page of an insertmanyvalues execution whose pages so far took *before_ns*."""
        together = before_ns + elapsed_ns
        self.buckets[bisect_left(BOUNDS_NS, before_ns)] -= 1
        self.buckets[bisect_left(BOUNDS_NS, together)] += 1
        self.total_ns += elapsed_ns
        self.pages += 1
        if self.min_ns == before_ns:
            self.min_ns = min(self.was_min_ns, together)
        if together > self.max_ns:
            self.max_ns = together
            self.slowest = place
        if rows >= 0:
            self.rows = rows if self.rows < 0 else self.rows + rows

    def failed(self, error: str) -> None:
        """Name the error of a call that has been added."""
        if self.errors is None:
            self.errors = {}
        self.errors[error] = self.errors.get(error, 0) + 1

    def seen_at(self, place: Place) -> None:
        """Count a call traced to *place*; past 4 * MAX_SITES places only the known ones are counted."""
        places = self.places
        if places is None:
            places = self.places = {}
        if place in places or len(places) < 4 * MAX_SITES:
            places[place] = places.get(place, 0) + 1

    def merge(self, other: Tally) -> None:
        """Add *other*'s counts, which another thread may be writing."""
        self.buckets = list(map(add, self.buckets, other.buckets))
        self.total_ns += other.total_ns
        self.min_ns = min(self.min_ns, other.min_ns)
        if other.max_ns > self.max_ns:
            self.max_ns = other.max_ns
            self.slowest = other.slowest
        if other.rows >= 0:
            self.rows = other.rows + max(self.rows, 0)
        self.sets += other.sets
        self.pages += other.pages
        self.first_ns = min(self.first_ns, other.first_ns)
        self.last_ns = max(self.last_ns, other.last_ns)
        for error, count in (other.errors or {}).copy().items():
            if self.errors is None:
                self.errors = {}
            self.errors[error] = self.errors.get(error, 0) + count
        for place, count in (other.places or {}).copy().items():
            if self.places is None:
                self.places = {}
            self.places[place] = self.places.get(place, 0) + count

    def copy(self) -> Tally:
        """The same counts, which this one's thread may be writing."""
        other = Tally.__new__(Tally)
        other.shape = self.shape
        other.engine = self.engine
        other.thread = 0
        other.buckets = self.buckets.copy()
        other.total_ns = self.total_ns
        other.min_ns = self.min_ns
        other.was_min_ns = self.was_min_ns
        other.max_ns = self.max_ns
        other.rows = self.rows
        other.sets = self.sets
        other.pages = self.pages
        other.first_ns = self.first_ns
        other.last_ns = self.last_ns
        other.errors = self.errors.copy() if self.errors else None
        other.places = self.places.copy() if self.places else None
        other.slowest = self.slowest
        return other

    def fresh(self) -> Tally:
        """An empty tally of the same statement and engine."""
        return Tally(self.shape, self.engine, self.first_ns)

    def stats(self) -> StatementStats:
        """What a reader sees of it."""
        shape = self.shape
        places = sorted((self.places or {}).items(), key=lambda item: -item[1])[:MAX_SITES]
        return statement_stats(
            fingerprint=shape.fingerprint,
            text=shape.text,
            summary=shape.summary,
            operation=shape.operation,
            tables=shape.tables,
            engine=self.engine,
            errors=dict(self.errors or {}),
            rows=None if self.rows < 0 else self.rows,
            parameter_sets=self.calls + self.sets,
            pages=self.calls + self.pages,
            seconds=self.total_ns / 1e9,
            min=max(min(self.min_ns, self.max_ns), 0) / 1e9,  # its writer may have set the one, and not yet the other
            max=max(self.max_ns, 0) / 1e9,
            first_seen=wall(self.first_ns),
            last_seen=wall(self.last_ns),
            sites=tuple(SiteCalls(place.site(), calls) for place, calls in places),
            slowest=self.slowest.site() if self.slowest else None,
            histogram=tuple(self.buckets),
        )


def statement_stats(
    *,
    fingerprint: str,
    text: str,
    summary: str,
    operation: str,
    tables: tuple[str, ...],
    engine: str,
    errors: Mapping[str, int],
    rows: int | None,
    parameter_sets: int,
    pages: int,
    seconds: float,
    min: float,  # noqa: A002 - the field's public name
    max: float,  # noqa: A002 - the field's public name
    first_seen: float,
    last_seen: float,
    sites: tuple[SiteCalls, ...],
    slowest: Site | None,
    histogram: tuple[int, ...],
) -> StatementStats:
    """A `StatementStats` whose calls and percentiles are those of *histogram*."""
    calls = sum(histogram)
    p50, p95, p99 = (percentile(histogram, q, max) for q in (0.5, 0.95, 0.99)) if calls else (0.0, 0.0, 0.0)
    return StatementStats(
        fingerprint=fingerprint,
        text=text,
        summary=summary,
        operation=operation,
        tables=tables,
        engine=engine,
        calls=calls,
        errors=errors,
        rows=rows,
        parameter_sets=parameter_sets,
        pages=pages,
        seconds=seconds,
        min=min,
        max=max,
        p50=p50,
        p95=p95,
        p99=p99,
        first_seen=first_seen,
        last_seen=last_seen,
        sites=sites,
        slowest=slowest,
        histogram=histogram,
    )


def scope_stats(
    *,
    name: str,
    kind: str,
    calls: int,
    distinct: int,
    rows: int,
    seconds: float,
    wall_seconds: float,
    late: int,
    errors: int,
    calls_histogram: tuple[int, ...],
    seconds_histogram: tuple[int, ...],
    unsampled: int = 0,
) -> ScopeStats:
    """A `ScopeStats` whose count and percentiles are those of its histograms."""
    count = sum(calls_histogram)
    return ScopeStats(
        name=name,
        kind=kind,
        count=count,
        calls=calls,
        distinct=distinct,
        rows=rows,
        seconds=seconds,
        wall_seconds=wall_seconds,
        p95_calls=call_percentile(calls_histogram, 0.95, calls) if count else 0,
        p95_seconds=percentile(seconds_histogram, 0.95, seconds) if count else 0.0,
        late=late,
        errors=errors,
        calls_histogram=calls_histogram,
        seconds_histogram=seconds_histogram,
        unsampled=unsampled,
    )


def percentile(buckets: Sequence[int], q: float, largest: float | None = None) -> float:
    """
    Seconds below which the share *q* (0 to 1) of the calls lie, read from *buckets* (one more than `BOUNDS`).

    The answer is the bucket's upper edge, or *largest* (seconds, the slowest call seen) where that is smaller or the
    call lies above every bound: at most 2.5 times the true value, never below it.

    Raises:
        ValueError: *q* is outside 0..1, or no call has been counted.

    Source: Prometheus' histogram_quantile(), without its interpolation.
    """
    return _quantile(buckets, BOUNDS, q, largest)


def call_percentile(buckets: Sequence[int], q: float, largest: int | None = None) -> int:
    """As `percentile`, of numbers of calls: *buckets* has one more than `CALL_BOUNDS`."""
    return round(_quantile(buckets, CALL_BOUNDS, q, largest))


def _quantile(buckets: Sequence[int], bounds: Sequence[float], q: float, largest: float | None) -> float:
    if not 0 <= q <= 1:
        msg = f"percentile of q={q!r}: a share from 0 to 1 is needed; for the 95th percentile pass 0.95"
        raise ValueError(msg)
    total = sum(buckets)
    if not total:
        msg = "percentile of no calls: every bucket is 0; look at calls before asking"
        raise ValueError(msg)
    seen = 0
    for index, count in enumerate(buckets):
        seen += count
        if count and seen >= q * total:
            edge = bounds[index] if index < len(bounds) else float("inf")
            return edge if largest is None else min(edge, largest)
    return float("inf") if largest is None else largest  # pragma: no cover - the loop has reached the total


def merged(tallies: Iterable[Tally]) -> dict[tuple[str, str], Tally]:
    """One tally for each fingerprint and engine, of tallies that other threads may be writing."""
    sums: dict[tuple[str, str], Tally] = {}
    for tally in tallies:
        key = (tally.shape.fingerprint, tally.engine)
        into = sums.get(key)
        if into is None:
            sums[key] = tally.copy()
        else:
            into.merge(tally)
    return sums
