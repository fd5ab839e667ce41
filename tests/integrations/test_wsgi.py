from __future__ import annotations

import contextvars
import io
import threading
from wsgiref.handlers import SimpleHandler
from wsgiref.util import FileWrapper, setup_testing_defaults

import pytest

import sqlprobe
from sqlprobe import faults, scopes
from sqlprobe.integrations.wsgi import SqlprobeMiddleware, route_name

pytestmark = pytest.mark.versions


def told(probe):
    return sorted((item.name, item.kind, item.count, item.calls) for item in probe.report().scopes)


def environ_of(path="/", method="GET", **more):
    environ = {"PATH_INFO": path, "REQUEST_METHOD": method, **more}
    setup_testing_defaults(environ)
    return environ


def send(app, path="/", method="GET", **more):
    """The body of one request, iterated and closed as a server does."""
    body = app(environ_of(path, method, **more), lambda status, headers, exc_info=None: None)
    try:
        return b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()


# --- plain WSGI -------------------------------------------------------------------------------------------------------


def test_request_is_one_scope(probe, run):
    def app(environ, start_response):
        run(2)
        start_response("200 OK", [])
        return [b"ok"]

    assert (b"ok", [("GET (no route)", "request", 1, 2)], None) == (
        send(SqlprobeMiddleware(app), "/orders/5"),
        told(probe),
        scopes.current.get(),
    )


def test_route_that_a_view_names(probe, run):
    def app(environ, start_response):
        environ["sqlprobe.route"] = "/orders/<id>"
        start_response("200 OK", [])
        return [b"ok"]

    send(SqlprobeMiddleware(app), "/orders/5")
    send(SqlprobeMiddleware(app), "/orders/6", "BREW")

    assert ["GET /orders/<id>", "_OTHER /orders/<id>"] == [item[0] for item in told(probe)]


def test_statements_of_a_streaming_body_belong_to_the_request(probe, run):
    def app(environ, start_response):
        start_response("200 OK", [])
        run()

        def body():
            try:
                for _ in range(3):
                    run()
                    yield b"x"
            finally:
                run()

        return body()

    assert (b"xxx", [("GET (no route)", "request", 1, 5)]) == (send(SqlprobeMiddleware(app)), told(probe))


def test_body_is_closed_once_when_the_client_leaves_early(probe, run):
    class Body:
        closed = 0

        def __iter__(self):
            return self

        def __next__(self):
            run()
            return b"x"

        def close(self):
            Body.closed += 1
            run()

    app = SqlprobeMiddleware(lambda environ, start_response: Body())
    body = app(environ_of(), None)
    next(iter(body))
    open_before = len(scopes.open_scopes())
    body.close()

    assert (1, 1, [], [("GET (no route)", "request", 1, 2)]) == (
        open_before,
        Body.closed,
        scopes.open_scopes(),
        told(probe),
    )


def test_body_that_is_dropped_unclosed_ends_its_scope(probe, run):
    def app(environ, start_response):
        run()
        return iter([b"x", b"y"])

    body = SqlprobeMiddleware(app)(environ_of(), None)
    next(body)
    del body

    assert ([], [("GET (no route)", "request", 1, 1)]) == (scopes.open_scopes(), told(probe))


def test_server_sends_two_bodies_in_turn_from_one_thread(probe, run):
    def app(environ, start_response):
        environ["sqlprobe.route"] = environ["PATH_INFO"]

        def body():
            for _ in range(int(environ["PATH_INFO"][1:])):
                run()
                yield b"x"

        return body()

    app = SqlprobeMiddleware(app)
    bodies = [app(environ_of(f"/{times}"), None) for times in (2, 3)]
    seen = set()
    for _ in range(4):
        for body in bodies:
            next(body, None)
            seen.add(scopes.current.get())
    for body in bodies:
        body.close()

    assert ({None}, [("GET /2", "request", 1, 2), ("GET /3", "request", 1, 3)]) == (seen, told(probe))


def test_scope_inside_a_streaming_body_stays_current_between_its_parts(probe, run):
    def app(environ, start_response):
        def body():
            with sqlprobe.scope("render"):
                run()
                yield b"x"
                run()
                yield b"y"

        return body()

    send(SqlprobeMiddleware(app))

    assert [("GET (no route)", "request", 1, 2), ("render", "scope", 1, 2)] == told(probe)


def test_exception_of_the_application_propagates(probe, run):
    def app(environ, start_response):
        run()
        raise LookupError("the application's")

    with pytest.raises(LookupError, match="the application's"):
        send(SqlprobeMiddleware(app))

    assert ([("GET (no route)", "request", 1, 1)], None) == (told(probe), scopes.current.get())


def test_exception_of_the_body_propagates(probe, run):
    def app(environ, start_response):
        def body():
            run()
            yield b"x"
            raise LookupError("the body's")

        return body()

    with pytest.raises(LookupError, match="the body's"):
        send(SqlprobeMiddleware(app))

    assert ([("GET (no route)", "request", 1, 1)], None) == (told(probe), scopes.current.get())


def test_exception_of_close_propagates(probe):
    class Body(list):
        def close(self):
            raise LookupError("of close")

    body = SqlprobeMiddleware(lambda environ, start_response: iter_of(Body()))(environ_of(), None)
    with pytest.raises(LookupError, match="of close"):
        body.close()

    assert [("GET (no route)", "request", 1, 0)] == told(probe)


def iter_of(body):
    class Wrapped:
        def __iter__(self):
            return iter(body)

        def close(self):
            body.close()

    return Wrapped()


