# ruff: noqa: B018 - to read is to load

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import operator
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import AsyncAttrs, AsyncSession
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    contains_eager,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
    subqueryload,
)

import sqlprobe
from sqlprobe import faults, scopes

pytestmark = pytest.mark.versions

select = sa.select


class Base(AsyncAttrs, DeclarativeBase):
    pass


def key(target=None, **options):
    return mapped_column(sa.ForeignKey(target), **options) if target else mapped_column(primary_key=True)


class Cust(Base):
    __tablename__ = "cust"

    id: Mapped[int] = key()
    orders: Mapped[list[Ord]] = relationship(back_populates="cust", order_by="Ord.id")
    notes: Mapped[list[Note]] = relationship()


class Note(Base):
    __tablename__ = "note"

    id: Mapped[int] = key()
    cust_id: Mapped[int] = key("cust.id")


class Ord(Base):
    __tablename__ = "ord"

    id: Mapped[int] = key()
    cust_id: Mapped[int | None] = key("cust.id")
    billing_id: Mapped[int | None] = key("address.id")
    shipping_id: Mapped[int | None] = key("address.id")
    cust: Mapped[Cust | None] = relationship(back_populates="orders")
    lines: Mapped[list[Line]] = relationship()
    billing: Mapped[Address | None] = relationship(foreign_keys=[billing_id])
    shipping: Mapped[Address | None] = relationship(foreign_keys=[shipping_id])


class Line(Base):
    __tablename__ = "line"

    id: Mapped[int] = key()
    ord_id: Mapped[int] = key("ord.id")


class Address(Base):
    __tablename__ = "address"

    id: Mapped[int] = key()
    country_id: Mapped[int] = key("country.id")
    country: Mapped[Country] = relationship()


class Country(Base):
    __tablename__ = "country"

    id: Mapped[int] = key()
    stamp_id: Mapped[int | None] = key("stamp.id")
    stamp: Mapped[Stamp | None] = relationship()


class Stamp(Base):
    __tablename__ = "stamp"

    id: Mapped[int] = key()


class Eager(Base):
    """The customers again, with a mapping that loads ahead."""

    __table__ = Cust.__table__
    orders: Mapped[list[Ord]] = relationship(lazy="selectin", viewonly=True)


class Node(Base):
    __tablename__ = "node"

    id: Mapped[int] = key()
    parent_id: Mapped[int | None] = key("node.id")
    parent: Mapped[Node | None] = relationship(remote_side="Node.id", back_populates="children")
    children: Mapped[list[Node]] = relationship(back_populates="parent")


class Company(Base):
    __tablename__ = "company"

    id: Mapped[int] = key()
    staff: Mapped[list[Employee]] = relationship()


class Employee(Base):
    __tablename__ = "employee"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "employee"}  # noqa: RUF012

    id: Mapped[int] = key()
    kind: Mapped[str]
    company_id: Mapped[int] = key("company.id")
    tasks: Mapped[list[Task]] = relationship()


class Manager(Employee):
    __mapper_args__ = {"polymorphic_identity": "manager"}  # noqa: RUF012

    reviews: Mapped[list[Review]] = relationship()


class Task(Base):
    __tablename__ = "task"

    id: Mapped[int] = key()
    employee_id: Mapped[int] = key("employee.id")


class Review(Base):
    __tablename__ = "review"

    id: Mapped[int] = key()
    manager_id: Mapped[int] = key("employee.id")


NAMES = {**vars(orm), **{mapper.class_.__name__: mapper.class_ for mapper in Base.registry.mappers}, "select": select}
TREE = [Node(id=1)]


