"""
Counting is exact: against a clock that only the database advances, and against sums worked out by hand.
"""

from __future__ import annotations

import itertools
import random
import sys
import threading
from bisect import bisect_left
from types import SimpleNamespace

import hypothesis
import pytest
import sqlalchemy as sa
from hypothesis import strategies as st
from sqlalchemy import event

import sqlprobe
from sqlprobe import capture, faults
from sqlprobe.fingerprint import shape_of
from sqlprobe.sites import Place
from sqlprobe.stats import (
    BOUNDS,
    BOUNDS_NS,
    BUCKETS,
    CALL_BOUNDS,
    MAX_SITES,
    Tally,
    call_percentile,
    merged,
    percentile,
    statement_stats,
    wall,
)

SHAPE = shape_of("select 1")
elapsed = st.integers(min_value=0, max_value=200 * 10**9)


def tally_of(*nanoseconds, engine="a", rows=-1):
    tally = Tally(SHAPE, engine, first_ns=1_000)
    for number, value in enumerate(nanoseconds):
        tally.add(value, 1_000 + number, rows)
    return tally


def places(count):
    return [Place(places.__code__, number, None, 0) for number in range(count)]


# --- the histogram ----------------------------------------------------------------------------------------------------


def test_bounds_are_1_25_5_from_10_microseconds_to_60_seconds():
    # What OpenTelemetry advises for db.client.operation.duration.
    advised = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)

    assert sorted(BOUNDS) == list(BOUNDS)
    assert (10e-6, 60.0, 21) == (BOUNDS[0], BOUNDS[-1], len(BOUNDS))
    assert set(advised) <= set(BOUNDS)
    assert [bound * 10**9 for bound in BOUNDS] == pytest.approx(BOUNDS_NS, rel=1e-12)
    assert 2.5 >= max(high / low for low, high in itertools.pairwise(BOUNDS))


@pytest.mark.parametrize("index", range(len(BOUNDS)))
def test_a_bound_belongs_to_the_bucket_below_it(index):
    """As Prometheus has it: `le`."""
    for difference, bucket in ((0, index), (1, index + 1), (-1, index)):
        buckets = [0] * BUCKETS
        buckets[bucket] = 1

        assert buckets == tally_of(BOUNDS_NS[index] + difference).buckets


@hypothesis.given(values=st.lists(elapsed, min_size=1, max_size=50), q=st.floats(min_value=0, max_value=1))
def test_percentile_is_never_below_the_true_one_and_at_most_two_and_a_half_times_it(values, q):
    tally = tally_of(*values)
    ordered = sorted(values)
    rank = next(i for i in range(1, len(values) + 1) if i >= q * len(values))
    true = ordered[rank - 1] / 1e9
    found = percentile(tally.buckets, q, max(values) / 1e9)

    assert true <= found
    assert found <= max(true * 2.5 * (1 + 1e-9), BOUNDS[0]) or found == max(values) / 1e9


def test_percentile_edges():
    buckets = [0] * BUCKETS
    buckets[3], buckets[5], buckets[-1] = 90, 9, 1

    assert [BOUNDS[3], BOUNDS[3], BOUNDS[5], BOUNDS[5], float("inf"), 75.0] == [
        percentile(buckets, 0),
        percentile(buckets, 0.9),
        percentile(buckets, 0.91),
        percentile(buckets, 0.99),
        percentile(buckets, 1),
        percentile(buckets, 1, largest=75.0),
    ]


def test_percentile_of_one_call_is_its_time():
    assert 0.000123 == percentile(tally_of(123_000).buckets, 0.95, 0.000123)


@pytest.mark.parametrize("q", [-0.01, 1.01, 95, float("nan")])
def test_percentile_out_of_range_is_refused(q):
    with pytest.raises(ValueError, match=r"a share from 0 to 1 is needed; for the 95th percentile pass 0\.95"):
        percentile([1] * BUCKETS, q)


def test_percentile_of_nothing_is_refused():
    with pytest.raises(ValueError, match="every bucket is 0"):
        percentile([0] * BUCKETS, 0.5)


