from __future__ import annotations

import pytest

from sqlprobe import capture, faults, scopes


@pytest.fixture(autouse=True)
def nothing_is_left():
    """After each test: no fault of ours, no scope open, nobody observing."""
    yield
    assert ((), [], (), ()) == (faults.told(), scopes.open_scopes(), capture.owners, capture.recorders)
