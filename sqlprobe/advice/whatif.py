"""
What if it ran in production: statements that ran elsewhere, planned on a snapshot's statistics.

They are planned in a lab, with the values that they ran with. An index that the database they ran on has, and the
snapshot has not, is made in the lab too: it is what a branch adds. A statement that names what the snapshot does not
know, such as a new column, is judged on its own database, by whether any index serves it (`plans.gate`).
"""

from __future__ import annotations

import contextlib
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final

from sqlprobe.advice import PAGES, prove
from sqlprobe.advice import lab as labs
from sqlprobe.advice.candidates import Candidate, Key
from sqlprobe.plans import explain
from sqlprobe.plans.catalog import Reader
from sqlprobe.plans.examine import Examiner
from sqlprobe.plans.explain import Refused
from sqlprobe.plans.gate import Gate
from sqlprobe.plans.judge import CHECKS, Case, judge, severity_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Engine

    from sqlprobe.advice.lab import Lab
    from sqlprobe.advice.snapshot import Snapshot
    from sqlprobe.model import Finding, StatementStats
    from sqlprobe.plans.catalog import Catalog, Index, Name, Relation
    from sqlprobe.plans.examine import Answer, Question
    from sqlprobe.plans.explain import Explained, Session
    from sqlprobe.plans.plan import Plan
    from sqlprobe.plans.rules import Smell
    from sqlprobe.settings import Settings

# `misestimate` needs a plan that has run, `wide-columns` the size of what is stored apart: the lab has neither.
RULES: Final = frozenset(CHECKS) - {"misestimate", "wide-columns"}
ADVICE: Final = frozenset(PAGES)
SECONDS_A_UNIT: Final = 2.5e-6  # of the planner's cost, where pages are in memory: an order of magnitude
UNKNOWN: Final = "it names what the snapshot does not know, and was judged on its own database"
# A label of an enum that the branch adds, or a unique index, is refused by the server: "failed".
_UNKNOWN: Final = frozenset({"not visible", "failed"})
_HIDDEN: Final = "tables that no other connection sees, and so not the indexes that they have"
# Said of a workload, and a test is none.
_OF_WORKLOADS: Final = ("share_of_time", "statements", "upkeep_share")


