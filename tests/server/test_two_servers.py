"""Two server processes on one database behave as one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import psycopg
import pytest

from tests.server.conftest import PASSWORD
from tests.server.processes import Served, process, served
from tests.server.test_events import stream

QUESTION = {"content": "What is 6 * 7?"}


class Pair:
    """Servers A and B, started together, and clients of theirs."""

    def __init__(self, stack: AsyncExitStack, servers: list[Served]) -> None:
        self._stack = stack
        self.servers = servers
        (self.key,) = [server.key for server in servers if server.key]

    async def clients(self, **headers: str) -> list[httpx.AsyncClient]:
        """A client of A and one of B that send the same headers."""
        return [
            await self._stack.enter_async_context(
                httpx.AsyncClient(base_url=server.address, headers=headers, timeout=30)
            )
            for server in self.servers
        ]

    async def admins(self) -> list[httpx.AsyncClient]:
        return await self.clients(Authorization=f"Bearer {self.key}")

    async def user(self, name: str) -> None:
        """A new user with a password, made at A."""
        a, _ = await self.admins()
        made = await a.post("/api/auth/users", json={"user": name, "password": PASSWORD})
        assert made.status_code == 201, made.text

    async def signed_in(self, name: str) -> list[httpx.AsyncClient]:
        """Clients of A and B with the cookie that A gave."""
        a, b = await self.clients()
        await self.user(name)
        assert (await login(a, name, PASSWORD)).status_code == 200
        b.cookies.update(a.cookies)
        return [a, b]


async def login(client: httpx.AsyncClient, user: str, password: str) -> httpx.Response:
    return await client.post("/api/auth/login", json={"user": user, "password": password})


async def conversation(client: httpx.AsyncClient) -> str:
    made = await client.post("/api/conversations", json={"title": "Sums"})
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


@pytest.fixture
def environment() -> dict[str, str]:
    return {}


@pytest.fixture
async def pair(url: str, environment: dict[str, str]) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        running = [
            await stack.enter_async_context(process(url, "serve", "--port", "0", **environment))
            for _ in range(2)
        ]
        yield Pair(stack, list(await asyncio.gather(*map(served, running))))


async def test_a_session_of_one_is_good_at_the_other_until_it_ends(pair: Pair) -> None:
    a, b = await pair.signed_in("ada")
    assert (await b.get("/api/auth/me")).json()["user"] == "ada"
    assert (await b.post("/api/auth/logout")).status_code == 204
    assert (await a.get("/api/auth/me")).status_code == 401


async def test_what_is_made_through_one_is_seen_through_the_other(
    pair: Pair, books_hold: Callable[[], None]
) -> None:
    a, b = await pair.signed_in("ada")
    made = await conversation(a)
    assert (await b.get(f"/api/conversations/{made}")).json()["title"] == "Sums"
    path = f"/api/conversations/{made}/messages"
    answers = await asyncio.gather(*(client.post(path, json=QUESTION) for client in (a, b) * 4))
    assert {answer.status_code for answer in answers} == {200}
    for client in (a, b):
        shown = (await client.get(f"/api/conversations/{made}")).json()
        assert shown["message_count"] == 16
    told = [(await client.get("/api/overview?range=all")).json() for client in (a, b)]
    assert told[0]["over_time"] == told[1]["over_time"]
    assert sum(row["calls"] for row in told[0]["over_time"]) == 16
    books_hold()


async def test_one_key_is_one_run_whoever_is_asked(pair: Pair, db: psycopg.Connection[Any]) -> None:
    a, b = await pair.signed_in("ada")
    path = f"/api/conversations/{await conversation(a)}/messages"
    key = {"Idempotency-Key": "once"}
    answers = await asyncio.gather(
        *(client.post(path, json=QUESTION, headers=key) for client in (a, b) * 3)
    )
    # Who comes while it is being answered is told so.
    assert {answer.status_code for answer in answers} <= {200, 409}
    again = [await client.post(path, json=QUESTION, headers=key) for client in (a, b)]
    assert again[0].json() == again[1].json()
    assert db.execute("select count(*) from chatter.workflow_executions").fetchone() == (1,)


async def test_an_event_of_one_reaches_the_listeners_of_the_other(pair: Pair) -> None:
    a, b = await pair.signed_in("ada")
    async with stream(b, category="conversation") as told:
        begun = await told.next("position")
        made = [await conversation(a)]
        first = await told.next("conversation_created")
        made.append(await conversation(b))
        second = await told.next("conversation_created")
    assert [first.data["conversation_id"], second.data["conversation_id"]] == made
    # A position of B's stream is one of A's, too.
    for position, expected in ((begun.id, made), (first.id, made[1:])):
        async with stream(a, position, category="conversation") as told:
            seen = [(await told.next("conversation_created")).data for _ in expected]
            assert [event["conversation_id"] for event in seen] == expected


async def test_failures_at_both_count_together_and_block_at_both(
    pair: Pair, db: psycopg.Connection[Any]
) -> None:
    await pair.user("ada")
    a, b = await pair.clients()
    for client in (a, b, a, b, a):
        assert (await login(client, "ada", "not the password")).status_code == 401
    for client in (a, b):
        assert (await login(client, "ada", PASSWORD)).status_code == 429
    alerts = db.execute("select rule_name, events from chatter.alerts").fetchall()
    assert alerts == [("failed_logins_per_user", 5)]


@pytest.mark.parametrize("environment", [{"CHATTER_REQUESTS_PER_MINUTE": "1"}])
async def test_requests_are_counted_by_each_and_refusals_by_both(
    pair: Pair, db: psycopg.Connection[Any]
) -> None:
    """The limit of requests is a process's own, as the README says; the alert is everybody's."""
    db.execute(
        "update chatter.security_rules set threshold = 2 where name = 'rate_limits_per_address'"
    )
    a, b = await pair.admins()
    assert [(await a.get("/api/auth/me")).status_code for _ in range(2)] == [200, 429]
    assert (await b.get("/api/auth/me")).status_code == 200
    assert db.execute("select count(*) from chatter.alerts").fetchone() == (0,)
    assert (await b.get("/api/auth/me")).status_code == 429
    alerts = db.execute("select rule_name, events from chatter.alerts").fetchall()
    assert alerts == [("rate_limits_per_address", 2)]
