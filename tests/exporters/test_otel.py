"""Spans against the database conventions, attribute by attribute; events, facts on the request's span, metrics."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import subprocess
import sys
import threading
import time

import pytest
import sqlalchemy as sa
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column, relationship

import sqlprobe
from sqlprobe_exporters import otel, otel_direct
from sqlprobe_exporters.exemplars import exemplars_of
from sqlprobe_exporters.otel import OpenTelemetry, statement_attributes


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customer"
    id = mapped_column(sa.Integer, primary_key=True)
    name = mapped_column(sa.String, unique=True)
    orders = relationship("Order")
    visits = relationship("Visit")


class Order(Base):
    __tablename__ = "purchase"
    id = mapped_column(sa.Integer, primary_key=True)
    customer_id = mapped_column(sa.ForeignKey("customer.id"))


class Visit(Base):
    __tablename__ = "visit"
    id = mapped_column(sa.Integer, primary_key=True)
    customer_id = mapped_column(sa.ForeignKey("customer.id"))


class Telemetry:
    """An SDK that keeps everything, and a request to make spans under."""

    def __init__(self, sampler=None):
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler) if sampler else TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.logs = InMemoryLogRecordExporter()
        self.logger_provider = LoggerProvider()
        self.logger_provider.add_log_record_processor(SimpleLogRecordProcessor(self.logs))
        self.tracer = self.provider.get_tracer("application")

    def exporter_with(self, **options):
        options = {"metrics": False, **options}
        return OpenTelemetry(tracer_provider=self.provider, logger_provider=self.logger_provider, **options)

    def request(self, name="request"):
        return self.tracer.start_as_current_span(name)

    @property
    def spans(self):
        """Those of statements, in the order in which they ended."""
        return [span for span in self.exporter.get_finished_spans() if span.instrumentation_scope.name == "sqlprobe"]

    @property
    def events(self):
        return [each.log_record for each in self.logs.get_finished_logs()]


@pytest.fixture
def telemetry():
    return Telemetry()


@pytest.fixture
def attach(telemetry, monkeypatch):
    monkeypatch.setattr(otel, "COMPRESS_NS", 10**12)  # a busy machine takes longer for a call than what makes it slow
    probes = []

    def attach(engine, **options):
        settings = options.pop("settings", None)
        using = options.pop("telemetry", telemetry)
        probe = sqlprobe.attach(engine, settings=settings, exporters=[using.exporter_with(**options)])
        probes.append(probe)
        return probe

    yield attach
    for probe in probes:
        probe.detach()


@pytest.fixture
def shop(make_engine, sqlite_url):
    engine = make_engine(sqlite_url())
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Customer(name=f"customer {n}", orders=[Order()], visits=[Visit()]) for n in range(5)])
        session.commit()
    return engine


def one(engine, text="SELECT name FROM customer WHERE id = :id", **parameters):
    with engine.connect() as connection:
        return connection.execute(sa.text(text), parameters or {"id": 1}).all()


def test_span_follows_the_conventions(shop, telemetry, attach):
    probe = attach(shop)
    before = time.time_ns()
    with telemetry.request() as parent:
        one(shop)
    after = time.time_ns()
    (span,) = telemetry.spans
    line = span.attributes["code.line.number"]
    (statement,) = probe.report().statements

    assert "SELECT customer" == span.name
    assert SpanKind.CLIENT == span.kind
    assert {
        "db.system.name": "sqlite",
        "db.namespace": shop.url.database,
        "db.query.summary": "SELECT customer",
        "db.query.text": "SELECT name FROM customer WHERE id = ?",
        "sqlprobe.fingerprint": statement.fingerprint,
        "code.function.name": "one",
        "code.file.path": "tests/exporters/test_otel.py",
        "code.line.number": line,
    } == dict(span.attributes)
    assert StatusCode.UNSET == span.status.status_code
    assert (parent.context.trace_id, parent.context.span_id) == (span.context.trace_id, span.parent.span_id)
    assert before <= span.start_time < span.end_time <= after
    assert statement.seconds == pytest.approx((span.end_time - span.start_time) / 1e9, abs=1e-6)
    assert ("sqlprobe", sqlprobe.__version__, "https://opentelemetry.io/schemas/1.44.0") == (
        span.instrumentation_scope.name,
        span.instrumentation_scope.version,
        span.instrumentation_scope.schema_url,
    )
    assert [] == list(span.events)


class Seeing(Sampler):
    """Samples everything, and remembers what it was shown."""

    def __init__(self):
        self.shown = []

    def should_sample(self, parent_context, trace_id, name, kind=None, attributes=None, links=None, trace_state=None):
        self.shown.append((name, dict(attributes or {})))
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes)

    def get_description(self):
        return "seeing"


def test_samplers_see_what_they_need(shop, attach):
    sampler = Seeing()
    telemetry = Telemetry(sampler)
    attach(shop, telemetry=telemetry)
    with telemetry.request():
        one(shop)
    name, attributes = sampler.shown[1]

    assert "SELECT customer" == name
    assert {"db.system.name", "db.namespace", "db.query.text", "db.query.summary"} <= attributes.keys()


def test_nothing_is_made_where_the_parent_is_not_sampled(shop, attach):
    telemetry = Telemetry(ParentBased(ALWAYS_OFF))
    attach(shop, telemetry=telemetry, root_spans=True)
    with telemetry.request():
        one(shop)

    assert [] == telemetry.spans


def test_nothing_is_made_without_a_parent_unless_asked_for(shop, telemetry, attach):
    probe = attach(shop)
    one(shop)
    probe.detach()

    assert [] == telemetry.spans

    attach(shop, root_spans=True)
    one(shop)

    assert [None] == [span.parent for span in telemetry.spans]


def test_suppressed_statements_make_no_span(shop, telemetry, attach):
    attach(shop)
    token = otel_context.attach(otel_context.set_value("suppress_instrumentation", True))
    try:
        with telemetry.request():
            one(shop)
    finally:
        otel_context.detach(token)

    assert [] == telemetry.spans


@pytest.mark.parametrize("current", [otel_context.get_current, otel_direct.context_reader()])
def test_the_context_is_the_callers_however_it_is_read(current):
    token = otel_context.attach(otel_context.set_value("key", "value"))
    try:
        assert otel_context.get_current() is current()
    finally:
        otel_context.detach(token)


def test_other_engines_make_no_span(shop, make_engine, telemetry, attach):
    attach(shop)
    with telemetry.request(), make_engine().connect() as connection:
        connection.execute(sa.text("SELECT 1"))

    assert [] == telemetry.spans


def test_a_paused_probe_makes_no_span(shop, telemetry, attach):
    probe = attach(shop)
    with telemetry.request():
        one(shop)
        probe.pause()
        one(shop)

    assert 1 == len(telemetry.spans)


def test_batches_say_their_size(shop, telemetry, attach):
    attach(shop)
    with telemetry.request(), shop.begin() as connection:
        connection.execute(sa.text("INSERT INTO customer (name) VALUES (:name)"), [{"name": "a"}, {"name": "b"}])
        connection.execute(sa.text("INSERT INTO customer (name) VALUES (:name)"), [{"name": "c"}])
        connection.execute(sa.insert(Customer).returning(Customer.id), [{"name": "d"}, {"name": "e"}]).all()

    assert [
        ("BATCH INSERT customer", 2),
        ("INSERT customer", None),
        ("INSERT customer", None),
    ] == [
        (span.attributes["db.query.summary"], span.attributes.get("db.operation.batch.size"))
        for span in telemetry.spans
    ]
    assert "BATCH INSERT customer" == telemetry.spans[0].name


CANARY = "canary-4711"


def fail(connection, driver):
    """A unique violation, and input that is invalid: their texts have the values in them."""
    statements = [sa.text("INSERT INTO customer (name) VALUES (:value)")] * 2
    if "sqlite" not in driver:
        statements.append(sa.text("SELECT CAST(CAST(:value AS text) AS integer)"))
    for number, statement in enumerate(statements):
        if number == 0:
            connection.execute(statement, {"value": CANARY})
            continue
        with pytest.raises(sa.exc.DBAPIError, match=CANARY), connection.begin_nested():
            connection.execute(statement, {"value": CANARY})


@pytest.mark.parametrize(
    "driver", ["pysqlite", "aiosqlite", "psycopg", "psycopg async", "psycopg2", "pg8000", "asyncpg"]
)
def test_errors_are_told_without_a_row(driver, request, telemetry, attach, run_async):
    name, _, is_async = driver.partition(" ")
    url = request.getfixturevalue("sqlite_url" if "sqlite" in driver else "postgresql_url")(name)

    async def in_async(engine):
        attach(engine)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            with telemetry.request():
                await connection.run_sync(fail, driver)

    if is_async or driver in {"aiosqlite", "asyncpg"}:
        run_async(in_async, url)
    else:
        engine = request.getfixturevalue("make_engine")(url)
        attach(engine)
        with engine.begin() as connection:
            Base.metadata.create_all(connection)
            with telemetry.request():
                fail(connection, driver)

    failed = [span for span in telemetry.spans if span.status.status_code is StatusCode.ERROR]
    told = [
        (
            span.attributes["error.type"],
            span.attributes.get("db.response.status_code"),
            span.status.description,
        )
        for span in failed
    ]
    expected = {
        "pysqlite": [("sqlite3.IntegrityError", None, "sqlite3.IntegrityError")],
        "psycopg": [
            ("23505", "23505", "psycopg.errors.UniqueViolation 23505"),
            ("22P02", "22P02", "psycopg.errors.InvalidTextRepresentation 22P02"),
        ],
        "psycopg2": [
            ("23505", "23505", "psycopg2.errors.UniqueViolation 23505"),
            ("22P02", "22P02", "psycopg2.errors.InvalidTextRepresentation 22P02"),
        ],
        "pg8000": [
            ("23505", "23505", "pg8000.dbapi.IntegrityError 23505"),
            ("22P02", "22P02", "pg8000.dbapi.ProgrammingError 22P02"),
        ],
        "asyncpg": [
            ("23505", "23505", "asyncpg.exceptions.UniqueViolationError 23505"),
            ("22P02", "22P02", "asyncpg.exceptions.InvalidTextRepresentationError 22P02"),
        ],
    }
    expected["aiosqlite"] = expected["pysqlite"]
    assert expected[name] == told
    everything = "".join(span.to_json() for span in telemetry.exporter.get_finished_spans())
    assert CANARY not in everything


def test_postgresql_is_named_by_the_conventions(telemetry, attach, make_engine, postgresql_url):
    url = postgresql_url("psycopg").update_query_dict({"options": "-csearch_path=shop,public"})
    engine = make_engine(url)
    attach(engine)
    with telemetry.request():
        one(engine, "SELECT 1", id=1)
    (span,) = telemetry.spans

    assert "postgresql" == span.attributes["db.system.name"]
    assert f"{url.database}|shop" == span.attributes["db.namespace"]
    assert span.attributes["server.address"]
    assert not {url.username, url.password} & {str(value) for value in span.attributes.values()} - {"postgres"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql+psycopg://me:secret@db/shop", {"db.system.name": "postgresql", "db.namespace": "shop", "server.address": "db"}),
        ("postgresql+asyncpg://db:5433/shop", {"db.system.name": "postgresql", "db.namespace": "shop", "server.address": "db", "server.port": 5433}),
        ("postgresql+psycopg://db:5432/shop", {"db.system.name": "postgresql", "db.namespace": "shop", "server.address": "db"}),
        ("postgresql+psycopg:///shop?host=/run/pg&port=5433", {"db.system.name": "postgresql", "db.namespace": "shop", "server.address": "/run/pg/.s.PGSQL.5433"}),
        ("postgresql+psycopg://db/shop?options=-c%20search_path%3Da,b", {"db.system.name": "postgresql", "db.namespace": "shop|a", "server.address": "db"}),
        ("postgresql+psycopg://db/?options=-csearch_path%3Da%20-cx%3Dy", {"db.system.name": "postgresql", "db.namespace": "a", "server.address": "db"}),
        ("sqlite://", {"db.system.name": "sqlite"}),
        ("mysql+pymysql://db/shop", {"db.system.name": "mysql", "db.namespace": "shop", "server.address": "db"}),
        ("mssql+pyodbc://db:1434/shop", {"db.system.name": "microsoft.sql_server", "db.namespace": "shop", "server.address": "db", "server.port": 1434}),
        ("firebird://db/shop", {"db.system.name": "other_sql", "db.namespace": "shop", "server.address": "db"}),
    ],
)  # fmt: skip
def test_engines_are_named_by_their_url(url, expected):
    assert expected == statement_attributes(sa.make_url(url))


def test_an_n_plus_one_is_one_span(shop, telemetry, attach):
    attach(shop)
    with telemetry.request("GET /customers"), sqlprobe.scope("GET /customers"), Session(shop) as session:
        for customer in session.scalars(sa.select(Customer)):
            customer.orders  # noqa: B018 - the lazy load
            customer.visits  # noqa: B018 - and another, in turn
    spans = {span.name: span for span in telemetry.spans}
    request = telemetry.exporter.get_finished_spans()[-1]

    assert {"SELECT customer", "SELECT purchase", "SELECT visit"} == spans.keys()
    for name in ("SELECT purchase", "SELECT visit"):
        told = spans[name].attributes
        assert (5, True) == (told["sqlprobe.compressed.count"], told["sqlprobe.n_plus_one"])
        assert 0 < told["sqlprobe.compressed.sum"] <= (spans[name].end_time - spans[name].start_time) / 1e9
    assert "sqlprobe.compressed.count" not in spans["SELECT customer"].attributes
    assert (11, True) == (request.attributes["sqlprobe.queries"], request.attributes["sqlprobe.n_plus_one"])
    assert 0 < request.attributes["sqlprobe.db_time"]


def test_equal_statements_in_a_row_are_one_span_and_others_are_not(shop, telemetry, attach):
    attach(shop)
    with telemetry.request():
        for _ in range(3):
            one(shop)
        one(shop, "SELECT count(*) FROM customer", id=1)
        one(shop)

    assert [("SELECT customer", 3), ("SELECT customer", None), ("SELECT customer", None)] == [
        (span.name, span.attributes.get("sqlprobe.compressed.count")) for span in telemetry.spans
    ]
    assert all("sqlprobe.n_plus_one" not in span.attributes for span in telemetry.spans)


def test_uncompressed_where_asked_for(shop, telemetry, attach):
    attach(shop, compress=False)
    with telemetry.request():
        for _ in range(3):
            one(shop)

    assert 3 == len(telemetry.spans)


def test_a_slow_call_has_a_span_of_its_own(shop, telemetry, attach, monkeypatch):
    attach(shop)
    with telemetry.request():
        one(shop)
        monkeypatch.setattr(otel, "COMPRESS_NS", 0)
        one(shop)
        monkeypatch.setattr(otel, "COMPRESS_NS", 10**12)
        one(shop)

    assert [None, None, None] == [span.attributes.get("sqlprobe.compressed.count") for span in telemetry.spans]
    assert sorted(span.start_time for span in telemetry.spans) == [span.start_time for span in telemetry.spans]


def test_an_error_is_no_part_of_a_run(shop, telemetry, attach):
    attach(shop)
    with telemetry.request():
        one(shop)
        one(shop)
        with pytest.raises(sa.exc.OperationalError):
            one(shop, "SELECT * FROM nowhere", id=1)
        one(shop)

    assert [(StatusCode.UNSET, 2), (StatusCode.ERROR, None), (StatusCode.UNSET, None)] == [
        (span.status.status_code, span.attributes.get("sqlprobe.compressed.count")) for span in telemetry.spans
    ]


def test_short_statements_are_left_out_and_errors_are_not(shop, telemetry, attach):
    probe = attach(shop, min_seconds=60)
    with telemetry.request() as parent:
        one(shop)
        with pytest.raises(sa.exc.OperationalError):
            one(shop, "SELECT * FROM nowhere", id=1)
    (statement,) = (each for each in probe.report().statements if not each.errors)
    exemplars = exemplars_of(probe).of(statement.engine, statement.fingerprint)

    assert [StatusCode.ERROR] == [span.status.status_code for span in telemetry.spans]
    assert [f"{parent.context.trace_id:032x}"] == [each.trace_id for each in exemplars.values()]


def test_threads_have_the_parents_of_their_contexts(shop, telemetry, attach):
    attach(shop)

    def work():
        for _ in range(3):
            with telemetry.request() as span, sqlprobe.scope("work"):
                parents.append(span.context.span_id)
                one(shop)

    parents = []
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(parents) == sorted(span.parent.span_id for span in telemetry.spans)


@pytest.mark.parametrize("driver", ["aiosqlite", pytest.param("asyncpg", marks=pytest.mark.versions)])
def test_tasks_have_the_parents_of_their_contexts(driver, request, telemetry, attach, run_async):
    url = request.getfixturevalue("sqlite_url" if driver == "aiosqlite" else "postgresql_url")(driver)

    async def main(engine):
        attach(engine, compress=False)
        parents = []

        async def work():
            with telemetry.request() as span:
                async with engine.connect() as connection:
                    for _ in range(3):
                        parents.append(span.context)
                        await connection.execute(sa.text("SELECT 1"))

        await asyncio.gather(*(work() for _ in range(5)))
        return parents

    parents = run_async(main, url)
    requests = {
        span.context.span_id: span for span in telemetry.exporter.get_finished_spans() if span.name == "request"
    }

    assert sorted(context.span_id for context in parents) == sorted(span.parent.span_id for span in telemetry.spans)
    for span in telemetry.spans:
        around = requests[span.parent.span_id]
        assert around.start_time <= span.start_time <= span.end_time <= around.end_time


def test_an_async_n_plus_one_is_one_span(sqlite_url, telemetry, attach, run_async):
    async def main(engine):
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            session.add_all([Customer(orders=[Order()]) for _ in range(4)])
            await session.commit()
        attach(engine)
        with telemetry.request():
            async with AsyncSession(engine) as session:
                await session.run_sync(
                    lambda inner: [customer.orders for customer in inner.scalars(sa.select(Customer))]
                )

    run_async(main, sqlite_url("aiosqlite"))

    assert [("SELECT customer", None), ("SELECT purchase", 4)] == sorted(
        (span.name, span.attributes.get("sqlprobe.compressed.count")) for span in telemetry.spans
    )


def test_findings_are_events_that_survive_sampling(shop, attach):
    telemetry = Telemetry(ParentBased(ALWAYS_OFF))
    attach(shop, telemetry=telemetry)
    with telemetry.request() as parent:
        for _ in range(2):
            with sqlprobe.scope("GET /customers"), Session(shop) as session:
                for customer in session.scalars(sa.select(Customer)):
                    customer.orders  # noqa: B018 - the lazy load
    (event,) = telemetry.events

    assert "sqlprobe.n_plus_one" == event.event_name
    assert parent.get_span_context().trace_id == event.trace_id
    assert event.body is None
    assert {
        "sqlprobe.rule": "n-plus-one",
        "sqlprobe.label": "Customer.orders",
        "sqlprobe.scope": "GET /customers",
        "sqlprobe.fix": "select(Customer).options(selectinload(Customer.orders))",
    }.items() <= event.attributes.items()
    assert "tests/exporters/test_otel.py" == event.attributes["code.file.path"]


def test_a_slow_statement_outside_any_scope_is_an_event(shop, telemetry, attach):
    attach(shop, settings=sqlprobe.Settings(slow_seconds=1e-9))
    one(shop)

    assert ["sqlprobe.slow_statement"] == [event.event_name for event in telemetry.events]


def test_without_text_where_settings_say_so(shop, telemetry, attach):
    attach(shop, settings=sqlprobe.Settings(redact="text"))
    with telemetry.request():
        one(shop)

    assert "db.query.text" not in telemetry.spans[0].attributes


def test_spans_can_be_off(shop, telemetry, attach):
    attach(shop, spans=False, settings=sqlprobe.Settings(slow_seconds=1e-9))
    with telemetry.request():
        one(shop)

    assert ([], 1) == (telemetry.spans, len(telemetry.events))


class Exporter:
    """A metric exporter that keeps what it gets."""

    def __init__(self, result=MetricExportResult.SUCCESS):
        self.result = result
        self.got = []

    def export(self, data, timeout_millis=0):
        self.got.append(data)
        return self.result


def metrics_of(data):
    return {metric.name: metric for metric in data.resource_metrics[0].scope_metrics[0].metrics}


def test_metrics_are_those_of_the_conventions(shop, attach):
    exporter = Exporter()
    probe = attach(shop, metrics=exporter)
    for _ in range(3):
        one(shop)
    with pytest.raises(sa.exc.OperationalError):
        one(shop, "SELECT * FROM nowhere", id=1)
    probe.detach()
    found = metrics_of(exporter.got[-1])
    points = {
        point.attributes["db.query.summary"]: point for point in found["db.client.operation.duration"].data.data_points
    }
    statements = {each.summary: each for each in probe.report().statements}

    assert {
        "db.client.operation.duration", "sqlprobe.errors", "db.client.connection.count", "db.client.connection.idle.max",
        "db.client.connection.max", "db.client.connection.pending_requests", "db.client.connection.timeouts",
        "db.client.connection.create_time", "db.client.connection.wait_time", "db.client.connection.use_time",
    } == found.keys()  # fmt: skip
    point = points["SELECT customer"]
    assert {
        "db.system.name": "sqlite",
        "db.namespace": shop.url.database,
        "db.query.summary": "SELECT customer",
    } == point.attributes
    assert (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10) == tuple(point.explicit_bounds)
    assert (3, 3, 10) == (point.count, sum(point.bucket_counts), len(point.bucket_counts))
    assert statements["SELECT customer"].seconds == pytest.approx(point.sum)
    assert statements["SELECT customer"].max == pytest.approx(point.max)
    states = {
        point.attributes["db.client.connection.state"]: point.value
        for point in found["db.client.connection.count"].data.data_points
    }
    assert {"used": 0, "idle": 1} == states
    (use,) = found["db.client.connection.use_time"].data.data_points
    assert 4 == use.count
    assert ["OperationalError"] == [
        point.attributes["error.type"] for point in found["sqlprobe.errors"].data.data_points
    ]


def test_metrics_that_nobody_takes_are_counted(shop, attach):
    probe = attach(shop, metrics=Exporter(MetricExportResult.FAILURE))
    one(shop)
    probe._exporters[0].pusher.export()

    assert ["otel metrics"] == [fault.where for fault in probe.faults()]


def test_nothing_starts_where_the_sdk_is_disabled(shop, telemetry, attach, monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    attach(shop)
    with telemetry.request():
        one(shop)

    assert [] == telemetry.spans


@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_double_instrumentation_is_told_once(shop, telemetry, attach, monkeypatch, first):
    class Instrumentor:
        _instance = type("Instance", (), {"is_instrumented_by_opentelemetry": first == "theirs"})()

    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.asyncpg", type(sys)("fake"))
    sys.modules["opentelemetry.instrumentation.asyncpg"].AsyncPGInstrumentor = Instrumentor
    probe = attach(shop)
    Instrumentor._instance.is_instrumented_by_opentelemetry = True
    with telemetry.request():
        one(shop)
        one(shop, "SELECT :id + 1", id=1)

    assert [("otel: opentelemetry-instrumentation-asyncpg is active too, so statements have two spans", 1)] == [
        (fault.where, fault.count) for fault in probe.faults()
    ]


@pytest.mark.parametrize("option", [{"min_seconds": -1}, {"interval_seconds": "60"}, {"min_seconds": True}])
def test_wrong_options_are_refused(option):
    (name,) = option
    with pytest.raises(ValueError, match=name):
        OpenTelemetry(**option)


def test_pending_spans_come_out_when_their_parent_ends_or_the_probe_goes(shop, telemetry, attach):
    probe = attach(shop)
    parent = telemetry.tracer.start_span("open")
    with trace.use_span(parent):
        one(shop)

        assert [] == telemetry.spans

        probe.detach()

    assert 1 == len(telemetry.spans)
    parent.end()


class Receiver(http.server.BaseHTTPRequestHandler):
    """An OTLP collector: what was posted, by path."""

    got: list[tuple[str, bytes]]

    def do_POST(self):
        self.got.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args):
        pass


OTLP_SCRIPT = """
import sqlalchemy as sa, sqlprobe
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
engine = sa.create_engine("sqlite://")
probe = sqlprobe.attach(engine, exporters=["otel"])
with trace.get_tracer("application").start_as_current_span("request"), engine.connect() as connection:
    connection.execute(sa.text("SELECT 1 AS answer"))
