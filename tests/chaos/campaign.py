"""Faults on the whole path, one after the other, under load that never stops; then the verdict.

    python -m tests.chaos.campaign --faults 200 --seed 7 [--postgres 15] [--json]

Two host apps, two servers with chat clients, a worker, writers of SQL and readers of events work on
one Postgres through a proxy, an app and a server by way of PgBouncer. What they were acknowledged
is held against the books.
"""

import asyncio
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from uuid import UUID

from psycopg import IsolationLevel

from chatter_db import Chatter, migrating
from chatter_db.accounts import Accounts
from tests.chaos import app
from tests.chaos.faults import FAULTS, Field
from tests.chaos.judging import Books, has_all, judge, judge_readers, read_books
from tests.chaos.known import Answers, Known
from tests.chaos.load import (
    LOCK_TIMEOUT,
    STATEMENT_TIMEOUT,
    Client,
    Writer,
    hear_app,
    limited,
)
from tests.chaos.members import CHATTER, Member, environment
from tests.chaos.pooler import NO_POOLER, Pooler
from tests.chaos.postgres import Postgres
from tests.chaos.proxy import Proxy
from tests.chaos.report import Report
from tests.events.whole_path import Reader, read_sql, read_sse
from tests.providers import openai

HOT_CONVERSATIONS = 4
PAUSE_SECONDS = (0.1, 1.0)
SERVED_SECONDS = 60.0
"""How soon after a fault somebody has to be acknowledged something."""
SILENT_SECONDS = 120.0
"""How long anybody may go without, while faults go on."""
QUIESCE_SECONDS = 90.0


def kinds(count: int, dice: random.Random, without: dict[str, str]) -> Iterator[str]:
    """Every kind of fault in a random order, again and again in another."""
    deck: list[str] = []
    for _ in range(count):
        if not deck:
            deck = [kind for kind in FAULTS if kind not in without]
            dice.shuffle(deck)
        yield deck.pop()


