"""Attempts to sign in: one at a time, and none by who has failed too often."""

import asyncio
import time
from collections.abc import AsyncIterator, Hashable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

from sqlalchemy import ColumnElement, Uuid, cast, func, select
from sqlalchemy.dialects.postgresql import INET

from chatter_db.accounts.identity import Origin
from chatter_db.accounts.security_events import record_alone
from chatter_db.errors import SignInBlocked
from chatter_db.ledger import Chatter

BLOCKED_NOTED_SECONDS = 60.0
"""How often refusals of an address are noted, or of a user where no address is known: asking costs
nobody anything, and could fill the record."""


class Attempts:
    """Those of a process, by address and by user."""

    def __init__(self, chatter: Chatter) -> None:
        self._chatter = chatter
        self._turns: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()
        self._blocked: dict[Hashable, float] = {}

    @asynccontextmanager
    async def turn(self, origin: Origin, user: str | None = None) -> AsyncIterator[None]:
        """One attempt at a time for an address, and for a user.

        So each knows how the ones before it have ended: of many at once no more are tried than
        one after the other. Addresses before users, or two could wait for each other.
        """
        async with AsyncExitStack() as held:
            for subject in (origin.counted_as, user):
                if subject is not None:
                    turn = self._turns.setdefault(subject, asyncio.Lock())
                    await held.enter_async_context(turn)
            yield

    async def refuse_blocked(self, origin: Origin, user_id: UUID | None) -> None:
        """Raises SignInBlocked while the address or the user is kept out."""
        async with self._chatter.session() as session:
            until = await session.scalar(select(blocked_until(origin, user_id)))
        if until is not None:
            await self.blocked(origin, user_id)
            raise SignInBlocked(until)

    async def blocked(self, origin: Origin, user_id: UUID | None) -> None:
        """Notes that one was refused unheard, if it is the first in a while."""
        now = time.monotonic()
        # In the order of their times.
        while self._blocked:
            first = next(iter(self._blocked))
            if now - self._blocked[first] < BLOCKED_NOTED_SECONDS:
                break
            del self._blocked[first]
        # Not by address and user: a note that takes its time would tell which users there are.
        subject = origin.counted_as or user_id
        if subject not in self._blocked:
            await self._note("login_blocked", origin, user_id)
            self._blocked[subject] = now

    async def failed(self, origin: Origin, user_id: UUID | None) -> None:
        """Notes that one was wrong."""
        await self._note("login_failure", origin, user_id)

    async def _note(self, event_type: str, origin: Origin, user_id: UUID | None) -> None:
        await record_alone(self._chatter, event_type, origin, user_id=user_id, severity="medium")


def blocked_until(origin: Origin, user_id: Any) -> ColumnElement[datetime | None]:
    """Until when an address or a user is kept out; NULL if neither is."""
    return func.chatter.blocked_until(cast(origin.ip_address, INET), cast(user_id, Uuid))
