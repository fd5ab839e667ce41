"""
Write the dashboard: `python grafana/generate.py`. What it writes is committed; `--check` only compares.

Needs grafana-foundation-sdk in the version that `pyproject.toml` pins. Classic JSON: Grafana 10 to 13 read it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard, heatmap, prometheus, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

if TYPE_CHECKING:
    from collections.abc import Iterator

OUTPUT: Final = Path(__file__).parent / "dashboards" / "sqlprobe.json"
UID: Final = "sqlprobe"
SOURCE: Final = common.DataSourceRef(type_val="prometheus", uid="${datasource}")

J: Final = 'job=~"$job",instance=~"$instance"'
S: Final = f'{J},engine=~"$engine"'
F: Final = f'{S},fingerprint=~"$fingerprint"'
R: Final = f'{J},route=~"$route"'
ROLLED_BACK: Final = f'{S},outcome="rollback"'
REST: Final = f'{J},fingerprint="other"'
RATE: Final = "[$__rate_interval]"
RANGE: Final = "[$__range]"
D: Final = "sqlprobe_query_duration_seconds"
# Instances may differ in a statement's text: one of them is told.
INFO: Final = (
    f"* on (fingerprint) group_left (summary, query) topk by (fingerprint) (1, sqlprobe_statement_info{{{J}}})"
)

KEEP: Final = "${__url_time_range}&${datasource:queryparam}&${job:queryparam}&${instance:queryparam}"


def link(title: str, variable: str, value: str = "${__value.raw}") -> dict[str, Any]:
    """To this dashboard with one variable set."""
    return {"title": title, "url": f"/d/{UID}?{KEEP}&var-{variable}={value}", "targetBlank": False}


def traces(title: str, query: str) -> dict[str, Any]:
    """To Tempo, with a TraceQL *query*."""
    panes = (
        '{"t":{"datasource":"${tempo}","queries":[{"refId":"A","queryType":"traceql","query":"'
        + query.replace('"', '\\"')
        + '"}],"range":{"from":"${__from}","to":"${__to}"}}}'
    )
    safe = "${}:_."
    return {"title": title, "url": f"/explore?schemaVersion=1&panes={quote(panes, safe=safe)}", "targetBlank": True}


STATEMENT_LINKS: Final = [
    link("Only this statement", "fingerprint"),
    traces("Traces of this statement", '{ span.sqlprobe.fingerprint = "${__value.raw}" }'),
]
ROUTE_LINKS: Final = [
    link("Only this route", "route"),
    traces("Traces with an N+1", "{ span.sqlprobe.n_plus_one = true }"),
]


@dataclass(frozen=True)
class Query:
    """A PromQL expression; `column` is its heading and `unit` its unit in a table."""

    expr: str
    legend: str = ""
    column: str = ""
    unit: str = "short"
    exemplars: bool = False


@dataclass(frozen=True)
class Panel:
    """A panel; `kind` is "timeseries", "heatmap" or "table". `links` of a table are by column."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    width: int = 12
    height: int = 8
    stacked: bool = False
    maximum: float | None = None
    links: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def rate(metric: str, labels: str) -> str:
    """A counter's growth each second."""
    return f"rate({metric}{{{labels}}}{RATE})"


def quantile(q: float, metric: str, labels: str, *by: str) -> str:
    """Below which the share *q* of a histogram lies."""
    return f"histogram_quantile({q}, sum by ({', '.join([*by, 'le'])}) ({rate(f'{metric}_bucket', labels)}))"


def pool_times() -> Iterator[Query]:
    """What callers and connections wait for."""
    for name, told in (("wait", "waited"), ("use", "held"), ("create", "connected")):
        yield Query(quantile(0.95, f"sqlprobe_pool_{name}_seconds", S, "engine"), f"{told} {{{{engine}}}}")


