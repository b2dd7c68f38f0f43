"""The recorder as a LangChain callback handler: attach it to any graph, unmodified.

Callbacks arrive from LangChain in the order of the run, on any thread or event
loop. The async ones wait until their row is durable before the graph goes on;
the sync paths of LangChain run them to the end as well.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from uuid import UUID, uuid5

import msgspec
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, GenerationChunk, LLMResult
from langchain_core.utils.uuid import uuid7

from chatter_db.errors import UsageError
from chatter_db.models import ExecutionStatus
from chatter_db.recorder import usage as usage_of
from chatter_db.recorder.records import (
    MessageRow,
    Record,
    RunEnded,
    RunStarted,
    ToolCallRow,
    ToolRun,
)
from chatter_db.recorder.rows import (
    CANCELLED,
    error_columns,
    interrupted_below,
    interrupted_call,
    reply,
    tool_result,
    tool_run,
)
from chatter_db.recorder.runs import ModelCall, Run, ToolExecution, now
from chatter_db.recorder.turns import asked_of, shown_of
from chatter_db.recorder.usage import Usage
from chatter_db.recorder.writer import Booked, Writer

MAX_NAME = 500
"""The limit, in characters, of the names that a host app gives."""

# What a run's metadata is worth keeping on its rows: where in the graph it happened.
_PLACE = ("langgraph_node", "langgraph_step", "langgraph_checkpoint_ns")


@dataclass(frozen=True)
class RunOutcome:
    """What became of one run: its rows in the books."""

    execution_id: UUID
    conversation_id: UUID | None
    status: ExecutionStatus
    message_id: UUID | None
    """The reply that was shown; None if there was none."""


class Recorder(BaseCallbackHandler):
    """Books every model call of the runs it is attached to.

        run = chatter.recorder(conversation="support-42", user="ada")
        await graph.ainvoke(inputs, config={"callbacks": [run]})

    Works with invoke, ainvoke, stream and astream; may serve many runs, one after
    the other or at once. Each run is an execution, each model call a row the
    moment it ends.
    """

    # Callbacks of one run stay in order, and a row is durable before the graph goes on.
    run_inline = True

    def __init__(
        self,
        writer: Writer,
        *,
        conversation: str | UUID | None = None,
        user: str | None = None,
        workflow: str | None = None,
        correlation_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        content: bool = True,
    ) -> None:
        if not isinstance(conversation, UUID):
            _require_name("conversation", conversation)
        _require_name("user", user)
        _require_name("workflow", workflow)
        _require_name("correlation_id", correlation_id)
        self._writer = writer
        self._conversation = conversation
        self._user = user
        self._workflow = workflow
        self._correlation_id = correlation_id
        self._metadata = _json_object("metadata", metadata)
        self._content = content
        self._runs: dict[UUID, Run] = {}
        self.last_run: RunOutcome | None = None
        """The run that ended last."""

    # -- chains: the root of a run, its nodes, subgraphs ---------------------------------

    async def on_chain_start(
        self,
        serialized: dict[str, Any] | None,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if self._enter(run_id, parent_run_id) is None:
            await self._start(run_id, kwargs.get("name"), metadata, asked_of(inputs))

    async def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        await self._leave(run_id, outputs, None)

    async def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        await self._leave(run_id, None, error)

    # -- model calls -----------------------------------------------------------------------

    async def on_chat_model_start(
        self,
        serialized: dict[str, Any] | None,
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        asked = asked_of(messages[0]) if messages else []
        await self._call(run_id, parent_run_id, metadata, kwargs, asked)

    async def on_llm_start(
        self,
        serialized: dict[str, Any] | None,
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        asked = [HumanMessage(prompts[0])] if prompts else []
        await self._call(run_id, parent_run_id, metadata, kwargs, asked)

    # Not async: a token must cost next to nothing, on the sync paths too.
    def on_llm_new_token(
        self,
        token: str | list[str | dict[str, Any]],
        *,
        chunk: GenerationChunk | ChatGenerationChunk | None = None,
        run_id: UUID,
        **kwargs: Any,
    ) -> None:
        run = self._runs.get(run_id)
        call = run.calls.get(run_id) if run else None
        if call is None:
            return
        if call.first_token is None:
            call.first_token = time.perf_counter()
        if isinstance(chunk, ChatGenerationChunk) and isinstance(chunk.message, AIMessageChunk):
            call.chunks.append(chunk.message)
        elif isinstance(token, str):
            call.text.append(token)

    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        run, call = self._close_call(run_id)
        if run is None or call is None:
            return
        generation = response.generations[0][0] if response.generations[0] else None
        message = generation.message if isinstance(generation, ChatGeneration) else None
        await self._record_reply(
            run,
            call,
            message
            if isinstance(message, AIMessage)
            else AIMessage(generation.text if generation else ""),
            usage_of.of_result(response, call.chunks, provider=call.provider),
        )

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        run, call = self._close_call(run_id)
        if run is not None and call is not None:
            await self._submit([interrupted_call(run, call, error, content=self._content)])
            if call.id == run.id:
                await self._end(run, None, error)

    # -- tools -----------------------------------------------------------------------------

    async def on_tool_start(
        self,
        serialized: dict[str, Any] | None,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        run = self._enter(run_id, parent_run_id)
        if run is None:
            run = await self._start(run_id, (serialized or {}).get("name"), metadata, [])
        tool_call_id = kwargs.get("tool_call_id")
        tool = ToolExecution(
            row_id=run.requested.get(tool_call_id) if tool_call_id else None,
            tool_call_id=tool_call_id,
            started=time.perf_counter(),
            started_at=now(),
        )
        run.tools[run_id] = tool
        if tool.row_id is not None:
            await self._submit(
                [
                    ToolRun(
                        id=tool.row_id,
                        execution_id=run.id,
                        status="running",
                        started_at=tool.started_at,
                    )
                ]
            )

    async def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        await self._end_tool(run_id, output, None)

    async def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        await self._end_tool(run_id, None, error)

    # -- the books -------------------------------------------------------------------------

    def _enter(self, run_id: UUID, parent_id: UUID | None) -> Run | None:
        """The run that `run_id` is part of, None if it is the root of a new one."""
        run = self._runs.get(run_id) or (self._runs.get(parent_id) if parent_id else None)
        if run is not None:
            self._runs[run_id] = run
            run.parents[run_id] = parent_id
        return run

    async def _start(
        self,
        run_id: UUID,
        name: str | None,
        metadata: Mapping[str, Any] | None,
        asked: Sequence[HumanMessage],
    ) -> Run:
        metadata = metadata or {}
        run = Run(id=run_id, correlation_id=self._correlation_id or str(run_id))
        self._runs[run_id] = run
        run.parents[run_id] = None
        given = self._conversation if isinstance(self._conversation, UUID) else None
        named = self._conversation or metadata.get("thread_id") if given is None else None
        at = now()
        start = RunStarted(
            execution_id=run_id,
            conversation_id=given or (None if named else uuid7()),
            new_conversation=given is None and not named,
            conversation_external_id=_fitting(str(named)) if named else None,
            user_external_id=self._user,
            workflow_name=(self._workflow or name or "workflow")[:MAX_NAME],
            correlation_id=run.correlation_id,
            started_at=at,
            metadata=self._metadata,
        )
        turns = [
            MessageRow(
                id=uuid5(run_id, f"asked {number}"),
                execution_id=run_id,
                role="user",
                kind="turn",
                content=str(message.text) if self._content else None,
                correlation_id=run.correlation_id,
                metadata={},
                created_at=at,
            )
            for number, message in enumerate(asked)
        ]
        booked = await self._submit([start, *turns])
        run.conversation_id = booked.conversation_id
        return run

    async def _call(
        self,
        run_id: UUID,
        parent_run_id: UUID | None,
        metadata: Mapping[str, Any] | None,
        options: Mapping[str, Any],
        asked: Sequence[HumanMessage],
    ) -> None:
        metadata = metadata or {}
        run = self._enter(run_id, parent_run_id)
        if run is None:
            run = await self._start(run_id, options.get("name"), metadata, asked)
        parameters = options.get("invocation_params") or {}
        run.calls[run_id] = ModelCall(
            id=run_id,
            parent_id=parent_run_id,
            started=time.perf_counter(),
            started_at=now(),
            provider=metadata.get("ls_provider"),
            model=metadata.get("ls_model_name")
            or parameters.get("model")
            or parameters.get("model_name"),
            metadata={key: metadata[key] for key in _PLACE if key in metadata},
        )

    def _close_call(self, run_id: UUID) -> tuple[Run | None, ModelCall | None]:
        run = self._runs.get(run_id)
        call = run.calls.pop(run_id, None) if run else None
        return run, call

    async def _record_reply(
        self, run: Run, call: ModelCall, message: AIMessage, usage: Usage
    ) -> None:
        """Books a model's reply, and the tool calls it asks for."""
        alone = call.id == run.id
        row = reply(
            run, call, message, usage, kind="turn" if alone else "step", content=self._content
        )
        tool_calls = []
        for number, asked in enumerate(message.tool_calls):
            row_id = uuid5(call.id, f"tool call {asked['id'] or number}")
            tool_calls.append(
                ToolCallRow(
                    id=row_id,
                    execution_id=run.id,
                    message_id=call.id,
                    tool_call_id=asked["id"],
                    tool_name=(asked["name"] or "unnamed")[:MAX_NAME],
                )
            )
            if asked["id"]:
                run.requested[asked["id"]] = row_id
        if not message.tool_calls:
            run.last_reply = call.id
            run.texts[str(message.text)] = call.id
            if message.id:
                run.replies[message.id] = call.id
        await self._submit([row, *tool_calls])
        if alone:
            await self._end(run, message, None)

    async def _end_tool(self, run_id: UUID, output: Any, error: BaseException | None) -> None:
        run = self._runs.get(run_id)
        tool = run.tools.pop(run_id, None) if run else None
        if run is None or tool is None:
            return
        records: list[Record] = interrupted_below(run, run_id, content=self._content)
        if tool.row_id is not None:
            records.append(tool_run(run, tool, output, error))
        if isinstance(output, ToolMessage):
            records.append(tool_result(run, run_id, output, content=self._content))
        if records:
            await self._submit(records)
        if run_id == run.id:
            await self._end(run, output, error)
        else:
            self._forget(run, run_id)

    async def _leave(self, run_id: UUID, outputs: Any, error: BaseException | None) -> None:
        """A chain is over. LangChain tells nothing of calls cancelled below it: they end here."""
        run = self._runs.get(run_id)
        if run is None:
            return
        cancelled = interrupted_below(run, run_id, content=self._content)
        if run_id == run.id:
            await self._end(run, outputs, error, cancelled)
            return
        self._forget(run, run_id)
        if cancelled:
            await self._submit(cancelled)

    async def _end(
        self,
        run: Run,
        outputs: Any,
        error: BaseException | None,
        records: Sequence[Record] = (),
    ) -> None:
        status: ExecutionStatus = "completed"
        if error is not None:
            status = "cancelled" if isinstance(error, CANCELLED) else "failed"
        answer = shown_of(run, outputs) if error is None else None
        for run_id in list(run.parents):
            self._forget(run, run_id)
        self.last_run = RunOutcome(
            execution_id=run.id,
            conversation_id=run.conversation_id,
            status=status,
            message_id=answer,
        )
        await self._submit(
            [
                *records,
                RunEnded(
                    execution_id=run.id,
                    status=status,
                    finished_at=now(),
                    answer_id=answer,
                    **error_columns(error if status == "failed" else None),
                ),
            ]
        )

    def _forget(self, run: Run, run_id: UUID) -> None:
        run.parents.pop(run_id, None)
        self._runs.pop(run_id, None)

    async def _submit(self, records: Sequence[Record]) -> Booked:
        return await asyncio.wrap_future(self._writer.submit(records))


def _fitting(name: str) -> str:
    """`name` within the limit; what is too long ends in a digest, so that it stays itself."""
    if len(name) <= MAX_NAME:
        return name
    digest = blake2b(name.encode("utf-8", "replace"), digest_size=16).hexdigest()
    return f"{name[: MAX_NAME - 33]}-{digest}"


def _require_name(argument: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str):
        raise UsageError(f"{argument} must be a string, not {type(value).__name__}.")
    if not 1 <= len(value) <= MAX_NAME or "\0" in value:
        raise UsageError(
            f"{argument} must have 1 to {MAX_NAME} characters and no NUL; it has {len(value)}."
        )


def _json_object(argument: str, value: Mapping[str, Any] | None) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise UsageError(f"{argument} must be a mapping, not {type(value).__name__}.")
    try:
        msgspec.json.encode(dict(value or {}))
    except (TypeError, ValueError) as error:
        raise UsageError(f"{argument} must be JSON: {error}.") from None
    return dict(value or {})
