"""
Proof: which candidates the planner would really use, and the few of them that mend most of a workload.

An index is advised where a statement's plan in the lab uses it and costs half as much at most. That the lab plans the
statement as the database does is checked first, for each; where it does not, nothing is claimed.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlprobe import faults
from sqlprobe.advice import candidates as made
from sqlprobe.advice import lab as labs
from sqlprobe.advice import repeats, sampling
from sqlprobe.advice import snapshot as snapshots
from sqlprobe.advice.places import LabError
from sqlprobe.model import SEVERITIES, Finding, Fix, Verified
from sqlprobe.plans import explain, scans, vectors
from sqlprobe.plans import plan as plans
from sqlprobe.plans.catalog import PAGE_BYTES
from sqlprobe.plans.conditions import Expression

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import Console
    from sqlalchemy import Engine

    from sqlprobe.advice.candidates import Candidate
    from sqlprobe.advice.lab import Lab, Trial
    from sqlprobe.advice.snapshot import Snapshot, Statistic
    from sqlprobe.model import StatementStats
    from sqlprobe.plans.catalog import Catalog, Index, Relation
    from sqlprobe.plans.examine import Answer
    from sqlprobe.plans.explain import Session
    from sqlprobe.plans.plan import Node, Plan
    from sqlprobe.plans.sampling import Sample

GAIN: Final = 2.0  # times cheaper, at least: less is within what the planner's estimates are worth
GAIN_GUESSED: Final = 3.0  # as `GAIN`, where the planner guesses: it takes a third for what may be nearly all
MAX_INDEXES: Final = 10  # of one advice: more are no advice
WORTH: Final = 0.02  # of the workload's time: an index that saves less is not worth its upkeep, unless it saves
WORTH_SECONDS: Final = 0.001  # of a call, which the one who waits for it may notice
MAX_WHY: Final = 300  # characters: a server that does not start has a log to show
NOT_INSTALLED: Final = "not verified; install sqlprobe[lab]"
# Catalogs of thousands of tables take seconds; nobody waits for the locks, which are those of a SELECT.
SNAPSHOT_LIMITS: Final = explain.Limits(statement_seconds=20.0)
_SKIP_SCAN_FROM: Final = 180_000
_SLACK: Final = 0.25  # of what the best leaves to do, and
_TRIFLE: Final = 0.0005  # of what there was: among indexes that differ by no more, the smallest is taken
GAIN_IN_MEMORY: Final = 3.0  # as `GAIN`, where only the planner's reckoning of the processor's work is left
# A page that is in memory costs what ten of a row's comparisons do, and a worker's work is work.
_ALONE: Final = (("max_parallel_workers_per_gather", "0"),)
_IN_MEMORY: Final = (("seq_page_cost", "0.1"), ("random_page_cost", "0.1"))
_SWITCHES: Final = {
    "Nested Loop": "enable_nestloop", "Hash Join": "enable_hashjoin", "Merge Join": "enable_mergejoin",
    "Seq Scan": "enable_seqscan", "Index Scan": "enable_indexscan", "Index Only Scan": "enable_indexonlyscan",
    "Bitmap Heap Scan": "enable_bitmapscan", "Memoize": "enable_memoize",
}  # fmt: skip
_CACHE_PAGES: Final = 524_288  # PostgreSQL's own effective_cache_size, of which
_SHARE_OF_CACHE: Final = 0.125  # the tables of one statement may take so much and be taken for being in memory
_SHARE_OF_ROWS: Final = 0.25  # found by an index: of more, each one's page is looked up again, which no price tells
LEAST_COST: Final = 20.0  # units saved a call: some 0.05 ms; below that nobody sees a difference
_SMALL_PAGES: Final = 16
_ORDERS: Final = frozenset({"<", "<=", ">", ">="})
_RANDOM_PAGE_COST: Final = 4.0  # PostgreSQL's own
EF_SEARCH: Final = 40  # pgvector's own hnsw.ef_search
_LARGE_GRAPH: Final = 64 << 20  # bytes: PostgreSQL's own maintenance_work_mem
# Of one row's entry: orders of magnitude, not measurements of the server in question.
_WRITE_SECONDS: Final = {"btree": 10e-6, "gin": 60e-6, "gist": 40e-6, "hnsw": 2e-3, "ivfflat": 100e-6}


@dataclass(frozen=True)
class Case:
    """
    A statement with its sample and its plan on the real server; `role` and `search_path` are "" if unknown.

    `seen` is what its other samples tell, see `candidates.Seen`.
    """

    sample: Sample
    plan: Plan
    catalog: Catalog
    fingerprint: str = ""
    engine: str = ""
    statement: StatementStats | None = None
    role: str = ""
    search_path: str = ""
    seen: made.Seen = field(default_factory=made.Seen)
    others: tuple[Sample, ...] = ()  # with other values: what helps has to help all of them, taken together

    @property
    def samples(self) -> tuple[Sample, ...]:
        return (self.sample, *self.others)

    @property
    def seconds(self) -> float:
        """What the statement has cost so far; its plan's cost in thousands where nothing is known of it."""
        return self.statement.seconds if self.statement is not None else self.plan.root.total_cost / 1e6

    @property
    def key(self) -> tuple[str, str]:
        return self.fingerprint, self.engine

    def relation_of(self, candidate: Candidate) -> Relation | None:
        return self.catalog.relations.get((candidate.schema, candidate.table))

    @cached_property
    def candidates(self) -> list[Candidate]:
        return made.of_plan(self.plan, self.catalog, self.seen)


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
    """
    An index, the statements it serves, the part (0 to 1) of the workload's time that it saves, its size in bytes.

    `beside` are indexes that have to be there too, for an OR; `upkeep` is the part of the workload's time that writing
    it will cost, taken off the `share`.
    """

    candidate: Candidate
    served: tuple[Served, ...]
    share: float
    bytes: int
    method: str
    beside: tuple[Candidate, ...] = ()
    upkeep: float = 0.0

    @property
    def keys(self) -> frozenset[tuple[str, str]]:
        """Fingerprint and engine of each statement that it serves."""
        return frozenset(served.case.key for served in self.served)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`advice` in the order of what it saves; `withheld` are the cases that the lab could not judge, and why."""

    advice: tuple[Advice, ...]
    withheld: tuple[tuple[Case, str], ...]


@dataclass(frozen=True, slots=True)
class _Option:
    """Indexes that together serve one statement, and its plan with them."""

    candidates: tuple[Candidate, ...]
    trial: Trial

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(each.target for each in self.candidates)

    @property
    def method(self) -> str:
        return self.candidates[0].method


def prove(lab: Lab, cases: Sequence[Case], sampled: dict[str, Statistic] | None = None) -> Outcome:
    """The indexes that mend most of *cases*, each proven in *lab*. *sampled* goes to `Lab.add()`."""
    withheld: list[tuple[Case, str]] = []
    found: list[tuple[Case, Trial, list[_Option]]] = []
    lab.add((candidate for case in cases for candidate in case.candidates), sampled)
    asked: list[tuple[Case, list[tuple[Candidate, ...]]]] = []
    for case in cases:
        possible = [each for each in case.candidates if lab.is_possible(each)]
        sets: list[tuple[Candidate, ...]] = [(each,) for each in possible]
        sets += made.together(case.plan, case.catalog, possible)
        if sets:
            asked.append((case, sets))
    tried = iter(lab.try_all([
        (sample_in(lab, case, sample), [(), *sets], settings_in(lab, case))
        for case, sets in asked
        for sample in case.samples
    ]))  # fmt: skip
    for case, sets in asked:
        before, *trials = _together([next(tried) for _ in case.samples])
        why = _why_not(case, before)
        if why:
            withheld.append((case, why))
            continue
        options = [
            _Option(each, trial) for each, trial in zip(sets, trials, strict=True) if _is_used(lab, each, before, trial)
        ]
        gain = GAIN_GUESSED if _is_guessed(case.plan) else GAIN
        less = [each for each in options if (each.trial.cost + _repeats(lab, case, each)) * gain > before.cost]
        useful = [each for each in options if each not in less] + list(_in_memory(lab, case, before, less))
        useful = _worthwhile(case, useful)
        if useful:
            found.append((case, before, useful))
    return Outcome(tuple(_choose(lab, found, cases)), tuple(withheld))


def _together(of_samples: list[list[Trial]]) -> list[Trial]:
    """One trial of each set of candidates from those with each sample; samples that the lab refuses do not count."""
    planned = [each for each in of_samples[1:] if all(trial.plan is not None for trial in each)]
    if not planned or any(trial.plan is None for trial in of_samples[0]):
        return of_samples[0]
    every = [of_samples[0], *planned]
    return [
        replace(
            first,
            used=first.used.union(*(each[number].used for each in planned)),
            mean=sum(each[number].cost for each in every) / len(every),
        )
        for number, first in enumerate(of_samples[0])
    ]


def _worthwhile(case: Case, options: list[_Option]) -> list[_Option]:
    """Without those that are dearer to have, or change answers, where a plainer one does nearly as well."""

    def cheapest(of: Iterable[_Option]) -> float:
        return min((each.trial.cost for each in of), default=math.inf)

    single = cheapest(each for each in options if len(each.candidates) == 1)
    options = [each for each in options if len(each.candidates) == 1 or each.trial.cost * GAIN <= single]
    plain = cheapest(each for each in options if not each.candidates[0].include)
    options = [each for each in options if not each.candidates[0].include or each.trial.cost * GAIN <= plain]
    if any(each.method == "hnsw" for each in options):
        options = [each for each in options if each.method != "ivfflat"]
    exact = [each for each in options if each.method not in vectors.METHODS_OF_ACCESS]
    if exact and (rows := expected_rows(case)) is not None and rows.found < rows.wanted:
        # An approximate index would lose rows that the filter wants, and an exact one is there to be had.
        return exact
    return options


class Expected(NamedTuple):
    """Of a search for the nearest: rows that are wanted, and that an approximate index may be expected to find."""

    wanted: float
    found: float
    share: float  # of the rows that the filter beside it keeps


def expected_rows(case: Case) -> Expected | None:
    """Of the first search for the nearest with a filter beside it; None where there is none."""
    for search in vectors.exact_searches(case.plan, case.catalog, many=0):
        relation, node = search.relation, search.scan
        if not relation.rows or not (node.tests("Filter") or node.tests("Index Cond") or node.tests("Recheck Cond")):
            continue
        share = min(1.0, scans.kept_rows(case.plan, node) / relation.rows)
        ef_search = float(case.plan.settings.get("hnsw.ef_search", EF_SEARCH))
        return Expected(search.limit, ef_search * share, share)
    return None


def sample_in(lab: Lab, case: Case, sample: Sample | None = None) -> Sample:
    """As `connected()`, with the case's role and search path."""
    return connected(lab, sample or case.sample, case.role, case.search_path)


