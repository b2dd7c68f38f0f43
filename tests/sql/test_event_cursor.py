"""220: the cursor that readers follow the events with."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors

from .books import Books
from .test_events import Reader, now


@pytest.fixture
def books(db: psycopg.Connection[tuple[object, ...]]) -> Books:
    """A database of each test's own: events can't be taken back."""
    return Books(db)


@pytest.fixture
def other(url: str) -> Iterator[Books]:
    """A second connection to the same books."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield Books(connection)


def test_what_commits_late_is_not_missed(books: Books, other: Books) -> None:
    first, second = books.conversations(2)
    reader = Reader(books, now(books))
    with other.connection.transaction():
        other.message(first, role="user")
        books.message(second, role="user")
        assert {row[5] for row in reader.read()} == {second}
        assert reader.read() == []
    # Nor are those that came before it met again on the way.
    late = [row for _ in range(4) for row in reader.read(limit=1)]
    assert [row[5] for row in late] == [first, first]


def test_a_long_transaction_holds_nobody_back(books: Books, other: Books) -> None:
    conversation = books.conversation()
    with other.connection.transaction():
        other.value("select pg_current_xact_id()::text")
        # One that has ended after it and tells of nothing.
        books.value("select pg_current_xact_id()::text")
        reader = Reader(books, now(books))
        for _ in range(5):
            books.message(conversation, role="user")
            assert reader.types() == ["message_created", "conversation_updated"]


def test_a_long_transaction_makes_nobody_read_again(books: Books, other: Books) -> None:
    conversation, another = books.conversations(2)
    with other.connection.transaction():
        other.message(another, role="user")
        for _ in range(300):
            books.messages({"conversation_id": conversation, "role": "user"} for _ in range(10))
        reader = Reader(books, now(books))
        books.connection.execute("analyze chatter.events")
        books.message(conversation, role="user")
        assert touched(books, reader) < 50
        assert touched(books, reader) < 50
    assert touched(books, reader) < 50


def test_a_client_of_old_ways_can_follow(books: Books) -> None:
    conversation = books.conversation()
    books.connection.execute("set escape_string_warning to off")
    books.connection.execute("set standard_conforming_strings to off")
    books.connection.execute("set transform_null_equals to on")
    reader = Reader(books, now(books))
    books.message(conversation, role="user")
    assert reader.types() == ["message_created", "conversation_updated"]
    with pytest.raises(errors.InvalidParameterValue):
        Reader(books, "1:2:3").read()


def touched(books: Books, reader: Reader) -> int:
    """Rows of events that the next reading goes through, in indexes and in the table."""
    with books.connection.transaction():
        reader.read()
        return int(
            books.value(
                "select idx_tup_fetch + seq_tup_read from pg_stat_xact_user_tables"
                " where relid = 'chatter.events'::regclass"
            )
        )


def test_a_batch_is_resumed_in_the_middle_by_anybody(books: Books, other: Books) -> None:
    conversation = books.conversation()
    position = now(books)
    books.messages({"conversation_id": conversation, "role": "user"} for _ in range(20))
    whole = [row[1] for row in Reader(books, position).read()]
    assert whole == sorted(whole) and len(whole) == 21
    seen: list[int] = []
    written = 0
    for number in range(200):
        # Meanwhile the books go on.
        if number % 3 == 0 and number < 30:
            books.message(conversation, role="user")
            written += 2
        reader = Reader((books, other)[number % 2], position)
        rows = reader.read(limit=2)
        if not rows:
            break
        seen += [row[1] for row in rows]
        position = str(reader.position)
    assert seen[:21] == whole
    assert len(seen) == len(set(seen)) == 21 + written
    assert written >= 10


def test_each_event_s_own_position_resumes_after_it(books: Books) -> None:
    conversation = books.conversation()
    position = now(books)
    for _ in range(3):
        books.messages({"conversation_id": conversation, "role": "user"} for _ in range(3))
    rows = Reader(books, position).read()
    for number, row in enumerate(rows):
        rest = Reader(books, str(row[0])).read()
        assert [later[1] for later in rest] == [later[1] for later in rows[number + 1 :]]


def test_a_reader_does_not_meet_its_own_uncommitted_events_twice(books: Books) -> None:
    conversation = books.conversation()
    reader = Reader(books, now(books))
    with books.connection.transaction():
        books.message(conversation, role="user")
        assert reader.read() == []
    assert len(reader.read()) == 2


def test_filters_hold_in_mid_batch_too(books: Books) -> None:
    user = books.user("ada")
    mine, other = books.conversation(user_id=user), books.conversation()
    position = now(books)
    run = books.execution(mine, user_id=user)
    books.message(mine, execution_id=run)
    books.message(other)

    def types(**filters: Any) -> list[str]:
        whole = Reader(books, position, **filters).types()
        # Resumed after each event it is the same: the filters hold in mid-batch, too.
        pages = Reader(books, position, **filters)
        assert [row[2] for _ in range(len(whole) + 1) for row in pages.read(limit=1)] == whole
        return whole

    assert len(types()) == 7
    assert len(types(conversation_id=mine)) == len(types(user_id=user)) == 4
    assert types(execution_id=run) == ["workflow_started", "message_created", "model_response"]
    assert types(event_types=["model_response"]) == ["model_response"] * 2
    assert types(categories=["workflow"], user_id=user) == ["workflow_started", "model_response"]
    assert types(event_types=["nonsense"]) == []


def test_from_the_oldest_on(books: Books) -> None:
    books.conversation()
    assert Reader(books).types() == ["conversation_created"]


def test_a_long_batch_goes_on_by_id(books: Books) -> None:
    """The second page must not sort the batch again."""
    books.connection.execute("set enable_seqscan = off")
    plan = books.rows(
        "explain (costs off) select * from chatter.events as e where e.id > 5 "
        "and pg_visible_in_snapshot(e.xact_id, pg_current_snapshot()) order by e.id limit 10"
    )
    assert "events_pkey" in str(plan) and "Sort" not in str(plan)
    plan = books.rows(
        "explain (costs off) select * from chatter.events as e "
        "where (e.xact_id >= '5' and e.xact_id < '9' or e.xact_id = any('{2,3}')) "
        "order by e.id + 0 limit 10"
    )
    assert "events_xact_id_idx" in str(plan)


@pytest.mark.parametrize(
    "position",
    [
        "",
        "nonsense",
        "000000000000.1:1:",
        "{stream}",
        "{stream}.",
        "{stream}.1:1",
        "{stream}.9:1:",
        "{stream}.1:9:20",
        "{stream}.1:1:.1:1:",
        "{stream}.1:1:.1:1:.x",
        "{stream}.99999999999999999999:1:",
        "{stream}.1:1:.1:1:.9999999999999999999",
        "{stream}.1:1:; drop table chatter.events",
        # Of transactions that are still to come.
        "{stream}.9000000000000:9000000000000:",
        "{stream}.1:1:.1:9000000000000:.1",
    ],
)
def test_what_is_no_position(books: Books, position: str) -> None:
    stream = now(books).partition(".")[0]
    with pytest.raises(errors.InvalidParameterValue, match="no position in the events of this"):
        Reader(books, position.format(stream=stream)).read()


@pytest.mark.parametrize("limit", [0, -1, 10_001, None])
def test_a_limit_that_can_not_be(books: Books, limit: Any) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="from 1 to 10000"):
        Reader(books).read(limit)
