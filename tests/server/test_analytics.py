"""/api/analytics."""

import base64
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from chatter_db.analytics import reports
from chatter_db.importing import import_file
from chatter_db.server.pages import cursor
from tests.server.conftest import Person
from tests.sql.books import Books

TRACE = Path(__file__).parents[2] / "chatter_db" / "demo" / "aider_trace.csv"


async def test_every_report_is_served_with_its_freshness(admin: Person, url: str) -> None:
    import_file(url, TRACE)
    listed = (await admin.http.get("/api/analytics")).json()
    assert [report["name"] for report in listed] == list(reports())
    for report in listed:
        answer = await admin.http.get(f"/api/analytics/{report['name']}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["definition"] == report["definition"]
        assert answer.json()["as_of"]


async def test_a_report_comes_in_pages(admin: Person, url: str) -> None:
    import_file(url, TRACE)
    for name in ("cost_by_day", "cost_by_conversation"):
        whole = (await admin.http.get(f"/api/analytics/{name}", params={"limit": 50})).json()
        seen: list[dict[str, str]] = []
        after = None
        while len(seen) < 50:
            query = {"limit": 20} if after is None else {"limit": 20, "after": after}
            page = (await admin.http.get(f"/api/analytics/{name}", params=query)).json()
            seen += page["items"]
            after = page["next"]
        assert seen[:50] == whole["items"]
        assert all(isinstance(item["cost"], str) for item in seen)


async def test_a_page_follows_each_that_promises_one(admin: Person, url: str) -> None:
    """Reports without a limit have as many rows as there are hours."""
    with psycopg.connect(url, autocommit=True) as connection:
        talk = Books(connection).conversation()
        connection.execute(
            "insert into chatter.messages (conversation_id, role, created_at) "
            "select %s, 'user', timestamptz '2024-01-01 00:00Z' + n * interval '1 hour' "
            "from generate_series(1, 10_100) as n",
            [talk],
        )
    page = {"next": base64.b64encode(b"[9950]").decode()}
    for rows in (100, 50):
        query: dict[str, str | int] = {"limit": 100, "after": page["next"]}
        answer = await admin.http.get("/api/analytics/cost_by_hour", params=query)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page["items"]) == rows
    assert page["next"] is None


async def test_every_variable_that_is_listed_can_be_asked_for(
    admin: Person, ada: Person, url: str
) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        books = Books(connection)
        user = ada.identity.user_id
        books.message(
            books.conversation(user_id=user), cost=3, created_at=datetime(2026, 3, 1, 9, tzinfo=UTC)
        )
    for path, first in (
        ("usage_by_time?step=hour", {"at": "2026-03-01T09:00:00"}),
        (f"usage_of_user?user_id={user}", {"day": "2026-03-01"}),
    ):
        (row,) = (await admin.http.get(f"/api/analytics/{path}")).json()["items"]
        assert row | first == row
        assert row["cost"] == "3"


