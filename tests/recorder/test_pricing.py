"""Cost: stated, computed by the price list of the day, or unknown. Never a float."""

from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import genai_prices
import pytest
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata

from chatter_db.recorder.endpoints import provider_answering
from chatter_db.recorder.pricing import Cost, cost_of
from chatter_db.recorder.usage import Usage, from_wire, of_message
from tests.recorder import corpus

AT = datetime(2026, 1, 15, 12, tzinfo=UTC)
MILLION = 1_000_000


def price(
    usage: Usage, provider: str | None, model: str | None, at: datetime = AT
) -> Decimal | None:
    cost = cost_of(usage, provider=provider, model=model, at=at)
    if cost is None:
        return None
    assert type(cost.amount) is Decimal
    return cost.amount


def used(prompt: int = 1000, completion: int = 100, **more: Any) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=completion, **more)


def test_what_the_provider_says_comes_first() -> None:
    usage = from_wire(
        "openrouter", {"prompt_tokens": 9, "completion_tokens": 1, "cost": 0.00341475}
    )
    cost = cost_of(usage, provider="openrouter", model="openai/gpt-4o", at=AT)
    assert cost == Cost(Decimal("0.00341475"), "provider")
    # Also of a model that no list knows, and if it is nothing.
    assert price(used(cost=Decimal(0)), "openrouter", "somebody/model:free") == 0


def test_a_computed_cost_says_how() -> None:
    cost = cost_of(used(), provider="openai", model="gpt-4o-mini", at=AT)
    assert cost is not None
    assert (cost.amount, cost.source) == (Decimal("0.00021"), "computed")
    details = dict(cost.details)
    prices = details.pop("unit_prices")
    assert (prices["input_mtok"], prices["output_mtok"]) == ("0.15", "0.6")
    assert details == {
        "price_list": f"genai-prices {genai_prices.__version__}",
        "provider": "openai",
        "model": "gpt-4o-mini",
    }


@pytest.mark.parametrize(
    ("usage", "provider", "model"),
    [
        (used(), "ollama", "llama3"),
        (used(), "openai", "no-such-model"),
        (used(), "no-such-provider", "gpt-4o"),
        (used(), "openai", None),
        (used(), None, "ollama/llama3"),
        (used(), "google_genai", "gemini-2.5-pro-exp-03-25"),
        (Usage(), "openai", "gpt-4o"),
        (Usage(prompt_tokens=9), "openai", "gpt-4o"),
        (Usage(completion_tokens=9), "openai", "gpt-4o"),
        (used(10, cache_read_tokens=11), "openai", "gpt-4o"),
        (used(terms={"service_tier": "flex"}), "openai", "gpt-4o"),
        (used(cache_write_tokens=9, cache_write_1h_tokens=9), "openai", "gpt-4o"),
        (used(kinds={"input_audio_tokens": 2000}), "google_genai", "gemini-2.5-flash"),
        # By the page and by the hour, and an output that has no price.
        (used(), "mistralai", "mistral-ocr-latest"),
        (used(), "openai", "whisper-1"),
        (used(), "openai", "text-embedding-3-small"),
        # Free from Google, and nobody says of whom it was got.
        (used(), None, "google/gemma-3-27b-it"),
        # A fee that depends on what was read.
        (used(), "perplexity", "sonar"),
        (used(), "perplexity", "sonar-deep-research"),
        (
            used(),
            "bedrock_converse",
            "arn:aws:bedrock:us-east-1:1:custom-model/anthropic.claude-3-haiku-20240307-v1:0:1/a",
        ),
    ],
)
def test_what_nobody_knows_is_none(usage: Usage, provider: str | None, model: str | None) -> None:
    assert price(usage, provider, model) is None


@pytest.mark.parametrize(
    ("provider", "model"),
    [("google_genai", "gemma-3-27b-it"), ("openrouter", "deepseek/deepseek-r1:free")],
)
def test_what_is_given_away_costs_nothing(provider: str, model: str) -> None:
    assert price(used(), provider, model) == 0


def test_a_price_belongs_to_its_day() -> None:
    """o3 became cheaper on 2025-06-10."""
    before, after = (
        cost_of(used(), provider="openai", model="o3", at=datetime(2025, 6, day, tzinfo=UTC))
        for day in (9, 11)
    )
    assert before is not None and before.amount == Decimal("0.014")
    assert after is not None and after.amount == Decimal("0.0028")


