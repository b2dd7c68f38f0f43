"""130_messages.sql: what a row becomes by itself, and what is no message at all."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, LiteralString
from uuid import UUID, uuid4

import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from .books import Books, Totals


@pytest.fixture
def conversation(books: Books) -> UUID:
    return books.conversation()


def figures(books: Books, message: UUID) -> tuple[Any, ...]:
    """The columns a trigger may fill: total_tokens and usage_status."""
    return books.row(
        "select total_tokens, usage_status from chatter.messages where id = %s", message
    )


@pytest.mark.parametrize(
    ("columns", "total", "status"),
    [
        ({}, None, "unknown"),
        ({"prompt_tokens": 3}, 3, "reported"),
        ({"completion_tokens": 4}, 4, "reported"),
        ({"prompt_tokens": 3, "completion_tokens": 4}, 7, "reported"),
        ({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 9}, 9, "reported"),
        ({"total_tokens": 9}, 9, "reported"),
        ({"prompt_tokens": 0, "completion_tokens": 0}, 0, "reported"),
        ({"usage_status": "estimated"}, None, "estimated"),
        ({"prompt_tokens": 3, "usage_status": "estimated"}, 3, "estimated"),
        ({"role": "user"}, None, None),
        ({"role": "user", "prompt_tokens": 3}, 3, None),
        ({"role": "tool", "model_used": "reranker"}, None, "unknown"),
        ({"role": "system", "usage_status": "unknown"}, None, "unknown"),
    ],
    ids=repr,
)
def test_open_figures_are_filled(
    books: Books, conversation: UUID, columns: dict[str, Any], total: int | None, status: str | None
) -> None:
    message = books.message(conversation, **columns)
    assert figures(books, message) == (total, status)


@pytest.mark.parametrize(
    ("before", "change", "total"),
    [
        # The sum of its parts stays their sum.
        ({"prompt_tokens": 3, "completion_tokens": 4}, {"prompt_tokens": 5}, 9),
        ({"prompt_tokens": 3, "completion_tokens": 4}, {"completion_tokens": 5}, 8),
        ({"prompt_tokens": 3, "completion_tokens": 4}, {"prompt_tokens": None}, 4),
        ({"prompt_tokens": 3, "completion_tokens": 4}, {"completion_tokens": None}, 3),
        ({"prompt_tokens": 3}, {"prompt_tokens": None}, None),
        ({}, {"prompt_tokens": 3}, 3),
        ({}, {"completion_tokens": 3}, 3),
        # What the provider stated stays as stated.
        ({"prompt_tokens": 3, "total_tokens": 9}, {"prompt_tokens": 5}, 9),
        ({"total_tokens": 9}, {"prompt_tokens": 5}, 9),
        # Who writes the total means it.
        ({"prompt_tokens": 3}, {"prompt_tokens": 5, "total_tokens": 6}, 6),
        # A known total can't be forgotten: the rows would not add up to their parts.
        ({"prompt_tokens": 3, "total_tokens": 9}, {"total_tokens": None}, 3),
        ({"prompt_tokens": 3}, {"prompt_tokens": 5, "total_tokens": None}, 5),
        ({"total_tokens": 9}, {"total_tokens": None}, None),
        # Nothing of this is about tokens.
        ({"prompt_tokens": 3, "total_tokens": 9}, {"content": "text"}, 9),
    ],
    ids=repr,
)
def test_total_tokens_follow_a_correction(
    books: Books,
    conversation: UUID,
    before: dict[str, Any],
    change: dict[str, Any],
    total: int | None,
) -> None:
    message = books.message(conversation, **before)
    books.change(message, **change)
    assert figures(books, message)[0] == total
    assert books.totals(conversation).total_tokens == (total or 0)


@pytest.mark.parametrize(
    ("before", "change", "status"),
    [
        ({"role": "user"}, {"model_used": "small"}, "unknown"),
        ({"role": "user", "prompt_tokens": 3}, {"role": "assistant"}, "reported"),
        ({"prompt_tokens": 3}, {"usage_status": None}, "reported"),
        ({"prompt_tokens": 3}, {"usage_status": "estimated"}, "estimated"),
        ({}, {"prompt_tokens": 3}, "reported"),
        ({}, {"prompt_tokens": 3, "total_tokens": 9}, "reported"),
        ({}, {"prompt_tokens": 3, "usage_status": "estimated"}, "estimated"),
        ({"prompt_tokens": 3, "usage_status": "unknown"}, {"prompt_tokens": 4}, "unknown"),
    ],
    ids=repr,
)
def test_a_model_call_always_says_whether_its_usage_is_known(
    books: Books, conversation: UUID, before: dict[str, Any], change: dict[str, Any], status: str
) -> None:
    message = books.message(conversation, **before)
    books.change(message, **change)
    assert figures(books, message)[1] == status


@pytest.mark.parametrize(
    ("columns", "model_call"),
    [
        ({"role": "assistant"}, True),
        ({"role": "assistant", "model_used": "large"}, True),
        ({"role": "system"}, False),
        ({"role": "user"}, False),
        ({"role": "tool"}, False),
        ({"role": "tool", "model_used": "reranker"}, True),
    ],
    ids=repr,
)
def test_which_rows_are_model_calls(
    books: Books, conversation: UUID, columns: dict[str, Any], model_call: bool
) -> None:
    message = books.message(conversation, **columns)
    assert books.field("messages", message, "model_call") is model_call


def test_model_call_can_not_be_written(books: Books, conversation: UUID) -> None:
    with pytest.raises(errors.GeneratedAlways):
        books.message(conversation, model_call=False)


def test_a_bare_row_is_a_completed_turn_of_now(books: Books, conversation: UUID) -> None:
    message = books.message(conversation, role="user")
    assert books.row(
        "select kind, status, metadata, created_at = transaction_timestamp() or "
        "created_at > transaction_timestamp() - interval '1 minute' "
        "from chatter.messages where id = %s",
        message,
    ) == ("turn", "completed", {}, True)


COUNTS = [
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
]
TIMES = ["response_time_ms", "time_to_first_token_ms"]

NEVER = ["infinity", "-infinity", "1969-12-31 23:59:59+00", "9999-01-01 00:00:00+00"]

REFUSED: list[tuple[str, Any]] = [
    *((count, value) for count in COUNTS for value in (-1, 2_000_000_001)),
    *((time, value) for time in TIMES for value in (-0.001, float("inf"), float("nan"))),
    *(("cost", Decimal(text)) for text in ("-0.01", "NaN", "Infinity", "-Infinity", "1000000")),
    *((column, "nonsense") for column in ("role", "kind", "status", "cost_source", "usage_status")),
    ("role", ""),
    ("role", "Assistant"),
    ("content", "x" * 10_000_000),
    ("content", "ü" * 4_194_305),
    ("metadata", []),
    *(("created_at", text) for text in NEVER),
]


@pytest.mark.parametrize(
    ("column", "value"), REFUSED, ids=[f"{column}-{str(value)[:12]}" for column, value in REFUSED]
)
@pytest.mark.parametrize("way", ["insert", "update"])
def test_an_absurd_value_is_refused_by_the_name_of_its_column(
    books: Books, conversation: UUID, way: str, column: str, value: Any
) -> None:
    message = books.message(conversation, prompt_tokens=1, cost=1)
    with pytest.raises(errors.CheckViolation) as refused:
        if way == "insert":
            books.message(conversation, **{column: value})
        else:
            books.change(message, **{column: value})
    assert refused.value.diag.constraint_name == f"messages_{column}_check"
    assert refused.value.diag.table_name == "messages"
    assert books.totals(conversation) == Totals(1, 1, 0, 1, Decimal(1))


@pytest.mark.parametrize(
    ("place", "statement"),
    [
        ("users_metadata", "insert into users (external_id, metadata) values ('ada', %s)"),
        ("conversations_metadata", "update conversations set metadata = %s"),
        (
            "workflow_executions_metadata",
            "insert into workflow_executions (workflow_name, metadata) values ('chat', %s)",
        ),
        ("messages_metadata", "update messages set metadata = %s"),
        ("messages_usage", "update messages set usage = %s"),
        ("messages_tool_calls", "update messages set tool_calls = %s"),
        (
            "security_events_details",
            "insert into security_events (event_type, details) values ('login_success', %s)",
        ),
    ],
)
def test_json_of_more_levels_than_readers_take_is_refused(
    books: Books, conversation: UUID, place: str, statement: LiteralString
) -> None:
    """Nobody could read a page with the row."""
    books.message(conversation)
    books.connection.execute("set search_path = chatter")
    books.connection.execute(statement, [nested(100)])
    with pytest.raises(errors.CheckViolation) as refused:
        books.connection.execute(statement.replace("'ada'", "'bob'"), [nested(101)])
    assert refused.value.diag.constraint_name == f"{place}_check"


def nested(levels: int) -> str:
    """A JSON object with lists in it, so many levels of all."""
    return '{"a": ' + "[" * (levels - 1) + "]" * (levels - 1) + "}"


@pytest.mark.parametrize("value", NEVER)
@pytest.mark.parametrize(
    ("place", "statement"),
    [
        ("users_created_at", "insert into users (external_id, created_at) values ('ada', %s)"),
        ("conversations_created_at", "update conversations set created_at = %s"),
        (
            "workflow_executions_started_at_finished_at",
            "insert into workflow_executions (workflow_name, started_at) values ('chat', %s)",
        ),
        (
            "workflow_executions_started_at_finished_at",
            "update workflow_executions set status = 'failed', finished_at = %s",
        ),
        ("tool_calls_started_at", "update tool_calls set started_at = %s"),
    ],
)
def test_a_time_that_no_date_can_hold_is_refused(
    books: Books, conversation: UUID, place: str, statement: LiteralString, value: str
) -> None:
    """Nobody could read the row: neither a report nor a page of the dashboard."""
    books.tool_call(books.execution(conversation))
    books.connection.execute("set search_path = chatter")
    with pytest.raises(errors.CheckViolation) as refused:
        books.connection.execute(statement, [value])
    assert refused.value.diag.constraint_name == f"{place}_check"


@pytest.mark.parametrize("column", ["id", "role", "kind", "status", "metadata", "created_at"])
def test_a_column_that_must_be_there(books: Books, conversation: UUID, column: str) -> None:
    with pytest.raises(errors.NotNullViolation) as refused:
        books.message(conversation, **{column: None})
    assert refused.value.diag.column_name == column
    assert books.totals(conversation) == Totals()


ACCEPTED: list[tuple[str, Any]] = [
    *((count, value) for count in COUNTS for value in (0, 1_000_000_000)),
    ("total_tokens", 2_000_000_000),
    *((time, value) for time in TIMES for value in (0.0, 1e9)),
    ("cost", Decimal("999999.999999999999999999999")),
    ("cost", Decimal("1e-100")),
    ("created_at", datetime(1970, 1, 1, tzinfo=UTC)),
    ("created_at", datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ("content", ""),
    ("content", "x" * 8_388_608),
    ("content", "Grüße 👋🏽 \u202e\x01"),
    ("usage", {"input_tokens": 1, "nested": {"cached": [1, 2]}}),
]


@pytest.mark.parametrize(
    ("column", "value"), ACCEPTED, ids=[f"{column}-{str(value)[:12]}" for column, value in ACCEPTED]
)
def test_a_value_at_the_limit_is_kept_as_it_is(
    books: Books, conversation: UUID, column: str, value: Any
) -> None:
    message = books.message(conversation, **{column: value})
    assert books.field("messages", message, column) == value


def test_nul_is_refused_in_text_and_json(books: Books, conversation: UUID) -> None:
    with pytest.raises(errors.ProgramLimitExceeded, match="null character"):
        books.connection.execute(
            "insert into chatter.messages (conversation_id, role, content) "
            "values (%s, 'user', 'a' || chr(0))",
            [conversation],
        )
    with pytest.raises(errors.CharacterNotInRepertoire, match="0x00"):
        books.connection.execute(
            "insert into chatter.messages (conversation_id, role, content) "
            "values (%s, 'user', convert_from('\\x6100'::bytea, 'UTF8'))",
            [conversation],
        )
    with pytest.raises(errors.UntranslatableCharacter, match="Unicode escape"):
        books.connection.execute(
            "insert into chatter.messages (conversation_id, role, usage) values (%s, 'user', %s)",
            [conversation, Jsonb({"text": "a\x00"})],
        )
    assert books.totals(conversation) == Totals()


def test_an_id_is_used_once(books: Books, conversation: UUID) -> None:
    message = books.message(conversation, prompt_tokens=1)
    with pytest.raises(errors.UniqueViolation) as refused:
        books.message(books.conversation(), id=message, prompt_tokens=5)
    assert refused.value.diag.constraint_name == "messages_pkey"
    with pytest.raises(errors.UniqueViolation):
        twice = uuid4()
        books.messages({"id": twice, "conversation_id": conversation} for _ in range(2))
    assert books.totals(conversation) == Totals(1, 1, 0, 1, unpriced_calls=1)


@pytest.mark.parametrize(
    ("column", "text"),
    [("prompt_tokens", "1e30"), ("prompt_tokens", "many"), ("cost", "1,5"), ("id", "message-1")],
)
def test_text_that_is_no_value_of_its_type(
    books: Books, conversation: UUID, column: str, text: str
) -> None:
    with pytest.raises(errors.InvalidTextRepresentation, match=text):
        books.message(conversation, **{column: text})
    assert books.totals(conversation) == Totals()


def test_a_count_beyond_64_bits(books: Books, conversation: UUID) -> None:
    with pytest.raises(errors.NumericValueOutOfRange):
        books.message(conversation, prompt_tokens=2**63)
    assert books.totals(conversation) == Totals()
