"""
What sqlprobe adds to a statement, beside what *empty* cursor-event listeners add: `python bench/overhead.py`.

Every subject runs the same batches on the same engine in one process, one after the other in an order that turns from
round to round; what a subject adds is the median, over the rounds, of its CPU time less the baseline's of the same
round. `null` is a second baseline: how far it is from 0 is the noise. A batch is one scope of 50 to 200 statements,
whose opening, judging and closing are in its time. Ratios hold between machines, microseconds do not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import platform
import statistics
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.pool import StaticPool

import sqlprobe
from sqlprobe import capture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCH = 50  # small: what else runs on the machine then strikes a subject and the baseline of its round alike
SQLITE_LIMITS = {  # subject -> workload -> the most it may add, as a share of what empty listeners add
    "outside": {"core_select": 0.35, "core_conn": 0.15, "orm_lazy": 0.35},
    "scope": {"core_select": 0.5, "core_conn": 0.2, "orm_lazy": 0.6},
    "scope, sites": {"core_select": 0.7, "core_conn": 0.3, "orm_lazy": 0.7},
    "scope, all sites": {"core_select": 1.2, "core_conn": 0.4, "orm_lazy": 1.2},
}
POSTGRESQL_LIMIT = 0.5


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    orders: Mapped[list[Order]] = relationship()


class Order(Base):
    __tablename__ = "order_"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(sa.ForeignKey("customer.id"))


BY_ID = sa.select(Customer.__table__).where(Customer.__table__.c.id == sa.bindparam("i"))
TEXT = sa.text("SELECT id, name FROM customer WHERE id = :i")
ANY_ID = sa.select(Customer.__table__.c.id).where(Customer.__table__.c.id.in_(sa.bindparam("ids", expanding=True)))


def core_text(engine: sa.Engine, n: int) -> None:
    with engine.connect() as connection:
        for _ in range(n):
            connection.execute(TEXT, {"i": 7}).fetchall()


def core_select(engine: sa.Engine, n: int) -> None:
    with engine.connect() as connection:
        for _ in range(n):
            connection.execute(BY_ID, {"i": 7}).fetchall()


def core_conn(engine: sa.Engine, n: int) -> None:
    for _ in range(n):
        with engine.connect() as connection:
            connection.execute(BY_ID, {"i": 7}).fetchall()


def orm_get(engine: sa.Engine, n: int) -> None:
    with Session(engine) as session:
        for _ in range(n):
            session.get(Customer, 7)
            session.expunge_all()


def orm_lazy(engine: sa.Engine, n: int) -> None:
    for _ in range(n // 50):
        with Session(engine) as session:
            for customer in session.scalars(sa.select(Customer).limit(50)):
                customer.orders  # noqa: B018 - the lazy load


def core_in(size: int) -> Callable[[sa.Engine, int], None]:
    ids = list(range(size))

    def run(engine: sa.Engine, n: int) -> None:
        with engine.connect() as connection:
            for _ in range(n):
                connection.execute(ANY_ID, {"ids": ids}).fetchall()

    return run


def bulk_insert(engine: sa.Engine, n: int) -> None:
    """5,000 rows by insertmanyvalues, pages of 1,000; *n* counts as one statement a row."""
    rows = [{"customer_id": 7} for _ in range(n)]
    with engine.connect() as connection:
        connection.execute(sa.insert(Order.__table__).returning(Order.__table__.c.id), rows)
        connection.rollback()


async def async_core(engine: AsyncEngine, n: int) -> None:
    async with engine.connect() as connection:
        for _ in range(n):
            (await connection.execute(BY_ID, {"i": 7})).fetchall()


async def async_core_20(engine: AsyncEngine, n: int) -> None:
    await asyncio.gather(*(async_core(engine, n // 20) for _ in range(20)))


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    run: Callable[[], None]
    engine: sa.Engine
    statements: int


@contextlib.contextmanager
def nothing(_engine: sa.Engine) -> Iterator[None]:
    yield


def _before(*args: Any) -> None:
    """Empty, as the floor under every profiler that listens to cursor events."""


_after = _before


@contextlib.contextmanager
def empty_listeners(engine: sa.Engine) -> Iterator[None]:
    def after(*args: Any) -> None:
        pass

    event.listen(engine, "before_cursor_execute", _before)
    event.listen(engine, "after_cursor_execute", after)
    yield
    event.remove(engine, "before_cursor_execute", _before)
    event.remove(engine, "after_cursor_execute", after)
    engine._has_events = False  # noqa: SLF001 - SQLAlchemy leaves it set; the next subject would pay


def probed(call_sites: str, *, scope: bool) -> Callable[[sa.Engine], contextlib.AbstractContextManager[None]]:
    @contextlib.contextmanager
    def observed(_engine: sa.Engine) -> Iterator[None]:
        # The probe is attached once: a fresh one would still be learning the statements and their slowest calls.
        capture.install()
        PROBE.resume()
        capture._sites = call_sites  # noqa: SLF001 - as other settings of the same probe would have it
        yield
        PROBE.pause()
        capture.uninstall()

    observed.scope = scope  # type: ignore[attr-defined]
    return observed


PROBE = sqlprobe.attach()
PROBE.pause()
capture.uninstall()
SUBJECTS: dict[str, Callable[[sa.Engine], contextlib.AbstractContextManager[None]]] = {
    "baseline": nothing,
    "null": nothing,
    "empty listeners": empty_listeners,
    "outside": probed("first", scope=False),
    "scope": probed("off", scope=True),
    "scope, sites": probed("first", scope=True),
    "scope, all sites": probed("all", scope=True),
}


def batch(workload: Workload, subject: str) -> float:
    """CPU microseconds a statement, the scope's opening and closing included."""
    with SUBJECTS[subject](workload.engine):
        workload.run()  # compiled caches and tables warm, as in a process that has run for a while
        gc.collect()
        started = time.process_time_ns()
        run_once(workload, subject)
        elapsed = time.process_time_ns() - started
    return elapsed / workload.statements / 1000


