"""Figures as people read them: rounded, drawn, printed, in colours that are not ours."""

import re
from typing import Any

import psycopg
from playwright.async_api import Browser, expect

from tests.browser.conftest import signed_in
from tests.browser.test_looks import visit
from tests.server.conftest import PASSWORD, Person, Site
from tests.sql.books import Books

NONE = "\N{EN DASH}"

FORMATTED = {
    "money": {
        "null": "unknown",
        "'0'": "$0.00",
        "'0.0000004'": "$0.0000004",
        "'0.00000123456'": "$0.00000123",
        "'0.0000099999'": "$0.00001",
        "'0.00012345'": "$0.000123",
        "'0.0099999'": "$0.01",
        "'0.123456'": "$0.1235",
        "'0.999999'": "$1.00",
        "'999999.99'": "$999,999.99",
        "'7914201.83'": "$7,914,202",
        "'1000000000'": "$1,000,000,000",
    },
    "brief": {
        "null": NONE,
        "0": "0",
        "9999": "9,999",
        "10000": "10K",
        "12500": "12.5K",
        "999999": "1M",
        "9007199254740993": "9007.2T",
    },
    "number": {"null": NONE, "9007199254740992": "9,007,199,254,740,992"},
    "milliseconds": {
        "null": NONE,
        "0": "0 ms",
        "0.3": "< 1 ms",
        "999.4": "999 ms",
        "999.6": "1.0 s",
        "3683100": "61 min",
    },
    "percent": {
        "0": "0.0 %",
        "0.0004": "< 0.1 %",
        "0.034": "3.4 %",
        "0.5": "50 %",
        "0.9999": "> 99 %",
        "1": "100 %",
    },
}


