"""What row-level security costs: the same statements with and without it, as ratios in one run.

    python tests/benchmarks/bench_isolation.py

Each round runs every way once, as chatter_app, so that noise meets all of them; medians.
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Table

from chatter_db import migrating
from chatter_db.embedded import lease, wait_until_stopped

ROUNDS, REPEATS, MESSAGES = 30, 60, 50

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


def main() -> None:
    directory = Path(tempfile.mkdtemp(prefix="chatter-bench-"))
    # Postgres may run as another user, who has to get in.
    directory.chmod(0o755)
    try:
        with lease(directory / "data") as server:
            migrating.migrate(server.url)
            figures = measure(server.url)
        wait_until_stopped(directory / "data")
    finally:
        shutil.rmtree(directory)
    table = Table("way", "ms", "of none", title="Row-level security, medians")
    for begin in (0, 3):
        base = figures[begin]
        for (name, _, _), ms in zip(WAYS[begin : begin + 3], figures[begin:], strict=False):
            table.add_row(name, f"{ms:.3f}", f"{ms / base:.2f}")
    Console().print(table)


def measure(url: str) -> list[float]:
    times: list[list[float]] = [[] for _ in WAYS]
    with (
        psycopg.connect(url, autocommit=True) as owner,
        psycopg.connect(url, autocommit=True) as app,
    ):
        app.execute("set synchronous_commit = off")
        app.execute("set role chatter_app")
        user, conversation, other = _books(owner)
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


def _books(owner: psycopg.Connection) -> tuple[UUID, UUID, UUID]:
    found = owner.execute("insert into chatter.users (external_id) values ('ada') returning id")
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
