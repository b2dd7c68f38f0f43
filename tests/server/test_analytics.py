"""/api/analytics."""

from pathlib import Path

import pytest

from chatter_db.analytics import reports
from chatter_db.importing import import_file
from tests.server.conftest import Person

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
    ],
)
async def test_what_cant_be_asked_is_a_problem(admin: Person, path: str, status: int) -> None:
    answer = await admin.http.get(f"/api/analytics/{path}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_figures_of_all_are_for_admins(ada: Person) -> None:
    assert (await ada.http.get("/api/analytics")).status_code == 403
    assert (await ada.http.get("/api/analytics/cost_by_user")).status_code == 403
