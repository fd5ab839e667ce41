from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

import sqlprobe
from sqlprobe import ignores
from sqlprobe.budgets import load_budgets

select = sa.select


class Base(DeclarativeBase):
    pass


class Basket(Base):
    __tablename__ = "basket"
    id: Mapped[int] = mapped_column(primary_key=True)
    items: Mapped[list[Item]] = relationship()
    cards: Mapped[list[Card]] = relationship()


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    basket_id: Mapped[int] = mapped_column(sa.ForeignKey("basket.id"))


class Card(Base):
    __tablename__ = "card"
    id: Mapped[int] = mapped_column(primary_key=True)
    basket_id: Mapped[int] = mapped_column(sa.ForeignKey("basket.id"))


@pytest.fixture(autouse=True)
def forget():
    ignores.forget()
    yield
    ignores.forget()


@pytest.fixture
def session(engine):
    Base.metadata.create_all(engine)
    with Session(engine) as opened:
        opened.add_all(Basket(id=i, items=[Item()], cards=[Card()]) for i in range(1, 6))
        opened.commit()
        opened.expunge_all()
        yield opened


def read(session):
    for basket in session.scalars(select(Basket)):
        len(basket.items)
        len(basket.cards)


def found(report):
    return sorted((finding.rule, finding.label) for finding in report.findings if finding.rule != "slow-statement")


def run(engine, session, work, **settings):
    with sqlprobe.attach(engine, settings=sqlprobe.Settings(**settings)) as probe, sqlprobe.scope("work"):
        work(session)
    return probe.report()


ITEMS, CARDS = ("n-plus-one", "Basket.items"), ("n-plus-one", "Basket.cards")


@pytest.mark.parametrize(
    ("ignore", "left"),
    [
        ({"rule": "n-plus-one"}, []),
        ({"rule": "n-plus-one", "label": "Basket.items"}, [CARDS]),
        ({"rule": "n-plus-one", "label": "Basket.*"}, []),
        ({"rule": "n-plus-one", "site": "*/test_ignores.py"}, []),
        ({"rule": "n-plus-one", "site": "*test_ignores.py:read"}, []),
        ({"rule": "n-plus-one", "site": "*test_ignores.py:other"}, [CARDS, ITEMS]),
        ({"rule": "repeated-statement"}, [CARDS, ITEMS]),
    ],
)
def test_settings_ignore_by_rule_label_and_site(engine, session, ignore, left):
    report = run(engine, session, read, ignores=[{**ignore, "reason": "so it is"}])

    assert left == found(report)


def test_ignore_as_context_manager_takes_what_runs_inside(engine, session):
    def work(session):
        with sqlprobe.ignore("n-plus-one", label="Basket.items", reason="two at most"):
            read(session)

    assert [CARDS] == found(run(engine, session, work))


def test_ignore_around_each_row_is_enough(engine, session):
    @sqlprobe.ignore("n-plus-one", label="Basket.items", reason="two at most")
    def count(basket):
        return len(basket.items)

    def work(session):
        for basket in session.scalars(select(Basket)):
            count(basket)

    report = run(engine, session, work)
    assert ([], 6) == (found(report), sum(statement.calls for statement in report.statements))


def test_statement_outside_is_told(engine, session):
    def work(session):
        with sqlprobe.ignore("n-plus-one", reason="two at most"):
            pass
        read(session)

    assert [CARDS, ITEMS] == found(run(engine, session, work))


def test_ignored_queries_are_known_as_origins(engine, session):
    def work(session):
        with sqlprobe.ignore("repeated-statement", reason="once"):
            baskets = session.scalars(select(Basket)).all()
        for basket in baskets:
            len(basket.items)

    (finding,) = [f for f in run(engine, session, work).findings if f.rule == "n-plus-one"]
    assert "test_ignored_queries" in finding.origin.function


def test_loops_writes_and_budgets_are_ignored_too(engine, session):
    def work(session):
        with (
            sqlprobe.ignore("repeated-statement", label="basket", reason="a cache"),
            sqlprobe.ignore("duplicate-statement", label="item", reason="polls"),
            sqlprobe.ignore("write-loop", reason="each by itself"),
            sqlprobe.ignore("query-budget", reason="an export"),
        ):
            for number in range(5):
                session.execute(select(Basket.id).where(Basket.id == number))
                session.execute(select(Item.id).where(Item.id == 1))
                session.execute(sa.insert(Card), {"basket_id": 1})

    assert [] == found(run(engine, session, work, budgets={"work": 1}))


