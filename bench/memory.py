"""
Memory: what 1,000,000 statements leave behind that 10,000 did not: `python bench/memory.py`.

Counted with tracemalloc, after a collection, with a probe attached and scopes of 1,000 statements.

`--shapes 100000 --statements 10000000` is a long life instead: that many different statements in turn, each with new
literals, in a process with a probe and in one without; what is told is the difference of their peak resident memory.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import subprocess
import sys
import tracemalloc

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

import sqlprobe

SHAPES = 50
LIMIT_MB = 64
WAY = "BENCH_MEMORY_WAY"


def run(engine: sa.Engine, statements: list[sa.TextClause], count: int) -> None:
    with engine.connect() as connection:
        for start in range(0, count, 1000):
            with sqlprobe.scope("bench"):
                for number in range(start, start + 1000):
                    connection.execute(statements[number % len(statements)]).close()


def held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def live(shapes: int, count: int, *, probed: bool) -> None:
    """Run *count* statements of *shapes* shapes; prints peak memory in kB, and the statements counted."""
    engine = sa.create_engine("sqlite://", poolclass=StaticPool)
    probe = sqlprobe.attach(engine) if probed else None
    with engine.connect() as connection:
        for start in range(0, count, 1000):
            with sqlprobe.scope(f"GET /{start // 1000 % 500}", kind="request"):
                for number in range(start, min(start + 1000, count)):
                    connection.exec_driver_sql(f"SELECT {number} AS column_{number % shapes}").close()
    counted = count if probe is None else sum(each.calls for each in probe.report().statements)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, counted)


def compare(shapes: int, count: int) -> int:
    """Print what a probe adds to the peak memory of a long life; 1 where it is over the limit, or a call is lost."""
    peaks = []
    for way in ("without", "probed"):
        command = [sys.executable, __file__, "--statements", str(count), "--shapes", str(shapes)]
        done = subprocess.run(command, env={**os.environ, WAY: way}, check=True, capture_output=True, text=True)
        peak, counted = map(int, done.stdout.split())
        peaks.append(peak)
    added = (peaks[1] - peaks[0]) * 1024 / 1e6
    peak = peaks[1] * 1024 / 1e6
    print(f"{counted:,} statements of {shapes:,} shapes: peak {peak:.0f} MB, {added:+.1f} MB by the probe")
    return int(added > LIMIT_MB or counted != count)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--statements", type=int, default=1_000_000)
    parser.add_argument("--literals", action="store_true", help="a new text each time: literals in it, 50 shapes")
    parser.add_argument("--shapes", type=int, help="a long life: so many different statements")
    options = parser.parse_args()
    if options.shapes and WAY in os.environ:
        live(options.shapes, options.statements, probed=os.environ[WAY] == "probed")
        return 0
    if options.shapes:
        return compare(options.shapes, options.statements)
    engine = sa.create_engine("sqlite://", poolclass=StaticPool)
    probe = sqlprobe.attach(engine)
    statements = [sa.text(f"SELECT {', '.join(f'{n} AS c{n}' for n in range(k + 1))}") for k in range(SHAPES)]
    tracemalloc.start()
    if options.literals:
        with engine.connect() as connection:
            for number in range(10_000):
                connection.exec_driver_sql(f"SELECT {number} AS c{number % SHAPES}").close()
            first = held()
            for number in range(10_000, options.statements):
                connection.exec_driver_sql(f"SELECT {number} AS c{number % SHAPES}").close()
    else:
        run(engine, statements, 10_000)
        first = held()
        run(engine, statements, options.statements - 10_000)
    last = held()
    total = sum(statement.calls for statement in probe.report().statements)
    print(
        f"{total:,} statements: {first / 1e6:.2f} MB after 10,000, {last / 1e6:.2f} MB at the end: "
        f"{(last - first) / 1e6:+.2f} MB"
    )
    probe.detach()
    return 0


if __name__ == "__main__":
    sys.exit(main())
