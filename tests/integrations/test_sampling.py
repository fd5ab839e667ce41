"""Sampling, response headers, threads: what the integrations have in common."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

import sqlprobe
from sqlprobe import integrations
from sqlprobe.integrations import Unit, asgi, flask, wsgi
from sqlprobe.integrations.threads import CarryingExecutor, carried

pytestmark = pytest.mark.once


def told(probe):
    return [(item.name, item.count, item.calls, item.unsampled) for item in probe.report().scopes]


def statements(probe):
    return sum(item.calls for item in probe.report().statements)


def serve(app, times=1):
    """What *app* answers to GETs: a status, headers and a body each."""
    answers = []

    def start(status, headers, exc_info=None):
        answers.append([status, headers])

    for _ in range(times):
        body = app({"REQUEST_METHOD": "GET", "sqlprobe.route": "/x"}, start)
        answers[-1].append(b"".join(body))
        getattr(body, "close", lambda: None)()
    return answers


def application(run, times=2):
    def app(environ, start_response):
        run(times)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"x"]

    return app


@pytest.fixture
def always_half(monkeypatch):
    """Draws are 0.1, 0.9, 0.1, 0.9, …"""
    draws = iter([0.1, 0.9] * 1000)
    monkeypatch.setattr(integrations, "_random", type("Random", (), {"random": staticmethod(lambda: next(draws))}))


def test_unsampled_requests_are_counted_and_so_are_their_statements(probe, run, always_half):
    serve(wsgi.SqlprobeMiddleware(application(run), sample=0.5), 10)

    assert ([("GET /x", 5, 10, 5)], 20) == (told(probe), statements(probe))


def test_the_settings_say_the_share(engine, run, always_half):
    with sqlprobe.attach(engine, settings=sqlprobe.Settings(sample=0.5)) as probe:
        serve(wsgi.SqlprobeMiddleware(application(run)), 10)
        serve(wsgi.SqlprobeMiddleware(application(run), sample=1), 1)

        assert [("GET /x", 6, 12, 5)] == told(probe)


def test_nothing_sampled_is_still_counted_and_survives_the_report(engine, run):
    with sqlprobe.attach(engine, settings=sqlprobe.Settings(sample=0.0)) as probe:
        serve(wsgi.SqlprobeMiddleware(application(run)), 3)
        first = probe.report()
        serve(wsgi.SqlprobeMiddleware(application(run)), 4)
        later = probe.report(since=first)

    read = sqlprobe.Report.from_json(sqlprobe.Report.merge(first, later).to_json())
    assert ([3], [4], [7]) == tuple([scope.unsampled for scope in each.scopes] for each in (first, later, read))


def test_a_recording_sees_every_request(engine, run):
    with sqlprobe.attach(engine, settings=sqlprobe.Settings(sample=0.0)) as probe:
        with sqlprobe.record():
            serve(wsgi.SqlprobeMiddleware(application(run)), 2)
        serve(wsgi.SqlprobeMiddleware(application(run)), 1)

        assert [("GET /x", 2, 4, 1)] == told(probe)


def test_an_unsampled_request_inside_a_scope_leaves_its_statements_there(probe, run):
    with sqlprobe.scope("outer") as outer:
        serve(wsgi.SqlprobeMiddleware(application(run), sample=0), 2)

        assert 4 == outer.calls
    assert [("GET /x", 0, 0, 2), ("outer", 1, 4, 0)] == sorted(told(probe))


def test_the_draws_are_ours_alone(probe, run):
    random.seed(7)
    expected = [random.random() for _ in range(3)]
    random.seed(7)
    drawn = []
    app = wsgi.SqlprobeMiddleware(application(lambda _: drawn.append(random.random())), sample=0.5)
    serve(app, 3)

    assert expected == drawn


def test_a_share_is_kept_over_many(probe):
    for _ in range(2000):
        Unit(lambda: "x", "request", 0.25).end()

    (scope,) = probe.report().scopes
    assert (2000, True) == (scope.count + scope.unsampled, 380 <= scope.count <= 630)  # six standard deviations


@pytest.mark.parametrize("share", [-0.1, 1.1, True, "0.5", float("nan")])
@pytest.mark.parametrize("make", [asgi.SqlprobeMiddleware, wsgi.SqlprobeMiddleware, flask.Sqlprobe])
def test_what_is_no_share_is_refused(make, share):
    with pytest.raises(sqlprobe.SqlprobeError, match="a share from 0 to 1 is needed"):
        make(None, sample=share)


def test_units_that_cannot_be_opened_or_closed_are_counted_and_nothing_else(engine, run, monkeypatch):
    from sqlprobe import faults, scopes

    def broken(*_, **__):
        raise ZeroDivisionError

    with sqlprobe.attach(engine):
        monkeypatch.setattr(scopes, "Scope", broken)
        answers = serve(wsgi.SqlprobeMiddleware(application(run), headers=True))

    assert (1, [b"x"]) == (sum(fault.count for fault in faults.told()), [body for *_, body in answers])


# --- headers ----------------------------------------------------------------------------------------------------------


def test_headers_tell_statements_and_milliseconds(probe, run):
    ((_, headers, _),) = serve(wsgi.SqlprobeMiddleware(application(run, 3), headers=True))
    told = dict(headers)
    ms = float(told["Sqlprobe-Milliseconds"])

    assert (
        ["Content-Type", "Sqlprobe-Statements", "Sqlprobe-Milliseconds", "Server-Timing"],
        "3",
        f'db;dur={ms:.1f};desc="3 statements"',
    ) == ([name for name, _ in headers], told["Sqlprobe-Statements"], told["Server-Timing"])


@pytest.mark.parametrize("options", [{}, {"headers": True, "sample": 0}])
def test_headers_are_absent_unless_asked_for_and_where_nothing_was_counted(probe, run, options):
    ((_, headers, _),) = serve(wsgi.SqlprobeMiddleware(application(run), **options))

    assert [("Content-Type", "text/plain")] == headers


def test_headers_of_asgi_leave_the_applications_message_as_it_is(probe, run):
    start = {"type": "http.response.start", "status": 200, "headers": ((b"a", b"b"),)}

    async def app(scope, receive, send):
        run(2)
        await send(start)
        await send({"type": "http.response.body", "body": b"x"})

    sent = []

    async def send(message):
        sent.append(message)

    wrapped = asgi.SqlprobeMiddleware(app, headers=True)
    asyncio.run(wrapped({"type": "http", "method": "GET"}, None, send))

    names = [name for name, _ in sent[0]["headers"]]
    assert ([b"a", b"sqlprobe-statements", b"sqlprobe-milliseconds", b"server-timing"], ((b"a", b"b"),)) == (
        names,
        start["headers"],
    )


# --- threads ----------------------------------------------------------------------------------------------------------


def test_bare_executors_lose_the_scope_and_carrying_ones_keep_it(probe, run):
    with ThreadPoolExecutor(2) as bare, sqlprobe.scope("outer") as outer:
        bare.submit(run).result()
        lost = outer.calls
        with CarryingExecutor(ThreadPoolExecutor(4)) as pool:
            list(pool.map(run, [1] * 50))

    assert (0, 50) == (lost, outer.calls)


def test_a_pools_thread_forgets_the_scope_after_the_work(probe, run):
    with ThreadPoolExecutor(1) as pool:
        with sqlprobe.scope("first"):
            pool.submit(carried(run), 2).result()
        pool.submit(run, 3).result()
        with sqlprobe.scope("second"), pytest.raises(ZeroDivisionError):
            pool.submit(carried(lambda: (run(), 1 / 0))).result()

    assert ([("first", 1, 2, 0), ("second", 1, 1, 0)], 6) == (sorted(told(probe)), statements(probe))


def test_ignores_are_carried_too(engine):
    with sqlprobe.record() as recording, ThreadPoolExecutor(1) as pool:

        def loop():
            with engine.connect() as connection:
                for number in range(5):
                    connection.execute(sa.text("SELECT :n"), {"n": number})

        with sqlprobe.scope("outer"), sqlprobe.ignore("repeated-statement", reason="a test"):
            pool.submit(carried(loop)).result()

    assert [] == [finding.rule for finding in recording.findings]
