"""The hub on a real Postgres: nothing skipped, nothing twice, whatever breaks."""

import asyncio
from typing import Any
from uuid import uuid4

import asyncpg
import psycopg
import pytest

from chatter_db import Chatter
from chatter_db.errors import EventsPruned, UsageError
from chatter_db.events import Hub, Selection, hub, subscription
from chatter_db.events import reading as from_table
from tests.events.conftest import Follow, Writer
from tests.polling import WAITS_FOR_A_LOCK, until

OF_THE_HUB = "application_name = 'chatter events' and datname = current_database()"


def terminate_listener(db: psycopg.Connection[Any]) -> int:
    return len(
        db.execute(
            f"select pg_terminate_backend(pid) from pg_stat_activity where {OF_THE_HUB}"
        ).fetchall()
    )


async def test_events_arrive_in_order_with_what_is_in_them(follow: Follow, writer: Writer) -> None:
    seen = await follow().live()
    conversation = writer.conversation()
    writer.message(conversation)
    events = await seen.until(3)
    assert seen.types == ["conversation_created", "message_created", "conversation_updated"]
    assert {event.conversation_id for event in events} == {conversation}
    assert events[2].payload["message_count"] == 1
    assert events[1].payload["role"] == "user"
    assert "Hello" not in str(events)


async def test_a_reader_hears_only_what_it_asked_for(follow: Follow, writer: Writer) -> None:
    one, other = writer.conversation(), writer.conversation()
    of_one = await follow(conversation_id=one).live()
    messages = await follow(event_types=["message_created"]).live()
    security = await follow(categories=["security"]).live()
    # Of a conversation that is somebody else's, as of a run in another, there is nothing to hear.
    not_theirs = await follow(conversation_id=one, user_id=uuid4()).live()
    not_in_it = await follow(conversation_id=one, execution_id=uuid4()).live()
    everything = await follow().live()
    writer.message(other)
    writer.message(one)
    await everything.until(4)
    await of_one.until(2)
    assert {event.conversation_id for event in of_one.events} == {one}
    assert len(await messages.until(2)) == 2
    assert security.events == not_theirs.events == not_in_it.events == []


async def test_a_reader_hears_of_one_run(follow: Follow, db: psycopg.Connection[Any]) -> None:
    one, other = uuid4(), uuid4()
    of_one = await follow(execution_id=one).live()
    everything = await follow().live()
    for run in (other, one):
        db.execute(
            "insert into chatter.workflow_executions (id, workflow_name) values (%s, 'w')", [run]
        )
    await everything.until(2)
    assert [event.execution_id for event in await of_one.until(1)] == [one]


async def test_a_reader_that_is_stopped_gets_no_more_of_the_past(
    chatter: Chatter, writer: Writer, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "BATCH", 2)
    began = db.execute("select chatter.events_now()").fetchone()
    assert began is not None
    for _ in range(10):
        writer.conversation()
    reader = chatter.event_hub().subscribe(position=str(began[0]))
    given = 0
    async for batch in reader.batches():
        given += len(batch.events)
        reader.stop()
    assert given == 2


async def test_what_comes_while_a_reader_catches_up_comes_once(
    url: str, follow: Follow, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "BATCH", 2)
    own = Hub(url)
    live = await follow(hub=own).live()
    position = live.subscription.position
    for _ in range(4):
        writer.conversation()
    await live.until(4)
    batches = own.subscribe(position=position).batches()
    seen = list((await anext(batches)).events)
    writer.conversation()
    await live.until(5)
    async with asyncio.timeout(20):
        while len(seen) < 5:
            seen += (await anext(batches)).events
        coming = asyncio.create_task(anext(batches))
        await asyncio.sleep(0.2)  # what it has had already would come now
        writer.conversation()
        seen += (await coming).events
    assert [event.id for event in seen] == [event.id for event in await live.until(6)]
    await batches.aclose()
    await own.close()


