"""What training from scratch minimises: errors and their weights; and mirrors."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stepsight.data.augment import flip
from stepsight.seeding import generator
from stepsight.tasks.amodal import DICE, Amodal, soft_dice
from stepsight.tasks.base import robust
from stepsight.tasks.depth import USUAL_RANGE, Depth
from stepsight.tasks.flow import Flow
from stepsight.tasks.image import Image
from stepsight.tasks.normals import Normals
from stepsight.tasks.semantic import Semantic
from stepsight.types import IGNORE, Batch, Sample


def noisy(target: Tensor) -> Tensor:
    return target + torch.randn(target.shape, generator=generator("errors", *target.shape))


def weights(task: Any, batch: Batch) -> Tensor:
    """Of every entry, "b c h w", as training makes them."""
    target = task.encode(batch)
    own = task.importance(batch, task.statistics(batch))
    return (target.valid * own).expand_as(target.x)


# ---------------------------------------------------------------------------- every task


def test_the_truth_has_no_error_and_everything_else_has(task, batch_for):
    batch = batch_for(task, (13, 21))
    target, weight = task.encode(batch).x, weights(task, batch)
    found = task.errors(target, target, weight)
    assert found.shape == (3,) and found.abs().max() < 1e-4
    assert (task.errors(noisy(target), target, weight) > 1).all()


def test_an_error_is_of_the_entries_that_count(task, batch_for):
    """Nothing else has influence or a gradient, and the gradient is finite at the truth as well."""
    batch = batch_for(task, (16, 16))
    target, weight = task.encode(batch).x, weights(task, batch)
    x = noisy(target).requires_grad_()
    error = task.errors(x, target, weight)
    (slope,) = torch.autograd.grad(error.sum(), x)
    assert slope.isfinite().all() and not slope[weight == 0].any() and slope.any()
    other = torch.where(weight == 0, -x, x)
    if task.name != "flow":  # whose length is that of both components, which count together
        torch.testing.assert_close(task.errors(other, target, weight), error)
    at = target.clone().requires_grad_()
    (slope,) = torch.autograd.grad(task.errors(at, target, weight).sum(), at)
    assert slope.isfinite().all()
    assert not task.errors(x, target, torch.zeros_like(weight)).any()


def test_an_error_is_a_sum_over_rows_and_grows_with_the_weight(task, batch_for):
    batch = batch_for(task, (12, 20))
    target, weight = task.encode(batch).x, weights(task, batch)
    x = noisy(target)
    together = task.errors(x, target, weight)
    for row in range(3):
        one = slice(row, row + 1)
        alone = task.errors(x[one], target[one], weight[one])
        torch.testing.assert_close(alone[0], together[row])
    torch.testing.assert_close(task.errors(x, target, 2 * weight), 2 * together)


def test_weights_are_about_one_whether_statistics_are_known_or_not(task, batch_for):
    batch = batch_for(task, (16, 16), valid=1.0)
    for statistics in (None, task.statistics(batch)):
        found = task.importance(batch, statistics)
        assert found.shape in {(3, 1, 1, 1), (3, 1, 16, 16)}
        assert found.isfinite().all() and (found > 0).all() and 0.3 < found.mean() < 3
    empty = batch_for(task, (16, 16), valid=0.0)
    assert task.importance(empty, None).isfinite().all()


# ---------------------------------------------------------------------------- closed forms


def test_the_robust_loss_is_squared_within_beta_and_straight_beyond():
    x = torch.tensor([0.0, 0.05, 0.1, -0.1, 0.3, -2.0])
    expected = torch.tensor([0.0, 0.0125, 0.05, 0.05, 0.25, 1.95])
    torch.testing.assert_close(robust(x), expected)
    torch.testing.assert_close(robust(x, beta=4.0), x.square() / 8)


@pytest.mark.parametrize("task", [Image(), Normals(), Semantic()], ids=lambda task: task.name)
def test_errors_are_squared_unless_a_task_knows_better(task, batch_for):
    batch = batch_for(task, (8, 12))
    target, weight = task.encode(batch).x, weights(task, batch)
    expected = (0.5**2 * weight).sum(dim=(1, 2, 3))
    torch.testing.assert_close(task.errors(target - 0.5, target, weight), expected)


def test_the_error_of_depth_is_robust():
    target, weight = torch.zeros(1, 1, 1, 3), torch.tensor([1.0, 2.0, 0.0]).reshape(1, 1, 1, 3)
    x = torch.tensor([0.1, -1.0, 9.0]).reshape(1, 1, 1, 3)
    found = Depth().errors(x, target, weight)
    assert found.tolist() == pytest.approx([0.05 + 2 * 0.95])


def test_the_error_of_flow_is_robust_in_the_length():
    """Of vectors (3, 4) and (0, .06): by both channels that count. A component of a pass by itself
    is its own length."""
    x = torch.tensor([[3.0, 0.0], [4.0, 0.06]]).reshape(1, 2, 1, 2)
    found = Flow().errors(x, torch.zeros_like(x), torch.ones_like(x))
    assert found.item() == pytest.approx(2 * (4.95 + 0.06**2 / 0.2))
    alone = Flow(components="separate").errors(x[:, 1:], 0 * x[:, 1:], torch.ones(1, 1, 1, 2))
    assert alone.item() == pytest.approx(3.95 + 0.06**2 / 0.2)


def test_the_error_of_masks_has_a_share_of_dice(batch_of):
    """Which counts as much as all entries that count: small objects weigh like large ones."""
    batch = batch_of((8, 12))
    task = Amodal()
    target, weight = task.encode(batch).x, weights(task, batch)
    x = 0.7 * noisy(target)
    squared = ((x - target).square() * weight).sum(dim=(1, 2, 3))
    dice = soft_dice(((x + 1) / 2).clamp(0, 1), target > 0, weight > 0)
    expected = squared + DICE * dice * weight.sum(dim=(1, 2, 3))
    torch.testing.assert_close(task.errors(x, target, weight), expected)
    picture = Amodal(target="rgb", background="border")
    target, weight = picture.encode(batch).x, weights(picture, batch)
    expected = (0.25 * weight).sum(dim=(1, 2, 3))
    torch.testing.assert_close(picture.errors(target + 0.5, target, weight), expected)


@pytest.mark.parametrize("space", ["log", "inverse", "linear", "disparity"])
def test_relative_depth_weighs_by_the_range_of_the_image(space, batch_of):
    batch = batch_of((16, 16))
    assert batch.depth is not None and batch.depth_valid is not None
    curves = {"inverse": lambda d: -1 / d, "linear": lambda d: d, "disparity": lambda d: 1 / d}
    curve = {"log": np.log, **curves}[space]
    found = Depth(space=space).importance(batch, None)
    for row in range(3):
        y = curve(batch.depth[row][batch.depth_valid[row]].numpy().astype(np.float64))
        low, high = np.quantile(y, [0.02, 0.98])
        assert found[row].item() == pytest.approx((high - low) / USUAL_RANGE[space], rel=1e-4)
    assert (Depth(space=space, range="metric").importance(batch, None) == 1).all()


def test_a_usual_scene_weighs_about_one():
    depth = torch.logspace(0, math.log10(math.exp(1.5 / 0.96)), 1000).reshape(1, 1, 1, -1)
    batch = Batch(torch.zeros(1, 3, 1, 1000), ["a"], ["toys"], depth=depth, depth_valid=depth > 0)
    assert Depth().importance(batch, None).item() == pytest.approx(1.0, rel=1e-3)


def test_rare_classes_weigh_more_and_all_pixels_one_on_average():
    labels = torch.tensor([[[0, 0, 0, 0, 0, 0], [1, 1, 0, 2, 1, IGNORE]]])
    batch = Batch(torch.zeros(1, 3, 2, 6), ["a"], ["toys"], labels=labels)
    task = Semantic(classes=4)
    found = task.importance(batch, task.statistics(batch))
    share = np.array([7, 3, 1]) / 11
    rarity = share**-0.5
    rarity /= (rarity * share).sum()
    expected = rarity[np.where(labels[0] == IGNORE, 0, labels[0])]
    np.testing.assert_allclose(found[0, 0].numpy(), expected, rtol=1e-5)
    assert found[0, 0][labels[0] != IGNORE].mean().item() == pytest.approx(1.0)
    assert (task.importance(batch, None) == 1).all()


def test_a_class_that_training_never_saw_has_a_finite_weight():
    seen = torch.zeros(4, 2, 6)
    seen[0] = 1.0
    batch = Batch(torch.zeros(1, 3, 2, 6), ["a"], ["toys"], labels=torch.full((1, 2, 6), 3))
    found = Semantic(classes=4).importance(batch, seen)
    assert found.isfinite().all() and (found > 10).all()


# ---------------------------------------------------------------------------- mirrors


def mirrored(batch: Batch) -> Batch:
    """Every sample of a batch in the mirror, as training shows it."""
    columns = {f.name: getattr(batch, f.name) for f in fields(batch)}
    tensors = {k: v for k, v in columns.items() if isinstance(v, Tensor) and v.ndim > 1}
    turned = []
    for row in range(len(batch)):
        own: dict[str, Any] = {name: value[row] for name, value in tensors.items()}
        sample = flip(Sample(key="", source="", **own))
        turned.append({name: getattr(sample, name) for name in tensors})
    stacked = {name: torch.stack([one[name] for one in turned]) for name in tensors}
    return replace(batch, **stacked)


def test_the_target_of_a_mirrored_picture_is_the_mirrored_target(task, batch_for):
    """With the sign of `mirrors` changed: what views rely on."""
    batch = batch_for(task, (12, 20))
    target, other = task.encode(batch), task.encode(mirrored(batch))
    signs = torch.ones(task.channels)
    signs[list(task.mirrors)] = -1
    assert torch.equal(other.valid, target.valid.flip(-1))
    here = other.valid.expand_as(other.x)
    expected = target.x.flip(-1) * signs[:, None, None]
    torch.testing.assert_close(other.x[here], expected[here])
    for channel in task.mirrors:  # and it matters
        assert (target.x[:, channel].flip(-1) - other.x[:, channel]).abs().max() > 0.1
