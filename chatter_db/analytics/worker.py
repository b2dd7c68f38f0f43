"""Background work: folds deltas, refreshes views, ends abandoned runs, removes what is old.

Any number may run; one leads, by an advisory lock that goes with its connection, and
the others wait to take over. Where a pooler hands connections on after each transaction, the
lock goes with each of those instead, and whoever has it works. A worker wakes by the hub of
the events, a little later, so that a burst is folded once; and every few seconds by itself.
As any hub that is awake, the worker's spares busy writers the NOTIFY.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

import asyncpg
from psycopg.conninfo import conninfo_to_dict

from chatter_db.database import asyncpg_connection, passes
from chatter_db.errors import UsageError
from chatter_db.events import Hub
from chatter_db.events.reading import BROKEN
from chatter_db.queries import statement
from chatter_db.settings import settings

log = logging.getLogger(__name__)

FOLD = 10_000
"""Deltas in one transaction."""

DEBOUNCE_SECONDS = 0.5
EVERY_SECONDS = 5.0
LEAD_SECONDS = 5.0
"""How soon another takes over when the leader's connection is gone."""

FROZEN_SECONDS = 30.0
"""How long the leader may say nothing between two statements before Postgres ends its session; it
speaks every EVERY_SECONDS. What a statement takes doesn't count."""

PRUNE_SECONDS = 600.0
BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.1, 10.0
"""How soon to begin anew after an error; longer and longer until a round is through."""

MENDED_SECONDS = 30.0
"""How soon to try again what somebody has to mend first, such as a missing grant."""

WORKS = "Working."
WAITS = "Another worker works; this one waits to take over."


class Worker:
    """The background work on the database at `url`, until `stop`.

    `tell` is told whether this one works (once it is through with a first round) or another,
    whenever that changes.
    """

    def __init__(self, url: str, hub: Hub, *, tell: Callable[[str], None] = log.info) -> None:
        self._url = url
        self._hub = hub
        self._tell = tell
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._stopping = asyncio.Event()
        self._rung = asyncio.Event()
        self._pruned_at = float("-inf")
        self._backoff = BACKOFF_SECONDS
        self._pooled = settings().pools_transactions
        self.leads = False
        """Whether it is this one that works."""
        self._said: str | None = None
        self.failure: str | None = None
        """Why `persist` gets nothing done; None while it does, or another works."""

    def stop(self) -> None:
        """Ends `run` after what it is at."""
        self._stopping.set()
        self._rung.set()

    async def run(self) -> None:
        """Works until `stop`; on a new connection after one that broke, a timeout, a deadlock.

        Raises UsageError if its login may not work, asyncpg.PostgresError for what else
        trying again doesn't mend.
        """
        try:
            await self._work_and_reconnect()
        except asyncpg.InsufficientPrivilegeError as error:
            login = conninfo_to_dict(self._url).get("user") or "its login"
            raise UsageError(
                f"The background work needs the rights of chatter_worker: {error}. "
                f'As the owner: grant chatter_worker to "{login}".'
            ) from None
        finally:
            self._hub.unwatch(self._rung)

    async def persist(self) -> None:
        """Works until `stop` beside what goes on without it: an error is logged, told by `failure`
        and, since somebody may have mended it, tried again."""
        while not self._stopping.is_set():
            try:
                await self.run()
            except UsageError as error:
                if self.failure is None:
                    log.error("%s Until then others have to do it.", error)
                self.failure = str(error)
            except Exception as error:
                log.exception("The background work has failed")
                self.failure = f"The background work has failed: {type(error).__name__}."
            else:
                return
            await self._pause(MENDED_SECONDS)

    async def _work_and_reconnect(self) -> None:
        while not self._stopping.is_set():
            try:
                connection = await asyncpg_connection(self._url, "chatter worker", timeout=5)
                try:
                    if not self._pooled:
                        limit = str(int(FROZEN_SECONDS * 1000))
                        await connection.execute(statement("worker_session"), limit, timeout=5)
                    await self._work(connection)
                finally:
                    self.leads = False
                    connection.terminate()
            except (*BROKEN, asyncpg.PostgresError) as error:
                if not isinstance(error, BROKEN) and not passes(error.sqlstate):
                    raise
                log.warning("The worker begins anew in %.1f s: %s", self._backoff, error)
                await self._pause(self._backoff)
                self._backoff = min(self._backoff * 2, MAX_BACKOFF_SECONDS)

    async def _work(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        while not self._stopping.is_set() and not self._pooled:
            self.leads = await connection.fetchval(statement("worker_lead"))
            if self.leads:
                break
            self._say(WAITS)
            self.failure = None
            await self._pause(LEAD_SECONDS)
        while not self._stopping.is_set():
            self._rung.clear()
            try:
                await self.once(connection)
            except _AnotherLeads:
                self._say(WAITS)
                self.failure = None
                await self._pause(LEAD_SECONDS)
                continue
            # Not before: who lacks a right has heard so by then, and who waits needs no bell.
            self._hub.watch(self._rung)
            self._say(WORKS)
            self._backoff = BACKOFF_SECONDS
            self.failure = None
            try:
                async with asyncio.timeout(EVERY_SECONDS):
                    await self._rung.wait()
            except TimeoutError:
                continue
            await self._pause(DEBOUNCE_SECONDS)

    async def once(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """One round of everything that is due."""
        taken = FOLD
        while taken == FOLD:
            taken = await self._do(connection, "worker_fold", FOLD)
        await self._do(connection, "worker_refresh")
        if swept := await self._do(connection, "worker_sweep"):
            log.warning("%d run(s) were abandoned: their process is gone.", swept)
        now = asyncio.get_running_loop().time()
        if now - self._pruned_at > PRUNE_SECONDS:
            keep = settings()
            await self._do(
                connection, "worker_prune", keep.keep_events_days, keep.keep_security_days
            )
            self._pruned_at = now
        await self._do(connection, "worker_note", self._name)

    async def _do(
        self, connection: "asyncpg.Connection[asyncpg.Record]", name: str, *arguments: object
    ) -> Any:
        """One statement of the round; the first value that it returns."""
        if not self._pooled:
            return await connection.fetchval(statement(name), *arguments)
        async with connection.transaction():
            self.leads = await connection.fetchval(statement("worker_lead_once"))
            if not self.leads:
                raise _AnotherLeads
            return await connection.fetchval(statement(name), *arguments)

    def _say(self, what: str) -> None:
        if what != self._said:
            self._said = what
            self._tell(what)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass


class _AnotherLeads(Exception):
    """Another worker has the lock for this transaction."""