def connected(lab: Lab, sample: Sample, role: str = "", search_path: str = "") -> Sample:
    """
    *sample* with the role and search path of its connection, the snapshot's by default, before what the application
    has set on it.
    """
    settings = {"search_path": search_path or lab.snapshot.search_path}
    role = role or lab.snapshot.role
    if any(each.name == role for each in lab.snapshot.roles):
        settings["role"] = role
    first = tuple((_set(name, value), None) for name, value in settings.items())
    return replace(sample, settings=(*first, *sample.settings))


def _set(name: str, value: str) -> str:
    doubled = value.replace("'", "''")
    return f"SELECT set_config('{name}', '{doubled}', true)"


def settings_in(lab: Lab, case: Case | None = None) -> list[tuple[str, str]]:
    """The planner's, of the real server and of the session."""
    settings = {**lab.snapshot.settings, **(case.plan.settings if case is not None else {})}
    return [(name, value) for name, value in settings.items() if not name.startswith("lc_")]


def _why_not(case: Case, before: Trial) -> str:
    if before.plan is None:
        return f"not verified: the lab cannot plan the statement ({before.refused})"
    if before.plan.shape != case.plan.shape:
        return "not verified: the lab plans the statement in another way than the server does"
    return ""


def _in_memory(lab: Lab, case: Case, before: Trial, options: Sequence[_Option]) -> Iterator[_Option]:
    """
    Those of *options* that save much of the processor's work, where the tables are small enough to be in memory: by
    the planner's own prices most of a plan's cost is reading pages, which then costs next to nothing.

    The plan has to stay the one that would run, workers and small tables aside, in what it reads by which index: what
    that does not use is switched off for the cheap pages. What is saved of the costs is put in the place of what is
    saved by the prices in force.
    """
    pages = sum(relation.pages for relation in case.catalog.relations.values())
    settings_of = {**lab.snapshot.settings, **case.plan.settings}
    if not options or pages > _pages(settings_of.get("effective_cache_size", "")) * _SHARE_OF_CACHE:
        return
    samples = [sample_in(lab, case, sample) for sample in case.samples]
    settings = [*settings_in(lab, case), *_ALONE]
    (of_first,) = lab.try_all([(samples[0], [each.candidates for each in options], settings)])
    settings += _IN_MEMORY
    asked: list[tuple[tuple[Candidate, ...], list[tuple[str, str]]]] = [((), settings)]
    asked += [(each.candidates, settings + _without(trial)) for each, trial in zip(options, of_first, strict=True)]
    tried = iter(lab.try_all([(sample, [each], more) for each, more in asked for sample in samples]))
    ((whole,), *rest) = [_together([next(tried) for _ in samples]) for _ in asked]
    for option, alone, (trial,) in zip(options, of_first, rest, strict=True):
        if trial.plan is None or alone.plan is None or trial.cost * GAIN_IN_MEMORY > whole.cost:
            continue
        names = {lab.name_of(each): case.relation_of(each) for each in option.candidates}
        found = [(node.rows, names[node.index]) for node in alone.plan.nodes if node.index in names]
        if any(relation is None or rows > (relation.rows or 0.0) * _SHARE_OF_ROWS for rows, relation in found):
            continue
        if _reads(trial.plan, case) == _reads(alone.plan, case):
            saved = replace(option.trial, mean=before.cost * trial.cost / whole.cost, in_memory=True)
            yield _Option(option.candidates, saved)


