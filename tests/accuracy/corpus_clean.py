"""The clean half of the corpus: what looks like a fault and is none."""

from __future__ import annotations

from corpus_programs import FILTER, WHERE, add

# --- loaded ahead, in each way ------------------------------------------------------------------------------------------

AHEAD = {
    "selectinload": f"session.scalars(select(Customer).options(selectinload(Customer.orders)){WHERE})",
    "joinedload": f"session.scalars(select(Customer).options(joinedload(Customer.orders)){WHERE}).unique()",
    "subqueryload": f"session.scalars(select(Customer).options(subqueryload(Customer.orders)){WHERE})",
    "contains-eager": f"session.scalars(select(Customer).join(Customer.orders).options(contains_eager(Customer.orders)){WHERE}).unique()",
    "raiseload": f"session.scalars(select(Customer).options(selectinload(Customer.orders), raiseload('*')){WHERE})",
    "query-selectinload": f"session.query(Customer).options(selectinload(Customer.orders)){FILTER}",
    "query-joinedload": f"session.query(Customer).options(joinedload(Customer.orders)){FILTER}",
    "query-subqueryload": f"session.query(Customer).options(subqueryload(Customer.orders)){FILTER}.all()",
    "mapping": "session.scalars(select(Ahead).where(Ahead.id <= n).order_by(Ahead.id))",
    "yield-per": f"session.scalars(select(Customer).options(selectinload(Customer.orders)){WHERE}.execution_options(yield_per=10))",
    "partitions": f"[c for part in session.scalars(select(Customer).options(selectinload(Customer.orders)){WHERE}).partitions(10) for c in part]",
    "from-statement": "session.scalars(select(Customer).options(selectinload(Customer.orders)).from_statement(text('SELECT * FROM customer WHERE id <= :n ORDER BY id').bindparams(n=n)))",
}  # fmt: skip
SCENARIOS = {"mapping": 5, "selectinload": 5, "yield-per": 6, "partitions": 6}
for form, parents in AHEAD.items():
    add(
        f"clean-{form}",
        f"""
        def run(session):
            found = []
            for customer in {parents}:
                found.append([order.amount for order in customer.orders])
            return found
        """,
        scenario=SCENARIOS.get(form, 7),
    )

