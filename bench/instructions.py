"""
What sqlprobe adds to a statement in *instructions*, counted by valgrind: `python bench/instructions.py`.

The workloads, subjects and limits of `overhead.py`, on a machine that is busy with other things: a count of
instructions is the same on every run, and its ratios come close to those of CPU time where caches are warm. Each figure
is the difference between a process that runs the workload once and one that runs it six times. Slow: half a minute a
process. Needs the Debian package valgrind.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import overhead

FEW, MANY = 1, 6  # times that the workload is run
CUSTOMERS = 60
LEFT_OUT = {"baseline", "null"}


def count(workload: str, subject: str, times: int, urls: str) -> tuple[int, int]:
    """Instructions of a whole process that runs *workload* under *subject* so often; statements that a run has."""
    command = [sys.executable, __file__, "--child", workload, subject, str(times), "--urls", urls]
    valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    done = subprocess.run(
        [*valgrind, *command], check=False, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "0"}
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        sys.exit(f"{workload}, {subject}: {done.stderr[-2000:]}")
    return int(found[1]), int(done.stdout)


def run_child(workload_name: str, subject: str, times: int, urls: dict[str, str]) -> None:
    import asyncio

    workloads = overhead.sqlite_workloads(CUSTOMERS)
    if urls:
        loop = asyncio.new_event_loop()
        workloads = overhead.postgresql_workloads(lambda driver: urls[driver], loop, CUSTOMERS)
    workload = next(workload for workload in workloads if workload.name == workload_name)
    with overhead.SUBJECTS[subject](workload.engine):
        for _ in range(3):
            workload.run()
        for _ in range(times):
            overhead.run_once(workload, subject)
    print(workload.statements, flush=True)
    os._exit(0)  # what happens at exit is not what is measured


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="core_select,core_conn,orm_lazy", help="workloads, with commas between")
    parser.add_argument("--postgresql", action="store_true", help="also psycopg and asyncpg, on an embedded server")
    parser.add_argument("--json", help="write the figures to this file too")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--urls", default="{}", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(options.child[0], options.child[1], int(options.child[2]), json.loads(options.urls))
    if shutil.which("valgrind") is None:
        sys.exit("bench/instructions.py needs valgrind: apt-get install valgrind")
    subjects = [name for name in overhead.SUBJECTS if name != "null"]
    rows = []
    names = [name for name in subjects if name not in LEFT_OUT]
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
            wanted += [
                (name, json.dumps(urls)) for name in ("psycopg core_select", "psycopg orm_lazy", "asyncpg, 1 task")
            ]
        for name, urls_of in wanted:
            with ThreadPoolExecutor(1 if urls_of != "{}" else os.cpu_count()) as pool:
                counts = {
                    (subject, times): pool.submit(count, name, subject, times, urls_of)
                    for subject in subjects
                    for times in (FEW, MANY)
                }
            each = {}
            for subject in subjects:
                (few, statements), (many, _) = (counts[subject, times].result() for times in (FEW, MANY))
                each[subject] = (many - few) / (MANY - FEW) / statements
            added = {subject: each[subject] - each["baseline"] for subject in subjects if subject not in LEFT_OUT}
            ratio = {subject: value / added["empty listeners"] for subject, value in added.items()}
            rows.append({"workload": name, "baseline": each["baseline"], "added": added, "ratio": ratio})
            cells = [f"{added[subject]:+,.0f} ({ratio[subject]:.2f})" for subject in names]
            print(f"| {name} | {each['baseline']:,.0f} | " + " | ".join(cells) + " |", flush=True)
    for line in overhead.over_limit(rows):
        print(f"over the limit: {line}")
    if options.json:
        with open(options.json, "w") as file:  # noqa: PTH123
            json.dump(rows, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
