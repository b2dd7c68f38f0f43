"""The writer's connection, which waits for no answer for ever.

Nothing keeps Postgres from taking minutes: an operator's transaction holds the row of a
conversation, a table is rewritten, a disk hangs, a standby that commits wait for is gone. Those
who are answered by a model meanwhile must not wait with it.
"""

import logging
import time
from collections.abc import Generator
from contextlib import suppress
from typing import Any, TypeVar

import psycopg

from chatter_db import database
from chatter_db.errors import DatabaseUnavailable
from chatter_db.queries import psycopg_query
from chatter_db.settings import settings

log = logging.getLogger(__name__)

Result = TypeVar("Result")

ANSWER_SECONDS = 5.0
"""How long Postgres may take to book a batch, before its records go to the spool."""

CANCEL_SECONDS = 2.0
"""How long Postgres may take to let go of what it was told to cancel."""

POOLED_CANCEL_SECONDS = 30.0
"""How long a pooler may take to pass that on. PgBouncer 1.18 dies of a client that doesn't wait."""

FROZEN_SECONDS = 30.0
"""How long a transaction may take before Postgres 17 ends it, whatever becomes of this process."""

OPTIONS: dict[str, Any] = {"connect_timeout": 3, **database.KEEPALIVES}


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """Cancels what is not answered within `answer_seconds`.

    That raises QueryCanceled. Where not even this is answered the connection is closed, with
    an OperationalError.
    """

    answer_seconds = ANSWER_SECONDS

    def hear(self) -> None:
        """Knows from then on if the server has ended the connection, without asking it.

        Its last words come first, and the end after them.
        """
        with suppress(psycopg.OperationalError):
            self.pgconn.consume_input()
            self.pgconn.consume_input()

    def wait(self, gen: Generator[Any, Any, Result], *args: Any, **kwargs: Any) -> Result:
        """Every statement and every end of a pipeline is waited for here."""
        return super().wait(self._bounded(gen), *args, **kwargs)

    def _bounded(self, gen: Generator[Any, Any, Result]) -> Generator[Any, Any, Result]:
        """The same, but for the moments in which nothing has come: it looks at the clock then.

        psycopg before 3.2.12 tells of none: it waits in C for as long as it takes.
        """
        begin = time.monotonic()
        deadline = begin + self.answer_seconds
        cancelled = False
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > deadline:
                    if cancelled:
                        self.close()
                        raise psycopg.OperationalError(
                            f"Postgres has not answered for {time.monotonic() - begin:.0f} s."
                        )
                    log.warning("Postgres has not answered for %g s.", self.answer_seconds)
                    pooled = settings().pooler is not None
                    with suppress(psycopg.Error):
                        self.cancel_safe(
                            timeout=POOLED_CANCEL_SECONDS if pooled else CANCEL_SECONDS
                        )
                    cancelled = True
                    deadline = time.monotonic() + CANCEL_SECONDS
                wanted = gen.send(ready)
        except StopIteration as ended:
            result: Result = ended.value
            return result


def connect(url: str) -> Connection:
    """A connection to books that count what they are given.

    Raises DatabaseUnavailable if there is none, or not yet: while they are restored or a replica's.
    """
    connection = database.connect_as(Connection, url, autocommit=True, **OPTIONS)
    try:
        if connection.execute(psycopg_query("record_ready")).fetchone() != (True,):
            raise DatabaseUnavailable(
                "The schema chatter is not there, lacks triggers, or is a replica's by a "
                "subscription. Unless it is being restored or promoted, see chatter check."
            )
        if not settings().pools_transactions:  # there it would be a limit of everybody's
            connection.execute(psycopg_query("session_keepalives"))
            limit = {"milliseconds": str(int(FROZEN_SECONDS * 1000))}
            connection.execute(psycopg_query("record_session"), limit)
    except BaseException:
        connection.close()
        raise
    return connection
