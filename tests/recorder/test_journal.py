"""Callers who don't wait for the commit: their records are in a file, and in the books once."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langchain_core.messages import HumanMessage

from chatter_db import Chatter
from chatter_db.errors import DatabaseUnavailable, RecordingFailed, UsageError
from chatter_db.recorder import journal
from chatter_db.recorder.booking import Booking
from chatter_db.recorder.journal import Journal
from chatter_db.recorder.records import as_json
from chatter_db.recorder.segment import Segment, adopt
from chatter_db.recorder.spool import Spool, SpoolFull, open_spool
from chatter_db.recorder.writer import Writer
from chatter_db.settings import settings
from tests.polling import wait_until
from tests.providers.openai import Provider
from tests.recorder.test_recorder import agent, model_of
from tests.recorder.test_writer import booked_calls, message, start

KILLED = """
import os, sys
from datetime import UTC, datetime
from uuid import UUID, uuid4
from chatter_db.recorder.records import MessageRow
from chatter_db.recorder.segment import Segment
from chatter_db.recorder.spool import open_spool
from chatter_db.recorder.writer import Writer

writer = Writer(sys.argv[1], open_spool("test"), durability="spool")
for _ in range(20):
    writer.submit([MessageRow(id=uuid4(), execution_id=UUID(sys.argv[2]), role="assistant",
        kind="step", prompt_tokens=10, usage_status="reported", correlation_id="x", metadata={},
        created_at=datetime.now(UTC))]).result()
