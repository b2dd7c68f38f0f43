"""Postgres is away for a while in the middle of many runs, and their app is killed meanwhile.

    python -m tests.chaos.outage [--runs 1000] [--seconds 60] [--durability spool] [--json]

One app keeps so many LangGraph runs going at once. Postgres is killed, in the middle of the outage
the app is, too; both come back. Then every call that was answered has to be in the books once, with
its tokens and its cost, and every total has to equal a recount.
"""

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from uuid import UUID

import psycopg
from rich.console import Console
from rich.table import Table

from chatter_db import migrating
from chatter_db.recorder.spool import NAME
from tests.chaos.app import READY
from tests.chaos.campaign import directory
from tests.chaos.judging import Books, Findings, judge, read_books
from tests.chaos.known import Answers, Known
from tests.chaos.members import Member, environment
from tests.chaos.postgres import Postgres
from tests.chaos.proxy import Proxy
from tests.providers import openai

WAIT_SECONDS = 300.0
"""How long the app may take to be at work again, and to end."""


@dataclass
class Heard:
    """What the app said: calls by their prompt tokens, and runs that ended."""

    calls: set[int] = field(default_factory=set)
    runs: set[UUID] = field(default_factory=set)
    more: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, line: str) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            return  # cut off by the app's end, or no answer: then it promised nothing
        if "call" in said:
            self.calls.add(said["call"])
        else:
            self.runs.add(UUID(said["run"]))
        self.more.set()

    async def until(self, calls: int) -> None:
        """Waits for so many more answered calls."""
        wanted = len(self.calls) + calls
        async with asyncio.timeout(WAIT_SECONDS):
            while len(self.calls) < wanted:
                self.more.clear()
                await self.more.wait()


@dataclass
class Outage:
    """What happened, and what was found."""

    runs_at_once: int
    seconds: float
    durability: str
    billed: int = 0
    """Calls that the provider answered."""
    answered: int = 0
    """Of these, calls that reached their node."""
    answered_while_away: int = 0
    """Before the app was killed."""
    ended_runs: int = 0
    abandoned: int = 0
    messages: int = 0
    lost: int = 0
    found: list[str] = field(default_factory=list)
    """Everything that is wrong."""

    def print(self, console: Console) -> None:
        table = Table(title="Postgres away, the app killed", show_header=False)
        for name, value in asdict(self).items():
            if name != "found":
                table.add_row(name.replace("_", " "), f"{value}")
        console.print(table)
        for each in self.found:
            console.print(each, markup=False)


async def outage(
    runs: int,
    seconds: float,
    durability: str,
    tell: Callable[[str], None] = lambda _: None,
) -> Outage:
    """Runs it and judges."""
    told = Outage(runs, seconds, durability)
    heard, answers = Heard(), Answers()
    with directory() as base:
        async with AsyncExitStack() as stack:
            proxy = await stack.enter_async_context(Proxy())
            postgres = Postgres(base, None, proxy)
            stack.callback(postgres.end)
            await postgres.start()
            migrating.migrate(postgres.url)
            provider = stack.enter_context(openai.running())
            provider.answer = answers
            app = Member(
                "app",
                [sys.executable, "-m", "tests.chaos.outage_app", str(runs)],
                environment(
                    postgres.clients_url,
                    base / "spool",
                    PROVIDER=provider.base_url,
                    CHATTER_DURABILITY=durability,
                ),
                READY,
                heard.hear,
            )
            async with asyncio.TaskGroup() as background:
                running = background.create_task(app.run())
                tell(f"{runs} runs begin")
                await app.until_ready()
                await heard.until(runs)

                tell(f"Postgres is killed for {seconds:g} s")
                away_since = time.monotonic()
                proxy.target = None
                postgres.kill()
                calls = len(heard.calls)
                await asyncio.sleep(seconds / 2)
                # The recorder waits a second for Postgres before it goes on without.
                await heard.until(1)
                told.answered_while_away = len(heard.calls) - calls
                tell("the app is killed")
                await app.end(signal.SIGKILL)
                await asyncio.sleep(max(0.0, away_since + seconds - time.monotonic()))
                await postgres.ensure()
                tell("Postgres is back")
                await app.until_ready()
                await heard.until(runs)

                tell("the app ends")
                await app.stop(running, WAIT_SECONDS)

            books = await asyncio.to_thread(read_books, postgres.url)
            known = Known()
            findings = await asyncio.to_thread(judge, postgres.url, books, known, answers)
            _judge(findings, heard, books, postgres.url)
            told.billed = len(answers.completion_tokens)
            told.answered, told.ended_runs = len(heard.calls), len(heard.runs)
            told.abandoned, told.messages = books.swept, len(books.messages)
            told.lost = len(findings.lost)
            told.found = findings.all() + app.tracebacks + _left(base / "spool")
    return told


def _judge(found: Findings, heard: Heard, books: Books, url: str) -> None:
    """Every answered call is there, every run that ended is completed, every event is one."""
    found.lost += [
        f"the answered call of {prompt} prompt tokens"
        for prompt in heard.calls - books.calls.keys()
    ]
    for run in heard.runs:
        if run not in books.runs:
            found.lost.append(f"the run {run}")
        elif books.runs[run][0] != "completed":
            found.wrong.append(f"the run {run}, which ended, is {books.runs[run][0]}")
    with psycopg.connect(url) as db:
        strange = db.execute(
            "select m.id, count(e.id) from chatter.messages as m left join chatter.events as e"
            " on e.subject_id = m.id and e.event_type = 'message_created'"
            " group by m.id having count(e.id) <> 1"
        )
        found.wrong += [f"the message {id_} has {events} events" for id_, events in strange]


def _left(spool: Path) -> list[str]:
    """Records that wait in the spool when all is over."""
    files = [
        path
        for path in spool.rglob("*")
        if path.is_file() and path.name != NAME and path.stat().st_size
    ]
    return [f"left in the spool: {path.name}, {path.stat().st_size} bytes" for path in files]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--durability", choices=["database", "spool"], default="database")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    console = Console(stderr=True)
    told = asyncio.run(
        outage(
            options.runs,
            options.seconds,
            options.durability,
            lambda what: console.print(f"{time.strftime('%H:%M:%S')} {what}"),
        )
    )
    if options.json:
        print(json.dumps(asdict(told), indent=2))
    else:
        told.print(Console())
    raise SystemExit(1 if told.found else 0)


if __name__ == "__main__":
    main()
