"""
The corpus: small programs, half of them with a fault, half of them clean look-alikes.

A program is source text with a function `run(session)`, so that the harness can paste a fix into it. `n` is the number
of rows that its loop meets. The comments `# site` and `# origin` mark the lines that a finding has to name.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

ALL = "all"


@dataclass(frozen=True)
class Expected:
    """A finding: `count` is Python in terms of `n`. `mended` says whether it must print a fix that works."""

    rule: str
    label: str
    count: str = "n"
    site: str | None = "site"
    origin: str | None = None
    mended: bool = False


@dataclass(frozen=True)
class Program:
    """`least` is the smallest n at which the fault is one; `writes` says that the database has to be filled anew."""

    name: str
    source: str
    expected: tuple[Expected, ...] = ()
    scenario: int = 0
    shape: str = ""  # after which published code
    least: int = 2
    writes: bool = False
    asynchronous: bool = False  # written with async def, for an AsyncSession


PROGRAMS: dict[str, Program] = {}


def add(name, source, *expected, **options):
    assert name not in PROGRAMS, name
    PROGRAMS[name] = Program(name, textwrap.dedent(source).lstrip("\n"), expected, **options)


def lazy(label, count="n", site="site", origin="origin", mended=True):
    return Expected("n-plus-one", label, count, site, origin, mended)


def repeated(label, count="n", site="site", mended=False):
    return Expected("repeated-statement", label, count, site, None, mended)


def duplicate(label, count="n", site="site"):
    return Expected("duplicate-statement", label, count, site)


def columns(label, count="n", origin="origin", mended=True):
    return Expected("column-load", label, count, "site", origin, mended)


def writes(label, count="n", site="site"):
    return Expected("write-loop", label, count, site, mended=label in MAPPED)


MAPPED = {"region", "note"}  # by one class each; the customer by several


def explosion(label, mended=True):
    return Expected("row-explosion", label, "1", "origin", "origin", mended)


WHERE = ".where(Customer.id <= n).order_by(Customer.id)"
FILTER = ".filter(Customer.id <= n).order_by(Customer.id)"

# --- n-plus-one: one relationship, each way to ask for the parents -----------------------------------------------------

PARENTS = {
    "scalars": f"session.scalars(select(Customer){WHERE})",
    "scalars-all": f"session.scalars(select(Customer){WHERE}).all()",
    "execute-scalars": f"session.execute(select(Customer){WHERE}).scalars()",
    "query": f"session.query(Customer){FILTER}",
    "query-all": f"session.query(Customer){FILTER}.all()",
    "from-statement": "session.scalars(select(Customer).from_statement(text('SELECT * FROM customer WHERE id <= :n ORDER BY id').bindparams(n=n)))",
    "union": "session.scalars(select(Customer).from_statement(select(Customer).where(Customer.id <= n).order_by(Customer.id)))",
    "limit": "session.scalars(select(Customer).order_by(Customer.id).limit(n))",
    "distinct": "session.scalars(select(Customer).where(Customer.id <= n).distinct().order_by(Customer.id))",
    "joined-filter": "session.scalars(select(Customer).join(Region, Customer.region_id == Region.id).where(Region.id <= n).order_by(Customer.id))",
    "subquery-filter": "session.scalars(select(Customer).where(Customer.id.in_(select(Region.id).where(Region.id <= n))).order_by(Customer.id))",
    "with-options": "session.scalars(select(Customer).where(Customer.id <= n).order_by(Customer.id).options(joinedload(Customer.region)))",
    "for-update": "session.scalars(select(Customer).where(Customer.id <= n).order_by(Customer.id).execution_options(populate_existing=True))",
}
READS = {
    "orders": ("Customer.orders", "[order.amount for order in customer.orders]"),
    "notes": ("Customer.notes", "len(customer.notes)"),
    "tags": ("Customer.tags", "[tag.name for tag in customer.tags]"),
    "region": ("Customer.region", "customer.region.name"),
    "profile": ("Customer.profile", "customer.profile.bio"),
}
for form, parents in PARENTS.items():
    for relation in ["orders"] if form not in {"scalars", "query", "from-statement"} else READS:
        if form == "with-options" and relation == "region":
            continue
        label, read = READS[relation]
        add(
            f"lazy-{relation}-{form}",
            f"""
            def run(session):
                found = []
                for customer in {parents}:  # origin
                    found.append({read})  # site
                return found
            """,
            lazy(label),
            scenario=1 if relation != "region" else 2,
        )

add(
    "lazy-in-comprehension",
    f"""
    def run(session):
        customers = session.scalars(select(Customer){WHERE}).all()  # origin
        return [len(customer.orders) for customer in customers]  # site
    """,
    lazy("Customer.orders"),
    scenario=1,
)
add(
    "lazy-two-entities",
    """
    def run(session):
        found = []
        for customer, region in session.execute(select(Customer, Region).join(Region, Customer.region_id == Region.id).where(Customer.id <= n).order_by(Customer.id)):  # origin
            found.append((region.name, len(customer.orders)))  # site
        return found
    """,
    lazy("Customer.orders"),
    scenario=1,
)
add(
    "lazy-two-entities-query",
    """
    def run(session):
        found = []
        for customer, region in session.query(Customer, Region).join(Region, Customer.region_id == Region.id).filter(Customer.id <= n).order_by(Customer.id):  # origin
            found.append((region.name, len(customer.orders)))  # site
        return found
    """,
    lazy("Customer.orders"),
    scenario=1,
)
add(
    "lazy-entity-and-column",
    """
    def run(session):
        found = []
        for customer, name in session.execute(select(Customer, Customer.name).where(Customer.id <= n).order_by(Customer.id)):  # origin
            found.append((name, len(customer.orders)))  # site
        return found
    """,
    lazy("Customer.orders"),
    scenario=1,
)
add(
    "lazy-below-get",
    """
    def run(session):
        found = []
        session.execute(update(Order).where(Order.id <= n).values(customer_id=1))
        customer = session.get(Customer, 1)  # origin
        for order in [order for order in customer.orders if order.id <= n]:
            found.append(len(order.lines))  # site
        return found
    """,
    lazy("Order.lines"),
    scenario=8,
    writes=True,
)
add(
    "lazy-next-level",
    f"""
    def run(session):
        found = []
        for customer in session.scalars(select(Customer).options(selectinload(Customer.orders)){WHERE}):  # origin
            for order in customer.orders:
                found.append(len(order.lines))  # site
        return found
    """,
    lazy("Order.lines", "2 * n"),
    scenario=8,
)
add(
    "lazy-next-level-query",
    f"""
    def run(session):
        found = []
        for customer in session.query(Customer).options(selectinload(Customer.orders)){FILTER}:  # origin
            for order in customer.orders:
                found.append(len(order.lines))  # site
        return found
    """,
    lazy("Order.lines", "2 * n"),
    scenario=8,
)
add(
    "lazy-next-level-joined",
    f"""
    def run(session):
        found = []
        for customer in session.scalars(select(Customer).options(joinedload(Customer.orders)){WHERE}).unique():  # origin
            for order in customer.orders:
                found.append(len(order.lines))  # site
        return found
    """,
    lazy("Order.lines", "2 * n"),
    scenario=8,
)
add(
    "lazy-two-levels",
    f"""
    def run(session):
        found = []
        for customer in session.scalars(select(Customer){WHERE}):  # origin
            for order in customer.orders:  # outer
                found.append(len(order.lines))  # site
        return found
    """,
    lazy("Customer.orders", site="outer"),
    lazy("Order.lines", "2 * n"),
    scenario=8,
)
add(
    "lazy-billing-and-shipping",
    """
    def run(session):
        found = []
        for order in session.scalars(select(Order).where(Order.id <= n).order_by(Order.id)):  # origin
            found.append(order.billing.city)  # site
            found.append(order.shipping.city)  # second
        return found
    """,
    lazy("Order.billing"),
    lazy("Order.shipping", site="second"),
    scenario=2,
)
add(
    "lazy-m2o-distinct-targets",
    """
    def run(session):
        found = []
        for order in session.scalars(select(Order).where(Order.id.in_([2 * i for i in range(1, n + 1)])).order_by(Order.id)):  # origin
            found.append(order.customer.name)  # site
        return found
    """,
    lazy("Order.customer"),
    scenario=2,
)
add(
    "lazy-after-references-dropped",
    f"""
    def run(session):
        for customer in session.scalars(select(Customer){WHERE}):
            pass
        del customer
        found = []
        for order in session.scalars(select(Order).where(Order.id.in_([2 * i for i in range(1, n + 1)])).order_by(Order.id)):  # origin
            found.append(order.customer.name)  # site
        return found
    """,
    lazy("Order.customer"),
    scenario=3,
)
add(
    "lazy-property",
    f"""
    class View:
        def __init__(self, customer):
            self.customer = customer

        @property
        def total(self):
            return sum(order.amount for order in self.customer.orders)  # site

    def run(session):
        return [View(customer).total for customer in session.scalars(select(Customer){WHERE})]  # origin
    """,
    lazy("Customer.orders"),
    scenario=27,
)
add(
    "lazy-str",
    f"""
    class View:
        def __init__(self, customer):
            self.customer = customer

        def __str__(self):
            return self.customer.region.name  # site

    def run(session):
        return ", ".join(str(View(customer)) for customer in session.scalars(select(Customer){WHERE}))  # origin
    """,
    lazy("Customer.region"),
    scenario=27,
)
add(
    "lazy-template",
    f"""
    TEMPLATE = jinja2.Template("{{% for customer in customers %}}{{{{ customer.orders|length }}}} {{% endfor %}}")

    def run(session):
        customers = session.scalars(select(Customer){WHERE}).all()  # origin
        return TEMPLATE.render(customers=customers)  # site
    """,
    lazy("Customer.orders"),
    scenario=27,
    shape="Flask tutorials: a template that walks a relationship",
)
add(
    "lazy-pydantic",
    f"""
    class OrderOut(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(from_attributes=True)
        amount: int

    class CustomerOut(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(from_attributes=True)
        name: str
        orders: list[OrderOut]

    CustomerOut.model_rebuild(_types_namespace=globals())

    def run(session):
        customers = session.scalars(select(Customer){WHERE}).all()  # origin
        return [CustomerOut.model_validate(customer).model_dump() for customer in customers]  # site
    """,
    lazy("Customer.orders"),
    scenario=27,
    shape="full-stack-fastapi-template: response models with from_attributes",
)
add(
    "lazy-subclass-of-base",
    """
    def run(session):
        return [len(manager.tasks) for manager in session.scalars(select(Manager).where(Manager.id <= n).order_by(Manager.id))]  # origin
    """,
    lazy("Employee.tasks", site="origin"),
    scenario=29,
)
add(
    "lazy-of-subclass",
    """
    def run(session):
        found = []
        for employee in session.scalars(select(Employee).options(selectin_polymorphic(Employee, [Manager])).where(Employee.id <= n).order_by(Employee.id)):  # origin
            found.append(len(employee.reviews))  # site
        return found
    """,
    lazy("Manager.reviews"),
    scenario=29,
)
add(
    "lazy-children-recursive",
    """
    def walk(node):
        return 1 + sum(walk(child) for child in node.children if child.id < 64)  # site

    def run(session):
        session.execute(update(Node).where(Node.id.between(2, 63), Node.id > n + 1).values(parent_id=None))
        return walk(session.scalars(select(Node).where(Node.id == 1)).one())  # origin
    """,
    lazy("Node.children", "n + 1", mended=True),
    scenario=28,
    least=3,
    writes=True,
)
add(
    "walk-up",
    """
    def run(session):
        node = session.get(Node, 1000 + n)  # origin
        depth = 0
        while node.parent is not None:  # site
            node = node.parent
            depth += 1
        return depth
    """,
    lazy("Node.parent", origin="origin", mended=False),
    scenario=28,
    least=3,
)
add(
    "walk-up-recursive",
    """
    def path(node):
        parent = node.parent  # site
        return [node.id] if parent is None else [*path(parent), node.id]

    def run(session):
        return path(session.scalars(select(Node).where(Node.id == 1000 + n)).one())  # origin
    """,
    lazy("Node.parent", origin="origin", mended=False),
    scenario=28,
    least=3,
)
add(
    "lazy-in-service-layer",
    f"""
    class Repository:
        def __init__(self, session):
            self.session = session

        def active(self):
            return self.session.scalars(select(Customer){WHERE}).all()  # origin

    class Service:
        def __init__(self, repository):
            self.repository = repository

        def export(self):
            return [self.row(customer) for customer in self.repository.active()]

        def row(self, customer):
            return dict(name=customer.name, orders=[order.amount for order in customer.orders])  # site

    def run(session):
        return Service(Repository(session)).export()
    """,
    lazy("Customer.orders"),
    scenario=12,
    shape="Cosmic Python: repository and service layer",
)
add(
    "lazy-generator-pipeline",
    f"""
    def rows(session):
        for customer in session.scalars(select(Customer){WHERE}):  # origin
            yield customer.name, customer.region.name  # site

    def run(session):
        return list(rows(session))
    """,
    lazy("Customer.region"),
    scenario=1,
)
add(
    "lazy-expired-commit-loop",
    f"""
    def run(session):
        found = []
        for customer in session.scalars(select(Customer){WHERE}).all():  # origin
            found.append(len(customer.orders))  # site
            session.commit()
        return found
    """,
    lazy("Customer.orders"),
    scenario=20,
)
add(
    "lazy-expired-after-commit",
    f"""
    def run(session):
        customers = session.scalars(select(Customer){WHERE}).all()  # origin
        session.commit()
        return [len(customer.orders) for customer in customers]  # site
    """,
    lazy("Customer.orders"),
    scenario=20,
)
add(
    "lazy-expired-created",
    """
    def run(session):
        made = [Customer(name=str(i)) for i in range(n)]
        session.add_all(made)
        session.commit()
        return [len(customer.orders) for customer in made]  # site
    """,
    lazy("Customer.orders", origin=None),
    scenario=20,
    least=3,
    writes=True,
)
add(
    "lazy-after-deferred",
    """
    def run(session):
        found = []
        for order in session.scalars(select(Order).options(load_only(Order.customer_id)).where(Order.id <= n).order_by(Order.id)):  # origin
            found.append(len(order.lines))  # site
        return found
    """,
    lazy("Order.lines"),
    scenario=21,
)
add(
    "lazy-autoflush-between",
    f"""
    def run(session):
        found = []
        for customer in session.scalars(select(Customer){WHERE}):  # origin
            customer.email = "changed"
            found.append(len(customer.orders))  # site
        return found
    """,
    lazy("Customer.orders"),
    writes("customer", "n"),
    scenario=24,
    writes=True,
)
add(
    "lazy-alias",
    """
    def run(session):
        found = []
        other = aliased(Customer)
        for customer in session.scalars(select(other).where(other.id <= n).order_by(other.id)):  # origin
            found.append(len(customer.orders))  # site
        return found
    """,
    lazy("Customer.orders", mended=False),
    scenario=1,
)
add(
    "lazy-two-sessions-one-scope",
    f"""
    def run(session):
        found = []
        for customer in session.scalars(select(Customer){WHERE}):  # origin
            found.append(len(customer.orders))  # site
        with new_session() as other:
            found.append(other.scalar(select(func.count()).select_from(Tag)))
        return found
    """,
    lazy("Customer.orders"),
    scenario=19,
)

# --- repeated-statement -----------------------------------------------------------------------------------------------

LOOKUPS = {
    "get": ("customer", "session.get(Customer, number).name"),
    "get-one": ("customer", "session.get_one(Customer, number).name"),
    "scalars-one": ("customer", "session.scalars(select(Customer).where(Customer.id == number)).one().name"),
    "scalar-column": ("customer", "session.scalar(select(Customer.name).where(Customer.id == number))"),
    "execute-one": ("customer", "session.execute(select(Customer.name).where(Customer.id == number)).one()[0]"),
    "query-get": ("customer", "session.query(Customer).filter(Customer.id == number).one().name"),
    "query-first": ("customer", "session.query(Customer).filter_by(id=number).first().name"),
    "query-count": ("orders", "session.query(Order).filter_by(customer_id=number).count()"),
    "count": ("orders", "session.scalar(select(func.count()).select_from(Order).where(Order.customer_id == number))"),
    "exists": ("orders", "session.scalar(select(select(Order.id).where(Order.customer_id == number).exists()))"),
    "sum": ("orders", "session.scalar(select(func.sum(Order.amount)).where(Order.customer_id == number))"),
    "core": ("customer", "session.connection().execute(select(Customer.__table__.c.name).where(Customer.__table__.c.id == number)).scalar_one()"),
    "text": ("customer", "session.execute(text('SELECT name FROM customer WHERE id = :id'), {'id': number}).scalar_one()"),
    "literal": ("customer", "session.execute(text(f'SELECT name FROM customer WHERE id = {number}')).scalar_one()"),
    "driver-sql": ("customer", "session.connection().exec_driver_sql(f'SELECT name FROM customer WHERE id = {number}').scalar_one()"),
    "in-of-one": ("customer", "session.scalars(select(Customer.name).where(Customer.id.in_([number]))).one()"),
    "in-per-customer": ("orders", "session.scalars(select(Order.amount).where(Order.id.in_([number, number + 1, number + 2])).order_by(Order.id)).all()"),
    "first-page-each": ("orders", "session.scalars(select(Order.id).where(Order.customer_id == number).order_by(Order.id).limit(5)).all()"),
    "offset-of-one": ("orders", "session.scalars(select(Order.id).order_by(Order.id).limit(1).offset(number)).one()"),
    "keyset-per-row": ("orders", "session.scalars(select(Order.id).where(Order.id > number).order_by(Order.id).limit(3)).all()"),
    "between": ("orders", "session.scalars(select(func.count(Order.id)).where(Order.id.between(number, number + 5))).one()"),
    "join": ("orders customer", "session.scalar(select(func.count(Order.id)).join(Customer, Customer.id == Order.customer_id).where(Customer.id == number))"),
}  # fmt: skip
REWRITTEN = {
    "get",
    "get-one",
    "scalars-one",
    "scalar-column",
    "execute-one",
    "query-get",
    "query-first",
    "query-count",
    "count",
    "sum",
}
for form, (label, read) in LOOKUPS.items():
    add(
        f"repeat-{form}",
        f"""
        def run(session):
            found = []
            for number in range(1, n + 1):
                found.append({read})  # site
            return found
        """,
        repeated(label, mended=form in REWRITTEN),
        scenario={"get": 11, "in-of-one": 16, "in-per-customer": 16, "offset-of-one": 15, "keyset-per-row": 15, "first-page-each": 15}.get(form, 13),
    )  # fmt: skip

add(
    "repeat-comprehension",
    """
    def run(session):
        return [session.get(Customer, number).name for number in range(1, n + 1)]  # site
    """,
    repeated("customer", mended=True),
    scenario=11,
)
add(
    "repeat-genexpr-all",
    """
    def allowed(session, number):
        return session.scalar(select(Customer.name).where(Customer.id == number)) is not None  # site

    def run(session):
        return all(allowed(session, number) for number in range(1, n + 1))
    """,
    repeated("customer", mended=True),
    scenario=12,
)
add(
    "repeat-repository",
    """
    class Repository:
        def __init__(self, session):
            self.session = session

        def by_id(self, number):
            return self.session.get(Customer, number)  # site

    def run(session):
        repository = Repository(session)
        found = []
        for number in range(1, n + 1):
            found.append(repository.by_id(number).name)
        return found
    """,
    repeated("customer", mended=True),
    scenario=12,
    shape="Cosmic Python: repository.get() in a loop of the service",
)
add(
    "repeat-while",
    """
    def run(session):
        number, found = 1, []
        while number <= n:
            found.append(session.scalar(select(Customer.name).where(Customer.id == number)))  # site
            number += 1
        return found
    """,
    repeated("customer", mended=True),
    scenario=13,
)
add(
    "repeat-dynamic-count",
    """
    def run(session):
        found = []
        for customer in session.scalars(select(Customer).where(Customer.id <= n).order_by(Customer.id)).all():
            found.append(customer.stream.count())  # site
        return found
    """,
    repeated("orders", mended=True),
    scenario=26,
)
add(
    "repeat-write-only",
    """
    def run(session):
        found = []
        for customer in session.scalars(select(Customer).where(Customer.id <= n).order_by(Customer.id)).all():
            found.append(len(session.scalars(customer.ledger.select()).all()))  # site
        return found
    """,
    repeated("orders", mended=True),
    scenario=26,
)
add(
    "repeat-with-parent",
    """
    def run(session):
        found = []
        for customer in session.scalars(select(Customer).where(Customer.id <= n).order_by(Customer.id)).all():
            found.append(len(session.scalars(select(Order).where(with_parent(customer, Customer.orders))).all()))  # site
        return found
    """,
    repeated("orders", mended=True),
    scenario=26,
)
add(
    "repeat-session-each",
    """
    def run(session):
        found = []
        for number in range(1, n + 1):
            with new_session() as own:
                found.append(own.get(Customer, number).name)  # site
        return found
    """,
    repeated("customer", mended=True),
    scenario=18,
)
add(
    "repeat-lookup-then-lazy",
    """
    def run(session):
        found = []
        for number in range(1, n + 1):
            customer = session.get(Customer, number)  # site
            found.append(len(customer.orders))
        return found
    """,
    repeated("customer", mended=True),
    scenario=9,
)
add(
    "repeat-get-or-create",
    """
    def tag(session, name):
        found = session.scalars(select(Tag).where(Tag.name == name)).one_or_none()  # site
        if found is None:
            found = Tag(name=name)
            session.add(found)
        return found

    def run(session):
        return len([tag(session, f"tag {number}") for number in range(1, n + 1)])
    """,
    repeated("tag", mended=True),
    scenario=24,
    shape="unique-object recipe without a cache",
)
add(
    "repeat-unique-check",
    """
    def is_taken(session, email):
        return session.query(Customer.id).filter_by(email=email).first() is not None  # site

    def run(session):
        return sum(is_taken(session, f"{number}@x") for number in range(1, n + 1))
    """,
    repeated("customer"),
    scenario=13,
    shape="Flask mega-tutorial: validate_email() for each row of an import",
)
add(
    "repeat-overlapping-lists",
    """
    def run(session):
        found = []
        for number in range(1, n + 1):
            found.append(session.scalars(select(func.count(Order.id)).where(Order.id.in_([number, number + 1]))).one())  # site
        return found
    """,
    repeated("orders"),
    scenario=16,
)
add(
    "repeat-sliding-window",
    """
    def run(session):
        found = []
        for start in range(1, n + 1):
            found.append(session.scalars(select(Order.id).where(Order.id >= start, Order.id < start + 10).order_by(Order.id)).all())  # site
        return found
    """,
    repeated("orders"),
    scenario=15,
)
add(
    "repeat-merge",
    """
    def run(session):
        for number in range(1, n + 1):
            session.merge(Customer(id=number, name=f"customer {number}", email=f"{number}@x", region_id=number))  # site
        return session.scalar(select(func.count(Customer.id)))
    """,
    repeated("customer", mended=True),
    scenario=24,
)

# --- duplicate-statement ----------------------------------------------------------------------------------------------

add(
    "duplicate-loop",
    """
    def run(session):
        found = []
        for number in range(n):
            rate = session.scalar(select(Region.name).where(Region.id == 1))  # site
            found.append((number, rate))
        return found
    """,
    duplicate("region"),
    scenario=14,
)
add(
    "duplicate-loop-core",
    """
    def run(session):
        found = []
        for number in range(n):
            found.append(session.execute(text("SELECT name FROM region WHERE id = :id"), {"id": 1}).scalar_one())  # site
        return found
    """,
    duplicate("region"),
    scenario=14,
)
add(
    "duplicate-loop-query",
    """
    def run(session):
        found = []
        for number in range(n):
            found.append(session.query(Region).filter(Region.name == "region 1").one().id)  # site
        return found
    """,
    duplicate("region"),
    scenario=14,
)
add(
    "duplicate-settings-helper",
    """
    def setting(session, name):
        return session.scalars(select(Region).where(Region.name == name)).first()  # site

    def run(session):
        found = []
        for customer in session.scalars(select(Customer).where(Customer.id <= n)).all():
            found.append((customer.id, setting(session, "region 1").name))
        return sorted(found)
    """,
    duplicate("region"),
    scenario=14,
    shape="a settings table read for each row",
)
add(
    "duplicate-two-callers",
    """
    def by_name(session, name):
        return session.scalars(select(Customer).where(Customer.name == name)).one()  # site

    def authorise(session):
        assert by_name(session, "customer 1").id == 1

    def view(session):
        return by_name(session, "customer 1").email

    def run(session):
        authorise(session)
        return view(session)
    """,
    duplicate("customer", "2"),
    scenario=17,
    shape="FastAPI dependencies: the user is read by the guard, and again by the route",
)
add(
    "duplicate-two-lines",
    """
    def run(session):
        first = session.scalars(select(Customer).where(Customer.email == "1@x")).one().name  # site
        total = session.scalar(select(func.count(Order.id)))
        again = session.scalars(select(Customer).where(Customer.email == "1@x")).one().name
        return first, total, again
    """,
    duplicate("customer", "2"),
    scenario=14,
)
add(
    "duplicate-health-check",
    """
    def run(session):
        found = []
        for number in range(n):
            with new_session() as own:
                own.execute(text("SELECT 1"))  # site
                found.append(own.scalar(select(Customer.name).where(Customer.id == number + 1)))  # second
        return found
    """,
    duplicate("SELECT 1"),
    repeated("customer", site="second"),
    scenario=14,
    shape="the review's get_db(): a health check at the beginning of each session",
)

# --- column-load ------------------------------------------------------------------------------------------------------

add(
    "deferred-select",
    """
    def run(session):
        found = []
        for document in session.scalars(select(Document).where(Document.id <= n).order_by(Document.id)):  # origin
            found.append(document.body)  # site
        return found
    """,
    columns("Document.body"),
    scenario=21,
)
add(
    "deferred-query",
    """
    def run(session):
        found = []
        for document in session.query(Document).filter(Document.id <= n).order_by(Document.id):  # origin
            found.append(document.body)  # site
        return found
    """,
    columns("Document.body"),
    scenario=21,
)
add(
    "deferred-two-columns",
    """
    def run(session):
        found = []
        for document in session.scalars(select(Document).where(Document.id <= n).order_by(Document.id)).all():  # origin
            found.append(document.body)  # site
            found.append(document.summary)  # second
        return found
    """,
    columns("Document.body"),
    Expected("column-load", "Document.summary", "n", "second", "origin", mended=True),
    scenario=21,
)
add(
    "deferred-load-only",
    """
    def run(session):
        found = []
        for customer in session.scalars(select(Customer).where(Customer.id <= n).order_by(Customer.id).options(load_only(Customer.name))):  # origin
            found.append(customer.email)  # site
        return found
    """,
    columns("Customer.email"),
    scenario=21,
)
add(
    "deferred-defer-query",
    """
    def run(session):
        found = []
        for customer in session.query(Customer).filter(Customer.id <= n).order_by(Customer.id).options(defer(Customer.email)):  # origin
            found.append(customer.email)  # site
        return found
    """,
    columns("Customer.email"),
    scenario=21,
)
add(
    "subclass-columns",
    """
    def run(session):
        found = []
        for employee in session.scalars(select(Employee).where(Employee.id <= n).order_by(Employee.id)):  # origin
            found.append(employee.grade)  # site
        return found
    """,
    columns("Manager.grade"),
    scenario=21,
)
add(
    "expired-commit",
    f"""
    def run(session):
        customers = session.scalars(select(Customer){WHERE}).all()
        session.commit()
        return [customer.name for customer in customers]  # site
    """,
    columns("Customer", origin=None),
    scenario=20,
    least=3,
)
add(
    "expired-rollback",
    f"""
    def run(session):
        customers = session.query(Customer){FILTER}.all()
        session.commit()
        names = []
        for customer in customers:
            names.append(customer.name)  # site
        return names
    """,
    columns("Customer", origin=None),
    scenario=20,
    least=3,
)
add(
    "expired-created",
    """
    def run(session):
        made = [Region(name=str(i)) for i in range(n)]
        session.add_all(made)
        session.commit()
        return [region.name for region in made]  # site
    """,
    columns("Region", origin=None),
    scenario=20,
    least=3,
    writes=True,
)
add(
    "refresh-loop",
    f"""
    def run(session):
        found = []
        for customer in session.scalars(select(Customer){WHERE}).all():
            session.refresh(customer)  # site
            found.append(customer.name)
        return found
    """,
    columns("Customer", origin=None, mended=False),
    scenario=22,
)
add(
    "refresh-after-one-flush",
    """
    def run(session):
        made = [Region(name=str(i)) for i in range(n)]
        session.add_all(made)
        session.flush()
        for region in made:
            session.refresh(region)  # site
        return [region.name for region in made]
    """,
    columns("Region", origin=None, mended=False),
    scenario=22,
    least=3,
    writes=True,
)

# --- write-loop -------------------------------------------------------------------------------------------------------

WRITES = {
    "add-flush": ("region", "session.add(Region(name=str(number)))", "session.flush()"),
    "core-insert": ("region", "", "session.execute(insert(Region), {'name': str(number)})"),
    "core-values": ("region", "", "session.execute(insert(Region).values(name=str(number)))"),
    "core-update": ("customer", "", "session.execute(update(Customer).where(Customer.id == number).values(email='new'))"),
    "core-delete": ("note", "", "session.execute(delete(Note).where(Note.id == number))"),
    "text-update": ("customer", "", "session.execute(text('UPDATE customer SET email = :email WHERE id = :id'), {'email': 'new', 'id': number})"),
    "text-literal": ("customer", "", "session.execute(text(f\"UPDATE customer SET email = 'x' WHERE id = {number}\"))"),
    "query-update": ("customer", "", "session.query(Customer).filter(Customer.id == number).update({'email': 'new'})"),
    "query-delete": ("note", "", "session.query(Note).filter(Note.id == number).delete()"),
    "core-set": ("note", "", "session.execute(update(Note).where(Note.id == number).values(text='new', customer_id=2))"),
    "text-set": ("note", "", "session.execute(text('UPDATE note SET text = :text WHERE id = :id'), {'text': 'new', 'id': number})"),
    "query-set": ("note", "", "session.query(Note).filter(Note.id == number).update({'text': 'new'})"),
    "text-insert": ("note", "", "session.execute(text(f\"INSERT INTO note (customer_id, text) VALUES (1, '{number}')\"))"),
    "connection": ("region", "", "session.connection().execute(Region.__table__.insert(), {'name': str(number)})"),
}  # fmt: skip
for form, (label, before, statement) in WRITES.items():
    add(
        f"write-{form}",
        f"""
        def run(session):
            for number in range(1, n + 1):
                {before or "pass"}
                {statement}  # site
            return session.scalar(select(func.count(Customer.id)))
        """,
        writes(label),
        scenario=23,
        writes=True,
    )
add(
    "write-dirty-flush",
    f"""
    def run(session):
        for customer in session.scalars(select(Customer){WHERE}).all():
            customer.email = "new"
            session.flush()  # site
        return True
    """,
    writes("customer"),
    scenario=23,
    writes=True,
)
add(
    "write-delete-flush",
    """
    def run(session):
        for note in session.scalars(select(Note).where(Note.id <= n)).all():
            session.delete(note)
            session.flush()  # site
        return True
    """,
    writes("note"),
    scenario=23,
    writes=True,
)
add(
    "write-note-flush",
    """
    def run(session):
        for note in session.scalars(select(Note).where(Note.id <= n)).all():
            note.text = "new"
            session.flush()  # site
        return True
    """,
    writes("note"),
    scenario=23,
    writes=True,
)
add(
    "write-crud-create",
    """
    def create(session, name):
        made = Region(name=name)
        session.add(made)
        session.commit()  # site
        session.refresh(made)
        return made

    def run(session):
        return len([create(session, str(number)) for number in range(n)])
    """,
    writes("region"),
    scenario=22,
    writes=True,
    shape="full-stack-fastapi-template: crud.create() with commit and refresh, for each item",
)
add(
    "write-parent-then-child",
    """
    def run(session):
        for number in range(n):
            customer = Customer(name=str(number))
            session.add(customer)
            session.flush()  # site
            session.add(Note(customer_id=customer.id, text="made"))
            session.flush()  # second
        return True
    """,
    writes("customer"),
    writes("note", site="second"),
    scenario=23,
    writes=True,
    shape="the review's import: a flush for each parent, another for its child",
)

# --- row-explosion ----------------------------------------------------------------------------------------------------

add(
    "explosion-joinedload",
    f"""
    def run(session):
        found = session.scalars(select(Customer){WHERE}.options(joinedload(Customer.orders), joinedload(Customer.notes))).unique().all()  # origin
        return [(len(customer.orders), len(customer.notes)) for customer in found]
    """,
    explosion("Customer.notes Customer.orders"),
)
add(
    "explosion-query",
    f"""
    def run(session):
        found = session.query(Customer){FILTER}.options(joinedload(Customer.orders), joinedload(Customer.notes)).all()  # origin
        return [(len(customer.orders), len(customer.notes)) for customer in found]
    """,
    explosion("Customer.notes Customer.orders"),
)
add(
    "explosion-mapping",
    """
    def run(session):
        found = session.scalars(select(Wide).where(Wide.id <= n).order_by(Wide.id)).unique().all()  # origin
        return [(len(customer.orders), len(customer.notes)) for customer in found]
    """,
    explosion("Wide.notes Wide.orders"),
)
add(
    "explosion-three",
    f"""
    def run(session):
        found = session.scalars(select(Customer){WHERE}.options(joinedload(Customer.orders), joinedload(Customer.notes), joinedload(Customer.tags))).unique().all()  # origin
        return [(len(customer.orders), len(customer.notes), len(customer.tags)) for customer in found]
    """,
    explosion("Customer.notes Customer.orders Customer.tags"),
)
add(
    "explosion-contains-eager",
    f"""
    def run(session):
        found = session.scalars(select(Customer).outerjoin(Customer.orders).outerjoin(Customer.notes).options(contains_eager(Customer.orders), contains_eager(Customer.notes)){WHERE}).unique().all()  # origin
        return [(len(customer.orders), len(customer.notes)) for customer in found]
    """,
    explosion("Customer.notes Customer.orders", mended=False),
)

# --- written with async and await ---------------------------------------------------------------------------------------

add(
    "async-awaitable-attrs",
    f"""
    async def run(session):
        found = []
        for customer in (await session.scalars(select(Customer){WHERE})).all():  # origin
            found.append(len(await customer.awaitable_attrs.orders))  # site
        return found
    """,
    lazy("Customer.orders"),
    scenario=4,
    asynchronous=True,
)
add(
    "async-awaitable-attrs-helper",
    f"""
    async def row(customer):
        orders = await customer.awaitable_attrs.orders  # site
        region = await customer.awaitable_attrs.region  # second
        return len(orders), region.name

    async def run(session):
        customers = (await session.execute(select(Customer){WHERE})).scalars().all()  # origin
        return [await row(customer) for customer in customers]
    """,
    lazy("Customer.orders"),
    lazy("Customer.region", site="second"),
    scenario=4,
    asynchronous=True,
    shape="the review's flows: children awaited one by one",
)
add(
    "async-get-loop",
    """
    async def run(session):
        found = []
        for number in range(1, n + 1):
            found.append((await session.get(Customer, number)).name)  # site
        return found
    """,
    repeated("customer", mended=True),
    scenario=11,
    asynchronous=True,
)
add(
    "async-count-loop",
    """
    async def count(session, number):
        return await session.scalar(select(func.count(Order.id)).where(Order.customer_id == number))  # site

    async def run(session):
        return [await count(session, number) for number in range(1, n + 1)]
    """,
    repeated("orders", mended=True),
    scenario=12,
    asynchronous=True,
)
add(
    "async-flush-loop",
    """
    async def run(session):
        for number in range(n):
            session.add(Region(name=str(number)))
            await session.flush()  # site
        return n
    """,
    writes("region"),
    scenario=23,
    asynchronous=True,
    writes=True,
)
add(
    "async-gather-sessions",
    """
    async def lookup(number):
        async with new_async_session() as own:
            return (await own.get(Customer, number)).name  # site

    async def run(session):
        return list(await asyncio.gather(*(lookup(number) for number in range(1, n + 1))))
    """,
    repeated("customer", mended=True),
    scenario=18,
    least=10,
    asynchronous=True,
)
add(
    "async-two-sessions",
    f"""
    async def orders():
        async with new_async_session() as own:
            found = []
            for customer in (await own.scalars(select(Customer){WHERE})).all():  # origin
                found.append(len(await customer.awaitable_attrs.orders))  # site
            return found

    async def notes():
        async with new_async_session() as own:
            found = []
            for customer in (await own.scalars(select(Customer){WHERE})).all():  # other origin
                found.append(len(await customer.awaitable_attrs.notes))  # second
            return found

    async def run(session):
        return await asyncio.gather(orders(), notes())
    """,
    lazy("Customer.orders"),
    lazy("Customer.notes", site="second", origin="other origin"),
    scenario=19,
    asynchronous=True,
)
add(
    "clean-async-gather",
    """
    async def ask(statement):
        async with new_async_session() as own:
            return await own.scalar(statement)

    async def run(session):
        return await asyncio.gather(
            ask(select(func.count(Customer.id))), ask(select(func.count(Order.id))), ask(select(func.count(Note.id))),
        )
    """,
    scenario=19,
    asynchronous=True,
)
add(
    "clean-async-two-lookups",
    """
    async def name(number):
        async with new_async_session() as own:
            return await own.scalar(select(Customer.name).where(Customer.id == number))

    async def run(session):
        return await asyncio.gather(name(1), name(2))
    """,
    scenario=19,
    asynchronous=True,
)
add(
    "clean-async-ahead",
    f"""
    async def run(session):
        customers = (await session.scalars(select(Customer).options(selectinload(Customer.orders)){WHERE})).all()
        return [len(await customer.awaitable_attrs.orders) for customer in customers]
    """,
    scenario=4,
    asynchronous=True,
)
add(
    "clean-async-stream",
    f"""
    async def run(session):
        return [name async for name in await session.stream_scalars(select(Customer.name){WHERE})]
    """,
    scenario=30,
    asynchronous=True,
)
add(
    "clean-async-await-in-sequence",
    """
    async def run(session):
        first = await session.get(Customer, 1)
        second = await session.get(Customer, 2)
        return first.name, second.name
    """,
    scenario=9,
    asynchronous=True,
)
