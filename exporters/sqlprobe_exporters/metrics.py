"""
The metrics: one table of names, units, help and labels, and what fills it from a probe's own counters.

Nothing here runs per statement. `Reader.read()` sums up what the probe has counted, caps the number of series and keeps
every total exact: what has no series of its own is in the one labelled "other".
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import sqlprobe

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlprobe import Finding, Probe
    from sqlprobe.pool import PoolCounts
    from sqlprobe.scopes import Scope, Window
    from sqlprobe.stats import Tally

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]

OTHER: Final = "other"
MAX_FINGERPRINTS: Final = 200  # of 18 series each; a service has 50 to 150 statements that matter
MAX_ROUTES: Final = 200
MAX_PAIRS: Final = 1_000  # of route and fingerprint
MAX_ENGINES: Final = 50  # an application with an engine a tenant has hundreds
MAX_QUERY: Final = 1_000  # characters of a statement in a label: the tightest limit of common servers is 2,048 bytes
REVIEW_SECONDS: Final = 300.0  # after which a busy statement may take the place of a quiet one
OVERHEAD_NS: Final = 2_500  # of a statement, as bench/overhead.py measures it on slow machines

# Every bound that OpenTelemetry advises is among them, and all are bounds of the histograms that sqlprobe counts in.
SECONDS_BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
QUERIES_BOUNDS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """
    A family. `name` is OpenMetrics' (a counter's samples end with "_total"), `unit` the one that its name ends with.

    `across` says what the sum over the processes of one service is: counters and histograms add up; of gauges "livesum"
    adds those of living processes, "livemax" and "max" take the largest, the latter of dead processes too.
    """

    name: str
    kind: Kind
    help: str
    labels: Labels = ()
    unit: str = ""
    bounds: tuple[float, ...] = ()
    across: Literal["sum", "livesum", "livemax", "max"] = "sum"

    @property
    def samples(self) -> tuple[str, ...]:
        """The names that its series have."""
        if self.kind == "counter":
            return (f"{self.name}_total",)
        if self.kind == "histogram":
            return (f"{self.name}_bucket", f"{self.name}_count", f"{self.name}_sum")
        return (self.name,)


_STATEMENT: Final = ("engine", "fingerprint", "operation")
_N_PLUS_ONE: Final = ("route", "relationship", "fingerprint")

METRICS: Final[tuple[Metric, ...]] = (
    Metric(
        "sqlprobe_query_duration_seconds",
        "histogram",
        "Time that the application waited in the driver's execute.",
        _STATEMENT,
        "seconds",
        SECONDS_BOUNDS,
    ),
    Metric(
        "sqlprobe_query_errors",
        "counter",
        "Statements that failed, by SQLSTATE, or by exception class where there is none.",
        (*_STATEMENT, "error_type"),
    ),
    Metric("sqlprobe_query_rows", "counter", "Rows returned or changed, where the driver tells.", _STATEMENT),
    Metric(
        "sqlprobe_statement_info",
        "gauge",
        "Text of a statement, with ? for literals: join it on fingerprint.",
        ("fingerprint", "summary", "query"),
        across="max",
    ),
    Metric(
        "sqlprobe_request_queries",
        "histogram",
        "Statements that a request, or another scope, ran.",
        ("route",),
        bounds=QUERIES_BOUNDS,
    ),
    Metric("sqlprobe_request_db_seconds", "counter", "Time of requests in the database.", ("route",), "seconds"),
    Metric("sqlprobe_request_statements", "counter", "Calls of a statement by route.", ("route", "fingerprint")),
    Metric("sqlprobe_n_plus_one", "counter", "Times that an N+1 was met, once a request.", _N_PLUS_ONE),
    Metric("sqlprobe_n_plus_one_queries", "counter", "Statements that N+1 loops ran.", _N_PLUS_ONE),
    Metric("sqlprobe_n_plus_one_seconds", "counter", "Time that N+1 loops took.", _N_PLUS_ONE, "seconds"),
    Metric("sqlprobe_n_plus_one_requests", "counter", "Requests with an N+1, however many it has.", ("route",)),
    Metric(
        "sqlprobe_findings",
        "gauge",
        "Different findings that are open.",
        ("rule", "severity"),
        across="livemax",
    ),
    Metric("sqlprobe_internal_errors", "counter", "What failed of sqlprobe and its exporters.", ("part",)),
    Metric(
        "sqlprobe_pool_connections",
        "gauge",
        "Connections of the pool: used ones are checked out, idle ones are not.",
        ("engine", "state"),
        across="livesum",
    ),
    Metric(
        "sqlprobe_pool_connections_max",
        "gauge",
        "Connections that the pool may open: its size and its overflow.",
        ("engine",),
        across="livesum",
    ),
    Metric(
        "sqlprobe_pool_connections_overflow",
        "gauge",
        "Connections beyond the pool's size.",
        ("engine",),
        across="livesum",
    ),
    Metric(
        "sqlprobe_pool_pending_requests",
        "gauge",
        "Callers that wait for a connection.",
        ("engine",),
        across="livesum",
    ),
    Metric("sqlprobe_pool_timeouts", "counter", "Callers that got no connection in time.", ("engine",)),
    Metric(
        "sqlprobe_pool_wait_seconds",
        "histogram",
        "Time to get a connection from the pool.",
        ("engine",),
        "seconds",
        SECONDS_BOUNDS,
    ),
    Metric(
        "sqlprobe_pool_use_seconds",
        "histogram",
        "Time that a connection was checked out.",
        ("engine",),
        "seconds",
        SECONDS_BOUNDS,
    ),
    Metric(
        "sqlprobe_pool_create_seconds",
        "histogram",
        "Time to open a connection.",
        ("engine",),
        "seconds",
        SECONDS_BOUNDS,
    ),
    Metric(
        "sqlprobe_transaction_duration_seconds",
        "histogram",
        "Time from a transaction's begin to its end; close is what was neither committed nor rolled back.",
        ("engine", "outcome"),
        "seconds",
        SECONDS_BOUNDS,
    ),
    Metric(
        "sqlprobe_index_advice_info",
        "gauge",
        "An index that sqlprobe advises.",
        ("advice", "table", "columns", "method", "fingerprint"),
        across="livemax",
    ),
    Metric(
        "sqlprobe_index_advice_cost_ratio",
        "gauge",
        "Cost of the plan with the advised index, of the cost without it.",
        ("advice",),
        "ratio",
        across="livemax",
    ),
    Metric("sqlprobe_plan_changes", "counter", "Times that a statement got a worse plan.", ("fingerprint",)),
    Metric("sqlprobe_overhead_seconds", "counter", "Estimate of the time that sqlprobe itself took.", (), "seconds"),
    Metric("sqlprobe_statements_tracked", "gauge", "Different statements that are counted.", across="livemax"),
    Metric("sqlprobe_build_info", "gauge", "Versions.", ("version", "sqlalchemy", "python"), across="livemax"),
)
BY_NAME: Final = {metric.name: metric for metric in METRICS}


class Histogram(NamedTuple):
    """Counts by bucket, not cumulative, one more than the metric has bounds; the sum in the metric's unit."""

    buckets: tuple[int, ...]
    sum: float


