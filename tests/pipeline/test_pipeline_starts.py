"""What members start from, how a task is usually answered, and how its uncertainty is scaled."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from drawn import member_noise
from torch import Tensor

from stepsight import checkpoint
from stepsight.errors import UserError
from stepsight.evaluation.config import EvaluationSettings
from stepsight.pipeline.defaults import SamplingSetting
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.inputs import content_keys
from stepsight.seeding import generator
from stepsight.types import Batch

SIZE = (24, 32)
CHOSEN = {"nfe": 3, "members": 2, "temperature": 0.5, "views": "none"}


def batch_of(rows: int) -> Batch:
    image = 2 * torch.rand(rows, 3, *SIZE, generator=generator("starts")) - 1
    return Batch(image, [f"image{row}" for row in range(rows)], ["toys"] * rows)


def starts(pipeline: DensePipeline, run: Callable[[], Any]) -> list[Tensor]:
    """What the network is given at every call."""
    seen: list[Tensor] = []
    hook = pipeline.net.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    run()
    hook.remove()
    return seen


def start(pipeline: DensePipeline, members: int = 1, rows: int = 2, **options: Any) -> Tensor:
    """The first call's, "e b c h w"."""
    sampled = lambda: pipeline.sample(  # noqa: E731
        batch_of(rows), "depth", nfe=1, members=members, **options
    )
    return torch.cat(starts(pipeline, sampled)).unflatten(0, (members, rows))


# ---------------------------------------------------------------------------- temperature


def test_at_temperature_0_a_walk_starts_from_zeros(pipeline):
    cold = pipeline.sampling(temperature=0.0)
    assert not start(cold).any()
    first, second = starts(
        pipeline, lambda: cold.sample(batch_of(2), "depth", nfe=2, members=1, seed=1)
    )
    assert not first.any() and second.any()
    seeds = [cold.sample(batch_of(2), "depth", nfe=2, members=1, seed=seed) for seed in (1, 2)]
    assert torch.equal(*seeds)  # nothing is left to chance


@pytest.mark.parametrize("temperature", [0.25, 1.0, 2.0])
def test_a_temperature_scales_the_start(temperature, pipeline):
    found = start(pipeline.sampling(temperature=temperature), members=3)
    torch.testing.assert_close(found, temperature * start(pipeline, members=3))


def test_noise_within_the_walk_is_not_scaled(make):
    """A sampler that draws noise has members of its own at temperature 0 as well."""
    cold = make("ancestral", tasks=("depth",)).sampling(temperature=0.0)
    found = cold.sample(batch_of(1), "depth", nfe=3, members=2)
    assert (found[0] - found[1]).abs().max() > 1e-3


# ---------------------------------------------------------------------------- members


def test_antithetic_members_come_in_pairs(pipeline):
    pairs = pipeline.sampling(starts="antithetic", temperature=0.7)
    found = start(pairs, members=5)
    torch.testing.assert_close(found[0::2][:2], -found[1::2])
    assert len({one[0].sum().item() for one in found}) == 5
    own = member_noise((1, *found.shape[3:]), content_keys(batch_of(2).image), [1])
    torch.testing.assert_close(found[2][:, :1], 0.7 * own)
    assert not found[2][:, 1:].any()  # of tasks with more channels


@pytest.mark.parametrize("how", ["independent", "antithetic"])
def test_members_are_nested_however_they_start(how, pipeline):
    own = pipeline.sampling(starts=how, temperature=0.5)
    many, later = start(own, members=6), start(own, members=3, first=2, rows=2)
    torch.testing.assert_close(later, many[2:5])
    torch.testing.assert_close(start(own, members=2), many[:2])


def test_antithetic_members_of_several_passes_keep_the_noise_of_each(make):
    separate = {"flow": {"components": "separate", "cost_volume": False}}
    own = make(tasks=separate).sampling(starts="antithetic")
    batch = batch_of(1)
    batch.second = batch.image.flip(-1)
    (found,) = starts(own, lambda: own.sample(batch, "flow", nfe=1, members=2))
    first, second = found.unflatten(0, (2, 2))  # "e p"
    assert torch.equal(first, -second) and not torch.equal(first[0], first[1])


