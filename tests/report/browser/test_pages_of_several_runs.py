"""The pages of a ladder, a study and of runs side by side, as a browser shows them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ladders import grid

from stepsight.report.compare import Run, write_comparison
from stepsight.report.scaling import page as scaling_page
from stepsight.report.scaling.contents import analyse
from stepsight.report.study.contents import StudyPoint, figures_of
from stepsight.report.study.page import write_table
from stepsight.results import Result
from stepsight.scaling.analysis.folder import read_scaling
from stepsight.scaling.records import append
from tests.support.pages import browser

SMALLEST = 9.0  # CSS pixels of a font
TALLEST = 1800  # of a page at 1280, its drawers closed


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("pages")
    append(out / "records.jsonl", (replace(one, value=None) for one in grid()))
    found = analyse(read_scaling([out], out / "ladder"), bootstrap=0)
    points = [
        StudyPoint(figure, f"DiT-{line}", x, y, at="4x4")
        for figure in ("pretraining", "experts", "budget")
        for line in ("a1", "a2", "a3", "a4")
        for x, y in ((1e12, 0.4), (1e13, 0.3), (1e14, 0.25), (1e15, 0.24))
    ]
    scores = {"task": "depth", "data": "scenes", "protocol": "depth-affine-log@1234", "nfe": 4}
    runs = [
        Run(name, "dit-s", 100, 1e15, 0.0, {}, {"depth": Result(**scores, metrics={"abs_rel": y})})
        for name, y in (("a-run-of-a-long-name-0001", 0.2), ("b", 0.1))
    ]
    return {
        "ladder": scaling_page.write(found, out / "ladder"),
        "study": write_table(figures_of(points), out / "study", "points"),
        "comparison": write_comparison(runs, out / "compare.html"),
    }


@pytest.mark.parametrize(
    "name, width, theme",
    [("ladder", 390, "light"), ("study", 390, "dark"), ("study", 1280, "light")]
    + [("comparison", 390, "light"), ("comparison", 768, "dark")],
)
def test_pages_are_readable_everywhere(chromium, pages, name, width, theme):
    with browser.opened(chromium, pages[name], width, theme) as (page, said):
        assert browser.height(page) < TALLEST or width < 1280
        figure = page.locator("svg").first.bounding_box()
        assert figure and figure["y"] < 900
        browser.open_drawers(page)
        assert browser.too_wide(page) == []
        size, text = browser.smallest_text(page)
        assert size >= SMALLEST, text
        assert browser.faults(page) == []
        assert said == []
