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
    return {column: count for column, count in usage.counts.items() if count is not None}
