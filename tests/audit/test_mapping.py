# ruff: noqa: N806 - classes that a test makes
from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import sqlalchemy as sa
from pgvector.sqlalchemy import Vector
from sqlalchemy.orm import DeclarativeBase, Session, deferred, mapped_column, relationship

from sqlprobe.audit import mapping
from sqlprobe.audit.options import Options
from sqlprobe.audit.seen import Seen
from sqlprobe.model import Finding, Fix
from sqlprobe.report import Report

APPS = Path(__file__).parent / "apps"
STYLE = Options(enabled=frozenset({"enum-and-check"}))


def check(rule, *things, options=None, report=None):
    models = things[0] if isinstance(things[0], mapping.Models) else mapping.models_of(*things)
    found = mapping.CHECKS[rule](models, Seen(report), options or Options())
    return list(found)


def labels(rule, *things, **more):
    return [(each.severity, each.label) for each in check(rule, *things, **more)]


def new_base(schema=None):
    class Base(DeclarativeBase):
        metadata = sa.MetaData(schema=schema)

    return Base


# --- the review -------------------------------------------------------------------------------------------------------


def test_reviewed_models_have_the_faults_of_the_review(load_app, told):
    found = mapping.check(load_app("reviewed"), Seen(), STYLE)

    assert [
        ("cascade-mismatch", "info", "Asset.dependencies"),
        ("cascade-mismatch", "info", "Asset.tags"),
        ("cascade-mismatch", "warning", "MasterFlow.discovery_flows"),
        ("eager-loading", "warning", "DiscoveryFlow.assets"),
        ("eager-loading", "warning", "DiscoveryFlow.children"),
        ("enum-and-check", "info", "enums"),  # 6.4
        ("foreign-key-target", "warning", "migration.crewai_flow_state_extensions.flow_id"),  # 4.1
        ("mixed-schema-names", "info", "migration"),  # 1.3
        ("over-indexed-table", "info", "migration.llm_usage_logs"),  # 5.2.1
        ("redundant-index", "info", "migration.ix_assets_client"),
        ("redundant-index", "info", "migration.ix_migration_agent_discovered_patterns_pattern_id"),
        ("redundant-index", "warning", "migration.ix_migration_assets_client_account_id"),
        ("relationship-loading", "info", "relationships"),  # 4.3
        ("tenant-hierarchy", "warning", "migration.assets"),  # 2.2
        ("tenant-hierarchy", "warning", "migration.assets"),
        ("tenant-hierarchy", "warning", "migration.crewai_flow_state_extensions"),
        ("tenant-hierarchy", "warning", "migration.discovery_flows"),
        ("tenant-hierarchy", "warning", "migration.discovery_flows"),
        ("undeferred-column", "info", "AgentMemory.embedding"),
        ("undeferred-column", "info", "Pattern.embedding"),
        ("unindexed-foreign-key", "info", "migration.asset_dependencies"),
        ("unindexed-foreign-key", "info", "migration.assets"),
        ("unlinked-relationships", "warning", "Asset.tags"),
        ("vector-dimensions", "info", "embedding"),  # 3.4
    ] == told(found)


def test_corrected_models_have_none(load_app, told):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        models = load_app("corrected")

    assert [] == told(mapping.check(models, Seen(), STYLE))


def test_a_finding_points_at_the_line_of_the_model(load_app):
    (found,) = [each for each in check("eager-loading", load_app("reviewed")) if each.label == "DiscoveryFlow.assets"]

    source = (APPS / "reviewed.py").read_text().splitlines()
    assert "DiscoveryFlow.assets" == found.site.function
    assert source[found.site.line - 1].startswith("    assets: Mapped")


# --- schema names -----------------------------------------------------------------------------------------------------


def test_names_without_schema_that_find_another_table_are_an_error():
    metadata = sa.MetaData()
    sa.Table("accounts", metadata, sa.Column("id", sa.Integer, primary_key=True))
    sa.Table("accounts", metadata, sa.Column("id", sa.Integer, primary_key=True), schema="shop")
    sa.Table("orders", metadata, sa.Column("account_id", sa.ForeignKey("accounts.id")), schema="shop")

    assert [("error", "shop.orders.account_id")] == labels("mixed-schema-names", metadata)


