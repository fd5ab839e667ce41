"""What is kept of the statements that run, and what had been set for them."""

from __future__ import annotations

import gc

import pytest
import sqlalchemy as sa

import sqlprobe
from sqlprobe import capture, faults
from sqlprobe.plans import sampling, worker
from sqlprobe.settings import Settings

pytestmark = pytest.mark.versions

EXPLAINING = Settings(explain=True, explain_per_minute=0)


@pytest.fixture(autouse=True)
def nothing_is_left():
    worker.sampler.clear()
    yield
    assert (None, (), {}) == (capture.sampler, faults.told(), worker.sampler.samples())


@pytest.fixture
def engine(module_postgresql_url, make_engine):
    return make_engine(module_postgresql_url())


@pytest.fixture
def probe(engine):
    with sqlprobe.attach(engine, settings=EXPLAINING) as probe:
        yield probe


def kept(text):
    """The samples whose statement holds *text*, slowest first."""
    return [sample for _, mine in worker.sampler.samples().values() for sample in mine if text in sample.text]


def numbers(text):
    return sorted(sample.parameters["n"] for sample in kept(text))


def run(connection, *values, text="SELECT CAST(:n AS int) AS one"):
    for value in values:
        connection.execute(sa.text(text), {"n": value})


def test_the_first_calls_and_the_slowest_are_kept(engine, probe):
    with engine.connect() as connection:
        for n in range(40):
            connection.execute(sa.text("SELECT pg_sleep(:n)"), {"n": 0.03 if n == 20 else 0})
        slowest = kept("pg_sleep")[0]

    assert (0.03, True) == (slowest.parameters["n"], 2 <= len(kept("pg_sleep")) <= sampling.FIRST_CALLS + 1)


def test_after_a_refresh_the_next_call_is_kept(engine, probe):
    with engine.connect() as connection:
        run(connection, *range(20))
        before = numbers("AS one")
        worker.sampler.refresh()
        run(connection, 777)

    assert (False, True) == (777 in before, 777 in numbers("AS one"))


def test_samples_have_the_text_and_values_that_the_driver_got(engine, probe):
    table = sa.table("pg_class", sa.column("relname"))
    with engine.connect() as connection:
        connection.execute(sa.select(table).where(table.c.relname.in_(["a", "b"])))
        connection.exec_driver_sql("SELECT 1 WHERE 'a%' LIKE 'a%'", execution_options={"no_parameters": True})
    (expanded,) = kept("relname")
    (bare,) = kept("LIKE")

    assert ({"relname_1_1": "a", "relname_1_2": "b"}, None) == (expanded.parameters, bare.parameters)
    assert "%(relname_1_1)s" in expanded.text


def test_many_parameter_sets_failures_and_utilities_are_not_kept(engine, probe):
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TEMPORARY TABLE kept (n int)")
        connection.execute(sa.text("INSERT INTO kept VALUES (:n)"), [{"n": 1}, {"n": 2}])
        with pytest.raises(sa.exc.DataError), connection.begin_nested():
            connection.execute(sa.text("SELECT 1 / :n AS failed"), {"n": 0})

    assert {} == worker.sampler.samples()


def test_other_databases_are_not_sampled(make_engine):
    engine = make_engine()
    with sqlprobe.attach(engine, settings=EXPLAINING), engine.connect() as connection:
        run(connection, 1, text="SELECT :n")

        assert {} == worker.sampler.samples()


def test_nothing_is_kept_where_nobody_explains(engine):
    with sqlprobe.attach(engine), engine.connect() as connection:
        run(connection, 1)

        assert ({}, {sampling.NEVER}) == (
            worker.sampler.samples(),
            {tally.sample_ns for watched in capture._watched.values() for tally in capture.tallies_of(watched.tables)},
        )


def test_statements_known_before_are_sampled_too(engine):
    with sqlprobe.attach(engine), engine.connect() as connection:
        run(connection, 1)
        with sqlprobe.record(settings=EXPLAINING):
            run(connection, 2)

            assert [2] == numbers("AS one")
        run(connection, 3)
    assert {} == worker.sampler.samples()


def test_memory_is_bounded(engine, probe, monkeypatch):
    monkeypatch.setattr(sampling, "MAX_BYTES", 60_000)
    monkeypatch.setattr(sampling, "MAX_SAMPLE_BYTES", 10_000)
    with engine.connect() as connection:
        for n in range(40):
            connection.execute(
                sa.text(f"SELECT CAST(:long AS text) AS c{chr(97 + n % 26)}{chr(97 + n // 26)}"), {"long": "x" * 5_000}
            )
        connection.execute(sa.text("SELECT CAST(:long AS text) AS huge"), {"long": "x" * 20_000})
    held = [len(sample.parameters["long"]) for sample in kept("AS c")]

    assert (True, [], True) == (5 <= len(held) <= 15, kept("AS huge"), worker.sampler._bytes <= 60_000 + 10_000)


