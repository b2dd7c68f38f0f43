"""Chromium on the real server."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.server.conftest import PASSWORD, Site, admin, site, url

__all__ = ["admin", "site", "url"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if CHROMIUM is None:
        skip = pytest.mark.skip(reason="there is no chromium here (apt-get install chromium)")
        for item in items:
            if "tests/browser" in str(item.path):
                item.add_marker(skip)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        await opened.close()


# Notes every stream of the page, and every event that reaches it, in the order of arrival.
HEARD = """
  const Real = window.EventSource;
  window.heard = [];
  window.sources = [];
  window.EventSource = class extends Real {
    constructor(...given) {
      super(...given);
      window.sources.push(this);
    }
    addEventListener(type, listener, options) {
      if (type !== "position" && type !== "reset") {
        super.addEventListener(type, (event) => window.heard.push(JSON.parse(event.data)));
      }
      super.addEventListener(type, listener, options);
    }
  };
"""


@asynccontextmanager
async def signed_in(
    browser: Browser, address: str, user: str, **options: Any
) -> AsyncIterator[Page]:
    """A page of that user's own browser; what goes wrong in it fails the test.

    `window.heard` has the events it was told. Options are those of a browser context.
    """
    context = await browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    await context.add_init_script(HEARD)
    page = await context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "console",
        lambda message: (
            wrong.append(message.text)
            if "Content Security Policy" in message.text or "TypeError" in message.text
            else None
        ),
    )
    await page.goto(address)
    await page.get_by_label("User").fill(user)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.locator("#live")).to_have_text("Live")
    yield page
    assert wrong == []
    await context.close()


async def people(site: Site, *names: str) -> None:
    for name in names:
        await site.accounts.create_user(name, password=PASSWORD)
