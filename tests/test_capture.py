"""
The hook inside the user's statement: what it sees, what it leaves alone, and what happens when it or others misbehave.
"""

from __future__ import annotations

import gc
import logging
import re
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine

import sqlprobe
from sqlprobe import capture, faults, scopes
from sqlprobe.fingerprint import shape_of
from sqlprobe.model import Fault

pytestmark = pytest.mark.versions

ONE = sa.text("select 1")
ALL_EVENTS = ("do_execute", "do_executemany", "do_execute_no_params")


@pytest.fixture(autouse=True)
def nothing_left_behind():
    faults.forget()
    yield

    assert ((), (), ()) == (capture.owners, capture.recorders, faults.told())


@pytest.fixture
def listen():
    """`event.listen` for the length of a test."""
    added = []

    def add(target, name, handler, **options):
        event.listen(target, name, handler, **options)
        added.append((target, name, handler))

    yield add
    for entry in added:
        if event.contains(*entry):
            event.remove(*entry)


def calls(source):
    """Calls by normalised text, of a probe or a recording."""
    statements = source.report().statements
    return {item.text: item.calls for item in statements}


def run(engine, *statements):
    with engine.begin() as connection:
        return [connection.execute(statement).all() for statement in statements]


def table(name="item"):
    return sa.Table(name, sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("x", sa.Integer))


# --- which engines ----------------------------------------------------------------------------------------------------


def test_sees_engines_made_before_and_after_attach(make_engine):
    before = make_engine()
    run(before, ONE)
    with sqlprobe.attach() as probe:
        after = make_engine()
        run(before, ONE)
        run(after, ONE, ONE)

    assert {"select ?": 3} == calls(probe)


def test_sees_only_its_own_engine(make_engine):
    mine, other = make_engine(), make_engine()
    with sqlprobe.attach(mine) as probe:
        run(mine, ONE)
        run(other, ONE, ONE)

    assert {"select ?": 1} == calls(probe)


def test_an_engine_of_a_dialect_class_made_after_attach_is_seen(make_engine):
    """SQLAlchemy gives a class that it meets later a list of handlers of its own."""
    from sqlalchemy.dialects import registry
    from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

    with sqlprobe.attach() as probe:
        late = type("LateDialect", (SQLiteDialect_pysqlite,), {"supports_statement_cache": True})
        registry.impls["sqlite.late"] = lambda: late
        run(make_engine("sqlite+late://"), ONE)

    assert {"select ?": 1} == calls(probe)


def test_execution_options_copy_is_the_same_engine(make_engine):
    engine = make_engine()
    copy = engine.execution_options(stream_results=True)
    with sqlprobe.attach(copy) as probe:
        run(engine, ONE)
        run(copy, ONE)

        with pytest.raises(sqlprobe.AlreadyAttached):
            sqlprobe.attach(engine)

    assert {"select ?": 2} == calls(probe)


def test_the_same_text_on_two_engines_is_two_statements(make_engine, tmp_path):
    engines = [make_engine(f"sqlite:///{tmp_path / name}.db") for name in "ab"]
    with sqlprobe.attach() as probe:
        run(engines[0], ONE)
        run(engines[1], ONE, ONE)

    found = {(item.engine, item.calls) for item in probe.report().statements}

    assert {(f"sqlite:///{tmp_path}/a.db", 1), (f"sqlite:///{tmp_path}/b.db", 2)} == {
        (name.replace("sqlite+pysqlite", "sqlite"), count) for name, count in found
    }


def test_two_probes_on_two_engines_each_see_their_own(make_engine):
    first, second = make_engine(), make_engine()
    with sqlprobe.attach(first) as one, sqlprobe.attach(second) as two:
        run(first, ONE)
        run(second, ONE, ONE)

    assert ({"select ?": 1}, {"select ?": 2}) == (calls(one), calls(two))


def test_an_async_engine_and_its_sync_engine_are_one(sqlite_url):
    engine = create_async_engine(sqlite_url("aiosqlite"))
    with sqlprobe.attach(engine) as probe:
        assert probe is sqlprobe.probe_of(engine.sync_engine)
        with pytest.raises(sqlprobe.AlreadyAttached):
            sqlprobe.attach(engine.sync_engine)


# --- which text -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["before", "after"])
def test_comment_adder_leaves_one_statement(engine, listen, place):
    numbers = iter(range(100))

    def adder(conn, cursor, statement, parameters, context, executemany):
        comment = f"/* trace={next(numbers)} */"
        return (f"{comment} {statement}" if place == "before" else f"{statement} {comment}"), parameters

    listen(engine, "before_cursor_execute", adder, retval=True)
    item = table()
    with engine.begin() as connection:
        item.create(connection)
    with sqlprobe.attach(engine) as probe:
        run(engine, ONE, ONE, *(sa.select(item).where(item.c.id.in_(ids)) for ids in ([1, 2], [1])))
        with engine.begin() as connection:
            connection.exec_driver_sql("select 'driver'")
            connection.exec_driver_sql("select 'driver'")

    assert {2: 1, 4: 1} == Counter(calls(probe).values())
    assert not any("trace" in text for text in calls(probe))