def test_calls_of_a_scope_are_exact_up_to_twelve():
    for calls in range(13):
        buckets = [0] * (len(CALL_BOUNDS) + 1)
        buckets[bisect_left(CALL_BOUNDS, calls)] = 1

        assert calls == call_percentile(buckets, 0.95)


# --- tallies ----------------------------------------------------------------------------------------------------------


@hypothesis.given(parts=st.lists(st.lists(elapsed, min_size=1, max_size=10), min_size=1, max_size=5))
def test_merging_is_as_if_one_had_counted_everything(parts):
    together = Tally(SHAPE, "a", 1_000)
    for part in parts:
        together.merge(tally_of(*part, rows=2))
    values = [value for part in parts for value in part]
    whole = tally_of(*values, rows=2)

    names = ("buckets", "total_ns", "min_ns", "max_ns", "rows", "first_ns")
    assert [getattr(whole, name) for name in names] == [getattr(together, name) for name in names]


def test_merging_keeps_errors_places_pages_and_the_slowest_line():
    slow, quick = places(2)
    first, second = tally_of(100), tally_of(900, 50)
    first.failed("23505")
    second.failed("23505")
    second.failed("TimeoutError")
    first.seen_at(quick)
    second.seen_at(quick)
    second.seen_at(slow)
    first.slowest, second.slowest = quick, slow
    first.pages, second.sets = 2, 7
    [both] = merged([first, second]).values()

    assert ({"23505": 2, "TimeoutError": 1}, {quick: 2, slow: 1}, slow, 2, 7) == (
        both.errors, both.places, both.slowest, both.pages, both.sets,
    )  # fmt: skip
    assert (1, {"23505": 1}) == (first.calls, first.errors)


def test_merging_unknown_rows_keeps_the_known_ones():
    assert [-1, 3, 5] == [
        merged([tally_of(1, rows=a), tally_of(1, rows=b)])[SHAPE.fingerprint, "a"].rows
        for a, b in ((-1, -1), (-1, 3), (2, 3))
    ]


def test_one_statement_on_two_engines_is_two():
    assert {(SHAPE.fingerprint, "a"): 2, (SHAPE.fingerprint, "b"): 1} == {
        key: tally.calls for key, tally in merged([tally_of(1), tally_of(1, engine="b"), tally_of(1)]).items()
    }


def test_places_past_the_bound_are_not_kept_and_known_ones_go_on():
    tally = tally_of(1)
    many = places(100)
    for place in many * 2:
        tally.seen_at(place)

    assert dict.fromkeys(many[: 4 * MAX_SITES], 2) == tally.places


def test_reader_between_two_writes_reads_no_nonsense():
    """The bucket is written first and the smallest time last: whatever a reader meets, it shows no time of 146 years."""
    tally = tally_of()
    tally.buckets[3] += 1
    assert (1, 0.0, 0.0) == ((stats := tally.stats()).calls, stats.min, stats.max)
    tally.max_ns = 80_000

    assert (80e-6, 80e-6) == ((stats := tally.stats()).min, stats.max)


def test_statement_without_calls_has_no_percentiles():
    stats = Tally(SHAPE, "a").stats()

    assert (0, 0.0, 0.0, 0.0, 0.0, 0.0) == (stats.calls, stats.min, stats.max, stats.p50, stats.p95, stats.p99)


def test_wall_time_is_unix_time():
    import time

    assert time.time() == pytest.approx(wall(time.perf_counter_ns()), abs=1)


# --- what capture counts ----------------------------------------------------------------------------------------------


@pytest.fixture
def spender(make_engine, monkeypatch):
    """An engine whose SQL function `spend(nanoseconds)` advances the clock that capture reads; below 0 it fails."""
    clock = SimpleNamespace(now=5_000)

    def spend(nanoseconds):
        if nanoseconds < 0:
            clock.now -= nanoseconds
            raise ValueError
        clock.now += nanoseconds
        return nanoseconds

    monkeypatch.setattr(capture, "perf_counter_ns", lambda: clock.now)
    engine = make_engine()
    event.listen(engine, "connect", lambda connection, _: connection.create_function("spend", 1, spend))
    return engine


