"""
A report as people read it: in a terminal, as Markdown, as SARIF for code review. Worst first, ten seconds to read.

What comes from the application (statements, paths, names) is shown harmlessly: no markup of it is interpreted, no
control character sent.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from sqlprobe.report import calls_each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rich.console import Console
    from rich.text import Text

    from sqlprobe.model import Finding, Fix, ScopeStats, Severity, Site, StatementStats
    from sqlprobe.report import Change, Comparison, Report

    Piece = tuple[str, str]  # a text and its style

MARKDOWN_TOP: Final = 25  # rows of a table: a page
PIPED_WIDTH: Final = 120  # columns where there is no terminal to ask
NARROWEST: Final = 60
MAX_PATH: Final = 1_024  # characters of a path that are looked at
MAX_PIECE: Final = 20_000  # characters of one text in a terminal: rich takes its time to measure more
WIDE: Final = 100  # from here on there is room for one more number
WIDER: Final = 120

_UNKNOWN: Final = "—"
_SEVERITY_STYLE: Final[dict[Severity, str]] = {"error": "bold red", "warning": "bold yellow", "info": "bold blue"}
_LABEL: Final = 9  # columns of "alembic: ", the longest
_CODE_INDENT: Final = " " * 6
# For terminals that cannot do better; one character each, or columns would move.
_ASCII: Final = str.maketrans({"—": "-", "…": "~", "µ": "u", "·": "-", "→": ">", "\u00d7": "x", "≤": "<", "≥": ">"})

_DISABLED: Final = "sqlprobe was disabled: SQLPROBE_ENABLED=0 or Settings(enabled=False)"
_CHECKS: Final = (
    "the code that talks to the database ran while sqlprobe watched: attach first, or put record() around it",
    "it talks through SQLAlchemy: COPY and a driver's own cursors are not seen",
    "sqlprobe is enabled: neither SQLPROBE_ENABLED=0 nor Settings(enabled=False)",
    "`sqlprobe doctor` says what is watched, and which other handler hides statements",
)


def make_console(*, stderr: bool = False) -> Console:
    """A console on standard output, or on standard error; of 120 columns where that is no terminal and none are set."""
    from rich.console import Console

    console = Console(stderr=stderr)
    if console.is_terminal or "COLUMNS" in os.environ:
        return console
    return Console(stderr=stderr, width=PIPED_WIDTH)


def print_report(
    report: Report, console: Console | None = None, *, top: int = 10, every_fault: bool = False, verbose: bool = False
) -> None:
    """
    Print *report* to *console* (standard output).

    *top* rows of each table and as many findings, or with *every_fault* all that are more than information; *verbose*
    shows everything, with each statement's text.
    """
    page = _Page(console, top=None if verbose else top, verbose=verbose)
    page.top_faults = None if every_fault else page.top
    page.header(report)
    page.findings(report.findings, report)
    page.statements(report)
    page.scopes(report)
    page.remarks(report)


def print_comparison(comparison: Comparison, console: Console | None = None, *, top: int = 10) -> None:
    """Print *comparison* to *console* (standard output): what got worse first."""
    page = _Page(console, top=top, verbose=False)
    page.comparison(comparison)


def render_markdown(report: Report, *, top: int = MARKDOWN_TOP) -> str:
    """*report* as Markdown (GitHub's, for tables): all findings, *top* rows of each table."""
    return "\n".join(_markdown(report, top))


def render_comparison_markdown(comparison: Comparison, *, top: int = MARKDOWN_TOP) -> str:
    """*comparison* as Markdown: what got worse first."""
    return "\n".join(_comparison_markdown(comparison, top))


def render_sarif(report: Report) -> str:
    """
    The findings of *report* as SARIF 2.1.0, which code review shows beside the lines.

    A finding without a line has a logical location only: its label, or its scope.
    """
    rules = sorted({finding.rule for finding in report.findings})
    driver: dict[str, Any] = {"name": "sqlprobe", "rules": [{"id": rule, "name": _pascal(rule)} for rule in rules]}
    if report.versions.get("sqlprobe"):
        driver["version"] = report.versions["sqlprobe"]
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_sarif_result(finding, rules.index(finding.rule)) for finding in report.findings],
    }
    log = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=1)


def duration(seconds: float) -> str:
    """*seconds* with three digits at most, in the unit that a person would say: `850 µs`, `12.3 ms`, `2 min 5 s`."""
    for factor, unit in ((1e6, "µs"), (1e3, "ms"), (1.0, "s")):
        value = seconds * factor
        # 999.6 is shown as 1000 and so belongs to the next unit; a minute is sixty.
        if value < (999.5 if unit != "s" else 59.95):
            return f"{_three_digits(value)} {unit}"
    whole = round(seconds)
    for size, unit, part, part_unit in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size:,} {unit}" + (f" {rest} {part_unit}" if rest else "")
    return f"{whole} s"


def plural(number: int, one: str, many: str = "") -> str:
    """`1 statement`, `1,204 statements`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def harmless(text: str) -> str:
    r"""*text* in one line that does nothing to a terminal: what is not printable stands there as `\x1b` or `\u202e`."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode("ascii")
        for char in text
    )


