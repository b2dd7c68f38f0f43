"""sql/checks: each check finds what it is for, says where, and its own advice mends it."""

import re
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from chatter_db.queries import checks

from .books import Books

NAMES = [check.name for check in checks()]


@pytest.fixture
def unseen(own_books: Books) -> Books:
    """Books whose statements no trigger sees."""
    own_books.connection.execute("set session_replication_role = replica")
    return own_books


def mends(books: Books, name: str) -> list[str]:
    """The statements that a check advises."""
    books.connection.execute("set session_replication_role = origin")
    (check,) = (check for check in checks() if check.name == name)
    return [part.strip() for part in check.mend.split(";") if part.strip()]


def run(books: Books, statement: str) -> None:
    books.connection.execute(statement)


def test_every_check_has_a_test() -> None:
    assert NAMES == [
        "conversation_totals",
        "dearest_conversations",
        "execution_totals",
        "latency_rollups",
        "live_views",
        "message_parents",
        "message_total_tokens",
        "tool_rollups",
        "triggers_enabled",
        "usage_rollups",
    ]


@pytest.mark.parametrize("check", checks(), ids=NAMES)
def test_a_check_says_what_holds_and_how_to_mend_it(check: object) -> None:
    (found,) = (c for c in checks() if c is check)
    assert re.fullmatch(r"[A-Z][^\n]+\.", found.title)
    assert found.mend
    assert "--" not in found.mend
    assert found.statement.text.startswith(f"-- {found.title}\n-- Mend: {found.mend}\n")


def test_new_books_are_right(own_books: Books) -> None:
    assert own_books.findings() == {}


def test_conversation_totals(unseen: Books) -> None:
    conversation = unseen.conversation()
    unseen.message(
        conversation,
        prompt_tokens=1,
        completion_tokens=2,
        total_tokens=3,
        usage_status="reported",
        cost="0.50",
        created_at="2026-05-04 12:00:00+00",
    )
    unseen.message(
        conversation, kind="step", usage_status="unknown", created_at="2026-05-04 11:00:00+00"
    )
    unseen.connection.execute("set time zone 'UTC'")
    found = unseen.findings()
    assert set(found) == {"conversation_totals", "usage_rollups"}
    assert found["conversation_totals"] == [
        (conversation, "completion_tokens", "0", "2"),
        (conversation, "last_message_at", None, "2026-05-04 12:00:00+00"),
        (conversation, "message_count", "0", "1"),
        (conversation, "prompt_tokens", "0", "1"),
        (conversation, "total_cost", "0", "0.5"),
        (conversation, "total_tokens", "0", "3"),
        (conversation, "unpriced_calls", "0", "1"),
    ]
    for statement in mends(unseen, "conversation_totals"):
        run(unseen, statement)
    assert set(unseen.findings()) == {"dearest_conversations", "usage_rollups"}
    for statement in mends(unseen, "usage_rollups"):
        run(unseen, statement)
    assert unseen.findings() == {}


def test_execution_totals(unseen: Books) -> None:
    unseen.connection.execute("set session_replication_role = origin")
    conversation = unseen.conversation()
    execution = unseen.execution(conversation)
    message = unseen.message(conversation, prompt_tokens=1, completion_tokens=2, cost="0.50")
    unseen.connection.execute("set session_replication_role = replica")
    # The conversation's sums stay right.
    unseen.change(message, execution_id=execution)
    unseen.tool_call(execution)
    found = unseen.findings()
    # That the message is of a workflow now, and that a tool was called.
    assert set(found) == {"execution_totals", "tool_rollups", "usage_rollups"}
    assert found["execution_totals"] == [
        (execution, "completion_tokens", "0", "2"),
        (execution, "model_calls", "0", "1"),
        (execution, "prompt_tokens", "0", "1"),
        (execution, "tool_calls", "0", "1"),
        (execution, "total_cost", "0", "0.5"),
        (execution, "total_tokens", "0", "3"),
    ]
    for name in ("execution_totals", "usage_rollups"):
        for statement in mends(unseen, name):
            run(unseen, statement)
    assert unseen.findings() == {}


def test_message_parents_mended_by_deleting(unseen: Books) -> None:
    nowhere, no_run = uuid4(), uuid4()
    message = unseen.message(nowhere, execution_id=no_run, role="user")
    assert unseen.findings() == {
        "message_parents": [(message, "conversation", nowhere), (message, "execution", no_run)]
    }
    (advice,) = [check.mend for check in checks() if check.name == "message_parents"]
    assert "delete the messages" in advice
    unseen.connection.execute("set session_replication_role = origin")
    assert unseen.delete(message) == 1
    assert unseen.findings() == {}


