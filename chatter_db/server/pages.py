"""Lists, a page at a time: a cursor instead of a number, so that new rows shift nothing."""

import base64
import binascii
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel
from starlette.exceptions import HTTPException

MAX_PAGE = 200

Item = TypeVar("Item")

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="How many at most.")]
After = Annotated[
    str | None, Query(max_length=200, description="`next` of the page before; opaque.")
]


class Page(BaseModel, Generic[Item]):
    """Part of a list."""

    items: list[Item]
    next: str | None
    """Where the list goes on; None at its end."""


def page_of(items: list[Item], limit: int, key: Callable[[Item], tuple[object, ...]]) -> Page[Item]:
    """The first `limit` of `items`: one more of them says that the list goes on.

    `key` is what the list is sorted by, and what `position` gets back.
    """
    more = len(items) > limit
    return Page(items=items[:limit], next=cursor(*key(items[limit - 1])) if more else None)


def cursor(*key: object) -> str:
    """An opaque cursor of the row with that sort key."""
    return base64.urlsafe_b64encode(json.dumps([str(part) for part in key]).encode()).decode()


def position(after: str | None, *parts: Callable[[str], Any]) -> list[Any] | None:
    """The sort key in a cursor, each of its `parts` parsed; None for the list's beginning.

    Answers 422 if it is no cursor.
    """
    if after is None:
        return None
    try:
        key = json.loads(base64.b64decode(after.encode(), altchars=b"-_", validate=True))
        return [parse(part) for parse, part in zip(parts, key, strict=True)]
    except (binascii.Error, ValueError, TypeError, AttributeError, OverflowError):
        raise HTTPException(422, "after: this is no `next` of an earlier page.") from None


def moment(written: str) -> datetime:
    """A time in a cursor, in UTC: beyond its years Postgres is not asked."""
    return datetime.fromisoformat(written).astimezone(UTC)
