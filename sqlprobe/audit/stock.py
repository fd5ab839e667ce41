"""
The stock: all relations of a database with their statistics, read once in some fourteen questions, or from a file.

The questions are those of `plans.catalog`, for every relation at once, and a few about what plans do not need: keys
that refer, sequences, how often tables are written. No value of a row is read.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from sqlprobe.model import SqlprobeError
from sqlprobe.plans import catalog
from sqlprobe.plans.explain import Limits, on_connection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Engine

    from sqlprobe.plans.catalog import Relation
    from sqlprobe.plans.explain import Session

FORMAT: Final = "sqlprobe-catalog/1"
# An audit is asked for by a person, who can wait; the server still gets rid of it by itself.
LIMITS: Final = Limits(lock_seconds=2.0, statement_seconds=30.0, idle_seconds=60.0)


class StockError(SqlprobeError, ValueError):
    """A stock that cannot be read or written: the message says what was found and what to do."""


class Answers(Protocol):
    """Whoever answers questions to the catalog."""

    def read(self, *questions: str) -> list[list[Any]]: ...


@dataclass(frozen=True, slots=True)
class Use:
    """
    How a table is used, counted since statistics began; None where they do not say.

    `secured` says that row security is on for it, `forced` for its owner too. `readable`: the role that asked may see
    its statistics.
    """

    inserted: int
    updated: int
    deleted: int
    heap_only: int
    scans: int
    secured: bool
    forced: bool
    readable: bool
    is_partition: bool
    fill_factor: int = 100


@dataclass(frozen=True, slots=True)
class Reference:
    """A foreign key, from `columns` of `relation` to `target_columns` of `target` (both are oids)."""

    name: str
    relation: int
    columns: tuple[str, ...]
    target: int
    target_columns: tuple[str, ...]
    action: str  # of ON DELETE: "a" none, "r" restrict, "c" cascade, "n" set null, "d" set default


@dataclass(frozen=True, slots=True)
class Sequence:
    """A sequence, and the column that owns it, "" if none does. `last` is None where nobody has drawn or may see."""

    schema: str
    name: str
    last: int | None
    least: int
    most: int
    step: int
    cycles: bool
    table: str
    column: str
    column_type: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What an index is besides an index, none of which lets it be dropped."""

    holds_constraint: bool
    is_identity: bool
    is_part: bool  # of the index of a partitioned table
    is_partitioned: bool
    is_building: bool


@dataclass(frozen=True)
class Stock:
    """All of it. Times are Unix times; `since` is when the counters began."""

    relations: Mapping[int, Relation]
    uses: Mapping[int, Use] = field(default_factory=dict)
    references: tuple[Reference, ...] = ()
    sequences: tuple[Sequence, ...] = ()
    standings: Mapping[tuple[str, str], Standing] = field(default_factory=dict)
    taken: float = 0.0
    since: float = 0.0
    in_recovery: bool = False
    standbys: int = 0
    server_version: int = 0
    default_schema: str = "public"
    database: str = ""
    cache_bytes: int = 0  # effective_cache_size; 0: not known
    answers: list[list[Any]] = field(default_factory=list, repr=False)

    @cached_property
    def by_name(self) -> Mapping[tuple[str, str], Relation]:
        return {(relation.schema, relation.name): relation for relation in self.relations.values()}

    @property
    def days(self) -> float:
        """How long the counters have counted."""
        return max(0.0, self.taken - self.since) / 86_400

    def write(self, path: str | os.PathLike[str]) -> None:
        """
        Keep it in the file *path*, for an audit without the database.

        Raises:
            StockError: it cannot be written.
        """
        text = json.dumps({"format": FORMAT, "answers": self.answers}, default=_plain)
        try:
            Path(path).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise StockError(
                f"statistics {os.fspath(path)}: cannot be written: {error.strerror}; name a file that can be"
            ) from error


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else str(value)


def read(engine: Engine) -> Stock:
    """
    The stock of *engine*'s database, over a connection of our own that cannot write.

    Raises:
        Refused: the server did not answer, or is not PostgreSQL.
    """
    return on_connection(engine, _ask, LIMITS)


