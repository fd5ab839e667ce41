"""
Code to paste: indexes, constraints and options as SQL, as SQLAlchemy writes them in a model, and as Alembic does.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlprobe.model import Fix

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Index

MAX_NAME: Final = 63  # bytes of a name, all that PostgreSQL keeps


def quoted(name: str) -> str:
    """*name* as an identifier of SQL: with quotation marks where it needs them."""
    return str(_preparer().quote(name))


@cache
def _preparer() -> Any:
    from sqlalchemy.dialects import postgresql

    return postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]


def relation(schema: str | None, name: str) -> str:
    """`schema.name` in SQL."""
    return f"{quoted(schema)}.{quoted(name)}" if schema else quoted(name)


def literal(text: str) -> str:
    """*text* as a constant of Python, in double quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def names(columns: Iterable[str]) -> str:
    """`"a", "b"`: arguments in Python."""
    return ", ".join(literal(column) for column in columns)


def made_name(*parts: str) -> str:
    """A name for an index or constraint, cut where PostgreSQL would cut it."""
    return "_".join(part.replace(".", "_") for part in parts)[:MAX_NAME]


def schema_argument(schema: str | None, keyword: str = "schema") -> str:
    """`, schema="shop"`, or nothing."""
    return f", {keyword}={literal(schema)}" if schema else ""


def create_index(schema: str | None, table: str, columns: Sequence[str], name: str) -> Fix:
    """An index on plain columns, made without locking the table."""
    listed = ", ".join(quoted(column) for column in columns)
    return Fix(
        kind="create-index",
        code=f"CREATE INDEX CONCURRENTLY {quoted(name)} ON {relation(schema, table)} ({listed})",
        alembic="with op.get_context().autocommit_block():\n"
        f"    op.create_index({literal(name)}, {literal(table)}, [{names(columns)}]{schema_argument(schema)}, "
        "postgresql_concurrently=True)",
        sqlalchemy=f"Index({literal(name)}, {names(columns)})",
    )


def drop_index(schema: str | None, table: str, name: str, definition: str) -> Fix:
    """Drop an index without locking the table, with the statement that makes it again."""
    again = re.sub(r"^CREATE (UNIQUE )?INDEX (?!CONCURRENTLY)", r"CREATE \1INDEX CONCURRENTLY ", definition)
    code = f"DROP INDEX CONCURRENTLY {relation(schema, name)};"
    if again:
        code += f"\n-- to have it back: {again};"
    return Fix(
        kind="drop-index",
        code=code,
        alembic="with op.get_context().autocommit_block():\n"
        f"    op.drop_index({literal(name)}, table_name={literal(table)}{schema_argument(schema)}, "
        "postgresql_concurrently=True)",
        sqlalchemy=f"# take it out of the model: Index({literal(name)}, ...), or index=True of its column",
    )


def definition(index: Index) -> str:
    """The statement that makes *index*, as PostgreSQL takes it; "" where SQLAlchemy cannot write it."""
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.exc import CompileError
    from sqlalchemy.schema import CreateIndex

    try:
        return str(CreateIndex(index).compile(dialect=postgresql.dialect())).strip()  # type: ignore[no-untyped-call]
    except CompileError:
        return ""


def rewrite(code: str, alembic: str | None = None) -> Fix:
    """A change of the models, and the migration that goes with it."""
    return Fix(kind="rewrite", code=code, alembic=alembic)