def _reads(plan: Plan, case: Case) -> list[tuple[str, str]]:
    """Which tables *plan* reads by which indexes ("" none), in its order; small tables are read as it comes."""
    found = []
    for node in plan.nodes:
        relation = case.catalog.relations.get((node.schema, node.relation))
        if node.is_scan and relation is not None and relation.pages > _SMALL_PAGES:
            below = (each.index for each in node.walk() if each.index)
            found.append((node.alias, next(below, "")))
    return found


def _pages(size: str) -> float:
    """*size* as PostgreSQL prints it, in pages of 8 kB: `4GB`, or pages already."""
    number = re.match(r"\d+", size)
    if number is None:
        return _CACHE_PAGES
    kilobytes = {"kB": 1, "MB": 1 << 10, "GB": 1 << 20, "TB": 1 << 30}.get(size[number.end() :], 8)
    return int(number[0]) * kilobytes / 8


def _without(trial: Trial) -> list[tuple[str, str]]:
    """Settings that keep the planner from what the plan of *trial* does not do."""
    if trial.plan is None:
        return []
    kinds = {node.kind for node in trial.plan.nodes}
    return [(setting, "off") for kind, setting in _SWITCHES.items() if kind not in kinds]


def _is_used(lab: Lab, candidates: tuple[Candidate, ...], before: Trial, after: Trial) -> bool:
    """Whether the planner takes all of *candidates*, and saves something by it."""
    names = {lab.name_of(each) for each in candidates}
    if after.plan is None or not names <= after.used:
        return False
    if before.cost - after.cost < LEAST_COST:
        return False
    # An older server has no skip scan: it would read the whole index.
    return lab.snapshot.server_version >= _SKIP_SCAN_FROM or not any(
        _skips(after.plan, each, lab.name_of(each)) for each in candidates
    )