def test_message_parents_mended_by_moving(unseen: Books) -> None:
    message = unseen.message(uuid4(), execution_id=uuid4(), role="user")
    unseen.connection.execute("set session_replication_role = origin")
    conversation = unseen.conversation()
    unseen.change(message, conversation_id=conversation, execution_id=None)
    assert unseen.findings() == {}
    assert unseen.totals(conversation).message_count == 1


def test_message_parents_mended_by_inserting(unseen: Books) -> None:
    nowhere, no_run = uuid4(), uuid4()
    unseen.message(nowhere, execution_id=no_run, role="user")
    unseen.connection.execute("set session_replication_role = origin")
    unseen.conversation(id=nowhere)
    unseen.execution(nowhere, id=no_run)
    assert set(unseen.findings()) == {"conversation_totals", "usage_rollups"}
    unseen.recount()
    unseen.rebuild()
    assert unseen.findings() == {}


def test_message_parents_sees_one_missing_parent(unseen: Books) -> None:
    no_run = uuid4()
    conversation = unseen.conversation()
    message = unseen.message(conversation, execution_id=no_run, role="user")
    unseen.recount()
    unseen.rebuild()
    assert unseen.findings() == {"message_parents": [(message, "execution", no_run)]}


def test_message_total_tokens(unseen: Books) -> None:
    conversation = unseen.conversation()
    no_total = unseen.message(conversation, role="user", prompt_tokens=3)
    no_total_either = unseen.message(conversation, role="user", completion_tokens=4)
    no_status = unseen.message(conversation, role="user", model_used="small")
    unseen.message(conversation, role="user")
    unseen.recount()
    unseen.rebuild()
    found = unseen.findings()
    assert set(found) == {"message_total_tokens"}
    assert found["message_total_tokens"] == sorted(
        [
            (no_total, 3, None, None, None),
            (no_total_either, None, 4, None, None),
            (no_status, None, None, None, None),
        ]
    )
    for statement in mends(unseen, "message_total_tokens"):
        run(unseen, statement)
    assert unseen.findings() == {}
    assert unseen.totals(conversation).total_tokens == 7


def test_usage_rollups(own_books: Books) -> None:
    user = own_books.user("ada")
    own_books.message(
        own_books.conversation(user_id=user), role="user", created_at="2026-05-04 12:34:00+00"
    )
    own_books.connection.execute("set time zone 'UTC'")
    own_books.value("select analytics.fold()")
    run(own_books, "update analytics.usage_hourly set cost = 1")
    run(own_books, "delete from analytics.usage_user_day")
    hour, day = (datetime(2026, 5, 4, hour, tzinfo=UTC) for hour in (12, 0))
    assert own_books.findings() == {
        "usage_rollups": [
            ("usage_hourly", hour, "", "", "", "turn", None, "cost", "1", "0"),
            ("usage_user_day", day, None, "", "", None, user, "messages", None, "1"),
            ("usage_user_day", day, None, "", "", None, user, "turns", None, "1"),
        ]
    }
    for statement in mends(own_books, "usage_rollups"):
        run(own_books, statement)
    assert own_books.findings() == {}


def test_every_figure_of_every_rollup_is_compared(own_books: Books) -> None:
    late = "2026-05-31 12:34:00+00"
    run_id = own_books.execution(own_books.conversation())
    own_books.tool_call(run_id, duration_ms=3.0, started_at=late)
    a_call(own_books, created_at=late)
    # Where it is another hour, day and month by then: nobody's time zone makes findings.
    own_books.connection.execute("set time zone 'Pacific/Chatham'")
    assert own_books.findings() == {}
    own_books.connection.execute("set time zone 'UTC'")
    # What a rollup is of is in its key; the rest are figures.
    figures = own_books.rows(
        "select c.relname::text, a.attname::text from pg_class as c "
        "join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 "
        "where c.relnamespace = 'analytics'::regnamespace and c.relkind = 'r' "
        "and c.relname ~ '^(usage|latency|tool)_' and c.relname <> 'tool_deltas' "
        "and not exists (select from pg_index as i where i.indrelid = c.oid and i.indisunique "
        "and a.attnum = any(i.indkey)) order by 1, 2"
    )
    assert len(figures) == 5 * 13 + 2 + 2 * 2
    unseen = []
    for rollup, figure in figures:
        with own_books.connection.transaction(force_rollback=True):
            names = {"rollup": sql.Identifier("analytics", rollup), "f": sql.Identifier(figure)}
            run(own_books, sql.SQL("update {rollup} set {f} = {f} + 1").format(**names).as_string())
            found = own_books.findings()
            if not any(rollup in row for rows in found.values() for row in rows):
                unseen.append(f"{rollup}.{figure}")
    assert unseen == []