def test_names_without_schema_that_find_no_table_are_an_error():
    metadata = sa.MetaData()
    sa.Table("accounts", metadata, sa.Column("id", sa.Integer, primary_key=True), schema="shop")
    sa.Table("orders", metadata, sa.Column("account_id", sa.ForeignKey("accounts.id")), schema="shop")

    assert [("error", "shop.orders.account_id")] == labels("mixed-schema-names", metadata)


def test_silent_on_names_that_are_spelt_alike():
    for spelling in ("accounts.id", "shop.accounts.id"):
        metadata = sa.MetaData(schema="shop")
        accounts = sa.Table("accounts", metadata, sa.Column("id", sa.Integer, primary_key=True))
        sa.Table("a", metadata, sa.Column("account_id", sa.ForeignKey(spelling)))
        sa.Table("b", metadata, sa.Column("account_id", sa.ForeignKey(spelling)))
        sa.Table("c", metadata, sa.Column("account_id", sa.ForeignKey(accounts.c.id)))

        assert [] == labels("mixed-schema-names", metadata)


# --- tenants ----------------------------------------------------------------------------------------------------------


class ScopeName(sa.types.TypeDecorator):
    impl = sa.String(25)
    cache_ok = True


def tenants(column="tenant_id", parent_nullable=False, composite=False, more=3, kind=sa.Integer):
    metadata = sa.MetaData()
    key = kind
    sa.Table("tenants", metadata, sa.Column("id", key, primary_key=True))
    for number in range(more):
        sa.Table(
            f"t{number}",
            metadata,
            sa.Column("id", key, primary_key=True),
            sa.Column(column, key, sa.ForeignKey("tenants.id"), nullable=False),
        )
    sa.Table(
        "projects",
        metadata,
        sa.Column("id", key, primary_key=True),
        sa.Column(column, key, sa.ForeignKey("tenants.id"), nullable=parent_nullable),
        sa.UniqueConstraint(column, "id"),
    )
    constraints = [
        sa.ForeignKeyConstraint([column, "project_id"], [f"projects.{column}", "projects.id"])
        if composite
        else sa.ForeignKeyConstraint(["project_id"], ["projects.id"])
    ]
    sa.Table(
        "tasks",
        metadata,
        sa.Column("id", key, primary_key=True),
        sa.Column(column, key, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("project_id", key),
        *constraints,
    )
    return metadata


def test_child_may_name_a_parent_of_another_tenant():
    (found,) = check("tenant-hierarchy", tenants())

    assert "tasks" == found.label
    assert (
        "# tasks, in __table_args__\n"
        'ForeignKeyConstraint(["tenant_id", "project_id"], ["projects.tenant_id", "projects.id"], '
        'name="fk_tasks_project_id_tenant")'
    ) == found.fixes[0].code


@pytest.mark.parametrize(
    ("metadata", "options"),
    [
        (tenants(composite=True), None),
        (tenants(parent_nullable=True), None),
        (tenants("author_id"), None),  # who wrote a comment need not have written the post
        (tenants("created_by"), None),
        (tenants("account"), None),
        (tenants("scope", kind=sa.String(25)), None),  # rows are called by it: (scope, name)
        (tenants("scope", kind=ScopeName), None),
        (tenants("customer_id", more=0), None),  # shared by two tables only
        (tenants(), Options(tenants=("other_id",))),
    ],
)
def test_silent_where_no_tenant_can_differ(metadata, options):
    assert [] == labels("tenant-hierarchy", metadata, options=options)


@pytest.mark.parametrize("column", ["client_account_id", "shop_id", "organization_id"])
def test_whose_a_row_is_is_guessed(column):
    assert [("warning", "tasks")] == labels("tenant-hierarchy", tenants(column))


def test_a_tenant_can_be_named():
    assert [("warning", "tasks")] == labels(
        "tenant-hierarchy", tenants("owner_id"), options=Options(tenants=("owner_id",))
    )


def test_silent_after_the_advice_on_tenants_is_followed():
    metadata = tenants()
    (found,) = check("tenant-hierarchy", metadata)
    code = found.fixes[0].code.split("\n")[1]
    metadata.tables["tasks"].append_constraint(eval(code, {"ForeignKeyConstraint": sa.ForeignKeyConstraint}))

    assert [] == labels("tenant-hierarchy", metadata)


def test_set_null_keeps_the_tenant():
    metadata = tenants(more=3)
    tasks = metadata.tables["tasks"]
    (constraint,) = [each for each in tasks.foreign_key_constraints if each.column_keys == ["project_id"]]
    constraint.ondelete = "SET NULL"
    for element in constraint.elements:
        element.ondelete = "SET NULL"

    (found,) = check("tenant-hierarchy", metadata)

    assert 'ondelete="SET NULL (project_id)"' in found.fixes[0].code


# --- targets ----------------------------------------------------------------------------------------------------------


def targets(kind=sa.Uuid, info=None, composite=False):
    metadata = sa.MetaData()
    sa.Table(
        "flows",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("flow_id", kind, unique=True, info=info or {}),
    )
    sa.Table("children", metadata, sa.Column("flow_id", sa.ForeignKey("flows.flow_id")))
    return metadata


@pytest.mark.parametrize(
    ("metadata", "options", "expected"),
    [
        (targets(), None, [("info", "flows.flow_id")]),
        (targets(sa.String), None, []),  # a natural key
        (targets(info={"natural_key": True}), None, []),
        (targets(), Options(natural_keys=("flows.flow_id",)), []),
    ],
)
def test_foreign_keys_to_a_second_id(metadata, options, expected):
    assert expected == labels("foreign-key-target", metadata, options=options)


def test_many_to_one_along_a_second_id_asks_the_database_again(engine):
    """The reason of the warning."""
    Base = new_base()

    class Flow(Base):
        __tablename__ = "flows"
        id = mapped_column(sa.Integer, primary_key=True)
        flow_id = mapped_column(sa.Integer, unique=True)

    class Child(Base):
        __tablename__ = "children"
        id = mapped_column(sa.Integer, primary_key=True)
        flow_id = mapped_column(sa.ForeignKey("flows.flow_id"))
        flow = relationship(Flow)

    Base.metadata.create_all(engine)
    statements = []
    with Session(engine) as session:
        session.add_all([Flow(id=1, flow_id=7), Child(id=1, flow_id=7)])
        session.commit()
        child, flow = session.get(Child, 1), session.get(Flow, 1)
        child.flow_id, flow.flow_id  # noqa: B018 - loaded
        sa.event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
        assert flow is child.flow

    assert [("warning", "flows.flow_id")] == labels("foreign-key-target", Base)
    assert 1 == len(statements)


# --- relationships ----------------------------------------------------------------------------------------------------


def family(lazy="select", ondelete=None, nullable=True, back=True, **options):
    Base = new_base()

    class Parent(Base):
        __tablename__ = "parents"
        id = mapped_column(sa.Integer, primary_key=True)
        children = relationship("Child", lazy=lazy, back_populates="parent" if back else None, **options)

    class Child(Base):
        __tablename__ = "children"
        id = mapped_column(sa.Integer, primary_key=True)
        parent_id = mapped_column(sa.ForeignKey("parents.id", ondelete=ondelete), nullable=nullable)
        parent = relationship(Parent, back_populates="children" if back else None)

    Base.kept = (Parent, Child)  # mappers do not live longer than their classes
    return Base


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        (family(), []),
        (family(ondelete="CASCADE", nullable=False), ["warning"]),
        (family(ondelete="CASCADE"), ["warning"]),
        (family(ondelete="CASCADE", nullable=False, passive_deletes=True), []),
        (family(ondelete="CASCADE", cascade="all, delete-orphan"), ["info"]),
        (family(ondelete="CASCADE", cascade="all, delete-orphan", passive_deletes=True), []),
        (family(ondelete="SET NULL", cascade="all, delete"), ["warning"]),
        (family(ondelete="SET NULL"), []),
        (family(ondelete="SET NULL", nullable=False), ["error"]),
        (family(nullable=False), []),
        (family(ondelete="RESTRICT", nullable=False), []),
    ],
)
def test_cascades_that_disagree(base, expected):
    assert expected == [severity for severity, _ in labels("cascade-mismatch", base)]


