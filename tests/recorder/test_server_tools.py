"""What a provider's own tools did for a call is billed beside its tokens."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from sqlalchemy import select, update

from chatter_db import Chatter, Message, database, repricing
from chatter_db.recorder.pricing import cost_of
from chatter_db.recorder.usage import Usage, of_message
from tests.providers import anthropic, gemini, openai
from tests.providers.serving import Recording, Reply

# What the packages warn of is theirs.
pytestmark = pytest.mark.filterwarnings("ignore")

KEY = SecretStr("test")
AT = datetime(2026, 1, 15, 12, tzinfo=UTC)
ANSWER = Reply("Rain.", prompt_tokens=1000, completion_tokens=100, queries=("rain", "Rome"))


def gpt_5(url: str, version: str) -> BaseChatModel:
    return ChatOpenAI(
        model="gpt-5", base_url=url, api_key=KEY, use_responses_api=True, output_version=version
    )


def gemini_2_5(url: str, _: str) -> BaseChatModel:
    return ChatGoogleGenerativeAI(model="gemini-2.5-flash", base_url=url, api_key=KEY)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("provider", "model_of", "version", "cost"),
    [
        # 1.25 and 10 dollars a million tokens; 10 dollars a thousand searches, of which two.
        (openai, gpt_5, "v0", "0.02225"),
        (openai, gpt_5, "responses/v1", "0.02225"),
        (openai, gpt_5, "v1", "0.02225"),
        # 0.30 and 2.50 dollars; 35 dollars a thousand answers that were searched for.
        (gemini, gemini_2_5, "", "0.03555"),
    ],
)
async def test_an_answer_costs_its_searches_too(
    chatter: Chatter, provider: Any, model_of: Any, version: str, cost: str, streamed: bool
) -> None:
    with provider.running() as running:
        running.script = [ANSWER]
        model = model_of(running.base_url, version)
        config: Any = {"callbacks": [chatter.recorder(conversation="1")]}
        if streamed:
            assert [chunk async for chunk in model.astream("Rain?", config)]
        else:
            await model.ainvoke("Rain?", config)
    async with chatter.session() as session:
        row = (await session.scalars(select(Message).where(Message.model_call))).one()
    assert (row.prompt_tokens, row.completion_tokens) == (1000, 100)
    assert row.cost == Decimal(cost)
    assert row.extra["usage_kinds"]["web_searches"] == (2 if provider is openai else 1)


def reprice_as_gpt_5(url: str, **columns: Any) -> None:
    """As if the list came to know the models that were asked."""
    engine = database.sync_engine(url)
    with engine.begin() as connection:
        calls = update(Message).where(Message.model_call)
        connection.execute(calls.values(model_used="gpt-5", **columns))
    with engine.connect() as connection:
        repricing.reprice(connection, repricing.Selection(), reason="known by now")
    engine.dispose()


async def test_a_price_that_comes_later_knows_them_too(chatter: Chatter, url: str) -> None:
    with openai.running() as running:
        running.script = [ANSWER, Reply("Rain.", prompt_tokens=1000, service_tier="flex")]
        for name in ("new", "newer"):
            model = ChatOpenAI(
                model=name, base_url=running.base_url, api_key=KEY, use_responses_api=name == "new"
            )
            await model.ainvoke("?", {"callbacks": [chatter.recorder(conversation="1")]})
    async with chatter.session() as session:
        rows = select(Message.cost).where(Message.model_call).order_by(Message.created_at)
        assert (await session.scalars(rows)).all() == [None, None]
    reprice_as_gpt_5(url)
    async with chatter.session() as session:
        searched, flex = (await session.scalars(rows)).all()
    assert searched == Decimal("0.02225")
    # Half of the usual price, from the day on which the list has it.
    assert flex == Decimal("0.00065")


async def test_nonsense_in_the_metadata_is_not_priced(chatter: Chatter, url: str) -> None:
    with openai.running() as running:
        running.script = [ANSWER]
        model = ChatOpenAI(model="new", base_url=running.base_url, api_key=KEY)
        await model.ainvoke("?", {"callbacks": [chatter.recorder(conversation="1")]})
    nonsense = {
        "usage_kinds": {"web_searches": -1, "storage_searches": "2", "audio": [1]},
        "usage_terms": ["flex"],
    }
    reprice_as_gpt_5(url, extra=nonsense)
    async with chatter.session() as session:
        row = (await session.scalars(select(Message).where(Message.model_call))).one()
    assert row.cost == Decimal("0.00225") + 2 * Decimal("0.0025")


@pytest.mark.parametrize(
    ("provider", "model", "kinds", "dollars"),
    [
        ("openai", "gpt-5", {"web_searches": 1}, "0.01225"),
        ("openai", "gpt-5", {"storage_searches": 2}, "0.00725"),
        # The list doesn't say what a search costs there: its tokens alone would be a false cost.
        ("xai", "grok-4", {"web_searches": 1}, None),
        # Another model made it, at a price of its own.
        ("openai", "gpt-5", {"generated_images": 1}, None),
        # It always searches, and never says so.
        ("openai", "gpt-4o-search-preview", {}, None),
        ("openai", "gpt-5-search-api-2025-10-14", {}, None),
    ],
)
def test_what_a_tool_costs(
    provider: str, model: str, kinds: Mapping[str, int], dollars: str | None
) -> None:
    usage = Usage(prompt_tokens=1000, completion_tokens=100, kinds=kinds)
    cost = cost_of(usage, provider=provider, model=model, at=AT)
    assert (cost and cost.amount) == (dollars and Decimal(dollars))


SEARCHES: list[dict[str, Any]] = [
    {"type": "server_tool_use", "id": "1", "name": "web_search", "input": {"query": "rain"}},
    {"type": "web_search_tool_result", "tool_use_id": "1", "content": []},
    {"type": "server_tool_use", "id": "2", "name": "web_search", "input": {"query": "snow"}},
    {
        "type": "web_search_tool_result",
        "tool_use_id": "2",
        "content": {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"},
    },
]


def searched(*, stream: bool) -> Recording:
    """An answer of Anthropic's that was searched for twice, once in vain."""
    blocks = [*SEARCHES, {"type": "text", "text": "Rain."}]
    message = {"id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5"}
    usage = {
        "input_tokens": 1000,
        "output_tokens": 100,
        "server_tool_use": {"web_search_requests": 1},
    }
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    if not stream:
        whole = {**message, **ended, "content": blocks, "usage": usage}
        return Recording(json.dumps(whole).encode(), "application/json")
    begun = {**message, "content": [], "usage": {"input_tokens": 30, "output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}]
    for index, block in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events.append({"type": "content_block_stop", "index": index})
    events.append({"type": "message_delta", "delta": ended, "usage": usage})
    events.append({"type": "message_stop"})
    body = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in events)
    return Recording(body.encode(), "text/event-stream")


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("version", ["v0", "v1"])
async def test_an_answer_of_anthropic_costs_its_searches_too(
    chatter: Chatter, version: str, streamed: bool
) -> None:
    """3 and 15 dollars a million tokens, 10 dollars a thousand searches, of which one."""
    with anthropic.running() as running:
        running.script = [Reply(recording=searched(stream=streamed))]
        model = ChatAnthropic(
            model="claude-sonnet-4-5",
            base_url=running.base_url.removesuffix("/v1"),
            api_key=KEY,
            timeout=10,
            stop=None,
            output_version=version,
            streaming=streamed,
        )
        await model.ainvoke("Rain?", {"callbacks": [chatter.recorder(conversation="1")]})
    async with chatter.session() as session:
        row = (await session.scalars(select(Message).where(Message.model_call))).one()
    assert (row.prompt_tokens, row.completion_tokens) == (1000, 100)
    assert row.extra["usage_kinds"] == {"web_searches": 1}
    assert row.cost == Decimal("0.0145")


@pytest.mark.parametrize(
    ("message", "kinds"),
    [
        (AIMessage("Rain."), {}),
        (AIMessage("", additional_kwargs={"tool_outputs": "web_search_call"}), {}),
        (AIMessage([{"type": "web_search_call", "id": "1", "status": "failed"}]), {}),
        # An item that a stream repeats is one.
        (AIMessage([{"type": "file_search_call", "id": "1"}] * 2), {"storage_searches": 1}),
        (AIMessage([{"type": "web_search_call"}] * 2), {"web_searches": 2}),
        (AIMessage([{"type": "image_generation_call", "id": "1"}]), {"generated_images": 1}),
        (
            # Anthropic's usage says how many, if any was billed.
            AIMessage(
                [{"type": "server_tool_call", "name": "web_search", "id": "1"}],
                response_metadata={"model_provider": "anthropic"},
            ),
            {},
        ),
        (AIMessage("", response_metadata={"grounding_metadata": {"web_search_queries": []}}), {}),
        (AIMessage("", response_metadata={"grounding_metadata": "none"}), {}),
        (
            AIMessage(
                "",
                response_metadata={
                    "model_name": "gemini-3-pro-preview",
                    "grounding_metadata": {"web_search_queries": ["a", "b", "a"]},
                },
            ),
            {"web_searches": 2},
        ),
    ],
)
def test_what_an_answer_tells_of(message: AIMessage, kinds: Mapping[str, int]) -> None:
    assert of_message(message).kinds == kinds
