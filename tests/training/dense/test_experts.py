"""A mixture of experts in training: who serves whom is logged, and evenness is trained for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stepsight.config import RunConfig
from stepsight.diffusion.objective import Diffusion
from stepsight.models.moe import balance_loss, balance_of
from stepsight.training.dense.batches import counts_of, errors_of, levels_and_noise, read_parts

LAYERS, EXPERTS = 3, 4


def config_of(lab, tasks=("depth",), **changes: Any) -> RunConfig:
    model = {key: changes.pop(key) for key in ("balance", "shared_experts") if key in changes}
    """Of noised truth alone, unless `rows` say otherwise."""
    config = lab.config(tasks, **lab.plain | changes)
    return replace(config, model=replace(config.model, name="DiT-Ti/8-4E2A", **model))


def step_of(lab, folder: Path, **changes: Any) -> Tensor:
    """The gradient "p" of the first batch, through the loop."""
    config = config_of(lab, images=8, clip=0.0, warmup=0, decay="constant", **changes)
    return lab.begin(config, folder).step(scale=0.1)


def test_the_shares_of_the_experts_are_logged_by_task_and_layer(lab, tmp_path):
    lab.train(config_of(lab, ("depth", "flow"), log_every=16), tmp_path)
    seen = set()
    for row in lab.rows(tmp_path):
        found = {key.partition("/")[2] for key in row if key.startswith("experts/")}
        assert found == {key.partition("/")[2] for key in row if key.startswith("loss/")}
        for task in found:
            shares = row[f"experts/{task}"]
            assert len(shares) == LAYERS and all(len(layer) == EXPERTS for layer in shares)
            for layer in shares:
                assert sum(layer) == pytest.approx(1, abs=3e-4)  # four figures rounded to 1e-4
                assert all(0 <= share <= 0.5 for share in layer)  # two of four serve each token
        seen |= found
    assert seen == {"depth", "flow"}


ROWS = [("plain", 16), ("rollouts", 2 * (5 + 5))]  # rows of 16 pictures


@pytest.mark.parametrize(("kind", "count"), ROWS)
def test_the_shares_are_of_all_tokens_since_the_last_line(lab, tmp_path, kind, count):
    """Counted again call by call, with the weights standing still."""
    rows = {"rows": {"deep": 1.0}} if kind == "rollouts" else {}
    config = config_of(lab, lr=0.0, muon_lr=0.0, log_every=16, images=16, micro_batch="4", **rows)
    run = lab.begin(config, tmp_path).roughen(0.1)
    usage: list[list[Tensor]] = [[] for _ in range(LAYERS)]
    for layer, seen in enumerate(usage):

        def note(moe: Any, *_: Any, seen: list[Tensor] = seen) -> None:
            if moe.training and torch.is_grad_enabled():  # not in the pass ahead
                seen.append(moe.usage.sum(dim=0))

        run.net.blocks[layer].moe.register_forward_hook(note)
    run.train()
    training = torch.stack([torch.stack(one).sum(dim=0) for one in usage])
    expected = training / training.sum(dim=1, keepdim=True)
    assert training.sum() == count * 4 * 2 * LAYERS  # rows, tokens, experts a token
    (row,) = lab.rows(tmp_path)
    torch.testing.assert_close(torch.tensor(row["experts/depth"]), expected, atol=6e-5, rtol=0)


def test_tasks_that_share_a_batch_are_counted_apart(lab, tmp_path):
    run = lab.begin(config_of(lab, ("depth", "flow"), rows={"deep": 1.0}), tmp_path).roughen(0.1)
    objective = run.objective
    parts = objective.read(run.feed, run.feed.draw(0), 0, range(8))
    objective.errors(*objective.prepare(parts, 0, range(8)))
    depth, flow = objective.errors.usage["depth"], objective.errors.usage["flow"]
    for usage in (depth, flow):
        assert (usage.sum(dim=1) == (5 + 5) * 4 * 2).all()  # rows, tokens, experts a token
    assert not torch.equal(depth, flow)


def test_the_balance_of_a_batch_is_the_mean_over_its_rows(lab, tmp_path):
    """Calls of the first kind and of the second; not those on the way, which have no gradient."""
    run = lab.begin(config_of(lab, ("depth", "flow"), rows={"deep": 1.0}), tmp_path).roughen(0.1)
    objective = run.objective
    calls: list[tuple[int, Tensor]] = []
    for block in run.net.blocks:
        block.moe.register_forward_hook(
            lambda moe, inputs, _: (
                calls.append((len(inputs[0]), moe.balance)) if torch.is_grad_enabled() else None
            )
        )
    parts = objective.read(run.feed, run.feed.draw(0), 0, range(3))
    codings, rows = objective.prepare(parts, 0, range(3))
    objective.errors(codings, rows)
    counts = [count for count, _ in calls]
    sizes = [2 * len(rows.start), 2 * len(rows.later)]
    assert counts == [sizes[0]] * LAYERS + [sizes[1]] * LAYERS and min(sizes)
    expected = sum(count * balance for count, balance in calls) / sum(sizes)
    torch.testing.assert_close(balance_of(*objective.errors.routing), expected)


@pytest.mark.parametrize("rows", [{}, {"rows": {"deep": 1.0}}], ids=["plain", "rollouts"])
def test_micro_batches_do_not_change_the_balance_loss(lab, tmp_path, rows):
    """Of rows whose routing differs, a balance per micro-batch is far from that of all."""
    runs = [
        step_of(lab, tmp_path / size, balance=10.0, micro_batch=size, **rows) for size in ("8", "2")
    ]
    without = step_of(lab, tmp_path / "without", balance=0.0, **rows)
    for cut in runs[1:]:
        torch.testing.assert_close(cut, runs[0], atol=2e-6, rtol=1e-4)
    assert (runs[0] - without).abs().max() > 1e-2


def test_without_experts_there_is_no_such_line(lab, tmp_path):
    lab.train(lab.config(("depth",), images=8), tmp_path)
    assert not [key for key in lab.rows(tmp_path)[0] if key.startswith("experts/")]


def test_the_balance_loss_enters_the_gradient_with_its_weight(lab, tmp_path):
    """The difference to a run without it is its own gradient."""
    plain = step_of(lab, tmp_path / "plain", balance=0.0)
    balanced = step_of(lab, tmp_path / "balanced", balance=0.7)
    run = lab.begin(config_of(lab, images=8), tmp_path / "again").roughen(0.1)
    (part,) = read_parts(run.pipeline, run.feed, run.feed.draw(0), 0, range(8))
    errors_of(run.pipeline, part, *levels_and_noise(run.pipeline, 0, range(8), part))
    (0.7 * balance_loss(run.net)).backward()
    own = [torch.zeros_like(p) if p.grad is None else p.grad for p in run.net.parameters()]
    expected = torch.cat([one.flatten() for one in own])
    gates = [p.grad for name, p in run.net.named_parameters() if name.endswith("gate.weight")]
    assert len(gates) == LAYERS and all(one is not None and one.norm() > 1e-3 for one in gates)
    torch.testing.assert_close(balanced - plain, expected, atol=5e-6, rtol=1e-3)


def test_the_logged_loss_is_that_of_the_images_alone(lab, tmp_path):
    runs = [("a", {"balance": 0.0}), ("b", {"balance": 100.0})]
    losses = []
    for name, changes in runs:
        lab.train(config_of(lab, images=8, **changes), tmp_path / name)
        losses.append(lab.losses(tmp_path / name))
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_a_whole_run_with_shared_experts(lab, tmp_path):
    """Through validation, checkpoint and evaluation: records tell the active parameters."""
    from stepsight.scaling import records

    config = config_of(lab, ("depth",), shared_experts=1, images=16, evaluate=True)
    run = lab.fit(config, tmp_path / "run")
    found, notes = records.read(run)
    assert found and not notes
    net = lab.begin(config, tmp_path / "other").net
    experts = 2 * (64 * 256) + 256 + 64  # an MLP of width 64
    every = sum(p.numel() for p in net.parameters())
    assert {one.params_active for one in found} == {every - LAYERS * 2 * experts}


def test_the_usual_loss_is_the_diffusions_own(lab, tmp_path):
    run = lab.begin(config_of(lab), tmp_path).roughen(0.1)
    (part,) = read_parts(run.pipeline, run.feed, run.feed.draw(0), 0, range(8))
    t, noise = levels_and_noise(run.pipeline, 0, range(8), part)
    own, count = Diffusion(run.config.diffusion).loss(run.net, part.coded, t, noise)
    assert torch.equal(errors_of(run.pipeline, part, t, noise), own)
    assert torch.equal(counts_of(run.pipeline, part), count)
