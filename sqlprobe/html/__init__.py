"""
A report as one HTML file: no network, no other file, readable without scripts, and from a disk as from a server.

The page is written whole by `page.html.jinja`; `page.js` adds sorting, search and copying and draws the long tables
from the report itself, which the page carries as packed JSON. A policy in the page allows these very scripts and
styles, by their hashes, and nothing else: text of the application cannot become code, whatever a browser makes of it.
"""

# ruff: noqa: SLF001 - the words of the other outputs, from the same package

from __future__ import annotations

import functools
import json
from base64 import b64encode
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from sqlprobe import render
from sqlprobe.html.pack import pack
from sqlprobe.html.plan import draw_plan
from sqlprobe.render import duration, harmless, plural, short_place
from sqlprobe.report import ReportError
from sqlprobe.stats import BOUNDS, BUCKETS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jinja2 import Environment

    from sqlprobe.model import Site, StatementStats, Step, Timeline
    from sqlprobe.report import Comparison, Report

ROWS: Final = 50  # of the tables as they are written; scripts draw all of them
CHANGES: Final = 500  # rows of a comparison's tables
TOP: Final = 8  # bars of the overview
SHORT: Final = 4_000  # characters of a statement, a fix or a plan that are shown where it is not asked for
LINE: Final = 2_000  # characters of any other text; a finding's advice has some hundred
NAME: Final = 300  # characters of a statement's or a file's name
MISSING: Final = (
    "HTML needs jinja2, which is not installed; install it: pip install 'sqlprobe[html]'; or use .json, .md or .sarif"
)

_LANGUAGES: Final = {"create-index": "sql", "drop-index": "sql"}
_KINDS: Final = {
    "loader-option": "Loader option",
    "create-index": "Create index",
    "drop-index": "Drop index",
    "rewrite": "Rewrite",
    "setting": "Setting",
}