async def test_more_runs_than_are_shown_are_counted(admin: Person, ada: Person, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        books = Books(connection)
        for user in [ada.identity.user_id] * 12 + [None]:
            books.execution(user_id=user)
        talk = books.conversation(user_id=ada.identity.user_id)
        unpriced = books.execution(talk, user_id=ada.identity.user_id)
        for cost in (0, None, None):
            books.message(talk, execution_id=unpriced, cost=cost)
        books.message(talk, execution_id=unpriced, role="user")
        books.execution(user_id=ada.identity.user_id, status="completed")
    for person, count in ((admin, 14), (ada, 13)):
        told = (await person.http.get("/api/overview")).json()
        assert (told["running_count"], len(told["running"])) == (count, 10)
        newest = told["running"][0]
        assert (newest["id"], newest["model_calls"]) == (str(unpriced), 3)
        assert newest["unpriced_calls"] == 2
        path = "/api/executions?limit=1&status=running"
        (listed,) = (await person.http.get(path)).json()["items"]
        one = (await person.http.get(f"/api/executions/{unpriced}")).json()
        assert listed == one
        assert (one["id"], one["unpriced_calls"]) == (str(unpriced), 2)


async def test_runs_of_nobody_in_ones_own_conversation_are_ones_own(
    admin: Person, ada: Person, bob: Person, url: str
) -> None:
    """As the policies and the run itself have it; another's conversation makes it another's."""
    with psycopg.connect(url, autocommit=True) as connection:
        books = Books(connection)
        hers, his = (books.conversation(user_id=who.identity.user_id) for who in (ada, bob))
        of_hers, of_his = books.execution(hers), books.execution(his)
        me = ada.identity.user_id
        by_herself = [books.execution(where, user_id=me) for where in (None, hers)]
        later = books.execution(hers)
        of_nobody = books.execution(books.conversation())
        alone = books.execution()
    all_hers = [later, *reversed(by_herself), of_hers]
    everything = [alone, of_nobody, later, *reversed(by_herself), of_his, of_hers]
    seen = ((ada, all_hers), (bob, [of_his]), (admin, everything))
    for person, runs in seen:
        ids = [str(run) for run in runs]
        listed = (await person.http.get("/api/executions?status=running")).json()["items"]
        assert [run["id"] for run in listed] == ids
        told = (await person.http.get("/api/overview")).json()
        assert told["running_count"] == len(runs)
        assert [run["id"] for run in told["running"]] == ids
        pages: list[str] = []
        page = {"next": ""}
        while page["next"] is not None:
            query = {"limit": 1} | ({"after": page["next"]} if pages else {})
            page = (await person.http.get("/api/executions", params=query)).json()
            pages += [run["id"] for run in page["items"]]
        assert pages == ids


async def test_where_pages_end_is_said(admin: Person, url: str) -> None:
    """Who adds up the pages must not take a part for all of it."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "with c as (insert into chatter.conversations (external_id) "
            "select n::text from generate_series(1, 10001) as n returning id) "
            "insert into chatter.messages (conversation_id, role, cost) "
            "select id, 'assistant', 1 from c"
        )
    path = "/api/analytics/cost_by_conversation"
    page = (await admin.http.get(path, params={"after": cursor(9_900), "limit": 200})).json()
    assert len(page["items"]) == 100
    refused = await admin.http.get(path, params={"after": page["next"]})
    assert refused.status_code == 422
    assert (
        "pages end at row 10,000; all there is tells `chatter report cost_by_conversation"
        in refused.json()["detail"]
    )


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("nonsense", 404),
        ("cost_by_day?since=soon", 422),
        ("cost_by_day?since=2026-01-02&until=2026-01-01", 422),
        ("cost_by_day?time_zone=Mars", 422),
        ("cost_by_day?limit=-1", 422),
        ("cost_by_day?after=nonsense", 422),
        ("cost_by_day?after=W0luZmluaXR5XQ==", 422),  # [Infinity]
        ("running?since=2026-01-01", 422),
        ("cost_by_day?step=hour", 422),
        ("cost_by_day?period=7d", 422),
        ("cost_by_day?since=2026-01-01&group=model", 422),
        ("usage_by_time?step=minute", 422),
        ("usage_of_user?user_id=ada", 422),
    ],
)
async def test_what_cant_be_asked_is_a_problem(admin: Person, path: str, status: int) -> None:
    answer = await admin.http.get(f"/api/analytics/{path}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("page", ["overview", "breakdown", "performance"])
async def test_a_zone_that_there_is_none_of_is_a_problem(admin: Person, page: str) -> None:
    for zone in ("Mars", "UTC%2B5"):
        answer = await admin.http.get(f"/api/{page}?time_zone={zone}")
        assert answer.status_code == 422
        assert "Europe/Berlin" in answer.json()["detail"]


@pytest.mark.parametrize("page", ["overview", "breakdown", "performance"])
async def test_another_period_is_not_answered_with_the_usual_one(admin: Person, page: str) -> None:
    answer = await admin.http.get(f"/api/{page}?since=2026-01-01")
    assert answer.status_code == 422
    assert "since" in answer.text


async def test_figures_of_all_are_for_admins(ada: Person) -> None:
    assert (await ada.http.get("/api/analytics")).status_code == 403
    assert (await ada.http.get("/api/analytics/cost_by_user")).status_code == 403
