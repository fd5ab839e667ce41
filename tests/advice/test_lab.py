"""The lab plans as the server does, to the cost of a lookup."""

from __future__ import annotations

import pytest

from sqlprobe.advice import prove, repeats, snapshot
from sqlprobe.advice.lab import open_lab
from sqlprobe.advice.stored import tree_height
from sqlprobe.plans import explain
from sqlprobe.plans.sampling import Sample


def test_indexes_are_as_high_as_on_the_server(world):
    case = world.case("SELECT * FROM child c JOIN t ON t.id = c.t_id WHERE c.id < 50")
    (trial,) = world.lab.try_out(prove.sample_in(world.lab, case), [[]], prove.settings_in(world.lab, case))

    assert (case.plan.shape, case.plan.root.total_cost) == (trial.plan.shape, trial.cost)


@pytest.mark.parametrize(
    ("pages", "rows", "height"), [(1, 0, 0), (2, 300, 0), (3, 600, 1), (139, 50_000, 1), (550, 200_000, 2)]
)
def test_a_tree_is_as_high_as_its_pages_want(pages, rows, height):
    assert height == tree_height(pages, rows)


SUPPLIERS = """
CREATE TABLE nation (id int PRIMARY KEY, name text);
INSERT INTO nation SELECT g, 'n' || g FROM generate_series(1, 25) g;
CREATE TABLE supplier (id int PRIMARY KEY, nation int);
INSERT INTO supplier SELECT g, 1 + g % 25 FROM generate_series(1, 300) g;
CREATE TABLE item (id int, supplier int, pad text);
INSERT INTO item SELECT g, 1 + g * 7919 % 300, repeat('x', 80) FROM generate_series(1, 30000) g;
CREATE INDEX ON item (supplier);
VACUUM ANALYZE;
"""


@pytest.mark.parametrize(
    ("statement", "is_forgotten"),
    [
        pytest.param(
            "SELECT * FROM nation n JOIN supplier s ON s.nation = n.id JOIN item i ON i.supplier = s.id WHERE n.name = 'n5'",
            True,
            id="twelve searches, priced as of 300",
        ),
        pytest.param(
            "SELECT * FROM supplier s JOIN item i ON i.supplier = s.id WHERE s.nation = 5", False, id="priced as twelve"
        ),
        pytest.param("SELECT * FROM item WHERE supplier = 5", False, id="one search"),
    ],
)
def test_what_the_planner_forgets_of_an_index_that_is_searched_again(
    postgresql_url, postgresql_server, make_engine, statement, is_forgotten
):
    """Should PostgreSQL mend its get_loop_count() one day, this fails, and `repeats` can go."""
    engine = make_engine(postgresql_url())
    postgresql_server.psql(SUPPLIERS, postgresql_url().database)
    only = tuple(
        (f"SET LOCAL enable_{kind} = off", None) for kind in ("hashjoin", "mergejoin", "bitmapscan", "seqscan")
    )
    plan = explain.on_connection(engine, lambda session: session.explain(Sample(statement, settings=only)).plan)
    pages = 30_000 / 70

    assert "item_supplier_idx" in {node.index for node in plan.nodes}
    assert is_forgotten == (repeats.forgotten(plan, lambda _: pages, lambda _: 1.0, 4.0) > 0)
    assert repeats.forgotten(plan, lambda _: pages, lambda _: 0.0, 4.0) == 0  # rows that lie in the index's order
    assert repeats.forgotten(plan, lambda _: 0.0, lambda _: 1.0, 4.0) == 0  # an index that is not tried


def test_a_guess_of_the_planner_withholds_only_what_is_near(world):
    assert ["ON public.t (x)"] == world.advice("SELECT * FROM t WHERE x = 5 AND id > tenant")


GROWN = """
CREATE TABLE log (id int PRIMARY KEY, at timestamptz NOT NULL, word text, kind char(3), secret int);
CREATE INDEX log_at ON log (at);
CREATE INDEX log_word ON log (word);
CREATE INDEX log_secret ON log (secret);
CREATE INDEX log_kind ON log (kind DESC);
INSERT INTO log SELECT g, timestamptz '2025-01-01' + g * interval '1 minute', 'a "b" \\\\' || g, chr(97 + g % 20), g
FROM generate_series(1, 20000) g;
VACUUM ANALYZE log;
SELECT count(*) FROM log WHERE at > now();
SELECT * FROM log WHERE word = 'a'; SELECT * FROM log WHERE kind = 'a';
INSERT INTO log SELECT g, timestamptz '2025-01-01' + g * interval '1 minute', 'z, {' || g, 'zzz', g
FROM generate_series(20001, 26000) g;
"""


def test_ranges_beyond_the_histogram_are_planned_as_on_the_server(postgresql_url, postgresql_server, make_engine):
    """It looks the end up in an index, where the lab has no rows."""
    postgresql_server.psql(f"SET enable_seqscan = off; SET enable_bitmapscan = off; {GROWN}", postgresql_url().database)
    unused = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'log_secret'"
    engine = make_engine(postgresql_url())
    taken = explain.on_connection(engine, snapshot.read, explain.Limits(statement_seconds=10))
    bounds = {each.column: str(each.histogram_bounds) for each in taken.statistics if each.relation == "log"}
    with open_lab(taken) as lab:
        for condition in (
            "at > '2025-01-17'", "at > '2025-01-15' AND at < '2025-01-16'", "id > 25000", "kind > 'zz'",
        ):  # fmt: skip
            sample = Sample(f"SELECT * FROM log WHERE {condition}")
            there = explain.on_connection(engine, lambda session, sample=sample: session.explain(sample).plan)
            (trial,) = lab.try_out(sample, [[]])
            assert (condition, there.shape, there.root.rows) == (condition, trial.plan.shape, trial.plan.root.rows)
            assert abs(there.root.total_cost - trial.cost) < 0.02 * there.root.total_cost

    assert bounds["id"].endswith(',"26000"}')
    assert bounds["word"].endswith(',"z, {26000"}')
    assert bounds["word"].startswith('{"a \\"b\\" \\\\')
    assert bounds["secret"].endswith(",20000}")
    # To read an index that nobody reads would make it one that somebody does.
    assert "0" == postgresql_server.psql(unused, postgresql_url().database).strip()
