"""What is delivered: an event, a batch of them, and which of them somebody wants."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, get_args
from uuid import UUID

import msgspec

from chatter_db.errors import UsageError
from chatter_db.models import EventCategory

if TYPE_CHECKING:
    from asyncpg import Record

Category = EventCategory

EventType = Literal[
    "conversation_created",
    "conversation_updated",
    "message_created",
    "model_response",
    "tool_called",
    "workflow_started",
    "workflow_completed",
    "workflow_failed",
    "workflow_cancelled",
    "login_success",
    "login_failure",
    "login_blocked",
    "account_locked",
    "account_created",
    "account_deactivated",
    "password_changed",
    "password_reset_requested",
    "password_reset_completed",
    "token_created",
    "token_refreshed",
    "token_revoked",
    "api_key_created",
    "api_key_used",
    "api_key_revoked",
    "brute_force_attempt",
    "anomalous_login",
    "multiple_failures",
    "suspicious_ip",
    "rate_limit_exceeded",
    "block_lifted",
    "alert_raised",
    "analytics_refreshed",
]
"""The kinds of event there are. Those of security that nothing here writes (account_locked,
suspicious_ip and others) are for host apps, which may write security_events of their own."""

CATEGORIES: tuple[str, ...] = get_args(Category)
EVENT_TYPES: tuple[str, ...] = get_args(EventType)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, and the position to go on from after it.

    `payload` has ids and figures, no text that a person or a model wrote; money is
    decimal text, `v` its version.
    """

    position: str
    id: int
    event_type: str
    category: str
    user_id: UUID | None
    conversation_id: UUID | None
    execution_id: UUID | None
    correlation_id: str | None
    payload: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class Selection:
    """Which events somebody wants; None lets everything pass."""

    user_id: UUID | None = None
    conversation_id: UUID | None = None
    execution_id: UUID | None = None
    event_types: frozenset[str] | None = None
    categories: frozenset[str] | None = None

    @classmethod
    def of(
        cls,
        *,
        event_types: Iterable[str] | None = None,
        categories: Iterable[str] | None = None,
        **ids: UUID | None,
    ) -> "Selection":
        """A selection.

        Raises UsageError for a type or category that doesn't exist, and for what is no UUID: no
        event would bear it, and who follows would wait for ever.
        """
        for name, value in ids.items():
            if value is not None and not isinstance(value, UUID):
                raise UsageError(
                    f"{name} must be a UUID, the id of the row, not {type(value).__name__}. "
                    "Ids of your own are external_id there."
                )
        return cls(
            event_types=_known("event type", event_types, EVENT_TYPES),
            categories=_known("category", categories, CATEGORIES),
            **ids,
        )

    @property
    def key(self) -> UUID | None:
        """The narrowest id asked for: only events that bear it can be wanted."""
        return self.conversation_id or self.execution_id or self.user_id

    def wants(self, event: Event) -> bool:
        return (
            (self.user_id is None or event.user_id == self.user_id)
            and (self.conversation_id is None or event.conversation_id == self.conversation_id)
            and (self.execution_id is None or event.execution_id == self.execution_id)
            and (self.event_types is None or event.event_type in self.event_types)
            and (self.categories is None or event.category in self.categories)
        )


@dataclass
class Batch:
    """Events in order, and the position after them. Shared between subscriptions."""

    events: tuple[Event, ...]
    position: str
    rendered: bytes | None = field(default=None, repr=False)
    """What a kind of reader made of it, kept so that a thousand readers share one."""


def _known(
    what: str, named: Iterable[str] | None, allowed: tuple[str, ...]
) -> frozenset[str] | None:
    if named is None:
        return None
    # A single one is no list of letters.
    names = frozenset([named] if isinstance(named, str) else named)
    if unknown := sorted(map(str, names.difference(allowed))):
        raise UsageError(f"No {what} {', '.join(unknown)}; there are {', '.join(allowed)}.")
    return names


def event_of(row: "Record") -> Event:
    """The event in a row of chatter.events_after()."""
    return Event(
        position=row["position"],
        id=row["id"],
        event_type=row["event_type"],
        category=row["category"],
        user_id=row["user_id"],
        conversation_id=row["conversation_id"],
        execution_id=row["execution_id"],
        correlation_id=row["correlation_id"],
        payload=msgspec.json.decode(row["payload"]),
        created_at=row["created_at"],
    )
