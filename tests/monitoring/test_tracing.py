"""One correlation id from the request to the last tool call, told in order."""

import json
import re
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg

from chatter_db import Chatter, execute_chat_workflow
from chatter_db.tracing import trace
from tests.conftest import ONE_SERVER
from tests.forked import Run
from tests.sql.books import Books

REQUEST = "request-7"


async def run_of(chatter: Chatter, correlation_id: str) -> UUID:
    answer = await execute_chat_workflow(
        "What is 6 * 7?", correlation_id=correlation_id, chatter=chatter
    )
    return answer.execution_id


async def test_the_story_is_told_in_order(chatter: Chatter, db: psycopg.Connection[Any]) -> None:
    db.execute(
        "insert into chatter.security_events (event_type, correlation_id) "
        "values ('api_key_used', %s)",
        [REQUEST],
    )
    execution = await run_of(chatter, REQUEST)
    await run_of(chatter, "another request")
    told = await trace(chatter, REQUEST)
    assert [(step.step, step.status) for step in told.steps] == [
        ("security event", "low"),
        ("workflow", "completed"),
        ("user message", "completed"),
        ("model call", "completed"),
        ("tool call", "completed"),
        ("tool message", "completed"),
        ("model call", "completed"),
    ]
    workflow = told.steps[1]
    assert (workflow.name, workflow.id) == ("chat", execution)
    assert {step.execution_id for step in told.steps} == {None, execution}
    calls = [step for step in told.steps if step.step == "model call"]
    assert told.cost == workflow.cost == sum((c.cost or Decimal(0) for c in calls), Decimal(0)) > 0
    assert told.unpriced_calls == 0
    assert workflow.duration_ms is not None
    assert told.lasted.total_seconds() * 1000 >= workflow.duration_ms


async def test_rows_outside_a_run_belong_to_the_story(
    chatter: Chatter, db: psycopg.Connection[Any]
) -> None:
    db.execute("insert into chatter.conversations (external_id) values ('c')")
    db.execute(
        "insert into chatter.messages (conversation_id, role, correlation_id, response_time_ms) "
        "select id, 'assistant', %s, 1500 from chatter.conversations",
        [REQUEST],
    )
    told = await trace(chatter, REQUEST)
    assert [step.step for step in told.steps] == ["model call"]
    assert (told.unpriced_calls, told.cost) == (1, None)
    assert told.lasted.total_seconds() == 1.5


async def test_what_a_run_cost_is_unknown_if_none_of_its_calls_tells(
    chatter: Chatter, db: psycopg.Connection[Any]
) -> None:
    db.execute(
        "with c as (insert into chatter.conversations default values returning id), "
        "e as (insert into chatter.workflow_executions (conversation_id, workflow_name, "
        "  correlation_id) select id, 'chat', %s from c returning id, conversation_id) "
        "insert into chatter.messages (conversation_id, execution_id, role, status) "
        "select conversation_id, id, 'assistant', 'failed' from e",
        [REQUEST],
    )
    workflow, call = (await trace(chatter, REQUEST)).steps
    assert (workflow.prompt_tokens, workflow.completion_tokens, workflow.cost) == (None,) * 3
    assert (call.prompt_tokens, call.cost) == (None, None)


async def test_what_is_known_of_a_run_is_told(
    chatter: Chatter, db: psycopg.Connection[Any]
) -> None:
    """Of a call without a price, with half of its usage, and a tool that was paid for."""
    books = Books(db)
    talk = books.conversation()
    run = books.execution(talk, correlation_id=REQUEST)
    books.message(talk, execution_id=run, prompt_tokens=10)
    books.message(talk, execution_id=run, role="tool", cost="0.25")
    told = await trace(chatter, REQUEST)
    workflow, *_ = told.steps
    assert (workflow.prompt_tokens, workflow.completion_tokens) == (10, None)
    assert told.cost == workflow.cost == Decimal("0.25")
    assert told.unpriced_calls == 1


async def test_a_tool_that_never_ran_is_placed_where_its_run_began(
    chatter: Chatter, db: psycopg.Connection[Any]
) -> None:
    """Unless it is known which answer asked for it."""
    books = Books(db)
    run = books.execution(books.conversation(), correlation_id=REQUEST)
    books.tool_call(run)
    told = await trace(chatter, REQUEST)
    assert [step.step for step in told.steps] == ["workflow", "tool call"]
    assert len({step.began_at for step in told.steps}) == 1
    assert told.lasted.total_seconds() == 0


async def test_an_unknown_id_has_no_story(chatter: Chatter) -> None:
    assert (await trace(chatter, "nobody's")).steps == []


@ONE_SERVER
def test_the_command_tells_what_is_unknown(
    url: str, db: psycopg.Connection[Any], chatter_command: Run
) -> None:
    books = Books(db)
    request = f"{REQUEST}\x1b[2J"
    books.message(books.conversation(), correlation_id=request, completion_tokens=1234)
    shown = chatter_command("trace", request, url=url).stdout
    assert rf"correlation id {REQUEST}\x1b[2J" in shown
    assert re.search(r"\? \+ 1,234 +unknown\n", shown)
    assert "0 ms, unknown cost, and 1 call of unknown price" in shown


@ONE_SERVER
async def test_the_command(chatter: Chatter, url: str, chatter_command: Run) -> None:
    await run_of(chatter, REQUEST)
    shown = chatter_command("trace", REQUEST, url=url)
    assert shown.returncode == 0
    assert "calculate" in shown.stdout and "model call" in shown.stdout and "$0." in shown.stdout
    told = json.loads(chatter_command("trace", REQUEST, "--json", url=url).stdout)
    assert [step["step"] for step in told["steps"]].count("model call") == 2
    for unknown in ("nobody's", "[/]"):
        missing = chatter_command("trace", unknown, url=url)
        assert missing.returncode == 1
        assert f"Nothing in the books bears the correlation id {unknown!r}" in missing.stderr
        for_programs = chatter_command("trace", unknown, "--json", url=url)
        assert for_programs.returncode == 1
        assert json.loads(for_programs.stdout) == {"correlation_id": unknown, "steps": []}


def test_long_histories_are_found_by_index(db: psycopg.Connection[Any]) -> None:
    """Neither index may be lost to a wish for a faster insert."""
    db.execute("set enable_seqscan = off")
    for table, condition in (
        ("workflow_executions", "true"),
        ("messages", "execution_id is null"),
    ):
        query = f"select from chatter.{table} where correlation_id = 'x' and {condition}"
        plan = db.execute(f"explain {query}".encode()).fetchall()
        assert f"{table}_correlation_id_idx" in str(plan)
