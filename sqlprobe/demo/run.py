"""The demo from end to end: rows, made once; a server on a copy of them; requests; the report."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from sqlprobe.demo import applied, data, load
from sqlprobe.demo.app import create_app, create_engine
from sqlprobe.demo.server import build, cache, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy.ext.asyncio import AsyncEngine
    from starlette.types import ASGIApp

    from sqlprobe import Probe, Report
    from sqlprobe.demo.server import Server

DATABASE = "migration"
UNFINISHED = 3600.0  # seconds after which a build that has not been renamed is one that was killed
UNUSED = 30 * 86400.0  # seconds after which the rows of another version are not worth their 270 MB


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asks for; `scale` multiplies `data.ROWS`."""

    requests: int
    scale: float = 1.0
    output: Path | None = None
    keep: bool = False
    apply: bool = False


class Observer(Protocol):
    """Watches the application while it is used."""

    def watch(self, app: ASGIApp) -> ASGIApp:
        """*app* with whatever tells one request from another."""

    def show(self, output: Path | None) -> None:
        """Say what was seen; the server is still there."""


Observe: TypeAlias = "Callable[[AsyncEngine], AbstractContextManager[Observer]]"


class Profiler:
    """The observer that this is all about. `report` is what it has shown."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.report: Report | None = None

    def watch(self, app: ASGIApp) -> ASGIApp:
        from sqlprobe.integrations.asgi import SqlprobeMiddleware

        return SqlprobeMiddleware(app)

    def show(self, output: Path | None) -> None:
        from sqlprobe.render import print_report

        self.probe.explain()
        self.report = report = self.probe.report()
        print_report(report, Console(), every_fault=True)
        if output is not None:
            report.write(output)


@contextmanager
def profile(engine: AsyncEngine) -> Iterator[Observer]:
    """With sqlprobe attached to *engine*."""
    import sqlprobe

    # Plans are asked for when the load is over: in the background they would come with a server of a day's standing.
    # Its statuses tell of nobody, so partial indexes may name them.
    settings = sqlprobe.Settings(explain=True, explain_per_minute=0, advice_values=True)
    probe = sqlprobe.attach(engine, settings=settings)
    try:
        yield Profiler(probe)
    finally:
        probe.detach()


def perform(plan: Plan, observe: Observe | None = None) -> None:
    """
    Do what *plan* says and leave nothing but the cached rows.

    Raises:
        SqlprobeError: PostgreSQL does not start, or a request fails.
    """
    console = Console(stderr=True)
    with rows(plan.scale, console) as template, serve(template=template) as server:
        asyncio.run(_use(server, plan, observe or profile, console))
        if plan.keep:
            console.print(f"The database is at {server.url_for('psycopg', DATABASE)} until Ctrl-C", soft_wrap=True)
            with suppress(KeyboardInterrupt):
                while True:
                    time.sleep(3600)


async def _use(
    server: Server,
    plan: Plan,
    observe: Observe,
    console: Console,
) -> None:
    engine = create_engine(server.url_for("asyncpg", DATABASE))
    try:
        with observe(engine) as observer:
            await _drive(engine, observer, plan, console)
            observer.show(plan.output)
        if plan.apply and isinstance(observer, Profiler) and observer.report is not None:
            await _apply(server, engine, plan, observer.report, console)
    finally:
        await engine.dispose()


async def _drive(engine: AsyncEngine, observer: Observer, plan: Plan, console: Console) -> None:
    app = observer.watch(create_app(engine))
    calls = load.calls(plan.requests, data.rows(plan.scale)["collection_flows"])
    with _step(console, f"{len(calls)} requests, {load.CONCURRENCY} at a time", len(calls)) as advance:
        await load.drive(app, calls, lambda _, __: advance())


async def _apply(server: Server, engine: AsyncEngine, plan: Plan, before: Report, console: Console) -> None:
    """Create the indexes that were proven, drive the same load again, and show what has become of it."""
    statements = applied.statements(before)
    with _step(console, f"{len(statements)} indexes, as advised", len(statements)) as advance:
        for statement in statements:
            server.psql(f"{statement};", DATABASE)
            advance()
    # As PostgreSQL would by itself within the minute: an index on an expression has no statistics before.
    server.psql("ANALYZE", DATABASE)
    await engine.dispose()  # plans that connections have prepared are of the time before
    with profile(engine) as observer:
        assert isinstance(observer, Profiler)
        await _drive(engine, observer, plan, console)
        observer.probe.explain()
        after = observer.probe.report()
    applied.show(statements, before, after, Console())


@contextmanager
def rows(scale: float, console: Console) -> Iterator[Path]:
    """A stopped data directory with the rows for *scale*, from the cache or new in it."""
    with ExitStack() as stack:
        kept = cache()
        if kept is None:
            kept = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sqlprobe-demo-")))
        template = kept / f"demo-{data.fingerprint(scale)}"
        if template.exists():
            os.utime(template)
        else:
            number = sum(data.rows(scale).values())
            with _step(console, f"PostgreSQL, {number:,} rows (kept for the next time)", len(data.ROWS)) as advance:
                build(template, lambda server: _fill(server, scale, advance), durable=True)
        _tidy(kept)
        yield template


def _fill(server: Server, scale: float, advance: Callable[[], None]) -> None:
    server.psql(f"CREATE DATABASE {DATABASE}")
    asyncio.run(data.fill(server.url_for("asyncpg", DATABASE), scale, lambda _: advance()))


def _tidy(cache: Path) -> None:
    for folder in cache.glob("demo-*"):
        patience = UNFINISHED if folder.suffix == ".part" else UNUSED
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > patience:
                shutil.rmtree(folder)


@contextmanager
def _step(console: Console, what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal; one line anywhere else."""
    if not console.is_terminal:
        console.print(what, soft_wrap=True)
        yield lambda: None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)
