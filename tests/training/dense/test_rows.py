"""Which rows a batch asks what, what that costs, and what cannot be asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from stepsight.errors import UserError
from stepsight.training.config import RowsSettings, TrainingSettings
from stepsight.training.dense.checks import check_objective
from stepsight.training.dense.rows import Rows, counts, rows_of, rows_per_picture

SHARES = (5, 2, 3)  # of 8 pictures: starts, of which roll on, and noised truth
USUAL = TrainingSettings(batch=8)


# ---------------------------------------------------------------------------- which rows


@dataclass(frozen=True)
class Kinds:
    """What is asked of each picture, by its number in the batch."""

    noisy: dict[int, float]  # of those that start
    rollouts: dict[int, float | None]  # how deep those go that roll on
    later: frozenset[int]

    @classmethod
    def of(cls, rows: Rows, pictures: range) -> Kinds:
        start = [pictures[at] for at in rows.start.tolist()]
        rolling = [start[at] for at in rows.rollouts.tolist()]
        later = [pictures[at] for at in rows.later.tolist()]
        assert later[: len(rolling)] == rolling  # those that roll on come first
        assert len(set(later)) == len(later) and len(set(start)) == len(start)
        deep = [None] * len(rolling) if rows.deep is None else rows.deep.tolist()
        noisy = dict(zip(start, rows.noisy.tolist(), strict=True))
        return cls(noisy, dict(zip(rolling, deep, strict=True)), frozenset(later))

    def __or__(self, other: Kinds) -> Kinds:
        assert not (self.noisy.keys() & other.noisy.keys() or self.later & other.later)
        return Kinds(
            self.noisy | other.noisy, self.rollouts | other.rollouts, self.later | other.later
        )


def kinds(settings: TrainingSettings, step: int, pictures: range) -> Kinds:
    return Kinds.of(rows_of(settings, step, pictures), pictures)


@pytest.mark.parametrize("step", range(12))
def test_every_picture_starts_or_is_noised_truth_and_walkers_are_among_the_starts(step):
    found = kinds(USUAL, step, range(8))
    noised = found.later - found.rollouts.keys()
    assert (len(found.noisy), len(found.rollouts), len(noised)) == SHARES
    assert found.rollouts.keys() <= found.noisy.keys()
    assert not noised & found.noisy.keys() and noised | found.noisy.keys() == set(range(8))


@pytest.mark.parametrize(
    ("batch", "rows", "expected"),
    [
        (8, {}, (5, 2)),
        (16, {}, (10, 4)),
        (8, {"start": 0.0, "rollout": 0.0, "denoise": 1.0}, (0, 0)),
        (8, {"start": 1.0, "rollout": 1.0, "denoise": 0.0}, (8, 8)),
        (8, {"start": 0.25, "rollout": 0.25, "denoise": 0.25}, (4, 4)),  # shares, of any sum
        (1, {}, (1, 0)),
        (3, {"start": 0.5, "rollout": 0.5, "denoise": 0.5}, (2, 2)),
    ],
)
def test_how_many_start_and_walk_on(batch, rows, expected):
    assert counts(RowsSettings(**rows), batch) == expected


@pytest.mark.parametrize("cut", [(8,), (4, 4), (2, 2, 2, 2), (1,) * 8, (3, 5)])
def test_the_kinds_do_not_depend_on_how_the_batch_is_cut(cut):
    settings = replace(USUAL, rows=RowsSettings(deep=0.5, noisy=0.5))
    for step in range(6):
        whole, first = kinds(settings, step, range(8)), 0
        parts = []
        for size in cut:
            parts.append(kinds(settings, step, range(first, first + size)))
            first += size
        together = parts[0]
        for part in parts[1:]:
            together |= part
        assert together == whole


def test_they_are_functions_of_seed_and_step_and_differ_between_them():
    def several(seed: int, steps: Sequence[int]) -> list[Kinds]:
        return [kinds(replace(USUAL, seed=seed), step, range(8)) for step in steps]

    forwards = several(3, range(20))
    assert several(3, range(19, -1, -1))[::-1] == forwards
    assert several(4, range(20)) != forwards
    assert len({tuple(one.noisy.values()) for one in forwards}) > 5
    depths = [depth for one in forwards for depth in one.rollouts.values() if depth is not None]
    assert len(set(depths)) == len(depths) > 2


@pytest.mark.parametrize("batch", [8, 16, 32])
@pytest.mark.parametrize("parts", [2, 4])
def test_stretches_of_a_batch_have_about_equal_work(batch, parts):
    """A process takes a stretch: of every kind it has as many as another, give or take one."""
    size, found = batch // parts, []
    for first in range(0, batch, size):
        own = kinds(replace(USUAL, batch=batch), 0, range(first, first + size))
        found.append((len(own.noisy), len(own.rollouts), len(own.later)))
    assert all(max(counts) - min(counts) <= 1 for counts in zip(*found))


def test_over_many_steps_noise_and_deep_walks_have_their_shares():
    """2000 steps: within five deviations of a binomial count."""
    settings, steps = replace(USUAL, rows=RowsSettings(noisy=0.2, deep=0.25)), 2000
    noisy, deep, depths = Counter[int](), 0, []
    for step in range(steps):
        found = kinds(settings, step, range(8))
        noisy.update(found.noisy)
        own = [one for one in found.rollouts.values() if one is not None]
        assert len(own) in (0, 2)  # all rollouts of a step take the call between, or none
        deep, depths = deep + bool(own), depths + own
    for count in noisy.values():  # of each picture that starts
        assert abs(count - 0.2 * steps) < 5 * (steps * 0.2 * 0.8) ** 0.5
    assert len(noisy) == 5 and abs(deep - 0.25 * steps) < 5 * (steps * 0.25 * 0.75) ** 0.5
    assert 0 <= min(depths) < 0.02 and 0.98 < max(depths) < 1
    assert abs(sum(depths) / len(depths) - 0.5) < 5 * (1 / 12 / len(depths)) ** 0.5


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ({}, 1 + 2 / 8 * (1 + 0.25 / 3)),
        ({"start": 0.0, "rollout": 0.0, "denoise": 1.0}, 1),
        ({"start": 1.0, "rollout": 1.0, "denoise": 0.0, "deep": 1.0}, 1 + 1 + 1 / 3),
        (
            {"start": 0.2, "rollout": 0.05, "denoise": 0.8},
            1,
        ),  # rounded: no rollout of eight pictures
    ],
)
def test_what_a_picture_costs_counts_walks_and_their_calls_between(lab, rows, expected):
    """A call without gradient is a third of one with it."""
    assert rows_per_picture(lab.config(rows=rows)) == pytest.approx(expected)


def test_end_to_end_a_picture_costs_one_call(lab):
    config = lab.config()
    diffusion = replace(config.diffusion, objective="end_to_end")
    assert rows_per_picture(replace(config, diffusion=diffusion)) == 1


# ---------------------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("tasks", "training", "diffusion", "said"),
    [
        (("depth",), {}, {"prediction": "eps"}, "'eps' says nothing about the image at t = 1"),
        (("image",), {"loss": "squared"}, {}, "training.rows.start: .*from noise, not from zeros"),
        (
            ("depth",),
            {"loss": "task", "rows": {"rollout": 0.0}},
            {"prediction": "v"},
            "training.loss task: .*--training.loss squared",
        ),
        (
            ("depth",),
            {"loss": "task", "rows": {"start": 0.0, "rollout": 0.0}},
            {"weighting": "min_snr"},
            "training.loss task: .*uniform weight",
        ),
        (("depth",), {}, {"prediction": "v"}, "training.rows.rollout: .* weigh them by 1/t\\^2"),
        (("depth",), {}, {"weighting": "min_snr"}, "training.rows.start: .* gives rows at t = 1"),
        (("depth",), {}, {"multires_noise": 0.9}, "training.rows.noisy: .*multires_noise"),
        (("depth",), {}, {"guidance": 2.0}, "guidance=2: no label of task depth is hidden"),
        (("depth",), {}, {"sampler": "ancestral_learned"}, "set diffusion.variance trained"),
        (("depth",), {"latents": "cache"}, {}, "training.loss auto: .*training.latents"),
        (("depth",), {"latents": "cache", "loss": "task"}, {}, "training.loss task: .*latents"),
    ],
)
def test_what_cannot_be_trained_is_refused(lab, tasks, training, diffusion, said):
    config = lab.config(tasks, **training)
    changed = replace(config, diffusion=replace(config.diffusion, **diffusion))
    with pytest.raises(UserError, match=said):
        check_objective(changed, begun=False)


def test_the_tasks_own_errors_need_pixels(lab):
    for loss in ("task", "auto", "squared"):
        config = lab.config(("depth",), loss=loss)
        latents = replace(config, codec=replace(config.codec, path="vae"))
        if loss == "task":
            with pytest.raises(UserError, match="training.loss task: .*without a codec"):
                check_objective(latents, begun=False)
        else:
            check_objective(latents, begun=False)
            assert not latents.own_errors
        assert config.own_errors == (loss != "squared")


@pytest.mark.parametrize(
    ("tasks", "diffusion", "training"),
    [
        (("image",), {}, {"rows": {"start": 0.0, "rollout": 0.0, "denoise": 1.0}}),
        (("depth",), {"prediction": "v"}, {"rows": {"rollout": 0.0}}),
        (("depth",), {"weighting": "min_snr"}, {"rows": {"start": 0.0, "rollout": 0.0}}),
        (("depth",), {"multires_noise": 0.9}, {"rows": {"noisy": 0.0}}),
        (
            ("depth",),
            {"prediction": "eps", "schedule": "linear"},
            {"rows": {"rollout": 0.0}, "loss": "squared"},
        ),
    ],
)
def test_what_the_refusals_advise_is_trained(lab, tmp_path, tasks, diffusion, training):
    config = lab.config(tasks, images=8, **training)
    config = replace(config, diffusion=replace(config.diffusion, **diffusion))
    check_objective(config, begun=False)
    lab.train(config, tmp_path)
    assert lab.losses(tmp_path)[0] > 0
