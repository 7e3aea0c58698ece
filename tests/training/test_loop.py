"""One step at a time: what a batch's loss and gradient are, however the batch is cut."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from stepsight.errors import UserError
from stepsight.training.batches import levels_and_noise, read_part
from stepsight.training.console import Console
from stepsight.training.loop import train
from stepsight.training.setup import Setup
from stepsight.training.state import best_score


def one_step(lab, folder, tasks=("flow",), step: int = 0, **changes) -> tuple[Setup, Tensor, float]:
    """The gradient "p" and the loss of batch number `step`, through the loop itself."""
    config = lab.config(
        tasks, images=8 * (step + 1), clip=0.0, warmup=0, decay="constant", **changes
    )
    s, run = lab.begin(config, folder)
    roughen(s)
    before = flat(s)
    s.step = step
    s.optimizers = [torch.optim.SGD(s.net.parameters(), lr=1.0)]
    train(s, run, Console(enabled=False))
    return s, before - flat(s), lab.losses(folder)[-1]


def roughen(s: Setup) -> None:
    """Untrained networks answer zero, and most of their gradients are zero."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in s.net.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=draw))


def flat(s: Setup) -> Tensor:
    return torch.cat([p.detach().flatten() for p in s.net.parameters()])


@pytest.mark.parametrize("task", ["flow", "depth", "amodal", "semantic"])
def test_loss_and_gradient_are_means_over_the_valid_entries_of_the_batch(lab, tmp_path, task):
    """Written out again with one network call over the whole batch."""
    s, gradient, loss = one_step(lab, tmp_path, (task,), flip=True)
    roughen_again, _ = lab.begin(s.config, tmp_path / "again")
    roughen(roughen_again)
    net, draw = roughen_again.net, s.mixture.draw(0)
    part = read_part(s, draw, 0, range(8))
    coded = part.coded
    shares = coded.valid.mean(dim=(1, 2, 3))
    assert shares.max() > 2 * shares.min()
    t, noise = levels_and_noise(s, 0, range(8), part)
    noisy = s.diffusion.corrupt(coded.x, noise, t)
    output = net(noisy, coded.cond, s.diffusion.schedule.condition(t), coded.label, coded.features)
    wrong = (output - s.diffusion.target(coded.x, noise, t))[coded.valid.bool()]
    expected = wrong.square().mean()
    expected.backward()
    own = torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in net.parameters()]
    )
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(gradient, own, atol=2e-6, rtol=1e-3)


@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_micro_batches_change_neither_loss_nor_gradient(lab, tmp_path, accumulate):
    _, whole, loss = one_step(lab, tmp_path / "whole")
    _, split, summed = one_step(lab, tmp_path / "split", accumulate=accumulate)
    assert whole.norm() > 0.01
    assert summed == pytest.approx(loss, abs=1e-6)
    torch.testing.assert_close(split, whole, atol=2e-6, rtol=1e-4)


def test_a_batch_without_a_valid_pixel_costs_nothing_and_breaks_nothing(lab, tmp_path):
    blind = [
        replace(lab.source[i], flow_valid=torch.zeros(1, 16, 16, dtype=bool)) for i in range(8)
    ]
    lab.source.count = 8
    lab.source.samples = lambda indices: [blind[i] for i in indices]
    s, gradient, loss = one_step(lab, tmp_path)
    assert loss == 0 and gradient.eq(0).all() and flat(s).isfinite().all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_before_the_update(lab, tmp_path, value):
    s, run = lab.begin(lab.config(("depth",)), tmp_path)
    good, calls = s.diffusion.loss, []

    def bad(*arguments):
        calls.append(1)
        errors, counts = good(*arguments)
        return (errors + value if len(calls) == 3 else errors), counts

    s.diffusion.loss = bad
    kept = []
    update = s.ema.update
    s.ema.update = lambda net: (update(net), kept.append(flat(s)))[0]
    with pytest.raises(UserError) as caught:
        train(s, run, Console(enabled=False))
    message = str(caught.value)
    samples = list(s.mixture.draw(2).indices)
    assert message.startswith(
        f"loss is {value} at step 2, task depth, samples {samples} of scenes."
    )
    assert "Weights were not updated" in message and "training.lr" in message
    assert "continue from the start" in message
    assert len(kept) == 2 and torch.equal(flat(s), kept[-1]) and s.step == 2


