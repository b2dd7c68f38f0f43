"""The usage that an unmodified LangChain model leaves on its message.

The provider's own block, where the package keeps it, is read like the wire.
Else there is only LangChain's reading, `usage_metadata`, with its habits:

- what was not reported became 0 (langchain-anthropic reads the last event of a
  stream only, and then has no prompt);
- OpenAI's flex and priority tiers rename the details (`flex_cache_read`);
- Anthropic's cache writes are 0 where they are split by lifetime;
- langchain-openai adds up the usage of all chunks, and servers repeat theirs;
- langchain-aws, langchain-ibm, langchain-litellm and more make a block of zeros
  where there was none, and langchain-cohere one of what is billed of a stream;
- databricks-langchain keeps three counts of the block, and langchain-snowflake
  has the cache's counts beside the others instead of below them.

https://docs.langchain.com/oss/python/langchain/messages#token-usage
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.outputs import ChatGeneration, LLMResult
from pydantic import BaseModel

from chatter_db.recorder.usage import anthropic, bedrock, ollama, server_tools
from chatter_db.recorder.usage.counts import (
    Reader,
    Usage,
    added,
    as_count,
    merged,
    plain,
    total_of,
)
from chatter_db.recorder.usage.openai import (
    stated_cost,
    with_cache,
    with_precached,
    with_reasoning,
)
from chatter_db.recorder.usage.wire import from_wire, is_anthropic

# All that databricks-langchain keeps of a block; servers that know no details say no more.
_THREE_COUNTS = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})

_BLOCKS = ("token_usage", "usage", "usage_metadata", "token_count")
_TIERS = ("flex", "priority")
_FINISHED = ("finish_reason", "stop_reason", "done_reason", "prompt_feedback", "status")

# They count what each chunk adds; everybody else passes on what the server repeats.
_GOOGLES = frozenset({"google_genai", "google-genai", "google_vertexai", "vertexai"})
_COUNT_DIFFERENCES = _GOOGLES | {"perplexity"}
# By its class, GigaChat, LangChain names the first.
_GIGACHAT = frozenset({"giga", "gigachat"})
# langchain-aws says 0 of a cache that the older models it invokes say nothing of.
_CACHE_ZEROS_INVENTED = frozenset({"bedrock", "amazon_bedrock", "anthropic_bedrock"})


def of_result(
    result: LLMResult, chunks: Sequence[AIMessageChunk] = (), *, provider: str | None = None
) -> Usage:
    """The usage of a finished call, which came in `chunks` if it was streamed.

    `provider` is who was asked, in case the message doesn't say who answered. Chat
    models state usage on their message; older completion models only in the
    result's `llm_output`, or on the generation.
    """
    if _repeated(chunks, provider):
        return of_chunks(chunks, provider=provider)
    generation = result.generations[0][0] if result.generations and result.generations[0] else None
    usage = Usage()
    if isinstance(generation, ChatGeneration) and isinstance(generation.message, AIMessage):
        usage = of_message(generation.message, chunks, provider=provider)
    for said in (result.llm_output, generation.generation_info if generation else None):
        if usage.status == "unknown" and said:
            found = _stated(said, provider)
            usage = found if found.status == "reported" or usage.raw is None else usage
    return usage


def of_chunks(chunks: Sequence[AIMessageChunk], *, provider: str | None = None) -> Usage:
    """The usage of a stream as far as it came.

    Usage that the server repeats is cumulative: the last one counts.
    """
    said = merged(chunk.response_metadata for chunk in chunks)
    usage: UsageMetadata | None = None
    repeated = _repeated(chunks, provider)
    for chunk in chunks:
        if chunk.usage_metadata:
            if repeated:
                usage = _overtaken(usage, chunk.usage_metadata)
            else:
                usage = add_usage(usage, chunk.usage_metadata)
    read = _of(usage, said, provider, spoke=any(map(_spoke, chunks)))
    return _with_server_tools(read, chunks, _provider(said, provider))


def of_message(
    message: AIMessage, chunks: Sequence[AIMessageChunk] = (), *, provider: str | None = None
) -> Usage:
    """The usage that `message` carries, which came in `chunks`; all None if it carries none."""
    # Never ask hasattr: the attribute is always there, and None says nothing was reported.
    spoke, said = _spoke(message), said_of(message, chunks)
    read = _of(message.usage_metadata, said, provider, spoke=spoke)
    return _with_server_tools(read, [message], _provider(said, provider))


def said_of(message: AIMessage, chunks: Sequence[AIMessageChunk] = ()) -> dict[str, Any]:
    """What was said beside the answer `message`, which came in `chunks` if it was streamed.

    LangChain adds up the chunks' texts: a server that says twice that it stopped has the model
    `gpt-4ogpt-4o`, and a service tier that nobody has.
    """
    return message.response_metadata | merged(chunk.response_metadata for chunk in chunks)


def _with_server_tools(usage: Usage, messages: Sequence[AIMessage], provider: str | None) -> Usage:
    if is_anthropic(provider):
        said = merged(message.response_metadata for message in messages)
        usage = anthropic.refused(usage, said)
        if "server_tool_use" in (usage.raw or {}):
            return usage
        return replace(usage, kinds={**server_tools.of_anthropic(messages), **usage.kinds})
    if provider in _GOOGLES and "output_image_tokens" not in usage.kinds:
        # What is a picture of the answer's tokens costs more, and its package doesn't say.
        drawn = server_tools.drawn(messages)
        usage = replace(usage, kinds={**usage.kinds, **drawn})
    used = server_tools.of_messages(messages)
    return replace(usage, kinds={**usage.kinds, **used}) if used else usage


def _of(metadata: object, said: Mapping[str, Any], asked: str | None, *, spoke: bool) -> Usage:
    provider = _provider(said, asked)
    stated = _stated(said, provider)
    if not isinstance(metadata, Mapping):
        return stated
    if stated.status == "reported" or stated.parts:
        bare = stated.raw is not None and stated.raw.keys() <= _THREE_COUNTS
        return _with_details(stated, metadata, provider) if bare else stated
    usage = _read(metadata, provider)
    told = stated.raw is None and any(said.get(n) for n in _FINISHED)
    if usage.completion_tokens == 0 and (spoke or not told):
        # It wrote something, or was cut off: 0 is what LangChain says for a missing count.
        reasoning = usage.reasoning_tokens or None
        usage = replace(
            usage, completion_tokens=None, total_tokens=None, reasoning_tokens=reasoning
        )
    return replace(
        usage,
        raw=stated.raw or plain(metadata),
        terms=_tier(said, provider) | dict(usage.terms),
        cost=stated.cost,
        notes=(*stated.notes, *usage.notes),
    )


def _with_details(stated: Usage, metadata: Mapping[str, Any], provider: str | None) -> Usage:
    """`stated` with the cache and the reasoning that only LangChain's reading of it has.

    The cache may stand beside the block's prompt; it is part of LangChain's.
    """
    read = _read(metadata, provider)
    cache = (read.cache_read_tokens or 0) + (read.cache_write_tokens or 0)
    prompt, completion = read.prompt_tokens or 0, read.completion_tokens or 0
    beside = prompt - (stated.prompt_tokens or 0)
    if (
        completion != stated.completion_tokens
        or beside not in (0, cache)
        or cache > prompt
        or not (cache or read.reasoning_tokens)
    ):
        # Not the same call's: sums over chunks, or what the package makes up.
        return stated
    # LangChain's is kept, because a later price is computed by it.
    return replace(
        read,
        total_tokens=max(read.total_tokens or 0, prompt + completion),
        raw=plain(metadata),
        terms=stated.terms,
        cost=stated.cost,
    )


def _stated(said: Mapping[str, Any], provider: str | None) -> Usage:
    """What the provider's own block says, where `said` (a response's metadata) has one."""
    usage = Usage()
    name = next((name for name in _BLOCKS if said.get(name)), None)
    if name is not None:
        usage = _of_block(name, said[name], provider)
    elif any(name in said for name in ollama.NAMES):
        usage = from_wire(provider, said)
    if usage.raw is not None:
        usage = replace(usage, terms=_tier(said, provider) | dict(usage.terms))
    if usage.cost is None and provider == "openrouter":
        # langchain-openrouter keeps it beside the tokens.
        usage = replace(usage, cost=stated_cost(Reader(said)))
    return usage


def _of_block(name: str, block: object, provider: str | None) -> Usage:
    """What a block under `name` says, without what the package makes up of it."""
    if isinstance(block, BaseModel):
        block = block.model_dump()  # LiteLLM's package leaves its client's object.
    counts = block if isinstance(block, Mapping) else {}
    if name == "token_count" and "total_tokens" in counts:
        # With a sum it is langchain-cohere's of a stream: what is billed, not what the model saw.
        block = {"billed_units": block}
    usage = from_wire(provider, {"usage": block})
    billed = any(part.prompt_tokens for part in usage.parts)
    if usage.prompt_tokens == 0 and not usage.completion_tokens and not billed:
        # No prompt is empty: packages put zeros where they were told nothing.
        return Usage(raw=usage.raw, cost=usage.cost or None, notes=usage.notes)
    return usage


def _tier(said: Mapping[str, Any], provider: str | None) -> dict[str, str]:
    """OpenAI's service tier, and Bedrock's. Anthropic's is part of its usage."""
    tier = said.get("service_tier")
    if not isinstance(tier, str) or not tier or is_anthropic(provider):
        return bedrock.terms(said)
    return {"service_tier": tier}


