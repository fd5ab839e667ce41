"""
What the ORM knows of a statement, read off its execution context: SQLAlchemy's private names stand in this file only.

Each read is guarded by its caller, which then knows less and goes on. `missing()` tells `doctor` which names this
version of SQLAlchemy lacks. `sqlalchemy.orm` is never imported from here: where the application has not, there is no
ORM statement to see.
"""

from __future__ import annotations

import itertools
import operator
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

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
    `marker + 1`, unless another thread drew a number in between: see `Digest.query_of`, for which `connection`, a weak
    reference, identifies the one that ran it. `runid` and `parent` are those of the object that was read: `runid` None
    equals no other, `parent` is a hash of its identity. Capture hands it over as a plain tuple of this form, which
    costs a fifth of a named one.
    """

    kind: int
    compile_state: Any
    marker: int
    runid: int | None = None
    load_path: Any = None
    parent: int = 0
    connection: object = None


kinds: dict[type, bool] = {}  # a compile state's class -> whether it is the ORM's, filled by is_orm()
draw: Callable[[], int] | None = None  # SQLAlchemy's counter of results, once find_counter() has found it


def is_orm(compile_state: object) -> bool:
    """Whether *compile_state* is that of an ORM SELECT or from_statement()."""
    cls = type(compile_state)
    known = kinds.get(cls)
    if known is None:
        known = kinds[cls] = hasattr(cls, "default_compile_options") and cls.__module__.startswith("sqlalchemy.orm.")
    return known


def load_of(compile_state: Any, options: Any, connection: object) -> tuple[Any, ...]:
    """
    The load (a plain tuple in the form of `Load`) behind a statement that has just come back; not of a lazy load, which
    capture itself writes down.

    *options* is its `_sa_orm_load_options`, or None.

    Called right after the driver: SQLAlchemy draws a result's `runid` from a counter of the process next, so the number
    drawn here is the one before it.
    """
    marker = (draw or find_counter())()
    if options is not None:
        parent = options._refresh_state  # noqa: SLF001 - see the module's docstring
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


def is_eager(compile_state: Any) -> bool:
    """Whether a statement that is no lazy load loads a relationship ahead: `selectinload` and its kin."""
    return bool(compile_state.compile_options._current_path.path)  # noqa: SLF001


def first_of(compile_state: Any) -> Any:
    """The mapper that the way of an eager load begins with."""
    return compile_state.compile_options._current_path.path[0].mapper  # noqa: SLF001


def entity_of(compile_state: Any) -> Any:
    """The mapper of the first entity that a query selects, None where it selects none."""
    for entity in _entities(compile_state):
        if type(entity).__name__ == "_MapperEntity":
            return entity.mapper
    return None


def form_of(compile_state: Any) -> tuple[str, tuple[str, ...]]:
    """
    How a query was written ("select", "query", "get" or "from_statement"), and what it selects, as Python.

    What it selects is empty where Python cannot be told from it: aliases, functions, labels.
    """
    names = []
    for entity in _entities(compile_state):
        insp = getattr(entity, "entity_zero", None)
        if insp is None or getattr(insp, "is_aliased_class", False):
            return _form(compile_state), ()
        if type(entity).__name__ == "_MapperEntity":
            names.append(name_of(insp.mapper))
        else:
            key = getattr(getattr(entity, "expr", None), "key", None) or getattr(entity, "_label_name", None)
            if not key or key not in insp.mapper.all_orm_descriptors:
                return _form(compile_state), ()
            names.append(f"{name_of(insp.mapper)}.{key}")
    return _form(compile_state), tuple(names)


def _form(compile_state: Any) -> str:
    if "FromStatement" in type(compile_state).__name__:
        return "from_statement"
    if compile_state.compile_options._use_legacy_query_style:  # noqa: SLF001
        return "query"
    return "get" if is_get(compile_state) else "select"


def is_get(compile_state: Any) -> bool:
    """Whether a query is that of `session.get()`: the mapper's own condition on its primary key."""
    for criterion in getattr(compile_state.select_statement, "_where_criteria", ()):
        clauses = getattr(criterion, "clauses", None) or [criterion]
        return all(str(getattr(getattr(each, "right", None), "key", "")).startswith("pk_") for each in clauses)
    return False


def _entities(compile_state: Any) -> Sequence[Any]:
    found: Sequence[Any] = compile_state._entities  # noqa: SLF001
    return found


DEFERRED: Final = "deferred"
EXPIRED: Final = "expired"
REFRESHED: Final = "refresh"


def refresh_of(compile_state: Any) -> tuple[str, Any, tuple[Any, ...]]:
    """
    Of the statement that loaded columns of one object: why, its mapper, and the column properties if DEFERRED.

    `session.refresh(object)` loads all; what has expired includes the primary key; the rest was left out before.
    """
    mapper = entity_of(compile_state)
    names = compile_state.compile_options._only_load_props  # noqa: SLF001
    if names is None:
        return REFRESHED, mapper, ()
    keys = {mapper.get_property_by_column(column).key for column in mapper.primary_key}
    if keys & names:
        return EXPIRED, mapper, ()
    return DEFERRED, mapper, tuple(mapper.attrs[name] for name in sorted(names) if name in mapper.column_attrs)


