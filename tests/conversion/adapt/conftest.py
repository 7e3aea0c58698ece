"""What the tests of adapting share: backbones with random weights, saved and started from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepsight import checkpoint
from stepsight.checkpoint import BACKBONE
from stepsight.coding import Layout, build_network
from stepsight.config import RunConfig, from_dict
from stepsight.conversion.adapt import adapt
from stepsight.models.codec import described_codec
from stepsight.seeding import generator
from stepsight.tasks.table import build_tasks

SIZE = (16, 24)


@dataclass
class Run:
    """A backbone and what it is for."""

    config: RunConfig
    net: nn.Module
    layout: Layout
    codec: Any  # of which names and shapes are used, not the weights

    def answer(self, task: str, x: Tensor, cond: Tensor, features: Tensor | None = None) -> Tensor:
        """What it answers for `task`; channels of target and condition are filled with zeros."""
        x, cond = _padded(x, self.layout.target), _padded(cond, self.layout.cond)
        label = torch.full((len(x),), self.layout.rows[task])
        return self.net(x, cond, torch.linspace(0.1, 0.9, len(x)), label, features)

    def inputs(self, images: int = 2) -> tuple[Tensor, Tensor]:
        """A noisy target "b c h w" and so many condition images "b k h w"."""
        draw = generator("adapt inputs")
        x = torch.randn(2, self.layout.target, *SIZE, generator=draw)
        return x, torch.randn(2, 3 * images, *SIZE, generator=draw)

    @property
    def table(self) -> Tensor:
        """Label rows."""
        names = ("y_embedder", "label", "class_embedding", "prompt")
        (found,) = [p for n, p in self.net.named_parameters() if any(one in n for one in names)]
        return found.detach()

    @property
    def kernel(self) -> Tensor:
        """The input convolution: "o i h w", or one a row "r o (i h w)"."""
        net: Any = self.net
        if hasattr(net, "unet"):
            return net.unet.conv_in.weight
        return net.x_embedder.proj.weight if hasattr(net, "x_embedder") else net.input.weight


def _padded(x: Tensor, channels: int) -> Tensor:
    return F.pad(x, (0, 0, 0, 0, 0, channels - x.shape[1]))


def _make(
    name: str, tasks: Mapping[str, Any], seed: str = "old", vae: str = "", **model: Any
) -> Run:
    own = {"model": {"name": name, **model}, "tasks": dict(tasks), "codec": {"path": vae}}
    config = from_dict(own)
    built, codec = build_tasks(config.tasks), described_codec(config.codec)
    net = build_network(config, built, codec).eval().requires_grad_(False)
    draw = generator("adapt", seed)
    for p in net.parameters():
        p.add_(0.1 * torch.randn(p.shape, generator=draw))
    return Run(config, net, Layout.of(built, codec), codec)


@pytest.fixture(scope="session")
def make() -> Callable[..., Run]:
    """Backbones from (name, tasks, seed, folder of a VAE, model settings), roughened: fresh ones
    answer zero."""
    return _make


@pytest.fixture
def save(tmp_path) -> Callable[..., checkpoint.Checkpoint]:
    """Writes a backbone as the checkpoint of a run."""

    def save(run: Run, **meta: Any) -> checkpoint.Checkpoint:
        path = checkpoint.write(
            tmp_path / "old" / "checkpoints",
            1,
            config=run.config,
            meta={"codec": run.codec.name, "sizes": {}} | meta,
            tensors={BACKBONE: dict(run.net.state_dict())},
        )
        return checkpoint.read(path)

    return save


@pytest.fixture
def start(save) -> Callable[[Run, Run], Run]:
    """Loads the weights of the first backbone into the second, as a run does."""

    def start(old: Run, new: Run) -> Run:
        saved = save(old)
        weights = adapt(saved, new.net, new.layout, new.codec)
        checkpoint.load_weights(new.net, weights, saved.path)
        return new

    return start
