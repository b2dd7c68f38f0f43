"""Event loops come and go; what the books opened in one ends with it."""

import asyncio
import gc
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import psycopg
import pytest
import uvloop
from sqlalchemy import text

from chatter_db import Chatter
from tests.polling import wait_until

LOOPS = pytest.mark.parametrize(
    "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
NewLoop = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture
def opened(url: str) -> Iterator[Chatter]:
    with Chatter.connect(url) as chatter:
        yield chatter
    gc.collect()  # what complains of not having been closed complains here


async def use(chatter: Chatter) -> None:
    """A session, and the events."""
    async with chatter.session() as session:
        await session.execute(text("select 1"))
    await chatter.event_hub().oldest()
    chatter.event_hub().watch(asyncio.Event())
    while not chatter.event_hub().connected:
        await asyncio.sleep(0.001)


def connections(db: psycopg.Connection[Any]) -> int:
    (count,) = db.execute(
        "select count(*) from pg_stat_activity "
        "where datname = current_database() and pid <> pg_backend_pid()"
    ).fetchone() or (0,)
    return int(count)


def run(new_loop: NewLoop, coroutine: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(coroutine)


@LOOPS
def test_a_loop_that_ends_leaves_no_connection(
    opened: Chatter, db: psycopg.Connection[Any], new_loop: NewLoop
) -> None:
    before = connections(db)
    for _ in range(5):
        run(new_loop, use(opened))
    wait_until(lambda: connections(db) == before)


@LOOPS
def test_more_loops_than_the_server_takes_connections(
    opened: Chatter, db: psycopg.Connection[Any], new_loop: NewLoop
) -> None:
    async def ask() -> None:
        async with opened.session() as session:
            await session.execute(text("select 1"))

    (limit,) = db.execute("show max_connections").fetchone() or (0,)
    for _ in range(int(limit) + 5):
        run(new_loop, ask())


# The loop itself complains of what was open when it was closed.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@LOOPS
def test_of_a_loop_that_was_just_closed_the_next_one_takes_the_connections_away(
    url: str, db: psycopg.Connection[Any], new_loop: NewLoop
) -> None:
    async def ask() -> None:
        async with books.session() as session:
            await session.execute(text("select 1"))
        await books.event_hub().oldest()

    def ask_and_close() -> None:
        loop = new_loop()
        loop.run_until_complete(ask())
        loop.close()

    with Chatter.connect(url) as books:
        before = connections(db)
        ask_and_close()
        gc.disable()  # it would do it one day
        try:
            ask_and_close()
            wait_until(lambda: connections(db) <= before + 2)
        finally:
            gc.enable()
    wait_until(lambda: connections(db) == 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@LOOPS
def test_at_the_end_nothing_stays_open_in_a_loop_that_rests(
    url: str, db: psycopg.Connection[Any], new_loop: NewLoop
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        with Chatter.connect(url) as books:
            runner.run(use(books))
            assert connections(db) > 1
        wait_until(lambda: connections(db) == 0)
    gc.collect()


@LOOPS
def test_at_the_end_nothing_stays_open_in_a_loop_that_runs(
    url: str, db: psycopg.Connection[Any], new_loop: NewLoop
) -> None:
    used, ended = threading.Event(), threading.Event()

    async def use_and_wait() -> None:
        await use(books)
        used.set()
        await asyncio.to_thread(ended.wait, 20)

    with Chatter.connect(url) as books:
        thread = threading.Thread(target=run, args=(new_loop, use_and_wait()))
        thread.start()
        assert used.wait(20)
    wait_until(lambda: connections(db) == 0)
    ended.set()
    thread.join()
    gc.collect()
