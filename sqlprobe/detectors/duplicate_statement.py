"""
# duplicate-statement: the same question again

One scope asks the database the same query with the same parameters more than once, and writes nothing in between: the
answer is known already.

```python
for row in rows:
    rate = session.scalar(select(Rate.value).where(Rate.code == "EUR"))    # the same each time
```

## What is proof
Either one loop runs the query again and again with one set of parameters (what proves a loop is told by
[repeated-statement](repeated-statement.md)), or different lines run the same ORM query with the same parameters on one
connection: in one transaction. A write of the scope in between makes the second a new question, and so does what may
change what is asked: SET, CALL, a SELECT of a function alone (`set_config()`).

Where three and more calls of a loop are 50 ms and more apart, the finding says that the loop polls, and is `info`.

`SELECT 1` is no question at all: a session that begins with one pays a round trip for what `create_engine(...,
pool_pre_ping=True)` does without a statement, and only where the driver can.

## What is none
The same query in different scopes (five requests of one test, each with its own session), `FOR UPDATE`, statements
without a table other than `SELECT 1`, catalogs.

## What to do
Ask once before the loop, or hand the object on; keep what rarely changes in a cache. A loop that waits for something to
change is meant: `sqlprobe.ignore("duplicate-statement", label="job", reason="waits for the worker")`.

## Limits
Of what other sessions write in between nothing is known. Repetitions of Core statements on different lines are not
told.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Final

from sqlprobe import orm
from sqlprobe.detectors import telling
from sqlprobe.detectors.repeated_statement import is_catalog
from sqlprobe.model import Finding, new_finding
from sqlprobe.scopes import READS
from sqlprobe.stats import wall

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.scopes import Digest, ShapeCalls, Spot
    from sqlprobe.settings import Settings
    from sqlprobe.sites import Place

RULE: Final = "duplicate-statement"
_POLLING_NS: Final = 50_000_000  # between two calls: a loop that works takes less, one that waits takes more
_locks: Final = re.compile(r"\bFOR (?:NO KEY )?(?:UPDATE|SHARE|KEY SHARE)\b", re.IGNORECASE).search
_chatter: Final = re.compile(r"SELECT \?(?: AS \S+)?(?: FROM DUAL)?;?$", re.IGNORECASE).match


def check(digest: Digest, settings: Settings) -> Iterable[Finding]:
    """One finding for each statement and loop, or for each statement that several lines asked in one transaction."""
    for statement in digest.shapes.values():
        if statement.kind != READS or statement.calls < settings.loop_threshold:
            continue
        spots = [spot for spot in statement.spots.values() if spot.counts and not spot.claimed]
        if not spots:
            continue
        chatter, meant = _kind_of(statement.shape.text, statement.shape.tables)
        if chatter:
            yield _finding(digest, statement, spots, statement.calls, statement.ns, None)
        if meant:
            continue
        if any(spot.state is not None and orm.locks_rows(spot.state) for spot in spots):
            continue
        found = False
        for loop in telling.loops_of(statement, settings):
            if loop.distinct <= 1 and not any(spot.claimed for spot in loop.spots) and not _writes_between(loop.spots):
                found = True
                yield _finding(digest, statement, loop.spots, loop.calls, loop.ns, loop.place, looped=True)
        if not found and statement.again and len(spots) > 1 and not any(spot.claimed for spot in spots):
            if any(spot.calls >= settings.loop_threshold and spot.distinct > 1 for spot in spots):
                continue  # a loop with other parameters, which happened to meet some twice
            yield _finding(digest, statement, spots, statement.again + 1, statement.again_ns, spots[0].place)


@functools.lru_cache(maxsize=1024)  # texts that capture keeps too; a program has some hundred
def _kind_of(text: str, tables: tuple[str, ...]) -> tuple[bool, bool]:
    """Whether *text* asks nothing, and whether it is no question that an earlier answer would do for."""
    chatter = _chatter(text) is not None
    return chatter, chatter or is_catalog(tables) or _locks(text) is not None


def _writes_between(spots: list[Spot]) -> bool:
    return any(spot.after_writes * 2 >= spot.calls for spot in spots)


def _finding(
    digest: Digest,
    statement: ShapeCalls,
    spots: list[Spot],
    calls: int,
    ns: int,
    place: Place | None,
    *,
    looped: bool = False,
) -> Finding:
    shape = statement.shape
    for spot in spots:
        spot.claimed = True
    if place is None:
        place = next((spot.place for spot in spots if spot.place is not None), None)
    site = place.site() if place else None
    first, last = min(spot.first_ns for spot in spots), max(spot.last_ns for spot in spots)
    gap = (last - first) // max(calls - 1, 1)
    chatter = _kind_of(shape.text, shape.tables)[0]
    polls = looped and calls > 2 and not chatter and gap >= _POLLING_NS  # noqa: PLR2004 - two looks are no habit
    evidence: dict[str, float | int | str] = {
        "share_of_scope": round(ns / digest.ns, 4) if digest.ns else 0.0,
        "statements_in_scope": digest.calls,
    }
    if polls:
        evidence["seconds_between"] = round(gap / 1e9, 3)
    places = [spot.place.site() for spot in spots if spot.place is not None and spot.place is not place]
    if places:
        evidence["also_at"] = ", ".join(sorted({f"{each.file}:{each.line}" for each in places}))
    connections = len({each for spot in spots for each in spot.connections})
    if connections > 1:
        evidence["connections"] = connections
    times = f"{calls} times"
    if chatter:
        title = f"SELECT 1 ran {times}{telling.at(site)}: it asks nothing"
        advice = (
            "leave it out: create_engine(..., pool_pre_ping=True) finds dead connections when they are taken from the "
            "pool, without a statement where the driver can"
        )
    elif polls:
        title = f"{telling.what(shape)} is polled: {times}, every {gap / 1e9:.2f} s{telling.at(site)}"
        advice = (
            "wait longer between two looks, or be told (LISTEN/NOTIFY); if it is meant, silence it: "
            f'sqlprobe.ignore("{RULE}", label="{" ".join(shape.tables)}", reason="...")'
        )
    else:
        title = f"{telling.what(shape)} ran {times} with the same parameters{telling.at(site)}"
        advice = "ask once, before the loop or where the first caller is, and hand the result on; or cache it"
    return new_finding(
        rule=RULE,
        severity="info" if chatter or polls else telling.severity(calls),
        title=title,
        advice=advice,
        key=telling.key(RULE, shape, digest.name, site),
        label=" ".join(shape.tables) or "SELECT 1",
        scope=digest.name,
        count=calls,
        seconds=ns / 1e9,
        fingerprint=shape.fingerprint,
        engine=statement.engine,
        site=site,
        evidence=evidence,
        first_seen=wall(first),
        last_seen=wall(last),
    )
