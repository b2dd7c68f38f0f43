"""What browsers are told and asked: the dashboard's files, and pages of other sites."""

from uuid import uuid4

import httpx
import pytest

from chatter_db import Chatter
from chatter_db.server import create_app
from tests.server.conftest import PASSWORD, Person, Site
from tests.server.test_chat import assert_problem


@pytest.mark.parametrize("path", ["/", "/static/index.html", "/static/js/main.js"])
async def test_nothing_of_the_dashboard_can_be_framed_or_taken_for_another_kind(
    site: Site, path: str
) -> None:
    answer = await site.client().get(path)
    assert answer.status_code == 200
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    ["/docs", "/openapi.json", "/metrics", "/nowhere", "/api/auth/me", "/api/conversations"],
)
async def test_no_answer_can_be_framed_kept_or_taken_for_another_kind(
    ada: Person, path: str
) -> None:
    answer = await ada.http.get(path)
    assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"


async def test_nor_what_tells_that_the_server_failed(chatter: Chatter) -> None:
    app = create_app(chatter)

    @app.get("/failing")
    async def _() -> None:
        raise AssertionError

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
        answer = await http.get("/failing")
    assert answer.status_code == 500
    assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 204),
        ({"Sec-Fetch-Site": "same-origin"}, 204),
        ({"Sec-Fetch-Site": "none"}, 204),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        # Without TLS, and not on loopback, browsers send only this.
        ({"Origin": "{site}"}, 204),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "http://example.com"}, 403),
        ({"Origin": "null"}, 403),
        # A proxy may have another name for the server; the browser knows better.
        ({"Origin": "https://chat.example.com", "Sec-Fetch-Site": "same-origin"}, 204),
    ],
)
async def test_a_page_of_another_site_does_nothing_by_the_cookie(
    site: Site, ada: Person, headers: dict[str, str], status: int
) -> None:
    browser = site.client()
    right = {"user": "ada", "password": PASSWORD}
    assert (await browser.post("/api/auth/login", json=right)).status_code == 200
    given = {name: value.replace("{site}", site.address) for name, value in headers.items()}
    deleted = await browser.delete(f"/api/conversations/{uuid4()}", headers=given)
    assert deleted.status_code == (403 if status == 403 else 404)
    answer = await browser.post("/api/auth/logout", headers=given)
    assert answer.status_code == status
    if status == 403:
        assert_problem(answer, 403)
        assert (await browser.get("/api/auth/me")).status_code == 200
