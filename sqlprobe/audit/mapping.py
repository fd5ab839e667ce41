"""
Models: what a review finds by reading them. Nothing is executed on a database.

A check is a generator of findings and its docstring the rule's page. It takes the `Models`, what was seen at run time,
and the options.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import sys
import warnings
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    Column,
    Enum,
    ForeignKeyConstraint,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    UniqueConstraint,
)
from sqlalchemy.exc import InvalidRequestError, SAWarning

from sqlprobe.audit import code
from sqlprobe.audit.places import Places
from sqlprobe.audit.seen import cost
from sqlprobe.model import Finding, Severity, SqlprobeError
from sqlprobe.orm import label_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlprobe.audit.options import Options
    from sqlprobe.audit.seen import Seen
    from sqlprobe.model import Site

MANY_INDEXES: Final = 8  # of one table, without its keys: a row that is written costs as many more writes
WIDE: Final = 1024  # bytes of a value, from which on it is most of a row
MAX_NAMED: Final = 12  # names in a piece of evidence
MAX_DIMENSIONS: Final = {"vector": 2000, "halfvec": 4000}  # that an index of pgvector takes

_HOLDER: Final = re.compile(
    r"(?:^|_)(?:tenant|organi[sz]ation|org|workspace|client_account|customer_account)(?:_(?:id|uuid|key|pk))?$"
)
# A child may well have another author than its parent.
_PERSON: Final = re.compile(
    r"(?:^|_)(?:user|author|owner|creator|editor|actor|assignee|reviewer|approver|sender|recipient|person|member|"
    r"employee|manager|by|(?<!client_)(?<!customer_)account)(?:_|$)"
)
_WEAK_TABLES: Final = 4
_STRONG_TABLES: Final = 3


class ModelsError(SqlprobeError, ValueError):
    """Models that cannot be had: the message says what was named, what was found, and what to do."""


@dataclass(frozen=True)
class Models:
    """Metadata and mappers of an application, and where they are declared."""

    metadatas: tuple[MetaData, ...]
    mappers: tuple[Any, ...] = ()
    places: Places = field(default_factory=Places)

    @cached_property
    def tables(self) -> tuple[Table, ...]:
        found = [table for metadata in self.metadatas for table in metadata.tables.values()]
        return tuple(sorted(found, key=lambda table: table.fullname))

    @cached_property
    def _mappers_of(self) -> Mapping[Table, list[Any]]:
        found: dict[Table, list[Any]] = {}
        for mapper in self.mappers:
            if isinstance(mapper.local_table, Table):
                found.setdefault(mapper.local_table, []).append(mapper)
        # The class that declares the table before those that inherit it.
        return {table: sorted(each, key=lambda mapper: len(mapper.class_.__mro__)) for table, each in found.items()}

    def mapper_of(self, table: Table) -> Any | None:
        found = self._mappers_of.get(table)
        return found[0] if found else None

    def site_of(self, item: Table | Column[Any]) -> Site | None:
        """Where a table or a column is declared."""
        table = item if isinstance(item, Table) else item.table
        mapper = self.mapper_of(table)
        if mapper is None:
            return self.places.of_named(table.name, "Table")
        if isinstance(item, Table):
            return self.places.of_class(mapper.class_)
        for each in self._mappers_of[table]:
            # `in` would compare columns, which makes an expression of SQL of each.
            key = next((prop.key for prop in each.column_attrs if any(item is one for one in prop.columns)), None)
            if key is not None:
                return self.places.of_attribute(each.class_, key)
        return self.places.of_class(mapper.class_)

    def site_of_index(self, table: Table, name: str) -> Site | None:
        """Where an index is declared: by name, or with `index=True` on its column."""
        mapper = self.mapper_of(table)
        near = mapper.class_ if mapper is not None else None
        found = self.places.of_named(name, "Index", "UniqueConstraint", near=near)
        if found is not None:
            return found
        index = next((each for each in table.indexes if each.name == name), None)
        columns = list(index.columns) if index is not None else []
        return self.site_of(columns[0] if len(columns) == 1 else table)

    def site_of_relationship(self, prop: Any) -> Site | None:
        site = self.places.of_attribute(prop.parent.class_, prop.key)
        if site is not None and site.function == prop.parent.class_.__qualname__:
            # A backref is declared on the other side.
            other = next(iter(_reverse(prop)), None)
            return self.places.of_attribute(other.parent.class_, other.key) if other is not None else site
        return site

    @cached_property
    def relationships(self) -> tuple[Any, ...]:
        """Every relationship once, where it was declared."""
        found: dict[Any, Any] = {}
        for mapper in self.mappers:
            for prop in mapper.relationships:
                if prop.parent is mapper:
                    found[(mapper.class_, prop.key)] = prop
        return tuple(found[key] for key in sorted(found, key=lambda key: (key[0].__module__, key[0].__name__, key[1])))

    def table(self, schema: str | None, name: str, default: str = "public") -> Table | None:
        """The table of that name in a database; one without a schema is in *default*."""
        for table in self._by_name.get(name, ()):
            if (table.schema or default) == (schema or default):
                return table
        return None

    @cached_property
    def _by_name(self) -> Mapping[str, list[Table]]:
        found: dict[str, list[Table]] = {}
        for table in self.tables:
            found.setdefault(table.name, []).append(table)
        return found

    def declared(self, table: Table) -> list[Declared]:
        """The primary key, unique constraints and indexes of *table*."""
        if table not in self._declared:
            self._declared[table] = _declared(table)
        return self._declared[table]

    @cached_property
    def _declared(self) -> dict[Table, list[Declared]]:
        return {}

    @cached_property
    def collections(self) -> Mapping[frozenset[Any], list[Any]]:
        """One-to-many relationships by the columns of the children that they look for."""
        found: dict[frozenset[Any], list[Any]] = {}
        for prop in self.relationships:
            if prop.direction.name == "ONETOMANY":
                found.setdefault(frozenset(remote for _, remote in prop.local_remote_pairs), []).append(prop)
        return found


# --- where models come from -------------------------------------------------------------------------------------------


def load(*targets: str) -> Models:
    """
    The models in *targets*: import paths of modules (`shop.models`), or of a declarative base or metadata in one
    (`shop.models:Base`). The working directory can be imported from.

    Raises:
        ModelsError: a target cannot be imported, has no models, or its models do not fit together.
    """
    here = os.getcwd()  # noqa: PTH109 - a string is what sys.path holds
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    found: list[Any] = []
    modules: list[str] = []
    for target in targets:
        name, _, attribute = target.partition(":")
        try:
            module = importlib.import_module(name)
        except Exception as error:
            raise ModelsError(
                f"models {target}: {name} cannot be imported: {type(error).__name__}: {error}; name a module that can "
                "be, such as shop.models, or a base in it: shop.models:Base"
            ) from error
        modules.append(name)
        if attribute:
            thing: Any = module
            for part in attribute.split("."):
                thing = getattr(thing, part, None)
            if _metadata_of(thing) is None:
                raise ModelsError(
                    f"models {target}: {attribute} is {'not there' if thing is None else f'a {type(thing).__name__}'}; "
                    "name a declarative base, a registry or a MetaData"
                )
            found.append(thing)
        else:
            things = _models_in(module)
            for inner in pkgutil.iter_modules(getattr(module, "__path__", ())) if not things else ():
                # A package of models that its __init__ does not import.
                try:
                    things += _models_in(importlib.import_module(f"{name}.{inner.name}"))
                except Exception as error:
                    raise ModelsError(
                        f"models {target}: {name}.{inner.name} cannot be imported: {type(error).__name__}: {error}; "
                        "name the modules that can be"
                    ) from error
            if not things:
                raise ModelsError(
                    f"models {target}: neither a model nor a MetaData is in {name}; name what is: shop.models:Base"
                )
            found += things
    return models_of(*found, modules=modules)


def models_of(*things: Any, modules: Iterable[str] = ()) -> Models:
    """
    The models of declarative bases, mapped classes, registries and `MetaData`.

    Raises:
        ModelsError: one of *things* is something else, or the models do not fit together.
    """
    metadatas: dict[int, MetaData] = {}
    registries: dict[int, Any] = {}
    for thing in things:
        metadata = _metadata_of(thing)
        if metadata is None:
            raise ModelsError(
                f"models: a {type(thing).__name__} was given; a declarative base, a registry or a MetaData is needed"
            )
        metadatas[id(metadata)] = metadata
    if "sqlalchemy.orm" in sys.modules:
        for registry in _registries():
            if any(metadata is registry.metadata for metadata in metadatas.values()):
                registries[id(registry)] = registry
    mappers = []
    for registry in registries.values():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SAWarning)  # what they say, `unlinked-relationships` says too
                registry.configure(cascade=True)
        except Exception as error:
            hint = (
                'relationship(lazy="selectin") is the value; selectinload() is the option of a query'
                if re.search(r"selectinload|joinedload", str(error))
                else "mend the models: they do not work as they are"
            )
            raise ModelsError(f"models: they cannot be configured: {type(error).__name__}: {error}; {hint}") from error
        mappers += list(registry.mappers)
    tables = {id(table) for metadata in metadatas.values() for table in metadata.tables.values()}
    mappers = [mapper for mapper in mappers if id(mapper.local_table) in tables]
    named = sorted({mapper.class_.__module__ for mapper in mappers})
    return Models(tuple(metadatas.values()), tuple(mappers), Places([*named, *modules]))


def _models_in(module: Any) -> list[Any]:
    return [each for each in vars(module).values() if _metadata_of(each) is not None]


def _metadata_of(thing: Any) -> MetaData | None:
    if isinstance(thing, MetaData):
        return thing
    if isinstance(thing, Table):
        return thing.metadata
    if not isinstance(thing, type) and type(thing).__name__ != "registry":
        return None
    found = getattr(thing, "metadata", None)
    return found if isinstance(found, MetaData) else None


def _registries() -> Iterable[Any]:
    """Every registry of the process. A private name of SQLAlchemy's; without it there are no mappers to be had."""
    from sqlalchemy.orm import mapperlib

    every = getattr(mapperlib, "_all_registries", None)
    return tuple(every()) if every is not None else ()


