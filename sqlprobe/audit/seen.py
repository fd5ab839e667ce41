"""
Seen: what a run-time report tells about models, tables and relationships, for an audit to weigh its findings with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlprobe.report import Report

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.model import Finding, StatementStats

# What the rules for plans say of a schema. An audit that is given a report passes it on.
PASSED_ON: Final = frozenset({
    "missing-index", "missing-partial-index", "missing-jsonb-index", "missing-text-index", "missing-vector-index",
    "vector-operator-mismatch", "vector-unusable-form", "vector-overfiltering",
})  # fmt: skip
_LOADS: Final = frozenset({"n-plus-one"})


class Seen:
    """
    What ran. Without a report (`is_empty`) nothing is known, which is not the same as that nothing ran.

    Tables are found by `schema.name` or by `name` alone: a report has them as the statements spelt them.
    """

    def __init__(self, report: Report | None = None) -> None:
        self.is_empty = report is None or not (report.statements or report.findings)
        self.report = report if report is not None else Report()
        self._loads: dict[str, list[Finding]] = {}
        for finding in self.report.findings:
            if finding.rule in _LOADS:
                for label in finding.label.split():
                    self._loads.setdefault(label, []).append(finding)
        self._statements: dict[str, list[StatementStats]] = {}
        for statement in self.report.statements:
            for table in statement.tables:
                self._statements.setdefault(_bare(table), []).append(statement)

    def loads(self, label: str) -> list[Finding]:
        """The findings that say that the relationship *label* was loaded row by row, the costliest first."""
        return sorted(self._loads.get(label, ()), key=lambda each: -each.seconds)

    def statements(self, table: str, schema: str | None = None, *operations: str) -> list[StatementStats]:
        """Those that name the table, of *operations* (all, if none is given)."""
        wanted = _bare(table)
        return [
            each
            for each in self._statements.get(wanted, ())
            if (not operations or each.operation in operations) and _names(each.tables, wanted, schema)
        ]

    def passed_on(self) -> Iterable[Finding]:
        return (finding for finding in self.report.findings if finding.rule in PASSED_ON)


def _bare(table: str) -> str:
    return table.rpartition(".")[2].strip('"')


def _names(tables: Iterable[str], wanted: str, schema: str | None) -> bool:
    for table in tables:
        before, _, name = table.rpartition(".")
        if name.strip('"') == wanted and (not schema or not before or before.strip('"') == schema):
            return True
    return False


def cost(statements: Iterable[StatementStats]) -> tuple[int, float]:
    """Calls and seconds of *statements*."""
    found = list(statements)
    return sum(each.calls for each in found), sum(each.seconds for each in found)