def test_delete_of_a_parent_fails_as_told(engine):
    Base = family(ondelete="CASCADE", nullable=False)
    Parent, Child = Base.kept
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Parent(id=1, children=[Child(id=1)]))
        session.commit()
        session.delete(session.get(Parent, 1))
        with pytest.raises(sa.exc.IntegrityError):
            session.commit()


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        (family(lazy="joined"), [("warning", "Parent.children")]),
        (family(lazy="selectin"), []),
        (family(lazy="joined", uselist=False), []),
    ],
)
def test_collections_that_every_query_joins(base, expected):
    assert expected == labels("eager-loading", base)


@pytest.mark.parametrize("lazy", ["selectin", "joined"])
@pytest.mark.parametrize(("depth", "statements"), [(None, 1), (2, 0)])
def test_tree_without_depth_loads_nothing_early(engine, lazy, depth, statements):
    """The rule, and what SQLAlchemy does: reading the children of the first node needs a statement, or none."""
    Base = new_base()

    class Node(Base):
        __tablename__ = "nodes"
        id = mapped_column(sa.Integer, primary_key=True)
        parent_id = mapped_column(sa.ForeignKey("nodes.id"))
        children = relationship("Node", lazy=lazy, join_depth=depth)

    Base.metadata.create_all(engine)
    seen = []
    with Session(engine) as session:
        session.add(Node(id=1, children=[Node(id=2)]))
        session.commit()
        session.expunge_all()
        node = session.scalars(sa.select(Node).where(Node.id == 1)).unique().one()
        sa.event.listen(engine, "before_cursor_execute", lambda *given: seen.append(given[2]))
        assert [2] == [each.id for each in node.children]

    found = [each for each in check("eager-loading", Base) if "own class" in each.title]
    assert (statements, statements) == (len(seen), len(found))


