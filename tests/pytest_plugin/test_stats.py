"""--sqlprobe-stats: suites on next to no rows, whose statements are planned as a production of 200,000 would."""

from __future__ import annotations

import asyncpg  # noqa: F401 - loaded once: a run inside this process takes what it imported away with it
import psycopg  # noqa: F401 - see above
import pytest
import sqlalchemy as sa
import sqlalchemy.dialects.postgresql.asyncpg
import sqlalchemy.dialects.postgresql.psycopg
import sqlalchemy.ext.asyncio

import sqlprobe.pytest_plugin.explain
from sqlprobe import faults
from sqlprobe.advice import lab, server, snapshot, whatif
from sqlprobe.plans import explain
from sqlprobe.plans.judge import CHECKS
from sqlprobe.pytest_plugin.options import OF_PLANS, OF_PRODUCTION
from sqlprobe.report import Report

pytestmark = pytest.mark.once

SCHEMA = """
CREATE TABLE place (id int PRIMARY KEY, code text, city text, kind text, note text, visited timestamptz);
CREATE INDEX place_code ON place (code);
CREATE TABLE country (id int PRIMARY KEY, name text);
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE secret (id int PRIMARY KEY, tenant int, code text, mood mood);
"""
# As large as production's, and not: its rows.
PRODUCTION = """
INSERT INTO place SELECT g, 'c' || g, 'city' || g % 5000, CASE g % 1000 WHEN 0 THEN 'shut' ELSE 'open' END,
    repeat('x', 80), timestamptz '2026-01-01' + g * interval '1 minute' FROM generate_series(1, 200000) g;
INSERT INTO country SELECT g, 'land' || g FROM generate_series(1, 200) g;
INSERT INTO secret SELECT g, g % 500, 'c' || g, 'good' FROM generate_series(1, 200000) g;
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON secret USING (tenant = current_setting('app.tenant')::int);
VACUUM ANALYZE;
"""
TESTS = "INSERT INTO place VALUES (1, 'a', 'b', 'open', '', now()); INSERT INTO country VALUES (1, 'c');"
BY_CITY = """
def test_by_city():
    ask("city = :city", city="city7")

"""
SERVED = """
def test_by_code():
    ask("code = :code", code="c5")

"""


@pytest.fixture(scope="module")
def production(module_postgresql_url, postgresql_server, tmp_path_factory):
    """The file that `sqlprobe snapshot` would write of it."""
    url = module_postgresql_url()
    postgresql_server.psql("CREATE ROLE stats_app LOGIN", url.database)
    postgresql_server.psql(SCHEMA + PRODUCTION, url.database)
    taken = explain.on_connection(sa.create_engine(url), snapshot.read, explain.Limits(statement_seconds=10))
    file = tmp_path_factory.mktemp("production") / "prod.json.gz"
    taken.write(file)
    return file


@pytest.fixture
def places(postgresql_url, postgresql_server):
    """The database of the tests; `places(sql)` changes it."""
    url = postgresql_url()
    postgresql_server.psql(SCHEMA + TESTS, url.database)
    return lambda sql="": postgresql_server.psql(sql, url.database) if sql else url


@pytest.fixture
def told(suite, places, production, monkeypatch):
    """`told(tests, …)`: the result of a run with production's statistics."""
    monkeypatch.setenv("PLACES", places().render_as_string(hide_password=False))
    monkeypatch.setattr(sqlprobe.pytest_plugin.explain, "SECONDS", 600.0)  # however busy the machine is

    def run(tests, *arguments, **options):
        result = suite(tests, f"--sqlprobe-stats={production}", *arguments, asks=True, **options)
        assert () == faults.told()
        return result

    return run


def test_rules_are_those_that_a_lab_shows():
    assert whatif.RULES | whatif.ADVICE == {*OF_PLANS, *OF_PRODUCTION}
    assert {"misestimate", "wide-columns"} == CHECKS.keys() - whatif.RULES


@pytest.mark.long
def test_what_production_would_read_whole_fails_with_a_proven_index(told, pytester):
    result = told(BY_CITY + SERVED, "--sqlprobe=fail", "--sqlprobe-report=all.json")

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*a statement of place would cost * times less with an index on (city)",
            "*where:*test_it.py:* in ask*",
            "*CREATE INDEX CONCURRENTLY ix_place_city ON public.place (city)*",
            "sqlprobe: explain: the plans of 2 statements were judged, with the statistics of PostgreSQL *",
        ]
    )
    (finding,) = Report.read(pytester.path / "all.json").findings
    assert ("missing-index", "warning", 0.0, "seq-scan") == (
        finding.rule, finding.severity, finding.seconds, finding.evidence["also"],
    )  # fmt: skip
    assert finding.evidence["verified"].startswith("lab, PostgreSQL")
    assert 0.01 < finding.evidence["expected_seconds"] < 1
    assert finding.fixes[0].verified.cost_before > 10 * finding.fixes[0].verified.cost_after


