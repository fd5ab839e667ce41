"""Scale tests: the count must not grow with the data. By function, by marker; sync and async."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column, relationship, selectinload

import sqlprobe


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


@pytest.fixture
def engine(make_engine):
    engine = make_engine(poolclass=sa.StaticPool)
    Base.metadata.create_all(engine)
    return engine


@pytest.fixture
def populate(engine):
    def populate(size):
        with Session(engine) as session, session.begin():
            session.execute(sa.delete(Item))
            session.execute(sa.delete(Order))
            session.add_all([Order(items=[Item(), Item()]) for _ in range(size)])

    return populate


@pytest.fixture
def slow_page(engine):
    def slow_page():
        with Session(engine) as session:
            session.scalar(sa.select(sa.func.count(Order.id)))
            for order in session.scalars(sa.select(Order)).all():
                order.items  # noqa: B018

    return slow_page


@pytest.fixture
def quick_page(engine):
    def quick_page():
        with Session(engine) as session:
            session.scalars(sa.select(Order).options(selectinload(Order.items))).all()

    return quick_page


def test_constant_action_passes_and_tells_its_counts(populate, quick_page):
    growths = sqlprobe.assert_constant(populate, quick_page)

    assert [(1, 1), (1, 1)] == [each.counts for each in growths]
    assert [0, 0] == [each.grew for each in growths]


def test_growing_action_fails_with_table_line_and_fix(populate, slow_page):
    with pytest.raises(AssertionError) as caught:
        sqlprobe.assert_constant(populate, slow_page)

    lines = str(caught.value).splitlines()
    assert sqlprobe.CheckError is caught.type
    assert (
        "slow_page runs more statements when there is more data: 3 statements more for 3 more (none may grow)."
        == lines[0]
    )
    assert ["size", "2", "5"] == lines[2].split()
    assert lines[3].startswith("          2  5   SELECT item.id")
    assert "test_scale.py:" in lines[4]
    assert "  2 other statements did not grow" == lines[6]
    assert "      select(Order).options(selectinload(Order.items))" == lines[-1]


def test_every_size_is_populated_and_run_and_the_first_is_warmed_up(populate):
    done = []

    sqlprobe.assert_constant(done.append, lambda: done.append("run"), sizes=(1, 3, 9), zero_ok=True)

    assert [1, "run", "run", 3, "run", 9, "run"] == done


def test_what_only_the_first_call_runs_is_not_held_against_it(populate, engine):
    seen = []

    def action():
        with engine.connect() as connection:
            if not seen:
                connection.execute(sa.text("select 'catalog'"))
            seen.append(1)
            connection.execute(sa.text("select 1"))

    assert [(1, 1)] == [each.counts for each in sqlprobe.assert_constant(populate, action)]


def test_growth_is_not_hidden_by_another_statement_that_ran_less(populate, engine):
    runs = iter((9, 9, 2))  # a cache that fills, beside an N+1
    sizes = []

    def action():
        with engine.connect() as connection:
            for _ in range(next(runs)):
                connection.execute(sa.text("select 1 as cached"))
            for _ in range(sizes[-1]):
                connection.execute(sa.text("select 1"))

    with pytest.raises(AssertionError, match="3 statements more for 3 more"):
        sqlprobe.assert_constant(sizes.append, action)


def test_linear_growth_is_allowed_by_a_slope(populate, slow_page):
    sqlprobe.assert_constant(populate, slow_page, slope=1)

    with pytest.raises(AssertionError, match=r"3 statements more for 3 more \(slope 0.5 allows 1.5\)"):
        sqlprobe.assert_constant(populate, slow_page, slope=0.5)


def test_sizes_that_add_up(engine, slow_page):
    def add(size):
        with Session(engine) as session, session.begin():
            session.add_all([Order() for _ in range(size)])

    growths = sqlprobe.assert_constant(add, slow_page, cumulative=True, slope=1)

    assert [5, 0, 0] == [each.grew for each in growths]  # from 2 to 7


def test_an_action_without_statements_is_vacuous(populate):
    def action():
        pass

    with pytest.raises(AssertionError, match=r"action ran no statement at any size \(2, 5\): nothing was tested"):
        sqlprobe.assert_constant(populate, action)

    assert () == sqlprobe.assert_constant(populate, action, zero_ok=True)


def test_a_shared_session_is_emptied_before_each_run(engine):
    """The session of a test that wraps everything in one transaction holds what was populated, collections included."""
    with Session(engine) as session:
        held = []

        def populate(size):
            held.extend(Order(items=[Item()]) for _ in range(size))
            session.add_all(held)
            session.flush()

        def action():
            return [len(order.items) for order in session.scalars(sa.select(Order))]

        sqlprobe.assert_constant(populate, action)  # passes: nothing needed to be loaded

        with pytest.raises(AssertionError, match="runs more statements"):
            sqlprobe.assert_constant(populate, action, session=session)


@pytest.mark.parametrize("sizes", [(), (3,), (5, 2), (2, 2), (0, 2), (2, 2.5), (True, 2), 5, "25"])
def test_sizes_that_cannot_be(populate, slow_page, sizes):
    with pytest.raises(sqlprobe.GrowthError, match="two or more different whole numbers are needed, smallest first"):
        sqlprobe.assert_constant(populate, slow_page, sizes=sizes)


@pytest.mark.parametrize("slope", [-1, "1", True, float("nan")])
def test_slopes_that_cannot_be(populate, slow_page, slope):
    with pytest.raises(sqlprobe.GrowthError, match="a number of statements from 0 on is needed"):
        sqlprobe.assert_constant(populate, slow_page, slope=slope)


def test_an_error_of_the_users_comes_through_and_nothing_stays_open(populate):
    def action():
        raise KeyError("own")

    with pytest.raises(KeyError, match="own"):
        sqlprobe.assert_constant(populate, action)

    from sqlprobe import capture

    assert () == capture.recorders


def test_async_functions_are_awaited(populate, slow_page, quick_page):
    async def populate_async(size):
        await asyncio.sleep(0)
        populate(size)

    async def slow():
        await asyncio.sleep(0)
        slow_page()

    async def quick():
        quick_page()

    async def main():
        assert [(1, 1), (1, 1)] == [each.counts for each in await sqlprobe.assert_constant(populate_async, quick)]
        await sqlprobe.assert_constant(populate, quick)
        await sqlprobe.assert_constant(populate_async, quick_page)
        with pytest.raises(AssertionError, match="slow runs more statements"):
            await sqlprobe.assert_constant(populate_async, slow)
        with pytest.raises(ZeroDivisionError):
            await sqlprobe.assert_constant(populate_async, fail)

    async def fail():
        raise ZeroDivisionError

    asyncio.run(main())
    asyncio.run(sqlprobe.assert_constant(populate_async, quick))


def test_a_marker_runs_the_test_at_each_size(suite):
    result = suite(
        """
