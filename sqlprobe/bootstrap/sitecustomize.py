"""
Found before any other sitecustomize in the Python processes of `sqlprobe run`: lets sqlprobe wait for SQLAlchemy there,
then runs the one that would have run.

Any Python may come by, so nothing here is newer than Python 2.7.
"""

import os
import sys

_here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
_folder = os.environ.get("SQLPROBE_RUN_DIR", "")
if _folder and sys.version_info >= (3, 11) and os.path.isdir(_folder):  # noqa: PTH112
    try:
        import _sqlprobe_early  # type: ignore[import-not-found]

        _sqlprobe_early.wait(_folder, os.environ.get("SQLPROBE_RUN_OPTIONS", "{}"))
    except Exception:  # noqa: BLE001, S110 - ours: the program runs as it would have, unobserved
        pass

sys.path[:] = [entry for entry in sys.path if entry != _here]
_mine = sys.modules.pop("sitecustomize")
try:
    import sitecustomize
except ImportError as error:
    if getattr(error, "name", "sitecustomize") != "sitecustomize":
        raise
    # The import system looks this module up when it is done with it.
    sys.modules["sitecustomize"] = _mine
