"""
What an audit costs: `python bench/audit.py`. 500 tables with 3,000 indexes, 500 models with 900 relationships.

Prints how many questions the catalog is asked, which no neighbour on the machine changes, and of several rounds the
best time. The limits: under 20 questions, 5 s for catalog and models, 1 s for the models alone. Needs sqlprobe[lab].
"""

from __future__ import annotations

import platform
import sys
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from sqlprobe import audit
from sqlprobe.advice.server import serve
from sqlprobe.audit import drift, mapping
from sqlprobe.plans.explain import Session

if TYPE_CHECKING:
    from collections.abc import Callable

TABLES = 500
PARENTS = 50
ROUNDS = 5
MAX_QUESTIONS = 20
MAX_SECONDS = 5.0
MAX_MODEL_SECONDS = 1.0


def declare() -> list[type[Any]]:
    """500 classes, of which 450 have a parent among the first 50; each has six indexes, one of them needless."""

    class Base(DeclarativeBase):
        pass

    classes: list[type[Any]] = []
    for number in range(TABLES):
        columns: dict[str, Any] = {
            "__tablename__": f"t{number}",
            "__annotations__": {"id": Mapped[int], **dict.fromkeys("abcde", Mapped[int])},
            "id": mapped_column(primary_key=True),
            "a": mapped_column(index=True),
            **{each: mapped_column(index=True) for each in "bcde"},
            "__table_args__": (sa.Index(f"ix_t{number}_a_b", "a", "b"),),
        }
        if number >= PARENTS:
            parent = classes[number % PARENTS]
            columns["a"] = mapped_column(sa.ForeignKey(parent.id), index=True)
            columns["parent"] = relationship(parent, backref=f"children{number}")
        classes.append(type(f"Model{number}", (Base,), columns))
    return classes


def best(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the best round, and what the last one gave."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        given = work()
        times.append(time.perf_counter() - started)
    return min(times), given


def main() -> int:
    """Print the figures; 1 where a limit is not kept."""
    print(f"Python {platform.python_version()}, SQLAlchemy {version('sqlalchemy')}, best of {ROUNDS} rounds")
    classes = declare()
    started = time.perf_counter()
    models = mapping.models_of(*classes)
    print(f"configuring {len(models.mappers)} mappers, which the application does itself: "
          f"{time.perf_counter() - started:.2f} s")  # fmt: skip
    of_models, report = best(lambda: audit.audit(models))
    indexes = sum(len(table.indexes) for table in models.tables)
    print(f"models: {len(models.tables)} tables, {indexes} indexes, {len(models.relationships)} relationships: "
          f"{of_models:.2f} s, {len(report.findings)} findings")  # fmt: skip
    asked: list[str] = []
    plain = Session.read

    def read(self: Session, *questions: str) -> list[list[Any]]:
        asked.extend(questions)
        return plain(self, *questions)

    with serve() as server:
        engine = sa.create_engine(server.url_for("psycopg", "postgres"))
        classes[0].metadata.create_all(engine)
        Session.read = read  # type: ignore[method-assign]
        try:
            read_seconds, stock = best(lambda: audit.read(engine))
        finally:
            Session.read = plain  # type: ignore[method-assign]
        questions = len(asked) // ROUNDS
        of_both, report = best(lambda: audit.audit(models, catalog_of=stock))
        found = sum(len(relation.indexes) for relation in stock.relations.values())
        print(f"catalog: {len(stock.relations)} tables, {found} indexes with those of keys: {questions} questions, "
              f"{read_seconds:.2f} s")  # fmt: skip
        print(f"models and catalog, judged: {of_both:.2f} s, {len(report.findings)} findings; "
              f"with reading: {read_seconds + of_both:.2f} s")  # fmt: skip
        started = time.perf_counter()
        drift.check(models, engine.url)
        print(f"Alembic's comparison on top, once: {time.perf_counter() - started:.2f} s")
        engine.dispose()
    kept = questions < MAX_QUESTIONS and read_seconds + of_both < MAX_SECONDS and of_models < MAX_MODEL_SECONDS
    print("within the limits" if kept else "over the limits")
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main())