@contextmanager
def directory() -> Iterator[Path]:
    """A place for data and spool; Postgres may run as another user, who has to get through."""
    made = Path(tempfile.mkdtemp(prefix="chatter-chaos-"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made)


class Campaign:
    """One campaign, from the start of everything to the verdict."""

    def __init__(self, seed: int, postgres: Postgres, proxy: Proxy, base: Path) -> None:
        self._dice = random.Random(seed)
        self._postgres = postgres
        self._proxy = proxy
        self._spool = base / "spool"
        self._pooler = None if NO_POOLER else Pooler(postgres.clients_url, base / "pooler")
        self._known = Known()
        self._answers = Answers()
        self._stop = asyncio.Event()
        self._addresses: list[str | None] = [None, None]
        self._apps: list[Member] = []
        self._servers: list[Member] = []
        self._workers: list[Member] = []
        self._running: dict[str, asyncio.Task[None]] = {}
        self.report = Report(seed, postgres.version, known=self._known)
        if postgres.no_disk:
            self.report.skipped["disk full"] = postgres.no_disk
        if NO_POOLER:
            self.report.skipped["pooler killed"] = NO_POOLER

    async def run(self, faults: int, tell: Callable[[str, int], None]) -> Report:
        begin = time.monotonic()
        migrating.migrate(self._postgres.url)
        conversations, secret, oldest = await self._prepare()
        with openai.running() as provider:
            provider.answer = self._answers
            self._make_members(provider.base_url, conversations)
            async with asyncio.TaskGroup() as background:
                tell("starting", 0)
                for member in self._members():
                    self._running[member.name] = background.create_task(member.run())
                await asyncio.gather(*(member.until_ready() for member in self._members()))
                watching = background.create_task(self._watch(provider))
                load = self._load(conversations, secret)
                loading = [background.create_task(each.run(self._stop)) for each in load]
                readers = [Reader(kind, self._die()) for kind in ("HTTP", "HTTP", "SQL")]
                reading = [
                    background.create_task(self._read(reader, oldest, secret)) for reader in readers
                ]
                everyone = {each.name for each in (*load, *self._apps)}
                await self._known.until_acknowledged(everyone, SERVED_SECONDS, "the start")
                steady = {"server": self._servers[0].pid}
                before = {name: _resident(pid) for name, pid in steady.items()}

                for number, kind in enumerate(kinds(faults, self._dice, self.report.skipped)):
                    tell(kind, number)
                    await self._fault(kind, conversations)
                tell("quiescing", faults)
                await self._known.until_acknowledged(everyone, SERVED_SECONDS, "the last fault")
                watching.cancel()
                self._stop.set()
                await asyncio.gather(*loading)
                await self._drain()
                books = await asyncio.to_thread(read_books, self._postgres.url)
                await self._until_told(books, readers)
                for task in reading:
                    task.cancel()
                for name, pid in steady.items():
                    self.report.memory[name] = (before[name], _resident(pid))
                await self._end(self._servers + self._workers)
                await self._end(self._poolers)
        tell("judging", faults)
        self.report.seconds = time.monotonic() - begin
        await self._judge(books, readers)
        return self.report

    def _die(self) -> random.Random:
        return random.Random(self._dice.random())

    def _members(self) -> list[Member]:
        return [*self._poolers, *self._apps, *self._servers, *self._workers]

    @property
    def _poolers(self) -> list[Member]:
        return [] if self._pooler is None else [self._pooler.member]

    async def _prepare(self) -> tuple[list[UUID], str, str]:
        """The conversations that everybody is after, an API key, and where the events begin."""
        async with Chatter.connect(self._postgres.url) as chatter:
            admin = await Accounts(chatter).create_user("admin", role="admin")
            key = await Accounts(chatter).keys.create(admin.user_id, "campaign")
            oldest = await chatter.event_hub().oldest()
            made = [await chatter.create_conversation() for _ in range(HOT_CONVERSATIONS)]
            return sorted(conversation.id for conversation in made), key.secret, oldest

    def _make_members(self, provider: str, conversations: list[UUID]) -> None:
        url = self._postgres.clients_url

        def told(url: str, **more: str) -> dict[str, str]:
            return environment(url, self._spool, **more)

        # The second app and the second server get through PgBouncer, where there is one.
        second_url, pooled = url, {}
        second_app_url = limited(url, statement_timeout=STATEMENT_TIMEOUT)
        if self._pooler is not None:
            second_url, second_app_url = self._pooler.url, self._pooler.limited_url
            pooled = {"CHATTER_POOLER": "transaction"}

        named = [str(conversation) for conversation in conversations]
        for name, place, more in (
            ("app-0", limited(url, lock_timeout=LOCK_TIMEOUT), {"CHATTER_DURABILITY": "database"}),
            ("app-1", second_app_url, {"CHATTER_DURABILITY": "spool", **pooled}),
        ):
            self._apps.append(
                Member(
                    name,
                    [sys.executable, "-m", app.__name__, name, *named],
                    told(place, PROVIDER=provider, **more),
                    app.READY,
                    partial(hear_app, self._known, name),
                )
            )
        model = {
            "CHATTER_MODEL": "openai:gpt-4o-mini",
            "OPENAI_BASE_URL": provider,
            "OPENAI_API_KEY": "test",
        }
        for number, (place, more) in enumerate([(url, {}), (second_url, pooled)]):
            self._servers.append(
                Member(
                    f"server-{number}",
                    [str(CHATTER), "serve", "--port", "0", "--no-worker"],
                    told(place, **model, **more),
                    "Ctrl-C ends it.",
                    partial(self._hear_server, number),
                    partial(self._addresses.__setitem__, number, None),
                )
            )
        self._workers.append(
            Member("worker", [str(CHATTER), "worker"], told(url), "Ctrl-C ends it.")
        )

    def _hear_server(self, place: int, line: str) -> None:
        if "dashboard" in line:
            self._addresses[place] = line.split(maxsplit=1)[0]

    def _load(self, conversations: list[UUID], secret: str) -> list[Writer | Client]:
        url = self._postgres.clients_url
        load: list[Writer | Client] = []
        for number, (level, limits) in enumerate(
            [
                (IsolationLevel.READ_COMMITTED, {"lock_timeout": LOCK_TIMEOUT}),
                (IsolationLevel.READ_COMMITTED, {"statement_timeout": STATEMENT_TIMEOUT}),
                (IsolationLevel.REPEATABLE_READ, {"lock_timeout": LOCK_TIMEOUT}),
                (IsolationLevel.REPEATABLE_READ, {"statement_timeout": STATEMENT_TIMEOUT}),
            ]
        ):
            name = f"writer-{number}"
            bound = limited(url, **limits)
            load.append(Writer(name, bound, level, conversations, self._known, self._die()))
        for number in range(3):
            name = f"client-{number}"
            load.append(
                Client(name, self._addresses, secret, conversations, self._known, self._die())
            )
        return load

    async def _read(self, reader: Reader, position: str, secret: str) -> None:
        """A reader at work, until it is cancelled."""
        reader.position = position
        if reader.kind == "HTTP":
            await read_sse(reader, self._addresses, secret)
        else:
            await read_sql(reader, self._postgres.clients_url)

    async def _fault(self, kind: str, conversations: list[UUID]) -> None:
        field = Field(
            self._postgres,
            self._proxy,
            self._apps,
            self._servers[1:],  # the first one's memory is watched
            self._workers,
            self._poolers,
            conversations,
            self._known,
            self._dice,
        )
        self._postgres.under_fault = True
        await FAULTS[kind](field)
        self._postgres.under_fault = False
        self._known.faults[kind] += 1
        await asyncio.sleep(self._dice.uniform(*PAUSE_SECONDS))
        await self._known.until_acknowledged(set(), SERVED_SECONDS, kind)

    async def _watch(self, provider: openai.Provider) -> None:
        """Fails the campaign at once where Postgres ends by itself, or somebody gets no answer."""
        while True:
            await asyncio.sleep(1)
            provider.requests.clear()  # nobody asks for them, and they are many
            assert self._postgres.under_fault or self._postgres.is_up, "Postgres ended by itself"
            for who, at in self._known.heard.items():
                silent = time.monotonic() - at
                if who in self._running or who.startswith(("writer", "client")):
                    assert silent < SILENT_SECONDS, f"{who} had nothing for {silent:.0f} s"

    async def _drain(self) -> None:
        """Starts whoever was killed once more, to book what its last life left; ends the apps."""
        await asyncio.gather(
            *(self._start_again(member) for member in (*self._apps, *self._servers[1:]))
        )
        await self._known.until_acknowledged(
            {member.name for member in self._apps}, SERVED_SECONDS, "the last start of the apps"
        )
        await self._end(self._apps)
        # For who opens these books next.
        async with Chatter.connect(self._postgres.clients_url):
            deadline = time.monotonic() + QUIESCE_SECONDS
            while waiting := [p for p in self._spool.rglob("*.jsonl") if _size(p)]:
                assert time.monotonic() < deadline, f"not booked: {waiting}"
                await asyncio.sleep(0.05)
        refused = list(self._spool.rglob("refused*"))
        assert not refused, f"Postgres refused records: {[path.read_text() for path in refused]}"

    async def _start_again(self, member: Member) -> None:
        await member.until_ready()
        await member.end(signal.SIGTERM)
        await member.until_ready()

    async def _until_told(self, books: Books, readers: list[Reader]) -> None:
        """Gives readers time to come to the end; who hasn't by then is judged all the same."""
        deadline = time.monotonic() + QUIESCE_SECONDS
        while time.monotonic() < deadline and not all(has_all(books, each) for each in readers):
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)  # for what comes once too often

    async def _end(self, members: list[Member]) -> None:
        await asyncio.gather(*(member.stop(self._running[member.name]) for member in members))

    async def _judge(self, books: Books, readers: list[Reader]) -> None:
        report = self.report
        report.messages, report.swept = len(books.messages), books.swept
        report.findings = await asyncio.to_thread(
            judge, self._postgres.url, books, self._known, self._answers
        )
        report.readers = judge_readers(books, readers)
        for member in self._members():
            report.tracebacks += member.tracebacks
            report.turned_away += member.turned_away


