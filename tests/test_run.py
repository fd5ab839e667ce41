"""`sqlprobe run` on real programs: their statuses, their processes, and what was seen of each."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sqlprobe import Report
from sqlprobe.run import BOOTSTRAP, gather

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SECONDS = 60  # for a program that takes one: a machine may be busy

# What every program here can import: `work.select(3, "alpha")` runs `SELECT 1 AS alpha` three times.
WORK = """\
    import sqlalchemy as sa

    def select(times, name):
        engine = sa.create_engine("sqlite://")
        with engine.connect() as connection:
            for _ in range(times):
                connection.execute(sa.text(f"SELECT 1 AS {name}"))
        engine.dispose()
"""


@dataclass(frozen=True, slots=True)
class Done:
    status: int
    out: str
    err: str
    report: Report | None

    @property
    def calls(self) -> dict[str, int]:
        """Calls by the name that `work.select` was given."""
        return {item.text.rpartition(" ")[2].strip('"'): item.calls for item in self.report.statements}


class Folder:
    """A folder with programs, in which `sqlprobe run` is used."""

    def __init__(self, path: Path, pycache: Path) -> None:
        self.path = path
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if "PYTHONPATH" in os.environ:
            found = [str(Path(entry).resolve()) for entry in os.environ["PYTHONPATH"].split(os.pathsep) if entry]
            self.environment["PYTHONPATH"] = os.pathsep.join(found)
        if self.environment.pop("PYTHONDONTWRITEBYTECODE", None):
            # Every process here would compile SQLAlchemy anew.
            self.environment["PYTHONPYCACHEPREFIX"] = str(pycache)
        self.write("work.py", WORK)

    def write(self, name: str, text: str) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
        return file

    def start(self, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "sqlprobe", "run", "-o", "report.json", *arguments],
            cwd=self.path,
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A shell ignores SIGINT in what it starts in the background, nohup SIGHUP: these tests, and all below them.
            preexec_fn=lambda: [signal.signal(each, signal.SIG_DFL) for each in (signal.SIGINT, signal.SIGHUP)],  # noqa: PLW1509
        )

    def end(self, process: subprocess.Popen[str]) -> Done:
        try:
            out, err = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # it leads a session of its own
            process.communicate()
            raise
        file = self.path / "report.json"
        return Done(process.returncode, out, err, Report.read(file) if file.exists() else None)

    def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Done:
        return self.end(self.start(*arguments, environment=environment))

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )


@pytest.fixture(scope="session")
def pycache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pycache")


@pytest.fixture
def folder(tmp_path, pycache) -> Folder:
    return Folder(tmp_path, pycache)


# --- the program itself -----------------------------------------------------------------------------------------------

LOOKS_AT_ITSELF = """\
    import os, sys
    import work
    work.select(2, "a")
    print(__name__, __file__, sys.argv, sys.path[0], sys.flags.optimize, __spec__ and __spec__.name, __package__)
    print([name for name in sys.path if "bootstrap" in name], [f for f in sys.meta_path if "sqlprobe" in repr(f)])
    sys.exit(3)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    "arguments",
    [
        ["program.py", "-o", "x", "--", "-m"],
        pytest.param(["-m", "program", "--quiet"], marks=pytest.mark.exhaustive),
        ["-m", "package.inner"],
        pytest.param(["package"], marks=pytest.mark.exhaustive),
    ],
)
def test_the_program_runs_as_python_runs_it(folder, arguments):
    for name in ("program.py", "package/inner.py", "package/__main__.py"):
        folder.write(name, LOOKS_AT_ITSELF)
    folder.write("package/work.py", WORK)

    done = folder.run(*arguments)

    plain = folder.python(*arguments)
    assert (plain.returncode, plain.stdout) == (done.status, done.out)
    assert {"a": 2} == done.calls


def test_the_site_is_the_programs_line_and_nothing_of_ours(folder):
    folder.write("program.py", "import work\n\ndef main():\n    work.select(2, 'a')\n\nmain()\n")

    done = folder.run("program.py")

    (traced,) = done.report.statements[0].sites
    assert ("work.py", "select", "program.py", 4, 2) == (
        traced.site.file,
        traced.site.function,
        traced.site.caller.file,
        traced.site.caller.line,
        traced.calls,
    )


