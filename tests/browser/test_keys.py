"""The dashboard by keyboard, while figures come in."""

from typing import Any

import psycopg
import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser.conftest import signed_in
from tests.browser.test_looks import visit
from tests.server.conftest import PASSWORD, Person, Site
from tests.sql.books import Books


async def focused(page: Page) -> str:
    told: str = await page.evaluate("document.activeElement.id || document.activeElement.href")
    return told


async def test_news_take_nobody_s_place_on_the_page(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    talk = books.conversation(user_id=admin.identity.user_id, title="Long talk")
    call = {"model_used": "m", "cost": "1", "correlation_id": "story"}
    books.message(talk, content="First", **call)
    async with signed_in(browser, site.address, "root") as page:
        measure = page.get_by_role("group", name="Measure")
        await measure.get_by_label("Cost").focus()
        await page.keyboard.press("ArrowRight")
        await page.keyboard.press("ArrowRight")
        await expect(measure.get_by_label("Calls")).to_be_checked()
        await page.get_by_text("As a table").click()
        link = page.get_by_role("link", name=str(talk)[-12:])
        await link.focus()
        books.message(talk, content="Second", **call)
        await expect(page.locator("[data-tile='Spent today'] b")).to_have_text("$2.00")
        assert (await focused(page)).endswith(str(talk))
        await expect(page.locator(".chart table")).to_be_visible()

        await page.keyboard.press("Enter")
        said = page.locator(".said li")
        await expect(said).to_have_count(2)
        await page.get_by_role("button", name="trace").first.click()
        await expect(page.locator(".trace table")).to_be_visible()
        await page.get_by_role("link", name="Long talk").focus()
        books.message(talk, content="Third", **call)
        await expect(said).to_have_count(3)
        await expect(page.get_by_label("Conversations")).to_contain_text("$3.00")
        await expect(page.locator(".trace tbody tr")).to_have_count(3)
        assert (await focused(page)).endswith(str(talk))


async def test_news_move_nothing_that_was_scrolled(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    talks = [books.conversation(user_id=admin.identity.user_id) for _ in range(2)]
    for talk in talks:
        run = books.execution(talk, workflow_name="same")
        books.message(talk, execution_id=run, model_used="m" * 80, cost="1")
    viewport = {"width": 360, "height": 500}
    async with signed_in(browser, site.address, "root", viewport=viewport) as page:
        await page.get_by_text("As a table").click()
        table = page.locator(".chart .scroll")
        await table.evaluate("(e) => { e.scrollLeft = 70; }")
        # Of those called alike it is the second that has the focus, and it is out of sight.
        link = page.locator(f"td.name a[href='#/chat/{talks[0]}']").last
        await link.focus()
        again = f"a[href='#/chat/{talks[0]}']"
        place = f"[...document.querySelectorAll(`{again}`)].indexOf(document.activeElement)"
        assert await page.evaluate(place) == 1
        await page.evaluate("scrollTo(0, 100)")
        books.message(talks[0], model_used="m" * 80, cost="1")
        await expect(page.locator("[data-tile='Spent today'] b")).to_have_text("$3.00")
        assert await page.evaluate(place) == 1
        assert await page.evaluate("scrollY") == 100
        assert await table.evaluate("(e) => e.scrollLeft") == 70


async def test_the_skip_link_and_a_half_written_word_lead_nowhere_else(
    browser: Browser, site: Site, admin: Person
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    async with signed_in(browser, site.address, "root") as page:
        await visit(page, site.address, "chat/new")
        text = page.get_by_label("Your message")
        await text.fill("にほ")
        await text.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
        await expect(text).to_have_value("にほ")
        await page.get_by_role("link", name="Skip to content").focus()
        await page.keyboard.press("Enter")
        assert await focused(page) == "main"
        await expect(page.get_by_role("heading", level=1)).to_have_text("Chat")
        await expect(text).to_have_value("にほ")


# What has the focus and lies below the bar at the top, wholly: its text.
COVERED = """() => {
  const focused = document.activeElement;
  const shown = focused.matches(".choice input") ? focused.nextElementSibling : focused;
  if (shown === document.body || shown.closest(".bar, .skip")) return null;
  const bar = document.querySelector(".bar").getBoundingClientRect();
  return shown.getBoundingClientRect().bottom <= bar.bottom ? shown.textContent : null;
}"""


@pytest.mark.parametrize(("width", "height"), [(360, 700), (1280, 400)])
async def test_what_has_the_focus_is_not_covered(
    browser: Browser,
    site: Site,
    admin: Person,
    db: psycopg.Connection[Any],
    width: int,
    height: int,
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    for n in range(40):
        talk = books.conversation(user_id=admin.identity.user_id, title=f"Talk {n}")
        books.message(talk, model_used=f"m{n}", cost=n + 1)
    viewport = {"width": width, "height": height}
    async with signed_in(browser, site.address, "root", viewport=viewport) as page:
        for path, last in (
            ("", page.get_by_role("link", name=str(talk)[-12:])),
            ("chat", page.get_by_role("link", name="Talk 0")),
            (f"chat/{talk}", page.get_by_label("Your message")),
        ):
            await visit(page, site.address, path)
            await last.focus()
            await page.evaluate("scrollTo(0, document.body.scrollHeight)")
            for _ in range(60):
                await page.keyboard.press("Shift+Tab")
                assert await page.evaluate(COVERED) is None


async def test_what_is_seen_by_its_place_and_colour_is_said_too(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    talk = books.conversation(user_id=admin.identity.user_id)
    books.message(talk, role="user", content="Asked")
    books.message(talk, content="Answered", model_used="m", total_tokens=7, correlation_id="story")
    async with signed_in(browser, site.address, "root") as page:
        await page.get_by_text("Tokens", exact=True).click()
        chart = page.get_by_role("img", name="Tokens over time, by model", exact=True)
        await expect(chart).to_be_visible()
        await visit(page, site.address, f"chat/{talk}")
        await expect(page.locator(".said")).to_match_aria_snapshot(
            """
            - list:
              - listitem:
                - text: user
                - paragraph: Asked
              - listitem:
                - text: assistant
                - paragraph: Answered
            """
        )
        trace = page.get_by_role("button", name="trace", expanded=False)
        await trace.click()
        unfolded = page.get_by_role("button", name="trace", expanded=True)
        await expect(page.locator(".trace table")).to_be_visible()
        await unfolded.click()
        await expect(trace).to_be_visible()
        await expect(page.locator(".trace")).to_have_count(0)


async def test_a_group_of_choices_says_what_is_chosen(
    browser: Browser, site: Site, admin: Person
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    async with signed_in(browser, site.address, "root") as page:
        await expect(page.get_by_role("group", name="Measure")).to_be_visible()
        # As Chromium tells it: Playwright takes hidden legends for names, too.
        chromium = await page.context.new_cdp_session(page)
        told = await chromium.send("Accessibility.getFullAXTree")
        groups = [n for n in told["nodes"] if n.get("role", {}).get("value") == "group"]
        assert [group["name"]["value"] for group in groups] == ["Period", "Measure"]
