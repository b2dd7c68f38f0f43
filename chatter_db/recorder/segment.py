"""A file of records that wait for the books: locked by its process, read back in their order."""

import io
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from chatter_db.recorder.records import Record

if sys.platform != "win32":
    import fcntl

log = logging.getLogger(__name__)

BATCH_BYTES = 1024 * 1024
"""Where a batch ends that has few records, but long ones."""

OPEN_NEW = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
"""For a file to be read and written, made if there is none."""

_decoder = msgspec.json.Decoder(list[Record])
_entry = msgspec.json.Decoder(list[msgspec.Raw])
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are anything else."""


class Segment:
    """A file of entries, one JSON array a line, locked by this process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        # No buffer: what a full disk didn't take would have to be written before anything is read.
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        self.size = os.fstat(descriptor).st_size
        self._booked = self._given = 0
        self.unreadable: bytes | None = None
        """The whole line that `batch` ended with, if it could not read it."""
        self.stays = False
        """Whether the file is kept when all of it is booked: something in it is nowhere else."""

    def append(self, line: bytes, *, sync: bool = True) -> None:
        """Writes an entry; with `sync` it is on the disk when this returns."""
        begin = self._file.seek(0, os.SEEK_END)
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
            if sync:
                os.fsync(self._file.fileno())
        except OSError:
            # A part of an entry would spoil the next one.
            self._file.truncate(begin)
            raise
        self.size = begin + written

    @property
    def left(self) -> int:
        """Bytes that wait to be booked."""
        return max(0, self.size - self._booked)

    @property
    def removed(self) -> bool:
        """Whether somebody has deleted the file: no other process would find what is in it."""
        return os.fstat(self._file.fileno()).st_nlink == 0

    def fileno(self) -> int:
        return self._file.fileno()

    def rest(self) -> bytes:
        """What waits to be booked, as it was written; no half line, that would spoil the next."""
        self._file.seek(self._booked)
        left = self._file.read()
        return left[: left.rfind(b"\n") + 1]

    def batch(self, limit: int) -> list[list[Record]]:
        """The next entries to be booked, of `limit` records together, or somewhat more."""
        batch: list[list[Record]] = []
        count = 0
        self._given, self.unreadable = self._booked, None
        with self._unread() as lines:
            for line in lines:
                try:
                    entry = _decoder.decode(line)
                except _UNREADABLE as error:
                    if line.endswith(b"\n"):
                        self.unreadable = line
                        self._given += len(line)
                        break
                    # The end of a segment whose process died while it wrote: its caller
                    # never heard that the record was kept.
                    log.error(
                        "Spool %s ends in mid-line, at byte %d: %s", self.path, self._given, error
                    )
                else:
                    batch.append(entry)
                    count += len(entry)
                self._given += len(line)
                if count >= limit or self._given - self._booked >= BATCH_BYTES:
                    break
        return batch

    @contextmanager
    def _unread(self) -> Iterator[Iterable[bytes]]:
        self._file.seek(self._booked)
        reader = io.BufferedReader(self._file)
        try:
            yield reader
        finally:
            # To close it would be to close the file.
            reader.detach()

    def forget(self) -> None:
        """What `batch` gave last is booked, for good."""
        self._booked = self._given

    def clear(self) -> None:
        """Forgets every entry of a file that nothing was read from; it stays ours."""
        self._file.truncate(0)
        self.size = 0

    def remove(self) -> None:
        """Removes the file. One that can't be is booked again by who adopts it, to no effect."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("The spool %s is booked and can't be removed: %s", self.path, error)
        self.close()

    def close(self) -> None:
        self._file.close()

    def leave(self) -> None:
        """In a child of fork: lets go of the file, which stays the parent's."""
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(nowhere, self._file.fileno(), inheritable=False)
        os.close(nowhere)


def readable(line: bytes) -> list[Record] | None:
    """The records of a line; None if this version can't read it."""
    try:
        return _decoder.decode(line)
    except _UNREADABLE:
        return None


def records_in(line: bytes) -> int:
    """How many records a line has, of any version; none if it has no end, one if it is damaged."""
    try:
        return len(_entry.decode(line))
    except _UNREADABLE:
        return 1 if line.endswith(b"\n") else 0


def adopt(path: Path) -> Segment | None:
    """The segment at `path`, locked; None if a living process has it."""
    descriptor = os.open(path, OPEN_NEW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return Segment(path, descriptor)
