"""
sqlprobe beside what users would pick instead: `python bench/compare.py`, which `make bench-compare` calls.

Makes an environment with the peers for SQLAlchemy 2.1 and one for 2.0 in `.matrix/`, runs `peers.py` in both,
`detection.py` and `reading.py` in one, and writes `bench/RESULTS.md` from what they found. `--write` only writes it,
from the last figures in `.matrix/bench-results/`; `--parts` runs some of the parts. A peer that cannot be installed
or does not run is named with its reason.
"""

# ruff: noqa: E501 - the sentences of a page

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent
RESULTS = ROOT / ".matrix" / "bench-results"
PAGE = HERE / "RESULTS.md"
LINES = ("2.1", "2.0")
PEERS = (
    "opentelemetry-instrumentation-sqlalchemy",
    "sentry-sdk",
    "ddtrace",
    "sqltap",
    "queryspy",
    "pytest-queryguard",
    "pytest-querycount",
)
OUTSIDE, SCOPE = "sqlprobe, outside a scope", "sqlprobe, in a scope"
RECORDING = ("sqltap", "queryspy", "pytest-queryguard", "pytest-querycount", "OpenTelemetry, sampled",
             "Sentry, sampled", "ddtrace")  # fmt: skip
NEVER = "has not been run"
WORKLOADS = 12  # of peers.py


# --- running ----------------------------------------------------------------------------------------------------------


def environment(line: str) -> tuple[str, dict[str, str]]:
    """The interpreter of the peers' environment for an SQLAlchemy line, and the peers that could not be installed."""
    sys.path.insert(0, str(ROOT / "tools"))
    import environment as environments

    python = environments.make(ROOT / ".matrix" / f"bench-{line}")
    pinned = f"SQLAlchemy=={line}.*"
    environments.install(python, "-e", f"{ROOT}[test]", "opentelemetry-sdk", pinned)
    missing = {}
    try:
        environments.install(python, *PEERS, pinned)
    except subprocess.CalledProcessError:  # one of them: find out which
        for peer in PEERS:
            try:
                environments.install(python, peer, pinned)
            except subprocess.CalledProcessError:
                missing[peer] = f"could not be installed beside SQLAlchemy {line}"
    return str(python), missing


def run(python: str, script: str, *options: str) -> None:
    print(f"\n== {script} {' '.join(options)} ==", flush=True)
    # Otherwise every start-up compiles all of SQLAlchemy, where that was installed uncompiled.
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([python, str(HERE / script), *options], check=False, cwd=ROOT, env=inherited)
    if done.returncode:
        print(f"{script} ended with status {done.returncode}: its part of RESULTS.md is of an earlier run, or missing")


# --- writing ----------------------------------------------------------------------------------------------------------


def read(name: str) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        return json.loads((RESULTS / f"{name}.json").read_text())
    return None


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|---|" + "---:|" * (len(head) - 1),
        *("| " + " | ".join(r) + " |" for r in rows),
    ]


def overhead_page(found: dict[str, Any] | None, unit: str) -> list[str]:
    """A row for each subject, a column for each workload: what it adds, and its quartiles."""
    if found is None:
        return [NEVER]
    rows = found["rows"]
    names = list(dict.fromkeys(name for row in rows for name in row["added"]))
    names.sort(key=lambda name: (name not in {"null", "empty listeners"}, not name.startswith("sqlprobe")))
    body = [["*the statement itself*", *(f"*{row['baseline']:,.0f}*" for row in rows)]]
    for name in names:
        cells = []
        for row in rows:
            value = row["added"].get(name)
            if value is None:
                cells.append("failed")
                continue
            low, high = row.get("quartiles", {}).get(name, (None, None))
            least = f"; {row['least'][name]:+,.1f}" if "least" in row else ""
            spread = "" if low is None else f" ({low:+,.1f} to {high:+,.1f}{least})"
            cells.append(f"{value:+,.1f}{spread}" if unit == "us" else f"{value:+,.0f}")
        body.append([name, *cells])
    page = table(["adds to a statement", *(row["workload"] for row in rows)], body)
    failed = {(name, why) for row in rows for name, why in row["failed"].items()}
    failed |= set(found.get("missing", {}).items())
    notes = [f"- {name} did not run: {why}" for name, why in sorted(failed)]
    if unit == "us":
        load = f"{found['load']:.1f}" if "load" in found else "not recorded"
        notes.append(
            f"- {found['rounds']} rounds. Load average: {load}; above the number of cores, trust no figure alone."
        )
        if len(rows) < WORKLOADS:
            notes.append(f"- {WORKLOADS - len(rows)} of the {WORKLOADS} workloads have not been run here.")
    return [*page, "", *notes]


