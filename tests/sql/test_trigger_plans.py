"""Triggers take time by the rows of a statement, not by their square."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.abc import Query

BOOKS = """
insert into chatter.users (external_id) values ('ada');
insert into chatter.conversations (external_id, user_id)
  select 'of ' || n, u.id from chatter.users as u cross join generate_series(1, 20) as n;
insert into chatter.workflow_executions (conversation_id, workflow_name)
  select c.id, 'support' from chatter.conversations as c;
insert into chatter.messages (conversation_id, execution_id, role, prompt_tokens, cost)
  select e.conversation_id, e.id, 'assistant', 1, 1 from chatter.workflow_executions as e;
insert into chatter.tool_calls (execution_id, message_id, tool_call_id, tool_name)
  select m.execution_id, m.id, 'call', 'weather' from chatter.messages as m;
"""
STATEMENTS: list[Query] = [
    "update chatter.messages set prompt_tokens = 2, cost = 2",
    "update chatter.tool_calls set status = 'completed'",
    "delete from chatter.tool_calls",
    "delete from chatter.messages",
]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_no_row_is_compared_with_every_other(db: psycopg.Connection[Any], statement: Query) -> None:
    """A function keeps the plan of its first call, and that one may have had a single row."""
    db.execute(BOOKS)
    plans: list[Any] = []
    db.add_notice_handler(lambda notice: plans.extend(plan_of(str(notice.message_primary))))
    db.execute(
        "load 'auto_explain';"
        "set auto_explain.log_min_duration = 0; set auto_explain.log_nested_statements = on;"
        "set auto_explain.log_format = json; set client_min_messages = log"
    )
    db.execute(statement)
    assert any(transition_tables(plan) for plan in plans)
    assert [join for plan in plans for join in joins_of_versions(plan)] == []


def plan_of(message: str) -> Iterator[Any]:
    if "plan:" in message:
        yield json.loads(message.split("plan:", 1)[1])["Plan"]


def joins_of_versions(plan: Any) -> Iterator[Any]:
    """Joins that have a transition table on both sides."""
    parts = plan.get("Plans", [])
    joined = [part for part in parts if part.get("Parent Relationship") in ("Outer", "Inner")]
    if len(joined) == 2 and all(transition_tables(part) for part in joined):
        yield plan
    for part in parts:
        yield from joins_of_versions(part)


def transition_tables(plan: Any) -> bool:
    return plan["Node Type"] == "Named Tuplestore Scan" or any(
        transition_tables(part) for part in plan.get("Plans", [])
    )
