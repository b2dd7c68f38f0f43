"""Every way a run can end: what was used by then is kept, and nothing stays `running`."""

import asyncio
import gc
import itertools
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphRecursionError
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, interrupt
from pydantic import BaseModel, field_validator

from chatter_db import Chatter, Recorder
from tests.conftest import ONE_SERVER
from tests.providers import openai
from tests.providers.openai import Provider, Reply
from tests.recorder.graphs import Graph, loop, model_of, single
from tests.recorder.leaving import (
    stream_left_open,
    stream_left_open_by_another_task,
    streams_side_by_side,
)
from tests.recorder.test_ways import Database, assert_forgotten, booked, executions, question

pytestmark = [
    ONE_SERVER,
    # Clients that are cut off leave their connections to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Scene:
    """One run against a provider that holds its answer back until it is let go."""

    def __init__(self, provider: Provider, run: Recorder) -> None:
        self.provider, self.run = provider, run
        self.hold = threading.Event()
        self.model = model_of(provider)
        self.config: RunnableConfig = {"callbacks": [run]}
        self.left: list[Any] = []

    def held(self, **reply: Any) -> None:
        self.provider.arrived.clear()
        self.provider.script = [Reply("Half", hold=self.hold, **reply)]

    async def asked(self) -> None:
        """The provider has been asked."""
        assert await asyncio.to_thread(self.provider.arrived.wait, 10)

    async def heard(self) -> None:
        """The first word of a stream has come, and the client waits for the next.

        Not before: Python 3.11's wait_for, which ChatOpenAI reads streams with,
        loses a cancellation that meets a chunk (fixed in 3.12).
        """
        await until(
            lambda: any(c.first_token for r in self.run._open._runs.values() for c in _calls(r))
        )

    async def cancel(self, asking: Any, *, streaming: bool = False) -> None:
        """Cancels `asking` while the provider holds its answer back."""
        task = asyncio.ensure_future(asking)
        await (self.heard() if streaming else self.asked())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def _calls(run: Any) -> list[Any]:
    return list(run.calls.values())


@pytest.fixture(scope="module")
def shared() -> Iterator[Provider]:
    with openai.running() as provider:
        yield provider


@pytest.fixture
def scene(shared: Provider, chatter: Chatter) -> Iterator[Scene]:
    shared.script = []
    scene = Scene(shared, chatter.recorder())
    yield scene
    scene.hold.set()


Ending = Callable[[Scene], Any]
CALLS = (
    "select kind, status, usage_status, prompt_tokens, completion_tokens, coalesce(content, '')"
    " from chatter.messages where model_call order by created_at, id"
)


async def finished(scene: Scene) -> None:
    await single(scene.model).ainvoke(question(), scene.config)


async def error_before_the_stream(scene: Scene) -> None:
    scene.provider.script = [Reply(status=500)]
    with pytest.raises(Exception, match="scripted failure"):
        async for _ in single(scene.model).astream(
            question(), scene.config, stream_mode="messages"
        ):
            pass


async def cut_stream(scene: Scene) -> None:
    scene.provider.script = [Reply("half an answer", cut=True)]
    with pytest.raises(Exception, match=r"peer closed|incomplete|[Cc]onnection"):
        async for _ in single(scene.model).astream(
            question(), scene.config, stream_mode="messages"
        ):
            pass


async def cut_stream_that_counted(scene: Scene) -> None:
    scene.provider.script = [Reply("half an answer", cut=True, usage_so_far=True)]
    with pytest.raises(Exception, match=r"peer closed|incomplete|[Cc]onnection"):
        async for _ in single(scene.model).astream(
            question(), scene.config, stream_mode="messages"
        ):
            pass


async def cancelled_graph(scene: Scene) -> None:
    scene.held()
    await scene.cancel(single(scene.model).ainvoke(question(), scene.config))


async def cancelled_model(scene: Scene) -> None:
    """LangChain calls no handler at all."""
    scene.held()
    await scene.cancel(scene.model.ainvoke("Rain?", scene.config))


async def cancelled_stream_of_a_model(scene: Scene) -> None:
    scene.held()

    async def consume() -> None:
        async for _ in scene.model.astream("Rain?", scene.config):
            pass

    await scene.cancel(consume(), streaming=True)


async def cancelled_tool(scene: Scene) -> None:
    """Nor for a tool."""
    scene.held()

    @tool
    async def ask(question: str) -> str:
        """Asks."""
        return str((await scene.model.ainvoke(question)).content)

    await scene.cancel(ask.ainvoke({"question": "Rain?"}, scene.config))


async def timeout_of_a_graph(scene: Scene) -> None:
    scene.held()
    with pytest.raises(TimeoutError):
        # Long enough for the call to have begun, on a busy machine too.
        await asyncio.wait_for(single(scene.model).ainvoke(question(), scene.config), 1)


async def step_timeout(scene: Scene) -> None:
    scene.held()
    graph: Any = single(scene.model)
    graph.step_timeout = 1
    with pytest.raises(TimeoutError):
        await graph.ainvoke(question(), scene.config)


async def client_gone(scene: Scene) -> None:
    """After the first words, as when a browser closes the connection of a stream."""
    scene.held(usage_so_far=True)
    stream = single(scene.model).astream(question(), scene.config, stream_mode="messages")
    await anext(stream)
    assert isinstance(stream, AsyncIterator)
    await stream.aclose()  # type: ignore[attr-defined]


async def client_gone_without_a_word(scene: Scene) -> None:
    scene.held()
    stream = single(scene.model).astream(question(), scene.config, stream_mode="messages")
    await anext(stream)
    del stream
    gc.collect()


async def client_of_a_sync_stream_gone(scene: Scene) -> None:
    scene.held()

    def consume() -> None:
        stream = single(scene.model).stream(question(), scene.config, stream_mode="messages")
        next(stream)
        scene.hold.set()
        stream.close()  # type: ignore[attr-defined]

    await asyncio.to_thread(consume)


def asked_of(graph: Any) -> Graph:
    compiled: Graph = graph.compile()
    return compiled


async def background_task_of_a_node(scene: Scene) -> None:
    """The node doesn't wait for it; the answer is paid for all the same."""
    scene.held()
    started: list[asyncio.Task[Any]] = []

    async def call(state: MessagesState) -> dict[str, Any]:
        started.append(asyncio.create_task(scene.model.ainvoke("a title for this")))
        return {"messages": [AIMessage("Later.")]}

    graph = StateGraph(MessagesState)
    graph.add_node("call", call)
    graph.add_edge(START, "call")
    await asked_of(graph).ainvoke(question(), scene.config)
    await scene.asked()
    scene.hold.set()
    await started[0]


async def thread_that_outlives_its_run(scene: Scene) -> None:
    """A sync node can't be cancelled: its call goes on, and is billed."""
    scene.held()
    done = threading.Event()

    def call(state: MessagesState) -> dict[str, Any]:
        try:
            return {"messages": [scene.model.invoke(state["messages"])]}
        finally:
            done.set()

    graph = StateGraph(MessagesState)
    graph.add_node("call", call)
    graph.add_edge(START, "call")
    await scene.cancel(asked_of(graph).ainvoke(question(), scene.config))
    scene.hold.set()
    assert await asyncio.to_thread(done.wait, 10)


async def recursion_limit(scene: Scene) -> None:
    scene.provider.script = [Reply(tools=(("weather", {"city": "Rome"}),))] * 2
    with pytest.raises(GraphRecursionError):
        await loop(scene.model).ainvoke(question(), {**scene.config, "recursion_limit": 3})


async def keyboard_interrupt(scene: Scene) -> None:
    def call(state: MessagesState) -> dict[str, Any]:
        scene.model.invoke(state["messages"])
        raise KeyboardInterrupt

    graph = StateGraph(MessagesState)
    graph.add_node("call", call)
    graph.add_edge(START, "call")

    def run() -> None:
        with pytest.raises(KeyboardInterrupt):
            asked_of(graph).invoke(question(), scene.config)

    await asyncio.to_thread(run)


async def error_of_a_node(scene: Scene) -> None:
    async def call(state: MessagesState) -> dict[str, Any]:
        await scene.model.ainvoke(state["messages"])
        raise RuntimeError("after the answer")

    graph = StateGraph(MessagesState)
    graph.add_node("call", RunnableLambda(call))
    graph.add_edge(START, "call")
    with pytest.raises(RuntimeError):
        await asked_of(graph).ainvoke(question(), scene.config)


class Weather(BaseModel):
    """What is asked for; the openai package checks an answer by it before LangChain sees it."""

    city: str

    @field_validator("city")
    @classmethod
    def known(cls, city: str) -> str:
        if city == "Nowhere":
            raise ValueError("there is no such city")
        return city


async def structured(scene: Scene, reply: Reply, error: str, **options: Any) -> None:
    scene.provider.script = [reply]
    model = model_of(scene.provider, **options).with_structured_output(Weather)
    with pytest.raises(Exception, match=error):
        await model.ainvoke("Rain?", scene.config)


CUT_OFF = '{"city": "Ro'
NOWHERE = '{"city": "Nowhere"}'


async def cut_off_at_the_token_limit(scene: Scene) -> None:
    await structured(scene, Reply(CUT_OFF, reason="length"), "length limit was reached")


async def filtered(scene: Scene) -> None:
    await structured(scene, Reply("", reason="content_filter"), "content filter")


async def refused_by_a_validator(scene: Scene) -> None:
    await structured(scene, Reply(NOWHERE), "no such city")


async def refused_by_a_validator_of_responses(scene: Scene) -> None:
    await structured(
        scene, Reply(NOWHERE, queries=("rain",)), "no such city", use_responses_api=True
    )


HALF = "half an answer "
REPORTED = ("step", "completed", "reported", 10, 5)
CANCELLED = ("step", "cancelled", "unknown", None, None)
FAILED = ("step", "failed", "unknown", None, None)
REFUSED = ("step", "failed", "reported", 10, 5)

# The run's status and error, and its model calls.
ENDINGS: list[tuple[Ending, str, str | None, list[tuple[Any, ...]]]] = [
    (
        finished,
        "completed",
        None,
        [("turn", "completed", "reported", 10, 5, "All right.")],
    ),
    (error_before_the_stream, "failed", "OpenAIAPIError", [(*FAILED, "")]),
    (cut_stream, "failed", "OpenAIConnectionError", [(*FAILED, HALF)]),
    (
        cut_stream_that_counted,
        "failed",
        "OpenAIConnectionError",
        [("step", "failed", "reported", 10, 5, HALF)],
    ),
    (cancelled_graph, "cancelled", None, [(*CANCELLED, "")]),
    (cancelled_model, "cancelled", None, [(*CANCELLED, "")]),
    (cancelled_stream_of_a_model, "cancelled", None, [(*CANCELLED, "Half ")]),
    (cancelled_tool, "cancelled", None, [(*CANCELLED, "")]),
    (timeout_of_a_graph, "cancelled", None, [(*CANCELLED, "")]),
    (step_timeout, "failed", "TimeoutError", [(*CANCELLED, "")]),
    (client_gone, "cancelled", None, [("step", "cancelled", "reported", 10, 5, "Half ")]),
    (client_gone_without_a_word, "cancelled", None, [(*CANCELLED, "Half ")]),
    (client_of_a_sync_stream_gone, "cancelled", None, [("step", ..., ..., ..., ..., ...)]),
    (background_task_of_a_node, "completed", None, [(*REPORTED, "Half")]),
    (thread_that_outlives_its_run, "cancelled", None, [(*REPORTED, "Half")]),
    (recursion_limit, "failed", "GraphRecursionError", [(*REPORTED, ""), (*REPORTED, "")]),
    (keyboard_interrupt, "cancelled", None, [(*REPORTED, "All right.")]),
    (error_of_a_node, "failed", "RuntimeError", [(*REPORTED, "All right.")]),
    (stream_left_open, "completed", None, [("step", "cancelled", "reported", 10, 5, "Half ")]),
    (
        stream_left_open_by_another_task,
        "completed",
        None,
        [("step", "cancelled", "reported", 10, 5, "Half ")],
    ),
    (streams_side_by_side, "completed", None, [(..., *REPORTED[1:], "All right. ")] * 2),
    (cut_off_at_the_token_limit, "failed", "LengthFinishReasonError", [(*REFUSED, CUT_OFF)]),
    (filtered, "failed", "ContentFilterFinishReasonError", [(*REFUSED, "")]),
    (refused_by_a_validator, "failed", "ValidationError", [(*REFUSED, NOWHERE)]),
    (refused_by_a_validator_of_responses, "failed", "ValidationError", [(*REFUSED, NOWHERE)]),
]


async def test_a_timeout_that_is_caught_ends_the_call(
    scene: Scene, db: Database, books_hold: Callable[[], None]
) -> None:
    """LangChain calls no handler, and the task that waited goes on to other calls."""
    task: Any = asyncio.current_task()
    waiting = len(task._callbacks)
    scene.held()

    async def lose_patience(timeout: asyncio.Timeout) -> None:
        await scene.asked()
        timeout.reschedule(asyncio.get_running_loop().time())

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as timeout:
            losing = asyncio.create_task(lose_patience(timeout))
            await scene.model.ainvoke("Rain?", scene.config)
    await losing
    assert len(scene.run._open._runs) == 1
    await scene.model.ainvoke("Rain?", scene.config)
    await until(lambda: not db.execute(RUNNING).fetchall())
    rows = db.execute("select status from chatter.workflow_executions order by started_at")
    assert rows.fetchall() == [("cancelled",), ("completed",)]
    # Nothing of it is left where one task makes calls for months.
    assert len(task._callbacks) == waiting
    assert_forgotten(scene.run)
    books_hold()


@pytest.mark.parametrize(
    ("ending", "status", "error", "calls"), ENDINGS, ids=[e[0].__name__ for e in ENDINGS]
)
async def test_what_was_used_by_then_is_kept(
    ending: Ending,
    status: str,
    error: str | None,
    calls: list[tuple[Any, ...]],
    scene: Scene,
    db: Database,
    books_hold: Callable[[], None],
) -> None:
    await ending(scene)
    await until(lambda: not scene.run._open._runs)
    await until(lambda: not db.execute(RUNNING).fetchall())
    runs = db.execute("select status, error_type from chatter.workflow_executions").fetchall()
    assert runs == [(status, error)]
    rows = db.execute(CALLS).fetchall()
    assert len(rows) == len(calls)
    for row, expected in zip(rows, calls, strict=True):
        same = [e is ... or e == got for got, e in zip(row, expected, strict=True)]
        assert all(same), (row, expected)
    assert_forgotten(scene.run)
    books_hold()


async def test_what_was_refused_costs_what_it_was_billed(scene: Scene, db: Database) -> None:
    await refused_by_a_validator(scene)
    await refused_by_a_validator_of_responses(scene)
    rows = db.execute(
        "select finish_reason, cost from chatter.messages where model_call order by created_at"
    )
    (reason, cost), (of_a_response, with_a_search) = rows.fetchall()
    assert (reason, cost) == ("stop", Decimal("0.0000045"))
    assert of_a_response == "completed"
    assert with_a_search > cost + Decimal("0.009")


RUNNING = "select from chatter.workflow_executions where status = 'running'"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        for turn in itertools.count():
            if condition():
                return
            if turn % 20 == 0:  # each takes longer than the rest of the turn
                gc.collect()
            await asyncio.sleep(0.01)


async def test_a_run_that_waits_for_a_person_and_goes_on(
    chatter: Chatter, db: Database, shared: Provider, books_hold: Callable[[], None]
) -> None:
    """Two executions of one conversation; the tool that asks hasn't failed."""

    @tool
    def refund(amount: int) -> str:
        """Pays money back."""
        return f"{amount} {interrupt('May I?')}"

    model = model_of(shared).bind_tools([refund])

    async def call(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph: Any = StateGraph(MessagesState)
    graph.add_node("model", call)
    graph.add_node("tools", ToolNode([refund]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    graph = graph.compile(checkpointer=InMemorySaver())
    run = chatter.recorder(workflow="refunds")
    config = {"callbacks": [run], "configurable": {"thread_id": "t-1"}}
    shared.bill.clear()
    shared.script = [Reply(tools=(("refund", {"amount": 5}),)), Reply("Done.")]
    await graph.ainvoke(question(), config)
    asked = db.execute("select status, error_type from chatter.tool_calls").fetchall()
    assert asked == [("requested", None)]
    await graph.ainvoke(Command(resume="yes"), config)

    ran = db.execute("select status, duration_ms > 0 from chatter.tool_calls").fetchall()
    assert ran == [("completed", True)]
    assert executions(db, "refunds") == {("completed", 1): 2}
    assert booked(db, "refunds") == Counter(shared.bill)
    turns = db.execute(
        "select role, content from chatter.messages where kind = 'turn' order by created_at"
    ).fetchall()
    assert turns == [("user", "Rain?"), ("assistant", "Done.")]
    conversations = db.execute("select external_id, message_count from chatter.conversations")
    assert conversations.fetchall() == [("t-1", 2)]
    assert_forgotten(run)
    books_hold()


@pytest.mark.parametrize("part", [{}, {"cache_control": {"type": "ephemeral", "ttl": "1h"}}])
async def test_an_answer_from_langchains_cache_costs_nothing(
    chatter: Chatter, db: Database, shared: Provider, part: dict[str, Any]
) -> None:
    """At whatever terms it was asked for."""
    asked = {"messages": [HumanMessage([{"type": "text", "text": "Rain?", **part}])]}
    model = model_of(shared, cache=InMemoryCache())
    shared.script = []
    shared.bill.clear()
    run = chatter.recorder(workflow="cached")
    for _ in range(2):
        await single(model).ainvoke(asked, {"callbacks": [run]})
    assert len(shared.bill) == 1
    rows = db.execute(
        "select prompt_tokens, completion_tokens, cost > 0, usage_status,"
        " metadata ? 'answered_from_cache' from chatter.messages where model_call"
        " order by created_at"
    ).fetchall()
    assert rows == [(10, 5, True, "reported", False), (0, 0, False, "reported", True)]


async def test_of_several_recorders_one_books(
    chatter: Chatter, db: Database, shared: Provider, books_hold: Callable[[], None]
) -> None:
    """The one of the run, wherever else another one is given."""
    shared.script = []
    shared.bill.clear()
    outer, inner = chatter.recorder(workflow="outer"), chatter.recorder(workflow="inner")
    both: list[Any] = [outer, outer]
    model = model_of(shared, callbacks=[inner, outer])
    await single(model).ainvoke(question(), {"callbacks": both})
    await single(model_of(shared)).ainvoke(question(), {"callbacks": [outer, inner]})
    assert booked(db, "outer") == Counter(shared.bill)
    assert executions(db, "outer") == {("completed", 1): 2}
    assert not executions(db, "inner")
    # On the model alone each call is a run.
    await single(model_of(shared, callbacks=[inner])).ainvoke(question())
    assert executions(db, "inner") == {("completed", 1): 1}
    assert_forgotten(outer, inner)
    books_hold()


async def test_a_run_that_is_cancelled_while_it_begins_has_ended(
    scene: Scene, url: str, chatter: Chatter
) -> None:
    asked = len(scene.provider.requests)
    with psycopg.connect(url) as holder, psycopg.connect(url, autocommit=True) as db:
        holder.execute("lock table chatter.workflow_executions in access exclusive mode")
        task = asyncio.create_task(single(scene.model).ainvoke(question(), scene.config))
        waits = "select from pg_locks where not granted"
        await until(lambda: db.execute(waits).fetchone() is not None)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        holder.rollback()
        ended = "select from chatter.workflow_executions where status = 'cancelled'"
        await until(lambda: db.execute(ended).fetchone() is not None)
    assert len(scene.provider.requests) == asked
    assert_forgotten(scene.run)


async def test_a_cancelled_task_ends_all_that_it_awaits_at_once(
    scene: Scene, db: Database, books_hold: Callable[[], None]
) -> None:
    scene.held()
    scene.provider.script *= 2
    questions = [question()["messages"]] * 2
    await scene.cancel(scene.model.agenerate(questions, callbacks=[scene.run]))
    await until(lambda: not scene.run._open._runs)
    await until(lambda: not db.execute(RUNNING).fetchall())
    rows = db.execute("select status from chatter.workflow_executions")
    assert rows.fetchall() == [("cancelled",)] * 2
    books_hold()
