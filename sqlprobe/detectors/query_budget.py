"""
# query-budget: a scope ran more statements than it may

The settings, or the TOML file that tests and production share, say how many statements a scope may run, by its name
or a glob of names:

```toml
[budgets]
"GET /orders" = 4
"GET /admin/*" = { max_queries = 20, reason = "reports" }
```

`Settings(budgets=sqlprobe.load_budgets("budgets.toml"))`, `SQLPROBE_BUDGETS=budgets.toml`.

## What is proof
The count, nested scopes included. An exact name comes first, then the glob with the most characters of its own. The
finding names the statement that ran most often.

## What to do
Mend what the other findings of the scope say, most often an N+1; or raise the budget, with a reason.

## Limits
A scope that stays open is judged by the window (`scope_window_seconds`), and so is its budget.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlprobe.budgets import budget_for
from sqlprobe.detectors import telling
from sqlprobe.model import Finding
from sqlprobe.stats import wall

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.scopes import Digest
    from sqlprobe.settings import Settings

RULE: Final = "query-budget"


def check(digest: Digest, settings: Settings) -> Iterable[Finding]:
    """At most one finding."""
    if not settings.budgets or not digest.name or RULE in digest.silenced:
        return
    entry = budget_for(digest.name, settings.budgets)
    if entry is None or digest.calls <= entry[1]:
        return
    pattern, budget = entry
    most = max(digest.shapes.values(), key=lambda statement: statement.calls, default=None)
    site = most.place.site() if most is not None and most.place is not None else None
    evidence: dict[str, float | int | str] = {
        "budget": budget,
        "pattern": pattern,
        "statements": digest.calls,
        "distinct": digest.distinct,
    }
    where = ""
    if most is not None:
        evidence["most_often"] = f"{most.calls} times {telling.what(most.shape)}"
        where = f"; {telling.what(most.shape)} alone ran {most.calls} times{telling.at(site)}"
    yield Finding(
        rule=RULE,
        severity="error",
        title=f"{digest.name} ran {digest.calls} statements, its budget is {budget}{where}",
        advice="mend what repeats (the other findings of this scope), or raise the budget and say why",
        key=f"{RULE}|{pattern}|{digest.name}",
        label=pattern,
        scope=digest.name,
        count=digest.calls,
        seconds=digest.ns / 1e9,
        fingerprint=most.shape.fingerprint if most is not None else "",
        engine=most.engine if most is not None else "",
        site=site,
        evidence=evidence,
        first_seen=wall(digest.first_ns),
        last_seen=wall(digest.last_ns),
    )
