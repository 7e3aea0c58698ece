"""What a run says while it trains: lines for people and for metrics.jsonl, what it cost, and
whether it waits for its data, said once and early enough to do something about it."""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stepsight import distributed
from stepsight.config import RunConfig
from stepsight.report.console import Console
from stepsight.training.feed import Feed
from stepsight.training.folder import RunWriter
from stepsight.training.learner import Learner
from stepsight.training.optim import rate
from stepsight.training.progress import Progress
from stepsight.training.spec import streamed

FIRST, LAST = 2, 10  # steps of this run, counted from 1, in which waiting is measured: the first
TOO_MUCH = 0.25  # starts readers and kernels. Share of the time that is worth a warning


@dataclass
class StallMonitor:
    """Sums over the measured steps. What fills banks and caches is made once and reports its own
    progress, so it counts neither as waiting nor as time."""

    steps: int = 0
    waited: float = 0.0
    spent: float = 0.0

    def step(self, waited: float, spent: float) -> float | None:
        """Count a step of `spent` seconds; after the last, the share waited if it is too much."""
        self.steps += 1
        if FIRST <= self.steps <= LAST:
            self.waited += waited
            self.spent += spent
        share = self.waited / self.spent if self.steps == LAST else 0.0
        return share if share > TOO_MUCH else None


def advice(config: RunConfig, share: float, cores: int) -> str:
    """The warning to a run that waits for its data."""
    training, remedies = config.training, []
    if streamed(config):
        remedies.append(f"raise training.workers (now {training.workers}; {cores} cores)")
        remedies.append("write shards of loose files with `stepsight data shard`")
        if any(one.crop_scale == 1 and not one.jitter for one in streamed(config).values()):
            remedies.append("set stream False, which keeps samples at working size")
    codes = not config.own_errors and config.diffusion.objective != "end_to_end"
    if codes and not training.latents and not streamed(config):
        remedies.append("keep coded samples with training.latents FOLDER")
    way_out = "; or ".join(remedies) or "raise the size of the model or the batch"
    return f"{share:.0%} of the time goes into waiting for data: {way_out}."