Value = int | float | Histogram
Reading = dict[str, dict[Labels, Value]]  # by the metric's name, then by the values of its labels


class Sums:
    """What is exported of one statement: its counters less what was counted while it had no series."""

    __slots__ = ("buckets", "errors", "ns", "rows")

    def __init__(self, buckets: Sequence[int], ns: int, rows: int, errors: dict[str, int]) -> None:
        self.buckets = list(buckets)
        self.ns = ns
        self.rows = rows
        self.errors = errors

    @classmethod
    def of(cls, tally: Tally) -> Sums:
        return cls(tally.buckets, tally.total_ns, tally.rows, dict(tally.errors or {}))

    def add(self, other: Sums, sign: int = 1) -> Sums:
        self.buckets = [a + sign * b for a, b in zip(self.buckets, other.buckets, strict=True)]
        self.ns += sign * other.ns
        if other.rows > 0:
            self.rows = max(self.rows, 0) + sign * other.rows
        for error, count in other.errors.items():
            self.errors[error] = self.errors.get(error, 0) + sign * count
        return self

    def copy(self) -> Sums:
        return Sums(self.buckets, self.ns, self.rows, dict(self.errors))


class Series:
    """A statement that has series of its own: `base` is what was counted before it had, `seen_ns` its time then."""

    __slots__ = ("base", "seen_ns")

    def __init__(self, base: Sums | None) -> None:
        self.base = base
        self.seen_ns = 0


