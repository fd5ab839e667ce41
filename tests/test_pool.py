"""Pools and transactions: what is counted, what is told, and that nobody's connections are touched."""

from __future__ import annotations

import asyncio
import gc
import os
import threading

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, QueuePool, SingletonThreadPool, StaticPool

import sqlprobe
from sqlprobe import Settings, faults, pool

WATCH = Settings(watch_pools=True, pool_wait_seconds=0.05, long_transaction_seconds=0.05)


@pytest.fixture
def small(make_engine, sqlite_url):
    """An engine whose pool has one connection."""
    return make_engine(sqlite_url(), pool_size=1, max_overflow=0, pool_timeout=0.1)


@pytest.fixture
def probe(small):
    with sqlprobe.attach(small, settings=WATCH) as probe:
        yield probe
    assert () == faults.told()


def counts(probe):
    (told,) = probe.pools()
    return told


def calls(counted):
    return sum(counted.buckets)


def one(engine):
    with engine.connect() as connection:
        return connection.scalar(sa.text("SELECT 1"))


def findings(probe, rule):
    return [finding for finding in probe.findings() if finding.rule == rule]


def test_counts_connections_in_use_and_idle(probe, small):
    with small.connect():
        inside = counts(probe)
    after = counts(probe)

    assert (1, 0, 1, 1, 0) == (inside.used, inside.idle, inside.maximum, inside.size, inside.overflow)
    assert (0, 1) == (after.used, after.idle)
    assert (1, 1, 1) == (calls(after.wait), calls(after.use), calls(after.create))
    assert after.use.total_ns >= 0


def test_counts_overflow(make_engine, sqlite_url):
    engine = make_engine(sqlite_url(), pool_size=1, max_overflow=2)
    with sqlprobe.attach(engine, settings=WATCH) as probe, engine.connect(), engine.connect():
        told = counts(probe)

    assert (2, 1, 3) == (told.used, told.overflow, told.maximum)


def test_a_pool_without_a_limit_has_no_maximum(make_engine, sqlite_url):
    engine = make_engine(sqlite_url(), pool_size=0)
    with sqlprobe.attach(engine, settings=WATCH) as probe, engine.connect():
        told = counts(probe)

    assert (1, None, None) == (told.used, told.maximum, told.size)


@pytest.mark.parametrize("kind", [NullPool, StaticPool, SingletonThreadPool, QueuePool])
def test_every_kind_of_pool_is_counted(make_engine, sqlite_url, kind):
    engine = make_engine(sqlite_url(), poolclass=kind)
    with sqlprobe.attach(engine, settings=WATCH) as probe:
        one(engine)
        with engine.connect():
            inside = counts(probe)
        told = counts(probe)

    assert (1, 0) == (inside.used, told.used)
    assert (2, 2) == (calls(told.wait), calls(told.use))
    assert (2 if kind is NullPool else 1) == calls(told.create)


def test_a_pool_class_of_the_users_own_waits_once(make_engine, sqlite_url):
    class Own(QueuePool):
        def _do_get(self):
            return super()._do_get()

    engine = make_engine(sqlite_url(), poolclass=Own)
    with sqlprobe.attach(engine, settings=WATCH) as probe:
        one(engine)
        told = counts(probe)

    assert (1, 1) == (calls(told.wait), calls(told.use))


def test_callers_that_wait_are_pending(probe, small):
    waiting = threading.Event()

    def wait():
        waiting.set()
        with pytest.raises(sa.exc.TimeoutError):
            one(small)

    with small.connect():
        thread = threading.Thread(target=wait)
        thread.start()
        waiting.wait()
        seen = 0
        while thread.is_alive() and not seen:
            seen = counts(probe).pending
        thread.join()

    assert 1 == seen
    assert (0, 1) == (counts(probe).pending, counts(probe).timeouts)


def test_a_timeout_names_who_waited_and_who_held(probe, small):
    def holder():
        return small.connect()

    with holder(), sqlprobe.scope("GET /orders"), pytest.raises(sa.exc.TimeoutError):
        one(small)
    (finding,) = findings(probe, "pool-pressure")

    assert ("error", "GET /orders", 1) == (finding.severity, finding.scope, finding.count)
    assert ("one", f"{test_a_timeout_names_who_waited_and_who_held.__name__}.<locals>.holder") == (
        finding.site.function,
        finding.origin.function,
    )
    assert "got no connection in 0.1" in finding.title
    assert (1, 1) == (finding.evidence["connections_used"], finding.evidence["connections_max"])


def test_a_long_wait_names_who_gave_the_connection_back(make_engine, sqlite_url):
    engine = make_engine(sqlite_url(), pool_size=1, max_overflow=0, pool_timeout=30)
    with sqlprobe.attach(engine, settings=Settings(watch_pools=True, pool_wait_seconds=0.02)) as probe:
        held, finish = threading.Event(), threading.Event()

        def hold():
            with engine.connect():
                held.set()
                finish.wait(10)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        threading.Timer(0.05, finish.set).start()
        one(engine)
        thread.join()
        (finding,) = findings(probe, "pool-pressure")

    assert "warning" == finding.severity
    assert finding.origin.function.endswith("hold")
    assert 0.02 <= finding.evidence["waited_seconds"] == pytest.approx(finding.seconds, abs=1e-5)


