"""
Exemplars: for each statement and bucket the last call that belongs to a sampled trace. Filled by `otel`, told by
`prometheus`.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlprobe_exporters.metrics import SECONDS_BOUNDS

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

    from sqlprobe import Probe

    Kept = dict[int, tuple[SpanContext, int, int]]

BOUNDS_NS: Final = [round(bound * 1e9) for bound in SECONDS_BOUNDS]
MAX_STATEMENTS: Final = 2_000


class Exemplar(NamedTuple):
    """A call in a sampled trace; both identifiers in hexadecimal, `timestamp` a Unix time."""

    trace_id: str
    span_id: str
    seconds: float
    timestamp: float


class Exemplars:
    """Those of one probe, by engine and fingerprint, then by the number of the bucket."""

    __slots__ = ("by_statement",)

    def __init__(self) -> None:
        self.by_statement: dict[tuple[str, str], Kept] = {}

    def place_of(self, key: tuple[str, str]) -> Kept:
        """
        Where calls of a statement are put, by their place among `BOUNDS_NS`: the span, nanoseconds, Unix nanoseconds.

        Written in the application's thread; identifiers are made readable by whoever reads. Past the bound on
        statements nobody reads it.
        """
        if len(self.by_statement) >= MAX_STATEMENTS:
            return self.by_statement.get(key, {})
        return self.by_statement.setdefault(key, {})

    def of(self, engine: str, fingerprint: str) -> dict[int, Exemplar]:
        """Those of a statement, by the number of the bucket."""
        known = self.by_statement.get((engine, fingerprint), {})
        return {
            bucket: Exemplar(f"{span.trace_id:032x}", f"{span.span_id:016x}", ns / 1e9, at_ns / 1e9)
            for bucket, (span, ns, at_ns) in known.copy().items()
        }


_of: weakref.WeakKeyDictionary[Probe, Exemplars] = weakref.WeakKeyDictionary()


def exemplars_of(probe: Probe) -> Exemplars:
    """Those of *probe*, empty until somebody puts some in."""
    return _of.setdefault(probe, Exemplars())
