"""/api/conversations: conversations and their messages, and the chat itself."""

import hashlib
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from itertools import accumulate
from typing import Annotated, Any
from uuid import UUID, uuid5

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, String, cast, func, literal, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from chatter_db.accounts import Identity
from chatter_db.errors import ChatterError
from chatter_db.ledger import Chatter
from chatter_db.models import (
    MAX_NAME,
    MAX_TITLE,
    CallStatus,
    Conversation,
    ConversationStatus,
    Kind,
    Message,
    Role,
    UsageStatus,
    User,
    WorkflowExecution,
    known_cost,
)
from chatter_db.server.correlation import correlation_id
from chatter_db.server.identity import Books, SignedIn
from chatter_db.server.limits import ChatLimit
from chatter_db.server.money import Money
from chatter_db.server.pages import After, Limit, Page, moment, page_of, position
from chatter_db.server.problems import documented
from chatter_db.settings import settings
from chatter_db.workflow import TOOLS, ChatResponse, Prepared, chunks_of, prepare

log = logging.getLogger(__name__)

router = APIRouter(prefix="/api/conversations", tags=["conversations"])

WORKFLOW = "chat"
MAX_MESSAGE = 100_000
MAX_PAGE_BYTES = 1024 * 1024
"""Of the texts on a page of messages: it is in memory until its client has taken it."""

_STREAM = "text/event-stream"

Text = Annotated[
    str, Field(min_length=1, max_length=MAX_MESSAGE, pattern=r"^[^\x00]*[^\s\x00][^\x00]*$")
]


class ConversationWanted(BaseModel):
    title: Annotated[str, Field(max_length=MAX_TITLE, pattern=r"^[^\x00]*$")] | None = None
    external_id: (
        Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=r"^[^\x00]+$")] | None
    ) = None


class ConversationShown(BaseModel):
    """A conversation with its totals, as triggers keep them."""

    id: UUID
    external_id: str | None
    user_id: UUID | None
    user: str | None = Field(None, description="The host app's own id of the user.")
    title: str | None
    status: ConversationStatus
    created_at: datetime
    message_count: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    total_cost: Money
    unpriced_calls: int
    last_message_at: datetime | None


class MessageShown(BaseModel):
    """A row of the ledger. Figures are null where they are not known."""

    id: UUID
    execution_id: UUID | None
    role: Role
    kind: Kind
    content: str | None
    tool_calls: Any
    provider_used: str | None
    model_used: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    cost: Money | None
    usage_status: UsageStatus | None
    response_time_ms: float | None
    status: CallStatus
    error_type: str | None
    correlation_id: str | None
    created_at: datetime


class MessageWanted(BaseModel):
    content: Text
    model: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="One of those that the server allows, else its own."
    )


class Answer(BaseModel):
    """The reply that was shown, and what the run cost."""

    message_id: UUID
    conversation_id: UUID
    execution_id: UUID
    content: str
    prompt_tokens: int
    completion_tokens: int
    cost: Money | None = Field(description="Null if no model call's is known.")


@router.get("", responses=documented(401, 422, 429))
async def conversations(
    identity: SignedIn, chatter: Books, limit: Limit = 50, after: After = None
) -> Page[ConversationShown]:
    """The user's conversations, the last one spoken in first; all, newest first, for an admin."""
    # No index has the last message, whose time every message changes. A user's are few.
    at: ColumnElement[datetime] = Conversation.created_at.expression
    if identity.role != "admin":
        at = func.coalesce(Conversation.last_message_at, Conversation.created_at)
    wanted = (
        select(Conversation, User.external_id, at)
        .outerjoin(User, User.id == Conversation.user_id)
        .where(Conversation.status != "deleted")
        .order_by(at.desc(), Conversation.id.desc())
        .limit(limit + 1)
    )
    if identity.role != "admin":
        wanted = wanted.where(Conversation.user_id == identity.user_id)
    if (key := position(after, moment, UUID)) is not None:
        wanted = wanted.where(tuple_(at, Conversation.id) < tuple_(*key))
    async with chatter.session(acting_for=identity.acts_for) as session:
        rows = (await session.execute(wanted)).all()
    times = {found.id: time for found, _, time in rows}
    shown = [_shown(found, user) for found, user, _ in rows]
    return page_of(shown, limit, lambda last: (times[last.id].isoformat(), last.id))


@router.post("", status_code=201, responses=documented(401, 403, 413, 422, 429))
async def create_conversation(
    wanted: ConversationWanted, identity: SignedIn, chatter: Books
) -> ConversationShown:
    """A new conversation of the user."""
    made = await chatter.create_conversation(
        user=identity.user, external_id=wanted.external_id, title=wanted.title
    )
    return _shown(made, identity.user)


@router.get("/{conversation_id}", responses=documented(401, 404, 422, 429))
async def conversation(
    conversation_id: UUID, identity: SignedIn, chatter: Books
) -> ConversationShown:
    """One conversation with its totals."""
    found = await _own(chatter, identity, conversation_id)
    async with chatter.session(acting_for=identity.acts_for) as session:
        user = await session.scalar(select(User.external_id).where(User.id == found.user_id))
    return _shown(found, user)


