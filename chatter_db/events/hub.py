"""One LISTEN connection for a process, and the hand-out to all of its readers.

The connection waits for the bell, reads what is new once, whoever wants it, and
hands it out. It is looked after by a ping; when it breaks, the hub connects again
and goes on from where it was, so that nobody notices but by the delay.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from uuid import UUID
from weakref import WeakValueDictionary

import asyncpg

from chatter_db.database import asyncpg_connection, asyncpg_options, passes, pin_path
from chatter_db.errors import DatabaseUnavailable, EventsPruned, UsageError
from chatter_db.events import reading
from chatter_db.events.bell import CHANNEL, Bell
from chatter_db.events.event import Batch, Event, Selection
from chatter_db.events.subscription import Subscription

log = logging.getLogger(__name__)

BATCH = 1_000
"""Events read at once, at most."""

PING_SECONDS = 1.0
"""After so long without a bell the hub looks by itself; no answer in as long again is a
broken connection. It also bounds the delay where another process that was to pass the bell on
died."""

STANDBY_POLL_SECONDS = 0.25
"""How often it looks on a hot standby, where nobody can listen."""

READ_SECONDS = 30.0

BUSY = (10, 0.1)
"""Bells within seconds that make it worth to stay awake ..."""

AWAKE_SECONDS = 0.008
"""... which is to look so often, ..."""

QUIET_LOOKS = 10
"""... until so many looks have found nothing."""

DOZE_SECONDS, MAX_DOZE_SECONDS = 0.02, 0.5
"""How soon to look again for those who did not ring; longer and longer where one of them stays
open for hours."""

MAX_BACKOFF_SECONDS = 2.0

CATCH_UP_CONNECTIONS = 4
"""For readers that are behind; the others of them wait their turn, and of those that are to hear
of one user's events all but one."""


