"""Values of a file as COPY text, each checked against the limit of its column.

Every function takes what JSON or CSV gave (text without half of a surrogate pair, int,
Decimal, bool, list or dict; never a float, never None) and returns the text for COPY. It raises
ValueError with the reason when Postgres would refuse the value or store
another one.
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from chatter_db.models import MAX_CONTENT_BYTES, MAX_COST, MAX_LEVELS, MAX_NAME

Convert = Callable[[Any], str]

NULL = r"\N"

# No price has them; Postgres ends at 16,383.
MAX_DECIMALS = 1000

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,6})?", re.ASCII | re.IGNORECASE)
# 1.000 as Germans write a thousand, or as a float of three decimals.
_THOUSANDS = re.compile(r"[1-9]\d{0,2}(\.\d{3})+", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(s?nan|inf(inity)?)", re.IGNORECASE)
# An escaped NUL, but not an escaped backslash before "u0000".
_JSON_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_9999 = 253_370_764_800
_LAST_EIGHT_DIGITS = 99_999_999

json_decoder = msgspec.json.Decoder(float_hook=Decimal)
_json_encoder = msgspec.json.Encoder(decimal_format="number")


def text(value: Any) -> str:
    """Text as it is."""
    if type(value) is not str:
        raise ValueError(f"{_shown(value)} is not text")
    # Most text is printable and needs no escaping.
    if value.isprintable() and "\\" not in value:
        return value
    if "\0" in value:
        raise ValueError("holds a NUL character, which Postgres can't store")
    return (
        value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    )


def content(value: Any) -> str:
    """Text of at most 8 MiB."""
    if type(value) is str and len(value) * 4 > MAX_CONTENT_BYTES:
        size = len(value.encode())
        if size > MAX_CONTENT_BYTES:
            raise ValueError(f"{size:,} bytes are more than {MAX_CONTENT_BYTES:,} (8 MiB)")
    return text(value)


def name(value: Any) -> str:
    """A name of the host app, such as a conversation's: text or a whole number."""
    if type(value) is int:
        value = str(value)
    if type(value) is str and len(value) > MAX_NAME:
        raise ValueError(f"{len(value):,} characters are more than {MAX_NAME}")
    return text(value)


def uuid(value: Any) -> str:
    """A UUID in any form Python knows."""
    try:
        return UUID(value).hex
    except (ValueError, AttributeError, TypeError):
        raise ValueError(
            f"{_shown(value)} is not a UUID (name a key of another form with --key)"
        ) from None


def one_of(*allowed: str) -> Convert:
    """One of a few words."""
    words = frozenset(allowed)

    def convert(value: Any) -> str:
        if type(value) is str and value in words:
            return value
        raise ValueError(f"{_shown(value)} is not one of {', '.join(allowed)}")

    return convert


def count(maximum: int) -> Convert:
    """A whole number from 0 to `maximum`; 12.0 and "12" are 12, and "1.000" is refused."""

    def convert(value: Any) -> str:
        if type(value) is not int:
            value = _whole(value)
        if 0 <= value <= maximum:
            return str(value)
        beyond = "below 0" if value < 0 else f"above {maximum:,}"
        raise ValueError(f"{_shown(value)} is {beyond}")

    return convert


def cost(value: Any) -> str:
    """US dollars, digit for digit as the file has them."""
    number = value if type(value) is Decimal else _number(value)
    if not 0 <= number < MAX_COST:
        beyond = "below 0" if number < 0 else f"not below {MAX_COST:,}"
        raise ValueError(f"{_shown(value)} is {beyond}")
    written = str(number)
    if len(written) > MAX_DECIMALS or "E" in written:
        _check_exponent(number, value)
    return written


def milliseconds(value: Any) -> str:
    """A duration, not negative and finite."""
    number = float(_number(value))
    if number < 0:
        raise ValueError(f"{_shown(value)} is below 0")
    if math.isinf(number):
        raise ValueError(f"{_shown(value)} is not a finite number")
    return repr(number)