@pytest.mark.long
def test_an_exception_is_told_as_python_tells_it(folder):
    folder.write("program.py", "import work\nwork.select(1, 'a')\nraise ValueError('mine')\n")

    done = folder.run("-q", "program.py")

    plain = folder.python("program.py")
    assert (1, plain.stderr, {"a": 1}) == (done.status, done.err, done.calls)


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        pytest.param("sys.exit('a last word')", 1, marks=pytest.mark.exhaustive),
        ("os._exit(7)", 7),
        ("os.execv(sys.executable, [sys.executable, '-c', 'import sys; sys.exit(5)'])", 5),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("signal.raise_signal(signal.SIGKILL)", -signal.SIGKILL),
        pytest.param("raise KeyboardInterrupt", 130, marks=pytest.mark.exhaustive),
    ],
)
def test_every_way_to_end_leaves_the_report_and_the_status(folder, ending, status):
    folder.write("program.py", f"import os, signal, sys, work\nwork.select(4, 'a')\n{ending}\n")

    done = folder.run("program.py")

    assert (status, {"a": 4}, ()) == (done.status, done.calls, done.report.notes)


WAITS = """\
    import signal, sys, time
    import work
    work.select(4, "a")
    print("ready", flush=True)
    while True:
        time.sleep(0.05)  # not pause(): a signal that comes right before it would be handled after it
"""


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGINT, 130),
        (signal.SIGTERM, -signal.SIGTERM),
        pytest.param(signal.SIGHUP, -signal.SIGHUP, marks=pytest.mark.exhaustive),
    ],
)
def test_a_signal_is_the_programs_and_the_report_comes_after(folder, number, status):
    folder.write("program.py", WAITS)
    process = folder.start("program.py")
    process.stdout.readline()

    process.send_signal(number)
    done = folder.end(process)

    assert (status, {"a": 4}, True) == (done.status, done.calls, "4 calls of 1 statement" in done.err)


def test_a_signal_that_the_program_handles_is_passed_on(folder):
    handler = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\n"
    folder.write("program.py", handler + textwrap.dedent(WAITS))
    process = folder.start("program.py")
    process.stdout.readline()

    process.send_signal(signal.SIGTERM)
    done = folder.end(process)

    assert (9, {"a": 4}) == (done.status, done.calls)


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG of Linux")
def test_sigkill_ends_the_program_too(folder):
    folder.write("program.py", WAITS.replace('print("ready"', "import os; print(os.getpid()"))
    # Nobody is left to remove the folder of the run.
    process = folder.start("program.py", environment={"TMPDIR": str(folder.path)})
    pid = int(process.stdout.readline())

    process.kill()
    folder.end(process)  # waits for the program too, which holds the same pipes

    with pytest.raises(ProcessLookupError):
        signal_until_gone(pid)


