"""Imports a file: reads it, books it, all in one transaction."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import psycopg
from psycopg.rows import tuple_row

from chatter_db import database
from chatter_db.errors import (
    ChatterError,
    DatabaseUnavailable,
    ImportRejected,
    SchemaError,
    UsageError,
)
from chatter_db.importing.booking import Booking
from chatter_db.importing.reading import CsvRows, Lines, Record, read_jsonl
from chatter_db.importing.report import SHOWN_LINES, BadLines, ImportReport, LinesRejected
from chatter_db.importing.rows import RowMaker

Format: TypeAlias = Literal["jsonl", "csv"]
Connection: TypeAlias = psycopg.Connection[Any]
# Called with the bytes read and the bytes in all, 0 if not known.
Progress: TypeAlias = Callable[[int, int], None]

FORMATS: Mapping[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json-lines": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
}
# COPY text booked in one go, about 15,000 rows of usage; two of them are in memory.
CHUNK_BYTES = 4 * 1024 * 1024

CANCEL_SECONDS = 1.0
"""How long a statement may take to end that was cancelled, until it is again."""


def import_file(
    books: str | Connection,
    path: str | Path,
    *,
    mapping: Mapping[str, str] | None = None,
    format: Format | None = None,  # noqa: A002 - the word of the command line
    on_bad_line: Literal["reject", "skip"] = "reject",
    dry_run: bool = False,
    key: str | None = None,
    progress: Progress = lambda *_: None,
    notice: Callable[[str], None] = lambda _: None,
) -> ImportReport:
    """Books the rows of a file: all in one transaction, or nothing.

    `books` is a URL or an open connection, whose transaction, if it is in one, the
    import joins. `path` "-" reads standard input. `mapping` is from names of the
    file's columns to those of the books (columns.TARGETS); many common names need
    none (columns.ALIASES). `format` is told from the file's name when not given.
    `on_bad_line` "skip" books the good rows and reports the bad ones.

    Importing a file again, or after lines were appended to it, books only what is
    new: a row is known by its `id`, else by the column `key`, else by its line
    number and content; the latter two together with conversation, user and time.

    Imports take turns: `notice` is told of another one that takes seconds.

    Raises LinesRejected (an ImportRejected with the report) when a line is bad,
    UsageError for a wrong argument, ImportRejected when Postgres refuses the rows,
    DatabaseUnavailable, SchemaError.
    """
    started = time.perf_counter()
    if on_bad_line not in {"reject", "skip"}:
        raise UsageError(f"on_bad_line is reject or skip, not {on_bad_line}.")
    mapping = dict(mapping or {})
    if key is not None:
        mapping[key] = "key"
    bad = BadLines()
    rows = RowMaker(mapping, bad, read_usage=True)
    chosen = format or _format_of(path)
    with _opened(path) as (file, size), _connected(books) as connection:
        task = _Import(str(path), Lines(file), size, rows, bad, progress, notice)
        try:
            report = task.run(connection, chosen, skip=on_bad_line == "skip", dry_run=dry_run)
        except psycopg.Error as error:
            raise _refusal(error) from error
    return replace(report, seconds=time.perf_counter() - started)


@dataclass(frozen=True)
class _Import:
    """One file on its way into the books."""

    name: str
    lines: Lines
    size: int
    rows: RowMaker
    bad: BadLines
    progress: Progress
    notice: Callable[[str], None]

    def run(
        self, connection: Connection, file_format: Format, *, skip: bool, dry_run: bool
    ) -> ImportReport:
        with connection.transaction(), connection.cursor(row_factory=tuple_row) as cursor:
            booking = Booking(cursor, self.notice)
            self._read(connection, booking, file_format, skip=skip)
            empty = not self.lines.bytes_read
            if not empty:
                self.rows.check_mapping_used()
            duplicates, found = booking.duplicates()
            report = ImportReport(
                rows_read=self.rows.made + self.bad.count,
                rejected=self.bad.count + found,
                bad_lines=tuple(sorted(self.bad.first + duplicates)[:SHOWN_LINES]),
                ignored_columns=self.rows.ignored,
                without_time=self.rows.without_time,
                in_future=self.rows.in_future,
                unread_usage=self.rows.unread_usage,
                empty=empty,
                dry_run=dry_run,
            )
            if report.rejected and not skip:
                raise LinesRejected(self.name, report)
            sums = booking.finish()
            if dry_run:
                raise psycopg.Rollback
        return replace(
            report,
            booked=booking.booked,
            already_there=report.rows_read - report.rejected - booking.booked,
            new_users=booking.new_users,
            new_conversations=booking.new_conversations,
            prompt_tokens=sums.prompt_tokens,
            completion_tokens=sums.completion_tokens,
            total_tokens=sums.total_tokens,
            # A price that nobody knows is not 0.
            cost=sums.cost if sums.cost or not sums.unpriced_calls else None,
            unpriced_calls=sums.unpriced_calls,
        )

    def _read(
        self, connection: Connection, booking: Booking, file_format: Format, *, skip: bool
    ) -> None:
        """Reads the file here while another thread waits for Postgres to book the chunk before."""
        with ThreadPoolExecutor(1, thread_name_prefix="chatter-import") as worker:
            waiting: Future[None] | None = None
            try:
                for chunk in self._chunks(file_format):
                    if waiting:
                        waiting.result()
                    # Nothing of a file with bad lines will stay; their ids are still compared.
                    book = skip or not self.bad.count
                    waiting = worker.submit(booking.add, chunk, book=book)
                if waiting:
                    waiting.result()
            except BaseException:
                # Ctrl-C too: the other thread may wait for a lock, however long. It may also be
                # between two statements, where there is nothing to cancel.
                while waiting and not waiting.done():
                    with suppress(psycopg.Error):
                        connection.cancel_safe(timeout=CANCEL_SECONDS)
                    wait([waiting], CANCEL_SECONDS)
                raise

    def _chunks(self, file_format: Format) -> Iterator[list[bytes]]:
        chunk: list[bytes] = []
        size = 0
        for block in self.rows.blocks(self._records(file_format)):
            chunk.append(block)
            size += len(block)
            self.progress(self.lines.bytes_read, self.size)
            if size >= CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
        if chunk:
            yield chunk

    def _records(self, file_format: Format) -> Iterator[Record]:
        if file_format == "jsonl":
            return read_jsonl(self.lines, self.bad)
        table = CsvRows(self.lines, self.bad)
        if table.header:
            self.rows.check_header(table.header)
        return iter(table)


def _format_of(path: str | Path) -> Format:
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(
            f"Can't tell the format of {path} from its name (known: {', '.join(FORMATS)}); "
            "say --format jsonl or --format csv."
        )
    return FORMATS[suffix]


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[BinaryIO, int]]:
    """The file and its size in bytes; 0 for standard input."""
    if str(path) == "-":
        yield sys.stdin.buffer, 0
        return
    try:
        with Path(path).open("rb", buffering=1 << 20) as file:
            yield file, Path(path).stat().st_size
    except OSError as error:
        raise UsageError(f"Can't read {path}: {error.strerror}.") from None


def _connected(books: str | Connection) -> AbstractContextManager[Connection]:
    return database.connect(books) if isinstance(books, str) else nullcontext(books)


def _refusal(error: psycopg.Error) -> ChatterError:
    """What Postgres said, as one of our errors."""
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName):
        return SchemaError(f"The schema chatter is not as needed: {error}\nRun: chatter migrate")
    lost = isinstance(error, psycopg.OperationalError)
    if lost and (error.sqlstate is None or error.sqlstate.startswith("57P")):
        return DatabaseUnavailable(f"Lost Postgres while importing; nothing was booked. {error}")
    # The primary message alone: a detail would show what people wrote.
    said = error.diag.message_primary or str(error)
    return ImportRejected(f"Postgres refused the rows, so nothing was booked: {said}.")
