"""Records that wait on disk while Postgres is away.

A directory per database, private to its user. Every process appends to segments
of its own, which begin with its id, and holds their locks; segments whose locks are free
were left by a process that died, and are adopted by the next one that opens the spool: all
of them by the same, since the start of a run may be in one and its calls in another. A
record counts as kept when it is on the disk (fsync), and may be booked twice after a
crash: booking is idempotent.
"""

import io
import logging
import os
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path
from stat import S_ISDIR

from langchain_core.utils.uuid import uuid7

from chatter_db.errors import UsageError
from chatter_db.recorder.records import Record, as_json
from chatter_db.recorder.segment import OPEN_NEW, Segment, adopt, records_in
from chatter_db.settings import settings

if sys.platform != "win32":
    import fcntl

log = logging.getLogger(__name__)

SUFFIX, JOURNAL = ".jsonl", ".journal.jsonl"
"""How the name of a segment ends, and of one that is a journal's."""

REFUSED = "refused.json-lines"
"""The file of what can't be booked, for an operator."""

NAME = "database"
"""The file that says whose records are in a directory."""

SEGMENTS = 16
"""Of how many segments a full spool is, so that the booked ones can go."""

TURN_SECONDS = 5.0
"""How long to wait for another process that holds a lock for moments, unless it is frozen."""

ENDING_SECONDS = 1.0
"""How long a process that dies may take to let go of one segment after another."""


class SpoolFull(Exception):
    """The spool has reached its limit."""


