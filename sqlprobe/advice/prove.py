"""
Proof: which candidates the planner would really use, and the few of them that mend most of a workload.

An index is advised where a statement's plan in the lab uses it and costs half as much at most. That the lab plans the
statement as the database does is checked first, for each; where it does not, nothing is claimed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from sqlprobe import faults
from sqlprobe.advice import candidates as made
from sqlprobe.advice import lab as labs
from sqlprobe.advice import snapshot as snapshots
from sqlprobe.model import Finding, Fix, Verified
from sqlprobe.plans import explain, scans
from sqlprobe.plans import plan as plans
from sqlprobe.plans.catalog import PAGE_BYTES, Catalog, Reader

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console
    from sqlalchemy import Engine

    from sqlprobe.advice.candidates import Candidate
    from sqlprobe.advice.lab import Lab, Trial
    from sqlprobe.advice.snapshot import Snapshot
    from sqlprobe.model import StatementStats
    from sqlprobe.plans.examine import Answer
    from sqlprobe.plans.explain import Session
    from sqlprobe.plans.plan import Plan
    from sqlprobe.plans.sampling import Sample

GAIN: Final = 2.0  # times cheaper, at least: less is within what the planner's estimates are worth
MAX_INDEXES: Final = 10  # of one advice: more are no advice
WORTH: Final = 0.02  # of the workload's time: an index that saves less is not worth its upkeep
NOT_INSTALLED: Final = "not verified; install sqlprobe[lab]"
# Catalogs of thousands of tables take seconds; nobody waits for the locks, which are those of a SELECT.
SNAPSHOT_LIMITS: Final = explain.Limits(statement_seconds=20.0)
_SKIP_SCAN_FROM: Final = 180_000
_MORE_THAN: Final = 0.95  # of another's saving: the smaller of two such is taken


@dataclass(frozen=True, slots=True)
class Case:
    """A statement with its sample and its plan on the real server; `role` and `search_path` are "" if unknown."""

    sample: Sample
    plan: Plan
    catalog: Catalog
    fingerprint: str = ""
    engine: str = ""
    statement: StatementStats | None = None
    role: str = ""
    search_path: str = ""

    @property
    def seconds(self) -> float:
        """What the statement has cost so far; its plan's cost in thousands where nothing is known of it."""
        return self.statement.seconds if self.statement is not None else self.plan.root.total_cost / 1e6


@dataclass(frozen=True, slots=True)
class Served:
    """A statement that an index serves: its costs and plans in the lab, without and with it."""

    case: Case
    before: Trial
    after: Trial

    @property
    def saved(self) -> float:
        """The part (0 to 1) of its cost that is saved."""
        return 1.0 - self.after.cost / self.before.cost if self.before.cost else 0.0


@dataclass(frozen=True, slots=True)
class Advice:
    """An index, the statements it serves, the part (0 to 1) of the workload's time that it saves, its size in bytes."""

    candidate: Candidate
    served: tuple[Served, ...]
    share: float
    bytes: int
    method: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """`advice` in the order of what it saves; `withheld` are the cases that the lab could not judge, and why."""

    advice: tuple[Advice, ...]
    withheld: tuple[tuple[Case, str], ...]


def prove(lab: Lab, cases: Sequence[Case]) -> Outcome:
    """The indexes that mend most of *cases*, each proven in *lab*."""
    withheld: list[tuple[Case, str]] = []
    found: list[tuple[Case, Trial, dict[str, tuple[Candidate, Trial]]]] = []
    wanted = [(case, made.of_plan(case.plan, case.catalog)) for case in cases]
    lab.add(candidate for _, each in wanted for candidate in each)
    possible_of = [(case, [each for each in mine if lab.is_possible(each)]) for case, mine in wanted]
    possible_of = [(case, possible) for case, possible in possible_of if possible]
    tried = lab.try_all(
        [
            (_sample(lab, case), [[], *([each] for each in possible)], _settings(lab, case))
            for case, possible in possible_of
        ]
    )
    for (case, possible), (before, *trials) in zip(possible_of, tried, strict=True):
        why = _why_not(case, before)
        if why:
            withheld.append((case, why))
            continue
        useful = {
            candidate.target: (candidate, trial)
            for candidate, trial in zip(possible, trials, strict=True)
            if _is_useful(lab, candidate, before, trial)
        }
        if useful:
            found.append((case, before, useful))
    return Outcome(tuple(_choose(lab, found, sum(case.seconds for case in cases))), tuple(withheld))