def moment(value: Any) -> str:
    """A time as microseconds since 1970: from Unix seconds, or ISO 8601 (UTC unless it says).

    Eight digits that are a date (20261025) are that date, and no second of the early 1970s.
    """
    if type(value) is int and _LAST_EIGHT_DIGITS < value < _YEAR_9999:
        return f"{value}000000"
    if type(value) is str and not _NUMBER.fullmatch(value.strip()):
        return str(_microseconds_of_iso(value))
    seconds = _number(value)
    if date := _date_of(seconds):
        return str((date - _EPOCH) // timedelta(microseconds=1))
    if not 0 <= seconds < _YEAR_9999:
        raise ValueError(f"{_shown(value)} is not between 1970 and 9998 in Unix seconds")
    return str(int((seconds * 1_000_000).to_integral_value()))


def json_value(value: Any) -> str:
    """A JSON value, or text that holds one; numbers keep their digits."""
    return _json_text(json_of(value))


def json_object(value: Any) -> str:
    """A JSON object, or text that holds one."""
    value = json_of(value)
    if type(value) is not dict:
        raise ValueError(f"{_shown(value)} is not a JSON object")
    return _json_text(value)


def json_of(value: Any) -> Any:
    """A JSON value, of itself or of text that holds one."""
    if type(value) is not str:
        return value
    try:
        return json_decoder.decode(value)
    # What a decoder raises: malformed, an exponent beyond Decimal, too many levels.
    except (ValueError, ArithmeticError, RecursionError):
        raise ValueError(f"{_shown(value)} is not JSON") from None


def _json_text(value: Any) -> str:
    _require_readable(value)
    encoded = _json_encoder.encode(value)
    if b"u0000" in encoded and _JSON_NUL.search(encoded):
        raise ValueError("holds a NUL character, which Postgres can't store")
    return encoded.decode().replace("\\", "\\\\")


def _require_readable(value: Any, level: int = 0) -> None:
    """Raises ValueError for JSON that few could read again."""
    if level == MAX_LEVELS:
        raise ValueError(f"is nested more than {MAX_LEVELS} levels deep")
    if type(value) is dict or type(value) is list:
        for item in value.values() if type(value) is dict else value:
            _require_readable(item, level + 1)
    elif type(value) is Decimal and value.adjusted() >= 308:
        raise ValueError(f"{_shown(value)} is larger than any float")


def _microseconds_of_iso(value: str) -> int:
    if _NOT_FINITE.fullmatch(value):
        raise ValueError(f"{_shown(value)} is not a finite number")
    try:
        parsed = datetime.fromisoformat(value.strip())
    except ValueError:
        raise ValueError(f"{_shown(value)} is neither Unix seconds nor ISO 8601") from None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    if parsed < _EPOCH:
        raise ValueError(f"{_shown(value)} is before 1970")
    if parsed.timestamp() >= _YEAR_9999:
        raise ValueError(f"{_shown(value)} is after 9998")
    return (parsed - _EPOCH) // timedelta(microseconds=1)


def _date_of(number: Decimal) -> datetime | None:
    """The date, from 1970 on, that `number` writes as YYYYMMDD, if it does."""
    if not 19_700_101 <= number <= 99_981_231 or number != number.to_integral_value():
        return None
    try:
        return datetime.strptime(str(int(number)), "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return None


def _check_exponent(number: Decimal, value: Any) -> None:
    exponent = number.as_tuple().exponent
    # A zero may have any exponent and Postgres still minds.
    if isinstance(exponent, int) and not -MAX_DECIMALS <= exponent <= MAX_DECIMALS:
        raise ValueError(f"{_shown(value)} has more than {MAX_DECIMALS:,} decimals")


def _whole(value: Any) -> int:
    # int() reads "1_000" and digits of other scripts; the common case is plain.
    if type(value) is str and value.isascii() and value.isdecimal() and len(value) < 20:
        return int(value)
    if type(value) is str and _THOUSANDS.fullmatch(value.strip()):
        raise ValueError(
            f"{_shown(value)} may be {value.strip().replace('.', '')} or a number with decimals; "
            "write it without the dot"
        )
    number = _number(value)
    if number.adjusted() > 20:
        raise ValueError(f"{_shown(value)} is beyond any count")
    if number != number.to_integral_value():
        raise ValueError(f"{_shown(value)} is not a whole number")
    return int(number)


def _number(value: Any) -> Decimal:
    """The number in `value`, exact and finite."""
    if type(value) is Decimal or type(value) is int:
        return Decimal(value)
    if type(value) is str:
        written = value.strip()
        if _NUMBER.fullmatch(written):
            return Decimal(written)
        if _NOT_FINITE.fullmatch(written):
            raise ValueError(f"{_shown(value)} is not a finite number")
    raise ValueError(f"{_shown(value)} is not a number")


def _shown(value: Any) -> str:
    """`value` for a message: short, on one line, quoted if text."""
    written = repr(value) if type(value) is str else str(value)
    return written if len(written) <= 60 else f"{written[:57]}..."
