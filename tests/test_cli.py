"""The command line: what is written and shown, and one clear message for what cannot be."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sqlprobe
from sqlprobe import Finding, Report, Site, cli, run
from sqlprobe.run import Outcome
from sqlprobe.stats import BUCKETS, statement_stats


def statement(calls: int = 1, milliseconds: int = 1):
    histogram = tuple(calls if bucket == 8 else 0 for bucket in range(BUCKETS))
    return statement_stats(
        fingerprint="0123456789abcdef",
        text="SELECT orders.id FROM orders",
        summary="SELECT orders",
        operation="SELECT",
        tables=("orders",),
        engine="sqlite:///",
        errors={},
        rows=None,
        parameter_sets=calls,
        pages=calls,
        seconds=calls * milliseconds / 1e3,
        min=milliseconds / 1e3,
        max=milliseconds / 1e3,
        first_seen=1.0,
        last_seen=2.0,
        sites=(),
        slowest=None,
        histogram=histogram,
    )


FINDING = Finding(
    rule="n-plus-one",
    severity="warning",
    title="lazy load of Order.items ran 48 times",
    advice="add .options(selectinload(Order.items))",
    key="n-plus-one Order.items",
    scope="main",
    count=48,
    site=Site("shop/views.py", 31, "orders"),
)
CLEAN = Report(statements=(statement(),))
FAULTY = Report(findings=(FINDING,), statements=(statement(),))


@pytest.fixture
def ran(monkeypatch, tmp_path):
    """`ran(report, status)` lets `sqlprobe run program.py` end so, without running it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "program.py").touch()

    def end(report: Report = CLEAN, status: int = 0) -> None:
        monkeypatch.setattr(run, "run", lambda *_: Outcome(status, report, met_sqlalchemy=True))

    end()
    return end


@pytest.fixture
def reports(tmp_path, monkeypatch):
    """Files with a clean report and with one that has a finding."""
    monkeypatch.chdir(tmp_path)
    CLEAN.write("clean.json")
    FAULTY.write("faulty.json")


# --- wrong use --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND; see sqlprobe --help"),
        (
            ["explode"],
            "argument COMMAND: invalid choice: 'explode' (choose from run, report, grafana, explain, audit, snapshot, demo, doctor); see sqlprobe --help",
        ),
        (["run"], "run: a program is needed, found none; name a script, or a module: sqlprobe run -m module"),
        (["run", "-m"], "run: a program is needed, found none; name a script, or a module: sqlprobe run -m module"),
        (["run", "nope.py"], "run nope.py: no such file; name a Python file, or a module with -m"),
        (["run", "calendar"], "run calendar: no such file; did you mean the module: -m calendar?"),
        (
            ["run", "folder"],
            "run folder: a folder without a __main__.py; name the Python file to run, or a module with -m",
        ),
        (
            ["run", "--slow", "0", "program.py"],
            "run: argument --slow: a number of seconds above 0 is needed, such as 0.2, found '0'; see sqlprobe run --help",
        ),
        (
            ["run", "-o", "report.pdf", "program.py"],
            "report report.pdf: the suffix names the format, found the suffix '.pdf'; use .json, .html, .md, .sarif",
        ),
        (["run", "-o", "folder.json", "program.py"], "-o folder.json: a folder of that name is there; name a file"),
        (
            ["run", "--fail-on", "n-plus-one,slow-statment", "program.py"],
            "--fail-on slow-statment: no rule has this name; did you mean slow-statement?",
        ),
        (["report"], "report: the following arguments are required: FILE; see sqlprobe report --help"),
        (
            ["report", "nope.json"],
            "report nope.json: cannot be read: No such file or directory; name a file that exists",
        ),
        (
            ["report", "broken.json"],
            "report broken.json: JSON is needed, found nothing; the file is damaged or not sqlprobe's: make the report again",
        ),
        (
            ["report", "--top", "0", "broken.json"],
            "report: argument --top: a whole number from 1 on is needed, found '0'; see sqlprobe report --help",
        ),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else "",
)
def test_wrong_use_is_one_message_and_status_2(ran, tmp_path, capsys, arguments, message):
    for folder in ("folder", "folder.json"):
        (tmp_path / folder).mkdir()
    (tmp_path / "broken.json").touch()

    status = cli.main(arguments)

    # Newer versions of argparse put no quotes around choices.
    said = re.sub(r"(?<=[ (])'(\w+)'(?=[,)])", r"\1", capsys.readouterr().err)
    assert (2, f"sqlprobe: {message}\n") == (status, said)


@pytest.mark.parametrize("name", ["nope", "json", "json.nope", "json.tool.x", "os.path", "", "a..b"])
def test_what_python_m_could_not_run_is_said(ran, capsys, name):
    status = cli.main(["run", "-m", name])

    assert (2, f"sqlprobe: run -m {name}: {sys.executable} finds no module {name!r}") == (
        status,
        capsys.readouterr().err.partition(" in the working directory")[0],
    )


