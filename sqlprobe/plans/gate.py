"""
The gate: is there an index for what the statements of a test suite ask, however few rows its tables have?

On ten rows PostgreSQL reads the table whatever indexes there are. So it is asked with `enable_seqscan` off, on a
connection of our own and for that question only: what it then still reads whole, no index can serve. Each table is
judged as if it had a million rows. What cannot be asked about (a table that lives in the test's own transaction) is an
answer too: `refused.reason` is "not visible".
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from sqlprobe.plans import scans
from sqlprobe.plans.examine import Examiner
from sqlprobe.plans.judge import Case, judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Engine

    from sqlprobe.model import Finding
    from sqlprobe.plans.catalog import Catalog, Relation
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
_WITHOUT: Final = (("enable_seqscan", "off"), ("jit", "off"))
_SELECTIVE: Final = frozenset({"=", "= ANY", "@>", "<@", "&&", "?", "?|", "?&", "@@", "~~", "~~*"})


def gate(
    engine: Engine, questions: Sequence[Question], settings: Settings, *, limits: Limits | None = None
) -> list[Answer]:
    """
    For each of *questions*: the findings that no index serves it, or why it could not be asked.

    Raises nothing for what the server says; after an answer that it is away no more is asked.
    """
    return _Gate(settings, limits).examine(engine, questions, settings=_WITHOUT)


class _Gate(Examiner):
    def _judge(
        self, question: Question, plan: Plan, explained: Explained, catalog: Catalog, more: Iterable[Smell] = ()
    ) -> list[Finding]:
        large = dataclasses.replace(
            catalog, relations={name: _large(relation) for name, relation in catalog.relations.items()}
        )
        grown = dataclasses.replace(plan, root=_grown(plan.root), statement=None)
        case = Case(grown, large, question.fingerprint, question.engine_name, None, explained.notes)
        selective = {node.alias for node in grown.scans if _is_selective(node)}
        return [
            finding
            for finding in judge(case, self.settings, more)
            if finding.rule in RULES and (finding.rule != "seq-scan" or _is_about(grown, finding, large, selective))
        ]


def _large(relation: Relation) -> Relation:
    return dataclasses.replace(relation, rows=ROWS, pages=int(ROWS / 50), known_pages=int(ROWS / 50), analyzed=1.0)


def _grown(node: Node) -> Node:
    """A scan that keeps all rows keeps all of the million."""
    fields = node.fields
    if node.is_scan and not fields.get("Filter") and not fields.get("Index Cond") and not fields.get("Recheck Cond"):
        fields = {**fields, "Plan Rows": ROWS}
    return dataclasses.replace(node, fields=fields, children=tuple(_grown(child) for child in node.children))


def _is_selective(node: Node) -> bool:
    """Whether it asks for what few rows of a large table would have."""
    return any(each.operator in _SELECTIVE and scans.is_servable(each) for each in scans.tests(node))


def _is_about(plan: Plan, finding: Finding, catalog: Catalog, selective: set[str]) -> bool:
    for node in plan.scans:
        relation = catalog.of(node)
        if relation is not None and relation.label == finding.label and node.alias in selective:
            return True
    return False
