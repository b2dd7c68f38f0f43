"""What the server's users wait for: chats, many at once, and the dashboard of large books.

    python tests/benchmarks/bench_chat.py [--requests N] [--messages N] [--rounds N] [--json]

First N (200) chats at once with the offline model, each of a user of its own and of two model
calls and a tool, against one and then two processes of `chatter serve`: every request must be
answered, and every answer be in the books as it was told, or the benchmark fails.

Then the dashboard on N (1,000,000) messages of 5,000 users over the last 90 days: first paint
in chromium, with nothing in its cache, and the median of every answer that the pages ask for.
Postgres is the embedded server with its durable defaults, in a temporary directory; it, the
servers, the clients and the browser share the machine.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from functools import partial
from typing import Any

import asyncpg
import httpx
from playwright.async_api import async_playwright
from rich.console import Console
from rich.table import Table

from chatter_db import Chatter
from chatter_db.accounts import Accounts
from chatter_db.queries import checks
from tests.benchmarks.bench_analytics import DAYS, USERS, generate, median_ms
from tests.benchmarks.own_server import own_server
from tests.server.processes import process, served

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]

BOOKED = """
  select m.id::text, m.content, e.status, e.model_calls, e.total_cost, c.message_count, c.total_cost
  from chatter.messages as m
    join chatter.workflow_executions as e on e.id = m.execution_id
    join chatter.conversations as c on c.id = m.conversation_id
  where m.role = 'assistant' and m.kind = 'turn' and c.id = any ($1::uuid[])
"""

# When the figures are on the page, by the page's own clock.
WATCH = """
  new MutationObserver((_, observer) => {
    if (!document.querySelector("[data-tile]")) return;
    requestAnimationFrame(() => { window.figures = performance.now(); });
    observer.disconnect();
  }).observe(document, { childList: true, subtree: true });
