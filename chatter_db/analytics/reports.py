"""The queries of `sql/analytics`, which psql runs as they are, for Python.

A file is a title, notes, a line of psql for each variable with its default, and one
query with the variables written `:'name'`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from chatter_db.database import said, sqlstate
from chatter_db.errors import UsageError
from chatter_db.models import User
from chatter_db.queries import resource

_VARIABLE = re.compile(r"^\\if :\{\?(\w+)\} \\else \\set \1 (\S+) \\endif$", re.MULTILINE)
_ALL = "all"
_LIMIT = re.compile("[1-9][0-9]{0,17}")
_BUILT_IN = ("today", "yesterday", "tomorrow")
_INVALID_PARAMETER = "22023"
_INVALID_PERIOD = "CH422"


@dataclass(frozen=True)
class Report:
    """A ready query: its name, what it tells in words, its variables and their defaults."""

    name: str
    title: str
    notes: str
    defaults: dict[str, str]
    statement: TextClause


@dataclass(frozen=True)
class Table:
    """The answer of a report. Everything committed by `as_of` is in it."""

    report: Report
    as_of: datetime
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


@cache
def reports() -> dict[str, Report]:
    """Every report by name."""
    found = sorted((resource("sql") / "analytics").glob("*.sql"))
    return {path.stem: _read(path) for path in found}


async def run_report(session: AsyncSession, name: str, **variables: str | int | None) -> Table:
    """Runs a report; variables that are None have their default.

    `since` (included) and `until` (excluded) are local times of `time_zone`, as ISO 8601, or
    today, yesterday, tomorrow.

    Raises UsageError for a report, variable or value that doesn't exist, with those that do.
    """
    report = reports().get(name)
    if report is None:
        raise UsageError(f"No report {name!r}; there are {', '.join(reports())}.")
    given = {key: str(value) for key, value in variables.items() if value is not None}
    if unknown := given.keys() - report.defaults.keys():
        known = ", ".join(report.defaults) or "none"
        raise UsageError(f"{name} has no {', '.join(sorted(unknown))}; its variables are {known}.")
    values = report.defaults | _checked(given)
    # When the transaction began: its snapshot may be older than the clock, but not than that.
    as_of = await session.scalar(select(func.least(func.now(), func.chatter.clock())))
    with periods_told(values.get("time_zone")):
        await _check_period(session, values)
        result = await session.execute(report.statement, values)
    columns = tuple(result.keys())
    assert as_of is not None
    return Table(report, as_of, columns, [tuple(row) for row in result])


@contextmanager
def periods_told(time_zone: str | None) -> Iterator[None]:
    """Raises UsageError for a period, or the name of a time zone, that Postgres refuses."""
    try:
        yield
    except DBAPIError as error:
        if sqlstate(error) == _INVALID_PERIOD:
            raise UsageError(said(error)) from None
        if time_zone is None or sqlstate(error) != _INVALID_PARAMETER:
            raise
        raise UsageError(
            f"No time zone {time_zone}; names are like UTC or Europe/Berlin, "
            "and the view pg_timezone_names has them all."
        ) from None


async def user_id(session: AsyncSession, user: str) -> UUID:
    """The id here of the user whom the application calls `user`; an id of ours is good, too.

    Raises UsageError if there is none.
    """
    named = user.encode(errors="replace").decode()  # what is no UTF-8 is nobody's id
    found = await session.scalar(select(User.id).where(User.external_id == named))
    if found is None and (own := _uuid(user)) is not None:
        found = await session.scalar(select(User.id).where(User.id == own))
    if found is None:
        raise UsageError(f"No user {user!r} in the books.")
    return found


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _checked(given: dict[str, str]) -> dict[str, str]:
    limit = given.get("limit", _ALL)
    if limit != _ALL and not _LIMIT.fullmatch(limit):
        raise UsageError(f"limit must be a number of lines, from 1 on, or all; not {limit}.")
    times = {name: _local(name, given[name]) for name in ("since", "until") if name in given}
    return given | times


def _local(name: str, value: str) -> str:
    """A time as Postgres reads it, which knows fewer forms of ISO 8601."""
    if value in _BUILT_IN:
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        words = ", ".join(_BUILT_IN)
        raise UsageError(
            f"{name} must be a date or time like 2026-01-31 or 2026-01-31T08:00, "
            f"or one of {words}; not {value!r}."
        ) from None
    if moment.tzinfo is not None:
        raise UsageError(f"{name} is a local time of time_zone and has no offset: {value!r}.")
    return moment.isoformat().removesuffix("T00:00:00")


async def _check_period(session: AsyncSession, values: dict[str, str]) -> None:
    """By itself: a plan that was made for any period works one out only where there are rows."""
    if "since" in values and "until" in values:
        asked = (values["since"], values["until"], values.get("time_zone", "UTC"))
        await session.execute(select(func.analytics.period_end(*asked)))


def _read(path: Path) -> Report:
    lines = path.read_text("utf-8").splitlines()
    comment = [line.removeprefix("--").strip() for line in lines if line.startswith("--")]
    sql = "\n".join(line for line in lines if not line.startswith(("--", "\\")))
    # psql's :'name' is a literal; here it is a parameter, which asyncpg wants a type of.
    sql = re.sub(r":'(\w+)'", r"cast(:\1 as text)", sql.replace("::", r"\:\:"))
    return Report(
        name=path.stem,
        title=comment[0],
        notes=" ".join(line for line in comment[1:] if line and not line.startswith("psql ")),
        defaults=dict(_VARIABLE.findall("\n".join(lines))),
        statement=text(sql.strip().removesuffix(";")),
    )
