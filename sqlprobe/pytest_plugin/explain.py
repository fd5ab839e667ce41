"""
`--sqlprobe-explain`: after a test, PostgreSQL is asked whether an index serves what the test has run; with
`--sqlprobe-stats`, how production would run it.

A statement that an index serves is asked about once; one that is accused is asked about again in each test that runs
it, so that an accusation is always of the schema as it was there. What could not be asked is told at the end.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter, perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from sqlprobe import render
from sqlprobe.model import SqlprobeError
from sqlprobe.plans import explain
from sqlprobe.plans.examine import Question, different
from sqlprobe.plans.gate import Gate
from sqlprobe.plans.worker import sampler

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sqlalchemy import Engine

    from sqlprobe.advice.snapshot import Snapshot
    from sqlprobe.advice.whatif import WhatIf
    from sqlprobe.model import Finding
    from sqlprobe.plans.examine import Answer
    from sqlprobe.plans.sampling import Sample
    from sqlprobe.pytest_plugin.watch import Run
    from sqlprobe.settings import Settings

SECONDS: Final = 10.0  # after one test: what is left then is asked after another
TRIES: Final = 3  # tests after which a statement is given up that was locked or too slow to plan in each
WAITED_SECONDS: Final = 20.0  # for locks and slow planning in all, after which one try is enough
MAX_NAMED: Final = 3  # statements of a reason, in the notes at the end
VALUES: Final = 3  # sets of them, each served with production's statistics, after which a statement is believed
_SLOW: Final = frozenset({"locked", "timeout"})
_NO_TIME: Final = "no time"
_MANY: Final = 200  # values whose kinds are looked at


@dataclass(slots=True)
class Asked:
    """What became of a test's statements: findings, and for the sum of the run by fingerprint what was not judged."""

    findings: list[Finding] = field(default_factory=list)
    judged: list[str] = field(default_factory=list)
    left: dict[str, tuple[str, str]] = field(default_factory=dict)  # what it does, and why
    dialects: list[str] = field(default_factory=list)  # without plans
    unknown: dict[str, str] = field(default_factory=dict)  # what it does that production does not know

    def payload(self) -> dict[str, Any]:
        """For the test's report: only what JSON has."""
        return {"judged": self.judged, "left": self.left, "dialects": self.dialects, "unknown": self.unknown}


class Explainer:
    """Asks about what tests have run, one after the other: of their own database, or of production as *stats* tells."""

    def __init__(self, settings: Settings, stats: Snapshot | None = None) -> None:
        self._gate: Gate | WhatIf = Gate(settings)
        self._production: WhatIf | None = None
        if stats is not None:
            from sqlprobe.advice.whatif import WhatIf

            self._gate = self._production = WhatIf(stats, settings)
        self._sets: Counter[tuple[str, str]] = Counter()  # of values that production would serve
        self._gone = ""  # why there is no lab
        self._served: set[tuple[Any, ...]] = set()
        self._by_value: set[tuple[str, str]] = set()  # database and fingerprint
        self._tries: Counter[tuple[str, str]] = Counter()
        self._waited = 0.0
        self._began_ns = 0
        sampler.dialects = set()  # of what ran before, for others

    def begin(self) -> None:
        """A test begins: keep samples of it, and its engines, which may be gone when it has ended."""
        sampler.holds_engines = True
        sampler.restart()
        self._began_ns = perf_counter_ns()

    def end(self, run: Run) -> Asked:
        """The test has ended: ask about what it has run and nobody has asked yet, and let go of its engines."""
        asked = Asked(dialects=sorted(sampler.dialects))
        try:
            samples = sampler.samples()
            asked.left = dict(sampler.left_out)
            statements = {(each.fingerprint, each.engine): each for each in run.recording().statements}
            by_engine: dict[Engine, list[Question]] = {}
            taken = set()
            for key, (engine, kept) in samples.items():
                database = _database(engine)
                mine = [each for each in kept if each.started_ns >= self._began_ns]
                new = [each for each in mine if self._key(database, key[0], each) not in self._served]
                if self._sets[database, key[0]] >= VALUES:
                    new = []
                if mine:
                    asked.left.pop(key[0], None)
                if mine and not new:
                    asked.judged.append(key[0])
                if not new or (database, key[0]) in taken:
                    continue
                statement = statements.get(key)
                if self._is_given_up((database, key[0])):
                    asked.left[key[0]] = (statement.summary if statement is not None else "", "locked")
                    continue
                taken.add((database, key[0]))  # by another driver it is the same
                by_engine.setdefault(engine, []).append(Question(*key, new[0], statement, different(new)))
            left = SECONDS
            for engine, questions in by_engine.items():
                left -= self._ask(engine, questions, asked, left)
        finally:
            sampler.restart()
        return asked

    def close(self) -> None:
        """Hold nothing for those who use samples too, and end what was started."""
        if self._production is not None:
            self._production.close()
        sampler.holds_engines = False
        sampler.restart()
        sampler.dialects = set()

    def _ask(self, engine: Engine, questions: list[Question], asked: Asked, seconds: float) -> float:
        """Ask for *seconds* at most; how many it took, without those in which a lab was made."""
        database = _database(engine)
        answers: list[Answer] = []
        began = perf_counter()
        try:
            if not self._gone:
                if self._production is not None:
                    self._production.start(engine)
                    began = perf_counter()
                answers = self._gate.ask(engine, questions, lambda: perf_counter() >= began + seconds)
        except SqlprobeError as error:  # nothing is to be had of the lab any more
            self._gone = str(error)
        if self._gone:
            asked.left.update((each.fingerprint, (_summary(each), self._gone)) for each in questions)
            return 0.0
        for answer in answers:
            self._note(database, answer, asked)
        away = answers[-1].refused if answers else None
        for question in questions[len(answers) :]:
            why = _NO_TIME if away is None or away.reason != "unavailable" else away.reason
            asked.left[question.fingerprint] = (_summary(question), why)
        return perf_counter() - began

    def _note(self, database: str, answer: Answer, asked: Asked) -> None:
        question = answer.question
        fingerprint = question.fingerprint
        if answer.refused is not None:
            asked.left[fingerprint] = (_summary(question), answer.refused.reason)
            if answer.refused.reason in _SLOW:
                self._tries[database, fingerprint] += 1
                self._waited += answer.seconds
            return
        asked.judged.append(fingerprint)
        asked.findings += answer.findings
        if self._gate.is_by_value(question):
            self._by_value.add((database, fingerprint))
        is_known = self._production is None or not self._production.is_unknown(answer)
        if not is_known:
            asked.unknown[fingerprint] = _summary(question)
        if not answer.findings:
            if self._production is not None:
                self._sets[database, fingerprint] += 1 + len(question.others)
            for sample in (question.sample, *question.others):
                self._served.add(self._key(database, fingerprint, sample))

    def _is_given_up(self, key: tuple[str, str]) -> bool:
        tries = self._tries[key]
        return tries >= TRIES or (tries > 0 and self._waited > WAITED_SECONDS)

    def _key(self, database: str, fingerprint: str, sample: Sample) -> tuple[Any, ...]:
        """Of what has the same plan on the same database: by the values themselves only where these decide it."""
        values = sample.parameters
        given = () if values is None else values.values() if isinstance(values, dict) else values
        kinds = tuple(kind for kind, _ in itertools.groupby(map(_kind, itertools.islice(given, _MANY))))
        settings = tuple(text for text, _ in sample.settings)
        key = (database, fingerprint, kinds, settings)
        if (database, fingerprint) in self._by_value:
            return (*key, hash(sample.text), _digest(values))
        return key


