"""
# unusable-predicate: a condition that no index on its column can answer

The column is indexed, or could be; the condition is written so that PostgreSQL must compute something for every row
first. What has to change is the statement, not the schema.

| the plan prints | why | write |
|---|---|---|
| `((x)::numeric = ?)` | the parameter is a Decimal or a float, the column an integer | pass an int |
| `((uid)::text = ?)` | the parameter is a string, the column a UUID | pass a `uuid.UUID` |
| `((c)::text = ?)` of a `char(n)` column | the parameter is text | `t.c.c == cast(value, CHAR(n))` |
| `(date(ts) = ?)`, `EXTRACT(year …)`, `date_trunc(…)` | computed from each row | a range: `ts >= start, ts < end` |
| `EXTRACT(month FROM ts)`, `to_char(ts)` | as above | a generated column, indexed |
| `(ts AT TIME ZONE ?)` | as above | convert the value |
| `((x + ?) = ?)` | arithmetic on the column | on the other side |
| `COALESCE(flag, false)` | hides the column | `flag.is_(True)` |
| `(? = ANY (tags))` | `.any_()` on an array column | `tags.contains([value])`, with a GIN index |
| `(name ~~ '%x')` | a B-tree is sorted by the beginning | a trigram index (`gin_trgm_ops`), or full text search |
| `((a < ?) OR ((a = ?) AND (b < ?)))` | two ranges | `tuple_(a, b) < tuple_(…)` |
| `((a.x = ?) OR (b.y = ?))` across a join | no index knows both tables | `union()` of two statements |
| `(doc @@ '$.n > 1')`, `(doc @? '$.k')` | GIN indexes find equalities only | `doc.has_key("k")`, or compare the value |

## What is proof
The condition stands in the plan's filter, of a table that matters (10,000 rows and 100 pages), and is one of these
forms; the type of the column is the catalog's. `varchar` compared with `text` prints a cast, too: that one is free,
and silent. `lower(email) = ?` is not told here: an expression index answers it.

## Limits
What a condition would select is not known where it is computed; a rewritten condition that most rows meet is no
faster. A function of your own is not told: it may be what an index was made for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlprobe.model import Fix
from sqlprobe.plans import conditions, scans
from sqlprobe.plans.rules import Smell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlprobe.plans.catalog import Catalog, Relation
    from sqlprobe.plans.conditions import Expression
    from sqlprobe.plans.plan import Node, Plan
    from sqlprobe.settings import Settings

RULE: Final = "unusable-predicate"

_INTEGERS: Final = frozenset({"smallint", "integer", "bigint"})
_FRACTIONS: Final = frozenset({"numeric", "double precision", "real"})
_MOMENTS: Final = frozenset({"timestamp with time zone", "timestamp without time zone"})
_OF_MOMENTS: Final = frozenset({"date", "date_trunc", "date_part", "extract", "to_char", "timezone", "age"})
_COMPARED: Final = frozenset({"=", "<", "<=", ">", ">=", "= ANY"})
_LIKES: Final = {"~~": "LIKE", "~~*": "ILIKE"}
_ARITHMETIC: Final = frozenset({"+", "-", "*", "/"})


class _Fault(NamedTuple):
    form: str  # stable: part of the finding's key
    column: str
    why: str
    advice: str
    code: str


def check(plan: Plan, catalog: Catalog, settings: Settings) -> Iterable[Smell]:  # noqa: ARG001 - as every rule's
    """One smell for each condition, of the scans that read much, and of joins."""
    for node in plan.scans:
        relation = catalog.of(node)
        if relation is None or not scans.matters(relation):
            continue
        looked_at = scans.rows_looked_at(plan, node, relation)
        if looked_at * plan.loops(node) < scans.MATTERS_ROWS / 10:
            continue
        limited = scans.kept_rows(plan, node) <= (relation.rows or 0) * scans.SELECTIVE or any(
            above.kind == "Limit" for above in plan.above(node)
        )
        for test in node.tests("Filter"):
            fault = _fault_of(node, relation, test)
            if fault is not None and (limited or fault.form != "keyset"):
                yield _smell(plan, node, relation, test, fault, looked_at)
                break
    for node in plan.nodes:
        yield from _across_tables(plan, catalog, node)


def _smell(plan: Plan, node: Node, relation: Relation, test: Expression, fault: _Fault, looked_at: float) -> Smell:
    index = next((each for each in relation.usable_indexes if each.keys[0].column == fault.column), None)
    evidence: dict[str, float | int | str] = {
        "condition": test.masked,
        "rows_read": round(looked_at),
        "rows_kept": round(scans.kept_rows(plan, node)),
        "form": fault.form,
    }
    if index is not None:
        evidence["index_not_used"] = index.name
    hidden = f", though {index.name} is there" if index is not None else ""
    return Smell(
        rule=RULE,
        nodes=(node,),
        title=f"{fault.why}: {relation.label} is searched without an index{hidden}",
        advice=fault.advice,
        label=f"{relation.label}.{fault.column}" if fault.column else relation.label,
        detail=fault.form,
        evidence=evidence,
        fixes=(Fix(kind="rewrite", code=fault.code),) if fault.code else (),
    )


def _fault_of(node: Node, relation: Relation, test: Expression) -> _Fault | None:
    own = scans.names_of(node)
    if test.kind == "or":
        return _keyset(relation, test)
    predicate = conditions.predicate_of(test, own)
    if predicate is None or not predicate.key.is_known:
        return None
    key, operator, value = predicate.key, predicate.operator, predicate.value
    table = f"{relation.name}.c"
    if operator == "ANY =" and key.kind == "column":
        return _Fault(
            "any-array", key.name, f"? = ANY ({key.name}) looks into each array",
            f"ask {table}.{key.name}.contains([value]) instead of .any_(), which a GIN index on {key.name} answers",
            f"{table}.{key.name}.contains([value])",
        )  # fmt: skip
    if key.kind == "column":
        return _pattern(relation, key.name, operator, value, table)
    if operator not in _COMPARED and operator != "TRUE":
        return None
    columns = [each for each in key.columns if each.qualifier in own]
    if len(columns) != 1 or not (value is None or value.is_constant or not value.columns):
        return None
    column = relation.column(columns[0].name)
    if column is None or any(scans.is_key(node, key, each) for index in relation.indexes for each in index.keys):
        return None  # an index on the very expression is there: it is not the form that hinders
    return _computed(key, operator, column.name, column.base_type, column.type, table)


def _computed(key: Expression, operator: str, name: str, base: str, full: str, table: str) -> _Fault | None:
    if key.kind == "cast" and key.parts[0].kind == "column":
        to = key.name.partition("(")[0]
        if base in _INTEGERS and to in _FRACTIONS:
            return _Fault(
                "cast-number", name, f"({name})::{to} {operator} ?: an integer column is compared with a {to}",
                f"pass an int for {name}: with a Decimal or a float the column is converted row by row",
                f"{table}.{name} == int(value)",
            )  # fmt: skip
        if base == "uuid" and to in {"text", "character varying"}:
            return _Fault(
                "cast-uuid", name, f"({name})::{to} {operator} ?: a uuid column is compared as text",
                f"compare {name} with a uuid.UUID, without a cast to String",
                f"{table}.{name} == uuid.UUID(value)",
            )  # fmt: skip
        if base == "character" and to == "text":
            return _Fault(
                "cast-char", name, f"({name})::text {operator} ?: a {full} column is compared with text",
                f"bind the value as CHAR: cast(value, CHAR), or make {name} varchar",
                f"{table}.{name} == cast(value, CHAR)",
            )  # fmt: skip
        if base in _MOMENTS and to == "date":
            return _moment(key, "date", name, operator, table)
        if base in _INTEGERS and to in {"text", "character varying"}:
            return _Fault(
                "cast-text", name, f"({name})::{to} {operator} ?: a number is compared as text",
                f"pass an int for {name}, without a cast to String",
                f"{table}.{name} == int(value)",
            )  # fmt: skip
        return None
    if key.kind == "call" and key.name in _OF_MOMENTS and base in _MOMENTS:
        return _moment(key, key.name, name, operator, table)
    if key.kind == "call" and key.name == "coalesce" and operator == "TRUE":
        return _Fault(
            "coalesce", name, f"COALESCE({name}, ?) is worked out for each row",
            f"ask {table}.{name}.is_(True): it says the same, and an index on {name} answers it",
            f"{table}.{name}.is_(True)",
        )  # fmt: skip
    if key.kind == "operator" and key.name in _ARITHMETIC and len(key.parts) == 2:  # noqa: PLR2004 - two operands
        left, right = key.parts
        if left.bare().kind == "column" and right.is_constant:
            return _Fault(
                "arithmetic", name, f"{name} {key.name} ? is worked out for each row",
                f"do the arithmetic on the value: {table}.{name} alone on one side",
                f"{table}.{name} == value - step" if key.name == "+" else f"{table}.{name} == value",
            )  # fmt: skip
    return None


def _moment(key: Expression, function: str, name: str, operator: str, table: str) -> _Fault:
    """A function of a time: most are a range of it, a month of whatever year is not."""
    unit = key.parts[0].text.partition("::")[0].strip("'") if function in {"extract", "date_part"} else ""
    if function == "timezone":
        return _Fault(
            "time-zone", name, f"{name} AT TIME ZONE ? is worked out for each row",
            f"convert the value that {name} is compared with, in Python or SQL, and leave {table}.{name} alone",
            f"{table}.{name} {operator} value",
        )  # fmt: skip
    if function == "to_char" or unit not in {"", "year", "epoch"}:
        part = f"{unit} FROM " if unit else ""
        return _Fault(
            "moment-part", name, f"{function}({part}{name}) {operator} ? is worked out for each row",
            f"an index needs a fixed time zone: keep it in a generated column, of {name} AT TIME ZONE 'UTC', and index "
            "that",
            "",
        )  # fmt: skip
    return _Fault(
        "moment", name, f"{function}({name}) {operator} ? is worked out for each row",
        f"ask for a range of {name}: {table}.{name} >= start and {table}.{name} < end",
        f".where({table}.{name} >= start, {table}.{name} < end)",
    )  # fmt: skip


def _pattern(relation: Relation, name: str, operator: str, value: Expression | None, table: str) -> _Fault | None:
    text = value.text.lstrip("(") if value is not None and value.kind == "constant" else ""
    if operator in _LIKES and text[:2] in {"'%", "'_"} and text[:3] != "'%'":
        like = _LIKES[operator]
        return _Fault(
            "leading-wildcard", name, f"{name} {like} '%…' begins with a wildcard",
            f"a B-tree is of no use here: give {name} a trigram index (gin_trgm_ops of pg_trgm) for three letters and "
            "more, or search it with to_tsvector() and a GIN index",
            f'Index("ix_{relation.name}_{name}_trgm", {table}.{name}, postgresql_using="gin",'
            f' postgresql_ops={{"{name}": "gin_trgm_ops"}})',
        )  # fmt: skip
    if operator in {"@@", "@?"} and text and "==" not in text and relation.columns[name].base_type == "jsonb":
        return _Fault(
            "jsonpath", name, f"{name} {operator} ? holds no equality, and a GIN index finds equalities only",
            f"ask {table}.{name}.has_key(key) for presence, or compare {table}.{name}[key].astext with the value",
            f"{table}.{name}.has_key(key)",
        )  # fmt: skip
    return None


def _keyset(relation: Relation, test: Expression) -> _Fault | None:
    """`a < ? OR (a = ? AND b < ?)`: the second page of a list, written out."""
    if len(test.parts) != 2:  # noqa: PLR2004 - exactly these two
        return None
    for first, second in (test.parts, test.parts[::-1]):
        outer = conditions.predicate_of(first)
        inner = [conditions.predicate_of(each) for each in conditions.conjuncts(second)]
        if outer is None or not outer.is_range or len(inner) != 2 or None in inner:  # noqa: PLR2004 - a and b
            continue
        equal = next((each for each in inner if each is not None and each.operator == "="), None)
        later = next((each for each in inner if each is not None and each.is_range), None)
        if equal is None or later is None or not (outer.column and outer.column == equal.column and later.column):
            continue
        sign = outer.operator[0]
        if later.operator[0] != sign:
            continue
        a, b = outer.column, later.column
        table = f"{relation.name}.c"
        return _Fault(
            "keyset", a, f"{a} {sign} ? OR ({a} = ? AND {b} {sign} ?) is a page of a list, written out",
            f"compare the pair at once: tuple_({a}, {b}) {sign} tuple_(last_{a}, last_{b}), with an index on both",
            f"tuple_({table}.{a}, {table}.{b}) {sign} tuple_(last_{a}, last_{b})",
        )  # fmt: skip
    return None


def _across_tables(plan: Plan, catalog: Catalog, node: Node) -> Iterable[Smell]:
    for name in ("Join Filter", "Filter"):
        if not ("Join" in node.kind or node.kind == "Nested Loop"):
            return
        for test in node.tests(name):
            if test.kind != "or" or not test.is_known:
                continue
            arms = [frozenset(column.qualifier for column in part.columns) for part in test.parts]
            if any(len(arm) != 1 for arm in arms) or len(set(arms)) == 1:
                continue
            read = [scan for scan in plan.scans if {scan.alias} in arms and scans.matters(catalog.of(scan))]
            if not read or node.children[0].rows * plan.loops(node) < scans.MATTERS_ROWS / 10:
                continue
            tables = sorted({scan.relation for scan in plan.scans if frozenset({scan.alias}) in arms})
            yield Smell(
                rule=RULE,
                nodes=(node, *read),
                title=f"an OR across {' and '.join(tables)} is tested for each joined row",
                advice="select each side of the OR by itself and union() the two: each can then use its table's index",
                label=" ".join(tables),
                detail="or-across-tables",
                evidence={"condition": test.masked, "rows_joined": round(node.rows), "form": "or-across-tables"},
                fixes=(Fix(kind="rewrite", code="union(select(...).where(one_side), select(...).where(other_side))"),),
            )
