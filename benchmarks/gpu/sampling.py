"""Sampling at 512 x 512 pixels: an ensemble, and one member alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import torch

from gpu.latents import config_of, small_vae
from gpu.row import Row
from gpu.timing import device_of, seconds
from stepsight.coding import build_network
from stepsight.config import RunConfig
from stepsight.execution import graphs
from stepsight.execution.compiling import compiled
from stepsight.execution.precision import lowered
from stepsight.models.config import CodecSettings
from stepsight.models.factory import repeated_blocks
from stepsight.models.vae import VAE
from stepsight.pipeline.dense import DensePipeline
from stepsight.tasks.table import build_tasks
from stepsight.types import Batch

SECONDS = 1.35  # of 50 calls of 10 members, DiT-XL/2
LATENCY = 2.66  # milliseconds a call, of one member
GAIN = 1.4


def run(size: str) -> Iterator[Row]:
    device, tiny = device_of(size), size == "tiny"
    model, side, nfe, members = ("DiT-32x2/2", 64, 2, 2) if tiny else ("DiT-XL/2", 512, 50, 10)
    with TemporaryDirectory() as name:
        pipeline = pipeline_of(config_of(model, side, 1, Path(name)), side, device)
    image = 2 * torch.rand(1, 3, side, side, device=device) - 1
    batch = Batch(image, keys=["one"], sources=["check"])

    def spent(count: int) -> float:
        draw = partial(pipeline.sample, batch, "depth", nfe=nfe, members=count)
        return seconds(draw, device, rounds=3, warm=3)  # the third call is recorded

    whole, one = spent(members), spent(1)
    what = f"{model} at {side} px, {nfe} x {members}"
    yield Row(what, whole, "s", None if tiny else SECONDS, most=True)
    latency = 1e3 * one / nfe
    yield Row(
        f"{model} at {side} px, {nfe} x 1, a call",
        latency,
        "ms",
        None if tiny else LATENCY,
        most=True,
    )
    with torch.compiler.set_stance("force_eager"), mock.patch.object(graphs, "FEW", 0):
        gain = spent(members) / whole
    yield Row(f"{what}, times that neither compiled nor recorded", gain, "", None if tiny else GAIN)


def pipeline_of(config: RunConfig, side: int, device: torch.device) -> DensePipeline:
    """A backbone of random weights on a small VAE, as `from_pretrained` would have it ready."""
    tasks, codec = build_tasks(config.tasks), VAE(small_vae(), CodecSettings()).to(device)
    net = lowered(build_network(config, tasks, codec), config.training.precision)
    net = net.to(device).eval().requires_grad_(False)
    compiled(repeated_blocks(net), device)
    return DensePipeline(net, tasks, config, {"depth": (side, side)}, codec=codec)
