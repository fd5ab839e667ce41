from __future__ import annotations

import contextlib
import dataclasses
import uuid
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import NullPool

import sqlprobe
import sqlprobe.audit as auditing
from sqlprobe.audit import bloat, catalog, drift, mapping, metrics, stock
from sqlprobe.audit.options import Options
from sqlprobe.audit.seen import Seen
from sqlprobe.model import Finding
from sqlprobe.plans.explain import Session
from sqlprobe.report import Report

DAY = 86_400
OPTIONS = Options(unused_bytes=8192, few_rows=1_000)

FAULTS = """
INSERT INTO migration.client_accounts SELECT gen_random_uuid(), 'Client ' || n FROM generate_series(1, 3) n;
INSERT INTO migration.agent_discovered_patterns (id, pattern_id, client_account_id)
    SELECT gen_random_uuid(), n::text, (SELECT id FROM migration.client_accounts LIMIT 1)
    FROM generate_series(1, 12000) n;
CREATE TABLE migration.orders (id serial PRIMARY KEY, client_account_id uuid, note text);
INSERT INTO migration.orders (note) SELECT 'x' FROM generate_series(1, 2000);
CREATE TABLE migration.lines (id bigserial PRIMARY KEY, order_id int REFERENCES migration.orders, qty int,
    other_id int REFERENCES migration.orders);
INSERT INTO migration.lines (order_id, qty) SELECT n, mod(n, 7) FROM generate_series(1, 2000) n;
CREATE INDEX ix_lines_qty ON migration.lines (qty);
CREATE INDEX ix_lines_qty_again ON migration.lines (qty);
CREATE INDEX ix_lines_qty_order ON migration.lines (qty DESC, order_id);
CREATE INDEX ix_lines_other ON migration.lines (other_id) WHERE other_id IS NOT NULL;
CREATE INDEX ix_lines_partial ON migration.lines (qty) WHERE qty > 3;
SELECT setval('migration.orders_id_seq', 2000000000);
CREATE TABLE migration.secured (id int PRIMARY KEY, client_account_id uuid);
ALTER TABLE migration.secured ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON migration.secured USING (client_account_id = current_setting('app.client')::uuid);
CREATE TABLE migration.off (id int PRIMARY KEY, client_account_id uuid);
CREATE POLICY tenant ON migration.off USING (client_account_id = current_setting('app.client')::uuid);
CREATE TABLE migration.unknown (id int, filler text);
ALTER TABLE migration.unknown SET (autovacuum_enabled = off);
INSERT INTO migration.unknown SELECT n, repeat('x', 200) FROM generate_series(1, 8000) n;
CREATE TABLE migration.broken (id int);
INSERT INTO migration.broken VALUES (1), (1);
ANALYZE migration.agent_discovered_patterns, migration.orders, migration.lines, migration.client_accounts;
"""