class Reader:
    """
    What exporters read of one probe; made by `reader_of()`. Safe to use from any thread.

    It counts by route what the probe's report has not, as scopes end. Every counter only grows, also where statements
    come and go from the `max_fingerprints` that have series of their own.
    """

    def __init__(self, probe: Probe, max_fingerprints: int, max_routes: int) -> None:
        self._probe = weakref.ref(probe)
        self.max_fingerprints = max_fingerprints
        self.max_routes = max_routes
        self._unfollow = probe.follow(self)
        self.forget()

    @property
    def probe(self) -> Probe:
        """
        The probe.

        Raises:
            ReferenceError: nobody has it any more.
        """
        probe = self._probe()
        if probe is None:
            raise ReferenceError("the probe has gone")
        return probe

    def forget(self) -> None:
        """After a fork: the parent process tells of what was seen so far."""
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self._pairs: dict[tuple[str, str], int] = {}
        self._n_plus_one: dict[tuple[str, str, str], list[int]] = {}
        self._requests: dict[str, int] = {}
        self._routes: dict[str, str] = {}
        self._engines: dict[str, str] = {}
        self._series: dict[tuple[str, str], Series] = {}
        self._ended: dict[tuple[str, str], Sums] = {}
        self._reviewed = time.monotonic()
        self._growth: dict[tuple[str, str], int] = {}
        self._plan_changes: dict[str, int] = {}
        self._spent_ns = 0

    def close(self) -> None:
        self._unfollow()

    # --- as scopes end ---------------------------------------------------------------------------------------------

    def judged(self, scope: Scope, window: Window, findings: list[Finding]) -> None:
        started = time.perf_counter_ns()
        with self._counting:
            route = self._route(scope.name)
            pairs = self._pairs
            for (fingerprint, _), calls in window.digest.shapes.items():
                key = (route, fingerprint)
                if key not in pairs and len(pairs) >= MAX_PAIRS:
                    key = (route if (route, OTHER) in pairs or len(pairs) < 2 * MAX_PAIRS else OTHER, OTHER)
                pairs[key] = pairs.get(key, 0) + calls.calls
            met = False
            for finding in findings:
                if finding.rule != "n-plus-one":
                    continue
                met = True
                name = (route, finding.label, finding.fingerprint)
                if name not in self._n_plus_one and len(self._n_plus_one) >= MAX_PAIRS:
                    name = (OTHER, OTHER, OTHER)
                sums = self._n_plus_one.setdefault(name, [0, 0, 0])
                sums[0] += 1
                sums[1] += finding.count
                sums[2] += round(finding.seconds * 1e9)
            if met:
                self._requests[route] = self._requests.get(route, 0) + 1
            self._spent_ns += time.perf_counter_ns() - started

    def found(self, findings: list[Finding]) -> None:
        """Nothing to count: a scrape asks for the findings that are open."""

    def _route(self, name: str) -> str:
        """The route's label: its name, or "other" past the cap."""
        return _capped(self._routes, name, self.max_routes)

    # --- when asked ------------------------------------------------------------------------------------------------

    def read(self) -> Reading:
        """Every metric of `METRICS` that there is something to say of."""
        started = time.perf_counter_ns()
        with self._lock:
            reading: Reading = {metric.name: {} for metric in METRICS}
            calls = self._read_statements(reading)
            self._read_routes(reading)
            self._read_findings(reading)
            for pool in self.probe.pools():
                self._read_pool(reading, pool)
            for fault in self.probe.faults():
                _add(reading["sqlprobe_internal_errors"], (fault.where,), fault.count)
            self._spent_ns += time.perf_counter_ns() - started
            reading["sqlprobe_overhead_seconds"][()] = (self._spent_ns + calls * OVERHEAD_NS) / 1e9
            reading["sqlprobe_build_info"][_versions()] = 1
            return reading

    def _read_statements(self, reading: Reading) -> int:
        tallies = {(tally.engine, tally.shape.fingerprint): tally for tally in self.probe.counts()}
        self._choose(tallies)
        durations = reading["sqlprobe_query_duration_seconds"]
        infos = reading["sqlprobe_statement_info"]
        rest: dict[str, Sums] = {}
        total = 0
        text_wanted = self.probe.settings.redact != "text"
        described = set()
        for key, tally in tallies.items():
            engine = _capped(self._engines, key[0], MAX_ENGINES)
            series = self._series.get(key)
            shape = tally.shape
            total += sum(tally.buckets)
            if series is None:
                sums = Sums.of(tally)
                ended = self._ended.get(key)
                if ended is not None:
                    sums.add(ended, -1)
            elif series.base is None and not tally.errors:
                # Most are such: read as they are.
                labels = (engine, key[1], shape.operation)
                _add_histogram(durations, labels, tally.buckets, tally.total_ns)
                if tally.rows >= 0:
                    _add(reading["sqlprobe_query_rows"], labels, tally.rows)
                if key[1] not in described:
                    described.add(key[1])
                    infos[key[1], shape.summary, shape.text[:MAX_QUERY] if text_wanted else ""] = 1
                continue
            elif series.base is None:
                sums = Sums.of(tally)
            else:
                sums = Sums.of(tally).add(series.base, -1)
                known = rest.get(engine)
                rest[engine] = known.add(series.base) if known else series.base.copy()
            if series is None:
                known = rest.get(engine)
                rest[engine] = known.add(sums) if known else sums
                continue
            labels = (engine, key[1], shape.operation)
            _add_sums(reading, durations, labels, sums)
            if key[1] not in described:
                described.add(key[1])
                query = shape.text[:MAX_QUERY] if text_wanted else ""
                infos[key[1], shape.summary, query] = 1
        for engine, sums in rest.items():
            if any(sums.buckets):
                _add_sums(reading, durations, (engine, OTHER, OTHER), sums)
                infos[OTHER, "other statements", ""] = 1
        reading["sqlprobe_statements_tracked"][()] = len(tallies)
        return total

    def _choose(self, tallies: dict[tuple[str, str], Tally]) -> None:
        """Give series to the first that come, and now and then to the busiest of the others."""
        free = self.max_fingerprints - len(self._series)
        if free > 0:
            for key in tallies:
                if free and key not in self._series and key[1] != _OVERFLOW:
                    self._series[key] = Series(None)
                    free -= 1
        if len(tallies) <= len(self._series) or time.monotonic() - self._reviewed < REVIEW_SECONDS:
            return
        self._reviewed = time.monotonic()
        growth = {key: tally.total_ns - self._growth.get(key, 0) for key, tally in tallies.items()}
        self._growth = {key: tally.total_ns for key, tally in tallies.items()}
        inside = sorted((key for key in self._series if key in growth), key=growth.__getitem__)
        outside = sorted((key for key in growth if key not in self._series and key[1] != _OVERFLOW),
                         key=growth.__getitem__, reverse=True)  # fmt: skip
        for old, new in zip(inside, outside, strict=False):
            # Twice as busy: two that take turns would else leave a trail of series.
            if growth[new] <= 2 * growth[old]:
                break
            base = self._series.pop(old).base
            self._ended[old] = Sums.of(tallies[old]) if base is None else Sums.of(tallies[old]).add(base, -1)
            ended = self._ended.pop(new, None)
            base = Sums.of(tallies[new])
            self._series[new] = Series(base if ended is None else base.add(ended, -1))

    def _read_routes(self, reading: Reading) -> None:
        queries: dict[str, list[Any]] = {}
        for scope in self.probe.scope_counts():
            with self._counting:
                route = self._route(scope.name)
            buckets = scope.calls_buckets.copy()
            if not any(buckets):
                continue
            known = queries.get(route)
            if known is None:
                queries[route] = [buckets, scope.calls, scope.ns]
            else:
                known[0] = [a + b for a, b in zip(known[0], buckets, strict=True)]
                known[1] += scope.calls
                known[2] += scope.ns
        for route, (buckets, calls, ns) in queries.items():
            reading["sqlprobe_request_queries"][route,] = Histogram(_fold(buckets, _QUERIES_EDGES), calls)
            reading["sqlprobe_request_db_seconds"][route,] = ns / 1e9
        with self._counting:
            for pair, count in self._pairs.items():
                reading["sqlprobe_request_statements"][pair] = count
            for name, (count, calls, ns) in self._n_plus_one.items():
                reading["sqlprobe_n_plus_one"][name] = count
                reading["sqlprobe_n_plus_one_queries"][name] = calls
                reading["sqlprobe_n_plus_one_seconds"][name] = ns / 1e9
            for route, count in self._requests.items():
                reading["sqlprobe_n_plus_one_requests"][route,] = count

    def _read_findings(self, reading: Reading) -> None:
        for finding in self.probe.findings():
            _add(reading["sqlprobe_findings"], (finding.rule, finding.severity), 1)
            if finding.rule == "plan-regression":
                known = self._plan_changes.get(finding.fingerprint, 0)
                self._plan_changes[finding.fingerprint] = max(known, finding.occurrences)
            for fix in finding.fixes:
                if fix.kind != "create-index":
                    continue
                advice = hashlib.sha256(fix.code.encode()).hexdigest()[:12]
                method, columns = _index(fix.code)
                table = finding.label
                infos = reading["sqlprobe_index_advice_info"]
                if len(infos) < self.max_fingerprints:
                    infos[advice, table, columns, method, finding.fingerprint] = 1
                tried = fix.verified
                if tried is not None and tried.cost_before and tried.cost_after is not None:
                    reading["sqlprobe_index_advice_cost_ratio"][advice,] = tried.cost_after / tried.cost_before
        for fingerprint, count in self._plan_changes.items():
            reading["sqlprobe_plan_changes"][fingerprint,] = count

    def _read_pool(self, reading: Reading, pool: PoolCounts) -> None:
        engine = _capped(self._engines, pool.engine, MAX_ENGINES)
        _add(reading["sqlprobe_pool_connections"], (engine, "used"), pool.used)
        _add(reading["sqlprobe_pool_connections"], (engine, "idle"), pool.idle)
        if pool.maximum is not None:
            _add(reading["sqlprobe_pool_connections_max"], (engine,), pool.maximum)
            _add(reading["sqlprobe_pool_connections_overflow"], (engine,), pool.overflow)
        _add(reading["sqlprobe_pool_pending_requests"], (engine,), pool.pending)
        _add(reading["sqlprobe_pool_timeouts"], (engine,), pool.timeouts)
        for name, counted in (("wait", pool.wait), ("use", pool.use), ("create", pool.create)):
            _add_histogram(reading[f"sqlprobe_pool_{name}_seconds"], (engine,), counted.buckets, counted.total_ns)
        for outcome, counted in pool.transactions.items():
            family = reading["sqlprobe_transaction_duration_seconds"]
            _add_histogram(family, (engine, outcome), counted.buckets, counted.total_ns)


