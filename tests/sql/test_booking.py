"""A row alone is booked by another way than several at once; the books may not tell which."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.sql.books import Books

ANSWER = {
    "role": "assistant",
    "kind": "turn",
    "provider_used": "openai",
    "model_used": "gpt-large",
    "prompt_tokens": 1200,
    "completion_tokens": 300,
    "total_tokens": 1510,
    "cache_read_tokens": 1000,
    "cache_write_tokens": 100,
    "reasoning_tokens": 50,
    "cost": Decimal("0.0123"),
    "cost_source": "computed",
    "usage_status": "reported",
    "response_time_ms": 850.5,
    "time_to_first_token_ms": 90.25,
    "status": "completed",
    "correlation_id": "request-1",
    "created_at": datetime(2026, 3, 29, 1, 14, 59, 999999, tzinfo=UTC),
}
NOTHING = dict.fromkeys(
    (
        "provider_used",
        "model_used",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "cache_read_tokens",
        "cache_write_tokens",
        "reasoning_tokens",
        "cost",
        "cost_source",
        "usage_status",
        "response_time_ms",
        "time_to_first_token_ms",
        "correlation_id",
    )
)


@pytest.mark.parametrize("in_run", [True, False])
@pytest.mark.parametrize("with_user", [True, False])
@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"kind": "step"},
        {"role": "user", **NOTHING},
        {"role": "tool", "kind": "step", **NOTHING},
        {"cost": None, "cost_source": None},
        {"cost": 0},
        {"status": "failed", "completion_tokens": None},
        {"status": "cancelled", "time_to_first_token_ms": None},
        {"response_time_ms": None},
        {**NOTHING, "usage_status": "unknown"},
        # Latencies, costs and usage of what is no model call.
        {**NOTHING, "role": "user", "response_time_ms": 3, "cost": Decimal("0.5")},
        {**NOTHING, "role": "user", "usage_status": "unknown"},
    ],
)
def test_alone_and_among_others(
    books: Books, columns: dict[str, Any], with_user: bool, in_run: bool
) -> None:
    owner = books.user(f"ada-{uuid4()}") if with_user else None
    alone, among, other = (books.conversation(user_id=owner) for _ in range(3))
    runs = [books.execution(conversation) if in_run else None for conversation in (alone, among)]
    row = {**ANSWER, **columns}

    before = last_delta(books)
    first = books.message(alone, execution_id=runs[0], **row)
    (delta,) = deltas(books, before)
    before = last_delta(books)
    second, _ = books.messages(
        [
            {"conversation_id": among, "execution_id": runs[1], **row},
            {"conversation_id": other, "execution_id": None, **row, "model_used": "another"},
        ]
    )

    assert books.totals(alone) == books.totals(among)
    assert books.last_message_at(alone) == books.last_message_at(among)
    if runs[0] and runs[1]:
        assert books.run_totals(runs[0]) == books.run_totals(runs[1])
    assert events(books, alone, first, runs[0]) == events(books, among, second, runs[1])
    assert delta[:-1] in [found[:-1] for found in deltas(books, before)]
    assert delta[-1] == ([alone] if row["cost"] else None)


def events(books: Books, conversation: UUID, message: UUID, run: UUID | None) -> list[Any]:
    """What a message made known, in order, with its own ids by name."""
    return books.rows(
        "select event_type, category, user_id, subject_id = %s, execution_id = %s, "
        "correlation_id, payload from chatter.events where conversation_id = %s "
        "and event_type not in ('conversation_created', 'workflow_started') order by id",
        message,
        run,
        conversation,
    )


def last_delta(books: Books) -> int:
    number: int = books.value("select coalesce(max(id), 0) from analytics.deltas")
    return number


def deltas(books: Books, since: int) -> list[tuple[Any, ...]]:
    """The deltas of messages after one, without their ids, the conversations last."""
    return books.rows(
        "select bucket, user_id, workflow_name, provider, model, kind, messages, turns, calls, "
        "failed_calls, prompt_tokens, completion_tokens, total_tokens, cache_read_tokens, "
        "cache_write_tokens, reasoning_tokens, cost, unpriced_calls, unknown_usage, sign, "
        "response_bins, first_token_bins, conversation_ids from analytics.deltas "
        "where id > %s order by id",
        since,
    )
