"""What is in the wheel and in the sdist."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from sqlprobe import grafana

pytestmark = [pytest.mark.once, pytest.mark.tree]

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The sdist, made from the source tree, and the wheel, made from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    done = subprocess.run(command, check=False, capture_output=True, text=True)

    assert 0 == done.returncode, done.stdout + done.stderr

    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(archives):
    with zipfile.ZipFile(archives[1]) as archive:
        yield archive


def test_wheel_holds_the_packages_and_nothing_else(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}

    assert {"sqlprobe", "sqlprobe_exporters", "pytest_sqlprobe"} == {
        top for top in tops if not top.endswith(".dist-info")
    }


def test_wheel_holds_every_file_of_the_packages(wheel):
    expected = {
        path.relative_to(parent).as_posix()
        for parent, package in [
            (ROOT, "sqlprobe"),
            (ROOT / "exporters", "sqlprobe_exporters"),
            (ROOT, "pytest_sqlprobe"),
        ]
        for path in (parent / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    expected |= {f"sqlprobe/grafana_files/{path}" for path in grafana.files()}

    assert expected == {name for name in wheel.namelist() if ".dist-info/" not in name}


@pytest.mark.parametrize(
    "name", ["sqlprobe/py.typed", "sqlprobe_exporters/py.typed", "sqlprobe/report.schema.json", "sqlprobe/__init__.py"]
)
def test_wheel_holds(wheel, name):
    assert name in wheel.namelist()


def test_wheel_holds_what_grafana_export_writes(wheel):
    tree = {
        path.relative_to(ROOT / "grafana").as_posix(): path.read_text(encoding="utf-8")
        for path in (ROOT / "grafana").rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }

    assert tree == {path: wheel.read(f"sqlprobe/grafana_files/{path}").decode() for path in tree}
    assert tree == grafana.files()


def test_wheel_says_what_it_needs(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode())

    assert ">=3.11" == metadata["Requires-Python"]
    assert "MIT" == metadata["License-Expression"]
    assert {"prometheus", "otel", "lab", "html", "demo", "test", "dev"} == set(metadata.get_all("Provides-Extra"))
    assert {"sqlalchemy", "rich", "sqlglot"} == {
        requirement.split(">")[0].lower()
        for requirement in metadata.get_all("Requires-Dist")
        if "extra ==" not in requirement
    }


def test_wheel_brings_the_command(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))

    assert "[console_scripts]\nsqlprobe = sqlprobe.cli:main" in wheel.read(name).decode()
    assert "[pytest11]\nsqlprobe = pytest_sqlprobe" in wheel.read(name).decode()


def test_sdist_holds_what_the_suite_needs(archives):
    with tarfile.open(archives[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {"LICENSE", "Makefile", "README.md", "pyproject.toml", "tests/conftest.py", "tools/matrix.py"} <= names
