"""
What the ORM knows of a statement, read off its execution context: SQLAlchemy's private names stand in this file only.

Each read is guarded by its caller, which then knows less and goes on. `missing()` tells `doctor` which names this
version of SQLAlchemy lacks. `sqlalchemy.orm` is never imported from here: where the application has not, there is no
ORM statement to see.
"""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

LAZY: Final = 1  # a relationship, loaded when it was read
REFRESH: Final = 2  # columns of one object: expired, deferred, or session.refresh()
OTHER: Final = 3  # any other ORM statement: a query, or an eager load

# The private attributes that attribution needs, and what is lost without each.
_NEEDED: Final = (
    ("sqlalchemy.orm.loading", "_new_runid", "the query that loaded the parents"),
    ("sqlalchemy.orm.context", "QueryContext.default_load_options._lazy_loaded_from", "lazy loads"),
    ("sqlalchemy.orm.context", "QueryContext.default_load_options._refresh_state", "column loads and refreshes"),
    ("sqlalchemy.orm.state", "InstanceState.runid", "which objects were loaded together"),
    ("sqlalchemy.orm.state", "InstanceState.load_path", "the chain of relationships"),
)


class Load(NamedTuple):
    """
    An ORM statement: what sort of load it was and, for a lazy load or refresh, of which object.

    `marker` is the number drawn right after the driver returned: objects that this statement loads have the `runid`
    `marker + 1`, unless another thread drew a number in between: see `Digest.query_of`, for which `connection`
    identifies the one that ran it. `runid` and `parent` are those of the object that was read: `runid` None equals no
    other, `parent` is a hash of its identity. Capture hands it over as a plain tuple of this form, which costs a fifth
    of a named one.
    """

    kind: int
    compile_state: Any
    marker: int
    runid: int | None = None
    load_path: Any = None
    parent: int = 0
    connection: int = 0


kinds: dict[type, bool] = {}  # a compile state's class -> whether it is the ORM's, filled by is_orm()
_draw: Callable[[], int] | None = None


def is_orm(compile_state: object) -> bool:
    """Whether *compile_state* is that of an ORM SELECT or from_statement()."""
    cls = type(compile_state)
    known = kinds.get(cls)
    if known is None:
        known = kinds[cls] = hasattr(cls, "default_compile_options") and cls.__module__.startswith("sqlalchemy.orm.")
    return known


def load_of(compile_state: Any, options: Any, connection: int) -> tuple[Any, ...]:
    """
    The load (a plain tuple in the form of `Load`) behind a statement that has just come back.

    *options* is its `_sa_orm_load_options`, or None.

    Called right after the driver: SQLAlchemy draws a result's `runid` from a counter of the process next, so the number
    drawn here is the one before it.
    """
    marker = (_draw or _find_counter())()
    if options is not None:
        parent = options._lazy_loaded_from  # noqa: SLF001 - see the module's docstring
        if parent is not None:
            return (LAZY, compile_state, marker, parent.runid, parent.load_path, hash(parent.key), connection)
        parent = options._refresh_state  # noqa: SLF001
        if parent is not None:
            return (REFRESH, compile_state, marker, parent.runid, parent.load_path, hash(parent.key), connection)
    return (OTHER, compile_state, marker, None, None, 0, connection)


def relationship_of(load: Load) -> Any:
    """The relationship property that a lazy *load* loaded."""
    return relationship_in(load.compile_state)


def relationship_in(compile_state: Any) -> Any:
    """The same, of the compile state of a lazy load."""
    return compile_state.compile_options._current_path.path[-1]  # noqa: SLF001


def label_of(prop: Any) -> str:
    """`Model.relationship`, named where it was declared."""
    return f"{name_of(prop.parent)}.{prop.key}"


def name_of(mapper: Any) -> str:
    """The name of the class that *mapper* maps."""
    return str(mapper.class_.__name__)


def path_of(load: Load) -> tuple[Any, ...]:
    """The way from the queried entity down to the object that a lazy *load* was for: mappers and relationships."""
    return load.load_path.path if load.load_path is not None else ()


def root_of(load: Load) -> Any:
    """The mapper of the entity that the query behind the object of *load* selected, as far as the object knows."""
    path = path_of(load)
    return path[0].mapper if path else relationship_of(load).parent


def way_from_root(load: Load) -> tuple[Any, ...]:
    """The relationship properties from that entity down to the object of *load*, as far as the object knows."""
    return _relationships(path_of(load))


def way_between(above: Load, load: Load) -> tuple[Any, ...]:
    """
    The relationship properties from the object of lazy load *above* down to that of *load*, which it brought in.

    An object that was loaded by its primary key does not know of the way to the one it was read from.
    """
    brought = _relationships(above.compile_state.compile_options._current_path.path)  # noqa: SLF001
    known = way_from_root(load)
    return (brought[-1], *(known[len(brought) :] if known[: len(brought)] == brought else ()))


def _relationships(path: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(element for element in path if hasattr(element, "direction"))


def has(mapper: Any, prop: Any) -> bool:
    """Whether every object of *mapper* has the relationship *prop*: not only those of a subclass."""
    return bool(mapper.isa(prop.parent))


def self_referential(prop: Any) -> bool:
    """Whether the relationship *prop* yields objects that have it too."""
    return bool(prop.mapper.common_parent(prop.parent))


def to_one(prop: Any) -> bool:
    """Whether the relationship *prop* yields one object: joinedload then costs no further statement."""
    return not prop.uselist


def missing() -> list[tuple[str, str]]:
    """The private names that this SQLAlchemy lacks, each with what sqlprobe cannot tell without it. Imports the ORM."""
    import importlib

    gone = []
    for module, path, loss in _NEEDED:
        found: Any = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name, missing)
        if found is missing:
            gone.append((f"{module}.{path}", loss))
    return gone


def _find_counter() -> Callable[[], int]:
    """
    What draws from SQLAlchemy's counter: the `itertools.count` inside it where that is what there is, since its own
    function locks and costs four times as much; to draw is one step of CPython either way.
    """
    global _draw
    function: Callable[[], int] = sys.modules["sqlalchemy.orm.loading"]._new_runid  # noqa: SLF001
    within = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    counts = [value for value in within if type(value) is itertools.count]
    _draw = counts[0].__next__ if len(counts) == 1 else function
    return _draw
