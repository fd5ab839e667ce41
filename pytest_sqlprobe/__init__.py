"""
The pytest plugin's door: options, and the `sqlprobe` fixture. Everything else is in `sqlprobe.pytest_plugin`.

sqlprobe is installed where applications run, so this is loaded by suites that never asked for it. It stands outside
the package `sqlprobe`, whose import brings SQLAlchemy: a suite that does not use SQLAlchemy pays for this file only,
and the rest is loaded when the suite itself has imported SQLAlchemy, or has asked sqlprobe for something.
"""

from __future__ import annotations

import difflib
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sqlprobe.pytest_plugin.fixture import Watcher
    from sqlprobe.pytest_plugin.session import Session

_MARKER = (
    "sqlprobe(max_queries=None, max_seconds=None, max_rows=None, zero_ok=False, allow=[], mode=None, populate=None, "
    "sizes=(2, 5), slope=0, cumulative=False, explain=None): what the test may ask of the database; see sqlprobe's "
    "docs/pytest.md"
)
# name, whether it is repeatable, the command line's meta variable ("" is a flag), help
_OPTIONS = (
    ("mode", False, "off|report|warn|fail", "what becomes of findings: report (the default) tells them at the end"),
    ("fail-on", True, "RULE,...", "rules whose findings fail a test in mode fail; any stands for all"),
    ("fixtures", False, "", "observe fixtures too, not only the tests' own calls"),
    ("max-queries", False, "N", "the most statements that a test may run; a marker's own limit comes first"),
    ("ignore", True, "RULE:LABEL", "findings that are not told: a rule, rule:label or a label with a dot; * in labels"),
    ("baseline", False, "FILE", "findings that are known: they neither fail nor are told"),
    ("update-baseline", False, "", "write the findings of this run, which must be a whole one, to the baseline"),
    ("budgets", False, "FILE", "TOML file of the statements that a scope may run, by its name"),
    ("write-budgets", False, "", "add scopes that were seen and have no budget to that file"),
    ("budgets-from", True, "REPORT", "take the budgets to add from a report of production too (its p95)"),
    ("explain", False, "", "ask PostgreSQL after each test whether an index serves its statements, on few rows too"),
    (
        "stats",
        False,
        "FILE",
        "ask how production would run them: a file of `sqlprobe snapshot`; implies --sqlprobe-explain",
    ),
    ("report", True, "FILE", "write a report: .json .md .sarif .html; may be repeated"),
    ("top", False, "N", "rows of the slowest tests and hottest lines at the end (5 where a mode is given)"),
    ("github", False, "auto|on|off", "annotations and job summary of GitHub Actions (auto: there, in warn and fail)"),
    ("settings", True, "NAME=VALUE", "a setting of sqlprobe, as in its environment: slow_seconds=0.5"),
)
_COMMAND_ONLY = {"update-baseline", "write-budgets", "budgets-from"}
_EXCLUSIVE = {"mode": "--sqlprobe"}  # the option that is not called --sqlprobe-<name>
SESSION = "sqlprobe-session"
_OLDEST = (8, 0)  # whose hooks may be wrapped as ours are


def pytest_addoption(parser: pytest.Parser) -> None:  # noqa: D103 - a hook of pytest
    group = parser.getgroup("sqlprobe", "sqlprobe: the queries that the tested code runs")
    for name, many, meta, text in _OPTIONS:
        key = f"sqlprobe_{name.replace('-', '_')}"
        option = _EXCLUSIVE.get(name, f"--sqlprobe-{name}")
        if not meta:
            group.addoption(option, dest=key, action="store_true", default=None, help=text)
        elif many:
            group.addoption(option, dest=key, action="append", default=None, metavar=meta, help=text)
        else:
            group.addoption(option, dest=key, default=None, metavar=meta, help=text)
        if name not in _COMMAND_ONLY:
            kind: Any = "bool" if not meta else "linelist" if many else "string"
            default: Any = False if not meta else [] if many else None
            parser.addini(key, f"{text} ({option})", type=kind, default=default)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(args: list[str]) -> None:  # noqa: D103 - a hook of pytest
    known = [_EXCLUSIVE.get(name, f"--sqlprobe-{name}") for name, *_ in _OPTIONS]
    for arg in args:
        option = arg.partition("=")[0]
        if option.lower().startswith("--sqlprobe") and option not in known:
            near = difflib.get_close_matches(option.lower(), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
            raise pytest.UsageError(f"sqlprobe has no option {option}; {hint}")


def pytest_configure(config: pytest.Config) -> None:  # noqa: D103 - a hook of pytest
    config.addinivalue_line("markers", _MARKER)
    known = [f"sqlprobe_{name.replace('-', '_')}" for name, *_ in _OPTIONS if name not in _COMMAND_ONLY]
    given = getattr(config, "_inicfg", None)
    for key in config.inicfg if given is None else given:
        if key.startswith("sqlprobe") and key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
            raise pytest.UsageError(f"{config.inipath}: sqlprobe has no ini key {key}; {hint}")
    if str(given_value(config, "sqlprobe_mode") or "").strip().lower() == "off" or _disabled():
        return
    wanted = any(
        given_value(config, f"sqlprobe_{name.replace('-', '_')}") not in (None, False) for name, *_ in _OPTIONS
    )
    if pytest.version_tuple < _OLDEST:
        if wanted:
            raise pytest.UsageError(f"sqlprobe needs pytest {_OLDEST[0]}, found {pytest.__version__}; update pytest")
        return
    if wanted or "sqlalchemy" in sys.modules:
        start(config)
    else:
        from pytest_sqlprobe.waiting import Waiting

        config.pluginmanager.register(Waiting(config), "sqlprobe-waiting")


@pytest.fixture(name="sqlprobe")
def sqlprobe_fixture(request: pytest.FixtureRequest) -> Watcher:
    """
    What the test's own call runs: `calls`, `statements`, `findings`, ..., and checks of a part of it:
    `with sqlprobe.max_queries(3):`, `with sqlprobe.exactly(2):`, `with sqlprobe.no_n_plus_one():`.
    """
    from sqlprobe.pytest_plugin.fixture import Watcher

    return Watcher(request.config.pluginmanager.get_plugin(SESSION), request.node)


def start(config: pytest.Config) -> Session:
    """Load the plugin proper, and let pytest have it."""
    from sqlprobe.pytest_plugin import session

    running = session.start(config)
    config.pluginmanager.register(running, SESSION)
    return running


def given_value(config: pytest.Config, key: str) -> Any:
    """What the command line says, else the ini file, else None."""
    value = config.getoption(key, None)
    if value is None and key[9:].replace("_", "-") not in _COMMAND_ONLY:
        value = config.getini(key)
    return value if value != [] else None


def _disabled() -> bool:
    return os.environ.get("SQLPROBE_ENABLED", "").strip().lower() in {"0", "false", "no", "off"}
