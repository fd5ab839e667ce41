"""
Prometheus: `attach(engine, exporters=["prometheus"])` adds sqlprobe's metrics to prometheus_client's registry.

Nothing runs per statement: a scrape reads the probe's counters. `make_wsgi_app()` and `make_asgi_app()` write the text
themselves, together with what a registry has; `SqlprobeCollector` serves any registry. With the environment variable
PROMETHEUS_MULTIPROC_DIR each process keeps its totals in files there, as prometheus_client's own metrics do.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import Metric as ClientMetric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from sqlprobe_exporters.exemplars import exemplars_of
from sqlprobe_exporters.metrics import (
    MAX_FINGERPRINTS,
    MAX_ROUTES,
    METRICS,
    Histogram,
    Metric,
    Reader,
    Reading,
    read_all,
    reader_of,
)
from sqlprobe_exporters.mirror import FLUSH_SECONDS, Mirror
from sqlprobe_exporters.text import Renderer, edge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
    from wsgiref.types import StartResponse

    from sqlprobe import Probe
    from sqlprobe_exporters.exemplars import Exemplar

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MULTIPROC: Final = "PROMETHEUS_MULTIPROC_DIR"
_EOF: Final = b"# EOF\n"
_PLAIN: Final = "text/plain; version=0.0.4; charset=utf-8"
_COMPRESSION: Final = 1  # a tenth of the size for a fifth of the time of the default

_silent = threading.local()  # while an app of ours adds a registry's metrics to its own


class SqlprobeCollector(Collector):
    """
    For any prometheus_client registry: `registry.register(SqlprobeCollector(probe))`.

    Args:
        probes: whose metrics to tell; none: those attached with `exporters=["prometheus"]`, as of each scrape.
    """

    def __init__(self, *probes: Probe) -> None:
        self._readers = [reader_of(probe) for probe in probes]

    def describe(self) -> Iterable[ClientMetric]:
        """Nothing: a registry would else collect everything when it is registered."""
        return []

    def collect(self) -> Iterator[ClientMetric]:
        if getattr(_silent, "now", False):
            return
        readers = self._readers or _started_readers()
        reading = read_all(readers)
        for metric in METRICS:
            values = reading[metric.name]
            if values:
                yield _client_metric(metric, values)


class Prometheus:
    """
    An exporter with options: `attach(engine, exporters=[Prometheus(port=9464)])`.

    Args:
        registry: where the metrics are added; None adds them nowhere: serve `make_wsgi_app(probe)` or
            `make_asgi_app(probe)`.
        port: serve http://addr:port/metrics too, from a thread; 0 serves none. A port that is taken is told by
            `sqlprobe doctor` and `sqlprobe_internal_errors_total`, and not raised.
        addr: where *port* listens.
        max_fingerprints: statements with series of their own, 18 each; the rest is summed in "other".
        max_routes: routes with series of their own.
        pools: watch connection pools and transactions.
        flush_seconds: with PROMETHEUS_MULTIPROC_DIR, how often the process's files are brought up to date: what a
            process that is killed by SIGKILL loses at most.
    """

    def __init__(
        self,
        *,
        registry: CollectorRegistry | None = REGISTRY,
        port: int = 0,
        addr: str = "127.0.0.1",
        max_fingerprints: int = MAX_FINGERPRINTS,
        max_routes: int = MAX_ROUTES,
        pools: bool = True,
        flush_seconds: float = FLUSH_SECONDS,
    ) -> None:
        for name, value, least in (
            ("max_fingerprints", max_fingerprints, 1),
            ("max_routes", max_routes, 1),
            ("port", port, 0),
            ("flush_seconds", flush_seconds, 0.01),
        ):
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < 1e9:  # noqa: PLR2004
                raise ValueError(f"Prometheus({name}={value!r}): a number from {least} on is needed")
        self._registry = registry
        self._port = port
        self._addr = addr
        self._max_fingerprints = max_fingerprints
        self._max_routes = max_routes
        self._pools = pools
        self._flush_seconds = flush_seconds

    def __call__(self, probe: Probe) -> Started:
        """Start for *probe*: what `attach()` does."""
        reader = reader_of(probe, max_fingerprints=self._max_fingerprints, max_routes=self._max_routes)
        if self._pools:
            probe.watch_pools()
        started = Started(probe, reader, self._registry)
        folder = os.environ.get(MULTIPROC)
        if folder:
            started.mirror = Mirror(reader, folder, self._flush_seconds)
        if self._port:
            started.serve(self._addr, self._port)
        return started


class Started:
    """A running exporter; `stop()` ends it."""

    def __init__(self, probe: Probe, reader: Reader, registry: CollectorRegistry | None) -> None:
        self._probe = probe
        self.reader = reader
        self.mirror: Mirror | None = None
        self.port = 0
        self._server: Any = None
        self._registry = registry
        _started.append(self)
        _register(registry)

    def serve(self, addr: str, port: int) -> None:
        """Serve /metrics; a failure is counted."""
        try:
            self._server, self.port = serve(make_wsgi_app(self._probe), addr, port)
        except (OSError, OverflowError) as error:
            self._probe.fault(f"prometheus port {port}", error)

    def stop(self) -> None:
        if self in _started:
            _started.remove(self)
        if self.mirror is not None:
            self.mirror.stop()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        self.reader.close()
        if not any(other._registry is self._registry for other in _started):  # noqa: SLF001 - of this class
            _unregister(self._registry)


_started: list[Started] = []
_collectors: weakref.WeakKeyDictionary[CollectorRegistry, SqlprobeCollector] = weakref.WeakKeyDictionary()
start: Final = Prometheus()  # the entry point's


def _started_readers() -> list[Reader]:
    return [started.reader for started in _started]


def _register(registry: CollectorRegistry | None) -> None:
    if registry is not None and registry not in _collectors:
        _collectors[registry] = SqlprobeCollector()
        registry.register(_collectors[registry])


def _unregister(registry: CollectorRegistry | None) -> None:
    if registry is not None and registry in _collectors:
        registry.unregister(_collectors.pop(registry))


class _Page:
    """What /metrics answers."""

    def __init__(self, probes: tuple[Probe, ...], registry: CollectorRegistry | None) -> None:
        self._readers = [reader_of(probe) for probe in probes]
        self._registry = registry
        self._renderer = Renderer()
        self._lock = threading.Lock()

    @property
    def readers(self) -> list[Reader]:
        return self._readers or _started_readers()

    def answer(self, accept: str, accept_encoding: str) -> tuple[list[tuple[str, str]], bytes]:
        """Headers and body for a scraper that accepts such formats."""
        encode, content_type = choose_encoder(accept)
        openmetrics = content_type.startswith("application/openmetrics-text")
        if not openmetrics:
            content_type = content_type if "version=1" in content_type else _PLAIN
        body = self._body(encode, openmetrics=openmetrics)
        headers = [("Content-Type", content_type)]
        if "gzip" in accept_encoding.lower():
            body = gzip.compress(body, _COMPRESSION)
            headers.append(("Content-Encoding", "gzip"))
        headers.append(("Content-Length", str(len(body))))
        return headers, body

    def _body(self, encode: Callable[[Any], bytes], *, openmetrics: bool) -> bytes:
        folder = os.environ.get(MULTIPROC)
        if folder:
            for started in _started.copy():
                if started.mirror is not None:
                    started.mirror.flush()
            try:
                # Every process's files, the application's own metrics among them.
                registry = CollectorRegistry()
                MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
                return encode(registry)
            except (OSError, ValueError) as error:
                # A folder that is not there: this process's own numbers are better than none.
                for reader in self.readers:
                    reader.probe.fault("prometheus multiprocess", error)
        with self._lock:
            text = self._renderer.render(
                read_all(self.readers),
                openmetrics=openmetrics,
                exemplars=self._exemplars if openmetrics else None,
            ).encode()
        if self._registry is None:
            return text + _EOF if openmetrics else text
        _silent.now = True
        try:
            return text + encode(self._registry)
        finally:
            _silent.now = False

    def _exemplars(self, engine: str, fingerprint: str) -> dict[int, Exemplar]:
        for reader in self.readers:
            found = exemplars_of(reader.probe).of(engine, fingerprint)
            if found:
                return found
        return {}


def make_wsgi_app(*probes: Probe, registry: CollectorRegistry | None = REGISTRY) -> Callable[..., Iterable[bytes]]:
    """
    A WSGI application that answers with the metrics of *probes* and what else is in *registry*, in one text.

    Without *probes* it tells of those attached with `exporters=["prometheus"]`. With PROMETHEUS_MULTIPROC_DIR it tells
    of every process. It answers every path: mount it at /metrics.
    """
    page = _Page(probes, registry)

    def metrics(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        headers, body = page.answer(environ.get("HTTP_ACCEPT", ""), environ.get("HTTP_ACCEPT_ENCODING", ""))
        start_response("200 OK", headers)
        return [b""] if environ.get("REQUEST_METHOD") == "HEAD" else [body]

    return metrics


def make_asgi_app(
    *probes: Probe, registry: CollectorRegistry | None = REGISTRY
) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """An ASGI application; see `make_wsgi_app`."""
    page = _Page(probes, registry)

    async def metrics(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        accepted = {b"accept": "", b"accept-encoding": ""}
        for name, value in scope.get("headers", ()):
            if name.lower() in accepted:
                accepted[name.lower()] += "," + value.decode("latin-1")
        arguments = (accepted[b"accept"].lstrip(","), accepted[b"accept-encoding"])
        if os.environ.get(MULTIPROC):  # 30 ms and more: not on the event loop
            headers, body = await asyncio.to_thread(page.answer, *arguments)
        else:
            headers, body = page.answer(*arguments)
        raw = [(name.lower().encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        await send({"type": "http.response.body", "body": b"" if scope.get("method") == "HEAD" else body})

    return metrics


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def serve(app: Callable[..., Iterable[bytes]], addr: str, port: int) -> tuple[Any, int]:
    """
    Serve the WSGI *app* from a thread; the server, and the port it has, which with 0 is one that is free.

    Raises:
        OSError: the port is taken, or not for this user.
    """
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

    class Quiet(WSGIRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the parent's name
            """Nothing: a scrape is no news."""

    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    server = make_server(addr, port, app, Server, Quiet)
    threading.Thread(target=server.serve_forever, name="sqlprobe metrics", daemon=True).start()
    return server, server.server_port


def _client_metric(metric: Metric, values: dict[tuple[str, ...], Any]) -> ClientMetric:
    told = ClientMetric(metric.name, metric.help, metric.kind, unit=metric.unit)
    for labels, value in values.items():
        named = dict(zip(metric.labels, labels, strict=True))
        if isinstance(value, Histogram):
            seen = 0
            for bound, count in zip([*map(edge, metric.bounds), "+Inf"], value.buckets, strict=True):
                seen += count
                told.add_sample(f"{metric.name}_bucket", {**named, "le": bound}, seen)
            told.add_sample(f"{metric.name}_count", named, seen)
            told.add_sample(f"{metric.name}_sum", named, value.sum)
        else:
            told.add_sample(metric.samples[0], named, value)
    return told


__all__ = ["Prometheus", "Reading", "SqlprobeCollector", "make_asgi_app", "make_wsgi_app", "serve", "start"]
