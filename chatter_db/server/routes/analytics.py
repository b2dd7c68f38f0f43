"""/api/analytics: the queries of sql/analytics, for admins."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from chatter_db.analytics import reports, run_report
from chatter_db.server.identity import Admin, Books
from chatter_db.server.money import Row
from chatter_db.server.pages import After, Limit, cursor, position
from chatter_db.server.problems import documented

router = APIRouter(prefix="/api/analytics", tags=["analytics"])

_PAGING = ("limit", "after")
# Every page reads those before it, and one row more, which says that there are more.
_LAST_ROW = 10_000


class ReportShown(BaseModel):
    """A report that can be asked for; `variables` are those it takes besides `limit` and `after`,
    with their defaults."""

    name: str
    definition: str
    notes: str
    variables: dict[str, str]


class Figures(BaseModel):
    """The rows of a report. Everything committed by `as_of` is in it; money is decimal text."""

    name: str
    definition: str
    as_of: datetime
    items: list[Row]
    next: str | None


@router.get("", responses=documented(401, 403, 429))
async def list_reports(identity: Admin) -> list[ReportShown]:
    """Which reports there are."""
    return [
        ReportShown(
            name=report.name,
            definition=report.title,
            notes=report.notes,
            variables={k: v for k, v in report.defaults.items() if k not in _PAGING},
        )
        for report in reports().values()
    ]


@router.get("/{name}", responses=documented(401, 403, 404, 422, 429))
async def read_report(
    request: Request,
    name: str,
    identity: Admin,
    chatter: Books,
    since: Annotated[str | None, Query(description="Local time of time_zone, included.")] = None,
    until: Annotated[str | None, Query(description="Local time of time_zone, excluded.")] = None,
    time_zone: Annotated[str | None, Query(description="Whose days; default UTC.")] = None,
    step: Annotated[Literal["hour", "day"] | None, Query(description="Of a chart.")] = None,
    user_id: Annotated[UUID | None, Query(description="Whose usage, by our id.")] = None,
    limit: Limit = 100,
    after: After = None,
) -> Figures:
    """Runs a report, exact now."""
    if name not in reports():
        raise HTTPException(404, f"There is no report {name}; there are {', '.join(reports())}.")
    limited = "limit" in reports()[name].defaults
    place = position(after, int)
    begin = 0 if place is None else place[0]
    if begin < 0:
        raise HTTPException(422, "after: this is no `next` of an earlier page.")
    if limited and begin >= _LAST_ROW:
        raise HTTPException(
            422,
            f"after: pages end at row {_LAST_ROW:,}; all there is tells "
            f"`chatter report {name} --limit all --json`.",
        )
    variables: dict[str, str | int | None] = {
        # Refused there: figures of all time must not pass for those of a `period` that was meant.
        **{key: value for key, value in request.query_params.items() if key not in _PAGING},
        "since": since,
        "until": until,
        "time_zone": time_zone,
        "step": step,
        "user_id": None if user_id is None else str(user_id),
    }
    end = begin + limit
    if limited:
        end = min(end, _LAST_ROW)
        variables["limit"] = end + 1
    async with chatter.session() as session:
        table = await run_report(session, name, **variables)
    return Figures(
        name=name,
        definition=table.report.title,
        as_of=table.as_of,
        items=[dict(zip(table.columns, row, strict=True)) for row in table.rows[begin:end]],
        next=cursor(end) if len(table.rows) > end else None,
    )
