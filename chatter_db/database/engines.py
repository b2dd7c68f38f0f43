"""SQLAlchemy's engines, on psycopg and on asyncpg."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
from sqlalchemy import Engine, ExceptionContext, create_engine, event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from chatter_db.database.jsonb import json_of
from chatter_db.database.on_asyncpg import AsyncpgConnection, asyncpg_connection
from chatter_db.database.on_psycopg import connect
from chatter_db.database.refusals import READ_ONLY, sqlstate, unavailable
from chatter_db.settings import settings

# Whatever the database's own default is: who waits for a lock goes on with what it finds then.
_ISOLATION = "READ COMMITTED"


# hide_parameters: an error must not quote what people said.
def sync_engine(url: str, **options: Any) -> Engine:
    """A SQLAlchemy engine on psycopg; raises DatabaseUnavailable when used without a server."""
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: connect(url, **options),
        hide_parameters=True,
        isolation_level=_ISOLATION,
        # psycopg doesn't hear of an end before it asks.
        pool_pre_ping=True,
    )
    event.listen(engine, "handle_error", _leave_read_only)
    return engine


class _AsyncpgDialect(PGDialect_asyncpg):
    """SQLAlchemy's, but for a connection that is lost while it is set up.

    SQLAlchemy asks asyncpg for codecs then, and lets its errors through as they are.
    """

    supports_statement_cache = True

    async def setup_asyncpg_json_codec(self, conn: Any) -> None:
        with self._losses_wrapped():
            await super().setup_asyncpg_json_codec(conn)  # type: ignore[no-untyped-call]

    async def setup_asyncpg_jsonb_codec(self, conn: Any) -> None:
        with self._losses_wrapped():
            await super().setup_asyncpg_jsonb_codec(conn)  # type: ignore[no-untyped-call]

    def do_close(self, dbapi_connection: Any) -> None:
        connection: AsyncpgConnection = dbapi_connection.driver_connection
        if connection.can_be_awaited():
            super().do_close(dbapi_connection)  # type: ignore[no-untyped-call]
        else:
            connection.terminate()

    @contextmanager
    def _losses_wrapped(self) -> Iterator[None]:
        try:
            yield
        except (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError) as error:
            # The words by which SQLAlchemy knows a connection that is of no use.
            raise self.loaded_dbapi.InterfaceError(f"connection is closed: {error}") from error


registry.register("postgresql.chatter_asyncpg", __name__, _AsyncpgDialect.__name__)


def async_engine(url: str, **options: Any) -> AsyncEngine:
    """A SQLAlchemy engine on asyncpg; raises DatabaseUnavailable when used without a server."""

    async def connect_async() -> "asyncpg.Connection[asyncpg.Record]":
        try:
            return await asyncpg_connection(url, "chatter")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise unavailable(url, error) from None

    if settings().pools_transactions:
        # Without a name: SQLAlchemy prepares every statement, and would name it else.
        options["connect_args"] = {
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": str,
        }
    engine = create_async_engine(
        "postgresql+chatter_asyncpg://",
        async_creator=connect_async,
        hide_parameters=True,
        isolation_level=_ISOLATION,
        json_deserializer=json_of,
        **options,
    )
    event.listen(engine.sync_engine, "handle_error", _leave_read_only)
    event.listen(engine.sync_engine, "checkout", _leave_closed)
    return engine


def _leave_read_only(context: ExceptionContext) -> None:
    """Gives up connections to a server that takes no writes.

    The next one finds the primary, if the URL names several servers and
    target_session_attrs=read-write.
    """
    if sqlstate(context.original_exception) == READ_ONLY:
        context.is_disconnect = True


def _leave_closed(connection: Any, record: object, proxy: object) -> None:
    """Makes a pooled connection anew that was ended while nobody used it.

    Servers and poolers end idle ones (idle_session_timeout, a restart, a database that scales to
    zero). asyncpg has heard of it; a ping before each use would cost half of a small query.
    """
    if connection.driver_connection.is_closed():
        raise DisconnectionError