ROWS: Final[dict[str, tuple[Panel, ...]]] = {
    "Overview": (
        Panel(
            "Database time",
            "Average number of sessions that were busy with statements: seconds in the database, each second. One is "
            "one connection that is always busy.",
            "short",
            (Query(f"sum by (engine) ({rate(f'{D}_sum', F)})", "{{engine}}"),),
            stacked=True,
        ),
        Panel(
            "Statements",
            "Statements each second, by operation.",
            "ops",
            (Query(f"sum by (operation) ({rate(f'{D}_count', F)})", "{{operation}}"),),
            stacked=True,
        ),
        Panel(
            "Latency",
            "What the application waited for a statement in the driver's execute: half, 95 % and 99 % of the calls "
            "took less. Points are calls in sampled traces.",
            "s",
            tuple(
                Query(quantile(q, D, F), f"p{round(q * 100)}", exemplars=q == 0.99)  # noqa: PLR2004 - one is enough
                for q in (0.5, 0.95, 0.99)
            ),
        ),
        Panel(
            "Errors",
            "Share of the statements that failed, by SQLSTATE, or by exception class where there is none.",
            "percentunit",
            (
                Query(
                    f"sum by (error_type) ({rate('sqlprobe_query_errors_total', F)}) "
                    f"/ ignoring (error_type) group_left sum ({rate(f'{D}_count', F)})",
                    "{{error_type}}",
                ),
            ),
        ),
        Panel(
            "Latency of statements",
            "How many calls took how long. Choose one statement by its fingerprint, here or in the table below.",
            "s",
            (Query(f"sum by (le) (increase({D}_bucket{{{F}}}{RATE}))", "{{le}}", exemplars=True),),
            kind="heatmap",
            width=24,
        ),
    ),
    "Statements": (
        Panel(
            "Top statements",
            "The statements that took most of the database's time in the chosen range.",
            "s",
            (
                Query(f"topk(20, sum by (fingerprint) (increase({D}_sum{{{F}}}{RANGE}))) {INFO}", "", "total", "s"),
                Query(f"sum by (fingerprint) (increase({D}_count{{{F}}}{RANGE}))", "", "calls"),
                Query(
                    f"sum by (fingerprint) (increase({D}_sum{{{F}}}{RANGE})) "
                    f"/ sum by (fingerprint) (increase({D}_count{{{F}}}{RANGE}))",
                    "",
                    "mean",
                    "s",
                ),
                Query(
                    f"histogram_quantile(0.95, sum by (fingerprint, le) (increase({D}_bucket{{{F}}}{RANGE})))",
                    "",
                    "p95",
                    "s",
                ),
                Query(
                    f"sum by (fingerprint) (increase(sqlprobe_query_rows_total{{{F}}}{RANGE})) "
                    f"/ sum by (fingerprint) (increase({D}_count{{{F}}}{RANGE}))",
                    "",
                    "rows a call",
                ),
            ),
            kind="table",
            width=24,
            height=10,
            links={"fingerprint": STATEMENT_LINKS},
        ),
        Panel(
            "Share of database time",
            "The ten statements with the largest share of the time in the database.",
            "percentunit",
            (
                Query(
                    f"topk(10, sum by (fingerprint) ({rate(f'{D}_sum', F)}) "
                    f"/ ignoring (fingerprint) group_left sum ({rate(f'{D}_sum', F)})) {INFO}",
                    "{{summary}} {{fingerprint}}",
                ),
            ),
            maximum=1,
        ),
        Panel(
            "Slowest statements",
            "95 % of the calls took less: the ten statements for which that is most.",
            "s",
            (Query(f"topk(10, {quantile(0.95, D, F, 'fingerprint')}) {INFO}", "{{summary}} {{fingerprint}}"),),
        ),
        Panel(
            "Rows a call",
            "Rows that a call returned or changed, where the driver tells: the ten statements with most.",
            "short",
            (
                Query(
                    f"topk(10, sum by (fingerprint) ({rate('sqlprobe_query_rows_total', F)}) "
                    f"/ sum by (fingerprint) ({rate(f'{D}_count', F)})) {INFO}",
                    "{{summary}} {{fingerprint}}",
                ),
            ),
        ),
        Panel(
            "Findings",
            "Different findings that are open, by rule. `sqlprobe report` tells their lines and fixes.",
            "short",
            (Query(f"max by (rule, severity) (sqlprobe_findings{{{J}}})", "{{rule}} ({{severity}})"),),
        ),
    ),
    "Routes": (
        Panel(
            "Statements a request",
            "95 % of the requests of a route ran fewer. A number that grows with the data is an N+1.",
            "short",
            (Query(quantile(0.95, "sqlprobe_request_queries", R, "route"), "{{route}}"),),
        ),
        Panel(
            "Database time a request",
            "Mean time that a request of the route spent in the database.",
            "s",
            (
                Query(
                    f"sum by (route) ({rate('sqlprobe_request_db_seconds_total', R)}) "
                    f"/ sum by (route) ({rate('sqlprobe_request_queries_count', R)})",
                    "{{route}}",
                ),
            ),
        ),
        Panel(
            "N+1",
            "Loops of lazy loads by what they cost in the chosen range: the relationship to load with its parents.",
            "s",
            (
                Query(
                    "topk(20, sum by (route, relationship, fingerprint) "
                    f"(increase(sqlprobe_n_plus_one_seconds_total{{{R}}}{RANGE}))) {INFO}",
                    "",
                    "total",
                    "s",
                ),
                Query(
                    f"sum by (route, relationship, fingerprint) (increase(sqlprobe_n_plus_one_total{{{R}}}{RANGE}))",
                    "",
                    "requests",
                ),
                Query(
                    "sum by (route, relationship, fingerprint) "
                    f"(increase(sqlprobe_n_plus_one_queries_total{{{R}}}{RANGE})) "
                    "/ sum by (route, relationship, fingerprint) "
                    f"(increase(sqlprobe_n_plus_one_total{{{R}}}{RANGE}))",
                    "",
                    "statements each",
                ),
            ),
            kind="table",
            width=24,
            links={"fingerprint": STATEMENT_LINKS, "route": ROUTE_LINKS},
        ),
        Panel(
            "Requests with an N+1",
            "Share of a route's requests that had one, however many they had.",
            "percentunit",
            (
                Query(
                    f"sum by (route) ({rate('sqlprobe_n_plus_one_requests_total', R)}) "
                    f"/ sum by (route) ({rate('sqlprobe_request_queries_count', R)})",
                    "{{route}}",
                ),
            ),
            width=24,
            maximum=1,
        ),
    ),
    "Pool and transactions": (
        Panel(
            "Pool utilisation",
            "Connections in use, of those that the pool may open. At 1 the next caller waits.",
            "percentunit",
            (
                Query(
                    f'sum by (engine, instance) (sqlprobe_pool_connections{{{S},state="used"}}) '
                    f"/ sum by (engine, instance) (sqlprobe_pool_connections_max{{{S}}})",
                    "{{instance}} {{engine}}",
                ),
            ),
            maximum=1,
        ),
        Panel(
            "Callers without a connection",
            "Those that wait now, and those that gave up.",
            "short",
            (
                Query(f"sum by (engine) (sqlprobe_pool_pending_requests{{{S}}})", "waiting {{engine}}"),
                Query(f"sum by (engine) (increase(sqlprobe_pool_timeouts_total{{{S}}}{RATE}))", "timeouts {{engine}}"),
            ),
        ),
        Panel(
            "Connections",
            "95 % took less: to get a connection from the pool, to give it back, to open a new one.",
            "s",
            tuple(pool_times()),
        ),
        Panel(
            "Transactions",
            "95 % were over in less, by outcome; and the share that was rolled back. Those that nobody ended, as after "
            "reading, are closed.",
            "s",
            (
                Query(quantile(0.95, "sqlprobe_transaction_duration_seconds", S, "outcome"), "{{outcome}}", unit="s"),
                Query(
                    f"sum ({rate('sqlprobe_transaction_duration_seconds_count', ROLLED_BACK)}) "
                    f"/ sum ({rate('sqlprobe_transaction_duration_seconds_count', S)})",
                    "rolled back",
                    unit="percentunit",
                ),
            ),
        ),
    ),
    "Advice, and sqlprobe itself": (
        Panel(
            "Open index advice",
            "Indexes that sqlprobe advises; the gain is the share of the plan's cost that the index saves, where it "
            "was tried.",
            "percentunit",
            (
                Query(
                    f"(1 - max by (advice) (sqlprobe_index_advice_cost_ratio{{{J}}})) "
                    "* on (advice) group_left (table, columns, method, fingerprint) "
                    f"topk by (advice) (1, sqlprobe_index_advice_info{{{J}}}) "
                    f"or on (advice) (topk by (advice) (1, sqlprobe_index_advice_info{{{J}}}) * 0)",
                    "",
                    "gain",
                    "percentunit",
                ),
            ),
            kind="table",
            links={"fingerprint": STATEMENT_LINKS},
        ),
        Panel(
            "sqlprobe itself",
            "An estimate of its own time, as a share of the time in the database; the share of that time whose "
            "statements have series of their own; what failed of it, each second.",
            "percentunit",
            (
                Query(
                    f"sum by (instance) ({rate('sqlprobe_overhead_seconds_total', J)}) "
                    f"/ sum by (instance) ({rate(f'{D}_sum', J)})",
                    "overhead {{instance}}",
                    unit="percentunit",
                ),
                Query(
                    f"1 - (sum ({rate(f'{D}_sum', REST)}) or vector(0)) / sum ({rate(f'{D}_sum', J)})",
                    "coverage",
                    unit="percentunit",
                ),
                Query(f"sum by (part) ({rate('sqlprobe_internal_errors_total', J)})", "errors {{part}}", unit="ops"),
            ),
        ),
    ),
}


