"""What PostgreSQL prints is read whole, and no constant of it is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlprobe.plans import conditions
from sqlprobe.plans.conditions import conjuncts, masked, parse, parse_sort_key, predicate_of, without_qualifiers

DATA = Path(__file__).resolve().parent.parent / "data" / "plans"
CONDITIONS = {
    "Cache Key", "Conflict Filter", "Filter", "Function Call", "Group Key", "Hash Cond", "Index Cond", "Join Filter",
    "Merge Cond", "One-Time Filter", "Order By", "Output", "Recheck Cond", "TID Cond",
}  # fmt: skip


def printed(version):
    """Every condition of the recorded plans of that PostgreSQL."""
    plans = json.loads((DATA / f"postgresql-{version}-statements.json").read_text())
    waiting = [item["plan"][0]["Plan"] for item in plans]
    while waiting:
        node = waiting.pop()
        waiting += node.get("Plans", [])
        for name, value in node.items():
            for text in value if isinstance(value, list) else [value]:
                if name in CONDITIONS or name == "Sort Key":
                    yield name, text


@pytest.mark.parametrize("version", [14, 15, 16, 17, 18])
def test_everything_that_real_plans_print_is_read(version):
    unread = []
    for name, text in printed(version):
        read = parse_sort_key(text).expression if name == "Sort Key" else parse(text)
        unread += [text for each in read.walk() if each.kind == "other"]

    assert [] == unread


@pytest.mark.parametrize("version", [14, 15, 16, 17, 18])
def test_reading_keeps_the_text_it_has_read(version):
    for name, text in printed(version):
        if name != "Sort Key":
            assert text == parse(text).text


# Text, kind, name, and the parts' texts.
READ = [
    ("t.x", "column", "x", ()),
    ('"My Table"."Odd ""name"""', "column", 'Odd "name"', ()),
    ("'it''s'::text", "constant", "text", ()),
    ("(x)::numeric(10,2)", "cast", "numeric(10,2)", ("(x)",)),
    ("((x)::timestamp(3) without time zone)", "cast", "timestamp(3) without time zone", ("(x)",)),
    ("(x)::character varying(20)[]", "cast", "character varying(20)[]", ("(x)",)),
    ("(a = 'x'::bpchar)", "operator", "=", ("a", "'x'::bpchar")),
    ("(e OPERATOR(public.<=>) '[1]'::public.vector)", "operator", "<=>", ("e", "'[1]'::public.vector")),
    ("(a = ANY ('{1,2}'::integer[]))", "any", "=", ("a", "'{1,2}'::integer[]")),
    ("(a <> ALL ('{1,2}'::integer[]))", "any", "<> ALL", ("a", "'{1,2}'::integer[]")),
    ("(a IS NOT NULL)", "test", "IS NOT NULL", ("a",)),
    ("(a IS DISTINCT FROM 5)", "operator", "IS DISTINCT FROM", ("a", "5")),
    ("(NOT a)", "not", "", ("a",)),
    ("doc['k'::text]['n'::text]", "subscript", "", ("doc['k'::text]", "'n'::text")),
    ('(email COLLATE "C")', "collate", "C", ("email",)),
    ("lower(email)", "call", "lower", ("email",)),
    ("count(*) FILTER (WHERE (x > 5))", "call", "count", ()),
    ("EXTRACT(year FROM at)", "call", "extract", ("'year'", "at")),
    ("SUBSTRING(a FROM 1 FOR 3)", "call", "substring", ("a", "1", "3")),
    ("(at AT TIME ZONE 'UTC'::text)", "call", "timezone", ("'UTC'::text", "at")),
    ("ROW(a, 1)", "row", "", ("a", "1")),
    ("ARRAY[1, 2]", "array", "", ("1", "2")),
    ("CASE WHEN (a > 1) THEN 'x'::text ELSE b END", "case", "", ("(a > 1)", "'x'::text", "b")),
    ("(InitPlan 1).col1", "subplan", "", ()),
    ("(hashed SubPlan 2)", "subplan", "", ()),
    ("$1", "parameter", "", ()),
    ("(- x)", "operator", "-", ("x",)),
    ("CURRENT_USER", "call", "current_user", ()),
    ("f(VARIADIC '{a}'::text[])", "call", "f", ("'{a}'::text[]",)),
    ("f(a => 1)", "call", "f", ("1",)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "name", "parts"), READ, ids=[case[0] for case in READ])
def test_expressions_are_read_as_they_are_meant(text, kind, name, parts):
    read = parse(text)

    assert (kind, name, parts) == (read.kind, read.name, tuple(part.text for part in read.parts))


@pytest.mark.parametrize("text", ["(a = ", "a b", "'open", "(a))", "", "(" * 500 + "a" + ")" * 500, "x" * 300_000])
def test_what_cannot_be_read_is_nothing_that_a_rule_would_claim(text):
    read = parse(text)

    assert ("other", False) == (read.kind, read.is_known) or read.kind == "column"


def test_sort_keys_have_a_direction():
    said = [(key.expression.text, key.descending, key.nulls_first) for key in map(parse_sort_key, (
        "t.a", "t.a DESC", "t.a DESC NULLS LAST", "t.a NULLS FIRST", "((e <=> '[1]'::vector)) DESC", 'a COLLATE "C" DESC',
        "a USING >",
    ))]  # fmt: skip

    assert [
        ("t.a", False, False), ("t.a", True, True), ("t.a", True, False), ("t.a", False, True),
        ("((e <=> '[1]'::vector))", True, True), ('a COLLATE "C"', True, True), ("a", True, True),
    ] == said  # fmt: skip