def short_place(site: Site, width: int, *, function: bool = False) -> str:
    """
    `file:line`, in *width* columns where that can be: directories go first, then the file's beginning, never the line.

    With *function*, `file:line in function` where that fits as a whole.
    """
    # The end of a path tells most of it.
    place = f"{harmless(site.file[-MAX_PATH:])}:{site.line}"
    if function and _columns(f"{place} in {harmless(site.function)}") <= width:
        return f"{place} in {harmless(site.function)}"
    if _columns(place) <= width:
        return place
    parts = place.split("/")
    for first in range(1, len(parts)):
        short = "…/" + "/".join(parts[first:])
        if _columns(short) <= width:
            return short
    line = f":{site.line}"
    return "…" + _last(parts[-1].removesuffix(line), width - 1 - len(line)) + line


def _three_digits(value: float) -> str:
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0  # noqa: PLR2004 - where rounding adds a digit
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if digits else text


def _per(total: float, count: int) -> str:
    """*total* per each of *count*, as a person would say it."""
    if not count:
        return _UNKNOWN
    value = total / count
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}".removesuffix(".0")  # noqa: PLR2004 - two digits


def _share(part: float, whole: float) -> str:
    if whole <= 0:
        return _UNKNOWN
    percent = 100 * part / whole
    return "<1 %" if 0 < percent < 0.5 else f"{percent:.0f} %"  # noqa: PLR2004 - what rounds to 0


def _columns(text: str) -> int:
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _first(text: str, width: int) -> str:
    """As much of the beginning of *text* as *width* columns hold."""
    while text and _columns(text) > width:
        text = text[: max(0, width)] if len(text) > width else text[:-1]
    return text


def _last(text: str, width: int) -> str:
    return _first(text[::-1], width)[::-1]


def _cut(text: str, width: int) -> str:
    return text if _columns(text) <= width else _first(text, width - 1) + "…"


