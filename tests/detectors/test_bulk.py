"""The bulk form of a loop's writes: what is printed, and where words have to do."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, mapped_column

from sqlprobe.detectors.bulk import code_for
from sqlprobe.fingerprint import shape_of


@pytest.fixture(scope="module")
def mapped():
    class Base(DeclarativeBase):
        pass

    def key(**options):
        return mapped_column(sa.Integer, primary_key=True, **options)

    class Parcel(Base):
        __tablename__ = "parcel"
        id = key()
        weight = mapped_column(sa.Integer)
        owner = mapped_column("owner_name", sa.String)
        user = mapped_column(sa.String)

    class Stop(Base):
        __tablename__ = "stop"
        __table_args__ = {"schema": "route"}  # noqa: RUF012 - as SQLAlchemy has it
        line = key()
        number = key()
        name = mapped_column(sa.String)

    class Counted(Base):
        __tablename__ = "counted"
        id = key()
        version = mapped_column(sa.Integer)
        name = mapped_column(sa.String)
        __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - as above

    class Animal(Base):
        __tablename__ = "animal"
        id = key()
        kind = mapped_column(sa.String)
        __mapper_args__ = {"polymorphic_on": kind}  # noqa: RUF012 - as above

    class Dog(Animal):
        __tablename__ = "dog"
        __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012 - as above
        id = mapped_column(sa.ForeignKey("animal.id"), primary_key=True)
        breed = mapped_column(sa.String)

    first = sa.Table("twice", Base.metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("a", sa.Integer))
    twice = [type(name, (Base,), {"__table__": first}) for name in ("First", "Second")]
    yield Parcel, Stop, Counted, Animal, Dog, *twice  # nothing else holds them
    Base.registry.dispose()


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        (
            "INSERT INTO parcel (weight, owner_name) VALUES (%(weight)s, %(owner_name)s) RETURNING parcel.id",
            'session.execute(insert(Parcel), rows)  # rows: [{"weight": ..., "owner": ...}, ...]',
        ),
        (
            'UPDATE parcel SET owner_name=$1::VARCHAR, "user"=$2 WHERE parcel.id = $3::INTEGER',
            'session.execute(update(Parcel), rows)  # rows: [{"id": ..., "owner": ..., "user": ...}, ...]',
        ),
        ("DELETE FROM parcel WHERE parcel.id = ?", "session.execute(delete(Parcel).where(Parcel.id.in_(ids)))"),
        ("DELETE FROM parcel WHERE id = 5", "session.execute(delete(Parcel).where(Parcel.id.in_(ids)))"),
        (
            "UPDATE route.stop SET name=? WHERE route.stop.number = ? AND route.stop.line = ?",
            'session.execute(update(Stop), rows)  # rows: [{"number": ..., "line": ..., "name": ...}, ...]',
        ),
        (
            "INSERT INTO counted (version, name) VALUES (?, ?)",
            'session.execute(insert(Counted), rows)  # rows: [{"version": ..., "name": ...}, ...]',
        ),
    ],
)
def test_what_writes_one_row_is_printed_for_all(mapped, statement, code):
    assert code == code_for(shape_of(statement), None)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO parcel (weight) VALUES (lower(?))",
        "INSERT INTO parcel (weight) VALUES (CURRENT_TIMESTAMP)",
        "INSERT INTO parcel (weight, owner_name) VALUES (?, DEFAULT)",
        "INSERT INTO parcel (weight) SELECT ?",
        "INSERT INTO parcel (weight) VALUES (?) ON CONFLICT (id) DO UPDATE SET weight = ?",
        "INSERT INTO parcel DEFAULT VALUES",
        "INSERT INTO parcel (unmapped) VALUES (?)",
        "UPDATE parcel SET weight = weight + ? WHERE parcel.id = ?",
        "UPDATE parcel SET weight = ? WHERE parcel.weight = ?",
        "UPDATE parcel SET weight = ? WHERE parcel.id = ? AND parcel.owner_name = ?",
        "UPDATE parcel SET weight = ? WHERE parcel.id = ? OR parcel.id = ?",
        "UPDATE parcel SET weight = ? WHERE parcel.id > ?",
        "UPDATE parcel SET weight = ? FROM stop WHERE parcel.id = ?",
        "UPDATE parcel SET weight = ?",
        "UPDATE parcel SET id = ?, weight = ? WHERE parcel.id = ?",
        "UPDATE route.stop SET name=? WHERE route.stop.number = ?",  # many rows
        "UPDATE counted SET name=?, version=? WHERE counted.id = ? AND counted.version = ?",
        "DELETE FROM parcel WHERE parcel.weight = ?",
        "DELETE FROM parcel WHERE parcel.id IN (?)",
        "DELETE FROM parcel USING stop WHERE parcel.id = ?",
        "DELETE FROM counted WHERE counted.id = ?",
        "DELETE FROM route.stop WHERE route.stop.line = ? AND route.stop.number = ?",
        "INSERT INTO animal (kind) VALUES (?)",
        "INSERT INTO dog (id, breed) VALUES (?, ?)",
        "INSERT INTO twice (a) VALUES (?)",
        "INSERT INTO stop (name) VALUES (?)",  # of another schema
        "INSERT INTO nobodys (name) VALUES (?)",
        "WITH x AS (SELECT 1) DELETE FROM parcel WHERE parcel.id = ?",
        f"INSERT INTO parcel ({', '.join(['weight'] * 4000)}) VALUES ({', '.join('?' * 4000)})",  # cut
    ],
)
def test_what_does_more_keeps_its_words(mapped, statement):
    assert "" == code_for(shape_of(statement), None)


def test_a_wide_row_is_cut(mapped):
    statement = f"INSERT INTO parcel ({', '.join(['weight'] * 40)}) VALUES ({', '.join('?' * 40)})"
    code = code_for(shape_of(statement), None)

    assert code.endswith('"weight": ..., ...}, ...]')
    assert len(code) < 180


def test_coroutines_wait_for_it(mapped):
    class Place:
        code = (lambda: None).__code__.replace(co_flags=0x80)

    shape = shape_of("DELETE FROM parcel WHERE parcel.id = ?")

    assert "await session.execute(delete(Parcel).where(Parcel.id.in_(ids)))" == code_for(shape, Place())


def test_without_a_mapping_there_are_words(monkeypatch):
    monkeypatch.setattr("sqlprobe.orm.sys.modules", {})

    assert "" == code_for(shape_of("INSERT INTO parcel (weight) VALUES (?)"), None)
