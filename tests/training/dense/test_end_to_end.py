"""The physical objective: one step from zeros, decoded, against the truth (Garcia et al. 2025)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor

from stepsight.config import RunConfig
from stepsight.data.augment import flip
from stepsight.data.collate import collate
from stepsight.errors import UserError
from stepsight.models.codec import Pixels
from stepsight.training.dense import objective
from stepsight.training.dense.batches import counts_of, errors_of, levels_and_noise, read_parts
from stepsight.types import Batch

SEPARATE: dict[str, Any] = {"components": "separate", "cost_volume": False}


class Bent(Pixels):
    """Pixels seen through a curve, so that a decoder left out would be noticed."""

    name = "bent"

    def __init__(self) -> None:
        self.decoded = 0

    def encode(self, x: Tensor) -> Tensor:
        return x.tanh()

    def decode(self, z: Tensor, channels: int, clip: bool = False) -> Tensor:
        self.decoded += 1
        return z[:, :channels] + 0.5 * z[:, :channels].square()


@pytest.fixture
def bent(monkeypatch) -> Bent:
    codec = Bent()
    monkeypatch.setattr(objective, "open_codec", lambda settings, kept=None: codec)
    return codec


def config_of(lab, tasks=("depth",), options: dict[str, Any] | None = None, **changes) -> RunConfig:
    config = lab.config(tasks, **changes)
    for task, values in (options or {}).items():
        config.tasks[task] = replace(config.tasks[task], **values)
    return replace(
        config,
        diffusion=replace(config.diffusion, objective="end_to_end"),
        evaluation=replace(config.evaluation, nfe=1, members=1, sweep=False),
    )


def flat(tensors) -> Tensor:
    return torch.cat([one.detach().flatten() for one in tensors])


def one_step(lab, config: RunConfig, folder: Path) -> tuple[Any, Tensor, float]:
    """The gradient "p" and the loss of the first batch, through the loop."""
    config = replace(
        config,
        training=replace(config.training, images=8, clip=0.0, warmup=0, decay="constant"),
    )
    run = lab.begin(config, folder)
    gradient = run.step()
    return run, gradient, lab.losses(folder)[-1]


def batch_of(lab, run: Any) -> Batch:
    """The first batch of a run, mirrored as drawn."""
    draw = run.feed.draw(0)
    pairs = zip(lab.source.samples(draw.indices), draw.mirrored)
    return collate([flip(one) if mirror else one for one, mirror in pairs])


@pytest.mark.parametrize(
    ("task", "options"), [("depth", {}), ("flow", {}), ("flow", SEPARATE), ("amodal", {})]
)
def test_loss_and_gradient_are_those_of_the_decoded_answer(lab, tmp_path, bent, task, options):
    """Written out again: zeros in, the clean image out, decoded, and the task's own error."""
    config = config_of(lab, (task,), {task: options})
    run, gradient, loss = one_step(lab, config, tmp_path / "run")
    fresh, diffusion = lab.begin(run.config, tmp_path / "again").roughen(), run.pipeline.diffusion
    batch, chosen = batch_of(lab, run), run.pipeline.tasks[task]
    condition = chosen.condition(batch)
    cond = rearrange(condition.images.tanh(), "b n c h w -> b (n c) h w")
    runs = []
    for row in range(chosen.splits):
        zeros = torch.zeros(8, chosen.channels // chosen.splits, *lab.source.size)
        noisiest, label = torch.ones(8), torch.full((8,), row)
        time = diffusion.schedule.condition(noisiest)
        more = {"features": condition.features}
        if chosen.look_channels:  # what zeros say of the target is zero
            more["looked"] = (chosen.look_at(zeros, cond), None)
        output = fresh.net(zeros, cond, time, label, **more)
        z = diffusion.to_x0(output, zeros, noisiest)
        runs.append(z + 0.5 * z.square())
    expected = chosen.loss(torch.cat(runs, dim=1), batch).mean()
    expected.backward()
    own = flat(
        p.grad if p.grad is not None else torch.zeros_like(p) for p in fresh.net.parameters()
    )
    assert own.norm() > 0.01 and bent.decoded > 0
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(gradient, own, atol=2e-6, rtol=1e-3)


@pytest.mark.parametrize("options", [{}, SEPARATE])
def test_micro_batches_change_neither_loss_nor_gradient(lab, tmp_path, options):
    _, whole, loss = one_step(lab, config_of(lab, ("flow",), {"flow": options}), tmp_path / "a")
    config = config_of(lab, ("flow",), {"flow": options}, micro_batch="2")
    _, split, summed = one_step(lab, config, tmp_path / "b")
    assert summed == pytest.approx(loss, abs=1e-6) and whole.norm() > 0.01
    torch.testing.assert_close(split, whole, atol=2e-6, rtol=1e-4)


def test_neither_noise_nor_level_matters(lab, tmp_path):
    run = lab.begin(config_of(lab), tmp_path).roughen()
    (part,) = read_parts(run.pipeline, run.feed, run.feed.draw(0), 0, range(8))
    t, noise = levels_and_noise(run.pipeline, 0, range(8), part)
    found = [errors_of(run.pipeline, part, *pair) for pair in ((t, noise), (t / 2, -noise))]
    assert torch.equal(found[0], found[1]) and found[0].shape == (8,)
    assert (
        counts_of(run.pipeline, part).tolist() == [1] * 8
    )  # images, however many of their pixels are valid


@pytest.mark.parametrize("task", ["depth", "flow"])
def test_it_learns(lab, tmp_path, task):
    """From weights that answer something: of depth only the shape counts, and a constant answer,
    which fits none better than another, has no gradient."""
    lab.source.count = 8
    config = config_of(lab, (task,), images=8 * 40, flip=False)
    lab.begin(config, tmp_path).roughen().train()
    first, *_, last = lab.losses(tmp_path)
    assert last < 0.6 * first


def test_a_whole_run_validates_and_answers_in_one_call(lab, tmp_path):
    config = config_of(lab, ("depth", "flow"), {"flow": SEPARATE}, images=16, first_validation=8)
    start = replace(config, diffusion=replace(config.diffusion, objective="denoising"))
    start = lab.fit(start, tmp_path / "start")
    run = lab.fit(config, tmp_path / "run", init_from=str(start))
    rows = lab.rows(run, "val")
    assert {(row["task"], row["nfe"]) for row in rows} == {("depth", 1), ("flow", 1)}
    assert all(row["loss"] > 0 for row in rows)


def test_depth_from_scratch_is_refused(lab, tmp_path):
    with pytest.raises(UserError, match="no depth from scratch.*--init-from"):
        lab.fit(config_of(lab), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "evaluation", [{"nfe": 2}, {"sweep": True, "sweep_nfe": (1, 2)}], ids=["nfe", "sweep"]
)
def test_more_calls_than_one_are_refused_before_anything_is_written(lab, tmp_path, evaluation):
    config = config_of(lab, ("flow",), evaluate=True)
    config = replace(config, evaluation=replace(config.evaluation, **evaluation))
    with pytest.raises(UserError, match="answers in one model call, not 2"):
        lab.fit(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
