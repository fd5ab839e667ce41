"""
Pyramid: `config.include("sqlprobe.integrations.pyramid")` tells a request's route to the WSGI middleware around it.
"""

from __future__ import annotations

from typing import Any

from sqlprobe import faults


def includeme(config: Any) -> None:
    """Called by Pyramid. The scope is that of `sqlprobe.integrations.wsgi` around `config.make_wsgi_app()`."""
    config.add_subscriber(tell_route, "pyramid.events.ContextFound")


def tell_route(event: Any) -> None:
    """Pyramid has found the route: leave its pattern where the middleware looks; of traversal, the view's name."""
    try:
        request = event.request
        route = getattr(request, "matched_route", None)
        if route is not None:
            request.environ["sqlprobe.route"] = f"/{route.pattern.removeprefix('/')}"
            return
        context = type(request.context)
        if not context.__module__.startswith("pyramid."):  # else nothing was found, below the root that Pyramid made
            request.environ["sqlprobe.route"] = f"{context.__name__}/{'*' if request.view_name else ''}"
    except Exception as error:  # noqa: BLE001 - ours: the request goes its way without a name
        faults.count("naming a request", error)
