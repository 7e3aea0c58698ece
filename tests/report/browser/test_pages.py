"""Pages as a browser shows them: readable at every width and in both themes, and nothing for an
automatic check of accessibility to find."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepsight.report.serving import write
from tests.support.pages import browser
from tests.support.pages.run_folders import write_run

TALLEST = 6000  # CSS pixels of a run's page at 1280, its drawers closed
SMALLEST = 9.0  # CSS pixels of a font


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """The pages of a run, its evaluation and its sweep."""
    run = write_run(tmp_path_factory.mktemp("runs") / "tiny")
    return {name: write(run / name) for name in (".", "eval", "sweep")}


def test_the_first_screen_of_a_run_holds_its_picture_and_what_compute_buys(chromium, pages):
    with browser.opened(chromium, pages["."]) as (page, _):
        assert browser.height(page) <= TALLEST
        for selector in (".tile img", ".words li", ".curve svg"):
            box = page.locator(selector).first.bounding_box()
            assert box and box["y"] + box["height"] < 900, selector


def test_a_phone_shows_the_page_of_a_run_in_full(chromium, pages):
    with browser.opened(chromium, pages["."], 390, "dark") as (page, said):
        assert browser.faults(page) == []
        browser.open_drawers(page)
        assert browser.too_wide(page) == []
        size, text = browser.smallest_text(page)
        assert size >= SMALLEST, text
        assert said == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, width, theme",
    [(".", 1280, "light"), (".", 768, "dark"), ("eval", 390, "light"), ("sweep", 390, "dark")],
)
def test_what_drawers_hold_is_readable_everywhere(chromium, pages, name, width, theme):
    with browser.opened(chromium, pages[name], width, theme) as (page, said):
        browser.open_drawers(page)
        assert browser.too_wide(page) == []
        size, text = browser.smallest_text(page)
        assert size >= SMALLEST, text
        assert browser.faults(page) == []
        assert said == []


def test_the_checks_find_what_they_are_for(chromium, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<html lang="en"><title>x</title><main><h1>x</h1><img src="data:,">'
        '<p style="color: #ccc; font-size: 5px; width: 2000px">pale</p></main>'
        "<script>console.error('oh')</script></html>"
    )
    with browser.opened(chromium, bad, 390) as (page, said):
        assert "oh" in said and browser.too_wide(page)
        assert browser.smallest_text(page) == (5.0, "pale")
        found = " ".join(browser.faults(page))
        assert "image-alt" in found and "color-contrast" in found
