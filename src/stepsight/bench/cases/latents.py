"""Training steps from the latent cache beside coding pictures and targets as they come."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from stepsight.bench.peers.marigold import autoencoder
from stepsight.bench.protocol import Contest, Row, Setup, assert_close
from stepsight.coding import Layout, code
from stepsight.data.collate import collate
from stepsight.data.config import ScenesSettings
from stepsight.data.scenes.source import Scenes
from stepsight.execution.precision import computing, resolved
from stepsight.models.config import CodecSettings, ModelSettings
from stepsight.models.vae import VAE
from stepsight.tasks.config import DepthSettings
from stepsight.tasks.table import build_tasks
from stepsight.training.latents import Latents
from stepsight.types import ModelInputs

PROTOCOL = """Forward and backward pass of DiT-S/2 on depth in the latents of a VAE, in the
precision that training takes here: online the VAE codes picture and target of each batch, which
are in memory; cached they are read, as float16. What the backbone is given agrees to 1e-3
(relative norm). The reference is the ratio of the FLOPs that torch counts on the two sides. CPU:
128 x 128, batch 8, VAE of 32-64-64-64 channels; GPU: 256 x 256, batch 64, Stable Diffusion's
VAE."""


def run(setup: Setup) -> Iterator[Row]:
    side, batch = setup.pick((32, 2), (128, 8), (256, 64))
    channels = setup.pick((8, 8, 8, 8), (32, 64, 64, 64), (128, 256, 512, 512))
    name = setup.pick("DiT-32x2/2", "DiT-S/2", "DiT-S/2")
    with tempfile.TemporaryDirectory() as folder:
        yield from setup.timed(contest(name, side, batch, channels, Path(folder), setup.device))


def contest(
    name: str, side: int, batch: int, channels: tuple[int, ...], folder: Path, device: str
) -> Contest:
    settings = ScenesSettings(size=(side, side), count=batch)
    source: Any = Scenes(settings, "train", frozenset({"depth"}))
    tasks, how = build_tasks({"depth": DepthSettings()}), CodecSettings()
    codec = VAE(autoencoder(channels), how).to(torch.device(device))
    layout, task = Layout.of(tasks, codec), tasks["depth"]
    net = layout.build(ModelSettings(name)).to(device)
    cache = Latents(folder, source, "bench", tasks, codec, how, "float16", device)
    cache.fill()
    rows, samples = range(batch), collate(source.samples(range(batch))).to(torch.device(device))
    plain = [False] * batch
    precision = resolved("auto", device)

    def online() -> ModelInputs:
        return code(samples, task, layout, codec, True)

    def cached() -> ModelInputs:
        return cache.coded("depth", layout, rows, plain).to(torch.device(device))

    def step(given: Callable[[], ModelInputs]) -> Callable[[], None]:
        def work() -> None:
            inputs = given()
            assert inputs.x is not None
            time = torch.linspace(0, 1, len(inputs.x), device=device)
            with computing(device, precision):
                answer = net(inputs.x, inputs.cond, time, inputs.label)
            F.mse_loss(answer.float(), inputs.x).backward()
            net.zero_grad(set_to_none=True)

        return work

    for ours, theirs in zip((cached().x, cached().cond), (online().x, online().cond)):
        assert ours is not None and theirs is not None
        assert_close(ours, theirs, 1e-3, "cached latents")
    sides = {"coded online": step(online), f"ours, cached, {precision}": step(cached)}
    least, most = sorted(map(_flops, sides.values()))
    case = f"{name}, {side} x {side}, batch {batch}"
    return Contest(case, sides, "coded online", {f"ours, cached, {precision}": most / least})


def _flops(work: Callable[[], None]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()
