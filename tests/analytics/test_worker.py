"""The worker: one leads, another takes over, nothing is left undone."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from chatter_db.analytics import Worker, worker
from chatter_db.events import Hub
from chatter_db.settings import settings
from tests.polling import until, wait_until_blocked


@pytest.fixture
async def start(url: str) -> AsyncIterator[Callable[..., Worker]]:
    running: list[tuple[Worker, asyncio.Task[None]]] = []
    hub = Hub(url)

    def begin(tell: Callable[[str], None] = worker.log.info) -> Worker:
        made = Worker(url, hub, tell=tell)
        running.append((made, asyncio.create_task(made.run())))
        return made

    yield begin
    for made, task in running:
        made.stop()
        await task
    assert not hub._watchers
    await hub.close()


def write(db: psycopg.Connection[Any]) -> None:
    db.execute(
        "with c as (insert into chatter.conversations default values returning id) "
        "insert into chatter.messages (conversation_id, role, model_used, cost) "
        "select id, 'assistant', 'm', 1 from c"
    )


def value(db: psycopg.Connection[Any], query: str) -> Any:
    row = db.execute(query).fetchone()
    assert row is not None
    return row[0]


async def test_what_is_written_is_folded_and_refreshed(
    db: psycopg.Connection[Any], start: Callable[[], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "EVERY_SECONDS", 600.0)  # the bell wakes it, and `stop`
    monkeypatch.setattr(worker, "DEBOUNCE_SECONDS", 0.01)
    db.execute("update analytics.views set refresh_every = '1 millisecond'")
    start()
    await until(lambda: value(db, "select worked_at is not null from analytics.state"))
    for count in (1, 2):
        write(db)
        await until(lambda: value(db, "select count(*) from analytics.deltas") == 0)
        await until(lambda: value(db, "select sum(calls) from analytics.usage_daily") == count)  # noqa: B023
    assert value(db, "select count(*) from chatter.events where event_type = 'analytics_refreshed'")
    assert ":" in value(db, "select worker from analytics.state")


async def test_a_backlog_is_folded_whole(
    db: psycopg.Connection[Any], start: Callable[[], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "EVERY_SECONDS", 600.0)
    monkeypatch.setattr(worker, "FOLD", 1)
    for _ in range(5):
        write(db)
    start()
    await until(lambda: value(db, "select worked_at is not null from analytics.state"))
    assert value(db, "select count(*) from analytics.deltas") == 0


async def test_what_is_written_while_it_works_is_folded_next(
    db: psycopg.Connection[Any],
    url: str,
    start: Callable[[], Worker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "EVERY_SECONDS", 600.0)
    monkeypatch.setattr(worker, "DEBOUNCE_SECONDS", 0.01)
    made = start()
    await until(lambda: value(db, "select worked_at is not null from analytics.state"))
    with psycopg.connect(url) as other:
        other.execute("lock table analytics.usage_15min")
        write(db)
        await asyncio.to_thread(wait_until_blocked, other)
        write(db)
        await until(made._rung.is_set)
    await until(lambda: value(db, "select count(*) from analytics.deltas") == 0)
    # And then it waits.
    await until(lambda: not made._rung.is_set())


async def test_a_burst_is_folded_a_little_later(
    db: psycopg.Connection[Any], start: Callable[[], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "DEBOUNCE_SECONDS", 600.0)
    made = start()
    await until(lambda: value(db, "select worked_at is not null from analytics.state"))
    write(db)
    await until(made._rung.is_set)
    assert value(db, "select count(*) from analytics.deltas") > 0


async def test_it_works_on_quiet_books_too(
    db: psycopg.Connection[Any], start: Callable[[], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs whose process died, and what is past its time, ring no bell."""
    monkeypatch.setattr(worker, "EVERY_SECONDS", 0.05)
    start()
    for _ in range(5):
        await until(lambda: value(db, "select worked_at is not null from analytics.state"))
        db.execute("update analytics.state set worked_at = null")


async def test_one_leads_and_another_takes_over(
    db: psycopg.Connection[Any], start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LEAD_SECONDS", 0.05)
    told: list[str] = []
    first = start()
    await until(lambda: first.leads)
    second = start(told.append)
    await until(
        lambda: value(
            db,
            "select count(*) = 2 from pg_stat_activity "
            "where application_name = 'chatter worker' and datname = current_database()",
        )
    )
    await until(lambda: told == [worker.WAITS])
    assert not second.leads
    first.stop()
    await until(lambda: second.leads)
    assert not first.leads
    await until(lambda: told == [worker.WAITS, worker.WORKS])


async def test_a_broken_connection_is_made_anew(
    db: psycopg.Connection[Any], start: Callable[[], Worker]
) -> None:
    made = start()
    await until(lambda: made.leads)
    db.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where application_name = 'chatter worker' and datname = current_database()"
    )
    write(db)
    await until(lambda: value(db, "select count(*) from analytics.deltas") == 0)


