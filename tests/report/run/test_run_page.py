"""The report: complete, self-contained, injection-proof, and content with half a run folder."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup, escape

from stepsight.checkpoint import lock
from stepsight.errors import DataFormatError, UserError
from stepsight.report.page import render, write_report
from stepsight.report.rendering import PICTURE_BYTES, labelled, short_name
from stepsight.report.rendering import render as fill
from stepsight.report.run_folder import LOCK, SILENT, is_working, read_run
from stepsight.report.sweep.folder import SweepFolder
from stepsight.report.sweep.page import gather
from stepsight.report.verdict import TaskSentence
from tests.support.pages.run_folders import write_run

HOSTILE = "<img src=x onerror=1>\"'&"
VOID_ELEMENTS = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """The text, the elements with their attributes, and whether they nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def count(self, name: str) -> int:
        return sum(tag == name for tag, _ in self.elements)


@pytest.fixture
def run(tmp_path) -> Path:
    return write_run(tmp_path / "tiny")


@pytest.fixture(scope="module")
def complete(tmp_path_factory) -> Path:
    """The report of a finished run."""
    return write_report(write_run(tmp_path_factory.mktemp("runs") / "tiny"))


def test_the_page_answers_first_and_keeps_the_rest_in_closed_drawers(complete):
    page = Page(complete.read_text(encoding="utf-8"))
    assert complete.name == "report.html" and complete.stat().st_size < 3_000_000
    drawers = [a for tag, a in page.elements if tag == "details" and a.get("class") == "drawer"]
    titles = (
        "what-to-try-next scores best-and-worst calls-and-members worth-its-cost "
        "what-a-budget-buys film-strips uncertainty other-strategies laws-of-sampling "
        "claims samples training validation settings again"
    )
    assert [drawer["id"] for drawer in drawers] == titles.split()
    assert not any("open" in drawer for drawer in drawers)
    first = " ".join(page.text.partition("What to try next")[0].split())
    assert "depth ✓ AbsRel 0.190 with 16 calls, 35% less error than the best trivial" in first
    assert "amodal ✗ IoU 0.650 with 16 calls, not better than box (0.676). Note:" in first
    assert "✓ better than every trivial predictor" in first and "✗ not better" in first
    assert "No " not in page.text and " yet" not in page.text
    # what compute buys; training; validation of two tasks; Pareto and map; two of uncertainty
    assert page.count("svg") == 1 + 1 + 2 + 2 + 2
    assert all(a["alt"] for tag, a in page.elements if tag == "img")


def test_a_page_of_a_run_that_works_loads_itself_again(run):
    refreshes = 'http-equiv="refresh"'
    text = write_report(run, working=True).read_text()
    assert refreshes in text and "still working" in text
    text = write_report(run).read_text()
    assert refreshes not in text and "still working" not in text
    (run / LOCK).touch()
    assert is_working(run)
    os.utime(run / LOCK, (0, 0))  # its holder died
    assert not is_working(run)


def test_the_lock_and_its_beat_are_those_of_runs():
    assert lock.LOCK == LOCK and lock.BEAT < SILENT


@pytest.mark.parametrize(
    "typed, again",
    [
        ("train.py --lr 1", "uv run train.py --lr 1"),
        ("/work/x/train.py", "uv run train.py"),
        ("/env/bin/stepsight train --lr 1", "stepsight train --lr 1"),
    ],
)
def test_a_command_is_shown_as_it_can_be_typed_again(run, typed, again):
    (run / "command.txt").write_text(f"{typed}\n")
    assert read_run(run).command == again


def test_numbers_come_with_protocol_interval_ratio_and_an_honest_mark(complete):
    text = Page(complete.read_text(encoding="utf-8")).text
    for shown in (
        "native",
        "[0.180, 0.200]",
        "✓ beaten mean map 0.294, ratio 0.650 [0.620, 0.680]",
        "✗ not beaten box 0.676, ratio 0.960 [0.930, 0.990]",
        "▲ training frames (overfit)",
        "ceiling 0.0200",
        "δ1 0.720↑",
        "ddim, 4 NFE x 4",
        "A = 0.200 [0.190, 0.210]",
        "4x1 → 4x8",
        "steps at 8 members, +7.0% ~ saturated",
        "1 NFE x 8 members",
        "✓ wins",
        "-1.0%[-2.0%, -0.5%]",
        "✓ holds",
        "uv run evaluate.py --checkpoint",
        "train.py --config tiny.yaml",
    ):
        assert shown in text, shown


