"""
What each of the tools that users choose from adds to a statement: `python bench/peers.py`, in an environment that has
them. `bench/compare.py` makes such environments, runs this in each and writes `bench/RESULTS.md`.

All subjects run the same batches on the same engines in one process, in an order that turns from round to round, each
right after a batch of the baseline. What is told is CPU time (user and system, all threads): the median, over the
rounds, of subject by baseline, less 1, in microseconds of the baseline's median: what slows both does not count; and
`least`, the subject's fastest batch less the baseline's, which a busy machine disturbs less. `null` is a second
baseline: how far it is from 0 is the noise. A subject has two parts: `installed`, outside the
time, and `unit`, the request, test or recording around the statements, whose opening and closing are in it. When a
subject ends, its listeners are taken off and SQLAlchemy's `_has_events` flags, which only ever go up, are put back:
nobody pays for the one before.

`--instructions` counts instructions with valgrind instead, each subject in processes of its own: slow and repeatable.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib.metadata
import json
import logging
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import overhead
import sqlalchemy as sa
from sqlalchemy import Engine, event
from sqlalchemy.engine import Dialect
from sqlalchemy.event.registry import _EventKey
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import sqlprobe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

TASKS = 20
THREADS = 8
FEW, MANY = 1, 6  # times that a workload is run for `--instructions`

# ddtrace reads these when it is imported: no agent is asked, and nothing is sent.
os.environ.update(
    DD_INSTRUMENTATION_TELEMETRY_ENABLED="0",
    DD_REMOTE_CONFIGURATION_ENABLED="0",
    DD_TRACE_STARTUP_LOGS="0",
    DD_TRACE_STATS_COMPUTATION_ENABLED="0",
)


class Unavailable(Exception):  # noqa: N818 - a state of the peer, not of the bench
    """The peer cannot be had here, and why."""


overhead.PROBE.detach()  # here each subject attaches what it needs


# --- listeners, taken off and put back -------------------------------------------------------------------------------


class Listeners:
    """Those that *install* puts on SQLAlchemy: recorded once, then switched, as peers seldom take theirs off."""

    def __init__(self, install: Callable[[], object]) -> None:
        self.calls: list[tuple[Any, str, Any, dict[str, Any]]] = []
        listen = _EventKey.listen

        def recording(key: Any, *args: Any, **options: Any) -> None:
            self.calls.append((key.target, key.identifier, key.fn, options))
            listen(key, *args, **options)

        _EventKey.listen = recording
        try:
            install()
        finally:
            _EventKey.listen = listen
        if not self.calls:
            raise Unavailable("it put no listener on SQLAlchemy")
        self.off()

    def on(self) -> None:
        for target, name, function, options in self.calls:
            event.listen(target, name, function, **options)

    def off(self) -> None:
        for target, name, function, _ in self.calls:
            if event.contains(target, name, function):
                event.remove(target, name, function)


def clean(engine: Engine) -> None:
    """Lower the flags that listeners, once there, leave raised; complain of listeners that are still there."""
    for name in ("before_cursor_execute", "after_cursor_execute", "before_execute", "after_execute", "do_execute"):
        dispatch = engine.dialect.dispatch if name.startswith("do_") else engine.dispatch
        if len(getattr(dispatch, name)):
            raise RuntimeError(f"a listener for {name} was left behind")
    for kind in (Engine, Dialect):
        if kind.__dict__.get("_has_events"):
            kind._has_events = False  # noqa: SLF001 - nothing else lowers it
    engine.__dict__.pop("_has_events", None)
    engine.dialect.__dict__.pop("_has_events", None)


# --- subjects ---------------------------------------------------------------------------------------------------------


class Subject:
    """Nothing, the baseline."""

    package = ""

    def __init__(self) -> None:
        """Import the package; raise Unavailable if that cannot be."""

    def installed(self, engine: Engine) -> contextlib.AbstractContextManager[Any]:
        del engine
        return contextlib.nullcontext()

    def unit(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()


class Listening(Subject):
    """A peer whose listeners are the same all the time."""

    install: Callable[[], object]

    @contextlib.contextmanager
    def installed(self, engine: Engine) -> Iterator[None]:
        del engine
        if not hasattr(self, "listeners"):
            self.listeners = Listeners(self.install)
        self.listeners.on()
        try:
            yield
        finally:
            self.listeners.off()


class EmptyListeners(Subject):
    def installed(self, engine: Engine) -> contextlib.AbstractContextManager[Any]:
        return overhead.empty_listeners(engine)


class Sqlprobe(Subject):
    """A probe of this engine, by the public names."""

    def __init__(self, *, scope: bool = True, exporters: Callable[[], list[Any]] = list, **settings: Any) -> None:
        self.settings = sqlprobe.Settings(**settings)
        self.scope = scope
        self.exporters = exporters

    @contextlib.contextmanager
    def installed(self, engine: Engine) -> Iterator[None]:
        probe = sqlprobe.attach(engine, settings=self.settings, exporters=self.exporters())
        try:
            yield
            if faults := probe.faults():
                raise RuntimeError(str(faults))
        finally:
            probe.detach()

    def unit(self) -> contextlib.AbstractContextManager[Any]:
        return sqlprobe.scope("bench") if self.scope else contextlib.nullcontext()


_tracer: list[Any] = []


def tracer() -> Any:
    """OpenTelemetry's, of the global provider, with a batch processor whose exporter drops what it gets."""
    if not _tracer:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

        class Nowhere(SpanExporter):
            def export(self, spans: Any) -> SpanExportResult:  # noqa: ARG002
                return SpanExportResult.SUCCESS

        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(Nowhere(), max_queue_size=100_000))
        trace.set_tracer_provider(provider)
        _tracer.append(trace.get_tracer("bench"))
    return _tracer[0]


