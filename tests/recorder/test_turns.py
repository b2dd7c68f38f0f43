"""Turns of a talk: what a person said, and which reply the person was shown."""

import asyncio
import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware, before_model
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt
from openai import InternalServerError
from pydantic import BaseModel

from chatter_db import Chatter, Conversation
from tests.conftest import ONE_SERVER
from tests.providers.openai import Provider, Reply
from tests.recorder.graphs import model_of, weather
from tests.recorder.test_recorder import ainvoke, only, rows
from tests.recorder.test_ways import Database, question

pytestmark = ONE_SERVER


class Ticket(MessagesState):
    topic: str


@pytest.mark.parametrize("order", ["topic, answer", "answer, topic"])
@pytest.mark.parametrize("rebuilt", [False, True])
async def test_a_text_of_the_state_is_not_what_was_shown(
    chatter: Chatter, provider: Provider, order: str, rebuilt: bool
) -> None:
    """A topic named before the answer, a summary made after it."""
    model = model_of(provider)

    async def topic(state: Ticket) -> dict[str, Any]:
        return {"topic": (await model.ainvoke("Name the topic.")).text}

    async def answer(state: Ticket) -> dict[str, Any]:
        reply = await model.ainvoke(state["messages"])
        return {"messages": [AIMessage(reply.content, name="expert") if rebuilt else reply]}

    nodes: dict[str, Any] = {"topic": topic, "answer": answer}
    provider.answer = lambda request: Reply(
        "parcels" if request["messages"][0]["content"] == "Name the topic." else "On its way."
    )
    first, second = order.split(", ")
    graph: Any = StateGraph(Ticket)
    graph.add_sequence([(first, nodes[first]), (second, nodes[second])]).add_edge(START, first)
    await ainvoke(graph.compile(), chatter.recorder())
    [shown] = [row for row in await rows(chatter, role="assistant") if row.kind == "turn"]
    assert shown.content == "On its way."


class Form(TypedDict):
    answer: str
    messages: list[int]


async def test_what_was_shown_is_a_text_of_the_state_where_there_are_no_messages(
    chatter: Chatter, provider: Provider
) -> None:
    model = model_of(provider)

    async def answer(state: Form) -> dict[str, Any]:
        return {"answer": (await model.ainvoke("Where is it?")).text}

    async def check(state: Form) -> dict[str, Any]:
        await model.ainvoke("Is that polite?")
        return {}

    provider.script = [Reply("On its way."), Reply("Yes.")]
    graph: Any = StateGraph(Form).add_sequence([answer, check]).add_edge(START, "answer")
    await graph.compile().ainvoke(
        {"answer": "", "messages": [3]}, {"callbacks": [chatter.recorder()]}
    )
    [shown] = [row for row in await rows(chatter, role="assistant") if row.kind == "turn"]
    assert shown.content == "On its way."


class Question(TypedDict, total=False):
    question: str
    input: str
    context: str
    answer: str


@pytest.mark.parametrize("name", ["question", "input", None])
async def test_what_is_asked_without_messages(
    chatter: Chatter, db: Database, provider: Provider, name: str | None
) -> None:
    """As LangChain's guides have it for answers from documents."""
    model = model_of(provider)

    def retrieve(state: Question) -> dict[str, Any]:
        return {"context": "Parcels take a week."}

    def answer(state: Question) -> dict[str, Any]:
        return {"answer": model.invoke(f"Answer from: {state['context']}").text}

    graph: Any = StateGraph(Question).add_sequence([retrieve, answer]).add_edge(START, "retrieve")
    provider.script = [Reply("In a week.")]
    asked = {name: "When does it come?"} if name else {"context": "Nothing is asked."}
    await graph.compile().ainvoke(asked, {"callbacks": [chatter.recorder()]})
    turns = db.execute(
        "select role, content from chatter.messages where kind = 'turn' order by created_at"
    ).fetchall()
    question = [("user", "When does it come?")] if name else []
    assert turns == [*question, ("assistant", "In a week.")]


