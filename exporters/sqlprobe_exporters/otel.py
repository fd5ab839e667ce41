"""
OpenTelemetry: `attach(engine, exporters=["otel"])` makes spans by the stable database conventions, events of findings,
and the metrics `db.client.*`.

A span is made when its statement has run, with the times that were measured, under the span that is current in the
caller's context: threads, tasks and greenlets keep theirs. Nothing is made where that span is not sampled. Equal
statements that follow one another, and the lazy loads of an N+1, are one span that says how many they were.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from bisect import bisect_left
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry._logs import SeverityNumber, get_logger
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation import _SPAN_KEY  # where `get_current_span()` looks

import sqlprobe
from sqlprobe_exporters.exemplars import BOUNDS_NS, Exemplars, exemplars_of
from sqlprobe_exporters.otel_direct import Direct, context_reader, direct_of, flags_of, is_valid, span_id_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry._logs import Logger, LoggerProvider
    from opentelemetry.context import Context
    from opentelemetry.trace import TracerProvider
    from sqlalchemy import URL

    from sqlprobe import Finding, Probe
    from sqlprobe.scopes import Scope, Window
    from sqlprobe.sites import Place
    from sqlprobe.stats import Tally
    from sqlprobe_exporters.otel_metrics import Pusher

SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
SYSTEMS: Final = {
    "postgresql": "postgresql",
    "sqlite": "sqlite",
    "mysql": "mysql",
    "mariadb": "mariadb",
    "mssql": "microsoft.sql_server",
    "oracle": "oracle.db",
    "cockroachdb": "cockroachdb",
    "redshift": "aws.redshift",
    "clickhouse": "clickhouse",
    "trino": "trino",
}
PORTS: Final = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433, "oracle": 1521}
COMPRESS_NS: Final = 50_000_000  # a longer call is worth a span of its own: Elastic's limit
MAX_PENDING: Final = 2_000  # parents with a span that is not out yet
MAX_RUNS: Final = 16  # of different relationships under one parent
MAX_STATEMENTS: Final = 20_000
MAX_SITES: Final = 50  # lines that one statement is run from
EVENT_SECONDS: Final = 60.0  # between two events of one finding
MAX_FINDINGS: Final = 2_000
_LAZY: Final = 1  # of a record's load: what kind of statement the ORM made
_SUPPRESS: Final = "suppress_instrumentation"
_SUPPRESS_TOO: Final[str] = getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", _SUPPRESS)
_OTHERS: Final = ("sqlalchemy", "asyncpg", "psycopg", "psycopg2", "sqlite3", "aiopg", "pymysql", "mysqlclient", "dbapi")

_SEVERITY: Final = {
    "info": SeverityNumber.INFO,
    "warning": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
}
_current_span: Final = trace.get_current_span
_current_context: Final = context_reader()
_now_ns: Final = time.time_ns
_NO_PARENT: Final = trace.INVALID_SPAN_CONTEXT


class Statement:
    """What every span of one statement on one engine has."""

    __slots__ = ("at", "attributes", "direct", "exemplars", "kind", "name", "templates")

    def __init__(self, tally: Tally, url: URL, exemplars: Exemplars, *, text: bool) -> None:
        self.at: dict[Place, dict[str, Any]] = {}
        self.direct: Direct | None = None  # which `templates` was made by: a span's fields, by line
        self.templates: dict[Place | None, dict[str, Any]] = {}
        shape = tally.shape
        self.exemplars = exemplars.place_of((tally.engine, shape.fingerprint))
        self.attributes = statement_attributes(url)
        if shape.summary:
            self.attributes["db.query.summary"] = shape.summary
        if text:
            self.attributes["db.query.text"] = shape.text
        self.attributes["sqlprobe.fingerprint"] = shape.fingerprint
        self.name = shape.summary or _target(self.attributes)
        in_memory = url.get_backend_name() == "sqlite" and (url.database or ":memory:") == ":memory:"
        self.kind = SpanKind.INTERNAL if in_memory else SpanKind.CLIENT

    def attributes_at(self, place: Place) -> dict[str, Any]:
        """Those of a call from that line; read, do not write."""
        known = self.at.get(place)
        if known is None:
            if len(self.at) >= MAX_SITES:
                self.at.clear()
            site = place.site()
            known = self.at[place] = {
                **self.attributes,
                "code.function.name": site.function,
                "code.file.path": site.file,
                "code.line.number": site.line,
            }
        return known

    def template_at(self, place: Place | None, direct: Direct) -> dict[str, Any]:
        """The fields of its spans, as the SDK keeps them: made once for all."""
        if self.direct is not direct or len(self.templates) > MAX_SITES:
            self.direct = direct
            self.templates = {}
        known = self.templates.get(place)
        if known is None:
            values = self.attributes if place is None else self.attributes_at(place)
            known = self.templates[place] = direct.template(self.name, self.kind, values)
        return known


class Run:
    """Calls of one statement that will be one span."""

    __slots__ = ("context", "count", "end_ns", "lazy", "place", "start_ns", "statement", "sum_ns")

    def __init__(self, statement: Statement, start_ns: int, end_ns: int, place: Place | None) -> None:
        self.statement = statement
        self.context = otel_context.get_current()
        self.start_ns = start_ns
        self.end_ns = end_ns
        self.sum_ns = end_ns - start_ns
        self.count = 1
        self.place = place
        self.lazy = False


class OpenTelemetry:
    """
    An exporter with options: `attach(engine, exporters=[OpenTelemetry(min_seconds=0.01)])`.

    Args:
        tracer_provider: whose spans; None is the global one, whenever that is set.
        logger_provider: whose events; None is the global one.
        spans: False makes none.
        root_spans: make spans of statements without a parent, too; the sampler decides about those.
        min_seconds: make spans of statements only that took as long, and of those that failed.
        compress: make one span of equal statements that follow one another, and of the lazy loads of an N+1.
        events: emit an event for each finding, once a minute at most for the same one.
        metrics: what exports `db.client.*`: a metric exporter such as OTLPMetricExporter(). None makes an OTLP one
            where OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_METRICS_ENDPOINT is set; False exports none.
        interval_seconds: between two exports of metrics.
        pools: watch connection pools and transactions.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        spans: bool = True,
        root_spans: bool = False,
        min_seconds: float = 0.0,
        compress: bool = True,
        events: bool = True,
        metrics: Any = None,
        interval_seconds: float = 60.0,
        pools: bool = True,
    ) -> None:
        for name, value in (("min_seconds", min_seconds), ("interval_seconds", interval_seconds)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ValueError(f"OpenTelemetry({name}={value!r}): a number of seconds from 0 on is needed")
        self._options = {
            "tracer_provider": tracer_provider,
            "logger_provider": logger_provider,
            "spans": spans,
            "root_spans": root_spans,
            "min_ns": round(min_seconds * 1e9),
            "compress": compress,
            "events": events,
        }
        self._metrics = metrics
        self._interval = interval_seconds
        self._pools = pools

    def __call__(self, probe: Probe) -> Watcher | Silent:
        """Start for *probe*: what `attach()` does."""
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return Silent()
        if self._pools:
            probe.watch_pools()
        started = (Started if self._options["spans"] else Watcher)(probe, **self._options)
        started.look_for_others()
        started.unfollow = probe.follow(started)
        if self._metrics is not False:
            from sqlprobe_exporters import otel_metrics

            started.pusher = otel_metrics.start(probe, self._metrics, self._interval)
        return started


class DoubleInstrumentation(Exception):  # noqa: N818 - what there is, for faults to name
    """Another instrumentation makes spans of the same statements."""


class Silent:
    """The exporter where OTEL_SDK_DISABLED is set."""

    def stop(self) -> None:
        """Nothing runs."""


class Watcher:
    """A running exporter without spans: events of findings, facts on the request's span, metrics."""

    def __init__(self, probe: Probe, **options: Any) -> None:
        self._probe = weakref.proxy(probe)
        self._tracer_provider: TracerProvider | None = options["tracer_provider"]
        self._logger_provider: LoggerProvider | None = options["logger_provider"]
        self._root_spans: bool = options["root_spans"]
        self._min_ns: int = options["min_ns"]
        self._compress: bool = options["compress"]
        self._events: bool = options["events"]
        self._text = probe.settings.redact != "text"
        self._exemplars: Exemplars = exemplars_of(probe)
        self._told: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()
        self._logger: Logger | None = None
        self.unfollow: Any = None
        self.pusher: Pusher | None = None
        self._others: set[str] = set()

    def look_for_others(self) -> None:
        """Tell once of each other instrumentation that makes spans of the same statements."""
        for name in _instrumented():
            if name not in self._others:
                self._others.add(name)
                self._probe.fault(
                    f"otel: opentelemetry-instrumentation-{name} is active too, so statements have two spans",
                    DoubleInstrumentation(),
                )

    def forget(self) -> None:
        """After a fork: what is pending is the parent's."""
        self._lock = threading.Lock()
        self._told = OrderedDict()
        if self.pusher is not None:
            self.pusher.forget()

    def stop(self) -> None:
        if self.unfollow is not None:
            self.unfollow()
        if self.pusher is not None:
            self.pusher.stop()

    # --- as scopes end ---------------------------------------------------------------------------------------------

    def judged(self, scope: Scope, window: Window, findings: list[Finding]) -> None:  # noqa: ARG002 - as every follower
        span = _current_span()
        if span.is_recording():
            span.set_attribute("sqlprobe.queries", window.calls)
            span.set_attribute("sqlprobe.db_time", window.ns / 1e9)
            if any(finding.rule == "n-plus-one" for finding in findings):
                span.set_attribute("sqlprobe.n_plus_one", True)  # noqa: FBT003 - the attribute's value
        self.found(findings)

    def found(self, findings: list[Finding]) -> None:
        if not self._events or _suppressed(otel_context.get_current()):
            return
        for finding in findings:
            if self._is_due(finding.key):
                self._emit(finding)

    def _is_due(self, key: str) -> bool:
        now = time.monotonic()
        with self._lock:
            last = self._told.get(key)
            if last is not None and now - last < EVENT_SECONDS:
                return False
            self._told[key] = now
            self._told.move_to_end(key)
            if len(self._told) > MAX_FINDINGS:
                self._told.popitem(last=False)
            return True

    def _emit(self, finding: Finding) -> None:
        if self._logger is None:
            self._logger = get_logger(
                "sqlprobe", sqlprobe.__version__, logger_provider=self._logger_provider, schema_url=SCHEMA
            )
        name = f"sqlprobe.{finding.rule.replace('-', '_')}"
        severity = _SEVERITY[finding.severity]
        enabled = getattr(self._logger, "enabled", None)
        if enabled is not None and not enabled(severity_number=severity, event_name=name):
            return
        self._logger.emit(
            timestamp=time.time_ns(),
            severity_number=severity,
            event_name=name,
            attributes=finding_attributes(finding),
            context=otel_context.get_current(),
        )


class Started(Watcher):
    """A running exporter with spans."""

    def __init__(self, probe: Probe, **options: Any) -> None:
        super().__init__(probe, **options)
        self._tracer: Tracer | None = None
        self._statements: dict[Tally, Statement | None] = {}
        self._pending: OrderedDict[int, dict[Any, Run]] = OrderedDict()  # by the parent's span id
        self._listener: _Listener | None = None
        self._direct: Direct | None = None
        self._refused: Any = None  # the processors with which there is no short way

    def forget(self) -> None:
        super().forget()
        self._pending = OrderedDict()
        self._statements = {}

    def stop(self) -> None:
        super().stop()
        for parent in list(self._pending):
            self.flush(parent)
        if self._listener is not None:
            self._listener.owner = None

    def judged(self, scope: Scope, window: Window, findings: list[Finding]) -> None:
        if self._pending:
            self.flush(_current_span().get_span_context().span_id)
        super().judged(scope, window, findings)

    # --- in the application's thread, right after a statement ------------------------------------------------------

    def wants(self) -> bool:
        span = _current_context().get(_SPAN_KEY)
        if span is None:
            return self._root_spans
        context = span.get_span_context()
        return flags_of(context) & 1 != 0 or (self._root_spans and not is_valid(context))

    def take(self, record: tuple[Any, ...], scope: Scope | None) -> None:  # noqa: ARG002 - as every recorder's
        tally, _, elapsed, _, load, place, extra, _, _ = record
        try:
            statement = self._statements[tally]
        except KeyError:
            statement = self._learn(tally)
        context = _current_context()
        if statement is None or context.get(_SUPPRESS) or context.get(_SUPPRESS_TOO):
            return
        end_ns = _now_ns()
        span = context.get(_SPAN_KEY)
        parent = _NO_PARENT if span is None else span.get_span_context()
        if extra is None and elapsed >= self._min_ns:
            if self._compress and elapsed <= COMPRESS_NS and is_valid(parent) and self._listens():
                statement.exemplars[bisect_left(BOUNDS_NS, elapsed)] = (parent, elapsed, end_ns)
                self._collect(statement, span_id_of(parent), end_ns - elapsed, end_ns, place, load)
                return
            direct = self._direct
            if direct is not None and not self._pending and is_valid(parent) and direct.serves():
                template = statement.template_at(place, direct)
                told = direct.emit(template, parent, end_ns - elapsed, end_ns)
                statement.exemplars[bisect_left(BOUNDS_NS, elapsed)] = (told, elapsed, end_ns)
                return
        self._take_other(statement, parent, record, end_ns)

    def _take_other(self, statement: Statement, parent: SpanContext, record: tuple[Any, ...], end_ns: int) -> None:
        _, _, elapsed, _, load, place, extra, _, _ = record
        if extra is not None and extra.error is not None:
            pass
        elif elapsed < self._min_ns:
            statement.exemplars[bisect_left(BOUNDS_NS, elapsed)] = (parent, elapsed, end_ns)
            return
        elif (
            self._compress
            and elapsed <= COMPRESS_NS
            and is_valid(parent)
            and (extra is None or not (extra.many or extra.more))
            and self._listens()
        ):
            statement.exemplars[bisect_left(BOUNDS_NS, elapsed)] = (parent, elapsed, end_ns)
            self._collect(statement, span_id_of(parent), end_ns - elapsed, end_ns, place, load)
            return
        if span_id_of(parent) in self._pending:
            self._flush_plain(span_id_of(parent))
        told = self._emit_span(statement, None, end_ns - elapsed, end_ns, place, extra)
        if flags_of(told) & 1:
            statement.exemplars[bisect_left(BOUNDS_NS, elapsed)] = (told, elapsed, end_ns)

    def _collect(
        self,
        statement: Statement,
        parent_id: int,
        start_ns: int,
        end_ns: int,
        place: Place | None,
        load: tuple[Any, ...] | None,
    ) -> None:
        lazy = load is not None and load[0] == _LAZY and load[3] is not None
        # An N+1 of two relationships has their loads in turn: each has a span of its own.
        key = (statement, load[3]) if lazy and load is not None else None
        out: list[Run] = []
        with self._lock:
            runs = self._pending.get(parent_id)
            if runs is None:
                runs = self._pending[parent_id] = {}
                if len(self._pending) > MAX_PENDING:
                    out.extend(self._pending.popitem(last=False)[1].values())
            if lazy and None in runs:
                out.append(runs.pop(None))  # it does not follow itself
            run = runs.get(key)
            if run is not None and run.statement is statement:
                run.count += 1
                run.sum_ns += end_ns - start_ns
                run.end_ns = end_ns
            else:
                if run is not None:
                    out.append(run)
                run = runs[key] = Run(statement, start_ns, end_ns, place)
                run.lazy = lazy
                if len(runs) > MAX_RUNS:
                    out.append(runs.pop(next(iter(runs))))
        for each in out:
            self._emit_run(each)

    def flush(self, parent_id: int) -> None:
        """Let go of what is pending below a span: it ends."""
        with self._lock:
            runs = self._pending.pop(parent_id, None)
        for run in (runs or {}).values():
            self._emit_run(run)

    def _flush_plain(self, parent_id: int) -> None:
        with self._lock:
            run = self._pending.get(parent_id, {}).pop(None, None)
        if run is not None:
            self._emit_run(run)

    def _emit_run(self, run: Run) -> None:
        more: dict[str, Any] = {}
        if run.count > 1:
            more["sqlprobe.compressed.count"] = run.count
            more["sqlprobe.compressed.sum"] = run.sum_ns / 1e9
            if run.lazy and run.count >= self._probe.settings.n_plus_one_threshold:
                more["sqlprobe.n_plus_one"] = True
        self._emit_span(run.statement, run.context, run.start_ns, run.end_ns, run.place, None, more)

    def _emit_span(
        self,
        statement: Statement,
        context: Context | None,
        start_ns: int,
        end_ns: int,
        place: Place | None,
        extra: Any,
        more: Mapping[str, Any] | None = None,
    ) -> SpanContext:
        if extra is None and not more:
            direct = self._direct_way()
            parent = _current_span(context).get_span_context()
            if direct is not None and parent.is_valid:
                return direct.emit(statement.template_at(place, direct), parent, start_ns, end_ns)
        tracer = self._tracer
        if tracer is None:
            tracer = self._tracer = trace.get_tracer(
                "sqlprobe", sqlprobe.__version__, tracer_provider=self._tracer_provider, schema_url=SCHEMA
            )
        name = statement.name
        attributes = statement.attributes if place is None else statement.attributes_at(place)
        if extra is not None and extra.many:
            name = f"BATCH {name}"
            attributes = {**attributes, "db.query.summary": name, "db.operation.batch.size": extra.sets}
        if more:
            attributes = {**attributes, **more}
        span = tracer.start_span(
            name,
            context=context,
            kind=statement.kind,
            attributes=attributes,
            start_time=start_ns,
            record_exception=False,
            set_status_on_exception=False,
        )
        if extra is not None and extra.error is not None:
            error_type, state, told = _error(extra.error)
            span.set_attribute("error.type", error_type)
            if state:
                span.set_attribute("db.response.status_code", state)
            span.set_status(Status(StatusCode.ERROR, told))
        span.end(end_ns)
        return span.get_span_context()

    def _direct_way(self) -> Direct | None:
        direct = self._direct
        if direct is not None and direct.serves():
            return direct
        tracer = self._tracer
        processors = getattr(getattr(tracer, "span_processor", None), "_span_processors", None)
        if tracer is None or processors is self._refused:
            return None
        self._direct = direct_of(tracer, _Listener)
        if self._direct is None:
            self._refused = processors
        return self._direct

    def _learn(self, tally: Tally) -> Statement | None:
        self.look_for_others()  # they may have come after us
        url = self._probe.url_of(tally)
        if len(self._statements) >= MAX_STATEMENTS:
            self._statements.clear()
        statement = None if url is None else Statement(tally, url, self._exemplars, text=self._text)
        self._statements[tally] = statement
        return statement

    def _listens(self) -> bool:
        """Whether the end of a parent reaches us: without it what is pending could stay so."""
        if self._listener is None:
            provider = self._tracer_provider or trace.get_tracer_provider()
            add = getattr(provider, "add_span_processor", None)
            if add is None:
                return False
            self._listener = _Listener(self)
            add(self._listener)
        return True


class _Listener:
    """A span processor that only looks at which spans end. One cannot be removed: it outlives what made it."""

    def __init__(self, owner: Started) -> None:
        self.owner: Started | None = owner

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Nothing to do."""

    def _on_ending(self, span: Any) -> None:
        """Nothing to do yet."""

    def on_end(self, span: Any) -> None:
        owner = self.owner
        if owner is not None and owner._pending:  # noqa: SLF001 - of this module
            owner.flush(span.context.span_id)

    def shutdown(self) -> None:
        owner = self.owner
        if owner is not None:
            for parent in list(owner._pending):  # noqa: SLF001 - of this module
                owner.flush(parent)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - the processor's signature
        self.shutdown()
        return True


def statement_attributes(url: URL) -> dict[str, Any]:
    """What spans and metrics say of an engine, by the database conventions."""
    backend = url.get_backend_name()
    attributes: dict[str, Any] = {"db.system.name": SYSTEMS.get(backend, "other_sql")}
    query = {name: value if isinstance(value, str) else value[0] for name, value in url.query.items()}
    database = url.database or query.get("database") or ""
    parts = [database, _schema(query.get("options", ""))] if backend == "postgresql" else [database]
    namespace = "|".join(part for part in parts if part)
    if namespace:
        attributes["db.namespace"] = namespace
    host = url.host or query.get("host", "")
    port = url.port or (int(query["port"]) if query.get("port", "").isdecimal() else None)
    if host.startswith("/"):
        attributes["server.address"] = f"{host.rstrip('/')}/.s.PGSQL.{port or PORTS['postgresql']}"
    elif host:
        attributes["server.address"] = host
        if port and port != PORTS.get(backend):
            attributes["server.port"] = port
    return attributes


def finding_attributes(finding: Finding) -> dict[str, Any]:
    """A finding as an event's attributes; one that is empty is left out."""
    attributes: dict[str, Any] = {
        "sqlprobe.rule": finding.rule,
        "sqlprobe.finding.key": finding.key,
        "sqlprobe.title": finding.title,
        "sqlprobe.advice": finding.advice,
        "sqlprobe.label": finding.label,
        "sqlprobe.scope": finding.scope,
        "sqlprobe.count": finding.count,
        "sqlprobe.seconds": finding.seconds,
        "sqlprobe.fingerprint": finding.fingerprint,
        "sqlprobe.fix": finding.fixes[0].code if finding.fixes else "",
    }
    if finding.site is not None:
        attributes["code.function.name"] = finding.site.function
        attributes["code.file.path"] = finding.site.file
        attributes["code.line.number"] = finding.site.line
    if finding.origin is not None:
        attributes["sqlprobe.origin"] = str(finding.origin)
    return {name: value for name, value in attributes.items() if value != ""}


def _target(attributes: Mapping[str, Any]) -> str:
    """A span's name without a summary: where the statement went."""
    port = f":{attributes['server.port']}" if "server.port" in attributes else ""
    address = f"{attributes['server.address']}{port}" if "server.address" in attributes else ""
    return str(attributes.get("db.namespace") or address or attributes["db.system.name"])


def _schema(options: str) -> str:
    """The first schema of the search path that a PostgreSQL connection is made with."""
    _, found, rest = options.replace("-c ", "-c").partition("-csearch_path=")
    return rest.split(" ")[0].split(",")[0].strip('"') if found else ""


def _error(name: str) -> tuple[str, str, str]:
    """
    `error.type`, the SQLSTATE or "", and a status's description of the error that is being handled.

    Never its text: drivers put rows into it.
    """
    error = sys.exception()
    # SQLAlchemy's adapters of async drivers raise classes of their own, from the driver's.
    while error is not None and type(error).__module__.startswith("sqlalchemy.") and error.__cause__ is not None:
        error = error.__cause__
    kind = name
    if error is not None:
        module = type(error).__module__
        kind = type(error).__qualname__ if module == "builtins" else f"{module}.{type(error).__qualname__}"
    if len(name) == 5 and name.isalnum() and (name[0].isdigit() or name.isupper()):  # noqa: PLR2004 - a SQLSTATE
        return name, name, f"{kind} {name}"
    return kind, "", kind


def _suppressed(context: Context) -> bool:
    return bool(context.get(_SUPPRESS) or context.get(_SUPPRESS_TOO))


def _instrumented() -> list[str]:
    """Other instrumentations that are active here and make spans of the same statements."""
    found = []
    for name in _OTHERS:
        module = sys.modules.get(f"opentelemetry.instrumentation.{name}")
        for kind in vars(module).values() if module is not None else ():
            instance = getattr(kind, "_instance", None)
            if getattr(instance, "is_instrumented_by_opentelemetry", False):
                found.append(name)
                break
    return found


start: Final = OpenTelemetry()  # the entry point's

__all__ = ["OpenTelemetry", "finding_attributes", "start", "statement_attributes"]
