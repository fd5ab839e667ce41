"""What plan tests share: tables large enough for plans to matter, and what the rules say of a statement on them."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from sqlprobe.model import Site
from sqlprobe.plans import explain
from sqlprobe.plans.catalog import Reader
from sqlprobe.plans.examine import Examiner, Question
from sqlprobe.plans.rules.plan_regression import History
from sqlprobe.plans.sampling import Sample
from sqlprobe.settings import Settings
from sqlprobe.stats import statement_stats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCHEMA = """
CREATE EXTENSION vector;
CREATE EXTENSION pg_trgm;
CREATE TABLE t (
    id int PRIMARY KEY, tenant int NOT NULL, status varchar(20), created_at timestamptz, made timestamp, email text,
    doc jsonb, tags int[], x int, flag bool, uid uuid, code char(8), note text
);
INSERT INTO t SELECT g, g % 200, (array['open', 'hold', 'failed', 'done'])[1 + (g % 4)],
    timestamptz '2025-01-01' + g * interval '1 minute', timestamp '2025-01-01' + g * interval '1 minute',
    'user' || g || '@example.org',
    jsonb_build_object('k', 'v' || g % 500, 'n', g) || CASE g % 300 WHEN 0 THEN '{"promo": 1}' ELSE '{}' END::jsonb,
    array[g % 1000, g % 7], g % 5000, g % 900 = 0, md5(g::text)::uuid, 'c' || g % 3000, repeat('n', 40)
FROM generate_series(1, 30000) g;
CREATE TABLE child (id int PRIMARY KEY, t_id int, amount int);
INSERT INTO child SELECT g, g % 30000, g FROM generate_series(1, 20000) g;
CREATE TABLE small (id int PRIMARY KEY, name text);
INSERT INTO small SELECT g, 'n' || g FROM generate_series(1, 500) g;
CREATE TABLE v (id int PRIMARY KEY, tenant int, e vector(16));
INSERT INTO v SELECT g, CASE WHEN g % 1000 = 0 THEN 1 WHEN g % 25 = 0 THEN 2 ELSE 3 END,
    (SELECT array_agg(sin(g * 0.37 * d)) FROM generate_series(1, 16) d)::vector FROM generate_series(1, 12000) g;
CREATE INDEX v_tenant ON v (tenant);
VACUUM ANALYZE;
"""


def _stats_of(seconds: float = 0.0, *, calls: int = 1, rows: int | None = None, text: str = ""):
    """A statement's statistics: *seconds* and *rows* of each of *calls* calls."""
    histogram = [0] * 22
    histogram[10] = calls
    return statement_stats(
        fingerprint="f" * 16,
        text=text,
        summary="SELECT t",
        operation="SELECT",
        tables=("t",),
        engine="postgresql",
        errors={},
        rows=None if rows is None else rows * calls,
        parameter_sets=calls,
        pages=calls,
        seconds=seconds * calls,
        min=seconds,
        max=seconds,
        first_seen=1.0,
        last_seen=2.0,
        sites=(),
        slowest=Site("shop/views.py", 31, "orders"),
        histogram=tuple(histogram),
    )


@pytest.fixture
def stats_of():
    """`stats_of(0.1, calls=5, rows=100)`: a statement's statistics."""
    return _stats_of


@pytest.fixture(scope="module")
def tables(request) -> Iterator[Callable[..., sa.URL]]:
    """
    The URL of a database with the tables of SCHEMA; tests change it inside `world.changed()` only.

    SQLPROBE_POSTGRESQL names a folder with initdb and pg_ctl, of another version than the embedded one; where that has
    no pgvector, `-k "not vector"` leaves out what needs it.
    """
    elsewhere = os.environ.get("SQLPROBE_POSTGRESQL")
    if not elsewhere:
        url_for = request.getfixturevalue("module_postgresql_url")
        request.getfixturevalue("postgresql_server").psql(SCHEMA, url_for().database)
        yield url_for
        return
    with request.getfixturevalue("serve_from")(Path(elsewhere)) as (url, _):
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            there = connection.exec_driver_sql("SELECT FROM pg_available_extensions WHERE name = 'vector'").all()
            for statement in SCHEMA.split(";\n"):
                if statement.strip() and (there or not re.search(r"vector|(?:INTO|ON) v\b", statement)):
                    connection.connection.driver_connection.execute(statement)
        engine.dispose()
        yield lambda driver="psycopg": url.set(drivername=f"postgresql+{driver}")


@pytest.fixture(scope="module")
def world(tables) -> Iterator[SimpleNamespace]:
    """`world.findings(sql, parameters)` and what belongs to it."""
    engine = sa.create_engine(tables())
    examiner = Examiner(Settings())
    admin = engine.raw_connection()
    admin.driver_connection.autocommit = True

    def examine(statement, parameters=None, *, stats=None, analyze=False, settings=(), before=(), given=None):
        examiner.settings = given or Settings()
        examiner.history = History()
        if not isinstance(statement, str):
            compiled = statement.compile(dialect=engine.dialect, compile_kwargs={"render_postcompile": True})
            context_parameters = compiled.construct_params()
            processors = compiled._bind_processors
            statement, parameters = (
                str(compiled),
                {key: processors.get(key, lambda value: value)(value) for key, value in context_parameters.items()},
            )
        question = Question("f" * 16, "postgresql", Sample(statement, parameters, settings=before), stats)
        (answer,) = examiner.examine(engine, [question], analyze=analyze, settings=settings)
        if answer.refused is not None:
            raise answer.refused
        return answer

    def findings(statement, parameters=None, **options):
        return examine(statement, parameters, **options).findings

    def rules(statement, parameters=None, **options):
        return [finding.rule for finding in findings(statement, parameters, **options)]

    def psql(script):
        with contextlib.closing(admin.cursor()) as cursor:
            cursor.execute(script)

    def plan_of(statement, parameters=None, **options):
        def work(session):
            explained = session.explain(Sample(statement, parameters), **options)
            return explained.plan, Reader().read(session, explained.plan)

        return explain.on_connection(engine, work)

    version = admin.driver_connection.info.server_version // 10_000

    def flush(table):
        """See to it that the statistics of what has been done to *table* are there."""
        if version > 14:  # 14 has a collector of its own, which is told twice a second
            psql("SELECT pg_stat_force_next_flush()")
            return
        for _ in range(200):
            with contextlib.closing(admin.cursor()) as cursor:
                cursor.execute(
                    "SELECT pg_sleep(0.05), n_mod_since_analyze FROM pg_stat_all_tables WHERE relname = %s", (table,)
                )
                if cursor.fetchone()[1]:
                    return
        raise AssertionError(f"the collector has not been told of {table}")

    yield SimpleNamespace(
        engine=engine, examine=examine, findings=findings, rules=rules, psql=psql, plan_of=plan_of, url=tables,
        version=version, flush=flush,
    )  # fmt: skip
    admin.close()
    engine.dispose()
