"""000_schema.sql: the clock and the ids."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from psycopg import errors

from .books import Books

FROZEN = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)


def test_a_frozen_clock_stops_every_default(books: Books) -> None:
    with books.connection.transaction():
        books.connection.execute("set local chatter.frozen_clock = '2001-02-03 04:05:06+00'")
        user = books.user(str(uuid4()))
        conversation = books.conversation()
        run = books.execution()
        message = books.message(conversation)
    assert books.field("users", user, "created_at") == FROZEN
    assert books.field("conversations", conversation, "created_at") == FROZEN
    assert books.field("workflow_executions", run, "started_at") == FROZEN
    assert books.field("messages", message, "created_at") == FROZEN


def test_the_clock_runs_when_it_is_not_frozen(books: Books) -> None:
    books.connection.execute("set chatter.frozen_clock = ''")
    with books.connection.transaction():
        first, second = (books.value("select chatter.clock()") for _ in range(2))
    assert first < second
    assert abs(books.value("select clock_timestamp() - chatter.clock()")) < timedelta(minutes=1)
    books.connection.execute("reset chatter.frozen_clock")


def test_rows_of_one_statement_keep_their_order(books: Books) -> None:
    conversation = books.conversation()
    messages = books.messages({"conversation_id": conversation} for _ in range(50))
    dates = [books.field("messages", message, "created_at") for message in messages]
    assert dates == sorted(set(dates))


def test_a_clock_frozen_at_nonsense_is_an_error(books: Books) -> None:
    with books.connection.transaction(force_rollback=True):
        books.connection.execute("set local chatter.frozen_clock = 'half past six'")
        with pytest.raises(errors.InvalidDatetimeFormat, match="half past six"):
            books.value("select chatter.clock()")


def test_uuid7_is_one_of_rfc_9562(books: Books) -> None:
    ids = [row[0] for row in books.rows("select chatter.uuid7() from generate_series(1, 1000)")]
    assert len(set(ids)) == 1000
    assert {id_.version for id_ in ids} == {7}
    assert {id_.variant for id_ in ids} == {uuid4().variant}
    # The bits below the version are random, not left over from elsewhere.
    assert len({id_.int & ((1 << 62) - 1) for id_ in ids}) == 1000


def test_uuid7_sorts_by_its_millisecond(books: Books) -> None:
    def milliseconds(id_: UUID) -> int:
        return id_.int >> 80

    now = "select floor(extract(epoch from clock_timestamp()) * 1000)::bigint"
    before = books.value(now)
    ids = [books.value("select chatter.uuid7()") for _ in range(20)]
    after = books.value(now)
    stamps = [milliseconds(id_) for id_ in ids]
    assert stamps == sorted(stamps)
    assert before <= stamps[0] <= stamps[-1] <= after
