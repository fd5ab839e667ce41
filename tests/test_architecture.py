"""Imports go down only, and `import sqlprobe` loads nothing that a user might not have or not want."""

from __future__ import annotations

import ast
import functools
import graphlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import sqlprobe
import sqlprobe_exporters

pytestmark = pytest.mark.once

if TYPE_CHECKING:
    from collections.abc import Iterator

# Lowest first. A name stands for a module and everything in it. What is in one layer may use each other, but never in
# a circle; what is in no layer fails: a new module is placed here when it is written.
LAYERS: tuple[set[str], ...] = (
    {"sqlprobe.faults", "sqlprobe.model"},
    {"sqlprobe.baseline", "sqlprobe.budgets"},
    {"sqlprobe.fingerprint", "sqlprobe.ignores", "sqlprobe.settings", "sqlprobe.sites", "sqlprobe.stats"},
    {
        "sqlprobe.advice",
        "sqlprobe.autoscope",
        "sqlprobe.capture",
        "sqlprobe.detectors",
        "sqlprobe.lag",
        "sqlprobe.loops",
        "sqlprobe.mute",
        "sqlprobe.ledger",
        "sqlprobe.orm",
        "sqlprobe.plans",
        "sqlprobe.pool",
        "sqlprobe.html",
        "sqlprobe.render",
        "sqlprobe.report",
        "sqlprobe.scopes",
        "sqlprobe.timeline",
        "sqlprobe.walks",
        "sqlprobe.verdict",
    },
    {"sqlprobe.growth", "sqlprobe.probe", "sqlprobe.recording"},
    {"sqlprobe"},  # the public names, in __init__.py
    {
        "sqlprobe.__main__",
        "sqlprobe.audit",
        "sqlprobe.bootstrap",
        "sqlprobe.cli",
        "sqlprobe.demo",
        "sqlprobe.doctor",
        "sqlprobe.explaining",
        "sqlprobe.grafana",
        "sqlprobe.integrations",
        "sqlprobe.observer",
        "sqlprobe.pytest_plugin",
        "sqlprobe.run",
    },
    {"sqlprobe_exporters"},
)
REQUIRED = {"sqlalchemy", "rich", "sqlglot"}
# These belong to something that the user has chosen to install; they are loaded when it is used.
MAY_IMPORT_OPTIONAL = (
    "sqlprobe.bootstrap",  # its folder is on a program's path, and what it imports there is the program's own
    "sqlprobe.demo",
    "sqlprobe.html",
    "sqlprobe.integrations",
    "sqlprobe.pytest_plugin",
    "sqlprobe_exporters",
)
# Standard library that costs milliseconds or side effects, and that SQLAlchemy does not load itself.
HEAVY = {
    "asyncio",
    "concurrent",
    "email",
    "html",
    "http",
    "importlib.metadata",
    "multiprocessing",
    "select",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "tempfile",
    "unittest",
    "urllib.request",
    "xml",
}


@dataclass(frozen=True, slots=True)
class Import:
    importer: str
    imported: str
    line: int
    at_runtime: bool  # not only for the type checker
    at_load: bool  # not inside a function

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def sources() -> dict[str, Path]:
    found = {}
    for package in (sqlprobe, sqlprobe_exporters):
        root = Path(package.__file__).parent
        for path in sorted(root.rglob("*.py")):
            parts = [root.name, *path.relative_to(root).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


SOURCES = sources()


def imports_of(name: str, source: str, *, package: bool = False) -> Iterator[Import]:
    def visit(node: ast.AST, *, runtime: bool, load: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, alias.name, node.lineno, runtime, runtime and load)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = name.split(".")[: None if package and node.level == 1 else -(node.level - package)]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                # A name of a package may be one of its modules.
                inner = f"{base}.{alias.name}"
                yield Import(name, inner if inner in SOURCES else base, node.lineno, runtime, runtime and load)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                yield from visit(child, runtime=False, load=load)
            for child in node.orelse:
                yield from visit(child, runtime=runtime, load=load)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, runtime=runtime, load=load and not inside)

    yield from visit(ast.parse(source), runtime=True, load=True)


def layer_of(name: str) -> int:
    found = {
        len(entry): number
        for number, layer in enumerate(LAYERS)
        for entry in layer
        if name == entry or (name.startswith(f"{entry}.") and entry != "sqlprobe")
    }
    if not found:
        pytest.fail(f"{name} is in no layer: place it in LAYERS of tests/test_architecture.py")
    return found[max(found)]


@functools.cache
def all_imports() -> list[Import]:
    return [
        found
        for name, path in SOURCES.items()
        for found in imports_of(name, path.read_text(), package=path.name == "__init__.py")
    ]


