"""OpenAI's two protocols, and the many who speak them.

Cached tokens are part of the prompt's count and reasoning is part of the
completion's, so that a detail that is missing is not known.

- Chat completions: https://platform.openai.com/docs/api-reference/chat/object
- Responses: https://platform.openai.com/docs/api-reference/responses/object
- Realtime, which says `token_details`: https://platform.openai.com/docs/guides/realtime-costs
- Azure: https://learn.microsoft.com/azure/ai-services/openai/reference
- DeepSeek, with cache hits and misses: https://api-docs.deepseek.com/guides/kv_cache
- GigaChat, which leaves the cache out of its counts:
  https://developers.sber.ru/docs/ru/gigachat/guides/counting-tokens
- Groq: https://console.groq.com/docs/prompt-caching
- LiteLLM's proxy, with cache writes: https://docs.litellm.ai/docs/completion/prompt_caching
- Mistral: https://docs.mistral.ai/api/
- OpenRouter, with what it charges: https://openrouter.ai/docs/use-cases/usage-accounting
- Perplexity, likewise: https://docs.perplexity.ai/api-reference
- Qwen, with cache writes: https://www.alibabacloud.com/help/en/model-studio/context-cache
- DashScope, which has responses' names and chat's details:
  https://www.alibabacloud.com/help/en/model-studio/qwen-api-via-dashscope
- xAI: https://docs.x.ai/docs/api-reference, and its gRPC messages: https://github.com/xai-org/xai-proto
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from chatter_db.recorder.usage.counts import (
    BILLED_BESIDE,
    LONG_WRITES,
    Reader,
    Usage,
    added,
    as_count,
    total_of,
)

XAI_PROTO = frozenset({"prompt_text_tokens", "cached_prompt_text_tokens", "prompt_image_tokens"})
"""Names that only xAI's own messages have."""

_CREATED = "cache_creation_input_tokens"
# By OpenRouter and OpenAI, LiteLLM's proxy, New API, and Qwen and Perplexity.
_WRITTEN = ("cache_write_tokens", "cache_creation_tokens", "cached_creation_tokens", _CREATED)

# "1 USD = 10,000,000,000 ticks": https://docs.x.ai/docs/key-information/billing
_TICKS = 10**10


def chat(block: Reader, *, xai: bool = False) -> Usage:
    """`usage` of a chat completion, or of a completion of the old kind."""
    if any(name in block for name in XAI_PROTO):
        return _xai_proto(block)
    prompt = block.count("prompt_tokens")
    completion = block.count("completion_tokens")
    inputs = block.inside("prompt_tokens_details", "prompt_token_details")
    outputs = block.inside("completion_tokens_details", "completion_token_details")
    precached = block.count("precached_prompt_tokens")
    # DeepSeek says it beside the details, and said it before it had any. Moonshot has
    # OpenAI's name there and Mistral one of its own, and others say 0 whether they cache
    # or not.
    read = _first(
        inputs.count("cached_tokens"),
        block.count("prompt_cache_hit_tokens"),
        block.count("cached_tokens") or None,
        block.count("num_cached_tokens") or None,
        block.count("cache_read_input_tokens") or None,
        precached,
    )
    # LiteLLM had it beside the details before, as langchain-aws has.
    written = _first(
        inputs.count(*_WRITTEN),
        block.count(_CREATED),
        block.count("cache_write_input_tokens") or None,
    )
    reasoning = outputs.count("reasoning_tokens")
    stated = block.count("total_tokens")
    prompt = with_precached(prompt, completion, precached, stated)
    if completion == 0:
        # Else what the total has more would be taken for thoughts.
        prompt = with_cache(prompt, completion, read, written, stated)
    if reasoning is None and "reasoning_tokens" in block:
        # Beside the counts instead of below them. Only if the total shows that it is
        # not in the completion is it clear what it counts.
        beside = block.count("reasoning_tokens")
        if with_reasoning(prompt, completion, beside, stated, xai=xai) != completion:
            reasoning = beside
    completion = with_reasoning(prompt, completion, reasoning, stated, xai=xai)
    prompt = with_cache(prompt, completion, read, written, stated)
    # Qwen's, LiteLLM's and Helicone's.
    lifetimes = inputs.inside(
        "cache_creation", "cache_creation_token_details", "cache_write_details"
    )
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total_of(stated, prompt, completion),
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=lifetimes.count("ephemeral_1h_input_tokens", "write_1h_tokens")
        or None,
        reasoning_tokens=reasoning,
        kinds=_kinds(block, inputs, outputs),
        cost=stated_cost(block),
    )


