"""Resizing: each quantity by its own rule, on odd and non-square sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stepsight.data.quantities.grids import resize_field, scale_flow
from stepsight.data.resize import resize_sample
from stepsight.types import IGNORE, Sample

SIZES = [((6, 10), (3, 5)), ((7, 13), (5, 4)), ((5, 9), (11, 20)), ((9, 6), (4, 15))]


def blank(height, width, **quantities):
    return Sample(torch.zeros(3, height, width, dtype=torch.uint8), "a", "test", **quantities)


def flow_sample(flow, valid=None):
    valid = torch.ones_like(flow[:1], dtype=torch.bool) if valid is None else valid
    return blank(*flow.shape[-2:], flow=flow, flow_valid=valid)


def test_same_size_is_the_same_sample(full_sample):
    sample = full_sample()
    assert resize_sample(sample, (6, 10)) is sample


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_shapes_types_and_containment(full_sample, old, new):
    sample = full_sample(1, *old)
    resized = resize_sample(sample, new)
    for field in ("image", "second", "whole", "depth", "flow", "labels", "modal", "normals"):
        before, after = getattr(sample, field), getattr(resized, field)
        assert after.dtype == before.dtype and after.shape == (*before.shape[:-2], *new), field
    assert not (resized.modal & ~resized.amodal).any()
    assert (resized.key, resized.class_id) == (sample.key, sample.class_id)
    assert sample.flow.shape[-2:] == old  # the original is left as it was


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_flow_scales_by_its_own_axes_in_every_row(old, new):
    flow = torch.tensor([3.0, -5.0])[:, None, None].expand(2, *old).clone()
    resized = resize_sample(flow_sample(flow), new).flow
    expected = torch.tensor([3.0 * new[1] / old[1], -5.0 * new[0] / old[0]])
    torch.testing.assert_close(resized, expected[:, None, None].expand(2, *new))


def test_dense_flow_shrinks_to_block_means():
    flow = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    means = flow.reshape(2, 3, 2, 2, 4).mean(dim=(2, 4))
    expected = means * torch.tensor([1 / 4, 1 / 2])[:, None, None]
    torch.testing.assert_close(resize_sample(flow_sample(flow), (3, 2)).flow, expected)


@pytest.mark.parametrize("junk", [1.6666668e9, float("inf"), float("nan")])
def test_sparse_flow_is_averaged_only_where_all_of_a_block_is_valid(junk):
    rng = torch.Generator().manual_seed(0)
    flow = torch.randn(2, 12, 12, generator=rng)
    valid = torch.rand(1, 12, 12, generator=rng) < 0.5
    valid[:, :3, :6] = True
    resized = resize_sample(flow_sample(torch.where(valid, flow, junk), valid), (4, 4))
    for row in range(4):
        for column in range(4):
            block = (slice(None), slice(3 * row, 3 * row + 3), slice(3 * column, 3 * column + 3))
            centre = (slice(None), 3 * row + 1, 3 * column + 1)
            assert resized.flow_valid[0, row, column] == valid[centre]
            picked = flow[centre] if valid[centre] else torch.zeros(2)
            expected = flow[block].mean(dim=(1, 2)) if valid[block].all() else picked
            torch.testing.assert_close(resized.flow[:, row, column], expected / 3)


@pytest.mark.parametrize("quantity", ["flow", "normals"])
def test_nothing_is_mixed_across_an_invalid_pixel(quantity):
    """Two walls with a hole between: at every size, only what either wall has."""
    channels = 2 if quantity == "flow" else 3
    vectors = torch.zeros(channels, 1, 3)
    vectors[0, 0, 0] = vectors[1, 0, 2] = 1
    valid = torch.tensor([[[True, False, True]]])
    sample = blank(1, 3, **{quantity: vectors, f"{quantity}_valid": valid})
    for width in (1, 2, 4, 5, 7, 12):
        resized = resize_sample(sample, (1, width))
        vectors, known = getattr(resized, quantity), getattr(resized, f"{quantity}_valid")
        centres = [(2 * i + 1) * 3 // (2 * width) for i in range(width)]
        assert known[0, 0].tolist() == [centre != 1 for centre in centres]
        assert ((vectors[0] == 0) | (vectors[1] == 0)).all()
        assert ((vectors != 0).any(dim=0) == known[0]).all()


def test_enlarged_flow_does_not_spread_into_invalid_pixels():
    flow = torch.tensor([[[4.0, 9e9]], [[2.0, 9e9]]])
    resized = resize_sample(flow_sample(flow, torch.tensor([[[True, False]]])), (2, 8))
    assert resized.flow_valid[0].tolist() == [[True] * 4 + [False] * 4] * 2
    assert resized.flow[0, 0].tolist() == [16] * 4 + [0] * 4
    assert resized.flow[1, 0].tolist() == [4] * 4 + [0] * 4


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_depth_and_labels_are_picked_not_mixed(full_sample, old, new):
    sample = full_sample(2, *old)
    sample.depth = torch.where(sample.depth_valid, sample.depth, -1.0)
    resized = resize_sample(sample, new)
    assert torch.equal(resized.depth >= 0, resized.depth_valid)
    for name in ("depth", "labels"):
        plane = getattr(sample, name).float().reshape(1, 1, *old)
        expected = F.interpolate(plane, new, mode="nearest-exact").flatten()
        assert torch.equal(getattr(resized, name).float().flatten(), expected)


def test_ignored_labels_stay_ignored():
    labels = torch.full((4, 4), IGNORE)
    labels[:, 2:] = 7
    assert set(resize_sample(blank(4, 4, labels=labels), (3, 3)).labels.unique().tolist()) == {
        7,
        255,
    }


def test_pictures_are_smoothed_before_they_shrink():
    """One bright pixel in 16, off the new centres, still counts for a sixteenth everywhere."""
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    image[:, ::4, ::4] = 255
    resized = resize_sample(Sample(image, "a", "test", second=image, whole=image), (8, 8))
    for picture in (resized.image, resized.second, resized.whole):
        assert picture[:, 1:-1, 1:-1].unique().tolist() == [16]


def test_constant_pictures_stay_constant():
    sample = Sample(torch.full((3, 7, 13), 201, dtype=torch.uint8), "a", "test")
    for size in ((3, 5), (20, 14)):
        assert resize_sample(sample, size).image.unique().tolist() == [201]


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_normals_keep_their_length(full_sample, old, new):
    resized = resize_sample(full_sample(3, *old), new)
    lengths = resized.normals.norm(dim=0, keepdim=True)
    valid = resized.normals_valid
    torch.testing.assert_close(lengths[valid], torch.ones(int(valid.sum())))
    assert (lengths[~valid] == 0).all()


def test_predictions_return_to_the_native_size():
    """A ramp survives bilinear enlargement away from the borders; constants survive everywhere."""
    x = torch.arange(8.0).expand(1, 2, 4, 8)
    big = resize_field(x, (8, 16))
    torch.testing.assert_close(big[0, 0, 0, 1:-1], torch.arange(14) / 2 + 0.25)
    same = resize_field(torch.full((1, 1, 5, 7), 2.5), (3, 9))
    torch.testing.assert_close(same, torch.full((1, 1, 3, 9), 2.5))
    labels = torch.arange(6.0).reshape(1, 1, 2, 3)
    picked = resize_field(labels, (4, 6), "nearest-exact")
    assert picked[0, 0].tolist() == np.kron(labels[0, 0], np.ones((2, 2))).tolist()


def test_scaling_flow_there_and_back():
    flow = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    there = scale_flow(flow, (384, 512), (64, 256))
    torch.testing.assert_close(there[:, 0], flow[:, 0] / 2)
    torch.testing.assert_close(there[:, 1], flow[:, 1] / 6)
    torch.testing.assert_close(scale_flow(there, (64, 256), (384, 512)), flow)
