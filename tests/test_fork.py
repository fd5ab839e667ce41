"""
After a fork the child counts from zero, tells nothing of the parent's, and waits for no lock of a thread it has not got.

Each case is a program of its own: a fork of the test process would copy pytest, its threads and its plugins.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = [pytest.mark.versions, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")]

PROLOGUE = """
import json, multiprocessing, os, sys, threading
import sqlalchemy as sa
import sqlprobe
from sqlprobe import faults, probe as probes, scopes

ONE, TWO = sa.text("select 1"), sa.text("select 'two'")
engine = sa.create_engine("sqlite:///file:shared?mode=memory&uri=true", poolclass=sa.NullPool)

def run(*statements):
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(statement).all()

def calls(source):
    return {item.text: item.calls for item in source.report().statements}

def in_child(work):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with os.fdopen(writer, "w") as stream:
                json.dump(work(), stream)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else "the child failed"

def tell(**found):
    print(json.dumps({**found, "faults": [fault.where for fault in faults.told()]}))
"""


@pytest.fixture
def program(tmp_path):
    """What a program prints as JSON; it is ended where it hangs."""

    def run(source):
        path = tmp_path / "program.py"
        path.write_text(PROLOGUE + textwrap.dedent(source), encoding="utf-8")
        # A fork of a process with threads is what is under test; CPython 3.12 warns of it.
        done = subprocess.run(
            [sys.executable, "-W", "ignore::DeprecationWarning", path],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            check=False,
        )

        assert ("", 0) == (done.stderr, done.returncode)
        return json.loads(done.stdout)

    return run


def test_parent_and_child_count_their_own(program):
    found = program("""
        with sqlprobe.attach() as probe, sqlprobe.record() as recording:
            run(ONE, ONE, TWO)
            def work():
                before = [calls(probe), calls(recording)]
                run(ONE)
                return [*before, calls(probe), calls(recording)]
            child = in_child(work)
            run(TWO)
            tell(child=child, parent=[calls(probe), calls(recording)])
    """)

    assert {
        "child": [{}, {}, {"select ?": 1}, {"select ?": 1}],
        "parent": [{"select ?": 4}] * 2,
        "faults": [],
    } == {**found, "parent": [{"select ?": sum(each.values())} for each in found["parent"]]}


def test_forking_inside_a_scope_judges_each_part_where_it_ran(program):
    found = program("""
        with sqlprobe.attach() as probe:
            scope = sqlprobe.scope("outer").__enter__()
            inner = sqlprobe.scope("inner").__enter__()
            run(ONE, ONE, ONE)
            def work():
                before = [scope.calls, inner.calls]
                run(ONE)
                after = [scope.calls, inner.calls]
                inner.__exit__(None, None, None)
                scope.__exit__(None, None, None)
                return [before, after, {item.name: item.calls for item in probe.report().scopes}]
            child = in_child(work)
            inner.__exit__(None, None, None)
            scope.__exit__(None, None, None)
            tell(child=child, parent={item.name: item.calls for item in probe.report().scopes})
    """)

    assert {
        "child": [[0, 0], [1, 1], {"outer": 1, "inner": 1}],
        "parent": {"outer": 3, "inner": 3},
        "faults": [],
    } == found


def test_engine_that_was_gone_before_the_fork_is_the_parents(program):
    found = program("""
        import gc
        with sqlprobe.attach() as probe:
            other = sa.create_engine("sqlite://")
            with other.connect() as connection:
                connection.execute(ONE)
            connection = other = None
            gc.collect()
            child = in_child(lambda: calls(probe))
            tell(child=child, parent=calls(probe))
    """)

    assert {"child": {}, "parent": {"select ?": 1}, "faults": []} == found


def test_child_waits_for_no_lock_that_another_thread_held(program):
    """A thread holds every lock of ours at the moment of the fork; the child must work all the same."""
    found = program("""
        settings = sqlprobe.Settings(slow_seconds=1e-9)
        probe = sqlprobe.attach(settings=settings)
        recording = sqlprobe.record().__enter__()
        run(ONE)
        held, release = threading.Event(), threading.Event()

        def hold():
            scope = sqlprobe.scope("of the thread").__enter__()
            run(ONE)
            with scope._lock, recording._lock, probes._lock, probe._reading, probe._ledger._lock, \\
                    recording._ledger._lock:
                held.set()
                release.wait()
            scope.__exit__(None, None, None)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()

        def work():
            with sqlprobe.scope("of the child"), sqlprobe.record() as another:
                run(TWO)
            run(TWO)
            found = [calls(probe), calls(recording), calls(another), sorted(
                [item.name, item.calls] for item in probe.report().scopes)]
            recording.__exit__(None, None, None)
            probe.detach()
            return found

        child = in_child(work)
        release.set()
        thread.join()
        recording.__exit__(None, None, None)
        probe.detach()
        tell(child=child, parent=[calls(probe), calls(recording)])
    """)

    assert {
        "child": [{"select ?": 2}, {"select ?": 2}, {"select ?": 1}, [["of the child", 1]]],
        "parent": [{"select ?": 2}] * 2,
        "faults": [],
    } == found


@pytest.mark.long
def test_forks_under_traffic_all_end(program):
    """
    Twenty forks while four threads run statements in scopes and a reader asks for reports.

    The child runs no statement: SQLite has locks of its own, which a fork may find held.
    """
    found = program("""
        probe = sqlprobe.attach()
        recording = sqlprobe.record().__enter__()
        done = threading.Event()
        ran = [0] * 4

        def traffic(number):
            while not done.is_set():
                with sqlprobe.scope(f"thread {number}"):
                    run(ONE)
                ran[number] += 1

        def read():
            while not done.is_set():
                probe.report()
                recording.report()

        threads = [threading.Thread(target=traffic, args=(number,)) for number in range(4)]
        threads.append(threading.Thread(target=read))
        for thread in threads:
            thread.start()

        def work():
            with sqlprobe.scope("child"), sqlprobe.record() as another:
                found = [calls(probe), calls(recording), calls(another)]
            probe.detach()
            recording.__exit__(None, None, None)
            return found

        children = [in_child(work) for _ in range(20)]
        done.set()
        for thread in threads:
            thread.join()
        recording.__exit__(None, None, None)
        probe.detach()
        tell(children=children, exact=[calls(probe) == calls(recording) == {"select ?": sum(ran)}])
    """)

    assert {"children": [[{}, {}, {}]] * 20, "exact": [True], "faults": []} == found


@pytest.mark.long
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing_counts_nothing_twice(program, method):
    found = program(f"""
        def work(number):
            run(ONE)
            return sum(item.calls for owner in sqlprobe.capture.owners for item in owner.report().statements)

        if __name__ == "__main__":
            with sqlprobe.attach() as probe:
                run(ONE, ONE)
                with multiprocessing.get_context({method!r}).Pool(1) as pool:
                    child = pool.map(work, range(3))
                tell(child=child, parent=calls(probe))
    """)

    # A spawned process has no probe: nobody attached one.
    assert {"child": [1, 2, 3] if method == "fork" else [0, 0, 0], "parent": {"select ?": 2}, "faults": []} == found


def test_a_fork_while_nothing_is_attached_leaves_the_child_able_to(program):
    found = program("""
        def work():
            with sqlprobe.attach(engine) as probe:
                run(ONE)
            return calls(probe)
        tell(child=in_child(work))
    """)

    assert {"child": {"select ?": 1}, "faults": []} == found
