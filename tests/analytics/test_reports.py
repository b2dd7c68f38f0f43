"""The queries of sql/analytics: from psql and from Python, on a real trace."""

import asyncio
import csv
import io
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import func, select

from chatter_db import Chatter, Conversation, Message, User
from chatter_db.analytics import definitions, reports, run_report
from chatter_db.database import sync_engine
from chatter_db.errors import UsageError
from chatter_db.importing import import_file
from chatter_db.queries import resource
from tests.sql.books import Books

TRACE = Path(__file__).parents[2] / "chatter_db" / "demo" / "aider_trace.csv"
FILES = sorted((resource("sql") / "analytics").glob("*.sql"))
TOTAL = Decimal("66.629633285999407711297")

pytestmark = pytest.mark.skipif(shutil.which("psql") is None, reason="there is no psql here")


def test_the_document_is_what_the_database_says(url: str) -> None:
    engine = sync_engine(url)
    with engine.connect() as connection:
        written = (resource("sql") / "analytics" / "README.md").read_text("utf-8")
        assert definitions(connection) == written, "chatter report --definitions writes it anew"
    engine.dispose()


@pytest.fixture
def traced(url: str) -> str:
    import_file(url, TRACE)
    return url


@pytest.fixture
def reader(traced: str, db: psycopg.Connection[Any]) -> Iterator[str]:
    """The address of somebody who has the role chatter_reader and no other."""
    name = f"reader_{db.info.dbname}"
    db.execute(
        sql.SQL("create role {} login password 'reading' in role chatter_reader").format(
            sql.Identifier(name)
        )
    )
    yield f"postgresql://{name}:reading@{db.info.host}:{db.info.port}/{db.info.dbname}"
    db.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def run_psql(url: str, file: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    set_ = [f"--set={name}={value}" for name, value in variables.items()]
    return subprocess.run(
        ["psql", "-X", "-q", "--csv", "--set=ON_ERROR_STOP=1", *set_, "-d", url, "-f", file],
        capture_output=True,
        text=True,
        check=False,
    )


def psql(url: str, file: Path, **variables: str) -> list[dict[str, str]]:
    """The rows that psql prints."""
    done = run_psql(url, file, **variables)
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout)))


def shown(value: Any) -> str:
    return "" if value is None else f"{value:f}" if isinstance(value, Decimal) else str(value)


async def test_psql_and_python_tell_the_same(reader: str, traced: str) -> None:
    assert len(FILES) == len(reports()) >= 15
    async with Chatter.connect(traced) as chatter, chatter.session() as session:
        for file in FILES:
            table = await run_report(session, file.stem)
            rows = psql(reader, file)
            assert len(rows) == len(table.rows), file.stem
            for row, printed in zip(table.rows, rows, strict=True):
                assert tuple(printed) == table.columns
                for value, text in zip(row, printed.values(), strict=True):
                    if not hasattr(value, "tzinfo"):  # psql prints local time
                        assert shown(value) == text, file.stem


def test_psql_refuses_a_period_that_can_not_be(reader: str) -> None:
    """An empty answer would look like one in which nothing was spent."""
    over_time = [file for file in FILES if "until" in reports()[file.stem].defaults]
    assert len(over_time) >= 15
    upside_down = (
        "2026-01-02",
        "2026-01-01",
        "since (2026-01-02) must be before until (2026-01-01).",
    )
    others = (
        ("tomorrow", "tomorrow", "since (tomorrow) must be before until (tomorrow)."),
        ("2026-01-01 08:00+02", "2026-01-02", "no offset or time zone of its own"),
        *(
            ("2026-01-01", f"2026-01-02{zoned}", "no offset or time zone of its own")
            for zoned in (
                *("T08:00Z", " 8:00:00.5 Asia/Tokyo", " 08:00 CET", " 08:00 PST", " 8:00 EST5EDT"),
                *(" 08:00 America/Port-au-Prince", " 08:00 Etc/GMT+5", " 08:00 zulu", " +02", "Z"),
                *(" -02", " 08:00 -02", " 8:00 PM -0230", "T080000-05", " 080000.5 -05"),
            )
        ),
    )
    for file in over_time:
        for since, until, said in (upside_down, *(others if file is over_time[0] else ())):
            done = run_psql(reader, file, since=since, until=until)
            assert (done.returncode, done.stdout) == (3, ""), file.stem
            assert said in done.stderr, file.stem
        for until in ("feb 1 2026 8:00:00 pm", "Sunday, February 1, 2026", "20260201T200000"):
            psql(reader, file, since="2026-01-31 08:00", until=until)
            if file is not over_time[0]:
                break


