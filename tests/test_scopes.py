# ruff: noqa: B018 - to read is to load

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import subprocess
import sys
import textwrap
import threading
import weakref
from collections import deque
from time import perf_counter_ns

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

import sqlprobe
from sqlprobe import capture, faults, orm, scopes
from sqlprobe.fingerprint import shape_of
from sqlprobe.stats import Tally

pytestmark = pytest.mark.versions

ONE = sa.text("SELECT 1")


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customer"

    id: Mapped[int] = mapped_column(primary_key=True)
    orders: Mapped[list[Order]] = relationship(order_by="Order.id")


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(sa.ForeignKey("customer.id"))
    lines: Mapped[list[Line]] = relationship()


class Line(Base):
    __tablename__ = "line"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(sa.ForeignKey("orders.id"))


@pytest.fixture(autouse=True)
def nothing_left_behind():
    faults.forget()
    yield
    assert ((), []) == (faults.told(), scopes.open_scopes())


@pytest.fixture
def probe(engine):
    """Of an engine whose database has 50 customers with one order of one line each."""
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        ids = range(1, 51)
        connection.execute(sa.insert(Customer), [{"id": i} for i in ids])
        connection.execute(sa.insert(Order), [{"id": i, "customer_id": i} for i in ids])
        connection.execute(sa.insert(Line), [{"id": i, "order_id": i} for i in ids])
    with sqlprobe.attach(engine) as attached:
        yield attached


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still: `clock.move(seconds)`."""

    class Clock:
        now = perf_counter_ns()

        def __call__(self):
            self.now += 1000
            return self.now

        def move(self, seconds):
            self.now += round(seconds * 1e9)

    clock = Clock()
    monkeypatch.setattr(scopes, "perf_counter_ns", clock)
    monkeypatch.setattr(capture, "perf_counter_ns", clock)
    return clock


def run(connection, times=1):
    for _ in range(times):
        connection.execute(ONE)


def read_orders(session, limit=50):
    for customer in session.scalars(sa.select(Customer).limit(limit)).all():
        customer.orders


def told(report):
    """Without SELECT 1, which here stands for statements that say nothing, and which is told for that."""
    findings = [finding for finding in report.findings if finding.rule != "duplicate-statement"]
    return [(finding.rule, finding.label, finding.scope, finding.count) for finding in findings]


shape = functools.cache(shape_of)


def record(text="SELECT 1", elapsed=1000, rows=1, load=None, started=None):
    tally = Tally(shape(text), "sqlite:///")
    return (tally, perf_counter_ns() if started is None else started, elapsed, rows, load, None, None, None, ())


# --- totals -----------------------------------------------------------------------------------------------------------


def test_totals_are_live(probe, engine):
    with engine.connect() as connection, sqlprobe.scope("work") as scope:
        before = (scope.calls, scope.seconds, scope.rows)
        run(connection, 2)
        two, seconds = scope.calls, scope.seconds
        run(connection)

        assert ((0, 0.0, 0), 2, 3, True) == (before, two, scope.calls, 0 < seconds < scope.seconds)
    assert 3 == scope.calls


def test_rows_are_what_the_driver_told(probe, engine):
    with engine.begin() as connection, sqlprobe.scope("work") as scope:
        run(connection)  # SQLite does not tell how many rows a SELECT has
        connection.execute(sa.update(Order).values(customer_id=1))

    assert 50 == scope.rows


def test_totals_include_nested_scopes(probe, engine):
    with engine.connect() as connection, sqlprobe.scope("outer") as outer:
        run(connection)
        with sqlprobe.scope("middle") as middle:
            run(connection)
            with sqlprobe.scope("inner") as inner:
                run(connection)
                live = (outer.calls, middle.calls, inner.calls)
        run(connection)

    assert ((3, 2, 1), (4, 2, 1)) == (live, (outer.calls, middle.calls, inner.calls))


def test_failing_and_executemany_statements_count_once_each(probe, engine):
    with engine.begin() as connection, sqlprobe.scope("work") as scope:
        connection.execute(sa.insert(Customer), [{"id": i} for i in range(100, 110)])
        with pytest.raises(sa.exc.OperationalError):
            connection.execute(sa.text("SELECT nothing"))

    assert (2, 1) == (scope.calls, probe.report().scopes[0].errors)


def test_report_tells_each_scope_by_name_and_kind(probe, engine):
    with engine.connect() as connection:
        for kind in ("task", "task", "request"):
            with sqlprobe.scope("work", kind=kind):
                run(connection, 2)
                connection.execute(sa.text("SELECT 2, 3"))

    stats = probe.report().scopes

    assert [("work", "task", 2, 6, 4), ("work", "request", 1, 3, 2)] == [
        (item.name, item.kind, item.count, item.calls, item.distinct) for item in stats
    ]


def test_scope_without_a_probe_counts_nothing_and_keeps_nothing(engine):
    with engine.connect() as connection, sqlprobe.scope("work") as scope:
        run(connection, 3)

        assert (0, 0.0, 0, 0, 0) == (scope.calls, scope.seconds, scope.rows, len(scope.records), len(scope.seen))


def test_paused_probe_counts_nothing_until_resumed(probe, engine):
    with engine.connect() as connection, sqlprobe.scope("work") as scope:
        probe.pause()
        run(connection, 3)
        paused = scope.calls
        probe.resume()
        run(connection)

    assert (0, 1) == (paused, scope.calls)


# --- contexts ---------------------------------------------------------------------------------------------------------


def test_bare_thread_has_no_scope(probe, engine):
    def work():
        with engine.connect() as connection:
            run(connection)
        seen.append(scopes.current.get())

    seen = []
    with sqlprobe.scope("work") as scope:
        thread = threading.Thread(target=work, context=contextvars.Context()) if sys.version_info >= (3, 14) else None
        thread = thread or threading.Thread(target=work)
        thread.start()
        thread.join()

    assert ([None], 0) == (seen, scope.calls)


def test_scope_follows_a_copied_context_into_a_thread(probe, engine):
    def work():
        with engine.connect() as connection:
            run(connection, 2)

    with sqlprobe.scope("work") as scope:
        thread = threading.Thread(target=contextvars.copy_context().run, args=(work,))
        thread.start()
        thread.join()

    assert 2 == scope.calls


def test_scope_follows_tasks_and_to_thread(run_async, sqlite_url, make_engine):
    async def work(engine):
        async with engine.connect() as connection:
            await connection.execute(ONE)
            await connection.execute(ONE)

    def in_thread(other):
        with other.connect() as connection:
            run(connection)

    async def main(engine):
        other = make_engine(sqlite_url())
        async with sqlprobe.scope("all") as everything:
            await asyncio.gather(*(work(engine) for _ in range(5)))
            after_gather = everything.calls
            await asyncio.to_thread(in_thread, other)
            await asyncio.create_task(work(engine))
        return after_gather, everything.calls

    with sqlprobe.attach():
        assert (10, 13) == run_async(main, sqlite_url("aiosqlite"))


def test_scopes_of_concurrent_tasks_stay_apart(run_async, sqlite_url):
    async def request(engine, times):
        with sqlprobe.scope(f"request {times}") as scope:
            async with engine.connect() as connection:
                for _ in range(times):
                    await connection.execute(ONE)
                    await asyncio.sleep(0)
        return scope.calls

    async def main(engine):
        with sqlprobe.scope("all") as everything:
            counts = await asyncio.gather(*(request(engine, times) for times in range(1, 6)))
        return counts, everything.calls

    with sqlprobe.attach():
        assert ([1, 2, 3, 4, 5], 15) == run_async(main, sqlite_url("aiosqlite"))


def test_cancelled_task_closes_its_scope(run_async, sqlite_url):
    async def work(engine, opened, ran):
        with sqlprobe.scope("work") as scope:
            opened.append(scope)
            async with engine.connect() as connection:
                await connection.execute(ONE)
                ran.set()
                await asyncio.Event().wait()

    async def main(engine):
        opened, ran = [], asyncio.Event()
        task = asyncio.create_task(work(engine, opened, ran))
        await ran.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return opened[0].closed, opened[0].calls

    with sqlprobe.attach() as probe:
        assert (True, 1) == run_async(main, sqlite_url("aiosqlite"))
    assert [("work", 1)] == [(item.name, item.calls) for item in probe.report().scopes]


def test_exception_propagates_and_closes_the_scope(probe, engine):
    error = RuntimeError("the application's")
    scope = sqlprobe.scope("work")

    def work():
        with scope, engine.connect() as connection:
            run(connection)
            raise error

    with pytest.raises(RuntimeError) as raised:
        work()

    assert (True, True, None) == (raised.value is error, scope.closed, scopes.current.get())


def test_async_generator_closed_in_another_task_leaves_no_scope(run_async, sqlite_url):
    async def rows(engine):
        with sqlprobe.scope("stream"):
            async with engine.connect() as connection:
                for _ in range(3):
                    yield (await connection.execute(ONE)).scalar_one()

    async def main(engine):
        stream = rows(engine)
        first = await asyncio.create_task(anext(stream))
        second = await asyncio.create_task(anext(stream))
        await asyncio.create_task(stream.aclose())
        return first, second, scopes.current.get(), scopes.open_scopes()

    with sqlprobe.attach() as probe:
        assert (1, 1, None, []) == run_async(main, sqlite_url("aiosqlite"))
    assert [("stream", 1)] == [(item.name, item.count) for item in probe.report().scopes]


def test_generator_dependency_finished_in_another_thread_leaves_no_scope(probe, engine):
    @contextlib.contextmanager
    def session():
        with sqlprobe.scope("dependency") as scope:
            with engine.connect() as connection:
                run(connection)
            yield scope

    dependency = session()
    opened = []
    for step in (lambda: opened.append(dependency.__enter__()), lambda: dependency.__exit__(None, None, None)):
        thread = threading.Thread(target=contextvars.copy_context().run, args=(step,))
        thread.start()
        thread.join()

    assert (True, 1, None) == (opened[0].closed, opened[0].calls, scopes.current.get())


def test_scope_left_out_of_order_leaves_the_inner_one_current(probe, engine):
    def rows():
        with sqlprobe.scope("generator"):
            yield

    with engine.connect() as connection, sqlprobe.scope("outer") as outer:
        generator = rows()
        next(generator)
        with sqlprobe.scope("inner") as inner:
            generator.close()
            run(connection)
        run(connection)

        assert (1, 2, True) == (inner.calls, outer.calls, scopes.current.get() is outer)


def test_generator_collected_as_garbage_closes_its_scope(probe, engine):
    def rows():
        with sqlprobe.scope("generator"), engine.connect() as connection:
            run(connection)
            yield

    generator = rows()
    next(generator)
    del generator
    gc.collect()

    assert (None, [("generator", 1)]) == (
        scopes.current.get(),
        [(item.name, item.calls) for item in probe.report().scopes],
    )


# --- after the end ----------------------------------------------------------------------------------------------------


def test_statements_after_the_end_are_late(run_async, sqlite_url):
    async def main(engine):
        async def outlives():
            await finished.wait()
            async with engine.connect() as connection:
                await connection.execute(ONE)
                await connection.execute(ONE)

        finished = asyncio.Event()
        with sqlprobe.scope("request") as scope:
            task = asyncio.create_task(outlives())
            await asyncio.sleep(0)
        finished.set()
        await task
        return scope.late, scope.calls

    with sqlprobe.attach() as probe:
        assert (2, 0) == run_async(main, sqlite_url("aiosqlite"))
    assert [("request", 0, 2)] == [(item.name, item.calls, item.late) for item in probe.report().scopes]


def test_late_statements_count_in_the_scope_around(probe, engine):
    with engine.connect() as connection, sqlprobe.scope("outer") as outer:
        with sqlprobe.scope("inner") as inner:
            context = contextvars.copy_context()
        context.run(run, connection, 2)

    assert (0, 2, 2) == (inner.calls, inner.late, outer.calls)


def test_child_that_outlives_its_parent_counts_for_the_scope_around(probe, engine):
    with engine.connect() as connection, sqlprobe.scope("outer") as outer:
        with sqlprobe.scope("parent") as parent:
            child = scopes.Scope("child")
            context = contextvars.copy_context()
            context.run(child.open)
            context.run(run, connection, 1)
        context.run(run, connection, 2)
        live = (outer.calls, parent.calls, child.calls)
        context.run(child.close)

        assert ((3, 1, 3), 0) == (live, child.late)


def test_closed_scope_frees_its_detail_while_a_context_holds_it(probe, engine):
    with sqlprobe.scope("work") as scope, Session(engine) as session:
        read_orders(session)
        scope.digest_now()
        held = len(scope.digest.origins)
        context = contextvars.copy_context()

    digest = scope.digest
    assert (51, 0, 0, 0, 0, 0) == (
        held, len(digest.origins), len(digest.shapes), len(digest.loads), len(scope.records), len(scope.seen)
    )  # fmt: skip
    assert scope is context[scopes.current]


def test_context_that_outlives_its_scope_does_not_grow_it(probe, engine):
    with sqlprobe.scope("request") as scope:
        context = contextvars.copy_context()

    def background():
        for _ in range(30):
            with Session(engine) as session:
                read_orders(session)

    context.run(background)

    assert (30 * 51, True) == (scope.late, len(scope.seen) <= scopes.BATCH + 1)


def test_objects_that_were_read_are_not_kept_alive(probe, engine):
    with sqlprobe.scope("work"), Session(engine) as session:
        customers = session.scalars(sa.select(Customer)).all()
        [customer.orders for customer in customers]
        kept = [weakref.ref(customer) for customer in customers]
        session.expunge_all()
        del customers
        gc.collect()

        assert set() == {ref() for ref in kept} - {None}


def test_scope_and_what_it_holds_go_when_nobody_has_it(probe, engine):
    with engine.connect() as connection, sqlprobe.scope("outer"):
        with sqlprobe.scope("inner") as scope:
            run(connection)
        ref = weakref.ref(scope)
        del scope
        gc.collect()

        assert ref() is None


# --- use --------------------------------------------------------------------------------------------------------------


def test_decorates_functions_sync_and_async(probe, engine):
    @sqlprobe.scope("sync", kind="task")
    def sync(times):
        """Documented."""
        with engine.connect() as connection:
            run(connection, times)
        return times

    @sqlprobe.scope("async")
    async def asynchronous():
        await asyncio.sleep(0)
        return sync(1)

    results = (sync(1), sync(2), asyncio.run(asynchronous()), sync.__doc__)

    assert ((1, 2, 1, "Documented."), [("sync", "task", 3, 4), ("async", "scope", 1, 1)]) == (
        results,
        [(item.name, item.kind, item.count, item.calls) for item in probe.report().scopes],
    )


def test_decorated_generator_runs_in_the_scope_and_takes_what_is_sent_and_thrown(probe, engine):
    @sqlprobe.scope("rows")
    def rows():
        with engine.connect() as connection:
            try:
                sent = yield 1
                run(connection)
                yield sent
            except KeyError:
                run(connection)
            return

    generator = rows()
    values = [next(generator), generator.send("sent")]
    with pytest.raises(StopIteration):
        generator.throw(KeyError())

    assert ([1, "sent"], [("rows", 1, 2)]) == (
        values,
        [(item.name, item.count, item.calls) for item in probe.report().scopes],
    )


def test_async_generator_functions_are_refused_with_what_to_do():
    async def rows():
        yield

    with pytest.raises(sqlprobe.SqlprobeError) as raised:
        sqlprobe.scope("rows")(rows)

    assert (
        "sqlprobe.scope('rows') decorates test_async_generator_functions_are_refused_with_what_to_do.<locals>.rows, an "
        "async generator function, which no decorator can enclose; write `with sqlprobe.scope('rows'):` inside it"
    ) == str(raised.value)


def test_recursion_of_a_decorated_function_nests(probe, engine):
    @sqlprobe.scope("down")
    def down(depth):
        with engine.connect() as connection:
            run(connection)
        if depth:
            down(depth - 1)

    down(2)

    assert [("down", 3, 6)] == [(item.name, item.count, item.calls) for item in probe.report().scopes]


def test_entering_an_open_scope_again_joins_it(probe, engine):
    scope = sqlprobe.scope("work")
    with engine.connect() as connection, scope:
        with scope:
            run(connection)
        inside = scopes.current.get() is scope
        run(connection)

    assert (True, 2, 1) == (inside, scope.calls, probe.report().scopes[0].count)


def test_scope_used_again_begins_at_zero(probe, engine):
    scope = sqlprobe.scope("work")
    counts = []
    with engine.connect() as connection:
        for times in (3, 1):
            with scope:
                run(connection, times)
            counts.append(scope.calls)

    stats = probe.report().scopes[0]
    assert ([3, 1], 2, 4) == (counts, stats.count, stats.calls)


def test_closing_what_is_not_open_does_nothing(probe):
    scope = scopes.Scope("work")
    scope.close()
    scope.open()
    scope.close()
    scope.close()

    assert [("work", 1)] == [(item.name, item.count) for item in probe.report().scopes]


@pytest.mark.parametrize(
    ("given", "name"), [(7, "7"), (None, "None"), ("x" * 1000, "x" * scopes.MAX_NAME), ("", ""), (b"a", "b'a'")]
)
def test_any_name_is_a_bounded_text(probe, given, name):
    with sqlprobe.scope(given, kind=["list"]) as scope:
        pass

    assert ((name, "['list']"), [(name, "['list']")]) == (
        (scope.name, scope.kind),
        [(item.name, item.kind) for item in probe.report().scopes],
    )


def test_repr_tells_name_state_and_count(probe, engine):
    with engine.connect() as connection, sqlprobe.scope("work") as scope:
        run(connection)
        scope.digest_now()
        inside = repr(scope)

    assert (
        "<sqlprobe.scope 'work' (scope), open, 1 statements>",
        "<sqlprobe.scope 'work' (scope), closed, 1 statements>",
    ) == (inside, repr(scope))


def test_renamed_scope_is_judged_by_its_last_name(probe, engine):
    with sqlprobe.scope("before") as scope, Session(engine) as session:
        read_orders(session)
        scope.rename("after")

    report = probe.report()
    assert (["after"], ["after"]) == ([item.name for item in report.scopes], [item.scope for item in report.findings])


def seen(digest):
    """All that a digest holds, in plain values."""
    return (
        (digest.calls, digest.ns, digest.rows, digest.errors, digest.writes, digest.first_ns, digest.last_ns),
        [
            (
                (calls.shape.text, calls.calls, calls.ns, calls.rows, calls.again),
                [(s.place, s.calls, s.ns, s.rows, s.distinct, s.after_writes, s.last_ns) for s in calls.spots.values()],
            )
            for calls in digest.shapes.values()
        ],
        [(each.calls, each.ns, each.parents, each.place, each.last_ns, each.expired) for each in digest.loads.values()],
        [(slow.calls, slow.ns) for slow in digest.slow.values()],
        sorted(digest.origins),
    )


@pytest.mark.parametrize("call_sites", ["off", "first", "all"])
def test_digest_of_many_records_is_that_of_each_by_itself(probe, engine, monkeypatch, call_sites):
    monkeypatch.setattr(scopes, "BATCH", 1 << 40)
    probe.detach()
    with (
        sqlprobe.attach(engine, settings=sqlprobe.Settings(call_sites=call_sites)),
        sqlprobe.scope("work") as scope,
        Session(engine) as session,
    ):
        read_orders(session)
        for number in (1, 1, 2, 2, 1, 3):
            session.execute(sa.text("SELECT :id"), {"id": number})
            session.execute(sa.text("UPDATE customer SET id = id WHERE id = :id"), {"id": number})
        for number in (1, 1, 2, 2, 1, 3):
            session.execute(sa.text("SELECT id FROM customer WHERE id = :id"), {"id": number})
        session.execute(sa.text("SELECT id FROM customer WHERE id = :id"), {"id": 1})
        session.expunge_all()
        for customer in session.scalars(sa.select(Customer).limit(5)).all():
            customer.orders
            session.execute(sa.text("SELECT id FROM customer WHERE id = :id"), {"id": 7})
        records = [each if index % 7 else (*each[:2], 10**9, *each[3:]) for index, each in enumerate(scope.records)]
    whole, single = scopes.Digest("work", 10**8), scopes.Digest("work", 10**8)
    whole.drain(deque(records))
    for each in records:
        single.add(each)

    assert len(records) > 80
    for one, many in zip(seen(single), seen(whole), strict=True):
        assert one == many


# --- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.once
def test_n_plus_one_of_50_after_200_000_other_statements_is_found(probe, engine, size):
    others, real = size(190_000, 20_000), size(10_000, 1_000)
    with sqlprobe.scope("import") as scope, Session(engine) as session:
        for number in range(others):
            scope.take(record(f"SELECT a{number % 40}, b"))
        connection = session.connection()
        for _ in range(real):
            connection.exec_driver_sql("SELECT 1")
        read_orders(session)
        bounded = len(scope.records) < scopes.BATCH

    assert (True, others + real + 51, [("n-plus-one", "Customer.orders", "import", 50)]) == (
        bounded,
        scope.calls,
        told(probe.report()),
    )


@pytest.mark.parametrize("value", ["x" * 1_000_000, b"y" * 1_000_000], ids=["text", "bytes"])
def test_long_parameters_wait_as_their_hash(probe, engine, value):
    with sqlprobe.scope("work") as scope, engine.connect() as connection:
        for _ in range(3):
            connection.execute(sa.text("SELECT :a"), {"a": value})
            connection.execute(sa.select(sa.literal(value)))
        waiting = [each for record in scope.records for each in record[7]]

    assert (6, True) == (scope.calls, all(type(each) is int or len(each) <= scopes.LONG for each in waiting))


def test_parameters_of_any_size_do_not_wait(probe, engine):
    scope = sqlprobe.scope("work")
    with scope:
        scope.take((*record()[:7], (7, ["a list"] * 1_000_000), ()))

        assert [None] == [each[7] for each in scope.records]


def test_many_parameters_are_digested_early(probe, engine):
    waiting = []
    with sqlprobe.scope("work") as scope:
        for number in range(100):
            scope.take((*record()[:7], tuple(range(number, number + 900)), ()))
            waiting.append(sum(len(each[7]) for each in scope.records))

    assert (True, 100) == (max(waiting) <= scopes.MAX_VALUES, scope.calls)


@pytest.mark.long
@pytest.mark.once
def test_n_plus_one_amid_200_000_other_loads_is_found(probe, engine):
    """Each of the others is one object's, loaded by a query of its own: what is followed is bounded too."""
    load = (orm.LAZY, None, 0, 1, None, 1, 0)
    with sqlprobe.scope("import") as scope, Session(engine) as session:
        customers = session.scalars(sa.select(Customer)).all()
        customers[0].orders
        with scope.digested() as digest:
            real = next(iter(digest.loads.values())).load
        for number in range(30_000):
            load = (orm.LAZY, real.compile_state, 10**9 + 2 * number, 10**9 + 2 * number, real.load_path, number, 0)
            scope.take(record("SELECT lazy", load=load))
        for customer in customers[1:]:
            customer.orders
        with scope.digested() as digest:
            sizes = (len(digest.loads), len(digest.origins), len(digest._loads))
            dropped = digest.dropped

    assert (True, True, True, True) == (
        sizes[0] <= scopes.MAX_LOADS,
        sizes[1] <= scopes.MAX_ORIGINS,
        sizes[2] <= scopes.MAX_SHAPES,
        dropped >= 10_000,
    )
    assert {("n-plus-one", "Customer.orders", "import")} == {item[:3] for item in told(probe.report())}
    assert 49 <= told(probe.report())[0][3] <= 50


