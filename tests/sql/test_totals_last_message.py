"""150_totals.sql: last_message_at is the date of the newest message that is left."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from .books import Books, RunTotals

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def after_noon(minutes: int) -> datetime:
    return NOON + timedelta(minutes=minutes)


@pytest.fixture
def dated(books: Books) -> tuple[UUID, list[UUID]]:
    """A conversation with messages of 12:00, 12:01 and 12:02."""
    conversation = books.conversation()
    return conversation, [
        books.message(conversation, created_at=after_noon(n), prompt_tokens=1) for n in range(3)
    ]


def test_an_older_message_does_not_move_last_message_at(
    books: Books, dated: tuple[UUID, list[UUID]]
) -> None:
    conversation, _ = dated
    older = {"conversation_id": conversation, "created_at": NOON - timedelta(days=1)}
    elsewhere = {**older, "conversation_id": books.conversation()}
    # Alone, together, and in a statement for several conversations.
    for rows in ([older], [older, older], [older, elsewhere]):
        books.messages(rows)
        assert books.last_message_at(conversation) == after_noon(2)


def test_deleting_the_newest_message_looks_at_what_is_left(
    books: Books, dated: tuple[UUID, list[UUID]]
) -> None:
    conversation, messages = dated
    books.delete(messages[2])
    assert books.last_message_at(conversation) == after_noon(1)


def test_deleting_an_older_message_keeps_last_message_at(
    books: Books, dated: tuple[UUID, list[UUID]]
) -> None:
    conversation, messages = dated
    books.delete(messages[0], messages[1])
    assert books.last_message_at(conversation) == after_noon(2)


def test_one_of_two_newest_messages_goes(books: Books, dated: tuple[UUID, list[UUID]]) -> None:
    conversation, messages = dated
    books.message(conversation, created_at=after_noon(2))
    books.delete(messages[2])
    assert books.last_message_at(conversation) == after_noon(2)


def test_moving_the_newest_message_away(books: Books, dated: tuple[UUID, list[UUID]]) -> None:
    conversation, messages = dated
    books.move(messages[2], to=books.conversation())
    assert books.last_message_at(conversation) == after_noon(1)


@pytest.mark.parametrize(
    ("message", "minute", "last"),
    [
        (2, 5, 5),  # the newest becomes newer
        (2, 0, 1),  # the newest goes back behind another
        (0, -9, 2),  # an older one goes back
        (0, 9, 9),  # an older one overtakes
        (1, 2, 2),  # an older one becomes as new as the newest
    ],
)
def test_redating_a_message(
    books: Books, dated: tuple[UUID, list[UUID]], message: int, minute: int, last: int
) -> None:
    conversation, messages = dated
    books.change(messages[message], created_at=after_noon(minute))
    assert books.last_message_at(conversation) == after_noon(last)


def test_the_newest_changes_its_run_and_an_older_one_its_date(
    books: Books, dated: tuple[UUID, list[UUID]]
) -> None:
    # Two pairs of conversation and run in one statement: the newest row leaves one and arrives
    # in the other, so the conversation keeps it.
    conversation, messages = dated
    run = books.execution(conversation)
    books.connection.execute(
        "update chatter.messages set "
        "execution_id = case when id = %(newest)s then %(run)s::uuid end, "
        "created_at = case when id = %(oldest)s then %(early)s else created_at end "
        "where id in (%(newest)s, %(oldest)s)",
        {"newest": messages[2], "oldest": messages[0], "run": run, "early": after_noon(-5)},
    )
    assert books.last_message_at(conversation) == after_noon(2)
    assert books.run_totals(run) == RunTotals(1, 0, 1, 0, 1)
