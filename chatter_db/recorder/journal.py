"""Records on their way to Postgres, on disk already: for callers who don't wait for the commit.

A process that is killed loses none: its segments are spool segments, which the next process
adopts and books once more (booking is idempotent). They are written without fsync, so
that a call costs microseconds: a machine that loses power may lose the last moments.
"""

import threading
from collections.abc import Sequence

from chatter_db.recorder.records import Record, as_json
from chatter_db.recorder.segment import Segment
from chatter_db.recorder.spool import JOURNAL, Spool, SpoolFull

SEGMENT_BYTES = 1024 * 1024
"""Where a new segment begins, so that the booked ones can go."""

MAX_WAITING = 10_000
"""Entries that may wait for Postgres; then callers wait for the commit again."""


class Journal:
    """The journal of one process beside its spool. Thread-safe."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._lock = threading.Lock()
        self._waiting: dict[Segment, int] = {}
        self._own: Segment | None = None

    def append(self, records: Sequence[Record]) -> Segment:
        """Keeps `records`; give what it returns to `booked` when they are in the books.

        Raises SpoolFull when too much waits already, OSError if the disk won't.
        """
        line = as_json(records).encode() + b"\n"
        with self._lock:
            size = sum(segment.size for segment in self._waiting)
            if (
                size + len(line) > self._spool.limit_bytes
                or sum(self._waiting.values()) >= MAX_WAITING
            ):
                raise SpoolFull("Postgres is behind with what was recorded.")
            if self._own is None or self._own.removed or self._own.size > SEGMENT_BYTES:
                self._own = self._spool.begin(JOURNAL)
                self._waiting[self._own] = 0
            self._own.append(line, sync=False)
            self._waiting[self._own] += 1
            return self._own

    def booked(self, segment: Segment) -> None:
        """One entry of `segment` is in the books, or in the spool."""
        with self._lock:
            if segment not in self._waiting:  # it was passed on
                return
            self._waiting[segment] -= 1
            if self._waiting[segment] == 0:
                if segment is self._own:
                    segment.clear()
                else:
                    del self._waiting[segment]
                    segment.remove()

    def has(self, segment: Segment) -> bool:
        """Whether a segment was not passed on."""
        with self._lock:
            return segment in self._waiting

    def pass_on(self, segment: Segment) -> None:
        """Makes a segment the spool's as it is, with all that is in it: for a disk that has no room
        for a copy. What of it is in the books is booked again, to no effect."""
        with self._lock:
            del self._waiting[segment]
            if segment is self._own:
                self._own = None
            self._spool.take_over(segment)

    def leave(self) -> None:
        """In a child of fork: leaves the segments to the parent, and begins anew."""
        for segment in self._waiting:
            segment.leave()
        self._lock = threading.Lock()
        self._waiting = {}
        self._own = None

    def close(self) -> None:
        """Removes the segment; call it when everything is booked."""
        with self._lock:
            for segment, waiting in self._waiting.items():
                if waiting:
                    segment.close()
                else:
                    segment.remove()
            self._waiting.clear()
            self._own = None
