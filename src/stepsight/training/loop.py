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
from stepsight.training.ahead.outcome import Outcomes
from stepsight.training.ahead.prefetch import Ready, prefetched
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
    steps = range(progress.step, settings.images // settings.batch)
    feed.begin(progress.step)
    log = Log(learner, feed, progress, writer, console)
    recovery, clock = Recovery(learner, progress, writer, console), Clock(settings.save_minutes)
    outcomes = Outcomes(learner, progress, recovery, log)

    with prefetched(objective, feed, steps) as ahead:
        for step in steps:
            # Batch: the rows of this process, in the order of the global batch, on its device.
            distributed.phase(f"step {step + 1}: data")
            with profile.part("data wait"):
                batch = ahead.take(step)
            began = time.perf_counter()

            # Loss: its gradient, micro-batch by micro-batch.
            distributed.phase(f"step {step + 1}")
            asks, scale = (bool(signals.requested()), clock.due()), learner.scale(progress)
            told = gradient(learner, batch, scale, asks, log.meter.use)
            if outcomes.settle():  # of the step before, whose weights these were
                learner.forget()
                told = gradient(learner, batch, scale, asks)

            # Update, if all is well.
            outcomes.launched(batch.draw, told, learner.descend(progress, told[: -len(asks)]))
            flops = 3 * objective.flops(batch.draw.stream)
            progress.advance(settings.batch, flops * settings.batch)
            if learner.precision == "fp16":
                outcomes.settle()  # the scale of the next loss follows from it

            # Say.
            last, seen = step == steps[-1], progress.images_seen
            log.step(batch.drawing, batch.waited, time.perf_counter() - began)
            if due(seen, settings.log_every) or last:
                outcomes.settle()
                log.line(steps.stop)

            # Keep, if it is fit to be kept.
            measured, stop = profile.stepped(), outcomes.stop or profile.over()
            look = due(seen, settings.validate_every) or seen == settings.first_validation or last
            keep = due(seen, settings.checkpoint_every) or last or outcomes.save
            keep = keep or seen in settings.keep_at
            if measured:  # what is being measured is neither scored nor kept on the way
                look, keep = False, False
            if not (look or keep or stop):
                continue
            outcomes.settle()
            if fault := recovery.unfit(batch.micro_batches):
                recovery.met_unfit(fault)
            best = False
            if look:
                after = f"validation after step {progress.step}"
                distributed.phase(after, patience=distributed.SETUP)
                with log.paused(), learner.averaged() as net:
                    best = objective.validate(net, progress, writer, console)
            if keep or best or stop:
                distributed.phase(f"checkpoint after step {progress.step}")
                log.suspend()
                with profile.part("checkpoint"):
                    learner.save(feed, progress, writer, best)
                clock.reset()
                outcomes.save = False
            if stop and not last:
                break
        outcomes.settle()
    feed.close()
    learner.saver.close()
    distributed.barrier()
    log.summary()
    if progress.step < steps.stop and not profile.over():
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
    batch: Ready,
    scale: float = 1.0,
    asks: Sequence[bool] = (),
    note: Callable[[Mapping[str, Tensor]], None] = lambda usage: None,
) -> Tensor:
    """Add the gradient of a batch, times `scale`, to the network's; the losses of its tasks, and
    then how many processes have each of the `asks`. All of it is left to the device.

    For each task and kind of row the error is divided by what counts in the whole batch, over all
    processes, and the mean is taken over kinds. What the experts served is summed over the whole
    batch too, before their load-balance loss is made of it: for several micro-batches by a pass
    ahead without gradient. note: is told of each micro-batch what its experts served.
    """
    objective, processes, parts = learner.objective, distributed.world(), batch.micro_batches
    counts = [objective.errors.counts(*part) for part in parts]
    count = learner.summed(torch.stack(counts).sum(dim=0)).clamp_min(1)
    count = count * (count > 1).sum(dim=1, keepdim=True).clamp_min(1)  # the mean over kinds
    share, served = objective.config.model.balance, None
    if share and len(parts) > 1:
        served = served_by_all(learner, parts)
    total = torch.zeros_like(count)
    for number, part in enumerate(parts, start=1):
        with learner.synchronised(last=number == len(parts)):
            with profile.part("forward"):
                losses = learner.errors(part) / count
            loss = (losses.sum(dim=1) * batch.weights).sum()
            if share and (routing := objective.errors.routing) is not None:
                every = learner.summed(routing[1]) if served is None else served
                loss = loss + share * balance_of(routing[0], every)
            with profile.part("backward"):
                (scale * processes * loss).backward()  # processes average their gradients
            total += losses.detach()
            note(objective.errors.usage)
    asked = [total.new_full((1,), float(ask)) for ask in asks]  # filled there, not sent there
    return learner.summed(torch.cat([total.sum(dim=1), *asked]))


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
