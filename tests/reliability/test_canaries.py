"""No value of the application's leaves: canaries in parameters, literals, comments, URLs and errors, sought in every output."""

from __future__ import annotations

import io
import json
import logging
import re
import traceback

import pytest
import sqlalchemy as sa
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest
from rich.console import Console
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

import sqlprobe
from sqlprobe import doctor, faults, render
from sqlprobe_exporters.otel import OpenTelemetry
from sqlprobe_exporters.prometheus import SqlprobeCollector

pytestmark = pytest.mark.once

# Each is told apart by its number, so that a failure says which way it came.
PARAMETER, LITERAL, NUMBER, COMMENT, PASSWORD, QUERY, UNIQUE, LIST, ARRAY = (
    "kanari-parameter", "kanari-literal", "918273645", "kanari-comment", "kanari-password", "kanari-query",
    "kanari-unique", "kanari-list", "kanari-array",
)  # fmt: skip
CANARY = re.compile("kanari[-_][a-z]+|918273645", re.IGNORECASE)


class Base(DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    notes: Mapped[list["Note"]] = relationship()  # noqa: UP037 - SQLAlchemy looks it up


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(sa.ForeignKey("person.id"), index=True)
    body: Mapped[str]


def application(engine, *, postgresql):
    """Statements of every kind, slow and in loops; canaries wherever a value may stand."""
    with Session(engine) as session:
        session.add_all(Person(email=f"{PARAMETER}-{n}", notes=[Note(body=f"{PARAMETER} {n}")]) for n in range(30))
        session.add(Person(email=UNIQUE))
        session.commit()
        for person in session.scalars(sa.select(Person).where(Person.email != PARAMETER)).all():
            _ = [note.body for note in person.notes]
        for number in range(4):
            session.execute(
                sa.text(
                    f"/* {COMMENT} */ SELECT id FROM person WHERE email = '{LITERAL}' OR id = {NUMBER} -- {COMMENT}"
                )
            ).all()
            session.execute(sa.select(Note.id).where(Note.body.like(f"%{PARAMETER}{number}%"))).all()
            session.execute(sa.select(Note.id).where(Note.body.in_([LIST, f"{LIST}-{number}"]))).all()
        session.execute(sa.insert(Note), [{"person_id": 1, "body": LIST}] * 3)
        if postgresql:
            session.execute(sa.text("SELECT id FROM note WHERE body = ANY(:names)"), {"names": [ARRAY]}).all()
            session.execute(sa.text(f"SELECT $tag${LITERAL}$tag$, E'{LITERAL}\\n', U&'{LITERAL}'")).all()
        session.commit()
    broken = [
        lambda c: c.execute(sa.insert(Person), {"email": UNIQUE}),
        lambda c: c.execute(sa.text(f"SELECT '{LITERAL}' FROM {LITERAL.replace('-', '_')}")),
        lambda c: c.execute(sa.text("SELECT CAST(:x AS integer) / 0, * FROM nowhere"), {"x": PARAMETER}),
    ]
    for run in broken:
        with engine.connect() as connection, pytest.raises(sa.exc.DBAPIError):
            run(connection)


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request, tmp_path):
    if request.param == "sqlite":
        made = sa.create_engine(f"sqlite:///{tmp_path / 'people.db'}")
    else:
        url = request.getfixturevalue("postgresql_url")("psycopg")
        # The socket takes any password; what counts is that it stands in the URL.
        made = sa.create_engine(url.set(password=PASSWORD).update_query_dict({"application_name": QUERY}))
    Base.metadata.create_all(made)
    yield made
    made.dispose()


