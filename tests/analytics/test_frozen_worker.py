"""A leader that is frozen, not dead: another takes over, and it comes back as one of the others."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from chatter_db.analytics import Worker, worker
from chatter_db.events import Hub
from tests.analytics.test_worker import value, write
from tests.conftest import ONE_SERVER
from tests.polling import until

COMMAND = """
from chatter_db.analytics import worker
from chatter_db.cli import main

worker.FROZEN_SECONDS, worker.EVERY_SECONDS, worker.LEAD_SECONDS = 1.0, 0.1, 0.1
main()
"""

LEADERS = """
select count(distinct l.pid)
from pg_locks as l
  join pg_stat_activity as a using (pid)
where l.locktype = 'advisory' and l.granted and a.datname = current_database()
  and a.application_name = 'chatter worker'
"""


@contextmanager
def worker_process(url: str) -> Iterator["subprocess.Popen[str]"]:
    environment = {**os.environ, "CHATTER_DATABASE_URL": url}
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, "worker"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()


async def test_another_takes_over_from_a_leader_that_is_frozen(
    url: str, db: psycopg.Connection[Any]
) -> None:
    def works(process: "subprocess.Popen[str]") -> bool:
        name = value(db, "select worker from analytics.state")
        return name is not None and name.endswith(f":{process.pid}")

    with worker_process(url) as first:
        await until(lambda: works(first))
        with worker_process(url) as second:
            connected = (
                "select count(*) = 2 from pg_stat_activity"
                " where application_name = 'chatter worker' and datname = current_database()"
            )
            await until(lambda: value(db, connected))
            first.send_signal(signal.SIGSTOP)
            await until(lambda: works(second))
            first.send_signal(signal.SIGCONT)
            # It is there again, as one that waits for the lead.
            await until(lambda: value(db, connected))
            for calls in range(1, 6):
                write(db)
                await until(lambda: value(db, "select count(*) from analytics.deltas") == 0)
                assert works(second)
                assert value(db, "select sum(calls) from analytics.usage_15min") == calls
                assert value(db, LEADERS) == 1
        assert second.returncode == 0
        await until(lambda: works(first))
        first.terminate()
        assert "begins anew" in first.communicate(timeout=20)[1]
        assert first.returncode == 0


@ONE_SERVER
async def test_a_round_may_take_longer_than_a_worker_may_be_silent(
    url: str,
    db: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(worker, "FROZEN_SECONDS", 1.0)
    monkeypatch.setattr(worker, "EVERY_SECONDS", 0.05)
    hub = Hub(url)
    made = Worker(url, hub)
    with caplog.at_level(logging.WARNING):
        working = asyncio.create_task(made.run())
        await until(lambda: made.leads)
        with psycopg.connect(url) as other:
            await asyncio.to_thread(other.execute, "lock table analytics.usage_15min")
            await asyncio.to_thread(write, db)
            await asyncio.sleep(3)
            assert value(db, "select count(*) from analytics.deltas") > 0
        await until(lambda: value(db, "select count(*) from analytics.deltas") == 0)
    assert made.leads and "begins anew" not in caplog.text
    made.stop()
    await working
    await hub.close()


@pytest.mark.parametrize(("there", "kept"), [("0", "30s"), ("1h", "30s"), ("7s", "7s")])
@ONE_SERVER
async def test_a_shorter_limit_of_the_database_stays(
    url: str, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, there: str, kept: str
) -> None:
    db.execute(f"alter database {db.info.dbname} set idle_session_timeout = '{there}'".encode())
    found = []

    async def work(_: Worker, connection: Any) -> None:
        found.append(await connection.fetchval("show idle_session_timeout"))
        made.stop()

    monkeypatch.setattr(Worker, "_work", work)
    hub = Hub(url)
    made = Worker(url, hub)
    await made.run()
    await hub.close()
    assert found == [kept]
