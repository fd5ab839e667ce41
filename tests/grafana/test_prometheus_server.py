"""
A real Prometheus scrapes real processes, one of them of several workers, and evaluates what the dashboard and the rules
ask.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml
from prometheus_client import CollectorRegistry, start_http_server

from sqlprobe import grafana
from sqlprobe_exporters.audit import AuditCollector

pytestmark = [
    pytest.mark.once,
    pytest.mark.requires_debian("prometheus", "prometheus", "promtool"),
]

FILES = grafana.files()
DASHBOARD = json.loads(FILES["dashboards/sqlprobe.json"])
PATIENCE = 300.0  # seconds until a test gives up; on a quiet machine everything is there within ten
SERVED = Path(__file__).with_name("served.py")
# These need a connection that was held for 5 s, yesterday's data, and statements that are quicker than here: they are
# asked without their thresholds. promtool tries them with (test_dashboard.py).
UNMET = {"SqlprobeConnectionHoldLong", "SqlprobeStatementRegressed", "SqlprobeOverheadHigh"}


@contextmanager
def running(command, **options):
    """A process, and the address that it says it listens at."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)
    said, found, told = [], [], threading.Event()

    def listen():
        for line in process.stderr:
            said.append(line)
            match = re.search(r"(?:Listening at: http://|address=|Listening on.*address=)(127\.0\.0\.1:[1-9]\d*)", line)
            if match and match[1] not in found:
                found.append(match[1])
                told.set()
        told.set()

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        told.wait(PATIENCE)
        assert found, "".join(said)
        yield found[0]
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
        listener.join()
        process.stderr.close()


def until(there, what):
    """Wait for an answer of *there*."""
    deadline = time.monotonic() + PATIENCE
    while not (found := there()):
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(0.2)
    return found


class Prometheus:
    def __init__(self, address, served):
        self.address = address
        self.served = served  # the process that does what it is told

    def drive(self):
        """Traffic before and after a scrape: a counter has grown only if it was there before."""
        for _ in range(2):
            urllib.request.urlopen(f"http://{self.served}/drive", timeout=PATIENCE).close()
            self._scrape()

    def _scrape(self):
        """Wait for one that begins from now on."""
        asked = time.time()
        up = f'timestamp(up{{instance="{self.served}"}} == 1)'
        until(lambda: any(at > asked for at in self.values(up, instant=True)), "no scrape")

    def ask(self, path, **parameters):
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters, doseq=True)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            pytest.fail(f"{parameters}: {error.read().decode()}")

    def values(self, expr, *, instant):
        now = time.time()
        if instant:
            return [float(each["value"][1]) for each in self.ask("query", query=expr, time=now)["result"]]
        found = self.ask("query_range", query=expr, start=now - 10, end=now, step=1)["result"]
        return [float(value) for series in found for _, value in series["values"]]


