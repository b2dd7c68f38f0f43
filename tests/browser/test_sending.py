"""A message on its way: what is sent again, what is said of it, what is not sent."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
from playwright.async_api import Browser, Route, expect

from tests.browser.conftest import people, signed_in
from tests.browser.test_looks import visit
from tests.browser.test_trouble import bad_gateway
from tests.server.conftest import Site


async def broken(route: Route) -> None:
    await route.abort("connectionreset")


@pytest.mark.parametrize("lose", [bad_gateway, broken])
async def test_an_answer_that_was_lost_is_not_paid_for_twice(
    browser: Browser,
    site: Site,
    db: psycopg.Connection[Any],
    lose: Callable[[Route], Awaitable[None]],
) -> None:
    await people(site, "ada")
    async with signed_in(browser, site.address, "ada") as page:
        await visit(page, site.address, "chat/new")
        text, send = page.get_by_label("Your message"), page.get_by_role("button", name="Send")

        async def answer_and_lose(route: Route) -> None:
            assert (await route.fetch()).status == 200
            await lose(route)

        await page.route("**/messages", answer_and_lose)
        await text.fill("What is 6 * 7?")
        await send.click()
        await expect(page.get_by_role("alert")).to_be_visible()
        await expect(text).to_have_value("What is 6 * 7?")
        await page.unroute_all(behavior="wait")
        await send.click()
        await expect(page.get_by_role("alert")).to_be_hidden()
        await expect(text).to_have_value("")
        await expect(page.locator(".totals")).to_contain_text("2 messages")
        await expect(page.locator(".said .user")).to_have_count(1)
        # Said once more, it is another one.
        await text.fill("What is 6 * 7?")
        await send.click()
        await expect(page.locator(".totals")).to_contain_text("4 messages")
        booked = db.execute("select count(*) from chatter.workflow_executions").fetchone()
        assert booked == (2,)


async def test_what_was_refused_or_has_failed_is_sent_as_another_one(
    browser: Browser, site: Site
) -> None:
    await people(site, "ada")
    answers = [
        {"status": 429, "json": {"detail": "Wait."}},
        {
            "content_type": "text/event-stream",
            "body": 'event: start\ndata: {"a": 1}\n\n: heartbeat\n\n'
            'event: tool_call_start\ndata: {"tool_name": "calculate"}\n\n'
            'event: error\ndata: {"detail": "The model failed."}\n\n',
        },
        {"content_type": "text/event-stream", "body": 'event: start\ndata: {"a": 1}\n\nevent: to'},
        {"status": 502, "body": ""},
        {"status": 409, "headers": {"Retry-After": "1"}, "json": {"detail": "Being answered."}},
        {"status": 409, "json": {"detail": "Use a new key."}},
        {"status": 502, "body": ""},
    ]
    keys = []

    async def answer(route: Route) -> None:
        if route.request.method == "GET":
            await route.continue_()
            return
        keys.append(route.request.headers["idempotency-key"])
        await route.fulfill(**answers[len(keys) - 1])  # type: ignore[arg-type]

    async with signed_in(browser, site.address, "ada") as page:
        await visit(page, site.address, "chat/new")
        await page.route("**/messages", answer)
        text, alert = page.get_by_label("Your message"), page.get_by_role("alert")
        await text.fill("Hello")
        for told in (
            *("Wait.", "The model failed.", "broke off", "The server answered 502."),
            *("Being answered.", "Use a new key.", "The server answered 502."),
        ):
            await page.get_by_role("button", name="Send").click()
            await expect(alert).to_contain_text(told)
            await expect(text).to_have_value("Hello")
        # A new one where the server says that it is spent, or has begun to answer.
        distinct = list(dict.fromkeys(keys))
        assert [distinct.index(key) for key in keys] == [0, 0, 1, 2, 2, 2, 3]
        # Nor is another text the same message.
        answers.append({"status": 502, "body": ""})
        await text.fill("Hello again")
        async with page.expect_response("**/messages"):
            await page.keyboard.press("Enter")
        assert keys[-1] not in distinct


async def test_what_is_written_meanwhile_belongs_to_the_conversation_that_begins(
    browser: Browser, site: Site
) -> None:
    await people(site, "ada")
    async with signed_in(browser, site.address, "ada") as page:
        begin = asyncio.Event()

        async def wait(route: Route) -> None:
            if route.request.method == "POST":
                await begin.wait()
            await route.continue_()

        await page.route("**/api/conversations", wait)
        await visit(page, site.address, "chat/new")
        text, said = page.get_by_label("Your message"), page.locator(".said li")
        # Nothing is sent, and a line may have another one below.
        for blank in ("Enter", " ", "Enter"):
            await text.press(blank)
        await text.fill("What is 6 * 7?")
        await text.press("Shift+Enter")
        await expect(text).to_have_value("What is 6 * 7?\n")
        await expect(said).to_have_count(0)
        await text.press("Enter")
        await expect(said).to_have_text(["What is 6 * 7?", "…"])
        # One after the other.
        await text.fill("And then?")
        await text.press("Enter")
        await expect(said).to_have_count(2)
        await expect(text).to_have_value("And then?")
        begin.set()
        await expect(page.locator(".totals")).to_contain_text("2 messages")
        await expect(page.get_by_role("heading", name="What is 6 * 7?")).to_be_visible()
        await page.get_by_role("button", name="New conversation").click()
        await expect(text).to_have_value("")
        await page.get_by_role("link", name="What is 6 * 7?").click()
        await expect(text).to_have_value("And then?")


async def test_a_title_is_cut_between_letters(browser: Browser, site: Site) -> None:
    await people(site, "ada")
    async with signed_in(browser, site.address, "ada") as page:
        await visit(page, site.address, "chat/new")
        # Two halves in JavaScript's eyes, of which one is no text.
        await page.get_by_label("Your message").fill("a" * 59 + "👍" * 2)
        await page.keyboard.press("Enter")
        await expect(page.locator(".totals")).to_contain_text("2 messages")
        await expect(page.locator(".list b")).to_have_text("a" * 59 + "👍 …")
