"""Readers of events, and what they have seen."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest

from chatter_db.events import Event, Hub, Selection


class Seen:
    """A subscription that is read in the background."""

    def __init__(self, hub: Hub, selection: Selection, position: str | None) -> None:
        self.events: list[Event] = []
        self.subscription = hub.subscribe(selection, position)
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for event in self.subscription.events():
            self.events.append(event)

    @property
    def types(self) -> list[str]:
        return [event.event_type for event in self.events]

    async def until(self, count: int) -> list[Event]:
        """Waits for so many events."""
        async with asyncio.timeout(20):
            while len(self.events) < count:
                if self.task.done():
                    await self.task
                    raise AssertionError(f"ended with {len(self.events)} of {count}")
                await asyncio.sleep(0.005)
        return self.events

    async def live(self) -> "Seen":
        """Waits until it hears of what comes."""
        async with asyncio.timeout(20):
            while self.subscription.position is None:
                await asyncio.sleep(0.005)
        return self


Follow = Callable[..., Seen]


@pytest.fixture
async def hub(url: str) -> AsyncIterator[Hub]:
    opened = Hub(url)
    yield opened
    await opened.close()


@pytest.fixture
def follow(hub: Hub) -> Follow:
    def begin(position: str | None = None, hub: Hub = hub, **wanted: Any) -> Seen:
        return Seen(hub, Selection.of(**wanted), position)

    return begin


class Writer:
    """Writes causes of events."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def conversation(self) -> Any:
        row = self.connection.execute(
            "insert into chatter.conversations default values returning id"
        ).fetchone()
        assert row is not None
        return row[0]

    def message(self, conversation: Any) -> None:
        self.connection.execute(
            "insert into chatter.messages (conversation_id, role, content) "
            "values (%s, 'user', 'Hello')",
            [conversation],
        )


@pytest.fixture
def writer(db: psycopg.Connection[Any]) -> Writer:
    return Writer(db)
