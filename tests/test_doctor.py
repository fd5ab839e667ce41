"""`sqlprobe doctor`: what it says of a healthy process, and of each thing that can be wrong with one."""

from __future__ import annotations

import asyncio
import json

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine, event

import sqlprobe
from sqlprobe import capture, cli, doctor, faults, orm


def found(diagnosis: doctor.Diagnosis, name: str) -> list[tuple[str, str]]:
    return [(check.status, check.text) for check in diagnosis.checks if check.name == name]


@pytest.fixture(autouse=True)
def _nothing_left():
    yield
    faults.forget()
    capture.uninstall()


@pytest.fixture
def listener():
    """`listener(handler, event)` handles *event* of every engine, until the test ends."""
    added = []

    def add(handler, name="do_execute"):
        event.listen(Engine, name, handler)
        added.append((name, handler))
        return handler

    yield add
    for name, handler in added:
        if event.contains(Engine, name, handler):
            event.remove(Engine, name, handler)


def test_a_healthy_process_is_said_to_be():
    diagnosis = doctor.examine()

    assert ((), ()) == (diagnosis.failed, diagnosis.degraded)
    assert str(diagnosis).startswith("sqlprobe doctor: capture works\n")
    assert {"Core", "text()", "DDL", "executemany", "insertmanyvalues", "exec_driver_sql", "async"} == {
        check.name.removeprefix("captures ") for check in diagnosis.checks if check.name.startswith("captures ")
    }


def test_versions_are_told():
    diagnosis = doctor.examine()

    assert [("ok", sa.__version__)] == found(diagnosis, "sqlalchemy")
    assert "SQLite" in found(diagnosis, "drivers")[0][1]


def test_what_it_tries_is_in_no_report_and_no_scope(engine):
    with sqlprobe.attach(None) as probe, engine.connect() as connection, sqlprobe.scope("mine") as scope:
        connection.execute(sa.text("SELECT 1"))
        diagnosis = doctor.examine()
        connection.execute(sa.text("SELECT 1 AS other"))
        report = probe.report()

    assert ((), 2, 2, ()) == (diagnosis.failed, report.total_calls, scope.calls, report.findings)


def test_it_may_be_asked_inside_an_event_loop():
    async def main():
        return doctor.examine()

    assert () == asyncio.run(main()).failed


def test_it_may_be_asked_twice():
    assert doctor.examine().failed == doctor.examine().failed == ()


def test_probes_and_engines_are_told(engine, make_engine, sqlite_url):
    other = make_engine(sqlite_url())
    with sqlprobe.record():
        for each in (engine, other):
            with each.connect() as connection:
                connection.execute(sa.text("SELECT 1"))
    with sqlprobe.attach(engine) as probe, engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
        before = doctor.examine()
        probe.pause()
        after = doctor.examine()

    name = "sqlite:///"
    assert [("ok", f"of {name}; engines: {name}")] == found(before, "probe")
    assert [("degraded", f"of {name}; it is paused; engines: {name}")] == found(after, "probe")
    text = f"{capture.engine_name(other)} has run statements for a recording; no probe observes it"
    assert ("ok", text) in found(before, "engine")


def test_a_handler_of_others_before_ours_that_hides_statements_is_named(listener):
    def greedy(cursor, statement, parameters, context):
        cursor.execute(statement, parameters)
        return True

    listener(greedy)

    diagnosis = doctor.examine()

    name = f"{__name__}:{greedy.__qualname__}"
    text = (
        f"{name} handles do_execute of every engine before sqlprobe does: the statements for which it returns True are "
    )
    text += "not seen; attach sqlprobe before it is installed"
    assert [("degraded", text)] == found(diagnosis, "other handler")
    assert [("failed", f"not seen: {name} handles it first; attach sqlprobe before that is installed")] == found(
        diagnosis, "captures Core"
    )
    assert [("ok", "seen")] == found(diagnosis, "captures executemany")
    assert "capture does not work" in str(diagnosis)


def test_a_handler_of_others_before_ours_that_only_looks_is_named(listener):
    listener(lambda *_: None)

    diagnosis = doctor.examine()

    assert ((), ["other handler"]) == (diagnosis.failed, [check.name for check in diagnosis.degraded])


def test_a_handler_of_others_after_ours_is_named_and_fine(listener, engine):
    def looks(*_):
        return None

    with sqlprobe.attach(None), engine.connect() as connection:
        listener(looks)
        event.listen(engine, "do_execute", looks)
        connection.execute(sa.text("SELECT 1"))

        diagnosis = doctor.examine()

    name = f"{__name__}:{looks.__qualname__}"
    assert () == diagnosis.degraded
    assert ("ok", f"{name} handles do_execute of every engine; sqlprobe calls it") in found(diagnosis, "other handler")


