"""Reads the outbox with the cursor of sql/schema/220_event_cursor.sql."""

from typing import TYPE_CHECKING, TypeAlias

import asyncpg
from asyncpg import DataError, PostgresError

from chatter_db.errors import EventsPruned, UsageError
from chatter_db.events.event import Event, Selection, event_of
from chatter_db.queries import statement

if TYPE_CHECKING:
    from asyncpg import Connection, Pool, Record

    Reader: TypeAlias = Connection[Record] | Pool[Record]

EVERYTHING = Selection()

BROKEN = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InternalClientError,
)
"""What says of the connection, or of a server that stops or starts, and nothing of the question."""

_PRUNED = "CH410"


async def events_after(
    reader: "Reader",
    position: str,
    limit: int,
    wanted: Selection = EVERYTHING,
    *,
    until: str | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 - asyncpg's own, which cancels the query
) -> list[Event]:
    """Up to `limit` events after `position`, no further than `until`.

    Raises EventsPruned if retention has passed the position by, UsageError if it
    is none of this database.
    """
    try:
        rows = await reader.fetch(
            statement("events_after"),
            position,
            limit,
            wanted.user_id,
            wanted.conversation_id,
            wanted.execution_id,
            None if wanted.event_types is None else sorted(wanted.event_types),
            None if wanted.categories is None else sorted(wanted.categories),
            until,
            timeout=timeout,
        )
    except PostgresError as error:
        raise await _explained(reader, error) from error
    return [event_of(row) for row in rows]


async def check_position(reader: "Reader", position: str) -> None:
    """Raises UsageError or EventsPruned as `events_after` would."""
    try:
        await reader.execute(statement("events_check_position"), position)
    except PostgresError as error:
        raise await _explained(reader, error) from error


async def events_now(reader: "Reader", *, timeout: float | None = None) -> str:  # noqa: ASYNC109
    """The position after all that is committed."""
    position: str = await reader.fetchval(statement("events_now"), timeout=timeout)
    return position


async def events_oldest(reader: "Reader") -> str:
    """The position before all that retention has left."""
    position: str = await reader.fetchval(statement("events_oldest"))
    return position


async def _explained(reader: "Reader", error: PostgresError) -> Exception:
    if error.sqlstate == _PRUNED:
        return EventsPruned(await events_oldest(reader))
    if isinstance(error, DataError):  # which says so itself, or has a NUL
        return UsageError("This is no position in the events of this database.")
    return error
