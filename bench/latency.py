"""
How long does a caller wait under load? `python bench/latency.py` times each statement of 64 threads and of 500 tasks.

Threads have a connection each (psycopg), tasks share a pool of 20 (asyncpg), on an embedded PostgreSQL; ten statements
are a scope. Rounds with empty cursor-event listeners, with a probe and without anything take turns; p50 and p99 are of
all rounds of a subject, and each ratio is to the rounds without anything. `null` is a second series of these: how far
it is from 1 is the noise.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import threading
import time
from typing import TYPE_CHECKING

import sqlalchemy as sa
from overhead import PROBE, empty_listeners, nothing, probed
from sqlalchemy.ext.asyncio import create_async_engine

import sqlprobe
from sqlprobe.demo.server import serve

if TYPE_CHECKING:
    from collections.abc import Callable

THREADS, TASKS = 64, 500
SCOPE = 10  # statements
SELECT = sa.text("SELECT id, name FROM customer WHERE id = :i")
FILL = """
CREATE TABLE customer (id int PRIMARY KEY, name text);
INSERT INTO customer SELECT g, 'n' || g FROM generate_series(1, 1000) g;
"""
SUBJECTS = {
    "nothing": nothing,
    "null": nothing,
    "empty listeners": empty_listeners,
    "probe, in scopes": probed("first", scope=True),
}


def scope(subject: str) -> contextlib.AbstractContextManager[object]:
    return sqlprobe.scope("unit") if subject.startswith("probe") else contextlib.nullcontext()


def threads(engine: sa.Engine, subject: str, scopes: int) -> list[int]:
    """Nanoseconds of each statement of 64 threads."""
    taken: list[list[int]] = [[] for _ in range(THREADS)]
    ready = threading.Barrier(THREADS)

    def work(mine: list[int], first: int) -> None:
        with engine.connect() as connection:
            ready.wait()
            for number in range(scopes):
                with scope(subject):
                    for at in range(SCOPE):
                        began = time.perf_counter_ns()
                        connection.execute(SELECT, {"i": (first + number * SCOPE + at) % 1000 + 1}).all()
                        mine.append(time.perf_counter_ns() - began)

    running = [threading.Thread(target=work, args=(mine, n * 7)) for n, mine in enumerate(taken)]
    for each in running:
        each.start()
    for each in running:
        each.join()
    return [ns for mine in taken for ns in mine]


async def tasks(engine: sa.ext.asyncio.AsyncEngine, subject: str, scopes: int) -> list[int]:
    """Nanoseconds of each statement of 500 tasks, its wait for the loop included."""
    taken: list[int] = []

    async def work(first: int) -> None:
        for number in range(scopes):
            with scope(subject):
                async with engine.connect() as connection:
                    for at in range(SCOPE):
                        began = time.perf_counter_ns()
                        await connection.execute(SELECT, {"i": (first + number * SCOPE + at) % 1000 + 1})
                        taken.append(time.perf_counter_ns() - began)

    await asyncio.gather(*(work(n * 7) for n in range(TASKS)))
    return taken


def measure(name: str, engine: sa.Engine, run: Callable[[str], list[int]], rounds: int) -> None:
    found: dict[str, list[int]] = {subject: [] for subject in SUBJECTS}
    names = list(SUBJECTS)
    for number in range(rounds + 1):
        for subject in names[number % len(names) :] + names[: number % len(names)]:
            with SUBJECTS[subject](engine):
                taken = run(subject)
            if number:  # the first fills caches and pools
                found[subject] += taken
    base = found["nothing"]
    print(f"\n{name}: {len(base):,} statements a subject")
    for subject, taken in found.items():
        p50, p99 = (statistics.quantiles(taken, n=100)[at - 1] for at in (50, 99))
        of50, of99 = (statistics.quantiles(base, n=100)[at - 1] for at in (50, 99))
        print(f"  {subject:18} p50 {p50 / 1e6:8.3f} ms ({p50 / of50:.2f})   p99 {p99 / 1e6:8.3f} ms ({p99 / of99:.2f})")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12, help="of each subject (default: %(default)s)")
    options = parser.parse_args()
    with serve(settings={"max_connections": "120"}) as server:
        server.psql(FILL)
        url = server.url_for("psycopg")
        engine = sa.create_engine(url, pool_size=THREADS, max_overflow=0)
        measure("64 threads, psycopg", engine, lambda subject: threads(engine, subject, 10), options.rounds)
        engine.dispose()
        loop = asyncio.new_event_loop()
        shared = create_async_engine(server.url_for("asyncpg"), pool_size=20, max_overflow=0, pool_timeout=300)

        def run(subject: str) -> list[int]:
            return loop.run_until_complete(tasks(shared, subject, 2))

        measure("500 tasks, asyncpg, a pool of 20", shared.sync_engine, run, options.rounds)
        loop.run_until_complete(shared.dispose())
    PROBE.detach()
    return 0


if __name__ == "__main__":
    sys.exit(main())
