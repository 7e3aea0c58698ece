"""Training: one loop, readable from top to bottom, in the order things happen.

Time is counted in images seen. Which samples, mirrored or not, at which noise levels and with
which noise: all are functions of (seed, number of the image), so that resuming is seeking and
nothing depends on the number of processes.
"""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from stepsight import checkpoint
from stepsight.data.mixture import Draw
from stepsight.errors import UserError
from stepsight.evaluation.evaluate import evaluate
from stepsight.evaluation.jobs import Plan
from stepsight.evaluation.records import identity_of
from stepsight.pipeline.dense import DensePipeline
from stepsight.report.console import Console
from stepsight.testtime.sweep import sweep
from stepsight.testtime.variants import starts_of
from stepsight.training.batches import codings_of, read_parts
from stepsight.training.folder import RunWriter
from stepsight.training.optim import descend, rate
from stepsight.training.setup import Setup
from stepsight.training.stalls import Watch, advice
from stepsight.training.state import publish
from stepsight.training.tuning import tuned
from stepsight.training.validation import validate


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

    def row(self) -> dict[str, float]:
        seconds = time.perf_counter() - self.since
        every = [one for losses in self.loss.values() for one in losses]
        row = {"loss": sum(every) / len(every)}  # the mean over tasks
        row |= {f"loss/{task}": sum(one) / len(one) for task, one in sorted(self.loss.items())}
        row |= {"images_per_s": self.images / seconds, "data_share": self.waited / seconds}
        return row


def train(s: Setup, run: RunWriter, console: Console) -> None:
    """Train from `s.step` to the end, logging, validating and saving on the way."""
    settings = s.config.training
    steps = settings.images // settings.batch
    meter, watch, started = Meter(), Watch(), time.perf_counter()
    if s.streamed:
        s.loader.begin(s.step)
    s.start_up_s, s.cpu_began = s.elapsed(), time.process_time()
    s.rendering_s = s.validation_s = 0.0

    for step in range(s.step, steps):
        # Data: the rows of this process, in the order of the global batch.
        clock = time.perf_counter()
        draw = s.mixture.draw(step)
        s.supply(draw)
        supplied = time.perf_counter()
        parts = [read_parts(s, draw, step, rows) for rows in s.micro_batches()]
        read = time.perf_counter()
        meter.waited += read - clock

        # Loss: for each task and kind of row the error divided by what counts in the whole batch.
        codings = [codings_of(s, own, step, rows) for own, rows in zip(parts, s.micro_batches())]
        kinds = [s.rows(step, rows) for rows in s.micro_batches()]
        counts = [s.objective.counts(own, rows) for own, rows in zip(codings, kinds)]
        count = s.summed(torch.stack(counts).sum(dim=0)).clamp_min(1)
        count = count * (count > 1).sum(dim=1, keepdim=True).clamp_min(1)  # the mean over kinds
        shares = torch.tensor([s.share(task, draw.stream) for task in draw.stream.tasks])
        total = torch.zeros_like(count)
        for index, (own, rows) in enumerate(zip(codings, kinds)):
            with s.synchronised(index == len(parts) - 1):
                with s.accelerator.autocast():
                    errors = s.model(own, rows)
                losses = errors.float() / count
                balance = s.config.model.balance * s.objective.balance / len(parts)
                loss = (losses.sum(dim=1) * shares.to(s.device)).sum()
                loss = loss * s.accelerator.num_processes + balance  # DDP averages
                s.accelerator.backward(loss)
                total += losses.detach()
                meter.use(s.objective.usage)
        by_task = s.summed(total).sum(dim=1).tolist()
        loss_value = sum(by_task)
        stop_if_not_finite(loss_value, step, draw, run)

        # Update.
        descend(s.net, s.optimizers, s.ema, settings, step * settings.batch)
        s.step = step + 1
        s.training_flops += 3 * s.flops_of(draw.stream) * settings.batch
        share = watch.step(read - supplied, time.perf_counter() - supplied)
        if share is not None:
            console.warn(advice(s.config, share, len(os.sched_getaffinity(0))))

        # Say, look, keep.
        seen = s.step * settings.batch
        for task, value in zip(draw.stream.tasks, by_task):
            meter.loss[task].append(value)
        meter.images += settings.batch
        if due(seen, settings.log_every) or s.step == steps:
            report(s, run, console, meter, steps, started)
            meter = Meter()
        last = s.step == steps
        if due(seen, settings.validate_every) or seen == settings.first_validation or last:
            meter.since += validate(s, run, console)
        if due(seen, settings.checkpoint_every) or s.is_best or last:
            save(s, run)
    s.loader.close()
    s.accelerator.wait_for_everyone()


def due(seen: int, every: int) -> bool:
    return every > 0 and seen % every == 0