def _cut_middle(text: str, width: int) -> str:
    if _columns(text) <= width:
        return text
    return _first(text, (width - 1) // 2) + "…" + _last(text, width - 1 - (width - 1) // 2)


def _cut_statement(text: str, width: int) -> str:
    """A statement in one line: of a long list of columns the beginning, for FROM and WHERE tell more."""
    if _columns(text) <= width:
        return text
    head, separator, tail = text.partition(" FROM ")
    if not separator:
        return _cut(text, width)
    room = width - _columns(tail) - len("… FROM ")
    return _cut(_first(head, max(room, width // 3, 16)) + "… FROM " + tail, width)


def _site_of(statement: StatementStats) -> Site | None:
    """The line that called it most, else that of its slowest call."""
    return statement.sites[0].site if statement.sites else statement.slowest


def _named(statement: StatementStats) -> str:
    """Its summary, or its text where the summary names no table."""
    short = statement.summary or statement.operation
    return harmless((short if statement.tables else statement.text) or short or statement.fingerprint)


def _checks(report: Report) -> tuple[str, ...]:
    """Why there may be nothing to tell."""
    return (_DISABLED,) if report.settings.get("enabled") is False else _CHECKS


class _Lookup:
    """What findings are shown with, looked up in their report once."""

    __slots__ = ("_scopes", "_statements", "total")

    def __init__(self, report: Report) -> None:
        self.total = report.total_seconds
        self._scopes: dict[str, int] = {}
        self._statements: dict[tuple[str, str], StatementStats] = {}
        for scope in report.scopes:
            self._scopes[scope.name] = self._scopes.get(scope.name, 0) + scope.count
        for statement in report.statements:
            for engine in (statement.engine, ""):
                self._statements.setdefault((statement.fingerprint, engine), statement)

    def statement_of(self, finding: Finding) -> StatementStats | None:
        return self._statements.get((finding.fingerprint, finding.engine)) if finding.fingerprint else None

    def seen_in(self, finding: Finding) -> str:
        """`GET /orders, in 12 of 480`."""
        of_name = self._scopes.get(finding.scope, 0)
        many = f" of {of_name:,}" if of_name >= finding.occurrences else ""
        return harmless(finding.scope) + (f", in {finding.occurrences:,}{many}" if of_name != 1 else "")

    def cost(self, finding: Finding) -> str:
        share = (
            f", {_share(finding.seconds, self.total)} of the database time" if self.total and finding.seconds else ""
        )
        return f"{plural(finding.count, 'call')}, {duration(finding.seconds)}{share}"


def _headline(report: Report) -> str:
    scopes = sum(scope.count for scope in report.scopes)
    window = report.ended - report.started if report.started and report.ended > report.started else 0.0
    return (
        f"{plural(report.total_calls, 'call')} of {plural(len(report.statements), 'statement')}"
        + (f" in {plural(scopes, 'scope')}" if scopes else "")
        + (f" over {duration(window)}" if window else "")
        + f", {duration(report.total_seconds)} in the database"
    )


def _context(report: Report) -> list[str]:
    """When, what and with which versions: what is known of it."""
    said = []
    if report.started:
        with contextlib.suppress(OverflowError, ValueError, OSError):  # a clock that is off by millennia
            said.append(f"{datetime.fromtimestamp(report.started, UTC):%Y-%m-%d %H:%M:%S} UTC")
    commands = list(dict.fromkeys(harmless(process.command) for process in report.processes if process.command))
    if commands:
        said.append(_cut_middle(commands[0], 60) + (f" and {len(commands) - 1} more" if len(commands) > 1 else ""))
    if len(report.processes) > 1:
        said.append(plural(len(report.processes), "process", "processes"))
    names = {"python": "Python", "sqlalchemy": "SQLAlchemy"}
    said += [
        f"{names.get(name, harmless(name))} {harmless(version)}"
        for name, version in sorted(report.versions.items(), key=lambda item: (item[0] not in names, item[0]))
    ]
    if report.release:
        said.append(f"release {harmless(report.release)}")
    return said


def _proof(fix: Fix) -> str:
    """What trying the fix has shown."""
    tried = fix.verified
    if tried is None:
        return ""
    if tried.cost_before is None or tried.cost_after is None:
        return harmless(tried.method)
    return f"{harmless(tried.method)}: cost {tried.cost_before:,.6g} → {tried.cost_after:,.6g}"


def _severities(findings: Sequence[Finding]) -> str:
    counts = {severity: sum(1 for each in findings if each.severity == severity) for severity in _SEVERITY_STYLE}
    return ", ".join(plural(count, severity) for severity, count in counts.items() if count)


def _errors(statement: StatementStats) -> str:
    """`4 errors: 23505 (3), 40001 (1)`."""
    most = sorted(statement.errors.items(), key=lambda item: (-item[1], item[0]))
    named = ", ".join(f"{harmless(name)} ({count:,})" for name, count in most[:5])
    return f"{plural(sum(statement.errors.values()), 'error')}: {named}{', …' if len(most) > 5 else ''}"  # noqa: PLR2004


def _rest(left: Sequence[StatementStats] | Sequence[ScopeStats], one: str) -> str:
    return f"… and {plural(len(left), f'more {one}')}, {duration(sum(each.seconds for each in left))}"


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of a table. `cell` makes its text, in the width that it is told; 0 asks for all of it."""

    title: str
    cell: Callable[[Any, int], str]
    style: str = ""
    flexible: bool = False
    from_width: int = 0  # left out on narrower pages


class _Page:
    """A console, and how to write on it: each line as a whole, nothing in it taken for markup."""

    def __init__(self, console: Console | None, *, top: int | None, verbose: bool) -> None:
        console = self.console = console or make_console()
        self.width = max(NARROWEST, console.width)
        self.ascii = console.options.ascii_only
        self.top = self.top_faults = top
        self.verbose = verbose

    def line(self, *pieces: Piece) -> None:
        from rich.text import Text

        text = Text()
        for content, style in pieces:
            whole = content if len(content) <= MAX_PIECE else content[:MAX_PIECE] + "…"
            text.append(self.encodable(whole), style)
        self.write(text)

    def write(self, text: Text) -> None:
        # Wrapped by the terminal or not at all: a line can be copied and searched as it is.
        self.console.print(text, soft_wrap=True, highlight=False, markup=False, emoji=False)

    def encodable(self, text: str) -> str:
        return text.translate(_ASCII).encode("ascii", "replace").decode() if self.ascii else text

    def prose(self, text: str, style: str = "", *, first: Sequence[Piece] = (), indent: int = 0) -> None:
        """*text* after the pieces *first*; on a terminal its further lines are indented."""
        lines = [text]
        if self.console.is_terminal:
            from textwrap import wrap

            lines = wrap(text, self.width - indent, break_long_words=False, break_on_hyphens=False) or [""]
        for number, part in enumerate(lines):
            self.line(*(first if not number else [(" " * indent, "")]), (part, style))

    def title(self, text: str, more: str = "") -> None:
        self.line()
        self.line((text, "bold"), (f"  {more}" if more else "", "dim"))

    def header(self, report: Report) -> None:
        if report.statements:
            self.prose(_headline(report), "", first=[("sqlprobe: ", "bold")], indent=len("sqlprobe: "))
        else:
            self.line(("sqlprobe: ", "bold"), ("no statement was seen", "bold yellow"))
        context = _context(report)
        if context:
            self.prose(" · ".join(context), "dim", first=[("          ", "")], indent=len("sqlprobe: "))
        if report.statements or report.notes:  # which tell why there are none
            return
        self.title("WHAT TO CHECK")
        for check in _checks(report):
            self.prose(check, first=[("- ", "")], indent=2)

    def findings(self, findings: Sequence[Finding], report: Report, title: str = "FINDINGS") -> None:
        if not findings:
            disabled = report.settings.get("disabled_rules")
            off = (
                f"; disabled: {harmless(', '.join(map(str, disabled)))}"
                if isinstance(disabled, list) and disabled
                else ""
            )
            if report.statements:
                self.title(title, f"none{off}")
            return
        self.title(title, _severities(findings))
        lookup = _Lookup(report)
        grave = [finding for finding in findings if self.verbose or finding.severity != "info"]
        minor = [finding for finding in findings if not self.verbose and finding.severity == "info"]
        for finding in grave[: self.top_faults]:
            self.finding(finding, lookup)
        for number, finding in enumerate(minor[: self.top]):
            if number == 0 and grave:
                self.line()
            self.minor(finding)
        left = len(grave[len(grave[: self.top_faults]) :]) + len(minor[len(minor[: self.top]) :])
        if left:
            self.line((f"… and {plural(left, 'more finding')}", "dim"))

    def finding(self, finding: Finding, lookup: _Lookup) -> None:
        style = _SEVERITY_STYLE.get(finding.severity, "bold")
        severity = harmless(finding.severity)
        self.line()
        self.prose(harmless(finding.title), "bold", first=[(severity, style), (" ", "")], indent=len(severity) + 1)
        for label, place in (
            ("where", finding.site),
            ("caller", finding.site.caller if finding.site else None),
            ("origin", finding.origin),
        ):
            if place is not None:
                self.fact(label, harmless(str(place)), "cyan")
        if finding.scope:
            self.fact("scope", lookup.seen_in(finding))
        if finding.count or finding.seconds or finding.fingerprint:  # what an audit reads in models costs nothing yet
            self.fact("cost", lookup.cost(finding))
        self.fact("rule", harmless(finding.rule) + (f"  label: {harmless(finding.label)}" if finding.label else ""))
        statement = lookup.statement_of(finding)
        if statement is not None:
            sql = harmless(statement.text) or _named(statement)
            self.fact("sql", sql if self.verbose else _cut_statement(sql, self.width - _LABEL - 2))
        if self.verbose and finding.evidence:
            self.fact("numbers", ", ".join(f"{harmless(k)} {_evidence(v)}" for k, v in finding.evidence.items()))
        self.prose(harmless(finding.advice), first=[(f"  {'fix:':<{_LABEL}}", "green")], indent=_LABEL + 2)
        for number, fix in enumerate(finding.fixes):
            if number:
                self.line((f"  {'and' if are_one_fix(finding) else 'or'} ({fix.kind}):", "green"))
            self.code(fix.code)
            if fix.alembic:
                self.line(("  alembic:", "green"))
                self.code(fix.alembic)
            if fix.sqlalchemy and self.verbose:
                self.line(("  model:", "green"))
                self.code(fix.sqlalchemy)
            proof = _proof(fix)
            if proof:
                self.fact("proof", proof)

    def minor(self, finding: Finding) -> None:
        """One line, with the place whole."""
        severity = harmless(finding.severity)
        title = harmless(finding.title)
        place = f"{harmless(finding.site.file)}:{finding.site.line}" if finding.site else ""
        where = f" · {place}" if place and place not in title else ""
        room = self.width - len(severity) - 1 - _columns(where)
        if place and not where:
            room = max(room, _columns(title))
        self.line((severity, _SEVERITY_STYLE["info"]), (" ", ""), (_cut(title, max(room, 20)), ""), (where, "cyan"))

    def fact(self, label: str, value: str, style: str = "") -> None:
        self.line((f"  {label + ':':<{_LABEL}}", "dim"), (value, style))

    def code(self, code: str) -> None:
        for line in code.expandtabs(4).splitlines():
            self.line((_CODE_INDENT, ""), (harmless(line), "green"))

    def statements(self, report: Report) -> None:
        if not report.statements:
            return
        shown = report.statements[: self.top]
        total = report.total_seconds
        several = len({statement.engine for statement in report.statements}) > 1

        def name(statement: StatementStats) -> str:
            return _named(statement) + (f" ({harmless(statement.engine)})" if several and statement.engine else "")

        columns = [
            _Column("time", lambda s, _: duration(s.seconds), "bold"),
            _Column("share", lambda s, _: _share(s.seconds, total)),
            _Column("calls", lambda s, _: f"{s.calls:,}"),
            _Column("mean", lambda s, _: _mean(s), from_width=WIDE),
            _Column("p50≤", lambda s, _: duration(s.p50), from_width=WIDER),
            _Column("p95≤", lambda s, _: duration(s.p95)),
            _Column("rows/call", lambda s, _: _rows_each(s)),
            _Column("statement", lambda s, width: _cut_middle(name(s), width or 200), flexible=True),
            _Column("where", self.place, "cyan", flexible=True),
        ]
        self.title("STATEMENTS", "by time in the database")
        self.table(columns, shown, below=self.below)
        if len(report.statements) > len(shown):
            self.line((_rest(report.statements[len(shown) :], "statement"), "dim"))

    def place(self, statement: StatementStats, width: int) -> str:
        site = _site_of(statement)
        return short_place(site, width or 200, function=self.width >= WIDER) if site else _UNKNOWN

    def below(self, statement: StatementStats) -> Iterator[Piece]:
        if statement.errors:
            yield _errors(statement), "red"
        if self.verbose:
            yield f"{harmless(statement.fingerprint)}  {harmless(statement.text)}", "dim"
            for traced in statement.sites:
                caller = f", called from {traced.site.caller}" if traced.site.caller else ""
                yield f"{traced.calls:,} at {harmless(str(traced.site) + caller)}", "cyan"

    def scopes(self, report: Report) -> None:
        if not report.scopes:
            return
        shown = report.scopes[: self.top]
        kinds = {scope.kind for scope in report.scopes}

        def name(scope: ScopeStats, width: int) -> str:
            more = [scope.kind] if len(kinds) > 1 and scope.kind and self.width >= WIDE else []
            more += [plural(scope.errors, "error")] if scope.errors else []
            more += [f"{scope.late:,} late"] if scope.late else []
            more += [f"{scope.unsampled:,} more not sampled"] if scope.unsampled else []
            tail = f" ({harmless(', '.join(more))})" if more else ""
            return _cut_middle(harmless(scope.name), max((width or 200) - _columns(tail), 8)) + tail

        columns = [
            _Column("time", lambda s, _: duration(s.seconds), "bold"),
            _Column("wall", lambda s, _: duration(s.wall_seconds)),
            _Column("scopes", lambda s, _: f"{s.count:,}"),
            _Column("calls each", lambda s, _: _per(s.calls, s.count), "bold"),
            _Column("p95≤", lambda s, _: f"{s.p95_calls:,}"),
            _Column("distinct", lambda s, _: _per(s.distinct, s.count)),
            _Column("rows", lambda s, _: _per(s.rows, s.count) if s.rows else _UNKNOWN, from_width=WIDE),
            _Column("scope", name, flexible=True),
        ]
        self.title("SCOPES", "by time in the database")
        self.table(columns, shown)
        if len(report.scopes) > len(shown):
            self.line((_rest(report.scopes[len(shown) :], "scope name"), "dim"))

    def table(
        self,
        columns: Sequence[_Column],
        rows: Sequence[Any],
        *,
        below: Callable[[Any], Iterable[Piece]] | None = None,
    ) -> None:
        """Numbers to the right, flexible columns last and to the left, cut to what the page has left for them."""
        columns = [column for column in columns if self.width >= column.from_width]
        widths = [max(_columns(c.title), *(_columns(c.cell(row, 0)) for row in rows)) for c in columns]
        fixed = sum(width for width, column in zip(widths, columns, strict=True) if not column.flexible)
        flexible = [index for index, column in enumerate(columns) if column.flexible]
        left = self.width - fixed - 2 * (len(columns) - 1)
        for number, index in enumerate(flexible):
            others = sum(widths[other] for other in flexible[number + 1 :])
            part = left // (len(flexible) - number)
            widths[index] = max(12, min(widths[index], max(part, left - others)))
            left -= widths[index]
        self.line(*self.row(columns, widths, [column.title for column in columns], "dim"))
        start = sum(width + 2 for width in widths[: flexible[0]])
        for row in rows:
            cells = [column.cell(row, width) for column, width in zip(columns, widths, strict=True)]
            self.line(*self.row(columns, widths, cells))
            for text, style in below(row) if below else ():
                self.line((" " * (start if not self.verbose else 4), ""), (text, style))

    def row(
        self, columns: Sequence[_Column], widths: Sequence[int], cells: Sequence[str], style: str = ""
    ) -> list[Piece]:
        pieces: list[Piece] = []
        for number, (column, width, cell) in enumerate(zip(columns, widths, cells, strict=True)):
            padding = " " * (width - _columns(cell))
            last = number == len(columns) - 1
            if column.flexible:
                pieces += [(cell, style or column.style), ("" if last else padding + "  ", "")]
            else:
                pieces += [(padding, ""), (cell, style or column.style), ("" if last else "  ", "")]
        return pieces

    def remarks(self, report: Report) -> None:
        if report.faults:
            self.title("FAULTS", "sqlprobe's own: the program was not affected")
            for fault in report.faults[: self.top]:
                times = f" ({fault.count:,} times)" if fault.count > 1 else ""
                self.line(("- ", ""), (f"{harmless(fault.where)}: {harmless(fault.error)}{times}", "yellow"))
            if self.top is not None and len(report.faults) > self.top:
                self.line((f"… and {len(report.faults) - self.top:,} more", "dim"))
        if report.notes:
            self.title("NOTES")
            for note in report.notes:
                self.prose(harmless(note), first=[("- ", "")], indent=2)

    def comparison(self, comparison: Comparison) -> None:
        self.prose(_change_headline(comparison), first=[("sqlprobe: ", "bold")], indent=len("sqlprobe: "))
        if comparison.new_findings:
            self.findings(comparison.new_findings, comparison.report, "NEW FINDINGS")
        self.changes("SLOWER STATEMENTS", comparison.slower)
        self.more_calls("MORE CALLS PER SCOPE", comparison.more_calls)
        self.names("NEW STATEMENTS", comparison.new_statements)
        for title, findings in (
            ("GONE FINDINGS", comparison.gone_findings),
            ("FINDINGS NOT CHECKED: THEIR SCOPE DID NOT RUN", comparison.unseen_findings),
        ):
            if findings:
                self.title(title, f"{len(findings):,}")
                for finding in findings[: self.top]:
                    self.minor(finding)
                if self.top is not None and len(findings) > self.top:
                    self.line((f"… and {len(findings) - self.top:,} more", "dim"))
        self.changes("FASTER STATEMENTS", comparison.faster)
        self.more_calls("FEWER CALLS PER SCOPE", comparison.fewer_calls)
        self.names("GONE STATEMENTS", comparison.gone_statements)

    def changes(self, title: str, changes: Sequence[Change[StatementStats]]) -> None:
        if not changes:
            return
        columns = [
            _Column("mean", lambda c, _: f"{_mean(c.before)} → {_mean(c.after)}", "bold"),
            _Column("p95≤", lambda c, _: f"{duration(c.before.p95)} → {duration(c.after.p95)}"),
            _Column("calls", lambda c, _: f"{c.after.calls:,}", from_width=WIDE),
            _Column("statement", lambda c, width: _cut_middle(_named(c.after), width or 200), flexible=True),
            _Column("where", lambda c, width: self.place(c.after, width), "cyan", flexible=True),
        ]
        self.title(title, f"{len(changes):,}")
        self.table(columns, changes[: self.top])
        if self.top is not None and len(changes) > self.top:
            self.line((f"… and {len(changes) - self.top:,} more", "dim"))

    def more_calls(self, title: str, changes: Sequence[Change[ScopeStats]]) -> None:
        if not changes:
            return
        columns = [
            _Column("calls each", lambda c, _: f"{_calls(c.before)} → {_calls(c.after)}", "bold"),
            _Column("p95≤", lambda c, _: f"{c.before.p95_calls:,} → {c.after.p95_calls:,}"),
            _Column("scope", lambda c, width: _cut_middle(harmless(c.after.name), width or 200), flexible=True),
        ]
        self.title(title, f"{len(changes):,}")
        self.table(columns, changes[: self.top])
        if self.top is not None and len(changes) > self.top:
            self.line((f"… and {len(changes) - self.top:,} more", "dim"))

    def names(self, title: str, statements: Sequence[StatementStats]) -> None:
        if not statements:
            return
        columns = [
            _Column("time", lambda s, _: duration(s.seconds), "bold"),
            _Column("calls", lambda s, _: f"{s.calls:,}"),
            _Column("statement", lambda s, width: _cut_middle(_named(s), width or 200), flexible=True),
            _Column("where", self.place, "cyan", flexible=True),
        ]
        self.title(title, f"{len(statements):,}")
        shown = statements[: self.top]
        self.table(columns, shown)
        if len(statements) > len(shown):
            self.line((_rest(statements[len(shown) :], "statement"), "dim"))


def _evidence(value: float | str) -> str:
    if isinstance(value, str):
        return harmless(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def _mean(statement: StatementStats) -> str:
    return duration(statement.seconds / statement.calls) if statement.calls else _UNKNOWN


def _rows_each(statement: StatementStats) -> str:
    return _UNKNOWN if statement.rows is None else _per(statement.rows, statement.calls)


def _calls(scope: ScopeStats) -> str:
    return f"{calls_each(scope):,.1f}".removesuffix(".0")


def _change_headline(comparison: Comparison) -> str:
    before, after = comparison.base, comparison.report
    totals = (
        f"{duration(before.total_seconds)} → {duration(after.total_seconds)} in the database, "
        f"{before.total_calls:,} → {plural(after.total_calls, 'call')}"
    )
    counts = (
        (comparison.new_findings, "new finding", "new findings"),
        (comparison.slower, "slower statement", "slower statements"),
        (comparison.more_calls, "scope with more calls", "scopes with more calls"),
    )
    worse = ", ".join(plural(len(changes), one, many) for changes, one, many in counts if changes)
    gone = f"; {plural(len(comparison.gone_findings), 'finding')} gone" if comparison.gone_findings else ""
    return f"{totals}: {worse or 'nothing got worse'}{gone}"


_SPECIAL: Final = re.compile(r"[\\`*_\[\]<>&|~$@]")


def _md(text: str) -> str:
    """*text* for Markdown, in one line, as text: also inside a table."""
    return _SPECIAL.sub(
        # An entity where a backslash does not do: between a table's cells, and before GitHub makes a mention of it.
        lambda found: f"&#{ord(found[0])};" if found[0] in "<>&|@" else "\\" + found[0],
        harmless(text),
    )


def _md_code(text: str) -> str:
    """*text* as inline code, whatever backticks are in it."""
    shown = harmless(text)
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    space = " " if shown.startswith("`") or shown.endswith("`") or (shown[:1] == shown[-1:] == " ") else ""
    return f"{fence}{space}{shown}{space}{fence}" if shown else _UNKNOWN


def _md_block(code: str, language: str = "") -> Iterator[str]:
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", code)), default=0) + 1)
    yield f"{fence}{language}"
    yield from (harmless(line) for line in code.expandtabs(4).splitlines())
    yield fence


def _md_table(titles: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int) -> Iterator[str]:
    """Numbers to the right; the last *text_columns* to the left. The cells are Markdown already."""
    yield "| " + " | ".join(titles) + " |"
    yield "|" + " ---: |" * (len(titles) - text_columns) + " --- |" * text_columns
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _md_place(site: Site | None) -> str:
    return _md(f"{site.file}:{site.line}") if site else _UNKNOWN


def _markdown(report: Report, top: int) -> Iterator[str]:
    yield "# sqlprobe report"
    yield ""
    yield f"**{_headline(report)}**" if report.statements else "**No statement was seen.**"
    context = _context(report)
    if context:
        yield ""
        yield _md(" · ".join(context))
    if not report.statements:
        yield ""
        yield "What to check:"
        yield ""
        yield from (f"- {check}" for check in _checks(report))
    if report.findings or report.statements:
        yield from _md_findings("Findings", report.findings, report)
    if report.statements:
        yield from _md_statements(report, top)
    if report.scopes:
        yield from _md_scopes(report, top)
    if report.faults:
        yield from ("", "## Faults of sqlprobe's own (the program was not affected)", "")
        for fault in report.faults:
            yield f"- {_md(fault.where)}: {_md(fault.error)}" + (f" ({fault.count:,} times)" if fault.count > 1 else "")
    if report.notes:
        yield from ("", "## Notes", "")
        yield from (f"- {_md(note)}" for note in report.notes)
    yield ""


def _md_findings(title: str, findings: Sequence[Finding], report: Report) -> Iterator[str]:
    yield from ("", f"## {title}: {_severities(findings) or 'none'}")
    lookup = _Lookup(report)
    for finding in findings:
        if finding.severity != "info":
            yield from _md_finding(finding, lookup)
    minor = [finding for finding in findings if finding.severity == "info"]
    if minor:
        yield ""
        yield from (_md_minor(finding) for finding in minor)


def _md_finding(finding: Finding, lookup: _Lookup) -> Iterator[str]:
    yield from ("", f"### {_md(finding.severity)}: {_md(finding.title)}", "")
    for label, place in (
        ("where", finding.site),
        ("caller", finding.site.caller if finding.site else None),
        ("origin", finding.origin),
    ):
        if place is not None:
            yield f"- {label}: {_md_code(str(place))}"
    if finding.scope:
        yield f"- scope: {_md(lookup.seen_in(finding))}"
    yield f"- cost: {_md(lookup.cost(finding))}"
    yield f"- rule: {_md_code(finding.rule)}" + (f", label: {_md_code(finding.label)}" if finding.label else "")
    statement = lookup.statement_of(finding)
    if statement is not None:
        yield f"- sql: {_md_code(statement.text or _named(statement))}"
    yield f"- fix: {_md(finding.advice)}"
    for number, fix in enumerate(finding.fixes):
        yield ""
        if number:
            yield from (f"{'and' if are_one_fix(finding) else 'or'} ({fix.kind}):", "")
        yield from _md_block(fix.code, {"create-index": "sql", "drop-index": "sql"}.get(fix.kind, "python"))
        if fix.alembic:
            yield from ("", "alembic:", "")
            yield from _md_block(fix.alembic, "python")
        if fix.sqlalchemy:
            yield from ("", "model:", "")
            yield from _md_block(fix.sqlalchemy, "python")
        proof = _proof(fix)
        if proof:
            yield from ("", f"proof: {_md(proof)}")


def _md_minor(finding: Finding) -> str:
    place = f" · {_md_code(f'{finding.site.file}:{finding.site.line}')}" if finding.site else ""
    return f"- {_md(finding.severity)}: {_md(finding.title)}{place}"


def _md_statements(report: Report, top: int) -> Iterator[str]:
    total = report.total_seconds
    several = len({statement.engine for statement in report.statements}) > 1
    shown = report.statements[:top]
    yield from ("", "## Statements by time in the database", "")
    yield from _md_table(
        ("time", "share", "calls", "mean", "p50≤", "p95≤", "rows/call", "statement", "where"),
        (
            (
                duration(each.seconds),
                _share(each.seconds, total).replace("<", "&lt;"),
                f"{each.calls:,}",
                _mean(each),
                duration(each.p50),
                duration(each.p95),
                _rows_each(each),
                _md(_named(each))
                + (f" ({_md(each.engine)})" if several and each.engine else "")
                + (f" — {_md(_errors(each))}" if each.errors else ""),
                _md_place(_site_of(each)),
            )
            for each in shown
        ),
        2,
    )
    if len(report.statements) > len(shown):
        yield from ("", _rest(report.statements[len(shown) :], "statement"))


def _md_scopes(report: Report, top: int) -> Iterator[str]:
    shown = report.scopes[:top]
    yield from ("", "## Scopes by time in the database", "")
    yield from _md_table(
        ("time", "wall", "scopes", "calls each", "p95≤", "distinct", "rows", "errors", "late", "kind", "scope"),
        (
            (
                duration(each.seconds),
                duration(each.wall_seconds),
                f"{each.count:,}",
                _per(each.calls, each.count),
                f"{each.p95_calls:,}",
                _per(each.distinct, each.count),
                _per(each.rows, each.count) if each.rows else _UNKNOWN,
                f"{each.errors:,}",
                f"{each.late:,}",
                _md(each.kind),
                _md(each.name),
            )
            for each in shown
        ),
        2,
    )
    if len(report.scopes) > len(shown):
        yield from ("", _rest(report.scopes[len(shown) :], "scope name"))


def _comparison_markdown(comparison: Comparison, top: int) -> Iterator[str]:
    yield from ("# sqlprobe comparison", "", f"**{_change_headline(comparison)}**")
    if comparison.new_findings:
        yield from _md_findings("New findings", comparison.new_findings, comparison.report)
    yield from _md_changes("Slower statements", comparison.slower, top)
    yield from _md_more_calls("More calls per scope", comparison.more_calls, top)
    yield from _md_names("New statements", comparison.new_statements, top)
    for title, findings in (
        ("Gone findings", comparison.gone_findings),
        ("Findings not checked: their scope did not run", comparison.unseen_findings),
    ):
        if findings:
            yield from ("", f"## {title}: {len(findings):,}", "")
            yield from (_md_minor(finding) for finding in findings)
    yield from _md_changes("Faster statements", comparison.faster, top)
    yield from _md_more_calls("Fewer calls per scope", comparison.fewer_calls, top)
    yield from _md_names("Gone statements", comparison.gone_statements, top)
    yield ""


def _md_changes(title: str, changes: Sequence[Change[StatementStats]], top: int) -> Iterator[str]:
    if not changes:
        return
    yield from ("", f"## {title}: {len(changes):,}", "")
    yield from _md_table(
        ("mean", "p95≤", "calls", "statement", "where"),
        (
            (
                f"{_mean(each.before)} → {_mean(each.after)}",
                f"{duration(each.before.p95)} → {duration(each.after.p95)}",
                f"{each.after.calls:,}",
                _md(_named(each.after)),
                _md_place(_site_of(each.after)),
            )
            for each in changes[:top]
        ),
        2,
    )


def _md_more_calls(title: str, changes: Sequence[Change[ScopeStats]], top: int) -> Iterator[str]:
    if not changes:
        return
    yield from ("", f"## {title}: {len(changes):,}", "")
    yield from _md_table(
        ("calls each", "p95≤", "scope"),
        (
            (
                f"{_calls(each.before)} → {_calls(each.after)}",
                f"{each.before.p95_calls:,} → {each.after.p95_calls:,}",
                _md(each.after.name),
            )
            for each in changes[:top]
        ),
        1,
    )


def _md_names(title: str, statements: Sequence[StatementStats], top: int) -> Iterator[str]:
    if not statements:
        return
    yield from ("", f"## {title}: {len(statements):,}", "")
    yield from _md_table(
        ("time", "calls", "statement", "where"),
        (
            (duration(each.seconds), f"{each.calls:,}", _md(_named(each)), _md_place(_site_of(each)))
            for each in statements[:top]
        ),
        2,
    )


def are_one_fix(finding: Finding) -> bool:
    """Whether the fixes of *finding* belong together, as the indexes for an OR; else each is one way to mend it."""
    return all(fix.kind == "create-index" for fix in finding.fixes) and "cost_after" in finding.evidence


def _pascal(rule: str) -> str:
    return "".join(part.capitalize() for part in re.split(r"\W+", rule))


def _sarif_result(finding: Finding, index: int) -> dict[str, Any]:
    said = [
        finding.title,
        *([f"Fix: {finding.advice}"] if finding.advice else []),
        *(fix.code for fix in finding.fixes),
    ]
    # [text](target) is a link in SARIF's messages, and {0} a placeholder; nothing else is escaped, for GitHub shows it.
    text = "\n".join(harmless(line) for line in "\n\n".join(said).splitlines())
    text = re.sub(r"\[(?=[^\[\]]*\]\()", r"\\[", text)
    text = re.sub(r"\{(\d+)\}", r"{{\1}}", text)
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": {"error": "error", "warning": "warning"}.get(finding.severity, "note"),
        "message": {"text": text},
        "partialFingerprints": {"sqlprobeKey/v1": finding.key, "sqlprobeScope/v1": finding.scope},
        "properties": {"count": finding.count, "seconds": finding.seconds, "occurrences": finding.occurrences},
    }
    site = finding.site or finding.origin
    if site is not None:
        result["locations"] = [_sarif_location(site)]
    elif finding.label or finding.scope:
        result["locations"] = [{"logicalLocations": [{"fullyQualifiedName": finding.label or finding.scope}]}]
    related = []
    if finding.site is not None and finding.site.caller is not None:
        related.append({"id": 1, "message": {"text": "called from here"}, **_sarif_location(finding.site.caller)})
    if finding.site is not None and finding.origin is not None:
        related.append({"id": 2, "message": {"text": "the query to change"}, **_sarif_location(finding.origin)})
    if related:
        result["relatedLocations"] = related
    return result


def _sarif_location(site: Site) -> dict[str, Any]:
    path = PurePath(site.file)
    uri = quote(path.as_posix(), errors="backslashreplace")
    place: dict[str, Any] = {"artifactLocation": {"uri": f"file://{uri}" if path.is_absolute() else uri}}
    if not path.is_absolute():
        place["artifactLocation"]["uriBaseId"] = "%SRCROOT%"
    if site.line > 0:
        place["region"] = {"startLine": site.line}
    return {"physicalLocation": place, "logicalLocations": [{"fullyQualifiedName": site.function}]}