class PydanticState(BaseModel):
    messages: Annotated[list[AnyMessage], add_messages]


@dataclass
class DataclassState:
    messages: Annotated[list[AnyMessage], add_messages] = field(default_factory=list)


HELLO: list[AnyMessage] = [HumanMessage("Hello?")]


@pytest.mark.parametrize(
    ("schema", "inputs"),
    [
        (PydanticState, PydanticState(messages=HELLO)),
        (DataclassState, DataclassState(messages=HELLO)),
        (DataclassState, Command(update={"messages": HELLO})),
        (DataclassState, Command(update=DataclassState(messages=HELLO))),
    ],
)
async def test_what_is_asked_in_a_state_of_any_kind(
    chatter: Chatter, provider: Provider, schema: type[Any], inputs: Any
) -> None:
    async def answer(state: Any) -> dict[str, Any]:
        return {"messages": [await model_of(provider).ainvoke(state.messages)]}

    graph: Any = StateGraph(schema).add_node("answer", answer)
    graph = graph.add_edge(START, "answer").compile(checkpointer=InMemorySaver())
    config = {"callbacks": [chatter.recorder()], "configurable": {"thread_id": "t"}}
    goes_on = isinstance(inputs, Command)
    if goes_on:
        await graph.ainvoke(schema(messages=[HumanMessage("Before.")]), config)
        inputs = dataclasses.replace(inputs, goto="answer")
    await graph.ainvoke(inputs, config)
    asked = [row.content for row in await rows(chatter, role="user")]
    assert asked == (["Before.", "Hello?"] if goes_on else ["Hello?"])
    conversation = await only(chatter, Conversation)
    assert conversation.message_count == 2 * len(asked)


@pytest.mark.parametrize("installed", [False, True])
async def test_a_talk_by_interrupts_has_all_its_turns(
    chatter: Chatter, db: Database, provider: Provider, installed: bool
) -> None:
    """What answers one is a turn where a node makes the person's message of it."""
    model = model_of(provider)

    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    async def listen(state: MessagesState) -> dict[str, Any]:
        said = interrupt("And now?")
        return {"messages": [("user", said), *([("user", said)] if said == "Twice." else [])]}

    graph: Any = StateGraph(MessagesState).add_node(answer).add_node(listen)
    graph = (
        graph.add_edge(START, "answer").add_edge("answer", "listen").add_edge("listen", "answer")
    )
    graph = graph.compile(checkpointer=InMemorySaver())
    config: dict[str, Any] = {"configurable": {"thread_id": "talk"}}
    if installed:
        chatter.install()
    else:
        config["callbacks"] = [chatter.recorder()]
    await graph.ainvoke(question(), config)
    await graph.ainvoke(Command(resume="In Rome?"), config)
    [asking] = (await graph.aget_state(config)).interrupts
    await graph.ainvoke(Command(resume={asking.id: "Twice."}), config)
    chatter.uninstall()
    turns = db.execute(
        "select role, content from chatter.messages where kind = 'turn' order by created_at"
    ).fetchall()
    said = [content for role, content in turns if role == "user"]
    assert said == ["Rain?", "In Rome?", "Twice."]
    assert [role for role, _ in turns] == ["user", "assistant"] * 3
    assert db.execute("select message_count from chatter.conversations").fetchall() == [(6,)]