def _reverse(prop: Any) -> Iterable[Any]:
    return getattr(prop, "_reverse_property", ()) or ()


# --- checks -----------------------------------------------------------------------------------------------------------


def check(models: Models, seen: Seen, options: Options) -> list[Finding]:
    """What every rule for models says."""
    found: list[Finding] = []
    for rule, each in CHECKS.items():
        if options.wants(rule):
            found.extend(each(models, seen, options))
    return found


def finding(
    rule: str,
    severity: Severity,
    label: str,
    title: str,
    advice: str,
    *,
    detail: str = "",
    **more: Any,
) -> Finding:
    """A finding of an audit: *label* and *detail* make its key."""
    return Finding(
        rule=rule,
        severity=severity,
        title=title,
        advice=advice,
        key="|".join((rule, label, *([detail] if detail else []))),
        label=label,
        **more,
    )


def check_schema_names(models: Models, seen: Seen, options: Options) -> Iterator[Finding]:  # noqa: ARG001 - as every check's
    """
    Foreign keys name their target's schema here, and do not there.

    A name without a schema is looked up in `MetaData(schema=...)`. With that set, both spellings are the same table,
    and the mix is told as information: it breaks when the schema is taken away from the metadata, as tests and
    schema-per-tenant set-ups do. Where the metadata has no schema, the short name is one that PostgreSQL looks up in
    its search path. If another schema has a table of that name, the constraint refers to one or the other depending on
    who created it: that is an error, and so is a name that finds no table while another schema has it.

    What to do: spell them all alike. Qualified names say what is meant; or leave the schema out everywhere, and let
    the metadata, or `schema_translate_map`, decide.

    Silent: names that are spelt alike, `ForeignKey(Table.column)` objects, and short names within one schema.
    """
    rule = "mixed-schema-names"
    for metadata in models.metadatas:
        by_name: dict[str, list[Table]] = {}
        for table in metadata.tables.values():
            by_name.setdefault(table.name, []).append(table)
        spelt: dict[str, tuple[list[Any], list[Any]]] = {}
        for table in metadata.tables.values():
            for key in sorted(table.foreign_keys, key=lambda each: each.parent.name):
                parts = _spelling(key)
                if parts is None:
                    continue
                schema, name, _ = parts
                target = _target(key)
                others = [each for each in by_name.get(name, ()) if each is not target]
                if target is None and others:
                    yield _lost_target(models, table, key, name, others)
                elif target is not None and not schema and target.schema is None and others and table.schema:
                    yield _two_targets(models, table, key, target, others)
                elif target is not None and target.schema and metadata.schema == target.schema:
                    spelt.setdefault(target.schema, ([], []))[0 if schema else 1].append(key)
        for schema, (long, short) in sorted(spelt.items()):
            if not long or not short:
                continue
            fewer = long if len(long) <= len(short) else short
            columns = [f"{key.parent.table.name}.{key.parent.name}" for key in fewer]
            example = _spelling(short[0])
            assert example is not None
            yield finding(
                rule,
                "info",
                schema,
                f'{len(long)} foreign keys name the schema "{schema}" and {len(short)} do not',
                f'name it in all: ForeignKey("{schema}.{example[1]}.{example[2]}")',
                site=models.site_of(fewer[0].parent),
                evidence={"with_schema": len(long), "without_schema": len(short), "fewer": _some(columns)},
                fixes=tuple(
                    code.rewrite(
                        f"# {key.parent.table.name}.{key.parent.name}\n"
                        f'ForeignKey("{schema}.{".".join(filter(None, _spelling(key) or ()))}")'
                    )
                    for key in short[:1]
                ),
            )


def _lost_target(models: Models, table: Table, key: Any, name: str, others: Sequence[Table]) -> Finding:
    found = ", ".join(f'"{each.fullname}"' for each in others)
    return finding(
        "mixed-schema-names",
        "error",
        f"{table.fullname}.{key.parent.name}",
        f"{table.fullname}.{key.parent.name} refers to {key.target_fullname}, which is no table; {found} is",
        f'name the schema: ForeignKey("{others[0].fullname}.{key.target_fullname.rpartition(".")[2]}")',
        site=models.site_of(key.parent),
        evidence={"found": found, "target": name},
    )