def schema_panels() -> tuple[Panel, ...]:
    """What `sqlprobe audit -o audit.prom`, or an AuditCollector, tells of the database."""
    index = "database, schema, table, index"
    size = f"max by ({index}) (sqlprobe_index_bytes{{{J}}})"
    used = f"max by ({index}) (increase(sqlprobe_index_scans_total{{{J}}}{RANGE}))"
    return (
        Panel(
            "Findings of the audit",
            "What the last `sqlprobe audit` found in models, catalog and migrations, by rule.",
            "short",
            (Query(f"max by (database, rule, severity) (sqlprobe_audit_findings{{{J}}})", "", "findings"),),
            kind="table",
            width=8,
        ),
        Panel(
            "Indexes that nothing used",
            "In this time range, biggest first. Standbys count their own scans; constraints are needed all the same.",
            "bytes",
            (Query(f"topk(50, {size} and on ({index}) ({used} == 0))", "", "size", "bytes"),),
            kind="table",
            width=8,
        ),
        Panel(
            "Biggest indexes",
            "With their scans in this time range.",
            "bytes",
            (
                Query(f"topk(50, {size})", "", "size", "bytes"),
                Query(f"{used} and on ({index}) topk(50, {size})", "", "scans"),
            ),
            kind="table",
            width=8,
        ),
    )


