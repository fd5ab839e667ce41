"""The review's application, read, run and filled: each section of the review is a finding by name. Its twin has none."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sqlprobe
import sqlprobe.audit as auditing
from sqlprobe import explaining
from sqlprobe.advice import prove
from sqlprobe.audit import migrations, stock
from sqlprobe.audit.options import Options
from sqlprobe.report import Report
from sqlprobe.settings import Settings

pytestmark = [pytest.mark.once, pytest.mark.exhaustive]  # a lab for each of the two

DAY = 86_400
OPTIONS = Options(enabled=frozenset({"enum-and-check"}), unused_bytes=8192)

# What the application asks: 5.2.2, 5.2.3 and 5.2.4.
STATEMENTS = [
    """SELECT * FROM migration.discovery_flows
    WHERE client_account_id = '00000000-0000-0000-0000-000000000001' AND status = 'running'
    ORDER BY created_at DESC LIMIT 20""",
    "SELECT * FROM migration.discovery_flows WHERE failed_at IS NOT NULL ORDER BY created_at DESC",
    """SELECT * FROM migration.agent_discovered_patterns WHERE pattern_data @> '{"evidence": 7}'""",
]

ROWS = """
INSERT INTO migration.client_accounts SELECT lpad(n::text, 32, '0')::uuid, 'Client ' || n FROM generate_series(1, 50) n;
INSERT INTO migration.engagements (id, client_account_id, name)
    SELECT lpad(n::text, 32, '0')::uuid, lpad(n::text, 32, '0')::uuid, 'E' FROM generate_series(1, 50) n;
INSERT INTO migration.crewai_flow_state_extensions ({flow_ids}, client_account_id, engagement_id)
    SELECT {flow_values}, lpad((1 + n %% 50)::text, 32, '0')::uuid, lpad((1 + n %% 50)::text, 32, '0')::uuid
    FROM generate_series(1, 50) n;
INSERT INTO migration.discovery_flows
    (id, client_account_id, engagement_id, status, created_at, failed_at, phase_state, master_flow_id)
    SELECT gen_random_uuid(), lpad((1 + k %% 50)::text, 32, '0')::uuid, lpad((1 + k %% 50)::text, 32, '0')::uuid,
        CASE WHEN n %% 2 = 0 THEN 'running' ELSE 'done' END, timestamp '2025-01-01' + n * interval '1 minute',
        CASE WHEN n %% 700 = 1 THEN now() END, '{{}}', lpad(k::text, 32, '0')::uuid
    FROM generate_series(1, 30000) n, LATERAL (SELECT CASE WHEN n %% 3 = 0 THEN 50 ELSE 1 + n %% 49 END k) flow;
INSERT INTO migration.agent_discovered_patterns (id, pattern_id, client_account_id, pattern_data)
    SELECT gen_random_uuid(), n::text, lpad((1 + n %% 50)::text, 32, '0')::uuid,
        CASE WHEN n %% 500 = 0 THEN '{{"evidence": 1}}' ELSE '{{"kind": "x"}}' END::jsonb
    FROM generate_series(1, 12000) n;
INSERT INTO migration.llm_usage_logs (id, client_account_id, {log_columns}, created_at, success)
    SELECT gen_random_uuid(), lpad((1 + n %% 50)::text, 32, '0')::uuid, {log_values},
        timestamp '2025-01-01' + n * interval '1 minute', true
    FROM generate_series(1, 12000) n;
