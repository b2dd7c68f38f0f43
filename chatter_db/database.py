"""Connections to Postgres: asyncpg for applications, psycopg for the command line and writers.

Any URL that libpq knows is good: `postgresql://user:password@host:port/name?sslmode=require`.
"""

import asyncio
import json
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

import asyncpg
import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.json import set_json_loads
from sqlalchemy import Connection, Engine, ExceptionContext, create_engine, event, func, select
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from chatter_db.errors import DatabaseUnavailable, UsageError
from chatter_db.queries import psycopg_query, statement
from chatter_db.settings import settings

if TYPE_CHECKING:
    _Asyncpg = asyncpg.Connection[asyncpg.Record]
else:
    _Asyncpg = asyncpg.Connection

_READ_ONLY = "25006"
INSUFFICIENT_PRIVILEGE = "42501"
# idle_in_transaction_session_timeout, and transaction_timeout (Postgres 17).
_TIMED_OUT = ("25P03", "25P04")
_PASSING = ("08", "53", "57P", _READ_ONLY, *_TIMED_OUT, "40001", "40P01", "55P03", "57014")
# Whatever the database's own default is: who waits for a lock goes on with what it finds then.
_ISOLATION = "READ COMMITTED"
# A value that doesn't go into its column, or past a check.
_UNFIT = ("22", "23514")
_ENDS = ("08", "57P", *_TIMED_OUT)
"""Errors that end a connection, or the attempt to make one."""

KEEPALIVES = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 10_000,
}
"""By libpq's names: a server that vanished without a word is noticed within ten seconds."""

_SOCKET_OPTIONS = {
    "keepalives_idle": "TCP_KEEPIDLE",
    "keepalives_interval": "TCP_KEEPINTVL",
    "keepalives_count": "TCP_KEEPCNT",
    "tcp_user_timeout": "TCP_USER_TIMEOUT",
}


def passes(sqlstate: str) -> bool:
    """Whether Postgres may well take the same when it is tried again.

    Connection gone, out of room, shut down, read-only (a standby that is yet to be promoted, or a
    managed server whose disk is full), serialization failure, deadlock, a timeout of any kind
    (https://www.postgresql.org/docs/current/errcodes-appendix.html).
    """
    return sqlstate.startswith(_PASSING)


@contextmanager
def database_url(dsn: str | None = None) -> Iterator[str]:
    """The Postgres to use: `dsn`, else CHATTER_DATABASE_URL, else the embedded server.

    The embedded server runs for as long as some process is inside this context.

    Raises UsageError for a URL that isn't one of Postgres, EmbeddedServerError
    when there is no server of ours and none can be started.
    """
    chosen = settings().database_url if dsn is None else dsn
    if chosen is not None:
        yield _plain_url(chosen)
        return
    # Fails where its platform has none; someone with a server of their own
    # shall not notice.
    from chatter_db.embedded import lease

    with lease() as server:
        yield server.url


def _plain_url(dsn: str) -> str:
    """`dsn` without the driver that SQLAlchemy's URLs name (`postgresql+asyncpg://`)."""
    scheme, separator, rest = dsn.partition("://")
    if not separator or scheme.partition("+")[0] not in {"postgresql", "postgres"}:
        raise UsageError(
            "The database URL must begin with postgresql://, as in "
            "postgresql://user:password@host:5432/name "
            "(from the argument or CHATTER_DATABASE_URL)."
        )
    if scheme.endswith("+asyncpg"):
        # https://docs.sqlalchemy.org/en/20/dialects/postgresql.html: asyncpg's own name for it.
        rest = re.sub(r"([?&])ssl=", r"\1sslmode=", rest)
    url = f"postgresql://{rest}"
    try:
        ports = str(conninfo_to_dict(url).get("port") or "").split(",")
    except psycopg.ProgrammingError as error:
        if "query parameter" in str(error):
            # Not quoted: what is taken for a parameter may be a part of the password.
            raise UsageError(
                "The database URL has a parameter that libpq doesn't know. Leave out those of "
                "other drivers, such as pgbouncer=true; libpq's are at "
                "https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS"
            ) from None
        ports = ["unreadable"]
    authority, _, path = rest.partition("?")[0].partition("/")
    # libpq takes what follows the first @ for the host, or what follows a / for the database.
    astray = authority.count("@") > 1 or "@" in path
    if astray or any(port and not port.isdigit() for port in ports):
        # Nor this: it may be, too.
        raise UsageError(
            "The database URL can't be read. Special characters of user, password and database "
            "must be percent-encoded (/ is %2F, @ is %40, % is %25)."
        )
    return url


def has_password(dsn: str) -> bool:
    """Whether `dsn` tells a password. Raises UsageError for a URL that isn't one of Postgres."""
    return bool(conninfo_to_dict(_plain_url(dsn)).get("password"))


def place(url: str) -> str:
    """`url` as host, port and database: what may be shown, since it has no password."""
    parts = conninfo_to_dict(url)
    host, port = parts.get("host") or "localhost", parts.get("port") or 5432
    return f"{host}:{port}/{parts.get('dbname') or ''}"


Made = TypeVar("Made", bound=psycopg.Connection[tuple[Any, ...]])


