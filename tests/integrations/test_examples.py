"""The examples of docs/integrations.md run against the real frameworks, and each gives the scope that the page says."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import types
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import pytest
import sqlalchemy as sa

pytestmark = [pytest.mark.once, pytest.mark.tree]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "integrations.md"


@pytest.fixture(autouse=True)
def the_level_of_the_root_logger_stays():
    """A worker of Celery sets it, and what other tests log would not be seen."""
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


def execute(heading, run=None):
    """The names that the first example below *heading* leaves; `run()` in it runs statements."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    module = types.ModuleType("example")
    module.run = run
    sys.modules["example"] = module  # FastAPI looks annotations up there
    try:
        exec(compile(code, f"{PAGE}: {heading}", "exec"), module.__dict__)
    finally:
        del sys.modules["example"]
    return module


@pytest.fixture
def example(run):
    """`example(heading)`: see `execute()`."""
    return lambda heading: execute(heading, run)


@pytest.fixture(scope="module")
def shop():
    """The example of Celery, whose tasks are the process's: once."""
    pytest.importorskip("celery")
    module = execute("Celery")

    @module.tasks.task(name="outer")
    def outer():
        module.run()
        return module.nightly.apply(args=[2]).result

    @module.tasks.task(name="broken")
    def broken():
        module.run()
        return 1 / 0

    yield module
    module.integration.disconnect()


def told(probe):
    return sorted((item.name, item.kind, item.count, item.calls) for item in probe.report().scopes)


def wsgi(app, path):
    """Status and body of a GET."""
    environ = {"PATH_INFO": path, "REQUEST_METHOD": "GET"}
    setup_testing_defaults(environ)
    statuses = []
    body = app(environ, lambda status, *_: statuses.append(status))
    try:
        return statuses[0], b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()


def test_fastapi(probe, example):
    httpx = pytest.importorskip("httpx")
    app = example("ASGI: Starlette, FastAPI, Litestar").app

    async def main():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
            return (await client.get("/orders/5")).json()

    assert ({"id": 5}, [("GET /orders/{order_id}", "request", 1, 1)]) == (asyncio.run(main()), told(probe))


def test_flask(probe, example):
    module = example("Flask")
    app = module.create_app()
    module.requests.init_app(app)  # twice is once
    with app.test_client() as client, client.get("/orders/5") as response:
        body = response.get_json()

    assert ({"id": 5}, [("GET /orders/<int:order_id>", "request", 1, 1)]) == (body, told(probe))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:pkg_resources is deprecated")  # at their imports
def test_pyramid(probe, example):
    app = example("Pyramid").app

    answers = [wsgi(app, "/orders/5"), wsgi(app, "/orders/6"), wsgi(app, "/nothing")]
    assert (
        [("200 OK", b'{"id": 5}'), ("200 OK", b'{"id": 6}'), "404 Not Found"],
        [("GET (no route)", "request", 1, 0), ("GET /orders/{order_id}", "request", 2, 2)],
    ) == ([*answers[:2], answers[2][0]], told(probe))


@pytest.fixture(scope="module")
def django_views():
    """Django, set up for this process: a module of URLs whose view calls `views.run`."""
    import django
    from django.conf import settings
    from django.http import HttpResponse, StreamingHttpResponse
    from django.urls import path

    urls = types.ModuleType("sqlprobe_django_urls")

    def order(request, order_id):
        urls.run()
        return HttpResponse(str(order_id))

    def stream(request, name):
        def body():
            for _ in range(3):
                urls.run()
                yield name

        return StreamingHttpResponse(body())

    urls.urlpatterns = [path("orders/<int:order_id>/", order), path("stream/<name>/", stream)]
    sys.modules[urls.__name__] = urls
    settings.configure(
        ROOT_URLCONF=urls.__name__,
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="for a test",
        MIDDLEWARE=["sqlprobe.integrations.django.RouteMiddleware", "django.middleware.common.CommonMiddleware"],
        LOGGING_CONFIG=None,
    )
    django.setup()
    return urls


def test_django_under_wsgi(probe, example, run, django_views):
    django_views.run = run
    app = example("Django with SQLAlchemy").application

    answers = [wsgi(app, "/orders/5/"), wsgi(app, "/stream/x/"), wsgi(app, "/nothing/")]
    assert (
        [("200 OK", b"5"), ("200 OK", b"xxx"), "404 Not Found"],
        [
            ("GET (no route)", "request", 1, 0),
            ("GET /orders/<int:order_id>/", "request", 1, 1),
            ("GET /stream/<name>/", "request", 1, 3),
        ],
    ) == ([*answers[:2], answers[2][0]], told(probe))


def test_django_under_asgi(probe, run, django_views):
    httpx = pytest.importorskip("httpx")
    from django.core.asgi import get_asgi_application

    from sqlprobe.integrations.asgi import SqlprobeMiddleware

    django_views.run = run
    app = SqlprobeMiddleware(get_asgi_application())

    async def main():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
            return (await client.get("/orders/5/")).text

    assert ("5", [("GET /orders/<int:order_id>/", "request", 1, 1)]) == (asyncio.run(main()), told(probe))


def test_celery_eager_and_nested(probe, shop, run):
    shop.run = run
    results = [shop.tasks.tasks[name].apply() for name in ("outer", "broken")]

    assert (
        (2, "ZeroDivisionError('division by zero')"),
        [("broken", "task", 1, 1), ("example.nightly", "task", 1, 2), ("outer", "task", 1, 3)],
    ) == ((results[0].result, repr(results[1].result)), told(probe))


def test_celery_disconnected_is_left_alone(probe, shop, run):
    shop.run = run
    shop.integration.disconnect()
    try:
        shop.nightly.apply(args=[5])
    finally:
        shop.integration.connect()

    assert [] == told(probe)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_celery_in_a_worker(shop, tmp_path):
    """A real worker, its thread in this process, on a broker in memory: the engine is seen in whatever thread it runs."""
    from celery.contrib.testing.worker import start_worker

    import sqlprobe

    engine = sa.create_engine(f"sqlite:///{tmp_path / 'celery.db'}")

    def run(times):
        with engine.connect() as connection:
            for _ in range(times):
                connection.execute(sa.text("SELECT 1"))

    shop.run = run
    try:
        with sqlprobe.attach(engine) as probe:
            with start_worker(shop.tasks, pool="solo", perform_ping_check=False, shutdown_timeout=30):
                results = [shop.nightly.delay(times).get(timeout=30) for times in (1, 2, 3)]
            assert ([1, 2, 3], [("example.nightly", "task", 3, 6)]) == (results, told(probe))
    finally:
        engine.dispose()


def test_anything_else(probe, example):
    module = example("Anything else")
    module.import_orders()
    module.import_orders()

    assert ([("cleanup", "task", 1, 1), ("import", "task", 2, 4)], 1) == (told(probe), module.scope.calls)


def test_thread_pools(probe, example):
    example("Thread pools")

    assert [("report", "task", 1, 10)] == told(probe)