_readers: weakref.WeakKeyDictionary[Probe, Reader] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def reader_of(probe: Probe, *, max_fingerprints: int = MAX_FINGERPRINTS, max_routes: int = MAX_ROUTES) -> Reader:
    """The one reader of *probe*; the bounds count when it is made."""
    with _making:
        reader = _readers.get(probe)
        if reader is None:
            reader = _readers[probe] = Reader(probe, max_fingerprints, max_routes)
        return reader


def read_all(readers: Iterable[Reader]) -> Reading:
    """
    One reading of several probes.

    Each sees every scope and every fault of the process: those are told by the first. The rest is told by engine.
    """
    whole: Reading | None = None
    for reader in readers:
        try:
            reading = reader.read()
        except ReferenceError:  # its probe has gone
            continue
        if whole is None:
            whole = reading
            continue
        for name, values in reading.items():
            into = whole[name]
            for labels, value in values.items():
                known = into.get(labels)
                if known is None:
                    into[labels] = value
                elif name in _BY_ENGINE:
                    into[labels] = _sum(known, value)
    return whole or {metric.name: {} for metric in METRICS}


def edges(bounds: Sequence[float], counted: Sequence[float]) -> tuple[int, ...]:
    """For each of *bounds*, how many buckets of a histogram over *counted* lie below it; every bound must be there."""
    return tuple(counted.index(bound) + 1 for bound in bounds)


