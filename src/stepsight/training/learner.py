"""A network in training: its weights, their average, its optimizers, and the processes that share
the work. What it learns is its objective's affair."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from stepsight import checkpoint, distributed
from stepsight.checkpoint import Checkpoint
from stepsight.config import RunConfig
from stepsight.errors import UserError
from stepsight.execution.compiling import compiled
from stepsight.execution.precision import computing, resolved
from stepsight.models.config import VAE_PREFIX
from stepsight.models.factory import repeated_blocks
from stepsight.report.console import Console
from stepsight.training import optim, profile
from stepsight.training.config import TrainingSettings
from stepsight.training.feed import Feed
from stepsight.training.folder import RunWriter, revision
from stepsight.training.health import fault_of, is_healthy, largest
from stepsight.training.objective import Micro, Objective
from stepsight.training.progress import Progress, changed
from stepsight.training.recompute import recompute
from stepsight.training.sharding import (
    filled,
    full,
    is_sharded,
    like,
    local,
    shared,
    skeleton,
)

GROWTH = 2000  # healthy steps after which the loss's scale is doubled in fp16


class Learner:
    """What changes from step to step, but for the `Progress`; checkpoints hold both."""

    def __init__(self, objective: Objective, accelerator: Accelerator) -> None:
        self.objective, self.accelerator = objective, accelerator
        self.net, self.settings = objective.net, objective.config.training
        self.device = accelerator.device
        self.precision = precision_of(objective.config, self.device)
        self.net.to(self.device)
        self._bones = skeleton(self.net) if is_sharded(self.settings) else None
        recompute(repeated_blocks(self.net), self.settings.recompute)
        compiled(repeated_blocks(self.net), self.device)
        self.module = shared(objective.errors, accelerator, self.settings, self.precision)
        self.optimizers = optim.build_optimizers(self.net, self.settings, self.precision)
        self.ema = optim.EMA(self.net, self.settings.ema)
        self.saver = checkpoint.Saver()
        self.parent: Path | None = None  # whose weights it started from, in this process

    def summed(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        total = self.accelerator.reduce(value, reduction="sum")
        assert isinstance(total, Tensor)
        return total

    def synchronised(self, last: bool) -> AbstractContextManager[None]:
        """Gradients travel between processes with the last micro-batch only; those of a sharded
        network with each, as whole ones would take its place in memory."""
        travel = last or self._bones is not None
        return nullcontext() if travel else self.accelerator.no_sync(self.module)

    def errors(self, micro: Micro) -> Tensor:
        """Summed errors "tasks kinds" of a micro-batch, in the precision of the run."""
        with computing(self.device, self.precision):
            return self.module(*micro).float()

    def scale(self, progress: Progress) -> float:
        """Of the loss: half precision has no small numbers."""
        return progress.scale if self.precision == "fp16" else 1.0

    def descend(self, progress: Progress, losses: Tensor) -> Tensor:
        """One update, clip and step, which the device leaves out where the step is ill. "3": the
        loss, the gradient norm, and whether it was made. Gradients are forgotten either way.

        losses: of the tasks. `settle` is to follow, with these numbers, before the next update.
        """
        grads = [p.grad for p in self.net.parameters() if p.grad is not None]
        scale = self.scale(progress)
        if scale != 1:
            torch._foreach_div_(local(grads), scale)  # pyright: ignore[reportPrivateImportUsage]
        with profile.part("clip, optimizer"):
            norm, loss = full(torch.nn.utils.get_total_norm(grads)), losses.sum()
            made = is_healthy(loss, norm, largest(self.settings, progress.norms))
            if self.settings.clip:
                factor = (self.settings.clip / (norm + 1e-6)).clamp(max=1)  # as torch clips
                torch._foreach_mul_(local(grads), factor)  # pyright: ignore[reportPrivateImportUsage]
            images = progress.images_seen
            optim.set_rate(self.optimizers, progress.rate * optim.rate(self.settings, images))
            for optimizer in self.optimizers:
                optimizer.found_inf = (~made).float()  # type: ignore[attr-defined]
                optimizer.step()
        self.forget()
        return torch.stack([loss, norm, made.to(loss)])

    def settle(self, progress: Progress, loss: float, norm: float, made: bool) -> str:
        """What follows from the latest step, once the host knows: average the weights, or "": the
        reason why the update was not made."""
        scale = self.scale(progress)
        if made:
            with profile.part("average"):
                self.ema.update(self.net, progress.images_seen // self.settings.batch - 1)
            progress.healthy(norm, self.settings.spike > 0)
            if progress.scaled == GROWTH:
                progress.scale, progress.scaled = 2 * progress.scale, 0
        elif scale > 1 and math.isfinite(loss) and not math.isfinite(norm):
            # The scaled gradient was too large for half precision: no fault of the step.
            progress.scale, progress.scaled = scale / 2, 0
        else:
            return fault_of(loss, norm, progress.norms)
        return ""

    def forget(self) -> None:
        """Gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """A whole network with the averaged weights, while the block lasts."""
        if self._bones is not None:
            yield filled(self._bones, self.ema.values)
            return
        self.ema.swap(self.net)
        self.net.eval()
        try:
            yield self.net
        finally:
            self.net.train()
            self.ema.swap(self.net)

    def parts(self) -> dict[str, list[Tensor]]:
        """What this process holds of all that a checkpoint holds."""
        slots = (state.values() for one in self.optimizers for state in one.state.values())
        every = (value for values in slots for value in values if isinstance(value, Tensor))
        return {
            "weights": local(p.detach() for p in self.net.parameters()),
            "averaged weights": local(self.ema.values.values()),
            "optimizer state": local(every),
        }

    def save(self, feed: Feed, progress: Progress, writer: RunWriter, best: bool) -> None:
        """Write a checkpoint in the background, point last (and best) at it, and delete old ones.

        The averaged weights, which is what a user wants, are one file; weights and optimizer state
        are as they are in memory: one file each, or a part per process.
        """
        facts = {
            "precision": self.precision,
            "samples": feed.mixture.distinct(),
            "run": writer.path.name,
            "revision": revision(),
            "ema_warmup": True,  # of the average's decay, see `averages`
        }
        room = self.saver.room()  # or there would be two snapshots in memory
        averaged = {
            name: whole if writer.main else whole.new_empty(0)  # the first process writes them
            for name, whole in ((name, full(value)) for name, value in self.ema.values.items())
        }
        tensors = {
            checkpoint.BACKBONE: averaged,
            checkpoint.RAW: dict(self.net.state_dict()),
            checkpoint.STATISTICS: dict(self.objective.statistics),
            checkpoint.OPTIMIZER: optim.pack_optimizers(self.optimizers),
        }
        if self._bones is None and not writer.main:
            return  # it all is in the first process
        writer.lock.check()
        world = distributed.world() if self._bones is not None else 1

        def committed(path: Path) -> None:
            checkpoint.mark(writer.checkpoints, "last", path.name)
            if best:
                checkpoint.mark(writer.checkpoints, "best", path.name)
            spared = [images // self.settings.batch for images in self.settings.keep_at]
            checkpoint.prune(writer.checkpoints, self.settings.keep, path, spared)

        snapshot = checkpoint.Snapshot.of(
            writer.checkpoints,
            progress.step,
            config=self.objective.config,
            meta=asdict(progress) | self.objective.facts() | facts,
            tensors=tensors,
            part=(distributed.rank() if world > 1 else 0, world),
            best=best,
            room=room,
        )
        self.saver.start(snapshot, committed)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Finish what is being written when the block ends early. Not the parts of several
        processes: whoever made it end may be one of them."""
        try:
            yield
        except BaseException:
            if self._bones is None:
                with suppress(Exception):  # the first error is the one to be told
                    self.saver.wait()
            raise

    def load(self, saved: Checkpoint) -> None:
        """The weights, the average and the optimizer state of a checkpoint."""
        checkpoint.load_into(dict(self.net.state_dict()), saved.path / checkpoint.RAW)
        checkpoint.load_into(self.ema.values, saved.path / checkpoint.BACKBONE)
        optim.load_optimizers(self.optimizers, saved)

    def resume(self, saved: Checkpoint, console: Console) -> Progress:
        """Continue from a checkpoint of this run; where it stood."""
        self.load(saved)
        before = saved.meta.get("precision")
        if before not in (None, self.precision):
            console.note(
                f"trained in precision {before} so far, here it is {self.precision}: the run goes "
                "on, but not bit for bit as it would have (--training.precision "
                f"{before} asks for the same)"
            )
        progress = Progress.of(saved.meta)
        if new := changed(saved.config, self.objective.config):
            progress.note("changed", settings=new)
            console.note(f"from here on: {', '.join(new)}")
        return progress

    def start_from(self, parent: Checkpoint) -> Progress:
        """Start from another run's averaged weights, at step 0."""
        weights, self.parent = self.objective.adapted(parent), parent.path
        checkpoint.check_weights(self.net, weights, parent.path)
        for name, value in self.net.state_dict().items():
            value.copy_(like(weights[name].to(value), value))
        self.ema.load(weights, self.device)
        return Progress.from_weights(parent.meta)


def precision_of(config: RunConfig, device: torch.device | str) -> str:
    """What the forward pass computes in; "auto" is float32 for a VAE, whose errors are small."""
    asked = config.training.precision
    if asked == "auto" and config.model.name.startswith(VAE_PREFIX):
        return "float32"
    return resolved(asked, device)


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
