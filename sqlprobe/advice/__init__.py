"""
Advice: which index would mend a plan, and whether it really would.

`candidates` reads them off a plan's conditions, `snapshot` holds what the planner knows of a database (its schema, its
statistics and sizes, none of its rows), `lab` plans with that on a throwaway server, `prove` ties them together, and
`whatif` judges by it what ran elsewhere.
"""

from __future__ import annotations

from typing import Final

_PROOF: Final = """\
## What is proof
The planner used the index in a lab that has the statistics and sizes of the database, and the plan got at least twice
as cheap, or did a third of the work: see [advice](../advice.md). Without `sqlprobe[lab]` the finding says that it is
not verified.
"""

# The page of each rule that has no module of its own: what finds them is `candidates`, what proves them `prove`.
PAGES: Final = {
    "missing-index": f"""\
# missing-index: an index would answer what a statement reads its way through a table for

What the statement asks with `=`, IN, a range, ORDER BY ... LIMIT or `max()` is answered by no index that is there, or
by one whose columns are in another order.

{_PROOF}
## What to do
Create the index of the finding, in PostgreSQL by `CREATE INDEX CONCURRENTLY`, which does not stop writers. The
finding has it as SQL, as an Alembic operation and as an `Index(...)` for the model, with its estimated size and what
writing it costs. Where an index is there that all but does (another operator class, another spelling, invalid), the
finding says what keeps it from it.

## What is none
A small table, a statement that wants most of it, a condition that no index can serve: that has to be written in
another way, see [unusable-predicate](unusable-predicate.md).
""",
    "missing-partial-index": f"""\
# missing-partial-index: an index on the few rows that are asked for

All calls of a statement have a condition in common (`deleted_at IS NULL`, a boolean, a status) that few rows meet. An
index on those rows alone is smaller, and its other columns can give the order too.

{_PROOF}
## What to do
Create the index of the finding. The statement must keep that condition, in the words of the index's WHERE.

## What is none
A value that came in one call by accident: a value is named only where three samples or more that differ otherwise all
have it and the schema names it too (an enum, a CHECK), or where `Settings(advice_values=True)` allows it.
""",
    "missing-jsonb-index": f"""\
# missing-jsonb-index: a condition on a document reads every document

`doc @> ?`, `doc ? 'key'` and `doc ->> 'key' = ?` are answered by different indexes: a GIN index with
`jsonb_path_ops`, one with `jsonb_ops`, a B-tree on the expression. The expression must be spelled as in the plan:
SQLAlchemy from 2.0.42 on writes `doc['key']` as a subscript, for which an index on `doc -> 'key'` is dead.

{_PROOF}
## What to do
Create the index of the finding; its expression is PostgreSQL's own spelling of the statement's.

## Limits
PostgreSQL has no statistics of expressions that no index holds: they are sampled, or guessed where there is a
snapshot only.
""",
    "missing-text-index": f"""\
# missing-text-index: a pattern or a word is looked for in every row

`LIKE 'x%'` needs a B-tree with `text_pattern_ops` (unless the collation is C), `LIKE '%xyz%'` and ILIKE a GIN index
of pg_trgm, `@@` one on the same `to_tsvector` expression.

{_PROOF}
## What to do
Create the index of the finding. Trigrams serve patterns of three characters and more, and need the extension pg_trgm.

## What is none
Patterns of one or two characters between wildcards, for which a trigram index is slower than none.
""",
}
