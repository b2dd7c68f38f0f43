"""A Chatter that closes while runs are under way, as when a server is stopped: all is booked."""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from langchain_core.messages import ToolCall
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from openai import InternalServerError

from chatter_db import Chatter
from chatter_db.recorder import writer
from chatter_db.recorder.open_runs import OpenRuns
from chatter_db.recorder.records import Record, RunStarted, ToolRun
from chatter_db.recorder.runs import Run
from chatter_db.recorder.writer import Booked, Writer
from tests.conftest import ONE_SERVER
from tests.polling import until
from tests.providers.openai import Provider, Reply
from tests.recorder.graphs import PassingPiecesOn, model_of, single
from tests.recorder.test_ways import assert_forgotten, question

pytestmark = [
    ONE_SERVER,
    # Clients that are cut off leave their connections to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

Database = psycopg.Connection[Any]


@pytest.fixture
def hold() -> Iterator[threading.Event]:
    """Set where the provider may end its answer."""
    hold = threading.Event()
    yield hold
    hold.set()


def calls(db: Database) -> list[tuple[Any, ...]]:
    return db.execute(
        "select status, usage_status, prompt_tokens, content from chatter.messages where model_call"
    ).fetchall()


def runs(db: Database) -> list[tuple[Any, ...]]:
    return db.execute("select status, model_calls from chatter.workflow_executions").fetchall()


async def asked(provider: Provider) -> None:
    assert await asyncio.to_thread(provider.arrived.wait, 10)


@pytest.mark.parametrize("installed", [False, True])
async def test_a_call_that_is_awaited(
    url: str,
    db: Database,
    provider: Provider,
    hold: threading.Event,
    installed: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    provider.script = [Reply("Late", hold=hold)]
    async with Chatter.connect(url) as chatter:
        run = chatter.install() if installed else chatter.recorder()
        config = RunnableConfig() if installed else RunnableConfig(callbacks=[run])
        asking = asyncio.create_task(single(model_of(provider)).ainvoke(question(), config))
        await asked(provider)
    assert calls(db) == [("cancelled", "unknown", None, None)]
    assert runs(db) == [("cancelled", 1)]
    # As the event loop does when it ends.
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    [told] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "1 model call(s) under way when the Chatter closed" in told.getMessage()
    assert_forgotten(run)


async def test_a_stream_has_what_it_had_stated(
    url: str, db: Database, provider: Provider, hold: threading.Event
) -> None:
    provider.script = [Reply("Half an", hold=hold, usage_so_far=True)]
    async with Chatter.connect(url) as chatter:
        config = RunnableConfig(callbacks=[chatter.recorder()])
        stream: Any = model_of(provider).astream("Rain?", config)
        await anext(stream)
    [(status, _, prompt_tokens, content)] = calls(db)
    assert (status, prompt_tokens) == ("cancelled", 10)
    assert content.startswith("Half")
    assert runs(db) == [("cancelled", 1)]
    await stream.aclose()


async def test_a_call_in_a_thread_whose_run_is_over(
    url: str, db: Database, provider: Provider, hold: threading.Event
) -> None:
    provider.script = [Reply("Late", hold=hold)]
    model = model_of(provider)
    left: list[asyncio.Task[Any]] = []

    async def leave(given: str) -> str:
        left.append(asyncio.create_task(asyncio.to_thread(model.invoke, given)))
        await asked(provider)
        return "Meanwhile"

    async with Chatter.connect(url) as chatter:
        run = chatter.recorder()
        await RunnableLambda(leave).ainvoke("Rain?", {"callbacks": [run]})
    assert calls(db) == [("cancelled", "unknown", None, None)]
    assert runs(db) == [("completed", 1)]
    assert run.last_run is not None and run.last_run.status == "completed"
    hold.set()
    await left[0]
    assert len(calls(db)) == 1


async def test_what_one_model_passes_on_of_another_is_billed_once(
    url: str, db: Database, provider: Provider, hold: threading.Event
) -> None:
    provider.script = [Reply("Half an", hold=hold, usage_so_far=True)]
    async with Chatter.connect(url) as chatter:
        config = RunnableConfig(callbacks=[chatter.recorder()])
        graph: Any = single(PassingPiecesOn(model=model_of(provider)))
        stream = graph.astream(question(), config, stream_mode="messages")
        await anext(stream)
    [(status, _, prompt_tokens, _)] = calls(db)
    assert (status, prompt_tokens) == ("cancelled", 10)
    assert runs(db) == [("cancelled", 1)]
    await stream.aclose()


async def test_a_call_whose_start_is_on_its_way(
    url: str, db: Database, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    provider.script = [Reply("Paid", prompt_tokens=30)]
    with psycopg.connect(url) as holding:
        holding.execute("lock table chatter.workflow_executions in share mode")
        async with Chatter.connect(url) as chatter:
            config = RunnableConfig(callbacks=[chatter.recorder()])
            asking = asyncio.create_task(model_of(provider).ainvoke("Rain?", config))
            await until(lambda: waits_for_a_lock(db))
            asyncio.get_running_loop().call_later(0.3, holding.rollback)
    assert (await asking).text == "Paid"
    assert calls(db) == [("cancelled", "unknown", None, None)]
    assert runs(db) == [("cancelled", 1)]
    [told] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "1 model call(s) under way when the Chatter closed" in told.getMessage()


async def test_a_tool_whose_start_is_on_its_way(url: str, db: Database, provider: Provider) -> None:
    """One that a model asked for, in a run of its own."""

    @tool
    async def send(to: str) -> str:
        """Sends it."""
        await asyncio.sleep(0.5)
        return "sent"

    provider.script = [Reply(tools=(("send", {"to": "ada"}),))]
    async with Chatter.connect(url) as chatter:
        config = RunnableConfig(callbacks=[chatter.recorder(conversation="c")])
        asks = await model_of(provider).ainvoke("Send it", config)
    with psycopg.connect(url) as holding:
        holding.execute("lock table chatter.workflow_executions in share mode")
        async with Chatter.connect(url) as chatter:
            config = RunnableConfig(callbacks=[chatter.recorder(conversation="c")])
            sending = asyncio.create_task(send.ainvoke(asks.tool_calls[0], config))
            await until(lambda: waits_for_a_lock(db))
            asyncio.get_running_loop().call_later(0.3, holding.rollback)
    assert (await sending).text == "sent"
    ends = db.execute("select tool_name, status from chatter.tool_calls").fetchall()
    assert ends == [("send", "cancelled")]
    assert sorted(runs(db)) == [("cancelled", 0), ("completed", 1)]


def waits_for_a_lock(db: Database) -> bool:
    waiting = "select from pg_stat_activity where wait_event_type = 'Lock'"
    return bool(db.execute(waiting).fetchall())


async def test_a_graph_that_goes_on_is_no_run_of_its_own(
    url: str, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor while what was under way is still being booked."""
    goes_on = asyncio.Event()

    async def first(state: MessagesState) -> dict[str, Any]:
        await goes_on.wait()
        return {}

    async def second(state: MessagesState) -> dict[str, Any]:
        return {}

    graph = StateGraph(MessagesState).add_sequence([first, second]).add_edge(START, "first")
    close, loop = Writer.close, asyncio.get_running_loop()

    def close_late(self: Writer) -> None:
        async def go_on() -> None:
            goes_on.set()
            await running

        asyncio.run_coroutine_threadsafe(go_on(), loop).result(10)
        close(self)

    monkeypatch.setattr(Writer, "close", close_late)
    async with Chatter.connect(url) as chatter:
        run = chatter.recorder()
        config = RunnableConfig(callbacks=[run])
        running = asyncio.create_task(graph.compile().ainvoke(MessagesState(messages=[]), config))
        await until(lambda: runs(db) == [("running", 0)])
    assert runs(db) == [("cancelled", 0)]
    assert_forgotten(run)


@pytest.mark.parametrize("ends", ["answer", "failure", "tool", "chain"])
def test_who_ends_something_is_waited_for(
    url: str, db: Database, provider: Provider, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """What is on its way from LangChain into the books when the Chatter closes."""
    submit, closing = Writer.submit, threading.Event()

    def submit_late(self: Writer, records: Sequence[Record]) -> "Future[Booked]":
        begins = isinstance(records[0], RunStarted) or (
            isinstance(records[0], ToolRun) and records[0].status == "running"
        )
        if not begins:
            closing.set()
            time.sleep(0.3)
        return submit(self, records)

    @tool
    def send(to: str) -> str:
        """Sends it."""
        return "sent"

    asked = ToolCall(name="send", args={"to": "ada"}, id="call_1", type="tool_call")
    provider.script = [Reply("Just in time", prompt_tokens=30)]
    runnables: dict[str, tuple[Runnable[Any, Any], Any]] = {
        "answer": (model_of(provider), "Rain?"),
        "failure": (model_of(provider), "Rain?"),
        "tool": (send, asked),
        "chain": (RunnableLambda(lambda _: "sent"), "Rain?"),
    }
    if ends == "failure":
        provider.script = [Reply(status=500)]
    runnable, inputs = runnables[ends]

    def run(config: RunnableConfig) -> None:
        with suppress(InternalServerError):
            runnable.invoke(inputs, config)

    monkeypatch.setattr(Writer, "submit", submit_late)
    with Chatter.connect(url) as chatter:
        config = RunnableConfig(callbacks=[chatter.recorder()])
        running = threading.Thread(target=run, args=(config,))
        running.start()
        assert closing.wait(10)
    running.join()
    answer = ("completed", "reported", 30, "Just in time")
    failure = ("failed", "unknown", None, None)
    made = {"answer": [answer], "failure": [failure]}.get(ends, [])
    assert calls(db) == made
    assert runs(db) == [("failed" if ends == "failure" else "completed", len(made))]


def test_who_is_not_through_in_time_is_told_of(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer, "MAX_WORK_SECONDS", 0.1)
    with Chatter.connect(url) as chatter:
        with chatter._opened_writer().at_work():
            chatter._opened_writer().shut()
        assert "1 callback(s) have not ended in 0.1 s" in caplog.text


async def test_one_that_can_not_be_cut_off_costs_no_other(
    url: str, db: Database, provider: Provider, hold: threading.Event,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    provider.script = [Reply("Never", hold=hold)] * 2
    cut_off, cuts = OpenRuns._cut_off, []

    def but_the_first(self: OpenRuns, run: Run) -> None:
        cuts.append(run)
        if len(cuts) == 1:
            raise ValueError("a bug")
        cut_off(self, run)

    monkeypatch.setattr(OpenRuns, "_cut_off", but_the_first)
    async with Chatter.connect(url) as chatter:
        config = RunnableConfig(callbacks=[chatter.recorder()])
        asking = [asyncio.create_task(model_of(provider).ainvoke("?", config)) for _ in range(2)]
        await until(lambda: len(provider.requests) == 2)
    hold.set()
    await asyncio.gather(*asking)
    assert sorted(runs(db)) == [("cancelled", 1), ("running", 0)]
    assert f"Execution {cuts[0].id} can't be booked as cancelled" in caplog.text


async def test_what_asked_no_model_is_not_booked(url: str, db: Database) -> None:
    """By an installed recorder, which learns by a call that a run is worth it."""
    began = asyncio.Event()

    @tool
    async def think(topic: str) -> str:
        """Think about it."""
        began.set()
        await asyncio.sleep(60)
        return topic

    async def use(_: str) -> None:
        await think.ainvoke(
            {"type": "tool_call", "id": "1", "name": "think", "args": {"topic": "x"}}
        )

    async with Chatter.connect(url) as chatter:
        run = chatter.install()
        running = asyncio.create_task(RunnableLambda(use).ainvoke("Rain?"))
        await began.wait()
    assert runs(db) == []
    assert db.execute("select from chatter.tool_calls").fetchall() == []
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert_forgotten(run)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_a_child_of_fork_leaves_it_to_its_parent(
    url: str, db: Database, provider: Provider, hold: threading.Event
) -> None:
    provider.script = [Reply("Late", prompt_tokens=30, hold=hold)]
    async with Chatter.connect(url) as chatter:
        config = RunnableConfig(callbacks=[chatter.recorder()])
        asking = asyncio.create_task(single(model_of(provider)).ainvoke(question(), config))
        await asked(provider)
        child = os.fork()
        if not child:
            try:
                chatter.__exit__()
            finally:
                os._exit(0)
        await asyncio.to_thread(os.waitpid, child, 0)
        hold.set()
        await asking
    assert calls(db) == [("completed", "reported", 30, "Late")]
    assert runs(db) == [("completed", 1)]
