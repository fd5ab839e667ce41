"""gevent: greenlets of one thread share its counts, and leave nothing behind when they end."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.versions
pytest.importorskip("gevent")

PROGRAM = """
from gevent import monkey
monkey.patch_all()

import json, threading
import gevent.pool
import sqlalchemy as sa
import sqlprobe
from sqlprobe import capture, faults, scopes

engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool, connect_args={"check_same_thread": False})
sizes = []

with sqlprobe.attach(engine) as probe:
    def work(number):
        with sqlprobe.scope(f"greenlet of pool {number % 3}") as scope:
            with engine.connect() as connection:
                connection.execute(sa.text("SELECT 1"))
                gevent.sleep(0)
                connection.execute(sa.text("SELECT 2"))
            assert scope.calls == 2

    pool = gevent.pool.Pool(50)
    for rounds in (1, 20):
        for _ in range(rounds):
            pool.map(work, range(100))
        (watched,) = capture.watched_by(probe)
        sizes.append((len(watched.tables), len(capture.tallies_of(watched.tables)), len(scopes.open_scopes())))
    report = probe.report()
    threads = threading.active_count()

print(json.dumps({
    "sizes": sizes,
    "calls": sorted(item.calls for item in report.statements),
    "scopes": sorted((item.name, item.count, item.calls) for item in report.scopes),
    "faults": len(faults.told()),
}))
"""


@pytest.mark.long
def test_greenlets_that_end_leave_nothing_and_lose_nothing():
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True, timeout=60)

    assert json.loads(done.stdout) == {
        "sizes": [[1, 1, 0], [1, 1, 0]],
        "calls": [4200],
        "scopes": [
            ["greenlet of pool 0", 714, 1428],
            ["greenlet of pool 1", 693, 1386],
            ["greenlet of pool 2", 693, 1386],
        ],
        "faults": 0,
    }