def _two_targets(models: Models, table: Table, key: Any, target: Table, others: Sequence[Table]) -> Finding:
    other = ", ".join(f'"{each.fullname}"' for each in others)
    column = key.target_fullname.rpartition(".")[2]
    return finding(
        "mixed-schema-names",
        "error",
        f"{table.fullname}.{key.parent.name}",
        f"{table.fullname}.{key.parent.name} refers to {target.name}, which is another table by search_path",
        f'name the schema: ForeignKey("public.{target.name}.{column}") or ForeignKey("{others[0].fullname}.{column}")',
        site=models.site_of(key.parent),
        evidence={"same_name": other},
    )


def _spelling(key: Any) -> tuple[str, str, str] | None:
    """Schema (or ""), table and column, as they were written; None where a column was given."""
    if not isinstance(getattr(key, "_colspec", None), str):
        return None
    *schema, table, column = key.target_fullname.split(".") if key.target_fullname.count(".") else ("", "", "")
    return (".".join(schema), table, column) if table else None


def _target(key: Any) -> Table | None:
    try:
        return key.column.table  # type: ignore[no-any-return]
    except InvalidRequestError:  # NoReferencedTableError, NoReferencedColumnError
        return None


@dataclass(frozen=True, slots=True)
class _Parent:
    """A reference of one column to a table, and the tenant columns that both have and nothing ties together."""

    key: Any
    parent: Table
    untied: tuple[str, ...]


def tenants_of(tables: Sequence[Table], options: Options) -> Mapping[str, Table | None]:
    """
    The columns that say whose a row is, with the table that they refer to.

    Given by the options; or inferred: a column that refers to one table from several, is never NULL in most of them,
    and is named like a holder of data, or is a number or UUID in at least half of the tables that refer to something.
    """
    roots: dict[str, Counter[Table]] = {}
    having: Counter[str] = Counter()
    required: Counter[str] = Counter()
    textual: set[str] = set()
    for table in tables:
        for column in table.columns:
            having[column.name] += 1
            if _is_text(column):
                textual.add(column.name)
            required[column.name] += not column.nullable
            for key in column.foreign_keys:
                target = _target(key)
                if target is not None and target is not table and len(key.constraint.elements) == 1:  # type: ignore[union-attr]
                    roots.setdefault(column.name, Counter())[target] += 1
    if options.tenants:
        return {name: _most(roots.get(name)) for name in options.tenants}
    referring = sum(bool(table.foreign_keys) for table in tables)
    found: dict[str, Table | None] = {}
    for name, targets in roots.items():
        root = _most(targets)
        if root is None or len(targets) > 1 or _PERSON.search(name) or required[name] < 0.8 * having[name]:
            continue
        strong = _HOLDER.search(name) and having[name] >= _STRONG_TABLES
        # A name or code that everything has is part of what rows are called, more often than whose they are.
        everywhere = having[name] >= max(_WEAK_TABLES, referring / 2) and name not in textual
        if strong or everywhere:
            found[name] = root
    return found


def _most(targets: Counter[Table] | None) -> Table | None:
    return targets.most_common(1)[0][0] if targets else None


def _untied(table: Table, tenants: Mapping[str, Table | None]) -> Iterator[_Parent]:
    for constraint in sorted(table.foreign_key_constraints, key=lambda each: [c.name for c in each.columns]):
        if len(constraint.elements) != 1:
            continue
        key = constraint.elements[0]
        parent = _target(key)
        if parent is None or (key.parent.name in tenants and tenants[key.parent.name] is not parent):
            continue
        shared = [
            name
            for name, root in tenants.items()
            if root is not parent
            and name in parent.columns
            and name in table.columns
            and name != key.parent.name
            and not parent.columns[name].nullable
            and _same_type(table.columns[name], parent.columns[name])
            and _refers_to(table.columns[name], root)
        ]
        tied = {
            column.name
            for other in table.foreign_key_constraints
            if len(other.elements) > 1 and _target(other.elements[0]) is parent
            for column, element in zip(other.columns, other.elements, strict=True)
            if element.column.name == column.name
        }
        # An engagement that is tied has one client only.
        implied = {name for name in shared for by in tied & set(shared) if _has(tenants[by], name)}
        untied = tuple(name for name in shared if name not in tied | implied)
        if untied:
            yield _Parent(key, parent, untied)


def _has(table: Table | None, column: str) -> bool:
    return table is not None and column in table.columns


def _refers_to(column: Column[Any], root: Table | None) -> bool:
    targets = [_target(key) for key in column.foreign_keys if len(key.constraint.elements) == 1]  # type: ignore[union-attr]
    return not targets or root in targets


def _same_type(one: Column[Any], other: Column[Any]) -> bool:
    return bool(one.type._type_affinity is other.type._type_affinity)  # noqa: SLF001 - there is no public name


def _is_text(column: Column[Any]) -> bool:
    """Also where a type of the application's wraps one of text."""
    affinity = column.type._type_affinity  # noqa: SLF001 - there is no public name
    return affinity is not None and issubclass(affinity, String)


def check_tenant_hierarchy(models: Models, seen: Seen, options: Options) -> Iterator[Finding]:  # noqa: ARG001 - as every check's
    """
    A row may belong to one tenant and refer to a parent of another.

    Both tables say whose their rows are (`client_account_id`), and the child refers to the parent by its id alone: the
    database accepts a child of tenant 1 below a parent of tenant 2. A foreign key over the tenant *and* the id makes
    it impossible; it needs a unique constraint over the same columns of the parent.

    A column is taken for a tenant's if several tables refer to one table by it, hardly any of them with NULL, and it
    is named like one (tenant, organization, workspace, client_account) or is a number or UUID in at least half of the
    tables. Name yours with `--tenant client_account_id` where that guesses wrong; people (user, account, author, owner,
    created_by) are never guessed.

    Silent: a composite foreign key that holds the tenant, parents that may have no tenant, and a tenant that follows
    from another column that is tied.
    """
    for metadata in models.metadatas:
        tables = sorted(metadata.tables.values(), key=lambda table: table.fullname)
        tenants = tenants_of(tables, options)
        for table in tables:
            for each in _untied(table, tenants):
                yield _tenant_finding(models, table, each)


