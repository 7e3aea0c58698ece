"""What a profile says of draws holds for recorded walks, shared draws and batches as well."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from stepsight.diffusion.objective import Diffusion
from stepsight.errors import UserError
from stepsight.evaluation.records import cost_of
from stepsight.execution.graphs import Graphs
from stepsight.execution.noise import Drawn
from stepsight.models.codec import Pixels
from stepsight.pipeline.config import Profile
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.shared import Shared
from stepsight.seeding import generator
from stepsight.tasks.base import resize
from stepsight.types import Batch


def batch_of(rows: int) -> Batch:
    image = 2 * torch.rand(rows, 3, 24, 32, generator=generator("draws")) - 1
    return Batch(image, [f"image{row}" for row in range(rows)], ["toys"] * rows)


def seen_by(pipeline: DensePipeline, profile: Profile) -> DensePipeline:
    other = copy(pipeline)
    other.published = profile
    return other.profiled("published")


class Sampling(Pixels):
    """Pixels with a posterior around each."""

    def __init__(self, noise: Drawn | None = None) -> None:
        self.noise = noise

    def drawing(self, noise: Drawn) -> Sampling:
        return Sampling(noise)

    def encode(self, x: Tensor) -> Tensor:
        return x if self.noise is None else x + 0.1 * self.noise(x.shape[1:])


def test_walks_with_other_noise_are_recorded_apart(pipeline):
    keys: list[Any] = []

    def run(_: Graphs, key: Any, rows: Tensor, work: Any, *inputs: Any) -> Tensor:
        keys.append(key)
        return work(*inputs)

    with mock.patch.object(Graphs, "run", run):
        for noise in ("independent", "shared", "shared"):
            seen_by(pipeline, Profile("p", noise=noise)).sample(
                batch_of(1), "depth", nfe=1, members=1
            )
    assert keys[0] != keys[1] == keys[2]


def test_a_posterior_is_drawn_alike_whatever_was_drawn_before(pipeline):
    run = seen_by(pipeline, Profile("p", posterior="sample")).sampling(views="mirror")
    run.codec = Sampling()
    shared = Shared(run.device)
    for nfe in (1, 2, 4):
        how: dict[str, Any] = {"nfe": nfe, "members": 2}
        apart = run.sample(batch_of(2), "depth", **how)
        assert torch.equal(run.sample(batch_of(2), "depth", **how, shared=shared), apart)
    again = run.sample(batch_of(2), "depth", **how, seed=1)
    assert not torch.equal(again, apart)


def test_members_of_a_model_that_answers_at_once_are_refused(pipeline):
    run = copy(pipeline)
    run.diffusion = Diffusion(replace(pipeline.diffusion.settings, objective="end_to_end"))
    assert run.predict(batch_of(1), "depth", nfe=1, members=1).uncertainty is None
    with pytest.raises(UserError, match="2 members .* all the same"):
        run.predict(batch_of(1), "depth", nfe=1, members=2)


@pytest.mark.parametrize("how", ["pillow", "pillow_cubic"])
def test_a_picture_of_8_bits_is_resized_as_one_whatever_is_beside_it(how):
    draw = generator("bits")
    whole = torch.randint(0, 256, (1, 3, 12, 16), generator=draw) / 127.5 - 1
    real = torch.randn(1, 3, 12, 16, generator=draw)
    both = resize(torch.cat([whole, real]), (7, 9), how)
    assert torch.equal(both, torch.cat([resize(one, (7, 9), how) for one in (whole, real)]))
    levels = (both[:1] + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)


def test_what_is_padded_costs_as_well(pipeline):
    run = copy(pipeline)
    run.codec = mock.Mock(downsample=4)
    assert cost_of(run, "depth", (61, 96)) == cost_of(run, "depth", (64, 96))