CLEAN = {
    # name: (scenario, body of run(session) or whole source, options)
    "chain-ahead": (8, f"""
        customers = session.scalars(select(Customer).options(selectinload(Customer.orders).selectinload(Order.lines)){WHERE})
        return [len(order.lines) for customer in customers for order in customer.orders]
    """),
    "chain-ahead-mixed": (8, f"""
        customers = session.scalars(select(Customer).options(selectinload(Customer.orders).joinedload(Order.billing)){WHERE})
        return [order.billing.city for customer in customers for order in customer.orders]
    """),
    "m2o-joined": (2, """
        orders = session.scalars(select(Order).options(joinedload(Order.customer)).where(Order.id <= n).order_by(Order.id))
        return [order.customer.name for order in orders]
    """),
    "m2o-one-target": (2, """
        orders = session.scalars(select(Order).where(Order.customer_id == 1).order_by(Order.id))
        return [order.customer.name for order in orders]
    """),
    "m2o-preloaded": (3, f"""
        kept = session.scalars(select(Region)).all()
        return len(kept), [customer.region.name for customer in session.scalars(select(Customer){WHERE})]
    """),
    "many-chunks": (5, """
        session.execute(insert(Customer), [dict(id=10_000 + i, name=str(i), email="") for i in range(600)])
        customers = session.scalars(select(Customer).where(Customer.id >= 10_000).options(selectinload(Customer.orders).selectinload(Order.lines)))
        return sum(len(customer.orders) for customer in customers)
    """),
    "two-unrelated": (9, """
        first = session.scalars(select(Customer).where(Customer.name == "customer 1")).one()
        found = [len(first.orders)]
        second = session.scalars(select(Customer).where(Customer.email == "2@x")).one()
        return [*found, len(second.orders)]
    """),
    "one-read-twice": (10, """
        customer = session.get(Customer, 1)
        return [len(customer.orders) for _ in range(n)]
    """),
    "one-parent": (10, """
        customer = session.scalars(select(Customer).where(Customer.id == 1)).one()
        return len(customer.orders), len(customer.notes), customer.region.name
    """),
    "get-again": (11, """
        kept = session.scalars(select(Customer).where(Customer.id <= n)).all()
        return len(kept), [session.get(Customer, number).name for number in range(1, n + 1)]
    """),
    "get-one-again": (11, """
        first = session.get(Customer, 1)
        return [session.get(Customer, 1).name for _ in range(n)], first.name
    """),
    "same-shape-two-lines": (14, """
        sender = session.get(Customer, 1)
        receiver = session.get(Customer, 2)
        return sender.name, receiver.name
    """),
    "same-select-two-lines": (14, """
        first = session.scalar(select(Customer.name).where(Customer.id == 1))
        second = session.scalar(select(Customer.name).where(Customer.id == 2))
        return first, second
    """),
    "in-list": (16, """
        return session.scalars(select(Customer.name).where(Customer.id.in_(range(1, n + 1))).order_by(Customer.id)).all()
    """),
    "in-chunks": (16, """
        ids, found = list(range(1, 121)), []
        for start in range(0, len(ids), 50):
            found += session.scalars(select(Order.id).where(Order.id.in_(ids[start:start + 50])).order_by(Order.id)).all()
        return found
    """),
    "in-chunks-strings": (16, """
        names, found = [f"customer {i}" for i in range(1, 151)], []
        for start in range(0, len(names), 60):
            found += session.scalars(select(Customer.id).where(Customer.name.in_(names[start:start + 60])).order_by(Customer.id)).all()
        return found
    """),
    "in-chunks-with-filter": (16, """
        ids, found = list(range(1, 121)), []
        for start in range(0, len(ids), 55):
            found += session.scalars(select(Order.id).where(Order.amount > 0, Order.id.in_(ids[start:start + 55])).order_by(Order.id)).all()
        return found
    """),
    "offset-pages": (15, """
        found, page = [], 0
        while True:
            rows = session.scalars(select(Order.id).order_by(Order.id).limit(30).offset(30 * page)).all()
            if not rows:
                return found
            found += rows
            page += 1
    """),
    "offset-pages-objects": (15, """
        found = []
        for page in range(4):
            found += [order.id for order in session.query(Order).order_by(Order.id).limit(10).offset(10 * page)]
        return found
    """),
    "offset-pages-for": (15, """
        found = []
        for start in range(0, 40, 4):
            found += session.scalars(select(Order.id).where(Order.amount > 0).order_by(Order.id).limit(4).offset(start)).all()
        return found
    """),
    "keyset-up": (15, """
        found, last = [], 0
        while rows := session.scalars(select(Order.id).where(Order.id > last).order_by(Order.id).limit(25)).all():
            found += rows
            last = rows[-1]
        return found
    """),
    "keyset-down": (15, """
        found, last = [], 1000
        while rows := session.scalars(select(Order.id).where(Order.id < last).order_by(Order.id.desc()).limit(25)).all():
            found += rows
            last = rows[-1]
        return found
    """),
    "keyset-composite": (15, """
        found, amount, last = [], 0, 0
        while True:
            after = or_(Order.amount > amount, and_(Order.amount == amount, Order.id > last))
            rows = session.execute(select(Order.amount, Order.id).where(after).order_by(Order.amount, Order.id).limit(40)).all()
            if not rows:
                return found
            found += [tuple(row) for row in rows]
            amount, last = rows[-1]
    """),
    "keyset-tuple": (15, """
        found, amount, last = [], 0, 0
        while rows := session.execute(select(Order.amount, Order.id).where(tuple_(Order.amount, Order.id) > tuple_(amount, last)).order_by(Order.amount, Order.id).limit(40)).all():
            found += [tuple(row) for row in rows]
            amount, last = rows[-1]
        return found
    """),
    "keyset-text-keys": (15, """
        found, last = [], ""
        while rows := session.scalars(select(Customer.name).where(Customer.name > last).order_by(Customer.name).limit(20)).all():
            found += rows
            last = rows[-1]
        return found
    """),
    "walk-twice": (15, """
        found = []
        for _ in range(2):
            for page in range(3):
                found += session.scalars(select(Order.id).order_by(Order.id).limit(30).offset(30 * page)).all()
        return found
    """),
    "refresh-after-write": (22, """
        found = []
        for number in range(n):
            made = kept(Region(name=str(number)))
            session.add(made)
        session.flush()
        session.refresh(made)
        return made.name
    """, "writes"),
    "update-refresh": (22, """
        region = session.get(Region, 1)
        region.name = "other"
        session.flush()
        session.refresh(region)
        return region.name
    """, "writes"),
    "refresh-one-selectin": (22, """
        customer = session.get(Ahead, 1)
        session.refresh(customer)
        return len(customer.orders)
    """),
    "refresh-selectin-thrice": (22, """
        first = session.get(Ahead, 1)
        session.refresh(first)
        second = session.get(Ahead, 2)
        return len(first.orders), len(second.orders)
    """),
    "commit-then-two": (20, """
        customers = session.scalars(select(Customer).where(Customer.id <= 2).order_by(Customer.id)).all()
        session.commit()
        return [customer.name for customer in customers]
    """),
    "commit-then-one": (20, """
        customer = session.get(Customer, 1)
        session.commit()
        return customer.name
    """),
    "deferred-undefer": (21, """
        documents = session.scalars(select(Document).options(undefer(Document.body)).where(Document.id <= n).order_by(Document.id))
        return [document.body for document in documents]
    """),
    "deferred-one": (21, """
        return session.get(Document, 1).body
    """),
    "deferred-unread": (21, """
        return [document.title for document in session.scalars(select(Document).where(Document.id <= n).order_by(Document.id))]
    """),
    "load-only-read": (21, f"""
        return [customer.name for customer in session.scalars(select(Customer).options(load_only(Customer.name)){WHERE})]
    """),
    "subclass-polymorphic": (21, """
        employees = session.scalars(select(Employee).options(selectin_polymorphic(Employee, [Manager])).where(Employee.id <= n).order_by(Employee.id))
        return [employee.grade for employee in employees]
    """),
    "subclass-with-polymorphic": (21, """
        everyone = with_polymorphic(Employee, [Manager])
        return [employee.grade for employee in session.scalars(select(everyone).where(everyone.id <= n).order_by(everyone.id))]
    """),
    "subclass-direct": (29, """
        return [manager.grade for manager in session.scalars(select(Manager).where(Manager.id <= n).order_by(Manager.id))]
    """),
    "add-all": (23, """
        session.add_all(Region(name=str(i)) for i in range(n))
        session.flush()
        return session.scalar(select(func.count(Region.id)))
    """, "writes"),
    "add-all-many": (23, """
        session.add_all(Region(name=str(i)) for i in range(3000))
        session.flush()
        return session.scalar(select(func.count(Region.id)))
    """, "writes"),
    "add-loop-one-flush": (23, """
        for number in range(n):
            session.add(Region(name=str(number)))
        session.commit()
        return session.scalar(select(func.count(Region.id)))
    """, "writes"),
    "executemany": (23, """
        session.execute(insert(Region), [{"name": str(number)} for number in range(n)])
        return session.scalar(select(func.count(Region.id)))
    """, "writes"),
    "multi-values": (23, """
        session.execute(insert(Region).values([{"name": str(number)} for number in range(n)]))
        return session.scalar(select(func.count(Region.id)))
    """, "writes"),
    "bulk-update": (23, """
        session.execute(update(Customer), [{"id": number, "email": "new"} for number in range(1, n + 1)])
        return session.scalar(select(func.count(Customer.id)).where(Customer.email == "new"))
    """, "writes"),
    "update-where": (23, """
        session.execute(update(Customer).where(Customer.id <= n).values(email="new"))
        return session.scalar(select(func.count(Customer.id)).where(Customer.email == "new"))
    """, "writes"),
    "dirty-one-flush": (23, f"""
        for customer in session.scalars(select(Customer){WHERE}):
            customer.email = "new"
        session.flush()
        return session.scalar(select(func.count(Customer.id)).where(Customer.email == "new"))
    """, "writes"),
    "delete-one-flush": (23, """
        for note in session.scalars(select(Note).where(Note.id <= n)):
            session.delete(note)
        session.flush()
        return session.scalar(select(func.count(Note.id)))
    """, "writes"),
    "batches": (23, """
        for start in range(0, 300, 100):
            session.execute(insert(Region), [{"name": str(start + number)} for number in range(100)])
        return session.scalar(select(func.count(Region.id)))
    """, "writes"),
    "batches-of-objects": (23, """
        for start in range(0, 300, 100):
            session.add_all(Region(name=str(start + number)) for number in range(100))
            session.flush()
        return session.scalar(select(func.count(Region.id)))
    """, "writes"),
    "one-insert-one-update": (23, """
        made = kept(Region(name="one"))
        session.add(made)
        session.flush()
        made.name = "other"
        session.flush()
        return session.scalar(select(func.count(Region.id)))
    """, "writes"),
    "different-statements": (19, """
        return [
            session.scalar(select(func.count(Customer.id))),
            session.scalar(select(func.count(Order.id))),
            session.scalar(select(func.count(Note.id))),
            session.scalar(select(func.count(Tag.id))),
        ]
    """),
    "tables-in-loop": (19, """
        return [session.scalar(select(func.count()).select_from(table)) for table in (Customer, Order, Note, Tag)]
    """),
    "savepoints": (25, """
        for number in range(n):
            with session.begin_nested():
                pass
        return session.scalar(select(func.count(Region.id)))
    """),
    "reflect": (25, """
        names = sa.inspect(session.connection()).get_table_names()
        for name in names:
            sa.inspect(session.connection()).get_columns(name)
        return sorted(names)
    """),
    "dynamic-once": (26, """
        customer = session.get(Customer, 1)
        return customer.stream.count(), len(session.scalars(customer.ledger.select()).all())
    """),
    "with-parent-once": (26, """
        customer = session.get(Customer, 1)
        return len(session.scalars(select(Order).where(with_parent(customer, Customer.orders))).all())
    """),
    "grouped-count": (26, """
        return [tuple(row) for row in session.execute(select(Order.customer_id, func.count()).where(Order.customer_id <= n).group_by(Order.customer_id).order_by(Order.customer_id))]
    """),
    "children-recursive-ahead": (28, """
        def walk(node, depth=0):
            return 1 + (sum(walk(child, depth + 1) for child in node.children) if depth < 5 else 0)

        return walk(session.scalars(select(Node).where(Node.id == 1).options(selectinload(Node.children, recursion_depth=-1))).one())
    """),
    "parent-of-parent": (28, """
        return session.get(Node, 31).parent.parent.id
    """),
    "recursive-cte": (28, """
        up = select(Node.id, Node.parent_id).where(Node.id == 1000 + n).cte("up", recursive=True)
        up = up.union_all(select(Node.id, Node.parent_id).where(Node.id == up.c.parent_id))
        return sorted(session.scalars(select(up.c.id)).all())
    """),
    "new-collections": (29, """
        made = [Customer(name=str(i)) for i in range(n)]
        for customer in made:
            customer.orders.append(Order(amount=1))
        return [len(customer.orders) for customer in made]
    """),
    "new-flushed": (29, """
        made = [Customer(name=str(i), orders=[Order(amount=1)]) for i in range(n)]
        session.add_all(made)
        session.flush()
        return [len(customer.orders) for customer in made]
    """, "writes"),
    "null-keys": (29, """
        session.execute(update(Customer).values(region_id=None))
        return [customer.region for customer in session.scalars(select(Customer).where(Customer.id <= n))]
    """, "writes"),
    "backref": (29, f"""
        customers = session.scalars(select(Customer).options(selectinload(Customer.orders)){WHERE}).all()
        return [order.customer.name for customer in customers for order in customer.orders]
    """),
    "scalar-subquery": (13, """
        count = select(func.count(Order.id)).where(Order.customer_id == Customer.id).scalar_subquery()
        return [tuple(row) for row in session.execute(select(Customer.name, count).where(Customer.id <= n).order_by(Customer.id))]
    """),
    "stream": (30, f"""
        return [name for name in session.scalars(select(Customer.name){WHERE}.execution_options(stream_results=True, max_row_buffer=2))]
    """),
    "failing-statement": (30, """
        for number in range(n):
            try:
                with session.begin_nested():
                    session.execute(text("SELECT missing FROM nowhere"))
            except sa.exc.DBAPIError:
                pass
        return session.scalar(select(func.count(Region.id)))
    """),
    "savepoint-rollback": (30, """
        with session.begin_nested() as point:
            session.add(Region(name="gone"))
            session.flush()
            point.rollback()
        return session.scalar(select(func.count(Region.id)))
    """, "writes"),
    "comment-prefix": (30, """
        return session.execute(text("/* app:web */ SELECT name FROM customer WHERE id = :id"), {"id": 1}).scalar_one()
    """),
    "one-collection-joined": (7, f"""
        customers = session.scalars(select(Customer).options(joinedload(Customer.orders), selectinload(Customer.notes)){WHERE}).unique()
        return [(len(customer.orders), len(customer.notes)) for customer in customers]
    """),
    "chain-joined": (7, f"""
        customers = session.scalars(select(Customer).options(joinedload(Customer.orders).joinedload(Order.lines)){WHERE}).unique()
        return [sum(len(order.lines) for order in customer.orders) for customer in customers]
    """),
    "collection-and-references": (7, f"""
        customers = session.scalars(select(Customer).options(joinedload(Customer.orders), joinedload(Customer.region), joinedload(Customer.profile)){WHERE}).unique()
        return [(len(customer.orders), customer.region.name) for customer in customers]
    """),
    "collection-chain-branches": (7, f"""
        customers = session.scalars(select(Customer).options(joinedload(Customer.orders).options(joinedload(Order.billing), joinedload(Order.lines))){WHERE}).unique()
        return [sum(len(order.lines) for order in customer.orders) for customer in customers]
    """),
    "joins-for-filter": (7, """
        return session.scalars(select(Customer.id).join(Customer.orders).join(Customer.notes).where(Order.id <= n).distinct().order_by(Customer.id)).all()
    """),
    "queue-worker": (14, """
        done = 0
        while job := session.scalars(select(Job).where(Job.status == "new", Job.id <= n).order_by(Job.id).limit(1)).first():
            session.execute(update(Job).where(Job.id <= n, Job.id >= job.id).values(status="done"))
            done += 1
        return done
    """, "writes"),
    "write-between-reads": (14, """
        before = session.scalar(select(func.sum(Order.amount)))
        session.execute(update(Order).where(Order.id == 1).values(amount=1000))
        return before, session.scalar(select(func.sum(Order.amount)))
    """, "writes"),
    "sessions-each-same-lookup": (17, """
        def request():
            return authenticate()

        def authenticate():
            with new_session() as own:
                return own.scalar(select(Customer.name).where(Customer.id == 1))

        return [call() for call in [request] * 3]
    """),
    "requests-in-scopes": (17, """
        def request(number):
            with sqlprobe.scope("GET /orders", kind="request"), new_session() as own:
                user = own.scalar(select(Customer.name).where(Customer.id == 1))
                return user, own.scalar(select(Order.amount).where(Order.id == number))

        return [request(number) for number in range(1, n + 1)]
    """),
    "first-and-count": (13, """
        newest = session.scalars(select(Order).order_by(Order.id.desc()).limit(1)).one()
        oldest = session.scalars(select(Order).order_by(Order.id).limit(1)).one()
        return newest.id, oldest.id, session.scalar(select(func.count(Order.id)))
    """),
    "cached-lookup": (14, """
        cache = {}
        found = []
        for number in range(n):
            if "region" not in cache:
                cache["region"] = session.scalar(select(Region.name).where(Region.id == 1))
            found.append(cache["region"])
        return found
    """),
    "identity-map-query": (11, """
        kept = {customer.id: customer for customer in session.scalars(select(Customer).where(Customer.id <= n))}
        orders = session.scalars(select(Order).where(Order.customer_id <= n).order_by(Order.id))
        return [order.customer.name for order in orders], len(kept)
    """),
    "loop-that-ends": (12, """
        for number in range(1, n + 1):
            if (found := session.get(Customer, number)) is not None:
                return found.name
    """),
    "try-in-loop": (12, """
        for attempt in range(3):
            try:
                return session.scalar(select(func.count(Order.id)))
            except sa.exc.OperationalError:
                session.rollback()
    """),
    "branches": (12, """
        found = []
        for number in range(n):
            if number == 0:
                found.append(session.scalar(select(Customer.name).where(Customer.id == 1)))
            elif number == 1:
                found.append(session.scalar(select(Customer.name).where(Customer.id == 2)))
        return found
    """),
    "bulk-get-then-walk": (11, """
        orders = session.scalars(select(Order).where(Order.id <= n).order_by(Order.id)).all()
        customers = {c.id: c for c in session.scalars(select(Customer).where(Customer.id.in_({o.customer_id for o in orders})))}
        return [customers[order.customer_id].name for order in orders]
    """),
    "lock-rows": (14, """
        first = session.scalars(select(Job).where(Job.id == 1).with_for_update()).one()
        second = session.scalars(select(Job).where(Job.id == 1).with_for_update()).one()
        return first is second
    """),
    "setting-between": (25, """
        command = "SET application_name = 'tenant {}'" if session.get_bind().dialect.name == "postgresql" else "PRAGMA cache_size = {}"
        found = []
        for tenant in range(1, n + 1):
            session.execute(text(command.format(tenant)))
            found.append(session.scalar(select(func.count(Order.id))))
        return found
    """),
    "sequence": (25, """
        made = [kept(Region(name=str(i))) for i in range(n)]
        session.add_all(made)
        session.commit()
        return len(made)
    """, "writes"),
}  # fmt: skip
for name, (scenario, body, *options) in CLEAN.items():
    add(
        f"clean-{name}",
        f"""
def run(session):
{body}
""",
        scenario=scenario,
        writes="writes" in options,
    )
