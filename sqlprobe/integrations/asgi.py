"""
ASGI: a scope for each request, named by its route's template, closed when the application has sent its body.

Works with Starlette, FastAPI, Litestar and whatever else speaks ASGI: it is no framework's middleware class, streams
stay streams, and the statements of a streaming body and of background tasks are the request's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from sqlprobe.integrations import UNKNOWN_ROUTE, Unit, share_of, verb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_BELOW: Final = "/{path}"  # how Starlette ends the template of a mount
_PARAM: Final = re.compile(r"\\\{\w+\\\}")  # as re.escape() writes it


class SqlprobeMiddleware:
    """
    Wrap an ASGI application: `app = SqlprobeMiddleware(app)`, or `app.add_middleware(SqlprobeMiddleware)`.

    Args:
        app: the application.
        name: makes the scope's name of the ASGI connection scope once the application begins to answer; None names it
            by method and route template ("GET /orders/{order_id}"), or "GET (no route)" where the framework tells none:
            never by the path, whose names are without bound.
        sample: the share of requests that get a scope, 0 to 1; None: what `Settings.sample` says.
        headers: whether responses tell the statements and milliseconds that went before their first byte.

    Raises:
        SqlprobeError: *sample* is no share.
    """

    def __init__(
        self,
        app: App,
        *,
        name: Callable[[MutableMapping[str, Any]], str] | None = None,
        sample: float | None = None,
        headers: bool = False,
    ) -> None:
        self.app = app
        self._name = name or route_name
        self._share = share_of(sample)
        self._headers = headers

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        unit = Unit(lambda: _verb(scope), "request" if scope["type"] == "http" else "websocket", self._share)

        async def send_named(message: Message) -> None:
            # By the first message a router has written its route into the connection scope, and a websocket or a
            # stream that stays open is judged under it.
            unit.call_it(lambda: self._name(scope))
            if self._headers and message["type"] == "http.response.start":
                told = [(name.lower().encode(), text.encode()) for name, text in unit.headers()]
                message = {**message, "headers": [*message.get("headers", ()), *told]}
            await send(message)

        try:
            await self.app(scope, receive, send_named)
        finally:
            unit.call_it(lambda: self._name(scope))
            unit.end()


def route_name(scope: MutableMapping[str, Any]) -> str:
    """Method and route template of an ASGI connection scope that has been routed."""
    # Litestar's connection scope has the route's handler, and the whole template.
    template = scope.get("path_template") or _starlette_template(scope)
    return f"{_verb(scope)} {template or UNKNOWN_ROUTE}"


def _verb(scope: MutableMapping[str, Any]) -> str:
    return "WEBSOCKET" if scope["type"] == "websocket" else verb(scope.get("method"))


def _starlette_template(scope: MutableMapping[str, Any]) -> str | None:
    """Of Starlette, and of FastAPI, which is built on it."""
    params = dict(scope.get("path_params") or {})
    path = str(scope.get("path", ""))
    tail = ""
    route = scope.get("route")
    if route is not None:
        template = getattr(route, "path_format", None)
    else:
        # Starlette told the endpoint only, before 1.0.
        routes = getattr(scope.get("app"), "routes", ())
        known = (template for endpoint, template in _templates(routes, "") if endpoint is scope.get("endpoint"))
        template = next((template for template in known if _prefix(path, template, params) is not None), None)
    if not isinstance(template, str):
        return None
    if template.endswith(_BELOW) and "path" not in params:
        # A mounted application that has found no route of its own, or knows none.
        template, tail, path = template.removesuffix(_BELOW), _BELOW, str(scope.get("root_path", ""))
    # A route does not tell of the mounts and prefixes that it stands below.
    prefix = _prefix(path, template, params) or ""
    # What the server itself is mounted at; a mount's own path is in root_path too, and this then in app_root_path.
    outside = scope.get("app_root_path", scope.get("root_path", ""))
    return prefix.removeprefix(outside) + template + tail


def _prefix(path: str, template: str, params: dict[str, Any]) -> str | None:
    """What stands before *template* in *path*, as a template itself; None where *path* does not end with *template*."""
    try:
        end = template.format(**params)
    except (LookupError, ValueError):
        end = None
    if end is not None and path.endswith(end):
        start = len(path) - len(end)
    else:
        # A convertor may have changed a value: "007" is 7.
        found = re.search(_PARAM.sub("[^/]+", re.escape(template)) + "$", path)
        if found is None:
            return None
        start = found.start()
    segments = path[:start].split("/")
    for name, value in params.items():
        if f"{{{name}}}" not in template:
            if str(value) not in segments:
                return ""  # it hides in there in another form, and a name must not hold it
            segments[segments.index(str(value))] = f"{{{name}}}"
    return "/".join(segments)


def _templates(routes: Iterable[Any], prefix: str) -> Iterator[tuple[object, str]]:
    """Endpoint and template of each route in *routes*, those of mounted applications too."""
    for route in routes:
        if hasattr(route, "endpoint"):
            yield route.endpoint, prefix + str(route.path_format)
        elif hasattr(route, "path"):
            yield getattr(route, "app", None), prefix + str(route.path) + _BELOW
            yield from _templates(getattr(route, "routes", None) or (), prefix + str(route.path))
