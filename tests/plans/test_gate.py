"""No index for it, seen on tables of ten rows."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from sqlprobe import faults
from sqlprobe.plans.examine import Question
from sqlprobe.plans.gate import gate
from sqlprobe.plans.sampling import Sample
from sqlprobe.settings import Settings

TABLES = """
CREATE EXTENSION vector;
CREATE TABLE orders (
    id int PRIMARY KEY, customer int, status text, at timestamptz, doc jsonb, email text, e vector(3), total int
);
INSERT INTO orders SELECT g, g, 'open', now(), '{"k": "v"}', 'a@b', '[1,2,3]', g FROM generate_series(1, 10) g;
CREATE INDEX orders_customer ON orders (customer, at);
CREATE INDEX orders_open ON orders (total) WHERE status = 'open';
CREATE INDEX orders_k ON orders ((doc ->> 'k'));
CREATE INDEX orders_at ON orders (at);
CREATE INDEX orders_email ON orders (email);
CREATE TYPE shade AS ENUM ('dark', 'light');
CREATE TABLE article (
    id int PRIMARY KEY, owner int, shade shade, state text CHECK (state IN ('draft', 'shown')), hidden bool,
    deleted_at timestamptz, name text, made timestamptz
);
CREATE INDEX article_owner ON article (owner);
CREATE INDEX article_made ON article (made);
CREATE TABLE measure (day date, sensor int, value int) PARTITION BY RANGE (day);
CREATE TABLE measure_1 PARTITION OF measure FOR VALUES FROM ('2025-01-01') TO ('2025-02-01');
CREATE TABLE measure_2 PARTITION OF measure FOR VALUES FROM ('2025-02-01') TO ('2025-03-01');
CREATE TABLE pair (a int, b int);
CREATE INDEX pair_ab ON pair (a, b);
INSERT INTO pair SELECT g, g FROM generate_series(1, 2000) g;
ANALYZE;
"""
Q = "'[1,2,3]'"

CASES = [
    ("SELECT * FROM orders WHERE customer = 5", []),
    ("SELECT * FROM orders WHERE customer = 5 AND at > now() ORDER BY at LIMIT 3", []),
    ("SELECT * FROM orders WHERE total = 5 AND status = 'open'", []),  # the partial index, by its literal
    ("SELECT * FROM orders WHERE total = 5 AND status = 'closed'", ["seq-scan"]),
    ("SELECT * FROM orders WHERE doc ->> 'k' = 'v'", []),
    ("SELECT * FROM orders WHERE doc -> 'k' = '1'", ["seq-scan"]),
    ("SELECT * FROM orders WHERE status = 'open'", []),  # the partial index holds them all
    ("SELECT * FROM orders WHERE email = 'x'", []),
    ("SELECT * FROM orders WHERE lower(email) = 'x'", ["seq-scan"]),
    ("SELECT * FROM orders WHERE date(at) = '2025-01-01'", ["unusable-predicate"]),
    ("SELECT * FROM orders WHERE customer = 5::numeric", ["unusable-predicate"]),
    ("SELECT * FROM orders WHERE total = 5 ORDER BY at LIMIT 1", ["whole-index-walk"]),
    ("SELECT * FROM orders", []),
    ("SELECT count(*) FROM orders", []),
    ("SELECT * FROM orders WHERE total <> 5", []),
    ("SELECT * FROM orders WHERE id > 5", []),
    ("UPDATE orders SET status = 'x' WHERE total = 7 AND status = 'closed'", ["seq-scan"]),
    (f"SELECT id FROM orders ORDER BY e <=> {Q} LIMIT 3", ["missing-vector-index"]),
    (f"SELECT id FROM orders ORDER BY 1 - (e <=> {Q}) DESC LIMIT 3", ["vector-unusable-form"]),
    ("SELECT * FROM orders WHERE total = 5 OR customer = 7", ["seq-scan"]),
    ("SELECT * FROM orders WHERE id = 5 OR customer = 7", []),
    ("SELECT * FROM pair WHERE b = 5", ["whole-index-walk"]),  # a trailing column, of an index with many first ones
    ("SELECT * FROM pair WHERE a = 5 AND b = 5", []),
    ("SELECT * FROM measure WHERE sensor = 5", ["seq-scan"]),  # once, whatever partitions there are
    ("SELECT * FROM measure WHERE day = '2025-01-05'", ["seq-scan"]),
]
# Where a gate by the letter of the plan would accuse what is right.
INNOCENT = [
    "SELECT * FROM article WHERE shade = 'dark'",  # of few values: half of the table
    "SELECT * FROM article WHERE state = 'shown'",
    "SELECT * FROM article WHERE hidden = false",
    "SELECT * FROM article WHERE deleted_at IS NULL",
    "SELECT * FROM article WHERE deleted_at IS NULL ORDER BY made DESC LIMIT 20",
    "SELECT * FROM article WHERE state = 'shown' ORDER BY made DESC LIMIT 20",
    "SELECT * FROM article WHERE NOT hidden ORDER BY id LIMIT 20 OFFSET 40",
    "SELECT * FROM article WHERE owner = 5 AND name = 'x'",  # the index finds the owner's, the rest is a few
    "SELECT * FROM article WHERE owner = 5 AND date(made) = '2025-01-01'",
    "SELECT * FROM article WHERE owner = 5 AND name ILIKE '%x%'",
    "SELECT * FROM article WHERE made > '2025-01-01' ORDER BY made LIMIT 20",
    "SELECT state, count(*) FROM article GROUP BY state",
    "SELECT a.id FROM article a JOIN orders o ON o.customer = a.owner",
    "SELECT relname FROM pg_catalog.pg_class WHERE relkind = 'r' AND relname NOT LIKE 'x%'",
    "SELECT column_name FROM information_schema.columns WHERE table_name = 'article'",
    f"SELECT id FROM orders WHERE customer = 5 ORDER BY e <=> {Q} LIMIT 3",  # the exact answer, of few rows
]


@pytest.fixture(scope="module")
def engine(module_postgresql_url, postgresql_server):
    postgresql_server.psql(TABLES, module_postgresql_url().database)
    engine = sa.create_engine(module_postgresql_url())
    yield engine
    engine.dispose()


def asked(engine, *statements):
    answers = gate(engine, [Question("f", "e", Sample(statement)) for statement in statements], Settings())
    assert () == faults.told()
    return answers


@pytest.mark.parametrize(("statement", "expected"), CASES, ids=[case[0] for case in CASES])
def test_the_gate_tells_what_no_index_serves(engine, statement, expected):
    (answer,) = asked(engine, statement)

    assert (None, expected) == (answer.refused, [finding.rule for finding in answer.findings])


@pytest.mark.parametrize("statement", INNOCENT)
def test_the_gate_accuses_nobody_falsely(engine, statement):
    (answer,) = asked(engine, statement)

    assert (None, []) == (answer.refused, [finding.title for finding in answer.findings])


# On next to no rows, which autovacuum has counted, every index costs the same.
FEW = {
    "none": "INSERT INTO few SELECT g, g, 't', 't' FROM generate_series(1, 60) g; DELETE FROM few",
    "one": "INSERT INTO few VALUES (1, 1, 't', 't')",
    "one left": "INSERT INTO few SELECT g, g, 't', 't' FROM generate_series(1, 60) g; DELETE FROM few WHERE id > 1",
    "forty": "INSERT INTO few SELECT g, g, 't', 't', now() FROM generate_series(1, 40) g",
}
SERVED = [
    "SELECT * FROM few WHERE owner = 2",
    "SELECT * FROM few WHERE owner = 2 ORDER BY id",
    "SELECT * FROM few WHERE owner = 2 ORDER BY id LIMIT 10",
    "SELECT * FROM few WHERE owner IN (1, 2, 3) ORDER BY id",
    "SELECT max(id) FROM few WHERE owner = 2",
    "SELECT DISTINCT ON (id) * FROM few WHERE owner = 2 ORDER BY id",
    "SELECT id, count(*) FROM few WHERE owner = 2 GROUP BY id",
    "SELECT EXISTS (SELECT FROM few WHERE owner = 2)",
    "SELECT * FROM few f JOIN other o ON o.few = f.id WHERE f.owner = 2",
    "SELECT * FROM few f JOIN other o ON o.few = f.id WHERE f.owner = 2 ORDER BY o.id",
    "SELECT * FROM few WHERE owner = 2 AND gone IS NULL",
    "SELECT * FROM few WHERE lower(code) = 'x' ORDER BY id LIMIT 5",
]
UNSERVED = [
    "SELECT * FROM few WHERE title = 'x' ORDER BY id LIMIT 10",
    "SELECT * FROM few WHERE code = 'x' ORDER BY id LIMIT 10",  # an index has lower(code)
]


@pytest.mark.parametrize("rows", FEW)
def test_on_next_to_no_rows_an_index_that_is_there_counts(postgresql_url, postgresql_server, make_engine, rows):
    url = postgresql_url()
    postgresql_server.psql(
        "CREATE TABLE few (id int PRIMARY KEY, owner int, title text, code text, gone timestamptz);"
        "CREATE INDEX few_owner ON few (owner); CREATE INDEX few_code ON few (lower(code));"
        "CREATE INDEX few_live ON few (title) WHERE gone IS NULL AND owner IS NOT NULL;"
        "CREATE TABLE other (id int PRIMARY KEY, few int); CREATE INDEX other_few ON other (few);"
        f"INSERT INTO other VALUES (1, 1); {FEW[rows]}; ANALYZE",
        url.database,
    )
    served = asked(make_engine(url), *SERVED)
    unserved = asked(make_engine(url), *UNSERVED)

    assert [] == [finding.title for answer in served for finding in answer.findings]
    assert [1] * len(UNSERVED) == [len(answer.findings) for answer in unserved]


def test_findings_of_the_gate_name_no_number_that_is_in_no_database(engine):
    told = [finding for answer in asked(engine, *(case[0] for case in CASES)) for finding in answer.findings]

    assert 12 < len(told)
    assert [] == [finding for finding in told if "000" in finding.title + str(finding.evidence)]
    assert {"warning"} == {finding.severity for finding in told}
    assert "no index of orders answers ((orders.total = ?) AND (orders.status = ?::text)): all of it is read" in {
        finding.title for finding in told
    }


def test_what_lives_in_an_open_transaction_is_not_passed_over(engine):
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE unborn (id int)")
        hidden, seen = asked(engine, "SELECT * FROM unborn WHERE id = 5", "SELECT * FROM orders WHERE id = 5")
        connection.rollback()

    assert ("not visible", True) == (hidden.refused.reason, seen.plan is not None)


def test_the_setting_is_gone_afterwards(engine):
    asked(engine, "SELECT 1")
    with engine.connect() as connection:
        assert "on" == connection.exec_driver_sql("SHOW enable_seqscan").scalar()
