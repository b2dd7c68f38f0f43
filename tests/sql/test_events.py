"""200 to 210: which change is which event, how long it is kept, and whom it wakes."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from .books import Books

Row = tuple[Any, ...]


@pytest.fixture
def books(db: psycopg.Connection[tuple[object, ...]]) -> Books:
    """A database of each test's own: events can't be taken back."""
    return Books(db)


@pytest.fixture
def other(url: str) -> Iterator[Books]:
    """A second connection to the same books."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield Books(connection)


class Reader:
    """Follows the events from a position, as a psql user would."""

    def __init__(self, books: Books, position: str | None = None, **filters: Any) -> None:
        self.books = books
        self.position = position
        self.filters = filters

    def read(self, limit: int = 1000) -> list[Row]:
        """The next events, as (type, conversation)."""
        names: list[sql.Composable] = [sql.SQL("p_position => %s"), sql.SQL("p_limit => %s")]
        names += [sql.SQL("p_{} => %s").format(sql.SQL(name)) for name in self.filters]
        found = self.books.connection.execute(
            sql.SQL("select * from chatter.events_after({})").format(sql.SQL(", ").join(names)),
            [self.position, limit, *self.filters.values()],
        ).fetchall()
        if found:
            self.position = str(found[-1][0])
        return found

    def types(self) -> list[str]:
        return [row[2] for row in self.read()]


def now(books: Books) -> str:
    return str(books.value("select chatter.events_now()"))


# --- which change is which event


def test_a_message_and_a_model_call(books: Books) -> None:
    user = books.user("ada")
    conversation = books.conversation(user_id=user)
    run = books.execution(conversation, user_id=user, correlation_id="r-1")
    reader = Reader(books, now(books))
    asked = books.message(conversation, role="user", content="secret words")
    assert reader.types() == ["message_created", "conversation_updated"]
    answered = books.message(
        conversation,
        execution_id=run,
        prompt_tokens=10,
        completion_tokens=5,
        cost="0.0012",
        provider_used="openai",
        model_used="gpt-4o",
        response_time_ms=250.5,
        time_to_first_token_ms=50,
        status="failed",
        error_type="Timeout",
        error_message="secret words",
        content="secret words",
        correlation_id="r-1",
    )
    created, response, updated = reader.read()
    assert [row[2] for row in (created, response, updated)] == [
        "message_created",
        "model_response",
        "conversation_updated",
    ]
    assert [row[3] for row in (created, response)] == ["conversation", "workflow"]
    assert created[4:8] == response[4:8] == (user, conversation, run, "r-1")
    assert updated[4:7] == (user, conversation, None)
    assert created[8] == {
        "v": 1,
        "message_id": str(answered),
        "role": "assistant",
        "kind": "turn",
        "status": "failed",
        "provider": "openai",
        "model": "gpt-4o",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "cost": "0.0012",
        "usage_status": "reported",
        "response_time_ms": 250.5,
        "error_type": "Timeout",
    }
    assert response[8] == created[8]
    assert updated[8] == {
        "v": 1,
        "status": "active",
        "message_count": 2,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "total_cost": "0.0012",
        "unpriced_calls": 0,
    }
    everything = books.rows("select e::text from chatter.events as e")
    assert "secret" not in str(everything) + str(created) + str(response)
    assert asked != answered


def test_a_statement_tells_each_row_and_each_conversation_once(books: Books) -> None:
    conversations = books.conversations(3)
    reader = Reader(books, now(books))
    books.messages({"conversation_id": id_, "role": "user"} for id_ in conversations * 4)
    types = reader.types()
    assert types.count("message_created") == 12
    assert types.count("conversation_updated") == 3
    assert len(types) == 15


def test_a_copy_from_psql_is_told(books: Books) -> None:
    conversation = books.conversation()
    reader = Reader(books, now(books))
    with books.connection.cursor().copy(
        "copy chatter.messages (conversation_id, role) from stdin"
    ) as copy:
        for _ in range(3):
            copy.write_row([str(conversation), "user"])
    assert reader.types() == ["message_created"] * 3 + ["conversation_updated"]


