"""
What do plans cost? The explainer's share of a processor and of the server at its default budget, and a kept sample.

Question: is the background worker below 0.5 % of one core, here and in the server, and a sample below 1 us?
Baseline: the wall clock. `python bench/explain.py` takes half a minute, and ends with 1 where a limit is passed.

`--instructions` counts what the worker adds to a statement, and what a kept sample takes, by valgrind: the same on
every run, whatever else the machine does. Each figure is the difference between a process that runs its statements
few times and one that runs them many times. Takes some minutes more.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
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
LIMIT = 0.005  # of one core
SAMPLE_LIMIT = 1.0  # us
FEW, MANY = 500, 2_500  # statements of a process whose instructions are counted
SUBJECTS = ("bare", "attached", "attached, worker on", "a sample kept, alone")


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


def budget(server):
    """Print what questions take, and give what of the limits was passed."""
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
    hourly = settings.explain_per_minute * 60
    print(f"{ROUNDS} rounds of {len(STATEMENTS)} statements, PostgreSQL 18, a connection a round, Unix socket;")
    print(f"{hourly:,.0f} questions an hour at the default budget\n")
    print("| | a question, ms (median, worst) | seconds an hour | of one core |")
    print("|---|---:|---:|---:|")
    over = []
    for name, taken in (("this process", mine), ("the server", theirs), ("wall clock", wall)):
        median = statistics.median(taken)
        share = median * hourly / 3600
        print(f"| {name} | {median * 1e3:.1f}, {max(taken) * 1e3:.1f} | {median * hourly:.1f} | {share:.3%} |")
        if name != "wall clock" and share > LIMIT:
            over.append(f"{name} takes {share:.3%} of one core, limit {LIMIT:.1%}")
    return over


class Taking:
    """A sampler that is given one call after the other, each slower than the last: all are kept."""

    def __init__(self):
        self.sampler, self.tally = Sampler(), Tally(shape_of("SELECT * FROM t WHERE a = ?"), "e")
        self.context = SimpleNamespace(
            dialect=SimpleNamespace(name="postgresql"),
            root_connection=SimpleNamespace(engine=None),
            execute_style=ExecuteStyle.EXECUTE,
            no_parameters=False,
        )
        self.sampler.holds_engines = True
        self.values = {"a": 5, "b": "text", "c": "x" * 200}
        self.at = 0

    def run(self, count):
        take, tally, values, context = self.sampler.take, self.tally, self.values, self.context
        for n in range(self.at, self.at + count):
            take(tally, "SELECT * FROM t WHERE a = %(a)s", values, context, n, n)
        self.at += count


def keeping():
    """Print what keeping a sample takes, and give what of the limits was passed."""
    taking = Taking()
    taken = []
    for _ in range(ROUNDS):
        began = time.process_time_ns()
        taking.run(20_000)
        taken.append((time.process_time_ns() - began) / 20_000 / 1e3)
    print(f"\na sample that is kept: {statistics.median(taken):.2f} us (median), {min(taken):.2f} us (best)")
    return [f"a sample takes {min(taken):.2f} us"] if min(taken) > SAMPLE_LIMIT else []


def run_child(subject, count, url):
    """Run *count* statements as *subject*, in a process whose instructions are counted."""
    if subject == "a sample kept, alone":
        taking = Taking()
        taking.run(50 + count)
        os._exit(0)
    from sqlprobe.plans import worker

    worker.TICK_SECONDS = 1e6  # it waits, as it does most of the time; what a question takes is another figure
    engine = sa.create_engine(url)
    orders = sa.Table("orders", sa.MetaData(), autoload_with=engine)
    statement = sa.select(orders.c.id).where(orders.c.id == sa.bindparam("id"))
    if subject != "bare":
        import sqlprobe

        sqlprobe.attach(engine, settings=Settings(explain=subject.endswith("worker on")))
    with engine.connect() as connection:
        for _ in range(50 + count):
            connection.execute(statement, {"id": 7}).all()
    os._exit(0)


def instructions(server):
    """Print what a statement takes without us, attached, and with the worker on."""
    if shutil.which("valgrind") is None:
        sys.exit("bench/explain.py --instructions needs valgrind: apt-get install valgrind")
    url = server.url_for("psycopg").render_as_string(hide_password=False)

    def count(subject, times):
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, __file__]
        done = subprocess.run(
            [*command, "--child", subject, str(times), url],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        found = re.search(r"Collected : (\d+)", done.stderr)
        if done.returncode or found is None:
            sys.exit(f"{subject}: {done.stderr[-2000:]}")
        return int(found[1])

    print("\n| | instructions a statement | more than the line above |")
    print("|---|---:|---:|")
    last = None
    for subject in SUBJECTS:
        each = (count(subject, MANY) - count(subject, FEW)) / (MANY - FEW)
        more = f"{each - last:+,.0f} ({(each - last) / last:+.2%})" if last and "alone" not in subject else ""
        print(f"| {subject} | {each:,.0f} | {more} |", flush=True)
        last = each


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instructions", action="store_true", help="count them too, with valgrind")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        subject, count, url = options.child
        run_child(subject, int(count), url)
    with serve() as server:
        over = [*budget(server), *keeping()]
        if options.instructions:
            instructions(server)
    for line in over:
        print(f"over the limit: {line}")
    return int(bool(over))


if __name__ == "__main__":
    sys.exit(main())
