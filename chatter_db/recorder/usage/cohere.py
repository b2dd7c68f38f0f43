"""Cohere's chat: `tokens` are what the model saw and wrote, `billed_units` what it charges.

The two differ, because Cohere's own preamble is not charged: the first are
booked, the second priced.

- https://docs.cohere.com/reference/chat (version 2: `usage`)
- https://docs.cohere.com/v1/reference/chat (version 1: `meta`)
"""

from dataclasses import replace

from chatter_db.recorder.usage.counts import Reader, Usage, added


def chat(block: Reader) -> Usage:
    """`usage` of version 2, `meta` of version 1."""
    usage = _counts(block.inside("tokens"))
    if "billed_units" not in block:
        return usage
    billed = _counts(block.inside("billed_units"))
    return replace(usage, parts=(billed,)) if billed.status == "reported" else usage


def _counts(block: Reader) -> Usage:
    prompt = block.count("input_tokens")
    completion = block.count("output_tokens")
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=added(prompt, completion),
    )
