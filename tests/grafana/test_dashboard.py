"""The dashboard by the rules of Grafana's own linter, and that it is what its generator writes."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sqlprobe import cli, demo, grafana
from sqlprobe.audit.metrics import FAMILIES
from sqlprobe_exporters.metrics import BY_NAME, METRICS

pytestmark = pytest.mark.once

FILES = grafana.files()
DASHBOARD = json.loads(FILES["dashboards/sqlprobe.json"])
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [
    pytest.param(panel, target, id=f"{panel['title']}-{target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
]
RULES = [rule for group in yaml.safe_load(FILES["prometheus/sqlprobe.rules.yml"])["groups"] for rule in group["rules"]]
SELECTOR = re.compile(r"(sqlprobe_\w+)(?:\{([^}]*)\})?")
KNOWN = {
    **{name: metric for metric in METRICS for name in metric.samples},
    **{family.name: family for family in FAMILIES},
}


def variables():
    return {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}


@pytest.mark.tree
def test_committed_dashboard_is_what_the_generator_writes():
    generator = Path(__file__).parents[2] / "grafana" / "generate.py"

    assert 0 == subprocess.run([sys.executable, generator, "--check"], check=False).returncode, (
        "run python grafana/generate.py"
    )


@pytest.mark.tree  # the SDK is what the generator needs, not who installs sqlprobe
@pytest.mark.filterwarnings("ignore:Prefer using dashboardv2")
def test_the_sdk_reads_what_it_wrote():
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    again = json.loads(JSONEncoder().encode(Dashboard.from_json(DASHBOARD)))

    assert DASHBOARD == again


def test_dashboard_is_read_only_and_has_a_fixed_address():
    assert (False, "sqlprobe", None) == (DASHBOARD["editable"], DASHBOARD["uid"], DASHBOARD.get("id"))


def test_data_source_is_a_variable():
    assert ("datasource", "prometheus") == (variables()["datasource"]["type"], variables()["datasource"]["query"])


@pytest.mark.parametrize("name", ["job", "instance", "engine", "route", "fingerprint"])
def test_filters_take_several_values_and_all(name):
    variable = variables()[name]

    assert (True, True, ".+", 2, "${datasource}") == (
        variable["multi"],
        variable["includeAll"],
        variable["allValue"],
        variable["refresh"],
        variable["datasource"]["uid"],
    )


def test_panels_stand_in_their_order_without_a_hole():
    titles = [panel["title"] for panel in PANELS]
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    height = max(y for _, y in cells) + 1

    assert 23 == len(titles)
    assert len(titles) == len(set(titles))
    assert ("Database time", "sqlprobe itself") == (titles[0], titles[-1])
    assert sorted({(x, y) for x in range(24) for y in range(height)}) == sorted(cells)
    assert len(DASHBOARD["panels"]) == len({panel["id"] for panel in DASHBOARD["panels"]})


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panel_has_unit_title_description_and_data_source(panel):
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert "${datasource}" == panel["datasource"]["uid"]


@pytest.mark.parametrize(("panel", "target"), TARGETS)
def test_target_follows_the_linters_rules(panel, target):
    expr = target["expr"]

    assert "${datasource}" == target["datasource"]["uid"]
    for name, labels in SELECTOR.findall(expr):
        assert name in KNOWN, f"{name} is no metric"
        assert 'job=~"$job"' in labels
        assert 'instance=~"$instance"' in labels
        used = set(re.findall(r"(\w+)=", labels)) - {"job", "instance"}
        assert used <= {*KNOWN[name].labels, "le"}, f"{name} has no such label"
        if (
            "engine" in KNOWN[name].labels
            and 'fingerprint="other"' not in labels
            and panel["title"] != "sqlprobe itself"
        ):
            assert "engine" in used
    intervals = set(re.findall(r"\[([^\]]+)\]", expr))
    assert intervals <= ({"$__range"} if panel["type"] == "table" else {"$__rate_interval"})
    for name in {name for name, _ in SELECTOR.findall(expr)}:
        if name != KNOWN[name].name or KNOWN[name].kind != "gauge":  # a counter, or a part of a histogram
            for match in re.finditer(rf"{name}\b", expr):
                assert expr[: match.start()].endswith(("rate(", "increase(")), f"{name} is a counter"
        else:
            assert f"rate({name}" not in expr


def test_every_metric_is_shown_or_says_why_not():
    text = json.dumps(DASHBOARD) + FILES["prometheus/sqlprobe.rules.yml"]
    # By route and statement, for questions of one's own; plan changes and what is tracked are for those who debug.
    beside = {"sqlprobe_request_statements", "sqlprobe_plan_changes", "sqlprobe_statements_tracked",
              "sqlprobe_pool_connections_overflow"}  # fmt: skip

    assert beside == {metric.name for metric in METRICS if metric.name not in text}
    assert {"sqlprobe_audit_timestamp_seconds", "sqlprobe_indexes", "sqlprobe_statistics_age_seconds"} == {
        family.name for family in FAMILIES if not re.search(rf"{family.name}\b", text)
    }


def test_legends_name_labels_that_the_query_keeps():
    for panel in PANELS:
        for target in panel["targets"]:
            kept = re.findall(r"(?:by|group_left) \(([^)]*)\)", target["expr"])
            labels = {label.strip() for group in kept for label in group.split(",")}
            for name in re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat") or ""):
                assert name in labels, panel["title"]


def test_rules_use_metrics_and_labels_that_are_there():
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    for rule in RULES:
        for name in re.findall(r"\b(?:job\w*:)?sqlprobe_\w+(?::\w+)?", rule["expr"]):
            assert name in KNOWN or name in recorded or name in BY_NAME, name
        assert "record" in rule or {"summary", "description"} == rule["annotations"].keys()


def test_the_alerts_are_the_eight():
    assert [
        "SqlprobePoolTimeouts",
        "SqlprobePoolSaturated",
        "SqlprobeConnectionHoldLong",
        "SqlprobeNPlusOne",
        "SqlprobeStatementRegressed",
        "SqlprobeErrorRatioHigh",
        "SqlprobeDeadlocksOrSerializationFailures",
        "SqlprobeOverheadHigh",
    ] == [rule["alert"] for rule in RULES if "alert" in rule]


@pytest.fixture
def exported(tmp_path, capsys):
    assert 0 == cli.main(["grafana", "export", str(tmp_path / "out")])
    capsys.readouterr()
    return tmp_path / "out"


@pytest.mark.long
@pytest.mark.requires_debian("prometheus", "promtool")
@pytest.mark.parametrize(
    "command", [["check", "rules", "sqlprobe.rules.yml"], ["test", "rules", "sqlprobe.rules.test.yml"],
                ["check", "config", "prometheus.yml"]], ids=" ".join,
)  # fmt: skip
def test_promtool_is_content(exported, command):
    done = subprocess.run(
        ["promtool", *command], cwd=exported / "prometheus", check=False, capture_output=True, text=True
    )

    assert 0 == done.returncode, done.stdout + done.stderr


def minutes(text):
    return int(text.removesuffix("m"))


def test_every_alert_is_tried_before_and_after_it_is_due():
    tests = yaml.safe_load(FILES["prometheus/sqlprobe.rules.test.yml"])["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    for rule in [rule for rule in RULES if "alert" in rule]:
        mine = [case for case in cases if rule["alert"] == case["alertname"]]
        silent = [minutes(case["eval_time"]) for case in mine if not case["exp_alerts"]]
        fired = [minutes(case["eval_time"]) for case in mine if case["exp_alerts"]]

        assert silent, rule["alert"]
        assert fired, rule["alert"]
        assert max(silent) < min(fired)
        assert minutes(rule.get("for", "0m")) <= min(fired)


def test_compose_finds_everything_that_it_names(exported):
    """Without Docker: what would fail when the containers start, as far as it stands in these files."""

    def read(path):
        return yaml.safe_load((exported / path).read_text())

    services = read("compose.yaml")["services"]
    mounts = {
        target: source
        for service in services.values()
        for source, target, mode in (volume.split(":") for volume in service.get("volumes", ()))
        if mode == "ro"
    }
    inside = {target: {path.name for path in (exported / source).iterdir()} for target, source in mounts.items()}

    assert {"demo", "prometheus", "tempo", "grafana"} == set(services)
    assert all(set(service.get("depends_on", ())) <= set(services) for service in services.values())
    assert {
        "prometheus": "prom/prometheus",
        "tempo": "grafana/tempo",
        "grafana": "grafana/grafana",
    } == {name: service["image"].partition(":")[0] for name, service in services.items() if "image" in service}
    assert all(
        re.fullmatch(r"v?\d+\.\d+\.\d+", service["image"].partition(":")[2])
        for service in services.values()
        if "image" in service
    )
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service.get("ports", ()))

    # Each program finds its configuration at the place where it is mounted, and what that names.
    for service in ("prometheus", "tempo"):
        (config,) = [word.partition("=")[2] for word in services[service]["command"] if "config.file=" in word]
        folder, _, name = config.rpartition("/")
        assert name in inside[folder]
    scraped = read("prometheus/prometheus.yml")
    assert set(scraped["rule_files"]) <= inside["/etc/prometheus"]
    assert {"datasources", "dashboards"} <= inside["/etc/grafana/provisioning"]
    (provider,) = read("provisioning/dashboards/sqlprobe.yml")["providers"]
    assert "sqlprobe.json" in inside[provider["options"]["path"]]

    # They find each other.
    sources = {source["uid"]: source for source in read("provisioning/datasources/sqlprobe.yml")["datasources"]}
    tempo = read("tempo/tempo.yml")
    received = tempo["distributor"]["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    assert "http://prometheus:9090" == sources["prometheus"]["url"]
    assert f"http://tempo:{tempo['server']['http_listen_port']}" == sources["tempo"]["url"]
    assert ["tempo"] == [
        each["datasourceUid"] for each in sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    ]
    assert received.replace("0.0.0.0", "http://tempo") == services["demo"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    (target,) = [
        target for job in scraped["scrape_configs"] for each in job["static_configs"] for target in each["targets"]
    ]
    docker = (exported / services["demo"]["build"] / "Dockerfile").read_text()
    command = json.loads(re.search(r"^CMD (.*)$", docker, re.MULTILINE)[1])
    options = demo._parser().parse_args(command[2:])
    assert (["sqlprobe", "demo"], "0.0.0.0", target) == (command[:2], options.host, f"demo:{options.port}")
    assert options.serve

    # What is installed there is what this package offers.
    (extras,) = re.findall(r"\$\{SQLPROBE\}\[(.*)\]", docker)
    assert set(extras.split(",")) <= set(importlib.metadata.metadata("sqlprobe").get_all("Provides-Extra"))


def test_export_replaces_nothing_that_differs(exported, capsys):
    (exported / "compose.yaml").write_text("mine")

    assert 2 == cli.main(["grafana", "export", str(exported)])
    assert "compose.yaml is there and differs; nothing was written" in capsys.readouterr().err
    assert "mine" == (exported / "compose.yaml").read_text()
    assert 0 == cli.main(["grafana", "export", "--force", str(exported)])
    assert "mine" != (exported / "compose.yaml").read_text()


def test_export_into_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")

    assert 2 == cli.main(["grafana", "export", str(tmp_path / "file")])
    assert "cannot be written" in capsys.readouterr().err
