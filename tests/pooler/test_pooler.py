"""With CHATTER_POOLER=transaction all is as without a pooler; forgotten, it is asked for."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from langchain_core.messages import HumanMessage

from chatter_db import Chatter, UsageError
from chatter_db.analytics import Worker, worker
from chatter_db.events import Hub
from chatter_db.importing import adopt, import_file
from chatter_db.settings import settings
from tests.conftest import ONE_SERVER
from tests.embedded.conftest import open_directory
from tests.forked import Run
from tests.polling import until
from tests.pooler.pgbouncer import pgbouncer
from tests.providers.openai import Provider
from tests.recorder.test_recorder import agent, model_of
from tests.server.processes import Served, process, served

# What comes through a pooler is the same whichever Postgres is behind it.
pytestmark = ONE_SERVER

RUNS = 12


def value(db: psycopg.Connection[Any], query: str) -> Any:
    row = db.execute(query).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.usefixtures("told")
async def test_runs_are_recorded_and_heard_of(
    pooled_url: str,
    db: psycopg.Connection[Any],
    provider: Provider,
    books_hold: Callable[[], None],
) -> None:
    async with Chatter.connect(pooled_url) as chatter:
        begin = await chatter.event_hub().oldest()

        async def ask(number: int) -> None:
            run = chatter.recorder(conversation=f"c{number % 3}", user=f"user {number % 3}")
            await agent(model_of(provider)).ainvoke(
                {"messages": [HumanMessage("Hi")]}, config={"callbacks": [run]}
            )

        # One by one, so that the same statements come again and again: drivers prepare them then.
        for number in range(RUNS):
            await ask(number)
        heard = 0
        async with asyncio.timeout(30):
            async for event in chatter.events(after=begin, event_types=["workflow_completed"]):
                heard += event.event_type == "workflow_completed"
                if heard == RUNS:
                    break
        assert chatter.lost_records == chatter.reduced_records == 0
    assert value(db, "select sum(message_count) from chatter.conversations") == 2 * RUNS
    books_hold()


@pytest.mark.usefixtures("told")
async def test_acting_for_a_user_ends_with_the_transaction(pooled_url: str) -> None:
    from sqlalchemy import func, select

    from chatter_db import Conversation

    async with Chatter.connect(pooled_url) as chatter:
        made = {
            name: await chatter.create_conversation(user=name, title=name)
            for name in ("ada", "bob")
        }

        async def titles(name: str | None) -> set[str | None]:
            user_id = made[name].user_id if name else None
            async with chatter.session(acting_for=user_id) as session:
                await session.scalar(select(func.pg_sleep(0.01)))  # beside the others
                return set(await session.scalars(select(Conversation.title)))

        asked: list[str | None] = ["ada", "bob", None] * 10
        found = await asyncio.gather(*(titles(name) for name in asked))
    expected = {"ada": {"ada"}, "bob": {"bob"}, None: {"ada", "bob"}}
    assert found == [expected[name] for name in asked]


@pytest.mark.usefixtures("told")
def test_imports_and_adoptions(
    pooled_url: str, db: psycopg.Connection[Any], tmp_path: Path, books_hold: Callable[[], None]
) -> None:
    usage = tmp_path / "usage.jsonl"
    usage.write_text(
        "".join(
            json.dumps({"conversation": f"c{n % 7}", "role": "assistant", "prompt_tokens": 1})
            + "\n"
            for n in range(3000)
        )
    )
    assert import_file(pooled_url, usage, on_bad_line="reject").booked == 3000
    db.execute(
        """
        create schema old;
        create table old.conversations (id text primary key, user_id text);
        create table old.messages (id uuid, conversation_id text, role text, prompt_tokens integer);
        insert into old.conversations select 'k' || n, 'ada' from generate_series(1, 9) as n;
        insert into old.messages select gen_random_uuid(), 'k' || n % 9 + 1, 'assistant', 1
        from generate_series(1, 3000) as n;
        """
    )
    assert (
        adopt(
            pooled_url, conversations="old.conversations", messages="old.messages", batch=100
        ).booked
        == 3000
    )
    assert value(db, "select sum(prompt_tokens) from chatter.conversations") == 6000
    books_hold()


@pytest.mark.usefixtures("told")
async def test_of_two_workers_one_works_at_a_time(
    pooled_url: str,
    db: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    books_hold: Callable[[], None],
) -> None:
    monkeypatch.setattr(worker, "LEAD_SECONDS", 0.01)
    monkeypatch.setattr(worker, "EVERY_SECONDS", 0.05)
    hub = Hub(pooled_url, poll_seconds=0.02)
    workers = [Worker(pooled_url, hub) for _ in range(2)]
    tasks = [asyncio.create_task(each.run()) for each in workers]
    for count in range(1, 11):
        db.execute(
            "with c as (insert into chatter.conversations default values returning id) "
            "insert into chatter.messages (conversation_id, role) select id, 'assistant' from c"
        )
        await until(lambda: value(db, "select sum(calls) from analytics.usage_15min") == count)  # noqa: B023
    held = "select count(*) from pg_locks where locktype = 'advisory' and not fastpath"
    for each in workers:
        each.stop()
    await asyncio.gather(*tasks)
    await hub.close()
    # Nothing of theirs stays with a connection that others get.
    assert value(db, held) == 0
    books_hold()


@pytest.mark.usefixtures("told")
async def test_the_server_answers(
    pooled_url: str, db: psycopg.Connection[Any], books_hold: Callable[[], None]
) -> None:
    async with process(pooled_url, "serve", "--port", "0") as running:
        server = await served(running)
        await chat(server)
    assert value(db, "select sum(message_count) from chatter.conversations") == 10
    books_hold()


async def chat(server: Served) -> None:
    """Five questions and their answers, and a look at the figures."""
    headers = {"Authorization": f"Bearer {server.key}"}
    async with httpx.AsyncClient(base_url=server.address, headers=headers, timeout=30) as client:
        made = (await client.post("/api/conversations", json={})).json()["id"]
        for _ in range(5):
            answer = await client.post(
                f"/api/conversations/{made}/messages", json={"content": "What is 6 * 7?"}
            )
            assert answer.status_code == 200, answer.text
            assert "42" in answer.text
        for path in ("/api/overview", "/api/conversations", "/readyz"):
            assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("command", ["migrate", "status", "check", "report cost_by_user"])
def test_the_command_works_through_a_pooler(
    pooled_url: str, chatter_command: Run, command: str
) -> None:
    done = chatter_command(*command.split(), url=pooled_url, CHATTER_POOLER="transaction")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["migrate", "status"])
def test_the_command_asks_for_what_was_forgotten(
    pooled_url: str, chatter_command: Run, command: str
) -> None:
    forgotten = chatter_command(command, url=pooled_url)
    assert forgotten.returncode == 2
    assert "Set CHATTER_POOLER=transaction if it pools transactions" in forgotten.stderr
    assert "Traceback" not in forgotten.stderr


async def test_what_was_forgotten_is_asked_for(pooled_url: str) -> None:
    with pytest.raises(UsageError, match="Set CHATTER_POOLER=transaction if it pools transactions"):
        async with Chatter.connect(pooled_url):
            pass


async def test_a_pooler_of_sessions_passes_all_on(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHATTER_POOLER", "session")
    settings.cache_clear()
    directory = open_directory()
    with pgbouncer(url, directory, "session") as pooled:
        async with Chatter.connect(pooled) as chatter:
            hub = chatter.event_hub()
            begin = await hub.oldest()
            made = await chatter.create_conversation(user="ada")
            async with asyncio.timeout(30):
                async for event in chatter.events(after=begin, conversation=made.id):
                    assert event.event_type == "conversation_created"
                    break
            assert hub.connected
    shutil.rmtree(directory)
