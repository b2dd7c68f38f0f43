"""Streams of each protocol: usage that comes in pieces, again and again, or never."""

from typing import Any

import pytest

from chatter_db.recorder.usage import from_wire
from tests.recorder.test_usage_wire import CHAT, NONE, Counts, counts


def chunks(*usages: Any, key: str = "usage") -> list[dict[str, Any]]:
    return [{"object": "chat.completion.chunk", key: usage} for usage in usages]


def anthropic(first: dict[str, Any], last: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "message_start", "message": {"usage": {**first, "output_tokens": 0}}},
        {"type": "message_delta", "usage": {**last, "output_tokens": 15}},
    ]


def watsonx(*seen: tuple[int, int]) -> list[dict[str, Any]]:
    return [
        {"results": [{"input_token_count": read, "generated_token_count": written}]}
        for read, written in seen
    ]


STREAMS: list[tuple[str, list[dict[str, Any]], Counts]] = [
    (
        "cumulative usage counts once",
        chunks(None, {**CHAT, "completion_tokens": 1, "total_tokens": 13}, CHAT),
        (12, 5, 17, None, None, None),
    ),
    (
        "zeros after counts are a placeholder",
        chunks(CHAT, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
        (12, 5, 17, None, None, None),
    ),
    (
        "a stream that broke off before it counted",
        [{"choices": [{"delta": {}}], "usage": {"prompt_tokens": 12, "completion_tokens": 0}}],
        (12, None, 12, None, None, None),
    ),
    (
        "a stream of zeros is of a server that does not count",
        chunks({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
        (None,) * 6,
    ),
    (
        "a response that has only begun",
        [
            {
                "type": "response.created",
                "response": {
                    "object": "response",
                    "status": "in_progress",
                    "usage": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0},
                },
            }
        ],
        (None,) * 6,
    ),
    (
        "an interaction that has only begun",
        [{"interaction": {"usage": {"total_input_tokens": 0, "total_output_tokens": 0}}}],
        (None,) * 6,
    ),
    (
        "what a guardrail of Bedrock's blocked",
        [{"metadata": {"usage": {"inputTokens": 0, "outputTokens": 0, "totalTokens": 0}}}],
        (0, 0, 0, 0, 0, None),
    ),
    (
        "an answer of nothing is 0",
        [
            {"choices": [{"finish_reason": "stop"}], "usage": None},
            {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 0}},
        ],
        (12, 0, 12, None, None, None),
    ),
    ("Groq's own place", chunks({"usage": CHAT}, key="x_groq"), (12, 5, 17) + (None,) * 3),
    ("Cloudflare's", [{"result": {"usage": CHAT}}], (12, 5, 17) + (None,) * 3),
    (
        "the end of an interaction",
        [{"interaction": {"usage": {"total_input_tokens": 7, "total_output_tokens": 2}}}],
        (7, 2, 9, 0, None, 0),
    ),
    ("Moonshot's", [{"choices": [{"delta": {}, "usage": CHAT}]}], (12, 5, 17) + (None,) * 3),
    (
        "Anthropic's last event overtakes the first",
        [
            {
                "type": "message_start",
                "message": {"usage": {"input_tokens": 9, "output_tokens": 1}},
            },
            {"type": "message_delta", "usage": {"output_tokens": 50}},
            {"type": "message_delta", "usage": {"output_tokens": 82}},
        ],
        (9, 82, 91, 0, 0, None),
    ),
    (
        "a gateway's zeros after the prompt",
        anthropic({"input_tokens": 25, "cache_read_input_tokens": 9}, {"input_tokens": 0, **NONE}),
        (34, 15, 49, 9, 0, None),
    ),
    (
        "zeros before the prompt",
        anthropic({"input_tokens": 0, **NONE}, {"input_tokens": 11}),
        (11, 15, 26, 0, 0, None),
    ),
    (
        "zeros and no prompt at all",
        anthropic({"input_tokens": 0, **NONE}, {}),
        (None, 15, None, None, None, None),
    ),
    (
        "zeros and nothing else",
        anthropic({"input_tokens": 0, **NONE}, {})[:1],
        (None,) * 6,
    ),
    (
        "Anthropic cut off: of the output it had said nothing yet, nor of the cache",
        [{"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}}],
        (9, None, None, None, None, None),
    ),
    (
        "and what it had said",
        anthropic({"input_tokens": 25, **NONE, "cache_read_input_tokens": 9}, {})[:1],
        (34, None, None, 9, None, None),
    ),
    (
        # As recorded in https://github.com/maximhq/bifrost/pull/5355
        "QwenCloud, whose prompt is all of it until the cache is told of",
        anthropic(
            {"input_tokens": 8834}, {**NONE, "input_tokens": 18, "cache_read_input_tokens": 8831}
        ),
        (8849, 15, 8864, 8831, 0, None),
    ),
    (
        # As Chatlas recorded it: by its end the search had written 17,269 tokens to the cache.
        "Anthropic cut off in a search of its own: it would have read what it found",
        [
            {
                "type": "message_start",
                "message": {"usage": {"input_tokens": 2679, **NONE, "output_tokens": 3}},
            },
            {
                "type": "content_block_start",
                "content_block": {"type": "server_tool_use", "name": "web_search"},
            },
        ],
        (None,) * 6,
    ),
    (
        "an error in mid-stream unsays nothing",
        [
            {
                "type": "message_start",
                "message": {"usage": {"input_tokens": 9, "output_tokens": 1}},
            },
            {"type": "error", "error": {"type": "overloaded_error"}},
        ],
        (9, None, None, None, None, None),
    ),
    (
        "Gemini's last block, even where it is less",
        [
            {"usageMetadata": {"promptTokenCount": 15, "totalTokenCount": 15}},
            {
                "candidates": [{"finishReason": "STOP"}],
                "usageMetadata": {"promptTokenCount": 14, "candidatesTokenCount": 3},
            },
        ],
        (14, 3, 17, 0, None, 0),
    ),
    (
        "Gemini cut off before it counted",
        [{"usageMetadata": {"promptTokenCount": 15, "totalTokenCount": 15}}],
        (15, None, 15, 0, None, None),
    ),
    (
        "Gemini that refused the prompt wrote nothing",
        [
            {
                "promptFeedback": {"blockReason": "SAFETY"},
                "usageMetadata": {"promptTokenCount": 15, "totalTokenCount": 15},
            }
        ],
        (15, 0, 15, 0, None, 0),
    ),
    (
        "a response that failed states what it used",
        [
            {
                "type": "response.failed",
                "response": {
                    "object": "response",
                    "error": {"code": "server_error"},
                    "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
                },
            }
        ],
        (3, 4, 7, None, None, None),
    ),
    (
        "Bedrock's metrics, for a model that counts less",
        [
            {"prompt_token_count": 5, "generation_token_count": 1},
            {
                "generation_token_count": 9,
                "amazon-bedrock-invocationMetrics": {
                    "inputTokenCount": 5,
                    "outputTokenCount": 10,
                },
            },
        ],
        (5, 10, 15, None, None, None),
    ),
    (
        "Bedrock's metrics, beside which the cache stands",
        [
            {
                "amazon-bedrock-invocationMetrics": {
                    "inputTokenCount": 10,
                    "cacheReadInputTokenCount": 70,
                    "cacheWriteInputTokenCount": 20,
                    "outputTokenCount": 5,
                },
            },
        ],
        (100, 5, 105, 70, 20, None),
    ),
    (
        "Bedrock's metrics, of a model that says more among its details",
        [
            {
                "choices": [],
                "usage": {
                    **CHAT,
                    "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                    "completion_tokens_details": {"reasoning_tokens": 0},
                },
                "amazon-bedrock-invocationMetrics": {"inputTokenCount": 12, "outputTokenCount": 5},
            },
        ],
        (12, 5, 17, 0, 0, 0),
    ),
    (
        "Bedrock's metrics, of a model that was not done when it counted",
        [
            {
                "usage": {
                    "prompt_tokens": 12,
                    "completion_tokens": 1,
                    "prompt_tokens_details": {"cached_tokens": 0},
                }
            },
            {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 12, "outputTokenCount": 5}},
        ],
        (12, 5, 17, None, None, None),
    ),
    (
        "watsonx.ai counts the prompt once, and what it writes again and again",
        watsonx((8, 0), (0, 1), (0, 11)),
        (8, 11, 19, None, None, None),
    ),
    (
        "watsonx.ai cut off before it wrote",
        watsonx((8, 0)),
        (8, None, None, None, None, None),
    ),
    (
        "the end of a stream of text generation inference",
        [
            {"token": {"id": 1, "text": "a"}, "generated_text": None, "details": None},
            {"token": {"id": 2}, "details": {"generated_tokens": 2, "input_length": 16}},
        ],
        (16, 2, 18, None, None, None),
    ),
]


@pytest.mark.parametrize(
    ("events", "expected"), [s[1:] for s in STREAMS], ids=[s[0] for s in STREAMS]
)
def test_a_stream_counts_once(events: list[dict[str, Any]], expected: Counts) -> None:
    assert counts(from_wire(None, events)) == expected