def _size(path: Path) -> int:
    """Of a file that may go at any time."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _resident(pid: int) -> int:
    """Resident memory of a process in MB; 0 where /proc doesn't say."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) // 1024


async def campaign(
    faults: int,
    seed: int,
    *,
    binaries: Path | None = None,
    tell: Callable[[str, int], None] = lambda *_: None,
) -> Report:
    """Starts everything, does so many faults to it, and judges."""
    with directory() as base:
        async with AsyncExitStack() as stack:
            proxy = await stack.enter_async_context(Proxy())
            postgres = Postgres(base, binaries, proxy)
            stack.callback(postgres.end)
            await postgres.start()
            return await Campaign(seed, postgres, proxy, base).run(faults, tell)


def main() -> None:
    import argparse
    import json

    from rich.console import Console
    from rich.progress import Progress

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--postgres", type=int, help="Debian's Postgres of this version")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    binaries = None
    if options.postgres is not None:
        binaries = Path(f"/usr/lib/postgresql/{options.postgres}/bin")
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"seed {options.seed}", total=options.faults)

        def tell(what: str, number: int) -> None:
            progress.update(bar, completed=number, description=f"{number} {what}")
            if not progress.console.is_terminal:
                progress.console.print(f"{time.strftime('%H:%M:%S')} {number} {what}")

        report = asyncio.run(campaign(options.faults, options.seed, binaries=binaries, tell=tell))
    if options.json:
        print(json.dumps(report.figures(), indent=2))
    else:
        report.print(Console())
    raise SystemExit(0 if report.good else 1)


if __name__ == "__main__":
    main()
