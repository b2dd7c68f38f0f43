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
        "and beside an answer",
        None,
        {"promptTokenCount": 5, "candidatesTokenCount": 5, "totalTokenCount": 304},
        (5, 5, 304, 0, None, None),
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
]


@pytest.mark.parametrize(
    ("provider", "block", "expected"), [b[1:] for b in BLOCKS], ids=[b[0] for b in BLOCKS]
)
def test_a_block_is_read_as_its_maker_counts(
    provider: str | None, block: dict[str, Any], expected: Counts
) -> None:
    usage = from_wire(provider, block)
    assert counts(usage) == expected
    assert usage.raw == block and not usage.malformed


def test_searches_are_counted_as_google_counts_them() -> None:
    """As RubyLLM recorded an interaction: one entry, two searches."""
    searches = [{"type": "google_search", "count": 2, "search_query_count": 2}]
    block = {"total_input_tokens": 60, "total_output_tokens": 20, "grounding_tool_count": searches}
    assert from_wire(None, block).kinds == {"grounding_tool_count": 2}