def test_many_distinct_statements_are_bounded_and_counted(probe):
    more = 700
    with sqlprobe.scope("import") as scope:
        for number in range(scopes.MAX_SHAPES + more):
            scope.take(record(f"SELECT a{number}"))
        with scope.digested() as digest:
            assert (scopes.MAX_SHAPES + 1, more) == (len(digest.shapes), digest.dropped)

    assert scopes.MAX_SHAPES + more == scope.calls


def test_what_a_nested_scope_dropped_is_told_by_the_outer_one(probe):
    more = 10
    with sqlprobe.scope("outer") as outer:
        outer.take(record("SELECT outside"))
        with sqlprobe.scope("inner") as inner:
            for number in range(scopes.MAX_SHAPES + more):
                inner.take(record(f"SELECT a{number}"))
        with outer.digested() as digest:
            assert (True, True, scopes.MAX_SHAPES + more + 1) == (
                len(digest.shapes) <= scopes.MAX_SHAPES + 1,
                digest.dropped >= more,
                digest.calls,
            )


def test_slow_statements_are_bounded_too(engine):
    settings = sqlprobe.Settings(slow_seconds=1e-9)
    with sqlprobe.attach(engine, settings=settings), sqlprobe.scope("import") as scope:
        for number in range(scopes.MAX_SHAPES + 10):
            scope.take(record(f"SELECT a{number}"))
        with scope.digested() as digest:
            assert scopes.MAX_SHAPES == len(digest.slow)


