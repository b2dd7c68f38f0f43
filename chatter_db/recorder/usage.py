"""What a model call used, read from the message that LangChain made of the answer.

Counts follow LangChain's `UsageMetadata`: input includes cached tokens, output
includes reasoning. What was not reported stays None.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from chatter_db.models import UsageStatus

MAX_TOKENS = 1_000_000_000
"""The limit of the token columns of chatter.messages."""


@dataclass(frozen=True)
class Usage:
    """Tokens of one call, and the usage block they were read from."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    raw: dict[str, Any] | None = None

    @property
    def status(self) -> UsageStatus:
        known = self.prompt_tokens is not None or self.completion_tokens is not None
        return "reported" if known else "unknown"


def of_result(result: LLMResult) -> Usage:
    """The usage of a finished call.

    Chat models state it on their message; older completion models only in the
    result's `llm_output`.
    """
    generation = result.generations[0][0] if result.generations and result.generations[0] else None
    if isinstance(generation, ChatGeneration) and isinstance(generation.message, AIMessage):
        usage = of_message(generation.message)
        if usage.status == "reported":
            return usage
    output = result.llm_output or {}
    block = output.get("token_usage") or output.get("usage")
    if not isinstance(block, Mapping):
        return Usage()
    return Usage(
        prompt_tokens=_count(block.get("prompt_tokens")),
        completion_tokens=_count(block.get("completion_tokens")),
        total_tokens=_count(block.get("total_tokens")),
        raw=dict(block),
    )


def of_message(message: AIMessage) -> Usage:
    """The usage that `message` carries; all None if it carries none."""
    # Never ask hasattr: the attribute is always there, and None says nothing was reported.
    metadata: Mapping[str, Any] | None = message.usage_metadata
    raw = raw_block(message)
    if metadata is None:
        return Usage(raw=raw)
    inputs: Mapping[str, Any] = metadata.get("input_token_details") or {}
    outputs: Mapping[str, Any] = metadata.get("output_token_details") or {}
    return Usage(
        prompt_tokens=_count(metadata.get("input_tokens")),
        completion_tokens=_count(metadata.get("output_tokens")),
        total_tokens=_count(metadata.get("total_tokens")),
        cache_read_tokens=_count(inputs.get("cache_read")),
        cache_write_tokens=_cache_writes(inputs),
        reasoning_tokens=_count(outputs.get("reasoning")),
        raw=raw or dict(metadata),
    )


def raw_block(message: AIMessage) -> dict[str, Any] | None:
    """The provider's own usage block, where LangChain keeps it."""
    for key in ("token_usage", "usage", "usage_metadata"):
        block = message.response_metadata.get(key)
        if isinstance(block, Mapping) and block:
            return dict(block)
    return None


def _cache_writes(details: Mapping[str, Any]) -> int | None:
    """All cache writes: Anthropic's are split by lifetime, and the plain count is then 0."""
    counts = [
        _count(details.get(key))
        for key in ("cache_creation", "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
    ]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _count(value: object) -> int | None:
    """`value` as a number of tokens, None if it can't be one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not isfinite(value) or value < 0 or value > MAX_TOKENS:
        return None
    return int(value)
