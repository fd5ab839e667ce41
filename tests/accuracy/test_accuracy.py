"""
The corpus, run: each fault is told by its rule, label, count, lines and a fix that works; nothing else is told.

`docs/accuracy.md` is made of a run of all of it: `SQLPROBE_ACCURACY=docs/accuracy.md pytest -m "" -k everywhere tests/accuracy`.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import corpus_clean
import corpus_published
import corpus_harness as harness
import pytest
from corpus_programs import PROGRAMS

pytestmark = pytest.mark.versions

assert corpus_clean.CLEAN
assert corpus_published.__doc__
FAULTS = {name: program for name, program in PROGRAMS.items() if program.expected}
CLEAN = {name: program for name, program in PROGRAMS.items() if not program.expected}
SLICE = 5  # of the corpus, each fifth program also runs elsewhere in every run of the tests
SIZES = (2, 3, 50)
WHERE = ("sqlite", "sqlite-async", "postgresql", "postgresql-async")

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
    path = os.environ.get("SQLPROBE_ACCURACY")
    if path:
        Path(path).write_text(page(), encoding="utf-8")


def verdict(place, program, n, where):
    """What is wrong with what was told of *program*; empty where nothing is."""
    asynchronous = where.endswith("async")
    outcome = place.run(program, program.source, n, asynchronous=asynchronous)
    got = [harness.told(finding) for finding in outcome.findings]
    wanted = [harness.wanted(expected, program.source, n) for expected in program.expected]
    wrong = [f"told: {each}" for each in got if not any(harness.fits(want, each) for want in wanted)]
    told["false", "all"] += len(wrong)
    told["runs", where] += 1
    for expected, want in zip(program.expected, wanted, strict=True):
        found = any(harness.fits(want, each) for each in got)
        told["found" if found else "missed", expected.rule] += 1
        if not found:
            wrong.append(f"not told: {want}, but {got}")
        elif expected.mended:
            told["fixes", expected.rule] += 1
            failure = harness.mend(place, program, expected, n, outcome, asynchronous=asynchronous)
            if failure:
                wrong.append(failure)
            else:
                told["mended", expected.rule] += 1
    return wrong


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


def page():
    rules = sorted({rule for kind, rule in told if kind in {"found", "missed"}})
    lines = [
        "# Accuracy",
        "",
        f"What sqlprobe says of a corpus of {len(PROGRAMS)} small programs in `tests/accuracy/`: {len(FAULTS)} have a",
        f"fault, {len(CLEAN)} look as if they had one and are clean. Each runs for loops of 2, 3 and 50 rows (from the size on at which the fault is",
        "one), on SQLite and PostgreSQL, as sync code and inside an async engine. A fault counts as found if rule, label,",
        "the line that does it and, where it has one, the line of the query behind it are right, and the count is within",
        "one call or a tenth. A fix counts as working if the code of the finding's first fix, pasted into the program by",
        "the harness, makes the finding go away with the same result; where a commit had made objects stale, the fix for",
        "that comes first, and the next finding's fix after it.",
        "",
        "The corpus is ours: it was written together with the rules, so these figures say that nothing broke, and not what",
        "a stranger's program will see.",
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
    found = sum(told["found", rule] for rule in rules)
    false = told["false", "all"]
    runs = ", ".join(f"{where} {told['runs', where]}" for where in WHERE if told["runs", where])
    lines += [
        "",
        f"Findings that were right: {found}; that were not: {false}: a precision of {found / max(found + false, 1):.1%}.",
        f"Runs: {runs}.",
        "",
    ]
    return "\n".join(lines)