async def test_figures_are_rounded_as_people_do(
    browser: Browser, site: Site, admin: Person
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    async with signed_in(browser, site.address, "root") as page:
        for name, cases in FORMATTED.items():
            told = await page.evaluate(
                f"import('/static/js/format.js').then((m) => [{','.join(cases)}].map(m.{name}))"
            )
            assert dict(zip(cases, told, strict=True)) == cases, name


async def test_a_chart_is_read_by_its_axis_and_its_legend(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    talk = books.conversation()
    yesterday = books.value("select now() - interval '1 day'")
    books.message(talk, model_used="small", cost="0.2", created_at=yesterday)
    books.message(talk, model_used="small", cost="0.05", total_tokens=5)
    chart = ".chart svg"
    async with signed_in(browser, site.address, "root") as page:
        axis = page.locator(f"{chart} > line + text")
        await expect(axis).to_have_text(["$0.00", "$0.10", "$0.20"])
        await page.get_by_text("Calls", exact=True).click()
        # Half a call is none, and not one either.
        await expect(axis).to_have_text(["0", "1", "2"])
        await page.get_by_text("Tokens", exact=True).click()
        await expect(axis).to_have_text(["0", "3", "6"])
        await page.get_by_text("Cost", exact=True).click()
        books.message(talk, model_used="  ", cost="0.5")
        books.message(talk, model_used="large", cost="0.1", created_at=yesterday)
        books.message(talk, model_used="large", cost="0.9")
        legend = page.locator(".legend li")
        await expect(legend).to_have_text(["large", "(blank)", "small"])
        # From the ground up, in the legend's order.
        for column, names in ((-2, ["f0", "f2"]), (-1, ["f0", "f1", "f2"])):
            bars = (
                await page.locator(f"{chart} > g")
                .nth(column)
                .locator("rect")
                .evaluate_all(
                    "all => all.map((e) => [e.getAttribute('class'), Number(e.getAttribute('y'))])"
                )
            )
            assert [name for name, _ in bars] == names
            assert bars == sorted(bars, key=lambda bar: -bar[1])
        card = page.locator(".card").filter(has=page.get_by_role("heading", name="Models"))
        await expect(card.locator("tbody td:first-child")).to_have_text(
            ["large", "(blank)", "small"]
        )
        shares = await card.locator(".share").evaluate_all("all => all.map((e) => e.style.width)")
        assert shares == ["100%", "50%", "25%"]

        await page.get_by_text("Today", exact=True).click()
        await expect(page.locator(f"{chart} > g")).to_have_count(24)
        await page.get_by_text("As a table").click()
        hour = page.locator(".chart tbody td").first
        await expect(hour).to_have_text(re.compile(r"^\d\d:00$"))


async def test_very_many_models_are_drawn_at_once(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    talk = books.conversation()
    yesterday = books.value("select now() - interval '1 day'")
    books.message(talk, model_used="m7", created_at=yesterday)
    db.execute(
        "insert into chatter.messages (conversation_id, role, model_used, cost, total_tokens) "
        "select %s, 'assistant', 'm' || n, nullif(n, 7) * 0.01, n from generate_series(1, 5000) n",
        [talk],
    )
    async with signed_in(browser, site.address, "root") as page:
        await expect(page.locator(".legend li").last).to_have_text("4,993 others")
        await page.get_by_text("As a table").click()
        rows = page.locator(".chart tbody tr")
        # The 100 dearest, and all the others as one.
        await expect(rows).to_have_count(102)
        await expect(rows.nth(100)).to_contain_text("the 4,900 leastunknown")
        least = sum(range(1, 4901)) - 7
        await expect(rows.last).to_contain_text(f"the 4,900 least${least / 100:,.2f}")
        await page.get_by_text("Tokens", exact=True).click()
        await expect(rows.last).to_contain_text("the 4,900 least12M")


async def test_colours_of_the_chart_are_those_of_its_legend_whatever_the_others_are(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    talk = books.conversation(user_id=admin.identity.user_id, title="Talk")
    books.message(talk, model_used="m", cost="1")
    async with signed_in(browser, site.address, "root") as page:
        shade = "(e, name) => getComputedStyle(e)[name]"
        await expect(page.locator(".legend .dot")).to_be_visible()
        ours = await page.locator(".legend .dot").evaluate(shade, "backgroundColor")
        await page.emulate_media(forced_colors="active")
        for place, name in ((".chart rect", "fill"), (".legend .dot", "backgroundColor")):
            assert await page.locator(place).evaluate(shade, name) == ours
        chosen, other = [
            await page.get_by_text(text, exact=True).evaluate(shade, "backgroundColor")
            for text in ("30 days", "7 days")
        ]
        assert chosen != other
        await page.emulate_media(forced_colors="none", media="print")
        assert await page.locator(".legend .dot").evaluate(shade, "printColorAdjust") == "exact"
        await visit(page, site.address, f"chat/{talk}")
        await expect(page.locator(".said li")).to_be_visible()
        # Nor is paper anything to click on.
        for place in (".ask", "button", ".list", "nav"):
            await expect(page.locator(place).locator("visible=true")).to_have_count(0)


async def test_what_has_changed_is_pointed_at_unless_nothing_is_to_move(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    talk = books.conversation()
    spent = "[data-tile='Spent today'] b"
    async with signed_in(browser, site.address, "root") as page:
        await expect(page.locator(spent)).to_have_text("$0.00")
        await expect(page.locator(".changed")).to_have_count(0)
        books.message(talk, model_used="m", cost="1")
        await expect(page.locator(f"{spent}.changed")).to_have_text("$1.00")
        moves = "(e) => getComputedStyle(e).animationName"
        assert await page.locator(spent).evaluate(moves) == "changed"
        await page.emulate_media(reduced_motion="reduce")
        assert await page.locator(spent).evaluate(moves) == "none"
        # A name of any length is no reason to push the page down.
        books.execution(workflow_name="very long words " * 20)
        await expect(page.locator("[data-tile='Running now'] b")).to_have_text("1")
        height = await page.locator("[data-tile='Running now']").evaluate("(e) => e.offsetHeight")
        assert height < 170