def _provider(said: Mapping[str, Any], asked: str | None) -> str | None:
    answered = said.get("model_provider")
    return answered if isinstance(answered, str) and answered else asked


def _read(metadata: Mapping[str, Any], provider: str | None) -> Usage:
    """LangChain's UsageMetadata, without what it makes up."""
    block = Reader(metadata)
    inputs, outputs = block.inside("input_token_details"), block.inside("output_token_details")
    # No prompt is empty: 0 is what LangChain says for a missing count.
    prompt = block.count("input_tokens") or None
    reasoning = _detail(outputs, "reasoning")
    total = block.count("total_tokens") or None
    # LangChain's own sum tells nothing if a part of it is missing.
    total = total if prompt is not None else None
    completion = with_reasoning(
        prompt, block.count("output_tokens"), reasoning, total, xai=provider == "xai"
    )
    read, written = _detail(inputs, "cache_read"), _cache_writes(inputs)
    if read is None and written is None:
        read = block.count("cache_read_input_tokens")
        written = block.count("cache_write_input_tokens")
        prompt = with_cache(prompt, completion, read, written, total)
        if (added(read, written) or 0) > (prompt or 0):
            read = written = None
    if provider in _GIGACHAT:
        prompt = with_precached(prompt, completion, read, total)
    if provider in _CACHE_ZEROS_INVENTED:
        read, written = read or None, written or None
    elif is_anthropic(provider):
        # Beside the input and added to it: known as soon as the input is, and 0 if left out.
        read, written = (read or 0, written or 0) if prompt is not None else (None, None)
    if prompt is None:
        # No part of it was said either.
        read, written = read or None, written or None
    if provider in _GOOGLES and prompt is not None and completion is not None:
        # Older packages leave out the prompts of its tools; what is in the total was billed.
        prompt = max(prompt, (total or 0) - completion)
    if provider in _COUNT_DIFFERENCES and completion is not None:
        # Protobuf leaves zeros out, and langchain-google-genai with it.
        reasoning = reasoning or 0
    tiers = {tier for tier in _TIERS for details in (inputs, outputs) if tier in details}
    kinds = {
        "input_audio_tokens": inputs.count("audio"),
        "output_audio_tokens": outputs.count("audio"),
    }
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total_of(total, prompt, completion),
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=inputs.count("ephemeral_1h_input_tokens") or None,
        reasoning_tokens=reasoning,
        kinds={kind: count for kind, count in kinds.items() if count},
        terms={"service_tier": tiers.pop()} if len(tiers) == 1 else {},
        notes=tuple(block.notes),
    )


