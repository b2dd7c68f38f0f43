"""GET /api/events: what happens in the books, as it is committed."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from chatter_db.errors import EventsPruned, UsageError
from chatter_db.events import Category, EventType, Selection
from chatter_db.server.identity import Books, SignedIn
from chatter_db.server.problems import documented
from chatter_db.server.sse import EventStream, Streams

router = APIRouter(prefix="/api", tags=["events"])


class Wanted(BaseModel):
    """Which events; a filter that isn't given lets everything pass."""

    model_config = ConfigDict(extra="forbid")

    conversation_id: UUID | None = None
    execution_id: UUID | None = None
    user_id: UUID | None = Field(None, description="For admins; others get their own events.")
    type: list[EventType] | None = None
    category: list[Category] | None = None
    last_event_id: str | None = Field(
        None, description="Where to begin, for a first load; the header goes before it."
    )


@router.get(
    "/events",
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events; the id of each is the position to go on from.",
            "content": {"text/event-stream": {}},
        },
        **documented(400, 401, 403, 422, 429, 503),
    },
)
async def follow(
    request: Request,
    identity: SignedIn,
    chatter: Books,
    wanted: Annotated[Wanted, Query()],
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Follows the events from `Last-Event-ID` on, else from now.

    Each has the name of its kind, its data as JSON (ids and figures, no text), and as id the
    position to go on from, on any server of this database. Besides: `position` tells
    a position alone, `reset` that events were removed by retention before you had them.
    The stream ends with the key or the browser session that it was asked for with.
    """
    hub = chatter.event_hub()
    position = last_event_id or wanted.last_event_id
    if position is not None:
        try:
            await hub.check(position)
        except UsageError as error:
            raise HTTPException(400, f"Last-Event-ID: {error}") from None
        except EventsPruned:
            pass  # told in the stream, with the position to begin at
    if wanted.user_id not in (None, identity.user_id) and identity.role != "admin":
        raise HTTPException(403, "Only an admin may follow the events of others.")
    selection = Selection(
        user_id=wanted.user_id if identity.role == "admin" else identity.user_id,
        conversation_id=wanted.conversation_id,
        execution_id=wanted.execution_id,
        event_types=None if wanted.type is None else frozenset(wanted.type),
        categories=None if wanted.category is None else frozenset(wanted.category),
    )
    streams: Streams = request.app.state.streams
    return EventStream(hub, selection, position, streams, identity)
