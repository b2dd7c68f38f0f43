"""150_totals.sql: what the audited backend lost when several wrote at once."""

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import psycopg

from .books import Books, Totals


def write_at_once(url: str, conversation: UUID, writers: int, statement: str) -> None:
    """Runs `statement` in `writers` connections at once."""

    def write(connection: psycopg.Connection[tuple[object, ...]]) -> None:
        connection.execute(statement, {"conversation": conversation})

    connections = [psycopg.connect(url, autocommit=True) for _ in range(writers)]
    try:
        with ThreadPoolExecutor(writers) as pool:
            list(pool.map(write, connections))
    finally:
        for connection in connections:
            connection.close()


def test_fifty_concurrent_updates_of_ten_give_five_hundred(books: Books, shared_url: str) -> None:
    conversation = books.conversation()
    message = books.message(conversation, prompt_tokens=0)
    write_at_once(
        shared_url,
        conversation,
        50,
        "update chatter.messages set prompt_tokens = prompt_tokens + 10 "
        "where conversation_id = %(conversation)s",
    )
    assert books.field("messages", message, "prompt_tokens") == 500
    assert books.totals(conversation) == Totals(1, 500, 0, 500, unpriced_calls=1)


def test_fifty_concurrent_calls_of_ten_give_five_hundred(books: Books, shared_url: str) -> None:
    conversation = books.conversation()
    write_at_once(
        shared_url,
        conversation,
        50,
        "insert into chatter.messages (conversation_id, role, prompt_tokens) "
        "values (%(conversation)s, 'assistant', 10)",
    )
    assert books.totals(conversation) == Totals(50, 500, 0, 500, unpriced_calls=50)


def test_twenty_concurrent_messages_leave_twenty_rows(books: Books, shared_url: str) -> None:
    conversation = books.conversation()
    write_at_once(
        shared_url,
        conversation,
        20,
        "insert into chatter.messages (conversation_id, role) values (%(conversation)s, 'user')",
    )
    rows = "select count(*) from chatter.messages where conversation_id = %s"
    assert books.value(rows, conversation) == 20
    assert books.totals(conversation) == Totals(message_count=20)
