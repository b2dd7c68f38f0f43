"""Operators at work: a schema that is away for a while, a spool that is removed under a process."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableConfig
from sqlalchemy import func, make_url, select

from chatter_db import Chatter
from chatter_db.errors import DatabaseUnavailable
from chatter_db.models import Message
from chatter_db.recorder import booking
from chatter_db.recorder.connection import connect
from chatter_db.recorder.records import RunEnded
from chatter_db.recorder.spool import open_spool
from chatter_db.recorder.writer import Writer
from chatter_db.settings import settings
from tests.chaos.proxy import Proxy
from tests.conftest import ONE_SERVER
from tests.polling import until, wait_until
from tests.recorder.test_writer import booked_calls, message, start


@contextmanager
def schema_away(db: psycopg.Connection[Any]) -> Iterator[None]:
    """As between `createdb` and the end of `pg_restore`."""
    db.execute("alter schema chatter rename to elsewhere")
    yield
    db.execute("alter schema elsewhere rename to chatter")


def test_what_comes_while_the_schema_is_away_waits_for_it(
    url: str, db: psycopg.Connection[Any], books_hold: Callable[[], None]
) -> None:
    writer = Writer(url, open_spool("test"))
    before, after = start(), start(conversation_external_id="d")
    writer.submit([before]).result(timeout=20)
    with schema_away(db):
        for records in ([message(before)], [after], [message(after)]):
            writer.submit(records).result(timeout=20)
    writer.close()
    Writer(url, open_spool("test")).close()
    assert (writer.lost, writer.reduced) == (0, 0)
    assert booked_calls(db) == [(2, 20)]
    books_hold()


@ONE_SERVER
async def test_an_app_that_starts_while_postgres_is_away(
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    books_hold: Callable[[], None],
) -> None:
    """As when both are restarted: it answers, and its calls are booked when there are books."""
    async with Proxy() as proxy:
        away = url.replace(f":{make_url(url).port}/", f":{proxy.port}/")
        monkeypatch.setenv("CHATTER_REQUIRE_DATABASE", "false")
        settings.cache_clear()
        with pytest.raises(DatabaseUnavailable):
            async with Chatter.connect(away, records=False):
                pass
        async with Chatter.connect(away) as chatter:
            assert "what is recorded waits in the spool" in caplog.text
            config = RunnableConfig(callbacks=[chatter.recorder(conversation="c", user="ada")])
            answer = await FakeListChatModel(responses=["Hello"]).ainvoke("Hi", config)
            assert answer.text == "Hello"
            assert chatter.spooled_bytes > 0
            proxy.target = make_url(url).port
            await until(lambda: chatter.spooled_bytes == 0)
            await chatter.flush()
            async with chatter.session() as session:
                assert await session.scalar(select(func.count()).select_from(Message)) == 2
    books_hold()


@ONE_SERVER
def test_a_heartbeat_that_fails_has_its_time_all_the_same(
    url: str,
    db: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It was told again at once, for ever, each time with a traceback."""
    monkeypatch.setattr(booking, "HEARTBEAT_SECONDS", 0.2)
    writer = Writer(url, open_spool("test"))
    writer.submit([start()]).result(timeout=20)
    # What no writer waits for.
    db.execute("alter table chatter.recorders add check (host is null) not valid")
    with caplog.at_level(logging.WARNING):
        wait_until(lambda: bool(caplog.records))
        time.sleep(1)
    assert len(caplog.records) < 10
    writer.close()


def test_a_connection_made_while_the_schema_is_away_books_nothing(
    url: str, db: psycopg.Connection[Any]
) -> None:
    """By the time it is used the tables may be back, and their triggers not yet."""
    with schema_away(db), pytest.raises(DatabaseUnavailable, match="is not there"):
        connect(url)
    connect(url).close()


