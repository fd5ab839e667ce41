"""A loop around nested scopes is the outer scope's, once; what each of several requests asks is no loop."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sqlprobe
from sqlprobe import faults, scopes

pytestmark = pytest.mark.versions

select = sa.select


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")


@pytest.fixture(autouse=True)
def nothing_fails():
    faults.forget()
    yield
    assert ((), []) == (faults.told(), scopes.open_scopes())


@pytest.fixture
def session(engine):
    Base.metadata.create_all(engine)
    with Session(engine) as opened:
        opened.add_all(Item(id=i, name=f"i{i}") for i in range(1, 301))
        opened.commit()
        opened.expunge_all()
        yield opened


@pytest.fixture(params=["probe", "recording"])
def told(request, engine):
    """What a function, run in a scope called "work", is told of: rule, label, scope, count."""

    def told_of(function, **options):
        settings = sqlprobe.Settings(call_sites="all")
        if request.param == "probe":
            with sqlprobe.attach(engine, settings=settings) as reader, sqlprobe.scope("work", **options):
                function()
            findings = reader.report().findings
        else:
            with sqlprobe.record(settings=settings) as recording, sqlprobe.scope("work", **options):
                function()
            findings = recording.findings
        return [(found.rule, found.label, found.scope, found.count) for found in findings]

    return told_of


@sqlprobe.scope("get_item")
def get_item(session, number):
    return session.scalar(select(Item).where(Item.id == number))


def test_loop_around_a_decorated_function_is_told_once_and_of_the_outer_scope(told, session):
    def work():
        for number in range(1, 4):
            get_item(session, number)

    assert [("repeated-statement", "item", "work", 3)] == told(work)


def test_loop_around_several_levels_is_told_of_the_outermost(told, session):
    def work():
        for number in range(1, 4):
            with sqlprobe.scope("one"):
                get_item(session, number)

    assert [("repeated-statement", "item", "work", 3)] == told(work)


def test_loop_in_each_nested_scope_is_told_there_and_not_again(told, session):
    def work():
        for start in (1, 11, 21):
            with sqlprobe.scope("ten"):
                for number in range(start, start + 10):
                    session.scalar(select(Item.name).where(Item.id == number))

    assert [("repeated-statement", "item", "ten", 30)] == told(work)


def test_same_parameters_in_each_nested_scope_are_a_duplicate(told, session):
    def work():
        for _ in range(4):
            with sqlprobe.scope("one"):
                session.scalar(select(Item.name).where(Item.id == 7))

    assert [("duplicate-statement", "item", "work", 4)] == told(work)


def test_same_parameters_after_writes_of_the_nested_scopes_are_none(told, session):
    def work():
        for turn in range(4):
            with sqlprobe.scope("one"):
                session.execute(sa.update(Item).where(Item.id < 100).values(name=f"x{turn}"))
                session.scalar(select(Item.name).where(Item.id == 7))

    assert [] == told(work)


def test_row_written_in_each_nested_scope_is_a_write_loop(told, session):
    def work():
        for number in range(1000, 1004):
            with sqlprobe.scope("one"):
                session.add(Item(id=number))
                session.flush()

    assert [("write-loop", "item", "work", 4)] == told(work)


def test_pages_read_in_a_nested_scope_each_are_a_walk(told, session):
    def work():
        for page in range(6):
            with sqlprobe.scope("page"):
                session.scalars(select(Item.id).order_by(Item.id).limit(50).offset(50 * page)).all()

    assert [] == told(work)


@pytest.mark.parametrize("kind", ["request", "task", "job"])
def test_requests_and_tasks_are_units_of_their_own(told, session, kind):
    def work():
        for number in range(1, 13):
            with sqlprobe.scope("GET /item", kind=kind):
                session.scalar(select(Item.name).where(Item.id == number))

    assert [] == told(work)


def test_scopes_one_after_the_other_are_no_loop(told, session):
    def work():
        get_item(session, 1)
        get_item(session, 2)
        get_item(session, 3)

    assert [] == told(work)


def test_scopes_of_one_recording_are_units_of_their_own(engine, session):
    with sqlprobe.record() as recording:
        for number in range(1, 13):
            get_item(session, number)

    assert () == recording.findings
