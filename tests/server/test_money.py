"""Money is the same decimal text wherever it is told, however small."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.forked import Run
from tests.server.conftest import Person
from tests.sql.books import Books

TINY = "0.0000001"


@pytest.fixture
def talk(url: str) -> str:
    """A conversation with a run under way, of one call that cost next to nothing."""
    with psycopg.connect(url, autocommit=True) as connection:
        books = Books(connection)
        talk = books.conversation()
        run = books.execution(talk, correlation_id="tiny")
        books.message(
            talk, execution_id=run, prompt_tokens=1, completion_tokens=1, cost=Decimal(TINY)
        )
    return str(talk)


def costs(told: Any) -> Iterator[str]:
    """Every known cost in a JSON answer."""
    if isinstance(told, dict):
        for name, value in told.items():
            if name.endswith("cost") and value is not None:
                yield value
            else:
                yield from costs(value)
    elif isinstance(told, list):
        for each in told:
            yield from costs(each)


async def test_money_over_http_is_decimal_text(admin: Person, talk: str) -> None:
    for path in (
        "conversations",
        f"conversations/{talk}",
        f"conversations/{talk}/messages",
        "executions",
        "trace/tiny",
        "analytics/cost_by_model",
        "analytics/running",
        "overview?range=today",
        "breakdown?range=today",
    ):
        answer = await admin.http.get(f"/api/{path}")
        assert answer.status_code == 200, answer.text
        found = list(costs(answer.json()))
        assert found, path
        assert set(found) == {TINY}, path


def test_money_by_the_command_is_decimal_text(chatter_command: Run, url: str, talk: str) -> None:
    for command in (
        ["report", "cost_by_model", "--json"],
        ["report", "dearest_conversations", "--json"],
        ["trace", "tiny", "--json"],
        ["status", "--json"],
    ):
        done = chatter_command(*command, url=url)
        assert done.returncode == 0, done.stderr
        assert set(costs(json.loads(done.stdout))) == {TINY}, command
    done = chatter_command("report", "cost_by_model", "--csv", url=url)
    assert f",{TINY}," in done.stdout


def test_an_import_of_what_is_there_already_cost_nothing(
    chatter_command: Run, url: str, tmp_path: Path
) -> None:
    file = tmp_path / "usage.jsonl"
    file.write_text('{"conversation": "a", "cost": 0.0000001}\n')
    for cost in (TINY, "0"):
        done = chatter_command("import", str(file), url=url)
        assert done.returncode == 0, done.stderr
        shown = re.search(r"cost, US dollars *\S *([0-9.]+) ", done.stdout)
        assert shown is not None, done.stdout
        assert Decimal(shown[1]) == Decimal(cost)
