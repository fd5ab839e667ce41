"""
A program: every function of sqlprobe that runs in the application's way is made to raise, one after the other.

The fault points are put into each function as its module is imported (`_Faults`), so that none can be forgotten: at its
begin, or, where a function guards itself, inside its guard. A workload says what the application did; it must say the
same whichever function raises. Prints JSON: for each point what went wrong, the points that nothing reached, and those
that only readers and set-up reached.
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

HERE = Path(__file__).parent


class InjectedError(RuntimeError):
    """What the function under test raises."""


class Switch:
    """Which point raises, and what was reached; `inside` is True while the application is at work."""

    def __init__(self) -> None:
        self.points: set[str] = set()
        self.inside = False
        self.armed = ""
        self.raised = 0
        self.reached: set[str] = set()
        self.elsewhere: set[str] = set()

    def at(self, point: str) -> None:
        if not self.inside:
            self.elsewhere.add(point)
            return
        self.reached.add(point)
        if point == self.armed:
            self.raised += 1
            raise InjectedError(point)


switch = Switch()


def _guards(node: ast.stmt) -> bool:
    """Whether *node* is a try statement that lets no Exception through."""
    return isinstance(node, ast.Try) and any(
        (handler.type is None or (isinstance(handler.type, ast.Name) and handler.type.id == "Exception"))
        and not any(isinstance(inner, ast.Raise) for inner in ast.walk(handler))
        for handler in node.handlers
    )


class _Instrument(ast.NodeTransformer):
    def __init__(self, module: str) -> None:
        self._path = [module.removeprefix("sqlprobe.")]

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._inside(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self._inside(node)
        if all(isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant) for each in node.body):
            return node  # a protocol's
        point = ".".join([*self._path, node.name])
        switch.points.add(point)
        call = ast.parse(f"__sqlprobe_fault__({point!r})").body[0]
        guard = next((each for each in node.body if _guards(each)), None)
        if isinstance(guard, ast.Try):
            guard.body.insert(0, call)
        else:
            first = 0
            while isinstance(node.body[first], ast.Global | ast.Nonlocal) or (
                isinstance(node.body[first], ast.Expr) and isinstance(node.body[first].value, ast.Constant)
            ):
                first += 1
                if first == len(node.body):
                    break
            node.body.insert(first, call)
        return node

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def _inside(self, node: Any) -> ast.AST:
        self._path.append(node.name)
        self.generic_visit(node)
        self._path.pop()
        return node


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname: str) -> Any:
        """Compiled anew: what is cached has no fault points."""
        source = self.get_data(self.path)
        return self.source_to_code(source, self.path)

    def source_to_code(self, data: Any, path: Any, *_: Any, **__: Any) -> Any:
        tree = _Instrument(self.name).visit(ast.parse(data, path))
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__sqlprobe_fault__"] = switch.at
        super().exec_module(module)


class _Faults:
    """Finds the modules of sqlprobe, and of its exporters, as usual, and loads them with fault points."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        if name.partition(".")[0] not in {"sqlprobe", "sqlprobe_exporters"}:
            return None
        for finder in sys.meta_path:
            if isinstance(finder, _Faults):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
                spec.loader = _Loader(name, spec.loader.path)
            if spec is not None:
                return spec
        return None


def main() -> None:
    import asyncio  # noqa: F401 - the workload's; imported before anything is counted

    sys.meta_path.insert(0, _Faults())
    from sqlprobe import autoscope, capture, faults, ignores, orm, scopes
    from sqlprobe.detectors import n_plus_one

    source = (HERE / "workload.py").read_text()
    code_of = lambda: compile(source, str(HERE / "workload.py"), "exec")  # noqa: E731

    def run() -> tuple[Any, int]:
        """What the workload says, and how many faults were counted. Its code is new each time: so are its lines to us."""
        faults.forget()
        autoscope._runners.clear()
        # What made them is not reached again otherwise.
        capture._shapes, orm.draw = {}, None
        for module in [each for name, each in sys.modules.items() if name.partition(".")[0] == "sqlprobe"]:
            for each in vars(module).values():
                getattr(each, "cache_clear", lambda: None)()
        n_plus_one._mended.clear()
        scopes._open.clear()
        scopes.current.set(None)
        ignores.forget()
        switch.raised = 0
        module = sys.modules["workload"] = types.ModuleType("workload")
        module.__dict__["switch"] = switch
        exec(code_of(), module.__dict__)
        return module.work(), sum(fault.count for fault in faults.told())

    expected, counted = run()
    again, _ = run()
    wrong: dict[str, str] = {}
    missed: list[str] = []
    if counted or expected != again:
        wrong["(none)"] = f"{counted} faults without any fault; {expected} and then {again}"
    points = sorted(switch.reached)
    # Each so many of them, or these; without arguments all.
    only = [] if len(sys.argv) > 1 and sys.argv[1].isdecimal() else sys.argv[1:]
    stride = int(sys.argv[1]) if len(sys.argv) > 1 and not only else 1
    for point in only or points[::stride]:
        switch.armed = point
        try:
            said, counted = run()
        except BaseException as error:  # noqa: BLE001 - that is what must not be
            wrong[point] = f"reached the application: {type(error).__name__}: {error}"
            if only:
                import traceback

                traceback.print_exc()
        else:
            if said != expected:
                wrong[point] = f"the application got {[a for a, b in zip(said, expected, strict=False) if a != b][:2]}"
            elif not switch.raised:
                missed.append(point)
            elif not counted:
                wrong[point] = f"raised {switch.raised} times, counted {counted}"
        finally:
            switch.armed = ""
            switch.inside = False
    elsewhere = switch.elsewhere - switch.reached
    nowhere = switch.points - switch.reached - switch.elsewhere
    told = {
        "points": points,
        "wrong": wrong,
        "missed": missed,
        "elsewhere": sorted(elsewhere),
        "nowhere": sorted(nowhere),
    }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
