"""Every way to run a graph against graphs of every shape: one row per request that was billed."""

import asyncio
import itertools
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from langchain_core.callbacks import CallbackManager
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph

from chatter_db import Chatter, Recorder
from tests.conftest import ONE_SERVER
from tests.polling import until
from tests.providers import openai
from tests.providers.openai import Provider, Reply
from tests.recorder.graphs import Graph, Replies, Shape, answering, model_of, shapes_of
from tests.recorder.test_usage_packages import SPEAKERS

pytestmark = [
    ONE_SERVER,
    pytest.mark.filterwarnings("ignore:create_react_agent has been moved"),
    # What a client leaves to the garbage collector is its own affair.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


Database = psycopg.Connection[tuple[Any, ...]]


def question() -> dict[str, Any]:
    return {"messages": [HumanMessage("Rain?")]}


async def invoke(graph: Graph, config: RunnableConfig) -> int:
    await asyncio.to_thread(graph.invoke, question(), config)
    return 1


async def invoke_on_the_loop(graph: Graph, config: RunnableConfig) -> int:
    graph.invoke(question(), config)
    return 1


async def ainvoke(graph: Graph, config: RunnableConfig) -> int:
    await graph.ainvoke(question(), config)
    return 1


MODES: list[Any] = ["values", "messages", ["messages", "updates", "custom", "debug", "tasks"]]


async def stream(graph: Graph, config: RunnableConfig) -> int:
    def consume() -> None:
        for mode in MODES:
            for _ in graph.stream(question(), config, **_mode(graph, mode)):
                pass

    await asyncio.to_thread(consume)
    return len(MODES)


async def astream(graph: Graph, config: RunnableConfig) -> int:
    for mode in MODES:
        async for _ in graph.astream(question(), config, **_mode(graph, mode)):
            pass
    return len(MODES)


def _mode(graph: Graph, mode: Any) -> dict[str, Any]:
    # Only graphs have modes, a chain of runnables hasn't.
    return {"stream_mode": mode, "subgraphs": True} if hasattr(graph, "nodes") else {}


async def astream_events(graph: Graph, config: RunnableConfig) -> int:
    async for _ in graph.astream_events(question(), config, version="v2"):
        pass
    return 1


async def batch(graph: Graph, config: RunnableConfig) -> int:
    await asyncio.to_thread(graph.batch, [question() for _ in range(3)], config)
    return 3


async def abatch(graph: Graph, config: RunnableConfig) -> int:
    await graph.abatch([question() for _ in range(3)], config)
    return 3


async def several_at_once(graph: Graph, config: RunnableConfig) -> int:
    await asyncio.gather(*(graph.ainvoke(question(), config) for _ in range(4)))
    return 4


WAYS = [
    invoke,
    invoke_on_the_loop,
    ainvoke,
    stream,
    astream,
    astream_events,
    batch,
    abatch,
    several_at_once,
]


@pytest.fixture(scope="module")
def asked() -> Iterator[Provider]:
    with openai.running() as provider:
        provider.answer = Replies()
        yield provider


@pytest.fixture(scope="module")
def shapes(asked: Provider) -> dict[str, Shape]:
    return shapes_of(asked)


@pytest.mark.parametrize("way", WAYS)
async def test_one_row_per_billed_request(
    way: Callable[[Graph, RunnableConfig], Any],
    chatter: Chatter,
    db: Database,
    asked: Provider,
    shapes: dict[str, Shape],
    books_hold: Callable[[], None],
    subtests: pytest.Subtests,
) -> None:
    for name, shape in shapes.items():
        with subtests.test(name):
            asked.bill.clear()
            asked.failed = 0
            run = chatter.recorder(conversation=name, workflow=name)
            runs = await way(shape.graph, {"callbacks": [run]})
            assert len(asked.bill) == shape.answered * runs
            assert asked.failed == shape.refused * runs
            assert booked(db, name) == Counter(asked.bill)
            assert executions(db, name) == {("completed", shape.answered + shape.refused): runs}
            assert_forgotten(run)
    books_hold()


@pytest.fixture(scope="module")
def everybody() -> Iterator[tuple[Graph, list[Provider]]]:
    """A graph that asks a model of each protocol, and the providers behind them."""
    with ExitStack() as stack:
        numbers = itertools.count(1)

        def answer(_: Any) -> Reply:
            number = next(numbers)
            return Reply("Yes.", prompt_tokens=50 + number, completion_tokens=number)

        providers, graph = [], StateGraph(MessagesState)
        for name, (running, model) in SPEAKERS.items():
            provider = stack.enter_context(running())
            provider.answer = answer
            providers.append(provider)
            graph.add_node(name, answering(model(provider.base_url)))
            graph.add_edge(START, name)
        yield graph.compile(), providers


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", [invoke, ainvoke, stream, astream, astream_events, abatch])
async def test_every_package_in_every_way(
    way: Callable[[Graph, RunnableConfig], Any],
    chatter: Chatter,
    db: Database,
    everybody: tuple[Graph, list[Provider]],
    books_hold: Callable[[], None],
) -> None:
    graph, providers = everybody
    for provider in providers:
        provider.bill.clear()
    run = chatter.recorder(workflow="everybody")
    runs = await way(graph, {"callbacks": [run]})
    bill = [entry[1:] for provider in providers for entry in provider.bill]
    assert len(bill) == len(providers) * runs
    assert Counter(row[1:] for row in booked(db, "everybody").elements()) == Counter(bill)
    assert executions(db, "everybody") == {("completed", len(providers)): runs}
    assert_forgotten(run)
    books_hold()


@pytest.mark.filterwarnings(
    "ignore:.*v3 streaming protocol:langchain_core._api.LangChainBetaWarning"
)
async def test_the_newest_events(
    chatter: Chatter, db: Database, asked: Provider, shapes: dict[str, Shape]
) -> None:
    asked.bill.clear()
    run = chatter.recorder(workflow="v3")
    config: RunnableConfig = {"callbacks": [run]}
    events = await shapes["agent"].graph.astream_events(question(), config, version="v3")
    async for _ in events:
        pass
    model = model_of(asked)
    with warnings.catch_warnings():
        # Once more: LangGraph's own imports have reset the filters by now.
        warnings.simplefilter("ignore")
        stream = await model.astream_events("Rain?", config, version="v3")
        async for _ in stream:
            pass
    assert len(asked.bill) == 3
    # The answer is read before LangChain tells the handlers of its end.
    await until(lambda: ("running", 0) not in executions(db, "v3"))
    assert executions(db, "v3") == {("completed", 2): 1, ("completed", 1): 1}
    assert booked(db, "v3") == Counter(asked.bill)
    assert_forgotten(run)


def booked(db: Database, workflow: str) -> Counter[tuple[Any, ...]]:
    """Model, prompt and completion of each call of a workflow that was answered."""
    rows = db.execute(
        "select m.model_used, m.prompt_tokens, m.completion_tokens from chatter.messages m"
        " join chatter.workflow_executions e on e.id = m.execution_id"
        " where e.workflow_name = %s and m.model_call and m.usage_status = 'reported'",
        (workflow,),
    )
    return Counter(rows)


def executions(db: Database, workflow: str) -> Counter[tuple[Any, ...]]:
    """Status and number of model calls of each execution of a workflow."""
    rows = db.execute(
        "select status, model_calls from chatter.workflow_executions where workflow_name = %s",
        (workflow,),
    )
    return Counter(rows)


def assert_forgotten(*recorders: Recorder) -> None:
    """Nothing is kept in memory of runs that are over."""
    for recorder in recorders:
        assert not recorder._open._runs
        assert not recorder._open._watch._awaited
        assert not recorder._open._owners


def test_a_chain_may_be_named_by_what_it_is(chatter: Chatter, db: Database) -> None:
    """As the iterator of an AgentExecutor, which its streams are made of, says it."""
    manager = CallbackManager.configure([chatter.recorder()])
    root = manager.on_chain_start({"name": "AgentExecutor"}, {"input": "Rain?"}, name=None)
    root.on_chain_end({"output": "It rains."})
    named = db.execute("select workflow_name from chatter.workflow_executions").fetchall()
    assert named == [("AgentExecutor",)]
