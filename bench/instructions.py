"""
What sqlprobe adds to a statement in *instructions*, counted by valgrind: `python bench/instructions.py`.

The workloads, subjects and limits of `overhead.py`, on a machine that is busy with other things: a count of
instructions is the same on every run, and its ratios come close to those of CPU time where caches are warm. All
subjects of a workload run in one process; valgrind writes what was counted so far whenever the process calls `getppid`.
Meanwhile the garbage collector is off. Needs the Debian package valgrind.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import overhead

import sqlprobe

TIMES = 3  # that a workload is run under each subject; the median counts
WARM = 5  # times before that: what CPython makes of code that has run a few times is what counts
CUSTOMERS = 60
LEFT_OUT = {"baseline", "null"}
MARK = "getppid"  # of the C library, which nothing else here calls
LIMITED = ("core_select", "core_conn", "orm_lazy")  # the workloads with limits of their own
OVER_A_SOCKET = ("psycopg core_select", "psycopg orm_lazy", "asyncpg, 1 task", "asyncpg, 20 tasks")


def count(workload: str, urls: str) -> dict[str, float]:
    """Instructions a statement of *workload*, by subject."""
    with tempfile.TemporaryDirectory(prefix="sqlprobe-bench-") as folder:
        out = Path(folder) / "out"
        valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", f"--dump-before={MARK}"]
        done = subprocess.run(
            [*valgrind, sys.executable, __file__, "--child", workload, "--urls", urls],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        # Numbered from 1; a subject's first is what came before it, the others are its runs.
        dumps = sorted(Path(folder).glob("out.*"), key=lambda path: int(path.suffix[1:]))
        totals = [int(re.search(r"^totals: (\d+)", path.read_text(), re.MULTILINE)[1]) for path in dumps]
    names = [name for name in overhead.SUBJECTS if name != "null"]
    dumps_each = TIMES + 1  # what led to the subject, and each run of it
    if done.returncode or len(totals) != dumps_each * len(names):
        sys.exit(f"{workload}: {len(totals)} dumps of {dumps_each * len(names)}; {done.stderr[-2000:]}")
    statements = int(done.stdout)
    return {
        name: statistics.median(totals[dumps_each * index + 1 : dumps_each * (index + 1)]) / statements
        for index, name in enumerate(names)
    }


def run_child(workload_name: str, urls: dict[str, str]) -> None:
    import asyncio

    workloads = overhead.sqlite_workloads(CUSTOMERS)
    if urls:
        loop = asyncio.new_event_loop()
        workloads = overhead.postgresql_workloads(lambda driver: urls[driver], loop, CUSTOMERS)
    workload = next(workload for workload in workloads if workload.name == workload_name)
    for subject in overhead.SUBJECTS:
        if subject == "null":
            continue
        with overhead.SUBJECTS[subject](workload.engine):
            if getattr(overhead.SUBJECTS[subject], "scope", False):
                # One that takes longer than those that follow: who is the slowest so far draws a timeline, too.
                with sqlprobe.scope("bench"):
                    for _ in range(6):
                        workload.run()
            for _ in range(WARM):
                overhead.run_once(workload, subject)
            gc.collect()
            gc.disable()  # a full collection falls into one run or another, and is ten times what is counted
            os.getppid()
            for _ in range(TIMES):
                overhead.run_once(workload, subject)
                os.getppid()
            gc.enable()
    print(workload.statements, flush=True)
    os._exit(0)  # what happens at exit is not what is measured


def row_of(workload: str, each: dict[str, float]) -> dict[str, Any]:
    added = {name: value - each["baseline"] for name, value in each.items() if name not in LEFT_OUT}
    ratio = {name: value / added["empty listeners"] for name, value in added.items()}
    return {"workload": workload, "baseline": each["baseline"], "added": added, "ratio": ratio}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(LIMITED), help="workloads on SQLite, with commas between")
    parser.add_argument("--postgresql", action="store_true", help="also psycopg and asyncpg, on an embedded server")
    parser.add_argument("--json", help="write the figures to this file too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--urls", default="{}", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(options.child, json.loads(options.urls))
    if shutil.which("valgrind") is None:
        sys.exit("bench/instructions.py needs valgrind: apt-get install valgrind")
    names = [name for name in overhead.SUBJECTS if name not in LEFT_OUT]
    print("instructions added to a statement (and as a share of what empty cursor-event listeners add)\n")
    print("| workload | statement | " + " | ".join(names) + " |")
    print("|---|---:|" + "---:|" * len(names), flush=True)
    with contextlib.ExitStack() as stack:
        wanted = [(name, "{}") for name in options.only.split(",") if name]
        if options.postgresql:
            from sqlprobe.demo.server import serve

            server = stack.enter_context(serve())
            urls = {
                driver: server.url_for(driver).render_as_string(hide_password=False)
                for driver in ("psycopg", "asyncpg")
            }
            wanted += [(name, json.dumps(urls)) for name in OVER_A_SOCKET]
        rows = []
        for name, urls_of in wanted:
            row = row_of(name, count(name, urls_of))
            rows.append(row)
            cells = [f"{row['added'][subject]:+,.0f} ({row['ratio'][subject]:.2f})" for subject in names]
            print(f"| {name} | {row['baseline']:,.0f} | " + " | ".join(cells) + " |", flush=True)
    for line in overhead.over_limit(rows):
        print(f"over the limit: {line}")
    if options.json:
        with open(options.json, "w") as file:  # noqa: PTH123
            json.dump(rows, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