def test_every_figure_of_a_statement_is_exact(spender):
    chance = random.Random(7)
    values = [chance.choice([1, 10_000, 10_001, 24_000, 10**6, 10**9, 61 * 10**9]) for _ in range(500)]
    failed = values[::50]
    statement = sa.text("select spend(:ns)")
    with sqlprobe.attach(spender) as probe, sqlprobe.record() as recording, spender.connect() as connection:
        for value in values:
            connection.execute(statement, {"ns": value}).all()
        for value in failed:
            with pytest.raises(sa.exc.OperationalError):
                connection.execute(statement, {"ns": -value})
    every = values + failed
    histogram = [0] * BUCKETS
    for value in every:
        histogram[bisect_left(BOUNDS_NS, value)] += 1
    [found] = probe.report().statements
    [recorded] = recording.statements

    for item in (found, recorded):
        assert (
            statement_stats(
                fingerprint=item.fingerprint,
                text="select spend(?)",
                summary=item.summary,
                operation=item.operation,
                tables=(),
                engine=item.engine,
                errors={"OperationalError": len(failed)},
                rows=None,
                parameter_sets=len(every),
                pages=len(every),
                seconds=sum(every) / 1e9,
                min=min(every) / 1e9,
                max=max(every) / 1e9,
                first_seen=wall(5_000),
                last_seen=wall(5_000 + sum(every) - failed[-1]),
                sites=item.sites,
                slowest=item.slowest,
                histogram=tuple(histogram),
            )
            == item
        )


def test_slowest_names_the_line_of_the_slowest_call(spender):
    statement = sa.text("select spend(:ns)")
    with sqlprobe.attach(spender) as probe, spender.connect() as connection:
        connection.execute(statement, {"ns": 5}).all()
        connection.execute(statement, {"ns": 900}).all()
        line = sys._getframe().f_lineno - 1
        connection.execute(statement, {"ns": 7}).all()
    [item] = probe.report().statements

    assert (line, 900e-9) == (item.slowest.line, item.max)


# --- threads ----------------------------------------------------------------------------------------------------------


def in_threads(count, work):
    """Run `work(number)` in *count* threads that start together; raises what one of them raised."""
    errors = []
    barrier = threading.Barrier(count)

    def guarded(number):
        try:
            barrier.wait()
            work(number)
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("interval", [None, 1e-5], ids=["default switches", "frantic switches"])
def test_eight_threads_lose_no_call(make_engine, sqlite_url, interval, size):
    """A reader merges all the while."""
    engine = make_engine(sqlite_url(), poolclass=sa.NullPool)
    statements = [sa.text(f"select {number} as c{number}") for number in range(4)]
    each = size(2_000, 400)
    before = sys.getswitchinterval()
    if interval:
        sys.setswitchinterval(interval)
    try:
        with sqlprobe.attach(engine) as probe:
            done = threading.Event()

            def read():
                last = 0
                while not done.is_set():
                    now = sum(item.calls for item in probe.report().statements)
                    assert last <= now
                    last = now

            def work(number):
                if number == 8:
                    read()
                    return
                with engine.connect() as connection:
                    for turn in range(each):
                        connection.execute(statements[turn % 4]).all()
                finished.append(number)
                if len(finished) == 8:
                    done.set()

            finished = []
            in_threads(9, work)
    finally:
        sys.setswitchinterval(before)
    found = {item.text: (item.calls, sum(item.histogram)) for item in probe.report().statements}

    assert {f"select ? as c{number}": (8 * each // 4, 8 * each // 4) for number in range(4)} == found
    assert () == faults.told()


def test_five_hundred_threads_that_end_lose_nothing(make_engine, sqlite_url):
    engine = make_engine(sqlite_url(), poolclass=sa.NullPool)
    statement = sa.text("select 1")

    def work(_=0):
        with engine.connect() as connection:
            connection.execute(statement).all()

    with sqlprobe.attach(engine) as probe:
        for _ in range(10):
            in_threads(25, work)
        for _ in range(250):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        [watched] = capture.watched_by(probe)
        tables = len(watched.tables)

    assert [500] == [item.calls for item in probe.report().statements]
    # Identifiers of ended threads are given out again, and the tables with them.
    assert 60 >= tables
