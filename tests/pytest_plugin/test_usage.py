"""Wrong use ends the run before its first test, and names what would do."""

from __future__ import annotations

import pytest

TESTS = "def test_it(engine):\n    shop.quickly(engine)\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sqlprobe=fial"], "--sqlprobe: no mode is called 'fial'; did you mean 'fail'?"),
        (["--sqlprobe-fail-on=n-plus-two"], "sqlprobe_fail_on: no rule is called 'n-plus-two'; did you mean 'n-plus-one'?"),
        (["--sqlprobe-basline=x"], "sqlprobe has no option --sqlprobe-basline; did you mean --sqlprobe-baseline?"),
        (["--sqlprobe-max-queries=few"], "sqlprobe_max_queries: a whole number is needed, found 'few'"),
        (["--sqlprobe-ignore=n-plus-ones"], "sqlprobe_ignore: no rule is called 'n-plus-ones'; did you mean 'n-plus-one'?"),
        (["--sqlprobe-ignore=write-lop:Order"], "sqlprobe_ignore: no rule is called 'write-lop'; did you mean 'write-loop'?"),
        (["--sqlprobe-report=report.txt"], "*report.txt: the suffix names the format, found the suffix '.txt'; use .json*"),
        (["--sqlprobe-report=no/such/report.json"], "*report.json: is in no folder that exists; name a file in a folder*"),
        (["--sqlprobe-baseline=none.json"], "*none.json: there is no such file; write it once: pytest --sqlprobe-update-*"),
        (["--sqlprobe-update-baseline"], "--sqlprobe-update-baseline: which file? add --sqlprobe-baseline=FILE"),
        (["--sqlprobe-write-budgets"], "--sqlprobe-write-budgets: which file? add --sqlprobe-budgets=FILE"),
        (["--sqlprobe-budgets=none.toml"], "*none.toml: cannot be read: No such file or directory; name a TOML file*"),
        (["--sqlprobe-settings=slow=1"], "sqlprobe_settings: no setting is called 'slow'; did you mean 'slow_seconds'?"),
        (["--sqlprobe-settings=slow_seconds"], "sqlprobe_settings: 'slow_seconds' is no setting; write it as slow_seconds=0.5"),
        (["--sqlprobe-github=yes"], "sqlprobe_github: 'yes' cannot be; there are: auto, on, off"),
    ],
)  # fmt: skip
def test_options(suite, arguments, message):
    result = suite(TESTS, *arguments)

    assert 4 == result.ret
    result.stderr.fnmatch_lines([f"ERROR: *{message.lstrip('*')}"])
    result.stdout.no_fnmatch_line("*passed*")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sqlprobe_fail = any", "*sqlprobe has no ini key sqlprobe_fail; did you mean sqlprobe_fail_on?"),
        ("sqlprobe_mode = stop", "*no mode is called 'stop'*"),
        ("sqlprobe_update_baseline = 1", "*sqlprobe has no ini key sqlprobe_update_baseline; did you mean sqlprobe_baseline?"),
    ],
)  # fmt: skip
def test_ini_keys(suite, pytester, line, message):
    pytester.makeini(f"[pytest]\n{line}\n")

    result = suite(TESTS)

    assert 4 == result.ret
    result.stderr.fnmatch_lines([message])


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("max_query=3", "(max_query=...): there is no such argument; did you mean 'max_queries'?"),
        ("3", "(3): arguments need a name, such as max_queries=3"),
        ("max_queries=-1", "(max_queries=-1): a whole number from 0 on is needed"),
        ("max_queries=1.5", "(max_queries=1.5): a whole number from 0 on is needed"),
        ("max_queries=True", "(max_queries=True): a whole number from 0 on is needed"),
        ("max_seconds='1'", "(max_seconds='1'): a number from 0 on is needed"),
        ("zero_ok=1", "(zero_ok=1): True or False is needed"),
        ("mode='of'", "(mode='of'): no mode is called 'of'; did you mean 'off'?"),
        ("allow=['n-plus-on']", "(allow=...): no rule is called 'n-plus-on'; did you mean 'n-plus-one'?"),
        ("allow=3", "(allow=3): a list is needed, such as ['n-plus-one']"),
        ("allow=['']", "(allow=...): '' allows nothing; use a rule, rule:label or a label*"),
        ("populate=3", "(populate=3): a function of the size, or the name of a fixture that is one, is needed"),
        ("populate='fill', sizes=(5, 2)", "(sizes=(5, 2)): sizes=(5, 2): two or more different whole numbers*"),
        ("populate='fill', max_queries=3", "(populate=...): a scale test has no budget beside it*"),
    ],
)  # fmt: skip
def test_marker_arguments(suite, marker, message):
    result = suite(f"@pytest.mark.sqlprobe({marker})\n{TESTS}")

    assert 4 == result.ret
    result.stderr.fnmatch_lines([f"ERROR: test_it.py::test_it: @pytest.mark.sqlprobe{message}"])
    result.stdout.no_fnmatch_line("*1 passed*")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read: Expecting property name*; mend it, or delete it and write it anew: pytest --sqlprobe-*"),
        ("[]", 'no baseline: "format" is None; mend it*'),
        ('{"format": "sqlprobe-report/1"}', "no baseline: \"format\" is 'sqlprobe-report/1'; mend it*"),
        ('{"format": "sqlprobe-baseline/2"}', "its format is sqlprobe-baseline/2, this version reads up to *; update sqlprobe"),
        ('{"format": "sqlprobe-baseline/1", "findings": [{}]}', '"findings" is no list of objects that have a "key"*'),
        ('{"format": "sqlprobe-baseline/1", "findings": [{"key": 3}]}', '"findings" is no list of objects that have a "key"*'),
    ],
)  # fmt: skip
def test_baselines_that_cannot_be(suite, pytester, text, message):
    (pytester.path / "base.json").write_text(text)

    result = suite(TESTS, "--sqlprobe-baseline=base.json", "--sqlprobe-update-baseline")

    assert 4 == result.ret
    result.stderr.fnmatch_lines([f"ERROR: sqlprobe: baseline *base.json: {message}"])
    assert text == (pytester.path / "base.json").read_text()


def test_the_marker_is_known_to_strict_markers(suite):
    suite("@pytest.mark.sqlprobe(exactly=2)\n" + TESTS, "--strict-markers").assert_outcomes(passed=1)


def test_a_wrong_number_in_a_block(suite):
    result = suite("def test_it(sqlprobe):\n    sqlprobe.max_queries('three')\n")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*sqlprobe.max_queries('three'): a whole number from 0 on is needed"])


def test_the_fixture_belongs_to_one_test(suite):
    result = suite(
        """
@pytest.fixture(scope="module")
def watched(sqlprobe):
    pass

def test_it(watched):
    pass
""",
    )

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*ScopeMismatch*"])


def test_a_pytest_that_is_too_old_is_left_alone(suite, monkeypatch):
    monkeypatch.setattr(pytest, "version_tuple", (7, 4, 4))

    suite(TESTS).assert_outcomes(passed=1)

    result = suite(None, "--sqlprobe=fail")
    assert 4 == result.ret
    result.stderr.fnmatch_lines(["ERROR: sqlprobe needs pytest 8, found *; update pytest"])
