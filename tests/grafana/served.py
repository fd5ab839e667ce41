"""
An application with every trouble that the dashboard shows, for a real Prometheus to scrape: an N+1, errors, a pool that
is too small, rollbacks, sampled traces, an index that is advised. Run by test_prometheus_server.py.
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
    with (
        contextlib.suppress(sa.exc.OperationalError),
        sqlprobe.scope("GET /broken", kind="request"),
        engine.connect() as connection,
    ):
        connection.execute(sa.text("SELECT * FROM nowhere"))
    with engine.begin() as connection:
        connection.execute(sa.insert(Customer).values(id=None))


def drive(engine):
    """Requests for ever, and now and then a crowd for which the pool is too small."""
    while True:
        crowd = [threading.Thread(target=hold, args=(engine,), daemon=True) for _ in range(6)]
        for each in crowd:
            each.start()
        for each in crowd:
            each.join()
        for _ in range(3):
            with contextlib.suppress(sa.exc.TimeoutError):
                traced(request, engine)
        time.sleep(0.2)


def hold(engine):
    with contextlib.suppress(sa.exc.TimeoutError), engine.connect():
        time.sleep(0.3)


def traced(function, *args):
    try:
        from opentelemetry import trace
    except ImportError:
        return function(*args)
    with trace.get_tracer("served").start_as_current_span("request"):
        return function(*args)


def start(folder):
    exporters = [Prometheus(flush_seconds=0.5)]
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider

        trace.set_tracer_provider(TracerProvider())
        exporters.append("otel")
    engine = make_engine(folder)
    probe = sqlprobe.attach(engine, exporters=exporters)
    probe._ledger.add([ADVICE])
    probe.fault("example", ValueError())
    threading.Thread(target=drive, args=(engine,), daemon=True).start()


application = make_wsgi_app()  # for gunicorn, whose workers import this

if os.environ.get("SERVED_FOLDER"):
    start(Path(os.environ["SERVED_FOLDER"]))

if __name__ == "__main__":
    from sqlprobe_exporters.prometheus import serve

    server, port = serve(application, "127.0.0.1", 0)
    sys.stderr.write(f"Listening at: http://127.0.0.1:{port}\n")
    sys.stderr.flush()
    threading.Event().wait()
