"""The whole path under random faults: from the commit to every kind of reader.

Writers commit, roll back and dawdle; readers of several kinds leave and come back;
listeners and servers are killed. The verdict is computed from what the writers know of
their commits, not from the events. For longer than the tests do it:

    python -m tests.events.whole_path --seconds 60
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg

from chatter_db import Chatter
from chatter_db.accounts import Accounts
from chatter_db.server.serving import server

CONVERSATIONS = 12


@dataclass
class Ledger:
    """What the writers know: message by conversation and place, and what never happened."""

    committed: dict[UUID, tuple[UUID, int]] = field(default_factory=dict)
    rolled_back: set[UUID] = field(default_factory=set)
    transactions: int = 0
    faults: Counter[str] = field(default_factory=Counter)


@dataclass
class Verdict:
    """How many events of each kind of reader were wrong; all must be 0."""

    reader: str
    events: int
    reconnects: int
    lost: int
    phantom: int
    duplicate: int
    out_of_order: int

    @property
    def good(self) -> bool:
        return not (self.lost or self.phantom or self.duplicate or self.out_of_order)


class Reader:
    """A reader that remembers its position and the messages it was told of."""

    def __init__(self, kind: str, dice: random.Random) -> None:
        self.kind = kind
        self.dice = dice
        self.position: str | None = None
        self.messages: list[UUID] = []
        self.reconnects = 0

    def take(self, position: str, event_type: str, payload: dict[str, Any]) -> None:
        self.position = position
        if event_type == "message_created":
            self.messages.append(UUID(payload["message_id"]))

    def verdict(self, ledger: Ledger) -> Verdict:
        seen = Counter(self.messages)
        places: dict[UUID, int] = {}
        out_of_order = 0
        for message in self.messages:
            if message in ledger.committed:
                conversation, place = ledger.committed[message]
                out_of_order += place < places.get(conversation, 0)
                places[conversation] = place
        return Verdict(
            self.kind,
            events=len(self.messages),
            reconnects=self.reconnects,
            lost=len(ledger.committed.keys() - seen.keys()),
            phantom=len(seen.keys() - ledger.committed.keys()),
            duplicate=sum(count - 1 for count in seen.values()),
            out_of_order=out_of_order,
        )


async def write(
    url: str, ledger: Ledger, dice: random.Random, conversations: list[UUID], stop: asyncio.Event
) -> None:
    """Random transactions, until told to stop."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        while not stop.is_set():
            noted: list[tuple[UUID, UUID, int]] = []
            touched = sorted(dice.sample(conversations, dice.choice((1, 1, 1, 2, 3))))
            for conversation in touched:  # in order: no deadlocks
                await connection.execute("savepoint before")
                message = uuid4()
                await connection.execute(
                    "insert into chatter.messages (id, conversation_id, role) "
                    "values (%s, %s, 'user')",
                    [message, conversation],
                )
                cursor = await connection.execute(
                    "select message_count from chatter.conversations where id = %s",
                    [conversation],
                )
                row = await cursor.fetchone()
                assert row is not None
                if dice.random() < 0.1:
                    await connection.execute("rollback to savepoint before")
                    ledger.rolled_back.add(message)
                else:
                    noted.append((message, conversation, row[0]))
                if dice.random() < 0.1:
                    await asyncio.sleep(dice.random() * 0.05)
            if dice.random() < 0.15:
                await connection.rollback()
                ledger.rolled_back.update(message for message, _, _ in noted)
            else:
                await connection.commit()
                ledger.transactions += 1
                for message, conversation, place in noted:
                    ledger.committed[message] = (conversation, place)
            await asyncio.sleep(dice.random() * 0.004)


async def read_sse(reader: Reader, addresses: list[str | None], secret: str) -> None:
    """An HTTP client that leaves in the middle and comes back to any of the servers."""
    headers = {"Authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(headers=headers, timeout=httpx.Timeout(30)) as client:
        while True:
            address = reader.dice.choice(addresses)
            if address is None:
                await asyncio.sleep(0.01)
                continue
            last = {} if reader.position is None else {"Last-Event-ID": reader.position}
            left = reader.dice.randint(1, 400)
            try:
                async with client.stream("GET", f"{address}/api/events", headers=last) as response:
                    if response.status_code != 200:
                        await asyncio.sleep(0.02)
                        continue
                    event: dict[str, str] = {}
                    async for line in response.aiter_lines():
                        if line:
                            name, _, value = line.partition(": ")
                            event[name] = value
                            continue
                        if "id" in event:
                            payload = json.loads(event["data"]).get("payload", {})
                            reader.take(event["id"], event["event"], payload)
                            left -= 1
                            if left == 0:
                                break
                        event = {}
            except httpx.TransportError:
                pass
            reader.reconnects += 1


async def read_subscription(reader: Reader, chatter: Chatter) -> None:
    """A subscriber in Python that leaves and comes back."""
    while True:
        left = reader.dice.randint(1, 400)
        subscription = chatter.event_hub().subscribe(position=reader.position)
        async with aclosing(subscription.batches()) as batches:
            async for batch in batches:
                for event in batch.events:
                    reader.take(event.position, event.event_type, event.payload)
                    left -= 1
                    if left == 0:
                        break
                else:
                    reader.position = batch.position
                    continue
                break
        reader.reconnects += 1
        await asyncio.sleep(0)


async def read_sql(reader: Reader, url: str) -> None:
    """Another language: the functions alone, from a connection that is killed now and then."""
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                url, autocommit=True, application_name="chatter sql reader"
            ) as connection:
                while True:
                    cursor = await connection.execute(
                        "select position, event_type, payload from chatter.events_after(%s, %s)",
                        [reader.position, reader.dice.choice((1, 7, 100, 1000))],
                    )
                    for position, event_type, payload in await cursor.fetchall():
                        reader.take(position, event_type, payload)
                    await asyncio.sleep(reader.dice.random() * 0.02)
        except psycopg.OperationalError:
            reader.reconnects += 1
            await asyncio.sleep(0.02)


