"""One line a finding, with fields, at a bounded rate, without parameters."""

from __future__ import annotations

import io
import json
import logging
import time

import pytest
import sqlalchemy as sa
import structlog
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column, relationship

import sqlprobe
from sqlprobe_exporters.logging import Logging


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customer"
    id = mapped_column(sa.Integer, primary_key=True)
    orders = relationship("Order")


class Order(Base):
    __tablename__ = "purchase"
    id = mapped_column(sa.Integer, primary_key=True)
    customer_id = mapped_column(sa.ForeignKey("customer.id"))


@pytest.fixture
def shop(make_engine, sqlite_url):
    engine = make_engine(sqlite_url())
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Customer(orders=[Order()]) for _ in range(3)])
        session.commit()
    return engine


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def records(caplog):
    caplog.set_level(logging.INFO, "sqlprobe.findings")
    return lambda: [record for record in caplog.records if record.name == "sqlprobe.findings"]


def n_plus_one(engine, scope="GET /customers"):
    with sqlprobe.scope(scope), Session(engine) as session:
        for customer in session.scalars(sa.select(Customer)):
            customer.orders  # noqa: B018 - the lazy load


def test_a_finding_is_one_line_with_fields(shop, records):
    with sqlprobe.attach(shop, exporters=["logging"]) as probe:
        n_plus_one(shop)
        (finding,) = probe.report().findings
    (record,) = records()

    assert logging.WARNING == record.levelno
    assert f"n-plus-one: {finding.title}; in GET /customers; advice: {finding.advice}" == record.getMessage()
    assert {
        "sqlprobe_rule": "n-plus-one",
        "sqlprobe_label": "Customer.orders",
        "sqlprobe_scope": "GET /customers",
        "sqlprobe_count": 3,
        "sqlprobe_seconds": round(finding.seconds, 6),
        "sqlprobe_advice": finding.advice,
        "sqlprobe_fix": "select(Customer).options(selectinload(Customer.orders))",
        "sqlprobe_site": f"{finding.site.file}:{finding.site.line}",
        "sqlprobe_function": "n_plus_one",
        "sqlprobe_origin": f"{finding.origin.file}:{finding.origin.line}",
        "sqlprobe_fingerprint": finding.fingerprint,
        "sqlprobe_engine": finding.engine,
        "sqlprobe_key": finding.key,
    } == {name: value for name, value in vars(record).items() if name.startswith("sqlprobe_")}


def test_a_slow_statement_is_shown_without_its_parameters(shop, records):
    settings = sqlprobe.Settings(slow_seconds=1e-9)
    with sqlprobe.attach(shop, settings=settings, exporters=["logging"]), shop.connect() as connection:
        connection.execute(sa.text("SELECT id FROM customer WHERE id = :id OR id = 918273645"), {"id": 564738291})
    (record,) = records()

    assert record.getMessage().startswith("slow-statement: SELECT customer took ")
    assert record.getMessage().endswith("statement: SELECT id FROM customer WHERE id = ? OR id = ?")
    assert "SELECT id FROM customer WHERE id = ? OR id = ?" == record.sqlprobe_statement
    assert not [word for word in ("918273645", "564738291") if word in str(vars(record))]


def test_a_statement_is_not_shown_where_settings_say_so(shop, records):
    settings = sqlprobe.Settings(slow_seconds=1e-9, redact="text")
    with sqlprobe.attach(shop, settings=settings, exporters=["logging"]), shop.connect() as connection:
        connection.execute(sa.text("SELECT id FROM customer"))
    (record,) = records()

    assert not hasattr(record, "sqlprobe_statement")


def test_one_finding_is_one_line_a_while(shop, records, clock):
    with sqlprobe.attach(shop, exporters=[Logging(seconds=60)]):
        for _ in range(5):
            n_plus_one(shop)
        clock[0] += 61
        n_plus_one(shop)
    first, second = records()

    assert not hasattr(first, "sqlprobe_repeated")
    assert 4 == second.sqlprobe_repeated
    assert second.getMessage().endswith("4 times more since it was last logged")


def test_all_findings_together_are_bounded(shop, records, clock):
    with sqlprobe.attach(shop, exporters=[Logging(per_minute=3)]):
        for number in range(10):
            n_plus_one(shop, f"GET /{number}")
        clock[0] += 61
        n_plus_one(shop, "GET /last")

    assert [None, None, None, 7] == [getattr(record, "sqlprobe_dropped", None) for record in records()]


def test_rules_can_be_chosen(shop, records):
    settings = sqlprobe.Settings(slow_seconds=1e-9)
    with sqlprobe.attach(shop, settings=settings, exporters=[Logging(rules=("n-plus-one",))]):
        n_plus_one(shop)

    assert ["n-plus-one"] == [record.sqlprobe_rule for record in records()]


def test_a_name_with_a_line_break_stays_one_line(shop, records):
    with sqlprobe.attach(shop, exporters=["logging"]):
        n_plus_one(shop, "GET /\nINFO forged")
    (record,) = records()

    assert "\n" not in record.getMessage()


def test_structlog_finds_the_fields(shop):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder()],
            processor=structlog.processors.JSONRenderer(),
        )
    )
    logger = logging.getLogger("sqlprobe.findings")
    logger.addHandler(handler)
    try:
        with sqlprobe.attach(shop, exporters=["logging"]):
            n_plus_one(shop)
    finally:
        logger.removeHandler(handler)
    told = json.loads(stream.getvalue())

    assert ("warning", "Customer.orders", 3) == (told["level"], told["sqlprobe_label"], told["sqlprobe_count"])


def test_a_handler_that_raises_reaches_nobody(shop):
    class Broken(logging.Handler):
        def emit(self, record):
            raise RuntimeError

    handler = Broken()
    logger = logging.getLogger("sqlprobe.findings")
    logger.addHandler(handler)
    try:
        with sqlprobe.attach(shop, exporters=["logging"]) as probe:
            n_plus_one(shop)

            assert ["exporter"] == [fault.where for fault in probe.faults()]
    finally:
        logger.removeHandler(handler)


def test_nothing_is_logged_after_detach(shop, records):
    with sqlprobe.attach(shop, exporters=["logging"]):
        pass
    with sqlprobe.attach(shop):
        n_plus_one(shop)

    assert [] == records()


@pytest.mark.parametrize("option", [{"seconds": -1}, {"per_minute": 0}, {"rules": "n-plus-one"}])
def test_wrong_options_are_refused(option):
    (name,) = option
    with pytest.raises(ValueError, match=name):
        Logging(**option)