def test_every_kind_of_cache_has_its_price() -> None:
    """3 dollars in, 0.30 read, 3.75 written for five minutes, 6 for an hour, 15 out."""
    usage = from_wire(
        "anthropic",
        {
            "input_tokens": MILLION,
            "cache_read_input_tokens": MILLION,
            "cache_creation_input_tokens": 2 * MILLION,
            "cache_creation": {
                "ephemeral_5m_input_tokens": MILLION,
                "ephemeral_1h_input_tokens": MILLION,
            },
            "output_tokens": MILLION,
        },
    )
    assert price(usage, "anthropic", "claude-3-7-sonnet-20250219") == Decimal("28.05")


def test_a_tier_begins_where_it_says() -> None:
    for prompt, dollars in ((200_000, "0.25"), (200_001, "0.5000025")):
        assert price(used(prompt, 0), "google_genai", "models/gemini-2.5-pro") == Decimal(dollars)


@pytest.mark.parametrize(
    "block",
    [
        {
            **{"promptTokenCount": 1500, "toolUsePromptTokenCount": 500},
            **{"cachedContentTokenCount": 500, "candidatesTokenCount": 0},
            "promptTokensDetails": [
                {"modality": "TEXT", "tokenCount": 1000},
                {"modality": "AUDIO", "tokenCount": 500},
            ],
            "toolUsePromptTokensDetails": [{"modality": "AUDIO", "tokenCount": 500}],
            "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 500}],
        },
        {
            **{"total_input_tokens": 1500, "total_tool_use_tokens": 500},
            **{"total_cached_tokens": 500, "total_output_tokens": 0},
            "input_tokens_by_modality": [
                {"modality": "text", "tokens": 1000},
                {"modality": "audio", "tokens": 500},
            ],
            "tool_use_tokens_by_modality": [{"modality": "audio", "tokens": 500}],
            "cached_tokens_by_modality": [{"modality": "audio", "tokens": 500}],
        },
    ],
    ids=["usageMetadata", "interaction"],
)
def test_audio_has_its_price(block: dict[str, Any]) -> None:
    """gemini-2.5-flash: 0.30 dollars for text, 1 dollar for audio, 0.10 for that from a cache.

    gemini-2.5-pro: 1.25 dollars for both, 0.125 from a cache.
    """
    usage = from_wire("google_genai", block)
    assert price(usage, "google_genai", "gemini-2.5-flash") == Decimal("0.00085")
    assert price(usage, "google_genai", "gemini-2.5-pro") == Decimal("0.0019375")


def test_terms_have_their_price_or_none() -> None:
    """The list has batch prices from 2026-10-14 on; before, the usual one would be false."""
    batch = from_wire(
        "anthropic", {"input_tokens": 1000, "output_tokens": 100, "service_tier": "batch"}
    )
    assert price(used(), "anthropic", "claude-sonnet-4-5") == Decimal("0.0045")
    assert price(batch, "anthropic", "claude-sonnet-4-5") is None
    later = datetime(2026, 11, 1, tzinfo=UTC)
    assert price(batch, "anthropic", "claude-sonnet-4-5", later) == Decimal("0.00225")
    for place, cost in (("us", None), ("global", "0.0045"), ("not_available", "0.0045")):
        there = from_wire(
            "anthropic", {"input_tokens": 1000, "output_tokens": 100, "inference_geo": place}
        )
        assert price(there, "anthropic", "claude-sonnet-4-5") == (cost and Decimal(cost))


CHAT = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
GEMINI = {"promptTokenCount": 1000, "candidatesTokenCount": 100}
INTERACTION = {"total_input_tokens": 1000, "total_output_tokens": 100, "total_tokens": 1100}
CONVERSE = {"inputTokens": 1000, "outputTokens": 100, "totalTokens": 1100}
NOVA = "us.amazon.nova-pro-v1:0"
ASKED = {"input_tokens": 1000, "output_tokens": 100}
LONG_WRITES = {
    "cached_tokens": 0,
    "cache_write_tokens": 900,
    "cache_write_tokens_details": {"ttl_12h_tokens": 900, "ttl_30m_tokens": 0},
}


