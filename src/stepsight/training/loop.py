"""Training: one loop, readable from top to bottom, in the order things happen.

Time is counted in images seen. Which samples, mirrored or not, at which noise levels and with
which noise: all are functions of (seed, number of the image), so that resuming is seeking and
nothing depends on the number of processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stepsight import distributed, signals
from stepsight.errors import command
from stepsight.models.moe import balance_of
from stepsight.report.console import Console
from stepsight.training import profile
from stepsight.training.feed import Feed
from stepsight.training.folder import RunWriter
from stepsight.training.health.recovery import Recovery
from stepsight.training.learner import Learner
from stepsight.training.log import Log
from stepsight.training.objective import Micro
from stepsight.training.progress import Progress


def train(
    learner: Learner, feed: Feed, progress: Progress, writer: RunWriter, console: Console
) -> None:
    """Train from `progress.step` to the end, logging, validating and saving on the way.

    Raises Preempted, with all steps saved, after a signal to any process.
    """
    objective, settings = learner.objective, learner.settings
    steps = settings.images // settings.batch
    feed.begin(progress.step)
    log = Log(learner, feed, progress, writer, console)
    recovery, clock = Recovery(learner, progress, writer, console), Clock(settings.save_minutes)

    for step in range(progress.step, steps):
        # Batch: the rows of this process, in the order of the global batch.
        distributed.phase(f"step {step + 1}: data")
        began = time.perf_counter()
        with profile.part("data wait"):
            draw = feed.draw(step)
            drawn = time.perf_counter()
            parts = [objective.read(feed, draw, step, rows) for rows in feed.micro_batches]
        read = time.perf_counter()

        # Loss: its gradient, micro-batch by micro-batch.
        distributed.phase(f"step {step + 1}")
        pairs = zip(parts, feed.micro_batches)
        batches = [objective.prepare(part, step, rows) for part, rows in pairs]
        asks = bool(signals.requested()), clock.due()
        weights, scale = feed.weights(draw.stream), learner.scale(progress)
        losses, (stop, late) = gradient(learner, batches, weights, scale, asks, log.meter.use)

        # Update, if all is well.
        fault = learner.descend(progress, sum(losses))
        progress.advance(settings.batch, 3 * objective.flops(draw.stream) * settings.batch)
        if fault:
            recovery.met(fault, draw)

        # Say.
        last, seen = progress.step == steps, progress.images_seen
        by_task = {} if fault else dict(zip(draw.stream.tasks, losses))
        log.step(by_task, drawn - began, read - drawn, time.perf_counter() - read)
        if due(seen, settings.log_every) or last:
            log.line(steps)

        # Keep, if it is fit to be kept.
        if profile.stepped() and not stop:
            if profile.over():
                break
            continue
        look = due(seen, settings.validate_every) or seen == settings.first_validation or last
        keep = due(seen, settings.checkpoint_every) or last or stop or late
        if not (look or keep):
            continue
        if fault := recovery.unfit(batches):
            recovery.met_unfit(fault)
        best = False
        if look:
            distributed.phase(f"validation after step {progress.step}", patience=distributed.SETUP)
            with log.paused(), learner.averaged() as net:
                best = objective.validate(net, progress, writer, console)
        if keep or best:
            distributed.phase(f"checkpoint after step {progress.step}")
            log.suspend()
            learner.save(feed, progress, writer, best)
            clock.reset()
        if stop and not last:
            break
    feed.close()
    learner.saver.wait()
    distributed.barrier()
    log.summary()
    if progress.step < steps and not profile.over():
        raise signals.Preempted(
            f"stopped by {signals.requested() or 'a signal to another process'} after step "
            f"{progress.step}, which is saved. Go on with: {resuming(writer.path)}"
        )


def resuming(folder: Path) -> str:
    """The command that continues a run."""
    return command(
        "train", "--config", folder / "config.yaml", "--run-dir", folder, "--resume", "auto"
    )


def gradient(
    learner: Learner,
    batches: Sequence[Micro],
    weights: Tensor,
    scale: float = 1.0,
    asks: Sequence[bool] = (),
    note: Callable[[Mapping[str, Tensor]], None] = lambda usage: None,
) -> tuple[list[float], list[bool]]:
    """Add the gradient of a batch, times `scale`, to the network's; the losses of its tasks, and
    which of its `asks` any process has.

    For each task and kind of row the error is divided by what counts in the whole batch, over all
    processes, and the mean is taken over kinds. What the experts served is summed over the whole
    batch too, before their load-balance loss is made of it: for several micro-batches by a pass
    ahead without gradient. weights: of the tasks in the loss. note: is told of each micro-batch
    what its experts served.
    """
    objective, processes = learner.objective, distributed.world()
    counts = [objective.errors.counts(*batch) for batch in batches]
    count = learner.summed(torch.stack(counts).sum(dim=0)).clamp_min(1)
    count = count * (count > 1).sum(dim=1, keepdim=True).clamp_min(1)  # the mean over kinds
    share, served = objective.config.model.balance, None
    if share and len(batches) > 1:
        served = served_by_all(learner, batches)
    total = torch.zeros_like(count)
    for number, batch in enumerate(batches, start=1):
        with learner.synchronised(last=number == len(batches)):
            with profile.part("forward"):
                losses = learner.errors(batch) / count
            loss = (losses.sum(dim=1) * weights.to(learner.device)).sum()
            if share and (routing := objective.errors.routing) is not None:
                every = learner.summed(routing[1]) if served is None else served
                loss = loss + share * balance_of(routing[0], every)
            with profile.part("backward"):
                (scale * processes * loss).backward()  # processes average their gradients
            total += losses.detach()
            note(objective.errors.usage)
    asked = torch.tensor([float(ask) for ask in asks]).to(total)
    every = learner.summed(torch.cat([total.sum(dim=1), asked])).tolist()
    return every[: len(total)], [ask > 0 for ask in every[len(total) :]]


@torch.no_grad()
def served_by_all(learner: Learner, batches: Sequence[Micro]) -> Tensor | None:
    """Slots that each expert serves, "calls layers experts", over all processes; None without
    experts."""
    errors, each = learner.objective.errors, []
    for batch in batches:
        learner.errors(batch)
        if errors.routing is None:
            return None
        each.append(errors.routing[1])
    return learner.summed(torch.stack(each).sum(dim=0))


def due(seen: int, every: int) -> bool:
    return every > 0 and seen % every == 0


@dataclass
class Clock:
    """When a checkpoint is due by the clock."""

    minutes: float

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.since = time.monotonic()

    def due(self) -> bool:
        return self.minutes > 0 and time.monotonic() - self.since > 60 * self.minutes
