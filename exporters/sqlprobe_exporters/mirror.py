"""
The files of prometheus_client's multiprocess mode, written from a reading.

Each process keeps its totals in files of its own in PROMETHEUS_MULTIPROC_DIR, in the format of prometheus_client's own
metrics, so that any MultiProcessCollector sums them up with those. They are brought up to date by a thread every two
seconds, at each scrape, and when the process ends.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import Gauge
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from sqlprobe_exporters.metrics import METRICS, Histogram, Metric, Reader
from sqlprobe_exporters.text import edge

if TYPE_CHECKING:
    from sqlprobe_exporters.metrics import Labels, Reading

FLUSH_SECONDS: Final = 2.0  # a killed process loses so much; Prometheus scrapes every 15 s
LEAVE_SECONDS: Final = 2.0
HURRY_SECONDS: Final = 0.02  # once SIGTERM has come
_FILES: Final = {"counter": "counter_sqlprobe", "histogram": "histogram_sqlprobe", "gauge": "gauge_max_sqlprobe"}


class Mirror:
    """
    This process's files, and those of the processes that it forks.

    A process that gets the number of one that has ended goes on from that one's totals, as prometheus_client does.
    """

    def __init__(self, reader: Reader, folder: str, seconds: float) -> None:
        self._reader = reader
        self._folder = folder
        self._seconds = seconds
        self._stopped = False
        self._begin()
        _mirrors.add(self)
        atexit.register(_flush, weakref.ref(self))
        _catch_sigterm()

    def _begin(self) -> None:
        """In this process, which may have been forked."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._files: dict[str, Any] = {}
        self._before: dict[str, float] = {}  # by key, what was in a file of this process's number
        self._keys: dict[tuple[str, str, Labels], str] = {}
        self._written: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="sqlprobe mirror", daemon=True)
        self._thread.start()
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            # A process that multiprocessing forks ends without atexit, and forgets finalizers as it starts.
            util.register_after_fork(self, Mirror._finalize)

    def _finalize(self) -> None:
        util = sys.modules["multiprocessing.util"]
        util.Finalize(None, _flush, (weakref.ref(self),), exitpriority=0)

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()
        self.flush()
        _mirrors.discard(self)

    def flush(self) -> None:
        """Bring the files up to date. Never raises: what fails is counted, and tried again."""
        if self._pid != os.getpid():
            return  # forked in a way that told nobody
        try:
            with self._lock:
                self._write(self._reader.read())
        except ReferenceError:
            self._stopped = True  # the probe has gone
        except Exception as error:  # noqa: BLE001 - an unwritable folder, a full disk
            self._fault(error)

    def _fault(self, error: Exception) -> None:
        try:
            self._reader.probe.fault("prometheus multiprocess", error)
        except ReferenceError:
            self._stopped = True

    def hurry(self) -> None:
        """The process is about to end, and may do so without a word."""
        self._seconds = HURRY_SECONDS
        self._wake.set()

    def _run(self) -> None:
        while not self._stopped:
            if self._wake.wait(self._seconds):
                self._wake.clear()
            if not self._stopped:
                self.flush()

    def _write(self, reading: Reading) -> None:
        for metric in METRICS:
            values = reading[metric.name]
            if not values:
                continue
            if metric.kind == "gauge" and metric.across != "max":
                _set_gauge(metric, values)
                continue
            file = self._file(_FILES[metric.kind])
            for labels, value in values.items():
                if isinstance(value, Histogram):
                    edges = [*map(edge, metric.bounds), "+Inf"]
                    for bound, count in zip(edges, value.buckets, strict=True):
                        self._put(file, metric, bound, labels, count)
                    self._put(file, metric, "sum", labels, value.sum)
                else:
                    self._put(file, metric, "", labels, value)

    def _file(self, name: str) -> Any:
        file = self._files.get(name)
        if file is None:
            path = Path(self._folder) / f"{name}-{self._pid}.db"
            file = self._files[name] = MmapedDict(str(path))  # type: ignore[no-untyped-call]
            if not name.startswith("gauge"):
                self._before.update((key, value) for key, value, _ in file.read_all_values())  # type: ignore[no-untyped-call]
        return file

    def _put(self, file: Any, metric: Metric, part: str, labels: Labels, value: float) -> None:
        key = self._keys.get((metric.name, part, labels))
        if key is None:
            key = self._keys[metric.name, part, labels] = _key(metric, part, labels)
        if self._written.get(key) == value:
            return
        file.write_value(key, self._before.get(key, 0.0) + value, 0.0)
        self._written[key] = value


