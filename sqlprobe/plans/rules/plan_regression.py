"""
# plan-regression: a statement has another plan than before, and has become slower

The text is the same, and the code; statistics, an index, a setting or the amount of data have changed, and the planner
has changed its mind.

## What is proof
The same statement on the same database, planned twice: the plans differ in their nodes, joins or indexes, and the
calls since are at least 1.5 times as slow on average as those before, and by 1 ms. Both plans are in the evidence.

## What to do
Compare them: an index that is gone or invalid, statistics that are stale (`ANALYZE`), a value that is more frequent
than those before. Where the new plan is only wrong for some values, look at those.

## Limits
It is seen where plans are asked for again: by the background worker of an attached probe. Another plan for another
value, as fast as before, is no regression.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlprobe.plans import plan as plans
from sqlprobe.plans.rules import Smell

if TYPE_CHECKING:
    from sqlprobe.plans.plan import Plan

RULE: Final = "plan-regression"
SLOWER: Final = 1.5
SLOWER_SECONDS: Final = 1e-3
MAX_STATEMENTS: Final = 5_000  # whose last plan is remembered; 1 kB each
_CALLS: Final = 5  # after and before, of which an average may be said
_MAX_PLAN: Final = 4_000  # characters of a plan in the evidence


@dataclass(frozen=True, slots=True)
class _Last:
    shape: str
    plan: str
    calls: int  # of the statement when the plan was asked for
    seconds: float
    mean: float | None  # seconds a call, of the calls before


class History:
    """The last plan of each statement, and how fast it was with it."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], _Last] = {}

    def compare(self, key: tuple[str, str], plan: Plan) -> Smell | None:
        """A smell if the statement *key* (fingerprint and engine) has changed to *plan* and become slower."""
        statement = plan.statement
        if statement is None:
            return None
        last = self._last.get(key)
        calls = statement.calls - (last.calls if last is not None else 0)
        seconds = statement.seconds - (last.seconds if last is not None else 0.0)
        mean = seconds / calls if calls >= _CALLS else None
        if last is not None and calls < _CALLS:
            return None  # too few calls with the new plan: look again later
        if last is None and len(self._last) >= MAX_STATEMENTS:
            self._last.pop(next(iter(self._last)))
        text = plans.render(plan)[:_MAX_PLAN]
        self._last[key] = _Last(plan.shape, text, statement.calls, statement.seconds, mean)
        if last is None or last.shape == plan.shape or last.mean is None or mean is None:
            return None
        if mean < last.mean * SLOWER or mean < last.mean + SLOWER_SECONDS:
            # As fast as it was: what it is compared with is still the best that was seen.
            return None
        return Smell(
            rule=RULE,
            nodes=(plan.root,),
            title=f"the plan has changed, and a call takes {mean * 1e3:,.1f} ms instead of {last.mean * 1e3:,.1f} ms",
            advice="compare the two plans: an index that is gone, statistics that are stale, a value that is frequent",
            label=" ".join(statement.tables),
            evidence={
                "seconds_before": round(last.mean, 6),
                "seconds_after": round(mean, 6),
                "plan_before": last.plan,
            },
            severity="warning",
            seconds_share=1.0,
        )