def test_members_that_would_be_equal_are_refused(pipeline):
    cold, batch = pipeline.sampling(temperature=0.0), batch_of(1)
    cold.sample(batch, "depth", nfe=1, members=1)
    for run in (
        lambda: cold.sample(batch, "depth", nfe=1, members=2),
        lambda: cold.sample(batch, "depth", nfe=1, members=1, first=1),
        lambda: pipeline(batch_image(), "depth", members=2, temperature=0.0),
    ):
        with pytest.raises(UserError, match="2 members that start from zeros .* all the same"):
            run()
    pipeline(batch_image(), "depth", members=2, temperature=1.0, nfe=1)  # as it is advised


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ({"temperature": -1.0}, "temperature: -1.0. Give 0 to start from zeros"),
        ({"temperature": float("nan")}, "temperature: nan"),
        ({"starts": "antithetical"}, "no starts 'antithetical'. Did you mean 'antithetic'"),
        ({"views": "miror"}, "no views 'miror'. Did you mean 'mirror'"),
    ],
)
def test_starts_that_do_not_exist_are_refused(way, message, pipeline):
    with pytest.raises(UserError, match=message):
        pipeline.sampling(**way)


# ---------------------------------------------------------------------------- what is usual


def batch_image() -> Any:
    return ((batch_of(1).image[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def test_the_settings_hold_until_a_run_has_chosen():
    settings = EvaluationSettings()
    one = SamplingSetting.of(settings, None)
    assert one == SamplingSetting(settings.nfe, 1, 0.0, settings.views)
    several = EvaluationSettings(nfe=2, members=3, views="mirror")
    assert SamplingSetting.of(several, None) == SamplingSetting(2, 3, 1.0, "none")
    assert SamplingSetting.of(replace(several, temperature=0.5), None) == SamplingSetting(
        2, 3, 0.5, "none"
    )
    assert SamplingSetting.of(several, CHOSEN) == SamplingSetting(**CHOSEN)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, SamplingSetting(3, 1, 0.0, "mirror")),
        ({"nfe": 8}, SamplingSetting(8, 1, 0.0, "mirror")),
        ({"members": 1}, SamplingSetting(3, 1, 0.0, "mirror")),
        ({"members": 4}, SamplingSetting(3, 4, 1.0, "none")),
        ({"members": 4, "temperature": 0.3}, SamplingSetting(3, 4, 0.3, "none")),
        ({"members": 4, "views": "mirror"}, SamplingSetting(3, 4, 1.0, "mirror")),
        ({"temperature": 0.3}, SamplingSetting(3, 1, 0.3, "mirror")),
        ({"views": "none", "nfe": 1}, SamplingSetting(1, 1, 0.0, "none")),
    ],
)
def test_another_number_of_members_gets_starts_that_suit_it(told, expected):
    assert SamplingSetting(3, 1, 0.0, "mirror").changed(**told) == expected


def test_a_temperature_that_was_set_holds_for_any_number_of_members():
    """As that of models from elsewhere, whose starts are noise whatever is asked for."""
    settings = EvaluationSettings(nfe=50, members=4, temperature=1.0, views="none")
    one = SamplingSetting.of(settings, None).changed(members=1)
    assert one == SamplingSetting(50, 1, 1.0, "none") and one.changed(members=3).temperature == 1.0
    assert SamplingSetting.of(settings, None).changed(members=1, temperature=0.0).temperature == 0.0


def test_pictures_are_generated_from_noise(make):
    pipeline = make(tasks=("image",))
    assert pipeline.default_setting("image") == SamplingSetting(4, 1, 1.0, "none")
    starts_of = []
    for key in ("a", "b", "a"):
        options: dict[str, Any] = {"class_id": 1, "key": key, "nfe": 1}
        starts_of += starts(pipeline, lambda: pipeline(batch_image(), "image", **options))  # noqa: B023
    assert torch.equal(starts_of[0], starts_of[2])
    assert starts_of[0].std() > 0.9 and not torch.equal(starts_of[0], starts_of[1])


def test_back_to_one_member_starts_from_zeros():
    assert SamplingSetting(3, 4, 0.8, "none").changed(members=1) == SamplingSetting(
        3, 1, 0.0, "none"
    )


