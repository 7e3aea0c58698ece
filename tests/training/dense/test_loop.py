"""One step at a time: what a batch's loss and gradient are, however the batch is cut."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stepsight.training.dense.batches import levels_and_noise, read_parts
from stepsight.training.dense.validation import best_score
from stepsight.training.feed import micro_batches


def one_step(lab, folder, tasks=("flow",), step: int = 0, **changes) -> tuple[Any, Tensor, float]:
    """The gradient "p" and the loss of batch number `step`, through the loop itself."""
    config = lab.config(
        tasks, images=8 * (step + 1), clip=0.0, warmup=0, decay="constant", **changes
    )
    return first_step(lab, config, folder, step)


def first_step(lab, config, folder, step: int = 0) -> tuple[Any, Tensor, float]:
    """The same of a run of `step` + 1 batches, without clipping and warm-up."""
    run = lab.begin(config, folder)
    gradient = run.step(step)
    return run, gradient, lab.losses(folder)[-1]


@pytest.mark.parametrize("task", ["flow", "depth", "amodal", "semantic"])
def test_loss_and_gradient_are_means_over_the_valid_entries_of_the_batch(lab, tmp_path, task):
    """Of noised truth alone: written out again with one network call over the whole batch."""
    run, gradient, loss = one_step(lab, tmp_path, (task,), flip=True, **lab.plain)
    net = lab.begin(run.config, tmp_path / "again").roughen().net
    diffusion = run.pipeline.diffusion
    (part,) = read_parts(run.pipeline, run.feed, run.feed.draw(0), 0, range(8))
    coded = part.coded
    shares = coded.valid.mean(dim=(1, 2, 3))
    assert shares.max() > 2 * shares.min()
    t, noise = levels_and_noise(run.pipeline, 0, range(8), part)
    noisy = diffusion.corrupt(coded.x, noise, t)
    more = {"features": coded.features}
    if coded.look is not None:
        seen = coded.look(diffusion.estimate(noisy, t), coded.cond)
        more["looked"] = (seen, None)
    output = net(noisy, coded.cond, diffusion.schedule.condition(t), coded.label, **more)
    wrong = (output - diffusion.target(coded.x, noise, t))[coded.valid.bool()]
    expected = wrong.square().mean()
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(gradient, gradient_of(net), atol=2e-6, rtol=1e-3)


def gradient_of(net: nn.Module) -> Tensor:
    """The gradient "p" that the network's parameters hold."""
    each = [torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters()]
    return torch.cat([one.flatten() for one in each])


def test_loss_and_gradient_are_means_over_tasks_and_kinds_of_their_means(lab, tmp_path):
    """The errors themselves are held in `test_row_errors.py`; here, what they are divided by."""
    tasks = {"depth": 1.0, "flow": 3.0, "semantic": 2.0}
    config = lab.config(tasks, images=8, clip=0.0, warmup=0, decay="constant")
    for task, weight in tasks.items():
        config.tasks[task] = replace(config.tasks[task], weight=weight)
    _, gradient, loss = first_step(lab, config, tmp_path / "run")
    again = lab.begin(config, tmp_path / "again").roughen()
    parts = again.objective.read(again.feed, again.feed.draw(0), 0, range(8))
    codings, rows = again.objective.prepare(parts, 0, range(8))
    errors, means = again.objective.errors(codings, rows), {}
    for part, own in zip(parts, errors):
        valid = part.coded.valid
        kinds = [own[0] / valid[rows.start].sum(), own[1] / valid[rows.later].sum()]
        means[part.task.name] = sum(kinds) / 2
    sum(tasks[task] / 2 * mean for task, mean in means.items()).backward()  # their mean weight is 2
    (row,) = lab.rows(tmp_path / "run")
    for task, mean in means.items():
        assert row[f"loss/{task}"] == pytest.approx(mean.item(), rel=1e-5)
    assert loss == pytest.approx(sum(means.values()).item() / 3, rel=1e-5)
    torch.testing.assert_close(gradient, gradient_of(again.net), atol=2e-6, rtol=1e-3)


