"""What the pages look like: on a phone, in the dark, and before there is anything to show."""

from pathlib import Path
from typing import Any

import psycopg
import pytest
from playwright.async_api import Browser, Page, expect

from chatter_db.importing import import_file
from tests.browser.conftest import people, signed_in
from tests.server.conftest import PASSWORD, Person, Site
from tests.sql.books import Books

TRACE = Path(__file__).parents[2] / "chatter_db" / "demo" / "aider_trace.csv"
LONG = "Donaudampfschifffahrtsgesellschaftskapitän" * 5

# Texts that are hard to read by WCAG 2.2, 1.4.3: [text, contrast]. A colour counts as it
# appears: over the backgrounds below it, and faded by the opacity of what it is in.
FAINT = """() => {
  const parsed = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    return { rgb: [r, g, b], a };
  };
  const over = (top, a, bottom) => top.map((value, i) => value * a + bottom[i] * (1 - a));
  const ground = (element) => {
    if (!element) return [255, 255, 255];
    const { rgb, a } = parsed(getComputedStyle(element).backgroundColor);
    return a === 1 ? rgb : over(rgb, a, ground(element.parentElement));
  };
  const luminance = (rgb) => {
    const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = rgb.map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const faint = [];
  let seen = 0;
  const judge = (text, element, style) => {
    const hidden = !element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
    if (!text || hidden || element.closest(".skip, title, :disabled")) return;
    let faded = 1;
    for (let e = element; e; e = e.parentElement) faded *= Number(getComputedStyle(e).opacity);
    const below = ground(element);
    const { rgb, a } = parsed(element instanceof SVGElement ? style.fill : style.color);
    const both = [luminance(over(rgb, a * faded, below)), luminance(below)];
    const contrast = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
    const size = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700;
    seen += 1;
    if (contrast < (size >= 24 || (bold && size >= 18.66) ? 3 : 4.5)) faint.push([text, contrast]);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    judge(node.textContent.trim(), element, getComputedStyle(element));
  }
  for (const field of document.querySelectorAll("[placeholder]")) {
    judge(field.placeholder, field, getComputedStyle(field, "::placeholder"));
  }
  return { seen, faint };
}"""

OUTSIDE = """() => {
  const width = document.documentElement.clientWidth;
  return {
    wide: document.documentElement.scrollWidth - width,
    // What is cut off or lies over the edge, but for what scrolls by itself.
    outside: [...document.querySelectorAll("body *")]
      .filter((e) => !e.closest(".scroll, .skip, svg"))
      .filter((e) => e.getBoundingClientRect().right > width + 0.5)
      .map((e) => `${e.tagName} ${e.className}: ${e.textContent.slice(0, 40)}`),
  };
}"""

# Texts of a line that run into each other: of cells in a row, and below the chart.
TOUCHING = """() => {
  const box = (element) => {
    const range = document.createRange();
    range.selectNodeContents(element);
    const { left, right, width } = range.getBoundingClientRect();
    // What is too long ends with three dots.
    const padding = parseFloat(getComputedStyle(element).paddingRight);
    const end = element.matches(".name") ? element.getBoundingClientRect().right - padding : right;
    return { left, width, right: Math.min(right, end) };
  };
  const lines = [...document.querySelectorAll("tr")].map((row) => [...row.children]);
  const texts = document.querySelectorAll("svg > text");
  const labels = Object.groupBy(texts, (text) => text.getAttribute("y"));
  const touching = [];
  for (const line of [...lines, ...Object.values(labels)]) {
    const shown = line.filter((e) => box(e).width);
    shown.slice(1).forEach((next, at) => {
      if (box(next).left >= box(shown[at]).right + 6) return;
      touching.push([shown[at].textContent, next.textContent]);
    });
  }
  return touching;
}"""


async def legible(page: Page) -> None:
    told: dict[str, Any] = await page.evaluate(FAINT)
    assert told["seen"] > 3
    assert told["faint"] == []


async def fits(page: Page) -> None:
    assert await page.evaluate(OUTSIDE) == {"wide": 0, "outside": []}
    assert await page.evaluate(TOUCHING) == []


async def visit(page: Page, address: str, path: str) -> None:
    """Goes to a page of the dashboard and waits until it has what it shows."""
    await page.goto(f"{address}/#/{path}")
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    await expect(page.get_by_text("Loading …")).to_have_count(0)


@pytest.fixture
async def lived_in(site: Site, admin: Person, url: str) -> str:
    """A trace, a conversation of long words, an alert; its id. Everything is root's to see."""
    import_file(url, TRACE)
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    made = await admin.http.post("/api/conversations", json={"title": LONG})
    conversation = str(made.json()["id"])
    asked = {"content": f"{LONG}: what is 12 * (3 + 4) / 7?"}
    answer = await admin.http.post(f"/api/conversations/{conversation}/messages", json=asked)
    assert answer.status_code == 200, answer.text
    await people(site, "bob")
    stranger = site.client()
    for _ in range(5):
        login = {"user": "bob", "password": "not the password"}
        assert (await stranger.post("/api/auth/login", json=login)).status_code == 401
    return conversation


