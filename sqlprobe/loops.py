"""
Loops: whether an instruction of the user's code can run again without its function being called again.

Read off the bytecode, so it needs no source file. Only who judges asks, and each answer is kept.
"""

from __future__ import annotations

import dis
import itertools
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import CodeType

    from sqlprobe.sites import Place

MAX_KNOWN: Final = 5_000
MAX_CODE: Final = 40_000  # bytes of one function: 20,000 instructions take some 20 ms, once

_ENDS: Final = frozenset({"RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE"})
_JUMPS_ALWAYS: Final = frozenset({"JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT"})

_known: dict[tuple[int, int], tuple[CodeType, bool]] = {}


def in_loop(place: Place) -> bool:
    """Whether the line of *place*, or the line that called it, is in a loop or a comprehension."""
    if _is_in_loop(place.code, place.lasti):
        return True
    return place.caller_code is not None and _is_in_loop(place.caller_code, place.caller_lasti)


def line_of(place: Place, *, whoever: bool = False) -> object:
    """
    What is equal for two places of one expression: the condition of a `while` is compiled twice, and CPython 3.12
    stands elsewhere in an instruction when it calls a property for the first time.

    Who called it is a part of that, but not for *whoever*.
    """
    here = (id(place.code), _position(place.code, place.lasti))
    return here if whoever else (*here, id(place.caller_code), _position(place.caller_code, place.caller_lasti))


def _position(code: CodeType | None, lasti: int) -> object:
    return lasti if code is None else next(itertools.islice(code.co_positions(), lasti // 2, None), lasti)


def _is_in_loop(code: CodeType, lasti: int) -> bool:
    known = _known.get((id(code), lasti))
    if known is not None:
        return known[1]
    found = len(code.co_code) <= MAX_CODE and _comes_back(code, lasti)
    if len(_known) >= MAX_KNOWN:
        _known.clear()
    _known[id(code), lasti] = (code, found)  # holds the code object, so that its id stays its own
    return found


def _comes_back(code: CodeType, lasti: int) -> bool:
    """Whether normal control flow leads from the instruction at *lasti* back to it."""
    following: dict[int, list[int]] = {}
    jumps = {*dis.hasjrel, *dis.hasjabs}
    instructions = list(dis.get_instructions(code))
    for instruction, after in itertools.zip_longest(instructions, instructions[1:]):
        leads = following[instruction.offset] = []
        name = instruction.opname
        # An await is a loop of its own, which this jump closes; so it closes nothing of the user's.
        if instruction.opcode in jumps and name != "JUMP_BACKWARD_NO_INTERRUPT":
            leads.append(instruction.argval)
        if after is not None and name not in _ENDS and name not in _JUMPS_ALWAYS:
            leads.append(after.offset)
    # A frame in a call stands at the last of the cache entries that follow the instruction.
    start = max((offset for offset in following if offset <= lasti), default=lasti)
    seen: set[int] = set()
    todo = list(following.get(start, ()))
    while todo:
        offset = todo.pop()
        if offset == start:
            return True
        if offset not in seen:
            seen.add(offset)
            todo += following.get(offset, ())
    return False
