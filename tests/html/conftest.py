"""Reports to show: one with everything in it, one of any length, one that is hostile."""

from __future__ import annotations

import dataclasses
from bisect import bisect_left

import pytest

from sqlprobe.model import Fault, Finding, Fix, Site, SiteCalls, Step, Timeline, Verified
from sqlprobe.report import Process, Report
from sqlprobe.stats import BOUNDS, BUCKETS, CALL_BOUNDS, scope_stats, statement_stats

BEGIN = 1_763_834_645.0
VIEW = Site("shop/views.py", 31, "list_orders", Site("shop/app.py", 112, "App.dispatch"))
REPOSITORY = Site("shop/repositories/orders.py", 58, "OrderRepository.recent", VIEW)
FIX = "stmt = select(Order).options(\n    selectinload(Order.items),\n)"
PLAN_BEFORE = """\
Limit  (0 %, cost 1,070, rows 10, really 10)
  -> Sort  (4 %, cost 1,070, rows 900, really 10)
       Sort Key: created_at DESC
    -> Seq Scan on orders  (96 %, cost 1,020, rows 900, really 90,000)
         Filter: (state = ?)
         Rows Removed by Filter: 110,000"""
PLAN_AFTER = """\
Limit  (cost=0.42..19.34 rows=10 width=72) (actual time=0.030..0.041 rows=10 loops=1)
  ->  Index Scan using ix_orders_state on orders  (cost=0.42..1702.11 rows=900 width=72) (actual time=0.029..0.038 rows=10 loops=1)
        Index Cond: (state = ?)"""


def make_statement(
    number=1, summary="SELECT orders", text="SELECT id FROM orders WHERE state = ?", seconds=0.001, calls=1, **given
):
    histogram = [0] * BUCKETS
    histogram[bisect_left(BOUNDS, seconds)] = calls
    return statement_stats(
        **{
            "fingerprint": f"{number:016x}",
            "text": text,
            "summary": summary,
            "operation": summary.split()[0] if summary else "",
            "tables": tuple(summary.split()[1:]),
            "engine": "shop",
            "errors": {},
            "rows": 3 * calls,
            "parameter_sets": calls,
            "pages": calls,
            "seconds": seconds * calls,
            "min": seconds,
            "max": seconds,
            "first_seen": BEGIN,
            "last_seen": BEGIN + 60,
            "sites": (SiteCalls(REPOSITORY, calls),),
            "slowest": VIEW,
            "histogram": tuple(histogram),
            **given,
        }
    )


def make_scope(name="GET /orders", kind="request", count=2, calls=50, seconds=0.05, **given):
    calls_histogram, seconds_histogram = [0] * (len(CALL_BOUNDS) + 1), [0] * BUCKETS
    calls_histogram[bisect_left(CALL_BOUNDS, calls)] = count
    seconds_histogram[bisect_left(BOUNDS, seconds)] = count
    return scope_stats(
        **{
            "name": name,
            "kind": kind,
            "calls": calls * count,
            "distinct": 2 * count,
            "rows": calls * count,
            "seconds": seconds * count,
            "wall_seconds": 2 * seconds * count,
            "late": 1,
            "errors": 1,
            "calls_histogram": tuple(calls_histogram),
            "seconds_histogram": tuple(seconds_histogram),
            **given,
        }
    )


def make_finding(**given):
    return Finding(
        **{
            "rule": "n-plus-one",
            "severity": "error",
            "title": "lazy load of Order.items ran 48 times at shop/views.py:31",
            "advice": "add .options(selectinload(Order.items))",
            "key": "n-plus-one:Order.items",
            "label": "Order.items",
            "scope": "GET /orders",
            "count": 48,
            "seconds": 0.5,
            "fingerprint": f"{1:016x}",
            "engine": "shop",
            "site": VIEW,
            "origin": REPOSITORY,
            "evidence": {"parents": 48, "share_of_scope": 0.4386, "slowest_seconds": 1.742, "plan_before": PLAN_BEFORE},
            "fixes": (Fix("loader-option", FIX),),
            "first_seen": BEGIN,
            "last_seen": BEGIN + 60,
            **given,
        }
    )


