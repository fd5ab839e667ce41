"""What /metrics says: the same by every way, exact whatever is capped, silent to the application."""

from __future__ import annotations

import asyncio
import gzip
import random
import socket
import subprocess
import sys
import time
from bisect import bisect_left
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column, relationship
from sqlalchemy.pool import StaticPool

import sqlprobe
from sqlprobe import doctor
from sqlprobe_exporters import metrics, prometheus
from sqlprobe_exporters.exemplars import BOUNDS_NS, exemplars_of
from sqlprobe_exporters.metrics import METRICS, reader_of
from sqlprobe_exporters.prometheus import Prometheus, SqlprobeCollector, make_asgi_app, make_wsgi_app


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customer"
    id = mapped_column(sa.Integer, primary_key=True)
    orders = relationship("Order")


class Order(Base):
    __tablename__ = "order"
    id = mapped_column(sa.Integer, primary_key=True)
    customer_id = mapped_column(sa.ForeignKey("customer.id"))


@pytest.fixture
def shop(make_engine, tmp_path):
    engine = make_engine(f"sqlite:///{tmp_path}/shop.sqlite")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Customer(orders=[Order()]) for _ in range(5)])
        session.commit()
    return engine


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def probe(shop, registry):
    with sqlprobe.attach(shop, exporters=[Prometheus(registry=registry)]) as probe:
        yield probe


def use(engine):
    """A request with an N+1, one with a single statement, an error, and a statement outside any."""
    with sqlprobe.scope("GET /customers", kind="request"), Session(engine) as session:
        for customer in session.scalars(sa.select(Customer)):
            customer.orders  # noqa: B018 - the lazy load
    with sqlprobe.scope("GET /count", kind="request"), engine.connect() as connection:
        connection.scalar(sa.text("SELECT count(*) FROM customer"))
    with engine.connect() as connection, pytest.raises(sa.exc.OperationalError):
        connection.execute(sa.text("SELECT secret FROM nowhere WHERE name = 'Bob'"))


def page(app, accept="", encoding=""):
    told = {}

    def start_response(status, headers):
        told.update(headers, status=status)

    environ = {"REQUEST_METHOD": "GET", "HTTP_ACCEPT": accept, "HTTP_ACCEPT_ENCODING": encoding}
    return told, b"".join(app(environ, start_response))