class WhatIf:
    """
    Asks of production, as *snapshot* tells it. Labs start when they are needed; `close()` ends them. *timed* says that
    what was seen of the statements was seen in production; else it is the planner who tells what a call would take. Not
    for two threads.
    """

    def __init__(self, snapshot: Snapshot, settings: Settings, *, timed: bool = False) -> None:
        self.snapshot = snapshot
        self.settings = settings
        self.timed = timed
        self._open = contextlib.ExitStack()
        self._labs: dict[str, _InLab] = {}  # by driver: parameters are written for it
        self._gate = Gate(settings)
        self._readers: weakref.WeakKeyDictionary[Engine, Reader] = weakref.WeakKeyDictionary()

    def ask(
        self,
        engine: Engine,
        questions: Sequence[Question],
        until: Callable[[], bool] = lambda: False,
        *,
        reachable: bool = True,
    ) -> list[Answer]:
        """
        For each of *questions*, which ran on *engine*: the findings and the advice, or why there are none. *reachable*
        is False where *engine* only names a driver.

        Raises:
            LabError: a lab cannot be had.
        """
        mine = self._in_lab(engine)
        role = engine.url.username or "" if reachable else ""
        answers = mine.ask(questions, until, role)
        if reachable:
            numbers = [number for number, each in enumerate(answers) if _is_accused(each)]
            here = self._here(engine, [answers[number] for number in numbers])
            if self._adopt(mine, here, answers):
                again = mine.ask([questions[number] for number in numbers], until, role)
                for number, answer in zip(numbers, again, strict=False):
                    answers[number] = answer
            answers = [_unless_hidden(answer, here) for answer in answers]
        answers = self._advised(mine.lab, answers, mine.role_of(role))
        return self._at_home(engine, answers, until) if reachable else answers

    def is_by_value(self, question: Question) -> bool:  # noqa: ARG002 - as the gate's
        """Whether *question* may have another answer with other values: with statistics, any may."""
        return True

    def is_unknown(self, answer: Answer) -> bool:
        """Whether the snapshot did not know what the statement names, so that its own database was asked."""
        return UNKNOWN in answer.notes

    def start(self, engine: Engine) -> None:
        """
        Have the lab for *engine* ready, which takes some seconds once.

        Raises:
            LabError: it cannot be had.
        """
        self._in_lab(engine)

    def close(self) -> None:
        """End the labs."""
        self._labs.clear()
        self._open.close()

    def _in_lab(self, engine: Engine) -> _InLab:
        driver = engine.dialect.driver
        if driver not in self._labs:
            opened = labs.open_lab(self.snapshot, driver, is_async=engine.dialect.is_async)
            self._labs[driver] = _InLab(self._open.enter_context(opened), self.settings, timed=self.timed)
        return self._labs[driver]

    def _here(self, engine: Engine, answers: Sequence[Answer]) -> dict[Name, Relation] | Refused:
        """The tables of *answers* as the database that they ran on has them, to others than who ran them."""
        if not answers:
            return {}
        reader = self._readers.setdefault(engine, Reader())

        def work(session: Session) -> dict[Name, Relation]:
            found: dict[Name, Relation] = {}
            for each in answers:
                if each.plan is not None:
                    found.update(reader.read(session, each.plan).relations)
            return found

        try:
            return explain.on_connection(engine, work)
        except Refused as refused:
            return refused  # locked, by the test itself

    def _adopt(self, mine: _InLab, here: dict[Name, Relation] | Refused, answers: Sequence[Answer]) -> bool:
        """Whether *here* are indexes for *answers* that production has not; now the lab has them."""
        if isinstance(here, Refused):
            return False
        known = {
            _target(index)
            for each in answers
            if each.catalog is not None
            for relation in each.catalog.relations.values()
            for index in relation.usable_indexes
        }
        new = {
            _target(index): (index, relation)
            for relation in here.values()
            for index in relation.usable_indexes
            if _target(index) not in known
        }
        adopted = [mine.adopt(index, relation) for index, relation in new.values()]
        return any(adopted)

    def _advised(self, lab: Lab, answers: list[Answer], role: str) -> list[Answer]:
        """*answers* with the indexes that would help, in place of what they would end."""
        cases = [
            replace(case, role=role, statement=case.statement if self.timed else _expected(case.statement, case.plan))
            for case in prove.cases_of(answers, few=self.settings.advice_values)
        ]
        if not any(case.candidates for case in cases):
            return answers
        told = prove.safely(lab, cases)
        wanted = [each for each in told if each.finding.rule not in self.settings.disabled_rules]
        merged = prove.advised(answers, wanted)
        if self.timed:
            return merged
        return [replace(answer, findings=tuple(map(self._weighed, answer.findings))) for answer in merged]

    def _weighed(self, finding: Finding) -> Finding:
        """An advice, told by the time that it is expected to save in one call."""
        before, after = finding.evidence.get("cost_before"), finding.evidence.get("cost_after")
        if before is None or after is None or not finding.rule.startswith("missing-"):
            return finding
        saved = (float(before) - float(after)) * SECONDS_A_UNIT
        evidence = {name: value for name, value in finding.evidence.items() if name not in _OF_WORKLOADS}
        evidence["expected_seconds"] = round(float(before) * SECONDS_A_UNIT, 6)
        return replace(finding, severity=severity_by(saved, self.settings), seconds=0.0, evidence=evidence)

    def _at_home(self, engine: Engine, answers: list[Answer], until: Callable[[], bool]) -> list[Answer]:
        """What the lab does not know is asked where it ran."""
        numbers = [
            number
            for number, answer in enumerate(answers)
            if answer.refused is not None and answer.refused.reason in _UNKNOWN
        ]
        if numbers:
            found = self._gate.ask(engine, [answers[number].question for number in numbers], until)
            for number, answer in zip(numbers, found, strict=False):
                if answer.refused is None:
                    answers[number] = replace(answer, notes=(*answer.notes, UNKNOWN))
        return answers


class _LabReader(Reader):
    """Without the indexes that are being tried."""

    def read(self, session: Session, plan: Plan, secured: frozenset[Name] | None = None) -> Catalog:
        catalog = super().read(session, plan, secured)
        relations = {
            name: replace(
                relation,
                indexes=tuple(each for each in relation.indexes if not each.name.startswith(labs.CANDIDATE)),
            )
            for name, relation in catalog.relations.items()
        }
        return replace(catalog, relations=relations)


