from __future__ import annotations

import pytest
import sqlalchemy as sa

import sqlprobe
from sqlprobe import faults, scopes


@pytest.fixture
def probe(engine):
    """A probe of `engine`: after the test nothing of ours has failed and no scope is open."""
    faults.forget()
    with sqlprobe.attach(engine) as attached:
        yield attached
    assert ((), []) == (faults.told(), scopes.open_scopes())


@pytest.fixture
def run(engine):
    """`run(times)`: statements."""

    def statements(times=1):
        with engine.connect() as connection:
            for _ in range(times):
                connection.execute(sa.text("SELECT 1"))

    return statements
