"""Plans in the background, by a clock of the test's own; and from end to end."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

import sqlprobe
from sqlprobe import SqlprobeError, capture, faults
from sqlprobe.plans import worker
from sqlprobe.plans.examine import Answer, Question
from sqlprobe.plans.explain import Refused
from sqlprobe.plans.plan import parse
from sqlprobe.plans.rules.plan_regression import History
from sqlprobe.plans.sampling import Sample
from sqlprobe.plans.worker import Planner
from sqlprobe.settings import Settings

ON_DEMAND = Settings(explain=True, explain_per_minute=0, slow_seconds=30)  # but for plans nothing is told


@pytest.fixture(autouse=True)
def nothing_is_left():
    worker.sampler.clear()
    yield
    assert (None, ()) == (capture.sampler, faults.told())


class Fixed(Planner):
    """One that is asked about statements which nobody ran, and answers as the test says."""

    def __init__(self, stats, rate=6.0, seconds=0.01):
        super().__init__(Settings(explain=True, explain_per_minute=rate), lambda: self.stats, lambda _: True)
        self.stats = stats
        self.seconds = seconds
        self.refuse = None
        self.busy = 0.0
        self.asked_for = []

    def _samples(self):
        return {(each.fingerprint, each.engine): (None, (Sample("SELECT 1"),)) for each in self.stats}

    def _ask(self, found, *, analyze, seconds):
        found = found[: max(1, round(seconds / self.seconds))]
        self.asked_for.append([question.fingerprint for _, question in found])
        return [
            Answer(question, refused=self.refuse, seconds=self.seconds, server_seconds=self.busy)
            for _, question in found
        ]


def statement(stats_of, name, seconds=0.01, calls=10):
    return dataclasses.replace(stats_of(seconds, calls=calls), fingerprint=name)


def test_the_costliest_are_asked_about_first_and_once(stats_of):
    planner = Fixed(
        [statement(stats_of, "cheap", 0.001), statement(stats_of, "dear", 0.9), statement(stats_of, "middle", 0.1)]
    )
    for second in range(0, 121, 10):
        planner.tick(float(second))

    assert [["dear"], ["middle"], ["cheap"]] == [names for names in planner.asked_for if names]


@pytest.mark.exhaustive
def test_the_budget_is_kept(stats_of):
    planner = Fixed([statement(stats_of, f"s{n}") for n in range(1000)], rate=6, seconds=0.001)
    for second in range(0, 3601, 10):
        planner.tick(float(second))

    assert 355 <= sum(map(len, planner.asked_for)) <= 367


@pytest.mark.long
def test_slow_answers_are_asked_for_less_often(stats_of):
    """At most half a percent of the time: an answer of a second is paid for with 200."""
    planner = Fixed([statement(stats_of, f"s{n}") for n in range(1000)], rate=600, seconds=1.0)
    for second in range(0, 36_001, 10):
        planner.tick(float(second))

    assert sum(map(len, planner.asked_for)) * 1.0 <= 36_000 * worker.SHARE + 10


def test_a_statement_is_asked_about_again_after_a_day_or_a_shift(stats_of):
    planner = Fixed([statement(stats_of, "s", 0.01, 100)])
    planner.tick(0.0)
    planner.stats = [statement(stats_of, "s", 0.011, 200)]
    planner.tick(100.0)
    unchanged = len(planner.asked_for)
    planner.stats = [statement(stats_of, "s", 0.1, 300)]
    planner.tick(200.0)
    planner.stats = [statement(stats_of, "s", 0.1, 310)]
    planner.tick(300.0)
    planner.tick(300.0 + worker.AGAIN_SECONDS)

    assert (1, [["s"], ["s"], ["s"]]) == (
        len([names for names in planner.asked_for[:unchanged] if names]), [names for names in planner.asked_for if names],
    )  # fmt: skip


@pytest.mark.parametrize("away", ["unavailable", "locked", "busy"])
def test_it_backs_off_longer_each_time(stats_of, away):
    planner = Fixed([statement(stats_of, f"s{n}") for n in range(900)])
    if away == "busy":
        planner.busy = 1.0
    else:
        planner.refuse = Refused(away)
    asked_at = [second for second in range(0, 40_000, 10) if planner.tick(float(second))]
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked_at)]

    assert [60, 120, 240, 480, 960, 1920, 3600, 3600] == pauses[:8]


def test_a_statement_that_was_locked_is_asked_about_again(stats_of):
    planner = Fixed([statement(stats_of, "s")])
    planner.refuse = Refused("locked")
    planner.tick(0.0)
    planner.refuse = None
    planner.tick(100.0)

    assert [["s"], ["s"]] == [names for names in planner.asked_for if names]


# --- from end to end --------------------------------------------------------------------------------------------------

ROWS = """
CREATE TABLE IF NOT EXISTS orders (id int PRIMARY KEY, customer int, note text);
INSERT INTO orders SELECT g, g % 5000, repeat('n', 60) FROM generate_series(1, 20000) g ON CONFLICT DO NOTHING;
ANALYZE orders
"""


@pytest.fixture(scope="module")
def shop(module_postgresql_url, postgresql_server):
    postgresql_server.psql(ROWS, module_postgresql_url().database)
    return module_postgresql_url


def test_a_probe_explains_what_it_has_seen(shop, make_engine):
    engine = make_engine(shop())
    told = []
    with sqlprobe.attach(engine, settings=ON_DEMAND, on_finding=told.append) as probe:
        with engine.connect() as connection:
            for customer in range(5):
                connection.execute(sa.text("SELECT * FROM orders WHERE customer = :c"), {"c": customer}).all()
        (finding,) = probe.explain()
        again = probe.explain()
        report = probe.report()

    assert ("missing-index", "orders", 5, "seq-scan") == (
        finding.rule, finding.label, finding.count, finding.evidence["also"],
    )  # fmt: skip
    assert (1, ["missing-index"], ["missing-index"]) == (
        len(again), [f.rule for f in report.findings if "plan" in f.evidence], [f.rule for f in told],
    )  # fmt: skip
    assert finding.site.file.endswith("test_worker.py")


def test_other_values_have_other_plans_and_their_findings_are_told(shop, make_engine):
    """The slowest call has a plan that is fine; another one reads the whole table."""
    engine = make_engine(shop())
    text = "SELECT count(*) FROM orders WHERE id >= %(a)s AND customer = %(c)s AND note <> pg_sleep(%(s)s)::text || 'x'"
    planner = Planner(ON_DEMAND, tuple, lambda _: True)
    few, many = ({"a": a, "c": 5, "s": 0} for a in (19_990, 0))
    (alone,) = planner.examiner.examine(engine, [Question("f" * 16, "e", Sample(text, few))])
    (both,) = planner.examiner.examine(
        engine, [Question("f" * 16, "e", Sample(text, few), None, (Sample(text, many),))]
    )

    assert ([], 1, ["seq-scan"], 2) == (
        [finding.rule for finding in alone.findings], alone.asked, [finding.rule for finding in both.findings], both.asked,
    )  # fmt: skip


def test_findings_are_gone_when_the_index_is_there(shop, make_engine):
    engine = make_engine(shop())
    with sqlprobe.record(settings=ON_DEMAND) as recording, engine.connect() as connection:
        connection.execute(sa.text("SELECT * FROM orders WHERE customer = :c"), {"c": 7}).all()
        before = recording.explain()
        connection.exec_driver_sql("CREATE INDEX by_customer ON orders (customer)")
        connection.commit()
        after = recording.explain()
        connection.exec_driver_sql("DROP INDEX by_customer")
        connection.commit()

    assert (1, 0, ()) == (len(before), len(after), recording.findings)


def test_a_recording_explains_when_it_has_ended_too(shop, make_engine):
    engine = make_engine(shop())
    with sqlprobe.record(settings=ON_DEMAND) as recording, engine.connect() as connection:
        connection.execute(sa.text("SELECT * FROM orders WHERE customer = :c"), {"c": 7}).all()

    (finding,) = recording.explain()

    assert ("missing-index", True) == (finding.rule, finding.fixes[0].verified is not None)


def test_async_engines_are_explained_from_inside_a_loop(shop):
    async def main():
        engine = create_async_engine(shop("asyncpg"))
        with sqlprobe.attach(engine, settings=ON_DEMAND) as probe:
            async with engine.connect() as connection:
                await connection.execute(sa.text("SELECT * FROM orders WHERE customer = :c").bindparams(c=5))
            found = await asyncio.to_thread(probe.explain)
        await engine.dispose()
        return [finding.rule for finding in found]

    assert ["missing-index"] == asyncio.run(main())


def test_in_the_background_an_index_is_named_first_and_proven_with_what_else_was_asked(shop, make_engine):
    engine = make_engine(shop())
    told = []
    with sqlprobe.record(settings=ON_DEMAND) as recording, engine.connect() as connection:
        connection.execute(sa.text("SELECT * FROM orders WHERE customer = :c"), {"c": 7}).all()
    samples = recording._planner._samples()
    planner = Planner(
        Settings(explain=True), lambda: recording.statements, lambda _: True,
        lambda found: told.extend((each.rule, each.evidence.get("verified", "")[:8]) for each in found),
    )  # fmt: skip
    planner._held = samples
    planner.tick(0.0)
    (finding,) = planner.findings()

    assert [("missing-index", "not veri")] == told
    assert ("seq-scan", True) == (finding.evidence["also"], finding.fixes[0].verified is not None)


def test_without_the_lab_an_index_is_named_and_not_verified(shop, make_engine, monkeypatch):
    monkeypatch.setattr("sqlprobe.advice.lab.is_installed", lambda: False)
    engine = make_engine(shop())
    with sqlprobe.record(settings=ON_DEMAND) as recording, engine.connect() as connection:
        connection.execute(sa.text("SELECT * FROM orders WHERE customer = :c"), {"c": 7}).all()
    (finding,) = recording.explain()

    assert ("missing-index", "not verified; install sqlprobe[lab]", "seq-scan", None) == (
        finding.rule, finding.evidence["verified"], finding.evidence["also"], finding.fixes[0].verified,
    )  # fmt: skip


def test_statements_without_a_plan_are_told_in_the_report(shop, make_engine):
    engine = make_engine(shop())
    with sqlprobe.record(settings=ON_DEMAND) as recording:
        with make_engine("sqlite://").connect() as connection:
            connection.execute(sa.text("SELECT 1")).all()
        with engine.connect() as connection:
            connection.execute(sa.text("CREATE TEMPORARY TABLE mine (id int)"))
            connection.execute(sa.text("SELECT id FROM mine"))
            connection.execute(sa.text("SELECT count(*) FROM mine"))
            connection.execute(sa.text("SELECT * FROM orders WHERE id = 7"))
    sqlite = "Plans are read from PostgreSQL; sqlite has none for sqlprobe"
    recording.explain(most=0)
    assert (
        sqlite,
        "3 statements were not asked about: those that took most time came first",
    ) == recording.report().notes

    recording.explain()
    refused, rest = recording.report().notes
    assert (True, sqlite) == (refused.startswith("SELECT mine and 1 more without a plan: EXPLAIN was asked for"), rest)


def test_without_samples_explain_says_so(engine):
    with sqlprobe.attach(engine) as probe, pytest.raises(SqlprobeError, match=r"Settings\(explain=True\)"):
        probe.explain()
    with sqlprobe.record() as recording, pytest.raises(SqlprobeError, match=r"Settings\(explain=True\)"):
        recording.explain()


def test_the_thread_starts_with_the_first_statement_and_ends_with_the_probe(shop, make_engine):
    engine = make_engine(shop())
    probe = sqlprobe.attach(engine, settings=Settings(explain=True))
    before = probe._planner._thread
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
    thread = probe._planner._thread
    probe.detach()

    assert (None, True, False) == (before, thread.daemon, thread.is_alive())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of CPython 3.12: a fork beside a thread
def test_a_forked_child_has_a_thread_of_its_own(shop, make_engine):
    engine = make_engine(shop(), poolclass=sa.NullPool)
    probe = sqlprobe.attach(engine, settings=Settings(explain=True))
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
    child = os.fork()
    if child == 0:  # pragma: no cover - in another process
        status = 1
        try:
            forgotten = probe._planner._thread is None
            with engine.connect() as connection:
                connection.exec_driver_sql("SELECT 1")
            status = 0 if forgotten and probe._planner._thread.is_alive() else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    probe.detach()

    assert 0 == os.waitstatus_to_exitcode(status)


# --- plan-regression --------------------------------------------------------------------------------------------------


def test_plan_regression_is_told_when_the_plan_changed_and_got_slower(shop, make_engine, stats_of):
    engine = make_engine(shop())
    planner = Planner(ON_DEMAND, tuple, lambda _: True)
    sample = Sample("SELECT * FROM orders WHERE customer = %(c)s", {"c": 5})

    def ask(seconds, calls):
        question = Question("f" * 16, "e", sample, stats_of(seconds, calls=calls))
        (answer,) = planner.examiner.examine(engine, [question])
        return [finding for finding in answer.findings if finding.rule == "plan-regression"]

    def psql(script):
        with engine.begin() as connection:
            connection.exec_driver_sql(script)

    psql("CREATE INDEX by_customer ON orders (customer)")
    first = ask(0.001, 10)
    same = ask(0.0015, 40)
    psql("DROP INDEX by_customer")
    (found,) = ask(0.02, 100)

    assert ([], []) == (first, same)
    assert ("the plan has changed, and a call takes 32.3 ms instead of 1.7 ms", True, True) == (
        found.title, "by_customer" in found.evidence["plan_before"], "Seq Scan on orders" in found.evidence["plan"],
    )  # fmt: skip


# Kind of plan, seconds a call so far, calls so far, and (after the third) the engine.
COURSES = {
    "slower": ([("Seq Scan", 0.01, 10), ("Index Scan", 0.1, 30)], True),
    "as fast": ([("Seq Scan", 0.01, 10), ("Index Scan", 0.011, 30)], False),
    "faster": ([("Seq Scan", 0.01, 10), ("Index Scan", 0.004, 30)], False),
    "slower with the same plan": ([("Seq Scan", 0.01, 10), ("Seq Scan", 0.1, 30)], False),
    "twice a short time": ([("Seq Scan", 0.0001, 10), ("Index Scan", 0.0002, 30)], False),
    "too few calls since": ([("Seq Scan", 0.01, 10), ("Index Scan", 0.05, 12)], False),
    "too few calls before": ([("Seq Scan", 0.01, 2), ("Index Scan", 0.1, 30)], False),
    "on another engine": ([("Seq Scan", 0.01, 10), ("Index Scan", 0.1, 30, "replica")], False),
    "slow before it changed": ([("Seq Scan", 0.01, 10), ("Seq Scan", 0.1, 100), ("Index Scan", 0.1, 200)], False),
}


@pytest.mark.parametrize("course", COURSES)
def test_a_plan_that_changed_is_a_regression_only_if_it_is_slower_for_it(stats_of, course):
    def compare(kind, seconds, calls, engine="main"):
        made = parse({"Plan": {"Node Type": kind, "Plan Rows": 1}})
        return history.compare(("f", engine), dataclasses.replace(made, statement=stats_of(seconds, calls=calls)))

    history = History()
    steps, expected = COURSES[course]
    smells = [compare(*step) for step in steps]

    assert [*[False] * (len(steps) - 1), expected] == [smell is not None for smell in smells]
