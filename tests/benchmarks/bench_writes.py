"""What the triggers of chatter.messages cost a writer, against the same table without them.

    python tests/benchmarks/bench_writes.py [--rounds N] [--seconds S] [--alone] [--json]

Two tables to compare with: `bare` is `create table bare (like chatter.messages
including all)`, so it has the same columns, defaults, checks and indexes; `heap` has
the columns and defaults alone. Postgres is the embedded server with its durable
defaults, in a temporary directory. Rounds of the tables alternate, in turning order,
and their medians are compared: figures of one run are comparable, those of two are not.
While single rows are committed `chatter worker` works beside, as it does in production:
it folds, and spares busy writers the NOTIFY. `--alone` leaves it out.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from decimal import Decimal
from itertools import cycle, product
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
from rich.console import Console
from rich.table import Table

from tests.benchmarks.own_server import own_server

ROWS = 1_000
CLIENTS = 8
WARM_UP = 2
TABLES = ("chatter.messages", "bare", "heap")
BULK_TARGET = 0.6
COMMIT_TARGET = 0.8
# What a network disk of a cloud takes to sync at its best; local ones take a tenth of it.
SLOW_SYNC_MS = 1

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
# Conversation and run of each row to write.
Parents = list[tuple[UUID, UUID | None]]

COLUMNS = """
  conversation_id, execution_id, role, content, provider_used, model_used, prompt_tokens,
  completion_tokens, total_tokens, cost, cost_source, usage_status, response_time_ms
"""

# Sent by the client: an array a column.
UNNEST = """
  select * from unnest(
    $1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[],
    $8::bigint[], $9::bigint[], $10::numeric[], $11::text[], $12::text[], $13::float8[]
  )
"""

# Made by the server, from the parents alone.
GENERATED = """
  select
    p.conversation_id, p.execution_id, 'assistant', repeat('All is well. ', 20), 'openai',
    'gpt-large', 1200, 300, 1500, 0.0123, 'computed', 'reported', 850.5
  from unnest($1::uuid[], $2::uuid[]) as p (conversation_id, execution_id)
"""

# Table names can't be parameters; these statements are all there are.
FROM_CLIENT = {table: f"insert into {table} ({COLUMNS}) {UNNEST}" for table in TABLES}
BY_SERVER = {table: f"insert into {table} ({COLUMNS}) {GENERATED}" for table in TABLES}


@dataclass(frozen=True)
class Result:
    """Rows a second into each table, and what is left of the other tables' speed."""

    case: str
    target: float
    messages: float
    bare: float
    heap: float

    @property
    def of_bare(self) -> float:
        return self.messages / self.bare

    @property
    def of_heap(self) -> float:
        return self.messages / self.heap


def client_rows(parents: Parents) -> list[list[Any]]:
    """The arrays for UNNEST."""
    number = len(parents)
    return [
        [conversation for conversation, _ in parents],
        [run for _, run in parents],
        ["assistant"] * number,
        ["All is well. " * 20] * number,
        ["openai"] * number,
        ["gpt-large"] * number,
        [1200] * number,
        [300] * number,
        [1500] * number,
        [Decimal("0.0123")] * number,
        ["computed"] * number,
        ["reported"] * number,
        [850.5] * number,
    ]


def server_rows(parents: Parents) -> list[list[Any]]:
    """The arrays for GENERATED."""
    return client_rows(parents)[:2]


async def prepare(connection: Connection) -> Parents:
    """Makes the tables to compare with, and 1,000 conversations with a run each."""
    await connection.execute(
        """
        create table bare (like chatter.messages including all);
        create table heap (like chatter.messages including defaults including generated);
        insert into chatter.conversations (title) select 'Benchmark' from generate_series(1, 1000);
        insert into chatter.workflow_executions (conversation_id, workflow_name)
          select id, 'benchmark' from chatter.conversations;
        """
    )
    rows = await connection.fetch("select conversation_id, id from chatter.workflow_executions")
    return [(row["conversation_id"], row["id"]) for row in rows]


async def alternate(rounds: int, measure: Callable[[str], Awaitable[float]]) -> list[float]:
    """Median of `measure` for each table: rounds in turns, the first ones not counted."""
    figures: dict[str, list[float]] = {table: [] for table in TABLES}
    for round_ in range(-WARM_UP, rounds):
        start = round_ % len(TABLES)
        for table in (*TABLES[start:], *TABLES[:start]):
            figure = await measure(table)
            if round_ >= 0:
                figures[table].append(figure)
    return [statistics.median(figures[table]) for table in TABLES]


