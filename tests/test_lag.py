from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest
import sqlalchemy as sa

import sqlprobe
from sqlprobe import capture, faults, lag

pytestmark = pytest.mark.versions

MS = 1_000_000


class Clock:
    def __init__(self):
        self.now = 1_000_000 * MS

    def __call__(self):
        return self.now


class Loop:
    """An event loop whose timers run when the test says so."""

    def __init__(self):
        self.timers = []
        self.closed = False

    def call_later(self, seconds, callback):
        self.timers.append((seconds, callback))

    def is_closed(self):
        return self.closed


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(lag, "perf_counter_ns", clock)
    return clock


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def watch(clock, loop):
    watch = lag.LoopWatch(loop)
    watch.used_ns = clock.now
    watch.start()
    return watch


def run_timer(loop, clock, at_ms):
    """Run the timer that is due, *at_ms* after the epoch of the test."""
    clock.now = 1_000_000 * MS + at_ms * MS
    (_, callback), loop.timers = loop.timers[0], loop.timers[1:]
    callback()


def blocked_ms(watch, since, to):
    epoch = 1_000_000 * MS
    return watch.blocked_ns(epoch + since * MS, epoch + to * MS) // MS


def test_one_timer_runs_however_often_it_is_started(watch, loop):
    watch.start()
    watch.start()

    assert [lag.TICK_SECONDS] == [seconds for seconds, _ in loop.timers]


def test_timer_in_time_is_no_lag(watch, loop, clock):
    for at in (10, 21, 33):
        run_timer(loop, clock, at)

    assert 0 == blocked_ms(watch, 0, 40)


def test_late_timer_is_the_time_that_the_loop_was_blocked(watch, loop, clock):
    run_timer(loop, clock, 310)

    assert [300, 100, 0, 290] == [
        blocked_ms(watch, *stretch) for stretch in ((0, 310), (200, 300), (311, 315), (0, 300))
    ]


def test_timer_behind_the_statement_that_asks_counts_as_due(watch, clock):
    assert [0, 290] == [blocked_ms(watch, 0, 5), blocked_ms(watch, 0, 300)]


def test_the_longest_stretches_count_on_a_loop_that_is_always_busy(watch, loop, clock):
    """Each answer waits for one stretch at most; there are four in the worst case."""
    for step in range(1, 21):
        run_timer(loop, clock, 30 * step)  # always 20 late

    assert 4 * 20 == blocked_ms(watch, 0, 600)


def test_stretches_that_are_kept_are_bounded(watch, loop, clock):
    for step in range(1, 1001):
        watch.used_ns = clock.now
        run_timer(loop, clock, 30 * step)

    assert lag._KEPT == len(watch._blocked)


def test_timer_stops_when_no_statement_runs_and_starts_again_with_the_next(watch, loop, clock):
    run_timer(loop, clock, 2_100)
    idle = len(loop.timers)
    covered = watch.covers(loop)
    watch.used_ns = clock.now
    watch.start()

    assert (0, False, 1, True) == (idle, covered, len(loop.timers), watch.covers(loop))


def test_stopped_timer_is_not_taken_for_a_late_one(watch, loop, clock):
    run_timer(loop, clock, 2_010)
    clock.now += 60_000 * MS

    assert 0 == blocked_ms(watch, 30_000, 40_000)


def test_closed_loop_gets_no_timer(watch, loop, clock):
    loop.closed = True
    run_timer(loop, clock, 10)

    assert ([], False) == (loop.timers, watch.covers(loop))


def test_watch_does_not_keep_its_loop(clock):
    loop = Loop()
    kept = weakref.ref(loop)
    watch = lag.LoopWatch(loop)
    del loop
    gc.collect()
    watch.start()

    assert (None, False) == (kept(), watch._ticking)


# --- real loops -------------------------------------------------------------------------------------------------------


@pytest.fixture
def probe():
    faults.forget()
    with sqlprobe.attach() as attached:
        yield attached
    assert () == faults.told()


async def select_one(engine):
    async with engine.connect() as connection:
        return (await connection.execute(sa.text("SELECT 1"))).scalar_one()


def test_each_loop_of_a_thread_has_a_timer_of_its_own(probe, run_async, sqlite_url):
    async def main(engine):
        value = await select_one(engine)
        return value, asyncio.get_running_loop() in lag._watches

    before = len(lag._watches)
    results = [run_async(main, sqlite_url("aiosqlite")) for _ in range(3)]
    gc.collect()

    assert ([(1, True)] * 3, before) == (results, len(lag._watches))


def test_timer_keeps_no_loop_running(probe, run_async, sqlite_url):
    """asyncio.run() returns, its loop closes without a warning (which is an error here), and no thread is left."""
    run_async(select_one, sqlite_url("aiosqlite"))
    gc.collect()

    assert [] == [thread.name for thread in threading.enumerate() if "sqlprobe" in thread.name]


def test_one_engine_on_two_loops_in_two_threads(probe, sqlite_url):
    engine = sa.ext.asyncio.create_async_engine(sqlite_url("aiosqlite"), poolclass=sa.pool.NullPool)
    values = []
    asyncio.run(select_one(engine))  # two first connects at a time can hang SQLAlchemy by itself

    def work():
        async def main():
            values.extend([await select_one(engine) for _ in range(20)])

        asyncio.run(main())

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [1] * 40 == values


def test_sync_engines_are_not_watched(probe, engine):
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
        watched = capture.watched_by(probe)

    assert [(False, None)] == [
        (item.tells_lag, item.loop_watch) for item in watched if item.dialect() is engine.dialect
    ]