def _tenant_finding(models: Models, table: Table, found: _Parent) -> Finding:
    key, parent, untied = found.key, found.parent, found.untied
    target = key.column.name
    child_columns = [*untied, key.parent.name]
    parent_columns = [*untied, target]
    name = code.made_name("fk", table.name, key.parent.name, "tenant")
    unique = code.made_name("uq", parent.name, *parent_columns)
    needs_unique = not any(set(columns) == set(parent_columns) for columns in unique_sets(parent))
    references = code.names(f"{parent.fullname}.{column}" for column in parent_columns)
    ondelete = key.ondelete
    note = ""
    if ondelete and ondelete.upper() == "SET NULL":
        # Without a list of columns, the tenant would become NULL as well.
        ondelete = f"SET NULL ({key.parent.name})"
        note = "  # PostgreSQL 15 and newer: the tenant stays"
    deleted = f", ondelete={code.literal(ondelete)}" if ondelete else ""
    constraint = (
        f"ForeignKeyConstraint([{code.names(child_columns)}], [{references}], name={code.literal(name)}{deleted}){note}"
    )
    lines = [f"# {table.name}, in __table_args__", constraint]
    if needs_unique:
        lines += [
            f"# {parent.name}, in __table_args__",
            f"UniqueConstraint({code.names(parent_columns)}, name={code.literal(unique)})",
        ]
    schemas = code.schema_argument(table.schema, "source_schema") + code.schema_argument(
        parent.schema, "referent_schema"
    )
    alembic = []
    if needs_unique:
        alembic.append(
            f"op.create_unique_constraint({code.literal(unique)}, {code.literal(parent.name)}, "
            f"[{code.names(parent_columns)}]{code.schema_argument(parent.schema)})"
        )
    validate = f"ALTER TABLE {code.relation(table.schema, table.name)} VALIDATE CONSTRAINT {code.quoted(name)}"
    alembic += [
        (
            f"op.create_foreign_key({code.literal(name)}, {code.literal(table.name)}, {code.literal(parent.name)}, "
            f"[{code.names(child_columns)}], [{code.names(parent_columns)}]{deleted}{schemas}, "
            "postgresql_not_valid=True)"
        ),
        f"op.execute({code.literal(validate)})",
    ]
    whose = " and ".join(untied)
    return finding(
        "tenant-hierarchy",
        "warning",
        table.fullname,
        f"a row of {table.name} may name a row of {parent.name} with another {whose}",
        f"add a foreign key over {', '.join(child_columns)}, which the database checks; "
        f"relationships then need foreign_keys=[{key.parent.name}]",
        detail=key.parent.name,
        site=models.site_of(key.parent),
        evidence={"parent": parent.fullname, "reference": key.parent.name, "tenant": ", ".join(untied)},
        fixes=(code.rewrite("\n".join(lines), "\n".join(alembic)),),
    )


def unique_sets(table: Table) -> list[tuple[str, ...]]:
    """The columns of the primary key and of each unique constraint and index that holds for every row."""
    found = [tuple(column.name for column in table.primary_key.columns)]
    found += [
        tuple(column.name for column in constraint.columns)
        for constraint in table.constraints
        if isinstance(constraint, UniqueConstraint)
    ]
    found += [
        tuple(column.name for column in index.columns)
        for index in table.indexes
        if index.unique and index.dialect_options["postgresql"].get("where") is None
    ]
    return [columns for columns in found if columns]


def check_foreign_key_target(models: Models, seen: Seen, options: Options) -> Iterator[Finding]:
    """
    A foreign key refers to a second id of its parent, not to the primary key.

    PostgreSQL takes any unique column. SQLAlchemy pays for it: a many-to-one relationship along such a key cannot look
    its object up in the session by identity, so each object that is read asks the database again, even for one that
    is loaded. With such a relationship the finding is a warning, without it information.

    What to do: refer to the primary key, or make the column that everybody refers to the primary key.

    Silent: a primary key or part of it, composite keys, text (a code or a slug is a natural key), and columns declared
    as natural keys: `mapped_column(info={"natural_key": True})` or `--natural-key table.column`.
    """
    groups: dict[Column[Any], list[Any]] = {}
    for table in models.tables:
        for constraint in table.foreign_key_constraints:
            if len(constraint.elements) != 1:
                continue
            key = constraint.elements[0]
            if _target(key) is None or key.column.primary_key or not key.column.table.primary_key.columns:
                continue
            if key.column.info.get("natural_key") or _is_text(key.column):
                continue
            named = {f"{key.column.table.name}.{key.column.name}", f"{key.column.table.fullname}.{key.column.name}"}
            if not named & set(options.natural_keys):
                groups.setdefault(key.column, []).append(key)
    for column, keys in sorted(groups.items(), key=lambda item: str(item[0])):
        parent: Any = column.table
        primary = ", ".join(each.name for each in parent.primary_key.columns)
        children = sorted(f"{key.parent.table.name}.{key.parent.name}" for key in keys)
        along = [
            prop
            for prop in models.relationships
            if prop.direction.name == "MANYTOONE" and any(remote is column for _, remote in prop.local_remote_pairs)
        ]
        found = [each for prop in along for each in seen.loads(label_of(prop))]
        alike = len(parent.primary_key.columns) == 1
        yield finding(
            "foreign-key-target",
            "warning" if along else "info",
            f"{parent.fullname}.{column.name}",
            f"{len(keys)} foreign key{'s refer' if len(keys) != 1 else ' refers'} to {parent.name}.{column.name}, "
            f"not to its primary key {primary}",
            f"refer to {parent.name}.{primary}, or make {column.name} the primary key; if it is meant, say so: "
            'info={"natural_key": True}',
            site=models.site_of(column),
            count=sum(each.count for each in found),
            seconds=sum(each.seconds for each in found),
            evidence={
                "references": _some(children),
                "relationships": _some(sorted(map(label_of, along))),
                "primary_key": primary,
            },
            fixes=(code.rewrite(f'ForeignKey("{parent.fullname}.{primary}")  # {children[0]}'),) if alike else (),
        )


def check_relationship_loading(models: Models, seen: Seen, options: Options) -> Iterator[Finding]:  # noqa: ARG001 - as every check's
    """
    Which relationships load lazily, and which of them were seen to do so row by row.

    With a report of a run (`--with report.json`), each relationship that was an `n-plus-one` there is a warning that
    points at the model, with the number of loads and what they took. The rest is information, one line for all:
    `lazy="select"` is SQLAlchemy's default and no fault. What no statement of the run touched is named as never
    loaded.

    What to do: mend the query that loads the parents (`selectinload()`); where every reader needs the children, write
    `relationship(lazy="selectin")` in the model. (`lazy="selectinload"` is no value.)
    """
    rule = "relationship-loading"
    lazy = [prop for prop in models.relationships if prop.lazy in {"select", True} and not prop.viewonly]
    told = 0
    for prop in models.relationships:
        label = label_of(prop)
        found = seen.loads(label)
        if not found:
            continue
        told += 1
        count = sum(each.count for each in found)
        yield finding(
            rule,
            "warning",
            label,
            f"{label} was loaded row by row {count:,} times",
            found[0].advice,
            site=models.site_of_relationship(prop),
            origin=found[0].origin or found[0].site,
            count=count,
            seconds=sum(each.seconds for each in found),
            evidence={"lazy": str(prop.lazy), "places": len(found)},
            fixes=(
                *found[0].fixes[:1],
                code.rewrite(f'{prop.key} = relationship(..., lazy="selectin")  # {label}, if every reader needs it'),
            ),
        )
    if len(models.relationships) < MIN_RELATIONSHIPS or len(lazy) * 2 < len(models.relationships):
        return
    strategies = Counter(str(prop.lazy) for prop in models.relationships)
    evidence: dict[str, float | int | str] = dict(strategies)
    never = []
    if not seen.is_empty:
        never = [
            label_of(prop)
            for prop in models.relationships
            if not seen.statements(prop.target.name, getattr(prop.target, "schema", None))
        ]
        evidence |= {"seen": told, "never_loaded": len(never), "never": _some(never)}
    known = f", {told} of them seen row by row" if told else ""
    yield finding(
        rule,
        "info",
        "relationships",
        f"{len(lazy)} of {len(models.relationships)} relationships load when they are read{known}",
        "run the tests or the application under sqlprobe: it names those that cost something"
        if seen.is_empty
        else "mend those that were seen; the others cost nothing so far",
        evidence=evidence,
    )


