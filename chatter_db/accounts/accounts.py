"""Users: how they come, and how they sign in, by a password or a key, and out again."""

import secrets
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address
from uuid import UUID

from sqlalchemy import Uuid, and_, any_, cast, exists, func, insert, or_, select, union_all, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert

from chatter_db.accounts.attempts import Attempts, blocked_until
from chatter_db.accounts.identity import UNKNOWN, Identity, Origin
from chatter_db.accounts.keyring import Keyring
from chatter_db.accounts.passwords import Passwords
from chatter_db.accounts.security_events import record, record_alone
from chatter_db.errors import SignInBlocked, SignInRefused, UsageError
from chatter_db.keys import GOOD_KEY, digest
from chatter_db.ledger import Chatter
from chatter_db.models import ApiKey, BrowserSession, Password, User, UserRole
from chatter_db.recorder.arguments import require_text

SESSION_LENGTH = timedelta(days=7)
"""How long a browser stays signed in."""

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
        self._passwords = Passwords()
        self._attempts = Attempts(chatter)
        self.keys = Keyring(chatter)

    async def create_user(
        self,
        user: str,
        *,
        password: str | None = None,
        role: UserRole = "user",
        origin: Origin = UNKNOWN,
    ) -> Identity:
        """A new user by the host app's own id.

        Raises UsageError if there is one of that name, or for a password of less
        than 12 or more than 1,000 characters, or a name that isn't 1 to 500 characters long.
        """
        require_text("user", user)
        hashed = await self._passwords.hashed(password) if password is not None else None
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
            await record(session, "account_created", origin, user_id=made)
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
        origin: Origin = UNKNOWN,
    ) -> None:
        """Sets or changes a password; every browser of the user is signed out.

        Raises UsageError for a password of less than 12 or more than 1,000 characters, and
        SignInRefused if `replacing`, what `check_password` gave, is no longer the user's.
        """
        hashed = await self._passwords.hashed(password)
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
            await record(session, "password_changed", origin, user_id=user_id, severity="medium")

    async def sign_in(
        self,
        user: str,
        password: str,
        *,
        origin: Origin = UNKNOWN,
    ) -> tuple[Identity, str]:
        """Begins a browser session: who it is, and the token for the cookie.

        Raises SignInRefused, which doesn't say what was wrong, and SignInBlocked
        while the address or the user is kept out.
        """
        async with self._attempts.turn(origin, user):
            async with self._chatter.session() as session:
                found = (
                    await session.execute(
                        select(User.id, User.role, Password.hash)
                        .join(Password, Password.user_id == User.id)
                        .where(User.external_id == user)
                    )
                ).one_or_none()
            user_id = found.id if found else None
            await self._attempts.refuse_blocked(origin, user_id)
            # No connection is held while the hash is computed.
            right = await self._passwords.verified(found.hash if found else None, password)
            if not found or not right:
                await self._attempts.failed(origin, user_id)
                raise SignInRefused("User or password is wrong.")
            who = Identity(found.id, user, found.role)
            return await self._begin_session(who, origin, tried=found.hash)

    async def sign_in_with_key(
        self, secret: str, *, origin: Origin = UNKNOWN
    ) -> tuple[Identity, str]:
        """Begins a browser session for the holder of an API key, which ends with the key.

        Raises SignInRefused, and SignInBlocked while the address is kept out.
        """
        async with self._attempts.turn(origin):
            await self._attempts.refuse_blocked(origin, None)
            identity = await self.keys.of_secret(secret)
            if identity is None:
                await self._attempts.failed(origin, None)
                raise SignInRefused("This API key is not known, or no longer good.")
            await self.keys.note_use(identity, origin=origin)
            return await self._begin_session(identity, origin)

    async def check_password(
        self, identity: Identity, password: str, *, origin: Origin = UNKNOWN
    ) -> str:
        """The hash of the user's password; raises SignInRefused, or SignInBlocked, if it isn't."""
        async with self._attempts.turn(origin, identity.user):
            async with self._chatter.session() as session:
                hashed = await session.scalar(
                    select(Password.hash).where(Password.user_id == identity.user_id)
                )
            await self._attempts.refuse_blocked(origin, identity.user_id)
            if hashed is None or not await self._passwords.verified(hashed, password):
                await self._attempts.failed(origin, identity.user_id)
                raise SignInRefused("The password is wrong.")
            await self._attempts.refuse_blocked(origin, identity.user_id)
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
            origin = UNKNOWN
            async with self._chatter.session() as session:
                user_id = await session.scalar(select(User.id).where(User.external_id == subject))
            if user_id is None:
                raise UsageError(f"{subject!r} is no address, and there is no such user.") from None
        async with self._chatter.session() as session, session.begin():
            until = await session.scalar(select(blocked_until(origin, user_id)))
            if until is not None:
                await record(session, "block_lifted", origin, user_id=user_id, severity="medium")
        return until is not None

    async def rate_limited(self, identity: Identity, *, origin: Origin = UNKNOWN) -> None:
        """Notes that a user asked too often."""
        await record_alone(
            self._chatter,
            "rate_limit_exceeded",
            origin,
            user_id=identity.user_id,
            severity="medium",
        )

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
                        user_agent=origin.user_agent_kept,
                        expires_at=func.chatter.clock() + SESSION_LENGTH,
                        api_key_id=identity.api_key_id,
                    )
                    .returning(BrowserSession.id)
                )
                await record(session, "login_success", origin, user_id=identity.user_id)
                # Asked last: what it finds undoes the session.
                until = await session.scalar(select(blocked_until(origin, user_id)))
                if until is not None:
                    raise SignInBlocked(until)
        except SignInBlocked:
            await self._attempts.blocked(origin, user_id)
            raise
        except SignInRefused:
            await self._attempts.failed(origin, user_id)
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
        origin: Origin = UNKNOWN,
    ) -> None:
        """Ends the browser session that `identity` came by."""
        async with self._chatter.session() as session, session.begin():
            await session.execute(
                update(BrowserSession)
                .where(BrowserSession.id == identity.session_id)
                .values(revoked_at=func.chatter.clock())
            )
            await record(session, "token_revoked", origin, user_id=identity.user_id)
