"""What becomes of findings: told in one line, told in full, warned of, failing; and never in a test's way."""

from __future__ import annotations

import pytest

TESTS = """
def test_slow(engine):
    shop.slowly(engine)

def test_quick(engine):
    shop.quickly(engine)
"""


def said(result):
    return [line.removeprefix("sqlprobe: ") for line in result.outlines if line.startswith("sqlprobe: ")]


def test_tells_one_line_by_default(suite):
    result = suite(TESTS)

    result.assert_outcomes(passed=2)
    (line,) = said(result)
    assert line.startswith("1 finding in 1 of 2 tests (1 n-plus-one); worst: lazy load of Order.items ran 5 times")
    assert line.endswith("; pytest --sqlprobe=report tells all")


def test_says_nothing_by_default_when_nothing_is_found(suite):
    result = suite("def test_quick(engine):\n    shop.quickly(engine)\n")

    result.assert_outcomes(passed=1)
    assert "sqlprobe" not in result.stdout.str().partition("test session starts")[2].replace("pytest_sqlprobe", "")


def test_report_tells_line_origin_fix_and_tests(suite):
    result = suite(TESTS, "--sqlprobe=report")

    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "lazy load of Order.items ran 5 times at shop.py:*",
            "  where:  shop.py:* in slowly*",
            "  origin: shop.py:* in slowly",
            "  rule:   n-plus-one  label: Order.items",
            "    select(Order).options(selectinload(Order.items))",
            "  tests:  test_it.py::test_slow",
            "slowest tests by database time",
            "*6 statements  test_it.py::test_slow",
            "hottest lines by database time",
            "*statement*shop.py:* in slowly*",
        ]
    )


def test_report_says_that_nothing_was_found_and_how_much_was_seen(suite):
    result = suite("def test_quick(engine):\n    shop.quickly(engine)\n", "--sqlprobe=report")

    assert ["nothing found in 1 test, 2 statements"] == said(result)


def test_fail_fails_the_test_with_its_finding(suite):
    result = suite(TESTS, "--sqlprobe=fail")

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "test_slow: lazy load of Order.items ran 5 times at shop.py:*",
            "  where:  shop.py:* in slowly*",
            "    select(Order).options(selectinload(Order.items))",
            "FAILED test_it.py::test_slow - sqlprobe.CheckError: test_slow: lazy *",
        ]
    )
    result.stdout.no_fnmatch_line("*pytest_plugin*")  # no frame of ours


def test_warn_warns(suite):
    result = suite(TESTS, "--sqlprobe=warn", "-Wdefault")

    result.assert_outcomes(passed=2, warnings=1)
    result.stdout.fnmatch_lines(["*shop.py:*: SqlprobeWarning: n-plus-one: lazy load of Order.items ran 5 times*"])


def test_warnings_that_are_errors_fail_the_test(suite):
    result = suite(TESTS, "--sqlprobe=warn", "-Werror")

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["test_slow: lazy load of Order.items ran 5 times at shop.py:*"])


def test_off_observes_nothing(suite):
    result = suite(TESTS, "--sqlprobe=off")

    result.assert_outcomes(passed=2)
    assert [] == said(result)


def test_disabled_by_the_environment(suite, monkeypatch):
    monkeypatch.setenv("SQLPROBE_ENABLED", "0")

    result = suite(TESTS, "--sqlprobe=fail")

    result.assert_outcomes(passed=2)


@pytest.mark.parametrize("spelled", ["FAIL", "Fail"])
def test_modes_are_read_in_any_case(suite, spelled):
    suite(TESTS, f"--sqlprobe={spelled}").assert_outcomes(passed=1, failed=1)


def test_mode_from_the_ini_file_which_the_command_line_overrides(suite, pytester):
    pytester.makeini("[pytest]\nsqlprobe_mode = fail\n")

    suite(TESTS).assert_outcomes(passed=1, failed=1)
    suite(None, "--sqlprobe=report").assert_outcomes(passed=2)