def connect(url: str, **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
    """A psycopg connection.

    Raises DatabaseUnavailable when there is none to be had, UsageError for a parameter of the
    URL that libpq can't take.
    """
    return connect_as(psycopg.Connection[tuple[Any, ...]], url, **options)


def connect_as(kind: type[Made], url: str, **options: Any) -> Made:
    """The same, as an instance of `kind`."""
    if settings().pools_transactions:
        options["prepare_threshold"] = None
    try:
        # Whatever the database is encoded in: what it can't hold it must refuse, and not we.
        connection = kind.connect(
            url, application_name="chatter", client_encoding="utf8", **options
        )
    except psycopg.OperationalError as error:
        raise _unavailable(url, error) from None
    except psycopg.ProgrammingError as error:
        raise UsageError(f"A parameter of the database URL can't be used: {error}.") from None
    set_json_loads(_json_of, connection)
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    if not (connection.info.parameter_status("DateStyle") or "ISO").startswith("ISO"):
        with connection.transaction():
            connection.execute(psycopg_query("iso_dates"))
    return connection


# hide_parameters: an error must not quote what people said.
def sync_engine(url: str) -> Engine:
    """A SQLAlchemy engine on psycopg; raises DatabaseUnavailable when used without a server."""
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: connect(url),
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
        connection: _AsyncpgConnection = dbapi_connection.driver_connection
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
            raise _unavailable(url, error) from None

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
        json_deserializer=_json_of,
        **options,
    )
    event.listen(engine.sync_engine, "handle_error", _leave_read_only)
    event.listen(engine.sync_engine, "checkout", _leave_closed)
    return engine


def _json_of(text: str | bytes) -> Any:
    """JSON; whole numbers of more digits than Python reads (4,300) as text."""
    try:
        return json.loads(text)
    except ValueError:
        return json.loads(text, parse_int=_digits)


def _digits(written: str) -> int | str:
    return written if len(written) > 300 else int(written)


def _leave_read_only(context: ExceptionContext) -> None:
    """Gives up connections to a server that takes no writes.

    The next one finds the primary, if the URL names several servers and
    target_session_attrs=read-write.
    """
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
        context.is_disconnect = True


def _leave_closed(connection: Any, record: object, proxy: object) -> None:
    """Makes a pooled connection anew that was ended while nobody used it.

    Servers and poolers end idle ones (idle_session_timeout, a restart, a database that scales to
    zero). asyncpg has heard of it; a ping before each use would cost half of a small query.
    """
    if connection.driver_connection.is_closed():
        raise DisconnectionError


@contextmanager
def losses_told(url: str) -> Iterator[None]:
    """Raises DatabaseUnavailable for a connection to `url` that is lost inside this context."""
    try:
        yield
    except DBAPIError as error:
        # While it makes its first connection SQLAlchemy doesn't say that this one is of no use.
        state = getattr(error.orig, "sqlstate", None)
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
        state = getattr(error.orig, "sqlstate", None) or ""
        if not state.startswith(_UNFIT):
            raise
        raise UsageError(f"{what} can't be booked: {said(error)}.") from None


def said(error: Exception) -> str:
    """The first line of what went wrong, without the row that DETAIL would quote."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return str(cause).partition("\n")[0].rpartition(">: ")[2]


def denial(error: BaseException) -> str | None:
    """What Postgres says that this login may not; None for any other error."""
    if isinstance(error, DBAPIError):
        # SQLAlchemy's for asyncpg has the driver's own behind it.
        error = getattr(error.orig, "__cause__", None) or error.orig or error
    if getattr(error, "sqlstate", None) != INSUFFICIENT_PRIVILEGE:
        return None
    if isinstance(error, psycopg.Error):
        return error.diag.message_primary or str(error)
    return str(error)


async def asyncpg_connection(url: str, application_name: str, **options: Any) -> _Asyncpg:
    """A connection of our own. Raises what asyncpg.connect raises."""
    connection: _Asyncpg = await asyncpg.connect(
        **asyncpg_options(url, application_name), **options
    )
    if not settings().pools_transactions:
        try:
            await connection.execute(statement("session_keepalives"), timeout=5)
        except BaseException:
            connection.terminate()
            raise
    return connection


def asyncpg_options(url: str, application_name: str) -> dict[str, Any]:
    """What asyncpg has to be told; it then keeps no statement where a session is not ours.

    It gets `url` as libpq reads it, without what it would take for a setting of the server, which
    refuses those: Neon, for one, hands out URLs with channel_binding=require.
    """
    options: dict[str, Any] = {
        "connection_class": _AsyncpgConnection,
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


class _AsyncpgConnection(_Asyncpg):
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


def require_no_unknown_pooler(connection: Connection) -> None:
    """Raises UsageError if a pooler is in between that CHATTER_POOLER doesn't say.

    A pooler gives each client a process id of its own making.
    """
    driver = connection.connection.dbapi_connection
    assert isinstance(driver, psycopg.Connection)
    if settings().pooler is None and driver.info.backend_pid != connection.scalar(
        select(func.pg_backend_pid())
    ):
        raise UsageError(
            f"At {driver.info.host}:{driver.info.port}, before Postgres, is a pooler such as "
            "PgBouncer. Set CHATTER_POOLER=transaction if it pools transactions, "
            "CHATTER_POOLER=session if it pools sessions."
        )


def _unavailable(url: str, error: Exception) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"No connection to Postgres at {place(url)}: {str(error).strip()}\n"
        "Check that it runs and that CHATTER_DATABASE_URL is right."
    )
