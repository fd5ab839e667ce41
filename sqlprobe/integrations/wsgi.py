"""
WSGI: a scope for each request, closed when the server has sent the body and closed the iterable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlprobe.integrations import UNKNOWN_ROUTE, Unit, share_of, verb
from sqlprobe.scopes import current

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlprobe.scopes import Scope

    Environ = dict[str, Any]
    App = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

# Where frameworks leave the route that they chose, or the request that has it (Flask, until it has answered).
_ROUTE_KEYS: Final = ("sqlprobe.route", "bottle.route", "pyramid.route", "wsgiorg.routing_template")
_REQUEST_KEY: Final = "werkzeug.request"


class SqlprobeMiddleware:
    """
    Wrap a WSGI application: `app.wsgi_app = SqlprobeMiddleware(app.wsgi_app)` in Flask.

    Args:
        app: the application.
        name: makes the scope's name of the environ once the application begins to answer; None names it by method and
            the route that the framework left in the environ, or "GET (no route)": never by the path, whose names are
            without bound. A view can say `environ["sqlprobe.route"] = "/orders/<id>"`.
        sample: the share of requests that get a scope, 0 to 1; None: what `Settings.sample` says.
        headers: whether responses tell the statements and milliseconds that went before they began.

    Raises:
        SqlprobeError: *sample* is no share.
    """

    def __init__(
        self,
        app: App,
        *,
        name: Callable[[Environ], str] | None = None,
        sample: float | None = None,
        headers: bool = False,
    ) -> None:
        self.app = app
        self._name = name or route_name
        self._share = share_of(sample)
        self._headers = headers

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        def start_named(*args: Any, **kwargs: Any) -> Any:
            # Flask has chosen its route by now, and forgets it before it returns.
            unit.call_it(lambda: self._name(environ))
            if self._headers and len(args) > 1:
                args = (args[0], [*args[1], *unit.headers()], *args[2:])
            return start_response(*args, **kwargs)

        def finish() -> None:
            unit.call_it(lambda: self._name(environ))
            unit.end()

        outside = current.get()
        unit = Unit(lambda: verb(environ.get("REQUEST_METHOD")), "request", self._share)
        try:
            body = self.app(environ, start_named)
        except BaseException:
            finish()
            current.set(outside)
            raise
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(body, (list, tuple)) or (isinstance(wrapper, type) and isinstance(body, wrapper)):
            # Nothing runs any more, and servers look at these types: for Content-Length, for sendfile().
            finish()
            current.set(outside)
            return body
        inside = current.get()
        current.set(outside)
        return _Body(body, inside, finish)


class _Body:
    """
    The application's iterable, advanced in the request's scope; closing it ends the scope.

    Between two parts the server's context is as it was: it may send other requests' parts from the same thread.
    """

    def __init__(self, body: Iterable[bytes], inside: Scope | None, finish: Callable[[], None]) -> None:
        self._body = body
        self._iterator: Iterator[bytes] | None = None
        self._inside = inside
        self._finish = finish

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        outside = current.get()
        current.set(self._inside)
        try:
            if self._iterator is None:
                self._iterator = iter(self._body)
            return next(self._iterator)
        finally:
            self._inside = current.get()
            current.set(outside)

    def close(self) -> None:
        outside = current.get()
        current.set(self._inside)
        try:
            if hasattr(self._body, "close"):
                self._body.close()
        finally:
            self._finish()
            current.set(outside)

    def __del__(self) -> None:
        # A test client may drop a response that it has not closed; a scope that stays open would never be told.
        self._finish()


def route_name(environ: Environ) -> str:
    """Method and route template of a WSGI request that is being answered."""
    routes = [environ.get(key) for key in _ROUTE_KEYS]
    routes.append(getattr(environ.get(_REQUEST_KEY), "url_rule", None))
    route = next((route for route in routes if route), None)
    template = getattr(route, "rule", None) or getattr(route, "pattern", None) or route or UNKNOWN_ROUTE
    return f"{verb(environ.get('REQUEST_METHOD'))} {template}"
