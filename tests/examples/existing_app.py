"""A support bot as it was, and in the lines marked `new`, what books its calls."""

import asyncio

from langchain.chat_models import init_chat_model
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph

from chatter_db import Chatter  # new

model = init_chat_model("openai:gpt-4o-mini")


class Ticket(MessagesState):
    topic: str


async def triage(state: Ticket) -> dict[str, object]:
    topic = await model.ainvoke([("system", "Name the topic."), *state["messages"]])
    return {"topic": topic.text}


async def answer(state: Ticket) -> dict[str, object]:
    system = ("system", f"Answer a question about {state['topic']}.")
    return {"messages": [await model.ainvoke([system, *state["messages"]])]}


graph = StateGraph(Ticket).add_sequence([triage, answer]).add_edge(START, "triage").compile()


async def main() -> None:
    async with Chatter.connect() as chatter:  # new
        for user, question in [("ada", "Where is my parcel?"), ("bob", "May I return it?")]:
            config = RunnableConfig(tags=["support"])
            config["callbacks"] = [chatter.recorder(user=user, workflow="support")]  # new
            ticket = Ticket(messages=[HumanMessage(question)], topic="")
            answered = await graph.ainvoke(ticket, config)
            print(f"{user}: {answered['messages'][-1].text}")


asyncio.run(main())