def outputs_of(probe, engine, told, otel, directory):
    """Every output, by its name, as text."""
    report = probe.report()
    outputs = {"repr of the report": repr(report), "json": report.to_json()}
    for suffix in ("json", "html", "md", "sarif"):
        path = directory / f"report.{suffix}"
        report.write(path)
        outputs[f".{suffix} file"] = path.read_text(encoding="utf-8")
    comparison = report.compare(report)
    for suffix in ("html", "md"):
        path = directory / f"comparison.{suffix}"
        comparison.write(path)
        outputs[f"comparison.{suffix}"] = path.read_text(encoding="utf-8")
    stream = io.StringIO()
    render.print_report(report, Console(file=stream, width=200), verbose=True)
    render.print_comparison(comparison, Console(file=stream, width=200))
    outputs["terminal"] = stream.getvalue()
    outputs["findings"] = repr(report.findings) + "".join(map(str, told["findings"]))
    outputs["fixes"] = repr([fix for finding in report.findings for fix in finding.fixes])
    outputs["logs"] = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in told["logs"])
    registry = CollectorRegistry()
    registry.register(SqlprobeCollector(probe))
    outputs["prometheus"] = generate_latest(registry).decode()
    outputs["spans"] = "".join(span.to_json() for span in otel["spans"].get_finished_spans())
    outputs["events"] = "".join(repr(log.log_record) for log in otel["logs"].get_finished_logs())
    outputs["repr of the probe"] = repr(probe) + repr(probe.settings)
    outputs["doctor"] = str(doctor.examine()) + json.dumps(doctor.examine().as_json())
    outputs["faults"] = repr(faults.told())
    with pytest.raises(sqlprobe.AlreadyAttached) as refused:
        sqlprobe.attach(engine)
    outputs["exceptions"] = "".join(traceback.format_exception(refused.value, chain=True))
    return outputs


def test_no_canary_is_in_any_output(engine, tmp_path, caplog):
    caplog.set_level(logging.DEBUG, logger="sqlprobe")
    postgresql = engine.dialect.name == "postgresql"
    otel = {"spans": InMemorySpanExporter(), "logs": InMemoryLogRecordExporter()}
    pushed = io.StringIO()
    tracers, loggers = TracerProvider(), LoggerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(otel["spans"]))
    loggers.add_log_record_processor(SimpleLogRecordProcessor(otel["logs"]))
    told = {"findings": [], "logs": caplog.records}
    settings = sqlprobe.Settings(
        slow_seconds=0.000_001, call_sites="all", watch_pools=True, pool_wait_seconds=0.000_001,
        long_transaction_seconds=0.000_001, budgets={"*": 1}, explain=postgresql, explain_per_minute=0,
    )  # fmt: skip
    exporter = OpenTelemetry(tracer_provider=tracers, logger_provider=loggers, metrics=ConsoleMetricExporter(pushed))
    attached = sqlprobe.attach(
        engine, settings=settings, exporters=[exporter, "logging"], on_finding=told["findings"].append
    )
    with attached as probe:
        with tracers.get_tracer("application").start_as_current_span("request"), sqlprobe.scope("GET /people"):
            application(engine, postgresql=postgresql)
        plans = list(probe.explain()) if postgresql else []
        outputs = outputs_of(probe, engine, told, otel, tmp_path)
    outputs["plans"] = repr(plans)
    outputs["otel metrics"] = pushed.getvalue()  # the last are pushed by detach()

    empty = {name for name, text in outputs.items() if len(text) < 2}
    leaks = {name: sorted(set(found)) for name, text in outputs.items() if (found := CANARY.findall(text))}
    # A table's name is no value: a statement that names one that is not there is told as it was written.
    leaks = {name: [each for each in found if "_" not in each] for name, found in leaks.items()}
    assert (set(), {}) == (empty, {name: found for name, found in leaks.items() if found})


def test_the_canaries_are_found_where_they_do_leave(engine):
    """The search is not blind: SQLAlchemy's own error holds them."""
    with engine.connect() as connection, pytest.raises(sa.exc.DBAPIError) as raised:
        connection.execute(sa.text("SELECT * FROM nowhere WHERE x = :x"), {"x": PARAMETER})

    assert ["kanari-parameter"] == CANARY.findall(str(raised.value))