def responses(block: Reader) -> Usage:
    """`usage` of a response. xAI counts as OpenAI does here."""
    prompt = block.count("input_tokens")
    inputs = block.inside("input_tokens_details", "input_token_details")
    outputs = block.inside("output_tokens_details", "output_token_details")
    chats = block.inside("prompt_tokens_details")
    reasoning = outputs.count("reasoning_tokens")
    stated = block.count("total_tokens")
    completion = with_reasoning(prompt, block.count("output_tokens"), reasoning, stated, xai=False)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total_of(stated, prompt, completion),
        # Perplexity has Anthropic's names.
        cache_read_tokens=_first(
            inputs.count("cached_tokens", "cache_read_input_tokens"),
            chats.count("cached_tokens"),
        ),
        cache_write_tokens=_first(inputs.count(*_WRITTEN), chats.count(*_WRITTEN)),
        reasoning_tokens=reasoning,
        kinds=_kinds(block, inputs, outputs),
        cost=stated_cost(block),
    )


def with_reasoning(
    prompt: int | None,
    completion: int | None,
    reasoning: int | None,
    total: int | None,
    *,
    xai: bool,
) -> int | None:
    """The completion's count with reasoning in it.

    OpenAI counts reasoning as part of the completion, xAI beside it, and others
    copy one or the other. The total that came along tells which; without one
    the provider's name must do. A count of 0 that the total knows more of is none:
    Gemini, by OpenAI's protocol, thought until it was cut off.
    """
    if completion is None:
        return None
    beside = added(completion, reasoning or 0)
    if total is None or prompt is None:
        return beside if xai else completion
    if added(prompt, beside) == total:
        return beside
    return None if completion == 0 and total > prompt else completion


def with_cache(
    prompt: int | None,
    completion: int | None,
    read: int | None,
    written: int | None,
    total: int | None,
) -> int | None:
    """The prompt's count with what was read from and written to a cache in it.

    It is part of the prompt, unless the total shows that it stands beside it.
    """
    if total is None or not (read or written):
        return prompt
    beside = added(prompt, read or 0, written or 0)
    return beside if added(beside, completion) == total else prompt


def with_precached(
    prompt: int | None, completion: int | None, read: int | None, total: int | None
) -> int | None:
    """The prompt's count with GigaChat's cache in it, which is not billed and so not counted.

    Unless the total shows that it was taken out there only.
    """
    if read is None or (total is not None and added(total, read) == added(prompt, completion)):
        return prompt
    return added(prompt, read)


def _xai_proto(block: Reader) -> Usage:
    """SamplingUsage of xAI's gRPC: protobuf leaves zeros out, reasoning stands beside."""
    prompt = block.addend("prompt_tokens")
    reasoning = block.addend("reasoning_tokens")
    completion = added(block.addend("completion_tokens"), reasoning)
    named = block.value("server_side_tools_used")
    tools = named if isinstance(named, Sequence) and not isinstance(named, str) else ()
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total_of(block.count("total_tokens"), prompt, completion),
        cache_read_tokens=block.addend("cached_prompt_text_tokens"),
        reasoning_tokens=reasoning,
        kinds=_beside(block) | ({"num_server_side_tools_used": len(tools)} if tools else {}),
        cost=stated_cost(block),
    )


def stated_cost(block: Reader) -> Decimal | None:
    """What the provider says that it charged, in US dollars."""
    if "cost_in_usd_ticks" in block:
        ticks = block.money("cost_in_usd_ticks", per_dollar=_TICKS)
        return None if ticks is None else ticks / _TICKS
    if isinstance(block.value("cost"), Mapping):
        return block.inside("cost").money("total_cost")
    cost, own_key = block.money("cost"), block.value("is_byok")
    upstream = block.inside("cost_details").money("upstream_inference_cost")
    if own_key is True:
        # With the customer's own key `cost` is OpenRouter's fee; the provider's bill comes on top.
        return None if cost is None or upstream is None else cost + upstream
    if own_key is None and upstream is not None and cost is not None and 2 * cost < upstream:
        # langchain-openrouter leaves out whose key it was; a small part of the provider's bill is
        # a fee (https://openrouter.ai/docs/use-cases/byok: 5 %).
        return None
    return cost


def _kinds(block: Reader, inputs: Reader, outputs: Reader) -> dict[str, int]:
    cached = inputs.inside("cached_tokens_details")
    written = inputs.inside("cache_write_tokens_details")
    counts = {
        "input_audio_tokens": inputs.count("audio_tokens"),
        "input_image_tokens": inputs.count("image_tokens"),
        "input_video_tokens": inputs.count("video_tokens"),
        "cache_audio_read_tokens": cached.count("audio_tokens"),
        "cache_image_read_tokens": cached.count("image_tokens"),
        "output_audio_tokens": outputs.count("audio_tokens"),
        "output_image_tokens": outputs.count("image_tokens"),
        LONG_WRITES: written.count(LONG_WRITES),
    }
    return {kind: count for kind, count in counts.items() if count} | _beside(block)


def _beside(block: Reader) -> dict[str, int]:
    # Not counts of tokens: where there is none of them there may be anything.
    counts = {kind: as_count(block.value(kind)) for kind in BILLED_BESIDE}
    return {kind: count for kind, count in counts.items() if count}


def _first(*counts: int | None) -> int | None:
    return next((count for count in counts if count is not None), None)
