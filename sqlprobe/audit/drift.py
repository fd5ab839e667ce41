"""
Drift: where a database and the models differ, as Alembic's comparison tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import warnings
from typing import TYPE_CHECKING, Any

from sqlprobe.audit import code
from sqlprobe.audit.mapping import finding, qualified
from sqlprobe.model import SqlprobeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Connection, Table

    from sqlprobe.audit.mapping import Models
    from sqlprobe.model import Finding, Severity, Site

RULE = "schema-drift"
DEFAULT = "public"


class DriftError(SqlprobeError):
    """The comparison failed: the message says at what."""


def is_available() -> bool:
    """Whether Alembic is installed."""
    return importlib.util.find_spec("alembic") is not None


def check(models: Models, url: URL) -> list[Finding]:
    """
    The database is not what the models say.

    Tables, columns, types, nullability, indexes, unique constraints and foreign keys, compared by Alembic as `alembic
    revision --autogenerate` does, if it is installed. Missing in the database: a warning (a query will fail, or be slow
    there and fast in tests). Only in the database: information.

    What to do: `alembic revision --autogenerate`, read what it writes, upgrade; or correct the model.

    Silent: tables that no model knows (other applications', and alembic_version), comments and server defaults.

    Raises:
        DriftError: the database cannot be compared.
    """
    try:
        found = _compared(models, url)
    except Exception as error:
        raise DriftError(
            f"schema-drift: Alembic was asked to compare the models with the database, found {type(error).__name__}; "
            "try alembic check"
        ) from error
    return list(_findings(models, found))


def _compared(models: Models, url: URL) -> list[Any]:
    import sqlalchemy as sa

    if url.get_dialect().is_async:
        from sqlalchemy.ext.asyncio import create_async_engine

        async def main() -> list[Any]:
            engine = create_async_engine(url, poolclass=sa.NullPool)
            async with engine.connect() as connection:
                return await connection.run_sync(_diffs, models)

        return asyncio.run(main())
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return _diffs(connection, models)


def _diffs(connection: Connection, models: Models) -> list[Any]:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with contextlib.suppress(ImportError):
        importlib.import_module("pgvector.sqlalchemy")  # teaches SQLAlchemy to read its types
    schemas = {table.schema for table in models.tables}
    if connection.dialect.name == "postgresql":
        connection.execution_options(postgresql_readonly=True)
        if None not in schemas:
            # Alembic takes the first schema of the search path for "no schema", and would miss its tables.
            connection.exec_driver_sql(f"SET search_path = {DEFAULT}")
            connection.dialect.default_schema_name = DEFAULT
            schemas = {None if schema == DEFAULT else schema for schema in schemas}

    known = {(table.schema, table.name) for table in models.tables}

    def include_name(name: str | None, kind: str, parents: Any) -> bool:
        if kind == "schema":
            return name in schemas
        return kind != "table" or (parents.get("schema_name"), name) in known

    context = MigrationContext.configure(
        connection,
        opts={"compare_type": True, "include_schemas": schemas != {None}, "include_name": include_name},
    )
    with warnings.catch_warnings(), _silence("alembic"):
        warnings.simplefilter("ignore")  # types that it does not know
        every: list[Any] = compare_metadata(context, list(models.metadatas))  # type: ignore[arg-type] # it takes several
    return every


@contextlib.contextmanager
def _silence(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _findings(models: Models, diffs: list[Any]) -> Iterator[Finding]:
    flat = [each for diff in diffs for each in (diff if isinstance(diff, list) else [diff])]
    # An index that is made otherwise comes as one that is gone and one that is new.
    added = {(each[0][4:], _name(each[1])) for each in flat if each[0] in {"add_index", "add_constraint", "add_fk"}}
    removed = {(each[0][7:], _name(each[1])) for each in flat if each[0].startswith("remove_") and len(each) == 2}  # noqa: PLR2004 - a pair
    for each in flat:
        kind = each[0]
        if kind in {"add_table", "add_index", "add_constraint", "add_fk"}:
            differs = (kind[4:], _name(each[1])) in removed and bool(_name(each[1]))
            yield _missing(models, kind[4:], each[1], differs=differs)
        elif kind in {"remove_index", "remove_constraint", "remove_fk"}:
            if (kind[7:], _name(each[1])) not in added or not _name(each[1]):
                yield _extra(models, kind[7:], each[1])
        elif kind in {"add_column", "remove_column"}:
            _, schema, table, column = each
            yield _told(
                models,
                schema,
                table,
                column.name,
                "warning" if kind == "add_column" else "info",
                f"{table}.{column.name} is in the {'models' if kind == 'add_column' else 'database'} only",
                kind,
            )
        elif kind in {"modify_type", "modify_nullable"}:
            _, schema, table, column, _, there, here = each
            was, is_ = (str(there), str(here)) if kind == "modify_type" else (_null(there), _null(here))
            yield _told(
                models,
                schema,
                table,
                column,
                "warning",
                f"{table}.{column} is {was} in the database and {is_} in the models",
                kind,
            )


def _null(nullable: bool) -> str:  # noqa: FBT001 - of Alembic
    return "NULL" if nullable else "NOT NULL"


def _name(item: Any) -> str:
    return str(getattr(item, "name", None) or "")


def _site(models: Models, schema: str | None, table: str, column: str = "") -> Site | None:
    known = models.table(schema, table)
    if known is None:
        return None
    there = known.columns.get(column)
    return models.site_of(known if there is None else there)


def _told(
    models: Models, schema: str | None, table: str, column: str, severity: Severity, title: str, kind: str
) -> Finding:
    return finding(
        RULE,
        severity,
        f"{qualified(schema, table)}.{column}",
        title,
        _ADVICE,
        detail=kind,
        site=_site(models, schema, table, column),
    )


_ADVICE = "alembic revision --autogenerate writes the migration; or correct the model"
_WORDS = {"table": "table", "index": "index", "constraint": "constraint", "fk": "foreign key"}


def _columns(item: Any) -> list[str]:
    return [str(getattr(each, "name", each)) for each in getattr(item, "columns", ())]


def _missing(models: Models, kind: str, item: Any, *, differs: bool) -> Finding:
    table: Table = item if kind == "table" else item.table
    columns = [] if kind == "table" else _columns(item)
    name = _name(item) or f"{table.name} ({', '.join(columns)})"
    on = "" if kind == "table" else f" of {table.name}"
    index_name = _name(item)
    plain = kind == "index" and not item.unique and not differs and len(columns) == len(item.expressions)
    site = models.site_of_index(table, index_name) if kind == "index" else models.site_of(table)
    return finding(
        RULE,
        "warning",
        qualified(table.schema, name),
        f"{_WORDS[kind]} {name}{on} is {'another in the database' if differs else 'not in the database'}",
        _ADVICE,
        detail=f"add_{kind}",
        site=site,
        evidence={"table": table.fullname},
        fixes=(code.create_index(table.schema, table.name, columns, index_name),) if plain else (),
    )


def _extra(models: Models, kind: str, item: Any) -> Finding:
    table: Table = item.table
    columns = _columns(item)
    name = _name(item) or f"{table.name} ({', '.join(columns)})"
    return finding(
        RULE,
        "info",
        qualified(table.schema, name),
        f"{_WORDS[kind]} {name} of {table.name} is in the database only",
        _ADVICE,
        detail=f"remove_{kind}",
        site=_site(models, table.schema, table.name),
        evidence={"table": table.fullname},
    )
