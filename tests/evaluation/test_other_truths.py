"""Protocols whose truth is not the task's own: order of points, and panoptic segments."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from writers import write_ids

from stepsight.errors import UserError
from stepsight.evaluation.evaluate import evaluate_jobs
from stepsight.evaluation.jobs import ScoringJob
from stepsight.evaluation.predictions.imported import Imported, truth_of
from stepsight.evaluation.predictors import Model
from stepsight.evaluation.sources import pick_sources
from stepsight.metrics import protocol as protocols
from stepsight.types import Sample


@dataclass
class Listed:
    """A source of given samples."""

    listed: list[Sample]
    quantities: frozenset[str]
    classes: tuple[str, ...] = ()
    name: str = "da2k"
    size: tuple[int, int] = (16, 16)
    categories: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.listed)

    def __getitem__(self, index: int) -> Sample:
        return self.listed[index]

    def samples(self, indices) -> list[Sample]:
        return [self.listed[index] for index in indices]


def picture(key: str, **truth: torch.Tensor) -> Sample:
    image = torch.full((3, 16, 16), 100, dtype=torch.uint8)
    return Sample(image=image, key=key, source="da2k", **truth)


@pytest.fixture
def points() -> Listed:
    """The upper rows are nearer: one image with two pairs, one with three."""
    pairs = torch.tensor([[1, 2, 14, 3], [0, 0, 15, 15], [3, 9, 12, 1]])
    samples = [picture("a", order=pairs[:2]), picture("b", order=pairs)]
    return Listed(samples, frozenset({"order"}))


def test_a_model_is_scored_on_the_order_of_points_alone(lab, points, tmp_path):
    pipeline, rule = lab.pipeline(), protocols.get("da2k")
    assert pick_sources(pipeline, {"da2k": points}, ["depth"], {"depth": [rule]}) == {
        "depth": points
    }
    with pytest.raises(UserError, match="task depth needs order; scenes has none"):
        held = {"scenes": lab.Source(quantities=frozenset({"depth"}))}
        pick_sources(pipeline, held, ["depth"], {"depth": [rule]})
    model = Model(pipeline, "depth", [1], [2], "ddim", keep=True)
    (found,) = evaluate_jobs(tmp_path, [ScoringJob(model, points, [rule], range(2))])
    assert found.metric == "ordering" and 0 <= found.metrics["ordering"] <= 1
    assert found.baselines["constant"]["ordering"] == 0  # equal depths are wrong
    assert found.ceiling is None and found.uncertainty == {}
    assert (tmp_path / "panels/depth.json").exists()


def test_imported_disparity_that_falls_with_the_row_orders_every_pair(points, tmp_path):
    ramp = np.linspace(2, 1, 16, dtype=np.float32)[:, None].repeat(16, 1)
    for key in "ab":
        np.save(tmp_path / f"{key}.npy", ramp)
    files = {key: tmp_path / f"{key}.npy" for key in "ab"}
    for given, expected in (("disparity", 1.0), ("depth", 0.0)):
        predictor = Imported("depth", tmp_path, files, given=given)
        job = ScoringJob(predictor, points, [protocols.get("da2k")], range(2))
        (found,) = evaluate_jobs(tmp_path / given, [job])
        assert found.metrics["ordering"] == expected


def segments(folder: Path, shift: int) -> tuple[Imported, Listed]:
    """Two things on stuff; the prediction is moved to the right."""
    labels, instances = torch.zeros(16, 16).long(), torch.zeros(16, 16).long()
    labels[2:8, 2:8], instances[2:8, 2:8] = 1, 1
    labels[9:15, 2:8], instances[9:15, 2:8] = 1, 2
    source = Listed(
        [picture("a", labels=labels, instances=instances)],
        frozenset({"labels", "instances"}),
        ("wall", "chair"),
        "rooms",
    )
    write_ids(folder / "a.png", (1000 * labels + instances).roll(shift, dims=1)[None])
    return Imported("panoptic", folder, {"a": folder / "a.png"}, classes=2), source


@pytest.mark.parametrize("shift", [0, 4])
def test_panoptic_ids_are_matched_with_the_truths_segments(tmp_path, shift):
    """Moved by 4 of 6 columns no thing matches (IoU 1/5), the wall does."""
    predictor, source = segments(tmp_path, shift)
    rule = protocols.get("pq")
    assert truth_of("panoptic", rule) == source.quantities
    (found,) = evaluate_jobs(tmp_path / "out", [ScoringJob(predictor, source, [rule], range(1))])
    wall = 1.0 if shift == 0 else (256 - 72 - 48) / (256 - 72 + 48)
    assert found.metric == "pq"
    assert found.metrics["pq"] == pytest.approx((wall + (shift == 0)) / 2)
