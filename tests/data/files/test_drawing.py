"""Samples as pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stepsight.colours import HIDDEN, NOTHING, VISIBLE, VOID
from stepsight.data.drawing import draw
from stepsight.data.quantities.painting import CLOSER, FARTHER
from stepsight.types import Sample


def colour(picture: torch.Tensor, row: int, column: int) -> tuple[int, ...]:
    return tuple(picture[:, row, column].tolist())


def pictures_of(sample: Sample) -> dict[str, torch.Tensor]:
    return {name: drawn.picture for name, drawn in draw(sample).items()}


def test_every_truth_is_drawn_at_the_size_of_the_image(full_sample):
    sample = full_sample(0, 30, 40)
    sample = replace(
        sample,
        instances=sample.labels % 3,
        occluded=~sample.flow_valid,
        order=torch.tensor([[6, 7, 20, 30]]),
    )
    pictures = pictures_of(sample)
    names = "image second depth flow occluded labels instances amodal whole normals order"
    assert list(pictures) == names.split()
    for picture in pictures.values():
        assert picture.dtype == torch.uint8 and picture.shape == (3, 30, 40)
    assert colour(pictures["order"], 6, 7) == CLOSER
    assert colour(pictures["order"], 20, 30) == FARTHER


def test_what_is_not_known_is_grey(full_sample):
    sample = full_sample(0, 30, 40)
    sample = replace(sample, instances=sample.labels % 3 - 1)
    pictures = pictures_of(sample)
    grey = torch.tensor(VOID, dtype=torch.uint8)[:, None, None]
    for name, valid in {
        "depth": sample.depth_valid[0],
        "flow": sample.flow_valid[0],
        "normals": sample.normals_valid[0],
        "labels": sample.labels != 255,
        "instances": sample.instances > 0,
    }.items():
        assert torch.equal((pictures[name] == grey).all(0), ~valid), name


def test_what_colours_mean_is_said_of_this_very_sample(full_sample):
    sample = full_sample(0, 30, 40)
    keys = {name: drawn.key for name, drawn in draw(sample).items()}
    known = sample.depth[sample.depth_valid]
    low, high = known.quantile(0.02).item(), known.quantile(0.98).item()
    assert (keys["depth"].low, keys["depth"].high) == pytest.approx((low, high), rel=1e-4)
    longest = torch.where(sample.flow_valid, sample.flow, 0.0).norm(dim=0).max()
    assert keys["flow"].high == pytest.approx(float(longest), rel=1e-5)
    classes = {f"class {label}" for label in sample.labels.unique().tolist() if label != 255}
    assert {entry.name for entry in keys["labels"].classes} == classes
    assert keys["image"] is None and keys["normals"] and keys["amodal"].kind == "mask"


def test_hidden_parts_have_a_colour_of_their_own(full_sample):
    sample = full_sample(1, 4, 4)
    modal, amodal = torch.zeros(1, 4, 4).bool(), torch.zeros(1, 4, 4).bool()
    modal[0, 0, 0] = amodal[0, 0, :2] = True
    picture = draw(replace(sample, modal=modal, amodal=amodal))["amodal"].picture
    assert [colour(picture, 0, n) for n in range(3)] == [VISIBLE, HIDDEN, NOTHING]


def test_large_samples_are_shrunk_and_small_ones_kept(full_sample):
    assert draw(full_sample(0, 30, 40), 20)["flow"].picture.shape == (3, 15, 20)
    assert draw(full_sample(0, 30, 40), 50)["flow"].picture.shape == (3, 30, 40)
    assert draw(full_sample(0, 1, 100), 10)["depth"].picture.shape == (3, 1, 10)


def test_objects_of_one_class_differ_in_colour(full_sample):
    sample = full_sample(0, 1, 4)
    labels, instances = torch.zeros(1, 4).long(), torch.tensor([[1, 2, 3, 4]])
    picture = draw(replace(sample, labels=labels, instances=instances))["instances"].picture
    assert len({colour(picture, 0, n) for n in range(4)}) == 4
