"""
Every driver, against the real database: what capture counts is what SQLAlchemy's own `before_cursor_execute` saw.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import traceback
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

import sqlprobe
from sqlprobe import faults
from sqlprobe.fingerprint import shape_of

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.versions

SYNC = ("pysqlite", "psycopg", "psycopg2", "pg8000")
ASYNC = ("aiosqlite", "psycopg_async", "asyncpg")
DRIVERS = (*SYNC, *ASYNC)
POSTGRESQL = tuple(driver for driver in DRIVERS if "sqlite" not in driver)
OURS = f"{Path(sqlprobe.__file__).parent}{os.sep}"
PAGE = 3  # rows of one insertmanyvalues page


class Base(DeclarativeBase):
    pass


class Shelf(Base):
    __tablename__ = "shelf"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    books: Mapped[list[Book]] = relationship(order_by="Book.id")


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    shelf_id: Mapped[int] = mapped_column(sa.ForeignKey("shelf.id"))
    title: Mapped[str]


ticket = sa.Table(
    "ticket",
    Base.metadata,
    sa.Column("id", sa.Integer, sa.Sequence("ticket_id"), primary_key=True),
    sa.Column("note", sa.String),
    implicit_returning=False,  # the sequence is asked first, by a statement of its own
)


@pytest.fixture(autouse=True)
def no_faults() -> Iterator[None]:
    faults.forget()
    yield

    assert () == faults.told()


@pytest.fixture
def on_driver(request, sqlite_url, run_async):
    """`on_driver(driver, work)`: what `work(connection, engine)` returns; engine is the sync one."""

    def run(driver, work, **options):
        if "sqlite" in driver:
            url = sqlite_url(driver)
        else:
            url = request.getfixturevalue("module_postgresql_url")(driver.removesuffix("_async"))
        if driver in ASYNC:

            async def main(engine):
                async with engine.connect() as connection:
                    return await connection.run_sync(lambda inner: work(inner, engine.sync_engine))

            return run_async(main, url, **options)
        engine = sa.create_engine(url, **options)
        try:
            with engine.connect() as connection:
                return work(connection, engine)
        finally:
            engine.dispose()

    return run


def fingerprints(statements):
    return Counter(shape_of(text).fingerprint for text in statements)


def everything(connection, engine):
    """One of each kind of statement; what is in the database afterwards was there before."""
    with connection.begin():
        Base.metadata.create_all(connection)
        sa.inspect(connection).get_columns("book")
        connection.execute(sa.insert(Shelf), {"id": 1, "name": "one"})
        connection.execute(sa.insert(Shelf), [{"id": i, "name": str(i)} for i in range(2, 6)])
        connection.execute(sa.update(Shelf.__table__).where(Shelf.id == sa.bindparam("key")), [
            {"key": 1, "name": "first"}, {"key": 2, "name": "second"},
        ])  # fmt: skip
        books = [{"id": i, "shelf_id": 1 + i % 5, "title": f"book {i}"} for i in range(1, 11)]
        assert 10 == len(connection.execute(sa.insert(Book).returning(Book.id), books).all())
        connection.execute(sa.text("select count(*) from book where shelf_id = :shelf"), {"shelf": 1}).scalar_one()
        connection.exec_driver_sql("select 'a' || 'b'").scalar_one()
        connection.exec_driver_sql(
            "select 100 % 7", execution_options={"no_parameters": engine.dialect.name == "postgresql"}
        ).scalar_one()
        for size in (1, 3):
            connection.execute(sa.select(Book.title).where(Book.id.in_(range(1, 1 + size)))).all()
        connection.execute(sa.insert(ticket), {"note": "the sequence gives the key"})
        connection.execute(sa.insert(ticket), {"note": "and the next"})
        if engine.dialect.name == "postgresql":
            connection.scalar(sa.Sequence("ticket_id"))
        with contextlib.suppress(sa.exc.DBAPIError), connection.begin_nested():
            connection.execute(sa.text("select nothing from nowhere"))
        streamed = {"stream_results": True, "yield_per": 2}
        with connection.execute(sa.select(Book.id), execution_options=streamed) as result:
            assert [2] * 5 == [len(part) for part in result.partitions()]
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            for shelf in session.scalars(sa.select(Shelf)):
                assert 2 == len(shelf.books)
            session.scalars(
                sa.select(Shelf).options(selectinload(Shelf.books)), execution_options={"yield_per": 2}
            ).all()
            session.add(Shelf(id=6, name="six", books=[Book(id=11, title="new")]))
            session.commit()
    with connection.begin():
        Base.metadata.drop_all(connection)


@pytest.mark.parametrize("driver", DRIVERS)
def test_counts_what_before_cursor_execute_sees(driver, on_driver):
    def work(connection, engine):
        seen = []
        sa.event.listen(engine, "before_cursor_execute", lambda _c, _cursor, statement, *_: seen.append(statement))
        with sqlprobe.attach(engine) as probe:
            everything(connection, engine)
        return seen, probe.report().statements

    seen, statements = on_driver(driver, work, insertmanyvalues_page_size=PAGE)

    assert fingerprints(seen) == Counter({item.fingerprint: item.pages for item in statements})


@pytest.mark.parametrize("driver", DRIVERS)
def test_recording_counts_what_before_cursor_execute_sees(driver, on_driver):
    def work(connection, engine):
        seen = []
        sa.event.listen(engine, "before_cursor_execute", lambda _c, _cursor, statement, *_: seen.append(statement))
        with sqlprobe.record() as recording:
            everything(connection, engine)
        return seen, recording

    seen, recording = on_driver(driver, work, insertmanyvalues_page_size=PAGE)

    assert fingerprints(seen) == Counter({item.fingerprint: item.pages for item in recording.statements})
    assert fingerprints(seen) == sum(
        (Counter({item.fingerprint: item.pages}) for item in recording.executions), start=Counter()
    )
    assert recording.calls == len(recording.executions)


@pytest.mark.parametrize("driver", POSTGRESQL)
def test_a_sequence_is_a_statement_of_its_own(driver, on_driver):
    def work(connection, engine):
        with connection.begin():
            ticket.create(connection)
            with sqlprobe.attach(engine) as probe:
                for note in "xy":
                    connection.execute(sa.insert(ticket), {"note": note})
                connection.scalar(sa.Sequence("ticket_id"))
            ticket.drop(connection)
        return probe.report().statements

    statements = on_driver(driver, work)

    assert {"INSERT": 2, "SELECT": 3} == {item.operation.upper(): item.calls for item in statements}


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_default_that_needs_sql_is_a_statement_of_its_own(driver, on_driver):
    row = sa.Table(
        "row",
        sa.MetaData(),
        sa.Column("id", sa.Integer, default=sa.select(sa.literal(40) + 2).scalar_subquery(), primary_key=True),
        sa.Column("note", sa.String),
        implicit_returning=False,
    )

    def work(connection, engine):
        with connection.begin():
            row.create(connection)
            with sqlprobe.attach(engine) as probe:
                connection.execute(sa.insert(row), {"note": "x"})
            row.drop(connection)
        return probe.report().statements

    statements = on_driver(driver, work)

    assert Counter({"INSERT": 1, "SELECT": 1}) == Counter({item.operation.upper(): item.calls for item in statements})


@pytest.mark.parametrize("driver", DRIVERS)
def test_insertmanyvalues_is_one_call_with_pages(driver, on_driver):
    def work(connection, engine):
        with connection.begin():
            Base.metadata.create_all(connection)
            with sqlprobe.attach(engine) as probe:
                rows = [{"id": i, "name": str(i)} for i in range(8)]
                connection.execute(sa.insert(Shelf.__table__).returning(Shelf.id), rows)
            Base.metadata.drop_all(connection)
        return probe.report().statements

    [statement] = on_driver(driver, work, insertmanyvalues_page_size=PAGE)

    assert (1, 3, 8, 1) == (
        statement.calls, statement.pages, statement.parameter_sets, sum(statement.histogram)
    )  # fmt: skip


@pytest.mark.parametrize("driver", DRIVERS)
def test_executemany_is_one_call_with_parameter_sets(driver, on_driver):
    def work(connection, engine):
        with connection.begin():
            Base.metadata.create_all(connection)
            connection.execute(sa.insert(Shelf.__table__), [{"id": i, "name": str(i)} for i in range(5)])
            with sqlprobe.attach(engine) as probe:
                connection.execute(
                    sa.delete(Shelf.__table__).where(Shelf.id == sa.bindparam("key")), [{"key": i} for i in range(4)]
                )
            Base.metadata.drop_all(connection)
        return probe.report().statements

    [statement] = on_driver(driver, work)

    assert (1, 1, 4, 1) == (
        statement.calls, statement.pages, statement.parameter_sets, sum(statement.histogram)
    )  # fmt: skip


# Rows of a SELECT of 3, an UPDATE of 2, and an INSERT of one: None where the driver cannot tell without fetching.
ROWS = {
    "pysqlite": (None, 2, 1),
    "aiosqlite": (None, 2, 1),
    "psycopg": (3, 2, 1),
    "psycopg_async": (3, 2, 1),
    "psycopg2": (3, 2, 1),
    "pg8000": (3, 2, 1),
    "asyncpg": (3, 2, 1),
}


@pytest.mark.parametrize("driver", DRIVERS)
def test_rows_are_told_where_the_driver_tells_them(driver, on_driver):
    def work(connection, engine):
        with connection.begin():
            Base.metadata.create_all(connection)
            connection.execute(sa.insert(Shelf.__table__), [{"id": i, "name": str(i)} for i in range(3)])
            probe = sqlprobe.attach(engine)
            connection.execute(sa.select(Shelf.id)).all()
            connection.execute(sa.update(Shelf.__table__).where(Shelf.id < 2).values(name="x"))
            connection.execute(sa.insert(Shelf.__table__).inline(), {"id": 9, "name": "x"})
            probe.detach()
            Base.metadata.drop_all(connection)
        return {item.operation.upper(): item.rows for item in probe.report().statements}

    assert dict(zip(("SELECT", "UPDATE", "INSERT"), ROWS[driver], strict=True)) == on_driver(driver, work)


@pytest.mark.parametrize("driver", DRIVERS)
def test_insert_returning_never_tells_no_rows(driver, on_driver):
    """sqlite3 says 0 rows of an INSERT ... RETURNING until they are fetched: 0 would be false."""

    def work(connection, engine):
        with connection.begin():
            Base.metadata.create_all(connection)
            with sqlprobe.attach(engine) as probe:
                connection.execute(sa.insert(Shelf.__table__).returning(Shelf.name), {"id": 9, "name": "x"}).all()
            Base.metadata.drop_all(connection)
        return [item.rows for item in probe.report().statements]

    assert on_driver(driver, work) in ([None], [1])


@pytest.mark.parametrize("driver", DRIVERS)
def test_failing_statement_is_counted_by_sqlstate_or_class(driver, on_driver):
    def work(connection, engine):
        with sqlprobe.attach(engine) as probe:
            for text in ("select * from nowhere", "select * from nowhere", "select 1"):
                with contextlib.suppress(sa.exc.DBAPIError), connection.begin():
                    connection.execute(sa.text(text))
        return {item.text: (item.calls, dict(item.errors)) for item in probe.report().statements}

    error = "OperationalError" if "sqlite" in driver else "42P01"

    assert {"select * from nowhere": (2, {error: 2}), "select ?": (1, {})} == on_driver(driver, work)


@pytest.mark.parametrize("driver", DRIVERS)
def test_failing_executemany_is_counted_once(driver, on_driver):
    def work(connection, engine):
        with connection.begin():
            Base.metadata.create_all(connection)
        with sqlprobe.attach(engine) as probe, contextlib.suppress(sa.exc.DBAPIError), connection.begin():
            connection.exec_driver_sql(
                "insert into shelf (id, name) values (1, 'x'), (1, 'y')"
                if driver == "asyncpg"
                else "insert into shelf (id, name) values (1, 'x')",
                [{}, {}] if driver in {"psycopg", "psycopg_async", "psycopg2"} else [(), ()],
            )
        with connection.begin():
            Base.metadata.drop_all(connection)
        return [(item.calls, item.parameter_sets, dict(item.errors)) for item in probe.report().statements]

    error = "IntegrityError" if "sqlite" in driver else "23505"

    assert [(1, 2, {error: 1})] == on_driver(driver, work)


def _raised(connection, text):
    """What a user sees of a failing statement: types, texts, causes, and the traceback without our frames."""
    try:
        with connection.begin():
            connection.execute(sa.text(text))
    except sa.exc.DBAPIError as error:
        chain = []
        link = error
        while link is not None:
            frames = [
                (frame.filename, frame.name, frame.lineno)
                for frame in traceback.extract_tb(link.__traceback__)
                if not frame.filename.startswith(OURS)
            ]
            # The line in SQLAlchemy that called the driver is the one of a loop over handlers when there are any.
            chain.append((type(link), str(link), repr(link.args), [frame[:2] for frame in frames], frames[-1]))
            link = link.__cause__
        return chain, error.orig.__class__, error.statement, error.params, error.connection_invalidated
    pytest.fail("the statement was to fail")
    return None


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_users_exception_is_the_one_without_us(driver, on_driver):
    def work(connection, engine):
        seen = [_raised(connection, "select 1 from nowhere")]
        with sqlprobe.attach(engine), sqlprobe.record(), sqlprobe.scope("x"):
            seen.append(_raised(connection, "select 1 from nowhere"))
        return seen

    alone, observed = on_driver(driver, work)

    assert alone == observed


@pytest.mark.parametrize("driver", DRIVERS)
def test_first_connect_and_pre_ping_are_not_counted(driver, request, sqlite_url, run_async):
    if "sqlite" in driver:
        url = sqlite_url(driver)
    else:
        url = request.getfixturevalue("module_postgresql_url")(driver.removesuffix("_async"))
    one = sa.text("select 1")
    with sqlprobe.attach() as probe:
        if driver in ASYNC:

            async def main(engine):
                for _ in range(3):
                    async with engine.connect() as connection:
                        await connection.execute(one)

            run_async(main, url, pool_pre_ping=True)
        else:
            engine = sa.create_engine(url, pool_pre_ping=True)
            for _ in range(3):
                with engine.connect() as connection:
                    connection.execute(one)
            engine.dispose()

    assert {"select ?": 3} == {item.text: item.calls for item in probe.report().statements}


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg_async"])
@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_cancelled_statement_is_counted_and_stays_cancelled(driver, how, module_postgresql_url, run_async):
    async def main(engine):
        async def sleep():
            async with engine.connect() as connection:
                await connection.execute(sa.text("select pg_sleep(60)"))

        async with engine.connect() as connection:
            await connection.execute(sa.text("select 1"))
        with sqlprobe.attach(engine) as probe:
            if how == "cancel":
                task = asyncio.create_task(sleep())
                watching = module_postgresql_url("psycopg")
                await asyncio.to_thread(_wait_for_sleeper, watching)
                task.cancel()
                [result] = await asyncio.gather(task, return_exceptions=True)
            else:
                try:
                    async with asyncio.timeout(0.2):
                        await sleep()
                except TimeoutError as error:
                    result = error
        return type(result), [(item.calls, dict(item.errors)) for item in probe.report().statements]

    raised, statements = run_async(main, module_postgresql_url(driver.removesuffix("_async")))

    assert asyncio.CancelledError if how == "cancel" else TimeoutError is raised
    assert [(1, {"CancelledError": 1})] == statements


def _wait_for_sleeper(url):
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    asked = sa.text("select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.scalar(asked):
            pass


@pytest.mark.parametrize("driver", DRIVERS)
def test_no_fault_and_no_growth_over_many_engines(driver, on_driver):
    """Every driver's dialect can be watched and forgotten."""

    def work(connection, engine):
        with sqlprobe.attach(engine) as probe:
            connection.execute(sa.text("select 1"))
        return [item.engine for item in probe.report().statements]

    [name] = on_driver(driver, work)

    assert name.startswith(f"{'sqlite' if 'sqlite' in driver else 'postgresql'}+{driver.removesuffix('_async')}://")
