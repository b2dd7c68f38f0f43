"""Who is asking: users, their passwords, API keys and browser sessions.

Every decision at the door is a row of chatter.security_events, in the transaction
of what was decided; thresholds and blocks follow by trigger. Secrets are made here,
handed out once, and stored as hashes only.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Collection, Hashable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import (
    ColumnElement,
    Uuid,
    and_,
    any_,
    cast,
    exists,
    func,
    insert,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, INET
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from chatter_db.errors import SignInBlocked, SignInRefused, UsageError
from chatter_db.keys import GOOD_KEY, NewKey, digest, end_of, make_key
from chatter_db.ledger import Chatter
from chatter_db.models import (
    ApiKey,
    BrowserSession,
    Password,
    SecurityEvent,
    Severity,
    User,
    UserRole,
)
from chatter_db.recorder.arguments import require_text

MIN_PASSWORD = 12
"""Characters of a password, at least (NIST SP 800-63B-4 asks for 15, or 8 with a second factor)."""

MAX_PASSWORD = 1000

SESSION_LENGTH = timedelta(days=7)
"""How long a browser stays signed in."""

NOTED_EVERY = timedelta(minutes=1)
"""How exact the time is at which an API key was used last."""

MAX_KEY_NAME = 200
"""Of an API key, in characters."""

# An Argon2 hash takes 64 MiB and all of a core for a moment.
_HASHING_AT_ONCE = 4


@dataclass(frozen=True)
class Identity:
    """Somebody who has proved who they are."""

    user_id: UUID
    user: str
    """The host app's own id of the user."""
    role: UserRole
    session_id: UUID | None = None
    """The browser session they came by, if any."""
    api_key_id: UUID | None = None
    """The API key they came by, if any."""

    @property
    def acts_for(self) -> UUID | None:
        """Whose rows their requests are confined to; None for an admin, who sees everybody's."""
        return None if self.role == "admin" else self.user_id

    @property
    def credential(self) -> UUID:
        """The key or the browser session they came by."""
        found = self.api_key_id or self.session_id
        assert found is not None, "nobody has come by anything"
        return found


@dataclass(frozen=True)
class Origin:
    """Where a request came from, as far as it is known."""

    ip_address: IPv4Address | IPv6Address | None = None
    user_agent: str | None = None
    correlation_id: str | None = None

    @property
    def counted_as(self) -> Hashable:
        """What its attempts are counted by: see chatter.counted_address."""
        address = self.ip_address
        if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
            return int(address) >> 64
        return address


_NOT_NOTED = or_(
    ApiKey.last_used_at.is_(None), ApiKey.last_used_at <= func.chatter.clock() - NOTED_EVERY
)
_GOOD_SESSION = and_(
    BrowserSession.revoked_at.is_(None),
    BrowserSession.expires_at > func.chatter.clock(),
    # One that was begun with a key ends with it.
    or_(
        BrowserSession.api_key_id.is_(None),
        exists().where(ApiKey.id == BrowserSession.api_key_id, GOOD_KEY),
    ),
)


