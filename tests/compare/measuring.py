"""Measures a contender: speed, size, questions, and what a kill, a repeat and an agent leave."""

import json
import queue
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from tests.compare.contender import ROOT, Connection, Contender, NotRun
from tests.compare.workload import Call, generate, recount, write_calls

PATIENCE_SECONDS = 900.0
QUIET_SECONDS = 15.0
"""Nothing new for so long after the writer is done means that nothing will come."""
ASKED = 5
"""How often each question is asked; the first answer isn't counted."""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    calls: int = 5_000
    filled: int = 500_000
    pace: float = 200.0
    kill_after: int = 2_500


@dataclass(frozen=True)
class Row:
    """What one contender came to; None where it wasn't measured, or can't be."""

    contender: str
    version: str
    how: str
    reason: str | None = None
    """Why it was not run."""
    calls_per_second: float | None = None
    seen: int | None = None
    """Of the calls written at full speed, how many are there in the end."""
    bytes_per_call: float | None = None
    bytes_per_call_filled: float | None = None
    filled: int | None = None
    cost_error: Decimal | None = None
    """Its total cost less the exact one."""
    token_error: int | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)
    acknowledged: int | None = None
    present: int | None = None
    totals: str | None = None
    delivered_twice: str | None = None
    agent_repeats: str | None = None

    def as_json(self) -> str:
        return json.dumps(asdict(self), default=str)


def measure(contender: Contender, server_url: str, directory: Path, cache: Path, s: Scale) -> Row:
    """A row of the comparison; one with a reason if the contender can't be run."""
    about = Row(contender.name, contender.version, contender.how)
    try:
        python = contender.install(cache)
        with fresh_database(server_url, contender) as url:
            place = directory / contender.driver
            place.mkdir(exist_ok=True)
            with (
                contender.serve(url, place, python) as address,
                psycopg.connect(url, autocommit=True) as connection,
            ):
                run = _Run(contender, connection, python, address, place, s)
                return replace(about, **run.everything())
    except NotRun as reason:
        return replace(about, reason=str(reason))


@contextmanager
def fresh_database(server_url: str, contender: Contender) -> Iterator[str]:
    """A database for this contender alone."""
    name = f"compare_{contender.driver}_{contender.batch}"
    identifier = sql.Identifier(name)
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(identifier))
    known = conninfo_to_dict(server_url)
    account = f"{known['user']}:{known['password']}"
    try:
        yield f"postgresql://{account}@{known['host']}:{known['port']}/{name}"
    finally:
        with psycopg.connect(server_url, autocommit=True) as admin:
            admin.execute(sql.SQL("drop database {} with (force)").format(identifier))


