"""
`sqlprobe run`: any Python program as it is, and one report on it and on the Python processes that it starts.

The program runs in a process of its own, as `python script.py` would run it: nothing of ours is below its frames, and
its report survives a crash, `os._exit` and SIGKILL. Through PYTHONPATH every Python process below it finds
`bootstrap/sitecustomize.py`, which starts an `observer` as soon as SQLAlchemy is imported there.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlprobe.bootstrap._sqlprobe_early import ask, ask_to_save
from sqlprobe.model import SqlprobeError
from sqlprobe.report import Report, ReportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlprobe.settings import Settings

BOOTSTRAP: Final = Path(__file__).resolve().parent / "bootstrap"
GRACE_SECONDS: Final = 1.0  # for processes that outlive the program: those that end with it need a few ms
IDLE_SECONDS: Final = 1.0  # after which a process that runs no more statements is asked to save the last of them
_POLL_SECONDS: Final = 0.02

# What a person sends to a program by its pid reaches us in its place. (Names: not every system has every signal.)
_PASSED_ON: Final = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU", "SIGWINCH")
    if hasattr(signal, name)
)
# Where the interpreter may be told by its own script's first line; not meant for the program.
_NOT_FOR_THE_PROGRAM: Final = frozenset({"-I", "-E", "-P", "-s", "-S"})
_PR_SET_PDEATHSIG: Final = 1


class RunError(SqlprobeError, ValueError):
    """There is no such program: the message says what was asked, found, and what to do."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    A program that has ended: its exit `status`, negative for the signal that ended it, and the report.

    `met_sqlalchemy` says whether any of its processes imported SQLAlchemy.
    """

    status: int
    report: Report
    met_sqlalchemy: bool


def script(path: str) -> list[str]:
    """
    The interpreter's arguments for the script, folder or archive *path*.

    Raises:
        RunError: it is not there, or no program.
    """
    file = Path(path)
    if not file.exists():
        hint = "name a Python file, or a module with -m"
        if "/" not in path and _is_module(path):
            hint = f"did you mean the module: -m {path}?"
        raise RunError(f"run {path}: no such file; {hint}")
    if file.is_dir() and not (file / "__main__.py").is_file():
        raise RunError(f"run {path}: a folder without a __main__.py; name the Python file to run, or a module with -m")
    if not os.access(file, os.R_OK):
        raise RunError(f"run {path}: the file cannot be read; check its permissions")
    return [path]


def module(name: str) -> list[str]:
    """
    The interpreter's arguments for `-m name`.

    Raises:
        RunError: there is no such module, or it is a package without a `__main__`.
    """
    if not _is_module(name):
        raise RunError(
            f"run -m {name}: {sys.executable} finds no module {name!r} in the working directory, PYTHONPATH and its "
            "site-packages; check the name, or install sqlprobe where the program is installed"
        )
    return ["-m", name]


def run(program: Sequence[str], settings: Settings) -> Outcome:
    """
    Run the interpreter with *program*, its arguments, and report on it when it has ended.

    Meanwhile signals are the program's: what comes from the terminal it has got by itself, the rest is passed on.
    """
    try:
        made = tempfile.TemporaryDirectory(prefix="sqlprobe-run-", ignore_cleanup_errors=True)
    except OSError as error:  # the program is what matters
        note = (
            f"Nothing was observed: no folder could be made for what processes report ({error.strerror}); make room, "
            "or set TMPDIR to a folder that has it"
        )
        status = _supervise([sys.executable, *_interpreter_options(), *program], dict(os.environ), None)
        return Outcome(status, Report(notes=(note,)), met_sqlalchemy=True)  # nobody knows: the note is what is told
    with made as folder:
        if os.geteuid() == 0:
            # Servers give up root before they work; the random name, which they know, cannot be listed.
            os.chmod(folder, 0o733)  # noqa: PTH101, S103
        command = [sys.executable, *_interpreter_options(), *program]
        status = _supervise(command, _environment(folder, settings), Path(folder))
        report, met = gather(Path(folder))
    return Outcome(status, report, met)


def gather(folder: Path) -> tuple[Report, bool]:
    """One report of all that processes left in *folder*, and whether any of them had imported SQLAlchemy."""
    notes = _stragglers(folder)
    reports: list[Report] = []
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.part")]):
        try:
            reports.append(Report.read(path))
        except ReportError as error:
            if path.stat().st_size:
                notes.append(f"What process {_pid(path)} saw is missing: {_found(error, path)}")
    for path in sorted(folder.glob("*.note")):
        text = path.read_text(encoding="utf-8", errors="replace")
        notes.append(f"Process {_pid(path)} could not be observed: {text}")
    for path in sorted(folder.glob("*.failed-*")):
        reason = os.strerror(int(path.suffix.rpartition("-")[2]))
        notes.append(f"Process {_pid(path)} could not save what it did at last: {reason}; make room, or set TMPDIR")
    merged = Report.merge(*reports) if reports else Report()
    return dataclasses.replace(merged, notes=(*merged.notes, *notes)), bool(next(folder.iterdir(), None))


def _interpreter_options() -> list[str]:
    """`-X dev`, `-W error`, `-O` and such, as they were given to the interpreter that runs us."""
    options: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined] # noqa: SLF001
    return [option for option in options if option not in _NOT_FOR_THE_PROGRAM]


def _environment(folder: str, settings: Settings) -> dict[str, str]:
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path != str(BOOTSTRAP)]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(BOOTSTRAP), *(paths if any(paths) else [])]),
        "SQLPROBE_RUN_DIR": folder,
        "SQLPROBE_RUN_OPTIONS": json.dumps(settings.as_json()),
    }


def _supervise(command: Sequence[str], environment: dict[str, str], folder: Path | None) -> int:
    """Run *command* to its end; its status as `Popen.returncode` tells it."""
    dies_with_us = _dies_with_us()
    with _blocked({*_PASSED_ON, signal.SIGCHLD}) as (waited, before):

        def prepare() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            dies_with_us()

        process = subprocess.Popen(command, env=environment, preexec_fn=prepare)  # noqa: PLW1509, S603 - one thread
        while process.poll() is None:
            number, typed = _next_signal(waited)
            if number == 0:
                if folder is not None:
                    _ask_idle(folder)
            elif number != signal.SIGCHLD and not typed:
                if folder is not None:
                    ask(str(folder), process.pid, number)
                process.send_signal(number)
    return process.returncode


@contextmanager
def _blocked(signals: Iterable[int]) -> Iterator[tuple[set[int], set[Any]]]:
    """Keep *signals* for `_next_signal`; also gives the mask that was in force before."""
    waited = set(signals)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    # Some systems drop a blocked signal that would be ignored, as SIGCHLD is by default.
    handler = signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    try:
        yield waited, before
    finally:
        signal.signal(signal.SIGCHLD, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _next_signal(waited: set[int]) -> tuple[int, bool]:
    """The next of *waited* (0 if none comes for a while), and whether the terminal sent it, to the program as well."""
    if sys.platform == "darwin":
        number = signal.sigwait(waited)
        return number, number in {signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH} and _in_foreground()
    info = signal.sigtimedwait(waited, IDLE_SECONDS)
    if info is None:
        return 0, False
    return info.si_signo, info.si_code > 0  # above 0 is the kernel's; people and programs send 0 and below


def _ask_idle(folder: Path) -> None:
    """Let processes save that have run statements, and then none which would have saved them by the way."""
    now = time.time()
    for path in folder.glob("*.part"):
        with suppress(OSError):
            if now - path.stat().st_mtime >= IDLE_SECONDS:
                ask_to_save(_pid(path))


def _in_foreground() -> bool:
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)


def _dies_with_us() -> Callable[[], object]:
    """What the new process calls so that a SIGKILL of ours is one of its, as it would be without us. Linux only."""
    if sys.platform != "linux":
        return lambda: None
    try:
        import ctypes

        prctl = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return lambda: None
    return lambda: prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def _stragglers(folder: Path) -> list[str]:
    """Wait a moment for processes that have not said their last word; name those that never will."""
    deadline = time.monotonic() + GRACE_SECONDS
    while True:
        parts = sorted(folder.glob("*.part"))
        alive = [path for path in parts if _is_alive(_pid(path))]
        if not alive or time.monotonic() >= deadline:
            break
        time.sleep(_POLL_SECONDS)
    notes = []
    for path in sorted(folder.glob("*.part")):
        saved = f"what it did after {_clock(path)} is" if path.stat().st_size else "what it did is"
        state = "was still running when the program ended" if path in alive else "was killed"
        notes.append(f"Process {_pid(path)} {state}: {saved} not in this report")
    return notes


def _clock(path: Path) -> str:
    return time.strftime("%H:%M:%S", time.localtime(path.stat().st_mtime))


def _pid(path: Path) -> int:
    return int(path.name.partition(".")[0].partition("-")[0])


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with suppress(OSError):
        # Nobody has asked for its status yet, or will: a container may have no init that does.
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
        return not state.startswith(" Z")
    return True


def _found(error: ReportError, path: Path) -> str:
    """What *error* says of the file *path*, without its name, which is gone when the report is read."""
    return str(error).removeprefix(f"report {path}: ").partition(";")[0]


def _is_module(name: str) -> bool:
    """Whether `python -m name` would find something to run, asked without importing anything."""
    before = sys.path[:]
    sys.path.insert(0, "")  # as `python -m` has it; ours may begin with the folder of the command
    try:
        whole, paths, origin = "", None, ""
        for part in [*name.split("."), "__main__"]:
            if whole and paths is None:
                return part == "__main__"  # a module, which is run as it is
            whole = f"{whole}.{part}" if whole else part
            spec = _find_spec(whole, paths) if part else None
            if spec is None:
                return _finds_more(origin)
            paths, origin = spec.submodule_search_locations, spec.origin or ""
        return True
    finally:
        sys.path[:] = before


def _finds_more(origin: str) -> bool:
    """Whether the package whose `__init__.py` is *origin* looks for its modules in folders of its own choice."""
    try:
        return "__path__" in Path(origin).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _find_spec(name: str, paths: Any) -> Any:
    for finder in sys.meta_path:
        with suppress(AttributeError, ImportError):
            spec = finder.find_spec(name, paths)
            if spec is not None:
                return spec
    return None
