"""`chatter rebook`: what was put aside is booked when its cause is mended."""

import json
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from chatter_db import database
from chatter_db.recorder.records import MessageRow, Record, RunEnded, ToolCallRow, ToolRun
from chatter_db.recorder.spool import Spool, open_spool
from chatter_db.recorder.writer import Writer
from tests.conftest import ONE_SERVER
from tests.forked import Run
from tests.recorder.test_backlog import drained
from tests.recorder.test_unreadable import NEWER, line
from tests.recorder.test_writer import booked_calls, message, start

pytestmark = ONE_SERVER


@pytest.fixture
def aside(url: str) -> Path:
    with closing(open_spool(database.place(url))) as spool:
        return spool.directory / "refused.json-lines"


def rebook(chatter_command: Run, url: str) -> dict[str, Any]:
    done = chatter_command("rebook", "--json", url=url)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_what_a_restore_had_no_run_for_is_booked_once_that_is_back(
    chatter_command: Run,
    url: str,
    db: psycopg.Connection[Any],
    aside: Path,
    books_hold: Callable[[], None],
) -> None:
    gone, lost = start(), start()
    calls = [message(gone, content="hello") for _ in range(3)]
    with closing(Writer(url, open_spool(database.place(url)))) as writer:
        for each in (*calls, message(lost)):
            writer.submit([each]).exception(timeout=20)
        assert writer.lost == 4
        still = aside.read_bytes().splitlines(keepends=True)[3:]
        with aside.open("ab") as file:
            file.write(NEWER)
        # Nothing is mended yet.
        told = rebook(chatter_command, url)
        assert told == {"booked_records": 0, "refused_records": 6, "refused": str(aside)}
        assert "chatter rebook" in chatter_command("status", url=url).stdout
        assert f"form: 6, in {aside}" in chatter_command("rebook", url=url).stdout
        writer.submit([gone]).result(timeout=20)
        for booked in (3, 0):
            told = rebook(chatter_command, url)
            assert (told["booked_records"], told["refused_records"]) == (booked, 3)
            assert sorted(aside.read_bytes().splitlines(keepends=True)) == sorted([*still, NEWER])
            assert booked_calls(db) == [(3, 30)]
        contents = db.execute("select id, content from chatter.messages").fetchall()
        assert set(contents) == {(each.id, "hello") for each in calls}
        writer.submit([lost]).result(timeout=20)
    with aside.open("wb") as file:
        file.writelines(still)
    assert rebook(chatter_command, url)["refused"] is None
    assert not aside.exists()
    assert booked_calls(db) == [(4, 40)]
    books_hold()


def test_what_is_booked_in_reduced_form_keeps_its_texts(
    chatter_command: Run,
    url: str,
    db: psycopg.Connection[Any],
    aside: Path,
    books_hold: Callable[[], None],
) -> None:
    db.execute("alter table chatter.messages add constraint no_x check (content <> 'x')")
    db.execute(
        "alter table chatter.workflow_executions add constraint no_y check (not metadata ? 'y')"
    )
    run = start(metadata={"y": 1})
    whole = message(run)
    with closing(Writer(url, open_spool(database.place(url)))) as writer:
        for each in (run, message(run, content="x"), whole):
            writer.submit([each]).result(timeout=20)
        assert (writer.lost, writer.reduced) == (0, 2)
    kept = aside.read_bytes()
    # As a crash leaves it that came after the commit: nothing of this has to be kept.
    aside.write_bytes(kept + line(whole))
    db.execute("alter table chatter.messages drop constraint no_x")
    db.execute("alter table chatter.workflow_executions drop constraint no_y")
    assert rebook(chatter_command, url)["refused_records"] == 2
    assert aside.read_bytes() == kept
    assert booked_calls(db) == [(2, 20)]
    # Whoever takes the row away has it whole.
    db.execute("delete from chatter.messages")
    assert rebook(chatter_command, url)["refused_records"] == 1
    assert db.execute("select content from chatter.messages").fetchall() == [("x",)]
    books_hold()


def test_an_error_that_was_left_out_is_booked_with_its_run_and_its_tool(
    chatter_command: Run,
    url: str,
    db: psycopg.Connection[Any],
    aside: Path,
    books_hold: Callable[[], None],
) -> None:
    tables = ("workflow_executions", "tool_calls")
    for table in tables:
        db.execute(f"alter table chatter.{table} add constraint no_x check (error_message <> 'x')")
    run = start()
    row = message(run)
    asked = [ToolCallRow(uuid4(), run.execution_id, row.id, f"call_{n}", "search") for n in (1, 2)]
    begun = datetime.now(UTC)
    tools = [
        ToolRun(
            id=asked[0].id,
            execution_id=run.execution_id,
            status="failed",
            started_at=begun,
            error_type="ValueError",
            error_message="x",
        ),
        # Known by the provider's id, as one that an earlier run asked for.
        ToolRun(
            id=uuid4(),
            execution_id=run.execution_id,
            status="failed",
            tool_call_id="call_2",
            started_at=begun,
            error_type="ValueError",
            error_message="x",
        ),
    ]
    end = RunEnded(
        execution_id=run.execution_id,
        status="failed",
        finished_at=begun,
        error_type="ValueError",
        error_message="x",
    )
    with closing(Writer(url, open_spool(database.place(url)))) as writer:
        writer.submit([run, row, *asked]).result(timeout=20)
        refused: list[Record] = [*tools, end]
        for each in refused:
            writer.submit([each]).result(timeout=20)
        assert (writer.lost, writer.reduced) == (0, 3)
    said = " union all ".join(
        f"select status, error_type, error_message from chatter.{table}" for table in tables
    )
    # Nothing is mended yet.
    assert rebook(chatter_command, url)["refused_records"] == 3
    assert db.execute(said).fetchall() == [("failed", "ValueError", None)] * 3
    for table in tables:
        db.execute(f"alter table chatter.{table} drop constraint no_x")
    assert rebook(chatter_command, url)["booked_records"] == 3
    assert db.execute(said).fetchall() == [("failed", "ValueError", "x")] * 3
    assert not aside.exists()
    ends = "select count(*) from chatter.events where event_type = 'workflow_failed'"
    assert db.execute(ends).fetchone() == (1,)
    books_hold()


def test_what_is_put_aside_meanwhile_is_not_lost(aside: Path) -> None:
    """Others write to the file while it is read, and written anew."""
    enough = threading.Event()
    calls: list[MessageRow] = []

    def add() -> None:
        while not enough.is_set():
            calls.append(message(start()))
            other.refuse([calls[-1]])

    with closing(Spool(aside.parent, 10**8)) as one, closing(Spool(aside.parent, 10**8)) as other:
        adding = threading.Thread(target=add)
        adding.start()
        try:
            for _ in range(20):
                while len(lines := one.aside()) < 2:
                    pass
                one.take_back(lines[1:])
        finally:
            enough.set()
            adding.join()
        one.take_back(one.aside())
        found = drained(one, 100)
    ids = [record.id for entry in found for record in entry if isinstance(record, MessageRow)]
    assert sorted(ids) == sorted(each.id for each in calls)
