"""Samples as pictures."""

from __future__ import annotations

from dataclasses import replace

import torch

from stepsight.colours import HIDDEN, NOTHING, VISIBLE, VOID
from stepsight.data.drawing import draw
from stepsight.data.quantities.painting import CLOSER, FARTHER


def colour(picture: torch.Tensor, row: int, column: int) -> tuple[int, ...]:
    return tuple(picture[:, row, column].tolist())


def test_every_truth_is_drawn_at_the_size_of_the_image(full_sample):
    sample = full_sample(0, 30, 40)
    sample = replace(
        sample,
        instances=sample.labels % 3,
        occluded=~sample.flow_valid,
        order=torch.tensor([[6, 7, 20, 30]]),
    )
    pictures = draw(sample)
    names = "image second depth flow occluded labels instances amodal whole normals order"
    assert list(pictures) == names.split()
    for picture in pictures.values():
        assert picture.dtype == torch.uint8 and picture.shape == (3, 30, 40)
    assert colour(pictures["order"], 6, 7) == CLOSER
    assert colour(pictures["order"], 20, 30) == FARTHER


def test_what_is_not_known_is_grey(full_sample):
    sample = full_sample(0, 30, 40)
    sample = replace(sample, instances=sample.labels % 3 - 1)
    pictures = draw(sample)
    grey = torch.tensor(VOID, dtype=torch.uint8)[:, None, None]
    for name, valid in {
        "depth": sample.depth_valid[0],
        "flow": sample.flow_valid[0],
        "normals": sample.normals_valid[0],
        "labels": sample.labels != 255,
        "instances": sample.instances > 0,
    }.items():
        assert torch.equal((pictures[name] == grey).all(0), ~valid), name


def test_hidden_parts_have_a_colour_of_their_own(full_sample):
    sample = full_sample(1, 4, 4)
    modal, amodal = torch.zeros(1, 4, 4).bool(), torch.zeros(1, 4, 4).bool()
    modal[0, 0, 0] = amodal[0, 0, :2] = True
    picture = draw(replace(sample, modal=modal, amodal=amodal))["amodal"]
    assert [colour(picture, 0, n) for n in range(3)] == [VISIBLE, HIDDEN, NOTHING]


def test_large_samples_are_shrunk_and_small_ones_kept(full_sample):
    assert draw(full_sample(0, 30, 40), 20)["flow"].shape == (3, 15, 20)
    assert draw(full_sample(0, 30, 40), 50)["flow"].shape == (3, 30, 40)
    assert draw(full_sample(0, 1, 100), 10)["depth"].shape == (3, 1, 10)


def test_objects_of_one_class_differ_in_colour(full_sample):
    sample = full_sample(0, 1, 4)
    labels, instances = torch.zeros(1, 4).long(), torch.tensor([[1, 2, 3, 4]])
    picture = draw(replace(sample, labels=labels, instances=instances))["instances"]
    assert len({colour(picture, 0, n) for n in range(4)}) == 4
