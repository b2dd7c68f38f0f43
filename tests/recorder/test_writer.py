"""The writer under trouble: least privilege, lost connections, records Postgres refuses."""

import asyncio
import os
import resource
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec
import psycopg
import pytest
from langchain_core.messages import HumanMessage

from chatter_db import Chatter, RecordingFailed
from chatter_db.recorder import writer as writer_module
from chatter_db.recorder.records import MessageRow, RunEnded, RunStarted, ToolCallRow, ToolRun
from chatter_db.recorder.spool import Spool, open_spool
from chatter_db.recorder.writer import Writer
from tests.conftest import ONE_SERVER
from tests.polling import wait_until, wait_until_blocked
from tests.providers.openai import Provider, Reply
from tests.recorder.test_recorder import agent, model_of, rows


def start(**changes: Any) -> RunStarted:
    fields: dict[str, Any] = {
        "execution_id": uuid4(),
        "conversation_id": None,
        "new_conversation": False,
        "conversation_external_id": "c",
        "user_external_id": None,
        "workflow_name": "test",
        "correlation_id": "x",
        "started_at": datetime.now(UTC),
        "metadata": {},
    }
    return RunStarted(**{**fields, **changes})


def message(run: RunStarted, **changes: Any) -> MessageRow:
    fields: dict[str, Any] = {
        "id": uuid4(),
        "execution_id": run.execution_id,
        "role": "assistant",
        "kind": "step",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "usage_status": "reported",
        "correlation_id": "x",
        "metadata": {},
        "created_at": datetime.now(UTC),
    }
    return MessageRow(**{**fields, **changes})


@pytest.fixture
def writer(url: str) -> Any:
    opened = Writer(url, open_spool("test"))
    yield opened
    opened.close()


async def test_an_app_role_without_more_rights_is_enough(
    url: str, db: psycopg.Connection[Any], provider: Provider, books_hold: Callable[[], None]
) -> None:
    """The app's login can't write a total, and the totals are right all the same."""
    login = f"App-{uuid4().hex[:8]}"
    identifier = psycopg.sql.Identifier(login)
    db.execute(
        psycopg.sql.SQL("create role {} login password 'app' in role chatter_app").format(
            identifier
        )
    )
    try:
        place = urlsplit(url)
        app_url = f"postgresql://{login}:app@{place.hostname}:{place.port}{place.path}"
        provider.script = [Reply(tools=(("weather", {"city": "Rome"}),)), Reply("Wet.")]
        async with Chatter.connect(app_url) as chatter:
            run = chatter.recorder(conversation="c", user="u")
            await agent(model_of(provider)).ainvoke(
                {"messages": [HumanMessage("Rain?")]}, config={"callbacks": [run]}
            )
            assert chatter.lost_records == 0
            assert run.last_run is not None and run.last_run.conversation_id is not None
            assert await chatter.delete_conversation(run.last_run.conversation_id)
        totals = db.execute("select message_count, total_tokens from chatter.conversations")
        assert totals.fetchall() == [(2, 30)]
        books_hold()
    finally:
        db.execute(psycopg.sql.SQL("drop role {}").format(identifier))


def test_a_repeated_record_changes_nothing(writer: Writer, db: psycopg.Connection[Any]) -> None:
    run = start()
    row = message(run)
    end = RunEnded(execution_id=run.execution_id, status="completed", finished_at=datetime.now(UTC))
    for _ in range(2):
        writer.submit([run, row, end]).result()
    totals = db.execute("select prompt_tokens, completion_tokens from chatter.conversations")
    assert totals.fetchall() == [(10, 5)]


def test_an_end_that_comes_late_is_the_end_of_what_passed_for_abandoned(
    writer: Writer, db: psycopg.Connection[Any]
) -> None:
    run = start()
    writer.submit([run]).result()
    db.execute("update chatter.workflow_executions set status = 'abandoned'")
    ended = datetime.now(UTC)
    for end in (
        RunEnded(execution_id=run.execution_id, status="completed", finished_at=ended),
        # And no other one after it.
        RunEnded(execution_id=run.execution_id, status="failed", finished_at=datetime.now(UTC)),
    ):
        writer.submit([end]).result()
    found = db.execute("select status, finished_at from chatter.workflow_executions")
    assert found.fetchall() == [("completed", ended)]


