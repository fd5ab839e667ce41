"""--sqlprobe-explain: suites on a real PostgreSQL, whose tables have next to no rows."""

from __future__ import annotations

import asyncpg  # noqa: F401 - loaded once: a run inside this process takes what it imported away with it
import psycopg  # noqa: F401 - see above
import pytest
import sqlalchemy.dialects.postgresql.asyncpg
import sqlalchemy.dialects.postgresql.psycopg
import sqlalchemy.ext.asyncio  # noqa: F401 - see above

import sqlprobe.pytest_plugin.explain  # noqa: F401 - see above
from sqlprobe import capture, faults
from sqlprobe.plans import gate, worker
from sqlprobe.pytest_plugin.options import OF_PLANS
from sqlprobe.report import Report

pytestmark = pytest.mark.once

TABLES = """
CREATE TABLE place (id int PRIMARY KEY, code text, city text, kind text);
CREATE INDEX place_code ON place (code);
CREATE INDEX place_shut ON place (city) WHERE kind = 'shut';
INSERT INTO place VALUES (1, 'a', 'b', 'open');
"""
SERVED = """
def test_served():
    ask("code = :code", code="x")

"""
SCANNED = """
def test_scanned():
    ask("city = :city", city="x")

"""


@pytest.fixture(scope="module")
def places(module_postgresql_url, postgresql_server):
    url = module_postgresql_url()
    postgresql_server.psql(TABLES, url.database)
    return url


@pytest.fixture
def told(suite, places, monkeypatch):
    """`told(tests, …)`: the result of a run with --sqlprobe-explain."""
    monkeypatch.setenv("PLACES", places.render_as_string(hide_password=False))

    def run(tests, *arguments, **options):
        result = suite(tests, "--sqlprobe-explain", *arguments, asks=True, **options)
        assert () == faults.told()
        assert (None, False, []) == (capture.sampler, worker.sampler.holds_engines, [*worker.sampler.samples()])
        return result

    return run


def test_its_rules_are_the_gates():
    assert gate.RULES == set(OF_PLANS)


def test_what_no_index_serves_is_a_finding_like_others(told, pytester):
    result = told(SERVED + SCANNED, "--sqlprobe-report=all.json", "--sqlprobe-report=all.sarif")

    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "sqlprobe: 1 finding in 1 of 2 tests (1 seq-scan); worst: no index of place answers *city*",
            "*where: *test_it.py:* in ask*",
            "*tests: *test_it.py::test_scanned",
            "sqlprobe: explain: the plans of 2 statements were judged",
        ]
    )
    (finding,) = Report.read(pytester.path / "all.json").findings
    assert ("seq-scan", "place", "warning", "ask") == (
        finding.rule, finding.label, finding.severity, finding.site.function,
    )  # fmt: skip
    assert "index what it filters by: city" == finding.advice
    assert "seq-scan" in (pytester.path / "all.sarif").read_text()


def test_without_the_option_nothing_is_kept_or_asked(suite, places, monkeypatch):
    monkeypatch.setenv("PLACES", places.render_as_string(hide_password=False))
    kept = """
def test_nothing_is_kept():
    from sqlprobe import capture
    ask("city = :city", city="x")
    assert capture.sampler is None
"""
    result = suite(kept + SCANNED, "--sqlprobe=report", asks=True)

    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["sqlprobe: nothing found in 2 tests*"])
    result.stdout.no_fnmatch_line("*explain*")


@pytest.mark.parametrize("again", ["", SCANNED.replace("test_scanned", "test_scanned_too")])
def test_each_test_that_runs_it_fails(told, again):
    result = told(SCANNED + SERVED + again, "--sqlprobe=fail")

    result.assert_outcomes(passed=1, failed=1 + bool(again))
    result.stdout.fnmatch_lines(
        ["*test_scanned: no index of place answers*", "*advice: index what it filters by: city"]
    )


def test_rules_that_fail_can_be_named(told):
    told(SCANNED, "--sqlprobe-fail-on=n-plus-one").assert_outcomes(passed=1)
    told(SCANNED, "--sqlprobe-fail-on=seq-scan").assert_outcomes(failed=1)


def test_baseline_allowance_and_marker_hold_for_it(told, pytester):
    told(SCANNED, "--sqlprobe=fail", "--sqlprobe-baseline=base.json", "--sqlprobe-update-baseline")
    known = told(SCANNED, "--sqlprobe=fail", "--sqlprobe-baseline=base.json")
    fresh = told(SCANNED.replace("city =", "kind ="), "--sqlprobe=fail", "--sqlprobe-baseline=base.json")
    allowed = told("@pytest.mark.sqlprobe(allow=['seq-scan:place'])" + SCANNED, "--sqlprobe=fail")
    spared = told("@pytest.mark.sqlprobe(explain=False)" + SCANNED, "--sqlprobe=fail")

    assert '"seq-scan"' in (pytester.path / "base.json").read_text()
    for result in (known, allowed, spared):
        result.assert_outcomes(passed=1)
    fresh.assert_outcomes(failed=1)


