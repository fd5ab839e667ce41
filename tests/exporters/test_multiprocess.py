"""Several processes: what gunicorn's and uvicorn's workers count together, as their own /metrics and their files tell."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

pytestmark = pytest.mark.once

APP = """
import os
import sqlalchemy as sa
import sqlprobe
from prometheus_client import Counter
from sqlprobe.integrations.asgi import SqlprobeMiddleware as Asgi
from sqlprobe.integrations.wsgi import SqlprobeMiddleware as Wsgi
from sqlprobe_exporters.prometheus import Prometheus, make_asgi_app, make_wsgi_app

hits = Counter("app_hits", "The application's own.")
engine = sa.create_engine("sqlite:///" + os.environ["DATABASE"], poolclass=sa.pool.QueuePool)
sqlprobe.attach(engine, exporters=[Prometheus(flush_seconds=float(os.environ["FLUSH_SECONDS"]))])
if os.environ.get("BEFORE_FORK"):
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    engine.dispose()
metrics = make_wsgi_app()


def work():
    hits.inc()
    with sqlprobe.scope("work"), engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))


def app(environ, start_response):
    if environ["PATH_INFO"] == "/metrics":
        return metrics(environ, start_response)
    work()
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]


asgi_metrics = make_asgi_app()


async def asgi(scope, receive, send):
    if scope["type"] != "http" or scope["path"] == "/metrics":
        return await asgi_metrics(scope, receive, send)
    work()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""


class Server:
    def __init__(self, process, url):
        self.process = process
        self.url = url

    def get(self, path="/"):
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return answer.read().decode()

    def hit(self, times):
        return {self.get() for _ in range(times)}

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


@contextmanager
def serve(tmp_path, *command, **environment):
    (tmp_path / "served.py").write_text(textwrap.dedent(APP))
    files = tmp_path / "multiproc"
    files.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(tmp_path),
            "DATABASE": str(tmp_path / "database.sqlite"),
            "PROMETHEUS_MULTIPROC_DIR": str(files),
            "FLUSH_SECONDS": "3600",
            **environment,
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    said = []
    told = threading.Event()

    def listen():
        for line in process.stderr:
            said.append(line)
            found = re.search(r"(?:Listening at:|running on) (http://[\d.]+:\d+)", line)
            if found:
                said.insert(0, found[1])
                told.set()
        told.set()

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        told.wait(30)
        assert said, "the server said nothing"
        assert said[0].startswith("http"), "".join(said)
        yield Server(process, said[0])
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        listener.join()
        process.stderr.close()


def samples(folder):
    """What any endpoint of prometheus_client tells from the files: the value by name and labels."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for metric in registry.collect()
        for sample in metric.samples
    }


def total(found, name):
    return sum(value for key, value in found.items() if key[0] == name)


@pytest.mark.long
@pytest.mark.parametrize("preload", [pytest.param(False, marks=pytest.mark.exhaustive), True])
def test_gunicorn_workers_add_up_exactly(tmp_path, preload):
    options = ["--preload"] if preload else []
    command = ["gunicorn", "-w", "3", "-b", "127.0.0.1:0", *options, "served:app"]
    with serve(tmp_path, *command, BEFORE_FORK="1" if preload else "") as server:
        workers = server.hit(60)
        server.process.send_signal(signal.SIGHUP)  # the workers are replaced
        while server.get() in workers:  # an old worker may answer until it has gone
            pass
        answered = server.hit(40)
        text = server.get("/metrics")
        server.stop()

    found = samples(tmp_path / "multiproc")
    hits = total(found, "app_hits_total")  # the application's own counter tells how many answers there were
    # What ran before the fork is the parent's, once.
    before = int(preload)

    assert answered - workers
    assert hits >= 101
    assert hits + before == total(found, "sqlprobe_query_duration_seconds_count")
    assert hits == total(found, "sqlprobe_request_queries_count")
    assert hits + before == total(found, "sqlprobe_pool_use_seconds_count")
    assert "sqlprobe_query_duration_seconds_bucket" in text
    assert "app_hits_total" in text


@pytest.mark.exhaustive
def test_uvicorn_workers_add_up_exactly(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["uvicorn", "--workers", "2", "--port", str(port), "served:asgi"]
    with serve(tmp_path, *command) as server:
        while True:  # the parent has its port before the workers serve it
            with suppress(OSError):
                server.get("/metrics")
                break
        server.hit(50)
        server.get("/metrics")
        server.stop()

    found = samples(tmp_path / "multiproc")

    assert (50, 50) == (total(found, "app_hits_total"), total(found, "sqlprobe_query_duration_seconds_count"))


@pytest.mark.exhaustive
def test_a_killed_worker_loses_what_came_after_its_last_flush_only(tmp_path):
    with serve(tmp_path, "gunicorn", "-w", "1", "-b", "127.0.0.1:0", "served:app", FLUSH_SECONDS="0.05") as server:
        (worker,) = server.hit(30)
        deadline = time.monotonic() + 20
        while total(samples(tmp_path / "multiproc"), "sqlprobe_query_duration_seconds_count") < 30:
            assert time.monotonic() < deadline, "nothing was flushed"
        os.kill(int(worker), signal.SIGKILL)
        while True:  # gunicorn starts another
            try:
                server.get()
                break
            except OSError:
                assert time.monotonic() < deadline
        server.stop()

    found = samples(tmp_path / "multiproc")

    assert 31 <= total(found, "sqlprobe_query_duration_seconds_count") == total(found, "app_hits_total")


def test_an_unwritable_folder_is_told_and_stops_nothing(tmp_path):
    script = """