def _fold(buckets: Sequence[int], ends: Sequence[int]) -> tuple[int, ...]:
    first, last = ends[0], ends[-1]
    if last - first == len(ends) - 1:  # between the two, each is a bucket of its own
        return (sum(buckets[:first]), *buckets[first:last], sum(buckets[last:]))
    starts = (0, *ends)
    return (*(sum(buckets[start:end]) for start, end in zip(starts, ends, strict=False)), sum(buckets[ends[-1] :]))


def _add_sums(reading: Reading, durations: dict[Labels, Value], labels: Labels, sums: Sums) -> None:
    _add_histogram(durations, labels, sums.buckets, sums.ns)
    if sums.rows >= 0:
        _add(reading["sqlprobe_query_rows"], labels, sums.rows)
    for error, count in sums.errors.items():
        if count:
            _add(reading["sqlprobe_query_errors"], (*labels, error), count)


def _add_histogram(family: dict[Labels, Value], labels: Labels, buckets: Sequence[int], ns: int) -> None:
    told = Histogram(_fold(buckets, _SECONDS_EDGES), ns / 1e9)
    known = family.get(labels)
    family[labels] = told if known is None else _sum(known, told)


def _add(family: dict[Labels, Value], labels: Labels, value: float) -> None:
    known = family.get(labels)
    family[labels] = value if known is None else _sum(known, value)