class Accounts:
    """Sign-in on the books of `chatter`."""

    def __init__(self, chatter: Chatter) -> None:
        self._chatter = chatter
        self._hasher = PasswordHasher()
        self._hashing = asyncio.Semaphore(_HASHING_AT_ONCE)
        self._turns: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()
        # Verified when there is no such user, so that the answer takes as long.
        self._nobody = self._hasher.hash(secrets.token_urlsafe())

    async def create_user(
        self,
        user: str,
        *,
        password: str | None = None,
        role: UserRole = "user",
        origin: Origin = Origin(),
    ) -> Identity:
        """A new user by the host app's own id.

        Raises UsageError if there is one of that name, or for a password of less
        than 12 or more than 1,000 characters, or a name that isn't 1 to 500 characters long.
        """
        require_text("user", user)
        hashed = await self._hashed(password) if password is not None else None
        async with self._chatter.session() as session, session.begin():
            made = await session.scalar(
                upsert(User)
                .values(external_id=user, role=role)
                .on_conflict_do_nothing(index_elements=[User.external_id])
                .returning(User.id)
            )
            if made is None:
                raise UsageError(f"There is already a user {user!r}.")
            if hashed is not None:
                await session.execute(insert(Password).values(user_id=made, hash=hashed))
            await _record(session, "account_created", origin, user_id=made)
        return Identity(made, user, role)

    async def has_admin(self) -> bool:
        """Whether there is a user of the role admin."""
        async with self._chatter.session() as session:
            return bool(await session.scalar(select(exists().where(User.role == "admin"))))

    async def set_password(
        self,
        user_id: UUID,
        password: str,
        *,
        replacing: str | None = None,
        origin: Origin = Origin(),
    ) -> None:
        """Sets or changes a password; every browser of the user is signed out.

        Raises UsageError for a password of less than 12 or more than 1,000 characters, and
        SignInRefused if `replacing`, what `check_password` gave, is no longer the user's.
        """
        hashed = await self._hashed(password)
        async with self._chatter.session() as session, session.begin():
            changed = await session.scalar(
                upsert(Password)
                .values(user_id=user_id, hash=hashed)
                .on_conflict_do_update(
                    index_elements=[Password.user_id],
                    set_={"hash": hashed, "changed_at": func.chatter.clock()},
                    where=None if replacing is None else Password.hash == replacing,
                )
                .returning(Password.user_id)
            )
            if changed is None:
                raise SignInRefused("The password is wrong.")
            await session.execute(
                update(BrowserSession)
                .where(BrowserSession.user_id == user_id, BrowserSession.revoked_at.is_(None))
                .values(revoked_at=func.chatter.clock())
            )
            await _record(session, "password_changed", origin, user_id=user_id, severity="medium")

    async def sign_in(
        self,
        user: str,
        password: str,
        *,
        origin: Origin = Origin(),
    ) -> tuple[Identity, str]:
        """Begins a browser session: who it is, and the token for the cookie.

        Raises SignInRefused, which doesn't say what was wrong, and SignInBlocked
        while the address or the user is kept out.
        """
        async with self._turn(origin, user):
            async with self._chatter.session() as session:
                found = (
                    await session.execute(
                        select(User.id, User.role, Password.hash)
                        .join(Password, Password.user_id == User.id)
                        .where(User.external_id == user)
                    )
                ).one_or_none()
            user_id = found.id if found else None
            await self._refuse_blocked(origin, user_id)
            # No connection is held while the hash is computed.
            right = await self._verified(found.hash if found else self._nobody, password)
            if not found or not right:
                await self._record("login_failure", origin, user_id=user_id, severity="medium")
                raise SignInRefused("User or password is wrong.")
            who = Identity(found.id, user, found.role)
            return await self._begin_session(who, origin, tried=found.hash)

    async def sign_in_with_key(
        self, secret: str, *, origin: Origin = Origin()
    ) -> tuple[Identity, str]:
        """Begins a browser session for the holder of an API key, which ends with the key.

        Raises SignInRefused, and SignInBlocked while the address is kept out.
        """
        async with self._turn(origin):
            await self._refuse_blocked(origin, None)
            identity = await self.of_key(secret)
            if identity is None:
                await self._record("login_failure", origin, user_id=None, severity="medium")
                raise SignInRefused("This API key is not known, or no longer good.")
            await self.note_use(identity, origin=origin)
            return await self._begin_session(identity, origin)

    async def check_password(
        self, identity: Identity, password: str, *, origin: Origin = Origin()
    ) -> str:
        """The hash of the user's password; raises SignInRefused, or SignInBlocked, if it isn't."""
        async with self._turn(origin, identity.user):
            async with self._chatter.session() as session:
                hashed = await session.scalar(
                    select(Password.hash).where(Password.user_id == identity.user_id)
                )
            await self._refuse_blocked(origin, identity.user_id)
            if hashed is None or not await self._verified(hashed, password):
                await self._record(
                    "login_failure", origin, user_id=identity.user_id, severity="medium"
                )
                raise SignInRefused("The password is wrong.")
            await self._refuse_blocked(origin, identity.user_id)
            return hashed

    async def lift_block(self, subject: str) -> bool:
        """Lets an address or a user sign in again; False if neither was kept out.

        What led to the block counts no more; of an IPv6 address it is that of its /64, which
        may be named itself. Raises UsageError for who is neither.
        """
        user_id = None
        try:
            origin = Origin(ip_address(subject.removesuffix("/64")))
        except ValueError:
            origin = Origin()
            async with self._chatter.session() as session:
                user_id = await session.scalar(select(User.id).where(User.external_id == subject))
            if user_id is None:
                raise UsageError(f"{subject!r} is no address, and there is no such user.") from None
        async with self._chatter.session() as session, session.begin():
            until = await session.scalar(select(_blocked_until(origin, user_id)))
            if until is not None:
                await _record(session, "block_lifted", origin, user_id=user_id, severity="medium")
        return until is not None

    async def rate_limited(self, identity: Identity, *, origin: Origin = Origin()) -> None:
        """Notes that a user asked too often."""
        await self._record(
            "rate_limit_exceeded", origin, user_id=identity.user_id, severity="medium"
        )

    @asynccontextmanager
    async def _turn(self, origin: Origin, user: str | None = None) -> AsyncIterator[None]:
        """One attempt at a time for an address, and for a user.

        So each knows how the ones before it have ended: of many at once no more are tried than
        one after the other. Addresses before users, or two could wait for each other.
        """
        async with AsyncExitStack() as held:
            for subject in (origin.counted_as, user):
                if subject is not None:
                    turn = self._turns.setdefault(subject, asyncio.Lock())
                    await held.enter_async_context(turn)
            yield

    async def _refuse_blocked(self, origin: Origin, user_id: UUID | None) -> None:
        """Raises SignInBlocked while the address or the user is kept out."""
        async with self._chatter.session() as session:
            until = await session.scalar(select(_blocked_until(origin, user_id)))
        if until is not None:
            await self._record("login_blocked", origin, user_id=user_id, severity="medium")
            raise SignInBlocked(until)

    async def _begin_session(
        self, identity: Identity, origin: Origin, *, tried: str | None = None
    ) -> tuple[Identity, str]:
        """A session of who has proved to be `identity`; `tried` is the hash if by a password.

        Raises SignInBlocked if there was one failure too many meanwhile, in another process,
        and SignInRefused if the password has been changed.
        """
        token = secrets.token_urlsafe(32)
        user_id = None if tried is None else identity.user_id
        try:
            async with self._chatter.session() as session, session.begin():
                if tried is not None:
                    # Locked: a change of it comes before, or finds this session and ends it.
                    hashed = await session.scalar(
                        select(Password.hash)
                        .where(Password.user_id == user_id)
                        .with_for_update(read=True)
                    )
                    if hashed != tried:
                        raise SignInRefused("User or password is wrong.")
                session_id = await session.scalar(
                    insert(BrowserSession)
                    .values(
                        user_id=identity.user_id,
                        hash=digest(token),
                        ip_address=origin.ip_address,
                        user_agent=_short(origin.user_agent),
                        expires_at=func.chatter.clock() + SESSION_LENGTH,
                        api_key_id=identity.api_key_id,
                    )
                    .returning(BrowserSession.id)
                )
                await _record(session, "login_success", origin, user_id=identity.user_id)
                # Asked last: what it finds undoes the session.
                until = await session.scalar(select(_blocked_until(origin, user_id)))
                if until is not None:
                    raise SignInBlocked(until)
        except SignInBlocked:
            await self._record("login_blocked", origin, user_id=user_id, severity="medium")
            raise
        except SignInRefused:
            await self._record("login_failure", origin, user_id=user_id, severity="medium")
            raise
        return replace(identity, session_id=session_id, api_key_id=None), token

    async def of_session(self, token: str) -> Identity | None:
        """Who holds the cookie `token`; None if it is unknown, over or revoked."""
        async with self._chatter.session() as session:
            row = (
                await session.execute(
                    select(User.id, User.external_id, User.role, BrowserSession.id.label("session"))
                    .join(BrowserSession, BrowserSession.user_id == User.id)
                    .where(BrowserSession.hash == digest(token), _GOOD_SESSION)
                )
            ).one_or_none()
        if row is None:
            return None
        return Identity(row.id, row.external_id, row.role, session_id=row.session)

    async def still_good(self, credentials: Collection[UUID]) -> dict[UUID, UserRole]:
        """Those of the keys and browser sessions that are good, each with its user's role.

        One query, however many they are.
        """
        asked = cast(list(credentials), ARRAY(Uuid))
        good = union_all(
            select(ApiKey.id, User.role)
            .join(User, User.id == ApiKey.user_id)
            .where(ApiKey.id == any_(asked), GOOD_KEY),
            select(BrowserSession.id, User.role)
            .join(User, User.id == BrowserSession.user_id)
            .where(BrowserSession.id == any_(asked), _GOOD_SESSION),
        )
        async with self._chatter.session() as session:
            return {row.id: row.role for row in await session.execute(good)}

    async def sign_out(
        self,
        identity: Identity,
        *,
        origin: Origin = Origin(),
    ) -> None:
        """Ends the browser session that `identity` came by."""
        async with self._chatter.session() as session, session.begin():
            await session.execute(
                update(BrowserSession)
                .where(BrowserSession.id == identity.session_id)
                .values(revoked_at=func.chatter.clock())
            )
            await _record(session, "token_revoked", origin, user_id=identity.user_id)

    async def create_key(
        self,
        user_id: UUID,
        name: str,
        *,
        lasts: timedelta | None = None,
        by: Identity | None = None,
        origin: Origin = Origin(),
    ) -> NewKey:
        """A new API key, good for `lasts` (by default until it is revoked).

        It ends no later than the key that `by`, who asks for it, came by. Raises UsageError for
        a name that isn't 1 to 200 characters long, or a time that isn't positive.
        """
        require_text("The name of a key", name, at_most=MAX_KEY_NAME)
        _require_positive(lasts)
        async with self._chatter.session() as session, session.begin():
            return await _make_key(session, origin, user_id, name, lasts, _end_of(by))

    async def of_key(self, secret: str) -> Identity | None:
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

    async def note_use(self, identity: Identity, *, origin: Origin = Origin()) -> None:
        """Notes that somebody was let in by the API key that `identity` came by, if by one."""
        if identity.api_key_id is None:
            return
        async with self._chatter.session() as session, session.begin():
            await session.execute(
                update(ApiKey)
                .where(ApiKey.id == identity.api_key_id, _NOT_NOTED)
                .values(last_used_at=func.chatter.clock())
            )
            await _record(
                session,
                "api_key_used",
                origin,
                user_id=identity.user_id,
                details=_of_key(identity.api_key_id),
            )

    async def revoke_key(
        self,
        user_id: UUID,
        key_id: UUID,
        *,
        origin: Origin = Origin(),
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
                await _record(
                    session, "api_key_revoked", origin, user_id=user_id, details=_of_key(key_id)
                )
        return revoked is not None

    async def rotate_key(
        self,
        user_id: UUID,
        key_id: UUID,
        *,
        lasts: timedelta | None = None,
        by: Identity | None = None,
        grace: timedelta = timedelta(hours=24),
        origin: Origin = Origin(),
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

    async def _hashed(self, password: str) -> str:
        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            raise UsageError(
                f"A password must have {MIN_PASSWORD} to {MAX_PASSWORD} characters; "
                f"this one has {len(password)}."
            )
        async with self._hashing:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def _verified(self, hashed: str, password: str) -> bool:
        if len(password) > MAX_PASSWORD:
            return False
        async with self._hashing:
            try:
                return await asyncio.to_thread(self._hasher.verify, hashed, password)
            except (VerificationError, InvalidHashError):
                return False

    async def _record(self, event_type: str, origin: Origin, **columns: Any) -> None:
        async with self._chatter.session() as session, session.begin():
            await _record(session, event_type, origin, **columns)


async def _make_key(session: AsyncSession, origin: Origin, user_id: UUID, *how: Any) -> NewKey:
    made = await make_key(session, user_id, *how)
    await _record(session, "api_key_created", origin, user_id=user_id, details=_of_key(made.id))
    return made


def _require_positive(lasts: timedelta | None) -> None:
    if lasts is not None and lasts <= timedelta():
        raise UsageError("A key must last for a positive time.")


def _end_of(by: Identity | None) -> ColumnElement[datetime | None]:
    return end_of(by.credential if by else None)


async def _record(
    session: AsyncSession,
    event_type: str,
    origin: Origin,
    *,
    user_id: UUID | None,
    severity: Severity = "low",
    details: Mapping[str, Any] | None = None,
) -> None:
    await session.execute(
        insert(SecurityEvent).values(
            event_type=event_type,
            severity=severity,
            user_id=user_id,
            ip_address=origin.ip_address,
            user_agent=_short(origin.user_agent),
            correlation_id=origin.correlation_id,
            details=dict(details or {}),
        )
    )


def _blocked_until(origin: Origin, user_id: Any) -> ColumnElement[datetime | None]:
    return func.chatter.blocked_until(cast(origin.ip_address, INET), cast(user_id, Uuid))


def _of_key(key_id: UUID) -> dict[str, str]:
    return {"api_key_id": str(key_id)}


def _short(user_agent: str | None) -> str | None:
    return user_agent[:1000] if user_agent else None
