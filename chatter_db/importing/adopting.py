"""Adopts the conversations and messages of another application's tables.

The tables are read in one snapshot, so that the application may go on writing, and
booked batch by batch, each in a transaction of its own. A row is known by its id: to
adopt again, after a kill or because the tables grew, books what is not there yet.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg.rows import tuple_row
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from chatter_db import database
from chatter_db.errors import ChatterError, DatabaseUnavailable, ImportRejected, UsageError
from chatter_db.importing.booking import IMPORT_LOCK, Booking
from chatter_db.importing.reading import Record
from chatter_db.importing.report import SHOWN_LINES, BadLine, BadLines
from chatter_db.importing.rows import RowMaker
from chatter_db.importing.tables import Findings, Tables, record
from chatter_db.queries import query

# Rows a transaction.
BATCH: Final = 20_000
# Called with the messages read and the messages in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BadRow:
    """A message that can't be booked; `id` as the application has it."""

    id: Any
    field: str | None
    reason: str


@dataclass(frozen=True)
class AdoptReport:
    """What was wrong with the tables, and what of them was booked.

    `booked` and `already_there` are messages, `rejected` those that can't be booked, of
    which `bad_rows` holds the first. `seconds` is wall-clock time. A dry run books nothing
    and tells what it would.
    """

    found: Findings
    ignored_columns: tuple[str, ...]
    booked: int
    already_there: int
    rejected: int
    bad_rows: tuple[BadRow, ...]
    new_conversations: int
    new_users: int
    seconds: float
    dry_run: bool


def adopt(
    books: str,
    *,
    source: str | None = None,
    conversations: str = "public.conversations",
    messages: str = "public.messages",
    mapping: Mapping[str, str] | None = None,
    ignored: Collection[str] = (),
    batch: int = BATCH,
    dry_run: bool = False,
    progress: Progress = lambda *_: None,
    notice: Callable[[str], None] = lambda _: None,
) -> AdoptReport:
    """Copies two tables into the books at the URL `books` and says what was wrong with them.

    `source` is the URL of the database that has the tables, by default the books' own. The
    tables are only read. `mapping` and `ignored` are those of tables.Tables. `batch` is
    the rows of a transaction: fewer lock for less long. `notice` is told of an import that takes
    seconds, for which this waits.

    Raises UsageError for a wrong argument, ImportRejected when Postgres refuses the rows,
    DatabaseUnavailable. What was booked before an error stays, and is found booked next time.
    """
    started = time.perf_counter()
    if batch < 1:
        raise UsageError(f"A batch has at least 1 row, not {batch}.")
    # By the path of the login: a table may be named without its schema.
    reading = database.sync_engine(source or books, pins_path=False)
    writing = database.sync_engine(books)
    try:
        with reading.connect().execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        ) as connection:
            tables = Tables(connection, conversations, messages, mapping or {}, ignored)
            found = tables.findings(connection, SHOWN_LINES)
            adoption = _Adoption(connection, tables, found, batch, progress, notice)
            if dry_run:
                adoption.attempt(writing)
            else:
                adoption.book(books, writing)
    except (DBAPIError, psycopg.Error) as error:
        raise _refusal(error) from error
    finally:
        reading.dispose()
        writing.dispose()
    return adoption.report(seconds=time.perf_counter() - started, dry_run=dry_run)


