"""A network in training: its weights, their average, its optimizers, and the processes that share
the work. What it learns is its objective's affair."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor

from stepsight import checkpoint, distributed
from stepsight.checkpoint import Checkpoint
from stepsight.config import RunConfig
from stepsight.errors import UserError
from stepsight.models.config import VAE_PREFIX
from stepsight.report.console import Console
from stepsight.training import optim
from stepsight.training.config import TrainingSettings
from stepsight.training.feed import Feed
from stepsight.training.folder import RunWriter, revision
from stepsight.training.objective import Objective
from stepsight.training.progress import Progress


class Learner:
    """What changes from step to step, but for the `Progress`; checkpoints hold both."""

    def __init__(self, objective: Objective, accelerator: Accelerator) -> None:
        self.objective, self.accelerator = objective, accelerator
        self.net, self.settings = objective.net, objective.config.training
        self.device = accelerator.device
        self.net.to(self.device)
        self.module = accelerator.prepare_model(objective.errors)
        self.optimizers = optim.build_optimizers(self.net, self.settings)
        self.ema = optim.EMA(self.net, self.settings.ema)

    def summed(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        total = self.accelerator.reduce(value, reduction="sum")
        assert isinstance(total, Tensor)
        return total

    def synchronised(self, last: bool) -> AbstractContextManager[None]:
        """Gradients travel between processes with the last micro-batch only."""
        return nullcontext() if last else self.accelerator.no_sync(self.module)

    def descend(self, images: int) -> None:
        """One update, at the rates of `images` images: clip, step, forget gradients, average."""
        if self.settings.clip:
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.settings.clip)
        optim.set_rate(self.optimizers, optim.rate(self.settings, images))
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.net, images // self.settings.batch)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The network has its averaged weights while the block lasts."""
        self.ema.swap(self.net)
        self.net.eval()
        try:
            yield
        finally:
            self.net.train()
            self.ema.swap(self.net)

    def save(self, feed: Feed, progress: Progress, writer: RunWriter, best: bool) -> None:
        """Write a checkpoint, point last (and best) at it, and delete old ones."""
        if writer.main:
            facts = {
                "precision": self.accelerator.mixed_precision,
                "samples": feed.mixture.distinct(),
                "run": writer.path.name,
                "revision": revision(),
            }
            path = checkpoint.write(
                writer.checkpoints,
                progress.step,
                config=self.objective.config,
                meta=asdict(progress) | self.objective.facts() | facts,
                tensors={
                    checkpoint.BACKBONE: self.ema.values,
                    checkpoint.RAW: dict(self.net.state_dict()),
                    checkpoint.STATISTICS: dict(self.objective.statistics),
                    checkpoint.OPTIMIZER: optim.pack_optimizers(self.optimizers),
                },
            )
            checkpoint.mark(writer.checkpoints, "last", path.name)
            if best:
                checkpoint.mark(writer.checkpoints, "best", path.name)
            checkpoint.prune(writer.checkpoints, self.settings.keep)
        distributed.barrier()

    def resume(self, saved: Checkpoint, console: Console) -> Progress:
        """Continue from a checkpoint of this run: weights, average, optimizers; where it stood."""
        checkpoint.load_weights(self.net, saved.tensors(checkpoint.RAW), saved.path)
        self.ema.load(saved.tensors(checkpoint.BACKBONE), self.device)
        state = saved.tensors(checkpoint.OPTIMIZER)
        optim.unpack_optimizers(self.optimizers, state, saved.path)
        before, now = saved.meta.get("precision"), self.accelerator.mixed_precision
        if before not in (None, now):
            console.note(
                f"trained in precision {before} so far, here it is {now}: the run goes on, but not "
                f"bit for bit as it would have (--training.precision {before} asks for the same)"
            )
        return Progress.of(saved.meta)

    def start_from(self, parent: Checkpoint) -> Progress:
        """Start from another run's averaged weights, at step 0."""
        weights = self.objective.adapted(parent)
        checkpoint.load_weights(self.net, weights, parent.path)
        self.ema.load(weights, self.device)
        return Progress.from_weights(parent.meta)


def make_accelerator(config: RunConfig) -> Accelerator:
    """Processes, device and precision; parameters that a task does not use are allowed."""
    AcceleratorState._reset_state()  # the last run of this process may have had another precision
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(
        mixed_precision=precision_of(config),
        kwargs_handlers=[unused],
        cpu=not torch.cuda.is_available(),
    )


def precision_of(config: RunConfig) -> str:
    """What the forward pass computes in: "auto" is bfloat16 where the device multiplies it fast,
    but float32 for a VAE, whose errors are small."""
    asked = config.training.precision
    if asked != "auto":
        return asked
    if config.model.name.startswith(VAE_PREFIX):
        return "no"
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "no"


def check_processes(settings: TrainingSettings, world: int) -> None:
    """Raise UserError unless there are as many processes as asked for, and the batch shares out
    evenly."""
    if settings.processes and world != settings.processes:
        raise UserError(
            f"expected {settings.processes} processes (training.processes), got {world}. Launch "
            f"with torchrun --nproc-per-node {settings.processes}, or set training.processes to 0."
        )
    auto = settings.micro_batch == "auto"
    each = world * (1 if auto else int(settings.micro_batch))
    if settings.batch % each:
        low = max(settings.batch // each, 1) * each
        pictures = "" if auto else f" x {settings.micro_batch} pictures (training.micro_batch)"
        raise UserError(
            f"training.batch={settings.batch} does not divide by {world} processes{pictures}. "
            f"Nearest: {low}, {low + each}."
        )
