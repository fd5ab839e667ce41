"""
What a scrape costs, in milliseconds in which nothing else runs: `python bench/scrape.py`.

200 statements and 50 routes, counted by several threads, read and written by the direct renderer; beside it the same
through prometheus_client's registry, and a flush of the multiprocess files.
"""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import threading
import time
from functools import partial
from importlib.metadata import version

os.environ.setdefault("PROMETHEUS_DISABLE_CREATED_SERIES", "1")

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, generate_latest

import sqlprobe
from sqlprobe_exporters.metrics import Reader, read_all, reader_of
from sqlprobe_exporters.mirror import Mirror
from sqlprobe_exporters.prometheus import SqlprobeCollector, make_wsgi_app
from sqlprobe_exporters.text import Renderer

STATEMENTS = 200
ROUTES = 50
ROUNDS = 25
LIMIT_MS = 5.0


def use(engine: sa.Engine) -> None:
    for route in range(ROUTES):
        with sqlprobe.scope(f"GET /{route}", kind="request"), engine.connect() as connection:
            for number in range(route, STATEMENTS, ROUTES):
                connection.exec_driver_sql(f"SELECT 1 AS some_column_{number}, {route} AS another")
            connection.exec_driver_sql(f"SELECT 1 AS some_column_{route}, {route} AS another")


def scrape(renderer: Renderer, reader: Reader) -> str:
    return renderer.render(read_all([reader]))


def measure(work) -> tuple[float, float]:
    times = []
    for _ in range(ROUNDS):
        started = time.thread_time_ns()
        work()
        times.append((time.thread_time_ns() - started) / 1e6)
    return statistics.median(times), min(times)


def main() -> None:
    print(f"{platform.python_version()}, prometheus_client {version('prometheus_client')}, {ROUNDS} rounds")
    with tempfile.TemporaryDirectory() as folder:
        for threads in (1, 8):
            engine = sa.create_engine(f"sqlite:///{folder}/{threads}.sqlite", pool_size=threads)
            with sqlprobe.attach(engine) as probe:
                reader = reader_of(probe)
                running = [threading.Thread(target=use, args=(engine,)) for _ in range(threads)]
                for thread in running:
                    thread.start()
                for thread in running:
                    thread.join()
                app = make_wsgi_app(probe, registry=None)
                renderer = Renderer()
                registry = CollectorRegistry()
                registry.register(SqlprobeCollector(probe))
                lines = len(renderer.render(read_all([reader])).splitlines())
                print(f"\n{threads} threads, {lines} lines\n| | median, ms | least, ms |\n|---|---:|---:|")
                mirror = Mirror(reader, folder, 3600.0)
                environ = {"REQUEST_METHOD": "GET", "HTTP_ACCEPT_ENCODING": "gzip"}
                for name, work in {
                    f"direct renderer (limit {LIMIT_MS:g})": partial(scrape, renderer, reader),
                    "the same, compressed": partial(app, environ, lambda *_: None),
                    "through a registry": partial(generate_latest, registry),
                    "flush of the multiprocess files": mirror.flush,
                }.items():
                    work()
                    median, least = measure(work)
                    print(f"| {name} | {median:.2f} | {least:.2f} |")
                mirror.stop()
            engine.dispose()


if __name__ == "__main__":
    main()