def series(families):
    """Value by sample's name and labels, without those that tell of the scrape itself."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
        if family.name != "sqlprobe_overhead_seconds"
    }


def total(found, name):
    return sum(value for key, value in found.items() if key[0] == name)


def test_every_way_tells_the_same(probe, shop, registry):
    use(shop)
    app = make_wsgi_app(probe, registry=None)

    text = series(parse_text(page(app)[1].decode()))
    openmetrics = series(parse_openmetrics(page(app, "application/openmetrics-text; version=1.0.0")[1].decode()))
    collected = series(parse_text(generate_latest(registry).decode()))

    assert text == openmetrics
    assert text == collected
    assert 8 <= total(text, "sqlprobe_query_duration_seconds_count")


def test_numbers_are_those_of_the_report(probe, shop, registry):
    use(shop)

    found = series(parse_text(page(make_wsgi_app(probe, registry=None))[1].decode()))
    report = probe.report()

    assert report.total_calls == total(found, "sqlprobe_query_duration_seconds_count")
    assert report.total_seconds == pytest.approx(total(found, "sqlprobe_query_duration_seconds_sum"))
    assert sum(each.calls for each in report.scopes) == total(found, "sqlprobe_request_queries_sum")
    n_plus_one = {key[1:]: value for key, value in found.items() if key[0].startswith("sqlprobe_n_plus_one_queries")}
    (labels,) = n_plus_one
    assert {"route": "GET /customers", "relationship": "Customer.orders"}.items() <= dict(labels).items()
    assert [5] == list(n_plus_one.values())
    assert 1 == found["sqlprobe_n_plus_one_requests_total", ("route", "GET /customers")]
    assert 1 == found["sqlprobe_findings", ("rule", "n-plus-one"), ("severity", "warning")]
    assert 1 == total(found, "sqlprobe_query_errors_total")
    assert 7 == found["sqlprobe_request_queries_sum", ("route", "GET /customers")] + total(
        {key: value for key, value in found.items() if ("route", "GET /count") in key}, "sqlprobe_request_queries_sum"
    )


def test_histogram_of_statements_per_request_is_exact(engine, registry):
    counts = [0, 1, 2, 3, 5, 6, 10, 11, 500, 501]
    with sqlprobe.attach(engine, exporters=[Prometheus(registry=registry)]), engine.connect() as connection:
        for count in counts:
            with sqlprobe.scope("request"):
                for _ in range(count):
                    connection.exec_driver_sql("SELECT 1")
        found = series(parse_text(generate_latest(registry).decode()))

    told = {dict(key[1:])["le"]: value for key, value in found.items() if key[0] == "sqlprobe_request_queries_bucket"}
    expected = {f"{bound}": sum(count <= bound for count in counts) for bound in metrics.QUERIES_BOUNDS}

    assert {**expected, "+Inf": len(counts)} == told


def test_no_parameter_and_no_error_text_is_told(probe, shop, registry):
    use(shop)
    with shop.connect() as connection:
        connection.execute(sa.text("SELECT * FROM customer WHERE id = 918273645 OR id = :id"), {"id": 564738291})

    text = page(make_wsgi_app(probe, registry=None))[1].decode()

    assert not [word for word in ("Bob", "918273645", "564738291", "no such table") if word in text]


def test_without_text_where_settings_say_so(shop, registry):
    settings = sqlprobe.Settings(redact="text")
    with sqlprobe.attach(shop, settings=settings, exporters=[Prometheus(registry=registry)]):
        use(shop)
        infos = [
            sample.labels
            for family in parse_text(generate_latest(registry).decode())
            for sample in family.samples
            if sample.name == "sqlprobe_statement_info"
        ]

    assert infos
    assert {""} == {labels["query"] for labels in infos}


def test_accepts_decide_on_format_and_compression(probe, shop):
    use(shop)
    app = make_wsgi_app(probe, registry=None)

    plain, text = page(app)
    headers, body = page(app, "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", "gzip")

    assert plain["Content-Type"].startswith("text/plain; version=0.0.4")
    assert str(len(text)) == plain["Content-Length"]
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert "gzip" == headers["Content-Encoding"]
    assert gzip.decompress(body).endswith(b"# EOF\n")


def test_the_users_metrics_are_in_the_same_text_once(probe, shop, registry):
    use(shop)
    Counter("orders_sold", "The application's own.", registry=registry).inc(3)
    app = make_wsgi_app(probe, registry=registry)  # which has sqlprobe's collector too

    for accept in ("", "application/openmetrics-text;version=1.0.0"):
        text = page(app, accept)[1].decode()

        assert "orders_sold_total 3" in text
        assert 1 == text.count("# TYPE sqlprobe_build_info")
    assert text.endswith("# EOF\n")
    assert 1 == text.count("# EOF")


def test_asgi_app_answers_as_the_wsgi_app(probe, shop):
    use(shop)
    sent = []

    async def ask():
        async def receive():
            return {"type": "http.request"}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "GET", "headers": [(b"Accept", b"text/plain")]}
        await make_asgi_app(probe, registry=None)(scope, receive, send)

    asyncio.run(ask())
    expected = series(parse_text(page(make_wsgi_app(probe, registry=None))[1].decode()))

    assert 200 == sent[0]["status"]
    assert expected == series(parse_text(sent[1]["body"].decode()))


def test_labels_are_escaped(engine, registry):
    with sqlprobe.attach(engine) as probe:
        with sqlprobe.scope('GET "\\\n"'), engine.connect() as connection:
            connection.execute(sa.text('SELECT 1 AS "a\\\nb"'))
        text = page(make_wsgi_app(probe, registry=None))[1].decode()
        names = {labels.get("route") for _, *pairs in series(parse_text(text)) for labels in [dict(pairs)]}

    assert 'GET "\\\n"' in names


class Shapes:
    """An engine and statements of as many shapes as wanted."""

    def __init__(self, engine):
        self.connection = engine.connect()

    def run(self, number, times=1):
        for _ in range(times):
            self.connection.exec_driver_sql(f"SELECT 1 AS column_{number}")


def test_capped_statements_are_summed_exactly(make_engine):
    engine = make_engine(poolclass=StaticPool)
    with sqlprobe.attach(engine) as probe:
        reader = reader_of(probe, max_fingerprints=3)
        shapes = Shapes(engine)
        for number in range(10):
            shapes.run(number, number + 1)
        durations = reader.read()["sqlprobe_query_duration_seconds"]
        counts = {labels[1]: sum(value.buckets) for labels, value in durations.items()}
        shapes.connection.close()

    assert 4 == len(counts)
    assert 55 == sum(counts.values())
    assert 49 == counts["other"]


def test_totals_stay_exact_and_grow_while_statements_come_and_go(make_engine, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    engine = make_engine(poolclass=StaticPool)
    chance = random.Random(7)
    with sqlprobe.attach(engine) as probe:
        reader = reader_of(probe, max_fingerprints=4)
        shapes = Shapes(engine)
        last, seen, calls, replaced = {}, set(), 0, False
        for step in range(40):
            for number in [chance.randrange(12), *[step // 8] * 5]:  # the busy one changes
                times = 1 + 6 * (number == step // 8)
                shapes.run(number, times)
                calls += times
            clock[0] += 301.0
            now = {
                labels: sum(value.buckets) for labels, value in reader.read()["sqlprobe_query_duration_seconds"].items()
            }
            assert len(now) <= 5
            assert all(now[labels] >= count for labels, count in last.items() if labels in now)
            replaced = replaced or bool(last.keys() - now.keys())
            seen |= now.keys()
            ended = sum(sum(sums.buckets) for sums in reader._ended.values())
            assert calls == sum(now.values()) + ended
            last = {**last, **now}
        shapes.connection.close()

    assert replaced
    assert 5 < len(seen)


def test_routes_are_capped_with_exact_totals(engine):
    with sqlprobe.attach(engine) as probe:
        reader = reader_of(probe, max_routes=2)
        with engine.connect() as connection:
            for number in range(5):
                with sqlprobe.scope(f"GET /{number}"):
                    connection.exec_driver_sql("SELECT 1")
        reading = reader.read()

    assert {("GET /0",): 1, ("GET /1",): 1, ("other",): 3} == {
        labels: sum(value.buckets) for labels, value in reading["sqlprobe_request_queries"].items()
    }
    assert 5 == sum(reading["sqlprobe_request_statements"].values())
    assert {"GET /0", "GET /1", "other"} == {route for route, _ in reading["sqlprobe_request_statements"]}


def test_exemplars_are_told_in_openmetrics_only(probe, shop):
    use(shop)
    statement = probe.report().statements[0]
    span = SimpleNamespace(trace_id=0xABC, span_id=0xDEF)  # of a SpanContext what is told
    place = exemplars_of(probe).place_of((statement.engine, statement.fingerprint))
    place[bisect_left(BOUNDS_NS, 3_000_000)] = (span, 3_000_000, 1_700_000_000 * 10**9)
    app = make_wsgi_app(probe, registry=None)

    text = page(app)[1].decode()
    exemplars = [
        (sample.labels["le"], sample.exemplar)
        for family in parse_openmetrics(page(app, "application/openmetrics-text;version=1.0.0")[1].decode())
        for sample in family.samples
        if sample.exemplar
    ]

    assert "abc" not in [part for part in text.split() if part.startswith("{trace_id")]
    ((edge, exemplar),) = exemplars
    assert "0.005" == edge
    assert {"trace_id": f"{0xABC:032x}", "span_id": f"{0xDEF:016x}"} == exemplar.labels
    assert (0.003, 1_700_000_000.0) == (exemplar.value, float(exemplar.timestamp))


def test_two_probes_are_told_together(make_engine, sqlite_url, registry):
    first, second = make_engine(), make_engine(sqlite_url())
    exporter = Prometheus(registry=registry)
    with sqlprobe.attach(first, exporters=exporter), sqlprobe.attach(second, exporters=exporter):
        with sqlprobe.scope("job"), first.connect() as one, second.connect() as other:
            one.exec_driver_sql("SELECT 1")
            other.exec_driver_sql("SELECT 1")
            other.exec_driver_sql("SELECT 1")
        found = series(parse_text(generate_latest(registry).decode()))

    assert 3 == total(found, "sqlprobe_query_duration_seconds_count")
    assert 1 == total(found, "sqlprobe_request_queries_count")
    assert 3 == total(found, "sqlprobe_request_queries_sum")


def test_detach_takes_the_collector_away(shop, registry):
    with sqlprobe.attach(shop, exporters=[Prometheus(registry=registry)]):
        pass

    assert b"" == generate_latest(registry)
    registry.register(SqlprobeCollector())


def test_registering_collects_nothing(engine, registry, monkeypatch):
    with sqlprobe.attach(engine) as probe:
        monkeypatch.setattr(metrics.Reader, "read", lambda self: pytest.fail("collected"))

        registry.register(SqlprobeCollector(probe))


def test_a_port_that_is_taken_is_told_and_stops_nothing(engine, registry):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with sqlprobe.attach(engine, exporters=[Prometheus(registry=registry, port=port)]) as probe:
            with engine.connect() as connection:
                connection.exec_driver_sql("SELECT 1")
            found = series(parse_text(generate_latest(registry).decode()))

    assert 1 == found["sqlprobe_internal_errors_total", ("part", f"prometheus port {port}")]
    assert 1 == total(found, "sqlprobe_query_duration_seconds_count")
    assert [f"prometheus port {port}"] == [fault.where for fault in probe.faults()]
    assert any(f"prometheus port {port}" in check.text for check in doctor.examine().checks if check.name == "faults")


@pytest.mark.parametrize(
    "option", [{"max_fingerprints": 0}, {"port": -1}, {"flush_seconds": "2"}, {"max_routes": True}]
)
def test_wrong_options_are_refused(option):
    (name,) = option
    with pytest.raises(ValueError, match=name):
        Prometheus(**option)


@pytest.mark.once
@pytest.mark.parametrize(("name", "package"), [("prometheus", "prometheus_client"), ("otel", "opentelemetry")])
def test_a_missing_package_is_told_with_its_extra(name, package):
    script = f"""
