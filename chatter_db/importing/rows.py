"""Records as rows of the staging table, each with the id that makes a repeated import a no-op."""

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from chatter_db.errors import UsageError
from chatter_db.importing.columns import TARGETS, check_header, sources
from chatter_db.importing.reading import Record
from chatter_db.importing.report import BadLines
from chatter_db.importing.usage import counts_of
from chatter_db.importing.values import NULL, json_of

# A report names unknown columns; a file with endless many is no reason to keep them all.
MAX_IGNORED = 50

# A clock may be wrong; by more than a day (of microseconds) it is the file that is.
LEEWAY = 24 * 60 * 60 * 1_000_000

BLOCK_CHARACTERS = 64 * 1024

_SLOTS = {target: slot for slot, target in enumerate(TARGETS)}
_ID, _KEY, _CONVERSATION, _USER, _TIME = (
    _SLOTS[target] for target in ("id", "key", "conversation", "user", "time")
)
_PROVIDER, _STATUS, _USAGE = (
    _SLOTS[target] for target in ("provider_used", "usage_status", "usage")
)
_TOKENS = [_SLOTS[target] for target in ("prompt_tokens", "completion_tokens", "total_tokens")]
_BLANK = [NULL] * len(TARGETS)


class RowMaker:
    """Turns records into lines of COPY text; records that can't be booked go to `bad`.

    `mapping` is from column names of the file to columns of the books. With `read_usage`
    a row that says no tokens has those of its usage block, if there is one.

    Raises UsageError for a mapping that can't be.
    """

    def __init__(
        self, mapping: Mapping[str, str], bad: BadLines, *, read_usage: bool = False
    ) -> None:
        self._known = sources(mapping)
        self._columns = {
            source: (_SLOTS[target], TARGETS[target]) for source, target in self._known.items()
        }
        self._bad = bad
        self._read_usage = read_usage
        self._unseen = set(mapping)
        self._ignored: dict[str, None] = {}
        self._latest = time.time_ns() // 1000 + LEEWAY
        self.made = 0
        self.without_time = 0
        self.in_future = 0
        self.unread_usage = 0

    def blocks(self, records: Iterable[Record]) -> Iterator[bytes]:
        """COPY text of the good records, in blocks of BLOCK_CHARACTERS or one record more."""
        block: list[str] = []
        size = 0
        for record in records:
            row = self._row(record)
            block.append(row)
            size += len(row)
            if size >= BLOCK_CHARACTERS:
                yield "".join(block).encode()
                block.clear()
                size = 0
        yield "".join(block).encode()

    @property
    def ignored(self) -> tuple[str, ...]:
        """The names of columns that mean nothing here, the first MAX_IGNORED."""
        return tuple(self._ignored)

    def check_header(self, header: Sequence[str]) -> None:
        """Raises UsageError if a CSV header lacks a needed column or says a thing twice."""
        self._unseen.difference_update(header)
        self.check_mapping_used()
        check_header(header, self._known)

    def check_mapping_used(self) -> None:
        """Raises UsageError if the mapping names a column that no record had."""
        if self._unseen:
            missing = ", ".join(sorted(self._unseen))
            raise UsageError(f"The file has no column {missing}, which the mapping names.")

    def _row(self, record: Record) -> str:
        """A line of COPY text, empty if the record can't be booked.

        Where no content tells it from others, an id or a key has to.
        """
        line, values, content = record
        if self._unseen:
            self._unseen.difference_update(values)
        cells = _BLANK.copy()
        columns = self._columns
        field = ""
        try:
            for field, value in values.items():
                column = columns.get(field)
                if column is None:
                    self._ignore(field)
                elif value is not None:
                    slot, convert = column
                    if cells[slot] is not NULL:
                        raise ValueError("means the same as another column of the row")
                    cells[slot] = convert(value)
            field = "conversation"
            if cells[_CONVERSATION] is NULL or not cells[_CONVERSATION]:
                raise ValueError("is missing")
            field = "id"
            if not content and cells[_ID] is cells[_KEY] is NULL:
                raise ValueError("is missing")
        # RecursionError: JSON that the decoder could just read and the encoder can't write.
        except (ValueError, RecursionError) as error:
            self._bad.add(line, field, str(error))
            return ""
        self.made += 1
        if self._read_usage and cells[_USAGE] is not NULL:
            self._fill_tokens(cells, values)
        if cells[_TIME] is NULL:
            self.without_time += 1
        elif int(cells[_TIME]) > self._latest:
            self.in_future += 1
        return _copy_line(line, cells, content)

    def _fill_tokens(self, cells: list[str], values: Mapping[str, Any]) -> None:
        """Reads the usage block of a row that doesn't say its tokens, nor that nobody knows."""
        if cells[_STATUS] == "unknown" or any(cells[slot] is not NULL for slot in _TOKENS):
            return
        block = next(
            value
            for name, value in values.items()
            if value is not None and self._known.get(name) == "usage"
        )
        provider = None if cells[_PROVIDER] is NULL else cells[_PROVIDER]
        counts = counts_of(json_of(block), provider)
        if counts is None:
            self.unread_usage += 1
            return
        for column, count in counts.items():
            if cells[_SLOTS[column]] is NULL:
                cells[_SLOTS[column]] = str(count)

    def _ignore(self, source: str) -> None:
        if source not in self._ignored and len(self._ignored) < MAX_IGNORED:
            self._ignored[source] = None


def _copy_line(line: int, cells: list[str], content: bytes) -> str:
    """The staged row. `cells` are in the order of TARGETS; `content` stands in for a key."""
    # Nobody has an empty name, and an empty one joins where NULL wouldn't.
    if cells[_USER] is NULL:
        cells[_USER] = ""
    key = cells.pop()
    keyed = "f"
    if cells[_ID] is NULL:
        owner = f"{cells[_CONVERSATION]}\0{cells[_USER]}\0"
        if key is NULL:
            identity = f"{owner}line\0{line}\0".encode() + content
        else:
            keyed = "t"
            identity = f"{owner}key\0{key}".encode()
        cells[_ID] = _derived_id(cells[_TIME], identity)
    return f"{line}\t{keyed}\t" + "\t".join(cells) + "\n"


def _derived_id(time: str, identity: bytes) -> str:
    """A UUIDv7 (RFC 9562) that is always the same for the same row: its time, then a hash.

    Rows near in time are near in the index. `time` is in microseconds or NULL.
    """
    milliseconds = 0 if time is NULL else int(time) // 1000
    drawn = hashlib.blake2b(identity, digest_size=9).hexdigest()
    # 7 is the version, 8 the variant.
    return f"{milliseconds:012x}7{drawn[:3]}8{drawn[3:]}"