def _detail(details: Reader, name: str) -> int | None:
    return details.count(name, *(f"{tier}_{name}" for tier in _TIERS))


def _cache_writes(inputs: Reader) -> int | None:
    """All cache writes: where they are split by lifetime the plain count is 0, or their sum."""
    whole = _detail(inputs, "cache_creation")
    split = [
        count
        for name in ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
        if (count := inputs.count(name)) is not None
    ]
    if whole or not split:
        return whole
    return added(*split)


def _repeated(chunks: Sequence[AIMessageChunk], asked: str | None) -> bool:
    """Whether `chunks` repeat a growing usage: a prompt is read once, so it is stated once."""
    stated = 0
    for chunk in chunks:
        provider = _provider(chunk.response_metadata, asked)
        if provider in _COUNT_DIFFERENCES:
            return False
        metadata = chunk.usage_metadata
        # All of Anthropic's counts are cumulative, also where the prompt's are left out.
        if metadata and (is_anthropic(provider) or as_count(metadata.get("input_tokens"))):
            stated += 1
    return stated > 1


def _overtaken(before: UsageMetadata | None, now: UsageMetadata) -> UsageMetadata:
    """`now`, with the prompt that was stated `before` where it leaves that out.

    langchain-aws and langchain-google-vertexai state Claude's prompt when it begins, and 0 of it
    when it ends.
    """
    if before is None or as_count(now.get("input_tokens")):
        return now
    prompt = as_count(before.get("input_tokens")) or 0
    completion = as_count(now.get("output_tokens")) or as_count(before.get("output_tokens")) or 0
    return before | {
        "output_tokens": completion,
        "total_tokens": prompt + completion,
        "output_token_details": now.get("output_token_details", {}),
    }


def _spoke(message: AIMessage) -> bool:
    """Whether there is an answer in `message`: text, reasoning or a tool call."""
    calls = message.tool_calls or message.invalid_tool_calls
    chunks = message.tool_call_chunks if isinstance(message, AIMessageChunk) else ()
    return bool(message.content or calls or chunks)