MIN_RELATIONSHIPS: Final = 5  # fewer are seen at a glance


def check_eager_loading(models: Models, seen: Seen, options: Options) -> Iterator[Finding]:  # noqa: ARG001 - as every check's
    """
    A relationship's own loading strategy costs every query, or does nothing.

    - A collection with `lazy="joined"`: each query for the parent, whether it needs the children or not, repeats the
      parent's columns once for every child, and is wrapped in a subquery as soon as it has a LIMIT. Two of them in one
      class multiply: ten tags and twenty lines are two hundred rows.
    - `lazy="selectin"` or `"joined"` from a class to itself without `join_depth`: SQLAlchemy stops at the first class
      that it has met before, which is at once. Nothing is loaded early, each level loads when it is read.

    What to do: `lazy="selectin"` for collections; `join_depth=2`, or `selectinload(..., recursion_depth=-1)` in the
    query, for trees.
    """
    rule = "eager-loading"
    for prop in models.relationships:
        label = label_of(prop)
        site = models.site_of_relationship(prop)
        reads = seen.statements(prop.parent.local_table.name, prop.parent.local_table.schema, "SELECT")
        if prop.lazy in {"joined", False} and prop.uselist and not prop.viewonly:
            others = [
                each.key
                for each in prop.parent.relationships
                if each is not prop and each.lazy in {"joined", False} and each.uselist
            ]
            count, seconds = cost(reads)
            yield finding(
                rule,
                "warning",
                label,
                f"{label} is a collection that every query for {prop.parent.class_.__name__} joins"
                + (f", and {_some(others)} with it: their rows multiply" if others else ""),
                'write lazy="selectin": one more query, no repeated rows',
                detail="joined",
                site=site,
                count=count,
                seconds=seconds,
                evidence={"joined_collections": len(others) + 1},
                fixes=(code.rewrite(f'{prop.key} = relationship(..., lazy="selectin")  # {label}'),),
            )
        if prop.lazy in {"selectin", "joined", False} and prop.mapper is prop.parent and not prop.join_depth:
            yield finding(
                rule,
                "warning",
                label,
                f'{label} refers to its own class: lazy="{prop.lazy or "joined"}" without join_depth loads nothing '
                "early",
                "say how deep: join_depth=2; or load a whole tree in the query, with recursion_depth=-1",
                detail="self",
                site=site,
                fixes=(code.rewrite(f'{prop.key} = relationship(..., lazy="selectin", join_depth=2)  # {label}'),),
            )


def check_undeferred(models: Models, seen: Seen, options: Options) -> Iterator[Finding]:  # noqa: ARG001 - as every check's
    """
    A big column comes with every query for its model, whether it is read or not.

    Told for vectors of a kilobyte and more, and binary data that is declared so long. Of JSONB, text and binary data
    without a length only the database knows how big they are: with `--url` or `--stats` they are told where the values
    that are stored apart are a kilobyte and more on average.

    What to do: `deferred=True` on the column and `undefer()` where it is read, or `load_only()` in the query.

    Silent: deferred columns, and what is below a kilobyte.
    """
    for mapper in models.mappers:
        if mapper.inherits is not None and mapper.local_table is mapper.inherits.local_table:
            continue
        for prop in mapper.column_attrs:
            column = prop.columns[0]
            if prop.parent is not mapper or prop.deferred or not isinstance(column, Column):
                continue
            size = _known_size(column)
            if size is not None and size >= WIDE:
                yield undeferred(models, seen, mapper, prop, column, size)


def _known_size(column: Column[Any]) -> int | None:
    kind = vector_kind(column.type)
    if kind is not None:
        dimensions = getattr(column.type, "dim", None)
        each = {"vector": 4.0, "halfvec": 2.0, "bit": 0.125}.get(kind)
        return int(dimensions * each) if isinstance(dimensions, int) and each else None
    if isinstance(column.type, LargeBinary):
        return column.type.length
    return None


def undeferred(models: Models, seen: Seen, mapper: Any, prop: Any, column: Column[Any], size: int) -> Finding:
    """The finding that *column* is big and loaded by every query."""
    label = f"{mapper.class_.__name__}.{prop.key}"
    reads = seen.statements(column.table.name, column.table.schema, "SELECT")
    return finding(
        "undeferred-column",
        "info",
        label,
        f"every query for {mapper.class_.__name__} loads {prop.key}, {size:,} bytes a row",
        "write deferred=True, and undefer() where it is read",
        site=models.site_of(column),
        evidence={"bytes": size, "selects_seen": cost(reads)[0]},
        fixes=(
            code.rewrite(
                f"{prop.key} = mapped_column(..., deferred=True)  # {label}\n"
                f"select({mapper.class_.__name__}).options(undefer({label}))  # where it is read"
            ),
        ),
    )


def vector_kind(kind: Any) -> str | None:
    """`vector`, `halfvec`, `sparsevec` or `bit`, if *kind* is one of pgvector's types for SQLAlchemy."""
    if not type(kind).__module__.startswith("pgvector"):
        return None
    name = type(kind).__name__.lower()
    return name if name in {"vector", "halfvec", "sparsevec", "bit"} else None


def check_vector_dimensions(models: Models, seen: Seen, options: Options) -> Iterator[Finding]:  # noqa: ARG001 - as every check's
    """
    Vectors that do not fit: each other, their index, or the database.

    - Columns of one name with different numbers of dimensions: most likely one was forgotten when the embedding model
      changed; vectors of different lengths cannot be compared. Information, for two embedding models may be meant.
    - An index on a vector column without dimensions, or with more than pgvector's indexes take (2,000 for `vector`,
      4,000 for `halfvec`): `CREATE INDEX` fails.
    - With a database: a column that has other dimensions there than in the model. Every INSERT fails.
    - With a report of a run (`--with report.json`): statements that name the column failed with SQLSTATE 22000, by
      which pgvector refuses a vector of another length (and one with NaN or an infinity in it, which is rare). How
      long the vector was is not known: parameters are in no report.

    What to do: one constant, `EMBEDDING_DIMENSIONS`, that all columns use; a migration that empties or re-embeds the
    old vectors; `halfvec` for indexes on more than 2,000 dimensions.
    """
    rule = "vector-dimensions"
    by_name: dict[tuple[str, str], dict[int, list[Column[Any]]]] = {}
    for table in models.tables:
        vectors: dict[str, int | None] = {}
        for column in table.columns:
            kind = vector_kind(column.type)
            if kind is None:
                continue
            dimensions = vectors[column.name] = getattr(column.type, "dim", None)
            if isinstance(dimensions, int):
                by_name.setdefault((column.name, kind), {}).setdefault(dimensions, []).append(column)
            yield from _vector_index(models, table, column, kind, dimensions)
        yield from refused(
            seen, table.schema, table.name, vectors, {name: models.site_of(table.columns[name]) for name in vectors}
        )
    for (name, kind), groups in sorted(by_name.items()):
        if len(groups) < 2:  # noqa: PLR2004
            continue
        spelt = {
            dimensions: ", ".join(f"{column.table.name}.{name}" for column in columns)
            for dimensions, columns in sorted(groups.items())
        }
        fewest = min(groups, key=lambda dimensions: (len(groups[dimensions]), dimensions))
        yield finding(
            rule,
            "info",
            name,
            f"{kind} columns called {name} have {' and '.join(map(str, spelt))} dimensions",
            "if one embedding model makes them, declare the number once: EMBEDDING_DIMENSIONS",
            site=models.site_of(groups[fewest][0]),
            evidence={str(dimensions): _some(columns.split(", ")) for dimensions, columns in spelt.items()},
        )


