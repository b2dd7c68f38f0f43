"""Turns: what only one session may do at a time, for the others to wait and say for whom."""

import time
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from chatter_db.queries import psycopg_query

SOON_SECONDS, LOOK_SECONDS = 2.0, 0.05
"""How long another one may take before it is told of: most are done by then."""


def take_turn(
    connection: psycopg.Connection[Any], lock: int, what: str, notice: Callable[[str], None]
) -> None:
    """Holds the advisory lock of that number until the transaction ends.

    Anybody who may connect can hold it: where that lasts, `notice` is told for which session the
    `what` of this one waits.
    """
    key = {"key": lock}
    deadline = time.monotonic() + SOON_SECONDS
    with connection.cursor(row_factory=tuple_row) as cursor:
        while cursor.execute(psycopg_query("turn_soon"), key).fetchone() != (True,):
            if time.monotonic() < deadline:
                time.sleep(LOOK_SECONDS)
                continue
            for pid, login, application in cursor.execute(psycopg_query("lock_holder"), key):
                notice(
                    f"Waits for another {what} to end: of session {pid}, login {login!r}, "
                    f"application {application!r}. If it is none, end it: "
                    f"select pg_terminate_backend({pid});"
                )
            cursor.execute(psycopg_query("turn"), key)
            return