async def test_a_reader_of_the_past_survives_a_broken_connection(
    url: str,
    follow: Follow,
    writer: Writer,
    db: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub, "BATCH", 2)
    own = Hub(url)
    live = await follow(hub=own).live()
    position = live.subscription.position
    for _ in range(6):
        writer.conversation()
    await live.until(6)
    batches = own.subscribe(position=position).batches()
    seen = list((await anext(batches)).events)
    # Handed to both, though one of them is still in the past.
    writer.conversation()
    await live.until(7)
    with psycopg.connect(url) as holder:
        holder.execute("lock table chatter.event_stream in access exclusive mode")
        reading = asyncio.create_task(anext(batches))
        ended = (
            f"select pg_terminate_backend(pid) from ({WAITS_FOR_A_LOCK} "
            "and application_name = 'chatter') as waiting"
        )
        await until(lambda: db.execute(ended.encode()).fetchall())
    async with asyncio.timeout(20):
        seen += (await reading).events
        while len(seen) < 7:
            seen += (await anext(batches)).events
        writer.conversation()
        seen += (await anext(batches)).events
    assert [event.id for event in seen] == [event.id for event in await live.until(8)]
    await batches.aclose()
    await own.close()


async def test_a_reader_goes_on_from_where_it_was(follow: Follow, writer: Writer) -> None:
    first = await follow().live()
    conversation = writer.conversation()
    for _ in range(5):
        writer.message(conversation)
    events = await first.until(11)
    for place in (0, 4, 9):
        again = follow(events[place].position)
        writer.message(conversation)
        expected = [event.id for event in events[place + 1 :]]
        got = await again.until(len(expected) + 2)
        assert [event.id for event in got][: len(expected)] == expected


async def test_a_position_of_another_hub_that_was_ahead(
    url: str, follow: Follow, writer: Writer
) -> None:
    """A client that changes its server brings a position that this hub hasn't reached."""
    behind = await follow().live()
    other = Hub(url)
    ahead = await follow(hub=other).live()
    writer.conversation()
    position = (await ahead.until(1))[-1].position
    joined = follow(position)
    writer.conversation()
    await behind.until(2)
    assert [event.id for event in await joined.until(1)] == [behind.events[1].id]
    await other.close()


async def test_a_late_commit_is_neither_skipped_nor_waited_for(
    url: str, follow: Follow, writer: Writer
) -> None:
    seen = await follow().live()
    with psycopg.connect(url) as late:
        late.execute("insert into chatter.conversations default values")
        writer.conversation()
        await seen.until(1)
        late.commit()
    assert len({event.id for event in await seen.until(2)}) == 2
    assert seen.events[1].id < seen.events[0].id


async def test_what_is_rolled_back_never_happened(url: str, follow: Follow, writer: Writer) -> None:
    seen = await follow().live()
    with psycopg.connect(url) as other, other.transaction() as outer:
        other.execute("insert into chatter.conversations default values")
        raise psycopg.Rollback(outer)
    with psycopg.connect(url, autocommit=True) as other, other.transaction():
        kept = other.execute(
            "insert into chatter.conversations default values returning id"
        ).fetchone()
        with other.transaction() as savepoint:
            other.execute("insert into chatter.conversations default values")
            raise psycopg.Rollback(savepoint)
    assert kept is not None
    last = writer.conversation()
    assert [event.conversation_id for event in await seen.until(2)] == [kept[0], last]


async def test_a_killed_listener_comes_back_at_once_and_misses_nothing(
    follow: Follow, writer: Writer, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "PING_SECONDS", 60.0)  # whose ping would notice too late
    seen = await follow().live()
    for _ in range(3):
        assert terminate_listener(db) == 1
        writer.conversation()
        count = len(seen.events) + 1
        await seen.until(count)
    assert len({event.id for event in seen.events}) == len(seen.events) == 3


async def test_a_connection_lost_while_nobody_reads_is_made_anew(
    follow: Follow, db: psycopg.Connection[Any]
) -> None:
    def listeners() -> list[Any]:
        return db.execute(f"select pid from pg_stat_activity where {OF_THE_HUB}").fetchall()

    seen = await follow().live()
    seen.subscription.stop()
    await seen.task
    before = listeners()
    assert terminate_listener(db) == 1
    await until(lambda: listeners() not in ([], before), "it is back")


