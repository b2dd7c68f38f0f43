"""`chatter serve` and `chatter worker` as processes of their own."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

CHATTER = Path(sys.executable).with_name("chatter")


@asynccontextmanager
async def process(url: str, *command: str, **environment: str) -> AsyncIterator[Process]:
    """`chatter COMMAND` on the database at `url`, told to end afterwards unless it was killed."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CHATTER_DATA", "PG"))}
    own = {"CHATTER_DATABASE_URL": url, "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
    running = await asyncio.create_subprocess_exec(
        CHATTER, *command, env={**kept, **own, **environment}, stdout=PIPE, stderr=STDOUT
    )
    try:
        yield running
    finally:
        killed = running.returncode == -signal.SIGKILL
        if running.returncode is None:
            running.terminate()
        said, _ = await running.communicate()
        # uvicorn ends in order, and then by the signal.
        assert killed or running.returncode in (0, -signal.SIGTERM), said.decode()
        assert b"Traceback" not in said, said.decode()


async def lines_to(running: Process, words: str) -> list[str]:
    """What it prints, up to the line with `words`."""
    assert running.stdout is not None
    lines = []
    async with asyncio.timeout(60):
        while line := (await running.stdout.readline()).decode():
            lines.append(line.strip())
            if words in line:
                return lines
    raise AssertionError(f"it ended without saying {words!r}: {lines}")


@dataclass(frozen=True)
class Served:
    """A server process: its address, and the key of the first admin if it made one."""

    address: str
    key: str | None


async def served(running: Process) -> Served:
    """Where a process of `chatter serve` answers, once it says so."""
    lines = await lines_to(running, "Ctrl-C ends it.")
    address = next(line for line in lines if "dashboard" in line).split()[0]
    keys = [line for line in lines if line.startswith("chatter_")]
    return Served(address, keys[0] if keys else None)
