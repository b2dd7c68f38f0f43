"""What a lease gives, and that everybody gets the same server."""

import os
import socket
import stat
import struct
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from chatter_db import database
from chatter_db.embedded import Server, lease, wait_until_stopped
from chatter_db.errors import DatabaseUnavailable, EmbeddedServerError
from chatter_db.settings import settings as configured
from tests.polling import wait_until

from .processes import UNSAFE, Holder, answers, command_lines, environment, supervisor_pids

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
EXPECTED = {
    "select current_database()": "chatter",
    "select current_user": "chatter",
    "select pg_get_userbyid(datdba) from pg_database where datname = 'chatter'": "chatter",
    "select rolsuper::text from pg_roles where rolname = 'chatter'": "true",
    "select string_agg(distinct auth_method, ',') from pg_hba_file_rules": "scram-sha-256",
    "select left(rolpassword, 13) from pg_authid where rolname = 'chatter'": "SCRAM-SHA-256",
    "show server_encoding": "UTF8",
    "show timezone": "UTC",
    "show log_timezone": "UTC",
    "show listen_addresses": "127.0.0.1",
    "show unix_socket_directories": "",
    "show work_mem": "7MB",
    "show fsync": "off",
}


def answer(server: Server, query: str) -> object:
    with psycopg.connect(server.url) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


@pytest.fixture(params=["wheel", "debian"])
def bin_dir(request: pytest.FixtureRequest) -> Path | None:
    if request.param == "wheel":
        return None
    if not (DEBIAN_15 / "postgres").exists():
        pytest.skip(f"no binaries in {DEBIAN_15}")
    return DEBIAN_15


@contextmanager
def asking_for_the_password() -> Iterator[tuple[int, list[bytes]]]:
    """A program that would have the password in clear: its port, and what it was told."""
    told: list[bytes] = []

    def answer() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # closed
                return
            with client:
                client.recv(1000)
                client.sendall(b"R" + struct.pack("!ii", 8, 3))  # AuthenticationCleartextPassword
                told.append(client.recv(1000))

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        pool.submit(answer)
        try:
            yield listener.getsockname()[1], told
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def test_who_has_taken_the_port_is_not_told_the_password(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHATTER_DATA_DIR", str(data_dir))
    monkeypatch.delenv("CHATTER_DATABASE_URL", raising=False)
    configured.cache_clear()
    with lease(data_dir, settings=UNSAFE) as server, database.database_url() as url:
        database.connect(url).close()
    with asking_for_the_password() as (port, told), pytest.raises(DatabaseUnavailable):
        database.connect(url.replace(f":{server.port}/", f":{port}/"))
    assert told == [b""]


def test_makes_a_cluster(bin_dir: Path | None, directory: Path) -> None:
    data_dir = directory / "parent" / "data"
    # Where it listens is no setting: nobody else is to reach it.
    settings = UNSAFE | {"work_mem": "7MB", "listen_addresses": "*"}
    with lease(data_dir, bin_dir, settings=settings) as server:
        assert {query: answer(server, query) for query in EXPECTED} == EXPECTED
        assert str(answer(server, "show server_version")).split()[0] == server.version
        assert server.bin_dir == bin_dir or (bin_dir is None and server.version[:3] == "18.")
        assert (server.bin_dir / "initdb").exists()
        assert server.data_dir == data_dir
        assert b"ready to accept connections" in server.log_file.read_bytes()
        if bin_dir is None:
            locale = "select datlocprovider::text || datlocale from pg_database where datname = "
            assert answer(server, locale + "current_database()") == "bC.UTF-8"
    wait_until_stopped(data_dir)


def test_stops_after_the_last_lease_and_keeps_the_data(data_dir: Path) -> None:
    with lease(data_dir) as server:
        assert answer(server, "show fsync") == "on"
    wait_until_stopped(data_dir, timeout=1.0)
    assert not answers(server.port)
    wait_until(lambda: not supervisor_pids(data_dir), "supervisor gone")
    with lease(data_dir, settings=UNSAFE) as again:
        assert answer(again, "select word from kept") == "still here"
        assert again.password == server.password


def test_password_is_secret(data_dir: Path) -> None:
    with lease(data_dir, settings=UNSAFE) as server:
        assert len(server.password) >= 32
        assert server.password in server.url
        assert server.password not in repr(server)
        assert server.password not in command_lines()
        assert server.password not in server.log_file.read_text()
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode)
            for path in data_dir.iterdir()
            if path.name in ("password", "cluster", "server.log")
        }
        assert modes == {"password": 0o600, "cluster": 0o700, "server.log": 0o600}
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.url.replace(server.password, "guess"))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_server_learns_no_secret_of_its_user(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    pid = "split_part(pg_read_file('postmaster.pid'), chr(10), 1)"
    query = f"select pg_read_binary_file('/proc/' || {pid} || '/environ', 0, 100000)"
    with lease(data_dir, settings=UNSAFE) as server:
        environment = answer(server, query)
    assert isinstance(environment, bytes)
    assert b"PATH=" in environment
    assert b"secret" not in environment


def test_one_process_may_ask_twice(data_dir: Path) -> None:
    with lease(data_dir, settings=UNSAFE) as first:
        with lease(data_dir) as second:
            assert second == first
        assert answer(first, "select 1") == 1
    with pytest.raises(EmbeddedServerError, match="still runs"), lease(data_dir):
        wait_until_stopped(data_dir, timeout=0.0)


def test_threads_share_a_server(data_dir: Path) -> None:
    def use(_: int) -> tuple[int, list[int]]:
        with lease(data_dir, settings=UNSAFE) as server:
            assert answer(server, "select 1") == 1
            return server.port, supervisor_pids(data_dir)

    with lease(data_dir, settings=UNSAFE), ThreadPoolExecutor(6) as pool:
        used = list(pool.map(use, range(6)))
    assert len({port for port, _ in used}) == 1
    assert {len(supervisors) for _, supervisors in used} == {1}


def test_processes_share_a_server(directory: Path, hold: Callable[..., Holder]) -> None:
    data_dir = directory / "data"
    first, second = [hold(data_dir) for _ in range(2)]
    assert first.ready().url == second.ready().url
    assert first.end() == ""
    with lease(data_dir) as server, psycopg.connect(server.url):
        assert server.url == second.url
        assert second.end() == ""
        assert answer(server, "select 1") == 1


def test_quick_turns_never_meet_a_stopping_server(data_dir: Path) -> None:
    def turns(_: int) -> int:
        answers = 0
        for _ in range(5):
            with lease(data_dir, settings=UNSAFE) as server:
                answers += answer(server, "select 1") == 1
        return answers

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(turns, range(2))) == [5, 5]


