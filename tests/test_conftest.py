"""The suite's own promise: what is missing is named, and where nothing may be missing, a skip is a failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

SKIPS = """
    import pytest

    @pytest.mark.skip(reason="by mark")
    def test_marked(): ...

    def test_called():
        pytest.skip("by call")

    @pytest.mark.requires_debian("no-such-package", "no-such-program")
    def test_debian(): ...

    @pytest.mark.xfail(reason="known")
    def test_known():
        assert False
"""


@pytest.fixture
def suite(tmp_path):
    """`suite(source, **environment)`: the completed pytest process over *source*, under this suite's conftest."""
    here = Path(__file__).parent
    (tmp_path / "pyproject.toml").write_text((here.parent / "pyproject.toml").read_text())
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "conftest.py").write_text((here / "conftest.py").read_text())

    def start(source, **environment):
        (tmp_path / "tests" / "test_inner.py").write_text(textwrap.dedent(source))
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "SQLPROBE_"))}
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider"],
            cwd=tmp_path,
            env=inherited | environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.mark.exhaustive
def test_skips_are_skips_where_something_may_be_missing(suite):
    with suite(SKIPS) as process:
        output = process.communicate()[0]

    assert 0 == process.returncode
    assert "3 skipped, 1 xfailed" in output
    assert "needs the Debian package no-such-package: no-such-program not found" in output


@pytest.mark.exhaustive
def test_skips_are_failures_where_nothing_may_be_missing(suite):
    with suite(SKIPS, SQLPROBE_REQUIRE_ALL="1") as process:
        output = process.communicate()[0]

    assert 1 == process.returncode
    assert "1 failed, 1 xfailed, 2 errors" in output
    assert "test_marked may not be skipped (SQLPROBE_REQUIRE_ALL is set): Skipped: by mark" in output
    assert "(SQLPROBE_REQUIRE_ALL is set): Skipped: needs the Debian package no-such-package" in output


@pytest.mark.exhaustive
def test_a_module_skipped_whole_is_a_failure_too(suite):
    source = "import pytest; pytest.importorskip('no_such_module')"

    with suite(source, SQLPROBE_REQUIRE_ALL="1") as process:
        output = process.communicate()[0]

    assert 0 != process.returncode
    assert "may not be skipped (SQLPROBE_REQUIRE_ALL is set): Skipped: could not import 'no_such_module'" in output


@pytest.mark.exhaustive
def test_a_killed_run_leaves_no_server(suite):
    source = """
        import time

        def test_waits(postgresql_server, capfd):
            with capfd.disabled():
                print(postgresql_server.sockets, flush=True)
            time.sleep(60)
    """
    with suite(source) as process:
        folder = next(Path(word) for line in process.stdout for word in line.split() if "/sqlprobe-" in word)
        running = (folder / "data" / "postmaster.pid").exists()
        process.send_signal(signal.SIGKILL)
    process.wait()

    assert running
    # The folder is the last that the server's supervisor removes, and it is nobody's child: nothing to wait for.
    deadline = time.monotonic() + 30
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not folder.exists()
