"""
# n-plus-one: one query for the parents, then one for each of them

A query loads N objects, and reading one relationship of each runs another query: N + 1 statements where one or two
would do. Each is quick, so no slow-query log shows them; together they are most of what such a request waits for.

```python
for order in session.scalars(select(Order)):     # 1 query
    order.items                                  # N queries
```

## What is proof
SQLAlchemy gives every result a number, and every object remembers the number of the result that loaded it last. Lazy
loads of one relationship for **different** objects with the **same** number are an N+1; two objects that were fetched
each for itself are not, whatever the text of their statements. Two loads are enough (`n_plus_one_threshold`).

## What to do
Load the relationship with the query that loads the parents; the finding names that query's line (`origin`) and holds
the option: `selectinload` for collections, which costs one more statement, `joinedload` for references to one object,
which costs none. Where every query needs it, put it on the relationship: `relationship(lazy="selectin")`
(`"selectinload"` is the option's name, and no value of `lazy`). A tree that is walked down wants
`selectinload(Node.children, recursion_depth=-1)`.

The option stands in the finding in the form that the query was written: `select()`, `session.query()`,
`session.get(..., options=[...])`, several entities; after `from_statement()` there is no join, so there it is
`selectinload` only.

## Objects that had expired
A commit makes objects stale: the next read of each runs a query for its columns, and another for the relationship. The
query that had loaded them is still known, so a loop that commits is told as what it is, with both counts and the cause
`expired by commit`: mend that first (`expire_on_commit=False`, or commit once after the loop), then load ahead. Objects
that the session made itself came from no query; three of them, read at one line after a commit, are told too.

## Trees
A walk down `children` of `children` is one finding. So is a walk up `node.parent.parent` from one object, from the
third step on: each step can only be asked for after the last, and what mends it is a recursive common table expression
that reads the whole way at once.

## Limits
The parents' query is named when it ran in the same scope. Objects that were flushed but never loaded have no number
and are not siblings. Where a query selects an alias, nobody here knows its name, and only the mapping's option is
given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from sqlprobe import loops, orm
from sqlprobe.detectors import fixes, telling
from sqlprobe.model import Finding, Fix, new_finding
from sqlprobe.scopes import NEW
from sqlprobe.stats import wall

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.model import Severity
    from sqlprobe.scopes import Digest, LazyLoads
    from sqlprobe.settings import Settings
    from sqlprobe.sites import Place

RULE: Final = "n-plus-one"
EXPIRED: Final = "expired by commit"
WALK: Final = "walk along a tree"
_MAX_OPTIONS: Final = 5  # in one piece of code
_MAX_MENDED: Final = 1_000  # relationships and queries, 1 kB each; a program has some hundred
_ERROR_FROM: Final = 10  # loads in one scope: a page of a list; below it a warning
_WALK_FROM: Final = 3  # steps: node.parent.parent is no walk
_NEW_FROM: Final = 3  # objects that no query loaded: nothing but the line says that they belong together

_mended: dict[tuple[Any, ...], tuple[Any, Any, tuple[str, tuple[Fix, ...]]]] = {}


def check(digest: Digest, settings: Settings) -> Iterable[Finding]:
    """One finding for each relationship and line that read it."""
    faults: dict[tuple[str, Place | None], list[LazyLoads]] = {}
    walks: dict[tuple[str, object], list[LazyLoads]] = {}
    for key, loads in digest.loads.items():
        least = settings.n_plus_one_threshold if key[1] != NEW else max(_NEW_FROM, settings.n_plus_one_threshold)
        if len(loads.parents) >= least:
            loads.claimed = True
            faults.setdefault((orm.label_of(orm.relationship_of(loads.load)), loads.place), []).append(loads)
        elif len(loads.parents) == 1:
            prop = orm.relationship_of(loads.load)
            if orm.self_referential(prop):
                walks.setdefault((orm.label_of(prop), _line(loads.place)), []).append(loads)
    for (label, place), groups in faults.items():
        # A branch of a tree may have one child: it is a part of the same walk.
        alone = walks.pop((label, _line(place)), []) if walks else []
        for loads in alone:
            loads.claimed = True
        yield _finding(digest, label, [*groups, *alone])
    for (label, _), groups in walks.items():
        longest = _longest(digest, groups)
        if len(longest) >= _WALK_FROM:
            for loads in longest:
                loads.claimed = True
            yield _walk(digest, label, longest)


def _line(place: Place | None) -> object:
    return None if place is None else loops.line_of(place, whoever=True)


def _longest(digest: Digest, groups: list[LazyLoads]) -> list[LazyLoads]:
    """The steps of walks among *groups*: loads for what another of them brought in, and these others."""
    steps = {}
    for loads in groups:
        runid = loads.load.runid
        record = None if runid is None else digest.query_of(runid, loads.tally.thread, loads.load.connection)
        if record is not None and record[4][0] == orm.LAZY and _same(record[4][1], loads):
            steps[loads.load.runid] = loads
    return [loads for loads in groups if loads.load.runid in steps or loads.load.marker + 1 in steps]


def _same(state: Any, loads: LazyLoads) -> bool:
    return orm.relationship_in(state) is orm.relationship_of(loads.load)


def _walk(digest: Digest, label: str, groups: list[LazyLoads]) -> Finding:
    calls = sum(loads.calls for loads in groups)
    worst = groups[0]
    prop = orm.relationship_of(worst.load)
    name = orm.name_of(prop.mapper)
    return _told(
        digest,
        label,
        groups,
        worst,
        title=f"{label} was followed for {calls} steps, one query each",
        advice=(
            f"read the whole way at once: a recursive CTE over {name} (select(...).cte(recursive=True)) gives all that "
            f"{label} leads to with one query, or keep the way in a column; to load a fixed number of levels ahead, "
            f"add selectinload({label}, recursion_depth=n)"
        ),
        evidence={"cause": WALK, "steps": calls},
        codes=(),
    )


def _finding(digest: Digest, label: str, groups: list[LazyLoads]) -> Finding:
    worst = groups[0]
    calls, siblings, expired = worst.calls, len(worst.parents), worst.expired
    if len(groups) > 1:
        worst = max(groups, key=lambda loads: loads.ns)
        calls = sum(loads.calls for loads in groups)
        siblings = sum(len(loads.parents) for loads in groups)
        expired = sum(loads.expired for loads in groups)
    origin = _origin(groups, worst)
    evidence: dict[str, float | int | str] = {"parents": siblings, "parent_queries": len(groups)}
    if origin and origin.rows > 0 and len(groups) == 1:
        evidence["rows_of_parent_query"] = origin.rows
    advice, codes = _mending(digest, label, groups, worst, found=worst.origin is not None or not expired)
    if 2 * expired >= calls:
        evidence["cause"] = EXPIRED
        evidence["refreshes"] = _claim_reloads(digest, orm.relationship_of(worst.load))
        codes = (Fix(kind="setting", code="expire_on_commit=False"), *codes)
        advice = (
            "keep objects loaded after a commit, Session(..., expire_on_commit=False), or commit once at the end; then "
            + advice
        )
    return _told(
        digest,
        label,
        groups,
        worst,
        title=f"lazy load of {label} ran {calls} times",
        advice=advice,
        evidence=evidence,
        codes=codes,
    )


def _mending(
    digest: Digest, label: str, groups: list[LazyLoads], worst: LazyLoads, *, found: bool
) -> tuple[str, tuple[Fix, ...]]:
    """
    Advice, and the code for it: of the query, if it was *found* or the objects are still what it loaded.

    The same loop in the next scope has the same: what SQLAlchemy compiled for it, and the way, are the same objects.
    """
    state, load = _state(worst), worst.load
    if len(groups) > 1 or not found or not digest.is_direct(load, worst.tally.thread):
        return _worked_out(digest, label, groups, worst, found=found)
    key = (id(load.compile_state), id(state), orm.path_of(load))
    known = _mended.get(key)
    if known is not None and known[0]() is load.compile_state and (state is None or known[1]() is state):
        return known[2]
    mending = _worked_out(digest, label, groups, worst, found=True)
    if len(_mended) >= _MAX_MENDED:
        _mended.clear()
    gone = ref(load.compile_state)
    _mended[key] = (gone, gone if state is None else ref(state), mending)
    return mending


def _worked_out(
    digest: Digest, label: str, groups: list[LazyLoads], worst: LazyLoads, *, found: bool
) -> tuple[str, tuple[Fix, ...]]:
    root, chain = digest.way_to(worst)
    prop = chain[-1]
    named = not orm.is_alias(worst.load)
    state = _state(worst)
    option = fixes.option(root, chain, joins=_may_join(_form(state)), state=state)
    parents = "its parents" if len(chain) == 1 else orm.name_of(root)
    codes = [Fix(kind="loader-option", code=code) for code in _codes(digest, groups)] if found and named else []
    advice = f"load {label} with the query that loads {parents}: add .options({option})"
    if not named:
        advice += f", of the alias that it selects instead of {orm.name_of(root)}"
    if not orm.self_referential(prop):  # there lazy= ends after one level
        lazy = "joined" if orm.to_one(prop) else "selectin"
        codes.append(Fix(kind="setting", code=f'lazy="{lazy}"'))
        advice += f'; or, if every query needs it, give the relationship lazy="{lazy}"'
    return advice, tuple(codes)


def _told(
    digest: Digest,
    label: str,
    groups: list[LazyLoads],
    worst: LazyLoads,
    *,
    title: str,
    advice: str,
    evidence: dict[str, float | int | str],
    codes: tuple[Fix, ...],
) -> Finding:
    calls, ns, first_ns, last_ns = worst.calls, worst.ns, worst.first_ns, worst.last_ns
    if len(groups) > 1:
        calls, ns = sum(loads.calls for loads in groups), sum(loads.ns for loads in groups)
        first_ns, last_ns = min(loads.first_ns for loads in groups), max(loads.last_ns for loads in groups)
    origin = _origin(groups, worst)
    site = worst.place.site() if worst.place else None
    origin_site = origin.place.site() if origin and origin.place else None
    severity: Severity = "error" if calls >= _ERROR_FROM else "warning"
    read_in = site.function if site else (origin_site.function if origin_site else "")
    return new_finding(
        rule=RULE,
        severity=severity,
        title=title + telling.at(site),
        advice=advice,
        key=f"{RULE}|{label}|{digest.name}|{read_in}",
        label=label,
        scope=digest.name,
        count=calls,
        seconds=ns / 1e9,
        fingerprint=worst.tally.shape.fingerprint,
        engine=worst.tally.engine,
        site=site,
        origin=origin_site,
        evidence={
            **evidence,
            "share_of_scope": round(ns / digest.ns, 4) if digest.ns else 0.0,
            "statements_in_scope": digest.calls,
        },
        fixes=codes,
        first_seen=wall(first_ns),
        last_seen=wall(last_ns),
    )


def _origin(groups: list[LazyLoads], worst: LazyLoads) -> Any:
    return worst.origin or next((loads.origin for loads in groups if loads.origin), None)


def _state(loads: LazyLoads) -> Any:
    """The compile state of the query behind *loads*, None where it did not run in this scope."""
    return loads.origin.load[1] if loads.origin is not None and loads.origin.load is not None else None


def _form(state: Any) -> tuple[str, tuple[str, ...]] | None:
    return None if state is None else orm.form_of(state)


def _may_join(form: tuple[str, tuple[str, ...]] | None) -> bool:
    """Whether a query of that *form* takes `joinedload`: the text of `from_statement()` is what it is."""
    return form is None or form[0] != "from_statement"


def _claim_reloads(digest: Digest, prop: Any) -> int:
    """The refreshes of expired objects that have the relationship *prop*: they are told with its loads."""
    count = 0
    for reloads in digest.reloads.values():
        if reloads.cause == orm.EXPIRED and reloads.mapper is not None and orm.has(reloads.mapper, prop):
            reloads.claimed = True
            count += reloads.calls
    return count


def _codes(digest: Digest, groups: list[LazyLoads]) -> list[str]:
    """The queries that mend *groups*, one for each class that is selected and form of it; the costliest first."""
    chains: dict[tuple[Any, Any], list[tuple[Any, ...]]] = {}
    states: dict[tuple[Any, Any], Any] = {}
    forms: dict[int, Any] = {}
    for loads in sorted(groups, key=lambda loads: -loads.ns):
        root, chain = digest.way_to(loads)
        state = _state(loads)
        if id(state) not in forms:
            forms[id(state)] = _form(state)  # the group holds the state
        form = forms[id(state)]
        known = chains.setdefault((root, form), [])
        states.setdefault((root, form), state)
        # A longer chain loads what is on its way.
        if not any(other[: len(chain)] == chain for other in known):
            known[:] = [other for other in known if chain[: len(other)] != other]
            if len(known) < _MAX_OPTIONS:
                known.append(chain)
    made = []
    for (root, form), known in list(chains.items())[:_MAX_OPTIONS]:
        state, joins = states[root, form], _may_join(form)
        options = dict.fromkeys(fixes.option(root, chain, joins=joins, state=state) for chain in known)
        made.append(fixes.query(form, root, list(options)))
    return list(dict.fromkeys(made))
