"""Budgets by scope name: one TOML file, for tests and for production."""

from __future__ import annotations

import pytest

import sqlprobe
from sqlprobe.budgets import budget_for, propose, write_budgets

TEXT = """\
# mine
[budgets]
"GET /orders" = 4  # exact
"GET /*" = 10
"GET /admin/*" = { max_queries = 20, reason = "reports" }
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "budgets.toml"
    path.write_text(TEXT)
    return path


def test_reads_numbers_and_tables_in_order(file):
    assert [("GET /orders", 4), ("GET /*", 10), ("GET /admin/*", 20)] == [*sqlprobe.load_budgets(file).items()]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GET /orders", ("GET /orders", 4)),
        ("GET /users", ("GET /*", 10)),
        ("GET /admin/users", ("GET /admin/*", 20)),
        ("POST /orders", None),
        ("GET /orders/{id}", ("GET /*", 10)),
    ],
)
def test_the_most_exact_entry_counts(file, name, expected):
    assert expected == budget_for(name, sqlprobe.load_budgets(file))


def test_of_two_equal_globs_the_first_counts():
    assert ("a*c", 1) == budget_for("abc", {"a*c": 1, "*bc": 2, "*": 3})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[budgets", "no TOML: "),
        ("[budget]", r"'budget' has no meaning here \(did you mean 'budgets'\?\); use \[budgets\] only"),
        ("budgets = 3", "a table is needed, found 3"),
        ('[budgets]\n"a" = "4"', "'a' = '4' is no budget"),
        ('[budgets]\n"a" = -1', "'a' = -1 is no budget"),
        ('[budgets]\n"a" = true', "'a' = True is no budget"),
        ('[budgets]\n"a" = 1.5', "'a' = 1.5 is no budget"),
        ('[budgets]\n"" = 1', "'' = 1 is no budget"),
        ('[budgets]\n"a" = { max_query = 1 }', r"'a' has the field 'max_query' \(did you mean 'max_queries'\?\)"),
        ('[budgets]\n"a" = { reason = "?" }', "is no budget"),
    ],
)
def test_files_that_cannot_be(tmp_path, text, message):
    path = tmp_path / "budgets.toml"
    path.write_text(text)

    with pytest.raises(sqlprobe.BudgetsError, match=message):
        sqlprobe.load_budgets(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(
        sqlprobe.BudgetsError, match=r"none\.toml: cannot be read: No such file or directory; name a TOML"
    ):
        sqlprobe.load_budgets(tmp_path / "none.toml")


def test_proposes_what_no_entry_covers_and_loosens_nothing():
    proposal = propose({"GET /a": 3, "GET /b*": 2}, {"GET /a": 9, "GET /bc": 2, "GET /c": 4, "GET /d": 0})

    assert {"GET /c": 4, "GET /d": 0} == proposal.added
    assert {"GET /a": (9, 3)} == proposal.over


def test_adds_entries_and_keeps_every_line(file):
    write_budgets(file, {'POST "x"\\y\n': 7, "é": 1})

    assert TEXT == file.read_text()[: len(TEXT)]
    assert 7 == sqlprobe.load_budgets(file)['POST "x"\\y\n']
    assert 1 == sqlprobe.load_budgets(file)["é"]


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "# nothing yet\n",
        "[budgets]",
        "[budgets]\n\n",
        '[budgets]  # here\n"b" = 2\n\n\n',
        "\n[budgets]\n'b' = 2",
    ],
)
def test_adds_to_files_of_every_form(tmp_path, text):
    path = tmp_path / "budgets.toml"
    if text is not None:
        path.write_text(text)

    write_budgets(path, {"a": 1})
    write_budgets(path, {"c": 3})

    read = sqlprobe.load_budgets(path)
    assert {"a": 1, "c": 3} == {name: limit for name, limit in read.items() if name != "b"}
    assert ("b" in read) == bool(text and "b" in text.replace("budgets", ""))
    assert [path] == list(tmp_path.iterdir())


def test_a_file_that_nothing_can_be_added_to_is_left_alone(tmp_path):
    path = tmp_path / "budgets.toml"
    path.write_text("budgets.a = 1\n")

    with pytest.raises(sqlprobe.SqlprobeError, match=r'(?s)"c" = 3|no TOML'):
        write_budgets(path, {"c": 3})

    assert "budgets.a = 1\n" == path.read_text()


@pytest.mark.parametrize("budgets", [{"a": -1}, {"a": "1"}, {1: 1}, {"": 1}, [("a", 1)], {"a": True}])
def test_settings_refuse_what_is_no_budget(budgets):
    with pytest.raises(sqlprobe.SettingsError, match="a mapping of scope names to numbers of statements"):
        sqlprobe.Settings(budgets=budgets)


def test_settings_of_the_environment(file):
    read = sqlprobe.Settings.from_env(environ={"SQLPROBE_BUDGETS": str(file)})
    assert sqlprobe.load_budgets(file) == read.budgets

    read = sqlprobe.Settings.from_env(environ={"SQLPROBE_BUDGETS": "GET /a=4, GET /b=x=5"})
    assert {"GET /a": 4, "GET /b=x": 5} == read.budgets

    for text, message in [("GET /a", "pairs are needed, such as GET /orders=4"), ("no.toml", "cannot be read")]:
        with pytest.raises(sqlprobe.SettingsError, match=f"SQLPROBE_BUDGETS=.*{message}"):
            sqlprobe.Settings.from_env(environ={"SQLPROBE_BUDGETS": text})
