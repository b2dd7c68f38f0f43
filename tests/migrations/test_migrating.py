"""migrating.migrate and `alembic upgrade head`: once, twice, at once, too new, and failing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql
from sqlalchemy import create_engine

from chatter_db import database, migrating
from chatter_db.errors import DatabaseUnavailable, SchemaError
from chatter_db.migrating import Migrated
from tests import forked
from tests.conftest import SERVERS
from tests.polling import WAITS_FOR_A_LOCK, wait_until

from .catalog import catalog
from .test_same_catalog import SCHEMA_FILES

# A process starts slowly, and what these tests ask is no matter of Postgres's version.
ONE_MIGRATED = pytest.mark.parametrize("url", SERVERS[:1], indirect=True)
ONE_SERVER = pytest.mark.parametrize("server_url", SERVERS[:1], indirect=True)

ROOT = Path(__file__).parents[2]
HEAD = migrating.head()
# The lock of migrations/env.py: Postgres shows its halves.
LOCK = int.from_bytes(b"chatter", "big")


def alembic(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command `alembic` in the repository's root, as a user would."""
    return forked.run(["alembic", *arguments], os.environ | {"CHATTER_DATABASE_URL": url}, ROOT)


def named(statement: str, *names: str) -> sql.Composed:
    """`statement` with `names`, quoted, in place of its {}."""
    return sql.SQL(statement).format(*map(sql.Identifier, names))


