from __future__ import annotations

import json

import pytest

from sqlprobe import cli


@pytest.fixture
def run(capsys, load_app):
    """`run("audit", ...)`: exit status, what was printed, what was said."""

    def run(*arguments):
        status = cli.main([*map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_audits_models(run, tmp_path):
    status, out, _ = run(
        "audit", "reviewed", "-o", tmp_path / "a.json", "-o", tmp_path / "a.sarif", "-o", tmp_path / "a.prom"
    )

    report = json.loads((tmp_path / "a.json").read_text())
    result = json.loads((tmp_path / "a.sarif").read_text())["runs"][0]["results"][0]
    place = result["locations"][0]["physicalLocation"]
    assert 0 == status
    assert "a row of assets may name a row of engagements" in out
    assert "0 calls" not in out
    assert "tenant-hierarchy" in {finding["rule"] for finding in report["findings"]}
    assert place["artifactLocation"]["uri"].endswith("reviewed.py")
    assert place["region"]["startLine"] > 1
    told = (tmp_path / "a.prom").read_text()
    assert 'sqlprobe_audit_findings{database="",rule="tenant-hierarchy",severity="warning"} 5' in told


def test_fails_on_what_is_named(run):
    assert 1 == run("audit", "reviewed", "-q", "--fail-on", "tenant-hierarchy")[0]
    assert 0 == run("audit", "corrected", "-q", "--fail-on", "any", "--enable", "enum-and-check")[0]
    assert 0 == run("audit", "reviewed", "-q", "--fail-on", "tenant-hierarchy", "--disable", "tenant-hierarchy")[0]


def test_a_baseline_hides_what_is_known(run, tmp_path):
    file = tmp_path / "baseline.json"

    assert 0 == run("audit", "reviewed", "-q", "--baseline", file, "--update-baseline", "--fail-on", "any")[0]
    assert 0 == run("audit", "reviewed", "-q", "--baseline", file, "--fail-on", "any")[0]
    assert 1 == run("audit", "reviewed", "-q", "--baseline", file, "--fail-on", "any", "--enable", "enum-and-check")[0]


def test_ignores_what_is_meant(run, tmp_path):
    file = tmp_path / "ignores.toml"
    file.write_text('[[ignore]]\nrule = "tenant-hierarchy"\nreason = "checked by a trigger"\n')

    assert 0 == run("audit", "reviewed", "-q", "--ignore-file", file, "--fail-on", "tenant-hierarchy")[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "something to look at is needed"),
        (["no.such"], "cannot be imported"),
        (["--url", "sqlite://"], "catalogs are read from PostgreSQL, found sqlite"),
        (["--url", "nonsense"], "a URL is needed"),
        (["--url", "postgresql://x", "--stats", "y"], "two sources"),
        (["reviewed", "--save-stats", "x"], "name a database"),
        (["reviewed", "--update-baseline"], "--baseline"),
        (["reviewed", "--enable", "enum-and-chek"], "did you mean enum-and-check?"),
        (["--migrations", "nowhere"], "no such directory"),
        (["--stats", "nowhere"], "cannot be read"),
        (["reviewed", "--unused-days", "x"], "a number of days"),
        (["reviewed", "-o", "no/a.prom"], "there is no folder"),
    ],
)
def test_says_what_is_wrong(run, arguments, said):
    status, _, err = run("audit", *arguments)

    assert (2, True) == (status, said in err), err


def test_passwords_are_not_shown(run):
    status, _, err = run("audit", "--url", "postgresql+psycopg://me:secret@127.0.0.1:1/none")

    assert 2 == status
    assert "secret" not in err


def test_audits_a_database_and_keeps_what_it_read(run, postgresql_url, tmp_path):
    url = postgresql_url().render_as_string(hide_password=False)
    file = tmp_path / "stats.json"

    status, out, err = run("audit", "--url", url, "--save-stats", file)
    again, out_again, _ = run("audit", "--stats", file)

    assert (0, 0, "") == (status, again, err)
    assert "catalog: 0 relations" in out
    assert "catalog: 0 relations" in out_again
