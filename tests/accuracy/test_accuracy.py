"""
The corpus, run: each fault is told by its rule, label, count, lines and a fix that works; nothing else is told.

`docs/accuracy.md` is made of runs of all of it, of one version of SQLAlchemy after the other:
`SQLPROBE_ACCURACY=docs/accuracy.md SQLPROBE_ACCURACY_COUNTS=FOLDER pytest -m "" -k everywhere tests/accuracy`. Each run
leaves its counts in the folder, and the page sums up what is there.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import corpus_clean
import corpus_harness as harness
import corpus_models
import corpus_published
import pytest
import sqlalchemy as sa
from corpus_programs import PROGRAMS

pytestmark = pytest.mark.versions

assert corpus_clean.CLEAN
assert corpus_published.__doc__
FAULTS = {name: program for name, program in PROGRAMS.items() if program.expected}
CLEAN = {name: program for name, program in PROGRAMS.items() if not program.expected}
VERSION = sa.__version__
SLICE = 5  # of the corpus, each fifth program also runs elsewhere in every run of the tests
SIZES = (2, 3, 50)
WHERE = ("sqlite", "sqlite-async", "postgresql", "postgresql-async")

SCENARIOS = {  # title, and what else holds us to it
    1: ("a collection of each parent, in each way to ask for the parents", ""),
    2: ("a reference of each child: distinct targets, one target", ""),
    3: ("the targets are in the session already, or were dropped from it", ""),
    4: ("`awaitable_attrs` in a loop", ""),
    5: ("eager loads in chunks of 500", ""),
    6: ("`yield_per` and `partitions` with eager loads", ""),
    7: ("each loader option", ""),
    8: ("one level is loaded ahead, the next is not", ""),
    9: ("objects that were fetched each for itself", "`detectors/test_n_plus_one.py`"),
    10: ("one collection read twice, one parent only", ""),
    11: ("`get()` in a loop, of objects known and unknown", ""),
    12: ("the loop is in one function, the query in another", "`detectors/test_nested.py`"),
    13: ("Core, `text()`, driver SQL, literals in the text", ""),
    14: ("the same parameters: a loop, several lines, polling", "`detectors/test_patterns.py`"),
    15: ("pages by OFFSET and by key, or a page for each row", "`detectors/test_walks.py`"),
    16: ("chunks of an IN list, or a list for each row", "`detectors/test_walks.py`"),
    17: ("several requests in one test or scope", "`detectors/test_nested.py`, `pytest_plugin/`"),
    18: ("a session for each row, tasks, threads", "`test_concurrency.py`, `test_autoscope.py`"),
    19: ("tasks at the same time, each with its own statement", "`test_concurrency.py`"),
    20: ("objects that a commit made stale", ""),
    21: ("deferred columns, `load_only`, columns of a subclass", ""),
    22: ("`refresh()` in a loop, and after a write", ""),
    23: ("writes row by row, or many at once", ""),
    24: ("an autoflush between a lazy load and its SELECT", ""),
    25: ("savepoints, catalogs, sequences, settings between", "`test_capture.py`"),
    26: ("dynamic and write-only relationships, `with_parent()`", ""),
    27: ("properties, templates, Pydantic: no line of the user's below", "`detectors/test_n_plus_one.py`"),
    28: ("a tree, down and up", ""),
    29: ("subclasses, new objects, NULL", ""),
    30: ("streams, errors, comments, engines", "`test_capture.py`, `test_scopes.py`, `pytest_plugin/`"),
}
told = Counter()  # what all runs of this process saw, for the page


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory):
    with harness.closing(harness.sqlite_place(tmp_path_factory.mktemp("corpus"))) as place:
        yield place


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory, module_postgresql_url):
    with harness.closing(harness.postgresql_place(tmp_path_factory.mktemp("corpus"), module_postgresql_url)) as place:
        yield place


@pytest.fixture(scope="module", autouse=True)
def write_the_page():
    yield
    folder = os.environ.get("SQLPROBE_ACCURACY_COUNTS")
    if folder:
        counts = [[*key, count] for key, count in told.items()]
        (Path(folder) / f"{VERSION}-{os.getpid()}.json").write_text(json.dumps(counts), encoding="utf-8")
        told.clear()
        for file in sorted(Path(folder).glob("*.json")):
            for *key, count in json.loads(file.read_text(encoding="utf-8")):
                told[tuple(key)] += count
    path = os.environ.get("SQLPROBE_ACCURACY")
    if path:
        Path(path).write_text(page(), encoding="utf-8")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """A program has its own models: other tests of this process map tables of the same names."""
    monkeypatch.setattr("sqlprobe.orm.mappers", lambda: list(corpus_models.Base.registry.mappers))


def verdict(place, program, n, where):
    """What is wrong with what was told of *program*; empty where nothing is."""
    asynchronous = where.endswith("async")
    outcome = place.run(program, program.source, n, asynchronous=asynchronous)
    got = [harness.told(finding) for finding in outcome.findings]
    wanted = [harness.wanted(expected, program.source, n) for expected in program.expected]
    wrong = [f"told: {each}" for each in got if not any(harness.fits(want, each) for want in wanted)]
    whose = "published" if program.shape else "ours"
    told["false", whose] += len(wrong)
    told["runs", where, VERSION] += 1
    told["programs", whose] += 1
    for expected, want in zip(program.expected, wanted, strict=True):
        found = any(harness.fits(want, each) for each in got)
        told["found" if found else "missed", expected.rule] += 1
        told["found" if found else "missed", whose] += 1
        if not found:
            wrong.append(f"not told: {want}, but {got}")
        elif expected.mended or _rewrites(outcome, expected):
            told["fixes", expected.rule] += 1
            failure = harness.mend(place, program, expected, n, outcome, asynchronous=asynchronous)
            if failure:
                wrong.append(failure)
            else:
                told["mended", expected.rule] += 1
    return wrong


def _rewrites(outcome, expected):
    """Whether a statement was printed that is to stand in a loop's place, expected or not: it has to work."""
    same = [f for f in outcome.findings if (f.rule, f.label) == (expected.rule, expected.label)]
    return expected.rule in {"repeated-statement", "write-loop"} and any(f.fixes for f in same)


