"""What is said of an index that is there beside one that is proposed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sqlprobe.advice.candidates import Candidate, Key, near
from sqlprobe.plans.catalog import Index, IndexKey


def index_on(*names, expression="", **options):
    keys = tuple(
        # The catalog's own form: a column's name stands in its expression too.
        IndexKey(name, expression or name, "int4_ops", frozenset({"="}), frozenset())
        for name in names
    )
    return Index(**{
        "name": "ix", "schema": "public", "method": "btree", "keys": keys, "include": (), "unique": False,
        "primary": False, "usable": True, "predicate": "", "definition": "", "bytes": 8192, "options": {}, "scans": None,
        **options,
    })  # fmt: skip


def said(index, *keys, **options):
    relation = SimpleNamespace(indexes=[index], usable_indexes=[index] if index.usable else [], column=lambda _: None)
    found = near(relation, Candidate("public", "orders", keys, **options))
    return found and found.why


@pytest.mark.parametrize(
    "keys", [(Key("a"), Key("b")), (Key("b"), Key("a")), (Key("a"),)], ids=["longer", "other", "same"]
)
def test_an_index_of_the_same_first_column_is_no_other_spelling(keys):
    assert said(index_on("a"), *keys) is None


def test_another_spelling_is_told():
    index = index_on("", expression="(doc -> 'k'::text)")

    assert "two different expressions" in said(index, Key("", "(doc['k'::text])"))


def test_what_is_invalid_is_told():
    assert "is invalid" in said(index_on("a", usable=False), Key("a"))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ((Key("a"),), True),
        ((Key("a"), Key("b")), True),  # longer, as it would be if the index had all rows
        ((Key("b"), Key("a")), True),
        ((Key("b"),), False),
        ((Key("a", operator_class="text_pattern_ops"),), False),  # it differs in more than its rows
    ],
)
def test_an_index_with_only_some_rows_is_told(keys, told):
    text = said(index_on("a", predicate="(status = 'open'::text)"), *keys)

    assert told == ("has only the rows of" in (text or ""))
    assert "open" not in (text or "")


def test_a_whole_index_beside_a_partial_one_is_no_near_miss():
    assert said(index_on("a"), Key("a"), predicate="(deleted_at IS NULL)") is None