@pytest.mark.parametrize(
    ("provider", "model", "plain", "dearer"),
    [
        # Gemini's thoughts, by OpenAI's protocol, are in the total alone.
        ("google_genai", "gemini-2.5-flash", CHAT, {**CHAT, "total_tokens": 1900}),
        ("xai", "grok-4", CHAT, {**CHAT, "num_sources_used": 7}),
        ("xai", "grok-4", CHAT, {**CHAT, "num_server_side_tools_used": 1}),
        (
            "xai",
            "grok-4",
            {**CHAT, "prompt_text_tokens": 1000},
            {**CHAT, "prompt_text_tokens": 1000, "server_side_tools_used": ["WEB_SEARCH"]},
        ),
        ("mistralai", "voxtral-small-latest", CHAT, {**CHAT, "prompt_audio_seconds": 120}),
        (
            "openai",
            "gpt-4o-audio-preview",
            CHAT,
            {**CHAT, "prompt_tokens_details": {"audio_tokens": 900}},
        ),
        (
            "openai",
            "gpt-5.6-sol",
            {**ASKED, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 900}},
            {**ASKED, "input_tokens_details": LONG_WRITES},
        ),
        (
            "mistralai",
            "mistral-large-latest",
            {"usage": CHAT},
            {"usage": {**CHAT, "service_tier": "flex"}},
        ),
        ("google_vertexai", "gemini-2.5-flash", GEMINI, {**GEMINI, "trafficType": 3}),
        (
            "google_genai",
            "gemini-2.5-flash",
            {"usage": INTERACTION, "service_tier": "standard"},
            {"usage": INTERACTION, "service_tier": "provisioned"},
        ),
        (
            "google_genai",
            "gemini-2.5-flash",
            [{"interaction": {"usage": INTERACTION, "service_tier": "standard"}}],
            [{"interaction": {"usage": INTERACTION, "service_tier": "provisioned"}}],
        ),
        (
            "google_genai",
            "gemini-2.5-flash",
            INTERACTION,
            {**INTERACTION, "grounding_tool_count": [{"type": "google_search", "count": 1}]},
        ),
        (
            "google_vertexai",
            "gemini-2.5-flash",
            {**GEMINI, "trafficType": "ON_DEMAND"},
            {**GEMINI, "trafficType": "PROVISIONED_THROUGHPUT"},
        ),
        (
            "anthropic",
            "claude-sonnet-4-5",
            {**ASKED, "service_tier": "standard"},
            {**ASKED, "service_tier": "priority"},
        ),
        (
            "anthropic",
            "claude-sonnet-4-5",
            {**ASKED, "fallback_credit": {"status": {"type": "not_applied"}}},
            {**ASKED, "fallback_credit": {"status": {"type": "redeemed"}}},
        ),
        (
            "bedrock_converse",
            NOVA,
            {"usage": CONVERSE, "serviceTier": {"type": "default"}},
            {"usage": CONVERSE, "serviceTier": {"type": "flex"}},
        ),
        (
            "bedrock_converse",
            NOVA,
            [{"metadata": {"usage": CONVERSE, "performanceConfig": {"latency": "standard"}}}],
            [{"metadata": {"usage": CONVERSE, "performanceConfig": {"latency": "optimized"}}}],
        ),
    ],
)
def test_what_is_billed_in_another_way_has_no_list_price(
    provider: str, model: str, plain: Any, dearer: Any
) -> None:
    later = datetime(2026, 11, 20, tzinfo=UTC)
    assert price(from_wire(provider, plain), provider, model, later)
    usage = from_wire(provider, dearer)
    assert (usage.prompt_tokens, usage.completion_tokens) == (1000, 100)
    assert not usage.malformed
    assert price(usage, provider, model, later) is None


@pytest.mark.parametrize("name", ["cached_tokens", "num_cached_tokens"])
def test_what_was_cached_costs_less_by_any_name(name: str) -> None:
    """mistral-small-latest: 0.15 dollars, 0.015 from the cache, and 0.60."""
    later = datetime(2026, 11, 20, tzinfo=UTC)
    usage = from_wire("mistralai", {**CHAT, name: 600})
    assert price(usage, "mistralai", "mistral-small-latest", later) == Decimal("0.000129")


