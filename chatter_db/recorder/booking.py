"""Records become rows: one transaction for a batch, over one connection.

And so that the worker can tell which runs nobody will end, a process that has booked one
says now and then that it lives.
"""

import logging
import os
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias
from uuid import UUID

import psycopg
from langchain_core.utils.uuid import uuid7

from chatter_db import database
from chatter_db.errors import DatabaseUnavailable
from chatter_db.queries import psycopg_query
from chatter_db.recorder.begun import Begun
from chatter_db.recorder.connection import Connection, connect
from chatter_db.recorder.records import (
    MessageRow,
    Record,
    RunEnded,
    RunStarted,
    ToolCallRow,
    ToolRun,
    as_json,
)

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 10.0
"""How often a process that records says that it lives; see chatter.sweep_executions()."""

_UNREADY = ("42", "3F")
"""Errors of what a statement asks for or may, never of what it writes."""

_ELSEWHERE = (*_UNREADY, "25006")
"""Errors after which the next connection may find more: a schema that is whole, or the primary (see
database.sync_engine)."""

Cursor: TypeAlias = psycopg.Cursor[tuple[Any, ...]]


class Booking:
    """Books records, for one thread. `within` is how many seconds Postgres has for an answer."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Connection | None = None
        self._parents: Connection | None = None
        self._begun = Begun()
        self._beat_at: float | None = None
        self.id = uuid7()
        """Of this process in chatter.recorders, once it has booked a run."""

    def book(
        self, records: Sequence[Record], *, within: float, patience: float = 0.0
    ) -> dict[UUID, UUID]:
        """One transaction, repeated for `patience` seconds; conversation by execution.

        Raises psycopg.Error or DatabaseUnavailable; `passes` says if it is worth another try.
        """
        deadline = time.monotonic() + patience
        pause = 0.02
        while True:
            try:
                booked = self._write(self._connected(within), records)
            except (psycopg.Error, DatabaseUnavailable) as error:
                if not passes(error) or time.monotonic() + pause > deadline:
                    raise
                time.sleep(pause)
                pause *= 2
            else:
                self.note(records)
                if self._beat_at is None:
                    self._beat_at = time.monotonic() + HEARTBEAT_SECONDS
                return booked

    def note(self, records: Iterable[Record]) -> None:
        """Remembers the starts among what is booked, or lost: what a run brings later needs it."""
        self._begun.note(records)

    def starts_of(self, records: Iterable[Record]) -> list[RunStarted]:
        """The starts of runs that `records` are of and that are noted."""
        return self._begun.starts_of(records)

    @property
    def beat_in(self) -> float | None:
        """In how many seconds a heartbeat is due, if there is one."""
        return None if self._beat_at is None else max(0.0, self._beat_at - time.monotonic())

    def beat(self, *, within: float) -> None:
        """Says that this process lives, if that is due."""
        if self._beat_at is not None and time.monotonic() > self._beat_at:
            self._beat_at = time.monotonic() + HEARTBEAT_SECONDS
            self._tell("record_recorder", self._card(), within)

    def close(self, *, within: float) -> None:
        """Says that this process records no more."""
        if self._beat_at is not None:
            self._tell("record_recorder_stop", {"id": self.id}, within)
        if self._connection is not None:
            self._connection.close()

    def leave(self) -> None:
        """In a child of fork: leaves the connection to the parent, and begins anew."""
        # Kept, because to drop it would be to close it.
        self._parents = self._connection
        self._connection = None
        self._begun = Begun()
        self._beat_at = None
        self.id = uuid7()

    def _card(self) -> dict[str, Any]:
        return {"id": self.id, "host": socket.gethostname(), "process_id": os.getpid()}

    def _tell(self, name: str, values: dict[str, Any], within: float) -> None:
        """Says something of this process; if Postgres is away or refuses it, not now."""
        try:
            self._connected(within).execute(psycopg_query(name), values)
        except (psycopg.Error, DatabaseUnavailable) as error:
            if self._connection is not None:
                self._connection.close()
            log.warning("The recorder's heartbeat was not booked: %s", reason(error))

    def _connected(self, within: float) -> Connection:
        """The connection. No ping before each use: one that broke is made anew."""
        if self._connection is not None:
            self._connection.hear()
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._url)
        self._connection.answer_seconds = within
        return self._connection

    def _write(self, connection: Connection, records: Sequence[Record]) -> dict[UUID, UUID]:
        """Writes `records`; one message in one statement, else all in one journey to Postgres."""
        try:
            if len(records) == 1 and isinstance(records[0], MessageRow):
                connection.execute(psycopg_query("record_messages"), {"rows": as_json(records)})
                return {}
            with connection.pipeline(), connection.transaction():
                if self._beat_at is None and any(isinstance(r, RunStarted) for r in records):
                    connection.execute(psycopg_query("record_recorder"), self._card())
                found = _send(connection, records)
        except psycopg.Error as error:
            if (error.sqlstate or "").startswith(_ELSEWHERE):
                connection.close()
            raise
        return dict(found.fetchall()) if found is not None else {}


def _send(connection: Connection, records: Sequence[Record]) -> Cursor | None:
    """Sends a transaction's statements; where runs start, the last finds their conversations."""
    starts = [r for r in records if isinstance(r, RunStarted)]
    messages = [r for r in records if isinstance(r, MessageRow)]
    tool_calls = [r for r in records if isinstance(r, ToolCallRow)]
    # A tool that began and ended within the batch: the last word counts.
    tool_runs = list({r.id: r for r in records if isinstance(r, ToolRun)}.values())
    ends = [r for r in records if isinstance(r, RunEnded)]
    runs = {"execution_ids": execution_ids(records)}

    def record(rows: Sequence[Record], *statements: str) -> None:
        values = {"rows": as_json(rows)}
        for name in statements:
            connection.execute(psycopg_query(f"record_{name}"), values)

    if starts:
        record(starts, "users", "conversations", "new_conversations", "runs")
    if len(records) > 1:
        connection.execute(psycopg_query("lock_run_conversations"), runs)
    if messages:
        record(messages, "messages")
    if tool_calls:
        record(tool_calls, "tool_calls")
    if tool_runs:
        record(tool_runs, "tool_runs")
    if ends:
        record(ends, "answers", "run_ends")
    if not starts:
        return None
    return connection.execute(psycopg_query("run_conversations"), runs)


def execution_ids(records: Iterable[Record]) -> list[UUID]:
    """The runs that `records` are of, each once, in their order."""
    return list({record.execution_id: None for record in records})


def passes(error: Exception) -> bool:
    """Whether what failed may be booked when it is tried again."""
    if isinstance(error, psycopg.Error):
        if error.sqlstate is None:
            # Not from the server: libpq lost it.
            return isinstance(error, psycopg.OperationalError)
        # Until a right is granted, or a schema restored or migrated, nothing is lost.
        return error.sqlstate.startswith(_UNREADY) or database.passes(error.sqlstate)
    return isinstance(error, DatabaseUnavailable)


def lacks_parent(error: Exception) -> bool:
    """Whether a row's run or conversation is not in the books."""
    return isinstance(error, psycopg.errors.NotNullViolation | psycopg.errors.ForeignKeyViolation)


def reason(error: Exception) -> str:
    """What Postgres said, without its DETAIL: that quotes the row, text and all."""
    said = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return said or str(error).partition("\n")[0]
