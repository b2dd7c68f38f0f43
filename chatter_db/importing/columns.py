"""Which columns a file may have, what else they may be called, and what they hold."""

from collections.abc import Iterable, Mapping
from typing import Final, get_args

from chatter_db.errors import UsageError
from chatter_db.importing import values
from chatter_db.importing.values import Convert
from chatter_db.models import MAX_TOKENS, CallStatus, CostSource, Kind, Role, UsageStatus

# In the order of sql/queries/import_copy.sql, which has `line` and `keyed` before them.
# `key` comes last: it goes into the row's id and not into the database.
TARGETS: Final[Mapping[str, Convert]] = {
    "id": values.uuid,
    "conversation": values.name,
    "user": values.name,
    "time": values.moment,
    "role": values.one_of(*get_args(Role)),
    "kind": values.one_of(*get_args(Kind)),
    "content": values.content,
    "tool_calls": values.json_value,
    "tool_call_id": values.text,
    "provider_used": values.text,
    "model_used": values.text,
    "prompt_tokens": values.count(MAX_TOKENS),
    "completion_tokens": values.count(MAX_TOKENS),
    "total_tokens": values.count(2 * MAX_TOKENS),
    "cache_read_tokens": values.count(MAX_TOKENS),
    "cache_write_tokens": values.count(MAX_TOKENS),
    "reasoning_tokens": values.count(MAX_TOKENS),
    "cost": values.cost,
    "cost_source": values.one_of(*get_args(CostSource)),
    "usage_status": values.one_of(*get_args(UsageStatus)),
    "usage": values.json_value,
    "response_time_ms": values.milliseconds,
    "time_to_first_token_ms": values.milliseconds,
    "finish_reason": values.text,
    "status": values.one_of(*get_args(CallStatus)),
    "error_type": values.text,
    "error_message": values.text,
    "correlation_id": values.name,
    "metadata": values.json_object,
    "key": values.name,
}

# Only names that can mean nothing else: a wrong guess would be booked.
ALIASES: Final[Mapping[str, str]] = {
    "conversation_id": "conversation",
    "thread_id": "conversation",
    "session_id": "conversation",
    "user_id": "user",
    "created_at": "time",
    "timestamp": "time",
    "provider": "provider_used",
    "model": "model_used",
    "model_name": "model_used",
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
    "cost_usd": "cost",
    "latency_ms": "response_time_ms",
    "trace_id": "correlation_id",
    "usageMetadata": "usage",
    "usage_metadata": "usage",
}


def sources(mapping: Mapping[str, str]) -> dict[str, str]:
    """From each name a file's column may have to the target it is for.

    `mapping` is from source to target. A target it names takes no other source, and
    a source it names has no other meaning.

    Raises UsageError for a target that does not exist or is named twice.
    """
    chosen: dict[str, str] = {}
    for source, named in mapping.items():
        target = ALIASES.get(named, named)
        if target not in TARGETS:
            raise UsageError(
                f"Can't map {source} to {named}: there is no such column. "
                f"There are: {', '.join(TARGETS)}."
            )
        if target in chosen.values():
            raise UsageError(f"Two columns are mapped to {target}; name one.")
        chosen[source] = target
    built_in = {**{target: target for target in TARGETS}, **ALIASES}
    free = {source: target for source, target in built_in.items() if target not in chosen.values()}
    return {**free, **chosen}


def check_header(header: Iterable[str], known: Mapping[str, str]) -> None:
    """Raises UsageError if a CSV header leaves out the conversation or says a thing twice."""
    seen: dict[str, str] = {}
    for source in header:
        target = known.get(source)
        if target is None:
            continue
        if seen.get(target) == source:
            raise UsageError(f"Two columns are named {source}; rename or remove one of them.")
        if target in seen:
            raise UsageError(
                f"The columns {seen[target]} and {source} both mean {target}; "
                f"choose one, as in --map {source}={target}."
            )
        seen[target] = source
    if "conversation" not in seen:
        raise UsageError(
            "No column means conversation; name one, as in --map COLUMN=conversation. "
            f"There are: {', '.join(header)}."
        )
