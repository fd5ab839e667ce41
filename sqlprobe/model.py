"""
What sqlprobe tells its users: frozen records, in the units of people (seconds, UTC), free of parameters.

Everything here is plain data. It is made by a reader from the counters of `stats`, and travels as JSON (`report`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Severity = Literal["info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")

# The rules of the public contract. A rule's module is named after it; not every rule is in every release.
RULES: Final = (
    "n-plus-one", "repeated-statement", "duplicate-statement", "column-load", "write-loop", "row-explosion",
    "slow-statement", "query-budget", "long-transaction", "pool-pressure",
    "seq-scan", "filter-discards-rows", "misestimate", "sort-spill", "nested-loop", "whole-index-walk", "deep-offset",
    "unusable-predicate", "missing-index", "missing-partial-index", "missing-jsonb-index", "missing-text-index",
    "missing-vector-index", "vector-operator-mismatch", "vector-overfiltering", "plan-regression",
    "partition-pruning-lost", "rls-hides-index", "stale-statistics", "wide-columns", "unbounded-result",
    "vector-unusable-form", "vector-index-parameters",
    "mixed-schema-names", "tenant-hierarchy", "foreign-key-target", "relationship-loading", "eager-loading",
    "undeferred-column", "vector-dimensions", "enum-and-check", "unlinked-relationships", "cascade-mismatch",
    "redundant-index", "over-indexed-table", "unindexed-foreign-key", "unused-index", "invalid-index",
    "sequence-exhaustion", "never-analyzed", "table-bloat", "missing-row-security", "schema-drift", "migration-count",
    "migration-heads", "migration-downgrade", "migration-type-change", "migration-lock",
)  # fmt: skip

FixKind = Literal["loader-option", "create-index", "rewrite", "setting", "drop-index"]


class SqlprobeError(Exception):
    """Base of every error that sqlprobe raises, always at attach or configuration, never while a statement runs."""


@dataclass(frozen=True, slots=True)
class Site:
    """
    A line of the user's code.

    `file` is relative to the working directory where it lies below it; `function` is the qualified name. `caller` is
    the next frame of the user's code above it: the loop that calls the repository method.
    """

    file: str
    line: int
    function: str
    caller: Site | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


@dataclass(frozen=True, slots=True)
class Verified:
    """How a fix was tried: *method* names the place and its statistics; costs are the planner's, plans are text."""

    method: str
    cost_before: float | None = None
    cost_after: float | None = None
    plan_before: str | None = None
    plan_after: str | None = None


@dataclass(frozen=True, slots=True)
class Fix:
    """A change to paste. `code` is valid as it stands; `verified` is None where it was not tried."""

    kind: FixKind
    code: str
    alembic: str | None = None
    sqlalchemy: str | None = None
    verified: Verified | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One fault, everywhere it was seen.

    `count` is the number of statements it cost, `seconds` what they took, both summed over all scopes of that name;
    `occurrences` the scopes (or, outside any scope, the statements) it was seen in. `first_seen` and `last_seen` are
    Unix times. `key` names the fault over runs and releases: no line numbers, aliases or column lists are in it.
    """

    rule: str
    severity: Severity
    title: str
    advice: str
    key: str
    label: str = ""
    scope: str = ""
    count: int = 0
    seconds: float = 0.0
    occurrences: int = 1
    fingerprint: str = ""
    engine: str = ""
    site: Site | None = None
    origin: Site | None = None
    evidence: Mapping[str, float | int | str] = field(default_factory=dict)
    fixes: tuple[Fix, ...] = ()
    first_seen: float = 0.0
    last_seen: float = 0.0


def _finding_maker() -> Callable[..., Finding]:
    """A class with the fields of `Finding` that is not frozen, whose objects become Findings when they are made."""

    def freeze(self: Any) -> None:
        self.__class__ = Finding

    fields = []
    for each in dataclasses.fields(Finding):
        default: dict[str, Any] = {}
        if each.default is not dataclasses.MISSING:
            default["default"] = each.default
        elif each.default_factory is not dataclasses.MISSING:
            default["default_factory"] = each.default_factory
        fields.append((each.name, each.type, field(**default)))
    return dataclasses.make_dataclass("Finding", fields, slots=True, namespace={"__post_init__": freeze})


# As Finding(), at two fifths of the cost: a frozen dataclass sets each field by a call. For the ends of scopes.
new_finding: Final = _finding_maker()


@dataclass(frozen=True, slots=True)
class SiteCalls:
    """A line, and how many of a statement's calls were traced to it: not every call is traced."""

    site: Site
    calls: int