def _key(metric: Metric, part: str, labels: Labels) -> str:
    names, values = list(metric.labels), list(labels)
    if metric.kind != "histogram":
        name = metric.samples[0]
    elif part == "sum":
        name = f"{metric.name}_sum"
    else:
        name = f"{metric.name}_bucket"
        names.append("le")
        values.append(part)
    key: str = mmap_key(metric.name, name, names, values, metric.help)
    return key


_gauges: dict[str, Gauge] = {}  # prometheus_client's own, whose files it removes for processes that have died
_told: dict[str, set[Labels]] = {}


def _set_gauge(metric: Metric, values: dict[Labels, Any]) -> None:
    gauge = _gauges.get(metric.name)
    if gauge is None:
        gauge = _gauges[metric.name] = Gauge(
            metric.name, metric.help, metric.labels, registry=None, multiprocess_mode=metric.across
        )
    told = _told.setdefault(metric.name, set())
    for labels in told - values.keys():
        gauge.labels(*labels).set(0)  # such as findings that are closed: a file cannot forget a series
    for labels, value in values.items():
        (gauge.labels(*labels) if labels else gauge).set(value)
    told.update(values)


_mirrors: weakref.WeakSet[Mirror] = weakref.WeakSet()


def _flush(ref: weakref.ref[Mirror]) -> None:
    mirror = ref()
    if mirror is not None:
        mirror.flush()


_previous: Any = None  # what SIGTERM did before


def _catch_sigterm() -> None:
    """
    A process that SIGTERM ends at once runs no `atexit`; uvicorn's workers, which shut down first, end so too.

    The handler that is there, or the default, has its turn after ours.
    """
    global _previous
    if threading.current_thread() is not threading.main_thread():
        return  # no other may set a handler
    previous = signal.getsignal(signal.SIGTERM)
    if previous in (None, signal.SIG_IGN, _terminate):
        return
    _previous = previous
    signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: Any) -> None:
    mirrors = list(_mirrors)
    for mirror in mirrors:
        mirror.hurry()
    if callable(_previous):
        _previous(number, frame)
        return
    # The code that was interrupted may hold a lock that a flush needs: another thread waits for it, and not for long.
    last = threading.Thread(target=_flush_all, args=(mirrors,), daemon=True)
    with suppress(RuntimeError):
        last.start()
        last.join(LEAVE_SECONDS)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _flush_all(mirrors: list[Mirror]) -> None:
    for mirror in mirrors:
        mirror.flush()


def _before_fork() -> None:
    """A lock that our thread held in a flush, also one of prometheus_client's, would stay locked in the child."""
    for mirror in list(_mirrors):
        mirror._lock.acquire(timeout=1.0)  # noqa: SLF001 - this module's


def _after_fork_in_parent() -> None:
    for mirror in list(_mirrors):
        with suppress(RuntimeError):  # it was not acquired in time
            mirror._lock.release()  # noqa: SLF001


def _after_fork() -> None:
    """The parent's files are the parent's; a thread does not survive a fork."""
    _told.clear()
    for mirror in list(_mirrors):
        try:
            mirror._begin()  # noqa: SLF001 - this module's
        except Exception as error:  # noqa: BLE001 - the child has the application's work to do
            mirror._fault(error)  # noqa: SLF001


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)