@contextlib.contextmanager
def request_span(*, sampled: bool) -> Iterator[None]:
    """The span of a request around the statements: of this process, or one that the caller did not sample."""
    from opentelemetry import trace

    if sampled:
        with tracer().start_as_current_span("GET /bench"):
            yield
    else:
        parent = trace.SpanContext(1, 1, is_remote=True, trace_flags=trace.TraceFlags(0))
        with trace.use_span(trace.NonRecordingSpan(parent)):
            yield


class SqlprobeOtel(Sqlprobe):
    def __init__(self, *, sampled: bool, compress: bool = True) -> None:
        from sqlprobe_exporters.otel import OpenTelemetry

        super().__init__(exporters=lambda: [OpenTelemetry(compress=compress, metrics=False)])
        self.sampled = sampled
        tracer()

    @contextlib.contextmanager
    def unit(self) -> Iterator[None]:
        with request_span(sampled=self.sampled), super().unit():
            yield


class Otel(Subject):
    package = "opentelemetry-instrumentation-sqlalchemy"

    def __init__(self, *, sampled: bool) -> None:
        from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor

        self.instrumentor = SQLAlchemyInstrumentor()
        self.sampled = sampled
        tracer()

    @contextlib.contextmanager
    def installed(self, engine: Engine) -> Iterator[None]:
        self.instrumentor.instrument(engine=engine, skip_dep_check=True)
        try:
            yield
        finally:
            self.instrumentor.uninstrument()

    def unit(self) -> contextlib.AbstractContextManager[Any]:
        return request_span(sampled=self.sampled)


class Sentry(Listening):
    package = "sentry-sdk"
    started = False

    def __init__(self, *, sampled: bool) -> None:
        import sentry_sdk

        self.sdk = sentry_sdk
        self.sampled = sampled

    def install(self) -> None:
        from sentry_sdk.integrations.sqlalchemy import SqlalchemyIntegration
        from sentry_sdk.transport import Transport

        class Nowhere(Transport):
            def capture_envelope(self, envelope: Any) -> None:
                """Drop it."""

        if not Sentry.started:
            self.sdk.init(
                dsn="https://key@localhost/1",
                transport=Nowhere,
                traces_sample_rate=1.0,
                default_integrations=False,  # they patch threads and http, which others here use too
                integrations=[SqlalchemyIntegration()],
            )
            Sentry.started = True
        else:  # its listeners are there once for the process
            SqlalchemyIntegration.setup_once()

    def unit(self) -> contextlib.AbstractContextManager[Any]:
        return self.sdk.start_transaction(name="GET /bench", op="http.server", sampled=self.sampled)