@pytest.mark.parametrize("name", ["json.tool", "program", "package", "package.dash-ed", "far.away", "space.inner"])
def test_what_python_m_could_run_is_run(ran, tmp_path, name):
    for file in ("package/__init__.py", "package/__main__.py", "package/dash-ed.py", "space/inner.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "far").mkdir()
    (tmp_path / "far/__init__.py").write_text("__path__.append('/somewhere')")

    assert 0 == cli.main(["run", "-q", "-m", name])


def test_a_missing_output_folder_is_said_before_the_program_runs(ran, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(run, "run", lambda *_: pytest.fail("it ran"))

    status = cli.main(["run", "-o", "nope/report.json", "program.py"])

    folder = tmp_path / "nope"
    message = f"sqlprobe: -o nope/report.json: there is no folder {folder}; make it first, or name another\n"
    assert (2, message) == (status, capsys.readouterr().err)


def test_an_output_folder_of_others_is_said_before_the_program_runs(ran, capsys, tmp_path, monkeypatch):
    (tmp_path / "theirs").mkdir(mode=0o500)
    if os.geteuid() == 0:  # who may write anywhere
        monkeypatch.setattr(os, "access", lambda _path, _mode: False)

    status = cli.main(["run", "-o", "theirs/report.json", "program.py"])

    assert (2, True) == (status, "is not yours to write" in capsys.readouterr().err)


def test_a_setting_that_cannot_be_is_said(ran, monkeypatch, capsys):
    monkeypatch.setenv("SQLPROBE_SLOW_SECONDS", "often")

    status = cli.main(["run", "program.py"])

    message = "sqlprobe: environment variable SQLPROBE_SLOW_SECONDS='often': a number is needed, such as 0.1\n"
    assert (2, message) == (status, capsys.readouterr().err)


# --- run --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "program", "rules", "status"),
    [
        (CLEAN, 0, "any", 0),
        (FAULTY, 0, "any", 1),
        (FAULTY, 0, "n-plus-one", 1),
        (FAULTY, 0, "slow-statement,n-plus-one", 1),
        (FAULTY, 0, "slow-statement", 0),
        (FAULTY, 3, "any", 3),
    ],
)
def test_fail_on_turns_success_into_1_and_nothing_else(ran, report, program, rules, status):
    ran(report, program)

    assert status == cli.main(["run", "-q", "--fail-on", rules, "program.py"])


@pytest.mark.parametrize(
    ("rule", "options", "who"),
    [
        ("missing-index", [], "sqlprobe explain --advise does, and sqlprobe run --explain"),
        ("seq-scan", [], "sqlprobe explain does, and sqlprobe run --explain"),
        ("seq-scan", ["--explain"], None),
        ("missing-index", ["--explain"], None),
        ("tenant-hierarchy", [], "sqlprobe audit does"),
        ("n-plus-one", [], None),
    ],
)
def test_a_rule_that_the_command_does_not_look_for_is_said(ran, capsys, rule, options, who):
    cli.main(["run", "-q", "--fail-on", rule, *options, "program.py"])

    said = f"sqlprobe: --fail-on {rule}: this command does not look for it, so it will not fail; {who}\n"
    assert (said if who else "") == capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["n-plus-one"], "so it will not fail; sqlprobe run does"),
        (["missing-index"], "so it will not fail; sqlprobe explain --advise does"),
        (["missing-index", "--advise"], ""),
        (["seq-scan"], ""),
    ],
)
def test_explain_says_what_it_does_not_look_for(capsys, monkeypatch, options, said):
    monkeypatch.delenv("DATABASE_URL", raising=False)

    assert 2 == cli.main(["explain", "SELECT 1", "--fail-on", *options])
    first, *_ = capsys.readouterr().err.splitlines()
    assert said in first
    assert bool(said) is ("will not fail" in first)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--url", "postgresql+psycopg://me:secret@127.0.0.1:1/x", "-o", "x.json"], "its statistics were asked for"),
        (["--url", "postgresql+psycopg://me:secret@127.0.0.1:1/x", "-o", "no/x.json"], "there is no folder"),
        (["--url", "sqlite://", "-o", "x.json"], "a PostgreSQL and a role"),
        (["--url", "nonsense", "-o", "x.json"], "a URL of SQLAlchemy whose driver is installed is needed"),
        (["-o", "x.json"], "give --url"),
    ],
)
def test_snapshot_says_what_is_wrong(capsys, monkeypatch, arguments, said):
    monkeypatch.delenv("DATABASE_URL", raising=False)

    assert 2 == cli.main(["snapshot", *arguments])
    error = capsys.readouterr().err
    assert said in error
    assert "secret" not in error