"""
PAINT = """() => ({
  first: performance.getEntriesByName("first-contentful-paint")[0].startTime,
  figures: window.figures,
})"""


@asynccontextmanager
async def servers(url: str, number: int) -> AsyncIterator[list[str]]:
    """That many processes of `chatter serve`: their addresses."""
    async with AsyncExitStack() as stack:
        unlimited = {"CHATTER_REQUESTS_PER_MINUTE": "1000000", "CHATTER_CHATS_PER_USER": "1000"}
        running = [
            await stack.enter_async_context(process(url, "serve", "--port", "0", **unlimited))
            for _ in range(number)
        ]
        yield [(await served(one)).address for one in running]


async def keys_of(url: str, users: list[str]) -> list[str]:
    """An API key for each of these new users."""
    async with Chatter.connect(url) as chatter:
        accounts = Accounts(chatter)
        made = [await accounts.create_user(user) for user in users]
        return [(await accounts.keys.create(one.user_id, "bench")).secret for one in made]


def share_of(times: list[float], share: float) -> float:
    """The time, in milliseconds, that this share of them did not exceed."""
    return sorted(times)[min(len(times) - 1, int(share * len(times)))] * 1000


async def chats(url: str, number: int, requests: int, rounds: int) -> dict[str, Any]:
    """`requests` chats at once, `rounds` times, against so many server processes."""
    names = [f"{number}-servers-{place}" for place in range(requests)]
    keys = await keys_of(url, names)
    times: list[float] = []
    alone: list[float] = []
    walls: list[float] = []
    answers: list[dict[str, Any]] = []
    lost = 0
    async with servers(url, number) as addresses, AsyncExitStack() as stack:
        # A pool of connections for each server; a user's key goes with the request.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=address, limits=limits, timeout=120)
            )
            for address in addresses
        ]

        async def make(place: int) -> str:
            client = clients[place % number]
            headers = {"Authorization": f"Bearer {keys[place]}"}
            made = await client.post("/api/conversations", json={}, headers=headers)
            return str(made.raise_for_status().json()["id"])

        async def ask(place: int, conversation: str, kept: list[float]) -> None:
            nonlocal lost
            begin = time.perf_counter()
            response = await clients[place % number].post(
                f"/api/conversations/{conversation}/messages",
                json={"content": f"What is {place} * 7?"},
                headers={"Authorization": f"Bearer {keys[place]}"},
            )
            kept.append(time.perf_counter() - begin)
            told = response.json()
            if response.status_code == 200 and told["content"].endswith(f"says: {place * 7}."):
                answers.append(told)
            else:
                lost += 1

        # The first ones import and connect.
        for place in range(requests):
            conversation = await make(place)
            await ask(place, conversation, alone if place >= requests // 2 else [])
        for _ in range(rounds):
            conversations = [await make(place) for place in range(requests)]
            begin = time.perf_counter()
            await asyncio.gather(
                *(ask(place, conversations[place], times) for place in range(requests))
            )
            walls.append(time.perf_counter() - begin)
        reduced = [await counted(client, "chatter_records_reduced") for client in clients]
        gone = [await counted(client, "chatter_records_lost") for client in clients]
    return {
        "servers": number,
        "requests": requests * rounds,
        "unanswered": lost,
        "unbooked": await unbooked(url, answers),
        "records_lost": sum(gone) + sum(reduced),
        "alone_ms": share_of(alone, 0.5),
        "p50_ms": share_of(times, 0.5),
        "p99_ms": share_of(times, 0.99),
        "per_second": requests / statistics.median(walls),
    }


async def counted(client: httpx.AsyncClient, name: str) -> float:
    text = (await client.get("/metrics")).raise_for_status().text
    (value,) = [line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(value)


async def unbooked(url: str, answers: list[dict[str, Any]]) -> int:
    """Answers that are not in the books word for word and to the cent, and broken invariants."""
    connection = await asyncpg.connect(url)
    rows = await connection.fetch(BOOKED, [told["conversation_id"] for told in answers])
    booked = {row[0]: tuple(row)[1:] for row in rows}
    missing = 0
    for told in answers:
        cost = Decimal(told["cost"])
        expected = (told["content"], "completed", 2, cost, 2, cost)
        missing += booked.get(told["message_id"]) != expected
    for check in checks():
        missing += len(await connection.fetch(str(check.statement)))
    await connection.close()
    return missing


async def dashboard(url: str, messages: int, rounds: int) -> dict[str, Any]:
    """First paint and the median of every answer, on that many messages."""
    connection = await asyncpg.connect(url)
    begin = await connection.fetchval("select (now() - make_interval(days => $1))::text", DAYS)
    await generate(connection, messages, since=begin)
    user = await connection.fetchval("select id from chatter.users where external_id = 'user-7'")
    async with Chatter.connect(url) as chatter:
        accounts = Accounts(chatter)
        admin = await accounts.create_user("bench-admin", role="admin")
        keys = {
            "an admin": (await accounts.keys.create(admin.user_id, "bench")).secret,
            "a user": (await accounts.keys.create(user, "bench")).secret,
        }
    told: dict[str, Any] = {"messages": messages, "users": USERS, "answers": {}}
    async with servers(url, 1) as (address,):
        for who, key in keys.items():
            async with httpx.AsyncClient(base_url=address, timeout=120) as client:
                login = await client.post("/api/auth/login", json={"api_key": key})
                login.raise_for_status()
                for name, path in (await paths(client, who)).items():
                    get = partial(get_all, client, path)
                    told["answers"][f"{name}, {who}"] = await median_ms(rounds, get)
        told["paint"] = {who: await paint(address, key, rounds) for who, key in keys.items()}
    await connection.close()
    return told


async def get_all(client: httpx.AsyncClient, *paths: str) -> None:
    for path in paths:
        (await client.get(path)).raise_for_status()


async def paths(client: httpx.AsyncClient, who: str) -> dict[str, str]:
    """What the pages ask for, of a conversation of theirs whose last answer has a trace."""
    made = (await client.post("/api/conversations", json={})).raise_for_status().json()["id"]
    asked = f"/api/conversations/{made}/messages"
    answer = await client.post(asked, json={"content": "What is 6 * 7?"}, timeout=60)
    trace = answer.raise_for_status().headers["x-correlation-id"]
    zones = ("UTC", "America/New_York", "Asia/Kolkata") if who == "an admin" else ("UTC",)
    return {
        "who is signed in": "/api/auth/me",
        **{
            f"{name}, {period}{'' if zone == 'UTC' else ', ' + zone}": (
                f"/api/{name}?range={period}&time_zone={zone}"
            )
            for name in (
                ("overview", "breakdown", "performance") if who == "an admin" else ("overview",)
            )
            for zone in zones
            for period in ("today", "7d", "30d", "90d", "all")
        },
        "list of conversations": "/api/conversations?limit=100",
        "a conversation": f"/api/conversations/{made}",
        "its messages": f"{asked}?steps=true&limit=200",
        "a trace": f"/api/trace/{trace}",
        **(
            {
                "alerts": "/api/security/alerts?limit=50",
                "security events": "/api/security/events?limit=100",
            }
            if who == "an admin"
            else {}
        ),
    }


async def paint(address: str, key: str, rounds: int) -> dict[str, float] | None:
    """Medians of first contentful paint and of the figures' first frame; None without chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        return None
    seen: list[dict[str, float]] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for round_ in range(-1, rounds):
            # A context of its own has an empty cache.
            context = await browser.new_context(viewport={"width": 1280, "height": 900})
            login = await context.request.post(f"{address}/api/auth/login", data={"api_key": key})
            assert login.ok
            await context.add_init_script(WATCH)
            page = await context.new_page()
            await page.goto(address)
            await page.wait_for_function("() => window.figures")
            if round_ >= 0:
                seen.append(await page.evaluate(PAINT))
            await context.close()
        await browser.close()
    return {f"{name}_ms": statistics.median(s[name] for s in seen) for name in ("first", "figures")}


