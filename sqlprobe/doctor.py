"""
`sqlprobe doctor`: whether capture works here, what is observed by which hook, and what is degraded and why.

It tries every kind of statement on SQLite engines of its own, which no probe of the application counts. From code,
`examine()` tells of the process that calls it, with its engines and probes.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import platform
import re
import sys
import threading
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, Literal

import sqlalchemy as sa

from sqlprobe import capture, faults, orm, probe
from sqlprobe.model import SqlprobeError
from sqlprobe.settings import PREFIX, Settings, config_file, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlprobe.recording import Recording

Status = Literal["ok", "degraded", "failed"]

OLDEST: Final = (2, 0, 30)
NEWEST: Final = (2, 1)  # the newest line that the tests run on
_DRIVERS: Final = ("psycopg", "asyncpg", "psycopg2", "psycopg2-binary", "pg8000", "aiosqlite", "pymysql", "oracledb")
_OTEL: Final = "opentelemetry-instrumentation-sqlalchemy"
_TABLE: Final = "sqlprobe_doctor"
_HANDLERS: Final = {
    "do_execute": "statements",
    "do_executemany": "executemany",
    "do_execute_no_params": "raw statements",
}
_MARK: Final[dict[Status, str]] = {"ok": "ok", "degraded": "degraded", "failed": "FAILED"}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: `degraded` works with less, `failed` is what capture cannot do without."""

    name: str
    status: Status
    text: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything that was looked at. `str()` of it is for people."""

    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.status == "failed")

    @property
    def degraded(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.status == "degraded")

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"works": not self.failed, "checks": [dataclasses.asdict(check) for check in self.checks]}

    def __str__(self) -> str:
        degraded = f", {len(self.degraded)} degraded" if self.degraded else ""
        head = f"capture does not work: {len(self.failed)} failed" if self.failed else "capture works"
        name = max(len(check.name) for check in self.checks)
        mark = max(len(_MARK[check.status]) for check in self.checks)
        lines = [f"{_MARK[check.status]:{mark}}  {check.name:{name}}  {check.text}" for check in self.checks]
        return "\n".join([f"sqlprobe doctor: {head}{degraded}", *lines])


def examine() -> Diagnosis:
    """
    Look at this process. Takes about 0.1 s, and never raises.

    In an application call it once a probe is attached: before, it installs sqlprobe's handler, which is not for a
    moment when other threads run statements.
    """
    checks: list[Check] = []
    # A thread has no scope, no running event loop and no transaction of the application's.
    thread = threading.Thread(target=_examine, args=(checks,), name="sqlprobe doctor")
    thread.start()
    thread.join()
    return Diagnosis(tuple(checks))


def _examine(checks: list[Check]) -> None:
    for look in (_versions, _settings, _observed, _tries, _attribution, _hook, _neighbours, _faults):
        try:
            checks.extend(look())
        except Exception as error:  # noqa: BLE001 - what cannot be looked at is told, like the rest
            name = look.__name__.strip("_")
            checks.append(Check(name, "failed", f"cannot be looked at: {type(error).__name__}: {error}"))


def _versions() -> Iterator[Check]:
    here = f"{platform.python_implementation()} {platform.python_version()} on {platform.system()}"
    yield Check("python", "ok", f"{here}, {sys.executable}")
    numbers = tuple(int(number) for number in re.findall(r"\d+", sa.__version__)[:3])
    if numbers < OLDEST:
        yield Check("sqlalchemy", "failed", f"{sa.__version__}; 2.0.30 is the oldest that sqlprobe knows: upgrade it")
    elif numbers[:2] > NEWEST:
        yield Check("sqlalchemy", "degraded", f"{sa.__version__}, newer than what sqlprobe is tested with (2.0, 2.1)")
    else:
        yield Check("sqlalchemy", "ok", sa.__version__)
    found = {name: version for name in _DRIVERS if (version := _version(name))}
    with_sqlite = [*(f"{name} {version}" for name, version in found.items()), *_sqlite()]
    yield Check("drivers", "ok", ", ".join(with_sqlite))
    greenlet = _version("greenlet")
    if greenlet is None:
        yield Check("greenlet", "ok", "not installed: SQLAlchemy has no async engines without it")
    else:
        yield Check("greenlet", "ok", greenlet)
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        patched = "threads are greenlets" if monkey.is_module_patched("threading") else "threads are threads"
        yield Check("gevent", "ok", f"{_version('gevent')}, {patched}")


def _settings() -> Iterator[Check]:
    try:
        chosen, sources = resolve()
        file = config_file()
    except SqlprobeError as error:
        yield Check("settings", "failed", f"attach() would refuse them: {error}")
        return
    looked = f"{file} has no [tool.sqlprobe]" if file is not None else "no pyproject.toml is here"
    text = _told(chosen, sources) or f"the defaults; no {PREFIX}… variable is set, {looked}"
    if chosen.enabled:
        yield Check("settings", "ok", text)
    else:
        yield Check("settings", "degraded", f"{text}: attach() observes nothing")


def _told(settings: Settings, sources: Mapping[str, str]) -> str:
    """Those of *settings* that are not the default, each with where it comes from."""
    defaults = Settings()
    return ", ".join(
        f"{item.name}={getattr(settings, item.name)!r} ({sources.get(item.name, 'code')})"
        for item in dataclasses.fields(settings)
        if getattr(settings, item.name) != getattr(defaults, item.name) or item.name in sources
    )


def _tries() -> Iterator[Check]:
    """Every way to run a statement, on an engine of ours."""
    engine = sa.create_engine("sqlite://")
    table = sa.Table(_TABLE, sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String))
    rows = [{"name": "a"}, {"name": "b"}, {"name": "c"}]

    def raw(connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"INSERT INTO {_TABLE} (name) VALUES ('d')")  # noqa: S608 - a constant

    ways: dict[str, Callable[[sa.Connection], object]] = {
        "DDL": table.metadata.create_all,
        "executemany": lambda connection: connection.execute(table.insert(), rows),
        "insertmanyvalues": lambda connection: connection.execute(table.insert().returning(table.c.id), rows).all(),
        "Core": lambda connection: connection.execute(sa.select(table)).all(),
        "text()": lambda connection: connection.execute(sa.text(f"SELECT count(*) FROM {_TABLE}")).all(),  # noqa: S608
        "exec_driver_sql": raw,
    }
    try:
        with probe.trial(engine) as recording, engine.begin() as connection:
            for name, run in ways.items():
                before = _seen(recording)
                run(connection)
                if _seen(recording) <= before:
                    yield Check(f"captures {name}", "failed", _why_unseen(engine))
                else:
                    yield Check(f"captures {name}", "ok", "seen")
    finally:
        engine.dispose()
    yield _try_async()


def _try_async() -> Check:
    name = "captures async"
    if importlib.util.find_spec("aiosqlite") is None or _version("greenlet") is None:
        return Check(name, "ok", "not tried: it needs aiosqlite and greenlet")
    import asyncio

    from sqlalchemy.ext.asyncio import create_async_engine

    async def run() -> bool:
        engine = create_async_engine("sqlite+aiosqlite://")
        try:
            with probe.trial(engine.sync_engine) as recording:
                async with engine.connect() as connection:
                    await connection.execute(sa.text(f"SELECT 1 AS {_TABLE}"))
                return _seen(recording) > 0
        finally:
            await engine.dispose()

    return Check(name, "ok", "seen, by aiosqlite") if asyncio.run(run()) else Check(name, "failed", "not seen")


def _attribution() -> Iterator[Check]:
    """Whether a lazy load is known as one, with its relationship and the query behind it."""
    from sqlalchemy.orm import Session, registry, relationship

    mappers = registry()
    one = sa.Table(f"{_TABLE}_one", mappers.metadata, sa.Column("id", sa.Integer, primary_key=True))
    many = sa.Table(
        f"{_TABLE}_many",
        mappers.metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("one_id", sa.ForeignKey(one.c.id)),
    )

    class DoctorOne:
        pass

    class DoctorMany:
        pass

    engine = sa.create_engine("sqlite://")
    try:
        mappers.map_imperatively(DoctorMany, many)
        mappers.map_imperatively(DoctorOne, one, properties={"many": relationship(DoctorMany)})
        with probe.trial(engine) as recording, engine.begin() as connection:
            mappers.metadata.create_all(connection)
            connection.execute(one.insert(), [{}, {}])
            with Session(connection) as session:
                loaded: list[Any] = list(session.scalars(sa.select(DoctorOne)))
                for each in loaded:
                    each.many  # noqa: B018 - reading it is the lazy load
            label = "DoctorOne.many"
            lazy = [each for each in recording.executions if each.relationship == label]
            findings = [each for each in recording.findings if each.rule == "n-plus-one" and each.label == label]
    finally:
        engine.dispose()
        mappers.dispose()
    lost = "; ".join(f"{name} is missing, so sqlprobe cannot tell {loss}" for name, loss in orm.missing())
    if lost:
        yield Check("SQLAlchemy's private names", "degraded", lost)
    else:
        yield Check("SQLAlchemy's private names", "ok", "all there")
    if len(lazy) == len(loaded) and findings:
        yield Check("ORM attribution", "ok", "lazy loads are told with their relationship and the query behind them")
    else:
        without = "the query behind them" if lazy else "their relationship"
        yield Check("ORM attribution", "degraded", f"lazy loads are counted without {without}: N+1 may go unnoticed")


def _hook() -> Iterator[Check]:
    if not capture.hooked():
        yield Check(
            "hook", "failed", "other code took sqlprobe's handlers off SQLAlchemy's Engine: restart the process"
        )
    else:
        yield Check("hook", "ok", f"{', '.join(_HANDLERS)} of every engine's dialect")
    engine = sa.create_engine("sqlite://")
    everywhere = {event: _listeners(engine.dialect, event) for event in _HANDLERS}
    engine.dispose()
    for event, handlers in everywhere.items():
        mine = next((place for place, handler in enumerate(handlers) if _is_ours(handler)), len(handlers))
        for handler in handlers[:mine]:
            yield Check(
                "other handler",
                "degraded",
                f"{_named(handler)} handles {event} of every engine before sqlprobe does: the {_HANDLERS[event]} for "
                "which it returns True are not seen; attach sqlprobe before it is installed",
            )
        for handler in handlers[mine + 1 :]:
            yield Check("other handler", "ok", f"{_named(handler)} handles {event} of every engine; sqlprobe calls it")
    for watched in list(capture._watched.values()):  # noqa: SLF001 - capture has no other reader of it
        dialect = watched.dialect()
        for event, known in everywhere.items() if dialect is not None else ():
            for handler in _listeners(dialect, event):
                if handler not in known:
                    text = f"{_named(handler)} handles {event} of {watched.name}; sqlprobe calls it"
                    yield Check("other handler", "ok", text)


def _observed() -> Iterator[Check]:
    probes = [owner for owner in capture.owners if isinstance(owner, probe.Probe)]
    engines = [watched for watched in list(capture._watched.values()) if watched.dialect() is not None]  # noqa: SLF001
    if os.environ.get("SQLPROBE_RUN_DIR"):
        yield Check("observed", "ok", "everything, by `sqlprobe run`")
    for each in probes:
        seen = (
            ", ".join(sorted(watched.name for watched in engines if watched.owner is each))
            or "none has run a statement"
        )
        status: Status = "degraded" if each.paused else "ok"
        paused = "; it is paused" if each.paused else ""
        of = each.name or "every engine"
        yield Check("probe", status, f"of {of}{paused}; engines: {seen}")
        yield Check("its settings", "ok", _told(each.settings, each.sources) or "the defaults")
    if probes:
        for name in sorted({watched.name for watched in engines if watched.owner is None}):
            yield Check("engine", "ok", f"{name} has run statements for a recording; no probe observes it")
    if not probes:
        yield Check(
            "probe",
            "ok",
            "none here: `sqlprobe doctor` looks at the installation; in an application print(doctor.examine())",
        )


def _neighbours() -> Iterator[Check]:
    version = _version(_OTEL)
    if version is None:
        yield Check("OpenTelemetry", "ok", "its SQLAlchemy instrumentation is not installed")
    else:
        loaded = "active" if "opentelemetry.instrumentation.sqlalchemy" in sys.modules else "not active in this process"
        yield Check(
            "OpenTelemetry", "ok", f"its SQLAlchemy instrumentation {version} is {loaded}; it works beside sqlprobe"
        )
    exporters = sorted(entry.name for entry in metadata.entry_points(group=probe.EXPORTERS_GROUP))
    yield Check("exporters", "ok", ", ".join(exporters) or "none installed")


def _faults() -> Iterator[Check]:
    told = faults.told()
    if not told:
        yield Check("faults", "ok", "none")
    for fault in told:
        yield Check("faults", "degraded", f"{fault.count} in {fault.where}: {fault.error}; the application goes on")


def _seen(recording: Recording) -> int:
    return sum(_TABLE in each.text for each in recording.executions)


def _why_unseen(engine: sa.Engine) -> str:
    handlers = _listeners(engine.dialect, "do_execute")
    before = [_named(handler) for handler in handlers[: next((i for i, h in enumerate(handlers) if _is_ours(h)), 0)]]
    if before:
        return f"not seen: {', '.join(before)} handles it first; attach sqlprobe before that is installed"
    if not capture.hooked():
        return "not seen: sqlprobe's handlers were taken off SQLAlchemy's Engine by other code"
    return "not seen"


def _listeners(dialect: Any, event: str) -> list[Any]:
    return list(getattr(dialect.dispatch, event))


def _is_ours(handler: object) -> bool:
    return getattr(handler, "__module__", "") == capture.__name__


def _named(handler: object) -> str:
    function = getattr(handler, "__wrapped__", handler)
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', None) or type(function).__module__}:{name}"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _sqlite() -> list[str]:
    try:
        import sqlite3
    except ImportError:
        return []
    return [f"SQLite {sqlite3.sqlite_version}"]