def test_a_stream_that_broke_off_states_no_cost() -> None:
    """Perplexity says 0 in every chunk but the last."""
    begun = {"choices": [{"delta": {}}], "usage": {**CHAT, "cost": {"total_cost": 0}}}
    ended = {
        "choices": [{"finish_reason": "stop"}],
        "usage": {**CHAT, "cost": {"total_cost": 0.007}},
    }
    assert price(from_wire("perplexity", [begun]), "perplexity", "sonar-pro") is None
    whole = from_wire("perplexity", [begun, ended])
    assert price(whole, "perplexity", "sonar-pro") == Decimal("0.007")


REFUSED = {"stop_reason": "refusal"}


@pytest.mark.parametrize("output", [0, 100])
def test_what_was_refused_before_it_began_may_cost_nothing(output: int) -> None:
    """Anthropic bills what was written until then, and without that not every refusal."""
    block = {**ASKED, "output_tokens": output}
    message = AIMessage("", response_metadata={"model_provider": "anthropic", **REFUSED})
    message.usage_metadata = UsageMetadata(
        input_tokens=1000, output_tokens=output, total_tokens=1000 + output
    )
    stream = [
        {"type": "message_start", "message": {"usage": block}},
        {"type": "message_delta", "delta": REFUSED, "usage": block},
    ]
    for usage in (
        from_wire("anthropic", {"usage": block, **REFUSED}),
        from_wire("anthropic", stream),
        of_message(message),
    ):
        assert (usage.prompt_tokens, usage.completion_tokens) == (1000, output)
        assert (price(usage, "anthropic", "claude-sonnet-4-5") is None) == (output == 0)


@pytest.mark.parametrize("kind", ["fallback_message", "compaction"])
def test_the_refusal_before_a_fallback_may_cost_nothing(kind: str) -> None:
    """Before anything else, what wrote nothing has read its prompt, and costs that."""
    steps = [
        {"type": "message", "model": "claude-opus-4-1", **ASKED, "output_tokens": 0},
        {"type": kind, "model": "claude-sonnet-4-5", **ASKED},
    ]
    usage = from_wire("anthropic", {**ASKED, "iterations": steps})
    known = price(usage, "anthropic", "claude-sonnet-4-5") is not None
    assert known == (kind == "compaction")


@pytest.mark.parametrize("said", [{"serviceTier": {"type": "flex"}}, {}])
def test_a_tier_of_bedrock_beside_langchains_reading(said: dict[str, Any]) -> None:
    """langchain-aws takes the usage out of the response, and keeps the rest as metadata."""
    message = AIMessage("Rain.", response_metadata={"model_provider": "bedrock_converse", **said})
    message.usage_metadata = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}
    known = price(of_message(message), "bedrock_converse", NOVA) is not None
    assert known == (not said)


def test_speech_costs_more_than_text() -> None:
    """gemini-live-2.5-flash: 2 dollars for text, 12 for audio; gpt-realtime: 4, 16, 32 and 64."""
    usage = from_wire(
        "google_genai",
        {
            "promptTokenCount": 1000,
            "responseTokenCount": 1000,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 1000}],
            "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 1000}],
        },
    )
    assert price(usage, "google_genai", "gemini-live-2.5-flash-preview") == Decimal("0.0125")
    details = {"text_tokens": 1000, "audio_tokens": 1000}
    usage = from_wire(
        "openai",
        {
            "total_tokens": 4000,
            "input_tokens": 2000,
            "input_token_details": details,
            "output_tokens": 2000,
            "output_token_details": details,
        },
    )
    assert price(usage, "openai", "gpt-realtime") == Decimal("0.116")


def test_cohere_bills_other_units_than_tokens() -> None:
    usage = from_wire(
        "cohere",
        {
            "billed_units": {"input_tokens": 1000, "output_tokens": 100},
            "tokens": {"input_tokens": 9000, "output_tokens": 101},
        },
    )
    assert usage.prompt_tokens == 9000
    assert price(usage, "cohere", "command-r-plus") == price(used(), "cohere", "command-r-plus")


