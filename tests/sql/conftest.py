"""One migrated database a server for all tests that leave the books right."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.conftest import SERVERS, Clone

from .books import Books


@pytest.fixture(scope="session", params=SERVERS)
def shared_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A migrated database that many tests share, each with conversations of its own."""
    clone: Clone = request.getfixturevalue(f"clone_{request.param}")
    with clone() as url:
        yield url


@pytest.fixture
def books(shared_url: str) -> Iterator[Books]:
    """The books, as the owner, over an autocommit connection; they must be right after the test."""
    with psycopg.connect(shared_url, autocommit=True) as connection:
        client = Books(connection)
        yield client
        if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            connection.rollback()
        assert client.findings() == {}


@pytest.fixture
def own_books(db: psycopg.Connection[tuple[object, ...]]) -> Books:
    """The books in a database of this test alone, which may end up wrong."""
    return Books(db)