@pytest.mark.parametrize("rows", [{}, {"rows": {"deep": 1.0}}], ids=["shallow", "deep"])
@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_micro_batches_change_neither_loss_nor_gradient(lab, tmp_path, accumulate, rows):
    """Also where a micro-batch has rows of one kind only."""
    tasks = ("flow", "semantic")
    _, whole, loss = one_step(lab, tmp_path / "whole", tasks, **rows)
    _, split, summed = one_step(
        lab, tmp_path / "split", tasks, micro_batch=str(8 // accumulate), **rows
    )
    assert whole.norm() > 0.01
    assert summed == pytest.approx(loss, abs=1e-6)
    torch.testing.assert_close(split, whole, atol=4e-6, rtol=2e-4)


def test_a_batch_without_a_valid_pixel_costs_nothing_and_breaks_nothing(lab, tmp_path):
    blind = [
        replace(lab.source[i], flow_valid=torch.zeros(1, 16, 16, dtype=bool)) for i in range(8)
    ]
    lab.source.count = 8
    lab.source.samples = lambda indices: [blind[i] for i in indices]
    run, gradient, loss = one_step(lab, tmp_path)
    assert loss == 0 and gradient.eq(0).all() and run.weights().isfinite().all()


@pytest.mark.parametrize("accumulate, world", [(1, 1), (4, 1), (1, 2), (2, 4)])
def test_processes_and_micro_batches_share_out_the_rows(lab, accumulate, world):
    settings, rows = lab.config(("depth",), micro_batch=str(8 // accumulate // world)).training, []
    for rank in range(world):
        parts = micro_batches(settings, rank, world)
        assert len(parts) == accumulate
        rows += [row for part in parts for row in part]
    assert sorted(rows) == list(range(8))


def test_noise_levels_are_stratified_over_the_batch_and_belong_to_rows(lab, tmp_path):
    config = lab.config(("depth",))
    config = replace(config, diffusion=replace(config.diffusion, shift=1.0))
    run = lab.begin(config, tmp_path)
    pipeline, draw = run.pipeline, run.feed.draw(0)
    (whole,) = read_parts(pipeline, run.feed, draw, 3, range(8))
    t, noise = levels_and_noise(pipeline, 3, range(8), whole)
    assert (t.sort().values * 8).floor().tolist() == list(range(8))
    (part,) = read_parts(pipeline, run.feed, draw, 3, range(4, 6))
    some_t, some_noise = levels_and_noise(pipeline, 3, range(4, 6), part)
    assert torch.equal(some_t, t[4:6]) and torch.equal(some_noise, noise[4:6])
    later_t, later_noise = levels_and_noise(pipeline, 4, range(8), whole)
    assert not torch.equal(later_t, t) and not torch.equal(later_noise, noise)


def test_rows_are_mirrored_as_drawn(lab, tmp_path):
    run = lab.begin(lab.config(("flow",)), tmp_path)
    draw = run.feed.draw(0)
    assert len(set(draw.mirrored)) == 2
    coded = read_parts(run.pipeline, run.feed, draw, 0, range(8))[0].coded
    truth = torch.stack([lab.source[i].image for i in draw.indices]) / 127.5 - 1
    mirrored = torch.tensor(draw.mirrored)[:, None, None, None]
    torch.testing.assert_close(coded.cond[:, :3], torch.where(mirrored, truth.flip(-1), truth))


def test_a_fixed_batch_is_learned_by_heart(lab, tmp_path):
    lab.source.count = 8
    config = lab.config(("depth",), images=8 * 60, flip=False, log_every=8)
    lab.train(config, tmp_path)
    first, *_, last = lab.losses(tmp_path)
    assert first > 0.2 and last < 0.1 * first


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


def test_a_task_whose_answers_are_no_numbers_spoils_the_score():
    rows = [val_row(math.nan, constant=0.2), val_row(1.0, constant=2.0)]
    assert best_score(rows) == math.inf
    rows[0] = val_row(math.nan, constant=math.nan)  # there was nothing to measure
    assert best_score(rows) == pytest.approx(math.log(0.5))
