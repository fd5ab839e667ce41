"""What advice tests share: tables that matter, a snapshot of them, and one lab for the module."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from sqlprobe.advice import candidates, snapshot
from sqlprobe.advice.lab import open_lab
from sqlprobe.advice.prove import Case, prove
from sqlprobe.plans import explain
from sqlprobe.plans.catalog import Reader
from sqlprobe.plans.sampling import Sample

if TYPE_CHECKING:
    from collections.abc import Iterator

# `ground_truth` is a module beside the tests, which pytest does not put on the path.
FOLDER = str(Path(__file__).parent)
if FOLDER not in sys.path:
    sys.path.append(FOLDER)

SCHEMA = """
CREATE EXTENSION vector;
CREATE EXTENSION pg_trgm;
CREATE ROLE advice_app;
CREATE TABLE t (
    id int PRIMARY KEY, tenant int NOT NULL, status varchar(20), created_at timestamptz, email text, doc jsonb,
    tags int[], x int, deleted_at timestamptz, uid uuid
);
INSERT INTO t SELECT g, g % 200, (array['open', 'hold', 'failed', 'done'])[1 + (g / 200 % 4)],
    timestamptz '2025-01-01' + g * 7919 % 30000 * interval '1 minute', 'user' || g || '@example.org',
    jsonb_build_object('k', 'v' || g % 500, 'n', g) || CASE g % 300 WHEN 0 THEN '{"promo": 1}' ELSE '{}' END::jsonb,
    array[g % 1000, g % 7], g % 5000, CASE WHEN g % 100 > 0 THEN now() END, md5(g::text)::uuid
FROM generate_series(1, 30000) g;
CREATE TABLE child (id int PRIMARY KEY, t_id int REFERENCES t, amount int);
INSERT INTO child SELECT g, 1 + g % 30000, g FROM generate_series(1, 20000) g;
CREATE TABLE small (id int PRIMARY KEY, name text);
INSERT INTO small SELECT g, 'n' || g FROM generate_series(1, 500) g;
CREATE TABLE mid (id int PRIMARY KEY, name text, note text);
INSERT INTO mid SELECT g, 'n' || g, repeat('x', 150) FROM generate_series(1, 6000) g;
CREATE TABLE v (id int PRIMARY KEY, e vector(16));
INSERT INTO v SELECT g, (SELECT array_agg(sin(g * 0.37 * d)) FROM generate_series(1, 16) d)::vector
FROM generate_series(1, 12000) g;
CREATE TABLE secret (id int PRIMARY KEY, tenant int, email text);
INSERT INTO secret SELECT g, g % 300, 'user' || g || '@example.org' FROM generate_series(1, 20000) g;
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON secret USING (tenant = current_setting('app.tenant')::int);
GRANT SELECT ON ALL TABLES IN SCHEMA public TO advice_app;
VACUUM ANALYZE;
"""


@pytest.fixture(scope="module")
def world(module_postgresql_url, postgresql_server) -> Iterator[SimpleNamespace]:
    """`world.case(sql, parameters)`, `world.advice(case, …)`, the lab and the snapshot."""
    database = module_postgresql_url().database
    postgresql_server.psql(SCHEMA, database)
    engine = sa.create_engine(module_postgresql_url())
    taken = explain.on_connection(engine, snapshot.read, explain.Limits(statement_seconds=10))

    def case(statement, parameters=None, *, before=(), role=""):
        sample = Sample(statement, parameters, settings=before)

        def work(session):
            explained = session.explain(sample)
            return explained.plan, Reader().read(session, explained.plan, explained.secured)

        plan, catalog = explain.on_connection(engine, work)
        return Case(sample, plan, catalog, statement, role=role)

    def psql(script):
        return postgresql_server.psql(script, database)

    with open_lab(taken) as lab:

        def outcome(*cases):
            return prove(lab, [case(each) if isinstance(each, str) else each for each in cases])

        def advice(*cases):
            return [each.candidate.target for each in outcome(*cases).advice]

        yield SimpleNamespace(
            engine=engine,
            snapshot=taken,
            lab=lab,
            case=case,
            outcome=outcome,
            advice=advice,
            psql=psql,
            candidates=lambda each: candidates.of_plan(each.plan, each.catalog),
        )
    engine.dispose()
    psql("DROP OWNED BY advice_app; DROP ROLE advice_app")