async def bulk(connection: Connection, parents: Parents, rounds: int) -> list[Result]:
    """Inserts of 1,000 rows, a transaction each."""
    results = []
    kinds = (("client, unnest", FROM_CLIENT, client_rows), ("server", BY_SERVER, server_rows))
    for (source, statements, rows_of), number, in_run in product(kinds, (1, 100, 1000), (0, 1)):
        chosen = [
            (conversation, run if in_run else None)
            for (conversation, run), _ in zip(cycle(parents[:number]), range(ROWS), strict=False)
        ]
        random.Random(number).shuffle(chosen)
        values = rows_of(chosen)
        prepared = {
            table: await connection.prepare(statement) for table, statement in statements.items()
        }

        async def measure(table: str, prepared: Any = prepared, values: Any = values) -> float:
            begin = time.perf_counter()
            await prepared[table].fetch(*values)
            return ROWS / (time.perf_counter() - begin)

        case = f"{ROWS} rows from the {source}; {number} conversations; " + (
            "with runs" if in_run else "no runs"
        )
        results.append(Result(case, BULK_TARGET, *await alternate(rounds, measure)))
    return results


async def commits(
    url: str, parents: Parents, rounds: int, seconds: float, sync_ms: int
) -> list[Result]:
    """Single rows, a durable commit each, from several connections.

    With `sync_ms` the leader of each group commit sleeps as long before it syncs, as
    on a disk that takes that much longer (commit_delay is in microseconds).
    """
    slower = {"commit_delay": str(sync_ms * 1000), "commit_siblings": "0"}
    clients = [await asyncpg.connect(url, server_settings=slower) for _ in range(CLIENTS)]
    results = []
    for together, in_run in product((False, True), (0, 1)):
        rows = [
            client_rows([(conversation, run if in_run else None)])
            for conversation, run in (parents[:1] * CLIENTS if together else parents[:CLIENTS])
        ]
        prepared = {
            table: [await client.prepare(FROM_CLIENT[table]) for client in clients]
            for table in TABLES
        }

        async def measure(table: str, prepared: Any = prepared, rows: Any = rows) -> float:
            begin = time.perf_counter()

            async def write(statement: Any, values: list[list[Any]]) -> int:
                written = 0
                while time.perf_counter() - begin < seconds:
                    await statement.fetch(*values)
                    written += 1
                return written

            written = await asyncio.gather(*map(write, prepared[table], rows))
            return sum(written) / (time.perf_counter() - begin)

        place = "one conversation" if together else "a conversation each"
        disk = f"sync + {sync_ms} ms; " if sync_ms else ""
        case = f"1 row a commit; {disk}{CLIENTS} connections, {place}; " + (
            "with runs" if in_run else "no runs"
        )
        results.append(Result(case, COMMIT_TARGET, *await alternate(rounds, measure)))
    for client in clients:
        await client.close()
    return results


@contextmanager
def chatter_worker(url: str) -> Iterator[None]:
    """`chatter worker` in a process of its own."""
    process = subprocess.Popen(
        [Path(sys.executable).with_name("chatter"), "worker"],
        env={**os.environ, "CHATTER_DATABASE_URL": url},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


async def run(url: str, rounds: int, seconds: float, *, alone: bool) -> list[Result]:
    connection = await asyncpg.connect(url)
    parents = await prepare(connection)
    results = await bulk(connection, parents, rounds)
    with nullcontext() if alone else chatter_worker(url):
        for sync_ms in (0, SLOW_SYNC_MS):
            results += await commits(url, parents, max(3, rounds // 3), seconds, sync_ms)
    await connection.close()
    return results


def show(results: list[Result]) -> None:
    table = Table(title="chatter.messages against the same table without triggers")
    table.add_column("case")
    for name in ("messages rows/s", "bare rows/s", "heap rows/s", "of bare", "target", "of heap"):
        table.add_column(name, justify="right")
    for result in results:
        style = "green" if result.of_bare >= result.target else "red"
        table.add_row(
            result.case,
            f"{result.messages:,.0f}",
            f"{result.bare:,.0f}",
            f"{result.heap:,.0f}",
            f"[{style}]{result.of_bare:.2f}[/]",
            f"{result.target:.1f}",
            f"{result.of_heap:.2f}",
        )
    Console(width=150).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="rounds a case that are counted")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round of commits")
    parser.add_argument("--alone", action="store_true", help="without a worker beside")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    with own_server() as (url, _):
        results = asyncio.run(run(url, options.rounds, options.seconds, alone=options.alone))
    if options.json:
        described = [
            {**asdict(result), "of_bare": result.of_bare, "of_heap": result.of_heap}
            for result in results
        ]
        print(json.dumps(described, indent=2))
    else:
        show(results)


if __name__ == "__main__":
    main()
