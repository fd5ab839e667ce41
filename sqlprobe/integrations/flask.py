"""
Flask: the WSGI middleware in the form of an extension.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlprobe.integrations.wsgi import SqlprobeMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable

KEY: Final = "sqlprobe"


class Sqlprobe:
    """
    `Sqlprobe(app)`, or `requests = Sqlprobe()` and `requests.init_app(app)` in an application factory.

    Each request is a scope named by method and rule ("GET /orders/<int:id>"), its streamed body included. An
    application that has been initialised once stays as it is.

    Args:
        app: the application, if it is there already.
        name: makes the name of the WSGI environ, instead.
        sample: the share of requests that get a scope, 0 to 1; None: what `Settings.sample` says.
        headers: whether responses tell the statements and milliseconds that went before they began.

    Raises:
        SqlprobeError: *sample* is no share.
    """

    def __init__(
        self,
        app: Any = None,
        *,
        name: Callable[[dict[str, Any]], str] | None = None,
        sample: float | None = None,
        headers: bool = False,
    ) -> None:
        self._options: dict[str, Any] = {"name": name, "sample": sample, "headers": headers}
        SqlprobeMiddleware(lambda _environ, _start: (), **self._options)  # wrong use fails here
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Any) -> None:
        """Give each request of *app* a scope."""
        if KEY not in app.extensions:
            app.extensions[KEY] = self
            app.wsgi_app = SqlprobeMiddleware(app.wsgi_app, **self._options)
