"""The lab plans as the server does, to the cost of a lookup."""

from __future__ import annotations

import pytest

from sqlprobe.advice import prove
from sqlprobe.advice.stored import tree_height


def test_indexes_are_as_high_as_on_the_server(world):
    case = world.case("SELECT * FROM child c JOIN t ON t.id = c.t_id WHERE c.id < 50")
    (trial,) = world.lab.try_out(prove.sample_in(world.lab, case), [[]], prove.settings_in(world.lab, case))

    assert (case.plan.shape, case.plan.root.total_cost) == (trial.plan.shape, trial.cost)


@pytest.mark.parametrize(
    ("pages", "rows", "height"), [(1, 0, 0), (2, 300, 0), (3, 600, 1), (139, 50_000, 1), (550, 200_000, 2)]
)
def test_a_tree_is_as_high_as_its_pages_want(pages, rows, height):
    assert height == tree_height(pages, rows)
