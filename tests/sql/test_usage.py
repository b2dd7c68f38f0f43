"""Deltas, rollups and views of analytics: always what a recount of the messages says."""

import json
import random
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.polling import wait_until_blocked
from tests.sql.books import Books

SHARED = Path(__file__).parents[3] / "shared" / "data"

MEASURES = """
  count(*) as messages,
  count(*) filter (where m.kind = 'turn') as turns,
  count(*) filter (where m.model_call) as calls,
  count(*) filter (where m.model_call and m.status <> 'completed') as failed_calls,
  coalesce(sum(m.prompt_tokens), 0)::bigint as prompt_tokens,
  coalesce(sum(m.completion_tokens), 0)::bigint as completion_tokens,
  coalesce(sum(m.total_tokens), 0)::bigint as total_tokens,
  coalesce(sum(m.cache_read_tokens), 0)::bigint as cache_read_tokens,
  coalesce(sum(m.cache_write_tokens), 0)::bigint as cache_write_tokens,
  coalesce(sum(m.reasoning_tokens), 0)::bigint as reasoning_tokens,
  coalesce(sum(m.cost), 0) as cost,
  count(*) filter (where m.model_call and m.cost is null) as unpriced_calls,
  count(*) filter (where m.model_call and m.usage_status = 'unknown') as unknown_usage
"""

# What the functions give is to be summed up.
SUMS = ", ".join(
    f"sum({name})::{'numeric' if name == 'cost' else 'bigint'}"
    for name in re.findall(r" as (\w+)", MEASURES)
)

FROM = """
  from chatter.messages as m
    join chatter.conversations as c on c.id = m.conversation_id
    left join chatter.workflow_executions as e on e.id = m.execution_id
"""

MODEL_DAY = """
  (m.created_at at time zone 'UTC')::date as day, coalesce(m.provider_used, '') as provider,
  coalesce(m.model_used, '') as model
"""