def test_record_that_cannot_be_digested_costs_no_total(probe):
    broken = (orm.LAZY, object(), 1, 1, None, 1, 0)
    with sqlprobe.scope("work") as scope:
        scope.take(record())
        scope.take(record(load=broken))
        scope.take(record())

    counted = [(fault.where, fault.count) for fault in faults.told()]
    faults.forget()
    assert (3, [("digest", 1)]) == (scope.calls, counted)


def test_threads_that_share_a_scope_lose_no_statement(probe, engine):
    def work():
        for _ in range(2000):
            scope.take(record(shape))

    shape = "SELECT 1"
    with sqlprobe.scope("work") as scope:
        threads = [threading.Thread(target=contextvars.copy_context().run, args=(work,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert scope.calls <= 16_000
        for thread in threads:
            thread.join()

    assert (16_000, 16_000) == (scope.calls, probe.report().scopes[0].calls)


# --- windows ----------------------------------------------------------------------------------------------------------


def test_long_scope_is_judged_while_it_is_open(probe, engine, clock):
    with sqlprobe.scope("worker", kind="task") as scope, Session(engine) as session:
        read_orders(session)
        clock.move(61)
        session.execute(ONE)
        while_open = (told(probe.report()), [(item.name, item.calls) for item in probe.report().scopes])
        held = len(scope.digest.origins)
        session.execute(ONE)
        total = scope.calls

    finding = ("n-plus-one", "Customer.orders", "worker", 50)
    assert (([finding], [("worker", 52)]), 0, 53) == (while_open, held, total)
    assert ([finding], [("worker", 53)]) == (
        told(probe.report()),
        [(item.name, item.calls) for item in probe.report().scopes],
    )


def test_each_window_counts_its_own_statements_once(probe, engine, clock):
    with sqlprobe.scope("worker"), engine.connect() as connection:
        for _ in range(5):
            run(connection, 10)
            clock.move(61)
    with Session(engine) as session:
        for _ in range(3):
            with sqlprobe.scope("worker"):
                read_orders(session)
                session.expunge_all()

    report = probe.report()
    assert (50 + 3 * 51, [("n-plus-one", "Customer.orders", "worker", 150)]) == (
        sum(item.calls for item in report.scopes),
        told(report),
    )


def test_outer_scope_that_runs_nothing_itself_is_judged_in_windows(probe, engine, clock):
    with sqlprobe.scope("loop") as loop, engine.connect() as connection:
        for _ in range(3):
            with sqlprobe.scope("job"):
                run(connection, 2)
            clock.move(61)
        while_open = {item.name: item.calls for item in probe.report().scopes}
        held = loop.digest.calls

    assert ({"loop": 6, "job": 6}, 0) == ({**while_open, "loop": loop.calls}, held)
    assert {"loop": 6, "job": 6} == {item.name: item.calls for item in probe.report().scopes}


def test_windows_of_a_nested_scope_reach_the_outer_one(probe, engine, clock):
    with engine.connect() as connection, sqlprobe.scope("outer"), sqlprobe.scope("inner"):
        run(connection)
        clock.move(61)
        run(connection)

    assert {"outer": (2, 1), "inner": (2, 1)} == {
        item.name: (item.calls, item.distinct) for item in probe.report().scopes
    }


# --- nested scopes and patterns ---------------------------------------------------------------------------------------


def test_n_plus_one_spread_over_nested_scopes_is_told_once_by_the_outer(probe, engine):
    with Session(engine) as session, sqlprobe.scope("list"):
        for customer in session.scalars(sa.select(Customer).limit(6)).all():
            with sqlprobe.scope("row"):
                customer.orders

    (finding,) = probe.report().findings
    assert ("Customer.orders", "list", 6, True) == (finding.label, finding.scope, finding.count, bool(finding.origin))
    assert (7, 1) == (finding.evidence["statements_in_scope"], round(finding.evidence["share_of_scope"] <= 1))


def test_two_levels_spread_over_nested_scopes_hang_from_the_same_query(probe, engine):
    with Session(engine) as session, sqlprobe.scope("list"):
        for customer in session.scalars(sa.select(Customer).limit(6)).all():
            with sqlprobe.scope("row"):
                [order.lines for order in customer.orders]

    assert [
        ("n-plus-one", "Customer.orders", "list", 6),
        ("n-plus-one", "Order.lines", "list", 6),
    ] == sorted(told(probe.report()))


def test_n_plus_one_of_a_nested_scope_is_not_told_again_by_the_outer(probe, engine):
    with Session(engine) as session, sqlprobe.scope("outer"):
        session.execute(ONE)
        with sqlprobe.scope("inner"):
            read_orders(session, 6)

    assert [("n-plus-one", "Customer.orders", "inner", 6)] == told(probe.report())


def test_report_while_open_does_not_change_what_is_told_at_the_end(probe, engine):
    with Session(engine) as session, sqlprobe.scope("outer"):
        customers = session.scalars(sa.select(Customer).limit(6)).all()
        with sqlprobe.scope("inner"):
            for customer in customers:
                customer.orders
                probe.report()

    assert [("n-plus-one", "Customer.orders", "inner", 6)] == told(probe.report())


def test_good_code_in_nested_scopes_is_silent(probe, engine):
    with Session(engine) as session, sqlprobe.scope("list"):
        for customer in session.scalars(sa.select(Customer).options(selectinload(Customer.orders))).all():
            with sqlprobe.scope("row"):
                customer.orders

    assert [] == told(probe.report())


# --- who is told ------------------------------------------------------------------------------------------------------


def test_callbacks_that_ask_for_a_report_do_not_wait_for_each_other(engine, make_engine):
    """Each thread's outer scope is open while its inner one tells a finding: a report looks at both."""
    Base.metadata.create_all(engine)
    both = threading.Barrier(2, timeout=20)
    reports = []

    def on_finding(finding):
        both.wait()
        reports.append(probe.report())

    def work(number):
        other = make_engine()
        Base.metadata.create_all(other)
        with Session(other) as session:
            session.add_all(Customer(id=i) for i in range(1, 4))
            session.commit()
            with sqlprobe.scope(f"outer {number}"):
                session.execute(ONE)
                with sqlprobe.scope(f"inner {number}"):
                    read_orders(session)

    with sqlprobe.attach(on_finding=on_finding) as probe:
        threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)

        assert (2, 2) == (len(reports), len(probe.report().findings))


def test_sink_that_raises_is_counted_and_the_scope_closes(probe, engine, monkeypatch):
    monkeypatch.setattr(probe, "judge", lambda scope, window: 1 / 0, raising=False)
    with engine.connect() as connection, sqlprobe.scope("work") as scope:
        run(connection)

    counted = [(fault.where, fault.error.split()[0]) for fault in faults.told()]
    faults.forget()
    assert (True, [("judge", "ZeroDivisionError")]) == (scope.closed, counted)


def test_forked_child_tells_its_own_part_only(tmp_path):
    script = """
        import os, sys, threading
        import sqlalchemy as sa, sqlprobe
        from sqlprobe import scopes

        engine = sa.create_engine("sqlite://")
        probe = sqlprobe.attach(engine)
        one = sa.text("SELECT 1")
        inside, done = threading.Event(), threading.Event()

        def other_thread():
            with sqlprobe.scope("other") as other, engine.connect() as connection:
                connection.execute(one)
                with other.digested():  # holds the lock that the child will never see released
                    inside.set()
                    done.wait(20)

        thread = threading.Thread(target=other_thread)
        thread.start()
        inside.wait(20)
        with engine.connect() as connection, sqlprobe.scope("outer") as outer, sqlprobe.scope("inner") as inner:
            for _ in range(3):
                connection.execute(one)
            child = os.fork()
            if not child:
                connection.execute(one)
                probe.report()
                names = sorted(scope.name for scope in scopes.open_scopes())
                inner.close()
                outer.close()
                told = sorted((item.name, item.calls) for item in probe.report().scopes)
                print("child", names, told, flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            connection.execute(one)
        done.set()
        thread.join()
        print("parent", sorted((item.name, item.calls) for item in probe.report().scopes))
    """
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
        env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip

    assert [
        "child ['inner', 'outer'] [('inner', 1), ('outer', 1)]",
        "parent [('inner', 4), ('other', 1), ('outer', 4)]",
        "",
    ] == [*ran.stdout.splitlines(), ran.stderr]
