"""Models of `apps/`, loaded once, and what an audit of them says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("pgvector", reason="the models of the review have vectors")

APPS = Path(__file__).parent / "apps"


@pytest.fixture(scope="session")
def load_app():
    """`load_app("reviewed")`: the models of that file."""
    from sqlprobe.audit import mapping

    sys.path.insert(0, str(APPS))
    yield mapping.load
    sys.path.remove(str(APPS))


@pytest.fixture
def told():
    """`told(report)`: rule, severity and label of each finding, sorted."""

    def told(findings):
        return sorted((each.rule, each.severity, each.label) for each in findings)

    return told
