from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import threading

import pytest
import sqlalchemy as sa

import sqlprobe
from sqlprobe import autoscope, faults, scopes
from sqlprobe.settings import Settings

pytestmark = pytest.mark.versions

ONE = sa.text("SELECT 1")


@pytest.fixture
def probe():
    faults.forget()
    with sqlprobe.attach(settings=Settings(auto_scope=True)) as attached:
        yield attached
        autoscope.close_all()
    scopes.current.set(None)
    assert ((), [], {}) == (faults.told(), scopes.open_scopes(), autoscope._runners)


@pytest.fixture
def run(engine):
    def once():
        with engine.connect() as connection:
            connection.execute(ONE)

    return once


def in_thread(function, name=None):
    thread = threading.Thread(target=function, name=name)
    thread.start()
    thread.join()


def told(probe):
    return sorted((item.name, item.kind, item.count, item.calls) for item in probe.report().scopes)


def test_main_thread_has_one_scope(probe, run):
    def main():
        run()
        run()

    contextvars.Context().run(main)
    autoscope.close_all()

    assert [("main", "thread", 1, 2)] == told(probe)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ThreadPoolExecutor-0_12", "thread ThreadPoolExecutor"),
        ("worker-3", "thread worker"),
        ("Thread-7 (work)", "thread Thread (work)"),
        ("mailer", "thread mailer"),
        ("42", "thread unnamed"),
    ],
)
def test_threads_of_a_pool_have_one_name(probe, run, name, expected):
    in_thread(run, name)
    autoscope.close_ended()

    assert [(expected, "thread", 1, 1)] == told(probe)


def test_each_thread_has_a_scope_of_its_own(probe, run):
    for _ in range(3):
        in_thread(lambda: (run(), run()), "worker-1")
    autoscope.close_ended()

    assert [("thread worker", "thread", 3, 6)] == told(probe)


@pytest.mark.long
def test_scopes_of_ended_threads_are_closed_by_and_by(probe, run):
    for _ in range(1000):
        in_thread(run, "worker")
        assert len(autoscope._runners) <= autoscope._SWEEP
    autoscope.close_ended()
    gc.collect()

    assert ([("thread worker", "thread", 1000, 1000)], 0) == (
        told(probe),
        sum(isinstance(item, scopes.Scope) for item in gc.get_objects()),
    )


def test_thread_of_a_pool_has_one_scope_whatever_contexts_it_runs(probe, run):
    """As asyncio.to_thread and the web frameworks' thread pools do: a copied context for each call."""
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="pool") as pool:
        for _ in range(200):
            pool.submit(contextvars.Context().run, run).result()
        opened = len(scopes.open_scopes())
    autoscope.close_ended()

    assert (1, [("thread pool", "thread", 1, 200)]) == (opened, told(probe))


def test_each_task_has_a_scope_that_ends_with_it(probe, run_async, sqlite_url):
    async def work(engine):
        async with engine.connect() as connection:
            await connection.execute(ONE)
            await connection.execute(ONE)

    async def main(engine):
        for _ in range(3):
            await asyncio.create_task(work(engine))
        await asyncio.sleep(0)
        return told(probe), len(autoscope._runners)

    name = "task test_each_task_has_a_scope_that_ends_with_it.<locals>.work"
    assert ([(name, "task", 3, 6)], 0) == run_async(main, sqlite_url("aiosqlite"))


def test_task_that_fails_or_is_cancelled_ends_its_scope(probe, run_async, sqlite_url):
    async def work(engine, started):
        async with engine.connect() as connection:
            await connection.execute(ONE)
        started.set()
        await asyncio.Event().wait()

    async def fail(engine):
        async with engine.connect() as connection:
            await connection.execute(ONE)
        raise LookupError

    async def main(engine):
        started = asyncio.Event()
        task = asyncio.create_task(work(engine, started))
        await started.wait()
        task.cancel()
        await asyncio.gather(task, asyncio.create_task(fail(engine)), return_exceptions=True)
        await asyncio.sleep(0)
        return len(scopes.open_scopes())

    assert 0 == run_async(main, sqlite_url("aiosqlite"))


def test_many_tasks_at_a_time_leave_nothing(probe, run_async, sqlite_url):
    async def work(engine):
        async with engine.connect() as connection:
            await connection.execute(ONE)

    async def main(engine):
        await asyncio.gather(*(work(engine) for _ in range(300)))
        await asyncio.sleep(0)
        return len(scopes.open_scopes()), sum(item[3] for item in told(probe))

    assert (0, 300) == run_async(main, sqlite_url("aiosqlite"))


def test_a_scope_of_the_users_is_left_alone(probe, run):
    def main():
        with sqlprobe.scope("mine"):
            run()
        run()

    contextvars.Context().run(main)
    autoscope.close_all()

    assert [("main", "thread", 1, 1), ("mine", "scope", 1, 1)] == told(probe)


def test_statement_after_the_end_of_the_users_scope_is_not_late(probe, run):
    """The thread goes on with a context whose scope has ended: it has none, then."""

    def main():
        with sqlprobe.scope("mine"):
            context = contextvars.copy_context()
        context.run(run)

    contextvars.Context().run(main)
    autoscope.close_all()

    assert [("main", "thread", 1, 1), ("mine", "scope", 1, 0)] == told(probe)
    assert [0, 0] == [item.late for item in probe.report().scopes]


def test_failure_to_open_is_counted_and_the_statement_runs(probe, run, monkeypatch):
    monkeypatch.setattr(autoscope, "_thread_name", lambda name: 1 / 0)
    in_thread(run)

    counted = [fault.where for fault in faults.told()]
    faults.forget()
    assert (["scope of a thread or task"], 1) == (counted, probe.report().statements[0].calls)


def test_no_scope_is_opened_without_the_setting(run):
    with sqlprobe.attach() as probe:
        in_thread(run)

        assert ([], 1) == (told(probe), probe.report().statements[0].calls)
