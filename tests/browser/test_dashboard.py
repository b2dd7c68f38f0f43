"""What people see, in a real browser."""

import re
from pathlib import Path

import psycopg
import pytest
from playwright.async_api import Browser, Locator, Page, expect

from chatter_db import Chatter
from chatter_db.accounts import Accounts
from chatter_db.importing import import_file
from chatter_db.server import sse
from tests.browser.conftest import people, signed_in
from tests.server.conftest import PASSWORD, Person, Site, serving
from tests.sql.books import Books

TRACE = Path(__file__).parents[2] / "chatter_db" / "demo" / "aider_trace.csv"


def tile(page: Page, name: str) -> Locator:
    return page.locator(f"[data-tile='{name}'] b")


async def say(page: Page, text: str) -> None:
    await page.get_by_label("Your message").fill(text)
    await page.get_by_role("button", name="Send").click()


async def test_a_chat_changes_the_figures_without_a_reload(browser: Browser, site: Site) -> None:
    await people(site, "ada")
    async with signed_in(browser, site.address, "ada") as page:
        other = await page.context.new_page()
        await other.goto(site.address)
        await expect(tile(other, "Spent today")).to_have_text("$0.00")

        await page.goto(f"{site.address}/#/chat/new")
        await say(page, "What is 12 * (3 + 4) / 7?")
        await expect(page.get_by_text("The calculate tool says: 12.")).to_be_visible()
        await expect(page.locator(".totals").first).to_contain_text("2 messages")
        await expect(page.locator(".said")).to_contain_text("31 + 7 tokens")
        await expect(page.get_by_label("Conversations")).to_contain_text("What is 12")
        # The other page heard of it by its event stream.
        await expect(tile(other, "Spent today")).to_have_text("$0.000093")
        await expect(other.get_by_text("Dearest conversations")).to_be_visible()
        await expect(other.locator(".chart svg rect").first).to_be_visible()

        await page.get_by_role("button", name="trace").last.click()
        await expect(page.locator(".trace")).to_contain_text("tool call calculate")


async def test_the_newest_is_shown_and_the_rest_is_a_click_away(
    browser: Browser, site: Site, url: str
) -> None:
    await people(site, "ada")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "with c as (insert into chatter.conversations (user_id, title) "
            "  select u.id, 'Talk ' || n from chatter.users as u, generate_series(1, 120) as n "
            "  where u.external_id = 'ada' order by n returning id, title) "
            "insert into chatter.messages (conversation_id, role, content, created_at) "
            "select c.id, 'user', 'Line ' || n, now() - n * interval '1 second' "
            "from c, generate_series(1, 250) as n where c.title = 'Talk 120'"
        )
    async with signed_in(browser, site.address, "ada") as page:
        await page.goto(f"{site.address}/#/chat")
        listed, said = page.locator(".list a"), page.locator(".said li")
        await expect(listed).to_have_count(100)
        await page.get_by_role("button", name="Older conversations").click()
        await expect(listed).to_have_count(120)
        await page.get_by_role("link", name="Talk 120").click()
        await expect(said).to_have_count(200)
        await expect(said.last).to_contain_text("Line 1")
        await expect(listed).to_have_count(120)
        await page.get_by_role("button", name="Earlier messages").click()
        await expect(said).to_have_count(250)
        await expect(said.first).to_contain_text("Line 250")
        await expect(page.get_by_role("button", name="Earlier messages")).to_be_hidden()


async def test_a_restart_of_the_server_is_survived_and_nothing_missed(
    browser: Browser, chatter: Chatter, url: str
) -> None:
    first = serving(chatter)
    address = await first.__aenter__()
    await people(Site(address, Accounts(chatter), []), "ada")
    async with signed_in(browser, address, "ada") as page:
        await expect(tile(page, "Spent today")).to_have_text("$0.00")
        await first.__aexit__(None, None, None)
        await expect(page.locator("#live")).to_have_text("Reconnecting …")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "with c as (insert into chatter.conversations (user_id) "
                "  select id from chatter.users where external_id = 'ada' returning id) "
                "insert into chatter.messages (conversation_id, role, model_used, cost) "
                "select id, 'assistant', 'm', 2.5 from c"
            )
        async with serving(chatter, port=int(address.rpartition(":")[2])):
            await expect(page.locator("#live")).to_have_text("Live")
            await expect(tile(page, "Spent today")).to_have_text("$2.50")
            await page.goto("about:blank")


async def test_people_see_their_own_and_admins_everybodys(
    browser: Browser, site: Site, admin: Person
) -> None:
    await people(site, "ada", "bob")
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    async with (
        signed_in(browser, site.address, "ada") as ada,
        signed_in(browser, site.address, "bob") as bob,
        signed_in(browser, site.address, "root") as root,
    ):
        await ada.goto(f"{site.address}/#/chat/new")
        await say(ada, "Between us: what is 6 * 7?")
        await expect(ada.get_by_text("The calculate tool says: 42.")).to_be_visible()
        conversation = ada.url

        await expect(root.locator("main")).to_contain_text("ada")
        await root.goto(conversation)
        await expect(root.locator(".said")).to_contain_text("Between us")
        await expect(root.get_by_label("Conversations")).to_contain_text("ada")
        await root.get_by_role("link", name="Security").click()
        await expect(
            root.get_by_role("row").filter(has_text="login success").first
        ).to_contain_text("root")

        await expect(tile(bob, "Spent today")).to_have_text("$0.00")
        await expect(bob.get_by_text("Nothing was spent in this time.")).to_be_visible()
        await expect(bob.get_by_role("link", name="Security")).to_be_hidden()
        await bob.goto(conversation)
        await expect(bob.get_by_role("alert")).to_contain_text("There is no such conversation.")
        await expect(bob.get_by_label("Conversations")).to_contain_text("No conversations yet.")


