"""Amazon Bedrock: Converse, and models that are invoked in their makers' own shapes.

- Converse, where the cache's counts stand beside the input's:
  https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html
- The metrics at the end of an invoked stream, whatever the model:
  https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html
- Titan: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-text.html
- Llama: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-meta.html
"""

from collections.abc import Mapping
from typing import Any

from chatter_db.recorder.usage.counts import Reader, Usage, added, total_of

METRICS = "amazon-bedrock-invocationMetrics"


def converse(block: Reader) -> Usage:
    """`usage` of Converse; a cache that is not mentioned was not used."""
    read = block.addend("cacheReadInputTokens", "cacheReadInputTokenCount")
    written = block.addend("cacheWriteInputTokens", "cacheWriteInputTokenCount")
    prompt = added(block.count("inputTokens"), read, written)
    completion = block.count("outputTokens")
    hour = sum(
        entry.count("inputTokens") or 0
        for entry in block.entries("cacheDetails")
        if entry.text("ttl") == "1h"
    )
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total_of(block.count("totalTokens"), prompt, completion),
        cache_read_tokens=read if prompt is not None else None,
        cache_write_tokens=written if prompt is not None else None,
        cache_write_1h_tokens=hour or None,
    )


def terms(said: Mapping[str, Any]) -> dict[str, str]:
    """What changes the price of a call of Converse, where that stands beside its usage."""
    places = (("service_tier", "serviceTier", "type"), ("latency", "performanceConfig", "latency"))
    return {
        name: term
        for name, place, key in places
        if place in said and (term := Reader(said[place]).text(key))
    }


def invocation(block: Reader) -> Usage:
    """The metrics of an invoked stream. Older models' say nothing of a cache."""
    prompt = added(
        block.count("inputTokenCount"),
        block.addend("cacheReadInputTokenCount"),
        block.addend("cacheWriteInputTokenCount"),
    )
    completion = block.count("outputTokenCount")
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=added(prompt, completion),
        cache_read_tokens=block.count("cacheReadInputTokenCount"),
        cache_write_tokens=block.count("cacheWriteInputTokenCount"),
    )


def titan(body: Reader) -> Usage:
    """A body of Titan: the output's count is on each result, in a stream on the event."""
    prompt = body.count("inputTextTokenCount")
    results = [entry.count("tokenCount") for entry in body.entries("results")]
    completion = added(*results) if results else body.count("totalOutputTextTokenCount")
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=added(prompt, completion),
    )


def llama(body: Reader) -> Usage:
    """A body of Llama: counts beside the text; a stream's first event has the prompt's."""
    prompt = body.count("prompt_token_count")
    completion = body.count("generation_token_count")
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=added(prompt, completion),
    )