def verdicts(found: dict[str, Any] | None) -> list[str]:
    """The targets of the project, by this run: whatever comes out."""
    if found is None:
        return [NEVER]
    body = []
    for row in found["rows"]:
        added = row["added"]
        recording = {name: added[name] for name in RECORDING if name in added}
        if not recording or SCOPE not in added:
            continue
        cheapest = min(recording, key=recording.__getitem__)
        lazy = "lazy" in row["workload"]
        wanted: list[tuple[str, str, str, float]] = [
            (SCOPE, cheapest, "1/3" if lazy else "1/4", 1 / 3 if lazy else 1 / 4)
        ]
        if not lazy:
            wanted.insert(0, (OUTSIDE, cheapest, "1/5", 1 / 5))
        wanted += [
            (SCOPE, "OpenTelemetry, sampled", "1/15", 1 / 15),
            (SCOPE, "OpenTelemetry, not sampled", "1/6", 1 / 6),
        ]
        noise = 0.0
        with contextlib.suppress(KeyError):
            noise = max(map(abs, row["quartiles"]["null"]))
        for mine, theirs, share, limit in wanted:
            if mine not in added or theirs not in added:
                continue
            told = f"{added[mine] / added[theirs]:.2f}" if added[theirs] > noise else "-"
            if added[theirs] <= noise:
                verdict = "lost in the noise"
            elif added[mine] <= limit * added[theirs]:
                verdict = "yes" if noise <= limit * added[theirs] else "yes, but for the noise"
            elif added[mine] - noise <= limit * added[theirs]:
                verdict = "not told apart by the noise"
            else:
                verdict = "**no**" if added[mine] < added[theirs] else "**no: the peer is cheaper**"
            body.append([row["workload"], mine, theirs, told, share, verdict])
    return table(["workload", "of sqlprobe", "beside", "ratio", "wanted at most", "holds"], body)


