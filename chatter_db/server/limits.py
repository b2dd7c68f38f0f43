"""How much, how often and how many: the size of a request, requests a minute, chats at once."""

import time
from collections import Counter, OrderedDict
from contextlib import suppress
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatter_db.server.problems import problem

MAX_CALLERS = 100_000
"""Callers remembered; the one not seen for longest goes first."""


class BodyLimit:
    """Refuses bodies of more than `limit` bytes, announced or not, with 413."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = problem(413, f"The body of a request may have {self._limit:,} bytes at most.")
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdigit() or int(announced) > self._limit:
            await refusal(scope, receive, send)
            return

        received = 0
        started = too_large = False

        async def counted() -> Message:
            nonlocal received, too_large
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit and not started:
                too_large = True
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            # FastAPI makes an answer of its own (400) of whatever goes wrong with a body.
            if not too_large:
                started = True
                await send(message)

        with suppress(_TooLarge):
            await self._app(scope, counted, noted)
        if too_large:
            await refusal(scope, receive, send)


class _TooLarge(Exception):
    pass


class RateLimit:
    """A token bucket per caller: `per_minute` requests, which may come all at once.

    Counted per process.
    """

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait(self, caller: str) -> float:
        """Takes a token; 0 if there was one, else the seconds until there is."""
        now = time.monotonic()
        bucket = self._buckets.pop(caller, None) or _Bucket(float(self.per_minute), now)
        self._buckets[caller] = bucket
        if len(self._buckets) > MAX_CALLERS:
            self._buckets.popitem(last=False)
        bucket.tokens = min(
            self.per_minute, bucket.tokens + (now - bucket.at) * self.per_minute / 60
        )
        bucket.at = now
        if bucket.tokens < 1:
            return (1 - bucket.tokens) * 60 / self.per_minute
        bucket.tokens -= 1
        return 0.0

    def is_news(self, caller: str) -> bool:
        """Whether this caller's refusal is the first within a minute: worth a record."""
        bucket = self._buckets[caller]
        news = bucket.at - bucket.told > 60
        if news:
            bucket.told = bucket.at
        return news


class ChatLimit:
    """How many chats of a caller are answered at once: each is paid for with the server's keys.

    Counted per process.
    """

    def __init__(self, per_user: int) -> None:
        self.per_user = per_user
        self._of: Counter[str] = Counter()

    def begin(self, caller: str) -> bool:
        """Whether one more may begin; `end` is to follow then."""
        if self._of[caller] >= self.per_user:
            return False
        self._of[caller] += 1
        return True

    def end(self, caller: str) -> None:
        """Gives the place back."""
        self._of[caller] -= 1
        if not self._of[caller]:
            del self._of[caller]


@dataclass
class _Bucket:
    tokens: float
    at: float
    told: float = float("-inf")
