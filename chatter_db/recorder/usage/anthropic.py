"""Anthropic's messages.

`input_tokens` counts what was neither read from nor written to the cache; the
prompt is the sum of the three, and a part that is left out was not used.

- Usage: https://docs.claude.com/en/api/messages
- Streams: message_start has the input's counts, message_delta cumulative ones:
  https://docs.claude.com/en/docs/build-with-claude/streaming
- Cache writes for 5 minutes and for 1 hour:
  https://docs.claude.com/en/docs/build-with-claude/prompt-caching
- Refusals, which are not billed everywhere if nothing was written before:
  https://platform.claude.com/docs/en/build-with-claude/refusals-and-fallback
- Compaction, which is billed but not in the counts:
  https://docs.claude.com/en/docs/build-with-claude/compaction
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from chatter_db.recorder.usage.counts import Reader, Usage, added, as_count, merged, total_of

NAMES = frozenset({"cache_creation_input_tokens", "cache_read_input_tokens", "cache_creation"})
"""Names that no other family's usage has."""

_REFUSAL = {"stop_reason": "refusal"}
_PROMPT = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def messages(block: Reader) -> Usage:
    """`usage` of a message, or of a whole stream of one."""
    usage = _counts(block)
    steps = [(entry.text("type"), entry) for entry in block.entries("iterations")]
    searches = block.inside("server_tool_use").count("web_search_requests")
    terms = {}
    tier = block.text("service_tier")
    if tier == "batch":
        terms["processing"] = "batch"
    elif tier == "priority":
        # Paid for by the month: https://platform.claude.com/docs/en/api/service-tiers
        terms["service_tier"] = tier
    if block.inside("fallback_credit").inside("status").text("type") == "redeemed":
        # Billed as if another model had been asked before.
        terms["fallback_credit"] = "redeemed"
    if block.text("speed") == "fast":
        terms["speed"] = "fast"
    # A call that had to stay in one place costs a tenth more, since Claude Opus 4.6:
    # https://platform.claude.com/docs/en/about-claude/pricing#data-residency-pricing
    place = block.text("inference_geo")
    if place not in (None, "global", "not_available"):
        terms["inference_geo"] = place
    kinds = {"web_searches": searches} if searches else {}
    parts: tuple[Usage, ...] = ()
    if any(kind not in (None, "message") for kind, _ in steps):
        # The counts are those of the answer; summaries of a long context and advice
        # of another model were billed as well.
        parts = tuple(
            replace(_counts(entry), model=entry.text("model"), terms=terms) for _, entry in steps
        )
        if any(kind == "fallback_message" for kind, _ in steps):
            parts = tuple(refused(part, _REFUSAL) for part in parts)
        parts = (replace(parts[0], kinds=kinds), *parts[1:])
    return replace(usage, kinds=kinds, terms=terms, parts=parts)


def refused(usage: Usage, said: Mapping[str, Any]) -> Usage:
    """`usage`, marked if what was `said` beside it is that nothing was written: a refusal."""
    if usage.completion_tokens != 0 or said.get("stop_reason") != "refusal":
        return usage
    return replace(usage, terms={**usage.terms, "refused": "before any output"})


def cut_off(usage: Usage) -> Usage:
    """`usage` of a stream that did not come to its end, as far as it can be trusted.

    Moonshot and QwenCloud, by this protocol, tell of the cache in the last event only:
    https://github.com/maximhq/bifrost/pull/5355
    """
    return replace(
        usage,
        cache_read_tokens=usage.cache_read_tokens or None,
        cache_write_tokens=usage.cache_write_tokens or None,
    )


def of_stream(events: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The usage block of a stream: message_start's, overtaken by message_delta's.

    message_start counts an output that has only begun. If nothing came after it
    the output is not known, nor what tools of Anthropic's own made the model read
    once more: https://platform.claude.com/docs/en/agents-and-tools/tool-use/server-tools
    """
    start = next((e["message"] for e in events if isinstance(e.get("message"), Mapping)), None)
    first = start.get("usage") if start is not None else None
    blocks = [e["usage"] for e in events if isinstance(e.get("usage"), Mapping)]
    if isinstance(first, Mapping):
        unknown = {"output_tokens"}
        if not blocks and any(map(_runs_a_tool, events)):
            unknown.update(_PROMPT, ("cache_creation",))
        blocks.insert(0, {key: value for key, value in first.items() if key not in unknown})
    return merged(map(_without_placeholders, blocks)) if blocks else None


def _runs_a_tool(event: Mapping[str, Any]) -> bool:
    block = event.get("content_block")
    return isinstance(block, Mapping) and block.get("type") == "server_tool_use"


def _without_placeholders(block: Mapping[str, Any]) -> dict[str, Any]:
    """What an event says. Gateways put zeros where they know no prompt yet, or no more of it:
    https://github.com/sgl-project/sglang/issues/20678
    """
    names = _PROMPT if not any(as_count(block.get(name)) for name in _PROMPT) else ()
    return {key: value for key, value in block.items() if key not in names or value != 0}


def _counts(block: Reader) -> Usage:
    lifetimes = block.inside("cache_creation")
    hour = lifetimes.addend("ephemeral_1h_input_tokens")
    read = block.addend("cache_read_input_tokens")
    written = block.addend("cache_creation_input_tokens")
    if not written and "cache_creation" in block:
        # Where the split is given the plain count may be 0, as in LangChain's reading.
        written = added(lifetimes.addend("ephemeral_5m_input_tokens"), hour)
    uncached, completion = block.count("input_tokens"), block.count("output_tokens")
    prompt, cached = added(uncached, read, written), added(read, written)
    stated = block.count("total_tokens")
    if stated is not None and cached and added(uncached, completion) == stated:
        # Not Anthropic's, who states no total. If this one leaves the cache out or has it in
        # the input only shows where the cache is more than that.
        prompt = prompt if cached > (uncached or 0) else None
    known = prompt is not None
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total_of(stated, prompt, completion),
        cache_read_tokens=read if known or "cache_read_input_tokens" in block else None,
        cache_write_tokens=written if known or "cache_creation_input_tokens" in block else None,
        cache_write_1h_tokens=hour or None,
        reasoning_tokens=block.inside("output_tokens_details").count("thinking_tokens"),
    )
