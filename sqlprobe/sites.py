"""
Call sites: the first line of the user's code below a statement, and the user's line that called it.

The walk runs on the application's thread and only looks at file names; lines are worked out by whoever reads.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from itertools import repeat
from typing import TYPE_CHECKING, Final

from sqlprobe.model import Site

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import CodeType, FrameType

_LIBRARY: Final = 0
_USER: Final = 1
_BARRIER: Final = 2  # above it the stack tells who started the loop, not who asked for the statement

_MAX_FRAMES: Final = 200  # a recursive walk deeper than this has no line worth its cost
_MAX_PLACES: Final = 20_000  # some 5 MB; a program has a few thousand lines that run SQL

_HERE: Final = os.path.dirname(os.path.abspath(__file__)) + os.sep  # noqa: PTH100, PTH120 - import time counts
_DEMO: Final = os.path.join(_HERE, "demo", "")  # noqa: PTH118 - the demo application is a user
_STDLIB: Final = tuple(
    {
        os.path.join(path, "")  # noqa: PTH118
        for name in ("stdlib", "platstdlib")
        if (path := sysconfig.get_paths().get(name))
    }
)
_BARRIERS: Final = ("asyncio/events.py", "asyncio/runners.py", "asyncio/base_events.py")  # of the standard library
_CONNECTION: Final = f"sqlalchemy{os.sep}engine{os.sep}base.py"  # where Connection.execute() is
_SESSION: Final = f"sqlalchemy{os.sep}orm{os.sep}session.py"  # where Session.execute() and its kin are
_ORM: Final = f"sqlalchemy{os.sep}orm{os.sep}context.py"  # where a session's execute() hands an ORM statement on
_TYPED_IN: Final = ("<stdin>", "<ipython-input", "<doctest", "<console>")

_MAX_KINDS: Final = 20_000  # names of files; code that is generated may have a new one each time

_kinds: dict[str, int] = {}  # co_filename -> what it is
_packages: tuple[str, ...] = ()  # the user's own packages inside site-packages
_path_map: tuple[tuple[str, str], ...] = ()
_NOBODY: Final = id(None)  # the caller's code, where there is none
_places: dict[tuple[int, int, int, int], Place] = {}


class Place:
    """
    A site before anybody looked: a code object and an instruction, and those of the caller. One object a place.
    """

    __slots__ = ("_site", "caller_code", "caller_lasti", "code", "lasti")

    def __init__(self, code: CodeType, lasti: int, caller_code: CodeType | None, caller_lasti: int) -> None:
        self.code = code
        self.lasti = lasti
        self.caller_code = caller_code
        self.caller_lasti = caller_lasti
        self._site: Site | None = None

    def site(self) -> Site:
        if self._site is None:
            caller = _site(self.caller_code, self.caller_lasti, None) if self.caller_code else None
            self._site = _site(self.code, self.lasti, caller)
        return self._site


def configure(packages: Iterable[str], path_map: Mapping[str, str]) -> None:
    """
    Take *packages* (import names) as the user's although they are installed, and show paths through *path_map*.

    `path_map` replaces a leading part of a path: `{"/srv/app/": ""}` shows files as the repository knows them.
    """
    global _packages, _path_map
    _packages = tuple(packages)
    _path_map = tuple(path_map.items())
    _kinds.clear()


def place_of(frame: FrameType | None) -> Place | None:
    """The user's line at or above *frame*; None where none is on the stack."""
    # Most often it is here, and the frame above is the user's too, or one that ends the search.
    if frame is not None:
        code, kinds = frame.f_code, _kinds
        if kinds.get(code.co_filename) == _USER and (above := frame.f_back) is not None:
            caller = above.f_code
            kind = kinds.get(caller.co_filename)
            if kind == _USER:
                known = _places.get((id(code), frame.f_lasti, id(caller), above.f_lasti))
            elif kind == _BARRIER:
                known = _places.get((id(code), frame.f_lasti, _NOBODY, 0))
            else:
                known = None
            if known is not None:
                return known
    return _walk(frame)