def test_the_message_names_the_checkpoint_to_continue_from(lab, tmp_path):
    s, run = lab.begin(lab.config(("depth",), checkpoint_every=16), tmp_path)
    good = s.diffusion.loss
    s.diffusion.loss = lambda *a: good(*a) if s.step < 5 else tuple(x * math.nan for x in good(*a))
    with pytest.raises(UserError, match="step-000004 with another seed"):
        train(s, run, Console(enabled=False))


@pytest.mark.parametrize("accumulate, world", [(1, 1), (4, 1), (1, 2), (2, 4)])
def test_processes_and_micro_batches_share_out_the_rows(lab, tmp_path, accumulate, world):
    s, _ = lab.begin(lab.config(("depth",), accumulate=accumulate), tmp_path)
    rows = []
    for rank in range(world):
        s.accelerator = type("", (), {"num_processes": world, "process_index": rank})()
        parts = s.micro_batches()
        assert len(parts) == accumulate
        rows += [row for part in parts for row in part]
    assert sorted(rows) == list(range(8))


def test_noise_levels_are_stratified_over_the_batch_and_belong_to_rows(lab, tmp_path):
    config = lab.config(("depth",))
    s, _ = lab.begin(replace(config, diffusion=replace(config.diffusion, shift=1.0)), tmp_path)
    whole = read_part(s, s.mixture.draw(0), 3, range(8))
    t, noise = levels_and_noise(s, 3, range(8), whole)
    assert (t.sort().values * 8).floor().tolist() == list(range(8))
    part = read_part(s, s.mixture.draw(0), 3, range(4, 6))
    some_t, some_noise = levels_and_noise(s, 3, range(4, 6), part)
    assert torch.equal(some_t, t[4:6]) and torch.equal(some_noise, noise[4:6])
    later_t, later_noise = levels_and_noise(s, 4, range(8), whole)
    assert not torch.equal(later_t, t) and not torch.equal(later_noise, noise)


def test_rows_are_mirrored_as_drawn(lab, tmp_path):
    s, _ = lab.begin(lab.config(("flow",)), tmp_path)
    draw = s.mixture.draw(0)
    assert len(set(draw.mirrored)) == 2
    coded = read_part(s, draw, 0, range(8)).coded
    truth = torch.stack([lab.source[i].image for i in draw.indices]) / 127.5 - 1
    mirrored = torch.tensor(draw.mirrored)[:, None, None, None]
    torch.testing.assert_close(coded.cond[:, :3], torch.where(mirrored, truth.flip(-1), truth))


def test_a_fixed_batch_is_learned_by_heart(lab, tmp_path):
    lab.source.count = 8
    config = lab.config(("depth",), images=8 * 60, flip=False, log_every=8)
    lab.train(config, tmp_path)
    first, *_, last = lab.losses(tmp_path)
    assert first > 0.2 and last < 0.02


def val_row(value: float, **rivals: float) -> dict:
    return {
        "task": "depth",
        "metrics": {"n_images": 4.0, "abs_rel": value},
        "baselines": {name: {"n_images": 4.0, "abs_rel": one} for name, one in rivals.items()},
    }


def test_the_best_score_is_the_mean_log_ratio_to_the_best_rival():
    rows = [val_row(0.2, constant=0.8, mean_map=0.4), val_row(0.3, constant=0.1)]
    assert best_score(rows) == pytest.approx((math.log(0.5) + math.log(3)) / 2)


def test_a_generator_goes_by_its_loss():
    rows = [
        {"task": "image", "loss": loss, "metrics": {"energy": energy}, "baselines": {}}
        for loss, energy in ((0.3, 0.1), (0.2, 0.4))
    ]
    assert best_score(rows[1:]) < best_score(rows[:1])


def test_of_metrics_better_when_larger_the_shortfall_counts():
    row = {
        "task": "amodal",
        "metrics": {"iou": 0.9},
        "baselines": {"a": {"iou": 0.6}, "b": {"iou": 0.8}},
    }
    assert best_score([row]) == pytest.approx(math.log(0.1 / 0.2))