"""
DIFFERENT = {
    "reviewed": {
        "flow_ids": "id, flow_id",
        "flow_values": "gen_random_uuid(), lpad(n::text, 32, '0')::uuid",
        "log_columns": "user_id, llm_provider, model_name, feature_context, finished_at",
        "log_values": "n::text, 'p', 'm', 'f', now()",
    },
    "corrected": {
        "flow_ids": "flow_id",
        "flow_values": "lpad(n::text, 32, '0')::uuid",
        "log_columns": "user_id, llm_provider",
        "log_values": "n::text, 'p'",
    },
}
POLICY = "(client_account_id = current_setting('app.client')::uuid)"


def step(number, upgrade="op.create_table('t{0}', sa.Column('id', sa.Integer))", downgrade="op.drop_table('t{0}')"):
    down = f"{number - 1:03}" if number > 1 else None
    return (
        "import sqlalchemy as sa\nfrom alembic import op\nfrom pgvector.sqlalchemy import Vector\n\n"
        f"# Create Date: 2024-01-01 00:00:00\nrevision = '{number:03}'\ndown_revision = {down!r}\n\n\n"
        f"def upgrade():\n    {upgrade.format(number)}\n\n\ndef downgrade():\n    {downgrade.format(number)}\n"
    )


MIGRATIONS = {
    # 6.3: 130 of them. 6.4: the type in 001, the vectors of 042 in 085.
    "reviewed": [
        step(1, "sa.Enum('server', 'database', name='asset_type').create(op.get_bind())"),
        *map(step, range(2, 42)),
        step(42, "op.add_column('agent_discovered_patterns', sa.Column('embedding', Vector(1536)))"),
        *map(step, range(43, 85)),
        step(85, "op.alter_column('agent_discovered_patterns', 'embedding', type_=Vector(1024))"),
        *map(step, range(86, 131)),
    ],
    "corrected": [step(1), step(2)],
}


@pytest.fixture(scope="module")
def run(postgresql_server, load_app, tmp_path_factory):
    """`run("reviewed")`: what an audit says of it, told all that can be told."""
    made = {}

    def run(name):
        if name not in made:
            database = f"audit_{name}"
            postgresql_server.psql(f"CREATE DATABASE {database} STRATEGY file_copy")
            engine = sa.create_engine(postgresql_server.url_for("psycopg", database), poolclass=sa.NullPool)
            made[name] = (engine, audited(name, engine, load_app(name), tmp_path_factory.mktemp(name)))
        return made[name][1]

    yield run
    for engine, _ in made.values():
        engine.dispose()
        postgresql_server.psql(f"DROP DATABASE {engine.url.database} WITH (FORCE)")


def audited(name, engine, models, folder):
    classes = SimpleNamespace(**{mapper.class_.__name__: mapper.class_ for mapper in models.mappers})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in ("CREATE EXTENSION vector", "CREATE SCHEMA migration"):
            connection.exec_driver_sql(statement)
        models.metadatas[0].create_all(connection)
        for statement in ROWS.format(**DIFFERENT[name]).split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
        secured = [
            table.name
            for table in models.tables
            if "client_account_id" in table.columns and (name == "corrected" or table.name == "engagements")
        ]
        for table in secured:
            connection.exec_driver_sql(f"ALTER TABLE migration.{table} ENABLE ROW LEVEL SECURITY")
            connection.exec_driver_sql(f"CREATE POLICY tenant ON migration.{table} USING {POLICY}")
        connection.exec_driver_sql("ANALYZE")
    if name == "reviewed":
        with sqlprobe.record() as recording, Session(engine) as session:
            for flow in session.scalars(sa.select(classes.MasterFlow).limit(9)):
                len(flow.discovery_flows)  # 4.3
        seen = recording.report()
    else:
        seen = Report()
    settings = Settings(explain=True)
    explanation = explaining.explain(engine.url.render_as_string(hide_password=False), STATEMENTS, settings)
    advice = prove.of_answers(engine, explanation.answers)
    seen = Report.merge(seen, dataclasses.replace(explanation.report, findings=tuple(advice)))

    (folder / "versions").mkdir()
    for number, text in enumerate(MIGRATIONS[name], 1):
        (folder / "versions" / f"{number:03}_step.py").write_text(text)

    read = stock.read(engine)
    # Forty days of a service: every table is read; every index of the twin is used, and the reviewed ones' only by keys.
    uses = {oid: dataclasses.replace(use, scans=use.scans + 1000) for oid, use in read.uses.items()}
    if name == "corrected":
        read = dataclasses.replace(
            read,
            relations={
                oid: dataclasses.replace(
                    relation, indexes=tuple(dataclasses.replace(each, scans=500) for each in relation.indexes)
                )
                for oid, relation in read.relations.items()
            },
        )
    read = dataclasses.replace(read, since=read.taken - 40 * DAY, uses=uses)
    return auditing.audit(
        models,
        catalog_of=read,
        compare_with=engine.url,
        history=migrations.load(str(folder)),
        report=seen,
        options=OPTIONS,
    )


@pytest.mark.parametrize(
    ("section", "rule", "label"),
    [
        ("1.3", "mixed-schema-names", "migration"),
        ("2.2", "tenant-hierarchy", "migration.assets"),
        ("2.2", "tenant-hierarchy", "migration.discovery_flows"),
        ("3.2", "vector-index-parameters", "ix_agent_patterns_embedding"),
        ("3.4", "vector-dimensions", "embedding"),
        ("4.1", "foreign-key-target", "migration.crewai_flow_state_extensions.flow_id"),
        ("4.3", "relationship-loading", "MasterFlow.discovery_flows"),
        ("4.3", "relationship-loading", "relationships"),
        ("5.2.1", "over-indexed-table", "migration.llm_usage_logs"),
        ("5.2.1", "unused-index", "migration.ix_migration_llm_usage_logs_user_id"),
        ("5.2.2", "missing-index", "migration.discovery_flows"),
        ("5.2.3", "missing-partial-index", "migration.discovery_flows"),
        ("5.2.4", "missing-jsonb-index", "migration.agent_discovered_patterns"),
        ("6.3", "migration-count", "migrations"),
        ("6.4", "enum-and-check", "enums"),
        ("6.4", "enum-and-check", "enum types"),
        ("6.4", "migration-type-change", "agent_discovered_patterns.embedding"),
        ("10.3", "unused-index", "migration.ix_assets_client_name"),
        ("10.5", "missing-row-security", "migration.assets"),
    ],
)
def test_every_fault_of_the_review_is_told(run, section, rule, label):
    found = {(each.rule, each.label) for each in run("reviewed").findings}

    assert (rule, label) in found, (section, sorted(each for each in found if each[0] == rule))


def test_every_finding_says_what_to_do_and_most_paste_it(run):
    report = run("reviewed")

    assert [] == [each.key for each in report.findings if not each.advice]
    assert len(report.findings) == len({(each.key, each.scope) for each in report.findings})
    assert len([each for each in report.findings if each.fixes]) * 3 > len(report.findings) * 2


def test_its_corrected_twin_has_none(run):
    assert [] == [(each.rule, each.severity, each.label, each.title) for each in run("corrected").findings]