def _repeats(lab: Lab, case: Case, option: _Option) -> float:
    """Units of cost that the planner forgets where it has the indexes searched again and again."""
    if option.trial.plan is None:
        return 0.0
    tables = {lab.name_of(each): (each, case.relation_of(each)) for each in option.candidates}

    def pages_of(node: Node) -> float:
        _, relation = tables.get(node.index, (None, None))
        return relation.pages if relation is not None else 0.0

    def scatter_of(node: Node) -> float:
        candidate, _ = tables[node.index]
        return 1.0 - lab.correlation_of(candidate) ** 2

    settings_of = {**lab.snapshot.settings, **case.plan.settings}
    page_cost = float(settings_of.get("random_page_cost", _RANDOM_PAGE_COST))
    return repeats.forgotten(option.trial.plan, pages_of, scatter_of, page_cost)


def _is_guessed(plan: Plan) -> bool:
    """Whether two columns of a table are compared: no statistics tell which of them is less, and for how many rows."""
    return any(
        test.kind == "operator"
        and test.name in _ORDERS
        and all(
            part.kind == "column" and part.qualifier in {node.alias, ""} for part in map(Expression.bare, test.parts)
        )
        for node in plan.nodes
        for test in node.tests("Filter")
    )


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


def _choose(lab: Lab, found: list[tuple[Case, Trial, list[_Option]]], cases: Sequence[Case]) -> Iterable[Advice]:
    """The best index first, then the best beside it, until nothing that is left is worth having."""
    total = sum(case.seconds for case in cases)
    period = _period(cases)
    left = [(case, before, before.cost, options) for case, before, options in found]
    given = 0
    while given < MAX_INDEXES:
        savings: dict[tuple[str, ...], float] = {}
        now_of: dict[tuple[str, ...], float] = {}
        by_key: dict[tuple[str, ...], _Option] = {}
        for case, before, now, options in left:
            for option in options:
                saved = case.seconds * (now - option.trial.cost) / before.cost
                savings[option.key] = savings.get(option.key, 0.0) + saved
                now_of[option.key] = now_of.get(option.key, 0.0) + case.seconds * now / before.cost
                by_key[option.key] = option
        upkeep = {key: sum(_upkeep(lab, each, period) for each in by_key[key].candidates) for key in savings}
        net = {key: saved - upkeep[key] for key, saved in savings.items()}
        best = max(net, key=lambda key: net[key], default=None)
        if best is None or net[best] <= 0:
            return
        if net[best] <= total * WORTH and not any(
            _saved_a_call(case, before, option) >= WORTH_SECONDS
            for case, before, _, options in left
            for option in options
            if option.key == best
        ):
            left = [
                (case, before, now, [each for each in options if each.key != best])
                for case, before, now, options in left
            ]
            continue
        # Of those that leave about as little to do, the smallest.
        likely = list(savings)
        slack = (now_of[best] - savings[best]) * _SLACK + now_of[best] * _TRIFLE
        chosen = min(
            (key for key, saved in net.items() if saved >= net[best] - slack),
            key=lambda key: (
                sum(lab.pages_of(each) * (2 if each.has_value else 1) for each in by_key[key].candidates),
                sum(len(each.keys) for each in by_key[key].candidates),
                likely.index(key),
            ),
        )
        served, rest = [], []
        for case, before, now, options in left:
            mine = next((option for option in options if option.key == chosen), None)
            cost = now
            if mine is not None:
                served.append(Served(case, before, mine.trial))
                cost = min(now, mine.trial.cost)
            more = [each for each in options if each.key != chosen and each.trial.cost * GAIN <= cost]
            if more:
                rest.append((case, before, cost, more))
        option = by_key[chosen]
        given += 1
        yield Advice(
            option.candidates[0],
            tuple(served),
            net[chosen] / total if total > 0 else 1.0,
            sum(lab.pages_of(each) for each in option.candidates) * PAGE_BYTES,
            lab.method,
            option.candidates[1:],
            upkeep[chosen] / total if total > 0 else 0.0,
        )
        left = rest


