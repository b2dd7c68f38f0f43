"""One reader's way through the events: from its position to the present, then live."""

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from chatter_db.events.event import Batch, Event, Selection
from chatter_db.events.reading import BROKEN

if TYPE_CHECKING:
    from chatter_db.events.hub import Hub

MAX_PENDING = 2_000
"""Live events that may wait for a reader; who is slower goes on from the table."""

RETRY_SECONDS = 0.2


class Subscription:
    """Events for one reader, who takes them at its own pace.

    Nothing is dropped: a reader that falls behind the present is taken off the
    live feed and reads the table until it has caught up.
    """

    def __init__(self, hub: "Hub", selection: Selection, position: str | None) -> None:
        self.selection = selection
        self.position = position
        """After what was taken; None until the present is known."""
        self._hub = hub
        self._pending: list[Batch] = []
        self._size = 0
        self._live = False
        self._stopped = False
        # A future and not an asyncio.Event, which takes a kilobyte.
        self._waiting: asyncio.Future[None] | None = None

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """Batches of events, for ever, or until it is stopped or the hub closed.

        An empty batch tells the position alone: of the beginning, if none was given,
        and of now after a `nudge`.
        Raises EventsPruned if retention has removed what was not yet taken, UsageError
        if its position is none of this database.
        """
        try:
            while not self._stopped and (until := await self._hub.join(self)) is not None:
                if self.position is None:
                    self.position = until
                    yield Batch((), until)
                else:
                    try:
                        missed = self._hub.missed(
                            self.position, until, self.selection, self._is_stopped
                        )
                        async for batch in missed:
                            if self._stopped:
                                return
                            self.position = batch.position
                            yield batch
                    except BROKEN:
                        self._hub.leave(self)
                        await asyncio.sleep(RETRY_SECONDS)
                        continue
                    self.position = until
                async for batch in self._live_batches():
                    self.position = batch.position
                    yield batch
        finally:
            self._hub.leave(self)

    async def events(self) -> AsyncGenerator[Event, None]:
        """The same, one by one."""
        async for batch in self.batches():
            for event in batch.events:
                yield event

    def nudge(self) -> None:
        """If it waits for events, it yields its position instead."""
        self._wake()

    def stop(self) -> None:
        """Ends the iteration, from outside of it."""
        self._stopped = True
        self.end()

    def _is_stopped(self) -> bool:
        return self._stopped

    async def _live_batches(self) -> AsyncGenerator[Batch, None]:
        """Until the reader has fallen behind, is stopped, or the hub is closed."""
        while True:
            while self._pending and not self._stopped:
                batch = self._pending.pop(0)
                self._size -= len(batch.events)
                yield batch
            if self._stopped or not self._live:
                return
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
            if self._live and not self._pending:
                # Nudged. It has all that the hub has handed out.
                yield Batch((), self._hub.position or self.position or "")

    # What the hub does with it.

    def begin(self) -> None:
        """From here on it is handed what comes."""
        self._pending.clear()
        self._size = 0
        self._live = True

    def hand(self, batch: Batch) -> bool:
        """Gives it a batch; False if too many wait: then it is off the live feed."""
        if self._pending and self._size + len(batch.events) > MAX_PENDING:
            self.end()
            return False
        self._pending.append(batch)
        self._size += len(batch.events)
        self._wake()
        return True

    def end(self) -> None:
        """Off the live feed, with what it has."""
        self._live = False
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
