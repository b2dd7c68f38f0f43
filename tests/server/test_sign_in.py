"""Signing in over HTTP: what is refused, and that it is told."""

from typing import Any

import psycopg
import pytest

from chatter_db import Chatter
from chatter_db.accounts import Accounts
from chatter_db.settings import settings
from tests.server.conftest import PASSWORD, Person, Site, serving
from tests.server.test_chat import assert_problem


async def test_a_wrong_password_is_refused_and_the_right_one_taken(site: Site, ada: Person) -> None:
    browser = site.client()
    for user, password in (("ada", "wrong"), ("nobody", PASSWORD)):
        refused = await browser.post("/api/auth/login", json={"user": user, "password": password})
        # The same words for both: who is a user here is nobody's business.
        assert assert_problem(refused, 401)["detail"] == "User or password is wrong."
        assert_problem(await browser.get("/api/auth/me"), 401)
    right = {"user": "ada", "password": PASSWORD}
    assert (await browser.post("/api/auth/login", json=right)).status_code == 200
    assert (await browser.get("/api/auth/me")).json()["user"] == "ada"


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_no_script_reads_the_cookie_and_it_goes_with_the_session(
    site: Site, ada: Person, scheme: str
) -> None:
    """Behind a proxy that ends TLS, it is sent over TLS alone."""
    browser = site.client(**{"X-Forwarded-Proto": scheme})
    signed_in = await browser.post("/api/auth/login", json={"user": "ada", "password": PASSWORD})
    cookie, *rest = signed_in.headers["Set-Cookie"].split("; ")
    said = {attribute.lower() for attribute in rest}
    assert {"httponly", "samesite=strict", "path=/", "max-age=604800"} <= said
    assert ("secure" in said) is (scheme == "https")
    away = await browser.post("/api/auth/logout", headers={"Cookie": cookie})
    assert away.status_code == 204
    assert "max-age=0" in away.headers["Set-Cookie"].lower()
    assert_problem(await site.client(Cookie=cookie).get("/api/auth/me"), 401)


async def test_the_cookie_decides_beside_what_a_proxy_passes_on(site: Site, ada: Person) -> None:
    proxied = site.client(Authorization="Basic YWRhOnNlY3JldA==")
    assert_problem(await proxied.get("/api/auth/me"), 401)
    await proxied.post("/api/auth/login", json={"user": "ada", "password": PASSWORD})
    assert (await proxied.get("/api/auth/me")).json()["user"] == "ada"
    # It may do no more than without the header.
    for said in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://elsewhere.example"}):
        assert_problem(await proxied.post("/api/conversations", json={}, headers=said), 403)
    # A key that is none is refused, whoever's cookie comes along.
    for wrong in ("Bearer", "bearer chatter_wrong", "BEARER other", "Bearer  x"):
        refused = await proxied.get("/api/auth/me", headers={"Authorization": wrong})
        assert_problem(refused, 401)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("login", r'{"user": "ada", "password": "half \ud83d of a pair"}'),
        ("login", r'{"api_key": "chatter_\ud83d"}'),
        ("password", r'{"old": "half \ud83d of a pair", "new": "another good password"}'),
        ("password", r'{"old": "correct horse battery", "new": "half \ud83d of a pair"}'),
        ("users", r'{"user": "eve", "password": "half \ud83d of a pair"}'),
    ],
)
async def test_a_secret_that_is_no_text_is_refused_and_not_told(
    site: Site, path: str, body: str
) -> None:
    admin = await site.person("root", role="admin")
    headers = {"Content-Type": "application/json"}
    refused = await admin.http.post(f"/api/auth/{path}", content=body, headers=headers)
    assert "half of a surrogate pair" in assert_problem(refused, 422)["detail"]
    assert "of a pair" not in refused.text.replace("half of a surrogate pair", "")


async def test_a_request_too_many_writes_nothing(
    chatter: Chatter, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHATTER_REQUESTS_PER_MINUTE", "1")
    settings.cache_clear()
    async with serving(chatter) as address:
        site = Site(address, Accounts(chatter), [])
        ada = await site.person("ada")
        assert [(await ada.http.get("/api/auth/me")).status_code for _ in range(2)] == [200, 429]
        # Due to be noted, were it not refused.
        db.execute("update chatter.api_keys set last_used_at = null")
        everything = (
            "select (select array_agg(event_type order by id) from chatter.security_events), "
            "(select max(id) from chatter.events), (select max(xmin::text) from chatter.api_keys)"
        )
        before = db.execute(everything).fetchone()
        assert before is not None
        told = ["account_created", "api_key_created", "api_key_used", "rate_limit_exceeded"]
        assert before[0] == told
        for _ in range(5):
            assert_problem(await ada.http.get("/api/auth/me"), 429)
        assert db.execute(everything).fetchone() == before
        await ada.http.aclose()


@pytest.mark.parametrize("end", ["expires_at = now()", "revoked_at = now()"])
async def test_a_key_that_has_ended_is_refused(
    ada: Person, db: psycopg.Connection[Any], end: str
) -> None:
    assert (await ada.http.get("/api/conversations")).status_code == 200
    db.execute(f"update chatter.api_keys set {end}".encode())
    for path in ("/api/conversations", "/api/events", "/api/overview"):
        refused = assert_problem(await ada.http.get(path), 401)
        assert refused["detail"].startswith("Sign in: an API key")
    assert_problem(await ada.http.post("/api/auth/login", json={"api_key": ada.secret}), 401)
    assert_problem(await ada.http.post("/api/conversations", json={}), 401)
    assert db.execute("select count(*) from chatter.conversations").fetchone() == (0,)


@pytest.mark.parametrize("by", ["key", "browser"])
async def test_a_key_that_ends_makes_no_endless_one(site: Site, ada: Person, by: str) -> None:
    made = await ada.http.post("/api/auth/keys", json={"name": "guest", "lasts_days": 1})
    limited = made.json()
    if by == "key":
        guest = site.client(Authorization=f"Bearer {limited['secret']}")
    else:
        guest = site.client()
        await guest.post("/api/auth/login", json={"api_key": limited["secret"]})
    for wanted in ({}, {"lasts_days": 3650}):
        more = await guest.post("/api/auth/keys", json={"name": "more", **wanted})
        assert (more.status_code, more.json()["expires_at"]) == (201, limited["expires_at"])
    for wanted in ({}, {"lasts_days": 3650}):
        path = f"/api/auth/keys/{more.json()['id']}/rotate"
        rotated = await guest.post(path, json=wanted or None)
        assert (rotated.status_code, rotated.json()["expires_at"]) == (201, limited["expires_at"])
    longer = await ada.http.post(path, json={"lasts_days": 3650})
    assert longer.json()["expires_at"] > limited["expires_at"]
