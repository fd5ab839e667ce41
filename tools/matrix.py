"""
Run the test suite on the CPythons that this machine has and the SQLAlchemy lines that sqlprobe supports.

    python tools/matrix.py slice         the tests here that take no seconds; those that versions break first on each
                                         other CPython and line
    python tools/matrix.py all [NAME…]   with the exhaustive ones: here, and on every other CPython and line; or only
                                         those whose name holds a NAME, such as 3.13 or "2.0.30"
    python tools/matrix.py wheel         what needs no source tree, against the wheel, with the tree out of reach

Run it with the interpreter of the development environment. The other environments live in `.matrix/` and are made anew
when `pyproject.toml` changes. The last line printed is the sum of all runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import environment

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".matrix"
RECORD = ROOT / "docs" / "test-matrix.md"
HERE = Path(sys.prefix)
EVERY_TEST = ""
NO_TREE = "not tree"
VERSIONED = "not once"
FIXED_SLICE = "not exhaustive"
IN_MINUTES = "not exhaustive and not long"
BREAKS_FIRST = "versions and not once and not exhaustive"
CORES = min(os.cpu_count() or 1, 4)
WORKERS = CORES + 1  # many tests wait for other processes; each worker may run a PostgreSQL of its own
# The last: each of the hundreds of processes that tests start would compile all of SQLAlchemy anew.
UNINHERITED = {"PYTHONPATH", "PYTEST_ADDOPTS", "PYTHONDONTWRITEBYTECODE"}
PATIENCE = 5400  # seconds that one run may take; `make test` as a whole takes less than 300


@dataclass(frozen=True, slots=True, order=True)
class Interpreter:
    """A CPython: its version as numbers, its path."""

    version: tuple[int, int, int]
    path: str

    @property
    def minor(self) -> tuple[int, int]:
        return self.version[:2]

    def __str__(self) -> str:
        return "CPython " + ".".join(map(str, self.version))


@dataclass(frozen=True, slots=True)
class Line:
    """A line of SQLAlchemy: what pip is asked for, and the first CPython on which that does not import."""

    key: str
    name: str
    requirements: tuple[str, ...]
    ends: tuple[int, int] = (99, 0)


@dataclass(frozen=True, slots=True)
class Tally:
    """How one run ended; `note` says why tests that should have run did not."""

    name: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    note: str = ""

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def lines() -> tuple[Line, ...]:
    """Newest first. The last has every dependency at its lower bound, as `pyproject.toml` states it."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        stated = tomllib.load(file)["project"]["dependencies"]
    older = (requirement for requirement in stated if "python_version>=" not in requirement)
    lowest = tuple(requirement.partition(";")[0].replace(">=", "==") for requirement in older)
    return (
        Line("2.1", "SQLAlchemy 2.1", ("SQLAlchemy>=2.1,<2.2",)),
        Line("2.0", "SQLAlchemy 2.0", ("SQLAlchemy>=2.0,<2.1",)),
        Line("lowest", f"{lowest[0].replace('==', ' ')} and lowest dependencies", lowest, ends=(3, 13)),
    )


def interpreters() -> list[Interpreter]:
    """
    One final release of each CPython from 3.11 up, oldest first; of this one's minor version, this one.

    Looked for on the PATH and where pyenv and uv keep theirs. A name that does not run is a pyenv shim.
    """
    names = ["python3", *(f"python3.{minor}" for minor in range(11, 30))]
    folders = [Path(folder) for folder in os.get_exec_path()]
    homes = [
        Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions",
        Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or Path.home() / ".local/share/uv/python"),
    ]
    folders += [folder for home in homes for folder in sorted(home.glob("*/bin"))]
    paths = [str(folder / name) for folder in folders for name in names if (folder / name).is_file()]
    found: dict[tuple[int, int], Interpreter] = {}
    for path in [sys.executable, *dict.fromkeys(os.path.realpath(path) if _pyenv(path) else path for path in paths)]:
        interpreter = _ask(path)
        if interpreter is None:
            continue
        known = found.get(interpreter.minor)
        if known is None or (known.minor != sys.version_info[:2] and known.version < interpreter.version):
            found[interpreter.minor] = interpreter
    return sorted(found.values())


def _pyenv(path: str) -> bool:
    return f"{os.sep}versions{os.sep}" in path


def _ask(path: str) -> Interpreter | None:
    script = (
        "import json, sys, venv; v = sys.version_info; gil = getattr(sys, '_is_gil_enabled', lambda: True)();"
        "print(json.dumps([sys.implementation.name == 'cpython' and v.releaselevel == 'final' and gil, v[:3],"
        "sys._base_executable]))"
    )
    done = subprocess.run([path, "-c", script], check=False, capture_output=True, text=True)
    if done.returncode:
        return None
    fit, version, base = json.loads(done.stdout)
    return Interpreter(tuple(version), base) if fit and tuple(version) >= (3, 11) else None


