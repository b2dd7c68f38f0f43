"""Rows of the books, made from what LangChain says of a call, a tool or an error."""

import asyncio
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

from langchain_core.messages import AIMessage, ToolMessage

from chatter_db.models import CallStatus, Kind
from chatter_db.recorder import usage as usage_of
from chatter_db.recorder.pricing import Cost, cost_of
from chatter_db.recorder.records import MessageRow, Record, ToolRun
from chatter_db.recorder.runs import ModelCall, Run, ToolExecution, now
from chatter_db.recorder.usage import Usage

# Ends that nobody caused by a mistake.
CANCELLED = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt)


def reply(
    run: Run,
    call: ModelCall,
    message: AIMessage,
    usage: Usage,
    *,
    kind: Kind,
    content: bool,
    status: CallStatus = "completed",
    error: BaseException | None = None,
) -> MessageRow:
    stated = message.response_metadata
    ended = time.perf_counter()
    # One clock for start and end: the start's, plus what the call took.
    at = call.started_at + timedelta(seconds=ended - call.started)
    provider = stated.get("model_provider") or call.provider
    model = stated.get("model_name") or stated.get("model") or call.model
    cost = cost_of(usage, provider=provider, model=model, at=at)
    if cost is None and model != call.model:
        # The list may know the model by the name that was asked for.
        cost = cost_of(usage, provider=provider, model=call.model, at=at)
    return MessageRow(
        id=call.id,
        execution_id=run.id,
        role="assistant",
        kind=kind,
        content=str(message.text) if content else None,
        tool_calls=[dict(asked) for asked in message.tool_calls] or None if content else None,
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
        finish_reason=stated.get("finish_reason")
        or stated.get("stop_reason")
        or stated.get("done_reason"),
        status=status,
        correlation_id=run.correlation_id,
        metadata=call.metadata | _figures(usage, cost),
        created_at=at,
        **error_columns(error),
    )


def _figures(usage: Usage, cost: Cost | None) -> dict[str, Any]:
    """What the books' columns don't hold of a call's figures."""
    figures: dict[str, Any] = {}
    if usage.malformed:
        figures["usage_unread"] = list(usage.notes)
    if cost is not None and cost.details:
        figures["price"] = dict(cost.details)
    return figures


def interrupted_call(
    run: Run, call: ModelCall, error: BaseException | None, *, content: bool
) -> MessageRow:
    """A call that failed or, without an error, was cancelled: what it gave until then.

    The part of an answer that arrived is kept, a step and never a turn; an
    error's text goes into its own column.
    """
    message: AIMessage = AIMessage("".join(call.text))
    if call.chunks:
        merged = call.chunks[0]
        for chunk in call.chunks[1:]:
            merged = merged + chunk
        message = merged
    cancelled = error is None or isinstance(error, CANCELLED)
    return reply(
        run,
        call,
        message,
        usage_of.of_chunks(call.chunks, provider=call.provider),
        kind="step",
        content=content and bool(call.chunks or call.text),
        status="cancelled" if cancelled else "failed",
        error=None if cancelled else error,
    )


def interrupted_below(run: Run, run_id: UUID, *, content: bool) -> list[Record]:
    """Rows of the model calls and tools still open below `run_id`, which is over."""
    calls, tools = run.take_below(run_id)
    rows: list[Record] = [interrupted_call(run, call, None, content=content) for call in calls]
    cancelled = asyncio.CancelledError()
    return rows + [tool_run(run, tool, None, cancelled) for tool in tools if tool.row_id]


def tool_run(run: Run, tool: ToolExecution, output: Any, error: BaseException | None) -> ToolRun:
    failed = error is not None or (isinstance(output, ToolMessage) and output.status == "error")
    described = error_columns(error)
    if failed and isinstance(output, ToolMessage):
        described = {"error_type": "ToolError", "error_message": str(output.text)}
    assert tool.row_id is not None
    return ToolRun(
        id=tool.row_id,
        execution_id=run.id,
        status="cancelled" if isinstance(error, CANCELLED) else "failed" if failed else "completed",
        started_at=tool.started_at,
        duration_ms=(time.perf_counter() - tool.started) * 1000,
        **described,
    )


def tool_result(run: Run, run_id: UUID, output: ToolMessage, *, content: bool) -> MessageRow:
    return MessageRow(
        id=run_id,
        execution_id=run.id,
        role="tool",
        kind="step",
        content=str(output.text) if content else None,
        tool_call_id=output.tool_call_id,
        status="failed" if output.status == "error" else "completed",
        correlation_id=run.correlation_id,
        metadata={"tool_name": output.name} if output.name else {},
        created_at=now(),
    )


def error_columns(error: BaseException | None) -> dict[str, str | None]:
    if error is None:
        return {"error_type": None, "error_message": None}
    return {"error_type": type(error).__name__, "error_message": str(error)[:10_000]}
