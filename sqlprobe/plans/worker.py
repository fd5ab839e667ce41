"""
The planner of a reader (a probe, a recording): asks for the plans of what it has seen, on demand or in the background.

In the background it keeps to a budget: so many questions a minute, half a percent of the time of one processor at
most, each statement once a day unless its calls have become slower or faster. It waits longer each time that the server
is busy, locked or away.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlprobe import capture, faults
from sqlprobe.model import SqlprobeError
from sqlprobe.plans.examine import Examiner, questions_for
from sqlprobe.plans.sampling import Sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import Dialect

    from sqlprobe.advice.whatif import WhatIf
    from sqlprobe.model import Finding, StatementStats
    from sqlprobe.plans.examine import Answer, Question
    from sqlprobe.plans.explain import Limits
    from sqlprobe.plans.sampling import Sample
    from sqlprobe.settings import Settings

SHARE: Final = 0.005  # of the wall clock that is spent on questions, at most
TICK_SECONDS: Final = 10.0
BATCH_SECONDS: Final = 0.5  # after which a connection is closed: some twenty questions
AGAIN_SECONDS: Final = 86_400.0  # a statement whose calls take what they took is asked about once a day
SHIFT: Final = 2.0  # times: calls that take so much more, or less, than when it was asked have another plan, perhaps
SHIFT_CALLS: Final = 10
BUSY_SECONDS: Final = 0.25  # for a question that takes a tenth of a millisecond
BACK_OFF_SECONDS: Final = 60.0  # then twice that, and so on
LONGEST_BACK_OFF: Final = 3_600.0
MAX_PENDING: Final = 200  # statements that wait for a lab
MAX_STATEMENTS: Final = 5_000  # whose findings are kept
LEAVE_SECONDS: Final = 1.0  # that detach() waits for a question under way
NAMED: Final = 3  # statements that a sentence names
_AWAY: Final = frozenset({"unavailable", "busy", "locked", "timeout"})

Key = tuple[str, str]


@dataclass(slots=True)
class _Asked:
    at: float
    calls: int
    seconds: float
    mean: float


class Planner:
    """
    Asks for plans and keeps the findings, those of the last plan of each statement.

    *statements* gives what has been seen, *covers* says whose engines are to be asked about, *tell* is called with
    findings that are new.
    """

    def __init__(
        self,
        settings: Settings,
        statements: Callable[[], Iterable[StatementStats]],
        covers: Callable[[Dialect], bool],
        tell: Callable[[list[Finding]], object] = lambda _: None,
        limits: Limits | None = None,
    ) -> None:
        self.settings = settings
        self.examiner = Examiner(settings, limits)
        self.spent_seconds = 0.0
        self.questions = 0
        self._statements = statements
        self._covers = covers
        self._tell = tell
        self._findings: dict[Key, tuple[Finding, ...]] = {}
        self._refused: dict[Key, tuple[str, str]] = {}  # what the statement is, and why it has no plan
        self._unasked = 0
        self._asked: dict[Key, _Asked] = {}
        self._asking = threading.Lock()
        self._allowance = 1.0
        self._last_tick: float | None = None
        self._not_before = 0.0
        self._back_off = 0.0
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._pending: dict[Engine, list[Answer]] = {}
        self._not_proven_before = 0.0
        self._held: dict[Key, tuple[Engine, tuple[Sample, ...]]] | None = None
        self._ended = threading.Event()

    def explain(self, *, analyze: bool = False, most: int | None = None, seconds: float = float("inf")) -> list[Answer]:
        """
        Ask about every statement of which there is a sample, at once: those that took most time in all first, *most*
        of them, for *seconds* at most. See `Examiner.examine`. Indexes that would mend what is found are named, and
        proven where there is a lab to do it.

        Raises:
            SqlprobeError: with `Settings.explain_stats`, that file or a lab cannot be had, or *analyze* is asked for.
        """
        every = questions_for(self._samples(), self._statements())
        found = every[:most]
        file = self.settings.explain_stats
        if not file:
            answers = self._ask(found, analyze=analyze, seconds=seconds, prove=True)
            self._unasked = len(every) - len(answers)
            return answers
        if analyze:
            raise SqlprobeError(
                f"explain(analyze=True) was asked for, found explain_stats={file!r}: with a snapshot's statistics "
                "nothing is run; leave one of them away"
            )
        from sqlprobe.advice.snapshot import Snapshot
        from sqlprobe.advice.whatif import WhatIf

        with contextlib.closing(WhatIf(Snapshot.load(file), self.settings)) as production:
            answers = self._ask(found, analyze=False, seconds=seconds, production=production)
        self._unasked = len(every) - len(answers)
        return answers

    def findings(self) -> tuple[Finding, ...]:
        """What is wrong with the last plan of each statement."""
        return tuple(finding for mine in list(self._findings.values()) for finding in mine)

    def notes(self) -> tuple[str, ...]:
        """Sentences on the statements that have no plan: without one nothing can be wrong with it."""
        by_reason: dict[str, list[str]] = {}
        for summary, reason in [*self._refused.copy().values(), *sampler.left_out.copy().values()]:
            by_reason.setdefault(reason, []).append(summary)
        notes = [f"{_listed(names)} without a plan: {reason}" for reason, names in by_reason.items()]
        if sampler.dialects:
            notes.append(f"Plans are read from PostgreSQL; {', '.join(sorted(sampler.dialects))} has none for sqlprobe")
        if self._unasked:
            notes.append(f"{_counted(self._unasked)} not asked about: those that took most time came first")
        return tuple(notes)

    def hold(self) -> None:
        """Keep the samples as they are now: the process is about to forget them."""
        self._held = self._samples()

    def forget(self) -> None:
        """After a fork: the parent tells of what was seen so far, and has the thread."""
        self._findings = {}
        self._refused = {}
        self._unasked = 0
        self._asked = {}
        self._asking = threading.Lock()
        self._ended = threading.Event()
        self._thread = None
        self._pending = {}

    # --- in the background -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Have a thread that asks within the budget; one that is there already stays."""
        if self._ended.is_set() or self.settings.explain_per_minute <= 0:
            return
        if self._thread is not None and self._pid == os.getpid():
            return
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="sqlprobe-plans", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._ended.set()
        thread = self._thread
        if thread is not None and self._pid == os.getpid() and thread is not threading.current_thread():
            thread.join(LEAVE_SECONDS)

    def tick(self, now: float) -> list[Answer]:
        """Ask what may be asked now, by a clock (in seconds) that only goes forward."""
        if self._last_tick is not None:
            earned = (now - self._last_tick) * self.settings.explain_per_minute / 60
            self._allowance = min(max(1.0, self.settings.explain_per_minute), self._allowance + earned)
        self._last_tick = now
        if now < self._not_before or self._allowance < 1:
            return []
        due = [item for item in questions_for(self._samples(), self._statements()) if self._is_due(item[1], now)]
        answers = self._ask(due[: int(self._allowance)], analyze=False, seconds=BATCH_SECONDS)
        self._allowance -= sum(answer.asked for answer in answers)
        if not self._ended.is_set() and now >= self._not_proven_before and (len(due) <= len(answers)):
            self._prove_pending(now)
        spent = sum(answer.seconds for answer in answers)
        self._not_before = now + spent / SHARE
        for answer in answers:
            self._note(answer, now)
        if any(_is_away(answer) for answer in answers):
            self._back_off = min(LONGEST_BACK_OFF, max(BACK_OFF_SECONDS, self._back_off * 2))
            self._not_before = max(self._not_before, now + self._back_off)
        elif answers:
            self._back_off = 0.0
        return answers

    def _prove_pending(self, now: float) -> None:
        """Try the indexes of all that was asked since the last time in a lab, which takes some seconds."""
        with self._asking:
            pending, self._pending = self._pending, {}
            began = time.perf_counter()
            fresh: list[Finding] = []
            for engine, answers in pending.items():
                latest = {(a.question.fingerprint, a.question.engine_name): a for a in answers}
                for answer in self._advise(engine, list(latest.values()), prove=True):
                    fresh += self._keep(answer)
            seconds = time.perf_counter() - began
        self.spent_seconds += seconds
        self._not_proven_before = now + seconds / SHARE
        if fresh:
            self._tell(fresh)

    def _run(self) -> None:
        refreshed = time.monotonic()
        while not self._ended.wait(TICK_SECONDS):
            try:
                now = time.monotonic()
                self.tick(now)
                if now - refreshed > BACK_OFF_SECONDS:
                    sampler.refresh()
                    refreshed = now
            except Exception as error:  # noqa: BLE001 - ours, in a thread of ours
                faults.count("plans in the background", error)

    def _is_due(self, question: Question, now: float) -> bool:
        asked = self._asked.get((question.fingerprint, question.engine_name))
        if asked is None or now - asked.at >= AGAIN_SECONDS:
            return True
        statement = question.statement
        if statement is None or statement.calls - asked.calls < SHIFT_CALLS or not asked.mean:
            return False
        mean = (statement.seconds - asked.seconds) / (statement.calls - asked.calls)
        return not asked.mean / SHIFT < mean < asked.mean * SHIFT

    def _note(self, answer: Answer, now: float) -> None:
        if answer.refused is not None and answer.refused.reason in _AWAY:
            return  # ask again
        statement = answer.question.statement
        calls = statement.calls if statement is not None else 0
        seconds = statement.seconds if statement is not None else 0.0
        key = (answer.question.fingerprint, answer.question.engine_name)
        last = self._asked.get(key)
        since = calls - last.calls if last is not None else calls
        mean = (seconds - (last.seconds if last is not None else 0.0)) / since if since > 0 else 0.0
        if last is None and len(self._asked) >= MAX_STATEMENTS:
            self._asked.pop(next(iter(self._asked)))
        self._asked[key] = _Asked(now, calls, seconds, mean)

    # --- both --------------------------------------------------------------------------------------------------------

    def _samples(self) -> dict[Key, tuple[Engine, tuple[Sample, ...]]]:
        if self._held is not None:
            return self._held
        return {
            key: (engine, mine) for key, (engine, mine) in sampler.samples().items() if self._covers(engine.dialect)
        }

    def _ask(
        self,
        found: Sequence[tuple[Engine, Question]],
        *,
        analyze: bool,
        seconds: float = float("inf"),
        prove: bool = False,
        production: WhatIf | None = None,
    ) -> list[Answer]:
        answers: list[Answer] = []

        def enough() -> bool:
            return self._ended.is_set() or time.perf_counter() - began >= seconds

        with self._asking:
            began = time.perf_counter()
            by_engine: dict[Engine, list[Question]] = {}
            for engine, question in found:
                by_engine.setdefault(engine, []).append(question)
            for engine, questions in by_engine.items():
                if production is not None:
                    answers += production.ask(engine, questions, enough)
                    continue
                asked = self.examiner.examine(engine, questions, analyze=analyze, until=enough)
                answers += self._advise(engine, asked, prove=prove)
                if not prove:
                    self._hold_back(engine, asked)
            self.spent_seconds += time.perf_counter() - began
            self.questions += sum(answer.asked for answer in answers)
            fresh: list[Finding] = []
            for answer in answers:
                fresh += self._keep(answer)
        if fresh:
            self._tell(fresh)
        return answers

    def _advise(self, engine: Engine, answers: list[Answer], *, prove: bool) -> list[Answer]:
        """*answers* with the indexes that they want; those that nobody has tried yet say so, if not *prove*."""
        if not any(answer.findings for answer in answers):
            return answers
        from sqlprobe.advice import prove as proof

        try:
            cases = proof.cases_of(answers, few=self.settings.advice_values)
            found = proof.tell(engine, cases) if prove else proof.untried(cases, proof.not_yet())
            wanted = [each for each in found if each.finding.rule not in self.settings.disabled_rules]
            return proof.advised(answers, wanted)
        except Exception as error:  # noqa: BLE001 - ours
            faults.count("index advice", error)
            return answers

    def _hold_back(self, engine: Engine, answers: Iterable[Answer]) -> None:
        """Keep what is to be tried in a lab, later and together: its values stay in memory until then."""
        from sqlprobe.advice import lab

        held = [answer for answer in answers if answer.findings]
        if held and lab.is_installed() and sum(map(len, self._pending.values())) < MAX_PENDING:
            self._pending.setdefault(engine, []).extend(held)

    def _keep(self, answer: Answer) -> list[Finding]:
        """Replace what was found of that statement; what is new of it."""
        key = (answer.question.fingerprint, answer.question.engine_name)
        self._refused.pop(key, None)
        if answer.plan is None:
            statement = answer.question.statement
            if answer.refused is not None and len(self._refused) < MAX_STATEMENTS:
                summary = statement.summary if statement is not None else ""
                self._refused[key] = (summary or "a statement", str(answer.refused))
            return []
        known = {finding.key for finding in self._findings.get(key, ())}
        self._findings.pop(key, None)
        if answer.findings:
            if len(self._findings) >= MAX_STATEMENTS:
                self._findings.pop(next(iter(self._findings)))
            self._findings[key] = answer.findings
        return [finding for finding in answer.findings if finding.key not in known]


def _listed(names: Sequence[str]) -> str:
    """SELECT orders, SELECT customer and 2 more."""
    first = sorted(set(names))[:NAMED]
    more = len(names) - len(first)
    return ", ".join(first) + (f" and {more:,} more" if more else "")


def _counted(number: int) -> str:
    return f"{number:,} statements were" if number > 1 else "1 statement was"


def _is_away(answer: Answer) -> bool:
    if answer.refused is not None:
        return answer.refused.reason in _AWAY
    return answer.server_seconds > BUSY_SECONDS


# One for the process: values are kept once, whoever asks.
sampler: Final = Sampler()


def sample(*, wanted: bool, planners: Sequence[Planner] = ()) -> None:
    """Keep samples from now on, or no more. *planners* start to ask when there is something to ask about."""

    def wake() -> None:
        for planner in planners:
            planner.start()

    sampler.wake = wake
    capture.sample_with(sampler if wanted else None)
    if not wanted:
        sampler.clear()