def test_one_test_alone_can_ask(suite, places, monkeypatch):
    monkeypatch.setenv("PLACES", places.render_as_string(hide_password=False))
    marked = "@pytest.mark.sqlprobe(explain=True)" + SCANNED.replace("test_scanned", "test_marked")

    result = suite(SCANNED + marked, "--sqlprobe=fail", asks=True)

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*test_marked: no index of place*"])


def test_a_wrong_argument_ends_the_run_before_its_first_test(suite):
    result = suite("@pytest.mark.sqlprobe(explain='yes')\ndef test_it(): ...\n")

    assert 4 == result.ret
    result.stderr.fnmatch_lines(["*explain='yes'*True or False is needed*"])


def test_the_ini_file_asks_for_it_too(suite, places, pytester, monkeypatch):
    monkeypatch.setenv("PLACES", places.render_as_string(hide_password=False))
    pytester.makeini("[pytest]\nsqlprobe_explain = true\nsqlprobe_mode = fail\n")

    suite(SCANNED, asks=True).assert_outcomes(failed=1)


def test_tables_of_the_tests_own_transaction_are_told_and_not_passed_over(told):
    result = told(
        """
def test_unborn():
    with engine().begin() as connection:
        connection.execute(sa.text("CREATE TABLE unborn (id int)"))
        connection.execute(sa.text("SELECT * FROM unborn WHERE id = 5"))
        connection.rollback()


@pytest.fixture
def connection():
    with engine().connect() as connection, connection.begin() as transaction:
        connection.execute(sa.text("CREATE TABLE unborn (id int)"))
        yield connection
        transaction.rollback()


def test_in_a_fixtures_transaction(connection):
    connection.execute(sa.text("SELECT * FROM unborn WHERE id = 5"))
    connection.execute(sa.text("SELECT * FROM place WHERE id = 5"))
""",
        "--sqlprobe=fail",
    )

    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([
        "sqlprobe: explain: the plans of 1 statement were judged",
        "sqlprobe: explain: 1 statement was not judged, not visible (*not committed): SELECT unborn in *test_it.py::*",
    ])  # fmt: skip


def test_what_one_test_hides_another_may_show(told):
    result = told(
        """
def test_hidden():
    with engine().begin() as connection:
        connection.execute(sa.text("CREATE TABLE late (id int)"))
        connection.execute(sa.text("SELECT * FROM late WHERE id = 5"))
        connection.rollback()


def test_shown():
    with engine().connect() as connection:
        connection.execute(sa.text("CREATE TABLE late (id int)"))
        connection.commit()
        connection.execute(sa.text("SELECT * FROM late WHERE id = 5"))
        connection.rollback()
        connection.execute(sa.text("DROP TABLE late"))
        connection.commit()


def test_shown_and_kept():
    with engine().connect() as connection:
        connection.execute(sa.text("CREATE TABLE late (id int)"))
        connection.commit()
        connection.execute(sa.text("SELECT * FROM late WHERE id = 5"))
        connection.commit()
""",
        "--sqlprobe=fail",
    )

    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["sqlprobe: explain: the plans of 1 statement were judged"])
    result.stdout.no_fnmatch_line("*not judged*")


def test_a_table_that_the_test_has_locked_is_not_waited_for(told):
    result = told(
        """
@pytest.fixture
def connection():
    with engine().connect() as connection:
        yield connection
        connection.rollback()


def test_locked(connection):
    connection.execute(sa.text("LOCK TABLE place IN ACCESS EXCLUSIVE MODE"))
    connection.execute(sa.text("SELECT * FROM place WHERE city = 'x'"))
""",
        "--sqlprobe=fail",
    )

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["sqlprobe: explain: 1 statement was not judged, locked (*"])


def test_after_a_few_tests_a_lock_is_not_waited_for_again(told, monkeypatch):
    from sqlprobe.plans.explain import Session

    asked = []
    original = Session.explain

    def counted(self, sample, **options):
        asked.append(sample)
        return original(self, sample, **options)

    monkeypatch.setattr(Session, "explain", counted)
    result = told("""
@pytest.fixture
def connection():
    with engine().connect() as connection:
        yield connection
        connection.rollback()


@pytest.mark.parametrize("number", range(6))
def test_locked(connection, number):
    connection.execute(sa.text("LOCK TABLE place IN ACCESS EXCLUSIVE MODE"))
    connection.execute(sa.text("SELECT * FROM place WHERE city = 'x'"))
""")

    assert 3 == len(asked)
    result.stdout.fnmatch_lines(["sqlprobe: explain: 1 statement was not judged, locked (*"])


def test_values_decide_where_a_partial_index_is(told):
    """The same statement is served for one value, and not for another: whichever test comes first."""
    tests = """
def test_shut():
    ask("city = :city AND kind = :kind", city="x", kind="shut")


def test_open():
    ask("city = :city AND kind = :kind", city="x", kind="open")


def test_shut_again():
    ask("city = :city AND kind = :kind", city="y", kind="shut")
"""
    result = told(tests, "--sqlprobe=fail")

    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*test_open: no index of place*"])


