"""
sqlprobe in pytest: what is loaded once a suite uses SQLAlchemy. The options, and the way in, are in `pytest_sqlprobe`.

`options` reads what was asked for, `watch` follows a test's statements, `session` holds the hooks, `limits` what a
marker says and a failure reads like, `fixture` what a test gets, `outcome` sums up the workers and what is told at the
end. `Watcher` is the fixture's type, `SqlprobeWarning` what mode warn warns of.
"""

from sqlprobe.pytest_plugin.fixture import Watcher
from sqlprobe.pytest_plugin.session import SqlprobeWarning

__all__ = ["SqlprobeWarning", "Watcher"]