async def everywhere(page: Page, address: str, conversation: str, check: Any) -> None:
    """Checks every page of the dashboard with everything on it unfolded."""
    await visit(page, address, "")
    await page.get_by_text("All", exact=True).click()
    await expect(page.locator("[data-tile='Model calls, all'] b")).to_have_text("1,646")
    await check(page)
    await page.get_by_text("As a table").click()
    await check(page)
    await visit(page, address, "chat")
    await check(page)
    await visit(page, address, f"chat/{conversation}")
    await page.get_by_role("button", name="trace").last.click()
    await expect(page.locator(".trace")).to_contain_text("tool call calculate")
    await check(page)
    await visit(page, address, "security")
    await expect(page.get_by_text("failed_logins_per_user")).to_be_visible()
    await check(page)


async def test_nothing_is_wider_than_a_screen(browser: Browser, site: Site, lived_in: str) -> None:
    async def fits_all(page: Page) -> None:
        for width in (1440, 1024, 390, 320):
            await page.set_viewport_size({"width": width, "height": 740})
            await page.wait_for_timeout(500)  # the chart is drawn anew
            await fits(page)

    phone = {
        "viewport": {"width": 430, "height": 740},
        "is_mobile": True,
        "has_touch": True,
        "device_scale_factor": 2,
    }
    context = await browser.new_context(**phone)  # type: ignore[arg-type]
    page = await context.new_page()
    await page.goto(site.address)
    await expect(page.get_by_label("Password")).to_be_visible()
    await fits_all(page)
    await context.close()
    async with signed_in(browser, site.address, "root", **phone) as page:
        await everywhere(page, site.address, lived_in, fits_all)


async def test_a_figure_is_not_broken_in_two_on_a_phone(
    browser: Browser, site: Site, admin: Person, db: psycopg.Connection[Any]
) -> None:
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    books = Books(db)
    talk = books.conversation()
    books.message(talk, model_used="m", cost="0.000097")
    first = books.value("select now() - interval '42 days'")
    books.message(talk, model_used="m", cost="0.000097", created_at=first)
    viewport = {"width": 360, "height": 740}
    async with signed_in(browser, site.address, "root", viewport=viewport) as page:
        spent = page.locator("[data-tile='Spent today'] b")
        await expect(spent).to_have_text("$0.000097")
        lines = "(e) => e.offsetHeight / parseFloat(getComputedStyle(e).lineHeight)"
        assert round(await spent.evaluate(lines)) == 1
        # Nor is a date at the edge of the chart cut off.
        await page.get_by_text("All", exact=True).click()
        await expect(page.locator(".chart svg g")).to_have_count(43)
        cut = """(svg) => [...svg.querySelectorAll("text")].map((e) => e.getBoundingClientRect())
          .filter((r) => r.right > svg.getBoundingClientRect().right + 1).length"""
        for width in range(360, 420, 8):
            await page.set_viewport_size({"width": width, "height": 740})
            await page.wait_for_timeout(500)
            assert await page.locator(".chart svg").evaluate(cut) == 0


async def test_every_text_can_be_read_in_the_light_and_in_the_dark(
    browser: Browser, site: Site, lived_in: str
) -> None:
    async def legible_in_both(page: Page) -> None:
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            shade = await page.evaluate(
                "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
            )
            assert (max(shade) < 60) if scheme == "dark" else (min(shade) > 200)
            await legible(page)

    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(site.address)
    await expect(page.get_by_label("Password")).to_be_visible()
    await legible_in_both(page)
    await context.close()
    async with signed_in(browser, site.address, "root") as page:
        await everywhere(page, site.address, lived_in, legible_in_both)


async def test_before_there_is_anything_every_page_says_so(
    browser: Browser, site: Site, admin: Person
) -> None:
    await people(site, "ada")
    await site.accounts.set_password(admin.identity.user_id, PASSWORD)
    async with (
        signed_in(browser, site.address, "ada") as ada,
        signed_in(browser, site.address, "root") as root,
    ):
        for page in (ada, root):
            await visit(page, site.address, "")
            for name, shown in (
                ("Spent today", "$0.00"),
                ("Spent, 30 days", "$0.00"),
                ("Model calls, 30 days", "0"),
                ("Running now", "0"),
            ):
                await expect(page.locator(f"[data-tile='{name}'] b")).to_have_text(shown)
            for words in ("Nothing was spent in this time.", "Nothing runs at this moment."):
                await expect(page.get_by_text(words)).to_be_visible()
            # Nobody is shown a figure that there is none of.
            for nonsense in ("NaN", "undefined", "null", "Infinity", "Invalid"):
                await expect(page.locator("main")).not_to_contain_text(nonsense)
            await legible(page)
            await visit(page, site.address, "chat")
            await expect(page.get_by_text("No conversations yet.")).to_be_visible()
            await expect(page.get_by_text("Choose a conversation")).to_be_visible()
        await visit(root, site.address, "")
        for words in ("No call has told its time.", "No tool was called."):
            await expect(root.get_by_text(words)).to_be_visible()
        await visit(root, site.address, "security")
        await expect(root.get_by_text("No threshold was reached.")).to_be_visible()