def test_a_clock_that_was_set_back_makes_no_run_of_less_than_nothing(
    writer: Writer, db: psycopg.Connection[Any]
) -> None:
    run = start()
    earlier = run.started_at - timedelta(seconds=2)
    end = RunEnded(execution_id=run.execution_id, status="completed", finished_at=earlier)
    writer.submit([run, end]).result()
    took = db.execute("select finished_at - started_at from chatter.workflow_executions")
    assert took.fetchall() == [(timedelta(),)]


def test_a_tool_that_runs_later_is_the_one_that_was_asked_for_last(
    writer: Writer, db: psycopg.Connection[Any]
) -> None:
    """Some providers begin their ids anew with every answer."""
    run, asked = start(), datetime.now(UTC)
    writer.submit([run]).result()
    for number in range(3):
        answer = message(run, created_at=asked + timedelta(seconds=number))
        call = ToolCallRow(
            id=uuid4(),
            execution_id=run.execution_id,
            message_id=answer.id,
            tool_call_id="call_0",
            tool_name=f"tool {number}",
        )
        writer.submit([answer, call]).result()
        if number == 0:
            died = ToolRun(
                id=call.id, execution_id=run.execution_id, status="running", started_at=asked
            )
            writer.submit([died]).result()
    later = start(started_at=asked + timedelta(minutes=1))
    ran = ToolRun(
        id=uuid4(),
        execution_id=later.execution_id,
        tool_call_id="call_0",
        status="completed",
        started_at=asked + timedelta(minutes=1),
    )
    writer.submit([later, ran]).result()
    found = db.execute("select tool_name, status from chatter.tool_calls order by tool_name")
    assert found.fetchall() == [
        ("tool 0", "running"),
        ("tool 1", "requested"),
        ("tool 2", "completed"),
    ]


def test_a_tool_that_begins_and_ends_within_a_commit_has_ended(
    writer: Writer, db: psycopg.Connection[Any]
) -> None:
    run = start()
    answer = message(run)
    call = ToolCallRow(uuid4(), run.execution_id, answer.id, "call_0", "tool")
    begun = ToolRun(
        id=call.id, execution_id=run.execution_id, status="running", started_at=datetime.now(UTC)
    )
    ended = msgspec.structs.replace(begun, status="completed", duration_ms=5.0)
    writer.submit([run, answer, call, begun, ended]).result()
    found = db.execute("select status, duration_ms from chatter.tool_calls")
    assert found.fetchall() == [("completed", 5)]


def test_what_is_ready_together_shares_a_commit(
    writer: Writer, db: psycopg.Connection[Any]
) -> None:
    run = start()
    writer.submit([run]).result()
    with db.transaction():
        # The first row waits for this lock; the others gather behind it.
        db.execute("select chatter.lock_conversations(id) from chatter.conversations")
        futures = [writer.submit([message(run)]) for _ in range(50)]
    for future in futures:
        future.result()
    commits = db.execute("select count(distinct xmin::text), count(*) from chatter.messages")
    transactions, booked = commits.fetchone() or (0, 0)
    assert booked == 50
    assert transactions <= 3


