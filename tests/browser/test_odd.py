"""Odd names and figures: nothing that is not 0 is told as 0, and nothing hides or breaks."""

from typing import Any
from uuid import UUID

import psycopg
from playwright.async_api import Browser, expect
from psycopg.types.json import Jsonb

from tests.browser.conftest import people, signed_in
from tests.browser.test_looks import fits, visit
from tests.server.conftest import PASSWORD, Person, Site
from tests.sql.books import Books

LONG = "Wort" * 125


async def test_what_is_not_0_is_not_shown_as_0(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    talk = books.conversation(user_id=admin.identity.user_id, title="Cheap")
    books.message(talk, model_used="tiny", cost="0.000000001", response_time_ms=0.3, total_tokens=7)
    db.execute(
        "insert into chatter.messages (conversation_id, role, model_used, cost, status) "
        "select %s, 'user', 'free', 0, case n when 1 then 'failed' else 'completed' end "
        "from generate_series(1, 3000) as n",
        [talk],
    )
    async with signed_in(browser, site.address, "root") as page:
        await expect(page.locator("[data-tile='Spent today'] b")).to_have_text("$0.000000001")
        await expect(page.locator(".chart text").first).to_be_visible()
        wide = await page.locator(".chart svg").get_attribute("viewBox")
        await page.set_viewport_size({"width": 320, "height": 900})
        # Drawn anew, or its letters would be a quarter as high.
        await expect(page.locator(".chart svg")).not_to_have_attribute("viewBox", str(wide))
        await page.set_viewport_size({"width": 1280, "height": 900})
        await expect(page.locator("[data-tile='Model calls, 30 days']")).to_contain_text(
            "< 0.1 % failed"
        )
        await visit(page, site.address, f"chat/{talk}")
        await expect(page.get_by_label("Conversations")).to_contain_text("$0.000000001")
        await page.close()

    nameless = books.conversation(user_id=admin.identity.user_id)
    books.message(nameless, cost="5", total_tokens=7, response_time_ms=0.3)
    books.message(nameless, role="user", content="Paid for without a call", cost="0.25")
    async with signed_in(browser, site.address, "root") as page:
        await visit(page, site.address, f"chat/{nameless}")
        call, written = page.locator(".said li").first, page.locator(".said li").last
        for figure in ("no model", "7 tokens", "$5.00", "< 1 ms"):
            await expect(call).to_contain_text(figure)
        await expect(written).to_contain_text("$0.25")


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


async def test_a_trace_is_whole_whatever_its_names_are(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    story = {"correlation_id": "requests/2026/1"}
    talk = books.conversation(user_id=admin.identity.user_id)
    run = books.execution(talk, user_id=admin.identity.user_id, **story)
    books.message(talk, execution_id=run, model_used="m", cost="1", **story)
    books.tool_call(run, tool_name=LONG)
    async with signed_in(browser, site.address, "root") as page:
        await visit(page, site.address, f"chat/{talk}")
        await page.get_by_role("button", name="trace").click()
        trace = page.locator(".trace .scroll")
        await expect(trace).to_contain_text(LONG)
        assert await trace.evaluate("(e) => e.scrollWidth - e.clientWidth") == 0


async def test_names_of_any_kind_break_and_hide_nothing(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await people(site, LONG)
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    user = books.value("select id from chatter.users where external_id = %s", LONG)
    long = books.conversation(user_id=user, external_id=LONG)
    blank = books.conversation(user_id=user, external_id="   ", title="  ")
    for talk, workflow in ((long, LONG), (blank, "   ")):
        run = books.execution(talk, user_id=user, workflow_name=workflow)
        books.message(talk, execution_id=run, model_used=workflow, cost="999999")
    async with signed_in(browser, site.address, "root") as page:
        dearest = page.locator(".card").filter(has=page.get_by_text("Dearest conversations"))
        cost = await dearest.get_by_role("cell", name="$999,999.00").first.bounding_box()
        card = await dearest.bounding_box()
        assert cost is not None and card is not None
        assert cost["x"] + cost["width"] <= card["x"] + card["width"]
        for link in await page.locator("main a").all():
            assert (await link.inner_text()).strip()
        await expect(page.get_by_role("cell", name="(blank)").first).to_be_visible()
        await visit(page, site.address, "security")
        when = await page.get_by_role("cell").first.bounding_box()
        assert when is not None and when["height"] < 40
    for width in (320, 640):  # a phone, and 1280 pixels at 200 %
        viewport = {"width": width, "height": 700}
        async with signed_in(browser, site.address, LONG, viewport=viewport) as page:
            await expect(page.locator("[data-tile='Spent today'] b")).to_contain_text("$1,999,998")
            await fits(page)
            tiles = await page.locator(".tile > *").evaluate_all(
                "all => all.filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.textContent)"
            )
            assert tiles == []
            await visit(page, site.address, "chat")
            await fits(page)
            for name in await page.locator(".list b").all_inner_texts():
                assert name.strip()


async def test_tokens_are_the_provider_s_total_everywhere(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    talk = books.conversation(user_id=admin.identity.user_id)
    # Gemini's thoughts, or a total that is all that is known.
    call = {"model_used": "m", "cost": "1"}
    books.message(talk, prompt_tokens=100, completion_tokens=20, total_tokens=150, **call)
    books.message(talk, total_tokens=50, **call)
    async with signed_in(browser, site.address, "root") as page:
        await expect(page.locator("[data-tile='Spent today'] small")).to_have_text("200 tokens")
        for heading in ("Models", "Users", "Dearest conversations"):
            card = page.locator(".card").filter(has=page.get_by_role("heading", name=heading))
            await expect(card.get_by_role("cell", name="200", exact=True)).to_have_count(1)


async def test_a_trace_says_what_is_unknown(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    talk = books.conversation(user_id=admin.identity.user_id)
    run = books.execution(talk, correlation_id="story")
    call = {"execution_id": run, "correlation_id": "story"}
    books.message(talk, model_used="m", prompt_tokens=7, **call)
    books.message(talk, role="user", content="Asked", **call)
    async with signed_in(browser, site.address, "root") as page:
        await visit(page, site.address, f"chat/{talk}")
        await page.get_by_role("button", name="trace").click()
        steps = page.locator(".trace tbody tr")
        for step, cost in (("workflow", "unknown"), ("model call", "unknown"), ("user", "")):
            row = steps.filter(has_text=step)
            await expect(row.get_by_role("cell").last).to_have_text(cost)


async def test_one_of_them_is_not_told_as_many(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    talk = books.conversation(user_id=admin.identity.user_id)
    books.message(talk, model_used="m", prompt_tokens=1, completion_tokens=0, cost="1")
    async with signed_in(browser, site.address, "root") as page:
        note = page.locator("[data-tile='Spent today'] small")
        await expect(note).to_have_text("1 token")
        await visit(page, site.address, f"chat/{talk}")
        totals = page.locator(".totals")
        await expect(totals).to_contain_text("1 message1 prompt token0 completion tokens$1.00")
        books.message(talk, model_used="m", total_tokens=1)
        await expect(totals).to_contain_text("1 call of unknown price")
        await expect(page.locator(".said")).to_contain_text("1 tokenunknown")
        await visit(page, site.address, "")
        await expect(note).to_have_text("1 call of unknown price is not in it")
        for n in range(6):
            books.message(talk, model_used=f"m{n}", cost="1")
        await expect(page.locator(".legend li").last).to_have_text("1 other")


async def test_a_list_that_goes_on_says_so(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await people(site, "ada")
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)

    def book(user: UUID, name: str) -> None:
        talk = books.conversation(user_id=user)
        run = books.execution(talk, user_id=user, workflow_name=name)
        took = {"response_time_ms": 9, "time_to_first_token_ms": 2}
        books.message(talk, execution_id=run, model_used=name, cost="1", **took)
        books.tool_call(run, tool_name=name)

    more = "There are more than these 10."
    async with signed_in(browser, site.address, "root") as page:
        for number in range(10):
            book(books.user(f"n{number}"), f"n{number}")
        full = page.locator(".stack tbody > tr:nth-child(10):last-child")
        await expect(full).to_have_count(7)
        await expect(page.get_by_text(more)).to_have_count(0)
        # A model has two times, of which this is one.
        await expect(page.get_by_role("cell", name="9 ms")).to_have_count(30)
        book(books.user("n10"), "n10")
        await expect(page.get_by_text(more)).to_have_count(7)
        await expect(full).to_have_count(7)
        db.execute(
            "insert into chatter.security_events (event_type) "
            "select 'login_failure' from generate_series(1, 100)"
        )
        await visit(page, site.address, "security")
        await expect(page.get_by_text("There are more than these 100.")).to_be_visible()

    ada = books.value("select id from chatter.users where external_id = 'ada'")
    async with signed_in(browser, site.address, "ada") as page:
        for number in range(10):
            book(ada, f"n{number}")
        running = page.locator("[data-tile='Running now'] b")
        await expect(running).to_have_text("10")
        await expect(page.get_by_text(more)).to_have_count(0)
        book(ada, "n10")
        await expect(page.get_by_text(more)).to_have_count(2)


async def test_models_of_one_name_are_told_apart_by_their_providers(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    talk = books.conversation()
    model = "accounts/models/deepseek-r1-distill-llama-70b-instruct-preview-2025-01-20"
    for provider in ("fireworks", "openrouter"):
        call = {"model_used": model, "provider_used": provider, "response_time_ms": 9}
        books.message(talk, cost="1", **call)
    books.message(talk, model_used="m", provider_used="openrouter", cost="1")
    cut = """() => [...document.querySelectorAll(".stack td")]
      .filter((e) => e.textContent.includes("llama"))
      .filter((e) => [e, e.closest(".scroll")].some((box) => box.scrollWidth > box.clientWidth))
      .map((e) => e.textContent)"""
    async with signed_in(browser, site.address, "root") as page:
        for width in (1280, 1024, 320):
            await page.set_viewport_size({"width": width, "height": 900})
            for provider in ("fireworks", "openrouter"):
                # Among the models, and their latencies.
                told = page.get_by_role("cell", name=f"{model} ({provider})")
                await expect(told).to_have_count(2)
            assert await page.evaluate(cut) == []
        await expect(page.get_by_role("cell", name="m", exact=True)).to_have_count(1)
