"""
The report as the page carries it: JSON in which names of fields, texts and sites stand once. `unpack()` of `page.js`
makes of it what `Report.to_json` writes.

`{"shapes": [names, …], "strings": […], "shared": […], "data": value}`, where a value is a number, true, false or null
for itself, a string for the text of that number (in base 36), and otherwise a list: `[n, …]` the fields of shape *n*,
`[-1, …]` a list, `[-2, length, index, number, …]` whole numbers that are mostly 0, `[-3, n]` the shared value *n*.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from sqlprobe.model import Site
from sqlprobe.report import FORMAT, _plain

if TYPE_CHECKING:
    from sqlprobe.report import Report

LIST: Final = -1
SPARSE: Final = -2
SHARED: Final = -3
_DENSE: Final = 8  # numbers of a list that is written as it is
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


def pack(report: Report) -> str:
    """*report*, packed, in ASCII."""
    packer = _Packer()
    fields = {item.name: getattr(report, item.name) for item in dataclasses.fields(report)}
    data = packer.put({"format": FORMAT, **fields})
    return json.dumps(
        {"shapes": list(packer.shapes), "strings": list(packer.strings), "shared": packer.shared, "data": data},
        separators=(",", ":"),
        allow_nan=False,
    )


class _Packer:
    def __init__(self) -> None:
        self.shapes: dict[tuple[str, ...], int] = {}
        self.strings: dict[str, str] = {}
        self.shared: list[Any] = []
        self._sites: dict[Site, int] = {}
        self._fields: dict[type, tuple[str, ...]] = {}

    def put(self, value: Any) -> Any:
        kind = type(value)
        if kind is str:
            name = self.strings.get(value)
            if name is None:
                name = self.strings[value] = _base36(len(self.strings))
            return name
        if value is None or kind is int or kind is bool:
            return value
        if kind is float:
            return value if math.isfinite(value) else None
        if kind is tuple or kind is list:
            if len(value) > _DENSE and all(type(item) is int for item in value):
                packed: list[Any] = [SPARSE, len(value)]
                for index, item in enumerate(value):
                    if item:
                        packed += (index, item)
                return packed
            return [LIST, *map(self.put, value)]
        if kind is Site:
            number = self._sites.get(value)
            if number is None:
                record = self._record(kind, value)
                number = self._sites[value] = len(self.shared)
                self.shared.append(record)
            return [SHARED, number]
        if dataclasses.is_dataclass(kind):
            return self._record(kind, value)
        if isinstance(value, Mapping):
            names = tuple(map(str, value))
            return [self._shape(names), *map(self.put, value.values())]
        return self.put(_plain(value))

    def _record(self, kind: type[Any], value: Any) -> list[Any]:
        names = self._fields.get(kind)
        if names is None:
            names = self._fields[kind] = tuple(item.name for item in dataclasses.fields(kind))
        return [self._shape(names), *[self.put(getattr(value, name)) for name in names]]

    def _shape(self, names: tuple[str, ...]) -> int:
        return self.shapes.setdefault(names, len(self.shapes))


def _base36(number: int) -> str:
    text = _DIGITS[number % 36]
    while number >= 36:  # noqa: PLR2004
        number //= 36
        text = _DIGITS[number % 36] + text
    return text