def _sum(one: Value, other: Value) -> Value:
    if isinstance(one, Histogram) and isinstance(other, Histogram):
        return Histogram(tuple(a + b for a, b in zip(one.buckets, other.buckets, strict=True)), one.sum + other.sum)
    assert not isinstance(one, Histogram)
    assert not isinstance(other, Histogram)
    return one + other


def _capped(known: dict[str, str], name: str, limit: int) -> str:
    label = known.get(name)
    if label is None:
        if len(known) >= limit:
            return OTHER
        label = known[name] = name
    return label


def _index(code: str) -> tuple[str, str]:
    """Method and columns of a CREATE INDEX."""
    found = re.search(r"\bON\s+\S+(?:\s+USING\s+(\w+))?\s*\((.*)\)", code, re.IGNORECASE | re.DOTALL)
    if found is None:
        return "", ""
    return (found[1] or "btree").lower(), found[2][:200]


def _versions() -> Labels:
    import platform

    import sqlalchemy

    return sqlprobe.__version__, sqlalchemy.__version__, platform.python_version()


_OVERFLOW: Final = "0" * 16  # the fingerprint of statements past the core's own bound
_BY_ENGINE: Final = {metric.name for metric in METRICS if "engine" in metric.labels}
_SECONDS_EDGES: Final = edges(SECONDS_BOUNDS, sqlprobe.SECONDS_BOUNDS)
_QUERIES_EDGES: Final = edges(QUERIES_BOUNDS, sqlprobe.CALL_BOUNDS)
