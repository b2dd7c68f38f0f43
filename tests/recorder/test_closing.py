"""A Chatter that closes while runs are under way, as when a server is stopped: all is booked."""

import asyncio
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from langchain_core.runnables import RunnableConfig, RunnableLambda

from chatter_db import Chatter
from tests.conftest import ONE_SERVER
from tests.providers.openai import Provider, Reply
from tests.recorder.graphs import model_of, single
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
        await RunnableLambda(leave).ainvoke("Rain?", {"callbacks": [chatter.recorder()]})
    assert calls(db) == [("cancelled", "unknown", None, None)]
    assert runs(db) == [("completed", 1)]
    hold.set()
    await left[0]
    assert len(calls(db)) == 1


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
