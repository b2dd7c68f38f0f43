"""Deltas and rollups of tool calls: always what a recount of the tool calls says."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.sql.books import Books

START = datetime(2026, 3, 30, 20, tzinfo=UTC)

COUNTED = """
  select date_trunc('{grain}', coalesce(t.started_at, e.started_at), 'UTC'), t.tool_name, t.status,
    case when t.duration_ms is null then -1 else analytics.latency_bin(t.duration_ms) end,
    count(*), coalesce(sum(t.duration_ms::numeric), 0)
  from chatter.tool_calls as t join chatter.workflow_executions as e on e.id = t.execution_id
  group by 1, 2, 3, 4
"""


@pytest.fixture
def books(db: psycopg.Connection[Any]) -> Iterator[Books]:
    db.execute("set time zone 'UTC'")
    yield Books(db)


def different(books: Books) -> list[Any]:
    """Rows that the live views have too much or too little."""
    found = []
    counted = COUNTED.replace(
        "date_trunc('{grain}', coalesce(t.started_at, e.started_at), 'UTC')",
        "date_bin('15 minutes', coalesce(t.started_at, e.started_at), '2000-01-01 00:00:00+00')",
    )
    for live, recount in (
        ("select * from analytics.tool_15min_live", counted),
        (
            "select day::timestamp at time zone 'UTC', tool_name, status, bin, calls, duration_ms "
            "from analytics.tool_day_live",
            COUNTED.format(grain="day"),
        ),
    ):
        found += books.rows(f"({live}) except all ({recount})")
        found += books.rows(f"({recount}) except all ({live})")
    return found


def call(dice: random.Random) -> dict[str, Any]:
    began = dice.random() < 0.8
    return {
        "tool_name": dice.choice(["search", "calculate"]),
        "status": dice.choice(["running", "completed", "failed"]) if began else "requested",
        "started_at": START + timedelta(minutes=dice.randrange(2 * 24 * 60)) if began else None,
        "duration_ms": dice.choice([None, 0.1, 20.5, 1e6]) if began else None,
    }


def test_a_random_history_is_what_a_recount_says(books: Books) -> None:
    dice = random.Random(5)
    runs = [books.execution(started_at=START + timedelta(hours=7 * n)) for n in range(6)]
    calls: list[UUID] = []
    for step in range(80):
        match dice.choice(["insert", "insert", "change", "delete", "fold", "move"]):
            case "insert":
                rows = [
                    {"execution_id": dice.choice(runs), **call(dice)}
                    for _ in range(dice.randint(1, 5))
                ]
                calls += books.insert_rows("tool_calls", rows)
            case "change" if calls:
                books.change_tool_calls(*dice.sample(calls, min(3, len(calls))), **call(dice))
            case "move" if calls:
                books.change_tool_calls(dice.choice(calls), execution_id=dice.choice(runs))
            case "delete" if calls:
                books.delete_tool_calls(calls.pop(dice.randrange(len(calls))))
            case _:
                books.value("select analytics.fold(3)")
        if step % 10 == 9:
            assert different(books) == []
    while books.value("select analytics.fold(5)"):
        pass
    assert books.value("select count(*) from analytics.tool_deltas") == 0
    assert different(books) == []
    assert books.value("select count(*) from analytics.tool_15min") > 0
    assert books.findings() == {}


def test_periods_of_whole_quarters_are_exact(books: Books) -> None:
    dice = random.Random(6)
    run = books.execution(started_at=START)
    books.insert_rows("tool_calls", [{"execution_id": run, **call(dice)} for _ in range(200)])
    books.value("select analytics.fold(40)")
    recount = """
      select t.tool_name, t.status,
        case when t.duration_ms is null then -1 else analytics.latency_bin(t.duration_ms) end,
        count(*), coalesce(sum(t.duration_ms::numeric), 0)
      from chatter.tool_calls as t join chatter.workflow_executions as e on e.id = t.execution_id
      where coalesce(t.started_at, e.started_at) >= %s
        and coalesce(t.started_at, e.started_at) < %s
      group by 1, 2, 3
    """
    found = """
      select tool_name, status, bin, sum(calls)::bigint, sum(duration_ms)
      from analytics.tools_between(%s, %s) group by 1, 2, 3 having sum(calls) <> 0
    """
    for _ in range(40):
        since = START + dice.randrange(-20, 200) * timedelta(minutes=15)
        until = since + dice.randrange(200) * timedelta(minutes=15)
        rows = books.rows(found, since, until)
        assert sorted(rows) == sorted(books.rows(recount, since, until))


def test_a_run_that_goes_with_its_calls_takes_their_figures_along(books: Books) -> None:
    run = books.execution(started_at=START)
    books.tool_call(run)
    books.tool_call(run, status="completed", started_at=START, duration_ms=3)
    books.value("select analytics.fold()")
    books.connection.execute(
        "with t as (delete from chatter.tool_calls) delete from chatter.workflow_executions"
    )
    assert different(books) == []
    assert books.rows("select * from analytics.tool_day_live") == []


def test_a_run_with_calls_keeps_its_start(books: Books) -> None:
    run = books.execution(started_at=START)
    books.change_execution(run, started_at=START - timedelta(days=1))
    books.tool_call(run)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="booked by it"):
        books.change_execution(run, started_at=START)
    books.change_execution(run, started_at=START - timedelta(days=1))


def test_what_a_day_says_of_a_tool(books: Books) -> None:
    run = books.execution(started_at=START)
    rows = [
        {"execution_id": run, "status": "completed", "started_at": START, "duration_ms": ms}
        for ms in (10, 10, 10, 1000)
    ]
    books.insert_rows("tool_calls", [{"tool_name": "search", **row} for row in rows])
    books.tool_call(run)
    books.tool_call(run, status="failed", started_at=START, duration_ms=20)
    books.tool_call(run, tool_name="never")
    for _ in range(2):
        search, never = books.rows(
            "select tool_name, calls, completed, failed, never_run, mean_ms, p95_ms "
            "from analytics.tool_usage_live order by tool_name desc"
        )
        assert search[:6] == ("search", 6, 4, 1, 1, 210.0)
        assert 955 < search[6] < 1045
        assert never == ("never", 1, 0, 0, 1, None, None)
        books.value("select analytics.fold()")


def test_tool_rollups_are_counted_anew(books: Books) -> None:
    run = books.execution(started_at=START)
    books.tool_call(run, status="completed", started_at=START, duration_ms=Decimal("12.5"))
    books.value("select analytics.fold()")
    books.connection.execute("update analytics.tool_day set calls = 7")
    assert [row[:3] for row in books.findings()["tool_rollups"]] == [
        ("tool_day", START.replace(hour=0), "search")
    ]
    books.rebuild()
    assert books.findings() == {}