def ours(name: str) -> bool:
    return name.partition(".")[0] in {"sqlprobe", "sqlprobe_exporters"}


@pytest.mark.once
def test_every_module_has_a_layer():
    for name in SOURCES:
        layer_of(name)


@pytest.mark.long
@pytest.mark.once
def test_imports_go_down():
    upward = [
        str(found)
        for found in all_imports()
        if ours(found.imported) and layer_of(found.imported) > layer_of(found.importer)
    ]

    assert [] == upward


@pytest.mark.once
def test_nothing_imports_itself_in_a_circle():
    graph = {name: set() for name in SOURCES}
    for found in all_imports():
        if ours(found.imported) and found.at_load and found.imported != found.importer:
            graph[found.importer].add(found.imported)

    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.once
def test_exporters_use_public_names_only():
    private = [
        str(found)
        for found in all_imports()
        if found.importer.startswith("sqlprobe_exporters")
        and found.imported.startswith("sqlprobe.")
        and found.imported != "sqlprobe.audit"  # public too, and not for `import sqlprobe` to load
        and found.at_runtime
    ]

    assert [] == private


@pytest.mark.once
def test_optional_libraries_are_imported_where_they_are_used():
    optional = [
        str(found)
        for found in all_imports()
        if found.at_load
        and not found.importer.startswith(MAY_IMPORT_OPTIONAL)
        and found.imported.partition(".")[0] not in REQUIRED | sys.stdlib_module_names
        and not ours(found.imported)
    ]

    assert [] == optional


@pytest.mark.once
def test_the_core_imports_the_orm_only_if_the_application_has():
    early = [
        str(found)
        for found in all_imports()
        if found.at_load
        and not found.importer.startswith(MAY_IMPORT_OPTIONAL)
        and found.imported.startswith(("sqlalchemy.orm", "sqlalchemy.ext"))
    ]

    assert [] == early


def loaded_by(*statements: str) -> list[set[str]]:
    """The modules loaded in a new interpreter after each of *statements*."""
    script = ["import json, sys", "seen = []"]
    for statement in statements:
        script += [statement, "seen.append(sorted(sys.modules))"]
    script.append("print(json.dumps(seen))")
    done = subprocess.run([sys.executable, "-c", "\n".join(script)], check=True, capture_output=True, text=True)
    return [set(names) for names in json.loads(done.stdout)]


def test_import_sqlprobe_loads_little():
    before, after = loaded_by("import sqlalchemy", "import sqlprobe")

    new = {name for name in after - before if name.partition(".")[0] != "sqlprobe"}
    # sysconfig's data is a module too, named after the platform.
    modules = {name.partition(".")[0] for name in new if not name.startswith("_sysconfigdata_")}
    foreign = modules - sys.stdlib_module_names
    heavy = {name for name in new if not HEAVY.isdisjoint({name, name.partition(".")[0]})}

    assert (set(), set()) == (foreign, heavy)


def test_import_sqlprobe_loads_no_command():
    (loaded,) = loaded_by("import sqlprobe")

    above = {name for name in loaded if ours(name) and layer_of(name) > layer_of("sqlprobe")}

    assert set() == above


@pytest.mark.parametrize(
    ("name", "package", "source", "expected"),
    [
        ("sqlprobe.stats", False, "import os.path", [("os.path", True, True)]),
        ("sqlprobe.stats", False, "from sqlprobe import model", [("sqlprobe.model", True, True)]),
        ("sqlprobe.stats", False, "from sqlprobe import attach", [("sqlprobe", True, True)]),
        ("sqlprobe.stats", False, "from .model import Site", [("sqlprobe.model", True, True)]),
        ("sqlprobe.stats", False, "from . import model", [("sqlprobe.model", True, True)]),
        ("sqlprobe", True, "from .model import Site", [("sqlprobe.model", True, True)]),
        ("sqlprobe.demo.app", False, "from ..model import Site", [("sqlprobe.model", True, True)]),
        ("sqlprobe.stats", False, "def f():\n import rich", [("rich", True, False)]),
        ("sqlprobe.stats", False, "if TYPE_CHECKING:\n import rich", [("rich", False, False)]),
        ("sqlprobe.stats", False, "try:\n import rich\nexcept ImportError: pass", [("rich", True, True)]),
    ],
)
@pytest.mark.once
def test_imports_are_read_right(name, package, source, expected):
    found = [(each.imported, each.at_runtime, each.at_load) for each in imports_of(name, source, package=package)]

    assert expected == found