RECOUNTS = {
    "usage_15min_live": f"""
      select date_bin('15 minutes', m.created_at, '2000-01-01 00:00:00+00') as bucket,
        coalesce(e.workflow_name, '') as workflow_name, coalesce(m.provider_used, '') as provider,
        coalesce(m.model_used, '') as model, m.kind, {MEASURES} {FROM} group by 1, 2, 3, 4, 5
    """,
    "usage_user_day_live": f"""
      select (m.created_at at time zone 'UTC')::date as day, c.user_id,
        coalesce(m.provider_used, '') as provider, coalesce(m.model_used, '') as model,
        {MEASURES} {FROM} group by 1, 2, 3, 4
    """,
    "usage_user_month_live": f"""
      select date_trunc('month', m.created_at at time zone 'UTC')::date as month, c.user_id,
        {MEASURES} {FROM} group by 1, 2
    """,
    "usage_hourly_live": f"""
      select date_trunc('hour', m.created_at, 'UTC') as hour,
        coalesce(e.workflow_name, '') as workflow_name, coalesce(m.provider_used, '') as provider,
        coalesce(m.model_used, '') as model, m.kind, {MEASURES} {FROM} group by 1, 2, 3, 4, 5
    """,
    "usage_day_live": f"""
      select (m.created_at at time zone 'UTC')::date as day,
        coalesce(e.workflow_name, '') as workflow_name, coalesce(m.provider_used, '') as provider,
        coalesce(m.model_used, '') as model, m.kind, {MEASURES} {FROM} group by 1, 2, 3, 4, 5
    """,
    "usage_by_model_live": f"""
      select {MODEL_DAY}, {MEASURES} {FROM} group by 1, 2, 3
      having bool_or(m.model_call) or sum(m.cost) <> 0
    """,
    "usage_by_workflow_live": f"""
      select (m.created_at at time zone 'UTC')::date as day,
        coalesce(e.workflow_name, '') as workflow_name, {MEASURES} {FROM} group by 1, 2
    """,
    "usage_by_user_live": f"""
      select (m.created_at at time zone 'UTC')::date as day, c.user_id, {MEASURES} {FROM}
      group by 1, 2
    """,
    "cache_usage_live": f"""
      select k.day, k.provider, k.model, k.prompt_tokens, k.cache_read_tokens,
        k.cache_write_tokens, round(k.cache_read_tokens::numeric / nullif(k.prompt_tokens, 0), 4)
      from (select {MODEL_DAY}, {MEASURES} {FROM} group by 1, 2, 3) as k
      where k.cache_read_tokens <> 0 or k.cache_write_tokens <> 0
    """,
    "unpriced_usage_live": f"""
      select k.day, k.provider, k.model, k.calls, k.unpriced_calls, k.unknown_usage
      from (select {MODEL_DAY}, {MEASURES} {FROM} group by 1, 2, 3) as k
      where k.unpriced_calls <> 0 or k.unknown_usage <> 0
    """,
    "usage_daily_live": f"""
      select (m.created_at at time zone 'UTC')::date as day, {MEASURES} {FROM} group by 1
    """,
    "latency_hour_live": f"""
      select date_trunc('hour', m.created_at, 'UTC') as hour,
        coalesce(m.provider_used, '') as provider, coalesce(m.model_used, '') as model,
        l.measure, analytics.latency_bin(l.ms) as bin, count(*) as calls
      {FROM} cross join lateral (
        values ('response', m.response_time_ms), ('first_token', m.time_to_first_token_ms)
      ) as l (measure, ms)
      where m.model_call and l.ms is not null group by 1, 2, 3, 4, 5
    """,
    "latency_day_live": f"""
      select (m.created_at at time zone 'UTC')::date as day,
        coalesce(m.provider_used, '') as provider, coalesce(m.model_used, '') as model,
        l.measure, analytics.latency_bin(l.ms) as bin, count(*) as calls
      {FROM} cross join lateral (
        values ('response', m.response_time_ms), ('first_token', m.time_to_first_token_ms)
      ) as l (measure, ms)
      where m.model_call and l.ms is not null group by 1, 2, 3, 4, 5
    """,
    "latency_by_model_live": f"""
      select (m.created_at at time zone 'UTC')::date, coalesce(m.provider_used, ''),
        coalesce(m.model_used, ''), l.measure, count(*),
        analytics.bin_ms(percentile_disc(0.50) within group (order by analytics.latency_bin(l.ms))),
        analytics.bin_ms(percentile_disc(0.95) within group (order by analytics.latency_bin(l.ms))),
        analytics.bin_ms(percentile_disc(0.99) within group (order by analytics.latency_bin(l.ms)))
      {FROM} cross join lateral (
        values ('response', m.response_time_ms), ('first_token', m.time_to_first_token_ms)
      ) as l (measure, ms)
      where m.model_call and l.ms is not null group by 1, 2, 3, 4
    """,
    "active_users_live": f"""
      select p.period, date_trunc(p.period, m.created_at at time zone 'UTC')::date,
        count(distinct c.user_id),
        case
          when coalesce(bool_and(m.cost is null) filter (where m.model_call), false)
            then nullif(coalesce(sum(m.cost), 0), 0)
          else coalesce(sum(m.cost), 0)
        end
      {FROM} cross join (values ('day'), ('week'), ('month')) as p (period)
      where c.user_id is not null group by 1, 2
    """,
}

START = datetime(2026, 3, 27, 20, tzinfo=UTC)  # over midnights, and the change to summer time


@pytest.fixture
def books(db: psycopg.Connection[Any]) -> Iterator[Books]:
    yield Books(db)


def differences(books: Books) -> dict[str, tuple[Any, Any]]:
    """What the live views say and the messages don't, and the other way round."""
    found = {}
    for view, recount in RECOUNTS.items():
        live = f"select * from analytics.{view}"
        extra = books.rows(f"({live}) except all ({recount})")
        missing = books.rows(f"({recount}) except all ({live})")
        if extra or missing:
            found[view] = (extra[:3], missing[:3])
    return found


def fold_all(books: Books) -> None:
    while books.value("select analytics.fold(7)"):
        pass
    assert books.value("select count(*) from analytics.deltas") == 0


