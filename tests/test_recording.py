"""
A recording sees the process: every engine, thread and task, judged by the scope it ran in; readable while it is open.
"""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

import sqlprobe
from sqlprobe import capture, faults, recording, scopes

pytestmark = pytest.mark.versions

ONE = sa.text("select 1")


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "order"
    id: Mapped[int] = mapped_column(primary_key=True)
    items: Mapped[list[Item]] = relationship()


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(sa.ForeignKey("order.id"))


@pytest.fixture(autouse=True)
def nothing_left_behind():
    faults.forget()
    yield

    assert ((), (), ()) == (capture.owners, capture.recorders, faults.told())


@pytest.fixture
def shop(make_engine):
    """An engine with three orders of one item each."""
    engine = make_engine(poolclass=sa.StaticPool)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Order(id=number, items=[Item(id=number)]) for number in (1, 2, 3)])
        session.commit()
    return engine


def run(engine, *statements):
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(statement).all()


def read_items(engine, *ids):
    """As many statements as *ids*, and one."""
    with Session(engine) as session:
        for order in session.scalars(sa.select(Order).where(Order.id.in_(ids or (1, 2, 3)))).all():
            assert 1 == len(order.items)


def found(source):
    """Without SELECT 1, which here stands for statements that say nothing, and which is told for that."""
    told = [item for item in source.findings if item.rule != "duplicate-statement"]
    return sorted((item.rule, item.scope, item.label, item.count) for item in told)


def test_needs_no_probe_and_sees_every_engine(make_engine):
    first, second = make_engine(), make_engine()
    with sqlprobe.record() as recorded:
        run(first, ONE)
        run(second, ONE, ONE)
    run(first, ONE)

    assert (3, 3, [3]) == (recorded.calls, len(recorded.executions), [item.calls for item in recorded.statements])
    assert recorded.seconds == pytest.approx(sum(item.seconds for item in recorded.executions))


def test_sees_bare_threads_and_tasks(make_engine, sqlite_url):
    engine = make_engine(sqlite_url(), poolclass=sa.NullPool)

    async def main():
        async_engine = create_async_engine(sqlite_url("aiosqlite"))

        async def one():
            async with async_engine.connect() as connection:
                await connection.execute(ONE)

        await asyncio.gather(one(), one())
        await async_engine.dispose()

    with sqlprobe.record() as recorded:
        thread = threading.Thread(target=run, args=(engine, ONE))
        thread.start()
        thread.join()
        asyncio.run(main())

    assert 3 == recorded.calls


def test_recordings_nest_and_overlap(engine):
    outer = sqlprobe.record().__enter__()
    run(engine, ONE)
    inner = sqlprobe.record().__enter__()
    run(engine, ONE, ONE)
    outer.__exit__(None, None, None)
    run(engine, ONE)
    inner.__exit__(None, None, None)

    assert (3, 3) == (outer.calls, inner.calls)


def test_is_readable_while_open_and_stays_as_it_was(engine):
    with sqlprobe.record() as recorded:
        calls = []
        for _ in range(3):
            run(engine, ONE)
            calls.append((recorded.calls, recorded.report().total_calls))
    report = recorded.report()
    run(engine, ONE)

    assert [(1, 1), (2, 2), (3, 3)] == calls
    assert (report.statements, report.ended) == (recorded.report().statements, recorded.report().ended)


@pytest.mark.parametrize("read_before_close", [False, True])
def test_findings_name_the_scope_they_ran_in(shop, read_before_close):
    with sqlprobe.record() as recorded:
        with sqlprobe.scope("GET /orders"):
            read_items(shop)
            if read_before_close:
                assert [("n-plus-one", "GET /orders", "Order.items", 3)] == found(recorded)
        read_items(shop, 1, 2)

    assert [("n-plus-one", "(recording)", "Order.items", 2), ("n-plus-one", "GET /orders", "Order.items", 3)] == found(
        recorded
    )
    assert ["GET /orders"] * 4 + [""] * 3 == [item.scope for item in recorded.executions]


def test_nested_scopes_are_told_apart(shop):
    with sqlprobe.record() as recorded, sqlprobe.scope("outer"):
        read_items(shop, 1, 2)
        with sqlprobe.scope("inner"):
            read_items(shop)

    assert [("n-plus-one", "inner", "Order.items", 3), ("n-plus-one", "outer", "Order.items", 2)] == found(recorded)
    assert {"outer": 7, "inner": 4} == {item.name: item.calls for item in recorded.report().scopes}


def test_n_plus_one_over_scopes_that_are_nested_is_found_where_it_comes_together(shop):
    """The query in one scope, each load in a scope of its own."""
    with sqlprobe.record() as recorded, sqlprobe.scope("page"), Session(shop) as session:
        for order in session.scalars(sa.select(Order)).all():
            with sqlprobe.scope("row"):
                assert 1 == len(order.items)

    assert [("n-plus-one", "page", "Order.items", 3)] == found(recorded)


def test_renamed_scope_is_told_by_its_last_name(shop):
    with sqlprobe.record() as recorded, sqlprobe.scope("GET /orders/17") as scope:
        read_items(shop)
        assert 1 == len(recorded.findings)
        scope.rename("GET /orders/{id}")

    assert [("n-plus-one", "GET /orders/{id}", "Order.items", 3)] == found(recorded)


def test_n_plus_one_after_the_kept_executions_is_found(shop, monkeypatch):
    monkeypatch.setattr(recording, "MAX_EXECUTIONS", 5)
    with sqlprobe.record() as recorded:
        run(shop, *[ONE] * (scopes.BATCH + 10))
        read_items(shop)

    assert [("n-plus-one", "(recording)", "Order.items", 3)] == found(recorded)
    assert (5, scopes.BATCH + 10 + 4 - 5) == (len(recorded.executions), recorded.dropped_executions)
    assert (
        f"{recorded.dropped_executions:,} executions past the first 5 were only counted",
    ) == recorded.report().notes


