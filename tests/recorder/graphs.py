"""Graphs of every shape that a host app may bring, with nothing of ours in them.

Each is asked one question and says how many requests its provider then answers,
and how many it refuses on the way.
"""

import itertools
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import StructuredTool, tool
from langchain_openai import ChatOpenAI
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode, create_react_agent, tools_condition
from langgraph.types import RetryPolicy, Send
from pydantic import SecretStr

from tests.providers.openai import Provider, Reply

Graph = Runnable[Any, Any]


@dataclass(frozen=True)
class Shape:
    """A graph, and what one question costs: requests answered and refused."""

    graph: Graph
    answered: int
    refused: int = 0


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"Rain in {city}."


class Replies:
    """Answers by what is asked, no two with the same counts."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._refused: set[str] = set()

    def __call__(self, request: dict[str, Any]) -> Reply:
        number = next(self._numbers)
        counts: dict[str, Any] = {
            "prompt_tokens": 100 + number,
            "completion_tokens": 10 + number % 7,
        }
        last = request["messages"][-1]
        if request["model"] == "gpt-broken":
            return Reply(status=500)
        if str(last["content"]).startswith("flaky") and last["content"] not in self._refused:
            self._refused.add(last["content"])
            return Reply(status=500)
        if request.get("tools") and last["role"] != "tool":
            name = request["tools"][0]["function"]["name"]
            arguments = {"city": "Rome"} if name == "weather" else {"question": "Rain?"}
            return Reply(tools=((name, arguments),), **counts)
        return Reply(f"Answer {number}.", **counts)


def model_of(provider: Provider, name: str = "gpt-4o-mini", **options: Any) -> ChatOpenAI:
    settings: dict[str, Any] = {"stream_usage": True, "max_retries": 0} | options
    return ChatOpenAI(model=name, base_url=provider.base_url, api_key=SecretStr("test"), **settings)


def shapes_of(provider: Provider) -> dict[str, Shape]:
    model, broken = model_of(provider), model_of(provider, "gpt-broken")
    return {
        "loop": Shape(loop(model), 2),
        "agent": Shape(create_agent(model, [weather]), 2),
        "react agent": Shape(create_react_agent(model, [weather]), 2),
        "branches": Shape(branches(model), 3),
        "subgraph": Shape(subgraph(model), 2),
        "model in a tool": Shape(create_agent(model, [asking(model)]), 3),
        "threads of a node": Shape(threads(model), 3),
        "retrying node": Shape(flaky_node(model), 1, refused=1),
        "with_retry": Shape(
            single(model.with_retry(stop_after_attempt=2, wait_exponential_jitter=False), "flaky"),
            1,
            refused=1,
        ),
        "with_fallbacks": Shape(single(broken.with_fallbacks([model])), 1, refused=1),
        "functional": Shape(functional(model), 2),
        "several at once": Shape(several_at_once(model), 3),
        # Instead of the run's, as LangChain takes them.
        "callbacks of its own": Shape(
            single(model.with_config(callbacks=[BaseCallbackHandler()])), 1
        ),
        "retriever": Shape(retrieving(model), 2),
        "model that passes on": Shape(single(PassingOn(model=model)), 1),
        "model that passes pieces on": Shape(single(PassingPiecesOn(model=model)), 1),
        "chain": Shape(RunnableLambda(lambda inputs: inputs["messages"]) | model, 1),
    }


def answering(
    model: Runnable[Any, Any], prefix: str | None = None
) -> Runnable[MessagesState, dict[str, Any]]:
    """A node that asks `model` and doesn't pass its config on."""
    numbers = itertools.count()

    def asked(state: MessagesState) -> Any:
        # Told apart by the number: each run is refused once.
        return f"{prefix} {next(numbers)}" if prefix else state["messages"]

    def call(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(asked(state))]}

    async def call_async(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(asked(state))]}

    return RunnableLambda(call, afunc=call_async)


def single(model: Runnable[Any, Any], prefix: str | None = None) -> Graph:
    graph = StateGraph(MessagesState)
    graph.add_node("model", answering(model, prefix))
    graph.add_edge(START, "model")
    return graph.compile()