def test_rewriter_is_counted_as_what_was_sent(engine, listen):
    listen(
        engine,
        "before_cursor_execute",
        lambda conn, cursor, statement, parameters, context, many: (statement.replace("1", "2 + 2"), parameters),
        retval=True,
    )
    with sqlprobe.attach(engine) as probe:
        assert [[(4,)]] == run(engine, ONE)

    assert {"select ? + ?": 1} == calls(probe)


def test_in_lists_of_any_length_are_one_statement(engine):
    item = table()
    with engine.begin() as connection:
        item.create(connection)
    with sqlprobe.attach(engine) as probe:
        run(engine, *(sa.select(item.c.id).where(item.c.id.in_(range(size))) for size in (0, 1, 2, 500)))

    assert [4] == list(calls(probe).values())


# --- insertmanyvalues -------------------------------------------------------------------------------------------------


@pytest.fixture
def spender(make_engine, monkeypatch):
    """
    An engine whose SQL function `spend(nanoseconds)` advances the clock that capture reads; it fails below 0.

    Time passes in the database only: what a statement took is exact.
    """
    clock = SimpleNamespace(now=1_000_000)

    def spend(nanoseconds):
        if nanoseconds < 0:
            raise ValueError
        clock.now += nanoseconds
        return nanoseconds

    monkeypatch.setattr(capture, "perf_counter_ns", lambda: clock.now)
    engine = make_engine(insertmanyvalues_page_size=2)
    event.listen(engine, "connect", lambda connection, _: connection.create_function("spend", 1, spend))
    with engine.begin() as connection:
        table().create(connection)
    return engine


def spending(*nanoseconds):
    """An INSERT in pages of 2 and its rows; each row takes as long as it says."""
    item = table()
    statement = sa.insert(item).values(x=sa.func.spend(sa.bindparam("ns"))).returning(item.c.x)
    return statement, [{"ns": value} for value in nanoseconds]


def facts(item):
    return {
        "calls": item.calls,
        "pages": item.pages,
        "sets": item.parameter_sets,
        "ns": round(item.seconds * 1e9),
        "min": round(item.min * 1e9),
        "max": round(item.max * 1e9),
        "histogram": {bucket: count for bucket, count in enumerate(item.histogram) if count},
        "errors": dict(item.errors),
    }


def both(engine, work):
    """The facts of the only statement of *work*, as a probe and as a recording beside it see them, which are equal."""
    with sqlprobe.attach(engine) as probe, sqlprobe.record() as recording:
        work()
    with sqlprobe.record() as alone:
        work()
    [probed], [recorded], [second] = probe.report().statements, recording.statements, alone.statements

    assert facts(probed) == facts(recorded) == facts(second)
    return facts(probed), alone


def test_pages_are_one_call_that_took_their_sum(spender):
    def work():
        with spender.begin() as connection:
            connection.execute(*spending(4_000, 4_000, 4_000, 4_000, 4_000))

    found, recording = both(spender, work)
    expected = {
        "calls": 1, "pages": 3, "sets": 5, "ns": 20_000, "min": 20_000, "max": 20_000, "histogram": {1: 1}, "errors": {},
    }  # fmt: skip

    assert expected == found
    assert [(5, 3, 20_000)] == [
        (item.batch_size, item.pages, round(item.seconds * 1e9)) for item in recording.executions
    ]


def test_min_is_that_of_whole_executions(spender):
    def work():
        for rows in ([9_000, 9_000, 9_000], [2_000, 2_000, 2_000, 2_000], [10_000, 10_000, 1_000]):
            with spender.begin() as connection:
                connection.execute(*spending(*rows))

    found, _ = both(spender, work)

    assert {
        "calls": 3, "pages": 6, "sets": 10, "ns": 56_000, "min": 8_000, "max": 27_000, "histogram": {0: 1, 1: 1, 2: 1},
        "errors": {},
    } == found  # fmt: skip


def test_failing_page_ends_the_one_call(spender):
    def work():
        with pytest.raises(sa.exc.OperationalError), spender.begin() as connection:
            connection.execute(*spending(4_000, 4_000, 4_000, -1, 4_000))

    found, recording = both(spender, work)

    assert {
        "calls": 1, "pages": 2, "sets": 5, "ns": 12_000, "min": 12_000, "max": 12_000, "histogram": {1: 1},
        "errors": {"OperationalError": 1},
    } == found  # fmt: skip
    assert [("OperationalError", 2)] == [(item.error, item.pages) for item in recording.executions]


def test_failing_first_page_is_one_call(spender):
    def work():
        with pytest.raises(sa.exc.OperationalError), spender.begin() as connection:
            connection.execute(*spending(-1, 4_000, 4_000))

    found, _ = both(spender, work)

    assert (1, 1, 3, {"OperationalError": 1}) == tuple(found[name] for name in ("calls", "pages", "sets", "errors"))


