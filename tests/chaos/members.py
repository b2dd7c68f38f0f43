"""Processes that are started again whenever a fault has ended them, as systemd would."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

CHATTER = Path(sys.executable).with_name("chatter")
ROOT = Path(__file__).parents[2]
REMEMBERED_LINES = 200
SHOWN_LINES = 80
LONGEST_LINE = 2**20
RESTART_SECONDS = 0.2
START_SECONDS = 60.0
STOP_SECONDS = 40.0
AWAY = ("No connection to Postgres", "Lost the connection to Postgres")


def environment(url: str, spool: Path, **more: str) -> dict[str, str]:
    """What a process of ours is told, with nothing of the developer's own settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CHATTER_", "PG", "OPENAI_"))}
    own = {
        "CHATTER_DATABASE_URL": url,
        "CHATTER_SPOOL_DIR": str(spool),
        "CHATTER_REQUESTS_PER_MINUTE": "1000000",
        "CHATTER_CHATS_PER_USER": "1000",
        "COLUMNS": "200",
        "PYTHONUNBUFFERED": "1",
        "LANGSMITH_TRACING": "false",
        "PYTHONFAULTHANDLER": "1",  # SIGABRT makes a process say where all its threads are
    }
    return {**kept, **own, **more}


@dataclass
class Member:
    """A process of the system under test, and everything it said."""

    name: str
    command: list[str]
    environment: dict[str, str]
    ready_when: str
    """A part of the line that says that it works."""
    hear: Callable[[str], None] = lambda _: None
    """Gets every line of its standard output."""
    ended: Callable[[], None] = lambda: None
    """Called when it has ended."""
    stopped_by: signal.Signals = signal.SIGTERM
    """What ends it in order."""
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    starts: int = 0
    turned_away: int = 0
    """Starts that ended with the message that Postgres is away."""
    said: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED_LINES))
    tracebacks: list[str] = field(default_factory=list)
    _process: Process | None = None
    _signals: list[signal.Signals] = field(default_factory=list)
    _stopping: bool = False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def send(self, how: signal.Signals) -> None:
        """A signal that ends it, and is the reason if it ends now."""
        assert self._process is not None
        self._signals.append(how)
        if self._process.returncode is None:
            self._process.send_signal(how)

    async def until_ready(self) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                await self.ready.wait()
        except TimeoutError:
            raise await self._stuck(f"did not start within {START_SECONDS:g} s") from None

    async def end(self, how: signal.Signals) -> None:
        """Ends it by a signal; returns when it is being started again."""
        starts = self.starts
        self.send(how)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                while self.starts == starts:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise await self._stuck(
                f"did not end within {STOP_SECONDS:g} s of {how.name}"
            ) from None

    async def stop(self, running: "asyncio.Task[None]", seconds: float = STOP_SECONDS) -> None:
        """Ends it in order, and `running`, which kept it alive."""
        self._stopping = True
        self.send(self.stopped_by)
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(running)
        except TimeoutError:
            raise await self._stuck(
                f"did not end within {seconds:g} s of {self.stopped_by.name}"
            ) from None

    async def run(self) -> None:
        """Keeps it running until `stop`. Raises AssertionError if it ends by itself."""
        while not self._stopping:
            self._signals.clear()
            self.said.clear()
            self._process = await asyncio.create_subprocess_exec(
                *self.command,
                env=self.environment,
                cwd=ROOT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=PIPE,
                stderr=PIPE,
                limit=LONGEST_LINE,
                start_new_session=True,
            )
            self.starts += 1
            try:
                await asyncio.gather(
                    self._read(self._process.stdout, self.hear),
                    self._read(self._process.stderr, lambda _: None),
                )
                code = await self._process.wait()
            finally:
                if self._process.returncode is None:
                    self._process.kill()
                    await self._process.wait()
                was_ready = self.ready.is_set()
                self.ready.clear()
                self.ended()
            if not self._is_expected(code):
                away = any(words in line for line in self.said for words in AWAY)
                if was_ready or code != 1 or not away:
                    raise self._wrong(f"ended by itself with {code}")
                self.turned_away += 1
            await asyncio.sleep(RESTART_SECONDS)

    def _is_expected(self, code: int) -> bool:
        # uvicorn ends in order, and then by the signal.
        in_order = code == 0 and signal.SIGTERM in self._signals
        return in_order or any(code == -how for how in self._signals)

    async def _read(self, stream: asyncio.StreamReader | None, hear: Callable[[str], None]) -> None:
        assert stream is not None
        following = 0
        async for data in stream:
            line = data.decode(errors="replace").rstrip()
            self.said.append(line)
            if "Traceback" in line:
                self.tracebacks.append(f"{self.name}: {_readable(line)}")
                # In a log of JSON the whole of it is one line.
                following = 0 if line.startswith("{") else 60
            elif following:
                self.tracebacks[-1] += f"\n{line}"
                following -= 1
            if self.ready_when in line:
                self.ready.set()
            hear(line)

    async def _stuck(self, what: str) -> AssertionError:
        """The error of a process that waits for ever, with what it waits for."""
        self._stopping = True
        self.said.clear()
        self.send(signal.SIGABRT)
        await asyncio.sleep(1)
        return self._wrong(what)

    def _wrong(self, what: str) -> AssertionError:
        return AssertionError(
            "\n".join([f"{self.name} {what}. It said:", *list(self.said)[-SHOWN_LINES:]])
        )


def _readable(line: str) -> str:
    """A line of a log in JSON with its traceback as lines; any other line as it is."""
    try:
        said = json.loads(line)
    except ValueError:
        return line
    return f"{said['message']}\n{said['error']}"
