"""Rows of the books, made from what LangChain says of a call, a tool or an error."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid5

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import LLMResult

from chatter_db.models import MAX_NAME, CallStatus, Kind
from chatter_db.recorder import usage as usage_of
from chatter_db.recorder.asking import with_terms
from chatter_db.recorder.endpoints import provider_answering
from chatter_db.recorder.estimates import estimated
from chatter_db.recorder.pricing import Cost, cost_of
from chatter_db.recorder.records import MessageRow, Record, storable_text
from chatter_db.recorder.runs import ModelCall, Run
from chatter_db.recorder.usage import Usage, plain

# Ends that nobody caused by a mistake.
CANCELLED = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt)

NOTHING_USED = Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0, cost=Decimal(0))
"""Of a call that LangChain's cache answered."""


def asked_rows(
    run: Run, messages: Sequence[HumanMessage], at: datetime, *, content: bool
) -> list[Record]:
    """What the person said, each a turn."""
    rows: list[Record] = [
        MessageRow(
            id=uuid5(run.id, f"asked {number}"),
            execution_id=run.id,
            role="user",
            kind="turn",
            content=str(message.text) if content else None,
            correlation_id=run.correlation_id,
            metadata={},
            created_at=at,
        )
        for number, message in enumerate(messages, start=run.asked)
    ]
    run.asked += len(rows)
    return rows


def first_of(result: LLMResult | None) -> Any:
    """The first generation of a result, if it has one."""
    generations = result.generations if result else None
    return generations[0][0] if generations and generations[0] else None


def reply(
    run: Run,
    call: ModelCall,
    message: AIMessage,
    usage: Usage,
    *,
    kind: Kind,
    content: bool,
    estimate: bool,
    status: CallStatus = "completed",
    error: BaseException | None = None,
) -> MessageRow:
    """The row of a call that was answered, or that broke off with what is in `message`."""
    came = status == "completed" or bool(message.content)
    usage = _used(usage, call, message, estimate=estimate and came)
    stated = usage_of.said_of(message, call.chunks)
    ended = time.perf_counter()
    # One clock for start and end: the start's, plus what the call took.
    at = call.started_at + timedelta(seconds=ended - call.started)
    provider, model = _answered_by(call, stated)
    cost = _cost(usage, provider, (model, _text(call.model)), at)
    return MessageRow(
        id=call.row_id,
        execution_id=run.id,
        role="assistant",
        kind=kind,
        content=str(message.text) if content and came else None,
        tool_calls=[plain(dict(each)) for each in message.tool_calls] or None if content else None,
        provider_used=provider,
        model_used=model,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost=cost.amount if cost else None,
        cost_source=cost.source if cost else None,
        usage_status=usage.status,
        usage=usage.raw,
        response_time_ms=(ended - call.started) * 1000,
        time_to_first_token_ms=(call.first_token - call.started) * 1000
        if call.first_token is not None
        else None,
        finish_reason=_why_it_ended(stated),
        status=status,
        correlation_id=run.correlation_id,
        metadata=plain(call.metadata) | _figures(usage, cost),
        created_at=at,
        **error_columns(error, content=content),
    )


def _used(usage: Usage, call: ModelCall, message: AIMessage, *, estimate: bool) -> Usage:
    """`usage`, or what stands for it where nothing was asked or reported, with the call's terms."""
    if from_cache(message):
        return NOTHING_USED
    if estimate and usage.status == "unknown":
        usage = estimated(usage, call.question, message)
    return replace(usage, terms=with_terms(usage, call.terms)) if call.terms else usage


