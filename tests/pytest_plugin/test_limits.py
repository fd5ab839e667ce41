"""Budgets of tests, by marker and by the fixture; and what a failure reads like."""

from __future__ import annotations

import pytest


def test_a_budget_that_is_exceeded_names_number_culprit_and_statements(suite):
    result = suite("@pytest.mark.sqlprobe(max_queries=2)\ndef test_it(engine):\n    shop.slowly(engine)\n")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "test_it ran 6 statements, budget is 2 (4 over).",
            "",
            "  lazy load of Order.items ran 5 times at shop.py:*",
            "    where:  shop.py:* in slowly*",
            "      select(Order).options(selectinload(Order.items))",
            "",
            "  6 statements, * in the database",
            "        1 \u00d7 * SELECT orders.id FROM orders  * shop.py:* in slowly",
            "        5 \u00d7 * SELECT item.id* FROM item WHERE * shop.py:* in slowly*",
            "FAILED test_it.py::test_it - sqlprobe.CheckError: test_it ran 6 statements*",
        ],
        consecutive=False,
    )


def test_without_a_finding_the_culprit_is_what_was_repeated_most(suite):
    result = suite(
        """
@pytest.mark.sqlprobe(max_queries=2, allow=["any:*"])
def test_it(engine):
    with engine.connect() as connection:
        for _ in range(3):
            connection.execute(sa.text("select 1"))
""",
    )

    result.stdout.fnmatch_lines(
        ["test_it ran 3 statements, budget is 2 (1 over).", "  3 \u00d7 select ?", "    where:  test_it.py:*"]
    )


@pytest.mark.parametrize(
    ("limits", "body", "verdict"),
    [
        ("max_queries=6", "shop.slowly(engine)", None),
        ("exactly=2", "shop.quickly(engine)", None),
        ("exactly=1", "shop.quickly(engine)", "test_it ran 2 statements, exactly 1 wanted (1 over)."),
        ("exactly=3", "shop.quickly(engine)", "test_it ran 2 statements, exactly 3 wanted (1 under)."),
        ("max_queries=0", "pass", None),
        ("max_queries=0", "shop.quickly(engine)", "test_it ran 2 statements, budget is 0 (2 over)."),
        ("exactly=0", "pass", None),
        ("max_seconds=1e-9", "shop.quickly(engine)", "test_it took * in the database, budget is 0 µs (* over)."),
        ("max_seconds=60", "shop.quickly(engine)", None),
        ("max_rows=9", "shop.fill(engine, 3)", "test_it got * rows, budget is 9 (* over)."),
        ("max_queries=3", "pass", "test_it ran no statement, so its budget checked nothing."),
        ("max_seconds=3", "pass", "test_it ran no statement, so its budget checked nothing."),
        ("max_queries=3, zero_ok=True", "pass", None),
        ("max_rows=100", "shop.quickly(engine)", "test_it: max_rows=100 cannot be checked: the driver did not say*"),
        ("max_rows=100, zero_ok=True", "shop.quickly(engine)", None),
    ],
)
def test_limits_of_a_marker(suite, limits, body, verdict):
    result = suite(f"@pytest.mark.sqlprobe({limits})\ndef test_it(engine):\n    {body}\n")

    if verdict is None:
        result.assert_outcomes(passed=1)
    else:
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines([verdict])


def test_the_nearest_marker_counts(suite):
    result = suite(
        """
pytestmark = pytest.mark.sqlprobe(max_queries=1)

class TestIt:
    pytestmark = pytest.mark.sqlprobe(max_queries=6)

    def test_slow(self, engine):
        shop.slowly(engine)

    @pytest.mark.sqlprobe(max_queries=2)
    def test_strict(self, engine):
        shop.slowly(engine)

def test_outside(engine):
    shop.quickly(engine)
""",
    )

    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        ["test_strict ran 6 statements, budget is 2*", "test_outside ran 2 statements, budget is 1*"]
    )


def test_a_budget_of_the_whole_suite_which_a_marker_overrides(suite):
    result = suite(
        """
def test_slow(engine):
    shop.slowly(engine)

def test_without_database():
    pass

@pytest.mark.sqlprobe(max_queries=6)
def test_allowed(engine):
    shop.slowly(engine)
""",
        "--sqlprobe-max-queries=5",
    )

    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["test_slow ran 6 statements, budget is 5 (1 over)."])


def test_the_fixture_gives_what_the_test_ran(suite):
    result = suite(
        """
def test_it(engine, sqlprobe):
    assert (0, ()) == (sqlprobe.calls, sqlprobe.findings)
    shop.slowly(engine)
    assert 6 == sqlprobe.calls == len(sqlprobe.executions) == sum(each.calls for each in sqlprobe.statements)
    assert 0 < sqlprobe.seconds < 60
    assert ["n-plus-one"] == [finding.rule for finding in sqlprobe.findings]
    assert 6 == sqlprobe.report().total_calls
""",
    )

    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("mode", ["off", "report", "fail"])
