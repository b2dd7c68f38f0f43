"""A process that is killed in the middle of a run: its rows stay, the worker ends its run."""

import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg

from tests.conftest import ONE_SERVER
from tests.providers.openai import Provider, Reply

APP = """
import asyncio, os
from langchain_openai import ChatOpenAI
from langgraph.graph import START, END, MessagesState, StateGraph
from chatter_db import Chatter

model = ChatOpenAI(
    model="gpt-4o-mini", base_url=os.environ["PROVIDER"], api_key="test", max_retries=0
)

async def first(state):
    return {"messages": [await model.ainvoke(state["messages"])]}

async def second(state):
    print("second", flush=True)
    return {"messages": [await model.ainvoke(state["messages"])]}

graph = StateGraph(MessagesState)
graph.add_node("first", first)
graph.add_node("second", second)
graph.add_edge(START, "first")
graph.add_edge("first", "second")
graph.add_edge("second", END)

async def main():
    async with Chatter.connect() as chatter:
        run = chatter.recorder(conversation="c", workflow="killed")
        await graph.compile().ainvoke({"messages": [("user", "?")]}, {"callbacks": [run]})

asyncio.run(main())
"""


def swept_in(db: psycopg.Connection[Any], later: timedelta) -> Any:
    """How many runs the worker ends so much later."""
    with db.transaction():
        db.execute(
            "select set_config('chatter.frozen_clock', (clock_timestamp() + %s)::text, true)",
            (later,),
        )
        row = db.execute("select chatter.sweep_executions()").fetchone()
    assert row is not None
    return row[0]


@ONE_SERVER
def test_a_killed_process_leaves_its_rows_and_its_run_is_abandoned(
    url: str,
    db: psycopg.Connection[Any],
    provider: Provider,
    books_hold: Callable[[], None],
    monkeypatch: Any,
) -> None:
    monkeypatch.setenv("CHATTER_DATABASE_URL", url)
    monkeypatch.setenv("PROVIDER", provider.base_url)
    reached, go_on = threading.Event(), threading.Event()

    def answer(request: dict[str, Any]) -> Reply:
        if len(request["messages"]) > 1:
            reached.set()
            go_on.wait(30)
        return Reply("Yes.", prompt_tokens=30, completion_tokens=4)

    provider.answer = answer
    with subprocess.Popen([sys.executable, "-c", APP]) as process:
        assert reached.wait(60)
        process.kill()
    go_on.set()

    def run() -> Any:
        return db.execute(
            "select status, model_calls, prompt_tokens, finished_at >= started_at "
            "from chatter.workflow_executions"
        ).fetchone()

    assert run() == ("running", 1, 30, None)
    assert swept_in(db, timedelta(seconds=30)) == 0  # not before it was silent for a minute
    assert swept_in(db, timedelta(minutes=2)) == 1
    assert run() == ("abandoned", 1, 30, True)
    assert db.execute(
        "select count(*) from chatter.events where event_type = 'workflow_failed'"
    ).fetchone() == (1,)
    books_hold()
