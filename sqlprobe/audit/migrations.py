"""
Migrations: what a review finds by reading an Alembic directory. The files are parsed, not run.

Only `migration-lock` runs them, offline and without a database, to have their SQL judged by squawk, if that is
installed.
"""

from __future__ import annotations

import ast
import configparser
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlprobe import sites
from sqlprobe.audit import code, mapping
from sqlprobe.audit.mapping import finding
from sqlprobe.model import Site, SqlprobeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlprobe.audit.mapping import Models
    from sqlprobe.audit.options import Options
    from sqlprobe.model import Finding

MAX_LISTED: Final = 12
MAX_BYTES: Final = 5_000_000  # of one migration: a bigger one carries data
LOCKS_OF: Final = 10  # the newest migrations: those before have been applied
SQUAWK_SECONDS: Final = 60


class MigrationsError(SqlprobeError, ValueError):
    """A directory without migrations: the message says what was found and what to do."""


@dataclass(frozen=True, slots=True)
class Step:
    """
    A call in `upgrade()`: `name` is the operation (`alter_column`), `table` what it is about, where that is written.

    `text` is the SQL of an `execute`.
    """

    name: str
    table: str
    call: ast.Call
    line: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Migration:
    """One revision. `down` are those it comes after; `created` is None where the file does not say."""

    file: Path
    revision: str
    down: tuple[str, ...]
    labels: tuple[str, ...]
    created: datetime | None
    upgrade: ast.FunctionDef | None
    downgrade: ast.FunctionDef | None
    steps: tuple[Step, ...]
    uses_postgresql: bool

    def site(self, line: int = 0) -> Site:
        first = self.upgrade.lineno if self.upgrade is not None else 1
        return Site(sites._shown(str(self.file)), line or first, "upgrade")  # noqa: SLF001 - as every site is shown


@dataclass(frozen=True)
class History:
    """The migrations of a directory, the first one first."""

    folder: Path
    migrations: tuple[Migration, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @cached_property
    def heads(self) -> tuple[Migration, ...]:
        below = {revision for migration in self.migrations for revision in migration.down}
        return tuple(migration for migration in self.migrations if migration.revision not in below)

    @cached_property
    def is_postgresql(self) -> bool:
        return any(migration.uses_postgresql for migration in self.migrations)


# --- reading ----------------------------------------------------------------------------------------------------------


def load(path: str) -> History:
    """
    The migrations in *path*: an Alembic directory, its `versions`, or an `alembic.ini`.

    Raises:
        MigrationsError: there are none.
    """
    place = Path(path)
    if place.is_file():
        place = _of_ini(place)
    if not place.is_dir():
        raise MigrationsError(f"migrations {path}: there is no such directory; name the one that holds versions/")
    folder = place / "versions" if (place / "versions").is_dir() else place
    found: list[Migration] = []
    notes: list[str] = []
    for file in sorted(folder.rglob("*.py")):
        if "__pycache__" in file.parts:
            continue
        try:
            if file.stat().st_size > MAX_BYTES:
                notes.append(f"migrations: {file.name} was not read: it is bigger than {MAX_BYTES:,} bytes")
                continue
            tree = ast.parse(file.read_bytes())
        except (OSError, SyntaxError, ValueError) as error:
            notes.append(f"migrations: {file.name} was not read: {type(error).__name__}")
            continue
        migration = _migration(file, tree)
        if migration is not None:
            found.append(migration)
    if not found:
        raise MigrationsError(
            f"migrations {path}: no file in {folder} sets revision; name the one that holds versions/"
        )
    return History(folder, tuple(_in_order(found)), tuple(notes))


def _of_ini(file: Path) -> Path:
    parser = configparser.ConfigParser({"here": str(file.parent.resolve())})
    try:
        parser.read(file, encoding="utf-8")
        location = parser.get("alembic", "script_location")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise MigrationsError(
            f"migrations {file}: found no script_location in [alembic]; name the directory that holds versions/"
        ) from error
    return file.parent / location


def _migration(file: Path, tree: ast.Module) -> Migration | None:
    values: dict[str, Any] = {}
    functions: dict[str, ast.FunctionDef] = {}
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef):
            functions[statement.name] = statement
            continue
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        value = getattr(statement, "value", None)
        if isinstance(target, ast.Name) and value is not None:
            with contextlib.suppress(ValueError, TypeError, SyntaxError):
                values[target.id] = ast.literal_eval(value)
    revision = values.get("revision")
    if not isinstance(revision, str) or "down_revision" not in values:
        return None
    upgrade = functions.get("upgrade")
    text = ast.unparse(upgrade) if upgrade is not None else ""
    imports = " ".join(ast.unparse(each) for each in tree.body if isinstance(each, ast.Import | ast.ImportFrom))
    return Migration(
        file=file,
        revision=revision,
        down=_texts(values["down_revision"]),
        labels=_texts(values.get("branch_labels")),
        created=_created(ast.get_docstring(tree) or "", values),
        upgrade=upgrade,
        downgrade=functions.get("downgrade"),
        steps=tuple(_steps(upgrade)) if upgrade is not None else (),
        uses_postgresql="postgresql" in imports or "pgvector" in imports or "postgresql" in text,
    )


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list | tuple | set) else ()