@dataclass(frozen=True, slots=True)
class StatementStats:
    """
    Every call of one statement on one engine.

    `calls` counts failed ones too; an executemany and an insertmanyvalues are one call whose `parameter_sets` and
    `pages` say how much they carried. `rows` is None where the driver did not say. `errors` counts by SQLSTATE, or by
    exception class where there is none. Times are what the application waited in the driver's execute, in seconds;
    `p50`, `p95` and `p99` are upper edges of `histogram`, at most 2.5 times the true value and never below it.
    `histogram` has one count per bound of `stats.BOUNDS` and a last one above them. `slowest` is the line of the
    slowest call. `first_seen` and `last_seen` are Unix times.
    """

    fingerprint: str
    text: str
    summary: str
    operation: str
    tables: tuple[str, ...]
    engine: str
    calls: int
    errors: Mapping[str, int]
    rows: int | None
    parameter_sets: int
    pages: int
    seconds: float
    min: float
    max: float
    p50: float
    p95: float
    p99: float
    first_seen: float
    last_seen: float
    sites: tuple[SiteCalls, ...] = ()
    slowest: Site | None = None
    histogram: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ScopeStats:
    """
    Every scope of one name and kind: `count` scopes ran `calls` statements.

    `distinct`, `rows`, `seconds` (in the database) and `wall_seconds` are sums over the scopes, nested scopes included;
    `late` statements came after their scope had closed and are in no other number. `p95_calls` and `p95_seconds` are
    upper edges of `calls_histogram` and `seconds_histogram`. `unsampled` more units of work of that name were left out
    by `Settings.sample`: no other number here knows of them, those of the statements do.
    """

    name: str
    kind: str
    count: int
    calls: int
    distinct: int
    rows: int
    seconds: float
    wall_seconds: float
    p95_calls: int
    p95_seconds: float
    late: int = 0
    errors: int = 0
    calls_histogram: tuple[int, ...] = ()
    seconds_histogram: tuple[int, ...] = ()
    unsampled: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """
    Calls of one statement from one line of a scope: one of them, or, where they form a loop, all.

    `started` is in seconds after the scope's begin, `seconds` from the begin of the first call to the end of the last,
    and `busy_seconds` what the calls themselves took. `relationship` is set for lazy loads (`"Order.items"`).
    """

    fingerprint: str
    engine: str
    started: float
    seconds: float
    busy_seconds: float
    calls: int = 1
    rows: int | None = None
    errors: int = 0
    site: Site | None = None
    relationship: str | None = None


@dataclass(frozen=True, slots=True)
class Timeline:
    """
    What one scope ran, in time: the slowest that was seen of its name and kind.

    `started` is a Unix time. `steps` are in the order of their first calls; `omitted` calls are in none of them.
    """

    scope: str
    kind: str
    started: float
    wall_seconds: float
    seconds: float
    calls: int
    steps: tuple[Step, ...] = ()
    omitted: int = 0


@dataclass(frozen=True, slots=True)
class Execution:
    """
    One statement that ran, as a recording keeps it: `started` is a Unix time, `rows` None where the driver did not say.

    `relationship` is set for a lazy load (`"Order.items"`); `batch_size` is the number of parameter sets of an
    executemany or insertmanyvalues, else 1.
    """

    fingerprint: str
    text: str
    engine: str
    scope: str
    started: float
    seconds: float
    rows: int | None
    site: Site | None
    error: str | None = None
    relationship: str | None = None
    batch_size: int = 1
    pages: int = 1


@dataclass(frozen=True, slots=True)
class Fault:
    """Something of ours that failed while the program went on: `where` it was, what it said, how often."""

    where: str
    error: str
    count: int = 1
