"""What was decided at the door: each decision a row of chatter.security_events."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from chatter_db.accounts.identity import Origin
from chatter_db.ledger import Chatter
from chatter_db.models import SecurityEvent, Severity


async def record(
    session: AsyncSession,
    event_type: str,
    origin: Origin,
    *,
    user_id: UUID | None,
    severity: Severity = "low",
    details: Mapping[str, Any] | None = None,
) -> None:
    """Writes what was decided, in the transaction of it."""
    await session.execute(
        insert(SecurityEvent).values(
            event_type=event_type,
            severity=severity,
            user_id=user_id,
            ip_address=origin.ip_address,
            user_agent=origin.user_agent_kept,
            correlation_id=origin.correlation_id,
            details=dict(details or {}),
        )
    )


async def record_alone(chatter: Chatter, event_type: str, origin: Origin, **columns: Any) -> None:
    """Writes a decision by which nothing else changes."""
    async with chatter.session() as session, session.begin():
        await record(session, event_type, origin, **columns)
