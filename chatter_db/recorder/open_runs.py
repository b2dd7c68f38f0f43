"""Runs that have not ended: what begins and ends in them, each a record for the writer."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID
from weakref import WeakKeyDictionary

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.utils.uuid import uuid7
from msgspec.structs import replace

from chatter_db.errors import RecordingFailed
from chatter_db.models import MAX_NAME, ExecutionStatus
from chatter_db.recorder import ambient
from chatter_db.recorder.arguments import Given, fitting, run_id_of
from chatter_db.recorder.asking import asks_for_schema, endpoint_asked, terms_asked
from chatter_db.recorder.doors import durable
from chatter_db.recorder.records import Record, RunEnded, RunStarted
from chatter_db.recorder.rows import (
    CANCELLED,
    asked_rows,
    error_columns,
    interrupted_call,
    interrupted_calls,
    reply,
)
from chatter_db.recorder.runs import Ended, ModelCall, Run, RunOutcome, ToolExecution, now
from chatter_db.recorder.states import is_pause
from chatter_db.recorder.tool_calls import (
    answers_to_tools,
    interrupted_tools,
    requested_tools,
    tool_answer,
    tool_begin,
    tool_result,
    tool_run,
    tools_done,
)
from chatter_db.recorder.turns import asked_of, resumed_in, shown_of
from chatter_db.recorder.unreported import tell_of_unreported_usage
from chatter_db.recorder.usage import Usage
from chatter_db.recorder.waiting import Waiting, Watch, waiting
from chatter_db.recorder.writer import Booked, Writer

log = logging.getLogger(__name__)

# What a run's metadata is worth keeping on its rows: where in the graph it happened.
_PLACE = ("langgraph_node", "langgraph_step", "langgraph_checkpoint_ns")

# Who of a writer books what runs now: of several recorders on one run, only one.
_OWNERS: "WeakKeyDictionary[Writer, dict[UUID, OpenRuns]]" = WeakKeyDictionary()
_ENDED: WeakKeyDictionary[Writer, Ended] = WeakKeyDictionary()


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _at_work(
    method: "Callable[Concatenate[OpenRuns, Arguments], Result]",
) -> "Callable[Concatenate[OpenRuns, Arguments], Result | None]":
    """For what ends something open: a Chatter that closes waits for it, or does it instead."""

    @wraps(method)
    def whole(
        self: "OpenRuns", /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result | None:
        with self._writer.at_work() as taken:
            return method(self, *args, **kwargs) if taken else None

    return whole


class OpenRuns:
    """Those of a recorder, and the one that ended last."""

    def __init__(self, writer: Writer, given: Given, *, installed: bool) -> None:
        self._writer = writer
        self._given = given
        # One that hears of everything in the process leaves a run to a recorder that was
        # given for it, and books runs from their first model call on: most are none.
        self._installed = installed
        self._runs: dict[UUID, Run] = {}
        self._watch = Watch(self._over)
        self._owners = _OWNERS.setdefault(writer, {})
        self._ended_runs = _ENDED.setdefault(writer, Ended())
        self.last: RunOutcome | None = None

    def books_like(self, other: "OpenRuns") -> bool:
        mine, its = ((each._writer, each._given, each._installed) for each in (self, other))
        return mine == its

    async def begin(
        self,
        run_id: UUID,
        parent_id: UUID | None,
        name: str | None,
        metadata: Mapping[str, Any] | None,
        inputs: Any,
        wait: Waiting | None = None,
    ) -> Run | None:
        """The run that `run_id` is part of, or the root of; None if it isn't this one's to book."""
        with self._writer.at_work() as taken:
            opened = (
                self._opened(run_id, parent_id, name, metadata, inputs, wait) if taken else None
            )
        if opened is None:
            return None
        await self._started(run_id, *opened)
        return opened[0]

    def _opened(
        self,
        run_id: UUID,
        parent_id: UUID | None,
        name: str | None,
        metadata: Mapping[str, Any] | None,
        inputs: Any,
        wait: Waiting | None,
    ) -> "tuple[Run, Future[Booked] | None] | None":
        """That run, and when its start is durable, if it begins now."""
        # Who replaces a run's callbacks has no parent; inside of LangSmith's `traceable`, which
        # LangChain's agents use for their middleware, the parent is a run of LangSmith's alone.
        if parent_id not in self._runs and (around := ambient.run_id()) in self._runs:
            parent_id = around
        if not self._takes(run_id, parent_id):
            return None
        run = self._runs.get(run_id) or (self._runs.get(parent_id) if parent_id else None)
        start: list[Record] = []
        if run is None:
            correlation_id = self._given.correlation_id or str(run_id)
            # An app may give a run_id, and try again with it: what it pays for then is new.
            own_id = uuid7() if run_id in self._ended_runs else run_id
            run = Run(id=own_id, root=run_id, correlation_id=correlation_id)
            start = self._start_of(run, name, metadata, inputs)
        self._runs[run_id] = run
        run.parents[run_id] = parent_id if run_id != run.root else None
        run.waits[run_id] = wait or waiting(chain=True)
        if self._installed:
            run.unbooked.extend(start)
            start = []
        return run, self._submitted(start)

    async def _started(
        self,
        run_id: UUID,
        run: Run,
        start: "Future[Booked] | None",
        begun: "Future[Booked] | None" = None,
    ) -> None:
        """Waits until the start of a run is durable, and what `run_id` begins with."""
        try:
            booked = await durable(start)
            await durable(begun)
        except RecordingFailed:
            return  # The writer has logged it; what the run pays for is to be booked all the same
        except BaseException as error:
            # LangChain logs an Exception, such as a task's time limit, and goes on. What is about
            # to begin with any other never does, and LangChain tells of no end of it.
            if not isinstance(error, Exception):
                self._never_began(run_id, run, error)
            raise
        if booked is not None:
            run.conversation_id = booked.conversation_id

    @_at_work
    def _never_began(self, run_id: UUID, run: Run, error: BaseException) -> None:
        self._close_call(run_id)
        if run_id in run.tools:
            self._submitted(self._tool_ended(run_id, None, error))
        elif run_id == run.root:
            self._submitted(self._ended(run, None, error))

    def _takes(self, run_id: UUID, parent_id: UUID | None) -> bool:
        """Whether this recorder books `run_id`, rather than another of the same writer.

        One that was given doesn't ask whose the run above is: where a call has callbacks of its
        own, that recorder isn't told of it, and yet LangSmith's tracing names its run as parent.
        """
        owner = self._owners.get(run_id)
        if owner is None and parent_id and self._installed:
            owner = self._owners.get(parent_id)
        if owner is not None and owner is not self:
            if self._installed or not owner._installed:
                return False
            owner._release(run_id)
        self._owners[run_id] = self
        return True

    def _release(self, run_id: UUID) -> None:
        """Leaves `run_id` to another recorder."""
        run = self._runs.get(run_id)
        if run is not None:
            self._close_call(run_id)
            self._forget(run, run_id)

    def _start_of(
        self,
        run: Run,
        name: str | None,
        metadata: Mapping[str, Any] | None,
        inputs: Any,
    ) -> list[Record]:
        """The records that a run begins with."""
        metadata = metadata or {}
        given = self._given.conversation if isinstance(self._given.conversation, UUID) else None
        named = self._given.conversation or metadata.get("thread_id") if given is None else None
        start = RunStarted(
            execution_id=run.id,
            conversation_id=given or (None if named else uuid7()),
            new_conversation=given is None and not named,
            conversation_external_id=fitting(str(named)) if named else None,
            user_external_id=self._user_of(metadata),
            workflow_name=(self._given.workflow or name or "workflow")[:MAX_NAME],
            correlation_id=run.correlation_id,
            started_at=run.began,
            metadata=self._given.metadata,
            recorder_id=self._writer.id,
        )
        asked = asked_rows(run, asked_of(inputs), run.began, content=self._given.content)
        return [start, *tools_done(run, inputs, content=self._given.content), *asked]

    def _user_of(self, metadata: Mapping[str, Any]) -> str | None:
        named = self._given.user or ambient.user(metadata)
        return fitting(named) if named else None

    async def begin_call(
        self,
        run_id: UUID,
        parent_run_id: UUID | None,
        serialized: Mapping[str, Any] | None,
        metadata: Mapping[str, Any] | None,
        options: Mapping[str, Any],
        question: Sequence[BaseMessage],
    ) -> None:
        """A model is asked. Raises RecordingFailed if nothing is booked any more."""
        wait = waiting()
        with self._writer.at_work() as taken:
            if not taken:
                raise RecordingFailed("The recorder was used after its Chatter was closed.")
            opened = self._opened_call(
                run_id, parent_run_id, serialized, metadata or {}, options, question, wait
            )
        if opened is not None:
            await self._started(run_id, *opened)

    def _opened_call(
        self,
        run_id: UUID,
        parent_run_id: UUID | None,
        serialized: Mapping[str, Any] | None,
        metadata: Mapping[str, Any],
        options: Mapping[str, Any],
        question: Sequence[BaseMessage],
        wait: Waiting,
    ) -> "tuple[Run, Future[Booked] | None] | None":
        """Its run, and when the start of that is durable, if it begins with the call."""
        started, started_at = time.perf_counter(), now()
        name = options.get("name")
        opened = self._opened(run_id, parent_run_id, name, metadata, question, wait)
        if opened is None:
            return None
        run, start = opened
        parameters = options.get("invocation_params") or {}
        model = metadata.get("ls_model_name") or parameters.get("model")
        run.calls[run_id] = ModelCall(
            id=run_id,
            row_id=run.id if run_id == run.root else run_id,
            parent_id=run.parents[run_id],
            waiting=wait,
            started=started,
            started_at=started_at,
            provider=metadata.get("ls_provider"),
            endpoint=endpoint_asked(metadata.get("ls_provider"), serialized),
            terms=terms_asked(metadata.get("ls_provider"), serialized, question, parameters),
            fills_in=asks_for_schema(options.get("options") or {}),
            model=model or parameters.get("model_name"),
            metadata={key: metadata[key] for key in _PLACE if key in metadata},
            question=question if self._given.estimate_usage else (),
        )
        self._watch.begin(wait, run_id, together=options.get("batch_size") or 1)
        if run.unbooked:
            unbooked, run.unbooked = run.unbooked, []
            if isinstance(first := unbooked[0], RunStarted):
                # Inside of the run more is known of it than when it began.
                whose = self._user_of(metadata)
                unbooked[0] = replace(first, user_external_id=whose or first.user_external_id)
            start = self._submitted(unbooked)
        return run, start

    async def begin_tool(
        self,
        run_id: UUID,
        parent_run_id: UUID | None,
        name: str | None,
        metadata: Mapping[str, Any] | None,
        tool_call_id: str | None,
        args: object,
    ) -> None:
        """A tool begins, with these arguments."""
        wait = waiting()
        with self._writer.at_work() as taken:
            opened = (
                self._opened_tool(run_id, parent_run_id, name, metadata, tool_call_id, args, wait)
                if taken
                else None
            )
        if opened is not None:
            run, start, begun = opened
            await self._started(run_id, run, start, begun)

    def _opened_tool(
        self,
        run_id: UUID,
        parent_run_id: UUID | None,
        name: str | None,
        metadata: Mapping[str, Any] | None,
        tool_call_id: str | None,
        args: object,
        wait: Waiting,
    ) -> "tuple[Run, Future[Booked] | None, Future[Booked] | None] | None":
        """Its run, when the start of that is durable, if it begins with the tool, and its own."""
        opened = self._opened(run_id, parent_run_id, name, metadata, None, wait)
        if opened is None:
            return None
        run, start = opened
        requested = run.begin_requested(tool_call_id, name, args)
        tool = ToolExecution(
            id=run_id,
            requested=requested,
            tool_call_id=tool_call_id,
            waiting=wait,
            started=time.perf_counter(),
            started_at=now(),
        )
        run.tools[run_id] = tool
        self._watch.begin(wait, run_id)
        told = tool.has_row and not run.unbooked
        return run, start, self._submitted([tool_begin(run, tool)] if told else [])

    @_at_work
    def _over(self, run_id: UUID) -> None:
        """A call or tool was cancelled."""
        cancelled = asyncio.CancelledError()
        run, call = self._close_call(run_id)
        # Nobody is left to wait for it; the writer logs what it can't book.
        if run is not None and call is not None:
            self._submitted(self._interrupted(run, call, cancelled))
        else:
            self._submitted(self._tool_ended(run_id, None, cancelled))

    def call(self, given: UUID) -> ModelCall | None:
        """The model call that is open by this id of LangChain's."""
        run = self._runs.get(run_id := run_id_of(given))
        return run.calls.get(run_id) if run else None

    def _close_call(self, run_id: UUID) -> tuple[Run | None, ModelCall | None]:
        """Takes a call out, and says of which run."""
        run = self._runs.get(run_id)
        call = run.calls.pop(run_id, None) if run else None
        if run is not None and call is not None:
            self._watch.end(call.waiting, run_id)
            if run_id != run.root:
                self._forget(run, run_id)
        return run, call

    def _interrupted(self, run: Run, call: ModelCall, error: BaseException) -> list[Record]:
        """Records of a call that failed or was cancelled, and of its run's end if it was all."""
        records: list[Record] = []
        if not run.is_passed_on(call, error):
            records.append(
                interrupted_call(
                    run,
                    call,
                    error,
                    content=self._given.content,
                    estimate=self._given.estimate_usage,
                )
            )
        if call.row_id == run.id:
            records += self._ended(run, None, error)
        return records

    @_at_work
    def break_off(self, run_id: UUID, error: BaseException) -> "Future[Booked] | None":
        """Books a call that failed, with what came of an answer."""
        run, call = self._close_call(run_id)
        if run is None or call is None:
            return None
        return self._submitted(self._interrupted(run, call, error))

    @_at_work
    def answer(self, run_id: UUID, message: AIMessage, usage: Usage) -> "Future[Booked] | None":
        """Books a model's reply, and the tool calls it asks for."""
        run, call = self._close_call(run_id)
        if run is None or call is None:
            return None
        alone = call.row_id == run.id
        records: list[Record] = []
        if not run.is_passed_on(call, message):
            tell_of_unreported_usage(call, message, usage)
            row = reply(
                run,
                call,
                message,
                usage,
                kind="turn" if alone and not message.tool_calls else "step",
                content=self._given.content,
                estimate=self._given.estimate_usage,
            )
            records = [row, *requested_tools(run, call, message)]
            if message.id:
                run.replies[message.id] = call.row_id
            if not message.tool_calls:
                run.last_reply = call.row_id
                run.texts[str(message.text)] = call.row_id
        if alone:
            records += self._ended(run, message, None)
        return self._submitted(records)

    @_at_work
    def end_tool(
        self, run_id: UUID, output: Any, error: BaseException | None
    ) -> "Future[Booked] | None":
        """A tool is over."""
        return self._submitted(self._tool_ended(run_id, output, error))

    def _tool_ended(self, run_id: UUID, output: Any, error: BaseException | None) -> list[Record]:
        run = self._runs.get(run_id)
        tool = run.tools.pop(run_id, None) if run else None
        if run is None or tool is None:
            return []
        self._watch.end(tool.waiting, run_id)
        records: list[Record] = self._below(run, run_id)
        answer = tool_answer(tool, output)
        if tool.has_row:
            records.append(tool_run(run, tool, answer, error, content=self._given.content))
        if answer is not None:
            if tool.requested is not None:
                tool.requested.answer()
            records.append(tool_result(run, run_id, answer, content=self._given.content))
        records = self._kept(run, records)
        if run_id == run.root:
            records += self._ended(run, output, error)
        else:
            self._forget(run, run_id)
        return records

    @_at_work
    def leave(
        self, run_id: UUID, outputs: Any, error: BaseException | None, inputs: Any = None
    ) -> "Future[Booked] | None":
        """A chain is over. LangChain tells nothing of calls cancelled below it: they end here."""
        run = self._runs.get(run_id)
        if run is None:
            return None
        records = self._below(run, run_id)
        said = asked_rows(run, resumed_in(run, outputs), now(), content=self._given.content)
        if run_id == run.root and not run.asked:
            # What a streamed chain is asked is told at its end only.
            said += asked_rows(run, asked_of(inputs), run.began, content=self._given.content)
        records += answers_to_tools(run, outputs, content=self._given.content)
        records = self._kept(run, records + said)
        if run_id == run.root:
            records += self._ended(run, outputs, error)
        else:
            self._forget(run, run_id)
        return self._submitted(records)

    def cut_off(self) -> None:
        """Books what is under way as cancelled, with the usage that was stated by now."""
        for run in {run.id: run for run in list(self._runs.values())}.values():
            # What was under way before a fork goes on in the parent.
            if run.process != os.getpid():
                continue
            try:
                self._cut_off(run)
            except Exception:  # a bug of ours must not cost the other runs
                log.exception("Execution %s can't be booked as cancelled", run.id)

    def _cut_off(self, run: Run) -> None:
        booked, goes_on = not run.unbooked, run.root in self._runs
        if run.calls:
            log.warning(
                "Execution %s: %d model call(s) under way when the Chatter closed are booked "
                "as cancelled; what they use from now on is not known.",
                run.id,
                len(run.calls),
            )
        records = self._below(run, None)
        if goes_on:
            records += self._ended(run, None, asyncio.CancelledError())
        if booked:
            self._submitted(records)

    def _below(self, run: Run, run_id: UUID | None) -> list[Record]:
        """Rows of what is over with `run_id`, or of all that is under way."""
        calls, tools = run.take_below(run_id)
        over: list[ModelCall | ToolExecution] = [*calls, *tools]
        for one in over:
            self._watch.end(one.waiting, one.id)
            self._forget(run, one.id)
        content, estimate = self._given.content, self._given.estimate_usage
        cut_off = interrupted_calls(run, calls, content=content, estimate=estimate)
        return cut_off + interrupted_tools(run, tools, content=content)

    def _kept(self, run: Run, records: list[Record]) -> list[Record]:
        """What of `records` is to be booked now: of a run that has no call yet they wait for it."""
        if not run.unbooked:
            return records
        run.unbooked.extend(records)
        return []

    def _ended(self, run: Run, outputs: Any, error: BaseException | None) -> list[Record]:
        """The run is over: its end, and nothing kept of it but calls that go on in threads."""
        status: ExecutionStatus = "completed"
        if error is not None and not is_pause(error):
            status = "cancelled" if isinstance(error, CANCELLED) else "failed"
        answer = shown_of(run, outputs) if error is None else None
        for run_id in list(run.parents):
            if run_id not in run.calls and run_id not in run.tools:
                self._forget(run, run_id)
        if run.unbooked:
            run.unbooked.clear()
            return []
        self._ended_runs.add(run.root)
        self.last = RunOutcome(
            execution_id=run.id,
            conversation_id=run.conversation_id,
            status=status,
            message_id=answer,
        )
        return [
            RunEnded(
                execution_id=run.id,
                status=status,
                finished_at=now(),
                answer_id=answer,
                **error_columns(error if status == "failed" else None, content=self._given.content),
            )
        ]

    def _forget(self, run: Run, run_id: UUID) -> None:
        run.parents.pop(run_id, None)
        run.waits.pop(run_id, None)
        self._runs.pop(run_id, None)
        if self._owners.get(run_id) is self:
            del self._owners[run_id]

    def _submitted(self, records: Sequence[Record]) -> "Future[Booked] | None":
        return self._writer.submit(records) if records else None


def cut_off_runs(writer: Writer) -> None:
    """Books as cancelled what is under way when `writer` is about to close.

    Streams whose client is gone, and whatever else outlives the app, end later or never; that
    they were asked for, and are paid for, is known by now.
    """
    writer.shut()
    for runs in set(_OWNERS.get(writer, {}).values()):
        runs.cut_off()
