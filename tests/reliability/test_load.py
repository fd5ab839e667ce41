"""Totals are exact under threads, tasks, crashes of the server and cancellation; what comes and goes leaves nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

import sqlprobe
from sqlprobe import capture

PATIENCE = 120.0  # seconds, of a machine that has other things to do

THREADS, TASKS = 64, 500


def calls_of(probe):
    return sum(item.calls for item in probe.report().statements)


def errors_of(probe):
    return sum(sum(item.errors.values()) for item in probe.report().statements)


@pytest.mark.once
@pytest.mark.parametrize(
    "seconds", [pytest.param(0, id="bounded"), pytest.param(60, id="a minute", marks=pytest.mark.exhaustive)]
)
def test_totals_of_64_threads_are_exact(sqlite_url, seconds):
    engine = sa.create_engine(sqlite_url(), poolclass=sa.NullPool)
    done = Counter()
    ready = threading.Barrier(THREADS)
    readers = []
    ends = time.monotonic() + seconds

    def work(number):
        ready.wait()
        mine = scopes = 0
        with engine.connect() as connection:
            while not scopes or time.monotonic() < ends:
                with sqlprobe.scope(f"GET /{number % 5}"):
                    for each in range(10):
                        connection.exec_driver_sql(f"SELECT {each} AS c{(number + each) % 7}").close()
                        mine += 1
                scopes += 1
                if number == 0:
                    readers.append(calls_of(probe))
        done[number] = mine
        return scopes

    with sqlprobe.attach(engine) as probe, ThreadPoolExecutor(THREADS) as pool:
        scopes = sum(pool.map(work, range(THREADS)))
        report = probe.report()
    engine.dispose()

    calls = sum(done.values())
    assert (calls, calls, scopes, sorted(readers)) == (
        sum(item.calls for item in report.statements),
        sum(item.calls for item in report.scopes),
        sum(item.count for item in report.scopes),
        readers,  # what a reader sees meanwhile never goes back
    )
    assert all(sum(item.histogram) == item.calls for item in report.statements)


@pytest.mark.long
@pytest.mark.once
@pytest.mark.parametrize(
    "rounds", [pytest.param(1, id="bounded"), pytest.param(60, id="many", marks=pytest.mark.exhaustive)]
)
def test_totals_of_500_tasks_are_exact(run_async, postgresql_url, rounds):
    async def work(engine, number):
        for _ in range(rounds):
            async with engine.connect() as connection:
                with sqlprobe.scope(f"GET /{number % 5}"):
                    for each in range(2):
                        await connection.execute(sa.text(f"SELECT {each} AS c{number % 7}"))

    async def main(engine):
        with sqlprobe.attach(engine) as probe:
            await asyncio.gather(*(work(engine, number) for number in range(TASKS)))
            return probe.report()

    report = run_async(main, postgresql_url("asyncpg"), pool_size=10, max_overflow=0, pool_timeout=300)

    expected = 2 * TASKS * rounds
    assert (expected, expected, TASKS * rounds) == (
        sum(item.calls for item in report.statements),
        sum(item.calls for item in report.scopes),
        sum(item.count for item in report.scopes),
    )


@pytest.mark.once
def test_totals_are_exact_while_the_server_crashes_and_comes_back(postgresql_url):
    """A backend is killed by SIGKILL: PostgreSQL then ends every session, recovers, and takes connections again."""
    url = postgresql_url("psycopg")
    engine = sa.create_engine(url, pool_size=8)
    seen, stop = Counter(), threading.Event()

    def work(_):
        while not stop.is_set():
            try:
                with engine.connect() as connection:
                    for _ in range(20):
                        try:
                            connection.execute(sa.text("SELECT 1"))
                        except sa.exc.DBAPIError:
                            with lock:
                                seen["errors"] += 1
                            raise
                        with lock:
                            seen["calls"] += 1
            except sa.exc.DBAPIError:
                stop.wait(0.02)  # the server recovers

    def until(reached):
        deadline = time.monotonic() + PATIENCE
        while not reached():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    lock = threading.Lock()
    with sqlprobe.attach(engine) as probe, ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(work, number) for number in range(8)]
        try:
            for _ in range(2):
                until(lambda: seen["calls"] >= 100)
                victim = engine.raw_connection()
                os.kill(victim.driver_connection.info.backend_pid, signal.SIGKILL)
                victim.invalidate()
                before = seen["errors"]
                until(lambda before=before: seen["errors"] > before)
                calls = seen["calls"]
                until(lambda calls=calls: seen["calls"] >= calls + 100)  # it is back
        finally:
            stop.set()
        for future in futures:
            future.result()
        report = probe.report()
    engine.dispose()

    (statement,) = report.statements
    assert (seen["calls"] + seen["errors"], seen["errors"]) == (statement.calls, sum(statement.errors.values()))


@pytest.mark.versions
def test_cancellation_at_every_await_leaves_exact_counts_and_no_scope(postgresql_url, run_async):
    """A request is cancelled at its first await, the next one at its second, until one comes through."""

    attempts = []

    async def request(engine):
        async with sqlprobe.scope("GET /x"), engine.connect() as connection:
            for number in range(3):
                await connection.execute(sa.text("SELECT CAST(:n AS integer)"), {"n": number})

    async def main(engine):
        sa.event.listen(engine.sync_engine, "before_cursor_execute", lambda *_: attempts.append(1))
        outcomes = []
        with sqlprobe.attach(engine) as probe:
            await request(engine)  # connects
            while len(outcomes) < 10 or outcomes[-1] == "cancelled":
                task = asyncio.ensure_future(request(engine))
                for _ in outcomes:
                    await asyncio.sleep(0)
                task.cancel()
                (outcome,) = await asyncio.gather(task, return_exceptions=True)
                outcomes.append("done" if outcome is None else "cancelled")
                assert outcome is None or isinstance(outcome, asyncio.CancelledError), outcome
            return outcomes, probe.report()

    outcomes, report = run_async(main, postgresql_url("asyncpg"))

    # One request went before; the first of them was cancelled before its first step, and opened nothing.
    assert ({"cancelled", "done"}, len(attempts), len(attempts), len(outcomes)) == (
        set(outcomes),
        sum(item.calls for item in report.statements),
        sum(item.calls + item.late for item in report.scopes),
        sum(item.count for item in report.scopes),
    )


@pytest.mark.long
@pytest.mark.once
@pytest.mark.parametrize("times", [100, pytest.param(1000, marks=pytest.mark.exhaustive)])
def test_attachments_that_come_and_go_leave_nothing(make_engine, monkeypatch, times):
    monkeypatch.setenv("SQLPROBE_CONFIG", "")
    engine = make_engine()

    def cycle():
        with sqlprobe.attach(engine), engine.connect() as connection, sqlprobe.scope("x"):
            connection.execute(sa.text("SELECT 1"))

    def listeners():
        return [len(getattr(engine.dialect.dispatch, name)) for name in capture._handlers()]

    def held():
        gc.collect()
        return sys.getallocatedblocks()

    before = listeners()
    for _ in range(20):
        cycle()
    growth = []
    for _ in range(3):  # what else this process does may grow meanwhile: what leaks does so each time
        first = held()
        for _ in range(times):
            cycle()
        growth.append(held() - first)
        if growth[-1] < times // 2:  # objects: half of one a cycle
            break

    assert before == listeners()
    assert growth[-1] < times // 2, growth
