"""The list of conversations and the one that is open, side by side or one at a time."""

from typing import Any

import psycopg
import pytest
from playwright.async_api import Browser, expect

from tests.browser.conftest import signed_in
from tests.browser.test_looks import fits, visit
from tests.server.conftest import PASSWORD, Person, Site
from tests.sql.books import Books


@pytest.mark.parametrize("height", [844, 420])
async def test_a_conversation_that_is_opened_is_in_sight(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any], height: int
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    for n in range(30):
        talk = books.conversation(user_id=admin.identity.user_id, title=f"Talk {n}")
        books.message(talk, content=f"Answer {n}", model_used="m", cost="1")
    viewport = {"width": 390, "height": height}
    async with signed_in(browser, site.address, "root", viewport=viewport) as page:
        await visit(page, site.address, "chat")
        listed = page.get_by_label("Conversations")
        for name, said in (("Talk 0", "Answer 0"), ("Talk 29", "Answer 29")):
            await listed.get_by_role("link", name=f"{name} root").click()
            await expect(page.get_by_role("heading", name=name)).to_be_in_viewport(ratio=1)
            await expect(page.locator(".totals")).to_be_in_viewport(ratio=1)
            await expect(page.get_by_text(said, exact=True)).to_be_in_viewport(ratio=1)
            await fits(page)
            await page.get_by_role("link", name="All conversations").click()
            await expect(listed.get_by_role("link")).to_have_count(30)
            await expect(listed).to_be_in_viewport()
        # What is new is in sight, too, and on a wide screen both are.
        await page.get_by_role("button", name="New conversation").click()
        await expect(page.get_by_label("Your message")).to_be_in_viewport(ratio=1)
        await page.set_viewport_size({"width": 1280, "height": 844})
        await expect(listed).to_be_in_viewport()
        await expect(page.get_by_role("link", name="All conversations")).to_be_hidden()


async def test_the_list_stays_where_it_was_when_one_of_it_is_opened(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    for n in range(30):
        books.conversation(user_id=admin.identity.user_id, title=f"Talk {n}")
    async with signed_in(browser, site.address, "root") as page:
        await visit(page, site.address, "chat")
        opened = page.get_by_role("link", name="Talk 0 root")
        await opened.click()
        await expect(page.get_by_role("heading", name="Talk 0")).to_be_visible()
        await expect(opened).to_have_attribute("aria-current", "page")
        await expect(opened).to_be_in_viewport()
        # Also when it is read anew.
        books.conversation(user_id=admin.identity.user_id, title="Talk 30")
        await expect(page.get_by_label("Conversations")).to_contain_text("Talk 30")
        await expect(opened).to_be_in_viewport()
