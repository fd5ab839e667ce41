"""
`sqlprobe grafana export`: the dashboard, the Prometheus rules and what else of `grafana/` a user wants.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlprobe.model import SqlprobeError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

_PARTS: Final = ("README.md", "Dockerfile", "compose.yaml", "dashboards", "prometheus", "provisioning", "tempo")


class ExportError(SqlprobeError):
    """The files cannot be written: the message says which and what to do."""


def files() -> dict[str, str]:
    """The text of every file by its path, with "/" between folders."""
    root: Traversable = resources.files("sqlprobe") / "grafana_files"
    if not root.is_dir():  # an editable installation: the wheel's copy is made when it is built
        root = Path(__file__).resolve().parent.parent / "grafana"
    return {path: file.read_text("utf-8") for part in _PARTS for path, file in _below(root / part, part)}


def export(folder: Path, *, force: bool = False) -> list[Path]:
    """
    Write every file below *folder*, which is made; those written, or there already with the same text.

    Raises:
        ExportError: a file is there and differs, without *force*; nothing was written. Or one cannot be written.
    """
    wanted = {folder / path: text for path, text in files().items()}
    try:
        differing = [path for path, text in wanted.items() if path.exists() and path.read_bytes() != text.encode()]
        if differing and not force:
            raise ExportError(
                f"grafana export {folder}: {differing[0]} is there and differs"
                f"{f', and {len(differing) - 1} more' if differing[1:] else ''}; nothing was written; "
                "name another folder, or pass --force to replace them"
            )
        for path, text in wanted.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
    except OSError as error:
        raise ExportError(
            f"grafana export {folder}: {error.filename or folder} cannot be written ({error.strerror}); "
            "name a folder that is yours to write"
        ) from error
    return list(wanted)


def _below(node: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    if node.is_file():
        yield path, node
    elif node.is_dir():
        for child in sorted(node.iterdir(), key=lambda each: each.name):
            yield from _below(child, f"{path}/{child.name}")
