"""Intrinsic images: members, colours, and the truth that nobody has."""

from __future__ import annotations

import pytest
import torch

from stepsight.coding import Layout, code, place_of
from stepsight.errors import UserError
from stepsight.metrics.protocol import default_for
from stepsight.models.codec import Described, Pixels
from stepsight.tasks.base import Task
from stepsight.tasks.config import UNSCORED, AlbedoSettings, DepthSettings, NormalsSettings
from stepsight.tasks.intrinsic import Albedo, Shading
from stepsight.tasks.table import build_task, build_tasks
from stepsight.types import Batch

BATCH = Batch(torch.zeros(1, 3, 2, 2), ["key"], ["toys"])


def test_members_are_clipped_before_they_are_merged():
    """Of four the lower of the middle two, the spread the lower middle deviation from it."""
    members = torch.tensor([-3.0, 0.0, 0.5, 2.0]).reshape(4, 1, 1, 1, 1).expand(4, 1, 3, 2, 2)
    merged = Albedo().merge(members)
    torch.testing.assert_close(merged.values, torch.full((1, 3, 2, 2), 0.5))
    assert merged.uncertainty is not None and merged.uncertainty.shape == (1, 1, 2, 2)
    torch.testing.assert_close(merged.uncertainty, torch.full((1, 1, 2, 2), 0.25))

    merged = Albedo(merge_by="mean").merge(members)
    values = torch.tensor([0.0, 0.5, 0.75, 1.0])
    torch.testing.assert_close(merged.values, values.mean().expand(1, 3, 2, 2))
    assert merged.uncertainty is not None
    torch.testing.assert_close(merged.uncertainty, values.std().expand(1, 1, 2, 2))
    assert Albedo().merge(members[:1]).uncertainty is None


def test_linear_light_is_shown_through_a_gamma_and_brightest_at_one_up_to_scale():
    values = torch.tensor([0.1, 0.2, 0.3, 0.4]).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    assert Albedo().picture(values, BATCH)[0, 0].flatten().tolist() == [25, 51, 76, 102]
    linear = Albedo(space="linear").picture(values, BATCH)[0, 0].flatten().tolist()
    assert linear == [int(255 * x ** (1 / 2.2)) for x in (0.1, 0.2, 0.3, 0.4)]
    scaled = Shading(space="linear", up_to_scale=True).picture(values, BATCH)[0, 0].flatten()
    assert scaled.tolist() == [int(255 * (x / 4) ** (1 / 2.2)) for x in (1, 2, 3, 4)]


@pytest.mark.parametrize("call", ["encode", "truth"])
@pytest.mark.parametrize("name", UNSCORED)
def test_no_source_has_a_truth(name: str, call: str):
    task = build_task(UNSCORED[name]())
    assert isinstance(task, UNSCORED[name]) and task.name == name
    with pytest.raises(UserError, match=f"task {name}: no data source has a truth"):
        getattr(task, call)(BATCH)
    with pytest.raises(UserError, match="no data source"):
        task.loss(torch.zeros(1, 3, 2, 2), BATCH)
    with pytest.raises(UserError, match=f"No protocol scores the task '{name}'"):
        default_for(name)


VAE = Described("vae", 8, 4)


def places(*chosen: int) -> dict[str, Task]:
    kinds = (DepthSettings, NormalsSettings, AlbedoSettings)
    return build_tasks({one.name: one(place=place) for one, place in zip(kinds, chosen)})


def test_tasks_in_one_target_share_its_channels_out():
    layout, tasks = Layout.of(places(1, 0), VAE), places(1, 0)
    assert (layout.target, layout.places, layout.used) == (8, 2, (8, 8))
    assert place_of(tasks["depth"], VAE) == slice(4, 8)
    assert place_of(tasks["normals"], VAE) == slice(0, 4)


@pytest.mark.parametrize("chosen", [(0, 2, 0), (1, 1, 0), (1, 2), (1, 3, 0)])
def test_each_needs_a_place_of_its_own(chosen: tuple[int, ...]):
    with pytest.raises(UserError, match=rf"need the places 0 to {len(chosen) - 1}, one each"):
        Layout.of(places(*chosen), VAE)


def test_and_as_many_channels_as_the_others():
    with pytest.raises(UserError, match="as many channels each"):
        Layout.of(places(0, 1), Pixels())


def test_models_of_a_joint_target_are_not_trained():
    tasks = build_tasks({"normals": NormalsSettings(), "albedo": AlbedoSettings(place=1)})
    truth = torch.zeros(1, 3, 4, 4)
    known = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    batch = Batch(truth, ["key"], ["toys"], normals=truth, normals_valid=known)
    layout = Layout.of(tasks, Pixels())
    assert code(batch, tasks["normals"], layout, Pixels(), False).cond.shape == (1, 3, 4, 4)
    with pytest.raises(UserError, match="denoised together with others here, and such models are"):
        code(batch, tasks["normals"], layout, Pixels(), True)
