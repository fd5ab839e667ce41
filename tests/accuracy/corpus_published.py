"""Programs shaped after what other people's projects had in their issues and changes: told anew on our tables."""

from __future__ import annotations

from corpus_programs import FILTER, WHERE, add, columns, duplicate, lazy, repeated, writes

# --- faults -------------------------------------------------------------------------------------------------------------

add(
    "published-count-property",
    f"""
    class Team:
        def __init__(self, customer):
            self.customer = customer

        @property
        def size(self):
            session = object_session(self.customer)
            return session.query(func.count(Order.id)).filter(Order.customer_id == self.customer.id).scalar() or 0  # site

    def run(session):
        teams = [Team(customer) for customer in session.query(Customer){FILTER}.all()]
        shown = []
        for team in teams:
            shown.append((team.customer.name, team.size))
        return shown
    """,
    repeated("orders"),
    scenario=26,
    shape="IBM/mcp-context-forge#1892: EmailTeam.get_member_count() for each team of the page",
)
add(
    "published-count-helper",
    f"""
    def files_of(session, number):
        return session.query(func.count(Note.id)).filter(Note.customer_id == number).scalar()  # site

    def run(session):
        items = []
        for project in session.query(Customer){FILTER}.limit(100):
            items.append(dict(name=project.name, files=files_of(session, project.id)))
        return items
    """,
    repeated("note"),
    scenario=12,
    shape="kellyson520/docshop#8: _get_project_file_count() for each project of the list",
)
add(
    "published-two-levels",
    f"""
    def run(session):
        overview = []
        for project in session.scalars(select(Customer){WHERE}).all():  # origin
            flights = project.orders  # site
            products = sum(len(flight.lines) for flight in flights)  # second
            overview.append((project.name, len(flights), products, max((flight.amount for flight in flights), default=0)))
        return overview
    """,
    lazy("Customer.orders"),
    lazy("Order.lines", "2 * n", site="second"),
    scenario=8,
    shape="gdslab/data-to-science#266: flights, and the data products of each, counted in Python",
)
add(
    "published-aggregates",
    """
    def run(session):
        found = {}
        ids = list(range(1, n + 1))
        projects = session.execute(text("SELECT id, name FROM customer WHERE id <= :n ORDER BY id"), {"n": n}).all()
        for project in projects:
            row = session.execute(  # site
                text("SELECT COUNT(*) AS sessions, COALESCE(SUM(amount), 0) AS spent FROM orders WHERE customer_id = :project"),
                {"project": project.id},
            ).one()
            found[project.name] = (int(row.sessions), int(row.spent))
        return found, len(ids)
    """,
    repeated("orders"),
    scenario=13,
    shape="bitflicker64/Termstory#423: get_projects_by_ids() sums up each project's sessions",
)
add(
    "published-resolvers",
    f"""
    def resolve(parent, field):
        value = getattr(parent, field)  # site
        return value

    def execute(parents, fields):
        return [dict((field, str(resolve(parent, field).name)) for field in fields) for parent in parents]

    def run(session):
        return execute(session.query(Customer){FILTER}.all(), ["region"])  # origin
    """,
    lazy("Customer.region"),
    scenario=27,
    shape="graphql-python/graphene-sqlalchemy#35: the default resolver reads a relationship of each row",
)
add(
    "published-index-ids",
    f"""
    def document(record):
        return dict(
            did=record.id,
            urls=[order.amount for order in record.orders],  # site
            hashes=dict((note.id, note.text) for note in record.notes),  # second
        )

    def run(session):
        query = session.query(Customer){FILTER}
        query = query.filter(Customer.id > 0).limit(1000)
        return [document(record) for record in query]  # origin
    """,
    lazy("Customer.orders", mended=False),
    lazy("Customer.notes", site="second", mended=False),
    scenario=7,
    shape="uc-cdis/indexd#160: ids() reads urls and hashes of each record",
)
add(
    "published-response-parent",
    f"""
    class ParentOut(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(from_attributes=True)
        name: str

    class JobOut(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(from_attributes=True)
        id: int
        region: ParentOut | None

    JobOut.model_rebuild(_types_namespace=globals())

    def run(session):
        rows = session.scalars(select(Customer){WHERE}.limit(50)).all()  # origin
        return pydantic.TypeAdapter(list[JobOut]).validate_python(rows)[-1].model_dump()  # site
    """,
    lazy("Customer.region"),
    scenario=27,
    shape="omnivector-solutions/jobbergate#465: Pydantic reads the parent of each listed entry",
)
add(
    "published-many-to-many",
    f"""
    def to_dict(user):
        return dict(name=user.name, roles=sorted(tag.name for tag in user.tags))  # site

    def run(session):
        users = session.scalars(select(Customer){WHERE}).unique().all()  # origin
        return [to_dict(user) for user in users]
    """,
    lazy("Customer.tags"),
    scenario=1,
    shape="skyportal/skyportal#6133: the roles of each user of the list",
)
add(
    "published-audit-commit",
    f"""
    def run(session):
        blobs = session.scalars(select(Customer){WHERE}).all()
        session.add(Job(status="package_get"))
        session.commit()
        return sum(len(blob.name) for blob in blobs)  # site
    """,
    columns("Customer", origin=None),
    scenario=20,
    least=3,
    writes=True,
    shape="quiltdata/quilt#449: an audit event is committed, then the sizes of the blobs are read",
)
add(
    "published-commit-each",
    """
    def run(session):
        for number in range(n):
            for build in session.scalars(select(Customer.id).where(Customer.id == number + 1)):  # site
                session.add(Note(customer_id=build, text="release"))
            session.commit()  # second
        return True
    """,
    repeated("customer"),
    writes("note", site="second"),
    scenario=23,
    writes=True,
    shape="abrt/faf#555: a commit after each package",
)
add(
    "published-insert-each",
    """
    def insert_document(session, document):
        instance = Region(**document)
        session.add(instance)
        session.commit()  # site
        return instance.id

    def run(session):
        return len([insert_document(session, dict(name=str(number))) for number in range(n)])
    """,
    writes("region"),
    scenario=23,
    writes=True,
    shape="pyeve/eve-sqlalchemy#175: the documents of one request, committed one by one",
)
add(
    "published-set-extra",
    """
    def set_extra(session, job, value):
        job.runs = value
        session.add(job)
        session.commit()  # site

    def run(session):
        job = session.get(Job, 1)
        for number in range(1, n + 1):
            set_extra(session, job, number)
        return session.get(Job, 1).runs
    """,
    writes("job"),
    scenario=23,
    writes=True,
    shape="aiidateam/aiida-core#1456: set_extra() in a loop, with a commit each",
)
add(
    "published-base-site",
    """
    def base_site(location):
        while location.parent is not None:  # site
            location = location.parent
        return location

    def run(session):
        return base_site(session.scalars(select(Node).where(Node.id == 1000 + n)).one()).id  # origin
    """,
    lazy("Node.parent", mended=False),
    scenario=28,
    least=3,
    shape="nautobot/nautobot#4921: from a location up to its root, parent by parent",
)
add(
    "published-delete-each",
    """
    def delete_one(session, number):
        return session.execute(delete(Line).where(Line.id == number)).rowcount  # site

    def run(session):
        count = 0
        for number in range(1, n + 1):
            count += delete_one(session, number)
        return count
    """,
    writes("line"),
    scenario=23,
    writes=True,
    shape="fastapi-practices/fastapi-best-architecture#1177: database operations within loops",
)
add(
    "published-access-by-project",
    """
    def scopes_of(session, team):
        return session.scalars(select(Region).where(Region.id == 1)).one().name  # site

    def run(session):
        access = {}
        for team in range(n):
            access[team] = scopes_of(session, team)
        return access
    """,
    duplicate("region"),
    scenario=14,
    shape="getsentry/sentry#113879: the membership's organisation, read again for each project",
)
add(
    "published-unbatched-resolver",
    """
    async def articles_of(session, reporter):
        found = await session.scalars(select(Order).where(Order.customer_id == reporter.id).order_by(Order.id))  # site
        return [order.amount for order in found]

    async def run(session):
        reporters = (await session.scalars(select(Customer).where(Customer.id <= n).order_by(Customer.id))).all()
        return [await articles_of(session, reporter) for reporter in reporters]
    """,
    repeated("orders"),
    scenario=12,
    asynchronous=True,
    shape="graphql-python/graphene-sqlalchemy#350: async resolvers that ask for each parent",
)

