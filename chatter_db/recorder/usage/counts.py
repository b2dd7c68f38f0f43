"""A usage, and the reading of numbers that may be anything but numbers."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Any

from chatter_db.models import MAX_COST, MAX_TOKENS, UsageStatus

GROUNDED = "grounding_tool_count"

BILLED_BESIDE = frozenset(
    {"num_sources_used", "num_server_side_tools_used", "prompt_audio_seconds", "citation_tokens"}
    | {GROUNDED}
)
"""What xAI, Mistral, Perplexity and Google bill beside the tokens, by their names. No list has
it."""

LONG_WRITES = "ttl_12h_tokens"
"""OpenAI's name for cache writes that live for 12 hours. The list has those of 30 minutes."""

SPEECH = "input_speech"
"""The term of a call with sound in its prompt, of which nobody says how much."""

_MAX_NOTES = 20
_MAX_DEPTH = 12
_WHOLE = re.compile(r"\s*\d{1,20}(\.0*)?\s*", re.ASCII)


@dataclass(frozen=True)
class Usage:
    """Tokens of one call, and the usage block they were read from."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    """What the provider said, else the sum of the two."""
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    raw: dict[str, Any] | None = None
    """The provider's own block, as JSON can hold it."""
    cache_write_1h_tokens: int | None = None
    """Those cache writes that live, and cost, longer than five minutes."""
    kinds: Mapping[str, int] = field(default_factory=dict)
    """Counts with a price of their own (audio, images, searches), by genai-prices' names if it has
    one."""
    terms: Mapping[str, str] = field(default_factory=dict)
    """What changes the price: service tier, batch or fast mode, by genai-prices' names."""
    cost: Decimal | None = None
    """US dollars, if the provider stated them."""
    parts: "tuple[Usage, ...]" = ()
    """What was billed, where that is not the counts above."""
    model: str | None = None
    """The model of a part that ran on another one."""
    notes: tuple[str, ...] = ()
    """What the block held that could not be read."""
    estimated: bool = False
    """Whether the counts are ours, because nobody stated any."""

    @property
    def status(self) -> UsageStatus:
        if self.estimated:
            return "estimated"
        known = self.prompt_tokens is not None or self.completion_tokens is not None
        return "reported" if known else "unknown"

    @property
    def counts(self) -> dict[str, int | None]:
        """The tokens, by the names of their columns."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
            "cache_read_tokens": self.cache_read_tokens,
            "cache_write_tokens": self.cache_write_tokens,
            "reasoning_tokens": self.reasoning_tokens,
        }

    @property
    def malformed(self) -> bool:
        """Whether the block held something that could not be read."""
        return bool(self.notes)


class Reader:
    """Reads one JSON object of a usage block, and notes what can't be read."""

    def __init__(self, block: object, notes: list[str] | None = None, path: str = "") -> None:
        self.notes: list[str] = [] if notes is None else notes
        self._path = path
        self._block: Mapping[str, Any] = block if isinstance(block, Mapping) else {}
        if block is not None and not isinstance(block, Mapping):
            self._note(path, block)

    def __contains__(self, name: str) -> bool:
        return self._block.get(name) is not None

    def count(self, *names: str) -> int | None:
        """The number under the first of `names` that has a readable one."""
        for name in names:
            value = self._block.get(name)
            if value is None:
                continue
            number = as_count(value)
            if number is not None:
                return number
            self._note(self._at(name), value)
        return None

    def addend(self, *names: str) -> int | None:
        """Like `count`, for what is left out when it is 0. None means unreadable."""
        return self.count(*names) if any(name in self for name in names) else 0

    def inside(self, *names: str) -> "Reader":
        """The object under the first of `names` that there is; an empty one if none."""
        name = next((name for name in names if name in self), names[0])
        return Reader(self._block.get(name), self.notes, self._at(name))

    def entries(self, name: str) -> "list[Reader]":
        """The objects of the list under `name`."""
        entries = self._block.get(name)
        if entries is None:
            return []
        if not isinstance(entries, Sequence) or isinstance(entries, str | bytes):
            self._note(self._at(name), entries)
            return []
        path = self._at(name)
        return [Reader(entry, self.notes, f"{path}[{i}]") for i, entry in enumerate(entries)]

    def text(self, name: str) -> str | None:
        """The string under `name`."""
        value = self._block.get(name)
        return value if isinstance(value, str) and value else None

    def value(self, name: str) -> object:
        return self._block.get(name)

    def money(self, name: str, *, per_dollar: int = 1) -> Decimal | None:
        """The amount under `name`, in dollars or in fractions of them."""
        amount = as_money(self._block.get(name), MAX_COST * per_dollar)
        if amount is None and name in self:
            self._note(self._at(name), self._block[name])
        return amount

    def _at(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def _note(self, path: str, value: object) -> None:
        if len(self.notes) < _MAX_NOTES:
            # Not the value: what stands where a number should may be somebody's text.
            self.notes.append(
                f"{path or 'usage'}: {type(value).__name__} is no number to book"[:200]
            )


def as_count(value: object) -> int | None:
    """`value` as a number of tokens, None if it can't be one.

    JSON has one kind of number, and protobuf writes 64-bit ones as strings:
    12, 12.0 and "12" are the same.
    """
    if isinstance(value, str):
        value = int(Decimal(value)) if _WHOLE.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    # NaN and the infinities fail here, before anything is rounded.
    if isinstance(value, Decimal) and not value.is_finite():
        return None
    if not 0 <= value <= MAX_TOKENS or value != int(value):
        return None
    return int(value)


def as_money(value: object, limit: int = MAX_COST) -> Decimal | None:
    """`value` as an amount of money below `limit`, None if it can't be."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        # The text of a float is what the provider sent, to the digit.
        amount = Decimal(str(value))
    except (InvalidOperation, ValueError):
        return None
    return amount if amount.is_finite() and 0 <= amount < limit else None


def added(*counts: int | None) -> int | None:
    """The sum of `counts`; None if one of them is not known, or if it can't be booked."""
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total if total <= MAX_TOKENS else None


def total_of(stated: int | None, prompt: int | None, completion: int | None) -> int | None:
    """The total as it was said, else the sum."""
    return stated if stated is not None else added(prompt, completion)


def merged(blocks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The blocks of one stream as one: of every count, the last that was stated.

    Streams repeat usage as it grows; to add the repetitions would count twice.
    """
    whole: dict[str, Any] = {}
    for block in blocks:
        whole.update({key: value for key, value in block.items() if value is not None})
    return whole


def plain(value: object, depth: int = 0) -> Any:
    """`value` as JSON can hold it, whatever a provider or a package put there."""
    plainly: Any = value
    match value:
        case None | bool() | str():
            pass
        case int():
            # Beyond 64 bits the writer's encoder gives up; the digits are kept as text.
            plainly = value if -(2**63) <= value < 2**64 else _digits(value)
        case float():
            plainly = value if isfinite(value) else str(value)
        case Mapping() | list() | tuple() if depth >= _MAX_DEPTH:
            plainly = "..."
        case Mapping():
            plainly = {str(key): plain(item, depth + 1) for key, item in value.items()}
        case list() | tuple():
            plainly = [plain(item, depth + 1) for item in value]
        case _:
            plainly = str(value)[:1000]
    return plainly


def _digits(value: int) -> str:
    # Python refuses to write out what is longer, and nobody would read it.
    return str(value) if value.bit_length() < 10_000 else "..."
