"""What each task promises beyond what all of them do: ranges, units, names and exactness."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.errors import UserError
from stepsight.metrics.truth import require
from stepsight.seeding import generator
from stepsight.tasks.amodal import Amodal
from stepsight.tasks.base import resize
from stepsight.tasks.depth import Depth
from stepsight.tasks.flow import Flow
from stepsight.tasks.normals import Normals
from stepsight.tasks.semantic import Semantic
from stepsight.types import IGNORE, Batch


def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator("each task", *shape))


def batch(**truth: Tensor) -> Batch:
    first = next(iter(truth.values()))
    rows, (height, width) = len(first), first.shape[-2:]
    image = torch.zeros(rows, 3, height, width)
    return Batch(image, [f"key{row}" for row in range(rows)], ["toys"] * rows, **truth)


def known(x: Tensor) -> Tensor:
    return torch.ones_like(x[:, :1], dtype=torch.bool)


# ---------------------------------------------------------------------------- depth

CURVES = {
    "log": np.log,
    "inverse": lambda d: -1 / d,
    "linear": lambda d: d,
    "disparity": lambda d: 1 / d,
}


@pytest.mark.parametrize("space", CURVES)
def test_affine_depth_is_stretched_between_the_quantiles_of_each_image(space):
    """2 (y - a) / (b - a) - 1 with y = f(d), (a, b) its 2 % and 98 % quantiles, clipped."""
    depth = uniform(2, 1, 20, 31, low=0.5, high=40)
    depth[1] *= 3
    valid = uniform(2, 1, 20, 31, high=1.0) < 0.8
    x = Depth(space=space).encode(batch(depth=depth, depth_valid=valid)).x
    for row in range(2):
        y = CURVES[space](depth[row][valid[row]].double().numpy())
        a, b = np.quantile(y, [0.02, 0.98])
        expected = np.clip(2 * (y - a) / (b - a) - 1, -1, 1)
        np.testing.assert_allclose(x[row][valid[row]].numpy(), expected, atol=2e-5)
        assert (expected == -1).mean() == pytest.approx(0.02, abs=0.005)


@pytest.mark.parametrize("space", CURVES)
def test_affine_depth_comes_back_up_to_the_affine_map_between_the_quantiles(space):
    depth = uniform(1, 1, 15, 22, low=1, high=9)
    task = Depth(space=space)
    target = task.encode(batch(depth=depth, depth_valid=known(depth)))
    found = CURVES[space](task.decode(target.x).values.double().numpy()).ravel()
    truth = CURVES[space](depth.double().numpy()).ravel()
    inside = (target.x.abs() < 1).numpy().ravel()
    slope, offset = np.polyfit(truth[inside], found[inside], 1)
    assert slope > 0
    np.testing.assert_allclose(found[inside], slope * truth[inside] + offset, atol=1e-4)


@pytest.mark.parametrize("space", CURVES)
def test_metric_depth_comes_back_exactly_and_is_clipped_to_the_range(space):
    depth = torch.tensor([0.3, 1.3, 2.0, 5.5, 11.0, 80.0]).reshape(1, 1, 2, 3)
    task = Depth(space=space, range="metric")
    target = task.encode(batch(depth=depth, depth_valid=known(depth)))
    ends = [1, 1, -1, -1] if space == "disparity" else [-1, -1, 1, 1]
    assert target.x.flatten()[[0, 1, 4, 5]].tolist() == pytest.approx(ends, abs=1e-5)
    torch.testing.assert_close(
        task.decode(target.x).values, depth.clamp(1.3, 11.0), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("limits", ["quantile", "metric"])
@pytest.mark.parametrize("space", CURVES)
def test_near_is_minus_one_and_far_is_plus_one(space, limits):
    depth = torch.linspace(1.3, 11, 60).reshape(1, 1, 6, 10)
    task = Depth(space=space, range=limits)
    x = task.encode(batch(depth=depth, depth_valid=known(depth))).x.flatten()
    sign = -1 if space == "disparity" else 1
    assert (sign * x[[0, -1]]).tolist() == pytest.approx([-1, 1]) and (sign * x.diff() >= 0).all()
    values = task.decode(x.reshape(1, 1, 6, 10)).values.flatten()
    assert (values.diff() >= 0).all()
    torch.testing.assert_close(values[[0, -1]], torch.tensor([1.3, 11.0]))


def test_depth_that_is_the_same_everywhere_or_nowhere_known_stays_finite():
    depth = torch.full((2, 1, 4, 4), 3.0)
    valid = known(depth)
    valid[1] = False
    target = Depth().encode(batch(depth=depth, depth_valid=valid))
    assert target.x.isfinite().all() and (target.x[1] == 1).all()
    assert not target.valid[1].any()


@pytest.mark.parametrize("space", ["log", "inverse", "disparity"])
def test_depth_of_zero_is_survived(space):
    depth = torch.tensor([0.0, 1.0, 2.0, 3.0]).reshape(1, 1, 2, 2)
    x = Depth(space=space).encode(batch(depth=depth, depth_valid=known(depth))).x
    assert x.isfinite().all()


def test_depth_members_of_other_scale_and_shift_agree():
    """They are aligned before merging, so the spread is only what alignment cannot explain."""
    shape = uniform(1, 1, 8, 12, low=-1)
    members = torch.stack(
        [scale * shape + shift for scale, shift in ((1, 0), (0.6, 0.2), (1.4, -0.3))]
    )
    merged = Depth().merge(members)
    assert merged.uncertainty is not None and merged.uncertainty.max() < 1e-3
    metric = Depth(range="metric").merge(members)
    assert metric.uncertainty is not None and metric.uncertainty.mean() > 0.1
    middle = Depth(range="metric", merge_by="median").merge(members).x
    torch.testing.assert_close(middle, members.median(dim=0).values)


def test_the_mean_map_of_depth_is_the_mean_of_the_targets():
    depth = uniform(4, 1, 5, 6, low=1, high=9)
    valid = uniform(4, 1, 5, 6, high=1.0) < 0.7
    task, truth = Depth(range="metric"), batch(depth=depth, depth_valid=valid)
    found = task.baselines(truth, task.statistics(truth))["mean_map"].x
    x = task.encode(truth).x
    masked = np.ma.masked_array(x.numpy(), ~valid.numpy())
    np.testing.assert_allclose(found[2], masked.mean(axis=0).filled(masked.mean()), atol=1e-5)
    middle = task.baselines(truth, None)["constant"].values
    torch.testing.assert_close(middle, torch.full_like(middle, math.sqrt(1.3 * 11)))  # log space


# ---------------------------------------------------------------------------- flow


def test_flow_is_divided_by_its_scale_and_never_clipped():
    flow = torch.tensor([-30.0, 0.0, 1.5, 60.0]).reshape(1, 2, 1, 2)
    target = Flow(scale=3).encode(batch(flow=flow, flow_valid=known(flow)))
    assert target.x.flatten().tolist() == [-10, 0, 0.5, 20]


def test_flow_on_another_grid_is_scaled_by_its_own_axis():
    flow = torch.stack([torch.full((4, 6), 2.0), torch.full((4, 6), -3.0)])[None]
    grown = Flow().rescale(flow, (12, 9))  # three times as high, half as wide again
    torch.testing.assert_close(grown[:, 0], torch.full((1, 12, 9), 3.0))
    torch.testing.assert_close(grown[:, 1], torch.full((1, 12, 9), -9.0))
    torch.testing.assert_close(Flow().rescale(grown, (4, 6)), flow)


def test_the_uncertainty_of_flow_is_a_length_in_pixels():
    members = uniform(6, 2, 2, 3, 4, low=-1)
    merged = Flow(scale=5).merge(members)
    pixels = 5 * members.numpy()
    np.testing.assert_allclose(merged.values, pixels.mean(axis=0), atol=1e-5)
    spread = np.sqrt(pixels.var(axis=0).sum(axis=1, keepdims=True))
    assert merged.uncertainty is not None
    np.testing.assert_allclose(merged.uncertainty, spread, rtol=1e-4)


def test_the_trivial_flows():
    flow = uniform(3, 2, 4, 5, low=-6, high=6)
    valid = uniform(3, 1, 4, 5) < 0.6
    task, truth = Flow(), batch(flow=flow, flow_valid=valid)
    found = task.baselines(truth, task.statistics(truth))
    assert not found["zero_flow"].values.any()
    here = np.ma.masked_array(flow.numpy(), ~valid.expand(-1, 2, -1, -1).numpy())
    every = here.mean(axis=(0, 2, 3)).data
    np.testing.assert_allclose(found["constant"].values[1, :, 2, 3], every, atol=1e-5)
    own = here.mean(axis=(2, 3)).data
    np.testing.assert_allclose(found["oracle_mean_flow"].values[:, :, 0, 0], own, atol=1e-5)


def test_learned_flows_are_pixels_of_the_grid_they_are_compared_on():
    """Statistics are gathered at working size; an image twice as high moves by twice as much."""
    small = torch.stack([torch.full((4, 6), 2.0), torch.full((4, 6), -3.0)])[None]
    large = Flow().rescale(small, (8, 6))
    task = Flow()
    learned = task.statistics(batch(flow=small, flow_valid=known(small)))
    found = task.baselines(batch(flow=large, flow_valid=known(large)), learned)
    for name in ("constant", "mean_map", "oracle_mean_flow"):
        torch.testing.assert_close(found[name].values, large, msg=name)


def test_matching_is_optional():
    assert Flow(radius=2).feature_channels == 3 * 25  # two windows, and the costs themselves
    assert Flow(radius=2, costs=False).feature_channels == 2 * 25
    assert Flow(radius=2, costs=False, fine_window=0).feature_channels == 25
    assert Flow(cost_volume=False).feature_channels == 0


# ---------------------------------------------------------------------------- amodal


def test_masks_are_plus_and_minus_one_and_read_as_probabilities():
    mask = torch.tensor([[True, False]]).reshape(1, 1, 1, 2)
    truth = batch(amodal=mask, amodal_valid=known(mask), modal=~mask)
    task = Amodal()
    assert task.encode(truth).x.flatten().tolist() == [1, -1]
    assert task.condition(truth).images[0, 1].unique(dim=0).tolist() == [[[-1, 1]]]
    sample = torch.tensor([-3.0, 0, 0.5, 3]).reshape(1, 1, 2, 2)
    assert task.decode(sample).values.flatten().tolist() == [0, 0.5, 0.75, 1]


def test_members_vote_with_probabilities_and_not_beyond():
    members = torch.tensor([[-1.0, -1.0], [1.0, 9.0], [1.0, 1.0]]).reshape(3, 1, 1, 1, 2)
    merged = Amodal().merge(members)
    torch.testing.assert_close(merged.values.flatten(), torch.tensor([2 / 3, 2 / 3]))
    assert merged.uncertainty is not None
    spread = merged.uncertainty.flatten().tolist()
    assert spread == pytest.approx([math.sqrt(2) / 3] * 2, abs=1e-6)


def test_the_trivial_masks():
    modal = torch.zeros(1, 1, 5, 6, dtype=torch.bool)
    modal[0, 0, 1, 2] = modal[0, 0, 3, 4] = True
    found = Amodal().baselines(batch(modal=modal), None)
    assert torch.equal(found["copied_mask"].values > 0.5, modal)
    box = torch.zeros_like(modal)
    box[0, 0, 1:4, 2:5] = True
    assert torch.equal(found["bounding_box"].values > 0.5, box)


# ---------------------------------------------------------------------------- semantic


@pytest.mark.parametrize("encoding", ["onehot", "bits"])
@pytest.mark.parametrize("classes", range(2, 10))
def test_every_class_decodes_exactly_and_so_do_nearby_samples(classes, encoding):
    task = Semantic(classes=classes, encoding=encoding)
    assert task.channels == (classes if encoding == "onehot" else math.ceil(math.log2(classes)))
    labels = torch.arange(classes).repeat(3).reshape(1, 3, classes)
    target = task.encode(batch(labels=labels))
    assert target.x.abs().unique().tolist() == [1] and target.valid.all()
    noise = 0.9 * (2 * uniform(*target.x.shape) - 1)
    for x in (target.x, 0.1 * target.x, 5 * target.x, target.x + noise):
        assert torch.equal(task.decode(x).values[:, 0], labels)


@pytest.mark.parametrize("encoding", ["onehot", "bits"])
def test_no_sample_decodes_to_a_class_that_does_not_exist(encoding):
    task = Semantic(classes=5, encoding=encoding)
    x = torch.randn(2, task.channels, 30, 30, generator=generator("any"))
    values = task.decode(x).values
    assert values.dtype == torch.int64 and values.unique().tolist() == [0, 1, 2, 3, 4]


def test_unlabelled_pixels_are_outside_the_loss():
    labels = torch.tensor([[[0, IGNORE], [2, IGNORE]]])
    target = Semantic().encode(batch(labels=labels))
    assert target.valid[0, 0].tolist() == [[True, False], [True, False]]


def test_more_classes_than_the_task_has_are_refused():
    labels = torch.tensor([[[0, 7], [IGNORE, 1]]])
    with pytest.raises(UserError, match="label 7 .* tasks.semantic.classes is 7"):
        Semantic(classes=7).encode(batch(labels=labels))


def test_classes_on_another_grid_are_never_mixed():
    labels = torch.tensor([[[[0, 6]]]])
    grown = Semantic().rescale(labels, (3, 8))
    assert grown.dtype == torch.int64 and grown[0, 0].tolist() == [[0] * 4 + [6] * 4] * 3


def test_the_uncertainty_of_classes_is_the_share_of_other_votes():
    task = Semantic(classes=3)
    labels = torch.tensor([[0, 0, 0, 1], [2, 2, 2, 2]]).T.reshape(4, 1, 1, 2)
    members = torch.stack([task.encode(batch(labels=one)).x for one in labels])
    merged = task.merge(members)
    assert merged.values.flatten().tolist() == [0, 2]
    assert merged.uncertainty is not None
    assert merged.uncertainty.flatten().tolist() == [0.25, 0]


def test_the_trivial_classes():
    labels = torch.tensor([[[0, 1, 1]], [[2, 1, 1]], [[2, 0, IGNORE]]])
    task, truth = Semantic(classes=3), batch(labels=labels)
    found = task.baselines(truth, task.statistics(truth))
    assert found["constant"].values.unique().tolist() == [1]
    assert found["prior_map"].values[0].flatten().tolist() == [2, 1, 1]
    assert torch.equal(task.decode(found["prior_map"].x).values, found["prior_map"].values)


# ---------------------------------------------------------------------------- normals


def test_normals_have_unit_length_wherever_they_come_from():
    x = uniform(2, 3, 4, 5, low=-0.2, high=0.3)
    task = Normals()
    for values in (
        task.decode(x).values,
        task.merge(torch.stack([x, x.flip(0)])).values,
        task.rescale(F.normalize(x, dim=1), (9, 7)),
    ):
        torch.testing.assert_close(values.norm(dim=1), torch.ones(values[:, 0].shape))


def test_normals_merge_as_directions_whatever_their_length():
    """A member that is unsure of the length of its vectors is not unsure of their direction."""
    up, right = torch.eye(3)[1].reshape(1, 1, 3, 1, 1), torch.eye(3)[0].reshape(1, 1, 3, 1, 1)
    merged = Normals().merge(torch.cat([0.3 * up, 2 * right]))
    half = math.sqrt(0.5)
    assert merged.values.flatten().tolist() == pytest.approx([half, half, 0], abs=1e-6)
    assert merged.uncertainty is not None
    assert merged.uncertainty.item() == pytest.approx(0.25, abs=1e-4)  # 45 degrees over 180


def test_the_constant_normal_faces_the_camera():
    normals = F.normalize(uniform(2, 3, 4, 5, low=-1), dim=1)
    truth = batch(normals=normals, normals_valid=known(normals))
    values = Normals().baselines(truth, None)["constant"].values
    assert values[0, :, 0, 0].tolist() == [0, 0, -1]


# ---------------------------------------------------------------------------- what they share


def test_what_is_there_is_handed_over():
    depth, labels = torch.ones(1, 1, 2, 3), torch.zeros(1, 2, 3, dtype=torch.int64)
    found = require("toy", batch(depth=depth, labels=labels), "labels", "depth")
    assert found[0] is labels and found[1] is depth


def test_resizing_to_the_same_size_copies_nothing():
    x = torch.rand(1, 2, 5, 7)
    assert resize(x, (5, 7)) is x
    assert resize(x, (3, 9)).shape == (1, 2, 3, 9)
