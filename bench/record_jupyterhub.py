"""
What does JupyterHub ask of its database? Its models make their tables, the rows of tests/advice/hub.py fill them, and
functions and queries of its own are run on them, each where the source has it; what they send is written down, as
SQLAlchemy compiled it, to tests/data/applications/.

    pip install jupyterhub==6.1.1 && python bench/record_jupyterhub.py

Needed again only for another version of JupyterHub: it is no dependency of this project, and its statements stay true.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jupyterhub
import sqlalchemy as sa
from jupyterhub import orm
from sqlalchemy.orm import Session, joinedload, raiseload, selectinload

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "advice"), str(ROOT)]

import hub  # noqa: E402 - it is beside the tests

from sqlprobe.advice import server as servers  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST = 3  # different values of a statement


class Recorder:
    """Takes down what is sent inside `of(where)`, each text once."""

    def __init__(self, engine: sa.Engine) -> None:
        self.definitions: list[str] = []
        self.statements: dict[str, dict[str, Any]] = {}
        self._where = ""
        sa.event.listen(engine, "before_cursor_execute", self._sent)

    @contextlib.contextmanager
    def of(self, where: str) -> Iterator[None]:
        self._where = where
        yield
        self._where = ""

    def _sent(self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:  # noqa: ARG002, FBT001 - SQLAlchemy's signature
        text = " ".join(statement.split())
        shape = re.sub(r"IN \([^()]*\)", "IN (...)", text)
        if text.startswith("CREATE "):
            self.definitions.append(text)
        if not self._where or many or not isinstance(parameters, dict):
            return
        known = self.statements.setdefault(shape, {"where": self._where, "statement": text, "values": []})
        values = {name: _plain(value) for name, value in parameters.items()}
        # The same with another number of keys is another text, and no other statement.
        if text == known["statement"] and values not in known["values"] and len(known["values"]) < MOST:
            known["values"].append(values)

    def named(self) -> list[dict[str, Any]]:
        """Each with a name of its own: a function sends several, of which the later ones are loads."""
        taken: dict[str, int] = {}
        for each in self.statements.values():
            taken[each["where"]] = taken.get(each["where"], 0) + 1
            if taken[each["where"]] > 1:
                each["where"] += f" ({taken[each['where']]})"
        return list(self.statements.values())


def _plain(value: Any) -> Any:
    return value.isoformat(" ") if isinstance(value, dt.datetime) else value


def run(session: Session, of: Any) -> None:
    """What JupyterHub does, in its own words where they are not part of a request's handler."""
    now = dt.datetime(2026, 10, 1, 6)  # noqa: DTZ001 - its columns have no zone
    old = dt.datetime(2026, 9, 30, 12)  # noqa: DTZ001 - as above
    for number in (17, 4321, 999):
        name = f"user-{number}"
        with of("orm.py: User.find"):
            user = orm.User.find(session, name)
        token = f"{number:x}abcd1234567890"
        with of("orm.py: APIToken.find"):
            orm.APIToken.find(session, token)
        with of("orm.py: APIToken.find, of a user"):
            orm.APIToken.find(session, token, kind="user")
        with of("orm.py: ShareCode.find"):
            orm.ShareCode.find(session, token)
        with of("orm.py: OAuthCode.find"):
            orm.OAuthCode.find(session, "c4ca4238a0b923820dcc509a6f75849b")
        with of("user.py: the user's servers"):
            spawners = user.orm_spawners
        with of("apihandlers/users.py: the user's tokens"):
            list(user.api_tokens)
        with of("orm.py: the user's oauth codes"):
            list(user.oauth_codes)
        with of("orm.py: what the user shares"):
            list(user.shares)
        with of("orm.py: the user's share codes"):
            list(user.share_codes)
        with of("orm.py: what is shared with the user"):
            list(user.shared_with_me)
        spawner = spawners[""]
        with of("orm.py: who a server is shared with"):
            list(spawner.shares)
        with of("orm.py: share codes of a server"):
            list(spawner.share_codes)
        with of("orm.py: Share.find"):
            orm.Share.find(session, spawner, user)
        group = session.get(orm.Group, number % 500)
        with of("orm.py: Share.find, of a group"):
            orm.Share.find(session, spawner, group)
        with of("orm.py: members of a group"):
            list(group.users)
        with of("orm.py: what is shared with a group"):
            list(group.shared_with_me)
        with of("apihandlers/auth.py: existing authorization"):
            list(session.query(orm.APIToken).filter_by(user_id=user.id, client_id="jupyterhub"))
        with of("handlers/base.py: tokens of a session, at logout"):
            list(session.query(orm.APIToken).filter_by(user_id=user.id, session_id="c4ca4238a0b923820dcc509a6f75849b"))
        with of("scopes.py: groups of a user"):
            list(session.query(orm.Group.name).join(orm.User.groups).filter(orm.User.name == name))
        for kind, class_ in (("shares", orm.Share), ("share codes", orm.ShareCode)):
            query = session.query(class_).options(
                joinedload(class_.owner).lazyload("*"),
                joinedload(class_.spawner).joinedload(orm.Spawner.user).lazyload("*"),
            )
            for what, mine in (
                ("of an owner", query.filter_by(owner_id=user.id)),
                ("of a server", query.filter_by(spawner_id=spawner.id)),
            ):
                with of(f"apihandlers/shares.py: count of {kind} {what}"):
                    mine.count()
                with of(f"apihandlers/shares.py: page of {kind} {what}"):
                    list(mine.order_by(class_.id.asc()).offset(0).limit(50))
        query = session.query(orm.Share).options(joinedload(orm.Share.owner).lazyload("*"))
        with of("apihandlers/shares.py: count of what is shared with a user"):
            query.filter(orm.Share.user == user).count()
        with of("apihandlers/shares.py: page of what is shared with a user"):
            list(query.filter(orm.Share.user == user).order_by(orm.Share.id.asc()).offset(0).limit(50))
        with of("oauth/provider.py: tokens of a client"):
            client = session.query(orm.OAuthClient).filter_by(identifier=f"jupyterhub-user-user-{number}").first()
            list(client.access_tokens)
        with of("oauth/provider.py: codes of a client"):
            list(client.codes)
        with of("orm.py: server of a spawner"):
            list(session.query(orm.Spawner).filter(orm.Spawner.server == session.get(orm.Server, number % 4000)))
    for class_, moment in (
        (orm.APIToken, now),
        (orm.OAuthCode, 1_790_000_100),
        (orm.Share, now),
        (orm.ShareCode, now),
    ):
        with of(f"orm.py: {class_.__name__}.purge_expired"):
            query = session.query(class_).filter(class_.expires_at != None).filter(class_.expires_at < moment)  # noqa: E711
            list(query.options(raiseload("*")))
    with of("metrics.py: active users of a day"):
        session.query(orm.User).filter(orm.User.last_activity >= old).count()
    with of("metrics.py: active users of a month"):
        session.query(orm.User).filter(orm.User.last_activity >= now - dt.timedelta(days=30)).count()
    with of("app.py: servers that run"):
        list(
            session.query(orm.Spawner)
            .filter(orm.Spawner.server != None)  # noqa: E711 - as there
            .options(selectinload(orm.Spawner.user), raiseload("*"))
            .limit(1)
        )
    role = orm.Role.find(session, "teacher")
    with of("orm.py: who has a role"):
        list(role.users)
    with of("roles.py: users without a role"):
        list(
            session.query(orm.User)
            .outerjoin(orm.Role, orm.User.roles)
            .group_by(orm.User.id)
            .having(sa.func.count(orm.Role.id) == 0)
        )
    with of("app.py: users who need the role"):
        list(
            session.query(orm.User).filter(
                orm.User.name.in_(["user-5", "user-6", "user-7"]) & ~orm.User.roles.any(id=role.id)
            )
        )
    pages(session, of)