def message(dice: random.Random, where: tuple[UUID, UUID | None]) -> dict[str, Any]:
    call = dice.random() < 0.6
    unknown = dice.random() < 0.2
    return {
        "conversation_id": where[0],
        "execution_id": where[1],
        "role": "assistant" if call else "user",
        "kind": dice.choice(["turn", "step"]),
        "provider_used": dice.choice(["openai", "anthropic"] if call else [None, "openai"]),
        "model_used": dice.choice(["small", "large"]) if call else dice.choice([None, "small"]),
        "prompt_tokens": None if unknown or not call else dice.randrange(1000),
        "completion_tokens": None if unknown or not call else dice.randrange(1000),
        "total_tokens": None if unknown or not call else dice.randrange(2000),
        "cache_read_tokens": dice.choice([None, 7]) if call else None,
        "cache_write_tokens": dice.choice([None, 11]) if call else None,
        "reasoning_tokens": dice.choice([None, 5]) if call else None,
        "cost": dice.choice([None, Decimal("0.000123"), Decimal("1.5")]) if call else None,
        "usage_status": ("unknown" if unknown else "reported") if call else None,
        "status": dice.choice(["completed"] * 4 + ["failed", "cancelled"]) if call else "completed",
        "response_time_ms": dice.choice([None, 0.4, 20.0, 1234.5, 9e7]) if call else None,
        "time_to_first_token_ms": dice.choice([None, 3.0]) if call else None,
        "created_at": START + timedelta(minutes=dice.randrange(3 * 24 * 60)),
    }


def places(books: Books) -> list[tuple[UUID, UUID | None]]:
    found: list[tuple[UUID, UUID | None]] = []
    for name in ("ada", "bob", None):
        user = books.user(name) if name else None
        conversation = books.conversation(user_id=user)
        run = books.execution(conversation, workflow_name=f"of {name}")
        found += [(conversation, run), (conversation, None)]
    return found


def test_a_random_history_is_what_a_recount_says(books: Books) -> None:
    dice = random.Random(7)
    where = places(books)
    messages: list[UUID] = []
    for step in range(120):
        match dice.choice(["insert", "insert", "change", "move", "delete", "fold", "refresh"]):
            case "insert":
                rows = [message(dice, dice.choice(where)) for _ in range(dice.randint(1, 9))]
                messages += books.messages(rows)
            case "change" if messages:
                change = message(dice, dice.choice(where))
                del change["conversation_id"], change["execution_id"]
                books.change(*dice.sample(messages, min(3, len(messages))), **change)
            case "move" if messages:
                books.move(dice.choice(messages), to=dice.choice(where)[0])
            case "delete" if messages:
                books.delete(messages.pop(dice.randrange(len(messages))))
            case "refresh":
                books.rows("select analytics.refresh(true)")
            case _:
                books.value("select analytics.fold(%s)", dice.choice([5, 1000]))
        if step % 4 == 3:
            assert differences(books) == {}
    fold_all(books)
    assert differences(books) == {}
    assert books.value("select count(*) from analytics.usage_15min") > 0


def test_concurrent_writers_and_folders_lose_nothing(url: str, books: Books) -> None:
    where = places(books)
    stop = threading.Event()
    failures: list[psycopg.Error] = []

    def write(seed: int) -> None:
        dice = random.Random(seed)
        with psycopg.connect(url, autocommit=True) as connection:
            mine = Books(connection)
            own = mine.conversation()
            written: list[UUID] = []
            for _ in range(40):
                rows = [message(dice, dice.choice([*where, (own, None)])) for _ in range(3)]
                rows.sort(key=lambda row: row["conversation_id"])
                written += mine.messages(rows)
                if dice.random() < 0.3:
                    with connection.transaction(force_rollback=True):
                        mine.messages([message(dice, (own, None))])

    def fold() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not stop.is_set():
                connection.execute("select analytics.fold(50)")
                connection.execute("select analytics.refresh()")

    def run(work: Any, *arguments: Any) -> None:
        try:
            work(*arguments)
        except psycopg.Error as error:
            failures.append(error)

    writers = [threading.Thread(target=run, args=(write, seed)) for seed in range(8)]
    folders = [threading.Thread(target=run, args=(fold,)) for _ in range(2)]
    for thread in (*writers, *folders):
        thread.start()
    while any(thread.is_alive() for thread in writers):
        assert differences(books) == {}
    stop.set()
    for thread in folders:
        thread.join()
    assert failures == []
    fold_all(books)
    assert differences(books) == {}