def is_deferred(prop: Any) -> bool:
    """Whether the mapping leaves the column property *prop* out of queries."""
    return bool(prop.deferred)


def option_for(compile_state: Any, way: tuple[Any, ...]) -> str:
    """The loader option that a query was given for the relationship or column at the end of *way*, "" for none."""
    for key, load in compile_state.attributes.items():
        if isinstance(key, tuple) and key[0] == "loader" and isinstance(key[1], tuple):
            props = tuple(element for element in key[1] if hasattr(element, "strategy_key"))
            strategy = dict(getattr(load, "strategy", None) or ())
            if props == way and "eager_from_alias" in (getattr(load, "local_opts", None) or ()):
                return "contains_eager"
            if props == way and strategy:
                return _OPTIONS.get(strategy.get("lazy"), "defer" if strategy.get("deferred") else "undefer")
    return ""


_OPTIONS: Final = {
    "joined": "joinedload", False: "joinedload", "selectin": "selectinload", "subquery": "subqueryload",
    "immediate": "immediateload", "select": "lazyload", "raise": "raiseload", "raise_on_sql": "raiseload",
}  # fmt: skip


class Lookup(NamedTuple):
    """A query for the rows that have one value in one column, with nothing else in it that chooses among them."""

    attribute: str  # "Order.customer_id"
    selects: tuple[str, ...]  # ("Order",), ("Order.id", "Order.amount") or, as aggregates, ("func.count()",)
    aggregates: bool
    order: tuple[str, ...] = ()  # ("Order.id.desc()",)


def lookup_of(compile_state: Any) -> Lookup | None:
    """What a query looks up, None where it is more than that or Python cannot be told from it."""
    statement = compile_state.select_statement
    inner = _counted(statement)
    if inner is not None:
        statement = inner
    column = None if any(_is_set(getattr(statement, name, None)) for name in _CHOOSING) else _compared(statement)
    if column is None:
        return None
    selected = [column, *statement._raw_columns]  # noqa: SLF001
    entities = [each._annotations.get("parententity") for each in selected if hasattr(each, "_annotations")]  # noqa: SLF001
    mapper: Any = next((entity for entity in entities if entity is not None), None)
    if getattr(mapper, "is_aliased_class", True) or mapper.polymorphic_on is not None:
        return None
    attribute = _attribute(mapper, column)
    if not attribute:
        return None
    selects = () if inner is not None else form_of(compile_state)[1]
    if not selects:
        aggregates = ("func.count()",) if inner is not None else _aggregates(compile_state, mapper)
        limited = statement._limit_clause is not None  # noqa: SLF001
        return Lookup(attribute, aggregates, aggregates=True) if aggregates and not limited else None
    if any(name.partition(".")[0] != name_of(mapper) for name in selects):
        return None
    if statement._limit_clause is not None and not (column.unique or tuple(mapper.primary_key) == (column,)):  # noqa: SLF001
        return None  # the first of several
    order = [_ordered(mapper, clause) for clause in statement._order_by_clauses]  # noqa: SLF001
    return Lookup(attribute, selects, aggregates=False, order=tuple(order)) if all(order) else None


# What else in a SELECT decides which rows it returns; and loader options, which a query without them would lack.
_CHOOSING: Final = (
    "_setup_joins", "_legacy_setup_joins", "_group_by_clauses", "_having_criteria", "_distinct", "_distinct_on",
    "_offset_clause", "_fetch_clause", "_for_update_arg", "_independent_ctes", "_with_options", "_prefixes",
)  # fmt: skip


def _is_set(part: object) -> bool:
    return part is not None and part is not False and part != ()


def _attribute(mapper: Any, column: Any) -> str:
    """`Order.customer_id`, empty where *column* is none of *mapper*."""
    prop = mapper._columntoproperty.get(column) if column.__visit_name__ == "column" else None  # noqa: SLF001
    return f"{name_of(mapper)}.{prop.key}" if prop is not None else ""


_DIRECTIONS: Final = ("asc", "desc", "nulls_first", "nulls_last")


def _ordered(mapper: Any, clause: Any) -> str:
    """`Order.id.desc()`, empty where Python cannot be told from a clause of ORDER BY."""
    behind = ""
    while clause.__visit_name__ != "column":
        modifier = getattr(getattr(clause, "modifier", None), "__name__", "").removesuffix("_op")
        if modifier in _DIRECTIONS:
            behind = f".{modifier}(){behind}"
        elif clause.__visit_name__ != "label_reference":
            return ""
        clause = clause.element
    attribute = _attribute(mapper, clause)
    return attribute and attribute + behind


def _compared(statement: Any) -> Any:
    """The column that the only condition of a SELECT compares with a value, None where there is no such thing."""
    criteria = statement._where_criteria  # noqa: SLF001
    if len(criteria) != 1 or getattr(criteria[0], "operator", None) is not operator.eq:
        return None
    sides = {each.__visit_name__: each for each in (criteria[0].left, criteria[0].right)}
    return sides["column"] if sides.keys() == {"column", "bindparam"} else None


