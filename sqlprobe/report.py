"""
Reports: what was seen, frozen; as JSON and back, summed over processes, compared with an earlier one.

A report is made of integers and of histograms, so that the sum of many processes' reports is what one process would
have told. It holds no parameter and no row.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import json
import math
import os
import re
import types
import typing
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar

from sqlprobe import model
from sqlprobe.model import SEVERITIES, Fault, Finding, ScopeStats, SiteCalls, SqlprobeError, StatementStats, Timeline
from sqlprobe.stats import BOUNDS, BUCKETS, CALL_BOUNDS, scope_stats, statement_stats

FORMAT: Final = "sqlprobe-report/1"
SUFFIXES: Final = (".json", ".html", ".md", ".sarif")  # what Report.write() writes

SLOWER: Final = 1.5  # times the earlier time: runs of unchanged code differ by less
SLOWER_SECONDS: Final = 1e-3  # and at least so much more: a tenth of a millisecond becomes two by itself
MORE_CALLS: Final = 0.5  # statements a scope: less is another mix of inputs, not other code

MAX_DEPTH: Final = 64  # of JSON; a report needs 8
MAX_NUMBER: Final = 1e15  # seconds, counts: sums of any of them stay exact to well below a statement

T = TypeVar("T")


class ReportError(SqlprobeError, ValueError):
    """A report that cannot be read, or not be written: the message says what was asked, found, and what to do."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process that was observed: `started` and `ended` are Unix times."""

    pid: int
    command: str
    started: float
    ended: float


