"""The metrics of an audit, as a scraper reads them."""

from __future__ import annotations

import logging
import threading
import urllib.request

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from sqlprobe.audit import metrics, stock
from sqlprobe.audit.mapping import models_of
from sqlprobe_exporters import audit
from sqlprobe_exporters.audit import AuditCollector

pytestmark = pytest.mark.once


@pytest.fixture
def database(postgresql_url):
    engine = sa.create_engine(postgresql_url(), poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA shop")
        connection.exec_driver_sql('CREATE TABLE shop."odd ""table" (id int PRIMARY KEY, qty int)')
        connection.exec_driver_sql('CREATE INDEX ix_qty ON shop."odd ""table" (qty)')
        connection.exec_driver_sql('CREATE INDEX ix_qty_again ON shop."odd ""table" (qty)')
    return engine


@pytest.fixture
def scrape():
    """`scrape(collector)`: samples by name and labels, over HTTP."""
    stops = []

    def scrape(collector):
        registry = CollectorRegistry()
        registry.register(collector)
        server, thread = start_http_server(0, "127.0.0.1", registry)
        stops.append((server, thread))
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=10) as answer:
            return samples_of(answer.read().decode())

    yield scrape
    for server, thread in stops:
        server.shutdown()
        server.server_close()
        thread.join()


def samples_of(text):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def wait_for_audit():
    for thread in threading.enumerate():
        if thread.name == "sqlprobe-audit":
            thread.join(30)


def test_scrape_tells_what_the_audit_found_and_how_indexes_are_used(database, scrape):
    collector = AuditCollector(database)
    collector.refresh()

    found = scrape(collector)

    name = database.url.database
    index = (("database", name), ("index", "ix_qty"), ("schema", "shop"), ("table", 'odd "table'))
    assert (
        1
        == found["sqlprobe_audit_findings", (("database", name), ("rule", "redundant-index"), ("severity", "warning"))]
    )
    assert 0 == found["sqlprobe_index_scans_total", index]
    assert 8192 == found["sqlprobe_index_bytes", index]
    assert 3 == found["sqlprobe_indexes", (("database", name),)]


def test_file_and_scrape_tell_the_same(database, scrape):
    collector = AuditCollector(database)
    collector.refresh()
    from_file = samples_of(metrics.text([], stock.read(database), 0.0))

    scraped = scrape(collector)

    assert {key for key in scraped if key[0] != "sqlprobe_audit_findings"} == from_file.keys()


def test_scrape_does_not_wait_for_the_audit(database, monkeypatch):
    ask, answered = threading.Event(), threading.Event()
    plain = audit.audit.read

    def read(engine):
        ask.set()
        assert answered.wait(30)
        return plain(engine)

    monkeypatch.setattr(audit.audit, "read", read)
    collector = AuditCollector(database)

    first = list(collector.collect())
    assert ask.wait(30)
    second = list(collector.collect())
    answered.set()
    wait_for_audit()

    assert ([], []) == (first, second)
    assert "sqlprobe_audit_findings" in {metric.name for metric in collector.collect()}


def test_failed_audit_keeps_the_last_numbers_and_is_told_once(database, monkeypatch, caplog):
    collector = AuditCollector(database)
    collector.refresh()
    before = list(collector.collect())

    def read(_):
        raise RuntimeError("secret")

    monkeypatch.setattr(audit.audit, "read", read)
    with caplog.at_level(logging.WARNING, "sqlprobe"):
        for _ in range(2):
            collector._next = 0.0
            assert before == list(collector.collect())
            wait_for_audit()

    assert before == list(collector.collect())
    assert ["sqlprobe: the audit for metrics failed (RuntimeError); the numbers of the last one stay"] == [
        record.getMessage() for record in caplog.records
    ]


def test_models_alone_have_counts():
    metadata = sa.MetaData()
    sa.Table("t", metadata, sa.Column("a", sa.Integer, primary_key=True), sa.Index("ix_again", "a"))
    collector = AuditCollector(models=models_of(metadata))
    collector.refresh()

    assert {"sqlprobe_audit_findings", "sqlprobe_audit_timestamp_seconds"} == {
        metric.name for metric in collector.collect()
    }


def test_indexes_beyond_the_limit_have_no_series(database, monkeypatch):
    monkeypatch.setattr(metrics, "MAX_INDEXES", 1)

    found = metrics.samples([], stock.read(database), 0.0)

    assert (1, 3) == (len(found[metrics.BYTES]), found[metrics.INDEXES][database.url.database,])


@pytest.mark.parametrize(("given", "said"), [({}, "an engine or models"), ({"engine": 1, "every": 1}, "10 on")])
def test_says_what_is_wrong(given, said):
    with pytest.raises(ValueError, match=said):
        AuditCollector(**given)