# --- clean --------------------------------------------------------------------------------------------------------------

add(
    "published-clean-chunks-of-500",
    """
    def run(session):
        session.execute(insert(Customer), [dict(id=10_000 + i, name=str(i), email="") for i in range(1_100)])
        events = session.scalars(select(Ahead).order_by(Ahead.id)).all()
        return sum(len(event.orders) for event in events)
    """,
    scenario=5,
    writes=True,
    shape="OneGov/onegov-cloud#2575: 'technically a false positive': selectin asks for 500 at a time",
)
add(
    "published-clean-stream",
    """
    async def run(session):
        connection = await session.connection()
        found = []
        async with connection.stream(select(Customer.__table__.c.id).order_by(Customer.__table__.c.id)) as result:
            async for row in result:
                found.append(row.id)
        return found
    """,
    scenario=30,
    asynchronous=True,
    shape="getsentry/sentry-python#6576: the fetches of a server-side cursor were taken for an N+1",
)
add(
    "published-clean-readable-after-commit",
    f"""
    def run(session):
        session.expire_on_commit = False
        customers = session.scalars(select(Customer){WHERE}).all()
        session.add(Job(status="audited"))
        session.commit()
        return [customer.name for customer in customers]
    """,
    scenario=20,
    writes=True,
    shape="czpython/druks#322, jupyterhub/jupyterhub#1291: commits that keep loaded objects readable",
)
add(
    "published-clean-raiseload-template",
    f"""
    TEMPLATE = jinja2.Template("{{% for customer in customers %}}{{{{ customer.orders|length }}}} {{% endfor %}}")

    def run(session):
        customers = session.scalars(select(Customer).options(raiseload("*"), selectinload(Customer.orders)){WHERE}).all()
        return TEMPLATE.render(customers=customers)
    """,
    scenario=7,
    shape="pypi/warehouse#13311: raiseload for everything that a template does not need",
)
add(
    "published-clean-grouped-counts",
    f"""
    def run(session):
        projects = session.query(Customer){FILTER}.all()
        counts = dict(
            session.query(Note.customer_id, func.count(Note.id))
            .filter(Note.customer_id.in_([project.id for project in projects]))
            .group_by(Note.customer_id)
            .all()
        )
        return [dict(name=project.name, files=counts.get(project.id, 0)) for project in projects]
    """,
    scenario=12,
    shape="kellyson520/docshop#8: what mended it",
)
add(
    "published-clean-load-only",
    f"""
    class JobOut(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(from_attributes=True)
        id: int
        name: str

    def run(session):
        query = select(Customer).options(load_only(Customer.id, Customer.name, raiseload=True)){WHERE}
        return [JobOut.model_validate(row).model_dump() for row in session.scalars(query)]
    """,
    scenario=21,
    shape="omnivector-solutions/jobbergate#465: load_only(raiseload=True) mended it",
)
add(
    "published-clean-path-to-root",
    """
    def run(session):
        step = select(Node.id, Node.parent_id).where(Node.id == 1000 + n).cte(recursive=True)
        step = step.union_all(select(Node.id, Node.parent_id).join(step, Node.id == step.c.parent_id))
        return sorted(session.scalars(select(step.c.id)))
    """,
    scenario=28,
    shape="uralbash/sqlalchemy_mptt#46: the whole way to the root with one query",
)
add(
    "published-clean-flush-each-thousand",
    """
    def run(session):
        for number in range(1, 1_001):
            session.add(Region(name=str(number)))
            if number % 250 == 0:
                session.flush()
        return True
    """,
    scenario=23,
    writes=True,
    shape="abrt/faf#555: 'what about to call flush after 1000 iterations?'",
)
