"""
What exporters and the watch over pools add to a statement, in microseconds of the application's thread:
`python bench/exporters.py`.

The statement is a compiled select on SQLite in memory, inside a scope; the baseline has a probe and no exporter. The
subjects take turns within each round; a subject adds the median, over the rounds, of its time less the baseline's of
the same round. `null` is a second baseline: how far it is from 0 is the noise. opentelemetry-instrumentation-sqlalchemy
is compared where it is installed; it refuses SQLAlchemy 2.1, so run it on 2.0.

`--instructions` counts instructions under valgrind instead of time: the same figures on a machine that is busy with
other things. They are of the whole process, so the thread that exports spans is in them.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import importlib.metadata
import importlib.util
import logging
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
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
WANTED = {"sampled": 2.5, "unsampled": 8}  # times cheaper than theirs
FEW, MANY = 2, 6  # times that a workload is run, for a difference in instructions
COUNTED_SCOPES = 1  # ... which is the same each time: fewer statements will do


class Nowhere(SpanExporter):
    def export(self, spans):  # noqa: ARG002 - an exporter's signature
        return SpanExportResult.SUCCESS

    def shutdown(self):
        pass


@functools.cache  # not before a child is forked: it has a thread
def provider(*, sampled: bool) -> TracerProvider:
    sampler = ALWAYS_ON if sampled else ALWAYS_OFF
    made = TracerProvider(sampler=ParentBased(sampler))
    made.add_span_processor(BatchSpanProcessor(Nowhere(), max_queue_size=100_000, schedule_delay_millis=200))
    return made


def select(engine: sa.Engine) -> None:
    for _ in range(SCOPES):
        with sqlprobe.scope("bench"), engine.connect() as connection:
            for number in range(STATEMENTS):
                connection.execute(BY_ID, {"i": number}).fetchall()


def plain(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        for number in range(SCOPES * STATEMENTS):
            connection.execute(BY_ID, {"i": number}).fetchall()


def checkout(engine: sa.Engine) -> None:
    with sqlprobe.scope("bench"):
        for _ in range(SCOPES * STATEMENTS):
            with engine.connect() as connection:
                connection.execute(BY_ID, {"i": 7}).fetchall()


@contextlib.contextmanager
def probed(engine, exporters=(), sampled=None, **settings) -> Iterator[None]:
    with sqlprobe.attach(engine, settings=sqlprobe.Settings(**settings), exporters=exporters), under(sampled):
        yield


def under(sampled) -> Any:
    if sampled is None:
        return contextlib.nullcontext()
    return provider(sampled=sampled).get_tracer("bench").start_as_current_span("request")


@contextlib.contextmanager
def bare(_engine, sampled=None) -> Iterator[None]:
    with under(sampled):
        yield


@contextlib.contextmanager
def theirs(engine, *, sampled) -> Iterator[None]:
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor

    instrumentor = SQLAlchemyInstrumentor()
    instrumentor.instrument(engine=engine, tracer_provider=provider(sampled=sampled), skip_dep_check=True)
    try:
        with under(sampled):
            yield
    finally:
        instrumentor.uninstrument()


def traced(engine, *, sampled=True, trace=True, **options) -> Any:
    exporter = OpenTelemetry(
        tracer_provider=provider(sampled=sampled), metrics=False, pools=False, events=False, **options
    )
    return probed(engine, [exporter], sampled if trace else None)


SUBJECTS: dict[str, Callable[[sa.Engine], Any]] = {
    "baseline": probed,
    "null": probed,
    "prometheus": lambda engine: probed(engine, [Prometheus(registry=CollectorRegistry(), pools=False)]),
    "logging": lambda engine: probed(engine, ["logging"]),
    "otel, no trace": lambda engine: traced(engine, trace=False),
    "otel, unsampled": lambda engine: traced(engine, sampled=False),
    "otel, sampled": lambda engine: traced(engine, compress=False),
    "otel, sampled, compressed": traced,
}
CHECKOUTS: dict[str, Callable[[sa.Engine], Any]] = {
    "baseline": probed,
    "null": probed,
    "watch_pools": lambda engine: probed(engine, watch_pools=True),
    "watch_pools, no lines": lambda engine: probed(engine, watch_pools=True, call_sites="off"),
}
# Against an engine without anything: what a user would pick instead. Both are under a request's span.
RIVALS: dict[str, Callable[[sa.Engine], Any]] = {
    "baseline": bare,
    "null": bare,
    "sqlprobe": probed,
    "sqlprobe + otel, unsampled": SUBJECTS["otel, unsampled"],
    "sqlprobe + otel, sampled": SUBJECTS["otel, sampled"],
    "sqlprobe + otel, sampled, compressed": SUBJECTS["otel, sampled, compressed"],
    "theirs, unsampled": lambda engine: theirs(engine, sampled=False),
    "theirs, sampled": lambda engine: theirs(engine, sampled=True),
}
TABLES = {
    "A statement in a scope": (SUBJECTS, select),
    "A connection, a statement, and back to the pool": (CHECKOUTS, checkout),
    f"All that is added, beside {THEIRS}: statements in no scope": (RIVALS, plain),
    f"All that is added, beside {THEIRS}: statements in scopes of {STATEMENTS} equal ones": (RIVALS, select),
}


def made_engine() -> sa.Engine:
    engine = sa.create_engine("sqlite://", poolclass=QueuePool)
    TABLE.create(engine)
    return engine


def measure(subjects, work, rounds: int) -> dict[str, tuple[float, float]]:
    """Median and median deviation of what each subject adds to a statement, in microseconds."""
    engine = made_engine()
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


def count(subjects, work) -> dict[str, float]:
    """Instructions that each subject adds to a statement. In a process under valgrind."""
    global SCOPES
    SCOPES = COUNTED_SCOPES
    told = {}
    for name, subject in subjects.items():
        if name == "null":
            continue
        few, many = (counted(subject, work, times) for times in (FEW, MANY))
        told[name] = (many - few) / (MANY - FEW) / STATEMENTS / SCOPES
    return {name: value - (0 if name == "baseline" else told["baseline"]) for name, value in told.items()}


def counted(subject, work, times: int) -> int:
    """Instructions of this process up to the end of a child that runs *work* so often: valgrind tells at its end."""
    child = os.fork()
    if not child:
        engine = made_engine()
        gc.disable()  # its turns would fall differently
        with subject(engine):
            work(engine)
            for _ in range(times):
                work(engine)
            provider(sampled=True).force_flush()  # what the thread that exports would do later
            os._exit(0)
    _, status = os.waitpid(child, 0)
    log = Path(os.environ["BENCH_LOG"]).read_text()
    found = re.search(rf"=={child}== I +refs: +([\d,]+)", log)
    if status or found is None:
        sys.exit(log[-2000:])
    return int(found[1].replace(",", ""))


def under_valgrind() -> None:
    """Run the same again where instructions are counted."""
    if shutil.which("valgrind") is None:
        sys.exit("bench/exporters.py --instructions needs valgrind: apt-get install valgrind")
    with tempfile.TemporaryDirectory() as folder:
        log = f"{folder}/log"
        told = {**os.environ, "BENCH_LOG": log, "PYTHONHASHSEED": "0"}
        valgrind = [
            "valgrind",
            "--tool=cachegrind",
            "--cache-sim=no",
            "--cachegrind-out-file=/dev/null",
            f"--log-file={log}",
        ]
        sys.exit(subprocess.run([*valgrind, sys.executable, *sys.argv], check=False, env=told).returncode)


def show(title: str, told: dict[str, tuple[float, float]]) -> None:
    print(f"\n{title}\n| subject | added, us | +- |\n|---|---:|---:|")
    for name, (median, spread) in told.items():
        value = f"*{median:.2f}*" if name == "baseline" else f"{median:+.2f}"
        limit = f" (limit {LIMITS[name]})" if name in LIMITS else ""
        print(f"| {name}{limit} | {value} | {spread:.2f} |")


def show_counts(title: str, told: dict[str, float]) -> None:
    print(f"\n{title}\n| subject | instructions added | of a statement without |\n|---|---:|---:|")
    for name, value in told.items():
        if name == "baseline":
            print(f"| {name} | *{value:,.0f}* | |")
        else:
            print(f"| {name} | {value:+,.0f} | {value / told['baseline']:+.1%} |")


def show_ratios(told: dict[str, float]) -> None:
    """Of the table beside theirs."""
    for kind, wanted in WANTED.items():
        everything = told[f"sqlprobe + otel, {kind}"]
        own = everything - told["sqlprobe"]
        rival = told[f"theirs, {kind}"]
        print(
            f"{kind}: the exporter's own addition {rival / own:.1f} times cheaper, "
            f"with everything that the probe adds {rival / everything:.1f} times (wanted: {wanted})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--instructions", action="store_true", help="count instructions, with valgrind")
    parser.add_argument("--only", default="", help="tables whose titles contain this")
    options = parser.parse_args()
    if options.instructions and "BENCH_LOG" not in os.environ:
        under_valgrind()
    logging.getLogger("sqlprobe.findings").addHandler(logging.NullHandler())
    logging.getLogger("sqlprobe.findings").propagate = False
    print(
        f"{platform.python_implementation()} {platform.python_version()}, SQLAlchemy {sa.__version__}, "
        f"opentelemetry-sdk {importlib.metadata.version('opentelemetry-sdk')}"
        f"{'' if options.instructions else f', {options.rounds} rounds'}"
    )
    for title, (subjects, work) in TABLES.items():
        if options.only not in title or (
            subjects is RIVALS and not importlib.util.find_spec("opentelemetry.instrumentation")
        ):
            continue
        if options.instructions:
            told = count(subjects, work)
            show_counts(title, told)
        else:
            measured = measure(subjects, work, options.rounds)
            show(title, measured)
            told = {name: median for name, (median, _) in measured.items()}
        if subjects is RIVALS:
            show_ratios(told)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
