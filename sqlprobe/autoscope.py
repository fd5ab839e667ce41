"""
Scopes for those who have none: `sqlprobe run` opens one for each thread and task that runs a statement outside any.
"""

from __future__ import annotations

import re
import sys
import threading
import weakref
from typing import Any, Final

from sqlprobe import faults
from sqlprobe.scopes import Scope, current

_SWEEP: Final = 64  # scopes of runners (threads and tasks) after which those of ended ones are closed

_runners: dict[int, tuple[weakref.ref[Any], Scope]] = {}  # by the runner's id
_sweep_at = _SWEEP


def open_scope() -> Scope | None:
    """The scope of the running task, else of the thread, opened at its first statement; current from now on."""
    try:
        task = _running_task()
        runner = threading.current_thread() if task is None else task
        # A thread of a pool runs each call in a context of its own, in which its scope is not current yet.
        ref, scope = _runners.get(id(runner), (None, None))
        if ref is not None and scope is not None:
            if ref() is runner and not scope.closed:
                current.set(scope)
                return scope
            scope.close()
        if len(_runners) >= _sweep_at:
            close_ended()
        name = _thread_name(runner.name) if task is None else _task_name(task)
        scope = Scope(name, kind="thread" if task is None else "task")
        scope.open()
        _runners[id(runner)] = (weakref.ref(runner), scope)
        if task is not None:
            task.add_done_callback(_close)
    except Exception as error:  # noqa: BLE001 - ours
        faults.count("scope of a thread or task", error)
        return None
    return scope


def close_ended() -> None:
    """Close the scopes of threads and tasks that have ended."""
    global _sweep_at
    for key, (ref, scope) in list(_runners.items()):
        runner = ref()
        if runner is None or (runner.done() if hasattr(runner, "done") else not runner.is_alive()):
            _runners.pop(key, None)
            scope.close()
    _sweep_at = max(_SWEEP, 2 * len(_runners))


def close_all() -> None:
    """Close every one: the program has ended."""
    for key, (_, scope) in list(_runners.items()):
        _runners.pop(key, None)
        scope.close()


def _close(task: Any) -> None:
    """The task is done."""
    _, scope = _runners.pop(id(task), (None, None))
    if scope is not None:
        scope.close()


def _running_task() -> Any:
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or asyncio._get_running_loop() is None:  # noqa: SLF001 - documented for frameworks
        return None
    return asyncio.current_task()


def _task_name(task: Any) -> str:
    coroutine = task.get_coro()
    return f"task {getattr(coroutine, '__qualname__', None) or type(coroutine).__name__}"


def _thread_name(name: str) -> str:
    """One name for the threads of a pool."""
    if name == "MainThread":
        return "main"
    return f"thread {re.sub(r'[-_]?[0-9]+', '', name) or 'unnamed'}"
