"""Tools that a node runs by itself, and what becomes of calls that none is run for."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Annotated, Any

import psycopg
import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, RetryPolicy, interrupt
from pydantic import BaseModel

from chatter_db import Chatter
from tests.conftest import ONE_SERVER
from tests.providers import openai
from tests.providers.openai import Provider, Reply
from tests.recorder.graphs import model_of, weather
from tests.recorder.test_ways import question

pytestmark = ONE_SERVER

Database = psycopg.Connection[Any]


@pytest.fixture
def provider() -> Iterator[Provider]:
    with openai.running() as provider:
        yield provider


@tool
def fail(city: str) -> str:
    """Fails."""
    raise ValueError(f"no {city}")


@tool
def ask(city: str) -> str:
    """Asks a person."""
    return str(interrupt(f"How is it in {city}?"))


def graph_of(
    provider: Provider, node: Any, **options: Any
) -> "CompiledStateGraph[Any, Any, Any, Any]":
    model = model_of(provider)

    def call(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", call)
    policy = RetryPolicy(initial_interval=0.001, jitter=False, retry_on=ValueError)
    graph.add_node("tools", node, retry_policy=policy)
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile(**options)


def asked_for(state: MessagesState) -> list[Any]:
    last = state["messages"][-1]
    assert isinstance(last, AIMessage)
    return last.tool_calls


def by_invoke(state: MessagesState) -> dict[str, Any]:
    """As LangGraph's quickstart has it: the tool isn't told what it is for."""
    return {
        "messages": [
            ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])
            for call in asked_for(state)
        ]
    }


def by_code(state: MessagesState) -> dict[str, Any]:
    return {"messages": [ToolMessage("Rain.", tool_call_id=c["id"]) for c in asked_for(state)]}


def by_command(state: MessagesState) -> "Command[Any]":
    return Command(update=by_code(state))


def by_dicts(state: MessagesState) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "tool", "content": "Rain.", "tool_call_id": call["id"]}
            for call in asked_for(state)
        ]
    }


def by_leave(state: MessagesState) -> dict[str, Any]:
    """The tool asks a person, and begins once more when that one has answered."""
    [call] = asked_for(state)
    return {"messages": [ToolMessage(ask.invoke(call["args"]), tool_call_id=call["id"])]}


def by_code_that_fails(state: MessagesState) -> dict[str, Any]:
    [call] = asked_for(state)
    return {"messages": [ToolMessage("No way.", tool_call_id=call["id"], status="error")]}


def tool_calls(db: Database) -> list[tuple[Any, ...]]:
    return db.execute(
        "select tool_name, status, started_at is not null, duration_ms > 0, error_message "
        "from chatter.tool_calls order by tool_name, id"
    ).fetchall()


def told(db: Database) -> list[tuple[Any, ...]]:
    return db.execute(
        "select m.content, m.status, m.tool_call_id = t.tool_call_id from chatter.messages m "
        "left join chatter.tool_calls t on t.tool_call_id = m.tool_call_id where m.role = 'tool' "
        "order by m.created_at, m.content"
    ).fetchall()


@pytest.mark.parametrize(
    ("node", "asked", "became", "answer"),
    [
        (by_invoke, "weather", ("completed", True, True, None), ("Rain in Rome.", "completed")),
        (by_code, "weather", ("completed", False, None, None), ("Rain.", "completed")),
        (by_command, "weather", ("completed", False, None, None), ("Rain.", "completed")),
        (by_dicts, "weather", ("completed", False, None, None), ("Rain.", "completed")),
        # Whether it had begun nobody knows.
        (
            by_code_that_fails,
            "weather",
            ("requested", False, None, "No way."),
            ("No way.", "failed"),
        ),
        (
            ToolNode([weather]),
            "nonsense",
            (
                "requested",
                False,
                None,
                "Error: nonsense is not a valid tool, try one of [weather].",
            ),
            ("Error: nonsense is not a valid tool, try one of [weather].", "failed"),
        ),
        (
            ToolNode([fail], handle_tool_errors="Try again."),
            "fail",
            ("failed", True, True, "no Rome"),
            ("Try again.", "failed"),
        ),
    ],
    ids=["invoke", "code", "command", "dicts", "code that fails", "no such tool", "error"],
)
async def test_what_a_node_tells_of_tools(
    chatter: Chatter, db: Database, provider: Provider, books_hold: Any,
    node: Any, asked: str, became: tuple[Any, ...], answer: tuple[Any, ...],
) -> None:  # fmt: skip
    graph = graph_of(provider, node)
    provider.script = [Reply(tools=((asked, {"city": "Rome"}),)), Reply("It rains.")]
    run = chatter.recorder(conversation="c")
    await graph.ainvoke(question(), RunnableConfig(callbacks=[run]))
    assert tool_calls(db) == [(asked, *became)]
    assert told(db) == [(*answer, True)]
    books_hold()


def test_each_of_several_is_the_one_with_its_arguments(
    chatter: Chatter, db: Database, provider: Provider
) -> None:
    @tool
    def snow(city: str) -> str:
        """Whether it snows."""
        if city == "Oslo":
            raise ValueError("too much")
        return "No."

    def last_first(state: MessagesState) -> dict[str, Any]:
        messages = []
        for call in reversed(asked_for(state)):
            try:
                messages.append(ToolMessage(snow.invoke(call["args"]), tool_call_id=call["id"]))
            except ValueError:
                failed = ToolMessage("Help.", tool_call_id=call["id"], status="error")
                messages.append(failed)
        return {"messages": messages}

    graph = graph_of(provider, last_first)
    cities = tuple(("snow", {"city": city}) for city in ("Rome", "Oslo", "Bern"))
    provider.script = [Reply(tools=cities), Reply("It snows.")]
    run = chatter.recorder(conversation="c")
    graph.invoke(question(), RunnableConfig(callbacks=[run]))
    became = db.execute(
        "select asked -> 'args' ->> 'city', t.status, t.error_message, answer.content "
        "from chatter.tool_calls t join chatter.messages m on m.id = t.message_id "
        "cross join jsonb_array_elements(m.tool_calls) asked "
        "join chatter.messages answer on answer.tool_call_id = t.tool_call_id "
        "where asked ->> 'id' = t.tool_call_id order by 1"
    ).fetchall()
    assert became == [
        ("Bern", "completed", None, "No."),
        ("Oslo", "failed", "too much", "Help."),
        ("Rome", "completed", None, "No."),
    ]


async def test_an_answer_of_an_earlier_step_is_none(
    chatter: Chatter, db: Database, provider: Provider
) -> None:
    """Where a server gives the calls of every step the same id."""
    agent = create_agent(
        model_of(provider), [weather], interrupt_before=["tools"], checkpointer=InMemorySaver()
    )
    provider.script = [
        Reply(tools=(("weather", {"city": city}),), one_id="call_0") for city in ("Rome", "Oslo")
    ]
    config = RunnableConfig(
        callbacks=[chatter.recorder()], configurable={"thread_id": "several steps"}
    )
    await agent.ainvoke({"messages": [HumanMessage("Rain?")]}, config)
    await agent.ainvoke(None, config)
    assert sorted(call[:2] for call in tool_calls(db)) == [
        ("weather", "completed"),
        ("weather", "requested"),
    ]
    assert [row[0] for row in told_alone(db)] == ["Rain in Rome."]


async def test_an_answer_in_a_list_that_is_a_talk(
    chatter: Chatter, db: Database, provider: Provider
) -> None:
    model = model_of(provider)
    before: list[AnyMessage] = [
        AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Oslo"}, "id": "call_0"}]),
        ToolMessage("Snow.", tool_call_id="call_0"),
        HumanMessage("And in Rome?"),
    ]
    provider.script = [Reply(tools=(("weather", {"city": "Rome"}),), one_id="call_0")]
    goes_on: Runnable[Any, Any] = RunnableLambda(lambda talk: [*talk, model.invoke(talk)])
    await goes_on.ainvoke(before, RunnableConfig(callbacks=[chatter.recorder()]))
    assert tool_calls(db) == [("weather", "requested", False, None, None)]
    assert told_alone(db) == []


async def test_arguments_that_can_not_be_compared(
    chatter: Chatter, db: Database, provider: Provider
) -> None:
    """Arrays have no one answer to whether they are the same."""

    class Array:
        def __eq__(self, other: object) -> Any:
            raise ValueError("the truth value of an array is ambiguous")

        __hash__ = None  # type: ignore[assignment]

    @tool
    def measure(city: Any) -> str:
        """Measures it."""
        return "3 m"

    def by_array(state: MessagesState) -> dict[str, Any]:
        measure.invoke({"city": Array()})
        [call] = asked_for(state)
        return {"messages": [ToolMessage(measure.invoke(call["args"]), tool_call_id=call["id"])]}

    provider.script = [Reply(tools=(("measure", {"city": "Rome"}),)), Reply("It rains.")]
    config = RunnableConfig(callbacks=[chatter.recorder()])
    await graph_of(provider, by_array).ainvoke(question(), config)
    assert tool_calls(db) == [("measure", "completed", True, True, None)]


def told_alone(db: Database) -> list[tuple[Any, ...]]:
    return db.execute("select content from chatter.messages where role = 'tool'").fetchall()


@pytest.mark.parametrize("installed", [False, True])
@pytest.mark.parametrize(
    ("node", "asked", "became", "answer"),
    [
        (ToolNode([weather]), "weather", ("completed", True, True, None), "Rain in Rome."),
        (by_invoke, "weather", ("completed", True, True, None), "Rain in Rome."),
        (by_code, "weather", ("completed", False, None, None), "Rain."),
        (by_dicts, "weather", ("completed", False, None, None), "Rain."),
        (by_code_that_fails, "weather", ("requested", False, None, "No way."), "No way."),
        (by_leave, "ask", ("completed", True, True, None), "Go on."),
    ],
    ids=["node", "invoke", "code", "dicts", "code that fails", "leave"],
)
async def test_what_becomes_of_tools_when_a_person_has_answered(
    chatter: Chatter, db: Database, provider: Provider, books_hold: Any,
    node: Any, asked: str, became: tuple[Any, ...], answer: str, installed: bool,
) -> None:  # fmt: skip
    """The run that asked for them was another one; this one may ask no model before."""
    waits = [] if node is by_leave else ["tools"]
    graph = graph_of(provider, node, checkpointer=InMemorySaver(), interrupt_before=waits)
    config: RunnableConfig = {"configurable": {"thread_id": "t"}}
    if installed:
        chatter.install()
    else:
        config["callbacks"] = [chatter.recorder()]
    provider.script = [Reply(tools=((asked, {"city": "Rome"}),)), Reply("It rains.")]
    await graph.ainvoke(question(), config)
    assert tool_calls(db)[0][1] == "requested"
    await graph.ainvoke(Command(resume="Go on.") if node is by_leave else None, config)
    assert tool_calls(db) == [(asked, *became)]
    assert [content for content, *_ in told(db)] == [answer]
    chatter.uninstall()
    books_hold()


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("status", ["success", "error"])
async def test_a_client_tells_what_became_of_a_tool(
    chatter: Chatter, db: Database, provider: Provider, books_hold: Any, status: Any, whole: bool
) -> None:
    """The tool is the browser's, or a person forbade it; some apps send the whole talk."""
    model = model_of(provider).bind_tools([weather])

    def call(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    saver = None if whole else InMemorySaver()
    graph: Any = StateGraph(MessagesState).add_node("model", call).add_edge(START, "model")
    graph = graph.compile(saver)
    config: RunnableConfig = {"configurable": {"thread_id": "t"}}
    config["callbacks"] = [chatter.recorder()]
    provider.script = [Reply(tools=(("weather", {"city": "Rome"}),)), Reply("It rains.")]
    talk = (await graph.ainvoke(question(), config))["messages"]
    answer = ToolMessage("Rain.", tool_call_id=talk[-1].tool_calls[0]["id"], status=status)
    await graph.ainvoke({"messages": [*(talk if whole else []), answer]}, config)
    became = ("completed", None) if status == "success" else ("requested", "Rain.")
    assert tool_calls(db) == [("weather", became[0], False, None, became[1])]
    books_hold()


async def test_a_loop_without_a_graph(
    chatter: Chatter, db: Database, provider: Provider, books_hold: Any
) -> None:
    """As LangChain's guides begin: each call is a run, and its reply no answer yet."""
    model = model_of(provider).bind_tools([weather])
    provider.script = [Reply(tools=(("weather", {"city": "Rome"}),)), Reply("It rains.")]
    config = RunnableConfig(callbacks=[chatter.recorder(conversation="c")])
    talk: list[Any] = [{"role": "user", "content": "Rain?"}]
    reply = await model.ainvoke(talk, config)
    [call] = reply.tool_calls
    answer = {"role": "tool", "content": weather.invoke(call["args"]), "tool_call_id": call["id"]}
    await model.ainvoke([*talk, reply, answer], config)
    assert tool_calls(db) == [("weather", "completed", False, None, None)]
    turns = "select content from chatter.messages where kind = 'turn' order by created_at"
    assert db.execute(turns).fetchall() == [("Rain?",), ("It rains.",)]
    books_hold()


@dataclass(slots=True)
class Objective:
    messages: Annotated[list[AnyMessage], add_messages]


class Validated(BaseModel):
    messages: Annotated[list[AnyMessage], add_messages]


@pytest.mark.parametrize("schema", [Objective, Validated])
async def test_a_state_may_be_an_object(
    chatter: Chatter, db: Database, provider: Provider, schema: Any
) -> None:
    model = model_of(provider)

    def call(state: Any) -> Any:
        return schema(messages=[model.invoke(state.messages)])

    def tools(state: Any) -> Any:
        [asked] = state.messages[-1].tool_calls
        told = ToolMessage(weather.invoke(asked["args"]), tool_call_id=asked["id"])
        return schema(messages=[told])

    graph: Any = StateGraph(schema).add_sequence([("model", call), ("tools", tools)])
    graph = graph.add_edge(START, "model").compile(InMemorySaver(), interrupt_before=["tools"])
    config: RunnableConfig = {"configurable": {"thread_id": "t"}}
    config["callbacks"] = [chatter.recorder()]
    provider.script = [Reply(tools=(("weather", {"city": "Rome"}),))]
    await graph.ainvoke(question(), config)
    await graph.ainvoke(None, config)
    assert tool_calls(db) == [("weather", "completed", True, True, None)]
    assert [content for content, *_ in told(db)] == ["Rain in Rome."]


async def test_each_answer_is_told_once_however_often_a_person_is_asked(
    chatter: Chatter, db: Database, provider: Provider
) -> None:
    """What a graph that goes on was told before is in what its nodes are given and return."""
    inner = graph_of(provider, by_code, interrupt_before=["tools"])
    outer: Any = StateGraph(MessagesState).add_node("inner", inner).add_edge(START, "inner")
    graph = outer.compile(checkpointer=InMemorySaver())
    config: RunnableConfig = {"configurable": {"thread_id": "t"}}
    config["callbacks"] = [chatter.recorder()]
    asks = [Reply(tools=(("weather", {"city": city}),)) for city in ("Rome", "Oslo")]
    provider.script = [*asks, Reply("It rains.")]
    await graph.ainvoke(question(), config)
    await graph.ainvoke(None, config)
    await graph.ainvoke(None, config)
    assert tool_calls(db) == [("weather", "completed", False, None, None)] * 2
    assert [content for content, *_ in told(db)] == ["Rain.", "Rain."]


async def test_a_tool_that_is_tried_again_has_the_outcome_of_the_last_time(
    chatter: Chatter, db: Database, provider: Provider
) -> None:
    tries = count()

    @tool
    def weather(city: str) -> str:
        """Fails once."""
        if next(tries) == 0:
            raise ValueError(city)
        return f"Rain in {city}."

    def by_invoke(state: MessagesState) -> dict[str, Any]:
        [call] = asked_for(state)
        return {"messages": [ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])]}

    graph = graph_of(provider, by_invoke)
    provider.script = [Reply(tools=(("weather", {"city": "Rome"}),)), Reply("It rains.")]
    await graph.ainvoke(question(), {"callbacks": [chatter.recorder(conversation="c")]})
    assert tool_calls(db) == [("weather", "completed", True, True, None)]
    assert [content for content, *_ in told(db)] == ["Rain in Rome."]


