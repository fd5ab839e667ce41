"""
Metrics of an audit: its counts, and how the indexes are used, as text for Prometheus.

Written to a file for node_exporter's textfile collector (`sqlprobe audit -o audit.prom`, from cron), for an audit is no
part of the application's process.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlprobe.audit.stock import Stock
    from sqlprobe.model import Finding


def text(findings: Iterable[Finding], stock: Stock | None, ended: float) -> str:
    """The metrics in Prometheus' text format; *ended* is a Unix time."""
    return "\n".join(_lines(list(findings), stock, ended)) + "\n"


def _lines(findings: list[Finding], stock: Stock | None, ended: float) -> Iterator[str]:
    yield from _head("sqlprobe_audit_findings", "gauge", "Findings of the last audit.")
    counts = Counter((finding.rule, finding.severity) for finding in findings)
    for (rule, severity), count in sorted(counts.items()):
        yield _sample("sqlprobe_audit_findings", count, rule=rule, severity=severity)
    yield from _head("sqlprobe_audit_timestamp_seconds", "gauge", "When the last audit ended, as Unix time.")
    yield f"sqlprobe_audit_timestamp_seconds {ended:.3f}"
    if stock is None:
        return
    indexes = [
        (relation, index)
        for relation in sorted(stock.relations.values(), key=lambda each: (each.schema, each.name))
        for index in relation.indexes
    ]
    yield from _head("sqlprobe_index_scans_total", "counter", "Scans of an index since statistics were reset.")
    for relation, index in indexes:
        if index.scans is not None:
            yield _sample("sqlprobe_index_scans_total", index.scans, **_named(relation, index))
    yield from _head("sqlprobe_index_bytes", "gauge", "Size of an index.")
    for relation, index in indexes:
        yield _sample("sqlprobe_index_bytes", index.bytes, **_named(relation, index))
    yield from _head("sqlprobe_statistics_age_seconds", "gauge", "How long the database has counted scans.")
    yield f"sqlprobe_statistics_age_seconds {stock.days * 86_400:.0f}"


def _named(relation: object, index: object) -> dict[str, str]:
    return {
        "schema": str(getattr(relation, "schema", "")),
        "table": str(getattr(relation, "name", "")),
        "index": str(getattr(index, "name", "")),
    }


def _head(name: str, kind: str, what: str) -> Iterator[str]:
    yield f"# HELP {name} {what}"
    yield f"# TYPE {name} {kind}"


def _sample(name: str, value: float, **labels: str) -> str:
    pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{pairs}}} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
