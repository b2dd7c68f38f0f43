"""What each report tells, of books that are small enough to count by hand."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest

from chatter_db import Chatter
from chatter_db.analytics import reports, run_report
from chatter_db.queries import query
from tests.sql.books import Books


@pytest.fixture
def books(db: psycopg.Connection[Any]) -> Books:
    return Books(db)


async def told(chatter: Chatter, name: str, **variables: Any) -> list[dict[str, Any]]:
    """The rows of a report."""
    async with chatter.session() as session:
        table = await run_report(session, name, **variables)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def at(day: int, hour: int = 0, minute: int = 0, *, month: int = 3) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


async def test_every_figure_is_in_its_column(chatter: Chatter, books: Books) -> None:
    """One run with a question, a good and a failed call: no two of its figures are the same."""
    ada = books.user("ada")
    talk = books.conversation(user_id=ada, external_id="talk")
    run = books.execution(talk, workflow_name="support", user_id=ada)
    asked = {"execution_id": run, "created_at": at(1, 9, 5)}
    called = {**asked, "provider_used": "openai", "model_used": "gpt-4o"}
    books.message(talk, role="user", **asked)
    books.message(
        talk, prompt_tokens=100, completion_tokens=20, total_tokens=150, cost="0.5", **called
    )
    failed = {"kind": "step", "status": "failed", "usage_status": "unknown"}
    for _ in range(3):
        books.message(talk, **failed, **called)
    calls = {"calls": 4, "unpriced_calls": 3, "cost": Decimal("0.5")}
    tokens = {"prompt_tokens": 100, "completion_tokens": 20}
    named = {"provider": "openai", "model": "gpt-4o"}
    # The question names no model.
    question = {"calls": 0, "failed_calls": 0, "total_tokens": 0, "cost": 0, "unpriced_calls": 0}
    by_model = [
        {"model": "gpt-4o", "failed_calls": 3, "turns": 1, "total_tokens": 150, **calls},
        {"model": "", "turns": 1, **question},
    ]
    whole = {"since": "2026-03-01", "until": "2026-03-02"}
    by_user: dict[str, Any] = {"user_id": str(ada), **whole}
    total = {"total_tokens": 150}
    for name, variables, rows in (
        ("cost_by_day", whole, [{"day": date(2026, 3, 1), "turns": 2, **tokens, **calls}]),
        (
            "cost_by_hour",
            whole,
            [{"hour": datetime(2026, 3, 1, 9), **total, **calls}],
        ),
        ("cost_by_model", whole, [{**named, "failed_calls": 3, **tokens, **total, **calls}]),
        ("cost_by_provider", whole, [{"provider": "openai", **total, **calls}]),
        ("cost_by_user", whole, [{"user": "ada", **tokens, **total, **calls}]),
        (
            "cost_by_workflow",
            whole,
            [{"workflow_name": "support", "turns": 2, **total, **calls}],
        ),
        (
            "cost_by_conversation",
            whole,
            [{"conversation_id": talk, "conversation": "talk", **total, **calls}],
        ),
        (
            "usage_by_time",
            {**whole, "step": "hour"},
            [{"at": datetime(2026, 3, 1, 9), **row} for row in by_model],
        ),
        ("usage_of_user", by_user, [{"day": date(2026, 3, 1), **row} for row in by_model]),
        (
            "monthly_bill",
            whole,
            [{"month": date(2026, 3, 1), "user": "ada", **named, **tokens, **calls}],
        ),
    ):
        assert await told(chatter, name, **variables) == rows, name
    (running,) = await told(chatter, "running")
    assert running.pop("seconds") >= 0
    assert running.pop("started_at") is not None
    assert running == {
        **{"execution_id": run, "workflow_name": "support", "conversation_id": talk},
        **{"model_calls": 4, "tool_calls": 0, **total, "cost": calls["cost"]},
        "unpriced_calls": 3,
    }


async def test_what_was_corrected_away_is_in_no_report(chatter: Chatter, books: Books) -> None:
    ada = books.user("ada")
    talk = books.conversation(user_id=ada)
    run = books.execution(talk, status="completed")
    for ms in (100, 200):
        message = books.message(
            talk, execution_id=run, model_used="gpt-4o", prompt_tokens=10, cache_read_tokens=5
        )
        books.change(message, response_time_ms=ms, time_to_first_token_ms=ms / 2, cost=1)
        call = books.tool_call(run, message_id=message, duration_ms=ms)
        if ms == 100:
            books.value("select analytics.fold()")
        books.delete_tool_calls(call)
        books.delete(message)
    for name, report in reports().items():
        mine = {"user_id": str(ada)} if "user_id" in report.defaults else {}
        assert await told(chatter, name, **mine) == [], name


async def test_a_period_begins_with_since_and_ends_before_until(
    chatter: Chatter, books: Books
) -> None:
    """Days of Berlin, an hour before those of UTC; and of what failed, each kind of end."""
    ada, bob = books.user("ada"), books.user("bob")
    talk, other = books.conversation(user_id=ada), books.conversation(user_id=bob)
    before, first, last, after = at(9, 22, 59), at(9, 23), at(11, 22, 59), at(11, 23)
    for moment, cost in ((before, 1), (first, 2), (last, 4), (after, 8)):
        for where in (talk, other):
            books.message(where, model_used="gpt-4o", cost=cost, created_at=moment)
        for status, error in (
            ("failed", "Timeout"),
            ("cancelled", None),
            ("abandoned", "Abandoned"),
            ("completed", None),
        ):
            run = books.execution(
                talk, started_at=moment, status=status, finished_at=after, error_type=error
            )
            books.message(talk, execution_id=run, cost=cost * 10, created_at=at(1, month=1))
    berlin = {"since": "2026-03-10", "until": "2026-03-12", "time_zone": "Europe/Berlin"}

    def of(row: dict[str, Any], *columns: str) -> tuple[Any, ...]:
        return tuple(row[column] for column in columns)

    found = await told(chatter, "cost_by_conversation", **berlin)
    both = sorted([(talk, 2, 6), (other, 2, 6)])
    assert [of(row, "conversation_id", "calls", "cost") for row in found] == both
    assert await told(chatter, "cost_by_conversation", **berlin, limit=1) == found[:1]

    bill = await told(chatter, "monthly_bill", **berlin)
    assert [of(row, "user", "calls", "cost") for row in bill] == [("ada", 2, 6), ("bob", 2, 6)]

    utc = {"since": "2026-03-09", "until": "2026-03-11", "user_id": str(ada)}
    days = await told(chatter, "usage_of_user", **utc)
    assert [of(row, "day", "calls", "cost") for row in days] == [(date(2026, 3, 9), 2, 3)]

    failures = await told(chatter, "cost_of_failures", **berlin)
    figures = ("status", "error_type", "executions", "calls", "cost")
    assert [of(row, *figures) for row in failures] == [
        ("abandoned", "Abandoned", 2, 2, 60),
        ("cancelled", "", 2, 2, 60),
        ("failed", "Timeout", 2, 2, 60),
    ]


async def test_a_bill_is_of_the_months_of_its_time_zone(chatter: Chatter, books: Books) -> None:
    ada = books.user("ada")
    talks = (books.conversation(user_id=ada), books.conversation())
    for talk in talks:
        # In Berlin: the ends of January, February and March, the last in summer time.
        for moment in (at(31, 22, month=1), at(31, 23, month=1), at(28, 23, month=2)):
            books.message(talk, model_used="gpt-4o", cost=1, created_at=moment)
        books.message(talk, model_used="gpt-4o", cost=2, created_at=at(31, 21, 59))
        books.message(talk, model_used="gpt-4o", cost=4, created_at=at(31, 22))
    bill = await told(chatter, "monthly_bill", time_zone="Europe/Berlin", until="2026-04-01")
    assert [(row["month"].month, row["user"], row["calls"], row["cost"]) for row in bill] == [
        (month, user, calls, cost)
        for month, calls, cost in ((1, 1, 1), (2, 1, 1), (3, 2, 3))
        for user in ("(nobody)", "ada")
    ]


async def test_a_midnight_that_comes_twice_begins_a_day_once(
    chatter: Chatter, books: Books
) -> None:
    """In Havana November began at 4:00 UTC, and an hour later once more."""
    talk = books.conversation(user_id=books.user("ada"))
    for cost, hour, minute in ((1, 3, 59), (2, 4, 0), (4, 4, 59), (8, 5, 0)):
        moment = at(1, hour, minute, month=11)
        books.message(talk, model_used="gpt-4o", cost=cost, created_at=moment)
        run = books.execution(talk, started_at=moment, status="failed", finished_at=at(2, month=11))
        books.message(talk, execution_id=run, cost=cost * 16, created_at=at(1))
    before = {"since": "2026-10-31", "until": "2026-11-01", "time_zone": "America/Havana"}
    november = {"since": "2026-11-01", "until": "2026-12-01", "time_zone": "America/Havana"}
    for period, cost in ((before, 1), (november, 14)):
        for name in (
            *("cost_by_day", "cost_by_hour", "cost_by_conversation", "cost_by_model"),
            *("cost_by_provider", "cost_by_user", "cost_by_workflow", "monthly_bill"),
            "usage_by_time",
        ):
            found = await told(chatter, name, **period)
            assert sum(row["cost"] for row in found) == cost, name
        [failed] = await told(chatter, "cost_of_failures", **period)
        assert failed["cost"] == cost * 16
    bill = await told(chatter, "monthly_bill", since="2026-10-01", time_zone="America/Havana")
    assert [(row["month"].month, row["cost"]) for row in bill] == [(10, 1), (11, 14)]


async def test_an_unknown_cost_is_not_0(chatter: Chatter, books: Books) -> None:
    ada = books.user("ada")
    talk = books.conversation(user_id=ada)
    called = {"model_used": "own", "kind": "step", "status": "failed"}
    for status, costs in (("running", [None]), ("failed", [None, None]), ("cancelled", [0, None])):
        ended = {} if status == "running" else {"finished_at": at(1), "started_at": at(1)}
        run = books.execution(talk, status=status, **ended)
        # A question has no cost either, and is no call.
        books.message(talk, role="user", execution_id=run, created_at=at(1))
        for cost in costs:
            model = {**called, "model_used": "free"} if cost == 0 else called
            books.message(talk, execution_id=run, cost=cost, created_at=at(1), **model)
    free = books.conversation(user_id=ada)
    books.message(free, model_used="free", cost=0, created_at=at(20))
    late = books.conversation(user_id=ada)
    books.message(late, model_used="own", created_at=at(25))

    (running,) = await told(chatter, "running")
    assert (running["cost"], running["unpriced_calls"]) == (None, 1)
    figures = ("status", "calls", "cost", "unpriced_calls")
    failures = await told(chatter, "cost_of_failures")
    assert [tuple(row[name] for name in figures) for row in failures] == [
        ("cancelled", 2, 0, 1),
        ("failed", 2, None, 2),
    ]
    rates = await told(chatter, "error_rates")
    assert sorted(
        (row["model"], row["cost_of_failures"], row["failures_of_unknown_cost"]) for row in rates
    ) == [("free", 0, 0), ("own", None, 4)]
    talks = await told(chatter, "cost_by_conversation")
    assert [(row["conversation_id"], row["cost"]) for row in talks] == [
        (talk, 0),
        (free, 0),
        (late, None),
    ]
    async with chatter.session() as session:
        models = await session.execute(query("dearest_models"), {"limit": 8})
        assert [(row.model, row.cost) for row in models] == [("free", 0), ("own", None)]
    days = [row for row in await told(chatter, "active_users") if row["period"] == "day"]
    assert [(row["starts"].day, row["cost"]) for row in days] == [(25, None), (20, 0), (1, 0)]


async def test_what_was_paid_for_without_a_call_is_in_the_parts_too(
    chatter: Chatter, books: Books
) -> None:
    """Whether or not a call without a model stands beside it."""
    talk = books.conversation(user_id=books.user("ada"))
    books.message(talk, role="tool", cost=3, created_at=at(1))
    books.message(talk, role="user", created_at=at(1))
    for calls in (0, 1):
        if calls:
            books.message(talk, cost=1, created_at=at(1))
        for name in ("cost_by_day", "cost_by_model", "cost_by_provider", "monthly_bill"):
            rows = await told(chatter, name)
            assert [(row["calls"], row["cost"]) for row in rows] == [(calls, 3 + calls)], name
        found = books.row("select calls, cost from analytics.usage_by_model_live")
        assert found == (calls, 3 + calls)


async def test_a_bill_of_nobody_is_not_that_of_a_user_called_so(
    chatter: Chatter, books: Books
) -> None:
    for user in (books.user("(nobody)"), None):
        talk = books.conversation(user_id=user)
        books.message(talk, model_used="gpt-4o", cost=1, created_at=at(1))
    bill = await told(chatter, "monthly_bill")
    assert [(row["user"], row["calls"], row["cost"]) for row in bill] == [("(nobody)", 1, 1)] * 2


async def test_what_is_dear_beside_what_its_user_usually_spends(
    chatter: Chatter, books: Books
) -> None:
    def spend(user: UUID | None, *costs: str) -> list[UUID]:
        talks = [books.conversation(user_id=user) for _ in costs]
        for talk, cost in zip(talks, costs, strict=True):
            books.message(talk, cost=cost)
        return talks

    # Ten times is not more than ten times, what cost nothing is no habit, and of four
    # conversations none is usual.
    *_, dear = spend(books.user("ada"), "1", "1", "1", "10", "10.5", "0", "0", "0", "0", "0")[:5]
    spend(books.user("bob"), "1", "1", "1", "100", "0")
    *_, nobodys = spend(None, "2", "2", "2", "2", "80")
    found = await told(chatter, "anomalies")
    figures = ("conversation_id", "user", "cost", "usual_cost", "times_usual")
    assert [tuple(row[name] for name in figures) for row in found] == [
        (nobodys, None, 80, 2, 40),
        (dear, "ada", Decimal("10.5"), 1, Decimal("10.5")),
    ]
    assert await told(chatter, "anomalies", limit=1) == found[:1]


async def test_a_small_cost_is_not_rounded_to_0(chatter: Chatter, books: Books) -> None:
    ada = books.user("ada")
    # Of six the median is between two of them: exact, with a decimal more than theirs.
    for cost in ("0.00000001", "0.00000001", "0.00000001", "0.00000002", "0.00000002", "0.00001"):
        books.message(books.conversation(user_id=ada), cost=cost)
    (dear,) = await told(chatter, "anomalies")
    assert (dear["usual_cost"], dear["cost"]) == (Decimal("0.000000015"), Decimal("0.00001"))


async def test_how_long_models_and_tools_take(chatter: Chatter, books: Books) -> None:
    """Percentiles by nearest rank: 20 of them are half a bin, 4.5 %, off at most."""
    talk = books.conversation()
    took = [10.0] * 3 + [100.0] * 7 + [1000.0] * 9 + [10_000.0]
    first = {"response_time_ms": None, "time_to_first_token_ms": 5.0}
    timed = [{"response_time_ms": ms, "time_to_first_token_ms": None} for ms in took]
    books.messages(
        {"conversation_id": talk, "model_used": "gpt-4o", "created_at": at(1, 9), **times}
        for times in [*timed, first]
    )
    run = books.execution(talk, started_at=at(1, 9))
    # Of those that never ran nobody knows how long they take.
    for status in ("requested", "requested", "cancelled"):
        books.tool_call(run, status=status)
    for ms in took:
        status = "failed" if ms > 1000 else "completed"
        books.tool_call(run, status=status, duration_ms=ms, started_at=at(1, 9))

    def near(ms: float) -> Any:
        return pytest.approx(ms, rel=0.045)

    day = {"since": "2026-03-01", "until": "2026-03-02"}
    for folded in (False, True):
        if folded:
            books.value("select analytics.fold()")
        slowest = await told(chatter, "slowest_models", **day)
        figures = ("measure", "calls", "p50_ms", "p95_ms", "p99_ms")
        assert [tuple(map(plainly, (row[name] for name in figures))) for row in slowest] == [
            ("response", 20, near(100), near(1000), near(10_000)),
            ("first_token", 1, near(5), near(5), near(5)),
        ]
        (tools,) = await told(chatter, "tools", **day)
        assert {name: plainly(value) for name, value in tools.items()} == {
            "tool": "search",
            **{"calls": 23, "failed": 1, "never_run": 2, "mean_ms": 986.5, "p95_ms": near(1000)},
        }


def plainly(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value


async def test_what_is_not_known_and_what_came_from_a_cache(chatter: Chatter, books: Books) -> None:
    talk = books.conversation()
    for model, columns in (
        ("known", {"cost": 1, "prompt_tokens": 10}),
        ("unpriced", {"prompt_tokens": 10}),
        ("unpriced", {"prompt_tokens": 10}),
        ("unread", {"cost": 1, "usage_status": "unknown"}),
        # A prompt of another run that nothing was read from the cache for.
        ("cached", {"cost": 1, "prompt_tokens": 300, "kind": "step"}),
        ("cached", {"cost": 1, "prompt_tokens": 100, "cache_read_tokens": 50}),
        ("writes", {"cost": 1, "prompt_tokens": 10, "cache_write_tokens": 10}),
    ):
        books.message(talk, model_used=model, **columns)
    unpriced = await told(chatter, "unpriced")
    assert [tuple(row.values()) for row in unpriced] == [
        ("", "unpriced", 2, 2, 0),
        ("", "unread", 1, 0, 1),
    ]
    cache = await told(chatter, "cache_savings")
    assert [tuple(row.values()) for row in cache] == [
        ("", "cached", 400, 50, 0, Decimal("0.1250")),
        ("", "writes", 10, 0, 10, 0),
    ]


async def test_what_is_dear_comes_before_what_is_frequent(chatter: Chatter, books: Books) -> None:
    """And a model is its provider's: another's of the same name has failures of its own."""
    for name, costs, status, read in (
        ("a often", "11", "completed", 5),
        ("b dear", "5", "failed", 20),
    ):
        user = books.user(name)
        talk = books.conversation(user_id=user)
        run = books.execution(talk, user_id=user, workflow_name=name)
        for cost in costs:
            books.message(
                talk,
                execution_id=run,
                provider_used=name,
                model_used="m",
                status=status,
                kind="step",
                cost=cost,
                prompt_tokens=20,
                cache_read_tokens=read,
            )
    for report, column in (
        ("cost_by_user", "user"),
        ("cost_by_workflow", "workflow_name"),
        ("cost_by_provider", "provider"),
        ("cost_by_model", "provider"),
    ):
        assert [row[column] for row in await told(chatter, report)] == ["b dear", "a often"], report
    rates = await told(chatter, "error_rates")
    assert [(row["provider"], row["failed"]) for row in rates] == [("b dear", 1), ("a often", 0)]
    savings = await told(chatter, "cache_savings")
    assert [row["cache_read_tokens"] for row in savings] == [20, 10]