def _sample(lab: Lab, case: Case) -> Sample:
    """The sample with the role and search path of its connection, before what the application has set on it."""
    settings = {"search_path": case.search_path or lab.snapshot.search_path}
    role = case.role or lab.snapshot.role
    if any(each.name == role for each in lab.snapshot.roles):
        settings["role"] = role
    first = tuple((_set(name, value), None) for name, value in settings.items())
    return replace(case.sample, settings=(*first, *case.sample.settings))


def _set(name: str, value: str) -> str:
    doubled = value.replace("'", "''")
    return f"SELECT set_config('{name}', '{doubled}', true)"


def _settings(lab: Lab, case: Case) -> list[tuple[str, str]]:
    """The planner's, of the real server and of the session."""
    settings = {**lab.snapshot.settings, **case.plan.settings}
    return [(name, value) for name, value in settings.items() if not name.startswith("lc_")]


def _why_not(case: Case, before: Trial) -> str:
    if before.plan is None:
        return f"not verified: the lab cannot plan the statement ({before.refused})"
    if before.plan.shape != case.plan.shape:
        return "not verified: the lab plans the statement in another way than the server does"
    return ""


def _is_useful(lab: Lab, candidate: Candidate, before: Trial, after: Trial) -> bool:
    name = lab.name_of(candidate)
    if after.plan is None or name not in after.used or after.cost * GAIN > before.cost:
        return False
    # An older server has no skip scan: it would read the whole index.
    return lab.snapshot.server_version >= _SKIP_SCAN_FROM or not _skips(after.plan, candidate, name)


def _skips(plan: Plan, candidate: Candidate, name: str) -> bool:
    """Whether the index is searched without its first key."""
    first = candidate.keys[0]
    if not first.column or candidate.method != "btree":
        return False
    for node in plan.nodes:
        condition = node.condition("Index Cond") if node.index == name else None
        if condition is not None and first.column not in {column.name for column in condition.columns}:
            return True
    return False


def _choose(
    lab: Lab, found: list[tuple[Case, Trial, dict[str, tuple[Candidate, Trial]]]], total: float
) -> Iterable[Advice]:
    """The best index first, then the best beside it, until nothing that is left is worth having."""
    left = [(case, before, before.cost, useful) for case, before, useful in found]
    for _ in range(MAX_INDEXES):
        savings: dict[str, float] = {}
        by_target: dict[str, Candidate] = {}
        for case, before, now, useful in left:
            for target, (candidate, trial) in useful.items():
                savings[target] = savings.get(target, 0.0) + case.seconds * (now - trial.cost) / before.cost
                by_target[target] = candidate
        most = max(savings.values(), default=0.0)
        if most <= total * WORTH:
            return
        # Of those that save about as much, the plainest and smallest.
        target = min(
            (each for each, saved in savings.items() if saved >= most * _MORE_THAN),
            key=lambda each: (
                bool(by_target[each].predicate) and len(by_target[each].keys) > 1,
                lab.pages_of(by_target[each]),
                len(by_target[each].keys),
                each,
            ),
        )
        chosen = by_target[target]
        served = [Served(case, before, useful[target][1]) for case, before, _, useful in left if target in useful]
        share = savings[target] / total if total > 0 else 1.0
        yield Advice(chosen, tuple(served), share, lab.pages_of(chosen) * PAGE_BYTES, lab.method)
        rest = []
        for case, before, now, useful in left:
            cost = useful[target][1].cost if target in useful else now
            more = {
                each: (candidate, trial)
                for each, (candidate, trial) in useful.items()
                if each != target and trial.cost * GAIN <= cost
            }
            if more:
                rest.append((case, before, cost, more))
        left = rest