@pytest.mark.long
def test_the_index_that_the_branch_adds_counts(told, places):
    """Production has not got it yet; the schema of the tests has."""
    places("CREATE INDEX place_city ON place (city)")
    result = told(BY_CITY + SERVED, "--sqlprobe=fail")

    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["sqlprobe: explain: the plans of 2 statements were judged, with*"])


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("index", "failed"),
    [
        ("CREATE INDEX mine ON place (lower(city))", 1),  # serves another condition
        ("CREATE INDEX mine ON place (kind, city)", 0),  # PostgreSQL 18 skips through the few kinds
        ("CREATE INDEX mine ON place (city) WHERE kind = 'shut'", 1),
        ("CREATE INDEX mine ON place USING hash (city)", 0),
        ("CREATE INDEX place_code2 ON place (code)", 1),
        ("ALTER TABLE place ADD COLUMN more text; CREATE INDEX mine ON place (more, city)", 1),  # cannot be made there
        # It has the name of another one that production has.
        ("DROP INDEX place_code; CREATE UNIQUE INDEX place_code ON place (city)", 0),
    ],
)
def test_an_index_of_the_branch_counts_for_what_it_serves(told, places, index, failed):
    places(index)

    told(BY_CITY, "--sqlprobe=fail").assert_outcomes(passed=1 - failed, failed=failed)


# Five programs that a gate without statistics may accuse, or that have rows in production: none costs anything there.
CLEAN = """
def test_a_small_table():
    ask("name = :name", table="country", name="land7")


def test_most_rows():
    ask("kind = :kind LIMIT 10", kind="open")


def test_the_key():
    ask("id = :id", id=7)


def test_the_key_of_many():
    ask("id = ANY(:ids)", ids=list(range(50)))


def test_served_by_another_driver():
    ask("code = :code", code="c9")
"""


@pytest.mark.long
def test_what_production_answers_at_once_is_not_told(told, pytester):
    result = told(CLEAN, "--sqlprobe=fail", "--sqlprobe-report=all.json")

    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(["sqlprobe: explain: the plans of 5 statements were judged, with*"])
    result.stdout.no_fnmatch_line("*not judged*")
    assert () == Report.read(pytester.path / "all.json").findings


@pytest.mark.long
def test_values_decide(told, pytester):
    """Of the kind that is rare an index has few rows; of the other, all."""
    kinds = """
@pytest.mark.parametrize("kind", ["open", "shut"])
def test_kind(kind):
    ask("true", table="(SELECT count(*) FROM place WHERE kind = :kind) counted", kind=kind)


def test_all_of_them():
    ask("kind = :kind", kind="open")
"""
    result = told(kinds, "--sqlprobe=fail", "--sqlprobe-report=all.json")

    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["FAILED*shut*"])
    rules = {finding.rule: finding.severity for finding in Report.read(pytester.path / "all.json").findings}
    assert "info" == rules["unbounded-result"]  # it may stream, which a plan does not tell


@pytest.mark.exhaustive
def test_after_some_values_that_are_served_a_statement_is_believed(told, monkeypatch):
    asked = []
    of_old = whatif.WhatIf.ask

    def ask(self, engine, questions, until=lambda: False, **options):
        asked.extend(questions)
        return of_old(self, engine, questions, until, **options)

    monkeypatch.setattr(whatif.WhatIf, "ask", ask)
    many = """
@pytest.mark.parametrize("number", range(8))
def test_by_code(number):
    ask("code = :code", code=f"c{number}")
"""
    result = told(many)

    result.assert_outcomes(passed=8)
    assert sqlprobe.pytest_plugin.explain.VALUES == len(asked)
    result.stdout.fnmatch_lines(["sqlprobe: explain: the plans of 1 statement were judged*"])


@pytest.mark.long
def test_what_production_does_not_know_is_judged_where_it_ran(told, places):
    places("ALTER TABLE place ADD COLUMN zip text; CREATE TABLE visit (id int PRIMARY KEY, place_id int)")
    new = """
def test_new_column():
    ask("zip = :zip", zip="1234")


def test_new_table():
    ask("place_id = :id", table="visit", id=5)


def test_new_table_by_its_key():
    ask("id = :id", table="visit", id=5)
"""
    result = told(new, "--sqlprobe=fail")

    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*test_new_column: no index of place answers*",
            "*test_new_table: no index of visit answers*",
            "sqlprobe: explain: 3 statements named what the snapshot does not know, and were judged*",
        ]
    )


def test_the_making_of_a_lab_takes_no_time_from_the_statements(told, places, monkeypatch):
    """By a clock that only a lab's start moves: what the lab does not know is asked where it ran all the same."""
    places("ALTER TABLE place ADD COLUMN zip text")
    now = [0.0]
    open_lab = lab.open_lab

    def slowly(*given, **options):
        now[0] += 1_000.0
        return open_lab(*given, **options)

    monkeypatch.setattr(lab, "open_lab", slowly)
    monkeypatch.setattr(sqlprobe.pytest_plugin.explain, "perf_counter", lambda: now[0])
    result = told('def test_zip():\n    ask("zip = :zip", zip="1234")\n', "--sqlprobe=fail")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*no index of place answers*"])


