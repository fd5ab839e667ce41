"""Together with what else a suite may have: xdist, asyncio, anyio, randomly, reruns, benchmark, hypothesis."""

from __future__ import annotations

import json

import pytest

from sqlprobe import Report

TESTS = """
from sqlprobe import scope

@pytest.mark.parametrize("number", range(4))
def test_slow(engine, number):
    with scope("GET /orders", kind="request"):
        shop.slowly(engine)

@pytest.mark.parametrize("number", range(4))
@pytest.mark.sqlprobe(max_queries=2)
def test_quick(engine, number):
    shop.quickly(engine)
"""


def said(result):
    return [line.removeprefix("sqlprobe: ") for line in result.outlines if line.startswith("sqlprobe: ")]


def numbers(path):
    """What must be the same however many processes there were."""
    report = Report.read(path)
    findings = [(each.key, each.scope, each.count, each.occurrences) for each in report.findings]
    statements = sorted((each.fingerprint, each.engine, each.calls) for each in report.statements)
    scopes = sorted((each.name, each.kind, each.count, each.calls) for each in report.scopes)
    return findings, statements, scopes


@pytest.mark.long
def test_xdist_tells_and_writes_the_same_as_one_process(suite, pytester):
    options = (
        "--sqlprobe=report", "--sqlprobe-baseline=base.json", "--sqlprobe-update-baseline",
        "--sqlprobe-budgets=budgets.toml", "--sqlprobe-write-budgets",
    )  # fmt: skip
    one = suite(TESTS, *options, "--sqlprobe-report=one.json")
    files = {name: (pytester.path / name).read_text() for name in ("base.json", "budgets.toml")}
    for name in files:
        (pytester.path / name).unlink()

    two = suite(None, *options, "--sqlprobe-report=two.json", "-n2", isolated=True, plugins=["xdist"])

    one.assert_outcomes(passed=8)
    two.assert_outcomes(passed=8)
    assert numbers(pytester.path / "one.json") == numbers(pytester.path / "two.json")
    findings, statements, _ = numbers(pytester.path / "one.json")
    assert ([(20, 4)], 32) == ([each[2:] for each in findings], sum(calls for *_, calls in statements))
    assert files == {name: (pytester.path / name).read_text() for name in files}
    assert ["1 finding in 4 of 8 tests"] == [line[:25] for line in said(two) if "finding in" in line]
    assert 2 == len(Report.read(pytester.path / "two.json").processes)


@pytest.mark.exhaustive
def test_xdist_gates_with_a_baseline(suite, pytester):
    options = ("--sqlprobe-baseline=base.json", "--sqlprobe=fail")
    suite(TESTS, *options, "--sqlprobe-update-baseline").assert_outcomes(passed=8)
    new = "\ndef test_new(engine):\n    with shop.Session(engine) as session:\n        [o.items for o in session.scalars(sa.select(shop.Order)).all()]\n"

    result = suite(TESTS + new, *options, "-n2", isolated=True, plugins=["xdist"])

    result.assert_outcomes(passed=8, failed=1)
    result.stdout.fnmatch_lines(["FAILED test_it.py::test_new*"])