def _saved_a_call(case: Case, before: Trial, option: _Option) -> float:
    """Seconds of each call that the index saves, by the planner's reckoning."""
    statement = case.statement
    if statement is None or not statement.calls:
        return 0.0
    return statement.seconds / statement.calls * (1.0 - option.trial.cost / before.cost)


def _period(cases: Iterable[Case]) -> float:
    """Seconds for which the statements have been watched."""
    known = [case.statement for case in cases if case.statement is not None]
    if not known:
        return 0.0
    return max(0.0, max(each.last_seen for each in known) - min(each.first_seen for each in known))


def _upkeep(lab: Lab, candidate: Candidate, period: float) -> float:
    """Seconds of the period that writing the index would have cost, by the table's own count of writes."""
    table = lab.snapshot.table(candidate.schema, candidate.table)
    return period * table.writes_per_second * _WRITE_SECONDS.get(candidate.method, 20e-6) if table else 0.0


@dataclass(frozen=True, slots=True)
class Told:
    """A finding about an index, and the statements (fingerprint and engine) that it serves."""

    finding: Finding
    serves: frozenset[tuple[str, str]]


def findings(outcome: Outcome) -> list[Finding]:
    """A finding for each advised index."""
    return [_finding(advice) for advice in outcome.advice]


def told(outcome: Outcome) -> list[Told]:
    """As `findings()`, with whom each serves."""
    return [Told(_finding(advice), advice.keys) for advice in outcome.advice]


