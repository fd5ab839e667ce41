"""
Detectors: what a scope's digest tells. One module a rule, named after it, with `check(digest, settings)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlprobe import faults
from sqlprobe.detectors import n_plus_one, slow_statement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlprobe.model import Finding
    from sqlprobe.scopes import Digest
    from sqlprobe.settings import Settings

# The most precise first: what one has claimed the next does not accuse again.
DETECTORS: Final[dict[str, Callable[[Digest, Settings], Iterable[Finding]]]] = {
    "n-plus-one": n_plus_one.check,
    "slow-statement": slow_statement.check,
}


def judge(digest: Digest, settings: Settings) -> list[Finding]:
    """Every finding of every rule that is not disabled. A detector that raises yields what it had, and is counted."""
    findings: list[Finding] = []
    for rule, check in DETECTORS.items():
        if rule in settings.disabled_rules:
            continue
        try:
            findings.extend(check(digest, settings))
        except Exception as error:  # noqa: BLE001 - ours, and never the application's
            faults.count(f"detector {rule}", error)
    return findings