class Sum:
    """What became of all statements of all tests, in whichever process. *of* tells whose plans they are."""

    def __init__(self, of: str = "") -> None:
        self._of = of
        self._unknown: dict[str, tuple[str, str]] = {}
        self._judged: set[str] = set()
        self._left: dict[str, tuple[str, str, str]] = {}
        self._dialects: set[str] = set()

    def add(self, payload: Mapping[str, Any], test: str) -> None:
        self._judged.update(payload["judged"])
        self._dialects.update(payload["dialects"])
        for fingerprint, summary in payload["unknown"].items():
            self._unknown.setdefault(fingerprint, (summary, test))
        for fingerprint, (summary, why) in payload["left"].items():
            self._left.setdefault(fingerprint, (summary, why, test))

    def notes(self) -> Iterator[str]:
        """What was asked, and what was not: never nothing."""
        left = {key: value for key, value in self._left.items() if key not in self._judged}
        judged = render.plural(len(self._judged), "statement")
        others = f"; {', '.join(sorted(self._dialects))} has no plans that sqlprobe reads" if self._dialects else ""
        if not self._judged and not left:
            yield f"explain: no statement ran on PostgreSQL, so no plan was asked for{others}"
            return
        yield f"explain: the plans of {judged} were judged{self._of}{others}"
        if self._unknown:
            count = render.plural(len(self._unknown), "statement")
            verb, whom = ("was", "it") if len(self._unknown) == 1 else ("were", "them")
            yield (
                f"explain: {count} named what the snapshot does not know, and {verb} judged by whether any "
                f"index serves {whom}: {_named(self._unknown.values())}; take a new snapshot when production has it"
            )
        by_reason: dict[str, list[tuple[str, str]]] = {}
        for summary, why, test in left.values():
            by_reason.setdefault(why, []).append((summary, test))
        for why, those in sorted(by_reason.items(), key=lambda each: -len(each[1])):
            count = render.plural(len(those), "statement")
            verb = "was" if len(those) == 1 else "were"
            yield f"explain: {count} {verb} not judged, {_meaning(why)}: {_named(those)}"


def sum_of(stats: Snapshot | None) -> Sum:
    """An empty sum, of the tests' own databases or of production."""
    return Sum(f", with the statistics of PostgreSQL {stats.version} as of {stats.date}" if stats is not None else "")


def _meaning(why: str) -> str:
    if why == _NO_TIME:
        return f"since asking after one test ends after {SECONDS:.0f} seconds"
    said = explain.SAID.get(why)  # type: ignore[call-overload]
    return f"{why} ({said})" if said else f"since {why}"


def _named(those: Iterable[tuple[str, str]]) -> str:
    listed = [render.harmless(f"{summary or 'a statement'} in {test}") for summary, test in those]
    more = f", and {len(listed) - MAX_NAMED} more" if len(listed) > MAX_NAMED else ""
    return ", ".join(listed[:MAX_NAMED]) + more


def _summary(question: Question) -> str:
    return question.statement.summary if question.statement is not None else ""


def _database(engine: Engine) -> str:
    """The same for two engines on one database, as far as their URLs tell."""
    if engine.url.database is None and engine.url.host is None:
        return f"{id(engine)}"  # its creator knows
    return engine.url.set(drivername="postgresql", password=None).render_as_string()


def _kind(value: object) -> object:
    """What of a value decides a plan of columns compared with it: that it is none, true, false, or of what type."""
    return value if value is None or isinstance(value, bool) else type(value).__name__


def _digest(values: object) -> int:
    try:
        return hash(repr(values))
    except Exception:  # noqa: BLE001 - of a class of the application; it is asked about again
        return perf_counter_ns()