def test_resume_between_two_pages_counts_what_is_seen(spender, listen):
    """The probe has not counted the first page: what comes is a call, and no count falls below 0."""
    probe = sqlprobe.attach(spender)
    probe.pause()
    pages = []

    def resume(*_):
        pages.append(1)
        if len(pages) == 2:
            probe.resume()

    listen(spender, "before_cursor_execute", resume)
    with sqlprobe.record() as recording, spender.begin() as connection:
        connection.execute(*spending(4_000, 4_000, 4_000, 4_000, 4_000))
    probe.detach()
    [item] = probe.report().statements

    assert min(item.histogram) == 0 < item.calls
    assert 12_000 == round(item.seconds * 1e9)
    assert [1] == [item.calls for item in recording.statements]


# --- what others listen to --------------------------------------------------------------------------------------------


def run_style(engine, name):
    """A statement that SQLAlchemy executes through the event *name*; the number of parameter sets."""
    with engine.begin() as connection:
        if name == "do_execute":
            connection.execute(ONE)
        elif name == "do_executemany":
            connection.exec_driver_sql("insert into log (x) values (?)", [(1,), (2,)])
        else:
            connection.exec_driver_sql("insert into log (x) values (3)", execution_options={"no_parameters": True})


def rows_in_log(engine):
    with engine.connect() as connection:
        return connection.connection.driver_connection.execute("select count(*) from log").fetchone()[0]


@pytest.fixture
def logging_engine(make_engine):
    engine = make_engine()
    with engine.begin() as connection:
        connection.exec_driver_sql("create table log (x integer)")
    return engine


@pytest.mark.parametrize("name", ALL_EVENTS)
@pytest.mark.parametrize("when", ["before attach", "after attach"])
@pytest.mark.parametrize("target", ["engine", "class"])
@pytest.mark.parametrize("kind", ["observer", "replacer"])
def test_other_handlers_run_once_and_so_does_the_statement(logging_engine, listen, name, when, target, kind):
    seen = []

    def handler(cursor, statement, *rest):
        seen.append(statement)
        if kind == "observer":
            return None
        *parameters, context = rest
        dialect = context.dialect
        if context.dialect is logging_engine.dialect:
            getattr(dialect, name)(cursor, statement, *parameters, context)
            return True
        return None

    on = logging_engine if target == "engine" else sa.Engine
    if when == "before attach":
        listen(on, name, handler)
    with sqlprobe.attach(logging_engine) as probe, sqlprobe.record() as first, sqlprobe.record() as second:
        if when == "after attach":
            listen(on, name, handler)
        run_style(logging_engine, name)

    expected = {"do_execute": 0, "do_executemany": 2, "do_execute_no_params": 1}[name]

    assert (1, expected) == (len(seen), rows_in_log(logging_engine))
    if kind == "replacer" and when == "before attach" and target == "class":
        # It comes before ours and ends the chain: nothing of ours is called, which `doctor` tells.
        assert [{}] * 3 == [calls(probe), calls(first), calls(second)]
    else:
        assert [[1]] * 3 == [list(calls(source).values()) for source in (probe, first, second)]


@pytest.mark.parametrize("name", ALL_EVENTS)
def test_handlers_follow_each_other_as_without_us(logging_engine, listen, name):
    """Class before engine, each in the order it was added, until one returns True."""

    def order():
        seen = []

        def handler(label, ends):
            def handle(cursor, statement, *rest):
                seen.append(label)
                if ends:
                    *parameters, context = rest
                    getattr(context.dialect, name)(cursor, statement, *parameters, context)
                return ends

            return handle

        added = [
            (logging_engine, handler("engine 1", False)),
            (sa.Engine, handler("class 1", False)),
            (logging_engine, handler("engine 2", True)),
            (sa.Engine, handler("class 2", False)),
            (logging_engine, handler("engine 3", False)),
        ]
        for target, handle in added:
            event.listen(target, name, handle)
        run_style(logging_engine, name)
        for target, handle in added:
            event.remove(target, name, handle)
        return seen

    alone = order()
    with sqlprobe.attach(logging_engine):
        observed = order()

    assert ["class 1", "class 2", "engine 1", "engine 2"] == alone == observed


@pytest.mark.parametrize("when", ["before attach", "after attach"])
@pytest.mark.parametrize("target", ["engine", "class"])
@pytest.mark.parametrize("name", ALL_EVENTS)
def test_raising_handler_raises_for_the_user(logging_engine, listen, name, when, target):
    def handler(*_):
        raise ZeroDivisionError("theirs")

    on = logging_engine if target == "engine" else sa.Engine
    if when == "before attach":
        listen(on, name, handler)
    with sqlprobe.attach(logging_engine) as probe:
        if when == "after attach":
            listen(on, name, handler)
        with pytest.raises(ZeroDivisionError, match=r"^theirs$"):
            run_style(logging_engine, name)

    ours_first = not (when == "before attach" and target == "class")

    assert ([{"ZeroDivisionError": 1}] if ours_first else []) == [
        dict(item.errors) for item in probe.report().statements
    ]


def test_keyword_handler_runs_once(logging_engine, listen):
    seen = []
    listen(logging_engine, "do_execute", lambda **named: seen.append(sorted(named)), named=True)
    with sqlprobe.attach(logging_engine) as probe:
        run(logging_engine, ONE)

    assert ([["context", "cursor", "parameters", "statement"]], {"select ?": 1}) == (seen, calls(probe))