import sys
sys.modules["{package}"] = None
import sqlalchemy as sa, sqlprobe
try:
    sqlprobe.attach(sa.create_engine("sqlite://"), exporters=["{name}"])
except sqlprobe.SqlprobeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)

    assert f"pip install 'sqlprobe[{name}]'" in done.stdout


@pytest.mark.once
@pytest.mark.requires_debian("prometheus", "promtool")
def test_promtool_has_nothing_to_say(probe, shop):
    use(shop)
    text = page(make_wsgi_app(probe, registry=None))[1]
    done = subprocess.run(["promtool", "check", "metrics"], input=text, check=False, capture_output=True)

    assert (0, b"") == (done.returncode, done.stderr)


def test_every_metric_is_named_by_the_rules():
    for metric in METRICS:
        assert metric.name.startswith("sqlprobe_")
        assert not metric.name.endswith(("_total", "_count", "_sum", "_bucket"))
        assert metric.help.endswith(".")
        assert not metric.unit or metric.name.endswith(metric.unit)
        assert bool(metric.bounds) == (metric.kind == "histogram")


def test_an_exporter_that_fails_reaches_nobody(shop, registry, monkeypatch):
    with sqlprobe.attach(shop, exporters=[Prometheus(registry=registry)]) as probe:
        monkeypatch.setattr(metrics.Reader, "_route", lambda self, name: 1 / 0)
        with sqlprobe.scope("request"), shop.connect() as connection:
            assert 5 == connection.scalar(sa.text("SELECT count(*) FROM customer"))

        assert ["exporter"] == [fault.where for fault in probe.faults()]


def test_started_ones_are_forgotten_when_they_stop(shop, registry):
    before = list(prometheus._started)
    with sqlprobe.attach(shop, exporters=[Prometheus(registry=registry)]):
        assert len(before) + 1 == len(prometheus._started)

    assert before == prometheus._started
