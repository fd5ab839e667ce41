"""
# rls-hides-index: row security keeps an index from being used

Under a row security policy PostgreSQL may test a row with an operator before the policy only if that operator is
*leakproof*: it must not betray, by an error for instance, what is in rows that the user may not see. `=` and `<` of
numbers, texts, UUIDs and times are; `LIKE`, `lower()`, JSON, array and full text operators are not. Their indexes lie
idle for the application's role, while the owner's EXPLAIN shows them in use.

## What is proof
Row security is in force for the role that asked; the table matters and is read whole; and there is a usable index
whose key is just the expression of a filter, with the operator that the filter asks, which is none of the leakproof.

## What to do
Index the column that the policy compares, so that only the tenant's rows are read. Or write the condition with a
leakproof operator: a column filled by a trigger or `GENERATED ALWAYS AS (lower(email)) STORED` can be compared with
`=`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlprobe.plans import conditions, scans
from sqlprobe.plans.rules import Smell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.plans.catalog import Catalog, Relation
    from sqlprobe.plans.plan import Plan
    from sqlprobe.settings import Settings

RULE: Final = "rls-hides-index"
_LEAKPROOF: Final = frozenset({"=", "<", "<=", ">", ">=", "= ANY", "IS NULL", "IS NOT NULL"})
_SUPPORTED_LIKES: Final = {
    "~~": ("gin_trgm_ops", "gist_trgm_ops", "text_pattern_ops"),
    "~~*": ("gin_trgm_ops", "gist_trgm_ops"),
}


def check(plan: Plan, catalog: Catalog, settings: Settings) -> Iterable[Smell]:  # noqa: ARG001 - as every rule's
    """One smell for each scan."""
    for node in plan.scans:
        relation = catalog.of(node)
        if node.kind != "Seq Scan" or relation is None or not relation.row_security or not scans.matters(relation):
            continue
        for predicate in scans.tests(node):
            if predicate.key.kind == "column" and predicate.operator in _LEAKPROOF:
                continue
            index = next(
                (
                    index
                    for index in relation.usable_indexes
                    for key in index.keys[: len(index.keys) if index.method == "gin" else 1]
                    if scans.is_key(node, predicate.key, key)
                    and (
                        predicate.operator.removesuffix(" ANY") in key.operators
                        or key.operator_class in _SUPPORTED_LIKES.get(predicate.operator, ())
                    )
                ),
                None,
            )
            if index is None:
                continue
            columns = _policy_columns(relation)
            advice = (
                f"index {', '.join(columns)}, which the policy of {relation.label} compares"
                if columns
                else f"compare {predicate.key.masked} with a leakproof operator, = on a stored column for instance"
            )
            yield Smell(
                rule=RULE,
                nodes=(node,),
                title=f"{index.name} is not used under row security: {predicate.source.masked} is not leakproof",
                advice=advice,
                label=relation.label,
                detail=index.name,
                evidence={
                    "index": index.name,
                    "condition": predicate.source.masked,
                    "policies": ", ".join(policy.name for policy in relation.policies),
                    "share_of_plan": round(plan.share(node), 4),
                },
            )
            break


def _policy_columns(relation: Relation) -> list[str]:
    found = []
    for policy in relation.policies:
        for test in conditions.conjuncts(conditions.parse(policy.condition)):
            predicate = conditions.predicate_of(test)
            if predicate is not None and predicate.column in relation.columns and predicate.operator in _LEAKPROOF:
                found.append(predicate.column)
    return list(dict.fromkeys(found))