def test_psql_refuses_an_offset_as_a_time_zone(reader: str) -> None:
    """To Postgres UTC+5 is five hours west of Greenwich."""
    for file in (file for file in FILES if "time_zone" in reports()[file.stem].defaults):
        done = run_psql(reader, file, time_zone="UTC+5")
        assert (done.returncode, done.stdout) == (3, ""), file.stem
        assert "No time zone UTC+5; names are like" in done.stderr, file.stem


def test_psql_asks_whose_usage_is_meant(reader: str) -> None:
    (file,) = (file for file in FILES if "user_id" in reports()[file.stem].defaults)
    assert "Whose? -v user_id=ID" in run_psql(reader, file).stderr
    user = "01a20b89-bfa0-7017-934b-bf64428340a4"
    assert run_psql(reader, file, user_id=user).stderr == ""


async def test_all_that_was_committed_by_as_of_is_in_it(chatter: Chatter, db: Any) -> None:
    """Also of a snapshot that is older than the question."""
    talk = db.execute("insert into chatter.conversations default values returning id").fetchone()
    async with chatter.session() as session:
        await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        await session.scalar(select(func.now()))
        await asyncio.to_thread(
            db.execute,
            "insert into chatter.messages (conversation_id, role) values (%s, 'assistant')",
            talk,
        )
        (committed,) = db.execute("select clock_timestamp()").fetchone()
        table = await run_report(session, "cost_by_model")
        assert table.rows == []
        assert table.as_of < committed


def test_the_sums_of_the_trace(reader: str) -> None:
    for name in (
        "cost_by_user",
        "cost_by_model",
        "cost_by_conversation",
        "cost_by_provider",
        "cost_by_workflow",
        "cost_by_day",
        "cost_by_hour",
        "usage_by_time",
        "monthly_bill",
    ):
        rows = psql(reader, FILES[0].with_name(f"{name}.sql"))
        assert sum(Decimal(row["cost"]) for row in rows) == TOTAL, name


def test_nobody_is_left_out_of_a_cost(reader: str, db: psycopg.Connection[Any]) -> None:
    """Who adds up a report has the bill, however many there are."""
    db.execute(
        "with u as (insert into chatter.users (external_id) "
        "select 'u' || n from generate_series(1, 60) as n returning id), "
        "c as (insert into chatter.conversations (user_id) select id from u returning id) "
        "insert into chatter.messages (conversation_id, role, model_used, cost, created_at) "
        "select id, 'assistant', 'm' || row_number() over (), 1, '2026-05-04' from c"
    )
    period = {"since": "2026-05-04", "until": "2026-05-05"}
    for name in ("cost_by_user", "cost_by_model", "cost_by_conversation"):
        file = FILES[0].with_name(f"{name}.sql")
        for limit, rows in (({}, 60), ({"limit": "all"}, 60), ({"limit": "50"}, 50)):
            assert len(psql(reader, file, **period, **limit)) == rows, name


def test_the_dearest_conversations_of_the_trace(reader: str) -> None:
    rows = psql(reader, FILES[0].with_name("dearest_conversations.sql"), limit="2")
    assert [(row["conversation"], row["cost"]) for row in rows] == [
        ("aider-1409", "5.668026000000000104"),
        ("aider-1653", "5.104182000000000109"),
    ]


def test_a_period_is_of_its_time_zone(reader: str, db: psycopg.Connection[Any]) -> None:
    bounds = {"since": "2025-03-08", "until": "2025-03-09", "time_zone": "Asia/Kathmandu"}
    recount = db.execute(
        "select count(*), trim_scale(sum(cost))::text from chatter.messages "
        "where (created_at at time zone 'Asia/Kathmandu')::date = '2025-03-08'"
    ).fetchone()
    assert recount is not None
    for name in ("cost_by_day", "cost_by_user", "cost_by_provider"):
        rows = psql(reader, FILES[0].with_name(f"{name}.sql"), **bounds)
        assert sum(int(row["calls"]) for row in rows) == recount[0] > 0
        assert sum(Decimal(row["cost"]) for row in rows) == Decimal(recount[1])


ZONES = ("UTC", "Etc/GMT-14", "Etc/GMT+12")