@dataclass(frozen=True, slots=True)
class Tile:
    """A number of the overview, and what it is of."""

    value: str
    label: str
    more: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a chart: `share` (0 to 1) of the longest or of the whole."""

    label: str
    value: str
    share: float
    more: str = ""
    target: str = ""


def render_html(report: Report) -> str:
    """
    *report* as an HTML page.

    Raises:
        ReportError: jinja2 is not installed.
    """
    return _page(report, None)


def render_comparison_html(comparison: Comparison) -> str:
    """
    The later report of *comparison* as an HTML page that begins with what changed.

    Raises:
        ReportError: jinja2 is not installed.
    """
    return _page(comparison.report, comparison)


def code(text: str, limit: int = SHORT) -> str:
    """*text* in its lines, harmless; how many characters there are beyond *limit* stands in their place."""
    shown = "\n".join(harmless(line) for line in text[:limit].expandtabs(4).splitlines())
    return shown + (f" … and {len(text) - limit:,} characters more" if len(text) > limit else "")


def line(text: str, limit: int = LINE) -> str:
    """*text* in one line, harmless, its middle left out where it is long."""
    half = limit // 2
    return harmless(text if len(text) <= limit else f"{text[:half]}…{text[-half:]}")


def _page(report: Report, comparison: Comparison | None) -> str:
    try:
        environment = _environment()
    except ImportError as error:
        raise ReportError(f"the report cannot be shown as HTML: {MISSING}") from error
    script, style = _part("page.js"), _part("page.css")
    lookup = render._Lookup(report)
    statements = {(each.fingerprint, each.engine): number for number, each in enumerate(report.statements)}
    for number, each in enumerate(report.statements):
        statements.setdefault((each.fingerprint, ""), number)
    return environment.get_template("page.html.jinja").render(
        report=report,
        comparison=comparison,
        changes=_changes(comparison) if comparison else (),
        change_headline=render._change_headline(comparison) if comparison else "",
        lookup=lookup,
        number_of=statements.get,
        index_of={(each.key, each.scope): number for number, each in enumerate(report.findings)}.get,
        headline=render._headline(report),
        context=[line(said) for said in render._context(report)],
        checks=render._checks(report),
        severities=render._severities(report.findings),
        tiles=_tiles(report),
        statement_bars=_statement_bars(report),
        scope_bars=_scope_bars(report),
        latency=_latency(report.statements),
        timelines=[_timeline(each, statements, report) for each in report.timelines],
        rows=ROWS,
        settings=_settings(report.settings),
        script=_markup(script),
        style=_markup(style),
        policy=_policy(script, style),
        data=_markup(_data(report)),
        bounds=_markup(json.dumps(BOUNDS)),
        title=_title(report, comparison),
    )


def _markup(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - our own files, hashes of them, and JSON without < > &


@functools.cache
def _part(name: str) -> str:
    return resources.files("sqlprobe.html").joinpath(name).read_text("utf-8")


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def shown(value: object) -> object:
        # Everything that an expression yields passes here, before it is escaped: no text can be forgotten.
        return line(value) if type(value) is str else value

    environment = Environment(
        autoescape=True,
        loader=FunctionLoader(_part),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=shown,
    )
    environment.filters.update(
        code=_code,
        duration=duration,
        place=lambda site, width=60: short_place(_cut_site(site), width, function=False),
        time=_time,
        number=lambda value: f"{value:,}",
        percent=_percent,
    )
    environment.globals.update(
        are_one_fix=render.are_one_fix,
        bounds_label=_bound,
        calls_each=render._calls,
        draw_plan=draw_plan,
        errors=render._errors,
        kinds=_KINDS,
        language=lambda fix: _LANGUAGES.get(fix.kind, "python"),
        mean=render._mean,
        named=lambda statement: line(render._named(statement), NAME),
        per=render._per,
        plural=plural,
        proof=render._proof,
        rows_each=render._rows_each,
        share=render._share,
        short=SHORT,
        site_of=render._site_of,
        told=_told,
    )
    return environment


def _code(text: str) -> Any:
    from markupsafe import escape

    return escape(code(text))


def _cut_site(site: Site) -> Site:
    return site if len(site.file) <= NAME else replace(site, file=line(site.file, NAME))


def _data(report: Report) -> str:
    """The report, packed, for a script element: what ends one, or begins a comment in it, is written as an escape."""
    return pack(report).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _policy(script: str, style: str) -> str:
    scripts, styles = (b64encode(sha256(text.encode()).digest()).decode() for text in (script, style))
    return (
        f"default-src 'none'; script-src 'sha256-{scripts}'; style-src 'sha256-{styles}'; "
        "img-src data:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _title(report: Report, comparison: Comparison | None) -> str:
    what = "comparison" if comparison else "report"
    commands = [process.command for process in report.processes if process.command]
    return f"sqlprobe {what}" + (f" · {line(commands[0].rpartition('/')[2], 60)}" if commands else "")


def _tiles(report: Report) -> list[Tile]:
    worst = report.findings[0].severity if report.findings else "good"
    wall = sum(scope.wall_seconds for scope in report.scopes)
    in_scopes = sum(scope.seconds for scope in report.scopes)
    scopes = sum(scope.count for scope in report.scopes)
    failed = sum(sum(each.errors.values()) for each in report.statements)
    tiles = [
        Tile(f"{len(report.findings):,}", "findings", render._severities(report.findings) or "none", worst),
        Tile(duration(report.total_seconds), "in the database", _share_of_wall(in_scopes, wall)),
        Tile(f"{report.total_calls:,}", "calls", f"of {plural(len(report.statements), 'statement')}"),
    ]
    if scopes:
        calls = sum(scope.calls for scope in report.scopes)
        tiles.append(Tile(f"{scopes:,}", "scopes", f"{render._per(calls, scopes)} calls each"))
    if failed:
        tiles.append(Tile(f"{failed:,}", "failed calls", render._share(failed, report.total_calls), "error"))
    return tiles


def _share_of_wall(seconds: float, wall: float) -> str:
    """Of statements that ran one after the other; nested and concurrent ones are more than the time that passed."""
    return f"{render._share(seconds, wall)} of the scopes' time" if 0 < seconds <= wall else ""


def _statement_bars(report: Report) -> list[Bar]:
    total = report.total_seconds
    if not total:
        return []
    bars = []
    for number, each in enumerate(report.statements[:TOP]):
        site = render._site_of(each)
        more = f"{plural(each.calls, 'call')}" + (f" · {short_place(_cut_site(site), 48)}" if site else "")
        value = f"{duration(each.seconds)} · {render._share(each.seconds, total)}"
        bars.append(Bar(line(render._named(each), 120), value, each.seconds / total, more, f"statement-{number}"))
    rest = report.statements[TOP:]
    seconds = sum(each.seconds for each in rest)
    if rest:
        value = f"{duration(seconds)} · {render._share(seconds, total)}"
        bars.append(Bar(plural(len(rest), "other statement"), value, seconds / total, "", "statements"))
    return bars


def _scope_bars(report: Report) -> list[Bar]:
    most = max((scope.seconds for scope in report.scopes), default=0.0) or 1.0
    return [
        Bar(
            line(scope.name, 120) or "(no name)",
            f"{duration(scope.seconds)}",
            scope.seconds / most,
            f"{scope.count:,} scopes, {render._per(scope.calls, scope.count)} calls each",
            "scopes",
        )
        for scope in report.scopes[:TOP]
    ]


def _latency(statements: Sequence[StatementStats]) -> list[Bar]:
    """How many calls of all statements took how long; without the empty buckets at both ends."""
    counts = [0] * BUCKETS
    for each in statements:
        for index, count in enumerate(each.histogram[:BUCKETS]):
            counts[index] += count
    filled = [index for index, count in enumerate(counts) if count]
    if not filled:
        return []
    total, most = sum(counts), max(counts)
    return [
        Bar(_bound(index), f"{counts[index]:,}", counts[index] / most, render._share(counts[index], total))
        for index in range(filled[0], filled[-1] + 1)
    ]


def _bound(index: int) -> str:
    """`≤ 2.5 ms`, of a histogram's bucket."""
    return f"≤ {duration(BOUNDS[index])}" if index < len(BOUNDS) else f"> {duration(BOUNDS[-1])}"


