"""Connections by psycopg: for the command line, the sync door and the writers."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from psycopg.types.json import set_json_loads
from sqlalchemy import Connection, func, select

from chatter_db.database.jsonb import json_of
from chatter_db.database.refusals import unavailable
from chatter_db.errors import UsageError
from chatter_db.queries import psycopg_query, statement
from chatter_db.settings import settings

CANCEL_SECONDS = 1.0
"""How long Postgres may take to hear that a statement is to end."""

Made = TypeVar("Made", bound=psycopg.Connection[tuple[Any, ...]])


def connect(url: str, **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
    """A psycopg connection.

    Raises DatabaseUnavailable when there is none to be had, UsageError for a parameter of the
    URL that libpq can't take.
    """
    return connect_as(psycopg.Connection[tuple[Any, ...]], url, **options)


def connect_as(kind: type[Made], url: str, *, pins_path: bool = True, **options: Any) -> Made:
    """The same, as an instance of `kind`; with the path of the login unless `pins_path`."""
    if settings().pools_transactions:
        options["prepare_threshold"] = None
    connection: Made | None = None
    try:
        # Whatever the database is encoded in: what it can't hold it must refuse, and not we.
        connection = kind.connect(
            url, application_name="chatter", client_encoding="utf8", **options
        )
    except psycopg.OperationalError as error:
        raise unavailable(url, error) from None
    except psycopg.ProgrammingError as error:
        raise UsageError(f"A parameter of the database URL can't be used: {error}.") from None
    except OSError as error:
        # Too many open files. Not raised here: it would hold what there is of the connection open,
        # and so keep the spool from a file.
        failure = unavailable(url, error)
    if connection is None:
        raise failure
    set_json_loads(json_of, connection)
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    if not (connection.info.parameter_status("DateStyle") or "ISO").startswith("ISO"):
        with connection.transaction():
            connection.execute(psycopg_query("iso_dates"))
    if pins_path and not settings().pools_transactions:
        try:
            _pin_path(connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, psycopg.OperationalError):
                raise unavailable(url, error) from None
            raise
    return connection


def _pin_path(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    with connection.transaction(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(
            statement("session_path"),
            [connection.info.backend_pid, settings().pooler == "session"],
        )


def driver_of(connection: Connection) -> psycopg.Connection[Any]:
    """psycopg's connection below one of SQLAlchemy's."""
    driver = connection.connection.dbapi_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


@contextmanager
def interruptible(connection: Connection) -> Iterator[None]:
    """Ctrl-C ends what the connection has under way, and the connection.

    psycopg does so itself but in the moment before it waits; to roll back fails then.
    """
    try:
        yield
    except KeyboardInterrupt:
        with suppress(psycopg.Error):
            driver_of(connection).cancel_safe(timeout=CANCEL_SECONDS)
        connection.invalidate()
        raise


def require_no_unknown_pooler(connection: Connection) -> None:
    """Raises UsageError if a pooler is in between that CHATTER_POOLER doesn't say.

    A pooler gives each client a process id of its own making.
    """
    driver = driver_of(connection)
    if settings().pooler is None and driver.info.backend_pid != connection.scalar(
        select(func.pg_backend_pid())
    ):
        raise UsageError(
            f"At {driver.info.host}:{driver.info.port}, before Postgres, is a pooler such as "
            "PgBouncer. Set CHATTER_POOLER=transaction if it pools transactions, "
            "CHATTER_POOLER=session if it pools sessions."
        )
