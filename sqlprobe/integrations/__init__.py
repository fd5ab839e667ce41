"""
Frameworks: one module each. Every one opens a scope with a low-cardinality name and closes it when the work is done.
"""

from typing import Final

UNKNOWN_ROUTE: Final = "(no route)"
# HTTP allows any word as a method, and a scope's name must not be the client's to choose.
_METHODS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})


def verb(method: object) -> str:
    """A request's method for a scope's name: "_OTHER", as OpenTelemetry has it, for one that HTTP does not know."""
    return method if isinstance(method, str) and method in _METHODS else "_OTHER"
