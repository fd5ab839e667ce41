from __future__ import annotations

from sqlprobe import Finding, Settings
from sqlprobe.pytest_plugin.watch import Run


def test_what_the_pool_found_is_told_of_a_test_that_is_plain_otherwise():
    run = Run(Settings(), "tests")
    run.ledger.add(
        [Finding(rule="pool-pressure", label="db", severity="warning", title="waited", advice="close it", key="k")]
    )
    run.finish()

    assert ["pool-pressure"] == [finding.rule for finding in run.findings]


def test_a_test_without_a_statement_finds_nothing():
    run = Run(Settings(), "tests")
    run.finish()

    assert (0, ()) == (run.calls, run.findings)