async def test_a_tool_that_nobody_asked_for_is_no_call(
    chatter: Chatter, db: Database, provider: Provider
) -> None:
    def otherwise(state: MessagesState) -> dict[str, Any]:
        weather.invoke({"city": "Paris"})
        return by_code(state)

    graph = graph_of(provider, otherwise)
    provider.script = [Reply(tools=(("weather", {"city": "Rome"}),)), Reply("It rains.")]
    run = chatter.recorder(conversation="c")
    await graph.ainvoke(question(), RunnableConfig(callbacks=[run]))
    assert tool_calls(db) == [("weather", "completed", False, None, None)]


async def test_an_answer_of_an_earlier_turn_is_none(
    chatter: Chatter, db: Database, provider: Provider
) -> None:
    """Some servers give the calls of every turn the same ids."""

    def silent(state: MessagesState) -> dict[str, Any]:
        raise AssertionError

    before: list[AnyMessage] = [
        HumanMessage("Rain?"),
        AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Oslo"}, "id": "call_0"}]),
        ToolMessage("Snow.", tool_call_id="call_0"),
        AIMessage("No."),
        HumanMessage("And in Rome?"),
    ]
    # It stops for leave to use the tool.
    graph = graph_of(provider, silent)
    graph.interrupt_before_nodes = ["tools"]
    provider.script = [Reply(tools=(("weather", {"city": "Rome"}),), one_id="call_0")]
    run = chatter.recorder(conversation="c")
    await graph.ainvoke(MessagesState(messages=before), RunnableConfig(callbacks=[run]))
    assert tool_calls(db) == [("weather", "requested", False, None, None)]
    assert told(db) == []


