from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

import sqlprobe
from sqlprobe import capture, faults, lag, scopes
from sqlprobe.detectors import slow_statement
from sqlprobe.fingerprint import shape_of
from sqlprobe.settings import Settings
from sqlprobe.stats import Tally

pytestmark = pytest.mark.versions

MS = 1_000_000


@pytest.fixture(autouse=True)
def nothing_fails():
    faults.forget()
    yield
    assert ((), []) == (faults.told(), scopes.open_scopes())


def digest_of(*calls, slow_ms=100, text="SELECT id FROM orders"):
    """A digest of calls that took (milliseconds, of which the loop was blocked)."""
    digest = scopes.Digest("GET /orders", slow_ms * MS)
    tally = Tally(shape_of(text), "postgresql+asyncpg://localhost/shop")
    for elapsed, blocked in calls:
        extra = scopes.Extra(blocked_ns=blocked * MS) if blocked else None
        digest.add((tally, time.perf_counter_ns(), elapsed * MS, 1, None, None, extra, None, ()))
    return digest


def told(digest, **settings):
    found = slow_statement.check(digest, Settings(**settings))
    return [(finding.severity, finding.title, finding.count) for finding in found]


def test_reports_from_a_tenth_of_a_second_on():
    assert ([], [("warning", "SELECT orders took 100 ms", 1)]) == (
        told(digest_of((99, 0))),
        told(digest_of((100, 0))),
    )


def test_finding_is_told_in_full():
    (finding,) = slow_statement.check(digest_of((150, 0), (3_000, 0), (20, 0)), Settings())

    assert {
        "severity": "error",
        "title": "SELECT orders took 3.00 s (2 slow calls)",
        "advice": "look at its plan with EXPLAIN (ANALYZE, BUFFERS), and at how many rows it reads and returns",
        "label": "orders",
        "scope": "GET /orders",
        "count": 2,
        "seconds": 3.15,
        "engine": "postgresql+asyncpg://localhost/shop",
        "evidence": {"slowest_seconds": 3.0, "threshold_seconds": 0.1},
        "fixes": (),
    } == {
        name: getattr(finding, name)
        for name in ("severity", "title", "advice", "label", "scope", "count", "seconds", "engine", "evidence", "fixes")
    }


@pytest.mark.parametrize(("elapsed", "severity"), [(999, "warning"), (1_000, "error")])
def test_ten_times_the_threshold_is_an_error(elapsed, severity):
    assert [severity] == [item[0] for item in told(digest_of((elapsed, 0)))]


def test_wait_for_a_blocked_loop_accuses_nobody():
    (finding,) = slow_statement.check(digest_of((320, 290)), Settings())

    assert (
        "info",
        "SELECT orders waited 320 ms for a blocked event loop",
        "find the task that keeps the event loop busy: move its work to a thread, or make it await",
        {"slowest_seconds": 0.32, "threshold_seconds": 0.1, "event_loop_blocked_seconds": 0.29},
        True,
    ) == (finding.severity, finding.title, finding.advice, finding.evidence, finding.key.endswith("|lag"))


def test_time_that_is_slow_without_the_lag_is_a_warning():
    (finding,) = slow_statement.check(digest_of((500, 300)), Settings())

    assert ("warning", 0.3) == (finding.severity, finding.evidence["event_loop_blocked_seconds"])


def test_lag_of_other_calls_does_not_make_a_call_worse_or_better():
    calls = [(320, 290)] * 4 + [(150, 0)]

    assert [
        ("info", "SELECT orders waited 320 ms for a blocked event loop (4 slow calls)", 4),
        ("warning", "SELECT orders took 150 ms", 1),
    ] == sorted(told(digest_of(*calls)))


def test_severity_is_without_the_lag():
    assert [("warning", "SELECT orders took 1.20 s", 1)] == told(digest_of((1_200, 1_000)))


def test_reader_with_a_higher_threshold_than_the_scope_is_told_by_its_own():
    assert ([], [("info", "SELECT orders waited 300 ms for a blocked event loop", 1)]) == (
        told(digest_of((150, 0)), slow_seconds=0.2),
        told(digest_of((300, 150)), slow_seconds=0.2),
    )


def test_key_has_no_line_and_no_number():
    (finding,) = slow_statement.check(digest_of((150, 0)), Settings())
    (again,) = slow_statement.check(digest_of((250, 0), (140, 0)), Settings())

    assert finding.key == again.key


# --- real statements --------------------------------------------------------------------------------------------------


@pytest.fixture
def slow_engine(make_engine):
    """SQLite with a function `nap(seconds)` that sleeps in the driver's call."""
    engine = make_engine()

    @sa.event.listens_for(engine, "connect")
    def add_function(connection, _):
        connection.create_function("nap", 1, time.sleep)

    return engine


def nap(connection, seconds):
    connection.execute(sa.text("SELECT nap(:seconds)"), {"seconds": seconds})  # naps


def slow_findings(report):
    return [finding for finding in report.findings if finding.rule == "slow-statement"]


