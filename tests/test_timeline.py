"""Timelines: the slowest scope of a name, in time, with loops as one step and no parameter in it."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column, relationship

import sqlprobe
from sqlprobe import faults, ledger, scopes


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id = mapped_column(sa.Integer, primary_key=True)
    state = mapped_column(sa.String)
    items = relationship("Item")


class Item(Base):
    __tablename__ = "items"
    id = mapped_column(sa.Integer, primary_key=True)
    order_id = mapped_column(sa.ForeignKey("orders.id"))


@pytest.fixture
def shop(engine):
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Order(state="new", items=[Item()]) for _ in range(5)])
        session.commit()
    return engine


def run(engine, *texts):
    with engine.connect() as connection:
        for text in texts:
            connection.execute(sa.text(text))


def told(timeline):
    return [(step.calls, step.relationship) for step in timeline.steps]


def test_steps_stand_in_the_order_they_ran_with_a_loop_as_one(shop):
    with sqlprobe.attach(shop) as probe:
        with sqlprobe.scope("GET /orders", kind="request"), Session(shop) as session:
            session.execute(sa.text("SELECT 1"))
            for order in session.scalars(sa.select(Order)):
                order.items  # noqa: B018
            session.execute(sa.text("SELECT 2 AS b"))
        (timeline,) = probe.report().timelines

    assert [(1, None), (1, None), (5, "Order.items"), (1, None)] == told(timeline)
    assert ("GET /orders", "request", 8, 0) == (timeline.scope, timeline.kind, timeline.calls, timeline.omitted)
    starts = [step.started for step in timeline.steps]
    assert sorted(starts) == starts
    for step in timeline.steps:
        assert 0 < step.busy_seconds <= step.seconds + 1e-9
        assert step.started + step.seconds <= timeline.wall_seconds


def test_loops_that_alternate_are_a_step_each(shop):
    with sqlprobe.attach(shop) as probe:
        with sqlprobe.scope("work"):
            run(shop, *["SELECT 1 AS a", "SELECT id FROM orders"] * 4)
        (timeline,) = probe.report().timelines

    assert [(4, None), (4, None)] == told(timeline)


def test_the_slowest_scope_of_a_name_is_kept(shop):
    with sqlprobe.attach(shop) as probe:
        for count in (1, 2000, 1):
            with sqlprobe.scope("work"):
                run(shop, *["SELECT 1"] * count)
        report = probe.report()

    assert [2000] == [timeline.calls for timeline in report.timelines]


def test_nested_scopes_are_part_of_it(shop):
    with sqlprobe.attach(shop) as probe:
        with sqlprobe.scope("outer"):
            run(shop, "SELECT 1")
            with sqlprobe.scope("inner"):
                run(shop, "SELECT id FROM items")
        timelines = {timeline.scope: timeline for timeline in probe.report().timelines}

    assert (2, 1) == (len(timelines["outer"].steps), len(timelines["inner"].steps))


def test_a_failed_call_is_marked(shop):
    with sqlprobe.attach(shop) as probe:
        with sqlprobe.scope("work"), pytest.raises(sa.exc.OperationalError):
            run(shop, "SELECT nothing FROM nowhere")
        (timeline,) = probe.report().timelines

    assert [1] == [step.errors for step in timeline.steps]


def test_what_is_past_the_bound_is_counted(shop):
    settings = sqlprobe.Settings(timeline_statements=10)
    with sqlprobe.attach(shop, settings=settings) as probe:
        with sqlprobe.scope("work"):
            run(shop, *["SELECT 1"] * 25)
        (timeline,) = probe.report().timelines

    assert (25, 10, 15) == (timeline.calls, sum(step.calls for step in timeline.steps), timeline.omitted)


def test_zero_statements_draw_none(shop):
    with sqlprobe.attach(shop, settings=sqlprobe.Settings(timeline_statements=0)) as probe:
        with sqlprobe.scope("work") as scope:
            run(shop, "SELECT 1")
        report = probe.report()

    assert ((), []) == (report.timelines, scope._kept)


def test_no_parameter_stays_when_the_scope_has_ended(shop):
    with sqlprobe.attach(shop) as probe:
        with sqlprobe.scope("work") as scope, Session(shop) as session:
            session.scalars(sa.select(Order).where(Order.state == "canary-8231")).all()
        report = probe.report()

    assert [] == scope._kept
    assert "canary-8231" not in json.dumps(report.to_json())


def test_a_probe_of_one_engine_draws_that_engine_only(shop, make_engine, sqlite_url):
    other = make_engine(sqlite_url())
    with sqlprobe.attach(shop) as probe:
        with sqlprobe.scope("work"):
            run(shop, "SELECT 1 AS mine")
            run(other, "SELECT 2 AS theirs")
        report = probe.report()

    known = {statement.fingerprint for statement in report.statements}
    assert known == {step.fingerprint for timeline in report.timelines for step in timeline.steps}


def test_a_recording_draws_them_too(shop):
    with sqlprobe.record() as recording, sqlprobe.scope("work"):
        run(shop, "SELECT 1")

    assert ["work"] == [timeline.scope for timeline in recording.report().timelines]


def test_the_slowest_names_are_kept(shop, monkeypatch):
    monkeypatch.setattr(ledger, "MAX_TIMELINES", 2)
    with sqlprobe.attach(shop) as probe:
        for name, count in (("a", 1), ("b", 600), ("c", 1200), ("d", 1)):
            with sqlprobe.scope(name):
                run(shop, *["SELECT 1"] * count)
        names = {timeline.scope for timeline in probe.report().timelines}

    assert {"b", "c"} == names


def test_one_that_cannot_be_drawn_costs_no_finding_and_no_total(shop, monkeypatch):
    def fail(*_):
        raise RuntimeError

    monkeypatch.setattr(ledger, "timeline_of", fail)
    with sqlprobe.attach(shop) as probe:
        with sqlprobe.scope("work"):
            run(shop, "SELECT 1")
        report = probe.report()
    counted = [(fault.where, fault.count) for fault in faults.told()]
    faults.forget()

    assert (1, ()) == (report.scopes[0].calls, report.timelines)
    assert [("timeline", 1)] == counted


def test_merged_reports_keep_the_slowest(shop):
    reports = []
    for count in (1, 500):
        with sqlprobe.attach(shop) as probe:
            with sqlprobe.scope("work"):
                run(shop, *["SELECT 1"] * count)
            reports.append(probe.report())

    assert [500] == [timeline.calls for timeline in sqlprobe.Report.merge(*reports).timelines]


def test_nothing_is_kept_while_nobody_observes(shop):
    assert 0 == scopes.keep
