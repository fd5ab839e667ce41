from __future__ import annotations

import asyncio
import contextlib

import pytest

import sqlprobe
from sqlprobe import faults, scopes
from sqlprobe.integrations.asgi import SqlprobeMiddleware, route_name

httpx = pytest.importorskip("httpx")
starlette = pytest.importorskip("starlette")

from starlette.applications import Starlette  # noqa: E402
from starlette.background import BackgroundTask  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402
from starlette.middleware.base import BaseHTTPMiddleware  # noqa: E402
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse  # noqa: E402
from starlette.routing import Mount, Route, WebSocketRoute  # noqa: E402

pytestmark = pytest.mark.versions


def told(probe):
    return sorted((item.name, item.kind, item.count, item.calls) for item in probe.report().scopes)


def send(app, *requests, raising=True):
    """The status codes of *requests* ("GET /path"), sent one after the other."""

    async def main():
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=raising)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return [(await client.request(*request.split(" "))).status_code for request in requests]

    return asyncio.run(main())


def drive(app, scope, *incoming):
    """What the raw ASGI *app* sends for a connection of *scope* on which *incoming* messages arrive."""

    async def main():
        sent, pending = [], list(incoming)

        async def receive():
            if pending:
                return pending.pop(0)
            return await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        await app(scope, receive, send)
        return sent

    return asyncio.run(main())


def answering(run, times=1):
    async def endpoint(request):
        run(times)
        return PlainTextResponse("ok")

    return endpoint


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def app(run):
    endpoint = answering(run)
    inner = Starlette(
        routes=[
            Route("/", endpoint),
            Route("/items/{id:int}", endpoint),
            Mount("/deep/{x}", routes=[Route("/leaf", endpoint)]),
        ]
    )

    async def raw(scope, receive, send):
        run()
        await PlainTextResponse("raw")(scope, receive, send)

    return Starlette(
        routes=[
            Route("/", endpoint),
            Route("/orders", endpoint),
            Route("/orders/{id:int}/lines/{line}", endpoint),
            Route("/files/{path:path}", endpoint),
            Mount("/plain", routes=[Route("/a/{b}", endpoint)]),
            Mount("/m/{tenant}", app=inner),
            Mount("/n/{number:int}", app=inner),
            Mount("/raw", app=raw),
        ],
        middleware=[Middleware(SqlprobeMiddleware)],
    )


@pytest.mark.parametrize(
    ("request_line", "status", "name"),
    [
        ("GET /", 200, "GET /"),
        ("GET /orders", 200, "GET /orders"),
        ("HEAD /orders", 200, "HEAD /orders"),
        ("GET /orders/7/lines/9?secret=1", 200, "GET /orders/{id}/lines/{line}"),
        ("GET /orders/007/lines/9", 200, "GET /orders/{id}/lines/{line}"),
        ("GET /files/a/b/c.txt", 200, "GET /files/{path}"),
        ("GET /plain/a/1", 200, "GET /plain/a/{b}"),
        ("GET /plain/a/plain", 200, "GET /plain/a/{b}"),
        ("GET /m/acme/", 200, "GET /m/{tenant}/"),
        ("GET /m/acme/items/5", 200, "GET /m/{tenant}/items/{id}"),
        ("GET /m/items/items/5", 200, "GET /m/{tenant}/items/{id}"),
        ("GET /m/acme/deep/1/leaf", 200, "GET /m/{tenant}/deep/{x}/leaf"),
        ("GET /n/5/items/5", 200, "GET /n/{number}/items/{id}"),
        ("POST /orders", 405, "POST /orders"),
        ("BREW /orders", 405, "_OTHER /orders"),
        ("GET /nothing/here", 404, "GET (no route)"),
    ],
)
def test_request_is_named_by_its_route(probe, app, request_line, status, name):
    assert ([status], [name]) == (send(app, request_line), [item[0] for item in told(probe)])