@pytest.mark.parametrize("session_zone", ZONES)
async def test_today_is_that_of_the_time_zone(url: str, session_zone: str) -> None:
    """At least one of these zones has another date than UTC, at any time."""
    async with Chatter.connect(url) as chatter, chatter.session() as session, session.begin():
        await session.execute(select(func.set_config("timezone", session_zone, False)))
        ada, talk = uuid4(), uuid4()
        session.add(User(id=ada, external_id="ada"))
        await session.flush()
        session.add(Conversation(id=talk, user_id=ada))
        await session.flush()
        session.add(
            Message(
                conversation_id=talk,
                role="assistant",
                model_used="gpt-4o",
                cost=Decimal(1),
                created_at=func.now(),
            )
        )
        await session.flush()
        for zone in ZONES:
            today = {"since": "today", "time_zone": zone}
            for name in ("cost_by_provider", "cost_by_user", "cost_by_day", "usage_by_time"):
                assert (await run_report(session, name, **today)).rows, (name, zone)
                assert (await run_report(session, name, time_zone=zone)).rows, (name, zone)
                before = {"since": "yesterday", "until": "today", "time_zone": zone}
                assert not (await run_report(session, name, **before)).rows, (name, zone)
        own = await run_report(session, "usage_of_user", user_id=str(ada), since="today")
        assert own.rows


@pytest.mark.parametrize("step", ["hour", "day"])
def test_a_chart_of_empty_books_takes_no_steps(db: psycopg.Connection[Any], step: str) -> None:
    db.execute("set statement_timeout = '3s'")
    rows = db.execute(
        "select * from analytics.usage_steps('1970-01-01', '9999-12-31', 'UTC', %s)",
        [step],
    )
    assert rows.fetchall() == []


@pytest.mark.parametrize(
    ("since", "until"),
    [("2025-03-08", "2025-03-09"), ("2025-03-08 12:01", "2025-03-09 00:07")],
    ids=["a day", "to the quarter of an hour"],
)
def test_failed_calls_are_those_of_the_period(
    reader: str, db: psycopg.Connection[Any], since: str, until: str
) -> None:
    db.execute(
        "insert into chatter.messages (conversation_id, role, model_used, status, cost, created_at)"
        " select c.id, 'assistant', 'failing', s.status, s.cost, t.at"
        " from (select id from chatter.conversations limit 1) as c,"
        " (values ('completed', 1), ('failed', 2), ('failed', null), ('cancelled', 4))"
        " as s (status, cost),"
        " (values (timestamptz '2025-03-07 23:59:59.999999+00'), ('2025-03-08 00:00+00'),"
        " ('2025-03-08 12:07+00'), ('2025-03-08 23:59:59+00'), ('2025-03-09 00:00+00'),"
        " ('2025-03-09 00:10+00')) as t (at)"
    )
    (row,) = (
        row
        for row in psql(
            reader,
            FILES[0].with_name("error_rates.sql"),
            since=since,
            until=until,
        )
        if row["model"] == "failing"
    )
    assert row == {
        "provider": "",
        "model": "failing",
        "calls": "12",
        "failed": "6",
        "cancelled": "3",
        "share": "0.7500",
        "cost_of_failures": "18",
        "failures_of_unknown_cost": "3",
    }