probe.detach()
print([fault.where for fault in probe.faults()])
provider.shutdown()
"""


TOLD = """
from sqlprobe import doctor
from sqlprobe_exporters.prometheus import make_wsgi_app
page = b"".join(make_wsgi_app(probe, registry=None)({"REQUEST_METHOD": "GET"}, lambda *_: None)).decode()
assert 'sqlprobe_internal_errors_total{part="otel metrics"} 1' in page, page
assert any("otel metrics" in check.text for check in doctor.examine().checks if check.name == "faults")
"""


@pytest.mark.long
@pytest.mark.once
def test_spans_and_metrics_reach_a_collector():
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    handler = type("Handler", (Receiver,), {"got": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_SERVICE_NAME": "shop"}
        done = subprocess.run(
            [sys.executable, "-c", OTLP_SCRIPT], check=False, capture_output=True, text=True, env=environment
        )
        server.shutdown()
        thread.join()
    assert (0, "[]\n") == (done.returncode, done.stdout), done.stderr

    traces = ExportTraceServiceRequest()
    metrics = ExportMetricsServiceRequest()
    for path, body in handler.got:
        (traces if path == "/v1/traces" else metrics).MergeFromString(body)
    spans = [span for resource in traces.resource_spans for scope in resource.scope_spans for span in scope.spans]
    names = {
        metric.name
        for resource in metrics.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    services = {
        attribute.value.string_value
        for resource in [*traces.resource_spans, *metrics.resource_metrics]
        for attribute in resource.resource.attributes
        if attribute.key == "service.name"
    }
    told = {attribute.key for span in spans for attribute in span.attributes}

    assert {"shop"} == services
    assert 2 == len(spans)
    assert {"db.system.name", "db.query.text", "db.query.summary"} <= told
    assert {"db.client.operation.duration", "db.client.connection.use_time"} <= names


@pytest.mark.exhaustive
@pytest.mark.once
def test_a_collector_that_is_down_stops_nothing():
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", OTLP_SCRIPT + TOLD], check=False, capture_output=True, text=True, env=environment
    )

    assert (0, "['otel metrics']\n") == (done.returncode, done.stdout), done.stderr


class Watching(SimpleSpanProcessor):
    """One that looks at spans that start: no span may pass it by."""

    def on_start(self, span, parent_context=None):
        span.set_attribute("baggage", "yes")


NO_LINES = sqlprobe.Settings(call_sites="off")  # outside a scope, the slowest call so far has one


def plain(span):
    """A span's JSON without what differs from span to span."""
    told = json.loads(span.to_json())
    for name in ("context", "parent_id", "start_time", "end_time", "resource"):
        del told[name]
    return told