def test_an_accusation_is_of_the_schema_as_it_is_there(told):
    """Accused without the index in one test, the statement is innocent in the next, which has made it."""
    result = told(
        """
@pytest.mark.parametrize("indexed", [False, True])
def test_schema(indexed):
    with engine().connect() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS mine"))
        connection.execute(sa.text("CREATE TABLE mine (id int)"))
        if indexed:
            connection.execute(sa.text("CREATE INDEX ON mine (id)"))
        connection.commit()
        connection.execute(sa.text("SELECT * FROM mine WHERE id = 5"))
        connection.commit()
""",
        "--sqlprobe=fail",
    )

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*test_schema*False*: no index of mine*"])


def test_async_engines_are_asked_in_their_own_way(told, pytester):
    tests = """
import asyncio
from sqlalchemy.ext.asyncio import create_async_engine


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_async(driver):
    async def main():
        engine = create_async_engine(os.environ["PLACES"].replace("psycopg", driver))
        async with engine.connect() as connection:
            await connection.execute(sa.text("SELECT * FROM place WHERE city = :city"), {"city": "x"})
        await engine.dispose()
    asyncio.run(main())
"""
    told(tests, "--sqlprobe=fail").assert_outcomes(failed=2)


def test_another_database_is_told_once(suite, told):
    sqlite = """
def test_sqlite():
    shop.connect().dispose()

def test_sqlite_again():
    shop.connect().dispose()

"""
    alone = suite(sqlite, "--sqlprobe-explain", asks=True)
    both = told(sqlite + SERVED)

    none = "sqlprobe: explain: no statement ran on PostgreSQL, so no plan was asked for; sqlite has no plans*"
    some = "sqlprobe: explain: the plans of 1 statement were judged; sqlite has no plans that sqlprobe reads"
    for result, line in ((alone, none), (both, some)):
        result.stdout.fnmatch_lines([line])
        assert 1 == result.stdout.str().count("has no plans")


def test_what_ran_with_many_sets_only_is_told(told):
    result = told("""
def test_many():
    with engine().connect() as connection:
        connection.execute(sa.text("UPDATE place SET kind = 'x' WHERE city = :city"), [{"city": "x"}, {"city": "y"}])
""")

    result.stdout.fnmatch_lines(
        ["*1 statement was not judged, since it ran with many sets of values only: UPDATE place*"]
    )


def test_a_server_that_cannot_be_reached_again_fails_nothing(told):
    result = told(
        """
def test_gone():
    mine = engine()
    with mine.connect() as connection:
        connection.execute(sa.text("SELECT * FROM place WHERE city = 'x'"))
        connection.execute(sa.text("SELECT * FROM place WHERE code = 'x'"))

    @sa.event.listens_for(mine, "do_connect")
    def refuse(dialect, record, arguments, options):
        raise ConnectionError("the canary is in its text")
""",
        "--sqlprobe=fail",
    )

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["sqlprobe: explain: 2 statements were not judged, unavailable (*"])
    result.stdout.no_fnmatch_line("*canary*")


def test_unittest_is_asked_before_its_tables_are_gone(told):
    result = told(
        """
import unittest


class Case(unittest.TestCase):
    def setUp(self):
        with engine().begin() as connection:
            connection.execute(sa.text("CREATE TABLE brief (id int)"))

    def tearDown(self):
        with engine().begin() as connection:
            connection.execute(sa.text("DROP TABLE brief"))

    def test_it(self):
        with engine().connect() as connection:
            connection.execute(sa.text("SELECT * FROM brief WHERE id = 5"))
""",
        "--sqlprobe=fail",
    )

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*no index of brief*"])


def test_engines_are_let_go_after_each_test(told):
    result = told("""
import gc, weakref
seen = []


def test_first():
    mine = engine()
    seen.append(weakref.ref(mine))
    with mine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))


def test_then():
    gc.collect()
    assert seen[0]() is None
""")

    result.assert_outcomes(passed=2)


def test_statements_of_a_test_that_fails_are_judged_and_it_fails_as_it_would(told):
    result = told(
        """
def test_fails():
    ask("city = :city", city="x")
    assert 1 == 2
""",
        "--sqlprobe=fail",
    )

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*assert 1 == 2", "*no index of place*"])


def test_nothing_of_it_is_counted(told, pytester):
    told(SERVED + SCANNED, "--sqlprobe-report=all.json")

    assert 2 == Report.read(pytester.path / "all.json").total_calls


@pytest.mark.exhaustive
@pytest.mark.parametrize("workers", ["1"])
def test_workers_of_xdist_ask_and_one_process_tells(told, workers):
    result = told(SERVED + SCANNED, "--sqlprobe=fail", f"-n{workers}", isolated=True, plugins=("xdist",))

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["sqlprobe: explain: the plans of 2 statements were judged"])
