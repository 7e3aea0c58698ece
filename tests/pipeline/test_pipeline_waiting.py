"""A sampling call sends nothing to its device, never waits for it, and makes no float64 there,
which not every device has: on a make-believe accelerator that counts all three, and whose answers
are those of the CPU."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from autoencoders import make
from dispatch import DEVICE, accelerated, counting, host_of

from stepsight.coding import build_network
from stepsight.config import from_dict
from stepsight.models.codec import Codec, Pixels
from stepsight.models.config import CodecSettings
from stepsight.models.vae import VAE
from stepsight.pipeline.dense import DensePipeline
from stepsight.seeding import generator
from stepsight.tasks.table import build_tasks
from stepsight.types import Batch

SIZE = (32, 32)
PLAIN = {"flow": {"cost_volume": False, "look": False}}
BACKBONES = ["split-8", "DiT-Ti/4", "DiT-Ti/4-4E2A", "unet-tiny"]


def pipeline_of(
    model: str,
    codec: Codec | None = None,
    tasks: dict | None = None,
    variance: bool = False,
    **diffusion,
) -> DensePipeline:
    tasks = tasks or {
        "depth": {},
        "flow": {} if model.startswith(("split", "DiT")) else PLAIN["flow"],
    }
    size = {"name": model, "learned_variance": variance}
    config = from_dict({"model": size, "tasks": tasks, "diffusion": diffusion})
    built, codec = build_tasks(config.tasks), codec or Pixels()
    net = build_network(config, built, codec).eval().requires_grad_(False)
    draw = generator("waiting")
    for parameter in net.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    return DensePipeline(net, built, config, dict.fromkeys(tasks, SIZE), codec=codec)


def batch_of(count: int = 2) -> Batch:
    first, second = torch.rand(2, count, 3, *SIZE, generator=generator("pictures")) * 2 - 1
    return Batch(first, [f"{i}" for i in range(count)], ["toys"] * count, second=second)


def check(pipeline: DensePipeline, task: str = "depth", **options) -> None:
    how = {"nfe": 3, "members": 2, "seed": 1} | options
    sample = partial(DensePipeline.sample.__wrapped__, pipeline)  # the accelerator has no
    expected = pipeline.sample(batch_of(), task, **how)  # tensors of inference mode
    with accelerated(), torch.no_grad():
        pipeline.net.to(DEVICE)
        pipeline.codec.to(DEVICE)
        batch = batch_of().to(DEVICE)
        with counting() as first:
            sample(batch, task, **how)  # what is made once, such as tables of a schedule
        with counting() as found:
            answer = sample(batch, task, **how)
    assert not found.synchronisations and not found.copies, found
    assert not first.doubles and not found.doubles, first
    torch.testing.assert_close(host_of(answer), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("task", ["depth", "flow"])
@pytest.mark.parametrize("model", BACKBONES)
def test_backbones(model, task):
    check(pipeline_of(model), task)


@pytest.mark.parametrize("sampler", ["ancestral", "midpoint", "unipc"])
def test_samplers(sampler):
    nfe = 4 if sampler == "midpoint" else 3
    check(pipeline_of("DiT-Ti/4", sampler=sampler), nfe=nfe)


@pytest.mark.parametrize("sampler", ["ancestral_large", "ancestral_learned"])
def test_guided_walks(sampler):
    way = {"schedule": "linear", "prediction": "v", "shift": 1.0, "sampling_shift": 1.0}
    way |= {"spacing": "respaced", "sampler": sampler, "guidance": 2.0, "guided_channels": 2}
    pipeline = pipeline_of("DiT-Ti/4", variance=True, **way)
    pipeline.net.unconditional = lambda encoded, label: (encoded, label + 1)  # type: ignore
    check(pipeline)


@pytest.mark.parametrize("schedule", ["scaled_linear", "cosine"])
def test_schedules(schedule):
    check(pipeline_of("DiT-Ti/4", schedule=schedule, prediction="v", shift=1.0, sampling_shift=1.0))


@pytest.mark.parametrize("changes", [{"views": "mirror+shift"}, {"starts": "antithetic"}])
def test_views_and_starts(changes):
    check(pipeline_of("split-8").sampling(**changes), members=1 if "views" in changes else 2)


def test_a_vae():
    check(pipeline_of("DiT-Ti/4", VAE(make("AutoencoderKL"), CodecSettings())))