class _InLab(Examiner):
    """The examiner of a lab."""

    reader: ClassVar[type[Reader]] = _LabReader

    def __init__(self, lab: Lab, settings: Settings, *, timed: bool) -> None:
        super().__init__(settings, labs.LIMITS)
        self.lab = lab
        self._timed = timed
        self._adopted: set[str] = set()

    def role_of(self, name: str) -> str:
        """
        Whom to plan as for who connects as *name*: the same, where production has a role of that name that policies
        apply to; else the snapshot's own.
        """
        known = next((each for each in self.lab.snapshot.roles if each.name == name), None)
        return name if known is not None and not (known.superuser or known.bypasses) else ""

    def ask(self, questions: Sequence[Question], until: Callable[[], bool], role: str) -> list[Answer]:
        role = self.role_of(role)
        asked = [
            replace(
                each,
                sample=prove.connected(self.lab, each.sample, role),
                others=tuple(prove.connected(self.lab, other, role) for other in each.others),
            )
            for each in questions
        ]
        answers = self.examine(self.lab.engine, asked, settings=prove.settings_in(self.lab), until=until)
        return [replace(answer, question=each) for answer, each in zip(answers, questions, strict=False)]

    def adopt(self, index: Index, relation: Relation) -> bool:
        """Whether the lab has an index more."""
        target = _target(index)
        if target in self._adopted:
            return False
        self._adopted.add(target)
        keys = tuple(
            Key(each.column, each.expression, each.operator_class, each.descending, each.nulls_first)
            for each in index.keys
        )
        like = Candidate(
            relation.schema, relation.name, keys, index.method, predicate=index.predicate, include=index.include
        )
        return self.lab.adopt(index, like)

    def _judge(
        self, question: Question, plan: Plan, explained: Explained, catalog: Catalog, more: Iterable[Smell] = ()
    ) -> list[Finding]:
        statement = question.statement
        if not self._timed:
            statement = _expected(statement, plan)
            plan = replace(plan, statement=None)
        case = Case(plan, catalog, question.fingerprint, question.engine_name, statement, explained.notes)
        found = judge(case, self.settings, more, lambda smell: smell if smell.rule in RULES else None)
        found = [replace(each, evidence={**each.evidence, "asked": self.lab.method}) for each in found]
        if self._timed:
            return found
        expected = round(plan.root.total_cost * SECONDS_A_UNIT, 6)
        return [
            replace(
                each,
                seconds=0.0,  # none have been taken
                # Whether it streams, or asks with a value that only means so much in a test, a plan does not tell.
                severity="info" if each.rule == "unbounded-result" else each.severity,
                evidence={**each.evidence, "expected_seconds": expected},
            )
            for each in found
        ]

    def _regression(self, question: Question, plan: Plan) -> list[Smell]:  # noqa: ARG002 - as the examiner's
        return []  # tests have other values each


def _expected(statement: StatementStats | None, plan: Plan) -> StatementStats | None:
    """*statement* as if each call took what the planner reckons."""
    if statement is None:
        return None
    return replace(statement, seconds=statement.calls * plan.root.total_cost * SECONDS_A_UNIT)


def _unless_hidden(answer: Answer, here: dict[Name, Relation] | Refused) -> Answer:
    """
    *answer*, or that it cannot be judged: its tables are of the test's own transaction, and with them their indexes.
    Production's partitions are none of a test's.
    """
    if not _is_accused(answer):
        return answer
    if isinstance(here, Refused):
        return replace(answer, plan=None, findings=(), refused=here)
    relations = answer.catalog.relations if answer.catalog is not None else {}
    if all(name in here for name, relation in relations.items() if relation.root is None):
        return answer
    return replace(answer, plan=None, findings=(), refused=Refused("not visible", found=_HIDDEN))


def _is_accused(answer: Answer) -> bool:
    """Whether something is wrong with its plan, or an index may be: what is right needs no second look."""
    return bool(answer.findings) or any(case.candidates for case in prove.cases_of([answer]))


def _target(index: Index) -> str:
    """What makes it another index than others."""
    return f"{'UNIQUE ' * index.unique}{index.definition.partition(' ON ')[2]}"
