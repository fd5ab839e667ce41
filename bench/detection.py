"""
What each tool says of the accuracy corpus (`tests/accuracy`): `python bench/detection.py`, in an environment that has
the peers; `bench/compare.py` makes one.

Each program runs on SQLite with 50 rows under each tool that judges what it saw by itself, with the tool's defaults. A
program with a fault counts as found if the tool reports anything of it, as named if it also names the relationship,
class or table, and as placed if it names the line; a clean program counts as accused if it reports anything. Tools that
only record (sqltap, OpenTelemetry, ddtrace) or judge on a server (Sentry) have no verdict to compare.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "accuracy"))

import corpus_clean  # noqa: E402
import corpus_harness as harness  # noqa: E402
from corpus_programs import PROGRAMS  # noqa: E402

ROWS = 50
Says = list[str]  # one text for each thing that a tool reports
assert corpus_clean.CLEAN  # its import adds the clean half


@contextlib.contextmanager
def by_queryspy() -> Iterator[Callable[[], Says]]:
    import queryspy

    with queryspy.record() as recorder:
        yield lambda: [f"{each.label} {each.entity} {each.frame}" for each in recorder.findings()]


@contextlib.contextmanager
def by_queryguard() -> Iterator[Callable[[], Says]]:
    import pytest_queryguard

    with pytest_queryguard.record_queries() as log:

        def says() -> Says:
            try:
                log.assert_no_nplusone()
            except pytest_queryguard.NPlusOneDetected as error:
                return [str(error)]
            return []

        yield says


@contextlib.contextmanager
def by_querycount() -> Iterator[Callable[[], Says]]:
    from pytest_querycount import backends, recorder
    from pytest_querycount.checks import DEFAULT_DUPLICATE_THRESHOLD

    backends.install_all()
    mine = recorder.Recorder()
    backends.push(mine)
    try:
        yield lambda: [each.describe(1000) for each in mine.duplicates(DEFAULT_DUPLICATE_THRESHOLD)]
    finally:
        backends.pop(mine)


PEERS: dict[str, Callable[[], contextlib.AbstractContextManager[Callable[[], Says]]]] = {
    "queryspy": by_queryspy,
    "pytest-queryguard": by_queryguard,
    "pytest-querycount": by_querycount,
}


def by_sqlprobe(findings: list[Any]) -> Says:
    return [
        f"{each.label} {each.site and f'{each.site.file}:{each.site.line}'}"
        f" {each.origin and f'{each.origin.file}:{each.origin.line}'}"
        for each in findings
    ]


def run(tool: str, place: Any, program: Any, n: int) -> Says:
    if tool == "sqlprobe":
        return by_sqlprobe(place.run(program, program.source, n, asynchronous=program.asynchronous).findings)
    with PEERS[tool]() as says:
        place.run(program, program.source, n, asynchronous=program.asynchronous)
    return says()


def compare() -> dict[str, Any]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    rules: dict[str, Counter[str]] = defaultdict(Counter)
    failed: dict[str, str] = {}
    warnings.simplefilter("ignore")
    with (
        tempfile.TemporaryDirectory() as folder,
        harness.closing(harness.sqlite_place(Path(folder))) as place,
    ):
        for program in PROGRAMS.values():
            n = max(ROWS, program.least)
            kind = "faulty" if program.expected else "clean"
            counts["programs"][kind] += 1
            for expected in program.expected[:1]:
                rules[expected.rule]["programs"] += 1
            for tool in ("sqlprobe", *PEERS):
                if tool in failed:
                    continue
                try:
                    said = run(tool, place, program, n)
                except ImportError as error:
                    failed[tool] = str(error)
                    continue
                except Exception as error:  # noqa: BLE001 - the peer's, or of the program under it
                    counts[tool]["broke"] += 1
                    print(f"{tool}, {program.name}: {type(error).__name__}: {error}"[:300], file=sys.stderr)
                    continue
                if kind == "clean":
                    counts[tool]["accused"] += bool(said)
                elif said:
                    counts[tool]["found"] += 1
                    rules[program.expected[0].rule][tool] += 1
                    text = " ".join(said)
                    expected = program.expected[0]
                    lines = {harness.line_of(program.source, mark) for mark in (expected.site, expected.origin)} - {
                        None
                    }
                    counts[tool]["named"] += expected.label.rpartition(".")[2] in text
                    counts[tool]["placed"] += any(re.search(rf":{line}\b", text) for line in lines)
    return {
        "rows": ROWS,
        "failed": failed,
        "counts": {name: dict(each) for name, each in counts.items()},
        "rules": {name: dict(each) for name, each in rules.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="write the figures to this file too")
    options = parser.parse_args()
    found = compare()
    print(json.dumps(found, indent=1))
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
