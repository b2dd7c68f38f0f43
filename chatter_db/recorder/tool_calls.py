"""Tool calls: asked for, begun and ended, and what the model is told of them."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, takewhile
from typing import Any
from uuid import UUID, uuid5

from langchain_core.messages import AIMessage, ToolMessage

from chatter_db.models import MAX_NAME, ToolCallStatus
from chatter_db.recorder.records import MessageRow, Record, ToolCallRow, ToolRun
from chatter_db.recorder.rows import CANCELLED, error_columns
from chatter_db.recorder.runs import ModelCall, RequestedTool, Run, ToolExecution, now
from chatter_db.recorder.states import is_pause, last_turns


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


def take_up_tools(run: Run, inputs: Any) -> None:
    """Takes up what a run that goes on is told of: tool calls that the one before it asked for.

    They are those at the end of a talk that nobody has answered. A person may have changed them.
    """
    for turn in last_turns(inputs):
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
        for turn in last_turns(inputs)
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


def _told(outputs: Any) -> Iterator[ToolMessage]:
    """The messages of tools that a tool or a node returns; of a whole talk, of its last turn."""
    for turn in last_turns(outputs):
        told: list[ToolMessage] = []
        # Some servers give the calls of every step the same ids: what was asked since is not told.
        asked: set[str | None] = set()
        for each in reversed(turn):
            if isinstance(each, AIMessage):
                asked.update(call["id"] for call in each.tool_calls)
            elif isinstance(each, ToolMessage) and each.tool_call_id not in asked:
                told.insert(0, each)
        yield from told


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


def interrupted_tools(run: Run, tools: Sequence[ToolExecution], *, content: bool) -> list[Record]:
    """What became of tools that were open below a chain or tool that is over."""
    cancelled = asyncio.CancelledError()
    return [tool_run(run, tool, None, cancelled, content=content) for tool in tools if tool.has_row]
