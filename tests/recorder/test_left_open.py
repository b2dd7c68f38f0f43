"""A Chatter that nobody closes: it is open to the end of the process, and closed there."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.conftest import ONE_SERVER
from tests.providers.openai import Provider, Reply


@pytest.fixture
def hold() -> Iterator[threading.Event]:
    """Set where the provider may end its answer."""
    hold = threading.Event()
    yield hold
    hold.set()


@ONE_SERVER
def test_it_lasts_as_long_as_the_process(
    url: str,
    db: psycopg.Connection[Any],
    provider: Provider,
    hold: threading.Event,
    books_hold: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CHATTER_DATABASE_URL", url)
    reached = threading.Event()

    def answer(request: dict[str, Any]) -> Reply:
        asked = request["messages"][-1]["content"]
        if asked == "thread":
            reached.set()
        return Reply(f"To the {asked}.", hold=hold if asked == "thread" else None)

    provider.answer = answer
    command = [sys.executable, "-m", "tests.recorder.left_open", provider.base_url]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            assert reached.wait(60)
            process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0
    assert db.execute(
        "select m.status, m.content, e.status from chatter.messages m"
        " join chatter.workflow_executions e on e.id = m.execution_id"
        " where model_call order by m.created_at"
    ).fetchall() == [
        ("completed", "To the parent.", "completed"),
        ("completed", "To the child.", "completed"),
        ("cancelled", None, "cancelled"),
    ]
    books_hold()