def show(told: dict[str, Any]) -> None:
    console = Console(width=110)
    table = Table(title="Chats at once, each of two model calls and a tool")
    table.add_column("server processes")
    for name in ("requests", "lost", "one alone ms", "p50 ms", "p99 ms", "chats/s"):
        table.add_column(name, justify="right")
    for of in told["chats"]:
        table.add_row(
            str(of["servers"]),
            f"{of['requests']:,}",
            str(of["unanswered"] + of["unbooked"] + int(of["records_lost"])),
            *(f"{of[name]:,.0f}" for name in ("alone_ms", "p50_ms", "p99_ms", "per_second")),
        )
    console.print(table)
    if "dashboard" not in told:
        return
    board = told["dashboard"]
    table = Table(title=f"The dashboard on {board['messages']:,} messages, medians")
    table.add_column("what")
    table.add_column("ms", justify="right")
    for who, painted in board["paint"].items():
        if painted is None:
            table.add_row(f"first paint, {who}", "no chromium here")
            continue
        table.add_row(f"first contentful paint, {who}", f"{painted['first_ms']:,.0f}")
        table.add_row(f"first figures on the page, {who}", f"{painted['figures_ms']:,.0f}")
    for name, ms in board["answers"].items():
        table.add_row(name, f"{ms:,.1f}")
    console.print(table)


def run(options: argparse.Namespace) -> dict[str, Any]:
    with own_server() as (url, _):
        told: dict[str, Any] = {
            "chats": [
                asyncio.run(chats(url, number, options.requests, options.rounds))
                for number in (1, 2)
            ]
        }
    if options.messages:
        with own_server() as (url, _):
            told["dashboard"] = asyncio.run(dashboard(url, options.messages, options.rounds))
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--messages", type=int, default=1_000_000, help="0: no dashboard")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    told = run(options)
    if options.json:
        print(json.dumps(told, indent=2))
    else:
        show(told)
    if any(of["unanswered"] or of["unbooked"] or of["records_lost"] for of in told["chats"]):
        sys.exit("Some were lost: see above.")


if __name__ == "__main__":
    main()
