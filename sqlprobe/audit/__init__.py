"""
The audit: models, catalog and migrations, read as a reviewer reads them, and weighed by what was seen at run time.

`mapping` reads models, `catalog` a database's (through `stock`, which reads it once), `drift` compares the two,
`migrations` an Alembic directory. Each says what it found as findings; `audit()` makes one report of them.
"""

from __future__ import annotations

import dataclasses
import platform
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy

from sqlprobe import __version__, ignores
from sqlprobe.audit import catalog, drift, mapping, migrations, stock
from sqlprobe.audit.mapping import Models
from sqlprobe.audit.metrics import samples
from sqlprobe.audit.options import Options
from sqlprobe.audit.seen import Seen
from sqlprobe.report import Report
from sqlprobe.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy import URL, Engine

    from sqlprobe.audit.migrations import History
    from sqlprobe.audit.stock import Stock
    from sqlprobe.model import Finding

__all__ = ["PAGES", "RULES", "Models", "Options", "audit", "read", "samples"]

# Of each rule, the check whose docstring is its page.
PAGES: Final[dict[str, Callable[..., Any]]] = {
    **{rule: each for rule, each in migrations.CHECKS.items() if rule not in mapping.CHECKS},
    **{rule: each for rule, each in catalog.CHECKS.items() if rule not in mapping.CHECKS},
    **mapping.CHECKS,
    drift.RULE: drift.check,
}
PAGES.pop("vector-index-parameters")  # a rule for plans tells it
RULES: Final = frozenset({*mapping.CHECKS, *catalog.CHECKS, *migrations.CHECKS, drift.RULE})


def read(engine: Engine | Any) -> Stock:
    """
    The catalog of a PostgreSQL database, over a connection that cannot write. An AsyncEngine does as well.

    Raises:
        Refused: the server did not answer, or is not PostgreSQL.
    """
    return stock.read(getattr(engine, "sync_engine", engine))


def audit(
    models: Models | None = None,
    *,
    catalog_of: Stock | None = None,
    compare_with: URL | None = None,
    history: History | None = None,
    report: Report | None = None,
    options: Options | None = None,
    settings: Settings | None = None,
) -> Report:
    """
    What is wrong with *models*, the database that *catalog_of* was read from, and the migrations of *history*.

    *compare_with* is the database to compare the models with, if Alembic is installed. *report*, of a run, weighs the
    findings. Findings that the *settings* ignore are left out.

    Raises:
        DriftError: the comparison failed.
    """
    options = options or Options()
    settings = settings or Settings()
    options = dataclasses.replace(options, disabled=options.disabled | set(settings.disabled_rules))
    models = models or Models(())
    seen = Seen(report)
    started = time.time()
    known = _CATALOG_KNOWS if catalog_of is not None else frozenset()
    findings = mapping.check(models, seen, dataclasses.replace(options, disabled=options.disabled | known))
    notes: list[str] = []
    if catalog_of is not None:
        matter = catalog.Matter(catalog_of, models, seen, options)
        findings = _told_once(findings, catalog.check(matter))
        notes += catalog.notes(matter)
    if compare_with is not None and models.tables and options.wants(drift.RULE):
        if drift.is_available():
            findings = _not_twice([*findings, *drift.check(models, compare_with)])
        else:
            notes.append("schema-drift: Alembic is not installed, so models and database were not compared")
    if history is not None:
        findings += migrations.check(history, models, options)
        notes += history.notes
    findings += [finding for finding in seen.passed_on() if options.wants(finding.rule)]
    ended = time.time()
    kept = ignores.told(findings, settings.ignores) if settings.ignores else findings
    return Report(
        findings=tuple(
            finding if finding.last_seen else dataclasses.replace(finding, first_seen=ended, last_seen=ended)
            for finding in kept
        ),
        settings=settings.as_json(),
        started=started,
        ended=ended,
        versions=_versions(),
        release=settings.release,
        notes=(*_looked_at(models, history), *notes),
    )


# What the catalog knows better than the models, about the tables that both have.
_CATALOG_KNOWS: Final = frozenset({"redundant-index", "over-indexed-table", "unindexed-foreign-key"})


def _told_once(of_models: list[Finding], of_catalog: list[Finding]) -> list[Finding]:
    unused = {finding.label.rpartition(".")[2] for finding in of_catalog if finding.rule == "unused-index"}
    kept = of_models.copy()
    for finding in of_catalog:
        # Of two indexes that do the same, one has to stay.
        if finding.rule == "redundant-index" and (
            finding.label.rpartition(".")[2] in unused or finding.evidence["other"] in unused
        ):
            continue
        kept.append(finding)
    return kept


def _not_twice(findings: Iterable[Finding]) -> list[Finding]:
    every = list(findings)
    vectors = {finding.label for finding in every if finding.rule == "vector-dimensions"}
    return [finding for finding in every if finding.rule != drift.RULE or finding.label not in vectors]


def _looked_at(models: Models, history: History | None) -> list[str]:
    said = []
    if models.metadatas:
        said.append(f"models: {len(models.tables)} tables, {len(models.relationships)} relationships")
    if history is not None:
        said.append(f"migrations: {len(history.migrations)} in {history.folder.name}")
    return said


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "sqlalchemy": sqlalchemy.__version__,
        "sqlprobe": __version__,
        **({"alembic": sys.modules["alembic"].__version__} if "alembic" in sys.modules else {}),
    }
