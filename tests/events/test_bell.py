"""No wake-up is lost: the hub's own code against a writer, in every order of their statements."""

import asyncio
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import asyncpg
import psycopg
import pytest

from chatter_db.events import Hub, bell, hub
from chatter_db.queries import statement

WRITER = (
    # What a trigger does, apart: the row, the bell, the commit.
    "insert into chatter.events (event_type, category) values ('tool_called', 'workflow')",
    "select chatter.ring_bell()",
    "commit",
)

READER = 9
"""Statements of the hub from taking the bell to sleep, where there is nothing: hold,
position, look, let go, edge, passed, position, look; and one for the bell that wakes it."""


class Gate:
    """The hub's connection, which waits before every statement until it is let through."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection
        self._let = asyncio.Semaphore(0)
        self.idle = asyncio.Event()
        """Set while the hub waits: at the gate, or asleep."""
        self.asleep = False

    async def _through(self, method: str, *arguments: Any, **options: Any) -> Any:
        self.idle.set()
        await self._let.acquire()
        return await getattr(self._connection, method)(*arguments, **options)

    def is_closed(self) -> bool:
        return self._connection.is_closed()

    async def fetch(self, *arguments: Any, **options: Any) -> Any:
        return await self._through("fetch", *arguments, **options)

    async def fetchval(self, *arguments: Any, **options: Any) -> Any:
        return await self._through("fetchval", *arguments, **options)

    async def execute(self, *arguments: Any, **options: Any) -> Any:
        return await self._through("execute", *arguments, **options)

    async def step(self) -> None:
        """One statement of the hub, if it isn't asleep; a bell that rang wakes it first."""
        await self._connection.execute("select 1")  # brings notifications along
        await asyncio.sleep(0)
        if self.asleep:
            return
        await self.idle.wait()
        self.idle.clear()
        self._let.release()
        await self.idle.wait()


class Reader:
    """A hub whose connection passes the gate."""

    def __init__(self, url: str, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self.gate = Gate(connection)
        self.hub = Hub(url)
        self.seen: list[int] = []
        self._was_busy = False

    async def start(self) -> None:
        def busy() -> bool:
            first = bool(self.hub._groups) and not self._was_busy
            self._was_busy |= first
            return first

        async def wait(seconds: float) -> bool:
            if seconds != hub.PING_SECONDS:
                return False  # dozing: it looks again
            self.gate.asleep = True
            self.gate.idle.set()
            await self.hub._rung.wait()
            self.gate.idle.clear()
            self.gate.asleep = False
            return True

        self.hub._busy = busy  # type: ignore[method-assign]
        self.hub._wait = wait  # type: ignore[method-assign]
        await self.gate._connection.add_listener(bell.CHANNEL, lambda *_: self.hub._rung.set())
        self.reading = asyncio.create_task(self._read())
        await asyncio.sleep(0)
        assert self.hub._task is not None
        self.hub._task.cancel()
        self.hub._task = asyncio.create_task(self.hub._follow(self.gate))  # type: ignore[arg-type]
        # To the present and on the live feed, up to where it takes the bell.
        while not self.hub._groups:
            await self.gate.step()

    async def _read(self) -> None:
        async for event in self.hub.subscribe().events():
            self.seen.append(event.id)

    async def to_sleep(self) -> None:
        """Lets it run until it sleeps and no bell is on its way."""
        for _ in range(50):
            await self.gate.step()
            if self.gate.asleep:
                await self.gate.step()
                if self.gate.asleep:
                    return
        raise AssertionError("the hub does not fall asleep")

    async def stop(self) -> None:
        await self.hub.close()
        await self.reading


def schedules() -> Iterator[str]:
    """Every order of the writer's and the reader's statements: `R` and `W`."""
    length = READER + len(WRITER)
    for places in combinations(range(length), len(WRITER)):
        yield "".join("W" if i in places else "R" for i in range(length))


async def lost(url: str) -> list[str]:
    """The schedules after which the hub sleeps and has not seen the event."""
    found = []
    with psycopg.connect(url) as writer:
        connection = await asyncpg.connect(url)
        for schedule in schedules():
            reader = Reader(url, connection)
            await reader.start()
            statements = iter(WRITER)
            for who in schedule:
                if who == "W":
                    await asyncio.to_thread(writer.execute, next(statements))
                else:
                    await reader.gate.step()
            await reader.to_sleep()
            if len(reader.seen) != 1:
                found.append(schedule)
            await reader.stop()
            await connection.reset()
        await connection.close()
    return found


@pytest.fixture(autouse=True)
def soon_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "QUIET_LOOKS", 1)
    monkeypatch.setattr(hub, "AWAKE_SECONDS", 0.0)


async def test_no_order_of_statements_loses_a_wake_up(url: str) -> None:
    assert await lost(url) == []


async def test_without_the_edge_some_orders_would(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail: here the hub forgets who did not ring."""

    async def let_go(self: bell.Bell) -> None:
        await self._connection.execute(statement("bell_let_go"))
        self.held = False

    monkeypatch.setattr(bell.Bell, "let_go", let_go)
    assert await lost(url) != []