def test_a_fold_that_fails_leaves_everything_as_it_was(books: Books) -> None:
    conversation = books.conversation()
    books.message(conversation, role="assistant", model_used="m", cost=Decimal(1))
    with books.connection.transaction(force_rollback=True):
        assert books.value("select analytics.fold()") == 1
    assert books.value("select count(*) from analytics.usage_15min") == 0
    assert differences(books) == {}
    assert books.value("select analytics.fold()") == 1
    assert books.value("select analytics.fold()") == 0
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="at least 1, not 0"):
        books.value("select analytics.fold(0)")


def test_a_second_worker_does_not_fold_beside_the_first(url: str, books: Books) -> None:
    books.message(books.conversation())
    with psycopg.connect(url) as first:
        first.execute("select analytics.fold()")
        assert books.value("select analytics.fold()") == 0
        assert books.rows("select * from analytics.refresh()") != []
        first.execute("select analytics.refresh(true)")
        assert books.rows("select * from analytics.refresh(true)") == []
    assert differences(books) == {}


@pytest.mark.parametrize("parent", ["conversations", "workflow_executions"])
def test_messages_that_go_with_their_parent_take_their_figures_along(
    books: Books, parent: str
) -> None:
    conversation = books.conversation(user_id=books.user("ada"))
    run = books.execution(conversation, workflow_name="support")
    books.message(conversation, execution_id=run, role="assistant", model_used="m", cost="0.5")
    fold_all(books)
    if parent == "conversations":
        books.connection.execute("update chatter.messages set execution_id = null")
        books.connection.execute("delete from chatter.workflow_executions")
    books.connection.execute(
        f"with m as (delete from chatter.messages) delete from chatter.{parent}".encode()
    )
    assert differences(books) == {}
    fold_all(books)
    assert differences(books) == {}
    assert books.value("select count(*) from analytics.usage_user_day_live") == 0


def test_rollups_are_counted_anew(books: Books) -> None:
    filled(books)
    for table in (
        "usage_15min",
        "usage_hourly",
        "usage_day",
        "usage_user_day",
        "usage_user_month",
        "latency_day",
    ):
        books.connection.execute(f"update analytics.{table} set calls = calls + 1".encode())
    books.connection.execute("update analytics.usage_user_day set cost = cost + 1")
    books.connection.execute(
        "update analytics.usage_day set prompt_tokens = 0, unknown_usage = unknown_usage + 1"
    )
    books.connection.execute("delete from analytics.latency_hour")
    assert differences(books).keys() == RECOUNTS.keys()
    assert books.value("select analytics.rebuild()") == 100
    assert differences(books) == {}
    assert books.value("select count(*) from analytics.deltas") == 0


def test_who_waits_to_count_anew_keeps_no_writer_waiting(books: Books, url: str) -> None:
    conversation = books.conversation()
    with (
        psycopg.connect(url, autocommit=True) as holder,
        psycopg.connect(url, autocommit=True) as counting,
        ThreadPoolExecutor(1) as pool,
    ):
        holder.execute("select pg_advisory_lock(chatter.bell() + 1)")
        rebuilt = pool.submit(counting.execute, "select analytics.rebuild()")
        try:
            wait_until_blocked(holder)
            books.connection.execute("set statement_timeout = '2s'")
            books.message(conversation, role="user")
        finally:
            holder.execute("select pg_advisory_unlock(chatter.bell() + 1)")
        rebuilt.result()
    assert differences(books) == {}


def test_what_has_figures_keeps_its_user_and_workflow(books: Books) -> None:
    conversation = books.conversation()
    run = books.execution(conversation)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="another user"):
        books.change_conversation(conversation, user_id=books.user("eve"))
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="another workflow"):
        books.change_execution(run, workflow_name="other")


@pytest.mark.parametrize("ms", [0.0, 1.0, 1.05, 17.0, 250.0, 3_599_000.0])
def test_a_bin_is_at_most_4_5_percent_off(books: Books, ms: float) -> None:
    read = books.value("select analytics.bin_ms(analytics.latency_bin(%s))", ms)
    assert abs(read - max(ms, 1)) / max(ms, 1) <= 0.045