def test_old_samples_are_forgotten(engine, probe):
    with engine.connect() as connection:
        run(connection, 1)
    (sample,) = kept("AS one")
    later = sample.started_ns + sampling.MAX_AGE_NS + 1

    assert {} == worker.sampler.samples(later)
    worker.sampler.refresh(later)
    assert {} == worker.sampler.samples()


def test_samples_keep_no_engine_alive(module_postgresql_url, probe):
    with sqlprobe.record(settings=EXPLAINING):
        engine = sa.create_engine(module_postgresql_url())
        with engine.connect() as connection:
            run(connection, 1)
        engine.dispose()
        del engine, connection
        gc.collect()

        assert {} == worker.sampler.samples()


def test_samples_show_no_values(engine, probe):
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT CAST(:n AS text), 'private literal'"), {"n": "private value"})
    (sample,) = kept("private literal")

    assert "private" not in repr(sample)


# --- settings ---------------------------------------------------------------------------------------------------------


def settings_of(text):
    sample = kept(text)[-1]
    return [setting for setting, _ in sample.settings], sample.settings_unknown


def test_local_settings_last_until_their_transaction_ends(engine, probe):
    with engine.connect() as connection:
        with connection.begin():
            connection.exec_driver_sql("SET LOCAL work_mem = '8MB'")
            connection.execute(sa.func.set_config("app.tenant", "5", True).select())
            run(connection, 1, text="SELECT CAST(:n AS int) AS inside")
        with connection.begin():
            run(connection, 1, text="SELECT CAST(:n AS int) AS after")
    inside, unknown = settings_of("inside")

    assert (["SET LOCAL work_mem = '8MB'", True], False, ([], False)) == (
        [inside[0], "set_config" in inside[1]], unknown, settings_of("after"),
    )  # fmt: skip


def test_settings_of_the_session_last_where_there_is_no_transaction(engine, probe):
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("SET search_path TO public")
        run(connection, 1, text="SELECT CAST(:n AS int) AS one")
    with engine.connect() as connection:
        run(connection, 1, text="SELECT CAST(:n AS int) AS two")
        connection.exec_driver_sql("RESET ALL")
        run(connection, 1, text="SELECT CAST(:n AS int) AS three")

    assert [(["SET search_path TO public"], False), (["SET search_path TO public"], False), ([], False)] == [
        settings_of("AS one"), settings_of("AS two"), settings_of("AS three"),
    ]  # fmt: skip


def test_a_setting_of_a_session_in_a_transaction_that_is_over_is_not_known(engine, probe):
    with engine.connect() as connection:
        with connection.begin():
            connection.exec_driver_sql("SET work_mem = '8MB'")
            run(connection, 1, text="SELECT CAST(:n AS int) AS inside")
        with connection.begin():
            run(connection, 1, text="SELECT CAST(:n AS int) AS after")

    assert ((["SET work_mem = '8MB'"], False), ([], True)) == (settings_of("inside"), settings_of("after"))


def test_settings_stay_with_their_connection(engine, probe):
    with engine.connect() as one, engine.connect() as other:
        one.exec_driver_sql("SET LOCAL work_mem = '8MB'")
        run(other, 1, text="SELECT CAST(:n AS int) AS other")

    assert ([], False) == settings_of("AS other")


@pytest.mark.parametrize(
    ("statement", "parameters", "scope"),
    [
        ("SET LOCAL a.b = 'c'", None, "local"),
        ("set local role app", None, "local"),
        ("SET search_path TO a, b", None, "session"),
        ("SET SESSION work_mem = '1MB';", None, "session"),
        ("SET TRANSACTION READ ONLY", None, "unknown"),
        ("SET SESSION AUTHORIZATION x", None, "unknown"),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", None, "unknown"),
        ("SET work_mem = '1MB'; DROP TABLE t", None, "unknown"),
        ("SELECT set_config('a.b', 'c', true)", None, "local"),
        ("SELECT set_config(%(a)s, %(b)s, %(c)s) AS set_config_1", {"a": "x.y", "b": "1", "c": False}, "session"),
        ("SELECT set_config($1::VARCHAR, $2::VARCHAR, $3::BOOLEAN) AS s", ("x.y", "1", True), "local"),
        ("SELECT set_config('a.b', 'c', true), set_config('a.d', 'e', true)", None, "local"),
        ("SELECT set_config('a.b', 'c', true), set_config('a.d', 'e', false)", None, "unknown"),
        ("SELECT set_config('a.b', (SELECT name FROM t), true)", None, "unknown"),
        ("SELECT set_config('a.b', f(), true)", None, "unknown"),
        ("RESET ALL", None, "reset"),
        ("DISCARD ALL", None, "reset"),
        ("RESET work_mem", None, "unknown"),
    ],
)
def test_what_is_repeated_only_sets(statement, parameters, scope):
    assert scope == sampling.scope_of_setting(statement, parameters)
