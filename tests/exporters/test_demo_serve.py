"""`sqlprobe demo --serve`: what it says before it starts, and that its metrics move."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

import sqlprobe
from sqlprobe import demo
from sqlprobe.demo import steady
from sqlprobe_exporters.metrics import reader_of

pytestmark = pytest.mark.once


def test_a_port_that_is_taken_is_told_before_anything_starts(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        assert 1 == demo.main(["--serve", "--port", str(port)])

    told = capsys.readouterr().err
    assert f"cannot listen at 127.0.0.1:{port}: Address already in use; choose another port" in told


def test_a_missing_package_is_told(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.setattr(
        demo.importlib.util,
        "find_spec",
        lambda name, find=demo.importlib.util.find_spec: None if name == "prometheus_client" else find(name),
    )

    assert 2 == demo.main(["--serve"])
    assert 'pip install "sqlprobe[demo,prometheus]"' in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--port", "0"], ["--port", "65536"], ["--rate", "0"], ["--rate", "fast"]])
def test_wrong_use_is_told(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        demo.main(["--serve", *arguments])

    assert 2 == ended.value.code
    assert arguments[0] in capsys.readouterr().err


def test_load_goes_on_past_failures_and_is_counted(engine):
    answered = []

    async def app(scope, receive, send):
        answered.append(scope["path"])
        if len(answered) == 3:
            raise ConnectionError
        await send({"type": "http.response.start", "status": 500 if len(answered) == 5 else 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    service = steady.Service("127.0.0.1", 1, rate=50.0, scale=0.01)  # a minute of calls is made at once
    with sqlprobe.attach(engine) as probe:
        failed = asyncio.run(steady.drive(app, service, probe, requests=20))

        assert (20, 2) == (len(answered), failed)
        assert ["demo request"] == [fault.where for fault in probe.faults()]
        assert {("demo request",): 1} == reader_of(probe).read()["sqlprobe_internal_errors"]


@pytest.mark.exhaustive
def test_metrics_move_until_it_is_stopped(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "sqlprobe",
        "demo",
        "--serve",
        "--port",
        str(port),
        "--rows-scale",
        "0.01",
        "--rate",
        "20",
    ]
    process = subprocess.Popen(
        command, env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)}, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 90
    try:
        text = ""
        while "sqlprobe_n_plus_one_total{" not in text:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.stderr.read()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                    text = answer.read().decode()
            except OSError:
                time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()

    assert 128 + signal.SIGTERM == process.returncode
    assert re.search(r'^sqlprobe_request_queries_count{route="[^"]+"} [1-9]', text, re.MULTILINE)
    assert told.endswith("stopped; the database is gone\n")
