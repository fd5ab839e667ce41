"""
Plans: what PostgreSQL's EXPLAIN (FORMAT JSON) says, as a frozen tree. PostgreSQL 14 to 18; unknown fields are kept.

A plan that was made with bound values contains them, in `Node.fields`. They stay in memory: `repr()`, `render()` and
`to_json()` go through `masked()`, and what rules say of a plan is made of names, numbers and masked texts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from sqlprobe.model import SqlprobeError
from sqlprobe.plans import conditions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlprobe.model import StatementStats
    from sqlprobe.plans.conditions import Expression, SortKey

MAX_NODES: Final = 20_000  # a join over a thousand partitions; more is no plan that anybody reads
MAX_LINE: Final = 400  # characters of a condition that is shown
MAX_SHOWN: Final = 400  # nodes of a plan that is shown

# Fields that name things of the schema or of the planner. Every other text of a plan may hold values.
_NAMES: Final = frozenset({
    "Alias", "CTE Name", "Cache Mode", "Command", "Conflict Arbiter Indexes", "Conflict Resolution",
    "Custom Plan Provider", "Function Name", "Group Key Type", "Index Name", "Join Type", "Node Type", "Operation",
    "Parent Relationship", "Partial Mode", "Relation Name", "Relations", "Sampling Method", "Scan Direction", "Schema",
    "Sort Method", "Sort Methods Used", "Sort Space Type", "Storage", "Strategy", "Subplan Name", "Table Function Name",
    "Trigger Name", "Constraint Name", "Tuplestore Name", "Peak Sort Space Used",
})  # fmt: skip
_PLAIN_SETTINGS: Final = ("hnsw.", "ivfflat.")  # pgvector's: numbers and switches

# What a line of the rendered tree says below its node.
_SHOWN: Final = (
    "Index Cond", "Recheck Cond", "Order By", "Hash Cond", "Merge Cond", "Join Filter", "TID Cond", "Filter",
    "One-Time Filter", "Sort Key", "Presorted Key", "Group Key", "Cache Key", "Conflict Filter", "Function Call",
    "Remote SQL", "Run Condition",
)  # fmt: skip
_WRITES: Final = {"Insert", "Update", "Delete", "Merge"}
SCANS: Final = frozenset(
    {
        "Seq Scan", "Sample Scan", "Index Scan", "Index Only Scan", "Bitmap Heap Scan", "Tid Scan", "Tid Range Scan",
        "Foreign Scan",
    }
)  # fmt: skip


class PlanError(SqlprobeError, ValueError):
    """What was to be read is no plan of PostgreSQL: the message says what was found. It never quotes the plan."""


@dataclass(frozen=True, eq=False, repr=False)
class Node:
    """
    One step of a plan.

    `number` counts from 0 in the order in which EXPLAIN prints. `fields` are PostgreSQL's own, without "Plans", and
    hold constants: see the module's docstring. Costs are the planner's units, `rows` what it expects of one loop.
    """

    number: int
    kind: str
    fields: Mapping[str, Any]
    children: tuple[Node, ...]

    def __repr__(self) -> str:
        return f"<Node {self.number} {self.title}>"

    @property
    def relationship(self) -> str:
        """Of the node to the one above it: "Outer", "Inner", "InitPlan", "SubPlan", "Member", "Subquery" or ""."""
        return str(self.fields.get("Parent Relationship", ""))

    @property
    def relation(self) -> str:
        return str(self.fields.get("Relation Name", ""))

    @property
    def schema(self) -> str:
        return str(self.fields.get("Schema", ""))

    @property
    def alias(self) -> str:
        """The name that conditions give the relation."""
        return str(self.fields.get("Alias", "") or self.relation)

    @property
    def index(self) -> str:
        return str(self.fields.get("Index Name", ""))

    @property
    def join_type(self) -> str:
        return str(self.fields.get("Join Type", ""))

    @property
    def startup_cost(self) -> float:
        return self.number_of("Startup Cost")

    @property
    def total_cost(self) -> float:
        return self.number_of("Total Cost")

    @property
    def rows(self) -> float:
        return self.number_of("Plan Rows")

    @property
    def width(self) -> int:
        """Bytes that the planner expects of one row."""
        return int(self.number_of("Plan Width"))

    @property
    def actual_rows(self) -> float | None:
        """Rows of one loop, on average; None without ANALYZE."""
        return self._actual("Actual Rows")

    @property
    def actual_loops(self) -> float | None:
        return self._actual("Actual Loops")

    @property
    def actual_seconds(self) -> float | None:
        """Of all loops together; None without ANALYZE or with TIMING OFF."""
        milliseconds, loops = self._actual("Actual Total Time"), self.actual_loops
        return None if milliseconds is None or loops is None else milliseconds * loops / 1e3

    @property
    def is_scan(self) -> bool:
        """Whether it reads rows of a relation (of a bitmap scan, the node that fetches them)."""
        return self.kind in SCANS

    @property
    def is_write(self) -> bool:
        return self.kind == "ModifyTable" or self.kind in _WRITES

    def number_of(self, name: str) -> float:
        """The field *name* as a number, 0 where it has none."""
        value = self.fields.get(name, 0)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0

    def _actual(self, name: str) -> float | None:
        return self.number_of(name) if name in self.fields else None

    def text_of(self, name: str) -> str:
        """The field *name* as PostgreSQL printed it, constants included, "" where it has none."""
        value = self.fields.get(name, "")
        if isinstance(value, list):
            return ", ".join(map(str, value))
        return str(value)

    def condition(self, name: str) -> Expression | None:
        """The condition in the field *name* ("Filter", "Index Cond"), parsed."""
        text = self.fields.get(name)
        return conditions.parse(text) if isinstance(text, str) else None

    def tests(self, name: str) -> tuple[Expression, ...]:
        """The tests that make up the condition *name*, all of which must hold."""
        parsed = self.condition(name)
        return () if parsed is None else conditions.conjuncts(parsed)

    def sort_keys(self, name: str = "Sort Key") -> tuple[SortKey, ...]:
        keys = self.fields.get(name, ())
        return tuple(conditions.parse_sort_key(str(key)) for key in keys) if isinstance(keys, list | tuple) else ()

    def walk(self) -> Iterator[Node]:
        """This node and all below it, in the order in which EXPLAIN prints."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += reversed(node.children)

    @cached_property
    def title(self) -> str:
        """`Index Scan using orders_pkey on orders o`."""
        fields, kind = self.fields, self.kind
        words = [f"Parallel {kind}" if fields.get("Parallel Aware") else kind]
        if kind == "ModifyTable":
            words = [str(fields.get("Operation", kind))]
        elif kind == "Aggregate":
            words = [{"Hashed": "HashAggregate", "Sorted": "GroupAggregate"}.get(str(fields.get("Strategy")), kind)]
        elif "Join Type" in fields and fields["Join Type"] != "Inner":
            words = [f"{kind} {fields['Join Type']}" if "Join" in kind or kind == "Nested Loop" else kind]
        if str(fields.get("Scan Direction")) == "Backward":
            words.append("backward")
        if self.index:
            words.append(f"using {self.index}" if self.relation else f"on {self.index}")
        what = self.relation or str(fields.get("Function Name") or fields.get("CTE Name") or "")
        if what:
            words.append(f"on {what}")
            if self.alias not in {what, ""}:
                words.append(self.alias)
        return " ".join(words)


