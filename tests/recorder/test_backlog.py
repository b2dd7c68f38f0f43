"""What waits in the spool: booked in order, and nobody waits for all of it."""

import os
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chatter_db.errors import RecordingFailed
from chatter_db.recorder import writer as writer_module
from chatter_db.recorder.booking import Booking
from chatter_db.recorder.journal import Journal
from chatter_db.recorder.records import Record, RunStarted
from chatter_db.recorder.spool import Spool, open_spool
from chatter_db.recorder.writer import Writer
from tests.conftest import ONE_SERVER
from tests.polling import wait_until, wait_until_blocked
from tests.recorder.test_writer import booked_calls, message, start


def test_who_breaks_off_in_the_spool_goes_on_there(spool_dir: Path) -> None:
    runs = [start() for _ in range(5)]
    with closing(open_spool("test")) as spool:
        for run in runs:
            spool.append([run])
        assert spool.batch(2) == [[runs[0]], [runs[1]]]
        spool.forget()
        # The second can't be booked.
        assert spool.batch(2) == spool.batch(2) == [[runs[2]], [runs[3]]]
        spool.append([runs[0]])
        assert drained(spool, 2) == [[runs[2]], [runs[3]], [runs[4]], [runs[0]]]
        assert not spool.waiting
        assert not list(spool_dir.glob("*/*.jsonl"))


