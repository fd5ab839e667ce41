from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import gc
import importlib.util
import inspect
import os
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

import sqlprobe
from sqlprobe import sites

pytestmark = pytest.mark.versions

ONE = sa.text("SELECT 1")


@pytest.fixture(autouse=True)
def default_configuration():
    yield
    sites.configure((), {})
    sites._places.clear()


@functools.cache
def line_of(marker):
    """The line of this file that ends with the comment *marker*."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    (number,) = [number for number, line in enumerate(lines, 1) if line.endswith(f"# {marker}")]
    return number


def at(site):
    return None if site is None else (Path(site.file).name, site.line, site.function.rpartition(".")[2])


def here(marker, function):
    return ("test_sites.py", line_of(marker), function)


def current_site():
    place = sites.place_of(sys._getframe(1))
    return None if place is None else place.site()


def site_of_last(recording):
    return recording.executions[-1].site


def module_at(path, source, name="module_under_test"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CALLS = "def call(function, *args):\n    return function(*args)\n"


# --- whose frame ------------------------------------------------------------------------------------------------------


def test_site_is_the_users_line_and_its_caller(engine):
    def repository(connection):
        return connection.execute(ONE)  # in the repository

    def service(connection):
        return repository(connection)  # in the service

    with engine.connect() as connection, sqlprobe.record() as recording:
        service(connection)

    site = site_of_last(recording)
    assert (here("in the repository", "repository"), here("in the service", "service")) == (at(site), at(site.caller))


def test_standard_library_is_not_the_users():
    def reads(found, _):
        return [*found, current_site()]  # in a callback

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        (below,) = functools.reduce(reads, [1], [])  # calls functools
        (threaded,) = pool.submit(functools.reduce, reads, [1], []).result()

    assert (here("in a callback", "reads"), line_of("calls functools"), here("in a callback", "reads"), None) == (
        at(below),
        below.caller.line,
        at(threaded),
        threaded.caller,
    )


@pytest.mark.parametrize("folder", ["site-packages", "dist-packages"])
def test_installed_packages_are_not_the_users(tmp_path, folder):
    library = module_at(tmp_path / folder / "library.py", CALLS)
    inner = module_at(tmp_path / folder / "shop" / "views.py", CALLS)

    site = library.call(inner.call, current_site)  # through a library

    assert here("through a library", "test_installed_packages_are_not_the_users") == at(site)


@pytest.mark.parametrize(
    ("packages", "path", "mine"),
    [
        (("shop",), "shop/views.py", True),
        (("shop",), "shop.py", True),
        (("shop",), "shopping/views.py", False),
        (("ns.shop",), "ns/shop/views.py", True),
        (("ns.shop",), "ns/other/views.py", False),
        (("ns.shop",), "ns/shopping/views.py", False),
        (("shop", "other"), "other/a/b/c.py", True),
    ],
)
def test_packages_named_in_the_settings_are_the_users(tmp_path, packages, path, mine):
    module = module_at(tmp_path / "site-packages" / path, CALLS)
    sites.configure(packages, {})

    site = module.call(current_site)

    assert (Path(path).name if mine else "test_sites.py") == Path(site.file).name


def test_package_setting_of_a_probe_is_used(engine, tmp_path):
    module = module_at(tmp_path / "site-packages" / "shop" / "views.py", CALLS)
    with (
        sqlprobe.attach(engine, settings=sqlprobe.Settings(packages=("shop",))) as probe,
        engine.connect() as connection,
    ):
        module.call(connection.execute, ONE)

    (statement,) = probe.report().statements
    assert ("views.py", 2, "call") == at(statement.sites[0].site)


def test_sqlprobe_is_not_the_users_and_its_demo_is():
    package = Path(sqlprobe.__file__).parent

    assert [sites._LIBRARY, sites._USER] == [
        sites._classify(str(package / name)) for name in ("capture.py", "demo/app.py")
    ]


@pytest.mark.parametrize(
    "name",
    [
        "<string>",
        "<frozen importlib._bootstrap>",
        "<attrs generated init>",
        "/app/templates/orders.html",
        "orders.jinja2",
    ],
)
def test_generated_code_and_templates_are_not_the_users(name):
    scope = {}
    exec(compile(CALLS, name, "exec"), scope)

    site = scope["call"](current_site)

    assert "test_generated_code_and_templates_are_not_the_users" == site.function


@pytest.mark.parametrize("name", ["<stdin>", "<ipython-input-3-ab>", "/tmp/ipykernel_1/2.py", "notebook.ipynb"])
def test_what_a_person_types_is_the_users(name):
    scope = {}
    exec(compile(CALLS, name, "exec"), scope)

    site = scope["call"](current_site)

    assert (name, 2, "call") == (site.file, site.line, site.function)


def test_template_of_jinja_leads_to_the_view_that_renders_it(engine, tmp_path):
    jinja2 = pytest.importorskip("jinja2")
    (tmp_path / "list.html").write_text("{% for i in items %}\n{{ read(i) }}{% endfor %}", encoding="utf-8")
    template = jinja2.Environment(loader=jinja2.FileSystemLoader(tmp_path), autoescape=True).get_template("list.html")
    with engine.connect() as connection, sqlprobe.record() as recording:

        def view():
            return template.render(items=[1, 2], read=lambda _: connection.execute(ONE).scalar_one())  # renders

        view()

    site = site_of_last(recording)
    assert (line_of("renders"), "<lambda>", line_of("renders"), "view") == (
        site.line,
        site.function.rpartition(".")[2],
        site.caller.line,
        site.caller.function.rpartition(".")[2],
    )


def test_a_users_folder_named_like_asyncio_is_no_barrier(tmp_path):
    module = module_at(tmp_path / "asyncio" / "events.py", CALLS)

    assert ("events.py", 2, "call") == at(module.call(current_site))


def test_no_user_on_the_stack_is_no_site(tmp_path):
    library = module_at(tmp_path / "site-packages" / "library.py", CALLS)

    async def main():
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        loop.call_soon(library.call, lambda: None)
        loop.call_soon(library.call, functools.partial(_leave, done))
        return await done

    def _leave(done):
        frame = sys._getframe(1)  # the library's: above it there is the loop only
        place = sites.place_of(frame)
        done.set_result(place)

    assert asyncio.run(main()) is None


def test_deep_recursion_ends_without_a_site(tmp_path):
    library = module_at(
        tmp_path / "site-packages" / "library.py",
        "def down(depth, function):\n    return down(depth - 1, function) if depth else function()\n",
    )

    assert (True, True) == (
        library.down(100, current_site) is not None,
        library.down(sites._MAX_FRAMES, current_site) is None,
    )


# --- async code -------------------------------------------------------------------------------------------------------


def recorded(run_async, url, work):
    async def main(engine):
        async with AsyncSession(engine) as session:
            with sqlprobe.record() as recording:
                await work(session)
        return site_of_last(recording)

    return run_async(main, url)


def test_async_code_is_found_through_the_drivers_greenlet(run_async, sqlite_url):
    async def repository(session):
        return await session.execute(ONE)  # awaited in the repository

    async def service(session):
        return await repository(session)  # awaited in the service

    site = recorded(run_async, sqlite_url("aiosqlite"), service)

    assert (here("awaited in the repository", "repository"), here("awaited in the service", "service")) == (
        at(site),
        at(site.caller),
    )


def test_statement_that_is_a_task_itself_has_no_site(run_async, sqlite_url):
    """Who created the task is not on its stack; who runs the loop has nothing to do with it."""

    async def work(session):
        await asyncio.create_task(session.execute(ONE))

    assert recorded(run_async, sqlite_url("aiosqlite"), work) is None


def test_gathered_statements_have_no_wrong_site(run_async, sqlite_url):
    async def one(session):
        return await session.execute(ONE)  # gathered

    async def work(session):
        await asyncio.gather(one(session))

    site = recorded(run_async, sqlite_url("aiosqlite"), work)

    assert (here("gathered", "one"), None) == (at(site), site.caller)


def test_async_generator_is_found_with_its_consumer(run_async, sqlite_url):
    async def rows(session):
        for _ in range(2):
            yield await session.execute(ONE)  # yields rows

    async def work(session):
        async for _ in rows(session):  # consumes rows
            pass

    site = recorded(run_async, sqlite_url("aiosqlite"), work)

    assert (here("yields rows", "rows"), here("consumes rows", "work")) == (at(site), at(site.caller))


def test_run_sync_is_found_inside_the_greenlet_and_above_it(run_async, sqlite_url):
    def inside(session):
        session.execute(ONE)  # inside run_sync

    async def work(session):
        await session.run_sync(inside)  # calls run_sync

    site = recorded(run_async, sqlite_url("aiosqlite"), work)

    assert (here("inside run_sync", "inside"), here("calls run_sync", "work")) == (at(site), at(site.caller))


def test_to_thread_ends_at_the_thread(engine):
    def work():
        return current_site()  # in the thread

    site = asyncio.run(asyncio.to_thread(work))

    assert (here("in the thread", "work"), None) == (at(site), site.caller)


def test_generator_is_found_with_its_consumer():
    def rows():
        yield current_site()  # yields a row

    (site,) = list(rows())  # lists the rows

    assert (here("yields a row", "rows"), line_of("lists the rows")) == (at(site), site.caller.line)


# --- how it is shown --------------------------------------------------------------------------------------------------


def test_files_below_the_working_directory_are_relative(tmp_path, monkeypatch):
    module = module_at(tmp_path / "app" / "views.py", CALLS)
    monkeypatch.chdir(tmp_path)
    below = module.call(current_site).file
    monkeypatch.chdir(tmp_path / "app")
    sites._places.clear()
    inside = module.call(current_site).file
    (tmp_path / "application").mkdir()
    monkeypatch.chdir(tmp_path / "application")  # "app" is the beginning of its name
    sites._places.clear()

    assert (os.path.join("app", "views.py"), "views.py", str(tmp_path / "app" / "views.py")) == (  # noqa: PTH118
        below,
        inside,
        module.call(current_site).file,
    )


def test_path_map_replaces_the_first_prefix_that_fits(tmp_path):
    module = module_at(tmp_path / "srv" / "views.py", CALLS)
    sites.configure((), {"/nowhere/": "x/", f"{tmp_path}/srv/": "shop/", f"{tmp_path}/": "wrong/"})

    assert "shop/views.py" == module.call(current_site).file


def test_removed_working_directory_breaks_no_report(tmp_path):
    script = """
        import os, sqlalchemy as sa, sqlprobe
        engine = sa.create_engine("sqlite://")
        with sqlprobe.attach(engine) as probe, engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
            os.mkdir("gone"); os.chdir("gone"); os.rmdir("../gone")
            print(probe.report().statements[0].sites[0].site)
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(script), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path, env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip

    assert (f"{tmp_path}/script.py:5 in <module>\n", "") == (ran.stdout, ran.stderr)


