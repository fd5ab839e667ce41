"""`sqlprobe run --explain`: a program's statements, explained when it has ended."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, sys
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

def statements():
    return sa.text("SELECT * FROM orders WHERE customer = :c"), {"c": 918273645}

def sync(url):
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        connection.execute(*statements()).all()
    engine.dispose()

async def main(url):
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        await connection.execute(*statements())
    await engine.dispose()

url = sys.argv[1]
asyncio.run(main(url)) if "asyncpg" in url else sync(url)
print("done")
"""


@pytest.fixture(scope="module")
def shop_url(module_postgresql_url, postgresql_server):
    postgresql_server.psql(
        "CREATE TABLE orders (id int PRIMARY KEY, customer int, pad text);"
        "INSERT INTO orders SELECT g, g % 5000, repeat('x', 60) FROM generate_series(1, 20000) g;"
        "ANALYZE orders",
        module_postgresql_url().database,
    )
    return module_postgresql_url


@pytest.mark.long
@pytest.mark.versions  # what may still be started when a program ends
@pytest.mark.parametrize("driver", [pytest.param("psycopg", marks=pytest.mark.exhaustive), "asyncpg"])
def test_a_programs_statements_are_explained_when_it_ends(shop_url, tmp_path, driver):
    (tmp_path / "program.py").write_text(PROGRAM)
    assert [("missing-index", "seq-scan", True)] == explained(tmp_path, shop_url(driver))


IDLE = """
import os, sys, time
from pathlib import Path
from sqlprobe.bootstrap._sqlprobe_early import ASK
from sqlprobe.plans.worker import Planner

folder = Path(os.environ["SQLPROBE_RUN_DIR"])


def be_asked(can_save=True):  # as `sqlprobe run` asks a process that has been idle for a second
    os.kill(os.getpid(), ASK)
    while can_save and not any(folder.glob("*.json")):
        time.sleep(0.01)


"""
MEANWHILE = """
def slowly(self, explain=Planner.explain, **options):
    be_asked(can_save=sys.version_info < (3, 12))  # from then on no thread starts when a program ends
    return explain(self, **options)


Planner.explain = slowly
"""


@pytest.mark.long
@pytest.mark.parametrize(
    "program",
    [
        pytest.param(IDLE + PROGRAM + "be_asked()", id="before"),
        pytest.param(IDLE + MEANWHILE + PROGRAM, id="meanwhile"),
    ],
)
def test_what_was_saved_before_plans_were_there_is_saved_again(shop_url, tmp_path, program):
    (tmp_path / "program.py").write_text(program)
    assert [("missing-index", "seq-scan", True)] == explained(tmp_path, shop_url("psycopg"))


def explained(tmp_path, url):
    url = url.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "sqlprobe", "run", "--explain", "-q", "-o", str(tmp_path / "r.json")]
    done = subprocess.run(
        [*command, str(tmp_path / "program.py"), url], check=False, capture_output=True, text=True, timeout=120
    )
    report = json.loads((tmp_path / "r.json").read_text())

    assert (0, "done\n", "") == (done.returncode, done.stdout, done.stderr)
    told = [
        (finding["rule"], finding["evidence"]["also"], finding["fixes"][0]["verified"] is not None)
        for finding in report["findings"]
        if "plan" in finding["evidence"]
    ]
    assert (False, [], []) == ("918273645" in json.dumps(report), report["faults"], report["notes"])
    return told


ASKED_MEANWHILE = """
import signal
import sqlalchemy as sa
from sqlprobe.bootstrap._sqlprobe_early import ASK
from sqlprobe.plans.worker import Planner

explain = Planner.explain


def slowly(self, **options):
    signal.raise_signal(ASK)  # as `sqlprobe run` does with a process that has been idle for a second
    print("explained")
    return explain(self, **options)


Planner.explain = slowly
with sa.create_engine("sqlite://").connect() as connection:
    connection.execute(sa.text("SELECT 918273645"))
"""


@pytest.mark.long
@pytest.mark.versions  # from CPython 3.12 on no thread starts when a program ends, to save what it is asked for
def test_a_program_that_is_asked_to_save_while_plans_are_asked_for_ends(tmp_path):
    (tmp_path / "program.py").write_text(ASKED_MEANWHILE)
    command = [sys.executable, "-m", "sqlprobe", "run", "--explain", "-q", "-o", str(tmp_path / "r.json")]
    done = subprocess.run(
        [*command, str(tmp_path / "program.py")], check=False, capture_output=True, text=True, timeout=60
    )
    report = json.loads((tmp_path / "r.json").read_text())

    assert (0, "explained\n", "") == (done.returncode, done.stdout, done.stderr)
    assert (1, []) == (sum(each["calls"] for each in report["statements"]), report["faults"])
