"""
Where a lab stands: on a server that this process starts, or on one that was given away for it.

A lab needs more than SQL. The planner takes a table's size from its file, so files are cut and extended: here by their
names, and on a server that was given by a shell that the server runs (`COPY ... TO PROGRAM`, which superusers may).
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import time
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from sqlprobe.advice import stored
from sqlprobe.advice.candidates import literal, quoted
from sqlprobe.model import SqlprobeError
from sqlprobe.plans import explain
from sqlprobe.plans.catalog import PAGE_BYTES
from sqlprobe.settings import LAB_URL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import URL, Engine

    from sqlprobe.advice.server import Server

T = TypeVar("T")

SEGMENT_PAGES: Final = 131_072  # of one file: 1 GB
OLDEST: Final = 180_000  # the first version whose statistics can be written
MADE_FOR_LABS: Final = "made for labs of sqlprobe"  # the comment on a role
STALE_SECONDS: Final = 86_400  # after which a lab's database is one that a killed process has left


class LabError(SqlprobeError):
    """A lab that cannot be had; the message says what was found and what to do."""


Run = Any  # Callable[[str], list[tuple]]: what a statement returns


class Connections:
    """To one database, with the application's driver: each is a new one, and is counted by nobody."""

    def __init__(self, url: URL, *, is_async: bool) -> None:
        self._is_async = is_async
        if is_async:
            from sqlalchemy.ext.asyncio import create_async_engine

            engine = create_async_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT").sync_engine
        else:
            engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        engine.pool.sqlprobe_own = True  # type: ignore[attr-defined] # see sqlprobe.pool
        self.engine: Engine = engine

    def control(self, work: Callable[[Run], T]) -> T:
        """What *work* returns, given a function that runs a statement and returns its rows."""

        def inside() -> T:
            with self._by_the_driver() as run:
                return work(run)

        return explain.in_own_loop(inside, "sqlprobe-lab") if self._is_async else inside()

    @contextlib.contextmanager
    def _by_the_driver(self) -> Iterator[Run]:
        """By the driver's cursor: no event of SQLAlchemy fires, and nothing of it is counted."""
        connection = self.engine.raw_connection()
        try:

            def run(statement: str) -> list[tuple[Any, ...]]:
                cursor = connection.cursor()
                try:
                    cursor.execute(statement)
                    return [] if cursor.description is None else [tuple(row) for row in cursor.fetchall()]
                finally:
                    cursor.close()

            yield run
        finally:
            connection.close()


class Place(Protocol):
    """
    A database to make a lab of, and its files, named as `pg_relation_filepath()` does. What is asked of files is done
    by `settle()` at the latest, in that order.
    """

    connections: Connections

    def cut(self, path: str) -> None:
        """Make the relation empty, so that an index on it is made at once."""

    def extend(self, path: str, pages: int) -> None:
        """Make the relation *pages* long, with holes; never shorter than it is."""

    def plant(self, path: str, height: int) -> None:
        """Write the first pages of a B-tree of that height."""

    def settle(self, run: Run) -> None:
        """Do what has been asked, on a connection to the database."""


class Own:
    """The *database* of a server that is this process's own, and ends with it."""

    def __init__(self, server: Server, database: str, driver: str, *, is_async: bool) -> None:
        self.connections = Connections(server.url_for(driver, database), is_async=is_async)
        self.data: Path = server.data

    def cut(self, path: str) -> None:
        first = self.data / path
        for file in first.parent.glob(f"{first.name}.*"):
            if file.suffix[1:].isdecimal():
                file.unlink()
        os.truncate(first, 0)

    def extend(self, path: str, pages: int) -> None:
        first = self.data / path
        for name, length in _segments(path, pages):
            file = self.data / name
            if not file.exists():
                file.touch(mode=0o600)
                owner = first.stat()
                if os.geteuid() == 0:
                    os.chown(file, owner.st_uid, owner.st_gid)
            if file.stat().st_size < length:
                os.truncate(file, length)

    def plant(self, path: str, height: int) -> None:
        with (self.data / path).open("r+b") as file:
            file.write(stored.tree(height))

    def settle(self, run: Run) -> None:
        pass  # it has been done


class Given:
    """A database of its own on a server that others gave away, see `given()`."""

    def __init__(self, url: URL, *, is_async: bool, checksums: bool) -> None:
        self.connections = Connections(url, is_async=is_async)
        self._checksums = checksums
        self._script: list[str] = []
        self._heights: set[int] = set()

    def cut(self, path: str) -> None:
        self._script.append(f"rm -f {path}.[0-9]* && : > {path}")

    def extend(self, path: str, pages: int) -> None:
        self._script += [f"extend {name} {length}" for name, length in _segments(path, pages)]

    def plant(self, path: str, height: int) -> None:
        if height not in self._heights:
            self._heights.add(height)
            text = base64.encodebytes(stored.tree(height, checksums=self._checksums)).decode()
            self._script += [f'base64 -d > "$trees/{height}" <<end', *text.splitlines(), "end"]
        self._script.append(f'dd if="$trees/{height}" of={path} bs={PAGE_BYTES} conv=notrunc 2> /dev/null')

    def settle(self, run: Run) -> None:
        if not self._script:
            return
        text = "\n".join([*_PROLOGUE, *self._script])
        self._script, self._heights = [], set()
        # A row for each line: within one, COPY would write the end of a line in its own way.
        copy = f"COPY (SELECT unnest(string_to_array({literal(text)}, chr(10)))) TO PROGRAM 'sh'"
        _doing("COPY TO PROGRAM", lambda: run(copy))