def test_line_is_that_of_the_call_and_not_of_the_function():
    def work():
        first = current_site()  # first call
        second = (
            current_site()  # second call
        )
        return first.line, second.line

    assert (line_of("first call"), line_of("second call")) == work()


# --- places -----------------------------------------------------------------------------------------------------------


def test_one_place_is_one_object():
    def place():
        return sites.place_of(inspect.currentframe())

    first, second = [place() for _ in range(2)]

    assert first is second


def test_places_are_bounded(monkeypatch, tmp_path):
    monkeypatch.setattr(sites, "_MAX_PLACES", 50)
    monkeypatch.setattr(sites, "_MAX_KINDS", 60)
    for number in range(300):
        scope = {}
        exec(compile(CALLS, f"/app/generated_{number}.py", "exec"), scope)
        scope["call"](current_site)
        exec(compile(CALLS, f"<generated {number}>", "exec"), scope)
        scope["call"](current_site)

    assert (True, True) == (len(sites._places) <= 50, len(sites._kinds) <= 60)


def test_code_that_is_gone_does_not_lend_its_place_to_new_code():
    found = []
    for number in range(200):
        scope = {}
        exec(compile("\n" * number + CALLS, f"/app/reloaded_{number}.py", "exec"), scope)
        site = scope["call"](current_site)
        found.append((site.file, site.line))
        del scope
        gc.collect(0)

    assert [(f"/app/reloaded_{number}.py", number + 2) for number in range(200)] == found


