"""
Places: the line of a model's file where a class, an attribute or a table is declared.

Read from the source with `ast`, a file once; nothing is imported that is not there already.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlprobe import sites
from sqlprobe.model import Site

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(slots=True)
class _Source:
    """One file: lines of classes and their attributes, and of calls by the name that is their first argument."""

    file: str
    classes: dict[str, int] = field(default_factory=dict)
    attributes: dict[tuple[str, str], int] = field(default_factory=dict)
    named: dict[tuple[str, str], int] = field(default_factory=dict)  # (function, name) -> line


class Places:
    """Where models are declared. What cannot be found has no site."""

    def __init__(self, modules: Iterable[str] = ()) -> None:
        self._sources: dict[str, _Source | None] = {}
        self._modules = list(dict.fromkeys(modules))

    def know(self, module: str) -> None:
        """Look for tables in *module* too."""
        if module not in self._modules:
            self._modules.append(module)

    def of_class(self, cls: type) -> Site | None:
        source = self._source(cls.__module__)
        if source is None or cls.__qualname__ not in source.classes:
            return None
        return Site(source.file, source.classes[cls.__qualname__], cls.__qualname__)

    def of_attribute(self, cls: type, name: str) -> Site | None:
        """Where *cls* or the class that it inherits from sets *name*; the class, if that cannot be found."""
        for each in cls.__mro__:
            source = self._source(each.__module__)
            line = source.attributes.get((each.__qualname__, name)) if source is not None else None
            if source is not None and line is not None:
                return Site(source.file, line, f"{each.__qualname__}.{name}")
        return self.of_class(cls)

    def of_named(self, name: str, *functions: str, near: type | None = None) -> Site | None:
        """Where one of *functions* (`Table`, `Index`) is called with *name* first, or as its `name=`."""
        modules = [near.__module__] if near is not None else self._modules
        for module in modules:
            source = self._source(module)
            for function in functions if source is not None else ():
                if source is not None and (function, name) in source.named:
                    return Site(source.file, source.named[function, name], name)
        return None

    def _source(self, module: str) -> _Source | None:
        if module not in self._sources:
            self._sources[module] = _read(module)
        return self._sources[module]


def _read(module: str) -> _Source | None:
    path = getattr(sys.modules.get(module), "__file__", None)
    if not path or not path.endswith(".py"):
        return None
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    source = _Source(sites._shown(path))  # noqa: SLF001 - as every site is shown
    _walk(tree, (), source)
    return source


def _walk(node: ast.AST, within: tuple[str, ...], source: _Source) -> None:
    for child in ast.iter_child_nodes(node):
        inside = within
        if isinstance(child, ast.ClassDef):
            inside = (*within, child.name)
            name = ".".join(inside)
            source.classes[name] = child.lineno
            for statement in child.body:
                for attribute in _assigned(statement):
                    source.attributes.setdefault((name, attribute), statement.lineno)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = (*within, child.name, "<locals>")
        elif isinstance(child, ast.Call):
            _note_call(child, source)
        _walk(child, inside, source)


def _assigned(statement: ast.stmt) -> Iterable[str]:
    targets: list[Any] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    elif isinstance(statement, ast.FunctionDef):  # declared_attr
        yield statement.name
    for target in targets:
        if isinstance(target, ast.Name):
            yield target.id


def _note_call(call: ast.Call, source: _Source) -> None:
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    given = [*call.args[:1], *(keyword.value for keyword in call.keywords if keyword.arg == "name")]
    for value in given:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            source.named.setdefault((function, value.value), call.lineno)