class Datadog(Subject):
    package = "ddtrace"

    def __init__(self) -> None:
        from ddtrace.trace import TraceFilter, tracer

        class Nowhere(TraceFilter):
            def process_trace(self, trace: Any) -> None:
                """Drop it: there is no agent."""

        logging.getLogger("ddtrace").setLevel(logging.CRITICAL)
        tracer.configure(trace_processors=[Nowhere()])
        self.tracer = tracer
        self.listeners: dict[int, Listeners] = {}

    @contextlib.contextmanager
    def installed(self, engine: Engine) -> Iterator[None]:
        from ddtrace.contrib.internal.sqlalchemy.engine import EngineTracer

        if id(engine) not in self.listeners:
            self.listeners[id(engine)] = Listeners(lambda: EngineTracer.attach(None, engine))
        self.listeners[id(engine)].on()
        try:
            yield
        finally:
            self.listeners[id(engine)].off()

    def unit(self) -> contextlib.AbstractContextManager[Any]:
        return self.tracer.trace("web.request")


class Sqltap(Subject):
    package = "sqltap"

    def __init__(self) -> None:
        import sqltap

        self.sqltap = sqltap

    @contextlib.contextmanager
    def installed(self, engine: Engine) -> Iterator[None]:
        self.session = self.sqltap.start(engine)
        try:
            yield
        finally:
            self.session.stop()
            self.session.collect()


class Queryspy(Subject):
    package = "queryspy"

    def __init__(self) -> None:
        import queryspy

        self.queryspy = queryspy

    def unit(self) -> contextlib.AbstractContextManager[Any]:
        return self.queryspy.record()


class Queryguard(Listening):
    package = "pytest-queryguard"

    def __init__(self, *, records: bool = True) -> None:
        import pytest_queryguard

        self.queryguard = pytest_queryguard
        self.records = records

    def install(self) -> None:
        from pytest_queryguard import listeners

        listeners._installed = False  # noqa: SLF001 - it may have been there before, unrecorded
        with self.queryguard.record_queries():
            pass

    def unit(self) -> contextlib.AbstractContextManager[Any]:
        return self.queryguard.record_queries() if self.records else contextlib.nullcontext()


class Querycount(Listening):
    package = "pytest-querycount"

    def __init__(self) -> None:
        from pytest_querycount import backends, recorder

        self.backends = backends
        self.recorder = recorder

    def install(self) -> None:
        self.backends.install_all()

    @contextlib.contextmanager
    def unit(self) -> Iterator[None]:
        mine = self.recorder.Recorder()
        self.backends.push(mine)
        try:
            yield
        finally:
            self.backends.pop(mine)


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "baseline": Subject,
    "null": Subject,
    "empty listeners": EmptyListeners,
    "sqlprobe, outside a scope": lambda: Sqlprobe(scope=False),
    "sqlprobe, in a scope, no lines": lambda: Sqlprobe(call_sites="off"),
    "sqlprobe, in a scope": Sqlprobe,
    "sqlprobe, in a scope, all lines": lambda: Sqlprobe(call_sites="all"),
    "sqlprobe with Prometheus": lambda: Sqlprobe(exporters=lambda: ["prometheus"]),
    "sqlprobe with OTel, not sampled": lambda: SqlprobeOtel(sampled=False),
    "sqlprobe with OTel, sampled": lambda: SqlprobeOtel(sampled=True),
    "sqlprobe with OTel, sampled, a span each": lambda: SqlprobeOtel(sampled=True, compress=False),
    "OpenTelemetry, sampled": lambda: Otel(sampled=True),
    "OpenTelemetry, not sampled": lambda: Otel(sampled=False),
    "Sentry, sampled": lambda: Sentry(sampled=True),
    "Sentry, not sampled": lambda: Sentry(sampled=False),
    "ddtrace": Datadog,
    "sqltap": Sqltap,
    "queryspy": Queryspy,
    "pytest-queryguard": Queryguard,
    "pytest-querycount": Querycount,
}


