"""
Samples: a few executions of each statement with their values, so that its plan can be asked for.

Values stay in this process, in memory: bounded in number, bytes and age. Capture asks one thing of each call, whether
it took longer than its tally's `sample_ns`; what that lets through comes here. The first calls of a statement are
kept, and its slowest; `refresh()` lets the next call through again, so that a long-lived process has recent values.

SET, SET LOCAL, set_config() and RESET are let through always: they decide plans. What they set is kept with their
connection, LOCAL ones until its transaction has ended, and goes with each sample.
"""

from __future__ import annotations

import re
import weakref
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.engine.interfaces import ExecuteStyle

from sqlprobe import faults

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from sqlprobe.stats import Tally

MAX_STATEMENTS: Final = 2_000  # of which samples are kept: more are not looked at in a day
MAX_BYTES: Final = 8_000_000  # of all samples together
MAX_SAMPLE_BYTES: Final = 100_000  # of one: a vector of 2,000 dimensions as text has 40 kB
MAX_AGE_NS: Final = 900 * 1_000_000_000  # older ones hold what nobody needs to remember
FIRST_CALLS: Final = 3  # kept whatever they took: a spread of values; the slowest one comes on top
MAX_SETTINGS: Final = 30  # statements that set something, of one connection
NEVER: Final = 1 << 62  # as a `sample_ns`: no call is let through
ALWAYS: Final = -1

_OPERATIONS: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE"})
_SIZED: Final = frozenset({str, bytes, list, tuple, bytearray})
_INFO: Final = "sqlprobe.settings"


@dataclass(frozen=True, slots=True)
class Sample:
    """
    One execution of a statement: its `text` as it was sent, and the driver's `parameters`.

    `settings` are the statements that had set something for it, in order, with theirs; `settings_unknown` says that
    there were others. Neither values nor text with literals may leave the process: `repr()` shows none.
    """

    text: str = field(repr=False)
    parameters: Any = field(default=None, repr=False)
    elapsed_ns: int = 0
    started_ns: int = 0
    settings: tuple[tuple[str, Any], ...] = field(default=(), repr=False)
    settings_unknown: bool = False
    generic: bool = False  # its text has `$1` for values that nobody knows


class _Kept:
    """The samples of one tally. Written by the tally's thread."""

    __slots__ = ("calls", "engine", "recent", "slowest", "slowest_ns", "turn")

    def __init__(self, engine: Callable[[], Engine | None] | None) -> None:
        self.engine = engine  # None: these statements set something
        self.calls = 0
        self.recent: list[tuple[Any, ...]] = []
        self.turn = 0
        self.slowest: tuple[Any, ...] | None = None
        self.slowest_ns = -1

    @property
    def samples(self) -> list[tuple[Any, ...]]:
        """Each once: the slowest is among the recent ones, or is not."""
        found = {id(each): each for each in (self.slowest, *self.recent) if each is not None}
        return list(found.values())

    @property
    def bytes(self) -> int:
        return sum(sample[6] for sample in self.samples)


class _Settings:
    """What has been set on one connection."""

    __slots__ = ("local", "session", "transaction", "unknown")

    def __init__(self) -> None:
        self.session: list[tuple[str, Any]] = []
        self.local: list[tuple[str, Any]] = []
        self.transaction: Any = None  # a weak reference: the one that `local` lasts for
        self.unknown = False


