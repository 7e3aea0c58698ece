"""The page of a study and of anyone's numbers: points, laws, sentences and what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepsight.cli.main import main
from stepsight.errors import DataFormatError, UserError
from stepsight.report.study import page
from stepsight.report.study.contents import KINDS, StudyPoint, figures_of
from stepsight.report.study.figures import draw, places_of
from stepsight.report.study.stages import read_study
from stepsight.report.study.table import read_points
from stepsight.scaling.records import append

SCORES = {"abs_rel": 0.2}


def curve(figure: str, line: str, factor: float = 1.0, exponent: float = -0.15, **more: Any):
    """Points of a power law over three decades."""
    xs = (1e12, 1e13, 1e14, 1e15)
    return [StudyPoint(figure, line, x, factor * 30 * x**exponent, **more) for x in xs]


def study(tmp_path: Path, stages: list[dict[str, Any]]) -> Path:
    rows = [{"kind": "train", "folder": row["name"], "status": "done"} | row for row in stages]
    (tmp_path / "study.json").write_text(json.dumps({"name": "ours", "scale": "1", "stages": rows}))
    return tmp_path


def run(folder: Path, loss: float, inherited: float = 0.0, task: str = "depth") -> None:
    """What a run leaves: two validations, a record and a score."""
    from ladders import record

    rows = [
        {"kind": "val", "task": task, "data": "scenes", "nfe": 1, "members": 1, "images_seen": seen}
        | {"loss": loss * factor, "metrics": {"abs_rel": loss / 2 * factor}}
        for seen, factor in ((100, 2.0), (200, 1.0))
    ]
    folder.mkdir(parents=True, exist_ok=True)
    lines = [*map(json.dumps, rows), '{"kind": "va']  # one is being written
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    made = record(10, 200, loss, loss / 2, task=task, training_flops=4e12)
    append(
        folder / "records.jsonl", [made.__class__(**vars(made) | {"inherited_flops": inherited})]
    )
    scored = {"task": task, "nfe": 4, "members": 2, "metric": "abs_rel"}
    scored |= {"metrics": {"abs_rel": loss / 2}, "intervals": {"abs_rel": [loss / 4, loss]}}
    (folder / "eval").mkdir(exist_ok=True)
    (folder / "eval" / "results.json").write_text(json.dumps([scored]))


def labels(*of: str, **more: Any) -> dict[str, Any]:
    return {"of": list(of), "task": "depth"} | more


def test_a_law_is_found_and_said_as_what_ten_times_the_compute_takes_off():
    (figure,) = figures_of(curve("finetuning", "a1", metric="abs_rel", task="depth"))
    assert figure.law is not None and figure.law.params["a"] == pytest.approx(0.15)
    assert "takes 29.2% off the AbsRel, over 3.0 decades" in figure.sentence
    assert figure.printed == -0.1511
    (axes,) = draw(figure).axes
    assert [line.get_label() for line in axes.lines] == ["a1", "law"]


def test_what_is_no_law_is_not_drawn_as_one():
    flat = [StudyPoint("pretraining", "a1", x, y) for x, y in ((1e12, 0.3), (1e13, 0.29))]
    (figure,) = figures_of(flat)
    assert "no law (too few points)" in figure.sentence
    assert [line.get_label() for line in draw(figure).axes[0].lines] == ["a1"]


def test_a_line_has_its_colour_in_every_figure():
    sizes = [
        *curve("finetuning", "96x4"),
        *curve("finetuning", "128x4"),
        *curve("finetuning", "64x3"),
    ]
    shown = figures_of([*sizes, *curve("steps", "128x4"), *curve("schedule", "cosine")])
    assert places_of(shown) == {"64x3": 0, "96x4": 1, "128x4": 2, "cosine": 0}
    drawn = [draw(figure, places_of(shown)).axes[0].lines for figure in shown]
    of = [line.get_color() for lines in drawn for line in lines if line.get_label() == "128x4"]
    assert len(of) == 2 and len(set(of)) == 1


def test_comparisons_say_which_ends_below_and_for_what_compute():
    dense = curve("experts", "dense")
    more = [point._replace(line="8E2A", x=2 * point.x, y=0.9 * point.y) for point in dense]
    (figure,) = figures_of(dense + more)
    assert figure.sentence == "loss: 8E2A ends 10.0% below dense for 2 x the compute."


def test_of_a_budget_the_frontier_is_drawn_with_its_settings():
    cheap = StudyPoint("budget", "a1", 1e12, 0.3, at="1x1")
    good = StudyPoint("budget", "a2", 1e13, 0.2, at="4x2")
    worse = StudyPoint("budget", "a2", 2e13, 0.25, at="8x2")
    (figure,) = figures_of([worse, cheap, good])
    (axes,) = draw(figure).axes
    assert [text.get_text() for text in axes.texts] == ["1x1", "4x2"]
    assert "a1 1x1 is cheapest (0.300), a2 4x2 best (0.200) for 10 x" in figure.sentence


def test_more_is_better_becomes_what_is_lacking(tmp_path):
    row = "depth,ddim,trailing,linear,{},1,{},{},1,1,delta1,{},{},{}\n"
    head = "task,sampler,spacing,schedule,nfe,members,total_calls,gflop_per_image,ms_per_image,"
    body = [row.format(n, n, n, v, v - 0.1, v + 0.1) for n, v in ((1, 0.7), (2, 0.8))]
    (tmp_path / "sweep.csv").write_text(head + "peak_gb,metric,value,lo,hi\n" + "".join(body))
    steps = [point for point in read_points(tmp_path / "sweep.csv") if point.figure == "steps"]
    assert [point.y for point in steps] == pytest.approx([0.3, 0.2])
    assert (steps[0].lo, steps[0].hi) == pytest.approx((0.2, 0.4))
    assert [(point.x, point.at) for point in steps] == [(1e9, "1x1"), (2e9, "2x1")]


def test_a_study_shows_what_its_stages_left(tmp_path):
    done = [
        ("pretrain-s", labels("pretraining", size="s"), 0.4, 0.0),
        ("depth-s", labels("model size", "experts", size="s", experts="dense"), 0.2, 4e12),
        ("depth-x", labels("experts", size="s", experts="4E2A"), 0.1, 8e12),
    ]
    for name, _, loss, inherited in done:
        run(tmp_path / name, loss, inherited)
    stages = [{"name": name, "labels": what} for name, what, *_ in done]
    stages += [{"name": "depth-l", "status": "failed", "why": "no <disk>", "labels": labels()}]
    stages += [{"name": "sweep", "kind": "sweep", "status": "running", "labels": {}}]
    found = read_study(study(tmp_path, stages)).points
    at = {(p.figure, p.line, p.metric, p.x): p.y for p in found}
    assert (
        at["pretraining", "s", "loss", 2e12] == 0.8 and at["pretraining", "s", "loss", 4e12] == 0.4
    )
    assert at["finetuning", "s", "abs_rel", 4e12] == 0.1
    assert (
        at["experts", "dense", "loss", 8e12] == 0.2 and at["experts", "4E2A", "loss", 12e12] == 0.1
    )
    carried = [point for point in found if point.figure == "carried"]
    assert carried == [StudyPoint("carried", "s", 4e12, 0.1, 0.05, 0.2, "depth", "abs_rel", "4x2")]
    text = page.write(tmp_path).read_text()
    assert (
        "3 of 5 stages done" in text
        and "no &lt;disk&gt;" in text
        and 'http-equiv="refresh"' in text
    )
    assert "Not drawn, for want of points" in text and KINDS["schedule"].needs in text
    assert (tmp_path / "figure-experts-depth-loss.png").is_file()


def test_a_study_that_has_just_begun_has_a_page(tmp_path):
    stages = [{"name": "vae", "status": "waiting", "labels": {"of": ["codec"]}}]
    assert "Nothing is measured yet" in page.write(study(tmp_path, stages)).read_text()
    with pytest.raises(UserError, match=r"study\.json does not exist"):
        page.write(tmp_path / "elsewhere")


def test_anyones_numbers_become_the_page(tmp_path, capsys):
    table = tmp_path / "mine.csv"
    rows = [f"steps,mine,{x:g},{y:g}" for x, y in ((1e9, 0.4), (2e9, 0.3), (4e9, 0.25))]
    table.write_text("\n".join(["figure,line,x,y", *rows]))
    assert main(["scaling", "report", str(table), "--out", str(tmp_path / "out")]) == 0
    assert "mine 38% off" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").read_text().count("<svg") == 1


@pytest.mark.parametrize(
    "text, message",
    [
        ("figure,line,x\nsteps,a,1", "lacks the column y"),
        ("figure,line,x,y\nstep,a,1,2", "mine.csv:2: there is no figure 'step'. Did you mean"),
        ("figure,line,x,y\nsteps,a,1,-2", "mine.csv:2: y is '-2'. Axes are logarithmic"),
        ("figure,line,x,y\nsteps,a,1,2\nsteps,a,?,2", r"mine.csv:3: x is '\?'"),
        ("figure,line,x,y\n", "no points"),
    ],
)
def test_a_table_that_is_none_says_where(tmp_path, text, message):
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(DataFormatError, match=message):
        read_points(tmp_path / "mine.csv")
