"""Pages that stay open: over restarts of the server, and beside those of others."""

import asyncio
import re
import socket
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from playwright.async_api import Browser, Page, Response, expect

import chatter_db.server
from chatter_db.events.event import EVENT_TYPES
from tests.browser.conftest import people, signed_in
from tests.browser.test_looks import visit
from tests.server.conftest import PASSWORD, Person, Site
from tests.server.processes import process, served

# What another process books for ada: conversations, each with a call.
ELSEWHERE = """
  with c as (
    insert into chatter.conversations (user_id, title)
    select u.id, 'Elsewhere ' || n from chatter.users as u cross join generate_series(1, 5) as n
    where u.external_id = 'ada'
    returning id
  )
  insert into chatter.messages (conversation_id, role, model_used, cost)
  select c.id, 'assistant', 'm', 0.5 from c
"""


async def heard(page: Page, number: int) -> list[dict[str, Any]]:
    """What the page was told of conversations and runs, once it is that much."""
    found = "window.heard.filter((event) => event.conversation_id)"
    await page.wait_for_function(f"(number) => {found}.length >= number", arg=number)
    events: list[dict[str, Any]] = await page.evaluate(found)
    return events


def booked(db: psycopg.Connection[Any], user: str) -> list[int]:
    rows = db.execute(
        "select e.id from chatter.events e join chatter.users u on u.id = e.user_id "
        "where u.external_id = %s and e.conversation_id is not null order by e.id",
        (user,),
    )
    return [row[0] for row in rows]


async def ask(page: Page, text: str, said: str, messages: int) -> None:
    """Asks, and waits until the run is over: the page totals the conversation then."""
    await page.get_by_label("Your message").fill(text)
    await page.get_by_role("button", name="Send").click()
    await expect(page.get_by_text(said)).to_be_visible()
    await expect(page.locator(".totals")).to_contain_text(f"{messages} messages")


