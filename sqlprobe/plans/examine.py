"""
Examining: from samples to findings. One connection for the statements of one engine, one transaction for each.
"""

from __future__ import annotations

import dataclasses
import time
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from sqlprobe import faults
from sqlprobe.plans import explain
from sqlprobe.plans.catalog import Reader
from sqlprobe.plans.explain import Limits, Refused
from sqlprobe.plans.judge import Case, judge
from sqlprobe.plans.rules.plan_regression import History

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Engine

    from sqlprobe.model import Finding, StatementStats
    from sqlprobe.plans.catalog import Catalog
    from sqlprobe.plans.explain import Explained, Session
    from sqlprobe.plans.plan import Plan
    from sqlprobe.plans.rules import Smell
    from sqlprobe.plans.sampling import Sample
    from sqlprobe.settings import Settings


@dataclass(frozen=True, slots=True)
class Question:
    """
    A statement to be explained: its fingerprint, its sample, and what has been seen of it, if anything.

    `others` are further samples, with other values: they may have other plans, and what is wrong with those is told.
    """

    fingerprint: str
    engine_name: str
    sample: Sample
    statement: StatementStats | None = None
    others: tuple[Sample, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What became of a question: a plan and its findings, or why there is none. `seconds` is what it took, for `asked`
    samples.
    """

    question: Question
    plan: Plan | None = field(default=None, repr=False)
    findings: tuple[Finding, ...] = ()
    refused: Refused | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    asked: int = 1
    server_seconds: float = 0.0  # that a trivial question took: how busy the server is
    others: tuple[Plan, ...] = field(default=(), repr=False)  # of the question's further samples
    catalog: Catalog | None = field(default=None, repr=False)


class Examiner:
    """Asks questions and keeps what later ones are compared with: catalogs, and the last plan of each statement."""

    reader: ClassVar[type[Reader]] = Reader

    def __init__(self, settings: Settings, limits: Limits | None = None) -> None:
        self.settings = settings
        self.limits = limits or Limits()
        self.history = History()
        self._readers: weakref.WeakKeyDictionary[Any, Reader] = weakref.WeakKeyDictionary()

    def examine(
        self,
        engine: Engine,
        questions: Sequence[Question],
        *,
        analyze: bool = False,
        settings: Sequence[tuple[str, str]] = (),
        until: Callable[[], bool] = lambda: False,
    ) -> list[Answer]:
        """
        The answers, in order, asked on one connection of *engine*'s own making. *until* is asked before each question
        whether it is time to stop; those that are left over have no answer.

        Never raises for what the server says: a refusal is an answer. After one that says the server is gone no more
        is asked.
        """
        answers: list[Answer] = []

        def work(session: Session) -> None:
            for question in questions:
                if until():
                    return
                answer = self._ask(session, question, analyze=analyze, settings=settings)
                answers.append(answer)
                if answer.refused is not None and answer.refused.reason == "unavailable":
                    return

        try:
            explain.on_connection(engine, work, self.limits)
        except Refused as refused:
            if not answers or answers[-1].refused is None:
                answers += [Answer(question, refused=refused) for question in questions[len(answers) :][:1]]
        return answers

    def _ask(
        self, session: Session, question: Question, *, analyze: bool, settings: Sequence[tuple[str, str]]
    ) -> Answer:
        began = time.perf_counter()
        try:
            explained = _explained(session, question.sample, analyze=analyze, settings=settings)
            plan = dataclasses.replace(explained.plan, statement=question.statement)
            notes = explained.notes
            reader = self._readers.setdefault(session.engine, self.reader())
            catalog = reader.read(session, plan, explained.secured)
            findings = self._judge(question, plan, explained, catalog, self._regression(question, plan))
            others: list[Plan] = []
            for other in question.others:
                findings += self._judge_other(session, question, other, findings, settings, others)
        except Refused as refused:
            return Answer(question, refused=refused, seconds=time.perf_counter() - began)
        except Exception as error:  # noqa: BLE001 - ours
            faults.count("explain", error)
            return Answer(question, refused=Refused("failed", found="a fault of sqlprobe's own"))
        return Answer(
            question,
            plan,
            tuple(findings),
            None,
            notes,
            time.perf_counter() - began,
            1 + len(question.others),
            explained.surroundings.seconds,
            tuple(others),
            catalog,
        )

    def _judge_other(
        self,
        session: Session,
        question: Question,
        sample: Sample,
        known: Sequence[Finding],
        settings: Sequence[tuple[str, str]],
        others: list[Plan],
    ) -> list[Finding]:
        """What is wrong with the plan of a further sample, and was not with those before."""
        try:
            explained = session.explain(sample, settings=settings)
        except Refused as refused:
            if refused.reason == "unavailable":
                raise
            return []
        plan = dataclasses.replace(explained.plan, statement=question.statement)
        others.append(plan)
        catalog = self._readers[session.engine].read(session, plan, explained.secured)
        keys = {finding.key for finding in known}
        return [each for each in self._judge(question, plan, explained, catalog) if each.key not in keys]

    def _regression(self, question: Question, plan: Plan) -> list[Smell]:
        if not question.fingerprint:
            return []
        smell = self.history.compare((question.fingerprint, question.engine_name), plan)
        return [] if smell is None else [smell]

    def _judge(
        self, question: Question, plan: Plan, explained: Explained, catalog: Catalog, more: Iterable[Smell] = ()
    ) -> list[Finding]:
        key = (question.fingerprint, question.engine_name)
        return judge(Case(plan, catalog, *key, question.statement, explained.notes), self.settings, more)


def different(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Those after the first whose values are others."""
    kept = [samples[0]]
    for sample in samples[1:]:
        try:
            same = any(sample.parameters == each.parameters and sample.text == each.text for each in kept)
        except Exception:  # noqa: BLE001 - arrays compare to arrays, and have no truth
            same = False
        if not same:
            kept.append(sample)
    return tuple(kept[1:])


def _explained(session: Session, sample: Sample, *, analyze: bool, settings: Sequence[tuple[str, str]]) -> Explained:
    """With ANALYZE where that is asked for and can be; else without, which the notes say."""
    if not analyze:
        return session.explain(sample, settings=settings)
    try:
        return session.explain(sample, analyze=True, settings=settings)
    except Refused as refused:
        if refused.reason not in {"not explainable", "volatile", "costly", "timeout"}:
            raise
        explained = session.explain(sample, settings=settings)
        found = str(refused).partition("found: ")[2].partition(";")[0]
        return dataclasses.replace(explained, notes=(*explained.notes, f"not run: {found}"))


def questions_for(
    samples: Mapping[tuple[str, str], tuple[Engine, tuple[Sample, ...]]], statements: Iterable[StatementStats]
) -> list[tuple[Engine, Question]]:
    """A question for the slowest sample of each statement, those that took most time in all first."""
    known = {(statement.fingerprint, statement.engine): statement for statement in statements}
    found = [
        (engine, Question(*key, mine[0], known.get(key), different(mine)))
        for key, (engine, mine) in samples.items()
        if mine
    ]
    return sorted(found, key=lambda item: -(item[1].statement.seconds if item[1].statement is not None else 0.0))