async def test_texts_stay_out_of_the_books_where_they_should(
    chatter: Chatter, db: Database, provider: Provider
) -> None:
    graph = graph_of(provider, by_code_that_fails)
    provider.script = [Reply(tools=(("weather", {"city": "Rome"}),)), Reply("It rains.")]
    run = chatter.recorder(conversation="c", content=False)
    await graph.ainvoke(question(), RunnableConfig(callbacks=[run]))
    assert tool_calls(db) == [("weather", "requested", False, None, None)]
    assert told(db) == [(None, "failed", True)]


@pytest.mark.parametrize("node", [ToolNode([fail]), ToolNode([fail], handle_tool_errors=True)])
async def test_an_error_has_a_text_too(
    chatter: Chatter, db: Database, provider: Provider, node: Any
) -> None:
    """Which repeats what was asked: here of a tool, a model that refuses and the run."""
    graph = graph_of(provider, node)
    provider.script = [Reply(tools=(("fail", {"city": "Rome"}),)), Reply(status=400)]
    run = chatter.recorder(conversation="c", content=False)
    with pytest.raises(Exception, match=r"Rome|scripted"):
        await graph.ainvoke(question(), RunnableConfig(callbacks=[run]))
    for table in ("tool_calls", "messages", "workflow_executions"):
        said = db.execute(
            f"select error_message from chatter.{table} where status = 'failed'"
        ).fetchall()
        assert {text for (text,) in said} <= {None}
    assert tool_calls(db) == [("fail", "failed", True, True, None)]


