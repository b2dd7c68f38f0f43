"""JSON that Postgres holds and Python's own reader gives up on."""

import psycopg
from sqlalchemy import select

from chatter_db import Chatter, Conversation
from tests.conftest import ONE_SERVER


@ONE_SERVER
async def test_a_number_of_more_digits_than_python_reads(
    url: str, db: psycopg.Connection[tuple[object, ...]], chatter: Chatter
) -> None:
    db.execute("insert into chatter.conversations (metadata) values ('{\"a\": [7, 1e5000]}')")
    async with chatter.session() as session:
        found = (await session.scalars(select(Conversation))).one()
    assert found.extra == {"a": [7, f"1{'0' * 5000}"]}
    with chatter.sync_session() as session:
        assert session.scalars(select(Conversation)).one().extra == found.extra
