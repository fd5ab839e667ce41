"""
Detectors: what a scope's digest tells. One module a rule, named after it, with `check(digest, settings)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlprobe import faults, ignores
from sqlprobe.detectors import (
    column_load,
    duplicate_statement,
    long_transaction,
    n_plus_one,
    pool_pressure,
    query_budget,
    repeated_statement,
    row_explosion,
    slow_statement,
    write_loop,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlprobe.model import Finding
    from sqlprobe.pool import Transaction, Wait
    from sqlprobe.scopes import Digest
    from sqlprobe.settings import Settings

# The most precise first: what one has claimed the next does not accuse again.
DETECTORS: Final[dict[str, Callable[[Digest, Settings], Iterable[Finding]]]] = {
    "n-plus-one": n_plus_one.check,
    "column-load": column_load.check,
    "duplicate-statement": duplicate_statement.check,
    "repeated-statement": repeated_statement.check,
    "write-loop": write_loop.check,
    "row-explosion": row_explosion.check,
    "slow-statement": slow_statement.check,
    "query-budget": query_budget.check,
}

# What the pools tell is no statement, and is judged by itself as it comes.
POOL_DETECTORS: Final[dict[str, Callable[[Any, str, Settings], Iterable[Finding]]]] = {
    "pool-pressure": pool_pressure.check,
    "long-transaction": long_transaction.check,
}


def judge_pool(event: Wait | Transaction, scope: str, settings: Settings) -> list[Finding]:
    """What the rule of such an *event*, met in the scope of that name, says of it."""
    rule = "long-transaction" if hasattr(event, "took_ns") else "pool-pressure"
    if rule in settings.disabled_rules:
        return []
    return ignores.told(POOL_DETECTORS[rule](event, scope, settings), settings.ignores)


def judge(digest: Digest, settings: Settings) -> list[Finding]:
    """
    Every finding of every rule that is not disabled, without those that the settings ignore.

    A detector that raises yields what it had, and is counted.
    """
    if not digest.calls:
        return []
    findings: list[Finding] = []
    digest.unclaim()
    for rule, check in DETECTORS.items():
        # Slow statements that ran in no scope are digested without a name, and have nothing to do with each other.
        if rule in settings.disabled_rules or not (digest.name or rule == "slow-statement"):
            continue
        try:
            findings.extend(check(digest, settings))
        except Exception as error:  # noqa: BLE001 - ours, and never the application's
            faults.count(f"detector {rule}", error)
    return ignores.told(findings, settings.ignores) if settings.ignores else findings
