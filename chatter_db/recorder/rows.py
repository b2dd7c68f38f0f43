"""Rows of the books, made from what LangChain says of a call, a tool or an error."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import chain, takewhile
from typing import Any
from uuid import UUID, uuid5

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    ToolMessage,
    convert_to_messages,
)
from langchain_core.outputs import LLMResult
from pydantic import BaseModel

from chatter_db.models import MAX_NAME, CallStatus, Kind, ToolCallStatus
from chatter_db.recorder import usage as usage_of
from chatter_db.recorder.asking import with_terms
from chatter_db.recorder.endpoints import provider_answering
from chatter_db.recorder.estimates import estimated
from chatter_db.recorder.pricing import Cost, cost_of
from chatter_db.recorder.records import MessageRow, Record, ToolCallRow, ToolRun, storable_text
from chatter_db.recorder.runs import ModelCall, RequestedTool, Run, ToolExecution, now
from chatter_db.recorder.usage import Usage, plain

# Ends that nobody caused by a mistake.
CANCELLED = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt)

# Who speaks in messages that are dicts or pairs.
_ROLES = ("tool", "assistant", "ai", "user", "human")

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


def interrupted_below(
    run: Run,
    calls: Sequence[ModelCall],
    tools: Sequence[ToolExecution],
    *,
    content: bool,
    estimate: bool,
) -> list[Record]:
    """Rows of model calls and tools that were open below a chain or tool that is over."""
    # The inner ones first: by when those began is known which pieces others have passed on.
    own = [call for call in reversed(calls) if not run.is_passed_on(call)]
    rows: list[Record] = [
        interrupted_call(run, call, None, content=content, estimate=estimate)
        for call in reversed(own)
    ]
    cancelled = asyncio.CancelledError()
    return rows + [
        tool_run(run, tool, None, cancelled, content=content) for tool in tools if tool.has_row
    ]


def is_pause(error: BaseException | None) -> bool:
    """Whether `error` is LangGraph's way to stop and wait for a person, or to go elsewhere."""
    return _is_a("GraphBubbleUp", error)


def updates_of(command: object) -> object:
    """What a LangGraph `Command` puts into the state; None for anything else."""
    return getattr(command, "update", None) if _is_a("Command", command) else None


def resume_of(command: object) -> object:
    """What a LangGraph `Command` answers an interrupt; None for anything else."""
    return getattr(command, "resume", None) if _is_a("Command", command) else None


def goes_on(inputs: object) -> bool:
    """Whether a graph with these goes on where it was interrupted."""
    return inputs is None or _is_a("Command", inputs)


def _is_a(name: str, value: object) -> bool:
    # By name: the recorder works without LangGraph.
    return any(kind.__name__ == name for kind in type(value).__mro__)


def from_cache(message: AIMessage) -> bool:
    """Whether LangChain's own cache answered: nobody was asked and nothing was billed."""
    # That is how BaseChatModel marks it; no provider package has such a count.
    metadata: Mapping[str, Any] = message.usage_metadata or {}
    return "total_cost" in metadata and not metadata["total_cost"]


def tool_begin(run: Run, tool: ToolExecution) -> ToolRun:
    return ToolRun(
        id=tool.row_id,
        execution_id=run.id,
        tool_call_id=tool.asked_before,
        status="running",
        started_at=tool.started_at,
    )


def tool_answer(tool: ToolExecution, output: Any) -> ToolMessage | None:
    """What the model is told of a tool's output.

    The output itself, or in what it has LangGraph do: a tool may return a `Command` that
    updates the state, or a list of both
    (https://docs.langchain.com/oss/python/langgraph/use-graph-api#use-inside-tools).
    """
    if isinstance(output, ToolMessage):
        return output
    told = (message for message in _told(output) if message.tool_call_id == tool.tool_call_id)
    return next(told, None)


def answers_to_tools(run: Run, outputs: Any, *, content: bool) -> list[Record]:
    """What a node told the model of tool calls, where it wasn't a tool of LangChain's that did.

    It may have done what they ask for in its own code; have run a tool without saying what for;
    or have had an error, a name that no tool has, or a person who forbade it.
    """
    records: list[Record] = []
    if all(one.answered for same in list(run.requested.values()) for one in same):
        return records
    for message in _told(outputs):
        asked = run.unanswered(message.tool_call_id)
        if asked is None:
            continue
        if not asked.begun:
            records.append(
                _told_run(run, asked.row_id, asked.asked_before, message, content=content)
            )
        asked.begun = True
        asked.answer()
        row_id = uuid5(asked.row_id, "answer")
        records.append(tool_result(run, row_id, message, content=content))
    return records


def tools_done(run: Run, inputs: Any, *, content: bool) -> list[Record]:
    """What whoever asks tells of tools that the run before asked for.

    The app's client did what they ask for, or a person forbade it. Where it was a tool of
    LangChain's that had been run, its call has ended already.
    """
    told = [
        message
        for turn in _last_turns(inputs)
        for message in takewhile(lambda one: isinstance(one, ToolMessage), reversed(turn))
    ]
    return [
        _told_run(run, uuid5(run.id, f"told {number}"), one.tool_call_id, one, content=content)
        for number, one in enumerate(told)
    ]


def _told_run(
    run: Run, row_id: UUID, asked_before: str | None, message: ToolMessage, *, content: bool
) -> ToolRun:
    """What became of a tool call of which only a message tells."""
    failed = message.status == "error"
    return ToolRun(
        id=row_id,
        execution_id=run.id,
        tool_call_id=asked_before,
        # Whether what failed had begun nobody says.
        status="requested" if failed else "completed",
        error_type="ToolError" if failed else None,
        error_message=str(message.text) if failed and content else None,
    )


