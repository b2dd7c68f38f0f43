"""Books of every earlier version, with something in them, come through an upgrade."""

from collections.abc import Callable
from decimal import Decimal

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from chatter_db import database, migrating
from chatter_db.queries import checks, resource

# What every version has known: by statements of any program, not by this one's code.
HISTORY = """
  insert into chatter.users (external_id) values ('ada'), ('bob');
  insert into chatter.conversations (user_id, external_id)
  select u.id, 'c-' || n from chatter.users as u cross join generate_series(1, 5) as n;
  insert into chatter.workflow_executions (conversation_id, user_id, workflow_name, status)
  select c.id, c.user_id, 'chat', 'completed' from chatter.conversations as c;
  insert into chatter.messages (
    conversation_id, execution_id, role, provider_used, model_used, prompt_tokens,
    completion_tokens, cost, response_time_ms, created_at
  )
  select
    e.conversation_id, e.id, k.role, k.provider, k.model, k.tokens, k.tokens, k.cost, k.ms,
    '2026-03-28 23:50:00+00'::timestamptz + n * interval '7 minutes'
  from chatter.workflow_executions as e
    cross join generate_series(1, 4) as n
    cross join (
      values
        ('user', null, null, null, null, null),
        ('assistant', 'openai', 'small', 10, 0.000123, 250.0),
        ('assistant', 'openai', 'large', null, null, 1234.5)
    ) as k (role, provider, model, tokens, cost, ms);
  insert into chatter.tool_calls (execution_id, tool_name, status)
  select e.id, 'clock', 'completed' from chatter.workflow_executions as e;
  delete from chatter.messages as m
  where m.created_at > '2026-03-29 00:15:00+00' and m.role = 'user';
"""
CALLS = 2 * 5 * 4 * 2


def config() -> Config:
    made = Config()
    made.set_main_option("script_location", str(resource("migrations")))
    return made


REVISIONS = sorted(
    script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()
)


@pytest.mark.parametrize("revision", REVISIONS)
def test_books_of_an_earlier_version_are_right_after_the_upgrade(
    new_database: Callable[[], str], revision: str
) -> None:
    url = new_database()
    engine = database.sync_engine(url)
    with engine.connect() as connection:
        to_there = config()
        to_there.attributes["connection"] = connection
        command.upgrade(to_there, revision)
    with psycopg.connect(url, autocommit=True) as connection_:
        connection_.execute(HISTORY.encode())
        before = connection_.execute(
            "select id, message_count, total_tokens, total_cost from chatter.conversations"
        ).fetchall()
        assert {row[3] for row in before} == {4 * Decimal("0.000123")}

    assert migrating.migrate(url).after == migrating.head()
    with engine.connect() as connection:
        assert {c.title: connection.execute(c.statement).all() for c in checks()} == {
            c.title: [] for c in checks()
        }
    engine.dispose()
    with psycopg.connect(url) as connection_:
        after = connection_.execute(
            "select id, message_count, total_tokens, total_cost from chatter.conversations"
        ).fetchall()
        assert sorted(after) == sorted(before)
        calls = connection_.execute("select sum(calls) from analytics.usage_daily_live").fetchone()
        assert calls == (CALLS,)
        connection_.execute("select analytics.refresh()")
        assert connection_.execute("select sum(calls) from analytics.usage_daily").fetchone() == (
            CALLS,
        )