class _Writing:
    """A writer's process, and what it has said so far."""

    def __init__(self, command: list[str], log: Path, environment: dict[str, str]) -> None:
        self._log = log
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self.begun = 0.0
        self.acknowledged = 0
        self._ended = False
        self._said: queue.SimpleQueue[tuple[float, str]] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.put((time.perf_counter(), line.strip()))
        self._said.put((time.perf_counter(), "end"))

    def next(self, timeout: float) -> str:
        """The next word, or nothing in time; the last one is `end`. Raises NotRun if it failed."""
        if self._ended:
            return "end"
        try:
            moment, word = self._said.get(timeout=timeout)
        except queue.Empty:
            return ""
        if word == "begin":
            self.begun = moment
        elif word.startswith("ack "):
            self.acknowledged = int(word.split()[1])
        elif word == "end":
            self._ended = True
        if self._ended and self.process.wait() > 0:
            said = self._log.read_text().strip().splitlines() or ["no word"]
            raise NotRun(f"its writer failed: {said[-1][:300]}")
        return word

    def until(self, *words: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.next(PATIENCE_SECONDS) not in words:
            if time.monotonic() > deadline:
                raise NotRun(f"its writer doesn't come to an end in {PATIENCE_SECONDS:.0f} s")

    def kill(self) -> None:
        """kill -9, then reads what it had said by then."""
        self.process.kill()
        self.until("end")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@dataclass(frozen=True)
class _Run:
    contender: Contender
    connection: Connection
    python: Path
    address: str
    directory: Path
    scale: Scale

    def everything(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        before = self._size()
        speeds = []
        for label in ("w", "x", "y")[: self.contender.rounds]:
            calls = generate(self.scale.calls, label)
            speed, found["seen"] = self._speed(calls, label)
            speeds.append(speed)
            if label == "w":
                found["bytes_per_call"] = (self._size() - before) / max(1, found["seen"])
                sums, exact = self.contender.sums(self.connection, label), recount(calls)
                found["cost_error"] = sums.cost - exact.cost
                found["token_error"] = sums.tokens - exact.tokens
        found["calls_per_second"] = statistics.median(speeds)
        found["delivered_twice"] = self._verdict("twice", generate(1, "d"), "d")
        # The agent's own span is the first of three calls, and isn't to be counted.
        found["agent_repeats"] = self._verdict("agent", generate(3, "a"), "a", skip=1)
        if self.contender.paced:
            found["acknowledged"], found["present"] = self._killed()
        found["totals"] = self.contender.agreement(self.connection)
        if self.contender.fills:
            found |= self._filled(before)
        return found

    @contextmanager
    def _writing(self, task: str, calls: list[Call]) -> Iterator[_Writing]:
        path = self.directory / "calls.jsonl"
        write_calls(path, calls)
        command = [str(self.python), "-m", f"tests.compare.drivers.{self.contender.driver}"]
        command += [task, str(path), self.address, "--pace", str(self.scale.pace)]
        command += ["--batch", str(self.contender.batch)]
        environment = self.contender.writer_environment(self.directory)
        writing = _Writing(command, self.directory / "writer.log", environment)
        try:
            yield writing
        finally:
            writing.close()

    def _speed(self, calls: list[Call], label: str) -> tuple[float, int]:
        """Calls a second from the first one until a query shows all, and how many it shows."""
        with self._writing("write", calls) as writing:
            writing.until("begin", "end")
            deadline = time.perf_counter() + PATIENCE_SECONDS
            seen, changed, done = 0, time.perf_counter(), False
            while True:
                # Looks at once when the writer is done, else seldom enough to take nothing away.
                pause = min(0.5, max(0.01, (time.perf_counter() - writing.begun) / 50))
                if done:
                    time.sleep(pause)
                else:
                    done = writing.next(max(0.05, pause)) in ("done", "end")
                now_seen = self.contender.sums(self.connection, label).calls
                now = time.perf_counter()
                if now_seen > seen:
                    seen, changed = now_seen, now
                stuck = done and now - changed > QUIET_SECONDS
                if seen >= len(calls) or stuck or now > deadline:
                    break
            writing.until("end")
        return seen / (changed - writing.begun), seen

    def _verdict(self, task: str, calls: list[Call], label: str, skip: int = 0) -> str:
        """Whether the totals have these calls once."""
        with self._writing(task, calls) as writing:
            writing.until("end")
        self._settled(label)
        sums, exact = self.contender.sums(self.connection, label), recount(calls[skip:])
        verdict = f"counted {_times(sums.tokens, exact.tokens)}"
        if self.contender.cost_by_model is None:
            return verdict
        row = self.connection.execute(
            self.contender.cost_by_model, {"label": f"{label}-%"}
        ).fetchone()
        by_model = _times(Decimal(str((row and row[0]) or 0)), exact.cost)
        return verdict if verdict.endswith(by_model) else f"{verdict}, by model {by_model}"

    def _killed(self) -> tuple[int, int]:
        """Calls acknowledged by a writer that was killed, and calls that are there then."""
        with self._writing("paced", generate(self.scale.kill_after * 2, "k")) as writing:
            while writing.acknowledged < self.scale.kill_after:
                if writing.next(PATIENCE_SECONDS) == "end":
                    raise NotRun("its writer ended before it could be killed")
            writing.kill()
            acknowledged = writing.acknowledged
        return acknowledged, self._settled("k")

    def _settled(self, label: str) -> int:
        """How many calls there are when no more come."""
        seen, since = self.contender.sums(self.connection, label).calls, time.monotonic()
        while time.monotonic() - since < self.contender.settles:
            time.sleep(0.25)
            now = self.contender.sums(self.connection, label).calls
            if now != seen:
                seen, since = now, time.monotonic()
        return seen

    def _filled(self, before: int) -> dict[str, Any]:
        self.contender.fill(self.connection, max(0, self.scale.filled // self.scale.calls - 1))
        self.connection.execute("vacuum analyze")
        filled = self.contender.sums(self.connection, "w").calls
        written = sum(self.contender.sums(self.connection, label).calls for label in "wxyka")
        milliseconds = {}
        for question, statement in self.contender.questions.items():
            times = []
            for _ in range(ASKED + 1):
                begin = time.perf_counter()
                self.connection.execute(statement).fetchall()
                times.append((time.perf_counter() - begin) * 1000)
            milliseconds[question] = statistics.median(times[1:])
        return {
            "filled": filled,
            "bytes_per_call_filled": (self._size() - before) / max(1, written),
            "milliseconds": milliseconds,
        }

    def _size(self) -> int:
        row = self.connection.execute("select pg_database_size(current_database())").fetchone()
        assert row is not None
        return int(row[0])


def _times(told: int | Decimal, exact: int | Decimal) -> str:
    """How many times the exact figure that is; floats are allowed their last digits."""
    times = round(Decimal(told) / Decimal(exact), 6)
    return "once" if times == 1 else f"{float(times):.2g} times"
