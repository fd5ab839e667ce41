"""
Code to paste for what a loop writes row by row: one statement for all `rows`, or for all `ids`.

Read off the normalised text and the mapping of its table, so it is the same for a flush, a Core statement and text().
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, Final

from sqlprobe import orm

if TYPE_CHECKING:
    from sqlprobe.fingerprint import Shape
    from sqlprobe.sites import Place

_NAME: Final = r'(?:"[^"]+"|\w+)'
_SETS: Final = rf"{_NAME} = \?"
_TESTS: Final = rf"(?:{_NAME}\.)*{_NAME} = \?"
_END: Final = r"(?: RETURNING .+)?$"
_INSERT: Final = rf"INSERT INTO .+? \(({_NAME}(?:, {_NAME})*)\) VALUES \((\?(?:, \?)*)\){_END}"  # noqa: S608 - a pattern
_UPDATE: Final = rf"UPDATE .+? SET ({_SETS}(?:, {_SETS})*) WHERE ({_TESTS}(?: AND {_TESTS})*){_END}"  # noqa: S608
_DELETE: Final = rf"DELETE FROM .+? WHERE ({_TESTS}){_END}"  # noqa: S608
_insert, _update, _delete = (re.compile(each).match for each in (_INSERT, _UPDATE, _DELETE))
_names: Final = re.compile(rf"({_NAME})(?= = \?|,|$)").findall
MAX_KEYS: Final = 100  # characters of the keys of a row


def code_for(shape: Shape, place: Place | None) -> str:
    """The statement for all rows; "" where the one in the loop does more, or its table has no class of its own."""
    schema, _, table = shape.tables[0].replace('"', "").rpartition(".") if len(shape.tables) == 1 else ("", "", "")
    mapper = orm.mapper_of(schema, table)
    if mapper is None or mapper.polymorphic_on is not None or mapper.inherits is not None:
        return ""
    if (mapper.local_table.schema or "") != schema:
        return ""
    awaits = place is not None and place.code.co_flags & inspect.CO_COROUTINE
    execute = "await session.execute" if awaits else "session.execute"
    name = orm.name_of(mapper)
    if (found := _insert(shape.text)) is not None and found[1].count(",") == found[2].count(","):
        keys = _keys(mapper, found[1])
        return f"{execute}(insert({name}), rows)  # rows: {_row(keys)}" if keys else ""
    if (found := _update(shape.text)) is not None:
        keys, tested = _keys(mapper, found[1]), _keys(mapper, found[2])
        if not keys or not _is_primary(mapper, tested) or mapper.version_id_col is not None or {*keys} & {*tested}:
            return ""
        return f"{execute}(update({name}), rows)  # rows: {_row([*tested, *keys])}"
    if (found := _delete(shape.text)) is not None:
        tested = _keys(mapper, found[1])
        if _is_primary(mapper, tested) and mapper.version_id_col is None:
            return f"{execute}(delete({name}).where({name}.{tested[0]}.in_(ids)))"
    return ""


def _keys(mapper: Any, text: str) -> list[str]:
    """The attributes that are mapped to the columns in *text*; none if one of them is not."""
    keys = {str(column.name): str(key) for key, column in mapper.columns.items()}
    names = [name.strip('"') for name in _names(text)]
    return [keys[name] for name in names] if all(name in keys for name in names) else []


def _is_primary(mapper: Any, keys: list[str]) -> bool:
    return sorted(key for key, column in mapper.columns.items() if column in set(mapper.primary_key)) == sorted(keys)


def _row(keys: list[str]) -> str:
    """A list of dicts with *keys*, as many of them as fit."""
    shown = ", ".join(f'"{key}": ...' for key in keys)
    if len(shown) > MAX_KEYS:
        shown = shown[:MAX_KEYS].rpartition(",")[0] + ", ..."
    return f"[{{{shown}}}, ...]"
