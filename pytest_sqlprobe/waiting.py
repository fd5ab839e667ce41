"""
Until the suite uses SQLAlchemy: a look at what has been imported, at each test.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sqlprobe import SESSION, start

if TYPE_CHECKING:
    from sqlprobe.pytest_plugin.session import Session


class Waiting:
    """Starts the plugin when the suite has imported SQLAlchemy, or marked a test."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if "sqlalchemy" in sys.modules or any(item.get_closest_marker("sqlprobe") for item in items):
            self._end().pytest_collection_modifyitems(items)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        if "sqlalchemy" in sys.modules:
            self._end()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Any:
        if "sqlalchemy" in sys.modules:  # a fixture has imported it
            return (yield from self._end().pytest_runtest_call(item))
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if getattr(report, "sqlprobe", None):  # of a worker of xdist; this process may never import SQLAlchemy
            self._end().pytest_runtest_logreport(report)

    def _end(self) -> Session:
        running: Session | None = self._config.pluginmanager.get_plugin(SESSION)
        if running is None:
            self._config.pluginmanager.unregister(self)
            running = start(self._config)
        return running
