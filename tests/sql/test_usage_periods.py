"""Periods of any time zone, in charts, sums and by user: to the quarter, or the microsecond."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.sql.books import Books
from tests.sql.test_usage import (
    FROM,
    MEASURES,
    START,
    SUMS,
    filled,
    fold_all,
    message,
    places,
)


@pytest.fixture
def books(db: psycopg.Connection[Any]) -> Iterator[Books]:
    yield Books(db)


ZONES = ["UTC", "Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns", "Europe/Berlin"]


@pytest.mark.parametrize("zone", ZONES)
def test_days_of_any_zone_are_exact_at_their_edges(books: Books, zone: str) -> None:
    dice = random.Random(3)
    where = places(books)
    books.messages([message(dice, dice.choice(where)) for _ in range(300)])
    books.value("select analytics.fold(20)")
    by_day = "select ({} at time zone %s)::date as day, {} as calls, {} as cost from {} group by 1"
    live = by_day.format("bucket", "sum(calls)", "sum(cost)", "analytics.usage_15min_live")
    recount = by_day.format(
        "created_at",
        "count(*) filter (where model_call)",
        "coalesce(sum(cost), 0)",
        "chatter.messages",
    )
    assert sorted(books.rows(live, zone)) == sorted(books.rows(recount, zone)) != []
    for day in (27, 28, 29, 30):
        since, until = (
            books.value("select (%s::date)::timestamp at time zone %s", f"2026-03-{d}", zone)
            for d in (day, day + 1)
        )
        assert user_difference(books, since, until) == []


def user_difference(books: Books, since: datetime, until: datetime) -> list[Any]:
    """Rows that analytics.user_usage and user_totals have too much or too little."""
    different = []
    for function, columns, names in (
        (
            "user_usage",
            "c.user_id, coalesce(m.provider_used, ''), coalesce(m.model_used, '')",
            "user_id, provider, model",
        ),
        ("user_totals", "c.user_id", "user_id"),
    ):
        recount = f"""
          select {columns}, {MEASURES} {FROM}
          where m.created_at >= %s and m.created_at < %s group by {columns}
        """
        found = f"""
          select {names}, {SUMS} from analytics.{function}(%s, %s)
          group by {names} having sum(messages) <> 0
        """
        both = f"(({found}) except all ({recount})) union all (({recount}) except all ({found}))"
        different += books.rows(both, *(since, until) * 4)
    return different


def test_users_between_any_two_moments(books: Books) -> None:
    dice = random.Random(11)
    where = places(books)
    books.messages([message(dice, dice.choice(where)) for _ in range(300)])
    books.value("select analytics.fold(30)")
    for _ in range(40):
        since = START + timedelta(microseconds=dice.randrange(3 * 86_400_000_000))
        until = since + timedelta(microseconds=dice.randrange(3 * 86_400_000_000))
        assert user_difference(books, since, until) == []
    midnight = START.replace(day=28, hour=0)
    assert user_difference(books, midnight, midnight + timedelta(days=1)) == []
    for function in ("user_usage", "user_totals"):
        assert books.rows(f"select * from analytics.{function}(%s, %s)", START, START) == []


def test_users_over_months(books: Books) -> None:
    dice = random.Random(12)
    where = places(books)
    rows = [message(dice, dice.choice(where)) for _ in range(300)]
    for row in rows:
        row["created_at"] = START + timedelta(minutes=dice.randrange(100 * 24 * 60))
    books.messages(rows)
    for folded in (0, 30, 1000):
        if folded:
            books.value("select analytics.fold(%s)", folded)
        for _ in range(30):
            since = START + timedelta(hours=dice.randrange(-40 * 24, 110 * 24))
            until = since + timedelta(minutes=dice.randrange(120 * 24 * 60))
            assert user_difference(books, since, until) == []
        # To a moment of the newest days, folded or not.
        newest = max(row["created_at"] for row in rows)
        for _ in range(30):
            until = newest + timedelta(seconds=dice.randrange(-3 * 86_400, 2 * 86_400))
            assert user_difference(books, START.replace(day=1), until) == []
        # Months of UTC and of another zone, and everything.
        for first, last in ((4, 5), (4, 7), (3, 6), (1, 12)):
            for hour in (0, 5, 22):
                period = (datetime(2026, month, 1, hour, tzinfo=UTC) for month in (first, last))
                assert user_difference(books, *period) == []


def period_difference(books: Books, since: datetime, until: datetime) -> list[Any]:
    recount = f"""
      select coalesce(e.workflow_name, ''), coalesce(m.provider_used, ''),
        coalesce(m.model_used, ''), m.kind, {MEASURES} {FROM}
      where m.created_at >= %s and m.created_at < %s group by 1, 2, 3, 4
    """
    found = f"""
      select workflow_name, provider, model, kind, {SUMS} from analytics.usage_between(%s, %s)
      group by 1, 2, 3, 4 having sum(messages) <> 0
    """
    both = f"(({found}) except all ({recount})) union all (({recount}) except all ({found}))"
    return books.rows(both, *(since, until) * 4)


def test_periods_of_whole_quarters_are_exact(books: Books) -> None:
    dice = random.Random(13)
    where = places(books)
    books.messages([message(dice, dice.choice(where)) for _ in range(300)])
    books.value("select analytics.fold(30)")
    quarter = timedelta(minutes=15)
    for _ in range(60):
        since = START + dice.randrange(12 * 24) * quarter
        until = since + dice.randrange(12 * 24) * quarter
        assert period_difference(books, since, until) == []
    midnight = START.replace(day=28, hour=0)
    assert period_difference(books, midnight, midnight + timedelta(days=1)) == []
    assert books.rows("select * from analytics.usage_between(%s, %s)", START, START) == []


@pytest.mark.parametrize("zone", [*ZONES, "Australia/Lord_Howe", "America/New_York"])
@pytest.mark.parametrize("step", ["day", "hour"])
def test_charts_in_any_zone_are_exact(books: Books, zone: str, step: str) -> None:
    dice = random.Random(17)
    where = places(books)
    books.messages([message(dice, dice.choice(where)) for _ in range(300)])
    books.value("select analytics.fold(20)")
    for first, days in ((26, 6), (28, 1), (29, 2)):
        period = [
            books.value("select (%s::date)::timestamp at time zone %s", moment, zone)
            for moment in (f"2026-03-{first}", datetime(2026, 3, first) + timedelta(days=days))
        ]
        found = f"""
          select date_trunc(%s, bucket at time zone %s), model, {SUMS}
          from analytics.usage_steps(%s, %s, %s, %s) group by 1, 2 having sum(messages) <> 0
        """
        recount = f"""
          select date_trunc(%s, m.created_at at time zone %s), coalesce(m.model_used, ''),
            {MEASURES} {FROM} where m.created_at >= %s and m.created_at < %s group by 1, 2
        """
        rows = books.rows(found, step, zone, *period, zone, step)
        assert sorted(rows) == sorted(books.rows(recount, step, zone, *period)) != []


@pytest.mark.parametrize("zone", [*ZONES, "Australia/Lord_Howe", "Asia/Tokyo", "Pacific/Apia"])
def test_days_between_any_two_quarters_are_exact(books: Books, zone: str) -> None:
    dice = random.Random(19)
    where = places(books)
    books.messages([message(dice, dice.choice(where)) for _ in range(300)])
    books.value("select analytics.fold(20)")
    found = f"""
      select date_trunc('day', bucket at time zone %s), model, {SUMS}
      from analytics.usage_steps(%s, %s, %s, 'day') group by 1, 2 having sum(messages) <> 0
    """
    recount = f"""
      select date_trunc('day', m.created_at at time zone %s), coalesce(m.model_used, ''),
        {MEASURES} {FROM} where m.created_at >= %s and m.created_at < %s group by 1, 2
    """
    quarter = timedelta(minutes=15)
    for _ in range(30):
        since = START + dice.randrange(-96, 12 * 24) * quarter
        until = since + dice.randrange(1, 16 * 24) * quarter
        rows = books.rows(found, zone, since, until, zone)
        assert sorted(rows) == sorted(books.rows(recount, zone, since, until))


# A date that is skipped, hours that come twice at midnight or just after it, east and west.
CHANGES = [
    ("Pacific/Apia", "2011-12-28"),
    ("Asia/Amman", "2021-10-27"),
    ("America/St_Johns", "2010-11-05"),
    ("America/Havana", "2025-10-31"),
    ("Asia/Beirut", "2025-10-24"),
    ("America/Sao_Paulo", "2018-11-02"),
    ("Atlantic/Azores", "2025-10-24"),
]


@pytest.mark.parametrize(("zone", "day"), CHANGES)
def test_days_are_exact_when_the_clocks_are_changed(books: Books, zone: str, day: str) -> None:
    where = places(books)
    dice = random.Random(23)
    rows = [message(dice, dice.choice(where)) for _ in range(5 * 24 * 4)]
    begin = datetime.fromisoformat(day).replace(tzinfo=UTC)
    for quarter, row in enumerate(rows):
        row["created_at"] = begin + timedelta(minutes=15 * quarter)
    books.messages(rows)
    fold_all(books)
    period = (begin, begin + timedelta(days=5))
    found = f"""
      select (bucket at time zone %s)::date, {SUMS}
      from analytics.usage_steps(%s, %s, %s, 'day') group by 1 having sum(messages) <> 0
    """
    recount = f"select (m.created_at at time zone %s)::date, {MEASURES} {FROM} group by 1"
    assert sorted(books.rows(found, zone, *period, zone)) == sorted(books.rows(recount, zone))


@pytest.mark.parametrize(
    ("zone", "since", "grain"),
    [
        ("UTC", "2026-03-26", "hour"),
        ("UTC", "2026-03-26T08:15", "quarter"),
        ("Europe/Berlin", "2026-03-26", "hour"),
        ("Asia/Kolkata", "2026-03-26", "quarter"),
        ("Asia/Kathmandu", "2026-03-26", "quarter"),
    ],
)
def test_a_chart_by_hour_reads_the_coarser_rollup_that_is_exact(
    books: Books, zone: str, since: str, grain: str
) -> None:
    filled(books)
    asked = "select analytics.grain(%s::timestamp at time zone %s, %s, %s)"
    until = datetime(2026, 3, 31, tzinfo=UTC)
    midnight = books.value("select %s at time zone 'UTC' at time zone %s", until, zone)
    assert books.value(asked, since, zone, midnight, zone) == grain


@pytest.mark.parametrize(
    "zone",
    [
        *("UTC", "America/New_York", "America/Havana", "Atlantic/Azores", "Asia/Beirut"),
        *("Australia/Lord_Howe", "America/Santiago", "Asia/Kathmandu"),
    ],
)
def test_a_local_time_is_the_first_moment_that_has_it(books: Books, zone: str) -> None:
    """Or, if the clocks skip it, the moment at which they do."""
    wrong = books.rows(
        """
        with moments as (
          select z.zone, m.at at time zone z.zone as local, min(m.at) as first
          from (values (%s)) as z (zone)
            cross join generate_series(
              '2026-01-01 00:00+00'::timestamptz, '2027-01-01 00:00+00', '15 minutes'
            ) as m (at)
          group by 1, 2
        )
        select l.local, analytics.moment(l.local::text, z.zone), m.first
        from (select distinct m.zone from moments as m) as z
          cross join generate_series(
            '2026-01-02 00:00'::timestamp, '2026-12-30 00:00', '15 minutes'
          ) as l (local)
          left join moments as m on m.local = l.local
        where analytics.moment(l.local::text, z.zone)
          <> coalesce(m.first, l.local at time zone z.zone)
        """,
        zone,
    )
    assert wrong == []


def test_now_is_now_in_an_hour_that_comes_twice(books: Books) -> None:
    """In a zone whose clocks were set back half an hour ago; a local time alone is the first."""
    changed = datetime.now(UTC) + timedelta(minutes=30)  # as the clocks showed it then
    day = changed.timetuple().tm_yday - 1
    zone = f"XST0XDT,{(day + 180) % 365}/0,{day}/{changed:%H:%M:%S}"
    shown = books.value("select analytics.local_time('now', %s)", zone)
    assert books.value("select analytics.moment('NOW', %s) = now()", zone)
    ago = books.value("select now() - analytics.moment(%s, %s)", str(shown), zone)
    assert timedelta(minutes=59) < ago < timedelta(minutes=61)