@pytest.mark.long
async def test_a_lock_timeout_is_survived(
    db: psycopg.Connection[Any],
    url: str,
    start: Callable[[], Worker],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(worker, "MAX_BACKOFF_SECONDS", 0.3)
    db.execute(f"alter database {db.info.dbname} set lock_timeout = '20ms'")
    start()
    for calls in (1, 2):
        # Again and again, a little later each time; from the start after a round that is through.
        caplog.clear()
        with psycopg.connect(url) as other:
            other.execute("lock table analytics.usage_15min")
            write(db)
            await until(lambda: len(caplog.messages) >= 4)
        assert [float(said.split()[5]) for said in caplog.messages[:4]] == [0.1, 0.2, 0.3, 0.3]
        assert "canceling statement due to lock timeout" in caplog.text
        await until(lambda: value(db, "select count(*) from analytics.deltas") == 0)
        assert value(db, "select sum(calls) from analytics.usage_15min") == calls


async def test_a_deadlock_is_survived(
    db: psycopg.Connection[Any],
    url: str,
    start: Callable[[], Worker],
    caplog: pytest.LogCaptureFixture,
) -> None:
    # The one that waits the longest is not the one that Postgres ends.
    db.execute(f"alter database {db.info.dbname} set deadlock_timeout = '1s'")
    write(db)
    with psycopg.connect(url) as other:
        other.execute("set local deadlock_timeout = '1min'")
        other.execute("lock table analytics.usage_15min")
        start()
        waiting = (
            "select count(*) from pg_locks where not granted "
            "and relation = 'analytics.usage_15min'::regclass"
        )
        await until(lambda: value(db, waiting) == 1)
        await asyncio.to_thread(other.execute, "lock table analytics.deltas")
    await until(lambda: "The worker begins anew in 0.1 s: deadlock detected" in caplog.text)
    await until(lambda: value(db, "select count(*) from analytics.deltas") == 0)
    assert value(db, "select sum(calls) from analytics.usage_15min") == 1


async def test_one_beside_a_server_tells_why_it_fails_and_works_when_that_is_mended(
    db: psycopg.Connection[Any],
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(worker, "MENDED_SECONDS", 0.05)
    pause = Worker._pause
    paused = []

    async def noted(self: Worker, seconds: float) -> None:
        paused.append(seconds)
        await pause(self, seconds)

    monkeypatch.setattr(Worker, "_pause", noted)
    write(db)
    db.execute("alter function analytics.fold(integer) rename to elsewhere")
    hub = Hub(url)
    made = Worker(url, hub)
    working = asyncio.create_task(made.persist())
    await until(lambda: made.failure is not None)
    assert made.failure == "The background work has failed: UndefinedFunctionError."
    assert "UndefinedFunctionError: function analytics.fold" in caplog.text
    await until(lambda: paused[:1] == [0.05])
    db.execute("alter function analytics.elsewhere(integer) rename to fold")
    await until(lambda: value(db, "select count(*) from analytics.deltas") == 0)
    await until(lambda: made.failure is None)
    made.stop()
    await working
    await hub.close()


async def test_one_that_may_not_work_says_it_once_and_has_nothing_to_tell_where_another_does(
    db: psycopg.Connection[Any],
    url: str,
    start: Callable[[], Worker],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(worker, "MENDED_SECONDS", 0.01)
    monkeypatch.setattr(worker, "LEAD_SECONDS", 0.01)
    login = f"app_{uuid4().hex[:8]}"
    db.execute(f"create role {login} login password 'app' in role chatter_app".encode())
    hub = Hub(url)
    made = Worker(make_conninfo(url, user=login, password="app"), hub)
    working = asyncio.create_task(made.persist())
    await until(lambda: made.failure is not None)
    assert f'grant chatter_worker to "{login}"' in str(made.failure)
    able = start()
    await until(lambda: able.leads and made.failure is None)
    assert caplog.text.count("needs the rights of chatter_worker") == 1
    made.stop()
    await working
    await hub.close()
    db.execute(f"drop role {login}".encode())


async def test_what_is_past_its_time_is_removed(
    db: psycopg.Connection[Any], start: Callable[[], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events of the books after a month, those of security after their own time alone."""
    monkeypatch.setattr(worker, "EVERY_SECONDS", 0.05)
    monkeypatch.setattr(worker, "PRUNE_SECONDS", 0.1)
    for name, days in (("older", settings().keep_security_days + 1), ("newer", 31)):
        db.execute(
            "select set_config('chatter.frozen_clock', (now() - make_interval(days => %s))::text,"
            " false)",
            (days,),
        )
        db.execute(
            "insert into chatter.security_events (event_type, correlation_id)"
            " values ('login_failure', %s)",
            (name,),
        )
    db.execute("reset chatter.frozen_clock")
    write(db)
    db.execute("set chatter.maintenance = on")
    db.execute("update chatter.events set created_at = now() - interval '31 days'")
    start()
    await until(lambda: value(db, "select count(*) from chatter.security_events") == 1)
    assert value(db, "select correlation_id from chatter.security_events") == "newer"
    left = "select count(*) from chatter.events where category <> 'analytics'"
    await until(lambda: value(db, left) == 0)
    # And so is what gets past it later.
    db.execute("set chatter.maintenance = off")
    write(db)
    db.execute("set chatter.maintenance = on")
    db.execute("update chatter.events set created_at = now() - interval '31 days'")
    await until(lambda: value(db, left) == 0)


async def test_what_is_old_is_looked_for_at_the_start_and_now_and_then(
    db: psycopg.Connection[Any], start: Callable[[], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "EVERY_SECONDS", 0.05)
    monkeypatch.setattr(worker, "PRUNE_SECONDS", 1e9)
    left = "select count(*) from chatter.events where category <> 'analytics'"

    def write_long_ago() -> None:
        write(db)
        with db.transaction():
            db.execute("set local chatter.maintenance = on")
            db.execute("update chatter.events set created_at = now() - interval '31 days'")

    write_long_ago()
    start()
    await until(lambda: value(db, left) == 0)
    write_long_ago()
    for _ in range(3):
        db.execute("update analytics.state set worked_at = null")
        await until(lambda: value(db, "select worked_at is not null from analytics.state"))
    assert value(db, left) > 0
