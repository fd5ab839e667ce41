"""
What exporters and the watch over pools add to a statement, in microseconds of the application's thread:
`python bench/exporters.py`.

The statement is a compiled select on SQLite in memory, inside a scope; the baseline has a probe and no exporter. The
subjects take turns within each round; a subject adds the median, over the rounds, of its time less the baseline's of
the same round. `null` is a second baseline: how far it is from 0 is the noise. opentelemetry-instrumentation-sqlalchemy
is compared where it is installed; it refuses SQLAlchemy 2.1, so run it on 2.0.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.metadata
import importlib.util
import logging
import platform
import statistics
import time
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased
from prometheus_client import CollectorRegistry
from sqlalchemy.pool import QueuePool

import sqlprobe
from sqlprobe_exporters.otel import OpenTelemetry
from sqlprobe_exporters.prometheus import Prometheus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TABLE = sa.Table("t", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String))
BY_ID = sa.select(TABLE).where(TABLE.c.id == sa.bindparam("i"))
STATEMENTS = 200
SCOPES = 5
THEIRS = "opentelemetry-instrumentation-sqlalchemy"
LIMITS = {"prometheus": 0.25, "otel, unsampled": 0.5, "otel, sampled": 20.0}


class Nowhere(SpanExporter):
    def export(self, spans):  # noqa: ARG002 - an exporter's signature
        return SpanExportResult.SUCCESS

    def shutdown(self):
        pass


def provider(sampler) -> TracerProvider:
    made = TracerProvider(sampler=ParentBased(sampler))
    made.add_span_processor(BatchSpanProcessor(Nowhere(), max_queue_size=100_000, schedule_delay_millis=200))
    return made


SAMPLED, UNSAMPLED = provider(ALWAYS_ON), provider(ALWAYS_OFF)


def select(engine: sa.Engine) -> None:
    for _ in range(SCOPES):
        with sqlprobe.scope("bench"), engine.connect() as connection:
            for number in range(STATEMENTS):
                connection.execute(BY_ID, {"i": number}).fetchall()


def checkout(engine: sa.Engine) -> None:
    with sqlprobe.scope("bench"):
        for _ in range(SCOPES * STATEMENTS):
            with engine.connect() as connection:
                connection.execute(BY_ID, {"i": 7}).fetchall()


@contextlib.contextmanager
def probed(engine, exporters=(), spans=None, **settings) -> Iterator[None]:
    with sqlprobe.attach(engine, settings=sqlprobe.Settings(**settings), exporters=exporters), under(spans):
        yield


def under(spans) -> Any:
    return contextlib.nullcontext() if spans is None else spans.get_tracer("bench").start_as_current_span("request")


@contextlib.contextmanager
def bare(_engine, spans=None) -> Iterator[None]:
    with under(spans):
        yield


@contextlib.contextmanager
def theirs(engine, spans) -> Iterator[None]:
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor

    instrumentor = SQLAlchemyInstrumentor()
    instrumentor.instrument(engine=engine, tracer_provider=spans, skip_dep_check=True)
    try:
        with under(spans):
            yield
    finally:
        instrumentor.uninstrument()


def otel(spans, **options) -> list[Any]:
    return [OpenTelemetry(tracer_provider=spans, metrics=False, pools=False, events=False, **options)]


SUBJECTS: dict[str, Callable[[sa.Engine], Any]] = {
    "baseline": probed,
    "null": probed,
    "prometheus": lambda engine: probed(engine, [Prometheus(registry=CollectorRegistry(), pools=False)]),
    "logging": lambda engine: probed(engine, ["logging"]),
    "otel, no trace": lambda engine: probed(engine, otel(SAMPLED)),
    "otel, unsampled": lambda engine: probed(engine, otel(UNSAMPLED), UNSAMPLED),
    "otel, sampled": lambda engine: probed(engine, otel(SAMPLED, compress=False), SAMPLED),
    "otel, sampled, compressed": lambda engine: probed(engine, otel(SAMPLED), SAMPLED),
}
CHECKOUTS: dict[str, Callable[[sa.Engine], Any]] = {
    "baseline": probed,
    "null": probed,
    "watch_pools": lambda engine: probed(engine, watch_pools=True),
    "watch_pools, no lines": lambda engine: probed(engine, watch_pools=True, call_sites="off"),
}
# Against an engine without anything: what a user would pick instead.
RIVALS: dict[str, Callable[[sa.Engine], Any]] = {
    "baseline": bare,
    "null": bare,
    "sqlprobe + otel, unsampled": SUBJECTS["otel, unsampled"],
    "sqlprobe + otel, sampled": SUBJECTS["otel, sampled"],
    "theirs, unsampled": lambda engine: theirs(engine, UNSAMPLED),
    "theirs, sampled": lambda engine: theirs(engine, SAMPLED),
}


def measure(subjects, work, rounds: int) -> dict[str, tuple[float, float]]:
    """Median and median deviation of what each subject adds to a statement, in microseconds."""
    engine = sa.create_engine("sqlite://", poolclass=QueuePool)
    TABLE.create(engine)
    added: dict[str, list[float]] = {name: [] for name in subjects}
    names = list(subjects)
    for number in range(rounds + 2):
        took = {}
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:
            with subjects[name](engine):
                work(engine)
                gc.collect()
                gc.disable()
                started = time.thread_time_ns()
                work(engine)
                took[name] = (time.thread_time_ns() - started) / 1e3 / STATEMENTS / SCOPES
                gc.enable()
        if number >= 2:
            for name in names:
                added[name].append(took[name] - (0 if name == "baseline" else took["baseline"]))
    engine.dispose()
    return {
        name: (median := statistics.median(values), statistics.median(abs(value - median) for value in values))
        for name, values in added.items()
    }


def show(title: str, told: dict[str, tuple[float, float]]) -> None:
    print(f"\n{title}\n| subject | added, us | +- |\n|---|---:|---:|")
    for name, (median, spread) in told.items():
        value = f"*{median:.2f}*" if name == "baseline" else f"{median:+.2f}"
        limit = f" (limit {LIMITS[name]})" if name in LIMITS else ""
        print(f"| {name}{limit} | {value} | {spread:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    logging.getLogger("sqlprobe.findings").addHandler(logging.NullHandler())
    logging.getLogger("sqlprobe.findings").propagate = False
    print(
        f"{platform.python_implementation()} {platform.python_version()}, SQLAlchemy {sa.__version__}, "
        f"opentelemetry-sdk {importlib.metadata.version('opentelemetry-sdk')}, {rounds} rounds"
    )
    show("A statement in a scope", measure(SUBJECTS, select, rounds))
    show("A connection, a statement, and back to the pool", measure(CHECKOUTS, checkout, rounds))
    if importlib.util.find_spec("opentelemetry.instrumentation"):
        told = measure(RIVALS, select, rounds)
        show(f"Beside {THEIRS} {importlib.metadata.version(THEIRS)}", told)
        for kind, wanted in (("sampled", 2.5), ("unsampled", 8)):
            ratio = told[f"theirs, {kind}"][0] / told[f"sqlprobe + otel, {kind}"][0]
            print(f"{kind}: {ratio:.1f} times cheaper (wanted: {wanted})")


if __name__ == "__main__":
    main()
