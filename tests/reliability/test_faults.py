"""Whichever function of ours raises, the application gets what it gets without us, and the fault is counted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROGRAM = HERE / "faulted.py"

# Modules whose functions run inside a statement, a scope's end or a middleware. What the workload reaches in others
# (render, report, exporters' scrapes) is put to the test too, but may be reached by readers only.
INSIDE = {
    "autoscope", "capture", "detectors", "faults", "fingerprint", "ignores", "integrations", "lag", "ledger", "mute",
    "orm", "pool", "scopes", "sites", "stats", "timeline", "walks",
}  # fmt: skip

# Nothing of ours is around these: a fault put at their very first step is one in the caller's own line. What they call
# is put to the test.
OUTERMOST = {
    "capture._on_execute": "SQLAlchemy calls it; all of it but the driver call is guarded",
    "capture._on_executemany": "as _on_execute",
    "capture._on_execute_no_params": "as _on_execute",
    "pool._wrap_dialect.do_begin": "the dialect's own method, wrapped; it calls what is guarded",
    "pool._wrap_dialect.do_commit": "as do_begin",
    "pool._wrap_dialect.do_rollback": "as do_begin",
    "pool._wrap_return._do_return_conn": "as do_begin",
    "ignores.Ignore.__post_init__": "checks what the application passed to ignore()",
    "mute.check_label": "checks what the application passed to ignore()",
    "mute.Mute.__init__": "the application's own call of ignore()",
    "mute.Mute.__enter__": "the application's own with statement",
    "mute.Mute.__exit__": "the application's own with statement",
    "scopes.Digest.__init__": "makes empty containers, in the application's own call of scope()",
    "scopes.Scope.__init__": "the application's own call of scope()",
    "scopes.Scope.__enter__": "the application's own with statement",
    "scopes.Scope.__exit__": "the application's own with statement",
    "scopes.Scope.__repr__": "the application's own call of repr()",
    "integrations.share_of": "checks what the application passed to a middleware",
    "integrations.asgi.SqlprobeMiddleware.__init__": "the application's own call",
    "integrations.asgi.SqlprobeMiddleware.__call__": "the server calls it; it calls what is guarded",
    "integrations.asgi.SqlprobeMiddleware.__call__.send_named": "as __call__",
    "integrations.wsgi.SqlprobeMiddleware.__init__": "the application's own call",
    "integrations.wsgi.SqlprobeMiddleware.__call__": "the server calls it; it calls what is guarded",
    "integrations.wsgi.SqlprobeMiddleware.__call__.finish": "as __call__",
    "integrations.wsgi.SqlprobeMiddleware.__call__.start_named": "as __call__",
    "integrations.wsgi._Body.__init__": "as __call__",
    "integrations.wsgi._Body.__iter__": "as __call__",
    "integrations.wsgi._Body.__next__": "as __call__",
    "integrations.wsgi._Body.close": "as __call__",
    "integrations.threads.CarryingExecutor.__init__": "the application's own call",
    "integrations.threads.carried": "the application's own call; in an executor it is guarded",
    "integrations.threads.carried.run": "the thread's own first step",
}
# These raise into nobody's way and into no counter.
UNCOUNTED = {
    "capture._forget_engine": "a finalizer: CPython prints what it raises",
    "integrations.wsgi._Body.__del__": "a finalizer",
    "lag.LoopWatch._tick": "a timer of the event loop, which reports what it raises",
    "orm.relationship_of": "where a name fails, another is told",
    "timeline._label": "where a name fails, another is told",
    "walks.Walk.add": "what cannot be followed is no walk",
    "walks.Walk._goes_on": "as add, which calls it",
    "walks.Walk._is_next_page": "as add",
}


@pytest.fixture(
    scope="module", params=[pytest.param(80, id="each 80th"), pytest.param(1, id="all", marks=pytest.mark.exhaustive)]
)
def told(request):
    command = [sys.executable, str(PROGRAM), str(request.param)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=3_000).stdout)


@pytest.mark.once
@pytest.mark.tree
def test_no_fault_reaches_the_application_and_each_is_counted(told):
    wrong = {point: said for point, said in told["wrong"].items() if point not in OUTERMOST.keys() | UNCOUNTED.keys()}

    assert {} == wrong
    # What is looked up once and kept is not always asked for again.
    assert len(told["missed"]) <= len(told["points"]) // 20, told["missed"]


@pytest.mark.once
@pytest.mark.tree
def test_every_function_is_put_to_the_test_or_said_not_to_be(told):
    """A new function that the workload does not reach fails here: reach it in workload.py, or name it in unreached.txt."""
    named = set((HERE / "unreached.txt").read_text(encoding="utf-8").split())
    unreached = {point for point in told["nowhere"] if point.partition(".")[0] in INSIDE}

    assert set() == unreached - named
    assert len(told["points"]) >= 250
