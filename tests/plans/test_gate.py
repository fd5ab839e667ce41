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
ANALYZE orders;
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