def test_a_report_is_shown_on_standard_error_and_written_by_suffix(ran, capsys, tmp_path):
    ran(FAULTY)

    status = cli.main(["run", "-o", "a.json", "--output", "a.md", "-o", "a.sarif", "program.py"])

    shown = capsys.readouterr()
    assert (0, "", True) == (status, shown.out, "Order.items ran 48 times" in shown.err)
    assert Report.read("a.json") == FAULTY
    assert "Order.items" in (tmp_path / "a.md").read_text()
    assert "2.1.0" == json.loads((tmp_path / "a.sarif").read_text())["version"]


def test_quiet_says_nothing(ran, capsys):
    ran(FAULTY)

    cli.main(["run", "--quiet", "program.py"])

    assert ("", "") == capsys.readouterr()


def test_a_report_that_cannot_be_written_is_shown_and_the_status_kept(ran, monkeypatch, capsys, tmp_path):
    (tmp_path / "gone").mkdir()

    def end(*_: object) -> Outcome:
        (tmp_path / "gone").rmdir()
        return Outcome(3, FAULTY, met_sqlalchemy=True)

    monkeypatch.setattr(run, "run", end)

    status = cli.main(["run", "-o", "gone/report.json", "program.py"])

    said = capsys.readouterr().err
    assert (3, True, True) == (status, "48 times" in said, "report gone/report.json: cannot be written" in said)


def test_a_report_that_cannot_be_shown_is_written(ran, monkeypatch, capsys):
    from sqlprobe import render

    monkeypatch.setattr(render, "print_report", lambda *_, **__: 1 / 0)

    status = cli.main(["run", "-o", "report.json", "program.py"])

    said = "sqlprobe: the report cannot be shown (ZeroDivisionError: division by zero); -o report.json writes it to a file\n"
    assert (0, said, CLEAN) == (status, capsys.readouterr().err, Report.read("report.json"))


def test_disabled_by_the_environment_is_said(ran, monkeypatch, capsys):
    monkeypatch.setenv("SQLPROBE_ENABLED", "0")

    cli.main(["run", "program.py"])

    assert (
        "sqlprobe: SQLPROBE_ENABLED turns sqlprobe off: the program was run and not observed\n"
        == capsys.readouterr().err
    )


def test_options_are_settings_and_the_program_keeps_its_own(ran, monkeypatch):
    seen = []
    monkeypatch.setattr(run, "run", lambda *given: seen.append(given) or Outcome(0, CLEAN, met_sqlalchemy=True))
    monkeypatch.setenv("SQLPROBE_RELEASE", "7")

    cli.main(["run", "-q", "--slow", "0.5", "--call-sites", "first", "program.py", "-q", "--slow", "-m", "--", "x"])
    cli.main(["run", "-q", "-m", "json.tool", "-o", "x"])

    first, second = seen
    assert ["program.py", "-q", "--slow", "-m", "--", "x"] == first[0]
    assert (0.5, "first", "7", True) == (
        first[1].slow_seconds,
        first[1].call_sites,
        first[1].release,
        first[1].auto_scope,
    )
    assert (["-m", "json.tool", "-o", "x"], "all") == (second[0], second[1].call_sites)


# --- report -----------------------------------------------------------------------------------------------------------


def test_reports_are_added_up(reports, capsys):
    status = cli.main(["report", "clean.json", "faulty.json", "-o", "both.json"])

    assert (0, True) == (status, "48 times" in capsys.readouterr().out)
    assert Report.merge(CLEAN, FAULTY) == Report.read("both.json")


def test_a_report_as_json_leaves_standard_output_to_it(reports, capsys):
    cli.main(["report", "faulty.json", "-o", "-"])

    assert FAULTY == Report.from_json(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["faulty.json"], 1),
        (["clean.json"], 0),
        (["faulty.json", "--against", "clean.json"], 1),
        (["faulty.json", "--against", "faulty.json"], 0),
    ],
)
def test_fail_on_heeds_new_findings_only_where_there_is_a_base(reports, arguments, status):
    assert status == cli.main(["report", "-q", "--fail-on", "any", *arguments])


def test_what_has_changed_is_shown(reports, capsys):
    cli.main(["report", "faulty.json", "--against", "clean.json"])

    assert "Order.items" in capsys.readouterr().out


# --- as a command -----------------------------------------------------------------------------------------------------


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])

    assert (0, f"sqlprobe {sqlprobe.__version__}\n") == (ended.value.code, capsys.readouterr().out)


@pytest.mark.parametrize("command", ["run", "report", "doctor", "demo"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])

    assert (0, True) == (ended.value.code, f"sqlprobe {command}" in capsys.readouterr().out)


def test_a_reader_that_has_read_enough_is_no_error(reports):
    environment = {**os.environ, "PYTHONPATH": str(Path(sqlprobe.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-m", "sqlprobe", "report", "faulty.json", "-o", "-"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()

    assert (141, b"") == (process.wait(60), said)