def test_a_change_of_figures_is_an_update_and_a_change_of_text_is_none(books: Books) -> None:
    conversation, other = books.conversations(2)
    message = books.message(conversation, prompt_tokens=1)
    reader = Reader(books, now(books))
    books.change(message, content="new words", metadata={"rating": 5})
    assert reader.read() == []
    books.change(message, prompt_tokens=7)
    (updated,) = reader.read()
    assert (updated[2], updated[8]["prompt_tokens"]) == ("conversation_updated", 7)
    changes: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
        ({"kind": "step"}, {"message_count": 0}),
        ({"role": "user"}, {"unpriced_calls": 0}),
        ({"role": "assistant"}, {"unpriced_calls": 1}),
        ({"completion_tokens": 3}, {"completion_tokens": 3}),
        ({"total_tokens": 99}, {"total_tokens": 99}),
        ({"cost": "0.5"}, {"total_cost": "0.5", "unpriced_calls": 0}),
    )
    for columns, figures in changes:
        books.change(message, **columns)
        (updated,) = reader.read()
        assert updated[8] == updated[8] | figures, columns
    books.move(message, to=other)
    assert {row[5]: row[8]["prompt_tokens"] for row in reader.read()} == {conversation: 0, other: 7}
    books.connection.execute("delete from chatter.messages")
    assert [(row[5], row[8]["prompt_tokens"]) for row in reader.read()] == [(other, 0)]


def test_a_conversation_tells_that_it_is_new_and_what_changed(books: Books) -> None:
    reader = Reader(books, now(books))
    conversation = books.conversation(title="a title")
    assert reader.types() == ["conversation_created"]
    books.connection.execute("update chatter.conversations set title = 'a title', metadata = '{}'")
    assert reader.read() == []
    books.connection.execute("update chatter.conversations set title = 'another'")
    assert reader.types() == ["conversation_updated"]
    books.value("select chatter.erase_conversation(%s)", conversation)
    (updated,) = reader.read()
    assert updated[8]["status"] == "deleted"


@pytest.mark.parametrize(
    ("status", "event"),
    [
        ("completed", "workflow_completed"),
        ("failed", "workflow_failed"),
        ("cancelled", "workflow_cancelled"),
        ("abandoned", "workflow_failed"),
    ],
)
def test_a_run_tells_of_its_beginning_and_its_end(books: Books, status: str, event: str) -> None:
    reader = Reader(books, now(books))
    run = books.execution(correlation_id="r-1")
    assert reader.types() == ["workflow_started"]
    books.connection.execute("update chatter.workflow_executions set metadata = '{\"a\": 1}'")
    assert reader.read() == []
    message = {"execution_id": run, "prompt_tokens": 7, "cost": "0.25"}
    books.message(books.conversation(), **message)
    for role in ("assistant", "assistant", "user"):
        books.message(books.conversation(), execution_id=run, role=role)
    for _ in range(2):
        books.tool_call(run)
    reader.read()
    books.connection.execute("update chatter.workflow_executions set status = %s", [status])
    (ended,) = reader.read()
    assert (ended[2], ended[6], ended[7]) == (event, run, "r-1")
    payload = dict(ended[8])
    for moment in ("started_at", "finished_at"):
        told = datetime.fromisoformat(payload.pop(moment))
        assert told == books.field("workflow_executions", run, moment)
    assert payload == {
        "v": 1,
        "workflow_name": "support",
        "status": status,
        "model_calls": 3,
        "tool_calls": 2,
        "total_tokens": 7,
        "total_cost": "0.25",
        "unpriced_calls": 2,
        "error_type": None,
    }
    books.execution(status=status)
    assert reader.types() == ["workflow_started", event]


def test_a_tool_call_is_told_with_its_run(books: Books) -> None:
    run = books.execution(books.conversation(), correlation_id="r-1")
    reader = Reader(books, now(books))
    message = books.message(books.conversation())
    reader.read()
    call = books.tool_call(
        run, tool_name="search", message_id=message, tool_call_id="call_1", duration_ms=7
    )
    (called,) = reader.read()
    assert (called[2], called[6], called[7]) == ("tool_called", run, "r-1")
    assert called[8] == {
        "v": 1,
        "tool_call": str(call),
        "message_id": str(message),
        "tool_call_id": "call_1",
        "tool_name": "search",
        "status": "requested",
        "duration_ms": 7,
    }
    books.connection.execute("update chatter.tool_calls set status = 'completed'")
    assert reader.read() == []