@dataclass(frozen=True, slots=True)
class Report:
    """
    What one or more processes ran, worst first: findings by severity, seconds, count and bytes, the rest by seconds in
    the database.

    `timelines` are of the slowest scope of each name, slowest first. `started` and `ended` (Unix times) bound the
    window that was observed. `versions` are those of python, sqlalchemy,
    sqlprobe and the drivers; `release` is the application's. `faults` are sqlprobe's own, and `notes` sentences for
    the reader, such as what was not kept. `settings` are plain JSON values, as `Settings.as_json()` gives them.
    """

    findings: tuple[Finding, ...] = ()
    statements: tuple[StatementStats, ...] = ()
    scopes: tuple[ScopeStats, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    started: float = 0.0
    ended: float = 0.0
    processes: tuple[Process, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    release: str = ""
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()
    timelines: tuple[Timeline, ...] = ()

    def __post_init__(self) -> None:
        for name, order in _ORDER.items():
            object.__setattr__(self, name, tuple(sorted(getattr(self, name), key=order)))
        for name in ("faults", "notes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def total_seconds(self) -> float:
        """Seconds that all statements together took in the database."""
        return _sum_seconds(statement.seconds for statement in self.statements)

    @property
    def total_calls(self) -> int:
        """Calls of all statements."""
        return sum(statement.calls for statement in self.statements)

    def to_json(self, *, indent: int | None = None) -> str:
        """
        The report as JSON, in ASCII: `report.schema.json` describes it, `from_json` reads it.

        A number that JSON cannot hold (an infinity) becomes null, a setting of another type its text.
        """
        values = {"format": FORMAT, **_plain(self)}
        separators = (",", ":") if indent is None else None
        return json.dumps(values, indent=indent, separators=separators, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Report:
        """
        The report that `to_json` wrote, of this version or an older one.

        Fields that it does not know are left out. What follows from a histogram (calls, percentiles) is worked out
        from it again.

        Raises:
            ReportError: *text* is no JSON, no report, of a newer format, or a field is missing or of another type.
        """
        return _load(text, "a sqlprobe report")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Report:
        """
        The report in the file *path*, which `write` wrote with the suffix .json.

        Raises:
            ReportError: the file cannot be read, or `from_json` would not take what is in it.
        """
        name = os.fspath(path)
        try:
            text = Path(name).read_bytes()
        except (OSError, ValueError) as error:
            raise ReportError(f"report {name}: cannot be read: {_reason(error)}; name a file that exists") from error
        return _load(text, f"report {name}")

    @classmethod
    def merge(cls, *reports: Report) -> Report:
        """
        One report of what all *reports* saw: whatever the order and the grouping, the same.

        Counts, seconds and histograms are added and percentiles read from the sums. A statement is the same where
        fingerprint and engine are, a scope where name and kind are, a finding where key and scope are; it is told by
        the most severe, and among those by the one with the larger evidence. Settings that differ are named in `notes`.
        Percentiles of statements that came without a histogram are the larger ones.
        """
        for report in reports:
            if not isinstance(report, Report):
                raise ReportError(
                    f"Report.merge() takes reports, found {type(report).__name__}; pass each by itself: merge(*reports)"
                )
        settings, differing = _merge_settings(report.settings for report in reports)
        return cls(
            findings=_merge_all(_merge_findings, lambda each: (each.key, each.scope), (r.findings for r in reports)),
            statements=_merge_all(
                _merge_statements, lambda each: (each.fingerprint, each.engine), (r.statements for r in reports)
            ),
            scopes=_merge_all(_merge_scopes, lambda each: (each.name, each.kind), (r.scopes for r in reports)),
            settings=settings,
            started=min((r.started for r in reports if r.started), default=0.0),
            ended=max((r.ended for r in reports), default=0.0),
            processes=_merge_all(
                _merge_processes, lambda each: (each.pid, each.started, each.command), (r.processes for r in reports)
            ),
            versions={
                name: _joined(r.versions.get(name, "") for r in reports)
                for name in sorted({name for r in reports for name in r.versions})
            },
            release=_joined(r.release for r in reports),
            faults=tuple(
                sorted(
                    _merge_all(_merge_faults, lambda each: (each.where, each.error), (r.faults for r in reports)),
                    key=lambda fault: (-fault.count, fault.where, fault.error),
                )
            ),
            notes=tuple(sorted({note for r in reports for note in r.notes} | set(map(_DIFFERING.format, differing)))),
            timelines=_merge_all(_slowest, lambda each: (each.scope, each.kind), (r.timelines for r in reports)),
        )

    def since(self, earlier: Report) -> Report:
        """
        What came after *earlier*, an earlier report of the same probe: counts, seconds and histograms are differences.

        Of a statement's extremes those in between are known only if they are new; else they are the edges of their
        buckets, and the line of the slowest call is not told. A finding's words are those of all its time.

        Raises:
            ReportError: *earlier* counted more than this report, so it is not an earlier one of the same probe.
        """
        try:
            statements = _subtract_all(
                _subtract_statements, lambda each: (each.fingerprint, each.engine), self.statements, earlier.statements
            )
            scopes = _subtract_all(_subtract_scopes, lambda each: (each.name, each.kind), self.scopes, earlier.scopes)
        except _Backwards:
            raise ReportError(
                "Report.since(earlier): an earlier report of the same probe is needed, found one that counted more; "
                "swap the two, or take both from one probe"
            ) from None
        return dataclasses.replace(
            self,
            findings=_subtract_all(
                _subtract_findings, lambda each: (each.key, each.scope), self.findings, earlier.findings
            ),
            statements=tuple(
                dataclasses.replace(each, first_seen=max(each.first_seen, earlier.ended)) for each in statements
            ),
            scopes=scopes,
            started=earlier.ended or self.started,
            processes=tuple(
                dataclasses.replace(each, started=max(each.started, earlier.ended)) for each in self.processes
            ),
            faults=_subtract_all(_subtract_faults, lambda each: (each.where, each.error), self.faults, earlier.faults),
            timelines=tuple(each for each in self.timelines if each not in earlier.timelines),
        )

    def compare(self, base: Report) -> Comparison:
        """
        What became of *base*, the earlier report, in this one.

        A statement is slower if its mean, or for certain its 95th percentile, is at least 1.5 times what it was and
        1 ms more. A percentile is known by its histogram's bucket only: two that might be equal are. Averages of calls
        per scope that differ by less than half a statement are equal.
        """
        before = {(finding.key, finding.scope): finding for finding in base.findings}
        after = {(finding.key, finding.scope): finding for finding in self.findings}
        gone = [finding for key, finding in before.items() if key not in after]
        absent = {scope.name for scope in base.scopes} - {scope.name for scope in self.scopes}
        statements = _paired(base.statements, self.statements, lambda each: (each.fingerprint, each.engine))
        scopes = _paired(base.scopes, self.scopes, lambda each: (each.name, each.kind))
        known = {(each.fingerprint, each.engine) for each in base.statements}
        present = {(each.fingerprint, each.engine) for each in self.statements}
        return Comparison(
            base=base,
            report=self,
            new_findings=tuple(finding for key, finding in after.items() if key not in before),
            gone_findings=tuple(finding for finding in gone if finding.scope not in absent),
            unseen_findings=tuple(finding for finding in gone if finding.scope in absent),
            new_statements=tuple(s for s in self.statements if (s.fingerprint, s.engine) not in known),
            gone_statements=tuple(s for s in base.statements if (s.fingerprint, s.engine) not in present),
            slower=tuple(change for change in statements if _is_slower(change.before, change.after)),
            faster=tuple(change for change in statements if _is_slower(change.after, change.before)),
            more_calls=tuple(c for c in scopes if calls_each(c.after) - calls_each(c.before) >= MORE_CALLS),
            fewer_calls=tuple(c for c in scopes if calls_each(c.before) - calls_each(c.after) >= MORE_CALLS),
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """
        Write the report to the file *path*, whole or not at all, in the format that its suffix names.

        Raises:
            ReportError: no format has that suffix, or the file cannot be written. What was there before is still there.
        """
        suffix = suffix_of(path)
        if suffix == ".json":
            text = self.to_json() + "\n"
        elif suffix == ".html":
            from sqlprobe import html

            text = html.render_html(self)
        else:
            from sqlprobe import render

            text = render.render_markdown(self) if suffix == ".md" else render.render_sarif(self) + "\n"
        _write(path, text)


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """The same thing in the earlier report and in the later one."""

    before: T
    after: T


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    What differs between `base`, the earlier report, and `report`, each worst first.

    `gone_findings` are those that were not seen again, although their scope ran; `unseen_findings` those whose scope
    did not run.
    `more_calls` and `fewer_calls` are of calls per scope.
    """

    base: Report
    report: Report
    new_findings: tuple[Finding, ...] = ()
    gone_findings: tuple[Finding, ...] = ()
    unseen_findings: tuple[Finding, ...] = ()
    new_statements: tuple[StatementStats, ...] = ()
    gone_statements: tuple[StatementStats, ...] = ()
    slower: tuple[Change[StatementStats], ...] = ()
    faster: tuple[Change[StatementStats], ...] = ()
    more_calls: tuple[Change[ScopeStats], ...] = ()
    fewer_calls: tuple[Change[ScopeStats], ...] = ()

    def write(self, path: str | os.PathLike[str]) -> None:
        """
        Write the comparison to the file *path*, whole or not at all: HTML (.html) or Markdown (.md).

        Raises:
            ReportError: comparisons have no such format, or the file cannot be written. What was there is still there.
        """
        suffix = suffix_of(path)
        if suffix == ".html":
            from sqlprobe import html

            text = html.render_comparison_html(self)
        elif suffix == ".md":
            from sqlprobe import render

            text = render.render_comparison_markdown(self)
        else:
            raise ReportError(
                f"comparison {os.fspath(path)}: it is written as .html or .md, found the suffix {suffix!r}; "
                "use one of these, or write the reports"
            )
        _write(path, text)


def calls_each(scope: ScopeStats) -> float:
    """Statements that a scope of that name ran on average."""
    return scope.calls / scope.count if scope.count else 0.0


def report_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what `Report.to_json` writes."""
    from importlib import resources

    schema: dict[str, Any] = json.loads(resources.files("sqlprobe").joinpath("report.schema.json").read_text("utf-8"))
    return schema


def suffix_of(path: str | os.PathLike[str]) -> str:
    """
    The suffix of *path* that names its format, in small letters.

    Raises:
        ReportError: reports are not written in such a format, or not without a library that is missing.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ReportError(
            f"report {os.fspath(path)}: the suffix names the format, found the suffix {suffix!r}; "
            f"use {', '.join(SUFFIXES)}"
        )
    if suffix == ".html" and importlib.util.find_spec("jinja2") is None:
        raise ReportError(
            f"report {os.fspath(path)}: HTML needs jinja2, which is not installed; "
            "install it: pip install 'sqlprobe[html]'; or use .json, .md or .sarif"
        )
    return suffix


def _write(path: str | os.PathLike[str], text: str) -> None:
    name = os.fspath(path)
    try:
        _replace(Path(name).resolve(), text.encode("utf-8", "backslashreplace"))
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise ReportError(
            f"report {name}: cannot be written: {_reason(error)}; nothing was changed there; "
            "name a file in a folder that exists, is yours to write, and has room"
        ) from error


def _bytes(finding: Finding) -> float:
    """What a finding of the catalog is about, as far as it says: an index of 10 GB comes before one of 10 MB."""
    sizes = (value for name, value in finding.evidence.items() if name.endswith("bytes"))
    return max((size for size in sizes if isinstance(size, (int, float))), default=0)


_RANK: Final = {severity: rank for rank, severity in enumerate(SEVERITIES)}

_ORDER: Final[Mapping[str, Callable[[Any], Any]]] = {
    "findings": lambda each: (
        -_RANK.get(each.severity, -1),
        -each.seconds,
        -each.count,
        -_bytes(each),
        each.key,
        each.scope,
    ),
    "statements": lambda each: (-each.seconds, -each.calls, each.fingerprint, each.engine),
    "scopes": lambda each: (-each.seconds, -each.calls, each.name, each.kind),
    "processes": lambda each: (each.started, each.pid, each.command),
    "timelines": lambda each: (-each.wall_seconds, each.scope, each.kind),
}


_DIFFERING: Final = "The merged processes did not share the setting {}; one of its values is shown."


def _merge_all(
    merge: Callable[[Sequence[T]], T], key: Callable[[T], Any], parts: Iterable[Iterable[T]]
) -> tuple[T, ...]:
    groups: dict[Any, list[T]] = {}
    for part in parts:
        for each in part:
            groups.setdefault(key(each), []).append(each)
    return tuple(group[0] if len(group) == 1 else merge(group) for group in groups.values())


def _sum_seconds(values: Iterable[float]) -> float:
    """Sums in nanoseconds: floats would depend on the order."""
    return sum(round(value * 1e9) for value in values) / 1e9


def _add_histograms(histograms: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """The sum, or nothing if one is missing."""
    parts = list(histograms)
    return tuple(map(sum, zip(*parts, strict=True))) if all(parts) else ()


def _text(value: object) -> str:
    """A text for each value, that of the more telling one the larger: for a choice that no order changes."""
    return json.dumps(_plain(value), sort_keys=True)


def _merge_statements(group: Sequence[StatementStats]) -> StatementStats:
    errors: Counter[str] = Counter()
    sites: Counter[model.Site] = Counter()
    for each in group:
        errors.update(each.errors)
        for traced in each.sites:
            sites[traced.site] += traced.calls
    told = max(group, key=lambda each: (each.text, each.summary, each.operation, each.tables))
    rows = [each.rows for each in group if each.rows is not None]
    given: dict[str, Any] = {
        "fingerprint": told.fingerprint,
        "text": told.text,
        "summary": told.summary,
        "operation": told.operation,
        "tables": told.tables,
        "engine": told.engine,
        "errors": dict(sorted(errors.items())),
        "rows": sum(rows) if rows else None,
        "parameter_sets": sum(each.parameter_sets for each in group),
        "pages": sum(each.pages for each in group),
        "seconds": _sum_seconds(each.seconds for each in group),
        "min": min((each.min for each in group if each.calls), default=0.0),
        "max": max(each.max for each in group),
        "first_seen": min(each.first_seen for each in group),
        "last_seen": max(each.last_seen for each in group),
        "sites": tuple(
            SiteCalls(site, calls) for site, calls in sorted(sites.items(), key=lambda item: (-item[1], _text(item[0])))
        ),
        "slowest": max(group, key=lambda each: (each.max, each.slowest is not None, _text(each.slowest))).slowest,
        "histogram": _add_histograms(each.histogram for each in group),
    }
    if given["histogram"]:
        return statement_stats(**given)
    return StatementStats(
        **given,
        calls=sum(each.calls for each in group),
        p50=max(each.p50 for each in group),
        p95=max(each.p95 for each in group),
        p99=max(each.p99 for each in group),
    )


def _merge_scopes(group: Sequence[ScopeStats]) -> ScopeStats:
    given: dict[str, Any] = {
        "name": group[0].name,
        "kind": group[0].kind,
        "calls": sum(each.calls for each in group),
        "distinct": sum(each.distinct for each in group),
        "rows": sum(each.rows for each in group),
        "seconds": _sum_seconds(each.seconds for each in group),
        "wall_seconds": _sum_seconds(each.wall_seconds for each in group),
        "late": sum(each.late for each in group),
        "unsampled": sum(each.unsampled for each in group),
        "errors": sum(each.errors for each in group),
        "calls_histogram": _add_histograms(each.calls_histogram for each in group),
        "seconds_histogram": _add_histograms(each.seconds_histogram for each in group),
    }
    if given["calls_histogram"] and given["seconds_histogram"]:
        return scope_stats(**given)
    return ScopeStats(
        **given,
        count=sum(each.count for each in group),
        p95_calls=max(each.p95_calls for each in group),
        p95_seconds=max(each.p95_seconds for each in group),
    )


def _merge_findings(group: Sequence[Finding]) -> Finding:
    sums: dict[str, Any] = {
        "count": sum(each.count for each in group),
        "seconds": _sum_seconds(each.seconds for each in group),
        "occurrences": sum(each.occurrences for each in group),
        "first_seen": min(each.first_seen for each in group),
        "last_seen": max(each.last_seen for each in group),
    }

    def weight(finding: Finding) -> tuple[int, list[float], str]:
        # Nothing that is summed may decide, or the grouping of a merge would show in its result.
        numbers = [float(value) for _, value in sorted(finding.evidence.items()) if isinstance(value, int | float)]
        rest: dict[str, Any] = dict.fromkeys(sums, 0)
        return _RANK.get(finding.severity, -1), numbers, _text(dataclasses.replace(finding, **rest))

    return dataclasses.replace(max(group, key=weight), **sums)


def _slowest(group: Sequence[Timeline]) -> Timeline:
    return max(group, key=lambda each: (each.wall_seconds, _text(each)))


def _merge_processes(group: Sequence[Process]) -> Process:
    return max(group, key=lambda each: each.ended)


def _merge_faults(group: Sequence[Fault]) -> Fault:
    return dataclasses.replace(group[0], count=sum(each.count for each in group))


def _merge_settings(parts: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """The settings, and the names of those of which there is more than one value."""
    values: dict[str, dict[str, Any]] = {}
    for settings in parts:
        for name, value in settings.items():
            values.setdefault(name, {})[_text(value)] = value
    return (
        {name: found[max(found)] for name, found in sorted(values.items())},
        sorted(name for name, found in values.items() if len(found) > 1),
    )


def _joined(values: Iterable[str]) -> str:
    return ", ".join(sorted({part for value in values for part in value.split(", ") if part}))


class _Backwards(Exception):  # noqa: N818 - it never leaves this module
    """A count that shrank."""


def _subtract_all(
    subtract: Callable[[T, T], T | None], key: Callable[[T], Any], after: Iterable[T], before: Iterable[T]
) -> tuple[T, ...]:
    """What of *after* is not of *before*; `subtract` returns None where nothing is left."""
    known = {key(each): each for each in before}
    pairs = ((each, known.get(key(each))) for each in after)
    left = (each if then is None else subtract(each, then) for each, then in pairs)
    return tuple(each for each in left if each is not None)


def _less(after: int, before: int) -> int:
    if after < before:
        raise _Backwards
    return after - before


def _less_seconds(after: float, before: float) -> float:
    return max(0, round(after * 1e9) - round(before * 1e9)) / 1e9


def _less_histogram(after: tuple[int, ...], before: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(_less, after, before)) if after and before else ()


def _less_counts(after: Mapping[T, int], before: Mapping[T, int]) -> dict[T, int]:
    left = {name: _less(count, before.get(name, 0)) for name, count in after.items()}
    return {name: count for name, count in left.items() if count}


def _subtract_statements(after: StatementStats, before: StatementStats) -> StatementStats | None:
    calls = _less(after.calls, before.calls)
    if not calls:
        return None
    histogram = _less_histogram(after.histogram, before.histogram)
    filled = [index for index, count in enumerate(histogram) if count]
    slowest = after.max > before.max or not before.calls
    lines = {traced.site: traced.calls for traced in before.sites}
    given: dict[str, Any] = {
        "errors": _less_counts(after.errors, before.errors),
        "rows": None if after.rows is None else _less(after.rows, before.rows or 0),
        "parameter_sets": _less(after.parameter_sets, before.parameter_sets),
        "pages": _less(after.pages, before.pages),
        "seconds": _less_seconds(after.seconds, before.seconds),
        # A report holds a statement's most frequent lines only: one may have been counted before it came among them.
        "sites": tuple(
            SiteCalls(each.site, each.calls - lines.get(each.site, 0))
            for each in after.sites
            if each.calls > lines.get(each.site, 0)
        ),
        "slowest": after.slowest if slowest else None,
        "histogram": histogram,
    }
    if not histogram:
        return dataclasses.replace(after, calls=calls, **given)
    highest, lowest = filled[-1], filled[0]
    if not slowest and highest < len(BOUNDS):
        given["max"] = min(after.max, BOUNDS[highest])
    if after.min >= before.min and before.calls:
        given["min"] = max(after.min, BOUNDS[lowest - 1] if lowest else 0.0)
    fields = {item.name: getattr(after, item.name) for item in dataclasses.fields(after)}
    return statement_stats(
        **{name: value for name, value in (fields | given).items() if name not in _DERIVED[StatementStats]}
    )


def _subtract_scopes(after: ScopeStats, before: ScopeStats) -> ScopeStats | None:
    count = _less(after.count, before.count)
    late = _less(after.late, before.late)
    unsampled = _less(after.unsampled, before.unsampled)
    if not count and not late and not unsampled:
        return None
    given: dict[str, Any] = {
        "name": after.name,
        "kind": after.kind,
        "calls": _less(after.calls, before.calls),
        "distinct": _less(after.distinct, before.distinct),
        "rows": _less(after.rows, before.rows),
        "seconds": _less_seconds(after.seconds, before.seconds),
        "wall_seconds": _less_seconds(after.wall_seconds, before.wall_seconds),
        "late": late,
        "unsampled": unsampled,
        "errors": _less(after.errors, before.errors),
        "calls_histogram": _less_histogram(after.calls_histogram, before.calls_histogram),
        "seconds_histogram": _less_histogram(after.seconds_histogram, before.seconds_histogram),
    }
    if given["calls_histogram"] and given["seconds_histogram"]:
        return scope_stats(**given)
    return dataclasses.replace(after, count=count, **given)


def _subtract_findings(after: Finding, before: Finding) -> Finding | None:
    if after.occurrences < before.occurrences or after.count < before.count:
        return after  # it had left the report and came back: counted anew
    if after.occurrences == before.occurrences and after.count == before.count:
        return None
    return dataclasses.replace(
        after,
        count=after.count - before.count,
        occurrences=after.occurrences - before.occurrences,
        seconds=_less_seconds(after.seconds, before.seconds),
    )


def _subtract_faults(after: Fault, before: Fault) -> Fault | None:
    return dataclasses.replace(after, count=after.count - before.count) if after.count > before.count else None


def _paired(before: Iterable[T], after: Iterable[T], key: Callable[[T], Any]) -> list[Change[T]]:
    known = {key(each): each for each in before}
    return [Change(known[key(each)], each) for each in after if key(each) in known]


def _is_slower(before: StatementStats, after: StatementStats) -> bool:
    if not before.calls or not after.calls:
        return False
    # The true percentile lies between its bucket's edges; the later one's lower edge is what it is at least.
    index = bisect_left(BOUNDS, after.p95)
    least = BOUNDS[index - 1] if index else 0.0
    return any(
        then * SLOWER <= now and now - then >= SLOWER_SECONDS
        for then, now in ((before.seconds / before.calls, after.seconds / after.calls), (before.p95, least))
    )


def _plain(value: Any) -> Any:
    """*value* in the types of JSON."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Iterable):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [_plain(item) for item in items]
    return str(value)


def _reason(error: BaseException) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _replace(path: Path, content: bytes) -> None:
    """Put *content* at *path* in one step: a reader, or a full disk, sees the old file or the new one."""
    if path.is_dir():
        raise IsADirectoryError(None, "it is a folder")
    try:
        mode = path.stat().st_mode & 0o7777
    except FileNotFoundError:
        mode = None
    # Not tempfile's: its files are for their owner's eyes only. Cut: a name has 255 bytes.
    temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


_REQUIRED: Final = ("findings", "statements", "scopes")  # of a report; of the rest, what has no default
_DERIVED: Final = {
    StatementStats: ("calls", "p50", "p95", "p99"),
    ScopeStats: ("count", "p95_calls", "p95_seconds"),
}
_AGAIN: Final = "the file is damaged or not sqlprobe's: make the report again"


class _Mismatch(Exception):  # noqa: N818 - it never leaves this module
    """A value that is not what its field holds. `path` grows on the way up."""

    def __init__(self, wanted: str, found: str, path: str = "") -> None:
        super().__init__(wanted)
        self.wanted = wanted
        self.found = found
        self.path = path


def _load(text: str | bytes, source: str) -> Report:
    if not isinstance(text, str | bytes):
        raise ReportError(
            f"{source}: its JSON text is needed, found {type(text).__name__}; pass what to_json() returned"
        )
    try:
        # Windows editors put a byte order mark first, which json refuses in a str.
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text.removeprefix("\ufeff")
        data = json.loads(decoded, parse_constant=_refuse)
        _check_depth(data)
    except UnicodeDecodeError as error:
        raise ReportError(f"{source}: JSON in UTF-8 is needed, found bytes that are not; {_AGAIN}") from error
    except json.JSONDecodeError as error:
        found = f"{error.msg} at line {error.lineno} column {error.colno}" if decoded.strip() else "nothing"
        raise ReportError(f"{source}: JSON is needed, found {found}; {_AGAIN}") from error
    except RecursionError as error:
        raise ReportError(f"{source}: JSON is needed, found it nested too deeply; {_AGAIN}") from error
    except ValueError as error:
        raise ReportError(f"{source}: JSON is needed, found {error}; {_AGAIN}") from error
    version = data.get("format") if isinstance(data, dict) else None
    if version != FORMAT:
        raise ReportError(f"{source}: {_other_format(data, version)}")
    try:
        report: Report = _record(Report, data)
    except _Mismatch as wrong:
        where = wrong.path.removeprefix(".")
        raise ReportError(f"{source}: {where}: {wrong.wanted} is needed, found {wrong.found}; {_AGAIN}") from None
    return report


def _refuse(constant: str) -> None:
    raise ValueError(f"the constant {constant}, which JSON does not have")


def _check_depth(data: object) -> None:
    level = [data]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for value in level
            if isinstance(value, dict | list)
            for item in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise RecursionError


def _other_format(data: object, version: object) -> str:
    if not isinstance(data, dict):
        return f'an object with "format": "{FORMAT}" is needed, found {_kind_of(data)}; {_AGAIN}'
    if version is None:
        return f'"format": "{FORMAT}" is needed, found no such field; {_AGAIN}'
    number = re.fullmatch(r"sqlprobe-report/(\d{1,9})", version) if isinstance(version, str) else None
    if number and int(number[1]) > 1:
        return f'format "{FORMAT}" is needed, found the newer "{version}"; upgrade sqlprobe'
    return f'"format": "{FORMAT}" is needed, found {_kind_of(version)}; {_AGAIN}'


def _kind_of(value: object) -> str:
    if isinstance(value, str):
        return f"the text {json.dumps(value if len(value) <= 40 else value[:40] + '...')}"  # noqa: PLR2004 - a line's share
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"the number {value:.6g}" if abs(value) <= MAX_NUMBER else "a number beyond measure"
    return json.dumps(value)


@functools.cache
def _fields(kind: type) -> tuple[tuple[str, Callable[[Any], Any], bool], ...]:
    """Name, decoder, and whether it must be there, of each field of the record *kind*."""
    hints = typing.get_type_hints(kind, {**vars(model), **globals()})
    return tuple(
        (
            item.name,
            _decoder(hints[item.name]),
            item.name in _REQUIRED
            if kind is Report
            else item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING,
        )
        for item in dataclasses.fields(kind)
    )


@functools.cache
def _decoder(kind: Any) -> Callable[[Any], Any]:
    """What reads a value of the annotated type *kind*, or raises `_Mismatch`."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return functools.partial(_record, kind)
    if origin is Literal:
        return functools.partial(_choice, args)
    if origin in (typing.Union, types.UnionType):
        if types.NoneType in args:
            (rest,) = (arg for arg in args if arg is not types.NoneType)
            return functools.partial(_optional, _decoder(rest))
        return _scalar
    if origin is tuple:
        return functools.partial(_items, _decoder(args[0]))
    if origin is Mapping:
        return functools.partial(_entries, _decoder(args[1]))
    simple: dict[Any, Callable[[Any], Any]] = {str: _string, int: _whole, float: _number, Any: _anything}
    return simple[kind]


def _record(kind: Any, value: Any) -> Any:
    if not isinstance(value, dict):
        raise _Mismatch("an object", _kind_of(value))
    given: dict[str, Any] = {}
    for name, decode, required in _fields(kind):
        if name in value:
            try:
                given[name] = decode(value[name])
            except _Mismatch as wrong:
                wrong.path = f".{name}{wrong.path}"
                raise
        elif required:
            raise _Mismatch("a value", "no such field", f".{name}")
    if kind is StatementStats:
        return _derived(kind, given, {"histogram": BUCKETS}, statement_stats)
    if kind is ScopeStats:
        return _derived(
            kind, given, {"calls_histogram": len(CALL_BOUNDS) + 1, "seconds_histogram": BUCKETS}, scope_stats
        )
    return kind(**given)


def _derived(kind: Any, given: dict[str, Any], histograms: Mapping[str, int], make: Callable[..., Any]) -> Any:
    """A record of *given*; what its histograms tell is worked out from them, if they are there."""
    for name, length in histograms.items():
        if len(given.get(name, ())) not in (0, length):
            raise _Mismatch(f"a list of {length}, or of none,", f"a list of {len(given[name])}", f".{name}")
    if not all(given.get(name) for name in histograms):
        return kind(**given)
    defaults = {item.name: item.default for item in dataclasses.fields(kind)}
    return make(**{name: given.get(name, default) for name, default in defaults.items() if name not in _DERIVED[kind]})


def _items(decode: Callable[[Any], Any], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _Mismatch("a list", _kind_of(value))
    items = []
    for index, item in enumerate(value):
        try:
            items.append(decode(item))
        except _Mismatch as wrong:
            wrong.path = f"[{index}]{wrong.path}"
            raise
    return tuple(items)


def _entries(decode: Callable[[Any], Any], value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Mismatch("an object", _kind_of(value))
    entries = {}
    for key, item in value.items():
        try:
            entries[key] = decode(item)
        except _Mismatch as wrong:
            wrong.path = f"[{json.dumps(key[:40])}]{wrong.path}"
            raise
    return entries


def _optional(decode: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else decode(value)


def _choice(choices: tuple[str, ...], value: Any) -> Any:
    if not isinstance(value, str) or value not in choices:
        raise _Mismatch(f"one of {', '.join(choices)}", _kind_of(value))
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise _Mismatch("a text", _kind_of(value))
    return value


def _whole(value: Any) -> int:
    # A JSON tool that knows floats only writes 3.0.
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if not whole or isinstance(value, bool) or not 0 <= value <= MAX_NUMBER:
        raise _Mismatch("a whole number from 0 on", _kind_of(value))
    return int(value)


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MAX_NUMBER:
        raise _Mismatch("a number from 0 on", _kind_of(value))
    return float(value)


def _scalar(value: Any) -> float | str:
    """Evidence: a text, a number of any sign, or a bool, which Python takes for one."""
    if isinstance(value, str):
        return value
    if not isinstance(value, int | float) or not abs(value) <= MAX_NUMBER:
        raise _Mismatch("a number or a text", _kind_of(value))
    return value


def _anything(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise _Mismatch("a finite number", _kind_of(value))
    if isinstance(value, list):
        return list(_items(_anything, value))
    if isinstance(value, dict):
        return _entries(_anything, value)
    return value
