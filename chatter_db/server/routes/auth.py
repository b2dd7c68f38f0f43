"""/api/auth: signing in and out, passwords, API keys, users."""

from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BaseModel, Field, SecretStr
from sqlalchemy import select
from starlette.exceptions import HTTPException

from chatter_db.accounts import (
    MAX_KEY_NAME,
    MAX_PASSWORD,
    MIN_PASSWORD,
    SESSION_LENGTH,
    Identity,
)
from chatter_db.keys import NewKey
from chatter_db.models import MAX_NAME, ApiKey, UserRole
from chatter_db.server.identity import COOKIE, Admin, Books, Door, From, SignedIn
from chatter_db.server.problems import documented

router = APIRouter(prefix="/api/auth", tags=["auth"])


def _of_characters(secret: SecretStr) -> SecretStr:
    try:
        secret.get_secret_value().encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair is no character") from None
    return secret


# Unlike other texts Pydantic takes a secret as it is.
Secret = Annotated[SecretStr, AfterValidator(_of_characters)]
Password = Annotated[Secret, Field(min_length=MIN_PASSWORD, max_length=MAX_PASSWORD)]


class Login(BaseModel):
    """A user with a password, or an API key."""

    user: Annotated[str, Field(min_length=1, max_length=MAX_NAME)] | None = None
    password: Annotated[Secret, Field(max_length=MAX_PASSWORD)] | None = None
    api_key: Annotated[Secret, Field(max_length=200)] | None = None


class Me(BaseModel):
    """Who is signed in."""

    user_id: UUID
    user: str
    role: UserRole


class PasswordChange(BaseModel):
    old: Annotated[Secret, Field(max_length=MAX_PASSWORD)]
    new: Password


class Rotation(BaseModel):
    lasts_days: Annotated[int, Field(ge=1, le=3650)] | None = None

    @property
    def lasts(self) -> timedelta | None:
        return timedelta(days=self.lasts_days) if self.lasts_days is not None else None


class KeyWanted(Rotation):
    name: Annotated[str, Field(min_length=1, max_length=MAX_KEY_NAME)]


class Key(BaseModel):
    """An API key, without its secret."""

    id: UUID
    name: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class MadeKey(BaseModel):
    """An API key that was just made; `secret` is shown this once."""

    id: UUID
    secret: str
    expires_at: datetime | None


class UserWanted(BaseModel):
    user: Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=r"^[^\x00]+$")]
    password: Password | None = None
    role: UserRole = "user"


@router.post("/login", responses=documented(401, 422, 429))
async def login(
    wanted: Login, request: Request, response: Response, accounts: Door, origin: From
) -> Me:
    """Begins a browser session: sets a cookie that scripts can't read."""
    if wanted.api_key is not None and wanted.user is None and wanted.password is None:
        identity, token = await accounts.sign_in_with_key(
            wanted.api_key.get_secret_value(), origin=origin
        )
    elif wanted.user is not None and wanted.password is not None and wanted.api_key is None:
        identity, token = await accounts.sign_in(
            wanted.user, wanted.password.get_secret_value(), origin=origin
        )
    else:
        raise HTTPException(422, "Give user and password, or api_key alone.")
    response.set_cookie(
        COOKIE,
        token,
        max_age=int(SESSION_LENGTH.total_seconds()),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return _me(identity)


@router.post("/logout", status_code=204, responses=documented(401, 403, 429))
async def logout(identity: SignedIn, response: Response, accounts: Door, origin: From) -> None:
    """Ends the browser session; with an API key it does nothing."""
    if identity.session_id is not None:
        await accounts.sign_out(identity, origin=origin)
    response.delete_cookie(COOKIE)


@router.get("/me", responses=documented(401, 429))
async def me(identity: SignedIn) -> Me:
    """Who is signed in."""
    return _me(identity)


@router.post("/password", status_code=204, responses=documented(401, 403, 422, 429))
async def change_password(
    wanted: PasswordChange, identity: SignedIn, accounts: Door, origin: From
) -> None:
    """Changes the password; every browser of the user is signed out."""
    old = await accounts.check_password(identity, wanted.old.get_secret_value(), origin=origin)
    new = wanted.new.get_secret_value()
    await accounts.set_password(identity.user_id, new, replacing=old, origin=origin)


@router.get("/keys", responses=documented(401, 429))
async def keys(identity: SignedIn, chatter: Books) -> list[Key]:
    """The user's API keys, newest first."""
    wanted = select(ApiKey).where(ApiKey.user_id == identity.user_id).order_by(ApiKey.id.desc())
    async with chatter.session(acting_for=identity.user_id) as session:
        rows = (await session.scalars(wanted)).all()
    return [Key.model_validate(row, from_attributes=True) for row in rows]


@router.post("/keys", status_code=201, responses=documented(401, 403, 422, 429))
async def create_key(
    wanted: KeyWanted, identity: SignedIn, accounts: Door, origin: From
) -> MadeKey:
    """A new API key; it ends no later than the key that one has signed in with."""
    return _made(
        await accounts.keys.create(
            identity.user_id, wanted.name, lasts=wanted.lasts, by=identity, origin=origin
        )
    )


@router.post(
    "/keys/{key_id}/rotate", status_code=201, responses=documented(401, 403, 404, 422, 429)
)
async def rotate_key(
    key_id: UUID,
    identity: SignedIn,
    accounts: Door,
    origin: From,
    wanted: Rotation | None = None,
) -> MadeKey:
    """A new key in the place of an old one, which stays good for a day.

    It ends when the old one was to end, or after `lasts_days`; in any case no later than the
    key that one has signed in with.
    """
    made = await accounts.keys.rotate(
        identity.user_id,
        key_id,
        lasts=wanted.lasts if wanted is not None else None,
        by=identity,
        origin=origin,
    )
    if made is None:
        raise HTTPException(404, "You have no such key that is still good.")
    return _made(made)


@router.delete("/keys/{key_id}", status_code=204, responses=documented(401, 403, 404, 422, 429))
async def revoke_key(key_id: UUID, identity: SignedIn, accounts: Door, origin: From) -> None:
    """Revokes a key at once."""
    if not await accounts.keys.revoke(identity.user_id, key_id, origin=origin):
        raise HTTPException(404, "You have no such key that is still good.")


@router.post("/users", status_code=201, responses=documented(401, 403, 422, 429))
async def create_user(wanted: UserWanted, _: Admin, accounts: Door, origin: From) -> Me:
    """A new user; for admins."""
    password = wanted.password.get_secret_value() if wanted.password is not None else None
    return _me(
        await accounts.create_user(wanted.user, password=password, role=wanted.role, origin=origin)
    )


def _me(identity: Identity) -> Me:
    return Me(user_id=identity.user_id, user=identity.user, role=identity.role)


def _made(key: NewKey) -> MadeKey:
    return MadeKey(id=key.id, secret=key.secret, expires_at=key.expires_at)