async def test_a_schema_that_is_filled_in_is_an_answer(
    chatter: Chatter, db: Database, provider: Provider, books_hold: Any
) -> None:
    class Forecast(BaseModel):
        city: str

    agent = create_agent(model_of(provider), [weather], response_format=ToolStrategy(Forecast))
    provider.script = [
        Reply(tools=(("weather", {"city": "Rome"}),)),
        Reply(tools=(("Forecast", {"city": "Rome"}),)),
    ]
    run = chatter.recorder(conversation="c")
    done = await agent.ainvoke({"messages": [HumanMessage("Rain?")]}, {"callbacks": [run]})
    assert done["structured_response"] == Forecast(city="Rome")
    assert [call[:2] for call in tool_calls(db)] == [
        ("Forecast", "completed"),
        ("weather", "completed"),
    ]
    books_hold()


async def test_a_schema_that_a_chain_has_filled_in_is_an_answer(
    chatter: Chatter, db: Database, provider: Provider, books_hold: Any
) -> None:
    """As routers and graders ask for it where a provider has no JSON schemas."""

    class Route(BaseModel):
        city: str

    router = model_of(provider).with_structured_output(Route, method="function_calling")
    provider.script = [Reply(tools=(("Route", {"city": "Rome"}),))] * 2
    config = RunnableConfig(callbacks=[chatter.recorder(conversation="c")])
    assert await router.ainvoke("Where?", config) == Route(city="Rome")
    assert [each async for each in router.astream("Where?", config)][-1] == Route(city="Rome")
    assert tool_calls(db) == [("Route", "completed", False, None, None)] * 2
    books_hold()
