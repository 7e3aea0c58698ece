"""Metres from known distances: planted ones come back, and too few or useless ones are refused."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stepsight import checkpoint
from stepsight.cli.main import main
from stepsight.errors import DataFormatError, UserError
from stepsight.pipeline.dense import DensePipeline
from stepsight.predicting.calibrating import Known, fit_known, predicted, read_known
from stepsight.tasks.table import task_for

SCALE, SHIFT = 1.3, -0.4  # of log depth, planted
DEPTH: Any = task_for("depth")


def points(metres: list[float], pictures: int = 1) -> list[Known]:
    return [
        Known(Path(f"{i % pictures}.png"), i, 0, value, f"f:{i}") for i, value in enumerate(metres)
    ]


def planted(count: int, error: float, pictures: int = 1) -> dict[str, Any]:
    draw = np.random.default_rng(count)
    found = np.exp(draw.uniform(0, 2, count))
    metres = np.exp(SCALE * np.log(found) + SHIFT + error * draw.normal(size=count))
    return fit_known(DEPTH, found.tolist(), points(metres.tolist(), pictures))


def test_exact_distances_give_the_planted_scale_and_shift():
    record = planted(5, 0.0, pictures=2)
    assert record["scale"] == pytest.approx(SCALE) and record["shift"] == pytest.approx(SHIFT)
    assert record["error"] < 1e-6 and (record["points"], record["pictures"]) == (5, 2)
    assert record["space"] == "log" and record["interval"] == "95% Student t"


def test_intervals_hold_the_planted_values_as_often_as_they_say():
    draw, held = np.random.default_rng(7), 0
    for _ in range(400):
        found = np.exp(draw.uniform(0, 2, 6))
        metres = np.exp(SCALE * np.log(found) + SHIFT + 0.05 * draw.normal(size=6))
        record = fit_known(DEPTH, found.tolist(), points(metres.tolist()))
        low, high = record["scale_interval"]
        held += low <= SCALE <= high
    assert 0.92 < held / 400 < 0.98
    assert planted(200, 0.1)["error"] == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize(
    ("found", "metres", "message"),
    [
        ([1.0, 2.0], [1.0, 2.0], "2 known distances: give 3 or more"),
        ([2.0, 2.0, 2.0, 2.0], [1.0, 2.0, 3.0, 4.0], "all are answered with one depth"),
        ([1.0, 2.0, 3.0, 4.0], [3.0, 3.0, 3.0, 3.0], "do not tell a scale"),
        ([1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0], "check that x counts columns"),
        ([1.0, 2.0, 3.0], [1.0, 9.0, 2.0], "do not tell a scale"),
        ([1.0, 2.0, math.nan], [1.0, 2.0, 3.0], "no number"),
    ],
)
def test_points_that_do_not_tell_are_refused(found, metres, message):
    with pytest.raises(UserError, match=message):
        fit_known(DEPTH, found, points(metres))


def test_both_forms_of_a_file_say_the_same(tmp_path):
    (tmp_path / "a.csv").write_text("picture, x, y, metres\np/a.png, 3, 4.5, 2.5\nb.png,0,0,7\n")
    lines = [{"picture": "p/a.png", "x": 3, "y": 4.5, "metres": 2.5}, {"picture": "b.png"}]
    lines[1] |= {"x": 0, "y": 0, "metres": 7, "note": "the door"}
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    first, second = (read_known(tmp_path / name) for name in ("a.csv", "a.jsonl"))
    strip = [(one.picture, one.x, one.y, one.metres) for one in first]
    assert strip == [(one.picture, one.x, one.y, one.metres) for one in second]
    assert strip[0] == (tmp_path / "p" / "a.png", 3, 4.5, 2.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y,metres\n1,2,3\n", "names no picture"),
        ("picture,x,y,metres\na,1,2,-3\n", ":2: 'metres' is -3"),
        ("picture,x,y,metres\na,1,2,3\na,one,2,3\n", ":3: 'x' is missing, or no number"),
        ("picture,x,y,metres\na,1,2\n", ":2: 'metres' is missing"),
        ("picture,x,y,metres\na,1,2,3\nb,1,2,3\na,1,2,4\n", ":4: the point of .*:2 again"),
        ('{"picture": "a", "x": 1, "y": 2}\n', ":1: 'metres' is missing"),
        ('{"picture": 3, "x": 1, "y": 2, "metres": 1}\n', ":1: 'picture' is missing"),
        ('{"picture": "a"\n', ":1: not JSON"),
        ("", "names no picture, x, y, metres"),
    ],
)
def test_a_line_that_cannot_be_is_named(text, message, tmp_path):
    (tmp_path / "known").write_text(text)
    with pytest.raises(DataFormatError, match=message):
        read_known(tmp_path / "known")


@pytest.fixture
def run(lab, tmp_path) -> Path:
    """A run folder with a model of random weights, and pictures in `tmp_path`."""
    pipeline = lab.pipeline(lab.config(("depth", "flow"), precision="float32"), statistics=False)
    meta = {"sizes": {task: [16, 16] for task in pipeline.tasks}, "images_seen": 1}
    checkpoint.write(
        tmp_path / "run" / "checkpoints",
        1,
        config=pipeline.config,
        meta=meta,
        tensors={checkpoint.BACKBONE: dict(pipeline.net.state_dict()), checkpoint.STATISTICS: {}},
    )
    draw = np.random.default_rng(5)
    for name in ("a", "b"):
        pixels = draw.integers(0, 256, (24, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    return tmp_path / "run"


def known_file(run: Path, how: dict[str, Any]) -> Path:
    """Distances that are planted over what the model answers."""
    home, pipeline = run.parent, DensePipeline.from_pretrained(run)
    rows = ["picture,x,y,metres"]
    for name in ("a", "b"):
        depth = pipeline(home / f"{name}.png", "depth", **how).values[0, 0]
        for x, y in ((2, 3), (20, 5), (11, 18), (28, 22)):
            metres = math.exp(SCALE * math.log(depth[y, x]) + SHIFT)
            rows.append(f"{name}.png,{x},{y},{metres:.6f}")
    (home / "known.csv").write_text("\n".join(rows))
    return home / "known.csv"


def test_a_calibrated_checkpoint_answers_in_metres(run, capsys, tmp_path):
    before = DensePipeline.from_pretrained(run)
    relative = before(tmp_path / "a.png", "depth").values
    assert before.task("depth").unit != "metres"
    file = known_file(run, {})
    arguments = ["calibrate", "--checkpoint", str(run), "--known", str(file)]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "depth is in metres by scale 1.3 [" in said and "8 distances in 2 pictures" in said
    saved = checkpoint.read(run)  # which compares every file with its sha256
    record = saved.meta["metric"]["depth"]
    assert record["scale"] == pytest.approx(SCALE, rel=1e-3)
    after = DensePipeline.from_pretrained(run)
    found = after(tmp_path / "a.png", "depth")
    torch.testing.assert_close(
        found.values, (relative.log() * SCALE + SHIFT).exp(), rtol=1e-3, atol=0
    )
    assert after.task("depth").unit == "metres"
    assert DensePipeline.from_pretrained(run, weights="ema").metric == saved.meta["metric"]
    assert main(arguments) == 0  # again: of the model's own answers, not of the calibrated ones
    assert checkpoint.read(run).meta["metric"]["depth"]["scale"] == pytest.approx(SCALE, rel=1e-3)
    assert main(["calibrate", "--checkpoint", str(run), "--remove"]) == 0
    assert torch.equal(
        DensePipeline.from_pretrained(run)(tmp_path / "a.png", "depth").values, relative
    )


def test_what_is_predicted_says_so_in_its_manifest(run, tmp_path, capsys):
    file = known_file(run, {})
    assert main(["calibrate", "--checkpoint", str(run), "--known", str(file)]) == 0
    out = tmp_path / "out"
    arguments = ["predict", "--checkpoint", str(run), "--save", "npy", "--out", str(out)]
    assert main([*arguments, str(tmp_path / "a.png")]) == 0
    (manifest,) = (json.loads(path.read_text()) for path in out.rglob("manifest*.json"))
    said = manifest["tasks"]["depth"]
    assert said["metric"]["points"] == 8 and said["unit"] == "metres"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "give --known FILE, or --remove"),
        (("--known", "known.csv", "--remove"), "give --known FILE, or --remove"),
        (("--known", "known.csv", "--task", "flow"), "its answers are .*, not depth"),
        (("--known", "known.csv", "--task", "depht"), "--task depht.*Did you mean 'depth'"),
        (("--known", "far.csv"), r"far.csv:2: \(30, 1\) lies outside of a.png, which has 30 x 24"),
    ],
)
def test_what_cannot_be_calibrated(flags, message, run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "far.csv").write_text("picture,x,y,metres\na.png,30,1,2\n")
    (tmp_path / "known.csv").write_text("picture,x,y,metres\na.png,3,1,2\n")
    assert main(["calibrate", "--checkpoint", str(run), *flags]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert "metric" not in checkpoint.read(run).meta


def test_each_picture_is_answered_once(run, tmp_path):
    pipeline = DensePipeline.from_pretrained(run)
    seen = []
    hook = pipeline.net.register_forward_pre_hook(lambda *_: seen.append(1))
    path = tmp_path / "a.png"
    some = [Known(path, x, 1, 1.0, "f") for x in (1, 2, 3)]
    found = predicted(pipeline, "depth", some, nfe=1)
    hook.remove()
    assert len(seen) == 1 and len(found) == 3