def test_failures_at_the_door_and_their_alert_are_told(books: Books) -> None:
    reader = Reader(books, now(books))
    books.connection.execute(
        "insert into chatter.security_events (event_type, ip_address, correlation_id) "
        "select 'login_failure', '203.0.113.7', 'r-1' from generate_series(1, 10)"
    )
    rows = reader.read()
    types = [(row[2], row[3]) for row in rows]
    assert types.count(("login_failure", "security")) == 10
    (alert,) = [row[8] for row in rows if (row[2], row[3]) == ("alert_raised", "alert")]
    until = "select blocked_until from chatter.alerts where id = %s"
    assert datetime.fromisoformat(alert["blocked_until"]) == books.value(until, alert["alert"])
    assert {**alert, "alert": None, "blocked_until": None} == {
        "v": 1,
        "alert": None,
        "rule": "failed_logins_per_address",
        "severity": "high",
        "subject": "ip_address",
        "events": 10,
        "blocked_until": None,
    }
    assert {row[7] for row in rows} == {"r-1"}
    assert "203.0.113.7" not in str(rows)


def test_nothing_is_told_of_what_was_rolled_back(books: Books) -> None:
    conversation = books.conversation()
    reader = Reader(books, now(books))
    with books.connection.transaction():
        books.message(conversation, role="user")
        with pytest.raises(errors.CheckViolation), books.connection.transaction():
            books.message(conversation, role="user")
            books.message(conversation, prompt_tokens=-1)
        books.message(conversation, role="user")
    assert reader.types().count("message_created") == 2
    with books.connection.transaction(force_rollback=True):
        books.message(conversation, role="user")
    assert reader.read() == []


def test_statements_without_rows_tell_nothing(books: Books) -> None:
    reader = Reader(books, now(books))
    for statement in (
        "insert into chatter.messages (conversation_id, role) select id, 'user' "
        "from chatter.conversations where false",
        "update chatter.messages set cost = 1",
        "delete from chatter.messages",
        "insert into chatter.conversations (title) select 'x' where false",
        "insert into chatter.workflow_executions (workflow_name) select 'x' where false",
        "insert into chatter.tool_calls (execution_id, tool_name) "
        "select id, 'x' from chatter.workflow_executions",
        "insert into chatter.security_events (event_type) select 'login' where false",
    ):
        books.connection.execute(statement.encode())
    assert reader.read() == []


def test_what_is_gone_leaves_its_id(books: Books) -> None:
    run = books.execution(books.conversation())
    reader = Reader(books, now(books))
    message = books.message(books.conversation(), role="user")
    call = books.tool_call(run)
    for table in ("tool_calls", "messages", "workflow_executions"):
        books.connection.execute(f"delete from chatter.{table}".encode())
    payloads = {row[2]: row[8] for row in reader.read()}
    assert payloads["message_created"] == {"v": 1, "message_id": str(message), "gone": True}
    assert payloads["tool_called"] == {"v": 1, "tool_call": str(call), "gone": True}
    runs = [row[8] for row in Reader(books).read() if row[2] == "workflow_started"]
    assert runs == [{"v": 1, "gone": True}]


# --- the record


@pytest.mark.parametrize(
    "statement",
    [
        "update chatter.events set payload = '{}'",
        "delete from chatter.events",
        "truncate chatter.events",
    ],
)
def test_the_outbox_is_append_only(books: Books, statement: str) -> None:
    books.conversation()
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="append-only") as refused:
        books.connection.execute(statement.encode())
    assert "prune_events" in str(refused.value.diag.message_hint)


def test_no_event_without_a_cause(books: Books) -> None:
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="triggers of their causes"):
        books.connection.execute("select chatter.record_event('made_up', 'alert', '{}')")


@pytest.mark.parametrize("event_type", ["Made up", "x", "x" * 64, None])
def test_a_trigger_of_ones_own_names_a_proper_event(
    own_books: Books, event_type: str | None
) -> None:
    own_books.connection.execute(
        """
        create table cause (event_type text);
        create function tg_cause() returns trigger language plpgsql as $$
        begin
          perform chatter.record_event(new.event_type, 'alert', '{}');
          return null;
        end $$;
        create trigger cause after insert on cause for each row execute function tg_cause();
        """
    )
    own_books.connection.execute("insert into cause values ('made_up')")
    with pytest.raises(errors.InvalidParameterValue, match="is no event type"):
        own_books.connection.execute("insert into cause values (%s)", [event_type])


