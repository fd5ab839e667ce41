"""
Code to paste: loader options, in the form that the query was written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlprobe import orm

if TYPE_CHECKING:
    from collections.abc import Sequence


def query(written: tuple[str, tuple[str, ...]] | None, root: Any, options: Sequence[str]) -> str:
    """
    The query that selects *root*, *written* as `orm.form_of` tells (None: not known), with *options*.

    Where what it selects cannot be written down, only the options.
    """
    joined = ", ".join(options)
    if written is None:
        return f"select({orm.name_of(root)}).options({joined})"
    form, names = written
    if orm.name_of(root) not in names:
        return joined if not names else f"select({orm.name_of(root)}).options({joined})"
    if form == "get":
        return f"session.get({names[0]}, ident, options=[{joined}])"
    head = "session.query" if form == "query" else "select"
    return f"{head}({', '.join(names)}).options({joined})"


def lookup(form: str, found: orm.Lookup) -> str:
    """The query for all `values` of what a query of that *form* looks up one by one, with the value in each row."""
    wanted = found.selects
    if found.attribute.partition(".")[0] not in wanted and found.attribute not in wanted:
        wanted = (found.attribute, *wanted)
    head, where = ("session.query", "filter") if form == "query" else ("select", "where")
    group = f".group_by({found.attribute})" if found.aggregates else ""
    order = f".order_by({', '.join(found.order)})" if found.order else ""
    return f"{head}({', '.join(wanted)}).{where}({found.attribute}.in_(values)){group}{order}"


def option(root: Any, chain: tuple[Any, ...], *, joins: bool = True, state: Any = None) -> str:
    """
    `selectinload(Customer.orders).selectinload(Order.lines)`, or without *joins* no `joinedload` in it.

    What the query whose compile state is *state* loads ahead already stays as it is: two ways would be in conflict.
    """
    steps: list[str] = []
    at = 0
    while at < len(chain):
        prop = chain[at]
        times = next((n for n, other in enumerate(chain[at:]) if other is not prop), len(chain) - at)
        at += times
        name = orm.label_of(prop)
        if at < len(chain) and not orm.has(prop.mapper, chain[at]):
            name += f".of_type({orm.name_of(chain[at].parent)})"
        if times > 1:
            steps.append(f"selectinload({name}, recursion_depth=-1)")
            continue
        loader = "joinedload" if joins and orm.to_one(prop) else "selectinload"
        if state is not None and at < len(chain):
            loader = orm.option_for(state, chain[:at]) or loader
        steps.append(f"{loader}({name})")
    return polymorphic(root, chain[0].parent, ".".join(steps), known=orm.has(root, chain[0]))


def polymorphic(root: Any, subclass: Any, rest: str, *, known: bool = False) -> str:
    """*rest*, an option for an attribute of *subclass*, after what loads it with *root* unless that is *known*."""
    if known:
        return rest
    first = f"selectin_polymorphic({orm.name_of(root)}, [{orm.name_of(subclass)}])"
    return f"{first}, {rest}" if rest else first
