"""The oldest PostgreSQL that Debian has beside the embedded one: the same questions, answers and rules."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from sqlprobe.plans.examine import Examiner, Question
from sqlprobe.plans.explain import Refused
from sqlprobe.plans.sampling import Sample
from sqlprobe.settings import Settings

pytestmark = [pytest.mark.exhaustive, pytest.mark.requires_debian("postgresql", "initdb", "pg_ctl")]

ROWS = """
CREATE TABLE t (id int PRIMARY KEY, x int, tenant int, at timestamptz, email text, doc jsonb, pad text);
INSERT INTO t SELECT g, g % 5000, g % 200, timestamptz '2025-01-01' + g * interval '1 minute', 'user' || g,
    jsonb_build_object('k', 'v' || g % 500), repeat('n', 60) FROM generate_series(1, 30000) g;
CREATE INDEX t_email_x ON t (email, x);
ANALYZE t;
"""


@pytest.fixture(scope="module")
def engine(serve_from):
    """A server of Debian's."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    with serve_from(programs[-1].parent) as (url, _):
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.connection.driver_connection.execute(ROWS)
        yield engine
        engine.dispose()


CASES = [
    ("SELECT * FROM t WHERE x = 5::numeric", ["unusable-predicate"]),
    ("SELECT * FROM t WHERE date(at) = '2025-01-05'", ["unusable-predicate"]),
    ("SELECT * FROM t WHERE email LIKE '%5'", ["unusable-predicate"]),
    ("SELECT * FROM t WHERE doc ->> 'k' = 'v1'", ["seq-scan"]),
    ("SELECT * FROM t ORDER BY pad LIMIT 10 OFFSET 20000", ["deep-offset"]),
    ("SELECT * FROM t WHERE id = 5", []),
    ("SELECT count(*) FROM t", []),
]


@pytest.mark.parametrize(("statement", "expected"), CASES, ids=[case[0] for case in CASES])
def test_rules_say_the_same_on_debians_server(engine, statement, expected):
    for analyze in (False, True):
        (answer,) = Examiner(Settings()).examine(engine, [Question("f", "e", Sample(statement))], analyze=analyze)

        assert (None, expected) == (answer.refused, [finding.rule for finding in answer.findings])


def test_an_index_whose_first_column_is_not_asked_for_is_walked_before_18(engine):
    sample = Sample("SELECT * FROM t WHERE x = 4999")
    (answer,) = Examiner(Settings()).examine(engine, [Question("f", "e", sample)], settings=[("enable_seqscan", "off")])

    assert ["whole-index-walk"] == [finding.rule for finding in answer.findings]


def test_statements_without_values_want_16(engine):
    (answer,) = Examiner(Settings()).examine(engine, [Question("f", "e", Sample("SELECT $1::int", generic=True))])

    assert isinstance(answer.refused, Refused)
    assert "PostgreSQL 16 is needed" in str(answer.refused)