# --- materialized views


def test_every_materialized_view_is_registered_indexed_and_live(books: Books) -> None:
    found = books.rows(
        "select m.matviewname, v.name is not null, "
        "  exists (select from pg_index as i where i.indrelid = c.oid and i.indisunique), "
        "  to_regclass('analytics.' || m.matviewname || '_live') is not null, "
        "  exists (select from pg_attribute as a where a.attrelid = c.oid and a.attname = 'as_of') "
        "from pg_matviews as m "
        "join pg_class as c on c.oid = to_regclass('analytics.' || quote_ident(m.matviewname)) "
        "left join analytics.views as v on v.name = m.matviewname "
        "where m.schemaname in ('analytics', 'chatter')"
    )
    assert len(found) == books.value("select count(*) from analytics.views") >= 10
    assert [row for row in found if not all(row[1:])] == []


def filled(books: Books) -> None:
    dice = random.Random(5)
    where = places(books)
    books.messages([message(dice, dice.choice(where)) for _ in range(100)])
    run = where[0][1]
    assert run is not None
    for status in ("completed", "failed", "requested"):
        books.tool_call(run, tool_name="clock", status=status, duration_ms=2.0)
    fold_all(books)


def test_a_refreshed_view_is_its_live_twin(books: Books) -> None:
    filled(books)
    with books.connection.transaction():
        begin = books.value("select now()")
        names = {row[0] for row in books.rows("select * from analytics.refresh()")}
    assert names == {row[0] for row in books.rows("select name from analytics.views")}
    for name in sorted(names):
        rows = books.rows(f"select to_jsonb(v) - 'as_of' - 'folds' from analytics.{name} as v")
        live = books.rows(f"select to_jsonb(v) from analytics.{name}_live as v")
        assert sorted(map(str, rows)) == sorted(map(str, live)) != [], name
        # One for all rows, and before the snapshot: what was committed by then is in them.
        assert books.rows(f"select distinct as_of from analytics.{name}") == [(begin,)], name


def test_views_are_refreshed_where_all_identifiers_are_quoted(books: Books) -> None:
    """Postgres can't read what it writes itself for a concurrent refresh then."""
    filled(books)
    names = {row[0] for row in books.rows("select * from analytics.refresh(true)")}
    books.connection.execute("set quote_all_identifiers = on")
    assert {row[0] for row in books.rows("select * from analytics.refresh(true)")} == names != set()


def test_a_view_is_refreshed_when_it_is_due_and_something_changed(books: Books) -> None:
    filled(books)
    assert len(books.rows("select * from analytics.refresh()")) >= 10
    books.connection.execute("update analytics.views set refresh_every = '1 hour'")
    books.message(books.conversation())
    fold_all(books)
    assert books.rows("select * from analytics.refresh()") == []
    books.connection.execute("update analytics.views set refresh_every = '1 microsecond'")
    # Ten times what it took, at least.
    books.connection.execute("update analytics.views set refresh_ms = 360000")
    assert books.rows("select * from analytics.refresh()") == []
    books.connection.execute("update analytics.views set refresh_ms = 0")
    assert len(books.rows("select * from analytics.refresh()")) >= 10
    assert books.rows("select * from analytics.refresh()") == []
    assert len(books.rows("select * from analytics.refresh(true)")) >= 10


def test_days_that_nothing_changed_are_read_from_the_view_unless_it_knows_too_much(
    books: Books,
) -> None:
    conversation = books.conversation(user_id=books.user("ada"))
    call = {"role": "assistant", "model_used": "m", "response_time_ms": 20.0}
    books.message(conversation, **call, created_at=START)
    books.message(conversation, **call, created_at=START + timedelta(days=40))
    fold_all(books)
    books.rows("select analytics.refresh()")
    # What no fold did: only who reads the rollups again can see it.
    books.connection.execute("update analytics.latency_day set calls = 9")
    books.connection.execute("update analytics.usage_user_day set user_id = null")
    latency = "select calls from analytics.latency_by_model_live order by day"
    users = (
        "select starts - '2026-03-27' from analytics.active_users_live "
        "where period = 'day' order by 1"
    )
    assert (books.rows(latency), books.rows(users)) == ([(1,), (1,)], [(0,), (40,)])
    books.message(conversation, **call, created_at=START + timedelta(days=40))
    assert (books.rows(latency), books.rows(users)) == ([(1,), (10,)], [(0,), (40,)])
    fold_all(books)
    assert (books.rows(latency), books.rows(users)) == ([(1,), (10,)], [(0,), (40,)])
    # As if its rows had been written by a later fold than the reader sees.
    books.connection.execute("update analytics.state set folds = 0")
    assert (books.rows(latency), books.rows(users)) == ([(9,), (10,)], [(40,)])


