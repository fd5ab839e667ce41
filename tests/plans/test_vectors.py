"""What pgvector's own limits say of a column."""

from __future__ import annotations

import pytest

from sqlprobe.plans.catalog import Column
from sqlprobe.plans.vectors import is_too_long


@pytest.mark.parametrize(
    ("type_", "base", "expected"),
    [
        ("vector(2000)", "vector", False),
        ("vector(3072)", "vector", True),
        ("shop.halfvec(3072)", "shop.halfvec", False),
        ("halfvec(4001)", "halfvec", True),
        ("bit(64000)", "bit", False),
        ("vector", "vector", False),
    ],
)
def test_a_column_that_no_index_holds(type_, base, expected):
    assert expected == is_too_long(Column("e", type_, base, not_null=False, storage="x"))