import os, sqlalchemy as sa, sqlprobe
from sqlprobe_exporters.prometheus import Prometheus, make_wsgi_app
engine = sa.create_engine("sqlite://")
probe = sqlprobe.attach(engine, exporters=[Prometheus(flush_seconds=0.01)])
with engine.connect() as connection:
    assert 1 == connection.scalar(sa.text("SELECT 1"))
probe._exporters[0].mirror.flush()
body = b"".join(make_wsgi_app()({"REQUEST_METHOD": "GET"}, lambda *_: None))
assert b'sqlprobe_internal_errors_total{part="prometheus multiprocess"}' in body, body
assert b"sqlprobe_query_duration_seconds_count" in body
assert ["prometheus multiprocess"] == [fault.where for fault in probe.report().faults][:1]
"""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "missing")}
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, env=environment)

    assert 0 == done.returncode, done.stderr
    assert 2 >= done.stderr.count("sqlprobe failed in")


@pytest.mark.long
def test_a_process_with_the_number_of_a_dead_one_goes_on_from_its_totals(tmp_path):
    script = """
import os, sys
os.getpid = lambda: 4242
import sqlalchemy as sa, sqlprobe
from sqlprobe_exporters.prometheus import Prometheus
engine = sa.create_engine("sqlite://")
probe = sqlprobe.attach(engine, exporters=[Prometheus(flush_seconds=3600)])
with engine.connect() as connection:
    connection.execute(sa.text("SELECT 1"))
"""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", script], check=True, env=environment)

    assert 2 == total(samples(tmp_path), "sqlprobe_query_duration_seconds_count")


@pytest.mark.long
@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.exhaustive)])
def test_processes_of_multiprocessing_are_counted(tmp_path, method):
    script = """
import multiprocessing, os, sys
import sqlalchemy as sa, sqlprobe
from sqlprobe_exporters.prometheus import Prometheus
engine = sa.create_engine("sqlite://")
probe = sqlprobe.attach(engine, exporters=[Prometheus(flush_seconds=3600)])

def work():
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))

if __name__ == "__main__":
    work()
    processes = [multiprocessing.get_context(sys.argv[1]).Process(target=work) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
"""
    (tmp_path / "script.py").write_text(script)
    files = tmp_path / "files"
    files.mkdir()
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(files)}
    subprocess.run([sys.executable, str(tmp_path / "script.py"), method], check=True, env=environment)

    assert 4 == total(samples(files), "sqlprobe_query_duration_seconds_count")


def test_a_process_that_sigterm_ends_at_once_has_told_everything(tmp_path):
    script = """
import os, signal, sqlalchemy as sa, sqlprobe
from sqlprobe_exporters.prometheus import Prometheus
engine = sa.create_engine("sqlite://")
probe = sqlprobe.attach(engine, exporters=[Prometheus(flush_seconds=3600)])
with engine.connect() as connection:
    connection.execute(sa.text("SELECT 1"))
os.kill(os.getpid(), signal.SIGTERM)
"""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], check=False, env=environment)

    assert -signal.SIGTERM == done.returncode
    assert 1 == total(samples(tmp_path), "sqlprobe_query_duration_seconds_count")