class Spool:
    """The spool of one database in one process; for one thread at a time."""

    def __init__(self, directory: Path, limit_bytes: int) -> None:
        self.directory = directory
        """Where the segments are."""
        self.limit_bytes = limit_bytes
        """How much may wait."""
        self._id = str(uuid7())
        self._segments = _adopt_all(directory)
        self._own: Segment | None = None
        self.taken = self.left
        """Bytes that were ever taken: a place in the queue of what waits."""

    def leave(self) -> None:
        """In a child of fork: leaves what there is to the parent, and begins anew."""
        for segment in self._segments:
            segment.leave()
        self._id = str(uuid7())
        self._segments = []
        self._own = None
        self.taken = 0

    @property
    def waiting(self) -> bool:
        """Whether there are records to book."""
        return self.left > 0

    @property
    def booked(self) -> int:
        """Up to where all that was taken is booked."""
        return self.taken - self.left

    @property
    def left(self) -> int:
        """Bytes of what waits; any thread may ask."""
        return sum(segment.left for segment in self._segments)

    def append(self, records: Sequence[Record]) -> None:
        """Keeps `records`, in order, durably. Raises SpoolFull, or OSError if the disk won't."""
        line = as_json(records).encode() + b"\n"
        if self.left + len(line) > self.limit_bytes:
            raise SpoolFull(
                f"The spool {self.directory} has reached its limit of {self.limit_bytes} bytes "
                "(CHATTER_SPOOL_LIMIT_MB)."
            )
        self._save()
        if self._own is None or self._own.size > self.limit_bytes // SEGMENTS:
            self._own = self.begin()
            self._segments.append(self._own)
        self._own.append(line)
        self.taken += len(line)

    def take_over(self, segment: Segment) -> None:
        """Lets a segment of this process wait, behind all that waits."""
        self._segments.append(segment)
        self._own = None  # What comes next is behind it.
        self.taken += segment.left

    def begin(self, suffix: str = SUFFIX) -> "Segment":
        """A new segment of this process, for any of its threads.

        It has its name when it is locked: else another might adopt it before.
        """
        self._be_there()
        path = self.directory / f"{self._id}.{uuid7()}{suffix}"
        segment = adopt(path.with_name(f"{path.name}.new"))
        assert segment is not None, "a new segment is nobody else's"
        segment.path = segment.path.rename(path)
        return segment

    def batch(self, limit: int) -> list[list[Record]]:
        """What has waited longest: entries of `limit` records together, or somewhat more.

        The same again until `forget` says that it is booked. Empty where the next can't be read.
        """
        return self._segments[0].batch(limit)

    def forget(self) -> int:
        """What `batch` gave last is booked; a segment that is booked whole goes.

        If it ended with a line that this version can't read, that is put aside as it is. Returns
        how many records are in it.
        """
        first = self._segments[0]
        line = first.unreadable
        if line is not None:
            self._put_aside_unread(first, line)
        first.forget()
        if first is self._own:
            # What is being read grows no more: it would have no end on a busy process.
            self._own = None
        if not first.left:
            if first.stays:
                first.close()
            else:
                first.remove()
            del self._segments[0]
        return 0 if line is None else records_in(line)

    def refuse(self, records: Sequence[Record]) -> Path:
        """Puts records that Postgres refused aside, for an operator; the file they are in.

        Raises OSError if the disk won't.
        """
        return self._put_aside(as_json(records).encode() + b"\n")

    def aside(self) -> list[bytes]:
        """The whole lines of what was put aside."""
        try:
            written = (self.directory / REFUSED).read_bytes()
        except FileNotFoundError:
            return []
        return [line for line in io.BytesIO(written) if line.endswith(b"\n")]

    def take_back(self, lines: Collection[bytes]) -> None:
        """Lets those of `lines` that are still aside wait again, behind all that waits.

        They leave the one file when they are in the other; who dies in between has both.
        """
        with closing(self._refused()) as refused:
            written = list(io.BytesIO(refused.rest()))
            kept = [line for line in written if line not in lines]
            segment = self.begin()
            segment.append(b"".join(line for line in written if line in lines))
            self._segments.append(segment)
            self.taken += segment.size
            if not kept:
                refused.path.unlink()
                return
            anew = refused.path.with_suffix(f".{self._id}")
            with closing(Segment(anew, os.open(anew, OPEN_NEW, 0o600))) as remaining:
                remaining.append(b"".join(kept))
            anew.replace(refused.path)

    def _refused(self) -> "Segment":
        """What was put aside, locked: who had it before may have written it anew."""
        self._be_there()
        path = self.directory / REFUSED
        while True:
            segment = Segment(path, os.open(path, OPEN_NEW, 0o600))
            ours = _locked(segment.fileno())
            if ours and not segment.removed:
                return segment
            segment.close()
            if not ours:
                raise BlockingIOError(f"{path} is locked by another process, frozen perhaps")

    def _put_aside_unread(self, segment: "Segment", line: bytes) -> None:
        # Its text is in no log.
        said = f"{records_in(line)} record(s) that this version can't read (damaged, or a newer's)"
        try:
            log.error("%s are in %s as they were.", said, self._put_aside(line))
        except OSError as error:
            # Others are booked meanwhile; who opens the spool next books them again, to no effect.
            segment.stays = True
            log.error("%s stay in %s: %s", said, segment.path, error)

    def _put_aside(self, line: bytes) -> Path:
        with closing(self._refused()) as refused:
            refused.append(line)
            return refused.path

    def close(self) -> None:
        """Lets go of the segments; what waits is adopted by the next process."""
        try:
            self._save()
        except OSError as error:
            log.error("Somebody removed what waited in %s: %s", self.directory, error)
        for segment in self._segments:
            segment.close()
        self._segments.clear()

    def _be_there(self) -> None:
        """Makes the directory anew if somebody has cleared it away."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _save(self) -> None:
        """Writes all that waits anew, in order, if only this process can still read some of it."""
        if not any(segment.removed for segment in self._segments):
            return
        saved = self.begin()
        try:
            for segment in self._segments:
                saved.append(segment.rest())
        except OSError:
            saved.remove()
            raise
        for segment in self._segments:
            segment.remove()
        self._segments, self._own = [saved], saved


def _adopt_all(directory: Path) -> list[Segment]:
    """The segments that dead processes left, each one's whole, in the order to book them in."""
    with _turn(directory) as ours:
        if not ours:
            return []
        found = {path: adopt(path) for path in directory.glob(f"*{SUFFIX}")}
        dead = {_owner(path) for path, segment in found.items() if segment}
        # Who holds one and lets go of another is dying this moment.
        deadline = time.monotonic() + ENDING_SECONDS
        for path in [p for p, segment in found.items() if segment is None and _owner(p) in dead]:
            while (segment := adopt(path)) is None and time.monotonic() < deadline:
                time.sleep(0.001)
            found[path] = segment
    # What a process left in a journal came after all that it left in the spool.
    ordered = sorted(found, key=lambda path: (path.name.endswith(JOURNAL), path))
    return [segment for path in ordered if (segment := found[path])]


