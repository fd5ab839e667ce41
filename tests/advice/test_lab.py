"""The lab plans as the server does, to the cost of a lookup."""

from __future__ import annotations

import pytest

from sqlprobe.advice import prove, repeats
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
