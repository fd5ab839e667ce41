"""
The observer of one process of `sqlprobe run`: everything that the process runs, saved to a file for the command.

It has no thread and no timer: a thread would make the program's own forks warn (CPython 3.12), and be missing after
them. What was seen is saved when the process ends, on the way by a statement that finds the last save old, and when
the command or a process that is about to kill this one asks for it by a signal. Files in the folder of the run, by
process (pid and time of birth): `.none` SQLAlchemy is there, `.part` some statements are not saved, `.json` all are,
`.failed-28` they could not be, for the reason of that number (`errno`).
"""

from __future__ import annotations

import functools
import json
import os
import signal
import threading
import time
from _thread import allocate_lock, get_ident, start_new_thread
from contextlib import suppress
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from sqlprobe import autoscope, detectors, faults, probe, scopes, sites
from sqlprobe.bootstrap._sqlprobe_early import ASK, DEADLY
from sqlprobe.ledger import Ledger
from sqlprobe.recording import Recording
from sqlprobe.report import Report
from sqlprobe.scopes import Window
from sqlprobe.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from sqlprobe.plans.worker import Planner
    from sqlprobe.scopes import Scope

P = ParamSpec("P")
R = TypeVar("R")

FIRST_SAVE_NS: Final = 50_000_000  # after the first statement; then at twice that age, and so on, until
SAVE_NS: Final = 1_000_000_000  # ... the longest that a process which is killed may lose, unless
SAVE_SHARE: Final = 100  # ... that is less than so many times what a save takes: 1 % of the process's time at most
EXPLAINED: Final = 100  # statements whose plans are asked for, those that took most time
EXPLAIN_SECONDS: Final = 10.0  # of the program's end that may go to it
LEAVE_SECONDS: Final = 5.0  # a save takes milliseconds; a process that is told to end must end


