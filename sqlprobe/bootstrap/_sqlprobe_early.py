"""
What `sqlprobe run` does in a Python process until SQLAlchemy is imported there: wait, and see to it that nobody leaves,
or is made to leave, before it has saved what it saw.

No process gets a handler for SIGTERM: a fork that is terminated at once would lose the signal (CPython clears pending
ones in the child) and hang its parent, `multiprocessing.Pool` first of all. Who sends a deadly signal asks first.

It runs in every Python process of the program, most of which have no database, so it loads nothing that a starting
interpreter has not loaded, of ours or of others.
"""

from __future__ import annotations

import atexit
import os
import sys
import time

TYPE_CHECKING = False  # typing's own takes 4 ms to import
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    from sqlprobe.observer import Observer

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
_AWAITED = "sqlalchemy"
_FOLLOWED = (_AWAITED, "sqlprobe")  # which may be what imports SQLAlchemy, and is no use before it is complete

ASK = 45 if sys.platform == "linux" else 0  # a real-time signal: nobody's, and its default would be to kill
DEADLY = (1, 9, 15)  # SIGHUP, SIGKILL, SIGTERM: what one process sends to another so that it ends
PATIENCE = 2.0  # seconds: a save takes milliseconds of a quiet machine, and a process that is busy in C does not hear
_STEP = 0.001

_observer: Observer | None = None


def wait(folder: str, options: str) -> None:
    """Observe this process from the import of SQLAlchemy on: reports go to *folder*, *options* are settings as JSON."""

    def attach() -> None:
        global _observer
        try:
            _observer = _start(folder, options)
        except Exception as error:  # noqa: BLE001 - ours: the program goes on unobserved, and the report says so
            _confess(folder, error)

    atexit.register(_at_exit)  # the first to register is the last to run
    for name in ("_exit", "execv", "execve"):
        _precede(name, lambda *_args, **_kwargs: _leave())
    _precede("kill", lambda pid, number: _leave_by(number) if pid == os.getpid() else ask(folder, pid, number))
    if _AWAITED in sys.modules:
        attach()
    else:
        sys.meta_path.insert(0, _Finder(attach))


class _Finder:
    """Leads to SQLAlchemy as the finders behind it do, calls *then* when it has been imported, and is gone."""

    def __init__(self, then: Callable[[], None]) -> None:
        self._then = then
        self._asking = False
        self._loading = 0

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _FOLLOWED or self._asking:
            return None
        self._asking = True
        try:
            finders = [getattr(finder, "find_spec", None) for finder in sys.meta_path if finder is not self]
            found = (find(name, path, target) for find in finders if find is not None)
            spec: ModuleSpec | None = next((spec for spec in found if spec is not None), None)
        finally:
            self._asking = False
        if spec is not None and spec.loader is not None:
            self._follow(spec.loader)
        return spec

    def _follow(self, loader: Any) -> None:
        def exec_module(module: ModuleType) -> None:
            del loader.exec_module
            self._loading += 1
            try:
                loader.exec_module(module)
            finally:
                self._loading -= 1
            if not self._loading and _AWAITED in sys.modules and self in sys.meta_path:
                sys.meta_path.remove(self)
                self._then()

        loader.exec_module = exec_module  # of this loader, which loads nothing else


def _start(folder: str, options: str) -> Observer:
    import importlib.util
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the program may have made errors of its own
        if "sqlprobe" not in sys.modules:
            # By its path: the process may run in another folder, or have another virtual environment.
            spec = importlib.util.spec_from_file_location(
                "sqlprobe",
                f"{_PACKAGE}/__init__.py",
                submodule_search_locations=[_PACKAGE],
            )
            assert spec is not None
            assert spec.loader is not None
            module = sys.modules["sqlprobe"] = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(module)
            except BaseException:
                sys.modules.pop("sqlprobe", None)
                raise
        from sqlprobe import observer

        return observer.start(folder, options)


def _confess(folder: str, error: Exception) -> None:
    try:
        with open(os.path.join(folder, f"{os.getpid()}.note"), "w", encoding="utf-8") as file:  # noqa: PTH118, PTH123
            file.write(f"{' '.join(sys.argv[:1])}: {type(error).__name__}: {error}"[:500])
    except OSError:
        pass  # the run has ended without this process


def ask(folder: str, pid: int, number: int) -> None:
    """Before the signal *number* is sent to the process *pid*: let it save what it saw, if it is observed and alive."""
    if not ASK or number not in DEADLY:
        return
    try:
        names = [name for name in os.listdir(folder) if name.startswith(f"{pid}-") and name.endswith(".part")]  # noqa: PTH208
        if not names or not ask_to_save(pid):
            return
        path = os.path.join(folder, names[0])  # noqa: PTH118
        deadline = time.monotonic() + PATIENCE
        while os.path.exists(path) and time.monotonic() < deadline:  # noqa: PTH110
            time.sleep(_STEP)
    except Exception:  # noqa: BLE001, S110 - it has ended, or will without a last word: its report names it
        pass


_kill = os.kill


def ask_to_save(pid: int) -> bool:
    """Ask the process *pid*, of which there is a `.part` file; whether it is there and hears it."""
    # A process that got the number of one that is gone would be killed by the signal.
    if not ASK or not _handles(pid):
        return False
    _kill(pid, ASK)
    return True


def _handles(pid: int) -> bool:
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123
        masks = dict(line.split(":", 1) for line in file if line.startswith("Sig"))
    return bool(int(masks["SigCgt"], 16) >> (ASK - 1) & 1)


def _at_exit() -> None:
    if _observer is not None:
        _observer.finish()


def _leave() -> None:
    if _observer is not None:
        _observer.leave()


def _leave_by(number: int) -> None:
    if _observer is not None:
        _observer.leave_by(number)


def _precede(name: str, before: Callable[..., object]) -> None:
    """Let *before* be called, with its arguments, before `os.<name>`."""
    original: Callable[..., Any] = getattr(os, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        before(*args, **kwargs)
        return original(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = original.__doc__
    setattr(os, name, call)
