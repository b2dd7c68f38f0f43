"""A server that goes while a connection to it is made."""

from typing import Any

import psycopg
import pytest

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