def test_rules_that_fail_are_chosen_and_mean_mode_fail(suite, pytester):
    pytester.makeini("[pytest]\nsqlprobe_fail_on = write-loop, row-explosion\n")
    suite(TESTS).assert_outcomes(passed=2)

    pytester.makeini("[pytest]\nsqlprobe_fail_on =\n    write-loop\n    N-Plus-One\n")
    suite(None).assert_outcomes(passed=1, failed=1)

    pytester.makeini("[pytest]\n")
    suite(None, "--sqlprobe-fail-on=any").assert_outcomes(passed=1, failed=1)


def test_what_depends_on_the_machine_fails_only_when_it_is_named(suite):
    tests = "def test_it(engine):\n    shop.quickly(engine)\n"
    slow = "--sqlprobe-settings=slow_seconds=0.000000001"

    suite(tests, "--sqlprobe=fail", slow).assert_outcomes(passed=1)
    suite(tests, "--sqlprobe=fail", slow, "--sqlprobe-fail-on=slow-statement").assert_outcomes(failed=1)


def test_the_tests_own_failure_wins(suite):
    result = suite(
        """
@pytest.mark.sqlprobe(max_queries=1)
def test_slow(engine):
    shop.slowly(engine)
    assert "own" == "failure"
""",
        "--sqlprobe=fail",
    )

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E*assert 'own' == 'failure'", "*Captured sqlprobe call*", "lazy load of Order.items*"]
    )
    result.stdout.no_fnmatch_line("*CheckError*")


def test_skips_and_expected_failures_stay_what_they_are(suite):
    result = suite(
        """
def test_skip(engine):
    shop.slowly(engine)
    pytest.skip("here")

@pytest.mark.xfail(reason="known", strict=True)
def test_xfail_by_the_gate(engine):
    shop.slowly(engine)
""",
        "--sqlprobe=fail",
    )

    result.assert_outcomes(skipped=1, xfailed=1)


def test_a_marker_sets_the_mode_of_a_test(suite):
    result = suite(
        """
@pytest.mark.sqlprobe(mode="fail")
def test_strict(engine):
    shop.slowly(engine)

@pytest.mark.sqlprobe(mode="off")
def test_unobserved(engine):
    shop.slowly(engine)
""",
    )

    result.assert_outcomes(passed=1, failed=1)
    assert "1 finding in 1 of 2 tests" in said(result)[0]


@pytest.mark.parametrize("allow", ["['n-plus-one']", "'Order.items'", "['n-plus-one:Order.*']", "['any:Order.items']"])
def test_a_marker_allows(suite, allow):
    tests = f"@pytest.mark.sqlprobe(allow={allow})\ndef test_slow(engine):\n    shop.slowly(engine)\n"

    result = suite(tests, "--sqlprobe=fail")

    result.assert_outcomes(passed=1)
    assert [] == [line for line in said(result) if "fits no finding" in line]


def test_an_allowance_that_fits_nothing_is_told(suite):
    tests = """
@pytest.mark.sqlprobe(allow=["n-plus-one:Order.lines"])
def test_slow(engine):
    shop.slowly(engine)
"""

    result = suite(tests, "--sqlprobe=fail", "--sqlprobe-ignore=write-loop")

    result.assert_outcomes(failed=1)
    assert {
        "sqlprobe_ignore: 'write-loop' fits no finding any more",
        "test_it.py::test_slow: allow=['n-plus-one:Order.lines'] fits no finding any more",
    } <= set(said(result))


def test_ini_patterns_are_ignored(suite, pytester):
    pytester.makeini("[pytest]\nsqlprobe_ignore =\n    n-plus-one:Order.*\n")

    suite(TESTS, "--sqlprobe=fail").assert_outcomes(passed=2)


