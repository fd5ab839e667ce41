"""
What do plans cost? The explainer's share of a processor and of the server at its default budget, and a kept sample.

Question: is the background worker below 0.5 % of one core, here and in the server, and a sample below 1 us?
Baseline: the wall clock. Prints one table; takes half a minute. `python bench/explain.py`
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from types import SimpleNamespace

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import ExecuteStyle

from sqlprobe.demo.server import serve
from sqlprobe.fingerprint import shape_of
from sqlprobe.plans.sampling import Sample, Sampler
from sqlprobe.plans.worker import Planner
from sqlprobe.settings import Settings
from sqlprobe.stats import Tally

TABLES = """
CREATE TABLE customer (id int PRIMARY KEY, name text);
CREATE TABLE orders (id int PRIMARY KEY, customer_id int, status text, at timestamptz, doc jsonb);
INSERT INTO customer SELECT g, 'n' || g FROM generate_series(1, 5000) g;
INSERT INTO orders SELECT g, g % 5000, 'open', now(), '{"k": 1}' FROM generate_series(1, 50000) g;
CREATE INDEX ON orders (customer_id);
ANALYZE;
"""
STATEMENTS = [
    "SELECT * FROM orders WHERE customer_id = 5",
    "SELECT o.*, c.name FROM orders o JOIN customer c ON c.id = o.customer_id WHERE o.status = 'x' ORDER BY o.at",
    "SELECT * FROM orders WHERE doc ->> 'k' = '2'",
    "SELECT count(*) FROM orders WHERE at > now() - interval '1 day'",
    "UPDATE orders SET status = 'y' WHERE id = 7",
]
ROUNDS = 15


def server_cpu(server):
    """Processor seconds that the server has taken, its ended sessions included."""
    main = int((server.data / "postmaster.pid").read_text().split()[0])
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == main:
            total += int(fields[11]) + int(fields[12])
        elif stat.parent.name == str(main):
            total += sum(map(int, fields[11:15]))
    return total / ticks


def main():
    with serve() as server:
        server.psql(TABLES)
        engine = sa.create_engine(server.url_for("psycopg"))
        settings = Settings(explain=True)
        planner = Planner(settings, tuple, lambda _: True)
        samples = {(f"{n}", "e"): (engine, (Sample(text),)) for n, text in enumerate(STATEMENTS)}
        planner._samples = lambda: samples  # noqa: SLF001 - instead of an application that runs them
        mine, theirs, wall = [], [], []
        for _ in range(ROUNDS):
            cpu, before, began = time.process_time(), server_cpu(server), time.perf_counter()
            planner.explain()
            mine.append((time.process_time() - cpu) / len(STATEMENTS))
            wall.append((time.perf_counter() - began) / len(STATEMENTS))
            theirs.append((server_cpu(server) - before) / len(STATEMENTS))
        engine.dispose()
    rate = settings.explain_per_minute / 60
    print(print(f"{ROUNDS} rounds of {len(STATEMENTS)} statements, PostgreSQL 18, a connection a round, Unix socket"))
    print("| | a question, ms (median, worst) | of one core at the default budget |")
    print("|---|---:|---:|")
    for name, taken in (("this process", mine), ("the server", theirs), ("wall clock", wall)):
        median = statistics.median(taken)
        print(f"| {name} | {median * 1e3:.1f}, {max(taken) * 1e3:.1f} | {median * rate:.3%} |")

    sampler, tally = Sampler(), Tally(shape_of("SELECT * FROM t WHERE a = ?"), "e")
    context = SimpleNamespace(
        dialect=SimpleNamespace(name="postgresql"),
        root_connection=SimpleNamespace(engine=sampler.take),  # anything that a weak reference takes
        execute_style=ExecuteStyle.EXECUTE,
        no_parameters=False,
    )
    sampler.holds_engines = True
    values = {"a": 5, "b": "text", "c": "x" * 200}
    taken = []
    for _ in range(ROUNDS):
        began = time.process_time_ns()
        for n in range(20_000):
            sampler.take(tally, "SELECT * FROM t WHERE a = %(a)s", values, context, n, n)
        taken.append((time.process_time_ns() - began) / 20_000 / 1e3)
    print(f"\na sample that is kept: {statistics.median(taken):.2f} us (median), {min(taken):.2f} us (best)")


if __name__ == "__main__":
    main()