def test_handler_of_a_dialect_class_runs_once(logging_engine, listen):
    seen = []
    listen(type(logging_engine.dialect), "do_execute", lambda *_: seen.append("class"))
    with sqlprobe.attach(logging_engine) as probe:
        run(logging_engine, ONE)

    assert (["class"], {"select ?": 1}) == (seen, calls(probe))


def test_statement_inside_a_handler_is_a_statement(logging_engine, make_engine, listen):
    other = make_engine()
    listen(logging_engine, "do_execute", lambda *_: run(other, sa.text("select 'nested'")) and None)
    with sqlprobe.attach() as probe:
        run(logging_engine, ONE)

    assert {"select ?": 2} == calls(probe)


def test_handler_that_handles_errors_sees_them(engine, listen):
    seen = []
    listen(engine, "handle_error", lambda context: seen.append(type(context.original_exception).__name__))
    with sqlprobe.attach(engine), pytest.raises(sa.exc.OperationalError):
        run(engine, sa.text("select * from nowhere"))

    assert ["OperationalError"] == seen


# --- faults of ours ---------------------------------------------------------------------------------------------------


def broken(*_args, **_kwargs):
    raise ZeroDivisionError("ours")


def told():
    """Where faults were counted, and how often; forgets them."""
    found = {fault.where: fault.count for fault in faults.told()}
    faults.forget()
    return found


def test_broken_fingerprint_costs_the_text_and_not_the_call(engine, monkeypatch, caplog):
    monkeypatch.setattr(capture, "shape_of", broken)
    with sqlprobe.attach(engine) as probe:
        assert [[(1,)]] * 3 == run(engine, ONE, ONE, ONE)

    assert {capture.OVERFLOW.text: 3} == calls(probe)
    [fault] = probe.report().faults
    assert ("fingerprint", 3) == (fault.where, fault.count)
    assert fault.error.startswith("ZeroDivisionError at ")
    assert "ours" not in fault.error
    assert [logging.WARNING] == [entry.levelno for entry in caplog.records if entry.name == "sqlprobe"]
    assert {"fingerprint": 3} == told()


def test_broken_call_site_leaves_the_result(engine, monkeypatch, caplog):
    monkeypatch.setattr(capture.sites, "place_of", broken)
    with sqlprobe.record() as recording:
        assert [[(1,)]] * 3 == run(engine, ONE, ONE, ONE)

    assert [Fault("capture", fault.error, 3) for fault in recording.report().faults] == list(recording.report().faults)
    assert 1 == len(caplog.records)
    assert {"capture": 3} == told()


def test_broken_scope_leaves_the_result_and_the_counts(engine, monkeypatch):
    monkeypatch.setattr(scopes.Scope, "take", broken)
    with sqlprobe.attach(engine) as probe, sqlprobe.scope("x"):
        assert [[(1,)]] * 2 == run(engine, ONE, ONE)

    assert {"select ?": 2} == calls(probe)
    assert {"capture": 2} == told()


def test_broken_recording_leaves_the_result_and_the_counts(engine, monkeypatch):
    with sqlprobe.attach(engine) as probe, sqlprobe.record() as recording:
        monkeypatch.setattr(recording, "take", broken)
        assert [[(1,)]] * 2 == run(engine, ONE, ONE)

    assert {"select ?": 2} == calls(probe)
    assert {"capture": 2} == told()


def test_broken_orm_attribution_leaves_the_result_and_the_counts(engine, monkeypatch):
    from sqlalchemy.orm import Session, registry

    class Thing:
        pass

    registry().map_imperatively(Thing, item := table())
    with engine.begin() as connection:
        item.create(connection)
        connection.execute(sa.insert(item), {"id": 1})
    monkeypatch.setattr(capture.orm, "load_of", broken)
    with sqlprobe.attach(engine) as probe, sqlprobe.scope("x"), Session(engine) as session:
        assert [1] == [thing.id for thing in session.scalars(sa.select(Thing))]

    assert [1] == list(calls(probe).values())
    assert {"capture": 1} == told()


class SilentCursor:
    """A driver's cursor whose `rowcount` is what a test wants it to be."""

    def __init__(self, cursor, rowcount):
        self._cursor = cursor
        self._rowcount = rowcount

    def __getattr__(self, name):
        return getattr(self._cursor, name)

    @property
    def rowcount(self):
        return self._rowcount()


@pytest.mark.parametrize(
    ("rowcount", "rows", "faulty"),
    [(broken, None, 2), (lambda: None, None, 0), (lambda: -1, None, 0), (lambda: 7, 14, 0)],
    ids=["raises", "none", "minus one", "seven"],
)
def test_rowcount_of_any_driver(engine, rowcount, rows, faulty):
    class Context(engine.dialect.execution_ctx_cls):
        def create_cursor(self):
            return SilentCursor(super().create_cursor(), rowcount)

    with sqlprobe.attach(engine) as probe, engine.connect() as connection:
        engine.dialect.execution_ctx_cls = Context
        assert [1, 1] == [connection.scalar(ONE), connection.scalar(ONE)]

    assert [(2, rows)] == [(item.calls, item.rows) for item in probe.report().statements]
    assert ({"rowcount": faulty} if faulty else {}) == told()


