"""A Postgres that is there and doesn't answer: whoever asked a model goes on all the same."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chatter_db.recorder import connection, writer
from chatter_db.recorder.spool import open_spool
from chatter_db.recorder.writer import Writer
from tests.conftest import ONE_SERVER
from tests.polling import WAITS_FOR_A_LOCK, wait_until
from tests.pooler.pgbouncer import free_port
from tests.recorder.test_writer import booked_calls, message, start


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


@ONE_SERVER
def test_a_transaction_that_took_its_time_is_tried_again(
    url: str, db: psycopg.Connection[Any], books_hold: Callable[[], None]
) -> None:
    """Postgres 17 ends those of a session with transaction_timeout, and the session with them."""
    limited = f"{url}?options=-c%20transaction_timeout%3D200"
    booking = Writer(limited, open_spool("test"))
    run = start()
    booking.submit([run]).result(timeout=20)
    with db.transaction():
        db.execute("select chatter.lock_conversations(id) from chatter.conversations")
        booking.submit([message(run)]).result(timeout=20)
    booking.flush().result(timeout=20)
    booking.close()
    assert (booking.lost, booking.reduced) == (0, 0)
    assert booked_calls(db) == [(1, 10)]
    books_hold()


FROZEN = """
import os, signal, sys
from chatter_db.recorder import booking, connection
from chatter_db.recorder.spool import open_spool
from chatter_db.recorder.writer import Writer
from tests.conftest import ONE_SERVER
from tests.recorder.test_writer import message, start

connection.FROZEN_SECONDS = 1
writer = Writer(sys.argv[1], open_spool("frozen"))
run = start()
writer.submit([run]).result()
as_json = booking.as_json

def in_the_middle(records):
    if type(records[0]).__name__ == "MessageRow":
        booking.as_json = as_json
        os.kill(os.getpid(), signal.SIGSTOP)
    return as_json(records)

booking.as_json = in_the_middle
writer.submit([message(run), message(run)]).result()
writer.flush().result()
writer.close()
print(writer.lost, writer.reduced)
"""


@ONE_SERVER  # of before 17 nobody ends it
def test_a_process_that_is_frozen_in_a_transaction_holds_nobody_up(
    url: str, db: psycopg.Connection[Any], books_hold: Callable[[], None]
) -> None:
    command = [sys.executable, "-c", FROZEN, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as frozen:
        try:
            assert os.WIFSTOPPED(os.waitpid(frozen.pid, os.WUNTRACED)[1])
            db.execute("set statement_timeout = '10s'")
            db.execute("select chatter.lock_conversations(id) from chatter.conversations")
        finally:
            frozen.send_signal(signal.SIGCONT)
        assert frozen.communicate(timeout=20)[0] == "0 0\n"
    assert booked_calls(db) == [(2, 20)]
    books_hold()


def waiting(url: str) -> int:
    with psycopg.connect(url) as watching:
        return len(watching.execute(WAITS_FOR_A_LOCK).fetchall())


def test_it_is_tried_again_when_that_was_said_however_much_is_recorded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A line and an attempt for every call would fill the log, and keep a server from coming up."""
    nobody = f"postgresql://127.0.0.1:{free_port()}/nobody"
    run = start()
    with closing(Writer(nobody, open_spool("test"))) as booking:
        begin = time.monotonic()
        while (passed := time.monotonic() - begin) < 2:
            booking.submit([message(run)]).result(timeout=20)
        pauses = [float(said.group(1)) for said in re.finditer(r"Next try in (\S+) s", caplog.text)]
        assert pauses == sorted(pauses)
        assert len(pauses) >= 2
        assert sum(pauses[:-1]) <= passed
        # Who asks for the books asks for an attempt.
        begin = time.monotonic()
        booking.flush().result(timeout=20)
        assert time.monotonic() - begin < 1
    assert booking.lost == 0
