"""A host app as a process of its own: a LangGraph graph, recorded by the callback handler.

Says every answer as a line of JSON, after its records are durable: who reads the line may
hold the books to it, whatever becomes of this process afterwards.
"""

import asyncio
import json
import os
import random
import signal
import sys
from uuid import UUID, uuid4

from langchain_core.messages import AIMessage, HumanMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import MessagesState
from pydantic import SecretStr
from sqlalchemy.exc import OperationalError

from chatter_db import Chatter
from chatter_db.errors import DatabaseUnavailable
from tests.recorder.graphs import Graph, loop

READY = "the app asks"
AT_ONCE = 2
PAUSE_SECONDS = 0.1


def graph_on(provider: str) -> Graph:
    """Model and tool in a loop."""
    return loop(
        ChatOpenAI(model="gpt-4o-mini", base_url=provider, api_key=SecretStr("test"), max_retries=0)
    )


async def opened(stop: asyncio.Event) -> Chatter | None:
    """The books, as soon as Postgres answers; None if told to stop before."""
    while not stop.is_set():
        try:
            return await Chatter.connect().__aenter__()
        except (DatabaseUnavailable, OperationalError):
            await asyncio.sleep(0.1)
    return None


async def talk(
    chatter: Chatter, graph: Graph, name: str, conversations: list[UUID], stop: asyncio.Event
) -> None:
    """Asks one question after the other."""
    dice = random.Random()
    while not stop.is_set():
        question = f"{name} {uuid4()}"
        places: list[UUID | str] = [*conversations, name]
        run = chatter.recorder(conversation=dice.choice(places), user=name, workflow="chaos")
        asked: MessagesState = {"messages": [HumanMessage(question)]}
        ended = await graph.ainvoke(asked, {"callbacks": [run]})
        assert chatter.lost_records == 0, "the recorder lost records"
        assert run.last_run is not None
        replies = [reply for reply in ended["messages"] if isinstance(reply, AIMessage)]
        usages = [reply.usage_metadata for reply in replies]
        acknowledged = {
            "execution": str(run.last_run.execution_id),
            "question": question,
            "answer": replies[-1].text,
            "calls": [[usage["input_tokens"], usage["output_tokens"]] for usage in usages if usage],
        }
        # One write: a line is whole or, where the process is killed, not there.
        sys.stdout.write(json.dumps(acknowledged) + "\n")
        sys.stdout.flush()
        await asyncio.sleep(dice.random() * PAUSE_SECONDS)


async def main(name: str, conversations: list[UUID]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    graph = graph_on(os.environ["PROVIDER"])
    chatter = await opened(stop)
    if chatter is None:
        return
    try:
        print(READY, flush=True)
        async with asyncio.TaskGroup() as talking:
            for _ in range(AT_ONCE):
                talking.create_task(talk(chatter, graph, name, conversations, stop))
    finally:
        await chatter.__aexit__(None, None, None)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], [UUID(text) for text in sys.argv[2:]]))