def rows():
    """5 customers, each with 2 orders of 2 lines; addresses, a tree of depth 4, 2 companies of 2 managers each."""
    yield from (Stamp(id=i) for i in range(1, 21))
    yield from (Country(id=i, stamp_id=i) for i in range(1, 21))
    yield from (Address(id=i, country_id=i) for i in range(1, 21))
    yield from (Cust(id=i) for i in range(1, 6))
    yield from (Ord(id=i, cust_id=(i + 1) // 2, billing_id=i, shipping_id=i + 10) for i in range(1, 11))
    yield from (Line(id=i, ord_id=(i + 1) // 2) for i in range(1, 21))
    yield from (Node(id=i, parent_id=i // 2 or None) for i in range(1, 32))
    yield from (Company(id=i) for i in (1, 2))
    yield from (Manager(id=i, company_id=(i + 1) // 2) for i in range(1, 5))


def fill(connection):
    Base.metadata.create_all(connection)
    with Session(connection) as session:
        session.add_all(rows())
        session.commit()


@pytest.fixture(autouse=True)
def nothing_fails():
    faults.forget()
    yield
    assert ((), []) == (faults.told(), scopes.open_scopes())


@pytest.fixture
def session(engine):
    fill(engine)
    with Session(engine) as opened:
        yield opened


@pytest.fixture
def findings_of(engine):
    """`with findings_of() as found`: a scope; afterwards *found* holds what a probe told of it."""

    @contextlib.contextmanager
    def observe(rule="n-plus-one", **settings):
        found = []
        with sqlprobe.attach(engine, settings=sqlprobe.Settings(**settings)) as probe:
            with sqlprobe.scope("work"):
                yield found
            found.extend(finding for finding in probe.report().findings if finding.rule == rule)

    return observe


@functools.cache
def line_of(marker):
    """The line of this file that ends with the comment *marker*."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    (number,) = [number for number, line in enumerate(lines, 1) if line.endswith(f"# {marker}")]
    return number


def at(site):
    return None if site is None else (Path(site.file).name, site.line)


def here(marker):
    return ("test_n_plus_one.py", line_of(marker))


def code_of(finding):
    return [fix.code for fix in finding.fixes]


def pasted(code):
    return eval(code, dict(NAMES))


def brief(found):
    return sorted((finding.label, finding.count) for finding in found)


# --- scenario 1: a collection of each parent --------------------------------------------------------------------------


def read_orders(session, statement):
    for cust in session.scalars(statement).unique():  # queries customers
        cust.orders  # reads orders


def test_reports_lazy_load_in_loop(session, findings_of):
    with findings_of() as found:
        read_orders(session, select(Cust))

    (finding,) = found
    assert {
        "title": f"lazy load of Cust.orders ran 5 times at {finding.site.file}:{line_of('reads orders')}",
        "advice": "load Cust.orders with the query that loads its parents: add .options(selectinload(Cust.orders)); or, "
        'if every query needs it, give the relationship lazy="selectin"',
        "label": "Cust.orders",
        "severity": "warning",
        "count": 5,
        "site": here("reads orders"),
        "function": "read_orders",
        "caller": "test_reports_lazy_load_in_loop",
        "origin": here("queries customers"),
        "codes": ["select(Cust).options(selectinload(Cust.orders))", 'lazy="selectin"'],
        "key": "n-plus-one|Cust.orders|work|read_orders",
        "parents": 5,
        "statements": 6,
    } == {
        "title": finding.title,
        "advice": finding.advice,
        "label": finding.label,
        "severity": finding.severity,
        "count": finding.count,
        "site": at(finding.site),
        "function": finding.site.function,
        "caller": finding.site.caller.function,
        "origin": at(finding.origin),
        "codes": code_of(finding),
        "key": finding.key,
        "parents": finding.evidence["parents"],
        "statements": finding.evidence["statements_in_scope"],
    }


def test_silent_after_its_own_advice(session, findings_of):
    with findings_of() as found:
        read_orders(session, select(Cust))
    session.expunge_all()
    with findings_of() as again:
        read_orders(session, pasted(code_of(found[0])[0]))

    assert [] == again


def test_silent_when_one_row_is_loaded(session, findings_of):
    with findings_of() as found:
        read_orders(session, select(Cust).limit(1))

    assert [] == found


def test_ten_loads_and_more_are_an_error(session, findings_of):
    with findings_of() as found:
        for order in session.scalars(select(Ord)):
            order.lines

    assert [("error", 10)] == [(finding.severity, finding.count) for finding in found]


def test_recording_tells_the_same_as_a_probe(session, findings_of):
    with findings_of() as found:
        read_orders(session, select(Cust))
    session.expunge_all()
    with sqlprobe.record() as recording, sqlprobe.scope("work"):
        read_orders(session, select(Cust))

    def told(finding):
        return (finding.key, finding.title, finding.advice, finding.fixes, finding.site.line, finding.origin.line)

    assert [told(finding) for finding in found] == [told(finding) for finding in recording.findings]


# --- scenarios 2 and 3: references to one object ----------------------------------------------------------------------


def read_customers(session, statement):
    for order in session.scalars(statement):  # queries orders
        order.cust  # reads customers


def test_reference_to_different_objects_is_mended_by_a_join(session, findings_of):
    with findings_of() as found:
        read_customers(session, select(Ord))

    (finding,) = found
    assert (
        "Ord.cust", 5, here("reads customers"), here("queries orders"),
        ["select(Ord).options(joinedload(Ord.cust))", 'lazy="joined"'],
    ) == (finding.label, finding.count, at(finding.site), at(finding.origin), code_of(finding))  # fmt: skip

    session.expunge_all()
    with findings_of() as again:
        read_customers(session, pasted(code_of(finding)[0]))
    assert [] == again


def test_silent_when_all_refer_to_one_object(session, findings_of):
    session.execute(sa.update(Ord).values(cust_id=1))
    session.commit()
    with findings_of() as found:
        read_customers(session, select(Ord))

    assert [] == found


def test_silent_when_the_objects_are_in_the_session(session, findings_of):
    with findings_of() as found:
        kept = session.scalars(select(Cust)).all()
        read_customers(session, select(Ord))

    assert ([], 5) == (found, len(kept))


def test_reported_when_the_session_has_forgotten_the_objects(session, findings_of):
    with findings_of() as found:
        sum(1 for _ in session.scalars(select(Cust)))
        read_customers(session, select(Ord))

    assert [("Ord.cust", 5)] == brief(found)


def test_ways_by_primary_key_are_told_apart_too(session, findings_of):
    """A country that a reference brought in does not remember whose address it was."""
    with findings_of() as found:
        order = session.get(Ord, 1)
        order.billing.country.stamp
        order.shipping.country.stamp

    assert [] == found


def test_two_references_of_one_statement_text_are_told_apart(session, findings_of):
    """Ord.billing and Ord.shipping are loaded by the same SQL."""
    with findings_of() as found:
        for order in session.scalars(select(Ord)):
            order.billing  # reads billing
            order.shipping  # reads shipping

    assert [
        ("Ord.billing", 10, "select(Ord).options(joinedload(Ord.billing))", here("reads billing")),
        ("Ord.shipping", 10, "select(Ord).options(joinedload(Ord.shipping))", here("reads shipping")),
    ] == sorted((finding.label, finding.count, code_of(finding)[0], at(finding.site)) for finding in found)


def test_silent_when_one_object_is_reached_on_two_ways(session, findings_of):
    """Two addresses of one order, each with its country: two loads of Address.country, and no loop."""
    with findings_of() as found:
        order = session.get(Ord, 1)
        order.billing.country
        order.shipping.country

    assert [] == found


def test_each_way_to_a_relationship_is_mended(session, findings_of):
    def read(statement):
        for order in session.scalars(statement):
            for address in (order.billing, order.shipping):
                address.country

    statement = select(Ord).options(joinedload(Ord.billing), joinedload(Ord.shipping))
    with findings_of() as found:
        read(statement)
    (finding,) = found
    session.expunge_all()
    with findings_of() as again:
        read(pasted(code_of(finding)[0]))

    assert (
        20,
        {"joinedload(Ord.billing).joinedload(Address.country)", "joinedload(Ord.shipping).joinedload(Address.country)"},
        [],
    ) == (
        finding.count,
        set(code_of(finding)[0].removeprefix("select(Ord).options(")[:-1].split(", ")),
        again,
    )


# --- scenarios 5 to 7: what is good already ---------------------------------------------------------------------------


GOOD = {
    "selectinload": lambda: select(Cust).options(selectinload(Cust.orders)),
    "joinedload": lambda: select(Cust).options(joinedload(Cust.orders)),
    "subqueryload": lambda: select(Cust).options(subqueryload(Cust.orders)),
    "contains_eager": lambda: select(Cust).join(Cust.orders).options(contains_eager(Cust.orders)),
    "raiseload and one option": lambda: select(Cust).options(selectinload(Cust.orders), orm.raiseload("*")),
    "immediateload": lambda: select(Cust).options(orm.immediateload(Cust.orders)).limit(1),
}


@pytest.mark.parametrize("case", GOOD)
def test_silent_when_loaded_ahead(session, findings_of, case):
    with findings_of() as found:
        read_orders(session, GOOD[case]())

    assert [] == found


def test_silent_when_the_mapping_loads_ahead(session, findings_of):
    with findings_of() as found:
        read_orders(session, select(Eager))

    assert [] == found


def test_silent_when_a_loader_splits_many_parents(session, findings_of):
    """1,200 parents are three statements of a selectinload, and as many for the level below."""
    session.execute(sa.insert(Cust), [{"id": i} for i in range(100, 1300)])
    session.execute(sa.insert(Ord), [{"id": i, "cust_id": i} for i in range(100, 1300)])
    session.commit()
    with findings_of() as found:
        for cust in session.scalars(select(Cust).options(selectinload(Cust.orders).selectinload(Ord.lines))):
            [order.lines for order in cust.orders]

    assert [] == found


def test_silent_when_streamed_with_a_loader(session, findings_of):
    session.execute(sa.insert(Cust), [{"id": i} for i in range(100, 900)])
    session.commit()
    with findings_of() as found:
        for cust in session.scalars(select(Cust).options(selectinload(Cust.orders)).execution_options(yield_per=200)):
            cust.orders

    assert [] == found


# --- scenario 8: chains -----------------------------------------------------------------------------------------------


def read_lines(session, statement):
    for cust in session.scalars(statement).unique():  # queries customers of lines
        for order in cust.orders:
            order.lines  # reads lines


def test_next_level_is_mended_by_a_longer_chain(session, findings_of):
    with findings_of() as found:
        read_lines(session, select(Cust).options(selectinload(Cust.orders)))

    (finding,) = found
    assert (
        "Ord.lines", 10, here("reads lines"), "select(Cust).options(selectinload(Cust.orders).selectinload(Ord.lines))",
        (
            "load Ord.lines with the query that loads Cust: add "
            ".options(selectinload(Cust.orders).selectinload(Ord.lines)); or, if every query needs it, give the "
            'relationship lazy="selectin"'
        ),
    ) == (finding.label, finding.count, at(finding.site), code_of(finding)[0], finding.advice)  # fmt: skip

    session.expunge_all()
    with findings_of() as again:
        read_lines(session, pasted(code_of(finding)[0]))
    assert [] == again


def test_two_lazy_levels_are_two_findings_of_one_query(session, findings_of):
    with findings_of() as found:
        read_lines(session, select(Cust))

    assert [
        ("Cust.orders", 5, here("queries customers of lines"), "select(Cust).options(selectinload(Cust.orders))"),
        (
            "Ord.lines", 10, here("queries customers of lines"),
            "select(Cust).options(selectinload(Cust.orders).selectinload(Ord.lines))",
        ),
    ] == [
        (finding.label, finding.count, at(finding.origin), code_of(finding)[0])
        for finding in sorted(found, key=operator.attrgetter("label"))
    ]  # fmt: skip


def test_children_of_one_grandchild_each_are_siblings(session, findings_of):
    """Each order came by a load of its own: what makes their lines an N+1 is the query at the root."""
    session.execute(sa.delete(Line))
    session.execute(sa.delete(Ord).where(Ord.id % 2 == 0))
    session.commit()
    with findings_of() as found:
        read_lines(session, select(Cust))

    assert [("Cust.orders", 5), ("Ord.lines", 5)] == brief(found)


def test_three_levels_chain(session, findings_of):
    def read(statement):
        for cust in session.scalars(statement):
            for order in cust.orders:
                order.billing.country

    with findings_of() as found:
        read(select(Cust))
    deepest = next(finding for finding in found if finding.label == "Address.country")
    session.expunge_all()
    with findings_of() as again:
        read(pasted(code_of(deepest)[0]))

    assert (
        "select(Cust).options(selectinload(Cust.orders).joinedload(Ord.billing).joinedload(Address.country))",
        [],
    ) == (
        code_of(deepest)[0],
        again,
    )


# --- scenarios 9 to 11: no loop, no finding ---------------------------------------------------------------------------


def test_silent_for_objects_fetched_each_for_itself(session, findings_of):
    with findings_of() as found:
        for number in range(1, 6):
            session.scalars(select(Cust).where(Cust.id == number)).one().orders

    assert [] == found


def test_silent_for_objects_of_session_get(session, findings_of):
    with findings_of() as found:
        for number in range(1, 6):
            session.get(Cust, number).orders

    assert [] == found


def test_two_objects_of_one_query_are_enough(session, findings_of):
    with findings_of() as found:
        read_orders(session, select(Cust).limit(2))

    assert [("Cust.orders", 2)] == brief(found)


def test_silent_when_one_collection_is_read_twice(session, findings_of):
    with findings_of() as found:
        cust = session.scalars(select(Cust).limit(1)).one()
        for _ in range(3):
            cust.orders

    assert [] == found


def test_reloading_one_object_again_and_again_is_none(session, findings_of):
    with findings_of() as found:
        custs = session.scalars(select(Cust)).all()
        for _ in range(5):
            session.expire(custs[0], ["orders"])
            custs[0].orders

    assert [] == found


def test_silent_for_new_objects(session, findings_of):
    with findings_of() as found:
        custs = [Cust(id=number) for number in range(50, 60)]
        for cust in custs:
            cust.orders
        session.add_all(custs)
        for cust in custs:
            cust.orders.append(Ord())
        session.flush()
        for cust in custs:
            cust.notes  # lazy loads of objects that no query has loaded

    assert [] == found


def test_silent_when_the_foreign_key_is_null(session, findings_of):
    session.execute(sa.update(Ord).values(cust_id=None))
    session.commit()
    with findings_of() as found:
        read_customers(session, select(Ord))

    assert [] == found


def test_silent_for_backreferences(session, findings_of):
    with findings_of() as found:
        for cust in session.scalars(select(Cust).options(selectinload(Cust.orders))):
            for order in cust.orders:
                order.cust

    assert [] == found


# --- scenario 28: trees -----------------------------------------------------------------------------------------------


def walk_down(node):
    return 1 + sum(walk_down(child) for child in node.children)


def test_recursive_walk_down_is_mended_by_one_option(session, findings_of):
    with findings_of() as found:
        walk_down(session.scalars(select(Node).where(Node.id == 1)).one())
    (finding,) = found
    session.expunge_all()
    with findings_of() as again:
        walk_down(session.scalars(pasted(code_of(finding)[0]).where(Node.id == 1)).one())

    assert (
        ("Node.children", 31), ["select(Node).options(selectinload(Node.children, recursion_depth=-1))"], True,
    ) == ((finding.label, finding.count), code_of(finding), sum(item.count for item in again) < 20)  # fmt: skip


def test_walk_up_from_one_object_is_told_with_what_no_option_can_mend(session, findings_of):
    with findings_of() as found:
        node = session.get(Node, 31)  # begins the walk
        while node.parent:  # walks up
            node = node.parent

    (finding,) = found
    assert ("Node.parent", 4, here("walks up"), here("begins the walk"), (), True) == (
        finding.label, finding.count, at(finding.site), at(finding.origin), finding.fixes, "recursive" in finding.advice,
    )  # fmt: skip


def test_silent_for_the_parent_of_a_parent(session, findings_of):
    with findings_of() as found:
        session.get(Node, 31).parent.parent

    assert [] == found


def test_silent_when_a_walk_alternates_between_two_relationships(session, findings_of):
    session.execute(sa.update(Ord).values(cust_id=Ord.id))
    session.commit()
    with findings_of() as found:
        order = session.get(Ord, 1)
        for _ in range(3):
            order = order.cust.orders[0]

    assert [] == found


def test_walk_up_from_many_objects_is_mended_by_one_option(session, findings_of):
    def read(statement):
        for node in session.scalars(statement):
            while node.parent:
                node = node.parent  # noqa: PLW2901

    codes = ["select(Node)"]
    while codes[-1]:
        session.expunge_all()
        with findings_of() as found:
            read(pasted(codes[-1]).where(Node.id.in_([16, 20, 24, 28])))
        codes.append(code_of(found[0])[0] if found else None)

    assert [
        "select(Node)",
        "select(Node).options(selectinload(Node.parent, recursion_depth=-1))",
        None,
    ] == codes


def test_deep_chain_of_lazy_loads_costs_no_more_a_step(session, findings_of):
    session.execute(sa.insert(Node), [{"id": i, "parent_id": i - 1} for i in range(100, 600)])
    session.commit()
    with findings_of() as found:
        node = session.get(Node, 599)
        while node.id > 100:
            node = node.parent

    assert [("Node.parent", 499)] == brief(found)


# --- scenario 29: inheritance -----------------------------------------------------------------------------------------


def test_relationship_of_the_base_queried_on_a_subclass(session, findings_of):
    def read(statement):
        for manager in session.scalars(statement):
            manager.tasks

    with findings_of() as found:
        read(select(Manager))
    (finding,) = found
    session.expunge_all()
    with findings_of() as again:
        read(pasted(code_of(finding)[0]))

    assert ("Employee.tasks", "select(Manager).options(selectinload(Employee.tasks))", []) == (
        finding.label,
        code_of(finding)[0],
        again,
    )


def test_relationship_of_a_subclass_queried_on_the_base(session, findings_of):
    def read(statement):
        for employee in session.scalars(statement):
            employee.reviews

    with findings_of() as found:
        read(select(Employee))
    (finding,) = found
    session.expunge_all()
    with findings_of() as again:
        read(pasted(code_of(finding)[0]))

    assert (
        "Manager.reviews", 4, [],
        "select(Employee).options(selectin_polymorphic(Employee, [Manager]), selectinload(Manager.reviews))",
    ) == (finding.label, finding.count, again, code_of(finding)[0])  # fmt: skip


def test_relationship_of_a_subclass_below_a_collection_of_the_base(session, findings_of):
    def read(statement):
        for company in session.scalars(statement):
            for employee in company.staff:
                employee.reviews

    with findings_of() as found:
        read(select(Company).options(selectinload(Company.staff)))
    (finding,) = found
    session.expunge_all()
    with findings_of() as again:
        read(pasted(code_of(finding)[0]))

    assert (
        "select(Company).options(selectinload(Company.staff.of_type(Manager)).selectinload(Manager.reviews))", [],
    ) == (code_of(finding)[0], again)  # fmt: skip


# --- who reads --------------------------------------------------------------------------------------------------------


def test_comprehension_is_the_reader(session, findings_of):
    with findings_of() as found:
        [cust.orders for cust in session.scalars(select(Cust))]  # comprehends

    (finding,) = found
    assert (here("comprehends"), here("comprehends")) == (at(finding.site), at(finding.origin))


def test_generator_is_the_reader_and_its_consumer_the_caller(session, findings_of):
    def orders(custs):
        for cust in custs:
            yield cust.orders  # yields orders

    def consume(items):
        return list(items)  # consumes

    with findings_of() as found:
        consume(orders(session.scalars(select(Cust))))

    (finding,) = found
    assert (here("yields orders"), here("consumes")) == (at(finding.site), at(finding.site.caller))


def test_property_is_the_reader_and_its_user_the_caller(session, findings_of, monkeypatch):
    def total(self):
        return len(self.orders)  # property reads

    monkeypatch.setattr(Cust, "total", property(total), raising=False)
    with findings_of() as found:
        sum(cust.total for cust in session.scalars(select(Cust)))  # sums

    (finding,) = found
    assert (here("property reads"), here("sums")) == (at(finding.site), at(finding.site.caller))


def test_lines_of_one_function_are_one_finding_told_by_the_costlier(session, findings_of):
    with findings_of() as found:
        for cust in session.scalars(select(Cust).where(Cust.id < 3)):
            cust.orders  # reads first
        session.expunge_all()
        for cust in session.scalars(select(Cust)):
            cust.orders  # reads second

    (finding,) = found
    assert (7, True) == (finding.count, at(finding.site) in {here("reads first"), here("reads second")})


def library(tmp_path, monkeypatch, source):
    """A module that is installed, and not the user's."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "serializer.py").write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("serializer", folder / "serializer.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "serializer", module)
    spec.loader.exec_module(module)
    return module


def test_library_that_reads_is_not_the_site_but_who_called_it(session, findings_of, tmp_path, monkeypatch):
    module = library(tmp_path, monkeypatch, "def dump(items):\n    return [item.orders for item in items]\n")
    with findings_of() as found:
        custs = session.scalars(select(Cust)).all()  # queries for the library
        module.dump(custs)  # calls the library

    (finding,) = found
    assert (here("calls the library"), here("queries for the library")) == (at(finding.site), at(finding.origin))


def test_finding_without_a_line_of_the_user_still_tells_what_to_do(engine, findings_of, tmp_path, monkeypatch):
    fill(engine)
    source = (
        "import asyncio\n"
        "async def serve(session, statement):\n"
        "    for cust in (await session.scalars(statement)).all():\n"
        "        await cust.awaitable_attrs.orders\n"
    )
    module = library(tmp_path, monkeypatch, source)

    async def main():
        async_engine = sa.ext.asyncio.create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/test.sqlite")
        async with async_engine.begin() as connection:
            await connection.run_sync(fill)
        async with AsyncSession(async_engine) as session:
            with sqlprobe.record() as recording, sqlprobe.scope("work"):
                await asyncio.create_task(module.serve(session, select(Cust)))
        await async_engine.dispose()
        return recording.findings

    (finding,) = asyncio.run(main())
    assert (
        None, None, "lazy load of Cust.orders ran 5 times", "n-plus-one|Cust.orders|work|",
        "select(Cust).options(selectinload(Cust.orders))",
    ) == (finding.site, finding.origin, finding.title, finding.key, code_of(finding)[0])  # fmt: skip


# --- async ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["aiosqlite", pytest.param("asyncpg", marks=pytest.mark.postgresql)])
def url(request, sqlite_url):
    """Of an empty database, by each async driver."""
    if request.param == "aiosqlite":
        return sqlite_url("aiosqlite")
    return request.getfixturevalue("postgresql_url")("asyncpg")


async def read_awaitable(session, statement):
    for cust in (await session.scalars(statement)).unique():  # queries in a coroutine
        await cust.awaitable_attrs.orders  # awaits orders


def test_awaited_attribute_is_found_at_its_await(run_async, url):
    async def main(engine):
        async with engine.begin() as connection:
            await connection.run_sync(fill)
        found = []
        statement = select(Cust)
        for _ in range(2):
            async with AsyncSession(engine) as session:
                with sqlprobe.record() as recording, sqlprobe.scope("work"):
                    await read_awaitable(session, statement)
            found.append([finding for finding in recording.findings if finding.rule == "n-plus-one"])
            statement = pasted(code_of(found[0][0])[0])
        return found

    (finding,), again = run_async(main, url)
    assert (5, here("awaits orders"), "read_awaitable", here("queries in a coroutine"), []) == (
        finding.count, at(finding.site), finding.site.function, at(finding.origin), again,
    )  # fmt: skip


def test_run_sync_is_found_at_the_line_that_reads(run_async, url):
    def in_greenlet(session):
        for cust in session.scalars(select(Cust)):  # queries in run_sync
            cust.orders  # reads in run_sync

    async def main(engine):
        async with engine.begin() as connection:
            await connection.run_sync(fill)
        async with AsyncSession(engine) as session:
            with sqlprobe.record() as recording, sqlprobe.scope("work"):
                await session.run_sync(in_greenlet)  # awaits run_sync
        return [finding for finding in recording.findings if finding.rule == "n-plus-one"]

    (finding,) = run_async(main, url)
    assert (here("reads in run_sync"), here("queries in run_sync")) == (at(finding.site), at(finding.origin))


def test_concurrent_sessions_keep_each_its_own_relationship(run_async, sqlite_url):
    async def orders(engine):
        async with AsyncSession(engine) as session:
            for cust in (await session.scalars(select(Cust))).all():  # queries for orders
                await cust.awaitable_attrs.orders

    async def notes(engine):
        async with AsyncSession(engine) as session:
            for cust in (await session.scalars(select(Cust))).all():  # queries for notes
                await cust.awaitable_attrs.notes

    async def main(engine):
        async with engine.begin() as connection:
            await connection.run_sync(fill)
        with sqlprobe.record() as recording, sqlprobe.scope("work"):
            await asyncio.gather(orders(engine), notes(engine), orders(engine))
        return recording.findings

    found = run_async(main, sqlite_url("aiosqlite"))
    assert [("Cust.notes", 5, here("queries for notes")), ("Cust.orders", 10, here("queries for orders"))] == sorted(
        (finding.label, finding.count, at(finding.origin)) for finding in found if finding.rule == "n-plus-one"
    )


# --- settings ---------------------------------------------------------------------------------------------------------


def test_threshold_is_the_number_of_parents(session, findings_of):
    with findings_of(n_plus_one_threshold=6) as below:
        read_orders(session, select(Cust))
    session.expunge_all()
    with findings_of(n_plus_one_threshold=5) as reached:
        read_orders(session, select(Cust))

    assert ([], [("Cust.orders", 5)]) == (below, brief(reached))


def test_disabled_rule_is_silent(session, findings_of):
    with findings_of(disabled_rules=("n-plus-one",)) as found:
        read_orders(session, select(Cust))

    assert [] == found


def test_call_sites_off_leaves_the_lines_out(session, findings_of):
    with findings_of(call_sites="off") as found:
        read_orders(session, select(Cust))

    (finding,) = found
    assert (None, None, "lazy load of Cust.orders ran 5 times", 5) == (
        finding.site,
        finding.origin,
        finding.title,
        finding.count,
    )


def test_session_that_lives_longer_than_the_scope_names_no_query(session, findings_of):
    custs = session.scalars(select(Cust)).all()
    with findings_of() as found:
        for cust in custs:
            cust.orders

    (finding,) = found
    assert (5, None, "select(Cust).options(selectinload(Cust.orders))") == (
        finding.count,
        finding.origin,
        code_of(finding)[0],
    )


def test_parameters_are_in_no_finding(session, findings_of):
    with findings_of() as found:
        read_orders(session, select(Cust).where(Cust.id != 987_654_321))

    assert "987654321" not in repr(found)


def test_legacy_query_is_seen_too(session, findings_of):
    with findings_of() as found:
        for cust in session.query(Cust).all():
            cust.orders

    assert [("Cust.orders", 5)] == brief(found)
