"""What a provider's usage block counts, for rows that say no tokens themselves."""

from typing import Any

from chatter_db.recorder.usage import from_wire


def counts_of(block: Any, provider: str | None) -> dict[str, int] | None:
    """The token columns that the recorder would book of `block`; None if it can't be read.

    A block that holds anything unreadable isn't read at all: unknown is better than wrong.
    """
    usage = from_wire(provider, {"usage": block})
    if usage.malformed or usage.status != "reported":
        return None
    counts = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }
    return {column: count for column, count in counts.items() if count is not None}
