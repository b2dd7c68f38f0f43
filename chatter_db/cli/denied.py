"""What to do where Postgres says that a login may not (SQLSTATE 42501)."""

from collections.abc import Mapping
from typing import Final

from chatter_db import database

# The roles are those of sql/schema/900_roles.sql; what isn't named is the owner's.
_NEEDED: Final[Mapping[str, str]] = {
    "adopt": "the role chatter_app, and the right to read the tables",
    "check": "the role chatter_reader",
    "demo": "the roles chatter_app and chatter_reader",
    "import": "the role chatter_app",
    "key": "the role chatter_app",
    "prices": "the role chatter_reader",
    "rebook": "the role chatter_app",
    "report": "the role chatter_reader",
    "serve": "the roles chatter_app and chatter_reader (with its worker chatter_worker, too)",
    "status": "the role chatter_app, chatter_reader or chatter_worker",
    "tail": "the role chatter_app",
    "top": "the role chatter_reader",
    "trace": "the role chatter_app",
    "unblock": "the role chatter_app",
    "worker": "the role chatter_worker",
}


def advice(command: str, error: BaseException) -> str | None:
    """What `chatter COMMAND`, which ended with `error`, may not do, and which login may.

    None if that was not why.
    """
    cause: BaseException | None = error
    while cause is not None:
        if said := database.denial(cause):
            owner = "It takes a login that owns the schema"
            role = _NEEDED.get(command)
            return f"This login has not the right to do that: {said}. " + (
                f"{owner}, or one with {role}." if role else f"{owner}."
            )
        # Raised `from None` it has said itself what to do.
        hidden = cause.__suppress_context__
        cause = cause.__cause__ or (None if hidden else cause.__context__)
    return None