def take_up_tools(run: Run, inputs: Any) -> None:
    """Takes up what a run that goes on is told of: tool calls that the one before it asked for.

    They are those at the end of a talk that nobody has answered. A person may have changed them.
    """
    for turn in _last_turns(inputs):
        answered = {each.tool_call_id for each in turn if isinstance(each, ToolMessage)}
        for asked in chain.from_iterable(map(_asked_for, turn)):
            tool_call_id = str(asked["id"])
            known = run.requested.get(tool_call_id, [])
            if tool_call_id in answered or any(one.begun or not one.asked_before for one in known):
                continue
            run.requested[tool_call_id] = [
                RequestedTool(
                    uuid5(run.id, f"tool call {tool_call_id}"),
                    str(asked.get("name")),
                    asked.get("args"),
                    asked_before=tool_call_id,
                )
            ]


def _asked_for(one: Any) -> Iterator[Mapping[str, Any]]:
    """The tool calls of a message, or one by itself, as tasks are given it."""
    if isinstance(one, AIMessage):
        yield from (call for call in one.tool_calls if call["id"])
    elif isinstance(one, Mapping) and one.get("type") == "tool_call" and one.get("id"):
        yield one


def _told(outputs: Any) -> Iterator[ToolMessage]:
    """The messages of tools that a tool or a node returns; of a whole talk, of its last turn."""
    for turn in _last_turns(outputs):
        told: list[ToolMessage] = []
        # Some servers give the calls of every step the same ids: what was asked since is not told.
        asked: set[str | None] = set()
        for each in reversed(turn):
            if isinstance(each, AIMessage):
                asked.update(call["id"] for call in each.tool_calls)
            elif isinstance(each, ToolMessage) and each.tool_call_id not in asked:
                told.insert(0, each)
        yield from told


def _last_turns(state: Any) -> Iterator[list[Any]]:
    """What was said last in each talk of a state, of what updates one, or of a list of these.

    Some servers give the calls of every turn the same ids.
    """
    update = updates_of(state)
    state = state if update is None else update
    if isinstance(state, list | tuple):
        for one in state:
            if isinstance(one, Mapping) or updates_of(one) is not None:
                yield from _last_turns(one)
    for value in _values(state):
        talk = value if isinstance(value, list | tuple) else [value]
        latest = takewhile(lambda one: not isinstance(one, HumanMessage), map(said, reversed(talk)))
        yield list(latest)[::-1]


def _values(state: Any) -> list[Any]:
    """What a state has in it, which is a mapping or an object; anything else by itself."""
    if isinstance(state, Mapping):
        return list(state.values())
    if is_dataclass(state):
        return [getattr(state, each.name, None) for each in fields(state)]
    if isinstance(state, BaseModel) and not isinstance(state, BaseMessage):
        return list(vars(state).values())
    return [state]


def said(one: Any) -> Any:
    """A message as LangChain has it: LangGraph takes dicts and pairs too."""
    role = one[0] if isinstance(one, tuple) and len(one) == 2 else None
    if isinstance(one, Mapping) and "content" in one:
        role = one.get("role", one.get("type"))
    if isinstance(role, str) and role in _ROLES:
        with suppress(ValueError, TypeError, NotImplementedError):  # not quite
            return convert_to_messages([one])[0]
    return one


def tool_run(
    run: Run,
    tool: ToolExecution,
    answer: ToolMessage | None,
    error: BaseException | None,
    *,
    content: bool,
) -> ToolRun:
    failed = error is not None or (answer is not None and answer.status == "error")
    described = error_columns(None if is_pause(error) else error, content=content)
    if failed and answer is not None:
        text = str(answer.text) if content else None
        described = {"error_type": "ToolError", "error_message": text}
    return ToolRun(
        id=tool.row_id,
        execution_id=run.id,
        tool_call_id=tool.asked_before,
        status=_tool_status(error, failed=failed),
        started_at=tool.started_at,
        duration_ms=(time.perf_counter() - tool.started) * 1000,
        **described,
    )


def _tool_status(error: BaseException | None, *, failed: bool) -> ToolCallStatus:
    if isinstance(error, CANCELLED):
        return "cancelled"
    if is_pause(error):
        # It will run again, from its beginning, when the graph goes on.
        return "requested"
    return "failed" if failed else "completed"


def tool_result(run: Run, row_id: UUID, answer: ToolMessage, *, content: bool) -> MessageRow:
    return MessageRow(
        id=row_id,
        execution_id=run.id,
        role="tool",
        kind="step",
        content=str(answer.text) if content else None,
        tool_call_id=answer.tool_call_id,
        status="failed" if answer.status == "error" else "completed",
        correlation_id=run.correlation_id,
        metadata={"tool_name": answer.name} if answer.name else {},
        created_at=now(),
    )


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


def requested_tools(run: Run, call: ModelCall, message: AIMessage) -> list[Record]:
    """The tool calls that a reply asks for. Some servers give all of them one id."""
    records: list[Record] = []
    by_id: dict[str | None, list[RequestedTool]] = {}
    for number, asked in enumerate(message.tool_calls):
        same = by_id.setdefault(asked["id"] or None, [])
        key = asked["id"] if asked["id"] and not same else number
        row = ToolCallRow(
            id=uuid5(call.row_id, f"tool call {key}"),
            execution_id=run.id,
            message_id=call.row_id,
            tool_call_id=asked["id"],
            tool_name=(asked["name"] or "unnamed")[:MAX_NAME],
        )
        records.append(row)
        if call.fills_in:
            # The answer itself, which nobody runs.
            records.append(ToolRun(id=row.id, execution_id=run.id, status="completed"))
        else:
            same.append(RequestedTool(row.id, asked["name"], asked["args"]))
    run.requested.update(by_id)
    return records
