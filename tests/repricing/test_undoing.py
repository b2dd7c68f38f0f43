"""Pricing afterwards put back in any order: what holds is what the last that isn't undone gave."""

import random
from datetime import timedelta
from decimal import Decimal
from itertools import permutations
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection

from chatter_db.repricing import Selection, reprice, set_price, undo
from tests.repricing.test_repricing import START, call, own_price
from tests.sql.books import Books

ORDERS = list(permutations(range(5)))


@pytest.mark.parametrize("order", [*random.Random(0).sample(ORDERS, 12), (2, 3, 4, 0, 1)])
def test_prices_that_come_again_are_put_back_in_any_order(
    connection: Connection, books: Books, order: tuple[int, ...]
) -> None:
    """The list's price and one's own in turns: the same price holds before several of them."""
    message = call(books, books.conversation(), provider_used="openai", model_used="gpt-4o-mini")

    def told() -> Any:
        return books.row("select cost, metadata from chatter.messages where id = %s", message)

    def give(own: Decimal | None) -> UUID:
        # Of the same time: the last that was written counts, and one that ends leaves the list's.
        set_price(
            connection, "openai", "gpt-4o-mini",
            valid_from=START - timedelta(days=1), prompt=own, completion=own,
        )  # fmt: skip
        done = reprice(connection, Selection(computed=True), reason="the other price")
        assert done.id is not None and done.priced == 1
        return done.id

    states, given = [told()], []
    for own in (None, Decimal(2), None, Decimal(3), None):
        given.append(give(own))
        states.append(told())
    assert states[1] == states[3] == states[5] != states[0]

    left = list(range(5))
    for place in order:
        undo(connection, given[place])
        left.remove(place)
        assert told() == states[left[-1] + 1 if left else 0]
    assert books.findings() == {}


@pytest.mark.parametrize("change", ["cost = 9", """metadata = '{"price": "theirs"}'"""])
def test_what_others_changed_between_two_is_put_back_as_they_left_it(
    connection: Connection, books: Books, change: str
) -> None:
    message = call(books, books.conversation())
    own_price(connection)
    first = reprice(connection, Selection(), reason="first").id
    books.connection.execute(f"update chatter.messages set {change}".encode())
    left = books.row("select cost, metadata from chatter.messages where id = %s", message)
    own_price(connection, "3")
    second = reprice(connection, Selection(computed=True), reason="second").id
    assert first is not None and second is not None
    assert (undo(connection, first), undo(connection, second)) == (0, 1)
    assert books.row("select cost, metadata from chatter.messages where id = %s", message) == left
