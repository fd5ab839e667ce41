# ruff: noqa: B023, F821, PERF401 - a closure is used in its turn of the loop; `switch` is given by the program that runs this: see faulted.py
"""What an application does with sqlprobe around it: every kind of statement, scope, middleware and exporter."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

import sqlprobe
from sqlprobe.integrations import asgi, threads, wsgi

logging.getLogger("sqlprobe").setLevel(logging.CRITICAL)


class Base(DeclarativeBase):
    pass


class Parent(Base):
    __tablename__ = "parent"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    big: Mapped[str] = mapped_column(default="b", deferred=True)
    children: Mapped[list[Child]] = relationship(back_populates="parent")


class Child(Base):
    __tablename__ = "child"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int] = mapped_column(sa.ForeignKey("parent.id"))
    parent: Mapped[Parent] = relationship(back_populates="children")


def _core(engine):
    table = Parent.__table__
    said = []
    with engine.begin() as connection:
        said.append(connection.execute(sa.select(table.c.name).order_by(table.c.id)).scalars().all())
        for number in range(4):
            said.append(connection.execute(sa.select(table.c.id).where(table.c.id == number)).all())
            said.append(connection.exec_driver_sql(f"SELECT {number} AS x{number}").scalar())
        connection.execute(table.insert(), [{"name": f"m{n}", "big": "x"} for n in range(3)])
        said.append(
            sorted(
                connection.execute(table.insert().returning(table.c.name), [{"name": "r", "big": "x"}] * 3).scalars()
            )
        )
        for name in "ab":
            said.append(connection.execute(table.update().where(table.c.name == name).values(big="y")).rowcount)
        said.append(connection.execute(sa.select(table.c.id).where(table.c.id.in_([1, 2, 3]))).all())
        said.append(connection.execution_options(no_parameters=True).exec_driver_sql("SELECT 1").scalar())
        said.append(connection.execute(sa.text("SELECT count(*) FROM parent, child WHERE 1 = 1")).scalar())
    try:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT * FROM nowhere"))
    except sa.exc.OperationalError as error:
        said.append(str(error.orig))
    return said


def _orm(engine):
    said = []
    with Session(engine) as session:
        for parent in session.scalars(sa.select(Parent).order_by(Parent.id).limit(6)):
            said.append((parent.name, [child.id for child in parent.children], parent.big))
        for child in session.scalars(sa.select(Child).order_by(Child.id)):
            session.expire(child)
            said.append(child.parent.name)
        session.add(Parent(name="new", big="n"))
        session.commit()
        with sqlprobe.ignore("n-plus-one", reason="meant"):
            said.extend(len(parent.children) for parent in session.scalars(sa.select(Parent).limit(3)))
        said.extend(session.get(Parent, key).name for key in (1, 2, 1))
        for key in (1, 2, 3):
            owned = sa.select(Child).where(Child.parent_id == key)
            said.append([child.id for child in session.scalars(owned)])
            count = sa.select(sa.func.count(Child.id)).where(Child.parent_id == key)
            said.append(session.scalar(count))
            said.append(session.query(Child).filter_by(parent_id=key).count())
        session.rollback()
    return said


def _scopes(engine):
    with sqlprobe.scope("outer", kind="task") as outer, sqlprobe.scope("inner"):
        said = [_core(engine), _orm(engine)]
        with ThreadPoolExecutor(1) as pool:
            said.append(threads.CarryingExecutor(pool).submit(_core, engine).result()[-1])
    repr(outer)
    with sqlprobe.scope("all pages"), engine.connect() as connection:
        for page in range(3):
            with sqlprobe.scope("page"):
                pages = sa.select(Parent.__table__.c.name).order_by(Parent.__table__.c.id).limit(2).offset(2 * page)
                said.append(connection.execute(pages).scalars().all())
        by_id = sa.select(Parent.__table__.c.name).where(Parent.__table__.c.id == sa.bindparam("key"))
        for key in (1, 2, 3):
            said.append(connection.execute(by_id, {"key": key}).scalars().all())
    return said


def _late(engine):
    with sqlprobe.scope("early") as scope:
        run = threads.carried(lambda: _core(engine)[-1])
    del scope
    return run()


def _wsgi(engine):
    def app(environ, start_response):
        start_response("200 OK", [("A", "b")])
        if environ["PATH_INFO"] == "/list":
            return [str(_core(engine)[-1]).encode()]
        return (str(_core(engine)[0]).encode() for _ in range(2))

    said = []
    for path, share in (("/list", 1), ("/stream", 1), ("/list", 0)):
        statuses = []
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "sqlprobe.route": path}
        body = wsgi.SqlprobeMiddleware(app, sample=share)(environ, lambda status, *_: statuses.append(status))
        said.append((statuses, b"".join(body)))
        getattr(body, "close", lambda: None)()
    return said


def _asgi(engine):
    async def app(scope, receive, send):
        scope["path_template"] = "/x"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(_core(engine)[-1]).encode()})

    sent = []

    async def send(message):
        sent.append((message["type"], message.get("body")))

    for kind in ("http", "websocket"):
        asyncio.run(
            asgi.SqlprobeMiddleware(app, headers=True)({"type": kind, "method": "GET", "path": "/x"}, None, send)
        )
    return sent


def _async():
    from sqlalchemy.ext.asyncio import create_async_engine

    async def main():
        engine = create_async_engine("sqlite+aiosqlite://")
        async with engine.connect() as connection:
            found = (await connection.execute(sa.text("SELECT 5"))).scalar()
        await engine.dispose()
        return found

    return asyncio.run(main())


def _begun(engine):
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        connection.execute(Parent.__table__.insert(), [{"name": name, "big": "b"} for name in "abcdefgh"])
        connection.execute(Child.__table__.insert(), [{"parent_id": number % 8 + 1} for number in range(16)])


def work():
    """What the application saw."""
    said = []
    engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool, connect_args={"check_same_thread": False})
    other = sa.create_engine("sqlite://")
    _begun(engine)
    settings = sqlprobe.Settings(
        slow_seconds=0.000_001, watch_pools=True, auto_scope=False, budgets={"*": 1}, timeline_statements=50,
        pool_wait_seconds=0.000_001, long_transaction_seconds=0.000_001, scope_window_seconds=0.001, call_sites="all",
    )  # fmt: skip
    heard = []
    with sqlprobe.attach(settings=settings, exporters=["prometheus", "logging"], on_finding=heard.append) as probe:
        for step in (_core, _orm, _scopes, _late, _wsgi, _asgi):
            switch.inside = True
            try:
                said.append(step(engine))
            finally:
                switch.inside = False
        switch.inside = True
        try:
            said.append(_async())
            with other.connect() as connection:
                said.append(connection.execute(sa.text("SELECT 7")).scalar())
            other.dispose()
            thread = threading.Thread(target=lambda: said.append(_core(engine)[1]))
            thread.start()
            thread.join()
        finally:
            switch.inside = False
        with sqlprobe.record() as recording:
            switch.inside = True
            try:
                said.append(_core(engine)[2])
                with sqlprobe.scope("recorded"):
                    said.append(_orm(engine))
            finally:
                switch.inside = False
        recording.report()
        probe.report()
    switch.inside = False
    auto = sqlprobe.attach(settings=sqlprobe.Settings(auto_scope=True))
    switch.inside = True
    try:
        said.append(_core(engine)[0])
        said.append(_scopes(engine)[-3:])  # statements that are not slow here: a run of like ones
        said.append(_async())
    finally:
        switch.inside = False
        auto.detach()
    engine.dispose()
    return said
