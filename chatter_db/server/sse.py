"""Server-sent events, as the WHATWG HTML standard (9.2) has them, and as real clients need them.

LF only, one `data:` line of JSON, an `id:` on every event, comments as heartbeats.
Written against ASGI itself: a stream that waits costs a few kilobytes so.
"""

import asyncio
import logging
import time
from collections import Counter
from contextlib import aclosing

import msgspec
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from chatter_db.accounts import Accounts, Identity
from chatter_db.errors import DatabaseUnavailable, EventsPruned, UsageError
from chatter_db.events import Batch, Hub, Selection
from chatter_db.server.problems import problem

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 15.0
"""Silence after which a comment is sent, so that proxies and clients know that all is well."""

TICK_SECONDS = 1.0
"""How often the streams are looked after: one timer for all, since one for each thing sent
took half of the time with a thousand clients."""

STALLED_SECONDS = 30.0
"""A client that takes nothing for so long is let go; its cursor brings it back."""

POSITION_SECONDS = 60.0
"""How often a reader to whom nothing happens is told a newer position: an old one
would be passed by retention."""

CHECK_SECONDS = 5.0
"""How often keys and browser sessions of open streams are looked at: so long may a stream go on
when its own has ended."""

RETRY_MS = 1000

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    # nginx would gather the answer.
    (b"x-accel-buffering", b"no"),
]


class Streams:
    """The streams that are open, and how many there may be: in all, and of one user."""

    def __init__(self, accounts: Accounts, total: int, per_user: int) -> None:
        self._accounts = accounts
        self._total = total
        self._per_user = per_user
        self._of: Counter[object] = Counter()
        self._open: set[EventStream] = set()
        self._ticking: asyncio.Task[None] | None = None
        self._checking: asyncio.Task[None] | None = None
        self._shut = False

    def __len__(self) -> int:
        return len(self._open)

    def refusal(self, user: object) -> Response | None:
        """The answer to one more stream of `user`, if there may be none."""
        if self._shut:
            return problem(503, "This server is about to end.", headers={"Retry-After": "1"})
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

    def begin(self, stream: "EventStream") -> None:
        self._open.add(stream)
        self._of[stream.user] += 1
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._tick())
        if self._checking is None:
            self._checking = asyncio.create_task(self._check())

    def end(self, stream: "EventStream") -> None:
        self._open.discard(stream)
        self._of[stream.user] -= 1
        if not self._of[stream.user]:
            del self._of[stream.user]

    def shut(self) -> None:
        """Lets no more begin: one that did after the others were told to end would never hear."""
        self._shut = True

    async def close(self) -> None:
        """Ends what looks after the streams, which must not outlast the database's connections."""
        tasks = [task for task in (self._ticking, self._checking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tick(self) -> None:
        try:
            while self._open:
                await asyncio.sleep(TICK_SECONDS)
                now = time.monotonic()
                for stream in self._open:
                    stream.look_after(now)
        finally:
            self._ticking = None

    async def _check(self) -> None:
        """Ends the streams of who may not have them any more: one query for all."""
        try:
            while self._open:
                await asyncio.sleep(CHECK_SECONDS)
                # Who comes meanwhile has just been looked at.
                asked = list(self._open)
                try:
                    good = await self._accounts.still_good({stream.credential for stream in asked})
                except (DatabaseUnavailable, SQLAlchemyError) as error:
                    # A Postgres that doesn't answer tells the streams nothing either.
                    log.warning("Keys and sessions of open streams can't be looked at: %s", error)
                    continue
                for stream in asked:
                    if good.get(stream.credential) != stream.role:
                        stream.stop()
        finally:
            self._checking = None


class EventStream(Response):
    """The answer of GET /api/events: the events after a position, for as long as the
    client stays. It goes on from the table when the client is slow.

    As a response it only begins the answer; `Streaming` goes on with it.
    """

    def __init__(
        self,
        hub: Hub,
        wanted: Selection,
        position: str | None,
        streams: Streams,
        identity: Identity,
    ) -> None:
        self._subscription = hub.subscribe(wanted, position)
        self._hub = hub
        self._streams = streams
        self._writing: asyncio.Task[None] | None = None
        # Not the identity: these are 5,000 times in memory.
        self.user = identity.user_id
        self.credential = identity.credential
        self.role = identity.role
        self._told_at = 0.0
        self._sent_at = time.monotonic()
        self._sending = False
        self._stalled = False
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._streams.refusal(self.user)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        scope[_BEGUN] = self
        self._streams.begin(self)
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})

    async def run(self, receive: Receive, send: Send) -> None:
        """The stream itself, until the client leaves, it is stopped or the hub is closed."""
        self._writing = asyncio.current_task()
        watching = asyncio.create_task(self._watch(receive))
        try:
            await self._write(send)
        except asyncio.CancelledError:
            if not self._stalled:
                raise
            log.warning("A client of the event stream took nothing; it was let go.")
        finally:
            watching.cancel()
            self._streams.end(self)

    def stop(self) -> None:
        """Ends the stream, in order."""
        self._subscription.stop()

    def look_after(self, now: float) -> None:
        """Fills silence, and lets a client go that takes nothing."""
        if now - self._sent_at < (STALLED_SECONDS if self._sending else HEARTBEAT_SECONDS):
            return
        if not self._sending:
            self._subscription.nudge()
        elif self._writing is not None:
            self._stalled = True
            self._writing.cancel()

    async def _send(self, send: Send, body: bytes) -> None:
        self._sent_at = time.monotonic()
        # The server waits here while the client's buffer is full.
        self._sending = True
        await send({"type": "http.response.body", "body": body, "more_body": True})
        self._sending = False

    async def _watch(self, receive: Receive) -> None:
        """Ends the stream of a client that has gone."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.stop()

    async def _write(self, send: Send) -> None:
        await self._send(send, _OPENING)
        while True:
            try:
                async with aclosing(self._subscription.batches()) as batches:
                    async for batch in batches:
                        await self._send(send, self._block_of(batch))
                break
            except EventsPruned as pruned:
                # First, so that `stop` finds it.
                self._subscription = self._hub.subscribe(
                    self._subscription.selection, pruned.oldest
                )
                await self._send(send, _note("reset", pruned.oldest))
            except UsageError:
                break  # the database is another now, as the client is told when it comes again
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


class Streaming:
    """Runs event streams outside of the app, when it has done its part.

    What routing, checking and measuring a request takes would stay in memory for as long as
    the stream: 2,000 idle clients took 31 kB each so.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
        stream: EventStream | None = scope.pop(_BEGUN, None)
        if stream is not None:
            for key in scope.keys() - _OF_ASGI:
                del scope[key]
            await stream.run(receive, send)


_BEGUN = "chatter.event_stream"

# What the server itself put into the scope and may look at again.
_OF_ASGI = {
    *("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string"),
    *("root_path", "headers", "client", "server", "extensions", "state"),
}

_OPENING = b": open\nretry: %d\n\n" % RETRY_MS
_HEARTBEAT = b": heartbeat\n\n"


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
