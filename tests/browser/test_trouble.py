"""Slow and failing answers, sessions that end: what is shown is true, what is written stays."""

import asyncio
from collections import Counter
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from playwright.async_api import Browser, Page, Route, expect

from chatter_db import Chatter
from chatter_db.accounts import Accounts
from chatter_db.server import sse
from tests.browser.conftest import people, signed_in
from tests.browser.test_looks import visit
from tests.server.conftest import PASSWORD, Person, Site, serving
from tests.sql.books import Books


async def bad_gateway(route: Route) -> None:
    await route.fulfill(status=502, content_type="text/html", body="<h1>Bad gateway</h1>")


async def too_many(route: Route) -> None:
    await route.fulfill(status=429, content_type="text/html", body="<h1>Too many requests</h1>")


def tile(page: Page, name: str) -> Any:
    return page.locator(f"[data-tile='{name}'] b")


async def test_what_comes_while_the_figures_are_on_their_way_is_in_them(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    talk = books.conversation(user_id=admin.identity.user_id)
    async with signed_in(browser, site.address, "root") as page:
        await expect(tile(page, "Spent today")).to_have_text("$0.00")
        slow, read = asyncio.Event(), asyncio.Event()

        async def hold(route: Route) -> None:
            answer = await route.fetch()
            read.set()
            await slow.wait()
            await route.fulfill(response=answer)

        await page.route("**/api/overview?*", hold)
        books.message(talk, model_used="m", cost="1")
        await read.wait()
        heard = await page.evaluate("window.heard.length")
        books.message(talk, model_used="m", cost="1")
        while await page.evaluate("window.heard.length") < heard + 2:
            await asyncio.sleep(0.02)
        slow.set()
        await expect(tile(page, "Spent today")).to_have_text("$2.00")
        await page.unroute_all(behavior="wait")


async def test_figures_bear_the_name_of_their_own_period(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    talk = books.conversation(user_id=admin.identity.user_id)
    old = books.value("select now() - interval '20 days'")
    books.message(talk, model_used="m", cost="3", created_at=old)
    async with signed_in(browser, site.address, "root") as page:
        await expect(tile(page, "Spent, 30 days")).to_have_text("$3.00")
        await page.route("**/api/overview?*", bad_gateway)
        await page.get_by_text("7 days").click()
        await expect(page.get_by_role("alert")).to_contain_text("The server answered 502.")
        await page.get_by_text("Calls", exact=True).click()
        await expect(tile(page, "Spent, 7 days")).to_have_count(0)
        await page.reload()
        await expect(page.get_by_role("alert")).to_contain_text("The server answered 502.")
        await expect(page.get_by_text("Loading …")).to_have_count(0)


async def test_the_day_s_change_is_seen_though_nothing_happens(
    browser: Browser, site: Site
) -> None:
    await people(site, "ada")
    async with signed_in(browser, site.address, "ada") as page:
        await page.clock.install()
        await visit(page, site.address, "")
        await page.reload()
        await expect(tile(page, "Spent today")).to_have_text("$0.00")
        async with page.expect_request("**/api/overview?*", timeout=5000):
            await page.clock.fast_forward("24:00:00")
            await page.clock.fast_forward(5000)
        # Whose day, where that may not be the reader's.
        await expect(page.get_by_text("by days of UTC")).to_be_visible()


async def test_a_stream_that_a_proxy_refused_is_asked_for_again(
    browser: Browser, site: Site, db: psycopg.Connection[Any]
) -> None:
    await people(site, "ada")
    books = Books(db)
    ada = books.value("select id from chatter.users where external_id = 'ada'")
    async with signed_in(browser, site.address, "ada") as page:
        await page.clock.install()
        await page.route("**/api/events?*", bad_gateway)
        await page.reload()
        await expect(page.locator("#live")).to_have_text("Not live")
        await page.clock.fast_forward(3000)
        await expect(tile(page, "Spent today")).to_have_text("$0.00")
        books.message(books.conversation(user_id=ada), model_used="m", cost="1")
        await page.unroute_all()
        await page.clock.fast_forward(5000)
        await expect(page.locator("#live")).to_have_text("Live")
        await expect(tile(page, "Spent today")).to_have_text("$1.00")


async def test_what_could_not_be_read_before_a_restart_is_read_after_it(
    browser: Browser, chatter: Chatter, db: psycopg.Connection[Any]
) -> None:
    first = serving(chatter)
    address = await first.__aenter__()
    await people(Site(address, Accounts(chatter), []), "ada")
    books = Books(db)
    ada = books.value("select id from chatter.users where external_id = 'ada'")
    async with signed_in(browser, address, "ada") as page:
        await expect(tile(page, "Spent today")).to_have_text("$0.00")
        await page.route("**/api/overview?*", bad_gateway)
        books.message(books.conversation(user_id=ada), model_used="m", cost="1")
        await expect(page.get_by_role("alert")).to_contain_text("The server answered 502.")
        await page.unroute_all()
        await first.__aexit__(None, None, None)
        async with serving(chatter, port=int(address.rpartition(":")[2])):
            await expect(tile(page, "Spent today")).to_have_text("$1.00")
            await expect(page.get_by_role("alert")).to_be_hidden()
            await page.goto("about:blank")


async def test_what_is_read_ever_less_often_is_read_at_once_after_a_restart(
    browser: Browser, chatter: Chatter, db: psycopg.Connection[Any]
) -> None:
    first = serving(chatter)
    address = await first.__aenter__()
    await people(Site(address, Accounts(chatter), []), "ada")
    books = Books(db)
    ada = books.value("select id from chatter.users where external_id = 'ada'")
    async with signed_in(browser, address, "ada") as page:
        await page.clock.install()
        await page.reload()
        await expect(tile(page, "Spent today")).to_have_text("$0.00")
        await page.route("**/api/overview?*", bad_gateway)
        async with page.expect_response("**/api/overview?*"):
            books.message(books.conversation(user_id=ada), model_used="m", cost="1")
        for wait in (1000, 2000, 4000, 8000, 16_000):
            async with page.expect_response("**/api/overview?*"):
                await page.clock.fast_forward(wait)
        await first.__aexit__(None, None, None)
        await expect(page.locator("#live")).to_have_text("Reconnecting …")
        await page.unroute_all()
        async with serving(chatter, port=int(address.rpartition(":")[2])):
            await expect(page.locator("#live")).to_have_text("Live", timeout=15_000)
            await expect(tile(page, "Spent today")).to_have_text("$1.00")
            await page.goto("about:blank")


async def test_what_is_written_stays_until_it_is_sent(
    browser: Browser, site: Site, monkeypatch: pytest.MonkeyPatch, db: psycopg.Connection[Any]
) -> None:
    monkeypatch.setattr(sse, "CHECK_SECONDS", 0.05)
    await people(site, "ada", "bob")

    async def sign_in(page: Page, user: str) -> None:
        await expect(page.get_by_role("alert")).to_have_text("Your session has ended.")
        await page.get_by_label("User").fill(user)
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Sign in").click()

    async with signed_in(browser, site.address, "ada") as page:
        await visit(page, site.address, "chat/new")
        text = page.get_by_label("Your message")
        await text.fill("A long thought")
        await page.get_by_role("link", name="Overview").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
        await page.go_back()
        await expect(text).to_have_value("A long thought")

        db.execute("update chatter.browser_sessions set revoked_at = now()")
        await expect(page.get_by_label("Password")).to_be_visible()
        await page.go_back()
        await expect(page.get_by_label("Password")).to_be_visible()
        await page.go_forward()
        await sign_in(page, "ada")
        await expect(text).to_have_value("A long thought")
        db.execute("update chatter.browser_sessions set revoked_at = now()")
        await sign_in(page, "bob")
        await expect(text).to_have_value("")


async def test_a_message_that_fails_costs_no_other_text(browser: Browser, site: Site) -> None:
    await people(site, "ada")
    async with signed_in(browser, site.address, "ada") as page:
        slow = asyncio.Event()

        async def fail(route: Route) -> None:
            if route.request.method == "POST":
                await slow.wait()
                await bad_gateway(route)
            else:
                await route.continue_()

        await page.clock.install()
        await page.route("**/api/conversations", fail)
        await visit(page, site.address, "chat/new")
        text = page.get_by_label("Your message")
        await text.fill("One")
        await page.keyboard.press("Enter")
        await expect(text).to_have_value("")
        await text.fill("Two")
        # However long it takes: it may have been done.
        await page.clock.fast_forward(60_000)
        await page.evaluate("fetch('/api/auth/me')")
        await expect(page.get_by_role("alert")).to_be_hidden()
        slow.set()
        await expect(page.get_by_role("alert")).to_have_text("The server answered 502.")
        await expect(text).to_have_value("One\nTwo")


async def test_who_leaves_before_a_conversation_is_there_stays_where_they_go(
    browser: Browser, site: Site
) -> None:
    await people(site, "ada")
    async with signed_in(browser, site.address, "ada") as page:
        slow = asyncio.Event()

        async def wait(route: Route) -> None:
            if route.request.method == "POST":
                await slow.wait()
            await route.continue_()

        await page.route("**/api/conversations", wait)
        await visit(page, site.address, "chat/new")
        await page.get_by_label("Your message").fill("What is 6 * 7?")
        await page.keyboard.press("Enter")
        await page.get_by_role("link", name="Overview").click()
        slow.set()
        await expect(tile(page, "Spent today")).not_to_have_text("$0.00")
        assert page.url.endswith("#/")


async def test_an_error_is_told_for_as_long_as_it_is_one(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    talk = books.conversation(user_id=admin.identity.user_id)
    async with signed_in(browser, site.address, "root") as page:
        await page.route(f"**/api/conversations/{talk}", bad_gateway)
        await visit(page, site.address, f"chat/{talk}")
        await expect(page.get_by_role("alert")).to_have_text("The server answered 502.")
        await page.unroute_all()
        books.message(talk, model_used="m", cost="1")
        await expect(page.locator(".totals")).to_contain_text("$1.00 cost")
        await expect(page.get_by_role("alert")).to_be_hidden()


async def test_what_could_not_be_read_is_read_again_though_nothing_happens(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    talk = books.conversation(user_id=admin.identity.user_id, title="Talk")
    books.message(talk, model_used="m", cost="1")
    tried = 0

    async def fail(route: Route) -> None:
        nonlocal tried
        tried += 1
        if tried == 1:
            await route.abort()
        else:
            await bad_gateway(route)

    async with signed_in(browser, site.address, "root") as page:
        alert, shown = page.get_by_role("alert"), page.locator("main")
        await expect(tile(page, "Spent today")).to_have_text("$1.00")
        await page.route("**/api/overview?*", fail)
        books.message(talk, model_used="m", cost="1")
        await expect(alert).to_contain_text("Those below are old, of ")
        # The stream is up and silent; a second later it is tried again, then after two.
        await expect(alert).to_contain_text("The server answered 502.")
        assert tried == 2
        await expect(page.locator("#live")).to_have_text("Live")
        await page.unroute_all()
        await expect(tile(page, "Spent today")).to_have_text("$2.00")
        await expect(alert).to_be_hidden()

        for path, read, text in (
            (f"chat/{talk}", f"**/api/conversations/{talk}", "$2.00 cost"),
            ("chat", "**/api/conversations?*", "Talk"),
            ("security", "**/api/security/alerts?*", "login success"),
        ):
            await page.route(read, too_many)
            await visit(page, site.address, path)
            await expect(alert).to_have_text("The server answered 429.")
            await page.unroute_all()
            await expect(shown).to_contain_text(text)
            await expect(alert.locator("visible=true")).to_have_count(0)


async def test_a_read_that_is_never_answered_holds_back_no_other(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    talk = books.conversation(user_id=admin.identity.user_id)
    async with signed_in(browser, site.address, "root") as page:
        await page.clock.install()
        await page.reload()
        await expect(tile(page, "Spent today")).to_have_text("$0.00")
        asked, over = asyncio.Event(), asyncio.Event()

        async def hold(route: Route) -> None:
            asked.set()
            await over.wait()

        await page.route("**/api/overview?*", hold)
        books.message(talk, model_used="m", cost="1")
        await asked.wait()
        await page.clock.fast_forward(60_000)
        told = "The server did not answer within a minute."
        await expect(page.get_by_role("alert")).to_contain_text(told)
        over.set()
        await page.unroute_all(behavior="ignoreErrors")
        await page.clock.fast_forward(5000)
        await expect(tile(page, "Spent today")).to_have_text("$1.00")
        # What is refused for good is not asked for again, before the stream counts as silent.
        await page.reload()
        nowhere = str(uuid4())
        wanted: Counter[str] = Counter()
        page.on("request", lambda r: wanted.update([r.url] if nowhere in r.url else []))
        await visit(page, site.address, f"chat/{nowhere}")
        await expect(page.get_by_role("alert")).to_contain_text("There is no")
        for _ in range(3):
            await page.clock.fast_forward(20_000)
            await page.evaluate("fetch('/api/auth/me')")
        assert set(wanted.values()) == {1}


async def test_a_page_that_was_opened_too_early_comes_by_itself(
    browser: Browser, site: Site, admin: Person
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    async with signed_in(browser, site.address, "root") as page:
        alert = page.get_by_role("alert")
        await page.route("**/api/auth/me", bad_gateway)
        await page.reload()
        await expect(alert).to_contain_text("The server answered 502.")
        # Still the same words, which are not read out again.
        await page.evaluate("document.querySelector('[role=alert]').firstChild.kept = true")
        async with page.expect_response("**/api/auth/me"):
            pass
        assert await alert.evaluate("(e) => e.firstChild.kept")
        await page.unroute_all()
        await expect(tile(page, "Spent today")).to_have_text("$0.00")
        await expect(page.locator("#live")).to_have_text("Live")


async def test_what_fails_is_asked_again_ever_less_often_and_only_where_it_is_shown(
    browser: Browser, site: Site
) -> None:
    await people(site, "ada")
    async with signed_in(browser, site.address, "ada") as page:
        await page.clock.install()
        await page.reload()
        await expect(tile(page, "Spent today")).to_have_text("$0.00")
        asked: list[str] = []
        page.on("request", lambda r: asked.append(r.url) if "/api/overview?" in r.url else None)

        async def during(seconds: int) -> int:
            before = len(asked)
            for _ in range(seconds):
                await page.clock.run_for(1000)
                await page.evaluate("fetch('/api/auth/me')")
            return len(asked) - before

        await page.route("**/api/overview?*", bad_gateway)
        await page.get_by_text("7 days", exact=True).click()
        await expect(page.get_by_role("alert")).to_contain_text("The server answered 502.")
        # After 1, 2, 4 and 8 seconds.
        assert 3 <= await during(16) <= 4
        await page.unroute_all()
        # Before its time is up somebody asks, and is answered.
        await page.get_by_text("30 days", exact=True).click()
        await expect(page.get_by_role("alert")).to_be_hidden()
        assert await during(20) == 0
        await page.route("**/api/overview?*", bad_gateway)
        await page.get_by_text("7 days", exact=True).click()
        await expect(page.get_by_role("alert")).to_contain_text("The server answered 502.")
        assert 2 <= await during(5) <= 3
        await page.get_by_role("link", name="Chat", exact=True).click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Chat")
        # But for what was due at that moment.
        assert await during(30) <= 1


async def test_who_signs_in_is_not_disturbed(
    browser: Browser, site: Site, monkeypatch: pytest.MonkeyPatch, db: psycopg.Connection[Any]
) -> None:
    monkeypatch.setattr(sse, "CHECK_SECONDS", 0.05)
    await people(site, "ada")
    async with signed_in(browser, site.address, "ada") as page:
        await page.clock.install()
        await page.reload()
        await expect(page.locator("#live")).to_have_text("Live")
        db.execute("update chatter.browser_sessions set revoked_at = now()")
        await expect(page.get_by_role("alert")).to_have_text("Your session has ended.")
        await page.get_by_label("User").fill("ada")
        await page.clock.fast_forward(100_000)
        await page.evaluate("fetch('/api/auth/me')")
        await expect(page.get_by_label("User")).to_have_value("ada")
        assert await page.evaluate("window.sources.length") == 1


async def test_an_answer_that_comes_in_crumbs_is_whole(browser: Browser, site: Site) -> None:
    await people(site, "ada")
    async with signed_in(browser, site.address, "ada") as page:
        await page.add_init_script(
            """window.TextDecoderStream = class extends TransformStream {
              constructor() {
                const decoder = new TextDecoder();
                super({ transform(bytes, told) {
                  for (const letter of decoder.decode(bytes)) told.enqueue(letter);
                } });
              }
            };"""
        )
        await page.reload()
        await visit(page, site.address, "chat/new")
        # What is booked is not read afterwards.
        await page.route("**/messages?*", bad_gateway)
        await page.get_by_label("Your message").fill("What is 6 * 7?")
        await page.keyboard.press("Enter")
        await expect(page.locator(".said .assistant p").first).to_have_text(
            "The calculate tool says: 42."
        )
        await expect(page.locator(".said .figures")).to_have_text("calling calculate …")