def rows() -> Iterator[tuple[str, tuple[Panel, ...]]]:
    """Every row of the dashboard; sqlprobe itself comes last."""
    *first, last = ROWS.items()
    yield from first
    yield "Schema", schema_panels()
    yield last


def target(query: Query, ref: str, kind: str) -> prometheus.Dataquery:
    """One query of a panel."""
    made = prometheus.Dataquery().datasource(SOURCE).expr(query.expr).ref_id(ref)
    if kind == "table":
        return made.instant().format(PromQueryFormat.TABLE)
    made = made.range().legend_format(query.legend)
    if query.exemplars:
        made = made.exemplar(True)  # noqa: FBT003 - the SDK's signature
    if kind == "heatmap":
        made = made.format(PromQueryFormat.HEATMAP)
    return made


def built(panel: Panel) -> Any:
    """The SDK's builder for *panel*."""
    kinds = {"timeseries": timeseries.Panel, "heatmap": heatmap.Panel, "table": table.Panel}
    made: Any = kinds[panel.kind]()
    made = made.title(panel.title).description(panel.description).datasource(SOURCE).unit(panel.unit)
    made = made.height(panel.height).span(panel.width)
    for ref, query in zip("ABCDEFGH", panel.queries, strict=False):
        made = made.with_target(target(query, ref, panel.kind))
    return {"timeseries": _timeseries, "heatmap": _heatmap, "table": _table}[panel.kind](made, panel)


