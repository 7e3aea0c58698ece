"""Pages in a headless Chromium: how they look, and what automatic checks have against them.

Tests that open one are skipped, saying so, where no Chromium is installed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = "chromium", "chromium-browser", "google-chrome", "chrome"
WIDTHS = 1280, 768, 390  # a desktop, a tablet, a phone
Theme = Literal["light", "dark"]
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser. Skips the test where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no chromium on the PATH")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Browser, address: str | Path, width: int = 1280, theme: Theme = "light"
) -> Iterator[tuple[Page, list[str]]]:
    """A page of that width, and what its console complains of."""
    said: list[str] = []
    where = address.resolve().as_uri() if isinstance(address, Path) else address
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=theme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.on("console", lambda line: said.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    try:
        page.goto(where)
        yield page, said
    finally:
        context.close()


def open_drawers(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(drawer => drawer.open = true)")


def height(page: Page) -> int:
    """Of the whole page, in CSS pixels."""
    return page.evaluate("document.documentElement.scrollHeight")


def too_wide(page: Page) -> list[str]:
    """The elements that reach beyond the right edge, where the page scrolls sideways."""
    return page.evaluate(
        """() => document.documentElement.scrollWidth <= document.documentElement.clientWidth ? [] :
        [...document.querySelectorAll('body *')]
          .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
          .map(e => e.outerHTML.slice(0, 120))"""
    )


def faults(page: Page) -> list[str]:
    """What axe finds: missing texts for pictures, contrast below AA, headings out of order, ...

    A figure is one picture to it: what is drawn inside is left out."""
    from axe_playwright_python.sync_playwright import Axe

    rules, whole = {"runOnly": list(RULES)}, {"exclude": ["svg > *"]}
    found = Axe().run(page, context=whole, options=rules).response["violations"]
    return [
        f"{fault['id']}: {node['html'][:160]} {node.get('failureSummary', '')[:200]}"
        for fault in found
        for node in fault["nodes"]
    ]


def smallest_text(page: Page) -> tuple[float, str]:
    """The height of the smallest font that is shown, in CSS pixels, figures included, and a text in
    it."""
    size, text = page.evaluate(
        """() => {
          let least = [1e9, ''];
          const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          while (walk.nextNode()) {
            const parent = walk.currentNode.parentElement;
            if (!walk.currentNode.data.trim() || !parent.getClientRects().length) continue;
            if (parent.closest('title')) continue;
            const svg = parent.closest('svg');
            const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
            const size = parseFloat(getComputedStyle(parent).fontSize) * scale;
            if (size < least[0]) least = [size, walk.currentNode.data];
          }
          return least;
        }"""
    )
    return size, text