def detection_page(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return [NEVER]
    counts, programs = found["counts"], found["counts"]["programs"]
    tools = [name for name in counts if name != "programs"]
    faulty, clean = programs["faulty"], programs["clean"]
    page = table(
        [f"{faulty} programs with a fault, {clean} clean ones", *tools],
        [
            ["fault found", *(f"{counts[tool].get('found', 0)}" for tool in tools)],
            ["... relationship, class or table named", *(f"{counts[tool].get('named', 0)}" for tool in tools)],
            ["... line named", *(f"{counts[tool].get('placed', 0)}" for tool in tools)],
            ["clean program accused", *(f"{counts[tool].get('accused', 0)}" for tool in tools)],
            ["program broke under it", *(f"{counts[tool].get('broke', 0)}" for tool in tools)],
        ],
    )
    body = [
        [rule, str(each["programs"]), *(str(each.get(tool, 0)) for tool in tools)]
        for rule, each in found["rules"].items()
    ]
    return [
        *page,
        "",
        "The same by the rule that the fault is written for:",
        "",
        *table(["rule", "programs", *tools], body),
        "",
        (
            "The corpus is this project's own and knows faults (write loops, row explosions) that some of the others do not "
            "look for: read the rows of each rule, not the sum. sqltap, OpenTelemetry, ddtrace and Sentry give no "
            "verdict in the process."
        ),
        *(f"- {tool} did not run: {why}" for tool, why in found["failed"].items()),
    ]


def reading_page(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return [NEVER]
    page = []

    def part(name: str) -> Any:
        value = found.get(name)
        if value is None or (isinstance(value, dict) and "failed" in value):
            page.append(f"- {name}: {NEVER if value is None else 'failed, ' + value['failed']}")
            return None
        return value

    if rows := part("reports"):
        head = [
            "fingerprints",
            "`probe.report()`, ms",
            "`to_json()`, ms",
            "JSON, kB",
            "scrape, ms",
            "HTML, ms",
            "HTML, kB",
        ]
        keys = ("report_ms", "json_ms", "json_kb", "scrape_ms", "html_ms", "html_kb")
        page += table(head, [[f"{row['fingerprints']:,}", *(f"{row[key]:,.1f}" for key in keys)] for row in rows])
        page.append("")
    for name, texts in (("memory_50", "50"), ("memory_100000", "100,000")):
        if value := part(name):
            page.append(
                f"- Memory, {texts} distinct texts: {value['first']:.1f} MB after {found['statements'] // 10:,} statements, "
                f"{value['last']:.1f} MB after {found['statements']:,} ({value['last'] - value['first']:+.1f} MB); "
                f"{value['calls']:,} were counted."
            )
    if value := part("start_up"):
        page.append(
            f"- `sqlprobe run`: {value['run_ms']:,.0f} ms of CPU for a program of one statement that takes "
            f"{value['alone_ms']:,.0f} ms alone; it writes its summary in that time."
        )
    if value := part("explainer"):
        page.append(
            f"- A plan asked for in the background: {value['cpu_ms']:.1f} ms of CPU here, {value['wall_ms']:.1f} ms until "
            f"the answer, the server's part in it. At the default budget about {value['cpu_s_an_hour']:.1f} s of CPU and "
            f"{value['wall_s_an_hour']:.1f} s of waiting an hour."
        )
    return page


def write() -> None:
    # Every run that is kept is told, not the best one: overhead-2.1.json, overhead-2.1-first.json.
    names = {line: [path.stem for path in sorted(RESULTS.glob(f"overhead-{line}*.json"))] for line in LINES}
    found = {name: read(name) for line in LINES for name in names[line] or [f"overhead-{line}"]}
    versions = next((each["versions"] for each in found.values() if each), {})
    rounds = {each["rounds"] for each in found.values() if each}
    when = [time.strftime("%Y-%m-%d", time.gmtime(path.stat().st_mtime)) for path in sorted(RESULTS.glob("*.json"))]
    page = [
        "# Results",
        "",
        "Written by `make bench-compare` (`python bench/compare.py`); `make bench` runs the rest of `bench/` too. Not edited by hand.",
        "",
        f"- Date: {max(when, default='never')}; machine: {platform.system()} {platform.machine()}, {os.cpu_count()} shared cores",
        f"- Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}",
        (
            f"- {' and '.join(map(str, sorted(rounds)))} rounds; medians, and in brackets quartiles and what the fastest batches differ by. `null` is a second "
            "baseline: a figure inside its quartiles is noise."
        ),
        (
            "- Each peer in its normal set-up, with what it does not do here left out, to its advantage: no network (transports "
            "that drop), Sentry and ddtrace with their SQLAlchemy integration alone, the test tools without their verdict "
            "at the end (sqlprobe's judgement is in its figure). queryspy puts its listeners on and off with each recording, "
            "which is in its figure."
        ),
        (
            "- OpenTelemetry's instrumentation declares SQLAlchemy < 2.1 and installs nothing on 2.1 by itself: there it "
            "runs with `skip_dep_check=True`."
        ),
        "",
    ]
    for name, each in found.items():
        line = name.removeprefix("overhead-")
        version = f"{each['versions']['SQLAlchemy']} ({name})" if each else line
        page += [
            f"## Overhead on SQLAlchemy {version}",
            "",
            "CPU microseconds a statement.",
            "",
            *overhead_page(each, "us"),
            "",
        ]
    counted = read("instructions")
    if counted:
        page += [
            "## Overhead in instructions",
            "",
            (
                f"Counted by valgrind on SQLAlchemy {counted['versions']['SQLAlchemy']}: the same on every run, however "
                "busy the machine is."
            ),
            "",
            *overhead_page(counted, "instructions"),
            "",
        ]
    page += ["## The targets", "", "Beside the cheapest peer that records statements, and OpenTelemetry.", ""]
    for name, figures in (*found.items(), ("Instructions", counted)):
        if figures:
            page += [f"### {name}", "", *verdicts(figures), ""]
    page += [
        "## Detection",
        "",
        *detection_page(read("detection")),
        "",
        "## Reading and keeping",
        "",
        *reading_page(read("reading")),
        "",
    ]
    page += [
        "## Not measured",
        "",
        "- The lab that verifies advice: `python bench/lab.py` prints its start-up and its time per candidate.",
        "",
    ]
    PAGE.write_text("\n".join(page))
    print(f"wrote {PAGE.relative_to(ROOT)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write RESULTS.md from the last figures, and run nothing")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each workload (15)")
    parser.add_argument(
        "--parts",
        default="overhead-2.1,overhead-2.0,detection,reading",
        help="what to run, with commas between; instructions is one more, slow, and needs valgrind",
    )
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    parts = [] if options.write else options.parts.split(",")
    known = {"overhead-2.1", "overhead-2.0", "detection", "reading", "instructions"}
    if unknown := set(parts) - known:
        parser.error(f"--parts: {', '.join(sorted(unknown))}: there are {', '.join(sorted(known))}")
    for line in LINES:
        mine = [part for part in parts if part == f"overhead-{line}" or (line == LINES[0] and "overhead" not in part)]
        if not mine:
            continue
        python, missing = environment(line)
        for peer, why in missing.items():
            print(f"{peer}: {why}", flush=True)
        for part in mine:
            output = ("--json", str(RESULTS / f"{part}.json"))
            if part.startswith("overhead"):
                run(python, "peers.py", "--rounds", str(options.rounds), *output)
            elif part == "instructions":
                run(python, "peers.py", "--instructions", *output)
            else:
                run(python, f"{part}.py", *output)
    write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