def test_what_is_kept_is_on_the_disk(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it: a loss of power comes after whatever its caller was told."""
    synced: list[tuple[int, int]] = []

    def fsync(descriptor: int) -> None:
        file = os.fstat(descriptor)
        synced.append((file.st_ino, file.st_size))

    monkeypatch.setattr(os, "fsync", fsync)
    with closing(open_spool("test")) as spool:
        spool.append([start()])
        (file,) = (path.stat() for path in spool_dir.glob("*/*.jsonl"))
        assert synced == [(file.st_ino, file.st_size)]


def test_long_records_make_short_batches(spool_dir: Path) -> None:
    """Else a hundred of them, each of megabytes, would be one statement."""
    calls = [message(start(), content="x" * 600_000) for _ in range(3)]
    with closing(open_spool("test")) as spool:
        for call in calls:
            spool.append([call])
        assert [len(spool.batch(100)) for _ in range(2)] == [2, 2]
        assert drained(spool, 100) == [[call] for call in calls]


def test_what_comes_while_the_spool_is_booked_is_kept_in_order(spool_dir: Path) -> None:
    """As long as it takes: what is booked makes room on the disk, and in the limit."""
    runs = [start() for _ in range(200)]
    with closing(open_spool("test")) as opened:
        directory = opened.directory
    with closing(Spool(directory, limit_bytes=4000)) as spool:
        for run in runs[:3]:
            spool.append([run])
        found = []
        for run in runs[3:]:
            found += spool.batch(1)
            spool.forget()
            spool.append([run])
            assert sum(path.stat().st_size for path in spool_dir.glob("*/*.jsonl")) < 4000
        assert [*found, *drained(spool, 2)] == [[run] for run in runs]


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Files take so many bytes and no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_a_full_disk_took_in_part_hides_nothing_behind_it(spool_dir: Path) -> None:
    """Nor is it booked, since its caller was told that it is lost."""
    runs = [start() for _ in range(3)]
    with closing(open_spool("test")) as spool:
        spool.append([runs[0]])
        with full_disk(spool.taken + 10), pytest.raises(OSError, match="File too large"):
            spool.append([runs[1]])
        spool.append([runs[2]])
        assert drained(spool, 1) == [[runs[0]], [runs[2]]]
        assert not list(spool_dir.glob("*/*.jsonl"))


def test_what_could_not_be_taken_back_hides_nothing_and_does_not_stay(spool_dir: Path) -> None:
    """Some file systems can't even shorten a file when they are full."""
    run, other = start(), start()
    with closing(open_spool("test")) as spool:
        spool.append([run])
        (path,) = spool_dir.glob("*/*.jsonl")
        with path.open("ab") as file:
            file.write(b'[{"type":"Mess')
        assert spool.batch(10) == [[run]]
        spool.forget()
        spool.append([other])
        assert drained(spool, 1) == [[other]]
        assert not list(spool_dir.glob("*/*.jsonl"))


def test_what_waits_is_booked_though_the_disk_takes_no_more(spool_dir: Path) -> None:
    runs = [start() for _ in range(2)]
    spool = open_spool("test")
    spool.append([runs[0]])
    with full_disk(spool.taken + 10):
        with pytest.raises(OSError, match="File too large"):
            spool.append([runs[1]])
        assert drained(spool, 1) == [[runs[0]]]
        with pytest.raises(OSError, match="File too large"):
            spool.append([start(workflow_name="a long one" * 100)])
        spool.close()


def drained(spool: Spool, limit: int) -> list[list[Record]]:
    """All that waits, as it is booked."""
    entries = []
    while spool.waiting:
        entries += spool.batch(limit)
        spool.forget()
    return entries


@dataclass
class Backlog:
    """A spool of three commits, of runs whose conversations somebody has locked.

    One of the first run and two of the second.
    """

    runs: list[RunStarted]
    locks: list[psycopg.Connection[Any]]


def lock(holder: psycopg.Connection[Any], run: RunStarted) -> None:
    holder.execute(
        "select chatter.lock_conversations(conversation_id) "
        "from chatter.workflow_executions where id = %s",
        (run.execution_id,),
    )


@pytest.fixture
def backlog(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backlog]:
    monkeypatch.setattr(writer_module, "SPOOL_BATCH", 2)
    monkeypatch.setattr(writer_module, "ANSWER_SECONDS", 60)
    runs = [start(conversation_external_id=name) for name in ("first", "second")]
    with closing(Writer(url, open_spool("test"))) as before:
        before.submit(runs).result(timeout=20)
    with closing(open_spool("test")) as spool:
        for run in (runs[0], runs[1], runs[1]):
            spool.append([message(run)])
            spool.append([message(run)])
    with psycopg.connect(url) as first, psycopg.connect(url) as second:
        lock(first, runs[0])
        lock(second, runs[1])
        yield Backlog(runs, [first, second])


def test_who_comes_while_the_spool_is_booked_waits_for_a_commit_of_it(
    url: str, db: psycopg.Connection[Any], backlog: Backlog, books_hold: Callable[[], None]
) -> None:
    first, second = backlog.locks
    with closing(Writer(url, open_spool("test"))) as writer:
        wait_until_blocked(first)
        calls = [writer.submit([message(backlog.runs[1])]) for _ in range(5)]
        first.rollback()
        for call in calls:
            call.result(timeout=20)
        # With most of the spool yet to be booked.
        wait_until_blocked(second)
        second.rollback()
    assert writer.lost == 0
    assert booked_calls(db) == [(11, 110)]
    books_hold()


def test_a_flush_waits_for_what_was_submitted_before_and_no_longer(
    url: str, db: psycopg.Connection[Any], backlog: Backlog
) -> None:
    first, second = backlog.locks
    with closing(Writer(url, open_spool("test"))) as writer:
        wait_until_blocked(first)
        flush = writer.flush()
        first.rollback()
        wait_until_blocked(second)
        assert not flush.done()
        # Nor does who gives up waiting take anything from the books.
        assert not flush.cancel()
        lock(first, backlog.runs[0])
        writer.submit([message(backlog.runs[0])])
        second.rollback()
        flush.result(timeout=20)
        assert booked_calls(db) == [(6, 60)]
        first.rollback()
    assert booked_calls(db) == [(7, 70)]


def test_the_spool_is_booked_to_its_end_however_many_come_meanwhile(
    url: str, db: psycopg.Connection[Any], spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "SPOOL_BATCH", 1)
    run = start()
    with closing(open_spool("test")) as spool:
        spool.append([run])
        for _ in range(30):
            spool.append([message(run)])
    with closing(Writer(url, open_spool("test"))) as writer, ThreadPoolExecutor(8) as callers:

        def call_until_all_is_booked() -> int:
            calls = 0
            deadline = time.monotonic() + 20
            while list(spool_dir.glob("*/*.jsonl")):
                assert time.monotonic() < deadline, "more comes than is booked"
                writer.submit([message(run)]).result(timeout=20)
                calls += 1
            return calls

        calling = [callers.submit(call_until_all_is_booked) for _ in range(8)]
        calls = sum(each.result() for each in calling)
    assert writer.lost == 0
    assert booked_calls(db)[0][0] == 30 + calls


def test_a_full_spool_loses_nothing_while_it_is_booked(
    url: str, db: psycopg.Connection[Any], backlog: Backlog
) -> None:
    first, second = backlog.locks
    with closing(open_spool("test")) as spool:
        directory, full = spool.directory, spool.taken
    with closing(Writer(url, Spool(directory, limit_bytes=full))) as writer:
        wait_until_blocked(first)
        calls = [writer.submit([message(backlog.runs[0])]) for _ in range(20)]
        first.rollback()
        second.rollback()
        for call in calls:
            call.result(timeout=20)
    assert writer.lost == 0
    assert booked_calls(db) == [(26, 260)]


def test_what_is_refused_in_the_spool_keeps_nothing_else_from_the_books(
    url: str, db: psycopg.Connection[Any], spool_dir: Path
) -> None:
    run = start()
    good = [message(run) for _ in range(20)]
    with closing(open_spool("test")) as spool:
        spool.append([run])
        for place, one in enumerate(good):
            spool.append([one])
            if place == 10:
                spool.append([message(start())])  # of a run that nobody has begun
    with closing(Writer(url, open_spool("test"))) as writer:
        wait_until(lambda: not list(spool_dir.glob("*/*.jsonl")))
    assert (writer.lost, writer.reduced) == (1, 0)
    booked = db.execute("select id from chatter.messages").fetchall()
    assert {id_ for (id_,) in booked} == {one.id for one in good}


def test_what_fails_in_the_spool_for_once_keeps_its_text(
    url: str, db: psycopg.Connection[Any], spool_dir: Path
) -> None:
    run = start()
    db.execute(
        "create sequence public.attempts;"
        "create function public.refuse() returns trigger language plpgsql as $$ begin "
        "if nextval('public.attempts') = 1 then "
        "raise exception 'not now' using errcode = '40001'; end if; return new; end $$;"
        "create trigger refuse before insert on chatter.messages "
        "for each row execute function public.refuse()"
    )
    with closing(open_spool("test")) as spool:
        spool.append([run, message(run, content="Hello")])
    with closing(Writer(url, open_spool("test"))) as writer:
        wait_until(lambda: not list(spool_dir.glob("*/*.jsonl")))
    assert (writer.lost, writer.reduced) == (0, 0)
    assert db.execute("select content from chatter.messages").fetchall() == [("Hello",)]


def test_what_can_not_be_reduced_now_waits(
    url: str, db: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Postgres goes away between its refusal and the figures without the texts."""
    run = start()
    db.execute(
        "alter table chatter.messages add check (finish_reason <> 'x');"
        "create function public.refuse() returns trigger language plpgsql as $$ begin "
        "raise exception 'not now' using errcode = '57P03'; end $$;"
        "create trigger refuse before insert on chatter.messages for each row "
        "when (new.metadata ? 'reduced') execute function public.refuse()"
    )
    with closing(Writer(url, open_spool("test"))) as writer:
        writer.submit([run]).result(timeout=20)
        writer.submit([message(run, finish_reason="x")]).result(timeout=20)
        # And again, when it is the spool's turn.
        wait_until(lambda: "Next try" in caplog.text)
        db.execute("drop trigger refuse on chatter.messages")
        wait_until(lambda: writer.reduced == 1)
    assert writer.lost == 0
    assert booked_calls(db) == [(1, 10)]


@ONE_SERVER
def test_a_bug_of_ours_keeps_nobody_waiting_and_nothing_else_from_the_books(
    url: str, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start()
    with closing(Writer(url, open_spool("test"))) as writer:
        writer.submit([run]).result(timeout=20)
        with monkeypatch.context() as patched:
            patched.setattr(Booking, "book", lambda *_, **__: 1 / 0)
            with pytest.raises(RecordingFailed, match="division by zero"):
                writer.submit([message(run)]).result(timeout=20)
        writer.submit([message(run)]).result(timeout=20)
    assert writer.lost == 1
    assert booked_calls(db) == [(1, 10)]


def test_what_a_process_kept_is_booked_before_what_it_only_noted(
    url: str, db: psycopg.Connection[Any], spool_dir: Path
) -> None:
    """Its journal is the older file, where it had no room for a run's start but for its call."""
    run = start()
    call = message(run)
    with closing(open_spool("test")) as spool:
        journal = Journal(spool)
        journal.append([call])
        spool.append([run])
        journal.close()  # with an entry that waits, as of a process that dies
    with closing(Writer(url, open_spool("test"))) as writer:
        wait_until(lambda: not list(spool_dir.glob("*/*.jsonl")))
    assert writer.lost == 0
    assert db.execute("select id from chatter.messages").fetchall() == [(call.id,)]
