"""One turn of a conversation, told while it happens."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.tools import BaseTool

from chatter_db.ledger import Chatter
from chatter_db.workflow.execute import ChatResponse, Prepared, prepare
from chatter_db.workflow.tools import TOOLS


@dataclass(frozen=True)
class Started:
    """The run has begun."""

    execution_id: UUID
    conversation_id: UUID


@dataclass(frozen=True)
class Token:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class ToolCallStarted:
    """The model asks for a tool."""

    tool_call_id: str | None
    tool_name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class ToolCallEnded:
    """The tool has answered."""

    tool_call_id: str | None
    tool_name: str | None
    failed: bool


@dataclass(frozen=True)
class Used:
    """A model call has ended: its tokens, None where the provider did not say."""

    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None


Chunk = Started | Token | ToolCallStarted | ToolCallEnded | Used | ChatResponse
"""What a stream gives; a ChatResponse is the last."""


async def stream_chat_workflow(
    message: str,
    *,
    conversation_id: UUID | None = None,
    user: str | None = None,
    model: str | BaseChatModel | None = None,
    tools: Sequence[BaseTool] = TOOLS,
    workflow: str = "chat",
    correlation_id: str | None = None,
    execution_id: UUID | None = None,
    chatter: Chatter | None = None,
) -> AsyncGenerator[Chunk, None]:
    """Answers like `execute_chat_workflow`, chunk by chunk; raises the same errors.

    Closing the iterator ends the run: it is booked as cancelled, with what it used.
    """
    prepared = await prepare(
        message,
        conversation_id=conversation_id,
        user=user,
        model=model,
        tools=tools,
        workflow=workflow,
        correlation_id=correlation_id,
        execution_id=execution_id,
        chatter=chatter,
    )
    async with aclosing(chunks_of(prepared)) as chunks:
        async for chunk in chunks:
            yield chunk


async def chunks_of(prepared: Prepared) -> AsyncGenerator[Chunk, None]:
    """Runs it, chunk by chunk."""
    yield Started(prepared.execution_id, prepared.conversation_id)
    steps = prepared.graph.astream(
        prepared.inputs, config=prepared.begin(), stream_mode=["messages", "updates"]
    )
    # Closed here and now, not when the garbage collector gets to it.
    async with prepared.booked(), aclosing(steps):  # type: ignore[type-var]
        async for mode, step in steps:
            if mode == "messages":
                piece = step[0]
                if isinstance(piece, AIMessageChunk) and piece.text:
                    yield Token(str(piece.text))
            else:
                for update in cast("dict[str, Any]", step).values():
                    for chunk in _told(update):
                        yield chunk
    yield await prepared.response()


def _told(update: Any) -> list[Chunk]:
    """What a node's update says of model calls and tools."""
    messages: Sequence[BaseMessage] = (update or {}).get("messages", [])
    chunks: list[Chunk] = []
    for message in messages:
        if isinstance(message, AIMessage):
            usage = message.usage_metadata
            chunks.append(
                Used(
                    message.response_metadata.get("model_name"),
                    usage["input_tokens"] if usage else None,
                    usage["output_tokens"] if usage else None,
                )
            )
            chunks += [ToolCallStarted(c["id"], c["name"], c["args"]) for c in message.tool_calls]
        elif isinstance(message, ToolMessage):
            chunks.append(
                ToolCallEnded(message.tool_call_id, message.name, message.status == "error")
            )
    return chunks
