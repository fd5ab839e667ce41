"""
Before and after: the indexes of a report that were proven, and what the same load took without and with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

    from sqlprobe import Finding, Report

SHOWN: Final = 12  # statements, those that took most time before


def statements(report: Report) -> list[str]:
    """The DDL of each index that a finding of *report* proves, once."""
    return list(dict.fromkeys(code for finding in report.findings for code in statements_of(finding)))


def statements_of(finding: Finding) -> list[str]:
    """Those that *finding* proves."""
    return [fix.code for fix in finding.fixes if fix.kind == "create-index" and fix.verified is not None]


def show(created: list[str], before: Report, after: Report, console: Console) -> None:
    """Print the indexes, the statements they are for and those that took most time, and the whole."""
    console.print()
    console.print(Text(f"{len(created)} indexes were created:", "bold"))
    for each in created:
        console.print(Text(f"  {each}", "green"), soft_wrap=True)
    later = {statement.fingerprint: statement for statement in after.statements}
    table = Table("statement", "calls", "before, ms a call", "after", "times faster", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    served = {finding.fingerprint for finding in before.findings if statements_of(finding)}
    order = sorted(before.statements, key=lambda each: (each.fingerprint not in served, -each.seconds))
    for statement in order[:SHOWN]:
        now = later.get(statement.fingerprint)
        if now is None:
            continue
        was, is_now = (each.seconds / each.calls * 1e3 for each in (statement, now))
        table.add_row(
            f"{statement.summary} [{statement.fingerprint[:8]}]",
            f"{statement.calls:,}",
            f"{was:,.2f}",
            f"{is_now:,.2f}",
            f"{was / is_now:,.1f}" if is_now else "",
        )
    console.print(table)
    was, is_now = (sum(each.seconds for each in report.statements) for report in (before, after))
    planned = [sum("plan" in finding.evidence for finding in report.findings) for report in (before, after)]
    console.print(
        Text(
            f"database time of the load: {was:,.2f} s before, {is_now:,.2f} s after"
            + (f" ({was / is_now:,.1f} times less)" if 0 < is_now < was else "")
            + f"; findings on plans: {planned[0]} before, {planned[1]} after",
            "bold",
        ),
        soft_wrap=True,
    )