def available(wanted: list[str] | None) -> tuple[dict[str, Subject], dict[str, str]]:
    """The subjects that can be had, and of the others why not."""
    subjects, missing = {}, {}
    for name, make in SUBJECTS.items():
        if wanted is None or name in {"baseline", "null", "empty listeners", *wanted}:
            try:
                subjects[name] = make()
            except Exception as error:  # noqa: BLE001 - a peer's: told, and the others run
                missing[name] = f"{type(error).__name__}: {error}"
    return subjects, missing


# --- workloads --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Workload:
    """`run(unit)` opens a unit where an application would: around a request, in each thread, in each task."""

    name: str
    run: Callable[[Any], None]
    engine: Engine
    statements: int


def around(work: Callable[[Engine, int], None], engine: Engine, n: int) -> Callable[[Any], None]:
    def run(unit: Any) -> None:
        with unit():
            work(engine, n)

    return run


def in_threads(work: Callable[[Engine, int], None], engine: Engine, n: int) -> Callable[[Any], None]:
    def run(unit: Any) -> None:
        errors: list[BaseException] = []

        def each() -> None:
            try:
                with unit():
                    work(engine, n)
            except BaseException as error:  # noqa: BLE001 - raised again below, where it is seen
                errors.append(error)

        threads = [threading.Thread(target=each) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    return run


def in_tasks(
    loop: asyncio.AbstractEventLoop,
    work: Callable[[AsyncEngine, int], Awaitable[None]],
    engine: Any,
    n: int,
    tasks: int,
) -> Callable[[Any], None]:
    def run(unit: Any) -> None:
        async def each() -> None:
            with unit():
                await work(engine, n)

        async def every() -> None:
            await asyncio.gather(*(each() for _ in range(tasks)))

        loop.run_until_complete(every())

    return run


async def async_lazy(engine: AsyncEngine, n: int) -> None:
    def lazy(session: Session) -> None:
        for customer in session.scalars(sa.select(overhead.Customer).limit(n)):
            customer.orders  # noqa: B018 - the lazy load

    async with AsyncSession(engine) as session:
        await session.run_sync(lazy)


ROWS = [{"i": number, "name": f"name {number}"} for number in range(1, 21)]
UPDATE = sa.text("UPDATE customer SET name = :name WHERE id = :i")


def many(engine: Engine, n: int) -> None:
    """*n* executemany of 20 rows."""
    with engine.connect() as connection:
        for _ in range(n):
            connection.execute(UPDATE, ROWS)
        connection.rollback()


async def async_many(engine: AsyncEngine, n: int) -> None:
    async with engine.connect() as connection:
        for _ in range(n):
            await connection.execute(UPDATE, ROWS)
        await connection.rollback()


def lazy(n: int) -> Callable[[Engine, int], None]:
    def run(engine: Engine, _: int) -> None:
        with Session(engine) as session:
            for customer in session.scalars(sa.select(overhead.Customer).limit(n)):
                customer.orders  # noqa: B018 - the lazy load

    return run


def sqlite_workloads(customers: int = 600) -> list[Workload]:
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool, connect_args={"check_same_thread": False})
    overhead.fill(engine, customers)
    return [
        Workload("SQLite, Core", around(overhead.core_select, engine, 200), engine, 200),
        Workload("SQLite, Core, a connection each", around(overhead.core_conn, engine, 100), engine, 100),
        Workload("SQLite, lazy loads", around(lazy(50), engine, 50), engine, 51),
    ]