def test_slow_call_is_found_at_its_line(slow_engine):
    with sqlprobe.attach(slow_engine) as probe, slow_engine.connect() as connection, sqlprobe.scope("work"):
        nap(connection, 0.11)
        nap(connection, 0)

    (finding,) = slow_findings(probe.report())
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    assert ("warning", "work", 1, "nap", True) == (
        finding.severity,
        finding.scope,
        finding.count,
        finding.site.function,
        lines[finding.site.line - 1].endswith("# naps"),
    )


def test_slow_call_outside_any_scope_is_found_too(slow_engine):
    with sqlprobe.attach(slow_engine, settings=Settings(slow_seconds=0.01)) as probe:
        with slow_engine.connect() as connection:
            nap(connection, 0.02)

        (finding,) = slow_findings(probe.report())
        assert ("", 1, "nap") == (finding.scope, finding.count, finding.site.function)


def test_recording_takes_its_own_threshold(slow_engine):
    with sqlprobe.record(settings=Settings(slow_seconds=0.01)) as recording, slow_engine.connect() as connection:
        nap(connection, 0.02)

    assert [1] == [finding.count for finding in slow_findings(recording.report())]


def test_disabled_rule_is_silent(slow_engine):
    settings = Settings(slow_seconds=0.001, disabled_rules=("slow-statement",))
    with sqlprobe.attach(slow_engine, settings=settings) as probe, slow_engine.connect() as connection:
        with sqlprobe.scope("work"):
            nap(connection, 0.01)

        assert [] == slow_findings(probe.report())


def test_parameters_are_in_no_finding(slow_engine):
    settings = Settings(slow_seconds=0.001)
    with sqlprobe.attach(slow_engine, settings=settings) as probe, slow_engine.connect() as connection:
        connection.execute(sa.text("SELECT nap(0.002), :secret"), {"secret": "s3cret"})

        assert (1, False) == (len(slow_findings(probe.report())), "s3cret" in repr(probe.report()))


# --- the event loop ---------------------------------------------------------------------------------------------------


async def sleep_in_database(engine, seconds, entered=None):
    async with engine.connect() as connection:
        await connection.execute(sa.text("SELECT 1"))  # connected and prepared: what follows is one wait
        with sqlprobe.scope("request"):
            if entered is not None:
                entered.set()
            await connection.execute(sa.text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})


async def block(entered, *stretches):
    """Once the statement is on its way, keep the loop busy for each of *stretches* (seconds)."""
    await entered.wait()
    for seconds in stretches:
        await asyncio.sleep(0)
        time.sleep(seconds)  # noqa: ASYNC251 - what a handler without await does


def on_postgresql(run_async, url, seconds, stretches, tasks=1):
    async def main(engine):
        entered = asyncio.Event()
        with sqlprobe.attach(engine) as probe:
            blocking = [block(entered, *stretches) for _ in range(tasks)] if stretches else []
            await asyncio.gather(sleep_in_database(engine, seconds, entered), *blocking)
            return [(finding.severity, finding.count) for finding in slow_findings(probe.report())]

    return run_async(main, url)


@pytest.mark.parametrize(
    ("seconds", "stretches", "tasks", "expected"),
    [
        (0.02, [], 1, []),
        (0.02, [0.3], 1, [("info", 1)]),
        (0.6, [], 1, [("warning", 1)]),
        (0.6, [0.2], 1, [("warning", 1)]),
        (0.02, [0.02] * 3, 8, [("info", 1)]),
        (0.8, [0.005] * 6, 4, [("warning", 1)]),
    ],
    ids=["quick", "blocked", "slow", "slow and blocked", "many small blocks", "slow beside many small blocks"],
)
def test_asyncpg_call_is_judged_without_its_loops_lag(run_async, postgresql_url, seconds, stretches, tasks, expected):
    found = on_postgresql(run_async, postgresql_url("asyncpg"), seconds, stretches, tasks)

    # A machine that is busy blocks the loop too, which is information: it accuses nobody.
    assert expected == (found if expected else [each for each in found if each[0] != "info"])


def test_psycopg_in_async_code_is_judged_the_same(run_async, postgresql_url):
    assert [("info", 1)] == on_postgresql(run_async, postgresql_url("psycopg"), 0.02, [0.3])


def test_tick_is_short_beside_the_default_threshold():
    assert 4 * lag.TICK_SECONDS < Settings().slow_seconds


def test_lag_that_cannot_be_read_costs_nothing_but_itself(run_async, sqlite_url, monkeypatch):
    async def main(engine):
        async with engine.connect() as connection:
            return (await connection.execute(sa.text("SELECT 1"))).scalar_one()

    monkeypatch.setattr(lag, "watch", lambda loop, now: 1 / 0)
    with sqlprobe.attach() as probe:
        value = run_async(main, sqlite_url("aiosqlite"))

    counted = [fault.where for fault in faults.told()]
    faults.forget()
    assert (1, ["event-loop lag"], 1, ()) == (value, counted, len(probe.report().statements), capture.owners)
