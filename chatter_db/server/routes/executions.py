"""/api/executions and /api/trace: what ran, and the story of one request."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel
from sqlalchemy import (
    ColumnElement,
    Select,
    Uuid,
    and_,
    any_,
    func,
    or_,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased
from starlette.exceptions import HTTPException

from chatter_db.models import (
    MAX_NAME,
    Conversation,
    ExecutionStatus,
    WorkflowExecution,
    unpriced_calls,
)
from chatter_db.server.identity import Books, SignedIn
from chatter_db.server.money import Money
from chatter_db.server.pages import After, Limit, Page, moment, page_of, position
from chatter_db.server.problems import documented
from chatter_db.tracing import trace as tell

router = APIRouter(prefix="/api", tags=["executions"])


class ExecutionShown(BaseModel):
    """A run with its totals, as triggers keep them."""

    id: UUID
    conversation_id: UUID | None
    user_id: UUID | None
    workflow_name: str
    status: ExecutionStatus
    correlation_id: str | None
    started_at: datetime
    finished_at: datetime | None
    error_type: str | None
    error_message: str | None
    model_calls: int
    tool_calls: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    total_cost: Money
    unpriced_calls: int


class StepShown(BaseModel):
    """One thing that happened, placed where it began."""

    began_at: datetime
    step: str
    name: str | None
    status: str
    duration_ms: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost: Money | None
    error_type: str | None
    id: UUID
    execution_id: UUID | None
    conversation_id: UUID | None


class TraceShown(BaseModel):
    """The story of one correlation id, in order; `cost` is null if no model call's is known."""

    correlation_id: str
    lasted_ms: float
    cost: Money | None
    unpriced_calls: int
    steps: list[StepShown]


@router.get("/executions", responses=documented(401, 422, 429))
async def executions(
    identity: SignedIn,
    chatter: Books,
    status: Annotated[ExecutionStatus | None, Query(description="Only these.")] = None,
    limit: Limit = 50,
    after: After = None,
) -> Page[ExecutionShown]:
    """The user's runs, newest first; an admin's list has everybody's."""
    key_of = (WorkflowExecution.started_at, WorkflowExecution.id)
    newest_first = [column.desc() for column in key_of]
    wanted = select(WorkflowExecution).order_by(*newest_first).limit(limit + 1)
    if status is not None:
        wanted = wanted.where(WorkflowExecution.status == status)
    if (key := position(after, moment, UUID)) is not None:
        wanted = wanted.where(tuple_(*key_of) < tuple_(*key))
    # Each kind by its own index: with `or` all of them would be read and sorted.
    mine = union_all(*(wanted.where(which) for which in runs_of(identity.user_id)))
    listed = wanted if identity.role == "admin" else mine
    found = aliased(WorkflowExecution, listed.subquery())
    newest = runs_as(ExecutionShown, found).order_by(found.started_at.desc(), found.id.desc())
    async with chatter.session(acting_for=identity.acts_for) as session:
        rows = (await session.execute(newest.limit(limit + 1))).mappings().all()
    shown = [ExecutionShown.model_validate(row) for row in rows]
    return page_of(shown, limit, lambda last: (last.started_at.isoformat(), last.id))


@router.get("/executions/{execution_id}", responses=documented(401, 404, 422, 429))
async def execution(execution_id: UUID, identity: SignedIn, chatter: Books) -> ExecutionShown:
    """One run with its totals."""
    wanted = runs_as(ExecutionShown).where(WorkflowExecution.id == execution_id)
    if identity.role != "admin":
        wanted = wanted.where(or_(*runs_of(identity.user_id)))
    async with chatter.session(acting_for=identity.acts_for) as session:
        found = (await session.execute(wanted)).mappings().one_or_none()
    if found is None:
        raise HTTPException(404, "There is no such execution.")
    return ExecutionShown.model_validate(found)


@router.get("/trace/{correlation_id:path}", responses=documented(401, 404, 422, 429))
async def trace(
    correlation_id: Annotated[str, Path(min_length=1, max_length=MAX_NAME)],
    identity: SignedIn,
    chatter: Books,
) -> TraceShown:
    """The story of one request: runs, model calls, tools, with durations and costs.

    Users see what is theirs; an id that others used as well tells them nothing of those.
    """
    told = await tell(chatter, correlation_id, acting_for=identity.acts_for)
    if identity.role != "admin":
        told = told.of_user(identity.user_id)
    if not told.steps:
        raise HTTPException(404, "Nothing in the books bears this correlation id.")
    return TraceShown(
        correlation_id=correlation_id,
        lasted_ms=told.lasted.total_seconds() * 1000,
        cost=told.cost,
        unpriced_calls=told.unpriced_calls,
        steps=[StepShown.model_validate(step, from_attributes=True) for step in told.steps],
    )


def runs_of(user_id: UUID) -> list[ColumnElement[bool]]:
    """Which runs are a user's: by themselves; where they are nobody's, by their conversation."""
    talks = select(Conversation.id).where(Conversation.user_id == user_id).scalar_subquery()
    # An array, for the index of conversations: to join them, all runs of nobody may be read.
    among = any_(func.array(talks, type_=ARRAY(Uuid)))
    nobodys = WorkflowExecution.user_id.is_(None)
    return [
        WorkflowExecution.user_id == user_id,
        and_(nobodys, WorkflowExecution.conversation_id == among),
    ]


def runs_as(
    shown: type[BaseModel], run: type[WorkflowExecution] = WorkflowExecution
) -> Select[Any]:
    """Runs, with a column for each field of `shown`."""
    names = [name for name in shown.model_fields if name != "unpriced_calls"]
    columns = [getattr(run, name) for name in names]
    return select(*columns, unpriced_calls(run).label("unpriced_calls"))
