"""What it takes from the commit to the client, and how many clients it bears.

    python tests/benchmarks/bench_events.py [--case NAME ...] [--events N] [--json]

Each figure stands beside the limit measured in the same run: a bare NOTIFY to a bare
asyncpg listener, commits that ring no bell, a server that writes the same bytes to
its sockets and does nothing else. The server under test is `chatter serve`, in a
process of its own; Postgres is the embedded one with its durable defaults.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
from rich.console import Console
from rich.table import Table

from chatter_db import Chatter
from chatter_db.events import Hub
from tests.benchmarks.own_server import own_server

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

WRITERS = 8
CLIENTS = 1_000
IDLE_CLIENTS = 2_000
INSERT = "insert into chatter.messages (conversation_id, role) values ($1, 'user')"
MANY = """
  insert into chatter.messages (conversation_id, role)
  select $1, 'user' from generate_series(1, $2)
"""


@dataclass(frozen=True)
class Result:
    """A figure, what it is compared with, and what it must reach."""

    case: str
    figure: float
    unit: str
    limit: float | None = None
    target: str = ""

    @property
    def ratio(self) -> float | None:
        return None if self.limit is None else self.figure / self.limit


class Client(asyncio.Protocol):
    """A client of the event stream that keeps the delays of what it reads."""

    def __init__(self, secret: str, query: str = "") -> None:
        self._request = (
            f"GET /api/events{query} HTTP/1.1\r\nHost: bench\r\n"
            f"Authorization: Bearer {secret}\r\n\r\n"
        ).encode()
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.arrived = asyncio.Event()
        self.at = 0.0
        self.events = 0
        self.delays: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.at = time.perf_counter()
        if not self.open.done() and b"event: position" in data:
            self.open.set_result(None)
            return
        self.events += data.count(b"event: ")
        if found := _CREATED.search(data):
            then = datetime.fromisoformat(found[1].decode()).timestamp()
            self.delays.append(time.time() - then)
        self.arrived.set()


_CREATED = re.compile(rb'"created_at":"([^"]+)"')


async def connect(address: tuple[str, int], secret: str, query: str = "") -> Client:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: Client(secret, query), *address)
    await client.open
    return client


@dataclass
class Served:
    """`chatter serve` in a process of its own."""

    address: tuple[str, int]
    secret: str
    pid: int

    @property
    def resident(self) -> int:
        """Resident memory in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()