def findings(outcome: Outcome) -> list[Finding]:
    """A finding for each advised index."""
    return [_finding(advice) for advice in outcome.advice]


def _finding(advice: Advice) -> Finding:
    candidate = advice.candidate
    best = max(advice.served, key=lambda served: served.saved * served.case.seconds)
    statement = best.case.statement
    before, after = best.before, best.after
    keys = ", ".join(key.text for key in candidate.keys)
    count = len(advice.served)
    statements = "a statement" if count == 1 else f"{count} statements"
    where = f" where {candidate.predicate}" if candidate.predicate else ""
    fix = _fix(candidate, Verified(
        advice.method, before.cost, after.cost, _shown(before, candidate), _shown(after, candidate)
    ))  # fmt: skip
    site = None
    if statement is not None:
        site = statement.slowest or (statement.sites[0].site if statement.sites else None)
    evidence: dict[str, float | int | str] = {
        "cost_before": round(before.cost, 2),
        "cost_after": round(after.cost, 2),
        "statements": count,
        "share_of_time": round(advice.share, 4),
        "index_bytes": advice.bytes,
        "verified": advice.method,
    }
    if candidate.method == "hnsw":
        evidence["note"] = (
            "answers become approximate: rows that pass a filter beside it may be missing; keep hnsw.ef_search at "
            "LIMIT + OFFSET or above, and switch hnsw.iterative_scan on where there is a filter"
        )
    if getattr(best.case.sample, "generic", False):
        evidence["note"] = "planned without values, which the report does not hold: what one of them needs may differ"
    seconds = sum(served.case.statement.seconds * served.saved for served in advice.served if served.case.statement)
    return Finding(
        rule=candidate.rule,
        severity="warning",
        title=f"{statements} of {candidate.label} would cost {_times(before.cost, after.cost)} less with an index on "
        f"({keys}){where}",
        advice=f"create it ({scans.size(advice.bytes)}): {candidate.ddl()}",
        key=f"{candidate.rule}|{candidate.label}|{candidate.name}",
        label=candidate.label,
        count=sum(served.case.statement.calls for served in advice.served if served.case.statement) or count,
        seconds=seconds,
        fingerprint=best.case.fingerprint,
        engine=best.case.engine,
        site=site,
        evidence=evidence,
        fixes=(fix,),
        first_seen=statement.first_seen if statement is not None else 0.0,
        last_seen=statement.last_seen if statement is not None else 0.0,
    )


def unverified(cases: Iterable[Case], why: str = NOT_INSTALLED) -> list[Finding]:
    """The likeliest index of each case whose plan reads much to keep little, untried: *why* says so on each."""
    found: dict[str, Finding] = {}
    for case in cases:
        selective = {
            (relation.schema, relation.name)
            for node in case.plan.scans
            if (relation := case.catalog.of(node)) is not None
            and node.kind in {"Seq Scan", "Sample Scan"}
            and scans.kept_rows(case.plan, node) <= (relation.rows or 0.0) * scans.SELECTIVE
        }
        for candidate in made.of_plan(case.plan, case.catalog):
            if (candidate.schema, candidate.table) not in selective:
                continue
            keys = ", ".join(key.text for key in candidate.keys)
            found.setdefault(
                candidate.target,
                Finding(
                    rule=candidate.rule,
                    severity="info",
                    title=f"{candidate.label} is read whole; an index on ({keys}) might answer it",
                    advice=f"try it: {candidate.ddl()}",
                    key=f"{candidate.rule}|{candidate.label}|{candidate.name}",
                    label=candidate.label,
                    fingerprint=case.fingerprint,
                    engine=case.engine,
                    evidence={"verified": why},
                    fixes=(_fix(candidate, None),),
                ),
            )
            break
    return list(found.values())


