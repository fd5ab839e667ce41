"""
Memory: what 1,000,000 statements leave behind that 10,000 did not: `python bench/memory.py`.

Counted with tracemalloc, after a collection, with a probe attached and scopes of 1,000 statements.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tracemalloc

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

import sqlprobe

SHAPES = 50


def run(engine: sa.Engine, statements: list[sa.TextClause], count: int) -> None:
    with engine.connect() as connection:
        for start in range(0, count, 1000):
            with sqlprobe.scope("bench"):
                for number in range(start, start + 1000):
                    connection.execute(statements[number % len(statements)]).close()


def held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--statements", type=int, default=1_000_000)
    parser.add_argument("--literals", action="store_true", help="a new text each time: literals in it, 50 shapes")
    options = parser.parse_args()
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