def test_readers_read_figures_and_nothing_else(reader: str) -> None:
    with psycopg.connect(reader, autocommit=True) as connection:
        for refused in (
            "select content from chatter.messages",
            "select hash from chatter.passwords",
            "select analytics.fold()",
            "select analytics.refresh()",
            "delete from analytics.deltas",
            "update analytics.state set worker = 'me'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(refused)


@pytest.mark.parametrize(
    ("name", "variables", "said"),
    [
        ("nonsense", {}, "No report 'nonsense'; there are active_users, anomalies"),
        ("running", {"since": "2026-01-01"}, "running has no since; its variables are none"),
        ("cost_by_day", {"since": "2026-01-02", "until": "2026-01-01"}, "must be before until"),
        ("cost_by_day", {"since": "tomorrow", "until": "today"}, "must be before until"),
        ("cost_by_day", {"since": "today", "until": "2026-01-01"}, "must be before until"),
        ("usage_of_user", {"since": "9000-01-01"}, r"before until \(tomorrow\)"),
        ("cost_by_day", {"since": "soon"}, "since must be a date or time like 2026-01-31"),
        ("cost_by_day", {"since": "2026-01-01T00:00+02:00"}, "has no offset"),
        ("cost_by_day", {"time_zone": "Mars/Phobos"}, "No time zone Mars/Phobos; names"),
        ("cost_by_day", {"time_zone": "UTC+5"}, r"No time zone UTC\+5; names are like"),
        ("cost_by_day", {"time_zone": "+05:30"}, r"No time zone \+05:30; names"),
        ("cost_by_day", {"time_zone": "Etc/GMT+5:30"}, r"No time zone Etc/GMT\+5:30; names"),
        ("cost_by_day", {"time_zone": "Etc/GMT+13"}, r"No time zone Etc/GMT\+13; names"),
        ("cost_by_day", {"time_zone": "Etc/UTC5"}, "No time zone Etc/UTC5; names"),
        (
            "cost_by_user",
            {"limit": -1},
            "limit must be a number of lines, from 1 on, or all; not -1",
        ),
        ("cost_by_user", {"limit": 0}, "limit must be a number"),
        ("cost_by_user", {"limit": "\N{SUPERSCRIPT TWO}"}, "limit must be a number"),
        ("cost_by_user", {"limit": "\N{ARABIC-INDIC DIGIT THREE}"}, "limit must be a number"),
    ],
)
async def test_what_cant_be_asked_is_said(
    chatter: Chatter, name: str, variables: dict[str, Any], said: str
) -> None:
    async with chatter.session() as session:
        with pytest.raises(UsageError, match=said):
            await run_report(session, name, **variables)


async def test_every_name_of_a_time_zone_is_one(
    chatter: Chatter, db: psycopg.Connection[Any]
) -> None:
    named = "select name from pg_timezone_names where name ~ '[0-9]' and name !~ '^posix'"
    names = [name for (name,) in db.execute(named)]
    assert {"EST5EDT", "Etc/GMT+5", "GMT0"} <= set(names)
    async with chatter.session() as session:
        for name in names:
            await run_report(session, "cost_by_day", time_zone=name)


async def test_a_time_in_any_form_of_iso_8601(chatter: Chatter) -> None:
    """Of which Postgres knows fewer."""
    async with chatter.session() as session:
        for since in ("2026-W05", "2026-05-04T08", "2026-05-04T08:00:00,5", "20260504"):
            await run_report(session, "cost_by_day", since=since)


async def test_days_that_a_period_touches_are_told_of_a_user(
    chatter: Chatter, db: psycopg.Connection[Any], reader: str
) -> None:
    books = Books(db)
    user = books.user("ada")
    at = datetime(2026, 5, 4, 10, tzinfo=UTC)
    books.message(books.conversation(user_id=user), cost=1, created_at=at)
    hours = ("2026-05-04T08:00", "2026-05-04T20:00")
    async with chatter.session() as session:
        for since, until in (hours, ("2026-05-04", hours[1]), (hours[0], "2026-05-05")):
            asked = {"user_id": str(user), "since": since, "until": until}
            table = await run_report(session, "usage_of_user", **asked)
            assert [row[0].isoformat() for row in table.rows] == ["2026-05-04"]
            [file] = [file for file in FILES if file.stem == "usage_of_user"]
            assert len(psql(reader, file, **asked)) == 1


def test_calls_without_a_known_price_have_no_cost(reader: str, db: psycopg.Connection[Any]) -> None:
    """Not one of 0; beside calls with one they are told by their number."""
    conversation = db.execute(
        "insert into chatter.conversations (external_id) values ('c') returning id"
    ).fetchone()
    assert conversation
    for model, cost in (("mine", None), ("half", None), ("half", "0.5"), ("free", "0")):
        db.execute(
            "insert into chatter.messages (conversation_id, role, model_used, provider_used, "
            "prompt_tokens, completion_tokens, cost, usage_status, created_at) "
            "values (%s, 'assistant', %s, 'own', 1, 1, %s, 'reported', '2026-05-04')",
            [conversation[0], model, cost],
        )
    period = {"since": "2026-05-04", "until": "2026-05-05"}
    found = psql(reader, FILES[0].with_name("cost_by_model.sql"), **period)
    assert [(row["model"], row["cost"], row["unpriced_calls"]) for row in found] == [
        ("half", "0.5", "1"),
        ("free", "0", "0"),
        ("mine", "", "1"),
    ]
    db.execute("delete from chatter.messages where cost is not null")
    of_a_cost = [name for name in reports() if name.startswith("cost_by_")]
    for name in (*of_a_cost, "monthly_bill", "usage_by_time"):
        rows = psql(reader, FILES[0].with_name(f"{name}.sql"), **period)
        assert {row["cost"] for row in rows} == {""}, name
        assert sum(int(row["unpriced_calls"]) for row in rows) == 2, name
