"""What is on disk for the books: what waits, looked at alone, and what was put aside."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

from chatter_db import database
from chatter_db.ledger import spool_name
from chatter_db.queries import psycopg_query
from chatter_db.recorder import Writer, spool
from chatter_db.recorder.records import MessageRow, Record, RunStarted


def spooled(url: str) -> dict[str, Any]:
    """Records in the spool of the database at `url`: those that wait, and those put aside.

    And those that wait for a database of another address, which may have been this one's.
    """
    own = spool.spool_directories(spool_name(url))
    directories = [path for path in own if path.is_dir()]
    segments = [path for each in directories for path in each.glob(f"*{spool.SUFFIX}")]
    refused = [path for each in directories for path in each.glob(spool.REFUSED)]
    waiting = _counted(segments)
    return {
        "spool": str(directories[0]) if directories else None,
        "spooled_records": waiting[0],
        "spooled_bytes": waiting[1],
        "refused": str(refused[0]) if refused else None,
        "refused_records": _counted(refused)[0],
        "spooled_elsewhere": [
            {"database": _database(each), "spool": str(each), "records": count}
            for base in own
            for each in sorted(_others(base))
            if (count := _counted(each.glob(f"*{spool.SUFFIX}"))[0])
        ],
    }


def book_refused(url: str) -> None:
    """Books what was put aside, as any spool: what is refused again is put aside again.

    What is in the books in reduced form stays: its texts are nowhere else.
    """
    opened = spool.open_spool(spool_name(url))
    try:
        aside = {line: spool.readable(line) for line in opened.aside()}
        reduced = _reduced(url, [record for records in aside.values() for record in records or ()])
        back = {
            line
            for line, records in aside.items()
            if records is not None and reduced.isdisjoint(map(_marked, records))
        }
        if back:
            opened.take_back(back)
    except BaseException:
        opened.close()
        raise
    Writer(url, opened).close()


def _reduced(url: str, records: list[Record]) -> set[UUID]:
    ids = [id_ for record in records if (id_ := _marked(record))]
    with database.connect(url) as connection:
        found = connection.execute(psycopg_query("reduced_records"), {"ids": ids})
        return {id_ for (id_,) in found}


def _marked(record: Record) -> UUID | None:
    """The row that says if a record is booked in reduced form."""
    match record:
        case MessageRow():
            return record.id
        case RunStarted():
            return record.execution_id
        case _:
            return None


def _others(own: Path) -> list[Path]:
    try:
        return [each for each in own.parent.iterdir() if each != own and each.is_dir()]
    except OSError:  # there is none, or it is somebody else's
        return []


def _database(directory: Path) -> str:
    try:
        return (directory / spool.NAME).read_text("utf-8")
    except OSError:
        return "an unknown database"


def _counted(files: Iterable[Path]) -> tuple[int, int]:
    """Records and bytes in `files`."""
    records = size = 0
    for path in files:
        try:
            with path.open("rb") as lines:
                for line in lines:
                    size += len(line)
                    records += spool.records_in(line)
        except OSError:  # booked this moment, or somebody else's
            continue
    return records, size
