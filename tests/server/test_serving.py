"""The server process: the sockets it takes its clients from, the worker beside it."""

import asyncio
import contextlib
import socket
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from chatter_db.server.serving import listen
from tests.conftest import ONE_SERVER
from tests.forked import Run
from tests.server.processes import process, served


def test_an_answer_is_not_held_back() -> None:
    """By Nagle's algorithm, for the 40 ms that a client takes to acknowledge its beginning."""
    with listen("127.0.0.1", 0) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        with client, accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6 here")
@pytest.mark.parametrize(
    ("host", "reached"), [("::1", ["::1"]), ("::", ["::1", "127.0.0.1"])], ids=["one", "all"]
)
def test_an_address_of_ipv6_is_listened_on(host: str, reached: list[str]) -> None:
    with listen(host, 0) as listener:
        for address in reached:
            socket.create_connection((address, listener.getsockname()[1])).close()


@pytest.fixture
def app_login(url: str, db: psycopg.Connection[Any]) -> Any:
    """A URL for a login with chatter_app alone, whose name needs quotes."""
    name = f"App {uuid4().hex[:8]}"
    db.execute(
        sql.SQL("create role {} login password 'app' in role chatter_app").format(
            sql.Identifier(name)
        )
    )
    parts = conninfo_to_dict(url)
    base = f"{parts['host']}:{parts['port']}/{parts['dbname']}"
    yield name, f"postgresql://{name.replace(' ', '%20')}:app@{base}"
    db.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


async def test_a_worker_without_its_rights_says_so_and_what_to_grant(
    app_login: tuple[str, str], db: psycopg.Connection[Any]
) -> None:
    name, url = app_login
    grant = f'grant chatter_worker to "{name}"'
    async with process(url, "serve", "--port", "0") as running:  # ends without a traceback
        site = await served(running)
        await running.says(grant.replace('"', '\\"'))
        async with httpx.AsyncClient(base_url=site.address) as http:
            ready = await http.get("/readyz")
            assert ready.status_code == 200
            # Nothing of it is told to who has not signed in.
            (reason,) = ready.json()["reasons"]
            assert "its log says why" in reason
            assert name not in reason


def test_chatter_worker_without_its_rights_is_a_message_and_not_a_traceback(
    app_login: tuple[str, str], chatter_command: Run
) -> None:
    name, url = app_login
    ended = chatter_command("worker", url=url)
    assert ended.returncode == 2
    assert "It takes a login" not in ended.stderr  # it says itself what to do
    assert f'grant chatter_worker to "{name}"' in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_a_plain_user_who_is_called_admin_is_none_and_that_is_said(
    url: str, db: psycopg.Connection[Any], chatter_command: Run
) -> None:
    db.execute("insert into chatter.users (external_id) values ('admin')")
    async with process(url, "serve", "--port", "0", "--no-worker") as running:
        site = await served(running)
        assert site.key is None
        (said,) = [line for line in running.said if "There is no admin" in line]
        assert "`chatter key NAME --admin`" in said
        made = await asyncio.to_thread(chatter_command, "key", "root", "--admin", url=url)
        key = {"Authorization": f"Bearer {made.stdout.strip()}"}
        async with httpx.AsyncClient(base_url=site.address, headers=key) as http:
            assert (await http.get("/api/auth/me")).json()["role"] == "admin"
    async with process(url, "serve", "--port", "0", "--no-worker") as running:
        await served(running)
        assert not any("There is no admin" in line for line in running.said)
    assert db.execute("select role from chatter.users where external_id = 'admin'").fetchone() == (
        "user",
    )


@pytest.mark.parametrize(
    "before",
    [
        b"GET /healthz HTTP/1.1\r\nHost: test\r\nX: ",
        b"GET /",
        b"POST /api/auth/login HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1\r\n{\r\n0\r\nX: ",
    ],
    ids=["header", "line", "trailer"],
)
@ONE_SERVER
async def test_a_head_has_an_end(url: str, before: bytes) -> None:
    async with process(url, "serve", "--port", "0", "--no-worker") as running:
        server = httpx.URL((await served(running)).address)
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(before)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof() and sent < 20_000_000:
                writer.write(b"a" * 10_000)
                await writer.drain()
                sent += 10_000
                await asyncio.sleep(0.001)
        writer.close()
        assert sent < 20_000_000
        async with httpx.AsyncClient(base_url=server) as client:
            most = {"X": "a" * 60_000}
            for _ in range(2):
                assert (await client.get("/healthz", headers=most)).status_code == 200
