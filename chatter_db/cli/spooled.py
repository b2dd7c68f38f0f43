"""What is on disk for the books, waiting or put aside: looked at, neither locked nor adopted."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from chatter_db.ledger import spool_name
from chatter_db.recorder import spool
from chatter_db.recorder.segment import records_in


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
            {
                "database": _database(each),
                "spool": str(each),
                "records": count,
                # It may not be there yet: nobody has recorded at this address.
                "move_to": str((directories or own)[0]),
            }
            for base in own
            for each in sorted(_others(base))
            if (count := _counted(each.glob(f"*{spool.SUFFIX}"))[0])
        ],
    }


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
                    records += records_in(line)
        except OSError:  # booked this moment, or somebody else's
            continue
    return records, size