# What a missing index looks like in a plan. The finding that names the index tells it as evidence.
SYMPTOMS: Final = frozenset({
    "seq-scan", "filter-discards-rows", "whole-index-walk", "nested-loop", "sort-spill", "missing-vector-index",
    "missing-index", "missing-partial-index", "missing-jsonb-index", "missing-text-index", "deep-offset",
    "rls-hides-index",
})  # fmt: skip
_KEPT: Final = frozenset({"deep-offset"})  # an index makes it cheaper, and does not end it
_PASSED_ON: Final = ("condition", "rows_read", "rows_kept", "share_of_plan", "loops", "plan")


def beside(symptoms: Iterable[Finding], advised: Iterable[Told]) -> list[Finding]:
    """
    All of both, but one finding for one node of a plan: what an index of *advised* ends is told there, as evidence.
    """
    left = list(symptoms)
    found = []
    for each in advised:
        mine = [symptom for symptom in left if _is_symptom(symptom, each)]
        ended = [symptom for symptom in mine if symptom.rule not in _KEPT]
        left = [symptom for symptom in left if symptom not in ended]
        if not ended:
            found.append(each.finding)
            continue
        evidence = dict(each.finding.evidence)
        also = dict.fromkeys(rule for symptom in ended for rule in (symptom.rule, *_also(symptom)))
        also.pop(each.finding.rule, None)
        if also:
            evidence["also"] = ", ".join(also)
        worst = max(ended, key=lambda symptom: symptom.seconds)
        for name in _PASSED_ON:
            if name in worst.evidence:
                evidence.setdefault(name, worst.evidence[name])
        severity = max((symptom.severity for symptom in ended), key=SEVERITIES.index)
        if each.finding.severity == "info":
            severity = "info"  # nobody has tried it
        found.append(replace(each.finding, evidence=evidence, severity=severity))
    return left + found


def _also(symptom: Finding) -> list[str]:
    return [each for each in str(symptom.evidence.get("also", "")).split(", ") if each]


def _is_symptom(symptom: Finding, advised: Told) -> bool:
    if symptom.rule not in SYMPTOMS or (symptom.fingerprint, symptom.engine) not in advised.serves:
        return False
    label = advised.finding.label
    return (
        symptom.label == label
        or symptom.label.startswith(f"{label}.")
        or (
            # An index that is walked: named by itself.
            symptom.rule == "whole-index-walk" and str(symptom.evidence.get("table", label)) == label
        )
    )


