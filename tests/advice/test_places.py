"""A lab on a server that was given away for it: `SQLPROBE_LAB_URL`. It plans as the lab's own server does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sqlprobe import cli
from sqlprobe.advice import lab as labs
from sqlprobe.advice import places, prove
from sqlprobe.advice import server as servers
from sqlprobe.advice.lab import open_lab
from sqlprobe.advice.places import LabError

STATEMENTS = (
    "SELECT * FROM t WHERE x = 5",
    "SELECT * FROM t WHERE tenant = 7 AND status = 'open' ORDER BY created_at DESC LIMIT 20",
    "SELECT * FROM child c JOIN t ON t.id = c.t_id WHERE c.id < 50",
    "SELECT * FROM t WHERE doc @> '{\"promo\": 1}'",
    "SELECT * FROM secret WHERE email = 'user7@example.org'",
    "SELECT id FROM t ORDER BY id DESC LIMIT 3",
)


@pytest.fixture(scope="module")
def given(postgresql_server, serve_from):
    """A server as one has it in a container: with checksums, and settings and a superuser of its own."""
    with serve_from(postgresql_server.binaries) as (url, restart):
        server = servers.Server(Path(url.query["host"]) / "data", Path(url.query["host"]), postgresql_server.binaries)
        for setting in ("random_page_cost = 1.7", "work_mem = '1MB'", "jit = on", "fsync = on", "autovacuum = on"):
            server.psql(f"ALTER SYSTEM SET {setting}")
        server.psql("CREATE ROLE master SUPERUSER LOGIN PASSWORD 'S3cret'")
        restart()
        assert server.psql("SHOW data_checksums").strip() == "on"
        yield server


def url_of(server, driver="psycopg", user="master", database="postgres"):
    return server.url_for(driver, database).set(username=user, password="S3cret").render_as_string(hide_password=False)


def all_of(server):
    return server.psql(
        "SELECT datname FROM pg_database UNION ALL SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1"
    ).split()


def tried(world, lab):
    """The shape and cost of every statement, without candidates and with each."""
    found = []
    for statement in STATEMENTS:
        case = world.case(statement)
        candidates = world.candidates(case)
        lab.add(candidates)
        sample, settings = prove.sample_in(lab, case), prove.settings_in(lab, case)
        trials = lab.try_out(sample, [[], *([each] for each in candidates)], settings)
        found += [(statement, len(each.used), each.plan.shape, each.cost) for each in trials]
    return found


@pytest.mark.long
@pytest.mark.parametrize(("driver", "is_async"), [("psycopg", False), ("asyncpg", True)])
def test_it_plans_as_the_labs_own_does_and_leaves_nothing(world, given, monkeypatch, driver, is_async):
    large = tuple(  # of files of 1 GB, three
        dataclasses.replace(each, pages=300_000, known_pages=300_000, known_rows=9e6) if each.name == "t" else each
        for each in world.snapshot.tables
    )
    snapshot = dataclasses.replace(world.snapshot, tables=large)
    with open_lab(snapshot) as own:
        expected = tried(world, own)
    before = all_of(given)
    monkeypatch.setenv("SQLPROBE_LAB_URL", url_of(given, user="master"))
    with open_lab(snapshot, driver, is_async=is_async) as lab:
        assert "advice_app" in all_of(given)
        assert expected == tried(world, lab)
        assert [] == lab.notes
        # Every page of an index that was written passes its checksum, and is a tree as PostgreSQL knows it.
        database = next(name for name in all_of(given) if name.startswith("sqlprobe_lab_"))
        assert "SELECT" in given.psql(
            "SET enable_seqscan = off; SELECT 'SELECT' FROM (SELECT max(id) FROM t) x", database
        )

    assert before == all_of(given)
    assert any(used for _, used, _, _ in expected)


def test_what_a_killed_process_has_left_goes_after_a_day(world, given, monkeypatch):
    given.psql("CREATE DATABASE sqlprobe_lab_1700000000_dead")
    given.psql("CREATE DATABASE sqlprobe_laboratory")
    monkeypatch.setenv("SQLPROBE_LAB_URL", url_of(given))
    with open_lab(world.snapshot) as other:  # two at once do not meet: what one takes with it is not the other's
        with open_lab(world.snapshot):
            assert "advice_app" in all_of(given)
        case = world.case("SELECT * FROM t WHERE x = 5", role="advice_app")
        sample = prove.sample_in(other, case)
        assert ("SELECT set_config('role', 'advice_app', true)", None) in sample.settings
        assert other.try_out(sample, [[]])[0].plan is not None
    left = [name for name in all_of(given) if name.startswith(("sqlprobe_", "advice_"))]
    given.psql("DROP DATABASE sqlprobe_laboratory")

    assert ["sqlprobe_laboratory"] == left


def test_indexes_are_proven_there_without_a_postgresql_of_ones_own(world, given, monkeypatch):
    monkeypatch.setattr(labs.importlib.util, "find_spec", lambda _: None)
    assert not labs.is_installed()
    monkeypatch.setenv("SQLPROBE_LAB_URL", url_of(given))
    assert labs.is_installed()
    (finding,) = prove.advise(world.engine, [world.case("SELECT * FROM t WHERE x = 5")])

    assert (True, "CREATE INDEX") == (finding.fixes[0].verified is not None, finding.fixes[0].code[:12])


def test_a_server_that_will_not_do_is_told_and_its_password_is_not(world, given, postgresql_server, monkeypatch):
    given.psql("CREATE ROLE weak LOGIN PASSWORD 'S3cret'")
    production = postgresql_server.url_for().render_as_string(hide_password=False)
    for url, said in (
        (url_of(given, user="weak"), "a role that is no superuser; a lab writes catalogs and files"),
        (production, "the server that the statistics are of; a lab is never made there"),
        (
            "postgresql://master:S3cret@127.0.0.1:1/x",
            "OperationalError for a connection; check host, role and password",
        ),
        (url_of(given, database="S3cret-db"), "OperationalError for a connection"),
        ("mysql://master:S3cret@h/x", "a URL of mysql; a lab is made on PostgreSQL 18 or newer"),
        ("S3cret", "what is no URL; write one such as postgresql://"),
    ):
        monkeypatch.setenv("SQLPROBE_LAB_URL", url)
        with (
            pytest.raises(LabError, match="SQLPROBE_LAB_URL names the server for labs") as caught,
            open_lab(world.snapshot),
        ):
            pass
        assert (True, False) == (said in str(caught.value), "S3cret" in str(caught.value)), str(caught.value)
        (finding,) = prove.advise(world.engine, [world.case("SELECT * FROM t WHERE x = 5")])
        told = str(finding)
        assert (True, False) == ("not verified: the lab did not start (SQLPROBE_LAB_URL" in told, "S3cret" in told)
    given.psql("DROP ROLE weak")


@pytest.mark.exhaustive
@pytest.mark.requires_debian("postgresql", "initdb", "pg_ctl")
def test_an_older_server_will_not_do(world, serve_from, monkeypatch):
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    with serve_from(programs[-1].parent) as (url, _):
        monkeypatch.setenv("SQLPROBE_LAB_URL", url.render_as_string(hide_password=False))
        with pytest.raises(LabError, match=r"found: PostgreSQL 15; statistics can"), open_lab(world.snapshot):
            pass


def test_a_program_of_the_servers_that_fails_is_told(world, given, monkeypatch):
    monkeypatch.setenv("SQLPROBE_LAB_URL", url_of(given))
    monkeypatch.setattr(places, "_PROLOGUE", ("exit 3",))
    with pytest.raises(LabError, match=r"\(SQLSTATE 38000\) for COPY TO PROGRAM"), open_lab(world.snapshot):
        pass

    assert [] == [name for name in all_of(given) if name.startswith("sqlprobe_")]


def test_the_command_line_uses_it(world, given, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SQLPROBE_LAB_URL", url_of(given))
    monkeypatch.setattr(servers, "serve", None)  # there is no other
    world.snapshot.write(tmp_path / "prod.json")

    assert 0 == cli.main(["explain", "--stats", str(tmp_path / "prod.json"), "SELECT * FROM t WHERE x = 5"])
    told = capsys.readouterr().out
    assert "CREATE INDEX" in told
    assert "lab, PostgreSQL 18" in told
