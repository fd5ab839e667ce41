"""
Django: tells the route of a request to the WSGI or ASGI middleware around the application, which cannot know it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlprobe import faults

if TYPE_CHECKING:
    from collections.abc import Callable


class RouteMiddleware:
    """
    First in `MIDDLEWARE`: "sqlprobe.integrations.django.RouteMiddleware". Names are "GET /orders/<int:order_id>/".

    The scope is that of `sqlprobe.integrations.wsgi` or `.asgi` around `get_wsgi_application()` or
    `get_asgi_application()`. Django's own ORM runs no statement that sqlprobe sees; SQLAlchemy beside it does.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response
        from asgiref.sync import iscoroutinefunction, markcoroutinefunction  # Django's own, which asks it of us

        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        return self._get_response(request)

    def process_view(self, request: Any, _view: Any, _args: Any, _kwargs: Any) -> None:
        """Django has found the route."""
        try:
            route = f"/{request.resolver_match.route.removeprefix('/')}"
            request.META["sqlprobe.route"] = route  # of WSGI, it is the environ
            scope = getattr(request, "scope", None)
            if scope is not None:
                scope["path_template"] = route
        except Exception as error:  # noqa: BLE001 - ours: the request goes its way without a name
            faults.count("naming a request", error)
