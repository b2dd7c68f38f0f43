"""The hand-shake between writers and the reader that is awake.

A commit that notifies takes a lock of the whole cluster. So a reader that is busy
anyway holds an advisory lock, and writers who find it held don't ring
(chatter.ring_bell). Falling asleep must not miss who looked just before:

1. let go of the lock: whoever looks from now on rings;
2. take the edge, a transaction id of our own: whoever looked earlier is before it;
3. read, and again when all before the edge are over. Asleep is who did this.

tests/events/test_bell.py goes through every interleaving.
"""

import asyncpg

from chatter_db.queries import statement

CHANNEL = "chatter_events"


class Bell:
    """The bell as one connection sees it."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection
        self.held = False
        """Whether writers are spared the bell because of us."""
        self.edge: str | None = None
        """Asleep only when every transaction before this one is over."""

    async def hold(self) -> None:
        """Spares the writers from now on, unless another process does already."""
        self.held = await self._connection.fetchval(statement("bell_hold"))
        if self.held:
            self.edge = None

    async def let_go(self) -> None:
        """Writers ring again; read until `edge_passed`."""
        await self._connection.execute(statement("bell_let_go"))
        self.held = False
        self.edge = await self._connection.fetchval(statement("bell_edge"))

    async def edge_passed(self) -> bool:
        """Whether one more reading finds all of those who did not ring."""
        return bool(await self._connection.fetchval(statement("bell_edge_passed"), self.edge))

    async def pass_on(self) -> None:
        """Rings for the other processes, whom the writers spare too."""
        await self._connection.execute(statement("bell_pass_on"))