@router.delete("/{conversation_id}", status_code=204, responses=documented(401, 403, 404, 422, 429))
async def delete_conversation(conversation_id: UUID, identity: SignedIn, chatter: Books) -> None:
    """Erases the texts; tokens and cost stay in the books."""
    await _own(chatter, identity, conversation_id)
    await chatter.delete_conversation(conversation_id)


@router.get("/{conversation_id}/messages", responses=documented(401, 404, 422, 429))
async def messages(
    conversation_id: UUID,
    identity: SignedIn,
    chatter: Books,
    limit: Limit = 50,
    after: After = None,
    steps: bool = False,
    newest_first: bool = False,
) -> Page[MessageShown]:
    """The turns of a conversation, oldest first unless said otherwise; with `steps` every row.

    A page of long texts has fewer than `limit`.
    """
    await _own(chatter, identity, conversation_id)
    wanted = select(Message).where(Message.conversation_id == conversation_id)
    if not steps:
        wanted = wanted.where(Message.kind == "turn")
    if (key := position(after, moment, UUID)) is not None:
        place = tuple_(Message.created_at, Message.id)
        wanted = wanted.where(place < tuple_(*key) if newest_first else place > tuple_(*key))
    order = (Message.created_at, Message.id)
    wanted = wanted.order_by(*(column.desc() if newest_first else column for column in order))
    texts = Message.content, cast(Message.tool_calls, String)
    size = sum((func.coalesce(func.octet_length(text), 0) for text in texts), literal(0))
    async with chatter.session(acting_for=identity.acts_for) as session:
        sizes = await session.scalars(wanted.with_only_columns(size).limit(limit))
        fitting = sum(total <= MAX_PAGE_BYTES for total in accumulate(sizes))
        limit = min(limit, max(fitting, 1))
        columns = [getattr(Message, name) for name in MessageShown.model_fields]
        page = await session.execute(wanted.with_only_columns(*columns).limit(limit + 1))
    shown = [MessageShown.model_validate(row) for row in page.mappings()]
    return page_of(shown, limit, lambda last: (last.created_at.isoformat(), last.id))


