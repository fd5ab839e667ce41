"""The `Index` that is printed for a model is the index that was advised."""

from __future__ import annotations

import io
import re

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column
from sqlalchemy.schema import CreateIndex

from sqlprobe.advice.candidates import Candidate, Key


def models(schema=None):
    class Base(DeclarativeBase):
        pass

    class Shipment(Base):
        __tablename__ = "shipment"
        __table_args__ = ({"schema": schema},) if schema else ()
        id = mapped_column(sa.Integer, primary_key=True)
        sent = mapped_column("sent_at", sa.DateTime)
        weight = mapped_column(sa.Integer)
        doc = mapped_column(JSONB)
        kind = mapped_column(sa.String)
        __mapper_args__ = {"polymorphic_on": kind, "polymorphic_identity": "any"}  # noqa: RUF012 - as SQLAlchemy has it

    class Express(Shipment):  # of the same table
        __mapper_args__ = {"polymorphic_identity": "express"}  # noqa: RUF012 - as above

    return Base, (Shipment, Express)  # nothing else holds them


@pytest.mark.parametrize("schema", [None, "depot"])
@pytest.mark.parametrize(
    ("keys", "options", "printed"),
    [
        ([Key("weight"), Key("sent_at")], {}, "Shipment.weight, Shipment.sent)"),
        ([Key("sent_at", descending=True, nulls_first=True)], {}, "Shipment.sent.desc())"),
        ([Key("sent_at", descending=True)], {}, "Shipment.sent.desc().nulls_last())"),
        ([Key("weight", nulls_first=True)], {}, "Shipment.weight.nulls_first())"),
        ([Key("doc", operator_class="jsonb_path_ops")], {"method": "gin"}, "Shipment.doc, "),
        ([Key("weight")], {"predicate": "(sent_at IS NULL)", "include": ("kind",)}, "Shipment.weight, "),
        ([Key("", "((doc ->> 'k'::text))"), Key("weight")], {}, "text(\"((doc ->> 'k'::text))\"), Shipment.weight)"),
    ],
)
def test_below_its_class_with_its_attributes(schema, keys, options, printed):
    base, classes = models(schema)
    model = classes[0]
    candidate = Candidate(schema or "public", "shipment", tuple(keys), **options)
    code = candidate.sqlalchemy()
    index = eval(code, {"Index": sa.Index, "text": sa.text, "Shipment": model})

    assert printed in code
    assert code.endswith("  # below class Shipment")
    assert index.table is model.__table__
    made = re.sub(r"\s+", " ", str(CreateIndex(index).compile(dialect=postgresql.dialect())))
    wanted = candidate.ddl(concurrently=False).replace("ON public.", "ON ")
    assert made.replace(" USING btree", "") == wanted
    base.registry.dispose()


def _columns(keys):
    return [sa.Column(key.column, sa.String) for key in keys if key.column]


@pytest.mark.parametrize(
    ("schema", "keys"),
    [
        ("public", [Key("", "lower(kind)")]),  # nothing to know its table by
        ("public", [Key("dropped")]),  # the model has it no more
        ("public", [Key("kind", operator_class="text_pattern_ops", descending=True)]),
    ],
)
def test_among_the_tables_arguments_where_a_class_would_not_do(schema, keys):
    base, classes = models()
    candidate = Candidate(schema, "shipment", tuple(keys))
    code = candidate.sqlalchemy()

    assert code.endswith(f"  # in __table_args__ of class {classes[0].__name__}")
    table = sa.Table("shipment", sa.MetaData(), *_columns(keys), eval(code, {"Index": sa.Index, "text": sa.text}))
    made = str(CreateIndex(*table.indexes).compile(dialect=postgresql.dialect()))
    assert re.sub(r"\s+", " ", made).replace("ON ", "ON public.") == candidate.ddl(concurrently=False)
    base.registry.dispose()


def test_two_classes_of_a_table_are_none():
    both = [models(), models()]

    assert "Index('ix_shipment_weight', 'weight')" == Candidate("public", "shipment", (Key("weight"),)).sqlalchemy()
    for base, _ in both:
        base.registry.dispose()


ALEMBIC = [
    ([Key("weight"), Key("sent_at", descending=True)], {}),
    ([Key("", "lower(kind)")], {"predicate": "(sent_at IS NULL)"}),
    ([Key("doc", operator_class="jsonb_path_ops")], {"method": "gin"}),
    ([Key("weight")], {"include": ("kind",)}),
]


@pytest.mark.parametrize(("keys", "options"), ALEMBIC)
def test_a_migration_imports_no_more_than_its_template_does(keys, options):
    candidate = Candidate("public", "shipment", tuple(keys), **options)
    out = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": out, "literal_binds": True}
    )
    operations = Operations(context)
    with operations.get_context().begin_transaction():
        exec(candidate.alembic(), {"op": operations, "sa": sa})

    made = re.sub(r"\s+", " ", out.getvalue()).replace(" USING btree", "").replace("ON ", "ON public.")
    assert candidate.ddl() in made


def test_names_tell_apart_what_their_words_do_not():
    alike = [
        Candidate("public", "shipment", (Key("", "(doc ->> 'city'::text)"),)),
        Candidate("public", "shipment", (Key("", "(doc['city'::text])"),)),
        Candidate("public", "shipment", (Key("weight"),), include=("kind",)),
        Candidate("public", "shipment", (Key("weight"),), include=("doc",)),
        Candidate("public", "shipment", (Key("weight"),), predicate="(sent_at IS NULL)"),
        Candidate("public", "shipment", (Key("weight"),), predicate="(kind IS NULL)"),
        Candidate("public", "shipment", (Key("weight"),)),
    ]

    assert len(alike) == len({each.name for each in alike})
    assert "ix_shipment_weight" == alike[-1].name