def loop(model: BaseChatModel) -> Graph:
    graph = StateGraph(MessagesState)
    graph.add_node("model", answering(model.bind_tools([weather])))
    graph.add_node("tools", ToolNode([weather]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile()


def branches(model: BaseChatModel) -> Graph:
    class State(TypedDict):
        messages: Annotated[list[AnyMessage], add_messages]

    def fan_out(state: State) -> list[Send]:
        return [Send("ask", {"messages": [HumanMessage(c)]}) for c in ("Rome", "Oslo", "Lima")]

    graph = StateGraph(State)
    graph.add_node("ask", answering(model))
    graph.add_conditional_edges(START, fan_out, ["ask"])
    graph.add_edge("ask", END)
    return graph.compile()


def subgraph(model: BaseChatModel) -> Graph:
    graph = StateGraph(MessagesState)
    graph.add_node("inner", single(model))
    graph.add_node("outer", answering(model))
    graph.add_edge(START, "inner")
    graph.add_edge("inner", "outer")
    return graph.compile()


def asking(model: BaseChatModel) -> StructuredTool:
    def ask(question: str) -> str:
        return str(model.invoke(question).content)

    async def ask_async(question: str) -> str:
        return str((await model.ainvoke(question)).content)

    return StructuredTool.from_function(
        ask, coroutine=ask_async, name="ask", description="Asks somebody else."
    )


def threads(model: BaseChatModel) -> Graph:
    """A node that asks from threads of its own."""

    def call(state: MessagesState) -> dict[str, Any]:
        with ThreadPoolExecutor(3) as pool:
            asked = [
                pool.submit(copy_context().run, model.invoke, state["messages"]) for _ in range(3)
            ]
        return {"messages": [one.result() for one in asked]}

    graph = StateGraph(MessagesState)
    graph.add_node("call", call)
    graph.add_edge(START, "call")
    return graph.compile()


def several_at_once(model: BaseChatModel) -> Graph:
    """A node that asks by `generate`, which looks at no config."""

    def asked(state: MessagesState) -> list[list[BaseMessage]]:
        return [list(state["messages"])] * 3

    def first(result: LLMResult) -> dict[str, Any]:
        return {"messages": [AIMessage(result.generations[0][0].text)]}

    def call(state: MessagesState) -> dict[str, Any]:
        return first(model.generate(asked(state)))

    async def call_async(state: MessagesState) -> dict[str, Any]:
        return first(await model.agenerate(asked(state)))

    graph = StateGraph(MessagesState)
    graph.add_node("model", RunnableLambda(call, afunc=call_async))
    graph.add_edge(START, "model")
    return graph.compile()


def flaky_node(model: BaseChatModel) -> Graph:
    numbers = itertools.count()
    asked: dict[str, int] = {}

    def question(state: MessagesState) -> str:
        # The same for both attempts of a run, so that the second is answered.
        key = str(state["messages"][-1].id)
        return f"flaky node {asked.setdefault(key, next(numbers))}"

    def call(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(question(state))]}

    async def call_async(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(question(state))]}

    graph = StateGraph(MessagesState)
    policy = RetryPolicy(initial_interval=0.001, jitter=False, retry_on=Exception)
    graph.add_node("model", RunnableLambda(call, afunc=call_async), retry_policy=policy)
    graph.add_edge(START, "model")
    return graph.compile()


def functional(model: BaseChatModel) -> Graph:
    @task
    def ask(question: str) -> AIMessage:
        return model.invoke(question)

    @entrypoint()
    def flow(inputs: dict[str, Any]) -> dict[str, Any]:
        first, second = ask("one"), ask("two")
        return {"messages": [first.result(), second.result()]}

    return flow


class Asking(BaseRetriever):
    """Asks a model what to look for."""

    model: BaseChatModel

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        asked = self.model.invoke(query, config={"callbacks": run_manager.get_child()})
        return [Document(str(asked.content))]


def retrieving(model: BaseChatModel) -> Graph:
    retriever = Asking(model=model)

    def look_up(state: MessagesState) -> dict[str, Any]:
        found = retriever.invoke("rain")
        return {"messages": [model.invoke(found[0].page_content)]}

    async def look_up_async(state: MessagesState) -> dict[str, Any]:
        found = await retriever.ainvoke("rain")
        return {"messages": [await model.ainvoke(found[0].page_content)]}

    graph = StateGraph(MessagesState)
    graph.add_node("look up", RunnableLambda(look_up, afunc=look_up_async))
    graph.add_edge(START, "look up")
    return graph.compile()


class PassingOn(BaseChatModel):
    """A model that is another one in disguise, as routers are, and repeats its usage."""

    model: BaseChatModel

    @property
    def _llm_type(self) -> str:
        return "passing-on"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        answer = self.model.invoke(messages)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        answer = await self.model.ainvoke(messages)
        return ChatResult(generations=[ChatGeneration(message=answer)])


class PassingPiecesOn(PassingOn):
    """The same of streams."""

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for piece in self.model.stream(messages):
            yield ChatGenerationChunk(message=piece)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for piece in self.model.astream(messages):
            yield ChatGenerationChunk(message=piece)