def signal_until_gone(pid: int) -> None:
    for _ in range(1000):
        os.kill(pid, 0)
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="asks by a real-time signal, and reads /proc")
def test_what_an_idle_process_did_survives_its_death(folder):
    names = "import os; print(os.getpid(), os.environ['SQLPROBE_RUN_DIR'], flush=True)"
    folder.write("program.py", WAITS.replace('print("ready", flush=True)', names))
    process = folder.start("program.py")
    pid, run_folder = process.stdout.readline().split()
    deadline = time.monotonic() + SECONDS
    while not list(Path(run_folder).glob(f"{pid}-*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)

    os.kill(int(pid), signal.SIGKILL)
    done = folder.end(process)

    assert (-signal.SIGKILL, {"a": 4}, [("main", 4)], ()) == (
        done.status,
        done.calls,
        [(scope.name, scope.calls) for scope in done.report.scopes],
        done.report.notes,
    )


@pytest.mark.exhaustive
def test_no_process_has_a_handler_for_sigterm(folder):
    """A fork that is terminated at once would lose the signal, and hang who waits for it."""
    folder.write("program.py", "import signal, work\nwork.select(1, 'a')\nprint(signal.getsignal(signal.SIGTERM))")

    assert f"{signal.SIG_DFL}\n" == folder.run("program.py").out


def test_a_crash_leaves_what_was_saved_on_the_way_and_says_so(folder):
    folder.write(
        "program.py",
        """\
        import ctypes, pathlib, os
        import work
        while True:
            work.select(10, "a")
            # Saved at least once: a file that is not empty.
            if any(file.stat().st_size for file in pathlib.Path(os.environ["SQLPROBE_RUN_DIR"]).glob("*.part")):
                ctypes.string_at(0)
        """,
    )

    done = folder.run("program.py")

    (note,) = done.report.notes
    assert (-signal.SIGSEGV, True, True) == (done.status, done.calls["a"] > 0, "was killed: what it did after" in note)


def test_a_program_without_sqlalchemy_is_told_what_to_check(folder):
    folder.write("program.py", "import sys; print(sorted({'sqlalchemy', 'sqlprobe', 'typing'} & set(sys.modules)))")

    done = folder.run("program.py")

    assert (0, "[]\n") == (done.status, done.out)
    assert done.err.startswith("sqlprobe: SQLAlchemy was not imported")


def test_an_engine_that_ran_nothing_is_told_from_no_engine(folder):
    folder.write("program.py", "import sqlalchemy\nsqlalchemy.create_engine('sqlite://')")

    done = folder.run("program.py")

    assert (0, True, ()) == (done.status, "no statement was seen" in done.err, done.report.statements)


def test_a_program_may_attach_record_and_detach_by_itself(folder):
    folder.write(
        "program.py",
        """\
        import sqlprobe
        import work
        with sqlprobe.attach(None) as probe:
            work.select(2, "mine")
            with sqlprobe.record() as recording:
                work.select(1, "both")
            print(probe.report().total_calls, recording.calls)
            probe.pause()
            work.select(1, "paused")
        work.select(1, "after")
        """,
    )

    done = folder.run("program.py")

    assert ("3 1\n", {"mine": 2, "both": 1, "paused": 1, "after": 1}) == (done.out, done.calls)


def test_findings_are_those_of_the_detectors(folder):
    folder.write("program.py", "import work\nfor _ in range(2):\n    work.select(2, 'a')\n")

    done = folder.run("--slow", "0.000001", "program.py")

    assert [("duplicate-statement", "main", 4), ("slow-statement", "main", 4)] == sorted(
        (each.rule, each.scope, each.count) for each in done.report.findings
    )


# --- its processes ----------------------------------------------------------------------------------------------------

MANY = """\
    import multiprocessing, os, subprocess, sys, threading, warnings
    from concurrent.futures import ProcessPoolExecutor
    import work

    def pooled(name):
        work.select(1, name)

    def with_a_thread():
        ready, over = threading.Event(), threading.Event()
        thread = threading.Thread(target=lambda: (work.select(3, "thread"), ready.set(), over.wait()))
        thread.start()
        ready.wait()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it forks with a thread is what is tried here
            pid = os.fork()
        if not pid:
            work.select(1, "fork_thread")
            os._exit(0)
        os.waitpid(pid, 0)
        over.set()
        thread.join()

    def main():
        work.select(2, "before")
        with_a_thread()
        for method in ("fork", "spawn", "forkserver"):
            context = multiprocessing.get_context(method)
            with context.Pool(2) as pool:
                pool.map(pooled, [f"pool_{method}"] * 10, chunksize=1)
        for method in ("fork", "spawn"):
            with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as executor:
                list(executor.map(pooled, [f"executor_{method}"] * 10))
        pid = os.fork()
        if not pid:
            work.select(4, "fork_exit")
            os._exit(0)
        os.waitpid(pid, 0)
        pid = os.fork()
        if not pid:
            work.select(5, "fork_end")
            sys.exit(0)
        os.waitpid(pid, 0)
        pid = os.fork()
        if not pid:
            work.select(1, "fork_exec")
            os.execv(sys.executable, [sys.executable, "-c", "import work; work.select(6, 'fork_exec')"])
        os.waitpid(pid, 0)
        os.mkdir("elsewhere")
        code = "import sys; sys.path.insert(0, '..'); import work; work.select(7, 'subprocess')"
        subprocess.run([sys.executable, "-c", code], cwd="elsewhere", check=True)
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        work.select(2, "after")

    if __name__ == "__main__":
        main()
"""


@pytest.mark.long
def test_processes_of_every_kind_are_one_report_and_nothing_counts_twice(folder):
    folder.write("program.py", MANY)

    # CPython 3.12 warns where a process with threads forks: ours must not be one.
    done = folder.run("program.py", environment={"PYTHONWARNINGS": "error::DeprecationWarning:__main__"})

    expected = {
        "before": 2,
        "thread": 3,
        "fork_thread": 1,
        "pool_fork": 10,
        "pool_spawn": 10,
        "pool_forkserver": 10,
        "executor_fork": 10,
        "executor_spawn": 10,
        "fork_exit": 4,
        "fork_end": 5,
        "fork_exec": 7,
        "subprocess": 7,
        "after": 2,
    }
    assert (0, expected, (), ()) == (done.status, done.calls, done.report.notes, done.report.faults)
    assert sum(expected.values()) == sum(scope.calls for scope in done.report.scopes)


@pytest.mark.exhaustive
def test_a_process_that_outlives_the_program_is_named(folder):
    folder.write(
        "program.py",
        """\
        import os, subprocess, sys
        code = "import signal, work; work.select(1, 'orphan'); print('ready', flush=True); signal.pause()"
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        child.stdout.readline()
        print(child.pid, flush=True)
        os._exit(0)
        """,
    )

    process = folder.start("program.py")
    pid = int(process.stdout.readline())
    process.wait(SECONDS)
    os.killpg(process.pid, signal.SIGKILL)  # what is left of the session
    done = folder.end(process)

    (note,) = done.report.notes
    assert note.startswith(f"Process {pid} was still running when the program ended")


@pytest.mark.long
def test_an_existing_sitecustomize_runs_once_and_as_it_would(folder):
    folder.write("site/sitecustomize.py", "print('site', __name__, 'bootstrap' in __file__)")
    folder.write("site/usercustomize.py", "print('user')")
    folder.write("program.py", "import sys, work\nwork.select(1, 'a')\nprint(sys.modules['sitecustomize'].__file__)")
    folder.environment["PYTHONPATH"] = os.pathsep.join(
        [str(folder.path / "site"), *filter(None, [folder.environment.get("PYTHONPATH")])]
    )

    plain = folder.python("program.py")
    done = folder.run("program.py")

    # Once for the command, which is a Python program too, and once for the program.
    greeting = plain.stdout.partition(str(folder.path))[0]
    assert (greeting + plain.stdout, {"a": 1}) == (done.out, done.calls)


@pytest.mark.exhaustive
def test_a_sitecustomize_that_fails_fails_as_it_would(folder):
    folder.write("site/sitecustomize.py", "import not_there")
    folder.write("program.py", "import work\nwork.select(1, 'a')\n")
    folder.environment["PYTHONPATH"] = os.pathsep.join(
        [str(folder.path / "site"), *filter(None, [folder.environment.get("PYTHONPATH")])]
    )

    plain = folder.python("program.py")
    done = folder.run("-q", "program.py")

    assert (2 * plain.stderr, {"a": 1}) == (done.err, done.calls)


def test_the_folder_of_the_bootstrap_holds_nothing_that_could_shadow():
    assert ["_sqlprobe_early.py", "sitecustomize.py"] == sorted(file.name for file in BOOTSTRAP.glob("*.py"))


@pytest.mark.long
def test_a_process_that_cannot_be_observed_is_named_and_goes_on(folder):
    folder.write(
        "program.py",
        """\
        import subprocess, sys
        import work
        work.select(1, "a")
        code = "import sys; sys.modules['sqlprobe.faults'] = None; import work; work.select(1, 'b'); print('went on')"
        subprocess.run([sys.executable, "-c", code], check=True)
        """,
    )

    done = folder.run("program.py")

    (note,) = done.report.notes
    assert (0, "went on\n", {"a": 1}) == (done.status, done.out, done.calls)
    assert "could not be observed: -c: ModuleNotFoundError" in note


SERVED = """\
    import os
    import work

    def app(environ, start_response):
        work.select(2, "request")
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
        return [b"ok"]

    async def asgi(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        work.select(2, "request")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "number", "status"),
    [
        (["gunicorn", "-w", "2", "-b", "unix:{socket}", "served:app"], signal.SIGTERM, 0),
        pytest.param(
            ["gunicorn", "-w", "2", "-b", "unix:{socket}", "--preload", "served:app"],
            signal.SIGINT,
            0,
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(
            ["uvicorn", "--workers", "2", "--uds", "{socket}", "served:asgi"],
            signal.SIGTERM,
            0,
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(
            ["uvicorn", "--uds", "{socket}", "served:asgi"],
            signal.SIGTERM,
            -signal.SIGTERM,
            marks=pytest.mark.exhaustive,
        ),
    ],
    ids=["gunicorn", "gunicorn preloaded", "uvicorn workers", "uvicorn"],
)
def test_the_workers_of_a_server_are_in_the_report(folder, tmp_path_factory, arguments, number, status):
    pytest.importorskip(arguments[0])
    folder.write("served.py", SERVED)
    path = str(tmp_path_factory.mktemp("s") / "s")  # a socket's path has 108 bytes
    process = folder.start("-q", "-m", *(argument.format(socket=path) for argument in arguments))
    try:
        answers = [request(path, process) for _ in range(20)]
    finally:
        process.send_signal(number)
    done = folder.end(process)

    assert ([200] * 20, status, {"request": 40}, ()) == (answers, done.status, done.calls, done.report.notes)


def request(path: str, process: subprocess.Popen[str]) -> int:
    """The status of one request to the server at the socket *path*, as soon as it listens."""
    while process.poll() is None:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(path)
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(0.02)
                continue
            client.settimeout(SECONDS)
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = b""
            while part := client.recv(4096):
                answer += part
            return int(answer.split()[1])
    pytest.fail(process.stderr.read())


# --- what is left in the folder ---------------------------------------------------------------------------------------


@pytest.fixture
def left(tmp_path) -> Callable[[str, str], None]:
    def leave(name: str, text: str) -> None:
        (tmp_path / name).write_text(text)

    return leave


def test_a_broken_file_is_named_and_the_rest_is_read(left, tmp_path):
    left("12-1.json", Report(notes=("mine",)).to_json())
    left("13-1.json", " ")
    left("14.note", "app.py: ImportError: no")

    report, met = gather(tmp_path)

    assert met
    assert [
        "mine",
        "What process 13 saw is missing: JSON is needed, found nothing",
        "Process 14 could not be observed: app.py: ImportError: no",
    ] == list(report.notes)


def test_an_empty_folder_is_a_program_without_sqlalchemy(tmp_path):
    assert (Report(), False) == gather(tmp_path)


def test_a_process_that_was_killed_before_it_saved_is_named(left, tmp_path):
    with contextlib.closing(os.popen("echo $$")) as gone:  # a pid that was, and is no more
        pid = int(gone.read())
    left(f"{pid}-1.part", "")

    report, _ = gather(tmp_path)

    assert (f"Process {pid} was killed: what it did is not in this report",) == report.notes


def test_settings_of_the_environment_reach_every_process(folder):
    folder.write("program.py", "import json, os; print(json.dumps(dict(os.environ)))")

    done = folder.run("program.py", environment={"SQLPROBE_SLOW_SECONDS": "0.5"})

    environment = json.loads(done.out)
    assert str(BOOTSTRAP) == environment["PYTHONPATH"].split(os.pathsep)[0]
    assert 0.5 == json.loads(environment["SQLPROBE_RUN_OPTIONS"])["slow_seconds"]
