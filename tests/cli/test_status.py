"""What `chatter status` says of the spool, and of a database with defaults of its own."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from chatter_db import Chatter, database
from chatter_db.recorder.records import MessageRow, RunEnded, RunStarted
from chatter_db.recorder.spool import JOURNAL, open_spool
from tests.conftest import ONE_SERVER
from tests.forked import Run

pytestmark = ONE_SERVER

# Killed before its calls are in the books: somebody holds the table.
KILLED = """
import os, signal, sys
from langchain_core.language_models import FakeListChatModel
from chatter_db import Chatter

with Chatter.connect() as chatter:
    FakeListChatModel(responses=["Hi"]).invoke(
        "Hello", config={"callbacks": [chatter.recorder(conversation="c", user="ada")]}
    )
    os.kill(os.getpid(), signal.SIGKILL)
"""


def facts(chatter_command: Run, url: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(chatter_command("status", "--json", url=url).stdout)
    return found


def test_records_of_a_killed_process_are_told_until_they_are_booked(
    chatter_command: Run, url: str, db: psycopg.Connection[Any], spool_dir: Path
) -> None:
    before = facts(chatter_command, url)
    assert (before["spool"], before["spooled_records"], before["refused_records"]) == (None, 0, 0)
    assert "Records that" not in chatter_command("status", url=url).stdout
    environment = {
        "CHATTER_DATABASE_URL": url,
        "CHATTER_SPOOL_DIR": str(spool_dir),
        "CHATTER_DURABILITY": "spool",
    }
    with psycopg.connect(url) as busy:
        busy.execute("lock chatter.workflow_executions")
        subprocess.run(
            [sys.executable, "-c", KILLED], env=environment, check=False, timeout=60,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
    waiting = facts(chatter_command, url)
    assert waiting["spooled_records"] >= 3
    files = list(Path(waiting["spool"]).glob(f"*{JOURNAL}"))
    assert waiting["spooled_bytes"] == sum(file.stat().st_size for file in files) > 0
    said = chatter_command("status", url=url).stdout
    told = f": {waiting['spooled_records']} ({waiting['spooled_bytes']:,} bytes)."
    assert f"Records that wait in {waiting['spool']}{told}" in said
    assert waiting["spool"] in said and "chatter serve" in said
    # What is said to book them does: to open the books is enough.
    with Chatter.connect(url):
        pass
    assert facts(chatter_command, url)["spooled_records"] == 0
    assert db.execute("select count(*) from chatter.messages").fetchone() == (2,)


@pytest.mark.parametrize("started", [True, False], ids=["an application has run", "none has"])
def test_records_for_an_earlier_address_are_told(
    chatter_command: Run, url: str, db: psycopg.Connection[Any], started: bool
) -> None:
    """The database was restored on another server while it was away."""
    run = RunStarted(
        execution_id=uuid4(), conversation_id=None, new_conversation=False,
        conversation_external_id="c", user_external_id=None, workflow_name="w",
        correlation_id="x", started_at=datetime.now(UTC), metadata={},
    )  # fmt: skip
    spool = open_spool("db.old.example:5432/chatter")
    spool.append([run])
    spool.close()
    if started:
        with Chatter.connect(url):
            pass
    found = facts(chatter_command, url)
    assert found["spooled_records"] == 0
    (elsewhere,) = found["spooled_elsewhere"]
    target = Path(elsewhere.pop("move_to"))
    assert elsewhere == {
        "database": "db.old.example:5432/chatter",
        "spool": str(spool.directory),
        "records": 1,
    }
    assert (found["spool"] == str(target)) is started
    said = chatter_command("status", url=url).stdout
    assert "db.old.example:5432/chatter" in said
    assert str(target) in said
    # What is said to book them does.
    target.mkdir(mode=0o700, exist_ok=True)
    for segment in spool.directory.glob("*.jsonl"):
        segment.rename(target / segment.name)
    with Chatter.connect(url):
        pass
    assert db.execute("select id from chatter.workflow_executions").fetchall() == [
        (run.execution_id,)
    ]
    assert facts(chatter_command, url)["spooled_elsewhere"] == []


def test_refused_records_and_half_a_line(chatter_command: Run, url: str) -> None:
    ended = RunEnded(execution_id=uuid4(), status="completed", finished_at=datetime.now(UTC))
    reply = MessageRow(
        id=uuid4(), execution_id=uuid4(), role="assistant", kind="turn", correlation_id="x",
        metadata={}, created_at=datetime.now(UTC),
    )  # fmt: skip
    spool = open_spool(database.place(url))
    refused = spool.refuse([reply])
    spool.append([reply, ended])
    with next(spool.directory.glob("*.jsonl")).open("ab") as file:
        file.write(b'[{"type": "RunEn')
    found = facts(chatter_command, url)
    assert (found["spooled_records"], found["refused_records"]) == (2, 1)
    assert found["refused"] == str(refused)
    shown = chatter_command("status", url=url).stdout
    assert f"Records that Postgres refused, or that could not be read: 1, in {refused}" in shown
    spool.close()


def test_books_whose_dates_are_written_in_another_style(
    chatter_command: Run, url: str, db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    for style in ("datestyle = 'SQL, DMY'", "intervalstyle = 'iso_8601'"):
        db.execute(f"alter database {db.info.dbname} set {style}".encode())
    calls = tmp_path / "calls.csv"
    calls.write_text("conversation,role,time\nc,user,2026-03-04 05:06:07Z\n")
    for command in (
        f"import {calls}", "check", "prices --missing", "reprice --dry-run", "top --once",
        "key ada", "status",
    ):  # fmt: skip
        done = chatter_command(*command.split(), url=url)
        assert done.returncode == 0, done.stderr
    written = db.execute("select created_at at time zone 'UTC' from chatter.messages").fetchall()
    assert written == [(datetime(2026, 3, 4, 5, 6, 7),)]


def test_a_restored_copy_whose_events_nobody_would_hear_is_told(
    chatter_command: Run, url: str, db: psycopg.Connection[Any]
) -> None:
    db.execute("insert into chatter.conversations default values")
    advice = "select chatter.renew_event_stream();"
    assert advice not in chatter_command("status", url=url).stdout
    with psycopg.connect(url) as connection:
        connection.execute("set session_replication_role = replica")
        connection.execute("update chatter.events set xact_id = '1000000000'")
    assert facts(chatter_command, url)["events_of_another_cluster"] == 1
    assert advice in " ".join(chatter_command("status", url=url).stdout.split())
    db.execute(advice)
    assert advice not in chatter_command("status", url=url).stdout


@pytest.mark.parametrize("lock", [1, 2, 3], ids=["fold", "refresh", "lead"])
def test_who_holds_a_lock_of_the_worker_without_being_one_is_told(
    chatter_command: Run, url: str, db: psycopg.Connection[Any], lock: int
) -> None:
    with psycopg.connect(url, autocommit=True, application_name="chatter worker") as holder:
        holder.execute("select pg_advisory_lock(chatter.bell() + %s)", [lock])
        # A worker of ours, by its name and its rights.
        assert facts(chatter_command, url)["work_held_by"] is None
        holder.execute("set application_name = 'intruder'")
        pid = holder.info.backend_pid
        said = chatter_command("status", url=url).stdout
        assert f"session {pid}, login {holder.info.user}, application 'intruder'" in said
        assert "pg_terminate_backend" in said
    assert "pg_terminate_backend" not in chatter_command("status", url=url).stdout


def test_a_name_alone_makes_no_worker(
    chatter_command: Run, url: str, db: psycopg.Connection[Any]
) -> None:
    db.execute("create role pretender login password 'x'")
    name = "chatter worker"
    try:
        with psycopg.connect(
            url, user="pretender", password="x", application_name=name, autocommit=True
        ) as holder:
            # The number of chatter.bell(), which that login may not call.
            lock = db.execute("select chatter.bell() + 1").fetchone()
            holder.execute("select pg_advisory_lock(%s)", lock)
            held = facts(chatter_command, url)["work_held_by"]
            assert held == (
                f"session {holder.info.backend_pid}, login pretender, application '{name}'"
            )
    finally:
        db.execute("drop role pretender")


def test_what_a_worker_calls_itself_is_no_command(
    chatter_command: Run, url: str, db: psycopg.Connection[Any]
) -> None:
    db.execute("update analytics.state set worker = %s", ["\x1b]0;owned\x07[/x][red]w"])
    shown = chatter_command("status", url=url)
    assert r"\x1b]0;owned\x07[/x][red]w" in shown.stdout, shown.stderr
