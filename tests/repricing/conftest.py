from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection

from chatter_db.database import sync_engine
from tests.sql.books import Books


@pytest.fixture
def books(db: psycopg.Connection[Any]) -> Books:
    return Books(db)


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    engine = sync_engine(url)
    with engine.connect() as opened:
        yield opened
    engine.dispose()
