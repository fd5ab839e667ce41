"""
# column-load: columns of objects, loaded for one object at a time

The objects are there, some of their columns are not, and reading these runs a statement for each object. Why they are
not there decides what mends it:

| cause | what happened | what to do |
|---|---|---|
| `deferred` | the mapping defers it, or `load_only()` or `defer()` left it out | `undefer()`, or name it there |
| `subclass` | a column of a joined subclass, and the query asked for the base class | `selectin_polymorphic()` |
| `expired` | a commit (a rollback, `expire()`) made the objects stale | `expire_on_commit=False`, or read them before |
| `refresh` | `session.refresh()` in a loop | one query with `populate_existing` |

## What is proof
SQLAlchemy says for each such statement which object it was for. Deferred columns: two objects that one query loaded
(`n_plus_one_threshold`). Expired objects and refreshes: three.

## What is none
A refresh after a write of the scope, which reads what the database made of it; one or two objects read after a commit.

## Limits
`session.refresh(object, ["name"])` and `expire(object, ["name"])` of some columns look like deferred ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlprobe import orm
from sqlprobe.detectors import fixes, telling
from sqlprobe.model import Finding, Fix
from sqlprobe.stats import wall

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.scopes import Digest, Reloads
    from sqlprobe.settings import Settings

RULE: Final = "column-load"
_BARE_FROM: Final = 2  # reads that followed no write
_EXPIRED_FROM: Final = 3  # objects: one or two after a commit are what a function returns


def check(digest: Digest, settings: Settings) -> Iterable[Finding]:
    """One finding for each cause, mapped class and line."""
    groups: dict[tuple[Any, ...], list[Reloads]] = {}
    for reloads in digest.reloads.values():
        if reloads.claimed or reloads.mapper is None:
            continue
        if reloads.cause == orm.DEFERRED:
            told = reloads.origin is not None and len(reloads.parents) >= settings.n_plus_one_threshold
        else:
            told = reloads.bare >= _BARE_FROM and len(reloads.parents) >= _least(reloads)
        if told:
            reloads.claimed = True
            groups.setdefault((reloads.cause, reloads.mapper, reloads.props, reloads.place), []).append(reloads)
    for group in groups.values():
        yield _finding(digest, group)


def _least(reloads: Reloads) -> int:
    # Of objects that were written just before, the first refresh counts as one of those after a write.
    return _EXPIRED_FROM if reloads.cause == orm.EXPIRED else _BARE_FROM


def _finding(digest: Digest, group: list[Reloads]) -> Finding:
    worst = max(group, key=lambda reloads: reloads.ns)
    calls = sum(reloads.calls for reloads in group)
    ns = sum(reloads.ns for reloads in group)
    objects = sum(len(reloads.parents) for reloads in group)
    name = orm.name_of(worst.mapper)
    site = worst.place.site() if worst.place else None
    origin = worst.origin.place.site() if worst.origin and worst.origin.place else None
    codes: list[Fix] = []
    cause, label = worst.cause, name
    if cause == orm.DEFERRED:
        cause, label, advice, codes = _deferred(worst)
    elif cause == orm.EXPIRED:
        advice = (
            "keep what is loaded after a commit: Session(..., expire_on_commit=False), or read it before; what another "
            "transaction changes is then not seen by itself"
        )
        codes = [Fix(kind="setting", code="expire_on_commit=False")]
    else:
        advice = (
            f"refresh them with one query: select({name}).where(...).execution_options(populate_existing=True); or "
            "leave it out: what was read in this transaction is there"
        )
    what = {orm.EXPIRED: "expired objects, read anew", orm.REFRESHED: "refreshed one by one"}.get(cause, "deferred")
    title = (
        f"{label} was loaded {calls} times by itself{telling.at(site)}"
        if worst.cause == orm.DEFERRED
        else f"{objects} objects of {name} were loaded again, one by one ({what}){telling.at(site)}"
    )
    return Finding(
        rule=RULE,
        severity=telling.severity(calls),
        title=title,
        advice=advice,
        key=f"{RULE}|{cause}|{label}|{digest.name}|{site.function if site else ''}",
        label=label,
        scope=digest.name,
        count=calls,
        seconds=ns / 1e9,
        fingerprint=worst.tally.shape.fingerprint,
        engine=worst.tally.engine,
        site=site,
        origin=origin,
        evidence={
            "cause": cause,
            "objects": objects,
            "share_of_scope": round(ns / digest.ns, 4) if digest.ns else 0.0,
            "statements_in_scope": digest.calls,
        },
        fixes=tuple(codes),
        first_seen=wall(min(reloads.first_ns for reloads in group)),
        last_seen=wall(max(reloads.last_ns for reloads in group)),
    )


def _deferred(reloads: Reloads) -> tuple[str, str, str, list[Fix]]:
    """Cause, label, advice and fixes for columns that a query left out."""
    state = reloads.origin[4][1] if reloads.origin and reloads.origin[4] else None
    prop = reloads.props[0] if reloads.props else None
    mapper = reloads.mapper
    label = orm.label_of(prop) if prop is not None else orm.name_of(mapper)
    root = orm.entity_of(state) if state is not None else mapper
    if root is None or not mapper.isa(root):
        # The objects came along with others, over a relationship: which query, but not by which option.
        return "deferred", label, f"load {label} with the query that loads its objects: undefer({label})", []
    if prop is not None and not root.isa(prop.parent) and not orm.is_deferred(prop):
        option = fixes.polymorphic(root, prop.parent, "")
        cause = "subclass"
    else:
        option = ", ".join(f"undefer({orm.label_of(each)})" for each in reloads.props)
        cause = "deferred"
    code = fixes.query(orm.form_of(state) if state is not None else None, root, [option]) if option else ""
    advice = f"load {label} with the query that loads its objects: add .options({option})"
    if cause == "deferred" and prop is not None and orm.option_for(state, (prop,)) == "defer":
        code = option
        advice = f"load {label} with the query that loads its objects: leave defer({label}) out, or put {option} there"
    return cause, label, advice, [Fix(kind="loader-option", code=code)] if code else []