def load(path: str | os.PathLike[str]) -> Stock:
    """
    The stock that `Stock.write` kept.

    Raises:
        StockError: the file cannot be read, or holds something else.
    """
    name = os.fspath(path)
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no JSON"
        raise StockError(f"statistics {name}: cannot be read: {reason}; write it with --save-stats {name}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else type(document).__name__
        hint = (
            " (a snapshot, for explain --stats, has no counters)" if str(found).startswith("sqlprobe-snapshot") else ""
        )
        raise StockError(
            f"statistics {name}: {FORMAT} is needed, found {found}{hint}; write it with audit --url URL --save-stats"
        )
    try:
        return _ask(_Kept(list(document["answers"])))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise StockError(
            f"statistics {name}: something is missing in it; write it again: --save-stats {name}"
        ) from error


class _Kept:
    """Answers from a file, in the order in which they were given."""

    def __init__(self, answers: list[list[Any]]) -> None:
        self._answers = answers

    def read(self, *questions: str) -> list[list[Any]]:
        given, self._answers = self._answers[: len(questions)], self._answers[len(questions) :]
        if len(given) < len(questions):
            raise IndexError
        return [[tuple(row) for row in rows] for rows in given]


class _Keeping:
    """Passes questions on, and keeps the answers."""

    def __init__(self, session: Session | Answers) -> None:
        self._session = session
        self.answers: list[list[Any]] = []

    def read(self, *questions: str) -> list[list[Any]]:
        given = self._session.read(*questions)
        self.answers += [[list(row) for row in rows] for rows in given]
        return given


def _ask(session: Session | Answers) -> Stock:
    keeping = _Keeping(session)
    ((server,), tables, references, sequences, standings) = keeping.read(
        _SERVER, _TABLES, _REFERENCES, _SEQUENCES, _STANDINGS
    )
    taken, began, reset, recovery, standbys, version, schema, *more = server
    uses = {
        int(oid): Use(
            inserted=int(inserted),
            updated=int(updated),
            deleted=int(deleted),
            heap_only=int(heap_only),
            scans=int(scans),
            secured=bool(secured),
            forced=bool(forced),
            readable=bool(readable),
            is_partition=bool(part),
            fill_factor=_fill_factor(options),
        )
        for oid, inserted, updated, deleted, heap_only, scans, secured, forced, readable, part, options in tables
    }
    relations = catalog._read(keeping, list(uses)) if uses else []  # type: ignore[arg-type] # noqa: SLF001 - for all at once
    return Stock(
        relations={relation.oid: relation for relation in relations},
        uses=uses,
        references=tuple(
            Reference(str(name), int(child), _split(columns), int(parent), _split(others), str(action))
            for name, child, columns, parent, others, action in references
            if int(child) in uses and int(parent) in uses
        ),
        sequences=tuple(
            Sequence(
                str(schema_),
                str(name),
                None if last is None else int(last),
                int(least),
                int(most),
                int(step),
                bool(cycles),
                str(table or ""),
                str(column or ""),
                str(kind or ""),
            )
            for schema_, name, last, least, most, step, cycles, table, column, kind in sequences
        ),
        standings={(str(schema_), str(name)): Standing(*map(bool, rest)) for schema_, name, *rest in standings},
        taken=float(taken),
        since=float(reset if reset is not None else began),
        in_recovery=bool(recovery),
        standbys=int(standbys),
        server_version=int(version),
        default_schema=str(schema or "public"),
        # A file of an older version says neither.
        cache_bytes=int(more[0]) if more else 0,
        database=str(more[1]) if more else "",
        answers=keeping.answers,
    )


def _split(columns: Any) -> tuple[str, ...]:
    return tuple(str(columns).split(",")) if columns else ()


def _fill_factor(options: Any) -> int:
    for pair in str(options or "").split(","):
        name, _, value = pair.partition("=")
        if name == "fillfactor" and value.isdecimal():
            return int(value)
    return 100


_SERVER: Final = """
SELECT extract(epoch FROM pg_catalog.now())::float, extract(epoch FROM pg_catalog.pg_postmaster_start_time())::float,
    (SELECT extract(epoch FROM d.stats_reset)::float FROM pg_catalog.pg_stat_database d
        WHERE d.datname = pg_catalog.current_database()),
    pg_catalog.pg_is_in_recovery(), (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_replication),
    pg_catalog.current_setting('server_version_num')::int, pg_catalog.current_schema()::text,
    pg_catalog.pg_size_bytes(pg_catalog.current_setting('effective_cache_size'))::bigint,
    pg_catalog.current_database()::text
"""

# Of the application: no system tables, none of another session's, none that an extension brings.
_OWN: Final = """
    n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND n.nspname NOT LIKE 'pg\\_temp%'
    AND n.nspname NOT LIKE 'pg\\_toast%'
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.pg_class'::regclass
        AND e.objid = c.oid AND e.deptype = 'e')
"""

_TABLES: Final = f"""
SELECT c.oid::bigint, coalesce(s.n_tup_ins, 0), coalesce(s.n_tup_upd, 0), coalesce(s.n_tup_del, 0),
    coalesce(s.n_tup_hot_upd, 0), coalesce(s.seq_scan, 0) + coalesce(s.idx_scan, 0), c.relrowsecurity,
    c.relforcerowsecurity,
    pg_catalog.has_table_privilege(c.oid, 'SELECT') AND NOT pg_catalog.row_security_active(c.oid), c.relispartition,
    coalesce(pg_catalog.array_to_string(c.reloptions, ','), '')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid
WHERE c.relkind IN ('r', 'p', 'm') AND {_OWN}
ORDER BY c.oid
"""  # noqa: S608 - every part is written here

_REFERENCES: Final = """
SELECT k.conname::text, k.conrelid::bigint,
    (SELECT pg_catalog.string_agg(a.attname::text, ',' ORDER BY x.n)
        FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY x(attnum, n)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = x.attnum),
    k.confrelid::bigint,
    (SELECT pg_catalog.string_agg(a.attname::text, ',' ORDER BY x.n)
        FROM pg_catalog.unnest(k.confkey) WITH ORDINALITY x(attnum, n)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = x.attnum),
    k.confdeltype::text
FROM pg_catalog.pg_constraint k
WHERE k.contype = 'f' AND k.conparentid = 0
ORDER BY k.conrelid, k.conname
"""

_SEQUENCES: Final = """
SELECT q.schemaname::text, q.sequencename::text, q.last_value::bigint, q.min_value::bigint, q.max_value::bigint,
    q.increment_by::bigint, q.cycle, t.relname::text, a.attname::text, pg_catalog.format_type(a.atttypid, NULL)
FROM pg_catalog.pg_sequences q
    JOIN pg_catalog.pg_namespace n ON n.nspname = q.schemaname
    JOIN pg_catalog.pg_class c ON c.relname = q.sequencename AND c.relnamespace = n.oid AND c.relkind = 'S'
    LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid
        AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
    LEFT JOIN pg_catalog.pg_class t ON t.oid = d.refobjid
    LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
ORDER BY 1, 2
"""

_STANDINGS: Final = """
SELECT n.nspname::text, x.relname::text,
    EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = i.indexrelid),
    i.indisreplident, x.relispartition, x.relkind = 'I',
    EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
ORDER BY 1, 2
"""
