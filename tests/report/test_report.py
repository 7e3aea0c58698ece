"""The report: complete, self-contained, injection-proof, and content with half a run folder."""

from __future__ import annotations

import json
import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jinja2 import UndefinedError
from markupsafe import Markup, escape

from stepsight.checkpoint import lock
from stepsight.errors import DataFormatError, UserError
from stepsight.evaluation.results import write_table
from stepsight.legends import Legend
from stepsight.report.grids import compose
from stepsight.report.page import render, write_report
from stepsight.report.panels import PanelTile, PicturePanel, write_panel
from stepsight.report.rendering import PICTURE_BYTES, labelled, short_name
from stepsight.report.rendering import render as fill
from stepsight.report.run_folder import LOCK, SILENT, is_working, read_run
from stepsight.report.sweep.folder import SweepFolder
from stepsight.report.sweep.page import gather
from stepsight.report.verdict import TaskSentence
from stepsight.scaling.sampling.sweeps import Cell, write_sweep

HOSTILE = "<img src=x onerror=1>\"'&"
VOID_ELEMENTS = {"meta", "img", "br", "link"}
PICTURES = ("sweep/film-depth", "sweep/reliability-depth")


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


def metrics(hostile: str) -> list[dict]:
    rows = []
    for step in range(1, 41):
        losses = {"loss/depth": step**-0.4, "loss/amodal": step**-0.3}
        rows.append(
            {"kind": "train", "step": step, "images_seen": 16 * step, "loss": step**-0.35}
            | losses
            | {"lr": 0.02, "images_per_s": 230.0, "data_share": 0.01, "seconds": 0.5 * step}
        )
    for step in (20, 40):
        for task, metric, value in (("depth", "abs_rel", 0.28), ("amodal", "iou", 0.5)):
            rows.append(
                {"kind": "val", "step": step, "images_seen": 16 * step, "task": task}
                | {"data": f"scenes{hostile}", "nfe": 4, "members": 1, "n": 64, "seconds": 6.0}
                | {"metrics": {metric: value}, "baselines": {f"trivial{hostile}": {metric: 0.45}}}
            )
    return rows


def results(hostile: str) -> list[dict]:
    shared = {"protocol": "native", "protocol_text": f"as is{hostile}", "nfe": 4, "members": 4}
    shared |= {"sampler": "ddim", "size": [64, 64], "checkpoint": f"step-40{hostile}", "n": 512}
    depth = {
        "task": "depth",
        "data": f"scenes{hostile}",
        "metrics": {"abs_rel": 0.19, "delta1": 0.72, "n_images": 512.0},
        "intervals": {"abs_rel": [0.18, 0.2]},
        "baselines": {"mean_map": {"abs_rel": 0.294}, "nothing": {"abs_rel": None}},
        "ratios": {"mean_map": {"metric": "abs_rel", "ratio": 0.65, "lo": 0.62, "hi": 0.68}},
        "label": None,
        "ceiling": {"abs_rel": 0.02},
    }
    amodal = {
        "task": "amodal",
        "data": "scenes",
        "metrics": {"iou": 0.65},
        "intervals": {},
        "baselines": {"box": {"iou": 0.676}},
        "ratios": {"box": {"metric": "iou", "ratio": 0.96, "lo": 0.93, "hi": 0.99}},
        "label": f"training frames (overfit){hostile}",
        "ceiling": None,
    }
    return [depth | shared, amodal | shared]


def swept(hostile: str) -> list[Cell]:
    """A grid of one task, with the CRPS of its ensembles."""
    return [
        Cell(
            task="depth",
            sampler="ddim",
            spacing="trailing",
            schedule="rectified_flow",
            nfe=nfe,
            members=members,
            total_calls=nfe * members,
            gflop_per_image=0.1 * nfe * members,
            ms_per_image=3.0 * nfe * members,
            peak_gb=math.nan,
            metric=metric,
            value=value,
            lo=value - 0.001,
            hi=value + 0.001,
            checkpoint=f"runs/tiny{hostile}",
        )
        for nfe in (1, 4)
        for members in (1, 8)
        for metric, value in (("abs_rel", 0.2 - 0.002 * members), ("crps", 0.3 / members))
        if metric == "abs_rel" or members > 1
    ]


def strategies(hostile: str) -> list[dict[str, Any]]:
    shared = {"task": "depth", "nfe": 4, "members": 8, "total_calls": 32, "mean_calls": 32}
    shared |= {"metric": "abs_rel", "value": 0.19, "lo": 0.18, "hi": 0.2, "images": 64}
    merged = {"strategy": "median", "baseline": "", "difference": "", "verdict": ""}
    best = {"strategy": f"oracle{hostile}", "baseline": "median", "difference": -0.01}
    best |= {"difference_lo": -0.02, "difference_hi": -0.005, "verdict": "wins"}
    return [shared | best, shared | merged]


