"""
# partition-pruning-lost: every partition is read, though the statement says which

The statement compares the column that the table is partitioned by, in a form from which PostgreSQL cannot tell the
partitions: inside a function, or cast to another type. All of them are read.

## What is proof
An `Append` over all partitions of a table with at least three, whose scans filter by an expression *of* the partition
key, and by none of the key itself.

## What to do
Compare the column alone with values of its own type: `created_at >= start and created_at < end` instead of
`date(created_at) = day`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlprobe.model import Fix
from sqlprobe.plans import conditions, scans
from sqlprobe.plans.rules import Smell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.plans.catalog import Catalog
    from sqlprobe.plans.plan import Plan
    from sqlprobe.settings import Settings

RULE: Final = "partition-pruning-lost"
_PARTITIONS: Final = 3


def check(plan: Plan, catalog: Catalog, settings: Settings) -> Iterable[Smell]:  # noqa: ARG001 - as every rule's
    """One smell for each Append."""
    for append in plan.nodes:
        if append.kind not in {"Append", "Merge Append"}:
            continue
        members = [child for child in append.children if child.is_scan and child.relation]
        relation = catalog.of(members[0]) if members else None
        if relation is None or relation.root is None or len(members) < max(_PARTITIONS, relation.partitions):
            continue
        if append.fields.get("Subplans Removed"):
            continue
        columns = {column.name for column in _key_columns(relation.partition_key)}
        hidden = None
        for name in ("Filter", "Index Cond", "Recheck Cond"):
            for test in members[0].tests(name):
                asked = {column.name for column in test.columns} & columns
                predicate = conditions.predicate_of(test, scans.names_of(members[0]))
                if not asked or predicate is None:
                    continue
                if predicate.column in columns or predicate.operator.startswith("<>"):
                    return
                hidden = (test, min(asked))
        if hidden is None:
            continue
        test, column = hidden
        yield Smell(
            rule=RULE,
            nodes=(append, *members),
            title=f"all {len(members)} partitions of {relation.label} are read: {test.masked} does not tell which",
            advice=f"compare {column} alone, with values of its own type",
            label=relation.label,
            detail=column,
            evidence={
                "condition": test.masked,
                "partitions": len(members),
                "partition_key": conditions.masked(relation.partition_key),
                "share_of_plan": round(sum(plan.share(member) for member in members), 4),
            },
            fixes=(
                Fix(
                    kind="rewrite",
                    code=f".where({relation.root[1]}.c.{column} >= start, {relation.root[1]}.c.{column} < end)",
                ),
            ),
        )


def _key_columns(definition: str) -> tuple[conditions.Expression, ...]:
    """Of `RANGE (created_at)`."""
    inner = definition.partition("(")[2].rpartition(")")[0]
    return tuple(column for part in _split(inner) for column in conditions.parse(part).columns)


def _split(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]
