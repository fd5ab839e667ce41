"""
`sqlprobe explain`: the plans of statements, from the command line, standard input or a saved report, and what is wrong
with them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from sqlprobe.fingerprint import shape_of
from sqlprobe.model import SqlprobeError
from sqlprobe.plans import plan as plans
from sqlprobe.plans.examine import Examiner, Question
from sqlprobe.plans.explain import split
from sqlprobe.plans.sampling import Sample
from sqlprobe.report import Report
from sqlprobe.stats import statement_stats

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console
    from sqlalchemy import URL, Engine

    from sqlprobe.advice.snapshot import Snapshot
    from sqlprobe.model import Finding, StatementStats
    from sqlprobe.plans.examine import Answer
    from sqlprobe.settings import Settings

STDIN: Final = "-"
TOP: Final = 20  # statements of a report that are asked about: those that took most time
DRIVERS: Final = ("psycopg", "asyncpg", "psycopg2", "pg8000")
_AWAY: Final = frozenset({"unavailable", "unsupported"})
_CUT: Final = "…"
_QUOTED: Final = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*.*?\*/", re.DOTALL)
_PLACEHOLDER: Final = re.compile(r"(?<![\w$])\$\d+\b")
_OPERAND_FOLLOWS: Final = re.compile(r"[|&]?\s+(?:\?|\(|ARRAY\b)")


class ExplainError(SqlprobeError, ValueError):
    """What was to be explained cannot be: the message says what was asked, found, and what to do."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answers, in order, and a report: the one that was given, or a new one, with the findings."""

    answers: tuple[Answer, ...]
    report: Report


def explain(
    url: str,
    sources: Sequence[str],
    settings: Settings,
    *,
    analyze: bool = False,
    given: Sequence[tuple[str, str]] = (),
    top: int = TOP,
    stats: Snapshot | None = None,
) -> Explanation:
    """
    Explain *sources* on the database at *url*: files of reports (.json) or of SQL (.sql), "-" for standard input, or
    statements themselves. *given* are settings (search_path, role, enable_seqscan) that they are planned with.

    With *stats* they are planned in a lab made of that snapshot, and the indexes that would help are among the
    findings; *url* may then be "", and names a database whose own indexes count too.

    Raises:
        ExplainError: *url* is none of a PostgreSQL, its driver is missing, or there is nothing to explain.
        LabError: a lab cannot be had.
        ReportError: a report cannot be read.
    """
    engine = _engine(url or (f"postgresql+{_driver()}://" if stats is not None else ""))
    questions: list[Question] = []
    reports: list[Report] = []
    before = tuple((f"SELECT set_config({_literal(name)}, {_literal(value)}, true)", None) for name, value in given)
    for source in sources:
        if source.endswith(".json"):
            report = Report.read(source)
            reports.append(report)
            questions += _of_report(report, before, top)
        else:
            questions += [_of_text(text, before) for text in split(_text(source))]
    if not questions:
        raise ExplainError(
            "explain: no statement was found in what was given; give SQL, a .sql file, a report's .json, or - for "
            "standard input"
        )
    if stats is not None:
        from sqlprobe.advice.whatif import WhatIf

        with contextlib.closing(WhatIf(stats, settings, timed=True)) as production:
            answers = production.ask(engine, questions, reachable=bool(url))
    else:
        answers = Examiner(settings).examine(engine, questions, analyze=analyze)
    # With a lab only what is accused is looked for on the database itself.
    away = next((each.refused for each in answers if each.refused is not None and each.refused.reason in _AWAY), None)
    if away is not None and (stats is not None or answers[0].refused is away):
        shown = engine.url.render_as_string(hide_password=True)
        without = "; leave --url away to plan without it" if stats is not None else ""
        raise ExplainError(f"explain --url {shown}: {away}{without}")
    return Explanation(tuple(answers), _report(reports, answers, settings))


def show(explanation: Explanation, console: Console) -> None:
    """Print each plan with what is wrong with it."""
    from rich.text import Text

    from sqlprobe.render import harmless

    styles = {"error": "bold red", "warning": "bold yellow", "info": "bold blue"}
    for number, answer in enumerate(explanation.answers, 1):
        statement = answer.question.statement
        text = statement.text if statement is not None else shape_of(answer.question.sample.text).text
        lines = [Text(f"{number}. {harmless(text)[:300]}", "bold")]
        if answer.plan is None:
            lines.append(Text(f"   no plan: {answer.refused}", "red"))
        else:
            lines += [Text(f"   {harmless(line)}") for line in plans.render(answer.plan).splitlines()]
            lines += [Text(f"   note: {note}") for note in answer.notes]
        for finding in answer.findings:
            lines.append(Text.assemble((f"   {finding.severity} ", styles[finding.severity]), harmless(finding.title)))
            lines.append(Text(f"     advice: {harmless(finding.advice)}"))
            lines.append(Text(f"     rule:   {finding.rule}"))
            lines += [Text(f"       {harmless(fix.code)}", "green") for fix in finding.fixes if fix.code]
        if answer.plan is not None and not answer.findings:
            lines.append(Text("   nothing is wrong with it", "green"))
        for line in lines:
            console.print(line, soft_wrap=True)
        console.print()


