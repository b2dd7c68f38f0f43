"""What the dashboard's first page shows.

/api/overview and, for admins, /api/breakdown and /api/performance: three answers, because they
are asked for at once.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from chatter_db.accounts import Identity
from chatter_db.analytics import Table, reports, run_report
from chatter_db.analytics.reports import periods_told
from chatter_db.ledger import Chatter
from chatter_db.models import Conversation, WorkflowExecution
from chatter_db.queries import query
from chatter_db.server.identity import Admin, Books, SignedIn
from chatter_db.server.money import Money, Row
from chatter_db.server.problems import documented
from chatter_db.server.routes.executions import runs_as, runs_of

router = APIRouter(prefix="/api", tags=["analytics"])

Range = Literal["today", "7d", "30d", "90d", "all"]

_DAYS: dict[Range, int | None] = {"today": 0, "7d": 6, "30d": 29, "90d": 89, "all": None}
_ROWS = 10


class Running(BaseModel):
    """A run that is not over."""

    id: UUID
    workflow_name: str
    conversation_id: UUID | None
    started_at: datetime
    model_calls: int
    tool_calls: int
    total_tokens: int
    total_cost: Money
    unpriced_calls: int


class Shortened(BaseModel):
    """An answer with the first rows of lists, and in `more` the names of those that go on."""

    more: list[str]


class Overview(Shortened):
    """Everything exact at `as_of`. `over_time` has a row for each step and model.

    `running` has the newest of the `running_count` runs that are not over.
    """

    as_of: datetime
    scope: Literal["all", "own"]
    step: Literal["hour", "day"]
    since: str | None
    over_time: list[Row]
    running_count: int
    running: list[Running]
    dearest: list[Row]


class Breakdown(Shortened):
    """Where the usage of a period went, exact at `as_of`: the first rows of each list."""

    as_of: datetime
    models: list[Row]
    users: list[Row]
    workflows: list[Row]


class Performance(Shortened):
    """How models and tools did in a period, exact at `as_of`: the first rows of each list.

    `latency` is of whole responses; `slowest_models` has the time to the first token as well.
    """

    as_of: datetime
    latency: list[Row]
    tools: list[Row]


class Period(BaseModel):
    """Which period, and nothing else: 30 days must not pass for another one that was meant."""

    model_config = ConfigDict(extra="forbid")

    range: Range = "30d"
    time_zone: str = Field("UTC", max_length=100, description="Whose days.")


Asked = Annotated[Period, Query()]


@router.get("/overview", responses=documented(401, 422, 429))
async def overview(identity: SignedIn, chatter: Books, asked: Asked) -> Overview:
    """Usage over time, what runs, and what costs most: of all users for an admin, else one's own.

    Days of one's own are of UTC.
    """
    async with chatter.session(acting_for=identity.acts_for) as session:
        # One snapshot for all the queries, or the tables would not add up.
        await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        if identity.role == "admin":
            return await _of_all(session, asked)
        return await _of_one(session, identity, asked.range)


@router.get("/breakdown", responses=documented(401, 403, 422, 429))
async def breakdown(identity: Admin, chatter: Books, asked: Asked) -> Breakdown:
    """What models, users and workflows took of a period."""
    names = {"models": "cost_by_model", "users": "cost_by_user", "workflows": "cost_by_workflow"}
    as_of, lists = await _lists(chatter, asked, names)
    return Breakdown(as_of=as_of, **_first(lists))


@router.get("/performance", responses=documented(401, 403, 422, 429))
async def performance(identity: Admin, chatter: Books, asked: Asked) -> Performance:
    """How long models took in a period, and what became of tool calls."""
    names = {"latency": "slowest_models", "tools": "tools"}
    as_of, lists = await _lists(chatter, asked, names)
    lists["latency"] = [row for row in lists["latency"] if row["measure"] == "response"]
    return Performance(as_of=as_of, **_first(lists))


async def _lists(
    chatter: Chatter, asked: Period, names: dict[str, str]
) -> tuple[datetime, dict[str, list[dict[str, Any]]]]:
    """The rows of each report, from one snapshot, which is of the time that is told."""
    async with chatter.session() as session:
        await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        period = await _period(session, asked)
        told = {
            name: await run_report(session, report, **period, **_cut(report))
            for name, report in names.items()
        }
    # The first one's: the snapshot is no newer.
    as_of = min(table.as_of for table in told.values())
    return as_of, {name: _rows(table) for name, table in told.items()}


def _cut(report: str) -> dict[str, int]:
    """A row more than is shown, of those that can be cut: there may be very many users."""
    return {"limit": _ROWS + 1} if "limit" in reports()[report].defaults else {}


async def _of_all(session: AsyncSession, asked: Period) -> Overview:
    period = await _period(session, asked)
    step: Literal["hour", "day"] = "hour" if asked.range == "today" else "day"
    over_time = await run_report(session, "usage_by_time", **period, step=step)
    dearest = await run_report(session, "dearest_conversations", limit=_ROWS + 1)
    return Overview(
        as_of=over_time.as_of,
        scope="all",
        step=step,
        since=period["since"],
        over_time=_rows(over_time),
        running_count=await _running_count(session, None),
        **_first({"running": await _running(session, None), "dearest": _rows(dearest)}),
    )


async def _of_one(session: AsyncSession, identity: Identity, span: Range) -> Overview:
    since = await _since(session, span, "UTC")
    table = await run_report(session, "usage_of_user", user_id=str(identity.user_id), since=since)
    dearest = await session.scalars(
        select(Conversation)
        .where(Conversation.user_id == identity.user_id, Conversation.total_cost > 0)
        .order_by(Conversation.total_cost.desc(), Conversation.id)
        .limit(_ROWS + 1)
    )
    lists: dict[str, Sequence[Any]] = {
        "running": await _running(session, identity.user_id),
        "dearest": [
            {
                "conversation_id": found.id,
                "conversation": found.external_id or found.title,
                "message_count": found.message_count,
                "total_tokens": found.total_tokens,
                "cost": found.total_cost,
            }
            for found in dearest
        ],
    }
    return Overview(
        as_of=table.as_of,
        scope="own",
        step="day",
        since=since,
        over_time=[{**row, "at": row["day"]} for row in _rows(table)],
        running_count=await _running_count(session, identity.user_id),
        **_first(lists),
    )


async def _running(session: AsyncSession, user_id: UUID | None) -> list[Running]:
    newest_first = WorkflowExecution.started_at.desc(), WorkflowExecution.id.desc()
    wanted = runs_as(Running).where(*_runs(user_id))
    rows = await session.execute(wanted.order_by(*newest_first).limit(_ROWS + 1))
    return [Running.model_validate(row) for row in rows.mappings()]


async def _running_count(session: AsyncSession, user_id: UUID | None) -> int:
    counted = select(func.count()).select_from(WorkflowExecution).where(*_runs(user_id))
    return (await session.scalars(counted)).one()


def _runs(user_id: UUID | None) -> list[ColumnElement[bool]]:
    """What runs, of a user if told whom."""
    running = [WorkflowExecution.status == "running"]
    return running if user_id is None else [*running, or_(*runs_of(user_id))]


def _first(lists: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """What is shown of `lists`, which have a row more if they go on."""
    shown = {name: rows[:_ROWS] for name, rows in lists.items()}
    return {**shown, "more": [name for name, rows in lists.items() if len(rows) > _ROWS]}


def _rows(table: Table) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


async def _period(session: AsyncSession, asked: Period) -> dict[str, str | None]:
    """The variables of a report that say which period."""
    since = await _since(session, asked.range, asked.time_zone)
    return {"since": since, "time_zone": asked.time_zone}


async def _since(session: AsyncSession, span: Range, time_zone: str) -> str | None:
    days = _DAYS[span]
    if days is None:
        return None
    with periods_told(time_zone):
        first: date = (
            await session.execute(query("day_in_zone"), {"time_zone": time_zone, "days": days})
        ).scalar_one()
    return first.isoformat()
