"""The example of the README: an app that was there before, run with and without our lines."""

import re
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.conftest import ONE_SERVER
from tests.providers.openai import Provider, Reply

ROOT = Path(__file__).parents[2]
APP = Path(__file__).with_name("existing_app.py")
SAID = "ada: It is on its way.\nbob: It is on its way.\n"


def without_us(source: str) -> str:
    """The app as it was: a block that is ours alone is entered all the same."""
    lines = [
        re.sub(r"\S.*", "if True:", line) if line.endswith(":  # new") else line
        for line in source.splitlines()
        if not line.endswith("  # new") or line.endswith(":  # new")
    ]
    return "\n".join(lines)


@pytest.fixture
def answering(provider: Provider, url: str, monkeypatch: pytest.MonkeyPatch) -> Provider:
    """OpenAI, as far as the app can tell, and the books, in its environment."""
    monkeypatch.setenv("CHATTER_DATABASE_URL", url)
    monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "test")

    def answer(request: dict[str, Any]) -> Reply:
        triage = request["messages"][0]["content"] == "Name the topic."
        text = "parcels" if triage else "It is on its way."
        return Reply(text, prompt_tokens=20 if triage else 40, completion_tokens=4)

    provider.answer = answer
    return provider


def said_by(app: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", app], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@ONE_SERVER
def test_the_app_does_what_it_did_and_its_calls_are_booked(
    answering: Provider, db: psycopg.Connection[Any], books_hold: Callable[[], None]
) -> None:
    assert said_by(APP.read_text("utf-8")) == SAID
    runs = db.execute(
        "select u.external_id, e.workflow_name, e.status, e.model_calls, e.prompt_tokens, "
        "  e.completion_tokens, e.total_cost, c.message_count, c.total_cost "
        "from chatter.workflow_executions e "
        "  join chatter.conversations c on c.id = e.conversation_id "
        "  join chatter.users u on u.id = c.user_id "
        "order by 1"
    ).fetchall()
    cost = 60 * Decimal("0.00000015") + 8 * Decimal("0.0000006")
    assert runs == [
        (user, "support", "completed", 2, 60, 8, cost, 2, cost) for user in ("ada", "bob")
    ]
    assert len(answering.requests) == 4
    books_hold()


@ONE_SERVER
def test_it_is_the_same_app_without_us(answering: Provider, db: psycopg.Connection[Any]) -> None:
    app = without_us(APP.read_text("utf-8"))
    assert "chatter" not in app
    assert said_by(app) == SAID
    assert len(answering.requests) == 4
    assert db.execute("select count(*) from chatter.messages").fetchone() == (0,)


def test_it_takes_less_than_ten_lines() -> None:
    ours = [line for line in APP.read_text("utf-8").splitlines() if line.endswith("# new")]
    assert 0 < len(ours) < 10


def test_the_readme_shows_the_app_as_it_is() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    (shown,) = re.findall(r"```python\n(\"\"\"A support bot.*?)```", readme, re.DOTALL)
    assert shown == APP.read_text("utf-8")
