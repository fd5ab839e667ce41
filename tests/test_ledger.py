from __future__ import annotations

import sys
import threading

import pytest

import sqlprobe
from sqlprobe import faults, ledger, scopes
from sqlprobe.ledger import Ledger
from sqlprobe.model import Finding
from sqlprobe.scopes import Digest, Window

DAY = 86_400.0


@pytest.fixture(autouse=True)
def no_faults_of_others():
    faults.forget()


def finding(key="a", at=1000.0, seconds=1.0, count=1, **more):
    return Finding(
        rule="n-plus-one", severity="warning", title=f"{key} {seconds}", advice="", key=key, count=count,
        seconds=seconds, first_seen=at, last_seen=at, **more,
    )  # fmt: skip


def window(calls=1, ns=1000, distinct=1):
    digest = Digest("work", scopes.NO_LIMIT)
    digest.shapes = {(str(number), ""): None for number in range(distinct)}
    return Window(digest, calls, ns, 0, 0, 2 * ns)


# --- findings ---------------------------------------------------------------------------------------------------------


def test_findings_of_one_key_are_summed_and_told_by_the_costlier():
    book = Ledger(DAY)
    book.add([finding(at=1000.0, seconds=1.0, count=3), finding(at=1010.0, seconds=5.0, count=7)])
    book.add([finding(at=1005.0, seconds=2.0, count=1)])

    (one,) = book.findings(1011.0)
    assert ("a 5.0", 11, 8.0, 3, 1000.0, 1010.0) == (
        one.title, one.count, one.seconds, one.occurrences, one.first_seen, one.last_seen,
    )  # fmt: skip


def test_finding_leaves_when_it_has_not_been_seen_for_the_time_to_live():
    book = Ledger(60.0)
    book.add([finding("mended", at=1000.0), finding("there", at=1000.0)])
    book.add([finding("there", at=1050.0)])

    assert (["mended", "there"], ["there"], []) == tuple(
        [item.key for item in book.findings(now)] for now in (1060.0, 1061.0, 1111.0)
    )


def test_finding_that_comes_back_after_its_time_begins_anew():
    book = Ledger(60.0)
    book.add([finding(at=1000.0, count=100)])
    book.add([finding(at=1061.0, count=1)])

    assert [(1, 1061.0)] == [(item.count, item.first_seen) for item in book.findings(1062.0)]


def test_findings_are_bounded_and_what_is_over_is_counted():
    book = Ledger(DAY)
    book.add(finding(str(number)) for number in range(ledger.MAX_FINDINGS + 5))
    book.add([finding("0", count=9)])

    kept = book.findings(1001.0)
    assert (ledger.MAX_FINDINGS, 5, 10) == (len(kept), book.dropped, kept[0].count)


def test_full_ledger_makes_room_for_what_is_new_when_the_old_has_aged():
    """Nobody asks for a report: an application that only has `on_finding`."""
    told = []
    book = Ledger(60.0, told.append)
    book.add(finding(str(number), at=1000.0) for number in range(ledger.MAX_FINDINGS))
    book.add([finding("too early", at=1030.0)])
    book.add([finding("later", at=1100.0)])

    assert (1, ["later"], "later") == (book.dropped, [item.key for item in book.findings(1100.0)], told[-1].key)


def test_callback_is_called_once_for_a_key_and_again_after_its_time():
    told = []
    book = Ledger(60.0, told.append)
    for at in (1000.0, 1050.0, 1100.0, 1200.0):
        book.add([finding("a", at=at), finding("b", at=1000.0)])

    assert [("a", 1000.0), ("b", 1000.0), ("a", 1200.0)] == [(item.key, item.first_seen) for item in told]


def test_callback_that_raises_is_counted_and_the_others_are_told():
    def refuse(item):
        told.append(item.key)
        raise LookupError

    told = []
    book = Ledger(DAY, refuse)
    book.add([finding("a"), finding("b")])

    counted = [(fault.where, fault.error.split()[0], fault.count) for fault in faults.told()]
    faults.forget()
    assert (["a", "b"], [("on_finding", "LookupError", 2)], 2) == (told, counted, len(book.findings(1000.0)))


def test_callback_may_use_the_ledger():
    book = Ledger(DAY, lambda item: seen.append(len(book.findings(1000.0))))
    seen = []
    book.add([finding("a"), finding("b")])

    assert [2, 2] == seen


def test_findings_from_many_threads_lose_no_count():
    def work():
        for number in range(500):
            book.add([finding(str(number % 7))])

    book = Ledger(DAY)
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 4000 == sum(item.count for item in book.findings(1001.0))


@pytest.mark.parametrize("order", [(1.0, 3.0, 2.5), (3.0, 2.5, 1.0), (2.5, 1.0, 3.0)])
def test_finding_is_told_by_the_costliest_whichever_comes_first(order):
    book = ledger.Ledger(100.0)
    for seconds in order:
        book.add([finding(seconds=seconds, scope=f"took {seconds}")])

    (told,) = book.findings(1000.0)

    assert ("took 3.0", 6.5, 3) == (told.scope, told.seconds, told.occurrences)


# --- scopes -----------------------------------------------------------------------------------------------------------


def test_scopes_of_one_name_are_summed():
    book = Ledger(DAY)
    book.scope("work", "task").add(window(calls=3, ns=5_000, distinct=2))
    book.scope("work", "task").add(window(calls=1, ns=1_000))
    book.scope("work", "request").add(window())
    book.scope("work", "task").came_late()

    assert [("work", "task", 2, 4, 3, 6e-06, 1.2e-05, 3, 1), ("work", "request", 1, 1, 1, 1e-06, 2e-06, 1, 0)] == [
        (
            item.name, item.kind, item.count, item.calls, item.distinct, item.seconds, item.wall_seconds, item.p95_calls,
            item.late,
        )
        for item in book.scopes()
    ]  # fmt: skip


def test_scope_names_are_bounded_and_the_rest_is_told_together():
    book = Ledger(DAY)
    for number in range(ledger.MAX_SCOPES + 50):
        book.scope(f"GET /orders/{number}", "request").add(window())

    stats = book.scopes()
    assert (ledger.MAX_SCOPES + 1, (ledger.OTHER, "request", 50)) == (
        len(stats),
        (stats[-1].name, stats[-1].kind, stats[-1].count),
    )


def test_scope_that_was_asked_for_and_never_ended_is_not_told():
    book = Ledger(DAY)
    book.scope("work", "task")

    assert () == book.scopes()


def test_threads_that_end_scopes_of_one_name_lose_none():
    def work():
        for _ in range(2000):
            book.scope("work", "task").add(one)

    book, one = Ledger(DAY), window(calls=3, distinct=2)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)

    (stats,) = book.scopes()
    assert (8000, 24_000, 16_000) == (stats.count, stats.calls, stats.distinct)


def test_forget_leaves_nothing():
    book = Ledger(DAY)
    book.add([finding()])
    book.scope("work", "task").add(window())
    book.forget()

    assert ((), (), 0) == (book.findings(1000.0), book.scopes(), book.dropped)


# --- through a probe --------------------------------------------------------------------------------------------------


def test_report_says_how_many_findings_were_over_the_bound(engine):
    with sqlprobe.attach(engine) as probe:
        probe._ledger.add(finding(str(number), at=2e9) for number in range(ledger.MAX_FINDINGS + 3))

        assert ("3 further findings were over the bound and are not told",) == probe.report().notes
