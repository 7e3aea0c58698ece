"""A run that its own numbers cannot ruin: what is not applied, not published, and the way back."""

from __future__ import annotations

import itertools
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stepsight import checkpoint
from stepsight.errors import UserError
from stepsight.training.config import TrainingSettings
from stepsight.training.health import fault_of, is_healthy, largest

SAVING = {"checkpoint_every": 16, "keep": 8}


@pytest.fixture
def begin(lab, tmp_path) -> Callable[..., Any]:
    def of(**changes: Any) -> Any:
        return lab.begin(lab.config(("depth",), **SAVING | changes), tmp_path / "run")

    return of


def ill_losses(run: Any, value: float, *steps: int) -> None:
    """Make the errors of some steps `value`."""
    good = run.learner.module.forward

    def bad(*arguments: Any) -> torch.Tensor:
        applies = run.progress.step in steps and torch.is_grad_enabled()
        return good(*arguments) + (value if applies else 0)

    run.learner.module.forward = bad


def ill_gradients(run: Any, value: float, *steps: int) -> None:
    """Put a number into one entry of one gradient; the loss stays what it is."""
    p = run.net.output.weight
    p.register_hook(
        lambda g: g.index_fill(0, torch.tensor(3), value) if run.progress.step in steps else g
    )


ILL = {"loss": ill_losses, "gradient": ill_gradients}


def events(lab: Any, run: Any, kind: str) -> list[dict[str, Any]]:
    return [row for row in lab.rows(run.writer.path, "event") if row["event"] == kind]


def published(run: Any) -> list[checkpoint.Checkpoint]:
    return [checkpoint.read(path) for path in checkpoint.completed(run.writer.checkpoints)]


def all_published_finite(run: Any) -> bool:
    names = (checkpoint.RAW, checkpoint.BACKBONE, checkpoint.OPTIMIZER)
    tensors = [t for one in published(run) for name in names for t in one.tensors(name).values()]
    return bool(tensors) and all(bool(t.isfinite().all()) for t in tensors)


@pytest.mark.parametrize(
    "where, value", [("loss", math.nan), ("loss", math.inf), ("gradient", -math.inf)]
)
def test_a_bad_step_is_not_applied_and_counted(lab, begin, where, value):
    run = begin()
    ILL[where](run, value, 2)
    kept, update = [], run.learner.ema.update
    run.learner.ema.update = lambda *a: (
        update(*a),
        kept.append((run.progress.step, run.weights())),
    )
    run.train()
    assert [step for step, _ in kept] == [1, 2, 4, 5, 6, 7, 8]
    assert run.progress.skipped == 1 and run.progress.step == 8
    (row,) = events(lab, run, "skipped")
    assert row["step"] == 3 and "scenes" in row["text"]
    assert all_published_finite(run) and len(published(run)) == 4


def test_a_skipped_step_is_no_part_of_a_log_line(lab, begin):
    run = begin(log_every=16)
    ill_losses(run, math.nan, 2)
    run.train()
    assert all(math.isfinite(loss) for loss in lab.losses(run.writer.path))


@pytest.mark.parametrize("where", ILL)
def test_stop_names_the_step_and_the_way_on(lab, begin, where):
    run = begin(on_spike="stop")
    ILL[where](run, math.nan, 3)
    with pytest.raises(UserError) as caught:
        run.train()
    message, samples = str(caught.value), list(run.feed.mixture.draw(3).indices)
    assert f"{where}" in message and f"samples {samples} of scenes" in message
    assert "step-000002" in message and message.endswith("--training.on_spike skip")
    assert all_published_finite(run)


def test_too_many_bad_steps_in_a_row_stop_the_run(begin):
    run = begin(spike_cap=3)
    ill_losses(run, math.nan, *range(2, 8))
    with pytest.raises(UserError, match="3 steps in a row .* No update was applied since step 2"):
        run.train()
    assert run.progress.step == 5


def test_bad_steps_that_are_not_in_a_row_do_not(begin):
    run = begin(spike_cap=2)
    ill_losses(run, math.nan, 1, 3, 5)
    assert run.train().progress.skipped == 3


