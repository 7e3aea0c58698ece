"""The physical errors that end-to-end fine-tuning minimises, of every task and in closed form."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stepsight.seeding import generator
from stepsight.tasks.amodal import Amodal, soft_dice
from stepsight.tasks.base import masked_mean
from stepsight.tasks.depth import Depth, least_squares
from stepsight.tasks.flow import Flow
from stepsight.tasks.image import Image
from stepsight.tasks.normals import Normals
from stepsight.tasks.semantic import Semantic
from stepsight.types import Batch, Target

AT_THE_TRUTH = {"normals": 2e-3, "semantic": 0.01}  # clamped arccos; softmax of finite sharpness


def noisy(task: Any, batch: Batch) -> Tensor:
    x = task.encode(batch).x
    return x + torch.randn(x.shape, generator=generator("loss", *x.shape))


def gradient(task: Any, x: Tensor, batch: Batch) -> Tensor:
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(task.loss(x, batch).sum(), x)
    return slope


# ---------------------------------------------------------------------------- every task


@pytest.mark.parametrize("size", [(16, 16), (13, 21)], ids=str)
def test_the_truth_has_no_loss_and_everything_else_has(task, batch_for, size):
    batch = batch_for(task, size)
    at_truth, off = task.loss(task.encode(batch).x, batch), task.loss(noisy(task, batch), batch)
    assert at_truth.shape == (3,) and at_truth.dtype == torch.float32
    assert (at_truth >= 0).all() and (at_truth < AT_THE_TRUTH.get(task.name, 1e-5)).all()
    assert (off > 0.02).all()


def test_a_step_down_the_gradient_lowers_the_loss(task, batch_for):
    batch = batch_for(task, (16, 16))
    x = noisy(task, batch)
    slope = gradient(task, x, batch)
    assert slope.isfinite().all() and slope.flatten(1).norm(dim=1).min() > 0
    step = x - 0.05 * slope / slope.flatten(1).norm(dim=1)[:, None, None, None]
    assert (task.loss(step, batch) < task.loss(x, batch)).all()


def test_only_valid_pixels_are_moved(task, batch_for):
    batch = batch_for(task, (16, 16))
    x = noisy(task, batch)
    valid = task.encode(batch).valid.expand_as(x)
    slope = gradient(task, x, batch)
    assert not slope[~valid].any()
    other = torch.where(valid, x, -x)
    torch.testing.assert_close(task.loss(other, batch), task.loss(x, batch))


def test_the_gradient_is_finite_at_the_truth_and_where_nothing_varies(task, batch_for):
    batch = batch_for(task, (8, 12))
    truth = task.encode(batch).x
    for x in (truth, torch.zeros_like(truth), torch.ones_like(truth), 30 * truth):
        assert gradient(task, x, batch).isfinite().all()


def test_nothing_valid_costs_nothing(task, batch_for):
    batch = batch_for(task, (8, 12), valid=0.0)
    if task.name == "image":  # every pixel of a picture is valid
        return
    x = torch.randn(3, task.channels, 8, 12, generator=generator("nothing"))
    assert task.loss(x, batch).tolist() == [0, 0, 0]
    assert not gradient(task, x, batch).any()


def test_a_row_costs_what_it_costs_alone(task, batch_for, row_of):
    batch = batch_for(task, (12, 20))
    x = noisy(task, batch)
    together = task.loss(x, batch)
    for row in range(3):
        alone = task.loss(x[row : row + 1], row_of(batch, row))
        torch.testing.assert_close(alone[0], together[row], atol=1e-6, rtol=1e-5)


def test_half_precision_is_summed_in_single_and_surplus_channels_are_free(task, batch_for):
    batch = batch_for(task, (16, 16))
    x = noisy(task, batch)
    rounded = task.loss(x.to(torch.bfloat16), batch)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, task.loss(x.to(torch.bfloat16).float(), batch))
    wide = torch.cat([x, torch.full_like(x, 9.0)], dim=1)
    torch.testing.assert_close(task.loss(wide, batch), task.loss(x, batch))


# ---------------------------------------------------------------------------- closed forms


def test_masked_mean_is_that_of_the_valid_entries():
    x = torch.randn(2, 3, 4, 5, generator=generator("mean"))
    valid = torch.rand(2, 1, 4, 5, generator=generator("mean valid")) < 0.4
    expected = [x[row, :, valid[row, 0]].double().mean() for row in range(2)]
    torch.testing.assert_close(masked_mean(x, valid), torch.stack(expected).float())


def test_the_fit_of_depth_is_the_least_squares_line():
    x, truth = torch.randn(2, 2, 1, 6, 9, generator=generator("fit"))
    valid = torch.rand(2, 1, 6, 9, generator=generator("fit valid")) < 0.6
    found = least_squares(x, Target(truth, valid))
    for row in range(2):
        here = valid[row]
        line = np.polyfit(x[row][here].numpy(), truth[row][here].numpy(), 1)
        expected = np.polyval(line, x[row][here].numpy())
        np.testing.assert_allclose(found[row][here].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("space", ["log", "inverse", "linear"])
def test_scale_and_shift_of_relative_depth_are_free_and_of_metric_depth_are_not(space, batch_of):
    batch = batch_of((16, 16))
    for limits, free in (("quantile", True), ("metric", False)):
        task = Depth(space=space, range=limits)
        x = noisy(task, batch)
        same = torch.isclose(task.loss(0.4 * x + 0.3, batch), task.loss(x, batch), atol=1e-5)
        assert same.all() == free
    target = task.encode(batch)
    torch.testing.assert_close(task.loss(target.x + 0.25, batch), torch.full((3,), 0.25))


@pytest.mark.parametrize("options", [{}, {"scale": 75.0, "grid": (384, 512)}], ids=str)
def test_the_loss_of_flow_is_in_pixels_of_the_working_grid(options, batch_of):
    task, batch = Flow(**options), batch_of((12, 20))
    assert batch.flow is not None
    off = batch.flow + torch.tensor([3.0, -4.0])[:, None, None]
    x = task.encode(replace(batch, flow=off)).x
    torch.testing.assert_close(task.loss(x, batch), torch.full((3,), 5.0))


def test_the_loss_of_normals_is_an_angle(batch_of):
    batch, angle = batch_of((8, 12)), math.radians(30)
    turn = torch.tensor(
        [
            [math.cos(angle), -math.sin(angle), 0],
            [math.sin(angle), math.cos(angle), 0],
            [0, 0, 1],
        ]
    )
    flat = torch.tensor([1.0, 0, 0]).reshape(1, 3, 1, 1).expand(3, 3, 8, 12)
    turned = torch.einsum("ij,bjhw->bihw", turn, flat)
    for length in (0.1, 1.0, 7.0):
        loss = Normals().loss(length * turned, replace(batch, normals=flat))
        torch.testing.assert_close(loss, torch.full((3,), angle), atol=1e-5, rtol=0)


def test_dice_is_the_overlap_and_the_loss_of_masks_adds_the_distance(batch_of):
    batch = batch_of((8, 12), valid=1.0)
    assert batch.amodal is not None
    area = batch.amodal.flatten(1).sum(1)
    valid = torch.ones_like(batch.amodal)
    half = torch.full(batch.amodal.shape, 0.5)
    expected = 1 - (area + 1) / (48 + area + 1)
    torch.testing.assert_close(soft_dice(half, batch.amodal, valid), expected)
    wrong = -Amodal().encode(batch).x  # no overlap, and as far off as +1 is from -1
    torch.testing.assert_close(Amodal().loss(wrong, batch), torch.full((3,), 2 + 1 - 1 / 97))


def test_the_loss_of_masks_still_pulls_where_the_probability_is_flat(batch_of):
    batch = batch_of((8, 12), valid=1.0)
    beyond = -3 * Amodal().encode(batch).x
    slope = gradient(Amodal(), beyond, batch)
    assert (slope.sign() == beyond.sign()).all()


@pytest.mark.parametrize(
    ("options", "codes"),
    [
        ({"classes": 7, "encoding": "onehot"}, 7),
        ({"classes": 8, "encoding": "bits"}, 8),
        ({"classes": 8, "encoding": "palette"}, 8),
    ],
)
def test_knowing_nothing_of_the_class_costs_the_entropy_of_guessing(options, codes, batch_for):
    task = Semantic(**options)
    batch = batch_for(task, (8, 12))
    x = torch.zeros(3, task.channels, 8, 12)
    torch.testing.assert_close(task.loss(x, batch), torch.full((3,), math.log(codes)))


def test_the_loss_of_pictures_is_the_mean_square(batch_of):
    batch = batch_of((8, 12))
    torch.testing.assert_close(Image().loss(batch.image + 0.5, batch), torch.full((3,), 0.25))