@asynccontextmanager
async def chatter_serve(url: str) -> AsyncIterator[Served]:
    environment = {
        **os.environ,
        "CHATTER_DATABASE_URL": url,
        "CHATTER_REQUESTS_PER_MINUTE": "1000000",
        "CHATTER_STREAMS_PER_USER": "10000",
    }
    program = Path(sys.executable).with_name("chatter")
    process = subprocess.Popen(
        [program, "serve", "--port", "0"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = ""
        while not (port := re.search(r"127\.0\.0\.1:(\d+)", said)):
            said += await asyncio.to_thread(process.stdout.readline)
        async with Chatter.connect(url) as chatter:
            from chatter_db.accounts import Accounts

            accounts = Accounts(chatter)
            admin = await accounts.create_user(f"bench-{process.pid}", role="admin")
            secret = (await accounts.keys.create(admin.user_id, "bench")).secret
        address = ("127.0.0.1", int(port[1]))
        while True:
            try:
                (await asyncio.open_connection(*address))[1].close()
                break
            except OSError:
                await asyncio.sleep(0.05)
        yield Served(address, secret, process.pid)
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


async def conversation(connection: Connection) -> Any:
    return await connection.fetchval(
        "insert into chatter.conversations default values returning id"
    )


async def latency(url: str) -> list[Result]:
    """Commit to client, one writer and one client."""
    writer = await asyncpg.connect(url)
    listener = await asyncpg.connect(url)
    heard = asyncio.Event()
    bare: list[float] = []
    with_row: list[float] = []
    through: list[float] = []
    await writer.execute("create table if not exists bare_row (id bigserial, at timestamptz)")
    await listener.add_listener("bare", lambda *_: heard.set())
    where = await conversation(writer)
    async with chatter_serve(url) as served:
        client = await connect(served.address, served.secret, "?type=message_created")
        for round_ in range(550):
            # Apart from each other, as messages of people are.
            await asyncio.sleep(0.01)
            for delays, statement in (
                (bare, "notify bare"),
                # Commits to disk, as a message does; a NOTIFY alone has nothing to write.
                (with_row, "insert into bare_row (at) values (now()); notify bare"),
            ):
                heard.clear()
                transaction = writer.transaction()
                await transaction.start()
                await writer.execute(statement)
                begin = time.perf_counter()
                await transaction.commit()
                await heard.wait()
                delays.append(time.perf_counter() - begin)
                await asyncio.sleep(0.01)
            client.arrived.clear()
            transaction = writer.transaction()
            await transaction.start()
            await writer.execute(INSERT, where)
            begin = time.perf_counter()
            await transaction.commit()
            await client.arrived.wait()
            through.append(client.at - begin)
            if round_ < 50:
                for delays in (bare, with_row, through):
                    delays.clear()
        client.transport.abort()
    await writer.close()
    await listener.close()
    ours, alone, row = (statistics.median(d) * 1000 for d in (through, bare, with_row))
    return [
        Result("commit to client, of a bare NOTIFY", ours, "ms", alone, "at most 2"),
        Result("commit to client, of NOTIFY and a bare row", ours, "ms", row),
    ]


async def fan_out(url: str) -> list[Result]:
    """1,000 clients that each hear 1,000 events a second."""
    writer = await asyncpg.connect(url)
    where = await conversation(writer)
    async with chatter_serve(url) as served:
        clients = [await connect(served.address, served.secret) for _ in range(CLIENTS)]
        ours = await _heard(clients, lambda: _write(writer, where, seconds=10, per_second=1000))
        for client in clients:
            client.transport.abort()
    await writer.close()

    ready = multiprocessing.get_context("spawn").SimpleQueue()
    process = multiprocessing.get_context("spawn").Process(target=_bare_server, args=(ready,))
    process.start()
    port = await asyncio.to_thread(ready.get)
    clients = [await connect(("127.0.0.1", port), "") for _ in range(CLIENTS)]
    bare = await _heard(clients, lambda: asyncio.sleep(10))
    for client in clients:
        client.transport.abort()
    process.terminate()
    process.join()
    return [
        Result(
            f"{CLIENTS:,} clients, events/s to each",
            ours[0],
            "events/s",
            bare[0],
        ),
        Result(f"{CLIENTS:,} clients, p99 of commit to client", ours[1], "ms", bare[1], "100 ms"),
    ]


async def _heard(clients: list[Client], load: Callable[[], Awaitable[Any]]) -> tuple[float, float]:
    """Events a second and client under that load, and the 99th percentile of the delay in ms."""
    for client in clients:
        client.events = 0
        client.delays.clear()
    begin = time.perf_counter()
    await load()
    seconds = time.perf_counter() - begin
    events = statistics.mean(client.events for client in clients) / seconds
    delays = sorted(delay for client in clients for delay in client.delays)
    return events, delays[int(len(delays) * 0.99)] * 1000


async def _write(writer: Connection, where: Any, *, seconds: float, per_second: int) -> None:
    """Statements of nine messages: with the conversation's own event, ten events each."""
    begin = time.perf_counter()
    for number in range(int(seconds * per_second / 10)):
        late = begin + number * 10 / per_second - time.perf_counter()
        if late > 0:
            await asyncio.sleep(late)
        await writer.execute(MANY, where, 9)


def _bare_server(ready: Any) -> None:
    """Writes events of the same size to whoever connects, 1,000 a second, ten at a time."""

    async def run() -> None:
        writers: list[asyncio.StreamWriter] = []

        async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"event: position\n\n")
            writers.append(writer)

        server = await asyncio.start_server(accept, "127.0.0.1", 0, backlog=2048)
        ready.put(server.sockets[0].getsockname()[1])
        while True:
            await asyncio.sleep(0.01)
            stamp = datetime.now().astimezone().isoformat()
            data = (f'event: x\ndata: {{"created_at":"{stamp}"}}{" " * 500}\n\n' * 10).encode()
            for writer in writers:
                writer.write(data)

    asyncio.run(run())


async def commits(url: str, seconds: float = 2.0, rounds: int = 7) -> list[Result]:
    """Single-row commits of 8 writers: without any NOTIFY, with a hub, with one NOTIFY each."""
    admin = await asyncpg.connect(url)
    ring = await admin.fetchval("select pg_get_functiondef('chatter.ring_bell()'::regprocedure)")
    never = _body_of_ring("null;")
    always = _body_of_ring("perform pg_catalog.pg_notify('chatter_events', '');")
    writers = [await asyncpg.connect(url) for _ in range(WRITERS)]
    conversations = [await conversation(writer) for writer in writers]
    results = []
    for durable in ("on", "off"):
        for writer in writers:
            await writer.execute(f"set synchronous_commit = {durable}")
        figures: dict[str, list[float]] = {"none": [], "ours": [], "each": []}
        for round_ in range(-1, rounds):
            for kind, definition in (("none", never), ("ours", ring), ("each", always)):
                await admin.execute(definition)
                hub = Hub(url)
                reading = asyncio.create_task(_drain(hub)) if kind != "none" else None
                await asyncio.sleep(0.2)
                count = await _commit(writers, conversations, seconds)
                if reading is not None:
                    await hub.close()
                    await reading
                if round_ >= 0:
                    figures[kind].append(count / seconds)
        await admin.execute(ring)
        none, ours, each = (statistics.median(figures[k]) for k in ("none", "ours", "each"))
        name = "durable" if durable == "on" else "not durable"
        results += [
            Result(f"commits, {name}, of those without NOTIFY", ours, "commits/s", none, "0.8"),
            Result(
                f"commits, {name}, of those with a NOTIFY each",
                ours,
                "commits/s",
                each,
                "" if durable == "on" else "1.5",
            ),
        ]
    for connection in (*writers, admin):
        await connection.close()
    return results


def _body_of_ring(body: str) -> str:
    return (
        "create or replace function chatter.ring_bell() returns void language plpgsql "
        f"volatile set search_path = '' as $$ begin {body} end $$"
    )


async def _commit(writers: list[Connection], conversations: list[Any], seconds: float) -> int:
    end = time.perf_counter() + seconds

    async def one(writer: Connection, where: Any) -> int:
        statement = await writer.prepare(INSERT)
        count = 0
        while time.perf_counter() < end:
            await statement.fetch(where)
            count += 1
        return count

    return sum(await asyncio.gather(*map(one, writers, conversations)))


async def _drain(hub: Hub) -> None:
    async for _ in hub.subscribe().batches():
        pass


async def drain(url: str, events: int) -> list[Result]:
    """A reader that was away for so many events, and a live hub."""
    connection = await asyncpg.connect(url)
    where = await conversation(connection)
    hub = Hub(url)
    position = await connection.fetchval("select chatter.events_now()")
    statements = max(1, events // 10_000)
    for _ in range(statements):
        await connection.execute(MANY, where, 9_999)
    before, peak, count = _resident(), 0, 0
    begin = time.perf_counter()
    async for batch in hub.subscribe(position=position).batches():
        count += len(batch.events)
        peak = max(peak, _resident())
        if count >= statements * 10_000:
            break
    seconds = time.perf_counter() - begin
    await hub.close()
    await connection.close()
    return [
        Result(f"catching up with {count:,} events", count / seconds, "events/s", None, "20,000"),
        Result("memory it took", (peak - before) / 1e6, "MB"),
    ]


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def idle(url: str) -> list[Result]:
    """2,000 clients to whom nothing happens."""
    async with chatter_serve(url) as served:
        clients = [await connect(served.address, served.secret) for _ in range(100)]
        before = served.resident
        clients += [await connect(served.address, served.secret) for _ in range(IDLE_CLIENTS)]
        await asyncio.sleep(1)
        used = served.resident - before
        for client in clients:
            client.transport.abort()
    each = used / IDLE_CLIENTS / 1000
    return [Result(f"{IDLE_CLIENTS:,} idle clients, each", each, "kB", None, "at most 20")]


CASES: dict[str, Callable[[str, int], Coroutine[Any, Any, list[Result]]]] = {
    "latency": lambda url, _: latency(url),
    "commits": lambda url, _: commits(url),
    "idle": lambda url, _: idle(url),
    "fan-out": lambda url, _: fan_out(url),
    "drain": drain,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--events", type=int, default=100_000, help="for the case drain")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    console = Console(stderr=options.json)
    results: list[Result] = []
    with own_server() as (url, _):
        for name in options.case or CASES:
            with console.status(f"measuring: {name}"):
                results += asyncio.run(CASES[name](url, options.events))
    if options.json:
        print(json.dumps([{**asdict(r), "ratio": r.ratio} for r in results]))
        return
    table = Table("case", "figure", "unit", "limit", "ratio", "target")
    for r in results:
        limit = "" if r.limit is None else f"{r.limit:,.2f}"
        ratio = "" if r.ratio is None else f"{r.ratio:.2f}"
        table.add_row(r.case, f"{r.figure:,.2f}", r.unit, limit, ratio, r.target)
    console.print(table)


if __name__ == "__main__":
    main()