def run_once(workload: Workload, subject: str) -> None:
    if getattr(SUBJECTS[subject], "scope", False):
        with sqlprobe.scope("bench"):
            workload.run()
    else:
        workload.run()


def measure(workload: Workload, rounds: int) -> dict[str, Any]:
    names = list(SUBJECTS)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            times[name].append(batch(workload, name))
    added = {
        name: [mine - base for mine, base in zip(times[name], times["baseline"], strict=True)]
        for name in names
        if name != "baseline"
    }
    floor = statistics.median(added["empty listeners"])
    return {
        "workload": workload.name,
        "baseline_us": statistics.median(times["baseline"]),
        "added_us": {name: statistics.median(values) for name, values in added.items()},
        "quartiles_us": {name: statistics.quantiles(values, n=4)[::2] for name, values in added.items()},
        "ratio": {name: statistics.median(values) / floor for name, values in added.items()},
    }


def fill(engine: sa.Engine, customers: int) -> None:
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        people = [{"id": number, "name": f"customer {number}"} for number in range(1, customers + 1)]
        connection.execute(sa.insert(Customer), people)
        connection.execute(sa.insert(Order), [{"customer_id": each["id"]} for each in people for _ in range(2)])


def sqlite_workloads(customers: int = 600) -> list[Workload]:
    engine = sa.create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    fill(engine, customers)
    runs: dict[str, tuple[Callable[[sa.Engine, int], None], int]] = {
        "core_text": (core_text, BATCH * 4),
        "core_select": (core_select, BATCH * 4),
        "core_conn": (core_conn, BATCH * 4),
        "orm_get": (orm_get, BATCH),
        "orm_lazy": (orm_lazy, BATCH),
        "IN of 1": (core_in(1), BATCH),
        "IN of 50": (core_in(50), BATCH),
        "IN of 500": (core_in(500), BATCH // 2),
        "insert 5,000 rows (a row)": (bulk_insert, 5000),
    }
    return [
        Workload(name, (lambda run=run, n=n: run(engine, n)), engine, n + n // 50 if name == "orm_lazy" else n)
        for name, (run, n) in runs.items()
    ]


def postgresql_workloads(
    url_for: Callable[[str], sa.URL | str], loop: asyncio.AbstractEventLoop, customers: int = 600
) -> list[Workload]:
    engine = sa.create_engine(url_for("psycopg"))
    fill(engine, customers)
    async_engine = create_async_engine(url_for("asyncpg"), pool_size=20)
    sync = async_engine.sync_engine
    return [
        Workload("psycopg core_select", lambda: core_select(engine, BATCH), engine, BATCH),
        Workload("psycopg orm_lazy", lambda: orm_lazy(engine, BATCH), engine, BATCH + BATCH // 50),
        Workload("asyncpg, 1 task", lambda: loop.run_until_complete(async_core(async_engine, BATCH)), sync, BATCH),
        Workload("asyncpg, 20 tasks", lambda: loop.run_until_complete(async_core_20(async_engine, BATCH)), sync, BATCH),
    ]


def print_table(rows: list[dict[str, Any]]) -> str:
    names = [name for name in SUBJECTS if name != "baseline"]
    lines = [
        "| workload | statement, us | " + " | ".join(names) + " |",
        "|---|---:|" + "---:|" * len(names),
    ]
    for row in rows:
        cells = [f"{row['added_us'][name]:+.2f} ({row['ratio'][name]:.2f})" for name in names]
        lines.append(f"| {row['workload']} | {row['baseline_us']:.1f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def over_limit(rows: list[dict[str, Any]]) -> list[str]:
    """What is over the project's own limits."""
    found = []
    for row in rows:
        postgresql = row["workload"].startswith(("psycopg", "asyncpg"))
        for subject, limits in SQLITE_LIMITS.items():
            limit = POSTGRESQL_LIMIT if postgresql and "all" not in subject else limits.get(row["workload"])
            if limit is not None and row["ratio"][subject] > limit:
                found.append(f"{row['workload']}, {subject}: {row['ratio'][subject]:.2f} where {limit} is the limit")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=101, help="rounds of each workload (101)")
    parser.add_argument("--only", help="workloads whose names hold this")
    parser.add_argument("--no-postgresql", action="store_true", help="leave out the embedded server")
    parser.add_argument("--json", help="write the figures to this file too")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        loop = asyncio.new_event_loop()
        stack.callback(loop.close)
        workloads = sqlite_workloads()
        if not options.no_postgresql:
            from sqlprobe.demo.server import serve

            server = stack.enter_context(serve())
            workloads += postgresql_workloads(server.url_for, loop)
        if options.only:
            workloads = [workload for workload in workloads if options.only in workload.name]
        rows = []
        for workload in workloads:
            rows.append(measure(workload, options.rounds))
            print(f"{workload.name}: done", file=sys.stderr, flush=True)
    table = print_table(rows)
    print(
        f"CPython {platform.python_version()}, SQLAlchemy {sa.__version__}, {options.rounds} rounds; added CPU "
        "microseconds a statement (and as a share of what empty cursor-event listeners add)\n"
    )
    print(table)
    for line in over_limit(rows):
        print(f"over the limit: {line}")
    if options.json:
        with open(options.json, "w") as file:  # noqa: PTH123
            json.dump({"python": platform.python_version(), "sqlalchemy": sa.__version__, "rows": rows}, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
