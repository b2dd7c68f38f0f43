"""Logins with one role each: what a command may not do it says in a line."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from chatter_db import Chatter, UsageError, database
from chatter_db.recorder.records import RunEnded
from chatter_db.recorder.spool import open_spool
from tests.conftest import ONE_SERVER
from tests.forked import Run

pytestmark = ONE_SERVER
Login = Callable[[str | None], str]


@pytest.fixture
def login(url: str, db: psycopg.Connection[Any]) -> Iterator[Login]:
    """The address of a login that has that role and no other."""
    place = f"{db.info.host}:{db.info.port}/{db.info.dbname}"
    names: list[sql.Identifier] = []

    def make(role: str | None) -> str:
        name = f"{role or 'nobody'}_of_{db.info.dbname}"
        names.append(sql.Identifier(name))
        db.execute(sql.SQL("create role {} login password 'x'").format(names[-1]))
        if role is not None:
            db.execute(sql.SQL("grant {} to {}").format(sql.Identifier(role), names[-1]))
        return f"postgresql://{name}:x@{place}"

    yield make
    for name in names:
        db.execute(sql.SQL("drop role {}").format(name))


@pytest.mark.parametrize(
    ("role", "command", "needed"),
    [
        ("chatter_app", "check", "chatter_reader"),
        ("chatter_app", "report cost_by_model", "chatter_reader"),
        ("chatter_app", "top --once", "chatter_reader"),
        ("chatter_app", "reprice --reason x", None),
        ("chatter_reader", "trace x", "chatter_app"),
        ("chatter_reader", "tail", "chatter_app"),
        ("chatter_reader", "tail --after oldest --count 1", "chatter_app"),
        ("chatter_reader", "key ada", "chatter_app"),
        ("chatter_reader", "serve --port 0", "chatter_app"),
        ("chatter_reader", "import a.jsonl", "chatter_app"),
        ("chatter_reader", "reprice --dry-run", None),
        ("chatter_reader", "price a b --since 2026-01-01 --prompt 1 --completion 1", None),
        ("chatter_worker", "prices --missing", "chatter_reader"),
        ("chatter_reader", "unblock 192.0.2.1", "chatter_app"),
        (None, "rebook", "chatter_app"),
        (None, "worker", "chatter_worker"),
        (None, "status", "chatter_reader"),
        (None, "migrate", None),
    ],
)
def test_what_a_login_may_not_is_a_line(
    chatter_command: Run,
    login: Login,
    tmp_path: Path,
    role: str | None,
    command: str,
    needed: str | None,
) -> None:
    (tmp_path / "a.jsonl").write_text('{"conversation": "c"}\n')
    done = chatter_command(*command.split(), url=login(role), COLUMNS="400")
    assert done.returncode == 1
    *before, said = done.stderr.splitlines()
    assert len(before) <= 1, done.stderr
    assert "This login has not the right to do that: permission denied for " in said
    if needed is None:
        assert said.endswith("It takes a login that owns the schema.")
    else:
        assert "It takes a login that owns the schema, or one with the role" in said
        assert needed in said


@pytest.mark.parametrize("role", ["chatter_app", "chatter_reader"])
def test_who_may_not_do_the_background_work_hears_what_to_grant(
    chatter_command: Run, login: Login, role: str
) -> None:
    done = chatter_command("worker", url=login(role), COLUMNS="400")
    assert done.returncode == 2
    _, said = done.stderr.splitlines()
    assert "The background work needs the rights of chatter_worker: permission denied" in said
    assert "grant chatter_worker to" in said


@pytest.mark.parametrize(
    ("role", "hidden", "seen"),
    [
        ("chatter_app", ["the worker"], {"messages", "events", "running"}),
        ("chatter_reader", ["events"], {"messages", "deltas_waiting", "running"}),
        (
            "chatter_worker",
            ["users, conversations and messages", "events"],
            {"deltas_waiting", "running", "bytes"},
        ),
    ],
)
def test_status_shows_what_a_login_may_see(
    chatter_command: Run,
    url: str,
    db: psycopg.Connection[Any],
    login: Login,
    role: str,
    hidden: list[str],
    seen: set[str],
) -> None:
    db.execute("insert into chatter.conversations (external_id) values ('c')")
    db.execute(
        "insert into chatter.messages (conversation_id, role) "
        "select id, 'assistant' from chatter.conversations"
    )
    whole = json.loads(chatter_command("status", "--json", url=url).stdout)
    assert whole["hidden"] == []
    theirs = login(role)
    facts = json.loads(chatter_command("status", "--json", url=theirs).stdout)
    assert facts["hidden"] == hidden
    assert seen <= facts.keys()
    assert facts == {name: whole[name] for name in facts} | {"hidden": hidden}
    shown = chatter_command("status", url=theirs)
    assert shown.returncode == 0
    assert f"Not for this login to see: {'; '.join(hidden)}." in shown.stdout


def test_what_waits_in_the_spool_is_left_to_who_may_book_it(
    chatter_command: Run, url: str, login: Login
) -> None:
    def waiting() -> tuple[int, int]:
        facts = json.loads(chatter_command("status", "--json", url=url).stdout)
        return facts["spooled_records"], facts["refused_records"]

    ended = RunEnded(execution_id=uuid4(), status="completed", finished_at=datetime.now(UTC))
    spool = open_spool(database.place(url))
    spool.append([ended])
    spool.close()
    reader = login("chatter_reader")
    done = chatter_command("report", "cost_by_model", url=reader)
    assert (done.returncode, done.stderr) == (0, "")
    assert waiting() == (1, 0)
    # Who doesn't say that it only reads tries, and it still waits for who may.
    with Chatter.connect(reader):
        pass
    assert waiting() == (1, 0)
    with Chatter.connect(url):
        pass
    assert waiting() == (0, 0)


def test_who_only_reads_records_nothing(url: str) -> None:
    with (
        Chatter.connect(url, records=False) as chatter,
        pytest.raises(UsageError, match="records=False"),
    ):
        chatter.recorder(conversation="c")