def a_call(books: Books, **columns: Any) -> None:
    row = {
        "role": "assistant",
        "model_used": "m",
        "response_time_ms": 20.0,
        "created_at": "2026-05-04 12:34:00+00",
        **columns,
    }
    books.message(books.conversation(user_id=books.user("ada")), **row)
    books.connection.execute("set time zone 'UTC'")
    books.value("select analytics.fold()")


def test_latency_rollups(own_books: Books) -> None:
    a_call(own_books, time_to_first_token_ms=20.0)
    run(own_books, "update analytics.latency_hour set calls = 3")
    run(own_books, "delete from analytics.latency_day")
    bin_, hour, day = 34, *(datetime(2026, 5, 4, hour, tzinfo=UTC) for hour in (12, 0))
    assert own_books.findings() == {
        "latency_rollups": [
            ("latency_day", day, "", "m", "first_token", bin_, 0, 1),
            ("latency_day", day, "", "m", "response", bin_, 0, 1),
            ("latency_hour", hour, "", "m", "first_token", bin_, 3, 1),
            ("latency_hour", hour, "", "m", "response", bin_, 3, 1),
        ]
    }
    for statement in mends(own_books, "latency_rollups"):
        run(own_books, statement)
    assert own_books.findings() == {}


def test_live_views(own_books: Books) -> None:
    a_call(own_books)
    run(own_books, "select analytics.refresh()")
    # As a fold would leave it that forgot to say which days it changed.
    run(own_books, "update analytics.latency_day set calls = 2")
    run(own_books, "update analytics.usage_user_day set cost = 1")
    found = own_books.findings()
    assert set(found) == {"latency_rollups", "live_views", "usage_rollups"}
    # A day and its week; the one day, model and measure.
    assert Counter(
        (view, told.get("cost", told.get("calls")), finding)
        for view, told, finding in found["live_views"]
    ) == {
        ("active_users", None, "told, and not so"): 2,
        ("active_users", 1, "so, and not told"): 2,
        ("latency_by_model", 1, "told, and not so"): 1,
        ("latency_by_model", 2, "so, and not told"): 1,
    }
    for statement in mends(own_books, "live_views"):
        run(own_books, statement)
    assert "live_views" not in own_books.findings()
    for statement in mends(own_books, "usage_rollups"):
        run(own_books, statement)
    assert own_books.findings() == {}


@pytest.mark.parametrize("state", ["disable", "enable always", "enable replica"])
def test_triggers_enabled(own_books: Books, state: str) -> None:
    run(own_books, f"alter table chatter.messages {state} trigger _200_book_insert")
    # Another schema's is nobody's business here.
    run(own_books, "create table public.theirs ()")
    run(
        own_books,
        "create trigger theirs before update on public.theirs "
        "for each row execute function suppress_redundant_updates_trigger()",
    )
    run(own_books, "alter table public.theirs disable trigger theirs")
    found = own_books.findings()
    assert set(found) == {"triggers_enabled"}
    letter = {"disable": b"D", "enable always": b"A", "enable replica": b"R"}[state]
    ((table, trigger, tgenabled),) = found["triggers_enabled"]
    assert (table, trigger) == ("messages", "_200_book_insert")
    assert tgenabled in (letter, letter.decode())
    template, *rest = mends(own_books, "triggers_enabled")
    assert rest == ["then: select * from chatter.recount()"]
    run(own_books, template.replace("<table>", table).replace("<trigger>", trigger))
    own_books.recount()
    assert own_books.findings() == {}


def test_a_foreign_key_that_is_switched_off_is_found(own_books: Books) -> None:
    own_books.connection.execute("alter table chatter.tool_calls disable trigger all")
    tables = {row[0] for row in own_books.findings()["triggers_enabled"]}
    assert "tool_calls" in tables


def test_a_check_changes_nothing(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set default_transaction_read_only = on")
        assert Books(connection).findings() == {}
