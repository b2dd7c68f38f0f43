"""What a host app gives a recorder: taken, or refused when the recorder is made.

Whoever writes beside the recorder refuses by the same rules.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

import msgspec

from chatter_db.errors import UsageError
from chatter_db.models import MAX_LEVELS, MAX_NAME, MAX_TOKENS


def run_id_of(given: object) -> UUID:
    """An app's `run_id`: LangChain passes on whatever it is given, text as well."""
    if isinstance(given, UUID):
        return given
    try:
        return UUID(str(given))
    except ValueError:
        return uuid5(NAMESPACE_OID, str(given))


@dataclass(frozen=True)
class Given:
    """The arguments of one recorder; raises UsageError for one that can't be used."""

    conversation: str | UUID | None
    user: str | None
    workflow: str | None
    correlation_id: str | None
    metadata: dict[str, Any]
    content: bool
    estimate_usage: bool

    def __post_init__(self) -> None:
        require_conversation(self.conversation)
        require_name("user", self.user)
        require_name("workflow", self.workflow)
        require_name("correlation_id", self.correlation_id)
        require_flag("content", self.content)
        require_flag("estimate_usage", self.estimate_usage)


def require_string(argument: str, value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{argument} must be a string, not {type(value).__name__}.")
    return value


def require_name(
    argument: str, value: object, *, at_least: int = 1, at_most: int = MAX_NAME
) -> None:
    """Refuses a name that the books can't hold; None is none given."""
    if value is None:
        return
    text = require_string(argument, value)
    if not at_least <= len(text) <= at_most or "\0" in text:
        raise UsageError(
            f"{argument} must have {at_least} to {at_most} characters and no NUL; "
            f"it has {len(text)}."
        )


def require_text(
    argument: str, value: object, *, at_least: int = 1, at_most: int = MAX_NAME
) -> None:
    """The same for what is written as it is: the recorder mends what is no UTF-8."""
    require_name(argument, value, at_least=at_least, at_most=at_most)
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise UsageError(f"{argument} must be UTF-8; it has half a surrogate pair.")


def require_count(argument: str, value: object) -> None:
    """Refuses what is no number of tokens; None is an unknown one."""
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"{argument} must be a whole number, not {type(value).__name__}.")
    if not 0 <= value <= MAX_TOKENS:
        raise UsageError(f"{argument} must be from 0 to {MAX_TOKENS}.")


def require_conversation(value: object) -> None:
    if not isinstance(value, UUID):
        require_name("conversation", value)


def row_id(argument: str, value: object) -> UUID:
    """The id of a row, from its text too; refuses what is none, as an id of one's own."""
    try:
        return value if isinstance(value, UUID) else UUID(value)  # type: ignore[arg-type]
    except (AttributeError, TypeError, ValueError):
        raise UsageError(
            f"{argument} must be a UUID, the id of the row. Ids of your own are external_id there."
        ) from None


def require_flag(argument: str, value: object) -> None:
    if not isinstance(value, bool):
        raise UsageError(f"{argument} must be True or False, not {type(value).__name__}.")


def json_object(argument: str, value: object) -> dict[str, Any]:
    """A copy of the mapping `value` as JSON holds it."""
    if value is not None and not isinstance(value, Mapping):
        raise UsageError(f"{argument} must be a mapping, not {type(value).__name__}.")
    try:
        copied: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(dict(value or {})))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UsageError(f"{argument} must be JSON: {error}.") from None
    if not _within(MAX_LEVELS, copied):
        raise UsageError(f"{argument} must not be nested more than {MAX_LEVELS} levels deep.")
    return copied


def _within(levels: int, value: object) -> bool:
    """Whether JSON has no more levels than that."""
    if not isinstance(value, dict | list):
        return levels > 0
    items = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_within(levels - 1, item) for item in items)


def fitting(name: str) -> str:
    """`name` within the limit; what is too long ends in a digest, so that it stays itself."""
    if len(name) <= MAX_NAME:
        return name
    digest = blake2b(name.encode("utf-8", "replace"), digest_size=16).hexdigest()
    return f"{name[: MAX_NAME - 33]}-{digest}"
