"""What the corpus in tests/accuracy does not show: keys, words, bounds, budgets, windows, and who is not accused."""

from __future__ import annotations

import contextlib

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column, relationship

import sqlprobe
from sqlprobe import detectors, faults, scopes
from sqlprobe.detectors import telling
from sqlprobe.fingerprint import shape_of

pytestmark = pytest.mark.versions

select = sa.select
SECRET = "do-not-tell-4711"


class Base(DeclarativeBase):
    pass


class Cust(Base):
    __tablename__ = "cust"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    orders: Mapped[list[Ord]] = relationship()
    notes: Mapped[list[Note]] = relationship()


class Ord(Base):
    __tablename__ = "ord"
    id: Mapped[int] = mapped_column(primary_key=True)
    cust_id: Mapped[int] = mapped_column(sa.ForeignKey("cust.id"))


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    cust_id: Mapped[int] = mapped_column(sa.ForeignKey("cust.id"))


@pytest.fixture(autouse=True)
def nothing_fails():
    faults.forget()
    yield
    assert ((), []) == (faults.told(), scopes.open_scopes())


@pytest.fixture
def session(engine):
    Base.metadata.create_all(engine)
    with Session(engine) as opened:
        opened.add_all(Cust(id=i, name=f"c{i}", orders=[Ord(), Ord()], notes=[Note()]) for i in range(1, 21))
        opened.commit()
        opened.expunge_all()
        yield opened


@pytest.fixture
def findings_of(engine):
    """`with findings_of(**settings) as found`: a scope as in production; afterwards *found* holds what a probe told."""

    @contextlib.contextmanager
    def observe(name="work", **settings):
        found = []
        with sqlprobe.attach(engine, settings=sqlprobe.Settings(**settings)) as probe:
            with sqlprobe.scope(name):
                yield found
            found.extend(finding for finding in probe.report().findings if finding.rule != "slow-statement")

    return observe


def brief(found):
    return sorted((finding.rule, finding.label, finding.count) for finding in found)


def look_up(session, numbers):
    return [session.get(Cust, number) for number in numbers]


# --- repeated-statement and duplicate-statement -------------------------------------------------------------------------


def test_lookup_in_a_loop_is_told_with_the_query_for_all(session, findings_of):
    with findings_of() as found:
        look_up(session, range(1, 6))

    (finding,) = found
    code = "session.scalars(select(Cust).where(Cust.id.in_(ids))).all()"
    assert {
        "severity": "warning",
        "title": f"SELECT cust ran 5 times with different parameters at {finding.site.file}:{finding.site.line}",
        "advice": "load them with one query before the loop, in its session, and keep the result",
        "key": "repeated-statement|SELECT cust by id|work|look_up.<locals>.<listcomp>",
        "codes": [code],
        "evidence": {"distinct_parameters": 5, "statements_in_scope": 5, "share_of_scope": 1.0},
    } == {
        "severity": finding.severity,
        "title": finding.title,
        "advice": finding.advice,
        "key": finding.key.replace("|look_up", "|look_up.<locals>.<listcomp>")
        if finding.key.endswith("look_up")  # from CPython 3.12 on a comprehension is a part of its function
        else finding.key,
        "codes": [fix.code for fix in finding.fixes],
        "evidence": finding.evidence,
    }


def test_two_loops_of_one_function_are_two_findings(session, findings_of):
    """Over one table, by another column each: a baseline that has one does not hide the other."""

    with findings_of() as found:
        for i in range(1, 6):
            session.execute(select(Ord.id).where(Ord.id == i)).all()
        for i in range(1, 6):
            session.execute(select(Ord.id).where(Ord.cust_id == i)).all()

    assert [("repeated-statement", "ord", 5)] * 2 == brief(found)
    assert 2 == len({each.key for each in found})


@pytest.mark.parametrize(
    ("condition", "by"),
    [
        ("ord.id = ?", " by id"),
        ('ord_1."id" = ?', " by id"),  # an alias is none of it
        ("? = ord.cust_id", " by cust_id"),  # as a relationship's criterion has it
        ("ord.id IN (?) AND ord.cust_id = ? ORDER BY ord.made", " by cust_id, id"),
        ("ord.made IS NULL", ""),
    ],
)
def test_identity_has_the_columns_that_are_compared(condition, by):
    shape = shape_of(f"SELECT ord.id, ord.made FROM ord WHERE {condition}")

    assert f"rule|SELECT ord{by}|work|{shape.fingerprint}" == telling.key("rule", shape, "work", None)


