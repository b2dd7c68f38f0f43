"""The host app of outage.py: so many LangGraph runs at once, each recorded.

Says every answered call as a line of JSON: answered is what its node was given, and that it
is given when the recorder's handler has returned.
"""

import asyncio
import json
import os
import signal
import sys
from itertools import count
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic import SecretStr

from chatter_db import Chatter
from tests.chaos.app import READY, opened
from tests.recorder.graphs import Graph, weather


def graph_on(provider: str) -> Graph:
    """Model and tool in a loop; the model's node says what it was answered."""
    # 1,000 wait for one small provider: none of them for too long.
    model = ChatOpenAI(
        model="gpt-4o-mini",
        base_url=provider,
        api_key=SecretStr("test"),
        max_retries=0,
        timeout=600,
    ).bind_tools([weather])

    async def ask(state: MessagesState) -> dict[str, Any]:
        answer = await model.ainvoke(state["messages"])
        assert isinstance(answer, AIMessage)
        assert answer.usage_metadata is not None
        say({"call": answer.usage_metadata["input_tokens"]})
        return {"messages": [answer]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", ask)
    graph.add_node("tools", ToolNode([weather]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile()


def say(what: dict[str, Any]) -> None:
    """One write: a line is whole or, where the process is killed, not there."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def talk(chatter: Chatter, graph: Graph, name: str, stop: asyncio.Event) -> None:
    """Runs the graph again and again in one conversation."""
    for number in count():
        run = chatter.recorder(conversation=name, user=name, workflow="outage")
        asked: MessagesState = {"messages": [HumanMessage(f"{name} {os.getpid()} {number}")]}
        await graph.ainvoke(asked, {"callbacks": [run]})
        assert chatter.lost_records == 0, "the recorder lost records"
        assert run.last_run is not None
        say({"run": str(run.last_run.execution_id)})
        if stop.is_set():
            return


async def main(runs: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    graph = graph_on(os.environ["PROVIDER"])
    chatter = await opened(stop)
    if chatter is None:
        return
    try:
        print(READY, flush=True)
        async with asyncio.TaskGroup() as talking:
            for number in range(runs):
                talking.create_task(talk(chatter, graph, f"talk {number}", stop))
    finally:
        await chatter.__aexit__(None, None, None)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