def test_names_are_text_and_never_markup(tmp_path):
    path = write_run(tmp_path / HOSTILE.replace("/", ""), HOSTILE)
    html = write_report(path).read_text(encoding="utf-8")
    page = Page(html)
    assert page.text.count("<img src=x onerror=1>") > 8
    assert "<img src=x" not in html
    allowed = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]+")
    assert all(allowed.fullmatch(a["src"] or "") for tag, a in page.elements if tag == "img")
    assert not any(name.startswith("on") for _, a in page.elements for name in a)


def test_the_page_loads_nothing(complete):
    html = complete.read_text(encoding="utf-8")
    page = Page(html)
    assert page.count("script") == page.count("iframe") == 0
    links = [a[k] for _, a in page.elements for k in ("src", "href", "xlink:href") if a.get(k)]
    assert all((link or "").startswith(("#", "data:")) for link in links)
    assert not re.search(r"url\((?!#)|@import", html)
    assert "default-src 'none'" in html


def test_an_empty_folder_gives_a_page_that_says_what_is_missing(tmp_path):
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert page.count("svg") == page.count("img") == 0
    for note in ("Nothing has been measured", "Not evaluated yet", "no training steps"):
        assert note in page.text


@pytest.mark.parametrize(
    "missing",
    [
        ("config.yaml", "command.txt", "env.json", "samples/final.png"),
        ("metrics.jsonl", "sweep/fit.json"),
        ("eval/results.json", "sweep/sweep.csv", "sweep/claims.json"),
        ("sweep/strategies.csv", "sweep/film-depth.png", "sweep/reliability-depth.png"),
    ],
)
def test_any_file_may_be_missing(run, missing):
    for name in missing:
        (run / name).unlink()
    Page(write_report(run).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "name, content",
    [
        ("eval/results.json", "[{"),
        ("sweep/fit.json", "[]"),
        ("metrics.jsonl", "garbage\n{}\n"),
        ("sweep/sweep.csv", "task,nfe\ndepth,four\n"),
    ],
)
def test_a_damaged_file_is_named(run, name, content):
    (run / name).write_text(content)
    with pytest.raises(DataFormatError, match=Path(name).name):
        write_report(run)


def test_no_folder_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="no such run folder"):
        write_report(tmp_path / "nowhere")


def test_a_line_still_being_written_is_not_read(run):
    assert len(read_run(run).train) == 40


def test_samples_are_in_order_of_training_and_the_last_is_shown_first(run, complete):
    assert [p.stem for p in read_run(run).samples] == ["step-000020", "step-000040", "final"]
    text = Page(complete.read_text(encoding="utf-8")).text
    assert text.index("samples: final") < text.index("samples: step-000020")


def test_pictures_beyond_the_budget_are_named_instead(run):
    (run / "samples" / "final.png").write_bytes(b"\0" * (PICTURE_BYTES + 1))
    page = Page(render(read_run(run)))
    assert "samples/final.png is left out" in page.text and page.text.count("left out") == 1


def test_a_run_may_be_called_a_script(tmp_path):
    name = "<script>alert(1)<"
    html = write_report(write_run(tmp_path / name)).read_text(encoding="utf-8")
    assert Page(html).count("script") == 0 and "&lt;script&gt;alert(1)&lt;" in html
    assert f"<h1>{escape(name)}</h1>" in html and f"<title>{escape(name)} - stepsight</" in html


def test_everything_is_escaped_but_markup():
    first = {"panels": [], "curve": None, "sentences": [TaskSentence("<t>", None, '"')]}
    page = fill("sweep", title="<&>", checkpoints=["<i>"], sweep=gather(SweepFolder()), **first)
    assert "<h1>&lt;&amp;&gt;</h1>" in page and "of &lt;i&gt;" in page
    assert re.search(r"<b>&lt;t&gt;</b>\s+&#34;", page)


def test_a_name_that_a_template_does_not_know_is_an_error():
    with pytest.raises(UndefinedError, match="'sentences' is undefined"):
        fill("sweep", title="x", checkpoints=["runs/x"], sweep=gather(SweepFolder()))


def test_cells_name_their_columns_and_names_are_short():
    rows = Markup("<tr><td>1</td>\n<td>2</td></tr><tr><td>3</td></tr>")
    assert labelled(rows, ["a<", "b"]) == (
        '<tr><td data-label="a&lt;">1</td>\n<td data-label="b">2</td></tr>'
        '<tr><td data-label="a&lt;">3</td></tr>'
    )
    assert short_name("depth-affine-log@fa32a147+sd@0123abcd") == "depth-affine-log+sd"
    assert short_name("4045178adfc1") == "4045178" and short_name("/tmp/runs/a-1/") == "a-1"