def _vector_index(
    models: Models, table: Table, column: Column[Any], kind: str, dimensions: int | None
) -> Iterator[Finding]:
    for index in sorted(table.indexes, key=lambda each: str(each.name)):
        using = str(index.dialect_options["postgresql"].get("using") or "")
        # An index on a cast of the column has no plain column as its expression.
        if using not in {"hnsw", "ivfflat"} or not any(each is column for each in index.expressions):
            continue
        most = MAX_DIMENSIONS.get(kind)
        if dimensions is None:
            found, mend = "no dimensions", f"give the column its number: {kind.upper()}(1024)"
        elif most is not None and dimensions > most:
            found = f"{dimensions:,} dimensions; {using} takes {most:,} of a {kind}"
            mend = "index it as halfvec (up to 4,000), or use a model with fewer dimensions"
        else:
            continue
        yield finding(
            "vector-dimensions",
            "error",
            f"{table.fullname}.{column.name}",
            f"{index.name} cannot be made: {table.name}.{column.name} has {found}",
            mend,
            detail=str(index.name),
            site=models.site_of(column),
            evidence={"index": str(index.name), "dimensions": dimensions or 0},
        )


REFUSED: Final = "22000"  # data_exception: pgvector's "expected 1024 dimensions, not 1536"


def refused(
    seen: Seen,
    schema: str | None,
    table: str,
    vectors: Mapping[str, int | None],
    sites: Mapping[str, Site | None],
) -> Iterator[Finding]:
    """The finding that statements of a run which name one of *vectors* (their dimensions) failed as pgvector fails."""
    found = [
        (each, [name for name in vectors if re.search(rf"\b{re.escape(name)}\b", each.text)])
        for each in (seen.statements(table, schema) if vectors else ())
        if each.errors.get(REFUSED)
    ]
    named = [name for name in vectors if any(name in names for _, names in found)]
    if not named:
        return
    failed = [each for each, names in found if names]
    count = sum(each.errors[REFUSED] for each in failed)
    label = ".".join((qualified(schema, table), *(named if len(named) == 1 else ())))
    known = vectors[named[0]] if len(named) == 1 else None
    yield finding(
        "vector-dimensions",
        "warning",
        label,
        f"{count:,} statements with {label} failed with SQLSTATE {REFUSED}: most likely vectors of another length"
        + (f" than {known:,}" if known is not None else ""),
        "compare the embedding model's number of dimensions with the column's; look for NaN in the vectors",
        detail="seen",
        site=sites.get(named[0]),
        origin=next((place.site for each in failed for place in each.sites), None),
        count=count,
        seconds=sum(each.seconds * each.errors[REFUSED] / each.calls for each in failed if each.calls),
        evidence={
            "sqlstate": REFUSED,
            "calls": sum(each.calls for each in failed),
            **({"dimensions": known} if known is not None else {}),
        },
    )


def check_enum_and_check(models: Models, seen: Seen, options: Options) -> Iterator[Finding]:  # noqa: ARG001 - as every check's
    """
    Some columns have an enum type of the database, others a CHECK over a list.

    A matter of taste, so it is off; `--enable enum-and-check` turns it on. Types take values with `ALTER TYPE … ADD
    VALUE` and never lose one; CHECK constraints are replaced by an ordinary migration. Both work; two conventions in
    one schema make each migration a question. With migrations, types that they create for columns that are CHECKed in
    the models are named.
    """
    native, checked = enums_and_checks(models)
    if native and checked:
        fewer = min(native, checked, key=len)
        yield finding(
            "enum-and-check",
            "info",
            "enums",
            f"{len(native)} columns have an enum type, {len(checked)} a CHECK over a list",
            "decide for one: Enum(..., native_enum=False, create_constraint=True) is the CHECK",
            site=models.site_of(fewer[0]),
            evidence={
                "enums": _some(f"{each.table.name}.{each.name}" for each in native),
                "checks": _some(f"{each.table.name}.{each.name}" for each in checked),
            },
        )


_IN_LIST: Final = re.compile(r"^\W*(?:(\w+)\s+IS\s+NULL\s+OR\s+)?(\w+)\s+IN\s*\(", re.IGNORECASE)


def enums_and_checks(models: Models) -> tuple[list[Column[Any]], list[Column[Any]]]:
    """The columns with an enum type of the database, and those with a CHECK over a list of values."""
    native: list[Column[Any]] = []
    checked: list[Column[Any]] = []
    for table in models.tables:
        for column in table.columns:
            kind = column.type.item_type if isinstance(column.type, ARRAY) else column.type
            if isinstance(kind, Enum):
                if kind.native_enum:
                    native.append(column)
                elif kind.create_constraint:
                    checked.append(column)
        for constraint in table.constraints:
            if isinstance(constraint, CheckConstraint):
                match = _IN_LIST.match(str(constraint.sqltext))
                column_named = table.columns.get(match[2]) if match else None
                if column_named is not None and column_named not in checked:
                    checked.append(column_named)
    return native, checked


