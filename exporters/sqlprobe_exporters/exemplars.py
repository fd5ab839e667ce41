"""
Exemplars: for each statement and bucket the last call that belongs to a sampled trace. Filled by `otel`, told by
`prometheus`.
"""

from __future__ import annotations

import weakref
from bisect import bisect_left
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlprobe_exporters.metrics import SECONDS_BOUNDS

if TYPE_CHECKING:
    from sqlprobe import Probe

_BOUNDS_NS: Final = [round(bound * 1e9) for bound in SECONDS_BOUNDS]
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
        self.by_statement: dict[tuple[str, str], dict[int, tuple[int, int, int, float]]] = {}

    def put(self, key: tuple[str, str], trace_id: int, span_id: int, elapsed_ns: int, timestamp: float) -> None:
        """Keep a call. In the application's thread; identifiers are made readable by whoever reads."""
        known = self.by_statement.get(key)
        if known is None:
            if len(self.by_statement) >= MAX_STATEMENTS:
                return
            known = self.by_statement.setdefault(key, {})
        known[bisect_left(_BOUNDS_NS, elapsed_ns)] = (trace_id, span_id, elapsed_ns, timestamp)

    def of(self, engine: str, fingerprint: str) -> dict[int, Exemplar]:
        """Those of a statement, by the number of the bucket."""
        known = self.by_statement.get((engine, fingerprint), {})
        return {
            bucket: Exemplar(f"{trace:032x}", f"{span:016x}", ns / 1e9, timestamp)
            for bucket, (trace, span, ns, timestamp) in known.copy().items()
        }


_of: weakref.WeakKeyDictionary[Probe, Exemplars] = weakref.WeakKeyDictionary()


def exemplars_of(probe: Probe) -> Exemplars:
    """Those of *probe*, empty until somebody puts some in."""
    return _of.setdefault(probe, Exemplars())
