"""
What a marker asks of a test, and what is said where a test does not keep it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pytest

from sqlprobe import render
from sqlprobe.growth import SIZES, GrowthError, check_sizes
from sqlprobe.pytest_plugin.options import Allowance, Mode, allowance, check_mode, near
from sqlprobe.verdict import CheckError, culprits, indented, listing, told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlprobe.model import Finding
    from sqlprobe.recording import Recording

MARKER: Final = "sqlprobe"


_Failed: Any = pytest.fail.Exception


class TestFailed(CheckError, _Failed):  # type: ignore[misc]  # noqa: N818 - what it is, not what failed
    """What the plugin raises in a test's place: shown as its message alone, since no line of the test raised it."""

    __test__ = False

    def __init__(self, message: str) -> None:
        _Failed.__init__(self, message, pytrace=False)


TestFailed.__name__ = CheckError.__name__
TestFailed.__qualname__ = CheckError.__qualname__  # what users are told, and know
TestFailed.__module__ = CheckError.__module__


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What a test may ask of the database: None is any number. `max_seconds` are those in the database.

    `zero_ok` lets a test that ran no statement pass. `populate` makes the test an action that is run at each of
    `sizes`: see `sqlprobe.assert_constant`. `explain` asks for the plans of this test, or not, whatever the suite does.
    """

    max_queries: int | None = None
    max_seconds: float | None = None
    max_rows: int | None = None
    exactly: int | None = None
    zero_ok: bool = False
    allow: tuple[Allowance, ...] = ()
    mode: Mode | None = None
    populate: Callable[[int], object] | str | None = None
    sizes: tuple[int, ...] = SIZES
    slope: float = 0
    cumulative: bool = False
    explain: bool | None = None

    @property
    def any(self) -> bool:
        return not (self.max_queries is self.max_seconds is self.max_rows is self.exactly is None)


NONE: Final = Limits()
_KNOWN: Final = tuple(item.name for item in dataclasses.fields(Limits))


@dataclass(frozen=True, slots=True)
class Seen:
    """The numbers that limits are held against. `recording` gives the statements, where they are to be listed."""

    calls: int
    seconds: float
    rows: int
    unknown_rows: int
    recording: Callable[[], Recording]
    findings: Sequence[Finding] = field(default=())


def limits_of(item: pytest.Item) -> Limits:
    """
    What the markers of *item* say together, the nearest first.

    Raises:
        UsageError: a marker has an argument that cannot be.
    """
    values: dict[str, Any] = {}
    allow: list[Allowance] = []
    for marker in item.iter_markers(MARKER):
        where = f"{item.nodeid}: @pytest.mark.{MARKER}"
        if marker.args:
            shown = ", ".join(map(repr, marker.args))
            raise pytest.UsageError(f"{where}({shown}): arguments need a name, such as max_queries=3")
        for name, value in marker.kwargs.items():
            if name not in _KNOWN:
                raise pytest.UsageError(f"{where}({name}=...): there is no such argument{near(name, _KNOWN)}")
            if name == "allow":
                given = [value] if isinstance(value, str) else value
                if not isinstance(given, (list, tuple, set, frozenset)):
                    raise pytest.UsageError(f"{where}(allow={value!r}): a list is needed, such as ['n-plus-one']")
                allow += [allowance(text, f"{where}(allow=...)") for text in given]
            else:
                values.setdefault(name, _checked(name, value, f"{where}({name}={value!r})"))
    return Limits(**values, allow=tuple(allow))


def _checked(name: str, value: Any, where: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    if name == "mode":
        return check_mode(value, where)
    if name == "populate":
        if not callable(value) and not isinstance(value, str):
            raise pytest.UsageError(f"{where}: a function of the size, or the name of a fixture that is one, is needed")
        return value
    if name == "sizes":
        try:
            return check_sizes(value)
        except GrowthError as error:
            raise pytest.UsageError(f"{where}: {error}") from None
    if name in {"zero_ok", "cumulative", "explain"}:
        if not isinstance(value, bool):
            raise pytest.UsageError(f"{where}: True or False is needed")
    elif not number or (name in {"max_queries", "max_rows", "exactly"} and not isinstance(value, int)):
        kind = "a number" if name in {"max_seconds", "slope"} else "a whole number"
        raise pytest.UsageError(f"{where}: {kind} from 0 on is needed")
    return value


def verdict(name: str, limits: Limits, seen: Seen) -> str | None:
    """What *name* did beyond its *limits*, as a failure reads; None where it kept them."""
    said = _beyond(name, limits, seen)
    if said is None:
        return None
    executions = seen.recording().executions
    lines = [*culprits(executions, seen.findings), *listing(executions, seen.calls, seen.seconds)]
    return f"{said}\n\n{indented(lines)}" if seen.calls else said


def accusation(name: str, findings: Sequence[Finding]) -> str:
    """What fails a test for its *findings*."""
    if len(findings) == 1:
        title, *lines = told(findings[0])
        return f"{name}: {title}\n\n" + "\n".join(lines)
    lines = [line for finding in findings for line in (*told(finding), "")]
    head = f"{name}: {len(findings)} findings"
    return f"{head}\n\n{indented(lines).rstrip()}"


def _beyond(name: str, limits: Limits, seen: Seen) -> str | None:
    calls = render.plural(seen.calls, "statement")
    if not seen.calls and limits.any and not limits.zero_ok and 0 not in {limits.max_queries, limits.exactly}:
        return (
            f"{name} ran no statement, so its budget checked nothing.\n"
            "  Check that it reaches the database through SQLAlchemy; zero_ok=True says that none is meant."
        )
    if limits.exactly is not None and seen.calls != limits.exactly:
        off = seen.calls - limits.exactly
        return f"{name} ran {calls}, exactly {limits.exactly:,} wanted ({abs(off):,} {'over' if off > 0 else 'under'})."
    if limits.max_queries is not None and seen.calls > limits.max_queries:
        over = seen.calls - limits.max_queries
        return f"{name} ran {calls}, budget is {limits.max_queries:,} ({over:,} over)."
    if limits.max_seconds is not None and seen.seconds > limits.max_seconds:
        took, beyond = render.duration(seen.seconds), render.duration(seen.seconds - limits.max_seconds)
        return f"{name} took {took} in the database, budget is {render.duration(limits.max_seconds)} ({beyond} over)."
    if limits.max_rows is not None:
        rows = render.plural(seen.rows, "row")
        if seen.rows > limits.max_rows:
            return f"{name} got {rows}, budget is {limits.max_rows:,} ({seen.rows - limits.max_rows:,} over)."
        if seen.unknown_rows and not limits.zero_ok:
            return (
                f"{name}: max_rows={limits.max_rows} cannot be checked: the driver did not say how many rows "
                f"{seen.unknown_rows:,} of {calls} gave (SQLite never does for a SELECT).\n"
                "  Check it on PostgreSQL; zero_ok=True takes the rows that are known."
            )
    return None
