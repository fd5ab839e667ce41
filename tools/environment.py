"""
Make a virtual environment and install into it: `python tools/environment.py PATH REQUIREMENT…`.

Needs a CPython and its pip, nothing else. uv, itself taken from the package index, installs in a tenth of pip's time;
wherever it cannot (no build for this machine, an index that only pip is configured for), pip does.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

PIP = ("-m", "pip", "--disable-pip-version-check")
INDEX = re.compile(r"(global|install|:env:)\.(index-url|cert)='(.*)'")


def make(path: Path, python: str = sys.executable) -> Path:
    """The interpreter of the environment at *path*, which is made anew unless *python* made it and it still runs."""
    inside = path / "bin" / "python"
    if _base(str(inside)) != _base(python):
        command = [python, "-m", "venv", "--clear", str(path)]
        # Debian's python3 has no ensurepip: its own pip, if it has one, serves the environment too.
        if subprocess.run(command, check=False, capture_output=True).returncode:
            subprocess.run([*command, "--without-pip"], check=True)
            subprocess.run([python, *PIP, "--python", str(inside), "install", "--quiet", "pip"], check=True)
    return inside


def install(python: Path, *requirements: str) -> None:
    """
    Install *requirements*, as pip spells them, beside the interpreter *python*, newest versions first.

    Raises:
        CalledProcessError: neither uv nor pip could; both have said why on stderr.
    """
    uv = _uv(python)
    if uv is not None:
        command = [uv, "pip", "install", "--quiet", "--upgrade", "--python", str(python), *requirements]
        if not subprocess.run(command, check=False, env=_environment(python)).returncode:
            return
        print("uv could not install that; trying pip", file=sys.stderr)
    subprocess.run([python, *PIP, "install", "--quiet", "--upgrade", *requirements], check=True)


def _base(python: str) -> str:
    """Which CPython an interpreter, or the environment that it is of, stands on; empty where it does not run."""
    script = "import os, sys; print(os.path.realpath(sys._base_executable), sys.version)"
    try:
        return subprocess.run([python, "-c", script], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def _uv(python: Path) -> str | None:
    folders = [str(python.parent), str(Path(sys.executable).parent)]
    found = shutil.which("uv", path=os.pathsep.join(folders)) or shutil.which("uv")
    if found is None:
        subprocess.run([python, *PIP, "install", "--quiet", "uv"], check=False)
        found = shutil.which("uv", path=folders[0])
    return found


def _environment(python: Path) -> dict[str, str]:
    """Ours, and the index and certificates that pip is configured for: uv does not read pip's files and variables."""
    listed = subprocess.run([python, *PIP, "config", "list"], check=False, capture_output=True, text=True)
    configured: dict[str, str] = {}
    # The later wins: a variable over the section of the command over the global one, as in pip.
    for section in ("global", "install", ":env:"):
        configured.update((key, value) for where, key, value in INDEX.findall(listed.stdout) if where == section)
    names = {"index-url": "UV_DEFAULT_INDEX", "cert": "SSL_CERT_FILE"}
    return {**{names[key]: value for key, value in configured.items()}, **os.environ}


if __name__ == "__main__":
    if len(sys.argv) < 3:  # noqa: PLR2004 - the script, the path, one requirement
        sys.exit(__doc__)
    install(make(Path(sys.argv[1])), *sys.argv[2:])