@pytest.mark.parametrize("killed", [False, True], ids=["told to end", "killed"])
async def test_a_page_hears_everything_once_over_a_restart(
    browser: Browser, url: str, db: psycopg.Connection[Any], killed: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    serve = ("serve", "--port", port, "--no-worker")
    async with process(url, *serve) as first:
        server = await served(first)
        async with httpx.AsyncClient(
            base_url=server.address, headers={"Authorization": f"Bearer {server.key}"}
        ) as admin:
            wanted = {"user": "ada", "password": PASSWORD}
            assert (await admin.post("/api/auth/users", json=wanted)).status_code == 201
        async with signed_in(browser, server.address, "ada") as page:
            await page.goto(f"{server.address}/#/chat/new")
            await ask(page, "What is 6 * 7?", "The calculate tool says: 42.", 2)
            await heard(page, len(booked(db, "ada")))
            if killed:
                first.kill()
            else:
                first.terminate()
            await first.wait()
            await expect(page.locator("#live")).to_have_text("Reconnecting …")
            db.execute(ELSEWHERE)
            async with process(url, *serve) as second:
                await served(second)
                await expect(page.locator("#live")).to_have_text("Live")
                await expect(page.get_by_label("Conversations")).to_contain_text("Elsewhere 5")
                await ask(page, "What is 6 * 8?", "The calculate tool says: 48.", 4)
                ids = booked(db, "ada")
                assert sorted(event["id"] for event in await heard(page, len(ids))) == ids
                await page.goto(f"{server.address}/#/")
                await expect(page.locator("[data-tile='Spent today'] b")).to_contain_text("$2.50")
                await page.goto("about:blank")


async def test_no_page_is_told_or_given_what_is_another_s(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await people(site, "ada", "bob")
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    given: dict[str, list[str]] = {}

    def note(page: Page, name: str) -> None:
        texts = given.setdefault(name, [])

        async def read(response: Response) -> None:
            kind = response.headers.get("content-type", "")
            if "/api/" in response.url and kind.startswith("application/json"):
                texts.append(await response.text())

        page.on("response", read)

    async with (
        signed_in(browser, site.address, "ada") as ada,
        signed_in(browser, site.address, "bob") as bob,
        signed_in(browser, site.address, "root") as root,
    ):
        pages = {"ada": ada, "bob": bob, "root": root}
        for name, page in pages.items():
            note(page, name)
        owned: dict[str, str] = {}
        for name in ("ada", "bob"):
            page = pages[name]
            await page.goto(f"{site.address}/#/chat/new")
            await ask(page, f"Secret of {name}: 6 * 7?", "The calculate tool says: 42.", 2)
            owned[name] = str(
                db.execute(
                    "select c.id from chatter.conversations c "
                    "join chatter.users u on u.id = c.user_id where u.external_id = %s",
                    (name,),
                ).fetchone()[0]  # type: ignore[index]
            )

        everything = booked(db, "ada") + booked(db, "bob")
        assert {event["id"] for event in await heard(root, len(everything))} == set(everything)
        for name, other in (("ada", "bob"), ("bob", "ada")):
            page = pages[name]
            ids = booked(db, name)
            assert sorted(event["id"] for event in await heard(page, len(ids))) == ids
            # Every page of the dashboard, and what it would have to ask to see more.
            for path in ("", "chat", f"chat/{owned[name]}", "security", f"chat/{owned[other]}"):
                await page.goto(f"{site.address}/#/{path}")
                await expect(page.get_by_role("heading", level=1)).to_be_visible()
            await expect(page.get_by_role("alert")).to_contain_text("There is no such conversation")
            for refused, status in (
                (f"conversations/{owned[other]}/messages", 404),
                (f"executions/{run_of(db, owned[other])}", 404),
                ("security/events", 403),
                ("analytics/cost_by_user", 403),
            ):
                answer = await page.evaluate(
                    "(path) => fetch(path).then((r) => r.status)", f"/api/{refused}"
                )
                assert answer == status, refused
            told = "\n".join(given[name])
            assert owned[name] in told
            assert owned[other] not in told and f"Secret of {other}" not in told

        await root.goto(f"{site.address}/#/chat")
        for name, conversation in owned.items():
            await expect(root.get_by_label("Conversations")).to_contain_text(f"Secret of {name}")
            await root.goto(f"{site.address}/#/chat/{conversation}")
            await expect(root.locator(".said")).to_contain_text(f"Secret of {name}")


async def test_what_happens_at_the_door_is_seen_there_and_nowhere_else(
    browser: Browser, site: Site, admin: Person
) -> None:
    await people(site, "ada")
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    stranger = site.client()
    async with signed_in(browser, site.address, "root") as page:
        overview = await page.context.new_page()
        await visit(overview, site.address, "")
        await expect(overview.locator("#live")).to_have_text("Live")
        asked: list[str] = []
        overview.on("request", lambda request: asked.append(request.url))
        await visit(page, site.address, "security")
        wrong = {"user": "ada", "password": "not the password"}
        assert (await stranger.post("/api/auth/login", json=wrong)).status_code == 401
        row = page.get_by_role("row").filter(has_text="ada")
        await expect(row.filter(has_text="login failure")).to_have_count(1)
        await overview.wait_for_function(
            "window.heard.some((event) => event.event_type === 'login_failure')"
        )
        await asyncio.sleep(0.5)
        assert asked == []
        for _ in range(4):
            await stranger.post("/api/auth/login", json=wrong)
        await expect(row.filter(has_text="login failure")).to_have_count(5)
        assert await site.accounts.lift_block("ada")
        await expect(row.filter(has_text="block lifted")).to_have_count(1)


def test_the_page_listens_for_every_kind_of_event() -> None:
    script = Path(chatter_db.server.__file__).parent / "dashboard" / "js" / "live.js"
    lists = re.findall(r"const (?:TYPES|DOOR) = \[([^]]*)\]", script.read_text())
    assert sorted(re.findall(r'"(\w+)"', "".join(lists))) == sorted(EVENT_TYPES)


def run_of(db: psycopg.Connection[Any], conversation: str) -> UUID:
    found = db.execute(
        "select id from chatter.workflow_executions where conversation_id = %s", (conversation,)
    ).fetchone()
    assert found is not None
    run: UUID = found[0]
    return run


async def test_a_server_that_has_frozen_is_not_called_live(
    browser: Browser, url: str, db: psycopg.Connection[Any]
) -> None:
    async with process(url, "serve", "--port", "0", "--no-worker") as running:
        server = await served(running)
        async with httpx.AsyncClient(
            base_url=server.address, headers={"Authorization": f"Bearer {server.key}"}
        ) as admin:
            wanted = {"user": "ada", "password": PASSWORD}
            assert (await admin.post("/api/auth/users", json=wanted)).status_code == 201
        async with signed_in(browser, server.address, "ada") as page:
            live = page.locator("#live")
            await page.clock.install()
            await page.reload()
            await expect(live).to_have_text("Live")
            await expect(page.locator("[data-tile='Spent today'] b")).to_have_text("$0.00")
            # A stream that is told something is one, however long.
            for _ in range(3):
                await page.clock.fast_forward(60_000)
                db.execute(ELSEWHERE)
                await heard(page, len(booked(db, "ada")))
            await expect(live).to_have_text("Live")
            running.freeze()
            try:
                await page.clock.fast_forward(90_000)
                await expect(live).to_have_text("Reconnecting …")
                # Nor is a connection that nobody answers waited for any longer.
                await page.clock.fast_forward(90_000)
                assert await page.evaluate("window.sources.length") == 3
                db.execute(ELSEWHERE)
            finally:
                # Whose session it is by now is asked, too.
                async with page.expect_response("**/api/auth/me"):
                    running.thaw()
            await expect(live).to_have_text("Live")
            await expect(page.locator("[data-tile='Spent today'] b")).to_have_text("$10.00")
            await page.goto("about:blank")
