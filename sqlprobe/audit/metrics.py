"""
Metrics of an audit: its counts, and how the indexes are used.

As text for node_exporter's textfile collector (`sqlprobe audit -o audit.prom`, from cron), or as families for a
registry (`sqlprobe_exporters.audit`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlprobe.audit.stock import Stock
    from sqlprobe.model import Finding

MAX_INDEXES: Final = 1_000  # two series each; the smallest are left out, which cost least


@dataclass(frozen=True, slots=True)
class Family:
    """A metric. `name` is that of its samples: a counter's ends with "_total"; `labels` names them in order."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()


_INDEX: Final = ("database", "schema", "table", "index")
FINDINGS: Final = Family(
    "sqlprobe_audit_findings", "gauge", "Findings of the last audit.", ("database", "rule", "severity")
)
TIMESTAMP: Final = Family(
    "sqlprobe_audit_timestamp_seconds", "gauge", "When the last audit ended, as Unix time.", ("database",)
)
SCANS: Final = Family(
    "sqlprobe_index_scans_total", "counter", "Scans of an index since the database's statistics were reset.", _INDEX
)
BYTES: Final = Family("sqlprobe_index_bytes", "gauge", "Size of an index.", _INDEX)
INDEXES: Final = Family(
    "sqlprobe_indexes", "gauge", "Indexes of the database, those without series of their own too.", ("database",)
)
AGE: Final = Family(
    "sqlprobe_statistics_age_seconds", "gauge", "How long the database has counted scans.", ("database",)
)
FAMILIES: Final = (FINDINGS, TIMESTAMP, SCANS, BYTES, INDEXES, AGE)


def samples(
    findings: Iterable[Finding], stock: Stock | None, ended: float
) -> Mapping[Family, Mapping[tuple[str, ...], float]]:
    """By family and by the values of its labels; *ended* is a Unix time. Without a stock, the label database is ""."""
    database = stock.database if stock is not None else ""
    counts = Counter((finding.rule, finding.severity) for finding in findings)
    found: dict[Family, dict[tuple[str, ...], float]] = {
        FINDINGS: {(database, *key): count for key, count in sorted(counts.items())},
        TIMESTAMP: {(database,): round(ended, 3)},
    }
    if stock is None:
        return found
    every = [(relation, index) for relation in stock.relations.values() for index in relation.indexes]
    biggest = sorted(every, key=lambda each: -each[1].bytes)[:MAX_INDEXES]
    named = sorted(((database, of.schema, of.name, each.name), each) for of, each in biggest)
    found[SCANS] = {labels: index.scans for labels, index in named if index.scans is not None}
    found[BYTES] = {labels: index.bytes for labels, index in named}
    found[INDEXES] = {(database,): len(every)}
    found[AGE] = {(database,): round(stock.days * 86_400)}
    return found


def text(findings: Iterable[Finding], stock: Stock | None, ended: float) -> str:
    """The metrics in Prometheus' text format; *ended* is a Unix time."""
    lines = []
    for family, values in samples(findings, stock, ended).items():
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        for labels, value in values.items():
            pairs = ",".join(f'{key}="{_escaped(given)}"' for key, given in zip(family.labels, labels, strict=True))
            lines.append(f"{family.name}{{{pairs}}} {value}")
    return "\n".join(lines) + "\n"


def _escaped(given: str) -> str:
    return given.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
