"""Perfect predictions in every wrong guise are spoken of, honest ones are not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from stepsight.data.config import ScenesSettings
from stepsight.data.decoding.labels import CITYSCAPES_IDS
from stepsight.data.scenes.source import Scenes
from stepsight.evaluation.predictions.files import find_files
from stepsight.evaluation.predictions.imported import Imported
from stepsight.evaluation.predictions.readings import BetterReading, falling, tried
from stepsight.evaluation.predictions.remarks import remarks_on
from stepsight.metrics import protocol as protocols
from stepsight.types import Sample

IMAGES = 3
Writing = Callable[[Sample], Tensor]


@pytest.fixture(scope="module")
def scenes() -> list[Sample]:
    return Scenes(ScenesSettings(size=(48, 48)), "eval").samples(range(IMAGES))


class Listed:
    """Samples as a source."""

    name, size, classes = "scenes", (48, 48), Scenes.classes
    quantities = frozenset({"depth", "flow", "labels", "amodal", "normals"})

    def __init__(self, samples: list[Sample]) -> None:
        self.kept = samples

    def samples(self, indices) -> list[Sample]:
        return [self.kept[index] for index in indices]


def imported(folder: Path, scenes: list[Sample], task: str, write: Writing, **options) -> Imported:
    for sample in scenes:
        np.save(folder / f"{sample.key}.npy", write(sample).numpy())
    keys = [sample.key for sample in scenes]
    files = find_files(folder, keys)
    return Imported(task, folder, files, classes=len(Scenes.classes), **options)


def read_otherwise(
    folder: Path, scenes: list[Sample], task: str, write: Writing, protocol: str = "", **options
) -> BetterReading | None:
    rule = protocols.get(protocol) if protocol else protocols.default_for(task)
    predictor = imported(folder, scenes, task, write, **options)
    return tried(predictor, Listed(scenes), rule, range(IMAGES))  # type: ignore[arg-type]


def depth(change: Callable[[Tensor], Tensor]) -> Writing:
    """Of the true depth, on which sky lies far away."""
    return lambda s: change(torch.where(s.depth_valid, s.depth, 60.0))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("task", "protocol", "write", "words"),
    [
        ("depth", "depth-metric", depth(lambda z: z * 1000), ("divided by 1000", "--scale 1e+06")),
        ("depth", "depth-metric", depth(lambda z: z * 256), ("divided by 256",)),
        ("depth", "depth-metric", depth(lambda z: z / 100), ("times 100", "--scale 10")),
        ("depth", "depth-metric", depth(lambda z: 1 / z), ("as disparity", "--given disparity")),
        ("depth", "depth-metric", depth(lambda z: z.log()), ("as log depth", "--given log")),
        ("depth", "depth-affine", depth(lambda z: 1 / z), ("as disparity", "--given disparity")),
        ("depth", "depth-affine", depth(lambda z: z.flip(-1)), ("mirrored left to right",)),
        ("depth", "depth-affine", depth(lambda z: z.flip(-2)), ("upside down",)),
        ("depth", "depth-affine", depth(lambda z: z.mT), ("rows and columns exchanged",)),
        ("depth", "depth-affine", depth(lambda z: z.roll(1, -1)), ("+0 rows down and -1 columns",)),
        ("depth", "depth-affine", depth(lambda z: z.roll((1, 1), (-2, -1))), ("moved by", "row")),
        ("flow", "", lambda s: s.flow.flip(0), ("u and v swapped", "EPE")),
        ("flow", "", lambda s: -s.flow, ("both signs turned",)),
        ("flow", "", lambda s: s.flow * torch.tensor([1, -1])[:, None, None], ("sign of v",)),
        ("flow", "", lambda s: s.flow / 48, ("as shares of the width",)),
        ("flow", "", lambda s: s.flow * 20, ("divided by 20",)),
        ("semantic", "", lambda s: s.labels + 1, ("with ids from 1", "--codes 1..")),
        ("semantic", "", lambda s: s.labels - 1, ("with 1 added", "as given they cannot")),
        ("semantic", "", lambda s: s.labels.flip(-1), ("mirrored left to right",)),
        ("amodal", "", lambda s: ~s.amodal, ("inside and outside swapped",)),
        ("amodal", "", lambda s: s.amodal / 255, ("all above 0 as inside",)),
        ("normals", "", lambda s: -s.normals, ("all signs turned",)),
        ("normals", "", lambda s: s.normals * torch.tensor([1, -1, -1])[:, None, None], ("y up",)),
        ("normals", "", lambda s: s.normals.flip(0), ("z, y, x",)),
    ],
)
def test_a_wrong_guise_is_told(tmp_path, scenes, task, protocol, write, words):
    found = read_otherwise(tmp_path, scenes, task, write, protocol)
    assert found is not None and found.images == IMAGES
    said = str(found)
    assert all(word in said for word in words), said
    assert said.startswith("these predictions would score ") and "given" in said


def test_cityscapes_ids_are_known_by_having_no_class(tmp_path, scenes):
    ids = torch.tensor([*CITYSCAPES_IDS.values()])
    city = [dataclasses.replace(s, labels=s.labels * 3) for s in scenes]  # type: ignore[operator]
    predictor = imported(tmp_path, city, "semantic", lambda s: ids[s.labels])
    predictor = dataclasses.replace(predictor, classes=19)
    rule = protocols.default_for("semantic")
    found = tried(predictor, Listed(city), rule, range(IMAGES))  # type: ignore[arg-type]
    assert found and found.reading.codes == "cityscapes" and found.value == 1
    assert "as given they cannot be scored" in str(found) and "--codes cityscapes" in str(found)


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize(
    ("task", "write"),
    [
        ("depth", depth(lambda z: z)),
        ("flow", lambda s: s.flow),
        ("semantic", lambda s: s.labels),
        ("amodal", lambda s: s.amodal),
        ("normals", lambda s: s.normals),
    ],
)
def test_honest_predictions_are_left_alone(tmp_path, scenes, task, write, noise):
    draw = torch.Generator().manual_seed(0)

    def noisy(sample: Sample) -> Tensor:
        values = write(sample)
        if values.is_floating_point():
            return values * (1 + noise * torch.randn(values.shape, generator=draw)).clamp(min=0.1)
        wrong = torch.rand(values.shape, generator=draw) < noise
        return torch.where(wrong, torch.zeros_like(values), values)

    names = ("depth-metric", "depth-affine", "depth-affine-log") if task == "depth" else ("",)
    for name in names:
        assert read_otherwise(tmp_path, scenes, task, noisy, name) is None


@pytest.mark.parametrize(
    "write", [depth(lambda z: z * 0 + 3), depth(lambda z: 3 + torch.rand(z.shape))]
)
def test_bad_predictions_are_not_explained_away(tmp_path, scenes, write):
    assert read_otherwise(tmp_path, scenes, "depth", write, "depth-affine") is None


def test_where_scale_is_fitted_nothing_is_said_of_units(tmp_path, scenes):
    write = depth(lambda z: 1000 * z)
    assert read_otherwise(tmp_path, scenes, "depth", write, "depth-affine") is None
    assert read_otherwise(tmp_path, scenes, "depth", write, "monodepth2") is None


def test_a_fit_that_turns_predictions_around_is_told(tmp_path, scenes):
    rule, source = protocols.get("depth-affine-log"), Listed(scenes)
    told = [
        falling(imported(tmp_path, scenes, "depth", write, **options), source, rule, range(IMAGES))  # type: ignore[arg-type]
        for write, options in (
            (depth(lambda z: 1 / z), {}),
            (depth(lambda z: 1 / z), {"given": "disparity"}),
            (depth(lambda z: z), {}),
            (depth(lambda z: z * 0 + 1), {}),
        )
    ]
    assert told[0] and "say --given disparity" in told[0] and told[1:] == [None] * 3


def test_the_rules_of_samples_hold_for_predictions(tmp_path, scenes):
    rule, source = protocols.get("depth-metric"), Listed(scenes)

    def said(task: str, write: Writing) -> list[str]:
        protocol = rule if task == "depth" else protocols.default_for(task)
        predictor = imported(tmp_path, scenes, task, write)
        found = remarks_on(predictor, source, protocol, range(IMAGES))  # type: ignore[arg-type]
        return [remark.rule for remark in found]

    assert said("depth", depth(lambda z: (z * 1000).round())) == ["far", "whole numbers"]
    assert said("depth", depth(lambda z: 1 / z)) == ["inverted"]
    assert said("flow", lambda s: s.flow.flip(0)) == ["misread"]  # type: ignore[union-attr]
    assert said("amodal", lambda s: s.amodal & False) == ["filled"]  # type: ignore[operator]
    assert said("depth", depth(lambda z: z)) == said("flow", lambda s: s.flow) == []  # type: ignore[arg-type,return-value]


def test_a_protocol_of_other_truth_tries_nothing(tmp_path, scenes):
    protocol = dataclasses.replace(protocols.get("da2k"))
    predictor = imported(tmp_path, scenes, "depth", depth(lambda z: 1 / z))
    assert tried(predictor, Listed(scenes), protocol, range(IMAGES)) is None  # type: ignore[arg-type]