def test_no_rows_are_no_rows(engine):
    item = table()
    with engine.begin() as connection:
        item.create(connection)
        with sqlprobe.attach(engine) as probe:
            connection.execute(sa.delete(item))

    assert [0] == [item.rows for item in probe.report().statements]


def test_broken_log_handler_of_the_application_is_not_felt(engine, monkeypatch):
    class Broken(logging.Handler):
        def emit(self, record):
            raise OSError

    handler = Broken()
    logging.getLogger("sqlprobe").addHandler(handler)
    monkeypatch.setattr(capture, "shape_of", broken)
    try:
        with sqlprobe.attach(engine):
            assert [[(1,)]] == run(engine, ONE)
    finally:
        logging.getLogger("sqlprobe").removeHandler(handler)

    assert {"fingerprint": 1} == told()


def test_broken_adoption_leaves_the_statement(engine, monkeypatch):
    monkeypatch.setattr(capture, "engine_name", broken)
    with sqlprobe.attach() as probe:
        assert [[(1,)]] * 2 == run(engine, ONE, ONE)

    assert {} == calls(probe)
    assert {"adopting an engine": 2} == told()


# --- attach and detach ------------------------------------------------------------------------------------------------


def test_detach_leaves_nothing(make_engine):
    engine = make_engine()
    run(engine, ONE)
    before = set(vars(engine.dialect)), set(vars(engine))
    with sqlprobe.attach() as probe:
        run(engine, ONE)
    run(engine, ONE)

    assert {"select ?": 1} == calls(probe)
    assert not capture.hooked()
    assert not capture.installed
    assert [[], [], []] == [list(getattr(engine.dialect.dispatch, name)) for name in ALL_EVENTS]
    assert before == (set(vars(engine.dialect)), set(vars(engine)))


def test_report_after_detach_is_the_last_one(engine):
    probe = sqlprobe.attach(engine)
    run(engine, ONE, sa.text("select 'a'"), ONE)
    last = probe.report()
    probe.detach()
    run(engine, ONE)

    assert last.statements == probe.report().statements == probe.report().statements


def test_detach_twice_does_nothing(engine):
    probe = sqlprobe.attach(engine)
    probe.detach()
    probe.detach()

    assert "<sqlprobe.Probe of sqlite:///, detached>" == repr(probe).replace("sqlite+pysqlite", "sqlite")


def test_attaching_again_counts_from_zero(engine):
    for _ in range(3):
        with sqlprobe.attach(engine) as probe:
            run(engine, ONE)
            assert {"select ?": 1} == calls(probe)


def test_recording_passes_on_after_the_last_probe(engine):
    with sqlprobe.record() as recording:
        with sqlprobe.attach(engine):
            run(engine, ONE)
        run(engine, ONE)
    run(engine, ONE)

    assert {"select ?": 2} == calls(recording)


def test_attach_twice_says_what_to_do(engine):
    with sqlprobe.attach(engine) as probe:
        with pytest.raises(sqlprobe.AlreadyAttached) as one:
            sqlprobe.attach(engine)
        with pytest.raises(sqlprobe.AlreadyAttached) as every:
            sqlprobe.attach()
        assert probe is sqlprobe.probe_of(engine)

    name = re.escape(capture.engine_name(engine))
    assert re.match(
        rf"engine {name} already has a probe; detach it first, or use that one: sqlprobe\.probe_of\(engine\)",
        str(one.value),
    )
    assert str(every.value).startswith("attach() to every engine: <sqlprobe.Probe of ")
    assert "detach it first" in str(every.value)
    assert sqlprobe.probe_of(engine) is None


def test_probe_of_every_engine_excludes_another(engine):
    with sqlprobe.attach() as probe:
        for again in (engine, None):
            with pytest.raises(sqlprobe.AlreadyAttached):
                sqlprobe.attach(again)
        assert probe is sqlprobe.probe_of(engine)


def test_messages_hide_the_password(make_engine):
    pytest.importorskip("psycopg")
    engine = make_engine("postgresql+psycopg://user:secret@db.example:5433/shop?sslmode=require")
    with sqlprobe.attach(engine) as probe, pytest.raises(sqlprobe.AlreadyAttached) as error:
        sqlprobe.attach(engine)

    for text in (str(error.value), repr(probe), probe.name):
        assert "postgresql+psycopg://db.example:5433/shop" in text
        assert not {"secret", "user", "sslmode"} & set(re.split(r"\W+", text.split("postgresql+psycopg", 1)[1]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("sqlite://",),
            r"attach\(str object\): an Engine or AsyncEngine is needed, .*; .* of a URL what create_engine",
        ),
        ((42,), r"attach\(int object\): an Engine or AsyncEngine is needed"),
    ],
)
def test_what_is_no_engine_is_refused(arguments, message):
    with pytest.raises(sqlprobe.AttachError, match=message):
        sqlprobe.attach(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"settings": {"slow_seconds": 1}},
            r"attach\(settings=\{'slow_seconds': 1\}\): a sqlprobe\.Settings is needed",
        ),
        ({"on_finding": "print"}, r"attach\(on_finding='print'\): a callable that takes a Finding is needed"),
        ({"exporters": ["nowhere"]}, r"attach\(exporters='nowhere'\): no exporter of that name .* installed"),
        ({"exporters": "nowhere"}, r"attach\(exporters='nowhere'\): no exporter of that name"),
    ],
)
def test_wrong_options_are_refused_and_leave_nothing(engine, options, message):
    with pytest.raises(sqlprobe.AttachError, match=message):
        sqlprobe.attach(engine, **options)

    assert sqlprobe.probe_of(engine) is None


