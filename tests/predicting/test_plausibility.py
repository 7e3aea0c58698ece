"""What is predicted from, and what comes out, is held to the rules of samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stepsight.predicting.item import Item
from stepsight.predicting.plausibility import Answered, implausible

PICTURE = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)


def answered(values: torch.Tensor, name: str = "a", **files: Path) -> Answered:
    return Answered(Item(Path(f"{name}.png"), name, **files), PICTURE, values)


def test_answers_are_held_to_the_rules_of_their_task(model, tmp_path):
    Image.fromarray(PICTURE.permute(1, 2, 0).numpy()).save(tmp_path / "b.png")
    small = tmp_path / "small.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(small)
    amodal, flow = model.task("amodal"), model.task("flow")
    full = [answered(torch.ones(1, 16, 16), name) for name in "ab"]
    (remark,) = implausible(amodal, full)
    assert str(remark).startswith("2 of 2 samples (a, b): predicted the mask covers everything")
    far = torch.full((2, 16, 16), 1e3)
    alike, other = (
        [one.rule for one in implausible(flow, [answered(far, second=second)])]
        for second in (tmp_path / "b.png", small)
    )
    assert alike == ["two pictures", "long"] and other == ["long"]
    labels = torch.full((1, 16, 16), 99)
    assert [one.rule for one in implausible(model.task("semantic"), [answered(labels)])] == [
        "known labels"
    ]


def test_depth_is_judged_where_it_is_in_metres(model):
    depth = model.task("depth")
    negative = [answered(-torch.ones(1, 16, 16))]
    metric, relative = replace(depth, range="metric"), replace(depth, range="quantile")
    assert [one.rule for one in implausible(metric, negative)] == ["positive"]
    assert implausible(relative, negative) == []


def test_a_collection_says_it_once(picture, predict, tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(
        "stepsight.report.console.Console.warn", lambda self, text: said.append(text)
    )
    for name in ("x/a.png", "x/b.png"):
        path = picture(name)
        Image.fromarray(np.zeros((18, 24, 3), np.uint8)).save(path)
    predict(tmp_path / "x")
    assert [text for text in said if "one colour" in text] == [
        "2 of 2 samples (a, b): the picture is of one colour. Was it read as it should be?"
    ]