def test_more_statements_than_the_bound_are_summed_in_one_entry(engine, monkeypatch):
    monkeypatch.setattr(recording, "MAX_STATEMENTS", 3)
    with sqlprobe.record() as recorded:
        run(engine, *(sa.text(f"select 1 as c{number}") for number in range(10)))

    assert {"select ? as c0": 1, "select ? as c1": 1, "select ? as c2": 1, capture.OVERFLOW.text: 7} == {
        item.text: item.calls for item in recorded.statements
    }


def test_executions_tell_what_ran(shop):
    with sqlprobe.record() as recorded:
        read_items(shop, 1)
        line = sys._getframe().f_lineno - 1
        with pytest.raises(sa.exc.OperationalError):
            run(shop, sa.text("select * from nowhere"))
        with shop.begin() as connection:
            connection.exec_driver_sql("insert into item (id, order_id) values (?, 1)", [(10,), (11,)])
    query, lazy, failed, many = recorded.executions

    assert [None, "Order.items", None, None] == [item.relationship for item in recorded.executions]
    assert [None, None, "OperationalError", None] == [item.error for item in recorded.executions]
    assert [1, 1, 1, 2] == [item.batch_size for item in recorded.executions]
    assert [None, None, None, 2] == [item.rows for item in recorded.executions]
    assert [line, line] == [item.site.caller.line for item in (query, lazy)]
    assert sorted(item.started for item in recorded.executions) == [item.started for item in recorded.executions]
    assert {type(item.seconds) for item in (failed, many)} == {float}


def test_recording_an_empty_stretch_reports_nothing(engine):
    with sqlprobe.record() as recorded:
        pass
    report = recorded.report()

    assert ((), (), (), 0, 0.0) == (
        report.findings, report.statements, report.scopes, recorded.calls, recorded.seconds
    )  # fmt: skip


def test_error_inside_ends_the_recording_and_is_the_users(engine):
    recorded = sqlprobe.record()

    def fails():
        with recorded:
            run(engine, ONE)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    run(engine, ONE)

    assert 1 == recorded.calls


def test_recording_that_is_left_twice_stays_ended(engine):
    with sqlprobe.record() as recorded:
        run(engine, ONE)
    recorded.__exit__(None, None, None)
    run(engine, ONE)

    assert 1 == recorded.calls


def test_a_scope_in_windows_keeps_one_teller_of_late_statements(engine):
    """A worker's loop is judged each minute: what is remembered for it must not grow with each."""
    settings = sqlprobe.Settings(scope_window_seconds=1e-9)
    with sqlprobe.record(settings=settings) as recorded, sqlprobe.scope("worker") as scope:
        for _ in range(20):
            run(engine, ONE)

        assert 1 == len(scope.on_late)

    assert {"worker": 20} == {item.name: item.calls for item in recorded.report().scopes}


def test_pages_between_other_tasks_statements_join_their_own_execution(sqlite_url):
    """Two tasks insert in pages at the same time; the kept executions are two, each with its pages."""
    item = sa.Table("thing", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("x", sa.Integer))

    async def main():
        engine = create_async_engine(sqlite_url("aiosqlite"), insertmanyvalues_page_size=2)
        other = create_async_engine("sqlite+aiosqlite://")
        async with engine.begin() as connection:
            await connection.run_sync(item.create)
        for one in (engine, other):
            async with one.connect() as connection:
                await connection.execute(ONE)
        ended = asyncio.Event()

        async def insert():
            async with engine.begin() as connection:
                await connection.execute(sa.insert(item).returning(item.c.id), [{"x": number} for number in range(40)])
            ended.set()

        async def select():
            async with other.connect() as connection:
                while not ended.is_set():
                    await connection.execute(ONE)

        with sqlprobe.record() as recorded:
            await asyncio.gather(insert(), select())
        for one in (engine, other):
            await one.dispose()
        return recorded

    recorded = asyncio.run(main())
    inserts = [item for item in recorded.executions if "INSERT" in item.text]
    [statement] = [item for item in recorded.statements if "INSERT" in item.text]

    assert [(40, 20)] == [(item.batch_size, item.pages) for item in inserts]
    assert (1, 20, 40) == (statement.calls, statement.pages, statement.parameter_sets)
    assert len(recorded.executions) > 2


@pytest.mark.exhaustive
def test_every_reading_of_an_open_recording_is_safe_under_traffic(make_engine, sqlite_url, monkeypatch):
    monkeypatch.setattr(recording, "MAX_EXECUTIONS", 500)
    engine = make_engine(sqlite_url(), poolclass=sa.NullPool)
    done = threading.Event()
    ran = []

    def traffic(number):
        turn = 0
        while not done.is_set():
            turn += 1
            with engine.connect() as connection:
                # New statements all the time: what a reader walks over grows under it.
                connection.exec_driver_sql(f"select 1 as c_{number}_{turn % 200}")
        ran.append(turn)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with sqlprobe.record(settings=sqlprobe.Settings()) as recorded:
            threads = [threading.Thread(target=traffic, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            last = 0
            for _ in range(10):
                assert last <= recorded.calls
                last = sum(item.calls for item in recorded.statements)
                assert last <= recorded.report().total_calls
                assert recorded.seconds >= 0
                assert len(recorded.executions) >= min(last, recording.MAX_EXECUTIONS)
            done.set()
            for thread in threads:
                thread.join()
    finally:
        done.set()
        sys.setswitchinterval(before)

    assert sum(ran) == recorded.calls == sum(item.calls for item in recorded.statements)