def test_the_app_reads_events_and_writes_none(books: Books) -> None:
    books.connection.execute("set role chatter_app")
    reader = Reader(books, now(books))
    books.message(books.conversation(), role="user")
    assert len(reader.read()) == 3
    for statement in (
        "insert into chatter.events (event_type, category) values ('made_up', 'alert')",
        "select chatter.record_event('made_up', 'alert', '{}')",
        "select chatter.prune_events(now())",
        "select chatter.ring_bell()",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            books.connection.execute(statement.encode())


# --- retention


def test_pruning_tells_whom_it_passed_by(books: Books) -> None:
    early = now(books)
    books.conversation()
    middle = now(books)
    cut = books.value("select clock_timestamp()")
    books.conversation()
    assert books.value("select chatter.prune_events(%s)", cut) == 1
    with pytest.raises(psycopg.Error, match="removed by retention") as refused:
        Reader(books, early).read()
    assert refused.value.sqlstate == "CH410"
    assert Reader(books, middle).types() == ["conversation_created"]
    assert Reader(books).types() == ["conversation_created"]


def test_pruning_waits_for_open_transactions(books: Books, other: Books) -> None:
    with other.connection.transaction():
        other.conversation()
        books.conversation()
        assert books.value("select chatter.prune_events(clock_timestamp())") == 0
    assert books.value("select chatter.prune_events(clock_timestamp())") == 2


def test_pruning_nothing_passes_nobody_by(books: Books) -> None:
    position = now(books)
    books.conversation()
    assert books.value("select chatter.prune_events('2020-01-01')") == 0
    assert len(Reader(books, position).read()) == 1


@pytest.mark.parametrize("before", [None, "2999-01-01"])
def test_pruning_removes_what_is_past(books: Books, before: str | None) -> None:
    with pytest.raises(errors.InvalidParameterValue):
        books.value("select chatter.prune_events(%s)", before)


# --- the bell


def bells(connection: psycopg.Connection[Any]) -> int:
    connection.execute("select 1")
    return sum(1 for _ in connection.notifies(timeout=0.05))


def test_the_bell_rings_once_a_transaction(books: Books, other: Books) -> None:
    conversation = books.conversation()
    other.connection.execute("listen chatter_events")
    with books.connection.transaction():
        for _ in range(3):
            books.message(conversation, role="user")
    assert bells(other.connection) == 1
    books.messages([{"conversation_id": conversation, "role": "user"}] * 2)
    assert bells(other.connection) == 1
    books.connection.execute("insert into chatter.security_events (event_type) values ('login')")
    assert bells(other.connection) == 1


def test_the_bell_is_silent_while_a_reader_is_awake(books: Books, other: Books) -> None:
    conversation = books.conversation()
    other.connection.execute("listen chatter_events")
    other.value("select pg_advisory_lock(chatter.bell())")
    books.message(conversation, role="user")
    assert bells(other.connection) == 0
    other.value("select pg_advisory_unlock(chatter.bell())")
    books.message(conversation, role="user")
    assert bells(other.connection) == 1


def test_no_lock_is_left_behind(books: Books) -> None:
    books.message(books.conversation(), role="user")
    assert books.value("select count(*) from pg_locks where locktype = 'advisory'") == 0


def test_a_restored_copy_begins_a_stream_of_its_own(books: Books) -> None:
    before = books.value("select chatter.events_now()")
    books.connection.execute("insert into chatter.conversations default values")
    # What a restore into a younger cluster looks like: ids of transactions to come.
    books.connection.execute("set chatter.maintenance = on")
    books.connection.execute("update chatter.events set xact_id = '9000000000'")
    books.connection.execute("reset chatter.maintenance")
    assert books.rows("select * from chatter.events_after(null)") == []
    books.connection.execute("select chatter.renew_event_stream()")
    assert len(books.rows("select * from chatter.events_after(null)")) == 1
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        books.rows("select * from chatter.events_after(%s)", before)
