"""A recorder for the whole process: no graph knows of it."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableConfig, RunnableLambda

import chatter_db
from chatter_db import Chatter, UsageError
from chatter_db.ledger import close_default_chatter
from chatter_db.settings import settings
from tests.providers import openai
from tests.providers.openai import Provider
from tests.recorder.graphs import PassingOn, Replies, branches, loop, model_of, single
from tests.recorder.test_ways import Database, assert_forgotten, booked, executions, question


@pytest.fixture(scope="module")
def asked() -> Iterator[Provider]:
    with openai.running() as provider:
        provider.answer = Replies()
        yield provider


async def test_every_run_of_the_process_is_booked(
    chatter: Chatter, db: Database, asked: Provider, books_hold: Callable[[], None]
) -> None:
    asked.bill.clear()
    run = chatter.install(workflow="all", user="ada")
    agent, fan = loop(model_of(asked)), branches(model_of(asked))
    await agent.ainvoke(question(), {"configurable": {"thread_id": "t-1"}})
    async for _ in fan.astream(question(), {"configurable": {"thread_id": "t-1"}}):
        pass
    await asyncio.to_thread(agent.invoke, question())

    def elsewhere() -> None:
        """A thread that began with nothing, and an event loop of its own."""
        agent.invoke(question())
        asyncio.run(single(model_of(asked)).ainvoke(question()))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    await model_of(asked).ainvoke("And a model alone?")

    assert len(asked.bill) == 2 + 3 + 2 + 2 + 1 + 1
    assert booked(db, "all") == Counter(asked.bill)
    assert executions(db, "all") == {("completed", 2): 3, ("completed", 3): 1, ("completed", 1): 2}
    assert db.execute(
        "select count(*) from chatter.workflow_executions e"
        " join chatter.conversations c on c.id = e.conversation_id where c.external_id = 't-1'"
    ).fetchall() == [(2,)]
    assert db.execute("select external_id from chatter.users").fetchall() == [("ada",)]
    assert_forgotten(run)
    books_hold()

    chatter.uninstall()
    await agent.ainvoke(question())
    assert booked(db, "all").total() == len(asked.bill) - 2


async def test_what_calls_no_model_is_not_booked(
    chatter: Chatter, db: Database, asked: Provider
) -> None:
    run = chatter.install()
    await ChatPromptTemplate.from_template("{a}").ainvoke({"a": "b"})
    ChatPromptTemplate.from_template("{a}").invoke({"a": "b"})
    assert db.execute("select from chatter.workflow_executions").fetchall() == []
    assert db.execute("select from chatter.conversations").fetchall() == []
    assert_forgotten(run)


async def test_a_recorder_that_is_given_wins(
    chatter: Chatter, db: Database, asked: Provider, books_hold: Callable[[], None]
) -> None:
    asked.bill.clear()
    everywhere = chatter.install(workflow="installed")
    given = chatter.recorder(workflow="given")
    config: RunnableConfig = {"callbacks": [given]}
    await loop(model_of(asked)).ainvoke(question(), config)
    await asyncio.to_thread(loop(model_of(asked)).invoke, question(), config)
    await single(model_of(asked, callbacks=[given])).ainvoke(question())
    # Of what the chain asks, the one for the whole process hears first.
    chain = single(model_of(asked)).with_config(callbacks=[given])

    async def ask(inputs: Any, config: RunnableConfig) -> Any:
        return await chain.ainvoke(inputs, config)

    await RunnableLambda(ask).ainvoke(question())
    assert booked(db, "given") == Counter(asked.bill)
    assert not booked(db, "installed")
    assert executions(db, "given") == {("completed", 2): 2, ("completed", 1): 2}
    # Begun for the model with a recorder of its own, before that one heard of the call.
    assert executions(db, "installed") == {("completed", 0): 1}
    assert_forgotten(everywhere, given)
    books_hold()


async def test_a_cancelled_run_is_booked_as_such(
    chatter: Chatter, db: Database, asked: Provider
) -> None:
    run = chatter.install(workflow="all")
    hold = threading.Event()
    asked.arrived.clear()
    asked.script = [openai.Reply("Never.", hold=hold)]
    task = asyncio.create_task(single(PassingOn(model=model_of(asked))).ainvoke(question()))
    assert await asyncio.to_thread(asked.arrived.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    hold.set()
    assert {status for status, _ in executions(db, "all")} == {"cancelled"}
    assert_forgotten(run)


@dataclass
class Whose:
    user_id: str


async def test_a_run_says_whose_it_is(chatter: Chatter, db: Database, asked: Provider) -> None:
    """As LangGraph's server does of who signed in, and apps of whose memory they look up."""
    graph = single(model_of(asked))
    runs: dict[str, RunnableConfig] = {
        "of metadata": {"metadata": {"user_id": "ada"}},
        "of a number": {"metadata": {"user_id": 7}},
        "of configurable": {"configurable": {"user_id": "bob"}},
        "signed in": {
            "metadata": {"user_id": "eve"},
            "configurable": {"langgraph_auth_user_id": "cleo", "user_id": "eve"},
        },
        "of nobody": {"metadata": {"user_id": ""}},
    }
    chatter.install()
    for name, config in runs.items():
        config["run_name"] = name
        await graph.ainvoke(question(), config)
    contexts: dict[str, Any] = {"of context": {"user_id": "gil"}, "of an object": Whose("hal")}
    for name, context in contexts.items():
        await graph.ainvoke(question(), {"run_name": name}, context=context)
    chatter.uninstall()
    for name, recorder in {
        "given": chatter.recorder(),
        "told": chatter.recorder(user="fay"),
    }.items():
        config = {"metadata": {"user_id": "dan"}, "callbacks": [recorder], "run_name": name}
        await graph.ainvoke(question(), config)
    assert dict(
        db.execute(
            "select e.workflow_name, u.external_id from chatter.workflow_executions e"
            " left join chatter.users u on u.id = e.user_id"
        ).fetchall()
    ) == {
        "of metadata": "ada",
        "of a number": "7",
        "of configurable": "bob",
        "of context": "gil",
        "of an object": "hal",
        "signed in": "cleo",
        "of nobody": None,
        "given": "dan",
        "told": "fay",
    }


async def test_there_is_one_at_a_time(chatter: Chatter, url: str) -> None:
    first = chatter.install(metadata={"app": "shop"})
    assert chatter.install(metadata={"app": "shop"}) is first
    with pytest.raises(UsageError, match="with other arguments, or of other books, is installed"):
        chatter.install()
    async with Chatter.connect(url) as other:
        with pytest.raises(UsageError, match="of other books"):
            other.install(metadata={"app": "shop"})
    chatter.uninstall()
    chatter.uninstall()
    async with Chatter.connect(url) as other:
        other.install()
    # Closing took it back.
    chatter.install(user="ada")
    chatter.uninstall()
    with pytest.raises(UsageError, match="user must be a string"):
        chatter.install(user=7)  # type: ignore[arg-type]


async def test_the_process_has_a_door_of_its_own(
    url: str, db: Database, asked: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHATTER_DATABASE_URL", url)
    settings.cache_clear()
    asked.bill.clear()
    chatter_db.uninstall()
    try:
        chatter_db.install(workflow="app")
        await loop(model_of(asked)).ainvoke(question())
        chatter_db.uninstall()
        await loop(model_of(asked)).ainvoke(question())
    finally:
        await close_default_chatter()
    assert len(asked.bill) == 4
    assert booked(db, "app") == Counter(asked.bill[:2])
