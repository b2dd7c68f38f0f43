"""What the recorder hands to the writer: one struct per kind of statement.

The fields are the columns of `sql/queries/record_*.sql`, which take a batch of
them as one JSON array. Money travels as decimal text.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from chatter_db.models import (
    MAX_CONTENT_BYTES,
    CallStatus,
    CostSource,
    ExecutionStatus,
    Kind,
    Role,
    ToolCallStatus,
    UsageStatus,
)


class RunStarted(Struct, frozen=True, tag=True):
    """A run begins: its execution, with the user and conversation it belongs to.

    `conversation_id` names a conversation of ours: an existing one, or one to be
    made if `new_conversation`. Else `conversation_external_id` is the host's name.
    """

    execution_id: UUID
    conversation_id: UUID | None
    new_conversation: bool
    conversation_external_id: str | None
    user_external_id: str | None
    workflow_name: str
    correlation_id: str
    started_at: datetime
    metadata: dict[str, Any]
    recorder_id: UUID | None = None


class MessageRow(Struct, frozen=True, kw_only=True, tag=True):
    """A row of chatter.messages; the conversation is the execution's."""

    id: UUID
    execution_id: UUID
    role: Role
    kind: Kind
    content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    provider_used: str | None = None
    model_used: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: Decimal | None = None
    cost_source: CostSource | None = None
    usage_status: UsageStatus | None = None
    usage: dict[str, Any] | None = None
    response_time_ms: float | None = None
    time_to_first_token_ms: float | None = None
    finish_reason: str | None = None
    status: CallStatus = "completed"
    error_type: str | None = None
    error_message: str | None = None
    correlation_id: str
    metadata: dict[str, Any]
    created_at: datetime


class ToolCallRow(Struct, frozen=True, tag=True):
    """A tool call that a model's reply asked for."""

    id: UUID
    execution_id: UUID
    message_id: UUID
    tool_call_id: str | None
    tool_name: str


class ToolRun(Struct, frozen=True, kw_only=True, tag=True):
    """What became of a tool call.

    One that an earlier run of the conversation asked for is known by the
    provider's `tool_call_id`, not by `id`.
    """

    id: UUID
    execution_id: UUID
    status: ToolCallStatus
    tool_call_id: str | None = None
    started_at: datetime | None = None
    duration_ms: float | None = None
    error_type: str | None = None
    error_message: str | None = None


class RunEnded(Struct, frozen=True, kw_only=True, tag=True):
    """A run is over. `answer_id` is the reply that was shown, which makes it a turn."""

    execution_id: UUID
    status: ExecutionStatus
    finished_at: datetime
    error_type: str | None = None
    error_message: str | None = None
    answer_id: UUID | None = None


Record = RunStarted | MessageRow | ToolCallRow | ToolRun | RunEnded


def as_json(records: Sequence[Record]) -> str:
    """`records` as a JSON array that Postgres takes, whatever their texts hold."""
    try:
        encoded = msgspec.json.encode(records, enc_hook=str)
    except UnicodeEncodeError:
        pass  # a lone surrogate
    else:
        if len(encoded) <= MAX_CONTENT_BYTES and b"\\u0000" not in encoded:
            return encoded.decode()
    rows = msgspec.to_builtins(records, enc_hook=str)
    return msgspec.json.encode(_storable(rows)).decode()


def _storable(value: Any) -> Any:
    match value:
        case str():
            return storable_text(value)
        case dict():
            return {storable_text(str(key)): _storable(item) for key, item in value.items()}
        case list() | tuple():
            return [_storable(item) for item in value]
        case _:
            return value


def storable_text(text: str) -> str:
    """`text` without NUL and lone surrogates (they become U+FFFD), cut at 8 MiB with a note."""
    if text.isascii() and "\0" not in text and len(text) <= MAX_CONTENT_BYTES:
        return text
    data = _NOT_STORABLE.sub("\ufffd", text).encode()
    if len(data) <= MAX_CONTENT_BYTES:
        return data.decode()
    note = f"\n[cut by the recorder: {len(data)} bytes]".encode()
    return data[: MAX_CONTENT_BYTES - len(note)].decode("utf-8", "ignore") + note.decode()


_NOT_STORABLE = re.compile("[\0\ud800-\udfff]")
