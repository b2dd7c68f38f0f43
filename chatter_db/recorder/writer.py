"""Writes records into the books: one thread, one connection, whatever is ready in one commit.

Callers of any thread and any event loop submit records and get a future that is
done when the record is durable. While one commit is on its way the next records
gather, so that eight busy graphs cost hardly more commits than one. With Postgres away, records
go to the spool, and from there into the books when it is back.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from uuid import UUID

import msgspec
import psycopg

from chatter_db.errors import DatabaseUnavailable, RecordingFailed
from chatter_db.recorder.booking import Booking, passes, reason
from chatter_db.recorder.connection import ANSWER_SECONDS
from chatter_db.recorder.journal import Journal
from chatter_db.recorder.losses import Losses
from chatter_db.recorder.records import Record, RunStarted
from chatter_db.recorder.segment import Segment
from chatter_db.recorder.spool import Spool, SpoolFull
from chatter_db.settings import Durability

log = logging.getLogger(__name__)

MAX_BATCH = 1000
"""Records in one commit, at most."""

SPOOL_BATCH = 100
"""Records of the spool in one commit, about: one by one a busy process would never catch up.
Few enough for whatever statement_timeout there is."""

RETRY_FOR_SECONDS = 1.0
"""How long a record waits for a database that went away before it goes to the spool."""

PROBE_SECONDS = 1.0
"""The same while it is found out whether Postgres books again, by an entry of the spool, then by
more: those whose records come meanwhile wait for that."""

FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.05, 2.0
"""The pauses between two attempts to book what waits in the spool, each twice the one before."""


MAX_WORK_SECONDS = 10.0
"""How long a Chatter that closes waits for callbacks under way, which a disk may hold up."""


class Booked(msgspec.Struct, frozen=True):
    """What a caller learns of its record: the conversation it was booked under."""

    conversation_id: UUID | None = None


class Writer:
    """The one writer of a process for a database. Thread-safe."""

    def __init__(self, url: str, spool: Spool, *, durability: Durability = "database") -> None:
        """With the durability `spool` callers wait for a file on disk, not for the commit."""
        self._booking = Booking(url)
        self._spool = spool
        self._journal = Journal(spool) if durability == "spool" else None
        self._pause = self._due = 0.0
        self._step = SPOOL_BATCH
        self._booked_again = 0
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._turn = threading.Condition()
        self._thread: threading.Thread | None = None
        self._at_work = 0
        self._shut = self._closed = False
        self._flushes: deque[tuple[int, _Entry]] = deque()
        self._losses = Losses(self._booking, spool)
        if spool.waiting:
            self._start()

    @property
    def id(self) -> UUID:
        """Of this process in chatter.recorders."""
        return self._booking.id

    @property
    def lost(self) -> int:
        """Records refused by Postgres, not readable in the spool, or lost to a full one; each was
        logged as an error."""
        return self._losses.lost

    @property
    def reduced(self) -> int:
        """Records that Postgres refused and took without their texts; logged as errors too."""
        return self._losses.reduced

    @property
    def spooled_bytes(self) -> int:
        """How much waits in the spool."""
        return self._spool.left

    @contextmanager
    def at_work(self) -> Iterator[bool]:
        """For whoever changes what is open, and submits it: `shut` waits for the end of that.

        False if there is nothing to do any more, because it was shut before.
        """
        with self._turn:
            taken = not self._shut
            self._at_work += taken
        try:
            yield taken
        finally:
            if taken:
                with self._turn:
                    self._at_work -= 1
                    self._turn.notify_all()

    def shut(self) -> None:
        """Nobody is at work from now on; what is submitted is still booked."""
        with self._turn:
            self._shut = True
            if not self._turn.wait_for(lambda: not self._at_work, MAX_WORK_SECONDS):
                log.warning(
                    "%d callback(s) have not ended in %g s; what they bring from now on is not "
                    "booked.",
                    self._at_work,
                    MAX_WORK_SECONDS,
                )

    def submit(self, records: Sequence[Record]) -> "Future[Booked]":
        """Hands over `records`, to be booked together and in order.

        The future is done when they are committed (with the durability `spool`: when they
        are in a file, except where Postgres is far behind) or, with Postgres away for
        RETRY_FOR_SECONDS, durable in the spool. It fails with RecordingFailed
        if Postgres refuses them even in reduced form or the spool can't take them.
        """
        self._require_open()
        entry = _Entry(records)
        kept = self._journal is not None and self._note(self._journal, entry)
        self._put(entry)
        if not kept:
            return entry.future
        noted: Future[Booked] = Future()
        noted.set_result(entry.outcome())
        return noted

    def flush(self) -> "Future[Booked]":
        """Done when all that was submitted before is in the books, whatever the durability.

        Or, while Postgres takes nothing, as soon as that is known: then it waits in the spool.
        """
        entry = _Entry([])
        self._put(entry)
        return entry.future

    def _put(self, entry: "_Entry") -> None:
        with self._turn:
            # Behind the end of a writer that is being closed nobody would look at it.
            self._require_open()
            self._start()
            self._queue.put(entry)

    def _require_open(self) -> None:
        if self._closed:
            raise RecordingFailed("The recorder was used after its Chatter was closed.")

    def _start(self) -> None:
        """Begins the thread, with the first record: who forks before it has none."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="chatter-writer", daemon=True)
            self._thread.start()

    def leave(self) -> None:
        """In a child of fork: leaves thread, connection and files to the parent, and begins anew.

        What was submitted in the parent is booked there.
        """
        self._queue = queue.SimpleQueue()
        self._turn = threading.Condition()
        self._thread = None
        self._at_work = 0
        self._booking.leave()
        self._spool.leave()
        if self._journal is not None:
            self._journal.leave()
        self._flushes = deque()
        self._pause = self._due = 0.0
        self._step, self._booked_again = SPOOL_BATCH, 0
        self._losses = Losses(self._booking, self._spool)

    def _note(self, journal: Journal, entry: "_Entry") -> bool:
        """Whether the journal has the entry, until it is booked."""
        try:
            segment = journal.append(entry.records)
        # Not only what a disk may say: where nothing may block an event loop (`langgraph dev`
        # sees to that) every write to a file raises.
        except Exception as error:  # noqa: BLE001
            log.warning("A record waits for its commit: %s", error)
            return False
        entry.segment = segment
        entry.future.add_done_callback(lambda _: journal.booked(segment))
        return True

    def close(self) -> None:
        """Books what was submitted, then stops. What Postgres can't take now stays spooled."""
        with self._turn:
            self._closed = True
            self._queue.put(None)
        if self._thread is not None:
            self._thread.join()
        self._booking.close(within=self._within)
        if self._spool.waiting:
            log.error(
                "Records wait in the spool %s; they are booked when this database is next opened.",
                self._spool.directory,
            )
        if self._journal is not None:
            self._journal.close()
        self._spool.close()

    def _run(self) -> None:
        stop = False
        # To the end, and then for as long as Postgres takes what waits.
        while not stop or (self._spool.waiting and not self._pause):
            batch, last = self._gather()
            stop = stop or last
            try:
                behind = self._spool.waiting
                self._take(batch)
                # Not for every call that ends meanwhile: when it is due, and for who waits for it.
                due = stop or self._flushes or time.monotonic() >= self._due
                if behind and self._spool.waiting and due:
                    self._book_spool(len(_records(batch)))
                self._tell_flushed(self._spool.booked)
                self._booking.beat(within=self._within)
            except Exception as error:
                # A bug of ours. The callers must hear of it, and the writer must live on.
                log.exception("The recorder's writer failed")
                for entry in batch:
                    if not entry.future.done():
                        entry.fail(self._losses.lose(entry.records, error))
                if self._spool.waiting:
                    self._put_off(error)
                self._tell_flushed(self._spool.taken)
        self._tell_flushed(self._spool.taken)

    def _gather(self) -> "tuple[list[_Entry], bool]":
        """Waits for an entry and takes along what else is ready.

        While records wait in the spool, it returns after a pause without any.
        """
        batch: list[_Entry] = []
        size = 0
        try:
            entry = self._queue.get(timeout=self._patience())
            while entry is not None:
                batch.append(entry)
                size += len(entry.records)
                if size >= MAX_BATCH:
                    return batch, False
                entry = self._queue.get_nowait()
        except queue.Empty:
            return batch, False
        return batch, True

    def _patience(self) -> float | None:
        """How long to wait for a record: until the spool or the heartbeat is due."""
        if not self._spool.waiting:
            return self._booking.beat_in
        return max(0.0, self._due - time.monotonic())

    def _take(self, batch: "list[_Entry]") -> None:
        # What waits goes first: the order of a conversation is the order of its rows.
        if self._spool.waiting:
            self._keep(batch)
        elif batch:
            self._book(batch)

    def _book(self, batch: "list[_Entry]") -> None:
        """Books `batch`, into the spool if Postgres is away.

        If Postgres refuses it, entry by entry, so that one bad one is alone.
        """
        records = _records(batch)
        try:
            booked = self._booked(records, RETRY_FOR_SECONDS) if records else {}
        except (psycopg.Error, DatabaseUnavailable) as error:
            if passes(error):
                log.error(
                    "Recording goes to the spool %s: %s", self._spool.directory, reason(error)
                )
                self._wait(FIRST_PAUSE_SECONDS)
                self._keep(batch)
            elif len(batch) > 1:
                for entry in batch:
                    self._take([entry])
            else:
                self._book_reduced(batch[0], error)
            return
        for entry in batch:
            entry.done(booked)

    def _book_reduced(self, entry: "_Entry", refusal: Exception) -> None:
        """Books what can be booked of an entry that Postgres refuses as it is."""
        try:
            booked = self._losses.mend(entry.records, refusal, self._booked)
        except (psycopg.Error, DatabaseUnavailable) as error:
            if passes(error):
                self._keep([entry])
            else:
                entry.fail(self._losses.refuse(entry.records, refusal))
        else:
            entry.done(booked)

    def _keep(self, batch: "list[_Entry]") -> None:
        """Puts `batch` behind what waits."""
        for entry in batch:
            if not entry.records:
                self._flushes.append((self._spool.taken, entry))
                continue
            try:
                self._copy(entry)
            except (SpoolFull, OSError) as error:
                entry.fail(self._losses.lose(entry.records, error))
            else:
                entry.done()

    def _copy(self, entry: "_Entry") -> None:
        """Puts an entry into the spool; where that has no room, the journal's file that has it."""
        journal, segment = self._journal, entry.segment
        if journal is None or segment is None:
            self._append(entry.records)
        elif journal.has(segment):
            try:
                self._append(entry.records)
            except OSError as error:
                log.warning("What is in %s waits there: %s", segment.path, error)
                journal.pass_on(segment)

    def _append(self, records: Sequence[Record]) -> None:
        while True:
            try:
                self._spool.append(records)
            except SpoolFull:
                if self._pause or not self._spool.waiting:
                    self._due = 0.0  # What is lost is worth an attempt.
                    raise
                # As long as Postgres takes what waits, nothing is lost: there will be room.
                self._book_spool()
            else:
                return

    def _booked(self, records: Sequence[Record], patience: float = 0.0) -> dict[UUID, UUID]:
        return self._booking.book(records, within=self._within, patience=patience)

    @property
    def _within(self) -> float:
        """How many seconds Postgres has for an answer."""
        probing = self._spool.waiting and self._step < SPOOL_BATCH
        return PROBE_SECONDS if probing else ANSWER_SECONDS

    def _book_spool(self, kept: int = 0) -> None:
        """Books what has waited longest: more records than were `kept` behind it meanwhile.

        Not all of it, because whoever submits records waits meanwhile. If Postgres is still away,
        pauses longer next time.
        """
        count = 0
        try:
            while self._spool.waiting and count <= 2 * kept:
                entries = self._spool.batch(self._step)
                self._book_again(entries)
                self._losses.lost += self._spool.forget()
                self._tell_flushed(self._spool.booked)
                self._step = min(2 * self._step, SPOOL_BATCH)
                count += sum(map(len, entries))
                self._booked_again += sum(map(len, entries))
        except (psycopg.Error, DatabaseUnavailable) as error:
            self._put_off(error)
            return
        self._pause = self._due = 0.0
        if not self._spool.waiting:
            log.warning("%d records of the spool are booked.", self._booked_again)
            self._step, self._booked_again = SPOOL_BATCH, 0

    def _put_off(self, error: Exception) -> None:
        """Lets the spool wait, longer each time."""
        self._wait(min(max(self._pause * 2, FIRST_PAUSE_SECONDS), MAX_PAUSE_SECONDS))
        log.warning("Next try in %.2f s: %s", self._pause, reason(error))
        self._tell_flushed(self._spool.taken)

    def _wait(self, seconds: float) -> None:
        """Lets the spool wait, however much comes meanwhile; the next attempt is one entry."""
        self._pause, self._due, self._step = seconds, time.monotonic() + seconds, 1

    def _tell_flushed(self, place: int) -> None:
        """Lets go who waits for what is before `place` in the spool."""
        while self._flushes and self._flushes[0][0] <= place:
            _, entry = self._flushes.popleft()
            entry.done()

    def _book_again(self, entries: list[list[Record]]) -> None:
        """Books entries of the spool together; if Postgres refuses them, one by one."""
        records = [record for entry in entries for record in entry]
        try:
            if records:
                self._booked(records)
        except psycopg.Error as error:
            if passes(error):
                raise
            if len(entries) > 1:
                for entry in entries:
                    self._book_again([entry])
                return
            try:
                self._losses.mend(records, error, self._booked)
            except psycopg.Error as still:
                if passes(still):
                    raise
                self._losses.refuse(records, error)


_NO_COMMIT: Mapping[UUID, UUID] = {}


class _Entry:
    """Records submitted together, and the future of their caller. Without any, a flush."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.segment: Segment | None = None
        """Of the journal, where these are in one."""
        self.future: Future[Booked] = Future()
        # A caller that is cancelled while it waits must not cancel the booking.
        self.future.set_running_or_notify_cancel()

    def done(self, conversations: Mapping[UUID, UUID] = _NO_COMMIT) -> None:
        """Lets its caller go on."""
        self.future.set_result(self.outcome(conversations))

    def fail(self, failure: RecordingFailed) -> None:
        """Has its caller hear of what is lost."""
        self.future.set_exception(failure)

    def outcome(self, conversations: Mapping[UUID, UUID] = _NO_COMMIT) -> Booked:
        """What there is to tell; a conversation by name is known by its commit alone."""
        if not self.records:
            return Booked()
        first = self.records[0]
        given = first.conversation_id if isinstance(first, RunStarted) else None
        return Booked(conversations.get(first.execution_id, given))


def _records(batch: Iterable[_Entry]) -> list[Record]:
    return [record for entry in batch for record in entry.records]
