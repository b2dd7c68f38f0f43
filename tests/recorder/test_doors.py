"""Sync code: as good as the async, and no event loop is made for it."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import psycopg
import pytest
from langchain_core.callbacks import manager
from langchain_core.runnables import RunnableConfig

from chatter_db import Chatter
from tests.polling import wait_until
from tests.providers.openai import Provider
from tests.recorder.graphs import model_of, single
from tests.recorder.test_ways import assert_forgotten

QUESTION = {"messages": [("user", "Will it rain?")]}
SEEN = "select status, model_calls from chatter.workflow_executions"


async def in_a_thread(run: Callable[[], Any]) -> None:
    await asyncio.to_thread(run)


async def where_a_loop_runs(run: Callable[[], Any]) -> None:
    run()


@pytest.mark.parametrize("place", [in_a_thread, where_a_loop_runs])
async def test_no_event_loop_is_made(
    place: Callable[[Callable[[], Any]], Any],
    chatter: Chatter,
    db: psycopg.Connection[Any],
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[object] = []
    monkeypatch.setattr(manager, "_run_coros", made.append)
    graph = single(model_of(provider))
    config: RunnableConfig = {"callbacks": [chatter.recorder()]}
    await place(lambda: graph.invoke(QUESTION, config))
    assert made == []
    assert db.execute(SEEN).fetchall() == [("completed", 1)]


class TimeIsUp(BaseException):
    """As gevent's Timeout, which LangChain doesn't catch either."""


def say_time_is_up(number: int, frame: object) -> None:
    raise TimeIsUp


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Leaves the handler of Ctrl-C as it was."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("handler", "raised", "status"),
    [
        # What a shell starts in the background ignores it.
        (signal.default_int_handler, KeyboardInterrupt, "cancelled"),
        (say_time_is_up, TimeIsUp, "failed"),
    ],
)
def test_interrupted_while_it_begins(
    url: str,
    db: psycopg.Connection[Any],
    provider: Provider,
    handler: Callable[[int, FrameType | None], Any],
    raised: type[BaseException],
    status: str,
) -> None:
    def interrupt() -> None:
        waits = "select from pg_locks where not granted"
        with psycopg.connect(url, autocommit=True) as watching:
            wait_until(lambda: watching.execute(waits).fetchone() is not None)
        signal.pthread_kill(main, signal.SIGINT)

    signal.signal(signal.SIGINT, handler)
    main = threading.get_ident()
    with Chatter.connect(url) as chatter:
        graph = single(model_of(provider))
        run = chatter.recorder()
        config: RunnableConfig = {"callbacks": [run]}
        with psycopg.connect(url) as holder:
            holder.execute("lock table chatter.workflow_executions in access exclusive mode")
            threading.Thread(target=interrupt).start()
            with pytest.raises(raised):
                graph.invoke(QUESTION, config)
        assert_forgotten(run)
    assert provider.requests == []
    assert db.execute(SEEN).fetchall() == [(status, 0)]
