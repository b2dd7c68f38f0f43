"""What the recorder keeps in mind of runs that have not ended, and of the one that ended last."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage

from chatter_db.models import ExecutionStatus
from chatter_db.recorder.records import Record
from chatter_db.recorder.waiting import Waiting

MAX_ENDED = 10_000
"""Runs that are known as ended, the newest: so far back an app may try again with a run_id."""


def now() -> datetime:
    """The time, UTC."""
    return datetime.now(UTC)


@dataclass
class ModelCall:
    """A model call that has not ended."""

    id: UUID
    """LangChain's."""
    row_id: UUID
    parent_id: UUID | None
    waiting: Waiting
    started: float
    started_at: datetime
    provider: str | None
    """By LangChain's name: whose package it was, hence whose protocol."""
    endpoint: str | None
    """The provider that was asked, where the address shows that it is another one."""
    model: str | None
    metadata: dict[str, Any]
    terms: Mapping[str, str]
    """What it was asked with that changes its price."""
    fills_in: bool
    """Whether the tools that it was asked with are a schema to answer in."""
    first_token: float | None = None
    chunks: list[AIMessageChunk] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    partial: AIMessage | None = None
    """What had come of an answer that broke off, where no chunk was seen."""
    question: Sequence[BaseMessage] = ()
    """What was sent; kept only where usage may have to be estimated."""


@dataclass
class RequestedTool:
    """A tool call that a model asked for."""

    row_id: UUID
    """Of its row; without a meaning where an earlier run asked for it."""
    name: str
    args: Mapping[str, Any] | None
    """None when it was answered."""
    asked_before: str | None = None
    """The provider's id, where it takes that to find the row: of an earlier run."""
    begun: bool = False
    answered: bool = False
    """Whether the message that tells the model what came of it has its row."""

    def answer(self) -> None:
        self.answered, self.args = True, None


@dataclass
class ToolExecution:
    """A tool that runs."""

    id: UUID
    requested: RequestedTool | None
    """What it was asked for by; None when that was no model of its run."""
    tool_call_id: str | None
    """The provider's id of the call; None when no model asked for it, or without one."""
    waiting: Waiting
    started: float
    started_at: datetime

    @property
    def has_row(self) -> bool:
        """Whether a model asked for it, if in an earlier run."""
        return self.requested is not None or self.tool_call_id is not None

    @property
    def row_id(self) -> UUID:
        """Of its row; without a meaning where that is known by the provider's id."""
        return self.requested.row_id if self.requested is not None else self.id

    @property
    def asked_before(self) -> str | None:
        """The provider's id, where it takes that to find the row: of an earlier run."""
        return self.tool_call_id if self.requested is None else self.requested.asked_before