def _timeline(timeline: Timeline, statements: Mapping[tuple[str, str], int], report: Report) -> dict[str, Any]:
    end = max([timeline.wall_seconds, *(step.started + step.seconds for step in timeline.steps)]) or 1.0
    return {
        "timeline": timeline,
        "end": end,
        "ticks": [(part / 4, duration(end * part / 4) if part else "0") for part in range(5)],
        "steps": [_step(step, end, statements.get((step.fingerprint, step.engine)), report) for step in timeline.steps],
    }


def _step(step: Step, end: float, number: int | None, report: Report) -> dict[str, Any]:
    left = min(step.started / end, 1.0)
    width = min(step.seconds / end, 1.0 - left)
    statement = None if number is None else report.statements[number]
    name = render._named(statement) if statement else step.fingerprint
    return {
        "step": step,
        "name": line(step.relationship or name, 120),
        "summary": line(name, 120) if step.relationship else "",
        "target": "" if number is None else f"statement-{number}",
        "left": f"{100 * left:.3f}%",
        "width": f"{max(100 * width, 0.15):.3f}%",
        "busy": min(step.busy_seconds / step.seconds, 1.0) if step.seconds else 1.0,
    }


def _changes(comparison: Comparison) -> list[dict[str, Any]]:
    """The sections of a comparison, what got worse first; those with nothing in them left out."""
    sections: list[dict[str, Any]] = [
        {"title": "New findings", "kind": "findings", "tone": "worse", "items": comparison.new_findings},
        {"title": "Slower statements", "kind": "statements", "tone": "worse", "items": comparison.slower},
        {"title": "More calls per scope", "kind": "scopes", "tone": "worse", "items": comparison.more_calls},
        {"title": "Gone findings", "kind": "findings", "tone": "better", "items": comparison.gone_findings},
        {"title": "Faster statements", "kind": "statements", "tone": "better", "items": comparison.faster},
        {"title": "Fewer calls per scope", "kind": "scopes", "tone": "better", "items": comparison.fewer_calls},
        {
            "title": "Findings not checked: their scope did not run",
            "kind": "findings",
            "tone": "",
            "items": comparison.unseen_findings,
        },
        {"title": "New statements", "kind": "names", "tone": "", "items": comparison.new_statements},
        {"title": "Gone statements", "kind": "names", "tone": "", "items": comparison.gone_statements},
    ]
    return [
        {**section, "shown": section["items"][:CHANGES], "more": max(0, len(section["items"]) - CHANGES)}
        for section in sections
        if section["items"]
    ]


def _settings(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, value if isinstance(value, str) else json.dumps(value, default=str)) for name, value in settings.items()
    ]


def _told(name: str, value: float | str) -> tuple[str, str]:
    """A finding's evidence as a person would say it: seconds as a duration, a share as percent."""
    words = name.replace("_", " ")
    if isinstance(value, int | float) and not isinstance(value, bool):
        if name == "seconds" or name.endswith("_seconds"):
            return words.removesuffix(" seconds"), duration(value) if value >= 0 else render._evidence(value)
        if name.startswith("share_") and 0 <= value <= 1:
            return words, render._share(value, 1.0)
    return words, render._evidence(value)


def _percent(value: float) -> str:
    """For an attribute of a drawing."""
    return f"{100 * max(0.0, min(1.0, value)):.2f}%"


def _time(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC" if seconds else "—"
    except (OverflowError, ValueError, OSError):  # a clock that is off by millennia
        return "—"