def pages(session: Session, of: Any) -> None:
    """The lists of apihandlers/users.py and groups.py, with their orders and filters."""
    users = session.query(orm.User).options(raiseload("*"))
    active = (
        users.join(orm.Spawner, orm.User._orm_spawners).filter(orm.Spawner.server != None).group_by(orm.User.id)  # noqa: E711, SLF001
    )
    inactive = (
        users.outerjoin(orm.Spawner, orm.User._orm_spawners)  # noqa: SLF001 - as there
        .outerjoin(orm.Server, orm.Spawner.server)
        .group_by(orm.User.id)
        .having(sa.func.count(orm.Server.id) == 0)
    )
    grouped = users.filter(orm.User.groups.any(orm.Group.name.in_(["course-400", "course-401"])))
    named = users.filter(orm.User.name.ilike("%4321%"))
    for what, query in (
        ("", users), (" with active servers", active), (" without active servers", inactive), (" of groups", grouped),
        (" by name", named),
    ):  # fmt: skip
        with of(f"apihandlers/users.py: count of users{what}"):
            query.count()
        for order, by in (("by id", orm.User.id), ("by activity", orm.User.last_activity)):
            with of(f"apihandlers/users.py: page of users{what}, {order}"):
                list(query.order_by(by.is_(None), by.desc()).offset(0).limit(50))
            with of(f"apihandlers/users.py: page of users{what}, {order}, upwards"):
                list(query.order_by(by.is_not(None), by.asc()).offset(0).limit(50))
    with of("apihandlers/groups.py: page of groups"):
        list(session.query(orm.Group).options(raiseload("*")).order_by(orm.Group.id.asc()).offset(0).limit(50))


def main() -> None:
    with servers.serve() as server:
        server.psql("CREATE DATABASE hub")
        engine = sa.create_engine(server.url_for("psycopg", "hub"))
        recorder = Recorder(engine)
        orm.Base.metadata.create_all(engine)
        hub.populate(lambda script: server.psql(script, "hub"), 20_000)
        with Session(engine) as session:
            run(session, recorder.of)
        engine.dispose()
    found = {
        "of": f"JupyterHub {jupyterhub.__version__}, SQLAlchemy {sa.__version__}, psycopg; bench/record_jupyterhub.py",
        "definitions": recorder.definitions,
        "statements": recorder.named(),
    }
    hub.RECORDED.parent.mkdir(exist_ok=True)
    hub.RECORDED.write_text(json.dumps(found, indent=1) + "\n")
    for each in found["statements"]:
        print(f"{each['where']} | {each['statement'][:90]} | {each['values'][:1]}")


if __name__ == "__main__":
    main()