def _timeseries(made: Any, panel: Panel) -> Any:
    made = made.min(0).fill_opacity(30 if panel.stacked else 8).show_points(common.VisibilityMode.NEVER)
    made = made.tooltip(
        common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    )
    legend = common_builders.VizLegendOptions().display_mode(common.LegendDisplayMode.TABLE).show_legend(True)  # noqa: FBT003
    made = made.legend(legend.placement(common.LegendPlacement.BOTTOM).calcs(["mean", "max"]))
    if panel.stacked:
        made = made.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if panel.maximum is not None:
        made = made.axis_soft_max(panel.maximum)
    for ref, query in zip("ABCDEFGH", panel.queries, strict=False):
        if query.unit not in ("short", panel.unit):
            values = [
                models.DynamicConfigValue(id_val="unit", value=query.unit),
                models.DynamicConfigValue(id_val="custom.axisPlacement", value="right"),
            ]
            made = made.override_by_query(ref, values)
    return made


def _heatmap(made: Any, _: Panel) -> Any:
    color = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    return made.calculate(False).y_axis(heatmap.YAxisConfig().unit("s")).color(color)  # noqa: FBT003


def _table(made: Any, panel: Panel) -> Any:
    made = made.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    values = [f"Value #{ref}" if len(panel.queries) > 1 else "Value" for ref in "ABCDEFGH"]
    names = {name: query.column for name, query in zip(values, panel.queries, strict=False)}
    hidden = {"Time": True}
    organize = {"excludeByName": hidden, "indexByName": {}, "renameByName": names}
    made = made.with_transformation(models.DataTransformerConfig(id_val="organize", options=organize))
    for query in panel.queries:
        made = made.override_by_name(query.column, [models.DynamicConfigValue(id_val="unit", value=query.unit)])
    for column, links in panel.links.items():
        made = made.override_by_name(column, [models.DynamicConfigValue(id_val="links", value=links)])
    first = panel.queries[0].column
    return made.sort_by([common_builders.TableSortByFieldState().display_name(first).desc(True)])  # noqa: FBT003


def variable(name: str, label: str, query: str) -> Any:
    """One of the dashboard's filters, all values by default."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .query(query)
        .datasource(SOURCE)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)  # noqa: FBT003
        .include_all(True)  # noqa: FBT003
        .all_value(".+")
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def build() -> str:
    """The dashboard's JSON."""
    made = (
        dashboard.Dashboard("sqlprobe: SQLAlchemy queries")
        .uid(UID)
        .description("Which queries of an SQLAlchemy application hurt: by statement, by route, by pool.")
        .tags(["sqlprobe", "sqlalchemy"])
        .readonly()
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(variable("job", "Job", "label_values(sqlprobe_build_info, job)"))
        .with_variable(variable("instance", "Instance", 'label_values(sqlprobe_build_info{job=~"$job"}, instance)'))
        .with_variable(variable("engine", "Engine", f"label_values({D}_count{{{J}}}, engine)"))
        .with_variable(variable("route", "Route", f"label_values(sqlprobe_request_queries_count{{{J}}}, route)"))
        .with_variable(variable("fingerprint", "Statement", f"label_values({D}_count{{{S}}}, fingerprint)"))
        .with_variable(dashboard.DatasourceVariable("tempo").label("Traces").type("tempo"))
    )
    for title, panels in rows():
        made = made.with_row(dashboard.Row(title))
        for panel in panels:
            made = made.with_panel(built(panel))
    whole: Any = made.build()
    for number, panel in enumerate(whole.panels, 1):
        panel.id_val = number
    return JSONEncoder(indent=2, sort_keys=True).encode(whole) + "\n"


def main() -> int:
    """Write or check; 1 where the check failed."""
    text = build()
    if "--check" in sys.argv:
        return int(not OUTPUT.exists() or OUTPUT.read_text("utf-8") != text)
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