def _fix(candidate: Candidate, verified: Verified | None) -> Fix:
    return Fix("create-index", candidate.ddl(), candidate.alembic(), candidate.sqlalchemy(), verified)


def _shown(trial: Trial, candidate: Candidate) -> str | None:
    if trial.plan is None:
        return None
    text = plans.render(trial.plan)
    for name in trial.used:
        text = text.replace(name, candidate.name)
    return text


def _times(before: float, after: float) -> str:
    if not after or not math.isfinite(before):
        return "much"
    times = before / after
    return f"{times:,.0f} times" if times >= 10 else f"{times:.1f} times"  # noqa: PLR2004 - one digit says enough


def safely(lab: Lab, cases: Sequence[Case]) -> list[Finding]:
    """As `prove()` and `findings()`; a fault of ours is counted, and the advice is then told as not verified."""
    try:
        return findings(prove(lab, cases))
    except Exception as error:  # noqa: BLE001 - ours
        faults.count("lab", error)
        return unverified(cases, "not verified: the lab failed")


def advise(engine: Engine, cases: Sequence[Case], snapshot: Snapshot | None = None) -> list[Finding]:
    """
    The findings for *cases*, statements of *engine*, proven in a lab made of *snapshot*, or of what is read now.

    Without the lab's PostgreSQL, or where it does not start, they are told as not verified, and say why. Never raises
    for what a server says.
    """
    if not any(made.of_plan(case.plan, case.catalog) for case in cases):
        return []
    try:
        taken = snapshot or explain.on_connection(engine, snapshots.read, SNAPSHOT_LIMITS)
        with labs.open_lab(taken, engine.dialect.driver, is_async=engine.dialect.is_async) as lab:
            return safely(lab, cases)
    except explain.Refused as refused:
        return unverified(cases, f"not verified: no snapshot of the database could be taken ({refused.reason})")
    except labs.LabError as error:
        installed = "sqlprobe[lab]" not in str(error)
        return unverified(cases, "not verified: the lab did not start" if installed else NOT_INSTALLED)


def of_answers(engine: Engine, answers: Iterable[Answer], snapshot: Snapshot | None = None) -> list[Finding]:
    """As `advise()`, for what an examiner has found out on *engine*: nothing for answers without a plan."""
    planned = [(answer, answer.plan) for answer in answers if answer.plan is not None]

    def catalogs(session: Session) -> list[Catalog]:
        reader = Reader()
        return [reader.read(session, plan) for _, plan in planned]

    try:
        known = explain.on_connection(engine, catalogs) if planned else []
    except explain.Refused:
        return []
    cases = [
        Case(
            answer.question.sample, plan, catalog, answer.question.fingerprint, answer.question.engine_name,
            answer.question.statement,
        )
        for (answer, plan), catalog in zip(planned, known, strict=True)
    ]  # fmt: skip
    return advise(engine, cases, snapshot)


def show(advice: Sequence[Finding], console: Console) -> None:
    """Print each advised index, what saves most first."""
    from rich.text import Text

    share = sum(float(each.evidence.get("share_of_time", 0.0)) for each in advice)
    said = f"{len(advice)} indexes" if len(advice) != 1 else "1 index"
    head = (
        f"{said} would remove {share:.0%} of these statements' cost".replace("%", " %") if share else f"{said} to try"
    )
    console.print(Text(head if advice else "no index would help", "bold"), soft_wrap=True)
    for number, each in enumerate(advice, 1):
        console.print(Text(f"{number}. {each.title}", "bold yellow"), soft_wrap=True)
        for fix in each.fixes:
            console.print(Text(f"     {fix.code}", "green"), soft_wrap=True)
        console.print(Text(f"     verified: {each.evidence.get('verified', 'no')}"), soft_wrap=True)