def test_exporter_that_does_not_start_leaves_no_probe(engine, monkeypatch):
    def start(_probe):
        raise OSError("port in use")

    monkeypatch.setattr(sqlprobe.probe, "_exporter", lambda _name: start)
    with pytest.raises(OSError, match="port in use"):
        sqlprobe.attach(engine, exporters=["prometheus"])

    assert sqlprobe.probe_of(engine) is None


def test_session_is_named_in_the_refusal(engine):
    from sqlalchemy.orm import Session

    with pytest.raises(sqlprobe.AttachError, match=r"attach\(Session object\).*session\.get_bind\(\)"):
        sqlprobe.attach(Session(engine))


@pytest.mark.parametrize("way", ["environment", "settings"])
def test_disabled_probe_installs_nothing(engine, monkeypatch, way):
    settings = None
    if way == "environment":
        monkeypatch.setenv("SQLPROBE_ENABLED", "0")
    else:
        settings = sqlprobe.Settings(enabled=False)
    installed = capture.installed
    with sqlprobe.attach(engine, settings=settings) as probe:
        run(engine, ONE)
        probe.pause()
        probe.resume()

        assert (installed, None) == (capture.installed, sqlprobe.probe_of(engine))
    assert ((), ()) == (probe.report().statements, probe.report().findings)


def test_pause_and_resume(engine):
    with sqlprobe.attach(engine) as probe:
        run(engine, ONE)
        probe.pause()
        run(engine, ONE, ONE)
        assert {"select ?": 1} == calls(probe)
        with sqlprobe.record() as recording:
            run(engine, ONE)
        probe.resume()
        run(engine, ONE)

    assert ({"select ?": 2}, {"select ?": 1}) == (calls(probe), calls(recording))


def test_paused_probe_takes_no_slow_statement(engine):
    with sqlprobe.attach(engine, settings=sqlprobe.Settings(slow_seconds=1e-9)) as probe:
        probe.pause()
        with sqlprobe.record():
            run(engine, ONE)
        probe.resume()

    assert () == probe.report().findings


@pytest.mark.parametrize("recorded", [False, True])
def test_slow_statement_outside_any_scope_is_found_beside_a_recording(engine, recorded):
    with sqlprobe.attach(engine, settings=sqlprobe.Settings(slow_seconds=1e-9)) as probe:
        if recorded:
            with sqlprobe.record():
                run(engine, ONE)
        else:
            run(engine, ONE)

    assert [("slow-statement", 1)] == [(finding.rule, finding.count) for finding in probe.report().findings]


def test_slow_statements_past_a_batch_are_all_found(engine):
    with sqlprobe.attach(engine, settings=sqlprobe.Settings(slow_seconds=1e-9)) as probe:
        run(engine, *[ONE] * (2 * scopes.BATCH + 1))

    assert [2 * scopes.BATCH + 1] == [finding.count for finding in probe.report().findings]


def test_slow_statement_does_not_wait_for_a_reader(engine):
    """A reader that holds its lock delays no statement: there is a second one that it would stop for ever."""
    with sqlprobe.attach(engine, settings=sqlprobe.Settings(slow_seconds=1e-9)) as probe:
        with probe._reading:
            run(engine, *[ONE] * (scopes.BATCH + 10))

        assert [scopes.BATCH + 10] == [finding.count for finding in probe.report().findings]


def test_report_since_a_time_leaves_out_what_was_not_seen_again(engine):
    with sqlprobe.attach(engine) as probe:
        run(engine, ONE)
        [item] = probe.report().statements
        after = item.last_seen + 1e-6
        moment = datetime.fromtimestamp(after, UTC)
        assert [1, 0, 0] == [len(probe.report(since=since).statements) for since in (0.0, after, moment)]
        assert 1 == len(probe.report(since=timedelta(days=1)).statements)
        assert 0 == len(probe.report(since=timedelta(days=-1)).statements)


def test_report_since_a_report_is_the_difference(engine):
    with sqlprobe.attach(engine) as probe:
        run(engine, ONE, ONE)
        first = probe.report()
        run(engine, ONE, sa.text("select 'a', 'b'"))
        since = probe.report(since=first)

    assert {"select ?": 1, "select ?, ?": 1} == {item.text: item.calls for item in since.statements}


@pytest.mark.parametrize("since", ["yesterday", True, object()])
def test_report_since_anything_else_is_refused(engine, since):
    with sqlprobe.attach(engine) as probe, pytest.raises(sqlprobe.SqlprobeError, match=r"^report\(since=.*is needed$"):
        probe.report(since=since)


