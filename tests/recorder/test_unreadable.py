"""Lines of the spool that this version can't read: a newer one's, or damaged."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chatter_db.recorder.records import as_json
from chatter_db.recorder.spool import Spool, open_spool
from chatter_db.recorder.writer import Writer
from tests.conftest import ONE_SERVER
from tests.polling import wait_until
from tests.recorder.test_writer import booked_calls, message, start

NEWER = b'[{"type":"Invoice","id":"1","text":"secret"},{"type":"Invoice","id":"2"}]\n'


def left(*lines: bytes) -> Path:
    """What a dead process left; the directory."""
    with closing(open_spool("test")) as spool:
        directory = spool.directory
    (directory / "0.0.jsonl").write_bytes(b"".join(lines))
    return directory


def line(*records: Any) -> bytes:
    return as_json(records).encode() + b"\n"


def booked_by_the_next(url: str, directory: Path) -> Writer:
    with closing(Writer(url, open_spool("test"))) as writer:
        wait_until(lambda: not list(directory.glob("*.jsonl")))
    return writer


@pytest.mark.parametrize(
    ("damaged", "count"),
    [
        (NEWER, 2),
        (b'[{"type":"MessageRow","prompt_to\0\0\0\0}]\n', 1),
        (b'[{"type":"MessageRow","content":"\xff"}]\n', 1),
        (b"[" * 5000 + b"\n", 1),
    ],
    ids=["newer", "damaged", "no text", "deep"],
)
def test_what_cannot_be_read_is_put_aside_as_it_is(
    url: str,
    db: psycopg.Connection[Any],
    spool_dir: Path,
    caplog: pytest.LogCaptureFixture,
    books_hold: Callable[[], None],
    *,
    damaged: bytes,
    count: int,
) -> None:
    run = start()
    lines = [line(run), line(message(run)), damaged, line(message(run)), damaged, damaged]
    directory = left(*lines, line(message(run)), b'[{"type":"Mess')
    writer = booked_by_the_next(url, directory)
    aside = directory / "refused.json-lines"
    assert aside.read_bytes() == damaged * 3
    assert aside.stat().st_mode & 0o777 == 0o600
    assert (writer.lost, writer.reduced) == (3 * count, 0)
    assert f"{count} record(s) that this version can't read" in caplog.text
    assert str(aside) in caplog.text and "ends in mid-line" in caplog.text
    assert "secret" not in caplog.text
    assert booked_calls(db) == [(3, 30)]
    books_hold()


def test_all_that_is_put_aside_is_in_its_order(
    url: str, db: psycopg.Connection[Any], spool_dir: Path
) -> None:
    """So that it can be booked in its order, once the cause is mended."""
    call, other = message(start()), message(start())
    directory = left(line(call), NEWER, line(other))
    booked_by_the_next(url, directory)
    found = (directory / "refused.json-lines").read_bytes().splitlines(keepends=True)
    assert [json.loads(each)[0]["id"] for each in found] == [str(call.id), "1", str(other.id)]


@ONE_SERVER
def test_what_fits_nowhere_stays_where_it_is(
    url: str,
    db: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    books_hold: Callable[[], None],
) -> None:
    """And keeps nothing else from the books."""
    run = start()
    directory = left(line(run), NEWER, line(message(run)))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Spool, "_put_aside", full)
        with closing(Writer(url, open_spool("test"))):
            wait_until(lambda: booked_calls(db) == [(1, 10)])
    assert f"stay in {directory / '0.0.jsonl'}" in caplog.text
    booked_by_the_next(url, directory)
    assert (directory / "refused.json-lines").read_bytes() == NEWER
    assert booked_calls(db) == [(1, 10)]
    books_hold()


def test_half_a_line_spoils_none_that_is_written_anew() -> None:
    """Somebody removes what waited, and what can still be read of it is written to one file."""
    run, call = start(), message(start())
    directory = left(line(run), b'[{"type":"Mess')
    with closing(open_spool("test")) as spool:
        (directory / "0.0.jsonl").unlink()
        spool.append([call])
        assert spool.batch(10) == [[run], [call]]
