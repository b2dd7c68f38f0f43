"""150_totals.sql: totals equal the sum over their rows, whatever statement wrote these."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest

from .books import Books, RunTotals, Totals

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def after_noon(minutes: int) -> datetime:
    return NOON + timedelta(minutes=minutes)


# --- INSERT


def test_a_new_conversation_has_zero_totals(books: Books) -> None:
    conversation = books.conversation()
    assert books.totals(conversation) == Totals()
    assert books.last_message_at(conversation) is None


def test_insert_adds_every_figure_to_both_parents(books: Books) -> None:
    conversation = books.conversation()
    run = books.execution(conversation)
    books.message(
        conversation,
        execution_id=run,
        prompt_tokens=100,
        completion_tokens=40,
        total_tokens=150,
        cost="0.25",
        created_at=NOON,
    )
    assert books.totals(conversation) == Totals(1, 100, 40, 150, Decimal("0.25"))
    assert books.run_totals(run) == RunTotals(1, 0, 100, 40, 150, Decimal("0.25"))
    assert books.last_message_at(conversation) == NOON


def test_a_message_outside_any_run_counts_in_its_conversation_alone(books: Books) -> None:
    conversation = books.conversation()
    run = books.execution(conversation)
    books.message(conversation, prompt_tokens=3)
    assert books.totals(conversation) == Totals(1, 3, 0, 3, unpriced_calls=1)
    assert books.run_totals(run) == RunTotals()


def test_steps_cost_but_are_no_turns(books: Books) -> None:
    conversation = books.conversation()
    books.message(conversation, kind="step", prompt_tokens=7, cost=1)
    assert books.totals(conversation) == Totals(0, 7, 0, 7, Decimal(1))


def test_what_a_person_wrote_is_no_unpriced_call(books: Books) -> None:
    conversation = books.conversation()
    books.message(conversation, role="user", content="hello")
    assert books.totals(conversation) == Totals(message_count=1)


def test_a_call_without_a_price_is_counted_and_not_guessed(books: Books) -> None:
    conversation = books.conversation()
    books.message(conversation, prompt_tokens=10)
    books.message(conversation, role="tool", model_used="reranker", kind="step")
    books.message(conversation, prompt_tokens=10, cost="0")
    assert books.totals(conversation) == Totals(2, 20, 0, 20, unpriced_calls=2)


def test_two_calls_with_equal_counts_both_count(books: Books) -> None:
    conversation = books.conversation()
    for _ in range(2):
        books.message(conversation, prompt_tokens=10, completion_tokens=5, created_at=NOON)
    assert books.totals(conversation).total_tokens == 30


def test_a_tool_loop_sums_in_its_execution(books: Books) -> None:
    conversation = books.conversation()
    run = books.execution(conversation)
    books.message(
        conversation, execution_id=run, kind="step", prompt_tokens=100, completion_tokens=40
    )
    books.message(conversation, execution_id=run, prompt_tokens=100, completion_tokens=40)
    assert books.run_totals(run) == RunTotals(2, 0, 200, 80, 280)
    assert books.totals(conversation) == Totals(1, 200, 80, 280, unpriced_calls=2)


def test_one_statement_may_fill_many_conversations_and_runs(books: Books) -> None:
    conversations = books.conversations(20)
    runs = [books.execution(conversation) for conversation in conversations]
    books.messages(
        {"conversation_id": conversation, "execution_id": run, "prompt_tokens": n, "cost": n}
        for n, (conversation, run) in enumerate(zip(conversations, runs, strict=True))
        for _ in range(5)
    )
    for n, (conversation, run) in enumerate(zip(conversations, runs, strict=True)):
        assert books.totals(conversation) == Totals(5, 5 * n, 0, 5 * n, Decimal(5 * n))
        assert books.run_totals(run) == RunTotals(5, 0, 5 * n, 0, 5 * n, Decimal(5 * n))


def test_one_run_may_serve_several_conversations_in_one_statement(books: Books) -> None:
    first, second = books.conversations(2)
    run = books.execution()
    books.messages(
        {"conversation_id": conversation, "execution_id": execution, "prompt_tokens": 10}
        for conversation in (first, second)
        for execution in (run, None)
    )
    assert books.run_totals(run) == RunTotals(2, 0, 20, 0, 20)
    assert books.totals(first) == books.totals(second) == Totals(2, 20, 0, 20, unpriced_calls=2)


def test_copy_counts_like_any_insert(books: Books) -> None:
    first, second = books.conversations(2)
    run = books.execution(first)
    with books.connection.cursor().copy(
        "copy chatter.messages (conversation_id, execution_id, role, prompt_tokens, "
        "completion_tokens, cost) from stdin"
    ) as copy:
        for _ in range(100):
            copy.write_row((first, run, "assistant", 2, 1, Decimal("0.01")))
            copy.write_row((second, None, "user", None, None, None))
    assert books.totals(first) == Totals(100, 200, 100, 300, Decimal("1.00"))
    assert books.totals(second) == Totals(message_count=100)
    assert books.run_totals(run) == RunTotals(100, 0, 200, 100, 300, Decimal("1.00"))


def test_an_insert_of_no_row_changes_nothing(books: Books) -> None:
    conversation = books.conversation()
    books.connection.execute(
        "insert into chatter.messages (conversation_id, role) "
        "select id, 'user' from chatter.conversations where false"
    )
    assert books.totals(conversation) == Totals()


# --- UPDATE


@pytest.mark.parametrize(
    ("columns", "conversation_totals", "run_totals"),
    [
        (
            {"prompt_tokens": 1},
            Totals(1, 1, 5, 6, Decimal(2)),
            RunTotals(1, 0, 1, 5, 6, Decimal(2)),
        ),
        (
            {"completion_tokens": None},
            Totals(1, 10, 0, 10, Decimal(2)),
            RunTotals(1, 0, 10, 0, 10, Decimal(2)),
        ),
        (
            {"total_tokens": 99},
            Totals(1, 10, 5, 99, Decimal(2)),
            RunTotals(1, 0, 10, 5, 99, Decimal(2)),
        ),
        (
            {"cost": "0.5"},
            Totals(1, 10, 5, 15, Decimal("0.5")),
            RunTotals(1, 0, 10, 5, 15, Decimal("0.5")),
        ),
        (
            {"cost": None},
            Totals(1, 10, 5, 15, unpriced_calls=1),
            RunTotals(1, 0, 10, 5, 15),
        ),
        (
            {"kind": "step"},
            Totals(0, 10, 5, 15, Decimal(2)),
            RunTotals(1, 0, 10, 5, 15, Decimal(2)),
        ),
        (
            {"role": "user", "cost": None},
            Totals(1, 10, 5, 15),
            RunTotals(0, 0, 10, 5, 15),
        ),
        (
            {"role": "user", "model_used": "small", "cost": None},
            Totals(1, 10, 5, 15, unpriced_calls=1),
            RunTotals(1, 0, 10, 5, 15),
        ),
        (
            {"content": "another text"},
            Totals(1, 10, 5, 15, Decimal(2)),
            RunTotals(1, 0, 10, 5, 15, Decimal(2)),
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_totals_follow_an_update(
    books: Books,
    columns: dict[str, object],
    conversation_totals: Totals,
    run_totals: RunTotals,
) -> None:
    conversation = books.conversation()
    run = books.execution(conversation)
    message = books.message(
        conversation, execution_id=run, prompt_tokens=10, completion_tokens=5, cost=2
    )
    books.change(message, **columns)
    assert books.totals(conversation) == conversation_totals
    assert books.run_totals(run) == run_totals


@pytest.mark.parametrize(
    ("columns", "conversation_totals", "run_totals"),
    [
        (
            {"prompt_tokens": 1},
            Totals(1, 1, 5, 99, Decimal(0)),
            RunTotals(1, 0, 1, 5, 99),
        ),
        (
            {"completion_tokens": 1},
            Totals(1, 10, 1, 99, Decimal(0)),
            RunTotals(1, 0, 10, 1, 99),
        ),
        ({"cost": None}, Totals(1, 10, 5, 99, unpriced_calls=1), RunTotals(1, 0, 10, 5, 99)),
        ({"role": "user"}, Totals(1, 10, 5, 99), RunTotals(0, 0, 10, 5, 99)),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_totals_follow_an_update_of_one_figure_alone(
    books: Books,
    columns: dict[str, object],
    conversation_totals: Totals,
    run_totals: RunTotals,
) -> None:
    # A stated total stays, and a cost of nothing adds nothing: no other sum changes along.
    conversation = books.conversation()
    run = books.execution(conversation)
    message = books.message(
        conversation,
        execution_id=run,
        prompt_tokens=10,
        completion_tokens=5,
        total_tokens=99,
        cost=0,
    )
    books.change(message, **columns)
    assert books.totals(conversation) == conversation_totals
    assert books.run_totals(run) == run_totals


def test_changes_that_cancel_out_per_parent_are_no_change(books: Books) -> None:
    conversation = books.conversation()
    small = books.message(conversation, prompt_tokens=1, created_at=NOON)
    large = books.message(conversation, prompt_tokens=9, created_at=after_noon(1))
    books.connection.execute(
        "update chatter.messages set prompt_tokens = 10 - prompt_tokens, "
        "created_at = case id when %s then %s else %s end where conversation_id = %s",
        [small, after_noon(1), NOON, conversation],
    )
    assert books.totals(conversation) == Totals(2, 10, 0, 10, unpriced_calls=2)
    assert books.last_message_at(conversation) == after_noon(1)
    assert books.field("messages", large, "prompt_tokens") == 1


def test_an_update_without_a_figure_does_not_touch_its_parents(books: Books) -> None:
    conversation = books.conversation()
    run = books.execution(conversation)
    message = books.message(conversation, execution_id=run, prompt_tokens=1)
    version = "select xmin::text from chatter.conversations where id = %s"
    run_version = "select xmin::text from chatter.workflow_executions where id = %s"
    before = books.value(version, conversation), books.value(run_version, run)
    books.change(message, content="new", finish_reason="stop")
    assert (books.value(version, conversation), books.value(run_version, run)) == before
    books.change(message, prompt_tokens=2)
    assert books.value(version, conversation) != before[0]
    assert books.value(run_version, run) != before[1]


def test_one_update_may_change_rows_of_many_conversations(books: Books) -> None:
    conversations = books.conversations(10)
    messages = [
        books.message(conversation, prompt_tokens=n, cost=n)
        for n, conversation in enumerate(conversations)
    ]
    books.change(*messages, prompt_tokens=100, cost="0.1")
    for conversation in conversations:
        assert books.totals(conversation) == Totals(1, 100, 0, 100, Decimal("0.1"))


# --- moving rows


def test_a_message_moves_to_another_conversation(books: Books) -> None:
    origin, target = books.conversations(2)
    moving = books.message(origin, prompt_tokens=10, cost=1, created_at=after_noon(1))
    books.message(origin, prompt_tokens=1, cost=1, created_at=NOON)
    books.move(moving, to=target)
    assert books.totals(origin) == Totals(1, 1, 0, 1, Decimal(1))
    assert books.totals(target) == Totals(1, 10, 0, 10, Decimal(1))
    assert books.last_message_at(origin) == NOON
    assert books.last_message_at(target) == after_noon(1)


def test_a_message_moves_to_another_run_and_out_of_it(books: Books) -> None:
    conversation = books.conversation()
    first, second = books.execution(conversation), books.execution(conversation)
    message = books.message(conversation, execution_id=first, prompt_tokens=10, cost=1)
    books.change(message, execution_id=second)
    assert books.run_totals(first) == RunTotals()
    assert books.run_totals(second) == RunTotals(1, 0, 10, 0, 10, Decimal(1))
    books.change(message, execution_id=None)
    assert books.run_totals(second) == RunTotals()
    books.change(message, execution_id=first)
    assert books.run_totals(first) == RunTotals(1, 0, 10, 0, 10, Decimal(1))
    assert books.totals(conversation) == Totals(1, 10, 0, 10, Decimal(1))


def test_a_message_moves_to_both_parents_and_changes_at_once(books: Books) -> None:
    origin, target = books.conversations(2)
    first, second = books.execution(origin), books.execution(target)
    message = books.message(origin, execution_id=first, prompt_tokens=10, cost=1)
    books.change(
        message, conversation_id=target, execution_id=second, prompt_tokens=20, cost=3, kind="step"
    )
    assert books.totals(origin) == Totals()
    assert books.last_message_at(origin) is None
    assert books.run_totals(first) == RunTotals()
    assert books.totals(target) == Totals(0, 20, 0, 20, Decimal(3))
    assert books.run_totals(second) == RunTotals(1, 0, 20, 0, 20, Decimal(3))


def test_a_message_without_any_figure_moves(books: Books) -> None:
    origin, target = books.conversations(2)
    message = books.message(origin, role="tool", kind="step", created_at=NOON)
    books.move(message, to=target)
    assert books.last_message_at(origin) is None
    assert books.last_message_at(target) == NOON


def test_two_conversations_swap_equal_messages(books: Books) -> None:
    first, second = books.conversations(2)
    here = books.message(first, prompt_tokens=5, created_at=NOON)
    there = books.message(second, prompt_tokens=5, created_at=NOON)
    books.connection.execute(
        "update chatter.messages set conversation_id = case id when %s then %s::uuid else %s end "
        "where id in (%s, %s)",
        [here, second, first, here, there],
    )
    assert books.field("messages", here, "conversation_id") == second
    assert books.totals(first) == books.totals(second) == Totals(1, 5, 0, 5, unpriced_calls=1)


def test_many_conversations_merge_into_one_by_one_statement(books: Books) -> None:
    *origins, target = books.conversations(11)
    messages = [
        books.message(origin, prompt_tokens=n, created_at=after_noon(n))
        for n, origin in enumerate(origins)
    ]
    books.move(*messages, to=target)
    assert books.totals(target) == Totals(10, 45, 0, 45, unpriced_calls=10)
    assert books.last_message_at(target) == after_noon(9)
    for origin in origins:
        assert books.totals(origin) == Totals()
        assert books.last_message_at(origin) is None


# --- DELETE


def test_deleting_messages_subtracts_everywhere(books: Books) -> None:
    conversation = books.conversation()
    run = books.execution(conversation)
    keep, *gone = (
        books.message(
            conversation, execution_id=run, prompt_tokens=10, completion_tokens=1, cost="0.1"
        )
        for _ in range(3)
    )
    unpriced = books.message(conversation, execution_id=run, kind="step", total_tokens=7)
    books.delete(*gone, unpriced)
    assert books.totals(conversation) == Totals(1, 10, 1, 11, Decimal("0.1"))
    assert books.run_totals(run) == RunTotals(1, 0, 10, 1, 11, Decimal("0.1"))
    books.delete(keep)
    assert books.totals(conversation) == Totals()
    assert books.run_totals(run) == RunTotals()
    assert books.last_message_at(conversation) is None


def test_a_deletion_of_no_row_changes_nothing(books: Books) -> None:
    conversation = books.conversation()
    books.message(conversation, prompt_tokens=1)
    assert books.delete(uuid4()) == 0
    assert books.totals(conversation) == Totals(1, 1, 0, 1, unpriced_calls=1)


def test_a_conversation_and_its_messages_go_in_one_statement(books: Books) -> None:
    conversation = books.conversation()
    books.message(conversation, prompt_tokens=1)
    books.connection.execute(
        "with gone as (delete from chatter.messages where conversation_id = %s) "
        "delete from chatter.conversations where id = %s",
        [conversation, conversation],
    )
    assert books.rows("select 1 from chatter.conversations where id = %s", conversation) == []
