"""170_care.sql: recount, erase, lock."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors

from .books import SUMS, Books, RunTotals, Totals

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
LEFT_OF_GRACE = """
select r::text from chatter.messages as r where r::text like '%Grace%'
union all select r::text from chatter.workflow_executions as r where r::text like '%Grace%'
union all select r::text from chatter.tool_calls as r where r::text like '%Grace%'
"""


# --- erase_conversation


def test_erasing_takes_the_texts_and_leaves_the_figures(books: Books) -> None:
    conversation = books.conversation(title="About Ada", metadata={"name": "Ada"})
    run = books.execution(
        conversation, status="failed", error_message="Ada said", metadata={"name": "Ada"}
    )
    message = books.message(
        conversation,
        execution_id=run,
        content="I am Ada",
        tool_calls=[{"args": {"name": "Ada"}}],
        error_message="Ada said",
        metadata={"name": "Ada"},
        model_used="large",
        prompt_tokens=10,
        completion_tokens=5,
        cost="0.1",
        usage={"input_tokens": 10},
        created_at=NOON,
    )
    call = books.tool_call(run, message_id=message, status="failed", error_message="no Ada")
    totals, run_totals = books.totals(conversation), books.run_totals(run)

    assert books.erase(conversation) is True

    assert books.row(
        "select status, title, metadata from chatter.conversations where id = %s", conversation
    ) == ("deleted", None, {})
    assert books.row(
        "select content, tool_calls, error_message, metadata, usage, prompt_tokens, cost, "
        "model_used from chatter.messages where id = %s",
        message,
    ) == (None, None, None, {}, {"input_tokens": 10}, 10, Decimal("0.1"), "large")
    assert books.row(
        "select status, error_message, metadata from chatter.workflow_executions where id = %s", run
    ) == ("failed", None, {})
    assert books.row(
        "select status, error_message from chatter.tool_calls where id = %s", call
    ) == ("failed", None)
    assert books.totals(conversation) == totals
    assert books.totals(conversation) == Totals(1, 10, 5, 15, Decimal("0.1"))
    assert books.run_totals(run) == run_totals
    assert books.run_totals(run) == RunTotals(1, 1, 10, 5, 15, Decimal("0.1"))
    assert books.last_message_at(conversation) == NOON


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled", "abandoned"])
def test_what_a_run_brings_to_an_erased_conversation_goes_when_it_ends(
    books: Books, end: str
) -> None:
    """The conversation was deleted while an answer was on its way."""
    conversation = books.conversation()
    run = books.execution(conversation)
    other = books.message(books.conversation(), content="Not Ada's")
    books.erase(conversation)
    message = books.message(
        conversation, execution_id=run, content="I am Ada", metadata={"name": "Ada"}, cost="0.1"
    )
    call = books.tool_call(run, message_id=message, error_message="no Ada")
    totals = books.totals(conversation)

    books.change_execution(run, status=end, error_message="Ada said", metadata={"name": "Ada"})

    assert books.field("messages", message, "content") is None
    assert books.field("messages", message, "metadata") == {}
    assert books.field("tool_calls", call, "error_message") is None
    assert books.row(
        "select status, error_message, metadata from chatter.workflow_executions where id = %s", run
    ) == (end, None, {})
    assert books.totals(conversation) == totals
    assert totals.total_cost == Decimal("0.1")
    assert books.field("messages", other, "content") == "Not Ada's"


@pytest.mark.parametrize("at_once", [1, 3])
def test_what_comes_to_an_erased_conversation_when_its_run_has_ended_goes_at_once(
    books: Books, at_once: int
) -> None:
    """A call in a background task that outlives its run, a record that was put aside."""
    conversation = books.conversation()
    run = books.execution(conversation, status="completed")
    going_on = books.execution(conversation)
    books.erase(conversation)
    text = {"content": "I am Grace", "metadata": {"name": "Grace"}, "cost": "0.1"}
    asked = {"conversation_id": conversation, "execution_id": going_on, "content": "What now?"}
    kept = books.messages([asked] * at_once)
    late = [
        {"conversation_id": conversation, "role": "assistant", "execution_id": run, **text}
    ] * at_once
    books.messages(late)
    # What goes on reads its own rows until it ends.
    assert {books.field("messages", each, "content") for each in kept} == {"What now?"}
    books.messages([{**each, "execution_id": None} for each in late])
    books.tool_call(run, status="failed", error_message="no Grace")
    books.execution(
        conversation, status="failed", error_message="Grace said", metadata={"name": "Grace"}
    )

    assert books.rows(LEFT_OF_GRACE) == []
    assert books.totals(conversation).total_cost == at_once * 2 * Decimal("0.1")
    assert books.findings() == {}


def test_a_tool_that_fails_after_the_end_of_a_run_in_an_erased_conversation(books: Books) -> None:
    conversation = books.conversation()
    run = books.execution(conversation, status="completed")
    call = books.tool_call(run)
    books.erase(conversation)
    books.change_tool_calls(call, status="failed", error_message="no Ada")
    assert books.row(
        "select status, error_message from chatter.tool_calls where id = %s", call
    ) == ("failed", None)


def test_no_text_of_an_erased_conversation_is_left_anywhere(books: Books) -> None:
    """Every column that can hold free text, so that a new one is not forgotten."""
    word = f"secret-{uuid4().hex}"
    conversation = books.conversation(title=word, metadata={"text": word})
    run = books.execution(
        conversation, status="failed", error_message=word, metadata={"text": word}
    )
    message = books.message(
        conversation,
        execution_id=run,
        content=word,
        tool_calls=[{"text": word}],
        error_message=word,
        metadata={"text": word},
    )
    books.tool_call(run, message_id=message, error_message=word)
    holding = (
        "select 'conversations' from chatter.conversations as r where r::text like %(word)s "
        "union all select 'workflow_executions' from chatter.workflow_executions as r "
        "where r::text like %(word)s "
        "union all select 'messages' from chatter.messages as r where r::text like %(word)s "
        "union all select 'tool_calls' from chatter.tool_calls as r where r::text like %(word)s"
    )
    pattern = {"word": f"%{word}%"}
    assert len(books.connection.execute(holding, pattern).fetchall()) == 4
    books.erase(conversation)
    assert books.connection.execute(holding, pattern).fetchall() == []


def test_erasing_spares_the_neighbours(books: Books) -> None:
    erased, other = books.conversations(2)
    run = books.execution(other, status="failed", error_message="an error")
    message = books.message(other, execution_id=run, content="hello")
    call = books.tool_call(run, error_message="an error")
    books.erase(erased)
    assert books.field("messages", message, "content") == "hello"
    assert books.field("workflow_executions", run, "error_message") == "an error"
    assert books.field("tool_calls", call, "error_message") == "an error"


def test_erasing_twice_changes_nothing_more(books: Books) -> None:
    conversation = books.conversation()
    run = books.execution(conversation)
    message = books.message(conversation, execution_id=run, content="hello")
    books.erase(conversation)
    versions = (
        "select m.xmin::text, e.xmin::text from chatter.messages as m "
        "join chatter.workflow_executions as e on e.id = m.execution_id where m.id = %s"
    )
    before = books.row(versions, message)
    assert books.erase(conversation) is True
    assert books.row(versions, message) == before


def test_erasing_nothing_says_so(books: Books) -> None:
    assert books.erase(uuid4()) is False


# --- lock_conversations


def test_all_conversations_are_locked_until_the_transaction_ends(
    books: Books, shared_url: str
) -> None:
    *locked, free = books.conversations(4)
    skip_locked = (
        "select id from chatter.conversations where id = any(%s) "
        "order by id for no key update skip locked"
    )
    with psycopg.connect(shared_url) as other:
        Books(other).lock(*reversed(locked), uuid4())
        assert books.rows(skip_locked, [*locked, free]) == [(free,)]
        # Inserters of runs, who only refer to the conversation, pass.
        run = books.execution(locked[0])
        other.commit()
    assert books.rows(skip_locked, [*locked, free]) == [(id_,) for id_ in sorted([*locked, free])]
    books.delete_execution(run)


def test_locking_takes_separate_arguments_an_array_or_nothing(books: Books) -> None:
    first, second = books.conversations(2)
    books.connection.execute("select chatter.lock_conversations(%s, %s)", [first, second])
    books.lock()
    books.connection.execute("select chatter.lock_conversations(variadic null)")


# --- recount

DRIFT: list[tuple[str, dict[str, Any]]] = [
    *((table, {column: 7}) for table, column in SUMS),
    ("conversations", {"last_message_at": None}),
    ("conversations", {"last_message_at": datetime(1999, 1, 1, tzinfo=UTC)}),
]


@pytest.mark.parametrize(
    ("table", "columns"), DRIFT, ids=[f"{table}-{next(iter(c))}" for table, c in DRIFT]
)
def test_recount_mends_what_replica_mode_did(
    books: Books, table: str, columns: dict[str, Any]
) -> None:
    conversation, untouched = books.conversation(), books.conversation()
    run = books.execution(conversation)
    books.message(conversation, execution_id=run, prompt_tokens=1, created_at=NOON)
    books.message(untouched, prompt_tokens=1)
    books.tool_call(run)
    row = conversation if table == "conversations" else run
    with books.connection.transaction():
        books.connection.execute("set local session_replication_role = replica")
        if table == "conversations":
            books.change_conversation(conversation, **columns)
        else:
            books.change_execution(run, **columns)
    check = {"conversations": "conversation_totals", "workflow_executions": "execution_totals"}
    (finding,) = books.findings()[check[table]]
    assert finding[:2] == (row, next(iter(columns)))
    assert books.recount() == {(table, row)}
    assert books.findings() == {}
    assert books.totals(conversation) == Totals(1, 1, 0, 1, unpriced_calls=1)
    assert books.run_totals(run) == RunTotals(1, 1, 1, 0, 1)
    assert books.last_message_at(conversation) == NOON


def test_recount_finds_rows_that_no_trigger_saw(books: Books) -> None:
    conversation, emptied = books.conversation(), books.conversation()
    run = books.execution(conversation)
    gone = books.message(emptied, prompt_tokens=1)
    with books.connection.transaction():
        books.connection.execute("set local session_replication_role = replica")
        books.message(
            conversation,
            execution_id=run,
            prompt_tokens=5,
            completion_tokens=2,
            total_tokens=8,
            usage_status="reported",
            cost="0.5",
            created_at=NOON,
        )
        books.message(conversation, role="user", kind="step")
        books.tool_call(run)
        books.delete(gone)
    assert books.recount() == {
        ("conversations", conversation),
        ("conversations", emptied),
        ("workflow_executions", run),
    }
    assert books.totals(conversation) == Totals(1, 5, 2, 8, Decimal("0.5"))
    assert books.run_totals(run) == RunTotals(1, 1, 5, 2, 8, Decimal("0.5"))
    assert books.totals(emptied) == Totals()
    assert books.last_message_at(emptied) is None
    books.rebuild()


def test_recount_of_right_books_changes_nothing(books: Books) -> None:
    conversation = books.conversation()
    books.message(conversation, prompt_tokens=1, cost="0.10")
    version = "select xmin::text from chatter.conversations where id = %s"
    before = books.value(version, conversation)
    assert books.recount() == set()
    assert books.value(version, conversation) == before


def test_recount_of_empty_books(own_books: Books) -> None:
    assert own_books.recount() == set()


def test_recount_closes_the_totals_behind_it(books: Books) -> None:
    conversation = books.conversation()
    with books.connection.transaction(force_rollback=True):
        books.recount()
        with pytest.raises(errors.ObjectNotInPrerequisiteState):
            books.change_conversation(conversation, message_count=1)
