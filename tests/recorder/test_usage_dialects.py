"""Blocks that count in ways of their own: what is part of what, by who says so."""

from typing import Any

import pytest

from chatter_db.recorder.usage import from_wire
from tests.recorder.test_usage_wire import CHAT, RESPONSE, Counts, counts

BLOCKS: list[tuple[str, str | None, dict[str, Any], Counts]] = [
    (
        # As LiteLLM found it: https://github.com/BerriAI/litellm/pull/10141
        "Gemini whose thoughts are part of the candidates, which the total tells",
        None,
        {
            "promptTokenCount": 4,
            "candidatesTokenCount": 30,
            "thoughtsTokenCount": 20,
            "totalTokenCount": 34,
        },
        (4, 30, 34, 0, None, 20),
    ),
    (
        "Gemini whose thoughts are in the total only",
        None,
        {"promptTokenCount": 9, "totalTokenCount": 508},
        (9, None, 508, 0, None, None),
    ),
    (
        # As in https://github.com/vercel/ai/pull/6738
        "and beside an answer",
        None,
        {"promptTokenCount": 5, "candidatesTokenCount": 5, "totalTokenCount": 304},
        (5, None, 304, 0, None, None),
    ),
    (
        "somebody's total with Anthropic's names, which has the cache",
        None,
        {"input_tokens": 4, "cache_read_input_tokens": 8, "output_tokens": 5, "total_tokens": 17},
        (12, 5, 17, 8, 0, None),
    ),
    (
        "or leaves it out",
        None,
        {"input_tokens": 4, "cache_read_input_tokens": 8, "output_tokens": 5, "total_tokens": 9},
        (12, 5, 9, 8, 0, None),
    ),
    (
        "or does not tell",
        None,
        {"input_tokens": 12, "cache_read_input_tokens": 8, "output_tokens": 5, "total_tokens": 17},
        (None, 5, 17, 8, None, None),
    ),
    (
        # By the example of https://developers.sber.ru/docs/ru/gigachat/guides/counting-tokens
        "GigaChat, which leaves its cache out of all counts",
        None,
        {**CHAT, "precached_prompt_tokens": 37},
        (49, 5, 17, 37, None, None),
    ),
    (
        "or out of the total alone",
        None,
        {**CHAT, "total_tokens": 9, "precached_prompt_tokens": 8},
        (12, 5, 9, 8, None, None),
    ),
    (
        "or has none",
        "gigachat",
        {**CHAT, "precached_prompt_tokens": 0},
        (12, 5, 17, 0, None, None),
    ),
    (
        # https://www.alibabacloud.com/help/en/model-studio/context-cache
        "DashScope's own, with what was written to a cache",
        None,
        {
            **RESPONSE,
            "prompt_tokens_details": {
                "cached_tokens": 0,
                "cache_creation_input_tokens": 9,
                "cache_type": "ephemeral",
            },
        },
        (12, 5, 17, 0, 9, None),
    ),
    (
        # By an example of Yandex's: https://yandex.cloud/en/docs/foundation-models/
        "YandexGPT, with numbers as strings",
        None,
        {"inputTextTokens": "28", "completionTokens": "110", "totalTokens": "138"},
        (28, 110, 138, None, None, None),
    ),
    (
        # https://cloud.tencent.com/document/product/1729/105701
        "Hunyuan's own",
        None,
        {"PromptTokens": 12, "CompletionTokens": 5, "TotalTokens": 17},
        (12, 5, 17, None, None, None),
    ),
    (
        # By convert-openai-chat-usage.ts of @ai-sdk/openai 3: the total has all parts.
        "Vercel's since version 6",
        None,
        {
            "inputTokens": 2000,
            "inputTokenDetails": {"noCacheTokens": 100, "cacheReadTokens": 1900},
            "outputTokens": 5,
            "outputTokenDetails": {"textTokens": 5, "reasoningTokens": 0},
            "totalTokens": 2005,
            "cachedInputTokens": 1900,
            "reasoningTokens": 0,
        },
        (2000, 5, 2005, 1900, None, None),
    ),
    (
        "Vercel's before that, who leaves it open what is in the input",
        None,
        {"inputTokens": 9, "outputTokens": 11, "totalTokens": 20, "reasoningTokens": 5},
        (None,) * 6,
    ),
    (
        "an agent's sum, which has what was written to a cache by another name",
        None,
        {
            "inputTokens": 9,
            "outputTokens": 11,
            "cacheReadInputTokens": 70,
            "cacheCreationInputTokens": 20,
        },
        (None,) * 6,
    ),
]


@pytest.mark.parametrize(
    ("provider", "block", "expected"), [b[1:] for b in BLOCKS], ids=[b[0] for b in BLOCKS]
)
def test_a_block_is_read_as_its_maker_counts(
    provider: str | None, block: dict[str, Any], expected: Counts
) -> None:
    usage = from_wire(provider, {"usage": block})
    assert counts(usage) == expected
    assert usage.raw == block
    assert usage.malformed == (expected == (None,) * 6)


@pytest.mark.parametrize(
    "body",
    [
        {"Response": {"Choices": [{}], "Usage": {"PromptTokens": 12, "CompletionTokens": 5}}},
        [
            {"Choices": [{}], "Usage": {"PromptTokens": 12, "CompletionTokens": 1}},
            {"Choices": [{}], "Usage": {"PromptTokens": 12, "CompletionTokens": 5}},
        ],
        {"result": {"usage": {"inputTextTokens": "12", "completionTokens": "5"}}},
    ],
    ids=["Hunyuan", "its stream", "YandexGPT"],
)
def test_a_block_is_found_where_its_maker_puts_it(body: object) -> None:
    assert counts(from_wire(None, body))[:3] == (12, 5, 17)


def test_a_completion_that_has_not_begun_is_no_zero() -> None:
    begun = [{"result": {"usage": {"inputTextTokens": "12", "completionTokens": "0"}}}]
    assert counts(from_wire("yandex", begun)) == (12, None, None, None, None, None)


def test_a_gateway_says_how_long_a_cache_lives() -> None:
    """As Helicone's openAIUsageProcessor.ts reads it of its own gateway."""
    written = {"write_5m_tokens": 3, "write_1h_tokens": 6}
    details = {"cached_tokens": 0, "cache_write_tokens": 9, "cache_write_details": written}
    usage = from_wire(None, {"usage": {**CHAT, "prompt_tokens_details": details}})
    assert (usage.cache_write_tokens, usage.cache_write_1h_tokens) == (9, 6)


def test_searches_are_counted_as_google_counts_them() -> None:
    """As RubyLLM recorded an interaction: one entry, two searches."""
    searches = [{"type": "google_search", "count": 2, "search_query_count": 2}]
    block = {"total_input_tokens": 60, "total_output_tokens": 20, "grounding_tool_count": searches}
    assert from_wire(None, block).kinds == {"grounding_tool_count": 2}