def set_revision(url: str, revision: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("update chatter.alembic_version set version_num = %s", [revision])


def test_migrating_an_empty_database(empty_url: str) -> None:
    result = migrating.migrate(empty_url)
    assert result == Migrated(before=None, after=HEAD)
    assert result.changed


def test_migrating_twice_is_a_no_op(empty_url: str) -> None:
    migrating.migrate(empty_url)
    before = catalog(empty_url)
    result = migrating.migrate(empty_url)
    assert result == Migrated(before=HEAD, after=HEAD)
    assert not result.changed
    assert catalog(empty_url) == before


@pytest.mark.long
@ONE_SERVER
def test_the_alembic_command_does_the_same(new_database: Callable[[], str]) -> None:
    by_command, by_call = new_database(), new_database()
    done = alembic(by_command, "upgrade", "head")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    migrating.migrate(by_call)
    assert catalog(by_command) == catalog(by_call)
    with psycopg.connect(by_command) as connection:
        assert connection.execute("select version_num from chatter.alembic_version").fetchall() == [
            (HEAD,)
        ]


@pytest.mark.long
@ONE_SERVER
def test_migrators_at_once_take_turns(empty_url: str) -> None:
    program = (
        "import sys; from chatter_db.migrating import migrate; print(migrate(sys.argv[1]).before)"
    )
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(%s)", [LOCK])
        migrators = [
            subprocess.Popen(
                [sys.executable, "-c", program, empty_url], stdout=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        try:
            waiting = (
                "select from pg_locks as l join pg_database as d on d.oid = l.database "
                "where l.locktype = 'advisory' and not l.granted "
                "and d.datname = current_database()"
            )
            wait_until(lambda: len(connection.execute(waiting).fetchall()) == 2)
            connection.execute("select pg_advisory_unlock(%s)", [LOCK])
            said = sorted(process.communicate(timeout=60)[0].strip() for process in migrators)
        finally:
            for process in migrators:
                if process.poll() is None:
                    process.kill()
                    process.wait()
    assert [process.returncode for process in migrators] == [0, 0]
    assert said == sorted([HEAD, "None"])


@pytest.mark.long
@ONE_SERVER
def test_a_migrator_waits_longer_than_its_login_lets_a_query_run(empty_url: str) -> None:
    limited = f"{empty_url}?options=-c%20statement_timeout%3D500"
    with psycopg.connect(empty_url, autocommit=True) as connection, ThreadPoolExecutor(1) as pool:
        connection.execute("select pg_advisory_lock(%s)", [LOCK])
        migrating_it = pool.submit(migrating.migrate, limited)
        wait_until(lambda: connection.execute(WAITS_FOR_A_LOCK).fetchall())
        time.sleep(0.6)
        connection.execute("select pg_advisory_unlock(%s)", [LOCK])
        assert migrating_it.result().changed


@pytest.mark.long
@ONE_SERVER
def test_a_migrator_that_waits_says_for_whom(empty_url: str) -> None:
    told: list[str] = []
    with (
        psycopg.connect(empty_url, autocommit=True, application_name="intruder") as holder,
        ThreadPoolExecutor(1) as pool,
    ):
        holder.execute("select pg_advisory_lock(%s)", [LOCK])
        waiting = pool.submit(migrating.migrate, empty_url, told.append)
        wait_until(lambda: holder.execute(WAITS_FOR_A_LOCK).fetchall())
        pid = holder.info.backend_pid
        holder.execute("select pg_advisory_unlock(%s)", [LOCK])
        assert waiting.result().changed
    (said,) = told
    assert f"session {pid}" in said and "application 'intruder'" in said
    assert f"pg_terminate_backend({pid})" in said


@pytest.mark.long
@ONE_SERVER
def test_a_migrator_that_lost_its_connection_promises_nothing(empty_url: str) -> None:
    ended = f"select pg_terminate_backend(pid) from ({WAITS_FOR_A_LOCK}) as waiting"
    with psycopg.connect(empty_url, autocommit=True) as connection, ThreadPoolExecutor(1) as pool:
        connection.execute("select pg_advisory_lock(%s)", [LOCK])
        migrating_it = pool.submit(migrating.migrate, empty_url)
        wait_until(lambda: connection.execute(ended.encode()).fetchall())
        with pytest.raises(SchemaError, match=r"connection was lost: .*migrate again") as lost:
            migrating_it.result()
    assert "othing was changed" not in str(lost.value)


@pytest.mark.long
@ONE_SERVER
def test_the_alembic_command_ends_by_ctrl_c(empty_url: str) -> None:
    with psycopg.connect(empty_url, autocommit=True) as connection, ThreadPoolExecutor(1) as pool:
        connection.execute("select pg_advisory_lock(%s)", [LOCK])
        command = ["alembic", "upgrade", "head"]
        running = forked.start(command, os.environ | {"CHATTER_DATABASE_URL": empty_url}, ROOT)
        said = pool.submit(forked.all_of, running.stderr)
        wait_until(lambda: connection.execute(WAITS_FOR_A_LOCK).fetchall())
        assert running.process.pid is not None
        os.kill(running.process.pid, signal.SIGINT)
        running.process.join(10)
    assert (running.process.exitcode, said.result()) == (130, "")


# --- two databases of one server share its roles


def test_two_databases_migrate_at_once(new_database: Callable[[], str]) -> None:
    first, second = new_database(), new_database()
    with psycopg.connect(first) as open_migration, ThreadPoolExecutor(1) as pool:
        for file in SCHEMA_FILES:
            open_migration.execute(file.read_bytes())
        # The roles are there and described: nothing to wait for, nothing to fail on.
        assert pool.submit(migrating.migrate, second).result(timeout=30).changed


@contextmanager
def without_roles(server: psycopg.Connection[Any]) -> Iterator[None]:
    """The server as if the roles of chatter had never been made."""
    roles = ("chatter_app", "chatter_reader", "chatter_worker")
    for role in roles:
        server.execute(named("alter role {} rename to {}", role, f"hidden_{role}"))
    try:
        yield
    finally:
        for role in roles:
            server.execute(named("drop role if exists {}", role))
            server.execute(named("alter role {} rename to {}", f"hidden_{role}", role))


def test_two_databases_make_the_roles_at_once(
    server: psycopg.Connection[Any], server_url: str
) -> None:
    names = ["first_books", "second_books"]
    with without_roles(server):
        try:
            for name in names:
                server.execute(named("create database {}", name))
            first, second = (server_url.removesuffix("postgres") + name for name in names)
            with psycopg.connect(first) as open_migration, ThreadPoolExecutor(1) as pool:
                for file in SCHEMA_FILES:
                    open_migration.execute(file.read_bytes())
                waiting = pool.submit(migrating.migrate, second)
                held_up = (
                    "select from pg_stat_activity "
                    "where datname = 'second_books' and wait_event_type = 'Lock'"
                )
                wait_until(lambda: server.execute(held_up).fetchall())
                open_migration.commit()
                assert waiting.result(timeout=30).changed
            assert catalog(first)["grants"] == catalog(second)["grants"]
        finally:
            for name in names:
                server.execute(named("drop database if exists {} with (force)", name))


# --- a user with few rights


@pytest.fixture
def lowly(server: psycopg.Connection[Any], empty_url: str) -> Iterator[str]:
    """The empty database for a login that may create a schema in it and nothing else."""
    name = empty_url.rpartition("/")[2]
    server.execute("create role lowly login password 'lowly'")
    server.execute(named("grant create on database {} to lowly", name))
    credentials, _, host = empty_url.removeprefix("postgresql://").rpartition("@")
    assert credentials
    yield f"postgresql://lowly:lowly@{host}"
    with psycopg.connect(empty_url) as connection:
        connection.execute("drop owned by lowly cascade")
    server.execute("drop role lowly")


def grants_to_our_roles(url: str) -> list[str]:
    return [row for row in catalog(url)["grants"] if "'chatter_" in row]


def test_a_user_who_may_not_create_roles(
    server: psycopg.Connection[Any], lowly: str, empty_url: str, new_database: Callable[[], str]
) -> None:
    warnings: list[str] = []
    with without_roles(server):
        assert migrating.migrate(lowly, warnings.append).changed
        assert len(warnings) == 3
        for role, warning in zip(("app", "reader", "worker"), warnings, strict=True):
            assert warning.startswith(
                f"role chatter_{role} was not created: lowly may not create roles"
            )
            assert "select chatter.grant_roles()" in warning
        assert grants_to_our_roles(empty_url) == []
        with psycopg.connect(lowly) as connection:
            connection.execute(
                "with c as (insert into chatter.conversations default values returning id) "
                "select from c"
            )
            # The owner's care needs no superuser either.
            assert connection.execute("select * from chatter.recount()").fetchall() == []
            connection.execute("select chatter.grant_roles()")
        assert grants_to_our_roles(empty_url) == []
    # An administrator has made them; now the owner's call grants what a migration would have.
    with psycopg.connect(lowly) as connection:
        connection.execute("select chatter.grant_roles()")
    expected = new_database()
    migrating.migrate(expected)
    assert grants_to_our_roles(empty_url) == grants_to_our_roles(expected) != []


def test_a_user_who_finds_the_roles_made(lowly: str, empty_url: str) -> None:
    warnings: list[str] = []
    migrating.migrate(lowly, warnings.append)
    (warning,) = warnings
    assert warning.startswith("lowly may not act for users: it is no member of chatter_app")
    assert "grant chatter_app to lowly;" in warning
    assert grants_to_our_roles(empty_url) != []
    with (
        psycopg.connect(lowly) as connection,
        pytest.raises(errors.InsufficientPrivilege) as refusal,
    ):
        connection.execute("select chatter.act_for(gen_random_uuid())")
    assert refusal.value.diag.message_hint == "As an administrator: grant chatter_app to lowly;"


def test_a_user_whose_schema_an_administrator_made(
    server: psycopg.Connection[Any], lowly: str, empty_url: str
) -> None:
    name = empty_url.rpartition("/")[2]
    server.execute(named("revoke create on database {} from lowly", name))
    with pytest.raises(SchemaError, match="permission denied for database"):
        migrating.migrate(lowly)
    with psycopg.connect(empty_url) as connection:
        connection.execute("create schema chatter authorization lowly")
        connection.execute("create schema analytics authorization lowly")
    assert migrating.migrate(lowly).changed


# --- refused


@pytest.fixture
def from_the_future(url: str) -> str:
    set_revision(url, "9999")
    return url


def test_a_newer_schema_is_refused(from_the_future: str) -> None:
    before = catalog(from_the_future)
    with pytest.raises(SchemaError, match=f"version 9999.*up to {HEAD}.*Upgrade chatter-db"):
        migrating.migrate(from_the_future)
    assert catalog(from_the_future) == before


@ONE_MIGRATED
def test_a_newer_schema_is_refused_by_the_alembic_command(from_the_future: str) -> None:
    done = alembic(from_the_future, "upgrade", "head")
    assert done.returncode != 0
    assert "version 9999" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_require_current(url: str) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: database.connect(url))
    with engine.connect() as connection:
        migrating.require_current(connection)
    set_revision(url, "9999")
    with engine.connect() as connection, pytest.raises(SchemaError, match="version 9999"):
        migrating.require_current(connection)
    with engine.connect() as connection:
        connection.exec_driver_sql("delete from chatter.alembic_version")
        with pytest.raises(SchemaError, match=r"not there yet.*chatter migrate"):
            migrating.require_current(connection)
        connection.exec_driver_sql("drop schema chatter cascade")
        with pytest.raises(SchemaError, match=r"not there yet.*chatter migrate"):
            migrating.require_current(connection)
    engine.dispose()


def test_a_migration_that_fails_leaves_nothing_behind(empty_url: str) -> None:
    with psycopg.connect(empty_url) as connection:
        connection.execute("create schema chatter")
        # In the way of a later file, so that much is done before it fails.
        connection.execute("create table chatter.tool_calls (mine text)")
    before = catalog(empty_url)
    with pytest.raises(SchemaError, match='Nothing was changed: relation "tool_calls" already'):
        migrating.migrate(empty_url)
    assert catalog(empty_url) == before
    with psycopg.connect(empty_url) as connection:
        assert connection.execute(
            "select relname from pg_class where relnamespace = 'chatter'::regnamespace "
            "and relkind = 'r'"
        ).fetchall() == [("tool_calls",)]
        connection.execute("drop table chatter.tool_calls")
    assert migrating.migrate(empty_url).changed


@ONE_SERVER
def test_a_migration_that_fails_by_the_alembic_command(empty_url: str) -> None:
    with psycopg.connect(empty_url) as connection:
        connection.execute("create schema chatter")
        connection.execute("create table chatter.tool_calls (mine text)")
    before = catalog(empty_url)
    done = alembic(empty_url, "upgrade", "head")
    assert done.returncode != 0
    assert 'Nothing was changed: relation "tool_calls" already' in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert catalog(empty_url) == before


@ONE_MIGRATED
def test_there_is_no_way_back(url: str) -> None:
    done = alembic(url, "downgrade", "base")
    assert done.returncode != 0
    assert "restore a backup" in done.stderr
    with psycopg.connect(url) as connection:
        assert connection.execute("select count(*) from chatter.messages").fetchone() == (0,)


@ONE_MIGRATED
def test_alembic_prints_no_sql(url: str) -> None:
    done = alembic(url, "upgrade", "head", "--sql")
    assert done.returncode != 0
    assert "migrations/versions" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


# --- no database


@pytest.mark.parametrize("wrong", ["port", "password", "database", "user"])
def test_no_database_is_an_error_without_the_password(url: str, wrong: str) -> None:
    parts = psycopg.conninfo.conninfo_to_dict(url)
    values = {"user": "chatter", "password": parts["password"], "database": "tests"}
    values["port"] = str(parts["port"])
    values[wrong] = {"port": "1"}.get(wrong, "hunter2-wrong")
    if wrong != "password":
        values["password"] = "hunter2" if wrong == "port" else values["password"]
    wrong_url = "postgresql://{user}:{password}@127.0.0.1:{port}/{database}".format(**values)
    with pytest.raises(DatabaseUnavailable) as refused:
        migrating.migrate(wrong_url)
    assert str(values["password"]) not in str(refused.value)
    assert f"127.0.0.1:{values['port']}/{values['database']}" in str(refused.value)
    assert "CHATTER_DATABASE_URL" in str(refused.value)


def test_no_database_for_the_alembic_command() -> None:
    done = alembic("postgresql://ada:hunter2@127.0.0.1:1/nothing", "upgrade", "head")
    assert done.returncode != 0
    assert "No connection to Postgres at 127.0.0.1:1/nothing" in done.stdout + done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_owner_alone_migrates(empty_url: str, lowly: str) -> None:
    migrating.migrate(empty_url)
    with pytest.raises(errors.InsufficientPrivilege), psycopg.connect(lowly) as connection:
        connection.execute("select version_num from chatter.alembic_version")