# A condition, and the key, operator and value of each of its tests.
PREDICATES = [
    ("((a = 1) AND (5 < b) AND (c IS NULL))", [("a", "=", "1"), ("b", ">", "5"), ("c", "IS NULL", None)]),
    ("((NOT flag) AND other)", [("flag", "FALSE", None), ("other", "TRUE", None)]),
    ("(5 = ANY (tags))", [("tags", "ANY =", "5")]),
    ("((x)::numeric = '5'::numeric)", [("(x)::numeric", "=", "'5'::numeric")]),
    ("((a = 1) OR (b = 2))", [None]),
    ("(a = b)", [None]),
    ("(a = (InitPlan 1).col1)", [("a", "=", "(InitPlan 1).col1")]),
    ("(a <> ALL ('{1}'::int[]))", [("a", "<> ALL", "'{1}'::int[]")]),
    ("(NOT (ANY (a = (hashed SubPlan 1).col1)))", [None]),
    ("(CASE WHEN a THEN 1 ELSE 2 END = 1)", [None]),
]


@pytest.mark.parametrize(("text", "expected"), PREDICATES, ids=[case[0] for case in PREDICATES])
def test_tests_are_turned_so_that_the_value_is_on_the_right(text, expected):
    found = [predicate_of(each) for each in conjuncts(parse(text))]

    assert expected == [
        None if each is None else (each.key.text.strip("()") if each.key.kind == "column" else each.key.text,
                                   each.operator, each.value.text if each.value is not None else None)
        for each in found
    ]  # fmt: skip


def test_another_relations_columns_are_values():
    joined = parse("(o.customer_id = c.id)")

    assert [("customer_id", "c.id"), ("id", "o.customer_id"), None] == [
        None if each is None else (each.column, each.value.text)
        for each in (predicate_of(joined, {"o"}), predicate_of(joined, {"c"}), predicate_of(joined, {"o", "c"}))
    ]


def test_qualifiers_are_taken_off_columns_only():
    text = "((t.doc ->> 't.x'::text) = lower(t.t) AND (other.t = \"T\".a) AND (x)::t.mood)"

    assert "((doc ->> 't.x'::text) = lower(t) AND (other.t = \"T\".a) AND (x)::t.mood)" == without_qualifiers(
        text, ["t"]
    )


# --- masking ----------------------------------------------------------------------------------------------------------

MASKED = [
    ("(email = 'a@b.org'::text)", "(email = ?::text)"),
    ("(n > 5) AND (n < 1.5e10)", "(n > ?) AND (n < ?)"),
    ("(doc ->> 'address_2'::text)", "(doc ->> 'address_2'::text)"),
    ("(doc ->> 'a@b.org'::text)", "(doc ->> ?::text)"),
    ("(doc ->> '4111111111111111'::text)", "(doc ->> ?::text)"),
    ("(doc -> 7)", "(doc -> ?)"),
    ("doc['promo'::text]['4711'::text]", "doc['promo'::text][?::text]"),
    ("(doc #>> '{a,0,b}'::text[])", "(doc #>> '{a,0,b}'::text[])"),
    ("(doc #>> '{a,x@y}'::text[])", "(doc #>> ?::text[])"),
    ("(doc ? 'promo'::text)", "(doc ? 'promo'::text)"),
    ("(doc @> '{\"promo\": 1}'::jsonb)", "(doc @> ?::jsonb)"),
    ("(doc @? '$.\"promo\"'::jsonpath)", "(doc @? ?::jsonpath)"),
    ("(a = ANY ('{x,y}'::text[]))", "(a = ANY (?::text[]))"),
    ("ARRAY['x', 'y']", "ARRAY[?, ?]"),
    ("to_tsvector('english'::regconfig, a)", "to_tsvector('english'::regconfig, a)"),
    ("to_tsvector('german'::pg_catalog.regconfig, a)", "to_tsvector('german'::pg_catalog.regconfig, a)"),
    ("date_trunc('month'::text, at)", "date_trunc('month'::text, at)"),
    ("date_trunc('secret'::text, at)", "date_trunc(?::text, at)"),
    ("(x)::numeric(10,2)", "(x)::numeric(10,2)"),
    ("(e)::public.halfvec(64)", "(e)::public.halfvec(64)"),
    ("(x)::timestamp(3) without time zone", "(x)::timestamp(3) without time zone"),
    ("(InitPlan 1).col1 = (hashed SubPlan 22).col1", "(InitPlan 1).col1 = (hashed SubPlan 22).col1"),
    ("((a IS TRUE) AND (b = true) AND (c = NULL::text))", "((a IS TRUE) AND (b = true) AND (c = NULL::text))"),
    ("(a = E'x\\'y' AND b = 'it''s' AND c = B'101' AND d = X'ff')", "(a = ? AND b = ? AND c = ? AND d = ?)"),
    ("f(1, 'x')", "f(?, ?)"),
    ("(a = 'never closed)", "(a = ?"),
    ("SELECT a FROM t WHERE (b = 'x') LIMIT 5::bigint", "SELECT a FROM t WHERE (b = ?) LIMIT ?::bigint"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), MASKED, ids=[case[0] for case in MASKED])
def test_constants_are_masked_and_names_are_not(text, expected):
    assert expected == masked(text)


@given(st.text(st.characters(codec="ascii"), max_size=40), st.sampled_from(["text", "integer[]", "jsonb", "regclass2"]))
def test_no_constant_survives_whatever_it_holds(value, kind):
    quoted = value.replace("'", "''")

    assert f"(a = ?::{kind})" == masked(f"(a = '{quoted}'::{kind})")


@given(st.text(max_size=60))
def test_any_text_is_taken(text):
    assert isinstance(masked(text), str)
    assert isinstance(parse(text), conditions.Expression)
