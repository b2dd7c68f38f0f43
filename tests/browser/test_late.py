"""Answers that come late, tabs of two people, clocks that are wrong."""

import asyncio
import re
from typing import Any

import psycopg
import pytest
from playwright.async_api import Browser, Page, Route, expect

from chatter_db.server import sse
from tests.browser.conftest import people, signed_in
from tests.browser.test_looks import visit
from tests.server.conftest import PASSWORD, Person, Site
from tests.sql.books import Books


class First:
    """Holds back the first answer, as it was, until `late` is called; the others pass."""

    def __init__(self) -> None:
        self.asked = 0
        self.read, self._over, self._told = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self, route: Route) -> None:
        self.asked += 1
        if self.asked > 1:
            await route.continue_()
            return
        answer = await route.fetch()
        self.read.set()
        await self._over.wait()
        await route.fulfill(response=answer)
        self._told.set()

    async def late(self, page: Page) -> None:
        self._over.set()
        await self._told.wait()
        # What it would draw is drawn by now.
        await page.evaluate("new Promise((done) => setTimeout(done, 200))")


async def test_an_answer_that_was_overtaken_is_not_shown(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    talk = books.conversation(user_id=admin.identity.user_id, title="Talk")
    spent = 0
    async with signed_in(browser, site.address, "root") as page:
        for path, read, place in (
            ("", "**/api/overview?*", "[data-tile='Spent today'] b"),
            ("chat", "**/api/conversations?*", ".list"),
            (f"chat/{talk}", f"**/api/conversations/{talk}", ".totals"),
        ):
            first = First()
            await page.route(read, first)
            await page.goto(f"{site.address}/#/{path}")
            await first.read.wait()
            spent += 1
            books.message(talk, model_used="m", cost="1")
            await expect(page.locator(place)).to_contain_text(f"${spent}.00")
            await first.late(page)
            await expect(page.locator(place)).to_contain_text(f"${spent}.00")
            await page.unroute_all(behavior="wait")

        first = First()
        await page.route("**/api/security/events?*", first)
        await visit(page, site.address, "chat")
        await page.goto(f"{site.address}/#/security")
        await first.read.wait()
        wrong = {"user": "nobody", "password": "not the password"}
        assert (await site.client().post("/api/auth/login", json=wrong)).status_code == 401
        await asyncio.sleep(2.5)
        await first.late(page)
        await expect(page.get_by_role("row").filter(has_text="login failure")).to_have_count(1)
        await page.unroute_all(behavior="wait")


async def test_a_tab_bears_the_name_of_whom_it_shows(
    browser: Browser, site: Site, monkeypatch: pytest.MonkeyPatch, db: psycopg.Connection[Any]
) -> None:
    monkeypatch.setattr(sse, "CHECK_SECONDS", 0.5)
    await people(site, "ada", "bob")
    books = Books(db)
    bob = books.value("select id from chatter.users where external_id = 'bob'")
    books.message(books.conversation(user_id=bob), model_used="m", cost="3")
    async with signed_in(browser, site.address, "ada") as page:
        await expect(page.locator("[data-tile='Spent today'] b")).to_have_text("$0.00")
        # In another tab ada signs out, and bob in.
        login = {"user": "bob", "password": PASSWORD}
        await page.context.request.post(f"{site.address}/api/auth/logout")
        answer = await page.context.request.post(f"{site.address}/api/auth/login", data=login)
        assert answer.status == 200
        await expect(page.locator("[data-tile='Spent today'] b")).to_have_text("$3.00")
        await expect(page.locator("#who-name")).to_have_text("bob")
        streams = "window.sources.filter((source) => source.readyState !== EventSource.CLOSED)"
        assert await page.evaluate(f"{streams}.length") == 1


async def test_many_events_are_few_reads(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    talk = books.conversation(user_id=admin.identity.user_id)
    async with signed_in(browser, site.address, "root") as page:
        await expect(page.locator("[data-tile='Spent today'] b")).to_have_text("$0.00")
        reads: list[str] = []
        page.on("request", lambda r: reads.append(r.url) if "/api/overview?" in r.url else None)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(16):
            books.message(talk, model_used="m", cost="1")
            await asyncio.sleep(0.15)
        await expect(page.locator("[data-tile='Spent today'] b")).to_have_text("$16.00")
        assert len(reads) <= 2 + (loop.time() - began)


async def test_a_page_that_was_left_reads_nothing(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    open_one, other = (books.conversation(user_id=admin.identity.user_id) for _ in range(2))
    async with signed_in(browser, site.address, "root") as page:
        await page.clock.install()
        await page.reload()
        reads: list[str] = []
        page.on("request", lambda r: reads.append(r.url))
        for path, mine in (
            (f"chat/{open_one}", r"/api/conversations\?"),
            ("", "/api/(overview|breakdown|performance)"),
            ("security", "/api/security"),
            ("chat", r"/api/conversations\?"),
        ):
            await visit(page, site.address, path)
            await page.wait_for_timeout(500)
            reads.clear()
            heard = await page.evaluate("window.heard.length")
            # Of the one that is not shown, or not any more.
            books.message(open_one if path != f"chat/{open_one}" else other, cost="1")
            await page.wait_for_function("(n) => window.heard.length > n", arg=heard)
            await page.wait_for_timeout(1500)
            assert [read for read in reads if not re.search(mine, read)] == [], path
        # Nor is it any page's business but the overview's that a day is over.
        reads.clear()
        await page.clock.fast_forward("24:00:00")
        await page.wait_for_timeout(1500)
        assert [read for read in reads if "/api/overview" in read] == []


async def test_an_answer_takes_nobody_s_place(browser: Browser, site: Site) -> None:
    await people(site, "ada")
    async with signed_in(browser, site.address, "ada") as page:
        await visit(page, site.address, "chat/new")
        slow = asyncio.Event()

        async def hold(route: Route) -> None:
            await slow.wait()
            await route.continue_()

        await page.route("**/messages", hold)
        text = page.get_by_label("Your message")
        await text.fill("What is 6 * 7?")
        await page.get_by_role("button", name="Send").click()
        await expect(page.locator(".said li")).to_have_count(2)
        # Not word by word, and then all of it again.
        await expect(page.locator(".said")).to_have_attribute("aria-busy", "true")
        await page.get_by_role("link", name="Overview").focus()
        slow.set()
        await expect(page.locator(".totals")).to_contain_text("2 messages")
        await expect(page.locator(".said")).not_to_have_attribute("aria-busy", "true")
        await expect(page.get_by_role("link", name="Overview")).to_be_focused()
        # Who stayed there writes on.
        await text.fill("What is 6 * 8?")
        await page.get_by_role("button", name="Send").click()
        await expect(page.locator(".totals")).to_contain_text("4 messages")
        await expect(text).to_be_focused()


async def test_how_long_a_run_takes_is_told_by_one_clock(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    books.execution(None, user_id=admin.identity.user_id)
    async with signed_in(browser, site.address, "root") as page:
        # A clock that is half an hour fast.
        await page.add_init_script("const now = Date.now; Date.now = () => now() + 1800000;")
        await page.reload()
        run = page.locator("[data-since]")
        # It goes on while one looks at it.
        seconds = re.compile(r"^\d+ s$")
        await expect(run).to_have_text(seconds)
        await expect(run).not_to_have_text(await run.inner_text())
        await expect(run).to_have_text(seconds)
        for since, told in (("90 seconds", "1 min"), ("5 hours", "5 h"), ("3 days", "3 d")):
            db.execute(
                "update chatter.workflow_executions set started_at = now() - %s::interval", [since]
            )
            await page.reload()
            await expect(run).to_have_text(told)


async def test_bars_of_weeks_and_years_say_so(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    talk = books.conversation(user_id=admin.identity.user_id)
    # A Wednesday: its week began on the 2nd.
    books.message(talk, model_used="m", cost="1", created_at="2024-09-04 12:00+00")
    async with signed_in(browser, site.address, "root") as page:
        await page.get_by_text("All", exact=True).click()
        await page.get_by_text("As a table").click()
        chart = page.locator(".chart")
        await expect(chart.get_by_role("columnheader").first).to_have_text("week from")
        await expect(chart.get_by_role("cell").first).to_contain_text("2 Sept 2024")
        await expect(chart.locator("svg > text").nth(3)).to_have_text("2 Sept 2024")
        await expect(chart.locator("title").first).to_contain_text("week from 2 Sept 2024")


async def test_one_s_own_days_are_of_utc_wherever_one_is(
    browser: Browser, site: Site, db: psycopg.Connection[Any]
) -> None:
    await people(site, "ada")
    books = Books(db)
    ada = books.value("select id from chatter.users where external_id = 'ada'")
    books.message(books.conversation(user_id=ada), model_used="m", cost="1")
    # In one of them it is another day.
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):
        async with signed_in(browser, site.address, "ada", timezone_id=zone) as page:
            await expect(page.locator("[data-tile='Spent today'] b")).to_have_text("$1.00")
            today = await page.evaluate(
                "new Date().toLocaleDateString('en-GB', "
                "{ timeZone: 'UTC', day: 'numeric', month: 'short' })"
            )
            await page.get_by_text("As a table").click()
            await expect(page.locator(".chart tbody td").first).to_have_text(today)


async def test_days_are_of_utc_where_the_database_does_not_know_the_reader_s(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    books.message(books.conversation(), model_used="m", cost="1")
    async with signed_in(browser, site.address, "root") as page:
        # As newer browsers know zones that an older Postgres doesn't.
        await page.add_init_script(
            "Intl.DateTimeFormat.prototype.resolvedOptions = () => ({ timeZone: 'Europe/Newtown' })"
        )
        await page.reload()
        for period in ("Today", "All", "30 days"):
            await page.get_by_text(period, exact=True).click()
            spent = page.locator(f"[data-tile='Spent, {period.lower()}'] b")
            await expect(spent).to_have_text("$1.00")
            await expect(page.locator(".head .totals")).to_contain_text(
                "by days of UTC: the database does not know Europe/Newtown"
            )
            await expect(page.get_by_role("alert")).to_be_hidden()


async def test_a_session_that_changed_while_nobody_answered(
    browser: Browser, site: Site, monkeypatch: pytest.MonkeyPatch, db: psycopg.Connection[Any]
) -> None:
    monkeypatch.setattr(sse, "CHECK_SECONDS", 0.2)
    await people(site, "ada", "bob")
    books = Books(db)
    bob = books.value("select id from chatter.users where external_id = 'bob'")
    books.message(books.conversation(user_id=bob), model_used="m", cost="3")

    async def away(route: Route) -> None:
        await route.fulfill(status=503, body="")

    async with signed_in(browser, site.address, "ada") as page:
        for path in ("**/api/events?*", "**/api/auth/me"):
            await page.route(path, away)
        await page.context.request.post(f"{site.address}/api/auth/logout")
        await expect(page.locator("#live")).to_have_text("Not live", timeout=20_000)
        login = {"user": "bob", "password": PASSWORD}
        await page.context.request.post(f"{site.address}/api/auth/login", data=login)
        await page.unroute_all(behavior="wait")
        await expect(page.locator("#who-name")).to_have_text("bob", timeout=20_000)
        await expect(page.locator("[data-tile='Spent today'] b")).to_have_text("$3.00")


async def test_who_is_no_admin_any_more_has_no_page_of_theirs(
    browser: Browser,
    site: Site,
    admin: Person,
    monkeypatch: pytest.MonkeyPatch,
    db: psycopg.Connection[Any],
) -> None:
    monkeypatch.setattr(sse, "CHECK_SECONDS", 0.2)
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    async with signed_in(browser, site.address, "root") as page:
        await expect(page.locator("#nav-security")).to_be_visible()
        db.execute("update chatter.users set role = 'user' where external_id = 'root'")
        await expect(page.locator("#nav-security")).to_be_hidden(timeout=20_000)
        await expect(page.locator("#live")).to_have_text("Live")


async def test_who_has_to_sign_in_is_not_let_in_by_what_is_late(
    browser: Browser, site: Site
) -> None:
    await people(site, "ada")

    async def refuse(route: Route) -> None:
        await asyncio.sleep(0.2)  # the sign-in is through by then
        told = '{"title": "Unauthorized", "status": 401, "detail": "no"}'
        await route.fulfill(status=401, content_type="application/problem+json", body=told)

    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(site.address)
    for path in ("**/api/events?*", "**/api/auth/me"):
        await page.route(path, refuse)
    await page.get_by_label("User").fill("ada")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_have_text("Your session has ended.")
    await asyncio.sleep(3.5)  # longer than a page waits for its stream
    await expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    await context.close()


async def test_who_comes_sees_nothing_of_who_was_there(
    browser: Browser, site: Site, monkeypatch: pytest.MonkeyPatch, db: psycopg.Connection[Any]
) -> None:
    """Nor while the stream is slow to begin."""
    monkeypatch.setattr(sse, "CHECK_SECONDS", 0.2)
    await people(site, "ada", "bob")
    books = Books(db)
    ada = books.value("select id from chatter.users where external_id = 'ada'")
    books.message(books.conversation(user_id=ada, title="Of ada"), model_used="m", cost="7")
    slow, begun = asyncio.Event(), []

    async def begin_slowly(route: Route) -> None:
        begun.append(route)
        # The first is ada's, which comes back as bob's.
        if len(begun) > 1:
            await slow.wait()
        await route.continue_()

    async with signed_in(browser, site.address, "ada") as page:
        await expect(page.get_by_text("Of ada")).to_be_visible()
        await page.evaluate(
            """() => new MutationObserver(() => {
                 const text = (id) => document.getElementById(id).textContent;
                 window.leaked ||= text("who-name") === "bob" && text("main").includes("Of ada");
               }).observe(document.body, { subtree: true, childList: true, characterData: true })"""
        )
        await page.route("**/api/events?*", begin_slowly)
        await page.context.request.post(f"{site.address}/api/auth/logout")
        login = {"user": "bob", "password": PASSWORD}
        await page.context.request.post(f"{site.address}/api/auth/login", data=login)
        await expect(page.locator("#who-name")).to_have_text("bob", timeout=20_000)
        await expect(page.locator("[data-tile='Spent today'] b")).to_have_text("$0.00")
        assert not await page.evaluate("window.leaked")
        slow.set()


async def test_a_stream_that_came_back_asks_once_whose_it_is(
    browser: Browser, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with each position that it is told from then on."""
    for name, seconds in (
        ("CHECK_SECONDS", 0.2), ("TICK_SECONDS", 0.1),
        ("HEARTBEAT_SECONDS", 0.2), ("POSITION_SECONDS", 0.1),
    ):  # fmt: skip
        monkeypatch.setattr(sse, name, seconds)
    await people(site, "ada")

    async def away(route: Route) -> None:
        await route.fulfill(status=503, body="")

    async with signed_in(browser, site.address, "ada") as page:
        await page.route("**/api/events?*", away)
        login = {"user": "ada", "password": PASSWORD}
        await page.context.request.post(f"{site.address}/api/auth/logout")
        await page.context.request.post(f"{site.address}/api/auth/login", data=login)
        await expect(page.locator("#live")).to_have_text("Not live", timeout=20_000)
        await page.unroute_all(behavior="wait")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await expect(page.locator("#live")).to_have_text("Live", timeout=20_000)
        await page.evaluate(
            """new Promise((done) => {
                 let positions = 0;
                 const source = window.sources.at(-1);
                 source.addEventListener("position", () => { if ((positions += 1) === 5) done(); });
               })"""
        )
        assert [url.endswith("/api/auth/me") for url in asked].count(True) == 1