def make_report():
    index = Fix(
        "create-index",
        "CREATE INDEX CONCURRENTLY ix_orders_state ON orders (state)",
        alembic='op.create_index("ix_orders_state", "orders", ["state"])',
        sqlalchemy='Index("ix_orders_state", Order.state)',
        verified=Verified("hypothetical index", 1070.42, 19.34, PLAN_BEFORE, PLAN_AFTER),
    )
    steps = (
        Step(f"{1:016x}", "shop", 0.001, 0.002, 0.002, site=VIEW),
        Step(f"{2:016x}", "shop", 0.004, 0.05, 0.03, calls=48, rows=48, site=VIEW, relationship="Order.items"),
        Step("unknown", "shop", 0.06, 0.001, 0.001, errors=1),
    )
    return Report(
        findings=(
            make_finding(),
            make_finding(
                rule="seq-scan",
                severity="warning",
                title="all of orders is read",
                key="seq-scan:orders",
                seconds=0.1,
                fixes=(index,),
            ),
            make_finding(
                rule="slow-statement",
                severity="info",
                title="SELECT took 1.2 s",
                key="slow",
                fixes=(),
                evidence={},
                seconds=0.0,
            ),
        ),
        statements=(
            make_statement(1, seconds=0.25, calls=4, errors={"40001": 2}),
            make_statement(2, "SELECT items", "SELECT id FROM items WHERE order_id = ?", 0.0005, 480),
            make_statement(3, "INSERT orders", "INSERT INTO orders (id) VALUES (?)", 0.0123, 7, rows=None),
            make_statement(4, "SELECT customers", "SELECT name FROM customers", 61.0, 1, engine="other"),
        ),
        scopes=(make_scope(), make_scope("nightly", "task", 1, 3, 0.2)),
        settings={"slow_seconds": 0.1, "path_map": {"/srv/": ""}, "disabled_rules": []},
        started=BEGIN,
        ended=BEGIN + 60,
        processes=(Process(4711, "python -m shop", BEGIN, BEGIN + 60),),
        versions={"python": "3.11.7", "sqlalchemy": "2.1.9"},
        release="1.4",
        faults=(Fault("detector n-plus-one", "KeyError", 3),),
        notes=("12 lazy loads were not followed.",),
        timelines=(Timeline("GET /orders", "request", BEGIN, 0.07, 0.033, 55, steps, 5),),
    )


def make_long_report(count):
    return Report(
        statements=tuple(
            make_statement(
                number,
                f"{('SELECT', 'INSERT', 'UPDATE')[number % 3]} table_{number}",
                f"SELECT a, b, c FROM table_{number} WHERE id = ? AND name LIKE ? ORDER BY a LIMIT ?",
                1e-5 * (1 + number * 7919 % 10_007),
                1 + number % 50,
            )
            for number in range(count)
        )
    )


def with_texts(value, text):
    """*value* with each text that an application can have a say in replaced by what *text* makes of it."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, tuple):
        return tuple(with_texts(item, text) for item in value)
    if isinstance(value, dict):
        return {text(key): with_texts(item, text) for key, item in value.items()}
    if dataclasses.is_dataclass(value):
        kept = ("severity", "kind") if type(value).__name__ in {"Finding", "Fix"} else ()
        return dataclasses.replace(
            value,
            **{
                item.name: with_texts(getattr(value, item.name), text)
                for item in dataclasses.fields(value)
                if item.name not in kept
            },
        )
    return value


@pytest.fixture(scope="session")
def report():
    return make_report()


@pytest.fixture(scope="session")
def long_report():
    return make_long_report


@pytest.fixture(scope="session")
def spoilt():
    """`spoilt(text)`: the whole report, each of its texts with *text* at the end."""
    return lambda text: with_texts(make_report(), lambda value: f"{value} {text}")
