"""A real server on loopback, and clients of it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn.server

from chatter_db import Chatter
from chatter_db.accounts import Accounts, Identity
from chatter_db.models import UserRole
from chatter_db.server.serving import listen
from chatter_db.server.serving import server as make_server
from tests.conftest import Clone

PASSWORD = "correct horse battery staple"


class Impatient:
    """asyncio for uvicorn, which looks every tenth of a second whether it may end, and has ended.

    With every server of these tests that is a tenth of the whole suite's time.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 20)


vars(uvicorn.server)["asyncio"] = Impatient()


@asynccontextmanager
async def serving(chatter: Chatter, port: int = 0) -> AsyncIterator[str]:
    """uvicorn on loopback, on a free port if none is given; its address."""
    listener = listen("127.0.0.1", port)
    server = make_server(chatter, access_log=False)
    task = asyncio.create_task(server.serve([listener]))
    while not server.started:
        assert not task.done(), task.exception()
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


@dataclass
class Person:
    """A user with an API key, and a client that sends it."""

    identity: Identity
    http: httpx.AsyncClient
    secret: str


@dataclass
class Site:
    """The server, and a way to get people on it."""

    address: str
    accounts: Accounts
    open: list[httpx.AsyncClient]

    async def person(self, name: str, role: UserRole = "user") -> Person:
        identity = await self.accounts.create_user(name, password=PASSWORD, role=role)
        key = await self.accounts.keys.create(identity.user_id, "test")
        return Person(identity, self.client(Authorization=f"Bearer {key.secret}"), key.secret)

    def client(self, **headers: str) -> httpx.AsyncClient:
        client = httpx.AsyncClient(base_url=self.address, headers=headers, timeout=30)
        self.open.append(client)
        return client


@pytest.fixture
def url(clone_pg18: Clone) -> Iterator[str]:
    """One Postgres is enough: what HTTP tells doesn't depend on its version."""
    with clone_pg18() as url:
        yield url


@pytest.fixture
async def site(chatter: Chatter) -> AsyncIterator[Site]:
    async with serving(chatter) as address:
        site = Site(address, Accounts(chatter), [])
        yield site
        for client in site.open:
            await client.aclose()


@pytest.fixture
async def ada(site: Site) -> Person:
    return await site.person("ada")


@pytest.fixture
async def bob(site: Site) -> Person:
    return await site.person("bob")


@pytest.fixture
async def admin(site: Site) -> Person:
    return await site.person("root", role="admin")