def sizes(program, among):
    return [n for n in among if n >= program.least] or [max(program.least, 3)]


@pytest.mark.parametrize("name", [name for name, program in PROGRAMS.items() if not program.asynchronous])
def test_program(sqlite, name):
    assert [] == verdict(sqlite, PROGRAMS[name], max(3, PROGRAMS[name].least), "sqlite")


@pytest.mark.parametrize("name", [name for name, program in PROGRAMS.items() if program.asynchronous])
def test_async_program(sqlite, name):
    assert [] == verdict(sqlite, PROGRAMS[name], max(3, PROGRAMS[name].least), "sqlite-async")


@pytest.mark.parametrize("name", [*list(FAULTS)[::SLICE], *list(CLEAN)[::SLICE]])
def test_program_on_postgresql(postgresql, name):
    program = PROGRAMS[name]
    where = "postgresql-async" if program.asynchronous or len(name) % 2 else "postgresql"

    assert [] == verdict(postgresql, program, max(3, program.least), where)


@pytest.mark.exhaustive
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("name", PROGRAMS)
def test_program_everywhere(request, name, where):
    program = PROGRAMS[name]
    if program.asynchronous and not where.endswith("async"):
        return
    place = request.getfixturevalue(where.removesuffix("-async"))
    wrong = {n: found for n in sizes(program, SIZES) if (found := verdict(place, program, n, where))}

    assert {} == wrong


def test_corpus_is_as_large_as_it_says():
    assert 160 <= len(PROGRAMS)
    assert 0.4 <= len(FAULTS) / len(PROGRAMS) <= 0.6
    assert {*range(1, 31)} - {program.scenario for program in PROGRAMS.values()} == set()


