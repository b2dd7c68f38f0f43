"""What the analytics cost as the books grow: reads, folding and refreshing, rows in and out.

    python tests/benchmarks/bench_analytics.py [--messages N] [--rounds N] [--json]

Generates N messages (1,000,000; ten million take half an hour) of 5,000 users over 90
days, through the triggers. Every *_live view and every query of the dashboard is compared
with a GROUP BY over the messages themselves, in the same run. Postgres is the embedded
server with its durable defaults, in a temporary directory.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeAlias

import asyncpg
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncSession

from chatter_db import database
from chatter_db.analytics import run_report
from tests.benchmarks.own_server import own_server

USERS = 5_000
DAYS = 90
STATEMENT = 20_000
"""Messages in one insert."""
LATER = 10_000
"""Messages whose folding and refreshing is timed."""

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

PARENTS = """
  insert into chatter.users (external_id)
  select 'user-' || n from generate_series(1, $1::integer) as n
"""

# A conversation of ten messages, and a run for all of them, in one of four workflows.
CONVERSATIONS = """
  with c as (
    insert into chatter.conversations (external_id, user_id)
    select 'c-' || n, u.id
    from generate_series(1, $1::integer) as n
      join (select id, row_number() over (order by id) as place from chatter.users) as u
        on u.place = 1 + n % $2::integer
    returning id, user_id, external_id
  )
  insert into chatter.workflow_executions (conversation_id, user_id, workflow_name, status)
  select c.id, c.user_id, 'workflow-' || substr(c.external_id, 3)::integer % 4, 'completed'
  from c
"""

PLACES = """
  create table places as
  select
    row_number() over (order by id) as place, conversation_id, id as execution_id,
    substr(workflow_name, 10)::integer as workflow
  from chatter.workflow_executions;
  create unique index on places (place);
"""

# Evenly over the days, in the order of time, as messages are written: of five, two are a
# person's, three are model calls; each workflow uses two of eight models at four providers.
MESSAGES = """
  insert into chatter.messages (
    conversation_id, execution_id, role, kind, content, provider_used, model_used, prompt_tokens,
    completion_tokens, cache_read_tokens, cost, cost_source, usage_status, response_time_ms,
    time_to_first_token_ms, status, created_at
  )
  select
    p.conversation_id, p.execution_id, case when n % 5 < 2 then 'user' else 'assistant' end,
    case when n % 5 = 2 then 'step' else 'turn' end, 'All is well.',
    case when n % 5 >= 2 then 'provider-' || m.number % 4 end,
    case when n % 5 >= 2 then 'model-' || m.number end,
    case when n % 5 >= 2 then 500 + hashint4(n) & 4095 end,
    case when n % 5 >= 2 then 20 + hashint4(n + 1) & 1023 end,
    case when n % 5 = 4 then hashint4(n + 2) & 255 end,
    case when n % 5 >= 2 and n % 97 > 0 then (1 + hashint4(n) & 4095) * 0.0000025 end,
    case when n % 5 >= 2 and n % 97 > 0 then 'computed' end,
    case when n % 5 >= 2 then 'reported' end,
    case when n % 5 >= 2 then 200 * exp((hashint4(n + 3) & 1023) / 256.0) end,
    case when n % 5 >= 2 then 100 * exp((hashint4(n + 4) & 1023) / 512.0) end,
    case when n % 5 >= 2 and n % 83 = 0 then 'failed' else 'completed' end,
    $4::timestamptz + n * ($5::interval / $3::integer)
  from generate_series($1::integer, $2::integer - 1) as n
    -- Everybody writes all the time: neighbours in time are of other conversations.
    join places as p on p.place = 1 + n % ($3::integer / 10)
    cross join lateral (select (hashint4(n + 5) & 1) + 2 * p.workflow as number) as m
"""

TOOLS = """
  insert into chatter.tool_calls (execution_id, tool_name, status, started_at, duration_ms)
  select p.execution_id, 'tool-' || p.place % 6, 'completed',
    $2::timestamptz + p.place * ($3::interval / $1::integer), 40
  from places as p
  where p.place % 2 = 0
"""

# What a dashboard without books of its own would ask: by day and by model.
GROUP_BY = """
  select (created_at at time zone 'UTC')::date, provider_used, model_used, count(*),
    sum(prompt_tokens), sum(completion_tokens), sum(cost)
  from chatter.messages group by 1, 2, 3