@pytest.mark.parametrize("where", ILL)
def test_rewind_takes_the_last_checkpoint_and_goes_on_past_the_batches(lab, begin, where):
    run = begin(on_spike="rewind", rewind_lr=0.25, checkpoint_every=32)
    ILL[where](run, math.nan, 6)
    weights, descend = {}, run.learner.descend

    def noted(progress: Any, losses: torch.Tensor) -> torch.Tensor:
        weights[progress.step] = run.weights()
        return descend(progress, losses)

    run.learner.descend = noted
    run.train()
    saved = checkpoint.read(run.writer.checkpoints / "step-000004").tensors(checkpoint.RAW)
    names = [name for name, _ in run.net.named_parameters()]
    assert torch.equal(weights[7], torch.cat([saved[name].flatten() for name in names]))
    assert run.progress.step == 8 and run.progress.rewinds == 1 and run.progress.rate == 0.25
    last = checkpoint.read(run.writer.checkpoints / "step-000008").meta
    assert last["rate"] == 0.25 and last["ledger"][0]["what"] == "rewound"
    assert last["ledger"][0]["weights"] == 4
    rates = {row["step"]: row["lr"] for row in lab.rows(run.writer.path)}
    assert rates[8] < 0.25 * rates[6]


def test_rewinding_without_a_checkpoint_stops(begin):
    run = begin(on_spike="rewind", checkpoint_every=0)
    ill_losses(run, math.nan, 2)
    with pytest.raises(UserError, match="no checkpoint to go back to .* --overwrite"):
        run.train()


def test_the_way_on_without_a_checkpoint_starts_from_the_same_weights(lab, tmp_path):
    parent = lab.fit(lab.config(("depth",), images=8), tmp_path / "parent")
    wild = {"optimizer": "adamw", "lr": 1e30, "clip": 0.0, "warmup": 0, "spike_cap": 2}
    with pytest.raises(
        UserError, match=r"--overwrite --init-from \S+parent/checkpoints/step-"
    ) as it:
        lab.fit(lab.config(("depth",), **wild), tmp_path / "run", init_from=str(parent))
    assert "--resume" not in str(it.value)


@pytest.mark.parametrize("what", ["weights", "averaged weights", "optimizer state"])
def test_what_is_not_finite_is_never_published(begin, what):
    """Whatever made it so: between the update and the save."""
    run = begin(spike_cap=2)
    descend = run.learner.descend

    def poisoned(progress: Any, losses: torch.Tensor) -> torch.Tensor:
        verdict = descend(progress, losses)
        if progress.step == 3:
            run.learner.parts()[what][-1][..., 0] = math.nan
        return verdict

    run.learner.descend = poisoned
    with pytest.raises(UserError, match=f"not finite after step 4: .*{what}.* Nothing was publ"):
        run.train()
    assert all_published_finite(run)
    assert [one.path.name for one in published(run)] == ["step-000002"]


def test_weights_that_answer_no_numbers_are_not_published(begin):
    """Finite ones can be as bad."""
    run = begin()
    descend = run.learner.descend

    def blown_up(progress: Any, losses: torch.Tensor) -> torch.Tensor:
        verdict = descend(progress, losses)
        if progress.step == 3:
            run.learner.parts()["weights"][-1].fill_(3e38)
            run.learner.parts()["weights"][-2].fill_(3e38)
        return verdict

    run.learner.descend = blown_up
    with pytest.raises(UserError, match="not finite after step 4: errors"):
        run.train()


def test_the_advice_is_followed_to_success(lab, tmp_path):
    """A learning rate that ruins the weights in a few steps, and what each message says to do."""
    folder = tmp_path / "run"
    wild = {"optimizer": "adamw", "lr": 30.0, "warmup": 0, "clip": 0.0, "spike_cap": 2}
    changes: dict[str, Any] = SAVING | wild | {"images": 160}
    options: dict[str, Any] = {}
    for _ in range(6):
        try:
            lab.fit(lab.config(("depth",), **changes), folder, **options)
            break
        except UserError as error:
            assert folder.name in str(error), error
            options, advised = followed(str(error))
            changes |= advised
    else:
        raise AssertionError("the advice did not help")
    assert 0 < changes["lr"] < 30.0
    saved = checkpoint.read(folder, prefer="last")
    assert saved.meta["step"] == 20
    assert all(bool(t.isfinite().all()) for t in saved.tensors(checkpoint.RAW).values())


