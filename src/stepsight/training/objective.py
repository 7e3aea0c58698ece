"""What a run learns. The loop, processes, resuming and checkpoints are the same for all objectives:
a backbone's (`dense`) and a VAE's (`vae`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from stepsight.checkpoint import Checkpoint
from stepsight.config import RunConfig
from stepsight.data.mixture import Draw, Stream
from stepsight.models.config import VAE_PREFIX
from stepsight.report.console import Console
from stepsight.training.feed import Feed
from stepsight.training.folder import RunWriter
from stepsight.training.progress import Progress
from stepsight.training.spec import RunSpec

Micro = tuple[Any, ...]  # the arguments of `Objective.errors`: a micro-batch, opaque to the loop


class Objective(Protocol):
    """Members that the loop and the `Learner` use. Micro-batches are opaque to them."""

    config: RunConfig
    net: nn.Module  # what is trained
    errors: Any
    """The module that processes share: what `prepare` gave -> summed errors "tasks kinds", to be
    divided by its `counts` summed over the batch. After a call `routing` is what the experts did,
    for their load-balance loss (`models.moe.balance_of`), and `usage` whom they served, by task."""

    @classmethod
    def check(cls, spec: RunSpec) -> None:
        """Raise UserError for what would stop the run later; nothing is written."""
        ...

    @classmethod
    def open(cls, spec: RunSpec, device: torch.device, console: Console) -> tuple[Self, Feed]:
        """The objective with a new network, and what it learns from."""
        ...

    def adapted(self, parent: Checkpoint) -> dict[str, Tensor]:
        """Another run's averaged weights, fitted to `net`."""
        ...

    def read(self, feed: Feed, draw: Draw, step: int, rows: range) -> Any:
        """Some pictures of a draw and their targets, as the network sees them."""
        ...

    def prepare(self, read: Any, step: int, rows: range) -> Micro:
        """The arguments of `errors`: what was read, with its noise."""
        ...

    def flops(self, stream: Stream) -> float:
        """FLOPs of the forward passes that a picture of a stream takes in training."""
        ...

    @property
    def forward_flops(self) -> float:
        """FLOPs of a first answer for one picture, the mean over tasks."""
        ...

    @property
    def statistics(self) -> Mapping[str, Tensor]:
        """Of the training samples, kept in checkpoints for the trivial predictors."""
        ...

    def facts(self) -> dict[str, Any]:
        """What checkpoints say of the model besides the progress of the run."""
        ...

    def validate(
        self, net: nn.Module, progress: Progress, writer: RunWriter, console: Console
    ) -> bool:
        """Score, log and draw a network like `net` on held-out data; whether it is the best so
        far."""
        ...

    def finish(self, feed: Feed, writer: RunWriter, console: Console) -> tuple[Path, str]:
        """After the last step: what to open, and a command to type next."""
        ...


def objective_of(config: RunConfig) -> type[Objective]:
    """The objective of a run, which follows from what it trains."""
    if config.model.name.startswith(VAE_PREFIX):
        from stepsight.training.vae.objective import VaeObjective  # diffusers: only when chosen

        return VaeObjective
    from stepsight.training.dense.objective import DenseObjective

    return DenseObjective
