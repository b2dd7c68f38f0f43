"""Two or three sessions in a given order: who waits for whom, and what the books say after."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import IsolationLevel, errors, sql

from tests.sql.books import Books, RunTotals, Totals

from .sessions import SECONDS, Session, outcome, sessions

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=1)

DEADLOCK = "40P01"


@pytest.fixture
def books(db: psycopg.Connection[tuple[object, ...]]) -> Iterator[Books]:
    """The books for setting up and looking at the end, when they must be right."""
    client = Books(db)
    yield client
    assert client.findings() == {}


@pytest.fixture
def pair(url: str) -> Iterator[tuple[Session, ...]]:
    with sessions(url, 2) as opened:
        yield opened


def test_the_second_insert_waits_and_adds_to_what_it_finds(
    books: Books, pair: tuple[Session, ...]
) -> None:
    first, second = pair
    conversation = books.conversation()
    run = books.execution(conversation)
    first.message(conversation, execution_id=run, prompt_tokens=10)
    waiting = second.blocked(second.message, conversation, execution_id=run, prompt_tokens=5)
    first.commit()
    waiting.result(SECONDS)
    second.commit()
    assert books.totals(conversation) == Totals(2, 15, 0, 15, unpriced_calls=2)
    assert books.run_totals(run) == RunTotals(2, 0, 15, 0, 15)


def test_the_second_insert_does_not_count_a_rollback(
    books: Books, pair: tuple[Session, ...]
) -> None:
    first, second = pair
    conversation = books.conversation()
    first.message(conversation, prompt_tokens=10, created_at=LATER)
    waiting = second.blocked(second.message, conversation, prompt_tokens=5, created_at=NOON)
    first.rollback()
    waiting.result(SECONDS)
    second.commit()
    assert books.totals(conversation) == Totals(1, 5, 0, 5, unpriced_calls=1)
    assert books.last_message_at(conversation) == NOON


def test_inserts_into_two_conversations_do_not_wait(
    books: Books, pair: tuple[Session, ...]
) -> None:
    first, second = pair
    here, there = books.conversations(2)
    first.message(here)
    second.start(second.message, there).result(SECONDS)
    second.commit()
    first.commit()


def test_a_run_of_an_open_conversation_can_begin(books: Books, pair: tuple[Session, ...]) -> None:
    # Its foreign key asks for the conversation, which the open insert has locked.
    first, second = pair
    conversation = books.conversation()
    first.message(conversation)
    second.start(second.execution, conversation).result(SECONDS)
    second.commit()
    first.commit()


def test_insert_while_the_newest_is_deleted(books: Books, pair: tuple[Session, ...]) -> None:
    deleting, inserting = pair
    conversation = books.conversation()
    newest = books.message(conversation, prompt_tokens=1, created_at=LATER)
    deleting.delete(newest)
    waiting = inserting.blocked(inserting.message, conversation, prompt_tokens=2, created_at=NOON)
    deleting.commit()
    waiting.result(SECONDS)
    inserting.commit()
    assert books.totals(conversation) == Totals(1, 2, 0, 2, unpriced_calls=1)
    assert books.last_message_at(conversation) == NOON


def test_delete_of_the_newest_while_one_is_inserted(
    books: Books, pair: tuple[Session, ...]
) -> None:
    # The deletion began before the insert committed, and must still see its row as what is left.
    inserting, deleting = pair
    conversation = books.conversation()
    newest = books.message(conversation, prompt_tokens=1, created_at=LATER)
    inserting.message(conversation, prompt_tokens=2, created_at=NOON)
    waiting = deleting.blocked(deleting.delete, newest)
    inserting.commit()
    waiting.result(SECONDS)
    deleting.commit()
    assert books.totals(conversation) == Totals(1, 2, 0, 2, unpriced_calls=1)
    assert books.last_message_at(conversation) == NOON


def test_two_deletions_of_the_two_newest(books: Books, pair: tuple[Session, ...]) -> None:
    first, second = pair
    conversation = books.conversation()
    oldest, middle, newest = (
        books.message(conversation, created_at=NOON + timedelta(minutes=n)) for n in range(3)
    )
    first.delete(newest)
    waiting = second.blocked(second.delete, middle)
    first.commit()
    waiting.result(SECONDS)
    second.commit()
    assert books.last_message_at(conversation) == NOON
    assert books.field("messages", oldest, "created_at") == NOON


def test_a_message_is_deleted_once(books: Books, pair: tuple[Session, ...]) -> None:
    first, second = pair
    conversation = books.conversation()
    message = books.message(conversation, prompt_tokens=1)
    assert first.delete(message) == 1
    waiting = second.blocked(second.delete, message)
    first.commit()
    assert waiting.result(SECONDS) == 0
    second.commit()
    assert books.totals(conversation) == Totals()


# --- parents that go


def test_a_conversation_is_not_deleted_under_an_insert(
    books: Books, pair: tuple[Session, ...]
) -> None:
    inserting, deleting = pair
    conversation = books.conversation()
    inserting.message(conversation)
    waiting = deleting.blocked(deleting.delete_conversation, conversation)
    inserting.commit()
    with pytest.raises(errors.ForeignKeyViolation) as refused:
        waiting.result(SECONDS)
    assert refused.value.diag.constraint_name == "messages_conversation_id_fkey"
    assert books.totals(conversation).message_count == 1


def test_an_insert_finds_its_conversation_deleted(books: Books, pair: tuple[Session, ...]) -> None:
    deleting, inserting = pair
    conversation = books.conversation()
    deleting.delete_conversation(conversation)
    waiting = inserting.blocked(inserting.message, conversation)
    deleting.commit()
    with pytest.raises(errors.ForeignKeyViolation) as refused:
        waiting.result(SECONDS)
    assert refused.value.diag.constraint_name == "messages_conversation_id_fkey"


def test_an_insert_outlives_a_deletion_that_was_rolled_back(
    books: Books, pair: tuple[Session, ...]
) -> None:
    deleting, inserting = pair
    conversation = books.conversation()
    deleting.delete_conversation(conversation)
    waiting = inserting.blocked(inserting.message, conversation)
    deleting.rollback()
    waiting.result(SECONDS)
    inserting.commit()
    assert books.totals(conversation).message_count == 1


def test_erasing_sees_the_end_of_a_run_that_has_not_seen_it(
    books: Books, pair: tuple[Session, ...]
) -> None:
    running, erasing = pair
    conversation = books.conversation()
    run = books.execution(conversation)
    running.change_execution(run, status="failed", error_message="Ada said")
    waiting = erasing.blocked(erasing.erase, conversation)
    running.commit()
    assert waiting.result(SECONDS) is True
    erasing.commit()
    assert books.field("workflow_executions", run, "error_message") is None


def test_a_run_is_not_deleted_under_an_insert(books: Books, pair: tuple[Session, ...]) -> None:
    inserting, deleting = pair
    conversation, run = books.conversation(), books.execution()
    inserting.message(conversation, execution_id=run)
    waiting = deleting.blocked(deleting.delete_execution, run)
    inserting.commit()
    with pytest.raises(errors.ForeignKeyViolation, match="messages_execution_id_fkey"):
        waiting.result(SECONDS)


def test_an_insert_finds_its_run_deleted(books: Books, pair: tuple[Session, ...]) -> None:
    deleting, inserting = pair
    conversation, run = books.conversation(), books.execution()
    deleting.delete_execution(run)
    waiting = inserting.blocked(inserting.message, conversation, execution_id=run)
    deleting.commit()
    with pytest.raises(errors.ForeignKeyViolation, match="messages_execution_id_fkey"):
        waiting.result(SECONDS)


# --- no deadlock


def test_bulk_inserts_in_opposite_orders(books: Books, url: str) -> None:
    conversations = books.conversations(3)
    runs = [books.execution(conversation) for conversation in conversations]
    with sessions(url, 3) as (gate, first, second):
        # Both reach for the first conversation, behind the gate; then one goes after the other.
        gate.lock(conversations[0])
        rows = [
            {"conversation_id": conversation, "execution_id": run, "prompt_tokens": 1}
            for conversation, run in zip(conversations, runs, strict=True)
        ]
        one = first.blocked(first.messages, rows)
        other = second.blocked(second.messages, rows[::-1])
        gate.commit()
        one.result(SECONDS)
        first.commit()
        other.result(SECONDS)
        second.commit()
    for conversation, run in zip(conversations, runs, strict=True):
        assert books.totals(conversation) == Totals(2, 2, 0, 2, unpriced_calls=2)
        assert books.run_totals(run) == RunTotals(2, 0, 2, 0, 2)


@pytest.mark.parametrize("parent", ["conversation", "run of messages", "run of tool calls"])
def test_parents_are_locked_in_order_of_id(
    books: Books, pair: tuple[Session, ...], parent: str
) -> None:
    gate, writer = pair
    low, high = sorted((uuid4(), uuid4()))
    table = "conversations" if parent == "conversation" else "workflow_executions"
    # In the table, and in the statement, the higher one comes first.
    for id_ in (high, low):
        if parent == "conversation":
            books.conversation(id=id_)
        else:
            books.execution(id=id_)
    lock = sql.SQL("select id from {} where id = %s for no key update skip locked").format(
        sql.Identifier("chatter", table)
    )
    assert gate.rows(lock, low) == [(low,)]
    if parent == "conversation":
        rows: list[dict[str, Any]] = [{"conversation_id": high}, {"conversation_id": low}]
        waiting = writer.blocked(writer.messages, rows)
    elif parent == "run of messages":
        conversation = books.conversation()
        rows = [{"conversation_id": conversation, "execution_id": run} for run in (high, low)]
        waiting = writer.blocked(writer.messages, rows)
    else:
        rows = [{"execution_id": run, "tool_name": "search"} for run in (high, low)]
        waiting = writer.blocked(writer.insert_rows, "tool_calls", rows)
    # It waits for the lower one and holds nothing that whoever has that one could want.
    assert books.rows(lock, high) == [(high,)]
    gate.commit()
    waiting.result(SECONDS)
    writer.commit()


def test_moves_in_opposite_directions(books: Books, url: str) -> None:
    first, second = books.conversations(2)
    here = books.message(first, prompt_tokens=1, created_at=NOON)
    there = books.message(second, prompt_tokens=10, created_at=LATER)
    with sessions(url, 3) as (gate, left, right):
        gate.lock(first)
        one = left.blocked(left.move, here, to=second)
        other = right.blocked(right.move, there, to=first)
        gate.commit()
        one.result(SECONDS)
        left.commit()
        other.result(SECONDS)
        right.commit()
    assert books.totals(first) == Totals(1, 10, 0, 10, unpriced_calls=1)
    assert books.totals(second) == Totals(1, 1, 0, 1, unpriced_calls=1)
    assert books.last_message_at(first) == LATER
    assert books.last_message_at(second) == NOON


def test_transactions_that_lock_first(books: Books, pair: tuple[Session, ...]) -> None:
    first, second = pair
    here, there = books.conversations(2)
    message = books.message(here, prompt_tokens=1)
    first.lock(there, here)
    first.message(there, prompt_tokens=1)
    waiting = second.blocked(second.lock, here, there)
    first.change(message, prompt_tokens=2)
    first.message(here, prompt_tokens=1)
    first.commit()
    waiting.result(SECONDS)
    second.change(message, prompt_tokens=5)
    second.message(there, prompt_tokens=1)
    second.commit()
    assert books.totals(here).prompt_tokens == 6
    assert books.totals(there).prompt_tokens == 2


# --- what the rules of 150_totals.sql are there for: a deadlock ends in 40P01 and loses nothing


def test_a_change_beside_a_transaction_that_locked_first(
    books: Books, pair: tuple[Session, ...]
) -> None:
    """Postgres locks the message before a trigger can lock its conversation."""
    locking, changing = pair
    conversation = books.conversation()
    message = books.message(conversation, prompt_tokens=1)
    locking.lock(conversation)
    waiting = changing.blocked(changing.change, message, prompt_tokens=10)
    crossing = locking.start(locking.change, message, prompt_tokens=100)
    outcomes = []
    for session, future in ((locking, crossing), (changing, waiting)):
        outcomes.append(outcome(future))
        session.rollback() if outcomes[-1] == DEADLOCK else session.commit()
    assert sorted(map(str, outcomes)) == ["1", DEADLOCK]
    winner = 100 if outcomes[0] == 1 else 10
    assert books.totals(conversation).prompt_tokens == winner


# --- stricter isolation


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_a_stricter_writer_gets_40001_and_loses_nothing_by_trying_again(
    books: Books, pair: tuple[Session, ...], level: IsolationLevel
) -> None:
    strict, plain = pair
    conversation = books.conversation()
    strict.connection.isolation_level = level
    assert strict.totals(conversation) == Totals()
    plain.message(conversation, prompt_tokens=1)
    plain.commit()
    with pytest.raises(errors.SerializationFailure):
        strict.message(conversation, prompt_tokens=10)
    strict.rollback()
    strict.message(conversation, prompt_tokens=10)
    strict.commit()
    assert books.totals(conversation) == Totals(2, 11, 0, 11, unpriced_calls=2)


def test_a_stricter_writer_that_waited_gets_40001(books: Books, pair: tuple[Session, ...]) -> None:
    strict, plain = pair
    conversation = books.conversation()
    strict.connection.isolation_level = IsolationLevel.REPEATABLE_READ
    plain.message(conversation, prompt_tokens=1)
    waiting = strict.blocked(strict.message, conversation, prompt_tokens=10)
    plain.commit()
    assert outcome(waiting) == "40001"
    strict.rollback()


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_a_stricter_deletion_of_a_conversation_that_got_a_message(
    books: Books, pair: tuple[Session, ...], level: IsolationLevel
) -> None:
    # Its snapshot does not show the message; the conversation's row gives it away.
    strict, plain = pair
    conversation = books.conversation()
    strict.connection.isolation_level = level
    assert strict.totals(conversation) == Totals()
    plain.message(conversation)
    plain.commit()
    with pytest.raises(errors.SerializationFailure):
        strict.delete_conversation(conversation)
    strict.rollback()


# --- recount beside writers


def test_recount_waits_for_an_open_insert_and_counts_it_once(
    books: Books, pair: tuple[Session, ...]
) -> None:
    inserting, mending = pair
    conversation = books.conversation()
    drift(books, conversation)
    inserting.message(conversation, prompt_tokens=5)
    waiting = mending.blocked(mending.recount)
    inserting.commit()
    assert waiting.result(SECONDS) == {("conversations", conversation)}
    mending.commit()
    assert books.totals(conversation) == Totals(1, 5, 0, 5, unpriced_calls=1)


def test_an_insert_waits_for_an_open_recount_and_adds_to_it(
    books: Books, pair: tuple[Session, ...]
) -> None:
    mending, inserting = pair
    conversation = books.conversation()
    drift(books, conversation)
    assert mending.recount() == {("conversations", conversation)}
    waiting = inserting.blocked(inserting.message, conversation, prompt_tokens=5)
    mending.commit()
    waiting.result(SECONDS)
    inserting.commit()
    assert books.totals(conversation) == Totals(1, 5, 0, 5, unpriced_calls=1)


def drift(books: Books, conversation: object) -> None:
    """Makes the totals of a conversation wrong."""
    with books.connection.transaction():
        books.connection.execute("set local session_replication_role = replica")
        books.connection.execute(
            "update chatter.conversations set prompt_tokens = 1000 where id = %s", [conversation]
        )
