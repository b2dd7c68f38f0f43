"""The rules of each protocol, and what becomes of blocks that keep none."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage

from chatter_db.models import MAX_TOKENS
from chatter_db.recorder.unparsed import unparsed
from chatter_db.recorder.usage import Usage, from_wire

Counts = tuple[int | None, ...]


def counts(usage: Usage) -> Counts:
    """Prompt, completion, total, cache read, cache write, reasoning."""
    return (
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
    )


CHAT = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
RESPONSE = {"input_tokens": 12, "output_tokens": 5, "total_tokens": 17}
NONE = {"cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
RULES: list[tuple[str, str | None, dict[str, Any], Counts]] = [
    ("chat", None, CHAT, (12, 5, 17, None, None, None)),
    (
        "a stated zero is 0, null is not",
        "openai",
        {
            **CHAT,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": None},
        },
        (12, 5, 17, 0, None, None),
    ),
    (
        "null details",
        "vllm",
        {**CHAT, "prompt_tokens_details": None, "completion_tokens_details": None},
        (12, 5, 17, None, None, None),
    ),
    ("a total of its own", None, {**CHAT, "total_tokens": 40}, (12, 5, 40, None, None, None)),
    ("no total", None, {"prompt_tokens": 2, "completion_tokens": 3}, (2, 3, 5) + (None,) * 3),
    ("a total only", None, {"total_tokens": 9}, (None, None, 9, None, None, None)),
    ("a prompt only", None, {"prompt_tokens": 9}, (9, None, None, None, None, None)),
    (
        "whole floats and digits are numbers",
        None,
        {"prompt_tokens": 12.0, "completion_tokens": "5", "total_tokens": Decimal("17")},
        (12, 5, 17, None, None, None),
    ),
    (
        "DeepSeek of old",
        "deepseek",
        {**CHAT, "prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 4},
        (12, 5, 17, 8, None, None),
    ),
    (
        "a cache's count beside the details, as Moonshot has it",
        "moonshot",
        {**CHAT, "cached_tokens": 8},
        (12, 5, 17, 8, None, None),
    ),
    (
        "a zero there is said by servers without a cache too",
        "together",
        {**CHAT, "cached_tokens": 0},
        (12, 5, 17, None, None, None),
    ),
    ("Mistral's name", None, {**CHAT, "num_cached_tokens": 8}, (12, 5, 17, 8, None, None)),
    (
        "LiteLLM's cache writes",
        "openai",
        {
            **CHAT,
            "prompt_tokens_details": {"cached_tokens": 2, "cache_creation_tokens": 9},
            "cache_creation_input_tokens": 9,
            "cache_read_input_tokens": 2,
        },
        (12, 5, 17, 2, 9, None),
    ),
    (
        "and before they were among the details",
        "openai",
        {**CHAT, "cache_creation_input_tokens": 9, "cache_read_input_tokens": 0},
        (12, 5, 17, None, 9, None),
    ),
    (
        "LiteLLM's cache reads then",
        "openai",
        {**CHAT, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 8},
        (12, 5, 17, 8, 0, None),
    ),
    (
        "Mistral's seconds of audio, where there are none",
        "mistral",
        {**CHAT, "prompt_audio_seconds": {}},
        (12, 5, 17, None, None, None),
    ),
    (
        "New API's cache writes",
        None,
        {**CHAT, "prompt_tokens_details": {"cached_tokens": 2, "cached_creation_tokens": 9}},
        (12, 5, 17, 2, 9, None),
    ),
    (
        "the same in a response",
        None,
        {**RESPONSE, "input_tokens_details": {"cached_tokens": 2, "cached_creation_tokens": 9}},
        (12, 5, 17, 2, 9, None),
    ),
    (
        "LiteLLM's in a response",
        None,
        {**RESPONSE, "input_tokens_details": {"cached_tokens": 2, "cache_creation_tokens": 9}},
        (12, 5, 17, 2, 9, None),
    ),
    (
        "a cache beside the prompt, which the total tells",
        None,
        {
            "prompt_tokens": 4,
            "completion_tokens": 9,
            "cache_read_input_tokens": 1500,
            "cache_write_input_tokens": 20,
            "total_tokens": 1533,
        },
        (1524, 9, 1533, 1500, 20, None),
    ),
    (
        "a cache beside the prompt of no answer",
        None,
        {
            "prompt_tokens": 4,
            "completion_tokens": 0,
            "cache_read_input_tokens": 1500,
            "total_tokens": 1504,
        },
        (1504, 0, 1504, 1500, None, None),
    ),
    (
        "Gemini cut off while thinking, by OpenAI's protocol",
        None,
        {"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 508},
        (9, None, 508, None, None, None),
    ),
    (
        "the same with its thoughts counted",
        None,
        {
            "prompt_tokens": 9,
            "completion_tokens": 0,
            "total_tokens": 508,
            "completion_tokens_details": {"reasoning_tokens": 499},
        },
        (9, 499, 508, None, None, 499),
    ),
    (
        "Qwen's cache writes",
        "openai",
        {
            **CHAT,
            "prompt_tokens_details": {
                "cached_tokens": 0,
                "cache_creation_input_tokens": 9,
                "cache_creation": {"ephemeral_5m_input_tokens": 9},
            },
        },
        (12, 5, 17, 0, 9, None),
    ),
    (
        "xAI's reasoning is beside the completion, which the total tells",
        None,
        {
            "prompt_tokens": 41,
            "completion_tokens": 87,
            "total_tokens": 411,
            "completion_tokens_details": {"reasoning_tokens": 283},
        },
        (41, 370, 411, None, None, 283),
    ),
    (
        "and without a total its name",
        "xai",
        {
            "prompt_tokens": 41,
            "completion_tokens": 87,
            "completion_tokens_details": {"reasoning_tokens": 283},
        },
        (41, 370, 411, None, None, 283),
    ),
    (
        "OpenAI's is part of it",
        "openai",
        {**CHAT, "completion_tokens_details": {"reasoning_tokens": 5}},
        (12, 5, 17, None, None, 5),
    ),
    (
        "xAI's gRPC leaves zeros out",
        None,
        {"prompt_tokens": 14, "prompt_text_tokens": 14, "completion_tokens": 3},
        (14, 3, 17, 0, None, 0),
    ),
    (
        "responses",
        None,
        {
            "input_tokens": 90,
            "input_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 3},
            "output_tokens": 20,
            "output_tokens_details": {"reasoning_tokens": 18},
            "total_tokens": 110,
        },
        (90, 20, 110, 64, 3, 18),
    ),
    (
        "realtime",
        None,
        {
            "total_tokens": 253,
            "input_tokens": 132,
            "output_tokens": 121,
            "input_token_details": {"cached_tokens": 64, "text_tokens": 119, "audio_tokens": 13},
            "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
        },
        (132, 121, 253, 64, None, None),
    ),
    (
        "DashScope's own, with the details of chat",
        None,
        {**RESPONSE, "prompt_tokens_details": {"cached_tokens": 8}},
        (12, 5, 17, 8, None, None),
    ),
    (
        "Perplexity's responses, with Anthropic's names",
        None,
        {**RESPONSE, "input_tokens_details": {**NONE, "cache_read_input_tokens": 8}},
        (12, 5, 17, 8, 0, None),
    ),
    (
        "Anthropic adds the cache",
        None,
        {
            "input_tokens": 3,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 40,
            "output_tokens": 7,
        },
        (143, 7, 150, 100, 40, None),
    ),
    (
        "writes by lifetime, as LangChain leaves them",
        None,
        {
            "input_tokens": 3,
            "cache_creation_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 10},
            "output_tokens": 7,
        },
        (43, 7, 50, 0, 40, None),
    ),
    (
        "Anthropic before there was a cache",
        "anthropic",
        {"input_tokens": 3, "output_tokens": 7},
        (3, 7, 10, 0, 0, None),
    ),
    (
        "the same of nobody in particular",
        None,
        {"input_tokens": 3, "output_tokens": 7},
        (3, 7, 10, None, None, None),
    ),
    (
        "what a guardrail blocked",
        "anthropic",
        {"usage": {"input_tokens": 0, "output_tokens": 0}},
        (0, 0, 0, 0, 0, None),
    ),
    (
        "Converse adds the cache",
        None,
        {
            "inputTokens": 3,
            "outputTokens": 4,
            "cacheReadInputTokens": 5,
            "cacheWriteInputTokens": 6,
            "totalTokens": 18,
        },
        (14, 4, 18, 5, 6, None),
    ),
    (
        "Gemini adds thoughts and tools",
        None,
        {
            "promptTokenCount": 15,
            "toolUsePromptTokenCount": 288,
            "candidatesTokenCount": 40,
            "thoughtsTokenCount": 257,
            "cachedContentTokenCount": 10,
            "totalTokenCount": 600,
        },
        (303, 297, 600, 10, None, 257),
    ),
    (
        "Gemini that was stopped while thinking",
        None,
        {"promptTokenCount": 15, "thoughtsTokenCount": 30, "totalTokenCount": 45},
        (15, 30, 45, 0, None, 30),
    ),
    (
        "Gemini's interactions",
        None,
        {
            **{"total_input_tokens": 12, "total_cached_tokens": 7, "total_output_tokens": 200},
            **{"total_tool_use_tokens": 50, "total_thought_tokens": 58, "total_tokens": 320},
        },
        (62, 258, 320, 7, None, 58),
    ),
    ("and Vertex's", None, {"totalInputTokens": 9, "totalOutputTokens": 5}, (9, 5, 14, 0, None, 0)),
    (
        "Cohere's tokens, not what it bills",
        None,
        {
            "billed_units": {"input_tokens": 7, "output_tokens": 100},
            "tokens": {"input_tokens": 69.0, "output_tokens": 101.0},
        },
        (69, 101, 170, None, None, None),
    ),
    ("Ollama with the prompt in its cache", None, {"eval_count": 5}, (None, 5) + (None,) * 4),
    (
        "Ollama that says what was in its cache",
        None,
        {"prompt_eval_count": 11, "prompt_eval_cached_count": 8, "eval_count": 18},
        (11, 18, 29, 8, None, None),
    ),
    (
        "Titan",
        None,
        {"inputTextTokenCount": 5, "results": [{"tokenCount": 8, "outputText": "secret"}]},
        (5, 8, 13, None, None, None),
    ),
    (
        "Llama",
        None,
        {"prompt_token_count": 5, "generation_token_count": 8, "generation": "secret"},
        (5, 8, 13, None, None, None),
    ),
    (
        "Aleph Alpha",
        None,
        {"num_tokens_prompt_total": 9, "num_tokens_generated": 64, "completions": ["secret"]},
        (9, 64, 73, None, None, None),
    ),
    (
        "llama.cpp's own",
        None,
        {"tokens_evaluated": 1024, "tokens_predicted": 512, "content": "secret"},
        (1024, 512, 1536, None, None, None),
    ),
    (
        "watsonx.ai",
        None,
        {
            "results": [
                {
                    "generated_text": "secret",
                    "generated_token_count": 2,
                    "input_token_count": 7,
                }
            ]
        },
        (7, 2, 9, None, None, None),
    ),
    (
        "text generation inference says nothing of the prompt",
        None,
        {"generated_text": "secret", "details": {"generated_tokens": 75, "tokens": ["secret"]}},
        (None, 75, None, None, None, None),
    ),
]


@pytest.mark.parametrize(
    ("provider", "block", "expected"), [r[1:] for r in RULES], ids=[r[0] for r in RULES]
)
def test_a_block_is_read_by_the_rules_of_its_protocol(
    provider: str | None, block: dict[str, Any], expected: Counts
) -> None:
    usage = from_wire(provider, block)
    assert counts(usage) == expected
    assert not usage.malformed
    assert usage.raw and "secret" not in str(usage.raw)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"event": "thread.run.completed", "data": {"usage": CHAT}}, (12, 5, 17) + (None,) * 3),
        (
            {"response": {"usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 5}}},
            (9, 5, 14, 0, None, 0),
        ),
    ],
    ids=["an assistant's event", "Code Assist"],
)
def test_a_block_is_found_where_it_lies_deeper(body: dict[str, Any], expected: Counts) -> None:
    assert counts(from_wire(None, body)) == expected


@pytest.mark.parametrize(
    "beside",
    [
        {"generated_tokens": 5},
        {"details": {"generated_tokens": 5}},
        {"details": {"total_tokens": 7}},
    ],
    ids=str,
)
def test_other_counts_in_a_body_are_not_taken_for_its_usage(beside: dict[str, Any]) -> None:
    body = {"choices": [{}], "usage": CHAT, **beside}
    assert counts(from_wire(None, body)) == (12, 5, 17) + (None,) * 3
    own = {"input_tokens": 12, "output_tokens": 5, "details": {"reasoning_tokens": 3}}
    assert counts(from_wire(None, own))[:3] == (12, 5, 17)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": 429, "message": "slow down"}, "usage": CHAT},
        {"type": "error", "error": {"type": "overloaded_error"}},
        {"message": "no such model", "code": 404},
        {"id": "chatcmpl-1", "choices": [], "usage": None},
        {"usage": {}},
        {},
        [],
        None,
        "usage",
        17,
    ],
)
def test_what_states_no_usage_has_none(body: object) -> None:
    assert from_wire(None, body) == Usage()


NONSENSE = [
    True, -1, 5.5, float("nan"), float("inf"), MAX_TOKENS + 1, 10**400, "many", "-3", "1e3",
    [1], {"a": {"b": [1]}}, "\N{ARABIC-INDIC DIGIT THREE}",
]  # fmt: skip


@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
def test_what_can_be_read_is_booked_and_the_rest_marked(nonsense: object) -> None:
    usage = from_wire(None, {"usage": {**CHAT, "completion_tokens": nonsense}})
    assert counts(usage) == (12, None, 17, None, None, None)
    assert usage.malformed and usage.notes[0].startswith("completion_tokens: ")
    assert usage.raw is not None and set(usage.raw) == set(CHAT)
    assert msgspec.json.decode(msgspec.json.encode(usage.raw)) == usage.raw


def test_a_note_does_not_repeat_what_it_could_not_read() -> None:
    usage = from_wire(None, {"usage": {**CHAT, "prompt_tokens": "my secret"}})
    assert usage.notes == ("prompt_tokens: str is no number to book",)


def test_a_sum_with_an_unreadable_part_is_unknown() -> None:
    usage = from_wire(
        "anthropic", {"input_tokens": 5, "cache_read_input_tokens": "lots", "output_tokens": 2}
    )
    assert counts(usage) == (None, 2, None, None, None, None)
    usage = from_wire(
        "anthropic", {"input_tokens": 5, "cache_creation_input_tokens": [], "output_tokens": 2}
    )
    assert counts(usage) == (None, 2, None, None, None, None)
    usage = from_wire(None, {"promptTokenCount": 5, "thoughtsTokenCount": -1, "totalTokenCount": 9})
    assert counts(usage) == (5, None, 9, 0, None, None)


def test_a_sum_beyond_the_column_is_unknown() -> None:
    usage = from_wire("anthropic", {"input_tokens": MAX_TOKENS, "cache_read_input_tokens": 1})
    assert usage.prompt_tokens is None and usage.cache_read_tokens == 1


def test_a_block_that_looks_like_converse_is_no_zero() -> None:
    block = {"inputTokens": 9, "outputTokens": 11, "totalTokens": 20, "cachedInputTokens": 4}
    usage = from_wire(None, {"usage": block})
    assert counts(usage) == (None,) * 6
    assert usage.raw == block


def test_a_usage_that_is_none_is_kept_and_marked() -> None:
    usage = from_wire(None, {"usage": ["a", 1]})
    assert usage.status == "unknown" and usage.malformed
    assert usage.raw == {"usage": ["a", 1]}


@pytest.mark.parametrize(
    ("block", "cost"),
    [
        ({**CHAT, "cost": 0.0076509169000000005}, "0.0076509169000000005"),
        ({**CHAT, "cost": 0}, "0"),
        ({**CHAT, "cost": "-1"}, None),
        ({**CHAT, "cost": float("nan")}, None),
        ({**CHAT, "cost": {"total_cost": 0.006, "request_cost": 0.005}}, "0.006"),
        ({**CHAT, "cost_in_usd_ticks": "1043500"}, "0.00010435"),
        ({**CHAT, "cost_in_usd_ticks": 125_000_000_000}, "12.5"),
        (
            {
                **CHAT,
                "cost": 0.0001,
                "is_byok": True,
                "cost_details": {"upstream_inference_cost": 0.002},
            },
            "0.0021",
        ),
        ({**CHAT, "cost": 0.0001, "is_byok": True}, None),
    ],
)
def test_a_stated_cost(block: dict[str, Any], cost: str | None) -> None:
    """Whole of it or nothing: with a key of one's own the fee alone is not the cost."""
    assert from_wire(None, block).cost == (None if cost is None else Decimal(cost))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                sorted(
                    {name for rule in RULES for name in rule[2]}
                    | {"usage", "usageMetadata", "message", "response", "delta", "x_groq", "meta"}
                    | {"tokens", "type", "error", "choices", "candidates", "iterations", "cost"}
                )
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(anything, st.sampled_from([None, "anthropic", "xai", "google_genai"]))
def test_nothing_raises_and_nothing_false_is_booked(body: object, provider: str | None) -> None:
    usage = from_wire(provider, body)
    for count in counts(usage):
        assert count is None or (type(count) is int and 0 <= count <= MAX_TOKENS)
    assert usage.cost is None or usage.cost >= 0
    msgspec.json.encode([usage.raw, usage.notes])


def test_a_deep_block_is_kept_as_far_as_it_makes_sense() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"a": deep}
    usage = from_wire(None, {"usage": {**CHAT, "prompt_tokens_details": deep}})
    assert counts(usage) == (12, 5, 17, None, None, None)
    msgspec.json.encode(usage.raw)


def test_of_several_answers_that_were_refused_the_first_is_booked_at_its_terms() -> None:
    choices = [{"message": {"content": each}, "finish_reason": each} for each in ("stop", "length")]
    body = {
        "model": "gpt-4o-2024-08-06",
        "service_tier": "flex",
        "usage": {"prompt_tokens": 10},
        "choices": choices,
    }
    found = unparsed(AIMessage("", response_metadata={"body": body}))
    assert found.text == "stop"
    assert found.response_metadata == {
        "model_name": "gpt-4o-2024-08-06",
        "service_tier": "flex",
        "token_usage": body["usage"],
        "finish_reason": "stop",
    }
