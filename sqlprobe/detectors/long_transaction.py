"""
# long-transaction: a transaction stayed open for long

A transaction was open for `long_transaction_seconds` (5 s by default) or more. While it is, its connection is lost to
others, its locks are held, and PostgreSQL cannot clean up what any transaction that began later has deleted.

The finding tells the line that took the connection (`site`), how much of the time was spent in statements, and the
line after which it ran none for longest (`origin`): there the transaction waited for something that is no database.

## What to do
Do what is slow and no statement (a call to another service, a file, a queue) before the transaction or after it. Where
the time is in the statements, split the work: commit every thousand rows.

## Limits
Transactions are watched while somebody asks: `Settings(watch_pools=True)`, or the Prometheus or OpenTelemetry exporter.
The time in statements is told where the transaction ran inside a scope and had fewer than 512 statements. Two-phase
transactions are not seen. With the isolation level AUTOCOMMIT the server has no transaction, and SQLAlchemy's is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlprobe.model import Finding
from sqlprobe.stats import wall

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.pool import Transaction
    from sqlprobe.settings import Settings

RULE: Final = "long-transaction"
_HALF: Final = 0.5


def check(transaction: Transaction, scope: str, settings: Settings) -> Iterable[Finding]:
    """One finding for a *transaction* that took long, met in the scope of that name."""
    if transaction.took_ns < round(settings.long_transaction_seconds * 1e9):
        return
    place = transaction.place or transaction.end_place
    site = place.site() if place else None
    origin = transaction.gap_place.site() if transaction.gap_place else None
    seconds = transaction.took_ns / 1e9
    evidence: dict[str, float | int | str] = {
        "seconds": round(seconds, 6),
        "threshold_seconds": settings.long_transaction_seconds,
        "outcome": transaction.outcome,
    }
    where = f" at {site.file}:{site.line}" if site else ""
    idle = ""
    advice = "do slow work that is no statement before the transaction or after it, or commit in smaller steps"
    if transaction.db_ns is not None and transaction.calls is not None:
        in_database = transaction.db_ns / 1e9
        evidence["statements"] = transaction.calls
        evidence["in_database_seconds"] = round(in_database, 6)
        evidence["longest_pause_seconds"] = round(transaction.gap_ns / 1e9, 6)
        idle = f", {in_database:.2f} s of them in {transaction.calls} statements"
        if in_database >= _HALF * seconds:
            advice = "mend its statements, which took most of the time, or commit in smaller steps"
        elif origin is not None:
            advice = (
                f"move what runs after {origin.file}:{origin.line} out of the transaction: no statement ran for "
                f"{transaction.gap_ns / 1e9:.2f} s"
            )
    yield Finding(
        rule=RULE,
        severity="warning",
        title=f"a transaction was open for {seconds:.2f} s{idle}{where}",
        advice=advice,
        key=f"{RULE}|{transaction.engine}|{scope}|{site.function if site else ''}",
        label=transaction.engine,
        scope=scope,
        count=transaction.calls or 0,
        seconds=seconds,
        engine=transaction.engine,
        site=site,
        origin=origin,
        evidence=evidence,
        first_seen=wall(transaction.ended_ns - transaction.took_ns),
        last_seen=wall(transaction.ended_ns),
    )
