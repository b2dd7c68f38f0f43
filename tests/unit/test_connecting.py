"""A server that goes while a connection to it is made."""

import asyncio
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from chatter_db import Chatter, DatabaseUnavailable, database
from tests.conftest import ONE_SERVER


@ONE_SERVER
def test_cut_after_signing_in(
    url: str, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLAlchemy has questions to the server before anybody has the connection."""
    connect = database.connect

    def cut(url: str) -> psycopg.Connection[Any]:
        connection = connect(url)
        db.execute("select pg_terminate_backend(%s)", [connection.info.backend_pid])
        return connection

    monkeypatch.setattr(database, "connect", cut)
    lost = r"Lost the connection to Postgres at 127\.0\.0\.1"
    with pytest.raises(DatabaseUnavailable, match=lost), Chatter.connect(url):
        pass


@ONE_SERVER
async def test_cut_while_asyncpg_sets_its_codecs(
    url: str, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's answer to a request is then 503, as it is for any lost connection."""
    connect = asyncpg.connect

    async def cut(*place: Any, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
        connection: asyncpg.Connection[asyncpg.Record] = await connect(*place, **options)
        db.execute("select pg_terminate_backend(%s)", [connection.get_server_pid()])
        while not connection.is_closed():
            await asyncio.sleep(0.01)
        return connection

    with Chatter.connect(url) as chatter:
        monkeypatch.setattr(asyncpg, "connect", cut)
        with pytest.raises(DBAPIError) as raised:
            async with chatter.session() as session:
                await session.scalar(select(1))
        assert raised.value.connection_invalidated
