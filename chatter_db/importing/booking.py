"""Staged rows into the books, chunk by chunk in one transaction, without deadlocks.

A conversation that this transaction made is seen by nobody else, so its rows can
be booked at once, while Python reads on. One that was there before may be in use:
its rows wait until the file is read, then all these conversations are locked at
once, in the order of the totals triggers, and shortly.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

import psycopg

from chatter_db import database
from chatter_db.errors import ImportRejected
from chatter_db.importing.report import BadLine
from chatter_db.queries import query

Cursor: TypeAlias = psycopg.Cursor[tuple[Any, ...]]

IMPORT_LOCK = int.from_bytes(b"chimport", "big")
"""Imports book one after the other: two that make the same conversations in another order would
deadlock."""

# Where COPY stopped: the row of the chunk, and its column.
_COPY_PLACE = re.compile(r"COPY \w+, line (\d+), column (\w+)")


@dataclass(frozen=True)
class Sums:
    """What was booked: tokens, US dollars, and calls without a cost."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost: Decimal
    unpriced_calls: int


class Booking:
    """Books rows on `cursor`, which is inside a transaction and used by one thread at a time.

    `notice` is told of another import that keeps this one waiting.
    """

    def __init__(self, cursor: Cursor, notice: Callable[[str], None] = lambda _: None) -> None:
        self._cursor = cursor
        self._notice = notice
        self._has_turn = False
        self._deferred = 0
        # Whether every row so far was booked as a new one; then no id came twice.
        self._all_new = True
        self.booked = 0
        self.new_users = 0
        self.new_conversations = 0
        self._run("import_stage")

    def add(self, chunk: list[bytes], *, book: bool) -> None:
        """Takes COPY text of rows; books what can be booked by now, or only remembers the ids."""
        self._copy(chunk)
        copied = self._cursor.rowcount
        if book:
            self._prepare()
            booked = self._book()
            self.booked += booked
            if booked < copied:
                self._deferred += self._run("import_defer")
        else:
            self._run("import_ids")
        if not book or booked < copied:
            self._all_new = False
        self._run("import_empty")

    def look_at(self, chunk: list[bytes]) -> None:
        """Takes COPY text of rows and remembers what it names; books nothing."""
        self._copy(chunk)
        self._run("import_ids")
        self._run("import_names")

    def duplicates(self) -> tuple[list[BadLine], int]:
        """The first rows whose id an earlier line has, and how many there are."""
        if self._all_new:
            return [], 0
        rows = self._cursor.execute(_sql("import_duplicates")).fetchall()
        duplicates = [
            BadLine(line, "key" if keyed else "id", f"is the same as on line {first}")
            for line, first, keyed, _ in rows
        ]
        return duplicates, rows[0][3] if rows else 0

    def finish(self) -> Sums:
        """Books what was put aside, and says what all of it came to."""
        if self._deferred:
            self._run("import_targets")
        before = self._row("import_lock")
        if self._deferred:
            self._run("import_take_up")
            self.booked += self._run("import_book")
        after = self._row("import_sums")
        self._run("import_clear")
        prompt, completion, total, cost, unpriced = (
            x - y for x, y in zip(after, before, strict=True)
        )
        return Sums(int(prompt), int(completion), int(total), cost, int(unpriced))

    def _prepare(self) -> None:
        """Makes the chunk's users and conversations, as far as they are new.

        In one go: while Python reads on, to come back for the next statement costs
        this thread up to 5 ms.
        """
        connection = self._cursor.connection
        if not self._has_turn:
            database.take_turn(connection, IMPORT_LOCK, "import", self._notice)
            self._has_turn = True
        with connection.pipeline():
            for name in ("import_ids", "import_names"):
                connection.execute(_sql(name))
            users = connection.execute(_sql("import_users"))
            conversations = connection.execute(_sql("import_conversations"))
        self.new_users += users.rowcount
        self.new_conversations += conversations.rowcount

    def _book(self) -> int:
        """Books the chunk's rows of conversations that are ours alone; returns how many."""
        try:
            with self._cursor.connection.transaction():
                return self._run("import_book_new")
        except psycopg.errors.UniqueViolation:
            return self._run("import_book")

    def _copy(self, chunk: list[bytes]) -> None:
        try:
            with self._cursor.copy(_sql("import_copy")) as copy:
                for block in chunk:
                    copy.write(block)
        except psycopg.DataError as error:
            place = _COPY_PLACE.match(error.diag.context or "")
            if place is None:
                raise
            row = b"".join(chunk).split(b"\n")[int(place[1]) - 1]
            line = row.partition(b"\t")[0].decode()
            raise ImportRejected(
                f"Postgres refused line {line}, so nothing was booked: {place[2]}: "
                f"{error.diag.message_primary}."
            ) from error

    def _run(self, name: str) -> int:
        """Runs a named query; returns how many rows it changed."""
        return self._cursor.execute(_sql(name)).rowcount

    def _row(self, name: str) -> tuple[Any, ...]:
        row = self._cursor.execute(_sql(name)).fetchone()
        assert row is not None, name
        return row


def _sql(name: str) -> bytes:
    return str(query(name)).encode()
