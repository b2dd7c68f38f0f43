"""API keys on the books: what makes one good, how long it lasts, and how it is made."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Interval, and_, cast, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from chatter_db.models import ApiKey, BrowserSession

KEY_PREFIX = "chatter_"
"""How every API key begins, so that scanners for leaked secrets can tell it."""

_SHOWN_OF_KEY = len(KEY_PREFIX) + 4

GOOD_KEY = and_(
    ApiKey.revoked_at.is_(None),
    or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.chatter.clock()),
)


@dataclass(frozen=True)
class NewKey:
    """An API key that was just made. `secret` is not stored and can't be shown again."""

    id: UUID
    secret: str
    expires_at: datetime | None


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def end_of(credential: UUID | None) -> ColumnElement[datetime | None]:
    """When the key ends that somebody came by, or that their browser session was begun with."""
    begun_with = select(BrowserSession.api_key_id).where(BrowserSession.id == credential)
    return (
        select(ApiKey.expires_at)
        .where(or_(ApiKey.id == credential, ApiKey.id == begun_with.scalar_subquery()))
        .scalar_subquery()
    )


async def make_key(
    session: AsyncSession, user_id: UUID, name: str, lasts: timedelta | None, *ends: Any
) -> NewKey:
    """A key good for `lasts`, but no longer than to the first of `ends` that isn't NULL."""
    secret = KEY_PREFIX + secrets.token_urlsafe(32)
    made = insert(ApiKey).values(
        user_id=user_id,
        name=name,
        prefix=secret[:_SHOWN_OF_KEY],
        hash=digest(secret),
        # least() passes over NULL: all of them are, for a key without an end.
        expires_at=func.least(func.chatter.clock() + cast(lasts, Interval), *ends),
    )
    row = (await session.execute(made.returning(ApiKey.id, ApiKey.expires_at))).one()
    return NewKey(row.id, secret, row.expires_at)
