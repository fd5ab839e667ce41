"""
`sqlprobe.ignore(...)`: statements that are meant to be as they are.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypeVar

from sqlprobe import capture, faults, ignores, orm
from sqlprobe.ignores import Ignore, IgnoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

P = ParamSpec("P")
R = TypeVar("R")

# What is told of a scope's statements; other rules look at what no block of code encloses, and are ignored in settings.
RULES: Final = (
    "n-plus-one", "repeated-statement", "duplicate-statement", "column-load", "write-loop", "row-explosion",
    "slow-statement", "query-budget",
)  # fmt: skip
_WILD: Final = frozenset("*?[")


class Mute:
    """
    Ignore *rule* for the statements inside: a context manager for sync and async code, and a decorator.

    *label* (`"Order.items"`, a table; `*` and `?` fit anything) and *site* (a glob of files, with `:function` after it
    if need be) say for which of them; *reason* why. Statements are counted all the same. With "query-budget", the
    whole scope around is meant. An ignore that had nothing to ignore is told in the report's notes.

    Raises:
        IgnoreError: the rule is unknown or looks at no single statement, the label names an attribute that its model
            has not, or there is no reason.

    Example:
        >>> import sqlprobe
        >>> with sqlprobe.ignore("n-plus-one", label="Order.items", reason="two rows at most"):
        ...     pass
    """

    __slots__ = ("_ignore",)

    def __init__(self, rule: str, *, label: str = "", site: str = "", reason: str) -> None:
        self._ignore = Ignore(rule, label, site, reason)
        if rule not in RULES:
            raise IgnoreError(
                f"ignore(rule={rule!r}): its findings are not about a block of code; give the ignore to the settings: "
                "Settings(ignores=[sqlprobe.Ignore(...)])"
            )
        check_label(self._ignore)

    def __enter__(self) -> Self:
        try:
            capture.muting = True
            ignores.current.set((*ignores.current.get(), self._ignore))
            ignores.entered(self._ignore)
        except Exception as error:  # noqa: BLE001 - ours: the block runs, and what it ran is judged
            faults.count("ignore", error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # In another context than it was entered in (a generator's) there is nothing of ours to take away.
        around = list(ignores.current.get())
        if self._ignore in around:
            around.reverse()
            around.remove(self._ignore)
            ignores.current.set(tuple(reversed(around)))

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate *function*, sync or async."""
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise IgnoreError(
                f"{self._ignore} decorates {function.__qualname__}, a generator function, whose caller runs in "
                "between; write `with sqlprobe.ignore(...):` inside it"
            )
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                with self:
                    return await function(*args, **kwargs)

            return run_async  # type: ignore[return-value]

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return run


def check_label(ignore: Ignore) -> None:
    """
    Look whether the model that the label of *ignore* names has such an attribute; of models not mapped yet none knows.

    Raises:
        IgnoreError: it has not.
    """
    model, dot, attribute = ignore.label.partition(".")
    if ignore.rule not in {"n-plus-one", "column-load"} or not dot or _WILD & set(ignore.label):
        return
    if orm.has_attribute(model, attribute) is False:
        raise IgnoreError(
            f"{ignore}: {model} has no attribute {attribute!r}; name a relationship or column of the class that "
            "declares it, or a pattern with *"
        )