@pytest.mark.long
def test_tables_of_the_tests_own_transaction_are_told_and_not_accused(told, places):
    """With them are indexes that nobody else sees."""
    places("DROP TABLE place")
    unborn = """
def test_unborn():
    engine = sa.create_engine(os.environ["PLACES"], poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE place (id int PRIMARY KEY, city text, kind text)")
        connection.exec_driver_sql("CREATE INDEX ON place (city)")
        connection.execute(sa.text("SELECT * FROM place WHERE city = :city"), {"city": "x"}).all()
        connection.rollback()

"""
    result = told(unborn, "--sqlprobe=fail")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*1 statement was not judged, not visible*"])


@pytest.mark.long
def test_a_label_that_only_the_branch_knows_is_judged_where_it_ran(told, places):
    places("ALTER TYPE mood ADD VALUE 'mixed'")
    mixed = """
def test_mixed():
    ask("mood = 'mixed' AND code = :code", table="secret", code="x")
"""
    result = told(mixed, "--sqlprobe=fail")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*no index of secret answers*",
            "*1 statement named what the snapshot does not know, and was judged*serves it*",
        ]
    )


@pytest.mark.long
def test_who_connects_is_who_is_planned_for(told, places, postgresql_server, monkeypatch):
    """The owner needs an index on the code; whom a policy shows one tenant's rows, one on the tenant."""
    places("GRANT SELECT ON secret TO stats_app")
    url = places().set(username="stats_app").render_as_string(hide_password=False)
    secret = """
def test_secret():
    engine = sa.create_engine(os.environ["APP"], poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT set_config('app.tenant', '3', true)"))
        connection.execute(sa.text("SELECT * FROM secret WHERE lower(code) LIKE :code"), {"code": "c5%"}).all()
"""
    monkeypatch.setenv("APP", url)
    result = told(secret, "--sqlprobe=fail", "--sqlprobe-fail-on=any", "--sqlprobe-settings=slow_seconds=0.01")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*CREATE INDEX CONCURRENTLY ix_secret_tenant ON public.secret (tenant)*"])


@pytest.mark.exhaustive
def test_async_engines_are_planned_in_their_own_way(told, pytester):
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
    result = told(tests, "--sqlprobe=fail")

    result.assert_outcomes(failed=2)


@pytest.mark.exhaustive
def test_markers_and_baseline_hold_for_it(told):
    told("@pytest.mark.sqlprobe(explain=False)" + BY_CITY, "--sqlprobe=fail").assert_outcomes(passed=1)
    told("@pytest.mark.sqlprobe(allow=['missing-index:place'])" + BY_CITY, "--sqlprobe=fail").assert_outcomes(passed=1)
    told(BY_CITY, "--sqlprobe=fail", "--sqlprobe-baseline=base.json", "--sqlprobe-update-baseline")
    told(BY_CITY, "--sqlprobe=fail", "--sqlprobe-baseline=base.json").assert_outcomes(passed=1)


@pytest.mark.exhaustive
def test_the_ini_file_names_it_too(suite, places, production, pytester, monkeypatch):
    monkeypatch.setenv("PLACES", places().render_as_string(hide_password=False))
    pytester.makeini(f"[pytest]\nsqlprobe_stats = {production}\n")

    suite(BY_CITY, "--sqlprobe=fail", asks=True).assert_outcomes(failed=1)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "*gone.json: the snapshot cannot be read (No such file or directory)*"),
        ("{}", "*gone.json: *snapshot*"),
        ("no json", "*gone.json: *snapshot*"),
    ],
)
def test_a_file_that_is_none_ends_the_run_before_its_first_test(suite, pytester, content, said):
    if content is not None:
        (pytester.path / "gone.json").write_text(content)
    result = suite(BY_CITY, "--sqlprobe-stats=gone.json")

    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines([said])


def test_without_the_extra_it_is_said_before_the_first_test(suite, production, monkeypatch):
    monkeypatch.setattr(lab, "is_installed", lambda: False)
    result = suite(BY_CITY, f"--sqlprobe-stats={production}")

    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(['*--sqlprobe-stats*pip install "sqlprobe?lab?"*'])


@pytest.mark.long
def test_a_lab_that_does_not_start_fails_no_test_and_is_told(told, monkeypatch):
    tries = []

    def serve(**options):
        tries.append(options)
        raise server.ServerError("a PostgreSQL was asked for, found: no room; make some")

    monkeypatch.setattr(server, "serve", serve)
    result = told(BY_CITY + SERVED, "--sqlprobe=fail")

    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["sqlprobe: explain: 2 statements were not judged, since *no room; make some*"])
    assert 1 == len(tries)


@pytest.mark.exhaustive
def test_workers_of_xdist_have_labs_of_their_own_and_one_process_tells(told):
    result = told(BY_CITY + SERVED, "--sqlprobe=fail", "-n2", isolated=True, plugins=("xdist",))

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["sqlprobe: explain: the plans of 2 statements were judged, with*"])