def test_unlinked_sides():
    assert [("warning", "Parent.children")] == labels("unlinked-relationships", family(back=False))
    assert [] == labels("unlinked-relationships", family())
    assert [] == labels("unlinked-relationships", family(back=False, viewonly=True))
    assert [] == labels("unlinked-relationships", family(back=False, overlaps="parent"))


def test_relationships_that_were_seen_come_first():
    loads = Finding(
        rule="n-plus-one", severity="error", title="", advice="add .options(selectinload(Parent.children))", key="k",
        label="Parent.children", count=48, seconds=0.5, fixes=(Fix("loader-option", "selectinload(Parent.children)"),),
    )  # fmt: skip

    (found,) = check("relationship-loading", family(), report=Report(findings=(loads,)))

    assert ("warning", "Parent.children", 48, 0.5) == (found.severity, found.label, found.count, found.seconds)
    assert "selectinload(Parent.children)" == found.fixes[0].code
    assert 'lazy="selectin"' in found.fixes[1].code


# --- columns ----------------------------------------------------------------------------------------------------------


def test_big_columns_that_every_query_loads():
    Base = new_base()

    class Document(Base):
        __tablename__ = "documents"
        id = mapped_column(sa.Integer, primary_key=True)
        body = mapped_column(sa.Text)
        payload = mapped_column(sa.LargeBinary)
        digest = mapped_column(sa.LargeBinary(32))
        embedding = mapped_column(Vector(1024))
        small = mapped_column(Vector(3))
        later = deferred(mapped_column(Vector(1024)))

        scan = mapped_column(sa.LargeBinary(1 << 20))

    # How long a payload is, only the database knows: it may be a key of 32 bytes.
    assert [("info", "Document.embedding"), ("info", "Document.scan")] == labels("undeferred-column", Base)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(Vector(), ["error"]), (Vector(3072), ["error"]), (Vector(1024), []), (Vector(2000), [])],
)
def test_vectors_that_cannot_be_indexed(kind, expected):
    metadata = sa.MetaData()
    sa.Table(
        "t", metadata, sa.Column("e", kind),
        sa.Index("ix", "e", postgresql_using="hnsw", postgresql_ops={"e": "vector_l2_ops"}),
    )  # fmt: skip

    assert expected == [severity for severity, _ in labels("vector-dimensions", metadata)]


