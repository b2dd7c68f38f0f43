"""What an error of Postgres means: whether to try again, and what may be said of it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy.exc import DBAPIError

from chatter_db.database.urls import place
from chatter_db.errors import DatabaseUnavailable, UsageError

READ_ONLY = "25006"
_INSUFFICIENT_PRIVILEGE = "42501"
# idle_in_transaction_session_timeout, and transaction_timeout (Postgres 17).
_TIMED_OUT = ("25P03", "25P04")
_PASSING = ("08", "53", "57P", READ_ONLY, *_TIMED_OUT, "40001", "40P01", "55P03", "57014")
# A value that doesn't go into its column, or past a check.
_UNFIT = ("22", "23514")
_ENDS = ("08", "57P", *_TIMED_OUT)
"""Errors that end a connection, or the attempt to make one."""


def sqlstate(error: BaseException) -> str | None:
    """The code of an error of either driver, or of SQLAlchemy around it; None if it has none.

    https://www.postgresql.org/docs/current/errcodes-appendix.html
    """
    cause = error.orig if isinstance(error, DBAPIError) else error
    state: str | None = getattr(cause, "sqlstate", None)
    return state


def passes(sqlstate: str) -> bool:
    """Whether Postgres may well take the same when it is tried again.

    Connection gone, out of room, shut down, read-only (a standby that is yet to be promoted, or a
    managed server whose disk is full), serialization failure, deadlock, a timeout of any kind
    (https://www.postgresql.org/docs/current/errcodes-appendix.html).
    """
    return sqlstate.startswith(_PASSING)


@contextmanager
def losses_told(url: str) -> Iterator[None]:
    """Raises DatabaseUnavailable for a connection to `url` that is lost inside this context."""
    try:
        yield
    except DBAPIError as error:
        # While it makes its first connection SQLAlchemy doesn't say that this one is of no use.
        state = sqlstate(error)
        cut = state is None and isinstance(error.orig, psycopg.OperationalError)
        ended = state is not None and state.startswith(_ENDS)
        if not (cut or ended or error.connection_invalidated):
            raise
        raise DatabaseUnavailable(
            f"Lost the connection to Postgres at {place(url)}: {error.orig}"
        ) from None


@contextmanager
def refusals_told(what: str) -> Iterator[None]:
    """Raises UsageError if Postgres, or asyncpg before it, can't take a value of `what`."""
    try:
        yield
    except DBAPIError as error:
        if not (sqlstate(error) or "").startswith(_UNFIT):
            raise
        raise UsageError(f"{what} can't be booked: {said(error)}.") from None


def hindrance(error: BaseException) -> str | None:
    """What keeps Postgres from doing it now, though it may another time; None if it is not that."""
    state = sqlstate(error)
    if state is None or not passes(state):
        return None
    return f"Postgres can't do that now: {said(error)} (SQLSTATE {state})."


# What SQLAlchemy puts before the words of asyncpg.
_KIND = re.compile(r"^<class '[^']*'>: ")


def said(error: BaseException) -> str:
    """The first line of what went wrong, without the row that DETAIL would quote."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return _KIND.sub("", str(cause).partition("\n")[0])


def denial(error: BaseException) -> str | None:
    """What Postgres says that this login may not; None for any other error."""
    return said(error) if sqlstate(error) == _INSUFFICIENT_PRIVILEGE else None


def unavailable(url: str, error: Exception) -> DatabaseUnavailable:
    """That there is no connection to `url`, and what to look at."""
    return DatabaseUnavailable(
        f"No connection to Postgres at {place(url)}: {str(error).strip()}\n"
        "Check that it runs and that CHATTER_DATABASE_URL is right."
    )
