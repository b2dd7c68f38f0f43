"""Prices of one's own: what they may be, when they hold, and what a call costs by them."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from psycopg import errors
from sqlalchemy import Connection

from chatter_db import UsageError, repricing
from chatter_db.repricing import set_price
from tests.repricing.test_repricing import START, own_price
from tests.sql.books import Books


@pytest.mark.parametrize(
    ("at", "prompt"),
    [
        (timedelta(microseconds=-1), None),
        (timedelta(0), Decimal(2)),
        (timedelta(days=1, microseconds=-1), Decimal(2)),
        (timedelta(days=1), Decimal(3)),
        (timedelta(days=2), None),
        (timedelta(days=3), Decimal(0)),
    ],
)
def test_a_price_holds_until_the_next_one(
    connection: Connection, books: Books, at: timedelta, prompt: Decimal | None
) -> None:
    own_price(connection)
    own_price(connection, "99", START + timedelta(days=1))
    own_price(connection, "3", START + timedelta(days=1))  # a correction: the later one counts
    set_price(
        connection,
        "inhouse",
        "llama",
        valid_from=START + timedelta(days=2),
        prompt=None,
        completion=None,
    )
    own_price(connection, "0", START + timedelta(days=3))  # free
    found = books.rows(
        "select prompt_price from chatter.price_at('inhouse', 'llama', %s)", START + at
    )
    assert found == ([] if prompt is None else [(prompt,)])


@pytest.mark.parametrize(
    ("cache_read", "cache_write", "costs"),
    [
        # A cache without a price of its own costs as the prompt; what isn't counted is none.
        (None, None, ["0.003", "0.003", "0.003", "0.003"]),
        (Decimal("0.5"), Decimal(3), ["0.003", "0.0024", "0.0035", "0.003"]),
    ],
)
def test_what_a_call_costs(
    connection: Connection,
    books: Books,
    cache_read: Decimal | None,
    cache_write: Decimal | None,
    costs: list[str],
) -> None:
    set_price(
        connection,
        "inhouse",
        "llama",
        valid_from=START,
        prompt=Decimal(2),
        completion=Decimal(10),
        cache_read=cache_read,
        cache_write=cache_write,
    )

    def cost(*counts: int | None) -> Decimal | None:
        found: Decimal | None = books.value(
            "select chatter.cost_by(p, %s, %s, %s, %s) "
            "from chatter.price_at('inhouse', 'llama', %s) as p",
            *counts,
            START,
        )
        return found

    cached = ((None, None), (400, None), (None, 500), (400, 600))
    assert [cost(1000, 100, *counts) for counts in cached] == list(map(Decimal, costs))
    # More from the cache than there was, or a count that nobody knows: so is the cost.
    for counts in ((1000, 100, 400, 601), (None, 100, None, None), (1000, None, None, None)):
        assert cost(*counts) is None


@pytest.mark.parametrize(
    "statement",
    [
        "update chatter.prices set prompt_price = 1",
        "delete from chatter.prices",
        "truncate chatter.prices",
    ],
)
def test_prices_are_history(connection: Connection, books: Books, statement: str) -> None:
    own_price(connection)
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="append-only"):
        books.connection.execute(statement.encode())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompt": Decimal(1), "completion": None}, "needs both"),
        ({"prompt": None, "completion": None, "cache_read": Decimal(1)}, "part of a prompt"),
        ({"prompt": None, "completion": None, "cache_write": Decimal(1)}, "part of a prompt"),
        ({"prompt": Decimal(-1), "completion": Decimal(1)}, "prompt price: .* not -1"),
        ({"prompt": Decimal("NaN"), "completion": Decimal(1)}, "prompt price: .* not NaN"),
        ({"prompt": Decimal(1_000_000), "completion": Decimal(1)}, "prompt price: .* not 1000000"),
        ({"prompt": Decimal(1), "completion": Decimal("Infinity")}, "completion price"),
    ],
)
def test_a_price_that_cannot_be_is_refused(
    connection: Connection, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        set_price(connection, "p", "m", valid_from=START, **given)
    assert repricing.prices(connection) == []


@pytest.mark.parametrize(
    "columns",
    [
        "prompt_price = -1",
        "completion_price = 'NaN'",
        "completion_price = 1000000",
        "cache_read_price = -1",
        "cache_write_price = 'Infinity'",
        "completion_price = null",
        "prompt_price = null, completion_price = null, cache_write_price = 1",
    ],
)
def test_nor_does_sql_write_it(connection: Connection, books: Books, columns: str) -> None:
    given = {"prompt_price": "1", "completion_price": "1"}
    given |= dict(each.split(" = ") for each in columns.split(", "))
    insert = (
        f"insert into chatter.prices (provider, model, valid_from, {', '.join(given)}) "
        f"values ('p', 'm', now(), {', '.join(given.values())})"
    )
    with pytest.raises(errors.CheckViolation):
        books.connection.execute(insert.encode())
