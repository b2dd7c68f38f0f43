"""Real Postgres for every test: one server per version, one migrated template, a clone per test."""

import base64
import gc
import hashlib
import hmac
import itertools
import os
import re
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace

import argon2
import certifi
import psycopg
import pytest
from psycopg import sql
from pytest_postgresql import factories

from chatter_db import Chatter, database, migrating
from chatter_db.accounts import passwords
from chatter_db.embedded import lease, wait_until_stopped
from chatter_db.queries import checks
from chatter_db.settings import settings
from tests import forked
from tests.forked import Run
from tests.providers import openai

# Makes a migrated database that is gone after the context, and says its URL.
Clone = Callable[[], AbstractContextManager[str]]

DEBIAN = Path("/usr/lib/postgresql")

LEFT = 4
"""Databases of tests that are over, on a server."""


def servers() -> dict[str, Path | None]:
    """What the tests run on, by name: the embedded Postgres 18, and Debian's 15 where it is.

    And what CHATTER_TEST_POSTGRES names: versions (`16`) as Debian installs them, or
    directories of binaries.
    """
    found: dict[str, Path | None] = {"pg18": None}
    if (DEBIAN / "15/bin/postgres").exists():
        found["pg15"] = DEBIAN / "15/bin"
    for named in os.environ.get("CHATTER_TEST_POSTGRES", "").split():
        binaries = DEBIAN / named / "bin" if named.isdigit() else Path(named)
        if not (binaries / "postgres").exists():
            raise pytest.UsageError(f"CHATTER_TEST_POSTGRES: there is no postgres in {binaries}.")
        found[f"pg{major_of(binaries)}"] = binaries
    return found


def major_of(binaries: Path) -> int:
    """The version of Postgres that these are."""
    said = subprocess.check_output([binaries / "postgres", "--version"], text=True)
    version = re.search(r"\(PostgreSQL\) (\d+)", said)
    assert version, said
    return int(version[1])


BINARIES = servers()
SERVERS = list(BINARIES)

# For what takes long and doesn't depend on Postgres's version.
ONE_SERVER = pytest.mark.parametrize("url", SERVERS[:1], indirect=True)


# Rooms and modules whose tests take half of the time, a tenth of all tests: browsers, faults,
# other programs, every version's upgrade. `make test-long`; elsewhere a test is marked by itself.
LONG = {
    *("browser", "chaos", "compare", "deploy", "examples", "fuzz", "pooler"),
    "analytics/test_frozen_worker.py",
    "embedded/test_embedded_lifetime.py",
    "events/test_crash.py",
    "events/test_whole_path.py",
    "migrations/test_operators_objects.py",
    "migrations/test_pg_upgrade.py",
    "migrations/test_upgrading.py",
    "races/test_random_interleavings.py",
    "recorder/test_forking.py",
    "recorder/test_hanging.py",
    "recorder/test_killed.py",
    "server/test_description.py",
    "server/test_logs.py",
    "server/test_two_servers.py",
    "sql/test_replica.py",
    "sql/test_restore.py",
    "sql/test_standby.py",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what is long."""
    here = Path(__file__).parent
    gone = [name for name in LONG if not (here / name).exists()]
    assert not gone, f"LONG names what is not there: {gone}"
    long = {here / name for name in LONG}
    for item in items:
        if long & {item.path, *item.path.parents}:
            item.add_marker("long")


def pytest_collection_finish() -> None:
    """What was imported stays: a tenth of the suite's time went into looking through it."""
    gc.collect()
    gc.freeze()


@contextmanager
def throwaway_server(binaries: Path | None = None, **more: str) -> Iterator[SimpleNamespace]:
    """A server of our own: in memory where there is room, and not durable; `more` settings."""
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    directory = Path(tempfile.mkdtemp(prefix="chatter-tests-", dir=base))
    directory.chmod(0o755)
    settings = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", **more}
    try:
        with lease(directory / "data", binaries, settings=settings) as server:
            password = str(psycopg.conninfo.conninfo_to_dict(server.url)["password"])
            with psycopg.connect(server.url, autocommit=True) as admin:
                admin.execute(
                    sql.SQL("alter role chatter password {}").format(quick_verifier(password))
                )
            # The shape pytest-postgresql wants of a server it depends on.
            yield SimpleNamespace(
                host="127.0.0.1",
                port=server.port,
                user="chatter",
                password=password,
                options="",
                maintenance_dbname="postgres",
                template_dbname=None,
                dbname="tests",
            )
        wait_until_stopped(directory / "data")
    finally:
        shutil.rmtree(directory)


def quick_verifier(password: str) -> str:
    """What Postgres keeps of a password, at the least work a connection can cost both sides.

    The 4,096 rounds of SCRAM are half of what it takes to connect
    (https://www.postgresql.org/docs/current/catalog-pg-authid.html).
    """
    salt, rounds = b"tests", 1
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(each).decode() for each in (salt, stored, server)]
    return "SCRAM-SHA-256${}:{}${}:{}".format(rounds, *encoded)