LOOKUPS = {
    "a condition more": lambda i: select(Ord).where(Ord.cust_id == i, Ord.id > 0),
    "either": lambda i: select(Ord).where((Ord.cust_id == i) | (Ord.id == i)),
    "another comparison": lambda i: select(Ord).where(Ord.cust_id != i),
    "a function of the column": lambda i: select(Cust).where(sa.func.lower(Cust.name) == f"c{i}"),
    "the first of several": lambda i: select(Ord).where(Ord.cust_id == i).limit(1),
    "an offset": lambda i: select(Ord).where(Ord.cust_id == i).offset(1),
    "distinct": lambda i: select(Ord.cust_id).where(Ord.cust_id == i).distinct(),
    "grouped": lambda i: select(Ord.id, sa.func.count()).where(Ord.cust_id == i).group_by(Ord.id),
    "a join": lambda i: select(Ord).join(Note, Note.cust_id == Ord.cust_id).where(Ord.cust_id == i),
    "a join below": lambda i: select(Ord).select_from(sa.join(Ord, Cust)).where(Ord.cust_id == i),
    "an alias": lambda i: select(OTHER).where(OTHER.cust_id == i),
    "options": lambda i: select(Cust).where(Cust.id == i).options(sa.orm.selectinload(Cust.orders)),
    "an order that is worked out": lambda i: select(Ord).where(Ord.cust_id == i).order_by(Ord.id + 1),
    "an order by another table": lambda i: select(Ord).where(Ord.cust_id == i).order_by(sa.text("1")),
    "an expression": lambda i: select(Ord.id + i).where(Ord.cust_id == i),
    "a function and a column": lambda i: select(Ord.id, sa.func.max(Ord.id)).where(Ord.cust_id == i),
    "a function of two": lambda i: select(sa.func.coalesce(Ord.id, 0)).where(Ord.cust_id == i),
    "a function of what is distinct": lambda i: select(sa.func.count(Ord.id.distinct())).where(Ord.cust_id == i),
    "a union": lambda i: sa.union(select(Ord.id).where(Ord.cust_id == i), select(Note.id)),
    "a count of some": lambda i: select(sa.func.count()).select_from(
        select(Ord.id).where(Ord.cust_id == i).limit(2).subquery()
    ),
    "its own text": lambda i: select(Ord).from_statement(
        sa.text("SELECT * FROM ord WHERE cust_id = :i").bindparams(i=i)
    ),
    "a criterion for all": lambda i: (
        select(Ord).where(Ord.cust_id == i).options(sa.orm.with_loader_criteria(Ord, Ord.id > 0))
    ),
}
OTHER = aliased(Ord)


@pytest.mark.parametrize("what", LOOKUPS)
def test_query_that_is_more_than_a_lookup_is_not_written_anew(session, findings_of, what):
    with findings_of() as found:
        for number in range(1, 6):
            session.execute(LOOKUPS[what](number)).all()

    told = [finding for finding in found if finding.rule == "repeated-statement"]
    assert [()] == [finding.fixes for finding in told]
    assert "(" not in told[0].advice.replace("selectinload()", "")


def test_criterion_that_an_event_adds_is_not_lost_in_a_rewrite(session, findings_of):
    def add(state):
        state.statement = state.statement.options(sa.orm.with_loader_criteria(Ord, Ord.id > 0))

    sa.event.listen(session, "do_orm_execute", add)
    with findings_of() as found:
        for number in range(1, 6):
            session.scalars(select(Ord).where(Ord.cust_id == number)).all()

    assert [()] == [finding.fixes for finding in found]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        (
            lambda i: select(Ord).where(Ord.cust_id == i).order_by(Ord.id),
            "select(Ord).where(Ord.cust_id.in_(values)).order_by(Ord.id)",
        ),
        (
            lambda i: select(Ord).where(Ord.cust_id == i).order_by(Ord.id.desc().nulls_last(), Ord.cust_id),
            "select(Ord).where(Ord.cust_id.in_(values)).order_by(Ord.id.desc().nulls_last(), Ord.cust_id)",
        ),
        (
            lambda i: select(Ord.id).where(i == Ord.cust_id),
            "select(Ord.cust_id, Ord.id).where(Ord.cust_id.in_(values))",
        ),
        (lambda i: select(Cust).where(Cust.id == i).limit(1), "select(Cust).where(Cust.id.in_(values))"),
        (
            lambda i: select(sa.func.count().label("n"), sa.func.max(Ord.id)).where(Ord.cust_id == i),
            "select(Ord.cust_id, func.count(), func.max(Ord.id)).where(Ord.cust_id.in_(values)).group_by(Ord.cust_id)",
        ),
    ],
)
def test_lookup_by_one_column_is_written_as_one_query_for_all(session, findings_of, query, code):
    with findings_of() as found:
        for number in range(1, 6):
            session.execute(query(number)).all()

    (finding,) = found
    assert ("repeated-statement", [code]) == (finding.rule, [fix.code for fix in finding.fixes])
    assert finding.advice.startswith("ask for all of them with one query before the loop")