def _walk(frame: FrameType | None) -> Place | None:
    user: FrameType | None = None
    kinds = _kinds
    hopped = False
    for _ in repeat(None, _MAX_FRAMES):
        if frame is None:
            # An async engine runs the driver in a greenlet of its own: the caller's frames are its parent's.
            frame = None if hopped else _parent_frame()
            hopped = True
            if frame is None:
                break
        kind = kinds.get(frame.f_code.co_filename)
        if kind is None:
            kind = _classify(frame.f_code.co_filename)
        if kind:
            if kind == _BARRIER:
                break
            if user is not None:
                return _interned(user.f_code, user.f_lasti, frame.f_code, frame.f_lasti)
            user = frame
        frame = frame.f_back
    return None if user is None else _interned(user.f_code, user.f_lasti, None, 0)


def place_above_statement(*, by_session: bool, by_orm: bool = False) -> Place | None:
    """
    `place_of()` the code that runs a compiled statement, for capture, which calls this two calls below SQLAlchemy's.

    A frame that is looked at is first made, which is most of what a walk costs. So the five that are SQLAlchemy's for
    certain are skipped, and of an ORM statement those that a session has above them, where these lead to what they led
    to in every version known.
    """
    try:
        if by_session:
            frame = sys._getframe(10)  # noqa: SLF001
            if frame.f_code.co_filename.endswith(_SESSION):
                return place_of(frame.f_back)
        # A connection may run an ORM statement too.
        elif by_orm and sys._getframe(8).f_code.co_filename.endswith(_ORM):  # noqa: SLF001
            return place_of(sys._getframe(10).f_back)  # noqa: SLF001 - in a greenlet there is none: it goes on above
        else:
            frame = sys._getframe(7)  # noqa: SLF001
            if frame.f_code.co_filename.endswith(_CONNECTION):
                return place_of(frame.f_back)
    except ValueError:  # the stack is not that deep
        pass
    return place_of(sys._getframe(3))  # noqa: SLF001


def _interned(code: CodeType, lasti: int, caller: CodeType | None, caller_lasti: int) -> Place:
    key = (id(code), lasti, id(caller), caller_lasti)
    place = _places.get(key)
    if place is None:
        if len(_places) >= _MAX_PLACES:
            _places.clear()
        # The place holds both code objects, so their ids stay theirs for as long as the key is here.
        place = _places.setdefault(key, Place(code, lasti, caller, caller_lasti))
    return place


def _parent_frame() -> FrameType | None:
    greenlet = sys.modules.get("greenlet")
    if greenlet is None:
        return None
    parent = greenlet.getcurrent().parent
    return None if parent is None else parent.gr_frame


def _classify(name: str) -> int:
    kind = _kind(name.replace("\\", "/"), name)
    if len(_kinds) >= _MAX_KINDS:
        _kinds.clear()
    _kinds[name] = kind
    return kind


def _kind(path: str, name: str) -> int:
    if name.startswith("<"):
        return _USER if name.startswith(_TYPED_IN) else _LIBRARY
    # A template engine compiles its files under their own names, with lines that are not the file's.
    if not path.endswith((".py", ".ipynb")):
        return _LIBRARY
    if path.endswith(_BARRIERS) and name.startswith(_STDLIB):
        return _BARRIER
    if name.startswith(_HERE):
        return _USER if name.startswith(_DEMO) else _LIBRARY
    for folder in ("/site-packages/", "/dist-packages/"):
        _, found, below = path.rpartition(folder)
        if found:
            if below.startswith("_pytest/"):
                return _BARRIER  # it runs tests, and sixty frames above them are its own
            top = below.split("/", 1)[0].removesuffix(".py")
            dotted = below.replace("/", ".")
            mine = any(top == package or dotted.startswith(package + ".") for package in _packages)
            return _USER if mine else _LIBRARY
    return _LIBRARY if name.startswith(_STDLIB) else _USER


def _site(code: CodeType, lasti: int, caller: Site | None) -> Site:
    return Site(file=_shown(code.co_filename), line=_line(code, lasti), function=code.co_qualname, caller=caller)


def _line(code: CodeType, lasti: int) -> int:
    for start, end, line in code.co_lines():
        if start <= lasti < end and line is not None:
            return line
    return code.co_firstlineno


def _shown(path: str) -> str:
    for prefix, replacement in _path_map:
        if path.startswith(prefix):
            return replacement + path[len(prefix) :]
    try:
        here = os.path.join(os.getcwd(), "")  # noqa: PTH109, PTH118 - a Path would lose the separator at the end
    except OSError:  # the working directory has been removed
        return path
    return path.removeprefix(here)
