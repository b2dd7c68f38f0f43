"""Who is asking: an API key in the Authorization header, or a browser's cookie."""

from ipaddress import ip_address
from math import ceil
from typing import Annotated

from fastapi import Depends, Request
from starlette.exceptions import HTTPException

from chatter_db.accounts import Accounts, Identity, Origin
from chatter_db.keys import KEY_PREFIX
from chatter_db.ledger import Chatter
from chatter_db.server.correlation import correlation_id
from chatter_db.server.limits import RateLimit

COOKIE = "chatter_session"

_UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def chatter_of(request: Request) -> Chatter:
    """The books that this app serves."""
    chatter: Chatter = request.app.state.chatter
    return chatter


def accounts_of(request: Request) -> Accounts:
    accounts: Accounts = request.app.state.accounts
    return accounts


def origin_of(request: Request) -> Origin:
    """Where the request came from. A proxy's headers count only if uvicorn trusts it."""
    try:
        address = ip_address(request.client.host) if request.client else None
    except ValueError:
        address = None
    return Origin(address, request.headers.get("user-agent"), correlation_id())


async def identify(request: Request) -> Identity:
    """Who is asking. Answers 401 for nobody, 403 for another site's page, 429 for too often.

    Who is refused costs a look-up, and writes nothing but the first refusal of a minute.
    """
    accounts, origin = accounts_of(request), origin_of(request)
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    token = request.cookies.get(COOKIE)
    identity: Identity | None = None
    if scheme.lower() == "bearer":
        if secret.startswith(KEY_PREFIX):
            identity = await accounts.keys.of_secret(secret.strip())
    elif token is not None:
        # Another scheme (Basic) is meant for a proxy before us that passes it on.
        _refuse_other_sites(request)
        identity = await accounts.of_session(token)
    if identity is None:
        raise HTTPException(
            401,
            "Sign in: an API key as `Authorization: Bearer chatter_...`, or POST /api/auth/login.",
            {"WWW-Authenticate": "Bearer"},
        )
    limit: RateLimit = request.app.state.rate_limit
    caller = str(identity.user_id)
    wait = limit.wait(caller)
    if wait:
        if limit.is_news(caller):
            await accounts.rate_limited(identity, origin=origin)
        raise HTTPException(
            429,
            f"More than {limit.per_minute} requests a minute. Try again in {ceil(wait)} s.",
            {"Retry-After": str(ceil(wait))},
        )
    await accounts.keys.note_use(identity, origin=origin)
    return identity


def _refuse_other_sites(request: Request) -> None:
    """A cookie comes along with requests that another site's page makes; those may not write.

    Browsers say so in Sec-Fetch-Site (Fetch Metadata), or, where the server is asked without
    TLS and is not on loopback, in Origin alone. The cookie is SameSite=Strict besides, which
    lets the pages of other ports pass.
    """
    if request.method not in _UNSAFE:
        return
    said, origin = (request.headers.get(name) for name in ("sec-fetch-site", "origin"))
    if said is not None:
        own = said in {"same-origin", "none"}
    else:
        own = origin is None or origin.partition("://")[2] == request.headers.get("host")
    if not own:
        raise HTTPException(403, "A page of another site may not do this in your name.")


async def identify_admin(identity: Annotated[Identity, Depends(identify)]) -> Identity:
    """Who is asking, if they are an admin. Answers 403 if not."""
    if identity.role != "admin":
        raise HTTPException(403, "Only an admin may do this.")
    return identity


Books = Annotated[Chatter, Depends(chatter_of)]
Door = Annotated[Accounts, Depends(accounts_of)]
From = Annotated[Origin, Depends(origin_of)]
SignedIn = Annotated[Identity, Depends(identify)]
Admin = Annotated[Identity, Depends(identify_admin)]