def test_core_statements_in_production_are_told_from_five_on(session, findings_of):
    """There the line of the first call is looked up, and that of each that is the slowest so far."""
    connection = session.connection()

    def read(times):
        for number in range(times):
            connection.execute(sa.text("SELECT name FROM cust WHERE id = :id"), {"id": number})

    with findings_of() as five:
        read(5)
    with findings_of(call_sites="off") as nowhere:
        read(9)
    with findings_of(call_sites="off") as ten:
        read(10)

    assert ([("repeated-statement", "cust", 5)], [], [("repeated-statement", "cust", 10)]) == (
        brief(five), brief(nowhere), brief(ten),
    )  # fmt: skip


def test_threshold_is_of_calls(session, findings_of):
    with findings_of(loop_threshold=6) as below:
        look_up(session, range(1, 6))
    session.expunge_all()
    with findings_of(loop_threshold=5) as reached:
        look_up(session, range(1, 6))

    assert ([], [("repeated-statement", "cust", 5)]) == (brief(below), brief(reached))


def test_key_survives_new_columns_aliases_and_lines(session, findings_of):
    def one(number):
        return session.execute(select(Cust.id).where(Cust.id == number)).all()

    with findings_of() as before:
        for number in range(3):
            one(number)

    def one(number):
        other = aliased(Cust)

        return session.execute(select(other.id, other.name).where(other.id == number)).all()

    with findings_of() as after:
        for number in range(3):
            one(number)

    assert [finding.key for finding in before] == [finding.key for finding in after]


def test_parameters_are_in_no_finding(session, findings_of):
    with findings_of() as found:
        for _ in range(3):
            session.scalars(select(Cust).where(Cust.name == SECRET)).all()
        for number in range(3):
            session.execute(sa.text(f"SELECT name FROM cust WHERE name = '{SECRET}{number}'"))
            session.execute(sa.text("UPDATE cust SET name = :name WHERE id = -1"), {"name": SECRET})

    assert (3, False) == (len(found), SECRET in repr(found))


def test_parameters_are_dropped_with_the_record(session, engine):
    with sqlprobe.attach(engine), sqlprobe.scope("work") as scope:
        session.scalars(select(Cust).where(Cust.name == SECRET)).all()
        pending = repr(scope.records)
        scope.digest_now()
        held = [record for record in scope.digest.origins.values() if SECRET in repr(record)]

    assert (True, [], 0) == (SECRET in pending, held, len(scope.records))


def test_dict_that_the_caller_changes_is_no_repetition(session, findings_of):
    connection = session.connection()
    given = {}
    with findings_of() as found:
        for number in range(6):
            given["id"] = number
            connection.exec_driver_sql("SELECT name FROM cust WHERE id = :id", given)

    assert [("repeated-statement", "cust", 6)] == brief(found)


def test_select_1_of_each_session_asks_nothing(engine, session, findings_of):
    with findings_of() as once:
        session.execute(sa.text("SELECT 1"))
    with findings_of() as thrice:
        for _ in range(3):
            with engine.connect() as connection:
                connection.execute(sa.text("SELECT 1"))

    assert ([], [("duplicate-statement", "SELECT 1", 3)], True) == (
        brief(once), brief(thrice), "pool_pre_ping" in thrice[0].advice,
    )  # fmt: skip


def test_polling_is_told_as_that(session, findings_of, monkeypatch):
    monkeypatch.setattr("sqlprobe.detectors.duplicate_statement._POLLING_NS", 0)
    with findings_of() as found:
        for _ in range(3):
            session.scalars(select(Cust.name).where(Cust.id == 1)).one()

    (finding,) = found
    assert ("info", True, True) == (finding.severity, "is polled" in finding.title, "ignore(" in finding.advice)


def test_two_lines_that_ask_the_same_do_not_poll(session, findings_of, monkeypatch):
    monkeypatch.setattr("sqlprobe.detectors.duplicate_statement._POLLING_NS", 0)
    with findings_of() as found:
        session.scalars(select(Cust.name).where(Cust.id == 1)).one()
        session.scalars(select(Cust.name).where(Cust.id == 1)).one()

    (finding,) = found
    assert ("duplicate-statement", False) == (finding.rule, "polled" in finding.title)


def test_write_in_between_makes_the_same_question_a_new_one(session, findings_of):
    with findings_of() as found:
        for number in range(4):
            session.scalars(select(Cust.name).where(Cust.id == 1)).one()
            session.execute(sa.update(Ord).where(Ord.id > number).values(cust_id=1))

    assert "duplicate-statement" not in {finding.rule for finding in found}


def test_commit_in_between_makes_it_a_new_one_too(session, findings_of):
    with findings_of() as found:
        session.scalars(select(Cust.name).where(Cust.id == 1)).one()
        session.commit()
        session.scalars(select(Cust.name).where(Cust.id == 1)).one()

    assert [] == found


