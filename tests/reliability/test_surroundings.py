"""What goes wrong around a program: a full disk, a clock that is set back, an interpreter that ends in mid-statement."""

from __future__ import annotations

import resource
import subprocess
import sys
import textwrap

import pytest

from sqlprobe import Report

pytestmark = pytest.mark.once
PATIENCE = 60

# A disk is full when a write fails. A limit on the size of files makes it fail in the same places, for this process.
ROOM = {"none": 0, "some": 100, "for the last report only": 3_000}
ASKS = """
import sys
import sqlalchemy as sa

engine = sa.create_engine("sqlite://")
with engine.connect() as connection:
    for number in range(50):
        connection.execute(sa.text(f"SELECT {number} AS {'a' * (number + 1)}"))
print("answered")
sys.exit(7)
"""


@pytest.fixture
def python(tmp_path):
    """`python(source, *options)`: a program, run by this interpreter with the folder of the test as its own."""

    def run(source, *options, largest=None, **environment):
        (tmp_path / "program.py").write_text(textwrap.dedent(source))
        limit = None if largest is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        return subprocess.run(
            [sys.executable, "-B", *options, "program.py"],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            preexec_fn=limit,
        )

    return run


@pytest.mark.long
@pytest.mark.parametrize(
    "room", ["none", pytest.param("some", marks=pytest.mark.exhaustive), "for the last report only"]
)
def test_a_full_disk_is_named_and_the_program_runs(python, tmp_path, room):
    before = "what was here before"
    (tmp_path / "report.json").write_text(before)
    done = python(ASKS, "-m", "sqlprobe", "run", "-o", "report.json", largest=ROOM[room])

    assert ("answered", 7) == (done.stdout.strip(), done.returncode)
    assert "File too large" in done.stderr or "No usable temporary directory" in done.stderr
    assert ("WHAT TO CHECK" in done.stderr, "Traceback" in done.stderr) == (False, False)
    left = (tmp_path / "report.json").read_text()
    if room == "for the last report only":
        (note,) = Report.from_json(left).notes
        assert "could not save what it did at last: File too large" in note
    else:
        assert left == before
        assert "report.json: cannot be written" in done.stderr


@pytest.mark.long
def test_a_full_disk_stops_no_exporter(python, tmp_path):
    (tmp_path / "shared").mkdir()
    program = """
    import sqlalchemy as sa
    import sqlprobe
    from sqlprobe import faults

    engine = sa.create_engine("sqlite://")
    probe = sqlprobe.attach(engine, exporters="prometheus")
    with engine.connect() as connection:
        for number in range(5):
            with sqlprobe.scope(f"work {number}"):
                connection.execute(sa.text("SELECT 1"))
    calls = sum(each.calls for each in probe.report().statements)
    probe.detach()  # the last write
    print(calls, {fault.where for fault in faults.told()})
    """
    done = python(program, largest=0, PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "shared"))

    assert ("5 {'prometheus multiprocess'}", 0) == (done.stdout.strip(), done.returncode), done.stderr


def test_a_clock_that_is_set_back_changes_no_duration(python):
    program = """
    import time

    offset, true_time, true_ns = 0.0, time.time, time.time_ns
    time.time = lambda: true_time() + offset
    time.time_ns = lambda: true_ns() + int(offset * 1e9)

    import sqlalchemy as sa
    import sqlprobe

    engine = sa.create_engine("sqlite://")
    probe = sqlprobe.attach(engine, settings=sqlprobe.Settings(slow_seconds=1e-9))
    reports = []
    with sqlprobe.record() as recording, engine.connect() as connection:
        for step in (0.0, -86_400.0, -172_800.0, 3_600.0):
            with sqlprobe.scope("work"):
                connection.execute(sa.text("SELECT 1"))
                offset = step
                connection.execute(sa.text("SELECT 1"))
            reports.append(probe.report())
    report = sqlprobe.Report.merge(sqlprobe.Report.from_json(reports[-1].to_json()), recording.report())
    reports.append(report)
    for each in reports:
        assert not each.faults, each.faults
        for statement in each.statements:
            assert 0 <= statement.min <= statement.max <= statement.seconds, statement
            assert statement.first_seen <= statement.last_seen, statement
        for scope in each.scopes:
            assert 0 <= scope.seconds <= scope.wall_seconds, scope
    print(reports[-2].statements[0].calls, reports[-2].scopes[0].count)
    """
    done = python(program)

    assert ("8 4", 0) == (done.stdout.strip(), done.returncode), done.stderr


@pytest.mark.long
@pytest.mark.parametrize("way", ["embedded", "run"])
@pytest.mark.parametrize(
    "ending", ["returns", *(pytest.param(e, marks=pytest.mark.exhaustive) for e in ("raises", "exits"))]
)
def test_an_interpreter_may_end_in_mid_statement(python, way, ending):
    last = {"returns": "", "raises": "raise ZeroDivisionError", "exits": "sys.exit(3)"}[ending]
    program = f"""
    import sys
    import threading
    import time

    import sqlalchemy as sa
    import sqlprobe

    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool, connect_args={{"check_same_thread": False}})
    began = threading.Event()

    @sa.event.listens_for(engine, "connect")
    def prepare(connection, record):
        connection.create_function("waits", 0, lambda: began.set() or time.sleep(3600))

    if {way == "embedded"}:
        probe = sqlprobe.attach(engine, exporters=["prometheus", "otel"])

    def ask():
        with sqlprobe.scope("work"), engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
            connection.execute(sa.text("SELECT waits()"))

    threading.Thread(target=ask, daemon=True).start()
    began.wait()
    {last}
    """
    options = ["-m", "sqlprobe", "run", "-o", "report.json"] if way == "run" else []
    done = python(program, *options)

    status = {"returns": 0, "raises": 1, "exits": 3}[ending]
    told = [line for line in done.stderr.splitlines() if "sqlprobe" in line and line.startswith((" ", "Exception"))]
    assert (status, []) == (done.returncode, [line for line in told if "Error" in line or "File" in line]), done.stderr
    if way == "run":
        assert "1 statement" in done.stderr