def test_a_refused_record_is_alone(
    writer: Writer, db: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    run = start()
    writer.submit([run]).result()
    with db.transaction():
        db.execute("select chatter.lock_conversations(id) from chatter.conversations")
        futures = [writer.submit([message(run)]) for _ in range(3)]
        refused = writer.submit([message(run, role="ghost", content="secret")])
        futures += [writer.submit([message(run)]) for _ in range(3)]
    for future in futures:
        future.result()
    with pytest.raises(RecordingFailed, match="messages_role_check"):
        refused.result()
    assert (writer.lost, writer.reduced) == (1, 0)
    assert "prompt_tokens=10" in caplog.text
    assert "secret" not in caplog.text
    assert db.execute("select prompt_tokens from chatter.conversations").fetchall() == [(60,)]


def test_a_refused_record_is_booked_in_reduced_form(
    writer: Writer,
    db: psycopg.Connection[Any],
    spool_dir: Path,
    caplog: pytest.LogCaptureFixture,
    books_hold: Callable[[], None],
) -> None:
    run = start()
    writer.submit([run]).result()
    half = message(
        run,
        prompt_tokens=-1,
        content="secret",
        usage={"prompt_tokens": -1},
        tool_calls=[{"name": "search"}],
    )
    whole = message(
        run, model_used="m", cost=Decimal("0.5"), cost_source="provider", finish_reason="x"
    )
    nothing = message(
        run,
        prompt_tokens=-1,
        completion_tokens=10**12,
        cost=Decimal(-1),
        cost_source="provider",
        response_time_ms=-1.0,
    )
    db.execute("alter table chatter.messages add check (finish_reason <> 'x')")
    with db.transaction():
        db.execute("select chatter.lock_conversations(id) from chatter.conversations")
        futures = [writer.submit([each]) for each in (half, message(run), whole, nothing)]
    for future in futures:
        future.result()
    assert (writer.lost, writer.reduced) == (0, 3)
    found = db.execute(
        "select id, prompt_tokens, completion_tokens, cost, usage_status, content, usage, "
        "tool_calls, metadata ->> 'reduced' from chatter.messages where metadata ? 'reduced'"
    ).fetchall()
    assert {row[0]: row[1:5] for row in found} == {
        half.id: (None, 5, None, "reported"),
        whole.id: (10, 5, Decimal("0.5"), "reported"),
        nothing.id: (None, None, None, "unknown"),
    }
    assert {row[5:8] for row in found} == {(None, None, None)}
    assert all("violates check constraint" in row[8] for row in found)
    assert "secret" not in caplog.text
    (aside,) = spool_dir.glob("*/refused.json-lines")
    assert aside.read_text().count("secret") == 1
    books_hold()


def test_a_run_that_is_refused_as_it_is_begins_and_ends(
    writer: Writer, db: psycopg.Connection[Any], books_hold: Callable[[], None]
) -> None:
    db.execute(
        "alter table chatter.workflow_executions"
        " add check (error_message <> 'x'), add check (not metadata ? 'x')"
    )
    run = start(metadata={"x": 1})
    writer.submit([run]).result()
    end = RunEnded(
        execution_id=run.execution_id,
        status="failed",
        finished_at=datetime.now(UTC),
        error_type="ValueError",
        error_message="x",
    )
    writer.submit([end]).result()
    assert (writer.lost, writer.reduced) == (0, 2)
    found = db.execute(
        "select status, error_type, error_message, metadata ->> 'reduced' "
        "like '%violates check%' from chatter.workflow_executions"
    )
    assert found.fetchall() == [("failed", "ValueError", None, True)]
    books_hold()


async def test_a_connection_that_dies_costs_no_record(
    url: str, db: psycopg.Connection[Any], provider: Provider
) -> None:
    graph = agent(model_of(provider))
    async with Chatter.connect(url) as chatter:

        async def turn() -> None:
            await graph.ainvoke(
                {"messages": [HumanMessage("Hi")]}, config={"callbacks": [chatter.recorder()]}
            )

        for _ in range(5):
            await asyncio.gather(
                turn(),
                asyncio.to_thread(
                    db.execute,
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where application_name = 'chatter' and datname = current_database()",
                ),
            )
        assert chatter.lost_records == 0
        assert len([m for m in await rows(chatter) if m.model_call]) == 5


def test_a_connection_that_was_ended_while_idle_is_nobody_s_trouble(
    writer: Writer, db: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """As idle_session_timeout, a restart or a pooler ends it."""
    writer.submit([start()]).result()
    ended = db.execute(
        "select pid, pg_terminate_backend(pid) from pg_stat_activity "
        "where application_name = 'chatter' and datname = current_database()"
    ).fetchall()
    assert ended
    wait_until(lambda: all(is_gone(pid) for pid, _ in ended))
    run = start()
    writer.submit([run, message(run)]).result()
    assert caplog.messages == []


def test_a_serialization_failure_is_tried_again(
    writer: Writer, db: psycopg.Connection[Any]
) -> None:
    """A database whose default is REPEATABLE READ gives 40001 where two writers meet."""
    db.execute(
        psycopg.sql.SQL(
            "alter database {} set default_transaction_isolation = 'repeatable read'"
        ).format(psycopg.sql.Identifier(db.info.dbname))
    )
    fresh = Writer(
        f"postgresql://{db.info.user}:{db.info.password}@{db.info.host}:{db.info.port}/{db.info.dbname}",
        open_spool("fresh"),
    )
    run = start()
    fresh.submit([run]).result()
    with db.transaction():
        db.execute(
            "insert into chatter.messages (conversation_id, role) "
            "select id, 'user' from chatter.conversations"
        )
        future = fresh.submit([message(run)])
        wait_until_blocked(db)
    future.result()
    fresh.close()
    assert db.execute(
        "select message_count, prompt_tokens from chatter.conversations"
    ).fetchall() == [(1, 10)]


def test_a_writer_that_was_closed_says_so(url: str) -> None:
    closed = Writer(url, open_spool("test"))
    closed.close()
    with pytest.raises(RecordingFailed, match="after its Chatter was closed"):
        closed.submit([start()])


def test_what_was_submitted_is_booked_before_closing(url: str, db: psycopg.Connection[Any]) -> None:
    writer = Writer(url, open_spool("test"))
    run = start()
    writer.submit([run])
    for _ in range(100):
        writer.submit([message(run)])
    writer.close()
    assert db.execute("select count(*) from chatter.messages").fetchall() == [(100,)]


def test_a_run_that_is_open_when_its_process_ends_is_abandoned_at_once(
    url: str, db: psycopg.Connection[Any]
) -> None:
    """A process that was closed is not waited for as one that fell silent."""
    writer = Writer(url, open_spool("test"))
    writer.submit([start(recorder_id=writer.id)]).result()
    sweep = "select chatter.sweep_executions()"
    assert db.execute(sweep).fetchone() == (0,)
    writer.close()
    assert db.execute(sweep).fetchone() == (1,)


def test_texts_of_any_kind_are_booked(writer: Writer, db: psycopg.Connection[Any]) -> None:
    run = start(conversation_external_id="\ud800\0x")
    row = message(
        run,
        content="é" * 5_000_000,
        tool_calls=[{"args": {"k\0": "\udfff"}}],
        usage={"odd": float("nan"), "n": {"deep": [1, None, True]}},
    )
    writer.submit([run, row]).result()
    stored = db.execute(
        "select octet_length(content), right(content, 40), tool_calls, usage from chatter.messages"
    ).fetchone()
    assert stored is not None
    assert stored[0] <= 8 * 1024 * 1024
    assert stored[1].endswith("[cut by the recorder: 10000000 bytes]")
    assert stored[2] == [{"args": {"k\ufffd": "\ufffd"}}]
    assert stored[3] == {"odd": None, "n": {"deep": [1, None, True]}}


def away(url: str) -> str:
    """The address of a server that isn't there, under the same spool's name."""
    place = urlsplit(url)
    return f"postgresql://{place.username}:{place.password}@127.0.0.1:1{place.path}"


def booked_calls(db: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return db.execute(
        "select count(*), sum(prompt_tokens) from chatter.messages where model_call"
    ).fetchall()


def test_with_postgres_away_records_wait_on_disk(
    url: str, db: psycopg.Connection[Any], spool_dir: Path, books_hold: Callable[[], None]
) -> None:
    """The caller goes on; the next writer books what waited, once, in order."""
    lonely = Writer(away(url), open_spool("test"))
    run = start()
    answer = message(run)
    end = RunEnded(
        execution_id=run.execution_id,
        status="completed",
        finished_at=datetime.now(UTC),
        answer_id=answer.id,
    )
    for records in ([run], [answer], [message(run, prompt_tokens=7)], [end]):
        lonely.submit(records).result(timeout=20)
    lonely.close()
    (segment,) = spool_dir.glob("*/*.jsonl")
    assert segment.stat().st_mode & 0o777 == 0o600
    assert segment.parent.stat().st_mode & 0o777 == 0o700
    copy = segment.read_bytes()

    def book() -> None:
        writer = Writer(url, open_spool("test"))
        wait_until(lambda: not list(spool_dir.glob("*/*.jsonl")))
        assert writer.lost == 0
        writer.close()

    book()
    totals = db.execute("select message_count, prompt_tokens from chatter.conversations")
    assert totals.fetchall() == [(1, 17)]
    # A crash after the commit and before the removal: the same segment again.
    segment.write_bytes(copy + b'[{"half a li')
    book()
    assert booked_calls(db) == [(2, 17)]
    books_hold()


@ONE_SERVER
def test_where_a_process_may_open_no_more_files_records_wait_on_disk(
    url: str, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "RETRY_FOR_SECONDS", 0.1)
    with closing(Writer(url, open_spool("test"))) as writer:
        run = start()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.open(os.devnull, os.O_RDONLY)
        os.close(free)
        # One: a connection takes two, for a moment.
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
        try:
            writer.submit([run]).result(timeout=20)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        writer.submit([message(run)]).result(timeout=20)
        writer.flush().result(timeout=20)
        assert writer.lost == 0
    assert booked_calls(db) == [(1, 10)]


def test_new_records_queue_up_behind_the_waiting_ones(
    url: str, db: psycopg.Connection[Any], spool_dir: Path
) -> None:
    lonely = Writer(away(url), open_spool("test"))
    run = start()
    lonely.submit([run]).result(timeout=20)
    lonely.close()
    writer = Writer(url, open_spool("test"))
    futures = [writer.submit([message(run)]) for _ in range(20)]
    for future in futures:
        future.result(timeout=20)
    writer.close()
    assert booked_calls(db) == [(20, 200)]


def test_a_living_process_keeps_its_segment(url: str, spool_dir: Path) -> None:
    lonely = Writer(away(url), open_spool("test"))
    lonely.submit([start()]).result(timeout=20)
    with closing(open_spool("test")) as another:
        assert not another.waiting
    lonely.close()
    with closing(open_spool("test")) as heir:
        assert heir.waiting


def test_a_full_spool_is_loud(url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lonely = Writer(away(url), Spool(tmp_path, limit_bytes=1000))
    run = start()
    lonely.submit([run]).result(timeout=20)
    with pytest.raises(RecordingFailed, match="has reached its limit"):
        lonely.submit([message(run, content="x" * 1000)]).result(timeout=20)
    assert lonely.lost == 1
    assert "prompt_tokens=10" in caplog.text
    lonely.close()


def test_what_postgres_refuses_is_put_aside(
    url: str, db: psycopg.Connection[Any], spool_dir: Path
) -> None:
    lonely = Writer(away(url), open_spool("test"))
    run = start()
    never, broken = message(run, tool_call_id="never"), message(run, prompt_tokens=-1)
    db.execute("alter table chatter.messages add check (tool_call_id <> 'never')")
    for records in ([run], [never], [broken], [message(run)]):
        lonely.submit(records).result(timeout=20)
    lonely.close()
    writer = Writer(url, open_spool("test"))
    wait_until(lambda: not list(spool_dir.glob("*/*.jsonl")))
    assert (writer.lost, writer.reduced) == (1, 1)
    writer.close()
    (refused,) = spool_dir.glob("*/refused.json-lines")
    assert '"prompt_tokens":-1' in refused.read_text()
    assert '"never"' in refused.read_text()
    assert booked_calls(db) == [(2, 10)]


async def test_an_outage_in_the_middle_of_runs_loses_nothing(
    url: str, db: psycopg.Connection[Any], provider: Provider, books_hold: Callable[[], None]
) -> None:
    """The database refuses connections for a while; every answered call has one row."""
    graph = agent(model_of(provider))
    name = psycopg.sql.Identifier(db.info.dbname)
    outside = f"{url.rsplit('/', 1)[0]}/postgres"
    async with Chatter.connect(url) as chatter:

        async def turns() -> None:
            for _ in range(4):
                await graph.ainvoke(
                    {"messages": [HumanMessage("Hi")]},
                    config={"callbacks": [chatter.recorder(conversation="c")]},
                )

        runs = asyncio.gather(*(turns() for _ in range(5)))
        await asyncio.sleep(0)
        with psycopg.connect(outside, autocommit=True) as admin:
            admin.execute(psycopg.sql.SQL("alter database {} allow_connections false").format(name))
            admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where application_name = 'chatter' and datname = %s",
                [db.info.dbname],
            )
            await runs
            admin.execute(psycopg.sql.SQL("alter database {} allow_connections true").format(name))
    async with Chatter.connect(url) as chatter:
        assert chatter.lost_records == 0
    assert len(provider.billed) == 20
    assert booked_calls(db) == [(20, 200)]
    statuses = db.execute("select distinct status from chatter.workflow_executions")
    assert statuses.fetchall() == [("completed",)]
    totals = db.execute("select message_count from chatter.conversations")
    assert totals.fetchall() == [(40,)]
    books_hold()


def is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False
