"""
An application with every trouble that the dashboard shows, for a real Prometheus to scrape: an N+1, errors, a pool that
is too small, rollbacks, sampled traces, an index that is advised. Run by test_prometheus_server.py.

As a process of its own it does nothing until it is told: `/drive` runs a fixed number of requests. From the start on a
connection is held and a caller waits for it. As workers of a server it has some traffic all the time.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column, relationship

import sqlprobe
from sqlprobe import Finding, Fix, Verified
from sqlprobe_exporters.prometheus import Prometheus, make_wsgi_app


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


ADVICE = Finding(
    rule="missing-index",
    severity="warning",
    title="an index is missing",
    advice="create it",
    key="missing-index|order",
    label="order",
    fingerprint="0123456789abcdef",
    fixes=(
        Fix(
            kind="create-index",
            code="CREATE INDEX ON order USING btree (customer_id)",
            verified=Verified("tried", cost_before=100.0, cost_after=20.0),
        ),
    ),
    first_seen=time.time(),
    last_seen=time.time(),
)


def make_engine(folder):
    engine = sa.create_engine(
        f"sqlite:///{folder}/{os.getpid()}.sqlite", pool_size=1, max_overflow=1, pool_timeout=0.2, echo=False
    )
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Customer(orders=[Order()]) for _ in range(30)])
        session.commit()
    return engine


def request(engine):
    with sqlprobe.scope("GET /customers", kind="request"), Session(engine) as session:
        for customer in session.scalars(sa.select(Customer)):
            customer.orders  # noqa: B018 - the lazy load
    for _ in range(3):
        with (
            contextlib.suppress(sa.exc.OperationalError),
            sqlprobe.scope("GET /broken", kind="request"),
            engine.connect() as connection,
        ):
            connection.execute(sa.text("SELECT * FROM nowhere"))
    with engine.begin() as connection:
        connection.execute(sa.insert(Customer).values(id=None))
        connection.rollback()


def drive(engine, postgresql):
    """Enough of everything for every alert that is not about hours."""
    for _ in range(25):
        traced(request, engine)
    with contextlib.suppress(sa.exc.TimeoutError), engine.connect(), engine.connect(), engine.connect():
        pass
    for _ in range(25):
        with contextlib.suppress(sa.exc.OperationalError), postgresql.connect() as connection:
            connection.execute(sa.text("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$"))


def crowd(folder):
    """A connection that is held, and a caller that waits for it, for as long as the process lives."""
    engine = sa.create_engine(f"sqlite:///{folder}/crowded.sqlite", pool_size=1, max_overflow=0, pool_timeout=3600)
    held = engine.connect()
    threading.Thread(target=engine.connect, daemon=True).start()
    return held


def go_on(engine):
    while True:
        request(engine)
        time.sleep(0.5)


def traced(function, *args):
    try:
        from opentelemetry import trace
    except ImportError:
        return function(*args)
    with trace.get_tracer("served").start_as_current_span("request"):
        return function(*args)


def start(folder):
    exporters = [Prometheus(flush_seconds=0.5)]
    alone = not os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if alone:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider

        trace.set_tracer_provider(TracerProvider())
        exporters.append("otel")
    probe = sqlprobe.attach(exporters=exporters)
    engine = make_engine(folder)
    probe._ledger.add([ADVICE])
    probe.fault("example", ValueError())
    if not alone:
        threading.Thread(target=go_on, args=(engine,), daemon=True).start()
    return engine


metrics = make_wsgi_app()
engine = start(Path(os.environ["SERVED_FOLDER"])) if os.environ.get("SERVED_FOLDER") else None


def application(environ, start_response):
    if environ["PATH_INFO"] == "/drive":
        drive(engine, postgresql)
        start_response("204 No Content", [])
        return []
    return metrics(environ, start_response)


if __name__ == "__main__":
    from sqlprobe_exporters.prometheus import serve

    postgresql = sa.create_engine(os.environ["SERVED_POSTGRESQL"])
    held = crowd(Path(os.environ["SERVED_FOLDER"]))
    server, port = serve(application, "127.0.0.1", 0)
    sys.stderr.write(f"Listening at: http://127.0.0.1:{port}\n")
    sys.stderr.flush()
    threading.Event().wait()
