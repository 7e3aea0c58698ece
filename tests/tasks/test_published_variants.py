"""Variants that read other people's weights: validity prompts, flow by component, turned axes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stepsight.config import from_dict
from stepsight.errors import UserError
from stepsight.seeding import generator
from stepsight.tasks.depth import Depth
from stepsight.tasks.flow import Flow
from stepsight.tasks.normals import Normals
from stepsight.tasks.table import build_tasks
from stepsight.types import Batch

PUBLISHED = Flow(scale=75.0, grid=(384, 512), components="separate", cost_volume=False)


# ---------------------------------------------------------------------------- depth


def test_the_validity_prompt_is_one_everywhere_whatever_the_truth_knows(batch_of):
    task = Depth(prompt="valid")
    for valid in (1.0, 0.3, 0.0):
        images = task.condition(batch_of((8, 12), valid=valid)).images
        assert images.shape == (3, 2, 3, 8, 12) and (images[:, 1] == 1).all()
    assert task.images == 2 and Depth().images == 1


# ---------------------------------------------------------------------------- flow


def test_a_prediction_of_one_is_the_scale_in_pixels_of_the_fixed_grid():
    """1 is 75 pixels of 384 x 512; those of 64 x 64 are 8 times as wide and 6 times as high."""
    values = PUBLISHED.decode(torch.ones(1, 2, 64, 64)).values
    assert values[0, 0].unique().tolist() == [75 * 64 / 512]
    assert values[0, 1].unique().tolist() == [75 * 64 / 384]
    assert PUBLISHED.decode(torch.ones(1, 2, 384, 512)).values.unique().tolist() == [75]


def test_the_target_on_a_fixed_grid_does_not_depend_on_the_working_size(batch_of):
    flow = torch.stack([torch.full((4, 6), 2.0), torch.full((4, 6), -3.0)])[None]
    targets = []
    for size in ((4, 6), (8, 6), (12, 30)):
        here = PUBLISHED.rescale(flow, size)
        batch = replace(batch_of(size, rows=1), flow=here, flow_valid=here[:, :1] == here[:, :1])
        targets.append(PUBLISHED.encode(batch).x[0, :, 0, 0])
    expected = torch.tensor([2.0 * 512 / 6, -3.0 * 384 / 4]) / 75
    for target in targets:
        torch.testing.assert_close(target, expected)


def test_the_uncertainty_of_flow_on_a_fixed_grid_is_in_working_pixels():
    members = torch.randn(6, 2, 2, 12, 16, generator=generator("grid members"))
    pixels = members.numpy() * np.array([75 * 16 / 512, 75 * 12 / 384])[:, None, None]
    spread = np.sqrt(pixels.var(axis=0).sum(axis=1, keepdims=True))
    merged = PUBLISHED.merge(members)
    assert merged.uncertainty is not None
    np.testing.assert_allclose(merged.uncertainty, spread, rtol=1e-4)


def test_learned_flows_on_a_fixed_grid_are_pixels_of_the_grid_they_are_compared_on(batch_of):
    small = torch.stack([torch.full((4, 6), 2.0), torch.full((4, 6), -3.0)])[None]
    large = PUBLISHED.rescale(small, (8, 6))
    known, grown = (torch.ones_like(x[:, :1], dtype=torch.bool) for x in (small, large))
    learned = PUBLISHED.statistics(replace(batch_of((4, 6), rows=1), flow=small, flow_valid=known))
    compared = replace(batch_of((8, 6), rows=1), flow=large, flow_valid=grown)
    found = PUBLISHED.baselines(compared, learned)
    for name in ("constant", "mean_map", "oracle_mean_flow"):
        torch.testing.assert_close(found[name].values, large, msg=name)


def test_components_apart_are_two_runs_of_one_channel_each():
    assert (PUBLISHED.splits, PUBLISHED.label_count, PUBLISHED.channels) == (2, 2, 2)
    joint = Flow()
    assert (joint.splits, joint.label_count, joint.channels) == (1, 1, 2)
    assert Flow(components="separate").feature_channels == joint.feature_channels > 0


@pytest.mark.parametrize("grid", [(384, 0), (0, 512), (-1, 4)])
def test_half_a_grid_is_refused(grid):
    with pytest.raises(UserError, match=r"tasks\.flow\.grid is .*height and a width"):
        Flow(grid=grid)


def test_a_grid_may_be_written_in_a_file_of_settings():
    config = from_dict({"tasks": {"flow": {"grid": [384, 512], "components": "separate"}}})
    (task,) = build_tasks(config.tasks).values()
    assert task.decode(torch.ones(1, 2, 384, 512)).values.unique().tolist() == [3]


# ---------------------------------------------------------------------------- normals


@pytest.mark.parametrize(("axes", "x"), [("right_up_back", 0.5), ("left_up_back", -0.5)])
def test_turned_normals_point_up_and_at_the_viewer(axes, x):
    """Towards the camera and upwards: negative y and z in our axes, positive in Marigold's."""
    ours = F.normalize(torch.tensor([x, -0.3, -0.8]), dim=0).reshape(1, 3, 1, 1)
    task = Normals(axes=axes)
    truth = {"normals": ours, "normals_valid": torch.ones(1, 1, 1, 1, dtype=torch.bool)}
    batch = Batch(torch.zeros(1, 3, 1, 1), ["a"], ["toys"], **truth)
    x = task.encode(batch).x
    assert (x > 0).all() and torch.equal(x.abs(), ours.abs())
    torch.testing.assert_close(task.decode(x).values, ours)
    constant = task.baselines(batch, None)["constant"]
    assert constant.values.flatten().tolist() == [0, 0, -1]
    assert constant.x.flatten().tolist() == [0, 0, 1]


def test_the_axes_of_the_target_change_nothing_but_the_target():
    members = torch.randn(4, 2, 3, 5, 7, generator=generator("axes"))
    turned = members * torch.tensor([1.0, -1.0, -1.0])[:, None, None]
    ours, theirs = Normals().merge(members), Normals(axes="right_up_back").merge(turned)
    torch.testing.assert_close(theirs.values, ours.values)
    torch.testing.assert_close(theirs.uncertainty, ours.uncertainty)
