"""What recording costs a graph: time added to a model call, and the event loop's delay.

    python tests/benchmarks/bench_recording.py [--rounds N] [--runs N] [--json]

The same compiled graph, ten calls of an offline model in a row, without and with a recorder, in
turns, in one process: medians of the difference. Beside it a bare row's durable commit after a rest
as long as a call, because a disk and a processor that rest answer later. Postgres is the embedded
server with its durable defaults, in a temporary directory. The handlers of Langfuse and MLflow run
the same graph where they are installed (`other_handlers.py`). --runs N runs that many graphs
besides and prints the resident memory on the way.
"""

import argparse
import asyncio
import json
import os
import resource
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from rich.console import Console
from rich.table import Table

from chatter_db import Chatter
from chatter_db.recorder import writer
from chatter_db.settings import settings
from tests.benchmarks import other_handlers
from tests.benchmarks.other_handlers import Handlers
from tests.benchmarks.own_server import own_server

CALLS = 10
"""Model calls of one run."""
GRAPHS = 8
"""Graphs at once."""
TICK_SECONDS = 0.001

Graph = CompiledStateGraph[Any, Any, Any, Any]


class Offline(BaseChatModel):
    """Answers after a while, with usage."""

    seconds: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "offline"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": "gpt-4o-mini"}

    def _answer(self) -> ChatResult:
        message = AIMessage(
            "All is well.",
            usage_metadata={"input_tokens": 100, "output_tokens": 20, "total_tokens": 120},
            response_metadata={"model_name": "gpt-4o-mini", "model_provider": "openai"},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **_: Any,
    ) -> ChatResult:
        time.sleep(self.seconds)
        return self._answer()

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        await asyncio.sleep(self.seconds)
        return self._answer()


@dataclass(frozen=True)
class Result:
    """A figure, what it is compared with, and what it must reach."""

    case: str
    figure: float
    unit: str
    limit: float | None = None
    target: str = ""


def graph_of(model: BaseChatModel, calls: int = CALLS) -> Graph:
    async def ask(state: MessagesState) -> dict[str, Any]:
        for _ in range(calls):
            answer = await model.ainvoke(state["messages"][:1])
        return {"messages": [answer]}

    return compiled(ask)


def sync_graph_of(model: BaseChatModel) -> Graph:
    def ask(state: MessagesState) -> dict[str, Any]:
        for _ in range(CALLS):
            answer = model.invoke(state["messages"][:1])
        return {"messages": [answer]}

    return compiled(ask)


def compiled(ask: Any) -> Graph:
    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    return graph.compile()


async def run(graph: Graph, handlers: Handlers | None) -> None:
    config: RunnableConfig = {}
    if handlers is not None:
        config["callbacks"] = handlers()
    await graph.ainvoke({"messages": [HumanMessage("How is it?")]}, config)


def recorder(chatter: Chatter, conversation: str = "bench") -> Handlers:
    return lambda: [chatter.recorder(conversation=conversation)]


async def added(
    handlers: Handlers, who: str, seconds: float, rounds: int, target: str = ""
) -> list[Result]:
    """Milliseconds added to a call, and to the delay of everybody else on the loop."""
    graph = graph_of(Offline(seconds=seconds))
    times: dict[bool, list[float]] = {False: [], True: []}
    lags: dict[bool, list[float]] = {False: [], True: []}
    for round_ in range(-2, rounds):
        for recorded in (False, True):
            begin = time.perf_counter()
            await run(graph, handlers if recorded else None)
            taken = time.perf_counter() - begin
            with ticking() as ticks:
                await run(graph, handlers if recorded else None)
            if round_ >= 0:
                times[recorded].append(taken / CALLS * 1000)
                lags[recorded] += ticks
    bare, ours = (statistics.median(times[recorded]) for recorded in (False, True))
    case = f"model of {seconds * 1000:.0f} ms, {who}"
    delays = [sorted(lags[recorded])[int(len(lags[recorded]) * 0.99)] for recorded in (False, True)]
    return [
        Result(f"{case}: added to a call", ours - bare, "ms", bare, target),
        Result(f"{case}: p99 of the loop's delay", delays[1], "ms", delays[0]),
    ]


def added_to_sync_code(handlers: Handlers, who: str, rounds: int) -> Result:
    """The same for code without an event loop."""
    graph = sync_graph_of(Offline())
    times: dict[bool, list[float]] = {False: [], True: []}
    for round_ in range(-2, rounds):
        for recorded in (False, True):
            config: RunnableConfig = {"callbacks": handlers()} if recorded else {}
            begin = time.perf_counter()
            graph.invoke({"messages": [HumanMessage("How is it?")]}, config)
            if round_ >= 0:
                times[recorded].append((time.perf_counter() - begin) / CALLS * 1000)
    bare, ours = (statistics.median(times[recorded]) for recorded in (False, True))
    return Result(f"model of 0 ms, sync, {who}: added to a call", ours - bare, "ms", bare)