def stop_if_not_finite(loss: float, step: int, draw: Draw, run: RunWriter) -> None:
    """All processes see the same loss, so all of them stop before the update."""
    if math.isfinite(loss):
        return
    good = [path.name for path in checkpoint.completed(run.checkpoints)]
    raise UserError(
        f"loss is {loss} at step {step}, task {draw.stream.label}, samples {list(draw.indices)} of "
        f"{draw.stream.source}. Weights were not updated. Lower training.lr, or continue from "
        f"{good[-1] if good else 'the start'} with another seed."
    )


def report(
    s: Setup, run: RunWriter, console: Console, meter: Meter, steps: int, started: float
) -> None:
    """One training line, for people and for metrics.jsonl."""
    seen = s.step * s.config.training.batch
    factor = rate(s.config.training, seen)
    row = meter.row()
    elapsed = time.perf_counter() - started
    done = s.step - s.started_at
    console.train(
        s.step,
        steps,
        images_seen=seen,
        loss=row["loss"],
        losses={k.removeprefix("loss/"): v for k, v in row.items() if k.startswith("loss/")},
        images_per_s=row["images_per_s"],
        lr=s.config.training.lr * factor,
        eta_s=elapsed / max(done, 1) * (steps - s.step),
        data_share=row["data_share"],
        **_gpu_figures(s, row["images_per_s"]),
    )
    shares = usage_shares(s, meter)
    if s.main:
        stamp = {"kind": "train", "step": s.step, "images_seen": seen} | shares | counts(s)
        run.log(stamp | row | {"lr": s.config.training.lr * factor, "seconds": s.elapsed()})


def counts(s: Setup) -> dict[str, int]:
    """Images so far, by task and source."""
    seen = s.mixture.counts(s.step)
    return {f"counts/{task}/{source}": count for (task, source), count in seen.items()}


def usage_shares(s: Setup, meter: Meter) -> dict[str, list[list[float]]]:
    """Share of a task's routed tokens that went to each expert, by layer, over all processes."""
    shares = {}
    for task in sorted(meter.usage):  # the same order everywhere: every process drew these tasks
        counts = s.summed(meter.usage[task].float())
        share = counts / counts.sum(dim=1, keepdim=True).clamp_min(1)
        shares[f"experts/{task}"] = [[round(one, 4) for one in row] for row in share.tolist()]
    return shares


def _gpu_figures(s: Setup, images_per_s: float) -> dict[str, float]:
    """Peak memory in GB and achieved TFLOP/s, on a GPU."""
    if s.device.type != "cuda":
        return {}
    forward = sum(map(s.flops_of, s.mixture.streams)) / len(s.mixture.streams)
    flops = 3 * forward * images_per_s / s.accelerator.num_processes
    return {"peak_gb": torch.cuda.max_memory_allocated() / 1e9, "tflops": flops / 1e12}


def save(s: Setup, run: RunWriter) -> None:
    """Write a checkpoint, point last (and best) at it, and delete old ones."""
    if s.main:
        publish(s, run)
    s.is_best = False
    s.accelerator.wait_for_everyone()


def finish(s: Setup, run: RunWriter, console: Console) -> Path:
    """The full evaluation, the sweep and the report, with the best checkpoint's weights."""
    from stepsight.report.run_page import write_report

    settings, sampler = s.config.evaluation, s.config.diffusion.sampler
    saved = checkpoint.read(run.path)
    pipeline = DensePipeline.from_pretrained(saved.path, s.device)
    if settings.tuning_images:
        facts = tuned(pipeline)
        if s.main:
            checkpoint.amend(saved.path, **facts)
        s.accelerator.wait_for_everyone()
        saved = checkpoint.read(saved.path)
        pipeline = DensePipeline.from_pretrained(saved.path, s.device)
    who = identity_of(saved, pipeline)
    sources = s.evaluation_sources
    common = dict(sampler=sampler, seed=settings.seed, rows=settings.batch, label=s.label)
    plan = Plan([], [], settings.images, usual=True, **common)  # type: ignore[arg-type]
    console.phase("evaluate", sum(min(plan.images or len(x), len(x)) for x in sources.values()))
    evaluate(run.path / "eval", pipeline, sources, plan, who, run.records, console.advance)
    if settings.sweep:
        grid = Plan(
            settings.sweep_nfe,
            settings.sweep_members,
            settings.sweep_images,
            **common,  # type: ignore[arg-type]
        )
        images = sum(min(grid.images or len(x), len(x)) for x in sources.values())
        console.phase("sweep", images * len(starts_of(s.config)))
        sweep(run.path / "sweep", pipeline, sources, grid, who, run.records, console.advance)
    if s.main:
        s.draw(pipeline, run.samples / "final.png", images=4)
        write_report(run.path)
    s.accelerator.wait_for_everyone()
    return run.path / "report.html"