def migrate_template(**connection: str | int) -> None:
    """Migrates the template database, as a user would."""
    url = "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**connection)
    migrating.migrate(url)
    # A third of its files is what migrations have replaced; every test's clone is a copy of them.
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("vacuum full")


def server_fixture(name: str) -> Callable[..., Iterator[SimpleNamespace]]:
    """The fixture `name`: that server, as long as the tests run."""

    @pytest.fixture(scope="session", name=name)
    def server() -> Iterator[SimpleNamespace]:
        with throwaway_server(BINARIES[name]) as running:
            yield running

    return server


def clone_fixture(name: str) -> Callable[..., Iterator[Clone]]:
    """The fixture `clone_...`: migrated databases there, made over one connection that stays."""

    @pytest.fixture(scope="session", name=f"clone_{name}")
    def clones(request: pytest.FixtureRequest) -> Iterator[Clone]:
        server = request.getfixturevalue(f"template_{name}")
        base = f"postgresql://{server.user}:{server.password}@{server.host}:{server.port}"
        numbers = itertools.count(1)
        left: deque[str] = deque()
        with psycopg.connect(f"{base}/postgres", autocommit=True) as admin:

            @contextmanager
            def clone() -> Iterator[str]:
                database = f"tests_{next(numbers)}"
                # In memory and not durable a copy of the files is cheaper than one in the log.
                admin.execute(
                    sql.SQL("create database {} template {} strategy file_copy").format(
                        sql.Identifier(database), sql.Identifier(server.template_dbname)
                    )
                )
                yield f"{base}/{database}"
                # Dropped a little later: for a backend whose client has just gone Postgres would
                # wait a tenth of a second at a time.
                left.append(database)
                if len(left) > LEFT:
                    oldest = sql.Identifier(left.popleft())
                    admin.execute(sql.SQL("drop database {} with (force)").format(oldest))

            yield clone

    return clones


# pg18, template_pg18, clone_pg18, and so on: pytest finds fixtures by these names.
for each in SERVERS:
    globals()[each] = server_fixture(each)
    globals()[f"template_{each}"] = factories.postgresql_noproc(
        depends_on=each, load=[migrate_template]
    )
    globals()[f"clone_{each}"] = clone_fixture(each)


@pytest.fixture(params=SERVERS)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A migrated database of this test alone, on every server there is."""
    clone: Clone = request.getfixturevalue(f"clone_{request.param}")
    with clone() as url:
        yield url


@pytest.fixture
def db(url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """An autocommit connection to `url`, as the owner of the schema."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def chatter_command(tmp_path: Path) -> Run:
    """`chatter ARGUMENTS` with CHATTER_DATABASE_URL=url, in an empty directory and home."""

    def run(*arguments: str, url: str | None = None, **environment: str) -> CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("CHATTER_", "PG"))}
        given = {"CHATTER_DATABASE_URL": url} if url else {}
        own = {
            "HOME": str(tmp_path),
            "COLUMNS": "200",
            "CHATTER_SPOOL_DIR": str(tmp_path / "spool"),
        }
        return forked.run(["chatter", *arguments], kept | own | given | environment, tmp_path)

    return run


@pytest.fixture(autouse=True, scope="session")
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A certificate authority instead of 140: every client of a provider reads all of them."""
    roots = Path(certifi.where()).read_text("utf-8")
    first, end, _ = roots.partition("-----END CERTIFICATE-----")
    path = tmp_path_factory.mktemp("roots") / "one.pem"
    path.write_text(f"{first}{end}\n", "utf-8")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SSL_CERT_FILE", str(path))
        yield


@pytest.fixture(autouse=True)
def spool_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A spool of the test's own."""
    monkeypatch.setenv("CHATTER_SPOOL_DIR", str(tmp_path / "spool"))
    settings.cache_clear()
    yield tmp_path / "spool"
    settings.cache_clear()


@pytest.fixture(autouse=True)
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real argon2, at the least it can cost: else it would take a fifth of the suite's time."""
    quick = partial(argon2.PasswordHasher, time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(passwords, "PasswordHasher", quick)


@pytest.fixture
async def chatter(url: str) -> AsyncIterator[Chatter]:
    """The books at `url`, open."""
    async with Chatter.connect(url) as opened:
        yield opened
        assert opened.lost_records == 0


@pytest.fixture
def provider() -> Iterator[openai.Provider]:
    """An OpenAI-compatible provider on loopback."""
    with openai.running() as running:
        yield running


@pytest.fixture
def books_hold(url: str) -> Callable[[], None]:
    """Asserts that every check of the books finds nothing."""

    def assert_holds() -> None:
        engine = database.sync_engine(url)
        with engine.connect() as connection:
            for check in checks():
                assert connection.execute(check.statement).all() == [], check.title
        engine.dispose()

    return assert_holds