"""

LIVE = (
    "usage_daily_live",
    "usage_by_model_live",
    "usage_by_workflow_live",
    "usage_by_user_live",
    "dearest_conversations_live",
    "latency_by_model_live",
    "tool_usage_live",
    "cache_usage_live",
    "unpriced_usage_live",
    "active_users_live",
    "running_executions_live",
)

GRAINS = (
    "usage_15min",
    "usage_hourly",
    "usage_day",
    "usage_user_day",
    "usage_user_month",
    "latency_hour",
    "latency_day",
    "tool_15min",
    "tool_day",
)

REPORTS: dict[str, dict[str, str | int]] = {
    "usage_by_time": {"step": "day"},
    "cost_by_model": {"limit": 10},
    "cost_by_user": {"limit": 10},
    "cost_by_workflow": {},
    "slowest_models": {},
    "tools": {},
    "dearest_conversations": {"limit": 10},
}


@dataclass(frozen=True)
class Result:
    """Milliseconds of a question, and of the GROUP BY in the same run."""

    case: str
    ms: float
    group_by_ms: float

    @property
    def share(self) -> float:
        return self.ms / self.group_by_ms


async def generate(
    connection: Connection, messages: int, since: str = "2026-01-01 00:00:00+00"
) -> None:
    """Writes the books of the days from `since` on, folds and refreshes them."""
    begin = await connection.fetchval("select $1::text::timestamptz", since)
    length = await connection.fetchval("select $1::text::interval", f"{DAYS} days")
    await connection.execute(PARENTS, USERS)
    await connection.execute(CONVERSATIONS, messages // 10, USERS)
    await connection.execute(PLACES)
    await connection.execute("analyze")
    with Progress(console=Console(stderr=True)) as progress:
        written = progress.add_task("messages", total=messages)
        for first in range(0, messages, STATEMENT):
            last = min(first + STATEMENT, messages)
            await connection.execute(MESSAGES, first, last, messages, begin, length)
            while await connection.fetchval("select analytics.fold(100000)") >= 100_000:
                pass
            progress.update(written, completed=last)
    await connection.execute(TOOLS, messages // 10, begin, length)
    await connection.execute("vacuum analyze")
    await connection.execute("select analytics.refresh(true)")


async def median_ms(rounds: int, ask: Callable[[], Awaitable[Any]]) -> float:
    times = []
    for round_ in range(-1, rounds):
        begin = time.perf_counter()
        await ask()
        if round_ >= 0:
            times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1000


async def reads(url: str, connection: Connection, rounds: int) -> list[Result]:
    """Every live view whole, then the dashboard's queries, while there are deltas that wait.

    Of the newest 2,000 messages half are folded, but not in a materialized view yet, and half
    not even that, which is what a worker leaves behind at some hundred messages a second.
    """
    begin = await connection.fetchval("select max(created_at) from chatter.messages")
    length = await connection.fetchval("select '1 hour'::interval")
    await connection.execute(MESSAGES, 0, 1000, 1000, begin, length)
    await connection.execute("select analytics.fold(1000000)")
    await connection.execute(MESSAGES, 0, 1000, 1000, begin, length)
    group_by = await median_ms(3, lambda: connection.fetch(GROUP_BY))
    results = []
    for view in LIVE:
        whole = partial(connection.fetch, f"select * from analytics.{view}")
        ms = await median_ms(rounds, whole)
        results.append(Result(f"{view}, all of it", ms, group_by))
    engine = database.async_engine(url)
    last = await connection.fetchval(
        "select (max(created_at) at time zone 'UTC')::date from chatter.messages"
    )
    for days, time_zone in (
        (29, "UTC"),
        (29, "America/New_York"),
        (29, "Asia/Kathmandu"),
        (89, "UTC"),
    ):
        since = await connection.fetchval("select ($1::date - $2::integer)::text", last, days)
        for name, given in REPORTS.items():
            period = (
                {} if name == "dearest_conversations" else {"since": since, "time_zone": time_zone}
            )

            variables = {**period, **given}

            async def ask(name: str = name, variables: Any = variables) -> None:
                async with AsyncSession(engine) as session:
                    await run_report(session, name, **variables)

            results.append(
                Result(
                    f"{name}, {days + 1} days, {time_zone}", await median_ms(rounds, ask), group_by
                )
            )
    await engine.dispose()
    return results


async def upkeep(connection: Connection, messages: int) -> dict[str, float]:
    """Milliseconds of folding and of refreshing after some new messages."""
    begin = await connection.fetchval("select max(created_at) from chatter.messages")
    length = await connection.fetchval("select '1 hour'::interval")
    await connection.execute(MESSAGES, 0, LATER, max(messages, LATER), begin, length)
    times = {}
    for name, statement in (
        ("fold", "select analytics.fold(1000000)"),
        ("refresh", "select analytics.refresh(true)"),
    ):
        start = time.perf_counter()
        await connection.fetch(statement)
        times[name] = (time.perf_counter() - start) * 1000
    return times


async def grains(connection: Connection) -> dict[str, int]:
    """Rows of each rollup."""
    return {
        grain: await connection.fetchval(f"select count(*) from analytics.{grain}")
        for grain in GRAINS
    }


async def run(url: str, messages: int, rounds: int) -> dict[str, Any]:
    connection = await asyncpg.connect(url)
    await generate(connection, messages)
    answers = await reads(url, connection, rounds)
    kept = [await upkeep(connection, messages) for _ in range(3)]
    told = {
        "messages": messages,
        "rows": await grains(connection),
        "reads": [{**asdict(answer), "share": answer.share} for answer in answers],
        "upkeep": {name: statistics.median(k[name] for k in kept) for name in kept[0]},
    }
    await connection.close()
    return told


def show(told: dict[str, Any]) -> None:
    console = Console(width=110)
    table = Table(title=f"{told['messages']:,} messages: of a GROUP BY over them")
    table.add_column("question")
    for name in ("ms", "GROUP BY ms", "share"):
        table.add_column(name, justify="right")
    for read in told["reads"]:
        good = read["share"] < 0.01 and read["ms"] < 20
        table.add_row(
            read["case"],
            f"{read['ms']:.1f}",
            f"{read['group_by_ms']:,.0f}",
            f"[{'green' if good else 'red'}]1/{1 / read['share']:,.0f}[/]",
        )
    console.print(table)
    rows = ", ".join(f"{name} {count:,}" for name, count in told["rows"].items())
    console.print(f"Rows of the rollups: {rows}")
    times = ", ".join(f"{name} {ms:,.0f} ms" for name, ms in told["upkeep"].items())
    console.print(f"After {LATER:,} more messages: {times}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    with own_server() as (url, _):
        told = asyncio.run(run(url, options.messages, options.rounds))
    if options.json:
        print(json.dumps(told, indent=2))
    else:
        show(told)


if __name__ == "__main__":
    main()