@router.post(
    "/{conversation_id}/messages",
    response_model=Answer,
    responses={
        200: {"description": "The answer; as a stream where text/event-stream is accepted."},
        **documented(401, 403, 404, 409, 413, 422, 429, 502, 503),
    },
)
async def send_message(
    conversation_id: UUID,
    wanted: MessageWanted,
    request: Request,
    identity: SignedIn,
    chatter: Books,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> Response | Answer:
    """Runs the chat workflow on a message.

    With `Accept: text/event-stream` the answer is told while it is made: events
    start, token, tool_call_start, tool_call_end, usage, then done or error. With an
    `Idempotency-Key`, the same message sent again is answered from the books and not
    paid for again; one that was cancelled before a model was asked runs anew.
    """
    with ExitStack() as place:
        _take_place(request.app.state.chat_limit, identity, place)
        run = await _prepared(conversation_id, wanted, identity, chatter)
        # Last: what can't be answered claims nothing.
        if idempotency_key is not None:
            earlier = await _claim(run, identity, wanted, idempotency_key)
            if earlier is not None:
                return earlier
        if _STREAM in request.headers.get("accept", ""):
            return _Telling(run, place.pop_all())
        try:
            return _answer(await run.answer())
        except ChatterError:
            raise
        except Exception as error:
            # Booked as a failed run already; what the provider said stays in the books.
            raise HTTPException(
                502, f"The model failed: {type(error).__name__}. The run is booked as failed."
            ) from error


def _take_place(limit: ChatLimit, identity: Identity, place: ExitStack) -> None:
    """One of the chats that a user may have answered at once, until `place` is left."""
    caller = str(identity.user_id)
    if not limit.begin(caller):
        raise HTTPException(
            429,
            f"At most {limit.per_user} of your messages are answered at once; wait for one.",
            {"Retry-After": "5"},
        )
    place.callback(limit.end, caller)


async def _prepared(
    conversation_id: UUID, wanted: MessageWanted, identity: Identity, chatter: Chatter
) -> Prepared:
    """The run that answers; raises HTTPException for what this user may not ask."""
    found = await _own(chatter, identity, conversation_id)
    if found.status == "deleted":
        raise HTTPException(404, "There is no such conversation.")
    to_choose = settings().models_to_choose
    if wanted.model is not None and wanted.model not in to_choose:
        raise HTTPException(422, f"model: it may be {' or '.join(to_choose)}.")
    return await prepare(
        wanted.content,
        conversation_id=conversation_id,
        # The conversation's own user: an admin who helps out doesn't become its owner.
        user=identity.user if found.user_id == identity.user_id else None,
        model=wanted.model,
        tools=TOOLS,
        workflow=WORKFLOW,
        correlation_id=correlation_id(),
        chatter=chatter,
    )


class _Telling(StreamingResponse):
    """The run as server-sent events, in its `place`. A client that leaves ends the run."""

    def __init__(self, run: Prepared, place: ExitStack) -> None:
        self._run = run
        self._place = place
        self._told = _told(run)
        super().__init__(self._told, media_type=_STREAM, headers={"Cache-Control": "no-store"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with self._place:
                await self._told.aclose()
                if not self._run.began:
                    self._run.chatter.release(self._run.execution_id)


async def _told(run: Prepared) -> AsyncGenerator[str, None]:
    try:
        async with aclosing(chunks_of(run)) as chunks:
            async for chunk in chunks:
                yield _event(chunk)
    except ChatterError as error:
        yield _sse("error", {"error_type": type(error).__name__, "detail": str(error)})
    except Exception as error:
        # The answer has begun: the client hears of it here or not at all.
        log.warning("The model failed", exc_info=True)
        detail = "The model failed. The run is booked as failed."
        yield _sse("error", {"error_type": type(error).__name__, "detail": detail})


_NAMES = {
    "Started": "start",
    "Token": "token",
    "ToolCallStarted": "tool_call_start",
    "ToolCallEnded": "tool_call_end",
    "Used": "usage",
}


def _event(chunk: Any) -> str:
    if isinstance(chunk, ChatResponse):
        return _sse("done", _answer(chunk).model_dump(mode="json"))
    return _sse(_NAMES[type(chunk).__name__], asdict(chunk))


def _sse(name: str, data: dict[str, Any]) -> str:
    # JSON has no line breaks, so that one `data:` line holds it.
    return f"event: {name}\ndata: {json.dumps(data, default=str)}\n\n"


def _answer(response: ChatResponse) -> Answer:
    return Answer.model_validate(response, from_attributes=True)


def _shown(found: Conversation, user: str | None) -> ConversationShown:
    shown = ConversationShown.model_validate(found, from_attributes=True)
    return shown.model_copy(update={"user": user})


async def _own(chatter: Chatter, identity: Identity, conversation_id: UUID) -> Conversation:
    """The conversation, if it is the user's or the user is an admin. Answers 404 if not."""
    async with chatter.session(acting_for=identity.acts_for) as session:
        found = await session.get(Conversation, conversation_id)
    if found is None or (found.user_id != identity.user_id and identity.role != "admin"):
        raise HTTPException(404, "There is no such conversation.")
    return found


async def _claim(
    run: Prepared, identity: Identity, wanted: MessageWanted, key: str
) -> Answer | None:
    """Makes `run` the one that this key stands for, or gives the answer of the one that was.

    The execution's row is the claim: of two requests with one key, one inserts it. It is this
    process's from the beginning, so that a claim without a run ends with its process. A run
    that was cancelled before it asked a model cost nothing: the key is good for one more.
    """
    execution_id = uuid5(identity.user_id, key)
    asked = json.dumps([str(run.conversation_id), wanted.content, wanted.model])
    digest = hashlib.sha256(asked.encode()).hexdigest()
    async with run.chatter.session(acting_for=identity.acts_for) as session, session.begin():
        while True:
            made = await session.scalar(
                insert(WorkflowExecution)
                .values(
                    id=execution_id,
                    conversation_id=run.conversation_id,
                    user_id=identity.user_id,
                    workflow_name=WORKFLOW,
                    correlation_id=correlation_id(),
                    extra={"idempotency": digest},
                    recorder_id=run.chatter.recorder_id,
                )
                .on_conflict_do_nothing(index_elements=[WorkflowExecution.id])
                .returning(WorkflowExecution.id)
            )
            if made is not None:
                run.execution_id = execution_id
                return None
            earlier = await session.get_one(WorkflowExecution, execution_id)
            if earlier.status != "cancelled" or earlier.model_calls:
                break
            execution_id = uuid5(execution_id, key)
        answer = await session.scalar(
            select(Message).where(
                Message.execution_id == execution_id,
                Message.role == "assistant",
                Message.kind == "turn",
            )
        )
        cost = await session.scalar(
            select(known_cost()).where(WorkflowExecution.id == execution_id)
        )
    return _given_before(earlier, answer, cost, digest)


def _given_before(
    earlier: WorkflowExecution, answer: Message | None, cost: Decimal | None, digest: str
) -> Answer:
    """What the run that took the key has answered; raises HTTPException where it has not."""
    if earlier.extra.get("idempotency") != digest:
        raise HTTPException(422, "This Idempotency-Key was used for another message.")
    if earlier.status == "running":
        raise HTTPException(
            409,
            "The message of this Idempotency-Key is being answered.",
            headers={"Retry-After": "1"},
        )
    if answer is None:
        raise HTTPException(
            409,
            f"The run of this Idempotency-Key is {earlier.status}. Use a new key to try again.",
        )
    return Answer(
        message_id=answer.id,
        conversation_id=answer.conversation_id,
        execution_id=earlier.id,
        content=answer.content or "",
        prompt_tokens=earlier.prompt_tokens,
        completion_tokens=earlier.completion_tokens,
        cost=cost,
    )