def test_ignore_of_coroutines_and_their_tasks(run_async, sqlite_url):
    @sqlprobe.ignore("n-plus-one", reason="two at most")
    async def work(engine):
        from sqlalchemy.ext.asyncio import AsyncSession

        async with AsyncSession(engine) as session:
            await asyncio.create_task(session.run_sync(read))

    async def main(engine):
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(sa.insert(Basket), [{"id": i} for i in range(5)])
        with sqlprobe.record() as recording, sqlprobe.scope("work"):
            await work(engine)
        return found(recording)

    assert [] == run_async(main, sqlite_url("aiosqlite"))


def test_ignore_that_matched_nothing_is_told(engine, session):
    def work(session):
        with sqlprobe.ignore("n-plus-one", label="Basket.items", reason="used"):
            read(session)
        with sqlprobe.ignore("n-plus-one", label="Basket.cards", reason="stale"):
            session.execute(select(Basket.id))

    report = run(engine, session, work, ignores=[sqlprobe.Ignore("write-loop", label="gone", reason="long ago")])
    assert [
        "ignore('n-plus-one', label='Basket.cards', reason='stale') has matched nothing",
        "ignore('write-loop', label='gone', reason='long ago') has matched nothing",
    ] == sorted(report.notes)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rule": "n-plus-on", "reason": "x"}, "did you mean 'n-plus-one'?"),
        ({"rule": "n-plus-one", "reason": " "}, "a reason is needed"),
        ({"rule": "n-plus-one", "label": "Basket.itms", "reason": "x"}, "Basket has no attribute 'itms'"),
        ({"rule": "column-load", "label": "Basket.nix", "reason": "x"}, "Basket has no attribute 'nix'"),
        ({"rule": "seq-scan", "reason": "x"}, "give the ignore to the settings"),
        ({"rule": "n-plus-one", "label": 3, "reason": "x"}, "a string is needed"),
    ],
)
def test_ignore_that_cannot_be_is_an_error(arguments, words):
    with pytest.raises(sqlprobe.IgnoreError) as error:
        sqlprobe.ignore(**arguments)

    assert words in str(error.value)


def test_label_of_a_model_that_is_not_mapped_yet_is_taken():
    sqlprobe.ignore("n-plus-one", label="Nobody.knows", reason="later")


def test_unknown_label_in_settings_is_an_error_at_attach(engine):
    settings = sqlprobe.Settings(ignores=[sqlprobe.Ignore("n-plus-one", label="Basket.itms", reason="x")])
    with pytest.raises(sqlprobe.IgnoreError):
        sqlprobe.attach(engine, settings=settings)


@pytest.mark.parametrize("given", [[3], [{"label": "x"}], [{"rule": "n-plus-one", "why": "x"}], {"rule": "n-plus-one"}])
def test_settings_take_no_other_ignores(given):
    with pytest.raises(sqlprobe.SettingsError):
        sqlprobe.Settings(ignores=given)


def test_generator_is_not_decorated():
    with pytest.raises(sqlprobe.IgnoreError):

        @sqlprobe.ignore("n-plus-one", reason="x")
        def rows():
            yield 1


def test_ignores_and_budgets_share_a_file(tmp_path):
    path = tmp_path / "sqlprobe.toml"
    path.write_text(
        '[budgets]\n"GET /orders" = 4\n\n[[ignore]]\nrule = "n-plus-one"\nlabel = "Order.items"\nreason = "two"\n'
    )
    settings = sqlprobe.Settings.from_env(None, {"SQLPROBE_IGNORES": str(path), "SQLPROBE_BUDGETS": str(path)})

    ignore = sqlprobe.Ignore("n-plus-one", "Order.items", "", "two")
    assert ((ignore,), {"GET /orders": 4}, (ignore,), {"GET /orders": 4}) == (
        settings.ignores, settings.budgets, sqlprobe.load_ignores(path), load_budgets(path),
    )  # fmt: skip
    assert [{"rule": "n-plus-one", "label": "Order.items", "site": "", "reason": "two"}] == settings.as_json()[
        "ignores"
    ]


@pytest.mark.parametrize("text", ["[[ignore", "[ignore]\nrule = 1\n", '[[ignore]]\nlabel = "x"\n', None])
def test_file_that_cannot_be_read_says_so(tmp_path, text):
    path = tmp_path / "sqlprobe.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(sqlprobe.IgnoreError) as error:
        sqlprobe.load_ignores(path)

    assert "sqlprobe.toml" in str(error.value)
