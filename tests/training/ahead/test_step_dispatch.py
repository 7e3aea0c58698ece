"""A training step on the make-believe accelerator: the host waits for nothing and sends nothing,
and what is learnt is what the CPU learns."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from accelerate import Accelerator
from dispatch import DEVICE, Found, accelerated, counting, host_of

from stepsight.training.ahead.prefetch import Prefetcher
from stepsight.training.loop import gradient

STEPS, TASKS = 2, ("depth", "flow", "amodal", "semantic")


def stepped(lab: Any, folder: Any, config: Any) -> tuple[list[float], list[Found]]:
    """The losses of some steps of a run, and what the host had to do with them: from a batch that
    is ready to an update that is under way, with the average of the step before."""
    run = lab.begin(config, folder)
    learner, progress, losses, every = run.learner, run.progress, [], []
    ahead = Prefetcher(run.objective, run.feed, range(STEPS))
    for step in range(STEPS):
        batch = ahead.take(step)
        with counting() as found:
            told = gradient(learner, batch, asks=(False, True))
            verdict = learner.descend(progress, told[:-2])
            progress.advance(config.training.batch, 0.0)
            learner.ema.update(learner.net, step)
        every.append(found)
        loss, norm, made = host_of(verdict).tolist()
        assert learner.settle(progress, loss, norm, made > 0) == ""
        losses.append(loss)
    return losses, every


RUNS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "split": ("split-8", TASKS, {"micro_batch": "4", "spike": 10.0}),
    "split, AdamW without clipping": ("split-8", ("flow",), {"optimizer": "adamw", "clip": 0.0}),
    "split, end to end": ("split-8", ("depth", "flow"), {}),
    "DiT": ("DiT-Mi/8", ("depth", "flow"), {}),
    "experts": ("DiT-Mi/8-4E2A", ("depth", "flow"), {"micro_batch": "4"}),
    "U-Net": ("unet-tiny", ("depth",), {}),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_step_neither_waits_nor_sends(lab, tmp_path, name):
    model, tasks, changes = RUNS[name]
    rows = {"start": 0.5, "rollout": 0.3, "denoise": 0.2, "noisy": 0.5, "deep": 1.0}
    config = lab.config(tasks, **{"rows": rows} | changes)
    config = replace(config, model=replace(config.model, name=model, balance=0.01))
    if "end to end" in name:
        config = replace(config, diffusion=replace(config.diffusion, objective="end_to_end"))
    found = {}
    for device in (DEVICE, torch.device("cpu")):
        there = mock.patch.object(Accelerator, "device", device)
        with there, accelerated() if device == DEVICE else nullcontext():
            found[device.type] = stepped(lab, tmp_path / device.type, config)
    losses, counted = found[DEVICE.type]
    for number, step in enumerate(counted):
        assert not step.synchronisations and not step.doubles, step
        assert not [one for one in step.copies if number or "self._made[key]" not in one], step
    assert losses == pytest.approx(found["cpu"][0], rel=1e-6)