@pytest.mark.parametrize(
    "paths",
    [
        [f"/n/{number:04}/items/5" for number in range(5)],
        [f"/m/{number}/nothing" for number in range(5)],
        [f"/raw/{number}" for number in range(5)],
        [f"/nothing/{number}" for number in range(5)],
        [f"/files/{number}/{number}" for number in range(5)],
    ],
    ids=["changed by a convertor", "no route in a mount", "no routes in a mount", "no route", "path parameter"],
)
def test_names_are_few_whatever_the_client_asks_for(probe, app, paths):
    send(app, *(f"GET {path}" for path in paths))

    assert 1 == len(told(probe))


def test_wrapped_from_outside_it_names_the_same(probe, run):
    app = SqlprobeMiddleware(Starlette(routes=[Mount("/m/{tenant}", routes=[Route("/a/{b}", answering(run, 2))])]))

    assert ([200], [("GET /m/{tenant}/a/{b}", "request", 1, 2)]) == (send(app, "GET /m/x/a/y"), told(probe))


def test_root_path_of_a_server_is_not_part_of_the_name(probe, app):
    for path in ("/orders", "/svc/orders", "/svc/m/acme/items/5"):
        connection = {"type": "http", "method": "GET", "path": path, "root_path": "/svc"}
        drive(app, {**connection, "headers": [], "query_string": b""})

    assert [
        ("GET /m/{tenant}/items/{id}", "request", 1, 1),
        ("GET /orders", "request", 2, 2),
    ] == told(probe)


def test_own_names_are_made_after_routing(probe, run):
    app = SqlprobeMiddleware(
        Starlette(routes=[Route("/orders/{id}", answering(run))]),
        name=lambda scope: f"{scope['endpoint'].__name__} {sorted(scope['path_params'])}",
    )
    send(app, "GET /orders/5")

    assert ["endpoint ['id']"] == [item[0] for item in told(probe)]


def test_naming_function_that_raises_costs_the_name_only(probe, run):
    app = SqlprobeMiddleware(Starlette(routes=[Route("/", answering(run))]), name=lambda scope: 1 / 0)
    status = send(app, "GET /")

    counted = [(fault.where, fault.count) for fault in faults.told()]
    faults.forget()
    assert ([200], [("naming a request", 1)], [("GET", "request", 1, 1)]) == (status, counted, told(probe))


@pytest.mark.parametrize(
    ("scope", "name"),
    [
        ({"type": "http", "method": "GET", "path": "/a"}, "GET (no route)"),
        ({"type": "websocket", "path": "/a"}, "WEBSOCKET (no route)"),
        ({"type": "http", "method": "GET", "path": "/a/5", "path_template": "/a/{id}"}, "GET /a/{id}"),
        ({"type": "http", "method": "GET", "path": "/a", "route": object()}, "GET (no route)"),
        ({"type": "http", "method": "GET", "path": "/a", "endpoint": print, "app": object()}, "GET (no route)"),
    ],
)
def test_unknown_frameworks_have_a_name_too(scope, name):
    assert name == route_name(scope)


def test_starlette_that_tells_the_endpoint_only_is_searched(run):
    """As before 1.0."""
    one, two = answering(run), answering(run)
    app = Starlette(
        routes=[
            Route("/orders", one),
            Route("/orders/{id}", one),
            Mount("/m/{tenant}", routes=[Route("/a/{b}", two)]),
        ]
    )
    scopes = [
        {"path": "/orders", "endpoint": one},
        {"path": "/orders/5", "endpoint": one, "path_params": {"id": 5}},
        {"path": "/m/x/a/y", "endpoint": two, "path_params": {"tenant": "x", "b": "y"}, "root_path": "/m/x"},
    ]

    assert ["GET /orders", "GET /orders/{id}", "GET /m/{tenant}/a/{b}"] == [
        route_name({"type": "http", "method": "GET", "app": app, **scope}) for scope in scopes
    ]


# --- what belongs to the request --------------------------------------------------------------------------------------


def test_statements_of_a_streaming_body_belong_to_the_request(probe, run):
    async def stream(request):
        async def body():
            for _ in range(3):
                run()
                yield b"x"

        return StreamingResponse(body())

    app = SqlprobeMiddleware(Starlette(routes=[Route("/stream", stream)]))

    assert ([200], [("GET /stream", "request", 1, 3)]) == (send(app, "GET /stream"), told(probe))