def _finding(advice: Advice) -> Finding:
    candidate = advice.candidate
    best = max(advice.served, key=lambda served: served.saved * served.case.seconds)
    statement = best.case.statement
    before, after = best.before, best.after
    keys = ", ".join(key.text for key in candidate.keys)
    count = len(advice.served)
    statements = "a statement" if count == 1 else f"{count} statements"
    where = f" where {candidate.predicate}" if candidate.predicate else ""
    verified = Verified(
        advice.method, before.cost, after.cost, _shown(before, candidate), _shown(after, candidate)
    )  # fmt: skip
    relation = best.case.relation_of(candidate)
    close = made.near(relation, candidate) if relation is not None else None
    fixes = (_fix(candidate, verified), *(_fix(each, verified) for each in advice.beside))
    if close is not None and close.is_broken:
        fixes = (Fix("create-index", f"REINDEX INDEX CONCURRENTLY {_name_of(close.index)}", verified=verified),)
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
    names = " and ".join(each.name for each in (candidate, *advice.beside))
    notes = _notes(best.case, candidate, relation, advice)
    if close is not None:
        evidence["existing"] = f"{close.index.name} {close.why}"
    if after.in_memory:
        notes.append("most of what it saves is the processor's work, and told for tables that are in memory")
    if advice.upkeep:
        evidence["upkeep_share"] = round(advice.upkeep, 4)
    if getattr(best.case.sample, "generic", False):
        notes.append("planned without values, which the report does not hold: what one of them needs may differ")
    if notes:
        evidence["note"] = "; ".join(notes)
    seconds = sum(served.case.statement.seconds * served.saved for served in advice.served if served.case.statement)
    return Finding(
        rule=candidate.rule,
        severity="warning",
        title=f"{statements} of {candidate.label} would cost {_times(before.cost, after.cost)} less with "
        + (
            f"{close.index.name}, which is invalid"
            if close is not None and close.is_broken
            else f"an index on ({keys}){where}" + "".join(f" and one on ({_keys(each)})" for each in advice.beside)
        ),
        advice=(f"{close.index.name} is there and {close.why}; " if close is not None else "")
        + f"{'rebuild it' if close is not None and close.is_broken else f'create {names}'} "
        f"({scans.size(advice.bytes)})",
        key=f"{candidate.rule}|{candidate.label}|{candidate.name}",
        label=candidate.label,
        count=sum(served.case.statement.calls for served in advice.served if served.case.statement) or count,
        seconds=seconds,
        fingerprint=best.case.fingerprint,
        engine=best.case.engine,
        site=site,
        evidence=evidence,
        fixes=fixes,
        first_seen=statement.first_seen if statement is not None else 0.0,
        last_seen=statement.last_seen if statement is not None else 0.0,
    )


def _keys(candidate: Candidate) -> str:
    return ", ".join(key.text for key in candidate.keys)


def _name_of(index: Index) -> str:
    return f"{made.quoted(index.schema)}.{made.quoted(index.name)}"


def _notes(case: Case, candidate: Candidate, relation: Relation | None, advice: Advice) -> list[str]:
    """What has to be known before it is built: what it does to answers, how long it takes, what it costs writes."""
    notes = []
    if candidate.method in vectors.METHODS_OF_ACCESS:
        expected = expected_rows(case)
        if expected is None:
            notes.append(
                "answers become approximate: keep hnsw.ef_search at LIMIT + OFFSET or above"
                if candidate.method == "hnsw"
                else "answers become approximate: set ivfflat.probes to the square root of lists"
            )
        else:
            notes.append(
                f"answers become approximate: the filter keeps {expected.share:.1%} of the rows, so about "
                f"{expected.found:,.1f} rows are found where {expected.wanted:,.0f} are wanted, unless "
                f"{candidate.method}.iterative_scan is on; alternatives are a partial index for each large tenant, "
                "or an index on what is filtered and an exact search"
            )
        if advice.bytes > _LARGE_GRAPH:
            notes.append(
                f"its build wants {scans.size(advice.bytes)} of maintenance_work_mem"
                + ("; IVFFlat is built faster, in less, and finds less" if candidate.method == "hnsw" else "")
            )
        if candidate.method == "ivfflat":
            notes.append("build it when the table is filled: its lists are made of the rows that are there")
    if candidate.method == "gin":
        notes.append("writes go to a pending list first (fastupdate): a search after many writes reads it too")
    if relation is not None and relation.partitions:
        notes.append("of a partitioned table: create it on each partition concurrently, then on the root with ONLY")
    return notes


def unverified(cases: Iterable[Case], why: str = NOT_INSTALLED) -> list[Finding]:
    """The likeliest index of each case whose plan reads much to keep little, untried: *why* says so on each."""
    return [each.finding for each in untried(cases, why)]


def untried(cases: Iterable[Case], why: str = NOT_INSTALLED) -> list[Told]:
    """As `unverified()`, with whom each might serve."""
    found: dict[str, Told] = {}
    for case in cases:
        selective = {
            (relation.schema, relation.name)
            for node in case.plan.scans
            if (relation := case.catalog.of(node)) is not None
            and scans.matters(relation)
            and node.kind in {"Seq Scan", "Sample Scan"}
            and scans.kept_rows(case.plan, node) <= (relation.rows or 0.0) * scans.SELECTIVE
        }
        for candidate in case.candidates:
            if (candidate.schema, candidate.table) not in selective:
                continue
            known = found.get(candidate.target)
            if known is not None:
                found[candidate.target] = replace(known, serves=known.serves | {case.key})
                break
            finding = Finding(
                rule=candidate.rule,
                severity="info",
                title=f"{candidate.label} is read whole; an index on ({_keys(candidate)}) might answer it",
                advice=f"try {candidate.name}",
                key=f"{candidate.rule}|{candidate.label}|{candidate.name}",
                label=candidate.label,
                fingerprint=case.fingerprint,
                engine=case.engine,
                evidence={"verified": why},
                fixes=(_fix(candidate, None),),
            )
            found[candidate.target] = Told(finding, frozenset({case.key}))
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


