"""`sqlprobe demo --serve`: the application under steady load, with /metrics, until Ctrl-C."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import socket
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, count
from typing import TYPE_CHECKING, Any, Final

import httpx
from rich.console import Console

import sqlprobe
from sqlprobe.demo import data, load
from sqlprobe.demo.app import create_app, create_engine
from sqlprobe.demo.run import DATABASE, rows
from sqlprobe.demo.server import serve
from sqlprobe.integrations.asgi import SqlprobeMiddleware, route_name
from sqlprobe.model import SqlprobeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp, Receive, Scope, Send

    from sqlprobe import Probe
    from sqlprobe.demo.load import Call
    from sqlprobe.demo.server import Server

MINUTES: Final = 3  # of requests made at a time
BUSY: Final = 50  # requests under way; a slower machine leaves some out
_OTLP: Final = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class ServeError(SqlprobeError):
    """The demo cannot serve: the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Service:
    """What the command line asks for: *rate* is requests a second."""

    host: str
    port: int
    rate: float
    scale: float


def perform(service: Service) -> None:
    """
    Serve until a KeyboardInterrupt, and leave nothing but the cached rows.

    Raises:
        ServeError: the port is taken.
        SqlprobeError: PostgreSQL does not start.
    """
    console = Console(stderr=True)
    try:
        socket.create_server((service.host, service.port)).close()
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None)
        raise ServeError(
            f"cannot listen at {service.host}:{service.port}: {os.strerror(number) if number else error}; "
            "choose another port: --port 9465"
        ) from error
    with rows(service.scale, console) as template, serve(template=template) as server:
        asyncio.run(_serve(server, service, console))


async def _serve(server: Server, service: Service, console: Console) -> None:
    # Exporters stand above the demo, and are found by their names, as attach() does.
    prometheus: Any = importlib.import_module("sqlprobe_exporters.prometheus")
    tracer = _tracer()
    exporters = [prometheus.Prometheus(port=service.port, addr=service.host), *(["otel"] if tracer else [])]
    engine = create_engine(server.url_for("asyncpg", DATABASE))
    try:
        with sqlprobe.attach(engine, exporters=exporters) as probe:
            app = _Traced(SqlprobeMiddleware(create_app(engine)), tracer)
            traces = "" if tracer is None else ", traces go to OTEL_EXPORTER_OTLP_ENDPOINT"
            console.print(
                f"http://{service.host}:{service.port}/metrics; {service.rate:g} requests a second{traces}; until "
                "Ctrl-C. The dashboard: sqlprobe grafana export DIR",
                soft_wrap=True,
            )
            await drive(app, service, probe)
    finally:
        await engine.dispose()


async def drive(app: ASGIApp, service: Service, probe: Probe, requests: int | None = None) -> int:
    """Send *requests* (None: for ever) at the service's rate, whether or not they are answered; how many failed."""
    flows = data.rows(service.scale)["collection_flows"]
    failed = 0
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://demo", timeout=load.PATIENCE
    ) as client:

        async def send(call: Call) -> None:
            nonlocal failed
            try:
                response = await client.request(call.method, call.path, json=call.body)
                failed += response.status_code != httpx.codes.OK
            except Exception as error:  # noqa: BLE001 - one request of many: the metrics tell
                failed += 1
                probe.fault("demo request", error)

        loop = asyncio.get_running_loop()
        started = loop.time()
        under_way: set[asyncio.Task[None]] = set()
        for number, call in enumerate(_calls(service.rate, flows)):
            if number == requests:
                break
            await asyncio.sleep(max(0.0, started + number / service.rate - loop.time()))
            if len(under_way) < BUSY:
                task = loop.create_task(send(call))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)
    return failed


def _calls(rate: float, flows: int) -> Iterator[Call]:
    """The demo's requests, again and again."""
    some = max(16, round(rate * 60 * MINUTES))
    return chain.from_iterable(load.calls(some, flows) for _ in count())


def _tracer() -> Any:
    """A tracer whose spans go to a collector, where the environment names one and the packages are there."""
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return None
    try:
        found = importlib.util.find_spec(_OTLP)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ServeError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, and the package that sends there is missing; "
            'pip install "sqlprobe[otel]" opentelemetry-exporter-otlp-proto-http, or unset it'
        )
    trace: Any = importlib.import_module("opentelemetry.trace")
    sdk: Any = importlib.import_module("opentelemetry.sdk.trace")
    export: Any = importlib.import_module("opentelemetry.sdk.trace.export")
    provider = sdk.TracerProvider()
    provider.add_span_processor(export.BatchSpanProcessor(importlib.import_module(_OTLP).OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.get_tracer("sqlprobe.demo")


class _Traced:
    """A server's span around each request, as OpenTelemetry's instrumentation would make it."""

    def __init__(self, app: ASGIApp, tracer: Any) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        around = nullcontext() if self._tracer is None else self._tracer.start_as_current_span(scope.get("method", ""))
        with around as span:
            await self._app(scope, receive, send)
            if span is not None:
                span.update_name(route_name(scope))