@pytest.mark.parametrize("processor", [None, Watching])
def test_the_short_way_makes_the_same_spans(shop, attach, processor):
    usual, short = Telemetry(Seeing()), Telemetry()
    told = []
    for telemetry in (usual, short):
        if processor:
            telemetry.provider.add_span_processor(processor(InMemorySpanExporter()))
        probe = attach(shop, telemetry=telemetry, compress=False, settings=NO_LINES)
        with telemetry.request() as parent:
            for _ in range(3):
                one(shop)
        probe.detach()
        last = telemetry.spans[-1]
        told.append(plain(last))
        assert parent.context.trace_flags == last.context.trace_flags
        assert (parent.context.trace_id, parent.context.span_id) == (last.context.trace_id, last.parent.span_id)
        assert parent.resource is last.resource
        assert 3 == len({span.context.span_id for span in telemetry.spans})

    assert told[0] == told[1]
    assert (processor is None) == (
        type(short.spans[-1]) is ReadableSpan and "baggage" not in short.spans[-1].attributes
    )


class Patched(BatchSpanProcessor):
    """One that looks at spans that end: batches may not pass it by."""

    def on_end(self, span):
        self.seen = [*getattr(self, "seen", ()), span.name]
        super().on_end(span)


@pytest.mark.parametrize("kind", [BatchSpanProcessor, Patched])
def test_batches_get_every_span_the_short_way(shop, attach, kind):
    telemetry = Telemetry()
    exported = InMemorySpanExporter()
    processor = kind(exported)
    telemetry.provider.add_span_processor(processor)
    attach(shop, telemetry=telemetry, compress=False, settings=NO_LINES)
    with telemetry.request():
        for _ in range(3):
            one(shop)
    telemetry.provider.force_flush()

    assert telemetry.exporter.get_finished_spans() == exported.get_finished_spans()
    assert 4 == len(exported.get_finished_spans())
    assert kind is BatchSpanProcessor or 4 == len(processor.seen)
    telemetry.provider.shutdown()