@pytest.fixture
def fresh_settings() -> Iterator[None]:
    configured.cache_clear()
    yield
    configured.cache_clear()


def test_places_come_from_the_settings(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, fresh_settings: None
) -> None:
    monkeypatch.setenv("CHATTER_DATA_DIR", str(data_dir))
    monkeypatch.setenv("CHATTER_POSTGRES_BIN", "/nowhere")
    with pytest.raises(EmbeddedServerError, match=r"/nowhere.*CHATTER_POSTGRES_BIN"), lease():
        pass
    configured.cache_clear()
    monkeypatch.delenv("CHATTER_POSTGRES_BIN")
    with lease(settings=UNSAFE) as server:
        assert server.data_dir == data_dir


@pytest.mark.parametrize("home", [{}, {"HOME": ""}])
def test_needs_no_home(home: dict[str, str], data_dir: Path, hold: Callable[..., Holder]) -> None:
    assert hold(data_dir, env=environment(**home)).ready().end() == ""


def test_forked_child_shares_the_lease(data_dir: Path) -> None:
    told, tell = os.pipe()
    with lease(data_dir, settings=UNSAFE) as server:
        child = os.fork()
        if child == 0:
            os.close(tell)
            os.read(told, 1)
            os._exit(0)
    os.close(told)
    with pytest.raises(EmbeddedServerError, match="still runs"):
        wait_until_stopped(data_dir, timeout=0.2)
    assert answer(server, "select 1") == 1
    os.close(tell)
    os.waitpid(child, 0)
    wait_until_stopped(data_dir)


def test_long_log_is_set_aside(data_dir: Path) -> None:
    log = data_dir / "server.log"
    with log.open("ab") as file:
        file.truncate(11_000_000)
    with lease(data_dir, settings=UNSAFE):
        assert log.stat().st_size < 100_000
    assert log.with_name("server.log.old").stat().st_size == 11_000_000
