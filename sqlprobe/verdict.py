"""
What a failed check says: the verdict with its number, the culprit with its line and fix, the statements that ran.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlprobe import render

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlprobe.model import Execution, Finding, Site

MAX_ROWS: Final = 20  # of a listing; a failure is read on one screen
_STATEMENT: Final = 72  # columns of a statement


class CheckError(AssertionError):
    """A check of sqlprobe that failed: a budget, a gate, a scale test. The message is made to be read."""


CheckError.__module__ = "sqlprobe"  # where users find it: the name is in every failure


def told(finding: Finding) -> Iterator[str]:
    """*finding* in lines, one fact each: what happened, where, how often, what mends it."""
    yield render.harmless(finding.title)
    if finding.site is not None:
        yield f"  where:  {_place(finding.site)}"
        if finding.site.caller is not None:
            yield f"  called: {_place(finding.site.caller)}"
    if finding.origin is not None:
        yield f"  origin: {_place(finding.origin)}"
    yield f"  rule:   {finding.rule}" + (f"  label: {render.harmless(finding.label)}" if finding.label else "")
    yield f"  advice: {render.harmless(finding.advice)}"
    for fix in finding.fixes if render.are_one_fix(finding) else finding.fixes[:1]:
        yield from (f"    {line}" for line in fix.code.splitlines())
        if fix.kind == "create-index" and fix.sqlalchemy:
            yield f"    {fix.sqlalchemy}"


def listing(executions: Sequence[Execution], calls: int, seconds: float) -> Iterator[str]:
    """
    The statements that ran, those of one text and line in one row, in the order in which each came first.

    *calls* and *seconds* are the totals; *executions* may be the first of them only.
    """
    yield f"{render.plural(calls, 'statement')}, {render.duration(seconds)} in the database"
    rows: dict[tuple[str, str], list[Execution]] = {}
    for each in executions:
        rows.setdefault((each.fingerprint, _place(each.site) if each.site else ""), []).append(each)
    for (_, place), group in list(rows.items())[:MAX_ROWS]:
        took = render.duration(sum(each.seconds for each in group))
        text = render._cut_statement(render.harmless(group[0].text), _STATEMENT)  # noqa: SLF001 - the same package
        yield f"  {len(group):>5} \u00d7 {took:>8}  {text:<{_STATEMENT}}  {place}".rstrip()
    if len(rows) > MAX_ROWS:
        yield f"  ... and {render.plural(len(rows) - MAX_ROWS, 'more row')}"
    if calls > len(executions):
        yield f"  ... and {render.plural(calls - len(executions), 'more statement')}, which were only counted"


def culprits(executions: Iterable[Execution], findings: Sequence[Finding]) -> Iterator[str]:
    """The most likely cause of too many statements: the findings, or else what was repeated most."""
    if findings:
        for finding in findings[:3]:
            yield from told(finding)
            yield ""
        return
    repeated: dict[str, list[Execution]] = {}
    for each in executions:
        repeated.setdefault(each.fingerprint, []).append(each)
    most = max(repeated.values(), key=len, default=[])
    if len(most) > 1:
        yield f"{len(most)} \u00d7 {_short(most[0].text)}"
        if most[0].site is not None:
            yield f"  where:  {_place(most[0].site)}"
        yield ""


def indented(lines: Iterable[str]) -> str:
    """*lines* as the body of a message, below its verdict."""
    return "\n".join(f"  {line}".rstrip() for line in lines)


def _short(text: str) -> str:
    return render._cut_statement(render.harmless(text), _STATEMENT)  # noqa: SLF001 - the same package


def _place(site: Site) -> str:
    return render.harmless(str(site))