def postgresql_workloads(url_for: Callable[[str], Any], loop: asyncio.AbstractEventLoop) -> list[Workload]:
    engine = sa.create_engine(url_for("psycopg"), pool_size=THREADS)
    overhead.fill(engine, 600)
    async_engine = create_async_engine(url_for("asyncpg"), pool_size=TASKS)
    sync = async_engine.sync_engine

    def tasks(work: Any, n: int, of: int) -> Callable[[Any], None]:
        return in_tasks(loop, work, async_engine, n, of)

    return [
        Workload("psycopg, Core", around(overhead.core_select, engine, 50), engine, 50),
        Workload("psycopg, lazy loads", around(lazy(50), engine, 50), engine, 51),
        Workload("psycopg, executemany", around(many, engine, 10), engine, 10),
        Workload("psycopg, Core, 8 threads", in_threads(overhead.core_select, engine, 25), engine, 25 * THREADS),
        Workload("asyncpg, Core", tasks(overhead.async_core, 50, 1), sync, 50),
        Workload("asyncpg, lazy loads", tasks(async_lazy, 50, 1), sync, 51),
        Workload("asyncpg, executemany", tasks(async_many, 10, 1), sync, 10),
        Workload("asyncpg, Core, 20 tasks", tasks(overhead.async_core, 10, TASKS), sync, 10 * TASKS),
        Workload("asyncpg, lazy loads, 20 tasks", tasks(async_lazy, 10, TASKS), sync, 11 * TASKS),
    ]


# --- CPU time ---------------------------------------------------------------------------------------------------------


def batch(workload: Workload, subject: Subject) -> float:
    """CPU microseconds a statement."""
    clean(workload.engine)
    try:
        with subject.installed(workload.engine):
            workload.run(subject.unit)  # caches and tables warm, as in a process that has run for a while
            gc.collect()
            started = time.process_time_ns()
            workload.run(subject.unit)
            elapsed = time.process_time_ns() - started
    finally:
        with contextlib.suppress(RuntimeError):
            clean(workload.engine)
    return elapsed / workload.statements / 1000


def measure(workload: Workload, subjects: dict[str, Subject], rounds: int) -> dict[str, Any]:
    names = list(subjects)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names if name != "baseline"}
    failed: dict[str, str] = {}
    names.remove("baseline")
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            if name in failed:
                continue
            try:
                base = batch(workload, subjects["baseline"])
                times[name].append((base, batch(workload, subjects[name])))
            except Exception as error:
                if name in {"baseline", "null", "empty listeners"}:
                    raise
                failed[name] = f"{type(error).__name__}: {error}"[:300]
    baseline = statistics.median(base for pairs in times.values() for base, _ in pairs)
    added = {
        name: [(mine / base - 1) * baseline for base, mine in pairs]
        for name, pairs in times.items()
        if name not in failed
    }
    least = min(base for pairs in times.values() for base, _ in pairs)
    return {
        "workload": workload.name,
        "baseline": baseline,
        "least": {name: min(mine for _, mine in pairs) - least for name, pairs in times.items() if name not in failed},
        "added": {name: statistics.median(values) for name, values in added.items()},
        "quartiles": {name: statistics.quantiles(values, n=4)[::2] for name, values in added.items()},
        "failed": failed,
    }


# --- instructions -----------------------------------------------------------------------------------------------------


def count(workload: str, subject: str, times: int) -> tuple[int, int]:
    """Instructions of a process that runs *workload* under *subject* so often; statements of a run."""
    command = [sys.executable, __file__, "--child", workload, subject, str(times)]
    valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    done = subprocess.run(
        [*valgrind, *command], check=False, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "0"}
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        raise RuntimeError(done.stderr[-300:])
    return int(found[1]), int(done.stdout)


