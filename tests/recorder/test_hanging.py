"""A Postgres that is there and doesn't answer: whoever asked a model goes on all the same."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chatter_db.recorder import connection, writer
from chatter_db.recorder.spool import open_spool
from chatter_db.recorder.writer import Writer
from tests.recorder.test_writer import booked_calls, message, start, wait_until


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "ANSWER_SECONDS", 0.4)
    monkeypatch.setattr(writer, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr(writer, "RETRY_FOR_SECONDS", 0.2)
    monkeypatch.setattr(connection, "CANCEL_SECONDS", 0.3)


@pytest.mark.parametrize("together", [1, 2], ids=["a statement", "a pipeline"])
def test_while_somebody_holds_the_conversation(
    url: str,
    db: psycopg.Connection[Any],
    spool_dir: Path,
    books_hold: Callable[[], None],
    together: int,
) -> None:
    booking = Writer(url, open_spool("test"))
    run = start()
    booking.submit([run]).result(timeout=20)
    with db.transaction():
        db.execute("select chatter.lock_conversations(id) from chatter.conversations")
        begin = time.monotonic()
        for _ in range(3):
            booking.submit([message(run) for _ in range(together)]).result(timeout=20)
        # Whoever comes later waits no longer than it takes to see that it is still so.
        assert time.monotonic() - begin < 15
        assert len(list(spool_dir.glob("*/*.jsonl"))) == 1
        # Nobody is left behind who waits for the lock, one for each attempt.
        wait_until(lambda: waiting(url) <= 1)
    wait_until(lambda: not list(spool_dir.glob("*/*.jsonl")))
    booking.close()
    assert booking.lost == 0
    assert booked_calls(db) == [(3 * together, 30 * together)]
    books_hold()


def test_while_its_server_process_is_frozen(
    url: str, db: psycopg.Connection[Any], books_hold: Callable[[], None]
) -> None:
    booking = Writer(url, open_spool("test"))
    run = start()
    booking.submit([run]).result(timeout=20)
    (pid,) = db.execute(
        "select pid from pg_stat_activity where application_name = 'chatter'"
        " and datname = current_database()"
    ).fetchone() or (0,)
    os.kill(pid, signal.SIGSTOP)
    try:
        booking.submit([message(run)]).result(timeout=20)
        # Over another connection meanwhile.
        wait_until(lambda: booked_calls(db) == [(1, 10)])
    finally:
        os.kill(pid, signal.SIGCONT)
    booking.submit([message(run)]).result(timeout=20)
    booking.close()
    # What the frozen one had been told before is not booked twice.
    assert booked_calls(db) == [(2, 20)]
    books_hold()


def waiting(url: str) -> int:
    with psycopg.connect(url) as watching:
        (count,) = watching.execute(
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
            " and datname = current_database()"
        ).fetchone() or (0,)
    return int(count)
