"""The network between Postgres and its clients: a port that stays, connections that don't."""

import asyncio
import random
from typing import Self

PIECE = 65536


class Link:
    """One connection through the proxy: its end at the client and its end at Postgres."""

    def __init__(self, *ends: asyncio.StreamWriter) -> None:
        self._ends = ends

    def break_off(self) -> None:
        """Ends it at both sides without a word."""
        for end in self._ends:
            end.transport.abort()

    def close(self) -> None:
        """Ends it after what was said."""
        for end in self._ends:
            end.close()


class Proxy:
    """Listens on one port of loopback, and passes on to wherever Postgres is now."""

    def __init__(self) -> None:
        self.target: int | None = None
        self.port = 0
        self._links: set[Link] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=256)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._server.close()
        self._flowing.set()
        self.cut(1.0, random.Random())
        await self._server.wait_closed()

    def cut(self, share: float, dice: random.Random) -> int:
        """Breaks off this share of the connections, one at least; how many."""
        links = sorted(self._links, key=id)
        chosen = dice.sample(links, min(len(links), max(1, round(share * len(links)))))
        for link in chosen:
            link.break_off()
        return len(chosen)

    def freeze(self) -> int:
        """Holds up what is on its way until `thaw`; how many connections wait now."""
        self._flowing.clear()
        return len(self._links)

    def thaw(self) -> None:
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.target is None:
                raise ConnectionRefusedError("Postgres is away")
            answers, questions = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:  # what a client sees then is a connection that ends at once
            writer.transport.abort()
            return
        link = Link(writer, questions)
        self._links.add(link)
        pumps = [
            asyncio.create_task(self._pump(reader, questions)),
            asyncio.create_task(self._pump(answers, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            link.close()
            self._links.discard(link)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(PIECE):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            return  # one of the ends is gone, which ends the other
