"""The demo's plans, on all its rows: what the review found there."""

from __future__ import annotations

import json

import pytest

from sqlprobe import demo

pytestmark = pytest.mark.exhaustive

# Section of the review, the rule, and the function whose query it is.
FOUND = {
    ("vector-overfiltering", "find_similar_patterns"),  # 3.3: ten rows are asked for, three are found
    ("vector-index-parameters", "find_similar_patterns"),  # 3.2: lists = 100
    ("missing-jsonb-index", "patterns_with_evidence"),  # 5.2.4: a key in JSONB
    ("missing-jsonb-index", "discovery_flows_in"),
    ("vector-unusable-form", "rank_patterns"),  # 11.3: ORDER BY 1 - distance
    ("deep-offset", "page_of_assets"),
    ("unusable-predicate", "search_assets"),
}
WELL_WRITTEN = {"list_clients_with_engagements", "get_flow_with_children"}


def test_the_reviews_sections_are_findings_from_plans(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert 0 == demo.main(["-o", str(tmp_path / "report.json")])

    report = json.loads((tmp_path / "report.json").read_text())
    told = {(f["rule"], f["site"]["function"]) for f in report["findings"] if "plan" in f["evidence"]}

    # 5.2.2 and 5.2.3: tenant, status and date; the plan is another one for a large tenant than for a small one, and whether
    # the index is worth its upkeep a matter of the time that the calls took.
    rules = ("missing-index", "missing-partial-index", "whole-index-walk", "filter-discards-rows")
    assert told & {(rule, function) for rule in rules for function in ("active_flows", "latest_flows")}
    proven = [fix for each in report["findings"] if each["rule"].startswith("missing-") for fix in each["fixes"][:1]]
    assert {"CREATE INDEX CONCURRENTLY"} == {fix["code"].partition(" ix_")[0] for fix in proven if fix["verified"]}
    assert (set(), []) == (FOUND - told, report["faults"])
    assert set() == {function for _, function in told} & WELL_WRITTEN