@pytest.mark.long
def test_what_comes_before_its_triggers_are_restored_waits_for_them(
    url: str, db: psycopg.Connection[Any], books_hold: Callable[[], None]
) -> None:
    """`pg_restore` makes them last: what was booked before was in no total."""
    run = start(user_external_id="ada")
    writer = Writer(url, open_spool("test"))
    writer.submit([run]).result(timeout=20)
    triggers = db.execute(
        "select quote_ident(tgname), pg_get_triggerdef(oid)"
        " from pg_trigger where not tgisinternal and tgrelid = 'chatter.messages'::regclass"
    ).fetchall()
    with schema_away(db):
        writer.submit([message(run)]).result(timeout=20)
        for name, _ in triggers:
            db.execute(f"drop trigger {name} on elsewhere.messages")
    writer.submit([message(run)]).result(timeout=20)
    time.sleep(1)
    assert booked_calls(db) == [(0, None)]
    for _, definition in triggers:
        db.execute(definition)
    wait_until(lambda: booked_calls(db) == [(2, 20)])
    writer.close()
    books_hold()


@ONE_SERVER
def test_what_comes_while_a_trigger_of_ones_own_lacks_its_schema_waits_for_it(
    url: str, db: psycopg.Connection[Any]
) -> None:
    """Postgres has another code for that than for a table that is away."""
    db.execute(
        "create schema audit; create function audit.see() returns void return null;"
        "create function public.seen() returns trigger language plpgsql as "
        "$$ begin perform audit.see(); return new; end $$;"
        "create trigger seen before insert on chatter.messages "
        "for each row execute function public.seen(); alter schema audit rename to away"
    )
    run = start()
    with closing(Writer(url, open_spool("test"))) as writer:
        for records in ([run], [message(run)]):
            writer.submit(records).result(timeout=20)
        assert booked_calls(db) == [(0, None)]
        db.execute("alter schema away rename to audit")
        wait_until(lambda: booked_calls(db) == [(1, 10)])
    assert (writer.lost, writer.reduced) == (0, 0)


@pytest.mark.parametrize("given", ["by name", "by id"])
def test_a_run_goes_on_in_books_that_have_lost_its_start(
    url: str, db: psycopg.Connection[Any], books_hold: Callable[[], None], given: str
) -> None:
    """An older state is restored while it runs: what it cost from then on has its user."""
    run = start(user_external_id="ada")
    if given == "by id":
        named = {"conversation_id": uuid4(), "conversation_external_id": None}
        run = start(user_external_id="ada", new_conversation=True, **named)
    answer = message(run)
    end = RunEnded(
        execution_id=run.execution_id,
        status="completed",
        finished_at=datetime.now(UTC),
        answer_id=answer.id,
    )
    writer = Writer(url, open_spool("test"))
    writer.submit([run]).result(timeout=20)
    writer.submit([message(run)]).result(timeout=20)
    restore_empty(db)
    # One that waits in the spool, and one that comes by itself.
    with schema_away(db):
        writer.submit([message(run)]).result(timeout=20)
    writer.flush().result(timeout=20)
    wait_until(lambda: booked_calls(db) == [(1, 10)])
    restore_empty(db)
    for records in ([answer], [end]):
        writer.submit(records).result(timeout=20)
    writer.close()
    assert (writer.lost, writer.reduced) == (0, 0)
    kept = db.execute(
        "select u.external_id, c.external_id, e.status, c.message_count, c.prompt_tokens"
        " from chatter.workflow_executions as e"
        " join chatter.conversations as c on c.id = e.conversation_id"
        " join chatter.users as u on u.id = e.user_id and u.id = c.user_id"
    )
    assert kept.fetchall() == [("ada", run.conversation_external_id, "completed", 1, 10)]
    books_hold()


def restore_empty(db: psycopg.Connection[Any]) -> None:
    """The state before the first run, as a restore leaves it: no trigger has run."""
    with db.transaction():
        db.execute("set local session_replication_role = replica")
        tables = db.execute(
            "select oid::regclass::text from pg_class where relkind = 'r'"
            " and relnamespace in ('chatter'::regnamespace, 'analytics'::regnamespace)"
            " and relname not in ('alembic_version', 'event_stream', 'security_rules',"
            " 'state', 'views')"
        )
        for (table,) in tables.fetchall():
            db.execute(f"delete from {table}")
