"""
The metrics `db.client.*` of OpenTelemetry, built from the probe's own counters and handed to a metric exporter.

The SDK's instruments would cost 7 us a measurement, in the statement's thread. Here a thread of ours makes the points
of what was counted anyway: histograms with the bounds that the conventions advise, an exact sum of finer ones.
"""

from __future__ import annotations

import atexit
import importlib
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

import sqlprobe
from sqlprobe_exporters.metrics import SECONDS_BOUNDS, edges

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlprobe import Probe
    from sqlprobe.pool import PoolCounts
    from sqlprobe.stats import Tally

ADVISED: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
MAX_POINTS: Final = 1_000  # different summaries; the rest is one point without
PATIENCE: Final = 10_000  # milliseconds for one export
LEAVE: Final = 2_000  # milliseconds for the last: a collector that is gone must not keep the process
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
_OTLP: Final = "opentelemetry.exporter.otlp.proto.http"


class ExportFailed(Exception):  # noqa: N818 - what happened, for faults to name
    """The exporter says that nobody took the metrics."""


class Pusher:
    """Exports every *seconds*, and when it is stopped. A failure is counted."""

    def __init__(self, probe: Probe, exporter: Any, seconds: float) -> None:
        self._probe = weakref.ref(probe)
        self._exporter = exporter
        self._seconds = seconds
        self._resource: Resource | None = None
        self._stopped = False
        self._begin()
        atexit.register(_leave, weakref.ref(self))

    def _begin(self) -> None:
        self._since_ns = time.time_ns()
        self._wake = threading.Event()
        self._exporting = threading.Lock()
        threading.Thread(target=_run, args=(weakref.ref(self), self._wake), name="sqlprobe otel", daemon=True).start()

    def forget(self) -> None:
        """After a fork: the child counts from zero, and has no thread."""
        if not self._stopped:
            self._begin()

    def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._wake.set()
            self.export(LEAVE)

    def export(self, patience: int = PATIENCE) -> None:
        """Export what was counted so far. Never raises."""
        probe = self._probe()
        if probe is None:
            return
        with self._exporting:
            try:
                told = self._exporter.export(self.data(probe), timeout_millis=patience)
            except Exception as error:  # noqa: BLE001 - the exporter's, or the network's
                probe.fault("otel metrics", error)
            else:
                if told is MetricExportResult.FAILURE:
                    probe.fault("otel metrics", ExportFailed())

    def data(self, probe: Probe) -> MetricsData:
        """Everything as of now, cumulative since the process began to count."""
        if self._resource is None:
            self._resource = getattr(trace.get_tracer_provider(), "resource", None) or Resource.create()
        now = time.time_ns()
        metrics = [*_operations(probe, self._since_ns, now), *_pools(probe, self._since_ns, now)]
        scope = InstrumentationScope("sqlprobe", sqlprobe.__version__)
        resource = ResourceMetrics(self._resource, [ScopeMetrics(scope, metrics, SCHEMA)], "")
        return MetricsData([resource])


SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"


def start(probe: Probe, metrics: Any, seconds: float) -> Pusher | None:
    """
    A pusher of *probe*'s metrics to the exporter *metrics*; None for *metrics* makes one from the environment.

    A package that is missing then is told as a fault.
    """
    if metrics is None:
        wanted = os.environ.get("OTEL_METRICS_EXPORTER", "otlp").strip().lower()
        if wanted != "otlp" or not any(os.environ.get(name) for name in ENDPOINTS):
            return None
        try:
            module: Any = importlib.import_module(f"{_OTLP}.metric_exporter")
            metrics = module.OTLPMetricExporter()
        except Exception as error:  # noqa: BLE001 - a package that is missing, an endpoint that cannot be
            probe.fault("otel metrics: pip install opentelemetry-exporter-otlp-proto-http", error)
            return None
    return Pusher(probe, metrics, seconds)


def _run(ref: weakref.ref[Pusher], wake: threading.Event) -> None:
    pusher = ref()
    while pusher is not None and not wake.wait(pusher._seconds):  # noqa: SLF001 - of this module
        pusher.export()
        del pusher  # who forgets the probe must not wait for this thread
        pusher = ref()


def _leave(ref: weakref.ref[Pusher]) -> None:
    pusher = ref()
    if pusher is not None:
        pusher.stop()


