"""What a run leaves behind: reports, budgets, annotations; one writer, whole numbers."""

from __future__ import annotations

import json
import os

import pytest

from sqlprobe import Report, ScopeStats, load_budgets
from sqlprobe.stats import scope_stats

TESTS = """
from sqlprobe import scope

def test_slow(engine):
    with scope("GET /orders", kind="request"):
        shop.slowly(engine)

def test_quick(engine):
    with scope("GET /orders", kind="request"):
        shop.quickly(engine)
    with scope("GET /health", kind="request"):
        pass
    with scope("import", kind="task"):
        shop.quickly(engine)
"""


def said(result):
    return [line.removeprefix("sqlprobe: ") for line in result.outlines if line.startswith("sqlprobe: ")]


def test_writes_each_format(suite, pytester):
    names = ["report.json", "report.md", "report.sarif"]

    result = suite(TESTS, *(f"--sqlprobe-report={name}" for name in names))

    result.assert_outcomes(passed=2)
    report = Report.read(pytester.path / "report.json")
    (finding,) = report.findings
    assert ("n-plus-one", "Order.items", 5, "GET /orders") == (
        finding.rule,
        finding.label,
        finding.count,
        finding.scope,
    )
    assert "test_it.py::test_slow" == finding.evidence["test"]
    assert 10 == report.total_calls
    assert {
        ("GET /orders", "request", 2, 8),
        ("import", "task", 1, 2),
        ("test_it.py::test_slow", "test", 1, 6),
        ("test_it.py::test_quick", "test", 1, 4),
    } == {(each.name, each.kind, each.count, each.calls) for each in report.scopes}
    assert "select(Order).options(selectinload(Order.items))" in (pytester.path / "report.md").read_text()
    (run,) = json.loads((pytester.path / "report.sarif").read_text())["runs"]
    assert ["n-plus-one"] == [result["ruleId"] for result in run["results"]]


def test_html_is_written_or_refused_before_the_first_test(suite, pytester):
    from sqlprobe.report import SUFFIXES

    result = suite(TESTS, "--sqlprobe-report=report.html")

    if ".html" in SUFFIXES:
        result.assert_outcomes(passed=2)
        assert "<html" in (pytester.path / "report.html").read_text()
    else:
        assert 4 == result.ret
        result.stderr.fnmatch_lines(["*the suffix names the format, HTML is not available*"])


def test_paths_in_the_ini_file_are_relative_to_it(suite, pytester, monkeypatch):
    pytester.makeini("[pytest]\nsqlprobe_report =\n    report.json\n    report.md\n")
    pytester.mkdir("sub")
    (pytester.path / "sub" / "test_sub.py").write_text(f"import shop\n{TESTS}")
    monkeypatch.chdir(pytester.path / "sub")

    suite(None, "..")

    assert 10 == Report.read(pytester.path / "report.json").total_calls
    assert (pytester.path / "report.md").exists()


def test_known_and_allowed_findings(suite, pytester):
    """What the baseline knows is in the report; what is allowed is not."""
    allowed = TESTS.replace("def test_slow", '@pytest.mark.sqlprobe(allow=["n-plus-one"])\ndef test_slow')

    suite(TESTS, "--sqlprobe-baseline=base.json", "--sqlprobe-update-baseline")
    suite(None, "--sqlprobe-baseline=base.json", "--sqlprobe-report=known.json")
    suite(allowed, "--sqlprobe-report=allowed.json")

    assert 1 == len(Report.read(pytester.path / "known.json").findings)
    assert () == Report.read(pytester.path / "allowed.json").findings


def test_proposes_budgets(suite, pytester):
    path = pytester.path / "budgets.toml"

    result = suite(TESTS, "--sqlprobe-budgets=budgets.toml", "--sqlprobe-write-budgets")

    result.assert_outcomes(passed=2)
    assert {"GET /orders": 6} == load_budgets(path)  # the most that was seen; tasks and threads have none
    assert "budgets budgets.toml: 1 scope added, 0 kept" in said(result)