def test_standard_library_is_where_python_says():
    assert sites._LIBRARY == sites._classify(os.path.join(sysconfig.get_paths()["stdlib"], "json", "encoder.py"))  # noqa: PTH118


# --- the frames that are skipped --------------------------------------------------------------------------------------


class Base(DeclarativeBase):
    pass


class Shelf(Base):
    __tablename__ = "shelf"
    id: Mapped[int] = mapped_column(primary_key=True)
    books: Mapped[list[Book]] = relationship()


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    shelf_id: Mapped[int] = mapped_column(sa.ForeignKey("shelf.id"))


def in_every_way(session):
    connection = session.connection()
    shelf = session.scalars(sa.select(Shelf)).first()
    session.execute(sa.select(Shelf.id)).all()
    session.scalar(sa.select(sa.func.count(Shelf.id)))
    session.query(Shelf).all()
    session.query(Shelf.id).first()
    session.get(Shelf, 77)
    session.refresh(shelf)
    shelf.books  # noqa: B018 - a lazy load
    session.execute(sa.update(Shelf).where(Shelf.id == 77).values(id=78))
    session.execute(ONE)
    connection.execute(sa.select(Shelf))  # an ORM statement that no session runs
    connection.execute(sa.select(Shelf.__table__))
    connection.scalar(ONE)
    connection.exec_driver_sql("SELECT 1")
    session.add(Shelf(id=5))
    session.flush()