def test_statements_of_a_sync_body_and_sync_endpoint_belong_to_the_request(probe, run):
    def stream(request):
        run()

        def body():
            for _ in range(3):
                run()
                yield b"x"

        return StreamingResponse(body())

    app = SqlprobeMiddleware(Starlette(routes=[Route("/stream", stream)]))
    send(app, "GET /stream")

    assert [("GET /stream", "request", 1, 4)] == told(probe)


def test_statements_of_background_tasks_belong_to_the_request(probe, run):
    async def endpoint(request):
        run()
        return JSONResponse({}, background=BackgroundTask(run, 2))

    app = SqlprobeMiddleware(Starlette(routes=[Route("/", endpoint)]))
    send(app, "GET /")

    assert [("GET /", "request", 1, 3)] == told(probe)


def test_exception_propagates_and_the_request_is_told(probe, run):
    async def endpoint(request):
        run()
        raise LookupError("the application's")

    app = SqlprobeMiddleware(Starlette(routes=[Route("/orders/{id}", endpoint)]))
    with pytest.raises(LookupError, match="the application's"):
        send(app, "GET /orders/5")

    assert ([500], [("GET /orders/{id}", "request", 2, 2)]) == (send(app, "GET /orders/6", raising=False), told(probe))


def test_raw_application_that_raises_before_it_answers_is_told(probe, run):
    async def app(scope, receive, send):
        run()
        raise LookupError

    with pytest.raises(LookupError):
        drive(SqlprobeMiddleware(app), {"type": "http", "method": "GET", "path": "/x"})

    assert [("GET (no route)", "request", 1, 1)] == told(probe)


def test_cancelled_request_closes_its_scope(probe, run):
    async def endpoint(request):
        run()
        entered.set()
        await asyncio.Event().wait()

    async def main():
        nonlocal entered
        entered = asyncio.Event()
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
        task = asyncio.create_task(app(scope, None, None))
        await entered.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    entered = None
    app = SqlprobeMiddleware(Starlette(routes=[Route("/", endpoint)]))
    asyncio.run(main())

    assert [("GET /", "request", 1, 1)] == told(probe)


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_base_http_middleware_beside_it_changes_nothing(probe, run, inside):
    class Other(BaseHTTPMiddleware):
        async def dispatch(self, request, call_next):
            return await call_next(request)

    async def stream(request):
        async def body():
            for _ in range(2):
                run()
                yield b"x"

        run()
        return StreamingResponse(body(), background=BackgroundTask(run))

    layers = [Middleware(SqlprobeMiddleware), Middleware(Other)]
    app = Starlette(
        routes=[Mount("/m", routes=[Route("/a/{b}", stream)])], middleware=layers if inside else layers[::-1]
    )

    assert ([200], [("GET /m/a/{b}", "request", 1, 4)]) == (send(app, "GET /m/a/1"), told(probe))


def test_concurrent_requests_stay_apart(probe, run):
    async def endpoint(request):
        for _ in range(request.path_params["times"]):
            run()
            await asyncio.sleep(0)
        return PlainTextResponse("ok")

    async def main():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
            await asyncio.gather(*(client.get(f"/{times}") for times in range(1, 11)))

    app = SqlprobeMiddleware(
        Starlette(routes=[Route("/{times:int}", endpoint)]), name=lambda scope: str(scope["path_params"]["times"])
    )
    asyncio.run(main())

    assert [(str(times), 1, times) for times in range(1, 11)] == sorted(
        ((name, count, calls) for name, _, count, calls in told(probe)), key=lambda item: int(item[0])
    )


def test_websocket_is_one_scope_from_connect_to_disconnect(probe, run):
    async def endpoint(websocket):
        await websocket.accept()
        async for _ in websocket.iter_text():
            run()

    app = SqlprobeMiddleware(Starlette(routes=[WebSocketRoute("/live/{room}", endpoint)]))
    messages = [{"type": "websocket.connect"}, *[{"type": "websocket.receive", "text": "x"}] * 3]
    drive(
        app, {"type": "websocket", "path": "/live/5", "headers": [], "query_string": b"", "subprotocols": []},
        *messages, {"type": "websocket.disconnect", "code": 1000},
    )  # fmt: skip

    assert [("WEBSOCKET /live/{room}", "websocket", 1, 3)] == told(probe)


