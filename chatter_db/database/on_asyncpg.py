"""Connections by asyncpg: for applications, the hub and the server."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import asyncpg
from psycopg.conninfo import conninfo_to_dict

from chatter_db.database.keepalives import KEEPALIVES
from chatter_db.queries import statement
from chatter_db.settings import settings

if TYPE_CHECKING:
    _Asyncpg = asyncpg.Connection[asyncpg.Record]
else:
    _Asyncpg = asyncpg.Connection

_SOCKET_OPTIONS = {
    "keepalives_idle": "TCP_KEEPIDLE",
    "keepalives_interval": "TCP_KEEPINTVL",
    "keepalives_count": "TCP_KEEPCNT",
    "tcp_user_timeout": "TCP_USER_TIMEOUT",
}


async def asyncpg_connection(url: str, application_name: str, **options: Any) -> _Asyncpg:
    """A connection of our own. Raises what asyncpg.connect raises."""
    connection: _Asyncpg = await asyncpg.connect(
        **asyncpg_options(url, application_name), **options
    )
    if not settings().pools_transactions:
        try:
            await connection.execute(statement("session_keepalives"), timeout=5)
            await pin_path(connection)
        except BaseException:
            connection.terminate()
            raise
    return connection


async def pin_path(connection: Any) -> None:
    """Has names without a schema be Postgres's own; not behind a pooler by transaction."""
    if not settings().pools_transactions:
        await connection.execute(
            statement("session_path"),
            connection.get_server_pid(),
            settings().pooler == "session",
            timeout=5,
        )


def asyncpg_options(url: str, application_name: str) -> dict[str, Any]:
    """What asyncpg has to be told; it then keeps no statement where a session is not ours.

    It gets `url` as libpq reads it, without what it would take for a setting of the server, which
    refuses those: Neon, for one, hands out URLs with channel_binding=require.
    """
    options: dict[str, Any] = {
        "connection_class": AsyncpgConnection,
        "server_settings": {"application_name": application_name},
    }
    if settings().pools_transactions:
        options["statement_cache_size"] = 0
    known = {name: value for name, value in conninfo_to_dict(url).items() if name in _FOR_ASYNCPG}
    if known.get("sslrootcert") == "system":
        # The certificates of the operating system, and everything verified:
        # https://www.postgresql.org/docs/current/libpq-ssl.html. asyncpg would look for a file.
        del known["sslrootcert"]
        options["ssl"] = ssl.create_default_context()
    return options | {"dsn": f"postgresql://?{urlencode(known)}"}


class AsyncpgConnection(_Asyncpg):
    """asyncpg's, but for a loss between two of its own steps.

    It has forgotten its protocol then, and what would be known as a lost connection is an
    AttributeError of None.
    """

    def __init__(self, protocol: Any, transport: Any, *args: Any) -> None:
        super().__init__(protocol, transport, *args)
        self._made_in = asyncio.get_running_loop()
        _keep_alive(transport.get_extra_info("socket"))

    def can_be_awaited(self) -> bool:
        """Whether the event loop that it was made in runs."""
        return self._made_in.is_running()

    def terminate(self) -> None:
        # A loop that was closed refuses what it should do then; the server has been told before.
        with suppress(RuntimeError):
            super().terminate()

    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        with _loss_told():
            return await super().execute(*args, **kwargs)

    async def fetch(self, *args: Any, **kwargs: Any) -> Any:
        with _loss_told():
            return await super().fetch(*args, **kwargs)

    async def fetchval(self, *args: Any, **kwargs: Any) -> Any:
        with _loss_told():
            return await super().fetchval(*args, **kwargs)


def _keep_alive(peer: Any) -> None:
    """Has the system say when the server is gone: asyncpg waits for an answer for ever."""
    if peer is None or peer.family not in (socket.AF_INET, socket.AF_INET6):
        return
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, option in _SOCKET_OPTIONS.items():
        # Not every system has each of them.
        if hasattr(socket, option):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), KEEPALIVES[name])


@contextmanager
def _loss_told() -> Iterator[None]:
    try:
        yield
    except AttributeError as error:
        if error.name is None or error.obj is not None:
            raise
        raise asyncpg.InterfaceError("the connection was lost") from error


# Parameters of libpq that asyncpg reads, and those that are settings of the server.
_FOR_ASYNCPG = frozenset(
    {
        *("host", "port", "user", "password", "passfile", "dbname", "service"),
        *("sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version", "sslnegotiation"),
        *("target_session_attrs", "krbsrvname", "gsslib"),
        *("options", "client_encoding"),
    }
)