def places_of(engine):
    """Where each statement of `in_every_way()` was, with an event handler between that runs one more by itself."""

    def another(state):
        state.session.connection().execute(sa.select(Book))  # an ORM statement, right below the session

    with Session(engine) as session, sqlprobe.record(settings=sqlprobe.Settings(call_sites="all")) as recording:
        in_every_way(session)
        sa.event.listen(session, "do_orm_execute", another)
        session.scalars(sa.select(Shelf)).all()
        session.rollback()
    return [(each.fingerprint, at(each.site), at(each.site.caller)) for each in recording.executions]


def test_frames_that_are_skipped_change_no_site(engine, monkeypatch):
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add(Shelf(id=1))

    looked_at = []
    place_of = sites.place_of
    monkeypatch.setattr(sites, "place_of", lambda frame: (looked_at.append(frame), place_of(frame))[1])
    found = []
    for known in (True, False):
        if not known:
            for name in ("_SESSION", "_CONNECTION", "_ORM"):
                monkeypatch.setattr(sites, name, "elsewhere")
        found.append(places_of(engine))
        walked_from = [looked_at.pop(0).f_code.co_name for _ in looked_at[:]]
        found.append(walked_from.count("_exec_single_context"))
    skipping, unskipped, walking, all_of_them = found

    assert skipping == walking
    assert {"in_every_way", "places_of", "another"} == {function for _, (_, _, function), _ in walking}
    assert (2, len(walking)) == (unskipped, all_of_them)  # exec_driver_sql() and Connection.scalar() are walked from
