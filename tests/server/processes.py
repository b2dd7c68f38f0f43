"""`chatter serve` and `chatter worker` as processes of their own."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

CHATTER = Path(sys.executable).with_name("chatter")


@dataclass
class Running:
    """A process whose output is read as it comes: a full pipe would stop it."""

    process: Process
    said: list[str] = field(default_factory=list)
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.said.append(line.decode().rstrip())
            self._more.set()

    async def says(self, words: str) -> None:
        """Waits until it has said so."""
        async with asyncio.timeout(60):
            while not any(words in line for line in self.said):
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def process(url: str, *command: str, **environment: str) -> AsyncIterator[Running]:
    """`chatter COMMAND` on the database at `url`, told to end afterwards unless it was killed."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CHATTER_DATA", "PG"))}
    own = {"CHATTER_DATABASE_URL": url, "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
    running = Running(
        await asyncio.create_subprocess_exec(
            CHATTER, *command, env={**kept, **own, **environment}, stdout=PIPE, stderr=STDOUT
        )
    )
    reading = asyncio.create_task(running.read())
    try:
        yield running
    finally:
        killed = running.process.returncode == -signal.SIGKILL
        if running.process.returncode is None:
            running.process.terminate()
        code = await running.process.wait()
        await reading
        said = "\n".join(running.said)
        # uvicorn ends in order, and then by the signal.
        assert killed or code in (0, -signal.SIGTERM), said
        assert "Traceback" not in said, said


@dataclass(frozen=True)
class Served:
    """A server process: its address, and the key of the first admin if it made one."""

    address: str
    key: str | None


async def served(running: Running) -> Served:
    """Where a process of `chatter serve` answers, once it says so."""
    await running.says("Ctrl-C ends it.")
    address = next(line for line in running.said if "dashboard" in line).split()[0]
    keys = [line.strip() for line in running.said if line.strip().startswith("chatter_")]
    return Served(address, keys[0] if keys else None)
