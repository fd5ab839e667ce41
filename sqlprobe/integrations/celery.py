"""
Celery: a scope for each task, by its signals, in the worker's processes and threads, and for eager tasks.
"""

from __future__ import annotations

from typing import Any, Final

from sqlprobe import faults
from sqlprobe.integrations import Unit, share_of

_UNIT: Final = "_sqlprobe_unit"  # on the task's request, which Celery drops when the task is done
_UID: Final = "sqlprobe"

_share: float | None = None


def connect(*, sample: float | None = None) -> None:
    """
    Give each task of every Celery application in this process a scope, named as the task, of the kind "task".

    Where the worker forks (the prefork pool, Celery's own default) call it in the module of the application, and
    `attach()` too: the children take both along. A second call changes *sample* only.

    Args:
        sample: the share of tasks that get a scope, 0 to 1; None: what `Settings.sample` says.

    Raises:
        SqlprobeError: *sample* is no share.
    """
    from celery import signals

    global _share
    _share = share_of(sample)
    signals.task_prerun.connect(_begin, weak=False, dispatch_uid=_UID)
    signals.task_postrun.connect(_end, weak=False, dispatch_uid=_UID)


def disconnect() -> None:
    """Leave Celery alone from now on; tasks under way end as they began."""
    from celery import signals

    signals.task_prerun.disconnect(dispatch_uid=_UID)
    signals.task_postrun.disconnect(dispatch_uid=_UID)


def _begin(sender: Any = None, **_: Any) -> None:
    try:
        request = sender.request  # of this call: a task that runs another, or itself, eagerly has one for each
        setattr(request, _UNIT, Unit(lambda: str(sender.name), "task", _share))
    except Exception as error:  # noqa: BLE001 - ours: the task runs without a scope
        faults.count("celery", error)


def _end(sender: Any = None, **_: Any) -> None:
    try:
        unit = sender.request.__dict__.pop(_UNIT, None)
        if unit is not None:
            unit.end()
    except Exception as error:  # noqa: BLE001 - ours
        faults.count("celery", error)