@pytest.mark.exhaustive
def test_xdist_keeps_what_a_worker_that_dies_has_told(suite, pytester):
    tests = TESTS + "\ndef test_zzz_dies():\n    import os\n    os._exit(3)\n"
    (pytester.path / "base.json").write_text('{"format": "sqlprobe-baseline/1", "findings": []}')

    result = suite(
        tests, "--sqlprobe=report", "--sqlprobe-baseline=base.json", "--sqlprobe-update-baseline", "-n1", isolated=True, plugins=["xdist"]
    )  # fmt: skip

    assert any(line.startswith("1 finding in 4 of ") for line in said(result))
    assert "1 worker of xdist died: statements that it counted are missing" in said(result)
    assert "baseline base.json was left as it is: a worker of xdist died" in said(result)
    assert [] == json.loads((pytester.path / "base.json").read_text())["findings"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("arguments", [["--sqlprobe=fial"], ["--sqlprobe-basline=x"]])
def test_xdist_wrong_options(suite, arguments):
    result = suite(TESTS, *arguments, "-n2", isolated=True, plugins=["xdist"])

    assert 4 == result.ret
    result.stderr.fnmatch_lines(["ERROR: *did you mean*"])


@pytest.mark.exhaustive
def test_xdist_wrong_markers(suite):
    tests = "@pytest.mark.sqlprobe(max_query=3)\ndef test_it(engine):\n    pass\n"

    result = suite(tests, "-n2", isolated=True, plugins=["xdist"])

    assert 0 != result.ret
    assert "there is no such argument; did you mean 'max_queries'?" in result.stdout.str() + result.stderr.str()
    result.stdout.no_fnmatch_line("*1 passed*")


ASYNC = """
@pytest.fixture
async def async_engine():
    engine = await shop.connect_async()
    yield engine
    await engine.dispose()

@pytest.mark.MARK
@pytest.mark.sqlprobe(max_queries=5)
async def test_budget(async_engine):
    await shop.slowly_async(async_engine)

@pytest.mark.MARK
@pytest.mark.sqlprobe(exactly=6, mode="report")
async def test_exactly(async_engine):
    await shop.slowly_async(async_engine)

@pytest.mark.MARK
async def test_finding(async_engine):
    await shop.slowly_async(async_engine)

@pytest.mark.MARK
@pytest.mark.sqlprobe(mode="report")
async def test_fixture(async_engine, sqlprobe):
    async with sqlprobe.exactly(6):
        await shop.slowly_async(async_engine)
    assert 6 == sqlprobe.calls
    assert ["n-plus-one"] == [finding.rule for finding in sqlprobe.findings]

@pytest.mark.MARK
@pytest.mark.sqlprobe(mode="report")
async def test_scale(async_engine, sqlprobe):
    async def populate(size):
        await shop.fill_async(async_engine, size)

    async def action():
        await shop.slowly_async(async_engine)

    with pytest.raises(AssertionError, match="action runs more statements when there is more data"):
        await sqlprobe.assert_constant(populate, action)
"""


@pytest.mark.parametrize(
    ("plugin", "mark", "options"),
    [
        ("asyncio", "asyncio", ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]),
        ("anyio", "anyio", []),
    ],
)
def test_async_tests(suite, plugin, mark, options):
    tests = ASYNC.replace("MARK", mark) + "\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"

    result = suite(tests, "--sqlprobe=fail", *options, plugins=[plugin])

    result.assert_outcomes(passed=3, failed=2)
    result.stdout.fnmatch_lines(
        [
            "test_budget ran 6 statements, budget is 5 (1 over).",
            "  lazy load of Order.items ran 5 times at shop.py:*",
            "test_finding: lazy load of Order.items ran 5 times at shop.py:*",
        ]
    )


@pytest.mark.exhaustive
@pytest.mark.parametrize("loop_scope", ["module", "session"])
def test_loops_that_tests_share(suite, loop_scope):
    tests = f"""
pytestmark = pytest.mark.asyncio(loop_scope="{loop_scope}")

@pytest.mark.parametrize("number", range(3))
async def test_it(number):
    engine = await shop.connect_async()
    await shop.slowly_async(engine)
    await engine.dispose()
"""

    result = suite(tests, "--sqlprobe=fail", "-o", "asyncio_default_fixture_loop_scope=function", plugins=["asyncio"])

    result.assert_outcomes(failed=3)
    assert 3 == sum(line.startswith("test_it[") and "Order.items ran 5 times" in line for line in result.outlines)


@pytest.mark.exhaustive
def test_random_order(suite):
    for seed in (1, 2):
        result = suite(TESTS, "--sqlprobe=report", "-prandomly", f"--randomly-seed={seed}")

        result.assert_outcomes(passed=8)
        assert said(result)[0].startswith("1 finding in 4 of 8 tests")


