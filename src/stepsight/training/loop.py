"""Training: one loop, readable from top to bottom, in the order things happen.

Time is counted in images seen. Which samples, mirrored or not, at which noise levels and with
which noise: all are functions of (seed, number of the image), so that resuming is seeking and
nothing depends on the number of processes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stepsight import checkpoint, distributed
from stepsight.data.mixture import Draw
from stepsight.errors import UserError
from stepsight.report.console import Console
from stepsight.training.feed import Feed
from stepsight.training.folder import RunWriter
from stepsight.training.learner import Learner
from stepsight.training.log import Log
from stepsight.training.progress import Progress


def train(
    learner: Learner, feed: Feed, progress: Progress, writer: RunWriter, console: Console
) -> None:
    """Train from `progress.step` to the end, logging, validating and saving on the way."""
    objective, settings = learner.objective, learner.settings
    steps = settings.images // settings.batch
    feed.begin(progress.step)
    log = Log(learner, feed, progress, writer, console)

    for step in range(progress.step, steps):
        # Batch: the rows of this process, in the order of the global batch.
        began = time.perf_counter()
        draw = feed.draw(step)
        drawn = time.perf_counter()
        parts = [objective.read(feed, draw, step, rows) for rows in feed.micro_batches]
        read = time.perf_counter()

        # Loss: its gradient, micro-batch by micro-batch.
        pairs = zip(parts, feed.micro_batches)
        batches = [objective.prepare(part, step, rows) for part, rows in pairs]
        losses = gradient(learner, batches, feed.weights(draw.stream), log)
        stop_if_not_finite(sum(losses), step, draw, writer)

        # Update.
        learner.descend(progress.images_seen)
        progress.advance(settings.batch, 3 * objective.flops(draw.stream) * settings.batch)

        # Say.
        last, seen = progress.step == steps, progress.images_seen
        by_task = dict(zip(draw.stream.tasks, losses))
        log.step(by_task, drawn - began, read - drawn, time.perf_counter() - read)
        if due(seen, settings.log_every) or last:
            log.line(steps)

        # Keep.
        best = False
        if due(seen, settings.validate_every) or seen == settings.first_validation or last:
            with log.paused(), learner.averaged():
                best = objective.validate(progress, writer, console)
        if due(seen, settings.checkpoint_every) or best or last:
            learner.save(feed, progress, writer, best)
    feed.close()
    distributed.barrier()
    log.summary()


def gradient(
    learner: Learner, batches: Sequence[tuple[Any, ...]], weights: Tensor, log: Log
) -> list[float]:
    """Add the gradient of a batch to the network's; the losses of its tasks.

    For each task and kind of row the error is divided by what counts in the whole batch, over all
    processes, and the mean is taken over kinds. weights: of the tasks in the loss.
    """
    objective, accelerator = learner.objective, learner.accelerator
    counts = [objective.errors.counts(*batch) for batch in batches]
    count = learner.summed(torch.stack(counts).sum(dim=0)).clamp_min(1)
    count = count * (count > 1).sum(dim=1, keepdim=True).clamp_min(1)  # the mean over kinds
    total = torch.zeros_like(count)
    for number, batch in enumerate(batches, start=1):
        with learner.synchronised(last=number == len(batches)):
            with accelerator.autocast():
                errors = learner.module(*batch)
            losses = errors.float() / count
            balance = objective.config.model.balance * objective.errors.balance / len(batches)
            loss = (losses.sum(dim=1) * weights.to(learner.device)).sum()
            loss = loss * accelerator.num_processes + balance  # DDP averages
            accelerator.backward(loss)
            total += losses.detach()
            log.meter.use(objective.errors.usage)
    return learner.summed(total).sum(dim=1).tolist()


def due(seen: int, every: int) -> bool:
    return every > 0 and seen % every == 0


def stop_if_not_finite(loss: float, step: int, draw: Draw, writer: RunWriter) -> None:
    """All processes see the same loss, so all of them stop before the update."""
    if math.isfinite(loss):
        return
    good = [path.name for path in checkpoint.completed(writer.checkpoints)]
    raise UserError(
        f"loss is {loss} at step {step}, task {draw.stream.label}, samples {list(draw.indices)} of "
        f"{draw.stream.source}. Weights were not updated. Lower training.lr, or continue from "
        f"{good[-1] if good else 'the start'} with another seed."
    )
