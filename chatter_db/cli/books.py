"""How every command gets to the books."""

import importlib.util
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from sqlalchemy import Connection

from chatter_db import database, migrating
from chatter_db.cli.tables import escaped
from chatter_db.errors import UsageError
from chatter_db.settings import settings

if TYPE_CHECKING:
    from chatter_db.ledger import Chatter

errors = Console(stderr=True)
"""For what is no answer of a command, so that its output is good for a pipe."""


@contextmanager
def migrated_url() -> Iterator[str]:
    """The database of the settings, its schema current.

    The embedded server's is migrated on the way; a server of the user's own
    never without `chatter migrate`. Raises DatabaseUnavailable, also for a connection
    that is lost inside this context.
    """
    with database.database_url() as url:
        if settings().database_url is None:
            migrating.migrate(url, notice=warn)
        with database.losses_told(url):
            with connected(url) as connection:
                migrating.require_current(connection)
            yield url


@asynccontextmanager
async def open_chatter(*, records: bool = True) -> AsyncIterator["Chatter"]:
    """The Chatter of the settings; a command that reads opens it without `records`.

    Raises DatabaseUnavailable, also for a connection that is lost inside this context.
    """
    from chatter_db.ledger import Chatter

    async with Chatter.connect(records=records) as chatter:
        with database.losses_told(chatter.url):
            yield chatter


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """A connection to that database; none is left open after it."""
    engine = database.sync_engine(url)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def needs_server_extra(*modules: str) -> None:
    """Raises UsageError where one of these modules, of the extra `server`, is not installed."""
    # Each is looked for: an app of one's own may have FastAPI, and nothing else of it.
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"This needs {', '.join(missing)}, of the extra server: install chatter-db[server],"
            " in a clone pip install '.[server]'."
        )


def warn(message: str) -> None:
    """Prints a warning on stderr."""
    errors.print("[yellow]Warning:[/]", escaped(message), highlight=False)
