"""Crops and scored regions: the published pixel numbers, and sizes they do not fit."""

import pytest
import torch

from stepsight.errors import UserError
from stepsight.metrics.masks.regions import region, window


def edges(mask):
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    box = (int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
    assert mask.sum() == (box[1] - box[0]) * (box[3] - box[2])  # a full rectangle
    return box


@pytest.mark.parametrize(
    "mask,size,expected",
    [
        ("garg", (352, 1216), (143, 349, 43, 1172)),
        ("eigen", (352, 1216), (117, 321, 43, 1172)),
        ("garg", (375, 1242), (153, 371, 44, 1197)),  # the full frame of monodepth2
        ("nyu", (480, 640), (45, 471, 41, 601)),
        ("none", (5, 7), (0, 5, 0, 7)),
    ],
)
def test_published_regions(mask, size, expected):
    assert edges(region(mask, *size)) == expected


@pytest.mark.parametrize(
    "size,expected", [((375, 1242), (23, 13, 352, 1216)), ((370, 1224), (18, 4, 352, 1216))]
)
def test_the_benchmark_crop_keeps_the_bottom_and_the_middle(size, expected):
    assert window("kitti_benchmark", *size) == expected
    assert window("none", *size) == (0, 0, *size)


def test_other_sizes_are_refused_with_what_fits():
    with pytest.raises(UserError, match="352 x 1216.*300 x 1242"):
        window("kitti_benchmark", 300, 1242)
    with pytest.raises(UserError, match="480 x 640.*240 x 320"):
        region("nyu", 240, 320)


def test_a_region_moves_no_pixel_outside_the_image():
    assert torch.equal(region("none", 3, 4), torch.ones(3, 4, dtype=torch.bool))