@dataclass
class Run:
    """One run of a graph, from its root's start to its end."""

    id: UUID
    """The execution's: that of `root`, unless an earlier run has had it."""
    root: UUID
    """LangChain's."""
    correlation_id: str
    began: datetime = field(default_factory=now)
    process: int = field(default_factory=os.getpid)
    conversation_id: UUID | None = None
    parents: dict[UUID, UUID | None] = field(default_factory=dict)
    waits: dict[UUID, Waiting] = field(default_factory=dict)
    """Who waits for the chains and tools that run."""
    calls: dict[UUID, ModelCall] = field(default_factory=dict)
    tools: dict[UUID, ToolExecution] = field(default_factory=dict)
    requested: dict[str | None, list[RequestedTool]] = field(default_factory=dict)
    """The tool calls that were asked for last under a provider's id."""
    replies: dict[str, UUID] = field(default_factory=dict)
    """LangChain's message id to our row's id."""
    texts: dict[str, UUID] = field(default_factory=dict)
    """The same by text, of replies that asked for no tool."""
    last_reply: UUID | None = None
    """The last reply that asked for no tool."""
    told: dict[int, tuple[object, float]] = field(default_factory=dict)
    """Replies, their last pieces and errors by identity, and when the calls of them started."""
    asked: int = 0
    """How much the person said in it."""
    goes_on: bool = False
    """Whether it goes on where an earlier one was interrupted."""
    resumed_by: list[str] = field(default_factory=list)
    """Texts that answer an interrupt, which no message has had yet."""
    unbooked: list[Record] = field(default_factory=list)
    """The run's start, where it is booked with the first call only."""

    def is_passed_on(self, call: ModelCall, *outcome: AIMessage | BaseException) -> bool:
        """Whether `outcome` is that of another call, made while `call` waited for it.

        A model that asks another one and passes its reply on was billed nothing. Of a stream
        it passes the pieces on, the only outcome of one that was cut off: those that state the
        usage tell, else the last one.
        """
        pieces = [chunk for chunk in call.chunks if chunk.usage_metadata] or call.chunks[-1:]
        told = [self.told.setdefault(id(one), (one, call.started)) for one in (*outcome, *pieces)]
        return any(started > call.started for _, started in told)

    def begin_requested(
        self, tool_call_id: str | None, name: str | None, args: object
    ) -> RequestedTool | None:
        """The tool call that begins: of several under one id, one after the other.

        A node that runs tools by itself gives them their arguments and no id: then it is the
        one with that name and those, which may have failed before.
        """
        if tool_call_id is not None:
            found = self.requested.get(tool_call_id, [])
        else:
            under_way = {id(tool.requested) for tool in list(self.tools.values())}
            every = [one for same in list(self.requested.values()) for one in same]
            idle = [one for one in every if not one.answered and id(one) not in under_way]
            found = [one for one in idle if one.name == name and _same(one.args, args)]
        begins = next((one for one in found if not one.begun), found[-1] if found else None)
        if begins is not None:
            begins.begun = True
        return begins

    def unanswered(self, tool_call_id: str) -> RequestedTool | None:
        """The tool call of that id that no message has answered yet."""
        same = self.requested.get(tool_call_id, [])
        return next((one for one in same if not one.answered), None)

    def take_below(self, ancestor: UUID | None) -> tuple[list[ModelCall], list[ToolExecution]]:
        """Removes and returns the model calls and tools that are over with `ancestor`, or all."""
        calls = [
            self.calls.pop(id_, None)
            for id_, call in list(self.calls.items())
            if ancestor is None or self._is_over(call, ancestor)
        ]
        tools = [
            self.tools.pop(id_, None)
            for id_, tool in list(self.tools.items())
            if ancestor is None or self._is_over(tool, ancestor)
        ]
        # None: another thread's callback ended it meanwhile.
        return [call for call in calls if call], [tool for tool in tools if tool]

    def _is_over(self, one: ModelCall | ToolExecution, ancestor: UUID) -> bool:
        ended = self.waits.get(ancestor, Waiting())
        return self._is_below(one.id, ancestor) and one.waiting.is_over(ended)

    def _is_below(self, run_id: UUID, ancestor: UUID) -> bool:
        parent = self.parents.get(run_id)
        while parent is not None and parent != ancestor:
            parent = self.parents.get(parent)
        return parent is not None


def _same(asked: object, given: object) -> bool:
    try:
        return bool(asked == given)
    # An app may pass a tool whatever it likes, such as arrays, which have no one answer.
    except Exception:  # noqa: BLE001
        return False


@dataclass(frozen=True)
class RunOutcome:
    """What became of one run: its rows in the books."""

    execution_id: UUID
    conversation_id: UUID | None
    """None for one that was named, where its run's start had not waited for the commit."""
    status: ExecutionStatus
    message_id: UUID | None
    """The reply that was shown; None if there was none."""


class Ended:
    """Which runs have ended, the newest of them."""

    def __init__(self) -> None:
        self._ids: dict[UUID, None] = {}

    def __contains__(self, run_id: UUID) -> bool:
        return run_id in self._ids

    def add(self, run_id: UUID) -> None:
        """The oldest one goes where there are too many."""
        self._ids[run_id] = None
        if len(self._ids) > MAX_ENDED:
            del self._ids[next(iter(self._ids))]
