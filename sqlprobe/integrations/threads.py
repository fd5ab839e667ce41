"""
Threads: the scope of whoever hands work to a thread pool, carried to where the work is done.

A thread that is started bare, and each of an executor's, begins without a scope (asyncio's `to_thread()` and
Starlette's pool carry it by themselves).
"""

from __future__ import annotations

import functools
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from sqlprobe import faults, ignores, scopes

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

P = ParamSpec("P")
R = TypeVar("R")


def carried(function: Callable[P, R]) -> Callable[P, R]:
    """
    *function*, to be called in any thread, as often and as concurrently as you like, in the scope that is current now.

    Of the context it carries sqlprobe's own part only. What runs after the scope has closed is counted as late.

    Example:
        >>> import threading, sqlprobe
        >>> from sqlprobe.integrations.threads import carried
        >>> with sqlprobe.scope("report"):
        ...     thread = threading.Thread(target=carried(print), args=("in the scope",))
        ...     thread.start(); thread.join()
        in the scope
    """
    scope, muted = scopes.current.get(), ignores.current.get()

    @functools.wraps(function, updated=())
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        before = scopes.current.set(scope)
        muted_before = ignores.current.set(muted)
        try:
            return function(*args, **kwargs)
        finally:
            scopes.current.reset(before)
            ignores.current.reset(muted_before)

    return run


class CarryingExecutor(Executor):
    """
    *executor*, whose work runs in the scope of whoever submits it: `CarryingExecutor(ThreadPoolExecutor())`.

    For threads: a pool of processes has no scope to run in, and refuses what it cannot pickle.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """As the executor's own."""
        try:
            work = carried(fn)
        except Exception as error:  # noqa: BLE001 - ours: the work is done without a scope
            faults.count("carried", error)
            work = fn
        return self.executor.submit(work, *args, **kwargs)

    def shutdown(self, *args: Any, **kwargs: Any) -> None:
        """As the executor's own."""
        self.executor.shutdown(*args, **kwargs)
