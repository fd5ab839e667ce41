"""
sqlprobe: which queries of an SQLAlchemy application hurt, where in its code each comes from, and what mends it.

    probe = sqlprobe.attach(engine)          # embedded: at startup
    with sqlprobe.scope("GET /orders"): ...  # one logical unit of work
    with sqlprobe.record() as recording: ... # everything that the process runs
    report = probe.report()

Where to read on: `capture` is what runs inside a statement, `scopes` what becomes of it, `detectors` what is made of
that, `probe` what ties them together.
"""

from sqlprobe.budgets import BudgetsError, load_budgets
from sqlprobe.growth import Growth, GrowthError, assert_constant
from sqlprobe.ignores import Ignore, IgnoreError, load_ignores
from sqlprobe.model import (
    Execution,
    Fault,
    Finding,
    Fix,
    ScopeStats,
    Site,
    SiteCalls,
    SqlprobeError,
    StatementStats,
    Step,
    Timeline,
    Verified,
)
from sqlprobe.mute import Mute as ignore  # noqa: N813 - used as a function: with sqlprobe.ignore(...)
from sqlprobe.probe import AlreadyAttached, AttachError, Probe, attach, probe_of, record
from sqlprobe.recording import Recording
from sqlprobe.report import Comparison, Process, Report, ReportError
from sqlprobe.scopes import Scope as scope  # noqa: N813 - used as a function: with sqlprobe.scope(...)
from sqlprobe.settings import Settings, SettingsError
from sqlprobe.stats import BOUNDS as SECONDS_BOUNDS
from sqlprobe.stats import CALL_BOUNDS
from sqlprobe.verdict import CheckError

__version__ = "0.1.0"

__all__ = [
    "CALL_BOUNDS",
    "SECONDS_BOUNDS",
    "AlreadyAttached",
    "AttachError",
    "BudgetsError",
    "CheckError",
    "Comparison",
    "Execution",
    "Fault",
    "Finding",
    "Fix",
    "Growth",
    "GrowthError",
    "Ignore",
    "IgnoreError",
    "Probe",
    "Process",
    "Recording",
    "Report",
    "ReportError",
    "ScopeStats",
    "Settings",
    "SettingsError",
    "Site",
    "SiteCalls",
    "SqlprobeError",
    "StatementStats",
    "Step",
    "Timeline",
    "Verified",
    "__version__",
    "assert_constant",
    "attach",
    "ignore",
    "load_budgets",
    "load_ignores",
    "probe_of",
    "record",
    "scope",
]