@pytest.fixture(scope="module")
def audited(module_postgresql_url):
    """Where the metrics of a database with an index are scraped."""
    engine = sa.create_engine(module_postgresql_url(), poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE lines (id int PRIMARY KEY, qty int)")
        connection.exec_driver_sql("CREATE INDEX ix_lines_qty ON lines (qty)")
        connection.exec_driver_sql("CREATE INDEX ix_lines_qty_again ON lines (qty)")
    registry = CollectorRegistry()
    collector = AuditCollector(engine)
    collector.refresh()
    registry.register(collector)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory, module_postgresql_url, audited):
    folder = tmp_path_factory.mktemp("prometheus")
    files = folder / "multiproc"
    files.mkdir()
    url = module_postgresql_url("psycopg").render_as_string(hide_password=False)
    here = {
        **os.environ,
        "SERVED_FOLDER": str(folder),
        "SERVED_POSTGRESQL": url,
        "PYTHONPATH": str(SERVED.parent),
    }
    workers = [sys.executable, "-m", "gunicorn", "-w", "2", "-b", "127.0.0.1:0", "served:application"]
    several = {**here, "PROMETHEUS_MULTIPROC_DIR": str(files)}
    with running([sys.executable, SERVED], env=here) as one, running(workers, env=several) as many:
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["sqlprobe.rules.yml"],
            "scrape_configs": [
                {"job_name": "shop", "static_configs": [{"targets": [one]}]},
                {"job_name": "workers", "static_configs": [{"targets": [many]}]},
                {"job_name": "audit", "static_configs": [{"targets": [audited]}]},
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        (folder / "sqlprobe.rules.yml").write_text(FILES["prometheus/sqlprobe.rules.yml"])
        command = [
            "prometheus",
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            "--web.listen-address=127.0.0.1:0",
            "--enable-feature=exemplar-storage",
        ]
        with running(command) as address:
            until(lambda: is_ready(address), "Prometheus does not start")
            prometheus = Prometheus(address, one)
            prometheus.drive()
            yield prometheus


def is_ready(address):
    with suppress(OSError), urllib.request.urlopen(f"http://{address}/-/ready", timeout=10):
        return True
    return False


def substituted(expr):
    # Long, so that the traffic is within, however slow this machine is.
    for name, value in (("$__rate_interval", "10m"), ("$__range", "10m")):
        expr = expr.replace(name, value)
    return re.sub(r"\$(job|instance|engine|route|fingerprint)", ".+", expr)


def without_thresholds(expr):
    expr = re.sub(r"\s> 3 \* ", " * ", expr.replace(" offset 1d", ""))
    return re.sub(r"\s> [\d.]+", "", expr)


def test_every_panel_and_rule_has_data(prometheus):
    targets = [
        (f"{panel['title']} {target['refId']}", substituted(target["expr"]), target.get("instant", False))
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", ())
    ]
    rules = [
        rule for group in yaml.safe_load(FILES["prometheus/sqlprobe.rules.yml"])["groups"] for rule in group["rules"]
    ]
    targets += [(rule["record"], rule["record"], True) for rule in rules if "record" in rule]
    targets += [
        (
            rule["alert"],
            without_thresholds(rule["expr"]) if rule["alert"] in UNMET else f'ALERTS{{alertname="{rule["alert"]}"}}',
            True,
        )
        for rule in rules
        if "alert" in rule
    ]

    def all_there():
        targets[:] = [
            (name, expr, instant)
            for name, expr, instant in targets
            if all(math.isnan(value) for value in prometheus.values(expr, instant=instant))
        ]
        return not targets

    until(all_there, lambda: targets)

    health = {
        rule["name"]: (rule["health"], rule.get("lastError"))
        for group in prometheus.ask("rules")["groups"]
        for rule in group["rules"]
    }
    assert {("ok", None)} == set(health.values()), health


def test_all_targets_are_up_with_one_help_each(prometheus):
    until(lambda: [1.0, 1.0, 1.0] == prometheus.values("up", instant=True), "one is down")
    metadata = prometheus.ask("metadata", limit=-1)

    # prometheus_client's files have no place for a unit.
    for name, told in metadata.items():
        if name.startswith("sqlprobe_"):
            assert 1 == len({(each["type"], each["help"]) for each in told}), name


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Findings of the audit", {"redundant-index"}),
        ("Indexes that nothing used", {"lines_pkey", "ix_lines_qty", "ix_lines_qty_again"}),
        ("Biggest indexes", {"lines_pkey", "ix_lines_qty", "ix_lines_qty_again"}),
    ],
)
def test_what_the_audit_tells_is_shown(prometheus, title, expected):
    (panel,) = [panel for panel in DASHBOARD["panels"] if panel["title"] == title]
    for target in panel["targets"]:
        found = None
        deadline = time.monotonic() + PATIENCE
        while found != expected:
            assert time.monotonic() < deadline, (target["expr"], found)
            result = prometheus.ask("query", query=substituted(target["expr"]), time=time.time())["result"]
            found = {each["metric"].get("index") or each["metric"]["rule"] for each in result}
            time.sleep(0.2)


def test_filters_find_their_values(prometheus):
    queries = {
        variable["name"]: variable["query"]
        for variable in DASHBOARD["templating"]["list"]
        if variable["type"] == "query"
    }
    for name, query in queries.items():
        match = re.fullmatch(r"label_values\((.*), (\w+)\)", query)
        asked = {"match[]": substituted(match[1])}
        until(lambda: prometheus.ask(f"label/{match[2]}/values", **asked), name)  # noqa: B023 - done before the next


@pytest.mark.exhaustive
def test_exemplars_lead_to_traces(prometheus):
    began = time.time() - PATIENCE

    def told():
        found = prometheus.ask(
            "query_exemplars", query="sqlprobe_query_duration_seconds_bucket", start=began, end=time.time()
        )
        return [exemplar["labels"] for series in found for exemplar in series["exemplars"]]

    exemplars = until(told, "no exemplar")

    assert all(re.fullmatch("[0-9a-f]{32}", labels["trace_id"]) for labels in exemplars)
    assert all(re.fullmatch("[0-9a-f]{16}", labels["span_id"]) for labels in exemplars)
