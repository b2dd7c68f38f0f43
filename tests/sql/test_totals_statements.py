"""150_totals.sql: statements of several operations, transactions, exact sums, missing parents."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from uuid import uuid4

import pytest
from psycopg import errors

from .books import Books, RunTotals, Totals

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def after_noon(minutes: int) -> datetime:
    return NOON + timedelta(minutes=minutes)


# --- ON CONFLICT, MERGE, data-modifying WITH


def test_a_retried_insert_is_a_no_op(books: Books) -> None:
    conversation = books.conversation()
    retried = (
        "insert into chatter.messages (id, conversation_id, role, prompt_tokens) "
        "values (%s, %s, 'assistant', 10) on conflict (id) do nothing"
    )
    message = uuid4()
    for expected in (1, 0, 0):
        assert books.connection.execute(retried, [message, conversation]).rowcount == expected
    assert books.totals(conversation) == Totals(1, 10, 0, 10, unpriced_calls=1)


def test_on_conflict_do_update_counts_new_rows_and_changes(books: Books) -> None:
    first, second = books.conversations(2)
    run = books.execution(first)
    known = books.message(first, prompt_tokens=10, execution_id=run)
    books.connection.execute(
        "insert into chatter.messages (id, conversation_id, role, prompt_tokens, cost) values "
        "(%s, %s, 'assistant', 50, 2), (%s, %s, 'assistant', 7, 1) "
        "on conflict (id) do update set prompt_tokens = excluded.prompt_tokens, "
        "cost = excluded.cost",
        [known, first, uuid4(), second],
    )
    assert books.totals(first) == Totals(1, 50, 0, 50, Decimal(2))
    assert books.totals(second) == Totals(1, 7, 0, 7, Decimal(1))
    assert books.run_totals(run) == RunTotals(1, 0, 50, 0, 50, Decimal(2))


def test_on_conflict_do_update_may_move_a_message(books: Books) -> None:
    origin, target = books.conversations(2)
    message = books.message(origin, prompt_tokens=10)
    books.connection.execute(
        "insert into chatter.messages (id, conversation_id, role) values (%s, %s, 'assistant') "
        "on conflict (id) do update set conversation_id = excluded.conversation_id",
        [message, target],
    )
    assert books.totals(origin) == Totals()
    assert books.totals(target) == Totals(1, 10, 0, 10, unpriced_calls=1)


def test_merge_counts_what_it_inserts_updates_and_deletes(books: Books) -> None:
    conversation, other = books.conversations(2)
    deleted = books.message(conversation, prompt_tokens=1, created_at=after_noon(9))
    updated = books.message(conversation, prompt_tokens=2, created_at=NOON)
    books.connection.execute(
        "merge into chatter.messages as m "
        "using (values (%s::uuid, 1), (%s, 20), (%s, 300)) as v (id, prompt_tokens) on m.id = v.id "
        "when matched and v.prompt_tokens = 1 then delete "
        "when matched then update set prompt_tokens = v.prompt_tokens "
        "when not matched then insert (id, conversation_id, role, prompt_tokens, created_at) "
        "values (v.id, %s, 'assistant', v.prompt_tokens, %s)",
        [deleted, updated, uuid4(), other, NOON],
    )
    assert books.totals(conversation) == Totals(1, 20, 0, 20, unpriced_calls=1)
    assert books.totals(other) == Totals(1, 300, 0, 300, unpriced_calls=1)
    assert books.last_message_at(conversation) == NOON


def test_two_inserts_in_one_statement_both_count(books: Books) -> None:
    first, second = books.conversations(2)
    books.connection.execute(
        "with other as (insert into chatter.messages (conversation_id, role, prompt_tokens) "
        "values (%s, 'assistant', 1)) "
        "insert into chatter.messages (conversation_id, role, prompt_tokens) "
        "values (%s, 'assistant', 2), (%s, 'assistant', 4)",
        [first, first, second],
    )
    assert books.totals(first) == Totals(2, 3, 0, 3, unpriced_calls=2)
    assert books.totals(second) == Totals(1, 4, 0, 4, unpriced_calls=1)


def test_delete_and_insert_in_one_statement_both_count(books: Books) -> None:
    origin, target = books.conversations(2)
    books.message(origin, prompt_tokens=5, created_at=NOON)
    books.connection.execute(
        "with gone as (delete from chatter.messages where conversation_id = %s returning *) "
        "insert into chatter.messages (conversation_id, role, prompt_tokens, created_at) "
        "select %s, role, prompt_tokens, created_at from gone",
        [origin, target],
    )
    assert books.totals(origin) == Totals()
    assert books.totals(target) == Totals(1, 5, 0, 5, unpriced_calls=1)


# --- transactions


def test_a_rollback_takes_its_totals_along(books: Books) -> None:
    conversation = books.conversation()
    run = books.execution(conversation)
    books.message(conversation, execution_id=run, prompt_tokens=1)
    with books.connection.transaction(force_rollback=True):
        books.message(conversation, execution_id=run, prompt_tokens=10, cost=1)
        assert books.totals(conversation).prompt_tokens == 11
    assert books.totals(conversation) == Totals(1, 1, 0, 1, unpriced_calls=1)
    assert books.run_totals(run) == RunTotals(1, 0, 1, 0, 1)


def test_a_savepoint_takes_its_totals_along(books: Books) -> None:
    conversation = books.conversation()
    with books.connection.transaction():
        kept = books.message(conversation, prompt_tokens=1)
        with books.connection.transaction(force_rollback=True):
            books.message(conversation, prompt_tokens=10)
            books.change(kept, prompt_tokens=500)
            assert books.totals(conversation).prompt_tokens == 510
        books.message(conversation, prompt_tokens=100)
    assert books.totals(conversation) == Totals(2, 101, 0, 101, unpriced_calls=2)


def test_a_failed_statement_takes_its_totals_along(books: Books) -> None:
    conversation = books.conversation()
    rows = [{"conversation_id": conversation, "prompt_tokens": n} for n in (1, 2, -1)]
    with pytest.raises(errors.CheckViolation):
        books.messages(rows)
    assert books.totals(conversation) == Totals()


# --- exact figures


@pytest.mark.parametrize(
    "costs",
    [
        ["5.8274999999999993e-05"],
        ["0.1", "0.2"],
        ["1e-30", "999999.999999999999999999999999999999"],
        ["0.000001234567890123456789012345678901234567890123456789", "3"],
        ["0.10"] * 10,
    ],
    ids=["float-text", "tenths", "far-apart", "many-digits", "trailing-zero"],
)
def test_costs_are_summed_exactly(books: Books, costs: list[str]) -> None:
    conversation = books.conversation()
    run = books.execution(conversation)
    messages = books.messages(
        {"conversation_id": conversation, "execution_id": run, "cost": Decimal(cost)}
        for cost in costs
    )
    exact = sum(map(Fraction, costs))
    assert Fraction(books.totals(conversation).total_cost) == exact
    assert Fraction(books.run_totals(run).total_cost) == exact
    books.delete(*messages)
    assert books.totals(conversation) == Totals()


def test_counts_are_summed_beyond_32_bits(books: Books) -> None:
    conversation = books.conversation()
    books.messages(
        {
            "conversation_id": conversation,
            "prompt_tokens": 1_000_000_000,
            "completion_tokens": 1_000_000_000,
            "total_tokens": 2_000_000_000,
            "cost": 0,
        }
        for _ in range(5)
    )
    assert books.totals(conversation) == Totals(5, 5_000_000_000, 5_000_000_000, 10_000_000_000)


# --- missing parents


@pytest.mark.parametrize("column", ["conversation_id", "execution_id"])
@pytest.mark.parametrize("way", ["insert", "bulk insert", "update"])
def test_a_missing_parent_is_refused_in_postgres_own_words(
    books: Books, column: str, way: str
) -> None:
    conversation = books.conversation()
    message = books.message(conversation, prompt_tokens=1)
    missing = uuid4()
    good = {"conversation_id": conversation, "execution_id": None, "role": "user"}
    with pytest.raises(errors.ForeignKeyViolation) as refused:
        if way == "update":
            books.change(message, **{column: missing})
        else:
            books.messages([good, {**good, column: missing}][way == "insert" :])
    diagnostic = refused.value.diag
    table = {"conversation_id": "conversations", "execution_id": "workflow_executions"}[column]
    assert diagnostic.sqlstate == "23503"
    assert diagnostic.constraint_name == f"messages_{column}_fkey"
    assert (diagnostic.schema_name, diagnostic.table_name) == ("chatter", "messages")
    assert diagnostic.column_name == column
    assert diagnostic.message_primary == (
        'insert or update on table "messages" violates foreign key constraint '
        f'"messages_{column}_fkey"'
    )
    assert diagnostic.message_detail == (
        f'Key ({column})=({missing}) is not present in table "{table}".'
    )
    assert books.totals(conversation) == Totals(1, 1, 0, 1, unpriced_calls=1)


def test_a_message_without_conversation_is_refused(books: Books) -> None:
    with pytest.raises(errors.NotNullViolation) as refused:
        books.connection.execute("insert into chatter.messages (role) values ('user')")
    assert refused.value.diag.column_name == "conversation_id"
