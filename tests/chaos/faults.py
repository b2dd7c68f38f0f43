"""The faults: each one happens when its function returns, or it raises."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
from psycopg.errors import DeadlockDetected, SerializationFailure

from tests.chaos.known import Known, Row, cost
from tests.chaos.load import insert, jump
from tests.chaos.members import Member
from tests.chaos.postgres import Connection, Postgres
from tests.chaos.proxy import Proxy
from tests.polling import until

EFFECT_SECONDS = 30.0
FREEZES = (0.2, 0.5, 1.0, 3.0)
CLOCKS = (
    timedelta(minutes=-90),
    timedelta(seconds=-2),
    timedelta(seconds=5),
    timedelta(hours=1),
    timedelta(hours=23),
)


@dataclass
class Field:
    """Everything that faults happen to."""

    postgres: Postgres
    proxy: Proxy
    apps: list[Member]
    servers: list[Member]
    """Those that may be killed."""
    workers: list[Member]
    poolers: list[Member]
    conversations: list[UUID]
    known: Known
    dice: random.Random

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        await until(condition, what, EFFECT_SECONDS)

    async def end(self, members: list[Member], how: signal.Signals) -> None:
        """Ends one of them by a signal; the next fault may find it starting again."""
        member = self.dice.choice(members)
        await member.until_ready()
        await member.end(how)

    async def refused(self, sqlstate: str, what: str) -> None:
        """Waits until a writer meets this error once more."""
        before = self.known.refused[sqlstate]
        await self.until(lambda: self.known.refused[sqlstate] > before, what)

    def row(self, conversation: UUID) -> Row:
        prompt, completion = self.dice.randint(1, 9999), self.dice.randint(1, 999)
        return Row(uuid4(), conversation, prompt, completion, cost(prompt, completion))


async def kill_postmaster(field: Field) -> None:
    field.postgres.kill()
    await field.until(lambda: not field.postgres.is_up, "the postmaster ends by kill -9")
    await field.postgres.ensure()


async def kill_backend(field: Field) -> None:
    async with await field.postgres.connect(autocommit=True) as watching:
        while not (backends := await _backends(watching)):
            await asyncio.sleep(0.01)
        os.kill(field.dice.choice(backends), signal.SIGKILL)
        try:
            async with asyncio.timeout(EFFECT_SECONDS):
                while True:  # Postgres ends everybody's connection, this one's too
                    await watching.execute("select 1")
                    await asyncio.sleep(0.01)
        except psycopg.OperationalError:
            pass
    await field.postgres.ensure()


async def terminate_backends(field: Field) -> None:
    async with await field.postgres.connect(autocommit=True) as connection:
        ended = 0
        while not ended:
            backends = await _backends(connection)
            for pid in field.dice.sample(backends, min(len(backends), field.dice.randint(1, 4))):
                cursor = await connection.execute("select pg_terminate_backend(%s)", [pid])
                ended += await cursor.fetchone() == (True,)


async def kill_app(field: Field) -> None:
    await field.end(field.apps, signal.SIGKILL)


async def kill_server(field: Field) -> None:
    await field.end(field.servers, signal.SIGKILL)


async def stop_server(field: Field) -> None:
    await field.end(field.servers, signal.SIGTERM)


async def kill_worker(field: Field) -> None:
    await field.end(field.workers, signal.SIGKILL)


async def kill_pooler(field: Field) -> None:
    await field.end(field.poolers, signal.SIGKILL)


async def cut_connections(field: Field) -> None:
    share = field.dice.choice((0.1, 0.5, 1.0))
    await field.until(lambda: field.proxy.cut(share, field.dice) > 0, "a connection to cut")


async def freeze_connections(field: Field) -> None:
    assert field.proxy.freeze() > 0, "there is no connection to freeze"
    try:
        await asyncio.sleep(field.dice.choice(FREEZES))
    finally:
        field.proxy.thaw()


async def hold_conversations(field: Field) -> None:
    async with await field.postgres.connect() as connection:
        await connection.execute(
            "select from chatter.conversations where id = any(%s) order by id for update",
            [field.conversations],
        )
        await field.refused("55P03", "a lock timeout")
        await connection.rollback()


async def hold_messages(field: Field) -> None:
    async with await field.postgres.connect() as connection:
        await connection.execute("lock table chatter.messages in access exclusive mode")
        await field.refused("57014", "a statement timeout")
        await connection.rollback()


async def deadlock(field: Field) -> None:
    """Two sessions take two conversations in opposite order, until Postgres sees it."""
    met = field.known.refused["40P01"]
    deadline = time.monotonic() + EFFECT_SECONDS
    while field.known.refused["40P01"] == met:
        assert time.monotonic() < deadline, f"no deadlock within {EFFECT_SECONDS:g} s"
        pair = field.dice.sample(field.conversations, 2)
        first = [field.row(conversation) for conversation in pair]
        second = [field.row(conversation) for conversation in reversed(pair)]
        async with await field.postgres.connect() as a, await field.postgres.connect() as b:
            await asyncio.gather(insert(a, first[0]), insert(b, second[0]))
            await asyncio.gather(_finish(field, a, first), _finish(field, b, second))


async def _finish(field: Field, connection: Connection, rows: list[Row]) -> None:
    try:
        await insert(connection, rows[1])
    except DeadlockDetected:
        field.known.refused["40P01"] += 1
        field.known.roll_back(rows)
        await connection.rollback()
    else:
        await connection.commit()
        field.known.commit("deadlock", rows)


async def fail_serialization(field: Field) -> None:
    conversation = field.dice.choice(field.conversations)
    late, early = field.row(conversation), field.row(conversation)
    async with await field.postgres.connect() as a, await field.postgres.connect() as b:
        await a.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await a.execute("select from chatter.conversations")
        await insert(b, early)
        await b.commit()
        field.known.commit("serialization", [early])
        try:
            await insert(a, late)
        except SerializationFailure:
            field.known.roll_back([late])
            await a.rollback()
        else:
            raise AssertionError("a snapshot of before wrote over what came after it")


async def jump_clock(field: Field) -> None:
    """Writers' time is off from now on; and a sweep comes by that is ahead, or not any more."""
    field.known.clock = field.dice.choice([clock for clock in CLOCKS if clock != field.known.clock])
    async with await field.postgres.connect() as connection:
        await jump(connection, field.known.clock)
        await connection.execute("select chatter.sweep_executions()")
        await connection.commit()


