"""
The public names as a typed program uses them: checked by mypy --strict and pyright's strict mode, never run.

`tests/test_typing.py` sees to it that every name of `sqlprobe.__all__` is used here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, assert_type

import sqlprobe
from sqlprobe import (
    AlreadyAttached,
    AttachError,
    Comparison,
    Execution,
    Fault,
    Finding,
    Fix,
    Probe,
    Process,
    Recording,
    Report,
    ReportError,
    ScopeStats,
    Settings,
    SettingsError,
    Site,
    SiteCalls,
    SqlprobeError,
    StatementStats,
    Verified,
)

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.ext.asyncio import AsyncEngine

    from sqlprobe.pytest_plugin import Watcher


def attaching(engine: sa.Engine, async_engine: AsyncEngine) -> None:
    probe = sqlprobe.attach(engine)
    assert_type(probe, Probe)
    assert_type(sqlprobe.attach(), Probe)
    assert_type(sqlprobe.attach(None), Probe)
    assert_type(sqlprobe.attach(async_engine, settings=Settings(slow_seconds=0.1), exporters=["prometheus"]), Probe)
    assert_type(sqlprobe.attach(engine, on_finding=print), Probe)
    assert_type(sqlprobe.probe_of(engine), Probe | None)
    assert_type(sqlprobe.probe_of(async_engine), Probe | None)

    probe.pause()
    probe.resume()
    assert_type(probe.report(), Report)
    assert_type(probe.report(since=0.0), Report)
    assert_type(probe.report(since=datetime.now(UTC)), Report)
    assert_type(probe.report(since=timedelta(minutes=5)), Report)
    probe.detach()
    with sqlprobe.attach(engine) as attached:
        assert_type(attached, Probe)


def recording() -> None:
    with sqlprobe.record() as taken:
        assert_type(taken, Recording)
    assert_type(taken.report(), Report)
    assert_type(taken.findings, tuple[Finding, ...])
    assert_type(taken.statements, tuple[StatementStats, ...])
    assert_type(taken.executions, tuple[Execution, ...])
    for execution in taken.executions:
        assert_type(execution.site, Site | None)
        assert_type(execution.seconds, float)


async def scoping() -> None:
    with sqlprobe.scope("GET /orders", kind="request") as unit:
        assert_type(unit, sqlprobe.scope)
        assert_type(unit.calls, int)
        assert_type(unit.seconds, float)
    async with sqlprobe.scope("GET /orders"):
        pass


@sqlprobe.scope("nightly")
def decorated(number: int) -> str:
    return str(number)


@sqlprobe.scope("nightly")
async def decorated_async(number: int) -> str:
    return str(number)


async def calling() -> None:
    assert_type(decorated(1), str)
    assert_type(await decorated_async(1), str)


async def scaling(watcher: Watcher) -> None:
    def populate(size: int) -> None: ...
    async def populate_async(size: int) -> None: ...
    def action() -> int:
        return 1

    async def action_async() -> int:
        return 1

    growths = sqlprobe.assert_constant(populate, action, sizes=(2, 5), slope=1)
    assert_type(growths, tuple[sqlprobe.Growth, ...])
    assert_type(await sqlprobe.assert_constant(populate_async, action), tuple[sqlprobe.Growth, ...])
    assert_type(await sqlprobe.assert_constant(populate, action_async), tuple[sqlprobe.Growth, ...])
    assert_type(await watcher.assert_constant(populate_async, action_async), tuple[sqlprobe.Growth, ...])
    assert_type((growths[0].counts, growths[0].grew, growths[0].site), tuple[tuple[int, ...], int, Site | None])
    with watcher.max_queries(3) as taken, watcher.no_n_plus_one():
        assert_type(taken, Recording)
    async with watcher.exactly(2):
        assert_type(watcher.findings, tuple[Finding, ...])


def budgeting() -> Settings:
    try:
        return Settings(budgets=sqlprobe.load_budgets("budgets.toml"))
    except (sqlprobe.BudgetsError, sqlprobe.GrowthError, sqlprobe.CheckError) as error:
        raise SystemExit(str(error)) from error


def reading(report: Report) -> None:
    assert_type(report.findings, tuple[Finding, ...])
    assert_type(report.statements, tuple[StatementStats, ...])
    assert_type(report.scopes, tuple[ScopeStats, ...])
    assert_type(report.processes, tuple[Process, ...])
    assert_type(report.faults, tuple[Fault, ...])
    assert_type(report.to_json(), str)
    assert_type(Report.from_json("{}"), Report)
    assert_type(Report.merge(report, report), Report)
    assert_type(report.compare(report), Comparison)
    report.write(Path("report.html"))
    report.compare(report).write(Path("changes.html"))


def timing(report: Report) -> None:
    assert_type(report.timelines, tuple[sqlprobe.Timeline, ...])
    for timeline in report.timelines:
        assert_type((timeline.scope, timeline.kind, timeline.calls, timeline.omitted), tuple[str, str, int, int])
        assert_type(timeline.steps, tuple[sqlprobe.Step, ...])
        for step in timeline.steps:
            assert_type((step.started, step.seconds, step.busy_seconds), tuple[float, float, float])
            assert_type((step.site, step.relationship), tuple[Site | None, str | None])


def finding_out(finding: Finding) -> None:
    assert_type((finding.rule, finding.title, finding.advice, finding.key), tuple[str, str, str, str])
    assert_type((finding.label, finding.scope, finding.fingerprint), tuple[str, str, str])
    assert_type((finding.count, finding.seconds), tuple[int, float])
    assert_type((finding.first_seen, finding.last_seen), tuple[float, float])
    assert_type((finding.site, finding.origin), tuple[Site | None, Site | None])
    assert_type(finding.evidence, Mapping[str, float | int | str])
    assert_type(finding.fixes, tuple[Fix, ...])
    for fix in finding.fixes:
        assert_type((fix.code, fix.alembic, fix.sqlalchemy), tuple[str, str | None, str | None])
        assert_type(fix.verified, Verified | None)
    if finding.site:
        assert_type((finding.site.file, finding.site.line, finding.site.function), tuple[str, int, str])


def counting(statement: StatementStats, scope: ScopeStats) -> None:
    assert_type(statement.errors, Mapping[str, int])
    assert_type(statement.sites, tuple[SiteCalls, ...])
    assert_type(statement.rows, int | None)
    assert_type((statement.p50, statement.p95, statement.p99), tuple[float, float, float])
    assert_type((scope.count, scope.calls, scope.distinct, scope.rows), tuple[int, int, int, int])
    assert_type((scope.seconds, scope.wall_seconds, scope.p95_seconds), tuple[float, float, float])


def failing(engine: sa.Engine) -> str:
    try:
        sqlprobe.attach(engine)
    except AlreadyAttached as error:
        return str(error)
    except (AttachError, ReportError, SettingsError) as error:
        wrong_use: SqlprobeError = error
        return str(wrong_use)
    return sqlprobe.__version__


def silencing(path: Path) -> tuple[sqlprobe.Ignore, ...]:
    with sqlprobe.ignore("n-plus-one", label="Order.items", reason="two rows at most"):
        pass

    @sqlprobe.ignore("write-loop", reason="each by itself")
    def decorated(number: int) -> str:
        return str(number)

    assert_type(decorated(1), str)
    try:
        return sqlprobe.load_ignores(path)
    except sqlprobe.IgnoreError:
        return (sqlprobe.Ignore("seq-scan", site="shop/*", reason="small"),)


def bounds() -> None:
    assert_type(sqlprobe.SECONDS_BOUNDS[0], float)
    assert_type(sqlprobe.CALL_BOUNDS[0], int)