def slots(self, name, **fields):
    """A span that keeps its fields otherwise than today's SDK."""
    self.fields = (name, fields)


@pytest.mark.parametrize(
    ("where", "name", "changed"),
    [(otel_direct, "_LAID_OUT", False), (ReadableSpan, "__init__", slots)],
    ids=["context", "span"],
)
def test_an_sdk_of_another_make_goes_the_usual_way(telemetry, monkeypatch, where, name, changed):
    assert otel_direct.direct_of(telemetry.tracer, otel._Listener) is not None

    monkeypatch.setattr(where, name, changed)

    assert otel_direct.direct_of(telemetry.tracer, otel._Listener) is None


def test_limits_hold_the_short_way(shop, attach):
    telemetry = Telemetry()
    telemetry.provider = TracerProvider(span_limits=SpanLimits(max_span_attribute_length=10, max_span_attributes=3))
    telemetry.provider.add_span_processor(SimpleSpanProcessor(telemetry.exporter))
    telemetry.tracer = telemetry.provider.get_tracer("application")
    attach(shop, telemetry=telemetry, compress=False, settings=NO_LINES)
    with telemetry.request():
        for _ in range(3):
            one(shop)
    _, first, second = telemetry.spans
    usual = telemetry.tracer.start_span("usual", attributes={**first.attributes, "a": 1})

    assert 1 == usual.dropped_attributes
    assert dict(first.attributes) == dict(second.attributes)
    assert (3, first.dropped_attributes) == (len(second.attributes), second.dropped_attributes)
    assert all(len(value) <= 10 for value in second.attributes.values() if isinstance(value, str))
