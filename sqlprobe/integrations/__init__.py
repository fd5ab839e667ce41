"""
Frameworks: one module each. Every one opens a scope with a low-cardinality name and closes it when the work is done.

What they share is here: the unit of work under way, which is sampled or not, and never raises.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Final

from sqlprobe import faults, scopes
from sqlprobe.model import SqlprobeError

if TYPE_CHECKING:
    from collections.abc import Callable

UNKNOWN_ROUTE: Final = "(no route)"
# HTTP allows any word as a method, and a scope's name must not be the client's to choose.
_METHODS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
_random: Final = random.Random()  # noqa: S311 - not the application's, whose draws a seed may have made repeatable


def verb(method: object) -> str:
    """A request's method for a scope's name: "_OTHER", as OpenTelemetry has it, for one that HTTP does not know."""
    return method if isinstance(method, str) and method in _METHODS else "_OTHER"


def share_of(sample: float | None) -> float | None:
    """
    *sample* as an integration was given it: a share from 0 to 1, None for what the settings say.

    Raises:
        SqlprobeError: it is neither.
    """
    if sample is None or (isinstance(sample, int | float) and not isinstance(sample, bool) and 0 <= sample <= 1):
        return sample
    msg = f"sample={sample!r}: a share from 0 to 1 is needed, or None for that of the settings"
    raise SqlprobeError(msg)


class Unit:
    """
    A request or job under way: a scope, or where it is not sampled a name to count it by. No method of it raises.

    A unit that is not sampled leaves the current scope as it is: its statements are in the totals of statements, and
    in those of a scope that is open around it.
    """

    __slots__ = ("_named", "kind", "name", "scope")

    def __init__(self, name: Callable[[], str], kind: str, share: float | None = None) -> None:
        self.name = kind  # until it is known
        self.kind = kind
        self.scope: scopes.Scope | None = None
        self._named = False
        try:
            self.name = name()
            wanted = scopes.share if share is None else share
            if wanted >= 1 or _random.random() < wanted:
                scope = scopes.Scope(self.name, kind=kind)
                scope.open()
                self.scope = scope
        except Exception as error:  # noqa: BLE001 - ours: the application goes on
            faults.count("scope", error)

    def call_it(self, name: Callable[[], str]) -> None:
        """Give it the name that *name* makes, the first time only."""
        if self._named:
            return
        self._named = True
        try:
            self.name = str(name())[: scopes.MAX_NAME]
            if self.scope is not None:
                self.scope.rename(self.name)
        except Exception as error:  # noqa: BLE001 - a naming function's, or ours; the response goes its way
            faults.count("naming a request", error)

    def headers(self) -> list[tuple[str, str]]:
        """Statements and milliseconds in the database so far; none where it is not sampled."""
        try:
            if self.scope is None:
                return []
            calls, ms = self.scope.calls, self.scope.seconds * 1000
            return [
                ("Sqlprobe-Statements", str(calls)),
                ("Sqlprobe-Milliseconds", f"{ms:.1f}"),
                ("Server-Timing", f'db;dur={ms:.1f};desc="{calls} statements"'),
            ]
        except Exception as error:  # noqa: BLE001 - ours
            faults.count("response headers", error)
            return []

    def end(self) -> None:
        """It is done; once is enough, and more do nothing."""
        try:
            if self.scope is not None:
                self.scope.close()
            elif self.kind:
                kind, self.kind = self.kind, ""
                for sink in scopes.sinks:
                    pass_by = getattr(sink, "pass_by", None)
                    if pass_by is not None:
                        pass_by(self.name, kind)
        except Exception as error:  # noqa: BLE001 - ours
            faults.count("scope", error)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)  # or every worker would sample alike
