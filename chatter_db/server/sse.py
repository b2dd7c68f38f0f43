"""Server-sent events, as the WHATWG HTML standard (9.2) has them, and as real clients need them.

LF only, one `data:` line of JSON, an `id:` on every event, comments as heartbeats.
Written against ASGI itself: a stream that waits costs a few kilobytes so.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing, contextmanager

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chatter_db.errors import EventsPruned
from chatter_db.events import Batch, Hub, Selection
from chatter_db.server.problems import problem

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 15.0
"""Silence after which a comment is sent, so that proxies and clients know that all is well."""

STALLED_SECONDS = 30.0
"""A client that takes nothing for so long is let go; its cursor brings it back."""

POSITION_SECONDS = 60.0
"""How often a reader to whom nothing happens is told a newer position: an old one
would be passed by retention."""

RETRY_MS = 1000

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    # nginx would gather the answer.
    (b"x-accel-buffering", b"no"),
]


class Streams:
    """The streams that are open, and how many there may be: in all, and of one user."""

    def __init__(self, total: int, per_user: int) -> None:
        self._total = total
        self._per_user = per_user
        self._of: Counter[object] = Counter()

    def __len__(self) -> int:
        return self._of.total()

    def refusal(self, user: object) -> Response | None:
        """The answer to one more stream of `user`, if there may be none."""
        if len(self) >= self._total:
            return problem(
                503,
                f"This server has {self._total:,} event streams open and takes no more.",
                headers={"Retry-After": "30"},
            )
        if self._of[user] >= self._per_user:
            return problem(
                429,
                f"You have {self._per_user:,} event streams open; close one first.",
                headers={"Retry-After": "30"},
            )
        return None

    @contextmanager
    def one_more(self, user: object) -> Iterator[None]:
        self._of[user] += 1
        try:
            yield
        finally:
            self._of[user] -= 1
            if not self._of[user]:
                del self._of[user]


class EventStream(Response):
    """The answer of GET /api/events: the events after a position, for as long as the
    client stays. It goes on from the table when the client is slow.
    """

    def __init__(
        self, hub: Hub, wanted: Selection, position: str | None, streams: Streams, user: object
    ) -> None:
        self._subscription = hub.subscribe(wanted, position)
        self._hub = hub
        self._streams = streams
        self._user = user
        self._told_at = 0.0
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._streams.refusal(self._user)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        with self._streams.one_more(self._user):
            watching = asyncio.create_task(self._watch(receive))
            try:
                await self._write(send)
            except TimeoutError:
                log.warning("A client of the event stream took nothing; it was let go.")
            finally:
                watching.cancel()

    async def _watch(self, receive: Receive) -> None:
        """Ends the stream of a client that has gone."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._subscription.stop()

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await _send(send, _OPENING)
        while True:
            try:
                async with aclosing(self._subscription.batches(HEARTBEAT_SECONDS)) as batches:
                    async for batch in batches:
                        await _send(send, self._block_of(batch))
                break
            except EventsPruned as pruned:
                await _send(send, _note("reset", pruned.oldest))
                self._subscription = self._hub.subscribe(
                    self._subscription.selection, pruned.oldest
                )
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _block_of(self, batch: Batch) -> bytes:
        now = time.monotonic()
        if batch.events:
            self._told_at = now
            return _rendered(batch)
        if now - self._told_at < POSITION_SECONDS:
            return _HEARTBEAT
        self._told_at = now
        return _note("position", batch.position)


_OPENING = b": open\nretry: %d\n\n" % RETRY_MS
_HEARTBEAT = b": heartbeat\n\n"


async def _send(send: Send, body: bytes) -> None:
    # The server waits here while the client's buffer is full.
    async with asyncio.timeout(STALLED_SECONDS):
        await send({"type": "http.response.body", "body": body, "more_body": True})


def _rendered(batch: Batch) -> bytes:
    if batch.rendered is None:
        batch.rendered = b"".join(
            block(event.event_type, msgspec.json.encode(event), event.position)
            for event in batch.events
        )
    return batch.rendered


def _note(event: str, position: str) -> bytes:
    return block(event, msgspec.json.encode({"position": position}), position)


def block(event: str, data: bytes, position: str) -> bytes:
    """One event of a stream."""
    return b"event: %b\ndata: %b\nid: %b\n\n" % (event.encode(), data, position.encode())
