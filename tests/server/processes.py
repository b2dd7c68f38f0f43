"""`chatter serve` and `chatter worker` as processes of their own."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from tests import forked


@dataclass
class Running:
    """A process whose output is read as it comes: a full pipe would stop it."""

    forked: forked.Forked
    said: list[str] = field(default_factory=list)
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def returncode(self) -> int | None:
        return self.forked.process.exitcode

    def terminate(self) -> None:
        self.forked.process.terminate()

    def kill(self) -> None:
        self.forked.process.kill()

    def freeze(self) -> None:
        """Lets it do nothing, with all its connections open."""
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    @property
    def _pid(self) -> int:
        pid = self.forked.process.pid
        assert pid is not None
        return pid

    async def wait(self) -> None:
        await asyncio.to_thread(self.forked.process.join)

    async def read(self, pipe: Connection) -> None:
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), pipe
        )
        async for line in lines:
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
    started = forked.start(["chatter", *command], kept | own | environment, Path.cwd())
    running = Running(started)
    reading = asyncio.gather(running.read(started.stdout), running.read(started.stderr))
    try:
        yield running
    finally:
        killed = running.returncode == -signal.SIGKILL
        if running.returncode is None:
            running.terminate()
        await running.wait()
        await reading
        code, said = running.returncode, "\n".join(running.said)
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
