"""Behind pgbouncer in transaction mode, where a session is shared: what is left in it meets somebody else."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from sqlprobe.plans import explain
from sqlprobe.plans import plan as plans
from sqlprobe.plans.sampling import Sample

pytestmark = pytest.mark.requires_debian("pgbouncer", "pgbouncer")

PORT = 6432
SESSION = """
SELECT current_setting('application_name'), current_setting('lock_timeout'), current_setting('statement_timeout'),
    current_setting('transaction_read_only'), current_setting('work_mem'), current_user::text, pg_my_temp_schema()::int,
    (SELECT count(*) FROM pg_prepared_statements), pg_backend_pid()
"""


@pytest.fixture(scope="module")
def bouncer(module_postgresql_url, postgresql_server):
    """The folder of pgbouncer's socket; one session to the server, which all clients share."""
    database = module_postgresql_url().database
    postgresql_server.psql("CREATE TABLE item AS SELECT g AS id FROM generate_series(1, 100) g; ANALYZE", database)
    with tempfile.TemporaryDirectory(prefix="bouncer-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "pgbouncer.ini").write_text(
            f"""[databases]
{database} = host={postgresql_server.sockets} port=5432 user=postgres
[pgbouncer]
pool_mode = transaction
default_pool_size = 1
auth_type = any
listen_addr =
listen_port = {PORT}
unix_socket_dir = {folder}
ignore_startup_parameters = extra_float_digits, jit
"""
        )
        (folder / "pgbouncer.ini").chmod(0o644)
        program = shutil.which("pgbouncer", path=os.pathsep.join([*os.get_exec_path(), "/usr/sbin"]))
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        process = subprocess.Popen([program, *user, "-q", str(folder / "pgbouncer.ini")], stderr=subprocess.PIPE)
        try:
            deadline = time.monotonic() + 20
            while not _listens(folder / f".s.PGSQL.{PORT}"):
                assert process.poll() is None, process.stderr.read().decode()
                assert time.monotonic() < deadline
            yield folder, database
        finally:
            process.terminate()
            process.wait(20)
            process.stderr.close()


def _listens(path):
    with socket.socket(socket.AF_UNIX) as client:  # its file is there a moment before anybody listens
        return client.connect_ex(str(path)) == 0


def engine_on(bouncer, driver):
    folder, database = bouncer
    url = sa.URL.create(
        f"postgresql+{driver}", username="postgres", database=database, query={"host": str(folder), "port": str(PORT)}
    )
    if driver == "asyncpg":
        # What asyncpg's manual asks for behind pgbouncer.
        args = {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
        args["prepared_statement_name_func"] = lambda: f"__{uuid.uuid4()}__"
        return create_async_engine(url, connect_args=args).sync_engine
    return sa.create_engine(url, connect_args={"prepare_threshold": None})


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_the_shared_session_is_left_as_it_was(bouncer, driver):
    folder, database = bouncer
    app = sa.create_engine(
        sa.URL.create(
            "postgresql+psycopg", username="postgres", database=database, query={"host": str(folder), "port": str(PORT)}
        ),
        connect_args={"prepare_threshold": None, "application_name": "shop"},
    )
    text, parameters = (
        ("SELECT * FROM item WHERE id = $1::INTEGER", (5,))
        if driver == "asyncpg"
        else ("SELECT * FROM item WHERE id = %(id)s", {"id": 5})
    )
    sample = Sample(text, parameters, settings=(("SET LOCAL work_mem = '77MB'", None),))
    engine = engine_on(bouncer, driver)
    with app.connect() as connection:
        before = connection.exec_driver_sql(SESSION).one()
        connection.rollback()
        plan, refused = explain.on_connection(engine, lambda s: (s.explain(sample).plan, _refused(s)))
        after = connection.exec_driver_sql(SESSION).one()
    app.dispose()

    assert ("Seq Scan on item", "not visible", "77MB") == (plan.root.title, refused, plan.settings["work_mem"])
    assert before == after
    assert "5" not in plans.render(plan, costs=False)


def _refused(session):
    try:
        session.explain(Sample("SELECT * FROM nothing"))
    except explain.Refused as refused:
        return refused.reason