def test_listener_removed_behind_our_back_is_told(engine):
    with sqlprobe.attach(engine) as probe:
        run(engine, ONE)
        assert () == probe.report().notes
        event.remove(sa.Engine, "do_execute", capture._on_execute)
        assert [[(1,)]] == run(engine, ONE)
        notes = probe.report().notes

    assert ("sqlprobe's handler was taken off SQLAlchemy by other code: statements since then are missing",) == notes
    with sqlprobe.attach(engine) as probe:
        run(engine, ONE)
    assert {"select ?": 1} == calls(probe)


def test_listener_removed_behind_our_back_is_put_back_by_whoever_attaches_next(engine, make_engine):
    other = make_engine()
    with sqlprobe.attach(engine) as probe:
        event.remove(sa.Engine, "do_execute", capture._on_execute)
        run(engine, ONE)
        with sqlprobe.attach(other):
            run(engine, ONE)

            assert ({"select ?": 1}, ()) == (calls(probe), probe.report().notes)


def test_recording_says_when_its_handler_is_gone(engine):
    with sqlprobe.record() as recording:
        event.remove(sa.Engine, "do_execute", capture._on_execute)
        run(engine, ONE)
        notes = recording.report().notes
    capture.uninstall()

    assert 1 == len(notes)


# --- engines that come and go -----------------------------------------------------------------------------------------


@pytest.mark.long
def test_engine_that_is_gone_keeps_its_totals():
    with sqlprobe.attach() as probe:
        for _ in range(3):
            engine = sa.create_engine("sqlite://")
            run(engine, ONE)
            engine.dispose()
            del engine
            gc.collect()

        assert {"select ?": 3} == calls(probe) == calls(probe)


@pytest.mark.long
def test_a_thousand_engines_leave_no_growth(make_engine):
    gc.collect()
    before = len(capture._watched)
    with sqlprobe.attach() as probe:
        for _ in range(1_000):
            engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
            run(engine, ONE)
            engine.dispose()
        del engine
        gc.collect()

        assert (before, True) == (len(capture._watched), len(probe._gone) <= sqlprobe.probe.MAX_GONE)
        assert {"select ?": 1_000} == calls(probe)


@pytest.mark.long
def test_engines_of_many_databases_keep_totals_within_the_bound(monkeypatch, tmp_path):
    monkeypatch.setattr(capture, "MAX_TALLIES", 20)
    with sqlprobe.attach() as probe:
        for number in range(200):
            engine = sa.create_engine(f"sqlite:///file:m{number}?mode=memory&uri=true", poolclass=sa.StaticPool)
            run(engine, ONE)
            engine.dispose()
            del engine
            gc.collect(0)
        gc.collect()
        report = probe.report()

    assert 200 == sum(item.calls for item in report.statements)
    assert 20 + 1 >= len(probe._kept)
    assert any("past the bound" in note for note in report.notes)


def test_engine_that_dies_while_a_report_is_made_is_counted_once(engine, monkeypatch):
    """The garbage collector may run at any moment: here, right after the reader has looked at the live engines."""
    probe = sqlprobe.attach()
    run(engine, ONE)
    watched_by = capture.watched_by

    def and_then_it_dies(owner):
        found = watched_by(owner)
        for watched in found:
            capture._forget_engine(id(watched.dialect()))
        return found

    monkeypatch.setattr(capture, "watched_by", and_then_it_dies)
    first, second = calls(probe), calls(probe)
    probe.detach()

    assert {"select ?": 1} == first == second


def test_attach_during_the_first_statement_of_an_engine_observes_it(engine, monkeypatch):
    """Another thread attaches between our look at who observes the engine and our making it known."""
    with sqlprobe.record():
        run(engine, sa.text("select 'other'"))
    capture._watched.clear()
    assign = capture._assign
    attached = []

    def late(watched):
        assign(watched)
        if not attached:
            attached.append(None)
            thread = threading.Thread(target=lambda: attached.append(sqlprobe.attach(engine)))
            thread.start()
            thread.join()

    with sqlprobe.record():
        monkeypatch.setattr(capture, "_assign", late)
        run(engine, ONE)
        monkeypatch.undo()
    run(engine, ONE)
    probe = attached[1]
    probe.detach()

    assert {"select ?": 2} == calls(probe)


def test_two_threads_with_the_first_statement_of_an_engine_both_count(make_engine, sqlite_url, monkeypatch):
    """One meets the engine while the other is getting to know it: what it finds must be ready."""
    engine = make_engine(sqlite_url(), poolclass=sa.NullPool)
    assign = capture._assign
    probe = sqlprobe.attach(engine)
    threads = [threading.Thread(target=run, args=(engine, ONE))]

    def slowly(watched):
        if threads:
            other = threads.pop()
            other.start()
            other.join()
        assign(watched)

    monkeypatch.setattr(capture, "_assign", slowly)
    run(engine, ONE)
    monkeypatch.undo()
    probe.detach()

    assert {"select ?": 2} == calls(probe)


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_more_statements_than_the_bound_are_summed_in_one_entry(engine, monkeypatch):
    monkeypatch.setattr(capture, "MAX_TALLIES", 10)
    gc.collect()
    with sqlprobe.attach(engine) as probe:
        for number in range(50):
            run(engine, sa.text(f"select 1 as column_{number}"), sa.text(f"select 1 as column_{number}"))
        report = probe.report()

    sizes = {item.fingerprint: item.calls for item in report.statements}
    overflow = sizes.pop(capture.OVERFLOW.fingerprint)

    assert (100, {2}) == (overflow + sum(sizes.values()), set(sizes.values()))
    assert 10 + 1 >= len(report.statements)
    assert (f"{overflow} calls of statements past the bound on different ones are summed in one entry",) == report.notes


