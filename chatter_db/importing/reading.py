"""Files as records: one per line of JSON Lines or per row of CSV, read as they are needed."""

import csv
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from itertools import chain
from typing import Any, BinaryIO, TypeAlias

import msgspec

from chatter_db.errors import ImportRejected
from chatter_db.importing.report import BadLines
from chatter_db.importing.values import json_decoder

# Room for content of 8 MiB with every character escaped as \uXXXX.
MAX_LINE_BYTES = 32 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"


# A row of a file: the number of its (first) line, what it says, and the same as
# bytes, to tell it from other rows. A plain tuple, for there are millions.
Record: TypeAlias = tuple[int, dict[str, Any], bytes]


class Lines:
    """The lines of a file, counted, none longer than MAX_LINE_BYTES.

    A longer one is read past and comes as None.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.number = 0
        self.bytes_read = 0

    def __iter__(self) -> Iterator[bytes | None]:
        readline = self._file.readline
        while line := readline(MAX_LINE_BYTES):
            self.number += 1
            self.bytes_read += len(line)
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                self._skip_rest()
                yield None
            elif self.number == 1:
                yield line.removeprefix(_BOM)
            else:
                yield line

    def _skip_rest(self) -> None:
        while rest := self._file.readline(MAX_LINE_BYTES):
            self.bytes_read += len(rest)
            if rest.endswith(b"\n"):
                return


_TOO_LONG = f"is longer than {MAX_LINE_BYTES // 1024 // 1024} MiB"


def read_jsonl(lines: Lines, bad: BadLines) -> Iterator[Record]:
    """The objects of a JSON Lines file; what is none goes to `bad`. Empty lines don't count."""
    decode = json_decoder.decode
    for line in lines:
        if line is None:
            bad.add(lines.number, None, _TOO_LONG)
            continue
        content = line.strip()
        if not content:
            continue
        try:
            values = decode(content)
        # What a decoder raises: malformed, an exponent beyond Decimal, too many levels.
        except (ValueError, ArithmeticError, RecursionError) as error:
            column, reason = _why_not_json(content, error)
            if column is None and not line.endswith(b"\n"):
                reason = f"is cut off: the file ends in the middle of it ({reason})"
            bad.add(lines.number, column, reason)
            continue
        if type(values) is not dict:
            bad.add(lines.number, None, 'is not a JSON object, {"conversation": ...}')
            continue
        yield lines.number, values, content


class _Unfit(str):
    """A number that JSON or the decoder has no place for."""


def _why_not_json(content: bytes, error: Exception) -> tuple[str | None, str]:
    """The field, if it can be told, and the reason why the decoder refused `content`.

    Python's own decoder is laxer; what only it can read names the field.
    """

    def number(written: str) -> Any:
        return _Unfit(written) if len(written) > 300 else Decimal(written)

    try:
        values = json.loads(
            content.decode(), parse_constant=_Unfit, parse_int=number, parse_float=number
        )
        for column, value in values.items() if isinstance(values, dict) else ():
            if unfit := _find_unfit(value):
                return column, f"{unfit[:60]} is not a finite number"
            msgspec.json.encode({"": value})
    except UnicodeDecodeError as undecodable:
        return None, _not_utf8(undecodable)
    except UnicodeEncodeError:
        return column, "holds half of a surrogate pair, which is no character"
    except RecursionError:
        return None, "is not JSON: it is nested too deeply"
    except (ValueError, ArithmeticError):
        pass
    return None, f"is not JSON: {error}"


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"is not UTF-8: byte 0x{error.object[error.start]:02x} at position {error.start + 1}"


def _find_unfit(value: Any) -> str | None:
    if isinstance(value, _Unfit):
        return value
    inside = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list):
        return next((found for each in inside if (found := _find_unfit(each))), None)
    return None


# A field in quotes, whatever separates them, as far as it is on this line.
_QUOTED = re.compile(r'(?:^|(?<=[,;\t])) *"(?:[^"]|"")*"?')


def separator_of(header: str) -> str:
    """What separates the fields: of comma, semicolon and tab the most frequent one.

    Counted outside quotes. As many of several: the first of them.
    """
    unquoted = _QUOTED.sub("", header)
    return max(",;\t", key=unquoted.count)


class CsvRows:
    """The rows of a CSV file as records; the first one, the header, is `header`.

    Its first line tells what separates the fields. Empty fields are None. What is no
    row goes to `bad`, with the number of its first line. Empty lines don't count.
    """

    def __init__(self, lines: Lines, bad: BadLines) -> None:
        self._lines = lines
        self._bad = bad
        self._flaw: str | None = None
        self._ended = True
        # Python allows fields of 128 KiB unless told otherwise, for the whole process.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
        decoded = self._decoded()
        first = next(filter(str.strip, decoded), "")
        self._rows = csv.reader(chain([first], decoded), delimiter=separator_of(first), strict=True)
        try:
            self.header = [name.strip() for name in next(filter(None, self._rows), [])]
        except csv.Error as error:
            self._flaw = self._flaw or f"is not CSV: {error}"
        if self._flaw:
            raise ImportRejected(f"The header, line {lines.number}, {self._flaw}.")

    def __iter__(self) -> Iterator[Record]:
        width = len(self.header)
        while True:
            first = self._lines.number + 1
            try:
                fields = next(self._rows, None)
            except csv.Error as error:
                self._flaw = self._flaw or f"is not CSV: {error}"
                fields = []
            if fields is None:
                return
            if self._flaw:
                self._bad.add(first, None, self._flaw)
                self._flaw = None
            elif len(fields) == width:
                values = [field or None for field in fields]
                yield first, dict(zip(self.header, values, strict=True)), "\0".join(fields).encode()
            elif fields:
                cut = "" if self._ended else ": the file ends in the middle of it"
                self._bad.add(first, None, f"has {len(fields)} of {width} fields{cut}")

    def _decoded(self) -> Iterator[str]:
        """Lines as text. A flaw is remembered: csv has no way to pass on an error."""
        for line in self._lines:
            self._ended = line is None or line.endswith(b"\n")
            if line is None:
                self._flaw = _TOO_LONG
                yield "\n"
                continue
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                self._flaw = _not_utf8(error)
                text = line.decode(errors="replace")
            yield text
