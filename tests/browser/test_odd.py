"""Odd names and figures: nothing that is not 0 is told as 0, and nothing hides or breaks."""

from typing import Any

import psycopg
from playwright.async_api import Browser, expect
from psycopg.types.json import Jsonb

from tests.browser.conftest import signed_in
from tests.browser.test_looks import visit
from tests.server.conftest import PASSWORD, Person, Site
from tests.sql.books import Books


async def test_odd_tool_calls_hide_no_conversation(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    talk = books.conversation(user_id=admin.identity.user_id)
    for odd in ({"a": 1}, [None], ["x"], [{"id": "x"}], "text", 5, []):
        books.message(talk, tool_calls=Jsonb(odd), model_used="m", cost="0.1")
    books.message(talk, tool_calls=Jsonb([{"name": "search"}]), model_used="m", cost="0.1")
    async with signed_in(browser, site.address, "root") as page:
        await visit(page, site.address, f"chat/{talk}")
        await expect(page.locator(".said li")).to_have_count(8)
        await expect(page.locator(".said")).to_contain_text("calls search")