def check_unlinked(models: Models, seen: Seen, options: Options) -> Iterator[Finding]:  # noqa: ARG001 - as every check's
    """
    Two relationships are two sides of one foreign key and do not know of each other.

    Without `back_populates`, what is appended on one side is not on the other before a reload, and at the flush both
    write the same column: SQLAlchemy warns that relationship X will copy column Q to column P.

    Silent: a relationship without a counterpart (which is fine), `viewonly=True`, and sides that say `overlaps=`.
    """
    props = [prop for prop in models.relationships if not prop.viewonly and prop.secondary is None]
    by_pairs: dict[frozenset[tuple[Any, Any]], list[Any]] = {}
    for prop in props:
        if not _reverse(prop) and prop.direction.name == "MANYTOONE":
            by_pairs.setdefault(frozenset(prop.local_remote_pairs), []).append(prop)
    for prop in props:
        if _reverse(prop) or prop.direction.name != "ONETOMANY":
            continue
        flipped = frozenset((remote, local) for local, remote in prop.local_remote_pairs)
        for other in by_pairs.get(flipped, ()):
            overlaps = set(_overlaps(prop)) | set(_overlaps(other))
            if {prop.key, other.key} & overlaps or other.mapper is not prop.parent or prop.mapper is not other.parent:
                continue
            yield finding(
                "unlinked-relationships",
                "warning",
                label_of(prop),
                f"{label_of(prop)} and {label_of(other)} are two sides of one foreign key and are not linked",
                "link them with back_populates",
                detail=label_of(other),
                site=models.site_of_relationship(prop),
                evidence={"other": label_of(other)},
                fixes=(
                    code.rewrite(
                        f'{prop.key} = relationship(..., back_populates="{other.key}")  # {label_of(prop)}\n'
                        f'{other.key} = relationship(..., back_populates="{prop.key}")  # {label_of(other)}'
                    ),
                ),
            )


def _overlaps(prop: Any) -> Iterable[str]:
    return getattr(prop, "_overlaps", ()) or ()


def check_cascades(models: Models, seen: Seen, options: Options) -> Iterator[Finding]:  # noqa: ARG001 - as every check's
    """
    What the ORM does when a parent is deleted is not what the database would do.

    - The foreign key is `NOT NULL` with `ON DELETE CASCADE`, the collection has no delete cascade: the session sets
      the key of each child to NULL first, which fails. `passive_deletes=True` leaves it to the database.
    - `ON DELETE SET NULL` on a column that may not be NULL: no parent can be deleted.
    - The database would set NULL, the ORM's cascade deletes (or the other way round): what is lost depends on who
      deletes.
    - Both delete, without `passive_deletes=True`: every child is loaded to be deleted one by one. Information; with
      `--with` a warning where such a parent was deleted.

    Silent: `passive_deletes`, `viewonly`, no `ondelete`, dynamic and write-only relationships.
    """
    rule = "cascade-mismatch"
    for table in models.tables:
        for constraint in sorted(table.foreign_key_constraints, key=lambda each: [c.name for c in each.columns]):
            action = (constraint.ondelete or "").upper().strip()
            required = [column.name for column in constraint.columns if not column.nullable]
            if action == "SET NULL" and required:
                yield finding(
                    rule,
                    "error",
                    f"{table.fullname}.{required[0]}",
                    f"{table.name}.{required[0]} may not be NULL, and its foreign key sets it to NULL",
                    'make the column nullable, or write ondelete="CASCADE"',
                    site=models.site_of(table.columns[required[0]]),
                    evidence={"ondelete": action},
                )
    for prop in models.relationships:
        if prop.direction.name != "ONETOMANY" or prop.viewonly or prop.passive_deletes or prop.secondary is not None:
            continue
        if prop.lazy in {"dynamic", "write_only"}:
            continue
        columns = {remote for _, remote in prop.local_remote_pairs}
        constraint_found = next(
            (
                each
                for table in {column.table for column in columns if isinstance(column, Column)}
                for each in table.foreign_key_constraints
                if set(each.columns) == columns
            ),
            None,
        )
        if constraint_found is None:
            continue
        told = _cascade(prop, constraint_found, seen)
        if told is not None:
            severity, title, advice, fix = told
            yield finding(
                rule,
                severity,
                label_of(prop),
                title,
                advice,
                site=models.site_of_relationship(prop),
                evidence={"ondelete": constraint_found.ondelete or "", "cascade": str(prop.cascade) or "none"},
                fixes=(code.rewrite(f"{prop.key} = relationship(..., {fix})  # {label_of(prop)}"),),
            )


def _cascade(prop: Any, constraint: ForeignKeyConstraint, seen: Seen) -> tuple[Severity, str, str, str] | None:
    action = (constraint.ondelete or "").upper().strip()
    label, parent = label_of(prop), prop.parent.class_.__name__
    deletes = "delete" in prop.cascade
    required = any(not column.nullable for column in constraint.columns)
    if action == "CASCADE" and not deletes and required:
        return (
            "warning",
            f"deleting {_a(parent)} fails if its {prop.key} are there: the session sets their key to NULL first",
            "leave it to the database, which cascades: passive_deletes=True",
            "passive_deletes=True",
        )
    if action == "CASCADE" and not deletes:
        return (
            "warning",
            f"deleting {_a(parent)} with a session leaves its {prop.key} behind, which the database would delete",
            'say what is meant: cascade="all, delete" with passive_deletes=True, or ondelete="SET NULL"',
            'cascade="all, delete", passive_deletes=True',
        )
    if action.startswith("SET NULL") and deletes:
        return (
            "warning",
            f"deleting {_a(parent)} with a session deletes its {prop.key}, of which the database would keep the rows",
            'say what is meant: cascade="save-update, merge", or ondelete="CASCADE"',
            'cascade="save-update, merge"',
        )
    if action == "CASCADE" and deletes:
        table = prop.parent.local_table
        seen_deletes = cost(seen.statements(table.name, table.schema, "DELETE"))[0]
        return (
            "warning" if seen_deletes else "info",
            f"deleting {_a(parent)} loads all of {label} and deletes row by row what the database would by itself"
            + (f"; {seen_deletes:,} DELETE statements were seen" if seen_deletes else ""),
            "passive_deletes=True leaves to the database what is not loaded",
            f'cascade="{_cascade_text(prop)}", passive_deletes=True',
        )
    return None


def _cascade_text(prop: Any) -> str:
    return "all, delete-orphan" if "delete-orphan" in prop.cascade else "all, delete"


