"""One row per model call, whatever the graph and however it is run."""

import asyncio
import copy
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Annotated, Any, TypedDict
from uuid import UUID, uuid4

import psycopg
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import InjectedToolCallId, tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command
from pydantic import BaseModel, SecretStr
from sqlalchemy import select

from chatter_db import Chatter, Conversation, Message, Recorder, ToolCall, UsageError, User
from chatter_db import WorkflowExecution as Execution
from tests.conftest import ONE_SERVER
from tests.providers.openai import Provider, Reply
from tests.recorder.test_ways import assert_forgotten

Graph = CompiledStateGraph[Any, Any, Any, Any]


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    if city == "Atlantis":
        raise ValueError("no such city")
    return f"Rain in {city}."


def model_of(provider: Provider, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model="gpt-4o-mini",
        base_url=provider.base_url,
        api_key=SecretStr("test"),
        max_retries=0,
        stream_usage=True,
        **options,
    )


def agent(model: BaseChatModel) -> Graph:
    """A host app's own graph: model and tools in a loop, nothing of ours in it."""
    bound = model.bind_tools([weather])

    async def call_async(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await bound.ainvoke(state["messages"])]}

    def call(state: MessagesState) -> dict[str, Any]:
        return {"messages": [bound.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", RunnableLambda(call, afunc=call_async))
    graph.add_node("tools", ToolNode([weather]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile(name="agent")


async def ainvoke(graph: Graph, run: Recorder) -> None:
    await graph.ainvoke({"messages": [HumanMessage("Rain?")]}, config={"callbacks": [run]})


async def invoke(graph: Graph, run: Recorder) -> None:
    await asyncio.to_thread(invoke_in_this_thread, graph, run)


async def invoke_on_the_loop(graph: Graph, run: Recorder) -> None:
    invoke_in_this_thread(graph, run)


def invoke_in_this_thread(graph: Graph, run: Recorder) -> None:
    graph.invoke({"messages": [HumanMessage("Rain?")]}, config={"callbacks": [run]})


async def stream(graph: Graph, run: Recorder) -> None:
    def consume() -> None:
        for _ in graph.stream(
            {"messages": [HumanMessage("Rain?")]},
            config={"callbacks": [run]},
            stream_mode="messages",
        ):
            pass

    await asyncio.to_thread(consume)


async def astream(graph: Graph, run: Recorder) -> None:
    async for _ in graph.astream(
        {"messages": [HumanMessage("Rain?")]},
        config={"callbacks": [run]},
        stream_mode=["messages", "updates"],
    ):
        pass


WAYS = [ainvoke, invoke, invoke_on_the_loop, stream, astream]


async def rows(chatter: Chatter, **filters: Any) -> Sequence[Message]:
    async with chatter.session() as session:
        query = select(Message).filter_by(**filters).order_by(Message.created_at, Message.id)
        return (await session.scalars(query)).all()


async def only(chatter: Chatter, entity: type[Any]) -> Any:
    async with chatter.session() as session:
        return (await session.scalars(select(entity))).one()


@pytest.mark.parametrize("way", WAYS)
async def test_a_tool_loop_books_every_call_once(
    way: Callable[[Graph, Recorder], Any],
    chatter: Chatter,
    provider: Provider,
    books_hold: Callable[[], None],
) -> None:
    """The audited backend kept only the last call of a streamed tool loop: 160 of 280."""
    provider.script = [
        Reply(tools=(("weather", {"city": "Rome"}),), prompt_tokens=100, completion_tokens=20),
        Reply("Take an umbrella.", prompt_tokens=130, completion_tokens=30),
    ]
    run = chatter.recorder(conversation="support-42", user="ada", workflow="support")
    await way(agent(model_of(provider)), run)

    asked, request, result, answer = await rows(chatter)
    assert [(m.role, m.kind) for m in (asked, request, result, answer)] == [
        ("user", "turn"),
        ("assistant", "step"),
        ("tool", "step"),
        ("assistant", "turn"),
    ]
    assert asked.content == "Rain?"
    assert (request.prompt_tokens, request.completion_tokens) == (100, 20)
    assert request.tool_calls is not None and request.tool_calls[0]["name"] == "weather"
    assert result.content == "Rain in Rome."
    assert answer.content is not None and answer.content.strip() == "Take an umbrella."
    assert (answer.prompt_tokens, answer.completion_tokens) == (130, 30)
    assert (answer.provider_used, answer.model_used) == ("openai", "gpt-4o-mini")
    assert answer.cost is not None and answer.cost > 0 and answer.cost_source == "computed"
    assert answer.usage_status == "reported" and answer.finish_reason == "stop"
    assert answer.response_time_ms is not None and answer.response_time_ms > 0
    assert len(provider.billed) == 2

    conversation: Conversation = await only(chatter, Conversation)
    assert conversation.external_id == "support-42"
    assert (conversation.message_count, conversation.total_tokens) == (2, 280)
    execution: Execution = await only(chatter, Execution)
    assert (execution.status, execution.workflow_name) == ("completed", "support")
    assert (execution.model_calls, execution.tool_calls) == (2, 1)
    assert execution.total_tokens == 280
    assert execution.finished_at is not None
    call: ToolCall = await only(chatter, ToolCall)
    assert (call.tool_name, call.status, call.message_id) == ("weather", "completed", request.id)
    assert call.duration_ms is not None
    assert (await only(chatter, User)).external_id == "ada"
    outcome = run.last_run
    assert outcome is not None and outcome.message_id == answer.id
    assert outcome.conversation_id == conversation.id
    books_hold()


async def test_two_calls_with_equal_counts_both_count(chatter: Chatter, provider: Provider) -> None:
    """The audited backend took them for one: 15 of 30."""
    provider.script = [Reply("one", prompt_tokens=10, completion_tokens=5)] * 2
    model = model_of(provider)

    async def twice(state: MessagesState) -> dict[str, Any]:
        await model.ainvoke("a router's question")
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("twice", twice)
    graph.add_edge(START, "twice")
    await ainvoke(graph.compile(), chatter.recorder())

    execution: Execution = await only(chatter, Execution)
    assert (execution.model_calls, execution.total_tokens) == (2, 30)
    kinds = Counter((m.role, m.kind) for m in await rows(chatter))
    assert kinds == {("user", "turn"): 1, ("assistant", "step"): 1, ("assistant", "turn"): 1}


async def test_parallel_branches_and_a_subgraph(chatter: Chatter, provider: Provider) -> None:
    class State(TypedDict):
        messages: Annotated[list[AnyMessage], add_messages]

    model = model_of(provider)
    provider.script = [Reply(f"r{i}", prompt_tokens=10 * i, completion_tokens=i) for i in (1, 2, 3)]

    async def ask(state: State) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    inner = StateGraph(State)
    inner.add_node("inner", ask)
    inner.add_edge(START, "inner")
    outer = StateGraph(State)
    outer.add_node("left", ask)
    outer.add_node("right", ask)
    outer.add_node("sub", inner.compile())
    for name in ("left", "right", "sub"):
        outer.add_edge(START, name)
        outer.add_edge(name, END)
    await ainvoke(outer.compile(), chatter.recorder())

    calls = [m for m in await rows(chatter) if m.model_call]
    assert sorted(m.total_tokens or 0 for m in calls) == [11, 22, 33]
    assert {m.extra["langgraph_node"] for m in calls} == {"left", "right", "inner"}
    assert (await only(chatter, Execution)).total_tokens == 66


@pytest.mark.parametrize("way", WAYS)
async def test_a_failing_model_is_a_failed_run_and_no_answer(
    way: Callable[[Graph, Recorder], Any], chatter: Chatter, provider: Provider
) -> None:
    """The audited backend stored the error's text as the assistant's answer."""
    provider.script = [Reply(status=500)]
    with pytest.raises(Exception, match="scripted failure"):
        await way(agent(model_of(provider)), chatter.recorder())

    asked, call = await rows(chatter)
    assert asked.role == "user"
    assert (call.role, call.kind, call.status, call.content) == (
        "assistant",
        "step",
        "failed",
        None,
    )
    assert call.error_type == "OpenAIAPIError"
    assert "scripted failure" in (call.error_message or "")
    assert (call.usage_status, call.prompt_tokens, call.cost) == ("unknown", None, None)
    execution: Execution = await only(chatter, Execution)
    assert (execution.status, execution.error_type) == ("failed", "OpenAIAPIError")
    assert execution.finished_at is not None
    conversation: Conversation = await only(chatter, Conversation)
    assert (conversation.message_count, conversation.unpriced_calls) == (1, 1)


async def test_a_stream_cut_in_the_middle_keeps_what_came(
    chatter: Chatter, provider: Provider
) -> None:
    provider.script = [Reply("half an answer", cut=True)]
    with pytest.raises(Exception, match=r"peer closed|incomplete|disconnected|[Cc]onnection"):
        await astream(agent(model_of(provider)), chatter.recorder())
    call = (await rows(chatter, role="assistant"))[0]
    assert (call.content or "").startswith("half an answer")
    assert (call.kind, call.status) == ("step", "failed")
    assert (call.usage_status, call.prompt_tokens, call.cost) == ("unknown", None, None)
    assert (await only(chatter, Execution)).status == "failed"


async def test_a_cancelled_run_is_cancelled_in_the_books(
    chatter: Chatter, provider: Provider
) -> None:
    """LangChain calls no handler for a model call whose task is cancelled."""
    hold = threading.Event()
    provider.script = [Reply("never", hold=hold)]
    task = asyncio.create_task(ainvoke(agent(model_of(provider)), chatter.recorder()))
    await asyncio.to_thread(provider.arrived.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    hold.set()

    call = (await rows(chatter, role="assistant"))[0]
    assert (call.kind, call.status, call.usage_status) == ("step", "cancelled", "unknown")
    execution: Execution = await only(chatter, Execution)
    assert (execution.status, execution.error_type) == ("cancelled", None)


async def test_of_several_calls_at_once_each_has_its_end(
    chatter: Chatter, provider: Provider
) -> None:
    """They begin and are cancelled in one await; what was answered before isn't."""
    hold = threading.Event()
    asked: list[list[BaseMessage]] = [[HumanMessage("Hi")], [HumanMessage("Ho")]]
    model = model_of(provider)
    await model.agenerate(asked, callbacks=[chatter.recorder(workflow="answered")])
    answered = await rows(chatter, role="assistant")
    assert [(call.status, call.prompt_tokens) for call in answered] == [("completed", 10)] * 2

    provider.arrived.clear()
    provider.script = [Reply("never", hold=hold), Reply("never", hold=hold)]
    task = asyncio.create_task(model.agenerate(asked, callbacks=[chatter.recorder()]))
    await asyncio.to_thread(provider.arrived.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    hold.set()
    async with asyncio.timeout(20):  # nobody waits for what was cancelled
        while len(calls := await rows(chatter, role="assistant")) < 4:
            await asyncio.sleep(0.01)
    assert Counter(call.status for call in calls) == {"completed": 2, "cancelled": 2}


async def test_a_recorder_of_its_own_inside_a_run(chatter: Chatter, provider: Provider) -> None:
    """Is the one that books the call, under its own conversation."""
    model, own = model_of(provider), chatter.recorder(conversation="own")

    async def ask(state: MessagesState) -> dict[str, Any]:
        asked: list[list[BaseMessage]] = [list(state["messages"])]
        await model.agenerate(asked, callbacks=[own])
        return {"messages": [await model.ainvoke(state["messages"], {"callbacks": [own]})]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    await ainvoke(graph.compile(), chatter.recorder(conversation="around"))
    calls = await rows(chatter, role="assistant")
    async with chatter.session() as session:
        (conversation,) = await session.scalars(
            select(Conversation).where(Conversation.external_id == "own")
        )
    assert [(call.conversation_id, call.prompt_tokens) for call in calls] == [
        (conversation.id, 10)
    ] * 2


async def test_a_failing_tool_is_on_its_row(chatter: Chatter, provider: Provider) -> None:
    provider.script = [Reply(tools=(("weather", {"city": "Atlantis"}),))]
    with pytest.raises(ValueError, match="no such city"):
        await ainvoke(agent(model_of(provider)), chatter.recorder())
    call: ToolCall = await only(chatter, ToolCall)
    assert (call.status, call.error_type) == ("failed", "ValueError")
    assert (await only(chatter, Execution)).status == "failed"


@ONE_SERVER
async def test_tool_calls_of_one_id_have_a_row_each(chatter: Chatter, provider: Provider) -> None:
    """Some servers have no ids of their own, and the same again in the next reply."""
    asked = tuple(("weather", {"city": city}) for city in ("Rome", "Oslo", "Lima"))
    provider.script = [Reply(tools=asked, one_id="call_0"), Reply(tools=asked[:1], one_id="call_0")]
    await ainvoke(agent(model_of(provider)), chatter.recorder())
    async with chatter.session() as session:
        calls = (await session.scalars(select(ToolCall))).all()
    assert [(call.tool_call_id, call.status) for call in calls] == [("call_0", "completed")] * 4
    assert (await only(chatter, Execution)).tool_calls == 4


@pytest.mark.parametrize("several", [False, True])
async def test_what_a_tool_answers_by_a_command(
    chatter: Chatter, provider: Provider, several: bool
) -> None:
    @tool
    def remember(city: str, tool_call_id: Annotated[str, InjectedToolCallId]) -> Any:
        """Remembers a city."""
        told = ToolMessage(f"{city} is remembered.", tool_call_id=tool_call_id)
        # The state may bring the answers of other calls along.
        command: Any = Command(update={"messages": [ToolMessage("Rain.", tool_call_id="x"), told]})
        return [Command(update={"cities": city}), command] if several else command

    provider.script = [Reply(tools=(("remember", {"city": "Rome"}),)), Reply("I will.")]
    run = chatter.recorder()
    await ainvoke(create_agent(model_of(provider), [remember]), run)
    [answer] = await rows(chatter, role="tool")
    assert answer.content == "Rome is remembered."
    call = await only(chatter, ToolCall)
    assert (call.status, call.tool_call_id) == ("completed", answer.tool_call_id)


async def test_an_answer_in_a_schema_is_a_turn_however_the_model_fills_it_in(
    chatter: Chatter, provider: Provider
) -> None:
    class Forecast(BaseModel):
        rain: bool

    filled_in, by_tool = '{"rain": true}', (("Forecast", {"rain": True}),)
    provider.script = [Reply(filled_in), Reply(tools=by_tool), Reply(tools=(("weather", {}),))]
    run = chatter.recorder(conversation="schemas")
    for how in ProviderStrategy, ToolStrategy:
        graph = create_agent(model_of(provider), [weather], response_format=how(Forecast))
        await ainvoke(graph, run)
    # Whoever is asked whether a tool may run has not been answered yet.
    asking = create_agent(
        model_of(provider),
        [weather],
        response_format=ToolStrategy(Forecast),
        middleware=[HumanInTheLoopMiddleware(interrupt_on={"weather": True})],
        checkpointer=InMemorySaver(),
    )
    config: RunnableConfig = {"callbacks": [run], "configurable": {"thread_id": "schemas"}}
    asking.update_state(config, {"structured_response": Forecast(rain=False)}, as_node="model")
    await asking.ainvoke({"messages": [HumanMessage("Rain?")]}, config)
    replies = await rows(chatter, role="assistant")
    assert [reply.kind for reply in replies] == ["turn", "turn", "step"]
    conversation = await only(chatter, Conversation)
    assert conversation.message_count == 5


@ONE_SERVER
async def test_a_stream_that_says_its_end_twice(chatter: Chatter, provider: Provider) -> None:
    """OpenRouter and others do."""
    provider.script = [Reply("Yes.", ends=2, service_tier="default")]
    graph = agent(model_of(provider))
    async for _ in graph.astream(
        {"messages": [HumanMessage("Rain?")]},
        config={"callbacks": [chatter.recorder()]},
        stream_mode="messages",
    ):
        pass
    [reply] = await rows(chatter, role="assistant")
    assert (reply.model_used, reply.finish_reason) == ("gpt-4o-mini", "stop")
    assert (reply.prompt_tokens, reply.completion_tokens) == (10, 5)
    assert reply.cost == Decimal("0.0000045")


@ONE_SERVER
@pytest.mark.parametrize("streaming", [False, True])
async def test_why_an_answer_ended(chatter: Chatter, provider: Provider, streaming: bool) -> None:
    """In the words of each protocol."""
    told = []
    for responses, reason in ((False, "length"), (True, None), (True, "max_output_tokens")):
        provider.script = [Reply("Half an", reason=reason)]
        model = model_of(provider, use_responses_api=responses, streaming=streaming)
        await model.ainvoke("Go on", config={"callbacks": [chatter.recorder()]})
        told.append((await rows(chatter, role="assistant"))[-1].finish_reason)
    assert told == ["length", "completed", "max_output_tokens"]


async def test_a_model_alone_is_a_run(chatter: Chatter, provider: Provider) -> None:
    run = chatter.recorder(user="ada")
    await model_of(provider).ainvoke("Hello?", config={"callbacks": [run]})
    asked, answer = await rows(chatter)
    assert (asked.content, answer.content, answer.kind) == ("Hello?", "All right.", "turn")
    assert (await only(chatter, Execution)).status == "completed"


async def test_a_run_id_that_is_used_again_is_another_run(
    chatter: Chatter, provider: Provider
) -> None:
    """An app gives its request's id, and tries again with it: both are paid for."""
    config: Any = {"run_id": uuid4()}
    for _ in range(2):
        with_recorder: Any = {**config, "callbacks": [chatter.recorder(conversation="c")]}
        await model_of(provider).ainvoke("Hello", config=with_recorder)
    with_recorder = {**config, "callbacks": [chatter.recorder(conversation="c")]}
    await agent(model_of(provider)).ainvoke({"messages": "Hello"}, config=with_recorder)
    assert len(await rows(chatter, role="assistant")) == len(provider.requests) == 3
    assert len(await rows(chatter, role="user")) == 3
    async with chatter.session() as session:
        runs = (await session.scalars(select(Execution))).all()
    assert [(run.status, run.model_calls) for run in runs] == [("completed", 1)] * 3
    assert {run.correlation_id for run in runs} == {str(config["run_id"])}
    assert config["run_id"] in {run.id for run in runs}


@pytest.mark.parametrize("given", ["b3d7c1f0-51f3-4d8b-9d52-6a2f6a0f3b11", "request-1"])
async def test_a_run_id_may_be_text(chatter: Chatter, provider: Provider, given: str) -> None:
    """LangServe's are. Of a model by itself LangChain takes none but a UUID's."""
    model = model_of(provider)
    chain = RunnableLambda(lambda text: text) | model
    for runnable in (chain, agent(model), *([model] if "request" not in given else [])):
        run = chatter.recorder()
        config: Any = {"run_id": given, "callbacks": [run]}
        asked: Any = "Hello" if runnable in (chain, model) else {"messages": "Hello"}
        async for _ in runnable.astream(asked, config):
            pass
        await asyncio.to_thread(runnable.invoke, asked, config)
        assert_forgotten(run)
    answers = await rows(chatter, role="assistant")
    assert len(answers) == len(provider.requests) >= 4
    async with chatter.session() as session:
        runs = (await session.scalars(select(Execution))).all()
    assert [(run.status, run.model_calls) for run in runs] == [("completed", 1)] * len(answers)


async def test_the_conversation_defaults_to_the_thread(
    chatter: Chatter, provider: Provider
) -> None:
    graph = agent(model_of(provider))
    for _ in range(2):
        await graph.ainvoke(
            {"messages": [("user", "Hello?")]},
            config={"callbacks": [chatter.recorder()], "configurable": {"thread_id": "t-1"}},
        )
    conversation: Conversation = await only(chatter, Conversation)
    assert (conversation.external_id, conversation.message_count) == ("t-1", 4)


async def test_one_recorder_serves_runs_at_once(
    chatter: Chatter, provider: Provider, books_hold: Callable[[], None]
) -> None:
    """20 concurrent messages left 1 row in the audited backend."""
    graph = agent(model_of(provider))
    run = chatter.recorder(conversation="busy")
    await asyncio.gather(*(ainvoke(graph, run) for _ in range(20)))
    conversation: Conversation = await only(chatter, Conversation)
    assert conversation.message_count == 40
    assert conversation.total_tokens == 20 * 15
    assert len(provider.billed) == 20
    books_hold()


async def test_only_what_is_new_in_the_input_is_asked(chatter: Chatter, provider: Provider) -> None:
    history = [("user", "Hi"), ("assistant", "Hello"), ("user", "And now?")]
    await agent(model_of(provider)).ainvoke(
        {"messages": history}, config={"callbacks": [chatter.recorder()]}
    )
    assert [m.content for m in await rows(chatter, role="user")] == ["And now?"]


async def test_without_content_there_are_figures_only(chatter: Chatter, provider: Provider) -> None:
    provider.script = [Reply(tools=(("weather", {"city": "Rome"}),)), Reply("Secret.")]
    await ainvoke(agent(model_of(provider)), chatter.recorder(content=False))
    for row in await rows(chatter):
        assert (row.content, row.tool_calls) == (None, None)
    assert (await only(chatter, Execution)).total_tokens == 30


async def test_text_that_postgres_refuses_is_booked_all_the_same(
    chatter: Chatter, provider: Provider
) -> None:
    provider.script = [Reply("a\0b \\u0000 \ud800 c")]
    await ainvoke(agent(model_of(provider)), chatter.recorder(metadata={"odd": "x\0y"}))
    answer = (await rows(chatter, role="assistant"))[0]
    assert answer.content == "a\ufffdb \\u0000 \ufffd c"
    assert (await only(chatter, Execution)).extra == {"odd": "x\ufffdy"}


async def test_a_call_in_an_unknown_conversation_is_booked_all_the_same(
    url: str, db: psycopg.Connection[Any], provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = UUID("01900000-0000-7000-8000-000000000000")
    async with Chatter.connect(url) as chatter:
        await ainvoke(agent(model_of(provider)), chatter.recorder(conversation=unknown))
        # The start of the run and the question, and the log says so.
        assert chatter.lost_records == 2
    errors = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert any("workflow_executions_conversation_id_fkey" in text for text in errors)
    booked = "select conversation_id, role, prompt_tokens from chatter.messages"
    assert db.execute(booked).fetchall() == [(unknown, "assistant", 10)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"conversation": ""}, "conversation must have 1 to 500 characters"),
        ({"conversation": 42}, "conversation must be a string, not int"),
        ({"user": "a\0b"}, "user must have 1 to 500 characters and no NUL"),
        ({"workflow": "w" * 501}, "workflow must have 1 to 500 characters"),
        ({"metadata": [1]}, "metadata must be a mapping, not list"),
        ({"metadata": {"a": object()}}, "metadata must be JSON"),
    ],
)
async def test_a_wrong_argument_is_refused_at_once(
    chatter: Chatter, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        chatter.recorder(**arguments)


async def test_a_closed_chatter_says_so(url: str) -> None:
    with pytest.raises(UsageError, match="not open"):
        Chatter.connect(url).recorder()


def test_the_sync_door(url: str, provider: Provider) -> None:
    with Chatter.connect(url) as chatter:
        run = chatter.recorder(conversation=str(uuid4()))
        agent(model_of(provider)).invoke({"messages": ["Hi"]}, config={"callbacks": [run]})
        assert run.last_run is not None and run.last_run.message_id is not None
        with chatter.sync_session() as session:
            answer = session.get_one(Message, run.last_run.message_id)
            assert answer.content == "All right."


async def test_a_copy_of_a_config_is_recorded_by_the_same(
    chatter: Chatter, provider: Provider
) -> None:
    run = chatter.recorder(conversation="c")
    config = copy.deepcopy(RunnableConfig(callbacks=[copy.copy(run)]))
    await model_of(provider).ainvoke("Rain?", config=config)
    assert [m.prompt_tokens for m in await rows(chatter, role="assistant")] == [10]
    assert run.last_run is not None
