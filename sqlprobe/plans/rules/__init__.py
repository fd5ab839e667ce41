"""
Plan rules: what is wrong with a plan. One module a rule, named after it, with `check(plan, catalog, settings)`.

A rule yields smells; `judge` makes findings of them. A node of a plan gets one finding, of the first rule in `CHECKS`
that names it; what later rules say of it is evidence there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlprobe.model import Fix, Severity
    from sqlprobe.plans.plan import Node


@dataclass(frozen=True, slots=True)
class Smell:
    """
    What a rule says of `nodes`, the first of which is at fault; the others are explained by it.

    `label` is the relation, the index or the column it is about; `detail` tells it from others of that label in the
    same statement, and is stable: column names, operators, no constants. `seconds_share` (0 to 1) is the part of the
    statement's time that it costs, None for the nodes' own share of the plan. `severity` is told as it is where
    `by_time` is False (the answer is wrong, not slow) or nothing is known of the time; else the time decides, and
    `severity` is the most it may be.
    """

    rule: str
    nodes: tuple[Node, ...]
    title: str
    advice: str
    label: str
    detail: str = ""
    evidence: Mapping[str, float | int | str] = field(default_factory=dict)
    fixes: tuple[Fix, ...] = ()
    severity: Severity = "warning"
    most: Severity = "error"
    by_time: bool = True
    seconds_share: float | None = None