def _counted(statement: Any) -> Any:
    """The SELECT whose rows `Query.count()` counts, None where a statement is no such thing."""
    sources, columns = statement._from_obj, statement._raw_columns  # noqa: SLF001
    if len(sources) != 1 or len(columns) != 1 or getattr(columns[0], "name", None) != "count":
        return None
    if not _counts_all(getattr(columns[0], "clauses", ("",))):
        return None
    inner = sources[0]
    while (within := getattr(inner, "element", None)) is not None:
        inner = within
    return inner if getattr(inner, "is_select", False) and hasattr(inner, "_where_criteria") else None


def _counts_all(arguments: Iterable[Any]) -> bool:
    """Whether *arguments* are those of `count(*)`. Not asked of their text: to compile it may warn."""
    return all(getattr(each, "is_literal", False) and each.name == "*" for each in arguments)


def _aggregates(compile_state: Any, mapper: Any) -> tuple[str, ...]:
    """The functions over rows that a query selects, as Python; empty if it selects anything else too."""
    written = []
    for entity in _entities(compile_state):
        function: Any = getattr(entity, "expr", None)
        while type(function).__name__ == "Label":
            function = function.element
        name, arguments = getattr(function, "name", None), list(getattr(function, "clauses", ()))
        if name not in _AGGREGATES or len(arguments) > 1:
            return ()
        if _counts_all(arguments):
            written.append(f"func.{name}()")
        elif attribute := _attribute(mapper, arguments[0]):
            written.append(f"func.{name}({attribute})")
        else:
            return ()
    return tuple(written)


_AGGREGATES: Final = ("count", "sum", "min", "max", "avg")


def locks_rows(compile_state: Any) -> bool:
    """Whether a query is `with_for_update()`, whatever its database makes of that."""
    return getattr(compile_state.select_statement, "_for_update_arg", None) is not None


def joined_collections(compile_state: Any) -> list[tuple[Any, ...]]:
    """The ways (relationships) to each collection that a query loads by a join, the longest of each way only."""
    if not getattr(compile_state, JOINS, False):
        return []
    ways = []
    for key in compile_state.attributes:
        if isinstance(key, tuple) and len(key) == 2 and key[0] in _JOINED:  # noqa: PLR2004
            way = _relationships(key[1])
            while way and not way[-1].uselist:
                way = way[:-1]  # one object more for each row is no row more
            if way and way not in ways:
                ways.append(way)
    return [way for way in ways if not any(other != way and other[: len(way)] == way for other in ways)]


def joins_by_hand(compile_state: Any) -> bool:
    """Whether a query names joins of its own for what it loads: `contains_eager()`."""
    return any(isinstance(key, tuple) and key[0] == _JOINED[1] for key in compile_state.attributes)


def primary_key_of(mapper: Any) -> str | None:
    """The name of the attribute that is the primary key of *mapper*, None where it has several."""
    if len(mapper.primary_key) != 1:
        return None
    return str(mapper.get_property_by_column(mapper.primary_key[0]).key)


JOINS: Final = "multi_row_eager_loaders"  # of a compile state: whether a collection is joined
_JOINED: Final = ("eager_row_processor", "user_defined_eager_row_processor")


def is_alias(load: Load) -> bool:
    """Whether the query behind the object of *load* selected an alias, whose name in the program nobody here knows."""
    path = path_of(load)
    return bool(path) and bool(getattr(path[0], "is_aliased_class", False))


def mappers() -> list[Any]:
    """Every mapper of the process, in no order."""
    module = sys.modules.get("sqlalchemy.orm.mapper")
    registries: Any = getattr(module, "_all_registries", tuple)()  # private: without it nothing is known of them
    return [mapper for registry in registries for mapper in registry.mappers]


def mapper_of(schema: str, table: str) -> Any:
    """
    The mapper of the table; None where none is known, or several are. One of a hierarchy that shares a table is the
    base's. A table that is mapped without a schema is found by its name.
    """
    found = []
    for mapper in mappers():
        mapped = mapper.local_table
        if getattr(mapped, "name", None) != table or getattr(mapped, "schema", None) not in {None, schema}:
            continue
        if mapper.inherits is None or mapper.inherits.local_table is not mapped:
            found.append(mapper)
    return found[0] if len(found) == 1 else None


def has_attribute(model: str, name: str) -> bool | None:
    """Whether a mapped class called *model* has the attribute *name*; None where no such class is known yet."""
    found = [mapper.class_ for mapper in mappers() if name_of(mapper) == model]
    return any(hasattr(cls, name) for cls in found) if found else None


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


def find_counter() -> Callable[[], int]:
    """
    What draws from SQLAlchemy's counter: the `itertools.count` inside it where that is what there is, since its own
    function locks and costs four times as much; to draw is one step of CPython either way.
    """
    global draw
    function: Callable[[], int] = sys.modules["sqlalchemy.orm.loading"]._new_runid  # noqa: SLF001
    within = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    counts = [value for value in within if type(value) is itertools.count]
    draw = counts[0].__next__ if len(counts) == 1 else function
    return draw