async def test_an_unknown_cost_is_not_shown_as_0(
    browser: Browser, site: Site, admin: Person, url: str
) -> None:
    await people(site, "ada")
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    with psycopg.connect(url, autocommit=True) as connection:
        books = Books(connection)
        ada = books.value("select id from chatter.users where external_id = 'ada'")
        talk = books.conversation(user_id=ada, title="Unpriced")
        runs = [books.execution(talk, user_id=ada, workflow_name="own") for _ in range(11)]
        for run in runs:
            books.message(talk, execution_id=run, model_used="own", total_tokens=7)
    for name in ("ada", "root"):
        async with signed_in(browser, site.address, name) as page:
            for told in ("Spent today", "Spent, 30 days"):
                await expect(tile(page, told)).to_have_text("unknown")
            await expect(
                page.get_by_text("What was spent in this time is unknown.")
            ).to_be_visible()
            await expect(tile(page, "Running now")).to_have_text("11")
            await expect(page.get_by_role("row").filter(has_text="own").last).to_contain_text(
                "unknown"
            )
            with psycopg.connect(url, autocommit=True) as connection:
                Books(connection).message(talk, model_used="free", total_tokens=1, cost=0)
            await expect(tile(page, "Spent today")).to_have_text("$0.00")
            await page.get_by_text("Tokens", exact=True).click()
            await page.goto(f"{site.address}/#/chat/{talk}")
            await expect(page.locator(".totals").first).to_contain_text("unknown cost")
            await expect(page.get_by_label("Conversations")).to_contain_text("unknown")
            with psycopg.connect(url, autocommit=True) as connection:
                books = Books(connection)
                books.delete(
                    books.value("select id from chatter.messages where model_used = 'free'")
                )


async def test_the_figures_of_a_real_trace(
    browser: Browser, site: Site, admin: Person, url: str, tmp_path: Path
) -> None:
    import_file(url, TRACE)
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    async with signed_in(browser, site.address, "root") as page:
        await page.get_by_text("All", exact=True).click()
        await expect(tile(page, "Spent, all")).to_have_text("$66.63")
        await expect(tile(page, "Model calls, all")).to_have_text("1,644")
        await expect(page.locator("main")).to_contain_text("aider-1409")
        await page.get_by_text("Tokens", exact=True).click()
        await page.get_by_text("As a table").click()
        await expect(page.locator(".chart table tbody tr").first).to_be_visible()
        shot = await page.screenshot(path=tmp_path / "overview.png", full_page=True)
        assert len(shot) > 50_000
        await page.set_viewport_size({"width": 360, "height": 800})
        wide = await page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360


async def test_what_people_write_is_text_and_nothing_else(browser: Browser, site: Site) -> None:
    await people(site, "ada")
    async with signed_in(browser, site.address, "ada") as page:
        await page.goto(f"{site.address}/#/chat/new")
        await say(page, "<img src=x onerror=\"document.title='taken'\"><b>bold</b>")
        await expect(page.locator(".said .user").first).to_contain_text("<b>bold</b>")
        assert await page.locator(".said img, .said b").count() == 0
        assert "taken" not in await page.title()


async def test_a_page_whose_session_ends_elsewhere_asks_to_sign_in(
    browser: Browser,
    site: Site,
    db: psycopg.Connection[tuple[object, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sse, "CHECK_SECONDS", 0.05)
    await people(site, "ada")
    async with signed_in(browser, site.address, "ada") as page:
        db.execute("update chatter.browser_sessions set revoked_at = now()")
        await expect(page.get_by_role("alert")).to_have_text("Your session has ended.")
        await expect(page.locator("nav")).to_be_hidden()
        await page.get_by_label("User").fill("ada")
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.locator("#live")).to_have_text("Live")


async def test_who_signs_out_is_out_and_somebody_else_begins_anew(
    browser: Browser, site: Site, admin: Person
) -> None:
    await people(site, "ada")
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    async with signed_in(browser, site.address, "root") as page:
        pages = page.get_by_role("navigation", name="Pages").get_by_role("link")
        for name in ("Overview", "Chat", "Security"):
            await pages.filter(has_text=name).click()
            await expect(page).to_have_title(re.compile(f"^{name} . chatter-db$"))
            await expect(page.locator("nav [aria-current]")).to_have_text([name])
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_role("button", name="Sign in")).to_be_visible()
        assert (await page.context.request.get(f"{site.address}/api/auth/me")).status == 401
        await page.get_by_label("User").fill("ada")
        await page.get_by_label("Password").fill(PASSWORD)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
        await expect(page.locator("#who-name")).to_have_text("ada")


async def test_a_wrong_password_is_said_where_the_user_is(browser: Browser, site: Site) -> None:
    await people(site, "ada")
    page = await browser.new_page()
    answer = await page.goto(site.address)
    assert answer is not None
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    await page.get_by_label("User").fill("ada")
    await page.get_by_label("Password").fill("not the password")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("wrong")
    await page.close()
