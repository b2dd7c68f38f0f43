"""Operators at work: a schema that is away for a while, a spool that is removed under a process."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from chatter_db.recorder import writer as writer_module
from chatter_db.recorder.spool import open_spool
from chatter_db.recorder.writer import Writer
from tests.conftest import ONE_SERVER
from tests.recorder.test_writer import booked_calls, message, start, wait_until


@contextmanager
def schema_away(db: psycopg.Connection[Any]) -> Iterator[None]:
    """As between `createdb` and the end of `pg_restore`."""
    db.execute("alter schema chatter rename to elsewhere")
    yield
    db.execute("alter schema elsewhere rename to chatter")


def test_what_comes_while_the_schema_is_away_waits_for_it(
    url: str, db: psycopg.Connection[Any], books_hold: Callable[[], None]
) -> None:
    writer = Writer(url, open_spool("test"))
    before, after = start(), start(conversation_external_id="d")
    writer.submit([before]).result(timeout=20)
    with schema_away(db):
        for records in ([message(before)], [after], [message(after)]):
            writer.submit(records).result(timeout=20)
    writer.close()
    Writer(url, open_spool("test")).close()
    assert (writer.lost, writer.reduced) == (0, 0)
    assert booked_calls(db) == [(2, 20)]
    books_hold()


@ONE_SERVER
def test_a_heartbeat_that_fails_has_its_time_all_the_same(
    url: str,
    db: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It was told again at once, for ever, each time with a traceback."""
    monkeypatch.setattr(writer_module, "HEARTBEAT_SECONDS", 0.2)
    writer = Writer(url, open_spool("test"))
    writer.submit([start()]).result(timeout=20)
    # What no writer waits for.
    db.execute("alter table chatter.recorders add check (host is null) not valid")
    with caplog.at_level(logging.WARNING):
        wait_until(lambda: bool(caplog.records))
        time.sleep(1)
    assert len(caplog.records) < 10
    db.execute("alter table chatter.recorders drop constraint recorders_host_check")
    writer.close()