async def test_two_processes_hear_the_same(url: str, follow: Follow, writer: Writer) -> None:
    other = Hub(url)
    one, two = await follow().live(), await follow(hub=other).live()
    for _ in range(20):
        writer.conversation()
    assert [e.id for e in await one.until(20)] == [e.id for e in await two.until(20)]
    await other.close()


async def test_a_busy_hub_spares_the_writers_the_bell_and_passes_it_on(
    url: str, follow: Follow, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "BUSY", (2, 60.0))
    monkeypatch.setattr(hub, "QUIET_LOOKS", 1_000_000)
    monkeypatch.setattr(hub, "PING_SECONDS", 60.0)  # who isn't rung for looks too late
    held = "select count(*) from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock'"
    awake, asleep = Hub(url), Hub(url)
    monkeypatch.setattr(asleep, "_busy", lambda: False)
    one, two = await follow(hub=awake).live(), await follow(hub=asleep).live()
    db.execute("listen chatter_events")
    with psycopg.connect(url, autocommit=True) as connection:
        writer = Writer(connection)
        while db.execute(held).fetchone() == (0,):
            writer.conversation()
            await asyncio.sleep(0.01)
        list(db.notifies(timeout=0))
        for _ in range(50):
            last = writer.conversation()
        rung_by = {notice.pid for notice in db.notifies(timeout=0.2)}
        assert connection.info.backend_pid not in rung_by
    for seen in (one, two):
        await until(lambda: last in [event.conversation_id for event in seen.events])  # noqa: B023
    assert [e.id for e in two.events] == [e.id for e in one.events]
    await awake.close()
    await asleep.close()


async def test_who_only_watches_is_woken_and_spares_the_writers_the_bell_too(
    url: str, follow: Follow, writer: Writer, db: psycopg.Connection[Any], monkeypatch: Any
) -> None:
    monkeypatch.setattr(hub, "BUSY", (2, 60.0))
    monkeypatch.setattr(hub, "QUIET_LOOKS", 1_000_000)
    monkeypatch.setattr(hub, "PING_SECONDS", 60.0)  # who isn't rung for looks too late
    held = "select count(*) from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock'"
    watching, something = Hub(url), asyncio.Event()
    watching.watch(something)
    async with asyncio.timeout(20):
        await something.wait()  # who begins looks once
        while db.execute(held).fetchone() == (0,):
            something.clear()
            writer.conversation()
            await something.wait()
        # Asleep in another process, a reader hears what the writers didn't ring for.
        asleep = Hub(url)
        monkeypatch.setattr(asleep, "_busy", lambda: False)
        seen = await follow(hub=asleep).live()
        something.clear()
        last = writer.conversation()
        await something.wait()
        await until(lambda: last in [event.conversation_id for event in seen.events])
        watching.unwatch(something)
        something.clear()
        joined = await follow(hub=watching).live()
        writer.conversation()
        await joined.until(1)
        assert not something.is_set()
        # And woken where others read what is new.
        watching.watch(something)
        writer.conversation()
        async with asyncio.timeout(10):
            await something.wait()
    await watching.close()
    await asleep.close()


async def test_a_slow_reader_goes_on_from_the_table(
    hub: Hub, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "MAX_PENDING", 10)
    slow = hub.subscribe()
    batches = slow.batches()
    await anext(batches)
    conversation = writer.conversation()
    for _ in range(40):
        writer.message(conversation)
        await asyncio.sleep(0.002)
    await until(lambda: not slow._live)
    assert len(slow._pending) <= 11
    seen: list[int] = []
    async for batch in batches:
        seen += [event.id for event in batch.events]
        if len(seen) == 81:
            break
    await batches.aclose()
    assert sorted(set(seen)) == seen