def test_five_requests_that_ask_the_same_are_none(session, engine, findings_of):
    def current_user():
        with Session(engine) as own:
            return own.scalars(select(Cust).where(Cust.id == 1)).one()

    def request():
        return current_user()

    with findings_of() as outer:
        for _ in range(5):
            with sqlprobe.scope("GET /orders", kind="request"):
                request()

    assert [] == outer


def test_function_that_two_lines_call_is_no_loop(session, findings_of):
    def one(number):
        return session.get(Cust, number)

    def both():
        return one(1), one(2)

    with findings_of() as found:
        both()

    assert [] == found


# --- write-loop ---------------------------------------------------------------------------------------------------------


def test_flush_for_each_object_is_told_and_one_flush_is_not(session, findings_of):
    with findings_of() as each:
        for _ in range(5):
            session.add(Cust())
            session.flush()
    with findings_of() as once:
        session.add_all(Cust() for _ in range(5))
        session.flush()

    assert ([("write-loop", "cust", 5)], []) == (brief(each), brief(once))


# --- row-explosion ------------------------------------------------------------------------------------------------------


def test_two_collections_in_one_join(session, findings_of):
    from sqlalchemy.orm import joinedload

    with findings_of() as found:
        session.scalars(select(Cust).options(joinedload(Cust.orders), joinedload(Cust.notes))).unique().all()

    (finding,) = found
    assert ("row-explosion", "Cust.notes Cust.orders", ["selectinload(Cust.notes)"], "row-explosion|Cust.notes") == (
        finding.rule, finding.label, [fix.code for fix in finding.fixes], finding.key[:24],
    )  # fmt: skip


# --- query-budget -------------------------------------------------------------------------------------------------------


def test_scope_over_its_budget(session, findings_of):
    with findings_of("GET /orders", budgets={"GET /*": 100, "GET /orders": 4}) as found:
        for number in range(5):
            session.execute(select(Cust.id).where(Cust.id == number))

    finding = next(finding for finding in found if finding.rule == "query-budget")
    assert ("GET /orders", "error", 5, {"budget": 4, "pattern": "GET /orders", "statements": 5, "distinct": 1}) == (
        finding.scope,
        finding.severity,
        finding.count,
        {name: finding.evidence[name] for name in ("budget", "pattern", "statements", "distinct")},
    )


def test_scope_within_its_budget_or_without_one(session, findings_of):
    with findings_of("GET /orders", budgets={"GET /*": 1, "POST /orders": 0}) as found:
        session.execute(select(Cust.id))

    assert [] == found


def test_budget_counts_nested_scopes(session, findings_of):
    with findings_of("job", budgets={"job": 1}) as found:
        with sqlprobe.scope("step"):
            session.execute(select(Cust.id).where(Cust.id == 1))
        with sqlprobe.scope("step"):
            session.execute(select(Cust.id).where(Cust.id == 2))

    assert [("query-budget", "job", 2)] == brief(found)


# --- bounds and readers -------------------------------------------------------------------------------------------------


def test_statement_from_many_lines_takes_bounded_memory(session, engine, monkeypatch):
    monkeypatch.setattr(scopes, "MAX_SPOTS", 3)
    with sqlprobe.record(), sqlprobe.scope("work") as scope:
        for line in range(10):
            exec(f"session.execute(select(Cust.id).where(Cust.id == {line}))", {**globals(), "session": session})
            exec(
                compile("\n" * line + "run()", f"/srv/{line}.py", "exec"),
                {"run": lambda: session.execute(select(Cust.id))},
            )
        scope.digest_now()
        spots = [len(calls.spots) for calls in scope.digest.shapes.values()]

    assert max(spots) <= 4


def test_readers_with_other_settings_each_have_their_own_verdict(session, engine):
    with (
        sqlprobe.attach(engine, settings=sqlprobe.Settings(loop_threshold=10)) as probe,
        sqlprobe.record() as recording,
        sqlprobe.scope("work"),
    ):
        look_up(session, range(1, 6))
        open_findings = [brief(recording.findings), brief(recording.findings)]

    told = [("repeated-statement", "cust", 5)]
    assert ([told, told], told, []) == (open_findings, brief(recording.findings), brief(probe.report().findings))


def test_detector_that_raises_takes_no_other_with_it(session, findings_of, monkeypatch):
    def broken(digest, settings):
        raise ZeroDivisionError

    monkeypatch.setitem(detectors.DETECTORS, "column-load", broken)
    with findings_of() as found:
        look_up(session, range(1, 6))

    assert ([("repeated-statement", "cust", 5)], "detector column-load") == (brief(found), faults.told()[0].where)
    faults.forget()
