"""API keys in their holders' hands: handed out, used, rotated and revoked."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from chatter_db.accounts.identity import UNKNOWN, Identity, Origin
from chatter_db.accounts.security_events import record
from chatter_db.errors import UsageError
from chatter_db.keys import GOOD_KEY, NewKey, digest, end_of, make_key
from chatter_db.ledger import Chatter
from chatter_db.models import ApiKey, User
from chatter_db.recorder.arguments import require_text

NOTED_EVERY = timedelta(minutes=1)
"""How exact the time is at which an API key was used last."""

MAX_KEY_NAME = 200
"""Of an API key, in characters."""

_NOT_NOTED = or_(
    ApiKey.last_used_at.is_(None), ApiKey.last_used_at <= func.chatter.clock() - NOTED_EVERY
)


class Keyring:
    """The API keys of all users."""

    def __init__(self, chatter: Chatter) -> None:
        self._chatter = chatter

    async def create(
        self,
        user_id: UUID,
        name: str,
        *,
        lasts: timedelta | None = None,
        by: Identity | None = None,
        origin: Origin = UNKNOWN,
    ) -> NewKey:
        """A new API key, good for `lasts` (by default until it is revoked).

        It ends no later than the key that `by`, who asks for it, came by. Raises UsageError for
        a name that isn't 1 to 200 characters long, or a time that isn't positive.
        """
        require_text("The name of a key", name, at_most=MAX_KEY_NAME)
        _require_positive(lasts)
        async with self._chatter.session() as session, session.begin():
            return await _make_key(session, origin, user_id, name, lasts, _end_of(by))

    async def of_secret(self, secret: str) -> Identity | None:
        """Who holds the API key `secret`; None if it is unknown, over or revoked. Writes nothing.

        Who lets them in then calls `note_use`.
        """
        async with self._chatter.session() as session:
            row = (
                await session.execute(
                    select(ApiKey.id, ApiKey.user_id, User.external_id, User.role)
                    .join(User, User.id == ApiKey.user_id)
                    .where(ApiKey.hash == digest(secret), GOOD_KEY)
                )
            ).one_or_none()
        if row is None:
            return None
        return Identity(row.user_id, row.external_id, row.role, api_key_id=row.id)

    async def note_use(self, identity: Identity, *, origin: Origin = UNKNOWN) -> None:
        """Notes that somebody was let in by the API key that `identity` came by, if by one."""
        if identity.api_key_id is None:
            return
        async with self._chatter.session() as session, session.begin():
            await session.execute(
                update(ApiKey)
                .where(ApiKey.id == identity.api_key_id, _NOT_NOTED)
                .values(last_used_at=func.chatter.clock())
            )
            await record(
                session,
                "api_key_used",
                origin,
                user_id=identity.user_id,
                details=_of_key(identity.api_key_id),
            )

    async def revoke(
        self,
        user_id: UUID,
        key_id: UUID,
        *,
        origin: Origin = UNKNOWN,
    ) -> bool:
        """Revokes a key of the user; False if they have no such key that is still good."""
        async with self._chatter.session() as session, session.begin():
            revoked = await session.scalar(
                update(ApiKey)
                .where(ApiKey.id == key_id, ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None))
                .values(revoked_at=func.chatter.clock())
                .returning(ApiKey.id)
            )
            if revoked is not None:
                await record(
                    session, "api_key_revoked", origin, user_id=user_id, details=_of_key(key_id)
                )
        return revoked is not None

    async def rotate(
        self,
        user_id: UUID,
        key_id: UUID,
        *,
        lasts: timedelta | None = None,
        by: Identity | None = None,
        grace: timedelta = timedelta(hours=24),
        origin: Origin = UNKNOWN,
    ) -> NewKey | None:
        """A new key in the place of an old one, which stays good for `grace`.

        It ends when the old one was to end, or after `lasts`, and no later than the key that
        `by`, who asks for it, came by. None if the user has no such key that is still good.
        """
        _require_positive(lasts)
        old = and_(ApiKey.id == key_id, ApiKey.user_id == user_id, GOOD_KEY)
        async with self._chatter.session() as session, session.begin():
            # Locked: of two at once the other one finds the end that this one leaves.
            found = await session.execute(
                select(ApiKey.name, ApiKey.expires_at).where(old).with_for_update()
            )
            row = found.one_or_none()
            if row is None:
                return None
            ends = [_end_of(by)] if lasts is not None else [_end_of(by), row.expires_at]
            made = await _make_key(session, origin, user_id, row.name, lasts, *ends)
            await session.execute(
                update(ApiKey)
                .where(ApiKey.id == key_id)
                .values(expires_at=func.least(ApiKey.expires_at, func.chatter.clock() + grace))
            )
            return made


async def _make_key(session: AsyncSession, origin: Origin, user_id: UUID, *how: Any) -> NewKey:
    made = await make_key(session, user_id, *how)
    await record(session, "api_key_created", origin, user_id=user_id, details=_of_key(made.id))
    return made


def _require_positive(lasts: timedelta | None) -> None:
    if lasts is not None and lasts <= timedelta():
        raise UsageError("A key must last for a positive time.")


def _end_of(by: Identity | None) -> ColumnElement[datetime | None]:
    return end_of(by.credential if by else None)


def _of_key(key_id: UUID) -> dict[str, str]:
    return {"api_key_id": str(key_id)}
