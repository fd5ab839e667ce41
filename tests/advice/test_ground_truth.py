"""sqlprobe's advice, built for real and run: each situation of `ground_truth` on tables of 200,000 rows and more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ground_truth
import pytest
import sqlalchemy as sa

from sqlprobe.advice import snapshot
from sqlprobe.advice.lab import open_lab
from sqlprobe.plans import explain

if TYPE_CHECKING:
    from collections.abc import Iterator

# What is known not to hold, see docs/index-accuracy.md: an index would help, and is not found.
MISSING: set[str] = {
    "SELECT * FROM t WHERE low = %(l)s",
    "SELECT * FROM t WHERE low IN (%(a)s, %(b)s)",
    "SELECT * FROM t WHERE x > %(x)s",
    "SELECT * FROM small WHERE name = %(n)s::VARCHAR",
}
# The advice does not say what is wrong with the index that is there.
UNSAID: set[str] = set()


def _ground(url, server, rows) -> Iterator[ground_truth.Ground]:
    server.psql("CREATE ROLE truth_app")
    ground_truth.fill(lambda script: server.psql(script, url.database), rows)
    engine = sa.create_engine(url)
    taken = explain.on_connection(engine, snapshot.read, explain.Limits(statement_seconds=10))
    try:
        with open_lab(taken) as lab:
            yield ground_truth.Ground(engine, lab, taken)
    finally:
        engine.dispose()
        server.psql("DROP OWNED BY truth_app", url.database)
        server.psql("DROP ROLE truth_app")


@pytest.fixture(scope="module")
def ground(module_postgresql_url, postgresql_server, request) -> Iterator[ground_truth.Ground]:
    exhaustive = any(item.get_closest_marker("exhaustive") for item in request.session.items)
    yield from _ground(module_postgresql_url(), postgresql_server, ground_truth.ROWS if exhaustive else 15_000)


@pytest.mark.once
def test_a_slice_of_the_advice_is_useful_when_it_is_built(ground):
    verdicts = {each.name: ground.judge(each) for each in ground_truth.some(ground_truth.SLICE)}
    expected = ["useful"] * 7 + ["withheld"] * 2 + ["silent"]

    assert dict(zip(verdicts, expected, strict=True)) == {name: each.outcome for name, each in verdicts.items()}


@pytest.mark.once
@pytest.mark.exhaustive
@pytest.mark.parametrize("situation", ground_truth.SITUATIONS, ids=lambda each: each.name[:100])
def test_advice_is_useful_or_rightly_withheld(ground, situation):
    verdict = ground.judge(situation)
    wanted = {"useful", "withheld", "silent", *(["missing"] if situation.name in MISSING else [])}

    assert verdict.outcome in wanted, verdict
    if situation.says and situation.name not in UNSAID:
        assert any(situation.says in each for each in verdict.existing), verdict.existing
