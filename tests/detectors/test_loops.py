from __future__ import annotations

import asyncio
import sys

import pytest

from sqlprobe import loops, sites

pytestmark = pytest.mark.versions


def here():
    """Whether the caller's line is in a loop."""
    return loops.in_loop(sites.Place(sys._getframe(1).f_code, sys._getframe(1).f_lasti, None, 0))


def above():
    """Whether the line that called the caller is in a loop."""
    frame = sys._getframe(1).f_back
    return loops.in_loop(sites.Place(frame.f_code, frame.f_lasti, None, 0))


def helper():
    return above()


def test_for_while_and_comprehensions_are_loops():
    found = []
    for _ in range(1):
        found.append(here())  # noqa: PERF401 - the loop is what is tested
    left = 1
    while left:
        left -= 1
        found.append(here())
    found += [here() for _ in range(1)]
    found += list({here() for _ in range(1)})
    found += list(here() for _ in range(1))  # noqa: C400 - a generator is what is tested
    found += [helper() for _ in range(1)]

    assert [True] * 6 == found


def test_straight_code_is_none():
    before = here()
    for _ in range(1):
        pass
    between = here()
    with pytest.raises(ZeroDivisionError):
        raise ZeroDivisionError
    try:
        inside = here()
        raise ValueError  # noqa: TRY301 - a handler is what is tested
    except ValueError:
        handler = here()
    finally:
        last = here()

    assert [False] * 6 == [before, between, inside, handler, last, helper()]


def test_loop_that_returns_the_first_time_is_none():
    def first():
        for _ in range(2):
            return here()
        return None

    assert first() is False


def test_branch_of_a_loop_that_leaves_it_is_none():
    for number in range(2):
        if number == 0:
            found = here()
            break

    assert found is False


def test_try_in_a_loop_is_one():
    found = []
    for _ in range(2):
        try:
            found.append(here())
        except ValueError:
            continue

    assert [True, True] == found


def test_await_is_no_loop_and_async_for_is():
    async def once():
        await asyncio.sleep(0)
        return here()

    async def items():
        yield 1

    async def run():
        alone = await once()
        async with asyncio.Lock():
            within = here()
        found = [here() async for _ in items()]
        async for _ in items():
            await asyncio.sleep(0)
            found.append(here())
        return alone, within, found

    assert (False, False, [True, True]) == asyncio.run(run())


def test_code_of_any_length_takes_bounded_time(monkeypatch):
    monkeypatch.setattr(loops, "MAX_CODE", 10)
    monkeypatch.setattr(loops, "_known", {})
    found = [here() for _ in range(1)]

    assert [False] == found


def test_condition_of_a_while_is_one_line():
    """It is compiled twice: before the loop, and at its end."""
    places = []

    def condition():
        frame = sys._getframe(1)
        places.append(sites.Place(frame.f_code, frame.f_lasti, None, 0))
        return len(places) < 3

    while condition():
        pass

    assert 1 == len({loops.line_of(place) for place in places})


def test_property_is_called_from_one_line():
    """CPython 3.12 stands at the beginning of the instruction at first, and at its end once it is specialised."""
    places = []

    class Team:
        @property
        def size(self):
            frame = sys._getframe()
            places.append(sites.Place(frame.f_code, frame.f_lasti, frame.f_back.f_code, frame.f_back.f_lasti))
            return 1

    for team in [Team() for _ in range(50)]:
        assert 1 == team.size

    assert 1 == len({loops.line_of(place) for place in places})
