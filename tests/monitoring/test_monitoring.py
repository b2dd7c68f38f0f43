"""Tracking by hand: the same rows, the same totals, in every process."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from chatter_db import Chatter, UsageError, get_monitoring_service


async def test_a_workflow_is_tracked_from_start_to_end(
    chatter: Chatter,
    url: str,
    db: psycopg.Connection[Any],
    books_hold: Callable[[], None],
) -> None:
    monitoring = await get_monitoring_service(chatter)
    execution = await monitoring.start_workflow_tracking("billing", correlation_id="r-1")
    for tokens in (10, 30):
        await monitoring.update_workflow_tracking(
            execution,
            provider="openai",
            model="gpt-4o",
            prompt_tokens=tokens,
            completion_tokens=5,
            cost=Decimal("0.001"),
        )
    # Another process sees it while it runs.
    async with Chatter.connect(url) as elsewhere:
        seen = await (await get_monitoring_service(elsewhere)).get_workflow_stats()
    assert seen.active == 1
    assert (seen.workflow_ops[-1].token_usage, seen.workflow_ops[-1].duration_ms) == (50, None)

    await monitoring.finish_workflow_tracking(execution)
    last = (await monitoring.get_workflow_stats()).workflow_ops[-1]
    assert (last.status, last.model_calls, last.cost) == ("completed", 2, Decimal("0.002"))
    assert last.duration_ms is not None and last.duration_ms > 0
    story = db.execute(
        "select array_agg(correlation_id) from (select correlation_id from chatter.messages "
        "union all select correlation_id from chatter.workflow_executions) as rows"
    )
    assert story.fetchone() == (["r-1"] * 3,)
    books_hold()


async def test_an_error_ends_it_as_failed_and_stays(chatter: Chatter) -> None:
    monitoring = await get_monitoring_service(chatter)
    execution = await monitoring.start_workflow_tracking("billing")
    await monitoring.finish_workflow_tracking(execution, error=TimeoutError("too slow"))
    await monitoring.finish_workflow_tracking(execution)
    last = (await monitoring.get_workflow_stats()).workflow_ops[-1]
    assert (last.status, last.error_type) == ("failed", "TimeoutError")


async def test_what_is_not_known_is_not_zero(chatter: Chatter, db: psycopg.Connection[Any]) -> None:
    monitoring = await get_monitoring_service(chatter)
    execution = await monitoring.start_workflow_tracking("billing")
    await monitoring.update_workflow_tracking(execution, model="gpt-4o")
    row = db.execute(
        "select prompt_tokens, cost, cost_source, usage_status from chatter.messages"
    ).fetchone()
    assert row == (None, None, None, "unknown")
    assert db.execute("select unpriced_calls from chatter.conversations").fetchone() == (1,)
    assert (await monitoring.get_workflow_stats()).workflow_ops[-1].cost is None
    # Of two the one that is known; and without a call there is no cost.
    for cost in (Decimal(0), Decimal(1)):
        await monitoring.update_workflow_tracking(execution, model="gpt-4o", cost=cost)
        assert (await monitoring.get_workflow_stats()).workflow_ops[-1].cost == cost
    await monitoring.start_workflow_tracking("billing")
    assert (await monitoring.get_workflow_stats()).workflow_ops[-1].cost == 0


@pytest.mark.parametrize(
    "figures",
    [
        {"prompt_tokens": -1},
        {"prompt_tokens": 2**63},
        {"completion_tokens": 1.5},
        {"cost": 0.1},
        {"cost": Decimal("NaN")},
        {"cost": Decimal("1e200000")},
        {"response_time_ms": "long"},
        {"provider": "open\0ai"},
        {"model": "\ud800"},
    ],
)
async def test_figures_that_can_not_be(
    chatter: Chatter, db: psycopg.Connection[Any], figures: dict[str, Any]
) -> None:
    monitoring = await get_monitoring_service(chatter)
    execution = await monitoring.start_workflow_tracking("billing")
    with pytest.raises(UsageError):
        await monitoring.update_workflow_tracking(execution, **figures)
    assert db.execute("select count(*) from chatter.messages").fetchone() == (0,)


async def test_what_is_not_there_is_refused(chatter: Chatter) -> None:
    monitoring = await get_monitoring_service(chatter)
    with pytest.raises(UsageError, match="no conversation"):
        await monitoring.start_workflow_tracking("billing", conversation_id=uuid4())
    with pytest.raises(UsageError, match="1 to 500 characters"):
        await monitoring.start_workflow_tracking("")
    with pytest.raises(UsageError, match="no execution"):
        await monitoring.update_workflow_tracking(uuid4())
    execution = await monitoring.start_workflow_tracking("billing")
    with pytest.raises(UsageError, match="completed, failed, cancelled"):
        await monitoring.finish_workflow_tracking(execution, "running")
    said: Any = "out of paper"
    with pytest.raises(UsageError, match="error must be the exception itself, not str"):
        await monitoring.finish_workflow_tracking(execution, error=said)
    limit: Any
    for limit in (0, 10_001, 1.5, "5", None):
        with pytest.raises(UsageError, match="limit must be from 1 to 10000"):
            await monitoring.get_workflow_stats(limit=limit)
    assert await monitoring.get_workflow_stats(limit=1) == await monitoring.get_workflow_stats(
        limit=10_000
    )
    own: Any = "run-1"
    for ask in (
        monitoring.finish_workflow_tracking(own),
        monitoring.update_workflow_tracking(own),
        monitoring.start_workflow_tracking("billing", conversation_id=own),
    ):
        with pytest.raises(UsageError, match="_id must be a UUID, the id of the row"):
            await ask


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workflow_name": None}, "workflow_name must be a string, not NoneType"),
        ({"workflow_name": "a\0b"}, "workflow_name must have 1 to 500 characters and no NUL"),
        ({"workflow_name": "\ud800"}, "workflow_name must be UTF-8"),
        ({"correlation_id": ""}, "correlation_id must have 1 to 500 characters"),
        ({"metadata": {"a": object()}}, "metadata must be JSON"),
        ({"metadata": {"a": "\0"}}, "The workflow can't be booked: unsupported Unicode escape"),
    ],
)
async def test_a_workflow_that_can_not_be(
    chatter: Chatter, db: psycopg.Connection[Any], arguments: dict[str, Any], message: str
) -> None:
    monitoring = await get_monitoring_service(chatter)
    with pytest.raises(UsageError, match=message):
        await monitoring.start_workflow_tracking(**{"workflow_name": "billing", **arguments})
    assert db.execute("select count(*) from chatter.conversations").fetchone() == (0,)


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * 20_000])
async def test_any_error_ends_it(chatter: Chatter, db: psycopg.Connection[Any], text: str) -> None:
    monitoring = await get_monitoring_service(chatter)
    execution = await monitoring.start_workflow_tracking("billing")
    await monitoring.finish_workflow_tracking(execution, error=ValueError(text))
    found = db.execute("select status, left(error_message, 3) from chatter.workflow_executions")
    assert found.fetchall() == [("failed", text.replace("\0", "�").replace("\ud800", "�")[:3])]


async def test_health_names_its_reasons(
    chatter: Chatter, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monitoring = await get_monitoring_service(chatter)
    for _ in range(2):
        await monitoring.start_workflow_tracking("billing")
    well = await monitoring.get_system_health()
    assert (well.healthy, well.reasons, well.active) == (True, [], 2)
    oldest = (await monitoring.get_workflow_stats()).workflow_ops[0].started_at
    assert well.database_ms is not None and well.oldest_active == oldest

    with monkeypatch.context() as patched:
        patched.setattr("chatter_db.monitoring.SLOW_DATABASE_MS", 0)
        patched.setattr(Chatter, "lost_records", 2)
        slow, lost = (await monitoring.get_system_health()).reasons
    assert re.fullmatch(r"Postgres took \d+ ms to answer\.", slow)
    assert lost == "2 record(s) of this process were lost; see its log."

    db.execute("alter table chatter.workflow_executions rename to gone")
    ill = await monitoring.get_system_health()
    assert (ill.healthy, ill.active) == (False, None)
    assert 'relation "chatter.workflow_executions" does not exist' in ill.reasons[0]
