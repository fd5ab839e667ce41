"""
What reading and keeping cost: the end of a scope, memory, reports, scrapes, HTML, the start of `sqlprobe run`, plans
in the background: `python bench/reading.py`. CPU milliseconds of the reading thread, median of 9, except where it
says otherwise.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

import sqlprobe

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 9
SIZES = (50, 500, 5_000)  # fingerprints
PROGRAM = "import sqlalchemy as sa\nwith sa.create_engine('sqlite://').connect() as c: c.execute(sa.text('SELECT 1'))\n"


def median_ms(work: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        started = time.thread_time_ns()
        work()
        times.append((time.thread_time_ns() - started) / 1e6)
    return statistics.median(times)


def kept(texts: int, statements: int) -> dict[str, float]:
    """MB that *statements* of so many different shapes leave behind, after 100,000 of them and at the end."""
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)

    def run(first: int, last: int) -> float:
        with engine.connect() as connection:
            for number in range(first, last):
                connection.exec_driver_sql(f"SELECT 1 AS column_{number % texts}").close()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / 1e6

    tracemalloc.start()
    with sqlprobe.attach(engine) as probe:
        found = {
            "first": run(0, statements // 10),
            "last": run(statements // 10, statements),
            "calls": sum(each.calls for each in probe.report().statements),
        }
    tracemalloc.stop()
    return found


def reports() -> list[dict[str, float]]:
    from sqlprobe_exporters.metrics import read_all, reader_of
    from sqlprobe_exporters.text import Renderer

    rows = []
    for size in SIZES:
        engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
        with sqlprobe.attach(engine) as probe, tempfile.TemporaryDirectory() as folder:
            with engine.connect() as connection:
                for number in range(size):
                    connection.exec_driver_sql(f"SELECT 1 AS column_{number}")
            report = probe.report()
            path = Path(folder) / "report.html"
            reader, renderer = reader_of(probe), Renderer()
            rows.append(
                {
                    "fingerprints": size,
                    "report_ms": median_ms(probe.report),
                    "json_ms": median_ms(report.to_json),
                    "json_kb": len(report.to_json()) / 1e3,
                    "scrape_ms": median_ms(
                        lambda reader=reader, renderer=renderer: renderer.render(read_all([reader]))
                    ),
                    "html_ms": median_ms(lambda report=report, path=path: report.write(path)),
                    "html_kb": path.stat().st_size / 1e3,
                }
            )
    return rows


def digests() -> dict[str, float]:
    """
    What a scope's end costs: its records digested at once and judged. Least of many; peak memory of the larger.

    The statements are of some twenty kinds: a query with lazy loads for each of its objects, rows asked for one by one,
    writes. A scope digests by the batch as it goes on, so what is left at its end is less than this.
    """
    from sqlalchemy.orm import DeclarativeBase, Session, mapped_column, relationship

    from sqlprobe import detectors, scopes

    class Base(DeclarativeBase):
        pass

    class Order(Base):
        __tablename__ = "order_"
        id = mapped_column(sa.Integer, primary_key=True)
        customer_id = mapped_column(sa.ForeignKey("customer.id"))

    class Customer(Base):
        __tablename__ = "customer"
        id = mapped_column(sa.Integer, primary_key=True)
        name = mapped_column(sa.String)
        orders = relationship(Order)

    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Customer(id=i, name="x", orders=[Order(), Order()]) for i in range(60))
        session.commit()
    batch, scopes.BATCH = scopes.BATCH, 1 << 40  # type: ignore[misc] - nothing is digested before the end
    with sqlprobe.attach(engine) as probe, sqlprobe.scope("digests") as scope:
        while len(scope._records) < 1_000:  # noqa: SLF001
            with Session(engine) as session:
                for customer in session.scalars(sa.select(Customer).limit(20)):
                    customer.orders  # noqa: B018 - the lazy load
                for number in range(20):
                    text = f"SELECT name AS c{number % 15} FROM customer WHERE id = :id"  # noqa: S608 - a number of ours
                    session.execute(sa.text(text), {"id": number})
                for number in range(5):
                    text = f"UPDATE customer SET name = :name, id = {number} + id - {number} WHERE id = :id"  # noqa: S608
                    session.execute(sa.text(text), {"name": "x", "id": number})
        records = list(scope._records)[:1_000]  # noqa: SLF001
    scopes.BATCH = batch  # type: ignore[misc]
    engine.dispose()

    def take(many: list[Any]) -> None:
        digest = scopes.Digest("digests", probe.settings.slow_ns)
        digest.drain(deque(many))
        detectors.judge(digest, probe.settings)

    def least_ms(many: list[Any], times: int) -> float:
        least = float("inf")
        for _ in range(times):
            started = time.thread_time_ns()
            take(many)
            least = min(least, (time.thread_time_ns() - started) / 1e6)
        return least

    many = []
    for turn in range(100):
        for record in records:
            load = record[4]
            if load is not None:  # each has a number of its own, as do the objects that it loaded
                runid = None if load[3] is None else load[3] + turn * 1_000_000
                load = (*load[:2], load[2] + turn * 1_000_000, runid, *load[4:])
            many.append((*record[:4], load, *record[5:]))
    found = {"1000_ms": least_ms(records, 100), "100000_ms": least_ms(many, 7)}
    tracemalloc.start()
    digest = scopes.Digest("digests", probe.settings.slow_ns)
    for start in range(0, len(many), batch):
        digest.drain(deque(many[start : start + batch]))
    found["100000_mb"] = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return found


def start_up() -> dict[str, float]:
    """CPU milliseconds of a process with one statement, without and with `sqlprobe run`."""

    def cpu(*command: str) -> float:
        before = os.times()
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = os.times()
        return 1000 * (after.children_user + after.children_system - before.children_user - before.children_system)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program.py"
        path.write_text(PROGRAM)
        pairs = [(cpu(str(path)), cpu("-m", "sqlprobe", "run", "--quiet", str(path))) for _ in range(ROUNDS)]
    return {"alone_ms": statistics.median(a for a, _ in pairs), "run_ms": statistics.median(b for _, b in pairs)}


def explainer() -> dict[str, float]:
    """What a plan costs, and what those of an hour cost at the default budget."""
    from sqlprobe.demo.server import serve

    with serve() as server:
        engine = sa.create_engine(server.url_for("psycopg"))
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "CREATE TABLE t AS SELECT i AS id, mod(i, 100) AS kind, 'x' AS name FROM generate_series(1, 100000) i"
            )
            connection.exec_driver_sql("ANALYZE t")
        with sqlprobe.attach(engine, settings=sqlprobe.Settings(explain=True, explain_per_minute=0)) as probe:
            with engine.connect() as connection:
                for number in range(40):
                    text = sa.text(f"SELECT id AS c{number} FROM t WHERE kind = :kind AND id > :id")  # noqa: S608 - a number of ours
                    connection.execute(text, {"kind": 1, "id": number}).fetchall()
            probe.explain(most=5)  # the catalog is read once
            cpu, wall = time.process_time(), time.perf_counter()
            probe.explain()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            plans = 40
            assert probe._planner is not None  # noqa: SLF001 - what it has done is told nowhere else
        engine.dispose()
    an_hour = 60 * sqlprobe.Settings().explain_per_minute
    return {
        "plans": plans,
        "cpu_ms": 1000 * cpu / plans,
        "wall_ms": 1000 * wall / plans,
        "cpu_s_an_hour": an_hour * cpu / plans,
        "wall_s_an_hour": an_hour * wall / plans,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--statements", type=int, default=1_000_000, help="for memory (1,000,000)")
    parser.add_argument("--json", help="write the figures to this file too")
    options = parser.parse_args()
    parts: dict[str, Callable[[], Any]] = {
        "digests": digests,
        "reports": reports,
        "start_up": start_up,
        "explainer": explainer,
        "memory_50": lambda: kept(50, options.statements),
        "memory_100000": lambda: kept(100_000, options.statements),
    }
    found: dict[str, Any] = {"statements": options.statements}
    for name, part in parts.items():
        try:
            found[name] = part()
        except Exception as error:  # noqa: BLE001 - the other parts are worth having
            found[name] = {"failed": f"{type(error).__name__}: {error}"[:300]}
        print(f"{name}: {found[name]}", flush=True)
        if options.json:
            Path(options.json).write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
