"""`sqlprobe explain`."""

from __future__ import annotations

import io
import json

import pytest
import sqlalchemy as sa

import sqlprobe
from sqlprobe import cli, explaining
from sqlprobe.plans.explain import split

ROWS = """
CREATE TABLE IF NOT EXISTS orders (id int PRIMARY KEY, customer int, doc jsonb);
INSERT INTO orders SELECT g, g % 5000, jsonb_build_object('k', g) FROM generate_series(1, 20000) g ON CONFLICT DO NOTHING;
ANALYZE orders
"""


@pytest.fixture(scope="module")
def url(module_postgresql_url, postgresql_server):
    postgresql_server.psql(ROWS, module_postgresql_url().database)
    return lambda driver="psycopg": module_postgresql_url(driver).render_as_string(hide_password=False)


def explained(capsys, *arguments):
    status = cli.main(["explain", *arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_plan_and_findings_of_a_statement_are_shown_without_constants(capsys, url, driver):
    status, out, err = explained(
        capsys, "--url", url(driver), "SELECT * FROM orders WHERE customer = 918273645::numeric"
    )

    assert (0, "") == (status, err)
    assert "Filter: ((orders.customer)::numeric = ?::numeric)" in out
    assert "rule:   unusable-predicate" in out
    assert "orders.c.customer == int(value)" in out
    assert "918273645" not in out


def test_statements_come_from_files_and_standard_input_too(capsys, url, tmp_path, monkeypatch):
    (tmp_path / "q.sql").write_text("SELECT 1; -- a comment; with a semicolon\nSELECT 2")
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT 'a;b', $$c;d$$;"))
    status, out, _ = explained(capsys, "--url", url(), str(tmp_path / "q.sql"), "-")

    assert (0, 3, 3) == (status, out.count("Result"), out.count("nothing is wrong with it"))


def test_analyze_runs_what_it_may_and_says_what_not(capsys, url):
    status, out, _ = explained(
        capsys,
        "--url",
        url(),
        "--analyze",
        "SELECT * FROM orders WHERE id < 5",
        "DELETE FROM orders",
        "SELECT pg_sleep(9)",
    )

    assert (0, True) == (status, "rows 4, really 4" in out)
    assert "note: not run: DELETE with ANALYZE, which would run it" in out
    assert "note: not run: calls of pg_sleep" in out


def test_settings_decide_plans(capsys, url):
    _, out, _ = explained(capsys, "--url", url(), "--set", "enable_seqscan=off", "SELECT * FROM orders WHERE id > 0")

    assert "Index Scan using orders_pkey on orders" in out or "Bitmap Heap Scan on orders" in out


def test_a_reports_statements_are_explained_and_its_findings_kept(capsys, url, tmp_path):
    engine = sa.create_engine(url())
    with sqlprobe.record() as recording, engine.connect() as connection:
        for customer in range(3):
            connection.execute(sa.text("SELECT * FROM orders WHERE customer = :c"), {"c": customer})
    engine.dispose()
    recording.report().write(tmp_path / "before.json")
    status, out, _ = explained(
        capsys, "--url", url(), str(tmp_path / "before.json"), "-o", str(tmp_path / "after.json")
    )
    after = json.loads((tmp_path / "after.json").read_text())

    assert (0, True) == (status, "note: planned without values" in out)
    assert ["seq-scan"] == [f["rule"] for f in after["findings"] if "plan" in f["evidence"]]
    assert 3 == after["statements"][0]["calls"]


def test_fail_on_fails(capsys, url):
    status, _, err = explained(
        capsys, "--url", url(), "--quiet", "--fail-on", "seq-scan", "SELECT * FROM orders WHERE customer = 5"
    )

    assert (1, "sqlprobe: exit status 1, as --fail-on asks: 1 seq-scan\n") == (status, err)


def test_the_database_may_be_named_by_the_environment(capsys, url, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", url())

    assert 0 == explained(capsys, "SELECT 1")[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["SELECT 1"], "a database is needed, found none"),
        (["--url", "nonsense", "SELECT 1"], "a URL of SQLAlchemy is needed"),
        (["--url", "sqlite://", "SELECT 1"], "found sqlite; plans are read from PostgreSQL only"),
        (["--url", "postgresql+psycopg://u:secret@127.0.0.1:1/x", "SELECT 1"], "the server cannot be reached"),
        (["--url", "postgresql+psycopg://u@h/x", " "], "no statement was found"),
        (["--url", "postgresql+psycopg://u@h/x", "--set", "=5", "SELECT 1"], "name=value is needed"),
        (["--url", "postgresql+psycopg://u@h/x", "nowhere.json"], "cannot be read"),
        (["--url", "postgresql+psycopg://u@h/x", "nowhere.sql"], "cannot be read"),
        (["--url", "postgresql+psycopg://u@h/x", "--fail-on", "seqscan", "SELECT 1"], "did you mean seq-scan?"),
    ],
)
def test_wrong_use_is_told_in_one_line(capsys, monkeypatch, arguments, said):
    monkeypatch.delenv("DATABASE_URL", raising=False)
    status, out, err = explained(capsys, *arguments)

    assert (2, "", True, 1, False) == (status, out, said in err, err.count("\n"), "secret" in err)


def test_a_statement_that_is_refused_is_told_and_fails(capsys, url):
    status, out, _ = explained(capsys, "--url", url(), "SELECT private FROM orders")

    assert (1, True) == (status, "no plan: EXPLAIN was asked for, found: SQLSTATE 42703" in out)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT a FROM t WHERE b = ? AND c IN (?) LIMIT ?", "SELECT a FROM t WHERE b = $1 AND c IN ($2) LIMIT $3"),
        ("SELECT a FROM t WHERE doc ? ? AND b = ?", "SELECT a FROM t WHERE doc ? $1 AND b = $2"),
        ("SELECT a FROM t WHERE doc ?| ? AND doc ->> ? = ?", "SELECT a FROM t WHERE doc ?| $1 AND doc ->> $2 = $3"),
        ("SELECT ? , ? FROM t WHERE a BETWEEN ? AND ?", "SELECT $1 , $2 FROM t WHERE a BETWEEN $3 AND $4"),
        ("SELECT ?::int", "SELECT $1::int"),
    ],
)
def test_placeholders_of_a_report_are_numbered(text, expected):
    assert expected == explaining.numbered(text)


def test_scripts_are_split_where_a_statement_ends():
    script = "SELECT ';'; /* ; /* ; */ */ SELECT $a$;$a$ -- ;\n;;\n ; SELECT E'\\';'"

    assert ["SELECT ';'", "/* ; /* ; */ */ SELECT $a$;$a$ -- ;", "SELECT E'\\';'"] == split(script)