_DATE: Final = re.compile(r"^Create Date:\s*(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d))?", re.MULTILINE)


def _created(docstring: str, values: dict[str, Any]) -> datetime | None:
    match = _DATE.search(docstring)
    given = match[1] if match else values.get("create_date")
    with contextlib.suppress(ValueError, TypeError):
        return datetime.fromisoformat(given)  # type: ignore[arg-type]
    return None


def _in_order(migrations: list[Migration]) -> list[Migration]:
    known = {migration.revision: migration for migration in migrations}
    children: dict[str, list[Migration]] = {}
    waiting = {}
    for migration in migrations:
        above = [revision for revision in migration.down if revision in known]
        waiting[migration.revision] = len(above)
        for revision in above:
            children.setdefault(revision, []).append(migration)
    ready = [migration for migration in migrations if not waiting[migration.revision]]
    ordered: list[Migration] = []
    while ready:
        migration = ready.pop(0)
        ordered.append(migration)
        for child in children.get(migration.revision, ()):
            waiting[child.revision] -= 1
            if not waiting[child.revision]:
                ready.append(child)
    return ordered + [migration for migration in migrations if migration not in ordered]


def _steps(function: ast.FunctionDef) -> Iterator[Step]:
    batches: dict[str, str] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.With):
            for item in node.items:
                call, name = item.context_expr, item.optional_vars
                if isinstance(call, ast.Call) and _called(call) == "batch_alter_table" and isinstance(name, ast.Name):
                    batches[name.id] = _constant(call.args[0]) if call.args else ""
    for node in ast.walk(function):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
        batch = owner in batches
        table = batches[owner] if batch else (_constant(node.args[0]) if node.args else "")
        text = _sql(node.args[0]) if node.func.attr == "execute" and node.args else ""
        yield Step(("batch:" if batch else "") + node.func.attr, table, node, node.lineno, text)


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _constant(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _sql(node: ast.expr) -> str:
    """The text of a constant, of `text("...")`, and of an f-string with blanks where it has values."""
    if isinstance(node, ast.Call) and node.args:
        return _sql(node.args[0])
    if isinstance(node, ast.JoinedStr):
        return "".join(_constant(part) if isinstance(part, ast.Constant) else " " for part in node.values)
    if isinstance(node, ast.BinOp):
        return _sql(node.left) + _sql(node.right)
    return _constant(node)


# --- checks -----------------------------------------------------------------------------------------------------------


def check(history: History, models: Models, options: Options) -> list[Finding]:
    """What every rule for migrations says."""
    found: list[Finding] = []
    for rule, each in CHECKS.items():
        if options.wants(rule):
            found.extend(each(history, models, options))
    return found


def check_count(history: History, models: Models, options: Options) -> Iterator[Finding]:  # noqa: ARG001 - as every check's
    """
    So many migrations that setting up a database means replaying years.

    Each new database (of a test run, a developer, a tenant) applies them all. From 100 on a warning
    (`--max-migrations`), from half of that information. Named are those that can be squashed: from the first one on,
    in one line without branches, older than half a year, counted from the youngest one.

    What to do: apply them to an empty database, `pg_dump --schema-only`, make that one migration with the last squashed
    revision's id, so that databases that have it notice nothing; delete the files it replaces.
    """
    count = len(history.migrations)
    if count * 2 < options.migrations:
        return
    dates = [each.created for each in history.migrations if each.created is not None]
    youngest = max(dates, default=None)
    line = []
    branching = _branching(history)
    for index, migration in enumerate(history.migrations):
        if youngest is not None and migration.created is not None:
            old = youngest - migration.created > timedelta(days=options.keep_days)
        else:
            old = index < count // 2
        if not old or migration.revision in branching or len(migration.down) > 1 or migration.labels:
            break
        line.append(migration)
    squashed = f"; {len(line)} can be one: {line[0].revision} to {line[-1].revision}" if len(line) > 1 else ""
    yield finding(
        "migration-count",
        "warning" if count >= options.migrations else "info",
        "migrations",
        f"{count} migrations{squashed}",
        "squash the old ones: one migration with the schema that they lead to, under the last one's revision id",
        site=history.migrations[0].site(),
        evidence={
            "migrations": count,
            "squashable": len(line),
            **({"first": line[0].revision, "last": line[-1].revision} if line else {}),
        },
        fixes=(
            code.rewrite(
                f"alembic upgrade {line[-1].revision}   # on an empty database\n"
                f"pg_dump --schema-only --no-owner > {line[-1].revision}.sql\n"
                f"# one migration: revision = {line[-1].revision!r}, down_revision = None, upgrade() executes that file"
            ),
        )
        if len(line) > 1
        else (),
    )


def _branching(history: History) -> set[str]:
    seen: dict[str, int] = {}
    for migration in history.migrations:
        for revision in migration.down:
            seen[revision] = seen.get(revision, 0) + 1
    return {revision for revision, times in seen.items() if times > 1}


def check_heads(history: History, models: Models, options: Options) -> Iterator[Finding]:  # noqa: ARG001 - as every check's
    """
    Several heads: `alembic upgrade head` fails.

    Two branches were merged that each had added a migration after the same one.

    What to do: `alembic merge heads`; or give the later one the other as its `down_revision`, while nobody
    has applied it.

    Silent: branches with labels, which are meant.
    """
    heads = history.heads
    if len(heads) < 2 or _has_labels(history):  # noqa: PLR2004
        return
    names = ", ".join(head.revision for head in heads)
    yield finding(
        "migration-heads",
        "error",
        "heads",
        f"{len(heads)} heads: {names}",
        "merge them",
        site=heads[-1].site(),
        evidence={"heads": names},
        fixes=(code.rewrite(f'alembic merge -m "merge heads" {" ".join(head.revision for head in heads)}'),),
    )


def _has_labels(history: History) -> bool:
    return any(migration.labels for migration in history.migrations)


def check_downgrades(history: History, models: Models, options: Options) -> Iterator[Finding]:  # noqa: ARG001 - as every check's
    """
    Migrations that change something and whose `downgrade()` does nothing.

    `alembic downgrade` passes them as if it had gone back, and the next upgrade fails on what is still there.

    What to do: write it, or `raise NotImplementedError("...")`, which says that there is no way back.

    Silent: where it raises, where `upgrade()` does nothing (merges) or only changes rows, and where (nearly) no
    migration can be undone, which is a decision.
    """
    empty = [each for each in history.migrations if _changes(each) and _does_nothing(each.downgrade)]
    changing = [each for each in history.migrations if _changes(each)]
    if not empty or len(empty) * 5 >= len(changing) * 4:
        return
    yield finding(
        "migration-downgrade",
        "info",
        "downgrades",
        f"{len(empty)} of {len(changing)} migrations have a downgrade that does nothing",
        'write them, or say that there is no way back: raise NotImplementedError("...")',
        site=empty[-1].site(empty[-1].downgrade.lineno if empty[-1].downgrade else 0),
        evidence={"empty": len(empty), "revisions": _some(each.revision for each in empty)},
    )


_DDL: Final = ("create_", "add_", "drop_", "alter_", "rename_")


def _changes(migration: Migration) -> bool:
    for step in migration.steps:
        name = step.name.removeprefix("batch:")
        if name.startswith(_DDL) or re.search(r"\b(?:CREATE|ALTER|DROP)\s+\w", step.text, re.IGNORECASE):
            return True
    return False


def _does_nothing(function: ast.FunctionDef | None) -> bool:
    if function is None:
        return True
    return all(
        isinstance(each, ast.Pass) or (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
        for each in function.body
    )


@dataclass(frozen=True, slots=True)
class _Type:
    """A column's type as a migration writes it: its family, and the dimensions of a vector."""

    spelt: str
    family: str
    dimensions: int | None = None


_FAMILIES: Final = {
    "text": "string text unicode unicodetext varchar char character citext",
    "int": "integer biginteger smallinteger int bigint smallint int4 int8",
    "number": "numeric float double real decimal double_precision",
    "bool": "boolean bool",
    "uuid": "uuid",
    "json": "json jsonb",
    "time": "datetime date timestamp timestamptz time",
    "enum": "enum",
    "array": "array",
    "vector": "vector halfvec",
}
_FAMILY_OF: Final = {name: family for family, listed in _FAMILIES.items() for name in listed.split()}
# ALTER COLUMN … TYPE takes casts of assignment; what is not among them needs USING.
_NO_CAST: Final = {
    "text": {"int", "number", "bool", "uuid", "json", "time", "enum", "array", "vector"},
    "int": {"bool", "uuid", "json", "time", "enum", "array"},
    "bool": {"int", "number", "uuid", "json", "time"},
    "uuid": {"int", "number", "bool", "json", "time"},
    "time": {"int", "number", "bool", "uuid", "json"},
    "number": {"bool", "uuid", "json", "time"},
    "json": {"int", "number", "bool", "uuid", "time", "array"},
    "enum": {"int", "number", "bool", "uuid", "json", "time"},
}


def _type(text: str) -> _Type:
    head = re.match(r"(?:\w+\.)*(\w+)", text.strip())
    name = head[1].lower() if head else ""
    family = _FAMILY_OF.get(name, "")
    if re.search(r"\[\s*\d*\s*\]\s*$", text):
        family = "array"
    number = re.search(r"\(\s*(?:dim\s*=\s*)?(\d+)\s*\)", text) if family == "vector" else None
    if family == "array":
        number = re.search(r"dimensions\s*=\s*(\d+)", text)
    return _Type(text.strip(), family, int(number[1]) if number else None)


_SQL_TYPE: Final = (
    r"((?:timestamp|time)\s+with(?:out)?\s+time\s+zone|double\s+precision|character\s+varying(?:\s*\(\d+\))?"
    r"|[\w.]+(?:\s*\([\d\s,]+\))?(?:\[\d*\])?)"
)
_ALTER: Final = re.compile(
    r"ALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?([\w.\"]+)\s+ALTER\s+(?:COLUMN\s+)?\"?(\w+)\"?\s+"
    r"(?:SET\s+DATA\s+)?TYPE\s+" + _SQL_TYPE + r"([^;]*)",
    re.IGNORECASE,
)
_ADD: Final = re.compile(
    r"ALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?([\w.\"]+)\s+ADD\s+(?:COLUMN\s+)?(?:IF\s+NOT\s+EXISTS\s+)?"
    r"\"?(\w+)\"?\s+" + _SQL_TYPE,
    re.IGNORECASE,
)
_DROP: Final = re.compile(
    r"ALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?([\w.\"]+)\s+DROP\s+(?:COLUMN\s+)?(?:IF\s+EXISTS\s+)?\"?(\w+)\"?",
    re.IGNORECASE,
)
_CREATED_VECTOR: Final = re.compile(r"\b(\w+)\s+((?:vector|halfvec)\s*\(\s*\d+\s*\))", re.IGNORECASE)
_CREATE: Final = re.compile(r"CREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?([\w.\"]+)\s*\(", re.IGNORECASE)
_DATA: Final = re.compile(r"\b(?:UPDATE\s+[\w.\"]+\s+SET|DELETE\s+FROM|TRUNCATE|INSERT\s+INTO)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Change:
    """What a step makes of a column: `new` is None where it is dropped; `using` is what it says of the values."""

    kind: str  # "add", "alter", "drop"
    table: str
    column: str
    new: _Type | None
    old: _Type | None
    using: str
    line: int


def _changes_of(step: Step) -> Iterator[_Change]:
    name, call = step.name.removeprefix("batch:"), step.call
    shift = 0 if step.name.startswith("batch:") else 1
    arguments = call.args[shift:]
    if name in {"create_table", "add_column"}:
        for each in arguments:
            if isinstance(each, ast.Call) and _called(each) == "Column" and len(each.args) > 1:
                kind = _type(ast.unparse(each.args[1]))
                yield _Change("add", step.table, _constant(each.args[0]), kind, None, "", step.line)
    elif name == "alter_column" and arguments:
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        new, old = given.get("type_"), given.get("existing_type")
        if new is not None:
            using = given.get("postgresql_using")
            yield _Change(
                "alter",
                step.table,
                _constant(arguments[0]),
                _type(ast.unparse(new)),
                _type(ast.unparse(old)) if old is not None else None,
                (_sql(using) or "given") if using is not None else "",
                step.line,
            )
    elif name == "drop_column" and arguments:
        yield _Change("drop", step.table, _constant(arguments[0]), None, None, "", step.line)
    elif step.text:
        yield from _changes_in(step.text, step.line)


def _changes_in(text: str, line: int) -> Iterator[_Change]:
    for match in _CREATE.finditer(text):
        for column in _CREATED_VECTOR.finditer(text, match.end()):
            yield _Change("add", _bare(match[1]), column[1], _type(column[2]), None, "", line)
    for match in _DROP.finditer(text):
        yield _Change("drop", _bare(match[1]), match[2], None, None, "", line)
    for match in _ADD.finditer(text):
        if match[2].upper() not in {"CONSTRAINT", "PRIMARY", "UNIQUE", "FOREIGN", "CHECK"}:
            yield _Change("add", _bare(match[1]), match[2], _type(match[3]), None, "", line)
    for match in _ALTER.finditer(text):
        using = re.search(r"\bUSING\b\s*(.*)", match[4], re.IGNORECASE | re.DOTALL)
        yield _Change("alter", _bare(match[1]), match[2], _type(match[3]), None, using[1] if using else "", line)


def _bare(table: str) -> str:
    return table.rpartition(".")[2].strip('"')


def check_types(history: History, models: Models, options: Options) -> Iterator[Finding]:  # noqa: ARG001 - as every check's
    """
    A migration changes a column's type, and not what is in it.

    - A vector's dimensions change, or a list of floats becomes a vector: vectors of the old model do not fit, and mean
      nothing to the new one. Without an `UPDATE`, a `DELETE` or `USING NULL` the migration fails on the first row
      there is, or keeps what cannot be compared.
    - A change that PostgreSQL has no cast for (text to integer, uuid, jsonb …) without `postgresql_using`: it fails,
      whatever is in the table.

    What to do: empty the column in the same migration and re-embed in a job; `postgresql_using="column::uuid"`.

    Silent: columns that are dropped and made anew, migrations that write rows, changes with `USING`, and migrations
    for other databases.
    """
    known: dict[tuple[str, str], _Type] = {}
    for migration in history.migrations:
        writes = _writes(migration)
        for change in sorted(_changes_within(migration), key=lambda each: each.line):
            key = (change.table, change.column)
            before = known.get(key) or change.old
            if change.new is None:
                known.pop(key, None)
                continue
            if change.kind == "alter" and before is not None and key != ("", ""):
                told = _judged(migration, change, before, writes=writes, postgresql=history.is_postgresql)
                if told is not None:
                    yield told
            if change.new.family:
                known[key] = change.new


def _changes_within(migration: Migration) -> Iterator[_Change]:
    for step in migration.steps:
        yield from _changes_of(step)


def _writes(migration: Migration) -> bool:
    for step in migration.steps:
        if _DATA.search(step.text) or step.name in {"bulk_insert", "update", "delete", "insert"}:
            return True
        # Rows that are read are there to be written again.
        if step.name == "execute" and not step.text:
            return True
    return False


def _judged(migration: Migration, change: _Change, before: _Type, *, writes: bool, postgresql: bool) -> Finding | None:
    new = change.new
    assert new is not None
    where = f"{change.table}.{change.column}" if change.table else change.column
    vector = new.family == "vector" and before.family in {"vector", "array"}
    if vector and not writes and "null" not in change.using.lower():
        if before.family == "vector" and before.dimensions == new.dimensions:
            return None
        column = change.column
        return finding(
            "migration-type-change",
            "warning",
            where,
            f"{migration.revision} makes {where} {new.spelt} from {before.spelt}, and keeps the old vectors",
            "empty the column in the migration, and make the vectors anew",
            detail=migration.revision,
            site=migration.site(change.line),
            evidence={"before": before.spelt, "after": new.spelt, "revision": migration.revision},
            fixes=(
                code.rewrite(
                    f'op.execute("UPDATE {change.table} SET {column} = NULL WHERE {column} IS NOT NULL")\n'  # noqa: S608 - code to read
                    f"# before the type changes; then a job that embeds these rows again",
                ),
            ),
        )
    if postgresql and not change.using and new.family in _NO_CAST.get(before.family, ()):
        return finding(
            "migration-type-change",
            "error",
            where,
            f"{migration.revision} changes {where} from {before.spelt} to {new.spelt}, which PostgreSQL cannot cast by "
            "itself",
            "say how: postgresql_using",
            detail=migration.revision,
            site=migration.site(change.line),
            evidence={"before": before.spelt, "after": new.spelt, "revision": migration.revision},
        )
    return None


def check_enums(history: History, models: Models, options: Options) -> Iterator[Finding]:  # noqa: ARG001 - as every check's
    """As `mapping.check_enum_and_check`, between migrations and models."""
    native, checked = mapping.enums_and_checks(models)
    if not checked:
        return
    used = {getattr(column.type, "name", None) for column in native}
    made: dict[str, Migration] = {}
    for migration in history.migrations:
        for name in _enums_made(migration):
            made.setdefault(name, migration)
        for step in migration.steps:
            for match in re.finditer(r"DROP\s+TYPE\s+(?:IF\s+EXISTS\s+)?([\w.\"]+)", step.text, re.IGNORECASE):
                made.pop(_bare(match[1]), None)
    left = sorted(name for name in made if name not in used)
    if left:
        first = made[left[0]]
        yield finding(
            "enum-and-check",
            "info",
            "enum types",
            f"migrations create {len(left)} enum types that no model uses, while {len(checked)} columns have a CHECK",
            "replace the types by CHECK constraints: ALTER COLUMN … TYPE varchar, DROP TYPE, ADD CONSTRAINT",
            detail="migrations",
            site=first.site(),
            evidence={"types": _some(left), "checks": len(checked)},
        )


def _enums_made(migration: Migration) -> Iterator[str]:
    if migration.upgrade is None:
        return
    for node in ast.walk(migration.upgrade):
        if isinstance(node, ast.Call) and _called(node).lower() == "enum":
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            name = given.get("name")
            native = given.get("native_enum")
            if name is not None and not (isinstance(native, ast.Constant) and native.value is False):
                yield _constant(name)
    for step in migration.steps:
        for match in re.finditer(r"CREATE\s+TYPE\s+([\w.\"]+)\s+AS\s+ENUM", step.text, re.IGNORECASE):
            yield _bare(match[1])


# What squawk says of locks; the rest of its rules are taste.
_LOCKS: Final = frozenset({
    "adding-field-with-default", "adding-foreign-key-constraint", "adding-not-nullable-field", "adding-required-field",
    "adding-serial-primary-key-field", "changing-column-type", "constraint-missing-not-valid",
    "disallowed-unique-constraint", "require-concurrent-index-creation", "require-concurrent-index-deletion",
})  # fmt: skip


def check_locks(history: History, models: Models, options: Options) -> Iterator[Finding]:  # noqa: ARG001 - as every check's
    """
    A migration takes a lock that stops the application, as squawk tells.

    The SQL of the ten newest migrations, made by Alembic offline, is judged by squawk, if both are installed; of what
    it says, the rules about locks are passed on with its words: an index that is made without `CONCURRENTLY`, a foreign
    key without `NOT VALID`, a type that rewrites the table.

    What to do: what squawk says; `postgresql_concurrently=True` in an `autocommit_block()` for indexes.

    Silent: tables that the same migration creates, and migrations that ask the database something and so have no SQL
    offline.
    """
    if not history.is_postgresql or squawk() is None:
        return
    for migration in history.migrations[-LOCKS_OF:]:
        sql = offline(migration)
        for told in _squawk(sql) if sql else ():
            yield finding(
                "migration-lock",
                "warning",
                migration.revision,
                f"{migration.revision}: {told['message'].rstrip('.')}",
                (told.get("help") or "").rstrip(".") or f"see squawk's {told['rule_name']}",
                detail=told["rule_name"],
                site=migration.site(),
                evidence={"squawk": told["rule_name"], "statements": told["times"]},
            )


def squawk() -> str | None:
    """The path of squawk: beside this Python (`pip install squawk-cli`), or on the PATH."""
    return shutil.which("squawk", path=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]))


def offline(migration: Migration) -> str:
    """The SQL of `upgrade()`, "" where it cannot be told without a database."""
    try:
        import alembic.op
        from alembic.operations import Operations
        from alembic.runtime.migration import MigrationContext
    except ImportError:
        return ""
    buffer = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": buffer, "literal_binds": True}
    )
    source = migration.file.read_bytes()
    namespace: dict[str, Any] = {"__name__": f"migration_{migration.revision}", "__file__": str(migration.file)}
    try:
        with warnings.catch_warnings(), Operations.context(context):
            warnings.simplefilter("ignore")
            exec(compile(source, str(migration.file), "exec"), namespace)  # noqa: S102 - as Alembic runs it
            namespace["upgrade"]()
    except Exception:  # noqa: BLE001 - it asks a database that is not there
        return ""
    assert alembic.op is not None
    return buffer.getvalue()