def test_a_short_wait_is_no_finding(probe, small):
    one(small)

    assert [] == findings(probe, "pool-pressure")


def pause(seconds=0.06):
    threading.Event().wait(seconds)


def test_transactions_are_counted_by_outcome(probe, small):
    with small.begin() as connection:
        connection.execute(sa.text("SELECT 1"))
    one(small)  # closed without a commit
    with small.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
        connection.commit()
        connection.execute(sa.text("SELECT 1"))
        connection.rollback()
    with pytest.raises(sa.exc.OperationalError), small.begin() as connection:
        connection.execute(sa.text("SELECT * FROM nowhere"))
    with Session(small) as session:
        session.scalar(sa.text("SELECT 1"))
    with Session(small) as session:
        session.scalar(sa.text("SELECT 1"))
        session.rollback()
    with small.connect():
        pass  # no transaction
    told = counts(probe).transactions

    assert {"commit": 2, "rollback": 3, "close": 2} == {outcome: calls(counted) for outcome, counted in told.items()}


def test_a_connection_that_is_lost_in_a_transaction_counts_as_rolled_back(probe, small):
    with small.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
        connection.invalidate()
    told = counts(probe)

    assert {"commit": 0, "rollback": 1, "close": 0} == {
        outcome: calls(each) for outcome, each in told.transactions.items()
    }
    assert 0 == told.used


def test_a_connection_that_is_collected_is_given_back(probe, small):
    connection = small.connect()
    del connection
    gc.collect()

    assert (0, 1) == (counts(probe).used, calls(counts(probe).use))


def test_a_long_transaction_tells_where_it_waited(probe, small):
    with sqlprobe.scope("job"), small.begin() as connection:
        connection.execute(sa.text("SELECT 1"))
        connection.execute(sa.text("SELECT 2"))
        pause()  # after this line
    (finding,) = findings(probe, "long-transaction")

    assert ("job", 2, "commit") == (finding.scope, finding.count, finding.evidence["outcome"])
    assert "test_a_long_transaction_tells_where_it_waited" == finding.site.function
    assert finding.origin.line == finding.site.line + 2
    assert 0.05 < finding.evidence["longest_pause_seconds"] <= finding.seconds
    assert finding.advice.startswith("move what runs after tests/test_pool.py:")


def test_a_long_transaction_of_slow_statements_says_so(probe, small):
    with small.begin() as connection:
        connection.connection.dbapi_connection.create_function("pause", 0, lambda: pause(0.2))
        with sqlprobe.scope("job"):
            connection.execute(sa.text("SELECT pause()"))
    (finding,) = findings(probe, "long-transaction")

    # The scope ended before the transaction did: it cannot tell.
    assert "in_database_seconds" not in finding.evidence

    with sqlprobe.scope("other"), small.begin() as connection:
        connection.connection.dbapi_connection.create_function("pause", 0, lambda: pause(0.2))
        connection.execute(sa.text("SELECT pause()"))
    (finding,) = (each for each in findings(probe, "long-transaction") if each.scope == "other")

    assert "mend its statements, which took most of the time, or commit in smaller steps" == finding.advice


def test_disabled_rules_tell_nothing(small):
    settings = Settings(
        watch_pools=True,
        pool_wait_seconds=0.001,
        long_transaction_seconds=0.001,
        disabled_rules=("pool-pressure", "long-transaction"),
    )
    with sqlprobe.attach(small, settings=settings) as probe:
        with small.begin() as connection:
            connection.execute(sa.text("SELECT 1"))
            with pytest.raises(sa.exc.TimeoutError):
                one(small)

        assert () == probe.findings()


def test_a_recording_finds_them_too(small):
    with sqlprobe.record(settings=WATCH) as recording, small.connect(), pytest.raises(sa.exc.TimeoutError):
        one(small)

    assert ["pool-pressure"] == [finding.rule for finding in recording.findings]


def test_dispose_changes_nothing(probe, small):
    one(small)
    small.dispose()
    with small.connect():
        told = counts(probe)

    assert (1, 2, 2) == (told.used, calls(told.wait), calls(told.create))


def test_other_engines_are_not_counted(probe, make_engine):
    other = make_engine(poolclass=QueuePool)
    one(other)

    assert [] == [told for told in probe.pools() if told.engine == "sqlite:///"]
    assert "do_begin" not in vars(other.dialect)


def test_nothing_is_wrapped_unless_somebody_asks(small):
    before = QueuePool._do_get
    with sqlprobe.attach(small) as probe:
        one(small)

        assert [] == probe.pools()
        assert before is QueuePool._do_get
        assert not pool.installed()


def test_everything_is_unwrapped_at_the_end(small):
    before = (QueuePool._do_get, NullPool._do_return_conn)
    with sqlprobe.attach(small, settings=WATCH):
        one(small)

        assert before[0] is not QueuePool._do_get
        assert "do_begin" in vars(small.dialect)

    assert before == (QueuePool._do_get, NullPool._do_return_conn)
    assert not {"do_begin", "do_commit", "do_rollback"} & vars(small.dialect).keys()
    assert 1 == one(small)