def followed(message: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options and settings of the command that a message ends with."""
    words = shlex.split(message.partition("Go on with: ")[2])
    assert Path(words[words.index("--config") + 1]).exists()
    flags = dict(zip(words[4:], words[5:]))
    settings = {
        key.removeprefix("--training."): float(value)
        for key, value in flags.items()
        if key.startswith("--training.")
    }
    options = {"resume": flags["--resume"]} if "--resume" in flags else {"overwrite": True}
    return options, settings


def test_a_gradient_far_beyond_the_usual_is_a_spike_where_that_is_asked_for():
    settings = TrainingSettings(spike=10.0)
    usual = [1.0] * 20
    assert largest(settings, usual) == 10.0
    assert "20 times the recent median" in fault_of(1.0, 20.0, usual)
    assert largest(settings, usual[:5]) == math.inf, "too few to know what is usual"
    assert largest(TrainingSettings(), usual) == math.inf


@pytest.mark.parametrize("loss, norm", [*itertools.product((1.0, math.nan, math.inf), repeat=2)])
def test_a_step_is_healthy_if_its_numbers_are_some_and_usual(loss, norm):
    for limit in (0.5, 1.0, math.inf):
        found = is_healthy(torch.tensor(loss), torch.tensor(norm), limit)
        assert bool(found) == (math.isfinite(loss) and norm <= min(limit, 3e38))


def spike(run: Any, step: int) -> None:
    """A gradient a thousand times as large, in one step."""
    run.net.output.weight.register_hook(lambda g: g * (1e3 if run.progress.step == step else 1))


@pytest.mark.parametrize("log_every", [8, 64])
def test_a_spike_is_not_applied_whenever_the_host_hears_of_it(lab, begin, log_every):
    run = begin(spike=10.0, images=256, log_every=log_every, checkpoint_every=0)
    spike(run, 20)
    run.train()
    (row,) = events(lab, run, "skipped")
    assert row["step"] == 21 and "times the recent median" in row["text"]
    assert len(run.progress.norms) == 31 and run.progress.skipped == 1


FAULTS = {"on_spike": "rewind", "rewind_lr": 0.5, "checkpoint_every": 24, "images": 80}


@pytest.mark.parametrize("changes", [{}, FAULTS], ids=["skip", "rewind"])
def test_a_run_is_the_same_whenever_the_host_hears_of_its_steps(lab, tmp_path, changes):
    """At once, because each has its line in the log, or one step later."""
    found = []
    for name, log_every in (("at once", 8), ("later", 0)):
        config = lab.config(("depth",), **{"images": 80, "log_every": log_every} | changes)
        run = lab.begin(config, tmp_path / name)
        ill_losses(run, math.nan, 4, 7)
        run.train()
        saved = checkpoint.read(run.writer.path, prefer="last")
        names = (checkpoint.RAW, checkpoint.BACKBONE, checkpoint.OPTIMIZER)
        facts = {key: saved.meta[key] for key in ("skipped", "rewinds", "rate", "ledger")}
        found.append(([saved.tensors(one) for one in names], facts))
    (tensors, facts), (others, other_facts) = found
    assert facts == other_facts and facts["skipped"] == 2
    for one, other in zip(tensors, others):
        assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_usual_gradient_is_part_of_a_checkpoint(lab, tmp_path):
    saved = checkpoint.read(lab.fit(lab.config(("depth",), spike=50.0), tmp_path / "run"))
    assert len(saved.meta["norms"]) == 8 and all(norm > 0 for norm in saved.meta["norms"])


def test_half_precision_lowers_its_scale_instead_of_counting_a_fault(begin):
    run = begin(precision="fp16", images=24)
    run.progress.scale = 2.0**40
    run.train()
    assert run.progress.skipped == 0 and run.progress.scale < 2.0**40
    assert run.progress.scale >= 2.0**37


def test_half_precision_learns_what_float32_does(lab, tmp_path):
    losses = {}
    for precision in ("float32", "fp16"):
        run = lab.train(lab.config(("depth",), precision=precision), tmp_path / precision)
        losses[precision] = lab.losses(tmp_path / precision)
        assert run.progress.skipped == 0
    assert losses["fp16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["fp16"] != losses["float32"]


def test_how_fast_it_learns_may_change_and_is_entered_in_the_ledger(lab, tmp_path):
    folder = lab.fit(lab.config(("depth",), **SAVING | {"images": 32}), tmp_path / "run")
    changed = lab.config(("depth",), **SAVING, lr=1e-3, seed=5, ema=0.9)
    lab.fit(changed, folder, resume="auto")
    (entry,) = checkpoint.read(folder, prefer="last").meta["ledger"]
    assert entry["step"] == 4 and entry["what"] == "changed"
    assert entry["settings"] == [
        "training.ema 0.99 -> 0.9",
        "training.lr 0.003 -> 0.001",
        "training.seed 0 -> 5",
    ]