def test_checks_of_a_block_work_in_every_mode(suite, mode):
    result = suite(
        """
@pytest.mark.sqlprobe(mode="report")
def test_it(engine, sqlprobe):
    with sqlprobe.max_queries(2) as recording:
        shop.quickly(engine)
    assert 2 == recording.calls
    with sqlprobe.exactly(2), sqlprobe.max_rows(0, zero_ok=True), sqlprobe.max_seconds(60):
        shop.quickly(engine)
    with sqlprobe.no_n_plus_one():
        shop.quickly(engine)
    with pytest.raises(AssertionError, match=r"^the block ran 6 statements, budget is 5 \\(1 over\\)"):
        with sqlprobe.max_queries(5):
            shop.slowly(engine)
    with pytest.raises(AssertionError, match="exactly 6 wanted .4 under"):
        with sqlprobe.exactly(6):
            shop.quickly(engine)
    with pytest.raises(AssertionError, match="lazy load of Order.items ran 5 times"):
        with sqlprobe.no_n_plus_one():
            shop.slowly(engine)
    with pytest.raises(AssertionError, match="in the database, budget is"):
        with sqlprobe.max_seconds(1e-9):
            shop.quickly(engine)
""",
        f"--sqlprobe={mode}",
    )

    result.assert_outcomes(passed=1)


def test_a_block_without_statements_is_vacuous(suite):
    result = suite(
        """
def test_it(sqlprobe):
    for check in (sqlprobe.max_queries(1), sqlprobe.no_n_plus_one(), sqlprobe.max_seconds(1), sqlprobe.no_findings()):
        with pytest.raises(AssertionError, match="^the block ran no statement, so"):
            with check:
                pass
    for check in (sqlprobe.max_queries(1, zero_ok=True), sqlprobe.no_n_plus_one(zero_ok=True), sqlprobe.exactly(0)):
        with check:
            pass
""",
    )

    result.assert_outcomes(passed=1)


def test_a_blocks_own_error_wins(suite):
    result = suite(
        """
def test_it(engine, sqlprobe):
    with pytest.raises(KeyError):
        with sqlprobe.max_queries(1):
            shop.slowly(engine)
            raise KeyError
""",
    )

    result.assert_outcomes(passed=1)


def test_a_failed_block_is_shown_at_its_line(suite):
    result = suite("def test_it(engine, sqlprobe):\n    with sqlprobe.exactly(1):\n        shop.quickly(engine)\n")

    result.stdout.fnmatch_lines(
        [">       with sqlprobe.exactly(1):", "E*sqlprobe.CheckError: the block ran 2 statements*"]
    )
    result.stdout.no_fnmatch_line("*fixture.py*")


def test_what_is_allowed_is_no_finding_of_a_block(suite):
    result = suite(
        """
@pytest.mark.sqlprobe(allow=["Order.items"])
def test_it(engine, sqlprobe):
    with sqlprobe.no_n_plus_one():
        shop.slowly(engine)
""",
    )

    result.assert_outcomes(passed=1)


def test_a_block_of_async_code(suite):
    result = suite(
        """
import asyncio

def test_it(sqlprobe):
    async def main():
        engine = await shop.connect_async()
        async with sqlprobe.exactly(6):
            await shop.slowly_async(engine)
        await engine.dispose()

    asyncio.run(main())
""",
    )

    result.assert_outcomes(passed=1)


def test_the_fixture_asked_for_in_the_middle_of_a_test(suite):
    result = suite(
        """
def test_it(engine, request):
    shop.quickly(engine)
    sqlprobe = request.getfixturevalue("sqlprobe")
    shop.quickly(engine)
    assert 2 == sqlprobe.calls
""",
    )

    result.assert_outcomes(passed=1)


def test_a_unittests_set_up_is_a_fixture(suite):
    result = suite(
        """
import unittest

class TestIt(unittest.TestCase):
    def setUp(self):
        self.engine = shop.connect()
        shop.slowly(self.engine)

    @pytest.mark.sqlprobe(exactly=2)
    def test_quick(self):
        shop.quickly(self.engine)

    def test_slow(self):
        shop.slowly(self.engine)

    @pytest.mark.sqlprobe(exactly=1)
    def test_own_failure(self):
        shop.quickly(self.engine)
        self.fail("own")
""",
        "--sqlprobe=fail",
    )

    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["test_slow: lazy load*", "*AssertionError: own"], consecutive=False)


def test_class_fixtures_and_parameters(suite):
    result = suite(
        """
@pytest.mark.parametrize("read", [shop.quickly, shop.slowly])
@pytest.mark.sqlprobe(max_queries=2)
def test_it(engine, read):
    read(engine)
""",
    )

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["test_it[[]slowly[]] ran 6 statements, budget is 2 (4 over)."])