def _squawk(sql: str) -> Sequence[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "migration.sql"
        file.write_text(sql, encoding="utf-8")
        try:
            done = subprocess.run(  # noqa: S603 - a program that the user has installed
                [squawk() or "squawk", "--reporter", "json", "--assume-in-transaction", str(file)],
                check=False,
                capture_output=True,
                text=True,
                timeout=SQUAWK_SECONDS,
            )
            told = json.loads(done.stdout or "[]")
        except (OSError, subprocess.TimeoutExpired, ValueError):
            return ()
    by_rule: dict[str, dict[str, Any]] = {}
    for each in told if isinstance(told, list) else ():
        if isinstance(each, dict) and each.get("rule_name") in _LOCKS:
            kept = by_rule.setdefault(each["rule_name"], {**each, "times": 0})
            kept["times"] += 1
    return [{**each, "message": str(each.get("message", ""))} for _, each in sorted(by_rule.items())]


def _some(names: Iterable[str]) -> str:
    every = list(names)
    rest = f" and {len(every) - MAX_LISTED} more" if len(every) > MAX_LISTED else ""
    return ", ".join(every[:MAX_LISTED]) + rest


CHECKS: Final[dict[str, Callable[[History, Models, Options], Iterable[Finding]]]] = {
    "migration-count": check_count,
    "migration-heads": check_heads,
    "migration-downgrade": check_downgrades,
    "migration-type-change": check_types,
    "enum-and-check": check_enums,
    "migration-lock": check_locks,
}
