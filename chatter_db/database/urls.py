"""The URL of the database: any that libpq knows, checked before anything uses it.

As in `postgresql://user:password@host:port/name?sslmode=require`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.conninfo import conninfo_to_dict

from chatter_db.errors import UsageError
from chatter_db.settings import settings

_PROVES = "?require_auth=scram-sha-256"


@contextmanager
def database_url(dsn: str | None = None) -> Iterator[str]:
    """The Postgres to use: `dsn`, else CHATTER_DATABASE_URL, else the embedded server.

    The embedded server runs for as long as some process is inside this context.

    Raises UsageError for a URL that isn't one of Postgres, EmbeddedServerError
    when there is no server of ours and none can be started.
    """
    chosen = settings().database_url if dsn is None else dsn
    if chosen is not None:
        yield plain_url(chosen)
        return
    # Fails where its platform has none; someone with a server of their own
    # shall not notice.
    from chatter_db.embedded import lease

    with lease() as server:
        # Should it crash, a program of another user may take its port: that one is not told the
        # password. Not in Server.url, for tools whose libpq is older.
        yield server.url + (_PROVES if psycopg.pq.version() >= 160000 else "")


def for_any_driver(url: str) -> str:
    """`url` without what only a newer libpq understands."""
    return url.removesuffix(_PROVES)


def plain_url(dsn: str) -> str:
    """`dsn` without the driver that SQLAlchemy's URLs name (`postgresql+asyncpg://`)."""
    scheme, separator, rest = str(dsn).partition("://")
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
    return bool(conninfo_to_dict(plain_url(dsn)).get("password"))


def place(url: str) -> str:
    """`url` as host, port and database: what may be shown, since it has no password."""
    parts = conninfo_to_dict(url)
    host, port = parts.get("host") or "localhost", parts.get("port") or 5432
    return f"{host}:{port}/{parts.get('dbname') or ''}"
