"""
Budgets: how many statements a scope may run, by scope name. One TOML file, for tests and for production.

    [budgets]
    "GET /orders" = 4
    "GET /admin/*" = { max_queries = 20, reason = "reports" }
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from sqlprobe.model import SqlprobeError

TABLE: Final = "budgets"
LIMIT: Final = "max_queries"
_FIELDS: Final = (LIMIT, "reason")
_IGNORES: Final = "ignore"  # the same file may hold those: see sqlprobe.ignores
_HEAD: Final = """\
# How many statements a scope may run, by its name; * and ? stand for any characters, an exact name comes first.
# Read by Settings(budgets=sqlprobe.load_budgets("...")), SQLPROBE_BUDGETS=... and pytest --sqlprobe-budgets=...
"""
_WILD: Final = re.compile(r"\[[^]]*\]|[*?]")


class BudgetsError(SqlprobeError, ValueError):
    """A file of budgets that cannot be read or written: the message says what was found and what would do."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """
    What a file of budgets lacks: `added` are limits by scope name for what no entry of it covers.

    `over` are the names that ran more than they may, as (statements seen, limit); their entries stay as they are.
    """

    added: Mapping[str, int]
    over: Mapping[str, tuple[int, int]]


def load_budgets(path: str | os.PathLike[str]) -> dict[str, int]:
    """
    The budgets in the TOML file *path*: the most statements a scope may run, by name or glob, in the file's order.

    Raises:
        BudgetsError: the file cannot be read, is no TOML, or holds what is no budget.
    """
    return parse_budgets(_read(path), os.fspath(path))


def parse_budgets(text: str, name: str) -> dict[str, int]:
    """
    The budgets in *text*, the contents of the file *name*.

    Raises:
        BudgetsError: it is no TOML, or holds what is no budget.
    """
    import tomllib  # 8 ms that most programs have no use for

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BudgetsError(f"budgets {name}: no TOML: {error}; mend the line that is named") from None
    for key in document:
        if key not in (TABLE, _IGNORES):
            raise BudgetsError(f"budgets {name}: {key!r} has no meaning here{_near(key, [TABLE])}; use [{TABLE}] only")
    table = document.get(TABLE, {})
    if not isinstance(table, dict):
        raise BudgetsError(f'budgets {name}: a table is needed, found {table!r}; write [{TABLE}] and "GET /orders" = 4')
    return {pattern: _limit(pattern, value, name) for pattern, value in table.items()}


def check_budgets(budgets: object) -> dict[str, int]:
    """
    *budgets* as a dict of its own: limits by scope name or glob.

    Raises:
        ValueError: it is no mapping of names to whole numbers; the message is what would do.
    """
    if not isinstance(budgets, Mapping) or not all(
        isinstance(name, str) and name and _is_limit(limit) for name, limit in budgets.items()
    ):
        msg = "a mapping of scope names to numbers of statements, such as {'GET /orders': 4},"
        raise ValueError(msg)
    return dict(budgets)


def budget_for(name: str, budgets: Mapping[str, int]) -> tuple[str, int] | None:
    """
    The entry of *budgets* for the scope *name*: (name or glob, statements allowed), None where there is none.

    An exact name comes first, then the glob with the most characters that are no wildcards, then the earlier one.
    """
    limit = budgets.get(name)
    if limit is not None:
        return name, limit
    fitting = [pattern for pattern in budgets if fnmatchcase(name, pattern)]
    if not fitting:
        return None
    pattern = max(fitting, key=lambda each: len(_WILD.sub("", each)))  # of equals, max() takes the first
    return pattern, budgets[pattern]


def propose(budgets: Mapping[str, int], seen: Mapping[str, int]) -> Proposal:
    """What *budgets* lack for *seen*, the most statements by scope name. No entry is changed, neither up nor down."""
    added: dict[str, int] = {}
    over: dict[str, tuple[int, int]] = {}
    for name, calls in sorted(seen.items()):
        entry = budget_for(name, budgets)
        if entry is None:
            added[name] = calls
        elif calls > entry[1]:
            over[name] = (calls, entry[1])
    return Proposal(added, over)


def write_budgets(path: str | os.PathLike[str], added: Mapping[str, int]) -> None:
    """
    Add the entries *added* to the file *path*, made if it is not there. Its other lines, comments too, stay.

    Raises:
        BudgetsError: the file cannot be read or written; nothing has been changed.
    """
    name = os.fspath(path)
    before = _read(path) if Path(path).exists() else _HEAD
    after = _with(before, added)
    if parse_budgets(after, name) != {**parse_budgets(before, name), **added}:
        lines = "\n".join(_lines(added))
        raise BudgetsError(f"budgets {name}: written in a way that nothing can be added to; add by hand:\n{lines}")
    temporary = Path(f"{name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(after, encoding="utf-8")
        temporary.replace(name)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BudgetsError(
            f"budgets {name}: cannot be written: {error.strerror or error}; name a file in a folder that exists and "
            "is yours to write"
        ) from error


def _with(text: str, added: Mapping[str, int]) -> str:
    """*text* with the entries *added* at the end of its table."""
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if re.match(rf"\s*\[{TABLE}\]\s*(#|$)", line)), None)
    if start is None:
        return "\n".join([*lines, *([""] if lines else []), f"[{TABLE}]", *_lines(added), ""])
    # A header inside a string of several lines would end the table too early: whoever calls this reads the result.
    end = next((number for number in range(start + 1, len(lines)) if re.match(r"\s*\[", lines[number])), len(lines))
    while end > start + 1 and not lines[end - 1].strip():
        end -= 1
    return "\n".join([*lines[:end], *_lines(added), *lines[end:], ""])


def _lines(added: Mapping[str, int]) -> list[str]:
    return [f"{_quoted(name)} = {limit}" for name, limit in added.items()]


def _quoted(name: str) -> str:
    """*name* as a TOML key: a basic string."""
    escaped = "".join(
        f"\\{char}" if char in '"\\' else char if char.isprintable() else f"\\U{ord(char):08X}" for char in name
    )
    return f'"{escaped}"'


def _limit(pattern: str, value: Any, name: str) -> int:
    limit = value
    if isinstance(value, dict):
        for field in value:
            if field not in _FIELDS:
                raise BudgetsError(
                    f"budgets {name}: {pattern!r} has the field {field!r}{_near(field, _FIELDS)}; "
                    f"use {' and '.join(_FIELDS)}"
                )
        limit = value.get(LIMIT)
    if not pattern or not _is_limit(limit):
        raise BudgetsError(
            f"budgets {name}: {pattern!r} = {value!r} is no budget; give a scope's name a whole number of statements, "
            'such as "GET /orders" = 4'
        )
    return int(limit)


def _is_limit(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _read(path: str | os.PathLike[str]) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BudgetsError(
            f"budgets {os.fspath(path)}: cannot be read: {reason}; name a TOML file that exists; "
            "pytest --sqlprobe-write-budgets makes one"
        ) from error


def _near(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f" (did you mean {near[0]!r}?)" if near else ""
