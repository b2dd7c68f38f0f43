"""json and jsonb as Python reads them."""

import json
from typing import Any


def json_of(text: str | bytes) -> Any:
    """JSON; whole numbers of more digits than Python reads (4,300) as text."""
    try:
        return json.loads(text)
    except ValueError:
        return json.loads(text, parse_int=_digits)


def _digits(written: str) -> int | str:
    return written if len(written) > 300 else int(written)
