"""What is left of a record that Postgres refuses: who, when, and every figure that can be one."""

import math
from decimal import Decimal
from typing import TypeVar

import msgspec

from chatter_db.models import MAX_COST, MAX_TOKENS
from chatter_db.recorder.records import MessageRow, Record, RunEnded, RunStarted, ToolRun

Number = TypeVar("Number", int, float, Decimal)


def reduced(record: Record, reason: str) -> Record:
    """`record` without texts and without figures that no column takes, marked with the reason."""
    mark = {"reduced": reason}
    match record:
        case MessageRow():
            prompt = _within(record.prompt_tokens, MAX_TOKENS)
            completion = _within(record.completion_tokens, MAX_TOKENS)
            lost = prompt is None and completion is None and record.usage_status is not None
            cost = _within(record.cost, MAX_COST)
            return msgspec.structs.replace(
                record,
                content=None,
                tool_calls=None,
                prompt_tokens=prompt,
                completion_tokens=completion,
                total_tokens=_within(record.total_tokens, 2 * MAX_TOKENS),
                cache_read_tokens=_within(record.cache_read_tokens, MAX_TOKENS),
                cache_write_tokens=_within(record.cache_write_tokens, MAX_TOKENS),
                reasoning_tokens=_within(record.reasoning_tokens, MAX_TOKENS),
                cost=cost,
                cost_source=record.cost_source if cost is not None else None,
                usage_status="unknown" if lost else record.usage_status,
                usage=None,
                response_time_ms=_within(record.response_time_ms, math.inf),
                time_to_first_token_ms=_within(record.time_to_first_token_ms, math.inf),
                finish_reason=None,
                error_message=None,
                metadata=mark,
            )
        case RunStarted():
            return msgspec.structs.replace(record, metadata=mark)
        case RunEnded() | ToolRun():
            return msgspec.structs.replace(record, error_message=None)
        case _:
            return record


def _within(number: Number | None, limit: float) -> Number | None:
    return number if number is not None and 0 <= number < limit else None