def test_open_websocket_is_judged_under_its_route(engine, run):
    async def endpoint(websocket):
        await websocket.accept()
        for _ in range(3):
            run()
        while_open.extend(told(probe))

    while_open = []
    app = SqlprobeMiddleware(Starlette(routes=[WebSocketRoute("/live/{room}", endpoint)]))
    with sqlprobe.attach(engine, settings=sqlprobe.Settings(scope_window_seconds=1e-9)) as probe:
        drive(
            app, {"type": "websocket", "path": "/live/5", "headers": [], "query_string": b"", "subprotocols": []},
            {"type": "websocket.connect"},
        )  # fmt: skip

    assert [("WEBSOCKET /live/{room}", "websocket", 3)] == [(name, kind, calls) for name, kind, _, calls in while_open]


def test_lifespan_is_left_alone(probe, run):
    started = []

    @contextlib.asynccontextmanager
    async def lifespan(app):
        started.append(scopes.current.get())
        run()
        yield

    app = SqlprobeMiddleware(Starlette(lifespan=lifespan))
    sent = drive(app, {"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})

    assert (["lifespan.startup.complete", "lifespan.shutdown.complete"], [None], []) == (
        [message["type"] for message in sent],
        started,
        told(probe),
    )


def test_messages_reach_the_server_as_they_are(probe):
    async def app(scope, receive, send):
        await send(start)
        await send(body)

    start = {"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]}
    body = {"type": "http.response.body", "body": b"z"}
    sent = drive(SqlprobeMiddleware(app), {"type": "http", "method": "GET", "path": "/"})

    assert [True, True] == [sent[0] is start, sent[1] is body]


# --- other frameworks -------------------------------------------------------------------------------------------------


def test_fastapi_with_routers_mounts_and_yield_dependencies(probe, run):
    fastapi = pytest.importorskip("fastapi")

    def sync_session():
        run()
        with sqlprobe.scope("sync dependency"):
            yield
        run()

    async def async_session():
        with sqlprobe.scope("async dependency"):
            run()
            yield
            run()

    one, two = fastapi.Depends(sync_session), fastapi.Depends(async_session)
    router = fastapi.APIRouter(prefix="/v1")

    @router.get("/users/{user}/things/{thing_id}")
    async def thing(thing_id: int, first=one, second=two):
        run()
        return thing_id

    @router.get("/sync")
    def sync():
        run()

    inner = fastapi.FastAPI()
    inner.include_router(router, prefix="/api/{version}")
    app = fastapi.FastAPI()
    app.include_router(router)
    app.mount("/inner", inner)
    app.add_middleware(SqlprobeMiddleware)

    statuses = send(
        app, "GET /v1/users/u/things/3", "GET /v1/sync", "GET /inner/api/2/v1/users/u/things/3", "GET /v1/nothing"
    )
    requests = [(name, calls) for name, kind, _, calls in told(probe) if kind == "request"]
    assert (
        [200, 200, 200, 404],
        [
            ("GET (no route)", 0), ("GET /inner/api/{version}/v1/users/{user}/things/{thing_id}", 5),
            ("GET /v1/sync", 1), ("GET /v1/users/{user}/things/{thing_id}", 5),
        ],
    ) == (statuses, requests)  # fmt: skip


def test_litestar_tells_its_template(probe, run):
    litestar = pytest.importorskip("litestar")

    @litestar.get("/orders/{order_id:int}")
    async def order() -> int:
        run()
        return 1

    app = litestar.Litestar(
        [litestar.Router("/v1", route_handlers=[order])],
        middleware=[SqlprobeMiddleware],
        openapi_config=None,
        logging_config=None,
    )
    statuses = send(app, "GET /v1/orders/5", "GET /v1/orders/6")

    assert ([200, 200], [("GET /v1/orders/{order_id}", "request", 2, 2)]) == (statuses, told(probe))
