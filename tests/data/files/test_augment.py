"""The mirror."""

from __future__ import annotations

import torch

from stepsight.data.augment import flip
from stepsight.types import Sample


def test_twice_is_the_identity(full_sample, assert_same):
    for seed in range(3):
        sample = full_sample(seed, 5, 7)
        assert_same(flip(flip(sample)), sample)


def test_the_original_is_left_alone(full_sample, assert_same):
    sample = full_sample(0)
    flip(sample)
    assert_same(sample, full_sample(0))


def test_everything_is_mirrored_and_horizontal_components_change_sign(full_sample):
    sample, mirrored = full_sample(1), flip(full_sample(1))
    for name in ("image", "second", "whole", "depth", "depth_valid", "labels", "modal"):
        assert torch.equal(getattr(mirrored, name), getattr(sample, name).flip(-1)), name
    assert mirrored.class_id == sample.class_id == 1
    for name in ("flow", "normals"):
        before, after = getattr(sample, name).flip(-1), getattr(mirrored, name)
        assert torch.equal(after[0], -before[0]) and torch.equal(after[1:], before[1:]), name


def test_mirrored_flow_still_leads_to_the_second_frame():
    image = torch.randint(256, (3, 8, 12), generator=torch.Generator().manual_seed(0)).byte()
    flow = torch.tensor([2.0, 1.0])[:, None, None].expand(2, 8, 12)
    second = image.roll((1, 2), dims=(1, 2))
    sample = flip(Sample(image, "a", "test", second=second, flow=flow))
    y, x = torch.meshgrid(torch.arange(7), torch.arange(2, 12), indexing="ij")
    u, v = sample.flow[:, y, x].long()
    assert torch.equal(sample.second[:, y + v, x + u], sample.image[:, y, x])
