"""
The lab beside the real server: how often both plan alike, and what a lab costs.

    python bench/lab.py [--rows 30000] [--subsets 12]

Statements are those of tests/advice/ground_truth.py. For each of them, random subsets of the indexes that sqlprobe
would try are created on the filled server, then in the lab that holds no row, and the plans are compared. For the cost:
how long a lab of 100 tables takes to be ready, a candidate takes to be tried, and 200 statements to be advised. Times
are of the clock and of the processors (this process, and the server's that it starts): where other work is going on,
only the latter says something.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "advice"))

import ground_truth
import judging

from sqlprobe.advice import prove, sampling, snapshot
from sqlprobe.advice import server as servers
from sqlprobe.advice.lab import open_lab
from sqlprobe.plans import explain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlprobe.advice.lab import Lab
    from sqlprobe.advice.server import Server

LIMITS = explain.Limits(statement_seconds=30)
SLOW = ("hnsw", "ivfflat")  # to build: those are compared in tests/advice


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).strip().splitlines()[0])
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--subsets", type=int, default=12)
    options = parser.parse_args()
    with servers.serve(settings={"shared_buffers": "256MB"}) as server:
        server.psql("CREATE ROLE truth_app; CREATE DATABASE truth; CREATE DATABASE tables")
        _ready(server)
        ground_truth.fill(lambda script: server.psql(script, "truth"), options.rows)
        engine = sa.create_engine(server.url_for("psycopg", "truth"))
        taken = explain.on_connection(engine, snapshot.read, LIMITS)
        with open_lab(taken) as lab:
            ground = judging.Ground(engine, lab, taken)
            cases = [ground.case(each) for each in ground_truth.SITUATIONS]
            _tried(lab, cases)
            if options.subsets:
                _agreement(server, engine, lab, cases, options.subsets)
        _advised(engine, ground, 200)
        engine.dispose()
    return 0


@contextlib.contextmanager
def _timed(what: str) -> Iterator[None]:
    before, began = os.times(), time.perf_counter()
    yield
    after = os.times()
    mine = after.user + after.system - before.user - before.system
    theirs = after.children_user + after.children_system - before.children_user - before.children_system
    print(f"{what}: {time.perf_counter() - began:.2f} s; processor {mine:.2f} s here, {theirs:.2f} s in ended servers")


def _ready(server: Server) -> None:
    """A lab of 100 tables with 300 indexes; the first one makes the template that later ones copy."""
    server.psql(
        "".join(
            f"CREATE TABLE shop_{n} (id int PRIMARY KEY, tenant int, a text, b timestamptz, c jsonb, d int, "  # noqa: S608
            f"other int {f'REFERENCES shop_{n - 1}' if n else ''});"
            f"CREATE INDEX ON shop_{n} (tenant, b); CREATE INDEX ON shop_{n} (d);"
            f"INSERT INTO shop_{n} SELECT g, g % 10, 'x' || g, now() + g * interval '1 s', '{{}}', g % 7 "
            "FROM generate_series(1, 500) g;"
            for n in range(100)
        )
        + "ANALYZE;",
        "tables",
    )
    engine = sa.create_engine(server.url_for("psycopg", "tables"))
    with _timed("snapshot of 100 tables"):
        taken = explain.on_connection(engine, snapshot.read, LIMITS)
    engine.dispose()
    for number in range(3):
        with contextlib.ExitStack() as stack:
            before, began = os.times(), time.perf_counter()
            stack.enter_context(open_lab(taken))
            ready = time.perf_counter() - began
            after = os.times()
            mine = after.user + after.system - before.user - before.system
            print(f"lab {number + 1} ready: {ready:.2f} s; processor {mine:.2f} s here")


def _tried(lab: Lab, cases: list[prove.Case]) -> None:
    """Milliseconds for each candidate: created and sized, all together as `prove()` does; then planned with, each."""
    asked = [case for case in cases if case.candidates]
    new = list({one.target: one for case in asked for one in case.candidates}.values())
    began = time.perf_counter()
    lab.add(new)
    print(f"{len(new)} candidates made and sized: {(time.perf_counter() - began) * 1e3 / len(new):.1f} ms each")
    each: list[float] = []

    def work(session: explain.Session) -> None:
        for case in asked:
            sets = [(), *[(one,) for one in case.candidates if lab.is_possible(one)]]
            began = time.perf_counter()
            lab.try_in(session, prove.sample_in(lab, case), sets, prove.settings_in(lab, case))
            each.append((time.perf_counter() - began) * 1e3 / len(sets))

    lab.on_connection(work)
    print(f"{len(each)} statements planned with each of theirs: {statistics.median(each):.1f} ms a plan in the median")


def _agreement(server: Server, engine: sa.Engine, lab: Lab, cases: list[prove.Case], subsets: int) -> None:
    chance = random.Random(11)
    compared = same = same_indexes = 0
    costs, different = [], []
    indexed: dict[str, list[Any]] = {}
    for case in cases:
        for one in case.candidates:
            if one.method not in SLOW and lab.is_possible(one):
                indexed.setdefault(one.table, []).append(one)
    sampled = explain.on_connection(
        engine,
        lambda session: sampling.of_expressions(
            session, lab.snapshot, [c for each in cases for c in each.candidates], 60
        ),
        LIMITS,
    )
    with open_lab(lab.snapshot) as fresh:
        fresh.add([one for each in indexed.values() for one in each], sampled)
        for number in range(subsets):
            chosen = {
                table: chance.sample(each, min(len(each), chance.randrange(1, 5))) for table, each in indexed.items()
            }
            built = [one for each in chosen.values() for one in each]
            names = {f"bench_{at}": one for at, one in enumerate(built)}
            server.psql(
                "".join(f"{one.ddl(name, concurrently=False)};" for name, one in names.items()) + "ANALYZE;", "truth"
            )
            for case in cases:
                try:
                    real = explain.on_connection(
                        engine, lambda session, mine=case: session.explain(mine.sample).plan, LIMITS
                    )
                except explain.Refused:
                    continue
                table = {node.relation for node in case.plan.nodes if node.relation}
                mine = [one for one in built if one.table in table]
                (trial,) = fresh.try_out(prove.sample_in(fresh, case), [mine], prove.settings_in(fresh, case))
                if trial.plan is None:
                    continue
                compared += 1
                theirs = {names[node.index].target for node in real.nodes if node.index in names}
                ours = {one.target for one in mine if fresh.name_of(one) in trial.used}
                same_indexes += theirs == ours
                kinds = [node.kind for node in real.nodes] == [node.kind for node in trial.plan.nodes]
                same += theirs == ours and kinds
                costs.append(trial.cost / max(real.root.total_cost, 0.01))
                if theirs != ours or not kinds:
                    different.append((case.fingerprint[:90], real.root.total_cost, trial.cost, theirs ^ ours))
            server.psql("".join(f"DROP INDEX {name};" for name in names) + "ANALYZE;", "truth")
            print(f"subset {number + 1}: {same} of {compared} plans the same so far", flush=True)
    ordered = sorted(costs)
    print(
        f"{compared} plans with {subsets} random subsets of {sum(map(len, indexed.values()))} indexes: "
        f"{same / compared:.1%} the same plan, {same_indexes / compared:.1%} the same indexes used; cost in the lab "
        f"{ordered[len(ordered) // 100]:.2f} to {ordered[-1 - len(ordered) // 100]:.2f} times the server's (1 to 99 %)"
    )
    for text, real_cost, lab_cost, indexes in different[:40]:
        print(
            f"  {text}: cost {real_cost:,.1f}, in the lab {lab_cost:,.1f}; "
            f"{', '.join(sorted(indexes)) or 'another node'}"
        )


def _advised(engine: sa.Engine, ground: judging.Ground, number: int) -> None:
    cases = [ground.case(each) for each in ground_truth.mixed(number)]
    with _timed(f"advice for {number} statements, from snapshot to findings"):
        found = prove.advise(engine, cases)
    print(f"  {len(found)} indexes")


if __name__ == "__main__":
    sys.exit(main())
