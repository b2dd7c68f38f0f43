"""Every way to run a graph against graphs of every shape: one row per request that was billed."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig

from chatter_db import Chatter, Recorder
from tests.providers import openai
from tests.providers.openai import Provider
from tests.recorder.graphs import Graph, Replies, Shape, shapes_of

pytestmark = [
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
        assert not recorder._runs
        assert not recorder._awaited
        assert not recorder._owners