@dataclass
class Meter:
    """What is summed between two lines of the log."""

    loss: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    usage: dict[str, Tensor] = field(default_factory=dict)  # of experts by task, "layers experts"
    waited: float = 0.0
    since: float = field(default_factory=time.perf_counter)
    images: int = 0

    def use(self, usage: Mapping[str, Tensor]) -> None:
        """Count the tokens that each task sent to each expert."""
        for task, served in usage.items():
            self.usage[task] = self.usage.get(task, torch.zeros_like(served)) + served

    def restore(self, pending: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what a checkpoint holds of an unfinished line."""
        for task, losses in pending.get("loss", {}).items():
            self.loss[task] = list(losses)
        for task, counts in pending.get("usage", {}).items():
            served = torch.tensor(counts).to(device)  # of all processes together
            self.usage[task] = served if distributed.rank() == 0 else torch.zeros_like(served)

    def row(self) -> dict[str, float]:
        seconds = time.perf_counter() - self.since
        every = [loss for losses in self.loss.values() for loss in losses]
        row = {"loss": sum(every) / len(every) if every else math.nan}  # the mean over tasks
        row |= {f"loss/{task}": sum(one) / len(one) for task, one in sorted(self.loss.items())}
        return row | {"images_per_s": self.images / seconds, "data_share": self.waited / seconds}


@dataclass
class Log:
    """The voice of the loop."""

    learner: Learner
    feed: Feed
    progress: Progress
    writer: RunWriter
    console: Console

    def __post_init__(self) -> None:
        self.meter, self.stalls, self.validation_s = Meter(), StallMonitor(), 0.0
        self.meter.restore(self.progress.pending, self.learner.device)
        self.first_step, self.start_up_s = self.progress.step, self.writer.elapsed()
        self.began, self.cpu_began = time.perf_counter(), time.process_time()
        self.feed.making_s = 0.0  # what was made before the loop is start-up

    def learnt(self, losses: Mapping[str, float]) -> None:
        """Count the losses of a step that was applied, by task."""
        for task, value in losses.items():
            self.meter.loss[task].append(value)

    def step(self, making: float, reading: float, rest: float) -> None:
        """Count a step: the seconds that its parts took."""
        self.meter.images += self.learner.settings.batch
        self.meter.waited += making + reading
        share = self.stalls.step(reading, reading + rest)
        if share is not None:
            config, cores = self.learner.objective.config, len(os.sched_getaffinity(0))
            self.console.warn(advice(config, share, cores))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave a validation out of the speed of training."""
        clock, spent = time.perf_counter(), time.process_time()
        yield
        self.meter.since += time.perf_counter() - clock
        self.validation_s += time.process_time() - spent

    def suspend(self) -> None:
        """Leave what the next line sums, so far, to the checkpoint."""
        usage = {task: counts.long().tolist() for task, counts in self._usage().items()}
        self.progress.pending = {"loss": dict(self.meter.loss), "usage": usage}

    def line(self, steps: int) -> None:
        """One training line, and a fresh start of what it sums."""
        progress, row, shares = self.progress, self.meter.row(), self._usage_shares()
        settings = self.learner.settings
        lr = settings.lr * progress.rate * rate(settings, progress.images_seen)
        per_step = (time.perf_counter() - self.began) / max(progress.step - self.first_step, 1)
        self.console.train(
            progress.step,
            steps,
            images_seen=progress.images_seen,
            loss=row["loss"],
            losses={k.removeprefix("loss/"): v for k, v in row.items() if k.startswith("loss/")},
            images_per_s=row["images_per_s"],
            lr=lr,
            eta_s=per_step * (steps - progress.step),
            data_share=row["data_share"],
            **self._gpu_figures(row["images_per_s"]),
        )
        counts = self.feed.counts(progress.step).items()
        counted = {f"counts/{task}/{source}": count for (task, source), count in counts}
        last = {"lr": lr, "seconds": self.writer.elapsed()}
        self.writer.log(progress.stamp("train") | shares | counted | row | last)
        self.meter = Meter()

    def summary(self) -> None:
        """How often each source was seen, beside what the weights declared; and processor time of
        training, of making samples and of validation, over all processes."""
        mixture, step = self.feed.mixture, self.progress.step
        declared, total = mixture.declared(), max(step * mixture.batch, 1)
        lines = [
            f"{task} on {source} {count} ({count / total:.1%}, "
            f"declared {declared[task, source]:.1%})"
            for (task, source), count in self.feed.counts(step).items()
        ]
        if lines:
            self.console.note(f"images seen: {', '.join(lines)}")
        making, validating = self.feed.making_s, self.validation_s
        training = time.process_time() - self.cpu_began - making - validating
        mine = torch.tensor([training, making, validating]).to(self.learner.device)
        spent = self.learner.summed(mine).tolist()
        self.console.note(
            f"training {spent[0]:.0f} core-seconds, making samples {spent[1]:.0f}, "
            f"validation {spent[2]:.0f}; start-up {self.start_up_s:.0f} s, "
            f"wall {self.writer.elapsed():.0f} s"
        )

    def _usage_shares(self) -> dict[str, list[list[float]]]:
        """Share of a task's routed tokens that went to each expert, by layer."""
        shares = {}
        for task, counts in self._usage().items():
            share = counts / counts.sum(dim=1, keepdim=True).clamp_min(1)
            shares[f"experts/{task}"] = [[round(x, 4) for x in row] for row in share.tolist()]
        return shares

    def _usage(self) -> dict[str, Tensor]:
        """Tokens that each task sent to each expert, "layers experts", by all processes: all of
        them drew the same tasks."""
        every = sorted(self.meter.usage.items())
        return {task: self.learner.summed(served.double()) for task, served in every}

    def _gpu_figures(self, images_per_s: float) -> dict[str, float]:
        """Peak memory in GB and achieved TFLOP/s, on a GPU."""
        if self.learner.device.type != "cuda":
            return {}
        streams = self.feed.mixture.streams
        forward = sum(map(self.learner.objective.flops, streams)) / len(streams)
        flops = 3 * forward * images_per_s / self.learner.accelerator.num_processes
        return {"peak_gb": torch.cuda.max_memory_allocated() / 1e9, "tflops": flops / 1e12}
