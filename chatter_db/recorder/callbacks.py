"""The recorder as a LangChain callback handler: attach it to any graph, unmodified.

Callbacks arrive from LangChain in the order of the run, on any thread or event
loop, and return when their row is durable: the graph goes on then.
"""

import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, GenerationChunk, LLMResult

from chatter_db.recorder import usage as usage_of
from chatter_db.recorder.arguments import Given, json_object
from chatter_db.recorder.doors import callback, durable
from chatter_db.recorder.open_runs import OpenRuns
from chatter_db.recorder.rows import first_of
from chatter_db.recorder.runs import RunOutcome
from chatter_db.recorder.states import goes_on
from chatter_db.recorder.tool_calls import take_up_tools
from chatter_db.recorder.turns import resumed_by
from chatter_db.recorder.unparsed import unparsed
from chatter_db.recorder.writer import Writer


class Recorder(BaseCallbackHandler):
    """Books every model call of the runs it is attached to.

        run = chatter.recorder(conversation="support-42", user="ada")
        await graph.ainvoke(inputs, config={"callbacks": [run]})

    Works with invoke, ainvoke, stream, astream, astream_events, batch and abatch;
    may serve many runs, one after the other or at once. Each run is an execution,
    each model call a row the moment it ends.
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
        estimate_usage: bool = False,
        installed: bool = False,
    ) -> None:
        given = Given(
            conversation=conversation,
            user=user,
            workflow=workflow,
            correlation_id=correlation_id,
            metadata=json_object("metadata", metadata),
            content=content,
            estimate_usage=estimate_usage,
        )
        self._open = OpenRuns(writer, given, installed=installed)

    def __copy__(self) -> "Recorder":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Recorder":
        # Frameworks copy a config that they change.
        return self

    def books_like(self, other: "Recorder") -> bool:
        """Whether both book everything alike, in the same books."""
        return self._open.books_like(other._open)

    @property
    def last_run(self) -> RunOutcome | None:
        """The run that ended last."""
        return self._open.last

    # -- chains: the root of a run, its nodes, subgraphs ---------------------------------

    @callback
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
        # The iterator of an AgentExecutor says its name here only.
        name = kwargs.get("name") or (serialized or {}).get("name")
        run = await self._open.begin(run_id, parent_run_id, name, metadata, inputs)
        if run is None:
            return
        if run.root == run_id:
            run.goes_on = goes_on(inputs)
            run.resumed_by = resumed_by(inputs)
        elif run.goes_on:
            take_up_tools(run, inputs)

    @callback
    async def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        await durable(self._open.leave(run_id, outputs, None, kwargs.get("inputs")))

    @callback
    async def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        await durable(self._open.leave(run_id, None, error, kwargs.get("inputs")))

    @callback
    async def on_retriever_start(
        self,
        serialized: dict[str, Any] | None,
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        # Some ask a model what to look for.
        await self._open.begin(run_id, parent_run_id, kwargs.get("name"), metadata, None)

    @callback
    async def on_retriever_end(self, documents: Any, *, run_id: UUID, **kwargs: Any) -> None:
        await durable(self._open.leave(run_id, None, None))

    @callback
    async def on_retriever_error(
        self, error: BaseException, *, run_id: UUID, **kwargs: Any
    ) -> None:
        await durable(self._open.leave(run_id, None, error))

    # -- model calls -----------------------------------------------------------------------

    @callback
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
        question = messages[0] if messages else []
        await self._open.begin_call(run_id, parent_run_id, serialized, metadata, kwargs, question)

    @callback
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
        question = [HumanMessage(prompts[0])] if prompts else []
        await self._open.begin_call(run_id, parent_run_id, serialized, metadata, kwargs, question)

    # Not async: a token must cost next to nothing, on the sync paths too.
    def on_llm_new_token(
        self,
        token: str | list[str | dict[str, Any]],
        *,
        chunk: GenerationChunk | ChatGenerationChunk | None = None,
        run_id: UUID,
        **kwargs: Any,
    ) -> None:
        call = self._open.call(run_id)
        if call is None:
            return
        if call.first_token is None:
            call.first_token = time.perf_counter()
        if isinstance(chunk, ChatGenerationChunk) and isinstance(chunk.message, AIMessageChunk):
            call.chunks.append(chunk.message)
        elif isinstance(token, str):
            call.text.append(token)

    # The newer streams tell of events instead of tokens.
    def on_stream_event(self, event: Any, *, run_id: UUID, **kwargs: Any) -> None:
        call = self._open.call(run_id)
        if call is not None and call.first_token is None and "delta" in str(event.get("event")):
            call.first_token = time.perf_counter()

    @callback
    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        call = self._open.call(run_id)
        if call is None:
            return
        generation = first_of(response)
        message = generation.message if isinstance(generation, ChatGeneration) else None
        if not isinstance(message, AIMessage):
            message = AIMessage(generation.text if generation else "")
        usage = usage_of.of_result(response, call.chunks, provider=call.provider)
        await durable(self._open.answer(run_id, message, usage))

    @callback
    async def on_llm_error(
        self,
        error: BaseException,
        *,
        run_id: UUID,
        response: LLMResult | None = None,
        **kwargs: Any,
    ) -> None:
        call = self._open.call(run_id)
        if call is None:
            return
        generation = first_of(response)
        if isinstance(generation, ChatGeneration) and isinstance(generation.message, AIMessage):
            call.partial = unparsed(generation.message)
        await durable(self._open.break_off(run_id, error))

    # -- tools -----------------------------------------------------------------------------

    @callback
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
        name = kwargs.get("name") or (serialized or {}).get("name")
        tool_call_id, args = kwargs.get("tool_call_id"), kwargs.get("inputs")
        await self._open.begin_tool(run_id, parent_run_id, name, metadata, tool_call_id, args)

    @callback
    async def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        await durable(self._open.end_tool(run_id, output, None))

    @callback
    async def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        await durable(self._open.end_tool(run_id, None, error))