async def test_a_reader_whom_retention_has_passed_by_is_told(
    follow: Follow, writer: Writer, db: psycopg.Connection[Any]
) -> None:
    seen = await follow().live()
    writer.conversation()
    position = (await seen.until(1))[0].position
    writer.conversation()
    await seen.until(2)
    db.execute("select chatter.prune_events(chatter.clock())")
    with pytest.raises(EventsPruned) as pruned:
        await follow(position).until(1)
    writer.conversation()
    assert [e.id for e in await follow(pruned.value.oldest).until(1)] == [
        (await seen.until(3))[-1].id
    ]


async def test_retention_passes_by_no_live_reader_who_has_had_everything(
    url: str, follow: Follow, writer: Writer, db: psycopg.Connection[Any]
) -> None:
    """A transaction that took long, and told nothing, was before the last event they had."""
    own = Hub(url)
    seen = await follow(hub=own).live()
    with psycopg.connect(url) as late:
        late.execute("select pg_current_xact_id()")
        writer.conversation()
        had = (await seen.until(1))[0].position
        late.rollback()
    await until(lambda: own.position != had)
    assert db.execute("select chatter.prune_events(chatter.clock())").fetchone() == (1,)
    with pytest.raises(EventsPruned):
        await own.check(had)
    writer.conversation()
    assert len(await seen.until(2)) == 2
    await own.close()


async def test_positions_of_nothing_are_refused(hub: Hub, follow: Follow) -> None:
    foreign = "0123456789ab.5:5:"
    for position in ("", "nonsense", foreign, "'; drop table chatter.events"):
        with pytest.raises(UsageError):
            await hub.check(position)
    with pytest.raises(UsageError):
        await follow(foreign).until(1)


async def test_more_than_is_read_at_once_comes_at_once(
    follow: Follow, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "BATCH", 2)
    monkeypatch.setattr(hub, "PING_SECONDS", 60.0)
    seen = await follow().live()
    db.execute("insert into chatter.conversations (title) select 'c' from generate_series(1, 9)")
    await seen.until(9)