def test_each_scenario_has_a_program_and_the_tests_it_names():
    here = Path(__file__).parents[1]
    named = [name for _, tests in SCENARIOS.values() for name in tests.replace("`", "").split(", ") if name]
    assert ([*range(1, 31)], []) == ([*SCENARIOS], [name for name in named if not (here / name).exists()])


def page():
    counted = {key[1] for key in told if key[0] in {"found", "missed"}}
    rules = sorted(counted - {"ours", "published"})
    published = [program for program in PROGRAMS.values() if program.shape]
    lines = [
        "# Accuracy",
        "",
        f"What sqlprobe says of a corpus of {len(PROGRAMS)} small programs in `tests/accuracy/`: {len(FAULTS)} have a fault,",
        f"{len(CLEAN)} look as if they had one and are clean. Each runs for loops of 2, 3 and 50 rows (from the size on at which",
        "the fault is one), on SQLite and PostgreSQL, as sync code and inside an async engine (see below for how much of that was",
        "run). A fault counts as found if rule,",
        "label, the line that does it and, where it has one, the line of the query behind it are right, and the count is within",
        "one call or a tenth. A fix counts as working if the code of the finding's first fix, pasted into the program by",
        "the harness, makes the finding go away with the same result; where a commit had made objects stale, the fix for",
        "that comes first, and the next finding's fix after it. A query that is to stand in a loop's place, for all `values`,",
        "works if its rows are those of the loop's queries; a statement for all `rows` or `ids`, in place of a loop's writes,",
        "if the table is then what the loop makes of it. To change the loop's body is left to people. Advice in words has no",
        "code to try: hoist what is the same each time.",
        "",
        "The corpus was written together with the rules, and each disagreement was mended in one of the two: these figures say",
        "that nothing broke since, and not what a stranger's program will see.",
        "",
        "| rule | faults run | found | recall | fixes tried | working |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for rule in rules:
        found, missed = told["found", rule], told["missed", rule]
        lines.append(
            f"| {rule} | {found + missed} | {found} | {found / (found + missed):.1%} | {told['fixes', rule]} | "
            f"{told['mended', rule]} |"
        )
    lines += [
        "",
        f"{len(published)} of the programs are shaped after code that we did not write: an issue, a change or a tutorial of another",
        "project, told anew on the tables of the corpus (`shape=` names it). They are a row of their own:",
        "",
        "| programs | runs | faults run | found | recall | false | precision |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for whose, name in (("ours", "our own"), ("published", "after others' code")):
        found, missed, false = told["found", whose], told["missed", whose], told["false", whose]
        lines.append(
            f"| {name} | {told['programs', whose]} | {found + missed} | {found} | {found / max(found + missed, 1):.1%} | "
            f"{false} | {found / max(found + false, 1):.1%} |"
        )
    lines += [
        "",
        "What was run for this page; all of the corpus is some 800 runs in each place. Where it is far less, it was the slice that",
        "each run of the tests takes: all programs at one size on SQLite, each fifth on PostgreSQL.",
    ]
    lines += ["", "| SQLAlchemy | " + " | ".join(WHERE) + " |", "|---|" + "---:|" * len(WHERE)]
    for version in sorted({key[2] for key in told if key[0] == "runs"}):
        lines.append(f"| {version} | " + " | ".join(f"{told['runs', where, version]:,} runs" for where in WHERE) + " |")
    lines += ["", *scenarios(), ""]
    return "\n".join(lines)


def scenarios():
    """Which programs show each of the 30 scenarios that a detector of N+1s and loops has to get right."""
    lines = [
        "## Scenarios",
        "",
        "What such a tool is known to get wrong, and the programs of the corpus, or the tests, that hold it to it.",
        "",
        "| | scenario | faults | clean | also |",
        "|---:|---|---|---|---|",
    ]
    for number, (title, tests) in SCENARIOS.items():
        mine = [program for program in PROGRAMS.values() if program.scenario == number]
        faults = " ".join(f"`{program.name}`" for program in mine if program.expected)
        clean = " ".join(f"`{program.name}`" for program in mine if not program.expected)
        lines.append(f"| {number} | {title} | {faults or '-'} | {clean or '-'} | {tests or '-'} |")
    return lines
