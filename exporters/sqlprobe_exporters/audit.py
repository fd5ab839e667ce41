"""
Audit: the counts of an audit and the use of a database's indexes, for any prometheus_client registry.

`REGISTRY.register(AuditCollector(engine))` in one process of a service. A scrape never waits for the database: it tells
what the last audit found, and has the next one made beside it when that is older than `every` seconds.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.core import Metric as ClientMetric
from prometheus_client.registry import Collector

from sqlprobe import audit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlprobe import Settings

EVERY: Final = 3600.0  # seconds: indexes come and go by the day
LEAST: Final = 10.0  # seconds between two audits, which read a whole catalog

_log = logging.getLogger("sqlprobe")


class AuditCollector(Collector):
    """
    What `sqlprobe audit` finds, as metrics.

    Args:
        engine: whose database to audit, over a read-only connection of its own; None: models alone.
        models: what `sqlprobe.audit.mapping.load()` gives, or None.
        every: seconds after which an audit is made anew, when somebody scrapes.
        options: what the audit is told, as `sqlprobe.audit.audit()` takes it.
        settings: of these, findings to ignore and rules that are disabled.

    Raises:
        ValueError: neither an engine nor models are given, or *every* is below 10 seconds.
    """

    def __init__(
        self,
        engine: Any = None,
        models: audit.Models | None = None,
        *,
        every: float = EVERY,
        options: audit.Options | None = None,
        settings: Settings | None = None,
    ) -> None:
        if engine is None and models is None:
            raise ValueError("AuditCollector(): something to audit is needed, found nothing; give an engine or models")
        if not every >= LEAST:
            raise ValueError(f"AuditCollector(every={every!r}): a number of seconds from {LEAST:g} on is needed")
        self._engine = engine
        self._models = models
        self._every = every
        self._options = options
        self._settings = settings
        self._told: tuple[ClientMetric, ...] = ()
        self._next = float("-inf")
        self._busy = threading.Lock()
        self._complaints: set[str] = set()

    def describe(self) -> Iterable[ClientMetric]:
        """Nothing: a registry would else ask for an audit when it is registered."""
        return []

    def collect(self) -> Iterator[ClientMetric]:
        """What the last audit found; nothing until the first one is done."""
        if time.monotonic() >= self._next and self._busy.acquire(blocking=False):
            self._next = time.monotonic() + self._every
            try:
                threading.Thread(target=self._in_background, name="sqlprobe-audit", daemon=True).start()
            except RuntimeError:  # the interpreter ends, or there are too many threads
                self._busy.release()
        yield from self._told

    def refresh(self) -> None:
        """
        Audit now, in this thread: for jobs that have their own times.

        Raises:
            SqlprobeError: the database did not answer, or is no PostgreSQL.
        """
        with self._busy:
            self._next = time.monotonic() + self._every
            self._audit()

    def _in_background(self) -> None:
        try:
            self._audit()
        except Exception as error:  # noqa: BLE001 - nobody waits for it: the timestamp that stands still tells
            cause = type(error).__name__
            if cause not in self._complaints:
                self._complaints.add(cause)
                # The text of a driver's error may name hosts and users.
                _log.warning("sqlprobe: the audit for metrics failed (%s); the numbers of the last one stay", cause)
        finally:
            self._busy.release()

    def _audit(self) -> None:
        stock = audit.read(self._engine) if self._engine is not None else None
        report = audit.audit(self._models, catalog_of=stock, options=self._options, settings=self._settings)
        self._told = tuple(_metrics(audit.samples(report.findings, stock, report.ended)))


def _metrics(found: Any) -> Iterator[ClientMetric]:
    for family, values in found.items():
        told = ClientMetric(family.name.removesuffix("_total"), family.help, family.kind)
        for labels, value in values.items():
            told.add_sample(family.name, dict(zip(family.labels, labels, strict=True)), value)
        yield told


__all__ = ["AuditCollector"]