def test_budgets_are_merged_and_never_loosened(suite, pytester):
    path = pytester.path / "budgets.toml"
    path.write_text('# ours\n[budgets]\n"GET /orders" = 3\n"GET /old" = 9\n')

    result = suite(
        TESTS.replace('"import", kind="task"', '"job", kind="job"'),
        "--sqlprobe-budgets=budgets.toml",
        "--sqlprobe-write-budgets",
    )

    assert {"GET /orders": 3, "GET /old": 9, "job": 2} == load_budgets(path)
    assert path.read_text().startswith("# ours\n")
    assert "budgets budgets.toml: 1 scope added, 2 kept" in said(result)
    (line,) = [line for line in said(result) if "GET /orders" in line and "stays" in line]
    assert line.startswith("budgets budgets.toml: GET /orders ran 6, its budget of 3 stays")


def test_budgets_of_a_production_report(suite, pytester):
    calls = [0] * 53
    calls[4] = 100  # a hundred scopes of four statements

    def scope(name: str, kind: str = "request") -> ScopeStats:
        from sqlprobe.stats import BUCKETS, CALL_BOUNDS

        histogram = tuple(calls[: len(CALL_BOUNDS) + 1])
        return scope_stats(
            name=name, kind=kind, calls=400, distinct=4, rows=0, seconds=1.0, wall_seconds=1.0, late=0, errors=0,
            calls_histogram=histogram, seconds_histogram=(100, *[0] * (BUCKETS - 1)),
        )  # fmt: skip

    report = Report(scopes=(scope("GET /users"), scope("GET /orders"), scope("thread worker", "thread")))
    (pytester.path / "production.json").write_text(report.to_json())

    suite(TESTS, "--sqlprobe-budgets=b.toml", "--sqlprobe-write-budgets", "--sqlprobe-budgets-from=production.json")

    assert {"GET /users": 4, "GET /orders": 6} == load_budgets(pytester.path / "b.toml")


def test_a_scope_over_its_budget_fails_the_test(suite, pytester):
    (pytester.path / "budgets.toml").write_text('[budgets]\n"GET *" = 5\n')

    result = suite(TESTS, "--sqlprobe-budgets=budgets.toml", "--sqlprobe-fail-on=query-budget")

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["test_slow: GET /orders ran 6 statements, its budget is 5*"])


def test_annotates_pull_requests(suite, pytester, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path))
    summary = pytester.path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))

    result = suite(TESTS, "--sqlprobe=fail")
    result.stdout.fnmatch_lines(
        [
            "::error file=shop.py,line=*,title=sqlprobe n-plus-one::lazy load of Order.items ran 5 times*%0Aload Order.items*"
        ]
    )
    assert summary.read_text().startswith("before\n## sqlprobe: 1 finding in 1 of 2 tests")

    suite(None, "--sqlprobe=warn", "-Wignore").stdout.fnmatch_lines(["::warning file=shop.py,*"])
    suite(None).stdout.no_fnmatch_line("::*")  # nobody asked
    suite(None, "--sqlprobe=fail", "--sqlprobe-github=off").stdout.no_fnmatch_line("::*")


def test_workflow_commands_cannot_be_injected():
    from sqlprobe.pytest_plugin.outcome import _data, _property

    assert "50%25%0A::error::" == _data("50%\n::error::")
    assert "a%3Ab%2Cc%0D%0A" == _property("a:b,c\r\n")


def test_a_report_that_cannot_be_written_is_told(suite, pytester):
    if os.geteuid() == 0:
        pytester.mkdir("gone")
        tests = TESTS + "\ndef test_last():\n    import pathlib\n    pathlib.Path('gone').rmdir()\n"
    else:  # pragma: no cover - the suite runs as root in CI
        pytest.skip("as root only")

    result = suite(tests, "--sqlprobe-report=gone/report.json")

    assert 4 == result.ret
    assert any("cannot be written" in line for line in said(result))


@pytest.mark.parametrize(("top", "rows"), [("0", 0), ("1", 1)])
def test_top(suite, top, rows):
    result = suite(TESTS, "--sqlprobe=report", f"--sqlprobe-top={top}")

    assert rows == sum("test_it.py::test_" in line and " statements " in line for line in result.outlines)
