"""A crash of Postgres gives ids of transactions out once more: no position may skip those."""

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chatter_db import migrating
from chatter_db.embedded import lease, wait_until_stopped
from chatter_db.embedded.data_dir import DataDir


@pytest.fixture
def data() -> Iterator[Path]:
    # Postgres may run as another user, who can't enter pytest's directories.
    with tempfile.TemporaryDirectory(prefix="chatter-tests-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory) / "data"
        wait_until_stopped(Path(directory) / "data")


def next_id(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(
        "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
    ).fetchone()
    assert row is not None
    return int(row[0])


# Nothing may write an id to disk before the crash: no record of what runs, no vacuum, and the
# log's writer rests for as long as it can.
QUIET = {
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "wal_writer_delay": "10s",
}


def test_events_after_a_crash_reach_readers_from_before_it(data: Path) -> None:
    with ExitStack() as leases:
        url = leases.enter_context(lease(data, settings=QUIET)).url
        migrating.migrate(url)
        with psycopg.connect(url, autocommit=True) as db:
            db.execute("insert into chatter.conversations (external_id) values ('c')")
            # Ids of which nothing is ever written to disk.
            for _ in range(50):
                with db.transaction(force_rollback=True):
                    db.execute("select pg_current_xact_id()")
            (now,) = db.execute("select chatter.events_now()").fetchone()  # type: ignore[misc]
            ((read,),) = db.execute("select position from chatter.events_after(null)").fetchall()
            before = next_id(db)
            postmaster = DataDir(data).postmaster()
            assert postmaster is not None
            os.kill(postmaster.pid, signal.SIGKILL)
        wait_until_stopped(data)

        with psycopg.connect(leases.enter_context(lease(data)).url, autocommit=True) as db:
            assert next_id(db) < before, "the crash took no ids back: this test tests nothing"
            db.execute(
                "insert into chatter.messages (conversation_id, role) "
                "select id, 'user' from chatter.conversations"
            )
            for position in (now, read):
                told = db.execute(
                    "select event_type from chatter.events_after(%s)", [position]
                ).fetchall()
                assert ("message_created",) in told