def _operations(probe: Probe, since_ns: int, now_ns: int) -> list[Metric]:
    from sqlprobe_exporters.otel import statement_attributes

    attributes_of: dict[str, dict[str, Any]] = {}
    groups: dict[tuple[str, str], list[Any]] = {}
    errors: dict[tuple[str, str], int] = {}
    for tally in probe.counts():
        if tally.engine not in attributes_of:
            attributes_of[tally.engine] = statement_attributes(_url(tally))
        for error, count in (tally.errors or {}).items():
            errors[tally.engine, error] = errors.get((tally.engine, error), 0) + count
        key = (tally.engine, tally.shape.summary)
        if key not in groups and len(groups) >= MAX_POINTS:
            key = (tally.engine, "")
        group = groups.get(key)
        if group is None:
            groups[key] = [list(tally.buckets), tally.total_ns, tally.min_ns, tally.max_ns]
        else:
            group[0] = [a + b for a, b in zip(group[0], tally.buckets, strict=True)]
            group[1] += tally.total_ns
            group[2] = min(group[2], tally.min_ns)
            group[3] = max(group[3], tally.max_ns)
    points = [
        _point(
            {**attributes_of[engine], **({"db.query.summary": summary} if summary else {})},
            *group,
            bounds=ADVISED,
            since_ns=since_ns,
            now_ns=now_ns,
        )
        for (engine, summary), group in groups.items()
    ]
    failed = [
        NumberDataPoint({**attributes_of[engine], "error.type": error}, since_ns, now_ns, count)
        for (engine, error), count in errors.items()
    ]
    found = []
    if points:
        found.append(_histogram("db.client.operation.duration", "Duration of database client operations.", points))
    if failed:
        told = Sum(failed, AggregationTemporality.CUMULATIVE, is_monotonic=True)
        found.append(Metric("sqlprobe.errors", "Statements that failed.", "{statement}", told))
    return found


def _url(tally: Tally) -> Any:
    from sqlalchemy import make_url

    # The name of an engine is a URL without user, password and query.
    return make_url(tally.engine)


def _pools(probe: Probe, since_ns: int, now_ns: int) -> list[Metric]:
    pools = probe.pools()
    if not pools:
        return []
    names = [{"db.client.connection.pool.name": _pool_name(pool)} for pool in pools]

    def numbers(
        name: str, help_: str, unit: str, values: list[tuple[dict[str, str], int | None]], *, grows: bool = False
    ) -> Metric:
        points = [NumberDataPoint(labels, since_ns, now_ns, value) for labels, value in values if value is not None]
        return Metric(name, help_, unit, Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=grows))

    def times(name: str, help_: str, counted: list[Any]) -> Metric:
        points = [
            _point(
                labels, each.buckets, each.total_ns, None, None, bounds=SECONDS_BOUNDS, since_ns=since_ns, now_ns=now_ns
            )
            for labels, each in zip(names, counted, strict=True)
        ]
        return _histogram(name, help_, points)

    prefix = "db.client.connection"
    state = f"{prefix}.state"
    both = list(zip(names, pools, strict=True))
    counts = [({**labels, state: "used"}, pool.used) for labels, pool in both]
    counts += [({**labels, state: "idle"}, pool.idle) for labels, pool in both]
    found = [
        numbers(f"{prefix}.count", "Connections by state.", "{connection}", list(counts)),
        numbers(
            f"{prefix}.idle.max", "Most idle connections.", "{connection}", [(each, pool.size) for each, pool in both]
        ),
        numbers(f"{prefix}.max", "Most connections.", "{connection}", [(each, pool.maximum) for each, pool in both]),
        numbers(
            f"{prefix}.pending_requests",
            "Callers that wait.",
            "{request}",
            [(each, pool.pending) for each, pool in both],
        ),
        numbers(
            f"{prefix}.timeouts",
            "Callers in vain.",
            "{timeout}",
            [(each, pool.timeouts) for each, pool in both],
            grows=True,
        ),
        times(f"{prefix}.create_time", "Time to open a connection.", [pool.create for pool in pools]),
        times(f"{prefix}.wait_time", "Time to get a connection.", [pool.wait for pool in pools]),
        times(f"{prefix}.use_time", "Time that a connection was out.", [pool.use for pool in pools]),
    ]
    return [metric for metric in found if metric.data.data_points]


def _pool_name(pool: PoolCounts) -> str:
    """As the conventions have it: `server.address:server.port/db.namespace`."""
    return pool.engine.partition("://")[2] or pool.engine


def _histogram(name: str, help_: str, points: list[HistogramDataPoint]) -> Metric:
    return Metric(name, help_, "s", Histogram(points, AggregationTemporality.CUMULATIVE))


def _point(
    attributes: dict[str, Any],
    buckets: Sequence[int],
    total_ns: int,
    min_ns: int | None,
    max_ns: int | None,
    *,
    bounds: tuple[float, ...],
    since_ns: int,
    now_ns: int,
) -> HistogramDataPoint:
    ends = edges(bounds, sqlprobe.SECONDS_BOUNDS)
    starts = (0, *ends)
    counts = [sum(buckets[start:end]) for start, end in zip(starts, ends, strict=False)]
    counts.append(sum(buckets[ends[-1] :]))
    # Both extremes are optional on the wire, and in the encoder.
    return HistogramDataPoint(
        attributes=attributes,
        start_time_unix_nano=since_ns,
        time_unix_nano=now_ns,
        count=sum(counts),
        sum=total_ns / 1e9,
        bucket_counts=counts,
        explicit_bounds=bounds,
        min=None if min_ns is None else min_ns / 1e9,  # type: ignore[arg-type]
        max=None if max_ns is None else max_ns / 1e9,  # type: ignore[arg-type]
    )
