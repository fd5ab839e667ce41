"""
Settings: what is watched, what counts as slow, what is kept. Read once, at attach.

Every field can be given to `Settings(...)`, in the environment as `SQLPROBE_<FIELD>` (lists comma separated, maps as
`key=value` pairs), or in the table `[tool.sqlprobe]` of the project's pyproject.toml. The environment wins over the
code, the code over the file.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

from sqlprobe.budgets import BudgetsError, check_budgets, load_budgets
from sqlprobe.ignores import Ignore, IgnoreError, check_ignores, load_ignores
from sqlprobe.model import RULES, SqlprobeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CallSites = Literal["off", "first", "all"]


class SettingsError(SqlprobeError, ValueError):
    """A setting that cannot be: the message says which, what was given, and what would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    What a probe does. Immutable; `attach()` adds what the environment and pyproject.toml say: see `resolve()`.

    Attributes:
        enabled: False makes `attach()` return a probe that installs nothing.
        slow_seconds: a statement for which the application waited at least this long is a `slow-statement`.
        n_plus_one_threshold: lazy loads of one relationship, for objects that one query loaded, from which on they are
            an `n-plus-one`; at least 2.
        loop_threshold: calls of one statement by one loop from which on they are a `repeated-statement`, a
            `duplicate-statement` or a `write-loop`; at least 2.
        call_sites: whose lines are looked up: "off", "all", or "first": inside a scope every ORM query, the first lazy
            load of each relationship and parent query, and each other statement's first; outside a scope a statement's
            first and slowest call.
        packages: import names of the application's own packages that are installed in site-packages.
        path_map: leading parts of paths to replace in reports, such as {"/srv/app/": ""}.
        scope_window_seconds: a scope that stays open longer (a worker's loop, a websocket) is judged at this interval.
        finding_ttl_seconds: a finding that has not been seen again for this long leaves the report.
        auto_scope: open a scope for each thread and task that runs a statement and has none; `sqlprobe run` does.
        redact: what leaves the process. "literals" (the default) keeps normalised text, "text" drops the text of
            statements too and leaves fingerprint, summary and tables.
        release: the application's version, copied into reports.
        disabled_rules: ids of rules that yield nothing.
        explain: keep a few executions of each PostgreSQL statement with their values, in memory, and ask for their
            plans: in the background within a budget, or by `Probe.explain()`. The plans are asked for on a connection
            of its own, that it makes as the engine makes its own; see plans.md.
        explain_per_minute: plans that are asked for in the background, at most; 0 asks for none by itself.
        explain_stats: a file of `sqlprobe snapshot`. What is asked for on demand (`Probe.explain()`, at the end of
            `sqlprobe run --explain`) is then planned with its statistics, as production would; see snapshots.md.
        advice_values: let the predicate of a partial index that is advised name a value that all calls have had, where
            its column has at most 20 different ones and is no key. Without it only values that the schema names too are
            named: labels of an enum, the list of a CHECK.
        ignores: findings that are not told, by rule, label and site, each an `Ignore` with its reason.
            `load_ignores()` reads them from a TOML file, which the environment variable names.
        budgets: the most statements a scope may run, by its name or a glob of names (`{"GET /orders": 4}`); more is a
            `query-budget`. `load_budgets()` reads them from a TOML file, which the environment variable may name too.
        timeline_statements: the first statements of each open scope that are kept until it ends, for the timeline of
            the slowest scope of each name; 0 keeps none and draws none.
        watch_pools: watch the connection pools and transactions of the engines too, for the rules `pool-pressure` and
            `long-transaction`; the Prometheus and OpenTelemetry exporters turn it on.
        pool_wait_seconds: a caller that waited at least this long for a connection is a `pool-pressure`.
        long_transaction_seconds: a transaction that was open for at least this long is a `long-transaction`.
        sample: the share, 0 to 1, of requests and jobs that the framework integrations open a scope for. The others'
            statements are counted all the same, and they themselves in `ScopeStats.unsampled`; see integrations.md.

    Raises:
        SettingsError: a value is out of its range, or of another type than its field's.
    """

    enabled: bool = True
    slow_seconds: float = 0.1
    n_plus_one_threshold: int = 2
    loop_threshold: int = 2
    call_sites: CallSites = "first"
    packages: tuple[str, ...] = ()
    path_map: Mapping[str, str] = field(default_factory=dict)
    scope_window_seconds: float = 60.0
    finding_ttl_seconds: float = 86_400.0
    auto_scope: bool = False
    redact: Literal["literals", "text"] = "literals"
    release: str = ""
    disabled_rules: tuple[str, ...] = ()
    explain: bool = False
    explain_per_minute: float = 6.0
    explain_stats: str = ""
    advice_values: bool = False
    ignores: tuple[Ignore, ...] = ()
    budgets: Mapping[str, int] = field(default_factory=dict)
    timeline_statements: int = 200
    watch_pools: bool = False
    pool_wait_seconds: float = 0.1
    long_transaction_seconds: float = 5.0
    sample: float = 1.0

    def __post_init__(self) -> None:
        for name in ("enabled", "auto_scope", "watch_pools", "explain", "advice_values"):
            _check(name, getattr(self, name), bool, "True or False")
        for name in (
            "slow_seconds",
            "scope_window_seconds",
            "finding_ttl_seconds",
            "pool_wait_seconds",
            "long_transaction_seconds",
        ):
            value = getattr(self, name)
            _check(name, value, (int, float), "a number of seconds above 0")
            if isinstance(value, bool) or not 0 < value < float("inf"):
                raise SettingsError(_message(name, value, "a number of seconds above 0"))
        for name in ("n_plus_one_threshold", "loop_threshold"):
            threshold = getattr(self, name)
            if isinstance(threshold, bool) or not isinstance(threshold, int) or threshold < 2:  # noqa: PLR2004
                raise SettingsError(_message(name, threshold, "a whole number from 2 on"))
        try:
            object.__setattr__(self, "ignores", check_ignores(self.ignores))
        except IgnoreError as error:
            raise SettingsError(f"Settings(ignores=...): {error}") from None
        for name, choices in (("call_sites", get_args(CallSites)), ("redact", ("literals", "text"))):
            if getattr(self, name) not in choices:
                raise SettingsError(_message(name, getattr(self, name), f"one of {', '.join(map(repr, choices))}"))
        for name, example in (("packages", ("shop",)), ("disabled_rules", ("slow-statement",))):
            value = getattr(self, name)
            if not isinstance(value, (tuple, list, set, frozenset)) or not all(isinstance(item, str) for item in value):
                raise SettingsError(_message(name, value, f"a tuple of strings, such as {example!r}"))
            object.__setattr__(self, name, tuple(value))
        for rule in self.disabled_rules:
            if rule not in RULES:
                near = difflib.get_close_matches(rule, RULES, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f": {', '.join(RULES)}"
                raise SettingsError(_message("disabled_rules", rule, f"the id of a rule{hint}"))
        if not isinstance(self.path_map, dict) or not all(
            isinstance(item, str) for pair in self.path_map.items() for item in pair
        ):
            raise SettingsError(_message("path_map", self.path_map, "a dict of strings, such as {'/srv/app/': ''}"))
        object.__setattr__(self, "path_map", dict(self.path_map))  # the caller's own may change
        _check("release", self.release, str, "a string")
        _check("explain_stats", self.explain_stats, str, "the name of a file, as a string")
        kept = self.timeline_statements
        if isinstance(kept, bool) or not isinstance(kept, int) or not 0 <= kept <= MAX_TIMELINE_STATEMENTS:
            wanted = f"a whole number from 0 to {MAX_TIMELINE_STATEMENTS:,}"
            raise SettingsError(_message("timeline_statements", kept, wanted))
        rate = self.explain_per_minute
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= MAX_PLANS_PER_MINUTE:
            raise SettingsError(_message("explain_per_minute", rate, f"a number from 0 to {MAX_PLANS_PER_MINUTE}"))
        share = self.sample
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise SettingsError(_message("sample", share, "a share from 0 to 1"))
        try:
            object.__setattr__(self, "budgets", check_budgets(self.budgets))
        except ValueError as error:
            raise SettingsError(_message("budgets", self.budgets, str(error))) from None

    @property
    def slow_ns(self) -> int:
        return round(self.slow_seconds * 1e9)

    def as_json(self) -> dict[str, Any]:
        """The settings as plain JSON values, for reports."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        values["ignores"] = [dataclasses.asdict(ignore) for ignore in self.ignores]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_env(cls, base: Settings | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
        """
        *base* (or the defaults) with what `SQLPROBE_…` variables of *environ* say.

        Raises:
            SettingsError: a variable's value does not fit its field, or `SQLPROBE_…` names no setting.
        """
        return dataclasses.replace(base or cls(), **_from_environ(environ))


class Resolved(NamedTuple):
    """Settings put together, and where each that is not the default comes from: "code", a variable's name, a file's."""

    settings: Settings
    sources: Mapping[str, str]


def resolve(
    given: Settings | None = None, *, base: Settings | None = None, environ: Mapping[str, str] = os.environ
) -> Resolved:
    """
    What holds: *base* (or the defaults), below what the file says, below *given*, below the environment.

    A field that *given* leaves at its default is one that it does not give. The file is the pyproject.toml of the
    current folder or the nearest above it, or what `SQLPROBE_CONFIG` names; empty, none.

    Raises:
        SettingsError: a value does not fit its field, a name is no setting, or the file cannot be what it should.
    """
    start, defaults = base or Settings(), Settings()
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    file = config_file(environ)
    if file is not None:
        values |= _from_file(file)
        sources |= dict.fromkeys(values, str(file))
    if given is not None:
        coded = {name: value for name in _NAMES if (value := getattr(given, name)) != getattr(defaults, name)}
        values |= coded
        sources |= dict.fromkeys(coded, "code")
    told = _from_environ(environ)
    values |= told
    sources |= {name: PREFIX + name.upper() for name in told}
    return Resolved(dataclasses.replace(start, **values), sources)


def config_file(environ: Mapping[str, str] = os.environ) -> Path | None:
    """
    The file that settings are read from, None where there is none.

    Raises:
        SettingsError: `SQLPROBE_CONFIG` names what is no file.
    """
    named = environ.get(CONFIG)
    if named is not None:
        if not named:
            return None
        if not Path(named).is_file():
            msg = f"environment variable {CONFIG}={named!r}: no such file; name a TOML file with [{_TABLE}], or nothing"
            raise SettingsError(msg)
        return Path(named)
    try:
        here = Path.cwd()
        for folder in (here, *here.parents):
            if (folder / "pyproject.toml").is_file():
                return folder / "pyproject.toml"
            if (folder / ".git").exists():  # what is above is another project's
                break
    except OSError:  # the folder is gone, or may not be looked into
        pass
    return None


def _from_file(path: Path) -> dict[str, Any]:
    """What `[tool.sqlprobe]` in *path* says, by field."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    if "sqlprobe" not in text:
        return {}  # to read it all takes a millisecond and more

    import tomllib

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        if _TABLE not in text:
            return {}  # not ours to complain of, where it is some other tool's file
        raise SettingsError(f"{path}: no TOML: {error}; mend the line that is named") from None
    tool = document.get("tool")
    table = tool.get("sqlprobe", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise SettingsError(f"{path}: a table is needed, found tool.sqlprobe = {table!r}; write [{_TABLE}]")
    given: dict[str, Any] = {}
    for name, value in table.items():
        where = f"{path} [{_TABLE}] {name}"
        if name not in _NAMES:
            near = difflib.get_close_matches(name.replace("-", "_"), _NAMES, 1)
            hint = f"; did you mean {near[0]}?" if near else f": {', '.join(_NAMES)}"
            raise SettingsError(f"{where}: no setting is called {name!r}{hint}")
        given[name] = value
        if name in _FILES and isinstance(value, str):
            given[name] = _FILES[name](where, str(path.parent / value))
        _try(where, name, given[name])
    return given


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    """What the variables of *environ* say, by field."""
    defaults = Settings()
    given: dict[str, Any] = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable in _NOT_SETTINGS:
            continue
        name = variable.removeprefix(PREFIX).lower()
        where = f"environment variable {variable}"
        if name not in _NAMES:
            near = difflib.get_close_matches(name, _NAMES, 1)
            hint = f"; did you mean {PREFIX}{near[0].upper()}?" if near else f": {', '.join(_NAMES)}"
            raise SettingsError(f"{where}: no setting is called {name!r}{hint}")
        if name == "budgets":
            given[name] = _budgets(f"{where}={text!r}", text)
        elif name == "ignores":
            given[name] = _ignores(f"{where}={text!r}", text)
        else:
            given[name] = _parse(variable, text, getattr(defaults, name))
        _try(f"{where}={text!r}", name, given[name])
    return given


def _try(where: str, name: str, value: object) -> None:
    """
    See whether *value* can be the setting *name*.

    Raises:
        SettingsError: it cannot; the message begins with *where* it was found.
    """
    wanted: dict[str, Any] = {name: value}
    try:
        Settings(**wanted)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from None


PREFIX: Final = "SQLPROBE_"
MAX_PLANS_PER_MINUTE: Final = 600
MAX_TIMELINE_STATEMENTS: Final = 10_000  # of each open scope, with their parameters until it ends
CONFIG: Final = "SQLPROBE_CONFIG"
LAB_URL: Final = "SQLPROBE_LAB_URL"  # no setting: it may hold a password, and settings are printed and reported
_TABLE: Final = "tool.sqlprobe"
_NAMES: Final = tuple(item.name for item in dataclasses.fields(Settings))
# Read elsewhere: by labs, by the test suite, and by the processes that `sqlprobe run` starts.
_NOT_SETTINGS: Final = frozenset({CONFIG, LAB_URL, "SQLPROBE_REQUIRE_ALL", "SQLPROBE_RUN_DIR", "SQLPROBE_RUN_OPTIONS"})
_WORDS: Final = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)


def _parse(variable: str, text: str, default: object) -> Any:
    if isinstance(default, bool):
        if text.strip().lower() not in _WORDS:
            msg = f"environment variable {variable}={text!r}: 1 or 0 is needed (true, false, yes, no, on, off do too)"
            raise SettingsError(msg)
        return _WORDS[text.strip().lower()]
    if isinstance(default, int | float):
        try:
            return type(default)(text)
        except ValueError:
            kind = "whole number" if isinstance(default, int) else "number"
            msg = f"environment variable {variable}={text!r}: a {kind} is needed, such as {default}"
            raise SettingsError(msg) from None
    if isinstance(default, tuple):
        return tuple(item.strip() for item in text.split(",") if item.strip())
    if isinstance(default, dict):
        pairs = [item.partition("=") for item in text.split(",") if item]
        if not all(separator for _, separator, _ in pairs):
            msg = f"environment variable {variable}={text!r}: pairs are needed, such as /srv/app/=,/opt/=opt/"
            raise SettingsError(msg)
        return {key: value for key, _, value in pairs}
    return text


def _budgets(where: str, text: str) -> dict[str, int]:
    """The file that *text* names, or `GET /orders=4,GET /users*=6`."""
    if text.strip().endswith(".toml"):
        try:
            return load_budgets(text.strip())
        except BudgetsError as error:
            raise SettingsError(f"{where}: {error}") from None
    pairs = [item.rpartition("=") for item in text.split(",") if item.strip()]
    if not all(name.strip() and limit.strip().isdecimal() for name, _, limit in pairs):
        raise SettingsError(f"{where}: a .toml file or pairs are needed, such as GET /orders=4")
    return {name.strip(): int(limit) for name, _, limit in pairs}


def _ignores(where: str, text: str) -> tuple[Ignore, ...]:
    """Those in the file that *text* names."""
    try:
        return load_ignores(text.strip())
    except IgnoreError as error:
        raise SettingsError(f"{where}: {error}") from None


_FILES: Final[dict[str, Callable[[str, str], Any]]] = {"budgets": _budgets, "ignores": _ignores}


def _check(name: str, value: object, kind: type | tuple[type, ...], wanted: str) -> None:
    if not isinstance(value, kind):
        raise SettingsError(_message(name, value, wanted))


def _message(name: str, value: object, wanted: str) -> str:
    return f"Settings({name}={value!r}): {wanted} is needed"