# --- indexes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("indexes", "expected"),
    [
        ([sa.Index("a1", "a"), sa.Index("a2", "a")], [("warning", "a2")]),
        ([sa.Index("a1", "a"), sa.Index("ab", "a", "b")], [("info", "a1")]),
        ([sa.Index("a1", "a"), sa.UniqueConstraint("a", "b", name="u")], [("info", "a1")]),
        ([sa.Index("b1", "b"), sa.Index("ab", "a", "b")], []),
        ([sa.Index("a1", "a", unique=True), sa.Index("ab", "a", "b")], []),
        ([sa.Index("a1", "a", postgresql_where=sa.text("b > 1")), sa.Index("ab", "a", "b")], []),
        ([sa.Index("a1", "a"), sa.Index("ab", "a", "b", postgresql_where=sa.text("b > 1"))], []),
        ([sa.Index("a1", "a", postgresql_using="hash"), sa.Index("ab", "a", "b")], []),
        ([sa.Index("a1", "a", postgresql_ops={"a": "text_pattern_ops"}), sa.Index("ab", "a", "b")], []),
        ([sa.Index("a1", sa.text("lower(a)")), sa.Index("ab", "a", "b")], []),
        ([sa.Index("a1", sa.desc("a"), "b"), sa.Index("ab", "a", "b")], []),
        ([sa.Index("i1", "id")], [("warning", "i1")]),
    ],
)
def test_indexes_that_another_makes_needless(indexes, expected):
    metadata = sa.MetaData()
    columns = [sa.Column("id", sa.Integer, primary_key=True), sa.Column("a", sa.String), sa.Column("b", sa.Integer)]
    sa.Table("t", metadata, *columns, *indexes)

    assert expected == labels("redundant-index", metadata)


# --- loading ----------------------------------------------------------------------------------------------------------


def test_a_dropped_index_can_be_made_again():
    metadata = sa.MetaData(schema="shop")
    table = sa.Table("lines", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("qty", sa.Integer))
    sa.Index("ix_lines_qty", table.c.qty)
    sa.Index("ix_lines_qty_id", table.c.qty, table.c.id)

    (found,) = check("redundant-index", metadata)

    (fix,) = found.fixes
    assert (
        "DROP INDEX CONCURRENTLY shop.ix_lines_qty;\n"
        "-- to have it back: CREATE INDEX CONCURRENTLY ix_lines_qty ON shop.lines (qty);"
    ) == fix.code
    assert (
        'op.drop_index("ix_lines_qty", table_name="lines", schema="shop", postgresql_concurrently=True)' in fix.alembic
    )
    assert 'Index("ix_lines_qty", ...)' in fix.sqlalchemy


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("no.such.module", "no.such.module cannot be imported: ModuleNotFoundError"),
        ("json", "neither a model nor a MetaData is in json"),
        ("reviewed:Nothing", "Nothing is not there"),
        ("reviewed:uuid4", "uuid4 is a function"),
    ],
)
def test_says_what_is_no_model(load_app, target, said):
    with pytest.raises(mapping.ModelsError, match=said):
        load_app(target)


def test_loads_a_base_by_name(load_app):
    assert 11 == len(load_app("reviewed:Base").tables)


def test_selectinload_is_no_strategy():
    Base = new_base()

    class Node(Base):
        __tablename__ = "nodes"
        id = mapped_column(sa.Integer, primary_key=True)
        parent_id = mapped_column(sa.ForeignKey("nodes.id"))
        children = relationship("Node", lazy="selectinload")

    with pytest.raises(mapping.ModelsError, match=r'relationship\(lazy="selectin"\) is the value'):
        mapping.models_of(Base)
    Base.registry.dispose()
