"""/api/security: what happened at the door, for admins."""

from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field, IPvAnyAddress
from sqlalchemy import select

from chatter_db.models import Alert, SecurityEvent, Severity, Subject, User
from chatter_db.server.identity import Admin, Books
from chatter_db.server.pages import After, Limit, Page, page_of, position
from chatter_db.server.problems import documented

router = APIRouter(prefix="/api/security", tags=["security"])


class SecurityEventShown(BaseModel):
    id: UUID
    event_type: str
    severity: Severity
    user_id: UUID | None
    user: str | None = Field(None, description="The host app's own id of the user.")
    ip_address: IPvAnyAddress | None
    user_agent: str | None
    correlation_id: str | None
    details: dict[str, Any]
    created_at: datetime


class AlertShown(BaseModel):
    """A threshold that was reached."""

    id: UUID
    rule_name: str
    subject: Subject
    subject_value: str
    severity: Severity
    events: int
    correlation_id: str | None
    blocked_until: datetime | None
    created_at: datetime


@router.get("/events", responses=documented(401, 403, 422, 429))
async def security_events(
    _: Admin, chatter: Books, limit: Limit = 50, after: After = None
) -> Page[SecurityEventShown]:
    """Security events, newest first."""
    wanted = select(SecurityEvent, User.external_id).outerjoin(
        User, User.id == SecurityEvent.user_id
    )
    if (key := position(after, UUID)) is not None:
        wanted = wanted.where(SecurityEvent.id < key[0])
    async with chatter.session() as session:
        rows = (
            await session.execute(wanted.order_by(SecurityEvent.id.desc()).limit(limit + 1))
        ).all()
    shown = [
        SecurityEventShown.model_validate(row, from_attributes=True).model_copy(
            update={"user": user}
        )
        for row, user in rows
    ]
    return page_of(shown, limit, lambda last: (last.id,))


@router.get("/alerts", responses=documented(401, 403, 422, 429))
async def alerts(
    _: Admin, chatter: Books, limit: Limit = 50, after: After = None
) -> Page[AlertShown]:
    """Alerts, newest first."""
    wanted = select(Alert)
    if (key := position(after, UUID)) is not None:
        wanted = wanted.where(Alert.id < key[0])
    async with chatter.session() as session:
        rows = (await session.scalars(wanted.order_by(Alert.id.desc()).limit(limit + 1))).all()
    shown = [AlertShown.model_validate(row, from_attributes=True) for row in rows]
    return page_of(shown, limit, lambda last: (last.id,))