def test_a_list_stays_a_list_for_the_server(probe):
    """wsgiref and others make Content-Length of the only part."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"four"]

    out = io.BytesIO()
    handler = SimpleHandler(io.BytesIO(), out, io.StringIO(), environ_of())
    handler.run(SqlprobeMiddleware(app))

    assert b"Content-Length: 4" in out.getvalue()


def test_a_file_stays_a_file_for_the_server(probe):
    def app(environ, start_response):
        return environ["wsgi.file_wrapper"](io.BytesIO(b"file"))

    body = SqlprobeMiddleware(app)(environ_of(**{"wsgi.file_wrapper": FileWrapper}), None)

    assert (FileWrapper, b"file", [("GET (no route)", "request", 1, 0)]) == (type(body), b"".join(body), told(probe))


def test_context_variables_that_the_application_sets_stay_set(probe):
    """A middleware around may read what the application left."""
    request_id = contextvars.ContextVar("request_id", default=None)

    def app(environ, start_response):
        request_id.set(environ["PATH_INFO"])
        return [b""]

    def main():
        send(SqlprobeMiddleware(app), "/7")
        return request_id.get()

    assert "/7" == contextvars.copy_context().run(main)


def test_start_response_is_passed_through(probe):
    def app(environ, start_response):
        write = start_response("500 Oops", [("a", "b")], ("exc", "info", None))
        write(b"written")
        return []

    def start_response(*args):
        calls.append(args)
        return calls.append

    calls = []
    SqlprobeMiddleware(app)(environ_of(), start_response)

    assert [("500 Oops", [("a", "b")], ("exc", "info", None)), b"written"] == calls


def test_concurrent_requests_in_threads_stay_apart(probe, run):
    def app(environ, start_response):
        environ["sqlprobe.route"] = environ["PATH_INFO"]
        times = int(environ["PATH_INFO"][1:])
        barrier.wait(20)

        def body():
            for _ in range(times):
                run()
                yield b"x"

        return body()

    barrier = threading.Barrier(8)
    wrapped = SqlprobeMiddleware(app)
    threads = [threading.Thread(target=send, args=(wrapped, f"/{times}")) for times in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [(f"GET /{times}", "request", 1, times) for times in range(1, 9)] == told(probe)


def test_one_inside_another_nests(probe, run):
    def app(environ, start_response):
        run()
        return iter([b"x"])

    send(SqlprobeMiddleware(SqlprobeMiddleware(app, name=lambda environ: "inner"), name=lambda environ: "outer"))

    assert [("inner", "request", 1, 1), ("outer", "request", 1, 1)] == told(probe)


def test_naming_function_that_raises_costs_the_name_only(probe):
    body = send(SqlprobeMiddleware(lambda environ, start_response: [b"ok"], name=lambda environ: 1 / 0))

    counted = [(fault.where, fault.count) for fault in faults.told()]
    faults.forget()
    assert (b"ok", [("naming a request", 1)], ["GET"]) == (body, counted, [item[0] for item in told(probe)])


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "_OTHER (no route)"),
        ({"REQUEST_METHOD": "GET", "wsgiorg.routing_template": "/a/{b}"}, "GET /a/{b}"),
        ({"REQUEST_METHOD": "GET", "bottle.route": type("Route", (), {"rule": "/a/<b>"})}, "GET /a/<b>"),
        ({"REQUEST_METHOD": "GET", "pyramid.route": type("Route", (), {"pattern": "/a/{b}"})}, "GET /a/{b}"),
        ({"REQUEST_METHOD": "GET", "werkzeug.request": None}, "GET (no route)"),
    ],
)
def test_routes_are_where_frameworks_leave_them(environ, name):
    assert name == route_name(environ)


# --- Flask ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def flask_app(run):
    flask = pytest.importorskip("flask")
    app = flask.Flask("shop")
    blueprint = flask.Blueprint("orders", "orders", url_prefix="/v1")

    @blueprint.get("/orders/<int:order_id>")
    def order(order_id):
        run()
        return {"id": order_id}

    @blueprint.get("/stream/<name>")
    def stream(name):
        def body():
            for _ in range(3):
                run()
                yield flask.request.path

        return flask.Response(flask.stream_with_context(body()))

    @app.get("/broken/<name>")
    def broken(name):
        run()
        raise LookupError

    app.register_blueprint(blueprint)
    app.wsgi_app = SqlprobeMiddleware(app.wsgi_app)
    return app


@pytest.mark.parametrize(
    ("path", "status", "name", "calls"),
    [
        ("/v1/orders/5", 200, "GET /v1/orders/<int:order_id>", 1),
        ("/v1/stream/x", 200, "GET /v1/stream/<name>", 3),
        ("/broken/x", 500, "GET /broken/<name>", 1),
        ("/nothing/5", 404, "GET (no route)", 0),
    ],
)
def test_flask_request_is_named_by_its_rule(probe, flask_app, path, status, name, calls):
    flask_app.config["PROPAGATE_EXCEPTIONS"] = False
    with flask_app.test_client() as client:
        response = client.get(path)
        response.get_data()
        response.close()

    assert (status, [(name, "request", 1, calls)]) == (response.status_code, told(probe))


def test_flask_head_and_wrong_method(probe, flask_app):
    client = flask_app.test_client()
    responses = [client.head("/v1/orders/5"), client.post("/v1/orders/5")]
    statuses = [response.status_code for response in responses]
    for response in responses:
        response.close()

    assert ([200, 405], ["HEAD /v1/orders/<int:order_id>", "POST (no route)"]) == (
        statuses,
        [item[0] for item in told(probe)],
    )


def test_flask_client_that_keeps_the_context_still_does(probe, flask_app):
    flask = pytest.importorskip("flask")
    with flask_app.test_client() as client:
        client.get("/v1/orders/5").close()

        assert ("/v1/orders/5", {"order_id": 5}) == (flask.request.path, flask.request.view_args)