def test_full_texts_keep_known_statements_known_in_new_threads(make_engine, sqlite_url, monkeypatch):
    """What is shared already costs no more: a thread that starts late tells the same statements."""
    engine = make_engine(sqlite_url(), poolclass=sa.NullPool)
    with sqlprobe.attach(engine) as probe:
        run(engine, ONE)
        monkeypatch.setattr(capture, "MAX_SHAPE_BYTES", 0)
        thread = threading.Thread(target=run, args=(engine, ONE))
        thread.start()
        thread.join()
        run(engine, sa.text("select 1 as never_seen_before"))

    assert {"select ?": 2, capture.OVERFLOW.text: 1} == calls(probe)


def test_overflowing_statement_is_normalised_once(engine, monkeypatch):
    """Past the bound a statement must not cost a parse each time that it runs."""
    monkeypatch.setattr(capture, "MAX_TALLIES", 0)
    parsed = []

    def counting(text):
        parsed.append(text)
        return shape_of(text)

    monkeypatch.setattr(capture, "shape_of", counting)
    with sqlprobe.attach(engine) as probe:
        run(engine, *[ONE] * 5)

    assert (["select 1"], {capture.OVERFLOW.text: 5}) == (parsed, calls(probe))


@pytest.mark.long
@pytest.mark.once
def test_a_hundred_thousand_texts_with_literals_are_one_statement_in_bounded_memory(engine, size):
    count = size(100_000, 40_000)
    with sqlprobe.attach(engine) as probe:
        with engine.connect() as connection:
            for number in range(count):
                connection.exec_driver_sql(f"select {number}")
        [watched] = capture.watched_by(probe)
        [held] = watched.tables.values()

        assert {"select ?": count} == calls(probe)
        assert 1 == len(held.by_fingerprint)
        assert capture.MAX_TEXT_BYTES + capture.MAX_TEXT >= held.bytes
        assert held.bytes == sum(len(text) + capture._ENTRY_BYTES for text in held.texts)


@pytest.mark.once
def test_more_different_statements_than_fit_keep_every_call(engine, monkeypatch, size):
    """Each has names of its own: the table of statements fills up, and what comes then is in the overflow entry."""
    gc.collect()
    monkeypatch.setattr(capture, "MAX_TALLIES", size(capture.MAX_TALLIES, 2_000))
    count = capture.MAX_TALLIES + 1_000
    with sqlprobe.attach(engine) as probe:
        with engine.connect() as connection:
            for number in range(count):
                connection.exec_driver_sql(f"select 1 as a{number}")
        statements = probe.report().statements

    assert count == sum(item.calls for item in statements)
    assert capture.MAX_TALLIES + 1 >= len(statements)


def test_long_text_is_not_kept(engine):
    with sqlprobe.attach(engine, settings=sqlprobe.Settings(call_sites="off")) as probe:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"select length('{'x' * capture.MAX_TEXT}')")
        [watched] = capture.watched_by(probe)
        [held] = watched.tables.values()

        assert {} == held.texts
    assert [1] == list(calls(probe).values())


def test_lazy_loads_after_a_scope_has_closed_hold_no_memory(engine):
    """A task that outlives its request still has its scope: it is closed, and remembers nothing."""
    scope = sqlprobe.scope("request")
    with sqlprobe.attach(engine):
        with scope:
            run(engine, ONE)
        token = scopes.current.set(scope)
        for number in range(50):
            run(engine, sa.text(f"select 1 as column_{number}"))
        scopes.current.reset(token)

    assert (50, set()) == (scope.late, scope.seen)


# --- schema_translate_map ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("schema", "shown"), [(None, "t"), ("app", "app.t")])
def test_statement_of_translated_schemas_is_shown_by_the_name_in_the_code(make_engine, schema, shown):
    engine = make_engine(execution_options={"schema_translate_map": {schema: None}})
    table = sa.Table("t", sa.MetaData(schema=schema), sa.Column("id", sa.Integer, primary_key=True))
    with engine.begin() as connection:
        table.create(connection)
        with sqlprobe.record() as recording:
            connection.execute(sa.select(table)).all()
            connection.execute(table.insert(), [{"id": 1}, {"id": 2}])

    assert {(f"SELECT {shown}.id FROM {shown}", (shown,)), (f"INSERT INTO {shown} (id) VALUES (?)", (shown,))} == {
        (item.text, item.tables) for item in recording.statements
    }