@pytest.mark.parametrize("installed", [False, True])
async def test_what_a_streamed_chain_is_asked(
    chatter: Chatter, provider: Provider, db: Database, installed: bool
) -> None:
    """LangChain tells it at the end: what a chain streams from may come in pieces."""
    chain = RunnableLambda(lambda inputs: inputs["messages"]) | model_of(provider)
    config: RunnableConfig = {} if installed else {"callbacks": [chatter.recorder()]}
    if installed:
        chatter.install()
    async for _ in chain.astream(question(), config):
        pass
    await asyncio.to_thread(lambda: list(chain.stream(question(), config)))
    provider.script.append(Reply(status=500))
    with pytest.raises(InternalServerError):
        await anext(chain.astream(question(), config))
    chatter.uninstall()
    turns = db.execute(
        "select role, content from chatter.messages where kind = 'turn' order by created_at"
    ).fetchall()
    asked, answered = ("user", "Rain?"), ("assistant", "All right. ")
    assert turns == [asked, answered, asked, answered, asked]


@pytest.mark.parametrize(
    "asked", [{"role": "user", "content": "Rain?"}, ("user", "Rain?"), HumanMessage("Rain?")]
)
async def test_a_message_alone_is_what_is_asked(
    chatter: Chatter, provider: Provider, asked: Any
) -> None:
    """As entrypoints of the functional API are given it."""
    model = model_of(provider)

    @entrypoint()
    async def answer(asked: Any) -> str:
        return str((await model.ainvoke([asked])).text)

    await answer.ainvoke(asked, {"callbacks": [chatter.recorder()]})
    assert [row.content for row in await rows(chatter, role="user")] == ["Rain?"]


async def test_instructions_may_stand_after_what_is_asked(
    chatter: Chatter, provider: Provider
) -> None:
    model = model_of(provider)

    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph: Any = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile()
    talk = [("user", "Before."), ("ai", "Yes?"), ("system", "Be brief."), ("user", "Rain?")]
    talk.append(("system", "The person is in Rome."))
    await graph.ainvoke({"messages": talk}, {"callbacks": [chatter.recorder()]})
    assert [row.content for row in await rows(chatter, role="user")] == ["Rain?"]


async def test_a_run_that_waits_for_a_tools_approval_has_shown_nothing(
    chatter: Chatter, provider: Provider, db: Database
) -> None:
    """Whatever else was asked on the way: who guards it, what sums it up."""

    @before_model
    async def guard(state: Any, runtime: Any) -> None:
        await model_of(provider).ainvoke("Is that safe?")

    approval = HumanInTheLoopMiddleware(interrupt_on={"weather": True})
    graph: Any = create_agent(
        model_of(provider),
        [weather],
        middleware=[guard, approval],
        checkpointer=InMemorySaver(),
    )
    asks = Reply(tools=(("weather", {"city": "Rome"}),))
    provider.script += [Reply("Safe."), asks, Reply("Still safe."), Reply("Rain.")]
    config: RunnableConfig = {"configurable": {"thread_id": "t"}, "callbacks": [chatter.recorder()]}
    await graph.ainvoke(question(), config)
    seen = "select content from chatter.messages where kind = 'turn' order by created_at"
    assert db.execute(seen).fetchall() == [("Rain?",)]
    await graph.ainvoke(Command(resume={"decisions": [{"type": "approve"}]}), config)
    assert db.execute(seen).fetchall() == [("Rain?",), ("Rain.",)]


async def test_a_run_that_ends_by_asking_for_a_tool_has_shown_nothing(
    chatter: Chatter, provider: Provider, db: Database
) -> None:
    """As agents do that have a tool for saying that they are done."""

    @tool
    def done() -> None:
        """Ends it."""

    model = model_of(provider)

    async def triage(state: MessagesState) -> dict[str, Any]:
        await model.ainvoke("Is it worth an answer?")
        return {}

    async def act(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.bind_tools([done]).ainvoke(state["messages"])]}

    provider.script = [Reply("Yes."), Reply(tools=(("done", {}),))]
    graph: Any = StateGraph(MessagesState).add_sequence([triage, act]).add_edge(START, "triage")
    await graph.compile().ainvoke(question(), {"callbacks": [chatter.recorder()]})
    turns = "select content from chatter.messages where kind = 'turn'"
    assert db.execute(turns).fetchall() == [("Rain?",)]