def test_a_wrapper_of_somebody_else_is_left_in_place(small, monkeypatch):
    monkeypatch.setattr(QueuePool, "_do_get", QueuePool._do_get)  # so that it is as it was afterwards
    with sqlprobe.attach(small, settings=WATCH):
        ours = QueuePool._do_get

        def theirs(self):
            return ours(self)

        QueuePool._do_get = theirs

    assert theirs is QueuePool._do_get
    assert 1 == one(small)


def test_what_fails_here_reaches_nobody(small, monkeypatch):
    with sqlprobe.attach(small, settings=WATCH):
        for name in ("_watch_of", "_got", "_returned"):
            with monkeypatch.context() as patch:
                if name == "_watch_of":
                    patch.setattr(pool, name, lambda _: 1 / 0)
                else:
                    patch.setattr(pool.Watch, "count", lambda *_: 1 / 0)
                assert 1 == one(small)

    assert {"pool"} == {fault.where for fault in faults.told()}


@pytest.mark.parametrize("broken", [False, True])
def test_a_pool_that_nobody_watches_is_asked_once(probe, make_engine, sqlite_url, monkeypatch, broken):
    """Its errors are its own: neither counted here, nor met again, nor in the context of ours."""
    other = make_engine(sqlite_url(), pool_size=1, max_overflow=0, pool_timeout=0.01)
    asked = []
    get = other.pool._pool.get
    with other.connect(), monkeypatch.context() as patch:
        patch.setattr(other.pool._pool, "get", lambda *given: asked.append(1) or get(*given))
        if broken:
            patch.setattr(pool, "_watch_of", lambda _: 1 / 0)
        with pytest.raises(sa.exc.TimeoutError) as caught:
            other.connect()

    seen, error = [], caught.value
    while error is not None:
        seen.append(type(error).__name__)
        error = error.__context__
    assert (1, False) == (len(asked), "ZeroDivisionError" in seen)
    assert broken == bool(faults.told())
    faults.forget()


def test_the_pools_own_errors_are_the_callers(make_engine, sqlite_url):
    engine = make_engine("sqlite:////nowhere/at/all.sqlite")
    with sqlprobe.attach(engine, settings=WATCH) as probe:
        with pytest.raises(sa.exc.OperationalError):
            engine.connect()
        told = counts(probe)

    assert (0, 0, 1, 0) == (told.pending, told.timeouts, calls(told.wait), calls(told.create))
    assert () == faults.told()


@pytest.mark.parametrize("driver", ["aiosqlite", pytest.param("asyncpg", marks=pytest.mark.versions)])
def test_tasks_wait_and_hold_as_threads_do(driver, request, run_async):
    url = request.getfixturevalue("sqlite_url" if driver == "aiosqlite" else "postgresql_url")(driver)

    async def main(engine):
        with sqlprobe.attach(engine, settings=WATCH) as probe:

            async def work():
                async with engine.begin() as connection:
                    await connection.execute(sa.text("SELECT 1"))
                    await asyncio.sleep(0.02)

            await asyncio.gather(*(work() for _ in range(5)))
            (told,) = probe.pools()
            return told, probe.findings()

    told, found = run_async(main, url, pool_size=1, max_overflow=0, poolclass=AsyncAdaptedQueuePool)

    assert (5, 5, 1, 0) == (calls(told.wait), calls(told.use), calls(told.create), told.pending)
    assert {"commit": 5, "rollback": 0, "close": 0} == {
        outcome: calls(each) for outcome, each in told.transactions.items()
    }
    assert {"pool-pressure"} == {finding.rule for finding in found} - {"long-transaction"}
    assert {"main.<locals>.work"} <= {
        finding.site.function.partition("test_tasks_wait_and_hold_as_threads_do.<locals>.")[2] for finding in found
    }
    assert () == faults.told()


@pytest.mark.versions
def test_postgresql_transactions(make_engine, postgresql_url):
    engine = make_engine(postgresql_url("psycopg"))
    with sqlprobe.attach(engine, settings=WATCH) as probe:
        with engine.begin() as connection:
            connection.execute(sa.text("SELECT 1"))
            with connection.begin_nested():  # a savepoint is no transaction
                connection.execute(sa.text("SELECT 2"))
        with pytest.raises(sa.exc.DBAPIError), engine.begin() as connection:
            connection.execute(sa.text("SELECT nothing"))
        told = counts(probe)

    assert {"commit": 1, "rollback": 1, "close": 0} == {
        outcome: calls(each) for outcome, each in told.transactions.items()
    }


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_begins_at_zero(probe, small):
    one(small)
    small.dispose()
    child = os.fork()
    if not child:
        small.dispose(close=False)
        one(small)
        told = counts(probe)
        os._exit(0 if (1, 1) == (calls(told.wait), calls(told.use)) else 1)
    _, status = os.waitpid(child, 0)

    assert 0 == status
    assert 1 == calls(counts(probe).wait)
