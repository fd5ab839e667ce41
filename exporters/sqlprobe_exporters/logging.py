"""
Logging: `attach(engine, exporters=["logging"])` writes one line for each finding to the logger "sqlprobe.findings".

The line is text for people; the same as fields is in the record's `extra`, where JSON formatters and structlog's
`ExtraAdder` find it. Parameters and rows are in neither.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sqlprobe import Finding, Probe
    from sqlprobe.scopes import Scope, Window

LOGGER: Final = "sqlprobe.findings"
SECONDS: Final = 60.0
PER_MINUTE: Final = 60  # lines: a deployment with a fault in every route says so once, and does not fill the disk
MAX_TEXT: Final = 200  # characters of a slow statement
MAX_KEYS: Final = 2_000
_LEVELS: Final = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_MINUTE: Final = 60.0


class Logging:
    """
    An exporter with options: `attach(engine, exporters=[Logging(seconds=600)])`.

    Args:
        logger: the name of the logger; the severities info, warning and error are its levels.
        seconds: between two lines of one finding; the next one says how often it was met in between.
        per_minute: lines of all findings together; what is over is counted in the next line's `dropped`.
        rules: ids of the rules to log; none means all.
    """

    def __init__(
        self,
        *,
        logger: str = LOGGER,
        seconds: float = SECONDS,
        per_minute: int = PER_MINUTE,
        rules: tuple[str, ...] = (),
    ) -> None:
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
            raise ValueError(f"Logging(seconds={seconds!r}): a number of seconds from 0 on is needed")
        if isinstance(per_minute, bool) or not isinstance(per_minute, int) or per_minute < 1:
            raise ValueError(f"Logging(per_minute={per_minute!r}): a whole number from 1 on is needed")
        if isinstance(rules, str):
            raise ValueError(f"Logging(rules={rules!r}): a tuple of ids is needed, such as ({rules!r},)")  # noqa: TRY004 - as the others
        self._logger = logging.getLogger(logger)
        self._seconds = seconds
        self._per_minute = per_minute
        self._rules = frozenset(rules)

    def __call__(self, probe: Probe) -> Started:
        """Start for *probe*: what `attach()` does."""
        started = Started(probe, self._logger, self._seconds, self._per_minute, self._rules)
        started.unfollow = probe.follow(started)
        return started


class Started:
    """A running exporter; `stop()` ends it."""

    def __init__(
        self, probe: Probe, logger: logging.Logger, seconds: float, per_minute: int, rules: frozenset[str]
    ) -> None:
        self._probe = weakref.proxy(probe)
        self._logger = logger
        self._seconds = seconds
        self._per_minute = per_minute
        self._rules = rules
        self.unfollow: Any = None
        self.forget()

    def forget(self) -> None:
        """After a fork: the parent has its own limits."""
        self._lock = threading.Lock()
        self._told: OrderedDict[str, list[float]] = OrderedDict()  # when last, and how often since
        self._minute = 0.0
        self._lines = 0
        self._dropped = 0

    def stop(self) -> None:
        if self.unfollow is not None:
            self.unfollow()

    def judged(self, scope: Scope, window: Window, findings: list[Finding]) -> None:  # noqa: ARG002 - as every follower
        self.found(findings)

    def found(self, findings: list[Finding]) -> None:
        for finding in findings:
            level = _LEVELS[finding.severity]
            if (self._rules and finding.rule not in self._rules) or not self._logger.isEnabledFor(level):
                continue
            due = self._due(finding.key)
            if due is not None:
                repeated, dropped = due
                fields = self._fields(finding, repeated, dropped)
                self._logger.log(level, "%s", _line(finding, fields), extra=fields)

    def _due(self, key: str) -> tuple[int, int] | None:
        """How often the finding was met since its last line, and how many lines were dropped; None for no line now."""
        now = time.monotonic()
        with self._lock:
            known = self._told.get(key)
            if known is not None and now - known[0] < self._seconds:
                known[1] += 1
                return None
            if now - self._minute >= _MINUTE or not self._minute:
                self._minute, self._lines = now, 0
            if self._lines >= self._per_minute:
                self._dropped += 1
                return None
            self._lines += 1
            repeated = int(known[1]) if known is not None else 0
            dropped, self._dropped = self._dropped, 0
            self._told[key] = [now, 0]
            self._told.move_to_end(key)
            if len(self._told) > MAX_KEYS:
                self._told.popitem(last=False)
            return repeated, dropped

    def _fields(self, finding: Finding, repeated: int, dropped: int) -> dict[str, Any]:
        site, origin = finding.site, finding.origin
        fields: dict[str, Any] = {
            "sqlprobe_rule": finding.rule,
            "sqlprobe_label": finding.label,
            "sqlprobe_scope": finding.scope,
            "sqlprobe_count": finding.count,
            "sqlprobe_seconds": round(finding.seconds, 6),
            "sqlprobe_advice": finding.advice,
            "sqlprobe_fix": finding.fixes[0].code if finding.fixes else "",
            "sqlprobe_site": f"{site.file}:{site.line}" if site else "",
            "sqlprobe_function": site.function if site else "",
            "sqlprobe_origin": f"{origin.file}:{origin.line}" if origin else "",
            "sqlprobe_fingerprint": finding.fingerprint,
            "sqlprobe_engine": finding.engine,
            "sqlprobe_key": finding.key,
            "sqlprobe_repeated": repeated,
            "sqlprobe_dropped": dropped,
        }
        if finding.rule == "slow-statement":
            fields["sqlprobe_statement"] = self._text(finding.fingerprint)
        return {name: value for name, value in fields.items() if value not in ("", 0)}

    def _text(self, fingerprint: str) -> str:
        """The beginning of a statement's text, with ? for literals."""
        if self._probe.settings.redact == "text":
            return ""
        shapes = (tally.shape for tally in self._probe.counts())
        return next((shape.text[:MAX_TEXT] for shape in shapes if shape.fingerprint == fingerprint), "")


def _line(finding: Finding, fields: dict[str, Any]) -> str:
    parts = [f"{finding.rule}: {finding.title}"]
    if finding.scope:
        parts.append(f"in {finding.scope}")
    parts.append(f"advice: {finding.advice}")
    if "sqlprobe_statement" in fields:
        parts.append(f"statement: {fields['sqlprobe_statement']}")
    if "sqlprobe_repeated" in fields:
        parts.append(f"{fields['sqlprobe_repeated']} times more since it was last logged")
    # What is one line stays one: a name may come from a request.
    return "; ".join(parts).replace("\r", "\\r").replace("\n", "\\n")


start: Final = Logging()  # the entry point's

__all__ = ["Logging", "start"]
