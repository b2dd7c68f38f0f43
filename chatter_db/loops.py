"""What belongs to an event loop: connections of asyncpg are of use in the one they were made in.

`asyncio.run`, a server and a test's runner close a loop's generators before the loop: one of
those closes the connections while that is possible. Where somebody closes a loop without, the next
loop to come, or the end of the Chatter, takes them away.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from sqlalchemy.ext.asyncio import AsyncEngine

from chatter_db import database
from chatter_db.events import Hub
from chatter_db.settings import settings


class Loops:
    """The engine and the hub of each event loop that uses one database."""

    def __init__(self) -> None:
        self._belongings: dict[asyncio.AbstractEventLoop, _Belongings] = {}
        self._parents: list[_Belongings] = []

    def engine(self, url: str) -> AsyncEngine:
        """The engine of the running loop."""
        mine = self._mine()
        if mine.engine is None:
            mine.engine = database.async_engine(url)
        return mine.engine

    def hub(self, url: str) -> Hub:
        """The hub of the running loop."""
        mine = self._mine()
        if mine.hub is None:
            mine.hub = Hub(url, poll_seconds=settings().poll_seconds)
        return mine.hub

    async def close_hub(self) -> None:
        """Ends what the running loop has of events; no-op if that is nothing."""
        mine = self._belongings.get(asyncio.get_running_loop())
        if mine is not None:
            await mine.close_hub()

    async def close(self) -> None:
        """Closes what belongs to the running loop."""
        mine = self._belongings.get(asyncio.get_running_loop())
        if mine is not None:
            await mine.close()

    def end(self) -> None:
        """Ends what is left, from wherever: in its own loop if that runs, else at once."""
        for loop, its in list(self._belongings.items()):
            with suppress(RuntimeError):  # it was closed this moment
                if loop.is_running():
                    loop.call_soon_threadsafe(its.close_soon)
                    continue
            self._terminate(loop)

    def leave(self) -> None:
        """In a child of fork: leaves connections to the parent."""
        for its in self._belongings.values():
            its.leave()
        # Kept, because to drop them would be to close them.
        self._parents += self._belongings.values()
        self._belongings = {}

    def _mine(self) -> "_Belongings":
        loop = asyncio.get_running_loop()
        mine = self._belongings.get(loop)
        if mine is None:
            for other in [each for each in list(self._belongings) if each.is_closed()]:
                self._terminate(other)
            mine = _Belongings(lambda: self._belongings.pop(loop, None))
            self._belongings[loop] = mine
        return mine

    def _terminate(self, loop: asyncio.AbstractEventLoop) -> None:
        its = self._belongings.pop(loop, None)
        if its is not None:
            its.terminate()


class _Belongings:
    """Of one event loop, made while it runs."""

    def __init__(self, forget: Callable[[], object]) -> None:
        self.engine: AsyncEngine | None = None
        self.hub: Hub | None = None
        self._forget = forget
        self._closing: asyncio.Task[None] | None = None
        self._life = self._live()
        with suppress(StopIteration):  # it has begun
            anext(self._life).send(None)

    async def close(self) -> None:
        await self._life.aclose()

    def close_soon(self) -> None:
        self._closing = asyncio.ensure_future(self.close())

    async def close_hub(self) -> None:
        hub, self.hub = self.hub, None
        if hub is not None:
            await hub.close()

    def terminate(self) -> None:
        """Ends the connections from outside of the loop, which doesn't run."""
        if self.hub is not None:
            self.hub.terminate()
        if self.engine is not None:
            self.engine.sync_engine.dispose()
        self.hub = self.engine = None

    def leave(self) -> None:
        if self.engine is not None:
            self.engine.sync_engine.dispose(close=False)
        self.hub = self.engine = None

    async def _live(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._forget()
            await self.close_hub()
            if self.engine is not None:
                await self.engine.dispose()