async def kill(url: str, ledger: Ledger, dice: random.Random) -> None:
    """Ends a connection of the listeners or readers, every now and then."""
    victims = ("chatter events", "chatter", "chatter sql reader")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        while True:
            await asyncio.sleep(dice.random() * 0.5)
            victim = dice.choice(victims)
            cursor = await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where application_name = %s and datname = current_database() "
                "order by random() limit 1",
                [victim],
            )
            ledger.faults[f"killed: {victim}"] += len(await cursor.fetchall())


async def serve(
    url: str, place: int, addresses: list[str | None], ledger: Ledger, dice: random.Random
) -> None:
    """A server process's worth of app, that is restarted now and then."""
    while True:
        async with Chatter.connect(url) as chatter:
            running = server(chatter, access_log=False)
            running.config.log_level = "critical"
            running.config.port = 0
            task = asyncio.create_task(running.serve())
            try:
                while not running.started:
                    await asyncio.sleep(0.01)
                port = running.servers[0].sockets[0].getsockname()[1]
                addresses[place] = f"http://127.0.0.1:{port}"
                await asyncio.sleep(1 + dice.random() * 3)
            finally:
                addresses[place] = None
                running.should_exit = True
                await asyncio.shield(task)
        ledger.faults["server restarted"] += 1


async def campaign(
    url: str,
    seconds: float,
    seed: int,
    *,
    commits: int = 0,
    tell: Callable[[Ledger], None] = lambda _: None,
) -> tuple[Ledger, list[Verdict]]:
    """Runs for so long and so many commits, then lets every reader come to the end, and judges."""
    dice = random.Random(seed)
    ledger = Ledger()
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        chatter = await stack.enter_async_context(Chatter.connect(url))
        accounts = Accounts(chatter)
        admin = await accounts.create_user(f"admin-{seed}", role="admin")
        secret = (await accounts.keys.create(admin.user_id, "campaign")).secret
        made = [await chatter.create_conversation() for _ in range(CONVERSATIONS)]
        conversations = [conversation.id for conversation in made]

        readers = [
            Reader(kind, random.Random(dice.random()))
            for kind in ("HTTP", "HTTP", "HTTP", "Python", "Python", "SQL")
        ]
        for reader in readers:
            reader.position = await chatter.event_hub().oldest()
        addresses: list[str | None] = [None, None]
        background: list[Awaitable[None]] = [
            kill(url, ledger, random.Random(dice.random())),
            *(
                serve(url, place, addresses, ledger, random.Random(dice.random()))
                for place in range(2)
            ),
        ]
        for reader in readers:
            match reader.kind:
                case "HTTP":
                    background.append(read_sse(reader, addresses, secret))
                case "Python":
                    background.append(read_subscription(reader, chatter))
                case _:
                    background.append(read_sql(reader, url))
        async with _together(background) as failed:
            writing = [
                asyncio.create_task(
                    write(url, ledger, random.Random(dice.random()), conversations, stop)
                )
                for _ in range(6)
            ]
            end = time.monotonic() + seconds
            while time.monotonic() < end or len(ledger.committed) < commits:
                if any(task.done() for task in (*writing, *failed)):
                    break
                tell(ledger)
                await asyncio.sleep(0.1)
            stop.set()
            await asyncio.gather(*writing)
            # Faults go on; every reader has to get there all the same.
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and any(
                len(set(reader.messages)) < len(ledger.committed) for reader in readers
            ):
                for task in failed:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.05)
    return ledger, [reader.verdict(ledger) for reader in readers]


@asynccontextmanager
async def _together(
    work: list[Awaitable[None]],
) -> AsyncIterator[list["asyncio.Task[None]"]]:
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


def main() -> None:
    import argparse

    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from chatter_db import database, migrating

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    console = Console()
    with database.database_url() as url, Progress(console=console) as progress:
        migrating.migrate(url)
        bar = progress.add_task("committing", total=options.seconds)
        begin = time.monotonic()
        ledger, verdicts = asyncio.run(
            campaign(
                url,
                options.seconds,
                options.seed,
                tell=lambda _: progress.update(bar, completed=time.monotonic() - begin),
            )
        )
    console.print(
        f"seed {options.seed}: {ledger.transactions:,} commits of {len(ledger.committed):,} "
        f"messages, {len(ledger.rolled_back):,} messages rolled back; {dict(ledger.faults)}"
    )
    table = Table("reader", "events", "reconnects", "lost", "phantom", "duplicate", "out of order")
    for v in verdicts:
        figures = (v.events, v.reconnects, v.lost, v.phantom, v.duplicate, v.out_of_order)
        table.add_row(v.reader, *(f"{figure:,}" for figure in figures))
    console.print(table)
    raise SystemExit(0 if all(v.good for v in verdicts) else 1)


if __name__ == "__main__":
    main()
