"""Figures of README.md and docs/*.md are those that scripts/docs_numbers.py makes of the data."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from stepsight.results import Result
from stepsight.scaling.laws.forms import FORMS

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MARK = re.compile(r"<!-- (?:numbers: .*?|end) -->")
INLINE = re.compile(r"<!-- (?:n: .*?|/n) -->")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.,/-])-?\d*\.\d{3,}(?![\w.])")  # three places and more: no coincidence
TYPED = {  # figures of other measurements that happen to read like one of the page's tables
    "README.md": {0.130, 0.678},  # an earlier specialist, and the bounding box it was set beside
    "scaling.md": {0.930},  # coverage of profile intervals, by tests/scaling/laws/test_coverage.py
    "test-time.md": {0.621},  # read off a figure of arXiv 2411.08034
}
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
MEASURED = (ROOT / "docs" / "data" / "default-results.json").is_file()
needs_data = pytest.mark.skipif(
    not MEASURED, reason="docs/data/default-results.json is absent: nothing to write tables from"
)
CALIBRATION = (
    "task,seed,scale,coverage_raw,coverage,lo,hi,spearman\ndepth,0,2.256,.61,.916,.9,.93,.36\n"
)
WRITTEN = """\
| task | seed | scale | raw members cover | stated interval covers | Spearman |
| --- | --- | --- | --- | --- | --- |
| depth | 0 | 2.26 | 0.610 | **0.916** [0.900, 0.930] | 0.36 |
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "scripts" / "docs_numbers.py"
    spec = importlib.util.spec_from_file_location("docs_numbers", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def block(name: str, content: str = "") -> str:
    return f"Before.\n\n<!-- numbers: {name} -->\n{content}<!-- end -->\n\nAfter.\n"


@needs_data
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_says_what_the_data_say(script, page):
    text = page.read_text(encoding="utf-8")
    assert script.written(text) == text, "run scripts/docs_numbers.py"


@needs_data
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_links_to_files_that_there_are(page):
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_marks_enclose_a_block_each(page):
    text = page.read_text(encoding="utf-8")
    for mark, first, last in (
        (MARK, "<!-- numbers: ", "<!-- end -->"),
        (INLINE, "<!-- n: ", "<!-- /n -->"),
    ):
        marks = mark.findall(text)
        assert all(one == last for one in marks[1::2]) and len(marks) % 2 == 0
        assert all(one.startswith(first) for one in marks[::2])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_figure_of_a_table_is_not_typed_again(script, page):
    """A number of a page's own tables, said once more in its prose, stands between marks there."""
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    tables = "".join(match[0] for match in script.BLOCK.finditer(text))
    prose = script.FIGURE.sub("", script.BLOCK.sub("", text))
    shown, typed = ({float(x) for x in NUMBER.findall(one)} for one in (tables, prose))
    assert (shown & typed) - TYPED.get(page.name, set()) == set(), (
        "scripts/docs_numbers.py: FIGURES"
    )


def test_what_is_made_stands_on_a_page_and_every_mark_is_made(script):
    texts = [page.read_text("utf-8") for page in PAGES]
    names = {found[2] for text in texts for found in script.BLOCK.finditer(text)}
    assert names == set(script.BLOCKS)
    figures = {found.group(2, 3) for text in texts for found in script.FIGURE.finditer(text)}
    made = {(part, name) for part, maker in script.FIGURES.items() for name in maker()}
    assert figures == made


def test_every_form_of_a_law_is_described():
    page = (ROOT / "docs" / "scaling.md").read_text("utf-8")
    assert [name for name in FORMS if f"| `{name}` |" not in page] == []


def test_an_unknown_block_fails(script):
    with pytest.raises(KeyError, match="no-such-table"):
        script.written(block("no-such-table"))


def test_a_table_is_made_of_its_file_and_a_stale_one_made_anew(script, monkeypatch, tmp_path):
    (tmp_path / "calibration.csv").write_text(CALIBRATION)
    monkeypatch.setattr(script.common, "DATA", tmp_path)
    made = script.written(block("calibration"))
    assert made == block("calibration", WRITTEN)
    assert script.written(made) == made
    assert script.written(made.replace("0.916", "0.999")) == made


def test_a_setting_tells_its_views_where_it_has_some(script):
    result = Result(task="depth", nfe=4, members=1, temperature=0.0, views="mirror")
    assert script.default_run.setting(result) == "4 x 1, T 0, mirror"
    assert script.default_run.setting(replace(result, views="none")) == "4 x 1, T 0"


def test_the_code_of_the_readme_is_that_which_a_test_runs():
    """docs/tasks.md is made a package and run by tests/plugins."""
    blocks = re.findall(r"^```python\n# matting.*?^```$", PAGES[0].read_text(), re.M | re.S)
    page = (ROOT / "docs" / "tasks.md").read_text()
    assert blocks and all(block in page for block in blocks)
