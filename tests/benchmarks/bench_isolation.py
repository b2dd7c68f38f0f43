"""What row-level security costs: the same statements with and without it, as ratios in one run.

    python tests/benchmarks/bench_isolation.py

Each round runs every way once, so that noise meets all of them; medians. Statements run as
chatter_app; the request goes to a server on loopback, for the user who has signed in.
"""

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Callable
from uuid import UUID

import httpx
import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Table

from chatter_db import Chatter
from chatter_db.accounts import Accounts
from chatter_db.ledger import chatter as chatter_module
from chatter_db.server import serving
from chatter_db.settings import settings
from tests.benchmarks.own_server import own_server

ROUNDS, REPEATS, REQUEST_REPEATS, MESSAGES = 30, 60, 20, 50

TABLES = ("users", "conversations", "workflow_executions", "messages", "tool_calls", "events")

Run = Callable[[psycopg.Connection, UUID, UUID], None]


def read(connection: psycopg.Connection, user: UUID, conversation: UUID) -> None:
    connection.execute("select * from chatter.conversations where id = %s", [conversation])
    connection.execute(
        "select * from chatter.messages where conversation_id = %s and kind = 'turn' "
        "order by created_at, id limit 50",
        [conversation],
    ).fetchall()


def write(connection: psycopg.Connection, user: UUID, conversation: UUID) -> None:
    connection.execute(
        "insert into chatter.messages (conversation_id, role, prompt_tokens, cost) "
        "select %s, 'assistant', 7, 0.001 from generate_series(1, 50)",
        [conversation],
    )


def acting(run: Run) -> Run:
    def confined(connection: psycopg.Connection, user: UUID, conversation: UUID) -> None:
        connection.execute("select chatter.act_for(%s)", [user])
        run(connection, user, conversation)

    return confined


WAYS: list[tuple[str, Run, bool]] = [
    ("read a conversation, no row-level security", read, False),
    ("read a conversation, for the app as a whole", read, True),
    ("read a conversation, acting for its user", acting(read), True),
    ("write 50 messages, no row-level security", write, False),
    ("write 50 messages, for the app as a whole", write, True),
    ("write 50 messages, acting for their user", acting(write), True),
]


REQUESTS = [
    "GET 50 messages, no row-level security",
    "GET 50 messages, acting for who asks",
]


def main() -> None:
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    with own_server() as (url, _):
        figures = measure(url) + asyncio.run(measure_requests(url))
    table = Table("way", "ms", "of none", title="Row-level security, medians")
    names = [name for name, _, _ in WAYS] + REQUESTS
    for begin, end in ((0, 3), (3, 6), (6, 8)):
        for name, ms in zip(names[begin:end], figures[begin:end], strict=True):
            table.add_row(name, f"{ms:.3f}", f"{ms / figures[begin]:.2f}")
    Console().print(table)


def measure(url: str) -> list[float]:
    times: list[list[float]] = [[] for _ in WAYS]
    with (
        psycopg.connect(url, autocommit=True) as owner,
        psycopg.connect(url, autocommit=True) as app,
    ):
        app.execute("set synchronous_commit = off")
        app.execute("set role chatter_app")
        user, conversation, other = _books(owner, "ada")
        for _ in range(ROUNDS):
            for place, (_, run, secured) in enumerate(WAYS):
                _secure(owner, secured)
                subject = conversation if place < 3 else other
                begin = 0.0
                # The first ones plan anew.
                for repeat in range(-10, REPEATS):
                    if repeat == 0:
                        begin = time.perf_counter()
                    with app.transaction():
                        run(app, user, subject)
                times[place].append((time.perf_counter() - begin) * 1000 / REPEATS)
    return [statistics.median(t) for t in times]


async def measure_requests(url: str) -> list[float]:
    os.environ["CHATTER_REQUESTS_PER_MINUTE"] = "1000000"
    settings.cache_clear()
    times: list[list[float]] = [[], []]
    confine = chatter_module._confine
    with psycopg.connect(url, autocommit=True) as owner:
        user, conversation, _ = _books(owner, "eve")
        async with Chatter.connect(url) as chatter:
            key = await Accounts(chatter).keys.create(user, "bench")
            server = serving.server(chatter, access_log=False)
            listener = serving.listen("127.0.0.1", 0)
            running = asyncio.create_task(server.serve([listener]))
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{listener.getsockname()[1]}",
                headers={"Authorization": f"Bearer {key.secret}"},
            ) as client:
                for _ in range(ROUNDS):
                    for secured in (False, True):
                        _secure(owner, secured)
                        chatter_module._confine = confine if secured else lambda *_: None
                        for repeat in range(-10, REQUEST_REPEATS):
                            if repeat == 0:
                                begin = time.perf_counter()
                            answer = await client.get(
                                f"/api/conversations/{conversation}/messages?limit=50"
                            )
                            assert answer.status_code == 200
                        ms = (time.perf_counter() - begin) * 1000 / REQUEST_REPEATS
                        times[secured].append(ms)
            server.should_exit = True
            await running
    return [statistics.median(t) for t in times]


def _books(owner: psycopg.Connection, name: str) -> tuple[UUID, UUID, UUID]:
    found = owner.execute(
        "insert into chatter.users (external_id) values (%s) returning id", [name]
    )
    (user,) = found.fetchone() or ()
    conversations = []
    for _ in range(2):
        found = owner.execute(
            "insert into chatter.conversations (user_id) values (%s) returning id", [user]
        )
        conversations.append((found.fetchone() or ())[0])
    owner.execute(
        "insert into chatter.messages (conversation_id, role, content) "
        "select %s, 'user', repeat('x', 200) from generate_series(1, %s)",
        [conversations[0], MESSAGES],
    )
    return user, conversations[0], conversations[1]


def _secure(owner: psycopg.Connection, on: bool) -> None:
    word = sql.SQL("enable" if on else "disable")
    for table in TABLES:
        owner.execute(
            sql.SQL("alter table {} {} row level security").format(
                sql.Identifier("chatter", table), word
            )
        )


if __name__ == "__main__":
    main()