def panel(hostile: str) -> PicturePanel:
    """An image and what is predicted for it."""
    image = PanelTile("image", f"image{hostile}")
    answer = PanelTile("one call", "depth at 1 x 1", f"1 x 1{hostile}", 0.21)
    scale = Legend("values", ("#000000", "#ffffff"), 1.3, 11.0, f"m{hostile}", log=True)
    says = f"scenes{hostile}", "native", "key", f"median image{hostile}"
    return PicturePanel("depth", *says, "abs_rel", (image, answer), scale)


def write_run(path: Path, hostile: str = "") -> Path:
    """A finished run of two tasks; `hostile` goes into every name a user could choose."""
    for folder in ("samples", "eval", "sweep"):
        (path / folder).mkdir(parents=True)
    (path / "config.yaml").write_text(f"tasks:\n  depth: {{}}\nnote: {hostile}\n")
    (path / "command.txt").write_text(f"train.py --config tiny.yaml {hostile}\n")
    (path / "env.json").write_text(json.dumps({"stepsight": "0.1.0", "host": f"a{hostile}"}))
    lines = [json.dumps(row) for row in metrics(hostile)]
    (path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"kind":"train","st')
    tile = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for name in ("samples/step-000020", "samples/step-000040", "samples/final", *PICTURES):
        compose([[tile, tile]], ["image", "truth"], ["depth"], path / f"{name}.png")
    for kind in ("panels", "extremes"):
        write_panel(path / "eval", panel(hostile), [tile, tile], kind)
    write_panel(path / "sweep", panel(hostile), [tile, tile], "films")
    (path / "eval" / "results.json").write_text(json.dumps(results(hostile)))
    write_sweep(path / "sweep" / "sweep.csv", swept(hostile))
    write_table(path / "sweep" / "strategies.csv", strategies(hostile))
    fit = {"params": {"A": 0.2, "a": 0.02}, "intervals": {"A": [0.19, 0.21], "a": [None, None]}}
    fit |= {"formula": "e = E + A T^-a + B N^-b", "r2": 0.97}
    dial = {"dial": "steps", "at": 8, "points": 2, "gain": 0.07, "verdict": "saturated"}
    family = {"checkpoint": f"runs/tiny{hostile}", "sampler": "ddim", "surface": fit}
    family |= {"verdict": "law", "dials": [dial]}
    laws = {"depth": {"metric": "abs_rel", "families": [family]}}
    (path / "sweep" / "fit.json").write_text(json.dumps(laws))
    claim = {"task": "depth", "metric": "abs_rel", "averaging": "per image", "main": True}
    claim |= {"statement": f"more members help{hostile}", "given": "calls 4", "verdict": "holds"}
    claim |= {"value": 0.07, "lo": 0.05, "hi": 0.09, "n": 512, "sentence": "Eight instead of one."}
    claim |= {
        "p": 0.001,
        "p_holm": 0.004,
        "cost": 32,
        "base_cost": 4,
        "sampler": "ddim",
        "spacing": "trailing",
    }
    sides = {"base": 1, "other": 8}
    claim |= {
        s: {"nfe": 4, "members": n, "temperature": 1.0, "views": "none"} for s, n in sides.items()
    }
    (path / "sweep" / "claims.json").write_text(json.dumps([claim]))
    return path


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
    first = page.text.partition("What to try next")[0]
    assert "depth ✓\nAbsRel 0.190 with 16 calls; 35% less error than the best trivial" in first
    assert "amodal ✗\nIoU 0.650 with 16 calls; not better than box (0.676). Measured on" in first
    assert "No " not in page.text and " yet" not in page.text
    # what compute buys; training; validation of two tasks; Pareto and map; panels of uncertainty
    assert page.count("svg") == 1 + 1 + 2 + 2 + 1
    assert all(a["alt"] for tag, a in page.elements if tag == "img")


def test_a_page_of_a_run_that_works_loads_itself_again(run):
    refreshes = 'http-equiv="refresh"'
    assert refreshes in write_report(run, working=True).read_text()
    assert refreshes not in write_report(run).read_text()
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
        "✓ beaten mean_map 0.294, ratio 0.650 [0.620, 0.680]",
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
    assert all(link.startswith(("#", "data:")) for link in links)
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