@pytest.mark.sqlprobe(populate="fill")
def test_slow(engine):
    shop.slowly(engine)

@pytest.mark.sqlprobe(populate="fill", sizes=(1, 4))
def test_quick(engine):
    shop.quickly(engine)

@pytest.mark.sqlprobe(populate="fill", slope=1)
def test_linear(engine):
    shop.slowly(engine)

@pytest.mark.sqlprobe(populate="fill")
def test_vacuous(engine):
    pass

@pytest.mark.sqlprobe(populate="fill")
def test_own_failure(engine):
    shop.slowly(engine)
    assert "own" == "failure"

@pytest.mark.sqlprobe(populate="no_such_fixture")
def test_unknown_fixture(engine):
    pass
""",
    )

    result.assert_outcomes(passed=2, failed=3, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*fixture 'no_such_fixture' not found",
            "test_slow runs more statements when there is more data: 3 statements more for 3 more (none may grow).",
            "  size    2  5",
            "          2  5   SELECT item.id* FROM item WHERE *",
            "test_vacuous ran no statement at any size (2, 5): nothing was tested.",
            "E*assert 'own' == 'failure'",
        ]
    )


def test_a_marker_takes_a_function_too(suite):
    result = suite(
        """
SIZES = []

@pytest.mark.sqlprobe(populate=SIZES.append, sizes=(2, 3), zero_ok=True)
def test_it():
    pass

def test_sizes():
    assert [2, 3] == SIZES
""",
    )

    result.assert_outcomes(passed=2)


def test_a_marker_cannot_await(suite):
    result = suite(
        """
async def populate(size):
    pass

@pytest.mark.sqlprobe(populate=populate)
def test_it():
    pass
""",
    )

    assert 4 == result.ret
    result.stderr.fnmatch_lines(
        ["*an async populate cannot be awaited by a marker; write `await sqlprobe.assert_constant*"]
    )


def test_a_scale_test_that_nobody_awaits_fails(suite):
    result = suite(
        """
import sqlprobe

def test_it(engine):
    async def action():
        shop.slowly(engine)

    sqlprobe.assert_constant(lambda size: None, action)
""",
        "-Wignore",
    )

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["test_it: an async sqlprobe.assert_constant() was never awaited, so it tested nothing."]
    )
