"""
Settings: what is watched, what counts as slow, what is kept. Read once, at attach.

Every field can be given to `Settings(...)`, or in the environment as `SQLPROBE_<FIELD>` (lists comma separated, maps as
`key=value` pairs).
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from sqlprobe.model import RULES, SqlprobeError

if TYPE_CHECKING:
    from collections.abc import Mapping

CallSites = Literal["off", "first", "all"]


class SettingsError(SqlprobeError, ValueError):
    """A setting that cannot be: the message says which, what was given, and what would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    What a probe does. Immutable; `Settings.from_env()` adds the environment's.

    Attributes:
        enabled: False makes `attach()` return a probe that installs nothing.
        slow_seconds: a statement for which the application waited at least this long is a `slow-statement`.
        n_plus_one_threshold: lazy loads of one relationship, for objects that one query loaded, from which on they are
            an `n-plus-one`; at least 2.
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

    Raises:
        SettingsError: a value is out of its range, or of another type than its field's.
    """

    enabled: bool = True
    slow_seconds: float = 0.1
    n_plus_one_threshold: int = 2
    call_sites: CallSites = "first"
    packages: tuple[str, ...] = ()
    path_map: Mapping[str, str] = field(default_factory=dict)
    scope_window_seconds: float = 60.0
    finding_ttl_seconds: float = 86_400.0
    auto_scope: bool = False
    redact: Literal["literals", "text"] = "literals"
    release: str = ""
    disabled_rules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("enabled", "auto_scope"):
            _check(name, getattr(self, name), bool, "True or False")
        for name in ("slow_seconds", "scope_window_seconds", "finding_ttl_seconds"):
            value = getattr(self, name)
            _check(name, value, (int, float), "a number of seconds above 0")
            if isinstance(value, bool) or not 0 < value < float("inf"):
                raise SettingsError(_message(name, value, "a number of seconds above 0"))
        threshold = self.n_plus_one_threshold
        if isinstance(threshold, bool) or not isinstance(threshold, int) or threshold < 2:  # noqa: PLR2004
            raise SettingsError(_message("n_plus_one_threshold", threshold, "a whole number from 2 on"))
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

    @property
    def slow_ns(self) -> int:
        return round(self.slow_seconds * 1e9)

    def as_json(self) -> dict[str, Any]:
        """The settings as plain JSON values, for reports."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_env(cls, base: Settings | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
        """
        *base* (or the defaults) with what `SQLPROBE_…` variables of *environ* say.

        Raises:
            SettingsError: a variable's value does not fit its field, or `SQLPROBE_…` names no setting.
        """
        defaults = cls()
        given: dict[str, Any] = {}
        known = {item.name: item for item in dataclasses.fields(cls)}
        for variable, text in environ.items():
            if not variable.startswith(PREFIX) or variable in _NOT_SETTINGS:
                continue
            name = variable.removeprefix(PREFIX).lower()
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {PREFIX}{near[0].upper()}?" if near else f": {', '.join(known)}"
                msg = f"environment variable {variable}: no setting is called {name!r}{hint}"
                raise SettingsError(msg)
            given[name] = _parse(variable, text, getattr(defaults, name))
            try:
                cls(**{name: given[name]})
            except SettingsError as error:
                msg = f"environment variable {variable}={text!r}: {error}"
                raise SettingsError(msg) from None
        return dataclasses.replace(base or defaults, **given)


PREFIX: Final = "SQLPROBE_"
# Read elsewhere: by the test suite, and by the processes that `sqlprobe run` starts.
_NOT_SETTINGS: Final = frozenset({"SQLPROBE_REQUIRE_ALL", "SQLPROBE_RUN_DIR", "SQLPROBE_RUN_OPTIONS"})
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


def _check(name: str, value: object, kind: type | tuple[type, ...], wanted: str) -> None:
    if not isinstance(value, kind):
        raise SettingsError(_message(name, value, wanted))


def _message(name: str, value: object, wanted: str) -> str:
    return f"Settings({name}={value!r}): {wanted} is needed"
