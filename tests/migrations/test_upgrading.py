"""Books of every released schema, with data in them, come to the present one with every figure."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text

from chatter_db import database, migrating, queries
from chatter_db.errors import SchemaError
from chatter_db.queries import query
from tests.migrations.test_migrating import ROOT
from tests.polling import WAITS_FOR_A_LOCK, wait_until
from tests.sql.books import Books
from tests.sql.test_usage import differences, fold_all

SCRIPTS = ScriptDirectory(str(ROOT / "migrations"))
RELEASED = sorted(each.revision for each in SCRIPTS.walk_revisions())

# Valid at every version: what an application's own SQL would have written. Of two more users
# each time.
WRITTEN = """
insert into chatter.users (external_id)
select n.name || coalesce(nullif((select count(*) from chatter.users), 0)::text, '')
from (values ('ada'), ('bob')) as n (name);
insert into chatter.conversations (external_id, user_id)
select 'of ' || u.external_id, u.id from chatter.users as u
where u.id not in (select c.user_id from chatter.conversations as c);
insert into chatter.workflow_executions (conversation_id, user_id, workflow_name)
select c.id, c.user_id, 'support' from chatter.conversations as c
where c.id not in (select e.conversation_id from chatter.workflow_executions as e);
insert into chatter.messages (conversation_id, execution_id, role, kind, provider_used, model_used,
  prompt_tokens, completion_tokens, cost, response_time_ms, status, created_at)
select e.conversation_id, case when n % 2 = 0 then e.id end,
  case when n % 3 = 0 then 'user' else 'assistant' end,
  case when n % 5 = 0 then 'step' else 'turn' end,
  'openai', case when n % 3 <> 0 then 'gpt-4o' end, nullif(n % 7, 0), n % 4,
  case when n % 4 <> 0 then n * 0.001 end, n * 10,
  case when n % 11 = 0 then 'failed' else 'completed' end,
  timestamptz '2026-01-01 23:00+00' + n * interval '7 minutes'
from chatter.workflow_executions as e cross join generate_series(1, 40) as n
where e.conversation_id not in (select m.conversation_id from chatter.messages as m);
insert into chatter.tool_calls (execution_id, tool_name)
select e.id, 'search' from chatter.workflow_executions as e
where e.id not in (select t.execution_id from chatter.tool_calls as t);
"""


def migrate_to(url: str, revision: str) -> None:
    """Brings a database to a revision, as a release that ended there did."""
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    engine = database.sync_engine(url)
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def test_books_that_every_released_version_has_written_into(empty_url: str) -> None:
    with psycopg.connect(empty_url, autocommit=True) as connection:
        books = Books(connection)
        for number, revision in enumerate(RELEASED):
            migrate_to(empty_url, revision)
            connection.execute(WRITTEN)
            # Some go on with deltas that wait, some with rollups alone.
            if revision >= "0004" and number % 2:
                fold_all(books)
        assert migrating.migrate(empty_url).after == migrating.head()
        assert books.value("select count(*) from chatter.messages") == 80 * len(RELEASED)
        assert books.findings() == {}
        assert differences(books) == {}
        fold_all(books)
        assert differences(books) == {}
        # And it goes on from there.
        connection.execute("update chatter.messages set prompt_tokens = 5 where role = 'assistant'")
        assert books.findings() == {}
        assert differences(books) == {}


def test_a_rebuild_mends_what_was_written_without_triggers(db: psycopg.Connection[Any]) -> None:
    books = Books(db)
    db.execute(WRITTEN)
    fold_all(books)
    db.execute("set session_replication_role = replica")
    db.execute("update chatter.messages set prompt_tokens = 5")
    db.execute("set session_replication_role = origin")
    assert set(differences(books)) > {"usage_15min_live", "usage_user_day_live"}
    assert books.value("select analytics.rebuild()") == 80
    assert differences(books) == {}
    fold_all(books)
    assert differences(books) == {}


def test_a_writer_in_the_middle_and_a_migration_wait_for_no_circle(empty_url: str) -> None:
    migrate_to(empty_url, "0024")
    with (
        psycopg.connect(empty_url, autocommit=True) as watching,
        psycopg.connect(empty_url) as writing,
        ThreadPoolExecutor(1) as pool,
    ):
        watching.execute(WRITTEN)
        writing.execute("update chatter.conversations set title = 'begun'")
        migrated = pool.submit(migrating.migrate, empty_url)
        wait_until(lambda: watching.execute("select from pg_locks where not granted").fetchall())
        writing.execute("update chatter.messages set prompt_tokens = 5 where role = 'assistant'")
        writing.execute("update chatter.users set role = 'admin' where external_id = 'ada'")
        writing.commit()
        assert migrated.result(timeout=60).after == migrating.head()
        assert Books(watching).findings() == {}


@pytest.mark.parametrize("read", ["analytics.usage_daily", "reports.spent"])
def test_a_reader_in_the_middle_and_a_migration_wait_for_no_circle(
    empty_url: str, read: str
) -> None:
    migrate_to(empty_url, "0037")
    with (
        psycopg.connect(empty_url, autocommit=True) as watching,
        psycopg.connect(empty_url) as reading,
        ThreadPoolExecutor(1) as pool,
    ):
        watching.execute(WRITTEN)
        watching.execute("refresh materialized view analytics.usage_daily")
        watching.execute("create schema reports")
        watching.execute("create view reports.spent as select cost from analytics.usage_daily")
        reading.execute(f"select from {read}")
        migrated = pool.submit(migrating.migrate, empty_url)
        wait_until(lambda: watching.execute(WAITS_FOR_A_LOCK).fetchall(), "it waits for the reader")
        assert reading.execute("select count(*) from chatter.messages").fetchone() == (80,)
        reading.commit()
        assert migrated.result(timeout=60).after == migrating.head()


def test_a_migration_says_that_it_comes_to_no_table(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate_to(empty_url, "0024")
    hurried = query("lock_tables").text.replace("1 minute", "1 second")
    monkeypatch.setattr(
        queries, "query", lambda name: text(hurried) if name == "lock_tables" else query(name)
    )
    with psycopg.connect(empty_url) as reading:
        reading.execute("select from chatter.messages")
        with pytest.raises(SchemaError, match="other transactions have used its tables"):
            migrating.migrate(empty_url)
        assert reading.execute("select version_num from chatter.alembic_version").fetchall() == [
            ("0024",)
        ]
