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

## Limits
The parents' query is named when it ran in the same scope. Objects that were flushed but never loaded have no number
and are not siblings; after a commit each object is refreshed by a query of its own and has a number of its own. A walk
up `node.parent.parent` from one object is not told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlprobe import orm
from sqlprobe.model import Finding, Fix
from sqlprobe.stats import wall

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.model import Severity
    from sqlprobe.scopes import Digest, LazyLoads
    from sqlprobe.settings import Settings

RULE: Final = "n-plus-one"
_MAX_OPTIONS: Final = 5  # in one piece of code
_ERROR_FROM: Final = 10  # loads in one scope: a page of a list; below it a warning


def check(digest: Digest, settings: Settings) -> Iterable[Finding]:
    """One finding for each relationship and line that read it."""
    faults: dict[tuple[str, object], list[LazyLoads]] = {}
    for loads in digest.loads.values():
        if len(loads.parents) >= settings.n_plus_one_threshold:
            loads.claimed = True
            faults.setdefault((orm.label_of(orm.relationship_of(loads.load)), loads.place), []).append(loads)
    for (label, _), groups in faults.items():
        yield _finding(digest, label, groups)


def _finding(digest: Digest, label: str, groups: list[LazyLoads]) -> Finding:
    worst = max(groups, key=lambda loads: loads.ns)
    calls = sum(loads.calls for loads in groups)
    ns = sum(loads.ns for loads in groups)
    siblings = sum(len(loads.parents) for loads in groups)
    codes = _codes(digest, groups)
    root, chain = digest.way_to(worst)
    option, prop = _option(root, chain), chain[-1]
    origin = worst.origin or next((loads.origin for loads in groups if loads.origin), None)
    site = worst.place.site() if worst.place else None
    origin_site = origin.place.site() if origin and origin.place else None
    evidence: dict[str, float | int | str] = {
        "parents": siblings,
        "parent_queries": len(groups),
        "share_of_scope": round(ns / digest.ns, 4) if digest.ns else 0.0,
        "statements_in_scope": digest.calls,
    }
    if origin and origin.rows > 0 and len(groups) == 1:
        evidence["rows_of_parent_query"] = origin.rows
    where = f" at {site.file}:{site.line}" if site else ""
    parents = "its parents" if len(chain) == 1 else orm.name_of(root)
    fixes = [Fix(kind="loader-option", code=code) for code in codes]
    advice = f"load {label} with the query that loads {parents}: add .options({option})"
    if not orm.self_referential(prop):  # there lazy= ends after one level
        lazy = "joined" if orm.to_one(prop) else "selectin"
        fixes.append(Fix(kind="setting", code=f'lazy="{lazy}"'))
        advice += f'; or, if every query needs it, give the relationship lazy="{lazy}"'
    severity: Severity = "error" if calls >= _ERROR_FROM else "warning"
    read_in = site.function if site else (origin_site.function if origin_site else "")
    return Finding(
        rule=RULE,
        severity=severity,
        title=f"lazy load of {label} ran {calls} times{where}",
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
        evidence=evidence,
        fixes=tuple(fixes),
        first_seen=wall(min(loads.first_ns for loads in groups)),
        last_seen=wall(max(loads.last_ns for loads in groups)),
    )


def _codes(digest: Digest, groups: list[LazyLoads]) -> list[str]:
    """The queries that mend *groups*, one for each class that is selected; the costliest first."""
    chains: dict[Any, list[tuple[Any, ...]]] = {}
    for loads in sorted(groups, key=lambda loads: -loads.ns):
        root, chain = digest.way_to(loads)
        known = chains.setdefault(root, [])
        # A longer chain loads what is on its way.
        if not any(other[: len(chain)] == chain for other in known):
            known[:] = [other for other in known if chain[: len(other)] != other]
            if len(known) < _MAX_OPTIONS:
                known.append(chain)
    return [
        f"select({orm.name_of(root)}).options({', '.join(dict.fromkeys(_option(root, chain) for chain in known))})"
        for root, known in list(chains.items())[:_MAX_OPTIONS]
    ]


def _option(root: Any, chain: tuple[Any, ...]) -> str:
    """`selectinload(Customer.orders).selectinload(Order.lines)`."""
    steps: list[str] = []
    at = 0
    while at < len(chain):
        prop = chain[at]
        times = next((n for n, other in enumerate(chain[at:]) if other is not prop), len(chain) - at)
        at += times
        name = orm.label_of(prop)
        if at < len(chain) and not orm.has(prop.mapper, chain[at]):
            name += f".of_type({orm.name_of(chain[at].parent)})"
        if times > 1:
            steps.append(f"selectinload({name}, recursion_depth=-1)")
        else:
            steps.append(f"{'joinedload' if orm.to_one(prop) else 'selectinload'}({name})")
    option = ".".join(steps)
    if not orm.has(root, chain[0]):
        subclass = orm.name_of(chain[0].parent)
        return f"selectin_polymorphic({orm.name_of(root)}, [{subclass}]), {option}"
    return option