class _Adoption:
    """The rows on their way from `connection`, whose snapshot stays the same."""

    def __init__(
        self,
        connection: Connection,
        tables: Tables,
        found: Findings,
        batch: int,
        progress: Progress,
        notice: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._found = found
        self._batch = batch
        self._progress = progress
        self._notice = notice
        self._bad = BadLines()
        self._bad_rows: list[BadRow] = []
        self._rows = RowMaker({}, self._bad)
        self._booked = self._new_conversations = self._new_users = 0

    def attempt(self, engine: Engine) -> None:
        """Compares every row with the books, in temporary tables: no lock, nothing to undo."""
        with engine.connect() as writer:
            with database.driver_of(writer).cursor(row_factory=tuple_row) as cursor:
                booking = Booking(cursor)
                for rows in self._partitions(self._tables.conversations()):
                    external_ids, names, *_ = map(list, zip(*rows, strict=True))
                    given = {"external_ids": external_ids, "names": names}
                    writer.execute(query("adopt_trial_names"), given)
                for chunk in self._chunks():
                    booking.look_at(chunk)
                    writer.execute(query("adopt_trial_next"))
            found = writer.execute(query("adopt_trial")).one()
            self._booked, self._new_conversations, self._new_users = found
            writer.rollback()

    def book(self, books: str, engine: Engine) -> None:
        """Books every conversation, then every message."""
        for rows in self._partitions(self._tables.conversations()):
            with engine.begin() as writer:
                self._book_conversations(writer, rows)
        with database.connect(books) as writer:
            for chunk in self._chunks():
                with writer.transaction(), writer.cursor(row_factory=tuple_row) as cursor:
                    booking = Booking(cursor, self._notice)
                    booking.add(chunk, book=True)
                    booking.finish()
                self._booked += booking.booked
                self._new_conversations += booking.new_conversations
                self._new_users += booking.new_users

    def report(self, *, seconds: float, dry_run: bool) -> AdoptReport:
        return AdoptReport(
            found=self._found,
            ignored_columns=self._tables.without_meaning,
            booked=self._booked,
            already_there=self._rows.made - self._booked,
            rejected=self._bad.count,
            bad_rows=tuple(self._bad_rows),
            new_conversations=self._new_conversations,
            new_users=self._new_users,
            seconds=seconds,
            dry_run=dry_run,
        )

    def _book_conversations(self, writer: Connection, rows: Sequence[Any]) -> None:
        external_ids, names, titles, statuses, times = map(list, zip(*rows, strict=True))
        writer.execute(query("adopt_in_utc"))
        database.take_turn(database.driver_of(writer), IMPORT_LOCK, "import", self._notice)
        self._new_users += writer.execute(query("adopt_users"), {"names": names}).rowcount
        self._new_conversations += writer.execute(
            query("adopt_conversations"),
            {
                "external_ids": external_ids,
                "names": names,
                "titles": titles,
                "statuses": statuses,
                "times": times,
            },
        ).rowcount

    def _chunks(self) -> Iterator[list[bytes]]:
        """The messages as COPY text, a batch at a time."""
        done = 0
        for rows in self._partitions(self._tables.messages()):
            known = len(self._bad.first)
            records = [dict(record(row._mapping)) for row in rows]
            yield list(self._rows.blocks(_numbered(records, done)))
            for bad in self._bad.first[known:]:
                self._bad_rows.append(_bad_row(bad, records[bad.line - done]))
            done += len(rows)
            self._progress(done, self._found.messages)

    def _partitions(self, statement: Any) -> Iterator[Sequence[Any]]:
        streamed = self._connection.execution_options(stream_results=True)
        with streamed.execute(statement) as result:
            yield from result.partitions(self._batch)


def _numbered(records: Sequence[dict[str, Any]], first: int) -> Iterator[Record]:
    for number, values in enumerate(records, first):
        yield number, values, b""


def _bad_row(bad: BadLine, values: Mapping[str, Any]) -> BadRow:
    return BadRow(values.get("id", values.get("key")), bad.field, bad.reason)


def _refusal(error: DBAPIError | psycopg.Error) -> ChatterError:
    cause = error.orig if isinstance(error, DBAPIError) else error
    assert isinstance(cause, psycopg.Error)
    again = "What was booked so far stays; adopt again to go on."
    if isinstance(cause, psycopg.OperationalError) and cause.sqlstate in {None, "57P01", "57P02"}:
        return DatabaseUnavailable(f"Lost Postgres while adopting. {again}")
    # The primary message alone: a detail would show what people wrote.
    said = cause.diag.message_primary or str(cause)
    return ImportRejected(f"Postgres refused: {said}. {again}")