def test_a_call_that_was_billed_in_parts_costs_all_of_them() -> None:
    """Anthropic's counts are those of the answer; the summary before it was billed too."""
    steps = [
        {"type": "compaction", "input_tokens": 80_000, "output_tokens": 100},
        {"type": "message", "input_tokens": 200, "output_tokens": 20},
        {"type": "advisor_message", "model": "claude-opus-4-1", "input_tokens": 1000},
    ]
    block = {"input_tokens": 200, "output_tokens": 20, "iterations": steps[:2]}
    usage = from_wire("anthropic", block)
    assert (usage.prompt_tokens, usage.completion_tokens) == (200, 20)
    assert price(usage, "anthropic", "claude-3-7-sonnet-20250219") == Decimal("0.2424")

    steps[2]["output_tokens"] = 10
    usage = from_wire("anthropic", {**block, "iterations": steps})
    cost = cost_of(usage, provider="anthropic", model="claude-3-7-sonnet-20250219", at=AT)
    assert cost is not None and cost.amount == Decimal("0.2424") + Decimal("0.01575")
    assert [part["model"] for part in cost.details["parts"]][-1].startswith("claude-opus-4")

    del steps[2]["output_tokens"]
    usage = from_wire("anthropic", {**block, "iterations": steps})
    assert price(usage, "anthropic", "claude-3-7-sonnet-20250219") is None


def test_a_summary_that_no_answer_followed_is_paid_for() -> None:
    """The counts are those of the answer: zeros of Anthropic's own, not of a package."""
    summary = {"type": "compaction", "input_tokens": 80_000, "output_tokens": 100}
    block = {"input_tokens": 0, "output_tokens": 0, "iterations": [summary]}
    said = {"usage": block, "model_provider": "anthropic", "stop_reason": "compaction"}
    for usage in (
        from_wire("anthropic", {"type": "message", "usage": block}),
        of_message(AIMessage("", response_metadata=said)),
    ):
        assert (usage.prompt_tokens, usage.completion_tokens) == (0, 0)
        assert price(usage, "anthropic", "claude-3-7-sonnet-20250219") == Decimal("0.2415")


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("azure_openai", "gpt-4o"),
        ("azure", "gpt-4o"),
        ("amazon_bedrock", "us.anthropic.claude-sonnet-4-20250514-v1:0"),
        ("bedrock_converse", "us.anthropic.claude-sonnet-4-20250514-v1:0"),
        ("google_vertexai", "gemini-2.5-flash"),
        ("mistralai", "mistral-large-latest"),
        ("xai", "grok-4"),
        ("groq", "llama-3.3-70b-versatile"),
        ("deepseek", "deepseek-chat"),
        ("openrouter", "anthropic/claude-3.7-sonnet"),
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
        (None, "anthropic/claude-3-7-sonnet-20250219"),
        (None, "gemini/gemini-2.5-pro"),
        (None, "gpt-4o"),
    ],
)
def test_providers_by_the_names_that_langchain_gives_them(provider: str | None, model: str) -> None:
    assert price(used(), provider, model)


def test_claude_of_vertex_is_priced_by_google() -> None:
    vertex = provider_answering("anthropicvertex", "anthropic")
    cost = cost_of(used(), provider=vertex, model="claude-sonnet-4-5@20250929", at=AT)
    assert cost is not None and cost.details["provider"] == "google"


def test_the_trace_at_the_price_of_each_day() -> None:
    calls = corpus.priced_trace()
    if not calls:
        pytest.skip("the Aider trace is not beside the repository")
    differing = Counter(c.model for c in calls if c.computed is not None and not c.equal)
    assert differing == {model: count for model, (count, _) in corpus.TRACE_EXCEPTIONS.items()}
    equal = sum(call.equal for call in calls)
    unknown = sum(call.computed is None for call in calls)
    assert (equal, unknown, sum(differing.values())) == (1056, 415, 173)


def test_the_corpus_has_stated_costs_and_no_false_ones() -> None:
    """What OpenRouter and xAI stated, next to the list's: the same, or explained."""
    rows = corpus.rows("provider_responses.jsonl")
    if not rows:
        pytest.skip("the recorded answers are not beside the repository")
    stated = {row["id"]: corpus.wire_usage(row).cost for row in rows}
    known = {id_: cost for id_, cost in stated.items() if cost is not None}
    assert set(known) == {row["id"] for row in rows if "provider_reports_cost" in row["anomalies"]}
    assert known["u0611"] == Decimal("0.00010435")