def rested_commit(url: str, seconds: float, rounds: int) -> Result:
    """A row of one column and its commit, after a rest: less than that no durable record takes."""
    times = []
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table if not exists bare (content text)")
        for _ in range(rounds * CALLS):
            time.sleep(seconds)
            begin = time.perf_counter()
            connection.execute("insert into bare values ('All is well.')")
            times.append((time.perf_counter() - begin) * 1000)
    case = f"after {seconds * 1000:.0f} ms of rest, a bare row's durable commit"
    return Result(case, statistics.median(times), "ms")


@contextmanager
def ticking() -> Iterator[list[float]]:
    """How much later than it should, in milliseconds, a task of the same loop runs."""
    late: list[float] = []

    async def tick() -> None:
        while True:
            begin = time.perf_counter()
            await asyncio.sleep(TICK_SECONDS)
            late.append((time.perf_counter() - begin - TICK_SECONDS) * 1000)

    task = asyncio.create_task(tick())
    yield late
    task.cancel()


async def combined(chatter: Chatter, rounds: int) -> Result:
    """Rows a second of eight graphs at once, against the same with a commit for each row."""
    graph = graph_of(Offline())
    batch = writer.MAX_BATCH
    figures: dict[int, list[float]] = {batch: [], 1: []}
    for _ in range(rounds):
        for at_once, speeds in figures.items():
            writer.MAX_BATCH = at_once
            begin = time.perf_counter()
            each = [recorder(chatter, f"bench-{number}") for number in range(GRAPHS)]
            await asyncio.gather(*(run(graph, handlers) for handlers in each))
            speeds.append(GRAPHS * (CALLS + 1) / (time.perf_counter() - begin))
    writer.MAX_BATCH = batch
    ours, single = (statistics.median(figures[at_once]) for at_once in (batch, 1))
    return Result(f"{GRAPHS} graphs at once, of a commit a row", ours, "rows/s", single, "5 times")


async def memory(chatter: Chatter, runs: int) -> list[Result]:
    """Resident memory after parts of so many runs, a call each."""
    graph = graph_of(Offline(), calls=1)
    results = []
    for part in range(10):
        for _ in range(runs // 10 // GRAPHS):
            await asyncio.gather(*(run(graph, recorder(chatter)) for _ in range(GRAPHS)))
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident = pages * resource.getpagesize() / 1e6
        results.append(Result(f"resident after {(part + 1) * runs // 10:,} runs", resident, "MB"))
    return results


def turns(rounds: int) -> list[tuple[float, int]]:
    """The seconds a model takes, and how often it is asked."""
    return [(0.0, rounds), (0.02, rounds), (0.2, max(5, rounds // 4))]


async def others(directory: Path, rounds: int) -> list[Result]:
    """The same of the handlers that are installed beside."""
    results = []
    for name in other_handlers.installed():
        with other_handlers.OTHERS[name](directory) as handlers:
            for seconds, few in turns(rounds):
                results += await added(handlers, f"{name} {version(name)}", seconds, few)
    return results


async def measure(url: str, rounds: int, runs: int) -> list[Result]:
    results: list[Result] = []
    for durability in ("database", "spool"):
        os.environ["CHATTER_DURABILITY"] = durability
        settings.cache_clear()
        async with Chatter.connect(url) as chatter:
            target = {"database": "2", "spool": "0.5"}[durability]
            for seconds, few in turns(rounds):
                results += await added(
                    recorder(chatter),
                    f"waiting for the {durability}",
                    seconds,
                    few,
                    target if seconds == 0.02 else "",
                )
                if seconds == 0:
                    results.append(
                        await asyncio.to_thread(
                            added_to_sync_code,
                            recorder(chatter),
                            f"waiting for the {durability}",
                            few,
                        )
                    )
                if durability == "database":
                    results.append(rested_commit(url, seconds, few))
            if durability == "database":
                results.append(await combined(chatter, max(5, rounds // 4)))
                if runs:
                    results += await memory(chatter, runs)
    return results


def show(results: list[Result]) -> None:
    table = Table(title=f"Recording a graph of {CALLS} model calls")
    table.add_column("case")
    for name in ("figure", "", "without, or limit", "ratio", "target"):
        table.add_column(name, justify="right")
    for result in results:
        limit = result.limit
        table.add_row(
            result.case,
            f"{result.figure:,.2f}",
            result.unit,
            "" if limit is None else f"{limit:,.2f}",
            f"{result.figure / limit:.2f}" if limit and result.unit == "rows/s" else "",
            result.target,
        )
    Console(width=130).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--runs", type=int, default=0, help="runs for the memory; 100000 take long")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    with own_server() as (url, directory):
        results = asyncio.run(measure(url, options.rounds, options.runs))
        results += asyncio.run(others(directory, options.rounds))
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
    else:
        show(results)
        for name in sorted(other_handlers.OTHERS.keys() - set(other_handlers.installed())):
            print(f"{name} is not installed, and not measured: pip install --group bench")


if __name__ == "__main__":
    main()
