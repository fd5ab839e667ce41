"""Suites to run the plugin over: in this process where that is sound, for a process of its own takes a second."""

from __future__ import annotations

import pytest

# Loaded once: a run inside this process takes what it imported away with it.
import sqlprobe.pytest_plugin.session  # noqa: F401 - see above
from sqlprobe import capture

# What asks the database that the environment names: `ask("city = :city", city="x")` its table `place`.
ASK = """
import os


def engine(driver="psycopg"):
    return sa.create_engine(os.environ["PLACES"].replace("psycopg", driver), poolclass=sa.pool.NullPool)


def ask(condition, table="place", **values):
    with engine().connect() as connection:
        return connection.execute(sa.text(f"SELECT * FROM {table} WHERE {condition}"), values).all()

"""
SHOP = """
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column, relationship, selectinload
from sqlalchemy.pool import StaticPool


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id = mapped_column(sa.Integer, primary_key=True)
    items = relationship("Item")


class Item(Base):
    __tablename__ = "item"
    id = mapped_column(sa.Integer, primary_key=True)
    order_id = mapped_column(sa.ForeignKey("orders.id"))


def connect(orders=5):
    engine = sa.create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    Base.metadata.create_all(engine)
    fill(engine, orders)
    return engine


def fill(engine, orders):
    with Session(engine) as session, session.begin():
        session.execute(sa.delete(Item))
        session.execute(sa.delete(Order))
        session.add_all([Order(items=[Item(), Item()]) for _ in range(orders)])


def slowly(engine):
    with Session(engine) as session:
        orders = session.scalars(sa.select(Order)).all()
        return [len(order.items) for order in orders]


def quickly(engine):
    with Session(engine) as session:
        orders = session.scalars(sa.select(Order).options(selectinload(Order.items))).all()
        return [len(order.items) for order in orders]


async def connect_async(orders=5):
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await fill_async(engine, orders)
    return engine


async def fill_async(engine, orders):
    async with AsyncSession(engine) as session, session.begin():
        session.add_all([Order(items=[Item(), Item()]) for _ in range(orders)])


async def slowly_async(engine):
    def read(session):
        return [len(order.items) for order in session.scalars(sa.select(Order)).all()]

    async with AsyncSession(engine) as session:
        return await session.run_sync(read)
"""

FIXTURES = """
import pytest
import shop


@pytest.fixture
def engine():
    engine = shop.connect()
    yield engine
    engine.dispose()


@pytest.fixture
def fill(engine):
    return lambda orders: shop.fill(engine, orders)
"""

HEAD = "import pytest\nimport shop\nimport sqlalchemy as sa\n\n\n"
LAZY = "lazy load of Order.items ran 5 times at shop.py:"


@pytest.fixture
def suite(pytester, monkeypatch):
    """
    `suite(tests, *arguments)`: the result of a run over them, beside a module `shop` and a fixture `engine`.

    *isolated* runs it in a process of its own; *plugins* are entry points that are loaded there beside the plugin.
    *asks* puts `ask()` and `engine()` in front of the tests, on the PostgreSQL of the variable PLACES.
    """
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    pytester.makepyfile(shop=SHOP)
    pytester.makeconftest(FIXTURES)

    def run(tests, *arguments, isolated=False, plugins=(), asks=False):
        if tests is not None:
            pytester.makepyfile(test_it=HEAD + ASK * asks + tests)
        loaded = [part for name in ("pytest_sqlprobe", *plugins) for part in ("-p", name)]
        options = (*loaded, "-p", "no:cacheprovider", *map(str, arguments))
        if isolated:
            return pytester.runpytest_subprocess(*options)
        pytester.syspathinsert()
        result = pytester.runpytest_inprocess(*options)

        assert () == capture.recorders  # nothing stays open

        return result

    return run
