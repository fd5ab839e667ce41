"""The `Index` that is printed for a model is the index that was advised."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa
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
    code = Candidate(schema, "shipment", tuple(keys)).sqlalchemy()

    assert ("Shipment", False) == (classes[0].__name__, "Shipment" in code)
    base.registry.dispose()


def test_two_classes_of_a_table_are_none():
    both = [models(), models()]

    assert "Index('ix_shipment_weight', 'weight')" == Candidate("public", "shipment", (Key("weight"),)).sqlalchemy()
    for base, _ in both:
        base.registry.dispose()
