"""The page that says when plan rules are right is what they say today."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.exhaustive
@pytest.mark.tree
def test_the_accuracy_page_is_what_the_rules_say():
    spec = importlib.util.spec_from_file_location("accuracy_tool", ROOT / "tools" / "accuracy.py")
    accuracy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(accuracy)
    with accuracy.serve() as server:
        page = accuracy.page(accuracy.examine(server))

    assert page == accuracy.PAGE.read_text(encoding="utf-8")
