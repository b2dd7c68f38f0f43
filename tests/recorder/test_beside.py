"""Beside LangSmith's tracing, whose runs LangChain names as the parents of its own."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.tracers.context import tracing_v2_enabled
from langgraph.graph import START, MessagesState, StateGraph
from langsmith import Client, traceable

from chatter_db import Chatter
from tests.conftest import ONE_SERVER
from tests.providers import openai
from tests.providers.openai import Provider
from tests.recorder.graphs import Graph, Replies, Shape, model_of, shapes_of, weather
from tests.recorder.test_ways import Database, assert_forgotten, booked, executions, question

pytestmark = [
    ONE_SERVER,
    pytest.mark.filterwarnings("ignore:create_react_agent has been moved"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def asked() -> Iterator[Provider]:
    with openai.running() as provider:
        provider.answer = Replies()
        yield provider


@pytest.fixture(scope="module")
def shapes(asked: Provider) -> dict[str, Shape]:
    return shapes_of(asked)


@pytest.fixture
def traced() -> Iterator[list[str]]:
    """LangSmith's tracing of all that runs meanwhile; the paths it sends its traces to."""
    told: list[str] = []

    class Sink(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            told.append(self.path)
            self.send_response(202)
            self.end_headers()

        do_PATCH = do_POST  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Sink) as server:
        threading.Thread(target=server.serve_forever).start()
        client = Client(
            f"http://127.0.0.1:{server.server_port}", api_key="test", auto_batch_tracing=False
        )
        with tracing_v2_enabled(client=client):
            yield told
        server.shutdown()
    assert told


async def test_one_row_per_billed_request(
    chatter: Chatter,
    db: Database,
    asked: Provider,
    shapes: dict[str, Shape],
    traced: list[str],
    books_hold: Callable[[], None],
    subtests: pytest.Subtests,
) -> None:
    for name, shape in shapes.items():
        with subtests.test(name):
            asked.bill.clear()
            run = chatter.recorder(workflow=name)
            await shape.graph.ainvoke(question(), {"callbacks": [run]})
            assert len(asked.bill) == shape.answered
            assert booked(db, name) == Counter(asked.bill)
            assert executions(db, name) == {("completed", shape.answered + shape.refused): 1}
            assert_forgotten(run)
    books_hold()


async def test_a_recorder_of_its_own_inside_a_run(
    chatter: Chatter, db: Database, asked: Provider, traced: list[str]
) -> None:
    """The recorder of the run around is not told of the call."""
    asked.bill.clear()
    model = model_of(asked)
    around, own = chatter.recorder(workflow="around"), chatter.recorder(workflow="own")

    async def ask(state: MessagesState) -> dict[str, Any]:
        messages: list[BaseMessage] = [HumanMessage("Rain?")]
        await model.agenerate([messages], callbacks=[own])
        return {"messages": [await model.ainvoke(messages, {"callbacks": [own]})]}

    graph: Graph = StateGraph(MessagesState).add_node("ask", ask).add_edge(START, "ask").compile()
    await graph.ainvoke(question(), {"callbacks": [around]})
    assert booked(db, "own") == Counter(asked.bill)
    assert executions(db, "own") == {("completed", 1): 2}
    assert executions(db, "around") == {("completed", 0): 1}
    assert_forgotten(around, own)


async def test_what_langsmith_wraps_is_part_of_its_run(
    chatter: Chatter, db: Database, asked: Provider, traced: list[str]
) -> None:
    asked.bill.clear()
    model = model_of(asked)

    @traceable
    async def wrapped(messages: list[BaseMessage]) -> BaseMessage:
        return await model.ainvoke(messages)

    @traceable
    def wrapped_sync(messages: list[BaseMessage]) -> BaseMessage:
        return model.invoke(messages)

    async def ask(state: MessagesState) -> dict[str, Any]:
        messages: list[BaseMessage] = [HumanMessage("Rain?")]
        threaded = await asyncio.to_thread(wrapped_sync, messages)
        return {"messages": [await wrapped(messages), threaded]}

    graph: Graph = StateGraph(MessagesState).add_node("ask", ask).add_edge(START, "ask").compile()
    middleware = [ModelFallbackMiddleware(model)]
    agent: Graph = create_agent(model_of(asked, "gpt-broken"), [weather], middleware=middleware)
    run = chatter.recorder(workflow="w")
    await graph.ainvoke(question(), {"callbacks": [run]})
    await agent.ainvoke(question(), {"callbacks": [run]})
    assert booked(db, "w") == Counter(asked.bill)
    assert executions(db, "w") == {("completed", 2): 1, ("completed", 4): 1}
    assert_forgotten(run)