class Sampler:
    """What capture hands executions to, and explainers take samples from."""

    def __init__(self) -> None:
        self._kept: dict[Tally, _Kept] = {}
        self._bytes = 0
        self._anything_set = False
        self.holds_engines = False  # else a sample keeps no engine alive
        self.wake: Callable[[], None] | None = None  # called when a statement is first seen
        self.dialects: set[str] = set()  # other than PostgreSQL's, of which nothing is kept
        self.left_out: dict[str, tuple[str, str]] = {}  # by fingerprint: what it does, and why no sample could be kept

    def take(
        self, tally: Tally, statement: str, parameters: Any, context: Any, started_ns: int, elapsed_ns: int
    ) -> None:
        """
        Keep this call, which has come back; *parameters* as the driver got them, None for many sets of them.

        Called inside a statement: never raises.
        """
        try:
            kept = self._kept.get(tally)
            if kept is None:
                kept = self._first(tally, context)
                if kept is None:
                    tally.sample_ns = NEVER
                    return
            if kept.engine is None:
                self._note_setting(statement, parameters, context)
                return
            slowest = elapsed_ns > kept.slowest_ns
            kept.calls += 1
            if kept.calls > FIRST_CALLS:
                tally.sample_ns = elapsed_ns if slowest else kept.slowest_ns
            if parameters is None or context.execute_style is not ExecuteStyle.EXECUTE:
                self._leave_out(tally, "it ran with many sets of values only")
                return
            size = len(statement)
            for value in parameters.values() if isinstance(parameters, dict) else parameters:
                if type(value) in _SIZED:
                    size += len(value)
            if size > MAX_SAMPLE_BYTES:
                self._leave_out(tally, f"its values have more than {MAX_SAMPLE_BYTES // 1000} kB")
                return
            settings: tuple[tuple[str, Any], ...] = ()
            unknown = False
            if self._anything_set:
                settings, unknown = _settings_of(context)
            if not parameters and context.no_parameters:
                parameters = None  # the driver was not to look for placeholders
            sample = (statement, parameters, elapsed_ns, started_ns, settings, unknown, size)
            if slowest:
                kept.slowest = sample
                kept.slowest_ns = elapsed_ns
            recent = kept.recent
            if len(recent) < FIRST_CALLS:
                recent.append(sample)
            else:
                turn = kept.turn
                size -= recent[turn][6]  # that it was the slowest as well is seen when they are summed up
                recent[turn] = sample
                kept.turn = (turn + 1) % FIRST_CALLS
            self._bytes += size
            if self._bytes > MAX_BYTES:
                self._shed()
        except Exception as fault:  # noqa: BLE001 - ours, inside a user's statement
            tally.sample_ns = NEVER
            faults.count("sampling", fault)

    def samples(self, now_ns: int | None = None) -> dict[tuple[str, str], tuple[Engine, tuple[Sample, ...]]]:
        """
        By fingerprint and engine name: the engine, and the samples that are not too old, slowest first.

        *now_ns* is a reading of `time.perf_counter_ns`. Engines that are gone are left out.
        """
        oldest = (perf_counter_ns() if now_ns is None else now_ns) - MAX_AGE_NS
        found: dict[tuple[str, str], tuple[Engine, dict[int, Sample]]] = {}
        for tally, kept in self._kept.copy().items():
            engine = kept.engine() if kept.engine is not None else None
            if engine is None:
                continue
            for sample in kept.samples:
                if sample[3] >= oldest:
                    mine = found.setdefault((tally.shape.fingerprint, tally.engine), (engine, {}))[1]
                    mine[id(sample)] = Sample(*sample[:6])
        return {
            key: (engine, tuple(sorted(mine.values(), key=lambda sample: -sample.elapsed_ns)))
            for key, (engine, mine) in found.items()
        }

    def refresh(self, now_ns: int | None = None) -> None:
        """Forget what is too old, and keep the next call of each statement, whatever it takes."""
        oldest = (perf_counter_ns() if now_ns is None else now_ns) - MAX_AGE_NS
        left = 0
        for tally, kept in self._kept.copy().items():
            if kept.engine is None:
                continue
            if kept.engine() is None:
                self._kept.pop(tally, None)
                continue
            if kept.slowest is not None and kept.slowest[3] < oldest:
                kept.slowest, kept.slowest_ns = None, -1
            kept.recent = [sample for sample in kept.recent if sample[3] >= oldest]
            kept.turn = 0
            left += kept.bytes
            tally.sample_ns = ALWAYS
        self._bytes = left

    def clear(self) -> None:
        """Forget every sample; what has been set on connections stays with them."""
        self._kept.clear()
        self._bytes = 0

    def restart(self) -> None:
        """Forget every sample and engine, and keep the first calls of each statement again."""
        for tally in self._kept.copy():
            tally.sample_ns = ALWAYS
        self.clear()
        self.left_out = {}

    def _leave_out(self, tally: Tally, why: str) -> None:
        if len(self.left_out) < MAX_STATEMENTS:
            self.left_out.setdefault(tally.shape.fingerprint, (tally.shape.summary, why))

    def _first(self, tally: Tally, context: Any) -> _Kept | None:
        """Get to know a statement; None if there is nothing to keep of it."""
        if context.dialect.name != "postgresql":
            self.dialects.add(context.dialect.name)
            return None
        kept: _Kept
        if sets_something(tally.shape.operation, tally.shape.text):
            kept = _Kept(None)
        elif tally.shape.operation in _OPERATIONS and len(self._kept) < MAX_STATEMENTS:
            engine = context.root_connection.engine
            kept = _Kept((lambda: engine) if self.holds_engines else weakref.ref(engine))
        else:
            return None
        self._kept[tally] = kept
        if self.wake is not None:
            self.wake()
        return kept

    def _shed(self) -> None:
        """Let go of half of the samples, the oldest."""
        ages = sorted(sample[3] for kept in self._kept.copy().values() for sample in kept.recent)
        if not ages:
            return
        middle = ages[len(ages) // 2]
        for tally, kept in self._kept.copy().items():
            kept.recent = [sample for sample in kept.recent if sample[3] > middle]
            kept.turn = 0
            if kept.slowest is not None and kept.slowest[3] <= middle:
                kept.slowest, kept.slowest_ns = None, -1
                tally.sample_ns = ALWAYS if kept.engine is not None else tally.sample_ns
        self._bytes = sum(kept.bytes for kept in self._kept.copy().values())

    def _note_setting(self, statement: str, parameters: Any, context: Any) -> None:
        """Remember what has been set on the connection of *context*."""
        self._anything_set = True
        info = context.root_connection.info
        known = info.get(_INFO)
        if known is None:
            known = info[_INFO] = _Settings()
        scope = scope_of_setting(statement, parameters)
        transaction = context.root_connection.get_transaction()
        autocommit = getattr(context.root_connection, "_is_autocommit_isolation", lambda: False)()
        if scope == "reset":
            known.session.clear()
            known.local.clear()
            return
        if scope == "unknown" or len(known.session) + len(known.local) >= MAX_SETTINGS:
            known.unknown = True
            return
        if autocommit or transaction is None:
            if scope == "session":
                known.session.append((statement, parameters))
            return
        if known.transaction is None or known.transaction() is not transaction:
            known.unknown = known.unknown or _was_session(known.local)
            known.local = []
            known.transaction = weakref.ref(transaction)
        known.local.append((statement, parameters))


def _settings_of(context: Any) -> tuple[tuple[tuple[str, Any], ...], bool]:
    """What is in force on the connection of *context*, and whether there may be more."""
    known: _Settings | None = context.root_connection.info.get(_INFO)
    if known is None:
        return (), False
    transaction = context.root_connection.get_transaction()
    if known.transaction is not None and known.transaction() is transaction and transaction is not None:
        return (*known.session, *known.local), known.unknown
    # A SET of a transaction that is over is in force if that was committed: nobody can tell from here.
    return tuple(known.session), known.unknown or _was_session(known.local)


def _was_session(settings: list[tuple[str, Any]]) -> bool:
    return any(scope_of_setting(*setting) == "session" for setting in settings)


_SET: Final = re.compile(
    r"\s*SET\s+(?:(?P<local>LOCAL)\s+|SESSION\s+(?!AUTHORIZATION|CHARACTERISTICS))?"
    r"(?!TRANSACTION\b|CONSTRAINTS\b|SESSION\b)[^;]*;?\s*",
    re.IGNORECASE,
)
_RESET: Final = re.compile(r"\s*(?:RESET\s+ALL|DISCARD\s+ALL)\s*;?\s*", re.IGNORECASE)
_VALUE: Final = r"(?:'(?:[^']|'')*'|%\(\w+\)s|%s|\$\d+|true|false)(?:\s*::\s*\w+)*"
_ONE_CONFIG: Final = (
    rf"(?:pg_catalog\.)?set_config\s*\(\s*{_VALUE}\s*,\s*{_VALUE}\s*,\s*(?P<local{{0}}>{_VALUE})\s*\)"
    r"(?:\s+AS\s+\w+)?"
)
_CONFIG: Final = re.compile(
    rf"\s*SELECT\s+{_ONE_CONFIG.format(1)}(?:\s*,\s*{_ONE_CONFIG.format(2)})*\s*;?\s*", re.IGNORECASE
)


def sets_something(operation: str, text: str) -> bool:
    """Whether a statement of that operation and normalised text changes settings."""
    return operation in {"SET", "RESET", "DISCARD"} or "set_config(" in text.lower()


def scope_of_setting(statement: str, parameters: Any) -> str:
    """
    "local", "session" or "reset": how long what *statement* sets lasts; "unknown" if that cannot be told, or if to
    repeat it would do more than set.
    """
    if _RESET.fullmatch(statement):
        return "reset"
    match = _SET.fullmatch(statement)
    if match is not None:
        return "local" if match["local"] else "session"
    match = _CONFIG.fullmatch(statement)
    if match is None:
        return "unknown"
    scopes = {_truth(match[name], parameters) for name in ("local1", "local2") if match[name]}
    return scopes.pop() if len(scopes) == 1 else "unknown"


def _truth(text: str, parameters: Any) -> str:
    """What the third argument of set_config() says: "local" for true, "session" for false."""
    word = text.partition("::")[0].strip().strip("'").lower()
    value: Any = word
    try:
        if word.startswith("%("):
            value = parameters[word[2:-2]]
        elif word.startswith("$"):
            value = parameters[int(word[1:]) - 1]
        elif word == "%s":
            return "unknown"
    except (KeyError, IndexError, TypeError):
        return "unknown"
    if value in {True, "true", "t", "on", "1"}:
        return "local"
    return "session" if value in {False, "false", "f", "off", "0"} else "unknown"
