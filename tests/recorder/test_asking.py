"""What a call was asked with is part of its price where the answer doesn't say it."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_google_genai import ChatGoogleGenerativeAI
from pydantic import SecretStr
from sqlalchemy import select

from chatter_db import Chatter, Message
from chatter_db.recorder.asking import terms_asked
from chatter_db.recorder.pricing import cost_of
from chatter_db.recorder.usage import Usage
from tests.providers import anthropic, gemini
from tests.providers.serving import Recording, Reply

# The package says of most models that they have an end.
pytestmark = pytest.mark.filterwarnings("ignore:The model 'claude-sonnet-4-5' is deprecated")

WRITTEN = {"input_tokens": 0, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 1000}
SPLIT = {"cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 1000}}


def written(*, stream: bool) -> Recording:
    """1,000 tokens for an hour, as Anthropic says it: of a stream in its first event alone."""
    message = {"id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5"}
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    usage = {**WRITTEN, **SPLIT}
    if not stream:
        content = [{"type": "text", "text": "Rain."}]
        whole = {**message, **ended, "content": content, "usage": {**usage, "output_tokens": 100}}
        return Recording(json.dumps(whole).encode(), "application/json")
    events: list[dict[str, Any]] = [
        {
            "type": "message_start",
            "message": {**message, "content": [], "usage": {**usage, "output_tokens": 1}},
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "Rain."},
        },
        {"type": "message_delta", "delta": ended, "usage": {**WRITTEN, "output_tokens": 100}},
        {"type": "message_stop"},
    ]
    body = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in events)
    return Recording(body.encode(), "text/event-stream")


@pytest.mark.parametrize(
    ("streamed", "lifetime", "cost"),
    [
        # 6 dollars a million tokens for an hour, 3.75 for five minutes, 15 for the answer.
        (False, {"ttl": "1h"}, "0.0075"),
        (True, {"ttl": "1h"}, None),
        (True, {}, "0.00525"),
    ],
)
async def test_cache_writes_for_an_hour(
    chatter: Chatter, streamed: bool, lifetime: dict[str, str], cost: str | None
) -> None:
    with anthropic.running() as running:
        running.script = [Reply(recording=written(stream=streamed))]
        model = ChatAnthropic(
            model="claude-sonnet-4-5",
            base_url=running.base_url.removesuffix("/v1"),
            api_key=SecretStr("test"),
            timeout=10,
            stop=None,
            streaming=streamed,
        )
        control = {"type": "ephemeral", **lifetime}
        rules = SystemMessage([{"type": "text", "text": "Be brief.", "cache_control": control}])
        config: Any = {"callbacks": [chatter.recorder(conversation="1")]}
        await model.ainvoke([rules, HumanMessage("Rain?")], config)
    async with chatter.session() as session:
        row = (await session.scalars(select(Message).where(Message.model_call))).one()
    assert (row.prompt_tokens, row.cache_write_tokens) == (1000, 1000)
    assert row.cost == (cost and Decimal(cost))
    assert row.extra.get("usage_terms") == (None if cost else {"cache_ttl": "1h"})


HOUR = {"type": "ephemeral", "ttl": "1h"}


@pytest.mark.parametrize(
    ("content", "parameters", "lifetime"),
    [
        ("Rain?", {}, None),
        ("Rain?", {"cache_control": HOUR}, "1h"),
        ("Rain?", {"tools": [{"name": "a", "cache_control": HOUR}]}, "1h"),
        ("Rain?", {"prompt_cache_options": {"ttl": "12h"}}, "12h"),
        ("Rain?", {"prompt_cache_options": {"ttl": "30m"}}, None),
        ("Rain?", {"cache_control": "1h"}, None),
        ([{"type": "text", "text": "a", "cache_control": HOUR}], {}, "1h"),
        ([{"cachePoint": {"type": "default", "ttl": "1h"}}], {}, "1h"),
        ([{"type": "tool_use", "input": {"ttl": "1h"}}], {}, None),
    ],
)
def test_a_lifetime_that_was_asked_for(
    content: Any, parameters: dict[str, Any], lifetime: str | None
) -> None:
    terms = terms_asked("anthropic", None, [HumanMessage(content)], parameters)
    assert terms.get("cache_ttl") == lifetime


def test_a_price_for_seconds_of_sound_needs_them() -> None:
    terms = terms_asked("mistralai", None, [HumanMessage([SOUND])], {})
    usage = Usage(prompt_tokens=1000, completion_tokens=100, terms=terms)
    at = datetime(2026, 1, 15, tzinfo=UTC)
    asked = [
        cost_of(usage, provider="mistralai", model=model, at=at)
        for model in ("voxtral-small-latest", "mistral-large-latest")
    ]
    assert [cost is None for cost in asked] == [True, False]


PICTURE = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
SOUND = {"type": "media", "mime_type": "audio/mp3", "data": "SUQz"}


def spoken(part: dict[str, Any], *, stream: bool) -> Recording:
    details = [{"modality": "TEXT", "tokenCount": 100}, {"modality": "AUDIO", "tokenCount": 900}]
    body = {
        "candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": 1000,
            "candidatesTokenCount": 100,
            "totalTokenCount": 1100,
            "promptTokensDetails": details,
        },
        "modelVersion": "gemini",
    }
    if stream:
        return Recording(f"data: {json.dumps(body)}\r\n\r\n".encode(), "text/event-stream")
    return Recording(json.dumps(body).encode(), "application/json")


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("model", "heard", "answer", "cost"),
    [
        # 0.30 dollars for text, 1 for sound: the package doesn't say how much of it there was.
        ("gemini-2.5-flash", True, {"text": "Rain."}, None),
        ("gemini-2.5-flash", False, {"text": "Rain."}, "0.00055"),
        # 1.25 for both.
        ("gemini-2.5-pro", True, {"text": "Rain."}, "0.00225"),
        # 30 dollars for pictures, 2.50 for text.
        ("gemini-2.5-flash-image", False, PICTURE, None),
    ],
)
async def test_sound_and_pictures_of_gemini(
    chatter: Chatter,
    model: str,
    heard: bool,
    answer: dict[str, Any],
    cost: str | None,
    streamed: bool,
) -> None:
    question = HumanMessage([{"type": "text", "text": "Rain?"}, *([SOUND] if heard else [])])
    with gemini.running() as running:
        running.script = [Reply(recording=spoken(answer, stream=streamed))]
        asked = ChatGoogleGenerativeAI(
            model=model,
            base_url=running.base_url.removesuffix("/v1"),
            api_key=SecretStr("test"),
            max_retries=1,
        )
        config: Any = {"callbacks": [chatter.recorder(conversation="1")]}
        if streamed:
            assert [chunk async for chunk in asked.astream([question], config)]
        else:
            await asked.ainvoke([question], config)
    async with chatter.session() as session:
        row = (await session.scalars(select(Message).where(Message.model_call))).one()
    assert (row.prompt_tokens, row.completion_tokens) == (1000, 100)
    assert row.cost == (cost and Decimal(cost))
