"""
The command `sqlprobe audit`: what is asked for, gathered and put together.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlprobe import audit
from sqlprobe.audit import mapping, metrics, migrations, stock
from sqlprobe.audit.options import Options
from sqlprobe.audit.seen import PASSED_ON
from sqlprobe.baseline import Baseline
from sqlprobe.ignores import load_ignores
from sqlprobe.model import SqlprobeError
from sqlprobe.plans.explain import Refused
from sqlprobe.report import Report

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from sqlalchemy import URL

    from sqlprobe.audit.stock import Stock
    from sqlprobe.settings import Settings

SUFFIX: Final = ".prom"
RULES: Final = frozenset({*audit.RULES, *PASSED_ON})


class AuditError(SqlprobeError, ValueError):
    """The command was asked for something that cannot be: the message says what, what was found, what to do."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for."""

    models: tuple[str, ...]
    database: str | None
    stats: str | None
    save_stats: str | None
    migrations: str | None
    report: str | None
    ignore_file: str | None
    baseline: str | None
    update_baseline: bool
    compare: bool
    options: Options

    @classmethod
    def of(cls, given: argparse.Namespace) -> Asked:
        """
        The command line as it was parsed.

        Raises:
            AuditError: nothing is to be looked at, or two arguments do not go together.
        """
        if not (given.models or given.url or given.stats or given.migrations):
            raise AuditError(
                "audit: something to look at is needed, found nothing; name models (shop.models:Base), --url URL, "
                "--stats FILE or --migrations DIR"
            )
        if given.url and given.stats:
            raise AuditError("audit: --url and --stats are two sources of one thing; leave one out")
        if given.save_stats and not given.url:
            raise AuditError("audit: --save-stats keeps what --url is asked for; name a database")
        if given.update_baseline and not given.baseline:
            raise AuditError("audit: --update-baseline writes the file that --baseline names; name one")
        options = Options(
            tenants=tuple(_listed(given.tenant)),
            natural_keys=tuple(_listed(given.natural_key)),
            enabled=frozenset(_checked("--enable", given.enable)),
            disabled=frozenset(_checked("--disable", given.disable)),
        )
        numbers = {"unused_days": given.unused_days, "migrations": given.max_migrations}
        return cls(
            models=tuple(given.models),
            database=given.url,
            stats=given.stats,
            save_stats=given.save_stats,
            migrations=given.migrations,
            report=given.report,
            ignore_file=given.ignore_file,
            baseline=given.baseline,
            update_baseline=given.update_baseline,
            compare=not given.no_compare,
            options=dataclasses.replace(options, **{k: v for k, v in numbers.items() if v is not None}),
        )


@dataclass(frozen=True, slots=True)
class Done:
    """The report of an audit, and the catalog that it read."""

    report: Report
    stock: Stock | None


def perform(asked: Asked, settings: Settings) -> Done:
    """
    Read what is asked for, and judge it.

    Raises:
        SqlprobeError: something cannot be read.
    """
    if asked.ignore_file:
        settings = dataclasses.replace(settings, ignores=(*settings.ignores, *load_ignores(asked.ignore_file)))
    baseline = Baseline.read(asked.baseline) if asked.baseline and not asked.update_baseline else None
    models = mapping.load(*asked.models) if asked.models else None
    history = migrations.load(asked.migrations) if asked.migrations else None
    seen = Report.read(asked.report) if asked.report else None
    url = _url(asked.database) if asked.database else None
    known = stock.load(asked.stats) if asked.stats else (_read(url) if url is not None else None)
    if known is not None and asked.save_stats:
        known.write(asked.save_stats)
    report = audit.audit(
        models,
        catalog_of=known,
        compare_with=url if asked.compare else None,
        history=history,
        report=seen,
        options=asked.options,
        settings=settings,
    )
    if asked.update_baseline and asked.baseline:
        Baseline.of(report.findings).write(asked.baseline)
        baseline = Baseline.of(report.findings)
    if baseline is not None:
        fresh = tuple(finding for finding in report.findings if finding not in baseline)
        old = len(report.findings) - len(fresh)
        report = dataclasses.replace(
            report, findings=fresh, notes=(*report.notes, f"baseline: {old} findings are known and not told")
        )
    return Done(report, known)


def write_metrics(done: Done, path: str) -> None:
    """
    Write the metrics to the file *path*, whole or not at all: a collector may read it at any time.

    Raises:
        AuditError: it cannot be written.
    """
    temporary = Path(f"{path}.{os.getpid()}.tmp")
    try:
        temporary.write_text(metrics.text(done.report.findings, done.stock, done.report.ended), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise AuditError(
            f"-o {path}: cannot be written: {error.strerror}; name a file in a folder that exists"
        ) from error


def _read(url: URL) -> Stock:
    import sqlalchemy as sa

    try:
        if url.get_dialect().is_async:
            from sqlalchemy.ext.asyncio import create_async_engine

            return audit.read(create_async_engine(url, poolclass=sa.NullPool))
        return audit.read(sa.create_engine(url, poolclass=sa.NullPool))
    except (ImportError, sa.exc.ArgumentError) as error:
        raise AuditError(
            f"--url {url.render_as_string()}: its driver cannot be used: {error}; install it, or name another: "
            "postgresql+psycopg://"
        ) from error
    except Refused as refused:
        found = f"{refused.reason}, {refused.sqlstate}" if refused.sqlstate else str(refused)
        raise AuditError(
            f"--url {url.render_as_string()}: its catalog was asked for, found: {found}; a PostgreSQL and a role "
            "that may connect are needed"
        ) from refused


def _url(text: str) -> URL:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # The text may hold a password.
        raise AuditError("--url: a URL is needed, such as postgresql+psycopg://user@host/database") from None
    if not url.drivername.startswith("postgresql"):
        raise AuditError(
            f"--url: catalogs are read from PostgreSQL, found {url.drivername}; leave it out, and models and "
            "migrations are reviewed alone"
        )
    return url


def _listed(given: Iterable[str]) -> list[str]:
    return [each.strip() for text in given for each in text.split(",") if each.strip()]


def _checked(option: str, given: Iterable[str]) -> list[str]:
    rules = _listed(given)
    for rule in rules:
        if rule not in RULES:
            near = difflib.get_close_matches(rule, sorted(RULES), 1)
            hint = f"did you mean {near[0]}?" if near else f"an audit's rules are {', '.join(sorted(RULES))}"
            raise AuditError(f"{option} {rule}: no rule of the audit is called that; {hint}")
    return rules