@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """
    A whole plan: `settings` are the planner's that differ from the server's defaults, `analyzed` says whether it ran.

    `planning_seconds` and `execution_seconds` are None where EXPLAIN did not measure them. `statement` is what the
    statement has cost so far, None where it was not observed.
    """

    root: Node
    settings: Mapping[str, str] = field(default_factory=dict)
    analyzed: bool = False
    planning_seconds: float | None = None
    execution_seconds: float | None = None
    statement: StatementStats | None = None

    def __repr__(self) -> str:
        return f"<Plan {self.root.title}, cost {self.root.total_cost:.0f}, {len(self.nodes)} nodes>"

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(self.root.walk())

    @cached_property
    def _parents(self) -> Mapping[int, Node]:
        return {child.number: node for node in self.nodes for child in node.children}

    def parent(self, node: Node) -> Node | None:
        return self._parents.get(node.number)

    def above(self, node: Node) -> Iterator[Node]:
        """The nodes that *node* feeds, the nearest first."""
        above = self.parent(node)
        while above is not None:
            yield above
            above = self.parent(above)

    @property
    def scans(self) -> tuple[Node, ...]:
        """The nodes that read relations."""
        return tuple(node for node in self.nodes if node.is_scan and node.relation)

    def loops(self, node: Node) -> float:
        """How often *node* is run: measured with ANALYZE, else expected from the joins above it."""
        if node.actual_loops is not None:
            return node.actual_loops
        loops = 1.0
        below = node
        for above in self.above(node):
            if above.kind == "Nested Loop" and below.relationship == "Inner" and above.children[0] is not below:
                loops *= max(1.0, above.children[0].rows)
            elif above.kind == "Memoize":
                return loops  # most of its loops are answered from memory: how many is not known
            elif below.relationship == "SubPlan" and not below.fields.get("Subplan Name", "").startswith("CTE"):
                loops *= max(1.0, above.children[0].rows if above.children[0] is not below else above.rows)
            below = above
        return loops

    @cached_property
    def shares(self) -> Mapping[int, float]:
        """
        Which share (0 to 1) of the plan's cost, or of its time if it was analysed, each node's own work is.

        A node below a LIMIT counts with the part of its rows that is fetched, one that runs in a loop with all loops.
        """
        timed = self.root.actual_seconds is not None
        whole: dict[int, float] = {}
        self._spread(self.root, self._whole(self.root, timed=timed), whole, timed=timed)
        total = whole[self.root.number] or 1.0
        return {
            node.number: max(0.0, whole[node.number] - sum(whole[child.number] for child in node.children)) / total
            for node in self.nodes
        }

    def _whole(self, node: Node, *, timed: bool) -> float:
        return (node.actual_seconds or 0.0) if timed else node.total_cost

    def _spread(self, root: Node, cost: float, whole: dict[int, float], *, timed: bool) -> None:
        waiting = [(root, cost)]
        while waiting:
            node, cost = waiting.pop()
            whole[node.number] = cost
            wanted = []
            for child in node.children:
                own = self._whole(child, timed=timed)
                if not timed:
                    if node.kind == "Limit" and child.relationship == "Outer":
                        own = min(own, node.total_cost)
                    elif node.kind == "Nested Loop" and child is not node.children[0] and child.relationship == "Inner":
                        own *= max(1.0, node.children[0].rows)
                    elif child.relationship == "SubPlan":
                        own *= max(1.0, node.rows)
                    if node.total_cost:
                        own *= min(1.0, cost / node.total_cost)
                wanted.append(own)
            total = sum(wanted)
            scale = min(1.0, cost / total) if total else 1.0
            waiting += [(child, own * scale) for child, own in zip(node.children, wanted, strict=True)]

    def share(self, node: Node) -> float:
        """Of *node*'s own work, 0 to 1."""
        return self.shares[node.number]

    @cached_property
    def shape(self) -> str:
        """
        16 hexadecimal digits that change when the plan does: its nodes, joins, relations, indexes and the columns that
        indexes are searched by; no costs, rows or constants. Partitions count as their first one.
        """
        said = json.dumps(self._shape_of(self.root), separators=(",", ":"))
        return blake2b(said.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()

    def _shape_of(self, node: Node) -> list[Any]:
        children = [self._shape_of(child) for child in node.children]
        if node.kind in {"Append", "MergeAppend", "Merge Append"}:
            kinds = {json.dumps([child[0], *child[3:]]): child for child in children}
            children = [[child[0], "", "", *child[3:]] for child in kinds.values()]
        names = node.condition("Index Cond")
        columns = sorted({column.name for column in names.columns}) if names is not None else []
        return [node.kind, node.relation, node.index, node.join_type, node.relationship, columns, children]

    def to_json(self) -> dict[str, Any]:
        """The plan in PostgreSQL's form, without its constants."""
        plain: dict[str, Any] = {"Plan": _masked_fields(self.root)}
        if self.settings:
            plain["Settings"] = shown_settings(self.settings)
        return plain


def parse(value: object) -> Plan:
    """
    The plan that EXPLAIN (FORMAT JSON) returned: its text, or what a driver made of it.

    Raises:
        PlanError: it is no such plan.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        value = bytes(value).decode("utf-8", "replace")
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise PlanError("a plan: found text that is no JSON; EXPLAIN (FORMAT JSON) is needed") from None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict) or not isinstance(value.get("Plan"), dict):
        raise PlanError(f"a plan: found {type(value).__name__} without 'Plan'; EXPLAIN (FORMAT JSON) is needed")
    settings = value.get("Settings")
    root = _node(value["Plan"])
    return Plan(
        root=root,
        settings={str(name): str(each) for name, each in settings.items()} if isinstance(settings, dict) else {},
        analyzed="Actual Loops" in root.fields,
        planning_seconds=_seconds(value.get("Planning Time")),
        execution_seconds=_seconds(value.get("Execution Time")),
    )


def _seconds(milliseconds: object) -> float | None:
    return float(milliseconds) / 1e3 if isinstance(milliseconds, int | float) else None


def _node(top: dict[str, Any]) -> Node:
    """Without recursion: a plan may be deeper than Python's stack."""
    order: list[tuple[dict[str, Any], list[int]]] = []
    waiting: list[tuple[dict[str, Any], int]] = [(top, -1)]
    while waiting:
        fields, parent = waiting.pop()
        if len(order) >= MAX_NODES:
            raise PlanError(f"a plan: found more than {MAX_NODES:,} nodes; no rule is made for that")
        number = len(order)
        order.append((fields, []))
        if parent >= 0:
            order[parent][1].append(number)
        plans = fields.get("Plans")
        if isinstance(plans, list):
            waiting += [(plan, number) for plan in reversed(plans) if isinstance(plan, dict)]
    made: dict[int, Node] = {}
    for number in range(len(order) - 1, -1, -1):
        fields, children = order[number]
        made[number] = Node(
            number,
            str(fields.get("Node Type", "Unknown")),
            {name: value for name, value in fields.items() if name != "Plans"},
            tuple(made[child] for child in children),
        )
    return made[0]


def _masked_fields(node: Node) -> dict[str, Any]:
    fields = {name: _masked_value(name, value) for name, value in node.fields.items()}
    if node.children:
        fields["Plans"] = [_masked_fields(child) for child in node.children]
    return fields


def _masked_value(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float) or name in _NAMES:
        return value
    if isinstance(value, str):
        return conditions.masked(value)
    if isinstance(value, list):
        return [_masked_value(name, item) for item in value]
    if isinstance(value, dict):
        return {str(key): _masked_value(str(key), item) for key, item in value.items()}
    return "?"


def shown_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """*settings* as they may be shown: the application's own ones (`app.tenant`) hold data, and keep their names."""
    return {
        name: value if name.startswith(_PLAIN_SETTINGS) or "." not in name else "?" for name, value in settings.items()
    }


def render(plan: Plan, *, costs: bool = True) -> str:
    """The plan as a tree of text, each node with its share of the cost or time, without constants."""
    lines: list[str] = []
    waiting: list[tuple[Node, int]] = [(plan.root, 0)]
    while waiting:
        node, depth = waiting.pop()
        if node.number >= MAX_SHOWN:
            lines.append(f"… and {len(plan.nodes) - MAX_SHOWN:,} nodes more")
            break
        pad = "  " * depth
        below = f"{node.fields['Subplan Name']}: " if "Subplan Name" in node.fields else ""
        lines.append(f"{pad}{'-> ' if depth else ''}{below}{node.title}{_figures(plan, node) if costs else ''}")
        pad += "     " if depth else "  "
        for name in _SHOWN:
            value = node.fields.get(name)
            if value:
                text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
                lines.append(f"{pad}{name}: {_shortened(conditions.masked(text))}")
        lines += [f"{pad}{line}" for line in _measured(node)]
        waiting += [(child, depth + 1) for child in reversed(node.children)]
    if plan.settings:
        said = ", ".join(f"{name} = {value}" for name, value in shown_settings(plan.settings).items())
        lines.append(f"Settings: {said}")
    return "\n".join(lines)


def _figures(plan: Plan, node: Node) -> str:
    rows = f"rows {_count(node.rows)}"
    if node.actual_rows is not None:
        rows += f", really {_count(node.actual_rows)}"
        if (node.actual_loops or 0) > 1:
            rows += f" x {_count(node.actual_loops or 0)}"
    return f"  ({plan.share(node):.0%}, cost {node.total_cost:,.0f}, {rows})".replace("%", " %")


def _measured(node: Node) -> Iterator[str]:
    fields = node.fields
    for name in ("Rows Removed by Filter", "Rows Removed by Index Recheck", "Rows Removed by Join Filter"):
        if fields.get(name):
            yield f"{name}: {_count(node.number_of(name))}"
    if fields.get("Sort Space Type") == "Disk":
        yield f"Sorted on disk: {node.number_of('Sort Space Used'):,.0f} kB"
    if fields.get("Subplans Removed"):
        yield f"Partitions pruned: {node.number_of('Subplans Removed'):,.0f}"


def _count(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"  # noqa: PLR2004


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_LINE else text[: MAX_LINE - 1] + "…"
