"""
# repeated-statement: one query asked again and again, for one row at a time

A loop runs the same SELECT with other parameters each time: `session.get()` for each of a list of identifiers, a count
per row, a lookup by name, the query of a `lazy="dynamic"` relationship or of `with_parent()` per parent.

```python
for number in numbers:
    session.get(Customer, number)          # one statement each
```

## What is proof
The line, or the line of yours that called it, is in a loop (the bytecode says so), and ran two times or more
(`loop_threshold`). Where the loop is further up, five calls of one line on one connection are needed, and ten if each
had a connection of its own. Lines are known in recordings, and for ORM queries in every scope; of the other statements
the first call's line is looked up and that of slow ones (`call_sites`), and five calls are needed.

A loop around nested scopes (a service method in a `sqlprobe.scope` of its own) is told once, of the scope around them,
if its line is in the statement's own or its caller's frame. Scopes of another kind than `"scope"`, as the middlewares'
requests and tasks are, stay units of their own: several requests of one test are no loop.

## What is none
Pages (`OFFSET`, or a condition on the last key with `LIMIT`) whose parameters go on by a page each time, lists cut
into `IN` chunks of 50 values and more, what `selectinload` and the pages of an INSERT send, statements without a
table, catalogs, and the same query on two lines.

## What to do
Ask once for all: `select(Customer).where(Customer.id.in_(numbers))`, a join, a `GROUP BY` for counts, `selectinload`
for rows that belong to a relationship. Where the ORM's query does nothing but look up one column, that query for all
`values` is printed, in the form it was written; its rows are the loop's, with the value in each.

Silence what is meant: `sqlprobe.ignore("repeated-statement", reason=...)`.

## Limits
Five calls in a helper that different lines call, two levels above, are taken for a loop. A keyset walk over texts is
believed without the check that a whole-number key allows.
"""

from __future__ import annotations

import functools
import inspect
import re
from typing import TYPE_CHECKING, Any, Final

from sqlprobe import orm
from sqlprobe.detectors import fixes, telling
from sqlprobe.model import Finding, Fix, new_finding
from sqlprobe.scopes import READS
from sqlprobe.stats import wall

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.fingerprint import Shape
    from sqlprobe.scopes import Digest, ShapeCalls
    from sqlprobe.settings import Settings

RULE: Final = "repeated-statement"
_CATALOG: Final = ("pg_catalog.", "information_schema.", "sqlite_", "pg_")
_counts: Final = re.compile(r"^SELECT (?:count|sum|min|max|avg|coalesce)\s*\(", re.IGNORECASE).match
_limits: Final = re.compile(r"\b(?:LIMIT|OFFSET) \?").findall
_belongs: Final = re.compile(r"\? = ", re.IGNORECASE).search


def check(digest: Digest, settings: Settings) -> Iterable[Finding]:
    """One finding for each statement and loop."""
    for statement in digest.shapes.values():
        if statement.kind != READS or statement.calls < settings.loop_threshold or not statement.spots:
            continue
        if is_catalog(statement.shape.tables):
            continue
        for loop in telling.loops_of(statement, settings):
            if loop.distinct < settings.loop_threshold or any(spot.claimed or _is_walk(spot) for spot in loop.spots):
                continue
            for spot in loop.spots:
                spot.claimed = True
            yield _finding(digest, statement, loop)


@functools.lru_cache(maxsize=1024)  # names that capture keeps too
def is_catalog(tables: tuple[str, ...]) -> bool:
    """Whether what reads *tables* reads none of the application's."""
    return not tables or all(table.lower().startswith(_CATALOG) for table in tables)


def _is_walk(spot: Any) -> bool:
    return spot.walk is not None and spot.walk.proven


def _finding(digest: Digest, statement: ShapeCalls, loop: telling.Loop) -> Finding:
    shape = statement.shape
    site = loop.place.site() if loop.place else None
    state = loop.spots[0].state
    code, advice = _rewrite(statement, loop, state) if state is not None else ("", "")
    evidence: dict[str, float | int | str] = {
        "distinct_parameters": loop.distinct,
        "share_of_scope": round(loop.ns / digest.ns, 4) if digest.ns else 0.0,
        "statements_in_scope": digest.calls,
    }
    connections = len(loop.spots[0].connections)
    if connections > 1:
        evidence["connections"] = connections
    return new_finding(
        rule=RULE,
        severity=telling.severity(loop.calls),
        title=f"{telling.what(shape)} ran {loop.calls} times with different parameters{telling.at(site)}",
        advice=advice or _advice(shape),
        key=telling.key(RULE, shape, digest.name, site),
        label=" ".join(shape.tables),
        scope=digest.name,
        count=loop.calls,
        seconds=loop.ns / 1e9,
        fingerprint=shape.fingerprint,
        engine=statement.engine,
        site=site,
        evidence=evidence,
        fixes=(Fix(kind="rewrite", code=code),) if code else (),
        first_seen=wall(loop.first_ns),
        last_seen=wall(loop.last_ns),
    )


def _rewrite(statement: ShapeCalls, loop: telling.Loop, state: Any) -> tuple[str, str]:
    """One query for what the loop asks for, and the advice to use it; empty where Python cannot be told from it."""
    form = orm.form_of(state)[0]
    if form == "get" and len(loop.spots[0].connections) <= 1:  # else: each had a session of its own
        mapper = orm.entity_of(state)
        column = orm.primary_key_of(mapper)
        if column is None:
            return "", ""
        name = orm.name_of(mapper)
        code = f"session.scalars(select({name}).where({name}.{column}.in_(ids)))"
        awaits = loop.place is not None and loop.place.code.co_flags & inspect.CO_COROUTINE
        code = f"(await {code}).all()" if awaits else f"{code}.all()"
        return code, "load them with one query before the loop, in its session, and keep the result"
    found = orm.lookup_of(state) if form != "from_statement" else None
    # A condition that the mapping or an event added shows as one value more.
    if found is None or len(statement.shape.tables) != 1 or _values(statement.shape.text) != 1:
        return "", ""
    code = fixes.lookup(form, found)
    absent = "; a value that it does not return has no rows" if found.aggregates else ""
    return code, f"ask for all of them with one query before the loop{absent}"


def _values(text: str) -> int:
    """The values in a normalised *text*, without those of its LIMIT."""
    return text.count("?") - len(_limits(text))


def _advice(shape: Shape) -> str:
    if _counts(shape.text):
        return "work all of them out with one statement: GROUP BY the column that is compared, for all its values"
    if _belongs(shape.text):
        return (
            "load the rows with their parents: read the relationship with selectinload(), or ask for all parents at "
            "once with IN"
        )
    return "ask for all rows with one statement: IN with all values, or a join with the query that gave them"