def test_only_the_call_is_observed(suite, pytester):
    pytester.makeconftest(
        "import pytest, shop\n"
        "@pytest.fixture\n"
        "def engine():\n"
        "    engine = shop.connect()\n"
        "    shop.slowly(engine)\n"
        "    yield engine\n"
        "    shop.slowly(engine)\n"
    )
    tests = "def test_it(engine):\n    shop.quickly(engine)\n"

    suite(tests, "--sqlprobe=fail").assert_outcomes(passed=1)

    result = suite(None, "--sqlprobe=fail", "--sqlprobe-fixtures")
    result.assert_outcomes(errors=2)  # at setup and at teardown
    result.stdout.fnmatch_lines(["test_it: lazy load of Order.items*"])


def test_statements_of_bare_threads_count(suite):
    result = suite(
        """
import threading

@pytest.mark.sqlprobe(max_queries=5)
def test_thread(engine):
    thread = threading.Thread(target=shop.slowly, args=[engine])
    thread.start()
    thread.join()
""",
    )

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["test_thread ran 6 statements, budget is 5 (1 over)."])


def test_engines_of_any_age_and_kind_are_seen(suite):
    result = suite(
        """
import asyncio

OLD = sa.create_engine("sqlite://")

@pytest.mark.sqlprobe(exactly=3)
def test_engines():
    new = sa.create_engine("sqlite://")
    for engine in (OLD, new):
        with engine.connect() as connection:
            connection.execute(sa.text("select 1"))

    async def main():
        engine = shop.create_async_engine("sqlite+aiosqlite://")
        async with engine.connect() as connection:
            await connection.execute(sa.text("select 2"))
        await engine.dispose()

    asyncio.run(main())
""",
    )

    result.assert_outcomes(passed=1)


def test_applications_own_probe_goes_on_beside_it(suite):
    result = suite(
        """
import sqlprobe as package

@pytest.fixture(scope="module")
def probe():
    with package.attach() as probe:
        yield probe

@pytest.mark.sqlprobe(exactly=2)
def test_inside(probe, engine):
    before = probe.report().total_calls
    assert before > 0  # what the fixture ran, which the plugin does not count
    shop.quickly(engine)
    assert probe.report().total_calls == before + 2

@pytest.mark.sqlprobe(exactly=2)
def test_after(engine):
    shop.quickly(engine)
""",
    )

    result.assert_outcomes(passed=2)


def test_scopes_inside_a_test_are_told_apart(suite, pytester):
    result = suite(
        """
from sqlprobe import scope

def test_slow(engine):
    with scope("GET /orders", kind="request"):
        shop.slowly(engine)
""",
        "--sqlprobe=report",
        "--sqlprobe-report=report.json",
    )

    result.assert_outcomes(passed=1)
    from sqlprobe import Report

    report = Report.read(pytester.path / "report.json")
    assert ["GET /orders"] == [finding.scope for finding in report.findings]
    assert [("GET /orders", "request", 6), ("test_it.py::test_slow", "test", 6)] == sorted(
        (each.name, each.kind, each.calls) for each in report.scopes
    )


def test_long_tests_are_counted_exactly_in_bounded_memory(suite):
    result = suite(
        """
@pytest.mark.sqlprobe(max_queries=1)
def test_long(engine):
    with engine.connect() as connection:
        for number in range(2200):
            connection.execute(sa.text("select :number"), {"number": number})
""",
    )

    result.stdout.fnmatch_lines(
        ["test_long ran 2,200 statements, budget is 1 (2,199 over).", "*more statements, which*"]
    )


def test_a_fault_of_ours_fails_no_test_and_is_told(suite, monkeypatch):
    from sqlprobe.pytest_plugin import session

    monkeypatch.setattr(session, "accusation", lambda *_: 1 / 0)

    result = suite(TESTS, "--sqlprobe=fail")

    result.assert_outcomes(passed=2)
    (line,) = [line for line in said(result) if line.startswith("failed itself")]
    assert line.startswith("failed itself, so something may be missing: pytest plugin: ZeroDivisionError at test_")
