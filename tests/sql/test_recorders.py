"""Runs of processes that died end as abandoned; runs of living ones are left alone."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from .books import Books

DEAD_FOR = timedelta(minutes=5)


def recorder(books: Books, *, silent: timedelta = timedelta(), stopped: bool = False) -> UUID:
    """A process whose last heartbeat was so long ago."""
    row = books.connection.execute(
        "insert into chatter.recorders (id, host, process_id, heartbeat_at, stopped_at) "
        "values (%s, 'test', 1, chatter.clock() - %s, case when %s then chatter.clock() end) "
        "returning id",
        (uuid4(), silent, stopped),
    ).fetchone()
    assert row is not None
    identity: UUID = row[0]
    return identity


def sweep(books: Books, silent_for: str = "1 minute") -> int:
    # The tests' server was started a moment ago, and silence counts from then.
    with books.connection.transaction():
        books.connection.execute(
            "select set_config('chatter.frozen_clock', (now() + '3 minutes')::text, true)"
        )
        row = books.connection.execute(
            "select chatter.sweep_executions(%s)", (silent_for,)
        ).fetchone()
    assert row is not None
    swept: int = row[0]
    return swept


def state(books: Books, run: UUID) -> tuple[Any, ...] | None:
    return books.connection.execute(
        "select status, error_type from chatter.workflow_executions where id = %s", (run,)
    ).fetchone()


def test_only_runs_of_the_dead_are_abandoned(own_books: Books) -> None:
    books = own_books
    alive = recorder(books, silent=timedelta(minutes=-3))
    runs = {
        "silent": books.execution(recorder_id=recorder(books, silent=DEAD_FOR)),
        "stopped": books.execution(recorder_id=recorder(books, stopped=True)),
        "never heard of": books.execution(recorder_id=uuid4()),
        "alive": books.execution(recorder_id=alive),
        "nobody's": books.execution(),
    }
    ended = books.execution(recorder_id=recorder(books, silent=DEAD_FOR), status="completed")
    conversation = books.conversation()
    books.message(conversation, execution_id=runs["silent"], prompt_tokens=7, cost=1)

    assert sweep(books) == 3

    found = {name: (state(books, run) or (None,))[0] for name, run in runs.items()}
    assert found == {
        "silent": "abandoned",
        "stopped": "abandoned",
        "never heard of": "abandoned",
        "alive": "running",
        "nobody's": "running",
    }
    assert state(books, ended) == ("completed", None)
    assert state(books, runs["silent"]) == ("abandoned", "Abandoned")
    totals = books.connection.execute(
        "select prompt_tokens, total_cost from chatter.workflow_executions where id = %s",
        (runs["silent"],),
    ).fetchone()
    assert totals == (7, 1)
    assert books.findings() == {}
    assert sweep(books) == 0


def test_silence_counts_from_the_start_of_the_server(own_books: Books) -> None:
    """After an outage the living are given the time to say that they live."""
    process = recorder(own_books, silent=timedelta(days=2))
    run = own_books.execution(recorder_id=process)
    up = "clock_timestamp() - pg_postmaster_start_time() + '1 minute'"
    assert own_books.connection.execute(f"select chatter.sweep_executions({up})").fetchone() == (0,)
    assert state(own_books, run) == ("running", None)
    # Nor is their process forgotten: it may be about to say so.
    assert own_books.rows("select id from chatter.recorders") == [(process,)]


def test_runs_without_a_recorder_have_a_day(own_books: Books) -> None:
    now = own_books.value("select chatter.clock()")
    run = own_books.execution(started_at=now - timedelta(hours=25))
    younger = own_books.execution(started_at=now - timedelta(hours=23))
    assert sweep(own_books) == 1
    assert state(own_books, run) == ("abandoned", "Abandoned")
    assert state(own_books, younger) == ("running", None)


def test_an_abandoned_run_ended_with_the_last_sign_of_its_process(own_books: Books) -> None:
    heard = own_books.value("select chatter.clock()") - DEAD_FOR
    process = recorder(own_books)
    own_books.value(
        "update chatter.recorders set heartbeat_at = %s where id = %s returning id", heard, process
    )
    for started, ended in (
        (heard - timedelta(minutes=5), heard),
        # It can't have ended before it began.
        (heard + timedelta(minutes=1), heard + timedelta(minutes=1)),
    ):
        run = own_books.execution(recorder_id=process, started_at=started)
        assert sweep(own_books) == 1
        assert own_books.field("workflow_executions", run, "finished_at") == ended


def test_what_a_writer_holds_is_left_for_the_next_time(own_books: Books, url: str) -> None:
    run = own_books.execution(recorder_id=recorder(own_books, stopped=True))
    with psycopg.connect(url) as writer:
        writer.execute(
            "update chatter.workflow_executions set status = 'completed' where id = %s", (run,)
        )
        assert sweep(own_books) == 0
        writer.commit()
    assert sweep(own_books) == 0
    assert state(own_books, run) == ("completed", None)


def test_recorders_without_running_runs_go_after_a_day(own_books: Books) -> None:
    recorder(own_books, silent=timedelta(days=2))
    kept = recorder(own_books, silent=timedelta(hours=2))
    just_stopped = recorder(own_books, silent=timedelta(days=2), stopped=True)
    sweep(own_books)
    left = own_books.rows("select id from chatter.recorders")
    assert sorted(left) == sorted([(kept,), (just_stopped,)])


@pytest.mark.parametrize("interval", ["-1 second", None])
def test_a_silence_below_nothing_is_refused(books: Books, interval: str | None) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="must not be negative"):
        sweep(books, interval)  # type: ignore[arg-type]
