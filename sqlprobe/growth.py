"""
Scale tests: an action must not run more statements because there is more data.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, overload

from sqlprobe import render
from sqlprobe.model import SqlprobeError
from sqlprobe.probe import record
from sqlprobe.verdict import CheckError, indented, told

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Sequence

    from sqlprobe.model import Finding, Site
    from sqlprobe.recording import Recording

SIZES: Final = (2, 5)
_STATEMENT: Final = 72  # columns
_waiting: set[object] = set()  # a token for each async scale test that nobody has awaited yet


class GrowthError(SqlprobeError, ValueError):
    """A scale test that cannot be made as it was asked for."""


@dataclass(frozen=True, slots=True)
class Growth:
    """
    One statement at each size: `counts` are its calls, in the order of the sizes; `site` is the line that ran it.
    """

    text: str
    counts: tuple[int, ...]
    site: Site | None = None

    @property
    def grew(self) -> int:
        """Calls at the last size beyond those at the first, or at whichever size had more."""
        return max(later - min(self.counts[:index]) for index, later in enumerate(self.counts) if index)


@overload
def assert_constant(  # type: ignore[overload-overlap]
    populate: Callable[[int], Awaitable[object]],
    action: Callable[[], object],
    *,
    sizes: Sequence[int] = ...,
    slope: float = ...,
    cumulative: bool = ...,
    session: Any = ...,
    zero_ok: bool = ...,
) -> Coroutine[Any, Any, tuple[Growth, ...]]: ...
@overload
def assert_constant(  # type: ignore[overload-overlap]
    populate: Callable[[int], object],
    action: Callable[[], Awaitable[object]],
    *,
    sizes: Sequence[int] = ...,
    slope: float = ...,
    cumulative: bool = ...,
    session: Any = ...,
    zero_ok: bool = ...,
) -> Coroutine[Any, Any, tuple[Growth, ...]]: ...
@overload
def assert_constant(
    populate: Callable[[int], object],
    action: Callable[[], object],
    *,
    sizes: Sequence[int] = ...,
    slope: float = ...,
    cumulative: bool = ...,
    session: Any = ...,
    zero_ok: bool = ...,
) -> tuple[Growth, ...]: ...
def assert_constant(
    populate: Callable[[int], object],
    action: Callable[[], object],
    *,
    sizes: Sequence[int] = SIZES,
    slope: float = 0,
    cumulative: bool = False,
    session: Any = None,
    zero_ok: bool = False,
) -> Any:
    """
    Assert that *action* runs each statement as often with much data as with little.

    For each of *sizes*, `populate(size)` makes the data (that many parents, each with children) and `action()` reads
    it; the first size has a run more, before, that fills caches and is not counted. The answer says of each statement
    how often it ran at each size. Where either of the two is async, so is this: await it.

    *slope* allows that many statements more for each one by which the size grows, all statements together.
    *cumulative* says that populate adds to what is there: the data is then of the sizes' sums. *session* (a Session or
    AsyncSession that both use) is flushed and emptied before each run: objects that it still held would be read without
    a statement, and hide what a new request would run. *zero_ok* lets an action pass that runs no statement.

    Raises:
        CheckError: an AssertionError: a statement ran more often; or none ran at all, so nothing was tested.
        GrowthError: *sizes* are not two or more different numbers, smallest first.

    Example:
        >>> import sqlalchemy as sa, sqlprobe
        >>> engine = sa.create_engine("sqlite://")
        >>> def populate(size):
        ...     pass
        >>> def action():
        ...     with engine.connect() as connection:
        ...         connection.execute(sa.text("select 1"))
        >>> [statement.counts for statement in sqlprobe.assert_constant(populate, action)]
        [(1, 1)]
    """
    __tracebackhide__ = True
    sizes = check_sizes(sizes)
    if isinstance(slope, bool) or not isinstance(slope, int | float) or not slope >= 0:
        raise GrowthError(f"assert_constant(slope={slope!r}): a number of statements from 0 on is needed, such as 1")
    steps = _steps(populate, action, sizes, slope, cumulative=cumulative, session=session, zero_ok=zero_ok)
    while True:
        try:
            done = next(steps)
        except StopIteration as end:
            return end.value
        if inspect.isawaitable(done):
            _waiting.add(token := object())
            return _finish(steps, done, token)


class Runs:
    """What an action ran at each size, as the sizes come."""

    def __init__(self, slope: float, *, zero_ok: bool) -> None:
        self.sizes: list[int] = []
        self.recordings: list[Recording] = []
        self._slope = slope
        self._zero_ok = zero_ok

    def add(self, size: int, recording: Recording) -> None:
        self.sizes.append(size)
        self.recordings.append(recording)

    def judge(self, action: str) -> tuple[Growth, ...]:
        """
        What each statement did over the sizes, most growth first; *action* names what ran.

        Raises:
            CheckError: there was more growth than the slope allows, or no statement at all.
        """
        __tracebackhide__ = True
        if not self._zero_ok and not any(recording.calls for recording in self.recordings):
            raise CheckError(
                f"{action} ran no statement at any size ({self._told_sizes()}): nothing was tested.\n"
                "  Check that it uses the database, and that no cache answered; zero_ok=True lets it pass."
            )
        growths = self._growths()
        grew = sum(each.grew for each in growths if each.grew > 0)
        allowed = self._slope * (max(self.sizes) - min(self.sizes))
        if grew > allowed:
            raise CheckError(self._verdict(action, growths, grew, allowed))
        return tuple(growths)

    def _growths(self) -> list[Growth]:
        by_size = []
        for recording in self.recordings:
            sums: dict[str, tuple[str, int, Site | None]] = {}
            for each in recording.statements:
                _, calls, site = sums.get(each.fingerprint, ("", 0, None))
                site = site or (each.sites[0].site if each.sites else None)
                sums[each.fingerprint] = (each.text, calls + each.calls, site)
            by_size.append(sums)
        names = dict.fromkeys(name for sums in reversed(by_size) for name in sums)
        growths = []
        for name in names:
            known = [sums[name] for sums in by_size if name in sums]
            counts = tuple(sums[name][1] if name in sums else 0 for sums in by_size)
            growths.append(Growth(known[-1][0], counts, known[-1][2]))
        return sorted(growths, key=lambda each: (-each.grew, -max(each.counts)))

    def _told_sizes(self) -> str:
        return ", ".join(map(str, self.sizes))

    def _verdict(self, action: str, growths: Sequence[Growth], grew: int, allowed: float) -> str:
        growing = [each for each in growths if each.grew > 0]
        span = max(self.sizes) - min(self.sizes)
        limit = f"slope {self._slope:g} allows {allowed:g}" if self._slope else "none may grow"
        more = render.plural(grew, "statement")
        lines = [
            f"{action} runs more statements when there is more data: {more} more for {span} more ({limit}).",
            "",
            *_table(self.sizes, growing),
        ]
        same = len(growths) - len(growing)
        if same:
            lines += ["", f"  {render.plural(same, 'other statement')} did not grow"]
        lines += ["", *_culprit(growing, self.recordings[-1].findings)]
        return "\n".join(lines).rstrip()


def check_sizes(sizes: object) -> tuple[int, ...]:
    """
    *sizes* as a tuple.

    Raises:
        GrowthError: they are not two or more different whole numbers from 1 on, smallest first.
    """
    wanted = tuple(sizes) if isinstance(sizes, (tuple, list, range)) else ()
    fits = all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in wanted)
    if len(wanted) < 2 or not fits or sorted(set(wanted)) != list(wanted):  # noqa: PLR2004 - growth needs two
        raise GrowthError(
            f"sizes={sizes!r}: two or more different whole numbers are needed, smallest first, such as {SIZES}"
        )
    return wanted


def unawaited() -> int:
    """Async scale tests that nobody has awaited, so that they tested nothing; they are forgotten by this."""
    count = len(_waiting)
    _waiting.clear()
    return count


def _steps(
    populate: Callable[[int], object],
    action: Callable[[], object],
    sizes: Sequence[int],
    slope: float,
    *,
    cumulative: bool,
    session: Any,
    zero_ok: bool,
) -> Generator[object, object, tuple[Growth, ...]]:
    """Yields what each call returned, to be awaited where it can be."""
    __tracebackhide__ = True
    runs = Runs(slope, zero_ok=zero_ok)
    there = 0
    for index, size in enumerate(sizes):
        there = there + size if cumulative else size
        yield populate(size)
        if not index:
            yield from _emptied(session)
            yield action()
        yield from _emptied(session)
        with record() as recording:
            yield action()
        runs.add(there, recording)
    return runs.judge(getattr(action, "__name__", "action"))


def _emptied(session: Any) -> Iterable[object]:
    if session is not None:
        yield session.flush()
        session.expunge_all()


async def _finish(
    steps: Generator[object, object, tuple[Growth, ...]], first: Awaitable[object], token: object
) -> tuple[Growth, ...]:
    __tracebackhide__ = True
    _waiting.discard(token)
    pending: object = first
    while True:
        try:
            if inspect.isawaitable(pending):
                await pending
        except BaseException as error:
            # The user's: the recording that is open ends, and it goes on up.
            steps.throw(error)
            raise
        try:
            pending = next(steps)
        except StopIteration as end:
            result: tuple[Growth, ...] = end.value
            return result


def _table(sizes: Sequence[int], growths: Sequence[Growth]) -> list[str]:
    numbers = [[f"{size:,}", *(f"{growth.counts[index]:,}" for growth in growths)] for index, size in enumerate(sizes)]
    widths = [max(map(len, column)) + 2 for column in numbers]
    rows = []
    for number, cells in enumerate(zip(*numbers, strict=True)):
        text = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        if not number:
            rows.append(f"  size  {text}")
            continue
        growth = growths[number - 1]
        sql = render._cut_statement(render.harmless(growth.text), _STATEMENT)  # noqa: SLF001 - the same package
        rows.append(f"        {text}   {sql}")
        if growth.site is not None:
            rows.append(f"        {' ' * len(text)}     {render.harmless(str(growth.site))}")
    return rows


def _culprit(growing: Sequence[Growth], findings: Sequence[Finding]) -> list[str]:
    sites = [growth.site for growth in growing]
    # Findings of statements that did not grow would lead astray.
    fitting = [finding for finding in findings if finding.site in sites]
    return [line for finding in fitting[:2] for line in indented(told(finding)).split("\n")]