def run_child(workload_name: str, subject_name: str, times: int) -> None:
    subject = SUBJECTS[subject_name]()
    workload = next(each for each in sqlite_workloads(60) if each.name == workload_name)
    with subject.installed(workload.engine):
        for _ in range(3):
            workload.run(subject.unit)
        gc.collect()
        for _ in range(times):
            workload.run(subject.unit)
        print(workload.statements, flush=True)
        os._exit(0)  # what happens at exit is not what is measured


def instructions(workloads: list[str], subjects: list[str], told: Callable[[dict[str, Any]], None]) -> None:
    for workload in workloads:
        each: dict[str, float] = {}
        failed: dict[str, str] = {}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            running = {
                (name, times): pool.submit(count, workload, name, times) for name in subjects for times in (FEW, MANY)
            }
            for name in subjects:
                try:
                    (few, statements), (more, _) = (running[name, times].result() for times in (FEW, MANY))
                    each[name] = (more - few) / (MANY - FEW) / statements
                except RuntimeError as error:
                    failed[name] = str(error)
                print(f"{workload}, {name}: {each.get(name, 0):,.0f}", file=sys.stderr, flush=True)
        added = {name: value - each["baseline"] for name, value in each.items() if name != "baseline"}
        told({"workload": workload, "baseline": each["baseline"], "added": added, "failed": failed})


# --- telling ----------------------------------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    found = {"CPython": platform.python_version(), "SQLAlchemy": sa.__version__}
    packages = dict.fromkeys(kind.package for kind in (Otel, Sentry, Datadog, Sqltap, Queryspy, Queryguard, Querycount))
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each workload (15)")
    parser.add_argument("--only", help="workloads whose names hold this")
    parser.add_argument("--subjects", help="subjects to run, with ; between (all)")
    parser.add_argument("--no-postgresql", action="store_true", help="leave out the embedded server")
    parser.add_argument("--instructions", action="store_true", help="count instructions with valgrind, on SQLite")
    parser.add_argument("--json", help="write the figures to this file too")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(options.child[0], options.child[1], int(options.child[2]))
    wanted = options.subjects.split(";") if options.subjects else None
    rows: list[dict[str, Any]] = []
    missing: dict[str, str] = {}

    def told(row: dict[str, Any]) -> None:
        rows.append(row)
        print(f"\n{row['workload']}: a statement {row['baseline']:,.1f}", flush=True)
        for name, value in row["added"].items():
            low, high = row.get("quartiles", {}).get(name, (value, value))
            least = row.get("least", {}).get(name, value)
            print(f"  {name:42} {value:+12,.2f}   {low:+10,.2f} to {high:+10,.2f}   least {least:+10,.2f}", flush=True)
        for name, why in row["failed"].items():
            print(f"  {name:42} failed: {why}", flush=True)
        if options.json:
            figures = {
                "versions": versions(),
                "rounds": options.rounds,
                "load": os.getloadavg()[1],
                "missing": missing,
                "rows": rows,
            }
            with open(options.json, "w") as file:  # noqa: PTH123
                json.dump(figures, file, indent=1)

    if options.instructions:
        if shutil.which("valgrind") is None:
            sys.exit("--instructions needs valgrind: apt-get install valgrind")
        names = [name for name in SUBJECTS if name != "null" and (wanted is None or name in {"baseline", *wanted})]
        workloads = [w for w in ("SQLite, Core", "SQLite, lazy loads") if not options.only or options.only in w]
        instructions(workloads, names, told)
        return 0
    warnings.simplefilter("ignore")
    with contextlib.ExitStack() as stack:
        subjects, missing = available(wanted)
        for name, why in missing.items():
            print(f"{name}: {why}", file=sys.stderr)
        loop = asyncio.new_event_loop()
        stack.callback(loop.close)
        found = sqlite_workloads()
        if not options.no_postgresql:
            from sqlprobe.demo.server import serve

            found += postgresql_workloads(stack.enter_context(serve()).url_for, loop)
        gc.collect()
        gc.freeze()  # what was imported is nobody's garbage
        for workload in found:
            if not options.only or options.only in workload.name:
                told(measure(workload, subjects, options.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
