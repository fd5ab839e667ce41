"""The explainer does no harm: real locks, real servers, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, StaticPool

import sqlprobe
from sqlprobe import faults
from sqlprobe.plans import explain
from sqlprobe.plans import plan as plans
from sqlprobe.plans.explain import Limits, Refused
from sqlprobe.plans.sampling import Sample

pytestmark = pytest.mark.versions

TABLES = """
CREATE TABLE item (id int PRIMARY KEY, owner text, doc jsonb, at timestamptz, price numeric(10, 2), tags text[]);
INSERT INTO item SELECT g, 'o' || g, '{"k": "v"}', now(), g, ARRAY['a'] FROM generate_series(1, 500) g;
CREATE INDEX item_k ON item ((doc ->> 'k'));
ANALYZE item;
CREATE SEQUENCE counter;
CREATE FUNCTION slow(int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN PERFORM pg_sleep(30); RETURN $1; END';
CREATE FUNCTION sneaky(int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN $1; END';
CREATE FUNCTION numbers() RETURNS bigint LANGUAGE plpgsql STABLE AS 'BEGIN RETURN nextval(''counter''); END';
CREATE FUNCTION writes() RETURNS int LANGUAGE sql VOLATILE AS 'INSERT INTO item VALUES (0) RETURNING id';
"""
HASTY = Limits(lock_seconds=0.1, statement_seconds=0.3)
NOTHING_LEFT = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sqlprobe' AND state <> 'idle'"


@pytest.fixture(scope="module")
def database(module_postgresql_url, postgresql_server):
    name = module_postgresql_url().database
    postgresql_server.psql(TABLES, name)
    return module_postgresql_url


@pytest.fixture
def psql(database, postgresql_server):
    return lambda script: postgresql_server.psql(script, database().database).strip()


@pytest.fixture
def engine_on(database):
    """`engine_on("asyncpg", **options)`: a sync Engine, of an AsyncEngine where the driver is async."""
    with contextlib.ExitStack() as stack:

        def make(driver="psycopg", **options):
            if driver in {"asyncpg", "psycopg_async"}:
                engine = create_async_engine(database(driver), **options)
                stack.callback(lambda: asyncio.run(engine.dispose()))
                return engine.sync_engine
            engine = sa.create_engine(database(driver), **options)
            stack.callback(engine.dispose)
            return engine

        yield make


def ask(engine, text, parameters=None, *, limits=HASTY, analyze=False, settings=(), **sample):
    asked = Sample(text, parameters, **sample)
    return explain.on_connection(engine, lambda s: s.explain(asked, analyze=analyze, settings=settings), limits)


def refusal(engine, text, parameters=None, **options):
    with pytest.raises(Refused) as caught:
        ask(engine, text, parameters, **options)
    return caught.value


BOUND = {
    "psycopg": ("SELECT * FROM item WHERE doc ->> %(k)s = %(v)s AND id > %(n)s", {"k": "k", "v": "v", "n": 5}),
    "psycopg_async": ("SELECT * FROM item WHERE doc ->> %(k)s = %(v)s AND id > %(n)s", {"k": "k", "v": "v", "n": 5}),
    "asyncpg": ("SELECT * FROM item WHERE doc ->> $1::TEXT = $2::VARCHAR AND id > $3::INTEGER", ("k", "v", 5)),
    "psycopg2": ("SELECT * FROM item WHERE doc ->> %(k)s = %(v)s AND id > %(n)s", {"k": "k", "v": "v", "n": 5}),
    "pg8000": ("SELECT * FROM item WHERE doc ->> %s = %s AND id > %s", ("k", "v", 5)),
}


@pytest.mark.parametrize("driver", BOUND)
def test_plans_are_made_with_the_bound_values(engine_on, driver):
    explained = ask(engine_on(driver), *BOUND[driver], settings=[("enable_seqscan", "off")])

    # The index on (doc ->> 'k') is only seen where the key is known: a generic plan does not.
    assert ("item_k", "postgres", False) == (
        next(node.index for node in explained.plan.nodes if node.index),
        explained.surroundings.role,
        explained.surroundings.in_recovery,
    )
    assert "(item.doc ->> 'k'::text) = ?::text" in plans.render(explained.plan)


CANARIES = {
    "text": "canary-text-7391",
    "number": 73917391,
    "decimal": 7391.73,
    "moment": "1973-09-17 07:39:17",
    "uuid": "73917391-7391-4391-8391-739173917391",
    "json": '{"canary": "private7391"}',
    "key": "canary@example.org",
    "list": ["canary-1", "canary-2"],
    "pattern": "%canary%",
    "quoted": "can''ary\\'; -- $$canary$$",
}


def test_no_planted_value_leaves_in_a_plan(engine_on):
    statement = """
    WITH q AS (SELECT * FROM item WHERE owner = %(text)s OR id = %(number)s)
    SELECT q.*, CASE WHEN q.owner = %(quoted)s THEN %(text)s ELSE upper(%(pattern)s) END, f
    FROM q JOIN item i ON i.id = q.id AND i.price + %(decimal)s > q.price
        CROSS JOIN LATERAL unnest(%(list)s::text[]) f
    WHERE i.at > %(moment)s::timestamptz AND md5(i.owner)::uuid <> %(uuid)s::uuid AND i.doc @> %(json)s::jsonb
        AND i.doc ->> %(key)s IS NOT NULL AND i.owner LIKE %(pattern)s AND i.tags && %(list)s::text[]
        AND NOT EXISTS (SELECT FROM item x WHERE x.owner = i.owner || %(text)s)
    ORDER BY i.owner || %(text)s, f LIMIT 7391
    """
    engine = engine_on()
    for analyze in (False, True):
        plan = ask(engine, statement, CANARIES, analyze=analyze).plan
        held = str([node.fields for node in plan.nodes])
        shown = "\n".join(
            (
                plans.render(plan),
                json.dumps(plan.to_json()),
                repr(plan),
                repr(plan.nodes),
                repr(Sample(statement, CANARIES)),
            )
        )
        left = [word for word in ("canary", "7391", "73.9", "can''ary", "private", "1973") if word in shown]

        assert (True, []) == ("canary" in held, left)


def test_a_refusal_quotes_nothing(engine_on):
    refused = refusal(engine_on(), "SELECT 1/0 FROM item WHERE id = 'canary'::int")

    assert ("failed", "22P02", False) == (refused.reason, refused.sqlstate, "canary" in str(refused))


# --- what it is asked -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("SELECT 1", ""),
        ("  -- a comment\n/* another /* nested */ */ (SELECT 1) UNION (SELECT 2);  ", ""),
        ("WITH q AS (SELECT 1) DELETE FROM item", ""),
        ("select ';' , $$;$$, $a$;$a$, \"a;b\" from item -- ; the end", ""),
        ("MERGE INTO a USING b ON true WHEN MATCHED THEN DELETE", ""),
        ("SELECT 1; DROP TABLE item", "several statements in one text"),
        ("SELECT 1;;", "several statements in one text"),
        ("SELECT '1; DROP TABLE item", "a quotation mark without its other half"),
        ("SELECT 1 /* ; ", "a comment without an end"),
        ("SELECT $a$;$b$ ; DROP TABLE item", "a quotation mark without its other half"),
        ("SELECT E'\\'; DROP TABLE item; --'", ""),
        ("SELECT E'\\\\'; DROP TABLE item; --'", "several statements in one text"),
        ("VACUUM item", "VACUUM, which has no plan"),
        ("EXPLAIN ANALYZE DELETE FROM item", "EXPLAIN, which has no plan"),
        ("COPY item TO STDOUT", "COPY, which has no plan"),
        ("CALL f()", "CALL, which has no plan"),
        ("", "no statement"),
        ("-- SELECT 1", "no statement"),
        ("SELECT " + "1," * 600_000 + "1", "a statement of 1,200,008 characters"),
    ],
)
def test_only_single_statements_with_a_plan_are_asked_about(text, found):
    assert found == explain.why_not(text)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO item (id) VALUES (1)",
        "UPDATE item SET price = 1",
        "DELETE FROM item",
        "WITH gone AS (DELETE FROM item RETURNING id) SELECT * FROM gone",
        "SELECT * FROM item FOR UPDATE",
        "SELECT writes()",
        "SELECT nextval('counter')",
    ],
)
def test_statements_that_write_are_planned_and_not_run(engine_on, psql, statement):
    engine = engine_on()
    before = psql("SELECT count(*), sum(price) FROM item; SELECT last_value, is_called FROM counter")
    explained = ask(engine, statement)
    refused = refusal(engine, statement, analyze=True)

    assert before == psql("SELECT count(*), sum(price) FROM item; SELECT last_value, is_called FROM counter")
    assert (True, True) == (explained.plan.root.total_cost >= 0, refused.reason in {"not explainable", "volatile"})


def test_analyze_runs_what_is_harmless_and_cheap(engine_on):
    engine = engine_on()
    explained = ask(engine, "SELECT *, random(), clock_timestamp() FROM item WHERE owner = 'o7'", analyze=True)
    costly = refusal(engine, "SELECT * FROM item a, item b", analyze=True, limits=Limits(cost=100))
    sleeping = refusal(engine, "SELECT pg_sleep(10)", analyze=True)

    assert (1, True, "costly", "volatile") == (
        explained.plan.root.actual_rows, explained.plan.analyzed, costly.reason, sleeping.reason,
    )  # fmt: skip


def test_functions_that_planning_runs_are_told(engine_on):
    explained = ask(engine_on(), "SELECT * FROM item WHERE id = sneaky(5)")
    quiet = ask(engine_on(), "SELECT * FROM item WHERE id = abs(-5) AND lower(owner) = 'o5'")

    assert ("planning runs sneaky, with whatever they do",) == explained.notes
    assert () == quiet.notes


def test_no_sequence_is_consumed_by_planning(engine_on, psql):
    """A function that says it is stable, and takes a number: planning runs it, and READ ONLY stops it."""
    before = psql("SELECT last_value, is_called FROM counter")
    refused = refusal(engine_on(), "SELECT * FROM item WHERE id = numbers()")

    assert ("failed", "25006", before) == (
        refused.reason, refused.sqlstate, psql("SELECT last_value, is_called FROM counter"),
    )  # fmt: skip


# --- locks and limits -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def session_of(engine, script):
    """A session of somebody else, in a transaction that has run *script*."""
    with engine.connect() as connection, connection.begin() as transaction:
        connection.exec_driver_sql(script)
        yield connection
        transaction.rollback()


def waits_for_a_lock(psql):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if psql("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'item'::regclass") != "0":
            return True
    return False


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_locked_table_is_not_waited_for(engine_on, psql, driver):
    with session_of(engine_on(), "LOCK TABLE item IN ACCESS EXCLUSIVE MODE"):
        began = time.monotonic()
        refused = refusal(engine_on(driver), "SELECT * FROM item")
        took = time.monotonic() - began

    assert ("locked", "55P03", True) == (refused.reason, refused.sqlstate, took < 5)
    assert "0" == psql(NOTHING_LEFT)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_waiting_alter_table_is_not_held_up(engine_on, psql, driver):
    """An ALTER TABLE that waits for a reader makes everybody behind it wait: not us, and it does not wait for us."""
    alter = threading.Thread(
        target=lambda: psql("ALTER TABLE item ADD COLUMN more int; ALTER TABLE item DROP COLUMN more")
    )
    with session_of(engine_on(), "SELECT * FROM item LIMIT 1"):
        alter.start()
        waiting = waits_for_a_lock(psql)
        refused = refusal(engine_on(driver), "SELECT * FROM item")
    alter.join(20)

    assert (True, "locked", False) == (waiting, refused.reason, alter.is_alive())


def test_our_lock_is_gone_when_the_answer_is_there(engine_on, psql):
    """The session is still open, and an ALTER TABLE of the application goes through at once."""

    def work(session):
        session.explain(Sample("UPDATE item SET price = 1"))
        return psql("SET lock_timeout = '5s'; ALTER TABLE item ADD COLUMN more int; ALTER TABLE item DROP COLUMN more")

    assert "" == explain.on_connection(engine_on(), work)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_slow_function_in_planning_is_stopped(engine_on, psql, driver):
    began = time.monotonic()
    refused = refusal(engine_on(driver), "SELECT * FROM item WHERE id = slow(5)")
    took = time.monotonic() - began

    assert ("timeout", "57014", True) == (refused.reason, refused.sqlstate, took < 10)
    assert "0" == psql(NOTHING_LEFT)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_server_that_goes_away_is_an_answer(engine_on, psql, driver):
    asked = []

    def work(session):
        session.explain(Sample("SELECT 1"))
        psql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sqlprobe' OR"
            " query LIKE '%ROLLBACK%' AND pid <> pg_backend_pid()"
        )
        for _ in range(2):
            try:
                session.explain(Sample("SELECT 1"))
            except Refused as refused:
                asked.append(refused.reason)

    explain.on_connection(engine_on(driver), work)

    assert ["unavailable", "unavailable"] == asked


@pytest.mark.long
@pytest.mark.once
def test_a_server_restarted_in_mid_probe_is_an_answer_and_the_next_one_is_asked(serve_from, postgresql_server):
    slow = "SELECT * FROM pg_class WHERE relpages = slow(5)"
    with serve_from(postgresql_server.binaries) as (url, restart):
        engine = sa.create_engine(url, pool_pre_ping=True)
        answers = []

        def probe():
            try:
                answers.append(ask(engine, slow, limits=Limits(statement_seconds=20)))
            except Refused as refused:
                answers.append(refused.reason)

        with engine.connect() as connection:
            connection.exec_driver_sql(next(line for line in TABLES.splitlines() if "FUNCTION slow" in line))
            connection.commit()
            thread = threading.Thread(target=probe)
            thread.start()
            while not connection.exec_driver_sql(f"{NOTHING_LEFT} AND query LIKE '%%slow%%'").scalar():
                connection.rollback()
                assert thread.is_alive()
            connection.rollback()
        restart()
        thread.join(20)
        after = ask(engine, "SELECT 1").plan.root.kind
        with engine.connect() as connection:
            left = connection.exec_driver_sql(NOTHING_LEFT).scalar()
        engine.dispose()

    assert (["unavailable"], "Result", 0) == (answers, after, left)


def test_no_server_is_an_answer(engine_on, database):
    engine = sa.create_engine(database().set(database="nowhere"))

    assert "unavailable" == refusal(engine, "SELECT 1").reason


class Wire:
    """A way to the server at *path* over TCP; once `cut`, it takes what comes and hands nothing on, either way."""

    def __init__(self, path):
        self.path = path
        self.cut = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self.listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self.path)
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self.hand_on, args=(source, target), daemon=True).start()

    def hand_on(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self.cut.is_set():
                    target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg", "psycopg_async"])
def test_a_network_that_swallows_answers_is_given_up(database, engine_on, monkeypatch, driver):
    monkeypatch.setattr(explain, "GRACE_SECONDS", 0.2)
    url = database()
    wire = Wire(f"{url.query['host']}/.s.PGSQL.{url.query.get('port', 5432)}")
    there = sa.URL.create("postgresql+psycopg", url.username, host="127.0.0.1", port=wire.port, database=url.database)
    synchronous = driver in {"psycopg", "psycopg2"}
    there = there.set(drivername=f"postgresql+{driver}")
    engine = sa.create_engine(there) if synchronous else create_async_engine(there).sync_engine
    limits = Limits(statement_seconds=0.3, analyze_seconds=0.3)

    def work(session):
        before = session.explain(Sample("SELECT 1", None)).plan.root.kind
        wire.cut.set()
        try:
            session.explain(Sample("SELECT 2", None))
        except Refused as refused:
            return before, refused.reason
        return before, "answered"

    try:
        assert ("Result", "unavailable") == explain.on_connection(engine, work, limits)
    finally:
        wire.listener.close()
    assert [] == [each for each in threading.enumerate() if each.name == "sqlprobe-watchdog" and not _ends(each)]


def _ends(thread):
    thread.join(60)
    return not thread.is_alive()


def test_the_watchdog_leaves_a_connection_that_answers_alone(engine_on, monkeypatch):
    monkeypatch.setattr(explain, "GRACE_SECONDS", 0.0)
    limits = Limits(statement_seconds=0.2, analyze_seconds=0.2)

    def work(session):
        session.explain(Sample("SELECT 1", None))
        time.sleep(0.5)  # between two questions: as long as we like
        return session.explain(Sample("SELECT 2", None)).plan.root.kind

    assert "Result" == explain.on_connection(engine_on(), work, limits)


def test_a_value_that_cannot_be_sent_is_no_lost_server(engine_on):
    assert "failed" == refusal(engine_on("asyncpg"), "SELECT $1::INTEGER", ("five",)).reason


# --- whose connection -------------------------------------------------------------------------------------------------


def test_its_connection_is_made_as_the_applications(engine_on, psql):
    psql("DROP SCHEMA IF EXISTS other CASCADE; CREATE SCHEMA other; CREATE TABLE other.mine (id int)")
    engine = engine_on(connect_args={"application_name": "shop"})
    seen = []

    @sa.event.listens_for(engine, "do_connect")
    def do_connect(dialect, record, args, options):
        seen.append("do_connect")

    @sa.event.listens_for(engine, "connect")
    def connect(connection, record):
        seen.append("connect")
        with connection.cursor() as cursor:
            cursor.execute("SET search_path TO other")  # in a transaction that nobody has committed

    explained = ask(engine, "SELECT * FROM mine")

    assert ("other", "other.mine") == (
        explained.surroundings.search_path,
        f"{explained.plan.root.schema}.{explained.plan.root.relation}",
    )
    assert ["do_connect", "connect"] == seen


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_token_is_asked_for_again_and_encryption_is_as_it_was_asked_for(engine_on, psql, driver):
    """As with IAM: a password that is good for one connection, put in by `do_connect`; and `connect_args` of TLS."""
    psql("DROP ROLE IF EXISTS tokens; CREATE ROLE tokens LOGIN; GRANT SELECT ON item TO tokens")
    option, value = ("ssl", False) if driver == "asyncpg" else ("sslmode", "prefer")
    engine = engine_on(driver, connect_args={option: value})
    tokens = iter(["first", "second", "third"])
    seen = []

    @sa.event.listens_for(engine, "do_connect")
    def give_token(dialect, record, args, options):
        options["user"] = "tokens"
        options["password"] = next(tokens)
        seen.append((options["password"], options[option]))

    roles = [ask(engine, "SELECT * FROM item").surroundings.role for _ in range(2)]
    psql("DROP OWNED BY tokens; DROP ROLE tokens")

    assert (["tokens", "tokens"], [("first", value), ("second", value)]) == (roles, seen)


def test_a_creator_is_called_for_a_connection_of_our_own(engine_on, database):
    made = []

    def creator():
        import psycopg

        made.append(psycopg.connect(host=database().query["host"], user="postgres", dbname=database().database))
        return made[-1]

    engine = sa.create_engine("postgresql+psycopg://", creator=creator)
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        title = ask(engine, "SELECT * FROM item").plan.root.title
    engine.dispose()

    assert ("Seq Scan on item", 2, [True, True]) == (title, len(made), [each.closed for each in made])


@pytest.mark.parametrize("pool", [NullPool, StaticPool])
def test_every_pool_gets_a_connection_of_its_own(engine_on, pool):
    engine = engine_on(poolclass=pool)
    with engine.connect() as connection:
        mine = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        theirs = explain.on_connection(engine, lambda session: session.read("SELECT pg_backend_pid()")[0][0][0])

        assert (True, mine) == (mine != theirs, connection.exec_driver_sql("SELECT pg_backend_pid()").scalar())


def test_a_creator_that_shares_its_connection_is_left_alone(engine_on, database):
    own = engine_on()
    raw = own.raw_connection()
    with contextlib.closing(raw):
        driver = raw.dbapi_connection
        engine = sa.create_engine(database(), creator=lambda: driver, poolclass=StaticPool)
        with engine.connect() as connection:
            connection.exec_driver_sql("CREATE TEMPORARY TABLE unfinished (id int)")
            refused = refusal(engine, "SELECT 1")

            assert ("not explainable", 0) == (
                refused.reason, connection.exec_driver_sql("SELECT count(*) FROM unfinished").scalar(),
            )  # fmt: skip


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_autocommit_and_read_only_defaults_make_no_difference(engine_on, driver):
    args = (
        {"server_settings": {"default_transaction_read_only": "on"}}
        if driver == "asyncpg"
        else {"options": "-c default_transaction_read_only=on"}
    )
    engine = engine_on(driver, isolation_level="AUTOCOMMIT", connect_args=args)

    assert "ModifyTable" == ask(engine, "UPDATE item SET price = 2").plan.root.kind


def test_nothing_of_it_is_counted_or_heard(engine_on):
    engine = engine_on()
    heard = []
    sa.event.listen(engine, "before_cursor_execute", lambda *_: heard.append(1))
    with sqlprobe.record() as recording, sqlprobe.attach(engine) as probe:
        ask(engine, "SELECT * FROM item")

        assert ([], 0, ()) == (heard, recording.calls, probe.report().statements)
    assert () == faults.told()


def test_its_pool_is_not_taken_for_the_applications(engine_on):
    engine = engine_on(pool_size=3)
    with sqlprobe.attach(engine, settings=sqlprobe.Settings(watch_pools=True)) as probe, engine.connect():

        def counted():
            return [(each.used, each.size, sum(each.wait.buckets), sum(each.create.buckets)) for each in probe.pools()]

        before = counted()
        explain.on_connection(engine, lambda session: session.explain(Sample("SELECT 1")))

        assert ([(1, 3, 1, 1)], before) == (before, counted())


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_nothing_stays_behind(engine_on, psql, driver):
    """Asked of the very session that was used, after several plans."""
    engine = engine_on(driver)
    text, parameters = BOUND[driver]

    def work(session):
        before = session.read("SELECT count(*) FROM pg_prepared_statements")[0]
        for _ in range(8):
            session.explain(Sample(text, parameters, settings=(("SET LOCAL work_mem = '77MB'", None),)))
        prepared = session.read("SELECT count(*) FROM pg_prepared_statements")[0]
        locks, objects = session.read(
            "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'item'::regclass",
            "SELECT current_setting('work_mem'), pg_my_temp_schema()",
        )
        return before == prepared, locks[0][0], objects[0]

    same, locks, objects = explain.on_connection(engine, work)

    assert (driver == "asyncpg" or same, 0, ("4MB", 0)) == (same or driver == "asyncpg", locks, objects)
    assert "0" == psql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sqlprobe'")


def test_it_can_be_asked_from_a_running_loop(engine_on):
    engine = engine_on("asyncpg")

    async def main():
        return await asyncio.to_thread(ask, engine, "SELECT 1"), ask(engine, "SELECT 2")

    assert ["Result", "Result"] == [explained.plan.root.kind for explained in asyncio.run(main())]


# --- what decides a plan besides the statement ------------------------------------------------------------------------


def test_settings_of_the_sample_are_repeated_and_gone_afterwards(engine_on, psql):
    psql("DROP SCHEMA IF EXISTS tenant CASCADE; CREATE SCHEMA tenant; CREATE TABLE tenant.item (id int)")
    engine = engine_on()

    def work(session):
        inside = session.explain(
            Sample(
                "SELECT * FROM item",
                None,
                settings=(("SELECT set_config(%(n)s, %(v)s, true)", {"n": "search_path", "v": "tenant"}),),
            )
        )
        return inside.plan.root.schema, session.explain(Sample("SELECT * FROM item")).plan.root.schema

    assert ("tenant", "public") == explain.on_connection(engine, work)


def test_settings_of_the_sample_cannot_undo_the_limits(engine_on):
    given = (("SET LOCAL statement_timeout = 0", None), ("SET lock_timeout = 0", None))

    sample = Sample("SELECT * FROM item WHERE id = slow(5)", settings=given)
    with pytest.raises(Refused) as caught:
        explain.on_connection(engine_on(), lambda session: session.explain(sample), HASTY)

    assert "timeout" == caught.value.reason


def test_settings_that_cannot_be_repeated_are_told(engine_on):
    explained = explain.on_connection(
        engine_on(), lambda s: s.explain(Sample("SELECT 1", settings=(("SET LOCAL ROLE nobody_at_all", None),)))
    )
    unknown = explain.on_connection(engine_on(), lambda s: s.explain(Sample("SELECT 1", settings_unknown=True)))

    assert [["settings not reproduced"], ["settings not reproduced"]] == [
        [note.partition(":")[0] for note in each.notes] for each in (explained, unknown)
    ]


def test_a_role_without_rights_is_refused_and_the_samples_role_is_taken(engine_on, psql):
    psql("DROP ROLE IF EXISTS poor; CREATE ROLE poor")
    given = (("SET LOCAL ROLE poor", None),)
    with pytest.raises(Refused) as caught:
        explain.on_connection(engine_on(), lambda s: s.explain(Sample("SELECT * FROM item", settings=given)))
    psql("GRANT SELECT ON item TO poor")
    explained = explain.on_connection(engine_on(), lambda s: s.explain(Sample("SELECT * FROM item", settings=given)))
    psql("DROP OWNED BY poor; DROP ROLE poor")

    assert ("forbidden", "poor") == (caught.value.reason, explained.surroundings.role)


def test_tables_of_an_open_transaction_are_not_visible(engine_on):
    with session_of(engine_on(), "CREATE TABLE unborn (id int)"):
        assert "not visible" == refusal(engine_on(), "SELECT * FROM unborn").reason


def test_other_databases_have_no_plans():
    assert "unsupported" == refusal(sa.create_engine("sqlite://"), "SELECT 1").reason
