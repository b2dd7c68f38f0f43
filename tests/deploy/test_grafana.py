"""The Grafana dashboard: every query of it, as Grafana would send it and as chatter_reader."""

import json
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from chatter_db import Chatter
from chatter_db.importing import import_file
from chatter_db.workflow import execute_chat_workflow

ROOT = Path(__file__).parents[2]
TRACE = ROOT / "chatter_db" / "demo" / "aider_trace.csv"
BOARD = json.loads((ROOT / ".github" / "deploy" / "grafana.json").read_text("utf-8"))
QUERIES = {
    panel["title"]: (target["rawSql"], target["format"])
    for panel in BOARD["panels"]
    for target in panel["targets"]
}

# A run that goes on, a call without a price, one without usage, and a tool that failed.
REST = """
  with c as (insert into chatter.conversations (external_id) values ('odd') returning id),
  e as (
    insert into chatter.workflow_executions (conversation_id, workflow_name)
    select c.id, 'odd' from c returning id, conversation_id
  ),
  m as (
    insert into chatter.messages (
      conversation_id, execution_id, role, provider_used, model_used, usage_status, cost, status
    )
    select e.conversation_id, e.id, 'assistant', 'inhouse', 'llama', u.status, u.cost, u.ended
    from e
      cross join (values
        ('unknown', null::numeric, 'failed'), ('reported', 0.25, 'completed')
      ) as u (status, cost, ended)
    returning id
  )
  insert into chatter.tool_calls (execution_id, tool_name, status, duration_ms)
  select e.id, 'search', 'failed', 12 from e
"""


def sent(
    sql: str, since: datetime, until: datetime, time_zone: str = "UTC", step: str = "day"
) -> str:
    """What Grafana makes of a query: its macros are literals, its variables are text."""
    for written, meant in (
        ("$__timeFrom()", f"'{since:%Y-%m-%dT%H:%M:%SZ}'"),
        ("$__timeTo()", f"'{until:%Y-%m-%dT%H:%M:%SZ}'"),
        ("${__timezone}", time_zone),
        ("${step}", step),
    ):
        sql = sql.replace(written, meant)
    assert "$" not in sql, "a macro or variable that this test doesn't know"
    return sql


@pytest.fixture
async def booked(chatter: Chatter, url: str, db: psycopg.Connection[Any]) -> str:
    """A real trace, a chat with a tool, and what is odd; folded and refreshed."""
    import_file(url, TRACE)
    await execute_chat_workflow("What is 6 * 7?", user="ada", chatter=chatter)
    db.execute(REST)
    db.execute("select analytics.fold(100000)")
    db.execute("select analytics.refresh(true)")
    # What was not folded counts too.
    await execute_chat_workflow("What is 6 * 7?", user="ada", chatter=chatter)
    return url


@pytest.mark.parametrize("step", ["day", "hour"])
@pytest.mark.parametrize("time_zone", ["utc", "America/New_York", "Asia/Kathmandu"])
async def test_every_panel_shows_a_reader_something(booked: str, time_zone: str, step: str) -> None:
    assert len(QUERIES) == len(BOARD["panels"]) == 13
    with psycopg.connect(booked, options="-c role=chatter_reader", row_factory=dict_row) as reader:
        now = reader.execute("select current_user as who, chatter.clock() as at").fetchone()
        assert now is not None and now["who"] == "chatter_reader"
        since, until = now["at"] - timedelta(days=1500), now["at"] + timedelta(hours=1)
        for title, (sql, form) in QUERIES.items():
            rows = reader.execute(sent(sql, since, until, time_zone, step).encode()).fetchall()
            assert rows, title
            if form == "time_series":
                assert all(row["time"].tzinfo and row["metric"] for row in rows), title
                assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)


async def test_the_panels_tell_what_the_messages_do(
    booked: str, db: psycopg.Connection[Any]
) -> None:
    recount = db.execute(
        "select sum(cost), count(*) filter (where model_call), "
        "  sum(total_tokens), count(*) filter (where model_call and cost is null), "
        "  count(*) filter (where model_call and usage_status = 'unknown'), now() "
        "from chatter.messages"
    ).fetchone()
    assert recount is not None
    cost, calls, tokens, unpriced, unknown, now = recount
    assert unpriced == 1 and cost > 66

    with psycopg.connect(booked, options="-c role=chatter_reader", row_factory=dict_row) as reader:

        def rows(title: str) -> list[dict[str, Any]]:
            sql = sent(
                QUERIES[title][0], now - timedelta(days=1500), now + timedelta(hours=1), "UTC"
            )
            return reader.execute(sql.encode()).fetchall()

        (period,) = rows("Period")
        assert (period["cost"], period["calls"], period["tokens"]) == (cost, calls, tokens)
        assert (period["unpriced"], period["unknown usage"]) == (unpriced, unknown)
        for title in ("Cost by model", "Models", "Workflows"):
            assert sum((row["cost"] for row in rows(title)), Decimal()) == cost, title
        assert sum(row["total_tokens"] for row in rows("Tokens by model")) == tokens
        assert sum(row["calls"] for row in rows("Models")) == calls
        assert {row["user"] for row in rows("Users")} >= {"ada", "(nobody)"}
        assert [row["workflow"] for row in rows("Running now")] == ["odd"]
        tools = {row["tool"]: (row["calls"], row["failed"]) for row in rows("Tools")}
        assert tools == {"calculate": (2, 0), "search": (1, 1)}
        assert rows("How fresh")[0]["waiting"] > 0
        failed = {
            row["metric"]: row["failed"] for row in rows("Failed or cancelled calls by model")
        }
        assert failed["llama"] == 0.5


async def test_a_period_without_calls_says_so(booked: str) -> None:
    with psycopg.connect(booked, options="-c role=chatter_reader", row_factory=dict_row) as reader:
        day = datetime(2001, 1, 1)
        sql = sent(QUERIES["Period"][0], day, day + timedelta(days=1))
        shown = reader.execute(sql.encode()).fetchone()
    assert shown == {
        "cost": 0,
        "calls": 0,
        "tokens": 0,
        "failed": None,
        "unpriced": 0,
        "unknown usage": 0,
    }


def test_every_panel_asks_the_source_that_was_chosen() -> None:
    (source,) = [v for v in BOARD["templating"]["list"] if v["type"] == "datasource"]
    wanted = {"type": source["query"], "uid": f"${{{source['name']}}}"}
    for panel in BOARD["panels"]:
        assert panel["datasource"] == wanted
        assert [target["datasource"] for target in panel["targets"]] == [wanted]
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
