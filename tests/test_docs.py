"""What the pages say runs, and what comes from the code is what the code says."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))] if (ROOT / "docs").is_dir() else []
FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("module", ["sqlprobe.probe", "sqlprobe.recording", "sqlprobe.scopes"])
def test_examples_in_docstrings_run(module):
    failed, tried = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)

    assert (0, True) == (failed, tried > 0)


@pytest.mark.tree
def test_generated_pages_are_what_the_code_says():
    spec = importlib.util.spec_from_file_location("docs_tool", ROOT / "tools" / "docs.py")
    docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(docs)

    assert docs.pages() == {path: (docs.DOCS / path).read_text(encoding="utf-8") for path in docs.pages()}


@pytest.mark.tree
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_python_on_the_pages_is_python(page):
    for block in FENCE.findall(page.read_text(encoding="utf-8")):
        compile(block, str(page), "exec")


@pytest.mark.tree
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_between_pages_lead_somewhere(page):
    missing = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]

    assert [] == missing


@pytest.mark.tree
def test_the_first_example_of_the_readme_runs():
    first = FENCE.search((ROOT / "README.md").read_text(encoding="utf-8"))
    said = {}
    exec(compile(first[1], "README.md", "exec"), said)

    assert ["n-plus-one"] == [finding.rule for finding in said["report"].findings]
