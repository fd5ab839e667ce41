"""
SQLAlchemy's own test suite with a probe on every engine, against the same suite without: `python sqlalchemy_suite.py`.

Fetches the source distribution of the SQLAlchemy that is installed, runs `test/engine`, `test/orm` and `test/sql` of it on
SQLite twice, and lists each test whose outcome differs. Exit status 1 where one does that `EXPECTED` does not name.

It is its own pytest plugin, too: the runs load this file by `-p`.
"""

# ruff: noqa: T201 - a program, which prints

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDERS = ("test/engine", "test/orm", "test/sql")
PROBED = "SUITE_IS_PROBED"  # without the prefix of settings
OUTCOMES = "SUITE_OUTCOMES"
WORST = ("failed", "skipped", "passed")

# By the name of the test without its parameters: why it may differ.
_ROWCOUNT = "it counts how often a cursor's rowcount is asked for, and sqlprobe asks once more"
EXPECTED: dict[str, str] = {
    "test/sql/test_resultset.py::CursorResultTest::test_no_rowcount_on_selects_inserts": _ROWCOUNT,
    "test/sql/test_resultset.py::CursorResultTest::test_rowcount_always_called_when_preserve_rowcount": _ROWCOUNT,
}
# Counted faults, without their lines: the statement ran, and sqlprobe did not know what to make of it.
FAULTS: dict[str, str] = {
    "capture: TypeError at _count": "test_reconnect's cursor has a mock for its rowcount",
    "capture: AttributeError at _on_execute": "test_reconnect's context is one without a dialect",
}


def compare(without: dict[str, str], probed: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Outcome without and with a probe, of each test for which they differ."""
    names = sorted(without.keys() | probed.keys())
    pairs = {name: (without.get(name, "not run"), probed.get(name, "not run")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def expected(name: str) -> str | None:
    """Why the test *name* may differ, None where it may not."""
    # The database is a part of the class's name: CursorResultTest_sqlite+pysqlite_3_40_1.
    return EXPECTED.get(re.sub(r"_sqlite\+\w+", "", name.partition("[")[0]))


def fetch(version: str, folder: Path) -> Path:
    """The unpacked source distribution of SQLAlchemy *version*, below *folder*."""
    root = folder / f"sqlalchemy-{version}"
    if not root.is_dir():
        command = ["-m", "pip", "download", "--quiet", "--no-binary", "sqlalchemy", "--no-deps", "--dest", str(folder)]
        subprocess.run([sys.executable, *command, f"sqlalchemy=={version}"], check=True)
        (archive,) = folder.glob("[sS][qQ][lL][aA]lchemy-*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        root = next(path for path in folder.glob("[sS][qQ][lL][aA]lchemy-*") if path.is_dir())
    return root


def run(root: Path, folders: tuple[str, ...], outcomes: Path, *, probed: bool) -> dict[str, Any]:
    """What *folders* of the suite at *root* came to: `outcomes` by test, and what the probe saw."""
    environment = {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": str(Path(__file__).parent),
        PROBED: "1" if probed else "",
        OUTCOMES: str(outcomes),
    }
    # -s: the suite then takes the installed SQLAlchemy, with its compiled parts, instead of its own lib/.
    command = [sys.executable, "-s", "-m", "pytest", "-p", Path(__file__).stem, "-q", "--tb=short", "--maxfail=1000"]
    quiet = ["-o", "addopts=--strict-markers", "-p", "no:cacheprovider", "--db", "default"]
    with outcomes.with_suffix(".log").open("w") as log:
        subprocess.run(
            [*command, *quiet, *folders], cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False
        )
    told: dict[str, Any] = json.loads(outcomes.read_text())
    return told


def main() -> int:
    import sqlalchemy

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", default=FOLDERS, help="of the suite; default: %(default)s")
    parser.add_argument("--work", type=Path, help="keep the source and the logs here")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="sqlprobe-suite-"))
    root = fetch(sqlalchemy.__version__, work.resolve())
    results = {}
    for probed in (False, True):
        name = "probed" if probed else "without"
        results[name] = run(root, tuple(options.folders), work.resolve() / f"{name}.json", probed=probed)
        counts = Counter(results[name]["outcomes"].values())
        print(f"{name:8}", ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(counts.items())))
    seen = results["probed"]
    print(f"the probe saw {seen['statements']:,} statements in {seen['scopes']:,} scopes")
    unexpected = 0
    for test, (before, after) in compare(results["without"]["outcomes"], seen["outcomes"]).items():
        reason = expected(test)
        unexpected += reason is None
        print(f"{test}: {before} without, {after} with a probe: {reason or 'NOT EXPECTED'}")
    for fault in seen["faults"]:
        reason = FAULTS.get(fault.partition(" in ")[2].rpartition(":")[0])
        unexpected += reason is None
        print(f"fault: {fault}: {reason or 'NOT EXPECTED'}")
    print(f"logs in {work}")
    return 1 if unexpected or not seen["statements"] else 0


# --- the plugin -------------------------------------------------------------------------------------------------------

_outcomes: dict[str, str] = {}
_probe: Any = None


def pytest_configure() -> None:
    global _probe
    if os.environ.get(PROBED):
        import sqlprobe

        _probe = sqlprobe.attach(settings=sqlprobe.Settings(call_sites="all", slow_seconds=0.000_1, watch_pools=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    if _probe is None:
        return (yield)
    import sqlprobe

    with sqlprobe.scope(item.nodeid, kind="test"):
        return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    worst = min(_outcomes.get(report.nodeid, "passed"), report.outcome, key=WORST.index)
    _outcomes[report.nodeid] = worst


def pytest_sessionfinish() -> None:
    if not os.environ.get(OUTCOMES):
        return
    told: dict[str, Any] = {"outcomes": _outcomes, "statements": 0, "scopes": 0, "faults": []}
    if _probe is not None:
        report = _probe.report()
        told["statements"] = sum(statement.calls for statement in report.statements)
        told["scopes"] = sum(scope.count for scope in report.scopes)
        told["faults"] = [f"{fault.count} in {fault.where}: {fault.error}" for fault in report.faults]
    Path(os.environ[OUTCOMES]).write_text(json.dumps(told))


if __name__ == "__main__":
    sys.exit(main())