def asked(pipeline: DensePipeline, **options: Any) -> tuple[int, int, float]:
    """Calls, members and the deviation of the start that a picture is answered with."""
    seen = starts(pipeline, lambda: pipeline(batch_image(), "depth", **options))
    return len(seen), len(seen[0]), float(seen[0][:, :1].std())  # the channel of depth


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (3, 2, 0.5)),
        ({"nfe": 1}, (1, 2, 0.5)),
        ({"members": 1}, (3, 1, 0.0)),
        ({"members": 4}, (3, 4, 1.0)),
        ({"members": 1, "temperature": 0.25}, (3, 1, 0.25)),
    ],
)
def test_a_picture_is_answered_as_the_run_chose_for_the_task(options, expected, pipeline):
    own = copy(pipeline)
    own.chosen = {"depth": CHOSEN}
    calls, members, deviation = asked(own, **options)
    assert (calls, members) == expected[:2] and deviation == pytest.approx(expected[2], rel=0.05)


def test_what_a_copy_was_told_goes_before_what_was_chosen(pipeline):
    own = copy(pipeline)
    own.chosen = {"depth": CHOSEN}
    warm = own.sampling(temperature=2.0)
    assert asked(warm)[2] == pytest.approx(2.0, rel=0.05)
    assert asked(warm.sampling(spacing="karras"))[2] == pytest.approx(2.0, rel=0.05)
    assert asked(warm, temperature=1.0)[2] == pytest.approx(1.0, rel=0.05)
    assert asked(own.sampling(spacing="karras"))[2] == pytest.approx(0.5, rel=0.05)


def test_a_task_without_a_choice_is_answered_by_the_settings(pipeline):
    own = copy(pipeline)
    own.chosen = {"flow": CHOSEN}
    assert own.default_setting("depth") == SamplingSetting.of(own.config.evaluation, None)
    assert asked(own) == (4, 1, 0.0)


def test_views_that_were_chosen_rest_where_another_sampler_is_asked_for(pipeline):
    own = copy(pipeline)
    own.chosen = {"depth": CHOSEN | {"members": 1, "views": "mirror"}}
    assert own.with_setting(own.default_setting("depth")).diffusion.settings.views == "mirror"
    assert len(starts(own, lambda: own(batch_image(), "depth", sampler="euler"))) == 3
    with pytest.raises(UserError, match="views mirror average the answers along ddim's trajectory"):
        own(batch_image(), "depth", sampler="euler", views="mirror")


# ---------------------------------------------------------------------------- calibration


def test_calibration_scales_the_uncertainty_and_nothing_else(pipeline):
    scaled = copy(pipeline)
    scaled.fitted = {"depth": {"scale": 2.5, "coverage": 0.9}, "flow": {"note": "too few"}}
    assert scaled.calibration == {"depth": 2.5} and pipeline.calibration == {}
    options: dict[str, Any] = {"nfe": 1, "members": 3}
    for task, factor in (("depth", 2.5), ("semantic", 1.0)):
        plain, found = (one.predict(batch_of(2), task, **options) for one in (pipeline, scaled))
        assert plain.uncertainty is not None and found.uncertainty is not None
        torch.testing.assert_close(found.uncertainty, factor * plain.uncertainty)
        assert torch.equal(found.values, plain.values) and torch.equal(found.x, plain.x)
    single = scaled.predict(batch_of(2), "depth", nfe=1, members=1)
    assert single.uncertainty is None


def test_a_checkpoint_keeps_what_was_chosen_and_calibrated(pipeline, tmp_path):
    meta: dict[str, Any] = {"sizes": {task: list(SIZE) for task in pipeline.tasks}}
    checkpoint.write(
        tmp_path / "checkpoints",
        1,
        config=pipeline.config,
        meta=meta | {"sampling": {"depth": CHOSEN}, "calibration": {"depth": {"scale": 1.5}}},
        tensors={checkpoint.BACKBONE: dict(pipeline.net.state_dict())},
    )
    opened = DensePipeline.from_pretrained(tmp_path)
    assert opened.default_setting("depth") == SamplingSetting(**CHOSEN)
    assert opened.default_setting("flow").nfe == 4
    assert opened.calibration == {"depth": 1.5}
