"""100_users, 110_conversations, 120_workflow_executions and 140_tool_calls: what a row may be."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from psycopg import errors

from .books import Books

# `on delete restrict` has an SQLSTATE of its own from Postgres 18 on.
REFERENCED = (errors.ForeignKeyViolation, errors.RestrictViolation)

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def new_row(books: Books, table: str, **columns: Any) -> Any:
    """A row of `table` with the columns it needs, and `columns`."""
    needed: dict[str, dict[str, Any]] = {
        "users": {"external_id": str(uuid4())},
        "conversations": {"external_id": None},
        "workflow_executions": {"workflow_name": "support"},
        "tool_calls": {"execution_id": None, "tool_name": "search"},
    }
    values = {**needed[table], **columns}
    if table == "tool_calls" and values["execution_id"] is None:
        values["execution_id"] = books.execution()
    return books.insert_rows(table, [values])[0]


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("users", "external_id", ""),
        ("users", "external_id", "x" * 501),
        ("users", "role", "root"),
        ("users", "metadata", [1]),
        ("conversations", "external_id", ""),
        ("conversations", "external_id", "x" * 501),
        ("conversations", "title", "x" * 2001),
        ("conversations", "status", "gone"),
        ("conversations", "metadata", [1]),
        ("workflow_executions", "workflow_name", ""),
        ("workflow_executions", "workflow_name", "x" * 501),
        ("workflow_executions", "status", "done"),
        ("workflow_executions", "correlation_id", ""),
        ("workflow_executions", "correlation_id", "x" * 501),
        ("workflow_executions", "metadata", [1]),
        ("workflow_executions", "finished_at", NOON),  # of a run that still runs
        ("tool_calls", "tool_name", ""),
        ("tool_calls", "tool_name", "x" * 501),
        ("tool_calls", "status", "done"),
        ("tool_calls", "duration_ms", -1.0),
        ("tool_calls", "duration_ms", float("nan")),
        ("tool_calls", "duration_ms", float("inf")),
    ],
    ids=lambda value: str(value)[:12],
)
def test_an_absurd_value_is_refused_by_the_name_of_its_column(
    books: Books, table: str, column: str, value: Any
) -> None:
    with pytest.raises(errors.CheckViolation) as refused:
        new_row(books, table, **{column: value})
    assert refused.value.diag.constraint_name == f"{table}_{column}_check"


@pytest.mark.parametrize(
    ("table", "column", "target"),
    [
        ("conversations", "user_id", "users"),
        ("workflow_executions", "conversation_id", "conversations"),
        ("workflow_executions", "user_id", "users"),
        ("tool_calls", "execution_id", "workflow_executions"),
        ("tool_calls", "message_id", "messages"),
    ],
)
def test_a_missing_parent_is_refused(books: Books, table: str, column: str, target: str) -> None:
    missing = uuid4()
    with pytest.raises(errors.ForeignKeyViolation) as refused:
        new_row(books, table, **{column: missing})
    assert refused.value.diag.constraint_name == f"{table}_{column}_fkey"
    assert refused.value.diag.message_detail == (
        f'Key ({column})=({missing}) is not present in table "{target}".'
    )


def test_a_user_with_conversations_or_runs_stays(books: Books) -> None:
    user = books.user(str(uuid4()))
    conversation = books.conversation(user_id=user)
    delete = "delete from chatter.users where id = %s"
    with pytest.raises(REFERENCED, match="conversations_user_id_fkey"):
        books.connection.execute(delete, [user])
    books.delete_conversation(conversation)
    run = books.execution(user_id=user)
    with pytest.raises(REFERENCED, match="workflow_executions_user_id_fkey"):
        books.connection.execute(delete, [user])
    books.delete_execution(run)
    assert books.connection.execute(delete, [user]).rowcount == 1


def test_users_have_different_external_ids(books: Books) -> None:
    name = str(uuid4())
    books.user(name)
    with pytest.raises(errors.UniqueViolation) as refused:
        books.user(name)
    assert refused.value.diag.constraint_name == "users_external_id_key"


def test_an_external_id_is_unique_per_user(books: Books) -> None:
    thread = str(uuid4())
    ada, bob = books.user(str(uuid4())), books.user(str(uuid4()))
    for user in (ada, bob, None):
        books.conversation(user_id=user, external_id=thread)
    for user in (ada, bob, None):
        with pytest.raises(errors.UniqueViolation) as refused:
            books.conversation(user_id=user, external_id=thread)
        assert refused.value.diag.constraint_name == "conversations_user_id_external_id_key"


def test_conversations_without_external_id_are_many(books: Books) -> None:
    user = books.user(str(uuid4()))
    assert len({books.conversation(user_id=user) for _ in range(2)}) == 2


# --- finished_at


def test_a_run_that_ends_without_saying_when_ended_now(books: Books) -> None:
    run = books.execution(started_at=NOON)
    with books.connection.transaction():
        books.connection.execute("set local chatter.frozen_clock = '2026-05-04 12:30:00+00'")
        books.change_execution(run, status="completed")
    assert books.field("workflow_executions", run, "finished_at") == NOON.replace(minute=30)


def test_a_run_that_is_over_when_it_is_written_ended_now(books: Books) -> None:
    with books.connection.transaction():
        books.connection.execute("set local chatter.frozen_clock = '2026-05-04 12:00:00+00'")
        run = books.execution(status="failed")
    assert books.field("workflow_executions", run, "finished_at") == NOON


def test_a_run_that_says_when_it_ended_is_believed(books: Books) -> None:
    run = books.execution()
    books.change_execution(run, status="cancelled", finished_at=NOON)
    assert books.field("workflow_executions", run, "finished_at") == NOON
    books.change_execution(run, status="abandoned")
    assert books.field("workflow_executions", run, "finished_at") == NOON
    assert (
        books.field(
            "workflow_executions",
            books.execution(status="completed", finished_at=NOON),
            "finished_at",
        )
        == NOON
    )


def test_a_running_run_has_no_end(books: Books) -> None:
    run = books.execution()
    assert books.field("workflow_executions", run, "finished_at") is None
    books.change_execution(run, status="completed")
    with pytest.raises(errors.CheckViolation) as refused:
        books.change_execution(run, status="running")
    assert refused.value.diag.constraint_name == "workflow_executions_finished_at_check"
    books.change_execution(run, status="running", finished_at=None)
    assert books.field("workflow_executions", run, "finished_at") is None


# --- tool calls and the reply that asked for them


def test_a_tool_call_outlives_its_message(books: Books) -> None:
    conversation = books.conversation()
    run = books.execution(conversation)
    message = books.message(conversation, execution_id=run)
    call = books.tool_call(run, message_id=message)
    books.delete(message)
    assert books.field("tool_calls", call, "message_id") is None
    assert books.run_totals(run).tool_calls == 1


def test_a_run_with_tool_calls_stays(books: Books) -> None:
    run = books.execution()
    call = books.tool_call(run)
    with pytest.raises(REFERENCED, match="tool_calls_execution_id_fkey"):
        books.delete_execution(run)
    books.delete_tool_calls(call)
    assert books.delete_execution(run) == 1