def test_handlers_taken_off_by_other_code_are_told(engine):
    with sqlprobe.attach(engine):
        event.remove(Engine, "do_execute", capture._on_execute)

        diagnosis = doctor.examine()

        event.listen(Engine, "do_execute", capture._on_execute)

    assert "failed" == found(diagnosis, "hook")[0][0]
    assert [("failed", "not seen: sqlprobe's handlers were taken off SQLAlchemy's Engine by other code")] == found(
        diagnosis, "captures Core"
    )


def test_a_private_name_that_is_gone_degrades_attribution(monkeypatch):
    monkeypatch.setattr(orm, "_NEEDED", (("sqlalchemy.orm.loading", "_gone", "which query loaded the parents"),))

    diagnosis = doctor.examine()

    text = "sqlalchemy.orm.loading._gone is missing, so sqlprobe cannot tell which query loaded the parents"
    assert ((), [("degraded", text)]) == (diagnosis.failed, found(diagnosis, "SQLAlchemy's private names"))


def test_attribution_that_fails_is_degraded_and_not_failed(monkeypatch):
    def broken(*_):
        raise AttributeError("_lazy_loaded_from")

    monkeypatch.setattr(orm, "draw", broken)

    diagnosis = doctor.examine()

    assert "degraded" == found(diagnosis, "ORM attribution")[0][0]
    assert "degraded" == found(diagnosis, "faults")[0][0]


def test_settings_are_told_as_they_result(monkeypatch):
    monkeypatch.setenv("SQLPROBE_SLOW_SECONDS", "0.5")

    assert [("ok", "slow_seconds=0.5 (SQLPROBE_SLOW_SECONDS)")] == found(doctor.examine(), "settings")


def test_settings_that_turn_it_off_or_cannot_be_are_told(monkeypatch):
    monkeypatch.setenv("SQLPROBE_ENABLED", "0")
    off = doctor.examine()
    monkeypatch.setenv("SQLPROBE_ENABLED", "perhaps")
    wrong = doctor.examine()

    assert ["degraded", "failed"] == [found(each, "settings")[0][0] for each in (off, wrong)]


def test_faults_are_told():
    faults.count("judge", ValueError("a row"))

    assert [("degraded", "1 in judge: ValueError; the application goes on")] == found(doctor.examine(), "faults")


def test_what_cannot_be_looked_at_is_told(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda _: 1 / 0)

    diagnosis = doctor.examine()

    assert ("failed", "cannot be looked at: ZeroDivisionError: division by zero") in found(diagnosis, "versions")


def test_the_command_prints_it(capsys):
    assert 0 == cli.main(["doctor"])
    assert capsys.readouterr().out.startswith("sqlprobe doctor: capture works\n")


def test_the_command_prints_json(capsys, listener):
    def greedy(cursor, statement, parameters, _context):
        cursor.execute(statement, parameters)
        return True

    listener(greedy)

    status = cli.main(["doctor", "--json"])

    told = json.loads(capsys.readouterr().out)
    assert (1, False) == (status, told["works"])
    assert {"name", "status", "text"} == set(told["checks"][0])


def test_settings_are_told_with_their_sources(tmp_path, monkeypatch, engine):
    (tmp_path / "pyproject.toml").write_text("[tool.sqlprobe]\nloop_threshold = 4\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SQLPROBE_SLOW_SECONDS", "0.5")
    with sqlprobe.attach(engine, settings=sqlprobe.Settings(release="7")):
        diagnosis = doctor.examine()

    told = f"slow_seconds=0.5 (SQLPROBE_SLOW_SECONDS), loop_threshold=4 ({tmp_path / 'pyproject.toml'})"
    of_probe = told.replace(", loop", ", loop") + ", release='7' (code)"
    assert [("ok", told)] == found(diagnosis, "settings")
    assert [set(of_probe.split(", "))] == [set(text.split(", ")) for _, text in found(diagnosis, "its settings")]


def test_settings_without_any_source_are_the_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    bare = found(doctor.examine(), "settings")
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'shop'\n")
    other = found(doctor.examine(), "settings")

    assert [
        [("ok", "the defaults; no SQLPROBE_… variable is set, no pyproject.toml is here")],
        [("ok", f"the defaults; no SQLPROBE_… variable is set, {tmp_path / 'pyproject.toml'} has no [tool.sqlprobe]")],
    ] == [bare, other]
