"""
What every test can ask for: databases, engines, and a skip that says what is missing.

Each pytest process (each worker of xdist) runs at most one PostgreSQL, started by the first test that asks, gone with
the process however that ends: see `sqlprobe.demo.server`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sqlprobe import capture, faults
from sqlprobe.demo.server import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlprobe.demo.server import Server

REQUIRE_ALL = os.environ.get("SQLPROBE_REQUIRE_ALL", "0") not in {"", "0"}
SERVER_FIXTURE = "postgresql_server"


def is_exhaustive(config: pytest.Config) -> bool:
    """Whether this run takes the exhaustive tests, as `make test-all` does; the others are larger then too."""
    return "not exhaustive" not in config.getoption("markexpr")


def pytest_configure(config: pytest.Config) -> None:
    # The same examples on every run, on every machine, however busy it is.
    hypothesis.settings.register_profile(
        "sqlprobe",
        derandomize=True,
        deadline=None,
        database=None,
        max_examples=300 if is_exhaustive(config) else 25,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("sqlprobe")


# Files that take longest: begun first, so that no worker is left alone with one of them at the end.
LONGEST = (
    "test_run.py",
    "test_demo.py",
    "test_worker.py",
    "test_browser.py",
    "test_explain.py",
    "test_architecture.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)
    for item in items:
        if SERVER_FIXTURE in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.postgresql)


def pytest_runtest_setup(item: pytest.Item) -> None:
    # Debian keeps the server's programs off the PATH.
    folders = [*map(str, Path("/usr/lib/postgresql").glob("*/bin")), *os.get_exec_path(), "/usr/sbin"]
    for marker in item.iter_markers("requires_debian"):
        package, *programs = marker.args
        missing = [program for program in programs if not shutil.which(program, path=os.pathsep.join(folders))]
        if missing:
            pytest.skip(f"needs the Debian package {package}: {', '.join(missing)} not found")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    report = yield
    _fail_if_skipped(report, item.nodeid)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    report = yield
    _fail_if_skipped(report, collector.nodeid)
    return report


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport, name: str) -> None:
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{name} may not be skipped (SQLPROBE_REQUIRE_ALL is set): {reason}"


@pytest.fixture(scope="session")
def size(pytestconfig: pytest.Config) -> Callable[[int, int], int]:
    """`size(100_000, 5_000)`: how many, in `make test-all` and in `make test`."""
    return lambda whole, part: whole if is_exhaustive(pytestconfig) else part


@pytest.fixture(autouse=True)
def forget_what_other_tests_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement is shown as its first writer spelt it: the writer is to be this test."""
    faults.forget()
    monkeypatch.setattr(capture, "_shapes", {})
    monkeypatch.setattr(capture, "_shape_bytes", 0)


@pytest.fixture(scope="session", name=SERVER_FIXTURE)
def run_postgresql_server() -> Iterator[Server]:
    with serve() as server:
        yield server


@contextlib.contextmanager
def _database(server: Server) -> Iterator[Callable[..., sa.URL]]:
    name = f"test_{secrets.token_hex(4)}"
    server.psql(f"CREATE DATABASE {name} STRATEGY file_copy")

    def url_for(driver: str = "psycopg") -> sa.URL:
        return server.url_for(driver, name)

    yield url_for
    server.psql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgresql_url(postgresql_server: Server) -> Iterator[Callable[..., sa.URL]]:
    """`postgresql_url("asyncpg")`: the URL, for that driver, of a database that is this test's alone."""
    with _database(postgresql_server) as url_for:
        yield url_for


@pytest.fixture(scope="module")
def module_postgresql_url(postgresql_server: Server) -> Iterator[Callable[..., sa.URL]]:
    """As `postgresql_url`; the module's tests share the database and leave it as they found it."""
    with _database(postgresql_server) as url_for:
        yield url_for


@pytest.fixture(scope="session")
def serve_from():
    """`with serve_from(folder) as (url, restart)`: a server from the programs in *folder*, whatever version they are of."""
    return _serve_from


@contextlib.contextmanager
def _serve_from(programs: Path) -> Iterator[tuple[sa.URL, Callable[[], None]]]:
    as_user = ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []  # initdb refuses root
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as name:
        if as_user:
            shutil.chown(name, "nobody")
        data = f"{name}/data"
        options = f"-c listen_addresses= -c unix_socket_directories={name} -c fsync=off -c jit=off -c autovacuum=off"

        def run(*command):
            subprocess.run([*as_user, *command], check=True, stdout=subprocess.DEVNULL, cwd="/")

        run(programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--locale=C.UTF-8", "-E", "UTF8")
        control = (programs / "pg_ctl", "-D", data, "-o", options, "-l", f"{name}/log", "-m", "immediate", "-w")
        run(*control, "start")
        try:
            url = sa.URL.create("postgresql+psycopg", "postgres", database="postgres", query={"host": name})
            yield url, lambda: run(*control, "restart")
        finally:
            run(*control, "stop")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> Callable[..., sa.URL]:
    """`sqlite_url("aiosqlite")`: the URL, for that driver, of a file that is this test's alone."""

    def url_for(driver: str = "pysqlite") -> sa.URL:
        return sa.URL.create(f"sqlite+{driver}", database=str(tmp_path / "test.sqlite"))

    return url_for


@pytest.fixture
def make_engine() -> Iterator[Callable[..., sa.Engine]]:
    """`make_engine(url, **options)`, as `create_engine`, in memory without a URL; disposed of when the test ends."""
    with contextlib.ExitStack() as stack:

        def make(url: sa.URL | str = "sqlite://", **options: object) -> sa.Engine:
            engine = sa.create_engine(url, **options)
            stack.callback(engine.dispose)
            return engine

        yield make


@pytest.fixture
def engine(make_engine: Callable[..., sa.Engine]) -> sa.Engine:
    """SQLite in memory."""
    return make_engine()


@pytest.fixture
def run_async() -> Callable[..., object]:
    """
    `run_async(main, url, **options)`: what the coroutine function *main* returns for an AsyncEngine on *url*.

    The loop is the call's own, and the engine is disposed of before it closes.
    """

    def run(main: Callable[[AsyncEngine], object], url: sa.URL | str, **options: object) -> object:
        async def inside() -> object:
            engine = create_async_engine(url, **options)
            try:
                return await main(engine)
            finally:
                await engine.dispose()

        return asyncio.run(inside())

    return run