os.kill(os.getpid(), 9)
"""


def lock(db: psycopg.Connection[Any]) -> None:
    """Nobody books into a conversation until the transaction ends."""
    db.execute("select chatter.lock_conversations(id) from chatter.conversations")


def test_callers_go_on_before_the_commit(
    url: str, db: psycopg.Connection[Any], spool_dir: Path, books_hold: Callable[[], None]
) -> None:
    writer = Writer(url, open_spool("test"), durability="spool")
    run = start()
    writer.submit([run]).result()
    wait_until(lambda: db.execute("select 1 from chatter.conversations").fetchone() is not None)
    with db.transaction():
        lock(db)
        for _ in range(50):
            assert writer.submit([message(run)]).done()
        (segment,) = spool_dir.glob("*/*.jsonl")
        assert segment.stat().st_mode & 0o777 == 0o600
        assert segment.read_text().count("prompt_tokens") == 50
    writer.close()
    assert list(spool_dir.glob("*/*.jsonl")) == []
    assert booked_calls(db) == [(50, 500)]
    books_hold()


def test_a_killed_process_loses_nothing(
    url: str, db: psycopg.Connection[Any], spool_dir: Path, books_hold: Callable[[], None]
) -> None:
    first = Writer(url, open_spool("test"))
    run = start()
    first.submit([run]).result()
    first.close()
    with db.transaction():
        lock(db)
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, url, str(run.execution_id)], check=False, timeout=60
        )
        assert killed.returncode == -9
    assert len(list(spool_dir.glob("*/*.jsonl"))) == 1
    heir = Writer(url, open_spool("test"))
    wait_until(lambda: not list(spool_dir.glob("*/*.jsonl")))
    heir.close()
    assert booked_calls(db) == [(20, 200)]
    books_hold()


def test_when_postgres_is_far_behind_callers_wait(
    url: str, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, spool_dir: Path
) -> None:
    monkeypatch.setattr(journal, "MAX_WAITING", 3)
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 1)  # a segment an entry
    writer = Writer(url, open_spool("test"), durability="spool")
    run = start()
    writer.submit([run]).result()
    wait_until(lambda: db.execute("select 1 from chatter.conversations").fetchone() is not None)
    wait_until(lambda: not any(path.stat().st_size for path in spool_dir.glob("*/*.jsonl")))
    with db.transaction():
        lock(db)
        futures = [writer.submit([message(run)]) for _ in range(4)]
        assert [future.done() for future in futures] == [True, True, True, False]
    futures[3].result(timeout=20)
    writer.close()
    assert list(spool_dir.glob("*/*.jsonl")) == []
    assert booked_calls(db) == [(4, 40)]


def test_a_journal_takes_as_many_bytes_as_may_wait(spool_dir: Path) -> None:
    call = [message(start())]
    with closing(open_spool("test")) as spool:
        directory = spool.directory
    with closing(Spool(directory, limit_bytes=3 * len(as_json(call)) + 3)) as spool:
        noted = Journal(spool)
        segments = [noted.append(call) for _ in range(3)]
        with pytest.raises(SpoolFull, match="behind"):
            noted.append(call)
        for segment in segments:
            noted.booked(segment)
        noted.booked(noted.append(call))
        noted.close()
    assert list(directory.glob("*.jsonl")) == []


def test_a_child_of_fork_keeps_nothing_from_who_comes_after_its_parent(spool_dir: Path) -> None:
    """A lock that the child has too would be held by it when the parent has died."""
    call = [message(start())]
    spool = open_spool("test")
    noted = Journal(spool)
    spool.append(call)
    theirs = [noted.append(call), *spool._segments]
    noted.leave()
    spool.leave()
    assert (spool.taken, spool.left) == (0, 0)
    left = [segment for path in spool.directory.glob("*.jsonl") if (segment := adopt(path))]
    assert len(left) == 2
    own = noted.append(call)
    assert own.path.name[:36] not in {segment.path.name[:36] for segment in left}
    spool.close()
    for segment in (*theirs, *left, own):
        segment.close()


def test_what_is_lost_is_loud_though_nobody_waits(
    url: str, db: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    writer = Writer(url, open_spool("test"), durability="spool")
    writer.submit([start()]).result()
    writer.submit([message(start())]).result()  # of a run that is not there
    writer.close()
    assert writer.lost == 1
    assert "could not be booked" in caplog.text
    with pytest.raises(RecordingFailed, match="after its Chatter was closed"):
        writer.submit([start()])


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("Blocking call to write")]
)
def test_what_no_file_takes_waits_for_its_commit(
    url: str,
    db: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    """A full disk, or a development server in which nothing may block the event loop."""

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Segment, "append", fail)
    writer = Writer(url, open_spool("test"), durability="spool")
    run = start()
    for records in ([run], [message(run)]):
        writer.submit(records).result(timeout=20)
    writer.close()
    assert booked_calls(db) == [(1, 10)]
    assert caplog.messages.count(f"A record waits for its commit: {error}") == 2


def test_what_is_in_a_file_needs_no_room_in_another(
    url: str,
    db: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    spool_dir: Path,
    caplog: pytest.LogCaptureFixture,
    books_hold: Callable[[], None],
) -> None:
    """Postgres goes away, and the disk of the spool is full when that is known."""

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    def book(*_: Any, **__: Any) -> None:
        raise DatabaseUnavailable("away")

    writer = Writer(url, open_spool("test"), durability="spool")
    run = start()
    with monkeypatch.context() as patched:
        patched.setattr(Booking, "book", book)
        patched.setattr(Spool, "append", fail)
        assert writer.submit([run]).done()
        for _ in range(20):
            assert writer.submit([message(run)]).done()
        writer.flush().result(timeout=20)
        # What is not in a file is lost, as ever.
        patched.setattr(Segment, "append", fail)
        with pytest.raises(RecordingFailed, match="No space left"):
            writer.submit([message(run)]).result(timeout=20)
    for _ in range(10):
        writer.submit([message(run)]).result()
    writer.close()
    assert writer.lost == 1
    assert booked_calls(db) == [(30, 300)]
    assert list(spool_dir.glob("*/*.jsonl")) == []
    assert "exception calling callback" not in caplog.text
    books_hold()


async def test_by_the_setting_a_run_is_recorded_as_ever(
    url: str,
    db: psycopg.Connection[Any],
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    books_hold: Callable[[], None],
) -> None:
    monkeypatch.setenv("CHATTER_DURABILITY", "spool")
    settings.cache_clear()
    async with Chatter.connect(url) as chatter:
        for _ in range(3):
            run = chatter.recorder(conversation="c")
            await agent(model_of(provider)).ainvoke(
                {"messages": [HumanMessage("Hi")]}, config={"callbacks": [run]}
            )
    assert db.execute(
        "select message_count from chatter.conversations where external_id = 'c'"
    ).fetchall() == [(6,)]
    statuses = db.execute("select distinct status from chatter.workflow_executions").fetchall()
    assert statuses == [("completed",)]
    books_hold()


def test_another_durability_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATTER_DURABILITY", "memory")
    settings.cache_clear()
    with pytest.raises(UsageError, match=r"CHATTER_DURABILITY: .*'database' or 'spool'"):
        settings()
