"""What the recorder keeps in mind of runs that have not ended."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from langchain_core.messages import AIMessageChunk


@dataclass
class ModelCall:
    """A model call that has not ended."""

    id: UUID
    parent_id: UUID | None
    started: float
    started_at: datetime
    provider: str | None
    model: str | None
    metadata: dict[str, Any]
    first_token: float | None = None
    chunks: list[AIMessageChunk] = field(default_factory=list)
    text: list[str] = field(default_factory=list)


@dataclass
class ToolExecution:
    """A tool that runs; `row_id` is None when no model asked for it."""

    row_id: UUID | None
    tool_call_id: str | None
    started: float
    started_at: datetime


@dataclass
class Run:
    """One run of a graph, from its root's start to its end."""

    id: UUID
    correlation_id: str
    conversation_id: UUID | None = None
    parents: dict[UUID, UUID | None] = field(default_factory=dict)
    calls: dict[UUID, ModelCall] = field(default_factory=dict)
    tools: dict[UUID, ToolExecution] = field(default_factory=dict)
    requested: dict[str, UUID] = field(default_factory=dict)
    replies: dict[str, UUID] = field(default_factory=dict)
    """Replies that may be the answer: LangChain's message id to our row's id."""
    texts: dict[str, UUID] = field(default_factory=dict)
    last_reply: UUID | None = None

    def take_below(self, ancestor: UUID) -> tuple[list[ModelCall], list[ToolExecution]]:
        """Removes and returns the model calls and tools still open below `ancestor`."""
        calls = [
            self.calls.pop(id_, None) for id_ in list(self.calls) if self._is_below(id_, ancestor)
        ]
        tools = [
            self.tools.pop(id_, None) for id_ in list(self.tools) if self._is_below(id_, ancestor)
        ]
        # None: another thread's callback ended it meanwhile.
        return [call for call in calls if call], [tool for tool in tools if tool]

    def _is_below(self, run_id: UUID, ancestor: UUID) -> bool:
        parent = self.parents.get(run_id)
        while parent is not None and parent != ancestor:
            parent = self.parents.get(parent)
        return parent is not None


def now() -> datetime:
    """The time, UTC."""
    return datetime.now(UTC)
