"""The dearest conversations are found without reading all of them, and are the right ones."""

import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.sql.books import Books

RIGHT = """
  select row_number() over (order by total_cost desc, id), id, total_cost
  from chatter.conversations where total_cost > 0 order by total_cost desc, id limit 1000
"""


@pytest.fixture
def books(db: psycopg.Connection[Any]) -> Iterator[Books]:
    yield Books(db)


def assert_right(books: Books) -> None:
    told = books.rows(
        "select place, conversation_id, total_cost from analytics.dearest_conversations_live"
    )
    assert told == books.rows(RIGHT)


def fold(books: Books) -> None:
    while books.value("select analytics.fold()"):
        pass


def bound(books: Books) -> Any:
    return books.value("select dearest_cost from analytics.state")


def conversations(books: Books, number: int) -> list[UUID]:
    return [
        row[0]
        for row in books.rows(
            "with made as (insert into chatter.conversations (title) "
            "select 'c' from generate_series(1, %s) returning id) select id from made order by id",
            number,
        )
    ]


def spend(books: Books, costs: dict[UUID, Decimal]) -> None:
    books.messages([{"conversation_id": c, "cost": cost} for c, cost in costs.items()])


def delete(books: Books, conversation: UUID) -> None:
    books.connection.execute(
        "with m as (delete from chatter.messages where conversation_id = %s) "
        "delete from chatter.conversations where id = %s",
        [conversation, conversation],
    )


def test_few_conversations_are_all_candidates(books: Books) -> None:
    cheap, dear, free = books.conversations(3)
    spend(books, {cheap: Decimal("0.1"), dear: Decimal("0.2"), free: Decimal(0)})
    for _ in range(2):
        assert_right(books)
        fold(books)
    assert books.value("select count(*) from analytics.dearest_candidates") == 2
    spend(books, {cheap: Decimal("0.5")})
    assert_right(books)
    delete(books, dear)
    assert_right(books)
    fold(books)
    assert_right(books)
    assert books.value("select count(*) from analytics.dearest_candidates") == 1


@pytest.mark.parametrize("costs", ["many", "equal"])
def test_a_random_history_of_many_conversations(books: Books, costs: str) -> None:
    dice = random.Random(4)
    some = conversations(books, 4000)

    def cost() -> Decimal:
        return Decimal(dice.randrange(1, 10_000 if costs == "many" else 3)) / 1000

    spend(books, {c: cost() for c in some})
    assert_right(books)
    fold(books)
    assert bound(books) > 0
    assert books.value("select count(*) from analytics.dearest_candidates") == 1500
    for step in range(30):
        chosen = dice.sample(some, 40)
        match dice.choice(["spend", "spend", "cheaper", "delete", "fold"]):
            case "spend":
                spend(books, {c: cost() for c in chosen})
            case "cheaper":
                books.connection.execute(
                    "update chatter.messages set cost = 0.0005 where conversation_id = any (%s)",
                    [chosen],
                )
            case "delete":
                for conversation in chosen[:5]:
                    delete(books, conversation)
                    some.remove(conversation)
            case _:
                fold(books)
        if step % 3 == 2:
            assert_right(books)
    fold(books)
    assert_right(books)
    assert books.findings() == {}


def test_too_few_candidates_are_noticed_at_once_and_mended_by_the_fold(books: Books) -> None:
    some = conversations(books, 3000)
    spend(books, {c: Decimal(place) for place, c in enumerate(some, 1)})
    fold(books)
    assert bound(books) == 1501
    # All but 900 of those above the bound.
    books.connection.execute(
        "update chatter.messages set cost = 0 where conversation_id = any (%s)", [some[2100:]]
    )
    assert_right(books)
    fold(books)
    assert_right(books)
    assert bound(books) == 601
    assert books.value("select count(*) from analytics.dearest_candidates") == 1500


def test_new_ones_among_candidates_raise_the_bound(books: Books) -> None:
    some = conversations(books, 3000)
    spend(books, {c: Decimal(place) for place, c in enumerate(some, 1)})
    fold(books)
    spend(books, {c: Decimal(5000) for c in some[:1001]})
    assert_right(books)
    fold(books)
    assert bound(books) == 2502
    assert_right(books)


def test_what_was_written_without_triggers_is_found_by_the_check(books: Books) -> None:
    first, second = books.conversations(2)
    spend(books, {first: Decimal(1)})
    fold(books)
    books.connection.execute("set session_replication_role = replica")
    spend(books, {second: Decimal(2)})
    books.connection.execute("set session_replication_role = origin")
    books.recount()
    assert books.findings()["dearest_conversations"] == [(1, first, second), (2, None, first)]
    books.value("select analytics.rebuild_dearest()")
    assert "dearest_conversations" not in books.findings()
