"""The server that the demo runs on: see `sqlprobe.advice.server`."""

from __future__ import annotations

from sqlprobe.advice.server import THROWAWAY, Server, ServerError, build, cache, serve

__all__ = ["THROWAWAY", "Server", "ServerError", "build", "cache", "serve"]