def _engine(url: str) -> Engine:
    try:
        parsed: URL = sa.make_url(url)
        dialect = parsed.get_dialect()
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as error:
        raise ExplainError(
            f"explain --url: {type(error).__name__}; a URL of SQLAlchemy is needed, such as "
            "postgresql+psycopg://user@host/database"
        ) from None
    if dialect.name != "postgresql":
        raise ExplainError(f"explain --url: found {dialect.name}; plans are read from PostgreSQL only")
    try:
        if getattr(dialect, "is_async", False):
            from sqlalchemy.ext.asyncio import create_async_engine

            return create_async_engine(parsed).sync_engine
        return sa.create_engine(parsed)
    except ImportError as error:
        raise ExplainError(
            f"explain --url {parsed.render_as_string(hide_password=True)}: its driver is missing ({error}); install "
            "it, or name another: postgresql+psycopg://…, postgresql+asyncpg://…"
        ) from None


def _driver() -> str:
    """One that is installed, to reach a lab."""
    found = next((name for name in DRIVERS if importlib.util.find_spec(name)), None)
    if found is None:
        raise ExplainError(f"explain --stats: none of {', '.join(DRIVERS)} is installed; pip install psycopg")
    return found


def _text(source: str) -> str:
    if source == STDIN:
        return sys.stdin.read()
    if source.endswith(".sql"):
        try:
            return Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = type(error).__name__
            raise ExplainError(f"explain {source}: cannot be read ({reason}); name a file of SQL") from None
    return source


def _of_text(text: str, before: tuple[tuple[str, Any], ...]) -> Question:
    # As pg_stat_statements has it, without its values.
    generic = _PLACEHOLDER.search(_QUOTED.sub("''", text)) is not None
    return Question(shape_of(text).fingerprint, "", Sample(text, None, settings=before, generic=generic))


def _of_report(report: Report, before: tuple[tuple[str, Any], ...], top: int) -> Iterable[Question]:
    asked = [each for each in report.statements if each.operation in {"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE"}]
    for statement in asked[:top]:
        text = statement.text
        if not text or text.endswith(_CUT):
            continue
        generic = "?" in text
        yield Question(
            statement.fingerprint,
            statement.engine,
            Sample(numbered(text) if generic else text, None, settings=before, generic=generic),
            statement,
        )


def numbered(text: str) -> str:
    """*text*, a normalised statement, with `$1`, `$2` … for its `?`; an operator `?` of JSONB stays."""
    number = 0

    def written(match: re.Match[str]) -> str:
        nonlocal number
        before = text[: match.start()].rstrip()
        is_operand = before[-1:].isalnum() or before[-1:] in {")", "]", '"'}
        if is_operand and not _is_keyword(before) and _OPERAND_FOLLOWS.match(text, match.end()):
            return "?"
        number += 1
        return f"${number}"

    return re.sub(r"\?", written, text)


def _is_keyword(before: str) -> bool:
    words = before.split()
    return bool(words) and words[-1].upper() in {
        "AND", "ANY", "BETWEEN", "BY", "CASE", "ELSE", "FROM", "ILIKE", "IN", "LIKE", "LIMIT", "NOT", "OFFSET", "OR",
        "SELECT", "SET", "THEN", "VALUES", "WHEN", "WHERE",
    }  # fmt: skip


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _report(reports: list[Report], answers: Iterable[Answer], settings: Settings) -> Report:
    findings: list[Finding] = []
    notes: list[str] = []
    statements: dict[str, StatementStats] = {}
    for answer in answers:
        findings += answer.findings
        known = answer.question.statement
        if known is None:
            statements[answer.question.fingerprint] = _unseen(answer.question.sample.text)
        if answer.refused is not None:
            shape = shape_of(answer.question.sample.text)
            notes.append(f"{shape.summary or 'a statement'} has no plan here: {answer.refused}")
    base = Report.merge(*reports) if reports else Report(settings=settings.as_json())
    return dataclasses.replace(
        base,
        findings=(*base.findings, *findings),
        statements=(*base.statements, *(() if settings.redact == "text" else statements.values())),
        notes=(*base.notes, *notes),
    )


def _unseen(text: str) -> StatementStats:
    """A statement that nobody has seen running."""
    shape = shape_of(text)
    return statement_stats(
        fingerprint=shape.fingerprint,
        text=shape.text,
        summary=shape.summary,
        operation=shape.operation,
        tables=shape.tables,
        engine="",
        errors={},
        rows=None,
        parameter_sets=0,
        pages=0,
        seconds=0.0,
        min=0.0,
        max=0.0,
        first_seen=0.0,
        last_seen=0.0,
        sites=(),
        slowest=None,
        histogram=(),
    )
