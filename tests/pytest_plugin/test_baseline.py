"""Adopting the gate on an old code base: what is known does not fail, what is gone is told, nothing is lost."""

from __future__ import annotations

import json

import pytest

TESTS = """
def test_slow(engine):
    shop.slowly(engine)

def test_quick(engine):
    shop.quickly(engine)
"""
BASE = ("--sqlprobe=fail", "--sqlprobe-baseline=base.json")
UPDATE = (*BASE, "--sqlprobe-update-baseline")


def said(result):
    return [line.removeprefix("sqlprobe: ") for line in result.outlines if line.startswith("sqlprobe: ")]


@pytest.fixture
def base(pytester):
    return pytester.path / "base.json"


@pytest.fixture
def adopted(suite, base):
    suite(TESTS, *UPDATE).assert_outcomes(passed=2)
    return base


def test_known_findings_do_not_fail(suite, adopted):
    result = suite(None, *BASE)

    result.assert_outcomes(passed=2)
    assert ["nothing found in 2 tests, 8 statements"] == said(result)


def test_is_reviewable(adopted):
    document = json.loads(adopted.read_text())

    assert "sqlprobe-baseline/1" == document["format"]
    (entry,) = document["findings"]
    assert ("n-plus-one", "Order.items", "tests") == (entry["rule"], entry["label"], entry["scope"])
    assert entry["where"].startswith("shop.py slowly")
    assert 1 == sum('"key"' in line for line in adopted.read_text().splitlines())


def test_new_findings_still_fail(suite, pytester, adopted):
    result = suite(
        TESTS
        + """
def test_other(engine):
    with shop.Session(engine) as session:
        for item in session.scalars(sa.select(shop.Order)).all():
            item.items
""",
        *BASE,
    )

    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["FAILED test_it.py::test_other*"])


def test_survives_moved_lines_and_new_columns(suite, pytester, adopted):
    shop = (pytester.path / "shop.py").read_text()
    changed = shop.replace(
        '    items = relationship("Item")', '    items = relationship("Item")\n    note = mapped_column(sa.String)'
    )
    changed = changed.replace(
        "\nclass Item(Base):\n", "\n\n# moved\n\nclass Item(Base):\n    price = mapped_column(sa.Integer)\n"
    )
    assert len(changed) > len(shop) + 80

    (pytester.path / "shop.py").write_text(changed)
    pytester.makepyfile(test_it=f"import shop\n\n\n{TESTS}")
    result = pytester.runpytest_inprocess("-p", "pytest_sqlprobe", "-p", "no:cacheprovider", *BASE)

    result.assert_outcomes(passed=2)
    assert ["nothing found in 2 tests, 8 statements"] == said(result)


def test_stale_entries_are_told_and_taken_out(suite, adopted):
    mended = TESTS.replace("shop.slowly", "shop.quickly")

    result = suite(mended, *BASE)
    (line,) = [line for line in said(result) if line.startswith("baseline")]
    assert line.startswith("baseline: n-plus-one Order.items shop.py slowly")
    assert line.endswith("was not seen; --sqlprobe-update-baseline takes it out")

    result = suite(None, *UPDATE)
    assert "baseline base.json written: 0 findings, 0 new, 1 gone" in said(result)
    assert [] == json.loads(adopted.read_text())["findings"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-x"], "-x or --maxfail leaves tests out"),
        pytest.param(["--maxfail=3"], "-x or --maxfail leaves tests out", marks=pytest.mark.exhaustive),
        (["-k", "quick"], "-k leaves tests out"),
        (["-m", "not slow"], "some tests were deselected"),
        pytest.param(["-mnot slow"], "some tests were deselected", marks=pytest.mark.exhaustive),
        (["--deselect=test_it.py::test_slow"], "--deselect leaves tests out"),
        (["--collect-only"], "the tests were only collected"),
        pytest.param(["test_it.py"], "only a part of the suite was named", marks=pytest.mark.exhaustive),
        (["test_it.py::test_quick"], "only a part of the suite was named"),
        (["sub"], "only a part of the suite was named"),
    ],
)
def test_partial_runs_write_nothing_and_call_nothing_stale(suite, pytester, adopted, arguments, reason):
    pytester.mkdir("sub").joinpath("test_other.py").write_text("def test_other():\n    pass\n")
    before = adopted.read_text()
    mended = TESTS.replace("shop.slowly", "shop.quickly")

    result = suite(mended, *UPDATE, *arguments)

    assert before == adopted.read_text()
    assert f"baseline base.json was left as it is: {reason}" in said(result)
    assert [] == [line for line in said(suite(None, *BASE, *arguments)) if "not seen" in line]


@pytest.mark.long
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param("raise KeyboardInterrupt", "the run was interrupted", marks=pytest.mark.exhaustive),
        ("pytest.exit('enough')", "the run was interrupted"),
    ],
)
def test_interrupted_runs_write_nothing(suite, adopted, body, reason):
    before = adopted.read_text()

    # A KeyboardInterrupt would end this process too.
    result = suite(f"def test_it(engine):\n    {body}\n", *UPDATE, isolated="Keyboard" in body)

    assert before == adopted.read_text()
    assert f"baseline base.json was left as it is: {reason}" in said(result)


def test_a_module_that_cannot_be_collected_writes_nothing(suite, pytester, adopted):
    before = adopted.read_text()
    pytester.makepyfile(test_broken="import no_such_module")

    result = suite(None, *UPDATE, "--continue-on-collection-errors")

    assert before == adopted.read_text()
    assert "baseline base.json was left as it is: a module could not be collected" in said(result)


def test_entries_stay_while_tests_fail(suite, adopted):
    failing = TESTS.replace("    shop.slowly(engine)", "    assert False")

    result = suite(failing, *UPDATE)

    assert 1 == len(json.loads(adopted.read_text())["findings"])
    (line,) = [line for line in said(result) if line.startswith("baseline")]
    assert "1 findings, 0 new, 0 gone; entries stay where tests failed" in line


def test_a_selection_by_the_ini_file_is_the_whole_suite(suite, pytester, base):
    pytester.makeini("[pytest]\naddopts = -m 'not slow'\nmarkers = slow\n")

    result = suite(TESTS, *UPDATE)

    assert "baseline base.json written: 1 findings, 1 new, 0 gone" in said(result)


def test_a_folder_that_holds_the_whole_suite_may_be_named(suite, pytester, base):
    result = suite(TESTS, *UPDATE, pytester.path)

    assert "baseline base.json written: 1 findings, 1 new, 0 gone" in said(result)


def test_what_depends_on_the_machine_is_not_in_it(suite, base):
    suite("def test_it(engine):\n    shop.quickly(engine)\n", *UPDATE, "--sqlprobe-settings=slow_seconds=0.000000001")

    assert [] == json.loads(base.read_text())["findings"]


def test_a_file_that_cannot_be_written_is_told(suite, pytester):
    result = suite(TESTS, "--sqlprobe-baseline=no/such/base.json", "--sqlprobe-update-baseline")

    assert 4 == result.ret
    assert any("cannot be written: No such file or directory; name a file in a folder" in line for line in said(result))
