"""
# vector-unusable-form: a distance written in a form that no vector index serves

An HNSW or IVFFlat index answers one form only: `ORDER BY column <operator> value`, ascending, with a LIMIT.

| written | no index serves it, because | write |
|---|---|---|
| `ORDER BY 1 - (e <=> q) DESC` | it sorts by what is made of a distance | `ORDER BY e <=> q` |
| `ORDER BY e <=> q DESC` | it asks for the farthest | no index does |
| `func.cosine_distance(e, q)` | a function is not the operator | the method: `Model.e.cosine_distance(q)` |
| `WHERE e <=> q < 0.3` alone | a threshold is no order | add `ORDER BY e <=> q LIMIT k` |
| all rows fetched, compared in Python | | let the database sort: `ORDER BY e <=> q LIMIT k` |

## What is proof
A sort, window or filter in the plan that holds a distance of a vector column in another form than the one above, over
5,000 rows and more; or a statement that returns a vector column of 1,000 rows and more a call, without any distance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlprobe.model import Fix
from sqlprobe.plans import conditions, scans, vectors
from sqlprobe.plans.rules import Smell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.plans.catalog import Catalog, Relation
    from sqlprobe.plans.conditions import Expression
    from sqlprobe.plans.plan import Node, Plan
    from sqlprobe.settings import Settings

RULE: Final = "vector-unusable-form"
_FETCHED: Final = 1_000  # rows a call: more embeddings than anybody shows


def check(plan: Plan, catalog: Catalog, settings: Settings) -> Iterable[Smell]:  # noqa: ARG001 - as every rule's
    """One smell for each sort or filter, or one for what is fetched."""
    measured = False
    for node in plan.nodes:
        for field in ("Sort Key", "Filter"):
            expressions = (
                [(key.expression, key.descending) for key in node.sort_keys()[:1]]
                if field == "Sort Key"
                else [(test, False) for test in node.tests(field)]
            )
            for expression, descending in expressions:
                distance = vectors.distance_in(expression)
                if distance is None:
                    continue
                measured = True
                found = _smell(plan, catalog, node, expression, distance, field, descending=descending)
                if found is not None:
                    yield found
    if not measured and not any("Order By" in node.fields for node in plan.nodes):
        yield from _fetched(plan, catalog)


def _smell(
    plan: Plan,
    catalog: Catalog,
    node: Node,
    expression: Expression,
    distance: vectors.Distance,
    field: str,
    *,
    descending: bool,
) -> Smell | None:
    scan = vectors.scan_of(plan, node, distance)
    relation = catalog.of(scan) if scan is not None else None
    if scan is None or relation is None or vectors.is_vector(relation, distance.column) is None:
        return None
    rows = scans.rows_looked_at(plan, scan, relation)
    if rows < vectors.MANY or (field == "Filter" and (node is not scan or _is_ordered(plan, node))):
        return None
    table = f"{relation.name}.c"
    method = vectors.METHODS.get(distance.operator, "cosine_distance")
    by = f".order_by({table}.{distance.column}.{method}(value)).limit(k)"
    if field == "Filter":
        form = "threshold"
        why = f"a threshold on {distance.operator} alone is tested on every row"
        advice = f"order by the distance and LIMIT, beside the threshold: {by}"
        code = by
    elif distance.is_function:
        form = "function"
        why = f"{distance.operator}() as a function is not the operator that an index knows"
        method = vectors.METHOD_OF_FUNCTION.get(distance.operator, "cosine_distance")
        code = f".order_by({table}.{distance.column}.{method}(value)).limit(k)"
        advice = f"use the column's method: {code}"
    elif vectors.is_bare(expression):
        if not descending:
            return None
        form, code = "farthest", ""
        why = f"the farthest by {distance.operator} are asked for, which no index finds"
        advice = f"if the nearest are meant, order by it ascending: {by}"
    else:
        form, code = "expression", by
        why = f"{expression.masked} is not a distance but computed from one"
        advice = f"order by the distance alone, ascending, and compute from it in the columns: {by}"
    return Smell(
        rule=RULE,
        nodes=(node, scan) if node is not scan else (node,),
        title=f"{why}: {rows:,.0f} rows of {relation.label}.{distance.column} are measured",
        advice=advice,
        label=f"{relation.label}.{distance.column}",
        detail=form,
        evidence={
            "form": form,
            "expression": expression.masked,
            "rows_measured": round(rows),
            "index": ", ".join(
                each.name for each in relation.usable_indexes if vectors.is_on(scan, each, distance.column)
            ),
        },
        fixes=(Fix(kind="rewrite", code=code),) if code else (),
        seconds_share=1.0,
    )


def _is_ordered(plan: Plan, node: Node) -> bool:
    """Whether the rows come in the order of a distance, or are sorted by one above."""
    if "Order By" in node.fields:
        return True
    return any(
        vectors.distance_in(key.expression) is not None for above in plan.above(node) for key in above.sort_keys()[:1]
    )


def _fetched(plan: Plan, catalog: Catalog) -> Iterable[Smell]:
    returned = scans.returned_rows(plan)
    output = plan.root.fields.get("Output")
    if plan.root.is_write or returned is None or returned < _FETCHED or not isinstance(output, list):
        return
    shown = {each.name for each in map(conditions.parse, map(str, output)) if each.kind == "column"}
    for node in plan.scans:
        relation = catalog.of(node)
        column = _vector_column(relation, shown) if relation is not None else ""
        if relation is None or not column:
            continue
        by = f".order_by({relation.name}.c.{column}.cosine_distance(value)).limit(k)"
        yield Smell(
            rule=RULE,
            nodes=(plan.root, node) if node is not plan.root else (node,),
            title=f"{returned:,.0f} vectors of {relation.label}.{column} are fetched in each call",
            advice=f"if they are compared in Python, let the database find the nearest: {by}; if not, defer() them",
            label=f"{relation.label}.{column}",
            detail="fetched",
            evidence={"form": "fetched", "rows_a_call": round(returned)},
            fixes=(Fix(kind="rewrite", code=by),),
            seconds_share=1.0,
        )
        return


def _vector_column(relation: Relation, shown: set[str]) -> str:
    return next((name for name in shown if vectors.is_vector(relation, name)), "")
