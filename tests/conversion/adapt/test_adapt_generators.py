"""From a generator to perception: it looks at condition images, and its classes become tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from stepsight import checkpoint
from stepsight.checkpoint import BACKBONE

DIT, UNET = "DiT-Ti/4", "unet-tiny"
FOUR = {"depth": {}, "flow": {"cost_volume": False}, "amodal": {}, "semantic": {}}


@pytest.fixture
def pretrain(make) -> Callable[..., Any]:
    """Generators of `classes` classes."""

    def pretrain(name: str, classes: int = 8, **options: Any) -> Any:
        return make(name, {"image": {"classes": classes}}, "generator", **options)

    return pretrain


@pytest.mark.parametrize("name", [DIT, UNET])
def test_what_sees_the_same_image_everywhere_sees_what_the_generator_saw(
    make, pretrain, start, name
):
    old = pretrain(name)
    new = start(old, make(name, FOUR, "new"))
    assert new.layout.cond == 6 and not old.layout.cond
    image, _ = old.inputs()
    twice = torch.cat([image, image], dim=1)
    x = F.pad(image, (0, 0, 0, 0, 0, 4))  # semantic has four channels more
    parts = (twice, x) if name == UNET else (x, twice)
    embedded = F.conv2d(torch.cat(parts, dim=1), new.kernel)
    torch.testing.assert_close(embedded, F.conv2d(image, old.kernel), atol=1e-5, rtol=1e-5)
    new.table[0] = old.table[0]  # and it answers what the generator answered to the same label
    found, expected = new.answer("depth", x, twice), old.answer("image", image, image[:, :0])
    torch.testing.assert_close(found[:, :3], expected, atol=2e-5, rtol=1e-4)


def test_rows_of_four_tasks_are_the_means_of_quarters_of_the_classes(make, pretrain, start):
    old = pretrain(DIT)
    new = start(old, make(DIT, FOUR, "new"))
    for task in range(4):
        mean = (old.table[2 * task] + old.table[2 * task + 1]) / 2
        torch.testing.assert_close(new.table[task], mean)
    assert torch.equal(new.table[4], old.table[8])  # the null row


def test_parts_need_not_be_equal_and_all_passes_of_a_task_start_alike(make, pretrain, start):
    tasks = {"flow": {"components": "separate", "cost_volume": False}, "depth": {}, "normals": {}}
    old = pretrain(DIT)
    new = start(old, make(DIT, tasks, "new"))
    rows = old.table
    means = [rows[0:3].mean(dim=0), rows[3:6].mean(dim=0), rows[6:8].mean(dim=0)]
    expected = torch.stack([means[0], means[0], means[1], means[2], rows[8]])
    torch.testing.assert_close(new.table, expected)


def test_fewer_classes_than_tasks_are_shared(make, pretrain, start):
    old = pretrain(DIT, classes=2)
    new = start(old, make(DIT, FOUR, "new"))
    for row in new.table[:4]:
        torch.testing.assert_close(row, old.table[:2].mean(dim=0))


def test_a_generator_beside_new_tasks_still_generates(make, pretrain, start):
    old = pretrain(DIT)
    new = start(old, make(DIT, {"depth": {}, "image": {}}, "new"))
    x, _ = old.inputs()
    expected = old.answer("image", x, x[:, :0])
    torch.testing.assert_close(new.answer("image", x, x[:, :0]), expected, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(new.table[0], old.table[:8].mean(dim=0))


@pytest.mark.parametrize("kept", [False, True])
def test_a_learned_variance_is_dropped_unless_the_run_has_one(make, pretrain, start, kept):
    old = pretrain(DIT, learned_variance=True)
    new = start(old, make(DIT, {"image": {}}, "new", learned_variance=kept))
    x, _ = old.inputs()
    expected = old.answer("image", x, x[:, :0])
    assert expected.shape[1] == 6
    assert torch.equal(new.answer("image", x, x[:, :0]), expected if kept else expected[:, :3])


def test_new_outputs_go_between_the_answer_and_its_variance(make, start):
    old = make(DIT, {"depth": {}}, learned_variance=True)
    new = start(old, make(DIT, {"depth": {}, "normals": {}}, "new", learned_variance=True))
    x, cond = old.inputs(images=1)
    expected, found = old.answer("depth", x, cond), new.answer("depth", x, cond)
    assert found.shape[1] == 6 and not found[:, [1, 2, 4, 5]].any()
    torch.testing.assert_close(found[:, [0, 3]], expected, atol=2e-6, rtol=1e-5)


# ---------------------------------------------------------------------------- latents, and runs


def test_in_latents_a_condition_image_has_four_channels(make, pretrain, start, tmp_path):
    """On the latents of a VAE whose folder is not even there."""
    vae = str(tmp_path / "absent")
    old = pretrain(DIT, vae=vae)
    new = start(old, make(DIT, FOUR, "new", vae=vae))
    assert (old.layout.target, new.layout.target, new.layout.cond) == (4, 12, 8)
    for first in (0, 12, 16):  # the target's first channels, and both condition images
        torch.testing.assert_close(new.kernel[:, first : first + 4], old.kernel / 3)
    assert not new.kernel[:, 4:12].any()


def test_a_run_starts_from_another(lab, tmp_path):
    """What `--init-from` does, in training and average alike; and the program itself."""
    noised = {"start": 0.0, "rollout": 0.0, "denoise": 1.0}
    generator_run = lab.fit(lab.config(("image",), images=16, rows=noised), tmp_path / "generator")
    saved = checkpoint.read(generator_run)
    learner = lab.begin(lab.config(("depth", "flow"), images=8), tmp_path / "pupil").learner
    progress = learner.start_from(saved)
    rows = saved.tensors(BACKBONE)["label.embedding_table.weight"]
    expected = torch.stack([rows[:4].mean(dim=0), rows[4:8].mean(dim=0), rows[8]])
    own = dict(learner.net.named_parameters())
    torch.testing.assert_close(own["label.embedding_table.weight"].detach(), expected)
    assert progress.step == 0
    for name, value in learner.ema.values.items():
        assert torch.equal(value, own[name])
    config = lab.config(("depth", "flow"), images=8, lr=0.0, muon_lr=0.0)
    run = lab.fit(config, tmp_path / "run", init_from=str(generator_run))
    for name, value in checkpoint.read(run).tensors(BACKBONE).items():
        torch.testing.assert_close(value, own[name].detach())
