"""What a type checker sees: `make lint` runs mypy and pyright over `tests/typing`; this keeps that complete."""

from __future__ import annotations

import ast
from importlib import resources
from pathlib import Path

import pytest

import sqlprobe

pytestmark = pytest.mark.once


def test_every_public_name_is_type_checked():
    tree = ast.parse((Path(__file__).parent / "typing" / "api.py").read_text())
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}

    assert set() == set(sqlprobe.__all__) - used


def test_packages_say_that_they_are_typed():
    for package in ("sqlprobe", "sqlprobe_exporters"):
        assert (resources.files(package) / "py.typed").is_file()
