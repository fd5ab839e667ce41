"""
What failed of ours while the application went on: counted, logged once per cause, told by reports and `doctor`.
"""

from __future__ import annotations

import logging
from typing import Final

from sqlprobe.model import Fault

MAX_CAUSES: Final = 200

_logger = logging.getLogger("sqlprobe")
_counts: dict[tuple[str, str], int] = {}


def count(where: str, error: BaseException) -> None:
    """
    Count *error*, met in *where*. Never raises.

    Its text is not kept: a driver's error texts, and ours that quote them, hold rows. Its class and line are.
    """
    try:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        at = f" at {trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}" if trace is not None else ""
        cause = (where, type(error).__name__ + at)
        known = _counts.get(cause, 0)
        if known or len(_counts) < MAX_CAUSES:
            _counts[cause] = known + 1
        if not known:
            _logger.warning("sqlprobe failed in %s: %s; the application is not affected", *cause)
    except Exception:  # noqa: BLE001, S110 - a logging handler of the application's may raise; there is nobody to tell
        pass


def told() -> tuple[Fault, ...]:
    """Every cause so far, most frequent first."""
    ordered = sorted(_counts.copy().items(), key=lambda item: (-item[1], item[0]))
    return tuple(Fault(where, error, times) for (where, error), times in ordered)


def total() -> int:
    """All faults so far: `sqlprobe_internal_errors_total`."""
    return sum(_counts.copy().values())


def forget() -> None:
    """Start again: after a fork, and in tests."""
    _counts.clear()