async def test_polling_finds_the_same(
    url: str,
    writer: Writer,
    follow: Follow,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As often as was asked for."""
    monkeypatch.setattr(hub, "PING_SECONDS", 60.0)
    polling = Hub(url, poll_seconds=0.02)
    seen = await follow(hub=polling).live()
    writer.conversation()
    await seen.until(1)
    await polling.close()


async def test_a_silent_reader_is_told_a_newer_position(hub: Hub, writer: Writer) -> None:
    """Else retention would pass by a reader that has missed nothing."""
    reader = hub.subscribe(hub_selection("security"))
    batches = reader.batches()
    first = (await anext(batches)).position
    writer.conversation()
    async with asyncio.timeout(20):
        while True:
            asyncio.get_running_loop().call_later(0.05, reader.nudge)
            batch = await anext(batches)
            assert batch.events == ()
            if batch.position != first:
                break
    assert hub._groups and hub._by_key
    await batches.aclose()
    # Nothing is kept of who has left.
    assert not hub._groups and not hub._by_key


def hub_selection(category: str) -> Any:
    from chatter_db.events import Selection

    return Selection.of(categories=[category])


async def test_a_reader_that_is_stopped_before_it_has_joined_ends(hub: Hub) -> None:
    reader = hub.subscribe()
    batches = reader.batches()
    joining = asyncio.create_task(anext(batches))
    await asyncio.sleep(0)  # it waits for the hub's first look
    reader.stop()
    await joining
    async with asyncio.timeout(20):
        assert [batch async for batch in batches] == []


async def test_closing_ends_every_reader(hub: Hub, follow: Follow) -> None:
    readers = [await follow().live() for _ in range(3)]
    await hub.close()
    for reader in readers:
        await reader.task
    await follow().task


async def test_a_hub_that_may_not_read_says_so(url: str, db: psycopg.Connection[Any]) -> None:
    db.execute("drop function chatter.events_now()")
    closed = Hub(url)
    with pytest.raises(Exception, match="events_now"):
        await anext(closed.subscribe().batches())
    await closed.close()


async def test_the_public_door(chatter: Chatter, writer: Writer) -> None:
    oldest = await chatter.event_hub().oldest()
    conversation = writer.conversation()
    writer.message(conversation)
    async for event in chatter.events(after=oldest, conversation=conversation):
        if event.event_type == "message_created":
            break
    with pytest.raises(UsageError, match="No event type nonsense; there are conversation_created"):
        async for _ in chatter.events(event_types=["nonsense"]):
            pass
    wrong: Any = [5]
    with pytest.raises(UsageError, match="No event type 5; there are"):
        await anext(chatter.events(event_types=wrong))
    asked = chatter.events(after=oldest, event_types="message_created")
    assert (await anext(asked)).event_type == "message_created"


async def test_what_an_app_tells_of_its_door_can_be_asked_for(
    chatter: Chatter, db: psycopg.Connection[Any]
) -> None:
    """Names that apps use for security events, which are told by those names."""
    position = await chatter.event_hub().oldest()
    names = ["account_locked", "anomalous_login", "suspicious_ip", "token_refreshed"]
    for name in [*names, "login_success"]:
        db.execute("insert into chatter.security_events (event_type) values (%s)", [name])
    told = []
    async for event in chatter.events(after=position, event_types=names):
        told.append(event.event_type)
        if len(told) == len(names):
            break
    assert told == names


@pytest.mark.parametrize("name", ["user", "conversation", "execution"])
async def test_an_id_of_ones_own_is_refused(chatter: Chatter, name: str) -> None:
    """The recorder takes "support-42"; no event bears it, and who followed waited for ever."""
    own: Any = {name: "support-42"}
    with pytest.raises(UsageError, match=f"{name}_id must be a UUID"):
        async for _ in chatter.events(**own):
            pass


async def test_a_connection_lost_between_two_steps_of_asyncpg(
    follow: Follow, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub knows it for what it is, and goes on: asyncpg fails with an AttributeError."""
    prepared: Any = asyncpg.Connection._get_statement  # type: ignore[attr-defined]
    lost = 0

    async def lose(self: "asyncpg.Connection[Any]", *args: Any, **kwargs: Any) -> Any:
        nonlocal lost
        statement = await prepared(self, *args, **kwargs)
        if lost < 3:
            lost += 1
            self.terminate()
        return statement

    seen = await follow().live()
    monkeypatch.setattr(asyncpg.Connection, "_get_statement", lose)
    writer.conversation()
    assert [event.event_type for event in await seen.until(1)] == ["conversation_created"]
    assert lost == 3


async def test_a_user_who_is_far_behind_in_many_streams_keeps_nobody_else_waiting(
    url: str, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, user = Hub(url), uuid4()
    selection = Selection(user_id=user)
    now = await reading.oldest()
    asked, events_after = 0, from_table.events_after

    async def counted(*arguments: Any, **more: Any) -> Any:
        nonlocal asked
        asked += 1
        return await events_after(*arguments, **more)

    monkeypatch.setattr(from_table, "events_after", counted)
    with psycopg.connect(url) as slow:
        slow.execute("lock table chatter.events in access exclusive mode")
        behind = [
            asyncio.ensure_future(anext(reading.missed(now, now, selection, stopped), None))
            for stopped in 2 * [lambda: False, lambda: True] * hub.CATCH_UP_CONNECTIONS
        ]
        await until(lambda: db.execute(WAITS_FOR_A_LOCK).fetchall(), "one of them reads")
        waiting = reading._turns[user]._waiters
        await until(lambda: len(waiting or ()) == len(behind) - 1, "the others wait for it")
        await asyncio.wait_for(reading.check(now), 10)
        assert len(db.execute(WAITS_FOR_A_LOCK).fetchall()) == 1
        assert asked == 1
    assert await asyncio.gather(*behind) == [None] * len(behind)
    # Those that were stopped meanwhile read nothing.
    assert asked == len(behind) / 2
    await reading.close()
