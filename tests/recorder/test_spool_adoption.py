"""What a dead process left is taken over whole, by one process, however many start at once."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chatter_db.errors import UsageError
from chatter_db.recorder import segment, spool
from chatter_db.recorder.journal import Journal
from chatter_db.recorder.records import MessageRow, RunStarted
from chatter_db.recorder.segment import Segment
from chatter_db.recorder.spool import NAME, Spool, open_spool
from chatter_db.recorder.writer import Writer
from tests.conftest import ONE_SERVER
from tests.polling import wait_until
from tests.recorder.test_backlog import drained
from tests.recorder.test_writer import booked_calls, message, start


class Other(threading.Thread):
    """A second one that opens the spool, and books what it gets; locks part threads too."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self.got = False
        self.lost = 0

    def run(self) -> None:
        opened = open_spool("test")
        self.got = opened.waiting
        writer = Writer(self._url, opened)
        writer.close()
        self.lost = writer.lost


def start_other(other: threading.Thread) -> None:
    """Until it is done, or waits for a lock."""
    other.start()

    def waits() -> bool:
        return [link for link in map(_link, Path("/proc/self/fd").iterdir()) if link].count(
            "turn.lock"
        ) == 2

    wait_until(lambda: not other.is_alive() or waits())
    # Whoever didn't wait would be through by then.
    other.join(0.1)


def _link(descriptor: Path) -> str | None:
    try:
        return descriptor.readlink().name
    except OSError:  # closed meanwhile
        return None


@pytest.fixture
def left(spool_dir: Path) -> list[Path]:
    """The start of a run in one segment of a dead process, its call in another."""
    dead = open_spool("test")
    run = start()
    dead.append([run])
    journal = Journal(dead)
    journal.append([message(run)])
    journal.close()
    dead.close()
    segments = sorted(spool_dir.glob("*/*.jsonl"))
    assert len(segments) == 2
    return segments


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="who waits is in /proc")


@needs_proc
def test_two_that_start_at_once_share_nothing(
    url: str,
    db: psycopg.Connection[Any],
    left: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    books_hold: Callable[[], None],
) -> None:
    other = Other(url)
    adopt = segment.adopt

    def interrupted(path: Path) -> Segment | None:
        segment = adopt(path)
        if other.ident is None:
            start_other(other)
        return segment

    monkeypatch.setattr(spool, "adopt", interrupted)
    writer = Writer(url, open_spool("test"))
    other.join()
    assert (other.got, other.lost) == (False, 0)
    wait_until(lambda: not any(path.exists() for path in left))
    writer.close()
    assert writer.lost == 0
    assert booked_calls(db) == [(1, 10)]
    books_hold()


@needs_proc
def test_a_segment_is_its_makers_from_the_first_moment(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = open_spool("test")
    heirs: list[Spool] = []
    other = threading.Thread(target=lambda: heirs.append(open_spool("test")))
    opened = os.open

    def interrupted(path: Any, *arguments: Any) -> int:
        descriptor = opened(path, *arguments)
        if spool.SUFFIX in str(path) and other.ident is None:
            start_other(other)
        return descriptor

    monkeypatch.setattr(os, "open", interrupted)
    own.append([start()])
    other.join()
    assert own.waiting
    assert not heirs[0].waiting
    heirs[0].close()
    own.close()


FROZEN = """
import os, signal, sys
from chatter_db.recorder import segment, spool
from chatter_db.recorder.writer import Writer

adopt = spool.adopt

def in_the_middle(path):
    os.kill(os.getpid(), signal.SIGSTOP)
    return adopt(path)

spool.adopt = in_the_middle
opened = spool.open_spool("test")
spool.adopt = adopt
Writer(sys.argv[1], opened).close()
"""


@ONE_SERVER
def test_a_process_that_is_frozen_in_its_turn_holds_nobody_up(
    url: str,
    db: psycopg.Connection[Any],
    left: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    books_hold: Callable[[], None],
) -> None:
    monkeypatch.setattr(spool, "TURN_SECONDS", 0.2)
    command = [sys.executable, "-c", FROZEN, url]
    with subprocess.Popen(command) as frozen:
        try:
            os.waitid(os.P_PID, frozen.pid, os.WSTOPPED | os.WNOWAIT)
            with closing(open_spool("test")) as opened:
                assert not opened.waiting
                assert f"held {left[0].parent / 'turn.lock'} for 0.2 s" in caplog.text
                run = start(conversation_external_id="d")
                opened.append([run])
                with closing(Journal(opened)) as journal:
                    journal.append([message(run)])
        finally:
            # As often as it finds a segment.
            while frozen.poll() is None:
                frozen.send_signal(signal.SIGCONT)
                time.sleep(0.01)
    assert frozen.returncode == 0
    # What was left in the meantime, too.
    Writer(url, open_spool("test")).close()
    assert booked_calls(db) == [(2, 20)]
    assert not list(left[0].parent.glob("*.jsonl*"))
    books_hold()


def test_a_process_that_is_just_dying_is_taken_over_whole(
    left: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    adopt = segment.adopt
    held = [adopt(left[1])]

    def let_go(path: Path) -> Segment | None:
        segment = adopt(path)
        if segment is None and (dying := held.pop()) is not None:
            dying.close()
        return segment

    monkeypatch.setattr(spool, "adopt", let_go)
    heir = Spool(left[0].parent, 1024)
    records = [record for entry in drained(heir, 100) for record in entry]
    assert [type(record) for record in records] == [RunStarted, MessageRow]
    heir.close()


def test_a_spool_that_cannot_be_named_is_opened(
    spool_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What waits in it is to be booked, whatever its disk says."""
    first = open_spool("somewhere")
    (first.directory / NAME).unlink()
    (first.directory / NAME).symlink_to(spool_dir / "missing" / "file")
    first.close()
    again = open_spool("somewhere")
    assert again.directory == first.directory
    assert "says not whose it is" in caplog.text
    again.close()


def test_a_spool_is_for_its_user_alone(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start()
    opened = open_spool("test")
    opened.append([run])
    opened.refuse([run])
    assert opened.directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in opened.directory.iterdir()} == {0o600}
    opened.close()
    # What anybody else has laid out is no place for it.
    monkeypatch.setattr(os, "getuid", lambda: spool_dir.stat().st_uid + 1)
    with pytest.raises(UsageError, match="belongs to somebody else"):
        open_spool("test")
