"""
The hot functions one by one, for pytest-benchmark: `make bench`. `calibration` is a loop to read the others against.
"""

from __future__ import annotations

import sys
from time import perf_counter_ns
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

import sqlprobe
from sqlprobe import scopes, sites
from sqlprobe.fingerprint import shape_of
from sqlprobe.scopes import Digest
from sqlprobe.stats import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

SELECT = (
    "SELECT orders.id, orders.customer_id, orders.status, orders.created_at, orders.total, customers.name, "
    "customers.email FROM orders JOIN customers ON customers.id = orders.customer_id WHERE orders.status IN "
    "($1::VARCHAR, $2::VARCHAR) AND orders.created_at > $3::TIMESTAMP ORDER BY orders.created_at DESC LIMIT 50"
)


def record() -> tuple[object, ...]:
    tally = Tally(shape_of(SELECT), "sqlite:///")
    return (tally, perf_counter_ns(), 1_000_000, 1, None, None, None)


def test_calibration(benchmark: Callable[..., object]) -> None:
    def loop() -> int:
        total = 0
        for number in range(1000):
            total += number
        return total

    benchmark(loop)


def test_shape_of_300_characters(benchmark: Callable[..., object]) -> None:
    benchmark(shape_of, SELECT)


def test_shape_of_in_list_of_64_kib(benchmark: Callable[..., object]) -> None:
    ids = ", ".join(map(str, range(10_000)))
    benchmark(shape_of, f"SELECT * FROM t WHERE id IN ({ids})")  # noqa: S608 - never sent


def test_place_of(benchmark: Callable[..., object]) -> None:
    benchmark(lambda: sites.place_of(sys._getframe()))  # noqa: SLF001


def test_tally_add(benchmark: Callable[..., object]) -> None:
    tally = Tally(shape_of(SELECT), "sqlite:///")
    benchmark(tally.add, 1_000_000, 5, 1)


def test_digest_of_1000_statements(benchmark: Callable[..., object]) -> None:
    records = [record() for _ in range(1000)]

    def digest() -> None:
        whole = Digest("bench", scopes.NO_LIMIT)
        for item in records:
            whole.add(item)

    benchmark(digest)


def test_scope_opened_and_closed(benchmark: Callable[..., object]) -> None:
    engine = sa.create_engine("sqlite://")

    def empty() -> None:
        with sqlprobe.scope("bench"):
            pass

    with sqlprobe.attach(engine):
        benchmark(empty)


@pytest.mark.parametrize("shapes", [50, 500])
def test_report(benchmark: Callable[..., object], shapes: int) -> None:
    engine = sa.create_engine("sqlite://")
    with sqlprobe.attach(engine) as probe, engine.connect() as connection:
        for number in range(shapes):
            connection.exec_driver_sql(f"SELECT 1 AS c{number}")
        benchmark(probe.report)
