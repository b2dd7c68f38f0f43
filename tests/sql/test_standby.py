"""A hot standby reads what the primary has, loses no event, and takes its place."""

import asyncio
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from langchain_core.messages import HumanMessage

import chatter_db
from chatter_db import Chatter
from chatter_db.analytics import reports, run_report
from chatter_db.events import Hub
from tests.conftest import throwaway_server
from tests.forked import Run
from tests.migrations.test_upgrading import WRITTEN
from tests.polling import wait_until
from tests.providers.openai import Provider
from tests.recorder.test_recorder import agent, model_of
from tests.sql.books import Books
from tests.sql.standby import hot_standby
from tests.sql.test_replica import books_of
from tests.sql.test_restore import BINARIES, MANY_TRANSACTIONS
from tests.sql.test_usage import differences, fold_all

TRACE = Path(chatter_db.__file__).parent / "demo" / "aider_trace.csv"

ASKED = """
select count(*) from chatter.workflow_executions as e join chatter.users as u on u.id = e.user_id
where u.external_id = 'ada' and e.status = 'completed'
"""
EVENTS = "select * from chatter.events_after(%s, 1000)"


def replayed(primary: Books) -> None:
    """Waits until the standby has all that was committed before this was called."""
    now = primary.value("select pg_current_wal_insert_lsn()")
    primary.value("select pg_switch_wal()")  # it is on its way now
    query = "select coalesce(bool_and(replay_lsn >= %s), false) from pg_stat_replication"
    wait_until(lambda: primary.value(query, now), "what was written is replayed")


def same_events(one: Books, other: Books, position: str) -> bool:
    """Whether both have the same after it; a position says more than how far one is."""
    left, right = ([row[1:] for row in each.rows(EVENTS, position)] for each in (one, other))
    return left == right


async def test_a_standby_reads_and_takes_over(chatter_command: Run, provider: Provider) -> None:
    with throwaway_server() as server, books_of(server) as primary:
        here = f"postgresql://{server.user}:{server.password}@{server.host}:{server.port}/chatter"
        begin = primary.value("select chatter.events_oldest()")
        primary.connection.execute(WRITTEN)
        fold_all(primary)
        (conversation, *_), *_ = primary.rows("select id from chatter.conversations order by id")
        primary.message(conversation, prompt_tokens=7, cost=1)  # not folded

        with (
            hot_standby(server, BINARIES) as there,
            psycopg.connect(there, autocommit=True) as connection,
        ):
            standby = Books(connection)
            replayed(primary)
            await reads_the_same(here, there, chatter_command)
            assert standby.findings() == {}
            assert differences(standby) == {}
            assert same_events(standby, primary, begin)
            loses_no_late_commit(here, primary, standby, conversation)
            await hears_of_what_comes(there, primary, conversation)

            both = there.replace("@", f"@{server.host}:{server.port},")
            async with Chatter.connect(f"{both}?target_session_attrs=read-write") as chatter:
                await ask(chatter, provider)
                assert primary.value(ASKED) == 1
                replayed(primary)

                # From here on the standby hears of nothing, and the primary takes no writes.
                connection.execute("alter system set primary_conninfo = ''")
                standby.value("select pg_reload_conf()")
                wait_until(
                    lambda: not primary.rows("select from pg_stat_replication"), "it is cut off"
                )
                primary.connection.execute(MANY_TRANSACTIONS)
                primary.message(conversation, prompt_tokens=9)
                ahead = primary.value("select chatter.events_now()")
                primary.connection.execute("alter system set default_transaction_read_only = on")
                primary.value("select pg_reload_conf()")
                with pytest.raises(psycopg.errors.CannotConnectNow, match="not come as far"):
                    standby.rows(EVENTS, ahead)
                refuses_to_write(there, chatter_command)

                # A run of now is booked as soon as there is a server that takes it.
                await ask(chatter, provider)
                assert standby.value(ASKED) == primary.value(ASKED) == 1
                standby.value("select pg_promote()")
                wait_until(lambda: standby.value(ASKED) == 2, "the run is booked")
                assert chatter.lost_records == 0

            # It never had what that position has seen.
            with pytest.raises(psycopg.errors.InvalidParameterValue, match="no position"):
                standby.rows(EVENTS, ahead)
            standby.message(conversation, prompt_tokens=11)
            assert standby.findings() == {}
            fold_all(standby)
            assert differences(standby) == {}


async def hears_of_what_comes(there: str, primary: Books, conversation: UUID) -> None:
    """Though nobody can listen on a standby."""
    hub = Hub(there)
    batches = hub.subscribe().batches()
    async with asyncio.timeout(20):
        assert (await anext(batches)).events == ()
        primary.message(conversation, prompt_tokens=8)
        await asyncio.to_thread(replayed, primary)
        told = await anext(batches)
    assert "message_created" in [event.event_type for event in told.events]
    await batches.aclose()
    await hub.close()


async def ask(chatter: Chatter, provider: Provider) -> None:
    run = chatter.recorder(conversation="over", user="ada")
    asked = {"messages": [HumanMessage("Hi")]}
    answered = await agent(model_of(provider)).ainvoke(asked, {"callbacks": [run]})
    assert answered["messages"][-1].text


def refuses_to_write(there: str, chatter_command: Run) -> None:
    for command in (["key", "ada"], ["serve", "--port", "0"], ["import", str(TRACE)]):
        ran = chatter_command(*command, url=there)
        assert ran.returncode == 1, ran
        assert "read-only transaction" in ran.stderr
        assert "Traceback" not in ran.stderr


async def reads_the_same(here: str, there: str, chatter_command: Run) -> None:
    for command in (["check"], ["status"], ["tail", "--after", "oldest", "--count", "9"]):
        ran = chatter_command(*command, url=there)
        assert ran.returncode == 0, ran
    async with (
        Chatter.connect(here) as primary,
        Chatter.connect(there) as standby,
        primary.session() as one,
        standby.session() as other,
    ):
        for name in reports().keys() - {"running"}:  # tells how long they have
            assert (await run_report(one, name)).rows == (await run_report(other, name)).rows


def loses_no_late_commit(here: str, primary: Books, standby: Books, conversation: UUID) -> None:
    """What commits last began first; on a standby no snapshot tells that it runs."""
    position = standby.value("select chatter.events_now()")
    with psycopg.connect(here) as late:
        late.execute("insert into chatter.conversations default values")
        primary.message(conversation, prompt_tokens=8)
        replayed(primary)
        assert standby.rows(EVENTS, position) == []  # held back, by the oldest that runs
        went_on = standby.value("select chatter.events_now()")
        late.commit()
    replayed(primary)
    assert same_events(standby, primary, position)
    assert same_events(standby, primary, went_on)
    assert len(standby.rows(EVENTS, went_on)) == 4
