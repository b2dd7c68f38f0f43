"""The recorder's statements find their rows by key, whatever a planner believes of a batch."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from chatter_db.queries import psycopg_query, resource

NAMES = sorted(
    path.stem
    for path in (resource("sql") / "queries").glob("record_*.sql")
    if "jsonb_to_recordset" in path.read_text("utf-8")
)
# A thousand rows: by the page they would be read at once, by the batch one at a time.
BOOKS = """
insert into chatter.users (external_id) select 'user ' || n from generate_series(1, 1000) as n;
insert into chatter.conversations (external_id, user_id)
  select 'conversation of ' || u.external_id, u.id from chatter.users as u;
insert into chatter.workflow_executions (conversation_id, workflow_name)
  select c.id, 'support' from chatter.conversations as c;
insert into chatter.messages (conversation_id, execution_id, role)
  select e.conversation_id, e.id, 'assistant' from chatter.workflow_executions as e;
insert into chatter.tool_calls (execution_id, message_id, tool_call_id, tool_name)
  select m.execution_id, m.id, 'call', 'weather' from chatter.messages as m;
insert into chatter.prices (provider, model, valid_from, prompt_price, completion_price)
  select 'provider', 'model ' || n, timestamptz 'epoch', 1, 1 from generate_series(1, 1000) as n;
analyze;
"""


def tables_read_whole(plan: Any) -> Iterator[str]:
    if plan["Node Type"] == "Seq Scan":
        yield plan["Relation Name"]
    for part in plan.get("Plans", []):
        yield from tables_read_whole(part)


def test_no_table_is_read_whole(db: psycopg.Connection[Any], subtests: pytest.Subtests) -> None:
    assert len(NAMES) > 5
    db.execute(BOOKS)
    for name in NAMES:
        with subtests.test(name):
            explained = db.execute(
                b"explain (format json) " + psycopg_query(name), {"rows": "[]"}
            ).fetchone()
            assert explained is not None
            assert list(tables_read_whole(explained[0][0]["Plan"])) == []