class Observer(Recording):
    """
    A recording that keeps sums only: beside it the program attaches, records and detaches as it likes.

    Scopes are opened for threads and tasks that have none, so what a detector needs is in the scopes' digests.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings)
        self._folder = folder
        self._born = time.time_ns()
        self._pending = False
        self._explaining = False
        self._first_ns = 0
        self._due_ns = 0
        self._saving = allocate_lock()

    def take(self, record: tuple[Any, ...], scope: Scope | None) -> None:  # noqa: ARG002 - as every recorder's
        super().take(record, None)
        self._pending = True  # after it is there to be saved: a save that begins now clears this first
        if record[1] >= self._due_ns:
            self._save_by_the_way()

    def judge(self, scope: Scope, window: Window) -> None:
        self._ledger.add(detectors.judge(window.digest, self.settings))
        if window.digest.calls or window.calls:
            tally = self._ledger.scope(scope.name, scope.kind)
            tally.add(window)
            self._ledger.draw(scope, window)
            if tally.came_late not in scope.on_late:
                scope.on_late = (*scope.on_late, tally.came_late)

    def report(self) -> Report:
        self._digest_now()
        now = time.time()
        aside = Ledger(float("inf"))
        aside.add(self._ledger.findings(now))
        for scope in scopes.open_scopes():
            with scope.digested() as digest:
                aside.add(detectors.judge(digest, self.settings))
                told = scope._judged  # noqa: SLF001 - a window that has not ended, of which nobody else wants to know
                calls, ns, rows, errors = (so_far - then for so_far, then in zip(scope.totals, told, strict=True))
                wall_ns = perf_counter_ns() - scope._judged_ns  # noqa: SLF001
                aside.scope(scope.name, scope.kind).add(Window(digest, calls, ns, rows, errors, wall_ns))
        if self._planner is not None:
            aside.add(self._planner.findings())
        report = probe.report_of(
            findings=aside.findings(now),
            statements=self.statements,
            scopes=self._ledger.scopes(),
            settings=self.settings,
            started=self.started,
            ended=now,
            notes=self._notes(),
            timelines=self._ledger.timelines(),
        )
        return Report.merge(report, Report(scopes=aside.scopes()))

    def forget(self) -> None:
        super().forget()
        self.started = time.time()
        self._born = time.time_ns()
        self._pending = False
        self._explaining = False
        self._first_ns = 0
        self._due_ns = 0
        self._saving = allocate_lock()

    def announce(self) -> None:
        """Say that SQLAlchemy is there, whether or not it is used."""
        with suppress(OSError):
            self._path("none").touch()

    def finish(self, *, ends: bool = True, explains: bool = True) -> None:
        """
        Save the whole, whether or not the process *ends*; what still comes is saved by the next call.

        Where it ends by itself, plans are asked for first, if they are wanted, which may take seconds: what is known
        without them is saved before that, and nothing is held meanwhile. *explains* is False where it is killed.
        """
        try:
            if ends and explains and self._planner is not None:
                with self._saving:
                    autoscope.close_all()
                    if self._pending:
                        self._save()
                if self._explain(self._planner):
                    self._pending = True  # whatever was saved meanwhile, because somebody asked for it
            with self._saving:
                if not self._pending and not faults.total():
                    return
                if ends:
                    autoscope.close_all()
                self._pending = False
                self._due_ns = 0
                self._save()
                self._path("part").replace(self._path("json"))
        except FileNotFoundError:
            pass  # the run has ended, and its folder is gone: nobody waits for this process
        except OSError as error:
            self._give_up(error)
        except Exception as error:  # noqa: BLE001 - ours, while the program ends
            faults.count("last save", error)

    def _explain(self, planner: Planner) -> bool:
        """Whether any plan was asked for."""
        self._explaining = True
        try:
            return bool(planner.explain(most=EXPLAINED, seconds=EXPLAIN_SECONDS))
        except Exception as error:  # noqa: BLE001 - ours, or a lab that does not start: the rest is worth saving
            faults.count("plans at the end", error)
            return False
        finally:
            self._explaining = False

    def leave(self, seconds: float = LEAVE_SECONDS, *, ends: bool = True) -> None:
        """
        `finish()` at any point of the process's code, within *seconds*.

        The thread may have been stopped where it holds a lock of ours, or of `threading`: another one saves.
        """
        if not self._pending and not self._saving.locked():
            return
        done = allocate_lock()
        done.acquire()

        def save() -> None:
            try:
                self.finish(ends=ends, explains=False)
            finally:
                done.release()

        try:
            start_new_thread(save, ())
        except RuntimeError:
            # No thread starts while the interpreter shuts down. What this has stopped may be a save, which goes on
            # after it, or the asking for plans, before which all that was known has been saved.
            if not self._saving.locked() and not self._explaining:
                self.finish(ends=ends, explains=False)
        else:
            done.acquire(timeout=seconds)

    def leave_by(self, number: int) -> None:
        """`leave()` if this process ends by the signal *number*."""
        if number == signal.SIGKILL or (number in DEADLY and signal.getsignal(number) is signal.SIG_DFL):
            self.leave()

    def asked(self, _number: int, _frame: FrameType | None) -> None:
        """The handler of ASK: save. The thread that runs this goes on at once; who asked waits for the file."""
        self.leave(0, ends=False)

    def _save_by_the_way(self) -> None:
        if not self._saving.acquire(blocking=False):
            return
        try:
            started = perf_counter_ns()
            if not self._due_ns:
                self._first_ns = self._first_ns or started
                self._due_ns = started + FIRST_SAVE_NS
                self._begin()
                return
            self._save()
            ended = perf_counter_ns()
            pause = min(SAVE_NS, ended - self._first_ns)
            self._due_ns = ended + max(pause, SAVE_SHARE * (ended - started))
        except OSError:
            self._due_ns = scopes.NO_LIMIT  # the run has ended, or its disk is full: the last save will tell
        finally:
            self._saving.release()

    def _begin(self) -> None:
        """From now on there is something that is not saved for good."""
        try:
            self._path("json").rename(self._path("part"))
        except FileNotFoundError:
            self._path("part").touch()

    def _save(self) -> None:
        """Put the report in place in one step; not synced to the disk, for which a statement would wait."""
        temporary = self._path(f"{get_ident()}.tmp")
        temporary.write_text(self.report().to_json(), encoding="utf-8")
        temporary.replace(self._path("part"))

    def _give_up(self, error: OSError) -> None:
        """Leave what was saved before, and the reason as a file's name: for contents there may be no room."""
        with suppress(OSError):
            self._path(f"{get_ident()}.tmp").unlink(missing_ok=True)
            part, failed = self._path("part"), self._path(f"failed-{error.errno or 0}")
            if part.exists() and part.stat().st_size:
                part.replace(self._path("json"))
                failed.touch()
            elif part.exists():
                part.replace(failed)
            else:
                failed.touch()

    def _path(self, suffix: str) -> Path:
        return self._folder / f"{os.getpid()}-{self._born}.{suffix}"


def start(folder: str, options: str) -> Observer:
    """
    Observe this process from now on: *options* are settings as JSON, reports go to *folder*.

    Raises:
        SettingsError: *options* are not what `sqlprobe run` gives.
    """
    settings = Settings(**json.loads(options))
    observer = Observer(settings, Path(folder))
    sites.configure(settings.packages, settings.path_map)
    probe.versions()  # imports what it needs now: the last save may come while another thread holds an import's lock
    if ASK and threading.current_thread() is threading.main_thread():  # no other may set a handler
        signal.signal(ASK, observer.asked)
    observer.__enter__()
    if settings.explain:
        from sqlprobe.plans.worker import sampler

        sampler.holds_engines = True  # they are asked about when the program has let go of them
    observer.announce()
    # A server that has shut down on a signal puts the default back and sends itself the signal again.
    signal.raise_signal = _preceded(signal.raise_signal, observer.leave_by)
    return observer


def _preceded(original: Callable[P, R], before: Callable[P, object]) -> Callable[P, R]:
    """*original*, called after *before*."""

    @functools.wraps(original)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        before(*args, **kwargs)
        return original(*args, **kwargs)

    return call