class Hub:
    """The events of one database, for the readers of one event loop."""

    def __init__(self, url: str, *, poll_seconds: float | None = None) -> None:
        """With `poll_seconds` it looks so often instead of listening."""
        self._url = url
        self._poll = poll_seconds
        self._groups: dict[Selection, set[Subscription]] = {}
        self._by_key: dict[object, set[Selection]] = {}
        self._joining: dict[Subscription, asyncio.Future[str | None]] = {}
        self._watchers: set[asyncio.Event] = set()
        self._at: str | None = None
        self._rung = asyncio.Event()
        self._rings: deque[float] = deque(maxlen=BUSY[0])
        self._task: asyncio.Task[None] | None = None
        self._listening: asyncpg.Connection[asyncpg.Record] | None = None
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._turns: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
        self._closed = False
        self.connected = False
        """Whether the hub hears the bell now."""

    # For readers.

    def subscribe(
        self, selection: Selection = reading.EVERYTHING, position: str | None = None
    ) -> Subscription:
        """Events after `position`, else from now on; iterate over its batches or events."""
        return Subscription(self, selection, position)

    def watch(self, something: asyncio.Event) -> None:
        """Sets it whenever there are new events, for who doesn't care which."""
        self._watchers.add(something)
        self._start()

    def unwatch(self, something: asyncio.Event) -> None:
        """Ends `watch`."""
        self._watchers.discard(something)

    async def check(self, position: str) -> None:
        """Raises UsageError if it is no position here, EventsPruned if it is too old.

        And DatabaseUnavailable if nobody says.
        """
        with _answered():
            await reading.check_position(await self._reader(), position)

    async def oldest(self) -> str:
        """The position before all events there are. Raises DatabaseUnavailable."""
        with _answered():
            return await reading.events_oldest(await self._reader())

    async def close(self) -> None:
        """Ends every subscription, and the connections."""
        self._closed = True
        for future in self._joining.values():
            if not future.done():
                future.set_result(None)
        self._put_off()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._pool is not None:
            self._pool.terminate()

    def terminate(self) -> None:
        """Ends the connections of an event loop that doesn't run any more."""
        for each in (self._listening, self._pool):
            if each is not None:
                each.terminate()

    # For subscriptions.

    @property
    def position(self) -> str | None:
        """After all that was handed out; None while nobody is on the live feed."""
        return self._at

    async def join(self, subscription: Subscription) -> str | None:
        """Puts it on the live feed; the position that the feed begins at, None if closed.

        That position is read after the call, so it is past all that any reader knew.
        """
        if self._closed:
            return None
        self._start()
        future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._joining[subscription] = future
        self._rung.set()
        return await future

    async def missed(
        self, position: str, until: str, selection: Selection, stopped: Callable[[], bool]
    ) -> AsyncIterator[Batch]:
        """What is between two positions, read from the table, unless it is `stopped` meanwhile."""
        reader = await self._reader()
        user = selection.user_id
        turn = None if user is None else self._turns.setdefault(user, asyncio.Lock())
        while True:
            # An old position takes a reading of everybody's events: a user's many streams must
            # not keep all connections from the others.
            async with turn or contextlib.nullcontext():
                if stopped():
                    return
                events = await reading.events_after(reader, position, BATCH, selection, until=until)
            if not events:
                return
            position = events[-1].position
            yield Batch(tuple(events), position)

    def leave(self, subscription: Subscription) -> None:
        """Takes it off the live feed."""
        subscription.end()
        self._joining.pop(subscription, None)
        members = self._groups.get(subscription.selection)
        if members is not None:
            members.discard(subscription)
            if not members:
                self._forget(subscription.selection)

    # The hub's own life.

    def _start(self) -> None:
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        backoff = 0.0
        while True:
            try:
                async with self._connection() as connection:
                    backoff = 0.0
                    await self._follow(connection)
            except reading.BROKEN as error:
                if not backoff:
                    # A timeout has no words.
                    why = str(error) or type(error).__name__
                    log.warning("The event stream lost its connection: %s", why)
                backoff = min(max(backoff * 2, 0.05), MAX_BACKOFF_SECONDS)
            except (EventsPruned, UsageError):
                # Away for longer than the retention, or the database is another: each
                # reader finds out by its own position.
                self._begin_anew()
            except asyncpg.PostgresError as error:
                told = "The event stream can't be read: %s"
                denied = isinstance(error, asyncpg.InsufficientPrivilegeError)
                log.error(told, error, exc_info=not denied and not passes(error.sqlstate))
                for future in self._joining.values():
                    if not future.done():
                        future.set_exception(error)
                self._joining.clear()
                self._begin_anew()
                backoff = MAX_BACKOFF_SECONDS
            await asyncio.sleep(backoff)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        connection = await asyncpg_connection(self._url, "chatter events", timeout=5)
        self._listening = connection
        try:
            if self._poll is None:
                own = connection.get_server_pid()

                def ring(_: object, pid: int, *__: object) -> None:
                    if pid != own:
                        self._rings.append(asyncio.get_running_loop().time())
                        self._rung.set()

                # A lost connection rings, too: nothing else will, and the next ping may be late.
                connection.add_termination_listener(lambda _: self._rung.set())
                try:
                    await connection.add_listener(CHANNEL, ring)
                except asyncpg.ReadOnlySQLTransactionError:
                    self._poll = STANDBY_POLL_SECONDS
                    log.warning(
                        "A hot standby, where nobody can listen: events are looked for every %g s.",
                        self._poll,
                    )
            self.connected = True
            yield connection
        finally:
            self.connected = False
            # close() would wait for a server that may be gone.
            connection.terminate()

    async def _follow(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Reads whenever there may be something, until the connection breaks."""
        bell = Bell(connection)
        looks = 0
        rung = False
        doze = DOZE_SECONDS
        while True:
            self._rung.clear()
            if connection.is_closed():
                # Without a reader nothing would be asked of it, and say so.
                raise ConnectionResetError("the server has ended it")
            joining = list(self._joining)
            settled = bell.edge is not None and await bell.edge_passed()
            found = await self._deliver(connection, to_the_present=bool(joining) or not rung)
            for subscription in joining:
                self._admit(subscription)
            if settled:
                bell.edge = None
                doze = DOZE_SECONDS

            if bell.held:
                rung = True  # no ping: it looks often enough
                looks = 0 if found else looks + 1
                if found:
                    await bell.pass_on()
                if looks >= QUIET_LOOKS:
                    await bell.let_go()
                else:
                    await asyncio.sleep(AWAKE_SECONDS)
            elif self._busy():
                await bell.hold()
                looks = 0
                self._rings.clear()
            elif bell.edge is not None:
                rung = await self._wait(doze)
                doze = min(doze * 2, MAX_DOZE_SECONDS)
            else:
                rung = await self._wait(self._poll or PING_SECONDS)

    def _busy(self) -> bool:
        count, seconds = BUSY
        now = asyncio.get_running_loop().time()
        return len(self._rings) == count and now - self._rings[0] < seconds

    async def _wait(self, seconds: float) -> bool:
        """Whether the bell rang within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return False
        return True

    async def _deliver(
        self, connection: "asyncpg.Connection[asyncpg.Record]", *, to_the_present: bool
    ) -> bool:
        """Reads and hands out what is new; whether there was anything.

        With `to_the_present` the hub's position is of now even if there was nothing: for
        those who join, who may know a later one, and because one that doesn't move
        falls behind retention. It is the ping, too.
        """
        if not self._groups and not self._joining:
            if self._watchers:
                return await self._glance(connection)
            # Nobody is there: who comes begins at a present of their own.
            self._at = None
            return False
        now = None
        if to_the_present or self._at is None:
            now = await reading.events_now(connection, timeout=PING_SECONDS)
            self._at = self._at or now
        found = False
        while True:
            events = await reading.events_after(connection, self._at, BATCH, timeout=READ_SECONDS)
            if events:
                found = True
                self._at = events[-1].position
                self._hand_out(events)
                # Readers get their turn even when there is no end of events.
                await asyncio.sleep(0)
            elif now is not None and not found:
                self._at = now
            if len(events) < BATCH:
                break
        if found:
            self._wake()
        return found

    async def _glance(self, connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
        """Whether there is anything new, for those who only watch."""
        before, self._at = self._at, await reading.events_now(connection, timeout=PING_SECONDS)
        found = before is None or bool(
            await reading.events_after(connection, before, 1, until=self._at, timeout=READ_SECONDS)
        )
        if found:
            self._wake()
        return found

    def _wake(self) -> None:
        for something in self._watchers:
            something.set()

    def _hand_out(self, events: list[Event]) -> None:
        """Gives every group its part; groups that want the same share one batch."""
        assert self._at is not None
        parts: dict[Selection, list[Event]] = {}
        for event in events:
            keys = {None, event.conversation_id, event.execution_id, event.user_id}
            for key in keys:
                for selection in self._by_key.get(key, ()):
                    if selection.wants(event):
                        parts.setdefault(selection, []).append(event)
        for selection, part in parts.items():
            batch = Batch(tuple(part), self._at)
            members = self._groups[selection]
            behind = {member for member in members if not member.hand(batch)}
            members -= behind
            if not members:
                self._forget(selection)

    def _admit(self, subscription: Subscription) -> None:
        future = self._joining.pop(subscription, None)
        if future is None or future.done():
            return
        selection = subscription.selection
        self._groups.setdefault(selection, set()).add(subscription)
        self._by_key.setdefault(selection.key, set()).add(selection)
        subscription.begin()
        future.set_result(self._at)

    def _begin_anew(self) -> None:
        self._at = None
        self._put_off()

    def _put_off(self) -> None:
        """Takes everybody off the live feed; who isn't done joins again."""
        for members in self._groups.values():
            for subscription in members:
                subscription.end()
        self._groups.clear()
        self._by_key.clear()

    def _forget(self, selection: Selection) -> None:
        del self._groups[selection]
        selections = self._by_key[selection.key]
        selections.discard(selection)
        if not selections:
            del self._by_key[selection.key]

    async def _reader(self) -> "asyncpg.Pool[asyncpg.Record]":
        if self._pool is None:
            self._pool = await asyncpg.create_pool(
                min_size=0,
                max_size=CATCH_UP_CONNECTIONS,
                # Each time: what goes back to the pool is reset.
                setup=pin_path,
                **asyncpg_options(self._url, "chatter"),
            )
        return self._pool


@contextlib.contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except reading.BROKEN as error:
        raise DatabaseUnavailable(f"Postgres did not answer about events: {error}") from error