def test_each_rerun_is_measured_by_itself_and_the_last_counts(suite, pytester):
    tests = """
RUNS = []

@pytest.mark.sqlprobe(max_queries=6)
def test_flaky(engine):
    RUNS.append(1)
    shop.slowly(engine)
    assert len(RUNS) == 3

@pytest.mark.sqlprobe(max_queries=5)
def test_over(engine):
    shop.slowly(engine)
"""

    result = suite(tests, "--reruns=2", "--sqlprobe-report=report.json", "--sqlprobe=report", plugins=["rerunfailures"])

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["test_over ran 6 statements, budget is 5 (1 over).", "*4 rerun*"])
    assert said(result)[0].startswith("1 finding in 2 of 2 tests")
    scopes = Report.read(pytester.path / "report.json").scopes
    assert [("test_it.py::test_flaky", 6), ("test_it.py::test_over", 6)] == sorted(
        (each.name, each.calls) for each in scopes
    )


@pytest.mark.exhaustive
def test_benchmarks_are_not_observed(suite, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # the benchmarks' plugin would warn of these tests' own
    tests = """
def test_fast(benchmark, engine):
    benchmark.pedantic(shop.slowly, args=[engine], rounds=3)

@pytest.mark.sqlprobe(max_queries=6)
def test_budget(benchmark, engine):
    benchmark(shop.slowly, engine)
"""

    result = suite(tests, "--sqlprobe=fail", plugins=["benchmark"])
    assert 4 == result.ret
    result.stderr.fnmatch_lines(["*test_budget: a benchmark runs its function many times*--benchmark-disable"])

    result = suite(tests.replace("max_queries=6", "mode='fail'"), "--sqlprobe=fail", plugins=["benchmark"])
    result.assert_outcomes(passed=2)

    result = suite(tests.replace("max_queries=6", "max_queries=5"), "--benchmark-disable", plugins=["benchmark"])
    result.assert_outcomes(passed=1, failed=1)


def test_each_example_of_hypothesis_is_a_test(suite):
    tests = """
from hypothesis import given, settings, strategies, HealthCheck

@pytest.mark.sqlprobe(max_queries=LIMIT)
@given(number=strategies.integers(0, 9))
@settings(max_examples=5, database=None, suppress_health_check=list(HealthCheck))
def test_it(engine, number):
    shop.quickly(engine)
"""

    suite(tests.replace("LIMIT", "2"), "--sqlprobe=fail", plugins=["hypothesispytest"]).assert_outcomes(passed=1)

    result = suite(tests.replace("LIMIT", "1"), plugins=["hypothesispytest"])
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["test_it ran 2 statements, budget is 1 (1 over)."])


@pytest.mark.exhaustive
def test_a_suite_without_sqlalchemy_does_not_get_it(suite, pytester):
    pytester.makeconftest("")
    pytester.makepyfile(
        test_it="def test_it():\n    import sys\n    assert not {'sqlalchemy', 'sqlprobe', 'rich'} & set(sys.modules)\n"
    )

    pytester.runpytest_subprocess("-p", "pytest_sqlprobe", "-p", "no:cacheprovider").assert_outcomes(passed=1)


@pytest.mark.exhaustive
def test_sqlalchemy_that_a_fixture_or_a_test_imports_first(suite, pytester):
    pytester.makeconftest("import pytest\n@pytest.fixture\ndef engine():\n    import shop\n    return shop.connect()\n")
    pytester.makepyfile(
        test_it="def test_first(engine):\n    import shop\n    shop.slowly(engine)\n\ndef test_second(engine):\n    test_first(engine)\n"
    )

    result = pytester.runpytest_subprocess("-p", "pytest_sqlprobe", "-p", "no:cacheprovider")

    result.assert_outcomes(passed=2)
    assert said(result)[0].startswith("1 finding in 2 of 2 tests")


@pytest.mark.exhaustive
def test_pytest_inside_sqlprobe_run(suite, pytester):
    """The whole suite is observed by the command, and each test by the plugin."""
    import sys

    suite(TESTS, "--sqlprobe=off")
    result = pytester.run(
        sys.executable, "-m", "sqlprobe", "run", "-o", "run.json", "-m", "pytest", "-p", "pytest_sqlprobe", "-p", "no:cacheprovider",
    )  # fmt: skip

    result.assert_outcomes(passed=8)
    assert said(result)[0].startswith("1 finding in 4 of 8 tests")
    assert Report.read(pytester.path / "run.json").total_calls > 32  # fixtures too
