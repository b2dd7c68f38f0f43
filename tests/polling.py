"""Waiting for what happens elsewhere: looked for again and again, and not for ever."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import psycopg

SECONDS = 60.0
PAUSE_SECONDS = 0.01

WAITS_FOR_A_LOCK = (
    "select pid from pg_stat_activity "
    "where datname = current_database() and wait_event_type = 'Lock'"
)
"""A query: the sessions that do, in this database."""


async def until(condition: Callable[[], object], what: str = "", seconds: float = SECONDS) -> None:
    """Returns when the condition holds; fails, saying `what` does not, after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(PAUSE_SECONDS)


def wait_until(condition: Callable[[], object], what: str = "", seconds: float = SECONDS) -> None:
    """The same for code without an event loop."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(PAUSE_SECONDS)


def wait_until_blocked(holder: psycopg.Connection[Any]) -> None:
    """Returns when another session waits for a lock of this one."""
    blocked = (
        # Not pg_stat_activity: a transaction knows only those who were there when it first looked.
        "select from pg_locks where not granted and pg_backend_pid() = any(pg_blocking_pids(pid))"
    )
    wait_until(lambda: holder.execute(blocked).fetchall(), "somebody waits")