def safely(lab: Lab, cases: Sequence[Case], sampled: dict[str, Statistic] | None = None) -> list[Told]:
    """As `prove()` and `told()`; a fault of ours is counted, and the advice is then told as not verified."""
    try:
        return told(prove(lab, cases, sampled))
    except Exception as error:  # noqa: BLE001 - ours
        faults.count("lab", error)
        return untried(cases, "not verified: the lab failed")


def advise(engine: Engine, cases: Sequence[Case], snapshot: Snapshot | None = None) -> list[Finding]:
    """
    The findings for *cases*, statements of *engine*, proven in a lab made of *snapshot*, or of what is read now.

    Without the lab's PostgreSQL, or where it does not start, they are told as not verified, and say why. Never raises
    for what a server says.
    """
    return [each.finding for each in tell(engine, cases, snapshot)]


def tell(engine: Engine, cases: Sequence[Case], snapshot: Snapshot | None = None) -> list[Told]:
    """As `advise()`, with whom each index serves."""
    if not any(case.candidates for case in cases):
        return []
    if not labs.is_installed():
        return untried(cases)
    try:
        if snapshot is None:
            taken, sampled = explain.on_connection(engine, lambda session: _look(session, cases), SNAPSHOT_LIMITS)
        else:
            taken, sampled = snapshot, {}
        with labs.open_lab(taken, engine.dialect.driver, is_async=engine.dialect.is_async) as lab:
            return safely(lab, cases, sampled)
    except explain.Refused as refused:
        return untried(cases, f"not verified: no snapshot of the database could be taken ({refused.reason})")
    except LabError as error:
        return untried(cases, f"not verified: the lab did not start ({str(error)[:MAX_WHY]})")
    except Exception as error:  # noqa: BLE001 - ours: of a lab that does not come up as it should
        faults.count("lab", error)
        return untried(cases, "not verified: the lab failed")


def not_yet() -> str:
    """Why what has just been seen is not proven."""
    return "not verified yet" if labs.is_installed() else NOT_INSTALLED


def _look(session: Session, cases: Sequence[Case]) -> tuple[Snapshot, dict[str, Statistic]]:
    """All that the lab needs of the database: its snapshot, and a sample of the expressions that are to be indexed."""
    taken = snapshots.read(session)
    return taken, sampling.of_expressions(session, taken, [each for case in cases for each in case.candidates])


def cases_of(answers: Iterable[Answer], *, few: bool = False) -> list[Case]:
    """A case for each answer with a plan. *few* is `Settings.advice_values`."""
    return [
        Case(
            answer.question.sample, answer.plan, answer.catalog, answer.question.fingerprint,
            answer.question.engine_name, answer.question.statement,
            seen=made.Seen.of((answer.plan, *answer.others), few=few), others=answer.question.others,
        )
        for answer in answers
        if answer.plan is not None and answer.catalog is not None
    ]  # fmt: skip


def advised(answers: Sequence[Answer], found: Sequence[Told]) -> list[Answer]:
    """*answers* with the findings of *found* among theirs, each at the statement that gains most by it."""
    merged = beside((finding for answer in answers for finding in answer.findings), found)
    mine: dict[tuple[str, str], list[Finding]] = {}
    for finding in merged:
        mine.setdefault((finding.fingerprint, finding.engine), []).append(finding)
    return [
        replace(answer, findings=tuple(mine.pop((answer.question.fingerprint, answer.question.engine_name), ())))
        for answer in answers
    ]


def of_answers(
    engine: Engine, answers: Iterable[Answer], snapshot: Snapshot | None = None, *, few: bool = False
) -> list[Finding]:
    """As `advise()`, for what an examiner has found out on *engine*: nothing for answers without a plan."""
    return advise(engine, cases_of(answers, few=few), snapshot)


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
