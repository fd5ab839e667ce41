"""
# write-loop: one INSERT, UPDATE or DELETE for each row

A loop writes row by row, or flushes its session after each object: a statement, and a round trip, for each row where
one would carry them all.

```python
for name in names:
    session.add(Customer(name=name))
    session.flush()                        # one INSERT each
```

## What is proof
The line that executes or flushes, or the line of yours that called it, is in a loop (the bytecode says so) and ran the
statement for one row at a time, two times or more (`loop_threshold`). Where only the first call's line was looked up
(`call_sites`), five.

## What is none
One flush of many objects, whatever it sends; `executemany`, INSERTs of many rows and their pages; one statement for
many rows, again for each batch of a long list.

## What to do
INSERT: `session.add_all(objects)` and one flush, or `session.execute(insert(Model), rows)`. UPDATE:
`session.execute(update(Model), rows)` with the primary key in each row, or one UPDATE with a condition. DELETE:
`delete(Model).where(Model.id.in_(ids))`. Where the loop needs the new identifiers, one flush gives all of them.

Where the statement does nothing but write one row of a table that has a class of its own, by its primary key, that bulk
form is printed with the names of your mapping. It runs no events of single objects; `add_all()` does.

## Limits
A loop that writes one row again and again (a progress bar that commits) looks the same: parameters of writes are not
kept. A fix is for one table: where rows of another belong to it, write the parents first and delete them last. It has
no RETURNING: `session.scalars(insert(Model).returning(Model), rows)` gives what the database made. On a Core connection
it is `connection.execute(insert(table), rows)`, with columns' names.

Whether each row must be committed by itself, nobody can tell from statements: silence what is meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlprobe.detectors import bulk, telling
from sqlprobe.model import Finding, Fix
from sqlprobe.scopes import WRITES
from sqlprobe.stats import wall

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.scopes import Digest, ShapeCalls
    from sqlprobe.settings import Settings

RULE: Final = "write-loop"
_MANY: Final = 2  # rows a call: a statement for many rows each time is a batch
_ADVICE: Final = {
    "INSERT": "collect the rows and write them at once: session.add_all(objects) and one flush, or "
    "session.execute(insert(Model), rows)",
    "UPDATE": "write them at once: session.execute(update(Model), rows) with the primary key in each row, change the "
    "objects and flush once, or one UPDATE with a condition",
    "DELETE": "delete them at once: delete(Model).where(Model.id.in_(ids)), or session.delete() each and one flush",
    "MERGE": "merge all rows with one statement",
}


def check(digest: Digest, settings: Settings) -> Iterable[Finding]:
    """One finding for each statement and loop."""
    for statement in digest.shapes.values():
        if statement.kind != WRITES or statement.calls < settings.loop_threshold or not statement.shape.tables:
            continue
        for loop in telling.loops_of(statement, settings, strict=True):
            rows = sum(spot.rows for spot in loop.spots)
            if rows >= _MANY * loop.calls:
                continue
            for spot in loop.spots:
                spot.claimed = True
            yield _finding(digest, statement, loop)


def _finding(digest: Digest, statement: ShapeCalls, loop: telling.Loop) -> Finding:
    shape = statement.shape
    site = loop.place.site() if loop.place else None
    code = bulk.code_for(shape, loop.place)
    return Finding(
        rule=RULE,
        severity=telling.severity(loop.calls),
        title=f"{telling.what(shape)} ran {loop.calls} times, for one row each{telling.at(site)}",
        advice=_ADVICE[shape.operation],
        key=telling.key(RULE, shape, digest.name, site),
        label=" ".join(shape.tables),
        scope=digest.name,
        count=loop.calls,
        seconds=loop.ns / 1e9,
        fingerprint=shape.fingerprint,
        engine=statement.engine,
        site=site,
        evidence={
            "share_of_scope": round(loop.ns / digest.ns, 4) if digest.ns else 0.0,
            "statements_in_scope": digest.calls,
        },
        fixes=(Fix(kind="rewrite", code=code),) if code else (),
        first_seen=wall(loop.first_ns),
        last_seen=wall(loop.last_ns),
    )