def _answered_by(call: ModelCall, stated: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Provider and model: what the answer states, else what was asked."""
    # The package states its own name, wherever it was sent.
    provider = call.endpoint or provider_answering(
        _text(call.provider), _text(stated.get("model_provider"))
    )
    asked = _text(call.model)
    model = _text(stated.get("model_name")) or _text(stated.get("model")) or asked
    if provider == "amazon_bedrock" and asked and model and f".{model}" in asked:
        # Bedrock's id has the region in it: that has its own price, and no place in the answer.
        model = asked
    return provider, model


def _cost(
    usage: Usage, provider: str | None, names: Sequence[str | None], at: datetime
) -> Cost | None:
    """By the first of the model's `names` that has a price: the list may know another one."""
    if usage.estimated:
        # A cost in the books is one that was reported or computed.
        return None
    costs = (cost_of(usage, provider=provider, model=name, at=at) for name in dict.fromkeys(names))
    return next(filter(None, costs), None)


def _why_it_ended(stated: Mapping[str, Any]) -> str | None:
    """By the name that the provider's protocol has for it.

    Of OpenAI's responses the status, unless they say what made them incomplete
    (https://platform.openai.com/docs/api-reference/responses/object).
    """
    for name in ("finish_reason", "stop_reason", "done_reason"):
        if reason := _text(stated.get(name)):
            return reason
    incomplete = stated.get("incomplete_details")
    reason = incomplete.get("reason") if isinstance(incomplete, Mapping) else None
    return _text(reason) or _text(stated.get("status"))


def _figures(usage: Usage, cost: Cost | None) -> dict[str, Any]:
    """What the books' columns don't hold of a call's figures."""
    figures: dict[str, Any] = {}
    if usage.estimated:
        figures["usage_estimated_by"] = "count_tokens_approximately"
    if usage is NOTHING_USED:
        figures["answered_from_cache"] = True
    if usage.malformed:
        figures["usage_unread"] = list(usage.notes)
    if cost is not None and cost.details:
        figures["price"] = dict(cost.details)
    # What the usage block doesn't say, and a later price will ask for.
    if usage.kinds:
        figures["usage_kinds"] = dict(usage.kinds)
    if cost is None and usage.terms:
        figures["usage_terms"] = dict(usage.terms)
    return figures


def interrupted_call(
    run: Run,
    call: ModelCall,
    error: BaseException | None,
    *,
    content: bool,
    estimate: bool,
) -> MessageRow:
    """A call that failed or, without an error, was cancelled: what it gave until then.

    The part of an answer that arrived is kept, a step and never a turn; an
    error's text goes into its own column. Tool calls that broke off were never
    asked for.
    """
    message, usage = AIMessage("".join(call.text)), usage_of.of_chunks(())
    if call.chunks:
        usage = usage_of.of_chunks(call.chunks, provider=call.provider)
        message = AIMessage(
            "".join(str(chunk.text) for chunk in call.chunks),
            response_metadata=usage_of.merged(chunk.response_metadata for chunk in call.chunks),
        )
    elif call.partial is not None:
        usage = usage_of.of_message(call.partial, provider=call.provider)
        message = AIMessage(
            str(call.partial.text), response_metadata=call.partial.response_metadata
        )
    cancelled = error is None or isinstance(error, CANCELLED)
    return reply(
        run,
        call,
        message,
        usage,
        kind="step",
        content=content,
        estimate=estimate,
        status="cancelled" if cancelled else "failed",
        error=None if cancelled else error,
    )


def interrupted_calls(
    run: Run, calls: Sequence[ModelCall], *, content: bool, estimate: bool
) -> list[Record]:
    """Rows of model calls that were open below a chain or tool that is over."""
    # The inner ones first: by when those began is known which pieces others have passed on.
    own = [call for call in reversed(calls) if not run.is_passed_on(call)]
    return [
        interrupted_call(run, call, None, content=content, estimate=estimate)
        for call in reversed(own)
    ]


def from_cache(message: AIMessage) -> bool:
    """Whether LangChain's own cache answered: nobody was asked and nothing was billed."""
    # That is how BaseChatModel marks it; no provider package has such a count.
    metadata: Mapping[str, Any] = message.usage_metadata or {}
    return "total_cost" in metadata and not metadata["total_cost"]


def error_columns(error: BaseException | None, *, content: bool = True) -> dict[str, str | None]:
    """An error's class, and its text where texts are kept: many repeat what was said."""
    if error is None:
        return {"error_type": None, "error_message": None}
    try:
        message = storable_text(str(error)[:10_000]) if content else None
    # An error that can't even be written out must not cost the row.
    except Exception:  # noqa: BLE001
        message = "(this error has no text)"
    return {"error_type": type(error).__name__, "error_message": message}


def _text(value: object) -> str | None:
    """`value` as a name or a reason: packages may put anything there."""
    if value is None or value == "" or isinstance(value, Mapping | list | tuple):
        return None
    return str(getattr(value, "value", value))[:MAX_NAME]