def _a(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeio' else 'a'} {name}"


# --- indexes as models declare them -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Declared:
    """An index or key that a model declares: `keys` are columns in order, "" where an expression stands."""

    name: str
    keys: tuple[str, ...]
    unique: bool
    is_constraint: bool
    options: tuple[str, ...]


def _declared(table: Table) -> list[Declared]:
    found = []
    for constraint in table.constraints:
        if isinstance(constraint, PrimaryKeyConstraint | UniqueConstraint) and len(constraint.columns):
            kind = "primary key" if isinstance(constraint, PrimaryKeyConstraint) else "unique"
            found.append(
                Declared(
                    str(constraint.name or f"{kind} of {table.name}"),
                    tuple(column.name for column in constraint.columns),
                    unique=True,
                    is_constraint=True,
                    options=("", "", "", ""),
                )
            )
    for index in table.indexes:
        options = index.dialect_options["postgresql"]
        keys = tuple(each.name if isinstance(each, Column) else "" for each in index.expressions)
        plain = (
            str(options.get("using") or "").replace("btree", ""),
            "" if options.get("where") is None else str(options["where"]),
            str(sorted((options.get("ops") or {}).items()) or ""),
            str(options.get("include") or ""),
        )
        found.append(Declared(str(index.name), keys, bool(index.unique), is_constraint=False, options=plain))
    return sorted(found, key=lambda each: (not each.is_constraint, each.name))


def check_redundant(models: Models, seen: Seen, options: Options) -> Iterator[Finding]:  # noqa: ARG001 - as every check's
    """
    An index that another one makes needless.

    A B-tree over (a, b) finds and sorts by a as an index over (a) does. Two equal ones are a warning; an index that is
    the beginning of another is information: the shorter one is smaller, and may stay where that matters.
    `index=True` on a column that leads a primary key, a unique constraint or a composite index is the usual cause.

    Compared are method, columns in order, operator classes, sort directions, included columns and the predicate; from
    the database if there is one, else from the models. Never named: indexes that hold a constraint, are unique where
    the other is not, serve as replica identity, or belong to a partitioned index.

    What to do: drop it with `DROP INDEX CONCURRENTLY`; the statement that makes it again is shown with it.
    """
    for table in models.tables:
        every = models.declared(table)
        for each in every:
            if each.is_constraint or each.unique or "" in each.keys or each.options[0]:
                continue
            for other in every:
                if other is each or other.options != each.options or other.keys[: len(each.keys)] != each.keys:
                    continue
                same = other.keys == each.keys
                if same and not other.is_constraint and not other.unique and other.name >= each.name:
                    continue  # of two equal ones, the first stays
                yield redundant(
                    table.schema,
                    table.name,
                    each.name,
                    each.keys,
                    other.name,
                    other.keys,
                    site=models.site_of_index(table, each.name),
                    definition=next((code.definition(one) for one in table.indexes if one.name == each.name), ""),
                )
                break


def redundant(
    schema: str | None,
    table: str,
    name: str,
    keys: Sequence[str],
    other: str,
    other_keys: Sequence[str],
    *,
    site: Site | None,
    definition: str = "",
    **evidence: float | str,
) -> Finding:
    """The finding that the index *name* is (the beginning of) *other*."""
    same = len(keys) == len(other_keys)
    return finding(
        "redundant-index",
        "warning" if same else "info",
        qualified(schema, name),
        f"{name} on {table} is {'the same as' if same else 'the beginning of'} {other} "
        f"({', '.join(key or 'an expression' for key in other_keys)})",
        "drop it" if same else f"drop it, unless its being smaller than {other} matters",
        site=site,
        evidence={"table": table, "columns": ", ".join(keys), "other": other, **evidence},
        fixes=(code.drop_index(schema, table, name, definition),),
    )


def check_over_indexed(models: Models, seen: Seen, options: Options) -> Iterator[Finding]:  # noqa: ARG001 - as every check's
    """
    A table has so many indexes that writing to it is the price of all of them.

    Each row that is inserted, and each update that is not heap-only, writes to every index. Eight and more, keys not
    counted, are told as information. With a database its counters decide: told are tables that are written to, whose
    indexes are bigger than they are, and of whose indexes at least half have not been used since statistics began.

    What to do: drop what `unused-index` and `redundant-index` name; let composite indexes that queries need replace
    those over single columns.
    """
    for table in models.tables:
        indexes = [each for each in models.declared(table) if not each.is_constraint and not each.unique]
        single = [each for each in indexes if len(each.keys) == 1]
        if len(indexes) < MANY_INDEXES or len(single) * 2 < len(indexes):
            continue
        writes, _ = cost(seen.statements(table.name, table.schema, "INSERT", "UPDATE"))
        yield finding(
            "over-indexed-table",
            "info",
            table.fullname,
            f"{table.name} has {len(indexes)} indexes besides its keys, {len(single)} over single columns",
            "look which are used (sqlprobe audit --url), drop the others",
            site=models.site_of(table),
            evidence={"indexes": len(indexes), "single_column": len(single), "writes_seen": writes},
        )


def check_unindexed(models: Models, seen: Seen, options: Options) -> Iterator[Finding]:  # noqa: ARG001 - as every check's
    """
    A foreign key has no index on the side that refers.

    PostgreSQL makes none by itself. Each DELETE of a parent, and each change of the key, looks for children by
    scanning the whole table; so does each load of the collection.

    With a database, weighed by size and by what happened: a table of 10,000 rows and more whose parents are deleted is
    a warning (an error where deletes times rows is a billion), one without deletes information, a small one silence.
    From models alone it is information, and only where the key cascades or a collection is loaded by it.

    Silent: an index that begins with the columns in any order, or is partial with `IS NOT NULL`.
    """
    for table in models.tables:
        every = models.declared(table)
        for constraint in sorted(table.foreign_key_constraints, key=lambda each: [c.name for c in each.columns]):
            columns = [column.name for column in constraint.columns]
            if any(set(each.keys[: len(columns)]) == set(columns) for each in every if not each.options[0]):
                continue
            loaded = [label_of(prop) for prop in models.collections.get(frozenset(constraint.columns), ())]
            action = (constraint.ondelete or "").upper()
            cascades = action.startswith(("CASCADE", "SET"))
            target = _target(constraint.elements[0])
            if target is None or not (loaded or cascades):
                continue
            why = f"{loaded[0]} is loaded by it" if loaded else f"ON DELETE {action} looks for its rows"
            yield unindexed(
                table.schema,
                table.name,
                columns,
                target.name,
                "info",
                why,
                site=models.site_of(table.columns[columns[0]]),
            )


def unindexed(
    schema: str | None,
    table: str,
    columns: Sequence[str],
    parent: str,
    severity: Severity,
    why: str,
    *,
    site: Site | None,
    count: int = 0,
    seconds: float = 0.0,
    **evidence: float | str,
) -> Finding:
    """The finding that the foreign key *columns* has no index."""
    name = code.made_name("ix", table, *columns)
    return finding(
        "unindexed-foreign-key",
        severity,
        qualified(schema, table),
        f"{table} ({', '.join(columns)}) refers to {parent} and has no index: {why}",
        "make one" + (", or write index=True" if len(columns) == 1 else ""),
        detail=",".join(columns),
        site=site,
        count=count,
        seconds=seconds,
        evidence={"columns": ", ".join(columns), "parent": parent, **evidence},
        fixes=(code.create_index(schema, table, columns, name),),
    )


def qualified(schema: str | None, name: str) -> str:
    """What a person calls it: without the schema where that is the usual one."""
    return f"{schema}.{name}" if schema and schema != "public" else name


def _some(names: Iterable[str]) -> str:
    every = list(names)
    rest = f" and {len(every) - MAX_NAMED} more" if len(every) > MAX_NAMED else ""
    return ", ".join(every[:MAX_NAMED]) + rest


CHECKS: Final[dict[str, Callable[[Models, Seen, Options], Iterable[Finding]]]] = {
    "mixed-schema-names": check_schema_names,
    "tenant-hierarchy": check_tenant_hierarchy,
    "foreign-key-target": check_foreign_key_target,
    "relationship-loading": check_relationship_loading,
    "eager-loading": check_eager_loading,
    "undeferred-column": check_undeferred,
    "vector-dimensions": check_vector_dimensions,
    "enum-and-check": check_enum_and_check,
    "unlinked-relationships": check_unlinked,
    "cascade-mismatch": check_cascades,
    "redundant-index": check_redundant,
    "over-indexed-table": check_over_indexed,
    "unindexed-foreign-key": check_unindexed,
}