def prepare(interpreter: Interpreter, line: Line) -> Path:
    """
    The interpreter of the cached environment for these two, with the tests' requirements and sqlprobe as it stands.

    Raises:
        CalledProcessError: it cannot be had: a package has no build for this CPython, or the index is out of reach.
    """
    key = f"{line.requirements} {interpreter} {interpreter.path} {(ROOT / 'pyproject.toml').read_text()} {ROOT}"
    folder = CACHE / f"{'.'.join(map(str, interpreter.minor))}-{line.key}"
    stamp = folder / "made-for"
    wanted = hashlib.sha256(key.encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(exist_ok=True)
        environment.install(environment.make(folder, interpreter.path), "-e", f"{ROOT}[test]", *line.requirements)
        stamp.write_text(wanted)
    return folder / "bin" / "python"


def run(name: str, python: Path, selection: str, *, tree: Path = ROOT) -> Tally:
    """One run of the tests in *tree* by *python*; *selection* is what pytest's `-m` takes."""
    print(f"\n== {name} ==", flush=True)
    results = CACHE / "results.xml"
    results.parent.mkdir(exist_ok=True)
    results.unlink(missing_ok=True)
    workers = CORES if selection == BREAKS_FIRST else WORKERS
    spread = [f"-n{workers}", "--dist=loadfile", "--no-loadscope-reorder"]  # the order is tests/conftest.py's
    # Some of the exhaustive tests take minutes, each of their own.
    patience = [] if FIXED_SLICE in selection else ["-o", f"faulthandler_timeout={PATIENCE}"]
    command = [str(python), "-m", "pytest", "--quiet", *spread, *patience, f"--junitxml={results}"]
    inherited = {key: value for key, value in os.environ.items() if key not in UNINHERITED}
    start = time.monotonic()
    try:
        status = subprocess.run(
            [*command, "-m", selection, f"--rootdir={tree}", *_files(selection, tree)],
            check=False,
            cwd=tree,
            env=inherited,
            timeout=PATIENCE,
        ).returncode
        note = f"pytest ended with status {status}"
    except subprocess.TimeoutExpired:
        status, note = 1, f"stopped after {PATIENCE} s"
    seconds = time.monotonic() - start
    if not results.exists():
        return Tally(name, failed=1, seconds=seconds, note=note)
    suite = ET.parse(results).getroot().find("testsuite")  # noqa: S314 - pytest has just written it
    assert suite is not None
    tests, errors, failures, skipped = (int(suite.attrib[key]) for key in ("tests", "errors", "failures", "skipped"))
    failed = errors + failures
    # A worker that crashed or an interrupt: nothing failed, and yet not everything passed.
    lost = int(status != 0 and not failed)
    return Tally(name, tests - failed - skipped, failed + lost, skipped, seconds, note if lost else "")


def _files(selection: str, tree: Path) -> list[str]:
    """What to collect: for other versions only the files that have a part in it, which saves a third of the time."""
    if selection != BREAKS_FIRST:
        return ["tests"]
    return sorted(
        str(path.relative_to(tree))
        for path in (tree / "tests").rglob("test_*.py")
        if "mark.versions" in path.read_text(encoding="utf-8")
    )


def run_cell(interpreter: Interpreter, line: Line, selection: str, prepared: Callable[[], Path] | None = None) -> Tally:
    """
    The tests of *selection* on these two; skipped whole where the environment cannot be had. *prepared* waits for it,
    where somebody else has begun to make it.
    """
    name = _cell(interpreter, line)
    try:
        python = prepared() if prepared is not None else prepare(interpreter, line)
    except subprocess.CalledProcessError:
        note = "its environment could not be made"
        print(f"\n== {name} ==\nskipped: {note}", flush=True)
        strict = int(bool(os.environ.get("SQLPROBE_REQUIRE_ALL")))
        return Tally(name, failed=strict, skipped=1 - strict, note=note)
    return run(name, python, selection)


def run_slice() -> list[Tally]:
    """The main environment; then each other CPython and each SQLAlchemy line once, together where they can be."""
    newest, *older = lines()
    main, free = _main(interpreters())
    cells = []
    for line in sorted(older, key=lambda line: line.ends):
        fit = next((other for other in free if other.minor < line.ends), main)
        free = [other for other in free if other is not fit]
        if fit.minor < line.ends:
            cells.append((fit, line))
    cells += [(other, newest) for other in free]
    # Their environments are made, which is mostly to wait, while the tests run here.
    with ThreadPoolExecutor(1) as ahead:
        ready = [ahead.submit(prepare, *cell) for cell in cells]
        tallies = [run(_cell(main, newest), HERE / "bin" / "python", IN_MINUTES)]
        return tallies + [run_cell(*cell, BREAKS_FIRST, made.result) for cell, made in zip(cells, ready, strict=True)]


def run_all(*names: str) -> list[Tally]:
    """Every test in the main environment, then every other CPython and line; each recorded as soon as it has ended."""
    newest = lines()[0]
    main, others = _main(interpreters())
    cells = [
        (interpreter, line)
        for interpreter, line in product([main, *others], lines())
        if interpreter.minor < line.ends and (not names or any(name in _cell(interpreter, line) for name in names))
    ]
    if not cells:
        sys.exit(f"no environment is called {' or '.join(names)}")
    tallies = []
    for interpreter, line in cells:
        commit = _commit()
        if (interpreter, line) == (main, newest):
            tally = run(_cell(interpreter, line), HERE / "bin" / "python", EVERY_TEST)
        else:
            tally = run_cell(interpreter, line, VERSIONED)
        record(tally, commit)
        tallies.append(tally)
    return tallies


def _cell(interpreter: Interpreter, line: Line) -> str:
    return f"{interpreter}, {line.name}"


def run_wheel() -> list[Tally]:
    """The wheel in an environment of its own, the tests in a folder of their own."""
    main, _ = _main(interpreters())
    name = f"{main}, installed wheel"
    with tempfile.TemporaryDirectory(prefix="sqlprobe-wheel-") as name_of_folder:
        folder = Path(name_of_folder)
        build = ["build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
        subprocess.run([sys.executable, "-m", *build], check=True, stdout=subprocess.DEVNULL)
        (wheel,) = folder.glob("*.whl")
        python = environment.make(folder / "venv", main.path)
        environment.install(python, f"{wheel}[test]")
        tree = folder / "tree"
        shutil.copytree(ROOT / "tests", tree / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)  # pytest's options
        _check_installed(python, tree)
        return [run(name, python, f"{NO_TREE} and {FIXED_SLICE}", tree=tree)]


def _check_installed(python: Path, tree: Path) -> None:
    script = "import sqlprobe, sqlprobe_exporters; print(sqlprobe.__file__, sqlprobe_exporters.__file__)"
    command = [str(python), "-c", script]
    places = subprocess.run(command, check=True, cwd=tree, capture_output=True, text=True).stdout.split()
    if not all("site-packages" in place and not place.startswith(str(ROOT)) for place in places):
        sys.exit(f"the wheel's suite would have tested {', '.join(places)}")


def record(tally: Tally, commit: str) -> None:
    """Write the result of one environment where people read it, in place of its last one."""
    row = (
        f"| {tally.name} | {tally.passed} | {tally.failed} | {tally.skipped} | {tally.seconds:.0f} s | {commit} | "
        f"{datetime.now(UTC):%Y-%m-%d} | {tally.note} |"
    )
    known = RECORD.read_text().splitlines() if RECORD.exists() else []
    rows = [each for each in known if each.startswith("| CPython") and not each.startswith(f"| {tally.name} |")]
    text = [
        "# Test matrix",
        "",
        "Written by `make test-all`: the last run of each environment, and the commit it was of. The first has every",
        "test; the others leave out those that tell the same everywhere.",
        "",
        f"Machine: {platform.system()} {platform.machine()}, {os.cpu_count()} cores.",
        "",
        "| environment | passed | failed | skipped | time | commit | date | |",
        "|---|--:|--:|--:|--:|---|---|---|",
        *sorted([*rows, row]),
        "",
    ]
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text("\n".join(text))


def _main(found: list[Interpreter]) -> tuple[Interpreter, list[Interpreter]]:
    (main,) = (interpreter for interpreter in found if interpreter.minor == sys.version_info[:2])
    return main, [interpreter for interpreter in found if interpreter is not main]


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], check=False, cwd=ROOT, capture_output=True, text=True)  # noqa: S607
        return done.stdout.strip()

    commit = git("rev-parse", "--short=12", "HEAD") or "unknown"
    changes = git("status", "--porcelain", "--", ".", f":!{RECORD.relative_to(ROOT)}")
    return f"{commit} and uncommitted changes" if changes else commit


def main() -> int:
    """The status: 0 where nothing failed."""
    commands = {"slice": run_slice, "wheel": run_wheel}
    command, *names = sys.argv[1:] or [""]
    if command == "all":
        tallies = run_all(*names)
    elif command in commands and not names:
        tallies = commands[command]()
    else:
        sys.exit(__doc__)
    print()
    for tally in tallies:
        print(f"{tally.name}: {tally} in {tally.seconds:.0f} s{tally.note and f' ({tally.note})'}")
    print(Tally("total", *(sum(getattr(tally, key) for tally in tallies) for key in ("passed", "failed", "skipped"))))
    return int(any(tally.failed for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
