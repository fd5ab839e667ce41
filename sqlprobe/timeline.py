"""
Timelines: what one scope ran, when. Loops are one step: fifty lazy loads between two queries are one line to read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlprobe import orm
from sqlprobe.model import Step, Timeline
from sqlprobe.stats import wall

if TYPE_CHECKING:
    from sqlprobe.scopes import Window

MAX_STEPS: Final = 100  # lines that somebody reads
LOOP: Final = 3  # calls of one statement from one line; two may be a coincidence


def timeline_of(name: str, kind: str, window: Window, engine: str = "") -> Timeline:
    """The timeline of a scope that has ended, of its statements on *engine* (all of them if that is empty)."""
    began = window.began_ns
    groups: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    places: dict[tuple[Any, ...], Any] = {}
    for record in sorted(window.kept, key=lambda record: record[1]):
        tally, _, _, _, load, place, extra = record[:7]
        if (extra is not None and extra.more) or engine not in {"", tally.engine}:
            continue  # the first: a page of the call before it
        like = (tally.shape.fingerprint, tally.engine, load is not None and load[0] == orm.LAZY)
        # Where only first calls are looked up, the next ones are taken to come from the same line.
        place = places[like] = place or places.get(like)
        groups.setdefault((*like, place), []).append(record)
    runs = []
    for records in groups.values():
        runs += [records] if len(records) >= LOOP else [[record] for record in records]
    runs.sort(key=lambda records: records[0][1])
    steps = tuple(_step(records, began) for records in runs[:MAX_STEPS])
    return Timeline(
        scope=name,
        kind=kind,
        started=wall(began),
        wall_seconds=window.wall_ns / 1e9,
        seconds=window.ns / 1e9,
        calls=window.calls,
        steps=steps,
        omitted=max(0, window.calls - sum(step.calls for step in steps)),
    )


def _step(records: list[tuple[Any, ...]], began: int) -> Step:
    tally, first, _, _, load, place, _ = records[0][:7]
    lazy = load is not None and load[0] == orm.LAZY
    rows = [record[3] for record in records if record[3] >= 0]
    return Step(
        fingerprint=tally.shape.fingerprint,
        engine=tally.engine,
        started=max(0, first - began) / 1e9,
        seconds=(max(record[1] + record[2] for record in records) - first) / 1e9,
        busy_seconds=sum(record[2] for record in records) / 1e9,
        calls=len(records),
        rows=sum(rows) if rows else None,
        errors=sum(record[6] is not None and record[6].error is not None for record in records),
        site=place.site() if place is not None else None,
        relationship=_label(load) if lazy else None,
    )


def _label(load: tuple[Any, ...]) -> str | None:
    try:
        return orm.label_of(orm.relationship_of(orm.Load(*load)))
    except Exception:  # noqa: BLE001 - private names of SQLAlchemy that a new version may change: told without it
        return None