@pytest.fixture(scope="module")
def database(module_postgresql_url, load_app):
    """The review's application in a database, with what only a database can show."""
    models = load_app("reviewed")
    engine = sa.create_engine(module_postgresql_url(), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE EXTENSION vector")
        connection.exec_driver_sql("CREATE SCHEMA migration")
        models.metadatas[0].create_all(connection)
        for statement in FAULTS.split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
        with pytest.raises(sa.exc.IntegrityError):
            connection.exec_driver_sql("CREATE UNIQUE INDEX CONCURRENTLY ux_broken ON migration.broken (id)")
        connection.exec_driver_sql("DROP INDEX migration.ix_migration_agent_discovered_patterns_client_account_id")
    return engine


@pytest.fixture(scope="module")
def read(database):
    """The stock, as if it had counted for forty days while the tables were read."""
    found = stock.read(database)
    used = {oid: dataclasses.replace(use, scans=use.scans + 1000) for oid, use in found.uses.items()}
    return dataclasses.replace(found, since=found.taken - 40 * DAY, uses=used)


def check(rule, found, models=None, options=OPTIONS, report=None):
    matter = catalog.Matter(found, models or mapping.Models(()), Seen(report), options)
    return sorted((each.severity, each.label) for each in catalog.CHECKS[rule](matter))


def with_index(found, name, **changes):
    relations = {
        oid: dataclasses.replace(
            relation,
            indexes=tuple(
                dataclasses.replace(each, **changes) if each.name == name else each for each in relation.indexes
            ),
        )
        for oid, relation in found.relations.items()
    }
    return dataclasses.replace(found, relations=relations)


def with_use(found, table, **changes):
    oid = found.by_name["migration", table].oid
    return dataclasses.replace(found, uses={**found.uses, oid: dataclasses.replace(found.uses[oid], **changes)})


def test_unused_indexes(read):
    found = check("unused-index", read)

    assert ("info", "migration.ix_lines_qty") in found
    assert not any("pkey" in label or "uq_" in label for _, label in found)
    assert ("info", "migration.ix_lines_other") not in found  # the only index of a foreign key


@pytest.mark.parametrize(
    "change",
    [
        lambda read: dataclasses.replace(read, since=read.taken - 3 * DAY),
        lambda read: dataclasses.replace(read, in_recovery=True),
        lambda read: with_use(read, "lines", scans=0),
        lambda read: with_index(read, "ix_lines_qty", scans=1),
        lambda read: with_index(read, "ix_lines_qty", bytes=100),
    ],
)
def test_silent_where_nobody_can_tell_that_it_is_unused(read, change):
    assert ("info", "migration.ix_lines_qty") not in check("unused-index", change(read))


def test_dropped_indexes_can_be_made_again(read, database):
    matter = catalog.Matter(read, mapping.Models(()), Seen(), OPTIONS)
    (found,) = [each for each in catalog.check_unused(matter) if each.label.endswith("ix_lines_partial")]

    drop, again = found.fixes[0].code.split("\n")
    with database.connect() as connection:
        connection.exec_driver_sql(drop)
        connection.exec_driver_sql(again.removeprefix("-- to have it back: "))
    assert "DROP INDEX CONCURRENTLY migration.ix_lines_partial;" == drop


def test_redundant_indexes(read):
    found = [each for each in check("redundant-index", read) if "lines" in each[1]]

    assert [("warning", "migration.ix_lines_qty_again")] == found


def test_invalid_indexes(read):
    assert [("warning", "migration.ux_broken")] == check("invalid-index", read)


def test_silent_while_an_index_is_built(read):
    standings = {key: dataclasses.replace(each, is_building=True) for key, each in read.standings.items()}

    assert [] == check("invalid-index", dataclasses.replace(read, standings=standings))


def test_foreign_keys_without_an_index(read):
    assert [("info", "migration.agent_discovered_patterns"), ("info", "migration.lines")] == check(
        "unindexed-foreign-key", read
    )
    assert ("warning", "migration.lines") in check("unindexed-foreign-key", with_use(read, "orders", deleted=5))
    assert ("error", "migration.lines") in check("unindexed-foreign-key", with_use(read, "orders", deleted=10**6))
    assert [] == check("unindexed-foreign-key", read, options=Options(few_rows=10**6))


def test_sequences_near_their_end(read):
    assert [("error", "migration.orders_id_seq")] == check("sequence-exhaustion", read)
    cycling = tuple(dataclasses.replace(each, cycles=True) for each in read.sequences)
    assert [] == check("sequence-exhaustion", dataclasses.replace(read, sequences=cycling))


def test_tables_that_were_never_analysed(read):
    assert [("warning", "migration.unknown")] == check("never-analyzed", read)
    assert [] == check("never-analyzed", with_use(read, "unknown", readable=False))


def test_vector_indexes_made_for_another_size(read):
    assert [("info", "ix_agent_patterns_embedding")] == check("vector-index-parameters", read)  # 3.2
    fitting = with_index(read, "ix_agent_patterns_embedding", options={"lists": "12"})
    assert [] == check("vector-index-parameters", fitting)


@pytest.fixture
def hnsw(read):
    """`hnsw(bytes=...)`: the stock, with the vector index an HNSW one."""

    def changed(options, size=8192):
        return with_index(read, "ix_agent_patterns_embedding", method="hnsw", options=options, bytes=size)

    return changed


def test_graphs_with_too_few_links(hnsw):
    assert [("info", "ix_agent_patterns_embedding")] == check("vector-index-parameters", hnsw({"m": "4"}))
    assert [] == check("vector-index-parameters", hnsw({"m": "5"}))
    assert [] == check("vector-index-parameters", hnsw({}))


def test_graphs_that_no_cache_holds(hnsw, read):
    assert read.cache_bytes > 0

    (found,) = catalog.check_vector_indexes(
        catalog.Matter(hnsw({}, read.cache_bytes + 1), mapping.Models(()), Seen(), OPTIONS)
    )

    assert ("info", "vector-index-parameters|ix_agent_patterns_embedding|memory") == (found.severity, found.key)
    assert [] == check("vector-index-parameters", hnsw({}, read.cache_bytes))
    assert [] == check("vector-index-parameters", dataclasses.replace(hnsw({}, 1 << 50), cache_bytes=0))


def test_the_fixes_of_vector_indexes_run(hnsw, read, database):
    fixes = [
        fix
        for found in (read, hnsw({"m": "4"}), hnsw({}, read.cache_bytes + 1))
        for each in catalog.check_vector_indexes(catalog.Matter(found, mapping.Models(()), Seen(), OPTIONS))
        for fix in each.fixes
    ]
    index = read.by_name["migration", "agent_discovered_patterns"].index("ix_agent_patterns_embedding")
    with database.connect() as connection:
        for fix in fixes:
            if "(m = " in fix.code:
                connection.exec_driver_sql("DROP INDEX migration.ix_agent_patterns_embedding")
                connection.exec_driver_sql(index.definition.replace("ivfflat", "hnsw").replace("lists='100'", "m='4'"))
            for statement in fix.code.split(";\n"):
                connection.exec_driver_sql(statement)
            for name in (
                "ix_agent_patterns_embedding",
                "ix_agent_patterns_embedding_hnsw",
                "ix_agent_patterns_embedding_half",
            ):
                connection.exec_driver_sql(f"DROP INDEX IF EXISTS migration.{name}")
            connection.exec_driver_sql(index.definition)

    assert 4 == len(fixes)


def test_vectors_of_another_length_than_the_column(database, load_app):
    models = load_app("reviewed")
    memory, pattern = (
        next(table for table in models.tables if table.name == name)
        for name in ("agent_memory", "agent_discovered_patterns")
    )
    with sqlprobe.record() as recording, database.connect() as connection:
        for length in (1024, 1536):
            with contextlib.suppress(sa.exc.DBAPIError):
                connection.execute(memory.insert(), {"id": uuid.uuid4(), "embedding": [0.515151515] * length})
        # Fails for a reason of its own.
        with contextlib.suppress(sa.exc.DBAPIError):
            connection.execute(sa.select(sa.func.sqrt(-1), pattern.c.embedding))
        connection.execute(memory.delete())
    report = recording.report()

    (seen,) = [each for each in mapping.check_vector_dimensions(models, Seen(report), OPTIONS) if "seen" in each.key]
    (alone,) = catalog.check_dimensions(catalog.Matter(stock.read(database), mapping.Models(()), Seen(report), OPTIONS))

    assert ("warning", "migration.agent_memory.embedding", 1) == (seen.severity, seen.label, seen.count)
    assert seen.title.endswith("most likely vectors of another length than 1,536")
    assert Path(__file__).name in seen.origin.file
    assert seen.site.file.endswith("reviewed.py")
    assert (seen.key, seen.title) == (alone.key, alone.title)
    assert "515151515" not in report.to_json()


@pytest.mark.parametrize(("rows", "lists"), [(20_000, 20), (1_000, 10), (1_000_000, 1000), (4_000_000, 2000)])
def test_lists_by_the_guidance_of_pgvector(rows, lists):
    assert lists == catalog.advised_lists(rows)


def test_row_security(read):
    found = check("missing-row-security", read)  # 10.5

    assert ("error", "migration.off") in found
    assert ("warning", "migration.orders") in found
    assert ("warning", "migration.assets") in found
    assert not any(label in {"migration.secured", "migration.client_accounts"} for _, label in found)


def test_silent_without_any_policy(read):
    bare = {oid: dataclasses.replace(each, policies=()) for oid, each in read.relations.items()}
    open_ = {oid: dataclasses.replace(each, secured=False) for oid, each in read.uses.items()}

    assert [] == check("missing-row-security", dataclasses.replace(read, relations=bare, uses=open_))


def test_the_fix_of_row_security_runs(read, database):
    matter = catalog.Matter(read, mapping.Models(()), Seen(), OPTIONS)
    (found,) = [each for each in catalog.check_row_security(matter) if each.label == "migration.orders"]
    with database.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        for statement in found.fixes[0].code.split("\n"):
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("ROLLBACK")


def test_over_indexed_tables(read):
    table = read.by_name["migration", "llm_usage_logs"]
    big = dataclasses.replace(table, indexes=tuple(dataclasses.replace(each, bytes=10**8) for each in table.indexes))
    found = dataclasses.replace(read, relations={**read.relations, table.oid: big})

    assert [] == check("over-indexed-table", found)  # nothing is written
    assert [("warning", "migration.llm_usage_logs")] == check(
        "over-indexed-table", with_use(found, "llm_usage_logs", inserted=10**6)
    )


def test_bloat_by_what_rows_need(read):
    table = read.by_name["migration", "lines"]
    use = read.uses[table.oid]
    full = bloat.wasted(table, use)
    many = dataclasses.replace(table, pages=100_000, known_pages=100_000, bytes=100_000 * 8192, rows=2000.0, modified=0)

    assert full is None or full[1] < 0.2
    assert bloat.wasted(many, use)[1] > 0.99
    assert [("info", "migration.lines")] == check(
        "table-bloat", dataclasses.replace(read, relations={**read.relations, table.oid: many})
    )
    assert [] == check("table-bloat", read)


def test_dimensions_that_the_database_has_not(read, load_app, database):
    models = load_app("reviewed")
    table = read.by_name["migration", "agent_memory"]
    other = {**table.columns, "embedding": dataclasses.replace(table.columns["embedding"], type="vector(768)")}
    changed = dataclasses.replace(
        read, relations={**read.relations, table.oid: dataclasses.replace(table, columns=other)}
    )

    assert [] == check("vector-dimensions", read, models)
    assert [("error", "migration.agent_memory.embedding")] == check("vector-dimensions", changed, models)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_drift_from_the_models(database, module_postgresql_url, load_app, driver):
    found = drift.check(load_app("reviewed"), module_postgresql_url(driver))

    assert [("warning", "migration.ix_migration_agent_discovered_patterns_client_account_id")] == [
        (each.severity, each.label) for each in found
    ]


def test_a_kept_stock_is_the_same(read, database, tmp_path):
    stock.read(database).write(tmp_path / "stats.json")
    kept = stock.load(tmp_path / "stats.json")

    assert set(read.relations) == set(kept.relations)
    assert read.by_name["migration", "lines"].indexes == kept.by_name["migration", "lines"].indexes
    assert read.references == kept.references


def test_says_what_is_no_stock(tmp_path):
    file = tmp_path / "stats.json"
    for text in ("", "[]", '{"format": "other"}', '{"format": "sqlprobe-catalog/1", "answers": []}'):
        file.write_text(text)
        with pytest.raises(stock.StockError, match="--save-stats"):
            stock.load(file)


def test_one_report_of_models_and_catalog(read, load_app):
    seen = Report(findings=(Finding("missing-jsonb-index", "warning", "GIN", "", "k", label="patterns.pattern_data"),))

    report = auditing.audit(load_app("reviewed"), catalog_of=read, report=seen, options=OPTIONS)

    labels = {(each.rule, each.label) for each in report.findings}
    assert ("missing-jsonb-index", "patterns.pattern_data") in labels  # 5.2.4, from the plans of the run
    assert ("unused-index", "migration.ix_lines_qty") in labels  # 10.3
    assert ("tenant-hierarchy", "migration.assets") in labels
    # Of two equal indexes, one of which is unused, one has to stay.
    assert ("redundant-index", "migration.ix_lines_qty_again") not in labels
    assert len(report.findings) == len({(each.key, each.scope) for each in report.findings})
    text = metrics.text(report.findings, read, report.ended)
    assert f'sqlprobe_audit_findings{{database="{read.database}",rule="invalid-index",severity="warning"}} 1' in text
    assert 'schema="migration",table="lines",index="ix_lines_qty"} 0' in text


@pytest.mark.exhaustive
def test_500_tables_and_3000_indexes_in_under_20_questions(postgresql_url, monkeypatch):
    engine = sa.create_engine(postgresql_url(), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(
            "DO $$ BEGIN FOR t IN 1..500 LOOP EXECUTE format('CREATE TABLE t%%s (id int PRIMARY KEY, a int, b int, c int,"
            " d int, e int)', t); EXECUTE format('CREATE INDEX ON t%%s (a)', t); EXECUTE format('CREATE INDEX ON t%%s"
            " (a, b)', t); EXECUTE format('CREATE INDEX ON t%%s (c)', t); EXECUTE format('CREATE INDEX ON t%%s (d)', t);"
            " EXECUTE format('CREATE INDEX ON t%%s (e)', t); COMMIT; END LOOP; END $$"
        )
    asked = []
    plain = Session.read
    monkeypatch.setattr(Session, "read", lambda self, *given: asked.extend(given) or plain(self, *given))

    report = auditing.audit(catalog_of=stock.read(engine))

    assert len(asked) < 20
    assert 500 == sum(each.rule == "redundant-index" for each in report.findings)
