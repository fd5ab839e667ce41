"""
Judging: every rule's smells of one plan, made findings. One node of a plan, one finding.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlprobe import faults
from sqlprobe.model import SEVERITIES, Finding
from sqlprobe.plans import plan as plans
from sqlprobe.plans.rules import (
    deep_offset,
    filter_discards_rows,
    misestimate,
    missing_vector_index,
    nested_loop,
    partition_pruning_lost,
    rls_hides_index,
    seq_scan,
    sort_spill,
    stale_statistics,
    unbounded_result,
    unusable_predicate,
    vector_index_parameters,
    vector_operator_mismatch,
    vector_overfiltering,
    vector_unusable_form,
    whole_index_walk,
    wide_columns,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlprobe.model import Severity, StatementStats
    from sqlprobe.plans.catalog import Catalog
    from sqlprobe.plans.plan import Plan
    from sqlprobe.plans.rules import Smell
    from sqlprobe.settings import Settings

# The first that names a node owns its finding: causes and cures before symptoms.
CHECKS: Final[dict[str, Callable[[Plan, Catalog, Settings], Iterable[Smell]]]] = {
    "unusable-predicate": unusable_predicate.check,
    "partition-pruning-lost": partition_pruning_lost.check,
    "rls-hides-index": rls_hides_index.check,
    "vector-unusable-form": vector_unusable_form.check,
    "vector-operator-mismatch": vector_operator_mismatch.check,
    "missing-vector-index": missing_vector_index.check,
    "vector-overfiltering": vector_overfiltering.check,
    "nested-loop": nested_loop.check,
    "whole-index-walk": whole_index_walk.check,
    "filter-discards-rows": filter_discards_rows.check,
    "seq-scan": seq_scan.check,
    "deep-offset": deep_offset.check,
    "sort-spill": sort_spill.check,
    "wide-columns": wide_columns.check,
    "unbounded-result": unbounded_result.check,
    "vector-index-parameters": vector_index_parameters.check,
    "misestimate": misestimate.check,
    "stale-statistics": stale_statistics.check,
}
# These tell of something that stays wrong when the node's finding is mended.
_OWN: Final = frozenset({"stale-statistics", "vector-index-parameters", "plan-regression"})

MAX_PLAN: Final = 6_000  # characters of a plan in a finding's evidence
_WARNING: Final = 0.1  # of the time that is an error
_ALSO: Final = "also"


@dataclass(frozen=True, slots=True)
class Case:
    """
    A plan to be judged: of the statement `fingerprint` on `engine`, with what was seen of it (None: nothing).

    `notes` are sentences that belong to each finding, such as that settings were not reproduced. `timed` is False
    where the statement's seconds say nothing of what it will cost: on the few rows of a test suite.
    """

    plan: Plan
    catalog: Catalog
    fingerprint: str = ""
    engine: str = ""
    statement: StatementStats | None = None
    notes: tuple[str, ...] = ()
    timed: bool = True


def judge(
    case: Case,
    settings: Settings,
    more: Iterable[Smell] = (),
    heeded: Callable[[Smell], Smell | None] = lambda smell: smell,
) -> list[Finding]:
    """
    The findings of every rule that is not disabled, and of *more*. A rule that raises is counted, and yields nothing.
    *heeded* is given each smell, and answers what is to be made of it: None for nothing.
    """
    smells: list[Smell] = []
    for rule, check in CHECKS.items():
        if rule in settings.disabled_rules:
            continue
        try:
            smells += [each for each in map(heeded, check(case.plan, case.catalog, settings)) if each is not None]
        except Exception as error:  # noqa: BLE001 - ours, and never the application's
            faults.count(f"plan rule {rule}", error)
    smells += [smell for smell in more if smell.rule not in settings.disabled_rules]
    owners: dict[int, Smell] = {}
    also: dict[int, list[str]] = {}
    told: list[Smell] = []
    for smell in _together(smells):
        owner = owners.get(smell.nodes[0].number) if smell.rule not in _OWN else None
        if owner is not None:
            if smell.rule not in {owner.rule, *also[id(owner)]}:
                also[id(owner)].append(smell.rule)
            continue
        told.append(smell)
        also[id(smell)] = []
        if smell.rule not in _OWN:
            for node in smell.nodes:
                owners.setdefault(node.number, smell)
    return [_finding(case, smell, also[id(smell)], settings) for smell in told]


def _together(smells: Iterable[Smell]) -> Iterable[Smell]:
    """The same said of several nodes, of the partitions of a table for instance, is one smell of them all."""
    found: dict[tuple[str, str, str], Smell] = {}
    for smell in smells:
        key = (smell.rule, smell.label, smell.detail)
        first = found.get(key)
        found[key] = smell if first is None else dataclasses.replace(first, nodes=(*first.nodes, *smell.nodes))
    return found.values()


def _finding(case: Case, smell: Smell, also: list[str], settings: Settings) -> Finding:
    statement = case.statement
    share = smell.seconds_share
    if share is None:
        share = min(1.0, sum(case.plan.share(node) for node in smell.nodes))
    evidence: dict[str, float | int | str] = dict(smell.evidence)
    if also:
        evidence[_ALSO] = ", ".join(also)
    if case.notes:
        evidence["note"] = "; ".join(case.notes)
    evidence["plan"] = plans.render(case.plan)[:MAX_PLAN]
    site = None
    if statement is not None:
        site = statement.slowest or (statement.sites[0].site if statement.sites else None)
    now = time.time()
    where = site.function if site is not None else case.fingerprint
    return Finding(
        rule=smell.rule,
        severity=severity_of(smell, statement if case.timed else None, share, settings),
        title=smell.title,
        advice=smell.advice,
        key=f"{smell.rule}|{smell.label}|{smell.detail}|{where}",
        label=smell.label,
        count=statement.calls if statement is not None else 1,
        seconds=statement.seconds * share if statement is not None else 0.0,
        fingerprint=case.fingerprint,
        engine=case.engine,
        site=site,
        evidence=evidence,
        fixes=smell.fixes,
        first_seen=statement.first_seen if statement is not None else now,
        last_seen=statement.last_seen if statement is not None else now,
    )


def severity_of(smell: Smell, statement: StatementStats | None, share: float, settings: Settings) -> Severity:
    """
    By the time that it costs in one call: an error from `slow_seconds` on, a warning from a tenth of that on. What
    costs no time that is known of is told as the rule says.
    """
    if not smell.by_time or statement is None or not statement.calls:
        return smell.severity
    return min(severity_by(statement.seconds / statement.calls * share, settings), smell.most, key=SEVERITIES.index)


def severity_by(seconds: float, settings: Settings) -> Severity:
    """Of what costs *seconds* in one call."""
    if seconds >= settings.slow_seconds:
        return "error"
    return "warning" if seconds >= settings.slow_seconds * _WARNING else "info"