def _owner(path: Path) -> str:
    """The id of the process that made a segment."""
    return path.name.partition(".")[0]


@contextmanager
def _turn(directory: Path) -> Iterator[bool]:
    """One process at a time adopts segments: two would share what a third left.

    Whether it is our turn. Nobody's start waits for one that is frozen.
    """
    path = directory / "turn.lock"
    descriptor = os.open(path, OPEN_NEW, 0o600)
    try:
        ours = _locked(descriptor)
        if not ours:
            log.error(
                "Another process has held %s for %g s, frozen perhaps. What dead ones left beside "
                "it waits for who opens this spool when that has gone on or is ended.",
                path, TURN_SECONDS,
            )  # fmt: skip
        yield ours
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    """Locks a file; False if another has it for TURN_SECONDS."""
    deadline = time.monotonic() + TURN_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        else:
            return True


def open_spool(database: str) -> Spool:
    """The spool for `database` (a name that stays the same from start to start).

    Under CHATTER_SPOOL_DIR, else the user's state directory, else a temporary one.

    Raises UsageError if none can be used.
    """
    failures = []
    for directory in spool_directories(database):
        try:
            if directory.parent == _temporary_dir():
                _be_alone_in(directory.parent)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if directory.stat().st_uid != os.getuid():
                raise PermissionError(f"{directory} belongs to somebody else")
            _name(directory, database)
            return Spool(directory, settings().spool_limit_mb * 1024 * 1024)
        except OSError as error:
            failures.append(str(error))
    raise UsageError(
        f"No directory for the recorder's spool: {'; '.join(failures)}. Set CHATTER_SPOOL_DIR."
    )


def _be_alone_in(directory: Path) -> None:
    """Makes it where everybody may: who was there before us could put another in its place."""
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if found.st_uid != os.getuid() or not S_ISDIR(found.st_mode) or found.st_mode & 0o022:
        raise PermissionError(
            f"{directory} may be changed by others; if it and all in it is yours, chmod 700 it"
        )


def _name(directory: Path, database: str) -> None:
    """Writes into it whose it is, for people: the directory's name is a digest.

    A spool whose disk takes no more is opened all the same: what waits in it is to be booked.
    """
    name = directory / NAME
    if name.exists():
        return
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(database)
    except OSError as error:
        log.warning("The spool %s says not whose it is: %s", directory, error)


def spool_directories(database: str) -> list[Path]:
    """Where the spool for `database` may be, the first that can be used."""
    name = blake2b(database.encode(), digest_size=8).hexdigest()
    chosen = settings().spool_dir
    bases = [chosen] if chosen else [_state_dir(), _temporary_dir()]
    # One that is not absolute is that of a user without a home: in whatever directory this is.
    return [base / name for base in bases if base.is_absolute()]


def _state_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/chatter-db-spool")
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111
    return Path(base) / "chatter-db" / "spool"


def _temporary_dir() -> Path:
    return Path(tempfile.gettempdir()) / f"chatter-db-spool-{os.getuid()}"
