"""
The gate: is there an index for what the statements of a test suite ask, however few rows its tables have?

On ten rows PostgreSQL reads the table whatever indexes there are. So it is asked with `enable_seqscan` off, on a
connection of our own and for that question only: what it then still reads whole, no index can serve. Each table is
judged as if it had a million rows, and findings name none of those numbers. What cannot be asked about (a table that
lives in the test's own transaction) is an answer too: `refused.reason` is "not visible".
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from sqlprobe.plans import conditions, scans
from sqlprobe.plans import plan as plans
from sqlprobe.plans.examine import Examiner
from sqlprobe.plans.judge import MAX_PLAN, Case, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Engine

    from sqlprobe.model import Finding
    from sqlprobe.plans.catalog import Catalog, Relation
    from sqlprobe.plans.conditions import Predicate
    from sqlprobe.plans.examine import Answer, Question
    from sqlprobe.plans.explain import Explained, Limits
    from sqlprobe.plans.plan import Node, Plan
    from sqlprobe.plans.rules import Smell
    from sqlprobe.settings import Settings

# Those that an index, or another way to write the statement, mends; and what says nothing on so few rows.
RULES: Final = frozenset({
    "missing-vector-index", "rls-hides-index", "seq-scan", "unusable-predicate", "vector-operator-mismatch",
    "vector-unusable-form", "whole-index-walk",
})  # fmt: skip
ROWS: Final = 1_000_000.0
MAX_CONDITION: Final = 200  # characters of it in a title
_WITHOUT: Final = (("enable_seqscan", "off"), ("jit", "off"))
_SELECTIVE: Final = frozenset({"=", "= ANY", "@>", "<@", "&&", "?", "?|", "?&", "@@", "~~", "~~*"})
_EQUAL: Final = frozenset({"=", "= ANY"})
_PATTERNS: Final = frozenset({"~~", "~~*", "!~~", "!~~*", "~", "~*", "@?", "@@"})
# Numbers of the million that are in no database.
_SUPPOSED: Final = frozenset({
    "limit", "loops", "rows_joined", "rows_kept", "rows_measured", "rows_read", "share_of_plan", "table_bytes",
})  # fmt: skip


class Gate(Examiner):
    """
    Asks as an `Examiner` does, and judges by what no index serves. Keeps for which statements the values decide that.
    """

    def __init__(self, settings: Settings, limits: Limits | None = None) -> None:
        super().__init__(settings, limits)
        self._by_value: set[tuple[str, str]] = set()

    def ask(
        self, engine: Engine, questions: Sequence[Question], until: Callable[[], bool] = lambda: False
    ) -> list[Answer]:
        """
        For each of *questions*: the findings that no index serves it, or why it could not be asked.

        Raises nothing for what the server says; after an answer that it is away no more is asked.
        """
        return self.examine(engine, questions, settings=_WITHOUT, until=until)

    def is_by_value(self, question: Question) -> bool:
        """Whether *question*, which has been answered, may have another answer with other values."""
        return (question.fingerprint, question.engine_name) in self._by_value

    def _judge(
        self, question: Question, plan: Plan, explained: Explained, catalog: Catalog, more: Iterable[Smell] = ()
    ) -> list[Finding]:
        if _may_differ(plan, catalog):
            self._by_value.add((question.fingerprint, question.engine_name))
        large = dataclasses.replace(
            catalog, relations={name: _large(relation) for name, relation in catalog.relations.items()}
        )
        grown = dataclasses.replace(plan, root=_grown(plan.root), statement=None)
        case = Case(
            grown, large, question.fingerprint, question.engine_name, question.statement, explained.notes, timed=False
        )
        shown = plans.render(plan)[:MAX_PLAN]
        return [
            dataclasses.replace(
                finding,
                seconds=0.0,  # what it took on the test's rows is no measure
                evidence={
                    **{name: value for name, value in finding.evidence.items() if name not in _SUPPOSED},
                    "asked": "with enable_seqscan = off, on the tables of the test",
                    "plan": shown,
                },
            )
            for finding in judge(case, self.settings, more, lambda smell: _heeded(smell, large))
        ]


def gate(
    engine: Engine, questions: Sequence[Question], settings: Settings, *, limits: Limits | None = None
) -> list[Answer]:
    """As `Gate.ask`, once."""
    return Gate(settings, limits).ask(engine, questions)


def _large(relation: Relation) -> Relation:
    return dataclasses.replace(relation, rows=ROWS, pages=int(ROWS / 50), known_pages=int(ROWS / 50), analyzed=1.0)


def _grown(node: Node) -> Node:
    """A scan that keeps all rows keeps all of the million."""
    fields = node.fields
    if node.is_scan and not fields.get("Filter") and not fields.get("Index Cond") and not fields.get("Recheck Cond"):
        fields = {**fields, "Plan Rows": ROWS}
    return dataclasses.replace(node, fields=fields, children=tuple(_grown(child) for child in node.children))


def _may_differ(plan: Plan, catalog: Catalog) -> bool:
    """
    Whether other values may find another index, or none: partial ones, those on a JSON key that is a value, patterns;
    or nothing at all was read, since a value made the condition false.
    """
    read = [node for node in plan.nodes if node.relation]
    if not read:
        return True
    for node in read:
        relation = catalog.of(node)
        if relation is None or any(
            index.predicate or any(not key.column for key in index.keys) for index in relation.indexes
        ):
            return True
        if any(each.operator in _PATTERNS for each in scans.tests(node, "Filter", "Index Cond", "Recheck Cond")):
            return True
    return False


# --- what is heeded of what rules say ---------------------------------------------------------------------------------


def _heeded(smell: Smell, catalog: Catalog) -> Smell | None:
    """
    *smell*, without the numbers that are supposed; None where it says nothing of tables that are larger.

    A test's rows do not tell how many a condition keeps: only one that few rows of a large table meet, whatever is in
    it, is a reason for an index. And where an index finds the rows, what is done with them is cheap or not: unknown.
    """
    if smell.rule not in RULES:
        return None
    node = smell.nodes[0]
    if smell.rule == "seq-scan":
        if not _is_selective(node, catalog):
            return None
        condition = _short(str(smell.evidence["condition"]))
        return dataclasses.replace(smell, title=f"no index of {smell.label} answers {condition}: all of it is read")
    if smell.rule == "whole-index-walk":
        # On few rows one index costs what another does, whichever would answer it on many.
        if _has_index(node, catalog) or not _is_selective(
            node, catalog, "Index Cond" if "Index Cond" in node.fields else "Filter"
        ):
            return None
        if "Index Cond" in node.fields:
            return smell
        condition = _short(str(smell.evidence["condition"]))
        title = f"no index of {smell.label} answers {condition}: {node.index} is walked until enough are found"
        return dataclasses.replace(smell, title=title)
    if smell.rule == "unusable-predicate":
        return None if "Index Cond" in node.fields or node.kind == "Bitmap Heap Scan" else smell
    if smell.rule == "missing-vector-index":
        operator = smell.evidence["operator"]
        return dataclasses.replace(smell, title=f"no index of {smell.label} finds the nearest by {operator}")
    if smell.rule == "vector-unusable-form":
        why = smell.title.rpartition(": ")[0]
        return dataclasses.replace(smell, title=f"{why}: every row of {smell.label} is measured")
    return smell


def _has_index(node: Node, catalog: Catalog) -> bool:
    """Whether an index that is there would find the few rows that *node* asks for, whatever the planner has taken."""
    relation = catalog.of(node)
    if relation is None:
        return False
    fields = ("Filter", "Index Cond", "Recheck Cond")
    asked = scans.tests(node, *fields)
    named = {column.name for field in fields for test in node.tests(field) for column in test.columns}
    for index in relation.usable_indexes:
        rows = conditions.parse(index.predicate).columns if index.predicate else ()
        if not named.issuperset(column.name for column in rows):
            continue  # it has only some rows, by what the statement does not ask for
        first = index.keys[0]
        if any(
            _finds_few(each, relation)
            and scans.is_key(node, each.key, first)
            and ("=" if each.operator in _EQUAL else each.operator) in first.operators
            for each in asked
        ):
            return True
    return False


def _short(text: str) -> str:
    return text if len(text) <= MAX_CONDITION else f"{text[:MAX_CONDITION]}…"


def _is_selective(node: Node, catalog: Catalog, field: str = "Filter") -> bool:
    """Whether it asks for what few rows of a large table would have."""
    relation = catalog.of(node)
    if any(_finds_few(each, relation) for each in scans.tests(node, field)):
        return True
    own = scans.names_of(node)
    return any(
        all(
            any(
                predicate is not None and _finds_few(predicate, relation)
                for predicate in (conditions.predicate_of(each, own) for each in conditions.conjuncts(arm))
            )
            for arm in test.parts
        )
        for test in node.tests(field)
        if test.kind == "or"
    )


def _finds_few(predicate: Predicate, relation: Relation | None) -> bool:
    if predicate.operator not in _SELECTIVE or not scans.is_servable(predicate):
        return False
    bare = predicate.key.bare()
    if predicate.operator not in _EQUAL or relation is None or bare.kind != "column":
        return True
    return not _has_few_values(relation, bare.name)


def _has_few_values(relation: Relation, name: str) -> bool:
    """Whether the type of the column, or a CHECK, lists the values that it may have."""
    column = relation.column(name)
    if column is not None and (column.enumerated or column.base_type == "boolean"):
        return True
    for constraint in relation.constraints:
        if constraint.kind == "c" and constraint.columns == (name,):
            inner = constraint.definition.partition("(")[2].rpartition(")")[0]
            listed = conditions.predicate_of(conditions.parse(inner))
            if listed is not None and listed.operator == "= ANY" and listed.key.bare().name == name:
                return True
    return False