# The server's folder of data is where its programs begin.
_PROLOGUE: Final = (
    "set -e",
    "umask 077",
    "trees=$(mktemp -d)",
    """trap 'rm -rf "$trees"' EXIT""",
    'extend() { [ -e "$1" ] || : > "$1"; [ "$(stat -c %s "$1")" -ge "$2" ] || truncate -s "$2" "$1"; }',
)


def _segments(path: str, pages: int) -> Iterator[tuple[str, int]]:
    """The files of a relation of *pages*, each with its length in bytes."""
    segment = 0
    while pages > 0 or segment == 0:
        yield f"{path}.{segment}" if segment else path, min(pages, SEGMENT_PAGES) * PAGE_BYTES
        pages -= SEGMENT_PAGES
        segment += 1


@contextlib.contextmanager
def given(text: str, driver: str, *, is_async: bool, is_c_collation: bool, other_than: str = "") -> Iterator[Given]:
    """
    A database for the block, on the server of the URL *text*, reached with *driver*; it is removed at the end, with
    the roles that were made for it. *other_than* is the `system_identifier` of a server that it must not be.

    Raises:
        LabError: there is no such server, it is too old or not for us to write to, or it does not do as it is told.
    """
    admin = Connections(_url(text, driver), is_async=is_async)
    name = f"sqlprobe_lab_{int(time.time())}_{secrets.token_hex(4)}"
    checksums = _doing("a connection", lambda: admin.control(lambda run: _check(run, other_than)))
    locale = "LOCALE_PROVIDER builtin LOCALE 'C.UTF-8'" if is_c_collation else "LOCALE_PROVIDER libc LOCALE 'C.UTF-8'"

    def make(run: Run) -> None:
        run(_LOCK)
        for (stale,) in run("SELECT datname::text FROM pg_database WHERE datname ~ '^sqlprobe_lab_[0-9]+_'"):
            if time.time() - int(stale.split("_")[2]) > STALE_SECONDS:
                run(f"DROP DATABASE IF EXISTS {quoted(stale)} WITH (FORCE)")
        run(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' {locale}")
        for setting, value in [*run(_CHANGED), *_ITS_OWN.items()]:
            run(f"ALTER DATABASE {name} SET {quoted(setting)} = {literal(value)}")
        run(_UNLOCK)

    place = Given(admin.engine.url.set(database=name), is_async=is_async, checksums=checksums)

    def remove(run: Run) -> None:
        run(_LOCK)
        run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        # Roles are the whole server's: the last lab that goes takes those that were made for any.
        if not run("SELECT 1 FROM pg_database WHERE datname ~ '^sqlprobe_lab_[0-9]+_'"):
            for (role,) in run(_ROLES):
                run(f"DROP ROLE {quoted(role)}")
        run(_UNLOCK)

    try:
        _doing("CREATE DATABASE", lambda: admin.control(make))
        yield place
    finally:
        with contextlib.suppress(Exception):  # it is gone, and so is what was there
            admin.control(remove)


def _url(text: str, driver: str) -> URL:
    try:
        url = make_url(text)
    except ArgumentError:
        raise _error("what is no URL", "write one such as postgresql://postgres@localhost:5432/postgres") from None
    if url.get_backend_name() != "postgresql":
        raise _error(f"a URL of {url.get_backend_name()}", "a lab is made on PostgreSQL 18 or newer")
    return url.set(drivername=f"postgresql+{driver}", database=url.database or "postgres")


def _check(run: Run, other_than: str) -> bool:
    """Whether the server has checksums; refuses what a lab cannot be made on."""
    ((version, is_super, checksums, system),) = run(_SERVER)
    if int(version) < OLDEST:
        raise _error(f"PostgreSQL {int(version) // 10_000}", "statistics can be written from PostgreSQL 18 on")
    if not is_super:
        raise _error("a role that is no superuser", "a lab writes catalogs and files: give a throwaway server's own")
    if system == other_than:
        raise _error("the server that the statistics are of", "a lab is never made there: give a throwaway one")
    return bool(checksums)


def _doing(what: str, work: Callable[[], T]) -> T:
    try:
        return work()
    except LabError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the driver has: it is told
        # No text of the server's or the driver's: it may hold the URL.
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
        told = f"{type(cause).__name__}{f' (SQLSTATE {state})' if state else ''}"
        raise _error(f"{told} for {what}", "check host, role and password, and whether it may be done there") from None


def _error(found: str, mend: str) -> LabError:
    return LabError(f"{LAB_URL} names the server for labs, found: {found}; {mend}")


_SERVER: Final = """
SELECT current_setting('server_version_num')::int, current_setting('is_superuser') = 'on',
    current_setting('data_checksums') = 'on', (SELECT system_identifier::text FROM pg_control_system())
"""
# One lab at a time is begun or ended.
_LOCK: Final = "SELECT pg_advisory_lock(7230713406)"
_UNLOCK: Final = "SELECT pg_advisory_unlock(7230713406)"
_ROLES: Final = f"""
SELECT r.rolname::text FROM pg_roles r JOIN pg_shdescription d ON d.objoid = r.oid
    AND d.classoid = 'pg_authid'::regclass WHERE d.description = {literal(MADE_FOR_LABS)}
"""  # noqa: S608 - constant
# What a server's own files say of the planner is not production's.
_CHANGED: Final = """
SELECT name::text, boot_val::text FROM pg_settings WHERE (category LIKE 'Query Tuning%' OR name IN ('work_mem',
    'hash_mem_multiplier', 'max_parallel_workers_per_gather', 'max_parallel_workers', 'effective_io_concurrency',
    'default_text_search_config', 'parallel_leader_participation', 'DateStyle', 'IntervalStyle'))
    AND context IN ('user', 'superuser') AND setting IS DISTINCT FROM boot_val
"""
_ITS_OWN: Final = {"jit": "off", "synchronous_commit": "off", "TimeZone": "UTC"}