def test_a_rebuild_changes_every_day(books: Books) -> None:
    filled(books)
    books.rows("select analytics.refresh()")
    with books.connection.transaction():
        books.connection.execute("set local session_replication_role = replica")
        books.connection.execute("delete from chatter.messages where created_at < '2026-03-29'")
    books.value("select analytics.rebuild()")
    assert differences(books) == {}


def test_a_refresh_is_one_event(books: Books) -> None:
    filled(books)
    books.rows("select * from analytics.refresh()")
    found = books.rows("select payload from chatter.events where category = 'analytics'")
    assert len(found) == 1
    assert "usage_daily" in found[0][0]["views"]


def test_the_dearest_come_first_and_users_are_counted_once(books: Books) -> None:
    filled(books)
    costs = [
        row[0]
        for row in books.rows(
            "select total_cost from analytics.dearest_conversations_live order by place"
        )
    ]
    assert costs == sorted(costs, reverse=True) != []
    month = books.value(
        "select users from analytics.active_users_live "
        "where period = 'month' and starts = '2026-03-01'"
    )
    assert month == books.value(
        "select count(distinct c.user_id) from chatter.messages m "
        "join chatter.conversations c on c.id = m.conversation_id"
    )


def test_percentiles_are_within_the_bound(books: Books) -> None:
    conversation = books.conversation()
    times = [float(n) for n in range(10, 1010)]
    books.messages(
        {
            "conversation_id": conversation,
            "role": "assistant",
            "model_used": "m",
            "response_time_ms": ms,
        }
        for ms in times
    )
    row = books.row("select calls, p50_ms, p95_ms, p99_ms from analytics.latency_by_model_live")
    assert row[0] == 1000
    for found, exact in zip(row[1:], (509.5, 959.5, 999.5), strict=True):
        assert abs(found - exact) / exact < 0.05


# --- the real trace


@pytest.mark.skipif(not SHARED.exists(), reason="the usage trace lies beside the repository only")
def test_the_real_trace_by_day_and_model(url: str, books: Books) -> None:
    from chatter_db.importing import import_file

    expected = json.loads((SHARED / "usage_trace.expected.json").read_text())
    import_file(url, SHARED / "usage_trace.jsonl")
    for _ in range(2):  # waiting, and folded
        days = books.rows(
            "select day::text, messages, prompt_tokens, completion_tokens, cost "
            "from analytics.usage_daily_live"
        )
        models = books.rows(
            "select model, sum(messages), sum(prompt_tokens), sum(completion_tokens), sum(cost) "
            "from analytics.usage_15min_live group by 1"
        )
        for found, kind in ((days, "by_utc_day"), (models, "by_model")):
            assert {
                name: (messages, prompt, completion, cost)
                for name, messages, prompt, completion, cost in found
            } == {
                name: (
                    row["messages"],
                    row["prompt_tokens"],
                    row["completion_tokens"],
                    Decimal(row["cost_usd"]),
                )
                for name, row in expected[kind].items()
            }
        fold_all(books)


def test_views_of_a_clock_that_was_set_back_are_refreshed(books: Books) -> None:
    """One that was a day ahead would leave them as they are for a day."""
    filled(books)
    assert len(books.rows("select * from analytics.refresh()")) >= 10
    books.connection.execute("update analytics.views set refreshed_at = now() + interval '1 day'")
    assert len(books.rows("select * from analytics.refresh()")) >= 10
    assert books.rows("select * from analytics.refresh()") == []
