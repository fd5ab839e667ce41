"""
What the pytest plugin costs: a suite of 2,000 tests with 10 statements each, beside what else does such a thing.

    python bench/pytest_plugin.py [ROUNDS | --instructions]

With `--instructions` (needs the Debian package valgrind) what is told is instructions a test, which no other program
disturbs, start-up and the end of the run left out. Without it: CPU seconds (user and system) of the whole run, by
median and minimum, and the share above the runs without any plugin. The variants take turns; the peers are installed
into an environment of their own, in `.matrix/`.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = 2_000
STATEMENTS = 10
PEERS = ("pytest-queryguard", "queryspy")
FIRST, LAST = 50, 150  # the tests between which instructions are counted
SUITE = f"""
import os

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "row"
    id = mapped_column(sa.Integer, primary_key=True)
    name = mapped_column(sa.String)


ENGINE = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
Base.metadata.create_all(ENGINE)
with Session(ENGINE) as session, session.begin():
    session.add_all([Row(id=number, name=str(number)) for number in range(20)])


# All different: a suite in which no plugin finds anything, for what is found costs the finder more.
WANTED = Row.id == sa.bindparam("wanted")
CORE = [sa.select(Row.name, *map(sa.literal, range(more))).where(WANTED) for more in range({STATEMENTS - 2})]


@pytest.mark.parametrize("number", range({TESTS}))
def test_reads(number):
    if number in ({FIRST}, {LAST}):
        os.getppid()  # what bench/pytest_plugin.py --instructions counts between
    with Session(ENGINE) as session:
        rows = session.scalars(sa.select(Row).where(Row.id < 5)).all()
        session.scalar(sa.select(sa.func.count(Row.id)))
        for statement in CORE:
            session.execute(statement, {{"wanted": 3}}).all()
    assert 5 == len(rows)
"""
BLOCKED = ("sqlprobe", "queryguard", "queryspy", "randomly", "asyncio", "rerunfailures", "benchmark", "xdist", "faker")
VARIANTS = {
    "no plugin": [],
    "sqlprobe off": ["sqlprobe", "--sqlprobe=off"],
    "sqlprobe report": ["sqlprobe"],
    "sqlprobe report, in full": ["sqlprobe", "--sqlprobe=report"],
    "pytest-queryguard": ["queryguard"],
    "queryspy --queryspy-strict": ["queryspy", "--queryspy-strict"],  # without it nothing is observed
}


def main() -> int:
    counts = "--instructions" in sys.argv
    rounds = 1 if counts else int(sys.argv[1]) if len(sys.argv) > 1 else 9
    python = _environment(ROOT / ".matrix" / "bench-pytest-plugin")
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder) / "suite"
        suite.mkdir()
        text = SUITE.replace(f"range({TESTS})", f"range({LAST + 1})") if counts else SUITE
        (suite / "test_reads.py").write_text(text)
        (suite / "pytest.ini").write_text("[pytest]\n")
        known = _plugins(python)
        times: dict[str, list[float]] = {name: [] for name in VARIANTS}
        for _ in range(rounds):
            for name, (*wanted,) in VARIANTS.items():
                if not wanted or wanted[0] in known:
                    times[name].append(_count(python, suite, wanted) if counts else _run(python, suite, wanted))
    base = times["no plugin"]
    if counts:
        print(f"instructions a test with {STATEMENTS} statements, {LAST - FIRST} tests")
        for name, each in times.items():
            if each:
                print(f"  {name:28} {each[0]:12,.0f} ({each[0] / base[0] - 1:+7.2%})", flush=True)
        return 0
    print(f"{TESTS:,} tests with {STATEMENTS} statements each, {rounds} rounds; CPU seconds of the whole run")
    for name, each in times.items():
        if each:
            median, least = statistics.median(each), min(each)
            print(
                f"  {name:28} median {median:6.2f} ({median / statistics.median(base) - 1:+7.1%})"
                f"   minimum {least:6.2f} ({least / min(base) - 1:+7.1%})   slowest {max(each):6.2f}"
            )
    return 0


def _environment(path: Path) -> str:
    sys.path.insert(0, str(ROOT / "tools"))
    import environment

    python = environment.make(path)
    environment.install(Path(python), "-e", str(ROOT), "pytest", *PEERS)
    return str(python)


def _plugins(python: str) -> set[str]:
    code = "from importlib.metadata import entry_points; print(*(e.name for e in entry_points(group='pytest11')))"
    return set(subprocess.check_output([python, "-c", code], text=True).split())


def _command(python: str, suite: Path, wanted: list[str]) -> list[str]:
    blocked = [part for name in BLOCKED if name not in wanted[:1] for part in ("-p", f"no:{name}")]
    return [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *blocked, *wanted[1:], str(suite)]


def _count(python: str, suite: Path, wanted: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", "--dump-before=getppid"]
        command = [*valgrind, *_command(python, suite, wanted)]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=suite, env=environment)
        between = Path(folder) / "out.2"
        if done.returncode or not between.exists():
            sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
        return int(re.search(r"^totals: (\d+)", between.read_text(), re.MULTILINE)[1]) / (LAST - FIRST)


def _run(python: str, suite: Path, wanted: list[str]) -> float:
    command = _command(python, suite, wanted)
    before = os.times()
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=suite)
    after = os.times()
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    return after.children_user + after.children_system - before.children_user - before.children_system


if __name__ == "__main__":
    sys.exit(main())
