"""
# row-explosion: two collections in one join

One query joins two collections of the same parent that have nothing to do with each other. The database combines each
row of the one with each of the other: a customer with 100 orders and 50 notes is 5,000 rows, of which SQLAlchemy makes
150 objects.

```python
select(Customer).options(joinedload(Customer.orders), joinedload(Customer.notes))
```

## What is proof
The query's own loader options and mappings say which collections it joins; a chain (`orders`, and the lines of each
order) is none, two branches are. Where the driver tells the number of rows and it is one a query, nothing has exploded.

## What to do
Join one of them at most, and load the others with `selectinload`, one statement each. Where the mapping joins
(`lazy="joined"`), the option on the query overrides it. With `contains_eager` the joins are yours: leave one out.

## Limits
The number of rows is known where the driver says it (PostgreSQL; not SQLite).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlprobe import orm
from sqlprobe.detectors import fixes, telling
from sqlprobe.model import Finding, Fix
from sqlprobe.stats import wall

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.scopes import Digest, ShapeCalls, Spot
    from sqlprobe.settings import Settings

RULE: Final = "row-explosion"
_FEW: Final = 100  # rows a query: not yet a fault that anybody feels


def check(digest: Digest, settings: Settings) -> Iterable[Finding]:  # noqa: ARG001 - as every detector
    """One finding for each query and line."""
    for statement in digest.shapes.values():
        for spot in statement.spots.values():
            if spot.state is None:
                continue
            ways = orm.joined_collections(spot.state)
            if len(ways) > 1 and (not spot.rows or spot.rows > spot.calls):
                yield _finding(digest, statement, spot, ways)


def _finding(digest: Digest, statement: ShapeCalls, spot: Spot, ways: list[tuple[Any, ...]]) -> Finding:
    shape = statement.shape
    root = orm.entity_of(spot.state)
    site = spot.place.site() if spot.place else None
    labels = [orm.label_of(way[-1]) for way in ways]
    label = " ".join(sorted(labels))
    codes: list[Fix] = []
    option = ", ".join(fixes.option(root, way, joins=False, state=spot.state) for way in ways[1:])
    given = [orm.option_for(spot.state, way) for way in ways[1:]]
    if orm.joins_by_hand(spot.state):
        advice = f"join one of {' and '.join(labels)} only, and load the other with selectinload"
    elif any(given):
        codes.append(Fix(kind="loader-option", code=option))
        instead = " and ".join(sorted({each for each in given if each}))
        advice = f"load all but one with a statement of their own: {option} instead of {instead}"
    else:
        codes.append(Fix(kind="loader-option", code=fixes.query(orm.form_of(spot.state), root, [option])))
        advice = f"load all but one with a statement of their own: .options({option})"
    each = spot.rows / spot.calls if spot.rows else 0
    evidence: dict[str, float | int | str] = {"collections": len(ways), "statements_in_scope": digest.calls}
    if each:
        evidence["rows_each"] = round(each, 1)
    rows = f", {each:,.0f} rows each time" if each else ""
    return Finding(
        rule=RULE,
        severity="info" if each and each < _FEW else "warning",
        title=f"{' and '.join(labels)} are joined in one query{rows}{telling.at(site)}",
        advice=advice,
        key=f"{RULE}|{label}|{digest.name}|{site.function if site else ''}",
        label=label,
        scope=digest.name,
        count=spot.calls,
        seconds=spot.ns / 1e9,
        fingerprint=shape.fingerprint,
        engine=statement.engine,
        site=site,
        origin=site,
        evidence=evidence,
        fixes=tuple(codes),
        first_seen=wall(spot.first_ns),
        last_seen=wall(spot.last_ns),
    )
