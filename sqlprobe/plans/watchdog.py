"""
Ends a connection of our own whose answers the network swallows.

The server's timeouts end what the server does. Where nothing comes back at all, a driver waits for as long as the
system keeps the connection, which may be hours.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from time import monotonic
from typing import Any


class Watchdog:
    """
    `with watchdog:` around each question; one that takes longer than *seconds* finds its connection shut down.

    Does nothing where the driver does not give its socket away, or no thread starts any more.
    """

    def __init__(self, driver_connection: Any, seconds: float) -> None:
        self.seconds = seconds
        self._since: float | None = None
        self._ended = False
        self._changed = threading.Condition()
        self._socket = _socket_of(driver_connection)
        if self._socket is not None:
            try:
                threading.Thread(target=self._watch, name="sqlprobe-watchdog", daemon=True).start()
            except RuntimeError:  # the process ends
                self._socket.close()

    def __enter__(self) -> None:
        with self._changed:
            self._since = monotonic()
            self._changed.notify()

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._since = None

    def end(self) -> None:
        """No more questions."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _watch(self) -> None:
        assert self._socket is not None
        with self._socket, self._changed:
            while not self._ended:
                since = self._since
                left = None if since is None else since + self.seconds - monotonic()
                if left is not None and left <= 0:
                    with contextlib.suppress(OSError):  # gone already
                        self._socket.shutdown(socket.SHUT_RDWR)
                    return
                self._changed.wait(left)


def _socket_of(driver_connection: Any) -> socket.socket | None:
    """The connection's socket, by a file descriptor of its own: to close it leaves the driver's open."""
    try:
        transport = getattr(driver_connection, "_transport", None)  # asyncpg's
        owner = driver_connection if transport is None else transport.get_extra_info("socket")
        return socket.socket(fileno=os.dup(owner.fileno()))
    except Exception:  # noqa: BLE001 - the driver's: it has none, or none to give away
        return None
