"""One thread's way into the books: what is tried again, how often, and the heartbeat beside it."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
import psycopg
import pytest

from chatter_db.errors import DatabaseUnavailable
from chatter_db.recorder import begun, booking
from chatter_db.recorder.begun import Begun
from chatter_db.recorder.booking import Booking
from chatter_db.recorder.records import RunEnded
from tests.conftest import ONE_SERVER
from tests.polling import wait_until_blocked
from tests.recorder.test_writer import message, start


@contextmanager
def closing_down(opened: Booking) -> Iterator[Booking]:
    try:
        yield opened
    finally:
        opened.close(within=5)


def test_the_starts_of_runs_that_go_on_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(begun, "MAX_RUNS", 2)
    oldest, ended, named, unnamed = (
        start(conversation_id=each) for each in (None, None, uuid4(), None)
    )
    end = RunEnded(execution_id=ended.execution_id, status="failed", finished_at=datetime.now(UTC))
    noted = Begun()
    # An end may come again, and from a run that began elsewhere.
    noted.note([oldest, named, unnamed, ended, end, end])
    calls = [message(run) for run in (oldest, ended, named, unnamed)]
    # By its id the conversation of one may be lost as well.
    again = msgspec.structs.replace(named, new_conversation=True)
    assert noted.starts_of(calls) == [again, unnamed]
    assert noted.starts_of([named, *calls]) == [unnamed]


def test_a_postgres_that_hangs_up_is_asked_ever_less_often() -> None:
    asked = 0

    def hang_up() -> None:
        nonlocal asked
        with suppress(OSError):
            while True:
                server.accept()[0].close()
                asked += 1

    with socket.create_server(("127.0.0.1", 0)) as server:
        listening = threading.Thread(target=hang_up)
        listening.start()
        port = server.getsockname()[1]
        url = f"postgresql://u@127.0.0.1:{port}/x?sslmode=disable&gssencmode=disable"
        with pytest.raises(DatabaseUnavailable):
            Booking(url).book([start()], within=1, patience=2)
        server.shutdown(socket.SHUT_RDWR)
        listening.join()
    assert 1 < asked < 10


@ONE_SERVER
def test_a_heartbeat_is_due_whatever_is_booked_and_no_refusal_puts_it_off(
    url: str, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start()
    with closing_down(Booking(url)) as busy:
        busy.book([run], within=5)
        due = busy.beat_in
        monkeypatch.setattr(booking, "HEARTBEAT_SECONDS", 100)
        busy.book([message(run)], within=5)
        assert due and busy.beat_in and busy.beat_in < due
        with pytest.raises(psycopg.errors.NotNullViolation):
            busy.book([message(start())], within=5, patience=12)
        with db.transaction(), pytest.raises(psycopg.errors.QueryCanceled):
            db.execute("lock table chatter.messages in exclusive mode")
            busy.book([message(run)], within=0.1)
        # Neither the patience was waited for nor the time of the answers before.
        assert busy.beat_in > due - 4


@ONE_SERVER
def test_of_errors_without_a_code_a_lost_connection_passes(url: str) -> None:
    """What psycopg itself refuses would be tried again for ever."""
    with psycopg.connect(url) as connection:
        with pytest.raises(psycopg.DataError) as refused:
            connection.execute("select %s", ["\0"])
        connection.close()
        with pytest.raises(psycopg.OperationalError) as lost:
            connection.execute("select 1")
    assert refused.value.sqlstate is None and not booking.passes(refused.value)
    assert lost.value.sqlstate is None and booking.passes(lost.value)


@ONE_SERVER
def test_a_batch_waits_for_a_conversation_before_it_has_those_after_it(
    url: str, db: psycopg.Connection[Any]
) -> None:
    """Or two batches could wait for each other."""
    runs = [start(conversation_external_id=name) for name in "ab"]
    with closing_down(Booking(url)) as busy, ThreadPoolExecutor(1) as thread:
        found = busy.book(runs, within=5)
        first, last = sorted(found, key=lambda run: found[run])
        call = message(start(execution_id=last))
        end = RunEnded(execution_id=first, status="completed", finished_at=datetime.now(UTC))
        lock = "select chatter.lock_conversations(%s)"
        with psycopg.connect(url) as holder:
            holder.execute(lock, (found[first],))
            booked = thread.submit(busy.book, [call, end], within=5)
            wait_until_blocked(holder)
            db.execute("set lock_timeout = '1s'")
            db.execute(lock, (found[last],))
            holder.rollback()
        booked.result(timeout=20)


@ONE_SERVER
def test_a_heartbeat_that_is_late_or_refused(
    url: str, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that refuses it may be a standby by now: the next one is told another."""
    monkeypatch.setattr(booking, "HEARTBEAT_SECONDS", -1)
    connections = (
        "select pid from pg_stat_activity"
        " where application_name = 'chatter' and datname = current_database()"
    )
    with closing_down(Booking(url)) as late:
        late.book([start()], within=5)
        # How long somebody waits: not less than no time.
        assert late.beat_in == 0
        before = db.execute(connections).fetchall()
        db.execute("alter table chatter.recorders add check (host is null) not valid")
        late.beat(within=5)
        late.book([start()], within=5)
        assert db.execute(connections).fetchall() != before


@ONE_SERVER
def test_a_connection_to_a_server_that_takes_no_writes_is_given_up(
    url: str, db: psycopg.Connection[Any]
) -> None:
    """It may be a standby by now: the next one finds the primary."""
    run = start()
    db.execute(f"alter database {db.info.dbname} set default_transaction_read_only = on")
    with closing_down(Booking(url)) as busy:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            busy.book([run], within=5)
        db.execute(f"alter database {db.info.dbname} reset default_transaction_read_only")
        assert run.execution_id in busy.book([run], within=5)
    # And it has told its end.
    assert db.execute("select stopped_at is not null from chatter.recorders").fetchall() == [
        (True,)
    ]
