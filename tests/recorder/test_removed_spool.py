"""A spool whose directory a cleaner removes, or whose disk takes no more, under a process."""

import asyncio
import shutil
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chatter_db import Chatter
from chatter_db.recorder import writer as writer_module
from chatter_db.recorder.journal import Journal
from chatter_db.recorder.segment import Segment
from chatter_db.recorder.spool import Spool, open_spool
from chatter_db.recorder.writer import Writer
from tests.conftest import ONE_SERVER
from tests.polling import wait_until
from tests.providers import openai
from tests.providers.openai import Provider
from tests.recorder.graphs import model_of
from tests.recorder.test_backlog import drained
from tests.recorder.test_writer import away, booked_calls, message, start


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


@ONE_SERVER
@pytest.mark.parametrize("waits", [False, True], ids=["before an outage", "within one"])
def test_what_comes_after_a_cleaner_is_kept(
    url: str,
    db: psycopg.Connection[Any],
    books_hold: Callable[[], None],
    *,
    waits: bool,
) -> None:
    spool = open_spool("test")
    lonely = Writer(away(url), spool)
    run = start()
    if waits:
        lonely.submit([run]).result(timeout=20)
    shutil.rmtree(spool.directory)
    for records in ([] if waits else [run], [message(run)]):
        lonely.submit(records).result(timeout=20)
    # As if it were killed: what the next process finds is what has a name.
    kept = [path.read_text() for path in spool.directory.glob("*.jsonl")]
    assert sum(text.count('"RunStarted"') for text in kept) == 1
    assert sum(text.count('"MessageRow"') for text in kept) == 1
    lonely.close()
    assert lonely.lost == 0
    Writer(url, open_spool("test")).close()
    assert booked_calls(db) == [(1, 10)]
    books_hold()


def test_what_is_only_noted_has_a_name_again() -> None:
    run = start()
    with closing(open_spool("test")) as spool, closing(Journal(spool)) as journal:
        journal.append([run])
        shutil.rmtree(spool.directory)
        journal.append([message(run)])
        assert len(list(spool.directory.glob("*.jsonl"))) == 1


def test_what_waits_is_saved_at_the_end_at_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a disk that has no room for it is not filled by one attempt after the other."""
    run = start()
    with closing(open_spool("test")) as spool:
        spool.append([run])
        shutil.rmtree(spool.directory)
        with monkeypatch.context() as patched:
            patched.setattr(Segment, "append", full)
            with pytest.raises(OSError, match="No space left"):
                spool.append([message(run)])
        assert list(spool.directory.iterdir()) == []
    with closing(open_spool("test")) as left:
        assert drained(left, 1) == [[run]]


@ONE_SERVER
async def test_a_call_is_booked_whose_run_could_be_kept_nowhere(
    url: str,
    db: psycopg.Connection[Any],
    provider: Provider,
    spool_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    books_hold: Callable[[], None],
) -> None:
    monkeypatch.setattr(writer_module, "ANSWER_SECONDS", 0.4)
    monkeypatch.setattr(writer_module, "RETRY_FOR_SECONDS", 0.2)
    hold = threading.Event()
    provider.script = [openai.Reply("Paid for.", hold=hold)]
    async with Chatter.connect(url) as chatter:
        shutil.rmtree(spool_dir)
        spool_dir.write_text("no directory")
        with db.transaction():
            db.execute("lock table chatter.workflow_executions")
            recorder = chatter.recorder()
            asked = asyncio.create_task(
                model_of(provider).ainvoke("Hi", config={"callbacks": [recorder]})
            )
            assert await asyncio.to_thread(provider.arrived.wait, 20)
            assert chatter.lost_records == 2
        hold.set()
        assert (await asked).text == "Paid for."
        # The question is lost, and the log says so.
        assert chatter.lost_records == 2
    ended = "select status, model_calls from chatter.workflow_executions"
    assert db.execute(ended).fetchall() == [("completed", 1)]
    assert db.execute("select content from chatter.messages").fetchall() == [("Paid for.",)]
    books_hold()


@ONE_SERVER
def test_a_file_that_can_not_be_removed_is_no_error(
    url: str, db: psycopg.Connection[Any], spool_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = start()
    writer = Writer(url, open_spool("test"), durability="spool")
    for records in ([run], [message(run)]):
        writer.submit(records).result(timeout=20)
    shutil.rmtree(spool_dir)
    spool_dir.write_text("no directory")
    writer.close()
    assert booked_calls(db) == [(1, 10)]
    assert "is booked and can't be removed" in caplog.text


@ONE_SERVER
def test_what_is_refused_and_fits_nowhere_costs_no_others(
    url: str,
    db: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = start()
    lonely = Writer(away(url), open_spool("test"))
    lonely.submit([run]).result(timeout=20)
    for prompt_tokens in (10, -1, 10):
        lonely.submit([message(run, prompt_tokens=prompt_tokens)]).result(timeout=20)
    lonely.close()
    monkeypatch.setattr(Spool, "refuse", full)
    writer = Writer(url, open_spool("test"))
    wait_until(lambda: booked_calls(db) == [(3, 20)])
    with psycopg.connect(url) as other:
        other.execute("lock table chatter.messages in exclusive mode")
        # The first is on its way, the others gather meanwhile.
        futures = [writer.submit([message(run, prompt_tokens=p)]) for p in (1, 2, -1, 4)]
    for future in futures:
        future.result(timeout=20)
    writer.close()
    assert (writer.lost, writer.reduced) == (0, 2)
    assert booked_calls(db) == [(7, 27)]
    assert "No space left on device" in caplog.text
    with closing(open_spool("test")) as left:
        assert drained(left, 1) == []