async def fill_disk(field: Field) -> None:
    ballast = field.postgres.disk / "ballast"
    try:
        await asyncio.to_thread(_fill, ballast)
        try:
            async with await field.postgres.connect() as connection:
                await connection.execute(
                    "create table ballast as select n, repeat('x', 1000) as x"
                    " from generate_series(1, 1000000) as n"
                )
        except psycopg.OperationalError:
            pass  # refused (53100), or the end of the server
        else:
            raise AssertionError("the disk isn't full")
        await asyncio.sleep(field.dice.choice((0.1, 1.0, 2.0)))
    finally:
        ballast.unlink()
    await field.postgres.ensure()


def _fill(ballast: Path) -> None:
    with ballast.open("wb") as file:
        size = 2**24
        while size >= 4096:
            try:
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size)
            except OSError:
                size //= 2


async def _backends(connection: Connection) -> list[int]:
    """Server processes of clients, ours excepted."""
    cursor = await connection.execute(
        "select pid from pg_stat_activity where backend_type = 'client backend'"
        " and application_name <> 'chaos'"
    )
    return [int(str(pid)) for (pid,) in await cursor.fetchall()]


FAULTS: dict[str, Callable[[Field], Awaitable[None]]] = {
    "Postgres killed": kill_postmaster,
    "backend killed": kill_backend,
    "app killed": kill_app,
    "server killed": kill_server,
    "server told to stop": stop_server,
    "worker killed": kill_worker,
    "pooler killed": kill_pooler,
    "backends terminated": terminate_backends,
    "connections cut": cut_connections,
    "connections frozen": freeze_connections,
    "lock timeout": hold_conversations,
    "statement timeout": hold_messages,
    "deadlock": deadlock,
    "serialization failure": fail_serialization,
    "clock jump": jump_clock,
    "disk full": fill_disk,
}
"""Every kind, by the name it is counted under."""
