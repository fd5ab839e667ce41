"""The tables of the corpus, and their rows: enough for loops of 50, and the same each time."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, WriteOnlyMapped, mapped_column, relationship

MOST = 60  # rows of each parent table


class Base(AsyncAttrs, DeclarativeBase):
    pass


def key(target: str = "", **options: object) -> Mapped[int]:
    return mapped_column(sa.ForeignKey(target), **options) if target else mapped_column(primary_key=True)


customer_tag = sa.Table(
    "customer_tag",
    Base.metadata,
    sa.Column("customer_id", sa.ForeignKey("customer.id"), primary_key=True),
    sa.Column("tag_id", sa.ForeignKey("tag.id"), primary_key=True),
)


class Customer(Base):
    __tablename__ = "customer"

    id: Mapped[int] = key()
    name: Mapped[str]
    email: Mapped[str] = mapped_column(default="")
    region_id: Mapped[int | None] = key("region.id")
    region: Mapped[Region | None] = relationship()
    orders: Mapped[list[Order]] = relationship(back_populates="customer", order_by="Order.id")
    notes: Mapped[list[Note]] = relationship(order_by="Note.id")
    tags: Mapped[list[Tag]] = relationship(secondary=customer_tag, order_by="Tag.id")
    stream: Mapped[list[Order]] = relationship(lazy="dynamic", viewonly=True, order_by="Order.id")
    ledger: WriteOnlyMapped[Order] = relationship(overlaps="orders,stream,customer", order_by="Order.id")
    profile: Mapped[Profile | None] = relationship(uselist=False)

    @property
    def total(self) -> int:
        return sum(order.amount for order in self.orders)

    def __repr__(self) -> str:
        return f"<Customer {self.id}>"


class Profile(Base):
    __tablename__ = "profile"

    id: Mapped[int] = key()
    customer_id: Mapped[int] = key("customer.id")
    bio: Mapped[str]


class Region(Base):
    __tablename__ = "region"

    id: Mapped[int] = key()
    name: Mapped[str]


class Tag(Base):
    __tablename__ = "tag"

    id: Mapped[int] = key()
    name: Mapped[str]


class Note(Base):
    __tablename__ = "note"

    id: Mapped[int] = key()
    customer_id: Mapped[int] = key("customer.id")
    text: Mapped[str]


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = key()
    customer_id: Mapped[int | None] = key("customer.id")
    billing_id: Mapped[int | None] = key("address.id")
    shipping_id: Mapped[int | None] = key("address.id")
    amount: Mapped[int]
    customer: Mapped[Customer | None] = relationship(back_populates="orders", overlaps="ledger")
    lines: Mapped[list[Line]] = relationship(order_by="Line.id")
    billing: Mapped[Address | None] = relationship(foreign_keys=[billing_id])
    shipping: Mapped[Address | None] = relationship(foreign_keys=[shipping_id])


class Line(Base):
    __tablename__ = "line"

    id: Mapped[int] = key()
    order_id: Mapped[int] = key("orders.id")
    sku: Mapped[str]


class Address(Base):
    __tablename__ = "address"

    id: Mapped[int] = key()
    city: Mapped[str]


class Ahead(Base):
    """The customers again, with a mapping that loads ahead."""

    __table__ = Customer.__table__
    orders: Mapped[list[Order]] = relationship(lazy="selectin", viewonly=True, order_by="Order.id")


class Wide(Base):
    """The customers again, with a mapping that joins two collections."""

    __table__ = Customer.__table__
    orders: Mapped[list[Order]] = relationship(lazy="joined", viewonly=True, order_by="Order.id")
    notes: Mapped[list[Note]] = relationship(lazy="joined", viewonly=True, order_by="Note.id")


class Node(Base):
    __tablename__ = "node"

    id: Mapped[int] = key()
    parent_id: Mapped[int | None] = key("node.id")
    parent: Mapped[Node | None] = relationship(remote_side="Node.id", back_populates="children")
    children: Mapped[list[Node]] = relationship(back_populates="parent", order_by="Node.id")


class Document(Base):
    __tablename__ = "document"

    id: Mapped[int] = key()
    title: Mapped[str]
    body: Mapped[str] = mapped_column(deferred=True)
    summary: Mapped[str] = mapped_column(deferred=True)


class Employee(Base):
    __tablename__ = "employee"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "employee"}  # noqa: RUF012

    id: Mapped[int] = key()
    kind: Mapped[str]
    name: Mapped[str]
    tasks: Mapped[list[Task]] = relationship(order_by="Task.id")


class Manager(Employee):
    __tablename__ = "manager"
    __mapper_args__ = {"polymorphic_identity": "manager"}  # noqa: RUF012

    id: Mapped[int] = key("employee.id", primary_key=True)
    grade: Mapped[int]
    reviews: Mapped[list[Review]] = relationship(order_by="Review.id")


class Task(Base):
    __tablename__ = "task"

    id: Mapped[int] = key()
    employee_id: Mapped[int] = key("employee.id")
    title: Mapped[str]


class Review(Base):
    __tablename__ = "review"

    id: Mapped[int] = key()
    manager_id: Mapped[int] = key("manager.id")
    stars: Mapped[int]


class Job(Base):
    __tablename__ = "job"

    id: Mapped[int] = key()
    status: Mapped[str]
    runs: Mapped[int] = mapped_column(default=0)


def fill(connection: sa.Connection) -> None:
    """Make the tables and their rows."""
    Base.metadata.create_all(connection)
    many = range(1, MOST + 1)
    with Session(connection) as session:
        session.add_all(Region(id=i, name=f"region {i}") for i in many)
        session.add_all(Tag(id=i, name=f"tag {i}") for i in many)
        session.add_all(Address(id=i, city=f"city {i}") for i in range(1, 4 * MOST + 1))
        session.flush()
        session.add_all(Customer(id=i, name=f"customer {i}", email=f"{i}@x", region_id=i) for i in many)
        session.flush()
        session.execute(sa.insert(customer_tag), [{"customer_id": i, "tag_id": i} for i in many])
        session.add_all(Profile(id=i, customer_id=i, bio=f"bio {i}") for i in many)
        session.add_all(Note(id=i, customer_id=(i + 1) // 2, text=f"note {i}") for i in range(1, 2 * MOST + 1))
        session.add_all(
            Order(id=i, customer_id=(i + 1) // 2, billing_id=i, shipping_id=i + 2 * MOST, amount=i)
            for i in range(1, 2 * MOST + 1)
        )
        session.flush()
        session.add_all(Line(id=i, order_id=(i + 1) // 2, sku=f"sku {i}") for i in range(1, 4 * MOST + 1))
        session.add_all(Document(id=i, title=f"title {i}", body=f"body {i}", summary=f"summary {i}") for i in many)
        session.add_all(Job(id=i, status="new") for i in many)
        session.flush()
        session.execute(sa.insert(Node), [{"id": i, "parent_id": i // 2 or None} for i in range(1, 64)])
        session.execute(
            sa.insert(Node), [{"id": i, "parent_id": i - 1 if i > 1000 else None} for i in range(1000, 1061)]
        )
        session.add_all(Manager(id=i, name=f"manager {i}", grade=i) for i in many)
        session.flush()
        session.add_all(Task(id=i, employee_id=i, title=f"task {i}") for i in many)
        session.add_all(Review(id=i, manager_id=i, stars=i % 5) for i in many)
        session.commit()
        if connection.dialect.name == "postgresql":
            for table in Base.metadata.sorted_tables:
                if "id" in table.c and not table.c.id.foreign_keys:
                    name = connection.dialect.identifier_preparer.quote(table.name)
                    connection.execute(sa.text(f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), 5000)"))
            connection.commit()
